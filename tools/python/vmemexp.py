# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""Memory of a Python program as a dma-buf, by way of /dev/vmemexp.

Whatever has the buffer protocol can be exported where it lies: a NumPy array, an mmap, a
bytearray.  Drivers that import dma-bufs, and processes that are sent the descriptor, work
on the same bytes, without a copy::

    import numpy, vmemexp

    frame = numpy.frombuffer(vmemexp.alloc(480 * 640 * 4), numpy.uint32).reshape(480, 640)
    with vmemexp.Export(frame) as export:
        import_into_a_driver(export.fd)
        with export.access(vmemexp.WRITE):
            frame[:] = 0x00ff00

Several pieces of memory can become one dma-buf: Export([luma, chroma]).

Only whole pages can be exported, unless ROUND is given; alloc() gives such.  Errors
are OSErrors with the reason in words, by the same sentences as those of
vmemexp_strerror(3).
"""
import contextlib
import ctypes
import errno
import functools
import mmap
import os
import struct

__all__ = ["Export", "alloc", "RDONLY", "CONTIGUOUS", "ROUND", "READ", "WRITE", "RW", "START",
           "END", "OBSERVER"]

# Flags of Export, as those of vmemexp_export(3).
RDONLY = 1
CONTIGUOUS = 2
ROUND = 4
_ALL_FLAGS = RDONLY | CONTIGUOUS | ROUND

# Flags of Export.sync() and Export.access(), VMEMEXP_SYNC_* of <vmemexp.h>.
READ = 1
WRITE = 2
RW = READ | WRITE
START = 0
END = 4
OBSERVER = 8

# struct vmemexp_export and struct vmemexp_sync; all fields lie where they would without "=".
_EXPORT = struct.Struct("=IIQQIiQQQIIQIIQII")
_SYNC = struct.Struct("=IiIIQQQ")
# As all architectures number ioctls that the driver is built for.
_IOC_EXPORT = 0xc000d700
_IOC_SYNC = 0xc000d701
_DMA_BUF_IOCTL_SYNC = 0x40086200

_EXPORT_UNALIGNED = 1
_EXPORT_CONTIGUOUS = 2
_MAX_RANGES = 1024

# How often an export is tried whose mappings change meanwhile.
_MAX_TRIES = 16
_REASON_CHANGED = 16
_REASON_RANGES = 22

# By VMEMEXP_REASON_*. The address that the reason is about goes where %#x stands.
_REASONS = (
    None,
    "the flags are wrong",
    "the length is zero or too large for memory at %#x",
    "%#x is not a multiple of the page size",
    "it would exceed RLIMIT_MEMLOCK at %#x",
    "%#x is not mapped",
    "%#x is not readable",
    "%#x is not writable, only a read-only export is possible",
    "the kind of memory at %#x may not be exported, or not for writing",
    "%#x is memory of a driver that is not listed in carveouts=",
    "no page can be had at %#x: beyond the end of the file, or no room for it",
    "the kernel refuses to pin %#x",
    "the memory is not physically contiguous, it breaks at %#x",
    "%#x is memory of the kernel that a driver mapped, not listed in carveouts=",
    "memory of another nature begins at %#x, it wants an export of its own",
    "%#x is a private mapping of a driver's memory, use a shared one",
    "the mapping at %#x changes at this moment",
    "%#x is a mapping of a dma-buf that has another access mode",
    "%#x is a mapping of a part of a dma-buf, of which you have no descriptor",
    "you have as many buffers as the driver's max_buffers= allows",
    "the memory at %#x is broken",
    "%#x is memory of a driver, and this machine encrypts its memory",
    "the list of ranges is empty, too long, or not one",
)


class _Buffer(ctypes.Structure):
    """Py_buffer of the C API: the standard library has no other way to an address."""

    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
                ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int),
                ("ndim", ctypes.c_int), ("format", ctypes.c_char_p),
                ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p)]


_PyBUF_FULL_RO = 0x11c


def _address(view):
    """The address of the first byte of a contiguous memoryview."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer),
                                        _PyBUF_FULL_RO)
    try:
        # The address of an empty buffer may be NULL.
        return buffer.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


# fcntl.ioctl() does not give the answer back with an error, from Python 3.14 on.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def _ioctl(fd, request, argument):
    """ioctl() with a bytearray, which has the answer then, also if OSError is raised.

    It is called again after a signal, whose handler may raise an exception.
    """
    buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
    while True:
        # By one map(), or a signal's handler could run between the two, and change errno.
        result, error = map(functools.partial.__call__,
                            (functools.partial(_libc.ioctl, fd, request, buffer),
                             functools.partial(ctypes.get_errno)))
        if result >= 0:
            return
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))


def _sentence(error, reason, address):
    """A sentence on why an export failed."""
    text = _REASONS[reason] if reason < len(_REASONS) else None
    if text:
        return text % address if "%" in text else text
    # So a driver answers that does not know a field.
    if error == errno.E2BIG:
        return "the driver is too old for several ranges in one dma-buf"
    return os.strerror(error)


def alloc(length):
    """Memory of at least that many bytes, in whole pages: a private anonymous mmap."""
    if length <= 0:
        raise OSError(errno.EINVAL, "there is no memory of %d bytes" % length)
    size = (length + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Export:
    """One dma-buf of memory that the program has.

    memory has the buffer protocol and is contiguous.  It is kept alive, and in its place,
    until close(): a bytearray cannot change its length meanwhile, an mmap cannot be closed.
    The pages count against RLIMIT_MEMLOCK until close(), or for as long as others have the
    dma-buf.

    memory may also be a list or a tuple of up to 1024 such objects, which the dma-buf shows
    one after the other, each in whole pages.  They may overlap.  A driver that is too old
    for that refuses with E2BIG.

    flags is 0 or any of these:

    RDONLY      the dma-buf cannot be written, which many drivers do not take;
                memory that is not writable can be exported in no other way
    CONTIGUOUS  fail with ERANGE unless the pages are one contiguous extent
    ROUND       memory may begin and end anywhere: the dma-buf has all pages that it
                touches, and with them what else is there, for its importers to read and
                write; of a list, the first may begin so, and the last end

    OSError is raised with the errno of the driver and its reason in words; with EACCES if
    memory is not writable and RDONLY was not given; with EINVAL if it is not contiguous.
    """

    # Also of an object whose __init__() was called with wrong arguments.
    _fd = _device = -1
    _views = None

    def __init__(self, memory, flags=0, device="/dev/vmemexp"):
        if flags & ~_ALL_FLAGS:
            raise OSError(errno.EINVAL, _REASONS[1])
        views = [memoryview(part) for part in
                 (memory if isinstance(memory, (list, tuple)) else [memory])]
        if not 1 <= len(views) <= _MAX_RANGES:
            raise OSError(errno.EINVAL, _REASONS[_REASON_RANGES])
        if not all(view.contiguous for view in views):
            raise OSError(errno.EINVAL, "the memory is not contiguous: it has strides")
        if any(view.readonly for view in views) and not flags & RDONLY:
            raise OSError(errno.EACCES, "the memory is read-only, as its Python object says: "
                                        "only a read-only export is possible")
        self._device = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._export([(_address(view), view.nbytes) for view in views], flags)
        except BaseException:
            self.close()
            raise
        self._views = views
        self._length = sum(view.nbytes for view in views)

    def _export(self, parts, flags):
        if flags & ROUND:
            # Its own first and last page are all that ROUND adds.
            driver_flags = _EXPORT_UNALIGNED
        else:
            driver_flags = 0
        if flags & CONTIGUOUS:
            driver_flags |= _EXPORT_CONTIGUOUS
        access = os.O_RDONLY if flags & RDONLY else os.O_RDWR
        # A single range goes without a list, so that old drivers take it.
        address, length = parts[0] if len(parts) == 1 else (0, 0)
        array = (ctypes.c_uint64 * (2 * len(parts)))(*(number for part in parts for number in part))
        ranges, nr_ranges = (0, 0) if len(parts) == 1 else (ctypes.addressof(array), len(parts))

        for tries in range(_MAX_TRIES):
            answer = bytearray(_EXPORT.pack(_EXPORT.size, driver_flags, address, length,
                                            access | os.O_CLOEXEC, -1, 0, 0, 0, 0, 0, 0, 0, 0,
                                            ranges, nr_ranges, 0))
            try:
                _ioctl(self._device, _IOC_EXPORT, answer)
                break
            except OSError as error:
                _, _, _, _, _, _, _, _, _, _, reason, where, _, _, _, _, index = \
                    _EXPORT.unpack(answer)
                if reason == _REASON_CHANGED and tries + 1 < _MAX_TRIES:
                    continue
                why = _sentence(error.errno, reason, where)
                if nr_ranges and where:
                    why += " (in number %d of the list)" % index
                raise OSError(error.errno, why) from None
        (_, _, _, _, _, self._fd, self._offset, self._size, extents, _, _, _, state, _, _, _,
         _) = _EXPORT.unpack(answer)
        # The extents of a dma-buf that another driver has exported are not known.
        self._foreign = not extents and not state

    def _check_open(self):
        if self._fd < 0:
            raise OSError(errno.EBADF, "the export is closed")

    @property
    def fd(self):
        """The descriptor of the dma-buf, which is open until close(): os.dup() it to keep it."""
        self._check_open()
        return self._fd

    def fileno(self):
        """The same, for what takes objects that are like files."""
        return self.fd

    @property
    def offset(self):
        """Where the (first) memory begins in the dma-buf: 0 unless ROUND was given, or the
        memory is itself a mapping of a dma-buf."""
        self._check_open()
        return self._offset

    @property
    def size(self):
        """Bytes in the dma-buf, a multiple of the page size."""
        self._check_open()
        return self._size

    @property
    def closed(self):
        """True after close()."""
        return self._fd < 0

    def sync(self, flags, offset=0, length=None, rows=1, stride=0):
        """Begin or end access by the CPU, while devices have the dma-buf mapped.

        flags is START before the first access or END behind the last one, with READ, WRITE
        or both (RW), and OBSERVER if the partner is a processor beside Linux that sees
        memory and not the caches.  The bytes are counted from the first one of the memory, on
        through all of a list: length of them at offset (by default all from there on), in
        each of so many rows that lie stride bytes apart.  START waits for the work of devices
        that fences announce.
        """
        self._check_open()
        if length is None:
            length = self._length - offset
        if min(offset, rows, stride) < 0 or length < 1 or offset + length > self._length:
            raise OSError(errno.EINVAL, "bytes %d to %d are not inside the %d of the memory" %
                          (offset, offset + length, self._length))
        if rows > 1 and (stride < length or
                         offset + (rows - 1) * stride + length > self._length):
            raise OSError(errno.EINVAL, "%d rows of %d bytes, %d apart, are not inside the "
                          "memory" % (rows, length, stride))
        if not flags & RW or flags & ~(RW | END | OBSERVER):
            raise OSError(errno.EINVAL, _REASONS[1])
        if self._foreign:
            self._sync_foreign(flags)
        else:
            _ioctl(self._device, _IOC_SYNC,
                   bytearray(_SYNC.pack(_SYNC.size, self._fd, flags, rows, self._offset + offset,
                                        length, stride)))

    def _sync_foreign(self, flags):
        # All of it, as the dma-buf core can; and that knows of no observers.
        if flags & OBSERVER:
            raise OSError(errno.EINVAL, "another driver has exported the dma-buf")
        for tries in range(_MAX_TRIES):
            try:
                _ioctl(self._fd, _DMA_BUF_IOCTL_SYNC, bytearray(struct.pack("=Q", flags)))
                return
            except BlockingIOError:
                if tries + 1 == _MAX_TRIES:
                    raise

    @contextlib.contextmanager
    def access(self, flags=RW, offset=0, length=None, rows=1, stride=0):
        """sync() with START before the with block, and with END behind it."""
        self.sync(START | flags, offset, length, rows, stride)
        try:
            yield self
        finally:
            self.sync(END | flags, offset, length, rows, stride)

    def close(self):
        """Let go of the memory.  Others that have the dma-buf keep it.  May be repeated."""
        dmabuf, device = self._fd, self._device
        self._fd = self._device = -1
        for fd in (dmabuf, device):
            if fd >= 0:
                os.close(fd)
        self._views = None

    def __enter__(self):
        self._check_open()
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def __reduce__(self):
        # A copy would close the descriptors of the original.
        raise TypeError("cannot copy or pickle %r" % self)

    def __repr__(self):
        if self.closed:
            return "<vmemexp.Export, closed>"
        return "<vmemexp.Export of %d bytes, fd %d>" % (self._length, self._fd)

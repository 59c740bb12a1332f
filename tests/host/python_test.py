# SPDX-License-Identifier: GPL-2.0
"""vmemexp.py without a driver: what it refuses, what it asks of the driver and how often,
and that its numbers and sentences are those of the header and of libvmemexp.

Usage: python3 python_test.py LIBVMEMEXP.SO ABI-RECORDED
"""
import copy
import ctypes
import errno
import gc
import mmap
import os
import pickle
import re
import signal
import struct
import sys
import termios
import unittest
import weakref
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools/python"))
import vmemexp  # noqa: E402  pylint: disable=wrong-import-position

PAGE = mmap.PAGESIZE


class Driver:
    """Answers ioctls as the driver does, for memfds as dma-bufs."""

    def __init__(self):
        self.exports, self.syncs, self.whole = [], [], []
        self.ranges = []
        self.errors, self.wrong_range = [], 0
        self.is_old = False
        self.extents, self.state, self.offset = 1, 2, 0

    @staticmethod
    def fail(error):
        """As the C library's functions do."""
        ctypes.set_errno(error)
        return -1

    def ioctl(self, fd, request, argument):
        """In place of the C library's ioctl()."""
        if self.errors:
            error, reason, where = self.errors.pop(0)
            if request == vmemexp._IOC_EXPORT:
                struct.pack_into("=IQ", argument, 60, reason, where)
                struct.pack_into("=I", argument, 92, self.wrong_range)
            return self.fail(error)
        if request == vmemexp._IOC_EXPORT:
            fields = list(vmemexp._EXPORT.unpack(argument))
            if self.is_old and any(argument[80:]):
                return self.fail(errno.E2BIG)
            self.exports.append(fields[:])
            numbers = (ctypes.c_uint64 * (2 * fields[15])).from_address(fields[14] or 1)
            self.ranges = list(zip(numbers[::2], numbers[1::2]))
            fields[5] = os.memfd_create("fake")
            fields[6], fields[7], fields[8], fields[12] = self.offset, 16 * PAGE, self.extents, self.state
            vmemexp._EXPORT.pack_into(argument, 0, *fields)
        elif request == vmemexp._IOC_SYNC:
            self.syncs.append(vmemexp._SYNC.unpack(argument))
        elif request == vmemexp._DMA_BUF_IOCTL_SYNC:
            self.whole.append((fd, struct.unpack("=Q", argument)[0]))
        else:
            return self.fail(errno.ENOTTY)
        return 0


class Base(unittest.TestCase):
    """With a driver; all descriptors are closed at the end."""

    def setUp(self):
        self.driver = Driver()
        patch = mock.patch.object(vmemexp._libc, "ioctl", self.driver.ioctl)
        patch.start()
        self.addCleanup(patch.stop)
        self.open = os.listdir("/proc/self/fd")

    def tearDown(self):
        gc.collect()
        self.assertEqual(self.open, os.listdir("/proc/self/fd"))

    def export(self, memory, flags=0):
        """On a device that is there everywhere."""
        return vmemexp.Export(memory, flags, device="/dev/null")

    def assert_error(self, error, words, call, *arguments):
        """The errno, and a regular expression of the reason."""
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(errno.errorcode[error], errno.errorcode[caught.exception.errno])
        self.assertRegex(caught.exception.strerror, words)


class Record(unittest.TestCase):
    """Numbers and sentences that are written down elsewhere."""

    record = libvmemexp = None

    def test_numbers_are_those_of_the_header(self):
        """Also those that only libvmemexp has."""
        recorded = {name: int(value) for name, value in
                    re.findall(r"^VMEMEXP_(\w+) (\d+)$", self.record, re.M)}
        for name in ("READ", "WRITE", "RW", "START", "END", "OBSERVER"):
            self.assertEqual(recorded["SYNC_" + name], getattr(vmemexp, name), name)
        for name in ("IOC_EXPORT", "IOC_SYNC", "EXPORT_UNALIGNED", "EXPORT_CONTIGUOUS",
                     "REASON_CHANGED", "REASON_RANGES", "MAX_RANGES"):
            self.assertEqual(recorded[name], getattr(vmemexp, "_" + name), name)
        reasons = [name for name in recorded if name.startswith("REASON_")]
        self.assertEqual(len(reasons), len(vmemexp._REASONS))
        header = Path(__file__).resolve().parents[2] / "tools/lib/libvmemexp.h"
        flags = dict(re.findall(r"^#define VMEMEXP_(\w+)\s+0x(\d)U$", header.read_text(), re.M))
        self.assertEqual({name: int(value) for name, value in flags.items()},
                         {name: getattr(vmemexp, name) for name in ("RDONLY", "CONTIGUOUS", "ROUND")})

    def test_structures_are_those_of_the_header(self):
        """Offset and size of each field."""
        codes = {("__u32", 4): "I", ("__s32", 4): "i", ("__u64", 8): "Q"}
        for name, layout in (("export", vmemexp._EXPORT), ("sync", vmemexp._SYNC)):
            fields = re.findall(rf"^struct vmemexp_{name} (\d+)\+(\d+) (\w+) \w+$", self.record, re.M)
            self.assertEqual("=" + "".join(codes[kind, int(size)] for _, size, kind in fields),
                             layout.format)
            for nr, (offset, _, _) in enumerate(fields):
                self.assertEqual(int(offset), struct.calcsize(layout.format[:nr + 1]))

    def test_sentences_are_those_of_the_library(self):
        """Each with an address, and one that is not known."""
        class Error(ctypes.Structure):
            """struct vmemexp_error"""
            _fields_ = [("err", ctypes.c_int), ("reason", ctypes.c_uint32), ("addr", ctypes.c_uint64)]

        strerror = ctypes.CDLL(self.libvmemexp).vmemexp_strerror
        strerror.restype = ctypes.c_char_p
        for reason in range(len(vmemexp._REASONS) + 1):
            text = ctypes.create_string_buffer(256)
            for error in (errno.EPERM, errno.E2BIG):
                strerror(ctypes.byref(Error(error, reason, 0x7f1234567000)), text, ctypes.c_size_t(256))
                self.assertEqual(text.value.decode(), vmemexp._sentence(error, reason, 0x7f1234567000))


class Exporting(Base):
    """Memory is exported as it is."""

    def test_the_driver_is_asked_for_exactly_the_memory(self):
        """By address, length and access."""
        memory = vmemexp.alloc(3 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for flags, driver_flags, access in ((0, 0, os.O_RDWR), (vmemexp.RDONLY, 0, os.O_RDONLY),
                                            (vmemexp.ROUND, 1, os.O_RDWR),
                                            (vmemexp.ROUND | vmemexp.CONTIGUOUS, 3, os.O_RDWR)):
            with self.export(memory, flags) as export:
                self.assertEqual([96, driver_flags, address, 3 * PAGE, access | os.O_CLOEXEC, -1] +
                                 11 * [0], self.driver.exports.pop())
                self.assertEqual((0, 16 * PAGE), (export.offset, export.size))
                self.assertEqual(export.fd, export.fileno())
            part = memoryview(memory)[PAGE + 1:2 * PAGE]
            with self.export(part, flags):
                self.assertEqual([address + PAGE + 1, PAGE - 1], self.driver.exports.pop()[2:4])

    def test_several_are_one_list(self):
        """In their order, also if they overlap; one of them is as if there were no list."""
        memory = vmemexp.alloc(8 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        view = memoryview(memory)
        parts = [view[4 * PAGE:6 * PAGE], view[:PAGE], view[5 * PAGE:]]
        for several in (parts, tuple(parts)):
            with self.export(several, vmemexp.CONTIGUOUS) as export:
                asked = self.driver.exports.pop()
                self.assertEqual([96, 2, 0, 0, os.O_RDWR | os.O_CLOEXEC, -1] + 8 * [0], asked[:14])
                self.assertEqual([3, 0], asked[15:])
                self.assertEqual([(address + 4 * PAGE, 2 * PAGE), (address, PAGE),
                                  (address + 5 * PAGE, 3 * PAGE)], self.driver.ranges)
                self.assertIn("of %d bytes" % (6 * PAGE), repr(export))
        with self.export(parts[:1]):
            self.assertEqual([address + 4 * PAGE, 2 * PAGE], self.driver.exports[0][2:4])
            self.assertEqual([0, 0, 0], self.driver.exports[0][14:])
        with self.export(vmemexp._MAX_RANGES * [memory]):
            self.assertEqual(vmemexp._MAX_RANGES * [(address, 8 * PAGE)], self.driver.ranges)

    def test_each_of_several_is_kept_alive_and_in_its_place(self):
        """Until close()."""
        memories = [bytearray(10), bytearray(20)]
        with self.export(memories):
            for memory in memories:
                self.assertRaises(BufferError, memory.extend, b"more")
        for memory in memories:
            memory.extend(b"more")

    def test_what_is_no_list_of_memory_is_refused(self):
        """Before the driver is asked, and as it would; whichever of them is wrong."""
        for several in ([], (), (vmemexp._MAX_RANGES + 1) * [bytearray(1)]):
            self.assert_error(errno.EINVAL, "list of ranges is empty, too long", self.export, several)
        self.assertRaises(TypeError, self.export, [bytearray(1), 1])
        self.assertRaises(TypeError, self.export, [[bytearray(1)]])
        self.assert_error(errno.EINVAL, "not contiguous", self.export,
                          [bytearray(1), memoryview(bytearray(10))[::2]])
        self.assert_error(errno.EACCES, "read-only", self.export, [bytearray(1), b"bytes"])
        self.assertEqual([], self.driver.exports)
        self.export([bytearray(1), b"bytes"], vmemexp.RDONLY).close()

    def test_which_of_several_is_wrong_is_told(self):
        """Unless it is none of them."""
        two = [bytearray(1), bytearray(1)]
        self.driver.errors, self.driver.wrong_range = [(errno.EFAULT, 5, 0x5000)], 1
        self.assert_error(errno.EFAULT, r"^0x5000 is not mapped \(in number 1 of the list\)$",
                          self.export, two)
        self.driver.errors, self.driver.wrong_range = [(errno.ENFILE, 0, 0)], 0
        self.assert_error(errno.ENFILE, "^Too many open files in system$", self.export, two)

    def test_an_old_driver_takes_one_alone(self):
        """The message for several says no more than E2BIG."""
        self.driver.is_old = True
        self.export([bytearray(1)]).close()
        self.assert_error(errno.E2BIG, "^the driver is too old for several ranges in one dma-buf$",
                          self.export, [bytearray(1), bytearray(1)])

    def test_memory_is_kept_alive_and_in_its_place(self):
        """Until close()."""
        memory, mapped = bytearray(100), vmemexp.alloc(1)
        with self.export(memory), self.export(mapped):
            self.assertRaises(BufferError, memory.extend, b"more")
            self.assertRaises(BufferError, mapped.close)
        memory.extend(b"more")
        mapped.close()

        class Memory(bytearray):
            """Can be looked at from afar."""

        memory = Memory(10)
        alive = weakref.ref(memory)
        export = self.export(memory)
        del memory
        gc.collect()
        self.assertIsNotNone(alive())
        del export
        gc.collect()
        self.assertIsNone(alive())

    def test_wrong_memory_is_refused(self):
        """Before the driver is asked."""
        self.assertRaises(TypeError, self.export, 1)
        self.assertRaises(TypeError, self.export, "text")
        self.assert_error(errno.EINVAL, "not contiguous", self.export, memoryview(bytearray(10))[::2])
        self.assert_error(errno.EACCES, "read-only", self.export, b"bytes")
        self.assert_error(errno.EINVAL, "flags are wrong", self.export, bytearray(1), 8)
        self.assert_error(errno.EINVAL, "flags are wrong", self.export, bytearray(1), -1)
        self.assertEqual([], self.driver.exports)
        self.export(b"bytes", vmemexp.RDONLY).close()

    def test_no_device(self):
        """The errno is that of open()."""
        self.assert_error(errno.ENOENT, "No such file", vmemexp.Export, bytearray(1), 0, "/dev/none")

    def test_the_drivers_reason_is_told(self):
        """The message says why, or has the errno alone."""
        self.driver.errors = [(errno.ENOMEM, 4, 0x1234000)]
        self.assert_error(errno.ENOMEM, "^it would exceed RLIMIT_MEMLOCK at 0x1234000$",
                          self.export, bytearray(1))
        for reason in (0, 99):
            self.driver.errors = [(errno.ENFILE, reason, 0)]
            self.assert_error(errno.ENFILE, "^Too many open files in system$", self.export, bytearray(1))

    def test_signals_and_changes_are_tried_again(self):
        """The latter not for ever."""
        self.driver.errors = 3 * [(errno.EINTR, 0, 0)] + 5 * [(errno.EAGAIN, 16, 0x5000)]
        self.export(bytearray(1)).close()
        self.driver.errors = [(errno.EAGAIN, 11, 0x5000)]
        self.assert_error(errno.EAGAIN, "refuses to pin 0x5000", self.export, bytearray(1))
        self.driver.errors = 100 * [(errno.EAGAIN, 16, 0x5000)]
        self.assert_error(errno.EAGAIN, "0x5000 changes", self.export, bytearray(1))
        self.assertEqual(84, len(self.driver.errors))
        self.driver.errors.clear()

    def test_closed(self):
        """Nothing works any more, and close() may be repeated."""
        export = self.export(bytearray(1))
        self.assertFalse(export.closed)
        export.close()
        export.close()
        self.assertTrue(export.closed)
        for call in (lambda: export.fd, lambda: export.offset, lambda: export.size, export.fileno,
                     lambda: export.sync(vmemexp.START | vmemexp.RW), export.__enter__):
            self.assert_error(errno.EBADF, "closed", call)

    def test_an_export_cannot_be_copied(self):
        """The descriptors are closed once."""
        with self.export(bytearray(1)) as export:
            for call in (copy.copy, copy.deepcopy, pickle.dumps):
                self.assertRaisesRegex(TypeError, "cannot copy or pickle <vmemexp.Export", call, export)
            os.fstat(export.fd)

    def test_wrong_arguments_leave_no_half_an_object(self):
        """No exception is ignored when it goes."""
        ignored = []
        with mock.patch.object(sys, "unraisablehook", ignored.append):
            self.assertRaises(TypeError, vmemexp.Export)
            gc.collect()
        self.assertEqual([], ignored)

    def test_alloc(self):
        """Whole pages of zeroes."""
        for length, size in ((1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE)):
            memory = vmemexp.alloc(length)
            self.assertEqual(size * b"\0", bytes(memory))
        for length in (0, -1):
            self.assert_error(errno.EINVAL, "no memory of", vmemexp.alloc, length)


class Syncing(Base):
    """The driver is told of access by the CPU."""

    def test_bytes_are_counted_from_the_memory(self):
        """The offset is not that in the dma-buf."""
        self.driver.offset = 7
        with self.export(bytearray(100)) as export:
            fd = export.fd
            export.sync(vmemexp.START | vmemexp.READ)
            export.sync(vmemexp.END | vmemexp.WRITE | vmemexp.OBSERVER, 10)
            export.sync(vmemexp.END | vmemexp.RW, 99, 1)
            export.sync(vmemexp.START | vmemexp.RW, 10, 20, 3, 35)
        self.assertEqual([(40, fd, 1, 1, 7, 100, 0), (40, fd, 14, 1, 17, 90, 0),
                          (40, fd, 7, 1, 106, 1, 0), (40, fd, 3, 3, 17, 20, 35)], self.driver.syncs)

    def test_bytes_are_counted_through_several(self):
        """From the first one on, and refused behind the last."""
        with self.export([bytearray(100), bytearray(50)]) as export:
            export.sync(vmemexp.START | vmemexp.RW)
            export.sync(vmemexp.END | vmemexp.RW, 90, 20)
            self.assertEqual([(0, 150), (90, 20)], [sync[4:6] for sync in self.driver.syncs])
            self.assert_error(errno.EINVAL, "not inside the 150", export.sync, vmemexp.RW, 150, 1)

    def test_bytes_outside_are_refused(self):
        """Also by one, and rows that overlap."""
        with self.export(bytearray(100)) as export:
            for area in ((100,), (-1,), (0, 101), (99, 2), (0, 0), (0, -1), (0, 20, 5, 21), (0, 20, 2, 19),
                         (0, 1, -1), (0, 1, 1, -1)):
                self.assert_error(errno.EINVAL, "not inside", export.sync, vmemexp.START | vmemexp.RW, *area)
            for flags in (0, vmemexp.END, 16 | vmemexp.RW, -1):
                self.assert_error(errno.EINVAL, "flags", export.sync, flags)
            export.sync(vmemexp.RW, 0, 20, 5, 20)
        self.assertEqual(1, len(self.driver.syncs))

    def test_access_begins_and_ends(self):
        """Also if something goes wrong in between."""
        with self.export(bytearray(100)) as export:
            with self.assertRaises(KeyError), export.access(vmemexp.WRITE, 5, 6):
                self.assertEqual([(2, 5, 6)], [(s[2], *s[4:6]) for s in self.driver.syncs])
                raise KeyError
            self.assertEqual([(2, 5, 6), (6, 5, 6)], [(s[2], *s[4:6]) for s in self.driver.syncs])

    def test_other_exporters_are_synced_as_a_whole(self):
        """The dma-buf core says when to call again."""
        self.driver.extents = self.driver.state = 0
        with self.export(bytearray(100)) as export:
            self.driver.errors = 3 * [(errno.EAGAIN, 0, 0)] + [(errno.EINTR, 0, 0)]
            export.sync(vmemexp.END | vmemexp.WRITE, 3, 4)
            self.assertEqual([(export.fd, 6)], self.driver.whole)
            self.assertEqual([], self.driver.syncs)
            self.assert_error(errno.EINVAL, "another driver", export.sync, vmemexp.RW | vmemexp.OBSERVER)
            self.driver.errors = 100 * [(errno.EAGAIN, 0, 0)]
            self.assert_error(errno.EAGAIN, ".", export.sync, vmemexp.RW)
            self.assertEqual(84, len(self.driver.errors))
            self.driver.errors.clear()


class Kernel(unittest.TestCase):
    """Without the fake."""

    def test_the_kernels_errno_is_told(self):
        """Of a file that knows no ioctl, and of none."""
        with open("/dev/null", "rb") as null:
            for fd, error in ((null.fileno(), errno.ENOTTY), (-1, errno.EBADF)):
                with self.assertRaises(OSError) as caught:
                    vmemexp._ioctl(fd, vmemexp._IOC_EXPORT, bytearray(96))
                self.assertEqual(error, caught.exception.errno)
                self.assertEqual(os.strerror(error), caught.exception.strerror)

    def test_the_kernels_answer_comes_back(self):
        """By FIONREAD, which counts what is in a pipe."""
        reader, writer = os.pipe()
        os.write(writer, b"12345")
        answer = bytearray(4)
        vmemexp._ioctl(reader, termios.FIONREAD, answer)
        os.close(reader)
        os.close(writer)
        self.assertEqual(5, int.from_bytes(answer, sys.byteorder))

    def test_a_handler_does_not_change_the_errno(self):
        """A call in it may fail while the interrupted one is to be made again."""
        library, seen = ctypes.CDLL(None, use_errno=True), []

        def handler(*_):
            library.close(-1)
            seen.append(len(seen))
            if len(seen) == 3:
                raise KeyError

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            # It does not return but for a signal.
            with mock.patch.object(vmemexp._libc, "ioctl", library.pause):
                self.assertRaises(KeyError, vmemexp._ioctl, -1, 0, bytearray(4))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        self.assertEqual([0, 1, 2], seen)


if __name__ == "__main__":
    Record.libvmemexp = sys.argv.pop(1)
    Record.record = Path(sys.argv.pop(1)).read_text(encoding="utf-8")
    unittest.main()

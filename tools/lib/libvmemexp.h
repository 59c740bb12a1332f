/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * libvmemexp: memory of a program as dma-bufs, by way of /dev/vmemexp
 *
 * This header is the only source of the reference: tools/dev/man3 makes the manual
 * pages of the comments below.
 */
#ifndef LIBVMEMEXP_H
#define LIBVMEMEXP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <vmemexp.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: libvmemexp - memory of a program as dma-bufs
 *
 * The library exports memory of the calling program as dma-bufs, and keeps what CPUs and
 * devices see of it the same. It calls the driver vmemexp, whose interface <vmemexp.h>
 * describes. The constants with VMEMEXP_SYNC, VMEMEXP_MEMORY, VMEMEXP_STATE and
 * VMEMEXP_REASON in their names are from there.
 *
 * A program opens the device, exports whole pages, and hands the descriptor to a driver or
 * to another process::
 *
 *   struct vmemexp_error err;
 *   struct vmemexp_buf *buf;
 *   char why[256];
 *   struct vmemexp *v = vmemexp_open(NULL, &err);
 *
 *   if (!v || vmemexp_export(v, memory, size, 0, &buf, &err))
 *       errx(1, "%s", vmemexp_strerror(&err, why, sizeof(why)));
 *   use(vmemexp_buf_fd(buf));
 *   vmemexp_buf_unref(buf);
 *   vmemexp_close(v);
 *
 * While a device has the dma-buf mapped, vmemexp_begin() and vmemexp_end() go around every
 * access by the CPU.
 */

/**
 * DOC: Errors
 *
 * A function that fails returns -1 or NULL and sets errno. Those with a parameter @err also
 * fill the structure it points to, which belongs to the caller and may be NULL. The reason
 * in it is more exact than errno; vmemexp_strerror() makes a sentence of it.
 *
 * The library calls again by itself where a signal interrupts an ioctl, and a bounded
 * number of times where the mappings of a range change during its export.
 *
 * It prints nothing and has no variables of its own: all it knows is in what it returns.
 */

/**
 * DOC: Threads
 *
 * Any thread may call any function at any time, also with the same device or buffer.
 * vmemexp_close() and the last vmemexp_buf_unref() end what they are given: no thread may
 * use that any more.
 *
 * Descriptors are closed by exec(). A child of fork() may use what the parent has opened,
 * unless another thread was in vmemexp_get(), vmemexp_forget() or vmemexp_close() at that
 * moment: the child may then wait for its lock for ever. The child's addresses lead to other
 * memory than the parent's exports, so vmemexp_get() exports anew there.
 */

/**
 * DOC: Compatibility
 *
 * Flags that the library does not know are EINVAL, so that it can get more. The structures
 * of this header never grow; &struct vmemexp_query, which is the driver's, says by its
 * size which one the program knows.
 *
 * The library works with drivers that are older than itself. One that knows of a single
 * range alone refuses several with E2BIG, and gives 0 as the number of them.
 */

/* One open device. */
struct vmemexp;

/* One export, counted by vmemexp_buf_ref() and vmemexp_buf_unref(). */
struct vmemexp_buf;

/**
 * struct vmemexp_error - why a call failed
 * @err: the errno; 0 after success
 * @reason: one of VMEMEXP_REASON_*; VMEMEXP_REASON_NONE if the errno alone says it
 * @addr: the address that the reason is about, in the caller's address space
 */
struct vmemexp_error {
	int err;
	uint32_t reason;
	uint64_t addr;
};

/**
 * struct vmemexp_area - the bytes that a sync is about
 * @offset: first byte of the first row
 * @length: bytes in each row, at least 1
 * @rows: number of rows; 0 and 1 both mean one
 * @stride: bytes from the start of one row to the start of the next, at least @length;
 *	ignored with one row
 */
struct vmemexp_area {
	uint64_t offset;
	uint64_t length;
	uint32_t rows;
	uint64_t stride;
};

/* Flags of vmemexp_export(), vmemexp_exportv() and vmemexp_get(), described at the first. */
#define VMEMEXP_RDONLY		0x1U
#define VMEMEXP_CONTIGUOUS	0x2U
#define VMEMEXP_ROUND		0x4U

/**
 * vmemexp_open() - open the device
 * @path: device node, or NULL for /dev/vmemexp
 * @err: filled if not NULL
 *
 * The device serves any number of exports and threads.
 *
 * Return: the device, or NULL with the errno of open(), or ENOMEM.
 */
struct vmemexp *vmemexp_open(const char *path, struct vmemexp_error *err);

/**
 * vmemexp_close() - let go of the device
 * @v: from vmemexp_open(), or NULL, which does nothing
 *
 * The cache of vmemexp_get() is emptied. Buffers that the program still has a reference to
 * live on, and all functions that take a buffer go on working: they keep the descriptor of
 * the device open.
 */
void vmemexp_close(struct vmemexp *v);

/**
 * vmemexp_fd() - the descriptor of the device
 * @v: the device
 *
 * For ioctls that the library has no function for, like VMEMEXP_IOC_REVOKE. The descriptor
 * is borrowed: it is open until vmemexp_close() and the last vmemexp_buf_unref().
 *
 * Return: the descriptor.
 */
int vmemexp_fd(const struct vmemexp *v);

/**
 * vmemexp_aligned_size() - bytes to allocate so that all of them can be exported
 * @length: bytes wanted
 *
 * Return: @length rounded up to whole pages; 0 if it is 0, or too large for that.
 */
size_t vmemexp_aligned_size(size_t length);

/**
 * vmemexp_export() - make a dma-buf of memory
 * @v: the device
 * @addr: first byte, a multiple of the page size
 * @length: bytes, a multiple of the page size: see vmemexp_aligned_size()
 * @flags: 0 or any of the flags below
 * @buf: gets the buffer, with one reference, or NULL if the call fails
 * @err: filled if not NULL
 *
 * The pages are pinned and count against RLIMIT_MEMLOCK until the last reference to the
 * dma-buf is gone, be it the buffer, a copy of its descriptor, a mapping or a device that
 * has it. Later changes to the program's mapping do not change the dma-buf.
 *
 * * %VMEMEXP_RDONLY: the dma-buf cannot be written. Memory that is mapped for reading alone
 *   can be exported in no other way. Many drivers cannot take such a dma-buf.
 * * %VMEMEXP_CONTIGUOUS: fail with ERANGE unless the pages are one extent, that is,
 *   physically contiguous.
 * * %VMEMEXP_ROUND: @addr and @length may be anything. The dma-buf has all pages that the
 *   range touches, and vmemexp_buf_offset() tells where the range begins. A holder of the
 *   dma-buf can read and write the bytes around the range: if the memory is from malloc(),
 *   those are its own records and memory that other code has allocated. Few drivers respect
 *   an offset.
 *
 * Return: 0, or -1 with errno and @err:
 *
 * * EINVAL: @v or @buf is NULL, a flag is unknown (VMEMEXP_REASON_FLAGS), or the range is
 *   empty or too long (VMEMEXP_REASON_LENGTH) or not whole pages
 *   (VMEMEXP_REASON_ALIGNMENT).
 * * EAGAIN: the mappings changed again and again (VMEMEXP_REASON_CHANGED).
 * * ENOMEM: the limit RLIMIT_MEMLOCK (VMEMEXP_REASON_LIMIT), or no memory.
 *
 * <vmemexp.h> has the other reasons and errnos.
 */
int vmemexp_export(struct vmemexp *v, const void *addr, size_t length, unsigned int flags,
		   struct vmemexp_buf **buf, struct vmemexp_error *err);

/**
 * vmemexp_exportv() - make one dma-buf of several ranges of memory
 * @v: the device
 * @iov: the ranges, in the order in which the dma-buf shows them
 * @n: number of them, from 1 to VMEMEXP_MAX_RANGES
 * @flags: as for vmemexp_export()
 * @buf: gets the buffer, with one reference, or NULL if the call fails
 * @err: filled if not NULL
 * @err_range: if not NULL, gets the index of the range that @err is about; 0 after success,
 *	or if it is about none
 *
 * For planes of a picture that lie apart, a ring that wraps around, or the memory of a
 * virtual machine. The ranges may overlap and be in any order. Each is whole pages; with
 * %VMEMEXP_ROUND the first may begin and the last may end anywhere, and those between them
 * are whole pages still. None may be a mapping of a dma-buf, unless it is the only one.
 *
 * One range is exported as by vmemexp_export(), also by drivers that know of no more.
 *
 * The offsets of vmemexp_begin() count from the first byte of the first range on through all
 * of them. vmemexp_get() keeps no such buffers, so a program keeps them itself, and asks
 * vmemexp_buf_query() for VMEMEXP_STATE_STALE before it takes one for memory that it may
 * have mapped anew.
 *
 * Return: 0, or -1 with errno and @err, as vmemexp_export(), and:
 *
 * * EINVAL: @iov is NULL, or @n is 0 or too large (VMEMEXP_REASON_RANGES).
 * * EINVAL: one of several ranges is a mapping of a dma-buf, or their memory does not go
 *   together (VMEMEXP_REASON_MIXED).
 * * E2BIG: the driver is too old for several ranges.
 */
int vmemexp_exportv(struct vmemexp *v, const struct iovec *iov, unsigned int n,
		    unsigned int flags, struct vmemexp_buf **buf, struct vmemexp_error *err,
		    unsigned int *err_range);

/**
 * vmemexp_buf_ref() - take one more reference
 * @buf: the buffer, or NULL
 *
 * Return: @buf.
 */
struct vmemexp_buf *vmemexp_buf_ref(struct vmemexp_buf *buf);

/**
 * vmemexp_buf_unref() - drop a reference
 * @buf: the buffer, or NULL, which does nothing
 *
 * The last one closes the descriptor. errno is left alone.
 */
void vmemexp_buf_unref(struct vmemexp_buf *buf);

/**
 * vmemexp_buf_fd() - the descriptor of the dma-buf
 * @buf: the buffer
 *
 * The descriptor is borrowed: it is open until the last vmemexp_buf_unref(). Use dup() to
 * keep it longer, or to close it.
 *
 * Return: the descriptor.
 */
int vmemexp_buf_fd(const struct vmemexp_buf *buf);

/**
 * vmemexp_buf_offset() - where the (first) exported range begins in the dma-buf
 * @buf: the buffer
 *
 * Return: an offset in bytes: 0, unless %VMEMEXP_ROUND was given, or the range is itself a
 * mapping of a dma-buf.
 */
uint64_t vmemexp_buf_offset(const struct vmemexp_buf *buf);

/**
 * vmemexp_buf_size() - the size of the dma-buf
 * @buf: the buffer
 *
 * Return: bytes, a multiple of the page size.
 */
uint64_t vmemexp_buf_size(const struct vmemexp_buf *buf);

/**
 * vmemexp_buf_query() - what the driver knows of a buffer
 * @buf: the buffer
 * @query: its size is set by the caller to sizeof(struct vmemexp_query); the rest is
 *	written, and holds zeroes where the driver does not know a field
 *
 * An older driver does not know nr_ranges, which is 0 then, and at least 1 otherwise.
 *
 * Return: 0, or -1 with errno, and @query unchanged:
 *
 * * EINVAL: @buf or @query is NULL, its size is not set, or another driver has exported
 *   the dma-buf.
 * * E2BIG: its size is larger than any that can be.
 */
int vmemexp_buf_query(const struct vmemexp_buf *buf, struct vmemexp_query *query);

/**
 * vmemexp_sync() - begin or end access by the CPU to some bytes of any dma-buf
 * @v: the device
 * @fd: a dma-buf of any exporter, from whatever process
 * @flags: VMEMEXP_SYNC_START or VMEMEXP_SYNC_END, with VMEMEXP_SYNC_READ,
 *	VMEMEXP_SYNC_WRITE or both, and optionally VMEMEXP_SYNC_OBSERVER
 * @area: bytes of the dma-buf, counted from its first one; NULL for all of them
 *
 * START goes before the first access, END behind the last one. A dma-buf of vmemexp is
 * synced for exactly the bytes in @area. One of another exporter is synced as a whole, by
 * DMA_BUF_IOCTL_SYNC, and so is every dma-buf without @area.
 *
 * START waits for the work of devices that fences on the dma-buf announce. Signals do not
 * end the wait.
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL: @v is NULL, a flag is unknown, neither READ nor WRITE is given, @area is not
 *   inside the dma-buf, or OBSERVER is asked of what vmemexp has not exported.
 * * EBADF: @fd is not open.
 * * ENOTTY: @fd is no dma-buf.
 * * ENODEV: the dma-buf has been revoked.
 * * EOPNOTSUPP: OBSERVER on a machine whose caches a module cannot maintain.
 */
int vmemexp_sync(struct vmemexp *v, int fd, unsigned int flags, const struct vmemexp_area *area);

/**
 * vmemexp_begin() - begin access by the CPU to exported memory
 * @buf: the buffer
 * @rw: VMEMEXP_SYNC_READ, VMEMEXP_SYNC_WRITE or both, and optionally
 *	VMEMEXP_SYNC_OBSERVER
 * @area: bytes counted from the exported address, also if the buffer has an offset, and
 *	on through all ranges of vmemexp_exportv(); NULL for all that was exported
 *
 * As vmemexp_sync() with START, of bytes that were exported. vmemexp_end() ends it. A
 * buffer can be in one such access at a time; for more, use vmemexp_sync().
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL: @buf is NULL, @rw has neither READ nor WRITE or has something else, or @area is
 *   not inside what was exported.
 * * EBUSY: the access that began before has not ended.
 *
 * The others are those of vmemexp_sync().
 */
int vmemexp_begin(struct vmemexp_buf *buf, unsigned int rw, const struct vmemexp_area *area);

/**
 * vmemexp_end() - end access by the CPU to exported memory
 * @buf: the buffer
 *
 * As vmemexp_sync() with END, of what vmemexp_begin() was given. The access is over in any
 * case, also if the call fails.
 *
 * Return: 0, or -1 with errno:
 *
 * * EINVAL: @buf is NULL, or no access has begun.
 *
 * The others are those of vmemexp_sync().
 */
int vmemexp_end(struct vmemexp_buf *buf);

/**
 * vmemexp_get() - export memory, or find the export that was made of it before
 * @v: the device
 * @addr: as for vmemexp_export()
 * @length: as for vmemexp_export()
 * @flags: as for vmemexp_export()
 * @buf: gets the buffer, with a reference of the caller's own, or NULL if the call fails
 * @err: filled if not NULL
 *
 * Unsafe for memory whose pages are dropped without unmapping it: by MADV_DONTNEED,
 * MADV_FREE, MADV_REMOVE, punched holes or truncation, as allocators do behind free(). The
 * driver cannot tell, and the call finds a dma-buf that shows other memory than the
 * address. Use it for memory that the program maps and unmaps itself, or call
 * vmemexp_forget() before the memory goes back to its allocator.
 *
 * An export of the same @addr, @length and @flags is found again, unless the program has
 * unmapped or mapped anew some of it since (VMEMEXP_STATE_STALE), an administrator or a
 * driver has taken it back (VMEMEXP_STATE_REVOKED), or the kernel cannot tell. Then, and if
 * there is none, the memory is exported, and kept for the next call. Kept exports that overlap
 * it and are stale or revoked are dropped.
 *
 * The device keeps a reference to what it has found once, so the memory stays pinned until
 * vmemexp_forget() or vmemexp_close(): nothing else is thrown out, however much it is. A
 * range that is itself a mapping of a dma-buf is not kept, because nothing tells when it is
 * unmapped.
 *
 * Return: as vmemexp_export().
 */
int vmemexp_get(struct vmemexp *v, const void *addr, size_t length, unsigned int flags,
		struct vmemexp_buf **buf, struct vmemexp_error *err);

/**
 * vmemexp_forget() - have vmemexp_get() find memory no more
 * @v: the device, or NULL, which does nothing
 * @addr: first byte
 * @length: bytes; SIZE_MAX for all up to the end of the address space
 *
 * Drops the reference of the device to each export that has a byte in the range.
 */
void vmemexp_forget(struct vmemexp *v, const void *addr, size_t length);

/**
 * vmemexp_strerror() - a sentence on why a call failed
 * @err: as a call has filled it
 * @text: gets the sentence, cut off where it does not fit
 * @size: bytes at @text
 *
 * The sentence is English, begins with a small letter and names the address, as in "it
 * would exceed RLIMIT_MEMLOCK at 0x7f1200000000". If there is no reason it is that of
 * strerror(), or for E2BIG that the driver is too old.
 *
 * Return: @text, or an empty string if @size is 0.
 */
const char *vmemexp_strerror(const struct vmemexp_error *err, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* LIBVMEMEXP_H */

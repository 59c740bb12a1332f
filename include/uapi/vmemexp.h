/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * vmemexp: export user virtual memory as a dma-buf
 *
 * This header is the ABI of /dev/vmemexp and the only source of its reference:
 * Documentation/vmemexp-api.rst is generated from the comments below.
 */
#ifndef _UAPI_VMEMEXP_H
#define _UAPI_VMEMEXP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: Calling convention
 *
 * Every ioctl but TI's takes a pointer to a structure whose first field, @size, the
 * caller sets to ``sizeof`` of the structure it was compiled with. Structures
 * only ever grow at their end, so old programs run on new drivers and new
 * programs run on old drivers as long as they leave the fields that the driver
 * does not know at zero. The layout is the same for 32-bit and 64-bit programs.
 *
 * An ioctl returns 0 and writes its answers into the structure, or returns -1
 * with errno set. The structure is written on success only, with one exception
 * that is documented at &struct vmemexp_export: @err_reason, @err_addr and @err_range.
 *
 * These errors mean the same for every ioctl and are checked first, in this
 * order:
 *
 * ======== ===================================================================
 * ENOTTY   The request number is unknown.
 * EFAULT   The structure is not readable (or, at the end, not writable).
 * EINVAL   @size is smaller than the first released version of the structure.
 * E2BIG    @size is larger than a page, or a field behind those that this
 *          driver knows is not zero.
 * EINVAL   A flag is unknown, or a reserved field is not zero.
 * ======== ===================================================================
 */

/**
 * DOC: Lifetime
 *
 * The dma-buf refers to the physical pages that stood behind the address range
 * when it was exported. They are pinned: never swapped, moved or reused before
 * the last reference to the dma-buf is gone, whether that is the file
 * descriptor, a copy of it in another process, a mapping of it, or an importing
 * device.
 *
 * Later changes to the exporter's address range do not change the dma-buf. After
 * munmap(), mremap(), exec() or exit() the pages live on for
 * those who hold the dma-buf; VMEMEXP_IOC_QUERY then reports
 * %VMEMEXP_STATE_STALE. After fork() the parent keeps the exported pages of a
 * private mapping and the child gets copies; shared mappings stay shared.
 * A later mapping at the same address is unrelated to the dma-buf.
 *
 * The pages count against the exporting user's %RLIMIT_MEMLOCK for as long as
 * they are pinned, also when the exporting process is gone. A huge page that is
 * exported in part counts as a whole: all of it is kept in memory.
 *
 * Page frames that a driver mapped without page accounting
 * (%VMEMEXP_MEMORY_PFNMAP) cannot be pinned. They must be reserved for good,
 * which is what the administrator promises by listing them in the module
 * parameter ``carveouts=``; the driver that mapped them is held by its file until
 * the dma-buf is gone or revoked. They do not count against %RLIMIT_MEMLOCK; what
 * the kernel needs to describe them does, in whole pages, where they are many,
 * scattered, or in the dma-buf more than once. When the driver takes away what the
 * exporter has still mapped, and has never unmapped or moved since, the dma-buf is
 * revoked.
 *
 * A range that is a mapping of a dma-buf (%VMEMEXP_MEMORY_DMABUF) gives a further
 * file descriptor for that dma-buf, if the caller has one already or maps all of
 * it. Its memory lives as its exporter says.
 *
 * An administrator can take a dma-buf of this driver back: VMEMEXP_IOC_REVOKE. From
 * then on it can no longer be attached, mapped or synced (ENODEV), CPU mappings
 * of it raise SIGBUS, and VMEMEXP_IOC_QUERY reports %VMEMEXP_STATE_REVOKED. Devices
 * and kernel mappings that use it at that moment keep the pages pinned and charged
 * until they unmap it.
 */

#define VMEMEXP_IOC_MAGIC	0xD7

/*
 * The request number does not encode sizeof(struct): the structures grow, the
 * numbers do not change. Their first field carries the size.
 */
#define _VMEMEXP_IOC(nr) _IOC(_IOC_READ | _IOC_WRITE, VMEMEXP_IOC_MAGIC, nr, 0)

/*
 * VMEMEXP_EXPORT_* - bits of vmemexp_export.flags
 *
 * UNALIGNED: @vaddr and @length need not be multiples of the page size. The
 * dma-buf covers all pages that the range touches, @offset tells where the
 * range begins in it. Opt-in, because the bytes before and behind the range
 * become visible to all holders of the dma-buf, and because few importers
 * respect an offset. The first of several ranges may begin anywhere, and the last
 * may end anywhere; between them the dma-buf has no gaps.
 *
 * CONTIGUOUS: fail with ERANGE unless the pages are one extent (one physically
 * contiguous range), as an importer without scatter-gather needs it.
 */
#define VMEMEXP_EXPORT_UNALIGNED	(1U << 0)
#define VMEMEXP_EXPORT_CONTIGUOUS	(1U << 1)

/*
 * VMEMEXP_MEMORY_* - the kinds of memory found behind a range (a bit mask)
 *
 * ANON:    anonymous memory: heap, stack, data segments, and private mappings
 *          of files once they have been copied.
 * SHMEM:   memfd, POSIX and System V shared memory, tmpfs, shared anonymous.
 * HUGETLB: pages of a hugetlb pool.
 * FILE:    page cache of any other file system; exported read-only, and only if
 *          the administrator allows it (module parameter allow=).
 * DRIVER:  pages that a driver put into the mapping one by one, and /dev/dax.
 * PFNMAP:  page frames that a driver mapped without page accounting (VM_PFNMAP,
 *          VM_IO), like the carve-out of another processor; never together with
 *          other kinds.
 * DMABUF:  the range is a mapping of a dma-buf, and that dma-buf is what the
 *          export returned; other bits tell the kind of its memory if it is one
 *          of this driver's.
 */
#define VMEMEXP_MEMORY_ANON		(1U << 0)
#define VMEMEXP_MEMORY_SHMEM		(1U << 1)
#define VMEMEXP_MEMORY_HUGETLB		(1U << 2)
#define VMEMEXP_MEMORY_FILE		(1U << 3)
#define VMEMEXP_MEMORY_DRIVER		(1U << 4)
#define VMEMEXP_MEMORY_PFNMAP		(1U << 5)
#define VMEMEXP_MEMORY_DMABUF		(1U << 6)

/*
 * VMEMEXP_REASON_* - why an export failed (vmemexp_export.err_reason), the errno
 * that comes with it, and what err_addr is then
 *
 * NONE:           errno alone says it; err_addr is 0.
 * FLAGS:          EINVAL, flags or fd_flags are wrong; 0.
 * LENGTH:         EINVAL, zero, wraps around or not representable; vaddr.
 * ALIGNMENT:      EINVAL, not page aligned; the end that is not.
 * LIMIT:          ENOMEM, would exceed RLIMIT_MEMLOCK; vaddr.
 * NOT_MAPPED:     EFAULT, nothing is mapped there; the first such page.
 * NOT_READABLE:   EFAULT, mapped without PROT_READ, or with a protection key that
 *                 keeps the thread from reading; the first such page.
 * NOT_WRITABLE:   EACCES, O_RDWR of a read-only mapping, of a page that its driver
 *                 mapped read-only, or of one with a protection key that keeps the
 *                 thread from writing; the first such page.
 * KIND:           EPERM, a kind of memory that may not be exported, or not for
 *                 writing; the first such page.
 * PFNMAP:         EPERM, a page frame outside of System RAM that is in no
 *                 carve-out listed by the administrator, and the caller lacks
 *                 CAP_SYS_RAWIO; the first such page.
 * NO_BACKING:     EFAULT, no page can be provided: beyond the end of the mapped
 *                 file, the file system or the pool of huge pages is full, a guard
 *                 page (MADV_GUARD_INSTALL), or the driver gives none; the first
 *                 such page.
 * UNPINNABLE:     the kernel's own errno, it refuses to pin; or EFAULT, a driver has
 *                 mapped a page frame where pages may be; the first such page.
 * NOT_CONTIGUOUS: ERANGE, not one extent; the first page of the second extent,
 *                 or vaddr if the range is a mapping of a dma-buf. A dma-buf of
 *                 another driver is never known to be contiguous.
 * RAM:            EPERM, a page frame of System RAM that is mapped without page
 *                 accounting and not listed, for any caller; the first such page.
 * MIXED:          EINVAL, mappings of different nature in one range: pages and
 *                 page frames, several drivers, cached and not, several dma-bufs,
 *                 inside and outside of System RAM; where the second one begins.
 *                 Also a mapping of a dma-buf in a list of several ranges; its first
 *                 page.
 * PRIVATE:        EPERM, a private writable mapping of page frames; the first
 *                 such page. Map it with MAP_SHARED.
 * CHANGED:        EAGAIN, the range was unmapped or mapped anew, in part or
 *                 whole, or taken away by its driver, during the export, and is
 *                 not private memory that is cached; the first page of the range.
 * ACCESS:         EACCES, O_RDONLY of a mapping of a dma-buf that is open for
 *                 writing, or O_RDWR of one that is not; vaddr.
 * PARTIAL:        EPERM, a mapping that shows only a part of a dma-buf, or a
 *                 read-only one of another driver's, of which the caller has no
 *                 descriptor; vaddr. Also one that does not tell which part it
 *                 shows, or goes beyond the end; the first such address.
 * QUOTA:          EDQUOT, the user has as many buffers as the module parameter
 *                 max_buffers= allows; vaddr.
 * POISONED:       EHWPOISON, the memory is broken; the first such page.
 * ENCRYPTED:      EOPNOTSUPP, memory of a driver on a machine that encrypts its
 *                 memory, where some of it may be shared with others in clear
 *                 text; the first such page.
 * RANGES:         EINVAL, a list of ranges that is none: more than
 *                 VMEMEXP_MAX_RANGES, vaddr or length given as well, or an address
 *                 of a list without ranges; 0.
 *
 * Where it says vaddr, and the export has a list of ranges, it is the vaddr of the
 * range that err_range names.
 *
 * Page addresses are those of their first byte, so err_addr may lie below an
 * unaligned vaddr. New reasons may be added: a program that meets one it does
 * not know should fall back to errno.
 */
#define VMEMEXP_REASON_NONE		0
#define VMEMEXP_REASON_FLAGS		1
#define VMEMEXP_REASON_LENGTH		2
#define VMEMEXP_REASON_ALIGNMENT	3
#define VMEMEXP_REASON_LIMIT		4
#define VMEMEXP_REASON_NOT_MAPPED	5
#define VMEMEXP_REASON_NOT_READABLE	6
#define VMEMEXP_REASON_NOT_WRITABLE	7
#define VMEMEXP_REASON_KIND		8
#define VMEMEXP_REASON_PFNMAP		9
#define VMEMEXP_REASON_NO_BACKING	10
#define VMEMEXP_REASON_UNPINNABLE	11
#define VMEMEXP_REASON_NOT_CONTIGUOUS	12
#define VMEMEXP_REASON_RAM		13
#define VMEMEXP_REASON_MIXED		14
#define VMEMEXP_REASON_PRIVATE		15
#define VMEMEXP_REASON_CHANGED		16
#define VMEMEXP_REASON_ACCESS		17
#define VMEMEXP_REASON_PARTIAL		18
#define VMEMEXP_REASON_QUOTA		19
#define VMEMEXP_REASON_POISONED		20
#define VMEMEXP_REASON_ENCRYPTED	21
#define VMEMEXP_REASON_RANGES		22

/*
 * VMEMEXP_STATE_* - bits of vmemexp_export.state, vmemexp_query.state and
 * vmemexp_revoke.state
 *
 * STALE:    the exporter has since unmapped or remapped (part of) the source
 *           range, or has called exec() or exited. The dma-buf is as good as
 *           ever, but the exporter's address no longer leads to it. Dropping
 *           pages without unmapping (MADV_DONTNEED, hole punching, truncation)
 *           is not reported.
 * TRACKED:  the running kernel can tell (it has CONFIG_MMU_NOTIFIER); without
 *           this bit, STALE is never set.
 * BOUNCED:  some device that the dma-buf is mapped for now works on a copy of
 *           (part of) it, because it cannot reach the memory, or the kernel was
 *           told so (swiotlb=force). A sync copies the bytes named. 0 if no device
 *           is mapped.
 * NO_VMAP:  the dma-buf has no kernel mapping (vmap): it is read-only, page frames
 *           that are not listed in carveouts=, scattered memory without struct
 *           page, too large for a 32-bit kernel, or of more pages than there are in
 *           RAM, with page frames that repeat. It can be mapped for devices
 *           only by callers with CAP_SYS_RAWIO (EPERM to others), unless the
 *           administrator sets the module parameter map_without_vmap=1: some
 *           drivers crash the kernel when they meet such a buffer.
 * OVERLAPS: some page is in the buffer more than once. A device that works on a
 *           copy cannot map it (ENOTUNIQ): the copies of that page would overwrite
 *           each other.
 * NO_PAGES: a carve-out that the kernel has no struct page for. It can be mapped for
 *           devices only by callers with CAP_SYS_RAWIO (EPERM to others), unless the
 *           administrator sets the module parameter map_without_pages=1: some drivers
 *           map other memory instead, or crash the kernel.
 * REVOKED:  an administrator has taken it back (VMEMEXP_IOC_REVOKE), or the driver
 *           whose page frames it shows has taken those away.
 */
#define VMEMEXP_STATE_STALE		(1U << 0)
#define VMEMEXP_STATE_TRACKED		(1U << 1)
#define VMEMEXP_STATE_BOUNCED		(1U << 2)
#define VMEMEXP_STATE_NO_VMAP		(1U << 3)
#define VMEMEXP_STATE_OVERLAPS		(1U << 4)
#define VMEMEXP_STATE_REVOKED		(1U << 5)
#define VMEMEXP_STATE_NO_PAGES		(1U << 6)

/* Ranges that one export may have. */
#define VMEMEXP_MAX_RANGES		1024

/**
 * struct vmemexp_range - one of several ranges in one dma-buf
 * @vaddr: in: first byte of the range in the caller's address space. A multiple of the
 *	page size, except for the first range if %VMEMEXP_EXPORT_UNALIGNED is given.
 * @length: in: bytes, at least 1. @vaddr + @length is a multiple of the page size, except
 *	for the last range if %VMEMEXP_EXPORT_UNALIGNED is given.
 *
 * The driver reads the array once, and never writes to it.
 */
struct vmemexp_range {
	__aligned_u64	vaddr;
	__aligned_u64	length;
};

/**
 * struct vmemexp_export - argument of VMEMEXP_IOC_EXPORT
 * @size: in: ``sizeof(struct vmemexp_export)``, in bytes.
 * @flags: in: any of %VMEMEXP_EXPORT_UNALIGNED and %VMEMEXP_EXPORT_CONTIGUOUS;
 *	0 for a page aligned range and scattered pages.
 * @vaddr: in: first byte of the range in the caller's address space. A multiple
 *	of the page size unless %VMEMEXP_EXPORT_UNALIGNED is given. 0 is an
 *	address like any other. Must be 0 if @nr_ranges is not.
 * @length: in: bytes, at least 1. @vaddr + @length is a multiple of the page
 *	size unless %VMEMEXP_EXPORT_UNALIGNED is given. 0 is an error. Must be 0
 *	if @nr_ranges is not.
 * @fd_flags: in: %O_RDWR or %O_RDONLY, and optionally %O_CLOEXEC. 0 is
 *	%O_RDONLY. A mapping without %PROT_WRITE can be exported %O_RDONLY only.
 *	A read-only dma-buf can be mapped for reading only, by CPUs
 *	and by devices: importers that map %DMA_BIDIRECTIONAL, DRM among them,
 *	and importers that use vmap, cannot take it. See also
 *	%VMEMEXP_STATE_NO_VMAP.
 * @fd: out: the dma-buf's file descriptor, at least 0. It is the caller's to
 *	close; until then, and for as long as any other reference lives, the
 *	pages stay pinned.
 * @offset: out: byte offset of the (first) range in the dma-buf. For a new dma-buf less than
 *	the page size, and 0 unless %VMEMEXP_EXPORT_UNALIGNED is given; anything
 *	if @memory has %VMEMEXP_MEMORY_DMABUF.
 * @dmabuf_size: out: bytes in the dma-buf, a multiple of the page size, at
 *	least @offset + @length, or @offset and the lengths of all ranges.
 * @nr_extents: out: number of extents (physically contiguous ranges) in the dma-buf; 1 means
 *	contiguous, 0 that it is another driver's dma-buf and not known.
 * @memory: out: kinds of memory found, a mask of VMEMEXP_MEMORY_* bits, never 0.
 * @err_reason: out: why the export failed, one of VMEMEXP_REASON_*; 0 after
 *	success, or if errno alone says it.
 * @err_addr: out: the address that @err_reason is about, in the caller's
 *	address space; 0 after success.
 * @state: out: mask of VMEMEXP_STATE_* bits, as VMEMEXP_IOC_QUERY would give them
 *	now; 0 for another driver's dma-buf. In: 0, as for all fields that an older
 *	driver does not know.
 * @reserved: in: must be 0.
 * @ranges: in: address of an array of &struct vmemexp_range, which the dma-buf shows
 *	one after the other, in the order of the array; 0 if @nr_ranges is 0.
 * @nr_ranges: in: entries in the array, at most %VMEMEXP_MAX_RANGES. 0 means the one
 *	range of @vaddr and @length.
 * @err_range: out: index of the range that @err_reason and @err_addr are about; 0
 *	after success, or without a list. In: 0.
 *
 * @state and @reserved were added after the first release (%VMEMEXP_EXPORT_SIZE_VER1),
 * @ranges, @nr_ranges and @err_range after that (%VMEMEXP_EXPORT_SIZE_VER2). An older
 * driver refuses a list with E2BIG.
 *
 * A list of one range means that range. Several ranges may overlap, be in any order, and
 * have any kinds of memory that one range may have in several mappings: pages of all
 * kinds, or page frames of one driver, cached alike. A page that is in two of them is in
 * the dma-buf twice (%VMEMEXP_STATE_OVERLAPS). None may be a mapping of a dma-buf.
 *
 * Pages that are absent are faulted in: memory that was never touched or is
 * swapped out can be exported. A fatal signal ends a long export.
 *
 * If the ioctl fails, no page is pinned, no file descriptor is left open, and
 * of the structure only @err_reason, @err_addr and @err_range are written (not even
 * those if the structure itself was refused).
 *
 * Errors, in the order of the checks, after those common to all ioctls:
 *
 * ========== =================================================================
 * EINVAL     @flags, @fd_flags or @reserved are wrong (%VMEMEXP_REASON_FLAGS),
 *            or there is no such list of ranges (%VMEMEXP_REASON_RANGES).
 * EFAULT     The array at @ranges is not readable.
 * EINVAL     @length is 0, the range wraps around, or there are too many bytes in
 *            all: INT_MAX pages, or what the machine can address
 *            (%VMEMEXP_REASON_LENGTH); or it is not page aligned
 *            (%VMEMEXP_REASON_ALIGNMENT).
 * EFAULT     The range leaves the user address space
 *            (%VMEMEXP_REASON_NOT_MAPPED).
 * EFAULT     A page is not mapped (%VMEMEXP_REASON_NOT_MAPPED) or not readable
 *            (%VMEMEXP_REASON_NOT_READABLE).
 * EACCES     %O_RDWR was asked of a read-only mapping
 *            (%VMEMEXP_REASON_NOT_WRITABLE), or the range is a mapping of a
 *            dma-buf whose file has another access mode
 *            (%VMEMEXP_REASON_ACCESS).
 * EPERM      The range is a mapping of a part of a dma-buf, or a read-only
 *            one of another driver's, and the caller has no descriptor of it
 *            (%VMEMEXP_REASON_PARTIAL).
 * EINVAL     The mappings in the range do not go together
 *            (%VMEMEXP_REASON_MIXED).
 * EPERM      The mapping is a private one of page frames
 *            (%VMEMEXP_REASON_PRIVATE).
 * EDQUOT     The user has ``max_buffers=`` buffers already, and the caller
 *            lacks %CAP_SYS_RESOURCE (%VMEMEXP_REASON_QUOTA).
 * ENOMEM     The pages would exceed the user's %RLIMIT_MEMLOCK and the caller
 *            lacks %CAP_IPC_LOCK (%VMEMEXP_REASON_LIMIT), or the kernel is out
 *            of memory (%VMEMEXP_REASON_NONE).
 * EINTR      A fatal signal is pending.
 * EPERM      The pages are of a kind that may not be exported, or not for
 *            writing (%VMEMEXP_REASON_KIND); or page frames that are not
 *            listed in ``carveouts=`` (%VMEMEXP_REASON_RAM,
 *            %VMEMEXP_REASON_PFNMAP).
 * EACCES     %O_RDWR was asked of page frames that are mapped read-only
 *            (%VMEMEXP_REASON_NOT_WRITABLE).
 * EFAULT     A page cannot be provided (%VMEMEXP_REASON_NO_BACKING).
 * EHWPOISON  A page is broken (%VMEMEXP_REASON_POISONED).
 * other      The kernel refuses to pin a page and gives this errno
 *            (%VMEMEXP_REASON_UNPINNABLE): ENOMEM, EAGAIN or EBUSY if it
 *            cannot be moved to memory where it may stay, in several
 *            tries; EOPNOTSUPP for a file on a DAX file system;
 *            EFAULT for memory that must not be shared (memfd_secret), and
 *            for page frames that a driver has mapped among pages
 *            (VM_MIXEDMAP).
 * EOPNOTSUPP Memory of a driver on a machine that encrypts its memory
 *            (%VMEMEXP_REASON_ENCRYPTED).
 * ERANGE     %VMEMEXP_EXPORT_CONTIGUOUS was given and the pages are not one
 *            extent (%VMEMEXP_REASON_NOT_CONTIGUOUS).
 * EINVAL     The memory lies in part outside of System RAM, or differs in
 *            caching (%VMEMEXP_REASON_MIXED).
 * EAGAIN     The mappings changed meanwhile (%VMEMEXP_REASON_CHANGED); call
 *            again.
 * EMFILE,    There is no free file descriptor in the process or the system.
 * ENFILE
 * EFAULT     The answer cannot be written.
 * ========== =================================================================
 */
struct vmemexp_export {
	__u32		size;
	__u32		flags;
	__aligned_u64	vaddr;
	__aligned_u64	length;
	__u32		fd_flags;
	__s32		fd;
	__aligned_u64	offset;
	__aligned_u64	dmabuf_size;
	__aligned_u64	nr_extents;
	__u32		memory;
	__u32		err_reason;
	__aligned_u64	err_addr;
	__u32		state;
	__u32		reserved;
	__aligned_u64	ranges;
	__u32		nr_ranges;
	__u32		err_range;
};

#define VMEMEXP_EXPORT_SIZE_VER0	72	/* up to @err_addr */
#define VMEMEXP_EXPORT_SIZE_VER1	80	/* up to @reserved */
#define VMEMEXP_EXPORT_SIZE_VER2	96

/*
 * VMEMEXP_SYNC_* - bits of vmemexp_sync.flags
 *
 * READ, WRITE and END have the meaning and the values of DMA_BUF_SYNC_READ,
 * DMA_BUF_SYNC_WRITE and DMA_BUF_SYNC_END; START, like DMA_BUF_SYNC_START, is
 * the absence of END.
 *
 * OBSERVER: sync for a processor beside Linux (an RTOS core, a DSP), which is no
 * device of Linux and does not snoop the CPUs' caches. START
 * makes the CPUs see what the observer wrote, END makes the observer see what
 * the CPUs wrote. Attached devices are left alone.
 */
#define VMEMEXP_SYNC_READ	(1U << 0)
#define VMEMEXP_SYNC_WRITE	(1U << 1)
#define VMEMEXP_SYNC_RW		(VMEMEXP_SYNC_READ | VMEMEXP_SYNC_WRITE)
#define VMEMEXP_SYNC_START	(0U << 2)
#define VMEMEXP_SYNC_END	(1U << 2)
#define VMEMEXP_SYNC_OBSERVER	(1U << 3)

/**
 * struct vmemexp_sync - argument of VMEMEXP_IOC_SYNC
 * @size: in: ``sizeof(struct vmemexp_sync)``, in bytes.
 * @fd: in: a dma-buf exported by this driver, by this or any other process.
 * @flags: in: %VMEMEXP_SYNC_START or %VMEMEXP_SYNC_END, and %VMEMEXP_SYNC_READ,
 *	%VMEMEXP_SYNC_WRITE or both (at least one); optionally
 *	%VMEMEXP_SYNC_OBSERVER.
 * @rows: in: number of ranges, each @stride bytes behind the one before, for a
 *	rectangle of an image. 0 and 1 both mean one range.
 * @offset: in: first byte of the (first) range in the dma-buf. Data of an
 *	unaligned export begins at the offset that the export returned.
 * @length: in: bytes in each range, at least 1.
 * @stride: in: bytes from the start of one range to the start of the next, at
 *	least @length; ignored if @rows is 0 or 1.
 *
 * Brackets CPU access to some bytes of the dma-buf, as ``DMA_BUF_IOCTL_SYNC``
 * does for all of them: START before the first access, END after the last. It
 * reaches every attached device that has the buffer mapped, and touches only
 * the bytes that are named, so that it may be used while a device works on
 * other bytes. Its cost depends on the number of bytes named, not on the size
 * of the dma-buf. On hardware where caches are kept coherent by snooping and
 * nothing bounces, it costs next to nothing, so do not leave it out.
 *
 * START waits for the devices' work on the buffer that is announced by fences:
 * all of it for WRITE, only their writes for READ alone.
 *
 * Errors, in the order of the checks, after those common to all ioctls:
 *
 * ========== =================================================================
 * EINVAL     @flags has neither READ nor WRITE, @length is 0, or @stride is
 *            smaller than @length with more than one row.
 * EBADF      @fd is not open.
 * EINVAL     @fd is not a dma-buf, or one of another driver; or a range is not
 *            inside the dma-buf.
 * ENODEV     The dma-buf has been revoked.
 * EOPNOTSUPP %VMEMEXP_SYNC_OBSERVER on a machine whose caches a module cannot
 *            maintain.
 * ENOMEM     %VMEMEXP_SYNC_OBSERVER of cached memory outside of System RAM. The
 *            kernel maps all of the dma-buf for it until that is released, and all
 *            such mappings may take three quarters of its addresses (32-bit
 *            machines), or a 32nd of RAM in page tables.
 * EINTR      A signal came while waiting for a device or another caller, or a
 *            fatal one between two of many rows; call again.
 * ========== =================================================================
 */
struct vmemexp_sync {
	__u32		size;
	__s32		fd;
	__u32		flags;
	__u32		rows;
	__aligned_u64	offset;
	__aligned_u64	length;
	__aligned_u64	stride;
};

#define VMEMEXP_SYNC_SIZE_VER0		40

/* VMEMEXP_ACCESS_* - what may be done through a dma-buf (vmemexp_query.access) */
#define VMEMEXP_ACCESS_READ		(1U << 0)
#define VMEMEXP_ACCESS_WRITE		(1U << 1)

/* VMEMEXP_CACHE_* - how CPU mappings of a dma-buf are cached (vmemexp_query.cache) */
#define VMEMEXP_CACHE_CACHED		1
#define VMEMEXP_CACHE_WRITECOMBINE	2
#define VMEMEXP_CACHE_UNCACHED		3

/**
 * struct vmemexp_query - argument of VMEMEXP_IOC_QUERY
 * @size: in: ``sizeof(struct vmemexp_query)``, in bytes.
 * @fd: in: a dma-buf exported by this driver, by this or any other process.
 * @flags: in: must be 0.
 * @access: out: %VMEMEXP_ACCESS_READ, and %VMEMEXP_ACCESS_WRITE unless the
 *	dma-buf is read-only.
 * @dmabuf_size: out: bytes in the dma-buf, a multiple of the page size.
 * @offset: out: byte offset of the (first) exported range in the dma-buf.
 * @length: out: bytes in the exported range, as given to VMEMEXP_IOC_EXPORT; of
 *	several ranges, the sum.
 * @memory: out: kinds of memory, a mask of VMEMEXP_MEMORY_* bits, never 0.
 * @cache: out: how mmap and vmap of the dma-buf are cached, one of
 *	VMEMEXP_CACHE_*, never 0: the attribute of the source mapping.
 * @nr_extents: out: number of extents (physically contiguous ranges), at least 1.
 * @min_extent: out: bytes in the smallest extent.
 * @max_extent: out: bytes in the largest extent.
 * @address_bits: out: number of bits that the highest physical address of the
 *	buffer needs; a device whose DMA mask has fewer needs an IOMMU or a
 *	bounce buffer. No field has the addresses themselves.
 * @attachments: out: devices attached now.
 * @mappings: out: attachments mapped for DMA now.
 * @vmaps: out: kernel mappings (vmap) held by importers now.
 * @cpu_mappings: out: user mappings (mmap of the dma-buf) now.
 * @state: out: mask of VMEMEXP_STATE_* bits.
 * @nr_ranges: out: ranges that the dma-buf was exported from, at least 1.
 * @reserved: in: must be 0.
 *
 * @nr_ranges and @reserved were added after the first release.
 *
 * The answer is a snapshot: others may attach, map or sync at the same time.
 *
 * Errors, in the order of the checks, after those common to all ioctls:
 *
 * ======== ===================================================================
 * EBADF    @fd is not open.
 * EINVAL   @fd is not a dma-buf, or one of another driver.
 * EINTR    A signal came while waiting for another caller; call again.
 * EFAULT   The answer cannot be written.
 * ======== ===================================================================
 */
struct vmemexp_query {
	__u32		size;
	__s32		fd;
	__u32		flags;
	__u32		access;
	__aligned_u64	dmabuf_size;
	__aligned_u64	offset;
	__aligned_u64	length;
	__u32		memory;
	__u32		cache;
	__aligned_u64	nr_extents;
	__aligned_u64	min_extent;
	__aligned_u64	max_extent;
	__u32		address_bits;
	__u32		attachments;
	__u32		mappings;
	__u32		vmaps;
	__u32		cpu_mappings;
	__u32		state;
	__u32		nr_ranges;
	__u32		reserved;
};

#define VMEMEXP_QUERY_SIZE_VER0		96	/* up to @state */
#define VMEMEXP_QUERY_SIZE_VER1		104

/**
 * struct vmemexp_revoke - argument of VMEMEXP_IOC_REVOKE
 * @size: in: ``sizeof(struct vmemexp_revoke)``, in bytes.
 * @flags: in: must be 0.
 * @ino: in: the dma-buf's inode number, as in ``ino`` of the list of buffers, of
 *	the tracepoints, and of ``/proc/PID/fdinfo/FD``.
 * @names: in: address of memory for the names of devices that still have the
 *	dma-buf mapped; ignored if @names_size is 0.
 * @names_size: in: bytes at @names; 0 if no names are wanted. Out: bytes that all
 *	names need, including a NUL, at least 1.
 * @mappings: out: attached devices that still have the dma-buf mapped.
 * @vmaps: out: kernel mappings (vmap) that importers still hold.
 * @state: out: mask of VMEMEXP_STATE_* bits, with %VMEMEXP_STATE_REVOKED.
 *
 * Revokes a dma-buf of this driver for all holders: no new attachment, no new mapping for
 * a device, a CPU or the kernel; existing CPU mappings are emptied (SIGBUS). The driver
 * drops its reference to the file that page frames were mapped from, so a driver that has
 * imported a dma-buf of its own mapping can be unloaded.
 * Pages are unpinned, and the user is no longer charged for them, as soon as no device
 * and no kernel mapping uses them, and the fences that the dma-buf has at that moment
 * are signalled. Importers with a callback for it are notified, and unmap by themselves.
 * @mappings and @vmaps count the mappings that are left. The names of the devices are
 * at @names, one on a line, cut off where the memory ends, with a NUL at the end. These
 * devices may go on reading and writing until they are unmapped.
 *
 * A second revoke only reports the mappings that are left. The descriptors stay open, as
 * those of a buffer without memory.
 *
 * Errors, in the order of the checks, after those common to all ioctls:
 *
 * ======== ===================================================================
 * EPERM    The caller lacks %CAP_SYS_ADMIN.
 * ENOENT   No dma-buf of this driver has that number.
 * ENOTUNIQ Two have it: before Linux 6.1 numbers are given out again after 2^32.
 * EINTR    A signal came while waiting for another caller; call again.
 * ENOMEM   The kernel is out of memory.
 * EFAULT   The answer cannot be written. The dma-buf is revoked.
 * ======== ===================================================================
 */
struct vmemexp_revoke {
	__u32		size;
	__u32		flags;
	__aligned_u64	ino;
	__aligned_u64	names;
	__u32		names_size;
	__u32		mappings;
	__u32		vmaps;
	__u32		state;
};

#define VMEMEXP_REVOKE_SIZE_VER0	40

#define VMEMEXP_IOC_EXPORT	_VMEMEXP_IOC(0x00)
#define VMEMEXP_IOC_SYNC	_VMEMEXP_IOC(0x01)
#define VMEMEXP_IOC_QUERY	_VMEMEXP_IOC(0x02)
#define VMEMEXP_IOC_REVOKE	_VMEMEXP_IOC(0x03)

/**
 * DOC: Programs written for TI's vmemexp
 *
 * TI's SDK for AM57x and DRA7 had a driver of the same name, with two ioctls. Programs
 * that were compiled for it run unchanged; new ones use the ioctls above, which tell
 * why they fail and how far a range can be synced. Both work on either kernel, 32 or
 * 64 bits. The size in the request number tells them apart.
 *
 * A program may set @fd or the padding to anything; they are not read.
 */

/**
 * struct vmemexp_ti_export32 - argument of VMEMEXP_TI_IOC_EXPORT32
 * @vaddr: in/out: address of the first byte to export, not 0. It comes back rounded down
 *	to the start of its page, where the dma-buf begins.
 * @size: in: bytes to export, at least 1. The dma-buf has all pages that the range touches.
 * @fd: out: a new descriptor on each call, for reading and writing, ``O_CLOEXEC``, of a
 *	dma-buf of its own. A program that exports a range again closes the last one.
 *
 * Exports memory as VMEMEXP_IOC_EXPORT does with %VMEMEXP_EXPORT_UNALIGNED: the kinds of
 * memory, the limits, what is written on an error (nothing) and the lifetime of the
 * memory are the same, and so is errno:
 *
 * ======= ====================================================================
 * EFAULT  The structure is not readable (or, at the end, not writable).
 * EINVAL  @vaddr is in the first page; or the range is in a mapping of a dma-buf, and
 *         does not begin on the first page of that.
 * others  See &struct vmemexp_export.
 * ======= ====================================================================
 */
struct vmemexp_ti_export32 {
	__u32		vaddr;
	__u32		size;
	__s32		fd;
};

/**
 * struct vmemexp_ti_export64 - argument of VMEMEXP_TI_IOC_EXPORT64
 * @vaddr: in/out: see &struct vmemexp_ti_export32.
 * @size: in: see &struct vmemexp_ti_export32.
 * @fd: out: see &struct vmemexp_ti_export32.
 * @padding: in: ignored, and comes back as it was.
 *
 * The same as programs of 64 bits have it.
 */
struct vmemexp_ti_export64 {
	__aligned_u64	vaddr;
	__aligned_u64	size;
	__s32		fd;
	__u32		padding;
};

#define VMEMEXP_TI_INVALIDATE	0	/* CPUs see the writes of devices and observer */
#define VMEMEXP_TI_WRITEBACK	1	/* devices and observer see the writes of CPUs */

/**
 * struct vmemexp_ti_sync - argument of VMEMEXP_TI_IOC_SYNC
 * @fd: in: a dma-buf exported by this driver, by this or any other process.
 * @op: in: %VMEMEXP_TI_INVALIDATE or %VMEMEXP_TI_WRITEBACK.
 *
 * Syncs all of the dma-buf, for attached devices and for an observer: INVALIDATE as
 * VMEMEXP_IOC_SYNC does with START and READ, WRITEBACK with END and WRITE. TI's header
 * declares this ioctl; TI's driver does not implement it. If a device has the buffer mapped
 * both ways and works on a copy (%VMEMEXP_STATE_BOUNCED: a display), INVALIDATE overwrites
 * the bytes that an observer wrote with that copy; there, use VMEMEXP_IOC_SYNC with
 * %VMEMEXP_SYNC_OBSERVER.
 *
 * ========== =================================================================
 * EFAULT     The structure is not readable.
 * EINVAL     @op is unknown.
 * others     See &struct vmemexp_sync.
 * ========== =================================================================
 */
struct vmemexp_ti_sync {
	__s32		fd;
	__u32		op;
};

#define VMEMEXP_TI_IOC_EXPORT32	_IOWR(0xDB, 0xD0, struct vmemexp_ti_export32)
#define VMEMEXP_TI_IOC_EXPORT64	_IOWR(0xDB, 0xD0, struct vmemexp_ti_export64)
#define VMEMEXP_TI_IOC_SYNC	_IOWR(0xDB, 0xD0, struct vmemexp_ti_sync)

#endif /* _UAPI_VMEMEXP_H */

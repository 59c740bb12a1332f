/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ioctl interface of /dev/vmemexp-importer, a dma-buf importer for tests.
 *
 * One open file is one session, and a session holds at most one attachment of
 * one fake device to one dma-buf; open the node again for every further
 * attachment, also to the same dma-buf. Each ioctl makes one step and the
 * session holds it until the opposite ioctl drops it:
 *
 *	ATTACH ... DETACH	everything below needs the attachment
 *	  MAP ... UNMAP		READ, WRITE and EDIT in between
 *	  VMAP ... VUNMAP	VREAD and VWRITE in between
 *	  BEGIN_CPU, END_CPU	not held: passed on in any order and number
 *	  mmap() of the session
 *
 * close() drops whatever is still held, in the right order. A mapping made by
 * mmap() belongs to the dma-buf and survives the session.
 *
 * errno, the same for every ioctl, in the order of the checks:
 *	ENOTTY		unknown ioctl number
 *	EFAULT		the argument, or the caller's buffer, is not accessible
 *	EINVAL		unknown device, direction or flag, LETS_GO without DYNAMIC, or
 *			a reserved field is not zero
 *	ENXIO		the step that this one builds on is not held (mmap()
 *			without an attachment, too)
 *	EBUSY		the step is held already, or one that builds on it is;
 *			ATTACH says so after it has looked at the dma-buf and
 *			made the device
 *	EINVAL		offset and length reach outside what may be accessed
 *	EOPNOTSUPP	READ and WRITE: the device is behind an IOMMU, or the
 *			memory behind a DMA address cannot be reached by the CPU;
 *			CACHE: the CPU does not tell
 *	ESTALE		READ and WRITE: the exporter has moved the memory of a
 *			dynamic attachment, it must be mapped anew
 *	ENOMEM		as ever
 * Anything else was answered by the exporter or by the dma-buf core and is
 * handed on as it was. (On 5.10 a failing vmap has no errno: it becomes
 * ENOMEM.) A failed ioctl leaves the session as it was, but READ, WRITE, VREAD
 * and VWRITE may have transferred some bytes before an EFAULT.
 */
#ifndef _VMEMEXP_IMPORTER_H
#define _VMEMEXP_IMPORTER_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IMPORTER_PATH	"/dev/vmemexp-importer"

/* The fake devices. Every ATTACH makes a new one, gone at DETACH. */

/* Reaches all memory. On arm and arm64 cache maintenance is not needed. */
#define IMPORTER_DEV_COHERENT	0
/* 32 address bits: memory above 4 GiB is bounced through swiotlb. */
#define IMPORTER_DEV_MASK32	1
/*
 * 28 address bits: memory above 256 MiB is bounced. Where swiotlb's own memory
 * lies above that too, as on amd64 with more than 256 MiB, MAP fails and the
 * kernel warns about an overflow; where all memory does, ATTACH fails with EIO.
 */
#define IMPORTER_DEV_MASK28	2
/* Like COHERENT with a maximum segment size of 64 KiB. */
#define IMPORTER_DEV_SEGMENT64K	3
/*
 * Like COHERENT, but on arm and arm64 the caches are cleaned and invalidated
 * at map, unmap and sync. (On amd64 this is the same as COHERENT.)
 */
#define IMPORTER_DEV_NONCOHERENT 4
/*
 * A device that works on a private copy of the memory, as if behind a cache
 * that nothing but DMA API calls keeps coherent: the copy is filled when memory
 * is mapped, refreshed when a range is synced for the device, and written back
 * when it is synced for the CPU or unmapped; a sync or unmap that names a
 * direction does no more than that. Memory mapped with DMA_ATTR_SKIP_CPU_SYNC
 * reads as IMPORTER_SHADOW_POISON until it is synced, unless FROM_DEVICE. So a
 * sync that is missing, too late, too wide or for the wrong direction shows as
 * wrong data without any boot parameter; INFO counts the calls. Every entry
 * that the exporter maps is one segment, with a gap behind it.
 *
 * It works on memory outside of System RAM itself, without a copy: no DMA API call may keep the
 * caches of what is not in the linear map. Such memory has to be mapped as a resource
 * (dma_map_resource()) or, if it has struct pages, with DMA_ATTR_SKIP_CPU_SYNC, and never be
 * synced.
 *
 * EOPNOTSUPP at ATTACH where the kernel has neither CONFIG_DMA_OPS nor
 * CONFIG_ARCH_HAS_DMA_OPS.
 */
#define IMPORTER_DEV_SHADOW	5
/*
 * Like SHADOW behind an IOMMU: all entries that one call maps become one segment
 * of consecutive DMA addresses (unless one ends within a page). As the DMA API
 * does then, a sync translates its first address and goes on in memory from
 * there. So what it names of another entry, unless that follows in memory, too,
 * stays as it was and counts as a wrong use.
 */
#define IMPORTER_DEV_MERGED	6
/*
 * Does no DMA and has no DMA mask, as a display on SPI or USB. There are no segments,
 * and READ and WRITE find nothing.
 */
#define IMPORTER_DEV_NO_DMA	7
#define IMPORTER_NR_DEVS	8

#define IMPORTER_SHADOW_POISON	0xa5

/* Directions, as enum dma_data_direction has them. */
#define IMPORTER_BIDIRECTIONAL	0
#define IMPORTER_TO_DEVICE	1
#define IMPORTER_FROM_DEVICE	2

/*
 * Attach as a dynamic importer, one that promises to cope with moving memory,
 * as GPUs do. Up to 6.12 the core then maps bidirectionally while attaching
 * to an exporter that does not move memory.
 */
#define IMPORTER_ATTACH_DYNAMIC	0x1
/*
 * For a dynamic importer: when the exporter tells that the memory moves, it unmaps at once, and
 * detaches a moment later, by itself. Without, it does nothing but to remember that it was told.
 */
#define IMPORTER_ATTACH_LETS_GO	0x2

/**
 * struct importer_attach - argument of IMPORTER_IOC_ATTACH
 * @dmabuf_fd: in: file descriptor of the dma-buf; EBADF if it is none,
 *	EINVAL if it is one of another kind
 * @device: in: IMPORTER_DEV_*
 * @flags: in: IMPORTER_ATTACH_*
 * @reserved: in: must be 0
 */
struct importer_attach {
	__u32 dmabuf_fd;
	__u32 device;
	__u32 flags;
	__u32 reserved;
};

/**
 * struct importer_direction - argument of MAP, BEGIN_CPU and END_CPU
 * @direction: in: IMPORTER_BIDIRECTIONAL, _TO_DEVICE or _FROM_DEVICE
 * @reserved: in: must be 0
 */
struct importer_direction {
	__u32 direction;
	__u32 reserved;
};

/**
 * struct importer_transfer - argument of READ, WRITE, VREAD and VWRITE
 * @offset: in: first byte, counted over the DMA segments one after the other
 *	(READ, WRITE) or from the start of the kernel mapping (VREAD, VWRITE)
 * @length: in: number of bytes; 0 only checks the state and @offset
 * @user_ptr: in: address of the caller's buffer
 */
struct importer_transfer {
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 user_ptr;
};

/*
 * The entry of the last segment that is left is marked as the end of the list. Not
 * with CONFIG_DMABUF_DEBUG (EOPNOTSUPP): the core itself walks over all entries then.
 */
#define IMPORTER_EDIT_MARK_END	0x1

/**
 * struct importer_edit - argument of IMPORTER_IOC_EDIT
 * @nents: in: number of DMA segments that are left, at least 1
 * @flags: in: IMPORTER_EDIT_*
 * @skip: in: bytes that are cut off at the start of the first one
 * @trim: in: bytes that are cut off at the end of the last one
 *
 * Changes the scatterlist that the exporter gave, as importers do that want a part of
 * the dma-buf (those of RDMA): its number of segments, and their DMA addresses and
 * lengths; and where it ends. Nothing puts them back before UNMAP. EINVAL if there are
 * not as many segments, or if not one byte of the first or the last is left.
 */
struct importer_edit {
	__u32 nents;
	__u32 flags;
	__aligned_u64 skip;
	__aligned_u64 trim;
};

/* Bits of importer_info.held: the session has it. */
#define IMPORTER_HELD_ATTACH	0x1
#define IMPORTER_HELD_MAP	0x2
#define IMPORTER_HELD_VMAP	0x4

/* Facts in importer_info.flags. */

/* The device's addresses are translated by an IOMMU. */
#define IMPORTER_INFO_IOMMU	0x1
/* @nr_bounced is known; not with CONFIG_DMABUF_DEBUG, but for SHADOW and MERGED. */
#define IMPORTER_INFO_BOUNCED	0x2
/* The kernel mapping is I/O memory (iosys_map.is_iomem). */
#define IMPORTER_INFO_VMAP_IOMEM 0x4
/* There are entries without a struct page; not told with CONFIG_DMABUF_DEBUG. */
#define IMPORTER_INFO_PAGELESS	0x8
/* The exporter has told since ATTACH that the memory moves. */
#define IMPORTER_INFO_TOLD	0x10

/**
 * struct importer_info - argument of IMPORTER_IOC_INFO
 * @held: out: IMPORTER_HELD_*
 * @flags: out: IMPORTER_INFO_*
 * @device: out: IMPORTER_DEV_*
 * @direction: out: direction of the mapping that is held
 * @size: out: size of the dma-buf in bytes
 * @max_mapping_size: out: most bytes that the device can map as one entry,
 *	all ones if there is no limit
 * @max_segment_size: out: most bytes that the device takes as one segment
 * @nents: out: number of DMA segments
 * @orig_nents: out: number of entries that the exporter mapped
 * @address_bits: out: bits that the highest DMA address needs
 * @nr_bounced: out: number of segments that the device sees through a copy:
 *	their DMA address is not that of their page, or SHADOW or MERGED has a
 *	copy
 * @dma_size: out: sum of the DMA segments in bytes
 * @dma_contiguous: out: bytes from the start that are contiguous in DMA
 *	addresses, what a device without scatter-gather could use
 * @min_segment: out: length of the smallest DMA segment in bytes
 * @max_segment: out: length of the largest DMA segment in bytes
 * @nr_sync_for_device: out: calls of dma_sync_*_for_device(), one per entry
 * @sync_for_device_bytes: out: bytes that these calls named
 * @nr_sync_for_cpu: out: calls of dma_sync_*_for_cpu(), one per entry
 * @sync_for_cpu_bytes: out: bytes that these calls named
 * @nr_mapped: out: entries that are mapped for this device now
 * @nr_errors: out: wrong uses of the DMA API seen, much as
 *	CONFIG_DMA_API_DEBUG would: a sync or unmap of what is not mapped, in
 *	a direction that does not fit the mapping's, or an unmap of a part; a
 *	sync across entries that do not follow each other in memory;
 *	cache maintenance of memory outside of System RAM, System RAM mapped
 *	as a resource, or a resource unmapped as something else
 * @nr_told: out: how often the exporter has told since ATTACH that the memory moves
 *
 * Never fails but for EFAULT. Fields from @device to @nr_errors are 0 without an
 * attachment, those from @nents to @max_segment without a mapping, and those
 * from @nr_sync_for_device to @nr_errors for every device other than SHADOW and
 * MERGED.
 */
struct importer_info {
	__u32 held;
	__u32 flags;
	__u32 device;
	__u32 direction;
	__aligned_u64 size;
	__aligned_u64 max_mapping_size;
	__aligned_u64 max_segment_size;
	__u32 nents;
	__u32 orig_nents;
	__u32 address_bits;
	__u32 nr_bounced;
	__aligned_u64 dma_size;
	__aligned_u64 dma_contiguous;
	__aligned_u64 min_segment;
	__aligned_u64 max_segment;
	__aligned_u64 nr_sync_for_device;
	__aligned_u64 sync_for_device_bytes;
	__aligned_u64 nr_sync_for_cpu;
	__aligned_u64 sync_for_cpu_bytes;
	__aligned_u64 nr_mapped;
	__aligned_u64 nr_errors;
	__aligned_u64 nr_told;
};

/* How a page is cached, in importer_cache.cache. */

#define IMPORTER_CACHE_OTHER		0
#define IMPORTER_CACHE_CACHED		1
#define IMPORTER_CACHE_WRITECOMBINE	2
#define IMPORTER_CACHE_UNCACHED		3

/* Not a page of the caller, but the first one of the kernel mapping (VMAP). */
#define IMPORTER_CACHE_OF_VMAP	0x1

/**
 * struct importer_cache - argument of IMPORTER_IOC_CACHE
 * @address: in: address in a mapping of page frames (VM_PFNMAP), as those of
 *	dma-bufs are; EFAULT if it is none, or if no page is there. Ignored
 *	with IMPORTER_CACHE_OF_VMAP
 * @flags: in: IMPORTER_CACHE_OF_VMAP
 * @cache: out: IMPORTER_CACHE_*, what the page table says
 *
 * Needs no attachment. With IMPORTER_CACHE_OF_VMAP, ENXIO without a kernel
 * mapping, and EOPNOTSUPP on arm without LPAE.
 */
struct importer_cache {
	__aligned_u64 address;
	__u32 flags;
	__u32 cache;
};

#define IMPORTER_MAGIC		0xe7

/* Attach a new device to a dma-buf; EBUSY if one is attached. */
#define IMPORTER_IOC_ATTACH	_IOW(IMPORTER_MAGIC, 0x00, struct importer_attach)
/* EBUSY while mapped or vmapped. */
#define IMPORTER_IOC_DETACH	_IO(IMPORTER_MAGIC, 0x01)
#define IMPORTER_IOC_MAP	_IOW(IMPORTER_MAGIC, 0x02, struct importer_direction)
#define IMPORTER_IOC_UNMAP	_IO(IMPORTER_MAGIC, 0x03)
/*
 * Let the device read from memory into the caller's buffer, or write the
 * caller's buffer to memory, at the DMA addresses of the mapping. The device
 * does not look at the mapping's direction, as hardware would not.
 */
#define IMPORTER_IOC_READ	_IOW(IMPORTER_MAGIC, 0x04, struct importer_transfer)
#define IMPORTER_IOC_WRITE	_IOW(IMPORTER_MAGIC, 0x05, struct importer_transfer)
#define IMPORTER_IOC_VMAP	_IO(IMPORTER_MAGIC, 0x06)
#define IMPORTER_IOC_VUNMAP	_IO(IMPORTER_MAGIC, 0x07)
#define IMPORTER_IOC_VREAD	_IOW(IMPORTER_MAGIC, 0x08, struct importer_transfer)
#define IMPORTER_IOC_VWRITE	_IOW(IMPORTER_MAGIC, 0x09, struct importer_transfer)
#define IMPORTER_IOC_BEGIN_CPU	_IOW(IMPORTER_MAGIC, 0x0a, struct importer_direction)
#define IMPORTER_IOC_END_CPU	_IOW(IMPORTER_MAGIC, 0x0b, struct importer_direction)
#define IMPORTER_IOC_INFO	_IOR(IMPORTER_MAGIC, 0x0c, struct importer_info)
#define IMPORTER_IOC_CACHE	_IOWR(IMPORTER_MAGIC, 0x0d, struct importer_cache)
#define IMPORTER_IOC_EDIT	_IOW(IMPORTER_MAGIC, 0x0e, struct importer_edit)
/*
 * As a GPU that shares the caller's address space does: watch all of it, and when it ends,
 * have that wait before anything is unmapped, until LET_END or close(), or 200 s.
 * EBUSY: the session watches one already; EOPNOTSUPP: the kernel has no MMU notifiers.
 */
#define IMPORTER_IOC_HOLD_MM	_IO(IMPORTER_MAGIC, 0x0f)
/* Wait until it ends, if no signal comes before (EINTR). */
#define IMPORTER_IOC_AWAIT_END	_IO(IMPORTER_MAGIC, 0x10)
/* ETIMEDOUT: it did not wait for as long. */
#define IMPORTER_IOC_LET_END	_IO(IMPORTER_MAGIC, 0x11)

#endif /* _VMEMEXP_IMPORTER_H */

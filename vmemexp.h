/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vmemexp: internal structures. User space sees nothing of this.
 */
#ifndef _VMEMEXP_H
#define _VMEMEXP_H

#include <linux/atomic.h>
#include <linux/dma-buf.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/workqueue.h>
#include <vmemexp/compat.h>

/*
 * Number of bits of a page frame number that struct vmemexp_extent stores. The higher bits,
 * which only memory beyond 16 TiB has, are in vmemexp_buf.high. The module for the debug
 * kernel is built with less, so that the tests there use that array.
 */
#ifndef VMEMEXP_LOW_BITS
#define VMEMEXP_LOW_BITS	32
#endif

/**
 * struct vmemexp_extent - consecutive pages of a buffer that are contiguous in memory
 * @low: the lower half of the first page frame number; see vmemexp_extent_pfn()
 * @start: index of the first page in the buffer. The extent ends where the next one
 *	starts; the last one ends with the buffer.
 *
 * A buffer may have as many extents as pages, and has fewer than INT_MAX pages.
 */
struct vmemexp_extent {
	u32 low;
	u32 start;
};

/**
 * struct vmemexp_segment - consecutive pages of a buffer that are contiguous for a device
 * @addr: DMA address of the first page
 * @start: index of the first page in the buffer, as that of an extent
 *
 * Packed, since an attachment may have as many segments as the buffer has extents.
 */
struct vmemexp_segment {
	u64 addr;
	u32 start;
} __packed __aligned(4);

/* Few pages are collected on the stack. */
#define VMEMEXP_FEW_PAGES	16

/**
 * struct vmemexp_user - a user that has buffers
 * @node: entry in vmemexp_users
 * @user: the user that pays for pinned pages, held; one for all namespaces
 * @cred: holds @user on kernels that let modules hold nothing smaller
 * @buffers: number of buffers; the entry is freed when there are none, and no @runs
 * @runs: runs of @free_work that are queued, or have not ended
 * @dying: buffers that have been released and not yet freed
 * @orphaned: a buffer has to leave an mm that ends
 * @free_work: frees the buffers in @dying, one after the other, and serves @orphaned.
 *	Nothing else frees a buffer that is orphaned.
 *
 * Protected by vmemexp_users_lock, but for @user and @cred, which are constant.
 */
struct vmemexp_user {
	struct hlist_node node;
	struct user_struct *user;
	struct cred *cred;
	unsigned int buffers;
	unsigned int runs;
	struct list_head dying;
	bool orphaned;
	struct work_struct free_work;
};

/**
 * struct vmemexp_source - a source range: addresses that a buffer was exported from
 * @start: address of the first page of the range in vmemexp_buf.mm
 * @first: index of that page in the buffer
 * @npages: pages in the range
 * @stale: the range has been unmapped, or taken away by its driver; set by
 *	vmemexp_buf.notifier, never cleared, and of interest to the export alone
 */
struct vmemexp_source {
	unsigned long start;
	u32 first;
	u32 npages;
	bool stale;
};

/**
 * struct vmemexp_windows - kernel mappings of the extents of a buffer
 * @pages: of address space that they take
 * @addrs: of each extent; NULL behind the last one that is open
 */
struct vmemexp_windows {
	unsigned long pages;
	void *addrs[];
};

/**
 * struct vmemexp_buf - one export, the priv of its dma_buf
 * @dmabuf: the owner, without a reference; NULL until exported, and after the release
 * @inode: the dma-buf's inode, held: a revoke empties the mappings of it
 * @sources: the source ranges, in the order of the buffer
 * @one_source: the source range is here if there is only one
 * @nr_sources: number of @sources, at least 1
 * @npages: pages in all source ranges and in the dma-buf
 * @offset: offset in the buffer of the first byte that was asked for, in bytes
 * @length: bytes that were asked for, in all ranges
 * @writable: devices and CPUs may write; decided at export
 * @dirty: the memory may have been written through the dma-buf
 * @stale: a source range has been unmapped; set by @notifier
 * @taken: the driver has taken page frames away; set by @notifier
 * @orphaned: the address space has ended; set by @notifier
 * @revoked: only devices and kernel mappings that use the memory already can access it
 * @emptied: a revoke has emptied the mappings and notified the importers, so the memory can
 *	be released
 * @dropped: the memory has been released
 * @caching_lost: the kernel could not reserve the caching of memory that is not RAM
 * @blank: @vaddr shows a blank page, again and again, instead of the memory of a @revoked
 *	buffer
 * @overlaps: some page is in the buffer more than once
 * @pfnmap: the memory is page frames that a driver mapped; nothing is pinned
 * @unlisted: some page frame is in no carve-out that the administrator listed
 * @is_ram: all of the memory is System RAM, which the kernel can reach; otherwise none is
 * @has_pages: every page frame has a struct page; always so if @is_ram
 * @has_vmap: the dma-buf has the operations vmap and vunmap
 * @memory: VMEMEXP_MEMORY_* bits of the pages
 * @prot_cache: the bits of the source's page protection that say how it is
 *	cached (vmemexp_prot_cache())
 * @file: the file that @pfnmap memory was mapped from, held until revoked; may be NULL
 * @extents: the physically contiguous parts of the buffer, in its order
 * @high: the upper halves of their page frame numbers, in the same allocation; may be NULL
 *	while all are 0
 * @one_extent: the extent is here if there is only one, and it has no upper half
 * @nr_extents: entries used in @extents
 * @charged: pages charged to the user: if they are pinned, the larger of @npages and
 *	vmemexp_collect.nr_folio_pages, otherwise the pages of memory that describe the page
 *	frames; 0 when @dropped
 * @user: the user that is charged; outlives the process
 * @mm: the exporter's mm, held by mmgrab(): pinned_vm is shown there. NULL when it has
 *	ended.
 * @notifier: mm/ calls it when a source range goes away; registered while there is @mm
 * @refs: one for the dma-buf, one for each revoke that is running, and one for each reader
 *	of the list that shows the buffer; the release waits until it is 0
 * @unmapped_lock: protects @unmapped; @notifier takes it under locks of mm/
 * @unmapped: for page frames, a bit for each page of the buffer: the page has been
 *	unmapped, and another mapping may be there by now. NULL for pages.
 * @work: revokes a @taken buffer, leaves the mm of an @orphaned one, and releases the memory
 *	of a @revoked one after its last use
 * @fences: copy of the fences of a @revoked buffer, made when the last device had
 *	unmapped it, and kept until the release; NULL until then
 * @tgid: the exporting process, for the list of buffers
 * @comm: the name of the exporting process
 * @min_pages: pages of the shortest extent, once @address_bits is set
 * @max_pages: pages of the longest extent, once @address_bits is set
 * @address_bits: bits that the highest address of the memory takes; 0 until a query asks
 * @serial: number of the buffer in the list; no other buffer ever has the same
 * @node: entry in vmemexp_buffers, until the release
 * @free_node: entry in vmemexp_user.dying, after the release
 * @lock: see below. Its place in the lock order is at the top of vmemexp.c.
 * @attachments: list of vmemexp_attachment
 * @nr_mapped: attachments that importers have mapped
 * @nr_to_sync: those of them that need syncs
 * @vaddr: the kernel mapping while there is one
 * @windows: kernel mappings of the extents, for cache maintenance of memory that is not
 *	@is_ram; NULL until needed
 * @cpu_mappings: VMAs that map the dma-buf
 *
 * These are constant once the dma_buf has been exported, and need no lock: @inode, @sources
 * and @one_source (but for their @stale), @nr_sources, @npages, @offset, @length, @writable,
 * @overlaps, @pfnmap, @unlisted, @is_ram, @has_pages, @has_vmap, @memory, @prot_cache,
 * @extents, @high, @one_extent, @nr_extents, @user, @tgid, @comm and @serial.
 *
 * These change:
 *
 * * @dirty, @stale, @taken, @orphaned: set without a lock (WRITE_ONCE()), never cleared.
 * * @revoked: set under @lock, never cleared. Faults read it inside of vmemexp_faults.
 * * @dmabuf, @mm: written under @lock.
 * * @emptied, @dropped (both never cleared), @caching_lost, @blank, @file, @fences,
 *   @attachments and the mappings of each, @nr_mapped, @nr_to_sync, @vaddr, @windows:
 *   protected by @lock.
 * * @unmapped, its bits: protected by @unmapped_lock.
 * * @node: protected by vmemexp_buffers_lock. @free_node: by vmemexp_users_lock.
 * * @charged: written by the one thread that has set @dropped.
 * * @min_pages, @max_pages, @address_bits: see vmemexp_measure_extents().
 * * @refs, @cpu_mappings: atomic.
 *
 * There is one of these for each export, so its size matters: it fits 512 bytes, of which
 * kmalloc() has objects, on 64-bit kernels without PREEMPT_RT and without checks of locks.
 */
struct vmemexp_buf {
	struct dma_buf *dmabuf;
	struct inode *inode;

	struct vmemexp_source *sources;
	struct vmemexp_source one_source;
	unsigned int nr_sources;
	u32 offset;
	unsigned long npages;
	size_t length;
	bool writable;
	bool dirty;
	bool stale;
	bool taken;
	bool orphaned;
	bool revoked;
	bool emptied;
	bool dropped;
	bool caching_lost;
	bool blank;
	bool overlaps;
	bool pfnmap;
	bool unlisted;
	bool is_ram;
	bool has_pages;
	bool has_vmap;
	u32 memory;
	u64 prot_cache;
	struct file *file;

	struct vmemexp_extent *extents;
	u32 *high;
	struct vmemexp_extent one_extent;
	unsigned long nr_extents;
	unsigned long charged;

	struct vmemexp_user *user;
	struct mm_struct *mm;
#ifdef CONFIG_MMU_NOTIFIER
	struct mmu_interval_notifier notifier;
#endif
	refcount_t refs;
	spinlock_t unmapped_lock;	/* see @unmapped_lock above */
	unsigned long *unmapped;
	struct delayed_work work;
	struct dma_resv *fences;
	pid_t tgid;
	char comm[TASK_COMM_LEN];
	u32 min_pages;
	u32 max_pages;
	u32 address_bits;
	u64 serial;
	union {
		struct rb_node node;
		struct list_head free_node;
	};

	struct mutex lock;	/* see @lock above */
	struct list_head attachments;
	unsigned int nr_mapped;
	unsigned int nr_to_sync;
	void *vaddr;
	struct vmemexp_windows *windows;
	atomic_t cpu_mappings;
};

/* The dma-buf's inode number is its name for humans. */
static inline u64 vmemexp_ino(const struct vmemexp_buf *buf)
{
	return buf->inode->i_ino;
}

struct vmemexp_error;

/**
 * struct vmemexp_collect - the state of an export while it collects the memory of a buffer
 * @buf: the buffer, whose @extents and kinds of memory it fills in
 * @error: why collecting has failed, for user space
 * @contiguous: fail if there is more than one extent
 * @source: the source range that is being collected
 * @nr_vmas: VMAs that the source ranges had when they were checked
 * @last_vma: the start of the last of them
 * @mixed: one of them is VM_MIXEDMAP: its driver may have inserted a page twice
 * @pages: scratch array for a batch of pinned pages
 * @nr_pages: pages that the extents describe
 * @max_extents: entries allocated in vmemexp_buf.extents
 * @few_extents: the extents of a small buffer, as long as they fit
 * @next_pfn: page frame that would continue the last extent; ULONG_MAX, which is none,
 *	before there is one
 * @nr_folio_pages: pages of the folios that the pinned pages belong to
 * @last_folio: the folio of the last page pinned, for comparison only
 * @in_hugetlb: the last page pinned belongs to a hugetlb page
 * @one_by_one: number of pages to pin one by one, since one of them could not be pinned
 * @waited: how long the export has waited for its turn, in jiffies
 *
 * Lives on the stack of vmemexp_create(). No other thread knows it, so it has no lock.
 */
struct vmemexp_collect {
	struct vmemexp_buf *buf;
	struct vmemexp_error *error;
	bool contiguous;
	const struct vmemexp_source *source;
	unsigned long nr_vmas;
	unsigned long last_vma;
	bool mixed;
	struct page **pages;
	unsigned long nr_pages;
	unsigned long max_extents;
	struct vmemexp_extent few_extents[VMEMEXP_FEW_PAGES];
	unsigned long next_pfn;
	unsigned long nr_folio_pages;
	const void *last_folio;
	bool in_hugetlb;
	unsigned long one_by_one;
	unsigned long waited;
};

/**
 * struct vmemexp_attachment - one device attached to a buffer
 * @dev: the device
 * @may_map: the importer may map the buffer; decided when it attached
 * @max_pages: pages that one entry of @sgt may have
 * @nr_entries: entries of @sgt, which importers may edit
 * @noncoherent: while mapped: caches lie between the CPUs and the device, and the DMA
 *	API does not maintain all of them
 * @node: entry in vmemexp_buf.attachments
 * @sgt: this device's own scatterlist of the whole buffer
 * @dir: direction of the importer's map, DMA_NONE while there is none
 * @needs_sync: while mapped: a sync has something to do for the device
 * @mapped_dir: direction of the DMA API's mapping
 * @persistent: the DMA API's mapping stays from the first map to detach, because it
 *	is nothing but the addresses of the memory (vmemexp_is_direct()). There are no
 *	@segments.
 * @dma_offset: while @persistent: the DMA address of a byte less its address in memory
 * @resource: the mapping was made by dma_map_phys(), as memory that is not RAM
 * @segments: the mapping's contiguous ranges of DMA addresses. Syncs go by this copy,
 *	since importers may edit the scatterlist that they got. NULL until needed.
 * @nr_segments: number of these ranges, 0 while nothing is mapped
 * @nr_bounced: number of segments for which the DMA API made copies
 *
 * Protected by vmemexp_buf.lock, apart from @dev, @may_map, @max_pages and @nr_entries,
 * which are constant.
 */
struct vmemexp_attachment {
	struct device *dev;
	bool may_map;
	unsigned long max_pages;
	unsigned int nr_entries;
	bool noncoherent;
	struct list_head node;
	struct sg_table sgt;
	enum dma_data_direction dir;
	bool needs_sync;
	enum dma_data_direction mapped_dir;
	bool persistent;
	u64 dma_offset;
	bool resource;
	struct vmemexp_segment *segments;
	unsigned int nr_segments;
	unsigned int nr_bounced;
};

static inline size_t vmemexp_size(const struct vmemexp_buf *buf)
{
	return (size_t)buf->npages << PAGE_SHIFT;
}

#endif /* _VMEMEXP_H */

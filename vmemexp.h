/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vmemexp: internal structures, and at the end what makes older kernels look
 * like the newest one. Nothing here is seen by user space.
 */
#ifndef _VMEMEXP_H
#define _VMEMEXP_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/cred.h>
#include <linux/dma-buf.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <uapi/vmemexp.h>

/**
 * struct vmemexp_run - pages of a buffer that are contiguous for somebody
 * @base: page frame number (in an extent) or DMA address (in a segment)
 * @start: index of the first page in the buffer; the run ends where the next
 *	one starts, the last one ends with the buffer
 *
 * There may be as many as pages, which are fewer than INT_MAX: no padding.
 */
struct vmemexp_run {
	u64 base;
	u32 start;
} __packed __aligned(4);

/**
 * struct vmemexp_user - a user that has buffers
 * @node: entry in vmemexp_users
 * @user: whom pinned pages are charged to, held; one for all namespaces
 * @cred: what holds it, where the kernel lets modules hold nothing smaller
 * @buffers: number of buffers; the entry goes with the last one
 * @dying: those of them that have been released and not yet freed
 * @free_work: frees them, one after the other
 *
 * Protected by vmemexp_users_lock, but for @user and @cred, which are constant.
 */
struct vmemexp_user {
	struct list_head node;
	struct user_struct *user;
	struct cred *cred;
	unsigned int buffers;
	struct list_head dying;
	struct work_struct free_work;
};

/**
 * struct vmemexp_buf - one exported range, the priv of its dma_buf
 * @dmabuf: the owner, which has no reference counted here; NULL until exported.
 *	Written under @lock.
 * @inode: its inode, held: revoking empties the mappings of it
 * @ino: the dma-buf's inode number, its name for humans
 * @start: page aligned begin of the source range in @mm
 * @npages: pages in the source range and in the dma-buf
 * @offset: where the range that was asked for begins in the buffer, in bytes
 * @length: and how long it is, in bytes
 * @writable: devices and CPUs may write; decided at export
 * @dirty: somebody may have written through the export; only ever set
 * @stale: set by @notifier, never cleared: the source range has been unmapped
 * @taken: set by @notifier, never cleared: the driver has taken page frames away
 * @orphaned: set by @notifier, never cleared: the address space has ended
 * @revoked: nobody gets at the memory any more, but for those that use it already.
 *	Never cleared. Set under @lock; faults read it inside of vmemexp_faults.
 * @emptied: the mappings of a @revoked buffer have been emptied and its importers told,
 *	so the memory can be let go. Never cleared; protected by @lock.
 * @dropped: the memory has been let go. Never cleared; protected by @lock.
 * @caching_lost: the kernel could not be told how to cache what is not RAM; protected
 *	by @lock
 * @overlaps: some page is in the buffer more than once
 * @pfnmap: made of page frames that a driver mapped; nothing is pinned
 * @unlisted: some of them are in no carve-out that the administrator listed
 * @is_ram: System RAM, which the kernel can reach; else none of it is
 * @has_pages: every page frame has a struct page; always so if @is_ram
 * @memory: VMEMEXP_MEMORY_* bits of the pages
 * @prot_cache: the bits of the source's page protection that say how it is
 *	cached (vmemexp_prot_cache())
 * @file: the file that @pfnmap memory was mapped from, held until revoked; may be
 *	NULL. Protected by @lock once exported.
 * @nr_vmas: mappings that the source range had when it was first looked at
 * @extents: physically contiguous runs of pages, in buffer order
 * @nr_extents: entries used in @extents
 * @max_extents: entries allocated in @extents
 * @nr_recorded: pages described by @extents
 * @next_pfn: page frame that would go on with the last of @extents
 * @nr_held: pages of the folios that they belong to, if pinned
 * @last_folio: the folio of the last page pinned, for comparison only
 * @in_hugetlb: and that was a huge page of hugetlb
 * @waited: how long the export has waited for its turn, in jiffies
 * @charged: pages charged to the user: the larger of @npages and @nr_held if they are
 *	pinned, else what the kernel needs to describe them; 0 when @dropped
 * @user: who is charged, and outlives the process
 * @mm: the exporter's, held by mmgrab(): pinned_vm is shown there. NULL when it has
 *	ended. Protected by @lock once exported.
 * @notifier: tells when the source range goes away; registered while there is @mm
 * @unmapped_lock: protects @unmapped. Taken by @notifier, under locks of mm/; nothing is
 *	taken inside.
 * @unmapped: of page frames, a bit for each page of the source range: it has been
 *	unmapped, and what is mapped there now is none of the buffer's. NULL of pages.
 * @work: does what @taken, @orphaned, and the last use of a @revoked buffer ask for
 * @fences: of the devices that had let go of a @revoked buffer when the last one did
 * @has_fences: those have been copied; protected by the lock of @fences
 * @refs: one for the dma-buf, and one for each revoke that is at work
 * @unreferenced: completed when @refs is 0, which the release waits for
 * @tgid: the exporting process, for the list of buffers
 * @comm: its name
 * @node: entry in vmemexp_buffers, protected by vmemexp_buffers_lock; after the
 *	release in vmemexp_user.dying
 * @lock: protects @attachments, what they map, @vaddr, @blank and @windows, and the
 *	fields above that say so. Taken inside the mmap_lock (mmap), the reservation
 *	lock (map, unmap, vmap, vunmap) and vmemexp_buffers_lock. Nothing that takes
 *	one of these, or waits for a fence, may run under it.
 * @attachments: list of vmemexp_attach
 * @vaddr: the kernel mapping while there is one
 * @blank: the page that @vaddr shows instead of the memory, if that was @revoked
 * @windows: kernel addresses of the extents, for cache maintenance of memory
 *	that is not @is_ram; NULL until needed
 * @cpu_mappings: VMAs that map the dma-buf
 *
 * Fields without a lock are constant once the dma_buf has been exported.
 */
struct vmemexp_buf {
	struct dma_buf *dmabuf;
	struct inode *inode;
	unsigned long ino;

	unsigned long start;
	unsigned long npages;
	unsigned long offset;
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
	bool overlaps;
	bool pfnmap;
	bool unlisted;
	bool is_ram;
	bool has_pages;
	u32 memory;
	u64 prot_cache;
	struct file *file;
	unsigned long nr_vmas;

	struct vmemexp_run *extents;
	unsigned long nr_extents;
	unsigned long max_extents;
	unsigned long nr_recorded;
	unsigned long next_pfn;
	unsigned long nr_held;
	const void *last_folio;
	bool in_hugetlb;
	unsigned long waited;
	unsigned long charged;

	struct vmemexp_user *user;
	struct mm_struct *mm;
#ifdef CONFIG_MMU_NOTIFIER
	struct mmu_interval_notifier notifier;
#endif
	spinlock_t unmapped_lock;	/* see above */
	unsigned long *unmapped;
	struct delayed_work work;
	struct dma_resv fences;
	bool has_fences;
	refcount_t refs;
	struct completion unreferenced;
	pid_t tgid;
	char comm[TASK_COMM_LEN];
	struct list_head node;

	struct mutex lock;	/* see above */
	struct list_head attachments;
	void *vaddr;
	struct page *blank;
	void **windows;
	atomic_t cpu_mappings;
};

/**
 * struct vmemexp_attach - one device attached to a buffer
 * @dev: the device
 * @may_map: the importer was allowed to map it when it attached
 * @max_pages: pages that one entry of @sgt may have
 * @nr_entries: entries of @sgt, which importers may edit
 * @noncoherent: while mapped: caches come between the CPUs and it, and the DMA API
 *	does not look after all of it
 * @node: entry in vmemexp_buf.attachments
 * @sgt: this device's own scatterlist of the whole buffer
 * @dir: direction that the importer has mapped it in, DMA_NONE while it has not
 * @mapped_dir: direction that it is mapped in for the DMA API
 * @kept: the DMA API's mapping is kept from the first map to detach, because it is
 *	nothing but the addresses of the memory (vmemexp_is_direct())
 * @resource: mapped by dma_map_resource()
 * @segments: the mapping's contiguous DMA ranges. Importers may edit the
 *	scatterlist that they got; syncs go by this copy.
 * @nr_segments: entries used in @segments, 0 while nothing is mapped
 * @nr_bounced: how many of them the DMA API made copies for
 *
 * Protected by vmemexp_buf.lock, apart from @dev, @may_map, @max_pages and @nr_entries,
 * which are constant.
 */
struct vmemexp_attach {
	struct device *dev;
	bool may_map;
	unsigned long max_pages;
	unsigned int nr_entries;
	bool noncoherent;
	struct list_head node;
	struct sg_table sgt;
	enum dma_data_direction dir;
	enum dma_data_direction mapped_dir;
	bool kept;
	bool resource;
	struct vmemexp_run *segments;
	unsigned int nr_segments;
	unsigned int nr_bounced;
};

static inline size_t vmemexp_size(const struct vmemexp_buf *buf)
{
	return (size_t)buf->npages << PAGE_SHIFT;
}

/*
 * How memory is cached: the bits of a page protection that say so.
 *
 * A mapping with other bits than those of the mapping that the memory came from
 * would be an alias that the CPU need not keep coherent. So they are kept as
 * they are, and compared with what the kernel itself uses to give them a name.
 */
#if defined(CONFIG_X86)
#define VMEMEXP_PROT_CACHE_MASK		((u64)_PAGE_CACHE_MASK)
#elif defined(CONFIG_ARM64)
#define VMEMEXP_PROT_CACHE_MASK		((u64)PTE_ATTRINDX_MASK)
#elif defined(CONFIG_ARM)
#define VMEMEXP_PROT_CACHE_MASK		((u64)L_PTE_MT_MASK)
#else
/* Nothing is known: page frames cannot be exported. */
#define VMEMEXP_PROT_CACHE_MASK		0ULL
#endif

static inline u64 vmemexp_prot_cache(pgprot_t prot)
{
	u64 bits = pgprot_val(prot) & VMEMEXP_PROT_CACHE_MASK;

#ifdef CONFIG_ARM64
	/* Memory tags are not for devices; without them it is the same. */
	if (bits == PTE_ATTRINDX(MT_NORMAL_TAGGED))
		bits = PTE_ATTRINDX(MT_NORMAL);
#endif
	return bits;
}

static inline pgprot_t vmemexp_prot_with_cache(pgprot_t prot, u64 cache)
{
	u64 bits = (pgprot_val(prot) & ~VMEMEXP_PROT_CACHE_MASK) | cache;

#ifdef CONFIG_ARM64
	/* Never executable, as the kernel's own; mprotect() knows them by that. */
	if (cache != PTE_ATTRINDX(MT_NORMAL))
		bits |= PTE_PXN | PTE_UXN;
#elif defined(CONFIG_ARM)
	if (cache == L_PTE_MT_DEV_SHARED)
		bits |= L_PTE_SHARED | L_PTE_DIRTY | L_PTE_XN;
#endif
	return __pgprot(bits);
}

/* The VMEMEXP_CACHE_* name of what vmemexp_prot_cache() gave. */
static inline u32 vmemexp_cache(u64 bits)
{
	pgprot_t normal = vm_get_page_prot(VM_READ | VM_SHARED);

	if (bits == vmemexp_prot_cache(normal))
		return VMEMEXP_CACHE_CACHED;
	if (bits == vmemexp_prot_cache(pgprot_writecombine(normal)))
		return VMEMEXP_CACHE_WRITECOMBINE;
	return VMEMEXP_CACHE_UNCACHED;
}

/*
 * An entry of a page table for user space. set_pte_at() is not there for modules on
 * arm and arm64; nor is as much to gain, since nobody else looks at every page.
 */
#ifdef CONFIG_X86
#define VMEMEXP_CAN_SET_PTES		1
static inline void vmemexp_set_pte(struct vm_area_struct *vma, unsigned long addr, pte_t *pte,
				   unsigned long pfn, pgprot_t prot)
{
	set_pte_at(vma->vm_mm, addr, pte, pte_mkspecial(pfn_pte(pfn, prot)));
}
#else
#define VMEMEXP_CAN_SET_PTES		0
static inline void vmemexp_set_pte(struct vm_area_struct *vma, unsigned long addr, pte_t *pte,
				   unsigned long pfn, pgprot_t prot) { }
#endif

/*
 * A kernel mapping of uncached memory. On arm and arm64 user space's uncached
 * memory is device memory, where the unaligned accesses of an importer's memcpy()
 * fault; write-combined is uncached as well, and memory.
 */
#ifdef CONFIG_X86
#define VMEMEXP_KERNEL_UNCACHED		VMEMEXP_CACHE_UNCACHED
#else
#define VMEMEXP_KERNEL_UNCACHED		VMEMEXP_CACHE_WRITECOMBINE
#endif

static inline pgprot_t vmemexp_kernel_prot(u32 cache)
{
	if (cache == VMEMEXP_CACHE_CACHED)
		return PAGE_KERNEL;
	if (cache == VMEMEXP_CACHE_UNCACHED && VMEMEXP_KERNEL_UNCACHED == cache)
		return pgprot_noncached(PAGE_KERNEL);
	return pgprot_writecombine(PAGE_KERNEL);
}

/* The same for memory without struct page; undone by memunmap(). */
static inline void *vmemexp_remap(phys_addr_t phys, size_t size, u32 cache)
{
	if (cache == VMEMEXP_CACHE_CACHED)
		return memremap(phys, size, MEMREMAP_WB);
	if (cache == VMEMEXP_CACHE_UNCACHED && VMEMEXP_KERNEL_UNCACHED == cache)
		return (void __force *)ioremap(phys, size);
	return memremap(phys, size, MEMREMAP_WC);
}

/*
 * Cache maintenance by kernel address, for observers beside Linux and for what
 * the DMA API does not do: to clean is to write back to memory, to flush is to
 * forget it in the caches after that.
 *
 * The DMA API serves devices and the linear map only, and what it is made of is
 * not exported to modules; these are the exported functions that reach the point
 * of coherency. VMEMEXP_HAS_CACHES: there is something to be maintained.
 */
#if defined(CONFIG_X86)

/* Every master in a PC snoops the caches. */
#define VMEMEXP_HAS_CACHES		0
#define VMEMEXP_CAN_SYNC_OBSERVER	1
#define VMEMEXP_HAS_CACHE_OPS		0
static inline void vmemexp_cache_clean(phys_addr_t phys, void *va, size_t size) { }
static inline void vmemexp_cache_flush(phys_addr_t phys, void *va, size_t size) { }

#elif defined(CONFIG_ARM64) && defined(CONFIG_ARCH_HAS_PMEM_API)

#include <linux/libnvdimm.h>
#define VMEMEXP_HAS_CACHES		1
#define VMEMEXP_CAN_SYNC_OBSERVER	1
#define VMEMEXP_HAS_CACHE_OPS		1
static inline void vmemexp_cache_clean(phys_addr_t phys, void *va, size_t size)
{
	arch_wb_cache_pmem(va, size);
}

static inline void vmemexp_cache_flush(phys_addr_t phys, void *va, size_t size)
{
	arch_wb_cache_pmem(va, size);
	arch_invalidate_pmem(va, size);
}

#elif defined(CONFIG_ARM)

#include <asm/cacheflush.h>
#include <asm/outercache.h>
#define VMEMEXP_HAS_CACHES		1
#define VMEMEXP_CAN_SYNC_OBSERVER	1
#define VMEMEXP_HAS_CACHE_OPS		1
static inline void vmemexp_cache_clean(phys_addr_t phys, void *va, size_t size)
{
	__cpuc_flush_dcache_area(va, size);
	outer_clean_range(phys, phys + size);
}

/* The inner caches may be refilled from the outer one, until that is empty. */
static inline void vmemexp_cache_flush(phys_addr_t phys, void *va, size_t size)
{
	__cpuc_flush_dcache_area(va, size);
	outer_flush_range(phys, phys + size);
	__cpuc_flush_dcache_area(va, size);
}

#else

#define VMEMEXP_HAS_CACHES		1
#define VMEMEXP_CAN_SYNC_OBSERVER	0
#define VMEMEXP_HAS_CACHE_OPS		0
static inline void vmemexp_cache_clean(phys_addr_t phys, void *va, size_t size) { }
static inline void vmemexp_cache_flush(phys_addr_t phys, void *va, size_t size) { }

#endif

/*
 * The DMA API may go past an IOMMU. "dma-mapping: direct calls for dma-iommu" (v6.12)
 * replaced the operations of a device behind one by a flag; only architectures with
 * code of their own have operations still.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/iommu-dma.h>
static inline bool vmemexp_may_use_iommu(struct device *dev)
{
	return get_dma_ops(dev) || use_dma_iommu(dev);
}
#else
static inline bool vmemexp_may_use_iommu(struct device *dev)
{
	return get_dma_ops(dev);
}
#endif

/*
 * The domain by which an IOMMU translates the device's addresses, or NULL. A device
 * behind an IOMMU may have none: by iommu=pt, or by its driver's wish.
 */
static inline struct iommu_domain *vmemexp_domain(struct device *dev)
{
#ifdef CONFIG_IOMMU_API
	struct iommu_domain *domain;

	if (!vmemexp_may_use_iommu(dev))
		return NULL;
	domain = iommu_get_domain_for_dev(dev);
	if (domain && domain->type & __IOMMU_DOMAIN_PAGING)
		return domain;
#endif
	return NULL;
}

static inline bool vmemexp_is_translated(struct device *dev)
{
	return vmemexp_domain(dev);
}

/*
 * Where a DMA address leads. It is another place than what was mapped if the
 * device works on a copy.
 */
static inline phys_addr_t vmemexp_dma_to_phys(struct device *dev, dma_addr_t addr)
{
	struct iommu_domain *domain = vmemexp_domain(dev);

	return domain ? iommu_iova_to_phys(domain, addr) : dma_to_phys(dev, addr);
}

/*
 * The past. Each shim names the commit after which it can go; vmemexp.c is
 * written for the newest kernel.
 */

/* cdd30ebb1b9f (v6.13) made the namespace a string. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define VMEMEXP_IMPORT_NS_DMA_BUF	MODULE_IMPORT_NS("DMA_BUF")
#else
#define VMEMEXP_IMPORT_NS_DMA_BUF	MODULE_IMPORT_NS(DMA_BUF)
#endif

/*
 * The caller holds the mmap_lock for writing, as mm/ does where it splits a mapping.
 * Nothing in mm/ tells who holds it; with PREEMPT_RT it is a lock of another sort, and
 * before "locking/rwsem: Add rtmutex based R/W semaphore implementation" (v5.15) of yet
 * another one.
 */
static inline bool vmemexp_is_mmap_writer(struct mm_struct *mm)
{
#if !defined(CONFIG_PREEMPT_RT)
	/* Bit 0: readers hold it. Bit 1: do not spin. */
	unsigned long owner = atomic_long_read(&mm->mmap_lock.owner) & ~2UL;

	return owner == (unsigned long)current;
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
	/* Bit 0: somebody waits. */
	unsigned long owner = (unsigned long)READ_ONCE(mm->mmap_lock.rwbase.rtmutex.owner) & ~1UL;

	return owner == (unsigned long)current;
#else
	return false;
#endif
}

/*
 * dma_map_resource() has learnt two things: a9c38c5d267c (v5.16) to take memory
 * that has a struct page, and "dma-direct: use the same device address
 * translation for resources" (v7.3) to translate like all other calls where the
 * bus sees memory elsewhere than the CPUs do. Not mapped is better than wrong.
 */
static inline bool vmemexp_can_map_resource(struct device *dev, phys_addr_t phys, size_t size)
{
	if (LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0) && pfn_valid(PHYS_PFN(phys)))
		return false;
	if (LINUX_VERSION_CODE < KERNEL_VERSION(7, 3, 0) && !vmemexp_is_translated(dev))
		return phys_to_dma_unencrypted(dev, phys) == phys;
	return true;
}

/* Without CONFIG_SWIOTLB, Linux 5.10 says of all devices of arm that they snoop. */
static inline bool vmemexp_is_dma_coherent(struct device *dev)
{
	if (IS_ENABLED(CONFIG_ARM) && !IS_ENABLED(CONFIG_ARCH_HAS_SYNC_DMA_FOR_DEVICE))
		return false;
	return dev_is_dma_coherent(dev);
}

/*
 * c50f11c6196f (v5.19) made arm64 write caches back, and not drop them, before a
 * device writes; arm has never followed.
 */
#if defined(CONFIG_ARM) || LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
#define VMEMEXP_DMA_MAP_DROPS_CACHES	1
#else
#define VMEMEXP_DMA_MAP_DROPS_CACHES	0
#endif

/*
 * Memory is encrypted, and some of it may be in clear text: SME, SEV, TDX, realms.
 * aa5a461171f9 (v5.16) added the one question for all of them.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
#include <linux/cc_platform.h>
static inline bool vmemexp_is_memory_encrypted(void)
{
	return cc_platform_has(CC_ATTR_MEM_ENCRYPT);
}
#else
#include <linux/mem_encrypt.h>
static inline bool vmemexp_is_memory_encrypted(void)
{
	return mem_encrypt_active();
}
#endif

/*
 * Without its user, a buffer could not give back what it was charged. On kernels that
 * do not let modules drop a reference to one, the credentials of the kernel hold it: those
 * of the exporter would hold keyrings and namespaces as well.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
static inline struct vmemexp_user *vmemexp_alloc_user(void)
{
	struct vmemexp_user *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);

	if (!new)
		return NULL;
	new->cred = prepare_kernel_cred(&init_task);
	if (!new->cred) {
		kfree(new);
		return NULL;
	}
	/* That of root, which is never the last reference. */
	refcount_dec(&new->cred->user->__count);
	new->cred->user = get_uid(current_user());
	new->user = new->cred->user;
	return new;
}

static inline void vmemexp_free_user(struct vmemexp_user *user)
{
	put_cred(user->cred);
	kfree(user);
}
#else
static inline struct vmemexp_user *vmemexp_alloc_user(void)
{
	struct vmemexp_user *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);

	if (new)
		new->user = get_uid(current_user());
	return new;
}

static inline void vmemexp_free_user(struct vmemexp_user *user)
{
	free_uid(user->user);
	kfree(user);
}
#endif

/*
 * 9c930054f2f5 (v5.15) lets modules install a file as one that was received, which asks
 * security modules; 4e94ddfe2aab (v6.8) has it write the descriptor before.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define VMEMEXP_CAN_RECEIVE_FD		1
static inline int vmemexp_receive_fd(struct file *file, __s32 __user *ufd, unsigned int flags)
{
	return receive_fd(file, ufd, flags);
}
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
#define VMEMEXP_CAN_RECEIVE_FD		1
static inline int vmemexp_receive_fd(struct file *file, __s32 __user *ufd, unsigned int flags)
{
	int fd = receive_fd(file, flags);

	/* It could be written a moment ago. */
	if (fd >= 0 && put_user(fd, ufd)) {
		close_fd(fd);
		return -EFAULT;
	}
	return fd;
}
#else
#define VMEMEXP_CAN_RECEIVE_FD		0
static inline int vmemexp_receive_fd(struct file *file, __s32 __user *ufd, unsigned int flags)
{
	return -EOPNOTSUPP;
}
#endif

/* "dma-buf: Rename dma_buf_move_notify() to dma_buf_invalidate_mappings()" (v7.1) */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#define dma_buf_invalidate_mappings	dma_buf_move_notify
#endif

/* 2c92ca849fcc (v6.10) dropped the second argument of __assign_str(). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define vmemexp_assign_str(dst, ...)	__assign_str(dst)
#else
#define vmemexp_assign_str(dst, src)	__assign_str(dst, src)
#endif

/*
 * What a page table says about one address of a VM_PFNMAP or VM_IO mapping; all
 * of it is as old as the moment of the look.
 */
struct vmemexp_pfn {
	unsigned long pfn;
	u64 prot_cache;
	bool writable;
};

/*
 * 6da8e9634bb7 (v6.12) added follow_pfnmap_start(); 29ae7d96d166 (v6.10) gave its
 * predecessor the mapping instead of the mm. The latter knows no huge entries.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
static inline int vmemexp_follow_pfn(struct vm_area_struct *vma, unsigned long addr,
				     struct vmemexp_pfn *found)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = addr };
	int ret = follow_pfnmap_start(&args);
	pgprot_t prot;

	if (ret)
		return ret;
	found->pfn = args.pfn;
	found->writable = args.writable;
	prot = args.pgprot;
#if defined(CONFIG_X86)
	/* One of the bits has another place in a huge entry. */
	if (pgprot_val(prot) & _PAGE_PSE)
		prot = pgprot_large_2_4k(prot);
#elif defined(CONFIG_ARM)
	/* Its entries cannot be turned back into a protection. */
	prot = vma->vm_page_prot;
#endif
	found->prot_cache = vmemexp_prot_cache(prot);
	follow_pfnmap_end(&args);
	return 0;
}
#else
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
#define vmemexp_follow_pte(vma, ...)	follow_pte((vma)->vm_mm, __VA_ARGS__)
#else
#define vmemexp_follow_pte		follow_pte
#endif

static inline int vmemexp_follow_pfn(struct vm_area_struct *vma, unsigned long addr,
				     struct vmemexp_pfn *found)
{
	spinlock_t *ptl;	/* the page table's, taken by follow_pte() */
	pte_t *ptep;
	int ret = vmemexp_follow_pte(vma, addr, &ptep, &ptl);

	if (ret)
		return ret;
	__acquire(ptl);	/* sparse is not told of it elsewhere */
	found->pfn = pte_pfn(*ptep);
	found->writable = pte_write(*ptep);
#if defined(CONFIG_ARM)
	found->prot_cache = vmemexp_prot_cache(vma->vm_page_prot);
#elif defined(CONFIG_ARM64)
	/* It had no pte_pgprot() at first; of an entry the attributes are the same bits. */
	found->prot_cache = vmemexp_prot_cache(__pgprot(pte_val(*ptep)));
#else
	found->prot_cache = vmemexp_prot_cache(pte_pgprot(*ptep));
#endif
	pte_unmap_unlock(ptep, ptl);
	return 0;
}
#endif

/* 1c71222e5f23 (v6.3) made vm_flags read-only but for these functions. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vmemexp_vm_flags_mod(struct vm_area_struct *vma,
					unsigned long set, unsigned long clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#else
#define vmemexp_vm_flags_mod(vma, set, clear)	vm_flags_mod(vma, set, clear)
#endif

/*
 * 84209e87c696 (v6.2) made FOLL_LONGTERM break copy-on-write for readers, too.
 * Before, a page that was pinned for reading only could be replaced by a copy
 * at the exporter's next write. Asking for write access breaks it; FOLL_FORCE
 * is needed where the mapping is read-only, and does nothing but that in a
 * private mapping. It would also override PROT_NONE: that is checked here.
 *
 * Private hugetlb mappings cannot be forced and keep the old behaviour.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
static inline unsigned int vmemexp_gup_read_flags(struct mm_struct *mm, unsigned long addr,
						  unsigned long *count)
{
	unsigned int flags = FOLL_LONGTERM;
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = find_vma(mm, addr);
	if (vma && vma->vm_start <= addr) {
		/* The flags hold for one mapping: pin no further. */
		*count = min(*count, (vma->vm_end - addr) >> PAGE_SHIFT);
		if ((vma->vm_flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE &&
		    (vma->vm_flags & (VM_READ | VM_HUGETLB)) == VM_READ)
			flags |= FOLL_WRITE | FOLL_FORCE;
	}
	mmap_read_unlock(mm);
	return flags;
}
#else
static inline unsigned int vmemexp_gup_read_flags(struct mm_struct *mm, unsigned long addr,
						  unsigned long *count)
{
	return FOLL_LONGTERM;
}
#endif

/*
 * Before "mm/gup: have internal functions get the mmap_read_lock()" (v6.3), what pins for
 * long cannot be killed while it waits for an absent page, which may be a FUSE server's to
 * send, and does not wait for a userfaultfd. A fault that can be killed comes first.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline int vmemexp_pin_user_pages(unsigned long addr, int count, unsigned int flags,
					 struct page **pages)
{
	int ret = pin_user_pages_fast_only(addr, count, flags, pages);

	if (ret > 0)
		return ret;
	/* Without an array it takes no references: they would keep others' pages from moving. */
	ret = get_user_pages_unlocked(addr, count, NULL, flags & ~FOLL_LONGTERM);
	return ret > 0 ? pin_user_pages_fast(addr, ret, flags, pages) : ret;
}
#else
static inline int vmemexp_pin_user_pages(unsigned long addr, int count, unsigned int flags,
					 struct page **pages)
{
	return pin_user_pages_fast(addr, count, flags, pages);
}
#endif

/* 7bc80a5462c3 (v5.19) replaced the "wait for all" argument by a usage. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
#define dma_resv_usage_rw(write)	(write)
#define VMEMEXP_RESV_USAGE_ALL		true
#else
#define VMEMEXP_RESV_USAGE_ALL		DMA_RESV_USAGE_BOOKKEEP
#endif
/* d3fae3b3daac (v5.14) dropped the suffix. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 14, 0)
#define dma_resv_wait_timeout		dma_resv_wait_timeout_rcu
#endif

/* 7b230db3b8d3 (v5.16) introduced folios. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
#define folio				page
#define vmemexp_folio_page(folio)	(folio)
#define page_folio(page)		compound_head(page)
#define folio_nr_pages(folio)		compound_nr(folio)
#define folio_page_idx(folio, p)	((unsigned long)((p) - (folio)))
#define folio_test_anon(folio)		PageAnon(folio)
#define folio_test_hugetlb(folio)	PageHuge(folio)
#define folio_test_large(folio)		PageHead(folio)
#define folio_test_swapbacked(folio)	PageSwapBacked(folio)
#else
#define vmemexp_folio_page(folio)	(&(folio)->page)
#endif

/* ce6d42f2e4a2 (v5.14) added vma_lookup(). */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 14, 0)
static inline struct vm_area_struct *vma_lookup(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	return vma && addr >= vma->vm_start ? vma : NULL;
}
#endif

/* 54d020692b34 (v6.5) dropped the argument for mappings. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define pin_user_pages(start, nr, flags, pages)	pin_user_pages(start, nr, flags, pages, NULL)
#endif

/* "mm/gup: add a range variant of unpin_user_pages_dirty_lock()" (v5.13) */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 13, 0)
static inline void unpin_user_page_range_dirty_lock(struct page *page, unsigned long npages,
						    bool dirty)
{
	for (; npages; npages--, page++)
		unpin_user_pages_dirty_lock(&page, 1, dirty);
}
#endif

/* f3ba3c710ac5 (v5.11) added kmap_local_page(). */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define kmap_local_page(page)		kmap_atomic(page)
#define kunmap_local(addr)		kunmap_atomic(addr)
#endif

/*
 * 6619ccf1bb1d (v5.11) made vmap fill in a structure, which is called iosys_map
 * since 7938f4218168 (v5.18).
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
#include <linux/iosys-map.h>
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
#include <linux/dma-buf-map.h>
#define iosys_map			dma_buf_map
#define iosys_map_set_vaddr		dma_buf_map_set_vaddr
#else
struct iosys_map {
	void *vaddr;
};

#define iosys_map_set_vaddr(map, va)	((map)->vaddr = (va))
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define VMEMEXP_LEGACY_VMAP_OPS(vmap_fn, vunmap_fn)				\
	static void *vmap_fn##_op(struct dma_buf *dmabuf)			\
	{									\
		struct iosys_map map;						\
		int ret = vmap_fn(dmabuf, &map);				\
										\
		return ret ? ERR_PTR(ret) : map.vaddr;				\
	}									\
										\
	static void vunmap_fn##_op(struct dma_buf *dmabuf, void *vaddr)		\
	{									\
		vunmap_fn(dmabuf, NULL);					\
	}									\
	struct iosys_map
#else
#define VMEMEXP_LEGACY_VMAP_OPS(...)	struct iosys_map
#define vmemexp_vmap_op			vmemexp_vmap
#define vmemexp_vunmap_op		vmemexp_vunmap
#endif

#endif /* _VMEMEXP_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shims that make older kernels look like the newest one, for which vmemexp.c is
 * written. Each names the commit after which it can go, by its id or title; where the commit is
 * not known, it names the kernel that it was written for.
 *
 * Kernels of board vendors and distributions are newer than their version says. Where a
 * header shows the change, Kbuild defines VMEMEXP_HAVE_*. A version is asked only where
 * none does, and where the older way does no harm in a newer kernel.
 */
#ifndef _VMEMEXP_COMPAT_H
#define _VMEMEXP_COMPAT_H

#include <linux/cred.h>
#include <linux/dma-buf.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/user.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <vmemexp/arch.h>

/*
 * A kernel may have more than its version says, and never less. Without these, the shims
 * would build, and be wrong: a header that Kbuild did not find must not go unnoticed. (A
 * kernel that has RESV_USAGE is newer than 5.16.)
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0) && \
	(!defined(VMEMEXP_HAVE_IOMMU_DMA) || !defined(VMEMEXP_HAVE_RECEIVE_FD_UFD))
#error "Kbuild misses what linux/iommu-dma.h and linux/file.h have"
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0) && !defined(VMEMEXP_HAVE_RESV_USAGE)
#error "Kbuild misses what linux/dma-resv.h has"
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0) && \
	(!defined(VMEMEXP_HAVE_RWBASE_RT) || !defined(VMEMEXP_HAVE_RECEIVE_FD))
#error "Kbuild misses what linux/rwbase_rt.h and linux/file.h have"
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0) && \
	!defined(VMEMEXP_HAVE_MEM_ENCRYPT_ACTIVE) && !defined(VMEMEXP_HAVE_RESV_USAGE)
#error "Kbuild misses what linux/mem_encrypt.h has"
#endif

/*
 * An entry of the page table of a VM_PFNMAP or VM_IO mapping: the page frame at the
 * address that was looked up, and how many bytes the entry maps. It may have changed
 * since it was read.
 */
struct vmemexp_pfn {
	unsigned long pfn;
	unsigned long size;
	u64 prot_cache;
	bool writable;
};

/*
 * Return true if the DMA API may use an IOMMU. "dma-mapping: direct calls for
 * dma-iommu" (v6.12) replaced the operations of a device behind one by a flag; only
 * architectures with code of their own have operations still.
 */
#ifdef VMEMEXP_HAVE_IOMMU_DMA
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
 * Return the domain by which an IOMMU translates the device's addresses, or NULL. A
 * device behind an IOMMU may have none: by iommu=pt, or because its driver wants it.
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
 * Return the address in memory behind a DMA address, which @domain translates unless it
 * is NULL. It is not what was mapped if the device works on a copy.
 */
static inline phys_addr_t vmemexp_dma_to_phys(struct device *dev, struct iommu_domain *domain,
					      dma_addr_t addr)
{
	return domain ? iommu_iova_to_phys(domain, addr) : dma_to_phys(dev, addr);
}

/*
 * Return true if the caller holds the mmap_lock for writing, as mm/ does where it
 * splits a mapping. Nothing in mm/ tells who holds it. With PREEMPT_RT it is a lock of
 * another sort, and before "locking/rwsem: Add rtmutex based R/W semaphore
 * implementation" (v5.15) of yet another one.
 */
static inline bool vmemexp_is_mmap_writer(struct mm_struct *mm)
{
#if !defined(CONFIG_PREEMPT_RT)
	/* Bit 0: readers hold it. Bit 1: do not spin. */
	unsigned long owner = atomic_long_read(&mm->mmap_lock.owner) & ~2UL;

	return owner == (unsigned long)current;
#elif defined(VMEMEXP_HAVE_RWBASE_RT)
	/* Bit 0: there are waiters. */
	unsigned long owner = (unsigned long)READ_ONCE(mm->mmap_lock.rwbase.rtmutex.owner) & ~1UL;

	return owner == (unsigned long)current;
#else
	return false;
#endif
}

/*
 * "dma-mapping: introduce new DMA attribute to indicate MMIO memory" (v6.18) made one call
 * for RAM and all other memory. In 6.18, where the DMA API checks its users,
 * dma_map_resource() warns of memory that has a struct page, and the new call does not.
 */
#ifndef DMA_ATTR_MMIO
#define DMA_ATTR_MMIO			0
#define dma_map_phys			dma_map_resource
#define dma_unmap_phys			dma_unmap_resource
#endif

/*
 * Return true if dma_map_phys() maps memory that is not RAM as it is. Since a9c38c5d267c
 * (v5.16) it takes memory that has a struct page. Since "dma-direct: use the same
 * device address translation for resources" (v7.3) it translates, like all other calls,
 * where the bus sees memory elsewhere than the CPUs do. No mapping is better than a
 * wrong one.
 */
static inline bool vmemexp_can_map_resource(struct device *dev, phys_addr_t phys, size_t size)
{
	if (LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0) && pfn_valid(PHYS_PFN(phys)))
		return false;
	if (LINUX_VERSION_CODE < KERNEL_VERSION(7, 3, 0) && !vmemexp_is_translated(dev))
		return phys_to_dma_unencrypted(dev, phys) == phys;
	return true;
}

/* Without CONFIG_SWIOTLB, Linux 5.10 says that all devices of arm snoop. */
static inline bool vmemexp_is_dma_coherent(struct device *dev)
{
	if (IS_ENABLED(CONFIG_ARM) && !IS_ENABLED(CONFIG_ARCH_HAS_SYNC_DMA_FOR_DEVICE))
		return false;
	return dev_is_dma_coherent(dev);
}

/*
 * Return true if memory is encrypted, and some of it may be in clear text: SME, SEV,
 * TDX, realms. aa5a461171f9 (v5.16) added one question for all of them, and e9d1d2bb75b2
 * (v5.16) removed the older one. Linux 5.10.y has the new header, and no answer in it.
 */
#ifdef VMEMEXP_HAVE_MEM_ENCRYPT_ACTIVE
#include <linux/mem_encrypt.h>
static inline bool vmemexp_is_memory_encrypted(void)
{
	return mem_encrypt_active();
}
#else
#include <linux/cc_platform.h>
static inline bool vmemexp_is_memory_encrypted(void)
{
	return cc_platform_has(CC_ATTR_MEM_ENCRYPT);
}
#endif

/*
 * Hold the user of current, and return it. Modules can drop a reference to a user since
 * "kernel/user: Allow user_struct::locked_vm to be usable for iommufd" (v6.2), which only late
 * releases of 6.1.y have. Before, @cred holds it: credentials of the kernel, since those of
 * current would hold keyrings and namespaces as well.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
static inline struct user_struct *vmemexp_hold_current_user(struct cred **cred)
{
	*cred = prepare_kernel_cred(&init_task);
	if (!*cred)
		return NULL;
	/* Drop the reference to root, which is never the last one. */
	refcount_dec(&(*cred)->user->__count);
	(*cred)->user = get_uid(current_user());
	return (*cred)->user;
}

static inline void vmemexp_drop_user(struct user_struct *user, struct cred *cred)
{
	put_cred(cred);
}
#else
static inline struct user_struct *vmemexp_hold_current_user(struct cred **cred)
{
	return get_uid(current_user());
}

static inline void vmemexp_drop_user(struct user_struct *user, struct cred *cred)
{
	free_uid(user);
}
#endif

/*
 * Install @file as one that the process receives, which asks security modules.
 * 9c930054f2f5 (v5.15) lets modules do that; since 4e94ddfe2aab (v6.8) it writes the
 * descriptor before it installs the file.
 */
#if defined(VMEMEXP_HAVE_RECEIVE_FD_UFD) && defined(VMEMEXP_HAVE_RECEIVE_FD)
#define VMEMEXP_CAN_RECEIVE_FD		1
static inline int vmemexp_receive_fd(struct file *file, __s32 __user *ufd, unsigned int flags)
{
	return receive_fd(file, ufd, flags);
}
#elif defined(VMEMEXP_HAVE_RECEIVE_FD)
#define VMEMEXP_CAN_RECEIVE_FD		1
static inline int vmemexp_receive_fd(struct file *file, __s32 __user *ufd, unsigned int flags)
{
	int fd = receive_fd(file, flags);

	/* The caller has written there a moment ago, so this hardly ever fails. */
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
#ifndef VMEMEXP_HAVE_INVALIDATE_MAPPINGS
#define dma_buf_invalidate_mappings	dma_buf_move_notify
#endif

/* 2c92ca849fcc (v6.10) dropped the second argument of __assign_str(). */
#ifdef VMEMEXP_HAVE_ASSIGN_STR_OF_ONE
#define vmemexp_assign_str(dst, ...)	__assign_str(dst)
#else
#define vmemexp_assign_str(dst, src)	__assign_str(dst, src)
#endif

/* Read an entry that maps one page. */
static inline void vmemexp_read_pte(const struct vm_area_struct *vma, pte_t pte,
				    struct vmemexp_pfn *found)
{
	found->pfn = pte_pfn(pte);
	found->size = PAGE_SIZE;
	found->writable = pte_write(pte);
#if defined(CONFIG_ARM)
	/* An entry of arm cannot be turned back into a protection. */
	found->prot_cache = vmemexp_prot_cache(vma->vm_page_prot);
#elif defined(CONFIG_ARM64)
	/* arm64's pte_pgprot() is newer than 5.10. The attributes of an entry are the same bits. */
	found->prot_cache = vmemexp_prot_cache(__pgprot(pte_val(pte)));
#else
	found->prot_cache = vmemexp_prot_cache(pte_pgprot(pte));
#endif
}

/*
 * 6da8e9634bb7 (v6.12) added follow_pfnmap_start(); 29ae7d96d166 (v6.10) gave its
 * predecessor the mapping instead of the mm. The latter knows no huge entries.
 */
#ifdef VMEMEXP_HAVE_PFNMAP_START
/*
 * Return how many bytes the entry maps that follow_pfnmap_start() has found and holds.
 * 62fb8adc43af (v6.15) made it tell that.
 */
#ifdef VMEMEXP_HAVE_PFNMAP_ADDR_MASK
static inline unsigned long vmemexp_entry_size(const struct follow_pfnmap_args *args)
{
	return ~args->addr_mask + 1;
}
#else
static inline unsigned long vmemexp_entry_size(const struct follow_pfnmap_args *args)
{
	p4d_t *p4d = p4d_offset(pgd_offset(args->vma->vm_mm, args->address), args->address);
	pud_t *pud = pud_offset(p4d, args->address);

	if (pud_leaf(READ_ONCE(*pud)))
		return PUD_SIZE;
	if (pmd_leaf(READ_ONCE(*pmd_offset(pud, args->address))))
		return PMD_SIZE;
	return PAGE_SIZE;
}
#endif

static inline int vmemexp_follow_pfn(struct vm_area_struct *vma, unsigned long addr,
				     struct vmemexp_pfn *found)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = addr };
	int ret = follow_pfnmap_start(&args);
	pgprot_t prot;

	if (ret)
		return ret;
	found->pfn = args.pfn;
	found->size = vmemexp_entry_size(&args);
	found->writable = args.writable;
	prot = args.pgprot;
#if defined(CONFIG_X86)
	/* In a huge entry, one of the bits has another place. */
	if (found->size > PAGE_SIZE)
		prot = pgprot_large_2_4k(prot);
#elif defined(CONFIG_ARM)
	prot = vma->vm_page_prot;
#endif
	found->prot_cache = vmemexp_prot_cache(prot);
	follow_pfnmap_end(&args);
	return 0;
}
#else
#ifdef VMEMEXP_HAVE_FOLLOW_PTE_OF_VMA
#define vmemexp_follow_pte		follow_pte
#else
#define vmemexp_follow_pte(vma, ...)	follow_pte((vma)->vm_mm, __VA_ARGS__)
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
	vmemexp_read_pte(vma, ptep_get(ptep), found);
	pte_unmap_unlock(ptep, ptl);
	return 0;
}
#endif

/*
 * Huge entries in mappings of a buffer. Before 3c8e44c9b369 (v6.12), which added the
 * configuration's symbol, they had no mark that keeps GUP away from the pages behind them.
 * "mm: remove remaining uses of PFN_DEV" (v6.17) made the page frame a number.
 */
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
#define VMEMEXP_HAS_HUGE_FAULTS		1
#include <linux/huge_mm.h>
#ifdef VMEMEXP_HAVE_PFN_T
#include <linux/pfn_t.h>
#endif

static inline vm_fault_t vmemexp_insert_pmd(struct vm_fault *vmf, unsigned long pfn)
{
	bool write = vmf->flags & FAULT_FLAG_WRITE;

#ifdef VMEMEXP_HAVE_PFN_T
	return vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, PFN_DEV), write);
#else
	return vmf_insert_pfn_pmd(vmf, pfn, write);
#endif
}

/* Return true if the page table has a huge entry at @addr. */
static inline bool vmemexp_has_pmd(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(READ_ONCE(*pgd)))
		return false;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(READ_ONCE(*p4d)))
		return false;
	pud = pud_offset(p4d, addr);
	if (pud_none(READ_ONCE(*pud)))
		return false;
	return pmd_leaf(READ_ONCE(*pmd_offset(pud, addr)));
}
#else
#define VMEMEXP_HAS_HUGE_FAULTS		0
static inline bool vmemexp_has_pmd(struct mm_struct *mm, unsigned long addr) { return false; }
#endif

/* 1c71222e5f23 (v6.3) made vm_flags read-only but for these functions. */
#ifndef VMEMEXP_HAVE_VM_FLAGS_MOD
static inline void vmemexp_vm_flags_mod(struct vm_area_struct *vma,
					unsigned long set, unsigned long clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#else
#define vmemexp_vm_flags_mod(vma, set, clear)	vm_flags_mod(vma, set, clear)
#endif

/*
 * Return the GUP flags for a long-term pin for reading, and reduce @count to the pages
 * that they hold for.
 *
 * 84209e87c696 (v6.2) made FOLL_LONGTERM break copy-on-write for readers, too. Before,
 * the exporter's next write could replace a page that was pinned for reading by a copy.
 * Asking for write access breaks copy-on-write; where the mapping is read-only it needs
 * FOLL_FORCE, which does nothing but that in a private mapping. It would also override
 * PROT_NONE: that is checked here.
 *
 * Private hugetlb mappings cannot be forced and keep the old behaviour.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
static inline unsigned int vmemexp_gup_read_flags(struct mm_struct *mm, unsigned long addr,
						  unsigned long *count)
{
	unsigned int flags = FOLL_LONGTERM;
	struct vm_area_struct *vma;

	/* The pin will find the fatal signal. */
	if (mmap_read_lock_killable(mm))
		return flags;
	vma = find_vma(mm, addr);
	if (vma && vma->vm_start <= addr) {
		/* The flags hold for one VMA, so pin no further: reduce @count. */
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

/* 7bc80a5462c3 (v5.19) replaced the "wait for all" argument by a usage. */
#ifndef VMEMEXP_HAVE_RESV_USAGE
#define dma_resv_usage_rw(write)	(write)
#define VMEMEXP_RESV_USAGE_ALL		true
#else
#define VMEMEXP_RESV_USAGE_ALL		DMA_RESV_USAGE_BOOKKEEP
#endif
/* d3fae3b3daac (v5.14) dropped the suffix. */
#ifndef VMEMEXP_HAVE_RESV_WAIT_TIMEOUT
#define dma_resv_wait_timeout		dma_resv_wait_timeout_rcu
#endif

/* 7b230db3b8d3 (v5.16) introduced folios. */
#ifndef page_folio
#define folio				page
#define vmemexp_folio_page(folio)	(folio)
#define page_folio(page)		compound_head(page)
#define folio_nr_pages(folio)		compound_nr(folio)
#define folio_page_idx(folio, p)	(page_to_pfn(p) - page_to_pfn(folio))
#define folio_test_anon(folio)		PageAnon(folio)
#define folio_test_hugetlb(folio)	PageHuge(folio)
#define folio_test_large(folio)		PageHead(folio)
#define folio_test_swapbacked(folio)	PageSwapBacked(folio)
#else
#define vmemexp_folio_page(folio)	(&(folio)->page)
#endif

/* ce6d42f2e4a2 (v5.14) added vma_lookup(). */
#ifndef VMEMEXP_HAVE_VMA_LOOKUP
static inline struct vm_area_struct *vma_lookup(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	return vma && addr >= vma->vm_start ? vma : NULL;
}
#endif

/* 54d020692b34 and ca5e863233e8 (v6.5) dropped the argument for mappings. */
#ifdef VMEMEXP_HAVE_GUP_VMAS
#define get_user_pages(start, nr, flags, pages)	get_user_pages(start, nr, flags, pages, NULL)
#define pin_user_pages(start, nr, flags, pages)	pin_user_pages(start, nr, flags, pages, NULL)
#endif

/* "mm cma: rename PF_MEMALLOC_NOCMA to PF_MEMALLOC_PIN" (v5.13) */
#ifndef VMEMEXP_HAVE_MEMALLOC_PIN
#define memalloc_pin_save		memalloc_nocma_save
#define memalloc_pin_restore		memalloc_nocma_restore
#endif

/*
 * Pin at most @count pages from @addr on. A fatal signal ends the wait for absent ones.
 *
 * Before "mm/gup: have internal functions get the mmap_read_lock()" (v6.3), a long-term pin
 * cannot be killed while it waits for an absent page, which may be a FUSE server's to send,
 * and does not wait for a userfaultfd. So fault the pages in first, by a call that can.
 *
 * Before "mm/gup: follow_pfn_pte(): -EEXIST cleanup" (v5.18), GUP counts a page frame among
 * the pages of a VM_MIXEDMAP mapping as pinned, and stores no page. So ask for a reference
 * to each first, which GUP refuses for a page frame.
 */
#ifdef FOLL_PIN
static inline int vmemexp_fault_in_pages(unsigned long addr, unsigned long count,
					 unsigned int flags)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	unsigned int saved;
	bool is_fsdax;
	int ret;

	/* A long-term pin refuses it, and a write fault would fill a hole of the file. */
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, addr);
	is_fsdax = vma && vma_is_fsdax(vma);
	/* The next mapping may be one, too. */
	if (vma)
		count = min(count, (vma->vm_end - addr) >> PAGE_SHIFT);
	mmap_read_unlock(mm);
	if (is_fsdax)
		return -EOPNOTSUPP;

	/* Allocate no page that would have to be moved before the pin. */
	saved = memalloc_pin_save();
	/* Without an array, this takes no references: they would keep others' pages from moving. */
	ret = get_user_pages_unlocked(addr, count, NULL, flags & ~FOLL_LONGTERM);
	memalloc_pin_restore(saved);
	return ret;
}

/*
 * The driver of the mapping may insert a page frame between the two calls. GUP then stores no
 * page, so the zero page in @page shows that none is pinned.
 */
static inline int vmemexp_pin_one_page(unsigned long addr, unsigned int flags,
				       struct page **page)
{
	int ret = get_user_pages(addr, 1, flags & ~FOLL_LONGTERM, page);

	if (ret != 1)
		return ret;
	put_page(*page);
	if (*page == ZERO_PAGE(0))
		return -EFAULT;
	*page = ZERO_PAGE(0);
	ret = pin_user_pages(addr, 1, flags, page);
	return ret == 1 && *page == ZERO_PAGE(0) ? -EFAULT : ret;
}

/* Called with the mmap_lock held for reading. */
static inline int vmemexp_pin_present(unsigned long addr, unsigned long count,
				      unsigned int flags, struct page **pages)
{
	struct vm_area_struct *vma = vma_lookup(current->mm, addr);

	if (!vma)
		return -EFAULT;
	count = min(count, (vma->vm_end - addr) >> PAGE_SHIFT);
	if (LINUX_VERSION_CODE < KERNEL_VERSION(5, 18, 0) && vma->vm_flags & VM_MIXEDMAP)
		return vmemexp_pin_one_page(addr, flags, pages);
	return pin_user_pages(addr, count, flags, pages);
}

static inline int vmemexp_pin_user_pages(unsigned long addr, unsigned long count,
					 unsigned int flags, struct page **pages)
{
	int ret = pin_user_pages_fast_only(addr, count, flags, pages);

	if (ret > 0)
		return ret;
	ret = vmemexp_fault_in_pages(addr, count, flags);
	if (ret <= 0)
		return ret;
	if (mmap_read_lock_killable(current->mm))
		return -EINTR;
	ret = vmemexp_pin_present(addr, ret, flags, pages);
	mmap_read_unlock(current->mm);
	return ret;
}
#else
static inline int vmemexp_pin_user_pages(unsigned long addr, unsigned long count,
					 unsigned int flags, struct page **pages)
{
	return pin_user_pages_fast(addr, count, flags, pages);
}
#endif

/* "mm/gup: add a range variant of unpin_user_pages_dirty_lock()" (v5.13) */
#ifndef VMEMEXP_HAVE_UNPIN_RANGE
static inline void unpin_user_page_range_dirty_lock(struct page *page, unsigned long npages,
						    bool dirty)
{
	for (; npages; npages--, page++)
		unpin_user_pages_dirty_lock(&page, 1, dirty);
}
#endif

/* f3ba3c710ac5 (v5.11) added kmap_local_page(). */
#ifndef VMEMEXP_HAVE_KMAP_LOCAL
#define kmap_local_page(page)		kmap_atomic(page)
#define kunmap_local(addr)		kunmap_atomic(addr)
#endif

/*
 * 6619ccf1bb1d (v5.11) made vmap fill in a structure, which is called iosys_map
 * since 7938f4218168 (v5.18).
 */
#if defined(VMEMEXP_HAVE_IOSYS_MAP)
#include <linux/iosys-map.h>
#elif defined(VMEMEXP_HAVE_DMA_BUF_MAP)
#include <linux/dma-buf-map.h>
#define iosys_map			dma_buf_map
#define iosys_map_set_vaddr		dma_buf_map_set_vaddr
#else
struct iosys_map {
	void *vaddr;
};

#define iosys_map_set_vaddr(map, va)	((map)->vaddr = (va))
#endif

#if !defined(VMEMEXP_HAVE_IOSYS_MAP) && !defined(VMEMEXP_HAVE_DMA_BUF_MAP)
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

#endif /* _VMEMEXP_COMPAT_H */

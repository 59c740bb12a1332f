/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Page protections, page tables and caches of each architecture.
 */
#ifndef _VMEMEXP_ARCH_H
#define _VMEMEXP_ARCH_H

#include <linux/io.h>
#include <linux/mm.h>
#include <uapi/vmemexp.h>

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

#endif /* _VMEMEXP_ARCH_H */

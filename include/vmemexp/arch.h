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
 * The bits of a page protection that say how memory is cached.
 *
 * A mapping of the same memory with other bits than the source's mapping would be an
 * alias, which the CPU need not keep coherent. So the driver takes the bits over as
 * they are, and compares them with what the kernel uses to name them.
 */
#if defined(CONFIG_X86)
#define VMEMEXP_PROT_CACHE_MASK		((u64)_PAGE_CACHE_MASK)
#elif defined(CONFIG_ARM64)
#define VMEMEXP_PROT_CACHE_MASK		((u64)PTE_ATTRINDX_MASK)
#elif defined(CONFIG_ARM)
#define VMEMEXP_PROT_CACHE_MASK		((u64)L_PTE_MT_MASK)
#else
/* Nothing is known of other architectures: page frames cannot be exported there. */
#define VMEMEXP_PROT_CACHE_MASK		0ULL
#endif

static inline u64 vmemexp_prot_cache(pgprot_t prot)
{
	u64 bits = pgprot_val(prot) & VMEMEXP_PROT_CACHE_MASK;

#ifdef CONFIG_ARM64
	/* Devices know no memory tags. Without the tags, it is normal memory. */
	if (bits == PTE_ATTRINDX(MT_NORMAL_TAGGED))
		bits = PTE_ATTRINDX(MT_NORMAL);
#endif
	return bits;
}

static inline pgprot_t vmemexp_prot_with_cache(pgprot_t prot, u64 cache)
{
	u64 bits = (pgprot_val(prot) & ~VMEMEXP_PROT_CACHE_MASK) | cache;

#ifdef CONFIG_ARM64
	/*
	 * Such memory is never executable, as in the kernel's own mappings; mprotect()
	 * tells them by that.
	 */
	if (cache != PTE_ATTRINDX(MT_NORMAL))
		bits |= PTE_PXN | PTE_UXN;
#elif defined(CONFIG_ARM)
	if (cache == L_PTE_MT_DEV_SHARED)
		bits |= L_PTE_SHARED | L_PTE_DIRTY | L_PTE_XN;
#endif
	return __pgprot(bits);
}

/* Return the VMEMEXP_CACHE_* name of the @bits that vmemexp_prot_cache() gave. */
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
 * Set an entry of a page table for user space. Modules cannot call set_pte_at() on arm
 * and arm64, and there is less to gain there: only x86 looks up for each page how it is
 * cached.
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
 * Page frames of one such block, which is aligned to its size, all have a struct page
 * or none has.
 */
#if defined(CONFIG_HAVE_ARCH_PFN_VALID)
#define VMEMEXP_PFN_BLOCK		1UL
#elif defined(CONFIG_SPARSEMEM_VMEMMAP)
#define VMEMEXP_PFN_BLOCK		PAGES_PER_SUBSECTION
#elif defined(CONFIG_SPARSEMEM)
#define VMEMEXP_PFN_BLOCK		PAGES_PER_SECTION
#else
#define VMEMEXP_PFN_BLOCK		1UL
#endif

/*
 * Number of page frames from @pfn on whose struct pages are certainly consecutive. Without
 * VMEMMAP, each section has an array of its own.
 */
#if defined(CONFIG_SPARSEMEM) && !defined(CONFIG_SPARSEMEM_VMEMMAP)
#define VMEMEXP_PAGE_ROOM(pfn)		(PAGES_PER_SECTION - (pfn) % PAGES_PER_SECTION)
#else
#define VMEMEXP_PAGE_ROOM(pfn)		((void)(pfn), ULONG_MAX)
#endif

/*
 * How the kernel maps uncached memory. On arm and arm64, user space's uncached memory
 * is device memory, where the unaligned accesses of an importer's memcpy() fault.
 * Write-combined is uncached as well, and normal memory.
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

/* Map memory without struct page into the kernel. memunmap() undoes it. */
static inline void *vmemexp_remap(phys_addr_t phys, size_t size, u32 cache)
{
	if (cache == VMEMEXP_CACHE_CACHED)
		return memremap(phys, size, MEMREMAP_WB);
	if (cache == VMEMEXP_CACHE_UNCACHED && VMEMEXP_KERNEL_UNCACHED == cache)
		return (void __force *)ioremap(phys, size);
	return memremap(phys, size, MEMREMAP_WC);
}

/*
 * Maintain caches by kernel address. vmemexp_cache_clean() writes back to memory;
 * vmemexp_cache_flush() invalidates after that. The driver needs them where the DMA API
 * does not do it, and for observers: processors beside Linux, like the core of an RTOS, which
 * do not snoop the caches (the term is defined in Documentation/vmemexp.rst).
 *
 * The DMA API serves devices and the linear map only, and the kernel does not export its
 * cache functions to modules. These reach the point of coherency. VMEMEXP_HAS_CACHES says
 * that there are caches to maintain.
 */
#if defined(CONFIG_X86)

/* Every master in a PC snoops the caches. */
#define VMEMEXP_HAS_CACHES		0
#define VMEMEXP_CAN_SYNC_OBSERVER	1
#define VMEMEXP_HAS_CACHE_OPS		0
static inline void vmemexp_cache_clean(phys_addr_t phys, void *va, size_t size) { }
static inline void vmemexp_cache_flush(phys_addr_t phys, void *va, size_t size) { }

#elif defined(CONFIG_ARM64)

#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/sysreg.h>
#define VMEMEXP_HAS_CACHES		1
#define VMEMEXP_CAN_SYNC_OBSERVER	1
#define VMEMEXP_HAS_CACHE_OPS		1

/* CTR_EL0: the shortest line of all data caches, as the binary logarithm of its words. */
#define VMEMEXP_CTR_DMINLINE_SHIFT	16

/* Erratum 4311569: some CPUs complete the write-back of a line too early. Do it twice there. */
static inline bool vmemexp_must_flush_twice(void)
{
#ifdef CONFIG_ARM64_ERRATUM_4311569
	return cpus_have_final_cap(ARM64_WORKAROUND_4311569);
#else
	return false;
#endif
}

static inline void vmemexp_flush_lines(unsigned long addr, unsigned long end, unsigned long line)
{
	for (; addr < end; addr += line)
		asm volatile("dc civac, %0" : : "r" (addr) : "memory");
}

/*
 * The kernel exports functions for this as part of CONFIG_ARM64_PMEM only, which kernels
 * for boards leave out. The driver has no use for a clean that leaves the lines in the
 * cache, which some Cortex-A53 get wrong. Not inline, for a test that counts the calls.
 */
static noinline __noclone void vmemexp_flush_dcache(void *va, size_t size)
{
	u64 ctr = read_sanitised_ftr_reg(SYS_CTR_EL0);
	unsigned long line = 4UL << cpuid_feature_extract_unsigned_field(ctr,
							VMEMEXP_CTR_DMINLINE_SHIFT);
	unsigned long addr = (unsigned long)va & ~(line - 1);
	unsigned long end = (unsigned long)va + size;

	/* After what the CPU has written at other addresses of the same memory. */
	dmb(osh);
	vmemexp_flush_lines(addr, end, line);
	if (vmemexp_must_flush_twice())
		vmemexp_flush_lines(addr, end, line);
	dsb(sy);
}

static inline void vmemexp_cache_clean(phys_addr_t phys, void *va, size_t size)
{
	vmemexp_flush_dcache(va, size);
}

static inline void vmemexp_cache_flush(phys_addr_t phys, void *va, size_t size)
{
	vmemexp_flush_dcache(va, size);
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

/* The inner caches may be refilled from the outer one until that is empty. */
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

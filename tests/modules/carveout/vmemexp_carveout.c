// SPDX-License-Identifier: GPL-2.0
/*
 * A stand-in, for tests, for the drivers that map carve-outs of other
 * processors: /dev/vmemexp-carveout. It maps reserved memory in every way that
 * such drivers do, and can take a mapping away. vmemexp_carveout.h documents
 * its ioctls.
 *
 * Objects: a region is a physical range, there from the loading of the module
 * to its end. An open file (struct carveout_file) becomes a user of one region
 * by SETUP, until its last reference is gone; its mappings hold such references.
 *
 * All users of a region at a time have it cached in the same way. On x86 the
 * kernel demands that: it keeps one memory type for each page frame and
 * silently inserts PTEs of that type. So the first user sets it up there, for
 * page frames that come by fault too, and the last one undoes it.
 *
 * Locks, outermost first:
 *	mm->mmap_lock			(mmap and fault)
 *	carveout_file.lock
 *	carveout_region.lock
 * So nothing may touch user memory under the latter two. A fault takes neither:
 * what SETUP has set does not change any more.
 */

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/set_memory.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "vmemexp_carveout.h"

#define CARVEOUT_MAX_RANGES	8
#define CARVEOUT_SWAPPED_PAGES	8

static char *ranges = "";
module_param(ranges, charp, 0400);
MODULE_PARM_DESC(ranges, "base:size,... of physical ranges that the kernel does not use");

/* --- older kernels: the code below is written for the newest --- */

/* bc292ab00f6c (v6.3) made vm_flags read-only. */
#ifndef VMEMEXP_HAVE_VM_FLAGS_MOD
static void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}
#endif

/* "mm: remove the remaining pfn_t types" (v6.17) */
#ifdef VMEMEXP_HAVE_PFN_T
#include <linux/pfn_t.h>
#define carveout_insert_mixed(vma, addr, pfn)	\
	vmf_insert_mixed(vma, addr, __pfn_to_pfn_t(pfn, PFN_DEV))
#else
#define carveout_insert_mixed			vmf_insert_mixed
#endif

/* "mm: introduce ARCH_SUPPORTS_HUGE_PFNMAP and special bits to pmd/pud" (v6.12) */
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
#ifdef VMEMEXP_HAVE_PFN_T
#define carveout_insert_pmd(vmf, pfn, write)	\
	vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, PFN_DEV), write)
#else
#define carveout_insert_pmd			vmf_insert_pfn_pmd
#endif
#endif

/* --- regions --- */

struct carveout_region {
	phys_addr_t base;
	size_t size;
	bool has_pages;			/* struct page for every page frame */
	bool is_ram;			/* System RAM for the kernel */
	bool is_mixed;			/* a part of it is */
	struct mutex lock;		/* protects all that follows */
	unsigned int nr_users;
	u32 cache;			/* CARVEOUT_*, of the users */
	void __iomem *window;		/* holds the memory type, x86 only */
};

static struct carveout_region carveout_ranges[CARVEOUT_MAX_RANGES];
static unsigned int carveout_nr_ranges;
static struct carveout_region carveout_ram;

static struct carveout_region *carveout_find_region(u32 nr)
{
	if (nr == CARVEOUT_REGION_RAM)
		return &carveout_ram;
	return nr < carveout_nr_ranges ? &carveout_ranges[nr] : NULL;
}

#ifdef CONFIG_X86
/* The memory type of RAM is that of the kernel's own mapping of it. */
static int carveout_set_type(struct carveout_region *region, u32 cache)
{
	if (region->is_ram) {
		unsigned long addr = (unsigned long)phys_to_virt(region->base);
		int nr_pages = region->size >> PAGE_SHIFT;

		if (cache == CARVEOUT_WRITECOMBINE)
			return set_memory_wc(addr, nr_pages);
		if (cache == CARVEOUT_UNCACHED)
			return set_memory_uc(addr, nr_pages);
		return 0;
	}
	if (cache == CARVEOUT_WRITECOMBINE)
		region->window = ioremap_wc(region->base, region->size);
	else if (cache == CARVEOUT_UNCACHED)
		region->window = ioremap(region->base, region->size);
	else
		region->window = ioremap_cache(region->base, region->size);
	return region->window ? 0 : -EBUSY;
}

static void carveout_reset_type(struct carveout_region *region)
{
	if (!region->is_ram)
		iounmap(region->window);
	else if (region->cache != CARVEOUT_CACHED)
		set_memory_wb((unsigned long)phys_to_virt(region->base),
			      region->size >> PAGE_SHIFT);
}
#else
static int carveout_set_type(struct carveout_region *region, u32 cache)
{
	return 0;
}

static void carveout_reset_type(struct carveout_region *region)
{
}
#endif

static int carveout_get_region(struct carveout_region *region, u32 cache)
{
	int ret = 0;

	mutex_lock(&region->lock);
	if (!region->nr_users) {
		ret = carveout_set_type(region, cache);
		if (!ret)
			region->cache = cache;
	} else if (region->cache != cache) {
		ret = -EBUSY;
	}
	if (!ret)
		region->nr_users++;
	mutex_unlock(&region->lock);
	return ret;
}

static void carveout_put_region(struct carveout_region *region)
{
	mutex_lock(&region->lock);
	if (!--region->nr_users)
		carveout_reset_type(region);
	mutex_unlock(&region->lock);
}

/*
 * Maps the page at @offset for the access of another processor. On x86 all
 * accesses snoop the caches, and a mapping gets the type that the region has.
 */
static void *carveout_map_page(const struct carveout_region *region,
			       size_t offset)
{
	bool cached = region->is_ram || IS_ENABLED(CONFIG_X86);

	return memremap(region->base + offset, PAGE_SIZE,
			cached ? MEMREMAP_WB : MEMREMAP_WC);
}

/* --- mapping --- */

struct carveout_file {
	struct mutex lock;		/* of SETUP against mmap() and SETUP */
	struct carveout_region *region;	/* NULL before SETUP */
	struct carveout_setup setup;
	atomic_t nr_faults;
	bool taken_away;
	/*
	 * The device node has one for all that open it. With one of its own, a
	 * file takes away nothing but its own mappings.
	 */
	struct address_space mapping;
};

static void carveout_take_away(struct carveout_file *cf)
{
	unmap_mapping_range(&cf->mapping, 0, 0, 1);
}

/* Returns false if the fault is to be refused. */
static bool carveout_count_fault(struct carveout_file *cf)
{
	unsigned int nr = atomic_inc_return(&cf->nr_faults);

	if (cf->setup.flags & CARVEOUT_THEN_REFUSE)
		return nr <= cf->setup.nr_faults;
	if (cf->setup.flags & CARVEOUT_THEN_TAKE_AWAY &&
	    nr - 1 == cf->setup.nr_faults)
		carveout_take_away(cf);
	return true;
}

static vm_fault_t carveout_fault(struct vm_fault *vmf)
{
	struct carveout_file *cf = vmf->vma->vm_file->private_data;
	unsigned long pgoff = vmf->pgoff;

	if (cf->setup.how != CARVEOUT_HOW_FAULT &&
	    cf->setup.how != CARVEOUT_HOW_HUGE)
		return VM_FAULT_SIGBUS;
	if (READ_ONCE(cf->taken_away) || !carveout_count_fault(cf))
		return VM_FAULT_SIGBUS;
	if (cf->setup.flags & CARVEOUT_SWAPPED)
		pgoff ^= CARVEOUT_SWAPPED_PAGES / 2;
	return vmf_insert_pfn(vmf->vma, vmf->address,
			      PHYS_PFN(cf->region->base) + pgoff);
}

/* Counts as a fault. The caller makes the entry writable. */
static vm_fault_t carveout_notice_frame_write(struct vm_fault *vmf)
{
	return carveout_count_fault(vmf->vma->vm_file->private_data) ?
		0 : VM_FAULT_SIGBUS;
}

static vm_fault_t carveout_mixed_fault(struct vm_fault *vmf)
{
	struct carveout_file *cf = vmf->vma->vm_file->private_data;

	return carveout_insert_mixed(vmf->vma, vmf->address,
				     PHYS_PFN(cf->region->base) + vmf->pgoff);
}

#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
/* The mapping's other page frames come one by one. */
static vm_fault_t carveout_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct carveout_file *cf = vma->vm_file->private_data;
	unsigned long addr = vmf->address & PMD_MASK;
	unsigned long pfn = PHYS_PFN(cf->region->base) + vmf->pgoff -
		((vmf->address - addr) >> PAGE_SHIFT);

	if (order != PMD_ORDER || addr < vma->vm_start ||
	    addr + PMD_SIZE > vma->vm_end || !IS_ALIGNED(pfn, PTRS_PER_PTE))
		return VM_FAULT_FALLBACK;
	if (READ_ONCE(cf->taken_away))
		return VM_FAULT_SIGBUS;
	return carveout_insert_pmd(vmf, pfn, vmf->flags & FAULT_FLAG_WRITE);
}
#endif

static vm_fault_t carveout_refuse_write(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static vm_fault_t carveout_page_fault(struct vm_fault *vmf)
{
	struct carveout_file *cf = vmf->vma->vm_file->private_data;

	if (READ_ONCE(cf->taken_away))
		return VM_FAULT_SIGBUS;
	vmf->page = pfn_to_page(PHYS_PFN(cf->region->base) + vmf->pgoff);
	get_page(vmf->page);
	return 0;
}

/* The caller does not take it for truncated if it gets it locked. */
static vm_fault_t carveout_notice_write(struct vm_fault *vmf)
{
	lock_page(vmf->page);
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct carveout_vm_ops = {
	.fault = carveout_fault,
};

/*
 * With pfn_mkwrite, the kernel inserts PTEs without write permission, and calls it at the first
 * write.
 */
static const struct vm_operations_struct carveout_read_only_vm_ops = {
	.fault = carveout_fault,
	.pfn_mkwrite = carveout_refuse_write,
};

static const struct vm_operations_struct carveout_tracked_frames_vm_ops = {
	.fault = carveout_fault,
	.pfn_mkwrite = carveout_notice_frame_write,
};

static const struct vm_operations_struct carveout_tracked_vm_ops = {
	.fault = carveout_page_fault,
	.page_mkwrite = carveout_notice_write,
};

static const struct vm_operations_struct carveout_mixed_vm_ops = {
	.fault = carveout_mixed_fault,
};

static const struct vm_operations_struct carveout_huge_vm_ops = {
	.fault = carveout_fault,
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
	.huge_fault = carveout_huge_fault,
#endif
};

static int carveout_insert_pages(struct vm_area_struct *vma, unsigned long pfn)
{
	unsigned long addr;
	int ret;

	for (addr = vma->vm_start; addr < vma->vm_end; addr += PAGE_SIZE) {
		ret = vm_insert_page(vma, addr, pfn_to_page(pfn++));
		if (ret)
			return ret;
	}
	return 0;
}

static int carveout_map_region(struct carveout_file *cf,
			       struct vm_area_struct *vma)
{
	size_t length = vma->vm_end - vma->vm_start;
	size_t nr_pages = cf->region->size >> PAGE_SHIFT;
	unsigned long pfn = PHYS_PFN(cf->region->base) + vma->vm_pgoff;

	if (vma->vm_pgoff > nr_pages ||
	    length >> PAGE_SHIFT > nr_pages - vma->vm_pgoff)
		return -EINVAL;
	if (cf->setup.flags & CARVEOUT_SWAPPED &&
	    !IS_ALIGNED(vma->vm_pgoff | length >> PAGE_SHIFT, CARVEOUT_SWAPPED_PAGES))
		return -EINVAL;
	/* Nothing but remap_pfn_range() knows about copy-on-write. */
	if (cf->setup.how != CARVEOUT_HOW_REMAP &&
	    (vma->vm_flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE)
		return -EINVAL;

	if (cf->setup.cache == CARVEOUT_WRITECOMBINE)
		vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
	else if (cf->setup.cache == CARVEOUT_UNCACHED)
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	vma->vm_ops = &carveout_vm_ops;
	if (cf->setup.flags & CARVEOUT_READ_ONLY)
		vma->vm_ops = &carveout_read_only_vm_ops;
	else if (cf->setup.flags & CARVEOUT_TRACKED)
		vma->vm_ops = &carveout_tracked_frames_vm_ops;

	switch (cf->setup.how) {
	case CARVEOUT_HOW_REMAP:
		return remap_pfn_range(vma, vma->vm_start, pfn, length,
				       vma->vm_page_prot);
	case CARVEOUT_HOW_PAGES:
		if (!(cf->setup.flags & CARVEOUT_TRACKED))
			return carveout_insert_pages(vma, pfn);
		vma->vm_ops = &carveout_tracked_vm_ops;
		vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
		return 0;
	case CARVEOUT_HOW_MIXED:
		vma->vm_ops = &carveout_mixed_vm_ops;
		vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP);
		return 0;
	case CARVEOUT_HOW_HUGE:
		vma->vm_ops = &carveout_huge_vm_ops;
		fallthrough;
	default:
		vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
		return 0;
	}
}

static int carveout_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct carveout_file *cf = file->private_data;
	int ret = -ENXIO;

	mutex_lock(&cf->lock);
	if (cf->region)
		ret = carveout_map_region(cf, vma);
	mutex_unlock(&cf->lock);
	return ret;
}

/* --- ioctls --- */

static int carveout_check_setup(const struct carveout_setup *setup)
{
	u32 then = setup->flags &
		(CARVEOUT_THEN_REFUSE | CARVEOUT_THEN_TAKE_AWAY);

	if (setup->cache < CARVEOUT_CACHED || setup->cache > CARVEOUT_UNCACHED)
		return -EINVAL;
	if (setup->how > CARVEOUT_HOW_HUGE || setup->reserved)
		return -EINVAL;
	if (setup->flags & ~(CARVEOUT_READ_ONLY | CARVEOUT_THEN_REFUSE |
			     CARVEOUT_THEN_TAKE_AWAY | CARVEOUT_TRACKED |
			     CARVEOUT_SWAPPED))
		return -EINVAL;
	if (setup->flags & ~CARVEOUT_TRACKED && setup->how != CARVEOUT_HOW_FAULT)
		return -EINVAL;
	if (setup->flags & CARVEOUT_TRACKED && setup->how != CARVEOUT_HOW_PAGES &&
	    setup->how != CARVEOUT_HOW_FAULT)
		return -EINVAL;
	if (then == (CARVEOUT_THEN_REFUSE | CARVEOUT_THEN_TAKE_AWAY))
		return -EINVAL;
	if (setup->nr_faults && !then)
		return -EINVAL;
	return 0;
}

/* Before vm_insert_page() maps a page it keeps the kernel's view coherent. */
static bool carveout_may_insert_pages(const struct carveout_region *region)
{
	return region->has_pages &&
		(region->is_ram || !IS_ENABLED(CONFIG_ARM));
}

static int carveout_setup(struct carveout_file *cf, void __user *argp)
{
	struct carveout_setup setup;
	struct carveout_region *region;
	int ret;

	if (copy_from_user(&setup, argp, sizeof(setup)))
		return -EFAULT;
	ret = carveout_check_setup(&setup);
	if (ret)
		return ret;
	region = carveout_find_region(setup.region);
	if (!region)
		return -ENXIO;
	if (setup.how == CARVEOUT_HOW_PAGES && !carveout_may_insert_pages(region))
		return -EOPNOTSUPP;
	if (setup.how == CARVEOUT_HOW_HUGE &&
	    !IS_ENABLED(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP))
		return -EOPNOTSUPP;

	mutex_lock(&cf->lock);
	ret = -EBUSY;
	if (!cf->region)
		ret = carveout_get_region(region, setup.cache);
	if (!ret) {
		cf->setup = setup;
		cf->region = region;
	}
	mutex_unlock(&cf->lock);
	return ret;
}

static int carveout_info(void __user *argp)
{
	const struct carveout_region *region;
	struct carveout_info info;

	if (copy_from_user(&info, argp, sizeof(info)))
		return -EFAULT;
	region = carveout_find_region(info.region);
	if (!region)
		return -ENXIO;
	info.flags = 0;
	if (region->has_pages)
		info.flags |= CARVEOUT_INFO_PAGES;
	if (region->is_ram)
		info.flags |= CARVEOUT_INFO_RAM;
	if (region->is_mixed)
		info.flags |= CARVEOUT_INFO_MIXED;
	info.base = region->base;
	info.size = region->size;
	return copy_to_user(argp, &info, sizeof(info)) ? -EFAULT : 0;
}

static int carveout_transfer_page(const struct carveout_region *region,
				  size_t offset, size_t length,
				  void __user *user, bool write)
{
	size_t in_page = offset_in_page(offset);
	void *page = carveout_map_page(region, offset - in_page);
	unsigned long left;

	if (!page)
		return -ENOMEM;
	if (write)
		left = copy_from_user(page + in_page, user, length);
	else
		left = copy_to_user(user, page + in_page, length);
	memunmap(page);
	return left ? -EFAULT : 0;
}

static int carveout_transfer(void __user *argp, bool write)
{
	const struct carveout_region *region;
	struct carveout_transfer t;
	void __user *user;
	size_t done = 0;
	int ret = 0;

	if (copy_from_user(&t, argp, sizeof(t)))
		return -EFAULT;
	if (t.reserved)
		return -EINVAL;
	region = carveout_find_region(t.region);
	if (!region)
		return -ENXIO;
	if (t.offset > region->size || t.length > region->size - t.offset)
		return -EINVAL;
	user = u64_to_user_ptr(t.user_ptr);

	/* Page by page: vmalloc space is small on 32 bit machines. */
	while (!ret && done < t.length) {
		size_t offset = t.offset + done;
		size_t length = min_t(size_t, t.length - done,
				      PAGE_SIZE - offset_in_page(offset));

		ret = carveout_transfer_page(region, offset, length,
					     user + done, write);
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		done += length;
		cond_resched();
	}
	return ret;
}

static int carveout_take_away_now(struct carveout_file *cf)
{
	bool is_set_up;

	mutex_lock(&cf->lock);
	is_set_up = cf->region;
	mutex_unlock(&cf->lock);
	if (!is_set_up)
		return -ENXIO;
	/* A fault that is under way may still put its page in afterwards. */
	WRITE_ONCE(cf->taken_away, true);
	carveout_take_away(cf);
	return 0;
}

/* --- the device node --- */

static long carveout_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	struct carveout_file *cf = file->private_data;
	void __user *argp = (void __user *)arg;

	switch (cmd) {
	case CARVEOUT_IOC_SETUP:
		return carveout_setup(cf, argp);
	case CARVEOUT_IOC_INFO:
		return carveout_info(argp);
	case CARVEOUT_IOC_READ:
		return carveout_transfer(argp, false);
	case CARVEOUT_IOC_WRITE:
		return carveout_transfer(argp, true);
	case CARVEOUT_IOC_TAKE_AWAY:
		return carveout_take_away_now(cf);
	default:
		return -ENOTTY;
	}
}

static int carveout_open(struct inode *inode, struct file *file)
{
	struct carveout_file *cf = kzalloc(sizeof(*cf), GFP_KERNEL);

	if (!cf)
		return -ENOMEM;
	mutex_init(&cf->lock);
	address_space_init_once(&cf->mapping);
	cf->mapping.host = inode;
	cf->mapping.a_ops = inode->i_mapping->a_ops;
	file->f_mapping = &cf->mapping;
	file->private_data = cf;
	return nonseekable_open(inode, file);
}

static int carveout_release(struct inode *inode, struct file *file)
{
	struct carveout_file *cf = file->private_data;

	if (cf->region)
		carveout_put_region(cf->region);
	kfree(cf);
	return 0;
}

static const struct file_operations carveout_fops = {
	.owner = THIS_MODULE,
	.open = carveout_open,
	.release = carveout_release,
	.unlocked_ioctl = carveout_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = carveout_mmap,
};

static struct miscdevice carveout_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmemexp-carveout",
	.fops = &carveout_fops,
	.mode = 0600,
};

/* --- loading --- */

/*
 * Finds out what the kernel has for the range. Only reserved pages of System RAM may be given away.
 */
static int carveout_init_region(struct carveout_region *region, u64 base,
				u64 size)
{
	unsigned long pfn, end = PHYS_PFN(base + size - 1) + 1, nr_ram = 0;
	bool all_reserved = true, any_ram;

	mutex_init(&region->lock);
	region->base = base;
	region->size = size;
	any_ram = region_intersects(base, size, IORESOURCE_SYSTEM_RAM,
				    IORES_DESC_NONE) != REGION_DISJOINT;
	region->has_pages = true;
	for (pfn = PHYS_PFN(base); pfn < end; pfn++) {
		/* For RAM with a hole behind it, it would say that all is RAM. */
		nr_ram += any_ram && region_intersects(PFN_PHYS(pfn), PAGE_SIZE,
						       IORESOURCE_SYSTEM_RAM,
						       IORES_DESC_NONE) != REGION_DISJOINT;
		if (!pfn_valid(pfn))
			region->has_pages = false;
		else if (!PageReserved(pfn_to_page(pfn)))
			all_reserved = false;
	}
	region->is_ram = nr_ram == size >> PAGE_SHIFT;
	region->is_mixed = nr_ram && !region->is_ram;
	if ((nr_ram && !all_reserved) || (region->is_ram && !region->has_pages))
		return -EBUSY;
	return 0;
}

static int carveout_parse_range(char *text)
{
	u64 base, size;

	if (carveout_nr_ranges == CARVEOUT_MAX_RANGES)
		return -E2BIG;
	base = memparse(text, &text);
	if (*text++ != ':')
		return -EINVAL;
	size = memparse(text, &text);
	if (*text || !size || size > SIZE_MAX || base + size - 1 < base ||
	    base + size - 1 > (phys_addr_t)-1 ||
	    !IS_ALIGNED(base | size, PAGE_SIZE))
		return -EINVAL;
	return carveout_init_region(&carveout_ranges[carveout_nr_ranges++],
				    base, size);
}

/* The ranges are not requested, so that /dev/mem may map them as well. */
static int carveout_parse_ranges(void)
{
	char *copy = kstrdup(ranges, GFP_KERNEL);
	char *rest = copy;
	char *text;
	int ret = 0;

	if (!copy)
		return -ENOMEM;
	while (!ret && (text = strsep(&rest, ",\n"))) {
		if (!*text)
			continue;
		ret = carveout_parse_range(text);
		if (ret)
			pr_err("vmemexp_carveout: range %s is refused: %d\n",
			       text, ret);
	}
	kfree(copy);
	return ret;
}

/* As many pages as there are in one piece, each with a reference of its own. */
static int carveout_alloc_ram(void)
{
	gfp_t gfp = GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN;
	size_t size = SZ_4M;
	void *memory = alloc_pages_exact(size, gfp);

	while (!memory && size > SZ_1M) {
		size /= 2;
		memory = alloc_pages_exact(size, gfp);
	}
	if (!memory)
		return -ENOMEM;
	mutex_init(&carveout_ram.lock);
	carveout_ram.base = virt_to_phys(memory);
	carveout_ram.size = size;
	carveout_ram.has_pages = true;
	carveout_ram.is_ram = true;
	return 0;
}

static void carveout_free_ram(void)
{
	free_pages_exact(phys_to_virt(carveout_ram.base), carveout_ram.size);
}

static int __init carveout_init(void)
{
	int ret = carveout_parse_ranges();

	if (ret)
		return ret;
	ret = carveout_alloc_ram();
	if (ret)
		return ret;
	ret = misc_register(&carveout_misc);
	if (ret)
		carveout_free_ram();
	return ret;
}

static void __exit carveout_exit(void)
{
	misc_deregister(&carveout_misc);
	carveout_free_ram();
}

module_init(carveout_init);
module_exit(carveout_exit);

MODULE_DESCRIPTION("carve-outs mapped for tests");
MODULE_LICENSE("GPL");

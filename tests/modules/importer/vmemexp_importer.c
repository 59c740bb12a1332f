// SPDX-License-Identifier: GPL-2.0
/*
 * A dma-buf importer for tests: /dev/vmemexp-importer. It knows nothing of any
 * exporter, only the dma-buf and DMA interfaces, so it tells what every
 * importer would see. vmemexp_importer.h documents its ioctls.
 *
 * Objects: an open file is a session (struct importer_session). ATTACH makes a fake device for it
 * (struct importer_device, a platform device that no driver binds) and attaches that to a dma-buf;
 * the session owns both until DETACH. Its mapping and kernel mapping build on the attachment.
 *
 * Locks, outermost first:
 *	mm->mmap_lock			(mmap of a session)
 *	importer_session.lock		one step at a time, and inside of that, for a
 *					dynamic attachment, dma_resv (importer_hold())
 *	the exporter's and the core's, dma_resv among them
 *	importer_device.shadow_lock	called by the exporter, in any task
 * So nothing may touch user memory under a session's lock. Devices are made and
 * unmade outside of it, to keep the driver core's locks out of the order.
 *
 * The device's view: a DMA address is turned back into the physical address it stands for, and the
 * CPU reads or writes there. If swiotlb bounces a segment, the device sees the bounce buffer. A
 * SHADOW or MERGED device has dma_map_ops of its own, that give every mapped entry a private copy
 * at a made-up DMA address.
 *
 * Memory outside of System RAM is not in the linear map, with or without struct
 * page. Nothing bounces it and no DMA API call may look after its caches, so a
 * such a device has no copy of it but works on the memory itself. The CPU that
 * plays the device goes past its caches there, as the device would.
 */

#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#ifdef VMEMEXP_HAVE_IOSYS_MAP
#include <linux/iosys-map.h>
#endif

#include "vmemexp_translate.h"
#include "vmemexp_importer.h"

/* --- older kernels: the code below is written for the newest --- */

/* MODULE_IMPORT_NS(), whose argument has been a string since cdd30ebb1b9f (v6.13). */
MODULE_INFO(import_ns, "DMA_BUF");

/* ef246da8e63c (v7.1) renamed the callback. */
#ifndef VMEMEXP_HAVE_ATTACH_INVALIDATE
#define invalidate_mappings move_notify
#endif

/* v7.1 moved it among the flags; not every architecture has it. */
static void importer_set_coherent(struct device *dev, bool coherent)
{
#ifdef VMEMEXP_HAVE_ASSIGN_DMA_COHERENT
	dev_assign_dma_coherent(dev, coherent);
#elif defined(CONFIG_ARCH_HAS_SYNC_DMA_FOR_DEVICE) || defined(CONFIG_ARCH_HAS_SYNC_DMA_FOR_CPU)
	dev->dma_coherent = coherent;
#endif
}

/* 7938f4218168 (v5.18) named it so; 6619ccf1bb1d (v5.11) made vmap use it. */
#ifndef VMEMEXP_HAVE_IOSYS_MAP
struct iosys_map {
	void *vaddr;
	bool is_iomem;
};

static bool iosys_map_is_set(const struct iosys_map *map)
{
	return map->vaddr;
}

static void iosys_map_clear(struct iosys_map *map)
{
	map->vaddr = NULL;
}

static void iosys_map_memcpy_to(struct iosys_map *dst, size_t dst_offset,
				const void *src, size_t len)
{
	memcpy(dst->vaddr + dst_offset, src, len);
}

static void iosys_map_memcpy_from(void *dst, const struct iosys_map *src,
				  size_t src_offset, size_t len)
{
	memcpy(dst, src->vaddr + src_offset, len);
}

#ifdef VMEMEXP_HAVE_DMA_BUF_MAP
static int importer_dma_buf_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct dma_buf_map theirs;
	int ret = dma_buf_vmap(dmabuf, &theirs);

	map->vaddr = ret ? NULL : theirs.vaddr;
	return ret;
}

static void importer_dma_buf_vunmap(struct dma_buf *dmabuf,
				    struct iosys_map *map)
{
	struct dma_buf_map theirs = DMA_BUF_MAP_INIT_VADDR(map->vaddr);

	dma_buf_vunmap(dmabuf, &theirs);
}
#else
static int importer_dma_buf_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	map->vaddr = dma_buf_vmap(dmabuf);
	return map->vaddr ? 0 : -ENOMEM;
}

static void importer_dma_buf_vunmap(struct dma_buf *dmabuf,
				    struct iosys_map *map)
{
	dma_buf_vunmap(dmabuf, map->vaddr);
}
#endif
#elif !defined(VMEMEXP_HAVE_DMA_BUF_MAP_UNLOCKED)
/* 56e5abba8c3e (v6.2) moved vmap under the reservation lock. */
#define importer_dma_buf_vmap dma_buf_vmap
#define importer_dma_buf_vunmap dma_buf_vunmap
#else
#define importer_dma_buf_vmap dma_buf_vmap_unlocked
#define importer_dma_buf_vunmap dma_buf_vunmap_unlocked
#endif

/*
 * For importers that are not dynamic: 19d6634d8789 (v6.2) made every importer map
 * under the reservation lock, before that only dynamic ones. 6.1.y has some of the
 * _unlocked names too.
 */
#ifndef VMEMEXP_HAVE_DMA_BUF_MAP_UNLOCKED
#define importer_dma_buf_map dma_buf_map_attachment
#define importer_dma_buf_unmap dma_buf_unmap_attachment
#else
#define importer_dma_buf_map dma_buf_map_attachment_unlocked
#define importer_dma_buf_unmap dma_buf_unmap_attachment_unlocked
#endif

/*
 * v6.19 knows resources by this attribute, older kernels have operations of
 * their own for them. The bit is free there.
 */
#ifndef DMA_ATTR_MMIO
#define DMA_ATTR_MMIO BIT(10)
#endif

/* v6.12 replaced follow_pte(), which took no mapping but the whole mm before v6.10. */
#ifdef VMEMEXP_HAVE_PFNMAP_START
static int importer_user_pte(unsigned long addr, pgprot_t *pte)
{
	struct follow_pfnmap_args args = { .address = addr };
	int ret = -EFAULT;

	args.vma = vma_lookup(current->mm, addr);
	if (args.vma)
		ret = follow_pfnmap_start(&args);
	if (ret)
		return ret;
	/* On arm there is no way back from an entry to its pgprot. */
	*pte = args.ptep ? __pgprot(pte_val(ptep_get(args.ptep))) : args.pgprot;
	follow_pfnmap_end(&args);
	return 0;
}
#else
static int importer_user_pte(unsigned long addr, pgprot_t *pte)
{
	spinlock_t *lock;	/* of the page table */
	pte_t *ptep;
	int ret;

#ifdef VMEMEXP_HAVE_FOLLOW_PTE_OF_VMA
	ret = follow_pte(find_vma(current->mm, addr), addr, &ptep, &lock);
#else
	ret = follow_pte(current->mm, addr, &ptep, &lock);
#endif
	if (ret)
		return ret;
	__acquire(lock);	/* sparse is not told of it elsewhere */
	*pte = __pgprot(pte_val(*ptep));
	pte_unmap_unlock(ptep, lock);
	return 0;
}
#endif

/* v5.15 lets the map_sg op return an errno, before it was 0. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
#define IMPORTER_MAP_SG_FAILED (-ENOMEM)
#else
#define IMPORTER_MAP_SG_FAILED 0
#endif

/* --- objects --- */

struct importer_model {
	u64 dma_mask;
	unsigned int max_segment;	/* bytes */
	bool coherent;
	bool shadow;
	bool merges;			/* entries, to one segment */
};

static const struct importer_model importer_models[IMPORTER_NR_DEVS] = {
	[IMPORTER_DEV_COHERENT] = {
		.dma_mask = DMA_BIT_MASK(64),
		.max_segment = UINT_MAX,
		.coherent = true,
	},
	[IMPORTER_DEV_MASK32] = {
		.dma_mask = DMA_BIT_MASK(32),
		.max_segment = UINT_MAX,
		.coherent = true,
	},
	[IMPORTER_DEV_MASK28] = {
		.dma_mask = DMA_BIT_MASK(28),
		.max_segment = UINT_MAX,
		.coherent = true,
	},
	[IMPORTER_DEV_SEGMENT64K] = {
		.dma_mask = DMA_BIT_MASK(64),
		.max_segment = SZ_64K,
		.coherent = true,
	},
	[IMPORTER_DEV_NONCOHERENT] = {
		.dma_mask = DMA_BIT_MASK(64),
		.max_segment = UINT_MAX,
	},
	[IMPORTER_DEV_SHADOW] = {
		.dma_mask = DMA_BIT_MASK(64),
		.max_segment = UINT_MAX,
		.shadow = true,
	},
	[IMPORTER_DEV_MERGED] = {
		.dma_mask = DMA_BIT_MASK(64),
		.max_segment = UINT_MAX,
		.shadow = true,
		.merges = true,
	},
	[IMPORTER_DEV_NO_DMA] = {
		.max_segment = UINT_MAX,
		.coherent = true,
	},
};

/* One mapped entry, as a SHADOW or MERGED device sees it. */
struct importer_shadow {
	struct list_head node;
	dma_addr_t dma;
	phys_addr_t phys;
	size_t size;
	enum dma_data_direction dir;
	bool resource;			/* of dma_map_resource() */
	u8 *copy;			/* NULL if it sees the memory itself */
};

struct importer_syncs {
	u64 calls;
	u64 bytes;
};

struct importer_device {
	struct platform_device *pdev;
	u32 nr;				/* IMPORTER_DEV_* */
	struct mutex shadow_lock;	/* protects all that follows */
	struct list_head shadows;
	dma_addr_t next_dma;
	struct importer_syncs for_device;
	struct importer_syncs for_cpu;
	u64 nr_mapped;
	u64 nr_errors;
};

struct importer_session {
	struct mutex lock;		/* protects all that follows */
	struct dma_buf_attachment *attach;	/* NULL if not attached */
	struct importer_device *idev;	/* this and dmabuf go with attach */
	struct dma_buf *dmabuf;
	struct sg_table *sgt;		/* NULL if not mapped; importer_hold() */
	enum dma_data_direction dir;	/* of sgt */
	bool moved;			/* sgt is stale; under dma_resv */
	unsigned int nr_told;		/* under dma_resv */
	bool lets_go;			/* when it is told */
	struct work_struct let_go;
	struct iosys_map map;		/* not set if not vmapped */
#ifdef CONFIG_MMU_NOTIFIER
	struct mmu_interval_notifier notifier;
#endif
	struct mm_struct *mm;		/* NULL if none is watched; not under lock */
	struct completion ending;	/* it has come to its end */
	struct completion may_end;	/* and may go on */
	bool held_too_long;		/* it went on without may_end */
};

/* --- memory by physical address --- */

static bool importer_is_ram(phys_addr_t phys, size_t size)
{
	return region_intersects(phys, size, IORESOURCE_SYSTEM_RAM,
				 IORES_DESC_NONE) != REGION_DISJOINT;
}

/*
 * How to look at memory as a device would: past the caches, unless it is in the
 * linear map. On x86 all devices snoop, and two mappings must not differ: there
 * a cached one takes on the attribute of one that exists, and no other does.
 */
static unsigned long importer_memremap_flags(phys_addr_t phys, size_t size)
{
	return IS_ENABLED(CONFIG_X86) || importer_is_ram(phys, size) ?
	       MEMREMAP_WB : MEMREMAP_WC;
}

/* Page by page: vmalloc space is small on 32 bit machines. */
static int importer_phys_copy(phys_addr_t phys, void *buf, size_t len,
			      bool write)
{
	while (len) {
		size_t offset = offset_in_page(phys);
		size_t n = min_t(size_t, len, PAGE_SIZE - offset);
		void *page = memremap(phys - offset, PAGE_SIZE,
				      importer_memremap_flags(phys, n));

		if (!page)
			return -EOPNOTSUPP;
		if (write)
			memcpy(page + offset, buf, n);
		else
			memcpy(buf, page + offset, n);
		memunmap(page);
		phys += n;
		buf += n;
		len -= n;
	}
	return 0;
}

/* --- SHADOW and MERGED: DMA API calls that are really needed, and counted --- */

/*
 * The entry at @dma. One entry may follow another in a segment: @size is cut
 * down to what is left of this one.
 */
static struct importer_shadow *
importer_shadow_find(struct importer_device *idev, dma_addr_t dma, size_t *size)
{
	struct importer_shadow *shadow;

	lockdep_assert_held(&idev->shadow_lock);
	list_for_each_entry(shadow, &idev->shadows, node) {
		if (dma >= shadow->dma && dma - shadow->dma < shadow->size) {
			*size = min_t(size_t, *size,
				      shadow->size - (dma - shadow->dma));
			/* Most often the next one is asked for next. */
			list_rotate_to_front(&shadow->node, &idev->shadows);
			return shadow;
		}
	}
	return NULL;
}

static void importer_shadow_free(struct importer_device *idev,
				 struct importer_shadow *shadow)
{
	list_del(&shadow->node);
	idev->nr_mapped--;
	vfree(shadow->copy);
	kfree(shadow);
}

/*
 * On arm and arm64, cache maintenance of what is not in the linear map would
 * crash, so map and unmap have to leave it out; RAM is no resource.
 */
static bool importer_shadow_attrs_fit(const struct importer_shadow *shadow,
				      unsigned long attrs)
{
	if (shadow->resource || attrs & DMA_ATTR_MMIO)
		return shadow->resource && attrs & DMA_ATTR_MMIO &&
		       !importer_is_ram(shadow->phys, shadow->size);
	return shadow->copy || attrs & DMA_ATTR_SKIP_CPU_SYNC;
}

static dma_addr_t importer_shadow_map_phys(struct device *dev, phys_addr_t phys,
					   size_t size,
					   enum dma_data_direction dir,
					   unsigned long attrs)
{
	struct importer_device *idev = dev_get_drvdata(dev);
	struct importer_shadow *shadow;

	shadow = kzalloc(sizeof(*shadow), GFP_KERNEL);
	if (!shadow)
		return DMA_MAPPING_ERROR;
	shadow->phys = phys;
	shadow->size = size;
	shadow->dir = dir;
	shadow->resource = attrs & DMA_ATTR_MMIO;

	if (!shadow->resource && importer_is_ram(phys, size)) {
		shadow->copy = __vmalloc(size, GFP_KERNEL | __GFP_NOWARN);
		if (!shadow->copy)
			goto err_free;
		/*
		 * A device that writes a part of the memory must leave the rest as it was when all
		 * is copied back. So for FROM_DEVICE, as swiotlb does, copy even if it is not asked
		 * for.
		 */
		if (attrs & DMA_ATTR_SKIP_CPU_SYNC && dir != DMA_FROM_DEVICE)
			memset(shadow->copy, IMPORTER_SHADOW_POISON, size);
		else if (importer_phys_copy(phys, shadow->copy, size, false))
			goto err_free_copy;
	}

	mutex_lock(&idev->shadow_lock);
	if (!importer_shadow_attrs_fit(shadow, attrs))
		idev->nr_errors++;
	/* No address twice, and most often an unmapped page behind each entry. */
	shadow->dma = idev->next_dma + offset_in_page(phys);
	idev->next_dma += PAGE_ALIGN(offset_in_page(phys) + size);
	if (!importer_models[idev->nr].merges)
		idev->next_dma += PAGE_SIZE;
	list_add_tail(&shadow->node, &idev->shadows);
	idev->nr_mapped++;
	mutex_unlock(&idev->shadow_lock);
	return shadow->dma;

err_free_copy:
	vfree(shadow->copy);
err_free:
	kfree(shadow);
	return DMA_MAPPING_ERROR;
}

static void importer_shadow_unmap(struct device *dev, dma_addr_t dma,
				  size_t size, enum dma_data_direction dir,
				  unsigned long attrs)
{
	struct importer_device *idev = dev_get_drvdata(dev);
	struct importer_shadow *shadow;
	size_t n;

	mutex_lock(&idev->shadow_lock);
	for (; size; dma += n, size -= n) {
		n = size;
		shadow = importer_shadow_find(idev, dma, &n);
		if (!shadow || shadow->dma != dma || shadow->size != n ||
		    shadow->dir != dir || !importer_shadow_attrs_fit(shadow, attrs))
			idev->nr_errors++;
		if (!shadow)
			break;
		if (shadow->copy && dir != DMA_TO_DEVICE &&
		    !(attrs & DMA_ATTR_SKIP_CPU_SYNC))
			importer_phys_copy(shadow->phys, shadow->copy,
					   shadow->size, true);
		importer_shadow_free(idev, shadow);
	}
	mutex_unlock(&idev->shadow_lock);
}

#ifndef VMEMEXP_HAVE_OPS_MAP_PHYS
static dma_addr_t importer_shadow_map_page(struct device *dev,
					   struct page *page,
					   unsigned long offset, size_t size,
					   enum dma_data_direction dir,
					   unsigned long attrs)
{
	return importer_shadow_map_phys(dev, page_to_phys(page) + offset, size,
					dir, attrs);
}

static dma_addr_t importer_shadow_map_resource(struct device *dev,
					       phys_addr_t phys, size_t size,
					       enum dma_data_direction dir,
					       unsigned long attrs)
{
	return importer_shadow_map_phys(dev, phys, size, dir,
					attrs | DMA_ATTR_MMIO);
}

static void importer_shadow_unmap_resource(struct device *dev, dma_addr_t dma,
					   size_t size,
					   enum dma_data_direction dir,
					   unsigned long attrs)
{
	importer_shadow_unmap(dev, dma, size, dir, attrs | DMA_ATTR_MMIO);
}
#endif

/* Behind the last segment, a length of 0 ends the list. */
static void importer_shadow_unmap_sg(struct device *dev,
				     struct scatterlist *sgl, int nents,
				     enum dma_data_direction dir,
				     unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		if (!sg_dma_len(sg))
			break;
		importer_shadow_unmap(dev, sg_dma_address(sg), sg_dma_len(sg),
				      dir, attrs);
	}
}

static int importer_shadow_map_sg(struct device *dev, struct scatterlist *sgl,
				  int nents, enum dma_data_direction dir,
				  unsigned long attrs)
{
	struct importer_device *idev = dev_get_drvdata(dev);
	bool merges = importer_models[idev->nr].merges;
	struct scatterlist *sg, *segment = sgl;
	int i, count = 0;

	for_each_sg(sgl, sg, nents, i)
		sg_dma_len(sg) = 0;
	/* Nothing may reach beyond a segment into the next one. */
	idev->next_dma += PAGE_SIZE;
	for_each_sg(sgl, sg, nents, i) {
		dma_addr_t dma = importer_shadow_map_phys(dev, sg_phys(sg),
							  sg->length, dir,
							  attrs);

		if (dma == DMA_MAPPING_ERROR) {
			importer_shadow_unmap_sg(dev, sgl, nents, dir,
						 DMA_ATTR_SKIP_CPU_SYNC);
			return IMPORTER_MAP_SG_FAILED;
		}
		/* Only a page that is mapped to its end can have a successor. */
		if (count && merges &&
		    dma == sg_dma_address(segment) + sg_dma_len(segment)) {
			sg_dma_len(segment) += sg->length;
			continue;
		}
		if (count++)
			segment = sg_next(segment);
		sg_dma_address(segment) = dma;
		sg_dma_len(segment) = sg->length;
	}
	return count;
}

/* One piece that does not go beyond its entry. */
static void importer_shadow_sync_piece(struct importer_device *idev,
				       struct importer_shadow *shadow,
				       size_t offset, size_t size,
				       enum dma_data_direction dir,
				       bool for_device)
{
	bool copies = dir != (for_device ? DMA_FROM_DEVICE : DMA_TO_DEVICE);

	if (!shadow->copy ||
	    (shadow->dir != dir && shadow->dir != DMA_BIDIRECTIONAL))
		idev->nr_errors++;
	if (shadow->copy && copies)
		importer_phys_copy(shadow->phys + offset, shadow->copy + offset,
				   size, !for_device);
}

/*
 * Like the DMA API with an IOMMU: the first address is translated, and from
 * there on it is the memory that goes on, whatever follows in the segment.
 */
static void importer_shadow_sync(struct device *dev, dma_addr_t dma,
				 size_t size, enum dma_data_direction dir,
				 bool for_device)
{
	struct importer_device *idev = dev_get_drvdata(dev);
	struct importer_syncs *syncs = for_device ? &idev->for_device :
						    &idev->for_cpu;
	struct importer_shadow *shadow;
	phys_addr_t phys = 0;
	bool first = true;
	size_t n, offset;

	mutex_lock(&idev->shadow_lock);
	syncs->calls++;
	syncs->bytes += size;
	for (; size; dma += n, size -= n) {
		n = size;
		shadow = importer_shadow_find(idev, dma, &n);
		offset = shadow ? dma - shadow->dma : 0;
		if (!shadow || (!first && shadow->phys + offset != phys)) {
			idev->nr_errors++;
			break;
		}
		importer_shadow_sync_piece(idev, shadow, offset, n, dir,
					   for_device);
		phys = shadow->phys + offset + n;
		first = false;
	}
	mutex_unlock(&idev->shadow_lock);
}

/* Entry by entry: unlike a sync of a segment it knows where each of them is. */
static void importer_shadow_sync_sg(struct device *dev, struct scatterlist *sgl,
				    int nents, enum dma_data_direction dir,
				    bool for_device)
{
	struct scatterlist *sg, *segment = sgl;
	size_t done = 0;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		if (done == sg_dma_len(segment)) {
			segment = sg_next(segment);
			done = 0;
		}
		importer_shadow_sync(dev, sg_dma_address(segment) + done,
				     sg->length, dir, for_device);
		done += sg->length;
	}
}

static void importer_shadow_sync_for_cpu(struct device *dev, dma_addr_t dma,
					 size_t size,
					 enum dma_data_direction dir)
{
	importer_shadow_sync(dev, dma, size, dir, false);
}

static void importer_shadow_sync_for_device(struct device *dev, dma_addr_t dma,
					    size_t size,
					    enum dma_data_direction dir)
{
	importer_shadow_sync(dev, dma, size, dir, true);
}

static void importer_shadow_sync_sg_for_cpu(struct device *dev,
					    struct scatterlist *sgl, int nents,
					    enum dma_data_direction dir)
{
	importer_shadow_sync_sg(dev, sgl, nents, dir, false);
}

static void importer_shadow_sync_sg_for_device(struct device *dev,
					       struct scatterlist *sgl,
					       int nents,
					       enum dma_data_direction dir)
{
	importer_shadow_sync_sg(dev, sgl, nents, dir, true);
}

static const struct dma_map_ops importer_shadow_ops = {
	/* v6.19 replaced pages by physical addresses. */
#ifdef VMEMEXP_HAVE_OPS_MAP_PHYS
	.map_phys = importer_shadow_map_phys,
	.unmap_phys = importer_shadow_unmap,
#else
	.map_page = importer_shadow_map_page,
	.unmap_page = importer_shadow_unmap,
	.map_resource = importer_shadow_map_resource,
	.unmap_resource = importer_shadow_unmap_resource,
#endif
	.map_sg = importer_shadow_map_sg,
	.unmap_sg = importer_shadow_unmap_sg,
	.sync_single_for_cpu = importer_shadow_sync_for_cpu,
	.sync_single_for_device = importer_shadow_sync_for_device,
	.sync_sg_for_cpu = importer_shadow_sync_sg_for_cpu,
	.sync_sg_for_device = importer_shadow_sync_sg_for_device,
};

/* READ and WRITE. */
static int importer_shadow_copy(struct importer_device *idev, dma_addr_t dma,
				void *buf, size_t len, bool write)
{
	struct importer_shadow *shadow;
	int ret = 0;
	size_t n, offset;

	mutex_lock(&idev->shadow_lock);
	for (; len && !ret; dma += n, buf += n, len -= n) {
		n = len;
		shadow = importer_shadow_find(idev, dma, &n);
		offset = shadow ? dma - shadow->dma : 0;
		if (!shadow)
			ret = -EOPNOTSUPP;
		else if (!shadow->copy)
			ret = importer_phys_copy(shadow->phys + offset, buf, n,
						 write);
		else if (write)
			memcpy(shadow->copy + offset, buf, n);
		else
			memcpy(buf, shadow->copy + offset, n);
	}
	mutex_unlock(&idev->shadow_lock);
	return ret;
}

static bool importer_shadow_is_copy(struct importer_device *idev,
				    dma_addr_t dma, size_t len)
{
	struct importer_shadow *shadow;
	bool copy = true;
	size_t n;

	mutex_lock(&idev->shadow_lock);
	for (; len && copy; dma += n, len -= n) {
		n = len;
		shadow = importer_shadow_find(idev, dma, &n);
		copy = shadow && shadow->copy;
	}
	mutex_unlock(&idev->shadow_lock);
	return copy;
}

/* --- fake devices --- */

static void importer_device_free(struct importer_device *idev)
{
	struct importer_shadow *shadow, *tmp;

	platform_device_unregister(idev->pdev);
	/* Drop what the exporter has not unmapped, without writing it back. */
	mutex_lock(&idev->shadow_lock);
	list_for_each_entry_safe(shadow, tmp, &idev->shadows, node)
		importer_shadow_free(idev, shadow);
	mutex_unlock(&idev->shadow_lock);
	kfree(idev);
}

static struct importer_device *importer_device_create(u32 nr)
{
	const struct importer_model *model = &importer_models[nr];
	struct platform_device_info info = {
		.name = "vmemexp-importer",
		.id = PLATFORM_DEVID_AUTO,
		.dma_mask = model->dma_mask,
	};
	struct importer_device *idev;
	struct device *dev;
	int ret;

	if (model->shadow && !IS_ENABLED(CONFIG_ARCH_HAS_DMA_OPS) &&
	    !IS_ENABLED(CONFIG_DMA_OPS))
		return ERR_PTR(-EOPNOTSUPP);

	idev = kzalloc(sizeof(*idev), GFP_KERNEL);
	if (!idev)
		return ERR_PTR(-ENOMEM);
	idev->nr = nr;
	mutex_init(&idev->shadow_lock);
	INIT_LIST_HEAD(&idev->shadows);
	idev->next_dma = SZ_256M;

	idev->pdev = platform_device_register_full(&info);
	if (IS_ERR(idev->pdev)) {
		ret = PTR_ERR(idev->pdev);
		kfree(idev);
		return ERR_PTR(ret);
	}
	dev = &idev->pdev->dev;
	dev_set_drvdata(dev, idev);
	importer_set_coherent(dev, model->coherent);
	if (model->shadow)
		set_dma_ops(dev, &importer_shadow_ops);
	dma_set_max_seg_size(dev, model->max_segment);
	if (!model->dma_mask) {
		/* The one that every platform device gets. */
		dev->dma_mask = NULL;
		return idev;
	}
	/* As a driver would, for what the DMA core decides in this call. */
	ret = dma_set_mask_and_coherent(dev, model->dma_mask);
	if (ret) {
		importer_device_free(idev);
		return ERR_PTR(ret);
	}
	return idev;
}

/* --- steps, called with the session locked --- */

static bool importer_is_dynamic(const struct importer_session *s)
{
	return s->attach && s->attach->importer_ops;
}

/* The mapping of a dynamic attachment may go whenever the exporter tells so. */
static void importer_hold(struct importer_session *s)
{
	if (importer_is_dynamic(s))
		dma_resv_lock(s->dmabuf->resv, NULL);
}

static void importer_unhold(struct importer_session *s)
{
	if (importer_is_dynamic(s))
		dma_resv_unlock(s->dmabuf->resv);
}

static void importer_invalidate_mappings(struct dma_buf_attachment *attach)
{
	struct importer_session *s = attach->importer_priv;

	dma_resv_assert_held(attach->dmabuf->resv);
	s->nr_told++;
	s->moved = true;
	if (!s->lets_go)
		return;
	if (s->sgt)
		dma_buf_unmap_attachment(attach, s->sgt, s->dir);
	s->sgt = NULL;
	schedule_work(&s->let_go);
}

static const struct dma_buf_attach_ops importer_attach_ops = {
	.invalidate_mappings = importer_invalidate_mappings,
};

static int importer_map(struct importer_session *s, enum dma_data_direction dir)
{
	bool dynamic = importer_is_dynamic(s);
	struct sg_table *sgt;
	int ret = 0;

	if (!s->attach)
		return -ENXIO;
	importer_hold(s);
	if (s->sgt) {
		ret = -EBUSY;
		goto unhold;
	}
	if (dynamic)
		sgt = dma_buf_map_attachment(s->attach, dir);
	else
		sgt = importer_dma_buf_map(s->attach, dir);
	if (IS_ERR(sgt)) {
		ret = PTR_ERR(sgt);
		goto unhold;
	}
	s->moved = false;
	s->sgt = sgt;
	s->dir = dir;
unhold:
	importer_unhold(s);
	return ret;
}

/* The sum of the segments. Not kept by MAP, whose cost is the exporter's alone. */
static u64 importer_dma_size(const struct importer_session *s)
{
	struct scatterlist *sg;
	u64 size = 0;
	int i;

	for_each_sgtable_dma_sg(s->sgt, sg, i)
		size += sg_dma_len(sg);
	return size;
}

static int importer_unmap(struct importer_session *s)
{
	int ret = 0;

	importer_hold(s);
	if (!s->sgt)
		ret = -ENXIO;
	else if (importer_is_dynamic(s))
		dma_buf_unmap_attachment(s->attach, s->sgt, s->dir);
	else
		importer_dma_buf_unmap(s->attach, s->sgt, s->dir);
	s->sgt = NULL;
	importer_unhold(s);
	return ret;
}

static int importer_vmap(struct importer_session *s)
{
	struct iosys_map map;
	int ret;

	if (!s->attach)
		return -ENXIO;
	if (iosys_map_is_set(&s->map))
		return -EBUSY;
	ret = importer_dma_buf_vmap(s->dmabuf, &map);
	if (!ret)
		s->map = map;
	return ret;
}

static int importer_vunmap(struct importer_session *s)
{
	if (!iosys_map_is_set(&s->map))
		return -ENXIO;
	importer_dma_buf_vunmap(s->dmabuf, &s->map);
	iosys_map_clear(&s->map);
	return 0;
}

static int importer_begin_cpu(struct importer_session *s,
			      enum dma_data_direction dir)
{
	return s->attach ? dma_buf_begin_cpu_access(s->dmabuf, dir) : -ENXIO;
}

static int importer_end_cpu(struct importer_session *s,
			    enum dma_data_direction dir)
{
	return s->attach ? dma_buf_end_cpu_access(s->dmabuf, dir) : -ENXIO;
}

/* --- ATTACH, DETACH --- */

static int importer_attach(struct importer_session *s, void __user *argp)
{
	struct dma_buf_attachment *attach;
	struct importer_device *idev;
	struct importer_attach arg;
	struct dma_buf *dmabuf;
	int ret;

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.device >= IMPORTER_NR_DEVS || arg.reserved ||
	    arg.flags & ~(IMPORTER_ATTACH_DYNAMIC | IMPORTER_ATTACH_LETS_GO) ||
	    arg.flags == IMPORTER_ATTACH_LETS_GO)
		return -EINVAL;
	dmabuf = dma_buf_get(arg.dmabuf_fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	idev = importer_device_create(arg.device);
	if (IS_ERR(idev)) {
		ret = PTR_ERR(idev);
		goto err_put;
	}

	mutex_lock(&s->lock);
	if (s->attach) {
		ret = -EBUSY;
		goto err_unlock;
	}
	/* No notification can come before the attach. */
	s->nr_told = 0;
	s->lets_go = arg.flags & IMPORTER_ATTACH_LETS_GO;
	attach = dma_buf_dynamic_attach(dmabuf, &idev->pdev->dev,
					arg.flags & IMPORTER_ATTACH_DYNAMIC ?
					&importer_attach_ops : NULL, s);
	if (IS_ERR(attach)) {
		ret = PTR_ERR(attach);
		goto err_unlock;
	}
	s->attach = attach;
	s->idev = idev;
	s->dmabuf = dmabuf;
	mutex_unlock(&s->lock);
	return 0;

err_unlock:
	mutex_unlock(&s->lock);
	importer_device_free(idev);
err_put:
	dma_buf_put(dmabuf);
	return ret;
}

static int importer_detach(struct importer_session *s)
{
	struct importer_device *idev;
	struct dma_buf *dmabuf;
	int ret = 0;

	mutex_lock(&s->lock);
	importer_hold(s);
	if (!s->attach)
		ret = -ENXIO;
	else if (s->sgt || iosys_map_is_set(&s->map))
		ret = -EBUSY;
	importer_unhold(s);
	if (!ret) {
		idev = s->idev;
		dmabuf = s->dmabuf;
		dma_buf_detach(dmabuf, s->attach);
		s->attach = NULL;
	}
	mutex_unlock(&s->lock);
	if (ret)
		return ret;
	importer_device_free(idev);
	dma_buf_put(dmabuf);
	return 0;
}

/* --- READ, WRITE, VREAD, VWRITE --- */

/* The device's access: @len bytes from @offset of the DMA segments in a row. */
static int importer_dma_copy(struct importer_session *s, u64 offset, void *buf,
			     size_t len, bool write)
{
	struct device *dev = &s->idev->pdev->dev;
	struct scatterlist *sg;
	int i, ret;

	for_each_sgtable_dma_sg(s->sgt, sg, i) {
		dma_addr_t dma;
		size_t n;

		if (!len)
			break;
		if (offset >= sg_dma_len(sg)) {
			offset -= sg_dma_len(sg);
			continue;
		}
		dma = sg_dma_address(sg) + offset;
		n = min_t(u64, len, sg_dma_len(sg) - offset);
		if (importer_models[s->idev->nr].shadow)
			ret = importer_shadow_copy(s->idev, dma, buf, n, write);
		else
			ret = importer_phys_copy(dma_to_phys(dev, dma), buf, n,
						 write);
		if (ret)
			return ret;
		offset = 0;
		buf += n;
		len -= n;
	}
	return 0;
}

/* One piece of @t, @len bytes from @done on. */
static int importer_access_held(struct importer_session *s,
				const struct importer_transfer *t, u64 done,
				void *buf, size_t len, bool kernel, bool write)
{
	u64 size;

	if (kernel ? !iosys_map_is_set(&s->map) : !s->sgt)
		return -ENXIO;
	size = kernel ? s->dmabuf->size : importer_dma_size(s);
	if (t->offset > size || t->length > size - t->offset)
		return -EINVAL;
	if (!kernel) {
		if (device_iommu_mapped(&s->idev->pdev->dev))
			return -EOPNOTSUPP;
		if (s->moved)
			return -ESTALE;
		return importer_dma_copy(s, t->offset + done, buf, len, write);
	}
	if (write)
		iosys_map_memcpy_to(&s->map, t->offset + done, buf, len);
	else
		iosys_map_memcpy_from(buf, &s->map, t->offset + done, len);
	return 0;
}

static int importer_access(struct importer_session *s,
			   const struct importer_transfer *t, u64 done,
			   void *buf, size_t len, bool kernel, bool write)
{
	int ret;

	importer_hold(s);
	ret = importer_access_held(s, t, done, buf, len, kernel, write);
	importer_unhold(s);
	return ret;
}

/* Bytes moved per turn of the session's lock. */
#define IMPORTER_CHUNK SZ_1M

static int importer_transfer(struct importer_session *s, void __user *argp,
			     bool kernel, bool write)
{
	struct importer_transfer t;
	void __user *user;
	u64 done = 0;
	size_t len;
	void *buf;
	int ret;

	if (copy_from_user(&t, argp, sizeof(t)))
		return -EFAULT;
	user = u64_to_user_ptr(t.user_ptr);
	buf = kvmalloc(clamp_t(u64, t.length, 1, IMPORTER_CHUNK), GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	do {
		len = min_t(u64, t.length - done, IMPORTER_CHUNK);
		ret = -EFAULT;
		if (write && copy_from_user(buf, user + done, len))
			break;
		mutex_lock(&s->lock);
		ret = importer_access(s, &t, done, buf, len, kernel, write);
		mutex_unlock(&s->lock);
		if (ret)
			break;
		ret = -EFAULT;
		if (!write && copy_to_user(user + done, buf, len))
			break;
		ret = fatal_signal_pending(current) ? -EINTR : 0;
		done += len;
		cond_resched();
	} while (!ret && done < t.length);
	kvfree(buf);
	return ret;
}

/* --- EDIT --- */

static int importer_edit_list(struct sg_table *sgt, const struct importer_edit *arg)
{
	struct scatterlist *sg, *last = NULL;
	u64 left;
	int i;

	if (!arg->nents || arg->nents > sgt->nents)
		return -EINVAL;
	for_each_sg(sgt->sgl, sg, arg->nents, i)
		last = sg;
	left = sg_dma_len(last);
	if (arg->skip >= sg_dma_len(sgt->sgl) || arg->trim >= left)
		return -EINVAL;
	if (last == sgt->sgl && arg->skip + arg->trim >= left)
		return -EINVAL;
	sg_dma_address(sgt->sgl) += arg->skip;
	sg_dma_len(sgt->sgl) -= arg->skip;
	sg_dma_len(last) -= arg->trim;
	sgt->nents = arg->nents;
	if (arg->flags & IMPORTER_EDIT_MARK_END)
		sg_mark_end(last);
	return 0;
}

static int importer_edit(struct importer_session *s, void __user *argp)
{
	struct importer_edit arg;
	int ret = -ENXIO;

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.flags & ~IMPORTER_EDIT_MARK_END)
		return -EINVAL;
	mutex_lock(&s->lock);
	if (s->sgt && arg.flags && IS_ENABLED(CONFIG_DMABUF_DEBUG))
		ret = -EOPNOTSUPP;
	else if (s->sgt)
		ret = importer_edit_list(s->sgt, &arg);
	mutex_unlock(&s->lock);
	return ret;
}

/* --- INFO --- */

/* Not known if the core has disguised the pages, or entries were merged. */
static bool importer_knows_pages(const struct sg_table *sgt)
{
	return !IS_ENABLED(CONFIG_DMABUF_DEBUG) &&
	       sgt->nents == sgt->orig_nents;
}

/* Return true if the device sees the segment through a copy. */
static bool importer_is_bounced(struct importer_device *idev,
				struct scatterlist *sg)
{
	dma_addr_t dma = sg_dma_address(sg);

	if (importer_models[idev->nr].shadow)
		return importer_shadow_is_copy(idev, dma, sg_dma_len(sg));
	return sg_page(sg) && dma_to_phys(&idev->pdev->dev, dma) != sg_phys(sg);
}

static void importer_info_map(struct importer_session *s,
			      struct importer_info *info)
{
	bool pages = importer_knows_pages(s->sgt);
	struct scatterlist *sg;
	bool contiguous = true;
	unsigned int i;
	u64 end = 0;

	if (importer_models[s->idev->nr].shadow ||
	    (pages && !(info->flags & IMPORTER_INFO_IOMMU)))
		info->flags |= IMPORTER_INFO_BOUNCED;
	info->direction = s->dir;
	info->nents = s->sgt->nents;
	info->orig_nents = s->sgt->orig_nents;
	info->dma_size = importer_dma_size(s);
	for_each_sgtable_dma_sg(s->sgt, sg, i) {
		u64 dma = sg_dma_address(sg);
		u64 len = sg_dma_len(sg);

		if (i && dma != end)
			contiguous = false;
		if (contiguous)
			info->dma_contiguous += len;
		end = dma + len;
		info->address_bits = max_t(u32, info->address_bits,
					   fls64(end - 1));
		if (!i || len < info->min_segment)
			info->min_segment = len;
		if (len > info->max_segment)
			info->max_segment = len;
		if (info->flags & IMPORTER_INFO_BOUNCED &&
		    importer_is_bounced(s->idev, sg))
			info->nr_bounced++;
		if (pages && !sg_page(sg))
			info->flags |= IMPORTER_INFO_PAGELESS;
	}
}

static void importer_info_device(struct importer_device *idev,
				 struct importer_info *info)
{
	struct device *dev = &idev->pdev->dev;
	size_t max_mapping = dma_max_mapping_size(dev);

	info->device = idev->nr;
	info->max_mapping_size = max_mapping == SIZE_MAX ? U64_MAX : max_mapping;
	info->max_segment_size = dma_get_max_seg_size(dev);
	if (device_iommu_mapped(dev))
		info->flags |= IMPORTER_INFO_IOMMU;

	mutex_lock(&idev->shadow_lock);
	info->nr_sync_for_device = idev->for_device.calls;
	info->sync_for_device_bytes = idev->for_device.bytes;
	info->nr_sync_for_cpu = idev->for_cpu.calls;
	info->sync_for_cpu_bytes = idev->for_cpu.bytes;
	info->nr_mapped = idev->nr_mapped;
	info->nr_errors = idev->nr_errors;
	mutex_unlock(&idev->shadow_lock);
}

static int importer_info(struct importer_session *s, void __user *argp)
{
	struct importer_info info = {};

	mutex_lock(&s->lock);
	if (s->attach) {
		info.held |= IMPORTER_HELD_ATTACH;
		info.size = s->dmabuf->size;
		importer_info_device(s->idev, &info);
	}
	importer_hold(s);
	info.nr_told = s->nr_told;
	if (s->nr_told)
		info.flags |= IMPORTER_INFO_TOLD;
	if (s->sgt) {
		info.held |= IMPORTER_HELD_MAP;
		importer_info_map(s, &info);
	}
	importer_unhold(s);
	if (iosys_map_is_set(&s->map)) {
		info.held |= IMPORTER_HELD_VMAP;
		if (s->map.is_iomem)
			info.flags |= IMPORTER_INFO_VMAP_IOMEM;
	}
	mutex_unlock(&s->lock);
	return copy_to_user(argp, &info, sizeof(info)) ? -EFAULT : 0;
}

/* --- CACHE --- */

#if defined(CONFIG_X86)
#define IMPORTER_PTE_CACHE	_PAGE_CACHE_MASK
#elif defined(CONFIG_ARM64)
#define IMPORTER_PTE_CACHE	PTE_ATTRINDX_MASK
#elif defined(CONFIG_ARM)
#define IMPORTER_PTE_CACHE	L_PTE_MT_MASK
#endif

static bool importer_same_cache(pgprot_t a, pgprot_t b)
{
	return !((pgprot_val(a) ^ pgprot_val(b)) & IMPORTER_PTE_CACHE);
}

static u32 importer_cache_of_pte(pgprot_t pte)
{
	if (importer_same_cache(pte, PAGE_KERNEL))
		return IMPORTER_CACHE_CACHED;
	if (importer_same_cache(pte, pgprot_writecombine(PAGE_KERNEL)))
		return IMPORTER_CACHE_WRITECOMBINE;
	if (importer_same_cache(pte, pgprot_noncached(PAGE_KERNEL)))
		return IMPORTER_CACHE_UNCACHED;
	return IMPORTER_CACHE_OTHER;
}

/* x86 has a function that looks into the kernel's page tables. */
#if defined(CONFIG_X86)
static int importer_kernel_cache(const void *vaddr, u32 *cache)
{
	unsigned int level;
	pte_t *pte = lookup_address((unsigned long)vaddr, &level);

	pgprot_t prot;

	if (!pte)
		return -EFAULT;
	prot = __pgprot(pte_val(*pte));
	/* Entries for large pages have it in other bits. */
	if (level != PG_LEVEL_4K)
		prot = pgprot_large_2_4k(prot);
	*cache = importer_cache_of_pte(prot);
	return 0;
}
#elif defined(CONFIG_ARM64) || defined(CONFIG_ARM_LPAE)
static int importer_kernel_cache(const void *vaddr, u32 *cache)
{
	u64 par = translate(vaddr);

	if (par & TRANSLATE_FAILED)
		return -EFAULT;
	switch (par >> TRANSLATE_CACHE_SHIFT) {
	case 0xff:
		*cache = IMPORTER_CACHE_CACHED;
		break;
	case 0x44:
		*cache = IMPORTER_CACHE_WRITECOMBINE;
		break;
	case 0x00:
		*cache = IMPORTER_CACHE_UNCACHED;
		break;
	default:
		*cache = IMPORTER_CACHE_OTHER;
	}
	return 0;
}
#else
static int importer_kernel_cache(const void *vaddr, u32 *cache)
{
	return -EOPNOTSUPP;
}
#endif

static int importer_user_cache(unsigned long addr, u32 *cache)
{
	pgprot_t pte;
	int ret;

	mmap_read_lock(current->mm);
	ret = importer_user_pte(addr, &pte);
	mmap_read_unlock(current->mm);
	if (ret)
		return -EFAULT;
	*cache = importer_cache_of_pte(pte);
	return 0;
}

static int importer_vmap_cache(struct importer_session *s, u32 *cache)
{
	int ret = -ENXIO;

	mutex_lock(&s->lock);
	if (iosys_map_is_set(&s->map))
		ret = importer_kernel_cache(s->map.vaddr, cache);
	mutex_unlock(&s->lock);
	return ret;
}

static int importer_cache(struct importer_session *s, void __user *argp)
{
	struct importer_cache arg;
	int ret;

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.flags & ~IMPORTER_CACHE_OF_VMAP)
		return -EINVAL;
	if (arg.flags & IMPORTER_CACHE_OF_VMAP)
		ret = importer_vmap_cache(s, &arg.cache);
	else
		ret = importer_user_cache(arg.address, &arg.cache);
	if (ret)
		return ret;
	return copy_to_user(argp, &arg, sizeof(arg)) ? -EFAULT : 0;
}

/* --- the device node --- */

typedef int (*importer_step_fn)(struct importer_session *s);
typedef int (*importer_dir_step_fn)(struct importer_session *s,
				    enum dma_data_direction dir);

static int importer_step(struct importer_session *s, importer_step_fn step)
{
	int ret;

	mutex_lock(&s->lock);
	ret = step(s);
	mutex_unlock(&s->lock);
	return ret;
}

static int importer_dir_step(struct importer_session *s, void __user *argp,
			     importer_dir_step_fn step)
{
	struct importer_direction arg;
	int ret;

	BUILD_BUG_ON(IMPORTER_BIDIRECTIONAL != DMA_BIDIRECTIONAL);
	BUILD_BUG_ON(IMPORTER_TO_DEVICE != DMA_TO_DEVICE);
	BUILD_BUG_ON(IMPORTER_FROM_DEVICE != DMA_FROM_DEVICE);

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.direction > IMPORTER_FROM_DEVICE || arg.reserved)
		return -EINVAL;
	mutex_lock(&s->lock);
	ret = step(s, arg.direction);
	mutex_unlock(&s->lock);
	return ret;
}

/* --- an address space that takes long to end --- */

#ifdef CONFIG_MMU_NOTIFIER
#define HOLD_SECONDS	200

static bool importer_invalidate(struct mmu_interval_notifier *notifier,
				const struct mmu_notifier_range *range, unsigned long seq)
{
	struct importer_session *s = container_of(notifier, struct importer_session, notifier);

	mmu_interval_set_seq(notifier, seq);
	if (range->event == MMU_NOTIFY_UNMAP && !range->start && range->end == ULONG_MAX) {
		complete_all(&s->ending);
		/* A test that is killed does not ask for the end. */
		if (!wait_for_completion_timeout(&s->may_end, HOLD_SECONDS * HZ))
			WRITE_ONCE(s->held_too_long, true);
	}
	return true;
}

static const struct mmu_interval_notifier_ops importer_notifier_ops = {
	.invalidate = importer_invalidate,
};

/* Not under the session's lock, which importer_mmap() takes inside of the mmap_lock. */
static int importer_hold_mm(struct importer_session *s)
{
	int ret;

	if (cmpxchg(&s->mm, NULL, current->mm))
		return -EBUSY;
	ret = mmu_interval_notifier_insert(&s->notifier, current->mm, 0, ULONG_MAX,
					   &importer_notifier_ops);
	if (ret)
		s->mm = NULL;
	else
		mmgrab(s->mm);
	return ret;
}

static void importer_drop_mm(struct importer_session *s)
{
	if (!s->mm)
		return;
	mmu_interval_notifier_remove(&s->notifier);
	mmdrop(s->mm);
}
#else
static int importer_hold_mm(struct importer_session *s)
{
	return -EOPNOTSUPP;
}

static void importer_drop_mm(struct importer_session *s)
{
}
#endif

/* Not under the lock: another process has to make it happen. */
static int importer_await_end(struct importer_session *s)
{
	return wait_for_completion_interruptible(&s->ending) ? -EINTR : 0;
}

static long importer_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	struct importer_session *s = file->private_data;
	void __user *argp = (void __user *)arg;

	switch (cmd) {
	case IMPORTER_IOC_ATTACH:
		return importer_attach(s, argp);
	case IMPORTER_IOC_DETACH:
		return importer_detach(s);
	case IMPORTER_IOC_MAP:
		return importer_dir_step(s, argp, importer_map);
	case IMPORTER_IOC_UNMAP:
		return importer_step(s, importer_unmap);
	case IMPORTER_IOC_READ:
		return importer_transfer(s, argp, false, false);
	case IMPORTER_IOC_WRITE:
		return importer_transfer(s, argp, false, true);
	case IMPORTER_IOC_VMAP:
		return importer_step(s, importer_vmap);
	case IMPORTER_IOC_VUNMAP:
		return importer_step(s, importer_vunmap);
	case IMPORTER_IOC_VREAD:
		return importer_transfer(s, argp, true, false);
	case IMPORTER_IOC_VWRITE:
		return importer_transfer(s, argp, true, true);
	case IMPORTER_IOC_BEGIN_CPU:
		return importer_dir_step(s, argp, importer_begin_cpu);
	case IMPORTER_IOC_END_CPU:
		return importer_dir_step(s, argp, importer_end_cpu);
	case IMPORTER_IOC_INFO:
		return importer_info(s, argp);
	case IMPORTER_IOC_CACHE:
		return importer_cache(s, argp);
	case IMPORTER_IOC_EDIT:
		return importer_edit(s, argp);
	case IMPORTER_IOC_HOLD_MM:
		return importer_hold_mm(s);
	case IMPORTER_IOC_AWAIT_END:
		return importer_await_end(s);
	case IMPORTER_IOC_LET_END:
		complete_all(&s->may_end);
		return READ_ONCE(s->held_too_long) ? -ETIMEDOUT : 0;
	default:
		return -ENOTTY;
	}
}

static int importer_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct importer_session *s = file->private_data;
	int ret = -ENXIO;

	mutex_lock(&s->lock);
	if (s->attach)
		ret = dma_buf_mmap(s->dmabuf, vma, vma->vm_pgoff);
	mutex_unlock(&s->lock);
	return ret;
}

static void importer_let_go(struct work_struct *work)
{
	struct importer_session *s = container_of(work, struct importer_session, let_go);

	importer_step(s, importer_vunmap);
	importer_step(s, importer_unmap);
	importer_detach(s);
}

static int importer_open(struct inode *inode, struct file *file)
{
	struct importer_session *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return -ENOMEM;
	mutex_init(&s->lock);
	INIT_WORK(&s->let_go, importer_let_go);
	init_completion(&s->ending);
	init_completion(&s->may_end);
	file->private_data = s;
	return nonseekable_open(inode, file);
}

static int importer_release(struct inode *inode, struct file *file)
{
	struct importer_session *s = file->private_data;

	/* Steps that are not in effect return -ENXIO. */
	importer_step(s, importer_vunmap);
	importer_step(s, importer_unmap);
	importer_detach(s);
	/* No notification can come after the detach. */
	cancel_work_sync(&s->let_go);
	complete_all(&s->may_end);
	importer_drop_mm(s);
	kfree(s);
	return 0;
}

static const struct file_operations importer_fops = {
	.owner = THIS_MODULE,
	.open = importer_open,
	.release = importer_release,
	.unlocked_ioctl = importer_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = importer_mmap,
};

static struct miscdevice importer_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmemexp-importer",
	.fops = &importer_fops,
	.mode = 0600,
};
module_misc_device(importer_misc);

MODULE_DESCRIPTION("dma-buf importer for tests");
MODULE_LICENSE("GPL");

// SPDX-License-Identifier: GPL-2.0
/*
 * Makes dma-bufs of single pages, for tests, whatever those pages are a part of. Their
 * mappings are filled by faults with the pages themselves, so that they can be pinned, and
 * mremap() may grow them: as those of udmabuf before Linux 6.12, which Debian's kernels of
 * that time do not have.
 */

#include <linux/dma-buf.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "vmemexp_parts.h"

struct parts {
	unsigned long nr;
	struct page *pages[];
};

static vm_fault_t parts_vm_fault(struct vm_fault *vmf)
{
	struct parts *parts = vmf->vma->vm_private_data;

	if (vmf->pgoff >= parts->nr)
		return VM_FAULT_SIGBUS;
	vmf->page = parts->pages[vmf->pgoff];
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct parts_vm_ops = {
	.fault = parts_vm_fault,
};

static int parts_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	vma->vm_private_data = dmabuf->priv;
	vma->vm_ops = &parts_vm_ops;
	return 0;
}

/* No device has anything to do with it. */
static struct sg_table *parts_map(struct dma_buf_attachment *attach, enum dma_data_direction dir)
{
	return ERR_PTR(-EIO);
}

static void parts_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt,
			enum dma_data_direction dir)
{
}

static void parts_free(struct parts *parts)
{
	unpin_user_pages(parts->pages, parts->nr);
	kfree(parts);
}

static void parts_release(struct dma_buf *dmabuf)
{
	parts_free(dmabuf->priv);
}

static const struct dma_buf_ops parts_dma_buf_ops = {
	.map_dma_buf = parts_map,
	.unmap_dma_buf = parts_unmap,
	.mmap = parts_mmap,
	.release = parts_release,
};

static int parts_export(struct parts *parts)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dmabuf;
	int fd;

	info.ops = &parts_dma_buf_ops;
	info.size = parts->nr << PAGE_SHIFT;
	info.flags = O_RDWR;
	info.priv = parts;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		parts_free(parts);
		return PTR_ERR(dmabuf);
	}
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(dmabuf);
	return fd;
}

static long parts_ioctl(struct file *file, unsigned int request, unsigned long arg)
{
	struct parts_create cmd;
	struct parts *parts;
	int nr;

	if (request != PARTS_IOC_CREATE)
		return -ENOTTY;
	if (copy_from_user(&cmd, (void __user *)arg, sizeof(cmd)))
		return -EFAULT;
	if (!PAGE_ALIGNED(cmd.vaddr) || !cmd.pages || cmd.pages > PARTS_MAX)
		return -EINVAL;
	parts = kzalloc(struct_size(parts, pages, cmd.pages), GFP_KERNEL);
	if (!parts)
		return -ENOMEM;
	nr = pin_user_pages_fast(cmd.vaddr, cmd.pages, FOLL_WRITE | FOLL_LONGTERM, parts->pages);
	parts->nr = max(nr, 0);
	if (nr != cmd.pages) {
		parts_free(parts);
		return -EFAULT;
	}
	cmd.fd = parts_export(parts);
	if (cmd.fd < 0)
		return cmd.fd;
	return copy_to_user((void __user *)arg, &cmd, sizeof(cmd)) ? -EFAULT : 0;
}

static const struct file_operations parts_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = parts_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice parts_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmemexp-parts",
	.fops = &parts_fops,
	.mode = 0600,
};

module_misc_device(parts_misc);

/* MODULE_IMPORT_NS(), whose argument has been a string since cdd30ebb1b9f (v6.13). */
MODULE_INFO(import_ns, "DMA_BUF");
MODULE_DESCRIPTION("dma-bufs of single pages for tests");
MODULE_LICENSE("GPL");

// SPDX-License-Identifier: GPL-2.0
/*
 * A dma-buf importer with a real DMA engine, for tests: the driver of QEMU's PCI
 * device "edu" (docs/specs/edu there), /dev/vmemexp-edu. It knows nothing of any
 * exporter, and of the memory nothing but the DMA addresses it is given.
 * vmemexp_edu.h documents its ioctls.
 *
 * Objects: a device (struct edu_device) is there while PCI has it. An open file is
 * a session (struct edu_session); ATTACH makes it the user of one device and
 * attaches that to a dma-buf, until DETACH.
 *
 * The device has 4 KiB of memory that the CPU cannot reach. Data from and to user space goes
 * through the session's staging memory, by DMA as well. That is mapped for no longer than such a
 * transfer takes, so that there is nothing but the dma-buf that the device could hit by mistake.
 *
 * Locks, outermost first:
 *	edu_session.lock	one step at a time
 *	edu_lock		who uses which device
 * A session has no mmap(), so user memory may be touched under its lock.
 */

#include <linux/capability.h>
#include <linux/dma-buf.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iommu.h>
#include <linux/iopoll.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/wait.h>

#include "vmemexp_edu.h"

/* --- older kernels: the code below is written for the newest --- */

/* MODULE_IMPORT_NS(), whose argument has been a string since cdd30ebb1b9f (v6.13). */
MODULE_INFO(import_ns, "DMA_BUF");

/* 19d6634d8789 (v6.2) made importers map under the reservation lock. */
#ifndef VMEMEXP_HAVE_DMA_BUF_MAP_UNLOCKED
#define edu_dma_buf_map dma_buf_map_attachment
#define edu_dma_buf_unmap dma_buf_unmap_attachment
#else
#define edu_dma_buf_map dma_buf_map_attachment_unlocked
#define edu_dma_buf_unmap dma_buf_unmap_attachment_unlocked
#endif

/* --- the device --- */

/*
 * Registers. Those of the DMA engine have 64 bits, of which a 32-bit CPU reaches
 * the lower half only: the device ignores writes to the upper one.
 */
#define EDU_REG_SOURCE		0x80
#define EDU_REG_DESTINATION	0x88
#define EDU_REG_COUNT		0x90
#define EDU_REG_COMMAND		0x98

#define EDU_COMMAND_RUN		0x1
#define EDU_COMMAND_TO_MEMORY	0x2

/* The device's own memory, as its DMA engine sees it. */
#define EDU_DEVICE_MEMORY	0x40000

#define EDU_MAX_ADDRESS_BITS	BITS_PER_LONG

/* It says 100 ms. The emulator may have other things to do. */
#define EDU_POLL_US		2000
#define EDU_TIMEOUT_US		(60 * USEC_PER_SEC)

struct edu_session;

struct edu_device {
	struct pci_dev *pdev;
	void __iomem *regs;
	struct edu_session *user;	/* protected by edu_lock */
};

static struct edu_device *edu_devices[EDU_MAX_DEVICES];	/* protected by edu_lock */
static DEFINE_MUTEX(edu_lock);
static DECLARE_WAIT_QUEUE_HEAD(edu_unused);

/* One transfer between the memory at @addr and the device's own. */
static int edu_dma(struct edu_device *edu, dma_addr_t addr, size_t length,
		   bool to_memory)
{
	u32 command = EDU_COMMAND_RUN | (to_memory ? EDU_COMMAND_TO_MEMORY : 0);
	int ret;

	if (!edu->pdev->is_busmaster)
		return -EIO;
	writeq(to_memory ? EDU_DEVICE_MEMORY : addr, edu->regs + EDU_REG_SOURCE);
	writeq(to_memory ? addr : EDU_DEVICE_MEMORY,
	       edu->regs + EDU_REG_DESTINATION);
	writel(length, edu->regs + EDU_REG_COUNT);
	writel(command, edu->regs + EDU_REG_COMMAND);
	ret = readl_poll_timeout(edu->regs + EDU_REG_COMMAND, command,
				 !(command & EDU_COMMAND_RUN), EDU_POLL_US,
				 EDU_TIMEOUT_US);
	/* Whenever it comes to it, nothing must be written any more. */
	if (ret)
		pci_clear_master(edu->pdev);
	return ret;
}

#ifdef CONFIG_IOMMU_API
static bool edu_is_translated(struct edu_device *edu)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(&edu->pdev->dev);

	return domain && domain->type != IOMMU_DOMAIN_IDENTITY;
}
#else
static bool edu_is_translated(struct edu_device *edu)
{
	return false;
}
#endif

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu_device *edu = kzalloc(sizeof(*edu), GFP_KERNEL);
	int i, ret;

	if (!edu)
		return -ENOMEM;
	edu->pdev = pdev;
	ret = pci_enable_device(pdev);
	if (ret)
		goto err_free;
	ret = pci_request_regions(pdev, KBUILD_MODNAME);
	if (ret)
		goto err_disable;
	ret = -ENOMEM;
	edu->regs = pci_iomap(pdev, 0, 0);
	if (!edu->regs)
		goto err_release;
	/* A chunk lies in one segment, however long that is. */
	dma_set_max_seg_size(&pdev->dev, UINT_MAX);
	pci_set_drvdata(pdev, edu);

	mutex_lock(&edu_lock);
	for (i = 0; i < EDU_MAX_DEVICES && edu_devices[i]; i++)
		;
	if (i < EDU_MAX_DEVICES)
		edu_devices[i] = edu;
	mutex_unlock(&edu_lock);
	if (i < EDU_MAX_DEVICES)
		return 0;

	ret = -ENODEV;
	pci_iounmap(pdev, edu->regs);
err_release:
	pci_release_regions(pdev);
err_disable:
	pci_disable_device(pdev);
err_free:
	kfree(edu);
	return ret;
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu_device *edu = pci_get_drvdata(pdev);
	int i;

	mutex_lock(&edu_lock);
	for (i = 0; i < EDU_MAX_DEVICES; i++)
		if (edu_devices[i] == edu)
			edu_devices[i] = NULL;
	mutex_unlock(&edu_lock);
	wait_event(edu_unused, !READ_ONCE(edu->user));

	pci_iounmap(pdev, edu->regs);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	kfree(edu);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = KBUILD_MODNAME,
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

/* --- sessions; the steps are called with the session locked --- */

struct edu_session {
	struct mutex lock;		/* protects all that follows */
	void *staging;
	struct edu_device *edu;		/* NULL while not attached */
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;		/* NULL while not mapped */
	enum dma_data_direction dir;
	u64 dma_size;
	bool was_mapped;
	dma_addr_t first_addr;		/* of the mapping, or the last one */
};

static int edu_get_device(struct edu_session *s, u32 nr)
{
	int ret = 0;

	mutex_lock(&edu_lock);
	if (nr >= EDU_MAX_DEVICES || !edu_devices[nr]) {
		ret = -ENXIO;
	} else if (s->edu || edu_devices[nr]->user) {
		ret = -EBUSY;
	} else {
		s->edu = edu_devices[nr];
		s->edu->user = s;
	}
	mutex_unlock(&edu_lock);
	return ret;
}

static void edu_put_device(struct edu_session *s)
{
	mutex_lock(&edu_lock);
	WRITE_ONCE(s->edu->user, NULL);
	wake_up(&edu_unused);
	mutex_unlock(&edu_lock);
	s->edu = NULL;
}

static int edu_attach(struct edu_session *s, const struct edu_attach *arg)
{
	unsigned int bits = arg->address_bits ?: EDU_MAX_ADDRESS_BITS;
	struct device *dev;
	int ret;

	ret = edu_get_device(s, arg->device);
	if (ret)
		return ret;
	dev = &s->edu->pdev->dev;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(bits));
	if (ret)
		goto err_put_device;
	s->dmabuf = dma_buf_get(arg->dmabuf_fd);
	ret = PTR_ERR_OR_ZERO(s->dmabuf);
	if (ret)
		goto err_put_device;
	s->attach = dma_buf_attach(s->dmabuf, dev);
	ret = PTR_ERR_OR_ZERO(s->attach);
	if (ret)
		goto err_put_dmabuf;
	pci_set_master(s->edu->pdev);
	s->was_mapped = false;
	return 0;

err_put_dmabuf:
	dma_buf_put(s->dmabuf);
err_put_device:
	edu_put_device(s);
	return ret;
}

static int edu_detach(struct edu_session *s)
{
	if (!s->edu)
		return -ENXIO;
	if (s->sgt)
		return -EBUSY;
	pci_clear_master(s->edu->pdev);
	dma_buf_detach(s->dmabuf, s->attach);
	dma_buf_put(s->dmabuf);
	edu_put_device(s);
	return 0;
}

static int edu_map(struct edu_session *s, enum dma_data_direction dir)
{
	struct scatterlist *sg;
	struct sg_table *sgt;
	int i;

	if (!s->edu)
		return -ENXIO;
	if (s->sgt)
		return -EBUSY;
	sgt = edu_dma_buf_map(s->attach, dir);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	s->sgt = sgt;
	s->dir = dir;
	s->dma_size = 0;
	for_each_sgtable_dma_sg(sgt, sg, i)
		s->dma_size += sg_dma_len(sg);
	s->was_mapped = true;
	s->first_addr = sg_dma_address(sgt->sgl);
	return 0;
}

static int edu_unmap(struct edu_session *s)
{
	if (!s->sgt)
		return -ENXIO;
	edu_dma_buf_unmap(s->attach, s->sgt, s->dir);
	s->sgt = NULL;
	return 0;
}

/* --- transfers --- */

static int edu_check_transfer(const struct edu_session *s,
			      const struct edu_transfer *t, bool write)
{
	if (t->flags & EDU_UNCHECKED) {
		if (!s->edu || !s->was_mapped)
			return -ENXIO;
		if (!edu_is_translated(s->edu) || !capable(CAP_SYS_RAWIO))
			return -EPERM;
		return 0;
	}
	if (!s->sgt)
		return -ENXIO;
	if (t->offset > s->dma_size || t->length > s->dma_size - t->offset)
		return -EINVAL;
	if (s->dir == (write ? DMA_TO_DEVICE : DMA_FROM_DEVICE))
		return -EACCES;
	return 0;
}

/* Finds the DMA address of @offset; returns the bytes from there in its segment. */
static size_t edu_find(const struct edu_session *s, u64 offset, dma_addr_t *addr)
{
	struct scatterlist *sg;
	int i;

	for_each_sgtable_dma_sg(s->sgt, sg, i) {
		if (offset < sg_dma_len(sg)) {
			*addr = sg_dma_address(sg) + offset;
			return sg_dma_len(sg) - offset;
		}
		offset -= sg_dma_len(sg);
	}
	return 0;
}

/* Between the staging memory and the device's own. */
static int edu_dma_staging(struct edu_session *s, size_t length, bool to_memory)
{
	enum dma_data_direction dir = to_memory ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
	struct device *dev = &s->edu->pdev->dev;
	dma_addr_t addr = dma_map_single(dev, s->staging, length, dir);
	int ret;

	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	ret = edu_dma(s->edu, addr, length, to_memory);
	dma_unmap_single(dev, addr, length, dir);
	return ret;
}

static int edu_transfer_chunk(struct edu_session *s, dma_addr_t addr,
			      size_t length, void __user *user, bool write)
{
	int ret;

	if (write) {
		if (copy_from_user(s->staging, user, length))
			return -EFAULT;
		return edu_dma_staging(s, length, false) ?:
		       edu_dma(s->edu, addr, length, true);
	}
	ret = edu_dma(s->edu, addr, length, false) ?:
	      edu_dma_staging(s, length, true);
	if (ret)
		return ret;
	return copy_to_user(user, s->staging, length) ? -EFAULT : 0;
}

static int edu_transfer(struct edu_session *s, const struct edu_transfer *t,
			bool write)
{
	void __user *user = u64_to_user_ptr(t->user_ptr);
	size_t chunk, room;
	dma_addr_t addr;
	u64 done;
	int ret;

	ret = edu_check_transfer(s, t, write);
	for (done = 0; !ret && done < t->length; done += chunk) {
		chunk = min_t(u64, t->length - done, EDU_CHUNK);
		if (t->flags & EDU_UNCHECKED) {
			addr = s->first_addr + t->offset + done;
		} else {
			room = edu_find(s, t->offset + done, &addr);
			chunk = min(chunk, room);
		}
		ret = edu_transfer_chunk(s, addr, chunk, user + done, write);
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
	}
	return ret;
}

static void edu_describe(struct edu_session *s, struct edu_info *info)
{
	struct device *dev = &s->edu->pdev->dev;
	struct scatterlist *sg;
	int i;

	if (edu_is_translated(s->edu))
		info->flags |= EDU_INFO_IOMMU;
	if (!dev_is_dma_coherent(dev))
		info->flags |= EDU_INFO_NONCOHERENT;
	info->address_bits = fls64(dma_get_mask(dev));
	if (!s->sgt)
		return;
	info->flags |= EDU_INFO_MAPPED;
	info->nents = s->sgt->nents;
	info->dma_size = s->dma_size;
	for_each_sgtable_dma_sg(s->sgt, sg, i)
		info->max_segment = max_t(u64, info->max_segment, sg_dma_len(sg));
}

/* --- the device node --- */

static long edu_ioctl_attach(struct edu_session *s, void __user *argp)
{
	struct edu_attach arg;

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.address_bits > EDU_MAX_ADDRESS_BITS || arg.reserved)
		return -EINVAL;
	return edu_attach(s, &arg);
}

static long edu_ioctl_map(struct edu_session *s, void __user *argp)
{
	struct edu_direction arg;

	BUILD_BUG_ON(EDU_BIDIRECTIONAL != DMA_BIDIRECTIONAL);
	BUILD_BUG_ON(EDU_TO_DEVICE != DMA_TO_DEVICE);
	BUILD_BUG_ON(EDU_FROM_DEVICE != DMA_FROM_DEVICE);

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.direction > EDU_FROM_DEVICE || arg.reserved)
		return -EINVAL;
	return edu_map(s, arg.direction);
}

static long edu_ioctl_transfer(struct edu_session *s, void __user *argp,
			       bool write)
{
	struct edu_transfer arg;

	if (copy_from_user(&arg, argp, sizeof(arg)))
		return -EFAULT;
	if (arg.flags & ~EDU_UNCHECKED || arg.reserved)
		return -EINVAL;
	return edu_transfer(s, &arg, write);
}

static long edu_ioctl_info(struct edu_session *s, void __user *argp)
{
	struct edu_info info = {};

	if (!s->edu)
		return -ENXIO;
	edu_describe(s, &info);
	return copy_to_user(argp, &info, sizeof(info)) ? -EFAULT : 0;
}

static long edu_ioctl_locked(struct edu_session *s, unsigned int cmd,
			     void __user *argp)
{
	switch (cmd) {
	case EDU_IOC_ATTACH:
		return edu_ioctl_attach(s, argp);
	case EDU_IOC_DETACH:
		return edu_detach(s);
	case EDU_IOC_MAP:
		return edu_ioctl_map(s, argp);
	case EDU_IOC_UNMAP:
		return edu_unmap(s);
	case EDU_IOC_READ:
		return edu_ioctl_transfer(s, argp, false);
	case EDU_IOC_WRITE:
		return edu_ioctl_transfer(s, argp, true);
	case EDU_IOC_INFO:
		return edu_ioctl_info(s, argp);
	default:
		return -ENOTTY;
	}
}

static long edu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct edu_session *s = file->private_data;
	long ret;

	mutex_lock(&s->lock);
	ret = edu_ioctl_locked(s, cmd, (void __user *)arg);
	mutex_unlock(&s->lock);
	return ret;
}

static int edu_open(struct inode *inode, struct file *file)
{
	struct edu_session *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return -ENOMEM;
	s->staging = kmalloc(EDU_CHUNK, GFP_KERNEL);
	if (!s->staging) {
		kfree(s);
		return -ENOMEM;
	}
	mutex_init(&s->lock);
	file->private_data = s;
	return nonseekable_open(inode, file);
}

static int edu_release(struct inode *inode, struct file *file)
{
	struct edu_session *s = file->private_data;

	/* Steps that are not in effect return -ENXIO. */
	edu_unmap(s);
	edu_detach(s);
	kfree(s->staging);
	kfree(s);
	return 0;
}

static const struct file_operations edu_fops = {
	.owner = THIS_MODULE,
	.open = edu_open,
	.release = edu_release,
	.unlocked_ioctl = edu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice edu_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmemexp-edu",
	.fops = &edu_fops,
	.mode = 0600,
};

static int __init edu_init(void)
{
	int ret = pci_register_driver(&edu_driver);

	if (ret)
		return ret;
	ret = misc_register(&edu_misc);
	if (ret)
		pci_unregister_driver(&edu_driver);
	return ret;
}

static void __exit edu_exit(void)
{
	misc_deregister(&edu_misc);
	pci_unregister_driver(&edu_driver);
}

module_init(edu_init);
module_exit(edu_exit);

MODULE_DESCRIPTION("dma-buf importer for tests, with QEMU's edu device");
MODULE_LICENSE("GPL");

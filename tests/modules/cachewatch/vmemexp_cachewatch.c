// SPDX-License-Identifier: GPL-2.0
/*
 * A record, for tests, of what the kernel's functions for cache maintenance are
 * asked to do: /dev/vmemexp-cachewatch. vmemexp_cachewatch.h documents it.
 *
 * These functions are probed while a watch is open. Tracing's own kprobe events
 * do not serve: they refuse functions written in assembler, and cannot tell to
 * which physical address a kernel address leads that is gone a moment later.
 *
 * A watch is used by one thread, which also makes the calls that are recorded.
 * So nothing needs a lock.
 */

#include <linux/dma-direction.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "../importer/vmemexp_translate.h"
#include "vmemexp_cachewatch.h"

/* --- what is probed --- */

struct cachewatch_function {
	const char *name;
	unsigned int offset;	/* where the arguments still are as they came */
	u32 op;
};

static const struct cachewatch_function cachewatch_functions[] = {
#if defined(CONFIG_ARM64)
	{ "arch_sync_dma_for_device", 0, CACHEWATCH_FOR_DEVICE },
	{ "arch_sync_dma_for_cpu", 0, CACHEWATCH_FOR_CPU },
	/* The driver's own: the kernel has none that every configuration exports. */
	{ "vmemexp_flush_dcache", 0, CACHEWATCH_FLUSH },
#elif defined(CONFIG_ARM)
	{ "arch_sync_dma_for_device", 0, CACHEWATCH_FOR_DEVICE },
	{ "arch_sync_dma_for_cpu", 0, CACHEWATCH_FOR_CPU },
	/* It begins with an access to a coprocessor, which cannot be probed. */
	{ "v7_flush_kern_dcache_area", 4, CACHEWATCH_FLUSH },
#elif defined(CONFIG_X86)
	{ "arch_wb_cache_pmem", 0, CACHEWATCH_CLEAN },
	{ "clflush_cache_range", 0, CACHEWATCH_FLUSH },
#endif
};

#define CACHEWATCH_NR_FUNCTIONS	ARRAY_SIZE(cachewatch_functions)

/* --- watches --- */

struct cachewatch_probe {
	struct kprobe kprobe;
	struct cachewatch *watch;
	u32 op;
};

struct cachewatch {
	struct task_struct *task;	/* NULL unless started; compared only */
	struct cachewatch_record *records;
	size_t nr_calls;		/* may be more than there are records */
	struct cachewatch_probe probes[CACHEWATCH_NR_FUNCTIONS];
	struct kprobe *kprobes[CACHEWATCH_NR_FUNCTIONS];
};

static unsigned long cachewatch_argument(struct pt_regs *regs, unsigned int n)
{
#ifdef CONFIG_ARM
	return regs->uregs[n];
#else
	return regs_get_kernel_argument(regs, n);
#endif
}

#if defined(CONFIG_ARM64) || defined(CONFIG_ARM_LPAE)
static u64 cachewatch_page(unsigned long vaddr)
{
	u64 par = translate((void *)vaddr);

	return par & TRANSLATE_FAILED ? CACHEWATCH_NOWHERE : par & TRANSLATE_ADDRESS;
}
#elif defined(CONFIG_X86)
static u64 cachewatch_page(unsigned long vaddr)
{
	return slow_virt_to_phys((void *)(vaddr & PAGE_MASK));
}
#else
static u64 cachewatch_page(unsigned long vaddr)
{
	return CACHEWATCH_NOWHERE;
}
#endif

/* Where all pages of @size bytes at @vaddr lead to. */
static u64 cachewatch_phys(unsigned long vaddr, size_t size)
{
	u64 first = cachewatch_page(vaddr);
	unsigned long page = vaddr & PAGE_MASK;
	unsigned long done;

	for (done = 0; first != CACHEWATCH_NOWHERE && page + done < vaddr + size;
	     done += PAGE_SIZE)
		if (cachewatch_page(page + done) != first + done)
			return CACHEWATCH_NOWHERE;
	return first == CACHEWATCH_NOWHERE ? first : first + offset_in_page(vaddr);
}

static void cachewatch_by_physical_address(struct cachewatch_record *record, struct pt_regs *regs)
{
	unsigned int n = 0;

	record->phys = cachewatch_argument(regs, n++);
	if (sizeof(phys_addr_t) > sizeof(unsigned long))
		record->phys |= (u64)cachewatch_argument(regs, n++) << 32;
	record->size = cachewatch_argument(regs, n++);
	record->direction = cachewatch_argument(regs, n);
}

static void cachewatch_by_kernel_address(struct cachewatch_record *record, struct pt_regs *regs)
{
	unsigned long vaddr = cachewatch_argument(regs, 0);

	record->size = cachewatch_argument(regs, 1);
	record->phys = cachewatch_phys(vaddr, record->size);
	if (is_vmalloc_addr((void *)vaddr))
		record->flags = CACHEWATCH_VMALLOC;
}

static int __kprobes cachewatch_called(struct kprobe *kprobe, struct pt_regs *regs)
{
	struct cachewatch_probe *probe = container_of(kprobe, struct cachewatch_probe, kprobe);
	struct cachewatch *watch = probe->watch;
	struct cachewatch_record *record;

	/* Interrupts come in any task. */
	if (READ_ONCE(watch->task) != current || hardirq_count() || in_serving_softirq())
		return 0;
	if (watch->nr_calls++ >= CACHEWATCH_MAX_RECORDS)
		return 0;
	record = &watch->records[watch->nr_calls - 1];
	*record = (struct cachewatch_record){ .op = probe->op };
	if (probe->op == CACHEWATCH_FOR_DEVICE || probe->op == CACHEWATCH_FOR_CPU)
		cachewatch_by_physical_address(record, regs);
	else
		cachewatch_by_kernel_address(record, regs);
	return 0;
}

/* --- the device node --- */

static ssize_t cachewatch_read(struct file *file, char __user *buf, size_t size, loff_t *pos)
{
	struct cachewatch *watch = file->private_data;
	size_t bytes = watch->nr_calls * sizeof(*watch->records);

	if (watch->task)
		return -EBUSY;
	if (watch->nr_calls > CACHEWATCH_MAX_RECORDS)
		return -EOVERFLOW;
	if (size < bytes)
		return -EMSGSIZE;
	return copy_to_user(buf, watch->records, bytes) ? -EFAULT : bytes;
}

static long cachewatch_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct cachewatch *watch = file->private_data;

	switch (cmd) {
	case CACHEWATCH_IOC_START:
		watch->nr_calls = 0;
		WRITE_ONCE(watch->task, current);
		return 0;
	case CACHEWATCH_IOC_STOP:
		WRITE_ONCE(watch->task, NULL);
		return 0;
	default:
		return -ENOTTY;
	}
}

static int cachewatch_open(struct inode *inode, struct file *file)
{
	struct cachewatch *watch = kzalloc(sizeof(*watch), GFP_KERNEL);
	struct cachewatch_probe *probe;
	unsigned int i;
	int ret;

	if (!watch)
		return -ENOMEM;
	watch->records = vmalloc(array_size(CACHEWATCH_MAX_RECORDS, sizeof(*watch->records)));
	if (!watch->records) {
		ret = -ENOMEM;
		goto err_free;
	}
	for (i = 0; i < CACHEWATCH_NR_FUNCTIONS; i++) {
		probe = &watch->probes[i];
		probe->watch = watch;
		probe->op = cachewatch_functions[i].op;
		probe->kprobe.symbol_name = cachewatch_functions[i].name;
		probe->kprobe.offset = cachewatch_functions[i].offset;
		probe->kprobe.pre_handler = cachewatch_called;
		watch->kprobes[i] = &probe->kprobe;
	}
	ret = register_kprobes(watch->kprobes, CACHEWATCH_NR_FUNCTIONS);
	if (ret)
		goto err_free_records;
	file->private_data = watch;
	return stream_open(inode, file);

err_free_records:
	vfree(watch->records);
err_free:
	kfree(watch);
	return ret;
}

static int cachewatch_release(struct inode *inode, struct file *file)
{
	struct cachewatch *watch = file->private_data;

	unregister_kprobes(watch->kprobes, CACHEWATCH_NR_FUNCTIONS);
	vfree(watch->records);
	kfree(watch);
	return 0;
}

static const struct file_operations cachewatch_fops = {
	.owner = THIS_MODULE,
	.open = cachewatch_open,
	.release = cachewatch_release,
	.read = cachewatch_read,
	.unlocked_ioctl = cachewatch_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice cachewatch_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmemexp-cachewatch",
	.fops = &cachewatch_fops,
	.mode = 0600,
};
module_misc_device(cachewatch_misc);

MODULE_DESCRIPTION("cache maintenance recorded for tests");
MODULE_LICENSE("GPL");

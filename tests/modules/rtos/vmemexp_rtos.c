// SPDX-License-Identifier: GPL-2.0
/*
 * Starts the RTOS on a CPU that Linux does not use, as a remoteproc driver does
 * on hardware that has other ways for it, and maps the shared memory for
 * programs: /dev/vmemexp-rtos. It knows nothing of vmemexp.
 *
 * The device tree node has in memory-region the carve-out of the program and the
 * one that is shared, in vmemexp,cpu the CPU, and in vmemexp,pen where that waits
 * until it is started. On a Versatile Express, it waits for an interrupt and looks
 * into a register of the board, which says where to begin.
 */

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/firmware.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_address.h>
#include <linux/of_reserved_mem.h>
#include <linux/platform_device.h>

#include "rtos.h"

#define RTOS_FIRMWARE		"vmemexp-rtos.bin"
/* The machine may be busy: only what does not happen at all takes longer. */
#define RTOS_TIMEOUT_MS		30000

/* Registers of the board: SYS_FLAGS, of which the second one clears bits. */
#define SYS_FLAGS_SET		0x30
#define SYS_FLAGS_CLEAR		0x34

/* Register of the GIC's distributor that sends interrupt 0 to the CPUs of a mask. */
#define GICD_SGIR		0xf00
#define GICD_SGIR_CPU(n)	BIT(16 + (n))

/* One per machine: the name of the device node has no number. */
struct rtos {
	struct miscdevice misc;
	struct device *dev;
	struct reserved_mem *program;
	struct reserved_mem *shared;
	u32 cpu;
	u32 pen;
};

static struct reserved_mem *rtos_find_memory(struct device *dev, int index)
{
	struct device_node *node;
	struct reserved_mem *memory;

	node = of_parse_phandle(dev->of_node, "memory-region", index);
	memory = node ? of_reserved_mem_lookup(node) : NULL;
	of_node_put(node);
	return memory;
}

static void __iomem *rtos_registers(const char *compatible)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, compatible);
	void __iomem *registers = node ? of_iomap(node, 0) : NULL;

	of_node_put(node);
	return registers;
}

/*
 * Neither window stays: the CPU must not have the memory mapped in two ways while
 * programs map it cached.
 */
static int rtos_load(struct rtos *rtos)
{
	const struct firmware *firmware;
	void *window;
	int ret;

	ret = request_firmware(&firmware, RTOS_FIRMWARE, rtos->dev);
	if (ret)
		return ret;
	ret = -EFBIG;
	if (firmware->size > rtos->program->size)
		goto out;
	ret = -EINVAL;
	if (firmware->size < RTOS_WORD_PEN + sizeof(u32))
		goto out;
	ret = -ENOMEM;
	window = memremap(rtos->program->base, firmware->size, MEMREMAP_WC);
	if (!window)
		goto out;
	memcpy(window, firmware->data, firmware->size);
	*(u32 *)(window + RTOS_WORD_SHARED) = rtos->shared->base;
	*(u32 *)(window + RTOS_WORD_PEN) = rtos->pen;
	memunmap(window);

	window = memremap(rtos->shared->base, RTOS_CONTROL_SIZE, MEMREMAP_WC);
	if (!window)
		goto out;
	memset(window, 0, RTOS_CONTROL_SIZE);
	memunmap(window);
	ret = 0;
out:
	release_firmware(firmware);
	return ret;
}

/* Return true if the RTOS has said so within the time. */
static bool rtos_wait_for_magic(struct rtos *rtos, u32 magic, bool stop)
{
	struct rtos_control *control;
	unsigned long end = jiffies + msecs_to_jiffies(RTOS_TIMEOUT_MS);
	u32 seen;

	control = memremap(rtos->shared->base, RTOS_CONTROL_SIZE, MEMREMAP_WC);
	if (!control)
		return false;
	if (stop)
		WRITE_ONCE(control->stop, 1);
	/* Not to wait in a write buffer for as long as the loop waits. */
	wmb();
	while ((seen = READ_ONCE(control->magic)) != magic && time_before(jiffies, end))
		usleep_range(1000, 2000);
	memunmap(control);
	return seen == magic;
}

/* Tells the CPU in the pen where to go; 0: to stay there. */
static int rtos_set_entry(struct rtos *rtos, u32 entry)
{
	void __iomem *board = rtos_registers("arm,vexpress-sysreg");
	void __iomem *gic = rtos_registers("arm,cortex-a15-gic");
	int ret = -ENODEV;

	if (!board || !gic)
		goto out;
	writel(~0U, board + SYS_FLAGS_CLEAR);
	if (entry) {
		writel(entry, board + SYS_FLAGS_SET);
		/* writel() has all of the program in memory before. */
		writel(GICD_SGIR_CPU(rtos->cpu), gic + GICD_SGIR);
	}
	ret = 0;
out:
	if (gic)
		iounmap(gic);
	if (board)
		iounmap(board);
	return ret;
}

static int rtos_start(struct rtos *rtos)
{
	int ret;

	if (cpu_online(rtos->cpu)) {
		dev_err(rtos->dev, "Linux uses the CPU (boot with maxcpus=1)\n");
		return -EBUSY;
	}
	ret = rtos_set_entry(rtos, rtos->program->base);
	if (ret)
		return dev_err_probe(rtos->dev, ret, "this board has no such pen\n");
	if (!rtos_wait_for_magic(rtos, RTOS_MAGIC, false))
		return dev_err_probe(rtos->dev, -EIO, "the RTOS does not start\n");
	return 0;
}

/* No program has the shared memory mapped any more. */
static void rtos_stop(void *data)
{
	struct rtos *rtos = data;

	/* Before it comes back there. */
	rtos_set_entry(rtos, 0);
	if (!rtos_wait_for_magic(rtos, 0, true))
		dev_err(rtos->dev, "the RTOS does not leave its CPU\n");
}

/* Cached, although the RTOS bypasses the caches: it is for programs to sync. */
static int rtos_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct rtos *rtos = container_of(file->private_data, struct rtos, misc);

	return vm_iomap_memory(vma, rtos->shared->base, rtos->shared->size);
}

static const struct file_operations rtos_fops = {
	.owner = THIS_MODULE,
	.mmap = rtos_mmap,
};

static void rtos_deregister(void *data)
{
	struct rtos *rtos = data;

	misc_deregister(&rtos->misc);
}

static int rtos_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct rtos *rtos;
	int ret;

	rtos = devm_kzalloc(dev, sizeof(*rtos), GFP_KERNEL);
	if (!rtos)
		return -ENOMEM;
	rtos->dev = dev;
	rtos->program = rtos_find_memory(dev, 0);
	rtos->shared = rtos_find_memory(dev, 1);
	if (!rtos->program || !rtos->shared ||
	    rtos->shared->size < RTOS_SHARED_SIZE)
		return dev_err_probe(dev, -EINVAL, "no memory, or too little\n");
	/* It starts without an MMU. */
	if (upper_32_bits(rtos->program->base) || upper_32_bits(rtos->shared->base))
		return dev_err_probe(dev, -EINVAL, "memory out of reach of the RTOS\n");
	ret = of_property_read_u32(dev->of_node, "vmemexp,cpu", &rtos->cpu) ?:
	      of_property_read_u32(dev->of_node, "vmemexp,pen", &rtos->pen);
	if (ret)
		return dev_err_probe(dev, ret, "no CPU is named, or no pen\n");
	if (rtos->cpu >= nr_cpu_ids)
		return dev_err_probe(dev, -EINVAL, "there is no CPU %u\n", rtos->cpu);

	ret = rtos_load(rtos);
	if (ret)
		return dev_err_probe(dev, ret, "cannot load %s\n", RTOS_FIRMWARE);
	ret = rtos_start(rtos);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(dev, rtos_stop, rtos);
	if (ret)
		return ret;

	rtos->misc.minor = MISC_DYNAMIC_MINOR;
	rtos->misc.name = "vmemexp-rtos";
	rtos->misc.fops = &rtos_fops;
	rtos->misc.mode = 0600;
	ret = misc_register(&rtos->misc);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(dev, rtos_deregister, rtos);
	if (ret)
		return ret;
	dev_info(dev, "%s runs at %pa, shares %pa\n", RTOS_FIRMWARE,
		 &rtos->program->base, &rtos->shared->base);
	return 0;
}

static const struct of_device_id rtos_of_match[] = {
	{ .compatible = "vmemexp,rtos" },
	{ }
};

static struct platform_driver rtos_driver = {
	.probe = rtos_probe,
	.driver = {
		.name = "vmemexp-rtos",
		.of_match_table = rtos_of_match,
		/* Open files keep the module, but not the driver bound. */
		.suppress_bind_attrs = true,
	},
};
module_platform_driver(rtos_driver);

MODULE_DESCRIPTION("starts the RTOS of the vmemexp demonstration");
MODULE_FIRMWARE(RTOS_FIRMWARE);
MODULE_LICENSE("GPL");

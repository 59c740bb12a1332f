// SPDX-License-Identifier: GPL-2.0
/*
 * Starts the RTOS on a CPU that Linux does not use, as a remoteproc driver does
 * on hardware that has other ways for it, and maps the shared memory for
 * programs: /dev/vmemexp-rtos. It knows nothing of vmemexp.
 *
 * The device tree node has in memory-region the carve-out of the program and the
 * one that is shared, and in vmemexp,mpidr the CPU. The firmware of the machine
 * (PSCI) starts that CPU at the begin of the program, with the physical address
 * of the shared memory as its argument.
 */

#include <linux/arm-smccc.h>
#include <linux/delay.h>
#include <linux/firmware.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_reserved_mem.h>
#include <linux/platform_device.h>
#include <uapi/linux/psci.h>

#include "rtos.h"

#define RTOS_FIRMWARE		"vmemexp-rtos.bin"
#define RTOS_STOP_TIMEOUT_MS	1000

/* One per machine: the name of the device node has no number. */
struct rtos {
	struct miscdevice misc;
	struct device *dev;
	struct reserved_mem *program;
	struct reserved_mem *shared;
	u32 mpidr;
};

static long rtos_psci(u32 function, u32 mpidr, u32 argument, u32 context)
{
	struct arm_smccc_res res;

	arm_smccc_hvc(function, mpidr, argument, context, 0, 0, 0, 0, &res);
	return res.a0;
}

static struct reserved_mem *rtos_find_memory(struct device *dev, int index)
{
	struct device_node *node;
	struct reserved_mem *memory;

	node = of_parse_phandle(dev->of_node, "memory-region", index);
	memory = node ? of_reserved_mem_lookup(node) : NULL;
	of_node_put(node);
	return memory;
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
	ret = -ENOMEM;
	window = memremap(rtos->program->base, firmware->size, MEMREMAP_WC);
	if (!window)
		goto out;
	memcpy(window, firmware->data, firmware->size);
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

static int rtos_start(struct rtos *rtos)
{
	long status;

	/* All of the program must be in memory before the CPU fetches from it. */
	wmb();
	status = rtos_psci(PSCI_0_2_FN_CPU_ON, rtos->mpidr, rtos->program->base,
			   rtos->shared->base);
	switch (status) {
	case PSCI_RET_SUCCESS:
		return 0;
	case PSCI_RET_ALREADY_ON:
		dev_err(rtos->dev, "Linux uses the CPU (boot with maxcpus=1)\n");
		return -EBUSY;
	default:
		dev_err(rtos->dev, "PSCI does not start the CPU: %ld\n", status);
		return -EIO;
	}
}

/* No program has the shared memory mapped any more. */
static void rtos_stop(void *data)
{
	struct rtos *rtos = data;
	struct rtos_control *control;
	int ms;

	control = memremap(rtos->shared->base, RTOS_CONTROL_SIZE, MEMREMAP_WC);
	if (!control)
		return;
	WRITE_ONCE(control->stop, 1);
	/* Not to wait in a write buffer for as long as the loop waits. */
	wmb();
	for (ms = 0; ms < RTOS_STOP_TIMEOUT_MS; ms++) {
		if (rtos_psci(PSCI_0_2_FN_AFFINITY_INFO, rtos->mpidr, 0, 0) ==
		    PSCI_0_2_AFFINITY_LEVEL_OFF)
			break;
		usleep_range(1000, 2000);
	}
	if (ms == RTOS_STOP_TIMEOUT_MS)
		dev_err(rtos->dev, "the RTOS does not turn its CPU off\n");
	memunmap(control);
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
	ret = of_property_read_u32(dev->of_node, "vmemexp,mpidr", &rtos->mpidr);
	if (ret)
		return dev_err_probe(dev, ret, "no CPU is named\n");

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

// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the driver believe, for tests, that the machine encrypts its memory. QEMU
 * emulates none that does, and the rest of the kernel must not believe it.
 *
 * So the answer to one caller is changed: where the driver calls cc_platform_has(),
 * the instruction behind the call is probed, and the result becomes true. The function
 * itself cannot be probed (since 6.2 it is noinstr).
 *
 * Writing the address where the driver's code begins (/sys/module/vmemexp/sections/.text)
 * to the parameter "text" begins it, and writing 0 ends it. ENOENT: there is no such call.
 * EOPNOTSUPP: the kernel has no such function, or calls of another kind.
 */

#include <linux/kernel.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/version.h>

#define ENCRYPTED_OF_DRIVER	"[vmemexp]"

/* aa5a461171f9 (v5.16) added the function. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0) && defined(CONFIG_X86)
#include <linux/cc_platform.h>
#include <asm/ptrace.h>

/* "call" with the distance to its target, which counts from the next instruction. */
#define ENCRYPTED_CALL		0xe8
#define ENCRYPTED_CALL_SIZE	5

#define ENCRYPTED_MAX_CALLS	8

/* Parameters have a lock of their own, under which all of this is used. */
static struct kprobe encrypted_probes[ENCRYPTED_MAX_CALLS];
static unsigned int encrypted_nr_probes;

static int __kprobes encrypted_answer(struct kprobe *kprobe, struct pt_regs *regs)
{
	regs_set_return_value(regs, true);
	return 0;
}

static bool encrypted_is_driver(unsigned long addr)
{
	char name[KSYM_SYMBOL_LEN];

	sprint_symbol(name, addr);
	return strstr(name, ENCRYPTED_OF_DRIVER);
}

static bool encrypted_is_call(unsigned long addr)
{
	const u8 *code = (const u8 *)addr;
	s32 distance;

	if (code[0] != ENCRYPTED_CALL)
		return false;
	memcpy(&distance, code + 1, sizeof(distance));
	return addr + ENCRYPTED_CALL_SIZE + distance == (unsigned long)cc_platform_has;
}

static void encrypted_end(void)
{
	while (encrypted_nr_probes)
		unregister_kprobe(&encrypted_probes[--encrypted_nr_probes]);
}

static int encrypted_begin(unsigned long text)
{
	unsigned long addr, end = PAGE_ALIGN(text + 1);
	struct kprobe *probe;
	int ret;

	while (encrypted_is_driver(end))
		end += PAGE_SIZE;
	for (addr = text; addr + ENCRYPTED_CALL_SIZE < end; addr++) {
		if (!encrypted_is_call(addr))
			continue;
		if (encrypted_nr_probes == ENCRYPTED_MAX_CALLS)
			return -E2BIG;
		probe = &encrypted_probes[encrypted_nr_probes];
		*probe = (struct kprobe){
			.addr = (kprobe_opcode_t *)(addr + ENCRYPTED_CALL_SIZE),
			.pre_handler = encrypted_answer,
		};
		ret = register_kprobe(probe);
		if (ret)
			return ret;
		encrypted_nr_probes++;
	}
	return encrypted_nr_probes ? 0 : -ENOENT;
}
#else
static bool encrypted_is_driver(unsigned long addr)
{
	return true;
}

static void encrypted_end(void)
{
}

static int encrypted_begin(unsigned long text)
{
	return -EOPNOTSUPP;
}
#endif

static int encrypted_set_text(const char *val, const struct kernel_param *kp)
{
	unsigned long text;
	int ret = kstrtoul(val, 0, &text);

	if (ret)
		return ret;
	encrypted_end();
	if (!text)
		return 0;
	if (!encrypted_is_driver(text))
		return -EINVAL;
	ret = encrypted_begin(text);
	if (ret)
		encrypted_end();
	return ret;
}

static const struct kernel_param_ops encrypted_text_ops = {
	.set = encrypted_set_text,
};

module_param_cb(text, &encrypted_text_ops, NULL, 0200);
MODULE_PARM_DESC(text, "where the driver's code begins, 0 to end it");

static int __init encrypted_init(void)
{
	return 0;
}

static void __exit encrypted_exit(void)
{
	encrypted_end();
}

module_init(encrypted_init);
module_exit(encrypted_exit);

MODULE_DESCRIPTION("memory encryption for the eyes of one driver");
MODULE_LICENSE("GPL");

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's page tables are not open to modules, but on arm and arm64 the MMU
 * itself can be asked: what it answers is in the format of the register PAR.
 * Without LPAE arm has another format.
 */
#ifndef _VMEMEXP_TRANSLATE_H
#define _VMEMEXP_TRANSLATE_H

#include <linux/irqflags.h>
#include <linux/types.h>
#include <asm/barrier.h>

#if defined(CONFIG_ARM64) || defined(CONFIG_ARM_LPAE)
#define TRANSLATE_FAILED	1ULL		/* nothing is mapped there */
#define TRANSLATE_ADDRESS	0xfffffffff000ULL
#define TRANSLATE_CACHE_SHIFT	56		/* an attribute as in the MAIR */

static inline u64 translate(const void *vaddr)
{
	unsigned long flags;
	u64 par;

	local_irq_save(flags);
#ifdef CONFIG_ARM64
	asm volatile("at s1e1r, %0" : : "r" (vaddr));
	isb();
	asm volatile("mrs %0, par_el1" : "=r" (par));
#else
	asm volatile("mcr p15, 0, %0, c7, c8, 0" : : "r" (vaddr));
	isb();
	asm volatile("mrrc p15, 0, %Q0, %R0, c7" : "=r" (par));
#endif
	local_irq_restore(flags);
	return par;
}
#endif

#endif /* _VMEMEXP_TRANSLATE_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a CPU comes from the pen that it was waiting in: no MMU, no caches, nothing
 * initialised. An interrupt from Linux has sent it here.
 */
#include "../../modules/rtos/rtos.h"

/* Registers of the GIC's interface to this CPU, which is behind its distributor. */
#define GICC_OFFSET	0x2000
#define GICC_IAR	0x0c
#define GICC_EOIR	0x10

	.section .text.start, "ax"
	.arm
	.global rtos_start
rtos_start:
	b	1f
	.org	rtos_start + RTOS_WORD_SHARED
rtos_shared:
	.word	0
	.org	rtos_start + RTOS_WORD_PEN
rtos_pen:
	.word	0

1:	cpsid	aif
	mov	r4, #0
	mcr	p15, 0, r4, c7, c5, 0		@ ICIALLU: what ran here before is gone
	mcr	p15, 0, r4, c7, c5, 6		@ BPIALL
	dsb
	isb

	@ The interrupt has done its work. While it is pending, the pen does not sleep.
	mrc	p15, 4, r1, c15, c0, 0		@ CBAR
	add	r1, r1, #GICC_OFFSET
	ldr	r2, [r1, #GICC_IAR]
	str	r2, [r1, #GICC_EOIR]

	@ The image is a plain copy, so what must be zero is still what was there.
	ldr	r1, =rtos_bss_start
	ldr	r2, =rtos_bss_end
2:	cmp	r1, r2
	strlo	r4, [r1], #4
	blo	2b

	ldr	sp, =rtos_stack_top
	ldr	r0, rtos_shared
	bl	rtos_main

	@ The magic tells that nothing of this is needed any more, so all that is still to
	@ be executed has been fetched before.
	mov	r0, #0
	ldr	r1, rtos_shared
	ldr	r2, rtos_pen
	dsb
	str	r0, [r1]
	bx	r2

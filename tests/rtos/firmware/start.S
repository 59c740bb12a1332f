/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the firmware starts the CPU: no MMU, no caches, nothing initialised but
 * r0, the argument that CPU_ON passes on.
 */
	.section .text.start, "ax"
	.arm
	.global rtos_start
rtos_start:
	cpsid	aif
	mov	r4, #0
	mcr	p15, 0, r4, c7, c5, 0		@ ICIALLU: what ran here before is gone
	mcr	p15, 0, r4, c7, c5, 6		@ BPIALL
	dsb
	isb

	@ The image is a plain copy, so what must be zero is still what was there.
	ldr	r1, =rtos_bss_start
	ldr	r2, =rtos_bss_end
1:	cmp	r1, r2
	strlo	r4, [r1], #4
	blo	1b

	ldr	sp, =rtos_stack_top
	bl	rtos_main

	@ rtos_main() returns when it is told to stop.
	dsb
	ldr	r0, =0x84000002			@ PSCI CPU_OFF, does not return
	.arch_extension virt
	hvc	#0
2:	wfi
	b	2b

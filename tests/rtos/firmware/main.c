// SPDX-License-Identifier: GPL-2.0
/*
 * The RTOS: a program on the second CPU, without an operating system and beside
 * Linux. It draws numbered frames into memory that Linux shows.
 *
 * The MMU and the caches are off. Every access goes to memory at once and must
 * be aligned, and what Linux's CPU has in its caches is not seen.
 */
#include "../../modules/rtos/rtos.h"

/* Earlier writes reach memory before later ones. */
static void barrier(void)
{
	asm volatile("dsb" : : : "memory");
}

static void draw(volatile __u32 *buffer, __u32 frame)
{
	__u32 x, y;

	for (y = 0; y < RTOS_HEIGHT; y++)
		for (x = 0; x < RTOS_WIDTH; x++)
			buffer[y * RTOS_WIDTH + x] = rtos_pixel(frame, x, y);
}

/* Waits until the buffer of @frame is free; returns 0 if told to stop instead. */
static int wait_for_buffer(volatile struct rtos_control *control, __u32 frame)
{
	while (!control->stop) {
		if (frame <= control->released + RTOS_NR_BUFFERS)
			return 1;
	}
	return 0;
}

/* Called by start.S with the address of the shared memory; returns if told to stop. */
void rtos_main(unsigned long shared)
{
	volatile struct rtos_control *control = (void *)shared;
	__u32 frame;

	control->width = RTOS_WIDTH;
	control->height = RTOS_HEIGHT;
	control->stride = RTOS_STRIDE;
	control->drawn = 0;
	barrier();
	control->magic = RTOS_MAGIC;

	for (frame = 1; wait_for_buffer(control, frame); frame++) {
		barrier();
		draw((void *)(shared + RTOS_FRAME_OFFSET(frame)), frame);
		barrier();
		control->drawn = frame;
		barrier();
	}
}

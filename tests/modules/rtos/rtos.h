/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Agreement of the RTOS and Linux: the memory that both see, and the pixels of frame number n. The
 * same file is compiled into the program of the RTOS, into the kernel module that starts it, into
 * the Linux program that shows the frames, and into the one that checks the pictures of the screen.
 *
 * The shared memory begins with struct rtos_control, in a page of its own. The
 * frame buffers follow. Frames are numbered from 1; frame n is drawn into buffer
 * n % RTOS_NR_BUFFERS, and only after Linux has released the frame that was in
 * it before.
 */
#ifndef _RTOS_H
#define _RTOS_H

#ifndef __ASSEMBLER__
#include <linux/types.h>
#endif

#define RTOS_MAGIC		0x534f5452	/* "RTOS" */

/* Words of the program that are written when it is loaded, by their offsets. */
#define RTOS_WORD_SHARED	4	/* physical address of the shared memory */
#define RTOS_WORD_PEN		8	/* where to go when told to stop */

#define RTOS_WIDTH		640
#define RTOS_HEIGHT		480
#define RTOS_STRIDE		(RTOS_WIDTH * 4)	/* XRGB8888 */
#define RTOS_NR_BUFFERS		3

#define RTOS_CONTROL_SIZE	4096
#define RTOS_BUFFER_SIZE	(RTOS_STRIDE * RTOS_HEIGHT)	/* whole pages */
#define RTOS_SHARED_SIZE	(RTOS_CONTROL_SIZE + RTOS_NR_BUFFERS * RTOS_BUFFER_SIZE)

/* Where frame n begins in the shared memory. */
#define RTOS_FRAME_OFFSET(n)	\
	(RTOS_CONTROL_SIZE + (n) % RTOS_NR_BUFFERS * RTOS_BUFFER_SIZE)

/* No cache line of a CPU that runs Linux is longer. */
#define RTOS_CACHE_LINE		64

#ifndef __ASSEMBLER__

/*
 * Each side writes to a cache line of its own. Were they one, Linux's CPU would
 * write the words of the RTOS back with its own, as they were some time ago.
 */
struct rtos_control {
	/* Written by the RTOS; the magic last, when the others are valid. 0: it has left. */
	__u32 magic;
	__u32 width;
	__u32 height;
	__u32 stride;
	__u32 drawn;		/* the newest frame that is complete */
	__u32 unused[RTOS_CACHE_LINE / 4 - 5];

	/* Written by Linux. */
	__u32 released;		/* this frame and older ones may be drawn over */
	__u32 stop;		/* not 0: the RTOS is to leave */
};

/* --- what frame number n looks like --- */

/* A row of 32 squares: the bits of the frame number, the highest at the left. */
#define RTOS_BITS_LEFT		64
#define RTOS_BITS_TOP		16
#define RTOS_BIT_SIDE		16

static inline int rtos_in_bits(__u32 x, __u32 y)
{
	return x - RTOS_BITS_LEFT < 32 * RTOS_BIT_SIDE &&
	       y - RTOS_BITS_TOP < RTOS_BIT_SIDE;
}

static inline __u32 rtos_bit_pixel(__u32 frame, __u32 x)
{
	__u32 bit = 31 - (x - RTOS_BITS_LEFT) / RTOS_BIT_SIDE;

	if (x % RTOS_BIT_SIDE == 0)
		return 0x808080;
	return frame >> bit & 1 ? 0xffffff : 0;
}

/* A disc that travels to the right and back, 8 pixels a frame. */
static inline int rtos_in_disc(__u32 frame, __u32 x, __u32 y)
{
	__u32 way = frame * 8 % 1024;
	int dx = (int)x - (int)(way < 512 ? 64 + way : 64 + 1024 - way);
	int dy = (int)y - 240;

	return dx * dx + dy * dy < 56 * 56;
}

/*
 * XRGB8888. The background moves up and to the left, a few pixels a frame. All
 * pixels depend on the position, so that a frame in the wrong place is noticed.
 */
static inline __u32 rtos_pixel(__u32 frame, __u32 x, __u32 y)
{
	__u32 red = (x + 4 * frame) & 0xff;
	__u32 green = (y + 2 * frame) & 0xff;
	__u32 blue = ((x >> 3) ^ (y >> 3)) & 0x3f;

	if (rtos_in_bits(x, y))
		return rtos_bit_pixel(frame, x);
	if (rtos_in_disc(frame, x, y))
		return 0xff0000 | (255 - green) << 8 | (255 - red);
	return red << 16 | green << 8 | blue;
}

#endif /* !__ASSEMBLER__ */
#endif /* _RTOS_H */

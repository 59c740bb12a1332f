/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Linux's side of the memory that the RTOS shares: mapped, exported once, on the screen
 * of a display. All calls end the program with a message if something fails.
 */
#ifndef _SHARED_H
#define _SHARED_H

#include <stddef.h>
#include <stdint.h>

#include "../lib/kms.h"
#include "../modules/rtos/rtos.h"

/**
 * struct shared - the memory shared with the RTOS
 * @control: its first page, mapped by the driver that has started the RTOS
 * @device: /dev/vmemexp, for the syncs
 * @dmabuf: the memory as a dma-buf
 */
struct shared {
	volatile struct rtos_control *control;
	int device;
	int dmabuf;
};

/**
 * struct screen - a display that has imported the memory
 * @kms: the display
 * @frames: a framebuffer for each buffer
 * @shows: a frame is on the screen already
 */
struct screen {
	struct kms kms;
	uint32_t frames[RTOS_NR_BUFFERS];
	int shows;
};

/* The number of a frame, from text. */
uint32_t parse_frame(const char *text, uint32_t after);

/* The memory as the driver vmemexp_rtos maps it. */
#define RTOS_DEVICE	"/dev/vmemexp-rtos"

/* Maps and exports the memory: FILE, or FILE@OFFSET. @flags are for open(): O_SYNC, or 0. */
void shared_open(struct shared *shared, const char *where, int flags);

/*
 * The RTOS sees memory, not the caches of this CPU. @flags say whether access to the
 * range begins or ends, and which access.
 */
void shared_sync(const struct shared *shared, size_t offset, size_t length,
		 unsigned int flags);

/* The newest frame that is complete; 0 while there is none. */
uint32_t frames_drawn(const struct shared *shared);
void wait_for_frame(const struct shared *shared, uint32_t frame);

/* The newest frame that the RTOS may draw over. */
uint32_t frames_released(const struct shared *shared);
void release_frame(const struct shared *shared, uint32_t frame);

void screen_open(struct screen *screen, const char *path, const struct shared *shared);

/* Returns when the frame is on the screen, and the one before is not any more. */
void screen_show(struct screen *screen, uint32_t frame);

/* The display's driver removes what was added, and turns the screen off. */
void screen_close(struct screen *screen);

#endif /* _SHARED_H */

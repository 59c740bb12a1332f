/* SPDX-License-Identifier: GPL-2.0 */
/* One screen of a DRM device that can import dma-bufs. */
#ifndef _DISPLAY_H
#define _DISPLAY_H

#include <stdint.h>
#include <xf86drmMode.h>

/**
 * struct display - a connector of a DRM device and the mode chosen for it
 * @path: of the device node
 * @driver: name of the kernel driver
 * @connector_name: as in "VGA-1"
 * @fd: of the device node
 * @connector_id: the connector
 * @crtc_id: the CRTC that feeds it
 * @mode: what display_show() will set
 * @saved: what display_close() will set again
 * @handle: GEM handle of the imported dma-buf, 0 before
 * @fb_id: framebuffer made of it, 0 before
 */
struct display {
	char path[64];
	char driver[32];
	char connector_name[32];
	int fd;
	uint32_t connector_id;
	uint32_t crtc_id;
	drmModeModeInfo mode;
	drmModeCrtc *saved;
	uint32_t handle;
	uint32_t fb_id;
};

/**
 * struct display_wish - which screen and mode to take
 * @connector_id: that connector, or 0 for the first one with a monitor
 * @width: width of the mode, or 0 for any
 * @height: height of the mode, or 0 for any
 * @required: only a mode of that size will do; otherwise it is preferred to
 *	the mode that the monitor prefers
 */
struct display_wish {
	uint32_t connector_id;
	unsigned int width;
	unsigned int height;
	int required;
};

/*
 * All of these print why they return -1. After display_open() has returned 0,
 * display_close() undoes whatever was done and restores the screen.
 */
int display_open(struct display *display, const char *path,
		 const struct display_wish *wish);

/* Imports a dma-buf that begins with a frame of the mode's size, XRGB8888. Sets errno. */
int display_import(struct display *display, int dmabuf, uint32_t pitch);

/* Sets the mode with the imported frame. */
int display_show(struct display *display);

void display_close(struct display *display);

#endif /* _DISPLAY_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One screen of a DRM device that shows frames of an imported dma-buf. With the
 * ioctls themselves: libdrm would have to be there for the architecture of the
 * guest, which a cross compiler does not bring.
 */
#ifndef _KMS_H
#define _KMS_H

#include <drm/drm_mode.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct kms - a screen and the dma-buf that it shows frames of
 * @fd: of the device node
 * @connector_id: the first connector with a monitor
 * @crtc_id: a CRTC that can feed it
 * @mode: the mode of the size that was asked for
 * @handle: GEM handle of the dma-buf
 * @shows: a frame is on the screen already
 */
struct kms {
	int fd;
	uint32_t connector_id;
	uint32_t crtc_id;
	struct drm_mode_modeinfo mode;
	uint32_t handle;
	int shows;
};

/* All of these end the program with a message if something fails. */

void kms_open(struct kms *kms, const char *path, unsigned int width,
	      unsigned int height);

void kms_import(struct kms *kms, int dmabuf);

/* Makes a frame (XRGB8888) of the dma-buf; returns the framebuffer's number. */
uint32_t kms_add_frame(struct kms *kms, size_t offset, unsigned int stride);

/*
 * Returns when the frame is on the screen, and no other one is scanned out any
 * more.
 */
void kms_show(struct kms *kms, uint32_t framebuffer);

/* The kernel removes what was added, and turns the screen off if need be. */
void kms_close(struct kms *kms);

#endif /* _KMS_H */

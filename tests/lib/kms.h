/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One screen of a DRM device that shows frames of imported dma-bufs. With the ioctls
 * themselves: libdrm would have to be there for the architecture of the guest, which a
 * cross compiler does not bring.
 *
 * All calls return 0 or a negative errno.
 */
#ifndef VMEMEXP_TEST_KMS_H
#define VMEMEXP_TEST_KMS_H

#include <drm.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct kms - a screen of a DRM device
 * @fd: of the device node
 * @connector_id: the first connector with a monitor
 * @crtc_id: a CRTC that can feed it
 * @mode: the mode of the size that was asked for
 */
struct kms {
	int fd;
	uint32_t connector_id;
	uint32_t crtc_id;
	struct drm_mode_modeinfo mode;
};

/* ENODEV: it has no screen of that size. */
int kms_open(struct kms *kms, const char *path, unsigned int width, unsigned int height);

/* The same with the first device of that driver; ENODEV if there is none. */
int kms_open_driver(struct kms *kms, const char *driver, unsigned int width,
		    unsigned int height);

/* The kernel removes what was added, and turns the screen off if need be. */
void kms_close(struct kms *kms);

/* Imports a dma-buf; @handle is the GEM handle. */
int kms_import(struct kms *kms, int dmabuf, uint32_t *handle);

/* A handle is a reference, and a framebuffer of it another one. */
int kms_drop(struct kms *kms, uint32_t handle);

/* Makes a frame (XRGB8888) of what was imported. */
int kms_add_frame(struct kms *kms, uint32_t handle, size_t offset, unsigned int stride,
		  uint32_t *frame);

/* The same of NV12: luma at the start, chroma behind it at @chroma. */
int kms_add_nv12(struct kms *kms, uint32_t handle, size_t chroma, unsigned int stride,
		 uint32_t *frame);

/* One that is shown goes from the screen. */
int kms_remove_frame(struct kms *kms, uint32_t frame);

/* Sets the mode with this frame. */
int kms_show(struct kms *kms, uint32_t frame);

/*
 * Shows another frame, and returns when it is on the screen, and the one before is not
 * scanned out any more; @event tells when that was.
 */
int kms_flip(struct kms *kms, uint32_t frame, struct drm_event_vblank *event);

/*
 * Has the display write into memory what it shows, once, where its driver can: rows of
 * XRGB8888 of the mode that the first CRTC in use has. @fd is its master's. @pixels is to be
 * freed; its size is that of the mode, @width by @height.
 */
int kms_write_back(int fd, uint32_t **pixels, unsigned int *width, unsigned int *height);

/* Where the display controller PL111 fetches its frame from: the register, by debugfs. */
int pl111_base(uint32_t *address);

#endif /* VMEMEXP_TEST_KMS_H */

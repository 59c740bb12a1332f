// SPDX-License-Identifier: GPL-2.0
/* One screen of a DRM device that shows frames of an imported dma-buf. */
#include <drm/drm.h>
#include <drm/drm_fourcc.h>
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kms.h"

/* More than any device has. */
#define MAX_OBJECTS	64
#define MAX_MODES	256

static void drm_ioctl(struct kms *kms, unsigned long request, void *argument,
		      const char *what)
{
	if (ioctl(kms->fd, request, argument))
		err(EXIT_FAILURE, "DRM does not %s", what);
}

static int find_mode(struct kms *kms, const struct drm_mode_modeinfo *modes,
		     unsigned int nr_modes, unsigned int width,
		     unsigned int height)
{
	unsigned int i;

	for (i = 0; i < nr_modes; i++) {
		if (modes[i].hdisplay == width && modes[i].vdisplay == height) {
			kms->mode = modes[i];
			return 1;
		}
	}
	return 0;
}

/* Takes a CRTC that the encoder can be fed from, or none. */
static void find_crtc(struct kms *kms, uint32_t encoder_id,
		      const uint32_t *crtcs, unsigned int nr_crtcs)
{
	struct drm_mode_get_encoder encoder = { .encoder_id = encoder_id };
	unsigned int i;

	drm_ioctl(kms, DRM_IOCTL_MODE_GETENCODER, &encoder,
		  "describe the encoder");
	for (i = 0; i < nr_crtcs && !kms->crtc_id; i++)
		if (encoder.possible_crtcs & (1U << i))
			kms->crtc_id = crtcs[i];
}

/* Takes the connector if it has a monitor and the mode. */
static void try_connector(struct kms *kms, uint32_t connector_id,
			  unsigned int width, unsigned int height,
			  const uint32_t *crtcs, unsigned int nr_crtcs)
{
	struct drm_mode_modeinfo modes[MAX_MODES];
	uint32_t encoders[MAX_OBJECTS];
	struct drm_mode_get_connector connector = {
		.connector_id = connector_id,
	};
	unsigned int i;

	/* Only when asked for no modes, DRM looks for a monitor. */
	drm_ioctl(kms, DRM_IOCTL_MODE_GETCONNECTOR, &connector,
		  "find the modes");
	if (connector.connection != 1 || connector.count_modes > MAX_MODES ||
	    connector.count_encoders > MAX_OBJECTS)
		return;
	connector.modes_ptr = (uintptr_t)modes;
	connector.encoders_ptr = (uintptr_t)encoders;
	connector.count_props = 0;
	drm_ioctl(kms, DRM_IOCTL_MODE_GETCONNECTOR, &connector,
		  "tell the modes");
	if (!find_mode(kms, modes, connector.count_modes, width, height))
		return;
	for (i = 0; i < connector.count_encoders && !kms->crtc_id; i++)
		find_crtc(kms, encoders[i], crtcs, nr_crtcs);
	kms->connector_id = connector_id;
}

void kms_open(struct kms *kms, const char *path, unsigned int width,
	      unsigned int height)
{
	uint32_t connectors[MAX_OBJECTS];
	uint32_t crtcs[MAX_OBJECTS];
	struct drm_mode_card_res resources = {
		.connector_id_ptr = (uintptr_t)connectors,
		.count_connectors = MAX_OBJECTS,
		.crtc_id_ptr = (uintptr_t)crtcs,
		.count_crtcs = MAX_OBJECTS,
	};
	unsigned int i;

	memset(kms, 0, sizeof(*kms));
	kms->fd = open(path, O_RDWR | O_CLOEXEC);
	if (kms->fd < 0)
		err(EXIT_FAILURE, "%s", path);
	drm_ioctl(kms, DRM_IOCTL_MODE_GETRESOURCES, &resources,
		  "tell what screens it has");
	for (i = 0; i < resources.count_connectors && !kms->crtc_id; i++)
		try_connector(kms, connectors[i], width, height, crtcs,
			      resources.count_crtcs);
	if (!kms->crtc_id)
		errx(EXIT_FAILURE, "%s has no screen with %ux%u pixels", path,
		     width, height);
}

void kms_import(struct kms *kms, int dmabuf)
{
	struct drm_prime_handle prime = { .fd = dmabuf };

	drm_ioctl(kms, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime,
		  "import the dma-buf");
	kms->handle = prime.handle;
}

uint32_t kms_add_frame(struct kms *kms, size_t offset, unsigned int stride)
{
	struct drm_mode_fb_cmd2 framebuffer = {
		.width = kms->mode.hdisplay,
		.height = kms->mode.vdisplay,
		.pixel_format = DRM_FORMAT_XRGB8888,
		.handles = { kms->handle },
		.offsets = { offset },
		.pitches = { stride },
	};

	drm_ioctl(kms, DRM_IOCTL_MODE_ADDFB2, &framebuffer,
		  "make a framebuffer of the dma-buf");
	return framebuffer.fb_id;
}

static void set_mode(struct kms *kms, uint32_t framebuffer)
{
	struct drm_mode_crtc crtc = {
		.crtc_id = kms->crtc_id,
		.fb_id = framebuffer,
		.set_connectors_ptr = (uintptr_t)&kms->connector_id,
		.count_connectors = 1,
		.mode = kms->mode,
		.mode_valid = 1,
	};

	drm_ioctl(kms, DRM_IOCTL_MODE_SETCRTC, &crtc, "set the mode");
}

/* The event tells that the frame before has left the screen. */
static void flip_to(struct kms *kms, uint32_t framebuffer)
{
	struct drm_mode_crtc_page_flip page_flip = {
		.crtc_id = kms->crtc_id,
		.fb_id = framebuffer,
		.flags = DRM_MODE_PAGE_FLIP_EVENT,
	};
	struct drm_event_vblank event;

	drm_ioctl(kms, DRM_IOCTL_MODE_PAGE_FLIP, &page_flip,
		  "flip to the frame");
	if (read(kms->fd, &event, sizeof(event)) != sizeof(event) ||
	    event.base.type != DRM_EVENT_FLIP_COMPLETE)
		errx(EXIT_FAILURE, "DRM does not tell of the flip");
}

void kms_show(struct kms *kms, uint32_t framebuffer)
{
	if (kms->shows)
		flip_to(kms, framebuffer);
	else
		set_mode(kms, framebuffer);
	kms->shows = 1;
}

void kms_close(struct kms *kms)
{
	close(kms->fd);
}

// SPDX-License-Identifier: GPL-2.0
#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kms.h"

/* More than any device has. */
#define MAX_OBJECTS	64
#define MAX_MODES	256

static int drm_ioctl(struct kms *kms, unsigned long request, void *argument)
{
	return ioctl(kms->fd, request, argument) ? -errno : 0;
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
static int find_crtc(struct kms *kms, uint32_t encoder_id,
		     const uint32_t *crtcs, unsigned int nr_crtcs)
{
	struct drm_mode_get_encoder encoder = { .encoder_id = encoder_id };
	int ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETENCODER, &encoder);
	unsigned int i;

	for (i = 0; !ret && i < nr_crtcs && !kms->crtc_id; i++)
		if (encoder.possible_crtcs & (1U << i))
			kms->crtc_id = crtcs[i];
	return ret;
}

/* Takes the connector if it has a monitor and the mode. */
static int try_connector(struct kms *kms, uint32_t connector_id,
			 unsigned int width, unsigned int height,
			 const uint32_t *crtcs, unsigned int nr_crtcs)
{
	struct drm_mode_modeinfo modes[MAX_MODES];
	uint32_t encoders[MAX_OBJECTS];
	struct drm_mode_get_connector connector = {
		.connector_id = connector_id,
	};
	unsigned int i;
	int ret;

	/* Only when asked for no modes, DRM looks for a monitor. */
	ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETCONNECTOR, &connector);
	if (ret || connector.connection != 1 || connector.count_modes > MAX_MODES ||
	    connector.count_encoders > MAX_OBJECTS)
		return ret;
	connector.modes_ptr = (uintptr_t)modes;
	connector.encoders_ptr = (uintptr_t)encoders;
	connector.count_props = 0;
	ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETCONNECTOR, &connector);
	if (ret || !find_mode(kms, modes, connector.count_modes, width, height))
		return ret;
	for (i = 0; !ret && i < connector.count_encoders && !kms->crtc_id; i++)
		ret = find_crtc(kms, encoders[i], crtcs, nr_crtcs);
	kms->connector_id = connector_id;
	return ret;
}

int kms_open(struct kms *kms, const char *path, unsigned int width,
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
	int ret;

	memset(kms, 0, sizeof(*kms));
	kms->fd = open(path, O_RDWR | O_CLOEXEC);
	if (kms->fd < 0)
		return -errno;
	ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETRESOURCES, &resources);
	for (i = 0; !ret && i < resources.count_connectors && !kms->crtc_id; i++)
		ret = try_connector(kms, connectors[i], width, height, crtcs,
				    resources.count_crtcs);
	if (!ret && !kms->crtc_id)
		ret = -ENODEV;
	if (ret)
		close(kms->fd);
	return ret;
}

void kms_close(struct kms *kms)
{
	close(kms->fd);
}

int kms_import(struct kms *kms, int dmabuf, uint32_t *handle)
{
	struct drm_prime_handle prime = { .fd = dmabuf };
	int ret = drm_ioctl(kms, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime);

	if (!ret)
		*handle = prime.handle;
	return ret;
}

int kms_drop(struct kms *kms, uint32_t handle)
{
	struct drm_gem_close drop = { .handle = handle };

	return drm_ioctl(kms, DRM_IOCTL_GEM_CLOSE, &drop);
}

int kms_add_frame(struct kms *kms, uint32_t handle, size_t offset, unsigned int stride,
		  uint32_t *frame)
{
	struct drm_mode_fb_cmd2 framebuffer = {
		.width = kms->mode.hdisplay,
		.height = kms->mode.vdisplay,
		.pixel_format = DRM_FORMAT_XRGB8888,
		.handles = { handle },
		.offsets = { offset },
		.pitches = { stride },
	};
	int ret = drm_ioctl(kms, DRM_IOCTL_MODE_ADDFB2, &framebuffer);

	if (!ret)
		*frame = framebuffer.fb_id;
	return ret;
}

int kms_remove_frame(struct kms *kms, uint32_t frame)
{
	unsigned int id = frame;

	return drm_ioctl(kms, DRM_IOCTL_MODE_RMFB, &id);
}

int kms_show(struct kms *kms, uint32_t frame)
{
	struct drm_mode_crtc crtc = {
		.crtc_id = kms->crtc_id,
		.fb_id = frame,
		.set_connectors_ptr = (uintptr_t)&kms->connector_id,
		.count_connectors = 1,
		.mode = kms->mode,
		.mode_valid = 1,
	};

	return drm_ioctl(kms, DRM_IOCTL_MODE_SETCRTC, &crtc);
}

int kms_flip(struct kms *kms, uint32_t frame, struct drm_event_vblank *event)
{
	struct drm_mode_crtc_page_flip page_flip = {
		.crtc_id = kms->crtc_id,
		.fb_id = frame,
		.flags = DRM_MODE_PAGE_FLIP_EVENT,
	};
	int ret = drm_ioctl(kms, DRM_IOCTL_MODE_PAGE_FLIP, &page_flip);

	if (ret)
		return ret;
	if (read(kms->fd, event, sizeof(*event)) != sizeof(*event) ||
	    event->base.type != DRM_EVENT_FLIP_COMPLETE)
		return -EIO;
	return 0;
}

int pl111_base(uint32_t *address)
{
	FILE *regs = fopen("/sys/kernel/debug/dri/0/regs", "re");
	int ret = -ENOENT;
	char line[80];

	if (!regs)
		return -errno;
	while (ret && fgets(line, sizeof(line), regs))
		if (sscanf(line, "CLCD_UBAS (%*[0-9a-fx]): %" SCNx32, address) == 1)
			ret = 0;
	fclose(regs);
	return ret;
}

// SPDX-License-Identifier: GPL-2.0
#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kms.h"

/* More than any device has. */
#define MAX_OBJECTS	64
#define MAX_MODES	256
#define MAX_PROPERTIES	64

/* An emulated CPU composes a picture of 640x480 in less than a second. */
#define WRITE_BACK_MS	60000

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

/* The connectors and the CRTCs of a device. */
struct objects {
	uint32_t connectors[MAX_OBJECTS];
	uint32_t crtcs[MAX_OBJECTS];
	unsigned int nr_connectors;
	unsigned int nr_crtcs;
};

static int get_objects(struct kms *kms, struct objects *objects)
{
	struct drm_mode_card_res resources = {
		.connector_id_ptr = (uintptr_t)objects->connectors,
		.count_connectors = MAX_OBJECTS,
		.crtc_id_ptr = (uintptr_t)objects->crtcs,
		.count_crtcs = MAX_OBJECTS,
	};
	int ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETRESOURCES, &resources);

	objects->nr_connectors = resources.count_connectors;
	objects->nr_crtcs = resources.count_crtcs;
	return ret;
}

int kms_open(struct kms *kms, const char *path, unsigned int width,
	     unsigned int height)
{
	struct objects objects;
	unsigned int i;
	int ret;

	memset(kms, 0, sizeof(*kms));
	kms->fd = open(path, O_RDWR | O_CLOEXEC);
	if (kms->fd < 0)
		return -errno;
	ret = get_objects(kms, &objects);
	for (i = 0; !ret && i < objects.nr_connectors && !kms->crtc_id; i++)
		ret = try_connector(kms, objects.connectors[i], width, height, objects.crtcs,
				    objects.nr_crtcs);
	if (!ret && !kms->crtc_id)
		ret = -ENODEV;
	if (ret)
		close(kms->fd);
	return ret;
}

static bool is_driver(const char *path, const char *driver)
{
	char name[32] = "";
	struct drm_version version = { .name = name, .name_len = sizeof(name) - 1 };
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool is = !ioctl(fd, DRM_IOCTL_VERSION, &version) && !strcmp(name, driver);

	close(fd);
	return is;
}

int kms_open_driver(struct kms *kms, const char *driver, unsigned int width,
		    unsigned int height)
{
	char path[32];

	for (int i = 0; i < 16; i++) {
		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		if (is_driver(path, driver))
			return kms_open(kms, path, width, height);
	}
	return -ENODEV;
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

static int add_framebuffer(struct kms *kms, struct drm_mode_fb_cmd2 *framebuffer,
			   uint32_t *frame)
{
	int ret;

	framebuffer->width = kms->mode.hdisplay;
	framebuffer->height = kms->mode.vdisplay;
	ret = drm_ioctl(kms, DRM_IOCTL_MODE_ADDFB2, framebuffer);
	if (!ret)
		*frame = framebuffer->fb_id;
	return ret;
}

int kms_add_frame(struct kms *kms, uint32_t handle, size_t offset, unsigned int stride,
		  uint32_t *frame)
{
	struct drm_mode_fb_cmd2 framebuffer = {
		.pixel_format = DRM_FORMAT_XRGB8888,
		.handles = { handle },
		.offsets = { offset },
		.pitches = { stride },
	};

	return add_framebuffer(kms, &framebuffer, frame);
}

int kms_add_nv12(struct kms *kms, uint32_t handle, size_t chroma, unsigned int stride,
		 uint32_t *frame)
{
	struct drm_mode_fb_cmd2 framebuffer = {
		.pixel_format = DRM_FORMAT_NV12,
		.handles = { handle, handle },
		.offsets = { 0, chroma },
		.pitches = { stride, stride },
	};

	return add_framebuffer(kms, &framebuffer, frame);
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

/* --- writeback --- */

/* The mode of the first CRTC in use. */
static int find_crtc_in_use(struct kms *kms, const struct objects *objects)
{
	struct drm_mode_crtc crtc;
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < objects->nr_crtcs && !kms->crtc_id; i++) {
		crtc = (struct drm_mode_crtc) { .crtc_id = objects->crtcs[i] };
		ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETCRTC, &crtc);
		if (!ret && crtc.mode_valid) {
			kms->crtc_id = objects->crtcs[i];
			kms->mode = crtc.mode;
		}
	}
	return ret;
}

static int find_writeback(struct kms *kms, const struct objects *objects)
{
	struct drm_mode_get_connector connector;
	struct drm_mode_modeinfo mode;
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < objects->nr_connectors && !kms->connector_id; i++) {
		/* With room for a mode, DRM does not look for a monitor. */
		connector = (struct drm_mode_get_connector) {
			.connector_id = objects->connectors[i],
			.modes_ptr = (uintptr_t)&mode,
			.count_modes = 1,
		};
		ret = drm_ioctl(kms, DRM_IOCTL_MODE_GETCONNECTOR, &connector);
		if (!ret && connector.connector_type == DRM_MODE_CONNECTOR_WRITEBACK)
			kms->connector_id = objects->connectors[i];
	}
	return ret;
}

/* Sets connector, CRTC and mode for the connector that writes back. */
static int find_screen_to_write(struct kms *kms)
{
	struct objects objects;
	struct drm_set_client_cap atomic = { DRM_CLIENT_CAP_ATOMIC, 1 };
	struct drm_set_client_cap writeback = { DRM_CLIENT_CAP_WRITEBACK_CONNECTORS, 1 };
	int ret = drm_ioctl(kms, DRM_IOCTL_SET_CLIENT_CAP, &atomic);

	if (!ret)
		ret = drm_ioctl(kms, DRM_IOCTL_SET_CLIENT_CAP, &writeback);
	if (!ret)
		ret = get_objects(kms, &objects);
	if (!ret)
		ret = find_crtc_in_use(kms, &objects);
	if (!ret)
		ret = find_writeback(kms, &objects);
	if (ret)
		return ret;
	return kms->crtc_id && kms->connector_id ? 0 : -ENODEV;
}

/* The number of the connector's property of that name; 0: it has none. */
static uint32_t find_property(struct kms *kms, const char *name)
{
	uint32_t ids[MAX_PROPERTIES];
	uint64_t values[MAX_PROPERTIES];
	struct drm_mode_obj_get_properties properties = {
		.props_ptr = (uintptr_t)ids,
		.prop_values_ptr = (uintptr_t)values,
		.count_props = MAX_PROPERTIES,
		.obj_id = kms->connector_id,
		.obj_type = DRM_MODE_OBJECT_CONNECTOR,
	};
	unsigned int i;

	if (drm_ioctl(kms, DRM_IOCTL_MODE_OBJ_GETPROPERTIES, &properties) ||
	    properties.count_props > MAX_PROPERTIES)
		return 0;
	for (i = 0; i < properties.count_props; i++) {
		struct drm_mode_get_property property = { .prop_id = ids[i] };

		if (!drm_ioctl(kms, DRM_IOCTL_MODE_GETPROPERTY, &property) &&
		    !strcmp(property.name, name))
			return ids[i];
	}
	return 0;
}

/* Sets the connector's @nr properties @names to @values, all at once. */
static int set_properties(struct kms *kms, const char *const *names, const uint64_t *values,
			  uint32_t nr)
{
	uint32_t ids[MAX_PROPERTIES];
	struct drm_mode_atomic commit = {
		.flags = DRM_MODE_ATOMIC_ALLOW_MODESET,
		.count_objs = 1,
		.objs_ptr = (uintptr_t)&kms->connector_id,
		.count_props_ptr = (uintptr_t)&nr,
		.props_ptr = (uintptr_t)ids,
		.prop_values_ptr = (uintptr_t)values,
	};
	unsigned int i;

	for (i = 0; i < nr; i++) {
		ids[i] = find_property(kms, names[i]);
		if (!ids[i])
			return -ENODEV;
	}
	return drm_ioctl(kms, DRM_IOCTL_MODE_ATOMIC, &commit);
}

/* Returns when the display has written into the frame. */
static int write_to_frame(struct kms *kms, uint32_t frame)
{
	static const char *const names[] = {
		"CRTC_ID", "WRITEBACK_FB_ID", "WRITEBACK_OUT_FENCE_PTR",
	};
	int32_t fence = -1;
	uint64_t values[] = { kms->crtc_id, frame, (uintptr_t)&fence };
	uint64_t none = 0;
	struct pollfd done = { .events = POLLIN };
	int ret = set_properties(kms, names, values, 3);

	if (ret)
		return ret;
	done.fd = fence;
	if (poll(&done, 1, WRITE_BACK_MS) != 1)
		ret = -ETIMEDOUT;
	close(fence);
	return set_properties(kms, names, &none, 1) ?: ret;
}

int kms_write_back(int fd, uint32_t **pixels, unsigned int *width, unsigned int *height)
{
	struct kms kms = { .fd = fd };
	struct drm_mode_create_dumb dumb = { .bpp = 32 };
	struct drm_mode_map_dumb place = { 0 };
	struct drm_mode_destroy_dumb destroy;
	uint32_t frame, *seen = MAP_FAILED;
	unsigned int row;
	int ret = find_screen_to_write(&kms);

	if (ret)
		return ret;
	*width = dumb.width = kms.mode.hdisplay;
	*height = dumb.height = kms.mode.vdisplay;
	ret = drm_ioctl(&kms, DRM_IOCTL_MODE_CREATE_DUMB, &dumb);
	if (ret)
		return ret;
	place.handle = dumb.handle;
	destroy.handle = dumb.handle;
	*pixels = malloc(*width * *height * sizeof(**pixels));
	ret = *pixels ? kms_add_frame(&kms, dumb.handle, 0, dumb.pitch, &frame) : -ENOMEM;
	if (!ret) {
		ret = write_to_frame(&kms, frame);
		kms_remove_frame(&kms, frame);
	}
	if (!ret)
		ret = drm_ioctl(&kms, DRM_IOCTL_MODE_MAP_DUMB, &place);
	if (!ret) {
		seen = mmap(NULL, dumb.size, PROT_READ, MAP_SHARED, fd, place.offset);
		ret = seen == MAP_FAILED ? -errno : 0;
	}
	for (row = 0; !ret && row < *height; row++)
		memcpy(*pixels + row * *width, seen + row * (dumb.pitch / 4), *width * 4);
	if (seen != MAP_FAILED)
		munmap(seen, dumb.size);
	drm_ioctl(&kms, DRM_IOCTL_MODE_DESTROY_DUMB, &destroy);
	if (ret) {
		free(*pixels);
		*pixels = NULL;
	}
	return ret;
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

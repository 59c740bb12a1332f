// SPDX-License-Identifier: GPL-2.0
/* One screen of a DRM device that can import dma-bufs. */
#include <drm_fourcc.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xf86drm.h>

#include "display.h"
#include "vmemexp-common.h"

static void complain(const struct display *display, const char *what)
{
	int error = errno;

	warnx("%s (%s) %s: %s (%s)", display->path, display->driver, what,
	      strerror(error), errno_name(error));
	errno = error;
}

static bool can_import(const struct display *display)
{
	uint64_t prime;

	if (drmGetCap(display->fd, DRM_CAP_PRIME, &prime) ||
	    !(prime & DRM_PRIME_CAP_IMPORT)) {
		warnx("%s (%s) cannot import dma-bufs", display->path,
		      display->driver);
		return false;
	}
	return true;
}

static bool choose_mode(struct display *display, drmModeConnector *connector,
			const struct display_wish *wish)
{
	const drmModeModeInfo *chosen = NULL;
	int i;

	for (i = 0; i < connector->count_modes && !chosen; i++)
		if (connector->modes[i].hdisplay == wish->width &&
		    connector->modes[i].vdisplay == wish->height)
			chosen = &connector->modes[i];
	if (!chosen && wish->required) {
		warnx("%s (%s): %s has no mode of %ux%u", display->path,
		      display->driver, display->connector_name, wish->width,
		      wish->height);
		return false;
	}
	for (i = 0; i < connector->count_modes && !chosen; i++)
		if (connector->modes[i].type & DRM_MODE_TYPE_PREFERRED)
			chosen = &connector->modes[i];

	display->mode = chosen ? *chosen : connector->modes[0];
	return true;
}

/* The first CRTC that one of the connector's encoders can be fed from. */
static uint32_t choose_crtc(int fd, drmModeRes *resources,
			    drmModeConnector *connector)
{
	uint32_t possible = 0;
	int i;

	for (i = 0; i < connector->count_encoders; i++) {
		drmModeEncoder *encoder =
			drmModeGetEncoder(fd, connector->encoders[i]);

		if (encoder)
			possible |= encoder->possible_crtcs;
		drmModeFreeEncoder(encoder);
	}
	for (i = 0; i < resources->count_crtcs; i++)
		if (possible & (1U << i))
			return resources->crtcs[i];
	return 0;
}

static bool choose_output(struct display *display, drmModeRes *resources,
			  const struct display_wish *wish)
{
	drmModeConnector *connector = NULL;
	bool ok;
	int i;

	for (i = 0; i < resources->count_connectors; i++) {
		connector = drmModeGetConnector(display->fd,
						resources->connectors[i]);
		/* Ignore the status of a connector that the user named: it may be wrong. */
		if (connector && connector->count_modes &&
		    (wish->connector_id ?
		     wish->connector_id == connector->connector_id :
		     connector->connection == DRM_MODE_CONNECTED))
			break;
		drmModeFreeConnector(connector);
		connector = NULL;
	}
	if (!connector) {
		warnx("%s (%s) has no connector with %s", display->path,
		      display->driver,
		      wish->connector_id ? "this number and modes" :
		      "a monitor");
		return false;
	}

	snprintf(display->connector_name, sizeof(display->connector_name),
		 "%s-%u", drmModeGetConnectorTypeName(connector->connector_type),
		 connector->connector_type_id);
	display->connector_id = connector->connector_id;
	display->crtc_id = choose_crtc(display->fd, resources, connector);
	ok = display->crtc_id && choose_mode(display, connector, wish);
	if (!display->crtc_id)
		warnx("%s (%s) has no CRTC for %s", display->path,
		      display->driver, display->connector_name);
	drmModeFreeConnector(connector);
	return ok;
}

int display_open(struct display *display, const char *path,
		 const struct display_wish *wish)
{
	drmModeRes *resources;
	drmVersion *version;
	bool ok;

	memset(display, 0, sizeof(*display));
	snprintf(display->path, sizeof(display->path), "%s", path);
	display->fd = open(path, O_RDWR | O_CLOEXEC);
	if (display->fd < 0) {
		warn("%s", path);
		return -1;
	}

	version = drmGetVersion(display->fd);
	if (!version) {
		warnx("%s is not a DRM device", path);
		goto err_close;
	}
	snprintf(display->driver, sizeof(display->driver), "%s", version->name);
	drmFreeVersion(version);

	if (!can_import(display))
		goto err_close;

	resources = drmModeGetResources(display->fd);
	if (!resources) {
		warnx("%s (%s) has no screens", path, display->driver);
		goto err_close;
	}
	ok = choose_output(display, resources, wish);
	drmModeFreeResources(resources);
	if (!ok)
		goto err_close;

	display->saved = drmModeGetCrtc(display->fd, display->crtc_id);
	return 0;

err_close:
	close(display->fd);
	return -1;
}

int display_import(struct display *display, int dmabuf, uint32_t pitch)
{
	uint32_t pitches[4] = { pitch };
	uint32_t handles[4] = { };
	uint32_t offsets[4] = { };

	if (drmPrimeFDToHandle(display->fd, dmabuf, &display->handle)) {
		complain(display, "does not import the dma-buf");
		return -1;
	}
	handles[0] = display->handle;
	if (drmModeAddFB2(display->fd, display->mode.hdisplay,
			  display->mode.vdisplay, DRM_FORMAT_XRGB8888, handles,
			  pitches, offsets, &display->fb_id, 0)) {
		complain(display, "does not take the dma-buf as a framebuffer");
		return -1;
	}
	return 0;
}

int display_show(struct display *display)
{
	if (!drmModeSetCrtc(display->fd, display->crtc_id, display->fb_id, 0, 0,
			    &display->connector_id, 1, &display->mode))
		return 0;

	if (errno == EACCES || errno == EPERM)
		warnx("%s (%s) is in use by another program, such as a desktop",
		      display->path, display->driver);
	else
		complain(display, "does not show the frame");
	return -1;
}

void display_close(struct display *display)
{
	const drmModeCrtc *saved = display->saved;

	if (saved && saved->mode_valid && saved->buffer_id)
		drmModeSetCrtc(display->fd, saved->crtc_id, saved->buffer_id,
			       saved->x, saved->y, &display->connector_id, 1,
			       &display->saved->mode);
	drmModeFreeCrtc(display->saved);

	/* Removing the framebuffer turns off what still shows it. */
	if (display->fb_id)
		drmModeRmFB(display->fd, display->fb_id);
	if (display->handle)
		drmCloseBufferHandle(display->fd, display->handle);
	close(display->fd);
}

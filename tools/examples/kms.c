// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * kms: memory from posix_memalign() on a screen, without a copy
 *
 *   cc kms.c -o kms $(pkg-config --cflags --libs libvmemexp libdrm)
 *   ./kms /dev/dri/card0                until the input ends (Ctrl-D)
 *   ./kms /dev/dri/card0 COMMAND        until the shell has run COMMAND
 *
 * Wants the DRM device for itself: no desktop on it.
 */
#include <drm_fourcc.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#include <libvmemexp.h>

/* A display without an IOMMU needs one contiguous extent: huge pages are the way to that. */
#define HUGE_PAGE	(2UL << 20)

struct screen {
	int fd;
	uint32_t connector;
	uint32_t crtc;
	drmModeModeInfo mode;
};

/* The first connector with a monitor, and the CRTC that it can have. */
static void find_screen(struct screen *screen)
{
	drmModeRes *resources = drmModeGetResources(screen->fd);
	drmModeEncoder *encoder;
	int i, crtc;

	if (!resources)
		err(EXIT_FAILURE, "no screens");
	for (i = 0; i < resources->count_connectors && !screen->crtc; i++) {
		drmModeConnector *connector =
			drmModeGetConnector(screen->fd, resources->connectors[i]);

		if (!connector)
			continue;
		encoder = connector->count_encoders ?
			  drmModeGetEncoder(screen->fd, connector->encoders[0]) : NULL;
		if (encoder && connector->connection == DRM_MODE_CONNECTED &&
		    connector->count_modes) {
			for (crtc = 0; !(encoder->possible_crtcs & 1U << crtc); crtc++)
				;
			screen->connector = connector->connector_id;
			screen->crtc = resources->crtcs[crtc];
			screen->mode = connector->modes[0];
		}
		drmModeFreeEncoder(encoder);
		drmModeFreeConnector(connector);
	}
	drmModeFreeResources(resources);
	if (!screen->crtc)
		errx(EXIT_FAILURE, "no monitor is connected");
}

static void draw(uint32_t *frame, unsigned int width, unsigned int height, size_t pitch)
{
	unsigned int x, y;

	for (y = 0; y < height; y++)
		for (x = 0; x < width; x++)
			frame[y * pitch / 4 + x] = (x & 0xff) << 16 | (y & 0xff) << 8 |
						   ((x / 8 ^ y / 8) & 0xff);
}

/* The driver holds the memory by the framebuffer, until the program ends. */
static void show(const struct screen *screen, int dmabuf, size_t pitch)
{
	uint32_t connector = screen->connector, handle, framebuffer;
	uint32_t handles[4] = { 0 }, pitches[4] = { pitch }, offsets[4] = { 0 };

	if (drmPrimeFDToHandle(screen->fd, dmabuf, &handle))
		err(EXIT_FAILURE, "the driver does not import the dma-buf%s",
		    errno == EINVAL ? " (does it need contiguous memory?)" : "");
	handles[0] = handle;
	if (drmModeAddFB2(screen->fd, screen->mode.hdisplay, screen->mode.vdisplay,
			  DRM_FORMAT_XRGB8888, handles, pitches, offsets, &framebuffer, 0))
		err(EXIT_FAILURE, "the driver does not take it as a framebuffer");
	if (drmModeSetCrtc(screen->fd, screen->crtc, framebuffer, 0, 0, &connector, 1,
			   (drmModeModeInfo *)&screen->mode))
		err(EXIT_FAILURE, "the mode is not set");
}

int main(int argc, char **argv)
{
	struct screen screen = { 0 };
	struct vmemexp_error error;
	struct vmemexp_buf *buf;
	size_t pitch, size;
	struct vmemexp *v;
	char why[256];
	void *frame;
	int status;

	if (argc < 2 || argc > 3)
		errx(2, "usage: kms CARD [COMMAND]");
	screen.fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (screen.fd < 0)
		err(EXIT_FAILURE, "%s", argv[1]);
	find_screen(&screen);

	/* Any memory will do for most drivers. Rows begin where devices like them to. */
	pitch = (screen.mode.hdisplay * 4 + 255) & ~255UL;
	size = vmemexp_aligned_size(pitch * screen.mode.vdisplay);
	if (posix_memalign(&frame, HUGE_PAGE, size))
		errx(EXIT_FAILURE, "no memory");
	madvise(frame, size, MADV_HUGEPAGE);
	draw(frame, screen.mode.hdisplay, screen.mode.vdisplay, pitch);

	v = vmemexp_open(NULL, &error);
	if (!v || vmemexp_export(v, frame, size, 0, &buf, &error))
		errx(EXIT_FAILURE, "no export: %s", vmemexp_strerror(&error, why, sizeof(why)));
	show(&screen, vmemexp_buf_fd(buf), pitch);
	printf("%ux%u pixels from %p are on the screen\n", screen.mode.hdisplay,
	       screen.mode.vdisplay, frame);
	fflush(stdout);

	/* From now on, drawing goes between vmemexp_begin() and vmemexp_end(). */
	if (argc == 3) {
		status = system(argv[2]);
	} else {
		while (getchar() != EOF)
			;
		status = 0;
	}
	vmemexp_buf_unref(buf);
	vmemexp_close(v);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}

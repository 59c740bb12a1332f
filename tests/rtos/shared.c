// SPDX-License-Identifier: GPL-2.0
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uapi/vmemexp.h>

#include "shared.h"

#define EXIT_USAGE		2
/* The machine may be busy: only what does not happen at all takes longer. */
#define RTOS_TIMEOUT_S		60
#define POLL_INTERVAL_US	1000

uint32_t parse_frame(const char *text, uint32_t after)
{
	char *end;
	unsigned long frame = strtoul(text, &end, 10);

	if (*end || frame <= after || frame > INT32_MAX)
		errx(EXIT_USAGE, "no number of a frame above %u: %s", after, text);
	return frame;
}

static void shared_export(struct shared *shared)
{
	struct vmemexp_export export = {
		.size = sizeof(export),
		.flags = VMEMEXP_EXPORT_CONTIGUOUS,
		.vaddr = (uintptr_t)shared->control,
		.length = RTOS_SHARED_SIZE,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};

	shared->device = open("/dev/vmemexp", O_RDWR | O_CLOEXEC);
	if (shared->device < 0)
		err(EXIT_FAILURE, "/dev/vmemexp");
	if (ioctl(shared->device, VMEMEXP_IOC_EXPORT, &export))
		err(EXIT_FAILURE, "the shared memory is not exported (reason %u at %#llx)",
		    export.err_reason, (unsigned long long)export.err_addr);
	shared->dmabuf = export.fd;
	printf("exported: %u bytes of the RTOS, %llu contiguous extent\n",
	       RTOS_SHARED_SIZE, (unsigned long long)export.nr_extents);
}

/* Maps the memory from FILE or FILE@OFFSET. */
static void *shared_map(const char *where, int flags)
{
	char *file = strdup(where), *at = file ? strchr(file, '@') : NULL, *end;
	off64_t offset = 0;
	void *memory;
	int fd;

	if (!file)
		err(EXIT_FAILURE, "%s", where);
	if (at) {
		*at++ = '\0';
		offset = strtoull(at, &end, 0);
		if (end == at || *end)
			errx(EXIT_USAGE, "no offset: %s", at);
	}
	fd = open(file, O_RDWR | O_CLOEXEC | flags);
	if (fd < 0)
		err(EXIT_FAILURE, "%s", file);
	memory = mmap64(NULL, RTOS_SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	if (memory == MAP_FAILED)
		err(EXIT_FAILURE, "%s is not mapped", where);
	close(fd);
	free(file);
	return memory;
}

void shared_open(struct shared *shared, const char *where, int flags)
{
	shared->control = shared_map(where, flags);
	shared_export(shared);
}

void shared_sync(const struct shared *shared, size_t offset, size_t length,
		 unsigned int flags)
{
	struct vmemexp_sync sync = {
		.size = sizeof(sync),
		.fd = shared->dmabuf,
		.flags = flags | VMEMEXP_SYNC_OBSERVER,
		.offset = offset,
		.length = length,
	};

	while (ioctl(shared->device, VMEMEXP_IOC_SYNC, &sync))
		if (errno != EINTR)
			err(EXIT_FAILURE, "the shared memory cannot be synced");
}

uint32_t frames_drawn(const struct shared *shared)
{
	size_t length = offsetof(struct rtos_control, released);
	uint32_t drawn = 0;

	shared_sync(shared, 0, length, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
	if (shared->control->magic == RTOS_MAGIC) {
		if (shared->control->width != RTOS_WIDTH ||
		    shared->control->height != RTOS_HEIGHT ||
		    shared->control->stride != RTOS_STRIDE)
			errx(EXIT_FAILURE, "the RTOS draws frames of another size");
		drawn = shared->control->drawn;
	}
	shared_sync(shared, 0, length, VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ);
	return drawn;
}

void wait_for_frame(const struct shared *shared, uint32_t frame)
{
	int polls = RTOS_TIMEOUT_S * (1000000 / POLL_INTERVAL_US);

	while (frames_drawn(shared) < frame) {
		if (!polls--)
			errx(EXIT_FAILURE, "the RTOS has not drawn frame %u",
			     frame);
		usleep(POLL_INTERVAL_US);
	}
}

/* Only Linux writes it, but what it was at first the driver has written, past the caches. */
uint32_t frames_released(const struct shared *shared)
{
	size_t offset = offsetof(struct rtos_control, released);
	size_t length = sizeof(shared->control->released);
	uint32_t released;

	shared_sync(shared, offset, length, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
	released = shared->control->released;
	shared_sync(shared, offset, length, VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ);
	return released;
}

void release_frame(const struct shared *shared, uint32_t frame)
{
	size_t offset = offsetof(struct rtos_control, released);
	size_t length = sizeof(shared->control->released);

	shared_sync(shared, offset, length, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW);
	shared->control->released = frame;
	shared_sync(shared, offset, length, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW);
}

static void drm(int ret, const char *what)
{
	errno = -ret;
	if (ret)
		err(EXIT_FAILURE, "DRM does not %s", what);
}

void screen_open(struct screen *screen, const char *path, const struct shared *shared)
{
	uint32_t handle;
	int i;

	drm(kms_open(&screen->kms, path, RTOS_WIDTH, RTOS_HEIGHT),
	    "have a screen of this size");
	drm(kms_import(&screen->kms, shared->dmabuf, &handle), "import the dma-buf");
	for (i = 0; i < RTOS_NR_BUFFERS; i++)
		drm(kms_add_frame(&screen->kms, handle, RTOS_FRAME_OFFSET(i), RTOS_STRIDE,
				  &screen->frames[i]), "make a framebuffer of the dma-buf");
	screen->shows = 0;
}

/*
 * The display reads memory, as the RTOS does: there is nothing to sync. A driver that
 * copies by CPU would want a sync of the frame before.
 */
void screen_show(struct screen *screen, uint32_t frame)
{
	uint32_t id = screen->frames[frame % RTOS_NR_BUFFERS];
	struct drm_event_vblank event;

	if (screen->shows)
		drm(kms_flip(&screen->kms, id, &event), "flip to the frame");
	else
		drm(kms_show(&screen->kms, id), "set the mode");
	screen->shows = 1;
}

void screen_close(struct screen *screen)
{
	kms_close(&screen->kms);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * show-frames: what the RTOS draws, on a screen, without a copy
 *
 * Maps the memory that the RTOS shares, exports it once, and has the display's
 * driver import it. Then the frames are shown as the RTOS finishes them. No
 * pixel is read or written by this program.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uapi/vmemexp.h>

#include "kms.h"
#include "../modules/rtos/rtos.h"

#define EXIT_USAGE		2
#define RTOS_TIMEOUT_S		30
#define POLL_INTERVAL_US	1000

/**
 * struct shared - the memory shared with the RTOS
 * @control: its begin, mapped by the driver that has started the RTOS
 * @device: /dev/vmemexp, for the syncs
 * @dmabuf: the memory as a dma-buf
 */
struct shared {
	volatile struct rtos_control *control;
	int device;
	int dmabuf;
};

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

static void shared_map(struct shared *shared)
{
	int fd = open("/dev/vmemexp-rtos", O_RDWR | O_CLOEXEC);
	void *memory;

	if (fd < 0)
		err(EXIT_FAILURE, "/dev/vmemexp-rtos");
	memory = mmap(NULL, RTOS_SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      fd, 0);
	if (memory == MAP_FAILED)
		err(EXIT_FAILURE, "/dev/vmemexp-rtos is not mapped");
	close(fd);
	shared->control = memory;
	shared_export(shared);
}

/*
 * The RTOS sees memory, not the caches of this CPU. @flags say whether access to
 * the range begins or ends, and which access.
 */
static void shared_sync(const struct shared *shared, size_t offset,
			size_t length, unsigned int flags)
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

/* The newest frame that is complete; 0 while there is none. */
static uint32_t frames_drawn(const struct shared *shared)
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

static void wait_for_frame(const struct shared *shared, uint32_t frame)
{
	int polls = RTOS_TIMEOUT_S * (1000000 / POLL_INTERVAL_US);

	while (frames_drawn(shared) < frame) {
		if (!polls--)
			errx(EXIT_FAILURE, "the RTOS has not drawn frame %u",
			     frame);
		usleep(POLL_INTERVAL_US);
	}
}

static void release_frame(const struct shared *shared, uint32_t frame)
{
	size_t offset = offsetof(struct rtos_control, released);
	size_t length = sizeof(shared->control->released);

	shared_sync(shared, offset, length, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW);
	shared->control->released = frame;
	shared_sync(shared, offset, length, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW);
}

/*
 * A display that fetches its pixels by DMA would not need the syncs. Some
 * drivers, QEMU's among them, copy them by CPU, through the caches.
 */
static void show_frame(struct kms *kms, const struct shared *shared,
		       uint32_t frame, const uint32_t *framebuffers)
{
	size_t offset = RTOS_FRAME_OFFSET(frame);

	shared_sync(shared, offset, RTOS_BUFFER_SIZE,
		    VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
	kms_show(kms, framebuffers[frame % RTOS_NR_BUFFERS]);
	shared_sync(shared, offset, RTOS_BUFFER_SIZE,
		    VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ);
}

/*
 * Runs the command while the frame is on the screen. Meanwhile the RTOS goes on
 * as far as it may, which is up to the buffer that is shown.
 */
static void hold_frame(struct kms *kms, const struct shared *shared,
		       uint32_t frame, const uint32_t *framebuffers,
		       const char *command)
{
	uint32_t last = frame + RTOS_NR_BUFFERS - 1;

	wait_for_frame(shared, last);
	/* A driver that copies is to show what is in the buffer by now. */
	show_frame(kms, shared, frame, framebuffers);
	printf("shown:    frame %u; the RTOS has drawn %u\n", frame, last);
	fflush(stdout);
	if (system(command))
		errx(EXIT_FAILURE, "%s failed", command);
	if (frames_drawn(shared) != last)
		errx(EXIT_FAILURE, "the RTOS has drawn over frame %u while it was shown",
		     frame);
}

static uint32_t parse_frame(const char *text, uint32_t after)
{
	char *end;
	unsigned long frame = strtoul(text, &end, 10);

	if (*end || frame <= after || frame > INT32_MAX)
		errx(EXIT_USAGE, "no number of a frame above %u: %s", after, text);
	return frame;
}

int main(int argc, char **argv)
{
	uint32_t framebuffers[RTOS_NR_BUFFERS];
	struct shared shared;
	uint32_t frame, stop_at;
	struct kms kms;
	int i;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: show-frames CARD COMMAND FRAME...\n"
		     "Show the frames of the RTOS on the screen of CARD (/dev/dri/card0), one after\n"
		     "the other. At each FRAME, wait until the shell has run COMMAND. End behind the\n"
		     "last. Exits with 0 if all went well.");
		return EXIT_SUCCESS;
	}
	if (argc < 4)
		errx(EXIT_USAGE, "arguments are missing (try show-frames --help)");

	shared_map(&shared);
	kms_open(&kms, argv[1], RTOS_WIDTH, RTOS_HEIGHT);
	kms_import(&kms, shared.dmabuf);
	for (i = 0; i < RTOS_NR_BUFFERS; i++)
		framebuffers[i] = kms_add_frame(&kms, RTOS_FRAME_OFFSET(i),
						RTOS_STRIDE);

	frame = 0;
	for (i = 3; i < argc; i++) {
		stop_at = parse_frame(argv[i], frame);
		while (frame < stop_at) {
			wait_for_frame(&shared, ++frame);
			show_frame(&kms, &shared, frame, framebuffers);
			/* The frame before has left the screen. */
			release_frame(&shared, frame - 1);
		}
		hold_frame(&kms, &shared, frame, framebuffers, argv[2]);
	}
	kms_close(&kms);
	return EXIT_SUCCESS;
}

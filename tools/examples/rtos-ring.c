// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * rtos-ring: frames from a processor beside Linux, in memory that Linux does not own
 *
 *   cc -o rtos-ring rtos-ring.c $(pkg-config --cflags --libs libvmemexp)
 *   ./rtos-ring /dev/vmemexp-rtos 5 >frames
 *
 * The device is that of whatever driver maps the carve-out, which carveouts= of the
 * vmemexp module must list. The other processor writes frames into a ring of buffers
 * behind a page with counters. Each side writes to a cache line of its own. The dma-buf
 * is for whoever is to have the frames; here the CPU reads them. The other processor sees
 * memory and not this CPU's caches, so every access is bracketed, by OBSERVER.
 */
#include <err.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <libvmemexp.h>

/* As agreed upon with the program on the other processor. */
#define MAGIC		0x534f5452
#define NR_BUFFERS	3
#define CONTROL_SIZE	4096
#define FRAME_SIZE	(640 * 480 * 4)
#define SHARED_SIZE	(CONTROL_SIZE + NR_BUFFERS * FRAME_SIZE)
#define CACHE_LINE	64

struct control {
	/* Written by the other processor. */
	uint32_t magic, width, height, stride;
	uint32_t drawn;		/* the newest frame that is complete, from 1 on */
	uint32_t unused[CACHE_LINE / 4 - 5];
	/* Written by Linux. */
	uint32_t released;	/* this frame and older ones may be drawn over */
};

struct ring {
	volatile struct control *control;
	const uint8_t *memory;
	struct vmemexp_buf *buf;
};

static void begin(const struct ring *ring, unsigned int rw, size_t offset, size_t length)
{
	struct vmemexp_area area = { .offset = offset, .length = length, .rows = 1 };

	if (vmemexp_begin(ring->buf, rw | VMEMEXP_SYNC_OBSERVER, &area))
		err(EXIT_FAILURE, "no access to the ring");
}

static void end(const struct ring *ring)
{
	if (vmemexp_end(ring->buf))
		err(EXIT_FAILURE, "the ring is not given back");
}

static void open_ring(struct ring *ring, struct vmemexp *v, const char *path)
{
	struct vmemexp_error error;
	char why[256];
	void *memory;
	int fd;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(EXIT_FAILURE, "%s", path);
	memory = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(EXIT_FAILURE, "%s is not mapped", path);
	close(fd);
	ring->memory = memory;
	ring->control = memory;
	if (vmemexp_export(v, memory, SHARED_SIZE, VMEMEXP_CONTIGUOUS, &ring->buf, &error))
		errx(EXIT_FAILURE, "no export: %s", vmemexp_strerror(&error, why, sizeof(why)));
}

/* The newest frame that is complete; 0 while there is none. */
static uint32_t frames_drawn(const struct ring *ring)
{
	uint32_t drawn;

	begin(ring, VMEMEXP_SYNC_READ, 0, CACHE_LINE);
	drawn = ring->control->magic == MAGIC ? ring->control->drawn : 0;
	end(ring);
	return drawn;
}

/* A real one would sleep until the other processor interrupts. */
static void wait_for(const struct ring *ring, uint32_t frame)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	while (frames_drawn(ring) < frame)
		nanosleep(&pause, NULL);
}

static void consume(const struct ring *ring, uint32_t frame)
{
	size_t offset = CONTROL_SIZE + frame % NR_BUFFERS * FRAME_SIZE;

	begin(ring, VMEMEXP_SYNC_READ, offset, FRAME_SIZE);
	if (fwrite(ring->memory + offset, FRAME_SIZE, 1, stdout) != 1)
		err(EXIT_FAILURE, "frame %u is not written", frame);
	end(ring);

	/* The other processor may draw over it from now on. */
	begin(ring, VMEMEXP_SYNC_RW, offsetof(struct control, released), sizeof(uint32_t));
	ring->control->released = frame;
	end(ring);
}

int main(int argc, char **argv)
{
	struct vmemexp_error error;
	struct ring ring = { 0 };
	uint32_t frame, frames;
	struct vmemexp *v;
	char why[256];

	if (argc != 3)
		errx(2, "usage: rtos-ring DEVICE FRAMES");
	frames = strtoul(argv[2], NULL, 10);
	v = vmemexp_open(NULL, &error);
	if (!v)
		errx(EXIT_FAILURE, "%s", vmemexp_strerror(&error, why, sizeof(why)));
	open_ring(&ring, v, argv[1]);

	for (frame = 1; frame <= frames; frame++) {
		wait_for(&ring, frame);
		consume(&ring, frame);
	}
	if (fflush(stdout))
		err(EXIT_FAILURE, "not written");
	vmemexp_buf_unref(ring.buf);
	vmemexp_close(v);
	return EXIT_SUCCESS;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * scan-out: what holds of a display that fetches the frames of the RTOS by itself
 *
 * Goes through three scenes, and ends with a message if one of them is not as it has to
 * be. The pictures that it has the host take, check-frames compares.
 */
#include <err.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <uapi/vmemexp.h>

#include "../lib/screendump.h"
#include "shared.h"

#define EXIT_USAGE	2
#define TRACING		"/sys/kernel/tracing"
#define NR_IOCTL	54
/* Less than this of the CPU's time is what Linux does for itself. */
#define MIN_IDLE_PERCENT	60

/* The pixel that is changed; it is in none of the squares. */
#define PIXEL_X		333
#define PIXEL_Y		222

/**
 * struct scene - what all scenes need
 * @shared: the memory
 * @screen: the display
 * @address: physical address of the memory
 * @frame: which one is on the screen; 0: none
 */
struct scene {
	struct shared shared;
	struct screen screen;
	uint32_t address;
	uint32_t frame;
};

/* Does it fetch the frame that it was told to show, from the memory itself? */
static void expect_base(const struct scene *scene)
{
	uint32_t due = scene->address + RTOS_FRAME_OFFSET(scene->frame);
	uint32_t base;
	int ret = pl111_base(&base);

	if (ret)
		errx(EXIT_FAILURE, "no base register of the display: %s", strerror(-ret));
	if (base != due)
		errx(EXIT_FAILURE, "the display fetches from %#x, and frame %u is at %#x",
		     base, scene->frame, due);
}

/* No CPU has a mapping by which a driver could copy. */
static void expect_dma_alone(const struct scene *scene)
{
	struct vmemexp_query query = { .size = sizeof(query), .fd = scene->shared.dmabuf };

	if (ioctl(scene->shared.device, VMEMEXP_IOC_QUERY, &query))
		err(EXIT_FAILURE, "the dma-buf is not described");
	if (query.attachments != 1 || query.mappings != 1 || query.vmaps)
		errx(EXIT_FAILURE, "attachments %u, mappings %u, vmaps %u of the dma-buf",
		     query.attachments, query.mappings, query.vmaps);
}

static volatile uint32_t *pixels_of(const struct scene *scene, uint32_t frame)
{
	return (volatile uint32_t *)((volatile char *)scene->shared.control +
				     RTOS_FRAME_OFFSET(frame));
}

static int has_row(const struct scene *scene, uint32_t frame, unsigned int y)
{
	size_t offset = RTOS_FRAME_OFFSET(frame) + y * RTOS_STRIDE;
	volatile uint32_t *row = pixels_of(scene, frame) + y * RTOS_WIDTH;
	unsigned int x;

	shared_sync(&scene->shared, offset, RTOS_STRIDE, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
	for (x = 0; x < RTOS_WIDTH && row[x] == rtos_pixel(frame, x, y); x++)
		;
	shared_sync(&scene->shared, offset, RTOS_STRIDE, VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ);
	return x == RTOS_WIDTH;
}

/*
 * Shows the newest frame that the RTOS may draw, as soon as it says that it is drawn: its
 * last row is there then. The first row of what is on the screen must be so still. The
 * one between the two is not shown.
 */
static void show_newest(struct scene *scene)
{
	uint32_t newest = frames_released(&scene->shared) + RTOS_NR_BUFFERS;

	wait_for_frame(&scene->shared, newest);
	if (!has_row(scene, newest, RTOS_HEIGHT - 1))
		errx(EXIT_FAILURE, "frame %u is not complete, and said to be", newest);
	if (scene->frame && !has_row(scene, scene->frame, 0))
		errx(EXIT_FAILURE, "frame %u was drawn over while it was shown", scene->frame);
	scene->frame = newest;
	screen_show(&scene->screen, newest);
	expect_base(scene);
	release_frame(&scene->shared, newest - 1);
}

static int begin_pictures(unsigned int count)
{
	int port = screendump_begin(count);

	if (port < 0)
		errx(EXIT_FAILURE, "no pictures can be taken: %s", strerror(-port));
	return port;
}

static void end_pictures(int port)
{
	if (screendump_end(port))
		errx(EXIT_FAILURE, "not all pictures were taken");
}

static int are_pictures_taken(int port)
{
	struct pollfd answer = { .fd = port, .events = POLLIN };

	return poll(&answer, 1, 0) != 0;
}

static void take_pictures(unsigned int count)
{
	end_pictures(begin_pictures(count));
}

/* The host takes pictures whenever it wants to, while this goes from frame to frame. */
static void scene_of_flips(struct scene *scene, unsigned int count)
{
	uint32_t first;
	int pictures;

	show_newest(scene);
	first = scene->frame;
	pictures = begin_pictures(count);
	while (!are_pictures_taken(pictures))
		show_newest(scene);
	end_pictures(pictures);
	printf("flips:    frames %u to %u, each from where it was drawn\n", first,
	       scene->frame);
}

/*
 * A picture before, and one after a bit was changed. Between them there is no call to
 * the kernel but what takes pictures. On a board, the bit might stay in a cache.
 */
static void scene_of_a_bit(struct scene *scene)
{
	volatile uint32_t *pixels;

	show_newest(scene);
	pixels = pixels_of(scene, scene->frame);
	wait_for_frame(&scene->shared, scene->frame + RTOS_NR_BUFFERS - 1);
	take_pictures(1);
	pixels[PIXEL_Y * RTOS_WIDTH + PIXEL_X] ^= 1U << 8;
	take_pictures(1);
	pixels[PIXEL_Y * RTOS_WIDTH + PIXEL_X] ^= 1U << 8;
	expect_base(scene);
	printf("bit:      of frame %u, in column %u, row %u\n", scene->frame, PIXEL_X, PIXEL_Y);
}

static void write_file(const char *path, const char *format, ...)
{
	FILE *file = fopen(path, "we");
	va_list arguments;

	if (!file)
		err(EXIT_FAILURE, "%s", path);
	va_start(arguments, format);
	vfprintf(file, format, arguments);
	va_end(arguments);
	if (fclose(file))
		err(EXIT_FAILURE, "%s", path);
}

/* Ioctls of all processes, from here on. */
static void trace_ioctls(void)
{
	write_file(TRACING "/trace", "\n");
	write_file(TRACING "/events/raw_syscalls/sys_enter/filter", "id == %d", NR_IOCTL);
	write_file(TRACING "/events/raw_syscalls/sys_enter/enable", "1");
}

static unsigned int ioctls_traced(void)
{
	FILE *trace = fopen(TRACING "/trace", "re");
	unsigned int ioctls = 0;
	char line[256];

	if (!trace)
		err(EXIT_FAILURE, TRACING "/trace");
	while (fgets(line, sizeof(line), trace))
		if (strstr(line, "sys_enter: "))
			ioctls++;
	fclose(trace);
	return ioctls;
}

struct cpu_time {
	unsigned long long idle, all;
};

static struct cpu_time get_cpu_time(void)
{
	FILE *stat = fopen("/proc/stat", "re");
	unsigned long long times[8] = {};
	struct cpu_time sum;
	int i;

	if (!stat || fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &times[0],
			    &times[1], &times[2], &times[3], &times[4], &times[5], &times[6],
			    &times[7]) != 8)
		errx(EXIT_FAILURE, "/proc/stat is not as it was");
	fclose(stat);
	sum.idle = times[3] + times[4];
	for (sum.all = 0, i = 0; i < 8; i++)
		sum.all += times[i];
	return sum;
}

/*
 * The RTOS may draw over all that there will ever be, so no program of Linux has anything to do:
 * the display goes on to show one buffer, in which every third frame appears.
 */
static void scene_of_sleep(struct scene *scene, unsigned int count)
{
	struct cpu_time begin, end;
	unsigned int ioctls, idle;
	uint32_t before, after;

	before = frames_drawn(&scene->shared);
	release_frame(&scene->shared, INT32_MAX);
	trace_ioctls();
	begin = get_cpu_time();
	take_pictures(count);
	end = get_cpu_time();
	ioctls = ioctls_traced();
	write_file(TRACING "/events/raw_syscalls/sys_enter/enable", "0");
	after = frames_drawn(&scene->shared);
	idle = (end.idle - begin.idle) * 100 / (end.all - begin.all ?: 1);
	printf("asleep:   Linux, %u %% idle, %u ioctls, while frames %u to %u were drawn\n",
	       idle, ioctls, before + 1, after);
	if (ioctls || idle < MIN_IDLE_PERCENT)
		errx(EXIT_FAILURE, "Linux was not asleep");
	/* By now, there is a newer one in each buffer than in the last picture. */
	wait_for_frame(&scene->shared, after + 2 * RTOS_NR_BUFFERS);
	take_pictures(1);
	expect_base(scene);
}

int main(int argc, char **argv)
{
	struct scene scene = { };

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: scan-out CARD ADDRESS COUNT COUNT\n"
		     "Show frames of the RTOS, whose memory is at the physical ADDRESS, on the screen\n"
		     "of CARD, a PL111. Take the first COUNT of pictures while frames are flipped; one\n"
		     "of a frame that is held, and one of it with a pixel changed; the second COUNT\n"
		     "while the RTOS draws and Linux sleeps; and one more. Exits with 0 if all is as it\n"
		     "has to be.");
		return EXIT_SUCCESS;
	}
	if (argc != 5)
		errx(EXIT_USAGE, "four arguments are needed (try scan-out --help)");

	scene.address = strtoul(argv[2], NULL, 0);
	shared_open(&scene.shared, RTOS_DEVICE, 0);
	screen_open(&scene.screen, argv[1], &scene.shared);
	scene_of_flips(&scene, atoi(argv[3]));
	scene_of_a_bit(&scene);
	scene_of_sleep(&scene, atoi(argv[4]));
	expect_dma_alone(&scene);
	screen_close(&scene.screen);
	return EXIT_SUCCESS;
}

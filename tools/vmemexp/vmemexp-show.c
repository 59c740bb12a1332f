// SPDX-License-Identifier: GPL-2.0
/* vmemexp show: memory from malloc() on a screen, without a copy. */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "display.h"
#include "picture.h"
#include "vmemexp-common.h"

#define THP_PATH	"/sys/kernel/mm/transparent_hugepage"

/* As many device nodes as DRM has had for screens from the beginning. */
#define MAX_CARDS	64

/* Display hardware likes rows that begin at multiples of this. */
#define PITCH_ALIGNMENT	64

struct options {
	const char *device;		/* NULL: whichever can */
	const char *save;		/* NULL: do not */
	const char *ready_command;	/* NULL: wait */
	int seconds;			/* -1: until a key */
	int signals;			/* from catch_signals() */
	struct display_wish wish;
	struct picture picture;		/* .rgb NULL: the test picture */
};

/**
 * struct frame - what the screen shows
 * @width: pixels in a row
 * @height: rows
 * @pitch: bytes from one row to the next
 * @size: bytes, whole pages
 * @memory: from posix_memalign()
 */
struct frame {
	unsigned int width;
	unsigned int height;
	size_t pitch;
	size_t size;
	unsigned char *memory;
};

static size_t round_up(size_t value, size_t multiple)
{
	return (value + multiple - 1) / multiple * multiple;
}

/* XRGB8888 is in memory blue, green, red and an unused byte, on any CPU. */
static void frame_draw(struct frame *frame, const struct picture *picture)
{
	unsigned int left = (frame->width - picture->width) / 2;
	unsigned int top = (frame->height - picture->height) / 2;
	unsigned int x, y;

	for (y = 0; y < picture->height; y++) {
		unsigned char *to = frame->memory + (top + y) * frame->pitch + left * 4;

		for (x = 0; x < picture->width; x++, to += 4) {
			const unsigned char *rgb = picture_pixel(picture, x, y);

			to[0] = rgb[2];
			to[1] = rgb[1];
			to[2] = rgb[0];
		}
	}
}

static int frame_save(const struct frame *frame, const char *path)
{
	struct picture picture = {
		.width = frame->width,
		.height = frame->height,
	};
	unsigned int x, y;
	int ret;

	if (picture_alloc(&picture))
		return -1;
	for (y = 0; y < frame->height; y++) {
		const unsigned char *from = frame->memory + y * frame->pitch;

		for (x = 0; x < frame->width; x++, from += 4) {
			unsigned char *rgb = picture_pixel(&picture, x, y);

			rgb[0] = from[2];
			rgb[1] = from[1];
			rgb[2] = from[0];
		}
	}
	ret = picture_write_ppm(&picture, path);
	free(picture.rgb);
	return ret;
}

/* Allocates a black frame and draws the picture in its middle. */
static int frame_create(struct frame *frame, const struct display *display,
			const struct picture *picture)
{
	struct picture test;

	frame->width = display->mode.hdisplay;
	frame->height = display->mode.vdisplay;
	frame->pitch = round_up(frame->width * 4, PITCH_ALIGNMENT);
	frame->size = vmemexp_aligned_size(frame->pitch * frame->height);
	if (picture->rgb && (picture->width > frame->width ||
			     picture->height > frame->height)) {
		warnx("the picture of %ux%u pixels is larger than the mode of %ux%u, see --size",
		      picture->width, picture->height, frame->width,
		      frame->height);
		return -1;
	}
	frame->memory = alloc_frame(frame->size);
	if (!frame->memory) {
		warnx("no memory for a frame of %zu bytes", frame->size);
		return -1;
	}

	if (picture->rgb) {
		frame_draw(frame, picture);
	} else {
		test.width = frame->width;
		test.height = frame->height;
		if (picture_alloc(&test)) {
			free(frame->memory);
			return -1;
		}
		picture_paint(&test);
		frame_draw(frame, &test);
		free(test.rgb);
	}
	printf("frame:    %ux%u pixels, %zu bytes from posix_memalign() at %p\n",
	       frame->width, frame->height, frame->size, frame->memory);
	return 0;
}

/* Exports the frame as a dma-buf of so many extents, or returns NULL. */
static struct vmemexp_buf *frame_export(const struct frame *frame, unsigned long long *nr_extents)
{
	struct vmemexp_query query = { .size = sizeof(query) };
	struct vmemexp *v = open_device();
	struct vmemexp_error error;
	struct vmemexp_buf *buf;

	if (!v)
		return NULL;
	if (vmemexp_export(v, frame->memory, frame->size, 0, &buf, &error)) {
		warnx("the frame cannot be exported: %s", error_text(&error));
	} else if (vmemexp_buf_query(buf, &query)) {
		warn("the dma-buf of the frame is not known");
		vmemexp_buf_unref(buf);
		buf = NULL;
	}
	vmemexp_close(v);
	if (!buf)
		return NULL;

	printf("exported: a dma-buf of %llu bytes, %s memory, %llu contiguous extents\n",
	       (unsigned long long)query.dmabuf_size,
	       memory_names(query.memory),
	       (unsigned long long)query.nr_extents);
	*nr_extents = query.nr_extents;
	return buf;
}

/*
 * Has the signals that would end the program come through a file descriptor,
 * because the screen must be restored first.
 */
static int catch_signals(void)
{
	sigset_t signals;

	deadly_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

/* Waits for a signal, a key if the input is a terminal, or the time to pass. */
static void hold(int signals, int seconds)
{
	struct pollfd events[2] = {
		{ .fd = signals, .events = POLLIN },
		{ .fd = isatty(STDIN_FILENO) ? STDIN_FILENO : -1,
		  .events = POLLIN },
	};
	struct termios saved, raw;

	if (events[1].fd >= 0) {
		tcgetattr(STDIN_FILENO, &saved);
		raw = saved;
		raw.c_lflag &= ~(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	while (poll(events, 2, seconds < 0 ? -1 : seconds * 1000) < 0 &&
	       errno == EINTR)
		;
	if (events[1].fd >= 0)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &saved);
}

/* Runs a shell command; returns its status as a shell would. */
static int run_command(const char *command)
{
	int status = system(command);

	if (status < 0) {
		warn("%s", command);
		return EXIT_FAILURE;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* With the picture on the screen. */
static int present(const struct frame *frame, const struct options *options)
{
	if (options->save && frame_save(frame, options->save))
		return EXIT_FAILURE;
	fflush(stdout);
	if (options->ready_command)
		return run_command(options->ready_command);
	hold(options->signals, options->seconds);
	return EXIT_SUCCESS;
}

/*
 * A display that fetches its pixels itself, with no IOMMU before it, takes one piece of
 * memory, and its driver says no more than EINVAL.
 */
static void explain_scattered(const struct display *display, const struct frame *frame,
			      unsigned long long nr_extents)
{
	warnx("%s (%s) may want memory in one physical piece, and the frame is in %llu",
	      display->path, display->driver, nr_extents);
	if (frame->size > HUGE_PAGE) {
		warnx("what helps: a --size whose frame fits into a huge page, as 640x480 does");
		warnx("(this one has %zu KiB, of 2048),", frame->size / 1024);
	} else {
		warnx("what helps: as root, echo madvise >" THP_PATH "/enabled");
		warnx("and echo 1 >/proc/sys/vm/compact_memory,");
	}
	warnx("or, for a program, memory from a carve-out or a CMA heap in /dev/dma_heap");
}

/*
 * Shows the frame on one device. Returns the exit status, or -1 if the device
 * cannot do it and another one may.
 */
static int show_on(const char *path, const struct options *options)
{
	struct display display;
	struct frame frame;
	unsigned long long nr_extents;
	int status = EXIT_FAILURE;
	struct vmemexp_buf *buf;

	if (display_open(&display, path, &options->wish))
		return -1;
	if (frame_create(&frame, &display, &options->picture)) {
		status = -1;
		goto out_close;
	}
	buf = frame_export(&frame, &nr_extents);
	if (!buf)
		goto out_free;

	if (display_import(&display, vmemexp_buf_fd(buf), frame.pitch)) {
		if (errno == EINVAL && nr_extents > 1)
			explain_scattered(&display, &frame, nr_extents);
		status = -1;
		goto out_unref;
	}
	if (display_show(&display)) {
		status = -1;
		goto out_unref;
	}
	printf("imported: by the driver %s (%s) through PRIME\n",
	       display.driver, path);
	printf("shown:    on %s, %ux%u at %u Hz\n", display.connector_name,
	       frame.width, frame.height, display.mode.vrefresh);
	status = present(&frame, options);

out_unref:
	vmemexp_buf_unref(buf);
out_free:
	free(frame.memory);
out_close:
	display_close(&display);
	return status;
}

static int show_anywhere(const struct options *options)
{
	char path[64];
	int status;
	int i;

	if (options->device) {
		status = show_on(options->device, options);
		return status < 0 ? EXIT_FAILURE : status;
	}
	for (i = 0; i < MAX_CARDS; i++) {
		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		if (access(path, F_OK))
			continue;
		status = show_on(path, options);
		if (status >= 0)
			return status;
	}
	warnx("no DRM device in /dev/dri can show the frame");
	return EXIT_FAILURE;
}

static unsigned int parse_number(const char *option, const char *text)
{
	unsigned int number;
	char end;

	if (text[strspn(text, "0123456789")] ||
	    sscanf(text, "%6u%c", &number, &end) != 1)
		errx(EXIT_USAGE, "show: %s needs a number, not %s", option, text);
	return number;
}

static void parse_size(struct display_wish *wish, const char *text)
{
	char end;

	if (text[strspn(text, "0123456789x")] ||
	    sscanf(text, "%4ux%4u%c", &wish->width, &wish->height, &end) != 2 ||
	    !wish->width || !wish->height)
		errx(EXIT_USAGE,
		     "show: --size needs width and height as in 1024x768, not %s",
		     text);
	wish->required = 1;
}

static void parse_options(struct options *options, int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "device", required_argument, NULL, 'd' },
		{ "connector", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 't' },
		{ "save", required_argument, NULL, 'o' },
		{ "ready-command", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int option;

	while ((option = next_option(&verb_show, argc, argv, long_options)) >= 0) {
		switch (option) {
		case 's':
			parse_size(&options->wish, optarg);
			break;
		case 'd':
			options->device = optarg;
			break;
		case 'c':
			options->wish.connector_id =
				parse_number("--connector", optarg);
			break;
		case 't':
			options->seconds = parse_number("--seconds", optarg);
			break;
		case 'o':
			options->save = optarg;
			break;
		case 'r':
			options->ready_command = optarg;
			break;
		}
	}
	if (options->ready_command && options->seconds >= 0)
		errx(EXIT_USAGE,
		     "show: --ready-command and --seconds exclude each other");
	if (optind + 1 < argc)
		errx(EXIT_USAGE, "show: unexpected argument %s",
		     argv[optind + 1]);
}

static int run_show(int argc, char **argv)
{
	struct options options = { .seconds = -1 };
	int status;

	parse_options(&options, argc, argv);
	if (optind < argc) {
		if (picture_read(&options.picture, argv[optind]))
			return EXIT_FAILURE;
		if (!options.wish.required) {
			options.wish.width = options.picture.width;
			options.wish.height = options.picture.height;
		}
	}
	/* A command is to get its signals itself. */
	if (!options.ready_command)
		options.signals = catch_signals();
	status = show_anywhere(&options);
	free(options.picture.rgb);
	return status;
}

const struct verb verb_show = {
	.name = "show",
	.arguments = "[OPTION]... [PICTURE]",
	.help =
	"  Put a picture on a screen that lies in ordinary memory: allocate a frame (in huge\n"
	"  pages, if there are any), draw into it, export it, have a DRM driver import it\n"
	"  through PRIME, and set the mode. Afterwards the screen shows again what it did before. PICTURE is\n"
	"  a PNG file or a binary PPM file, small ones are centred; without it a test\n"
	"  picture is drawn, in which every row and every column is another.\n"
	"\n"
	"  --size=WIDTHxHEIGHT   the mode to set, instead of the one that has the\n"
	"                        picture's size or else is the monitor's preferred one\n"
	"  --device=NODE         the DRM device, instead of the first in /dev/dri that can\n"
	"  --connector=ID        the connector, instead of the first with a monitor\n"
	"  --seconds=N           hold the picture that long, instead of until a key is\n"
	"                        pressed or a signal comes\n"
	"  --ready-command=CMD   hold the picture while the shell runs CMD, and exit with\n"
	"                        its status\n"
	"  --save=FILE           save as a PPM file what the frame has\n",
	.run = run_show,
};

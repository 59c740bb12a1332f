// SPDX-License-Identifier: GPL-2.0
/* check-frames: do pictures of the screen show frames of the RTOS, in every pixel? */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/vmemexp/picture.h"
#include "../modules/rtos/rtos.h"

#define EXIT_USAGE	2
#define PIXELS		(RTOS_WIDTH * RTOS_HEIGHT)

static uint32_t shown_pixel(const struct picture *picture, unsigned int pixel)
{
	const unsigned char *rgb = picture->rgb + (size_t)pixel * PICTURE_BYTES_PER_PIXEL;

	return (uint32_t)rgb[0] << 16 | rgb[1] << 8 | rgb[2];
}

static uint32_t drawn_pixel(uint32_t frame, unsigned int pixel)
{
	return rtos_pixel(frame, pixel % RTOS_WIDTH, pixel / RTOS_WIDTH);
}

/* The number that row @y of the squares says: white is 1. */
static uint32_t read_bits(const struct picture *picture, unsigned int y)
{
	unsigned int x = RTOS_BITS_LEFT + RTOS_BIT_SIDE / 2;
	uint32_t number = 0;
	int bit;

	for (bit = 31; bit >= 0; bit--, x += RTOS_BIT_SIDE)
		if (shown_pixel(picture, y * RTOS_WIDTH + x) == 0xffffff)
			number |= 1U << bit;
	return number;
}

/**
 * struct difference - how a picture, from some pixel on, differs from a frame
 * @pixels: number of pixels that differ
 * @first: the first of them
 * @bits: bits in which that differs
 */
struct difference {
	unsigned int pixels;
	unsigned int first;
	uint32_t bits;
};

static struct difference compare(const struct picture *picture, uint32_t frame,
				 unsigned int from)
{
	struct difference difference = { .first = PIXELS };
	unsigned int i;

	for (i = from; i < PIXELS; i++) {
		uint32_t bits = shown_pixel(picture, i) ^ drawn_pixel(frame, i);

		if (bits && !difference.pixels++) {
			difference.first = i;
			difference.bits = bits;
		}
	}
	return difference;
}

static int is_frame(const struct picture *picture, uint32_t frame)
{
	struct difference difference = compare(picture, frame, 0);

	if (!difference.pixels)
		return 1;
	printf("%u pixels are not as in frame %u, the first in column %u, row %u\n",
	       difference.pixels, frame, difference.first % RTOS_WIDTH,
	       difference.first / RTOS_WIDTH);
	return 0;
}

static int is_frame_but_for_one_bit(const struct picture *picture, uint32_t frame)
{
	struct difference difference = compare(picture, frame, 0);

	if (difference.pixels == 1 && !(difference.bits & (difference.bits - 1)))
		return 1;
	printf("%u pixels are not as in frame %u\n", difference.pixels, frame);
	return 0;
}

/* From the top as far as it goes the newer frame, and from there on the older one. */
static int is_drawn_over(const struct picture *picture, uint32_t older)
{
	unsigned int front = compare(picture, older + RTOS_NR_BUFFERS, 0).first;

	return !compare(picture, older, front).pixels;
}

/*
 * The number is that of the newer one if its squares are drawn already. Where they are
 * being drawn, one row of them may be of both.
 */
static int is_being_drawn(const struct picture *picture, uint32_t *number)
{
	int row;

	for (row = 0; row < 2; row++) {
		*number = read_bits(picture, RTOS_BITS_TOP + row);
		if (is_drawn_over(picture, *number) ||
		    (*number > RTOS_NR_BUFFERS &&
		     is_drawn_over(picture, *number - RTOS_NR_BUFFERS)))
			return 1;
	}
	printf("this is no frame with the next one of its buffer drawn over it\n");
	return 0;
}

/* Return true if the picture is of the KIND, see main(); @number is the last one's. */
static int check(const char *path, const char *kind, uint32_t *number)
{
	struct picture picture;
	uint32_t last = *number;
	char *end;
	int ok;

	if (picture_read(&picture, path))
		exit(EXIT_FAILURE);
	if (picture.width != RTOS_WIDTH || picture.height != RTOS_HEIGHT)
		errx(EXIT_FAILURE, "%s: %ux%u pixels, not %ux%u", path,
		     picture.width, picture.height, RTOS_WIDTH, RTOS_HEIGHT);
	*number = read_bits(&picture, RTOS_BITS_TOP);
	if (!strcmp(kind, "newer")) {
		ok = *number > last && is_frame(&picture, *number);
	} else if (!strcmp(kind, "drawing")) {
		ok = is_being_drawn(&picture, number) && *number >= last;
	} else if (!strcmp(kind, "drawing-newer")) {
		ok = is_being_drawn(&picture, number) && *number > last;
	} else if (!strcmp(kind, "bit")) {
		ok = *number == last && is_frame_but_for_one_bit(&picture, last);
	} else {
		last = strtoul(kind, &end, 10);
		if (*end || !last || last > INT32_MAX)
			errx(EXIT_USAGE, "not a number of a frame, nor a kind: %s", kind);
		ok = is_frame(&picture, last);
	}
	printf("%s: frame %u, %s\n", path, *number, kind);
	if (!ok)
		printf("%s: not as it has to be, after frame %u\n", path, last);
	free(picture.rgb);
	return ok;
}

int main(int argc, char **argv)
{
	unsigned int pictures = 0, good = 0;
	uint32_t number = 0;
	int i;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: check-frames PICTURE KIND [PICTURE KIND]...\n"
		     "Compare PNG files, in every pixel, with what the RTOS draws. KIND is\n"
		     "  NUMBER   the frame of this number\n"
		     "  newer    a whole frame, newer than that of the picture before\n"
		     "  bit      the frame of the picture before, but for one bit of one pixel\n"
		     "  drawing  a frame not older than that, whose upper part may be of the next one in\n"
		     "           its buffer\n"
		     "  drawing-newer\n"
		     "           the same, and newer\n"
		     "Exits with 0 only if all are so.");
		return EXIT_SUCCESS;
	}
	if (argc < 3 || argc % 2 == 0)
		errx(EXIT_USAGE, "a KIND for each PICTURE is needed (try check-frames --help)");

	for (i = 1; i < argc; i += 2, pictures++)
		good += check(argv[i], argv[i + 1], &number);
	printf("%u of %u pictures are right, %u pixels each\n", good, pictures, PIXELS);
	return good == pictures ? EXIT_SUCCESS : EXIT_FAILURE;
}

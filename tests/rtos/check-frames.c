// SPDX-License-Identifier: GPL-2.0
/* check-frames: do pictures of the screen show these frames, in every pixel? */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/vmemexp/picture.h"
#include "../modules/rtos/rtos.h"

#define EXIT_USAGE	2

static uint32_t pixel_at(const struct picture *picture, unsigned int x,
			 unsigned int y)
{
	const unsigned char *rgb = picture_pixel(picture, x, y);

	return (uint32_t)rgb[0] << 16 | rgb[1] << 8 | rgb[2];
}

static uint32_t parse_frame(const char *text)
{
	char *end;
	unsigned long frame = strtoul(text, &end, 10);

	if (*end || !frame || frame > INT32_MAX)
		errx(EXIT_USAGE, "not the number of a frame: %s", text);
	return frame;
}

/* The number that the squares in the picture say: white is 1. */
static uint32_t read_bits(const struct picture *picture)
{
	unsigned int y = RTOS_BITS_TOP + RTOS_BIT_SIDE / 2;
	unsigned int x = RTOS_BITS_LEFT + RTOS_BIT_SIDE / 2;
	uint32_t number = 0;
	int bit;

	for (bit = 31; bit >= 0; bit--, x += RTOS_BIT_SIDE)
		if (pixel_at(picture, x, y) == 0xffffff)
			number |= 1U << bit;
	return number;
}

/* Returns the number of pixels that are not as in @frame. */
static unsigned int compare(const char *path, const struct picture *picture,
			    uint32_t frame)
{
	unsigned int different = 0;
	unsigned int x, y;

	for (y = 0; y < RTOS_HEIGHT; y++) {
		for (x = 0; x < RTOS_WIDTH; x++) {
			uint32_t drawn = rtos_pixel(frame, x, y);
			uint32_t shown = pixel_at(picture, x, y);

			if (shown != drawn && !different++)
				printf("%s: column %u, row %u is %06x, not %06x\n",
				       path, x, y, shown, drawn);
		}
	}
	if (different)
		printf("%s: %u pixels are not as in frame %u; the number in it is %u\n",
		       path, different, frame, read_bits(picture));
	return different;
}

static unsigned int check(const char *path, uint32_t frame)
{
	struct picture picture;
	unsigned int different;

	if (picture_read(&picture, path))
		exit(EXIT_FAILURE);
	if (picture.width != RTOS_WIDTH || picture.height != RTOS_HEIGHT)
		errx(EXIT_FAILURE, "%s: %ux%u pixels, not %ux%u", path,
		     picture.width, picture.height, RTOS_WIDTH, RTOS_HEIGHT);
	different = compare(path, &picture, frame);
	free(picture.rgb);
	return different;
}

/* How many pixels change from one frame to another. */
static unsigned int count_changes(uint32_t frame, uint32_t other)
{
	unsigned int changes = 0;
	unsigned int x, y;

	for (y = 0; y < RTOS_HEIGHT; y++)
		for (x = 0; x < RTOS_WIDTH; x++)
			changes += rtos_pixel(frame, x, y) !=
				   rtos_pixel(other, x, y);
	return changes;
}

int main(int argc, char **argv)
{
	unsigned int different, changes;
	uint32_t first, second;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: check-frames PICTURE FRAME PICTURE FRAME\n"
		     "Compare two PNG files with what the RTOS draws as the frames of these numbers.\n"
		     "Exits with 0 only if every pixel is equal, and the frames are not.");
		return EXIT_SUCCESS;
	}
	if (argc != 5)
		errx(EXIT_USAGE, "two files and two numbers are needed (try check-frames --help)");
	first = parse_frame(argv[2]);
	second = parse_frame(argv[4]);

	different = check(argv[1], first) + check(argv[3], second);
	changes = count_changes(first, second);
	printf("frames %u and %u: %u pixels compared, %u differ; from one to the other %u change\n",
	       first, second, 2 * RTOS_WIDTH * RTOS_HEIGHT, different, changes);
	return different || !changes ? EXIT_FAILURE : EXIT_SUCCESS;
}

// SPDX-License-Identifier: GPL-2.0
/* compare-screen: is every pixel on the screen as it was drawn? */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture.h"

#define EXIT_USAGE	2

static void print_difference(unsigned int x, unsigned int y,
			     const unsigned char *shown,
			     const unsigned char *drawn)
{
	printf("first difference at column %u, row %u: shown %02x%02x%02x, drawn %02x%02x%02x\n",
	       x, y, shown[0], shown[1], shown[2], drawn[0], drawn[1], drawn[2]);
}

int main(int argc, char **argv)
{
	struct picture screen, frame;
	unsigned long compared, different = 0;
	unsigned int x, y;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: compare-screen SCREEN FRAME\n"
		     "Compare two pictures, each a PNG or a binary PPM file, pixel by pixel.\n"
		     "Exits with 0 only if both have the same size and every pixel is equal.");
		return EXIT_SUCCESS;
	}
	if (argc != 3)
		errx(EXIT_USAGE, "two files are needed (try compare-screen --help)");

	if (picture_read(&screen, argv[1]) || picture_read(&frame, argv[2]))
		return EXIT_FAILURE;
	if (screen.width != frame.width || screen.height != frame.height) {
		printf("the screen has %ux%u pixels, the frame %ux%u\n",
		       screen.width, screen.height, frame.width, frame.height);
		return EXIT_FAILURE;
	}

	for (y = 0; y < frame.height; y++) {
		for (x = 0; x < frame.width; x++) {
			const unsigned char *shown = picture_pixel(&screen, x, y);
			const unsigned char *drawn = picture_pixel(&frame, x, y);

			if (!memcmp(shown, drawn, PICTURE_BYTES_PER_PIXEL))
				continue;
			if (!different++)
				print_difference(x, y, shown, drawn);
		}
	}
	compared = (unsigned long)frame.width * frame.height;
	printf("%lu pixels compared, %lu differ\n", compared, different);
	free(screen.rgb);
	free(frame.rgb);
	return different ? EXIT_FAILURE : EXIT_SUCCESS;
}

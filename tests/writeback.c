// SPDX-License-Identifier: GPL-2.0
/*
 * writeback - what a display shows, by its own account, as a picture
 *
 *   writeback FD FILE.ppm
 *
 * FD is a DRM device of which the caller is the master. For tests that have a sink show something,
 * and hand on the descriptor that they gave to it.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/kms.h"

int main(int argc, char **argv)
{
	unsigned int width, height;
	uint32_t *pixels;
	size_t i;
	FILE *file;
	int ret;

	if (argc != 3)
		errx(2, "usage: writeback FD FILE.ppm");
	ret = kms_write_back(atoi(argv[1]), &pixels, &width, &height);
	if (ret) {
		errno = -ret;
		err(1, "no picture");
	}
	file = fopen(argv[2], "we");
	if (!file)
		err(1, "%s", argv[2]);
	fprintf(file, "P6\n%u %u\n255\n", width, height);
	for (i = 0; i < (size_t)width * height; i++) {
		putc(pixels[i] >> 16, file);
		putc(pixels[i] >> 8, file);
		putc(pixels[i], file);
	}
	if (fclose(file))
		err(1, "%s", argv[2]);
	free(pixels);
	return 0;
}

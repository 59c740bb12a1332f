// SPDX-License-Identifier: GPL-2.0
/* Pictures in memory and in files. */
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture.h"

static size_t picture_size(const struct picture *picture)
{
	return (size_t)picture->width * picture->height *
	       PICTURE_BYTES_PER_PIXEL;
}

int picture_alloc(struct picture *picture)
{
	picture->rgb = calloc(1, picture_size(picture));
	if (!picture->rgb) {
		warnx("no memory for a picture of %ux%u pixels",
		      picture->width, picture->height);
		return -1;
	}
	return 0;
}

/* Like picture_alloc(), with a size that @path names and that was not checked. */
static int picture_alloc_checked(struct picture *picture, const char *path)
{
	if (!picture->width || picture->width > PICTURE_MAX_SIDE ||
	    !picture->height || picture->height > PICTURE_MAX_SIDE) {
		warnx("%s: a picture of %ux%u pixels is none, or too large",
		      path, picture->width, picture->height);
		return -1;
	}
	return picture_alloc(picture);
}

static int read_png(struct picture *picture, FILE *file, const char *path)
{
	/* Where the file has an alpha channel, it is composed on black. */
	static const png_color black;
	png_image png = { .version = PNG_IMAGE_VERSION };

	if (!png_image_begin_read_from_stdio(&png, file))
		goto err_png;

	picture->width = png.width;
	picture->height = png.height;
	if (picture_alloc_checked(picture, path))
		goto err_free_png;

	png.format = PNG_FORMAT_RGB;
	if (!png_image_finish_read(&png, &black, picture->rgb, 0, NULL))
		goto err_free_rgb;
	return 0;

err_free_rgb:
	free(picture->rgb);
err_png:
	warnx("%s: not a sound PNG file: %s", path, png.message);
err_free_png:
	png_image_free(&png);
	return -1;
}

/*
 * Reads one number of a PPM header and the white space behind it, which is a
 * single character behind the last number. Large numbers end at UINT_MAX / 10,
 * which is too large for whatever they are used for.
 */
static bool read_ppm_number(FILE *file, unsigned int *number)
{
	int c = getc(file);

	while (isspace(c) || c == '#') {
		if (c == '#')
			while (c != '\n' && c != EOF)
				c = getc(file);
		c = getc(file);
	}
	if (!isdigit(c))
		return false;
	for (*number = 0; isdigit(c); c = getc(file))
		if (*number < UINT_MAX / 10)
			*number = *number * 10 + c - '0';
	return isspace(c);
}

static int read_ppm(struct picture *picture, FILE *file, const char *path)
{
	unsigned int max;

	/* Behind "P6", which the caller has seen. */
	fseek(file, 2, SEEK_SET);
	if (!read_ppm_number(file, &picture->width) ||
	    !read_ppm_number(file, &picture->height) ||
	    !read_ppm_number(file, &max)) {
		warnx("%s: not a sound PPM file: bad header", path);
		return -1;
	}
	if (max != 255) {
		warnx("%s: only PPM files with 8 bits per sample are read (maximum 255, not %u)",
		      path, max);
		return -1;
	}
	if (picture_alloc_checked(picture, path))
		return -1;
	if (fread(picture->rgb, picture_size(picture), 1, file) != 1) {
		warnx("%s: not a sound PPM file: it ends before its last pixel",
		      path);
		free(picture->rgb);
		return -1;
	}
	return 0;
}

int picture_read(struct picture *picture, const char *path)
{
	static const unsigned char png_magic[] = "\x89PNG";
	FILE *file = fopen(path, "re");
	unsigned char magic[4] = { };
	int ret;

	if (!file) {
		warn("%s", path);
		return -1;
	}
	if (fread(magic, 1, sizeof(magic), file) < sizeof(magic) && ferror(file)) {
		warn("%s", path);
		fclose(file);
		return -1;
	}
	rewind(file);

	if (!memcmp(magic, png_magic, sizeof(magic))) {
		ret = read_png(picture, file, path);
	} else if (magic[0] == 'P' && magic[1] == '6') {
		ret = read_ppm(picture, file, path);
	} else {
		warnx("%s: neither a PNG nor a binary PPM (P6) file", path);
		ret = -1;
	}
	fclose(file);
	return ret;
}

int picture_write_ppm(const struct picture *picture, const char *path)
{
	FILE *file = fopen(path, "we");
	bool failed;

	if (!file) {
		warn("%s", path);
		return -1;
	}
	fprintf(file, "P6\n%u %u\n255\n", picture->width, picture->height);
	fwrite(picture->rgb, picture_size(picture), 1, file);
	failed = ferror(file);
	if (fclose(file) || failed) {
		warn("%s", path);
		return -1;
	}
	return 0;
}

static void set_pixel(unsigned char *pixel, unsigned int red, unsigned int green,
		      unsigned int blue)
{
	pixel[0] = red;
	pixel[1] = green;
	pixel[2] = blue;
}

/* A pixel of the background: bars above, a grey ramp below, colours between. */
static void paint_background(unsigned char *pixel, unsigned int x, unsigned int y,
			     unsigned int width, unsigned int height)
{
	unsigned int bar = 7 - x * 8 / width;
	unsigned int across = x * 255 / width;
	unsigned int down = y * 255 / height;

	if (y < height / 6)
		set_pixel(pixel, bar & 2 ? 255 : 0, bar & 4 ? 255 : 0,
			  bar & 1 ? 255 : 0);
	else if (y >= height - height / 10)
		set_pixel(pixel, across, across, across);
	else
		set_pixel(pixel, across, down, 255 - (across + down) / 2);
}

static bool is_line(unsigned int x, unsigned int y, unsigned int width,
		    unsigned int height)
{
	int dx = (int)(x * 2) - (int)width;
	int dy = (int)(y * 2) - (int)height;
	int distance2 = dx * dx + dy * dy;
	int circle;

	/* Three circles, the largest nearly as high as the picture. */
	for (circle = 1; circle <= 3; circle++) {
		int outer = (int)height * 3 * circle / 10;
		int inner = outer - 8;

		if (inner > 0 && distance2 <= outer * outer &&
		    distance2 >= inner * inner)
			return true;
	}
	return x % 64 == 0 || y % 64 == 0 || x == width - 1 || y == height - 1;
}

void picture_paint(struct picture *picture)
{
	unsigned int x, y;

	for (y = 0; y < picture->height; y++) {
		for (x = 0; x < picture->width; x++) {
			unsigned char *pixel = picture_pixel(picture, x, y);

			if (is_line(x, y, picture->width, picture->height))
				set_pixel(pixel, 255, 255, 255);
			else
				paint_background(pixel, x, y, picture->width,
						 picture->height);
			/* Nine bits of x in each row, nine of y in each column. */
			pixel[0] = (pixel[0] & ~7) | ((x ^ y / 64) & 7);
			pixel[1] = (pixel[1] & ~7) | ((y ^ x / 64) & 7);
			pixel[2] = (pixel[2] & ~7) | ((x / 8 ^ y / 8) & 7);
		}
	}
}

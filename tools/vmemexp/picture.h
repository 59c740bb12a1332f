/* SPDX-License-Identifier: GPL-2.0 */
/* Pictures in memory and in files. */
#ifndef _PICTURE_H
#define _PICTURE_H

/* More than any screen has; keeps the sizes below far from overflow. */
#define PICTURE_MAX_SIDE	8192
#define PICTURE_BYTES_PER_PIXEL	3

/**
 * struct picture - a picture of 24-bit pixels
 * @width: pixels in a row, 1 to PICTURE_MAX_SIDE
 * @height: rows, 1 to PICTURE_MAX_SIDE
 * @rgb: red, green, blue of each pixel, row by row from the top left;
 *	from malloc()
 */
struct picture {
	unsigned int width;
	unsigned int height;
	unsigned char *rgb;
};

static inline unsigned char *picture_pixel(const struct picture *picture,
					   unsigned int x, unsigned int y)
{
	return picture->rgb +
	       ((size_t)y * picture->width + x) * PICTURE_BYTES_PER_PIXEL;
}

/* Black, of the size in @picture. All of these print why they return -1. */
int picture_alloc(struct picture *picture);

/* From a PNG file or a binary PPM file with 8 bits per sample. */
int picture_read(struct picture *picture, const char *path);

int picture_write_ppm(const struct picture *picture, const char *path);

/*
 * Paints colour bars, gradients, a grid and circles. The three low bits of
 * each colour depend on the position, so that no two rows and no two columns
 * less than 512 apart are equal: pages in the wrong place are seen.
 */
void picture_paint(struct picture *picture);

#endif /* _PICTURE_H */

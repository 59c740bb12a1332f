/* SPDX-License-Identifier: GPL-2.0 */
/* A range of a buffer, or rows of ranges, as VMEMEXP_IOC_SYNC takes it. */
#ifndef VMEMEXP_TEST_RECT_H
#define VMEMEXP_TEST_RECT_H

#include <stddef.h>
#include <stdint.h>

struct rect {
	size_t offset, length, stride;
	unsigned int rows;	/* 0 is 1 */
};

/* Both are buffers of the same size. */
void copy_rect(uint8_t *to, const uint8_t *from, const struct rect *rect);

#endif /* VMEMEXP_TEST_RECT_H */

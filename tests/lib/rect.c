// SPDX-License-Identifier: GPL-2.0
#include <string.h>

#include "rect.h"

void copy_rect(uint8_t *to, const uint8_t *from, const struct rect *rect)
{
	for (size_t row = 0; row < (rect->rows ?: 1); row++) {
		size_t offset = rect->offset + row * rect->stride;

		memmove(to + offset, from + offset, rect->length);
	}
}

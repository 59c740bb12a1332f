// SPDX-License-Identifier: GPL-2.0
#include "memory.h"
#include "range.h"

struct extents find_extents(const uint64_t *pfns, size_t nr)
{
	struct extents e = { .min = nr * PAGE };
	uint64_t highest = 0;
	size_t size = 0;

	for (size_t i = 0; i < nr; i++) {
		if (i && pfns[i] != pfns[i - 1] + 1) {
			if (!e.nr++)
				e.second = i * PAGE;
			e.min = size < e.min ? size : e.min;
			size = 0;
		}
		size += PAGE;
		e.max = size > e.max ? size : e.max;
		highest = pfns[i] > highest ? pfns[i] : highest;
	}
	e.nr++;
	e.min = size < e.min ? size : e.min;
	e.address_bits = 64 - __builtin_clzll((highest + 1) * PAGE - 1);
	return e;
}

void touch_scattered(unsigned char *addr)
{
	for (size_t i = 0; i < PAGES; i++)
		*(volatile unsigned char *)(addr + i * 7 % PAGES * PAGE) = 0;
}

unsigned char *change(struct memory *m, unsigned int seed)
{
	fill(m->expect, m->size, seed);
	return m->expect;
}

unsigned char *change_part(struct memory *m, unsigned int seed)
{
	fill(m->expect + PART_START, PART_SIZE, seed);
	return m->expect + PART_START;
}

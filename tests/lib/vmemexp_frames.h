/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kinds of memory beside those of vmemexp_memory.h: page frames of the stand-in for
 * drivers of carve-outs, with and without struct page, listed or not, in one piece or
 * scattered.
 */
#ifndef VMEMEXP_FRAMES_H
#define VMEMEXP_FRAMES_H

#include "vmemexp_memory.h"

static inline void list_carveout(struct __test_metadata *_metadata,
				 const struct carveout_info *region)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, carveout_text(region)));
}

static inline void __map_frames(struct __test_metadata *_metadata, struct memory *m,
				const struct carveout_info *region, unsigned int how)
{
	struct carveout_setup setup = {
		.region = region->region, .cache = CARVEOUT_CACHED, .how = how,
	};
	int file = _test_carveout_open(&setup);

	ASSERT_LE(0, file);
	list_carveout(_metadata, region);
	m->addr = map(m->size, RW, MAP_SHARED, file);
	close(file);
	write_contents(m, 1);
}

static inline void make_frames_with_pages(struct __test_metadata *_metadata, struct memory *m)
{
	struct carveout_info region;

	ASSERT_TRUE(find_carveout(FRAMES_WITH_PAGES, &region));
	__map_frames(_metadata, m, &region, CARVEOUT_HOW_REMAP);
}

static inline void make_frames(struct __test_metadata *_metadata, struct memory *m)
{
	struct carveout_info region;

	ASSERT_TRUE(find_carveout(FRAMES_WITHOUT_PAGES, &region));
	__map_frames(_metadata, m, &region, CARVEOUT_HOW_FAULT);
}

static inline void make_frames_of_ram(struct __test_metadata *_metadata, struct memory *m)
{
	struct carveout_info region;

	ASSERT_EQ(0, _test_carveout_info(CARVEOUT_REGION_RAM, &region));
	__map_frames(_metadata, m, &region, CARVEOUT_HOW_REMAP);
}

/* Root may export them nevertheless. */
static inline void make_unlisted_frames(struct __test_metadata *_metadata, struct memory *m)
{
	make_frames(_metadata, m);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, "\n"));
}

/* Page i of the range is at @first + i * @step in the first carve-out of @sort. */
static inline void __map_scattered_frames(struct __test_metadata *_metadata, struct memory *m,
					  unsigned int sort, long first, long step)
{
	struct carveout_setup setup = {
		.cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP,
	};
	struct carveout_info region;
	long pages = m->size / PAGE;
	int file;

	ASSERT_TRUE(find_carveout(sort, &region));
	list_carveout(_metadata, &region);
	setup.region = region.region;
	file = _test_carveout_open(&setup);
	ASSERT_LE(0, file);
	m->addr = map(m->size, RW, ANON, -1);
	for (long i = 0; i < pages; i++)
		ASSERT_NE(MAP_FAILED, mmap(m->addr + i * PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED,
					   file, first + i * step));
	close(file);
	write_contents(m, 1);
}

/* Each page behind the next one. */
static inline void make_scattered_frames(struct __test_metadata *_metadata, struct memory *m)
{
	__map_scattered_frames(_metadata, m, FRAMES_WITHOUT_PAGES, m->size - PAGE, -(long)PAGE);
}

#endif /* VMEMEXP_FRAMES_H */

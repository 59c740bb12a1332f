/* SPDX-License-Identifier: GPL-2.0 */
/* The stand-in for drivers of carve-outs. */
#ifndef VMEMEXP_TEST_CARVEOUT_H
#define VMEMEXP_TEST_CARVEOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"
#include "../modules/carveout/vmemexp_carveout.h"

/* Returns 0 or a negative errno: there may be no such region. */
int _test_carveout_info(unsigned int region, struct carveout_info *info);
/* Returns a file that maps the region in the way told, or a negative errno. */
int _test_carveout_open(const struct carveout_setup *setup);
/*
 * The other processor reads (@request is CARVEOUT_IOC_READ) or writes
 * (CARVEOUT_IOC_WRITE) at @offset of the region.
 */
int _test_carveout_transfer(unsigned long request, unsigned int region, uint64_t offset,
			    const volatile void *buf, size_t length) ADDRESS_ONLY(4);

/* The region as carveouts= takes it; the text is valid until the thread asks again. */
const char *carveout_text(const struct carveout_info *region);

/* Sorts of carve-outs, by struct carveout_info.flags. */
#define FRAMES_WITHOUT_PAGES	0
#define FRAMES_WITH_PAGES	CARVEOUT_INFO_PAGES
#define FRAMES_OF_RAM		(CARVEOUT_INFO_PAGES | CARVEOUT_INFO_RAM)

/* Finds the first region of this sort. */
bool find_carveout(unsigned int sort, struct carveout_info *region);
/* The name of something that a kind of memory needs and the machine lacks, or NULL. */
const char *need_carveout_of(unsigned int sort);
const char *need_frames_with_pages(void);
const char *need_frames(void);
const char *need_stand_in(void);

#endif /* VMEMEXP_TEST_CARVEOUT_H */

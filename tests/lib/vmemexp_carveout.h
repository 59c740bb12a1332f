/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Page frames of the stand-in for drivers of carve-outs: how they are listed, mapped, and taken
 * away again.
 */
#ifndef VMEMEXP_CARVEOUT_TEST_H
#define VMEMEXP_CARVEOUT_TEST_H

#include "vmemexp_utils.h"

#define RW		(PROT_READ | PROT_WRITE)

#define PAGE		page_size()
#define PAGES		16
#define SIZE		(PAGES * PAGE)
#define HALF		(SIZE / 2)

/* As much as a page table maps, and one entry instead of it. */
#define HUGE_PAGE	(2UL << 20)

/* Where mappings begin in the region, so that this does not go unnoticed. */
#define OFFSET		(4 * PAGE)

/* Reserved memory of whatever sort, and memory that the stand-in allocated. */
#define REGION		0
#define RAM		CARVEOUT_REGION_RAM

#define STAND_IN_USERS	"/sys/module/vmemexp_carveout/refcnt"

/* ---- the list of carve-outs ---- */

/* The list as the fixture found it, to be put back. */
struct old_list {
	char text[4096];
};

static inline void __save_list(struct __test_metadata *_metadata, struct old_list *old)
{
	ASSERT_LT(0, read_text(VMEMEXP_CARVEOUTS, old->text, sizeof(old->text)));
	/* Devices are to see it, also where the caller has no privilege. */
	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_PAGES, "Y"));
}

#define save_list() __save_list(_metadata, &self->old)

#define restore_list() do {						\
	EXPECT_EQ(0, write_text(VMEMEXP_CARVEOUTS, self->old.text));	\
	EXPECT_EQ(0, write_text(VMEMEXP_WITHOUT_PAGES, "N"));		\
} while (0)

struct range {
	uint64_t base, size;
};

/* Lists physical ranges, and nothing else. */
static inline void __list(struct __test_metadata *_metadata, const struct range *ranges, int nr)
{
	char text[128], *p = text;

	for (int i = 0; i < nr; i++)
		p += sprintf(p, "%s%#llx:%#llx", i ? "," : "",
			     (unsigned long long)ranges[i].base,
			     (unsigned long long)ranges[i].size);
	sprintf(p, "\n");
	ASSERT_EQ(0, write_text(VMEMEXP_CARVEOUTS, text)) {
		TH_LOG("carveouts=%s", text);
	}
}

#define list_nothing() __list(_metadata, NULL, 0)

#define list(base, size) \
	__list(_metadata, (struct range[]){ { base, size } }, 1)

#define list_two(base, size, base2, size2) \
	__list(_metadata, (struct range[]){ { base, size }, { base2, size2 } }, 2)

/* ---- mappings of the stand-in ---- */

static inline int __open_stand_in(struct __test_metadata *_metadata, unsigned int region,
				  unsigned int cache, unsigned int how)
{
	struct carveout_setup setup = {
		.region = region, .cache = cache, .how = how,
	};
	int file = _test_carveout_open(&setup);

	ASSERT_LE(0, file) {
		TH_LOG("region %u, cache %u, how %u: %s", region, cache, how,
		       strerror(-file));
	}
	return file;
}

#define open_stand_in(region, cache, how) \
	__open_stand_in(_metadata, region, cache, how)

/* Finds the first region of this sort. */
static inline bool find_region(unsigned int sort, struct carveout_info *region)
{
	return find_carveout(sort, region) ||
	       (!_test_carveout_info(RAM, region) && region->flags == sort);
}

/* Why memory of the region is refused that is not listed. */
static inline unsigned int not_listed(const struct carveout_info *region)
{
	return region->flags & CARVEOUT_INFO_RAM ? VMEMEXP_REASON_RAM :
						   VMEMEXP_REASON_PFNMAP;
}

/* Check that the CPU and the other processor see each other's writes. */
static inline void __check_other_processor(struct __test_metadata *_metadata, int fd,
					   unsigned int region, int dmabuf)
{
	unsigned char *mem = malloc(SIZE);
	unsigned char *view = test_mmap(NULL, SIZE, MAP_SHARED, dmabuf, 0);

	fill(view, SIZE, 7);
	ASSERT_EQ(0, _test_sync(fd, dmabuf, VMEMEXP_SYNC_WRITE |
				VMEMEXP_SYNC_END | VMEMEXP_SYNC_OBSERVER, 0,
				SIZE));
	test_carveout_read(region, OFFSET, mem, SIZE);
	EXPECT_EQ(-1, first_difference(mem, SIZE, 7));
	fill(mem, SIZE, 8);
	test_carveout_write(region, OFFSET, mem, SIZE);
	ASSERT_EQ(0, _test_sync(fd, dmabuf, VMEMEXP_SYNC_READ |
				VMEMEXP_SYNC_OBSERVER, 0, SIZE));
	EXPECT_EQ(-1, first_difference(view, SIZE, 8));
	munmap(view, SIZE);
	free(mem);
}

#define check_other_processor(region, dmabuf) \
	__check_other_processor(_metadata, self->fd, region, dmabuf)

/* ---- what the driver takes away ---- */

/* The state of a dma-buf afterwards. */
#define TAKEN	(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED)

#define take_away()	ASSERT_EQ(0, ioctl(self->file, CARVEOUT_IOC_TAKE_AWAY))

#endif /* VMEMEXP_CARVEOUT_TEST_H */

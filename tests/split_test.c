// SPDX-License-Identifier: GPL-2.0
/*
 * A driver that takes its page frames away, and what only looks like one: the kernel
 * announces the huge entry of a page table that may be where a mapping is split as
 * cleared, and clears nothing. Verify that a buffer outlives the split of its mapping,
 * and that it does not outlive the driver's wish where that has the same size.
 */
#include "lib/vmemexp_carveout.h"

FIXTURE(split)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int file;
	unsigned char *addr;	/* HUGE_PAGE bytes, aligned like that */
	int dmabuf;
	unsigned int state;	/* of the buffer, when all is well */
};

FIXTURE_VARIANT(split)
{
	unsigned int how;	/* the mapping comes into being */
};

FIXTURE_VARIANT_ADD(split, of_small_entries) {
	.how = CARVEOUT_HOW_FAULT,
};

/* The kernel drops it, and asks the driver for small ones. */
FIXTURE_VARIANT_ADD(split, of_a_huge_entry) {
	.how = CARVEOUT_HOW_HUGE,
};

/*
 * By faults: on x86, a mapping of reserved memory that was made in one piece must go in one
 * piece, else the kernel refuses to have the memory cached differently for ever.
 */
FIXTURE_SETUP(split)
{
	struct carveout_setup setup = {
		.region = REGION, .cache = CARVEOUT_CACHED, .how = variant->how,
	};
	struct carveout_info region;

	skip_without_importer();
	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &region));
	ASSERT_LE(HUGE_PAGE, region.size);
	self->file = _test_carveout_open(&setup);
	if (self->file == -EOPNOTSUPP)
		SKIP(return, "the kernel has no huge entries for page frames");
	ASSERT_LE(0, self->file);
	close(self->file);
	test_setup();
	save_list();
	list(region.base, region.size);
	self->file = _test_carveout_open(&setup);
	ASSERT_LE(0, self->file);
	self->addr = map_huge_pages(HUGE_PAGE, HUGE_PAGE, RW, MAP_SHARED, self->file);
	ASSERT_NE(MAP_FAILED, (void *)self->addr);
	fill(self->addr, SIZE, 1);
	self->dmabuf = test_export(self->addr, SIZE, O_RDWR);
	self->state = VMEMEXP_STATE_TRACKED |
		      (region.flags & CARVEOUT_INFO_PAGES ? 0 : VMEMEXP_STATE_NO_PAGES);
}

FIXTURE_TEARDOWN(split)
{
	restore_list();
	close(self->dmabuf);
	munmap(self->addr, HUGE_PAGE);
	close(self->file);
	test_teardown();
}

/* Nothing has happened to the memory, and everybody may use it. */
#define expect_alive() do {						\
	EXPECT_EQ(self->state, test_query(self->dmabuf).state);		\
	test_contents(self->dmabuf, SIZE, 1);				\
	close(test_export(self->addr, SIZE, O_RDWR));			\
} while (0)

TEST_F(split, by_munmap_behind_the_buffer_leaves_it_alone)
{
	ASSERT_EQ(0, munmap(self->addr + HUGE_PAGE / 2, PAGE));
	expect_alive();
}

TEST_F(split, by_mprotect_behind_the_buffer_leaves_it_alone)
{
	ASSERT_EQ(0, mprotect(self->addr + HUGE_PAGE / 2, PAGE, PROT_READ));
	expect_alive();
}

TEST_F(split, by_madvise_behind_the_buffer_leaves_it_alone)
{
	ASSERT_EQ(0, madvise(self->addr + HUGE_PAGE / 2, PAGE, MADV_DONTFORK));
	expect_alive();
}

/* In the middle of it, where nothing is unmapped. */
TEST_F(split, by_madvise_inside_of_the_buffer_leaves_it_alone)
{
	ASSERT_EQ(0, madvise(self->addr + SIZE / 2, PAGE, MADV_DONTFORK));
	expect_alive();
}

/* The mapping that was filled before is there as well. */
TEST_F(split, many_times_while_it_is_used_leaves_it_alone)
{
	volatile unsigned char *view = mmap(NULL, SIZE, RW, MAP_SHARED, self->dmabuf, 0);

	ASSERT_NE(MAP_FAILED, (void *)view);
	for (int i = 0; i < 200; i++) {
		ASSERT_EQ(0, mprotect(self->addr + HUGE_PAGE / 2, PAGE,
				      i % 2 ? RW : PROT_READ));
		view[i * 64]++;
		EXPECT_EQ(view[i * 64], self->addr[i * 64]);
		view[i * 64]--;
	}
	munmap((void *)view, SIZE);
	expect_alive();
}

/* A later mapping at the address of a buffer is not the memory of the buffer. */
TEST_F(split, of_what_has_replaced_the_mapping_leaves_it_alone)
{
	ASSERT_EQ(self->addr, mmap(self->addr, HUGE_PAGE, RW,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	fill(self->addr, SIZE, 2);
	ASSERT_EQ(0, madvise(self->addr, HUGE_PAGE, MADV_DONTNEED));
	EXPECT_EQ(self->state | VMEMEXP_STATE_STALE, test_query(self->dmabuf).state);
	test_contents(self->dmabuf, SIZE, 1);
}

/* No more than that, and no less: it could be a split. */
TEST_F(split, that_is_none_revokes_the_buffer)
{
	int session = test_importer_open();

	take_away();
	EXPECT_EQ(self->state | VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED,
		  test_query(self->dmabuf).state);
	EXPECT_EQ(-ENODEV, _test_importer_attach(session, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, RW, MAP_SHARED, self->dmabuf, 0));
	EXPECT_EQ(ENODEV, errno);
	close(session);
}

TEST_HARNESS_MAIN

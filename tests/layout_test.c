// SPDX-License-Identifier: GPL-2.0
/*
 * How page frames lie in a range, and what extents and entries of a scatterlist they become:
 * touched page by page, contiguous or scattered, mapped by small or by huge entries of a page
 * table. carveout_test has who may export them.
 */
#include <signal.h>

#include "lib/signals.h"
#include "lib/vmemexp_carveout.h"

/* ---- drivers that map page by page: what the export finds in one page table ---- */

#define FEW_PAGES	64
#define FEW		(FEW_PAGES * PAGE)

/* A program does one of these to each page, in turn: it writes to it, reads it, or neither. */
static const char touches[] = { 'w', 'w', 'r', 'w', '-', 'w', 'r', 'r', '-', '-', 'w', 'w', 'w' };

FIXTURE(touched)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int file;
	unsigned char *expect;		/* the contents of a mapping of FEW bytes */
};

FIXTURE_VARIANT(touched)
{
	unsigned int flags;
	unsigned int extent;		/* pages that are contiguous */
	unsigned int first;		/* page of the region that is mapped first */
};

FIXTURE_VARIANT_ADD(touched, and_contiguous) {
	.flags = 0, .extent = FEW_PAGES,
};

/* An entry allows no writing before the first write. */
FIXTURE_VARIANT_ADD(touched, tracked_and_contiguous) {
	.flags = CARVEOUT_TRACKED, .extent = FEW_PAGES,
};

FIXTURE_VARIANT_ADD(touched, and_scattered) {
	.flags = CARVEOUT_SWAPPED, .extent = 4,
};

FIXTURE_VARIANT_ADD(touched, tracked_and_scattered) {
	.flags = CARVEOUT_TRACKED | CARVEOUT_SWAPPED, .extent = 4,
};

/* In the middle of these, page frames become long in a debug kernel (tests/suites/guests.sh). */
FIXTURE_VARIANT_ADD(touched, and_scattered_in_the_region) {
	.flags = CARVEOUT_SWAPPED, .extent = 4, .first = 512 - FEW_PAGES / 2,
};

FIXTURE_SETUP(touched)
{
	struct carveout_setup setup = {
		.region = REGION, .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_FAULT,
		.flags = variant->flags,
	};
	size_t swap = variant->flags & CARVEOUT_SWAPPED ? 4 : 0;
	struct carveout_info region;
	unsigned char *contents;

	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &region));
	test_setup();
	save_list();
	list(region.base, region.size);
	contents = malloc(FEW);
	self->expect = malloc(FEW);
	ASSERT_TRUE(contents && self->expect);
	fill(contents, FEW, 1);
	test_carveout_write(REGION, variant->first * PAGE, contents, FEW);
	for (size_t i = 0; i < FEW_PAGES; i++)
		memcpy(self->expect + i * PAGE, contents + (i ^ swap) * PAGE, PAGE);
	free(contents);
	self->file = _test_carveout_open(&setup);
	ASSERT_LE(0, self->file);
}

FIXTURE_TEARDOWN(touched)
{
	restore_list();
	free(self->expect);
	close(self->file);
	test_teardown();
}

/* Maps it where one page table maps all of it, and touches each page as @touches says. */
static unsigned char *__map_touched(struct __test_metadata *_metadata, int file,
				    unsigned int first)
{
	void *place = map_huge_pages(FEW, HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	volatile unsigned char *addr;

	ASSERT_NE(MAP_FAILED, place);
	addr = mmap(place, FEW, RW, MAP_SHARED | MAP_FIXED, file, first * PAGE);
	ASSERT_EQ(place, (void *)addr);
	for (size_t i = 0; i < FEW_PAGES; i++) {
		char touch = touches[i % ARRAY_SIZE(touches)];
		unsigned char byte;

		if (touch == '-')
			continue;
		byte = addr[i * PAGE];
		if (touch == 'w')
			addr[i * PAGE] = byte;
	}
	return (unsigned char *)addr;
}

/* Whatever the first page of the range is. */
#define for_each_start(skip) \
	for (size_t skip = 0; skip < ARRAY_SIZE(touches) * PAGE; skip += PAGE)

TEST_F(touched, in_turn_is_exported_in_order)
{
	static const unsigned int accesses[] = { O_RDONLY, O_RDWR };

	for (size_t i = 0; i < ARRAY_SIZE(accesses); i++) {
		for_each_start(skip) {
			unsigned char *addr = __map_touched(_metadata, self->file, variant->first);
			unsigned char *view;
			struct vmemexp_export cmd = export_args(addr + skip, FEW - skip,
								accesses[i]);
			int dmabuf = test_export_cmd(&cmd);

			EXPECT_EQ(FEW_PAGES / variant->extent - skip / PAGE / variant->extent,
				  cmd.nr_extents);
			view = mmap(NULL, FEW - skip, PROT_READ, MAP_SHARED, dmabuf, 0);
			ASSERT_NE(MAP_FAILED, (void *)view);
			EXPECT_EQ(-1, first_wrong(self->expect + skip, view, FEW - skip)) {
				TH_LOG("from page %zu on", skip / PAGE);
			}
			munmap(view, FEW - skip);
			close(dmabuf);
			munmap(addr, FEW);
		}
	}
}

TEST_F(touched, by_writes_to_the_dmabuf_shows_them)
{
	unsigned char *addr = __map_touched(_metadata, self->file, variant->first), *view;
	int dmabuf = test_export(addr, FEW, O_RDWR);

	view = test_mmap(NULL, FEW, MAP_SHARED, dmabuf, 0);
	fill(view, FEW, 2);
	EXPECT_EQ(-1, first_difference(addr, FEW, 2));
	munmap(view, FEW);
	close(dmabuf);
	munmap(addr, FEW);
}

/* ---- what is contiguous arrives in one piece ---- */

#define MANY_PAGES	64

FIXTURE(pieces)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int file;
};

FIXTURE_VARIANT(pieces)
{
	unsigned int sort, cache, how, memory;
};

FIXTURE_VARIANT_ADD(pieces, with_pages_at_mmap) {
	.sort = FRAMES_WITH_PAGES, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, with_pages_by_fault) {
	.sort = FRAMES_WITH_PAGES, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_FAULT, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, with_pages_writecombined) {
	.sort = FRAMES_WITH_PAGES, .cache = CARVEOUT_WRITECOMBINE,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, with_pages_uncached) {
	.sort = FRAMES_WITH_PAGES, .cache = CARVEOUT_UNCACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, without_pages_at_mmap) {
	.sort = FRAMES_WITHOUT_PAGES, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, without_pages_writecombined) {
	.sort = FRAMES_WITHOUT_PAGES, .cache = CARVEOUT_WRITECOMBINE,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, without_pages_uncached) {
	.sort = FRAMES_WITHOUT_PAGES, .cache = CARVEOUT_UNCACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, system_ram_at_mmap) {
	.sort = FRAMES_OF_RAM, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, system_ram_by_pages) {
	.sort = FRAMES_OF_RAM, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_PAGES, .memory = VMEMEXP_MEMORY_DRIVER,
};

FIXTURE_SETUP(pieces)
{
	struct carveout_info region;

	skip_without_importer();
	skip_without_carveout();
	if (!find_region(variant->sort, &region))
		SKIP(return, "vmemexp_carveout has no range of this sort");
	test_setup();
	save_list();
	list(region.base, region.size);
	self->file = open_stand_in(region.region, variant->cache,
				   variant->how);
}

FIXTURE_TEARDOWN(pieces)
{
	restore_list();
	close(self->file);
	test_teardown();
}

TEST_F(pieces, are_one_extent_and_one_entry_if_contiguous)
{
	const size_t size = MANY_PAGES * PAGE;
	unsigned char *addr = test_mmap(NULL, size, MAP_SHARED, self->file,
				       OFFSET);
	struct vmemexp_export cmd = export_args(addr, size, O_RDWR);
	int dmabuf, session = test_importer_open();
	struct vmemexp_query query;
	struct importer_info info;

	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	dmabuf = test_export_cmd(&cmd);
	EXPECT_EQ(variant->memory, cmd.memory);
	EXPECT_EQ(1, cmd.nr_extents);
	query = test_query(dmabuf);
	EXPECT_EQ(1, query.nr_extents);
	EXPECT_EQ(size, query.min_extent);
	EXPECT_EQ(size, query.max_extent);

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	info = test_importer_info(session);
	EXPECT_EQ(1, info.orig_nents);
	EXPECT_EQ(1, info.nents);
	EXPECT_EQ(size, info.dma_contiguous);
	close(session);
	close(dmabuf);
	munmap(addr, size);
}

/* Pages 8 to 15, 0 to 3, 4 to 7 and 32 to 63 of the region, in this order. */
TEST_F(pieces, that_are_scattered_are_counted_and_keep_their_order)
{
	static const struct {
		int first, nr;
	} pieces[] = { { 8, 8 }, { 0, 4 }, { 4, 4 }, { 32, 32 } };
	unsigned char *addr = map_anon(48 * PAGE), *where = addr, *view;
	struct vmemexp_export cmd;
	struct vmemexp_query query;
	int dmabuf;

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		test_mmap(where, pieces[i].nr * PAGE, MAP_SHARED, self->file,
			  pieces[i].first * PAGE);
		where += pieces[i].nr * PAGE;
	}
	fill(addr, 48 * PAGE, 1);
	cmd = export_args(addr, 48 * PAGE, O_RDWR);
	dmabuf = test_export_cmd(&cmd);
	EXPECT_EQ(3, cmd.nr_extents);
	query = test_query(dmabuf);
	EXPECT_EQ(3, query.nr_extents);
	EXPECT_EQ(8 * PAGE, query.min_extent);
	EXPECT_EQ(32 * PAGE, query.max_extent);
	view = test_mmap(NULL, 48 * PAGE, MAP_SHARED, dmabuf, 0);
	EXPECT_EQ(-1, first_difference(view, 48 * PAGE, 1));
	munmap(view, 48 * PAGE);
	close(dmabuf);

	cmd = export_args(addr, 48 * PAGE, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
			    cmd.vaddr + 8 * PAGE, &cmd);
	/* Two mappings of one piece. */
	cmd = export_args(addr + 8 * PAGE, 8 * PAGE, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	close(test_export_cmd(&cmd));
	munmap(addr, 48 * PAGE);
}

/* ---- page frames that huge entries map ---- */

/* A mapping of all of it begins at HUGE_PAGE of the region. */
#define ENTRIES		4
#define ALL		(ENTRIES * HUGE_PAGE)

FIXTURE(huge_entries)
{
	int fd;
	struct test_state before;
	struct old_list old;
	struct carveout_info region;
	uint64_t base;			/* physical address of the first byte */
	int file;
	unsigned char *room;
	unsigned char *addr;		/* where the first byte is, if it is mapped */
	unsigned char *expect;		/* the contents */
};

FIXTURE_VARIANT(huge_entries)
{
	unsigned int cache, query;
};

FIXTURE_VARIANT_ADD(huge_entries, cached) {
	.cache = CARVEOUT_CACHED, .query = VMEMEXP_CACHE_CACHED,
};

FIXTURE_VARIANT_ADD(huge_entries, writecombined) {
	.cache = CARVEOUT_WRITECOMBINE, .query = VMEMEXP_CACHE_WRITECOMBINE,
};

FIXTURE_VARIANT_ADD(huge_entries, uncached) {
	.cache = CARVEOUT_UNCACHED, .query = VMEMEXP_CACHE_UNCACHED,
};

/* Returns a file, or a negative errno. */
static int open_huge(unsigned int cache)
{
	struct carveout_setup setup = {
		.region = REGION, .cache = cache, .how = CARVEOUT_HOW_HUGE,
	};

	return _test_carveout_open(&setup);
}

/* Maps what begins at @offset of all of it, where huge entries can map it. */
#define map_part_of_all(offset, length)					\
	test_mmap(self->addr + (offset), length, MAP_SHARED, self->file,	\
		 HUGE_PAGE + (offset))

FIXTURE_SETUP(huge_entries)
{
	int probe;

	skip_without_importer();
	skip_without_carveout();
	probe = open_huge(variant->cache);
	if (probe == -EOPNOTSUPP)
		SKIP(return, "the kernel has no huge entries for page frames");
	ASSERT_LE(0, probe);
	close(probe);
	ASSERT_EQ(0, _test_carveout_info(REGION, &self->region));
	ASSERT_EQ(0, self->region.base % HUGE_PAGE);
	ASSERT_LE(HUGE_PAGE + ALL, self->region.size);
	self->base = self->region.base + HUGE_PAGE;
	test_setup();
	save_list();
	list(self->region.base, self->region.size);
	self->file = open_huge(variant->cache);
	ASSERT_LE(0, self->file);
	self->room = mmap(NULL, ALL + HUGE_PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->room);
	self->addr = self->room + (-(uintptr_t)self->room & (HUGE_PAGE - 1));
	/* One pattern would be the same in each huge page. */
	self->expect = malloc(ALL);
	ASSERT_NE(NULL, self->expect);
	for (size_t at = 0; at < ALL; at += HUGE_PAGE / 8)
		fill(self->expect + at, HUGE_PAGE / 8, at / (HUGE_PAGE / 8));
	map_part_of_all(0, ALL);
	memcpy(self->addr, self->expect, ALL);
	catch_signals();
	/* The tests begin without entries, and no other mapping takes the addresses. */
	ASSERT_EQ(self->addr, mmap(self->addr, ALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
				   MAP_NORESERVE | MAP_FIXED, -1, 0));
	set_caps(~RAWIO);
}

FIXTURE_TEARDOWN(huge_entries)
{
	set_caps(ALL_CAPS);
	restore_list();
	free(self->expect);
	munmap(self->room, ALL + HUGE_PAGE);
	close(self->file);
	test_teardown();
}

/* Enough for tables of tables, and too little for small entries. */
#define FEW_TABLES	(4 * ENTRIES - 1)

/* The dma-buf shows what begins at @offset of all of it. */
#define check_view(dmabuf, offset, length) \
	test_bytes(dmabuf, self->expect + (offset), length)

/* Exports what is mapped at @offset of all of it, as one extent that is cached as it is. */
static int __export_part(struct __test_metadata *_metadata, int fd, unsigned int cache,
			 const unsigned char *addr, size_t length, unsigned int fd_flags)
{
	struct vmemexp_export cmd = export_args(addr, length, fd_flags);
	int dmabuf = __test_export(_metadata, fd, &cmd);
	struct vmemexp_query query = __test_query(_metadata, fd, dmabuf);

	EXPECT_EQ(VMEMEXP_MEMORY_PFNMAP, cmd.memory);
	EXPECT_EQ(1, cmd.nr_extents);
	EXPECT_EQ(length, query.max_extent);
	EXPECT_EQ(cache, query.cache);
	return dmabuf;
}

#define export_part(offset, length, fd_flags)				\
	__export_part(_metadata, self->fd, variant->query,		\
		      self->addr + (offset), length, fd_flags)

TEST_F(huge_entries, are_exported_as_one_extent)
{
	long before = page_tables();
	int dmabuf;

	map_part_of_all(0, ALL);
	dmabuf = export_part(0, ALL, O_RDWR);
	/* The export has filled them in. */
	EXPECT_GE(FEW_TABLES, page_tables() - before);
	check_view(dmabuf, 0, ALL);
	close(dmabuf);
	/* They are there already. */
	dmabuf = export_part(0, ALL, O_RDWR);
	check_view(dmabuf, 0, ALL);
	close(dmabuf);
}

TEST_F(huge_entries, are_exported_in_part)
{
	static const struct range parts[] = {
		{ HUGE_PAGE / 2, ALL - HUGE_PAGE },
		{ HUGE_PAGE - 4096, 2 * 4096 },
		{ HUGE_PAGE, HUGE_PAGE },
		{ HUGE_PAGE + 5 * 4096, 3 * 4096 },
		{ 2 * HUGE_PAGE - 4096, HUGE_PAGE + 4096 },
		{ 4096, 2 * HUGE_PAGE - 4096 },
	};
	int dmabuf;

	map_part_of_all(0, ALL);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		dmabuf = export_part(parts[i].base, parts[i].size, O_RDWR);
		check_view(dmabuf, parts[i].base, parts[i].size);
		close(dmabuf);
	}
}

/* At either end of the mapping, a huge entry would not fit. */
TEST_F(huge_entries, between_small_ones_are_exported_in_order)
{
	const size_t first = HUGE_PAGE / 2 + PAGE, end = ALL - 3 * PAGE;
	int dmabuf;

	map_part_of_all(first, end - first);
	/* Some of the small ones are there, and some are not. */
	self->addr[HUGE_PAGE - PAGE] = self->expect[HUGE_PAGE - PAGE];
	self->addr[3 * HUGE_PAGE + 5 * PAGE] = self->expect[3 * HUGE_PAGE + 5 * PAGE];
	dmabuf = export_part(first, end - first, O_RDWR);
	check_view(dmabuf, first, end - first);
	close(dmabuf);
	/* One begins with a huge entry, and one ends with it. */
	dmabuf = export_part(HUGE_PAGE, end - HUGE_PAGE, O_RDWR);
	check_view(dmabuf, HUGE_PAGE, end - HUGE_PAGE);
	close(dmabuf);
	dmabuf = export_part(first, 2 * HUGE_PAGE - first, O_RDWR);
	check_view(dmabuf, first, 2 * HUGE_PAGE - first);
	close(dmabuf);
}

/* The third huge page comes first, and then the first two. */
TEST_F(huge_entries, that_are_scattered_keep_their_order)
{
	struct vmemexp_export cmd = export_args(self->addr, 3 * HUGE_PAGE, O_RDWR);
	unsigned char *seen = malloc(3 * HUGE_PAGE), *view;
	struct vmemexp_query query;
	int dmabuf;

	test_mmap(self->addr, HUGE_PAGE, MAP_SHARED, self->file, 3 * HUGE_PAGE);
	test_mmap(self->addr + HUGE_PAGE, 2 * HUGE_PAGE, MAP_SHARED, self->file, HUGE_PAGE);
	dmabuf = test_export_cmd(&cmd);
	query = test_query(dmabuf);
	EXPECT_EQ(2, query.nr_extents);
	EXPECT_EQ(HUGE_PAGE, query.min_extent);
	EXPECT_EQ(2 * HUGE_PAGE, query.max_extent);
	memcpy(seen, self->expect + 2 * HUGE_PAGE, HUGE_PAGE);
	memcpy(seen + HUGE_PAGE, self->expect, 2 * HUGE_PAGE);
	view = test_mmap(NULL, 3 * HUGE_PAGE, MAP_SHARED, dmabuf, 0);
	EXPECT_EQ(-1, first_wrong(seen, view, 3 * HUGE_PAGE));
	munmap(view, 3 * HUGE_PAGE);
	close(dmabuf);
	free(seen);
}

#define test_err_huge(error, reason, offset, fd_flags)			\
	test_err_export(error, reason, self->addr + (offset), self->addr, ALL, fd_flags)

/* The list does not cover the mapping from @offset on. */
#define test_err_huge_not_listed(offset) do {				\
	test_err_huge(EPERM, not_listed(&self->region), offset, O_RDWR);	\
	test_err_huge(EPERM, not_listed(&self->region), offset, O_RDONLY);	\
} while (0)

TEST_F(huge_entries, half_in_the_list_are_refused_from_the_first_page_outside)
{
	const size_t half = HUGE_PAGE + HUGE_PAGE / 2;

	map_part_of_all(0, ALL);
	list(self->base, half);
	test_err_huge_not_listed(half);
	close(export_part(0, half, O_RDWR));
	close(export_part(HUGE_PAGE, half - HUGE_PAGE, O_RDWR));
	test_err_export(EPERM, not_listed(&self->region), self->addr + half,
			self->addr + HUGE_PAGE, HUGE_PAGE, O_RDWR);

	list(self->base + half, ALL - half);
	test_err_huge_not_listed(0);
	test_err_export(EPERM, not_listed(&self->region), self->addr + HUGE_PAGE,
			self->addr + HUGE_PAGE, HUGE_PAGE, O_RDWR);
	close(export_part(half, ALL - half, O_RDWR));

	list(self->base, ALL - PAGE);
	test_err_huge_not_listed(ALL - PAGE);
	list(self->base + PAGE, ALL - PAGE);
	test_err_huge_not_listed(0);
	list_nothing();
	test_err_huge_not_listed(0);
}

/* In whichever order they are listed. */
TEST_F(huge_entries, may_lie_in_several_carveouts)
{
	const size_t half = HUGE_PAGE + HUGE_PAGE / 2;

	map_part_of_all(0, ALL);
	list_two(self->base, half - PAGE, self->base + half, ALL - half);
	test_err_huge_not_listed(half - PAGE);
	list_two(self->base + half, ALL - half, self->base, half - PAGE);
	test_err_huge_not_listed(half - PAGE);
	list_two(self->base, half, self->base + half, ALL - half);
	close(export_part(0, ALL, O_RDWR));
	list_two(self->base + half, ALL - half, self->base, half);
	close(export_part(0, ALL, O_RDWR));
}

TEST_F(huge_entries, outside_of_the_list_need_sys_rawio)
{
	int dmabuf;

	if (self->region.flags & CARVEOUT_INFO_RAM)
		SKIP(return, "System RAM is never exported without the list");
	map_part_of_all(0, ALL);
	list(self->base + HUGE_PAGE / 2, HUGE_PAGE);
	set_caps(RAWIO);
	dmabuf = export_part(0, ALL, O_RDWR);
	set_caps(ALL_CAPS);
	check_view(dmabuf, 0, ALL);
	close(dmabuf);
}

TEST_F(huge_entries, for_reading_give_no_more_than_that)
{
	int dmabuf;

	map_part_of_all(0, ALL);
	ASSERT_EQ(0, mprotect(self->addr, ALL, PROT_READ));
	test_err_huge(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 0, O_RDWR);
	set_caps(ALL_CAPS);
	dmabuf = export_part(0, ALL, O_RDONLY);
	EXPECT_EQ(VMEMEXP_ACCESS_READ, test_query(dmabuf).access);
	check_view(dmabuf, 0, ALL);
	close(dmabuf);
	test_err_huge(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 0, O_RDWR);
}

/* A read leaves entries that do not allow writing yet. */
TEST_F(huge_entries, that_were_read_may_be_exported_for_writing)
{
	unsigned char *view;
	int dmabuf;

	map_part_of_all(0, ALL);
	for (int i = 0; i < ENTRIES; i += 2)
		ASSERT_EQ(self->expect[i * HUGE_PAGE], self->addr[i * HUGE_PAGE]);
	dmabuf = export_part(0, ALL, O_RDWR);
	check_view(dmabuf, 0, ALL);
	view = test_mmap(NULL, ALL, MAP_SHARED, dmabuf, 0);
	fill(view, ALL, 7);
	EXPECT_EQ(-1, first_difference(self->addr, ALL, 7));
	munmap(view, ALL);
	close(dmabuf);
}

/* Expects what is revoked, and no more of it. */
#define expect_huge_taken(dmabuf, view, length) do {			\
	int session = test_importer_open();				\
									\
	EXPECT_EQ(TAKEN, test_query_state(dmabuf));			\
	/* The revoke may be at work, and empties one part after the other. */ \
	EXPECT_SOON(SIGBUS, signal_of(view, false));				\
	EXPECT_SOON(SIGBUS, signal_of((view) + (length) - 1, false));		\
	EXPECT_EQ(-ENODEV, _test_importer_attach(session, dmabuf,	\
						 IMPORTER_DEV_COHERENT)); \
	close(session);							\
} while (0)

TEST_F(huge_entries, that_the_driver_takes_away_are_noticed)
{
	const size_t first = HUGE_PAGE / 2, length = HUGE_PAGE;
	unsigned char *whole_view, *view;
	int whole, part;

	map_part_of_all(0, ALL);
	whole = export_part(0, ALL, O_RDWR);
	/* This part covers no huge entry completely. */
	part = export_part(first, length, O_RDWR);
	whole_view = test_mmap(NULL, ALL, MAP_SHARED, whole, 0);
	view = test_mmap(NULL, length, MAP_SHARED, part, 0);
	EXPECT_EQ(-1, first_wrong(self->expect, whole_view, ALL));
	EXPECT_EQ(-1, first_wrong(self->expect + first, view, length));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(whole));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(part));

	take_away();
	expect_huge_taken(whole, whole_view, ALL);
	expect_huge_taken(part, view, length);
	test_err_huge(EFAULT, VMEMEXP_REASON_NO_BACKING, 0, O_RDWR);
	munmap(whole_view, ALL);
	munmap(view, length);
	close(whole);
	close(part);
}

/* The kernel splits the entry for that, which the driver has nothing to do with. */
TEST_F(huge_entries, that_are_unmapped_in_part_are_taken_away_with_the_rest)
{
	const size_t hole = HUGE_PAGE + HUGE_PAGE / 2;
	unsigned char *view;
	int dmabuf, again;

	map_part_of_all(0, ALL);
	dmabuf = export_part(0, ALL, O_RDWR);
	view = test_mmap(NULL, ALL, MAP_SHARED, dmabuf, 0);
	ASSERT_EQ(0, munmap(self->addr + hole, PAGE));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE, test_query_state(dmabuf));
	EXPECT_EQ(-1, first_wrong(self->expect, view, ALL));

	/* Before the hole and behind it, small entries take its place. */
	test_err_huge(EFAULT, VMEMEXP_REASON_NOT_MAPPED, hole, O_RDWR);
	again = export_part(0, hole, O_RDWR);
	check_view(again, 0, hole);
	close(again);
	again = export_part(hole + PAGE, ALL - hole - PAGE, O_RDWR);
	check_view(again, hole + PAGE, ALL - hole - PAGE);

	take_away();
	expect_huge_taken(dmabuf, view, ALL);
	EXPECT_EQ(TAKEN, test_query_state(again));
	munmap(view, ALL);
	close(dmabuf);
	close(again);
}

TEST_HARNESS_MAIN

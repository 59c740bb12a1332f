// SPDX-License-Identifier: GPL-2.0
/*
 * Several ranges in one dma-buf: it shows them one after the other, and each rule for one
 * range holds for each of them. An error names the range beside the address.
 *
 * The fixtures list and frames are lists of 2, 3 and 1024 ranges, for rules that hold for
 * any number; the cases of ranges have numbers of their own. overlap_test has ranges that
 * show a page twice.
 */
#include <limits.h>
#include <sys/utsname.h>

#include "lib/vmemexp_memory.h"

#define MAX_BUFFERS	"/sys/module/vmemexp/parameters/max_buffers"
#define BUFFERS		"/sys/kernel/debug/vmemexp/buffers"

/* Ranges with pages between them that are in none. */
#define STEP		(4 * PAGE)

static void *address(const struct vmemexp_range *range)
{
	return (void *)(uintptr_t)range->vaddr;
}

/*
 * From the end to the start of @area: no range goes on where the last one ended. They are
 * of one page or two, so that the place of a range is not told by its number.
 */
static void make_list(struct vmemexp_range *list, unsigned int nr, unsigned char *area)
{
	for (unsigned int i = 0; i < nr; i++)
		list[i] = range_of(area + (nr - 1 - i) * STEP, (i % 64 ? 1 : 2) * PAGE);
}

/* Gives each range contents of its own. */
static void fill_list(const struct vmemexp_range *list, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		fill(address(&list[i]), list[i].length, i);
}

/* The length of @nr ranges: where the one behind them begins in the dma-buf. */
static size_t bytes_of(const struct vmemexp_range *list, unsigned int nr)
{
	size_t size = 0;

	for (unsigned int i = 0; i < nr; i++)
		size += list[i].length;
	return size;
}

/* The bytes of the ranges in their order; to be freed. */
static unsigned char *concatenate(const struct vmemexp_range *list, unsigned int nr, size_t *size)
{
	unsigned char *bytes, *at;

	*size = bytes_of(list, nr);
	bytes = malloc(*size);
	at = bytes;
	for (unsigned int i = 0; bytes && i < nr; at += list[i].length, i++)
		memcpy(at, address(&list[i]), list[i].length);
	return bytes;
}

/*
 * The place in a list of @nr behind place @i, of those that are looked at: the first one,
 * the second, one in the middle and the last. @nr is the end.
 */
static unsigned int next_place(unsigned int i, unsigned int nr)
{
	if (!i)
		return 1;
	if (i < nr / 2)
		return nr / 2;
	return i < nr - 1 ? nr - 1 : nr;
}

#define for_each_place(i, first, nr) \
	for (unsigned int i = first; i < (nr); i = next_place(i, nr))

/* Exports the list, and looks at each byte, for a CPU and for a device. */
static struct vmemexp_export __check_list(struct __test_metadata *_metadata, int fd,
					  const struct vmemexp_range *list, unsigned int nr,
					  unsigned int fd_flags)
{
	struct vmemexp_export cmd = list_args(list, nr, fd_flags);
	unsigned char *expect;
	struct vmemexp_query query;
	size_t size;

	expect = concatenate(list, nr, &size);
	ASSERT_NE(NULL, expect);
	__test_export(_metadata, fd, &cmd);
	test_bytes(cmd.fd, expect, size);
	query = __test_query(_metadata, fd, cmd.fd);
	EXPECT_EQ(nr, query.nr_ranges);
	EXPECT_EQ(0, query.reserved);
	EXPECT_EQ(size, query.length);
	EXPECT_EQ(0, query.offset);
	EXPECT_EQ(cmd.nr_extents, query.nr_extents);
	EXPECT_EQ(cmd.state, query.state);
	close(cmd.fd);
	free(expect);
	return cmd;
}

#define check_list(list, nr, fd_flags) __check_list(_metadata, self->fd, list, nr, fd_flags)

/* The argument says why, and nothing else has changed; teardown sees what was left behind. */
static void __refuse(struct __test_metadata *_metadata, int fd, int error, unsigned int reason,
		     unsigned int range, uint64_t addr, struct vmemexp_export cmd)
{
	struct vmemexp_export expected = cmd;
	int ret = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd);

	EXPECT_EQ(-error, ret);
	if (!ret) {
		close(cmd.fd);
		return;
	}
	expected.err_reason = reason;
	expected.err_range = range;
	expected.err_addr = addr;
	EXPECT_EQ(reason, cmd.err_reason);
	EXPECT_EQ(range, cmd.err_range);
	EXPECT_EQ(addr, cmd.err_addr);
	EXPECT_EQ(0, memcmp(&expected, &cmd, sizeof(cmd)));
}

/* @range is the expected err_range, @cmd the request itself, of which a copy is used. */
#define refuse(error, reason, range, addr, cmd) \
	__refuse(_metadata, self->fd, error, reason, range, addr, cmd)

/* ---- rules for any number of ranges ---- */

FIXTURE(list)
{
	int fd;
	struct test_state before;
	unsigned int nr;
	size_t size;
	unsigned char *area;	/* a memfd's, so that allow= can tell it from private memory */
	struct vmemexp_range list[VMEMEXP_MAX_RANGES];
};

FIXTURE_VARIANT(list)
{
	unsigned int nr;
};

FIXTURE_VARIANT_ADD(list, of_two) { .nr = 2 };

FIXTURE_VARIANT_ADD(list, of_three) { .nr = 3 };

FIXTURE_VARIANT_ADD(list, of_1024) { .nr = VMEMEXP_MAX_RANGES };

FIXTURE_SETUP(list)
{
	int file;

	test_setup();
	ASSERT_EQ(PAGE, page_size());
	self->nr = variant->nr;
	self->size = self->nr * STEP;
	file = memfd(self->size, 0);
	self->area = map(self->size, RW, MAP_SHARED, file);
	close(file);
	make_list(self->list, self->nr, self->area);
}

FIXTURE_TEARDOWN(list)
{
	munmap(self->area, self->size);
	test_teardown();
	restore_system();
}

TEST_F(list, is_shown_range_by_range)
{
	skip_without_importer();
	fill_list(self->list, self->nr);
	EXPECT_EQ(VMEMEXP_MEMORY_SHMEM, check_list(self->list, self->nr, O_RDWR).memory);
}

/* Only there can a device find other bytes than the ranges'. */
TEST_F(list, begins_and_ends_inside_of_a_page_only_at_the_outer_ends)
{
	size_t size = bytes_of(self->list, self->nr);
	struct vmemexp_range *last = &self->list[self->nr - 1];
	unsigned char *first_page = address(&self->list[0]), *last_page;
	unsigned char *view;
	struct vmemexp_export cmd;

	last_page = address(last) + last->length - PAGE;
	fill(first_page, PAGE, 1);
	fill(last_page, PAGE, 2);
	self->list[0].vaddr += CUT_FRONT;
	self->list[0].length -= CUT_FRONT;
	last->length -= CUT_BACK;
	cmd = list_args(self->list, self->nr, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_export_cmd(&cmd);
	EXPECT_EQ(CUT_FRONT, cmd.offset);
	EXPECT_EQ(size, cmd.dmabuf_size);
	EXPECT_EQ(size - CUT_FRONT - CUT_BACK, test_query(cmd.fd).length);
	view = map(size, PROT_READ, MAP_SHARED, cmd.fd);
	EXPECT_SAME(first_page, view, PAGE);
	EXPECT_SAME(last_page, view + size - PAGE, PAGE);
	munmap(view, size);
	close(cmd.fd);

	cmd = list_args(self->list, self->nr, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	for_each_place(i, 0, self->nr) {
		struct vmemexp_range good = self->list[i];

		if (i) {
			self->list[i].vaddr++;
			self->list[i].length--;
			refuse(EINVAL, VMEMEXP_REASON_ALIGNMENT, i, good.vaddr + 1, cmd);
			self->list[i] = good;
		}
		if (i < self->nr - 1) {
			self->list[i].length--;
			refuse(EINVAL, VMEMEXP_REASON_ALIGNMENT, i,
			       good.vaddr + good.length - 1, cmd);
			self->list[i] = good;
		}
	}
}

/*
 * The pages of a huge page follow each other. The kernel tells if those of the next one go
 * on there; as for frames below, they always do.
 */
TEST_F(list, is_one_extent_where_physical_memory_goes_on)
{
	unsigned int nr_huge = self->nr * PAGE / HUGE_PAGE + 1, split = self->nr;
	struct vmemexp_export cmd;
	struct extents extents;
	unsigned char *huge;
	char text[24];

	if (need_hugetlb())
		SKIP(return, "the kernel has no %s", need_hugetlb());
	snprintf(text, sizeof(text), "%u", nr_huge);
	ASSERT_EQ(0, set_knob(HUGE_PAGES, text));
	huge = map(nr_huge * HUGE_PAGE, RW, ANON | MAP_HUGETLB, -1);
	for (unsigned int i = 0; i < self->nr; i++)
		self->list[i] = range_of(huge + i * PAGE, PAGE);
	for (unsigned int i = 0; i < nr_huge; i++)
		huge[i * HUGE_PAGE] = 1;
	extents = physical_extents(huge, self->nr * PAGE);
	if (extents.nr > 1)
		split = extents.second / PAGE;
	cmd = list_args(self->list, self->nr, O_RDWR);
	close(test_export_cmd(&cmd));
	EXPECT_EQ(extents.nr, cmd.nr_extents);
	cmd = list_args(self->list, split, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	close(test_export_cmd(&cmd));

	/* It ends where a page is left out, or before. */
	cmd = list_args(self->list, self->nr, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	for_each_place(i, 1, self->nr) {
		unsigned int bad = i < split ? i : split;

		self->list[i].vaddr += PAGE;
		refuse(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS, bad, self->list[bad].vaddr, cmd);
		self->list[i].vaddr -= PAGE;
	}
	munmap(huge, nr_huge * HUGE_PAGE);
}

/* By another mapping of the file: neither the addresses nor the first ranges tell. */
TEST_F(list, may_have_a_page_twice_wherever_it_is_listed_again)
{
	unsigned char *alias = mremap(self->area, 0, self->size, MREMAP_MAYMOVE);
	size_t offset = (unsigned char *)address(&self->list[0]) - self->area;
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);

	ASSERT_NE(MAP_FAILED, (void *)alias);
	close(test_export_cmd(&cmd));
	EXPECT_EQ(0, cmd.state & VMEMEXP_STATE_OVERLAPS);
	for_each_place(i, 1, self->nr) {
		struct vmemexp_range good = self->list[i];

		self->list[i] = range_of(alias + offset, PAGE);
		cmd = list_args(self->list, self->nr, O_RDWR);
		close(test_export_cmd(&cmd));
		EXPECT_NE(0, cmd.state & VMEMEXP_STATE_OVERLAPS);
		self->list[i] = good;
	}
	munmap(alias, self->size);
}

/* The device works on a copy: it sees what the CPU wrote after a sync of just these bytes. */
TEST_F(list, is_synced_across_its_boundaries)
{
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);
	unsigned char seen[200], expect[sizeof(seen)];
	const size_t half = sizeof(seen) / 2;
	int session;

	skip_without_importer();
	session = test_importer_open();
	test_export_cmd(&cmd);
	test_importer_attach(session, cmd.fd, IMPORTER_DEV_SHADOW);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	for_each_place(i, 1, self->nr) {
		const struct vmemexp_range *before = &self->list[i - 1];
		size_t at = bytes_of(self->list, i) - half;

		fill(expect, sizeof(expect), 99);
		memcpy(address(before) + before->length - half, expect, half);
		memcpy(address(&self->list[i]), expect + half, half);
		test_importer_read(session, at, seen, sizeof(seen));
		EXPECT_NE(0, memcmp(expect, seen, half));
		EXPECT_NE(0, memcmp(expect + half, seen + half, half));
		test_sync(cmd.fd, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, at, sizeof(seen));
		test_importer_read(session, at, seen, sizeof(seen));
		EXPECT_SAME(expect, seen, sizeof(seen));
	}
	close(session);
	close(cmd.fd);
}

/* --- errors name the range --- */

/* Some ranges of the list are @bad, one after the other, while all others are good. */
static void __check_bad(struct __test_metadata *_metadata, int fd, struct vmemexp_range *list,
			unsigned int nr, struct vmemexp_range bad, int error,
			unsigned int reason, uint64_t addr)
{
	for_each_place(i, 0, nr) {
		struct vmemexp_range good = list[i];

		list[i] = bad;
		__refuse(_metadata, fd, error, reason, i, addr, list_args(list, nr, O_RDWR));
		list[i] = good;
	}
}

#define check_bad(bad, error, reason, addr) \
	__check_bad(_metadata, self->fd, self->list, self->nr, bad, error, reason, addr)

TEST_F(list, has_no_range_that_is_none)
{
	const uint64_t last = -(uint64_t)PAGE, start = to_u64(self->area);

	check_bad(range_of(self->area, 0), EINVAL, VMEMEXP_REASON_LENGTH, start);
	check_bad(((struct vmemexp_range) { last, 2 * PAGE }), EINVAL, VMEMEXP_REASON_LENGTH,
		  last);
	check_bad(((struct vmemexp_range) { PAGE, last }), EINVAL, VMEMEXP_REASON_LENGTH, PAGE);
	check_bad(((struct vmemexp_range) { start + 1, PAGE - 1 }), EINVAL,
		  VMEMEXP_REASON_ALIGNMENT, start + 1);
	check_bad(((struct vmemexp_range) { start, PAGE + 1 }), EINVAL,
		  VMEMEXP_REASON_ALIGNMENT, start + PAGE + 1);
	check_bad(((struct vmemexp_range) { 0xffff800000000000ULL, PAGE }), EFAULT,
		  VMEMEXP_REASON_NOT_MAPPED, 0xffff800000000000ULL);
}

TEST_F(list, has_no_range_that_may_not_be_exported)
{
	unsigned char *hole = map(2 * PAGE, RW, ANON, -1), *view;
	int file = memfd(PAGE, 0), dmabuf = test_export(self->area, PAGE, O_RDWR);
	unsigned char *beyond = map(2 * PAGE, RW, MAP_SHARED, file);

	close(file);
	ASSERT_EQ(0, munmap(hole + PAGE, PAGE));
	check_bad(range_of(hole, 2 * PAGE), EFAULT, VMEMEXP_REASON_NOT_MAPPED,
		  to_u64(hole + PAGE));
	check_bad(range_of(beyond, 2 * PAGE), EFAULT, VMEMEXP_REASON_NO_BACKING,
		  to_u64(beyond + PAGE));
	ASSERT_EQ(0, mprotect(hole, PAGE, PROT_NONE));
	check_bad(range_of(hole, PAGE), EFAULT, VMEMEXP_REASON_NOT_READABLE, to_u64(hole));

	/* A dma-buf cannot be a part of another one. */
	view = map(PAGE, RW, MAP_SHARED, dmabuf);
	check_bad(range_of(view, PAGE), EINVAL, VMEMEXP_REASON_MIXED, to_u64(view));
	munmap(view, PAGE);
	close(dmabuf);
	munmap(hole, PAGE);
	munmap(beyond, 2 * PAGE);
}

TEST_F(list, has_no_kind_of_memory_that_is_not_allowed)
{
	unsigned char *private = map(PAGE, RW, ANON, -1);
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);

	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "shmem"));
	check_bad(range_of(private, PAGE), EPERM, VMEMEXP_REASON_KIND, to_u64(private));
	close(test_export_cmd(&cmd));
	munmap(private, PAGE);
}

/* --- read-only --- */

TEST_F(list, is_writable_if_each_mapping_is)
{
	struct vmemexp_export cmd;

	for_each_place(i, 0, self->nr) {
		const struct vmemexp_range *range = &self->list[i];

		ASSERT_EQ(0, mprotect(address(range), range->length, PROT_READ));
		refuse(EACCES, VMEMEXP_REASON_NOT_WRITABLE, i, range->vaddr,
		       list_args(self->list, self->nr, O_RDWR));
		cmd = list_args(self->list, self->nr, O_RDONLY);
		/* The last of them stands for all. */
		if (i == self->nr - 1)
			close(test_export_cmd(&cmd));
		ASSERT_EQ(0, mprotect(address(range), range->length, RW));
	}
}

TEST_F(list, is_written_by_nobody_if_it_is_read_only)
{
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDONLY);
	size_t size = bytes_of(self->list, self->nr);
	unsigned char *view;
	int session;

	skip_without_importer();
	test_export_cmd(&cmd);
	EXPECT_EQ(VMEMEXP_ACCESS_READ, test_query(cmd.fd).access);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, size, RW, MAP_SHARED, cmd.fd, 0));
	EXPECT_EQ(EACCES, errno);
	view = map(size, PROT_READ, MAP_SHARED, cmd.fd);
	for_each_place(i, 0, self->nr) {
		unsigned char *page = view + bytes_of(self->list, i);

		EXPECT_EQ(-1, mprotect(page, PAGE, RW));
		EXPECT_EQ(EACCES, errno);
		/* The dma-buf shows what the program writes, all the same. */
		fill(address(&self->list[i]), PAGE, i);
		EXPECT_SAME((unsigned char *)address(&self->list[i]), page, PAGE);
	}
	munmap(view, size);
	session = test_importer_open();
	test_importer_attach(session, cmd.fd, IMPORTER_DEV_COHERENT);
	EXPECT_EQ(-EACCES, _test_importer_map(session, IMPORTER_FROM_DEVICE));
	EXPECT_EQ(-EACCES, _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	close(session);
	close(cmd.fd);
}

/* The lines of @text in which @word is. */
static unsigned int count_lines(const char *text, const char *word)
{
	unsigned int nr = 0;

	while (text && (text = strstr(text, word))) {
		text = strchr(text + 1, '\n');
		nr++;
	}
	return nr;
}

/* --- limits --- */

TEST_F(list, counts_by_its_pages_against_the_limit)
{
	size_t size = bytes_of(self->list, self->nr);
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);
	long before = accounted_pages();

	limit_memlock(size);
	test_export_cmd(&cmd);
	EXPECT_EQ(before + (long)(size / PAGE), accounted_pages());
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());
	limit_memlock(size - PAGE);
	refuse(ENOMEM, VMEMEXP_REASON_LIMIT, 0, self->list[0].vaddr,
	       list_args(self->list, self->nr, O_RDWR));
}

TEST_F(list, is_one_buffer)
{
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);
	static char text[64 * 1024];
	char line[128];

	ASSERT_EQ(0, set_knob(MAX_BUFFERS, "1"));
	set_caps(ALL_CAPS & ~(1ULL << CAP_SYS_RESOURCE));
	test_export_cmd(&cmd);
	refuse(EDQUOT, VMEMEXP_REASON_QUOTA, 0, self->list[0].vaddr,
	       list_args(self->list, self->nr, O_RDWR));
	set_caps(ALL_CAPS);

	/* And one line in the list of buffers. */
	ASSERT_LT(0, read_text(BUFFERS, text, sizeof(text)));
	snprintf(line, sizeof(line), "%llu %zu rw shmem %llu 0 0 0 0 live 0 %d ",
		 (unsigned long long)inode_of(cmd.fd), bytes_of(self->list, self->nr),
		 (unsigned long long)cmd.nr_extents, getpid());
	EXPECT_EQ(1, count_lines(text, line)) {
		TH_LOG("not one \"%s\" in:\n%s", line, text);
	}
	snprintf(line, sizeof(line), " %d ", getpid());
	EXPECT_EQ(1, count_lines(text, line));
	close(cmd.fd);
}

/* --- when a range goes away --- */

/* The pages between the ranges of make_list(). */
static void unmap_gaps(unsigned char *memory, size_t size)
{
	for (size_t gap = 2 * PAGE; gap < size; gap += STEP)
		munmap(memory + gap, STEP - 2 * PAGE);
}

/* Private memory, as most of what is unmapped. */
TEST_F(list, is_stale_when_some_of_any_range_is_unmapped)
{
	unsigned char *memory = map(self->size, RW, ANON, -1), *view;
	struct vmemexp_export cmd;

	make_list(self->list, self->nr, memory);
	for_each_place(i, 0, self->nr) {
		const struct vmemexp_range *range = &self->list[i];
		unsigned char *page = address(range) + range->length - PAGE;

		fill(page, PAGE, i);
		cmd = list_args(self->list, self->nr, O_RDWR);
		test_export_cmd(&cmd);
		if (!i)
			unmap_gaps(memory, self->size);
		EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(cmd.fd));
		ASSERT_EQ(0, munmap(page, PAGE));
		EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE, test_query_state(cmd.fd));
		/* The dma-buf has it as before. */
		view = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, cmd.fd,
			    bytes_of(self->list, i + 1) - PAGE);
		ASSERT_NE(MAP_FAILED, (void *)view);
		EXPECT_EQ(-1, first_difference(view, PAGE, i));
		munmap(view, PAGE);
		close(cmd.fd);
		ASSERT_EQ(page, mmap(page, PAGE, RW, ANON | MAP_FIXED, -1, 0));
	}
	munmap(memory, self->size);
}

/* ---- rules for any number of ranges of page frames ---- */

FIXTURE(frames)
{
	int fd;
	struct test_state before;
	struct carveout_info region;
	unsigned int nr;
	size_t size;
	int file;
	unsigned char *area;
	struct vmemexp_range list[VMEMEXP_MAX_RANGES];
};

FIXTURE_VARIANT(frames)
{
	unsigned int nr;
};

FIXTURE_VARIANT_ADD(frames, of_two_ranges) { .nr = 2 };

FIXTURE_VARIANT_ADD(frames, of_three_ranges) { .nr = 3 };

FIXTURE_VARIANT_ADD(frames, of_1024_ranges) { .nr = VMEMEXP_MAX_RANGES };

/* A driver that may take away what is mapped of this file. */
static int open_frames(unsigned int region)
{
	struct carveout_setup setup = {
		.region = region, .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP,
	};

	return _test_carveout_open(&setup);
}

/* Has the administrator list @size bytes of the carve-out, from its start. */
static void __list_carveout(struct __test_metadata *_metadata,
			    const struct carveout_info *region, size_t size)
{
	char text[64];

	ASSERT_GE(region->size, size);
	snprintf(text, sizeof(text), "%#llx:%#zx", (unsigned long long)region->base, size);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, text));
}

#define list_carveout(size) __list_carveout(_metadata, &self->region, size)

FIXTURE_SETUP(frames)
{
	skip_without_carveout();
	skip_without_importer();
	test_setup();
	ASSERT_EQ(PAGE, page_size());
	self->nr = variant->nr;
	self->size = self->nr * STEP;
	ASSERT_TRUE(find_carveout(FRAMES_WITHOUT_PAGES, &self->region));
	list_carveout(self->size);
	self->file = open_frames(self->region.region);
	ASSERT_LE(0, self->file);
	self->area = map(self->size, RW, MAP_SHARED, self->file);
	make_list(self->list, self->nr, self->area);
}

FIXTURE_TEARDOWN(frames)
{
	munmap(self->area, self->size);
	close(self->file);
	test_teardown();
	restore_system();
}

TEST_F(frames, are_shown_range_by_range)
{
	fill_list(self->list, self->nr);
	EXPECT_EQ(self->nr, check_list(self->list, self->nr, O_RDWR).nr_extents);
}

TEST_F(frames, are_one_extent_where_they_go_on)
{
	struct vmemexp_export cmd;

	for (unsigned int i = 0; i < self->nr; i++)
		self->list[i] = range_of(self->area + i / 2 * PAGE, PAGE);
	for (unsigned int i = 0; i < self->nr; i += 2)
		fill(address(&self->list[i]), PAGE, i);
	/* Each is in it twice, but for the last of three. */
	cmd = check_list(self->list, self->nr, O_RDWR);
	EXPECT_NE(0, cmd.state & VMEMEXP_STATE_OVERLAPS);
	EXPECT_EQ(self->nr / 2 + 1, cmd.nr_extents);

	for (unsigned int i = 0; i < self->nr; i++)
		self->list[i] = range_of(self->area + i * PAGE, PAGE);
	cmd = list_args(self->list, self->nr, O_RDWR);
	close(test_export_cmd(&cmd));
	EXPECT_EQ(1, cmd.nr_extents);
	cmd = list_args(self->list, self->nr, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	close(test_export_cmd(&cmd));

	cmd = list_args(self->list, self->nr, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	for_each_place(i, 1, self->nr) {
		self->list[i].vaddr += PAGE;
		refuse(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS, i, self->list[i].vaddr, cmd);
		self->list[i].vaddr -= PAGE;
	}
}

TEST_F(frames, that_are_in_no_carveout_are_named)
{
	unsigned char *end = self->area + self->nr * PAGE;
	struct vmemexp_export cmd;

	for (unsigned int i = 0; i < self->nr; i++)
		self->list[i] = range_of(self->area + i * PAGE, PAGE);
	list_carveout((self->nr + 1) * PAGE);
	set_caps(ALL_CAPS & ~RAWIO);
	cmd = list_args(self->list, self->nr, O_RDWR);
	close(test_export_cmd(&cmd));
	for_each_place(i, 0, self->nr) {
		struct vmemexp_range good = self->list[i];

		/* The first page of this one is listed, the second is not. */
		self->list[i] = range_of(end, 2 * PAGE);
		refuse(EPERM, VMEMEXP_REASON_PFNMAP, i, to_u64(end + PAGE),
		       list_args(self->list, self->nr, O_RDWR));
		self->list[i] = good;
	}
	set_caps(ALL_CAPS);
}

/* Nor with those of another file, whose driver may take them away alone. */
TEST_F(frames, are_not_mixed_with_other_memory)
{
	unsigned char *pages = map_anon(self->size), *other;
	struct vmemexp_range list[VMEMEXP_MAX_RANGES];
	int file = open_frames(self->region.region);

	ASSERT_LE(0, file);
	other = map(PAGE, RW, MAP_SHARED, file);
	make_list(list, self->nr, pages);
	for_each_place(i, 1, self->nr) {
		struct vmemexp_range frames = self->list[i], page = list[i];

		list[i] = frames;
		refuse(EINVAL, VMEMEXP_REASON_MIXED, i, frames.vaddr,
		       list_args(list, self->nr, O_RDWR));
		list[i] = page;
		self->list[i] = page;
		refuse(EINVAL, VMEMEXP_REASON_MIXED, i, page.vaddr,
		       list_args(self->list, self->nr, O_RDWR));
		self->list[i] = range_of(other, PAGE);
		refuse(EINVAL, VMEMEXP_REASON_MIXED, i, to_u64(other),
		       list_args(self->list, self->nr, O_RDWR));
		self->list[i] = frames;
	}
	munmap(other, PAGE);
	close(file);
	munmap(pages, self->size);
}

/* They are reserved anyway: what the kernel remembers of each range is charged. */
TEST_F(frames, count_by_their_ranges_against_the_limit)
{
	struct vmemexp_export cmd = export_args(self->area, self->nr * PAGE, O_RDWR);
	long before = accounted_pages(), whole, list;

	for (unsigned int i = 0; i < self->nr; i++)
		self->list[i] = range_of(self->area + i * PAGE, PAGE);
	test_export_cmd(&cmd);
	whole = accounted_pages() - before;
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());
	cmd = list_args(self->list, self->nr, O_RDWR);
	test_export_cmd(&cmd);
	list = accounted_pages() - before;
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());
	/* Addresses and numbers of at least 16 bytes, and of not many more. */
	EXPECT_LE(whole + (long)((self->nr - 1) * 16 / PAGE), list);
	EXPECT_GE(whole + (long)(self->nr * 64 / PAGE), list);

	limit_memlock(list * PAGE);
	cmd = list_args(self->list, self->nr, O_RDWR);
	close(test_export_cmd(&cmd));
	EXPECT_SOON(before, accounted_pages());
	if (!list)
		return;
	limit_memlock((list - 1) * PAGE);
	refuse(ENOMEM, VMEMEXP_REASON_LIMIT, 0, self->list[0].vaddr,
	       list_args(self->list, self->nr, O_RDWR));
}

/* --- the same page frames again and again: more than there are --- */

#define AGAIN		(16UL << 20)

FIXTURE(again)
{
	int fd;
	struct test_state before;
	struct carveout_info region;
	int file;
	unsigned char *area;	/* the carve-out, again and again */
	unsigned int nr;
	struct vmemexp_range list[VMEMEXP_MAX_RANGES];
};

FIXTURE_SETUP(again)
{
	skip_without_carveout();
	skip_without_importer();
	test_setup();
	ASSERT_TRUE(find_carveout(FRAMES_WITH_PAGES, &self->region));
	list_carveout(self->region.size);
	self->file = open_frames(self->region.region);
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, AGAIN % self->region.size);
	self->area = map(AGAIN, PROT_NONE, ANON, -1);
	for (size_t at = 0; at < AGAIN; at += self->region.size)
		ASSERT_NE(MAP_FAILED, mmap(self->area + at, self->region.size, RW,
					   MAP_SHARED | MAP_FIXED, self->file, 0));
	/* 32 bits cannot count them all. */
	self->nr = sizeof(long) == 8 ? VMEMEXP_MAX_RANGES : 32;
	for (unsigned int i = 0; i < self->nr; i++)
		self->list[i] = range_of(self->area, AGAIN);
}

FIXTURE_TEARDOWN(again)
{
	munmap(self->area, AGAIN);
	close(self->file);
	test_teardown();
	restore_system();
}

/* vmap() refuses it, of which the core of dma-buf would make a warning. */
TEST_F(again, are_not_mapped_by_the_kernel_if_they_are_more_than_ram)
{
	uint64_t ram = sysconf(_SC_PHYS_PAGES) * (uint64_t)PAGE;
	uint64_t all = self->nr * (uint64_t)AGAIN;
	unsigned int few = ram / AGAIN / 2;
	int session = test_importer_open();
	struct vmemexp_export cmd;

	if (sizeof(long) == 8)
		ASSERT_LT(ram, all) {
			TH_LOG("the machine has too much memory for this test");
		}
	if (all > ram) {
		cmd = list_args(self->list, self->nr, O_RDWR);
		test_export_cmd(&cmd);
		EXPECT_NE(0, cmd.state & VMEMEXP_STATE_NO_VMAP);
		test_importer_attach(session, cmd.fd, IMPORTER_DEV_COHERENT);
		EXPECT_EQ(-vmap_refused(), _test_ioctl(session, IMPORTER_IOC_VMAP, NULL));
		test_importer_detach(session);
		close(cmd.fd);
	}
	/* A 32-bit kernel maps no more than a part of its few addresses. */
	if (sizeof(long) == 4)
		few = 2;
	cmd = list_args(self->list, few, O_RDWR);
	test_export_cmd(&cmd);
	EXPECT_EQ(0, cmd.state & VMEMEXP_STATE_NO_VMAP);
	close(cmd.fd);
	close(session);
}

/* One mapping may have a page table that is larger than the memory which it shows. */
TEST_F(again, are_charged_as_the_page_table_of_a_mapping)
{
	long before = accounted_pages(), charge;
	struct vmemexp_export cmd;
	long table = self->nr * (AGAIN / PAGE) * sizeof(long) / PAGE;
	struct vmemexp_range once = range_of(self->area, self->region.size);

	cmd = list_args(&once, 1, O_RDWR);
	test_export_cmd(&cmd);
	EXPECT_EQ(before, accounted_pages());
	close(cmd.fd);

	cmd = list_args(self->list, self->nr, O_RDWR);
	test_export_cmd(&cmd);
	charge = accounted_pages() - before;
	EXPECT_LE(table, charge);
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());

	limit_memlock(charge * PAGE);
	cmd = list_args(self->list, self->nr, O_RDWR);
	close(test_export_cmd(&cmd));
	EXPECT_SOON(before, accounted_pages());
	limit_memlock((charge - 1) * PAGE);
	refuse(ENOMEM, VMEMEXP_REASON_LIMIT, 0, self->list[0].vaddr,
	       list_args(self->list, self->nr, O_RDWR));
}

/* --- when the driver takes frames away --- */

#define test_gone(dmabuf) \
	(test_query(dmabuf).state & (VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED))

/* The driver clears what is mapped, which is in all ranges, and of some only a part. */
TEST_F(frames, that_are_taken_away_revoke_the_dmabuf)
{
	struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);

	test_export_cmd(&cmd);
	EXPECT_EQ(0, test_gone(cmd.fd));
	ASSERT_EQ(0, ioctl(self->file, CARVEOUT_IOC_TAKE_AWAY));
	EXPECT_SOON(VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED, test_gone(cmd.fd));
	EXPECT_EQ(-ENODEV, _test_sync(self->fd, cmd.fd, VMEMEXP_SYNC_READ, 0, 1));
	close(cmd.fd);
}

/* The last fault of the export takes away what the ones before had brought. */
TEST_F(frames, that_are_taken_away_during_the_export_are_refused)
{
	struct carveout_setup setup = {
		.region = self->region.region, .cache = CARVEOUT_CACHED,
		.how = CARVEOUT_HOW_FAULT, .flags = CARVEOUT_THEN_TAKE_AWAY,
		.nr_faults = bytes_of(self->list, self->nr) / PAGE - 1,
	};
	int file = _test_carveout_open(&setup);
	struct vmemexp_export cmd;
	unsigned char *area;

	ASSERT_LE(0, file);
	area = map(self->size, RW, MAP_SHARED, file);
	make_list(self->list, self->nr, area);
	cmd = list_args(self->list, self->nr, O_RDWR);
	refuse(EAGAIN, VMEMEXP_REASON_CHANGED, 0, self->list[0].vaddr, cmd);
	/* Once is not for ever. */
	test_export_cmd(&cmd);
	EXPECT_EQ(0, test_gone(cmd.fd));
	close(cmd.fd);
	munmap(area, self->size);
	close(file);
}

/* Mappings of a driver's file: of all ranges but one, and of that one alone. */
struct mapped {
	int file;
	unsigned char *others;
	unsigned char *alone;
	size_t alone_size;
};

/* Maps them, and makes a list of @nr ranges of both. */
static struct mapped __map_alone(struct __test_metadata *_metadata, unsigned int region,
				 struct vmemexp_range *list, unsigned int nr, unsigned int i)
{
	struct mapped mapped = { .file = open_frames(region) };
	size_t offset;

	ASSERT_LE(0, mapped.file);
	mapped.others = map(nr * STEP, RW, MAP_SHARED, mapped.file);
	make_list(list, nr, mapped.others);
	mapped.alone_size = list[i].length;
	offset = (unsigned char *)address(&list[i]) - mapped.others;
	mapped.alone = mmap(NULL, mapped.alone_size, RW, MAP_SHARED, mapped.file, offset);
	ASSERT_NE(MAP_FAILED, (void *)mapped.alone);
	list[i].vaddr = to_u64(mapped.alone);
	return mapped;
}

#define map_alone(i) \
	__map_alone(_metadata, self->region.region, self->list, self->nr, i)

/* When that one is taken away, nothing else of them is there any more. */
TEST_F(frames, of_any_range_that_are_taken_away_revoke_the_dmabuf)
{
	for_each_place(i, 0, self->nr) {
		struct mapped mapped = map_alone(i);
		struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);

		test_export_cmd(&cmd);
		/* All of it: x86 never forgets how frames are cached that are unmapped in parts. */
		ASSERT_EQ(0, munmap(mapped.others, self->size));
		EXPECT_EQ(VMEMEXP_STATE_STALE, test_gone(cmd.fd));
		ASSERT_EQ(0, ioctl(mapped.file, CARVEOUT_IOC_TAKE_AWAY));
		EXPECT_SOON(VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED, test_gone(cmd.fd));
		close(cmd.fd);
		munmap(mapped.alone, mapped.alone_size);
		close(mapped.file);
	}
}

/* The addresses of frames that were unmapped belong to others, whatever happens there. */
TEST_F(frames, that_were_unmapped_before_are_not_taken_away)
{
	for_each_place(i, 0, self->nr) {
		struct mapped mapped = map_alone(i);
		struct vmemexp_export cmd = list_args(self->list, self->nr, O_RDWR);
		int other = open_frames(self->region.region);

		ASSERT_LE(0, other);
		test_export_cmd(&cmd);
		ASSERT_EQ(mapped.alone, mmap(mapped.alone, mapped.alone_size, RW,
					     MAP_SHARED | MAP_FIXED, other, 0));
		EXPECT_EQ(VMEMEXP_STATE_STALE, test_gone(cmd.fd));
		ASSERT_EQ(0, ioctl(other, CARVEOUT_IOC_TAKE_AWAY));
		EXPECT_EQ(VMEMEXP_STATE_STALE, test_gone(cmd.fd));
		/* Nor are the others, once they are unmapped, too. */
		ASSERT_EQ(0, munmap(mapped.others, self->size));
		ASSERT_EQ(0, ioctl(mapped.file, CARVEOUT_IOC_TAKE_AWAY));
		EXPECT_EQ(VMEMEXP_STATE_STALE, test_gone(cmd.fd));
		close(cmd.fd);
		munmap(mapped.alone, mapped.alone_size);
		close(other);
		close(mapped.file);
	}
}

/* ---- lists that have numbers of their own ---- */

#define NR		3
#define AREA		(16 * PAGE)

FIXTURE(ranges)
{
	int fd;
	struct test_state before;
	unsigned char *area;
	struct vmemexp_range list[VMEMEXP_MAX_RANGES + 1];
};

FIXTURE_SETUP(ranges)
{
	int file;

	test_setup();
	ASSERT_EQ(PAGE, page_size());
	file = memfd(AREA, 0);
	self->area = map(AREA, RW, MAP_SHARED, file);
	close(file);
	fill(self->area, AREA, 1);
	make_list(self->list, NR, self->area);
}

FIXTURE_TEARDOWN(ranges)
{
	munmap(self->area, AREA);
	test_teardown();
	restore_system();
}

/* As many as an array without an allocation holds, and one more. */
TEST_F(ranges, of_private_memory_are_shown_one_after_the_other)
{
	static const unsigned int numbers[] = { 16, 17 };
	size_t size = 17 * STEP;
	unsigned char *memory = map(size, RW, ANON, -1);

	skip_without_importer();
	fill(memory, size, 3);
	for (size_t n = 0; n < ARRAY_SIZE(numbers); n++) {
		unsigned int nr = numbers[n];

		for (unsigned int i = 0; i < nr; i++)
			self->list[i] = range_of(memory + (nr - 1 - i) * STEP,
						 (1 + i % 3) * PAGE);
		EXPECT_EQ(VMEMEXP_MEMORY_ANON, check_list(self->list, nr, O_RDWR).memory);
		check_list(self->list, nr, O_RDONLY);
	}
	munmap(memory, size);
}

TEST_F(ranges, may_have_different_kinds_of_memory)
{
	unsigned int nr = 0, kinds = VMEMEXP_MEMORY_ANON | VMEMEXP_MEMORY_SHMEM;
	struct memory pages = { .size = SMALL }, huge = { .size = HUGE_PAGE };
	struct memory driver = { .size = SMALL };

	skip_without_importer();
	make_anon(_metadata, &pages);
	self->list[nr++] = range_of(pages.addr, SMALL);
	self->list[nr++] = range_of(self->area, STEP);
	if (!need_hugetlb()) {
		make_hugetlb(_metadata, &huge);
		/* Two parts of a huge page, in the wrong order. */
		self->list[nr++] = range_of(huge.addr + HUGE_PAGE - STEP, STEP);
		self->list[nr++] = range_of(huge.addr + PAGE, STEP);
		kinds |= VMEMEXP_MEMORY_HUGETLB;
	}
	if (!need_packet()) {
		make_driver(_metadata, &driver);
		self->list[nr++] = range_of(driver.addr, STEP);
		kinds |= VMEMEXP_MEMORY_DRIVER;
	}
	self->list[nr++] = range_of(self->area + STEP, STEP);
	EXPECT_EQ(kinds, check_list(self->list, nr, O_RDWR).memory);
	munmap(pages.addr, SMALL);
	munmap(huge.addr, HUGE_PAGE);
	munmap(driver.addr, SMALL);
}

/* --- limits --- */

/* The kernel's machine, also seen by a program of 32 bits. */
static bool kernel_has_64_bits(void)
{
	struct utsname name;

	return !uname(&name) && (strstr(name.machine, "64") || !strncmp(name.machine, "armv8", 5));
}

/* INT_MAX pages, or all that 32 bits count: nothing has to be there for that. */
TEST_F(ranges, that_are_too_long_in_all_are_named)
{
	const uint64_t max = kernel_has_64_bits() ? INT_MAX * (uint64_t)PAGE : 0xfffff000;
	const uint64_t each = sizeof(void *) == 8 ? max / PAGE / 3 * PAGE : 0x40000000;
	const unsigned int nr = max / each;
	struct vmemexp_export cmd;

	ASSERT_LT(nr, VMEMEXP_MAX_RANGES);
	for (unsigned int i = 0; i < nr; i++)
		self->list[i] = (struct vmemexp_range) { (i + 1) * PAGE, each };
	self->list[nr] = (struct vmemexp_range) { PAGE, max - nr * each };
	cmd = list_args(self->list, nr + 1, O_RDWR);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_LENGTH, nr, PAGE, &cmd);
	/* One page less is a matter of what is mapped. */
	self->list[nr - 1].length -= PAGE;
	cmd = list_args(self->list, nr + 1, O_RDWR);
	test_err_list_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED, 0, PAGE, &cmd);
}

/* The same page counts as often as it is listed. */
TEST_F(ranges, of_the_same_page_count_each_time)
{
	struct vmemexp_export cmd;
	long before = accounted_pages();

	for (unsigned int i = 0; i < 100; i++)
		self->list[i] = range_of(self->area, PAGE);
	cmd = list_args(self->list, 100, O_RDWR);
	test_export_cmd(&cmd);
	EXPECT_EQ(before + 100, accounted_pages());
	EXPECT_NE(0, cmd.state & VMEMEXP_STATE_OVERLAPS);
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());

	limit_memlock(99 * PAGE);
	cmd = list_args(self->list, 100, O_RDWR);
	test_err_list_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, 0, self->list[0].vaddr, &cmd);
}

/* All of a huge page is kept in memory: it counts whole, and once. */
TEST_F(ranges, in_one_huge_page_count_as_that)
{
	struct memory huge = { .size = HUGE_PAGE };
	struct vmemexp_export cmd;
	long before;

	if (need_hugetlb())
		SKIP(return, "the kernel has no %s", need_hugetlb());
	make_hugetlb(_metadata, &huge);
	before = accounted_pages();
	for (unsigned int i = 0; i < 10; i++) {
		self->list[2 * i] = range_of(huge.addr + i * PAGE, PAGE);
		self->list[2 * i + 1] = range_of(self->area + i * PAGE, PAGE);
	}
	cmd = list_args(self->list, 20, O_RDWR);
	test_export_cmd(&cmd);
	EXPECT_EQ(before + (long)(HUGE_PAGE / PAGE) + 10, accounted_pages());
	EXPECT_EQ(0, cmd.state & VMEMEXP_STATE_OVERLAPS);
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());
	munmap(huge.addr, HUGE_PAGE);
}

/* --- the list in memory --- */

TEST_F(ranges, of_a_list_of_one_mean_that_range)
{
	int dmabuf = test_export(self->area, AREA, O_RDWR);
	unsigned char *view = map(AREA, RW, MAP_SHARED, dmabuf);
	struct vmemexp_export cmd;

	skip_without_importer();
	check_list(self->list, 1, O_RDWR);

	/* Also if it is a mapping of a dma-buf. */
	self->list[0] = range_of(view + PAGE, PAGE);
	cmd = list_args(self->list, 1, O_RDWR);
	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
	EXPECT_EQ(inode_of(dmabuf), inode_of(cmd.fd));
	EXPECT_EQ(PAGE, cmd.offset);
	EXPECT_EQ(AREA, cmd.dmabuf_size);
	EXPECT_EQ(VMEMEXP_MEMORY_DMABUF | VMEMEXP_MEMORY_SHMEM, cmd.memory);
	close(cmd.fd);
	munmap(view, AREA);
	close(dmabuf);
}

TEST_F(ranges, are_read_once_and_never_written)
{
	struct vmemexp_range *list = map(PAGE, RW, ANON, -1);
	struct vmemexp_export cmd;

	/* In the memory that is exported, and read-only. */
	memcpy(list, self->list, NR * sizeof(*list));
	list[NR] = range_of(list, PAGE);
	cmd = list_args(list, NR + 1, O_RDWR);
	close(test_export_cmd(&cmd));
	EXPECT_EQ(0, memcmp(self->list, list, NR * sizeof(*list)));

	ASSERT_EQ(0, mprotect(list, PAGE, PROT_READ));
	cmd = list_args(list, NR, O_RDWR);
	close(test_export_cmd(&cmd));
	munmap(list, PAGE);
}

TEST_F(ranges, that_are_no_list_are_refused)
{
	struct vmemexp_export cmd = list_args(self->list, VMEMEXP_MAX_RANGES + 1, O_RDWR);

	test_err_list_cmd(EINVAL, VMEMEXP_REASON_RANGES, 0, 0, &cmd);
	cmd = list_args(self->list, UINT32_MAX, O_RDWR);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_RANGES, 0, 0, &cmd);
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.vaddr = to_u64(self->area);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_RANGES, 0, 0, &cmd);
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.length = PAGE;
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_RANGES, 0, 0, &cmd);
	cmd = export_args(self->area, PAGE, O_RDWR);
	cmd.ranges = to_u64(self->list);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_RANGES, 0, 0, &cmd);
	/* Flags come first. */
	cmd.flags = 1U << 31;
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_FLAGS, 0, 0, &cmd);
}

TEST_F(ranges, that_cannot_be_read_are_efault)
{
	unsigned char *memory = map(2 * PAGE, RW, ANON, -1);
	struct vmemexp_range *list = (void *)(memory + PAGE);
	struct vmemexp_export cmd;

	ASSERT_EQ(0, munmap(list, PAGE));
	memcpy(list - 1, self->list, sizeof(*list));
	/* The second one is in no memory. */
	cmd = list_args(list - 1, 2, O_RDWR);
	test_err_list_cmd(EFAULT, VMEMEXP_REASON_NONE, 0, 0, &cmd);
	cmd = list_args(list - 1, 1, O_RDWR);
	close(test_export_cmd(&cmd));
	cmd = list_args(NULL, 1, O_RDWR);
	test_err_list_cmd(EFAULT, VMEMEXP_REASON_NONE, 0, 0, &cmd);
	/* Also where a pointer has fewer bits. */
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.ranges |= 1ULL << 63;
	test_err_list_cmd(EFAULT, VMEMEXP_REASON_NONE, 0, 0, &cmd);
	munmap(memory, PAGE);
}

/* Programs that were compiled with an older header leave out the end of the structure. */
TEST_F(ranges, are_for_those_whose_structure_has_them)
{
	struct vmemexp_export cmd = export_args(self->area, PAGE, O_RDWR);
	struct vmemexp_query query;

	cmd.size = VMEMEXP_EXPORT_SIZE_VER1;
	memset(&cmd.ranges, POISON_BYTE, sizeof(cmd) - VMEMEXP_EXPORT_SIZE_VER1);
	test_export_cmd(&cmd);
	EXPECT_EQ(0xcccccccc, cmd.nr_ranges);
	EXPECT_EQ(0xcccccccc, cmd.err_range);
	query = query_args(cmd.fd);
	query.size = VMEMEXP_QUERY_SIZE_VER0;
	query.reserved = 1;
	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_QUERY, &query));
	EXPECT_EQ(0xcccccccc, query.nr_ranges);
	query = query_args(cmd.fd);
	query.reserved = 1;
	test_err_struct(EINVAL, VMEMEXP_IOC_QUERY, &query);
	close(cmd.fd);

	/* A structure that ends before err_range, which stays as it is. */
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.size = offsetof(struct vmemexp_export, err_range);
	test_export_cmd(&cmd);
	EXPECT_EQ(NR, test_query(cmd.fd).nr_ranges);
	close(cmd.fd);
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.size = offsetof(struct vmemexp_export, err_range);
	self->list[1].length = 0;
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_LENGTH, 0xcccccccc, self->list[1].vaddr, &cmd);
}

/* --- for administrators --- */

/* The kernel takes a while to turn the events on. */
TEST_F(ranges, are_one_event_in_the_trace)
{
	static const unsigned int numbers[] = { 1, 2, 3, VMEMEXP_MAX_RANGES };
	unsigned char *memory = map(VMEMEXP_MAX_RANGES * STEP, RW, ANON, -1);
	char exported[ARRAY_SIZE(numbers)][128];
	static char trace[64 * 1024];
	char *at = trace;

	ASSERT_EQ(0, trace_events("vmemexp/vmemexp_export"));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct vmemexp_export cmd = list_args(self->list, numbers[i], O_RDWR);

		make_list(self->list, numbers[i], memory);
		test_export_cmd(&cmd);
		snprintf(exported[i], sizeof(exported[i]),
			 "vmemexp_export: ino=%llu size=%zu extents=%llu memory=anon access=rw ranges=%u\n",
			 (unsigned long long)inode_of(cmd.fd), bytes_of(self->list, numbers[i]),
			 (unsigned long long)cmd.nr_extents, numbers[i]);
		close(cmd.fd);
	}
	ASSERT_EQ(0, write_text(TRACING "/events/vmemexp/enable", "0"));
	ASSERT_LT(0, read_text(TRACING "/trace", trace, sizeof(trace)));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		at = strstr(at, exported[i]);
		ASSERT_NE(NULL, at) {
			TH_LOG("no \"%s\" behind the one before in:\n%s", exported[i], trace);
		}
	}
	EXPECT_EQ(ARRAY_SIZE(numbers), count_lines(trace, ": vmemexp_export: "));
	munmap(memory, VMEMEXP_MAX_RANGES * STEP);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Several ranges in one dma-buf: it shows them one after the other, and each rule for one
 * range holds for each of them. An error names the range beside the address.
 *
 * overlap_test has ranges that show a page twice.
 */
#include <limits.h>
#include <sys/utsname.h>

#include "lib/vmemexp_memory.h"

#define MAX_BUFFERS	"/sys/module/vmemexp/parameters/max_buffers"

/* Ranges with pages between them that are in none. */
#define STEP		(4 * PAGE)
#define NR		3
#define AREA		(16 * PAGE)

FIXTURE(ranges)
{
	int fd;
	struct test_state before;
	unsigned char *area;	/* a memfd's, so that allow= can tell it from private memory */
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
	/* From the end to the start: no range goes on where the last one ended. */
	for (unsigned int i = 0; i < NR; i++)
		self->list[i] = range_of(self->area + (NR - i) * STEP, 2 * PAGE);
}

FIXTURE_TEARDOWN(ranges)
{
	munmap(self->area, AREA);
	test_teardown();
	restore_system();
}

static void *address(const struct vmemexp_range *range)
{
	return (void *)(uintptr_t)range->vaddr;
}

/* The bytes of the ranges in their order; to be freed. */
static unsigned char *concatenate(const struct vmemexp_range *list, unsigned int nr, size_t *size)
{
	unsigned char *bytes, *at;

	*size = 0;
	for (unsigned int i = 0; i < nr; i++)
		*size += list[i].length;
	bytes = malloc(*size);
	at = bytes;
	for (unsigned int i = 0; bytes && i < nr; at += list[i].length, i++)
		memcpy(at, address(&list[i]), list[i].length);
	return bytes;
}

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

/* ---- what is shown ---- */

TEST_F(ranges, are_shown_one_after_the_other)
{
	static const unsigned int numbers[] = { 2, 3, 16, 17, VMEMEXP_MAX_RANGES };
	size_t size = VMEMEXP_MAX_RANGES * STEP;
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

/* Only there can a device find other bytes than the ranges'. */
TEST_F(ranges, may_begin_and_end_inside_of_a_page_at_the_outer_ends)
{
	unsigned char *view;
	struct vmemexp_export cmd;
	size_t size;

	self->list[0].vaddr += CUT_FRONT;
	self->list[0].length -= CUT_FRONT;
	self->list[NR - 1].length -= CUT_BACK;
	size = NR * 2 * PAGE;

	cmd = list_args(self->list, NR, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_export_cmd(&cmd);
	EXPECT_EQ(CUT_FRONT, cmd.offset);
	EXPECT_EQ(size, cmd.dmabuf_size);
	EXPECT_EQ(size - CUT_FRONT - CUT_BACK, test_query(cmd.fd).length);
	view = map(size, PROT_READ, MAP_SHARED, cmd.fd);
	for (unsigned int i = 0; i < NR; i++)
		EXPECT_SAME(self->area + (NR - i) * STEP, view + i * 2 * PAGE, 2 * PAGE);
	munmap(view, size);
	close(cmd.fd);
}

/* Parts of a page of hugetlb that follow each other are one run, however they are listed. */
TEST_F(ranges, that_are_contiguous_in_memory_are_one_extent)
{
	struct memory huge = { .size = HUGE_PAGE };
	struct vmemexp_export cmd;

	if (need_hugetlb())
		SKIP(return, "the kernel has no %s", need_hugetlb());
	skip_without_importer();
	make_hugetlb(_metadata, &huge);
	for (unsigned int i = 0; i < NR; i++)
		self->list[i] = range_of(huge.addr + i * STEP, STEP);
	EXPECT_EQ(1, check_list(self->list, NR, O_RDWR).nr_extents);
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	close(test_export_cmd(&cmd));

	self->list[1].vaddr += PAGE;
	cmd = list_args(self->list, NR, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	test_err_list_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS, 1, self->list[1].vaddr, &cmd);
	munmap(huge.addr, HUGE_PAGE);
}

/* The device works on a copy: it sees what the CPU wrote after a sync of just these bytes. */
TEST_F(ranges, are_synced_across_their_boundaries)
{
	unsigned char seen[200], *first = address(&self->list[0]), *second;
	size_t at = self->list[0].length - sizeof(seen) / 2;
	struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);
	unsigned char expect[sizeof(seen)];
	int session;

	skip_without_importer();
	second = address(&self->list[1]);
	session = test_importer_open();
	test_export_cmd(&cmd);
	test_importer_attach(session, cmd.fd, IMPORTER_DEV_SHADOW);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	fill(expect, sizeof(expect), 99);
	memcpy(first + at, expect, sizeof(seen) / 2);
	memcpy(second, expect + sizeof(seen) / 2, sizeof(seen) / 2);
	test_importer_read(session, at, seen, sizeof(seen));
	EXPECT_NE(0, memcmp(expect, seen, sizeof(seen)));
	test_sync(cmd.fd, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, at, sizeof(seen));
	test_importer_read(session, at, seen, sizeof(seen));
	EXPECT_SAME(expect, seen, sizeof(seen));
	close(session);
	close(cmd.fd);
}

/* ---- the list ---- */

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

/* ---- errors name the range ---- */

/* Each range of the list is @bad once, and all others are good. */
static void __check_bad(struct __test_metadata *_metadata, int fd, struct vmemexp_range *list,
			struct vmemexp_range bad, int error, unsigned int reason, uint64_t addr)
{
	for (unsigned int i = 0; i < NR; i++) {
		struct vmemexp_range good = list[i];
		struct vmemexp_export cmd = list_args(list, NR, O_RDWR);

		list[i] = bad;
		__test_err_list(_metadata, fd, error, reason, i, addr, &cmd);
		list[i] = good;
	}
}

#define check_bad(bad, error, reason, addr) \
	__check_bad(_metadata, self->fd, self->list, bad, error, reason, addr)

TEST_F(ranges, that_are_no_ranges_are_named)
{
	const uint64_t last = -(uint64_t)PAGE, start = to_u64(self->area);
	struct vmemexp_export cmd;
	unsigned int i;

	check_bad(range_of(self->area, 0), EINVAL, VMEMEXP_REASON_LENGTH, start);
	check_bad(((struct vmemexp_range) { last, 2 * PAGE }), EINVAL, VMEMEXP_REASON_LENGTH,
		  last);
	check_bad(((struct vmemexp_range) { PAGE, last }), EINVAL, VMEMEXP_REASON_LENGTH, PAGE);
	check_bad(((struct vmemexp_range) { start + 1, PAGE - 1 }), EINVAL,
		  VMEMEXP_REASON_ALIGNMENT, start + 1);
	check_bad(((struct vmemexp_range) { start, PAGE + 1 }), EINVAL,
		  VMEMEXP_REASON_ALIGNMENT, start + PAGE + 1);

	/* UNALIGNED is for the outer ends. */
	for (i = 0; i < NR; i++) {
		struct vmemexp_range good = self->list[i];

		if (i) {
			self->list[i].vaddr++;
			self->list[i].length--;
			cmd = list_args(self->list, NR, O_RDWR);
			cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
			test_err_list_cmd(EINVAL, VMEMEXP_REASON_ALIGNMENT, i, good.vaddr + 1,
					  &cmd);
		}
		self->list[i] = good;
		if (i < NR - 1) {
			self->list[i].length--;
			cmd = list_args(self->list, NR, O_RDWR);
			cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
			test_err_list_cmd(EINVAL, VMEMEXP_REASON_ALIGNMENT, i,
					  good.vaddr + good.length - 1, &cmd);
		}
		self->list[i] = good;
	}
}

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

TEST_F(ranges, that_may_not_be_exported_are_named)
{
	unsigned char *hole = map(3 * PAGE, RW, ANON, -1), *private = hole + 2 * PAGE, *view;
	int file = memfd(PAGE, 0), dmabuf = test_export(self->area, AREA, O_RDWR);
	unsigned char *beyond = map(2 * PAGE, RW, MAP_SHARED, file);
	unsigned char *readable = map(PAGE, PROT_READ, ANON, -1);

	close(file);
	ASSERT_EQ(0, munmap(hole + PAGE, PAGE));
	check_bad(range_of(hole, 2 * PAGE), EFAULT, VMEMEXP_REASON_NOT_MAPPED,
		  to_u64(hole + PAGE));
	check_bad(range_of(readable, PAGE), EACCES, VMEMEXP_REASON_NOT_WRITABLE,
		  to_u64(readable));
	check_bad(range_of(beyond, 2 * PAGE), EFAULT, VMEMEXP_REASON_NO_BACKING,
		  to_u64(beyond + PAGE));
	ASSERT_EQ(0, mprotect(hole, PAGE, PROT_NONE));
	check_bad(range_of(hole, PAGE), EFAULT, VMEMEXP_REASON_NOT_READABLE, to_u64(hole));
	check_bad(((struct vmemexp_range) { 0xffff800000000000ULL, PAGE }), EFAULT,
		  VMEMEXP_REASON_NOT_MAPPED, 0xffff800000000000ULL);

	/* A dma-buf cannot be a part of another one. */
	view = map(AREA, RW, MAP_SHARED, dmabuf);
	check_bad(range_of(view, AREA), EINVAL, VMEMEXP_REASON_MIXED, to_u64(view));

	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "shmem"));
	check_bad(range_of(private, PAGE), EPERM, VMEMEXP_REASON_KIND,
		  to_u64(private));
	munmap(view, AREA);
	close(dmabuf);
	munmap(hole, PAGE);
	munmap(private, PAGE);
	munmap(beyond, 2 * PAGE);
	munmap(readable, PAGE);
}

/* ---- limits ---- */

TEST_F(ranges, count_as_pages_against_the_limit)
{
	struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);
	long before = accounted_pages();

	test_export_cmd(&cmd);
	EXPECT_EQ(before + NR * 2, accounted_pages());
	close(cmd.fd);
	EXPECT_SOON(before, accounted_pages());

	/* The same page counts as often as it is listed. */
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

TEST_F(ranges, are_one_buffer)
{
	struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);

	ASSERT_EQ(0, set_knob(MAX_BUFFERS, "0"));
	set_caps(ALL_CAPS & ~(1ULL << CAP_SYS_RESOURCE));
	test_err_list_cmd(EDQUOT, VMEMEXP_REASON_QUOTA, 0, self->list[0].vaddr, &cmd);
	set_caps(ALL_CAPS);
	ASSERT_EQ(0, set_knob(MAX_BUFFERS, "1"));
	set_caps(ALL_CAPS & ~(1ULL << CAP_SYS_RESOURCE));
	cmd = list_args(self->list, NR, O_RDWR);
	close(test_export_cmd(&cmd));
	set_caps(ALL_CAPS);
}

/* ---- when a range goes away ---- */

TEST_F(ranges, of_which_one_is_unmapped_are_stale)
{
	skip_without_importer();
	for (unsigned int i = 0; i < NR; i++) {
		unsigned char *memory = map(AREA, RW, ANON, -1);
		struct vmemexp_export cmd;
		size_t size;
		unsigned char *expect;

		fill(memory, AREA, i);
		for (unsigned int j = 0; j < NR; j++)
			self->list[j] = range_of(memory + (NR - j) * STEP, 2 * PAGE);
		expect = concatenate(self->list, NR, &size);
		cmd = list_args(self->list, NR, O_RDWR);
		test_export_cmd(&cmd);
		/* The pages between them are in no range. */
		for (unsigned int j = 0; j < NR; j++)
			ASSERT_EQ(0, munmap(memory + j * STEP + 2 * PAGE, 2 * PAGE));
		EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(cmd.fd));
		ASSERT_EQ(0, munmap(address(&self->list[i]) + PAGE, PAGE));
		EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE, test_query_state(cmd.fd));
		/* The dma-buf is as good as before. */
		test_bytes(cmd.fd, expect, size);
		close(cmd.fd);
		munmap(memory, AREA);
		free(expect);
	}
}

/* ---- page frames ---- */

FIXTURE(frames)
{
	int fd;
	struct test_state before;
	struct carveout_info region;
	int file;
	unsigned char *area;
	struct vmemexp_range list[VMEMEXP_MAX_RANGES];
};

FIXTURE_SETUP(frames)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP };
	char text[64];

	skip_without_carveout();
	skip_without_importer();
	test_setup();
	ASSERT_TRUE(find_carveout(FRAMES_WITHOUT_PAGES, &self->region));
	setup.region = self->region.region;
	snprintf(text, sizeof(text), "%#llx:%#llx", (unsigned long long)self->region.base,
		 (unsigned long long)self->region.size);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, text));
	self->file = _test_carveout_open(&setup);
	ASSERT_LE(0, self->file);
	self->area = map(AREA, RW, MAP_SHARED, self->file);
	fill(self->area, AREA, 1);
	for (unsigned int i = 0; i < NR; i++)
		self->list[i] = range_of(self->area + (NR - i) * STEP, 2 * PAGE);
}

FIXTURE_TEARDOWN(frames)
{
	munmap(self->area, AREA);
	close(self->file);
	test_teardown();
	restore_system();
}

TEST_F(frames, are_shown_one_after_the_other)
{
	EXPECT_EQ(NR, check_list(self->list, NR, O_RDWR).nr_extents);
	/* In their order they are one run. */
	for (unsigned int i = 0; i < NR; i++)
		self->list[i] = range_of(self->area + i * STEP, STEP);
	EXPECT_EQ(1, check_list(self->list, NR, O_RDWR).nr_extents);
	/* As often as a list can have them. */
	for (unsigned int i = 0; i < VMEMEXP_MAX_RANGES; i++)
		self->list[i] = range_of(self->area + i % 16 * PAGE, PAGE);
	EXPECT_NE(0, check_list(self->list, VMEMEXP_MAX_RANGES, O_RDWR).state &
		     VMEMEXP_STATE_OVERLAPS);
}

TEST_F(frames, that_are_in_no_carveout_are_named)
{
	char text[64];

	snprintf(text, sizeof(text), "%#llx:%#lx", (unsigned long long)self->region.base,
		 3 * PAGE);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, text));
	set_caps(ALL_CAPS & ~RAWIO);
	for (unsigned int i = 0; i < NR; i++) {
		struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);

		for (unsigned int j = 0; j < NR; j++)
			self->list[j] = range_of(self->area + j * PAGE, PAGE);
		/* The first page of this one is listed, the second is not. */
		self->list[i] = range_of(self->area + 2 * PAGE, 2 * PAGE);
		test_err_list_cmd(EPERM, VMEMEXP_REASON_PFNMAP, i, to_u64(self->area + 3 * PAGE),
				  &cmd);
	}
	set_caps(ALL_CAPS);
}

TEST_F(frames, are_not_mixed_with_pages)
{
	struct vmemexp_range frames = self->list[1];
	unsigned char *pages = map_anon(AREA);

	for (unsigned int i = 0; i < NR; i++)
		self->list[i] = range_of(pages + i * PAGE, PAGE);
	for (unsigned int i = 1; i < NR; i++) {
		struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);
		struct vmemexp_range good = self->list[i];

		self->list[i] = frames;
		test_err_list_cmd(EINVAL, VMEMEXP_REASON_MIXED, i, frames.vaddr, &cmd);
		self->list[i] = good;
	}
	munmap(pages, AREA);
}

/* The driver clears what is mapped: that is in more than one range, and of some only a part. */
TEST_F(frames, that_are_taken_away_revoke_the_dmabuf)
{
	struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);

	test_export_cmd(&cmd);
	EXPECT_EQ(0, test_query(cmd.fd).state & VMEMEXP_STATE_STALE);
	ASSERT_EQ(0, ioctl(self->file, CARVEOUT_IOC_TAKE_AWAY));
	EXPECT_SOON(VMEMEXP_STATE_REVOKED, test_query(cmd.fd).state & VMEMEXP_STATE_REVOKED);
	EXPECT_EQ(-ENODEV, _test_sync(self->fd, cmd.fd, VMEMEXP_SYNC_READ, 0, 1));
	close(cmd.fd);
}

/* The addresses of frames that were unmapped belong to others, whatever happens there. */
TEST_F(frames, that_were_unmapped_before_are_not_taken_away)
{
	struct vmemexp_export cmd = list_args(self->list, NR, O_RDWR);

	test_export_cmd(&cmd);
	/* All of it: x86 never forgets how page frames are cached that are unmapped in parts. */
	ASSERT_EQ(0, munmap(self->area, AREA));
	ASSERT_EQ(0, ioctl(self->file, CARVEOUT_IOC_TAKE_AWAY));
	EXPECT_EQ(VMEMEXP_STATE_STALE, test_query(cmd.fd).state &
		  (VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED));
	close(cmd.fd);
}

TEST_HARNESS_MAIN

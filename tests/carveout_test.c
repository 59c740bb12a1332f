// SPDX-License-Identifier: GPL-2.0
/*
 * Memory without page accounting: who may export it, the list of carve-outs, what is refused and
 * why, also if its driver misbehaves. layout_test has how it may lie in a range, taken_test how
 * long it lives. kinds_test compares the bytes of every kind.
 *
 * Root gives up CAP_SYS_RAWIO for most tests, so that the list alone decides.
 */
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "lib/vmemexp_carveout.h"

#define USER		65534

/* Finds the region that is System RAM from @base on, and then is not. */
static bool find_border(uint64_t base, struct carveout_info *region)
{
	for (unsigned int i = 0; !_test_carveout_info(i, region); i++)
		if (region->base == base && region->flags & CARVEOUT_INFO_MIXED)
			return true;
	return false;
}

/* ---- page frames of every region, mapped in every way ---- */

FIXTURE(pfnmap)
{
	int fd;
	struct test_state before;
	struct old_list old;
	struct carveout_info region;
	uint64_t base;		/* physical address of @addr */
	int file;
	unsigned char *addr;	/* SIZE bytes, with contents 1 */
};

FIXTURE_VARIANT(pfnmap)
{
	unsigned int sort;
	unsigned int how;
};

FIXTURE_VARIANT_ADD(pfnmap, with_pages_at_mmap) {
	.sort = FRAMES_WITH_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(pfnmap, with_pages_by_fault) {
	.sort = FRAMES_WITH_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(pfnmap, without_pages_at_mmap) {
	.sort = FRAMES_WITHOUT_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(pfnmap, without_pages_by_fault) {
	.sort = FRAMES_WITHOUT_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(pfnmap, system_ram_at_mmap) {
	.sort = FRAMES_OF_RAM, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(pfnmap, system_ram_by_fault) {
	.sort = FRAMES_OF_RAM, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_SETUP(pfnmap)
{
	unsigned char *contents;

	skip_without_importer();
	skip_without_carveout();
	if (!find_region(variant->sort, &self->region))
		SKIP(return, "vmemexp_carveout has no range of this sort");
	self->base = self->region.base + OFFSET;
	test_setup();
	save_list();
	/* Not by the mapping, where what comes by fault is not there yet. */
	contents = malloc(SIZE);
	fill(contents, SIZE, 1);
	test_carveout_write(self->region.region, OFFSET, contents, SIZE);
	free(contents);
	self->file = open_stand_in(self->region.region, CARVEOUT_CACHED,
				   variant->how);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
	list(self->base, SIZE);
	set_caps(~RAWIO);
}

FIXTURE_TEARDOWN(pfnmap)
{
	setresuid(0, 0, 0);
	set_caps(ALL_CAPS);
	restore_list();
	EXPECT_EQ(0, write_text(VMEMEXP_WITHOUT_VMAP, "N"));
	munmap(self->addr, SIZE);
	close(self->file);
	test_teardown();
}

/*
 * Maps it anew in three parts, the second one being a page in the middle, for
 * tests that change a part. On x86, a mapping of reserved memory that was made
 * in one piece must go in one piece: else the kernel forgets to forget how it
 * was cached, and refuses to have it cached differently for ever.
 */
#define map_in_parts() do {						\
	ASSERT_EQ(0, munmap(self->addr, SIZE));				\
	test_mmap(self->addr, HALF, MAP_SHARED, self->file, OFFSET);	\
	test_mmap(self->addr + HALF, PAGE, MAP_SHARED, self->file,	\
		 OFFSET + HALF);					\
	test_mmap(self->addr + HALF + PAGE, HALF - PAGE, MAP_SHARED,	\
		 self->file, OFFSET + HALF + PAGE);			\
} while (0)

/* Lists pages of the mapping. */
#define list_pages(first, nr) \
	list(self->base + (first) * PAGE, (nr) * PAGE)

#define test_err_page(error, reason, page, fd_flags)			\
	test_err_export(error, reason, self->addr + (page) * PAGE,	\
			self->addr, SIZE, fd_flags)

/* The list does not cover the mapping from @page on. */
#define test_err_not_listed(page) do {					\
	test_err_page(EPERM, not_listed(&self->region), page, O_RDWR);	\
	test_err_page(EPERM, not_listed(&self->region), page, O_RDONLY);\
} while (0)

TEST_F(pfnmap, in_the_list_is_exported)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	int dmabuf = test_export_cmd(&cmd);
	struct vmemexp_query query = test_query(dmabuf);

	EXPECT_EQ(VMEMEXP_MEMORY_PFNMAP, cmd.memory);
	EXPECT_EQ(VMEMEXP_MEMORY_PFNMAP, query.memory);
	EXPECT_EQ(VMEMEXP_CACHE_CACHED, query.cache);
	EXPECT_EQ(VMEMEXP_ACCESS_READ | VMEMEXP_ACCESS_WRITE, query.access);
	test_contents(dmabuf, SIZE, 1);
	check_other_processor(self->region.region, dmabuf);
	EXPECT_EQ(-1, first_difference(self->addr, SIZE, 8));
	close(dmabuf);
}

TEST_F(pfnmap, outside_of_the_list_is_refused)
{
	list_nothing();
	test_err_not_listed(0);
	/* The neighbours are no help. */
	list_two(self->base - PAGE, PAGE, self->base + SIZE, PAGE);
	test_err_not_listed(0);
}

TEST_F(pfnmap, half_in_the_list_is_refused_from_the_first_page_outside)
{
	list_pages(0, PAGES / 2);
	test_err_not_listed(PAGES / 2);
	close(test_export(self->addr, HALF, O_RDWR));
	test_err_export(EPERM, not_listed(&self->region), self->addr + HALF,
			self->addr + HALF, PAGE, O_RDWR);

	list_pages(PAGES / 2, PAGES / 2);
	test_err_not_listed(0);
	close(test_export(self->addr + HALF, HALF, O_RDWR));

	list_pages(0, PAGES - 1);
	test_err_not_listed(PAGES - 1);
}

TEST_F(pfnmap, may_lie_in_several_carveouts)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);

	list_two(self->base + HALF, HALF, self->base, HALF - PAGE);
	test_err_not_listed(PAGES / 2 - 1);
	list_two(self->base + HALF, HALF, self->base, HALF);
	close(test_export_cmd(&cmd));
	EXPECT_EQ(1, cmd.nr_extents);
}

TEST_F(pfnmap, outside_of_system_ram_needs_no_list_with_sys_rawio)
{
	list_nothing();
	set_caps(RAWIO);
	if (self->region.flags & CARVEOUT_INFO_RAM)
		test_err_not_listed(0);
	else
		close(test_export(self->addr, SIZE, O_RDWR));
	set_caps(ALL_CAPS);
	if (self->region.flags & CARVEOUT_INFO_RAM)
		test_err_not_listed(0);
	else
		close(test_export(self->addr, SIZE, O_RDWR));
}

/* Root opened /dev/vmemexp, an ordinary user does the rest. */
TEST_F(pfnmap, in_the_list_needs_no_privilege)
{
	unsigned int reason = not_listed(&self->region);

	for (int listed = 0; listed <= 1; listed++) {
		pid_t child;

		if (listed)
			list_pages(0, PAGES);
		else
			list_nothing();
		child = fork_child();
		if (!child) {
			struct rlimit nothing = {};
			struct vmemexp_export cmd = export_args(self->addr,
								SIZE, O_RDWR);
			int ret;

			CHECK(!setrlimit(RLIMIT_MEMLOCK, &nothing));
			CHECK(!setresuid(USER, USER, USER));
			ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
			CHECK(ret == (listed ? 0 : -EPERM));
			CHECK(cmd.err_reason == (listed ? 0 : reason));
			CHECK(cmd.err_addr == (listed ? 0 : to_u64(self->addr)));
			_exit(KSFT_PASS);
		}
		EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	}
}

TEST_F(pfnmap, costs_no_locked_memory)
{
	struct rlimit nothing = { .rlim_max = RLIM_INFINITY };
	long accounted = accounted_pages();
	int dmabuf;

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &nothing));
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	dmabuf = test_export(self->addr, SIZE, O_RDWR);
	EXPECT_EQ(accounted, accounted_pages());
	EXPECT_EQ(self->before.pins, get_state().pins);
	close(dmabuf);
	EXPECT_EQ(accounted, accounted_pages());
	ASSERT_EQ(0, setresuid(0, 0, 0));
}

TEST_F(pfnmap, of_a_kind_that_is_not_allowed_is_refused)
{
	char allow[128];

	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, allow, sizeof(allow)));
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW,
				"anon,shmem,hugetlb,file,driver,dmabuf"));
	test_err_page(EPERM, VMEMEXP_REASON_KIND, 0, O_RDWR);
	set_caps(ALL_CAPS);
	test_err_page(EPERM, VMEMEXP_REASON_KIND, 0, O_RDWR);
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, "pfnmap"));
	close(test_export(self->addr, SIZE, O_RDWR));
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, allow));
}

TEST_F(pfnmap, gives_no_more_access_than_its_mapping)
{
	int dmabuf;

	map_in_parts();
	ASSERT_EQ(0, mprotect(self->addr + HALF, PAGE, PROT_READ));
	test_err_page(EACCES, VMEMEXP_REASON_NOT_WRITABLE, PAGES / 2, O_RDWR);
	dmabuf = test_export(self->addr, SIZE, O_RDONLY);
	EXPECT_EQ(VMEMEXP_ACCESS_READ, test_query(dmabuf).access);
	/* Without a kernel mapping, it is mapped for those who have the capability. */
	set_caps(ALL_CAPS);
	test_contents(dmabuf, SIZE, 1);
	set_caps(~RAWIO);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, RW, MAP_SHARED, dmabuf, 0));
	EXPECT_EQ(EACCES, errno);
	close(dmabuf);

	ASSERT_EQ(0, mprotect(self->addr, SIZE, PROT_READ));
	test_err_page(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 0, O_RDWR);
	close(test_export(self->addr, SIZE, O_RDONLY));
}

TEST_F(pfnmap, with_guard_pages_in_the_middle_is_refused)
{
	map_in_parts();
	ASSERT_EQ(0, mprotect(self->addr + HALF, PAGE, PROT_NONE));
	test_err_page(EFAULT, VMEMEXP_REASON_NOT_READABLE, PAGES / 2, O_RDWR);
	test_err_page(EFAULT, VMEMEXP_REASON_NOT_READABLE, PAGES / 2, O_RDONLY);
	close(test_export(self->addr, HALF, O_RDWR));
}

TEST_F(pfnmap, with_a_hole_in_the_middle_is_refused)
{
	map_in_parts();
	ASSERT_EQ(0, munmap(self->addr + HALF, PAGE));
	test_err_page(EFAULT, VMEMEXP_REASON_NOT_MAPPED, PAGES / 2, O_RDWR);
	test_err_page(EFAULT, VMEMEXP_REASON_NOT_MAPPED, PAGES / 2, O_RDONLY);
	close(test_export(self->addr, HALF, O_RDWR));
}

TEST_F(pfnmap, ends_where_its_mapping_ends)
{
	struct vmemexp_export cmd;

	map_in_parts();
	ASSERT_EQ(0, munmap(self->addr + HALF, HALF));
	cmd = export_args(self->addr, SIZE, O_RDWR);
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED,
			    cmd.vaddr + HALF, &cmd);
	/* More than there is of address space, and more than there can be. */
	cmd = export_args(self->addr, SIZE, O_RDWR);
	cmd.length = 1ULL << 62;
	EXPECT_NE(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
	EXPECT_EQ(VMEMEXP_REASON_NOT_MAPPED, cmd.err_reason);
	cmd = export_args(self->addr, SIZE, O_RDWR);
	cmd.length = -(uint64_t)PAGE;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, cmd.vaddr, &cmd);
}

TEST_F(pfnmap, that_was_exported_lives_on_when_the_list_changes)
{
	int dmabuf = test_export(self->addr, SIZE, O_RDWR);

	list_nothing();
	test_err_not_listed(0);
	test_contents(dmabuf, SIZE, 1);
	check_other_processor(self->region.region, dmabuf);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(dmabuf));
	close(dmabuf);
}

/* The errno of a map for a device that has been attached just now. */
static int __attach_and_map(struct __test_metadata *_metadata, int dmabuf, unsigned int direction)
{
	int session = test_importer_open(), ret;

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	ret = _test_importer_map(session, direction);
	close(session);
	return ret;
}

#define attach_and_map(dmabuf, direction) __attach_and_map(_metadata, dmabuf, direction)

/* There are drivers that look for pages, and take what is at the address NULL for one. */
TEST_F(pfnmap, is_mapped_without_struct_page_for_the_privileged_or_if_root_says_so)
{
	bool pageless = !(self->region.flags & CARVEOUT_INFO_PAGES);
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	int dmabuf = test_export_cmd(&cmd), session = test_importer_open();
	unsigned int no_pages = pageless ? VMEMEXP_STATE_NO_PAGES : 0;

	EXPECT_EQ(VMEMEXP_STATE_TRACKED | no_pages, cmd.state);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | no_pages, test_query(dmabuf).state);

	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_PAGES, "N"));
	EXPECT_EQ(pageless ? -EPERM : 0, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, test_query(dmabuf).mappings);
	/* The other parameter is about something else. */
	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_VMAP, "Y"));
	EXPECT_EQ(pageless ? -EPERM : 0, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_VMAP, "N"));
	set_caps(ALL_CAPS);
	EXPECT_EQ(0, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	set_caps(~RAWIO);

	/* It is looked at when the device attaches. */
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_PAGES, "Y"));
	EXPECT_EQ(pageless ? -EPERM : 0, _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	close(session);
	close(dmabuf);
}

/* There are drivers that look for a kernel mapping, and take NULL for one. */
TEST_F(pfnmap, is_mapped_without_vmap_for_the_privileged_or_if_root_says_so)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDONLY);
	int dmabuf = test_export_cmd(&cmd), session = test_importer_open();

	EXPECT_EQ(VMEMEXP_STATE_NO_VMAP, cmd.state & VMEMEXP_STATE_NO_VMAP);
	EXPECT_EQ(VMEMEXP_STATE_NO_VMAP, test_query(dmabuf).state & VMEMEXP_STATE_NO_VMAP);
	EXPECT_EQ(-EPERM, attach_and_map(dmabuf, IMPORTER_TO_DEVICE));
	/* Read-only is what it is, whatever else is wrong. */
	EXPECT_EQ(-EACCES, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, test_query(dmabuf).mappings);
	set_caps(ALL_CAPS);
	EXPECT_EQ(0, attach_and_map(dmabuf, IMPORTER_TO_DEVICE));
	EXPECT_EQ(-EACCES, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	set_caps(~RAWIO);

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_VMAP, "Y"));
	EXPECT_EQ(-EPERM, _test_importer_map(session, IMPORTER_TO_DEVICE));
	EXPECT_EQ(0, attach_and_map(dmabuf, IMPORTER_TO_DEVICE));
	EXPECT_EQ(-EACCES, attach_and_map(dmabuf, IMPORTER_FROM_DEVICE));
	ASSERT_EQ(0, write_text(VMEMEXP_WITHOUT_VMAP, "N"));
	EXPECT_EQ(-EPERM, attach_and_map(dmabuf, IMPORTER_TO_DEVICE));
	close(session);
	close(dmabuf);
}

/* The other sorts: what is scattered and has no page, and what is not listed. */
TEST_F(pfnmap, that_is_scattered_or_not_listed_has_no_vmap_and_is_not_mapped)
{
	bool pageless = !(self->region.flags & CARVEOUT_INFO_PAGES);
	unsigned int no_vmap = pageless ? VMEMEXP_STATE_NO_VMAP : 0;
	struct vmemexp_export cmd;
	unsigned char *parts;
	int dmabuf;

	/* The second half before the first. */
	parts = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)parts);
	test_mmap(parts, HALF, MAP_SHARED, self->file, OFFSET + HALF);
	test_mmap(parts + HALF, HALF, MAP_SHARED, self->file, OFFSET);
	cmd = export_args(parts, SIZE, O_RDWR);
	dmabuf = test_export_cmd(&cmd);
	EXPECT_EQ(2, cmd.nr_extents);
	EXPECT_EQ(no_vmap, cmd.state & VMEMEXP_STATE_NO_VMAP);
	EXPECT_EQ(pageless ? -EPERM : 0, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	close(dmabuf);
	munmap(parts, SIZE);

	if (self->region.flags & CARVEOUT_INFO_RAM)
		return;
	list_nothing();
	set_caps(ALL_CAPS);
	cmd = export_args(self->addr, SIZE, O_RDWR);
	dmabuf = test_export_cmd(&cmd);
	EXPECT_EQ(VMEMEXP_STATE_NO_VMAP, cmd.state & VMEMEXP_STATE_NO_VMAP);
	EXPECT_EQ(0, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	set_caps(~RAWIO);
	EXPECT_EQ(-EPERM, attach_and_map(dmabuf, IMPORTER_BIDIRECTIONAL));
	close(dmabuf);
}

/* The file, and with it the driver, for as long as the memory is in use. */
TEST_F(pfnmap, holds_the_file_of_its_mapping)
{
	long users = read_number(STAND_IN_USERS), dmabuf;

	ASSERT_LT(0, users);
	dmabuf = test_export(self->addr, SIZE, O_RDWR);
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	ASSERT_EQ(0, close(self->file));
	self->file = -1;
	ASSERT_EQ(users, read_number(STAND_IN_USERS));
	EXPECT_EQ(-1, syscall(SYS_delete_module, "vmemexp_carveout",
			      O_NONBLOCK));
	EXPECT_EQ(EWOULDBLOCK, errno);
	test_contents(dmabuf, SIZE, 1);

	close(dmabuf);
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS &&
	     read_number(STAND_IN_USERS) == users; ms += 10)
		sleep_ms(10);
	EXPECT_EQ(users - 1, read_number(STAND_IN_USERS));
}

/* The right to a mapping may be the thread's, and not the mapping's. */
TEST_F(pfnmap, with_a_protection_key_is_exported_as_the_thread_may_access_it)
{
	int key = pkey_alloc(0, 0);

	if (key < 0)
		SKIP(return, "the CPU has no protection keys");
	ASSERT_EQ(0, pkey_mprotect(self->addr, SIZE, RW, key));
	close(test_export(self->addr, SIZE, O_RDWR));

	ASSERT_EQ(0, pkey_set(key, PKEY_DISABLE_WRITE));
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr, self->addr, SIZE,
			O_RDWR);
	close(test_export(self->addr, SIZE, O_RDONLY));

	ASSERT_EQ(0, pkey_set(key, PKEY_DISABLE_ACCESS));
	test_err_export(EFAULT, VMEMEXP_REASON_NOT_READABLE, self->addr, self->addr, SIZE,
			O_RDONLY);
	ASSERT_EQ(0, pkey_set(key, 0));
	ASSERT_EQ(0, pkey_free(key));
}

/* ---- one mapping of what is System RAM and of what lies behind it ---- */

FIXTURE(border)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int file;
	unsigned char *addr;	/* SIZE bytes */
	unsigned char *other;	/* where in them other memory begins */
};

FIXTURE_SETUP(border)
{
	struct carveout_info ram, both;

	skip_without_carveout();
	if (!find_region(FRAMES_OF_RAM, &ram) || ram.region == RAM ||
	    !find_border(ram.base, &both))
		SKIP(return, "vmemexp_carveout has no range that leads out of System RAM");
	test_setup();
	save_list();
	list(both.base, both.size);
	self->file = open_stand_in(both.region, CARVEOUT_CACHED, CARVEOUT_HOW_REMAP);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, ram.size - HALF);
	self->other = self->addr + HALF;
}

FIXTURE_TEARDOWN(border)
{
	restore_list();
	munmap(self->addr, SIZE);
	close(self->file);
	test_teardown();
}

TEST_F(border, is_found_to_the_page)
{
	for (size_t before = PAGE; before <= HALF; before += PAGE)
		for (size_t behind = PAGE; behind <= HALF; behind *= 2)
			test_err_export(EINVAL, VMEMEXP_REASON_MIXED, self->other,
					self->other - before, before + behind, O_RDWR);
	close(test_export(self->addr, HALF, O_RDWR));
	close(test_export(self->other, HALF, O_RDWR));
}

/* Where both are neighbours in memory, whatever their addresses. */
TEST_F(border, is_found_between_ranges)
{
	struct vmemexp_range ranges[] = {
		{ to_u64(self->other - 2 * PAGE), 2 * PAGE }, { to_u64(self->other), PAGE },
	};
	struct vmemexp_range back[] = { ranges[1], ranges[0] };
	struct vmemexp_export cmd = list_args(ranges, 2, O_RDWR);

	test_err_list_cmd(EINVAL, VMEMEXP_REASON_MIXED, 1, to_u64(self->other), &cmd);
	cmd = list_args(back, 2, O_RDWR);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_MIXED, 1, ranges[0].vaddr, &cmd);
}

/* ---- drivers that do not give what the mapping promises ---- */

FIXTURE(fault)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int file;
	unsigned char *addr;
};

FIXTURE_SETUP(fault)
{
	struct carveout_info region;

	skip_without_importer();
	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &region));
	test_setup();
	save_list();
	list(region.base, region.size);
	self->file = -1;
}

FIXTURE_TEARDOWN(fault)
{
	restore_list();
	munmap(self->addr, SIZE);
	close(self->file);
	test_teardown();
}

#define map_by_fault(flags_, nr_faults_) do {				\
	struct carveout_setup setup = {					\
		.region = REGION,					\
		.cache = CARVEOUT_CACHED,				\
		.how = CARVEOUT_HOW_FAULT,				\
		.flags = flags_,					\
		.nr_faults = nr_faults_,				\
	};								\
									\
	self->file = _test_carveout_open(&setup);			\
	ASSERT_LE(0, self->file);					\
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file,	\
			      OFFSET);					\
} while (0)

/* The mapping has PROT_WRITE, but its entries stay read-only. */
TEST_F(fault, that_never_makes_a_page_writable_is_read_only)
{
	unsigned char *contents = malloc(SIZE);
	int dmabuf;

	fill(contents, SIZE, 1);
	test_carveout_write(REGION, OFFSET, contents, SIZE);
	free(contents);
	map_by_fault(CARVEOUT_READ_ONLY, 0);
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SIZE, O_RDWR);
	dmabuf = test_export(self->addr, SIZE, O_RDONLY);
	EXPECT_EQ(VMEMEXP_ACCESS_READ, test_query(dmabuf).access);
	test_contents(dmabuf, SIZE, 1);
	close(dmabuf);
	/* Nor is it when the pages are there already. */
	ASSERT_EQ(-1, first_difference(self->addr, SIZE, 1));
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SIZE, O_RDWR);
}

/* Entries that allow writing, and then those of the same page table that do not. */
TEST_F(fault, that_makes_half_of_the_pages_writable_names_the_next_page)
{
	map_by_fault(CARVEOUT_TRACKED | CARVEOUT_THEN_REFUSE, PAGES + PAGES / 2);
	for (size_t i = 0; i < PAGES; i++)
		(void)((volatile unsigned char *)self->addr)[i * PAGE];
	fill(self->addr, HALF, 1);
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr + HALF,
			self->addr, SIZE, O_RDWR);
	close(test_export(self->addr, HALF, O_RDWR));
	close(test_export(self->addr, SIZE, O_RDONLY));
}

TEST_F(fault, that_is_refused_half_way_names_the_page)
{
	map_by_fault(CARVEOUT_THEN_REFUSE, PAGES / 2);
	test_err_export(EFAULT, VMEMEXP_REASON_NO_BACKING, self->addr + HALF,
			self->addr, SIZE, O_RDWR);
	test_err_export(EFAULT, VMEMEXP_REASON_NO_BACKING, self->addr + HALF,
			self->addr, SIZE, O_RDONLY);
	close(test_export(self->addr, HALF, O_RDWR));
}

TEST_F(fault, that_takes_all_away_half_way_is_noticed)
{
	int dmabuf;

	map_by_fault(CARVEOUT_THEN_TAKE_AWAY, PAGES / 2);
	test_err_export(EAGAIN, VMEMEXP_REASON_CHANGED, self->addr, self->addr,
			SIZE, O_RDWR);

	/* Once is not for ever. */
	fill(self->addr, SIZE, 2);
	dmabuf = test_export(self->addr, SIZE, O_RDWR);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(dmabuf));
	test_contents(dmabuf, SIZE, 2);
	close(dmabuf);
}

TEST_F(fault, that_is_refused_after_the_mapping_was_taken_away)
{
	map_by_fault(0, 0);
	fill(self->addr, SIZE, 1);
	ASSERT_EQ(0, ioctl(self->file, CARVEOUT_IOC_TAKE_AWAY));
	test_err_export(EFAULT, VMEMEXP_REASON_NO_BACKING, self->addr,
			self->addr, SIZE, O_RDWR);
}

/* No struct page comes with them, so they are not pages to pin. */
TEST_F(fault, that_inserts_page_frames_among_pages_is_refused)
{
	self->file = open_stand_in(REGION, CARVEOUT_CACHED, CARVEOUT_HOW_MIXED);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
	for (int i = 0; i < 2; i++) {
		test_err_export(EFAULT, VMEMEXP_REASON_UNPINNABLE, self->addr, self->addr,
				SIZE, O_RDWR);
		test_err_export(EFAULT, VMEMEXP_REASON_UNPINNABLE, self->addr, self->addr,
				SIZE, O_RDONLY);
		/* Present as well as absent. */
		fill(self->addr, SIZE, 1);
	}
}

/* A page of the program's own would take its place at the first write. */
TEST_F(fault, that_copies_the_page_is_refused)
{
	self->file = open_stand_in(REGION, CARVEOUT_CACHED, CARVEOUT_HOW_REMAP);
	self->addr = test_mmap(NULL, SIZE, MAP_PRIVATE, self->file, OFFSET);
	test_err_export(EPERM, VMEMEXP_REASON_PRIVATE, self->addr, self->addr,
			SIZE, O_RDWR);
	test_err_export(EPERM, VMEMEXP_REASON_PRIVATE, self->addr, self->addr,
			SIZE, O_RDONLY);
	self->addr[HALF] = 1;
	test_err_export(EPERM, VMEMEXP_REASON_PRIVATE, self->addr, self->addr,
			SIZE, O_RDWR);
}

struct come_and_go {
	unsigned char *addr;
	int file;
	bool stop;
};

/* Replaces the driver's memory by the program's own and back, all the time. */
static void *come_and_go(void *arg)
{
	struct come_and_go *c = arg;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		mmap(c->addr, SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0);
		mmap64(c->addr, SIZE, RW, MAP_SHARED | MAP_FIXED, c->file,
		       OFFSET);
	}
	return NULL;
}

TEST_F(fault, that_races_with_mmap_never_mixes_what_it_finds)
{
	struct come_and_go c;
	pthread_t thread;
	int exported = 0;

	map_by_fault(0, 0);
	c = (struct come_and_go){ .addr = self->addr, .file = self->file };
	ASSERT_EQ(0, pthread_create(&thread, NULL, come_and_go, &c));
	for (int i = 0; i < 500 || (!exported && i < 20000); i++) {
		struct vmemexp_export cmd = export_args(self->addr, SIZE,
							O_RDWR);
		int ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);

		if (!ret) {
			exported++;
			if (cmd.memory != VMEMEXP_MEMORY_ANON)
				EXPECT_EQ(VMEMEXP_MEMORY_PFNMAP, cmd.memory);
			close(cmd.fd);
			continue;
		}
		if (ret != -EAGAIN && ret != -EFAULT) {
			EXPECT_EQ(-EINVAL, ret);
			EXPECT_EQ(VMEMEXP_REASON_MIXED, cmd.err_reason);
		}
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_NE(0, exported);
}

/* Absent pages that another process has promised to provide, and never does. */
TEST_F(fault, that_is_never_answered_ends_with_a_signal)
{
	struct pollfd poll_fd = { .events = POLLIN };
	struct test_state before;
	int sock[2];
	pid_t child;

	if (access("/proc/sys/vm/unprivileged_userfaultfd", F_OK))
		SKIP(return, "the kernel has no userfaultfd");
	before = get_state();
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				sock));

	child = fork_child();
	if (!child) {
		unsigned char *mem = map_anon(SIZE);
		struct uffdio_api api = { .api = UFFD_API };
		struct uffdio_register range = {
			.range = { to_u64(mem) + HALF, HALF },
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};
		struct vmemexp_export cmd = export_args(mem, SIZE, O_RDWR);
		int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

		CHECK(!ioctl(uffd, UFFDIO_API, &api));
		CHECK(!ioctl(uffd, UFFDIO_REGISTER, &range));
		CHECK(!send_fd(sock[1], uffd));
		_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
		_exit(KSFT_FAIL);
	}
	poll_fd.fd = receive_fd(sock[0]);
	ASSERT_LE(0, poll_fd.fd);
	/* Once there is a page to provide, the export waits for it. */
	ASSERT_EQ(1, poll(&poll_fd, 1, RELEASE_TIMEOUT_MS));
	EXPECT_EQ(0, ended_child());
	ASSERT_EQ(0, kill(child, SIGKILL));
	EXPECT_SOON(child, ended_child());

	close(poll_fd.fd);
	close(sock[0]);
	close(sock[1]);
	test_state(&before);
}

/* ---- ranges that change in the middle ---- */

enum part {
	ANON,
	SHMEM,
	DRIVER_PAGES,
	DRIVER_PAGES_UNCACHED,
	DRIVER_PAGES_BESIDE_RAM,
	FRAMES,
	FRAMES_OF_ANOTHER_FILE,
	FRAMES_UNCACHED,
	DMABUF,
	ANOTHER_DMABUF,
};

FIXTURE(mixed)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int files[2];
	unsigned char *addr;
};

FIXTURE_VARIANT(mixed)
{
	enum part first, second;
};

FIXTURE_VARIANT_ADD(mixed, malloc_then_frames) {
	.first = ANON, .second = FRAMES,
};

FIXTURE_VARIANT_ADD(mixed, frames_then_malloc) {
	.first = FRAMES, .second = ANON,
};

FIXTURE_VARIANT_ADD(mixed, shared_memory_then_frames) {
	.first = SHMEM, .second = FRAMES,
};

FIXTURE_VARIANT_ADD(mixed, frames_then_pages_of_a_driver) {
	.first = FRAMES, .second = DRIVER_PAGES,
};

FIXTURE_VARIANT_ADD(mixed, pages_of_a_driver_then_frames) {
	.first = DRIVER_PAGES, .second = FRAMES,
};

FIXTURE_VARIANT_ADD(mixed, malloc_then_uncached_pages_of_a_driver) {
	.first = ANON, .second = DRIVER_PAGES_UNCACHED,
};

/* arm cannot insert pages from outside of System RAM. */
#ifndef __arm__
FIXTURE_VARIANT_ADD(mixed, malloc_then_pages_of_a_driver_that_are_no_ram) {
	.first = ANON, .second = DRIVER_PAGES_BESIDE_RAM,
};
#endif

FIXTURE_VARIANT_ADD(mixed, frames_then_those_of_another_file) {
	.first = FRAMES, .second = FRAMES_OF_ANOTHER_FILE,
};

FIXTURE_VARIANT_ADD(mixed, cached_then_uncached_frames) {
	.first = FRAMES, .second = FRAMES_UNCACHED,
};

FIXTURE_VARIANT_ADD(mixed, uncached_then_cached_frames) {
	.first = FRAMES_UNCACHED, .second = FRAMES,
};

FIXTURE_VARIANT_ADD(mixed, malloc_then_dmabuf) {
	.first = ANON, .second = DMABUF,
};

FIXTURE_VARIANT_ADD(mixed, dmabuf_then_malloc) {
	.first = DMABUF, .second = ANON,
};

FIXTURE_VARIANT_ADD(mixed, frames_then_dmabuf) {
	.first = FRAMES, .second = DMABUF,
};

FIXTURE_VARIANT_ADD(mixed, dmabuf_then_frames) {
	.first = DMABUF, .second = FRAMES,
};

FIXTURE_VARIANT_ADD(mixed, dmabuf_then_another) {
	.first = DMABUF, .second = ANOTHER_DMABUF,
};

FIXTURE_SETUP(mixed)
{
	struct carveout_info region, ram, beside;

	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &region));
	ASSERT_EQ(0, _test_carveout_info(RAM, &ram));
	if (variant->second == DRIVER_PAGES_BESIDE_RAM && !find_region(FRAMES_WITH_PAGES, &beside))
		SKIP(return, "vmemexp_carveout has no range of this sort");
	self->files[0] = -1;
	self->files[1] = -1;
	test_setup();
	save_list();
	list_two(region.base, region.size, ram.base, ram.size);
	/* Room for both parts. */
	self->addr = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->addr);
}

FIXTURE_TEARDOWN(mixed)
{
	restore_list();
	munmap(self->addr, SIZE);
	close(self->files[0]);
	close(self->files[1]);
	test_teardown();
}

static int __open_part(struct __test_metadata *_metadata, int fd,
		       enum part part)
{
	struct carveout_info region;

	switch (part) {
	case DRIVER_PAGES:
		return open_stand_in(RAM, CARVEOUT_CACHED, CARVEOUT_HOW_PAGES);
	case DRIVER_PAGES_UNCACHED:
		return open_stand_in(RAM, CARVEOUT_UNCACHED, CARVEOUT_HOW_PAGES);
	case DRIVER_PAGES_BESIDE_RAM:
		ASSERT_TRUE(find_region(FRAMES_WITH_PAGES, &region));
		return open_stand_in(region.region, CARVEOUT_CACHED, CARVEOUT_HOW_PAGES);
	case FRAMES:
	case FRAMES_OF_ANOTHER_FILE:
		return open_stand_in(REGION, CARVEOUT_CACHED,
				     CARVEOUT_HOW_REMAP);
	case FRAMES_UNCACHED:
		return open_stand_in(RAM, CARVEOUT_UNCACHED,
				     CARVEOUT_HOW_REMAP);
	case DMABUF:
	case ANOTHER_DMABUF:
		return __test_export_range(_metadata, fd, map_anon(HALF), HALF,
					   O_RDWR);
	default:
		return -1;
	}
}

static int __map_part(struct __test_metadata *_metadata, int fd, enum part part,
		      void *where)
{
	int file = __open_part(_metadata, fd, part);
	int type = part == ANON ? MAP_PRIVATE : MAP_SHARED;

	test_mmap(where, HALF, type | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
	return file;
}

/* Puts it there, and keeps its file for the teardown. */
#define map_part(nr, part, where) \
	(self->files[nr] = __map_part(_metadata, self->fd, part, where))

TEST_F(mixed, is_refused_from_the_first_page_of_the_second_part)
{
	struct vmemexp_export cmd;

	map_part(0, variant->first, self->addr);
	map_part(1, variant->second, self->addr + HALF);
	test_err_export(EINVAL, VMEMEXP_REASON_MIXED, self->addr + HALF,
			self->addr, SIZE, O_RDWR);
	test_err_export(EINVAL, VMEMEXP_REASON_MIXED, self->addr + HALF,
			self->addr + HALF - PAGE, 2 * PAGE, O_RDWR);

	/* Each part is as good as any. */
	for (int i = 0; i < 2; i++) {
		cmd = export_args(self->addr + i * HALF, HALF, O_RDWR);
		EXPECT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
		close(cmd.fd);
	}
}

/* ---- /dev/mem, which chooses the caching itself ---- */

FIXTURE(dev_mem)
{
	int fd;
	struct test_state before;
	struct old_list old;
	struct carveout_info region;
	int file;
	unsigned char *addr;
};

FIXTURE_VARIANT(dev_mem)
{
	int flags;
};

FIXTURE_VARIANT_ADD(dev_mem, opened_plainly) {
};

FIXTURE_VARIANT_ADD(dev_mem, opened_with_o_sync) {
	.flags = O_SYNC,
};

FIXTURE_SETUP(dev_mem)
{
	skip_without_importer();
	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &self->region));
	if (self->region.flags & CARVEOUT_INFO_RAM)
		SKIP(return, "/dev/mem does not map System RAM");
	test_setup();
	save_list();
	self->file = open("/dev/mem", O_RDWR | O_CLOEXEC | variant->flags);
	ASSERT_LE(0, self->file);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file,
			       self->region.base + OFFSET);
	list(self->region.base, self->region.size);
	set_caps(~RAWIO);
}

FIXTURE_TEARDOWN(dev_mem)
{
	set_caps(ALL_CAPS);
	restore_list();
	munmap(self->addr, SIZE);
	close(self->file);
	test_teardown();
}

/* Return the caching that the architecture's phys_mem_access_prot() chooses. */
static unsigned int cache_of_dev_mem(const struct carveout_info *region,
				     bool sync)
{
	struct utsname name;

	uname(&name);
	/* Memory that is not in the linear map is a device's. */
	if (!strcmp(name.machine, "aarch64"))
		return VMEMEXP_CACHE_UNCACHED;
	if (!strncmp(name.machine, "arm", 3)) {
		if (!(region->flags & CARVEOUT_INFO_PAGES))
			return VMEMEXP_CACHE_UNCACHED;
		return sync ? VMEMEXP_CACHE_WRITECOMBINE : VMEMEXP_CACHE_CACHED;
	}
	return sync ? VMEMEXP_CACHE_UNCACHED : VMEMEXP_CACHE_CACHED;
}

TEST_F(dev_mem, is_exported_as_it_is_cached)
{
	int dmabuf;

	fill(self->addr, SIZE, 1);
	dmabuf = test_export(self->addr, SIZE, O_RDWR);
	EXPECT_EQ(cache_of_dev_mem(&self->region, variant->flags),
		  test_query(dmabuf).cache);
	test_contents(dmabuf, SIZE, 1);
	check_other_processor(REGION, dmabuf);
	EXPECT_EQ(-1, first_difference(self->addr, SIZE, 8));
	close(dmabuf);
}

TEST_F(dev_mem, outside_of_the_list_needs_sys_rawio)
{
	list_nothing();
	test_err_export(EPERM, VMEMEXP_REASON_PFNMAP, self->addr, self->addr,
			SIZE, O_RDWR);
	set_caps(RAWIO);
	close(test_export(self->addr, SIZE, O_RDWR));
}

/* ---- the parameter ---- */

FIXTURE(parameter)
{
	int fd;
	struct test_state before;
	struct old_list old;
};

FIXTURE_SETUP(parameter)
{
	test_setup();
	save_list();
}

FIXTURE_TEARDOWN(parameter)
{
	setresuid(0, 0, 0);
	restore_list();
	test_teardown();
}

/* Expects these to be in the list, in this order, and nothing else. */
static void __expect_list(struct __test_metadata *_metadata,
			  const struct range *ranges, int nr)
{
	char text[4096], *p = text;

	ASSERT_LT(0, read_text(VMEMEXP_CARVEOUTS, text, sizeof(text)));
	for (int i = 0; i < nr; i++) {
		EXPECT_EQ(ranges[i].base, strtoull(p, &p, 0));
		ASSERT_EQ(':', *p++);
		EXPECT_EQ(ranges[i].size, strtoull(p, &p, 0));
		ASSERT_EQ(i + 1 < nr ? ',' : '\n', *p++);
	}
	EXPECT_STREQ(nr ? "" : "\n", p);
}

#define expect_list(...) do {						\
	static const struct range ranges[] = { __VA_ARGS__ };		\
									\
	__expect_list(_metadata, ranges, ARRAY_SIZE(ranges));		\
} while (0)

#define write_list(text) \
	ASSERT_EQ(0, write_text(VMEMEXP_CARVEOUTS, text))

TEST_F(parameter, takes_numbers_of_every_kind_and_shows_them)
{
	write_list("0x10000000:0x200000");
	expect_list({ 0x10000000, 0x200000 });
	write_list("536870912:4096\n");
	expect_list({ 0x20000000, 0x1000 });
	write_list("1G:16M,512M:64K,0x1c0000000:1M");
	expect_list({ 1 << 30, 16 << 20 }, { 512 << 20, 64 << 10 },
		    { 0x1c0000000, 1 << 20 });
	/* One behind the other does not overlap. */
	write_list("0x2000:0x1000,0x1000:0x1000,0x3000:0x1000");
	expect_list({ 0x2000, 0x1000 }, { 0x1000, 0x1000 },
		    { 0x3000, 0x1000 });
	list_nothing();
	__expect_list(_metadata, NULL, 0);
}

TEST_F(parameter, takes_sixteen_ranges_and_no_more)
{
	char text[1024] = "", shown[4096], now[4096];

	for (int i = 0; i < 16; i++)
		sprintf(text + strlen(text), "%s%#x:0x1000", i ? "," : "",
			0x100000 * (i + 1));
	EXPECT_EQ(0, write_text(VMEMEXP_CARVEOUTS, text));
	ASSERT_LT(0, read_text(VMEMEXP_CARVEOUTS, shown, sizeof(shown)));
	strcat(text, ",0x40000000:0x1000");
	EXPECT_EQ(-EINVAL, write_text(VMEMEXP_CARVEOUTS, text));
	ASSERT_LT(0, read_text(VMEMEXP_CARVEOUTS, now, sizeof(now)));
	EXPECT_STREQ(shown, now);
}

TEST_F(parameter, that_makes_no_sense_is_einval_and_changes_nothing)
{
	static const char * const bad[] = {
		"nonsense", "0x1000", "0x1000:", ":0x1000", "0x1000-0x1fff",
		"0x1000:0x1000x", "0x1000:0x1000:0x1000", "-0x1000:0x1000",
		"0x1000:0x1000 0x3000:0x1000", "0x1000:0x1000;0x3000:0x1000",
		"0x1000:0x1000,nonsense", "nonsense,0x1000:0x1000",
		",", ",0x1000:0x1000", "0x1000:0x1000,",
		"0x1000:0x1000,,0x3000:0x1000",
		/* not page aligned, or nothing */
		"0x1001:0x1000", "0x1000:0x1001", "0x1000:100", "0x1000:0",
		/* wraps around */
		"0xfffffffffffff000:0x2000", "0x2000:0xfffffffffffff000",
		/* overlaps */
		"0x1000:0x2000,0x2000:0x1000", "0x2000:0x1000,0x1000:0x2000",
		"0x1000:0x1000,0x1000:0x1000", "0x1000:0x8000,0x3000:0x1000",
		"0x3000:0x1000,0x1000:0x8000",
	};

	write_list("0x10000000:0x200000");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, write_text(VMEMEXP_CARVEOUTS, bad[i])) {
			TH_LOG("\"%s\"", bad[i]);
		}
		expect_list({ 0x10000000, 0x200000 });
	}
}

/* Only root can read and change physical addresses. */
TEST_F(parameter, is_not_for_users)
{
	char text[4096];

	ASSERT_EQ(0, setresuid(USER, USER, 0));
	EXPECT_EQ(-EACCES, read_text(VMEMEXP_CARVEOUTS, text, sizeof(text)));
	EXPECT_EQ(-EACCES, write_text(VMEMEXP_CARVEOUTS, "0x1000:0x1000"));
}

TEST_HARNESS_MAIN

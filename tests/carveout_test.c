// SPDX-License-Identifier: GPL-2.0
/*
 * Memory without page accounting: who may export it, the list of carve-outs, what is refused and
 * why, how long it lives, how contiguous it is; and ranges that are a dma-buf's mapping already.
 * kinds_test compares the bytes of every kind.
 *
 * Root gives up CAP_SYS_RAWIO for most tests, so that the list alone decides.
 */
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "lib/vmemexp_utils.h"

#define USER		65534

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

/* Sorts of memory, by struct carveout_info.flags. */
#define WITHOUT_PAGES	0
#define WITH_PAGES	CARVEOUT_INFO_PAGES
#define SYSTEM_RAM	(CARVEOUT_INFO_PAGES | CARVEOUT_INFO_RAM)

#define STAND_IN_USERS	"/sys/module/vmemexp_carveout/refcnt"

/* ---- privileges ---- */

/* ---- the list of carve-outs ---- */

/* The list as the fixture found it, to be put back. */
struct old_list {
	char text[4096];
};

static void __save_list(struct __test_metadata *_metadata, struct old_list *old)
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
static void __list(struct __test_metadata *_metadata,
		   const struct range *ranges, int nr)
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

/* A file that holds nothing but a number; -1 if it cannot be read. */
static long read_number(const char *path)
{
	char text[32];

	return read_text(path, text, sizeof(text)) > 0 ? strtol(text, NULL, 0) :
							 -1;
}

static int __open_stand_in(struct __test_metadata *_metadata,
			   unsigned int region, unsigned int cache,
			   unsigned int how)
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

static unsigned char *__map_file(struct __test_metadata *_metadata, void *where,
				 size_t length, int flags, int file,
				 uint64_t offset)
{
	unsigned char *addr = mmap64(where, length, RW,
				     flags | (where ? MAP_FIXED : 0), file,
				     offset);

	ASSERT_NE(MAP_FAILED, (void *)addr) {
		TH_LOG("mmap: %s", strerror(errno));
	}
	return addr;
}

/* @where is NULL, or where to put it whatever is there. */
#define map_file(where, length, flags, file, offset) \
	__map_file(_metadata, where, length, flags, file, offset)

/* Finds the first region of this sort. */
static bool find_region(unsigned int sort, struct carveout_info *region)
{
	for (unsigned int i = 0; !_test_carveout_info(i, region); i++)
		if (region->flags == sort)
			return true;
	return !_test_carveout_info(RAM, region) && region->flags == sort;
}

/* Finds the region that is System RAM from @base on, and then is not. */
static bool find_border(uint64_t base, struct carveout_info *region)
{
	for (unsigned int i = 0; !_test_carveout_info(i, region); i++)
		if (region->base == base && region->flags & CARVEOUT_INFO_MIXED)
			return true;
	return false;
}

/* Why memory of the region is refused that is not listed. */
static unsigned int not_listed(const struct carveout_info *region)
{
	return region->flags & CARVEOUT_INFO_RAM ? VMEMEXP_REASON_RAM :
						   VMEMEXP_REASON_PFNMAP;
}

/* Check that the CPU and the other processor see each other's writes. */
static void __check_other_processor(struct __test_metadata *_metadata, int fd,
				    unsigned int region, int dmabuf)
{
	unsigned char *mem = malloc(SIZE);
	unsigned char *view = map_file(NULL, SIZE, MAP_SHARED, dmabuf, 0);

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
	.sort = WITH_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(pfnmap, with_pages_by_fault) {
	.sort = WITH_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(pfnmap, without_pages_at_mmap) {
	.sort = WITHOUT_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(pfnmap, without_pages_by_fault) {
	.sort = WITHOUT_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(pfnmap, system_ram_at_mmap) {
	.sort = SYSTEM_RAM, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(pfnmap, system_ram_by_fault) {
	.sort = SYSTEM_RAM, .how = CARVEOUT_HOW_FAULT,
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
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
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
	map_file(self->addr, HALF, MAP_SHARED, self->file, OFFSET);	\
	map_file(self->addr + HALF, PAGE, MAP_SHARED, self->file,	\
		 OFFSET + HALF);					\
	map_file(self->addr + HALF + PAGE, HALF - PAGE, MAP_SHARED,	\
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
	map_file(parts, HALF, MAP_SHARED, self->file, OFFSET + HALF);
	map_file(parts + HALF, HALF, MAP_SHARED, self->file, OFFSET);
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
	if (!find_region(SYSTEM_RAM, &ram) || ram.region == RAM ||
	    !find_border(ram.base, &both))
		SKIP(return, "vmemexp_carveout has no range that leads out of System RAM");
	test_setup();
	save_list();
	list(both.base, both.size);
	self->file = open_stand_in(both.region, CARVEOUT_CACHED, CARVEOUT_HOW_REMAP);
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, ram.size - HALF);
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
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file,	\
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
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
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
	self->addr = map_file(NULL, SIZE, MAP_PRIVATE, self->file, OFFSET);
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

/* ---- ... or give it step by step: what the export finds in one page table ---- */

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

	view = map_file(NULL, FEW, MAP_SHARED, dmabuf, 0);
	fill(view, FEW, 2);
	EXPECT_EQ(-1, first_difference(addr, FEW, 2));
	munmap(view, FEW);
	close(dmabuf);
	munmap(addr, FEW);
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
	if (variant->second == DRIVER_PAGES_BESIDE_RAM && !find_region(WITH_PAGES, &beside))
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
		ASSERT_TRUE(find_region(WITH_PAGES, &region));
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

	map_file(where, HALF, type | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
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
	.sort = WITH_PAGES, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, with_pages_by_fault) {
	.sort = WITH_PAGES, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_FAULT, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, with_pages_writecombined) {
	.sort = WITH_PAGES, .cache = CARVEOUT_WRITECOMBINE,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, with_pages_uncached) {
	.sort = WITH_PAGES, .cache = CARVEOUT_UNCACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, without_pages_at_mmap) {
	.sort = WITHOUT_PAGES, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, without_pages_writecombined) {
	.sort = WITHOUT_PAGES, .cache = CARVEOUT_WRITECOMBINE,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, without_pages_uncached) {
	.sort = WITHOUT_PAGES, .cache = CARVEOUT_UNCACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, system_ram_at_mmap) {
	.sort = SYSTEM_RAM, .cache = CARVEOUT_CACHED,
	.how = CARVEOUT_HOW_REMAP, .memory = VMEMEXP_MEMORY_PFNMAP,
};

FIXTURE_VARIANT_ADD(pieces, system_ram_by_pages) {
	.sort = SYSTEM_RAM, .cache = CARVEOUT_CACHED,
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
	unsigned char *addr = map_file(NULL, size, MAP_SHARED, self->file,
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
		map_file(where, pieces[i].nr * PAGE, MAP_SHARED, self->file,
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
	view = map_file(NULL, 48 * PAGE, MAP_SHARED, dmabuf, 0);
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

/* ---- what becomes of a buffer when its mapping goes ---- */

FIXTURE(range)
{
	int fd;
	struct test_state before;
	struct old_list old;
	int file;
	unsigned char *addr;
	int dmabuf;
};

/* Returns 0, or -1 if it could not be done. */
static int do_munmap(int file, unsigned char *addr)
{
	(void)file;
	return munmap(addr, SIZE);
}

static int do_munmap_a_page(int file, unsigned char *addr)
{
	(void)file;
	return munmap(addr + HALF, PAGE);
}

static int do_mremap(int file, unsigned char *addr)
{
	unsigned char *moved;

	(void)file;
	moved = mremap(addr, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       map_anon(SIZE));
	return moved == MAP_FAILED ? -1 : munmap(moved, SIZE);
}

static int do_map_over(int file, unsigned char *addr)
{
	(void)file;
	return mmap(addr, SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		    0) == MAP_FAILED ? -1 : 0;
}

static int do_take_away_from_another(int file, unsigned char *addr)
{
	struct carveout_setup setup = {
		.region = REGION,
		.cache = CARVEOUT_CACHED,
		.how = CARVEOUT_HOW_REMAP,
	};
	int other = _test_carveout_open(&setup), ret;

	(void)file;
	(void)addr;
	ret = ioctl(other, CARVEOUT_IOC_TAKE_AWAY);
	close(other);
	return ret;
}

static int do_write(int file, unsigned char *addr)
{
	(void)file;
	fill(addr, SIZE, 1);
	return 0;
}

static int do_fork(int file, unsigned char *addr)
{
	pid_t child = fork_child();

	(void)file;
	if (!child)
		_exit(munmap(addr, SIZE));
	return wait_for_child(child);
}

FIXTURE_VARIANT(range)
{
	int (*act)(int file, unsigned char *addr);
	unsigned int how;
	bool stale;
};

FIXTURE_VARIANT_ADD(range, munmap) {
	.act = do_munmap, .how = CARVEOUT_HOW_REMAP, .stale = true,
};

FIXTURE_VARIANT_ADD(range, munmap_of_a_page) {
	.act = do_munmap_a_page, .how = CARVEOUT_HOW_FAULT, .stale = true,
};

FIXTURE_VARIANT_ADD(range, mremap) {
	.act = do_mremap, .how = CARVEOUT_HOW_REMAP, .stale = true,
};

FIXTURE_VARIANT_ADD(range, mmap_over_it) {
	.act = do_map_over, .how = CARVEOUT_HOW_REMAP, .stale = true,
};

FIXTURE_VARIANT_ADD(range, driver_takes_that_of_another_file_away) {
	.act = do_take_away_from_another, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(range, writing) {
	.act = do_write, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(range, fork) {
	.act = do_fork, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_SETUP(range)
{
	struct carveout_info region;

	skip_without_importer();
	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &region));
	test_setup();
	save_list();
	list(region.base, region.size);
	self->file = open_stand_in(REGION, CARVEOUT_CACHED, variant->how);
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
	fill(self->addr, SIZE, 1);
	self->dmabuf = test_export(self->addr, SIZE, O_RDWR);
}

FIXTURE_TEARDOWN(range)
{
	restore_list();
	close(self->dmabuf);
	munmap(self->addr, SIZE);
	close(self->file);
	test_teardown();
}

TEST_F(range, is_left_without_any_effect_on_the_dmabuf)
{
	unsigned int stale = variant->stale ? VMEMEXP_STATE_STALE : 0;
	unsigned char *view = map_file(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);
	int session = test_importer_open();
	unsigned char *seen = malloc(SIZE);

	test_importer_attach(session, self->dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(self->dmabuf));
	ASSERT_EQ(0, variant->act(self->file, self->addr));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | stale,
		  test_query_state(self->dmabuf));

	/* Existing mappings still work, and so do new ones. */
	EXPECT_EQ(-1, first_difference(view, SIZE, 1));
	test_importer_read(session, 0, seen, SIZE);
	EXPECT_EQ(-1, first_difference(seen, SIZE, 1));
	fill(seen, SIZE, 3);
	test_importer_write(session, 0, seen, SIZE);
	test_importer_unmap(session);
	EXPECT_EQ(-1, first_difference(view, SIZE, 3));
	test_contents(self->dmabuf, SIZE, 3);
	check_other_processor(REGION, self->dmabuf);
	close(session);
	munmap(view, SIZE);
	free(seen);
}

/* ---- what becomes of a buffer when its driver takes the page frames away ---- */

static sigjmp_buf after_signal;

static void catch(int signal)
{
	siglongjmp(after_signal, signal);
}

/* The signal that a read of the byte raises, or 0. */
static int signal_of(const volatile unsigned char *byte)
{
	struct sigaction action = { .sa_handler = catch };
	int signal = sigsetjmp(after_signal, 1);

	if (!signal) {
		sigaction(SIGBUS, &action, NULL);
		sigaction(SIGSEGV, &action, NULL);
		(void)*byte;
	}
	return signal;
}

FIXTURE(taken)
{
	int fd;
	struct test_state before;
	struct old_list old;
	struct carveout_info region;
	int file;
	unsigned char *addr;
	int dmabuf;
	unsigned char *view;		/* of the dma-buf, and used */
	unsigned char *untouched;	/* another one that is not */
	int session;			/* has a device attached */
	int user;			/* and one that has it mapped */
};

FIXTURE_VARIANT(taken)
{
	unsigned int sort;
	unsigned int how;
};

FIXTURE_VARIANT_ADD(taken, with_pages_at_mmap) {
	.sort = WITH_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(taken, with_pages_by_fault) {
	.sort = WITH_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(taken, without_pages_at_mmap) {
	.sort = WITHOUT_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(taken, without_pages_by_fault) {
	.sort = WITHOUT_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(taken, system_ram_at_mmap) {
	.sort = SYSTEM_RAM, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(taken, system_ram_by_fault) {
	.sort = SYSTEM_RAM, .how = CARVEOUT_HOW_FAULT,
};

#define set_up_taken(how) do {						\
	skip_without_importer();					\
	skip_without_carveout();					\
	if (!find_region(variant->sort, &self->region))			\
		SKIP(return, "vmemexp_carveout has no range of this sort"); \
	test_setup();							\
	save_list();							\
	list(self->region.base, self->region.size);			\
	self->file = open_stand_in(self->region.region, CARVEOUT_CACHED, how); \
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, OFFSET); \
	fill(self->addr, SIZE, 1);					\
	self->dmabuf = test_export(self->addr, SIZE, O_RDWR);		\
	self->view = map_file(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);	\
	EXPECT_EQ(-1, first_difference(self->view, SIZE, 1));		\
	self->untouched = map_file(NULL, SIZE, MAP_SHARED, self->dmabuf, 0); \
	self->session = test_importer_open();				\
	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT); \
	self->user = test_importer_open();				\
	test_importer_attach(self->user, self->dmabuf, IMPORTER_DEV_COHERENT); \
	test_importer_map(self->user, IMPORTER_BIDIRECTIONAL);		\
} while (0)

#define tear_down_taken() do {						\
	restore_list();							\
	close(self->session);						\
	close(self->user);						\
	munmap(self->view, SIZE);					\
	munmap(self->untouched, SIZE);					\
	munmap(self->addr, SIZE);					\
	close(self->dmabuf);						\
	close(self->file);						\
	test_teardown();						\
} while (0)

FIXTURE_SETUP(taken)
{
	set_up_taken(variant->how);
}

FIXTURE_TEARDOWN(taken)
{
	tear_down_taken();
}

#define TAKEN	(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED)

/* The dma-buf lives on, with all that it had. */
#define expect_only_stale() do {					\
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE,		\
		  test_query_state(self->dmabuf));			\
	EXPECT_EQ(-1, first_difference(self->view, SIZE, 1));		\
	test_contents(self->dmabuf, SIZE, 1);				\
} while (0)

#define take_away()	ASSERT_EQ(0, ioctl(self->file, CARVEOUT_IOC_TAKE_AWAY))

static void __expect_no_new_users(struct __test_metadata *_metadata, int fd, int dmabuf,
				  int session)
{
	int other = test_importer_open();
	unsigned char zero = 0xff;

	EXPECT_EQ(-ENODEV, _test_importer_attach(other, dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(-ENODEV, _test_importer_map(session, IMPORTER_TO_DEVICE));
	EXPECT_EQ(-ENODEV, _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ, MAP_SHARED, dmabuf, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ, MAP_SHARED, session, 0));
	EXPECT_EQ(ENODEV, errno);
	test_importer_vmap(session);
	test_importer_vread(session, PAGE + 1, &zero, 1);
	EXPECT_EQ(0, zero);
	test_importer_vunmap(session);
	EXPECT_EQ(-ENODEV, _test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW));
	EXPECT_EQ(-ENODEV, _test_sync(fd, dmabuf, VMEMEXP_SYNC_RW, 0, SIZE));
	EXPECT_EQ(-ENODEV, _test_sync(fd, dmabuf, VMEMEXP_SYNC_RW | VMEMEXP_SYNC_OBSERVER, 0,
				      SIZE));
	close(other);
}

#define expect_no_new_users() \
	__expect_no_new_users(_metadata, self->fd, self->dmabuf, self->session)

/* Nothing but the end of the driver's call has to be waited for. */
TEST_F(taken, away_has_no_new_users_from_then_on)
{
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(self->dmabuf));
	take_away();
	EXPECT_EQ(TAKEN, test_query_state(self->dmabuf));
	expect_no_new_users();
	EXPECT_EQ(SIGBUS, signal_of(self->untouched));
}

TEST_F(taken, away_is_gone_from_mappings_of_the_dmabuf)
{
	take_away();
	EXPECT_SOON(SIGBUS, signal_of(self->view));
	EXPECT_EQ(SIGBUS, signal_of(self->view + SIZE - 1));
	EXPECT_EQ(SIGBUS, signal_of(self->untouched + SIZE - 1));
	expect_no_new_users();
	/* It is the driver's again, whose mapping says the same. */
	EXPECT_EQ(SIGBUS, signal_of(self->addr));
}

/* It was promised that the memory stays, and it does. */
TEST_F(taken, away_is_left_to_the_device_that_uses_it)
{
	unsigned char *seen = malloc(SIZE);

	take_away();
	EXPECT_SOON(SIGBUS, signal_of(self->view));
	EXPECT_EQ(1, test_query(self->dmabuf).mappings);
	test_importer_read(self->user, 0, seen, SIZE);
	EXPECT_EQ(-1, first_difference(seen, SIZE, 1));
	fill(seen, SIZE, 2);
	test_importer_write(self->user, 0, seen, SIZE);
	test_importer_unmap(self->user);
	memset(seen, 0, SIZE);
	test_carveout_read(self->region.region, OFFSET, seen, SIZE);
	EXPECT_EQ(-1, first_difference(seen, SIZE, 2));
	EXPECT_EQ(-ENODEV, _test_importer_map(self->user, IMPORTER_TO_DEVICE));
	free(seen);
}

/* The driver may go, also while devices and programs hold the dma-buf. */
TEST_F(taken, away_holds_the_driver_no_more)
{
	long users;

	take_away();
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	users = read_number(STAND_IN_USERS);
	ASSERT_EQ(0, close(self->file));
	self->file = -1;
	EXPECT_SOON(users - 1, read_number(STAND_IN_USERS));
	EXPECT_EQ(TAKEN, test_query_state(self->dmabuf));
	EXPECT_EQ(1, test_query(self->dmabuf).mappings);
}

/* An administrator finds it done, and is told who is left. */
TEST_F(taken, away_may_be_revoked_as_well)
{
	struct vmemexp_revoke cmd;

	take_away();
	cmd = test_revoke(self->dmabuf);
	EXPECT_EQ(1, cmd.mappings);
	EXPECT_EQ(TAKEN, cmd.state & ~(unsigned int)VMEMEXP_STATE_NO_PAGES);
	EXPECT_EQ(SIGBUS, signal_of(self->view));
	expect_no_new_users();
	test_importer_unmap(self->user);
	EXPECT_EQ(0, test_revoke(self->dmabuf).mappings);
}

/* The same if the exporter has unmapped the memory. */
TEST_F(taken, away_after_the_exporter_unmapped_it_is_not_noticed)
{
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	take_away();
	/* Without a mapping, no notifier is called. The carve-out itself stays where it is. */
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE, test_query_state(self->dmabuf));
	test_contents(self->dmabuf, SIZE, 1);
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
}

TEST_F(taken, away_and_mapped_anew_may_be_exported_anew)
{
	int again;

	take_away();
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	close(self->file);
	self->file = open_stand_in(self->region.region, CARVEOUT_CACHED, variant->how);
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
	fill(self->addr, SIZE, 5);
	again = test_export(self->addr, SIZE, O_RDWR);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(again));
	test_contents(again, SIZE, 5);
	EXPECT_EQ(TAKEN, test_query_state(self->dmabuf));
	expect_no_new_users();
	close(again);
}

/* The range is what was exported, not what is in its place. */
TEST_F(taken, away_of_what_is_mapped_there_instead_is_not_noticed)
{
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	map_file(self->addr, SIZE, MAP_SHARED, self->file, OFFSET + SIZE);
	fill(self->addr, SIZE, 2);
	take_away();
	EXPECT_EQ(SIGBUS, signal_of(self->addr));
	expect_only_stale();
}

/* ---- ... when the exporter has unmapped some of it ---- */

FIXTURE(rest)
{
	int fd;
	struct test_state before;
	struct old_list old;
	struct carveout_info region;
	int file;
	unsigned char *addr;
	int dmabuf;
	unsigned char *view;
	unsigned char *untouched;
	int session;
	int user;
};

/*
 * Mapped by faults, page by page: of what is mapped at once, x86 keeps a record that
 * does not bear that anything but its end is unmapped.
 */
FIXTURE_VARIANT(rest)
{
	unsigned int sort;
};

FIXTURE_VARIANT_ADD(rest, with_pages) {
	.sort = WITH_PAGES,
};

FIXTURE_VARIANT_ADD(rest, without_pages) {
	.sort = WITHOUT_PAGES,
};

FIXTURE_VARIANT_ADD(rest, system_ram) {
	.sort = SYSTEM_RAM,
};

FIXTURE_SETUP(rest)
{
	set_up_taken(CARVEOUT_HOW_FAULT);
}

FIXTURE_TEARDOWN(rest)
{
	tear_down_taken();
}

#define unmap_pages(first, nr) do {					\
	ASSERT_EQ(0, munmap(self->addr + (first) * PAGE, (nr) * PAGE));	\
	expect_only_stale();						\
} while (0)

/* The driver takes away what is left of the mapping. */
#define expect_taken() do {						\
	take_away();							\
	EXPECT_EQ(TAKEN, test_query_state(self->dmabuf));		\
	EXPECT_SOON(SIGBUS, signal_of(self->view));			\
	EXPECT_EQ(SIGBUS, signal_of(self->view + SIZE - 1));		\
	EXPECT_EQ(SIGBUS, signal_of(self->untouched));			\
	expect_no_new_users();						\
} while (0)

TEST_F(rest, behind_a_page_that_was_unmapped_is_noticed)
{
	unmap_pages(0, 1);
	expect_taken();
}

TEST_F(rest, before_a_page_that_was_unmapped_is_noticed)
{
	unmap_pages(PAGES - 1, 1);
	expect_taken();
}

TEST_F(rest, around_a_page_that_was_unmapped_is_noticed)
{
	unmap_pages(3, 1);
	expect_taken();
}

TEST_F(rest, around_pages_that_were_unmapped_is_noticed)
{
	unmap_pages(2, 1);
	unmap_pages(5, 1);
	expect_taken();
}

TEST_F(rest, that_is_a_single_page_is_noticed)
{
	unmap_pages(9, PAGES - 9);
	unmap_pages(0, 8);
	expect_taken();
}

/* In whatever order it goes, none is left in the end. */
TEST_F(rest, that_is_nothing_is_not_noticed)
{
	unmap_pages(6, 2);
	unmap_pages(8, 3);
	unmap_pages(4, 2);
	unmap_pages(0, 4);
	unmap_pages(11, PAGES - 11);
	map_file(self->addr, SIZE, MAP_SHARED, self->file, OFFSET + SIZE);
	fill(self->addr, SIZE, 2);
	take_away();
	EXPECT_EQ(SIGBUS, signal_of(self->addr));
	expect_only_stale();
}

TEST_F(rest, is_noticed_and_what_is_mapped_in_the_gap_is_not)
{
	int other = open_stand_in(self->region.region, CARVEOUT_CACHED, CARVEOUT_HOW_FAULT);

	unmap_pages(3, 2);
	map_file(self->addr + 3 * PAGE, 2 * PAGE, MAP_SHARED, other, OFFSET + SIZE);
	fill(self->addr + 3 * PAGE, 2 * PAGE, 2);
	ASSERT_EQ(0, ioctl(other, CARVEOUT_IOC_TAKE_AWAY));
	EXPECT_EQ(SIGBUS, signal_of(self->addr + 3 * PAGE));
	expect_only_stale();
	expect_taken();
	close(other);
}

/*
 * Whatever becomes of memory that the program has in the gaps, and in whichever order
 * they came about.
 */
TEST_F(rest, is_not_what_happens_to_other_memory_in_the_gaps)
{
	unmap_pages(0, 1);
	unmap_pages(3, 1);
	unmap_pages(1, 1);
	unmap_pages(7, 2);
	for (unsigned int i = 0; i < PAGES; i++) {
		if (i > 1 && i != 3 && i != 7 && i != 8)
			continue;
		ASSERT_EQ(self->addr + i * PAGE,
			  mmap(self->addr + i * PAGE, PAGE, RW,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		self->addr[i * PAGE] = 7;
		ASSERT_EQ(0, madvise(self->addr + i * PAGE, PAGE, MADV_DONTNEED));
		EXPECT_EQ(0, self->addr[i * PAGE]);
		expect_only_stale();
	}
	expect_taken();
}

/* ---- ... while it is exported ---- */

FIXTURE(taking)
{
	int fd;
	struct test_state before;
	struct old_list old;
	struct carveout_info region;
};

/*
 * The driver takes a while to take away @size bytes, of which the last page is exported
 * over and over meanwhile: the more, the longer.
 */
FIXTURE_VARIANT(taking)
{
	unsigned int how;
	size_t size;
	unsigned int rounds;
};

FIXTURE_VARIANT_ADD(taking, much_that_was_mapped_at_mmap) {
	.how = CARVEOUT_HOW_REMAP, .size = 512UL << 20, .rounds = 8,
};

FIXTURE_VARIANT_ADD(taking, less_that_was_mapped_at_mmap) {
	.how = CARVEOUT_HOW_REMAP, .size = 64UL << 20, .rounds = 16,
};

FIXTURE_VARIANT_ADD(taking, what_was_mapped_by_faults) {
	.how = CARVEOUT_HOW_FAULT, .size = 64UL << 20, .rounds = 8,
};

FIXTURE_SETUP(taking)
{
	struct carveout_info region;
	int dmabuf;

	skip_without_carveout();
	test_setup();
	save_list();
	/* The largest, where no mapping of another file is in the way. */
	for (unsigned int i = 0; !_test_carveout_info(i, &region); i++)
		if (region.size > self->region.size)
			self->region = region;
	ASSERT_NE(0, self->region.size);
	list(self->region.base, self->region.size);
	/* The address space has notifiers from here on. */
	dmabuf = test_export(map_anon(PAGE), PAGE, O_RDWR);
	close(dmabuf);
}

FIXTURE_TEARDOWN(taking)
{
	restore_list();
	test_teardown();
}

struct taking {
	int file;
	bool begin, done;
};

static void *take_away_when_told(void *arg)
{
	struct taking *t = arg;

	while (!__atomic_load_n(&t->begin, __ATOMIC_ACQUIRE))
		;
	ioctl(t->file, CARVEOUT_IOC_TAKE_AWAY);
	__atomic_store_n(&t->done, true, __ATOMIC_RELEASE);
	return NULL;
}

#define MAX_TAKEN	800

/* All that were exported before are revoked when the driver's call has returned. */
TEST_F(taking, leaves_no_buffer_alive)
{
	size_t size = variant->size < self->region.size ? variant->size : self->region.size;
	unsigned int exported = 0;

	for (unsigned int round = 0; round < variant->rounds; round++) {
		int file = open_stand_in(self->region.region, CARVEOUT_CACHED, variant->how);
		unsigned char *addr = map_file(NULL, size, MAP_SHARED, file, 0);
		struct taking t = { .file = file };
		int fds[MAX_TAKEN + 1], nr = 0, ret = 0;
		pthread_t thread;

		if (variant->how == CARVEOUT_HOW_FAULT)
			for (size_t at = 0; at < size; at += PAGE)
				((volatile unsigned char *)addr)[at] = 1;
		ASSERT_EQ(0, pthread_create(&thread, NULL, take_away_when_told, &t));
		while (nr <= MAX_TAKEN && !ret) {
			bool done = __atomic_load_n(&t.done, __ATOMIC_ACQUIRE);
			struct vmemexp_export cmd = export_args(addr + size - PAGE, PAGE,
								O_RDWR | O_CLOEXEC);

			/* The driver has not got to run for long. */
			if (nr == MAX_TAKEN && !done) {
				sched_yield();
				continue;
			}
			ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
			if (!ret)
				fds[nr++] = cmd.fd;
			else if (ret == -EAGAIN && !done)
				ret = 0;
			/* It goes on while some are exported already. */
			if (nr == 10 + (int)round)
				__atomic_store_n(&t.begin, true, __ATOMIC_RELEASE);
		}
		pthread_join(thread, NULL);
		/* Since there is nothing any more. */
		EXPECT_EQ(-EFAULT, ret);
		for (int i = 0; i < nr; i++) {
			EXPECT_EQ(TAKEN, test_query_state(fds[i])) {
				TH_LOG("round %u, buffer %d of %d", round, i, nr);
			}
			EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, RW, MAP_SHARED, fds[i], 0));
			close(fds[i]);
		}
		exported += nr;
		munmap(addr, size);
		close(file);
	}
	TH_LOG("%u buffers in %u rounds", exported, variant->rounds);
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
	map_file(self->addr + (offset), length, MAP_SHARED, self->file,	\
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

	map_file(self->addr, HUGE_PAGE, MAP_SHARED, self->file, 3 * HUGE_PAGE);
	map_file(self->addr + HUGE_PAGE, 2 * HUGE_PAGE, MAP_SHARED, self->file, HUGE_PAGE);
	dmabuf = test_export_cmd(&cmd);
	query = test_query(dmabuf);
	EXPECT_EQ(2, query.nr_extents);
	EXPECT_EQ(HUGE_PAGE, query.min_extent);
	EXPECT_EQ(2 * HUGE_PAGE, query.max_extent);
	memcpy(seen, self->expect + 2 * HUGE_PAGE, HUGE_PAGE);
	memcpy(seen + HUGE_PAGE, self->expect, 2 * HUGE_PAGE);
	view = map_file(NULL, 3 * HUGE_PAGE, MAP_SHARED, dmabuf, 0);
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
	view = map_file(NULL, ALL, MAP_SHARED, dmabuf, 0);
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
	EXPECT_SOON(SIGBUS, signal_of(view));				\
	EXPECT_SOON(SIGBUS, signal_of((view) + (length) - 1));		\
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
	whole_view = map_file(NULL, ALL, MAP_SHARED, whole, 0);
	view = map_file(NULL, length, MAP_SHARED, part, 0);
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
	view = map_file(NULL, ALL, MAP_SHARED, dmabuf, 0);
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

FIXTURE(exporter)
{
	int fd;
	struct test_state before;
	struct old_list old;
};

FIXTURE_VARIANT(exporter)
{
	bool exec;
};

FIXTURE_VARIANT_ADD(exporter, that_exits) {
};

FIXTURE_VARIANT_ADD(exporter, that_calls_exec) {
	.exec = true,
};

FIXTURE_SETUP(exporter)
{
	struct carveout_info region;

	skip_without_importer();
	skip_without_carveout();
	ASSERT_EQ(0, _test_carveout_info(REGION, &region));
	test_setup();
	save_list();
	list(region.base, region.size);
}

FIXTURE_TEARDOWN(exporter)
{
	restore_list();
	test_teardown();
}

TEST_F(exporter, leaves_the_buffer_to_others)
{
	struct carveout_setup setup = {
		.region = REGION,
		.cache = CARVEOUT_CACHED,
		.how = CARVEOUT_HOW_REMAP,
	};
	int sock[2], dmabuf;
	pid_t child;
	char byte;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				sock));
	child = fork_child();
	if (!child) {
		int file = _test_carveout_open(&setup);
		unsigned char *addr = mmap(NULL, SIZE, RW, MAP_SHARED, file,
					   OFFSET);
		struct vmemexp_export cmd = export_args(addr, SIZE, O_RDWR |
							O_CLOEXEC);

		CHECK(addr != MAP_FAILED);
		fill(addr, SIZE, 1);
		CHECK(!_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
		CHECK(!send_fd(sock[1], cmd.fd));
		/* Until the parent has looked. */
		CHECK(read(sock[1], &byte, 1) == 1);
		if (variant->exec)
			execl("/bin/sh", "sh", "-c", "exit 0", NULL);
		_exit(variant->exec ? KSFT_FAIL : KSFT_PASS);
	}
	dmabuf = receive_fd(sock[0]);
	ASSERT_LE(0, dmabuf);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query_state(dmabuf));
	ASSERT_EQ(1, write(sock[0], "x", 1));
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE,
		  test_query_state(dmabuf));
	test_contents(dmabuf, SIZE, 1);
	check_other_processor(REGION, dmabuf);
	close(dmabuf);
	close(sock[0]);
	close(sock[1]);
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
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->file,
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

/* ---- ranges that are a dma-buf's mapping already ---- */

FIXTURE(passthrough)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *addr;	/* SIZE bytes, with contents 1 */
};

FIXTURE_VARIANT(passthrough)
{
	int (*make)(size_t size);
	const char *exporter;
	bool own;
};

static int make_own_dmabuf(size_t size)
{
	struct vmemexp_export cmd = export_args(map_anon(size), size,
						O_RDWR | O_CLOEXEC);
	int device = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	int ret = _test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd);

	close(device);
	return ret ? -1 : cmd.fd;
}

FIXTURE_VARIANT_ADD(passthrough, own) {
	.make = make_own_dmabuf, .exporter = "vmemexp", .own = true,
};

FIXTURE_VARIANT_ADD(passthrough, udmabuf) {
	.make = make_udmabuf, .exporter = "/dev/udmabuf",
};

FIXTURE_VARIANT_ADD(passthrough, dma_heap) {
	.make = make_heap_dmabuf, .exporter = "/dev/dma_heap/system",
};

FIXTURE_SETUP(passthrough)
{
	int probe = variant->make(SIZE);

	if (probe < 0)
		SKIP(return, "this kernel has no %s", variant->exporter);
	close(probe);
	test_setup();
	self->dmabuf = variant->make(SIZE);
	ASSERT_LE(0, self->dmabuf);
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);
	fill(self->addr, SIZE, 1);
}

FIXTURE_TEARDOWN(passthrough)
{
	munmap(self->addr, SIZE);
	close(self->dmabuf);
	test_teardown();
}

static bool is_same_file(int fd, int other)
{
	struct stat stat, other_stat;

	return !fstat(fd, &stat) && !fstat(other, &other_stat) &&
	       stat.st_dev == other_stat.st_dev &&
	       stat.st_ino == other_stat.st_ino;
}

/* Export @cmd, which must give the dma-buf @original back. */
static int __pass_through(struct __test_metadata *_metadata, int fd,
			  int original, bool own, struct vmemexp_export *cmd)
{
	ASSERT_EQ(0, _test_ioctl(fd, VMEMEXP_IOC_EXPORT, cmd)) {
		TH_LOG("reason %u, address %#llx", cmd->err_reason,
		       (unsigned long long)cmd->err_addr);
	}
	EXPECT_TRUE(is_same_file(original, cmd->fd));
	EXPECT_NE(original, cmd->fd);
	EXPECT_EQ(SIZE, cmd->dmabuf_size);
	EXPECT_EQ(VMEMEXP_MEMORY_DMABUF, cmd->memory & VMEMEXP_MEMORY_DMABUF);
	EXPECT_EQ(own, cmd->nr_extents != 0);
	EXPECT_EQ(VMEMEXP_REASON_NONE, cmd->err_reason);
	EXPECT_EQ(0, cmd->err_addr);
	return cmd->fd;
}

#define pass_through(cmd) \
	__pass_through(_metadata, self->fd, self->dmabuf, variant->own, cmd)

TEST_F(passthrough, gives_back_the_very_same_dmabuf)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	unsigned char *view;
	int again = pass_through(&cmd);

	EXPECT_EQ(0, cmd.offset);
	/* It is as good as the one that the program had. */
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	ASSERT_EQ(0, close(self->dmabuf));
	self->dmabuf = -1;
	view = map_file(NULL, SIZE, MAP_SHARED, again, 0);
	EXPECT_EQ(-1, first_difference(view, SIZE, 1));
	munmap(view, SIZE);
	close(again);
}

TEST_F(passthrough, says_where_the_range_lies)
{
	struct vmemexp_export cmd = export_args(self->addr + 3 * PAGE,
						2 * PAGE, O_RDWR);
	int again = pass_through(&cmd);
	unsigned char *view;

	EXPECT_EQ(3 * PAGE, cmd.offset);
	view = map_file(NULL, 2 * PAGE, MAP_SHARED, again, cmd.offset);
	view[PAGE]++;
	EXPECT_EQ(view[PAGE], self->addr[4 * PAGE]);
	munmap(view, 2 * PAGE);
	close(again);
}

TEST_F(passthrough, counts_from_the_begin_of_the_dmabuf)
{
	const size_t skipped = 5 * PAGE;
	unsigned char *part = map_file(NULL, SIZE - skipped, MAP_SHARED,
				       self->dmabuf, skipped);
	struct vmemexp_export cmd = export_args(part + 2 * PAGE, PAGE, O_RDWR);
	int again = pass_through(&cmd);
	unsigned char *view = map_file(NULL, SIZE, MAP_SHARED, again, 0);

	EXPECT_EQ(skipped + 2 * PAGE, cmd.offset);
	part[2 * PAGE]++;
	EXPECT_EQ(part[2 * PAGE], view[cmd.offset]);
	munmap(view, SIZE);
	munmap(part, SIZE - skipped);
	close(again);
}

TEST_F(passthrough, opens_the_file_descriptor_as_asked)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	int plain = pass_through(&cmd), closing;

	cmd = export_args(self->addr, SIZE, O_RDWR | O_CLOEXEC);
	closing = pass_through(&cmd);
	EXPECT_EQ(0, fcntl(plain, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(closing, F_GETFD));
	close(plain);
	close(closing);
}

/* The file is what it is: it cannot be opened anew with less. */
TEST_F(passthrough, does_not_turn_a_writable_file_into_a_read_only_one)
{
	test_err_export(EACCES, VMEMEXP_REASON_ACCESS, self->addr, self->addr,
			SIZE, O_RDONLY);
	ASSERT_EQ(0, mprotect(self->addr, SIZE, PROT_READ));
	test_err_export(EACCES, VMEMEXP_REASON_ACCESS, self->addr, self->addr,
			SIZE, O_RDONLY);
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SIZE, O_RDWR);
}

TEST_F(passthrough, honours_unaligned)
{
	struct vmemexp_export cmd = export_args(self->addr + PAGE + 100, 50,
						O_RDWR);

	test_err_export_cmd(EINVAL, VMEMEXP_REASON_ALIGNMENT, cmd.vaddr, &cmd);
	cmd = export_args(self->addr + PAGE + 100, 50, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	close(pass_through(&cmd));
	EXPECT_EQ(PAGE + 100, cmd.offset);
}

/* For the buffer of another driver, that is not known. */
TEST_F(passthrough, is_contiguous_only_if_that_is_known)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);

	bool contiguous;

	close(pass_through(&cmd));
	contiguous = cmd.nr_extents == 1;
	cmd = export_args(self->addr, SIZE, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	if (contiguous) {
		close(pass_through(&cmd));
		return;
	}
	if (!variant->own) {
		test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
				    cmd.vaddr, &cmd);
		return;
	}
	EXPECT_EQ(-ERANGE, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
	EXPECT_EQ(VMEMEXP_REASON_NOT_CONTIGUOUS, cmd.err_reason);
}

TEST_F(passthrough, leaves_the_dmabuf_of_another_driver_alone)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	int expected = variant->own ? 0 : -EINVAL;
	int again = pass_through(&cmd);
	struct vmemexp_query query = query_args(again);

	EXPECT_EQ(expected, _test_ioctl(self->fd, VMEMEXP_IOC_QUERY, &query));
	EXPECT_EQ(expected, _test_sync(self->fd, again, VMEMEXP_SYNC_RW, 0,
				       PAGE));
	close(again);
}

TEST_F(passthrough, of_a_kind_that_is_not_allowed_is_refused)
{
	char allow[128];

	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, allow, sizeof(allow)));
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW,
				"anon,shmem,hugetlb,file,driver,pfnmap"));
	test_err_export(EPERM, VMEMEXP_REASON_KIND, self->addr, self->addr,
			SIZE, O_RDWR);
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, allow));
}

TEST_F(passthrough, pins_nothing_and_needs_no_privilege)
{
	struct rlimit nothing = { .rlim_max = RLIM_INFINITY };
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	long accounted = accounted_pages(), pins = pinned_pages();
	int again;

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &nothing));
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	again = pass_through(&cmd);
	EXPECT_EQ(accounted, accounted_pages());
	EXPECT_EQ(pins, get_state().pins);
	close(again);
	ASSERT_EQ(0, setresuid(0, 0, 0));
}

TEST_F(passthrough, may_be_mapped_in_parts_that_follow_one_another)
{
	unsigned char *parts = map_anon(SIZE);
	struct vmemexp_export cmd = export_args(parts + HALF - PAGE, 2 * PAGE,
						O_RDWR);

	map_file(parts, HALF, MAP_SHARED, self->dmabuf, 0);
	map_file(parts + HALF, HALF, MAP_SHARED, self->dmabuf, HALF);
	close(pass_through(&cmd));
	EXPECT_EQ(HALF - PAGE, cmd.offset);
	/* The same part once more. */
	map_file(parts + HALF, HALF, MAP_SHARED, self->dmabuf, 0);
	test_err_export(EINVAL, VMEMEXP_REASON_MIXED, parts + HALF, parts, SIZE,
			O_RDWR);
	munmap(parts, SIZE);
}

TEST_F(passthrough, ends_where_its_mapping_ends)
{
	ASSERT_EQ(0, munmap(self->addr + HALF, HALF));
	test_err_export(EFAULT, VMEMEXP_REASON_NOT_MAPPED, self->addr + HALF,
			self->addr, SIZE, O_RDWR);
}

FIXTURE(read_only_dmabuf)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *addr;
};

FIXTURE_SETUP(read_only_dmabuf)
{
	test_setup();
	self->dmabuf = test_export(map_anon(SIZE), SIZE, O_RDONLY);
	self->addr = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->dmabuf, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->addr);
}

FIXTURE_TEARDOWN(read_only_dmabuf)
{
	munmap(self->addr, SIZE);
	close(self->dmabuf);
	test_teardown();
}

TEST_F(read_only_dmabuf, is_passed_through_for_reading_only)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDONLY);

	__pass_through(_metadata, self->fd, self->dmabuf, true, &cmd);
	EXPECT_EQ(O_RDONLY, fcntl(cmd.fd, F_GETFL) & O_ACCMODE);
	close(cmd.fd);
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SIZE, O_RDWR);
}

FIXTURE(hidden_dmabuf)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *addr;
};

FIXTURE_SETUP(hidden_dmabuf)
{
	int probe;

	system("modprobe -q vgem");
	probe = make_vgem_dmabuf(SIZE);
	if (probe < 0)
		SKIP(return, "the kernel has no vgem");
	close(probe);
	test_setup();
	self->dmabuf = make_vgem_dmabuf(SIZE);
	ASSERT_LE(0, self->dmabuf);
	self->addr = map_file(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);
}

FIXTURE_TEARDOWN(hidden_dmabuf)
{
	munmap(self->addr, SIZE);
	close(self->dmabuf);
	test_teardown();
}

/*
 * Drivers of the DRM may hide an offset of their own in that of the mapping, so the offset in the
 * dma-buf is unknown. The rules for page frames apply.
 */
TEST_F(hidden_dmabuf, does_not_show_which_part_is_mapped_and_is_refused)
{
	/* 45d9c8dde4cd (v5.16) made page frames of it; before, it was a file of shmem. */
	if (!kernel_at_least(5, 16)) {
		close(test_export(self->addr, SIZE, O_RDWR));
		return;
	}
	test_err_export(EPERM, VMEMEXP_REASON_RAM, self->addr, self->addr,
			SIZE, O_RDWR);
	test_err_export(EPERM, VMEMEXP_REASON_RAM, self->addr, self->addr,
			SIZE, O_RDONLY);
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

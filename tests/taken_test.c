// SPDX-License-Identifier: GPL-2.0
/*
 * Verify what a buffer of page frames does when their mapping changes, their exporter ends, or
 * their driver takes them away. revoke_test has what an administrator takes away, and split_test
 * mappings that the kernel splits.
 *
 * The stand-in's carve-out is listed for all of these tests.
 */
#include <pthread.h>
#include <signal.h>

#include "lib/signals.h"
#include "lib/vmemexp_carveout.h"

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
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
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
	unsigned char *view = test_mmap(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);
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

/* ---- ... when its exporter ends ---- */

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

/* ---- what becomes of a buffer when its driver takes the page frames away ---- */

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
	.sort = FRAMES_WITH_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(taken, with_pages_by_fault) {
	.sort = FRAMES_WITH_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(taken, without_pages_at_mmap) {
	.sort = FRAMES_WITHOUT_PAGES, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(taken, without_pages_by_fault) {
	.sort = FRAMES_WITHOUT_PAGES, .how = CARVEOUT_HOW_FAULT,
};

FIXTURE_VARIANT_ADD(taken, system_ram_at_mmap) {
	.sort = FRAMES_OF_RAM, .how = CARVEOUT_HOW_REMAP,
};

FIXTURE_VARIANT_ADD(taken, system_ram_by_fault) {
	.sort = FRAMES_OF_RAM, .how = CARVEOUT_HOW_FAULT,
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
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, OFFSET); \
	catch_signals();						\
	fill(self->addr, SIZE, 1);					\
	self->dmabuf = test_export(self->addr, SIZE, O_RDWR);		\
	self->view = test_mmap(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);	\
	EXPECT_EQ(-1, first_difference(self->view, SIZE, 1));		\
	self->untouched = test_mmap(NULL, SIZE, MAP_SHARED, self->dmabuf, 0); \
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

/* The dma-buf lives on, with all that it had. */
#define expect_only_stale() do {					\
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE,		\
		  test_query_state(self->dmabuf));			\
	EXPECT_EQ(-1, first_difference(self->view, SIZE, 1));		\
	test_contents(self->dmabuf, SIZE, 1);				\
} while (0)

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
	EXPECT_EQ(SIGBUS, signal_of(self->untouched, false));
}

TEST_F(taken, away_is_gone_from_mappings_of_the_dmabuf)
{
	take_away();
	EXPECT_SOON(SIGBUS, signal_of(self->view, false));
	EXPECT_EQ(SIGBUS, signal_of(self->view + SIZE - 1, false));
	EXPECT_EQ(SIGBUS, signal_of(self->untouched + SIZE - 1, false));
	expect_no_new_users();
	/* It is the driver's again, whose mapping says the same. */
	EXPECT_EQ(SIGBUS, signal_of(self->addr, false));
}

/* It was promised that the memory stays, and it does. */
TEST_F(taken, away_is_left_to_the_device_that_uses_it)
{
	unsigned char *seen = malloc(SIZE);

	take_away();
	EXPECT_SOON(SIGBUS, signal_of(self->view, false));
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
	EXPECT_EQ(SIGBUS, signal_of(self->view, false));
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
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
}

TEST_F(taken, away_and_mapped_anew_may_be_exported_anew)
{
	int again;

	take_away();
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	close(self->file);
	self->file = open_stand_in(self->region.region, CARVEOUT_CACHED, variant->how);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->file, OFFSET);
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
	test_mmap(self->addr, SIZE, MAP_SHARED, self->file, OFFSET + SIZE);
	fill(self->addr, SIZE, 2);
	take_away();
	EXPECT_EQ(SIGBUS, signal_of(self->addr, false));
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
	.sort = FRAMES_WITH_PAGES,
};

FIXTURE_VARIANT_ADD(rest, without_pages) {
	.sort = FRAMES_WITHOUT_PAGES,
};

FIXTURE_VARIANT_ADD(rest, system_ram) {
	.sort = FRAMES_OF_RAM,
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
	EXPECT_SOON(SIGBUS, signal_of(self->view, false));			\
	EXPECT_EQ(SIGBUS, signal_of(self->view + SIZE - 1, false));		\
	EXPECT_EQ(SIGBUS, signal_of(self->untouched, false));			\
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
	test_mmap(self->addr, SIZE, MAP_SHARED, self->file, OFFSET + SIZE);
	fill(self->addr, SIZE, 2);
	take_away();
	EXPECT_EQ(SIGBUS, signal_of(self->addr, false));
	expect_only_stale();
}

TEST_F(rest, is_noticed_and_what_is_mapped_in_the_gap_is_not)
{
	int other = open_stand_in(self->region.region, CARVEOUT_CACHED, CARVEOUT_HOW_FAULT);

	unmap_pages(3, 2);
	test_mmap(self->addr + 3 * PAGE, 2 * PAGE, MAP_SHARED, other, OFFSET + SIZE);
	fill(self->addr + 3 * PAGE, 2 * PAGE, 2);
	ASSERT_EQ(0, ioctl(other, CARVEOUT_IOC_TAKE_AWAY));
	EXPECT_EQ(SIGBUS, signal_of(self->addr + 3 * PAGE, false));
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
		unsigned char *addr = test_mmap(NULL, size, MAP_SHARED, file, 0);
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

TEST_HARNESS_MAIN

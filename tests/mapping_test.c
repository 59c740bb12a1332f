// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of a dma-buf of huge pages: where the kernel can mark huge entries so that it
 * leaves the pages behind them alone, and the addresses go together, the page tables have
 * huge entries. Whatever they have, a mapping shows the same bytes and gives the same
 * access. How a mapping is taken away is revoke_test's.
 */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#include "lib/vmemexp_memory.h"

#define SIZE		(4 * HUGE_PAGE)
#define SHIFT		(16 * PAGE)

static int set_thp_disabled(bool disabled)
{
	return prctl(PR_SET_THP_DISABLE, disabled, 0, 0, 0);
}

/* Can the kernel mark a huge entry? 32-bit arm cannot, and no kernel could before v6.12. */
static bool has_huge_entries(void)
{
#ifdef __arm__
	return false;
#else
	return kernel_at_least(6, 12);
#endif
}

static void touch(const volatile unsigned char *view, size_t size)
{
	for (size_t at = 0; at < size; at += PAGE)
		(void)view[at];
}

/* How a child ends that reads or writes this byte. */
static int end_of(volatile unsigned char *byte, bool write)
{
	pid_t child = fork_child();

	if (!child) {
		if (write)
			*byte = 0x5e;
		else
			(void)*byte;
		_exit(0);
	}
	return wait_for_child(child);
}

/* Where the last mapping of a dma-buf is: @size bytes, of which it takes a part. */
struct room {
	unsigned char *start;
	size_t size;
};

/*
 * Maps @fd where address @like would lie in its huge page, between pages without access,
 * and instead of what was mapped before.
 */
static unsigned char *__map_like(struct __test_metadata *_metadata, struct room *room, int fd,
				 size_t size, int prot, off_t offset, const unsigned char *like)
{
	unsigned char *view;

	munmap(room->start, room->size);
	room->size = size + 2 * HUGE_PAGE;
	room->start = map(room->size, PROT_NONE, ANON | MAP_NORESERVE, -1);
	view = room->start + (((uintptr_t)like - (uintptr_t)room->start) & (HUGE_PAGE - 1));
	ASSERT_EQ(view, mmap(view, size, prot, MAP_SHARED | MAP_FIXED, fd, offset));
	return view;
}

#define map_like(fd, size, prot, offset, like) \
	__map_like(_metadata, &self->room, fd, size, prot, offset, like)

FIXTURE(mapping)
{
	int fd;
	struct test_state before;
	struct memory m;
	unsigned char *source;	/* all but the first and the last part of the memory */
	size_t size;
	int dmabuf;
	struct room room;
};

FIXTURE_VARIANT(mapping)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	size_t skip;		/* the buffer starts and ends so far inside of the memory */
};

FIXTURE_VARIANT_ADD(mapping, thp) {
	.make = make_thp, .skip = 0,
};

/* The range has a part of the first and of the last huge page. */
FIXTURE_VARIANT_ADD(mapping, part_of_thp) {
	.make = make_thp, .skip = SHIFT,
};

FIXTURE_SETUP(mapping)
{
	if (!has_thp())
		SKIP(return, "the kernel has no transparent huge pages");
	test_setup();
	self->m.size = SIZE;
	variant->make(_metadata, &self->m);
	self->source = self->m.addr + variant->skip;
	self->size = SIZE - 2 * variant->skip;
	fill(self->source, self->size, 1);
	self->dmabuf = test_export(self->source, self->size, O_RDWR);
	/* Take no page table twice for what both mappings need. */
	touch(self->source, self->size);
}

FIXTURE_TEARDOWN(mapping)
{
	munmap(self->room.start, self->room.size);
	close(self->dmabuf);
	munmap(self->m.addr, self->m.size);
	test_teardown();
}

TEST_F(mapping, of_huge_pages_needs_no_page_tables)
{
	/* The ends that are not whole need a table each. */
	long most = variant->skip ? 8 : 0, before, need;
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source);

	before = page_tables();
	touch(view, self->size);
	need = page_tables() - before;
	EXPECT_GE(has_huge_entries() ? most : 64, need);
	EXPECT_LE(has_huge_entries() ? 0 : 16, need);
	EXPECT_EQ(-1, first_difference(view, self->size, 1));
	fill(view, self->size, 2);
	EXPECT_EQ(-1, first_difference(self->source, self->size, 2));
}

TEST_F(mapping, at_other_addresses_has_small_entries)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source + PAGE);
	long before = page_tables();

	touch(view, self->size);
	EXPECT_LE(16, page_tables() - before);
	EXPECT_EQ(-1, first_difference(view, self->size, 1));
	fill(view, self->size, 2);
	EXPECT_EQ(-1, first_difference(self->source, self->size, 2));
}

TEST_F(mapping, of_a_part_shows_that_part)
{
	size_t offset = HUGE_PAGE + 3 * PAGE, size = self->size - offset - PAGE;
	unsigned char *view = map_like(self->dmabuf, size, RW, offset, self->source + offset);

	EXPECT_EQ(0, memcmp(view, self->source + offset, size));
	memset(view, 0x33, size);
	EXPECT_EQ(0, memcmp(view, self->source + offset, size));
	/* One page before and one behind are as they were. */
	fill(self->m.addr, SIZE, 1);
	memcpy(self->m.addr, self->source + offset - PAGE, PAGE);
	EXPECT_EQ(0, memcmp(self->m.addr, self->source + offset - PAGE, PAGE));
	EXPECT_EQ(128 + SIGSEGV, end_of(view + size, false));
	EXPECT_EQ(128 + SIGSEGV, end_of(view - 1, false));
}

/* A read comes first, or a write: the entry has to allow both. */
TEST_F(mapping, that_was_read_may_be_written)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source);

	touch(view, self->size);
	view[HUGE_PAGE] = 0x77;
	EXPECT_EQ(0x77, self->source[HUGE_PAGE]);

	view = map_like(self->dmabuf, self->size, RW, 0, self->source);
	view[HUGE_PAGE] = 0x78;
	EXPECT_EQ(0x78, view[HUGE_PAGE]);
	EXPECT_EQ(0x78, self->source[HUGE_PAGE]);
}

TEST_F(mapping, may_be_protected_in_part)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source);
	unsigned char *part = view + HUGE_PAGE + HUGE_PAGE / 2;

	fill(view, self->size, 3);
	ASSERT_EQ(0, mprotect(part, HUGE_PAGE, PROT_READ));
	EXPECT_EQ(-1, first_difference(view, self->size, 3));
	EXPECT_EQ(0, end_of(part - 1, true));
	EXPECT_EQ(128 + SIGSEGV, end_of(part, true));
	EXPECT_EQ(128 + SIGSEGV, end_of(part + HUGE_PAGE - 1, true));
	EXPECT_EQ(0, end_of(part + HUGE_PAGE, true));
	ASSERT_EQ(0, mprotect(part, HUGE_PAGE, RW));
	fill(view, self->size, 4);
	EXPECT_EQ(-1, first_difference(self->source, self->size, 4));

	/* And all of it, in whole huge entries. */
	ASSERT_EQ(0, mprotect(view, self->size, PROT_READ));
	EXPECT_EQ(128 + SIGSEGV, end_of(view + HUGE_PAGE, true));
	EXPECT_EQ(-1, first_difference(view, self->size, 4));
	ASSERT_EQ(0, mprotect(view, self->size, RW));
	fill(view, self->size, 5);
	EXPECT_EQ(-1, first_difference(self->source, self->size, 5));
}

TEST_F(mapping, may_be_unmapped_and_moved_in_part)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source);
	size_t hole = HUGE_PAGE + PAGE, rest = hole + HUGE_PAGE, size = self->size - rest;
	unsigned char *moved;

	touch(view, self->size);
	ASSERT_EQ(0, munmap(view + hole, HUGE_PAGE));
	EXPECT_EQ(128 + SIGSEGV, end_of(view + hole, false));
	EXPECT_EQ(0, memcmp(view, self->source, hole));
	EXPECT_EQ(0, memcmp(view + rest, self->source + rest, size));

	moved = mremap(view + rest, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
		       map(size, PROT_NONE, ANON, -1));
	ASSERT_NE(MAP_FAILED, (void *)moved);
	EXPECT_EQ(0, memcmp(moved, self->source + rest, size));
	memset(moved, 0x44, size);
	EXPECT_EQ(0, memcmp(moved, self->source + rest, size));
	munmap(moved, size);
}

TEST_F(mapping, is_inherited)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source);
	pid_t child;

	touch(view, self->size);
	child = fork_child();
	if (!child) {
		CHECK(first_difference(view, self->size, 1) == -1);
		fill(view, self->size, 2);
		_exit(KSFT_PASS);
	}
	ASSERT_EQ(KSFT_PASS, wait_for_child(child));
	EXPECT_EQ(-1, first_difference(view, self->size, 2));
	EXPECT_EQ(-1, first_difference(self->source, self->size, 2));
}

/* Nothing may take a reference to a page by way of the mapping. */
TEST_F(mapping, gives_its_pages_to_nobody)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source), byte;
	struct iovec iov = { view + HUGE_PAGE, PAGE }, local = { &byte, 1 };
	int ends[2];

	touch(view, self->size);
	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	EXPECT_EQ(-1, vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, process_vm_readv(getpid(), &local, 1, &iov, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	close(ends[0]);
	close(ends[1]);
}

TEST_F(mapping, for_reading_is_never_for_writing)
{
	int dmabuf = test_export(self->source, self->size, O_RDONLY);
	unsigned char *view = map_like(dmabuf, self->size, PROT_READ, 0, self->source);

	EXPECT_EQ(-1, first_difference(view, self->size, 1));
	EXPECT_EQ(-1, mprotect(view, self->size, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(128 + SIGSEGV, end_of(view + HUGE_PAGE, true));
	EXPECT_EQ(-1, first_difference(self->source, self->size, 1));
	munmap(view, self->size);
	close(dmabuf);
}

TEST_F(mapping, of_a_process_without_huge_pages_has_small_entries)
{
	unsigned char *view = map_like(self->dmabuf, self->size, RW, 0, self->source);
	long before = page_tables();

	ASSERT_EQ(0, set_thp_disabled(true));
	touch(view, self->size);
	EXPECT_LE(16, page_tables() - before);
	EXPECT_EQ(-1, first_difference(view, self->size, 1));
	ASSERT_EQ(0, set_thp_disabled(false));
	fill(view, self->size, 2);
	EXPECT_EQ(-1, first_difference(self->source, self->size, 2));
}

#define ROUNDS		200

struct toucher {
	pthread_barrier_t *round;
	unsigned char **view;
	size_t size;
};

static void *touch_rounds(void *arg)
{
	const struct toucher *t = arg;

	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(t->round);
		touch(*t->view, t->size);
		pthread_barrier_wait(t->round);
	}
	return NULL;
}

/* Some threads find that huge entries are allowed, and others at the same time do not. */
TEST_F(mapping, survives_entries_of_both_sorts_at_a_time)
{
	pthread_barrier_t round;
	unsigned char *view;
	struct toucher t = { &round, &view, self->size };
	pthread_t threads[3];

	ASSERT_EQ(0, pthread_barrier_init(&round, NULL, 4));
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, touch_rounds, &t));
	for (int i = 0; i < ROUNDS; i++) {
		view = map_like(self->dmabuf, self->size, RW, 0, self->source);
		pthread_barrier_wait(&round);
		for (int j = 0; j < 8; j++)
			set_thp_disabled(j % 2);
		set_thp_disabled(false);
		pthread_barrier_wait(&round);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&round);
	view = map_like(self->dmabuf, self->size, RW, 0, self->source);
	EXPECT_EQ(-1, first_difference(view, self->size, 1));
}

TEST_HARNESS_MAIN

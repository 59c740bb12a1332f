// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that may not stay where it is: pages of ZONE_MOVABLE are moved elsewhere when they are
 * exported, for as long as a dma-buf may live. (Those of a CMA are, too.) That fails while the page
 * has another user, be it another thread that exports it as well, or a read from a disk by
 * O_DIRECT. Such users go, and the export has to succeed.
 *
 * Memory becomes movable here by turning a block of it off, and on again as movable.
 */
#include "lib/vmemexp_memory.h"

#include <glob.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/uio.h>

#define MEMORY		"/sys/devices/system/memory"

#define NR_THREADS	4
/* An export that gives up fails in one of five of them, with four exports in each. */
#define ROUNDS		10
#define RANGE_PAGES	128UL
#define RANGE		(RANGE_PAGES * PAGE)

/* Since 5.13, long-term pins leave ZONE_MOVABLE. */
#define LEAVES_MOVABLE	kernel_at_least(5, 13)

/* ---- a block of movable memory ---- */

struct block {
	char path[64];
	uint64_t first, end;	/* page frames */
};

static int set_block(const struct block *block, const char *state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/state", block->path);
	return write_text(path, state);
}

/* The last of those that can be turned off. */
static bool find_block(struct block *block)
{
	unsigned long size, number, last = 0;
	char text[64];
	glob_t found;

	if (read_text(MEMORY "/block_size_bytes", text, sizeof(text)) < 0 ||
	    sscanf(text, "%lx", &size) != 1 ||
	    glob(MEMORY "/memory[0-9]*", 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc; i++)
		if (sscanf(found.gl_pathv[i], MEMORY "/memory%lu", &number) == 1 && number > last)
			last = number;
	globfree(&found);

	for (number = last; number; number--) {
		snprintf(block->path, sizeof(block->path), MEMORY "/memory%lu", number);
		block->first = (uint64_t)number * size / PAGE;
		block->end = block->first + size / PAGE;
		if (!set_block(block, "offline"))
			return true;
	}
	return false;
}

/* The memory of a test, and the threads at work on it. */
struct scene {
	int fd;
	struct test_state before;
	struct block block;
	bool shared;
	size_t moved;		/* pages that were in the block before they were exported */
	/* A thread that reads from the disk into @target. */
	int disk;
	pthread_t reader;
	pthread_mutex_t lock;	/* of what follows, and while it reads */
	unsigned char *target;
	unsigned int reads;
	bool stop;
};

FIXTURE(movable)
{
	struct scene scene;
};

FIXTURE_VARIANT(movable)
{
	bool shared;
};

FIXTURE_VARIANT_ADD(movable, private)
{
	.shared = false,
};

FIXTURE_VARIANT_ADD(movable, shared)
{
	.shared = true,
};

static void __set_up(struct __test_metadata *_metadata, struct scene *self, bool shared)
{
	test_setup();
	ASSERT_EQ(PAGE, page_size());
	ASSERT_TRUE(find_block(&self->block));
	ASSERT_EQ(0, set_block(&self->block, "online_movable"));
	self->shared = shared;
	self->disk = -1;
}

FIXTURE_SETUP(movable)
{
	if (access(MEMORY, F_OK))
		SKIP(return, "the kernel cannot turn off memory (CONFIG_MEMORY_HOTREMOVE)");
#ifdef __aarch64__
	SKIP(return, "the kernel cannot turn off memory that it was booted with");
#endif
	__set_up(_metadata, &self->scene, variant->shared);
}

/* Users of the block must be gone first. Some go a moment after they were closed. */
static void __tear_down(struct __test_metadata *_metadata, struct scene *self)
{
	int ret = -EBUSY;

	for (int ms = 0; ret && ms < RELEASE_TIMEOUT_MS; ms += 100) {
		ret = set_block(&self->block, "offline");
		if (ret)
			sleep_ms(100);
	}
	EXPECT_EQ(0, ret);
	EXPECT_EQ(0, set_block(&self->block, "online_kernel"));
	test_teardown();
	restore_system();
}

FIXTURE_TEARDOWN(movable)
{
	__tear_down(_metadata, &self->scene);
}

/* A test that has the scene for its "self". */
#define MOVABLE_TEST(name)						\
	static void name(struct __test_metadata *_metadata, struct scene *self); \
	TEST_F(movable, name)						\
	{								\
		name(_metadata, &self->scene);				\
	}								\
	static void name(struct __test_metadata *_metadata, struct scene *self)

/* Pages of the range that are in the block. */
static size_t __count_movable(struct __test_metadata *_metadata, const struct scene *self,
			      const unsigned char *range, size_t size)
{
	uint64_t *entries = read_pagemap(range, size);
	size_t count = 0;

	for (size_t i = 0; i < size / PAGE; i++) {
		uint64_t pfn = entries[i] & PAGEMAP_PFN;

		count += pfn >= self->block.first && pfn < self->block.end;
	}
	free(entries);
	return count;
}

#define count_movable(range, size)	__count_movable(_metadata, self, range, size)

/* Fresh memory: what the kernel gives first to programs is what can be moved. */
static unsigned char *__make_range(struct __test_metadata *_metadata, struct scene *self,
				   size_t size)
{
	int flags = MAP_ANONYMOUS | (self->shared ? MAP_SHARED : MAP_PRIVATE);
	unsigned char *range = map(size, RW, flags, -1);

	ASSERT_EQ(0, forbid_thp(range, size));
	fill(range, size, 1);
	self->moved += count_movable(range, size);
	return range;
}

#define make_range(size)	__make_range(_metadata, self, size)

/* ---- threads that export at the same time ---- */

struct exporter {
	int device;
	pthread_barrier_t *barrier;	/* none if it is alone */
	pthread_t thread;
	pid_t tid;
	struct vmemexp_export cmd;
	int ret;
};

static void *export_at_once(void *arg)
{
	struct exporter *e = arg;

	__atomic_store_n(&e->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	if (e->barrier)
		pthread_barrier_wait(e->barrier);
	e->ret = _test_ioctl(e->device, VMEMEXP_IOC_EXPORT, &e->cmd);
	return NULL;
}

static void __begin_export(struct __test_metadata *_metadata, struct scene *self,
			   struct exporter *e, pthread_barrier_t *barrier, void *range,
			   size_t size)
{
	*e = (struct exporter){
		.device = self->fd,
		.barrier = barrier,
		.cmd = export_args(range, size, O_RDWR),
	};
	ASSERT_EQ(0, pthread_create(&e->thread, NULL, export_at_once, e));
}

#define begin_export(e, barrier, range, size) \
	__begin_export(_metadata, self, e, barrier, range, size)

/* It has succeeded, and the dma-buf shows what the range shows, then and now. */
static void __check_export(struct __test_metadata *_metadata, struct exporter *e)
{
	unsigned char *view, *range = (void *)(uintptr_t)e->cmd.vaddr;

	ASSERT_EQ(0, e->ret) {
		TH_LOG("export: %s, reason %u, page %llu", strerror(-e->ret), e->cmd.err_reason,
		       (unsigned long long)(e->cmd.err_addr - e->cmd.vaddr) / PAGE);
	}
	view = map(e->cmd.length, PROT_READ, MAP_SHARED, e->cmd.fd);
	EXPECT_SAME(range, view, e->cmd.length);
	for (size_t at = 0; at < e->cmd.length; at += PAGE)
		range[at + 99]++;
	EXPECT_SAME(range, view, e->cmd.length);
	munmap(view, e->cmd.length);
	close(e->cmd.fd);
}

#define check_export(e)	__check_export(_metadata, e)

static void set_target(struct scene *self, unsigned char *target)
{
	pthread_mutex_lock(&self->lock);
	self->target = target;
	pthread_mutex_unlock(&self->lock);
}

/* One thread for each of @starts, all of which export RANGE from that page on. */
static void __export_once(struct __test_metadata *_metadata, struct scene *self,
			  const unsigned int *starts, unsigned int nr)
{
	size_t size = starts[nr - 1] * PAGE + RANGE;
	unsigned char *range = make_range(size);
	struct exporter exporters[NR_THREADS];
	pthread_barrier_t barrier;

	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, nr));
	set_target(self, range);
	for (unsigned int i = 0; i < nr; i++)
		begin_export(&exporters[i], &barrier, range + starts[i] * PAGE, RANGE);
	for (unsigned int i = 0; i < nr; i++)
		pthread_join(exporters[i].thread, NULL);
	set_target(self, NULL);
	if (LEAVES_MOVABLE)
		EXPECT_EQ(0, count_movable(range, size));
	for (unsigned int i = 0; i < nr; i++)
		check_export(&exporters[i]);
	pthread_barrier_destroy(&barrier);
	munmap(range, size);
}

static void __export_often(struct __test_metadata *_metadata, struct scene *self,
			   const unsigned int *starts, unsigned int nr)
{
	for (unsigned int round = 0; round < ROUNDS; round++) {
		__export_once(_metadata, self, starts, nr);
		ASSERT_EQ(0, _metadata->exit_code) {
			TH_LOG("round %u", round);
		}
	}
	/* It was about memory that had to be moved. */
	EXPECT_LT(ROUNDS * RANGE_PAGES / 2, self->moved);
}

#define export_often(starts)	__export_often(_metadata, self, starts, ARRAY_SIZE(starts))

/* It comes from elsewhere, and need not be moved then. */
MOVABLE_TEST(memory_is_not_taken_for_pages_that_the_export_brings_in)
{
	int flags = MAP_ANONYMOUS | (self->shared ? MAP_SHARED : MAP_PRIVATE);
	unsigned char *range = map(RANGE, RW, flags, -1);
	long moved = read_counter("/proc/vmstat", "pgmigrate_success");
	int dmabuf;

	ASSERT_EQ(0, forbid_thp(range, RANGE));
	/* By itself it would be there. */
	self->moved += count_movable(make_range(PAGE), PAGE);
	dmabuf = test_export(range, RANGE, O_RDWR);
	EXPECT_EQ(0, LEAVES_MOVABLE ? count_movable(range, RANGE) : 0);
	/* The kernel may move some for reasons of its own. */
	EXPECT_GT((long)(RANGE / PAGE / 4),
		  read_counter("/proc/vmstat", "pgmigrate_success") - moved);
	close(dmabuf);
	munmap(range, RANGE);
}

MOVABLE_TEST(memory_is_exported_by_threads_that_want_the_same)
{
	static const unsigned int starts[NR_THREADS] = { 0, 0, 0, 0 };

	export_often(starts);
}

MOVABLE_TEST(memory_is_exported_by_threads_that_want_parts_of_each_others)
{
	static const unsigned int starts[NR_THREADS] = { 0, 31, 62, 93 };

	export_often(starts);
}

MOVABLE_TEST(memory_is_exported_by_threads_each_of_which_has_its_own)
{
	static const unsigned int starts[NR_THREADS] = {
		0, RANGE_PAGES, 2 * RANGE_PAGES, 3 * RANGE_PAGES,
	};

	export_often(starts);
}

/* ---- beside a disk's DMA, as which a RAM disk counts ---- */

/* As much as one read of many that go on all the time has of the range. */
#define READ_SIZE	(8 * PAGE)

static void *read_into_target(void *arg)
{
	struct scene *self = arg;
	size_t at = 0;
	bool stop = false;

	while (!stop) {
		pthread_mutex_lock(&self->lock);
		stop = self->stop;
		if (self->target &&
		    pread(self->disk, self->target + at, READ_SIZE, 0) == (ssize_t)READ_SIZE)
			self->reads++;
		pthread_mutex_unlock(&self->lock);
		at = (at + READ_SIZE) % RANGE;
		/* Another thread may wait for the lock. */
		sched_yield();
	}
	return NULL;
}

static void __export_beside_reads(struct __test_metadata *_metadata, struct scene *self,
				  const unsigned int *starts, unsigned int nr)
{
	wait_for_disk(_metadata);
	self->disk = open(RAM_DISK, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->disk);
	ASSERT_EQ(0, pthread_create(&self->reader, NULL, read_into_target, self));
	__export_often(_metadata, self, starts, nr);
	pthread_mutex_lock(&self->lock);
	self->stop = true;
	pthread_mutex_unlock(&self->lock);
	pthread_join(self->reader, NULL);
	close(self->disk);
	EXPECT_LT(ROUNDS / 2, self->reads);
}

#define export_beside_reads(starts) \
	__export_beside_reads(_metadata, self, starts, ARRAY_SIZE(starts))

MOVABLE_TEST(memory_is_exported_while_a_disk_writes_to_it)
{
	static const unsigned int starts[] = { 0 };
	const char *missing = need_ram_disk();

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	export_beside_reads(starts);
}

MOVABLE_TEST(memory_is_exported_by_threads_while_a_disk_writes_to_it)
{
	static const unsigned int starts[NR_THREADS] = { 0, 0, 31, 62 };
	const char *missing = need_ram_disk();

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	export_beside_reads(starts);
}

/* ---- a page that is kept in use ---- */

/* No page, and so none of the pages in a pipe, is moved while it is in use. */
#define KEPT	5

static void __keep_page(struct __test_metadata *_metadata, int *ends, unsigned char *range)
{
	struct iovec page = { range + KEPT * PAGE, PAGE };

	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	ASSERT_EQ((ssize_t)PAGE, vmsplice(ends[1], &page, 1, 0));
}

static void let_go(const int *ends)
{
	close(ends[0]);
	close(ends[1]);
}

/* As the export does between two tries. */
#define ASLEEP	"SD"

MOVABLE_TEST(memory_is_exported_when_who_kept_it_lets_it_go)
{
	unsigned char *range = make_range(RANGE);
	struct exporter e;
	int ends[2];

	ASSERT_LT(KEPT, count_movable(range, RANGE));
	__keep_page(_metadata, ends, range);
	begin_export(&e, NULL, range, RANGE);
	if (LEAVES_MOVABLE)
		EXPECT_TRUE(wait_until_asleep(getpid(), &e.tid, ASLEEP));
	let_go(ends);
	pthread_join(e.thread, NULL);
	check_export(&e);
	munmap(range, RANGE);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Returns how long it took to fail. */
static double __fail_to_export(struct __test_metadata *_metadata, struct scene *self,
			       unsigned char *range)
{
	struct vmemexp_export cmd = export_args(range, RANGE, O_RDWR);
	struct test_state before = get_state();
	double start = seconds();
	int ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);

	start = seconds() - start;
	EXPECT_TRUE(ret == -ENOMEM || ret == -EAGAIN || ret == -EBUSY) {
		TH_LOG("export: %d", ret);
	}
	EXPECT_EQ(VMEMEXP_REASON_UNPINNABLE, cmd.err_reason);
	EXPECT_EQ(to_u64(range + KEPT * PAGE), cmd.err_addr);
	test_state(&before);
	return start;
}

MOVABLE_TEST(memory_is_not_exported_while_it_is_kept)
{
	unsigned char *range = make_range(RANGE);
	int ends[2];

	ASSERT_LT(KEPT, count_movable(range, RANGE));
	__keep_page(_metadata, ends, range);
	if (LEAVES_MOVABLE)
		__fail_to_export(_metadata, self, range);
	else
		close(test_export(range, RANGE, O_RDWR));
	let_go(ends);
	close(test_export(range, RANGE, O_RDWR));
	munmap(range, RANGE);
}

/* In a process of its own: exports what is kept, and tells before. */
static void export_kept(const struct scene *self, unsigned char *range, pid_t *tid)
{
	struct vmemexp_export cmd = export_args(range, RANGE, O_RDWR);
	struct iovec page = { range + KEPT * PAGE, PAGE };
	int ends[2];

	/* Its own copy of private memory. */
	fill(range, RANGE, 2);
	if (pipe2(ends, O_CLOEXEC) || vmsplice(ends[1], &page, 1, 0) != (ssize_t)PAGE)
		_exit(2);
	__atomic_store_n(tid, getpid(), __ATOMIC_SEQ_CST);
	_exit(_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd) ? 1 : 0);
}

/* Returns how long it took to kill it. */
static double __kill_exporter(struct __test_metadata *_metadata, struct scene *self,
			      unsigned char *range)
{
	pid_t pid, *tid = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
	double start;

	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid)
		export_kept(self, range, tid);
	EXPECT_TRUE(wait_until_asleep(pid, tid, ASLEEP));
	start = seconds();
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_for_child(pid));
	munmap(tid, PAGE);
	return seconds() - start;
}

/* On a machine that is busy, the best of some tries has to do. */
MOVABLE_TEST(memory_is_not_waited_for_by_who_is_killed)
{
	unsigned char *range = make_range(RANGE);
	double fails, killed = 0, best = 0;
	int ends[2];

	if (!LEAVES_MOVABLE) {
		close(test_export(range, RANGE, O_RDWR));
		return;
	}
	ASSERT_LT(KEPT, count_movable(range, RANGE));
	__keep_page(_metadata, ends, range);
	fails = __fail_to_export(_metadata, self, range);
	let_go(ends);
	for (unsigned int tries = 0; tries < 5 && (!tries || best > fails / 2); tries++) {
		killed = __kill_exporter(_metadata, self, range);
		best = !tries || killed < best ? killed : best;
	}
	EXPECT_LT(best, fails / 2) {
		TH_LOG("killed after %.3f s, gives up after %.3f s", best, fails);
	}
	munmap(range, RANGE);
}

/* ---- a page that a userfaultfd does not give ---- */

static int __watch_page(struct __test_metadata *_metadata, unsigned char *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = {
		.range = { to_u64(page), PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_REGISTER, &area));
	return fd;
}

/*
 * Drop the kept page while the export tries it again and again: the next try waits for the
 * userfaultfd, with all that the export holds at that moment.
 */
MOVABLE_TEST(memory_is_exported_by_others_while_one_waits_for_a_userfaultfd)
{
	static const unsigned int starts[NR_THREADS] = { 0, 0, 31, 62 };
	unsigned char *range = make_range(RANGE), *missing = range + KEPT * PAGE;
	struct uffdio_zeropage zero = { .range = { to_u64(missing), PAGE } };
	struct pollfd fault = { .events = POLLIN };
	struct exporter e;
	int ends[2];

	fault.fd = __watch_page(_metadata, missing);
	__keep_page(_metadata, ends, range);
	begin_export(&e, NULL, range, RANGE);
	if (LEAVES_MOVABLE) {
		EXPECT_TRUE(wait_until_asleep(getpid(), &e.tid, ASLEEP));
		ASSERT_EQ(0, madvise(missing, PAGE, self->shared ? MADV_REMOVE : MADV_DONTNEED));
		EXPECT_EQ(1, poll(&fault, 1, RELEASE_TIMEOUT_MS));
	}
	/* Others may wait for it as well, but not for long. */
	for (unsigned int round = 0; round < 4; round++)
		__export_once(_metadata, self, starts, NR_THREADS);

	let_go(ends);
	if (LEAVES_MOVABLE)
		EXPECT_EQ(0, ioctl(fault.fd, UFFDIO_ZEROPAGE, &zero));
	pthread_join(e.thread, NULL);
	check_export(&e);
	close(fault.fd);
	munmap(range, RANGE);
}

TEST_HARNESS_MAIN

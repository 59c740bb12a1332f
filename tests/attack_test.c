// SPDX-License-Identifier: GPL-2.0
/*
 * Attacks by a user who may open /dev/vmemexp. Each case would succeed if the driver lacked one of
 * its checks.
 *
 * The attacker is USER, a member of the group that the udev rule gives the device to, without any
 * capability. (The saved user ID stays root, so that a fixture can clean up; no attack uses it.)
 * ioctl_test has wrong arguments, and limits_test the limits: Documentation/security.rst names all
 * tests that belong to an attack.
 */
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "lib/vmemexp_memory.h"

#define USER		65534

/* The group "video", as Debian numbers it. */
#define GROUP		44

/* The attacker's RLIMIT_MEMLOCK, in pages. */
#define LIMIT		64

/* For calls that return -1, or MAP_FAILED, which is the same. */
#define EXPECT_REFUSED(error, call) do {				\
	errno = 0;							\
	EXPECT_EQ(-1, (long)(call));					\
	EXPECT_EQ(error, errno);					\
} while (0)

static void __become_user(struct __test_metadata *_metadata)
{
	struct rlimit limit = { LIMIT * PAGE, LIMIT * PAGE };
	gid_t group = GROUP;

	ASSERT_EQ(0, chown(VMEMEXP_PATH, 0, GROUP));
	ASSERT_EQ(0, chmod(VMEMEXP_PATH, 0660));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, setgroups(1, &group));
	ASSERT_EQ(0, setresgid(USER, USER, USER));
	ASSERT_EQ(0, setresuid(USER, USER, 0));
}

/* The importer stands for drivers that the attacker may open as well. */
#define prepare_attack() do {						\
	test_setup();							\
	close(self->fd);						\
	self->session = test_importer_open();				\
} while (0)

#define begin_attack() do {						\
	__become_user(_metadata);					\
	self->fd = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);		\
	ASSERT_LE(0, self->fd);						\
} while (0)

#define attack_setup() do {						\
	prepare_attack();						\
	begin_attack();							\
} while (0)

#define attack_teardown() do {						\
	ASSERT_EQ(0, setresuid(0, 0, 0));				\
	ASSERT_EQ(0, chmod(VMEMEXP_PATH, 0600));			\
	ASSERT_EQ(0, chown(VMEMEXP_PATH, 0, 0));			\
	close(self->session);						\
	test_teardown();						\
	restore_system();						\
} while (0)

/* The administrator does this meanwhile. */
#define as_root(statement) do {						\
	ASSERT_EQ(0, seteuid(0));					\
	statement;							\
	ASSERT_EQ(0, seteuid(USER));					\
} while (0)

/* How much he lets the attacker pin, in bytes. */
static void __give_memlock(struct __test_metadata *_metadata, rlim_t bytes)
{
	struct rlimit limit = { bytes, bytes };

	as_root(ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit)));
}

#define give_memlock(bytes) __give_memlock(_metadata, bytes)

/* The longest that is waited for a race, if the other thread does not get to run. */
#define PATIENCE_US	200000000

static long elapsed_us(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - start->tv_sec) * 1000000L +
	       (now.tv_nsec - start->tv_nsec) / 1000;
}

/* Offset of the first byte that is not @byte, or -1. */
static long first_other(const unsigned char *p, size_t size, unsigned char byte)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != byte)
			return i;
	return -1;
}

/* Ends what a second thread does. */
static bool over;

static void __run_thread(struct __test_metadata *_metadata, pthread_t *thread,
			 void *(*run)(void *arg), void *arg)
{
	over = false;
	ASSERT_EQ(0, pthread_create(thread, NULL, run, arg));
}

static void end_thread(pthread_t thread)
{
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

/* ---- a file of root's, which the attacker may only read ---- */

FIXTURE(file)
{
	int fd;
	struct test_state before;
	int session;
	int file;		/* root's, for writing */
	int own;		/* the attacker's, for reading */
	unsigned char *addr;
	int dmabuf;
};

FIXTURE_VARIANT(file)
{
	int (*make)(struct __test_metadata *_metadata);
	const char *(*missing)(void);
};

/* With the contents that ext4_file() has. */
static int make_tmpfs_file(struct __test_metadata *_metadata)
{
	int file = shm_open("/vmemexp-attack", O_RDWR | O_CREAT | O_EXCL, 0600);
	unsigned char contents[SMALL];

	ASSERT_LE(0, file);
	ASSERT_EQ(0, shm_unlink("/vmemexp-attack"));
	fill(contents, SMALL, 9);
	ASSERT_EQ((ssize_t)SMALL, write(file, contents, SMALL));
	return file;
}

static int make_disk_file(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,shmem,file,dmabuf"));
	return ext4_file(SMALL);
}

FIXTURE_VARIANT_ADD(file, on_tmpfs)
{
	.make = make_tmpfs_file,
};

FIXTURE_VARIANT_ADD(file, on_disk)
{
	.make = make_disk_file,
	.missing = need_ext4,
};

FIXTURE_SETUP(file)
{
	const char *missing = variant->missing ? variant->missing() : NULL;
	char path[64];

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	prepare_attack();
	self->file = variant->make(_metadata);
	ASSERT_EQ(0, fchmod(self->file, 0644));
	begin_attack();

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	EXPECT_REFUSED(EACCES, open(path, O_RDWR | O_CLOEXEC));
	self->own = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->own);
	self->addr = map(SMALL, PROT_READ, MAP_SHARED, self->own);
	self->dmabuf = test_export(self->addr, SMALL, O_RDONLY);
}

static void __expect_unchanged(struct __test_metadata *_metadata, int file)
{
	unsigned char contents[SMALL];

	ASSERT_EQ((ssize_t)SMALL, pread(file, contents, SMALL, 0));
	EXPECT_EQ(-1, first_difference(contents, SMALL, 9));
}

/* In the page cache and, where there is one, on the disk. */
FIXTURE_TEARDOWN(file)
{
	munmap(self->addr, SMALL);
	close(self->dmabuf);
	close(self->own);
	ASSERT_EQ(0, setresuid(0, 0, 0));
	__expect_unchanged(_metadata, self->file);
	fsync(self->file);
	ASSERT_EQ(0, write_text("/proc/sys/vm/drop_caches", "3"));
	__expect_unchanged(_metadata, self->file);
	close(self->file);
	attack_teardown();
}

TEST_F(file, is_not_exported_for_writing)
{
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SMALL, O_RDWR);
	EXPECT_REFUSED(EACCES, mprotect(self->addr, SMALL, RW));
}

TEST_F(file, is_not_written_by_a_device)
{
	static const unsigned int devices[] = {
		IMPORTER_DEV_COHERENT, IMPORTER_DEV_SHADOW,
	};
	unsigned char byte = 0;

	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		test_importer_attach(self->session, self->dmabuf, devices[i]);
		EXPECT_EQ(-EACCES, _test_importer_map(self->session,
						      IMPORTER_FROM_DEVICE));
		EXPECT_EQ(-EACCES, _test_importer_map(self->session,
						      IMPORTER_BIDIRECTIONAL));
		EXPECT_EQ(-ENXIO, _test_importer_transfer(self->session,
							  IMPORTER_IOC_WRITE,
							  0, &byte, 1));
		test_importer_detach(self->session);
	}
}

TEST_F(file, is_not_written_by_a_kernel_mapping)
{
	unsigned char byte = 0;

	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
	EXPECT_EQ(-vmap_refused(), _test_ioctl(self->session, IMPORTER_IOC_VMAP, NULL));
	EXPECT_EQ(-ENXIO, _test_importer_transfer(self->session,
						  IMPORTER_IOC_VWRITE, 0, &byte, 1));
	test_importer_detach(self->session);
	/* Nor while a device may read it. Root has attached that. */
	ASSERT_EQ(0, seteuid(0));
	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
	ASSERT_EQ(0, seteuid(USER));
	test_importer_map(self->session, IMPORTER_TO_DEVICE);
	EXPECT_EQ(-vmap_refused(), _test_ioctl(self->session, IMPORTER_IOC_VMAP, NULL));
}

/* There are drivers that look for its kernel mapping, do not find it, and crash. */
TEST_F(file, is_not_read_by_a_device_either)
{
	static const unsigned int devices[] = {
		IMPORTER_DEV_COHERENT, IMPORTER_DEV_SHADOW,
	};

	EXPECT_EQ(VMEMEXP_STATE_NO_VMAP,
		  test_query(self->dmabuf).state & VMEMEXP_STATE_NO_VMAP);
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		test_importer_attach(self->session, self->dmabuf, devices[i]);
		EXPECT_EQ(-EPERM, _test_importer_map(self->session, IMPORTER_TO_DEVICE));
		EXPECT_EQ(0, test_query(self->dmabuf).mappings);
		test_importer_detach(self->session);
	}
}

TEST_F(file, is_not_written_by_a_mapping_of_the_dmabuf)
{
	/* The session was opened for writing. */
	const int paths[] = { self->dmabuf, self->session };
	unsigned char *view;

	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		EXPECT_REFUSED(EACCES, mmap(NULL, SMALL, RW, MAP_SHARED, paths[i], 0));
		view = map(SMALL, PROT_READ, MAP_SHARED, paths[i]);
		EXPECT_REFUSED(EACCES, mprotect(view, SMALL, RW));
		/* Nor by a dma-buf of that mapping. */
		test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, view, view,
				SMALL, O_RDWR);
		munmap(view, SMALL);
	}
}

TEST_F(file, is_not_written_by_opening_the_dmabuf_anew)
{
	char path[64];

	/* It is not the mode of the inode that hinders him: he is its owner. */
	ASSERT_EQ(0, fchmod(self->dmabuf, 0777));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->dmabuf);
	EXPECT_REFUSED(ENXIO, open(path, O_RDWR | O_CLOEXEC));
	EXPECT_REFUSED(ENXIO, open(path, O_WRONLY | O_CLOEXEC));
	EXPECT_REFUSED(EBADF, write(self->dmabuf, "x", 1));
	EXPECT_EQ(0, fcntl(self->dmabuf, F_SETFL, O_RDWR));
	EXPECT_EQ(O_RDONLY, fcntl(self->dmabuf, F_GETFL) & O_ACCMODE);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_RW | DMA_BUF_SYNC_START);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END);
	EXPECT_REFUSED(EACCES, mmap(NULL, SMALL, RW, MAP_SHARED, self->dmabuf, 0));
}

/* Every access path shows a copy. */
TEST_F(file, is_not_written_through_a_private_mapping)
{
	unsigned char *addr = map(SMALL, RW, MAP_PRIVATE, self->own), *view;
	int dmabuf = test_export(addr, SMALL, O_RDWR);
	unsigned char written[PAGE];

	fill(written, PAGE, 1);
	view = map(SMALL, RW, MAP_SHARED, dmabuf);
	memcpy(view, written, PAGE);
	test_importer_attach(self->session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(self->session, IMPORTER_FROM_DEVICE);
	test_importer_write(self->session, PAGE, written, PAGE);
	test_importer_vmap(self->session);
	test_importer_vwrite(self->session, 2 * PAGE, written, PAGE);
	/* He writes to something. */
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(-1, first_difference(addr + i * PAGE, PAGE, 1));

	munmap(view, SMALL);
	munmap(addr, SMALL);
	close(dmabuf);
}

/* Nor is it written to because other memory in the same dma-buf may be. */
TEST_F(file, is_not_exported_for_writing_in_a_list)
{
	unsigned char *own = map(SMALL, RW, ANON, -1), *view;
	const struct vmemexp_range before[] = {
		range_of(self->addr, SMALL), range_of(own, SMALL),
	};
	const struct vmemexp_range behind[] = {
		range_of(own, SMALL), range_of(own, PAGE), range_of(self->addr, SMALL),
	};
	struct vmemexp_export cmd = list_args(before, 2, O_RDWR);
	int dmabuf;

	test_err_list_cmd(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 0, to_u64(self->addr), &cmd);
	cmd = list_args(behind, 3, O_RDWR);
	test_err_list_cmd(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 2, to_u64(self->addr), &cmd);

	cmd = list_args(behind, 3, O_RDONLY);
	dmabuf = test_export_cmd(&cmd);
	EXPECT_EQ(VMEMEXP_ACCESS_READ, test_query(dmabuf).access);
	EXPECT_REFUSED(EACCES, mmap(NULL, cmd.dmabuf_size, RW, MAP_SHARED, dmabuf, 0));
	view = map(cmd.dmabuf_size, PROT_READ, MAP_SHARED, dmabuf);
	EXPECT_REFUSED(EACCES, mprotect(view, PAGE, RW));
	EXPECT_EQ(-1, first_difference(view + SMALL + PAGE, SMALL, 9));
	test_importer_attach(self->session, dmabuf, IMPORTER_DEV_COHERENT);
	EXPECT_EQ(-EACCES, _test_importer_map(self->session, IMPORTER_FROM_DEVICE));
	EXPECT_EQ(-vmap_refused(), _test_ioctl(self->session, IMPORTER_IOC_VMAP, NULL));
	test_importer_detach(self->session);
	munmap(view, cmd.dmabuf_size);
	munmap(own, SMALL);
	close(dmabuf);
}

struct swap {
	unsigned char *addr;
	int file;
};

/* Longer and shorter, or on one CPU an export may meet the same mapping again and again. */
static void leave_a_while(unsigned int *turn)
{
	for (unsigned int i = ++*turn * 7 % 5; i; i--)
		sched_yield();
}

/* Puts the file where memory was that may be written to, and the reverse. */
static void *swap_mappings(void *arg)
{
	const struct swap *swap = arg;
	unsigned int turn = 0;

	while (!is_over()) {
		mmap(swap->addr, SMALL, PROT_READ, MAP_SHARED | MAP_FIXED, swap->file, 0);
		leave_a_while(&turn);
		mmap(swap->addr, SMALL, RW, ANON | MAP_FIXED, -1, 0);
		leave_a_while(&turn);
		mmap(swap->addr, SMALL, RW, MAP_PRIVATE | MAP_FIXED, swap->file, 0);
		leave_a_while(&turn);
	}
	return NULL;
}

/*
 * Exports by @cmd, of what is writable only at times, and writes to what it gets: to
 * all of it.
 */
static void __export_while_swapped(struct __test_metadata *_metadata, int fd,
				   const struct vmemexp_export *cmd, struct swap *swap)
{
	unsigned int good = 0, bad = 0;
	struct timespec start;
	pthread_t thread;

	__run_thread(_metadata, &thread, swap_mappings, swap);
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!good || !bad || ((good < 200 || bad < 200) && elapsed_us(&start) < 3000000)) {
		struct vmemexp_export once = *cmd;
		unsigned char *view;

		ASSERT_GT(PATIENCE_US, elapsed_us(&start)) {
			TH_LOG("%u exports, %u errors", good, bad);
		}
		if (_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &once)) {
			bad++;
			continue;
		}
		good++;
		view = map(once.dmabuf_size, RW, MAP_SHARED, once.fd);
		memset(view, 0, once.dmabuf_size);
		munmap(view, once.dmabuf_size);
		close(once.fd);
	}
	end_thread(thread);
}

TEST_F(file, is_not_written_by_swapping_mappings_during_the_export)
{
	struct swap swap = { map(SMALL, RW, ANON, -1), self->own };
	struct vmemexp_export cmd = export_args(swap.addr, SMALL, O_RDWR);

	__export_while_swapped(_metadata, self->fd, &cmd, &swap);
	munmap(swap.addr, SMALL);
}

TEST_F(file, is_not_written_by_swapping_one_of_several_ranges_during_the_export)
{
	struct swap swap = { map(SMALL, RW, ANON, -1), self->own };
	unsigned char *own = map(SMALL, RW, ANON, -1);
	const struct vmemexp_range ranges[] = {
		range_of(own, SMALL), range_of(swap.addr + SMALL - PAGE, PAGE),
		range_of(swap.addr, SMALL), range_of(own, PAGE),
	};
	struct vmemexp_export cmd = list_args(ranges, 4, O_RDWR);

	__export_while_swapped(_metadata, self->fd, &cmd, &swap);
	munmap(own, SMALL);
	munmap(swap.addr, SMALL);
}

/* ---- more locked memory than RLIMIT_MEMLOCK ---- */

FIXTURE(limit)
{
	int fd;
	struct test_state before;
	int session;
	unsigned char *buf;
};

FIXTURE_SETUP(limit)
{
	skip_without_importer();
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	attack_setup();
	self->buf = map(2 * LIMIT * PAGE, RW, ANON, -1);
}

FIXTURE_TEARDOWN(limit)
{
	munmap(self->buf, 2 * LIMIT * PAGE);
	attack_teardown();
}

static int _test_export_pages(int fd, const void *buf, size_t pages)
{
	struct vmemexp_export cmd = export_args(buf, pages * PAGE, O_RDWR);
	int ret = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd);

	if (!ret)
		close(cmd.fd);
	return ret;
}

/* How many pages may be exported at once now. */
static unsigned int find_budget(int fd, const void *buf)
{
	unsigned int pages = 0;

	while (pages < 2 * LIMIT && !_test_export_pages(fd, buf, pages + 1))
		pages++;
	return pages;
}

static bool has_ipc_lock(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	return !syscall(SYS_capget, &header, data) &&
	       data[0].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

/* Result of a child that is root of a user namespace of its own. */
enum {
	LIMITED, NO_NAMESPACE, NOT_ROOT, RAISED_LIMIT, WRONG_BUDGET,
};

static int try_user_namespace(int fd, const void *buf, unsigned int budget)
{
	struct rlimit more = { 2 * LIMIT * PAGE, 2 * LIMIT * PAGE };
	char map[32];

	snprintf(map, sizeof(map), "0 %d 1", USER);
	/* Else it could not write to its own /proc/self/uid_map. */
	if (setresuid(USER, USER, USER) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) ||
	    unshare(CLONE_NEWUSER))
		return NO_NAMESPACE;
	if (write_text("/proc/self/uid_map", map) || setresuid(0, 0, 0) ||
	    geteuid() || !has_ipc_lock())
		return NOT_ROOT;
	if (!setrlimit(RLIMIT_MEMLOCK, &more))
		return RAISED_LIMIT;
	return find_budget(fd, buf) == budget ? LIMITED : WRONG_BUDGET;
}

TEST_F(limit, is_not_lifted_by_being_root_of_a_user_namespace)
{
	static const unsigned int held[] = { 0, LIMIT / 2, LIMIT };

	if (access("/proc/self/ns/user", F_OK))
		SKIP(return, "the kernel has no user namespaces");
	ASSERT_EQ(0, seteuid(0));
	set_knob("/proc/sys/kernel/unprivileged_userns_clone", "1");
	ASSERT_EQ(0, seteuid(USER));

	for (size_t i = 0; i < ARRAY_SIZE(held); i++) {
		/* Pinned outside, by the same user. */
		int dmabuf = held[i] ? test_export(self->buf, held[i] * PAGE, O_RDWR) : -1;
		pid_t child = fork_child();

		if (!child)
			_exit(try_user_namespace(self->fd, self->buf, LIMIT - held[i]));
		EXPECT_EQ(LIMITED, wait_for_child(child));
		close(dmabuf);
	}
}

TEST_F(limit, is_one_for_all_that_pin_for_the_user)
{
	const unsigned int pages = 16;
	struct iovec iov = { map(pages * PAGE, RW, ANON, -1), pages * PAGE };
	struct io_uring_params params = {};
	unsigned int budget;
	int ring;

	ring = syscall(SYS_io_uring_setup, 4, &params);
	if (ring < 0)
		SKIP(return, "the kernel has no io_uring");
	budget = find_budget(self->fd, self->buf);
	EXPECT_LE(pages, budget);
	EXPECT_EQ(0, syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1));
	EXPECT_EQ(budget - pages, find_budget(self->fd, self->buf));
	EXPECT_EQ(0, syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0));
	EXPECT_EQ(budget, find_budget(self->fd, self->buf));
	close(ring);
	munmap(iov.iov_base, iov.iov_len);
}

/* mlock() has an account of its own; its pages are not free for all that. */
TEST_F(limit, holds_for_memory_that_is_locked_already)
{
	ASSERT_EQ(0, mlock(self->buf, LIMIT * PAGE));
	EXPECT_EQ(LIMIT, find_budget(self->fd, self->buf));
	ASSERT_EQ(0, munlock(self->buf, LIMIT * PAGE));
}

/* A list of ranges of one page each. */
struct list {
	struct vmemexp_range ranges[VMEMEXP_MAX_RANGES];
	unsigned int nr;
};

static struct list list_of(const unsigned char *page, unsigned int nr)
{
	struct list list = { .nr = nr };

	for (unsigned int i = 0; i < nr; i++)
		list.ranges[i] = range_of(page, PAGE);
	return list;
}

TEST_F(limit, counts_a_page_as_often_as_a_list_has_it)
{
	struct list list = list_of(self->buf, LIMIT);
	struct vmemexp_export cmd = list_args(list.ranges, LIMIT, O_RDWR);
	int dmabuf = test_export_cmd(&cmd);

	EXPECT_EQ(VMEMEXP_STATE_OVERLAPS, cmd.state & VMEMEXP_STATE_OVERLAPS);
	EXPECT_EQ(0, find_budget(self->fd, self->buf));
	close(dmabuf);
	EXPECT_EQ(LIMIT, find_budget(self->fd, self->buf));

	list = list_of(self->buf, LIMIT + 1);
	cmd = list_args(list.ranges, LIMIT + 1, O_RDWR);
	test_err_list_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, 0, to_u64(self->buf), &cmd);
	list = list_of(self->buf, VMEMEXP_MAX_RANGES);
	cmd = list_args(list.ranges, VMEMEXP_MAX_RANGES, O_RDWR);
	test_err_list_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, 0, to_u64(self->buf), &cmd);
	EXPECT_EQ(LIMIT, find_budget(self->fd, self->buf));
}

#define HUGE_PAGE_PAGES	(HUGE_PAGE / PAGE)

/* In a list, a huge page may be found again behind another one. */
TEST_F(limit, counts_all_of_a_huge_page_of_which_a_list_has_little)
{
	unsigned char *huge;
	struct list list = { .nr = 20 };
	struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);
	const char *missing = need_hugetlb();
	int dmabuf;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	as_root(ASSERT_EQ(0, set_knob(HUGE_PAGES, "8")));
	huge = map(2 * HUGE_PAGE, RW, ANON | MAP_HUGETLB, -1);
	for (unsigned int i = 0; i < list.nr; i++)
		list.ranges[i] = range_of(huge + i % 2 * HUGE_PAGE + i * 3 * PAGE, PAGE);
	test_err_list_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, 0, list.ranges[0].vaddr, &cmd);

	give_memlock((2 * HUGE_PAGE_PAGES - 1) * PAGE);
	cmd = list_args(list.ranges, list.nr, O_RDWR);
	test_err_list_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, 0, list.ranges[0].vaddr, &cmd);

	/* Once each, and not once for each range. */
	give_memlock(2 * HUGE_PAGE_PAGES * PAGE);
	dmabuf = test_export_cmd(&cmd);
	EXPECT_EQ(list.nr * PAGE, cmd.dmabuf_size);
	EXPECT_EQ(0, find_budget(self->fd, self->buf));
	close(dmabuf);
	EXPECT_EQ(0, _test_export_pages(self->fd, self->buf, LIMIT));
	munmap(huge, 2 * HUGE_PAGE);
}

#define MAX_BUFFERS	"/sys/module/vmemexp/parameters/max_buffers"

/* A dma-buf of many ranges is one, and so is the next one. */
TEST_F(limit, of_buffers_holds_for_lists)
{
	struct list list = list_of(self->buf, LIMIT / 2);
	struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);
	int dmabufs[2];

	as_root(ASSERT_EQ(0, set_knob(MAX_BUFFERS, "2")));
	dmabufs[0] = test_export_cmd(&cmd);
	cmd = list_args(list.ranges, 2, O_RDWR);
	dmabufs[1] = test_export_cmd(&cmd);
	cmd = list_args(list.ranges, 2, O_RDWR);
	test_err_list_cmd(EDQUOT, VMEMEXP_REASON_QUOTA, 0, to_u64(self->buf), &cmd);
	close(dmabufs[0]);
	dmabufs[0] = test_export_cmd(&cmd);
	close(dmabufs[0]);
	close(dmabufs[1]);
}

/* No range of them is mapped; the pages of all would be few, or none, in 32 bits. */
TEST_F(limit, is_not_passed_by_a_sum_that_wraps_around)
{
	const uint64_t part = sizeof(long) == 8 ? 16ULL << 30 : 4ULL << 20;
	const uint64_t most = sizeof(long) == 8 ? INT_MAX : SIZE_MAX / PAGE;
	struct list list = { .nr = VMEMEXP_MAX_RANGES };
	struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);
	unsigned int too_far = 0;
	uint64_t pages = 0;

	for (unsigned int i = 0; i < list.nr; i++)
		list.ranges[i] = (struct vmemexp_range){ 16 * PAGE, part };
	/* The sum is 2^32 bytes, or pages, and one page. */
	list.ranges[0].length += PAGE;
	while ((pages += list.ranges[too_far].length / PAGE) < most)
		too_far++;
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_LENGTH, too_far, 16 * PAGE, &cmd);

	/* In bytes, 2^64 and one page. */
	if (sizeof(long) == 8) {
		for (unsigned int i = 0; i < list.nr; i++)
			list.ranges[i].length = 1ULL << 54;
		list.ranges[0].length = PAGE;
		list.ranges[list.nr - 1].length = PAGE;
		EXPECT_NE(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
		EXPECT_EQ(1, cmd.err_range);
	}
}

/* ---- a list that hides one range among others ---- */

/* Where the bad one is. */
static const unsigned int hidden_at[] = { 0, 1, 17, LIMIT - 1 };

FIXTURE(list)
{
	int fd;
	struct test_state before;
	int session;
	int carveout;		/* a file of its driver, which the attacker may map */
	struct carveout_info info;
	unsigned char *own;
};

FIXTURE_SETUP(list)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP };

	skip_without_importer();
	skip_without_carveout();
	/* A small page is charged as one. */
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	prepare_attack();
	self->carveout = _test_carveout_open(&setup);
	ASSERT_LE(0, self->carveout);
	ASSERT_EQ(0, _test_carveout_info(setup.region, &self->info));
	begin_attack();
	self->own = map(PAGE, RW, ANON, -1);
}

FIXTURE_TEARDOWN(list)
{
	munmap(self->own, PAGE);
	close(self->carveout);
	attack_teardown();
}

/* Finds the range at @bad, wherever it is, and refuses the whole list. */
static void __refuse_anywhere(struct __test_metadata *_metadata, int fd,
			      const unsigned char *good, const unsigned char *bad, int error,
			      unsigned int reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(hidden_at); i++) {
		struct list list = list_of(good, LIMIT);
		struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);

		list.ranges[hidden_at[i]] = range_of(bad, PAGE);
		__test_err_list(_metadata, fd, error, reason, hidden_at[i], to_u64(bad), &cmd);
	}
}

#define refuse_anywhere(good, bad, error, reason) \
	__refuse_anywhere(_metadata, self->fd, good, bad, error, reason)

TEST_F(list, does_not_hide_a_kind_that_is_not_allowed)
{
	int file = memfd(PAGE, 0);
	unsigned char *shared = map(PAGE, RW, MAP_SHARED, file);

	as_root(ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,dmabuf")));
	refuse_anywhere(self->own, shared, EPERM, VMEMEXP_REASON_KIND);
	as_root(ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "shmem,dmabuf")));
	refuse_anywhere(shared, self->own, EPERM, VMEMEXP_REASON_KIND);
	munmap(shared, PAGE);
	close(file);
}

TEST_F(list, does_not_hide_memory_that_the_program_may_not_read_itself)
{
	unsigned char *other = map(PAGE, PROT_NONE, ANON, -1);

	refuse_anywhere(self->own, other, EFAULT, VMEMEXP_REASON_NOT_READABLE);
	munmap(other, PAGE);
	refuse_anywhere(self->own, other, EFAULT, VMEMEXP_REASON_NOT_MAPPED);
}

static void __list_carveout(struct __test_metadata *_metadata, uint64_t base, uint64_t size)
{
	char text[64];

	snprintf(text, sizeof(text), "%#llx:%#llx", (unsigned long long)base,
		 (unsigned long long)size);
	as_root(ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, text)));
}

/* One is listed in carveouts=, its neighbour is not. */
TEST_F(list, does_not_hide_page_frames_that_are_not_listed)
{
	unsigned char *frames = map(4 * PAGE, RW, MAP_SHARED, self->carveout);

	__list_carveout(_metadata, self->info.base, PAGE);
	refuse_anywhere(frames, frames + PAGE, EPERM, VMEMEXP_REASON_PFNMAP);
	__list_carveout(_metadata, self->info.base + PAGE, 3 * PAGE);
	refuse_anywhere(frames + PAGE, frames, EPERM, VMEMEXP_REASON_PFNMAP);
	/* Across the end of what is listed. */
	__list_carveout(_metadata, self->info.base, 2 * PAGE);
	refuse_anywhere(frames + PAGE, frames + 2 * PAGE, EPERM, VMEMEXP_REASON_PFNMAP);
	munmap(frames, 4 * PAGE);
}

/* Pages are charged and pinned, page frames are neither. */
TEST_F(list, does_not_hide_page_frames_among_pages_nor_the_reverse)
{
	unsigned char *frames = map(PAGE, RW, MAP_SHARED, self->carveout);
	struct vmemexp_range ranges[] = { range_of(frames, PAGE), range_of(self->own, PAGE) };
	struct vmemexp_export cmd = list_args(ranges, 2, O_RDWR);

	__list_carveout(_metadata, self->info.base, self->info.size);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_MIXED, 1, to_u64(self->own), &cmd);
	ranges[0] = range_of(self->own, PAGE);
	ranges[1] = range_of(frames, PAGE);
	cmd = list_args(ranges, 2, O_RDWR);
	test_err_list_cmd(EINVAL, VMEMEXP_REASON_MIXED, 1, to_u64(frames), &cmd);
	munmap(frames, PAGE);
}

/* The description of page frames is charged, whether they are scattered or listed often. */
TEST_F(list, of_page_frames_is_not_for_free)
{
	unsigned char *frames = map(2 * PAGE, RW, MAP_SHARED, self->carveout);
	struct list list = { .nr = VMEMEXP_MAX_RANGES };
	struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);

	__list_carveout(_metadata, self->info.base, self->info.size);
	for (unsigned int i = 0; i < list.nr; i++)
		list.ranges[i] = range_of(frames + (list.nr - i) % 2 * PAGE, PAGE);
	test_err_list_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, 0, list.ranges[0].vaddr, &cmd);
	munmap(frames, 2 * PAGE);
}

/* A descriptor of that one leads to all of it, and this one would to the part. */
TEST_F(list, does_not_wrap_a_part_of_a_dma_buf)
{
	unsigned char *memory = map(SMALL, RW, ANON, -1), *view;
	int dmabuf = test_export(memory, SMALL, O_RDWR);

	view = map(PAGE, RW, MAP_SHARED, dmabuf);
	for (size_t i = 0; i < 2; i++) {
		refuse_anywhere(self->own, view, EINVAL, VMEMEXP_REASON_MIXED);
		/* The second time, he has no descriptor of it. */
		close(dmabuf);
	}
	munmap(view, PAGE);
	munmap(memory, SMALL);
}

/* ---- reading what others put into pages that the attacker had ---- */

FIXTURE(pages)
{
	int fd;
	struct test_state before;
	int session;
};

FIXTURE_SETUP(pages)
{
	skip_without_importer();
	/* A huge page would not be made of pages that a victim has freed. */
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	attack_setup();
}

FIXTURE_TEARDOWN(pages)
{
	attack_teardown();
}

/* More than is free on any list of a CPU. */
#define VICTIM_SIZE	(32UL << 20)

/* Map the victim's memory on each CPU, as each keeps free pages of its own. */
static unsigned char *__map_victim(struct __test_metadata *_metadata)
{
	unsigned int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned char *victim = map(cpus * VICTIM_SIZE, RW, ANON, -1);

	for (unsigned int cpu = 0; cpu < cpus; cpu++) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		ASSERT_EQ(0, sched_setaffinity(0, sizeof(set), &set));
		memset(victim + cpu * VICTIM_SIZE, 0xee, VICTIM_SIZE);
	}
	return victim;
}

/* Exports memory in a child that then dies; gives the dma-buf. */
static int __export_and_die(struct __test_metadata *_metadata, int fd)
{
	int sockets[2], dmabuf;
	pid_t child;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
	child = fork_child();
	if (!child) {
		struct vmemexp_export cmd = export_args(map_anon(SMALL), SMALL, O_RDWR);

		fill((void *)(uintptr_t)cmd.vaddr, SMALL, 1);
		_exit(_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd) ||
		      munmap((void *)(uintptr_t)cmd.vaddr, SMALL) ||
		      send_fd(sockets[1], cmd.fd));
	}
	ASSERT_EQ(0, wait_for_child(child));
	dmabuf = receive_fd(sockets[0]);
	ASSERT_LE(0, dmabuf);
	close(sockets[0]);
	close(sockets[1]);
	return dmabuf;
}

TEST_F(pages, of_a_dead_exporter_are_not_given_to_others)
{
	int dmabuf = __export_and_die(_metadata, self->fd);
	unsigned char *view = map(SMALL, RW, MAP_SHARED, dmabuf), *victim;
	unsigned char *seen = malloc(SMALL);
	int session;

	ASSERT_EQ(0, seteuid(0));
	session = test_importer_open();
	ASSERT_EQ(0, seteuid(USER));
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	test_importer_attach(self->session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_vmap(self->session);
	close(dmabuf);

	victim = __map_victim(_metadata);
	EXPECT_EQ(-1, first_difference(view, SMALL, 1));
	/* Each holds the pages when the others have let go. */
	munmap(view, SMALL);
	test_importer_read(session, 0, seen, SMALL);
	EXPECT_EQ(-1, first_difference(seen, SMALL, 1));
	memset(seen, 0xaa, SMALL);
	test_importer_write(session, 0, seen, SMALL);
	close(session);
	test_importer_vread(self->session, 0, seen, SMALL);
	EXPECT_EQ(-1, first_other(seen, SMALL, 0xaa));
	EXPECT_EQ(self->before.pins + (long)PAGES, get_state().pins);
	EXPECT_EQ(-1, first_other(victim, VICTIM_SIZE, 0xee));
	free(seen);
}

/* ---- reaching beyond the buffer ---- */

/*
 * The only system call that takes the offset in pages as it is, also such a one
 * as wraps around in bytes.
 */
TEST_F(pages, beyond_the_buffer_are_not_mapped)
{
	static const unsigned long offsets[] = {
		PAGES, PAGES - 1, 1UL << 20, ~0UL, ~0UL - 1, ~0UL - 2, ~0UL / PAGE,
		~0UL / PAGE - 1, ~0UL / PAGE + 1, ~0UL / 2, ~0UL / 2 + 1, -(unsigned long)PAGES,
	};
	unsigned char *source = map(SMALL, RW, ANON, -1), *view;
	int dmabuf;

	fill(source, SMALL, 1);
	dmabuf = test_export(source, SMALL, O_RDWR);
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		view = map(SMALL, RW, MAP_SHARED, dmabuf);
		errno = 0;
		EXPECT_EQ(-1, remap_file_pages(view, 2 * PAGE, 0, offsets[i], 0));
		/* Where the sum of offset and length overflows, mm/ is first. */
		EXPECT_TRUE(errno == EINVAL || errno == EOVERFLOW);
		munmap(view, SMALL);
	}

	view = map(SMALL, RW, MAP_SHARED, dmabuf);
	EXPECT_REFUSED(EFAULT, mremap(view, SMALL, SMALL + PAGE, MREMAP_MAYMOVE));
	EXPECT_REFUSED(EFAULT, mremap(view, 0, SMALL, MREMAP_MAYMOVE));
	/* It would have worked inside. */
	ASSERT_EQ(0, remap_file_pages(view, 2 * PAGE, 0, PAGES - 2, 0));
	EXPECT_EQ(0, memcmp(view, source + SMALL - 2 * PAGE, 2 * PAGE));
	EXPECT_EQ(0, memcmp(view + 2 * PAGE, source + 2 * PAGE, SMALL - 2 * PAGE));
	munmap(view, SMALL);
	munmap(source, SMALL);
	close(dmabuf);
}

/* ---- what the kernel lets out ---- */

FIXTURE(answer)
{
	int fd;
	struct test_state before;
	int session;
	unsigned char *buf;
	int dmabuf;
};

FIXTURE_SETUP(answer)
{
	skip_without_importer();
	attack_setup();
	self->buf = map(SMALL, RW, ANON, -1);
	touch_scattered(self->buf);
	self->dmabuf = test_export(self->buf, SMALL, O_RDWR);
}

FIXTURE_TEARDOWN(answer)
{
	munmap(self->buf, SMALL);
	close(self->dmabuf);
	attack_teardown();
}

/* Large enough for the answer to any request. */
union request {
	uint32_t size;
	struct vmemexp_export export;
	struct vmemexp_sync sync;
	struct vmemexp_query query;
	unsigned char bytes[PAGE];
};

static const unsigned long requests[] = {
	VMEMEXP_IOC_EXPORT, VMEMEXP_IOC_SYNC, VMEMEXP_IOC_QUERY,
};

/* A good one with zeroes behind it; outputs hold what was not answered. */
static size_t make_request(union request *arg, unsigned long request,
			   const unsigned char *buf, int dmabuf, uint64_t poison)
{
	size_t size;

	memset(arg, 0, sizeof(*arg));
	switch (request) {
	case VMEMEXP_IOC_EXPORT:
		arg->export = export_args(buf, SMALL, O_RDWR);
		arg->export.fd = poison;
		arg->export.offset = poison;
		arg->export.dmabuf_size = poison;
		arg->export.nr_extents = poison;
		arg->export.memory = poison;
		arg->export.err_reason = poison;
		arg->export.err_addr = poison;
		arg->export.state = poison;
		arg->export.err_range = poison;
		size = sizeof(arg->export);
		break;
	case VMEMEXP_IOC_SYNC:
		arg->sync = sync_args(dmabuf, VMEMEXP_SYNC_RW, 0, SMALL);
		size = sizeof(arg->sync);
		break;
	default:
		memset(&arg->query, poison, sizeof(arg->query));
		arg->query.fd = dmabuf;
		arg->query.flags = 0;
		arg->query.reserved = 0;
		size = sizeof(arg->query);
		break;
	}
	arg->size = sizeof(*arg);
	return size;
}

/* Two answers to the same request differ in nothing. */
TEST_F(answer, has_no_byte_that_comes_from_anywhere_else)
{
	unsigned char zeroes[sizeof(union request)] = {};
	union request one, two;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		size_t size = make_request(&one, requests[i], self->buf,
					   self->dmabuf, 0xcccccccccccccccc);

		make_request(&two, requests[i], self->buf, self->dmabuf,
			     0x3333333333333333);
		ASSERT_EQ(0, _test_ioctl(self->fd, requests[i], &one));
		if (requests[i] == VMEMEXP_IOC_EXPORT)
			close(one.export.fd);
		ASSERT_EQ(0, _test_ioctl(self->fd, requests[i], &two));
		if (requests[i] == VMEMEXP_IOC_EXPORT)
			close(two.export.fd);
		EXPECT_EQ(0, memcmp(&one, &two, sizeof(one)));
		EXPECT_EQ(0, memcmp(one.bytes + size, zeroes, sizeof(one) - size));
	}
}

/* Where the buffer lies, which only root may know, and where it was found. */
struct secret {
	uint64_t pfns[PAGES];
	char found_in[256];	/* empty: nowhere */
	uint64_t found;
};

static struct secret secret;

static void look_at(uint64_t number, const char *where)
{
	/* The last page holds error numbers and -1. */
	if (number >= 0xffff000000000000 && number < -PAGE)
		goto found;
	for (size_t i = 0; i < PAGES; i++)
		if (number == secret.pfns[i] || number / PAGE == secret.pfns[i])
			goto found;
	return;
found:
	snprintf(secret.found_in, sizeof(secret.found_in), "%s", where);
	secret.found = number;
}

/* Any string of digits could be a number, decimal or not. */
static void look_at_text(const char *text, const char *where)
{
	while (*(text += strcspn(text, "0123456789abcdefABCDEF"))) {
		size_t length = strspn(text, "0123456789abcdefABCDEF");

		/* This line of /proc/self/maps is the same on every machine. */
		if (strncmp(text, "ffffffffff600000-ffffffffff601000", 33)) {
			look_at(strtoull(text, NULL, 16), where);
			look_at(strtoull(text, NULL, 10), where);
		} else {
			length = 33;
		}
		text += length;
		if (*text == 'x')
			text++;
	}
}

static void look_at_file(const char *path)
{
	static char text[1 << 20];
	int size = read_text(path, text, sizeof(text));

	for (int i = 0; i < size; i++)
		text[i] = text[i] ?: ' ';
	if (size > 0)
		look_at_text(text, path);
}

static int look_at_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)at;
	if (type == FTW_F)
		look_at_file(path);
	return *secret.found_in;
}

static void __expect_nothing_found(struct __test_metadata *_metadata)
{
	EXPECT_STREQ("", secret.found_in) {
		TH_LOG("%#llx", (unsigned long long)secret.found);
	}
}

static void __learn_secret(struct __test_metadata *_metadata, const unsigned char *addr)
{
	uint64_t *entries;

	ASSERT_EQ(0, seteuid(0));
	entries = read_pagemap(addr, SMALL);
	ASSERT_EQ(0, seteuid(USER));
	for (size_t i = 0; i < PAGES; i++) {
		secret.pfns[i] = entries[i] & PAGEMAP_PFN;
		/* It is one, and no small number that may stand anywhere. */
		ASSERT_LT(4096, secret.pfns[i]);
	}
	free(entries);
}

/* Errors in a request. The driver finds each of them at another place. */
enum wrong { NOTHING, TOO_MUCH, NOT_THERE, NR_WRONG };

static void make_wrong(union request *arg, unsigned long request, enum wrong wrong,
		       const unsigned char *large, int fd)
{
	if (request == VMEMEXP_IOC_EXPORT && wrong == TOO_MUCH) {
		arg->export.vaddr = to_u64(large);
		arg->export.length = LIMIT * PAGE;
	} else if (request == VMEMEXP_IOC_EXPORT && wrong) {
		arg->export.length = 4 * LIMIT * PAGE;
	} else if (wrong) {
		/* At the same place in both. */
		arg->query.fd = wrong == TOO_MUCH ? 0x7fffffff : fd;
	}
}

/* Search all of the argument after each ioctl, good or bad. */
TEST_F(answer, names_no_address_of_memory)
{
	unsigned char *large = map(LIMIT * PAGE, RW, ANON, -1);
	union request arg;
	size_t size, at;
	int ret;

	__learn_secret(_metadata, self->buf);
	for (size_t i = 0; i < ARRAY_SIZE(requests) * NR_WRONG; i++) {
		unsigned long request = requests[i / NR_WRONG];

		size = make_request(&arg, request, self->buf, self->dmabuf, 0);
		make_wrong(&arg, request, i % NR_WRONG, large, self->fd);
		ret = _test_ioctl(self->fd, request, &arg);
		EXPECT_EQ(i % NR_WRONG != NOTHING, ret != 0);
		if (!ret && request == VMEMEXP_IOC_EXPORT)
			close(arg.export.fd);
		for (at = 0; at < size; at += sizeof(uint64_t))
			look_at(*(uint64_t *)(arg.bytes + at), "the answer");
		for (at = 0; at < size; at += sizeof(uint32_t))
			look_at(*(uint32_t *)(arg.bytes + at), "the answer");
		__expect_nothing_found(_metadata);
	}
	munmap(large, LIMIT * PAGE);
}

/* While the buffer is attached, mapped in every way, and has been used. */
TEST_F(answer, is_found_in_no_file_that_users_may_read)
{
	static const char * const trees[] = {
		"/sys/module/vmemexp", "/sys/devices/virtual/misc/vmemexp",
		"/sys/kernel/dmabuf", "/sys/kernel/debug/vmemexp", "/proc/self/fdinfo",
	};
	unsigned char *view = map(SMALL, RW, MAP_SHARED, self->dmabuf);

	__learn_secret(_metadata, self->buf);
	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
	test_importer_vmap(self->session);

	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		nftw(trees[i], look_at_entry, 16, FTW_PHYS);
	look_at_file("/proc/self/maps");
	__expect_nothing_found(_metadata);

	/* These tell more, and are root's. */
	EXPECT_REFUSED(EACCES, open("/sys/kernel/debug/vmemexp/buffers", O_RDONLY));
	EXPECT_REFUSED(EACCES, open(TRACING "/trace", O_RDONLY));
	EXPECT_REFUSED(EACCES, open(VMEMEXP_CARVEOUTS, O_RDONLY));

	/* It would have been found. */
	snprintf((char *)view, PAGE, "mapped 0x%llx ",
		 (unsigned long long)(secret.pfns[3] * PAGE + 16));
	look_at_text((char *)view, "this test");
	EXPECT_STREQ("this test", secret.found_in);
	munmap(view, SMALL);
}

/* ---- changing the argument while the driver reads it ---- */

FIXTURE(argument)
{
	int fd;
	struct test_state before;
	int session;
	unsigned char *good;	/* may be read and written */
	unsigned char *bad;	/* may be read */
};

/* Two values of a field, at the same place in memory, one byte apart. */
struct flip {
	volatile unsigned char *byte;
	unsigned char values[2];
};

#define FLIP_PAGES	4

FIXTURE_SETUP(argument)
{
	skip_without_importer();
	attack_setup();
	/* In addresses that differ in bits 12 to 15 alone. */
	self->good = map(32 * PAGE, RW, ANON, -1);
	self->good += -(uintptr_t)self->good & (16 * PAGE - 1);
	self->bad = self->good + 8 * PAGE;
	ASSERT_EQ(0, mprotect(self->bad, FLIP_PAGES * PAGE, PROT_READ));
}

FIXTURE_TEARDOWN(argument)
{
	attack_teardown();
}

static void *flip_byte(void *arg)
{
	const struct flip *flip = arg;

	for (unsigned int i = 0; !is_over(); i++) {
		*flip->byte = flip->values[i & 1];
		/* Not in step with the other thread. */
		for (volatile unsigned int wait = i * 37 % 512; wait; wait--)
			;
	}
	return NULL;
}

#define RACE_US		2000000
#define RACE_TRIES	20000

/* The two values between which a field changes. */
enum values { BOTH_GOOD, ONE_BAD };

/*
 * Return true if both values have been met. @results counts exports that failed, and those that did
 * not.
 */
static bool is_raced(const unsigned int results[2], enum values values)
{
	return results[1] && (values == BOTH_GOOD || results[0]);
}

/*
 * Exports while @flip goes on, and expects each dma-buf to be all of a piece:
 * what was checked, what was pinned, what was charged and what it is.
 */
static void __race_export(struct __test_metadata *_metadata, int fd, struct flip *flip,
			  struct vmemexp_export *cmd, enum values values)
{
	const struct vmemexp_export in = *cmd;
	unsigned int results[2] = {};
	struct timespec start;
	pthread_t thread;
	long before = accounted_pages();

	__run_thread(_metadata, &thread, flip_byte, flip);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; elapsed_us(&start) < PATIENCE_US; i++) {
		struct vmemexp_query query;
		struct vmemexp_export out;
		void *view;
		bool write;
		int ret;

		if ((i >= RACE_TRIES || elapsed_us(&start) >= RACE_US) &&
		    is_raced(results, values))
			break;
		cmd->length = in.length;
		cmd->fd = -1;
		ret = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, cmd);
		out = *cmd;
		results[!ret]++;
		if (ret)
			continue;
		ASSERT_LE(0, out.fd);
		query = __test_query(_metadata, fd, out.fd);
		write = query.access & VMEMEXP_ACCESS_WRITE;
		ASSERT_EQ(out.dmabuf_size, query.dmabuf_size);
		ASSERT_EQ(out.dmabuf_size, lseek(out.fd, 0, SEEK_END));
		ASSERT_EQ(out.dmabuf_size, page_align(query.offset + query.length));
		ASSERT_EQ(write ? O_RDWR : O_RDONLY, fcntl(out.fd, F_GETFL) & O_ACCMODE);
		view = mmap(NULL, out.dmabuf_size, RW, MAP_SHARED, out.fd, 0);
		ASSERT_EQ(write, view != MAP_FAILED);
		/* A read-only source stays read-only. */
		if (write) {
			memset(view, 1, out.dmabuf_size);
			munmap(view, out.dmabuf_size);
		}
		if (i % 64 == 0)
			ASSERT_EQ(before + (long)(out.dmabuf_size / PAGE), accounted_pages());
		close(out.fd);
	}
	end_thread(thread);
	EXPECT_NE(0, results[1]);
	EXPECT_EQ(values == ONE_BAD, results[0] != 0);
	*cmd = in;
}

/* @field holds @one. They differ in one byte; machines are little-endian here. */
static void __race_field(struct __test_metadata *_metadata, int fd,
			 struct vmemexp_export *cmd, void *field, uint64_t one,
			 uint64_t two, enum values values)
{
	unsigned int at = __builtin_ctzll(one ^ two) / 8;
	struct flip flip = {
		.byte = (unsigned char *)field + at,
		.values = { one >> 8 * at, two >> 8 * at },
	};

	__race_export(_metadata, fd, &flip, cmd, values);
}

#define race_field(field, one, two, values) \
	__race_field(_metadata, self->fd, &cmd, field, one, two, values)

TEST_F(argument, that_changes_in_its_length_is_taken_as_one)
{
	struct vmemexp_export cmd = export_args(self->good, PAGE, O_RDWR);

	race_field(&cmd.length, PAGE, FLIP_PAGES * PAGE, BOTH_GOOD);
}

TEST_F(argument, that_changes_in_its_address_is_taken_as_one)
{
	struct vmemexp_export cmd = export_args(self->good, FLIP_PAGES * PAGE, O_RDWR);

	race_field(&cmd.vaddr, to_u64(self->good), to_u64(self->bad), ONE_BAD);
	EXPECT_EQ(-1, first_other(self->bad, FLIP_PAGES * PAGE, 0));
}

TEST_F(argument, that_changes_in_its_access_is_taken_as_one)
{
	struct vmemexp_export cmd = export_args(self->good, FLIP_PAGES * PAGE, O_RDWR);

	race_field(&cmd.fd_flags, O_RDWR, O_RDONLY, BOTH_GOOD);
	cmd.vaddr = to_u64(self->bad);
	race_field(&cmd.fd_flags, O_RDWR, O_RDONLY, ONE_BAD);
	EXPECT_EQ(-1, first_other(self->bad, FLIP_PAGES * PAGE, 0));
}

TEST_F(argument, that_changes_in_its_flags_is_taken_as_one)
{
	struct vmemexp_export cmd = export_args(self->good + 128, PAGE, O_RDWR);

	race_field(&cmd.flags, 0, VMEMEXP_EXPORT_UNALIGNED, ONE_BAD);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	race_field(&cmd.flags, VMEMEXP_EXPORT_UNALIGNED, VMEMEXP_EXPORT_UNALIGNED | 0x80,
		   ONE_BAD);
}

/* A range of a list is no other, in any of its fields. */
TEST_F(argument, that_changes_in_a_range_of_its_list_is_taken_as_one)
{
	struct vmemexp_range ranges[] = {
		range_of(self->good, PAGE), range_of(self->good, FLIP_PAGES * PAGE),
		range_of(self->good, PAGE),
	};
	struct vmemexp_export cmd = list_args(ranges, 3, O_RDWR);

	race_field(&ranges[1].length, FLIP_PAGES * PAGE, PAGE, BOTH_GOOD);
	ranges[1].length = FLIP_PAGES * PAGE;
	race_field(&ranges[1].vaddr, to_u64(self->good), to_u64(self->bad), ONE_BAD);
	EXPECT_EQ(-1, first_other(self->bad, FLIP_PAGES * PAGE, 0));
}

TEST_F(argument, that_changes_in_its_number_of_ranges_is_taken_as_one)
{
	struct vmemexp_range ranges[VMEMEXP_MAX_RANGES + 2];
	struct vmemexp_export cmd;

	for (unsigned int i = 0; i < ARRAY_SIZE(ranges); i++)
		ranges[i] = range_of(self->good, PAGE);
	cmd = list_args(ranges, 2, O_RDWR);
	race_field(&cmd.nr_ranges, 2, 3, BOTH_GOOD);
	cmd.nr_ranges = 2;
	race_field(&cmd.nr_ranges, 2, 0, ONE_BAD);
	cmd.nr_ranges = 2;
	race_field(&cmd.nr_ranges, 2, VMEMEXP_MAX_RANGES + 2, ONE_BAD);
}

TEST_F(argument, that_changes_in_the_address_of_its_list_is_taken_as_one)
{
	struct vmemexp_range ranges[] __attribute__((aligned(64))) = {
		range_of(self->good, PAGE), range_of(self->good, PAGE),
		range_of(self->good, FLIP_PAGES * PAGE), range_of(self->bad, PAGE),
	};
	struct vmemexp_export cmd = list_args(ranges, 2, O_RDWR);

	race_field(&cmd.ranges, to_u64(ranges), to_u64(ranges + 2), ONE_BAD);
	EXPECT_EQ(-1, first_other(self->bad, FLIP_PAGES * PAGE, 0));
}

/* The driver must not access what is behind the shorter structure. */
TEST_F(argument, that_changes_in_its_size_is_taken_as_one)
{
	struct {
		struct vmemexp_export cmd;
		unsigned char behind[200];
	} arg = { export_args(self->good, PAGE, O_RDWR), {} };
	struct flip flip = {
		.byte = (unsigned char *)&arg.cmd.size,
		.values = { sizeof(arg.cmd), sizeof(arg) - 72 },
	};

	memset(arg.behind, POISON_BYTE, sizeof(arg.behind));
	__race_export(_metadata, self->fd, &flip, &arg.cmd, ONE_BAD);
	EXPECT_EQ(-1, first_other(arg.behind, sizeof(arg.behind), POISON_BYTE));
}

/* ---- a list that changes when a part of it has been read ---- */

#define IN_ONE_PAGE	(PAGE / sizeof(struct vmemexp_range))
#define LONG_LIST	(IN_ONE_PAGE + 1)

/* The last range lies in a page that is given when the driver wants to read it. */
FIXTURE(slow_list)
{
	int fd;
	struct test_state before;
	int session;
	int uffd;
	struct vmemexp_range *ranges;
	unsigned char *own;	/* LONG_LIST pages */
};

/* The thread that gives it knows these, and says how far it came. */
struct giver {
	int fd;
	int uffd;
	struct vmemexp_range *ranges;
	unsigned char *own;
	enum { NOT_ASKED, ASKED, LOCKED_OUT, GIVEN } state;
};

/* Returns a userfaultfd for the second page. Only root gets one for what the kernel reads. */
static int make_slow(const struct vmemexp_range *ranges)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = {
		.range = { to_u64(ranges) + PAGE, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	return ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &area) ? -1 : uffd;
}

FIXTURE_SETUP(slow_list)
{
	skip_without_importer();
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	prepare_attack();
	self->ranges = map(2 * PAGE, RW, ANON, -1);
	self->uffd = make_slow(self->ranges);
	ASSERT_LE(0, self->uffd);
	begin_attack();
	give_memlock(RLIM_INFINITY);
	self->own = map(LONG_LIST * PAGE, RW, ANON, -1);
	fill(self->own, LONG_LIST * PAGE, 1);
	for (unsigned int i = 0; i < IN_ONE_PAGE; i++)
		self->ranges[i] = range_of(self->own + (LONG_LIST - 1 - i) * PAGE, PAGE);
}

FIXTURE_TEARDOWN(slow_list)
{
	munmap(self->own, LONG_LIST * PAGE);
	munmap(self->ranges, 2 * PAGE);
	close(self->uffd);
	attack_teardown();
}

/*
 * All of the ranges that the driver has read by now become bad. The address space and the
 * driver are for others to use meanwhile.
 */
static void *give_page(void *arg)
{
	struct vmemexp_range *last = aligned_alloc(PAGE, PAGE);
	struct giver *giver = arg;
	struct uffdio_copy copy = {
		.dst = to_u64(giver->ranges) + PAGE, .src = to_u64(last), .len = PAGE,
	};
	struct uffd_msg message;
	void *other;

	memset(last, 0, PAGE);
	last[0] = range_of(giver->own, PAGE);
	if (read(giver->uffd, &message, sizeof(message)) != sizeof(message))
		return NULL;
	giver->state = ASKED;
	for (unsigned int i = 0; i < IN_ONE_PAGE; i++)
		giver->ranges[i] = (struct vmemexp_range){ i % 2 ? 0 : -PAGE, i % 3 * PAGE };
	other = map_anon(PAGE);
	giver->state = _test_export_pages(giver->fd, other, 1) ? LOCKED_OUT : GIVEN;
	munmap(other, PAGE);
	ioctl(giver->uffd, UFFDIO_COPY, &copy);
	free(last);
	return NULL;
}

TEST_F(slow_list, is_read_once_and_keeps_nobody_waiting)
{
	struct vmemexp_export cmd = list_args(self->ranges, LONG_LIST, O_RDWR);
	struct giver giver = { self->fd, self->uffd, self->ranges, self->own, NOT_ASKED };
	unsigned char *view;
	pthread_t thread;
	int ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, give_page, &giver));
	ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
	EXPECT_EQ(0, ret);
	EXPECT_EQ(GIVEN, giver.state);
	/* Touch the page, so that the thread ends even if the driver has not. */
	EXPECT_EQ(to_u64(self->own),
		  ((volatile struct vmemexp_range *)self->ranges)[IN_ONE_PAGE].vaddr);
	pthread_join(thread, NULL);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(LONG_LIST * PAGE, cmd.dmabuf_size);
	view = map(LONG_LIST * PAGE, PROT_READ, MAP_SHARED, cmd.fd);
	for (unsigned int i = 0; i < LONG_LIST; i++)
		EXPECT_EQ(0, memcmp(self->own + (LONG_LIST - 1 - i) * PAGE, view + i * PAGE, PAGE));
	munmap(view, LONG_LIST * PAGE);
	close(cmd.fd);
}

/* The export ends with the process, though the page never comes. */
TEST_F(slow_list, ends_when_the_process_is_killed)
{
	struct vmemexp_export cmd = list_args(self->ranges, LONG_LIST, O_RDWR);
	struct pollfd asked = { .events = POLLIN };
	int sockets[2];
	pid_t child;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
	child = fork_child();
	if (!child) {
		int uffd;

		CHECK(!seteuid(0));
		uffd = make_slow(self->ranges);
		CHECK(uffd >= 0 && !seteuid(USER) && !send_fd(sockets[1], uffd));
		_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
		_exit(KSFT_FAIL);
	}
	asked.fd = receive_fd(sockets[0]);
	ASSERT_LE(0, asked.fd);
	ASSERT_EQ(1, poll(&asked, 1, -1));
	ASSERT_EQ(0, kill(child, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, wait_for_child(child));
	close(asked.fd);
	close(sockets[0]);
	close(sockets[1]);
}

/* ---- keeping others waiting ---- */

#define LONG_SIZE	(1024UL << 20)
#define LONG_PAGES	((long)(LONG_SIZE / PAGE))
#define FILE_SIZE	(32UL << 20)	/* on 32-bit kernels, more has no vmap */

FIXTURE(starvation)
{
	int fd;
	struct test_state before;
	int session;
	unsigned char *addr;	/* LONG_SIZE bytes, of FILE_SIZE bytes of memory */
};

/* The attacker has been given as much as he likes. */
FIXTURE_SETUP(starvation)
{
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	int memory;

	skip_without_importer();
	attack_setup();
	ASSERT_EQ(0, seteuid(0));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
	ASSERT_EQ(0, seteuid(USER));

	memory = memfd(FILE_SIZE, 0);
	ASSERT_EQ(0, fallocate(memory, 0, 0, FILE_SIZE));
	self->addr = map(LONG_SIZE, PROT_NONE, ANON | MAP_NORESERVE, -1);
	for (size_t at = 0; at < LONG_SIZE; at += FILE_SIZE) {
		ASSERT_EQ(self->addr + at,
			  mmap(self->addr + at, FILE_SIZE, RW, MAP_SHARED | MAP_FIXED,
			       memory, 0));
	}
	close(memory);
}

FIXTURE_TEARDOWN(starvation)
{
	munmap(self->addr, LONG_SIZE);
	attack_teardown();
}

/* By reading, which brings some pages around with each: they are writable, too. */
static void populate(const volatile unsigned char *addr)
{
	for (size_t at = 0; at < LONG_SIZE; at += PAGE)
		addr[at];
}

/* Measurements of a child, from its SIGKILL on. */
struct death {
	long us;	/* until it was gone */
	long pages;	/* that it pinned meanwhile */
	bool too_late;	/* it was done before */
};

/* Kills a child that has exported the first @pages, or exports nothing. */
static struct death __kill_child(struct __test_metadata *_metadata, int fd,
				 unsigned char *addr, long pages, bool present)
{
	struct vmemexp_export cmd = export_args(addr, LONG_SIZE, O_RDWR);
	struct death death = {};
	struct timespec start;
	long before, at, now;
	char byte = 0;
	int ready[2], status;
	pid_t child;

	ASSERT_EQ(0, seteuid(0));
	before = pinned_pages();
	ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
	child = fork_child();
	if (!child) {
		if (present)
			populate(addr);
		write(ready[1], &byte, 1);
		if (pages)
			_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd);
		pause();
		_exit(0);
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	do {
		at = pinned_pages() - before;
	} while (at < pages);
	ASSERT_EQ(0, kill(child, SIGKILL));
	clock_gettime(CLOCK_MONOTONIC, &start);
	death.too_late = at == LONG_PAGES;
	while (!waitpid(child, &status, WNOHANG)) {
		now = pinned_pages() - before;
		if (now - at > death.pages)
			death.pages = now - at;
	}
	death.us = elapsed_us(&start);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(ready[0]);
	close(ready[1]);
	ASSERT_EQ(0, seteuid(USER));
	return death;
}

/*
 * It is to end within 100 ms for each GiB. An emulated machine is slower than any
 * other, and that by no known factor. So it is measured against what the same
 * machine takes to export the GiB, and against the death of a process that has
 * such mappings and exports nothing: pages that are present are exported within
 * those 100 ms by any other machine, and given back as fast.
 */
static void __kill_exporter(struct __test_metadata *_metadata, int fd,
			    unsigned char *addr, bool present)
{
	struct death alone, killed, least = { .us = LONG_MAX, .pages = LONG_MAX };
	struct timespec start;
	int dmabuf;
	long all;

	if (present)
		populate(addr);
	clock_gettime(CLOCK_MONOTONIC, &start);
	dmabuf = __test_export_range(_metadata, fd, addr, LONG_SIZE, O_RDWR);
	all = elapsed_us(&start);
	close(dmabuf);

	/* Other work of the machine may disturb one try, but not all. */
	for (int i = 0; i < 10 && (least.us >= all || least.pages >= LONG_PAGES / 4); i++) {
		alone = __kill_child(_metadata, fd, addr, 0, present);
		killed = __kill_child(_metadata, fd, addr, LONG_PAGES / 16, present);
		TH_LOG("export %ld us; dead in %ld us; exporting, in %ld us and %ld pages%s",
		       all, alone.us, killed.us, killed.pages,
		       killed.too_late ? ", too late" : "");
		if (killed.too_late)
			continue;
		killed.us -= 2 * alone.us;
		if (killed.us < least.us)
			least.us = killed.us;
		if (killed.pages < least.pages)
			least.pages = killed.pages;
	}
	EXPECT_GT(all, least.us);
	EXPECT_GT(LONG_PAGES / 4, least.pages);
}

TEST_F(starvation, by_exporting_what_is_present_ends_when_the_process_is_killed)
{
	__kill_exporter(_metadata, self->fd, self->addr, true);
}

TEST_F(starvation, by_exporting_what_is_absent_ends_when_the_process_is_killed)
{
	__kill_exporter(_metadata, self->fd, self->addr, false);
}

/* The longest that a thread had to wait for the lock of its address space. */
static void *change_mappings(void *arg)
{
	struct timespec start;
	long *longest = arg, us;

	while (!is_over()) {
		clock_gettime(CLOCK_MONOTONIC, &start);
		munmap(map_anon(PAGE), PAGE);
		us = elapsed_us(&start);
		if (us > *longest)
			*longest = us;
	}
	return NULL;
}

/* Exports, expects @ret of it, and returns the longest wait as a part of the whole. */
static double __wait_for_export(struct __test_metadata *_metadata, int fd,
				const struct vmemexp_export *cmd, int ret)
{
	struct vmemexp_export once = *cmd;
	struct timespec start;
	pthread_t thread;
	long longest = 0, all;
	int result;

	__run_thread(_metadata, &thread, change_mappings, &longest);
	clock_gettime(CLOCK_MONOTONIC, &start);
	result = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, &once);
	all = elapsed_us(&start);
	end_thread(thread);
	EXPECT_EQ(ret, result);
	if (!result)
		close(once.fd);
	TH_LOG("export %ld us, longest wait %ld us", all, longest);
	return (double)longest / all;
}

/* The lowest of some, as another program may have been in the way. */
static void __expect_short_waits(struct __test_metadata *_metadata, int fd,
				 const struct vmemexp_export *cmd, unsigned char *addr, int ret)
{
	double best = 1, part;

	for (int i = 0; i < 10 && best >= 0.25; i++) {
		/* Each page has to be looked up anew. */
		ASSERT_EQ(0, madvise(addr, LONG_SIZE, MADV_DONTNEED));
		part = __wait_for_export(_metadata, fd, cmd, ret);
		if (part < best)
			best = part;
	}
	EXPECT_GT(0.25, best);
}

#define expect_short_waits(cmd, ret) \
	__expect_short_waits(_metadata, self->fd, cmd, self->addr, ret)

TEST_F(starvation, by_a_long_export_leaves_the_address_space_to_others)
{
	struct vmemexp_export cmd = export_args(self->addr, LONG_SIZE, O_RDWR);

	expect_short_waits(&cmd, 0);
}

/*
 * In as many mappings as there are pages, most of which are looked at many times. All ranges
 * of a list have no more pages than 32 bits count bytes of.
 */
#define MANY_VMAS	1016UL

static struct list __list_of_many_vmas(struct __test_metadata *_metadata, unsigned char *addr)
{
	struct list list = { .nr = VMEMEXP_MAX_RANGES };

	/* Neighbours that differ are not merged. */
	for (unsigned long i = 0; i < MANY_VMAS; i += 2)
		ASSERT_EQ(0, mprotect(addr + i * PAGE, PAGE, RW | PROT_EXEC));
	for (unsigned int i = 0; i < list.nr; i++)
		list.ranges[i] = range_of(addr, MANY_VMAS * PAGE);
	return list;
}

/* No more than what he has been given is pinned for it, but a lot is looked at. */
TEST_F(starvation, by_a_list_that_is_refused_leaves_the_address_space_to_others)
{
	struct list list = __list_of_many_vmas(_metadata, self->addr);
	struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);

	give_memlock(LIMIT * PAGE);
	expect_short_waits(&cmd, -ENOMEM);
}

TEST_F(starvation, by_a_long_list_leaves_the_address_space_to_others)
{
	struct list list = __list_of_many_vmas(_metadata, self->addr);
	struct vmemexp_export cmd;

	for (unsigned int i = 0; i < list.nr; i++)
		list.ranges[i].length = MANY_VMAS / 8 * PAGE;
	cmd = list_args(list.ranges, list.nr, O_RDWR);
	expect_short_waits(&cmd, 0);
}

static uint64_t computed(clockid_t clock)
{
	struct timespec now = {};

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* A child that computes in a call: its clock, and what that said when the child began. */
struct computing {
	pid_t child;
	clockid_t clock;
	uint64_t begin;
};

/* Like fork(): returns 0 in the child, which is about to begin. */
static pid_t __fork_computing(struct __test_metadata *_metadata, struct computing *c)
{
	int ready[2];
	char byte = 0;

	ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
	c->child = fork_child();
	if (!c->child) {
		write(ready[1], &byte, 1);
		return 0;
	}
	ASSERT_EQ(0, clock_getcpuclockid(c->child, &c->clock));
	/* The time until there does not count. */
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	c->begin = computed(c->clock);
	close(ready[0]);
	close(ready[1]);
	return c->child;
}

static void wait_until_computed(const struct computing *c, uint64_t part)
{
	while (computed(c->clock) - c->begin < part)
		sched_yield();
}

/* Kills the child. Returns how long it computed in the end. */
static uint64_t __kill_computing(struct __test_metadata *_metadata, const struct computing *c)
{
	uint64_t end;

	ASSERT_EQ(0, kill(c->child, SIGKILL));
	/* It is a zombie then, and still has its clock. */
	ASSERT_EQ(0, waitid(P_PID, c->child, &(siginfo_t){}, WEXITED | WNOWAIT));
	end = computed(c->clock);
	EXPECT_EQ(128 + SIGKILL, wait_for_child(c->child));
	return end - c->begin;
}

/* Kills a child that has computed for a 16th of @all in an export; how long it did in the end. */
static uint64_t __kill_in_list(struct __test_metadata *_metadata, int fd,
			       const struct vmemexp_export *cmd, uint64_t all)
{
	struct vmemexp_export once = *cmd;
	struct computing c;

	if (!__fork_computing(_metadata, &c)) {
		_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &once);
		pause();
	}
	wait_until_computed(&c, all / 16);
	return __kill_computing(_metadata, &c);
}

/*
 * Also before anything is pinned, while it only looks at mappings. An emulator's clock runs
 * on while the machine does something else, so the lowest of some counts.
 */
TEST_F(starvation, by_a_list_ends_when_the_process_is_killed)
{
	struct list list = __list_of_many_vmas(_metadata, self->addr);
	struct vmemexp_export cmd = list_args(list.ranges, list.nr, O_RDWR);
	uint64_t all = UINT64_MAX, least = UINT64_MAX, took;

	give_memlock(LIMIT * PAGE);
	for (int i = 0; i < 3; i++) {
		struct vmemexp_export once = cmd;

		took = computed(CLOCK_PROCESS_CPUTIME_ID);
		ASSERT_EQ(-ENOMEM, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &once));
		took = computed(CLOCK_PROCESS_CPUTIME_ID) - took;
		all = took < all ? took : all;
	}
	for (int i = 0; i < 10 && least >= all / 2; i++) {
		took = __kill_in_list(_metadata, self->fd, &cmd, all);
		TH_LOG("refused after %llu us, dead in %llu us", (unsigned long long)all / 1000,
		       (unsigned long long)took / 1000);
		least = took < least ? took : least;
	}
	EXPECT_GT(all / 2, least);
}

/* Other holders of the dma-buf, and root, who reads the list of all. */
static void __use_beside_sync(struct __test_metadata *_metadata, int fd, int session, int dmabuf)
{
	__test_query(_metadata, fd, dmabuf);
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	test_importer_unmap(session);
	test_importer_detach(session);
	ASSERT_EQ(0, seteuid(0));
	EXPECT_LE(0, read_counter("/sys/kernel/debug/vmemexp/buffers", "ino"));
	ASSERT_EQ(0, seteuid(USER));
}

#define SYNC_PARTS	256

/*
 * Kills a child that computes for SYNC_PARTS times @part in a sync, which others may use the
 * buffer beside. Returns how long it computed in the end.
 */
static uint64_t __kill_in_sync(struct __test_metadata *_metadata, int fd, int session, int dmabuf,
			       uint64_t part)
{
	struct computing c;

	if (!__fork_computing(_metadata, &c)) {
		_test_sync_rows(fd, dmabuf, VMEMEXP_SYNC_READ, 0, 1, 1, FILE_SIZE);
		pause();
	}
	wait_until_computed(&c, part);
	__use_beside_sync(_metadata, fd, session, dmabuf);
	return __kill_computing(_metadata, &c);
}

/*
 * If others had to wait for the sync, or the sync did not end when the process is killed, the
 * process would compute for as long as the whole sync takes.
 */
TEST_F(starvation, by_a_long_sync_keeps_nobody_waiting)
{
	int dmabuf = test_export(self->addr, FILE_SIZE, O_RDWR);
	uint64_t part = UINT64_MAX, least = UINT64_MAX, took;
	int device;

	/* A sync is long if a device needs it. Every kernel has one of these two that does. */
	ASSERT_EQ(0, seteuid(0));
	device = test_importer_open();
	ASSERT_EQ(0, seteuid(USER));
	if (_test_importer_attach(device, dmabuf, IMPORTER_DEV_SHADOW))
		test_importer_attach(device, dmabuf, IMPORTER_DEV_NONCOHERENT);
	test_importer_map(device, IMPORTER_BIDIRECTIONAL);

	for (int i = 0; i < 3; i++) {
		took = computed(CLOCK_PROCESS_CPUTIME_ID);
		test_sync_rows(dmabuf, VMEMEXP_SYNC_READ, 0, 1, 1, FILE_SIZE / SYNC_PARTS);
		took = computed(CLOCK_PROCESS_CPUTIME_ID) - took;
		part = took < part ? took : part;
	}
	/* The machine may do something else before the child is killed, but not each time. */
	for (int i = 0; i < 10 && least >= SYNC_PARTS / 2 * part; i++) {
		took = __kill_in_sync(_metadata, self->fd, self->session, dmabuf, part);
		TH_LOG("a part takes %llu us, dead in %llu us", (unsigned long long)part / 1000,
		       (unsigned long long)took / 1000);
		least = took < least ? took : least;
	}
	EXPECT_GT(SYNC_PARTS / 2 * part, least);
	close(device);
	close(dmabuf);
}

TEST_HARNESS_MAIN

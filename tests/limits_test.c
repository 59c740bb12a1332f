// SPDX-License-Identifier: GPL-2.0
/*
 * Limits that the administrator sets: RLIMIT_MEMLOCK, the number of buffers (module parameter
 * max_buffers=), file descriptors, a cgroup's memory, and the kinds of memory that may be exported
 * (module parameter allow=).
 */
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "lib/vmemexp_utils.h"

#define USER		65534
#define OTHER_USER	65533

#define LIMIT		16
#define BUF_PAGES	64

/*
 * The user that pages are charged to is the real one. Root stays the saved one,
 * so that a test can go back; its capabilities are gone until then.
 */
static void become(struct __test_metadata *_metadata, uid_t uid)
{
	ASSERT_EQ(0, setresuid(0, 0, 0));
	ASSERT_EQ(0, setresuid(uid, uid, 0));
}

static void set_limit(struct __test_metadata *_metadata, rlim_t bytes)
{
	struct rlimit limit = { .rlim_cur = bytes, .rlim_max = RLIM_INFINITY };

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
}

/* Puts @cap alone, or all but it, into the effective set. */
static void set_cap(struct __test_metadata *_metadata, int cap, bool only)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	ASSERT_EQ(0, syscall(SYS_capget, &header, data));
	for (int i = 0; i < 2; i++)
		data[i].effective = only ? 0 : data[i].permitted;
	data[0].effective ^= CAP_TO_MASK(cap);
	ASSERT_EQ(0, syscall(SYS_capset, &header, data));
}

/* ---- memory of each kind; *@size is a page, or becomes what there is ---- */

#define HUGE_POOL "/proc/sys/vm/nr_hugepages"

static void *map_anonymous(size_t *size)
{
	return map_anon(*size);
}

static void *map_shared_anonymous(size_t *size)
{
	return mmap(NULL, *size, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static size_t hugetlb_size(void)
{
	long kb = read_counter("/proc/meminfo", "Hugepagesize");

	return kb > 0 ? kb * 1024 : 0;
}

static void *map_hugetlb(size_t *size)
{
	*size = hugetlb_size();
	/* One more, for the copy that a child gets. */
	write_text(HUGE_POOL, "2");
	return map_huge_pages(*size, *size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
}

/* Some file that is not in memory alone. */
static void *map_page_cache(size_t *size)
{
	char candidates[2][256] = { "/proc/self/exe" };
	void *map = MAP_FAILED;
	struct utsname name;

	uname(&name);
	snprintf(candidates[1], sizeof(candidates[1]),
		 "/lib/modules/%s/modules.dep", name.release);
	for (int i = 0; i < 2 && map == MAP_FAILED; i++) {
		int fd = open(candidates[i], O_RDONLY);
		struct statfs fs;

		if (fd >= 0 && !fstatfs(fd, &fs) && fs.f_type != TMPFS_MAGIC &&
		    fs.f_type != (int)RAMFS_MAGIC)
			map = mmap(NULL, *size, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
	}
	return map;
}

static void *map_one_block_ring(size_t *size)
{
	return map_packet_ring(*size, 1);
}

/* Page frames of a carve-out, which is listed from then on. */
static void *map_page_frames(size_t *size)
{
	struct carveout_setup setup = {
		.region = 0, .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP,
	};
	struct carveout_info region;
	void *map = MAP_FAILED;
	int file;

	if (_test_carveout_info(setup.region, &region))
		return MAP_FAILED;
	file = _test_carveout_open(&setup);
	if (file >= 0 && !write_text(VMEMEXP_CARVEOUTS, carveout_text(&region)))
		map = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	return map;
}

/* ---- module parameters, and the pool of huge pages ---- */

#define MAX_BUFFERS	"/sys/module/vmemexp/parameters/max_buffers"

/* The parameters as the test found them, to be put back. */
struct old_parameters {
	char max_buffers[32];
	char carveouts[4096];
	char allow[128];
	char huge_pool[32];
};

static void save_parameters(struct __test_metadata *_metadata, struct old_parameters *old)
{
	ASSERT_LT(0, read_text(MAX_BUFFERS, old->max_buffers, sizeof(old->max_buffers)));
	ASSERT_LT(0, read_text(VMEMEXP_CARVEOUTS, old->carveouts, sizeof(old->carveouts)));
	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, old->allow, sizeof(old->allow)));
	ASSERT_LT(0, read_text(HUGE_POOL, old->huge_pool, sizeof(old->huge_pool)));
}

static void restore_parameters(struct __test_metadata *_metadata,
			       const struct old_parameters *old)
{
	EXPECT_EQ(0, write_text(MAX_BUFFERS, old->max_buffers));
	EXPECT_EQ(0, write_text(VMEMEXP_CARVEOUTS, old->carveouts));
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, old->allow));
	EXPECT_EQ(0, write_text(HUGE_POOL, old->huge_pool));
}

/* Root sets it, also for a user without privileges. */
static void __set_quota(struct __test_metadata *_metadata, unsigned int quota)
{
	uid_t euid = geteuid();
	char text[16];

	snprintf(text, sizeof(text), "%u", quota);
	ASSERT_EQ(0, seteuid(0));
	ASSERT_EQ(0, write_text(MAX_BUFFERS, text));
	ASSERT_EQ(0, seteuid(euid));
}

#define set_quota(quota) __set_quota(_metadata, quota)

/* ---- RLIMIT_MEMLOCK; tests run as USER with a limit of LIMIT pages ---- */

FIXTURE(limit)
{
	int fd;
	struct test_state before;
	char *buf;
	/* Opened by root, as no other can. */
	int session;
};

FIXTURE_SETUP(limit)
{
	test_setup();
	self->session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
	self->buf = guard_start(BUF_PAGES * page_size());
	ASSERT_NE(NULL, self->buf);
	set_limit(_metadata, LIMIT * page_size());
	become(_metadata, USER);
}

FIXTURE_TEARDOWN(limit)
{
	close(self->session);
	setresuid(0, 0, 0);
	test_teardown();
}

#define test_export_pages(nr) \
	test_export(self->buf, (nr) * page_size(), O_RDWR)

/* One page more than the user may still have. */
#define test_err_limit(nr)						\
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf, \
			(nr) * page_size(), O_RDWR)

/* The user has exactly @nr pages left. */
#define test_budget(nr) do {						\
	if ((nr) > 0)							\
		close(test_export_pages(nr));				\
	test_err_limit((nr) + 1);					\
} while (0)

TEST_F(limit, is_exact_to_the_page)
{
	test_budget(LIMIT);
	test_err_limit(BUF_PAGES);
}

TEST_F(limit, bytes_are_rounded_down_to_pages)
{
	set_limit(_metadata, (LIMIT + 1) * page_size() - 1);
	test_budget(LIMIT);
	set_limit(_metadata, LIMIT * page_size() - 1);
	test_budget(LIMIT - 1);
}

TEST_F(limit, of_nothing_allows_nothing)
{
	set_limit(_metadata, 0);
	test_budget(0);
	set_limit(_metadata, page_size() - 1);
	test_budget(0);
}

TEST_F(limit, of_infinity_is_none)
{
	set_limit(_metadata, RLIM_INFINITY);
	close(test_export_pages(BUF_PAGES));
}

TEST_F(limit, holds_for_read_only_buffers)
{
	close(test_export(self->buf, LIMIT * page_size(), O_RDONLY));
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf,
			(LIMIT + 1) * page_size(), O_RDONLY);
}

TEST_F(limit, reason_names_the_unaligned_address)
{
	struct vmemexp_export cmd = export_args(self->buf + 100, LIMIT *
						page_size(), O_RDWR);

	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_err_export_cmd(ENOMEM, VMEMEXP_REASON_LIMIT, cmd.vaddr, &cmd);
	/* The pages touched are what counts. */
	cmd.length -= 100;
	test_export_cmd(&cmd);
	test_budget(0);
	close(cmd.fd);
}

TEST_F(limit, several_buffers_add_up)
{
	int first = test_export_pages(10);
	int second = test_export(self->buf + 20 * page_size(),
				 (LIMIT - 10) * page_size(), O_RDWR);

	test_budget(0);
	close(second);
	test_budget(LIMIT - 10);
	close(first);
	test_budget(LIMIT);
}

TEST_F(limit, many_small_buffers_add_up)
{
	int fds[LIMIT];

	for (int i = 0; i < LIMIT; i++) {
		test_budget(LIMIT - i);
		fds[i] = test_export(self->buf + i * page_size(), page_size(),
				     O_RDWR);
	}
	test_budget(0);
	for (int i = 0; i < LIMIT; i++)
		close(fds[i]);
}

TEST_F(limit, same_page_counts_each_time)
{
	int first = test_export_pages(LIMIT / 2);
	int second = test_export_pages(LIMIT / 2);

	test_budget(0);
	close(first);
	test_budget(LIMIT / 2);
	close(second);
}

TEST_F(limit, is_free_again_after_close)
{
	for (int i = 0; i < 100; i++)
		close(test_export_pages(LIMIT));
	test_budget(LIMIT);
}

TEST_F(limit, is_not_used_up_by_failures)
{
	char *hole = self->buf + (LIMIT - 1) * page_size();
	struct vmemexp_export *read_only = map_anon(page_size());
	struct vmemexp_export cmd;

	for (int i = 0; i < 2 * LIMIT; i++)
		test_err_limit(LIMIT + 1);

	*read_only = export_args(self->buf, LIMIT * page_size(), O_RDWR);
	ASSERT_EQ(0, mprotect(read_only, page_size(), PROT_READ));
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT,
				       read_only));
	test_budget(LIMIT);

	ASSERT_EQ(0, munmap(hole, page_size()));
	test_err_export(EFAULT, VMEMEXP_REASON_NOT_MAPPED, hole, self->buf,
			LIMIT * page_size(), O_RDWR);
	cmd = export_args(hole + page_size(), 0, O_RDWR);
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, cmd.vaddr, &cmd);
	close(test_export(hole + page_size(), LIMIT * page_size(), O_RDWR));
}

TEST_F(limit, charge_shows_in_proc)
{
	long before = accounted_pages();
	int fd = test_export_pages(LIMIT);

	EXPECT_EQ(before + LIMIT, accounted_pages());
	close(fd);
	EXPECT_EQ(before, accounted_pages());
}

TEST_F(limit, child_does_not_get_its_own)
{
	int fd = test_export_pages(LIMIT - 1);
	pid_t pid = fork_child();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct vmemexp_export cmd = export_args(self->buf, 2 *
							page_size(), O_RDWR);

		if (_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd) != -ENOMEM)
			_exit(1);
		cmd.length = page_size();
		_exit(_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd) ? 2 : 0);
	}
	EXPECT_EQ(0, wait_for_child(pid));
	test_budget(1);
	close(fd);
}

struct race {
	int device;
	char *buf;
	int tries, won;
	/* Pages held by all at this moment, and the most ever. */
	int *held, *most;
};

static void *race_for_pages(void *arg)
{
	struct race *race = arg;
	int now;

	for (int i = 0; i < race->tries; i++) {
		struct vmemexp_export cmd = export_args(race->buf, (LIMIT - 1) *
							page_size(), O_RDWR);

		if (_test_ioctl(race->device, VMEMEXP_IOC_EXPORT, &cmd))
			continue;
		race->won++;
		now = __sync_add_and_fetch(race->held, 1);
		if (now > 1)
			__sync_lock_test_and_set(race->most, now);
		sched_yield();
		__sync_sub_and_fetch(race->held, 1);
		close(cmd.fd);
	}
	return NULL;
}

TEST_F(limit, racing_threads_do_not_exceed_it)
{
	int held = 0, most = 1;
	struct race race[4];
	pthread_t threads[4];

	for (int i = 0; i < 4; i++) {
		race[i] = (struct race){ self->fd, self->buf, 500, 0, &held,
					 &most };
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, race_for_pages,
					    &race[i]));
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(1, most);
	EXPECT_LT(0, race[0].won + race[1].won + race[2].won + race[3].won);
	test_budget(LIMIT);
}

TEST_F(limit, is_each_users_own)
{
	int fd = test_export_pages(LIMIT), other;

	become(_metadata, OTHER_USER);
	test_budget(LIMIT);
	other = test_export_pages(LIMIT);
	become(_metadata, USER);
	test_budget(0);
	close(fd);
	test_budget(LIMIT);
	close(other);
}

TEST_F(limit, charge_stays_with_the_exporter_whoever_closes)
{
	int fd = test_export_pages(LIMIT);

	become(_metadata, OTHER_USER);
	close(fd);
	test_budget(LIMIT);
	become(_metadata, USER);
	test_budget(LIMIT);
}

TEST_F(limit, does_not_hold_for_cap_ipc_lock)
{
	int fd;

	set_cap(_metadata, CAP_IPC_LOCK, true);
	fd = test_export_pages(BUF_PAGES);
	/* It was charged all the same. */
	become(_metadata, USER);
	test_budget(0);
	close(fd);
	test_budget(LIMIT);
}

TEST_F(limit, holds_for_root_without_cap_ipc_lock)
{
	become(_metadata, 0);
	set_limit(_metadata, 0);
	set_cap(_metadata, CAP_IPC_LOCK, false);
	test_err_limit(1);
	/* This brings back all capabilities. */
	become(_metadata, USER);
	become(_metadata, 0);
	close(test_export_pages(1));
}

/* ---- the charge lasts until the last reference to the buffer is gone ---- */

enum holder {
	HOLD_BY_DUP, HOLD_BY_MMAP, HOLD_BY_SOCKET, HOLD_BY_PROCESS,
	HOLD_BY_ATTACHMENT,
};

struct hold {
	int file;
	int sockets[2];
	void *map;
	pid_t pid;
	/* A session of the importer, opened before it is needed. */
	int session;
};

FIXTURE(held)
{
	int fd;
	struct test_state before;
	struct old_parameters old;
	char *buf;
	struct hold hold;
};

FIXTURE_VARIANT(held)
{
	enum holder holder;
};

FIXTURE_VARIANT_ADD(held, by_a_duplicate)
{
	.holder = HOLD_BY_DUP,
};

FIXTURE_VARIANT_ADD(held, by_a_mapping)
{
	.holder = HOLD_BY_MMAP,
};

FIXTURE_VARIANT_ADD(held, by_a_message_in_flight)
{
	.holder = HOLD_BY_SOCKET,
};

FIXTURE_VARIANT_ADD(held, by_another_process)
{
	.holder = HOLD_BY_PROCESS,
};

FIXTURE_VARIANT_ADD(held, by_an_importing_device)
{
	.holder = HOLD_BY_ATTACHMENT,
};

FIXTURE_SETUP(held)
{
	if (variant->holder == HOLD_BY_ATTACHMENT)
		skip_without_importer();
	test_setup();
	save_parameters(_metadata, &self->old);
	self->hold.session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
	self->buf = guard_start(BUF_PAGES * page_size());
	ASSERT_NE(NULL, self->buf);
	set_limit(_metadata, LIMIT * page_size());
	become(_metadata, USER);
}

FIXTURE_TEARDOWN(held)
{
	close(self->hold.session);
	setresuid(0, 0, 0);
	restore_parameters(_metadata, &self->old);
	test_teardown();
}

static void take_hold(struct __test_metadata *_metadata, enum holder holder,
		      struct hold *hold, int dmabuf)
{
	switch (holder) {
	case HOLD_BY_DUP:
		hold->file = dup(dmabuf);
		ASSERT_LE(0, hold->file);
		break;
	case HOLD_BY_MMAP:
		hold->map = mmap(NULL, page_size(), PROT_READ, MAP_SHARED,
				 dmabuf, 0);
		ASSERT_NE(MAP_FAILED, hold->map);
		break;
	case HOLD_BY_SOCKET:
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0,
					hold->sockets));
		ASSERT_EQ(0, send_fd(hold->sockets[0], dmabuf));
		break;
	case HOLD_BY_PROCESS:
		hold->pid = fork_child();
		ASSERT_LE(0, hold->pid);
		if (!hold->pid) {
			pause();
			_exit(0);
		}
		break;
	case HOLD_BY_ATTACHMENT:
		test_importer_attach(hold->session, dmabuf,
				     IMPORTER_DEV_COHERENT);
		break;
	}
}

static void let_go(struct __test_metadata *_metadata, enum holder holder,
		   const struct hold *hold)
{
	switch (holder) {
	case HOLD_BY_DUP:
		close(hold->file);
		break;
	case HOLD_BY_MMAP:
		ASSERT_EQ(0, munmap(hold->map, page_size()));
		break;
	case HOLD_BY_SOCKET:
		close(hold->sockets[0]);
		close(hold->sockets[1]);
		break;
	case HOLD_BY_PROCESS:
		ASSERT_EQ(0, kill(hold->pid, SIGKILL));
		ASSERT_EQ(128 + SIGKILL, wait_for_child(hold->pid));
		break;
	case HOLD_BY_ATTACHMENT:
		test_importer_detach(hold->session);
		break;
	}
}

/* References may be dropped a moment after the call that ended them. */
#define test_budget_soon(nr) do {					\
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS; ms += 10) {		\
		struct vmemexp_export cmd = export_args(self->buf,	\
			(nr) * page_size(), O_RDWR);			\
									\
		if (!_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd)) {	\
			close(cmd.fd);					\
			break;						\
		}							\
		sleep_ms(10);						\
	}								\
	test_budget(nr);						\
} while (0)

TEST_F(held, stays_charged)
{
	int fd = test_export_pages(LIMIT);

	take_hold(_metadata, variant->holder, &self->hold, fd);
	close(fd);
	test_budget(0);
	let_go(_metadata, variant->holder, &self->hold);
	test_budget_soon(LIMIT);
}

TEST_F(held, counts_as_a_buffer)
{
	int fd = test_export_pages(1);

	set_quota(1);
	take_hold(_metadata, variant->holder, &self->hold, fd);
	close(fd);
	test_err_export(EDQUOT, VMEMEXP_REASON_QUOTA, self->buf, self->buf, page_size(), O_RDWR);
	let_go(_metadata, variant->holder, &self->hold);
	set_limit(_metadata, page_size());
	test_budget_soon(1);
}

TEST_F(held, stays_charged_after_the_source_is_unmapped)
{
	int fd = test_export_pages(LIMIT);

	take_hold(_metadata, variant->holder, &self->hold, fd);
	close(fd);
	ASSERT_EQ(0, munmap(self->buf, LIMIT * page_size()));
	self->buf += LIMIT * page_size();
	test_budget(0);
	let_go(_metadata, variant->holder, &self->hold);
	test_budget_soon(LIMIT);
}

TEST_F(held, stays_charged_after_the_exporter_exits)
{
	int sockets[2], fd;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct vmemexp_export cmd = export_args(self->buf, LIMIT *
							page_size(), O_RDWR);

		if (_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd))
			_exit(1);
		_exit(send_fd(sockets[1], cmd.fd) ? 2 : 0);
	}
	ASSERT_EQ(0, wait_for_child(pid));
	fd = receive_fd(sockets[0]);
	ASSERT_LE(0, fd);
	close(sockets[0]);
	close(sockets[1]);
	test_budget(0);

	take_hold(_metadata, variant->holder, &self->hold, fd);
	close(fd);
	test_budget(0);
	let_go(_metadata, variant->holder, &self->hold);
	test_budget_soon(LIMIT);
}

/* ---- huge pages: all of one is kept in memory, whatever part is exported ---- */

#define NR_HUGE	3

static size_t thp_size(void)
{
	char text[32];

	if (read_text("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
		      text, sizeof(text)) < 0)
		return 0;
	return strtoul(text, NULL, 10);
}

FIXTURE(huge)
{
	int fd;
	struct test_state before;
	/* NR_HUGE huge pages of @size bytes each. */
	char *buf;
	size_t size;
	/* As many bytes in small pages. */
	char *small;
	char old_pool[32];
};

FIXTURE_VARIANT(huge)
{
	size_t (*size)(void);
	const char *missing;
	bool hugetlb;
};

FIXTURE_VARIANT_ADD(huge, hugetlb)
{
	.size = hugetlb_size,
	.missing = "hugetlb pages",
	.hugetlb = true,
};

FIXTURE_VARIANT_ADD(huge, transparent)
{
	.size = thp_size,
	.missing = "transparent huge pages",
};

static char *map_hugetlb_pages(size_t size)
{
	return map_huge_pages(NR_HUGE * size, size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
}

static char *map_transparent(struct __test_metadata *_metadata, size_t size)
{
	char *area = map_anon((NR_HUGE + 1) * size);

	ASSERT_NE(MAP_FAILED, area);
	area += -(uintptr_t)area & (size - 1);
	ASSERT_EQ(0, madvise(area, NR_HUGE * size, MADV_HUGEPAGE));
	for (int i = 0; i < NR_HUGE; i++)
		area[i * size] = 1;
	/* Not only asked for. */
	ASSERT_EQ(0, collapse(area, NR_HUGE * size));
	return area;
}

FIXTURE_SETUP(huge)
{
	test_setup();
	self->size = variant->size();
	if (!self->size)
		SKIP(return, "the kernel has no %s", variant->missing);
	ASSERT_LT(0, read_text(HUGE_POOL, self->old_pool,
			       sizeof(self->old_pool)));
	ASSERT_EQ(0, write_text(HUGE_POOL, "3"));
	self->buf = variant->hugetlb ? map_hugetlb_pages(self->size) :
				       map_transparent(_metadata, self->size);
	ASSERT_NE(MAP_FAILED, self->buf);
	self->small = map_anon(NR_HUGE * self->size);
	ASSERT_NE(MAP_FAILED, self->small);
	ASSERT_EQ(0, forbid_thp(self->small, NR_HUGE * self->size));
	set_limit(_metadata, self->size);
	become(_metadata, USER);
}

FIXTURE_TEARDOWN(huge)
{
	setresuid(0, 0, 0);
	munmap(self->buf, NR_HUGE * self->size);
	write_text(HUGE_POOL, self->old_pool);
	test_teardown();
}

/* The user has exactly @bytes left. */
#define test_bytes_left(bytes) do {					\
	size_t left = bytes;						\
									\
	if (left)							\
		close(test_export(self->small, left, O_RDWR));		\
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->small,	\
			self->small, left + page_size(), O_RDWR);	\
} while (0)

TEST_F(huge, page_costs_all_its_bytes)
{
	int fd;

	set_limit(_metadata, self->size - page_size());
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf,
			self->size, O_RDWR);
	test_bytes_left(self->size - page_size());

	/* And no more. */
	set_limit(_metadata, self->size);
	fd = test_export(self->buf, self->size, O_RDWR);
	EXPECT_EQ((long)(self->size / page_size()), accounted_pages());
	test_bytes_left(0);
	close(fd);
	test_bytes_left(self->size);
}

TEST_F(huge, part_of_a_page_costs_the_whole)
{
	char *part = self->buf + self->size - page_size();
	int fd;

	set_limit(_metadata, self->size - page_size());
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, part, part, page_size(),
			O_RDWR);
	test_bytes_left(self->size - page_size());

	set_limit(_metadata, self->size + page_size());
	fd = test_export(part, page_size(), O_RDWR);
	EXPECT_EQ((long)(self->size / page_size()), accounted_pages());
	test_bytes_left(page_size());
	close(fd);
	EXPECT_EQ(0, accounted_pages());
	test_bytes_left(self->size + page_size());
}

TEST_F(huge, parts_of_two_pages_cost_both)
{
	char *part = self->buf + self->size - page_size();
	int fd;

	set_limit(_metadata, 2 * self->size - page_size());
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, part, part,
			2 * page_size(), O_RDWR);
	set_limit(_metadata, 2 * self->size);
	fd = test_export(part, 2 * page_size(), O_RDWR);
	test_bytes_left(0);
	close(fd);
	test_bytes_left(2 * self->size);
}

TEST_F(huge, a_buffer_for_each_part_adds_up)
{
	int fds[NR_HUGE];

	set_limit(_metadata, NR_HUGE * self->size);
	for (int i = 0; i < NR_HUGE; i++) {
		fds[i] = test_export(self->buf + i * self->size, page_size(),
				     O_RDWR);
		test_bytes_left((NR_HUGE - 1 - i) * self->size);
	}
	for (int i = 0; i < NR_HUGE; i++)
		close(fds[i]);
	test_bytes_left(NR_HUGE * self->size);
}

TEST_F(huge, part_costs_the_whole_after_the_rest_is_unmapped)
{
	int fd = test_export(self->buf, page_size(), O_RDWR);

	ASSERT_EQ(0, munmap(self->buf, self->size));
	test_bytes_left(0);
	close(fd);
	test_bytes_left(self->size);
}

/* ---- ... and once, however its pieces alternate with those of others ---- */

#define TMPFS		"/tmp/vmemexp-huge"
#define MAX_HUGE	64

struct pieces {
	int fd;
	size_t size;		/* of a huge page */
	unsigned int nr;	/* of them there are */
	char *huge;
	int file;
	char *range;		/* what they are put together to */
	size_t length;
	bool used[MAX_HUGE];	/* huge pages that are in it */
	long small;		/* small pages that are in it */
};

FIXTURE(pieces)
{
	int fd;
	struct test_state before;
	struct pieces pieces;
	char old_pool[32];
};

enum source { ANON_THP, SHMEM_THP, HUGETLB };

FIXTURE_VARIANT(pieces)
{
	enum source source;
};

/* mremap() takes their pages out of the memory where they are huge ones. */
FIXTURE_VARIANT_ADD(pieces, of_anonymous_memory)
{
	.source = ANON_THP,
};

FIXTURE_VARIANT_ADD(pieces, of_shared_memory)
{
	.source = SHMEM_THP,
};

/* They are mapped as a whole only. */
FIXTURE_VARIANT_ADD(pieces, of_hugetlb)
{
	.source = HUGETLB,
};

static int open_huge_tmpfs(struct __test_metadata *_metadata)
{
	int fd;

	mkdir(TMPFS, 0700);
	ASSERT_EQ(0, mount("tmpfs", TMPFS, "tmpfs", 0, "huge=always"));
	fd = open(TMPFS "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	/* It goes with its file. */
	ASSERT_EQ(0, umount2(TMPFS, MNT_DETACH));
	ASSERT_LE(0, fd);
	return fd;
}

FIXTURE_SETUP(pieces)
{
	test_setup();
	self->pieces.fd = self->fd;
	self->pieces.size = variant->source == HUGETLB ? hugetlb_size() : thp_size();
	if (!self->pieces.size)
		SKIP(return, "the kernel has no %s", variant->source == HUGETLB ?
		     "hugetlb pages" : "transparent huge pages");
	ASSERT_LT(0, read_text(HUGE_POOL, self->old_pool, sizeof(self->old_pool)));
	self->pieces.file = -1;
	if (variant->source == SHMEM_THP)
		self->pieces.file = open_huge_tmpfs(_metadata);
	set_limit(_metadata, 0);
	become(_metadata, USER);
}

FIXTURE_TEARDOWN(pieces)
{
	setresuid(0, 0, 0);
	munmap(self->pieces.range, MAX_HUGE * self->pieces.size);
	munmap(self->pieces.huge, self->pieces.nr * self->pieces.size);
	close(self->pieces.file);
	write_text(HUGE_POOL, self->old_pool);
	test_teardown();
}

static void make_pieces(struct __test_metadata *_metadata, struct pieces *self,
			enum source source, unsigned int nr)
{
	size_t size = nr * self->size;
	char *area = map_anon(size + self->size);

	ASSERT_NE(MAP_FAILED, area);
	area += -(uintptr_t)area & (self->size - 1);
	self->nr = nr;
	self->huge = area;
	if (source == HUGETLB) {
		char count[16];

		snprintf(count, sizeof(count), "%u", nr);
		become(_metadata, 0);
		ASSERT_EQ(0, write_text(HUGE_POOL, count));
		become(_metadata, USER);
		self->file = memfd_create("vmemexp test", MFD_HUGETLB | MFD_CLOEXEC);
		ASSERT_LE(0, self->file);
	}
	if (source != ANON_THP) {
		ASSERT_EQ(0, ftruncate(self->file, size));
		ASSERT_EQ(area, mmap(area, size, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_FIXED, self->file, 0));
	} else {
		ASSERT_EQ(0, madvise(area, size, MADV_HUGEPAGE));
	}
	for (unsigned int i = 0; i < nr; i++)
		area[i * self->size] = 1;
	/* Not only asked for. */
	if (source == ANON_THP)
		ASSERT_EQ(0, collapse(area, size));
	if (source == SHMEM_THP)
		ASSERT_EQ(size / 1024, strtoul(smaps_field(area, "ShmemPmdMapped:"), NULL, 10));

	self->range = map_huge_pages(MAX_HUGE * self->size, self->size, PROT_NONE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	ASSERT_NE(MAP_FAILED, self->range);
}

/* Puts @pages from page @first of huge page @i on behind what is there. */
static void put_piece(struct __test_metadata *_metadata, struct pieces *self,
		      unsigned int i, size_t first, size_t pages)
{
	size_t offset = i * self->size + first * page_size(), length = pages * page_size();
	char *to = self->range + self->length;

	if (self->file < 0) {
		ASSERT_EQ(to, mremap(self->huge + offset, length, length,
				     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	} else {
		ASSERT_EQ(to, mmap(to, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				   self->file, offset));
	}
	self->used[i] = true;
	self->length += length;
}

static void put_small(struct __test_metadata *_metadata, struct pieces *self,
		      size_t pages)
{
	char *to = self->range + self->length;
	size_t length = pages * page_size();

	ASSERT_EQ(to, mmap(to, length, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, forbid_thp(to, length));
	self->small += pages;
	self->length += length;
}

/*
 * Check the charge for @length bytes from @range on: pages of the folios that they keep, or pages
 * of the range if these are more, since a page may be in it more than once.
 */
static void check_cost(struct __test_metadata *_metadata, struct pieces *self,
		       char *range, size_t length)
{
	long pages = length / page_size(), cost = self->small;
	int fd;

	for (unsigned int i = 0; i < self->nr; i++)
		cost += self->used[i] ? self->size / page_size() : 0;
	cost = cost > pages ? cost : pages;

	set_limit(_metadata, cost * page_size());
	for (int fd_flags = O_RDONLY; fd_flags <= O_RDWR; fd_flags += O_RDWR - O_RDONLY) {
		fd = test_export(range, length, fd_flags);
		EXPECT_EQ(cost, accounted_pages());
		close(fd);
		EXPECT_EQ(0, accounted_pages());
	}
	set_limit(_metadata, (cost - 1) * page_size());
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, range, range, length, O_RDWR);
	set_limit(_metadata, cost * page_size());
}

#define check_all_cost() \
	check_cost(_metadata, &self->pieces, self->pieces.range, self->pieces.length)

/* All pages of hugetlb's, or so many. */
#define piece_pages(pages) \
	(variant->source == HUGETLB ? self->pieces.size / page_size() : (pages))

#define put_next(i, n, pages) \
	put_piece(_metadata, &self->pieces, i, variant->source == HUGETLB ? 0 : (n) * (pages), \
		  piece_pages(pages))

TEST_F(pieces, of_two_huge_pages_cost_both_once)
{
	const size_t page = page_size(), size = self->pieces.size;

	make_pieces(_metadata, &self->pieces, variant->source, 2);
	for (unsigned int i = 0; i < (variant->source == HUGETLB ? 6 : 128); i++)
		put_next(i % 2, i / 2, 1);
	check_all_cost();
	/* The edges of one, with the other one in between. */
	if (variant->source == HUGETLB)
		check_cost(_metadata, &self->pieces, self->pieces.range + 3 * size - page,
			   size + 2 * page);
}

TEST_F(pieces, of_many_huge_pages_cost_each_once)
{
	const unsigned int nr = variant->source == HUGETLB ? MAX_HUGE / 4 : MAX_HUGE;

	make_pieces(_metadata, &self->pieces, variant->source, nr);
	for (unsigned int i = 0; i < 3 * nr; i++)
		put_next(i % nr, i / nr, 1);
	check_all_cost();
}

TEST_F(pieces, of_two_huge_pages_cost_no_more_if_that_is_all_of_both)
{
	make_pieces(_metadata, &self->pieces, variant->source, 2);
	for (unsigned int i = 0; self->pieces.length < 2 * self->pieces.size; i++)
		put_next(i % 2, i / 2, 1);
	check_all_cost();
}

TEST_F(pieces, between_small_pages_cost_their_huge_page_once)
{
	make_pieces(_metadata, &self->pieces, variant->source, 1);
	for (unsigned int i = 0; i < 16; i++) {
		put_next(0, i, 3);
		put_small(_metadata, &self->pieces, piece_pages(1));
	}
	check_all_cost();
}

/* The same one each time, so that less is kept in memory than that. */
TEST_F(pieces, cost_each_page_of_the_range)
{
	const size_t length = self->pieces.size + 88 * page_size();

	make_pieces(_metadata, &self->pieces, variant->source, 1);
	while (self->pieces.length < length) {
		if (variant->source != ANON_THP)
			put_next(0, 0, 1);
		else if (self->pieces.length < self->pieces.size)
			put_next(0, self->pieces.length / page_size(), 1);
		else
			put_small(_metadata, &self->pieces, 1);
	}
	check_all_cost();
}

/* ---- max_buffers= ---- */

#define QUOTA		5

/* The quota counts each kind of memory. Tests run as USER, with an unlimited RLIMIT_MEMLOCK. */
FIXTURE(quota)
{
	int fd;
	struct test_state before;
	struct old_parameters old;
	char *buf;
	size_t size;
};

FIXTURE_VARIANT(quota)
{
	unsigned int memory;
	unsigned int fd_flags;
	void *(*map)(size_t *size);
	const char *missing;
};

FIXTURE_VARIANT_ADD(quota, anon)
{
	.memory = VMEMEXP_MEMORY_ANON,
	.fd_flags = O_RDWR,
	.map = map_anonymous,
};

FIXTURE_VARIANT_ADD(quota, anon_read_only)
{
	.memory = VMEMEXP_MEMORY_ANON,
	.fd_flags = O_RDONLY,
	.map = map_anonymous,
};

FIXTURE_VARIANT_ADD(quota, shmem)
{
	.memory = VMEMEXP_MEMORY_SHMEM,
	.fd_flags = O_RDWR,
	.map = map_shared_anonymous,
};

FIXTURE_VARIANT_ADD(quota, hugetlb)
{
	.memory = VMEMEXP_MEMORY_HUGETLB,
	.fd_flags = O_RDWR,
	.map = map_hugetlb,
	.missing = "the kernel has no hugetlb pages",
};

FIXTURE_VARIANT_ADD(quota, file)
{
	.memory = VMEMEXP_MEMORY_FILE,
	.fd_flags = O_RDONLY,
	.map = map_page_cache,
	.missing = "there is no file outside of tmpfs and ramfs",
};

FIXTURE_VARIANT_ADD(quota, driver)
{
	.memory = VMEMEXP_MEMORY_DRIVER,
	.fd_flags = O_RDWR,
	.map = map_one_block_ring,
	.missing = "the kernel has no packet sockets",
};

FIXTURE_VARIANT_ADD(quota, pfnmap)
{
	.memory = VMEMEXP_MEMORY_PFNMAP,
	.fd_flags = O_RDWR,
	.map = map_page_frames,
	.missing = "the module vmemexp_carveout is not loaded",
};

FIXTURE_SETUP(quota)
{
	test_setup();
	save_parameters(_metadata, &self->old);
	self->size = page_size();
	self->buf = variant->map(&self->size);
	if (self->buf == MAP_FAILED && variant->missing)
		SKIP(return, "%s", variant->missing);
	ASSERT_NE(MAP_FAILED, self->buf);
	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "anon,shmem,hugetlb,file,driver,pfnmap,dmabuf"));
	set_limit(_metadata, RLIM_INFINITY);
	set_quota(QUOTA);
	become(_metadata, USER);
}

FIXTURE_TEARDOWN(quota)
{
	setresuid(0, 0, 0);
	munmap(self->buf, self->size);
	restore_parameters(_metadata, &self->old);
	test_teardown();
}

#define test_export_one() test_export(self->buf, self->size, variant->fd_flags)

#define test_err_quota()						\
	test_err_export(EDQUOT, VMEMEXP_REASON_QUOTA, self->buf,	\
			self->buf, self->size, variant->fd_flags)

/* The user may have exactly @nr more, which are closed again. */
#define test_quota_left(nr) do {					\
	int __fds[QUOTA + 1], __nr = nr;				\
									\
	for (int __i = 0; __i < __nr; __i++)				\
		__fds[__i] = test_export_one();				\
	test_err_quota();						\
	for (int __i = 0; __i < __nr; __i++)				\
		close(__fds[__i]);					\
} while (0)

TEST_F(quota, is_exact)
{
	struct vmemexp_export cmd = export_args(self->buf, self->size, variant->fd_flags);
	int fds[QUOTA];

	for (int i = 0; i < QUOTA; i++)
		fds[i] = test_export_one();
	EXPECT_EQ(variant->memory, test_query(fds[0]).memory);
	test_err_quota();
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	cmd.vaddr += 100;
	cmd.length -= 100;
	test_err_export_cmd(EDQUOT, VMEMEXP_REASON_QUOTA, cmd.vaddr, &cmd);

	/* Whichever of them goes. */
	for (int i = QUOTA - 1; i >= 0; i--) {
		close(fds[i]);
		test_quota_left(1);
		fds[i] = test_export_one();
	}
	for (int i = 0; i < QUOTA; i++) {
		close(fds[i]);
		test_quota_left(i + 1);
	}
}

TEST_F(quota, is_not_used_up_by_failures)
{
	struct vmemexp_export cmd = export_args(self->buf, self->size, variant->fd_flags);
	struct vmemexp_export *locked = map_anon(page_size());

	*locked = cmd;
	ASSERT_EQ(0, mprotect(locked, page_size(), PROT_READ));
	for (int i = 0; i < 2 * QUOTA; i++) {
		/* Before there is anything, half-way, and when all is there. */
		test_err_export(EINVAL, VMEMEXP_REASON_LENGTH, self->buf, self->buf, 0,
				variant->fd_flags);
		ASSERT_EQ(0, seteuid(0));
		ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "dmabuf"));
		ASSERT_EQ(0, seteuid(USER));
		test_err_export(EPERM, VMEMEXP_REASON_KIND, self->buf, self->buf, self->size,
				variant->fd_flags);
		ASSERT_EQ(0, seteuid(0));
		ASSERT_EQ(0, write_text(VMEMEXP_ALLOW,
					"anon,shmem,hugetlb,file,driver,pfnmap,dmabuf"));
		ASSERT_EQ(0, seteuid(USER));
		EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, locked));
	}
	test_quota_left(QUOTA);
	munmap(locked, page_size());
}

TEST_F(quota, is_one_for_parent_and_child)
{
	int fd = test_export_one();
	pid_t pid = fork_child();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct vmemexp_export cmd = export_args(self->buf, self->size,
							variant->fd_flags);

		/* All stay open until the child exits. */
		for (int i = 1; i < QUOTA; i++)
			if (_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd))
				_exit(1);
		_exit(_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd) != -EDQUOT ||
		      cmd.err_reason != VMEMEXP_REASON_QUOTA);
	}
	EXPECT_EQ(0, wait_for_child(pid));
	test_quota_left(QUOTA - 1);
	close(fd);
	test_quota_left(QUOTA);
}

TEST_F(quota, is_each_users_own)
{
	int fd = test_export_one();

	become(_metadata, OTHER_USER);
	test_quota_left(QUOTA);
	become(_metadata, USER);
	test_quota_left(QUOTA - 1);
	/* It counts for its exporter whichever user closes it. */
	become(_metadata, OTHER_USER);
	close(fd);
	test_quota_left(QUOTA);
	become(_metadata, USER);
	test_quota_left(QUOTA);
}

/* ---- max_buffers=, of anonymous memory ---- */

FIXTURE(buffers)
{
	int fd;
	struct test_state before;
	struct old_parameters old;
	char *buf;
	size_t size;
};

FIXTURE_VARIANT(buffers)
{
	unsigned int fd_flags;
};

FIXTURE_VARIANT_ADD(buffers, of_anonymous_memory)
{
	.fd_flags = O_RDWR,
};

FIXTURE_SETUP(buffers)
{
	test_setup();
	save_parameters(_metadata, &self->old);
	self->size = page_size();
	self->buf = guard_start(self->size);
	ASSERT_NE(NULL, self->buf);
	set_limit(_metadata, RLIM_INFINITY);
}

FIXTURE_TEARDOWN(buffers)
{
	setresuid(0, 0, 0);
	restore_parameters(_metadata, &self->old);
	test_teardown();
}

TEST_F(buffers, are_4096_by_default)
{
	struct rlimit files = { 4200, 4200 };
	int *fds = malloc(4096 * sizeof(*fds));

	ASSERT_STREQ("4096\n", self->old.max_buffers);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	become(_metadata, USER);
	for (int i = 0; i < 4096; i++) {
		struct vmemexp_export cmd = export_args(self->buf, self->size, O_RDWR);

		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd)) {
			TH_LOG("buffer %d", i);
		}
		fds[i] = cmd.fd;
	}
	test_err_quota();
	close(fds[77]);
	fds[77] = test_export_one();
	test_err_quota();
	for (int i = 0; i < 4096; i++)
		close(fds[i]);
	free(fds);
}

TEST_F(buffers, may_be_any_number)
{
	static const char * const good[] = { "0", "1", "4294967295", "0x10", "7\n" };
	static const char * const shown[] = { "0\n", "1\n", "4294967295\n", "16\n", "7\n" };
	static const char * const bad[] = {
		"", "\n", "-1", "nonsense", "5x", "x5", "4294967296", "1 2", "1,2", "0x",
		"18446744073709551617",
	};
	char now[32];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(0, write_text(MAX_BUFFERS, good[i]));
		ASSERT_LT(0, read_text(MAX_BUFFERS, now, sizeof(now)));
		EXPECT_STREQ(shown[i], now);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int ret = write_text(MAX_BUFFERS, bad[i]);

		/* There is no write of no bytes, and what is too large has an errno of its own. */
		if (*bad[i])
			EXPECT_TRUE(ret == -EINVAL || ret == -ERANGE) {
				TH_LOG("\"%s\": %s", bad[i], strerror(-ret));
			}
		ASSERT_LT(0, read_text(MAX_BUFFERS, now, sizeof(now)));
		EXPECT_STREQ("7\n", now);
	}
}

TEST_F(buffers, are_not_for_users_to_limit)
{
	char now[32];

	become(_metadata, USER);
	EXPECT_EQ(-EACCES, write_text(MAX_BUFFERS, "5000"));
	/* They may read what holds for them. */
	EXPECT_LT(0, read_text(MAX_BUFFERS, now, sizeof(now)));
	EXPECT_STREQ(self->old.max_buffers, now);
}

TEST_F(buffers, may_be_none)
{
	set_quota(0);
	become(_metadata, USER);
	test_quota_left(0);
	become(_metadata, 0);
	close(test_export_one());
}

TEST_F(buffers, that_live_stay_when_their_number_is_lowered)
{
	int fds[QUOTA];

	set_quota(QUOTA);
	become(_metadata, USER);
	for (int i = 0; i < QUOTA; i++)
		fds[i] = test_export_one();
	set_quota(2);
	test_err_quota();
	for (int i = 0; i < QUOTA; i++) {
		EXPECT_EQ(self->size, test_query(fds[i]).dmabuf_size);
		close(fds[i]);
		test_quota_left(QUOTA - 1 - i < 2 ? 2 - (QUOTA - 1 - i) : 0);
	}
	set_quota(QUOTA);
	test_quota_left(QUOTA);
}

TEST_F(buffers, are_not_limited_for_cap_sys_resource_but_counted)
{
	int fds[QUOTA + 2];

	set_quota(QUOTA);
	become(_metadata, USER);
	set_cap(_metadata, CAP_SYS_RESOURCE, true);
	for (int i = 0; i < QUOTA + 2; i++)
		fds[i] = test_export_one();
	/* This takes the capability away. */
	become(_metadata, USER);
	test_quota_left(0);
	for (int i = 0; i < 3; i++) {
		close(fds[i]);
		test_quota_left(i == 2);
	}
	for (int i = 3; i < QUOTA + 2; i++)
		close(fds[i]);
	test_quota_left(QUOTA);
}

TEST_F(buffers, are_limited_for_root_without_cap_sys_resource)
{
	int fd;

	set_quota(QUOTA);
	fd = test_export_one();
	set_cap(_metadata, CAP_SYS_RESOURCE, false);
	test_quota_left(QUOTA - 1);
	close(fd);
	test_quota_left(QUOTA);
}

static int count_in_namespace(int fd, const char *buf, size_t size)
{
	int buffers = 0;
	char map[32];

	snprintf(map, sizeof(map), "0 %d 1", USER);
	/* Else it could not write to its own /proc/self/uid_map. */
	if (setresuid(USER, USER, USER) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) ||
	    unshare(CLONE_NEWUSER) || write_text("/proc/self/uid_map", map) ||
	    setresuid(0, 0, 0) || geteuid())
		return 100;
	while (buffers < 2 * QUOTA) {
		struct vmemexp_export cmd = export_args(buf, size, O_RDWR);

		if (_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd))
			break;
		buffers++;
	}
	return buffers;
}

TEST_F(buffers, are_limited_for_root_of_a_user_namespace)
{
	int dmabuf;
	pid_t child;

	if (access("/proc/self/ns/user", F_OK))
		SKIP(return, "the kernel has no user namespaces");
	write_text("/proc/sys/kernel/unprivileged_userns_clone", "1");
	set_quota(QUOTA);
	become(_metadata, USER);
	dmabuf = test_export_one();
	child = fork_child();
	if (!child)
		_exit(count_in_namespace(self->fd, self->buf, self->size));
	EXPECT_EQ(QUOTA - 1, wait_for_child(child));
	test_quota_left(QUOTA - 1);
	close(dmabuf);
}

struct buffer_race {
	int device;
	const char *buf;
	/* Buffers that all threads have at this moment, and the most ever. */
	int *held, *most;
	int won, lost, wrong;
};

static void *race_for_buffers(void *arg)
{
	struct buffer_race *race = arg;

	for (int i = 0; i < 500; i++) {
		struct vmemexp_export cmd = export_args(race->buf, page_size(), O_RDWR);
		int ret = _test_ioctl(race->device, VMEMEXP_IOC_EXPORT, &cmd), now, most;

		if (ret) {
			race->lost++;
			race->wrong += ret != -EDQUOT || cmd.err_reason != VMEMEXP_REASON_QUOTA;
			continue;
		}
		race->won++;
		now = __sync_add_and_fetch(race->held, 1);
		do {
			most = *race->most;
		} while (now > most && !__sync_bool_compare_and_swap(race->most, most, now));
		sched_yield();
		__sync_sub_and_fetch(race->held, 1);
		close(cmd.fd);
	}
	return NULL;
}

TEST_F(buffers, are_never_more_with_racing_threads)
{
	int held = 0, most = 0, won = 0, lost = 0, wrong = 0;
	struct buffer_race races[6];
	pthread_t threads[6];

	set_quota(3);
	become(_metadata, USER);
	for (int i = 0; i < 6; i++) {
		races[i] = (struct buffer_race){ self->fd, self->buf, &held, &most, 0, 0, 0 };
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, race_for_buffers, &races[i]));
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		won += races[i].won;
		lost += races[i].lost;
		wrong += races[i].wrong;
	}
	EXPECT_GE(3, most);
	EXPECT_LT(0, won);
	EXPECT_LT(0, lost);
	EXPECT_EQ(0, wrong);
	test_quota_left(3);
}

/* The driver checks the mappings, then the number of buffers, then the size. */
TEST_F(buffers, are_counted_in_the_documented_order)
{
	char *hole = self->buf + page_size();

	set_quota(0);
	set_limit(_metadata, 0);
	become(_metadata, USER);
	test_err_export(EFAULT, VMEMEXP_REASON_NOT_READABLE, hole, self->buf, 2 * page_size(),
			O_RDWR);
	test_err_quota();
	set_quota(1);
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf, page_size(), O_RDWR);
	set_limit(_metadata, page_size());
	test_quota_left(1);
}

/* That makes no buffer. */
TEST_F(buffers, are_not_counted_when_a_mapping_of_one_is_exported)
{
	int dmabuf, again[QUOTA];
	void *view;

	set_quota(1);
	become(_metadata, USER);
	dmabuf = test_export_one();
	view = mmap(NULL, self->size, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf, 0);
	ASSERT_NE(MAP_FAILED, view);
	for (int i = 0; i < QUOTA; i++) {
		struct vmemexp_export cmd = export_args(view, self->size, O_RDWR);

		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
		EXPECT_EQ(VMEMEXP_MEMORY_DMABUF, cmd.memory & VMEMEXP_MEMORY_DMABUF);
		again[i] = cmd.fd;
	}
	test_quota_left(0);
	/* It is one for as long as any of them lives. */
	close(dmabuf);
	for (int i = 0; i < QUOTA; i++) {
		test_quota_left(0);
		close(again[i]);
	}
	test_quota_left(0);
	munmap(view, self->size);
	test_quota_left(1);
}

/*
 * Closes QUOTA descriptors here, and then in another process: the driver frees the buffers
 * behind its back, and maybe later.
 */
static void __close_elsewhere(struct __test_metadata *_metadata, const int *fds)
{
	int ends[2];
	pid_t child;
	char byte;

	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	child = fork_child();
	if (!child) {
		close(ends[1]);
		/* Until the parent has closed all of its own. */
		_exit(read(ends[0], &byte, 1));
	}
	for (int i = 0; i < QUOTA; i++)
		close(fds[i]);
	close(ends[0]);
	close(ends[1]);
	ASSERT_EQ(0, wait_for_child(child));
}

#define close_elsewhere(fds) __close_elsewhere(_metadata, fds)

#define LARGE_SIZE	(32UL << 20)

/* Buffers are counted until they are freed, which takes a while if they are large. */
TEST_F(buffers, are_freed_for_a_user_while_those_of_another_take_their_time)
{
	char *large = map_anon(LARGE_SIZE);
	int theirs[QUOTA], own[QUOTA];

	/* It takes longest page by page. */
	madvise(large, LARGE_SIZE, MADV_NOHUGEPAGE);
	memset(large, 1, LARGE_SIZE);
	set_quota(QUOTA);
	become(_metadata, OTHER_USER);
	for (int i = 0; i < QUOTA; i++)
		theirs[i] = test_export(large, LARGE_SIZE, O_RDWR);
	become(_metadata, USER);
	for (int i = 0; i < QUOTA; i++)
		own[i] = test_export_one();
	close_elsewhere(theirs);
	close_elsewhere(own);
	for (int i = 0; i < QUOTA; i++)
		own[i] = test_export_one();
	for (int i = 0; i < QUOTA; i++)
		close(own[i]);
	munmap(large, LARGE_SIZE);
}

/* Each export finds that all buffers are closed, and that some are not freed yet. */
TEST_F(buffers, that_another_process_has_closed_are_waited_for)
{
	int own[QUOTA];

	set_quota(QUOTA);
	become(_metadata, USER);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < QUOTA; i++)
			own[i] = test_export_one();
		close_elsewhere(own);
	}
}

/* ---- page frames: what the kernel needs to describe them ---- */

/* Bytes that the description of one extent is taken to cost. */
#define EXTENT_COST	512

#define MOST_EXTENTS	64

FIXTURE(frames)
{
	int fd;
	struct test_state before;
	struct old_parameters old;
	int file;
	char *buf;
};

FIXTURE_VARIANT(frames)
{
	unsigned int region;
};

FIXTURE_VARIANT_ADD(frames, outside_of_ram) {
	.region = 0,
};

FIXTURE_VARIANT_ADD(frames, of_ram) {
	.region = CARVEOUT_REGION_RAM,
};

FIXTURE_SETUP(frames)
{
	struct carveout_setup setup = {
		.region = variant->region, .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP,
	};
	struct carveout_info region;

	skip_without_carveout();
	test_setup();
	save_parameters(_metadata, &self->old);
	ASSERT_EQ(0, _test_carveout_info(variant->region, &region));
	ASSERT_EQ(0, write_text(VMEMEXP_CARVEOUTS, carveout_text(&region)));
	set_limit(_metadata, RLIM_INFINITY);
	self->file = _test_carveout_open(&setup);
	ASSERT_LE(0, self->file);
	/* Every second page, so that no two are neighbours. */
	self->buf = map_anon(MOST_EXTENTS * page_size());
	for (size_t i = 0; i < MOST_EXTENTS; i++)
		ASSERT_NE(MAP_FAILED, mmap(self->buf + i * page_size(), page_size(),
					   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
					   self->file, 2 * i * page_size()));
}

FIXTURE_TEARDOWN(frames)
{
	setresuid(0, 0, 0);
	munmap(self->buf, MOST_EXTENTS * page_size());
	close(self->file);
	restore_parameters(_metadata, &self->old);
	test_teardown();
}

TEST_F(frames, cost_locked_memory_for_each_extent)
{
	static const unsigned int counts[] = { 1, 2, 7, 8, 9, 15, 16, 63, 64 };

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		size_t length = counts[i] * page_size();
		long cost = counts[i] * EXTENT_COST / page_size();
		struct vmemexp_export cmd;
		long before;

		become(_metadata, USER);
		before = accounted_pages();
		if (cost) {
			set_limit(_metadata, cost * page_size() - 1);
			test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf,
					length, O_RDWR);
			EXPECT_EQ(before, accounted_pages());
		}
		set_limit(_metadata, cost * page_size());
		cmd = export_args(self->buf, length, O_RDWR);
		test_export_cmd(&cmd);
		EXPECT_EQ(counts[i], cmd.nr_extents);
		EXPECT_EQ(before + cost, accounted_pages());
		/* No pages are pinned, and nothing is left over for more. */
		EXPECT_EQ(self->before.pins, get_state().pins);
		test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf,
				MOST_EXTENTS * page_size(), O_RDWR);
		close(cmd.fd);
		EXPECT_EQ(before, accounted_pages());
		close(test_export(self->buf, length, O_RDWR));
	}
}

TEST_F(frames, that_are_contiguous_cost_none)
{
	size_t length = MOST_EXTENTS * page_size();
	char *whole = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, self->file, 0);

	ASSERT_NE(MAP_FAILED, whole);
	become(_metadata, USER);
	set_limit(_metadata, 0);
	close(test_export(whole, length, O_RDWR));
	munmap(whole, length);
}

TEST_F(frames, cost_the_exporter_whoever_holds_the_buffer)
{
	size_t length = MOST_EXTENTS * page_size();
	int fd;

	become(_metadata, USER);
	set_limit(_metadata, MOST_EXTENTS * EXTENT_COST);
	fd = test_export(self->buf, length, O_RDWR);
	become(_metadata, OTHER_USER);
	close(test_export(self->buf, length, O_RDWR));
	become(_metadata, USER);
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf, length, O_RDWR);
	become(_metadata, OTHER_USER);
	close(fd);
	become(_metadata, USER);
	close(test_export(self->buf, length, O_RDWR));
}

TEST_F(frames, are_not_limited_for_cap_ipc_lock)
{
	size_t length = MOST_EXTENTS * page_size();
	int fd;

	set_limit(_metadata, 0);
	become(_metadata, USER);
	set_cap(_metadata, CAP_IPC_LOCK, true);
	fd = test_export(self->buf, length, O_RDWR);
	become(_metadata, USER);
	set_limit(_metadata, MOST_EXTENTS * EXTENT_COST);
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf, self->buf, length, O_RDWR);
	close(fd);
	close(test_export(self->buf, length, O_RDWR));
}

/* ---- kernel mappings of page frames: nobody is charged for them, and their sum is bounded ---- */

FIXTURE(windows)
{
	int fd;
	struct test_state before;
	struct old_parameters old;
	int file;
	char *addr;
	size_t size;
	long most;	/* buffers of @size that may have a window at a time */
};

/* The largest region that has no address in the kernel from the start. */
static bool find_largest_outside_of_ram(struct carveout_info *largest)
{
	struct carveout_info region;

	*largest = (struct carveout_info){ };
	for (unsigned int i = 0; !_test_carveout_info(i, &region); i++)
		if (!(region.flags & (CARVEOUT_INFO_RAM | CARVEOUT_INFO_MIXED)) &&
		    region.size > largest->size)
			*largest = region;
	return largest->size;
}

/* Pages of the kernel's address space for mappings that others have. */
static unsigned long taken_addresses(void)
{
	FILE *list = fopen("/proc/vmallocinfo", "re");
	unsigned long size, taken = 0;
	char line[256];

	/* The kernel purges freed mappings when it needs their addresses. */
	while (list && fgets(line, sizeof(line), list))
		if (!strstr(line, "unpurged") && sscanf(line, "%*s %lu", &size) == 1)
			taken += size / page_size();
	if (list)
		fclose(list);
	return taken;
}

/* KASAN has real memory for the shadow of each mapping. */
static bool has_shadow_of_mappings(void)
{
	FILE *list = fopen("/proc/kallsyms", "re");
	char line[256];
	bool has = false;

	while (list && !has && fgets(line, sizeof(line), list))
		has = strstr(line, "kasan_populate_vmalloc\n");
	if (list)
		fclose(list);
	return has;
}

static unsigned long meminfo_pages(const char *name)
{
	return read_counter("/proc/meminfo", name) / (page_size() / 1024);
}

FIXTURE_SETUP(windows)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_REMAP };
	struct rlimit files = { 65536, 65536 };
	unsigned long addresses, tables, pages;
	struct carveout_info region;

	skip_without_carveout();
	if (!find_largest_outside_of_ram(&region))
		SKIP(return, "vmemexp_carveout has no range of this sort");
	if (has_shadow_of_mappings())
		SKIP(return, "the kernel has shadow memory for mappings (CONFIG_KASAN_VMALLOC)");
	addresses = meminfo_pages("VmallocTotal") / 4 * 3;
	/* An entry for a page takes 8 bytes in a table. */
	tables = meminfo_pages("MemTotal") / 32 * (page_size() / 8);
	/* A power of two, of which a page is that between this mapping and the next one. */
	pages = 1024;
	while (addresses > tables && 2 * pages * page_size() <= region.size)
		pages *= 2;
	self->size = (pages - 1) * page_size();
	self->most = MIN(addresses, tables) / pages;
	if (pages * page_size() > region.size || self->most > 8192)
		SKIP(return, "the carve-outs are too small to fill the kernel's addresses");
	/* The mappings of others may touch more slots than they fill. */
	if (addresses < tables && taken_addresses() > addresses / 6)
		SKIP(return, "others have an eighth of the kernel's addresses already");
	test_setup();
	save_parameters(_metadata, &self->old);
	ASSERT_EQ(0, write_text(VMEMEXP_CARVEOUTS, carveout_text(&region)));
	set_quota(self->most + 10);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	setup.region = region.region;
	self->file = _test_carveout_open(&setup);
	ASSERT_LE(0, self->file);
	self->addr = mmap(NULL, self->size, PROT_READ | PROT_WRITE, MAP_SHARED, self->file, 0);
	ASSERT_NE(MAP_FAILED, self->addr);
}

FIXTURE_TEARDOWN(windows)
{
	munmap(self->addr, self->size);
	close(self->file);
	restore_parameters(_metadata, &self->old);
	test_teardown();
}

/* A mapping needs one on amd64, an observer elsewhere. Returns 0 or a negative errno. */
static int open_window(int fd, int dmabuf)
{
	void *view = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, dmabuf, 0);

	if (view == MAP_FAILED)
		return -errno;
	munmap(view, page_size());
	return _test_sync(fd, dmabuf, VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER, 0, 1);
}

/* Those of closed buffers may go a moment later. */
static int open_window_soon(int fd, int dmabuf)
{
	int ret = open_window(fd, dmabuf);

	for (int ms = 0; ret == -ENOMEM && ms < RELEASE_TIMEOUT_MS; ms += 10) {
		sleep_ms(10);
		ret = open_window(fd, dmabuf);
	}
	return ret;
}

TEST_F(windows, of_all_buffers_leave_room_for_others)
{
	int *fds = malloc((self->most + 1) * sizeof(*fds));

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < self->most; i++) {
			fds[i] = test_export(self->addr, self->size, O_RDWR);
			ASSERT_EQ(0, open_window_soon(self->fd, fds[i])) {
				TH_LOG("round %d, buffer %d of %ld", round, i, self->most);
			}
		}
		fds[self->most] = test_export(self->addr, self->size, O_RDWR);
		EXPECT_EQ(-ENOMEM, open_window(self->fd, fds[self->most]));
		/* Nothing is wrong with the buffer: it waits for room. */
		close(fds[0]);
		EXPECT_EQ(0, open_window_soon(self->fd, fds[self->most]));
		EXPECT_EQ(0, open_window(self->fd, fds[1]));
		for (int i = 1; i <= self->most; i++)
			close(fds[i]);
	}
	free(fds);
}

/* ---- a cgroup's memory pays for what the kernel needs to describe page frames ---- */

#define CGROUPS		"/tmp/vmemexp-limits"
#define CGROUP		CGROUPS "/test"

/* Extents of one buffer, and what the kernel needs at least to remember them. */
#define MANY_EXTENTS	2048
#define MANY_COST	(MANY_EXTENTS * 8)

#define MANY_BUFFERS	1000

FIXTURE(cgroup)
{
	int fd;
	struct test_state before;
	struct old_parameters old;
	char *buf;
	bool mounted;
};

FIXTURE_SETUP(cgroup)
{
	struct carveout_setup setup = {
		.region = CARVEOUT_REGION_RAM, .cache = CARVEOUT_CACHED,
		.how = CARVEOUT_HOW_REMAP,
	};
	struct rlimit files = { MANY_BUFFERS + 100, MANY_BUFFERS + 100 };
	struct carveout_info region;
	int file;

	skip_without_carveout();
	test_setup();
	save_parameters(_metadata, &self->old);
	mkdir(CGROUPS, 0700);
	self->mounted = !mount("cgroup2", CGROUPS, "cgroup2", 0, NULL);
	if (!self->mounted || write_text(CGROUPS "/cgroup.subtree_control", "+memory") ||
	    mkdir(CGROUP, 0700))
		SKIP(return, "the kernel has no memory cgroups");
	ASSERT_EQ(0, _test_carveout_info(setup.region, &region));
	ASSERT_EQ(0, write_text(VMEMEXP_CARVEOUTS, carveout_text(&region)));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));

	file = _test_carveout_open(&setup);
	ASSERT_LE(0, file);
	/* Two pages that are no neighbours, by turns: no extent is longer than a page. */
	self->buf = map_anon(MANY_EXTENTS * page_size());
	for (size_t i = 0; i < MANY_EXTENTS; i++)
		ASSERT_NE(MAP_FAILED, mmap(self->buf + i * page_size(), page_size(),
					   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
					   file, (i & 1) * 2 * page_size()));
	close(file);
}

FIXTURE_TEARDOWN(cgroup)
{
	/* The kernel uncharges it a moment after the last process has ended. */
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS && rmdir(CGROUP) && errno == EBUSY; ms += 10)
		sleep_ms(10);
	if (self->mounted)
		umount(CGROUPS);
	munmap(self->buf, MANY_EXTENTS * page_size());
	restore_parameters(_metadata, &self->old);
	test_teardown();
}

/* The current charge of the cgroup, in bytes. */
static long charged_to_cgroup(void)
{
	return read_number(CGROUP "/memory.current");
}

/* How many of @buffers could be exported; they stay. */
static int export_many(int fd, const char *buf, int buffers)
{
	struct vmemexp_export cmd = export_args(buf, MANY_EXTENTS * page_size(), O_RDWR);
	int nr = 0;

	while (nr < buffers && !_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd))
		nr++;
	return nr;
}

/* In a child, which tells by @told how many it has, and keeps them until @ends is closed. */
static pid_t __export_in_cgroup(struct __test_metadata *_metadata, int fd, const char *buf,
				int buffers, int told[2], int *ends)
{
	int waits[2];
	pid_t child;

	ASSERT_EQ(0, pipe2(told, O_CLOEXEC));
	ASSERT_EQ(0, pipe2(waits, O_CLOEXEC));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		int nr;
		char byte;

		close(told[0]);
		close(waits[1]);
		if (write_text(CGROUP "/cgroup.procs", "0"))
			_exit(1);
		nr = export_many(fd, buf, buffers);
		if (write(told[1], &nr, sizeof(nr)) != sizeof(nr))
			_exit(1);
		read(waits[0], &byte, 1);
		_exit(0);
	}
	close(told[1]);
	close(waits[0]);
	*ends = waits[1];
	return child;
}

TEST_F(cgroup, is_charged_for_page_frames_as_long_as_a_buffer_lives)
{
	const int buffers = 200;
	int told[2], ends, nr = 0;
	long charged;
	pid_t child;

	child = __export_in_cgroup(_metadata, self->fd, self->buf, buffers, told, &ends);
	ASSERT_EQ((ssize_t)sizeof(nr), read(told[0], &nr, sizeof(nr)));
	EXPECT_EQ(buffers, nr);
	charged = charged_to_cgroup();
	EXPECT_LT(buffers * MANY_COST, charged);
	close(ends);
	EXPECT_EQ(0, wait_for_child(child));
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS &&
	     charged_to_cgroup() > charged - buffers * MANY_COST; ms += 10)
		sleep_ms(10);
	EXPECT_GE(charged - buffers * MANY_COST, charged_to_cgroup());
	close(told[0]);
}

/* By an error, or by the kernel killing the process that wants more. */
TEST_F(cgroup, that_has_little_memory_ends_exports_of_page_frames)
{
	const long limit = 8 << 20;
	int told[2], ends, nr = 0, status;
	bool killed;
	pid_t child;

	ASSERT_LT(limit, (long)MANY_BUFFERS * MANY_COST);
	ASSERT_EQ(0, write_text(CGROUP "/memory.max", "8388608"));
	/* To tests/vm/run: the kernel tells by a call trace whom it kills. */
	ASSERT_EQ(0, write_text("/dev/kmsg", "vmemexp-run: faults wanted"));
	child = __export_in_cgroup(_metadata, self->fd, self->buf, MANY_BUFFERS, told, &ends);
	killed = read(told[0], &nr, sizeof(nr)) != sizeof(nr);
	EXPECT_GE(limit, charged_to_cgroup());
	close(ends);
	status = wait_for_child(child);
	EXPECT_EQ(0, write_text("/dev/kmsg", "vmemexp-run: no faults wanted"));
	if (killed) {
		EXPECT_EQ(128 + SIGKILL, status);
	} else {
		EXPECT_EQ(0, status);
		EXPECT_GT(limit / MANY_COST, nr);
		EXPECT_LT(0, nr);
	}
	close(told[0]);
}

/* ---- RLIMIT_NOFILE ---- */

FIXTURE(files)
{
	int fd;
	struct test_state before;
	char *buf;
	size_t size;
	struct rlimit old_limit;
};

FIXTURE_SETUP(files)
{
	test_setup();
	self->size = BUF_PAGES * page_size();
	self->buf = guard_start(self->size);
	ASSERT_NE(NULL, self->buf);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &self->old_limit));
}

FIXTURE_TEARDOWN(files)
{
	test_teardown();
}

/* Lets no file descriptor be opened any more. */
static void use_up_files(struct __test_metadata *_metadata,
			 const struct rlimit *old)
{
	struct rlimit none = *old;
	int next = dup(0);

	ASSERT_LE(0, next);
	close(next);
	none.rlim_cur = next;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
}

TEST_F(files, none_left_is_emfile_and_leaves_nothing)
{
	struct vmemexp_export cmd = export_args(self->buf, self->size, O_RDWR);
	struct vmemexp_export expected = cmd;
	struct test_state before = get_state();
	int ret;

	expected.err_reason = VMEMEXP_REASON_NONE;
	expected.err_addr = 0;
	expected.err_range = 0;
	use_up_files(_metadata, &self->old_limit);
	ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &self->old_limit));
	EXPECT_EQ(-EMFILE, ret);
	EXPECT_EQ(0, memcmp(&expected, &cmd, sizeof(cmd)));
	test_state(&before);
	EXPECT_EQ(0, accounted_pages());

	test_export_cmd(&cmd);
	close(cmd.fd);
}

TEST_F(files, none_left_does_not_hide_a_bad_range)
{
	struct vmemexp_export cmd = export_args(self->buf - page_size(),
						page_size(), O_RDWR);
	int ret;

	use_up_files(_metadata, &self->old_limit);
	ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &self->old_limit));
	EXPECT_EQ(-EFAULT, ret);
	EXPECT_EQ(VMEMEXP_REASON_NOT_READABLE, cmd.err_reason);
}

TEST_F(files, none_left_does_not_hinder_sync_and_query)
{
	int fd = test_export(self->buf, self->size, O_RDWR);

	use_up_files(_metadata, &self->old_limit);
	EXPECT_EQ(self->size, test_query(fd).dmabuf_size);
	EXPECT_EQ(0, _test_sync(self->fd, fd, VMEMEXP_SYNC_RW, 0, self->size));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &self->old_limit));
	close(fd);
}

/* ---- allow= ---- */

#define ALLOW_DEFAULT	"anon,shmem,hugetlb,driver,pfnmap,dmabuf\n"

FIXTURE(parameter)
{
	int fd;
	struct test_state before;
	char old[128];
	char *buf;
};

FIXTURE_SETUP(parameter)
{
	test_setup();
	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, self->old, sizeof(self->old)));
	self->buf = guard_start(page_size());
	ASSERT_NE(NULL, self->buf);
}

FIXTURE_TEARDOWN(parameter)
{
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, self->old));
	test_teardown();
}

static void expect_allow(struct __test_metadata *_metadata, const char *value)
{
	char now[128];

	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, now, sizeof(now)));
	EXPECT_STREQ(value, now);
}

TEST_F(parameter, default_is_all_but_file)
{
	expect_allow(_metadata, ALLOW_DEFAULT);
}

TEST_F(parameter, is_not_for_users)
{
	become(_metadata, USER);
	EXPECT_EQ(-EACCES, write_text(VMEMEXP_ALLOW, "file"));
	ASSERT_EQ(0, setresuid(0, 0, 0));
	expect_allow(_metadata, self->old);
}

TEST_F(parameter, takes_every_list_of_kinds)
{
	static const char * const names[] = {
		"anon", "shmem", "hugetlb", "file", "driver", "pfnmap", "dmabuf",
	};

	for (unsigned int mask = 1; mask < 1 << ARRAY_SIZE(names); mask++) {
		char list[128] = "", reverse[128] = "";

		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			size_t back = ARRAY_SIZE(names) - 1 - i;

			if (mask & (1 << i)) {
				strcat(list, *list ? "," : "");
				strcat(list, names[i]);
			}
			if (mask & (1 << back)) {
				strcat(reverse, *reverse ? "," : "");
				strcat(reverse, names[back]);
			}
		}
		strcat(list, "\n");
		EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, list));
		expect_allow(_metadata, list);
		EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, reverse));
		expect_allow(_metadata, list);
	}
}

TEST_F(parameter, unknown_kind_is_einval_and_changes_nothing)
{
	static const char * const bad[] = {
		"nonsense", "secret", "ANON", "ano", "anonx", "anon,nonsense",
		"nonsense,anon", "anon;shmem", "anon shmem", "anon,,shmem",
		",anon", "anon,", ",", "1", "all",
	};

	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "hugetlb"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, write_text(VMEMEXP_ALLOW, bad[i])) {
			TH_LOG("\"%s\"", bad[i]);
		}
		expect_allow(_metadata, "hugetlb\n");
	}
}

TEST_F(parameter, empty_list_allows_nothing)
{
	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "\n"));
	expect_allow(_metadata, "\n");
	test_err_export(EPERM, VMEMEXP_REASON_KIND, self->buf, self->buf,
			page_size(), O_RDWR);
}

TEST_F(parameter, change_leaves_live_buffers_alone)
{
	int fd = test_export(self->buf, page_size(), O_RDWR);
	char *map;

	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "file"));
	map = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0);
	ASSERT_NE(MAP_FAILED, map);
	map[0] = 'x';
	EXPECT_EQ('x', self->buf[0]);
	munmap(map, page_size());
	EXPECT_EQ(VMEMEXP_MEMORY_ANON, test_query(fd).memory);
	test_sync(fd, VMEMEXP_SYNC_RW, 0, page_size());
	close(fd);
}

TEST_F(parameter, names_the_first_page_of_a_kind_that_is_refused)
{
	const size_t page = page_size();
	char *buf = map_anon(4 * page);

	ASSERT_NE(MAP_FAILED, buf);
	ASSERT_EQ(buf + 2 * page, mmap(buf + 2 * page, 2 * page,
				       PROT_READ | PROT_WRITE, MAP_SHARED |
				       MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "anon"));
	test_err_export(EPERM, VMEMEXP_REASON_KIND, buf + 2 * page, buf,
			4 * page, O_RDWR);
	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "shmem"));
	test_err_export(EPERM, VMEMEXP_REASON_KIND, buf, buf, 4 * page, O_RDWR);
	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, "anon,shmem"));
	close(test_export(buf, 4 * page, O_RDWR));
}

FIXTURE(kind)
{
	int fd;
	struct test_state before;
	char old[128];
	char *buf;
	size_t size;
};

FIXTURE_VARIANT(kind)
{
	const char *alone, *all_others;
	unsigned int memory;
	unsigned int fd_flags;
	void *(*map)(size_t *size);
	const char *missing;
};

FIXTURE_VARIANT_ADD(kind, anon)
{
	.alone = "anon",
	.all_others = "shmem,hugetlb,file,driver",
	.memory = VMEMEXP_MEMORY_ANON,
	.fd_flags = O_RDWR,
	.map = map_anonymous,
};

FIXTURE_VARIANT_ADD(kind, shmem)
{
	.alone = "shmem",
	.all_others = "anon,hugetlb,file,driver",
	.memory = VMEMEXP_MEMORY_SHMEM,
	.fd_flags = O_RDWR,
	.map = map_shared_anonymous,
};

FIXTURE_VARIANT_ADD(kind, hugetlb)
{
	.alone = "hugetlb",
	.all_others = "anon,shmem,file,driver",
	.memory = VMEMEXP_MEMORY_HUGETLB,
	.fd_flags = O_RDWR,
	.map = map_hugetlb,
	.missing = "the kernel has no hugetlb pages",
};

FIXTURE_VARIANT_ADD(kind, file)
{
	.alone = "file",
	.all_others = "anon,shmem,hugetlb,driver",
	.memory = VMEMEXP_MEMORY_FILE,
	.fd_flags = O_RDONLY,
	.map = map_page_cache,
	.missing = "there is no file outside of tmpfs and ramfs",
};

FIXTURE_VARIANT_ADD(kind, driver)
{
	.alone = "driver",
	.all_others = "anon,shmem,hugetlb,file",
	.memory = VMEMEXP_MEMORY_DRIVER,
	.fd_flags = O_RDWR,
	.map = map_one_block_ring,
	.missing = "the kernel has no packet sockets",
};

FIXTURE_SETUP(kind)
{
	test_setup();
	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, self->old, sizeof(self->old)));
	self->size = page_size();
	self->buf = variant->map(&self->size);
	if (self->buf == MAP_FAILED && variant->missing)
		SKIP(return, "%s", variant->missing);
	ASSERT_NE(MAP_FAILED, self->buf);
}

FIXTURE_TEARDOWN(kind)
{
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, self->old));
	munmap(self->buf, self->size);
	write_text(HUGE_POOL, "0");
	test_teardown();
}

TEST_F(kind, is_refused_if_only_others_are_allowed)
{
	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, variant->all_others));
	test_err_export(EPERM, VMEMEXP_REASON_KIND, self->buf, self->buf,
			self->size, variant->fd_flags);
	test_err_export(EPERM, VMEMEXP_REASON_KIND, self->buf, self->buf,
			self->size, O_RDONLY);
}

TEST_F(kind, is_exported_if_it_alone_is_allowed)
{
	struct vmemexp_export cmd = export_args(self->buf, self->size,
						variant->fd_flags);

	ASSERT_EQ(0, write_text(VMEMEXP_ALLOW, variant->alone));
	test_export_cmd(&cmd);
	EXPECT_EQ(variant->memory, cmd.memory);
	EXPECT_EQ(variant->memory, test_query(cmd.fd).memory);
	close(cmd.fd);
}

TEST_HARNESS_MAIN

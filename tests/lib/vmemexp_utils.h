/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of vmemexp share.
 *
 * _test_x() makes one call and returns 0 or a negative errno. test_x() asserts
 * that it succeeds and gives the answer. test_err_x(errno, ...) asserts that it
 * fails in exactly this way and that nothing has changed: not the argument, not
 * the number of pinned pages, not the number of open files.
 *
 * The test_ macros work inside of a harness test or a function that has a
 * parameter "_metadata"; those that call the driver use self->fd, a file
 * descriptor of /dev/vmemexp. A fixture begins with test_setup() and ends with
 * test_teardown(), which fails the test if it leaked a pin or a file.
 */
#ifndef VMEMEXP_UTILS_H
#define VMEMEXP_UTILS_H

#include <dirent.h>
#include <drm.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kselftest_harness.h>

/* Seconds. The machine may be busy, and the kernel check each step: only a hang lasts longer. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	240

#include "../../include/uapi/vmemexp.h"
#include "../modules/carveout/vmemexp_carveout.h"
#include "../modules/importer/vmemexp_importer.h"

#define VMEMEXP_PATH	"/dev/vmemexp"
#define VMEMEXP_ALLOW	"/sys/module/vmemexp/parameters/allow"
#define VMEMEXP_CARVEOUTS "/sys/module/vmemexp/parameters/carveouts"
#define VMEMEXP_WITHOUT_PAGES "/sys/module/vmemexp/parameters/map_without_pages"
#define VMEMEXP_WITHOUT_VMAP "/sys/module/vmemexp/parameters/map_without_vmap"

/* What every output field holds before a call. */
#define POISON_BYTE	0xcc

/* How long the last reference to a buffer may take to be dropped. */
#define RELEASE_TIMEOUT_MS	60000

/* Asks again: another process or a release may bring it about a moment later. */
#define EXPECT_SOON(expected, seen) do {				\
	for (int ms = 0; (expected) != (seen) && ms < RELEASE_TIMEOUT_MS; ms += 10) \
		sleep_ms(10);						\
	EXPECT_EQ(expected, seen);					\
} while (0)

/* For children: a failure is the exit status, and a line on stderr. */
#define CHECK(condition) do {						\
	if (!(condition)) {						\
		dprintf(2, "# %s:%d: child: not so: %s\n", __FILE__,	\
			__LINE__, #condition);				\
		_exit(KSFT_FAIL);					\
	}								\
} while (0)

static inline size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

static inline uint64_t to_u64(const volatile void *p)
{
	return (uintptr_t)p;
}

/* For what kernels do otherwise since a version, and nothing else tells. */
static inline bool kernel_at_least(unsigned int version, unsigned int patchlevel)
{
	unsigned int has_version = 0, has_patchlevel = 0;
	struct utsname system;

	uname(&system);
	return sscanf(system.release, "%u.%u", &has_version, &has_patchlevel) == 2 &&
	       (has_version > version ||
		(has_version == version && has_patchlevel >= patchlevel));
}

/* Since 6.1: makes huge pages now, or tells why not. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* ---- files ---- */

/* Returns the number of bytes, or a negative errno; @text is terminated. */
static inline int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n = 1;
	int err = 0;

	if (fd < 0)
		return -errno;
	while (n > 0 && done < size - 1) {
		n = read(fd, text + done, size - 1 - done);
		if (n > 0)
			done += n;
		else if (n < 0)
			err = -errno;
	}
	close(fd);
	text[done] = '\0';
	return err ? err : (int)done;
}

/* Returns 0 or a negative errno. */
static inline int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

#define TRACING		"/sys/kernel/tracing"

/*
 * Empties the trace and turns on @events, one or a directory of them. The
 * scheduler's, by which ftrace learns the names of tasks, stay off: patching code
 * that is running is not a thing to do often under multi-threaded emulation.
 */
static inline int trace_events(const char *events)
{
	char path[256];
	int trace = open(TRACING "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (trace < 0)
		return -errno;
	close(trace);
	snprintf(path, sizeof(path), TRACING "/events/%s/enable", events);
	return write_text(TRACING "/options/record-cmd", "0") ?: write_text(path, "1");
}

/* The number behind @name in a file of "name value" lines; -1 if absent. */
static inline long read_counter(const char *path, const char *name)
{
	static char text[64 * 1024];
	size_t len = strlen(name);
	const char *line = text;

	if (read_text(path, text, sizeof(text)) < 0)
		return -1;
	while (line && *line) {
		if (!strncmp(line, name, len) &&
		    (line[len] == ' ' || line[len] == ':'))
			return strtol(line + len + 1, NULL, 10);
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return -1;
}

/* Pages of the whole system that are pinned now. */
static inline long pinned_pages(void)
{
	char ignored[16];

	/* The CPUs keep their own counts for a while; reading this adds them. */
	read_text("/proc/sys/vm/stat_refresh", ignored, sizeof(ignored));
	return read_counter("/proc/vmstat", "nr_foll_pin_acquired") -
	       read_counter("/proc/vmstat", "nr_foll_pin_released");
}

/* Pages that this process pinned and that count against its limit. */
static inline long accounted_pages(void)
{
	return read_counter("/proc/self/status", "VmPin") * 1024L /
	       (long)page_size();
}

static inline int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = -1; /* the directory itself */

	if (!dir)
		return -1;
	for (struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

/* The next file descriptor; one that is reserved is in no directory. */
static inline int next_file(void)
{
	int fd = dup(STDOUT_FILENO);

	close(fd);
	return fd;
}

/* ---- memory ---- */

static inline void *map_anon(size_t length)
{
	return mmap(NULL, length, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/*
 * Memory in huge pages of @huge bytes, at an address that is a multiple of that. On
 * arm, newer kernels than 6.12 choose any other as well, and go down when it is used.
 */
static inline void *map_huge_pages(size_t size, size_t huge, int prot, int flags, int fd)
{
	/* The kernel rounds @size up. */
	size_t room = size + 2 * huge;
	char *area = mmap(NULL, room, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *addr = area + (-(uintptr_t)area & (huge - 1));

	if (area == MAP_FAILED)
		return area;
	munmap(area, room);
	return mmap(addr, size, prot, flags | MAP_FIXED_NOREPLACE, fd, 0);
}

/* What the kernel says behind @name of the mapping that @p is in; "" if nothing. */
static inline const char *smaps_field(const volatile void *p, const char *name)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	static char line[512], found[512];
	unsigned long start, end;
	bool here = false;

	found[0] = '\0';
	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)p && (uintptr_t)p < end;
		else if (here && !strncmp(line, name, strlen(name)))
			snprintf(found, sizeof(found), "%s", line + strlen(name));
	}
	if (maps)
		fclose(maps);
	return found;
}

/* Whether @p is in a mapping of page frames, or one whose pages the kernel does not pin. */
static inline bool maps_frames(const volatile void *p)
{
	const char *flags = smaps_field(p, "VmFlags:");

	return strstr(flags, " pf") || strstr(flags, " io");
}

/* Kernels for real time have none. */
static inline bool has_thp(void)
{
	return !access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK);
}

/* Returns 0 or a negative errno: memory is going to be of small pages. */
static inline int forbid_thp(void *p, size_t length)
{
	return has_thp() && madvise(p, length, MADV_NOHUGEPAGE) ? -errno : 0;
}

/*
 * Has memory in transparent huge pages, or returns a negative errno. Before
 * 7d8faaf15545 (v6.1) it must be there already.
 */
static inline int collapse(void *p, size_t length)
{
	if (!madvise(p, length, MADV_COLLAPSE))
		return 0;
	if (kernel_at_least(6, 1))
		return -errno;
	return strtoul(smaps_field(p, "AnonHugePages:"), NULL, 10) >= length / 1024 ?
	       0 : -EAGAIN;
}

/* From here on no more than @bytes may be locked, not even by root. */
static inline void __limit_memlock(struct __test_metadata *_metadata, size_t bytes)
{
	struct rlimit limit = { bytes, bytes };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, syscall(SYS_capget, &header, data));
	data[0].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
	ASSERT_EQ(0, syscall(SYS_capset, &header, data));
}

#define limit_memlock(bytes) __limit_memlock(_metadata, bytes)

static inline size_t page_align(size_t length)
{
	return (length + page_size() - 1) & ~(page_size() - 1);
}

/*
 * Pages with a PROT_NONE page on either side. The last byte of the buffer (or
 * with guard_start() the first) touches it, so that one byte too far faults.
 */
static inline void *guard_start(size_t length)
{
	size_t inner = page_align(length);
	char *map = mmap(NULL, inner + 2 * page_size(), PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	if (mprotect(map + page_size(), inner, PROT_READ | PROT_WRITE))
		return NULL;
	return map + page_size();
}

static inline void *guard_end(size_t length)
{
	char *start = guard_start(length);

	return start ? start + page_align(length) - length : NULL;
}

/* For what either of the two returned. */
static inline void guard_free(void *p, size_t length)
{
	char *start = (char *)((uintptr_t)p & ~(page_size() - 1));

	munmap(start - page_size(), page_align(length) + 2 * page_size());
}

/* Differs between neighbouring bytes, lines and pages, and between seeds. */
static inline uint8_t pattern(unsigned int seed, size_t i)
{
	return seed * 37 + i * 7 + (i >> 8) * 13 + (i >> 12) * 29;
}

static inline void fill(volatile void *p, size_t length, unsigned int seed)
{
	volatile uint8_t *bytes = p;

	for (size_t i = 0; i < length; i++)
		bytes[i] = pattern(seed, i);
}

/* Offset of the first byte that is not fill()'s, or -1. */
static inline long first_difference(const volatile void *p, size_t length,
				    unsigned int seed)
{
	const volatile uint8_t *bytes = p;

	for (size_t i = 0; i < length; i++)
		if (bytes[i] != pattern(seed, i))
			return i;
	return -1;
}

/* ---- processes ---- */

/* A child that does not outlive the test. */
static inline pid_t fork_child(void)
{
	pid_t parent = getpid(), child = fork();

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent may have ended before. */
		if (getppid() != parent)
			_exit(KSFT_FAIL);
	}
	return child;
}

/* A child that has ended and was not waited for, or 0. */
static inline pid_t ended_child(void)
{
	siginfo_t info = {};

	waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
	return info.si_pid;
}

/* Exit status of a child, or 128 plus the signal that killed it. */
static inline int wait_for_child(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Returns 0 or a negative errno. */
static inline int send_fd(int sock, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* Returns the file descriptor, or a negative errno. */
static inline int receive_fd(int sock)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EBADMSG;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
	return fd;
}

static inline void sleep_ms(unsigned int ms)
{
	struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };

	nanosleep(&t, NULL);
}

/*
 * Where the kernel bounces, it can only do so if its bounce buffers are within
 * reach of the device; the address behind these, or 0 if there are none.
 */
static inline uint64_t bounce_buffers_end(void)
{
	static char log[1 << 20];
	unsigned long long start, end = 0;
	int size = klogctl(3, log, sizeof(log) - 1);
	const char *line = log;

	if (size < 0)
		return 0;
	log[size] = '\0';
	while ((line = strstr(line, "software IO TLB: mapped [mem "))) {
		if (sscanf(line, "software IO TLB: mapped [mem 0x%llx-0x%llx]",
			   &start, &end) == 2)
			break;
		line++;
	}
	return end;
}

/* ---- what must be the same after as before ---- */

struct test_state {
	long pins;
	int files;
	int next_file;
};

/* A test that gave up root must be able to take it back for this. */
static inline struct test_state get_state(void)
{
	uid_t euid = geteuid();
	struct test_state state;

	if (euid)
		seteuid(0);
	state = (struct test_state){
		pinned_pages(), open_files(), next_file()
	};
	if (euid)
		seteuid(euid);
	return state;
}

/* Files are closed at once, pins may be dropped a moment later. */
static inline void __test_state(struct __test_metadata *_metadata,
				const struct test_state *before)
{
	struct test_state now = get_state();

	for (int ms = 0; now.pins != before->pins && ms < RELEASE_TIMEOUT_MS;
	     ms += 10) {
		sleep_ms(10);
		now = get_state();
	}
	EXPECT_EQ(before->pins, now.pins);
	EXPECT_EQ(before->files, now.files);
	EXPECT_EQ(before->next_file, now.next_file);
}

#define test_state(before) __test_state(_metadata, before)

#define test_setup() do {						\
	self->before = get_state();					\
	ASSERT_LE(0, self->before.pins);				\
	self->fd = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);		\
	ASSERT_LE(0, self->fd) {					\
		TH_LOG("%s: %s", VMEMEXP_PATH, strerror(errno));	\
	}								\
} while (0)

#define test_teardown() do {						\
	close(self->fd);						\
	test_state(&self->before);					\
} while (0)

/* ---- the driver ---- */

static inline int _test_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

/* The request that every variation starts from; all outputs are poisoned. */
static inline struct vmemexp_export
export_args(const volatile void *vaddr, size_t length, unsigned int fd_flags)
{
	struct vmemexp_export cmd;

	memset(&cmd, POISON_BYTE, sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.flags = 0;
	cmd.reserved = 0;
	cmd.vaddr = to_u64(vaddr);
	cmd.length = length;
	cmd.fd_flags = fd_flags;
	return cmd;
}

static inline struct vmemexp_sync sync_args(int dmabuf, unsigned int flags,
					    uint64_t offset, uint64_t length)
{
	return (struct vmemexp_sync){
		.size = sizeof(struct vmemexp_sync),
		.fd = dmabuf,
		.flags = flags,
		.offset = offset,
		.length = length,
	};
}

static inline struct vmemexp_query query_args(int dmabuf)
{
	struct vmemexp_query cmd;

	memset(&cmd, POISON_BYTE, sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.fd = dmabuf;
	cmd.flags = 0;
	return cmd;
}

/* The number that an administrator knows the dma-buf by; 0 if it is no file. */
static inline uint64_t inode_of(int dmabuf)
{
	struct stat64 stat = {};

	return fstat64(dmabuf, &stat) ? 0 : stat.st_ino;
}

static inline struct vmemexp_revoke revoke_args(int dmabuf)
{
	struct vmemexp_revoke cmd;

	memset(&cmd, POISON_BYTE, sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.flags = 0;
	cmd.ino = inode_of(dmabuf);
	cmd.names_size = 0;
	return cmd;
}

/* A good export: also checks that the answers fit the request. */
static inline int __test_export(struct __test_metadata *_metadata, int fd,
				struct vmemexp_export *cmd)
{
	struct vmemexp_export in = *cmd;
	uint64_t page = page_size();
	int ret = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, cmd);

	ASSERT_EQ(0, ret) {
		TH_LOG("export: %s, reason %u, address %#llx", strerror(-ret),
		       cmd->err_reason, (unsigned long long)cmd->err_addr);
	}
	ASSERT_LE(0, cmd->fd);
	ASSERT_EQ(in.size, cmd->size);
	ASSERT_EQ(in.flags, cmd->flags);
	ASSERT_EQ(in.vaddr, cmd->vaddr);
	ASSERT_EQ(in.length, cmd->length);
	ASSERT_EQ(in.fd_flags, cmd->fd_flags);
	ASSERT_EQ(in.vaddr % page, cmd->offset);
	ASSERT_EQ((cmd->offset + in.length + page - 1) / page * page,
		  cmd->dmabuf_size);
	ASSERT_LE(1, cmd->nr_extents);
	ASSERT_LE(cmd->nr_extents, cmd->dmabuf_size / page);
	ASSERT_NE(0, cmd->memory);
	ASSERT_EQ(0, cmd->memory & ~(VMEMEXP_MEMORY_ANON |
				     VMEMEXP_MEMORY_SHMEM |
				     VMEMEXP_MEMORY_HUGETLB |
				     VMEMEXP_MEMORY_FILE |
				     VMEMEXP_MEMORY_DRIVER |
				     VMEMEXP_MEMORY_PFNMAP));
	ASSERT_EQ(VMEMEXP_REASON_NONE, cmd->err_reason);
	ASSERT_EQ(0, cmd->err_addr);
	if (cmd->size < VMEMEXP_EXPORT_SIZE_VER1)
		return cmd->fd;
	ASSERT_EQ(VMEMEXP_STATE_TRACKED,
		  cmd->state & ~(VMEMEXP_STATE_NO_VMAP | VMEMEXP_STATE_OVERLAPS |
				 VMEMEXP_STATE_NO_PAGES));
	/* One that is read-only has none. */
	if ((in.fd_flags & O_ACCMODE) == O_RDONLY)
		ASSERT_EQ(VMEMEXP_STATE_NO_VMAP, cmd->state & VMEMEXP_STATE_NO_VMAP);
	ASSERT_EQ(0, cmd->reserved);
	return cmd->fd;
}

/* Export @cmd, a struct vmemexp_export *; gives the file descriptor. */
#define test_export_cmd(cmd) __test_export(_metadata, self->fd, cmd)

static inline int __test_export_range(struct __test_metadata *_metadata,
				      int fd, const volatile void *vaddr,
				      size_t length, unsigned int fd_flags)
{
	struct vmemexp_export cmd = export_args(vaddr, length, fd_flags);

	return __test_export(_metadata, fd, &cmd);
}

/* Export whole pages; gives the file descriptor. */
#define test_export(vaddr, length, fd_flags) \
	__test_export_range(_metadata, self->fd, vaddr, length, fd_flags)

static inline void __test_err(struct __test_metadata *_metadata, int fd,
			      unsigned long request, int error, void *cmd,
			      const void *expected, size_t size)
{
	struct test_state before = get_state();
	int ret = _test_ioctl(fd, request, cmd);

	EXPECT_EQ(-error, ret);
	EXPECT_EQ(0, memcmp(expected, cmd, size)) {
		const uint8_t *want = expected, *got = cmd;
		size_t i = 0;

		while (want[i] == got[i])
			i++;
		TH_LOG("argument differs from byte %zu on: %#x instead of %#x",
		       i, got[i], want[i]);
	}
	test_state(&before);
}

static inline void __test_err_export(struct __test_metadata *_metadata, int fd,
				     int error, unsigned int reason,
				     uint64_t addr, struct vmemexp_export *cmd)
{
	struct vmemexp_export expected = *cmd;

	expected.err_reason = reason;
	expected.err_addr = addr;
	__test_err(_metadata, fd, VMEMEXP_IOC_EXPORT, error, cmd, &expected,
		   sizeof(expected));
	EXPECT_EQ(reason, cmd->err_reason);
	EXPECT_EQ(addr, cmd->err_addr);
}

/* @reason is VMEMEXP_REASON_*, @addr the expected err_addr. */
#define test_err_export_cmd(error, reason, addr, cmd) \
	__test_err_export(_metadata, self->fd, error, reason, addr, cmd)

static inline void
__test_err_export_range(struct __test_metadata *_metadata, int fd, int error,
			unsigned int reason, const volatile void *addr,
			const volatile void *vaddr, size_t length,
			unsigned int fd_flags)
{
	struct vmemexp_export cmd = export_args(vaddr, length, fd_flags);

	__test_err_export(_metadata, fd, error, reason, to_u64(addr), &cmd);
}

#define test_err_export(error, reason, addr, vaddr, length, fd_flags)	\
	__test_err_export_range(_metadata, self->fd, error, reason,	\
				addr, vaddr, length, fd_flags)

/* The driver refuses the structure itself and writes nothing into it. */
#define test_err_struct(error, request, cmd) do {			\
	__typeof__(*(cmd)) unchanged = *(cmd);				\
									\
	__test_err(_metadata, self->fd, request, error, cmd,		\
		   &unchanged, sizeof(unchanged));			\
} while (0)

static inline struct vmemexp_revoke
__test_revoke(struct __test_metadata *_metadata, int fd, int dmabuf)
{
	struct vmemexp_revoke cmd = revoke_args(dmabuf);
	int ret = _test_ioctl(fd, VMEMEXP_IOC_REVOKE, &cmd);

	ASSERT_EQ(0, ret) {
		TH_LOG("revoke: %s", strerror(-ret));
	}
	ASSERT_EQ(VMEMEXP_STATE_REVOKED, cmd.state & VMEMEXP_STATE_REVOKED);
	return cmd;
}

/* Takes the dma-buf back; gives a struct vmemexp_revoke. Needs CAP_SYS_ADMIN. */
#define test_revoke(dmabuf) __test_revoke(_metadata, self->fd, dmabuf)

static inline int _test_sync(int fd, int dmabuf, unsigned int flags,
			     uint64_t offset, uint64_t length)
{
	struct vmemexp_sync cmd = sync_args(dmabuf, flags, offset, length);

	return _test_ioctl(fd, VMEMEXP_IOC_SYNC, &cmd);
}

#define test_sync(dmabuf, flags, offset, length) \
	ASSERT_EQ(0, _test_sync(self->fd, dmabuf, flags, offset, length))

static inline int _test_sync_rows(int fd, int dmabuf, unsigned int flags,
				  uint64_t offset, uint64_t length,
				  uint64_t stride, unsigned int rows)
{
	struct vmemexp_sync cmd = sync_args(dmabuf, flags, offset, length);

	cmd.stride = stride;
	cmd.rows = rows;
	return _test_ioctl(fd, VMEMEXP_IOC_SYNC, &cmd);
}

#define test_sync_rows(dmabuf, flags, offset, length, stride, rows)	\
	ASSERT_EQ(0, _test_sync_rows(self->fd, dmabuf, flags, offset,	\
				     length, stride, rows))

static inline struct vmemexp_query
__test_query(struct __test_metadata *_metadata, int fd, int dmabuf)
{
	struct vmemexp_query cmd = query_args(dmabuf);

	ASSERT_EQ(0, _test_ioctl(fd, VMEMEXP_IOC_QUERY, &cmd));
	return cmd;
}

/* Gives a struct vmemexp_query. */
#define test_query(dmabuf) __test_query(_metadata, self->fd, dmabuf)

/* Its state, but for what the machine has to do with, not what has happened. */
#define test_query_state(dmabuf) \
	(test_query(dmabuf).state & ~(unsigned int)VMEMEXP_STATE_NO_PAGES)

/* DMA_BUF_IOCTL_SYNC; the flags are DMA_BUF_SYNC_*. */
static inline int _test_dmabuf_sync(int dmabuf, uint64_t flags)
{
	struct dma_buf_sync cmd = { .flags = flags };

	return _test_ioctl(dmabuf, DMA_BUF_IOCTL_SYNC, &cmd);
}

#define test_dmabuf_sync(dmabuf, flags) \
	ASSERT_EQ(0, _test_dmabuf_sync(dmabuf, flags))

/* ---- the test importer; a session is an open file of it ---- */

static inline bool importer_present(void)
{
	return access(IMPORTER_PATH, F_OK) == 0;
}

/* For tests and for FIXTURE_SETUP. */
#define skip_without_importer() do {					\
	if (!importer_present())					\
		SKIP(return, "the test importer module is not loaded");	\
} while (0)

static inline int __test_importer_open(struct __test_metadata *_metadata)
{
	int session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, session);
	return session;
}

#define test_importer_open() __test_importer_open(_metadata)

static inline int _test_importer_attach(int session, int dmabuf,
					unsigned int device)
{
	struct importer_attach cmd = { .dmabuf_fd = dmabuf, .device = device };

	return _test_ioctl(session, IMPORTER_IOC_ATTACH, &cmd);
}

#define test_importer_attach(session, dmabuf, device) \
	ASSERT_EQ(0, _test_importer_attach(session, dmabuf, device))

#define test_importer_detach(session) \
	ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_DETACH, NULL))

/* @request is IMPORTER_IOC_MAP, _BEGIN_CPU or _END_CPU. */
static inline int _test_importer_direction(int session, unsigned long request,
					   unsigned int direction)
{
	struct importer_direction cmd = { .direction = direction };

	return _test_ioctl(session, request, &cmd);
}

static inline int _test_importer_map(int session, unsigned int direction)
{
	return _test_importer_direction(session, IMPORTER_IOC_MAP, direction);
}

#define test_importer_map(session, direction) \
	ASSERT_EQ(0, _test_importer_map(session, direction))

#define test_importer_unmap(session) \
	ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_UNMAP, NULL))

#define test_importer_begin_cpu(session, direction)			\
	ASSERT_EQ(0, _test_importer_direction(session,			\
			IMPORTER_IOC_BEGIN_CPU, direction))

#define test_importer_end_cpu(session, direction)			\
	ASSERT_EQ(0, _test_importer_direction(session,			\
			IMPORTER_IOC_END_CPU, direction))

static inline int _test_importer_transfer(int session, unsigned long request,
					  uint64_t offset,
					  const volatile void *buf,
					  size_t length)
{
	struct importer_transfer cmd = {
		.offset = offset,
		.length = length,
		.user_ptr = to_u64(buf),
	};

	return _test_ioctl(session, request, &cmd);
}

/* Cuts its own scatterlist down, and leaves it so. */
static inline int _test_importer_edit(int session, unsigned int nents, uint64_t skip,
				      uint64_t trim)
{
	struct importer_edit cmd = { .nents = nents, .skip = skip, .trim = trim };

	return _test_ioctl(session, IMPORTER_IOC_EDIT, &cmd);
}

#define test_importer_edit(session, nents, skip, trim) \
	ASSERT_EQ(0, _test_importer_edit(session, nents, skip, trim))

/* Ends it behind its first @nents segments, for all who walk over it. */
static inline int _test_importer_mark_end(int session, unsigned int nents)
{
	struct importer_edit cmd = { .nents = nents, .flags = IMPORTER_EDIT_MARK_END };

	return _test_ioctl(session, IMPORTER_IOC_EDIT, &cmd);
}

/* The device reads @length bytes at @offset of its mapping into @buf. */
#define test_importer_read(session, offset, buf, length)		\
	ASSERT_EQ(0, _test_importer_transfer(session, IMPORTER_IOC_READ, \
					     offset, buf, length))

#define test_importer_write(session, offset, buf, length)		\
	ASSERT_EQ(0, _test_importer_transfer(session, IMPORTER_IOC_WRITE, \
					     offset, buf, length))

#define test_importer_vmap(session) \
	ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_VMAP, NULL))

#define test_importer_vunmap(session) \
	ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_VUNMAP, NULL))

#define test_importer_vread(session, offset, buf, length)		\
	ASSERT_EQ(0, _test_importer_transfer(session, IMPORTER_IOC_VREAD, \
					     offset, buf, length))

#define test_importer_vwrite(session, offset, buf, length)		\
	ASSERT_EQ(0, _test_importer_transfer(session, IMPORTER_IOC_VWRITE, \
					     offset, buf, length))

static inline struct importer_info
__test_importer_info(struct __test_metadata *_metadata, int session)
{
	struct importer_info info;

	memset(&info, POISON_BYTE, sizeof(info));
	ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_INFO, &info));
	return info;
}

/*
 * The errno of a vmap that the exporter refuses by EINVAL: before 6619ccf1bb1d (v5.11)
 * an importer saw nothing but NULL.
 */
static inline int vmap_refused(void)
{
	return kernel_at_least(5, 11) ? EINVAL : ENOMEM;
}

/* Gives a struct importer_info. */
#define test_importer_info(session) __test_importer_info(_metadata, session)

/* What the dma-buf begins with, by a mapping of its own and for a device. */
static inline void __test_contents(struct __test_metadata *_metadata,
				   int dmabuf, size_t length, unsigned int seed)
{
	void *view = mmap(NULL, length, PROT_READ, MAP_SHARED, dmabuf, 0);
	int session = test_importer_open();
	void *read = malloc(length);

	ASSERT_NE(MAP_FAILED, view);
	EXPECT_EQ(-1, first_difference(view, length, seed));
	munmap(view, length);

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	test_importer_read(session, 0, read, length);
	EXPECT_EQ(-1, first_difference(read, length, seed));
	close(session);
	free(read);
}

/* Expects what fill() writes for @seed. */
#define test_contents(dmabuf, length, seed) \
	__test_contents(_metadata, dmabuf, length, seed)

/* ---- the stand-in for drivers of carve-outs ---- */

/* For tests and for FIXTURE_SETUP. */
#define skip_without_carveout() do {					\
	if (access(CARVEOUT_PATH, F_OK))				\
		SKIP(return, "the module vmemexp_carveout is not loaded"); \
} while (0)

/* Returns 0 or a negative errno: there may be no such region. */
static inline int _test_carveout_info(unsigned int region,
				      struct carveout_info *info)
{
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC);
	int ret;

	*info = (struct carveout_info){ .region = region };
	ret = _test_ioctl(fd, CARVEOUT_IOC_INFO, info);
	close(fd);
	return ret;
}

/* Returns a file that maps the region in the way told, or a negative errno. */
static inline int _test_carveout_open(const struct carveout_setup *setup)
{
	struct carveout_setup arg = *setup;
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = _test_ioctl(fd, CARVEOUT_IOC_SETUP, &arg);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

/*
 * What the other processor finds (@request is CARVEOUT_IOC_READ) or writes
 * (CARVEOUT_IOC_WRITE) at @offset of the region.
 */
static inline int _test_carveout_transfer(unsigned long request,
					  unsigned int region, uint64_t offset,
					  const volatile void *buf,
					  size_t length)
{
	struct carveout_transfer cmd = {
		.region = region,
		.offset = offset,
		.length = length,
		.user_ptr = to_u64(buf),
	};
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC);
	int ret = _test_ioctl(fd, request, &cmd);

	close(fd);
	return ret;
}

#define test_carveout_read(region, offset, buf, length)			\
	ASSERT_EQ(0, _test_carveout_transfer(CARVEOUT_IOC_READ, region,	\
					     offset, buf, length))

#define test_carveout_write(region, offset, buf, length)		\
	ASSERT_EQ(0, _test_carveout_transfer(CARVEOUT_IOC_WRITE, region, \
					     offset, buf, length))

/* ---- dma-bufs of other exporters, or -1 if the kernel has none ---- */

static inline int make_udmabuf(size_t size)
{
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	int memfd = memfd_create("udmabuf", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	struct udmabuf_create cmd = {
		.memfd = memfd,
		.flags = UDMABUF_FLAGS_CLOEXEC,
		.size = size,
	};
	int dmabuf = -1;

	if (device >= 0 && memfd >= 0 && !ftruncate(memfd, size) &&
	    !fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		dmabuf = ioctl(device, UDMABUF_CREATE, &cmd);
	close(memfd);
	close(device);
	return dmabuf;
}

static inline int make_heap_dmabuf_for(size_t size, unsigned int access)
{
	struct dma_heap_allocation_data cmd = {
		.len = size,
		.fd_flags = access | O_CLOEXEC,
	};
	int heap = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
	int ret = ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &cmd);

	close(heap);
	return ret ? -1 : (int)cmd.fd;
}

static inline int make_heap_dmabuf(size_t size)
{
	return make_heap_dmabuf_for(size, O_RDWR);
}

static inline bool is_vgem(int card)
{
	char name[16] = "";
	struct drm_version version = {
		.name = name,
		.name_len = sizeof(name) - 1,
	};

	return !ioctl(card, DRM_IOCTL_VERSION, &version) && !strcmp(name, "vgem");
}

/* Opens vgem's card, or returns -1. */
static inline int open_vgem(void)
{
	for (int i = 0; i < 16; i++) {
		char path[32];
		int card;

		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		card = open(path, O_RDWR | O_CLOEXEC);
		if (is_vgem(card))
			return card;
		close(card);
	}
	return -1;
}

/* A dumb buffer of vgem, exported by PRIME; -1 if it is not there. */
static inline int make_vgem_dmabuf(size_t size)
{
	struct drm_mode_create_dumb dumb = {
		.width = page_size() / 4, .height = size / page_size(),
		.bpp = 32,
	};
	struct drm_prime_handle prime = { .flags = DRM_CLOEXEC | DRM_RDWR, .fd = -1 };
	int card = open_vgem();

	if (!ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &dumb)) {
		prime.handle = dumb.handle;
		ioctl(card, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime);
	}
	close(card);
	return prime.fd;
}

#endif /* VMEMEXP_UTILS_H */

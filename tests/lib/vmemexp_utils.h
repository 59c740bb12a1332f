/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls and assertions that the tests of vmemexp share.
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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kselftest_harness.h>

/* Seconds. The machine may be busy, and the kernel check each step: only a hang lasts longer. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	240

#include "carveout.h"
#include "driver.h"
#include "exporters.h"
#include "importer.h"
#include "memory.h"
#include "process.h"
#include "state.h"

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

#define ALL_CAPS	(~(uint64_t)0)
#define RAWIO		((uint64_t)CAP_TO_MASK(CAP_SYS_RAWIO))

/* Leaves those in effect of all that root may have. */
static inline void __set_caps(struct __test_metadata *_metadata, uint64_t wanted)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	ASSERT_EQ(0, syscall(SYS_capget, &header, data));
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted & (wanted >> (32 * i));
	ASSERT_EQ(0, syscall(SYS_capset, &header, data));
}

#define set_caps(wanted) __set_caps(_metadata, wanted)

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

static inline unsigned char *__test_mmap(struct __test_metadata *_metadata, void *where,
					 size_t length, int flags, int file, uint64_t offset)
{
	unsigned char *addr = mmap64(where, length, PROT_READ | PROT_WRITE,
				     flags | (where ? MAP_FIXED : 0), file, offset);

	ASSERT_NE(MAP_FAILED, (void *)addr) {
		TH_LOG("mmap: %s", strerror(errno));
	}
	return addr;
}

/* @where is NULL, or where to put it whatever is there. */
#define test_mmap(where, length, flags, file, offset) \
	__test_mmap(_metadata, where, length, flags, file, offset)

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

/* A good export: also checks that the answers fit the request. */
static inline int __test_export(struct __test_metadata *_metadata, int fd,
				struct vmemexp_export *cmd)
{
	struct vmemexp_export in = *cmd;
	struct vmemexp_range asked = asked_range(&in);
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
	ASSERT_EQ(asked.vaddr % page, cmd->offset);
	ASSERT_EQ((cmd->offset + asked.length + page - 1) / page * page,
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
	if (cmd->size < VMEMEXP_EXPORT_SIZE_VER2)
		return cmd->fd;
	ASSERT_EQ(in.ranges, cmd->ranges);
	ASSERT_EQ(in.nr_ranges, cmd->nr_ranges);
	ASSERT_EQ(0, cmd->err_range);
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

static inline void __test_err_list(struct __test_metadata *_metadata, int fd, int error,
				   unsigned int reason, unsigned int range, uint64_t addr,
				   struct vmemexp_export *cmd)
{
	struct vmemexp_export expected = *cmd;

	expected.err_reason = reason;
	expected.err_addr = addr;
	if (cmd->size >= VMEMEXP_EXPORT_SIZE_VER2)
		expected.err_range = range;
	__test_err(_metadata, fd, VMEMEXP_IOC_EXPORT, error, cmd, &expected,
		   sizeof(expected));
	EXPECT_EQ(reason, cmd->err_reason);
	EXPECT_EQ(addr, cmd->err_addr);
	EXPECT_EQ(expected.err_range, cmd->err_range);
}

/* @range is the expected err_range. */
#define test_err_list_cmd(error, reason, range, addr, cmd) \
	__test_err_list(_metadata, self->fd, error, reason, range, addr, cmd)

static inline void __test_err_export(struct __test_metadata *_metadata, int fd,
				     int error, unsigned int reason,
				     uint64_t addr, struct vmemexp_export *cmd)
{
	__test_err_list(_metadata, fd, error, reason, 0, addr, cmd);
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

#define test_sync(dmabuf, flags, offset, length) \
	ASSERT_EQ(0, _test_sync(self->fd, dmabuf, flags, offset, length))

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

#define test_dmabuf_sync(dmabuf, flags) \
	ASSERT_EQ(0, _test_dmabuf_sync(dmabuf, flags))

/* ---- the test importer; a session is an open file of it ---- */

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

#define test_importer_attach(session, dmabuf, device) \
	ASSERT_EQ(0, _test_importer_attach(session, dmabuf, device))

#define test_importer_detach(session) \
	ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_DETACH, NULL))

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

#define test_importer_edit(session, nents, skip, trim) \
	ASSERT_EQ(0, _test_importer_edit(session, nents, skip, trim))

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

/* Gives a struct importer_info. */
#define test_importer_info(session) __test_importer_info(_metadata, session)

/* The first bytes of the dma-buf, by a mapping of its own and for a device. */
static inline void __test_bytes(struct __test_metadata *_metadata, int dmabuf,
				const unsigned char *expect, size_t length)
{
	unsigned char *view = mmap(NULL, length, PROT_READ, MAP_SHARED, dmabuf, 0);
	int session = test_importer_open();
	unsigned char *read = malloc(length);

	ASSERT_NE(MAP_FAILED, (void *)view);
	ASSERT_NE(NULL, read);
	EXPECT_EQ(-1, first_wrong(expect, view, length));
	munmap(view, length);

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	test_importer_read(session, 0, read, length);
	EXPECT_EQ(-1, first_wrong(expect, read, length));
	close(session);
	free(read);
}

#define test_bytes(dmabuf, expect, length) __test_bytes(_metadata, dmabuf, expect, length)

static inline void __test_contents(struct __test_metadata *_metadata,
				   int dmabuf, size_t length, unsigned int seed)
{
	unsigned char *expect = malloc(length);

	ASSERT_NE(NULL, expect);
	fill(expect, length, seed);
	test_bytes(dmabuf, expect, length);
	free(expect);
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

#define test_carveout_read(region, offset, buf, length)			\
	ASSERT_EQ(0, _test_carveout_transfer(CARVEOUT_IOC_READ, region,	\
					     offset, buf, length))

#define test_carveout_write(region, offset, buf, length)		\
	ASSERT_EQ(0, _test_carveout_transfer(CARVEOUT_IOC_WRITE, region, \
					     offset, buf, length))

#endif /* VMEMEXP_UTILS_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * libvmemexp without a driver: what it asks of the driver, what it makes of the answers,
 * how often it asks again, and what it keeps. After each test all descriptors are closed
 * again. Prints TAP.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"
#include "libvmemexp.h"

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define PAGE	FAKE_PAGE
#define ADDR	((void *)0x10000000)
#define SIZE	(16 * PAGE)
#define RW	VMEMEXP_SYNC_RW

/* The library may ask so often, and not for ever. */
#define TRIES_AT_LEAST	3
#define TRIES_AT_MOST	100

static atomic_int failures;

/* The call fails so, with the errno in both places. */
#define EXPECT_ERRNO(error, call) do {					\
	errno = 0;							\
	EXPECT((call) == -1);						\
	EXPECT(errno == (error));					\
} while (0)

static struct vmemexp *v;

/* A pointer into a range of the fake. */
static void *at(size_t offset)
{
	return (char *)ADDR + offset;
}

static struct vmemexp_buf *export(size_t offset, size_t length, unsigned int flags)
{
	struct vmemexp_buf *buf;

	EXPECT(!vmemexp_export(v, at(offset), length, flags, &buf, NULL));
	return buf;
}

static struct vmemexp_buf *get(size_t offset, size_t length, unsigned int flags)
{
	struct vmemexp_buf *buf;

	EXPECT(!vmemexp_get(v, at(offset), length, flags, &buf, NULL));
	return buf;
}

/* For tests that need no reference, because the cache has one. */
static struct vmemexp_buf *get_unref(size_t offset, size_t length, unsigned int flags)
{
	struct vmemexp_buf *buf = get(offset, length, flags);

	vmemexp_buf_unref(buf);
	return buf;
}

static void fail_next(unsigned long request, unsigned int times, int error)
{
	fake.fail_request = request;
	fake.fail_times = times;
	fake.fail_errno = error;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static ino_t inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

/* Is any descriptor open there? Numbers of descriptors are given out again at once. */
static bool is_held(ino_t ino)
{
	for (int fd = 0; fd < 1024; fd++)
		if (inode(fd) == ino)
			return true;
	return false;
}

/* ---- the device ---- */

static void open_takes_the_default_path_or_another(void)
{
	struct vmemexp_error err = { 1, 2, 3 };
	struct vmemexp *other;

	EXPECT(!strcmp(fake.path, "/dev/vmemexp"));
	EXPECT(fake.open_flags == (O_RDWR | O_CLOEXEC) ||
	       fake.open_flags == (O_RDWR | O_CLOEXEC | O_LARGEFILE));
	EXPECT(fcntl(vmemexp_fd(v), F_GETFD) == FD_CLOEXEC);
	other = vmemexp_open("/dev/another", &err);
	EXPECT(other && !strcmp(fake.path, "/dev/another"));
	EXPECT(!err.err && !err.reason && !err.addr);
	EXPECT(vmemexp_fd(other) != vmemexp_fd(v));
	vmemexp_close(other);
}

static void open_tells_the_errno(void)
{
	static const int errors[] = { ENOENT, EACCES, EMFILE };
	struct vmemexp_error err;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		err = (struct vmemexp_error) { 1, 2, 3 };
		fail_next(FAKE_OPEN, 2, errors[i]);
		errno = 0;
		EXPECT(!vmemexp_open(NULL, &err));
		EXPECT(errno == errors[i]);
		EXPECT(err.err == errors[i] && !err.reason && !err.addr);
		EXPECT(!vmemexp_open(NULL, NULL));
	}
}

static void open_is_called_again_after_a_signal(void)
{
	struct vmemexp *other;

	fail_next(FAKE_OPEN, 3, EINTR);
	other = vmemexp_open(NULL, NULL);
	EXPECT(other && fake.nr_opens == 5);
	vmemexp_close(other);
}

static void close_closes_and_keeps_errno(void)
{
	struct vmemexp *other = vmemexp_open(NULL, NULL);
	int fd = vmemexp_fd(other);

	errno = EXDEV;
	vmemexp_close(other);
	EXPECT(errno == EXDEV);
	EXPECT(!is_open(fd));
	vmemexp_close(NULL);
}

/* ---- export ---- */

static void export_asks_for_what_the_flags_say(void)
{
	static const struct {
		unsigned int flags, driver_flags;
		int fd_flags;
	} cases[] = {
		{ 0, 0, O_RDWR },
		{ VMEMEXP_RDONLY, 0, O_RDONLY },
		{ VMEMEXP_CONTIGUOUS, VMEMEXP_EXPORT_CONTIGUOUS, O_RDWR },
		{ VMEMEXP_ROUND, VMEMEXP_EXPORT_UNALIGNED, O_RDWR },
		{ VMEMEXP_RDONLY | VMEMEXP_CONTIGUOUS | VMEMEXP_ROUND,
		  VMEMEXP_EXPORT_CONTIGUOUS | VMEMEXP_EXPORT_UNALIGNED, O_RDONLY },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmemexp_buf *buf = export(PAGE, SIZE, cases[i].flags);

		EXPECT(fake.export.size == sizeof(fake.export));
		EXPECT(fake.export.flags == cases[i].driver_flags);
		EXPECT(fake.export.vaddr == (uintptr_t)at(PAGE));
		EXPECT(fake.export.length == SIZE);
		EXPECT(fake.export.fd_flags == (unsigned int)(cases[i].fd_flags | O_CLOEXEC));
		EXPECT(!fake.export.state && !fake.export.reserved);
		EXPECT(fake.nr_exports == i + 1);
		vmemexp_buf_unref(buf);
	}
}

static void export_gives_the_answer(void)
{
	struct vmemexp_error err = { 1, 2, 3 };
	struct vmemexp_buf *buf = NULL;

	EXPECT(!vmemexp_export(v, at(100), SIZE, VMEMEXP_ROUND, &buf, &err));
	EXPECT(!err.err && !err.reason && !err.addr);
	EXPECT(vmemexp_buf_offset(buf) == 100);
	EXPECT(vmemexp_buf_size(buf) == SIZE + PAGE);
	EXPECT(fcntl(vmemexp_buf_fd(buf), F_GETFD) == FD_CLOEXEC);
	EXPECT(lseek(vmemexp_buf_fd(buf), 0, SEEK_END) == SIZE + PAGE);
	vmemexp_buf_unref(buf);
}

static void export_refuses_bad_arguments_itself(void)
{
	struct vmemexp_error err = { 1, 2, 3 };
	struct vmemexp_buf *buf = (void *)1;

	EXPECT_ERRNO(EINVAL, vmemexp_export(NULL, ADDR, SIZE, 0, &buf, &err));
	EXPECT(err.err == EINVAL && err.reason == VMEMEXP_REASON_NONE && !err.addr);
	EXPECT(!buf);
	err = (struct vmemexp_error) { 1, 2, 3 };
	EXPECT_ERRNO(EINVAL, vmemexp_export(v, ADDR, SIZE, 0, NULL, &err));
	EXPECT(err.err == EINVAL && err.reason == VMEMEXP_REASON_NONE && !err.addr);
	EXPECT_ERRNO(EINVAL, vmemexp_get(NULL, ADDR, SIZE, 0, &buf, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_get(v, ADDR, SIZE, 0, NULL, NULL));
	for (unsigned int bit = 3; bit < 32; bit++) {
		err = (struct vmemexp_error) { 1, 2, 3 };
		buf = (void *)1;
		EXPECT_ERRNO(EINVAL, vmemexp_export(v, ADDR, SIZE, 1U << bit, &buf, &err));
		EXPECT(err.err == EINVAL && err.reason == VMEMEXP_REASON_FLAGS && !err.addr);
		EXPECT(!buf);
		EXPECT_ERRNO(EINVAL, vmemexp_get(v, ADDR, SIZE, 1U << bit, &buf, NULL));
	}
	EXPECT(!fake.nr_exports);
}

static void export_hands_on_errno_reason_and_address(void)
{
	for (unsigned int reason = 0; reason < 40; reason++) {
		struct vmemexp_error err = { 1, 2, 3 };
		struct vmemexp_buf *buf = (void *)1;
		int error = reason % 2 ? EFAULT : EPERM;

		fail_next(VMEMEXP_IOC_EXPORT, 2, error);
		fake.fail_reason = reason;
		fake.fail_addr = 0x7f0000000000ULL + reason;
		EXPECT_ERRNO(error, vmemexp_export(v, ADDR, SIZE, 0, &buf, &err));
		EXPECT(err.err == error && err.reason == reason);
		EXPECT(err.addr == 0x7f0000000000ULL + reason);
		EXPECT(!buf);
		EXPECT_ERRNO(error, vmemexp_export(v, ADDR, SIZE, 0, &buf, NULL));
	}
	EXPECT(fake.nr_exports == 80);
}

static void export_is_called_again_after_signals_and_changes(void)
{
	struct vmemexp_error err;
	struct vmemexp_buf *buf;

	fail_next(VMEMEXP_IOC_EXPORT, 2 * TRIES_AT_MOST, EINTR);
	vmemexp_buf_unref(export(0, SIZE, 0));
	EXPECT(fake.nr_exports == 2 * TRIES_AT_MOST + 1);

	fail_next(VMEMEXP_IOC_EXPORT, TRIES_AT_LEAST - 1, EAGAIN);
	fake.fail_reason = VMEMEXP_REASON_CHANGED;
	fake.nr_exports = 0;
	vmemexp_buf_unref(export(0, SIZE, 0));
	EXPECT(fake.nr_exports == TRIES_AT_LEAST);

	/* Not for ever. */
	fail_next(VMEMEXP_IOC_EXPORT, 1000, EAGAIN);
	fake.fail_addr = 0x1000;
	fake.nr_exports = 0;
	EXPECT_ERRNO(EAGAIN, vmemexp_export(v, ADDR, SIZE, 0, &buf, &err));
	EXPECT(err.err == EAGAIN && err.reason == VMEMEXP_REASON_CHANGED && err.addr == 0x1000);
	EXPECT(fake.nr_exports >= TRIES_AT_LEAST && fake.nr_exports <= TRIES_AT_MOST);
}

/* The driver has tried itself, for a second and more. */
static void export_of_what_cannot_be_pinned_is_called_once(void)
{
	struct vmemexp_error err;
	struct vmemexp_buf *buf;

	fail_next(VMEMEXP_IOC_EXPORT, 1000, EAGAIN);
	fake.fail_reason = VMEMEXP_REASON_UNPINNABLE;
	EXPECT_ERRNO(EAGAIN, vmemexp_export(v, ADDR, SIZE, 0, &buf, &err));
	EXPECT(err.reason == VMEMEXP_REASON_UNPINNABLE && fake.nr_exports == 1);
}

static void be_old(uint32_t export_size)
{
	fake.export_size = export_size;
	fake.query_size = VMEMEXP_QUERY_SIZE_VER0;
}

static void export_works_with_an_old_driver(void)
{
	static const uint32_t sizes[] = { VMEMEXP_EXPORT_SIZE_VER0, VMEMEXP_EXPORT_SIZE_VER1 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct vmemexp_query query = { .size = sizeof(query) };
		struct vmemexp_buf *buf;

		be_old(sizes[i]);
		fake.nr_exports = 0;
		buf = export(100, SIZE, VMEMEXP_ROUND);
		EXPECT(vmemexp_buf_offset(buf) == 100 && vmemexp_buf_size(buf) == SIZE + PAGE);
		EXPECT(!vmemexp_buf_query(buf, &query));
		EXPECT(query.length == SIZE && !query.nr_ranges);
		vmemexp_buf_unref(buf);
		EXPECT(get_unref(0, SIZE, 0) == get_unref(0, SIZE, 0));
		EXPECT(fake.nr_exports == 2);
		vmemexp_forget(v, ADDR, SIZE);
	}
}

static void aligned_size_is_whole_pages(void)
{
	const size_t page = sysconf(_SC_PAGESIZE);

	EXPECT(vmemexp_aligned_size(0) == 0);
	EXPECT(vmemexp_aligned_size(1) == page);
	EXPECT(vmemexp_aligned_size(page - 1) == page);
	EXPECT(vmemexp_aligned_size(page) == page);
	EXPECT(vmemexp_aligned_size(page + 1) == 2 * page);
	EXPECT(vmemexp_aligned_size(SIZE_MAX - page + 1) == SIZE_MAX - page + 1);
	EXPECT(vmemexp_aligned_size(SIZE_MAX - page + 2) == 0);
	EXPECT(vmemexp_aligned_size(SIZE_MAX) == 0);
}

/* ---- several ranges ---- */

/* In this order in the dma-buf, and otherwise in memory. */
static const struct iovec three[] = {
	{ (char *)ADDR + 8 * PAGE, 2 * PAGE },
	{ ADDR, PAGE },
	{ (char *)ADDR + 4 * PAGE, 3 * PAGE },
};

static struct vmemexp_buf *exportv(const struct iovec *iov, unsigned int n, unsigned int flags)
{
	struct vmemexp_error err = { 1, 2, 3 };
	struct vmemexp_buf *buf = NULL;
	unsigned int err_range = 4;

	EXPECT(!vmemexp_exportv(v, iov, n, flags, &buf, &err, &err_range));
	EXPECT(!err.err && !err.reason && !err.addr && !err_range);
	return buf;
}

static void expect_asked_for(const struct iovec *iov, unsigned int n)
{
	EXPECT(fake.export.nr_ranges == n);
	EXPECT(!fake.export.vaddr && !fake.export.length);
	for (unsigned int i = 0; i < n; i++)
		EXPECT(fake.ranges[i].vaddr == (uintptr_t)iov[i].iov_base &&
		       fake.ranges[i].length == iov[i].iov_len);
}

static void exportv_asks_for_all_ranges_in_their_order(void)
{
	struct vmemexp_query query = { .size = sizeof(query) };
	struct vmemexp_buf *buf = exportv(three, 3, 0);

	expect_asked_for(three, 3);
	EXPECT(fake.export.size == sizeof(fake.export) && !fake.export.flags);
	EXPECT(fake.export.fd_flags == (O_RDWR | O_CLOEXEC));
	EXPECT(!vmemexp_buf_offset(buf) && vmemexp_buf_size(buf) == 6 * PAGE);
	EXPECT(fcntl(vmemexp_buf_fd(buf), F_GETFD) == FD_CLOEXEC);
	EXPECT(!vmemexp_buf_query(buf, &query));
	EXPECT(query.nr_ranges == 3 && query.length == 6 * PAGE);
	vmemexp_buf_unref(buf);

	buf = exportv(three + 1, 2, VMEMEXP_RDONLY | VMEMEXP_CONTIGUOUS | VMEMEXP_ROUND);
	expect_asked_for(three + 1, 2);
	EXPECT(fake.export.flags == (VMEMEXP_EXPORT_CONTIGUOUS | VMEMEXP_EXPORT_UNALIGNED));
	EXPECT(fake.export.fd_flags == (O_RDONLY | O_CLOEXEC));
	EXPECT(fake.nr_exports == 2);
	vmemexp_buf_unref(buf);
	EXPECT(!vmemexp_exportv(v, three, 3, 0, &buf, NULL, NULL));
	vmemexp_buf_unref(buf);
}

static void exportv_takes_as_many_as_the_driver(void)
{
	struct iovec *iov = calloc(VMEMEXP_MAX_RANGES, sizeof(*iov));

	for (unsigned int i = 0; i < VMEMEXP_MAX_RANGES; i++)
		iov[i] = (struct iovec) { at(2 * i * PAGE), PAGE };
	vmemexp_buf_unref(exportv(iov, VMEMEXP_MAX_RANGES, 0));
	expect_asked_for(iov, VMEMEXP_MAX_RANGES);
	free(iov);
}

static void exportv_of_one_range_works_with_an_old_driver(void)
{
	be_old(VMEMEXP_EXPORT_SIZE_VER1);
	vmemexp_buf_unref(exportv(three, 1, 0));
	EXPECT(fake.export.vaddr == (uintptr_t)three->iov_base);
	EXPECT(fake.export.length == three->iov_len);
	EXPECT(!fake.export.ranges && !fake.export.nr_ranges);
}

static void exportv_tells_that_a_driver_is_too_old(void)
{
	static const uint32_t sizes[] = { VMEMEXP_EXPORT_SIZE_VER0, VMEMEXP_EXPORT_SIZE_VER1 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct vmemexp_error err = { 1, 2, 3 };
		struct vmemexp_buf *buf = (void *)1;
		unsigned int err_range = 4;
		char why[256];

		be_old(sizes[i]);
		EXPECT_ERRNO(E2BIG, vmemexp_exportv(v, three, 3, 0, &buf, &err, &err_range));
		EXPECT(err.err == E2BIG && !err.reason && !err.addr && !err_range && !buf);
		EXPECT(!strcmp(vmemexp_strerror(&err, why, sizeof(why)),
			       "the driver is too old for several ranges in one dma-buf"));
		EXPECT(fake.nr_exports == i + 1);
	}
}

static void exportv_refuses_what_is_no_list(void)
{
	struct iovec iov[VMEMEXP_MAX_RANGES + 1] = { { ADDR, PAGE } };
	const struct {
		const struct iovec *iov;
		unsigned int n;
	} cases[] = {
		{ NULL, 0 }, { NULL, 1 }, { NULL, 2 }, { three, 0 },
		{ iov, VMEMEXP_MAX_RANGES + 1 }, { iov, UINT32_MAX },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmemexp_error err = { 1, 2, 3 };
		struct vmemexp_buf *buf = (void *)1;
		unsigned int err_range = 4;

		EXPECT_ERRNO(EINVAL, vmemexp_exportv(v, cases[i].iov, cases[i].n, 0, &buf, &err,
						     &err_range));
		EXPECT(err.err == EINVAL && err.reason == VMEMEXP_REASON_RANGES && !err.addr);
		EXPECT(!err_range && !buf);
	}
	EXPECT(!fake.nr_exports);
}

static void exportv_refuses_bad_arguments_itself(void)
{
	struct vmemexp_error err = { 1, 2, 3 };
	struct vmemexp_buf *buf = (void *)1;
	unsigned int err_range = 4;

	EXPECT_ERRNO(EINVAL, vmemexp_exportv(NULL, three, 3, 0, &buf, &err, &err_range));
	EXPECT(err.err == EINVAL && err.reason == VMEMEXP_REASON_NONE && !err_range && !buf);
	EXPECT_ERRNO(EINVAL, vmemexp_exportv(v, three, 3, 0, NULL, &err, &err_range));
	EXPECT(err.reason == VMEMEXP_REASON_NONE);
	/* Before it looks at the list. */
	EXPECT_ERRNO(EINVAL, vmemexp_exportv(v, NULL, 0, 8, &buf, &err, NULL));
	EXPECT(err.reason == VMEMEXP_REASON_FLAGS);
	EXPECT(!fake.nr_exports);
}

static void exportv_tells_which_range_is_wrong(void)
{
	struct vmemexp_error err;
	unsigned int err_range;
	struct vmemexp_buf *buf;

	fail_next(VMEMEXP_IOC_EXPORT, 3, EFAULT);
	fake.fail_reason = VMEMEXP_REASON_NOT_MAPPED;
	fake.fail_addr = 0x7000;
	fake.fail_range = 2;
	EXPECT_ERRNO(EFAULT, vmemexp_exportv(v, three, 3, 0, &buf, &err, &err_range));
	EXPECT(err.reason == VMEMEXP_REASON_NOT_MAPPED && err.addr == 0x7000 && err_range == 2);
	EXPECT_ERRNO(EFAULT, vmemexp_exportv(v, three, 3, 0, &buf, NULL, NULL));
	EXPECT_ERRNO(EFAULT, vmemexp_exportv(v, three, 1, 0, &buf, &err, &err_range));
	EXPECT(!err_range);
	EXPECT(fake.nr_exports == 3);

	/* The next question has nothing of the answer: a driver would refuse that. */
	fail_next(VMEMEXP_IOC_EXPORT, TRIES_AT_LEAST - 1, EAGAIN);
	fake.fail_reason = VMEMEXP_REASON_CHANGED;
	vmemexp_buf_unref(exportv(three, 3, 0));
	expect_asked_for(three, 3);
	EXPECT(fake.nr_exports == 3 + TRIES_AT_LEAST);
}

static void begin_counts_through_all_ranges(void)
{
	const struct vmemexp_area rows = { .offset = PAGE, .length = 8, .rows = 5, .stride = PAGE };
	const struct vmemexp_area last = { .offset = 6 * PAGE - 101, .length = 1 };
	const struct vmemexp_area beyond = { .offset = 6 * PAGE - 100, .length = 1 };
	struct iovec iov[] = { three[0], three[1], three[2] };
	struct vmemexp_buf *buf;

	iov[0].iov_base = at(8 * PAGE + 100);
	iov[0].iov_len -= 100;
	buf = exportv(iov, 3, VMEMEXP_ROUND);
	EXPECT(vmemexp_buf_offset(buf) == 100);
	EXPECT(!vmemexp_begin(buf, RW, NULL));
	EXPECT(fake.sync.offset == 100 && fake.sync.length == 6 * PAGE - 100);
	EXPECT(!vmemexp_end(buf));
	EXPECT(!vmemexp_begin(buf, RW, &rows));
	EXPECT(fake.sync.offset == PAGE + 100 && fake.sync.rows == 5);
	EXPECT(!vmemexp_end(buf));
	EXPECT(!vmemexp_begin(buf, RW, &last));
	EXPECT(fake.sync.offset == 6 * PAGE - 1);
	EXPECT(!vmemexp_end(buf));
	EXPECT_ERRNO(EINVAL, vmemexp_begin(buf, RW, &beyond));
	vmemexp_buf_unref(buf);
}

static void exportv_is_not_found_by_get(void)
{
	struct vmemexp_buf *list = exportv(three, 3, 0), *one = exportv(three, 1, 0), *buf;

	buf = get_unref(8 * PAGE, 2 * PAGE, 0);
	EXPECT(buf != list && buf != one && fake.nr_exports == 3);
	vmemexp_buf_unref(list);
	vmemexp_buf_unref(one);
}

/* ---- buffers ---- */

static void the_last_unref_closes_the_descriptor(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	int fd = vmemexp_buf_fd(buf);

	EXPECT(vmemexp_buf_ref(buf) == buf);
	EXPECT(vmemexp_buf_ref(buf) == buf);
	vmemexp_buf_unref(buf);
	EXPECT(is_open(fd));
	vmemexp_buf_unref(buf);
	EXPECT(is_open(fd));
	errno = EXDEV;
	vmemexp_buf_unref(buf);
	EXPECT(errno == EXDEV);
	EXPECT(!is_open(fd));
	EXPECT(!vmemexp_buf_ref(NULL));
	vmemexp_buf_unref(NULL);
}

static void buffers_keep_the_device_open(void)
{
	struct vmemexp *other = vmemexp_open(NULL, NULL);
	struct vmemexp_query query = { .size = sizeof(query) };
	struct vmemexp_buf *bufs[2];
	int fd = vmemexp_fd(other);

	EXPECT(!vmemexp_export(other, ADDR, SIZE, 0, &bufs[0], NULL));
	EXPECT(!vmemexp_get(other, ADDR, SIZE, 0, &bufs[1], NULL));
	vmemexp_close(other);
	for (int i = 0; i < 2; i++) {
		EXPECT(is_open(fd));
		EXPECT(!vmemexp_buf_query(bufs[i], &query));
		EXPECT(!vmemexp_begin(bufs[i], RW, NULL) && !vmemexp_end(bufs[i]));
		vmemexp_buf_unref(bufs[i]);
	}
	EXPECT(!is_open(fd));
}

static void query_describes_the_buffer(void)
{
	struct vmemexp_buf *buf = export(100, SIZE, VMEMEXP_ROUND);
	struct vmemexp_query query;

	memset(&query, 0xcc, sizeof(query));
	query.size = sizeof(query);
	fail_next(VMEMEXP_IOC_QUERY, 3, EINTR);
	EXPECT(!vmemexp_buf_query(buf, &query));
	EXPECT(fake.nr_queries == 4);
	EXPECT(query.size == sizeof(query) && query.fd == vmemexp_buf_fd(buf));
	EXPECT(query.offset == 100 && query.length == SIZE);
	EXPECT(query.dmabuf_size == SIZE + PAGE);
	EXPECT(query.state == VMEMEXP_STATE_TRACKED && !query.vmaps);
	vmemexp_buf_unref(buf);
}

static void query_gives_a_newer_program_zeroes(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	union {
		struct vmemexp_query query;
		unsigned char bytes[4097];
	} u;

	memset(&u, 0xcc, sizeof(u));
	u.query.size = sizeof(u.query) + 8;
	EXPECT(!vmemexp_buf_query(buf, &u.query));
	EXPECT(u.query.size == sizeof(u.query) + 8);
	for (size_t i = sizeof(u.query); i < sizeof(u.bytes); i++)
		EXPECT(u.bytes[i] == (i < sizeof(u.query) + 8 ? 0 : 0xcc));
	u.query.size = 4096;
	EXPECT(!vmemexp_buf_query(buf, &u.query));
	EXPECT(u.bytes[4096] == 0xcc);
	u.query.size = 4097;
	EXPECT_ERRNO(E2BIG, vmemexp_buf_query(buf, &u.query));
	vmemexp_buf_unref(buf);
}

static void query_refuses_bad_arguments_and_writes_nothing(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	struct vmemexp_query query, before;

	memset(&query, 0xcc, sizeof(query));
	EXPECT_ERRNO(EINVAL, vmemexp_buf_query(NULL, &query));
	EXPECT_ERRNO(EINVAL, vmemexp_buf_query(buf, NULL));
	query.size = 0;
	EXPECT_ERRNO(EINVAL, vmemexp_buf_query(buf, &query));
	query.size = VMEMEXP_QUERY_SIZE_VER0 - 1;
	before = query;
	EXPECT_ERRNO(EINVAL, vmemexp_buf_query(buf, &query));
	EXPECT(!fake.nr_queries);
	EXPECT(!memcmp(&query, &before, sizeof(query)));

	query.size = sizeof(query);
	before = query;
	fail_next(VMEMEXP_IOC_QUERY, 1, EPERM);
	EXPECT_ERRNO(EPERM, vmemexp_buf_query(buf, &query));
	EXPECT(!memcmp(&query, &before, sizeof(query)));
	vmemexp_buf_unref(buf);
}

/* ---- sync ---- */

static const struct vmemexp_area area = { .offset = 8, .length = 16, .rows = 3, .stride = 64 };

static void sync_names_the_area(void)
{
	static const unsigned int all[] = {
		VMEMEXP_SYNC_READ, VMEMEXP_SYNC_WRITE | VMEMEXP_SYNC_END,
		RW | VMEMEXP_SYNC_OBSERVER, RW | VMEMEXP_SYNC_END | VMEMEXP_SYNC_OBSERVER,
	};
	struct vmemexp_buf *buf = export(0, SIZE, 0);

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		EXPECT(!vmemexp_sync(v, vmemexp_buf_fd(buf), all[i], &area));
		EXPECT(fake.sync.size == sizeof(fake.sync));
		EXPECT(fake.sync.fd == vmemexp_buf_fd(buf) && fake.sync.flags == all[i]);
		EXPECT(fake.sync.offset == 8 && fake.sync.length == 16);
		EXPECT(fake.sync.rows == 3 && fake.sync.stride == 64);
	}
	EXPECT(fake.nr_syncs == ARRAY_SIZE(all) && !fake.nr_whole_syncs && !fake.nr_queries);
	vmemexp_buf_unref(buf);
}

static void sync_without_an_area_is_of_the_whole_dma_buf(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	int foreign = fake_foreign_dmabuf(SIZE);

	EXPECT(!vmemexp_sync(v, vmemexp_buf_fd(buf), RW | VMEMEXP_SYNC_END, NULL));
	EXPECT(fake.whole_fd == vmemexp_buf_fd(buf));
	EXPECT(fake.whole_flags == (DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END));
	EXPECT(!vmemexp_sync(v, foreign, VMEMEXP_SYNC_READ, NULL));
	EXPECT(fake.whole_fd == foreign);
	EXPECT(fake.whole_flags == (DMA_BUF_SYNC_READ | DMA_BUF_SYNC_START));
	EXPECT(fake.nr_whole_syncs == 2 && !fake.nr_syncs);
	close(foreign);
	vmemexp_buf_unref(buf);
}

static void sync_of_another_exporters_dma_buf_is_dma_bufs(void)
{
	static const struct vmemexp_area outside[] = {
		{ .offset = 0, .length = SIZE + 1 },
		{ .offset = SIZE, .length = 1 },
		{ .offset = UINT64_MAX, .length = 2 },
		{ .offset = 0, .length = 0 },
		{ .offset = 1, .length = PAGE, .rows = 16, .stride = PAGE },
		{ .offset = 0, .length = 1, .rows = UINT32_MAX, .stride = UINT64_MAX },
		{ .offset = 0, .length = 2, .rows = 2, .stride = 1 },
	};
	static const struct vmemexp_area inside[] = {
		{ .offset = 0, .length = SIZE },
		{ .offset = SIZE - 1, .length = 1 },
		{ .offset = 0, .length = PAGE, .rows = 16, .stride = PAGE },
		{ .offset = 7, .length = 8, .rows = 1, .stride = 0 },
	};
	int fd = fake_foreign_dmabuf(SIZE);

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
		EXPECT_ERRNO(EINVAL, vmemexp_sync(v, fd, RW, &outside[i]));
	EXPECT(!fake.nr_whole_syncs);
	for (size_t i = 0; i < ARRAY_SIZE(inside); i++) {
		EXPECT(!vmemexp_sync(v, fd, VMEMEXP_SYNC_WRITE | VMEMEXP_SYNC_END, &inside[i]));
		EXPECT(fake.nr_whole_syncs == i + 1 && fake.whole_fd == fd);
		EXPECT(fake.whole_flags == (DMA_BUF_SYNC_WRITE | DMA_BUF_SYNC_END));
	}
	close(fd);
}

static void sync_of_another_file_is_enotty_and_leaves_it_alone(void)
{
	static const struct vmemexp_area areas[] = {
		{ .offset = 0, .length = 1 },
		{ .offset = SIZE, .length = 1 },
	};
	int fd = memfd_create("file", MFD_CLOEXEC);

	EXPECT(!ftruncate(fd, PAGE) && lseek(fd, 7, SEEK_SET) == 7);
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++)
		EXPECT_ERRNO(ENOTTY, vmemexp_sync(v, fd, RW, &areas[i]));
	EXPECT(lseek(fd, 0, SEEK_CUR) == 7);
	close(fd);
}

static void sync_of_a_wrong_area_is_not_of_the_whole(void)
{
	struct vmemexp_area wrong = { .offset = SIZE, .length = 1 };
	struct vmemexp_buf *buf = export(0, SIZE, 0);

	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, vmemexp_buf_fd(buf), RW, &wrong));
	EXPECT(fake.nr_syncs == 1 && !fake.nr_whole_syncs);
	/* Whatever a driver has against it: the dma-buf is its own. */
	fail_next(VMEMEXP_IOC_SYNC, 1, EINVAL);
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, vmemexp_buf_fd(buf), RW, &area));
	EXPECT(!fake.nr_whole_syncs);
	vmemexp_buf_unref(buf);
}

static void sync_refuses_bad_arguments(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	int fd = vmemexp_buf_fd(buf);
	int file = memfd_create("no dma-buf", MFD_CLOEXEC);

	EXPECT_ERRNO(EINVAL, vmemexp_sync(NULL, fd, RW, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, fd, 0, &area));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, fd, VMEMEXP_SYNC_END, NULL));
	for (unsigned int bit = 4; bit < 32; bit++) {
		EXPECT_ERRNO(EINVAL, vmemexp_sync(v, fd, RW | 1U << bit, NULL));
		EXPECT_ERRNO(EINVAL, vmemexp_sync(v, fd, RW | 1U << bit, &area));
	}
	EXPECT(!fake.nr_syncs && !fake.nr_whole_syncs);
	EXPECT_ERRNO(EBADF, vmemexp_sync(v, 9999, RW, NULL));
	EXPECT_ERRNO(EBADF, vmemexp_sync(v, 9999, RW, &area));
	EXPECT_ERRNO(ENOTTY, vmemexp_sync(v, file, RW, NULL));
	EXPECT(ftruncate(file, SIZE) == 0);
	EXPECT_ERRNO(ENOTTY, vmemexp_sync(v, file, RW, &area));
	close(file);
	vmemexp_buf_unref(buf);
}

static void sync_is_called_again_after_signals(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	int fd = vmemexp_buf_fd(buf);

	fail_next(VMEMEXP_IOC_SYNC, 2 * TRIES_AT_MOST, EINTR);
	EXPECT(!vmemexp_sync(v, fd, RW, &area));
	EXPECT(fake.nr_syncs == 2 * TRIES_AT_MOST + 1);
	fail_next(DMA_BUF_IOCTL_SYNC, 2 * TRIES_AT_MOST, EINTR);
	EXPECT(!vmemexp_sync(v, fd, RW, NULL));
	EXPECT(fake.nr_whole_syncs == 2 * TRIES_AT_MOST + 1);
	fail_next(DMA_BUF_IOCTL_SYNC, TRIES_AT_LEAST - 1, EAGAIN);
	EXPECT(!vmemexp_sync(v, fd, RW, NULL));
	fake.nr_whole_syncs = 0;
	fail_next(DMA_BUF_IOCTL_SYNC, 1000, EAGAIN);
	EXPECT_ERRNO(EAGAIN, vmemexp_sync(v, fd, RW, NULL));
	EXPECT(fake.nr_whole_syncs >= TRIES_AT_LEAST && fake.nr_whole_syncs <= TRIES_AT_MOST);
	fail_next(VMEMEXP_IOC_SYNC, 1, ENODEV);
	EXPECT_ERRNO(ENODEV, vmemexp_sync(v, fd, RW, &area));
	vmemexp_buf_unref(buf);
}

static void sync_for_an_observer_is_vmemexps_alone(void)
{
	const unsigned int flags = RW | VMEMEXP_SYNC_OBSERVER;
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	int foreign = fake_foreign_dmabuf(SIZE);

	EXPECT(!vmemexp_sync(v, vmemexp_buf_fd(buf), flags, NULL));
	EXPECT(fake.sync.flags == flags && fake.sync.rows <= 1);
	EXPECT(fake.sync.offset == 0 && fake.sync.length == SIZE);
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, foreign, flags, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, foreign, flags, &area));
	EXPECT_ERRNO(EBADF, vmemexp_sync(v, 9999, flags, NULL));
	EXPECT(!fake.nr_whole_syncs);
	close(foreign);
	vmemexp_buf_unref(buf);
}

/* ---- begin and end ---- */

static void begin_and_end_count_from_the_exported_address(void)
{
	struct vmemexp_buf *buf = export(100, SIZE, VMEMEXP_ROUND);

	EXPECT(!vmemexp_begin(buf, VMEMEXP_SYNC_WRITE, &area));
	EXPECT(fake.sync.fd == vmemexp_buf_fd(buf));
	EXPECT(fake.sync.flags == (VMEMEXP_SYNC_START | VMEMEXP_SYNC_WRITE));
	EXPECT(fake.sync.offset == 108 && fake.sync.length == 16);
	EXPECT(fake.sync.rows == 3 && fake.sync.stride == 64);
	memset(&fake.sync, 0, sizeof(fake.sync));
	EXPECT(!vmemexp_end(buf));
	EXPECT(fake.sync.flags == (VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE));
	EXPECT(fake.sync.offset == 108 && fake.sync.length == 16);
	EXPECT(fake.sync.rows == 3 && fake.sync.stride == 64);

	/* Without an area: what was exported, and not the bytes beside it. */
	EXPECT(!vmemexp_begin(buf, VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER, NULL));
	EXPECT(fake.sync.flags == (VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER));
	EXPECT(fake.sync.offset == 100 && fake.sync.length == SIZE && fake.sync.rows <= 1);
	EXPECT(!vmemexp_end(buf));
	EXPECT(fake.sync.flags == (VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER));
	EXPECT(fake.sync.offset == 100 && fake.sync.length == SIZE);
	EXPECT(fake.nr_syncs == 4);
	vmemexp_buf_unref(buf);
}

static void begin_refuses_bad_arguments(void)
{
	static const struct vmemexp_area outside[] = {
		{ .offset = 0, .length = SIZE + 1 },
		{ .offset = SIZE, .length = 1 },
		{ .offset = UINT64_MAX - 99, .length = 1 },
		{ .offset = 0, .length = 0 },
		{ .offset = 1, .length = PAGE, .rows = 16, .stride = PAGE },
		{ .offset = 0, .length = 2, .rows = 2, .stride = 1 },
	};
	struct vmemexp_buf *buf = export(100, SIZE, VMEMEXP_ROUND);

	EXPECT_ERRNO(EINVAL, vmemexp_begin(NULL, RW, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_begin(buf, 0, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_begin(buf, VMEMEXP_SYNC_OBSERVER, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_begin(buf, RW | VMEMEXP_SYNC_END, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_begin(buf, RW | 1U << 4, NULL));
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
		EXPECT_ERRNO(EINVAL, vmemexp_begin(buf, RW, &outside[i]));
	EXPECT_ERRNO(EINVAL, vmemexp_end(buf));
	EXPECT_ERRNO(EINVAL, vmemexp_end(NULL));
	EXPECT(!fake.nr_syncs && !fake.nr_whole_syncs);
	vmemexp_buf_unref(buf);
}

static void one_access_at_a_time(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);

	EXPECT(!vmemexp_begin(buf, RW, &area));
	EXPECT_ERRNO(EBUSY, vmemexp_begin(buf, VMEMEXP_SYNC_READ, NULL));
	EXPECT(!vmemexp_end(buf));
	EXPECT(fake.sync.offset == 8 && fake.sync.flags == (RW | VMEMEXP_SYNC_END));
	EXPECT_ERRNO(EINVAL, vmemexp_end(buf));

	fail_next(VMEMEXP_IOC_SYNC, 1, ENODEV);
	EXPECT_ERRNO(ENODEV, vmemexp_begin(buf, RW, NULL));
	EXPECT_ERRNO(EINVAL, vmemexp_end(buf));
	EXPECT(!vmemexp_begin(buf, RW, NULL));
	fail_next(VMEMEXP_IOC_SYNC, 1, ENODEV);
	EXPECT_ERRNO(ENODEV, vmemexp_end(buf));
	EXPECT_ERRNO(EINVAL, vmemexp_end(buf));
	EXPECT(!vmemexp_begin(buf, RW, NULL) && !vmemexp_end(buf));
	vmemexp_buf_unref(buf);
}

static void begin_of_another_exporters_dma_buf_is_dma_bufs(void)
{
	struct vmemexp_buf *buf;

	fake.foreign = true;
	fake.memory = VMEMEXP_MEMORY_DMABUF;
	fake.offset = 2 * PAGE;
	buf = export(0, SIZE, 0);
	EXPECT(vmemexp_buf_offset(buf) == 2 * PAGE);
	EXPECT(!vmemexp_begin(buf, RW, &area));
	EXPECT(fake.sync.offset == 2 * PAGE + 8);
	EXPECT(fake.nr_whole_syncs == 1 && fake.whole_flags == DMA_BUF_SYNC_RW);
	EXPECT(!vmemexp_end(buf));
	EXPECT(fake.nr_whole_syncs == 2);
	EXPECT(fake.whole_flags == (DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END));
	vmemexp_buf_unref(buf);
}

/* ---- the cache ---- */

static void get_finds_the_same_export_again(void)
{
	struct vmemexp_error err = { 1, 2, 3 };
	struct vmemexp_buf *first = get(0, SIZE, 0), *second;

	EXPECT(!vmemexp_get(v, ADDR, SIZE, 0, &second, &err));
	EXPECT(!err.err && !err.reason && !err.addr);
	EXPECT(first == second);
	EXPECT(fake.nr_exports == 1 && fake.nr_queries == 1);
	vmemexp_buf_unref(first);
	vmemexp_buf_unref(second);
	/* The cache has a reference of its own. */
	EXPECT(is_open(vmemexp_buf_fd(first)));
	EXPECT(get_unref(0, SIZE, 0) == first);
	EXPECT(fake.nr_exports == 1);
}

static void get_exports_what_differs(void)
{
	static const struct {
		size_t offset, length;
		unsigned int flags;
	} cases[] = {
		{ 0, SIZE, 0 },
		{ 0, SIZE + PAGE, 0 },
		{ 0, SIZE - PAGE, 0 },
		{ PAGE, SIZE, 0 },
		{ 0, SIZE, VMEMEXP_RDONLY },
		{ 0, SIZE, VMEMEXP_CONTIGUOUS },
		{ 0, SIZE, VMEMEXP_ROUND },
	};
	struct vmemexp_buf *bufs[ARRAY_SIZE(cases)];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bufs[i] = get_unref(cases[i].offset, cases[i].length, cases[i].flags);
		EXPECT(fake.nr_exports == i + 1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		EXPECT(get_unref(cases[i].offset, cases[i].length, cases[i].flags) == bufs[i]);
	EXPECT(fake.nr_exports == ARRAY_SIZE(cases));
}

/* The cache drops an export in such a state, and does not find it again. */
static void expect_new_export_in_state(uint32_t state)
{
	struct vmemexp_buf *old = get(0, SIZE, 0), *new;
	int fd = vmemexp_buf_fd(old);

	fake_set_state(fd, state);
	fake.nr_exports = 0;
	new = get(0, SIZE, 0);
	EXPECT(new != old);
	EXPECT(fake.nr_exports == 1);
	EXPECT(is_open(fd));
	vmemexp_buf_unref(old);
	EXPECT(!is_open(fd));
	EXPECT(get_unref(0, SIZE, 0) == new);
	EXPECT(fake.nr_exports == 1);
	vmemexp_buf_unref(new);
	vmemexp_forget(v, ADDR, SIZE);
}

static void get_exports_anew_what_is_stale(void)
{
	expect_new_export_in_state(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE);
}

static void get_exports_anew_what_is_revoked(void)
{
	expect_new_export_in_state(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_REVOKED);
}

static void get_exports_anew_what_is_not_tracked(void)
{
	expect_new_export_in_state(0);
}

static void get_finds_what_is_in_any_other_state(void)
{
	struct vmemexp_buf *buf = get_unref(0, SIZE, 0);

	fake_set_state(vmemexp_buf_fd(buf), VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_BOUNCED |
		       VMEMEXP_STATE_NO_VMAP | VMEMEXP_STATE_OVERLAPS | VMEMEXP_STATE_NO_PAGES);
	EXPECT(get_unref(0, SIZE, 0) == buf);
	EXPECT(fake.nr_exports == 1);
}

static void get_exports_anew_what_cannot_be_asked(void)
{
	struct vmemexp_buf *buf = get(0, SIZE, 0);

	fail_next(VMEMEXP_IOC_QUERY, 1, ENOMEM);
	EXPECT(get_unref(0, SIZE, 0) != buf);
	EXPECT(fake.nr_exports == 2);
	vmemexp_buf_unref(buf);
}

static void get_forgets_what_overlaps_and_is_stale(void)
{
	struct vmemexp_buf *stale = get_unref(0, SIZE, 0);
	struct vmemexp_buf *current = get_unref(2 * PAGE, SIZE, 0);
	struct vmemexp_buf *elsewhere = get_unref(4 * SIZE, SIZE, 0);
	ino_t stale_ino = inode(vmemexp_buf_fd(stale));
	ino_t elsewhere_ino = inode(vmemexp_buf_fd(elsewhere));

	fake_set_state(vmemexp_buf_fd(stale), VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE);
	fake_set_state(vmemexp_buf_fd(elsewhere), VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE);
	get_unref(PAGE, PAGE, 0);
	get_unref(0, 4 * SIZE, 0);
	EXPECT(!is_held(stale_ino));
	EXPECT(is_held(elsewhere_ino));
	EXPECT(get_unref(2 * PAGE, SIZE, 0) == current);
}

static void get_keeps_no_mapping_of_a_dma_buf(void)
{
	struct vmemexp_buf *first, *second;
	int fd;

	fake.memory = VMEMEXP_MEMORY_DMABUF | VMEMEXP_MEMORY_ANON;
	first = get(0, SIZE, 0);
	second = get(0, SIZE, 0);
	EXPECT(first != second && fake.nr_exports == 2);
	fd = vmemexp_buf_fd(first);
	vmemexp_buf_unref(first);
	EXPECT(!is_open(fd));
	fd = vmemexp_buf_fd(second);
	vmemexp_buf_unref(second);
	EXPECT(!is_open(fd));
}

static void get_keeps_nothing_if_the_export_fails(void)
{
	struct vmemexp_buf *buf = (void *)1;
	struct vmemexp_error err;

	fail_next(VMEMEXP_IOC_EXPORT, 1, ENOMEM);
	fake.fail_reason = VMEMEXP_REASON_LIMIT;
	fake.fail_addr = 0x1000;
	EXPECT_ERRNO(ENOMEM, vmemexp_get(v, ADDR, SIZE, 0, &buf, &err));
	EXPECT(!buf && err.reason == VMEMEXP_REASON_LIMIT && err.addr == 0x1000);
	get_unref(0, SIZE, 0);
	EXPECT(fake.nr_exports == 2);
}

static void get_throws_nothing_out(void)
{
	struct vmemexp_buf *bufs[300];

	for (size_t i = 0; i < ARRAY_SIZE(bufs); i++)
		bufs[i] = get_unref(i * SIZE, SIZE, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bufs); i++)
		EXPECT(get_unref(i * SIZE, SIZE, 0) == bufs[i]);
	EXPECT(fake.nr_exports == ARRAY_SIZE(bufs));
}

/* Does this range forget an export of pages 4 to 7? */
static bool forgets(uintptr_t addr, size_t length)
{
	struct vmemexp_buf *buf = get_unref(4 * PAGE, 4 * PAGE, 0);
	int fd = vmemexp_buf_fd(buf);
	bool gone;

	vmemexp_forget(v, (void *)addr, length);
	gone = !is_open(fd);
	vmemexp_forget(v, at(4 * PAGE), 4 * PAGE);
	EXPECT(!is_open(fd));
	return gone;
}

static void forget_drops_what_has_a_byte_of_the_range(void)
{
	const uintptr_t base = (uintptr_t)ADDR;

	EXPECT(forgets(base + 4 * PAGE, 4 * PAGE));
	EXPECT(forgets(base + 4 * PAGE, 1));
	EXPECT(forgets(base + 8 * PAGE - 1, 1));
	EXPECT(forgets(base, 4 * PAGE + 1));
	EXPECT(forgets(base, 100 * PAGE));
	EXPECT(forgets(base + 5 * PAGE, 100 * PAGE));
	EXPECT(forgets(0, SIZE_MAX));
	EXPECT(forgets(base + 6 * PAGE, SIZE_MAX));
	EXPECT(!forgets(base, 4 * PAGE));
	EXPECT(!forgets(base + 8 * PAGE, PAGE));
	EXPECT(!forgets(base + 8 * PAGE, SIZE_MAX));
	EXPECT(!forgets(base + 4 * PAGE, 0));
	EXPECT(!forgets(base + 5 * PAGE, 0));
	EXPECT(!forgets(0, 1));
	vmemexp_forget(NULL, ADDR, SIZE);
}

static void forget_leaves_others_their_references(void)
{
	struct vmemexp_buf *buf = get(0, SIZE, 0);
	int fd = vmemexp_buf_fd(buf);

	vmemexp_forget(v, ADDR, SIZE);
	EXPECT(is_open(fd));
	EXPECT(get_unref(0, SIZE, 0) != buf);
	vmemexp_buf_unref(buf);
	EXPECT(!is_open(fd));
}

static void forget_takes_several_and_leaves_the_rest(void)
{
	struct vmemexp_buf *bufs[10];
	int fds[10];

	for (size_t i = 0; i < 10; i++) {
		bufs[i] = get_unref(i * SIZE, SIZE, 0);
		fds[i] = vmemexp_buf_fd(bufs[i]);
	}
	vmemexp_forget(v, at(3 * SIZE), 4 * SIZE);
	for (size_t i = 0; i < 10; i++)
		EXPECT(is_open(fds[i]) == (i < 3 || i > 6));
	fake.nr_exports = 0;
	for (size_t i = 0; i < 10; i++)
		if (i < 3 || i > 6)
			EXPECT(get_unref(i * SIZE, SIZE, 0) == bufs[i]);
	EXPECT(!fake.nr_exports);
}

static void export_is_not_found_by_get(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);

	EXPECT(get_unref(0, SIZE, 0) != buf);
	EXPECT(fake.nr_exports == 2);
	vmemexp_buf_unref(buf);
}

static struct vmemexp_buf *inner;

static void get_the_same(void)
{
	inner = get(0, SIZE, 0);
}

static void get_at_the_same_time_gives_one_buffer(void)
{
	struct vmemexp_buf *outer;

	fake.in_export = get_the_same;
	outer = get(0, SIZE, 0);
	EXPECT(fake.nr_exports == 2);
	EXPECT(outer == inner);
	vmemexp_buf_unref(outer);
	EXPECT(get_unref(0, SIZE, 0) == inner);
	vmemexp_buf_unref(inner);
}

static void forget_all(void)
{
	vmemexp_forget(v, NULL, SIZE_MAX);
}

/* An export may take long: it must not keep others from the cache. */
static void forget_does_not_wait_for_an_export(void)
{
	struct vmemexp_buf *other = get_unref(2 * SIZE, SIZE, 0);
	ino_t ino = inode(vmemexp_buf_fd(other));

	fake.in_export = forget_all;
	get_unref(0, SIZE, 0);
	EXPECT(!is_held(ino));
}

static void a_child_does_not_find_its_parents_exports(void)
{
	struct vmemexp_buf *buf = get_unref(0, SIZE, 0), *new;
	int fd = vmemexp_buf_fd(buf), status;
	pid_t child;

	/* Or the child prints again what is in the buffer. */
	fflush(stdout);
	child = fork();
	if (!child) {
		failures = 0;
		new = get(0, SIZE, 0);
		EXPECT(fake.nr_exports == 2);
		EXPECT(get_unref(0, SIZE, 0) == new && fake.nr_exports == 2);
		vmemexp_buf_unref(new);
		vmemexp_close(v);
		EXPECT(!is_open(fd));
		fflush(stdout);
		_exit(failures > 0);
	}
	EXPECT(waitpid(child, &status, 0) == child);
	EXPECT(WIFEXITED(status) && !WEXITSTATUS(status));
	EXPECT(get_unref(0, SIZE, 0) == buf && fake.nr_exports == 1);
}

/* ---- errors in words ---- */

static void strerror_has_a_sentence_for_every_reason(void)
{
	char texts[VMEMEXP_REASON_RANGES + 1][256];

	for (uint32_t reason = 1; reason <= VMEMEXP_REASON_RANGES; reason++) {
		struct vmemexp_error err = { EFAULT, reason, 0x7f1234567000 };
		bool about_the_address = reason != VMEMEXP_REASON_FLAGS &&
					 reason != VMEMEXP_REASON_QUOTA &&
					 reason != VMEMEXP_REASON_RANGES;

		memset(texts[reason], 'x', sizeof(texts[reason]));
		EXPECT(vmemexp_strerror(&err, texts[reason], 256) == texts[reason]);
		EXPECT(strlen(texts[reason]) > 10 && strlen(texts[reason]) < 120);
		EXPECT(!!strstr(texts[reason], "0x7f1234567000") == about_the_address);
		EXPECT(!strstr(texts[reason], "Bad address"));
		for (uint32_t other = 1; other < reason; other++)
			EXPECT(strcmp(texts[other], texts[reason]));
	}
	EXPECT(!strcmp(texts[VMEMEXP_REASON_LIMIT],
		       "it would exceed RLIMIT_MEMLOCK at 0x7f1234567000"));
}

static void strerror_falls_back_to_errno(void)
{
	struct vmemexp_error err = { EMFILE, VMEMEXP_REASON_NONE, 0 };
	char text[64];

	EXPECT(!strcmp(vmemexp_strerror(&err, text, sizeof(text)), "Too many open files"));
	for (err.reason = VMEMEXP_REASON_RANGES + 1; err.reason < 100; err.reason++)
		EXPECT(!strcmp(vmemexp_strerror(&err, text, sizeof(text)), "Too many open files"));
	err.reason = UINT32_MAX;
	EXPECT(!strcmp(vmemexp_strerror(&err, text, sizeof(text)), "Too many open files"));
	err.err = 12345;
	EXPECT(strstr(vmemexp_strerror(&err, text, sizeof(text)), "12345"));
}

static void strerror_keeps_to_its_memory(void)
{
	static const struct vmemexp_error errors[] = {
		{ ENOMEM, VMEMEXP_REASON_LIMIT, 0x1000 }, { EMFILE, 0, 0 },
	};
	char whole[256], text[256];

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		vmemexp_strerror(&errors[i], whole, sizeof(whole));
		for (size_t size = 1; size < 80; size++) {
			memset(text, 'x', sizeof(text));
			EXPECT(vmemexp_strerror(&errors[i], text, size) == text);
			EXPECT(!strncmp(text, whole, size - 1));
			EXPECT(strlen(text) < size && text[size] == 'x');
		}
		EXPECT(!strcmp(vmemexp_strerror(&errors[i], NULL, 0), ""));
	}
}

/* ---- threads ---- */

#define THREADS		6
#define STEPS		400
#define RANGES		4

static struct vmemexp_buf *shared;

static void *work(void *argument)
{
	unsigned int seed = (uintptr_t)argument;

	for (int step = 0; step < STEPS; step++) {
		struct vmemexp_query query = { .size = sizeof(query) };
		size_t offset = rand_r(&seed) % RANGES * SIZE;
		struct vmemexp_buf *buf = NULL;

		switch (rand_r(&seed) % 8) {
		case 0:
			vmemexp_forget(v, at(offset), PAGE);
			break;
		case 1:
			buf = get(offset, SIZE, 0);
			fake_set_state(vmemexp_buf_fd(buf), VMEMEXP_STATE_TRACKED |
				       VMEMEXP_STATE_STALE);
			break;
		case 2:
			buf = export(offset, SIZE, 0);
			break;
		case 3:
			buf = vmemexp_buf_ref(shared);
			if (!vmemexp_begin(buf, RW, &area))
				EXPECT(!vmemexp_end(buf));
			else
				EXPECT(errno == EBUSY);
			break;
		case 4:
			EXPECT(!vmemexp_sync(v, vmemexp_buf_fd(shared), RW, NULL));
			break;
		default:
			buf = get(offset, SIZE, 0);
			EXPECT(!vmemexp_buf_query(buf, &query));
			EXPECT(query.length == SIZE);
			break;
		}
		vmemexp_buf_unref(buf);
	}
	return NULL;
}

static void threads_may_do_all_of_it_at_once(void)
{
	pthread_t threads[THREADS];

	shared = export(0, SIZE, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		EXPECT(!pthread_create(&threads[i], NULL, work, (void *)(i + 1)));
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	EXPECT(!vmemexp_begin(shared, RW, NULL) && !vmemexp_end(shared));
	vmemexp_buf_unref(shared);
}

static atomic_int nr_accesses;

static void *access_alone(void *buf)
{
	for (int step = 0; step < 3000; step++) {
		if (vmemexp_begin(buf, RW, NULL)) {
			EXPECT(errno == EBUSY);
			continue;
		}
		EXPECT(++nr_accesses == 1);
		nr_accesses--;
		EXPECT(!vmemexp_end(buf));
	}
	return NULL;
}

static void one_thread_at_a_time_has_access(void)
{
	struct vmemexp_buf *buf = export(0, SIZE, 0);
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		EXPECT(!pthread_create(&threads[i], NULL, access_alone, buf));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	vmemexp_buf_unref(buf);
}

static void *unref(void *buf)
{
	vmemexp_buf_unref(buf);
	return NULL;
}

static void the_last_of_many_threads_frees(void)
{
	for (int round = 0; round < 50; round++) {
		struct vmemexp_buf *buf = export(0, SIZE, 0);
		int fd = vmemexp_buf_fd(buf);
		pthread_t threads[THREADS];

		for (int i = 0; i < THREADS; i++)
			pthread_create(&threads[i], NULL, unref, vmemexp_buf_ref(buf));
		vmemexp_buf_unref(buf);
		for (int i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		EXPECT(!is_open(fd));
	}
}

/* ---- the run ---- */

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(test) { .name = #test, .run = test }

static const struct test tests[] = {
	TEST(open_takes_the_default_path_or_another),
	TEST(open_tells_the_errno),
	TEST(open_is_called_again_after_a_signal),
	TEST(close_closes_and_keeps_errno),
	TEST(export_asks_for_what_the_flags_say),
	TEST(export_gives_the_answer),
	TEST(export_refuses_bad_arguments_itself),
	TEST(export_hands_on_errno_reason_and_address),
	TEST(export_is_called_again_after_signals_and_changes),
	TEST(export_of_what_cannot_be_pinned_is_called_once),
	TEST(export_works_with_an_old_driver),
	TEST(aligned_size_is_whole_pages),
	TEST(exportv_asks_for_all_ranges_in_their_order),
	TEST(exportv_takes_as_many_as_the_driver),
	TEST(exportv_of_one_range_works_with_an_old_driver),
	TEST(exportv_tells_that_a_driver_is_too_old),
	TEST(exportv_refuses_what_is_no_list),
	TEST(exportv_refuses_bad_arguments_itself),
	TEST(exportv_tells_which_range_is_wrong),
	TEST(begin_counts_through_all_ranges),
	TEST(exportv_is_not_found_by_get),
	TEST(the_last_unref_closes_the_descriptor),
	TEST(buffers_keep_the_device_open),
	TEST(query_describes_the_buffer),
	TEST(query_gives_a_newer_program_zeroes),
	TEST(query_refuses_bad_arguments_and_writes_nothing),
	TEST(sync_names_the_area),
	TEST(sync_without_an_area_is_of_the_whole_dma_buf),
	TEST(sync_of_another_exporters_dma_buf_is_dma_bufs),
	TEST(sync_of_another_file_is_enotty_and_leaves_it_alone),
	TEST(sync_of_a_wrong_area_is_not_of_the_whole),
	TEST(sync_refuses_bad_arguments),
	TEST(sync_is_called_again_after_signals),
	TEST(sync_for_an_observer_is_vmemexps_alone),
	TEST(begin_and_end_count_from_the_exported_address),
	TEST(begin_refuses_bad_arguments),
	TEST(one_access_at_a_time),
	TEST(begin_of_another_exporters_dma_buf_is_dma_bufs),
	TEST(get_finds_the_same_export_again),
	TEST(get_exports_what_differs),
	TEST(get_exports_anew_what_is_stale),
	TEST(get_exports_anew_what_is_revoked),
	TEST(get_exports_anew_what_is_not_tracked),
	TEST(get_finds_what_is_in_any_other_state),
	TEST(get_exports_anew_what_cannot_be_asked),
	TEST(get_forgets_what_overlaps_and_is_stale),
	TEST(get_keeps_no_mapping_of_a_dma_buf),
	TEST(get_keeps_nothing_if_the_export_fails),
	TEST(get_throws_nothing_out),
	TEST(forget_drops_what_has_a_byte_of_the_range),
	TEST(forget_leaves_others_their_references),
	TEST(forget_takes_several_and_leaves_the_rest),
	TEST(export_is_not_found_by_get),
	TEST(get_at_the_same_time_gives_one_buffer),
	TEST(forget_does_not_wait_for_an_export),
	TEST(a_child_does_not_find_its_parents_exports),
	TEST(strerror_has_a_sentence_for_every_reason),
	TEST(strerror_falls_back_to_errno),
	TEST(strerror_keeps_to_its_memory),
	TEST(threads_may_do_all_of_it_at_once),
	TEST(one_thread_at_a_time_has_access),
	TEST(the_last_of_many_threads_frees),
};

int main(void)
{
	int failed = 0;

	printf("TAP version 13\n1..%zu\n", ARRAY_SIZE(tests));
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		unsigned int before = open_files();

		failures = 0;
		fake_reset();
		v = vmemexp_open(NULL, NULL);
		tests[i].run();
		vmemexp_close(v);
		EXPECT(open_files() == before);
		failed += failures > 0;
		printf("%sok %zu library.%s\n", failures ? "not " : "", i + 1, tests[i].name);
		fflush(stdout);
	}
	return failed > 0;
}

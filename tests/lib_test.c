// SPDX-License-Identifier: GPL-2.0
/*
 * libvmemexp with the driver: that what it exports is the memory, that it hands on what the driver
 * says, that its syncs reach a device, and that its cache never finds memory that an address has
 * ceased to lead to. tests/host tries answers that a driver gives seldom or never.
 */
#include <libvmemexp.h>
#include <pthread.h>

#include "lib/rect.h"
#include "lib/vmemexp_utils.h"

#define RW	(PROT_READ | PROT_WRITE)

/* Pages that are surely more than one extent: see map_scattered(). */
#define SCATTERED	24

FIXTURE(lib)
{
	int fd;
	struct test_state before;
	struct vmemexp *v;
	struct vmemexp_error err;
	struct vmemexp_buf *buf;
	size_t page, size;
	uint8_t *p;
};

FIXTURE_SETUP(lib)
{
	test_setup();
	self->v = vmemexp_open(NULL, &self->err);
	ASSERT_NE(NULL, self->v);
	self->page = page_size();
	self->size = SCATTERED * self->page;
	self->p = map_anon(self->size);
	ASSERT_NE(MAP_FAILED, (void *)self->p);
	fill(self->p, self->size, 1);
}

FIXTURE_TEARDOWN(lib)
{
	vmemexp_buf_unref(self->buf);
	vmemexp_close(self->v);
	test_teardown();
}

/* ---- helpers ---- */

#define ASSERT_CALL(call) do {						\
	ASSERT_EQ(0, call) {						\
		char why[256];						\
									\
		TH_LOG("%s: %s", strerror(errno),			\
		       vmemexp_strerror(&self->err, why, sizeof(why)));	\
	}								\
} while (0)

#define export(addr, length, flags)					\
	ASSERT_CALL(vmemexp_export(self->v, addr, length, flags, &self->buf, &self->err))

#define get(addr, length, to)						\
	ASSERT_CALL(vmemexp_get(self->v, addr, length, 0, to, &self->err))

/* The call is refused with all of this, and gives no buffer. */
static void __test_err_lib(struct __test_metadata *_metadata, struct vmemexp *v, int error,
			   uint32_t reason, void *address, void *addr, size_t length,
			   unsigned int flags)
{
	struct vmemexp_buf *none = (void *)1;
	struct vmemexp_error err;

	EXPECT_EQ(-1, vmemexp_export(v, addr, length, flags, &none, &err));
	EXPECT_EQ(error, errno);
	EXPECT_EQ(error, err.err);
	EXPECT_EQ(reason, err.reason);
	EXPECT_EQ(to_u64(address), err.addr);
	EXPECT_EQ(NULL, none);
}

#define test_err(error, reason, address, addr, length, flags) \
	__test_err_lib(_metadata, self->v, error, reason, address, addr, length, flags)

#define EXPECT_ERRNO(error, call) do {					\
	EXPECT_EQ(-1, call);						\
	EXPECT_EQ(error, errno);					\
} while (0)

/* The dma-buf shows fill()'s bytes for @seed from its offset on. */
static void __expect_shown(struct __test_metadata *_metadata, struct vmemexp_buf *buf,
			   size_t length, unsigned int seed)
{
	const size_t size = vmemexp_buf_size(buf);
	uint8_t *view = mmap(NULL, size, PROT_READ, MAP_SHARED, vmemexp_buf_fd(buf), 0);

	ASSERT_NE(MAP_FAILED, (void *)view);
	EXPECT_EQ(-1, first_difference(view + vmemexp_buf_offset(buf), length, seed));
	munmap(view, size);
}

#define expect_shown(buf, length, seed) __expect_shown(_metadata, buf, length, seed)

/* Other memory at the same address. */
#define map_anew(addr, length, seed) do {				\
	ASSERT_EQ(0, munmap(addr, length));				\
	ASSERT_EQ(addr, mmap(addr, length, RW,				\
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)); \
	fill(addr, length, seed);					\
} while (0)

/* ---- export ---- */

TEST_F(lib, malloced_memory_is_read_and_written_through_the_descriptor)
{
	struct vmemexp_query query = { .size = sizeof(query) };
	const size_t size = vmemexp_aligned_size(10 * self->page + 1);
	uint8_t *view;
	void *p;

	ASSERT_EQ(11 * self->page, size);
	ASSERT_EQ(0, posix_memalign(&p, self->page, size));
	fill(p, size, 2);
	export(p, size, 0);
	EXPECT_EQ(0, self->err.err);
	EXPECT_EQ(0, vmemexp_buf_offset(self->buf));
	EXPECT_EQ(size, vmemexp_buf_size(self->buf));
	EXPECT_EQ(FD_CLOEXEC, fcntl(vmemexp_buf_fd(self->buf), F_GETFD));

	view = mmap(NULL, size, RW, MAP_SHARED, vmemexp_buf_fd(self->buf), 0);
	ASSERT_NE(MAP_FAILED, (void *)view);
	EXPECT_EQ(-1, first_difference(view, size, 2));
	fill(p, size, 3);
	EXPECT_EQ(-1, first_difference(view, size, 3));
	fill(view, size, 4);
	EXPECT_EQ(-1, first_difference(p, size, 4));

	EXPECT_EQ(0, vmemexp_buf_query(self->buf, &query));
	EXPECT_EQ(VMEMEXP_MEMORY_ANON, query.memory);
	EXPECT_EQ(VMEMEXP_ACCESS_READ | VMEMEXP_ACCESS_WRITE, query.access);
	EXPECT_EQ(size, query.length);
	EXPECT_EQ(1, query.cpu_mappings);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, query.state);
	munmap(view, size);
	free(p);
}

TEST_F(lib, read_only_memory_needs_the_flag)
{
	ASSERT_EQ(0, mprotect(self->p, self->size, PROT_READ));
	test_err(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->p, self->p, self->size, 0);
	export(self->p, self->size, VMEMEXP_RDONLY);
	expect_shown(self->buf, self->size, 1);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->size, RW, MAP_SHARED,
				   vmemexp_buf_fd(self->buf), 0));
	EXPECT_EQ(EACCES, errno);
}

TEST_F(lib, unaligned_memory_needs_the_flag)
{
	uint8_t *p = self->p + 100;
	const size_t length = 2 * self->page;

	test_err(EINVAL, VMEMEXP_REASON_ALIGNMENT, p, p, length, 0);
	test_err(EINVAL, VMEMEXP_REASON_ALIGNMENT, self->p + 100, self->p, 100, 0);
	fill(p, length, 5);
	export(p, length, VMEMEXP_ROUND);
	EXPECT_EQ(100, vmemexp_buf_offset(self->buf));
	EXPECT_EQ(3 * self->page, vmemexp_buf_size(self->buf));
	expect_shown(self->buf, length, 5);
}

static void *map_scattered(struct __test_metadata *_metadata, size_t page)
{
	uint8_t *p = map_anon(SCATTERED * page);

	ASSERT_NE(MAP_FAILED, (void *)p);
	ASSERT_EQ(0, forbid_thp(p, SCATTERED * page));
	for (size_t i = 0; i < SCATTERED; i++)
		p[i * 7 % SCATTERED * page] = 1;
	return p;
}

TEST_F(lib, scattered_memory_is_refused_if_it_is_to_be_contiguous)
{
	uint8_t *p = map_scattered(_metadata, self->page);
	struct vmemexp_buf *none;
	uint64_t at;

	EXPECT_ERRNO(ERANGE, vmemexp_export(self->v, p, self->size, VMEMEXP_CONTIGUOUS, &none,
					    &self->err));
	EXPECT_EQ(ERANGE, self->err.err);
	EXPECT_EQ(VMEMEXP_REASON_NOT_CONTIGUOUS, self->err.reason);
	at = self->err.addr - to_u64(p);
	ASSERT_LT(0, at);
	ASSERT_GT(self->size, at);
	ASSERT_EQ(0, at % self->page);
	/* Up to there it is. */
	export(p, at, VMEMEXP_CONTIGUOUS);
}

TEST_F(lib, what_is_wrong_has_its_address)
{
	uint8_t *hole = self->p + 5 * self->page;

	test_err(EINVAL, VMEMEXP_REASON_LENGTH, self->p, self->p, 0, 0);
	test_err(EINVAL, VMEMEXP_REASON_FLAGS, NULL, self->p, self->size, 1U << 3);
	ASSERT_EQ(0, munmap(hole, self->page));
	test_err(EFAULT, VMEMEXP_REASON_NOT_MAPPED, hole, self->p, self->size, 0);
}

TEST_F(lib, the_limit_is_told_in_words)
{
	char expected[64], text[256];

	limit_memlock(16 * self->page);
	EXPECT_ERRNO(ENOMEM, vmemexp_export(self->v, self->p, 17 * self->page, 0, &self->buf,
					    &self->err));
	EXPECT_EQ(VMEMEXP_REASON_LIMIT, self->err.reason);
	snprintf(expected, sizeof(expected), "it would exceed RLIMIT_MEMLOCK at %#llx",
		 (unsigned long long)to_u64(self->p));
	EXPECT_STREQ(expected, vmemexp_strerror(&self->err, text, sizeof(text)));
	export(self->p, 8 * self->page, 0);
}

TEST_F(lib, another_device_does_not_export)
{
	struct vmemexp *other = vmemexp_open("/dev/null", &self->err);
	struct vmemexp_buf *none;

	ASSERT_NE(NULL, other);
	EXPECT_ERRNO(ENOTTY, vmemexp_export(other, self->p, self->size, 0, &none, &self->err));
	EXPECT_EQ(ENOTTY, self->err.err);
	EXPECT_EQ(VMEMEXP_REASON_NONE, self->err.reason);
	vmemexp_close(other);
	EXPECT_EQ(NULL, vmemexp_open("/dev/vmemexp-missing", &self->err));
	EXPECT_EQ(ENOENT, self->err.err);
}

TEST_F(lib, buffers_outlive_the_device)
{
	struct vmemexp_query query = { .size = sizeof(query) };
	struct vmemexp_buf *cached;

	export(self->p, self->size, 0);
	get(self->p, self->page, &cached);
	vmemexp_close(self->v);
	self->v = NULL;
	expect_shown(self->buf, self->size, 1);
	expect_shown(cached, self->page, 1);
	EXPECT_EQ(0, vmemexp_begin(self->buf, VMEMEXP_SYNC_RW, NULL));
	EXPECT_EQ(0, vmemexp_end(self->buf));
	EXPECT_EQ(0, vmemexp_buf_query(cached, &query));
	EXPECT_EQ(self->page, query.length);
	vmemexp_buf_unref(cached);
}

TEST_F(lib, the_last_reference_unpins)
{
	const long before = accounted_pages();

	export(self->p, self->size, 0);
	vmemexp_buf_ref(self->buf);
	vmemexp_buf_unref(self->buf);
	EXPECT_EQ(before + SCATTERED, accounted_pages());
	vmemexp_buf_unref(self->buf);
	self->buf = NULL;
	EXPECT_SOON(before, accounted_pages());
}

/* ---- several ranges ---- */

/* The dma-buf shows the ranges one after the other, from its offset on. */
static void __expect_ranges_shown(struct __test_metadata *_metadata, struct vmemexp_buf *buf,
				  const struct iovec *iov, unsigned int n)
{
	const size_t size = vmemexp_buf_size(buf);
	uint8_t *view = mmap(NULL, size, PROT_READ, MAP_SHARED, vmemexp_buf_fd(buf), 0);
	size_t at = vmemexp_buf_offset(buf);

	ASSERT_NE(MAP_FAILED, (void *)view);
	for (unsigned int i = 0; i < n; i++) {
		EXPECT_EQ(0, memcmp(view + at, iov[i].iov_base, iov[i].iov_len)) {
			TH_LOG("range %u", i);
		}
		at += iov[i].iov_len;
	}
	munmap(view, size);
}

#define expect_ranges_shown(iov, n) \
	__expect_ranges_shown(_metadata, self->buf, iov, n)

#define exportv(iov, n, flags)						\
	ASSERT_CALL(vmemexp_exportv(self->v, iov, n, flags, &self->buf, &self->err, NULL))

TEST_F(lib, ranges_are_shown_one_after_the_other)
{
	struct vmemexp_query query = { .size = sizeof(query) };
	const struct iovec iov[] = {
		{ self->p + 9 * self->page, 3 * self->page },
		{ self->p, 2 * self->page },
		{ self->p + 5 * self->page, self->page },
	};
	uint8_t *view;

	for (unsigned int n = 1; n <= 3; n++) {
		const unsigned int pages = n == 1 ? 3 : n == 2 ? 5 : 6;

		exportv(iov, n, 0);
		EXPECT_EQ(0, self->err.err);
		EXPECT_EQ(0, vmemexp_buf_offset(self->buf));
		ASSERT_EQ(pages * self->page, vmemexp_buf_size(self->buf));
		expect_ranges_shown(iov, n);
		EXPECT_EQ(0, vmemexp_buf_query(self->buf, &query));
		EXPECT_EQ(n, query.nr_ranges);
		EXPECT_EQ(pages * self->page, query.length);

		/* Both ways. */
		view = mmap(NULL, pages * self->page, RW, MAP_SHARED, vmemexp_buf_fd(self->buf), 0);
		ASSERT_NE(MAP_FAILED, (void *)view);
		fill(self->p, self->size, 10 + n);
		expect_ranges_shown(iov, n);
		fill(view, pages * self->page, 20 + n);
		expect_ranges_shown(iov, n);
		munmap(view, pages * self->page);
		vmemexp_buf_unref(self->buf);
	}
	self->buf = NULL;
}

TEST_F(lib, ranges_may_begin_and_end_anywhere_outside)
{
	const struct iovec iov[] = {
		{ self->p + 9 * self->page + 100, 3 * self->page - 100 },
		{ self->p + 5 * self->page, self->page },
		{ self->p, 2 * self->page - 200 },
	};
	const struct iovec inside[] = {
		iov[0], { self->p + 5 * self->page, self->page - 8 }, iov[2],
	};
	struct vmemexp_buf *none = (void *)1;
	unsigned int err_range = 4;

	exportv(iov, 3, VMEMEXP_ROUND);
	EXPECT_EQ(100, vmemexp_buf_offset(self->buf));
	EXPECT_EQ(6 * self->page, vmemexp_buf_size(self->buf));
	expect_ranges_shown(iov, 3);

	EXPECT_ERRNO(EINVAL, vmemexp_exportv(self->v, iov, 3, 0, &none, &self->err, &err_range));
	EXPECT_EQ(VMEMEXP_REASON_ALIGNMENT, self->err.reason);
	EXPECT_EQ(to_u64(iov[0].iov_base), self->err.addr);
	EXPECT_EQ(0, err_range);
	EXPECT_EQ(NULL, none);
	EXPECT_ERRNO(EINVAL, vmemexp_exportv(self->v, inside, 3, VMEMEXP_ROUND, &none, &self->err,
					     &err_range));
	EXPECT_EQ(VMEMEXP_REASON_ALIGNMENT, self->err.reason);
	EXPECT_EQ(1, err_range);
}

TEST_F(lib, the_range_that_is_wrong_is_told)
{
	const struct iovec iov[] = {
		{ self->p, self->page },
		{ self->p + 2 * self->page, 3 * self->page },
		{ self->p + 8 * self->page, self->page },
	};
	struct vmemexp_buf *none = (void *)1;
	uint8_t *hole = self->p + 3 * self->page;
	unsigned int err_range = 4;

	ASSERT_EQ(0, munmap(hole, self->page));
	EXPECT_ERRNO(EFAULT, vmemexp_exportv(self->v, iov, 3, 0, &none, &self->err, &err_range));
	EXPECT_EQ(VMEMEXP_REASON_NOT_MAPPED, self->err.reason);
	EXPECT_EQ(to_u64(hole), self->err.addr);
	EXPECT_EQ(1, err_range);
	EXPECT_EQ(NULL, none);
	EXPECT_ERRNO(EINVAL, vmemexp_exportv(self->v, iov, 0, 0, &none, &self->err, &err_range));
	EXPECT_EQ(VMEMEXP_REASON_RANGES, self->err.reason);
	EXPECT_EQ(0, err_range);
}

TEST_F(lib, get_leaves_what_ranges_were_exported_of_alone)
{
	const struct iovec iov[] = {
		{ self->p, self->page }, { self->p + self->page, self->page },
	};
	const long before = accounted_pages();
	struct vmemexp_buf *buf;

	exportv(iov, 2, 0);
	get(self->p, 2 * self->page, &buf);
	EXPECT_NE(buf, self->buf);
	vmemexp_buf_unref(buf);
	vmemexp_forget(self->v, self->p, self->size);
	EXPECT_SOON(before + 2, accounted_pages());
	expect_ranges_shown(iov, 2);
}

/* ---- syncs ---- */

/* A buffer that a device works on a copy of, so that a sync that is missing shows. */
FIXTURE(lib_sync)
{
	int fd;
	struct test_state before;
	struct vmemexp *v;
	struct vmemexp_error err;
	struct vmemexp_buf *buf;
	int session;
	size_t page, size;	/* of the dma-buf */
	size_t offset, length;	/* of what is exported of it */
	uint8_t *p;
	/* The bytes that each of them has to see. */
	uint8_t *cpu, *dev, *seen;
};

FIXTURE_VARIANT(lib_sync)
{
	size_t offset;
	bool in_ranges;
};

FIXTURE_VARIANT_ADD(lib_sync, whole_pages) {};

FIXTURE_VARIANT_ADD(lib_sync, unaligned)
{
	.offset = 100,
};

FIXTURE_VARIANT_ADD(lib_sync, unaligned_ranges)
{
	.offset = 100,
	.in_ranges = true,
};

FIXTURE_SETUP(lib_sync)
{
	int ret;

	skip_without_importer();
	test_setup();
	self->v = vmemexp_open(NULL, &self->err);
	ASSERT_NE(NULL, self->v);
	self->page = page_size();
	self->size = SCATTERED * self->page;
	self->offset = variant->offset;
	self->length = self->size - 2 * variant->offset;
	self->p = map_scattered(_metadata, self->page);
	if (variant->in_ranges) {
		const struct iovec iov[] = {
			{ self->p + self->offset, 2 * self->page - self->offset },
			{ self->p + 2 * self->page, 5 * self->page },
			{ self->p + 7 * self->page, self->size - 7 * self->page - self->offset },
		};

		exportv(iov, 3, VMEMEXP_ROUND);
	} else {
		export(self->p + self->offset, self->length, variant->offset ? VMEMEXP_ROUND : 0);
	}
	self->session = test_importer_open();
	ret = _test_importer_attach(self->session, vmemexp_buf_fd(self->buf), IMPORTER_DEV_SHADOW);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "the kernel has no CONFIG_ARCH_HAS_DMA_OPS");
	ASSERT_EQ(0, ret);

	self->cpu = malloc(self->size);
	self->dev = malloc(self->size);
	self->seen = malloc(self->size);
	ASSERT_TRUE(self->cpu && self->dev && self->seen);
	fill(self->p, self->size, 1);
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
	/* From here on each has its own. */
	fill(self->p, self->size, 2);
	fill(self->cpu, self->size, 2);
	fill(self->dev, self->size, 3);
	test_importer_write(self->session, 0, self->dev, self->size);
}

FIXTURE_TEARDOWN(lib_sync)
{
	EXPECT_EQ(0, test_importer_info(self->session).nr_errors);
	close(self->session);
	vmemexp_buf_unref(self->buf);
	vmemexp_close(self->v);
	test_teardown();
}

#define check_both() do {						\
	EXPECT_EQ(-1, first_wrong(self->cpu, self->p, self->size));	\
	test_importer_read(self->session, 0, self->seen, self->size);	\
	EXPECT_EQ(-1, first_wrong(self->dev, self->seen, self->size));	\
} while (0)

/* Bytes from the exported address on, as bytes of the dma-buf. */
#define moved(area) ((struct rect) {					\
	.offset = self->offset + (area).offset, .length = (area).length, \
	.stride = (area).stride, .rows = (area).rows,			\
})

TEST_F(lib_sync, nothing_is_seen_without_one)
{
	check_both();
}

TEST_F(lib_sync, begin_and_end_are_about_the_bytes_named)
{
	const struct vmemexp_area areas[] = {
		{ .offset = 0, .length = 1, .rows = 1 },
		{ .offset = self->length - 1, .length = 1, .rows = 1 },
		{ .offset = 10, .length = 20, .rows = 30, .stride = 40 },
		{ .offset = self->page - 1, .length = 3 * self->page, .rows = 1 },
		{ .offset = 5, .length = 100, .rows = SCATTERED - 1, .stride = self->page },
		{ .offset = 0, .length = self->length, .rows = 1 },
	};
	unsigned int seed = 3;

	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		struct rect rect = moved(areas[i]);

		/* The device's bytes are there when begin returns ... */
		fill(self->dev, self->size, ++seed);
		test_importer_write(self->session, 0, self->dev, self->size);
		ASSERT_EQ(0, vmemexp_begin(self->buf, VMEMEXP_SYNC_RW, &areas[i]));
		copy_rect(self->cpu, self->dev, &rect);
		check_both();
		/* ... and the CPU's when end does. */
		fill(self->cpu, self->size, ++seed);
		memcpy(self->p, self->cpu, self->size);
		check_both();
		ASSERT_EQ(0, vmemexp_end(self->buf));
		copy_rect(self->dev, self->cpu, &rect);
		check_both();
	}
}

TEST_F(lib_sync, without_an_area_it_is_what_was_exported)
{
	const struct vmemexp_area all = { .length = self->length, .rows = 1 };
	struct rect rect = moved(all);

	ASSERT_EQ(0, vmemexp_begin(self->buf, VMEMEXP_SYNC_RW, NULL));
	copy_rect(self->cpu, self->dev, &rect);
	check_both();
	fill(self->cpu, self->size, 4);
	memcpy(self->p, self->cpu, self->size);
	ASSERT_EQ(0, vmemexp_end(self->buf));
	copy_rect(self->dev, self->cpu, &rect);
	check_both();
}

TEST_F(lib_sync, after_reading_the_device_keeps_what_it_has)
{
	ASSERT_EQ(0, vmemexp_begin(self->buf, VMEMEXP_SYNC_READ, NULL));
	fill(self->dev, self->size, 5);
	test_importer_write(self->session, 0, self->dev, self->size);
	ASSERT_EQ(0, vmemexp_end(self->buf));
	test_importer_read(self->session, 0, self->seen, self->size);
	EXPECT_EQ(-1, first_wrong(self->dev, self->seen, self->size));
}

TEST_F(lib_sync, sync_counts_from_the_first_byte_of_the_dma_buf)
{
	const struct vmemexp_area area = { .offset = 7, .length = 50, .rows = 9, .stride = 1000 };
	struct rect rect = { .offset = 7, .length = 50, .rows = 9, .stride = 1000 };
	const int dmabuf = vmemexp_buf_fd(self->buf);

	ASSERT_EQ(0, vmemexp_sync(self->v, dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, &area));
	copy_rect(self->dev, self->cpu, &rect);
	check_both();
	ASSERT_EQ(0, vmemexp_sync(self->v, dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, NULL));
	memcpy(self->cpu, self->dev, self->size);
	check_both();
}

TEST_F(lib_sync, what_is_outside_is_refused_and_syncs_nothing)
{
	const struct vmemexp_area beside = { .offset = self->length, .length = 1 };
	const struct vmemexp_area behind = { .offset = self->size, .length = 1 };
	const struct vmemexp_area last = {
		.offset = 1, .length = self->page, .rows = SCATTERED, .stride = self->page,
	};
	const int dmabuf = vmemexp_buf_fd(self->buf);

	EXPECT_ERRNO(EINVAL, vmemexp_begin(self->buf, VMEMEXP_SYNC_RW, &beside));
	EXPECT_ERRNO(EINVAL, vmemexp_begin(self->buf, VMEMEXP_SYNC_RW, &last));
	EXPECT_ERRNO(EINVAL, vmemexp_end(self->buf));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(self->v, dmabuf, VMEMEXP_SYNC_RW, &behind));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(self->v, dmabuf, VMEMEXP_SYNC_RW, &last));
	check_both();
}

TEST_F(lib_sync, for_an_observer_leaves_the_device_alone)
{
	const unsigned int rw = VMEMEXP_SYNC_RW | VMEMEXP_SYNC_OBSERVER;
	const int dmabuf = vmemexp_buf_fd(self->buf);

	if (vmemexp_begin(self->buf, rw, NULL)) {
		EXPECT_EQ(EOPNOTSUPP, errno);
		return;
	}
	EXPECT_EQ(0, vmemexp_end(self->buf));
	EXPECT_EQ(0, vmemexp_sync(self->v, dmabuf, rw | VMEMEXP_SYNC_END, NULL));
	check_both();
}

static void __sync_foreign(struct __test_metadata *_metadata, struct vmemexp *v, int dmabuf,
			   size_t size)
{
	const struct vmemexp_area inside = { .offset = 1, .length = size - 1 };
	const struct vmemexp_area outside = { .offset = 1, .length = size };

	ASSERT_LE(0, dmabuf);
	EXPECT_EQ(0, vmemexp_sync(v, dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW, NULL));
	EXPECT_EQ(0, vmemexp_sync(v, dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW, &inside));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, dmabuf, VMEMEXP_SYNC_RW, &outside));
	EXPECT_ERRNO(EINVAL, vmemexp_sync(v, dmabuf, VMEMEXP_SYNC_RW | VMEMEXP_SYNC_OBSERVER,
					  &inside));
	close(dmabuf);
}

#define sync_foreign(dmabuf) __sync_foreign(_metadata, self->v, dmabuf, self->size)

TEST_F(lib, a_udmabuf_is_synced_as_a_whole)
{
	if (need_udmabuf())
		SKIP(return, "the kernel has no %s", need_udmabuf());
	sync_foreign(make_udmabuf(self->size));
}

TEST_F(lib, a_dma_buf_of_a_heap_is_synced_as_a_whole)
{
	if (need_heap())
		SKIP(return, "the kernel has no %s", need_heap());
	sync_foreign(make_heap_dmabuf(self->size));
}

TEST_F(lib, what_is_no_dma_buf_is_not_synced)
{
	const struct vmemexp_area area = { .length = 1 };
	int file = syscall(SYS_memfd_create, "file", 0);

	ASSERT_EQ(0, ftruncate(file, self->size));
	EXPECT_ERRNO(ENOTTY, vmemexp_sync(self->v, file, VMEMEXP_SYNC_RW, NULL));
	EXPECT_ERRNO(ENOTTY, vmemexp_sync(self->v, file, VMEMEXP_SYNC_RW, &area));
	close(file);
	EXPECT_ERRNO(EBADF, vmemexp_sync(self->v, file, VMEMEXP_SYNC_RW, NULL));
	EXPECT_ERRNO(EBADF, vmemexp_sync(self->v, file, VMEMEXP_SYNC_RW, &area));
}

/* ---- the cache ---- */

TEST_F(lib, get_finds_its_export_again)
{
	const long before = accounted_pages();
	struct vmemexp_buf *again;

	get(self->p, self->size, &self->buf);
	fill(self->p, self->size, 2);
	get(self->p, self->size, &again);
	EXPECT_EQ(self->buf, again);
	EXPECT_EQ(before + SCATTERED, accounted_pages());
	expect_shown(again, self->size, 2);
	vmemexp_buf_unref(again);
}

TEST_F(lib, get_exports_anew_what_was_mapped_anew)
{
	const long before = accounted_pages();
	struct vmemexp_buf *old, *new;

	for (unsigned int seed = 2; seed < 6; seed++) {
		get(self->p, self->size, &old);
		expect_shown(old, self->size, seed - 1);
		map_anew(self->p, self->size, seed);
		get(self->p, self->size, &new);
		EXPECT_NE(old, new);
		expect_shown(new, self->size, seed);
		/* The old one shows what it always did. */
		expect_shown(old, self->size, seed - 1);
		vmemexp_buf_unref(old);
		vmemexp_buf_unref(new);
		EXPECT_SOON(before + SCATTERED, accounted_pages());
	}
}

TEST_F(lib, get_exports_anew_what_was_mapped_anew_in_part)
{
	struct vmemexp_buf *old, *new;

	get(self->p, self->size, &old);
	ASSERT_EQ(0, munmap(self->p + self->page, self->page));
	ASSERT_EQ(self->p + self->page,
		  mmap(self->p + self->page, self->page, RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	fill(self->p, self->size, 2);
	get(self->p, self->size, &new);
	EXPECT_NE(old, new);
	expect_shown(new, self->size, 2);
	vmemexp_buf_unref(old);
	vmemexp_buf_unref(new);
}

TEST_F(lib, get_forgets_what_was_mapped_anew_in_another_size)
{
	const long before = accounted_pages();
	struct vmemexp_buf *buf;

	get(self->p, self->size, &buf);
	vmemexp_buf_unref(buf);
	map_anew(self->p, self->size, 2);
	get(self->p, 3 * self->page, &buf);
	expect_shown(buf, 3 * self->page, 2);
	vmemexp_buf_unref(buf);
	EXPECT_SOON(before + 3, accounted_pages());
}

TEST_F(lib, get_exports_anew_what_was_revoked)
{
	struct vmemexp_buf *old, *new;

	get(self->p, self->size, &old);
	test_revoke(vmemexp_buf_fd(old));
	EXPECT_ERRNO(ENODEV, vmemexp_begin(old, VMEMEXP_SYNC_RW, NULL));
	get(self->p, self->size, &new);
	EXPECT_NE(old, new);
	expect_shown(new, self->size, 1);
	vmemexp_buf_unref(old);
	vmemexp_buf_unref(new);
}

/* Nothing would tell that the mapping goes: the memory behind it stays. */
TEST_F(lib, get_does_not_keep_a_mapping_of_a_dma_buf)
{
	uint8_t *other = map_anon(self->size), *view;
	struct vmemexp_buf *first, *second, *of_other;

	fill(other, self->size, 2);
	export(self->p, self->size, 0);
	ASSERT_CALL(vmemexp_export(self->v, other, self->size, 0, &of_other, &self->err));
	view = mmap(NULL, self->size, RW, MAP_SHARED, vmemexp_buf_fd(self->buf), 0);
	ASSERT_NE(MAP_FAILED, (void *)view);
	get(view, self->size, &first);
	expect_shown(first, self->size, 1);
	ASSERT_EQ(view, mmap(view, self->size, RW, MAP_SHARED | MAP_FIXED,
			     vmemexp_buf_fd(of_other), 0));
	get(view, self->size, &second);
	expect_shown(second, self->size, 2);
	munmap(view, self->size);
	vmemexp_buf_unref(first);
	vmemexp_buf_unref(second);
	vmemexp_buf_unref(of_other);
}

TEST_F(lib, forget_unpins)
{
	const long before = accounted_pages();
	struct vmemexp_buf *buf;

	get(self->p, self->size, &buf);
	vmemexp_buf_unref(buf);
	get(self->p + self->page, self->page, &buf);
	vmemexp_buf_unref(buf);
	EXPECT_EQ(before + SCATTERED + 1, accounted_pages());
	vmemexp_forget(self->v, self->p + self->size - 1, 1);
	EXPECT_SOON(before + 1, accounted_pages());
	vmemexp_forget(self->v, self->p, self->size);
	EXPECT_SOON(before, accounted_pages());
}

/* The case that the documentation warns of, and its remedy. */
TEST_F(lib, forget_helps_where_pages_are_dropped_without_unmapping)
{
	struct vmemexp_buf *buf;

	get(self->p, self->size, &buf);
	vmemexp_buf_unref(buf);
	vmemexp_forget(self->v, self->p, self->size);
	ASSERT_EQ(0, madvise(self->p, self->size, MADV_DONTNEED));
	fill(self->p, self->size, 2);
	get(self->p, self->size, &buf);
	expect_shown(buf, self->size, 2);
	vmemexp_buf_unref(buf);
}

TEST_F(lib, a_child_exports_its_own_memory)
{
	struct vmemexp_buf *buf;
	uint8_t *view;
	pid_t child;

	get(self->p, self->size, &self->buf);
	child = fork_child();
	if (!child) {
		fill(self->p, self->size, 2);
		CHECK(!vmemexp_get(self->v, self->p, self->size, 0, &buf, NULL));
		view = mmap(NULL, self->size, PROT_READ, MAP_SHARED, vmemexp_buf_fd(buf), 0);
		CHECK(view != MAP_FAILED);
		CHECK(first_difference(view, self->size, 2) == -1);
		_exit(0);
	}
	EXPECT_EQ(0, wait_for_child(child));
	expect_shown(self->buf, self->size, 1);
}

struct worker {
	struct vmemexp *v;
	uint8_t *shared, *own;
	size_t page;
	unsigned int wrong;
};

/* Maps its own memory anew all the time, and must never find what was there before. */
static void *work(void *argument)
{
	struct worker *w = argument;

	for (unsigned int i = 0; i < 50; i++) {
		struct vmemexp_buf *buf = NULL;
		uint8_t *view;

		if (vmemexp_get(w->v, w->shared, w->page, 0, &buf, NULL))
			w->wrong++;
		vmemexp_buf_unref(buf);
		if (i % 8 == 0)
			vmemexp_forget(w->v, w->shared, w->page);

		/* Not munmap(): another thread's mmap() would take the hole. */
		if (mmap(w->own, w->page, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		    w->own)
			return NULL;
		fill(w->own, w->page, i);
		if (vmemexp_get(w->v, w->own, w->page, 0, &buf, NULL)) {
			w->wrong++;
			continue;
		}
		view = mmap(NULL, w->page, PROT_READ, MAP_SHARED, vmemexp_buf_fd(buf), 0);
		if (view == MAP_FAILED || first_difference(view, w->page, i) != -1)
			w->wrong++;
		munmap(view, w->page);
		vmemexp_buf_unref(buf);
	}
	return NULL;
}

TEST_F(lib, threads_share_a_device)
{
	struct worker workers[4];
	pthread_t threads[4];

	for (int i = 0; i < 4; i++) {
		workers[i] = (struct worker) {
			.v = self->v,
			.shared = self->p,
			.own = self->p + (2 + 2 * i) * self->page,
			.page = self->page,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, work, &workers[i]));
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, workers[i].wrong);
	}
}

TEST_HARNESS_MAIN

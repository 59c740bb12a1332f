// SPDX-License-Identifier: GPL-2.0
/*
 * Programs that were written for TI's vmemexp: its two ioctls. scanout_test has such a
 * program with a display. A variant is a layout of the structure: that of this
 * program's own "unsigned long", and those of 32 and of 64 bits, which every kernel takes.
 */
#include "lib/ti.h"
#include "lib/vmemexp_frames.h"

#include "modules/cachewatch/vmemexp_cachewatch.h"

/* The fields of a request, in any layout. */
struct request {
	uint64_t vaddr, size;
	int fd;
};

FIXTURE(ti)
{
	int fd;
	struct test_state before;
	size_t size;
	uint8_t *buf;
};

FIXTURE_VARIANT(ti)
{
	int bits;	/* 0: this program's */
};

FIXTURE_VARIANT_ADD(ti, native)
{
	.bits = 0,
};

FIXTURE_VARIANT_ADD(ti, of_32_bits)
{
	.bits = 32,
};

FIXTURE_VARIANT_ADD(ti, of_64_bits)
{
	.bits = 64,
};

/* Where a pointer of 32 bits leads. Gives MAP_FAILED if that is taken. */
static void *map_low(size_t size)
{
	void *hint = (void *)0x30000000UL;
	void *p = mmap(hint, size, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	return p == hint ? p : MAP_FAILED;
}

FIXTURE_SETUP(ti)
{
	self->size = PAGES * page_size();
	self->buf = map_low(self->size);
	ASSERT_NE(MAP_FAILED, (void *)self->buf);
	fill(self->buf, self->size, 1);
	test_setup();
}

FIXTURE_TEARDOWN(ti)
{
	restore_system();
	test_teardown();
	munmap(self->buf, self->size);
}

/* The structures, with something in what is not read. */
union any {
	struct dmabuf_vmem_export native;
	struct vmemexp_ti_export32 narrow;
	struct vmemexp_ti_export64 wide;
};

static unsigned long pack(int bits, const struct request *r, union any *any)
{
	memset(any, 0x5a, sizeof(*any));
	switch (bits) {
	case 32:
		any->narrow.vaddr = r->vaddr;
		any->narrow.size = r->size;
		return VMEMEXP_TI_IOC_EXPORT32;
	case 64:
		any->wide.vaddr = r->vaddr;
		any->wide.size = r->size;
		return VMEMEXP_TI_IOC_EXPORT64;
	}
	any->native.vaddr = r->vaddr;
	any->native.size = r->size;
	return DBUFIOC_EXPORT_VIRTMEM;
}

static void unpack(int bits, const union any *any, struct request *r)
{
	if (bits == 32)
		*r = (struct request){ any->narrow.vaddr, any->narrow.size, any->narrow.fd };
	else if (bits == 64)
		*r = (struct request){ any->wide.vaddr, any->wide.size, any->wide.fd };
	else
		*r = (struct request){ any->native.vaddr, any->native.size, any->native.fd };
}

static int ti_export(int fd, int bits, struct request *r)
{
	union any any;
	unsigned long request = pack(bits, r, &any);
	int ret = _test_ioctl(fd, request, &any);

	unpack(bits, &any, r);
	return ret;
}

static int __test_ti_export(struct __test_metadata *_metadata, int fd, int bits,
			    const volatile void *addr, size_t size)
{
	struct request r = { .vaddr = to_u64(addr), .size = size };

	ASSERT_EQ(0, ti_export(fd, bits, &r));
	ASSERT_LE(0, r.fd);
	EXPECT_EQ(to_u64(addr) & -page_size(), r.vaddr);
	EXPECT_EQ(size, r.size);
	return r.fd;
}

#define test_ti_export(addr, size) \
	__test_ti_export(_metadata, self->fd, variant->bits, addr, size)

/* The call fails and leaves the structure alone. */
static void __test_err_ti(struct __test_metadata *_metadata, int fd, int bits, int error,
			  uint64_t vaddr, uint64_t size)
{
	struct request r = { .vaddr = vaddr, .size = size };
	union any any, unchanged;
	unsigned long request = pack(bits, &r, &any);

	unchanged = any;
	__test_err(_metadata, fd, request, error, &any, &unchanged, sizeof(any));
}

#define test_err_ti(error, vaddr, size) \
	__test_err_ti(_metadata, self->fd, variant->bits, error, vaddr, size)

TEST_F(ti, export_is_the_memory)
{
	int dmabuf = test_ti_export(self->buf, self->size);
	uint8_t *view;

	EXPECT_EQ((off_t)self->size, lseek(dmabuf, 0, SEEK_END));
	EXPECT_EQ(O_RDWR, fcntl(dmabuf, F_GETFL) & O_ACCMODE);
	EXPECT_EQ(FD_CLOEXEC, fcntl(dmabuf, F_GETFD));
	test_contents(dmabuf, self->size, 1);
	view = mmap(NULL, self->size, RW, MAP_SHARED, dmabuf, 0);
	ASSERT_NE(MAP_FAILED, (void *)view);
	fill(view, self->size, 2);
	EXPECT_EQ(-1, first_difference(self->buf, self->size, 2));
	munmap(view, self->size);
	close(dmabuf);
}

/* Frames are width * height * 4 bytes, and begin where malloc() has put them. */
TEST_F(ti, export_has_all_pages_that_the_range_touches)
{
	const size_t page = page_size();
	int dmabuf;

	dmabuf = test_ti_export(self->buf, 1);
	EXPECT_EQ((off_t)page, lseek(dmabuf, 0, SEEK_END));
	close(dmabuf);
	dmabuf = test_ti_export(self->buf + page + 16, 2 * page);
	EXPECT_EQ((off_t)(3 * page), lseek(dmabuf, 0, SEEK_END));
	test_bytes(dmabuf, self->buf + page, 3 * page);
	close(dmabuf);
	dmabuf = test_ti_export(self->buf + 5 * page - 1, 2);
	EXPECT_EQ((off_t)(2 * page), lseek(dmabuf, 0, SEEK_END));
	test_bytes(dmabuf, self->buf + 4 * page, 2 * page);
	close(dmabuf);
}

TEST_F(ti, export_gives_a_new_descriptor_each_time)
{
	int first = test_ti_export(self->buf, self->size);
	int second = test_ti_export(self->buf, self->size);

	EXPECT_NE(first, second);
	EXPECT_NE(inode_of(first), inode_of(second));
	close(first);
	test_contents(second, self->size, 1);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	close(second);
}

TEST_F(ti, export_outlives_the_device_file)
{
	int device = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	struct request r = { .vaddr = to_u64(self->buf), .size = self->size };

	ASSERT_LE(0, device);
	ASSERT_EQ(0, ti_export(device, variant->bits, &r));
	close(device);
	test_contents(r.fd, self->size, 1);
	EXPECT_EQ(0, (int)test_query_state(r.fd) & VMEMEXP_STATE_STALE);
	close(r.fd);
}

TEST_F(ti, what_cannot_be_exported_is_refused_and_nothing_written)
{
	const uint64_t buf = to_u64(self->buf), end = buf + self->size;
	union any any;
	unsigned long request = pack(variant->bits, &(struct request){ buf, page_size(), 0 }, &any);
	uint8_t *read_only = map_anon(page_size());
	char *guarded = guard_end(8);

	test_err_ti(EINVAL, 0, page_size());
	test_err_ti(EINVAL, page_size() - 1, page_size());
	test_err_ti(EINVAL, buf, 0);
	test_err_ti(EFAULT, end, 1);
	test_err_ti(EFAULT, end - 1, 2);
	if (request != VMEMEXP_TI_IOC_EXPORT32) {
		test_err_ti(EINVAL, buf, -buf + 1);
		/* Beyond what a program can have, and no tag of arm64 in it. */
		test_err_ti(EFAULT, 1ULL << 54, page_size());
	}
	ASSERT_EQ(0, mprotect(self->buf, page_size(), PROT_READ));
	test_err_ti(EACCES, buf, self->size);
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, request, NULL));
	/* Too little of the structure is there. */
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, request, guarded));
	guard_free(guarded, 8);
	/* It can be read, and the answer cannot be written. */
	pack(variant->bits, &(struct request){ buf + page_size(), page_size(), 0 },
	     (union any *)read_only);
	ASSERT_EQ(0, mprotect(read_only, page_size(), PROT_READ));
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, request, read_only));
	munmap(read_only, page_size());
}

/* The administrator's limits and lists hold for these programs as well. */
TEST_F(ti, limits_hold)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "shmem"));
	test_err_ti(EPERM, to_u64(self->buf), self->size);
	restore_system();
	close(test_ti_export(self->buf, self->size));
	limit_memlock(self->size - page_size());
	test_err_ti(ENOMEM, to_u64(self->buf), self->size);
	close(test_ti_export(self->buf, self->size - page_size()));
}

TEST_F(ti, export_of_a_mapped_dmabuf_is_that_dmabuf)
{
	int dmabuf = test_export(self->buf, self->size, O_RDWR), again;
	uint8_t *view = (uint8_t *)0x40000000UL;

	view = mmap(view, self->size, RW, MAP_SHARED | MAP_FIXED_NOREPLACE, dmabuf, 0);
	ASSERT_NE(MAP_FAILED, (void *)view);
	again = test_ti_export(view, self->size);
	EXPECT_EQ(inode_of(dmabuf), inode_of(again));
	EXPECT_EQ(FD_CLOEXEC, fcntl(again, F_GETFD));
	close(again);
	/* Its start is not where the program believes it to be, and no field tells. */
	test_err_ti(EINVAL, to_u64(view) + page_size(), page_size());
	munmap(view, self->size);
	close(dmabuf);
}

TEST_F(ti, carveout_is_exported_if_it_is_listed)
{
	struct memory m = { .size = self->size };
	int dmabuf;

	skip_without_importer();
	skip_without_carveout();
	make_frames(_metadata, &m);
	/* The kernel has mapped it where it liked. */
	m.addr = mremap(m.addr, m.size, m.size, MREMAP_MAYMOVE | MREMAP_FIXED, 0x50000000UL);
	ASSERT_NE(MAP_FAILED, (void *)m.addr);
	dmabuf = test_ti_export(m.addr, m.size);
	EXPECT_EQ(VMEMEXP_MEMORY_PFNMAP, test_query(dmabuf).memory);
	close(dmabuf);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, "\n"));
	/* With it, root may export what is in no list. */
	set_caps(~RAWIO);
	test_err_ti(EPERM, to_u64(m.addr), m.size);
	munmap(m.addr, m.size);
}

/* --- DBUFIOC_CACHE_SYNC --- */

FIXTURE(ti_sync)
{
	int fd;
	struct test_state before;
	size_t size;
	uint8_t *buf;
	int dmabuf;
};

FIXTURE_SETUP(ti_sync)
{
	test_setup();
	self->size = PAGES * page_size();
	self->buf = map_anon(self->size);
	ASSERT_NE(MAP_FAILED, (void *)self->buf);
	fill(self->buf, self->size, 1);
	self->dmabuf = test_export(self->buf, self->size, O_RDWR);
}

FIXTURE_TEARDOWN(ti_sync)
{
	close(self->dmabuf);
	munmap(self->buf, self->size);
	test_teardown();
}

#define cache_sync(dmabuf_fd, op) \
	_test_ioctl(self->fd, DBUFIOC_CACHE_SYNC, &(struct dmabuf_cache_flush){ dmabuf_fd, op })

/* The device works on a copy, so what is not synced is stale. */
TEST_F(ti_sync, makes_both_see_what_the_other_has_written)
{
	uint8_t *seen = malloc(self->size);
	int session;

	skip_without_importer();
	ASSERT_NE(NULL, seen);
	session = test_importer_open();
	test_importer_attach(session, self->dmabuf, IMPORTER_DEV_SHADOW);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);

	fill(self->buf, self->size, 2);
	test_importer_read(session, 0, seen, self->size);
	EXPECT_EQ(-1, first_difference(seen, self->size, 1));
	EXPECT_EQ(0, cache_sync(self->dmabuf, CACHE_WRITEBACK));
	test_importer_read(session, 0, seen, self->size);
	EXPECT_EQ(-1, first_difference(seen, self->size, 2));

	fill(seen, self->size, 3);
	test_importer_write(session, 0, seen, self->size);
	EXPECT_EQ(-1, first_difference(self->buf, self->size, 2));
	EXPECT_EQ(0, cache_sync(self->dmabuf, CACHE_INVALIDATE));
	EXPECT_EQ(-1, first_difference(self->buf, self->size, 3));
	close(session);
	free(seen);
}

/* No device is attached: what is flushed is for the core beside Linux. */
TEST_F(ti_sync, reaches_an_observer)
{
	static struct cachewatch_record records[4096];
	/* To invalidate, arm flushes the inner caches once more behind the outer one. */
#if defined(__arm__)
	const uint64_t expected[] = { 2 * self->size, self->size };
#elif defined(__aarch64__)
	const uint64_t expected[] = { self->size, self->size };
#else
	const uint64_t expected[] = { 0, 0 };
#endif
	int watch = open(CACHEWATCH_PATH, O_RDONLY | O_CLOEXEC);

	if (watch < 0 && errno == ENOENT)
		SKIP(return, "the module vmemexp_cachewatch is not loaded");
	ASSERT_LE(0, watch);
	for (int op = CACHE_INVALIDATE; op <= CACHE_WRITEBACK; op++) {
		uint64_t bytes = 0;
		ssize_t got;

		ASSERT_EQ(0, mlockall(MCL_CURRENT));
		ASSERT_EQ(0, _test_ioctl(watch, CACHEWATCH_IOC_START, NULL));
		EXPECT_EQ(0, cache_sync(self->dmabuf, op));
		ASSERT_EQ(0, _test_ioctl(watch, CACHEWATCH_IOC_STOP, NULL));
		got = read(watch, records, sizeof(records));
		ASSERT_LE(0, got);
		for (size_t i = 0; i < got / sizeof(*records); i++) {
			EXPECT_EQ(CACHEWATCH_FLUSH, records[i].op);
			bytes += records[i].size;
		}
		EXPECT_EQ(expected[op], bytes);
		munlockall();
	}
	close(watch);
}

TEST_F(ti_sync, refuses_what_it_cannot_sync)
{
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);

	EXPECT_EQ(-EINVAL, cache_sync(self->dmabuf, 2));
	EXPECT_EQ(-EINVAL, cache_sync(self->dmabuf, -1));
	EXPECT_EQ(-EBADF, cache_sync(-1, CACHE_WRITEBACK));
	EXPECT_EQ(-EINVAL, cache_sync(zero, CACHE_INVALIDATE));
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, DBUFIOC_CACHE_SYNC, NULL));
	close(zero);
	test_revoke(self->dmabuf);
	EXPECT_EQ(-ENODEV, cache_sync(self->dmabuf, CACHE_WRITEBACK));
	EXPECT_EQ(-ENODEV, cache_sync(self->dmabuf, CACHE_INVALIDATE));
}

/* --- the number that all of them share --- */

/* The size in it is all that tells the requests apart. */
TEST_F(ti_sync, other_sizes_are_no_request)
{
	uint8_t arg[64] = {};

	for (unsigned int size = 0; size <= sizeof(arg); size++) {
		if (size == 8 || size == 12 || size == 24)
			continue;
		EXPECT_EQ(-ENOTTY, _test_ioctl(self->fd, _IOC(_IOC_READ | _IOC_WRITE, 0xDB, 0xD0,
							      size), arg));
	}
	EXPECT_EQ(-ENOTTY, _test_ioctl(self->fd, _IOC(_IOC_WRITE, 0xDB, 0xD0, 12), arg));
	EXPECT_EQ(-ENOTTY, _test_ioctl(self->fd, _IOC(_IOC_READ | _IOC_WRITE, 0xDB, 0xD1, 12),
				       arg));
}

TEST_HARNESS_MAIN

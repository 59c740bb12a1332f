// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls of /dev/vmemexp with every kind of wrong argument, one at a time, and the answers to
 * right ones. Other programs test kinds of memory; here it is always anonymous.
 */
#include <limits.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lib/vmemexp_memory.h"

#define BUF_PAGES	4

/* Could a program map the page at @addr? It may be mapped already. */
static bool is_address(uint64_t addr)
{
	void *want = (void *)(uintptr_t)addr;
	void *map = mmap(want, page_size(), PROT_READ,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			 -1, 0);

	if (map == want)
		munmap(map, page_size());
	return map == want || errno == EEXIST;
}

/* First byte that no program can map: a power of two less some, or 3 GiB. */
static uint64_t end_of_address_space(void)
{
	uint64_t good = to_u64(&good) / page_size();
	uint64_t bad = (UINTPTR_MAX / 2 + 1ULL) / (page_size() / 2);

	while (bad - good > 1) {
		uint64_t page = good + (bad - good) / 2;

		if (is_address(page * page_size()))
			good = page;
		else
			bad = page;
	}
	return bad * page_size();
}

/* ---- the device ---- */

FIXTURE(device)
{
	int fd;
	struct test_state before;
	char *buf;
};

FIXTURE_SETUP(device)
{
	test_setup();
	self->buf = guard_start(BUF_PAGES * page_size());
	ASSERT_NE(NULL, self->buf);
}

FIXTURE_TEARDOWN(device)
{
	test_teardown();
}

TEST_F(device, belongs_to_root_alone)
{
	struct stat st;

	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0600, st.st_mode & 07777);
	EXPECT_EQ(0, st.st_uid);
	EXPECT_EQ(0, st.st_gid);
}

TEST_F(device, exports_in_every_mode_of_opening)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		int fd = open(VMEMEXP_PATH, modes[i]);

		ASSERT_LE(0, fd);
		close(__test_export_range(_metadata, fd, self->buf, page_size(),
					  O_RDWR));
		close(fd);
	}
}

TEST_F(device, has_nothing_but_ioctls)
{
	char byte = 0;

	EXPECT_EQ(-1, read(self->fd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, lseek(self->fd, 0, SEEK_SET));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, page_size(), PROT_READ, MAP_SHARED,
				   self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
}

static void expect_enotty(struct __test_metadata *_metadata, int fd,
			  unsigned int request)
{
	struct vmemexp_query query = query_args(-1);

	EXPECT_EQ(-ENOTTY, _test_ioctl(fd, request, &query)) {
		TH_LOG("request %#x", request);
	}
	/* The number is looked at first. */
	EXPECT_EQ(-ENOTTY, _test_ioctl(fd, request, NULL));
}

TEST_F(device, unknown_number_is_enotty)
{
	for (unsigned int nr = 4; nr < 256; nr++)
		expect_enotty(_metadata, self->fd, _VMEMEXP_IOC(nr));
}

TEST_F(device, wrong_magic_is_enotty)
{
	for (unsigned int nr = 0; nr < 4; nr++) {
		expect_enotty(_metadata, self->fd,
			      _IOC(_IOC_READ | _IOC_WRITE,
				   VMEMEXP_IOC_MAGIC - 1, nr, 0));
		expect_enotty(_metadata, self->fd,
			      _IOC(_IOC_READ | _IOC_WRITE,
				   VMEMEXP_IOC_MAGIC ^ 0x80, nr, 0));
	}
}

TEST_F(device, wrong_direction_or_size_in_the_number_is_enotty)
{
	for (unsigned int nr = 0; nr < 4; nr++) {
		expect_enotty(_metadata, self->fd, _IO(VMEMEXP_IOC_MAGIC, nr));
		expect_enotty(_metadata, self->fd,
			      _IOC(_IOC_READ, VMEMEXP_IOC_MAGIC, nr, 0));
		expect_enotty(_metadata, self->fd,
			      _IOC(_IOC_WRITE, VMEMEXP_IOC_MAGIC, nr, 0));
		for (unsigned int size = 1; size < 128; size++)
			expect_enotty(_metadata, self->fd,
				      _IOC(_IOC_READ | _IOC_WRITE,
					   VMEMEXP_IOC_MAGIC, nr, size));
	}
}

/* ---- what all requests have in common: the structure and how it is read ---- */

FIXTURE(request)
{
	int fd;
	struct test_state before;
	char *buf;
	int dmabuf;
	/* Three pages; arguments are put where the test wants them. */
	char *arg;
};

FIXTURE_VARIANT(request)
{
	unsigned int nr;
	/* Sizes of the structure in the first released version, and in this one. */
	size_t least;
	size_t size;
	size_t flags_offset;
	unsigned int known_flags;
	/* Everything between the two is output, and so are the last bytes, if so many. */
	size_t outputs;
	size_t outputs_end;
	size_t last_outputs;
};

FIXTURE_VARIANT_ADD(request, export)
{
	.nr = VMEMEXP_IOC_EXPORT,
	.least = VMEMEXP_EXPORT_SIZE_VER0,
	.size = sizeof(struct vmemexp_export),
	.flags_offset = 4,
	.known_flags = VMEMEXP_EXPORT_UNALIGNED | VMEMEXP_EXPORT_CONTIGUOUS,
	.outputs = offsetof(struct vmemexp_export, fd),
	.outputs_end = offsetof(struct vmemexp_export, reserved),
	.last_outputs = sizeof(((struct vmemexp_export *)NULL)->err_range),
};

FIXTURE_VARIANT_ADD(request, sync)
{
	.nr = VMEMEXP_IOC_SYNC,
	.least = VMEMEXP_SYNC_SIZE_VER0,
	.size = sizeof(struct vmemexp_sync),
	.flags_offset = 8,
	.known_flags = VMEMEXP_SYNC_RW | VMEMEXP_SYNC_END |
		       VMEMEXP_SYNC_OBSERVER,
	.outputs = sizeof(struct vmemexp_sync),
	.outputs_end = sizeof(struct vmemexp_sync),
};

FIXTURE_VARIANT_ADD(request, query)
{
	.nr = VMEMEXP_IOC_QUERY,
	.least = VMEMEXP_QUERY_SIZE_VER0,
	.size = sizeof(struct vmemexp_query),
	.flags_offset = 8,
	.outputs = offsetof(struct vmemexp_query, access),
	.outputs_end = offsetof(struct vmemexp_query, reserved),
};

FIXTURE_VARIANT_ADD(request, revoke)
{
	.nr = VMEMEXP_IOC_REVOKE,
	.least = VMEMEXP_REVOKE_SIZE_VER0,
	.size = sizeof(struct vmemexp_revoke),
	.flags_offset = 4,
	.outputs = offsetof(struct vmemexp_revoke, names_size),
	.outputs_end = sizeof(struct vmemexp_revoke),
};

FIXTURE_SETUP(request)
{
	test_setup();
	self->buf = guard_start(BUF_PAGES * page_size());
	ASSERT_NE(NULL, self->buf);
	self->dmabuf = test_export(self->buf, BUF_PAGES * page_size(), O_RDWR);
	self->arg = guard_start(3 * page_size());
	ASSERT_NE(NULL, self->arg);
	/* Whatever a request for it ends with, there is nothing more to give back. */
	if (variant->nr == VMEMEXP_IOC_REVOKE)
		test_revoke(self->dmabuf);
}

FIXTURE_TEARDOWN(request)
{
	close(self->dmabuf);
	test_teardown();
}

static void __put_request(char *buf, int dmabuf, unsigned int nr,
			  size_t size, void *arg)
{
	union {
		struct vmemexp_export export;
		struct vmemexp_sync sync;
		struct vmemexp_query query;
		struct vmemexp_revoke revoke;
	} good;

	switch (nr) {
	case VMEMEXP_IOC_EXPORT:
		good.export = export_args(buf, page_size(), O_RDWR);
		break;
	case VMEMEXP_IOC_SYNC:
		good.sync = sync_args(dmabuf, VMEMEXP_SYNC_RW, 0, 1);
		break;
	case VMEMEXP_IOC_QUERY:
		good.query = query_args(dmabuf);
		break;
	case VMEMEXP_IOC_REVOKE:
		good.revoke = revoke_args(dmabuf);
		/* Room for far more names than there are. */
		good.revoke.names = to_u64(buf);
		memset(&good.revoke.names_size, POISON_BYTE, sizeof(good.revoke.names_size));
		break;
	}
	memcpy(arg, &good, size);
}

/* Puts a request that will succeed to @arg. */
#define put_request(arg)						\
	__put_request(self->buf, self->dmabuf, variant->nr,		\
		      variant->size, arg)

static void set_size(void *arg, uint32_t size)
{
	memcpy(arg, &size, sizeof(size));
}

static void __expect_success(struct __test_metadata *_metadata, int fd,
			     unsigned int nr, void *arg)
{
	uint32_t size_before, size_after;
	int ret;

	memcpy(&size_before, arg, sizeof(size_before));
	ret = _test_ioctl(fd, nr, arg);
	EXPECT_EQ(0, ret) {
		TH_LOG("%s with size %u", strerror(-ret), size_before);
	}
	memcpy(&size_after, arg, sizeof(size_after));
	EXPECT_EQ(size_before, size_after);
	if (ret == 0 && nr == VMEMEXP_IOC_EXPORT)
		EXPECT_EQ(0, close(((struct vmemexp_export *)arg)->fd));
}

#define expect_success(arg) \
	__expect_success(_metadata, self->fd, variant->nr, arg)

static void __expect_error(struct __test_metadata *_metadata, int fd,
			   unsigned int nr, int error, void *arg, size_t size)
{
	void *expected = malloc(size);

	ASSERT_NE(NULL, expected);
	memcpy(expected, arg, size);
	__test_err(_metadata, fd, nr, error, arg, expected, size);
	free(expected);
}

/* The structure, and @extra bytes behind it, are as they were. */
#define expect_error(error, arg, extra)					\
	__expect_error(_metadata, self->fd, variant->nr, error, arg,	\
		       variant->size + (extra))

TEST_F(request, short_size_is_einval)
{
	put_request(self->arg);
	for (size_t size = 0; size < variant->least; size++) {
		set_size(self->arg, size);
		expect_error(EINVAL, self->arg, 0);
	}
}

/* Programs that were compiled with an older structure pass a smaller size. Try each. */
TEST_F(request, size_of_an_older_version_is_accepted_and_nothing_is_written_behind_it)
{
	char behind[256];

	memset(behind, POISON_BYTE, sizeof(behind));
	for (size_t size = variant->least; size <= variant->size; size++) {
		/* It ends where memory does. */
		char *arg = self->arg + 3 * page_size() - size;
		char good[256];

		put_request(good);
		memcpy(arg, good, size);
		set_size(arg, size);
		expect_success(arg);

		put_request(self->arg);
		memset(self->arg + size, POISON_BYTE, sizeof(behind));
		set_size(self->arg, size);
		expect_success(self->arg);
		EXPECT_EQ(0, memcmp(behind, self->arg + size, sizeof(behind)));
	}
}

TEST_F(request, long_size_with_zeroes_is_accepted)
{
	for (size_t size = variant->size; size <= page_size();
	     size += size < variant->size + 16 ? 1 : 123) {
		memset(self->arg, 0, page_size());
		put_request(self->arg);
		set_size(self->arg, size);
		expect_success(self->arg);
	}
	memset(self->arg, 0, page_size());
	put_request(self->arg);
	set_size(self->arg, page_size());
	expect_success(self->arg);
}

TEST_F(request, long_size_with_garbage_is_e2big)
{
	put_request(self->arg);
	for (size_t i = variant->size; i < page_size();
	     i += i < variant->size + 16 ? 1 : 123) {
		self->arg[i] = 1;
		/* The last byte, and one with zeroes behind it. */
		set_size(self->arg, i + 1);
		expect_error(E2BIG, self->arg,
			     i + 1 - variant->size);
		set_size(self->arg, page_size());
		expect_error(E2BIG, self->arg,
			     page_size() - variant->size);
		/* The driver does not touch what is behind the structure. */
		set_size(self->arg, i);
		expect_success(self->arg);
		EXPECT_EQ(1, self->arg[i]);
		self->arg[i] = 0;
		put_request(self->arg);
	}
}

TEST_F(request, size_beyond_a_page_is_e2big)
{
	const uint32_t sizes[] = {
		page_size() + 1, 2 * page_size(), 0x80000000, ~0U
	};

	put_request(self->arg);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		set_size(self->arg, sizes[i]);
		expect_error(E2BIG, self->arg,
			     2 * page_size());
	}
}

TEST_F(request, bad_pointer_is_efault)
{
	const uintptr_t pointers[] = {
		0, 1, page_size(), (uintptr_t)self->arg - page_size(),
		(uintptr_t)(end_of_address_space() - 4),
		(uintptr_t)end_of_address_space(), ~(uintptr_t)0,
		~(uintptr_t)0 - variant->size, ~(~(uintptr_t)0 >> 1),
	};

	for (size_t i = 0; i < ARRAY_SIZE(pointers); i++) {
		struct test_state before = get_state();

		EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, variant->nr,
					       (void *)pointers[i])) {
			TH_LOG("pointer %#lx", (unsigned long)pointers[i]);
		}
		test_state(&before);
	}
}

TEST_F(request, structure_may_touch_unmapped_memory)
{
	char *end = self->arg + 3 * page_size() - variant->size;

	put_request(end);
	expect_success(end);
	/* Also if its size says that there is more, and there is not. */
	put_request(end - 8);
	memset(self->arg + 3 * page_size() - 8, 0, 8);
	set_size(end - 8, variant->size + 8);
	expect_success(end - 8);
	put_request(self->arg);
	expect_success(self->arg);
}

TEST_F(request, structure_that_ends_early_is_efault)
{
	char *edge = self->arg + 3 * page_size();
	char good[256], before[256];

	put_request(good);
	for (size_t there = 1; there < variant->size; there++) {
		struct test_state state = get_state();

		memcpy(edge - there, good, there);
		memcpy(before, edge - there, there);
		EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, variant->nr,
					       edge - there));
		EXPECT_EQ(0, memcmp(before, edge - there, there));
		test_state(&state);
	}
}

TEST_F(request, structure_across_two_pages_is_accepted)
{
	char *arg = self->arg + page_size() - variant->size / 2;

	put_request(arg);
	expect_success(arg);
}

TEST_F(request, unaligned_structure_is_accepted)
{
	char arg[256];

	for (int i = 1; i < 8; i++) {
		put_request(arg + i);
		EXPECT_EQ(0, _test_ioctl(self->fd, variant->nr, arg + i));
		if (variant->nr == VMEMEXP_IOC_EXPORT) {
			struct vmemexp_export cmd;

			memcpy(&cmd, arg + i, sizeof(cmd));
			EXPECT_EQ(0, close(cmd.fd));
		}
	}
}

TEST_F(request, read_only_structure_is_efault_where_there_is_an_answer)
{
	put_request(self->arg);
	ASSERT_EQ(0, mprotect(self->arg, page_size(), PROT_READ));
	if (variant->outputs < variant->size)
		expect_error(EFAULT, self->arg, 0);
	else
		expect_success(self->arg);
}

TEST_F(request, structure_with_a_read_only_half_is_efault_where_there_is_an_answer)
{
	char *arg = self->arg + page_size() - variant->size / 2;
	struct test_state before = get_state();
	char half[256];

	put_request(arg);
	ASSERT_EQ(0, mprotect(self->arg + page_size(), page_size(), PROT_READ));
	memcpy(half, arg + variant->size / 2, variant->size / 2);
	EXPECT_EQ(variant->outputs < variant->size ? -EFAULT : 0,
		  _test_ioctl(self->fd, variant->nr, arg));
	EXPECT_EQ(0, memcmp(half, arg + variant->size / 2, variant->size / 2));
	test_state(&before);
}

TEST_F(request, every_unknown_flag_is_einval)
{
	unsigned int unknown = 0;

	for (unsigned int bit = 0; bit < 32; bit++) {
		uint32_t flags = 1U << bit;

		if (flags & variant->known_flags)
			continue;
		unknown++;
		put_request(self->arg);
		/* SYNC's good request has flags that it must have. */
		self->arg[variant->flags_offset + bit / 8] |= 1U << bit % 8;
		if (variant->nr == VMEMEXP_IOC_EXPORT)
			test_err_export_cmd(EINVAL, VMEMEXP_REASON_FLAGS, 0,
					    (struct vmemexp_export *)self->arg);
		else
			expect_error(EINVAL,
				     self->arg, 0);
	}
	ASSERT_EQ(32 - __builtin_popcount(variant->known_flags), unknown);
}

TEST_F(request, answer_leaves_no_output_as_it_was)
{
	char before[256], after[256];

	put_request(before);
	memcpy(after, before, sizeof(after));
	ASSERT_EQ(0, _test_ioctl(self->fd, variant->nr, after));
	if (variant->nr == VMEMEXP_IOC_EXPORT)
		close(((struct vmemexp_export *)after)->fd);
	/* No answer has a byte that happens to be the poison's. */
	for (size_t i = 0; i < variant->size; i++) {
		bool output = (i >= variant->outputs && i < variant->outputs_end) ||
			      i >= variant->size - variant->last_outputs;

		EXPECT_EQ(output, before[i] != after[i]) {
			TH_LOG("byte %zu", i);
		}
	}
}

/* ---- EXPORT: the arguments ---- */

FIXTURE(export)
{
	int fd;
	struct test_state before;
	char *buf;
	size_t size;
};

FIXTURE_SETUP(export)
{
	test_setup();
	self->size = BUF_PAGES * page_size();
	self->buf = guard_start(self->size);
	ASSERT_NE(NULL, self->buf);
}

FIXTURE_TEARDOWN(export)
{
	test_teardown();
}

TEST_F(export, every_unknown_fd_flag_is_einval)
{
	for (unsigned int bit = 0; bit < 32; bit++) {
		unsigned int flag = 1U << bit;

		if (flag & (O_ACCMODE | O_CLOEXEC))
			continue;
		test_err_export(EINVAL, VMEMEXP_REASON_FLAGS, NULL, self->buf,
				self->size, O_RDWR | flag);
	}
}

TEST_F(export, every_reserved_bit_is_einval)
{
	for (unsigned int bit = 0; bit < 32; bit++) {
		struct vmemexp_export cmd = export_args(self->buf, self->size, O_RDWR);

		cmd.reserved = 1U << bit;
		test_err_export_cmd(EINVAL, VMEMEXP_REASON_FLAGS, 0, &cmd);
	}
}

TEST_F(export, write_only_is_einval)
{
	test_err_export(EINVAL, VMEMEXP_REASON_FLAGS, NULL, self->buf,
			self->size, O_WRONLY);
	test_err_export(EINVAL, VMEMEXP_REASON_FLAGS, NULL, self->buf,
			self->size, O_ACCMODE);
}

TEST_F(export, zero_length_is_einval)
{
	struct vmemexp_export cmd;

	test_err_export(EINVAL, VMEMEXP_REASON_LENGTH, self->buf, self->buf, 0,
			O_RDWR);
	test_err_export(EINVAL, VMEMEXP_REASON_LENGTH, NULL, NULL, 0, O_RDWR);
	cmd = export_args(self->buf + 1, 0, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, cmd.vaddr, &cmd);
}

TEST_F(export, range_that_wraps_around_is_einval)
{
	const uint64_t buf = to_u64(self->buf), page = page_size();
	const struct { uint64_t vaddr, length; } ranges[] = {
		{ buf, -buf },
		{ buf, -buf + page },
		{ buf, -page },
		{ buf, ~0ULL },
		{ -page, page },
		{ -page, 2 * page },
		{ page, -page },
		{ ~0ULL, 1 },
		{ ~0ULL, ~0ULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct vmemexp_export cmd = export_args(NULL, 0, O_RDWR);

		cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
		cmd.vaddr = ranges[i].vaddr;
		cmd.length = ranges[i].length;
		test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, cmd.vaddr,
				    &cmd);
	}
}

TEST_F(export, misaligned_start_is_einval)
{
	for (size_t shift = 1; shift < page_size(); shift *= 2)
		test_err_export(EINVAL, VMEMEXP_REASON_ALIGNMENT,
				self->buf + shift, self->buf + shift,
				self->size - shift, O_RDWR);
}

TEST_F(export, misaligned_end_is_einval)
{
	for (size_t shift = 1; shift < page_size(); shift *= 2)
		test_err_export(EINVAL, VMEMEXP_REASON_ALIGNMENT,
				self->buf + self->size - shift, self->buf,
				self->size - shift, O_RDWR);
}

TEST_F(export, unaligned_covers_every_page_it_touches)
{
	const size_t page = page_size();
	const struct { size_t start, length; } ranges[] = {
		{ 0, 1 }, { 1, 1 }, { page - 1, 1 }, { page - 1, 2 },
		{ 0, page }, { 1, page - 1 }, { 1, page }, { 0, page + 1 },
		{ 100, 2 * page }, { page + 7, 2 * page - 7 },
		{ 1, self->size - 2 }, { 0, self->size },
	};

	fill(self->buf, self->size, 1);
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		const char *start = self->buf + ranges[i].start;
		struct vmemexp_export cmd = export_args(start, ranges[i].length,
							O_RDWR);
		struct vmemexp_query query;
		const char *map;

		cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
		test_export_cmd(&cmd);
		query = test_query(cmd.fd);
		EXPECT_EQ(cmd.offset, query.offset);
		EXPECT_EQ(ranges[i].length, query.length);
		EXPECT_EQ(cmd.dmabuf_size, query.dmabuf_size);
		map = mmap(NULL, cmd.dmabuf_size, PROT_READ, MAP_SHARED, cmd.fd,
			   0);
		ASSERT_NE(MAP_FAILED, map);
		EXPECT_EQ(0, memcmp(map + cmd.offset, start, ranges[i].length));
		EXPECT_EQ(0, memcmp(map, start - cmd.offset, cmd.dmabuf_size));
		munmap((void *)map, cmd.dmabuf_size);
		close(cmd.fd);
	}
}

TEST_F(export, unaligned_range_fails_at_the_page_it_begins_in)
{
	struct vmemexp_export cmd = export_args(self->buf - 1, 2, O_RDWR);

	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_READABLE,
			    to_u64(self->buf) - page_size(), &cmd);
	cmd = export_args(self->buf + self->size - 1, 2, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_READABLE,
			    to_u64(self->buf) + self->size, &cmd);
}

TEST_F(export, kernel_address_is_efault)
{
	static const uint64_t addresses[] = {
#ifndef __aarch64__
		/* There, the highest byte is a tag and says nothing. */
		0x8000000000000000ULL,
#endif
		0xffff800000000000ULL, 0xffff888000000000ULL,
		0xffffffff81000000ULL, 0xffffffffff600000ULL,
		0xffffffffffffe000ULL,
	};

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct vmemexp_export cmd = export_args(NULL, page_size(), 0);

		cmd.vaddr = addresses[i];
		test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED,
				    cmd.vaddr, &cmd);
	}
}

TEST_F(export, range_beyond_the_address_space_is_efault)
{
	const uint64_t end = end_of_address_space();
	struct vmemexp_export cmd = export_args(NULL, 0, O_RDONLY);
	void *last = (void *)(uintptr_t)(end - page_size());

	ASSERT_NE(0, end);
	cmd.vaddr = end;
	cmd.length = page_size();
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED, end, &cmd);

	/* Where something is mapped there already, that will do. */
	mmap(last, page_size(), PROT_READ,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	cmd = export_args(last, 2 * page_size(), O_RDONLY);
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED, end, &cmd);
}

/* More pages than a scatterlist can count, where there is room for so many. */
TEST_F(export, range_of_too_many_pages_is_einval)
{
	struct vmemexp_export cmd = export_args(NULL, 0, O_RDONLY);
	const uint64_t max = (uint64_t)INT_MAX * page_size();
	bool fits = end_of_address_space() - page_size() >= max;

	cmd.vaddr = page_size();
	cmd.length = max;
	if (fits)
		test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, cmd.vaddr, &cmd);
	else
		test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED,
				    end_of_address_space(), &cmd);
	cmd.length = max - page_size();
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED,
			    fits ? cmd.vaddr : end_of_address_space(), &cmd);
	/* A part of a page at each end is a page. */
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	cmd.vaddr++;
	if (fits)
		test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, cmd.vaddr, &cmd);
	else
		test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED,
				    end_of_address_space(), &cmd);
}

TEST_F(export, null_is_an_address_where_nothing_is_mapped)
{
	test_err_export(EFAULT, VMEMEXP_REASON_NOT_MAPPED, NULL, NULL,
			page_size(), O_RDONLY);
}

TEST_F(export, errors_come_in_the_documented_order)
{
	struct vmemexp_export cmd = export_args(NULL, 0, 0);

	/* Everything is wrong; then one mistake after the other is mended. */
	cmd.vaddr = ~0ULL;
	cmd.length = 0;
	cmd.flags = 1U << 31;
	cmd.fd_flags = O_WRONLY;
	cmd.reserved = 1;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_FLAGS, 0, &cmd);
	cmd.flags = 0;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_FLAGS, 0, &cmd);
	cmd.fd_flags = O_RDWR;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_FLAGS, 0, &cmd);
	cmd.reserved = 0;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, ~0ULL, &cmd);
	cmd.length = 3 * page_size();
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_LENGTH, ~0ULL, &cmd);
	cmd.vaddr = end_of_address_space() + 1;
	cmd.length = page_size() - 1;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_ALIGNMENT, cmd.vaddr, &cmd);
	cmd.vaddr--;
	test_err_export_cmd(EINVAL, VMEMEXP_REASON_ALIGNMENT,
			    cmd.vaddr + cmd.length, &cmd);
	cmd.length++;
	test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED, cmd.vaddr, &cmd);
	cmd.vaddr = to_u64(self->buf);
	test_export_cmd(&cmd);
	close(cmd.fd);
}

#define SCATTERED_PAGES	64

#define scattered_extents(buf) \
	physical_extents((unsigned char *)(buf), SCATTERED_PAGES * page_size())

/* Pages in more than one extent, touched in an order that makes that likely. */
static char *map_scattered(struct __test_metadata *_metadata)
{
	char *buf = map_anon(SCATTERED_PAGES * page_size());

	ASSERT_NE(MAP_FAILED, buf);
	ASSERT_EQ(0, forbid_thp(buf, SCATTERED_PAGES * page_size()));
	for (size_t i = 0; i < SCATTERED_PAGES; i++)
		buf[i * 37 % SCATTERED_PAGES * page_size()] = 1;
	ASSERT_LT(1, scattered_extents(buf).nr);
	return buf;
}

TEST_F(export, contiguous_is_erange_where_the_second_run_begins)
{
	char *buf = map_scattered(_metadata);
	struct vmemexp_export cmd = export_args(buf, SCATTERED_PAGES *
						page_size(), O_RDWR);

	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
			    to_u64(buf) + scattered_extents(buf).second,
			    &cmd);
}

TEST_F(export, contiguous_run_is_one_extent)
{
	char *buf = map_scattered(_metadata);
	size_t second = scattered_extents(buf).second;
	struct vmemexp_export cmd = export_args(buf, second, O_RDWR);

	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	test_export_cmd(&cmd);
	EXPECT_EQ(1, cmd.nr_extents);
	close(cmd.fd);
}

TEST_F(export, extents_are_the_physical_runs)
{
	char *buf = map_scattered(_metadata);
	struct vmemexp_export cmd = export_args(buf, SCATTERED_PAGES *
						page_size(), O_RDWR);
	int fd = test_export_cmd(&cmd);
	struct vmemexp_query query = test_query(fd);
	struct extents extents = scattered_extents(buf);

	EXPECT_EQ(extents.nr, cmd.nr_extents);
	EXPECT_EQ(extents.nr, query.nr_extents);
	EXPECT_EQ(extents.min, query.min_extent);
	EXPECT_EQ(extents.max, query.max_extent);
	EXPECT_EQ(extents.address_bits, query.address_bits);
	close(fd);
}

TEST_F(export, same_range_can_be_exported_twice)
{
	int first = test_export(self->buf, self->size, O_RDWR);
	int second = test_export(self->buf + page_size(), page_size(),
				 O_RDONLY);
	struct stat st[2];

	ASSERT_EQ(0, fstat(first, &st[0]));
	ASSERT_EQ(0, fstat(second, &st[1]));
	EXPECT_NE(st[0].st_ino, st[1].st_ino);
	EXPECT_EQ(self->before.pins + BUF_PAGES + 1, pinned_pages());
	close(first);
	EXPECT_EQ(page_size(), test_query(second).dmabuf_size);
	EXPECT_EQ(self->before.pins + 1, pinned_pages());
	close(second);
}

/* ---- EXPORT: obstacles in the range ---- */

/* More than the driver pins at once, so that some are found late. */
#define LONG_PAGES	1200

FIXTURE(obstacle)
{
	int fd;
	struct test_state before;
	char *buf;
};

FIXTURE_VARIANT(obstacle)
{
	bool unmap;
	int prot;
	unsigned int fd_flags;
	int error;
	unsigned int reason;
};

FIXTURE_VARIANT_ADD(obstacle, hole)
{
	.unmap = true,
	.fd_flags = O_RDWR,
	.error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_MAPPED,
};

FIXTURE_VARIANT_ADD(obstacle, hole_for_reading)
{
	.unmap = true,
	.fd_flags = O_RDONLY,
	.error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_MAPPED,
};

FIXTURE_VARIANT_ADD(obstacle, no_access)
{
	.prot = PROT_NONE,
	.fd_flags = O_RDWR,
	.error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_READABLE,
};

FIXTURE_VARIANT_ADD(obstacle, no_access_for_reading)
{
	.prot = PROT_NONE,
	.fd_flags = O_RDONLY,
	.error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_READABLE,
};

FIXTURE_VARIANT_ADD(obstacle, read_only)
{
	.prot = PROT_READ,
	.fd_flags = O_RDWR,
	.error = EACCES,
	.reason = VMEMEXP_REASON_NOT_WRITABLE,
};

FIXTURE_VARIANT_ADD(obstacle, write_only)
{
	.prot = PROT_WRITE,
	.fd_flags = O_RDWR,
	.error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_READABLE,
};

FIXTURE_VARIANT_ADD(obstacle, write_only_for_reading)
{
	.prot = PROT_WRITE,
	.fd_flags = O_RDONLY,
	.error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_READABLE,
};

FIXTURE_SETUP(obstacle)
{
	test_setup();
	self->buf = guard_start(LONG_PAGES * page_size());
	ASSERT_NE(NULL, self->buf);
}

FIXTURE_TEARDOWN(obstacle)
{
	test_teardown();
}

#define put_obstacle(page)						\
	ASSERT_EQ(0, variant->unmap ?					\
		     munmap(page, page_size()) :			\
		     mprotect(page, page_size(), variant->prot))

#define expect_obstacle(index) do {					\
	char *page = self->buf + (index) * page_size();			\
									\
	put_obstacle(page);						\
	test_err_export(variant->error, variant->reason, page,		\
			self->buf, LONG_PAGES * page_size(),		\
			variant->fd_flags);				\
} while (0)

TEST_F(obstacle, at_the_start)
{
	expect_obstacle(0);
}

TEST_F(obstacle, in_the_middle)
{
	expect_obstacle(LONG_PAGES / 2);
}

TEST_F(obstacle, at_the_end)
{
	expect_obstacle(LONG_PAGES - 1);
}

TEST_F(obstacle, first_of_two_is_reported)
{
	put_obstacle(self->buf + (LONG_PAGES - 2) * page_size());
	expect_obstacle(700);
}

TEST_F(obstacle, outside_is_no_obstacle)
{
	put_obstacle(self->buf);
	put_obstacle(self->buf + (LONG_PAGES - 1) * page_size());
	close(test_export(self->buf + page_size(),
			  (LONG_PAGES - 2) * page_size(), variant->fd_flags));
}

/* ---- EXPORT: the file descriptor ---- */

FIXTURE(file)
{
	int fd;
	struct test_state before;
	char *buf;
	size_t size;
	int dmabuf;
};

FIXTURE_VARIANT(file)
{
	unsigned int fd_flags;
};

FIXTURE_VARIANT_ADD(file, read_write)
{
	.fd_flags = O_RDWR,
};

FIXTURE_VARIANT_ADD(file, read_only)
{
	.fd_flags = O_RDONLY,
};

FIXTURE_VARIANT_ADD(file, read_write_cloexec)
{
	.fd_flags = O_RDWR | O_CLOEXEC,
};

FIXTURE_VARIANT_ADD(file, read_only_cloexec)
{
	.fd_flags = O_RDONLY | O_CLOEXEC,
};

FIXTURE_SETUP(file)
{
	test_setup();
	self->size = BUF_PAGES * page_size();
	self->buf = guard_start(self->size);
	ASSERT_NE(NULL, self->buf);
	self->dmabuf = test_export(self->buf, self->size, variant->fd_flags);
}

FIXTURE_TEARDOWN(file)
{
	close(self->dmabuf);
	test_teardown();
}

TEST_F(file, close_on_exec_is_as_asked)
{
	EXPECT_EQ(variant->fd_flags & O_CLOEXEC ? FD_CLOEXEC : 0,
		  fcntl(self->dmabuf, F_GETFD));
}

TEST_F(file, access_mode_is_as_asked)
{
	EXPECT_EQ(variant->fd_flags & O_ACCMODE,
		  (unsigned int)fcntl(self->dmabuf, F_GETFL) & O_ACCMODE);
}

TEST_F(file, lseek_tells_the_size)
{
	EXPECT_EQ((off_t)self->size, lseek(self->dmabuf, 0, SEEK_END));
	EXPECT_EQ(0, lseek(self->dmabuf, 0, SEEK_SET));
	EXPECT_EQ(-1, lseek(self->dmabuf, 1, SEEK_SET));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(file, is_one_of_this_exporter)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->dmabuf);
	ASSERT_LT(0, read_text(path, text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, "exp_name:\tvmemexp\n")) {
		TH_LOG("%s", text);
	}
}

TEST_F(file, takes_a_name)
{
	char path[64], text[1024];

	ASSERT_EQ(0, _test_ioctl(self->dmabuf, DMA_BUF_SET_NAME, "picture"));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->dmabuf);
	ASSERT_LT(0, read_text(path, text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, "name:\tpicture\n")) {
		TH_LOG("%s", text);
	}
}

TEST_F(file, takes_the_sync_of_every_dma_buf)
{
	for (uint64_t access = DMA_BUF_SYNC_READ; access <= DMA_BUF_SYNC_RW;
	     access++) {
		test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_START | access);
		test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_END | access);
	}
	EXPECT_EQ(-EINVAL, _test_dmabuf_sync(self->dmabuf, 0));
}

TEST_F(file, query_tells_what_was_asked)
{
	unsigned int access = VMEMEXP_ACCESS_READ, state = VMEMEXP_STATE_TRACKED;
	struct vmemexp_query query = test_query(self->dmabuf);

	if (variant->fd_flags & O_RDWR)
		access |= VMEMEXP_ACCESS_WRITE;
	else
		state |= VMEMEXP_STATE_NO_VMAP;
	EXPECT_EQ(sizeof(query), query.size);
	EXPECT_EQ(self->dmabuf, query.fd);
	EXPECT_EQ(0, query.flags);
	EXPECT_EQ(access, query.access);
	EXPECT_EQ(self->size, query.dmabuf_size);
	EXPECT_EQ(0, query.offset);
	EXPECT_EQ(self->size, query.length);
	EXPECT_EQ(VMEMEXP_MEMORY_ANON, query.memory);
	EXPECT_EQ(VMEMEXP_CACHE_CACHED, query.cache);
	EXPECT_EQ(0, query.attachments);
	EXPECT_EQ(0, query.mappings);
	EXPECT_EQ(0, query.vmaps);
	EXPECT_EQ(0, query.cpu_mappings);
	EXPECT_EQ(state, query.state);
}

TEST_F(file, query_and_sync_work_on_a_duplicate_in_another_process)
{
	int copy = dup(self->dmabuf);
	pid_t pid = fork_child();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct vmemexp_query cmd = query_args(copy);

		if (_test_ioctl(self->fd, VMEMEXP_IOC_QUERY, &cmd) ||
		    cmd.dmabuf_size != self->size ||
		    _test_sync(self->fd, copy, VMEMEXP_SYNC_RW, 0, self->size))
			_exit(1);
		_exit(0);
	}
	EXPECT_EQ(0, wait_for_child(pid));
	close(copy);
}

/* ---- QUERY: what changes while a buffer lives ---- */

FIXTURE(query)
{
	int fd;
	struct test_state before;
	char *buf;
	size_t size;
	int dmabuf;
};

FIXTURE_SETUP(query)
{
	test_setup();
	self->size = BUF_PAGES * page_size();
	self->buf = guard_start(self->size);
	ASSERT_NE(NULL, self->buf);
	self->dmabuf = test_export(self->buf, self->size, O_RDWR);
}

FIXTURE_TEARDOWN(query)
{
	close(self->dmabuf);
	test_teardown();
}

TEST_F(query, counts_user_mappings)
{
	void *map[2];

	for (int i = 0; i < 2; i++) {
		map[i] = mmap(NULL, self->size, PROT_READ, MAP_SHARED,
			      self->dmabuf, 0);
		ASSERT_NE(MAP_FAILED, map[i]);
		EXPECT_EQ(i + 1, test_query(self->dmabuf).cpu_mappings);
	}
	munmap(map[0], self->size);
	EXPECT_EQ(1, test_query(self->dmabuf).cpu_mappings);
	munmap(map[1], self->size);
	EXPECT_EQ(0, test_query(self->dmabuf).cpu_mappings);
}

TEST_F(query, counts_what_importers_hold)
{
	int session[2];

	skip_without_importer();
	for (int i = 0; i < 2; i++) {
		session[i] = test_importer_open();
		test_importer_attach(session[i], self->dmabuf,
				     IMPORTER_DEV_COHERENT);
	}
	EXPECT_EQ(2, test_query(self->dmabuf).attachments);
	EXPECT_EQ(0, test_query(self->dmabuf).mappings);

	test_importer_map(session[0], IMPORTER_BIDIRECTIONAL);
	EXPECT_EQ(1, test_query(self->dmabuf).mappings);
	test_importer_map(session[1], IMPORTER_TO_DEVICE);
	EXPECT_EQ(2, test_query(self->dmabuf).mappings);

	EXPECT_EQ(0, test_query(self->dmabuf).vmaps);
	test_importer_vmap(session[0]);
	EXPECT_EQ(1, test_query(self->dmabuf).vmaps);
	test_importer_vunmap(session[0]);
	EXPECT_EQ(0, test_query(self->dmabuf).vmaps);

	test_importer_unmap(session[0]);
	EXPECT_EQ(1, test_query(self->dmabuf).mappings);
	test_importer_detach(session[0]);
	EXPECT_EQ(1, test_query(self->dmabuf).attachments);
	close(session[0]);
	close(session[1]);
	EXPECT_EQ(0, test_query(self->dmabuf).attachments);
	EXPECT_EQ(0, test_query(self->dmabuf).mappings);
}

TEST_F(query, is_stale_after_unmapping_a_part)
{
	ASSERT_EQ(0, munmap(self->buf + page_size(), page_size()));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE,
		  test_query(self->dmabuf).state);
}

TEST_F(query, is_not_stale_after_unmapping_the_neighbours)
{
	ASSERT_EQ(0, munmap(self->buf - page_size(), page_size()));
	ASSERT_EQ(0, munmap(self->buf + self->size, page_size()));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query(self->dmabuf).state);
}

/* ---- REVOKE: the arguments ---- */

#define USER	65534

FIXTURE(revoke)
{
	int fd;
	struct test_state before;
	int dmabuf;
	struct vmemexp_revoke cmd;	/* a good one for @dmabuf */
};

FIXTURE_SETUP(revoke)
{
	test_setup();
	self->dmabuf = test_export(map_anon(page_size()), page_size(), O_RDWR);
	self->cmd = revoke_args(self->dmabuf);
}

FIXTURE_TEARDOWN(revoke)
{
	seteuid(0);
	close(self->dmabuf);
	test_teardown();
}

#define test_err_revoke(error, cmd) do {				\
	test_err_struct(error, VMEMEXP_IOC_REVOKE, cmd);		\
	EXPECT_EQ(0, test_query(self->dmabuf).state & VMEMEXP_STATE_REVOKED); \
} while (0)

TEST_F(revoke, errors_come_in_the_documented_order)
{
	struct vmemexp_revoke cmd = self->cmd;

	ASSERT_EQ(0, seteuid(USER));
	cmd.flags = 1;
	cmd.ino = ~0ULL;
	test_err_revoke(EINVAL, &cmd);
	cmd.flags = 0;
	test_err_revoke(EPERM, &cmd);
	ASSERT_EQ(0, seteuid(0));
	test_err_revoke(ENOENT, &cmd);
	cmd.ino = self->cmd.ino;
	EXPECT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
}

TEST_F(revoke, of_what_there_is_not_is_enoent)
{
	const uint64_t inos[] = {
		0, ~0ULL, self->cmd.ino | 1ULL << 32, self->cmd.ino | 1ULL << 63,
		self->cmd.ino + 1000000,
	};

	for (size_t i = 0; i < ARRAY_SIZE(inos); i++) {
		struct vmemexp_revoke cmd = self->cmd;

		cmd.ino = inos[i];
		test_err_revoke(ENOENT, &cmd);
	}
}

/* The closed buffer is gone, and its number is not used again soon. */
TEST_F(revoke, of_what_was_closed_is_enoent)
{
	int other = test_export(map_anon(page_size()), page_size(), O_RDWR);
	struct vmemexp_revoke cmd = revoke_args(other);

	close(other);
	test_err_revoke(ENOENT, &cmd);
}

TEST_F(revoke, of_a_file_that_is_no_dmabuf_is_enoent)
{
	struct vmemexp_revoke cmd = revoke_args(self->fd);

	ASSERT_NE(cmd.ino, self->cmd.ino);
	test_err_revoke(ENOENT, &cmd);
}

/* Neither the descriptor of the device nor that of the dma-buf is a right to it. */
TEST_F(revoke, is_eperm_for_all_but_the_administrator)
{
	struct vmemexp_revoke cmd = self->cmd;

	ASSERT_EQ(0, seteuid(USER));
	test_err_revoke(EPERM, &cmd);
	/* Nor do they learn which numbers there are. */
	cmd.ino = ~0ULL;
	test_err_revoke(EPERM, &cmd);
}

/* ---- SYNC: the arguments ---- */

FIXTURE(sync)
{
	int fd;
	struct test_state before;
	size_t size;
	int dmabuf;
};

FIXTURE_VARIANT(sync)
{
	unsigned int fd_flags;
};

FIXTURE_VARIANT_ADD(sync, read_write)
{
	.fd_flags = O_RDWR,
};

/* A read-only dma-buf can be synced like any other. */
FIXTURE_VARIANT_ADD(sync, read_only)
{
	.fd_flags = O_RDONLY,
};

FIXTURE_SETUP(sync)
{
	void *buf;

	test_setup();
	self->size = BUF_PAGES * page_size();
	buf = map_anon(self->size);
	ASSERT_NE(MAP_FAILED, buf);
	self->dmabuf = test_export(buf, self->size, variant->fd_flags);
}

FIXTURE_TEARDOWN(sync)
{
	close(self->dmabuf);
	test_teardown();
}

#define test_err_sync(error, cmd) \
	test_err_struct(error, VMEMEXP_IOC_SYNC, cmd)

TEST_F(sync, every_pair_of_access_and_phase_is_accepted)
{
	for (unsigned int flags = 0; flags < 8; flags++) {
		struct vmemexp_sync cmd = sync_args(self->dmabuf, flags, 0,
						    self->size);

		if (!(flags & VMEMEXP_SYNC_RW)) {
			test_err_sync(EINVAL, &cmd);
			continue;
		}
		EXPECT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_SYNC, &cmd));
	}
}

TEST_F(sync, observer_needs_an_access_too)
{
	struct vmemexp_sync cmd = sync_args(self->dmabuf, VMEMEXP_SYNC_OBSERVER,
					    0, self->size);

	test_err_sync(EINVAL, &cmd);
	cmd.flags |= VMEMEXP_SYNC_END;
	test_err_sync(EINVAL, &cmd);
}

TEST_F(sync, observer_is_accepted)
{
	int ret = _test_sync(self->fd, self->dmabuf,
			     VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER, 0, 1);

	if (ret == -EOPNOTSUPP)
		SKIP(return, "a module cannot maintain this machine's caches");
	for (unsigned int flags = 1; flags < 8; flags++) {
		if (!(flags & VMEMEXP_SYNC_RW))
			continue;
		EXPECT_EQ(0, _test_sync(self->fd, self->dmabuf,
					flags | VMEMEXP_SYNC_OBSERVER, 0,
					self->size));
	}
}

TEST_F(sync, range_inside_is_accepted)
{
	test_sync(self->dmabuf, VMEMEXP_SYNC_RW, 0, 1);
	test_sync(self->dmabuf, VMEMEXP_SYNC_RW, 0, self->size);
	test_sync(self->dmabuf, VMEMEXP_SYNC_RW, self->size - 1, 1);
	test_sync(self->dmabuf, VMEMEXP_SYNC_RW, page_size() - 1, 2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_RW, 1, self->size - 1);
}

TEST_F(sync, zero_length_is_einval)
{
	struct vmemexp_sync cmd = sync_args(self->dmabuf, VMEMEXP_SYNC_RW, 0,
					    0);

	test_err_sync(EINVAL, &cmd);
	cmd.offset = self->size;
	test_err_sync(EINVAL, &cmd);
}

TEST_F(sync, range_past_the_end_is_einval)
{
	const struct { uint64_t offset, length; } ranges[] = {
		{ 0, self->size + 1 },
		{ 1, self->size },
		{ self->size - 1, 2 },
		{ self->size, 1 },
		{ self->size + 1, 1 },
		{ 0, ~0ULL },
		{ ~0ULL, 1 },
		{ ~0ULL, ~0ULL },
		{ -self->size, self->size },
		{ 1, ~0ULL },
		{ self->size - 1, -(uint64_t)self->size + 2 },
		{ 1ULL << 32, 1 },
		{ 0, (1ULL << 32) + 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct vmemexp_sync cmd = sync_args(self->dmabuf,
						    VMEMEXP_SYNC_RW,
						    ranges[i].offset,
						    ranges[i].length);

		test_err_sync(EINVAL, &cmd);
		cmd.rows = 1;
		test_err_sync(EINVAL, &cmd);
		cmd.rows = 2;
		cmd.stride = cmd.length;
		test_err_sync(EINVAL, &cmd);
	}
}

TEST_F(sync, rows_inside_are_accepted)
{
	const uint64_t page = page_size(), size = self->size;
	const struct {
		uint64_t offset, length, stride;
		uint32_t rows;
	} rects[] = {
		{ 0, 1, page, BUF_PAGES },
		{ page - 1, 1, page, BUF_PAGES },
		{ 0, page, page, BUF_PAGES },
		{ 0, 1, 1, size },
		{ 0, size / 2, size / 2, 2 },
		{ 0, 1, size - 1, 2 },
		{ 100, 40, 100, 100 },
		/* The stride of a single row does not matter. */
		{ 0, size, 0, 0 },
		{ 0, size, 0, 1 },
		{ 0, size, ~0ULL, 1 },
		{ size - 1, 1, 1, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rects); i++)
		test_sync_rows(self->dmabuf, VMEMEXP_SYNC_RW, rects[i].offset,
			       rects[i].length, rects[i].stride, rects[i].rows);
}

TEST_F(sync, rows_past_the_end_are_einval)
{
	const uint64_t page = page_size(), size = self->size;
	const struct {
		uint64_t offset, length, stride;
		uint32_t rows;
	} rects[] = {
		{ 0, 1, page, BUF_PAGES + 1 },
		{ 0, page, page, BUF_PAGES + 1 },
		{ 1, page, page, BUF_PAGES },
		{ 0, 2, page + page / 2, BUF_PAGES },
		{ 0, 1, 1, size + 1 },
		{ 0, 1, size, 2 },
		{ 0, 1, ~0ULL, 2 },
		/* Where the product or the sum wraps around to something small. */
		{ 0, 1, 1ULL << 63, 3 },
		{ 0, 1, 1ULL << 62, 5 },
		{ 0, 1, 1ULL << 33, (1U << 31) + 1 },
		{ 2, 1, ~0ULL, 2 },
		{ page, page, -page, 2 },
		{ 0, 1, 1, ~0U },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rects); i++) {
		struct vmemexp_sync cmd = sync_args(self->dmabuf,
						    VMEMEXP_SYNC_RW,
						    rects[i].offset,
						    rects[i].length);

		cmd.stride = rects[i].stride;
		cmd.rows = rects[i].rows;
		test_err_sync(EINVAL, &cmd);
	}
}

TEST_F(sync, stride_below_length_is_einval)
{
	struct vmemexp_sync cmd = sync_args(self->dmabuf, VMEMEXP_SYNC_RW, 0,
					    100);

	cmd.rows = 2;
	cmd.stride = 99;
	test_err_sync(EINVAL, &cmd);
	cmd.stride = 0;
	test_err_sync(EINVAL, &cmd);
	cmd.rows = ~0U;
	test_err_sync(EINVAL, &cmd);
}

TEST_F(sync, errors_come_in_the_documented_order)
{
	struct vmemexp_sync cmd = sync_args(-1, 0, self->size, 0);

	cmd.rows = 2;
	test_err_sync(EINVAL, &cmd);
	cmd.flags = VMEMEXP_SYNC_READ;
	test_err_sync(EINVAL, &cmd);
	cmd.length = 1;
	test_err_sync(EINVAL, &cmd);
	cmd.stride = 1;
	test_err_sync(EBADF, &cmd);
	cmd.fd = self->fd;
	test_err_sync(EINVAL, &cmd);
	cmd.fd = self->dmabuf;
	test_err_sync(EINVAL, &cmd);
	cmd.offset = 0;
	EXPECT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_SYNC, &cmd));
}

/* ---- SYNC and QUERY: file descriptors that are not ours ---- */

/* A dma-buf of some other exporter, or -1 if the kernel has none. */
static int open_foreign_dmabuf(void)
{
	int fd = make_udmabuf(page_size());

	if (fd < 0)
		fd = make_heap_dmabuf(page_size());
	return fd < 0 ? make_vgem_dmabuf(page_size()) : fd;
}

static int open_closed(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	close(fd);
	return fd;
}

static int open_minus_one(void)
{
	return -1;
}

static int open_largest(void)
{
	return 0x7fffffff;
}

static int open_path_only(void)
{
	return open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static int open_file(void)
{
	return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
}

static int open_directory(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_pipe(void)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	close(ends[1]);
	return ends[0];
}

static int open_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int open_memfd(void)
{
	return memfd_create("not a dma-buf", MFD_CLOEXEC);
}

static int open_device(void)
{
	return open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
}

FIXTURE(other_fd)
{
	int fd;
	struct test_state before;
	int other;
};

FIXTURE_VARIANT(other_fd)
{
	int (*open)(void);
	int error;
	const char *missing;
};

FIXTURE_VARIANT_ADD(other_fd, closed)
{
	.open = open_closed,
	.error = EBADF,
};

FIXTURE_VARIANT_ADD(other_fd, minus_one)
{
	.open = open_minus_one,
	.error = EBADF,
};

FIXTURE_VARIANT_ADD(other_fd, largest)
{
	.open = open_largest,
	.error = EBADF,
};

FIXTURE_VARIANT_ADD(other_fd, path_only)
{
	.open = open_path_only,
	.error = EBADF,
};

FIXTURE_VARIANT_ADD(other_fd, file)
{
	.open = open_file,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, directory)
{
	.open = open_directory,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, pipe)
{
	.open = open_pipe,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, eventfd)
{
	.open = open_eventfd,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, socket)
{
	.open = open_socket,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, memfd)
{
	.open = open_memfd,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, device)
{
	.open = open_device,
	.error = EINVAL,
};

FIXTURE_VARIANT_ADD(other_fd, foreign_dmabuf)
{
	.open = open_foreign_dmabuf,
	.error = EINVAL,
	.missing = "the kernel has no udmabuf, dma-heap or vgem",
};

FIXTURE_SETUP(other_fd)
{
	test_setup();
	self->other = variant->open();
	if (variant->missing && self->other < 0)
		SKIP(return, "%s", variant->missing);
	if (variant->error == EINVAL)
		ASSERT_LE(0, self->other);
}

FIXTURE_TEARDOWN(other_fd)
{
	close(self->other);
	test_teardown();
}

TEST_F(other_fd, cannot_be_synced)
{
	struct vmemexp_sync cmd = sync_args(self->other, VMEMEXP_SYNC_RW, 0, 1);

	test_err_sync(variant->error, &cmd);
}

TEST_F(other_fd, cannot_be_queried)
{
	struct vmemexp_query cmd = query_args(self->other);

	test_err_struct(variant->error, VMEMEXP_IOC_QUERY, &cmd);
	/* Flags come first. */
	cmd.flags = 1;
	test_err_struct(EINVAL, VMEMEXP_IOC_QUERY, &cmd);
}

TEST_F(other_fd, cannot_be_revoked)
{
	struct vmemexp_revoke cmd = revoke_args(self->other);

	test_err_struct(ENOENT, VMEMEXP_IOC_REVOKE, &cmd);
}

TEST_HARNESS_MAIN

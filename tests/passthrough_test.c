// SPDX-License-Identifier: GPL-2.0
/*
 * Ranges that are a dma-buf's mapping already: the export gives back the very same dma-buf, and
 * says where in it the range lies. partial_test has ranges and lists that consist of several parts.
 */
#include <sys/resource.h>

#include "lib/vmemexp_utils.h"

#define USER		65534

#define RW		(PROT_READ | PROT_WRITE)

#define PAGE		page_size()
#define PAGES		16
#define SIZE		(PAGES * PAGE)
#define HALF		(SIZE / 2)

FIXTURE(passthrough)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *addr;	/* SIZE bytes, with contents 1 */
};

FIXTURE_VARIANT(passthrough)
{
	int (*make)(size_t size);
	const char *exporter;
	bool own;
};

static int make_own_dmabuf(size_t size)
{
	struct vmemexp_export cmd = export_args(map_anon(size), size,
						O_RDWR | O_CLOEXEC);
	int device = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	int ret = _test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd);

	close(device);
	return ret ? -1 : cmd.fd;
}

FIXTURE_VARIANT_ADD(passthrough, own) {
	.make = make_own_dmabuf, .exporter = "vmemexp", .own = true,
};

FIXTURE_VARIANT_ADD(passthrough, udmabuf) {
	.make = make_udmabuf, .exporter = "/dev/udmabuf",
};

FIXTURE_VARIANT_ADD(passthrough, dma_heap) {
	.make = make_heap_dmabuf, .exporter = "/dev/dma_heap/system",
};

FIXTURE_SETUP(passthrough)
{
	int probe = variant->make(SIZE);

	if (probe < 0)
		SKIP(return, "this kernel has no %s", variant->exporter);
	close(probe);
	test_setup();
	self->dmabuf = variant->make(SIZE);
	ASSERT_LE(0, self->dmabuf);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);
	fill(self->addr, SIZE, 1);
}

FIXTURE_TEARDOWN(passthrough)
{
	munmap(self->addr, SIZE);
	close(self->dmabuf);
	test_teardown();
}

/* Export @cmd, which must give the dma-buf @original back. */
static int __pass_through(struct __test_metadata *_metadata, int fd,
			  int original, bool own, struct vmemexp_export *cmd)
{
	ASSERT_EQ(0, _test_ioctl(fd, VMEMEXP_IOC_EXPORT, cmd)) {
		TH_LOG("reason %u, address %#llx", cmd->err_reason,
		       (unsigned long long)cmd->err_addr);
	}
	EXPECT_TRUE(is_same_file(original, cmd->fd));
	EXPECT_NE(original, cmd->fd);
	EXPECT_EQ(SIZE, cmd->dmabuf_size);
	EXPECT_EQ(VMEMEXP_MEMORY_DMABUF, cmd->memory & VMEMEXP_MEMORY_DMABUF);
	EXPECT_EQ(own, cmd->nr_extents != 0);
	EXPECT_EQ(VMEMEXP_REASON_NONE, cmd->err_reason);
	EXPECT_EQ(0, cmd->err_addr);
	return cmd->fd;
}

#define pass_through(cmd) \
	__pass_through(_metadata, self->fd, self->dmabuf, variant->own, cmd)

TEST_F(passthrough, gives_back_the_very_same_dmabuf)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	unsigned char *view;
	int again = pass_through(&cmd);

	EXPECT_EQ(0, cmd.offset);
	/* It is as good as the one that the program had. */
	ASSERT_EQ(0, munmap(self->addr, SIZE));
	ASSERT_EQ(0, close(self->dmabuf));
	self->dmabuf = -1;
	view = test_mmap(NULL, SIZE, MAP_SHARED, again, 0);
	EXPECT_EQ(-1, first_difference(view, SIZE, 1));
	munmap(view, SIZE);
	close(again);
}

TEST_F(passthrough, says_where_the_range_lies)
{
	struct vmemexp_export cmd = export_args(self->addr + 3 * PAGE,
						2 * PAGE, O_RDWR);
	int again = pass_through(&cmd);
	unsigned char *view;

	EXPECT_EQ(3 * PAGE, cmd.offset);
	view = test_mmap(NULL, 2 * PAGE, MAP_SHARED, again, cmd.offset);
	view[PAGE]++;
	EXPECT_EQ(view[PAGE], self->addr[4 * PAGE]);
	munmap(view, 2 * PAGE);
	close(again);
}

TEST_F(passthrough, counts_from_the_begin_of_the_dmabuf)
{
	const size_t skipped = 5 * PAGE;
	unsigned char *part = test_mmap(NULL, SIZE - skipped, MAP_SHARED,
				       self->dmabuf, skipped);
	struct vmemexp_export cmd = export_args(part + 2 * PAGE, PAGE, O_RDWR);
	int again = pass_through(&cmd);
	unsigned char *view = test_mmap(NULL, SIZE, MAP_SHARED, again, 0);

	EXPECT_EQ(skipped + 2 * PAGE, cmd.offset);
	part[2 * PAGE]++;
	EXPECT_EQ(part[2 * PAGE], view[cmd.offset]);
	munmap(view, SIZE);
	munmap(part, SIZE - skipped);
	close(again);
}

TEST_F(passthrough, opens_the_file_descriptor_as_asked)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	int plain = pass_through(&cmd), closing;

	cmd = export_args(self->addr, SIZE, O_RDWR | O_CLOEXEC);
	closing = pass_through(&cmd);
	EXPECT_EQ(0, fcntl(plain, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(closing, F_GETFD));
	close(plain);
	close(closing);
}

/* The file is what it is: it cannot be opened anew with less. */
TEST_F(passthrough, does_not_turn_a_writable_file_into_a_read_only_one)
{
	test_err_export(EACCES, VMEMEXP_REASON_ACCESS, self->addr, self->addr,
			SIZE, O_RDONLY);
	ASSERT_EQ(0, mprotect(self->addr, SIZE, PROT_READ));
	test_err_export(EACCES, VMEMEXP_REASON_ACCESS, self->addr, self->addr,
			SIZE, O_RDONLY);
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SIZE, O_RDWR);
}

TEST_F(passthrough, honours_unaligned)
{
	struct vmemexp_export cmd = export_args(self->addr + PAGE + 100, 50,
						O_RDWR);

	test_err_export_cmd(EINVAL, VMEMEXP_REASON_ALIGNMENT, cmd.vaddr, &cmd);
	cmd = export_args(self->addr + PAGE + 100, 50, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	close(pass_through(&cmd));
	EXPECT_EQ(PAGE + 100, cmd.offset);
}

/* For the buffer of another driver, that is not known. */
TEST_F(passthrough, is_contiguous_only_if_that_is_known)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);

	bool contiguous;

	close(pass_through(&cmd));
	contiguous = cmd.nr_extents == 1;
	cmd = export_args(self->addr, SIZE, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	if (contiguous) {
		close(pass_through(&cmd));
		return;
	}
	if (!variant->own) {
		test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
				    cmd.vaddr, &cmd);
		return;
	}
	EXPECT_EQ(-ERANGE, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
	EXPECT_EQ(VMEMEXP_REASON_NOT_CONTIGUOUS, cmd.err_reason);
}

TEST_F(passthrough, leaves_the_dmabuf_of_another_driver_alone)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	int expected = variant->own ? 0 : -EINVAL;
	int again = pass_through(&cmd);
	struct vmemexp_query query = query_args(again);

	EXPECT_EQ(expected, _test_ioctl(self->fd, VMEMEXP_IOC_QUERY, &query));
	EXPECT_EQ(expected, _test_sync(self->fd, again, VMEMEXP_SYNC_RW, 0,
				       PAGE));
	close(again);
}

TEST_F(passthrough, of_a_kind_that_is_not_allowed_is_refused)
{
	char allow[128];

	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, allow, sizeof(allow)));
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW,
				"anon,shmem,hugetlb,file,driver,pfnmap"));
	test_err_export(EPERM, VMEMEXP_REASON_KIND, self->addr, self->addr,
			SIZE, O_RDWR);
	EXPECT_EQ(0, write_text(VMEMEXP_ALLOW, allow));
}

TEST_F(passthrough, pins_nothing_and_needs_no_privilege)
{
	struct rlimit nothing = { .rlim_max = RLIM_INFINITY };
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDWR);
	long accounted = accounted_pages(), pins = pinned_pages();
	int again;

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &nothing));
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	again = pass_through(&cmd);
	EXPECT_EQ(accounted, accounted_pages());
	EXPECT_EQ(pins, get_state().pins);
	close(again);
	ASSERT_EQ(0, setresuid(0, 0, 0));
}

TEST_F(passthrough, may_be_mapped_in_parts_that_follow_one_another)
{
	unsigned char *parts = map_anon(SIZE);
	struct vmemexp_export cmd = export_args(parts + HALF - PAGE, 2 * PAGE,
						O_RDWR);

	test_mmap(parts, HALF, MAP_SHARED, self->dmabuf, 0);
	test_mmap(parts + HALF, HALF, MAP_SHARED, self->dmabuf, HALF);
	close(pass_through(&cmd));
	EXPECT_EQ(HALF - PAGE, cmd.offset);
	/* The same part once more. */
	test_mmap(parts + HALF, HALF, MAP_SHARED, self->dmabuf, 0);
	test_err_export(EINVAL, VMEMEXP_REASON_MIXED, parts + HALF, parts, SIZE,
			O_RDWR);
	munmap(parts, SIZE);
}

TEST_F(passthrough, ends_where_its_mapping_ends)
{
	ASSERT_EQ(0, munmap(self->addr + HALF, HALF));
	test_err_export(EFAULT, VMEMEXP_REASON_NOT_MAPPED, self->addr + HALF,
			self->addr, SIZE, O_RDWR);
}

FIXTURE(read_only_dmabuf)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *addr;
};

FIXTURE_SETUP(read_only_dmabuf)
{
	test_setup();
	self->dmabuf = test_export(map_anon(SIZE), SIZE, O_RDONLY);
	self->addr = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->dmabuf, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->addr);
}

FIXTURE_TEARDOWN(read_only_dmabuf)
{
	munmap(self->addr, SIZE);
	close(self->dmabuf);
	test_teardown();
}

TEST_F(read_only_dmabuf, is_passed_through_for_reading_only)
{
	struct vmemexp_export cmd = export_args(self->addr, SIZE, O_RDONLY);

	__pass_through(_metadata, self->fd, self->dmabuf, true, &cmd);
	EXPECT_EQ(O_RDONLY, fcntl(cmd.fd, F_GETFL) & O_ACCMODE);
	close(cmd.fd);
	test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, self->addr,
			self->addr, SIZE, O_RDWR);
}

FIXTURE(hidden_dmabuf)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *addr;
};

FIXTURE_SETUP(hidden_dmabuf)
{
	int probe;

	system("modprobe -q vgem");
	probe = make_vgem_dmabuf(SIZE);
	if (probe < 0)
		SKIP(return, "the kernel has no vgem");
	close(probe);
	test_setup();
	self->dmabuf = make_vgem_dmabuf(SIZE);
	ASSERT_LE(0, self->dmabuf);
	self->addr = test_mmap(NULL, SIZE, MAP_SHARED, self->dmabuf, 0);
}

FIXTURE_TEARDOWN(hidden_dmabuf)
{
	munmap(self->addr, SIZE);
	close(self->dmabuf);
	test_teardown();
}

/*
 * Drivers of the DRM may hide an offset of their own in that of the mapping, so the offset in the
 * dma-buf is unknown. The rules for page frames apply.
 */
TEST_F(hidden_dmabuf, does_not_show_which_part_is_mapped_and_is_refused)
{
	/* 45d9c8dde4cd (v5.16) made page frames of it; before, it was a file of shmem. */
	if (!kernel_at_least(5, 16)) {
		close(test_export(self->addr, SIZE, O_RDWR));
		return;
	}
	test_err_export(EPERM, VMEMEXP_REASON_RAM, self->addr, self->addr,
			SIZE, O_RDWR);
	test_err_export(EPERM, VMEMEXP_REASON_RAM, self->addr, self->addr,
			SIZE, O_RDONLY);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the test importer: what it reports must be what happened. They use
 * exporters that come with the kernel, not vmemexp: a dma-heap, which syncs as
 * an exporter should, and udmabuf, which asks the DMA API to leave its syncs
 * out, so that it must look wrong to a device that needs them.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>

#include "kselftest_harness.h"
#include "modules/importer/vmemexp_importer.h"

/* The same on every architecture. */
static_assert(sizeof(struct importer_attach) == 16, "importer_attach");
static_assert(sizeof(struct importer_direction) == 8, "importer_direction");
static_assert(sizeof(struct importer_transfer) == 24, "importer_transfer");
static_assert(sizeof(struct importer_info) == 144, "importer_info");
static_assert(sizeof(struct importer_edit) == 24, "importer_edit");

/*
 * A heap makes this of extents of 64 KiB and of 4 KiB: several segments, none too
 * large for swiotlb.
 */
#define SIZE		(11 * 0x10000 + 3 * 0x1000)

#define HEAP_PATH	"/dev/dma_heap/system"
#define UDMABUF_PATH	"/dev/udmabuf"

/* All but MASK28, which swiotlb can help on few machines. */
static const __u32 devices[] = {
	IMPORTER_DEV_COHERENT, IMPORTER_DEV_MASK32, IMPORTER_DEV_SEGMENT64K,
	IMPORTER_DEV_NONCOHERENT, IMPORTER_DEV_SHADOW, IMPORTER_DEV_MERGED,
};

/* Return true if the device works on a copy, wherever the memory is. */
static bool is_shadow(__u32 device)
{
	return device == IMPORTER_DEV_SHADOW || device == IMPORTER_DEV_MERGED;
}

static bool has_dma_api_debug(void)
{
	return !access("/sys/kernel/debug/dma-api", F_OK);
}

/*
 * Return true if the device may attach. Only CONFIG_DMA_API_DEBUG objects to a segment that is
 * longer than the device asked for.
 */
static bool is_fit(__u32 device, bool exporter_limits)
{
	return exporter_limits || device != IMPORTER_DEV_SEGMENT64K || !has_dma_api_debug();
}

/* All of them, or the segments alone: CONFIG_DMABUF_DEBUG of newer kernels. */
static bool shows_entries(const struct importer_info *in, unsigned int entries)
{
	return in->orig_nents == entries ||
	       (has_dma_api_debug() && in->orig_nents == in->nents);
}

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* --- steps; each returns 0 or the errno --- */

static int step(int session, unsigned long cmd, void *arg)
{
	return ioctl(session, cmd, arg) ? errno : 0;
}

static int attach_flags(int session, int dmabuf, __u32 device, __u32 flags)
{
	struct importer_attach arg = {
		.dmabuf_fd = dmabuf,
		.device = device,
		.flags = flags,
	};

	return step(session, IMPORTER_IOC_ATTACH, &arg);
}

static int attach(int session, int dmabuf, __u32 device)
{
	return attach_flags(session, dmabuf, device, 0);
}

static int directed(int session, unsigned long cmd, __u32 direction)
{
	struct importer_direction arg = { .direction = direction };

	return step(session, cmd, &arg);
}

static int map(int session, __u32 direction)
{
	return directed(session, IMPORTER_IOC_MAP, direction);
}

static int transfer(int session, unsigned long cmd, __u64 offset,
		    __u64 length, const void *buf)
{
	struct importer_transfer arg = {
		.offset = offset,
		.length = length,
		.user_ptr = (uintptr_t)buf,
	};

	return step(session, cmd, &arg);
}

static struct importer_info info(int session)
{
	struct importer_info arg;

	memset(&arg, 0xcc, sizeof(arg));
	if (step(session, IMPORTER_IOC_INFO, &arg))
		memset(&arg, 0xcc, sizeof(arg));
	return arg;
}

static int sync_cpu(int dmabuf, __u64 flags)
{
	struct dma_buf_sync arg = { .flags = flags };

	return step(dmabuf, DMA_BUF_IOCTL_SYNC, &arg);
}

/* --- data --- */

/* Two patterns with different seeds differ in every byte. */
static void fill(unsigned char *buf, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		buf[i] = i + (i >> 8) + (i >> 16) + seed;
}

static unsigned char *pattern(unsigned int seed)
{
	unsigned char *buf = malloc(SIZE);

	if (buf)
		fill(buf, SIZE, seed);
	return buf;
}

static bool all_bytes_are(const unsigned char *buf, size_t size, int byte)
{
	for (size_t i = 0; i < size; i++)
		if (buf[i] != byte)
			return false;
	return true;
}

/* Was the kernel told to bounce every mapping ("swiotlb=[slots,]force")? */
static bool swiotlb_forced(void)
{
	int fd = open("/proc/cmdline", O_RDONLY);
	char line[4096] = "";
	char option[256];
	char *word;

	if (fd < 0)
		return false;
	if (read(fd, line, sizeof(line) - 1) < 0)
		line[0] = '\0';
	close(fd);
	word = strstr(line, "swiotlb=");
	return word && sscanf(word, "%255s", option) == 1 &&
	       strstr(option, "force");
}

/*
 * Does the device see a copy of the memory? CONFIG_DMABUF_DEBUG hides the pages
 * from importers, so that only the command line can tell.
 */
static bool sees_a_copy(int session)
{
	struct importer_info in = info(session);

	if (in.flags & IMPORTER_INFO_BOUNCED)
		return in.nr_bounced;
	return swiotlb_forced();
}

static int count_devices(void)
{
	DIR *dir = opendir("/sys/bus/platform/devices");
	struct dirent *entry;
	int n = 0;

	if (!dir)
		return -1;
	while ((entry = readdir(dir)))
		n += !strncmp(entry->d_name, "vmemexp-importer.", 17);
	closedir(dir);
	return n;
}

/* --- without a dma-buf --- */

FIXTURE(session)
{
	int fd;
};

FIXTURE_SETUP(session)
{
	self->fd = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd)
		TH_LOG("%s: %s (vmemexp_importer.ko loaded?)", IMPORTER_PATH,
		       strerror(errno));
}

FIXTURE_TEARDOWN(session)
{
	close(self->fd);
}

TEST_F(session, holds_nothing_at_first)
{
	struct importer_info zero = {};
	struct importer_info now = info(self->fd);

	EXPECT_EQ(0, memcmp(&now, &zero, sizeof(now)));
	EXPECT_EQ(0, count_devices());
}

TEST_F(session, unknown_ioctl_is_enotty)
{
	EXPECT_EQ(ENOTTY, step(self->fd, _IO(IMPORTER_MAGIC, 0x7f), NULL));
	EXPECT_EQ(ENOTTY, step(self->fd, _IO(IMPORTER_MAGIC, 0x00), NULL));
}

TEST_F(session, bad_pointer_is_efault)
{
	static const unsigned long cmds[] = {
		IMPORTER_IOC_ATTACH, IMPORTER_IOC_MAP, IMPORTER_IOC_READ,
		IMPORTER_IOC_WRITE, IMPORTER_IOC_VREAD, IMPORTER_IOC_VWRITE,
		IMPORTER_IOC_BEGIN_CPU, IMPORTER_IOC_END_CPU, IMPORTER_IOC_INFO,
		IMPORTER_IOC_EDIT,
	};

	for (size_t i = 0; i < ARRAY_LEN(cmds); i++)
		EXPECT_EQ(EFAULT, step(self->fd, cmds[i], NULL));
}

TEST_F(session, bad_attach_is_refused)
{
	int null = open("/dev/null", O_RDWR);
	struct importer_attach arg = { .dmabuf_fd = null, .reserved = 1 };

	ASSERT_LE(0, null);
	EXPECT_EQ(EINVAL, step(self->fd, IMPORTER_IOC_ATTACH, &arg));
	EXPECT_EQ(EINVAL, attach(self->fd, null, IMPORTER_NR_DEVS));
	EXPECT_EQ(EINVAL, attach(self->fd, null, ~0u));
	EXPECT_EQ(EINVAL, attach_flags(self->fd, null, 0, IMPORTER_ATTACH_LETS_GO));
	EXPECT_EQ(EINVAL, attach_flags(self->fd, null, 0, 0x4));
	EXPECT_EQ(EINVAL, attach_flags(self->fd, null, 0, 0x80000000));
	EXPECT_EQ(EINVAL, attach(self->fd, null, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(0, close(null));
	EXPECT_EQ(EBADF, attach(self->fd, null, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(EBADF, attach(self->fd, -1, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(0, info(self->fd).held);
	EXPECT_EQ(0, count_devices());
}

TEST_F(session, steps_without_attachment_are_enxio)
{
	struct importer_edit edit = { .nents = 1 };
	char byte;

	EXPECT_EQ(ENXIO, step(self->fd, IMPORTER_IOC_DETACH, NULL));
	EXPECT_EQ(ENXIO, map(self->fd, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(ENXIO, step(self->fd, IMPORTER_IOC_UNMAP, NULL));
	EXPECT_EQ(ENXIO, step(self->fd, IMPORTER_IOC_VMAP, NULL));
	EXPECT_EQ(ENXIO, step(self->fd, IMPORTER_IOC_VUNMAP, NULL));
	EXPECT_EQ(ENXIO, transfer(self->fd, IMPORTER_IOC_READ, 0, 1, &byte));
	EXPECT_EQ(ENXIO, transfer(self->fd, IMPORTER_IOC_WRITE, 0, 1, &byte));
	EXPECT_EQ(ENXIO, transfer(self->fd, IMPORTER_IOC_VREAD, 0, 1, &byte));
	EXPECT_EQ(ENXIO, transfer(self->fd, IMPORTER_IOC_VWRITE, 0, 1, &byte));
	EXPECT_EQ(ENXIO, directed(self->fd, IMPORTER_IOC_BEGIN_CPU, 0));
	EXPECT_EQ(ENXIO, directed(self->fd, IMPORTER_IOC_END_CPU, 0));
	EXPECT_EQ(ENXIO, step(self->fd, IMPORTER_IOC_EDIT, &edit));
	EXPECT_TRUE(mmap(NULL, 4096, PROT_READ, MAP_SHARED, self->fd, 0) ==
		    MAP_FAILED);
	EXPECT_EQ(ENXIO, errno);
}

/* --- with the dma-bufs of the kernel's own exporters --- */

/* Returns a dma-buf of SIZE bytes, or -1 if the kernel lacks the exporter. */
static int export_heap(void)
{
	struct dma_heap_allocation_data arg = {
		.len = SIZE,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};
	int heap = open(HEAP_PATH, O_RDWR | O_CLOEXEC);

	if (heap < 0)
		return -1;
	if (ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &arg))
		arg.fd = -1;
	close(heap);
	return arg.fd;
}

static int export_udmabuf(void)
{
	struct udmabuf_create arg = {
		.flags = UDMABUF_FLAGS_CLOEXEC,
		.size = SIZE,
	};
	int dev = open(UDMABUF_PATH, O_RDWR | O_CLOEXEC);
	int dmabuf = -1;
	int memfd;

	if (dev < 0)
		return -1;
	memfd = memfd_create("importer_test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	arg.memfd = memfd;
	if (memfd >= 0 && !ftruncate(memfd, SIZE) &&
	    !fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		dmabuf = ioctl(dev, UDMABUF_CREATE, &arg);
	close(memfd);
	close(dev);
	return dmabuf;
}

FIXTURE(importer)
{
	int dmabuf;
	int session;
	unsigned char *mem;	/* the exporter's mapping of the dma-buf */
	unsigned char *buf;	/* scratch, of the same size */
};

FIXTURE_VARIANT(importer)
{
	const char *path;
	int (*export)(void);
	bool syncs;	/* when it maps and unmaps */
	bool limits;	/* extents to 64 KiB, if only since SIZE is so small */
};

FIXTURE_VARIANT_ADD(importer, heap)
{
	.path = HEAP_PATH,
	.export = export_heap,
	.syncs = true,
	.limits = true,
};

FIXTURE_VARIANT_ADD(importer, udmabuf)
{
	.path = UDMABUF_PATH,
	.export = export_udmabuf,
	.syncs = false,
	.limits = false,
};

FIXTURE_SETUP(importer)
{
	self->dmabuf = -1;
	self->session = -1;
	self->mem = MAP_FAILED;
	self->buf = NULL;
	if (access(variant->path, F_OK))
		SKIP(return, "this kernel has no %s", variant->path);

	self->dmabuf = variant->export();
	ASSERT_LE(0, self->dmabuf)
		TH_LOG("%s: %s", variant->path, strerror(errno));
	self->session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->session);
	self->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 self->dmabuf, 0);
	ASSERT_TRUE(self->mem != MAP_FAILED);
	self->buf = calloc(1, SIZE);
	ASSERT_TRUE(!!self->buf);
	memset(self->mem, 0, SIZE);
}

FIXTURE_TEARDOWN(importer)
{
	free(self->buf);
	if (self->mem != MAP_FAILED)
		munmap(self->mem, SIZE);
	if (self->session >= 0)
		close(self->session);
	if (self->dmabuf >= 0)
		close(self->dmabuf);
}

TEST_F(importer, wrong_order_changes_nothing)
{
	int s = self->session;

	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(EBUSY, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(1, count_devices());
	EXPECT_EQ(IMPORTER_HELD_ATTACH, info(s).held);
	EXPECT_EQ(ENXIO, step(s, IMPORTER_IOC_UNMAP, NULL));
	EXPECT_EQ(ENXIO, step(s, IMPORTER_IOC_VUNMAP, NULL));
	EXPECT_EQ(ENXIO, transfer(s, IMPORTER_IOC_READ, 0, 1, self->buf));
	EXPECT_EQ(ENXIO, transfer(s, IMPORTER_IOC_VREAD, 0, 1, self->buf));

	ASSERT_EQ(0, map(s, IMPORTER_TO_DEVICE));
	EXPECT_EQ(EBUSY, map(s, IMPORTER_TO_DEVICE));
	EXPECT_EQ(EBUSY, step(s, IMPORTER_IOC_DETACH, NULL));
	EXPECT_EQ(EBUSY, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(IMPORTER_HELD_ATTACH | IMPORTER_HELD_MAP, info(s).held);
	EXPECT_EQ(IMPORTER_TO_DEVICE, info(s).direction);

	ASSERT_EQ(0, step(s, IMPORTER_IOC_VMAP, NULL));
	EXPECT_EQ(EBUSY, step(s, IMPORTER_IOC_VMAP, NULL));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
	EXPECT_EQ(IMPORTER_HELD_ATTACH | IMPORTER_HELD_VMAP, info(s).held);
	EXPECT_EQ(EBUSY, step(s, IMPORTER_IOC_DETACH, NULL));

	ASSERT_EQ(0, step(s, IMPORTER_IOC_VUNMAP, NULL));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	EXPECT_EQ(0, info(s).held);
	EXPECT_EQ(0, count_devices());
	EXPECT_EQ(ENXIO, step(s, IMPORTER_IOC_DETACH, NULL));

	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_SHADOW));
}

TEST_F(importer, bad_direction_is_einval)
{
	struct importer_direction arg = { .reserved = 1 };
	int s = self->session;

	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(EINVAL, map(s, IMPORTER_FROM_DEVICE + 1));
	EXPECT_EQ(EINVAL, map(s, ~0u));
	EXPECT_EQ(EINVAL, step(s, IMPORTER_IOC_MAP, &arg));
	EXPECT_EQ(EINVAL, directed(s, IMPORTER_IOC_BEGIN_CPU, 3));
	EXPECT_EQ(EINVAL, directed(s, IMPORTER_IOC_END_CPU, 3));
	EXPECT_EQ(IMPORTER_HELD_ATTACH, info(s).held);
}

TEST_F(importer, info_describes_the_mapping)
{
	for (size_t i = 0; i < ARRAY_LEN(devices); i++) {
		bool merged = devices[i] == IMPORTER_DEV_MERGED;
		bool shadow = is_shadow(devices[i]);
		bool all_bounced = shadow || swiotlb_forced();
		int s = self->session;
		struct importer_info in;
		unsigned int entries;

		if (!is_fit(devices[i], variant->limits))
			continue;
		ASSERT_EQ(0, attach(s, self->dmabuf, devices[i]));
		in = info(s);
		EXPECT_EQ(devices[i], in.device);
		EXPECT_EQ(SIZE, in.size);
		EXPECT_EQ(0, in.nents);
		EXPECT_EQ(0, in.dma_size);
		EXPECT_EQ(devices[i] == IMPORTER_DEV_SEGMENT64K ?
			  0x10000 : UINT32_MAX, in.max_segment_size);

		ASSERT_EQ(0, map(s, IMPORTER_BIDIRECTIONAL));
		in = info(s);
		EXPECT_EQ(SIZE, in.dma_size);
		entries = shadow ? in.nr_mapped : in.orig_nents;
		EXPECT_LT(1, entries);
		EXPECT_EQ(merged ? 1 : entries, in.nents);
		EXPECT_TRUE(shows_entries(&in, entries));
		EXPECT_LE(in.min_segment, in.max_segment);
		EXPECT_LE(4096, in.min_segment);
		EXPECT_LE(in.min_segment, in.dma_contiguous);
		EXPECT_GE(SIZE, in.dma_contiguous);
		EXPECT_LE(13, in.address_bits);
		EXPECT_GE(devices[i] == IMPORTER_DEV_MASK32 ? 32 : 64,
			  in.address_bits);
		EXPECT_EQ(0, in.flags & ~IMPORTER_INFO_BOUNCED);
		if (in.flags && (devices[i] != IMPORTER_DEV_MASK32 ||
				 all_bounced))
			EXPECT_EQ(all_bounced ? in.nents : 0, in.nr_bounced);
		EXPECT_EQ(shadow ? entries : 0, in.nr_mapped);

		ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
		EXPECT_EQ(0, info(s).nents);
		EXPECT_EQ(0, info(s).nr_errors);
		ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	}
}

TEST_F(importer, device_reads_what_the_cpu_wrote)
{
	static const __u32 directions[] = {
		IMPORTER_BIDIRECTIONAL, IMPORTER_TO_DEVICE,
	};
	int s = self->session;
	bool poison;

	for (size_t i = 0; i < ARRAY_LEN(devices); i++) {
		if (!is_fit(devices[i], variant->limits))
			continue;
		for (size_t d = 0; d < ARRAY_LEN(directions); d++) {
			fill(self->mem, SIZE, 3 * i + d);
			memset(self->buf, 0, SIZE);
			ASSERT_EQ(0, attach(s, self->dmabuf, devices[i]));
			ASSERT_EQ(0, map(s, directions[d]));
			EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, 0, SIZE,
					      self->buf));
			ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
			ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));

			/* swiotlb copies in even if told not to. */
			poison = is_shadow(devices[i]) && !variant->syncs;
			EXPECT_TRUE(poison ?
				    all_bytes_are(self->buf, SIZE,
						  IMPORTER_SHADOW_POISON) :
				    !memcmp(self->buf, self->mem, SIZE));
		}
	}
}

TEST_F(importer, cpu_reads_what_the_device_wrote)
{
	static const __u32 directions[] = {
		IMPORTER_BIDIRECTIONAL, IMPORTER_FROM_DEVICE,
	};
	int s = self->session;
	bool lost, may_be_lost;

	for (size_t i = 0; i < ARRAY_LEN(devices); i++) {
		if (!is_fit(devices[i], variant->limits))
			continue;
		for (size_t d = 0; d < ARRAY_LEN(directions); d++) {
			fill(self->buf, SIZE, 3 * i + d);
			memset(self->mem, 0, SIZE);
			ASSERT_EQ(0, attach(s, self->dmabuf, devices[i]));
			ASSERT_EQ(0, map(s, directions[d]));
			lost = sees_a_copy(s) && !variant->syncs;
			/* If bouncing is not known, it depends on where the memory is. */
			may_be_lost = !variant->syncs &&
				      devices[i] == IMPORTER_DEV_MASK32 &&
				      !(info(s).flags & IMPORTER_INFO_BOUNCED);
			EXPECT_EQ(0, transfer(s, IMPORTER_IOC_WRITE, 0, SIZE,
					      self->buf));
			ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
			ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));

			if (may_be_lost)
				lost = all_bytes_are(self->mem, SIZE, 0);
			EXPECT_TRUE(lost ? all_bytes_are(self->mem, SIZE, 0) :
				    !memcmp(self->buf, self->mem, SIZE));
		}
	}
}

/* Any piece of the buffer, across pages and segments, and nothing beside it. */
TEST_F(importer, transfers_hit_exactly_their_range)
{
	static const struct { size_t offset, length; } pieces[] = {
		{ 0, 1 }, { 1, 4095 }, { 4095, 2 }, { 4093, 8197 },
		{ 0xb0000 - 5, 10 }, { 0xb0000 - 1, 0x1002 },
		{ SIZE - 1, 1 }, { 7, SIZE - 7 },
	};
	unsigned char *data = pattern(1);
	unsigned char *want = malloc(SIZE);
	int s = self->session;

	ASSERT_TRUE(!!data);
	ASSERT_TRUE(!!want);
	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		size_t offset = pieces[i].offset;
		size_t length = pieces[i].length;

		fill(self->mem, SIZE, 2);
		fill(want, SIZE, 2);
		memset(self->buf, 0, SIZE);
		ASSERT_EQ(0, map(s, IMPORTER_BIDIRECTIONAL));
		if (variant->syncs || !sees_a_copy(s))
			memcpy(want + offset, data, length);
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_WRITE, offset, length,
				      data));
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, offset, length,
				      self->buf));
		EXPECT_EQ(0, memcmp(self->buf, data, length));
		EXPECT_TRUE(all_bytes_are(self->buf + length, SIZE - length,
					  0));
		ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
		EXPECT_EQ(0, memcmp(self->mem, want, SIZE));
	}
	free(want);
	free(data);
}

TEST_F(importer, transfers_are_bounded)
{
	static const unsigned long cmds[] = {
		IMPORTER_IOC_READ, IMPORTER_IOC_WRITE,
		IMPORTER_IOC_VREAD, IMPORTER_IOC_VWRITE,
	};
	int s = self->session;

	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	ASSERT_EQ(0, map(s, IMPORTER_BIDIRECTIONAL));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_VMAP, NULL));
	for (size_t i = 0; i < ARRAY_LEN(cmds); i++) {
		EXPECT_EQ(0, transfer(s, cmds[i], 0, 0, NULL));
		EXPECT_EQ(0, transfer(s, cmds[i], SIZE, 0, NULL));
		EXPECT_EQ(EINVAL, transfer(s, cmds[i], SIZE + 1, 0, NULL));
		EXPECT_EQ(EINVAL, transfer(s, cmds[i], SIZE, 1, self->buf));
		EXPECT_EQ(EINVAL, transfer(s, cmds[i], 1, SIZE, self->buf));
		EXPECT_EQ(EINVAL, transfer(s, cmds[i], ~0ull, 1, self->buf));
		EXPECT_EQ(EINVAL, transfer(s, cmds[i], ~0ull, 0, self->buf));
		EXPECT_EQ(EFAULT, transfer(s, cmds[i], 0, 1, NULL));
	}
	EXPECT_EQ(EINVAL, transfer(s, IMPORTER_IOC_READ, 1, ~0ull, self->buf));
	EXPECT_EQ(EINVAL, transfer(s, IMPORTER_IOC_VREAD, 1, ~0ull, self->buf));
	EXPECT_TRUE(all_bytes_are(self->mem, SIZE, 0));
}

TEST_F(importer, edited_list_is_what_is_left_of_it)
{
	struct importer_edit edit = { .skip = 100, .trim = 200 }, bad;
	struct importer_info in;
	int s = self->session;

	fill(self->mem, SIZE, 8);
	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_EQ(ENXIO, step(s, IMPORTER_IOC_EDIT, &edit));
	ASSERT_EQ(0, map(s, IMPORTER_TO_DEVICE));
	in = info(s);
	edit.nents = in.nents;

	bad = (struct importer_edit){ .nents = 0 };
	EXPECT_EQ(EINVAL, step(s, IMPORTER_IOC_EDIT, &bad));
	bad = (struct importer_edit){ .nents = in.nents + 1 };
	EXPECT_EQ(EINVAL, step(s, IMPORTER_IOC_EDIT, &bad));
	bad = (struct importer_edit){ .nents = 1, .flags = 2 };
	EXPECT_EQ(EINVAL, step(s, IMPORTER_IOC_EDIT, &bad));
	bad = (struct importer_edit){ .nents = 1, .skip = in.max_segment };
	EXPECT_EQ(EINVAL, step(s, IMPORTER_IOC_EDIT, &bad));
	bad = (struct importer_edit){ .nents = 1, .trim = ~0ull };
	EXPECT_EQ(EINVAL, step(s, IMPORTER_IOC_EDIT, &bad));
	EXPECT_EQ(in.dma_size, info(s).dma_size);

	/* These exporters unmap what is in the list, which is fine if that is nothing. */
	if (swiotlb_forced() || has_dma_api_debug())
		return;
	EXPECT_EQ(0, step(s, IMPORTER_IOC_EDIT, &edit));
	EXPECT_EQ(in.nents, info(s).nents);
	EXPECT_EQ(SIZE - 300, info(s).dma_size);
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, 0, SIZE - 300, self->buf));
	EXPECT_EQ(0, memcmp(self->buf, self->mem + 100, SIZE - 300));

	edit = (struct importer_edit){ .nents = in.nents - 1 };
	EXPECT_EQ(0, step(s, IMPORTER_IOC_EDIT, &edit));
	EXPECT_EQ(in.nents - 1, info(s).nents);
	EXPECT_GT(SIZE - 300, info(s).dma_size);
}

TEST_F(importer, vmap_shows_the_same_memory)
{
	unsigned char *data = pattern(5);
	int s = self->session;

	ASSERT_TRUE(!!data);
	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_VMAP, NULL));
	EXPECT_EQ(0, info(s).flags & IMPORTER_INFO_VMAP_IOMEM);

	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_VWRITE, 0, SIZE, data));
	EXPECT_EQ(0, memcmp(self->mem, data, SIZE));
	data[4097] ^= 0xff;
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_VWRITE, 4097, 1, data + 4097));
	EXPECT_EQ(0, memcmp(self->mem, data, SIZE));
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_VREAD, 0, SIZE, self->buf));
	EXPECT_EQ(0, memcmp(self->buf, data, SIZE));
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_VREAD, 4097, 1, self->buf));
	EXPECT_EQ(data[4097], self->buf[0]);
	free(data);
}

TEST_F(importer, mmap_through_the_session_outlives_it)
{
	int s = self->session;
	unsigned char *mem;

	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	EXPECT_TRUE(mmap(NULL, SIZE + 4096, PROT_READ, MAP_SHARED, s, 0) ==
		    MAP_FAILED);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(mmap(NULL, 4096, PROT_READ, MAP_SHARED, s, SIZE) ==
		    MAP_FAILED);
	EXPECT_EQ(EINVAL, errno);
	mem = mmap(NULL, SIZE - 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s,
		   4096);
	ASSERT_TRUE(mem != MAP_FAILED);
	ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	ASSERT_EQ(0, close(s));
	self->session = -1;

	fill(self->mem, SIZE, 9);
	EXPECT_EQ(0, memcmp(mem, self->mem + 4096, SIZE - 4096));
	mem[3] ^= 0xff;
	EXPECT_EQ(mem[3], self->mem[4099]);
	EXPECT_EQ(0, munmap(mem, SIZE - 4096));
}

TEST_F(importer, close_drops_what_is_held)
{
	for (size_t i = 0; i < ARRAY_LEN(devices); i++) {
		int s;

		if (!is_fit(devices[i], variant->limits))
			continue;
		s = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, s);
		ASSERT_EQ(0, attach(s, self->dmabuf, devices[i]));
		ASSERT_EQ(0, map(s, IMPORTER_BIDIRECTIONAL));
		ASSERT_EQ(0, step(s, IMPORTER_IOC_VMAP, NULL));
		EXPECT_EQ(1, count_devices());
		ASSERT_EQ(0, close(s));
		EXPECT_EQ(0, count_devices());
	}
}

TEST_F(importer, attachment_keeps_the_dmabuf_alive)
{
	int s = self->session;

	memset(self->mem, 0x42, SIZE);
	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_COHERENT));
	ASSERT_EQ(0, munmap(self->mem, SIZE));
	self->mem = MAP_FAILED;
	ASSERT_EQ(0, close(self->dmabuf));
	self->dmabuf = -1;
	ASSERT_EQ(0, step(s, IMPORTER_IOC_VMAP, NULL));
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_VREAD, 0, SIZE, self->buf));
	EXPECT_TRUE(all_bytes_are(self->buf, SIZE, 0x42));
}

TEST_F(importer, sessions_are_independent)
{
	unsigned char *data = pattern(7);
	struct importer_info in;
	int other = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
	int s = self->session;

	ASSERT_TRUE(!!data);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_SHADOW));
	ASSERT_EQ(0, attach(other, self->dmabuf, IMPORTER_DEV_SHADOW));
	EXPECT_EQ(2, count_devices());
	ASSERT_EQ(0, map(s, IMPORTER_BIDIRECTIONAL));
	ASSERT_EQ(0, map(other, IMPORTER_TO_DEVICE));

	/* Each device has its own view. */
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_WRITE, 0, SIZE, data));
	EXPECT_EQ(0, transfer(other, IMPORTER_IOC_READ, 0, SIZE, self->buf));
	EXPECT_TRUE(all_bytes_are(self->buf, SIZE, variant->syncs ? 0 :
				  IMPORTER_SHADOW_POISON));

	ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	in = info(other);
	EXPECT_EQ(IMPORTER_HELD_ATTACH | IMPORTER_HELD_MAP, in.held);
	EXPECT_EQ(in.nents, in.nr_mapped);
	EXPECT_EQ(0, in.nr_errors);
	ASSERT_EQ(0, close(other));
	free(data);
}

/* These exporters tell nothing, whatever the importer would do then. */
TEST_F(importer, dynamic_importer_maps_and_reads)
{
	static const __u32 flags[] = {
		IMPORTER_ATTACH_DYNAMIC, IMPORTER_ATTACH_DYNAMIC | IMPORTER_ATTACH_LETS_GO,
	};
	int s = self->session;

	fill(self->mem, SIZE, 4);
	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		memset(self->buf, 0, SIZE);
		ASSERT_EQ(0, attach_flags(s, self->dmabuf, IMPORTER_DEV_COHERENT, flags[i]));
		ASSERT_EQ(0, map(s, IMPORTER_TO_DEVICE));
		EXPECT_EQ(EBUSY, map(s, IMPORTER_TO_DEVICE));
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, 0, SIZE, self->buf));
		EXPECT_EQ(0, memcmp(self->buf, self->mem, SIZE));
		EXPECT_EQ(0, info(s).flags & IMPORTER_INFO_TOLD);
		ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
		EXPECT_EQ(ENXIO, step(s, IMPORTER_IOC_UNMAP, NULL));
		ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	}
}

/*
 * The heap syncs by the scatterlist that it gave to the importer. One half of a
 * debug kernel spoils the pages in there, the other half looks at them, and dies.
 */
#define SKIP_IF_A_HEAP_CANNOT_SYNC(variant) do {			\
	if ((variant)->syncs && has_dma_api_debug())			\
		SKIP(return, "a heap does not stand CONFIG_DMABUF_DEBUG");	\
} while (0)

/*
 * A mapping that is held needs a sync to show what changed, for a SHADOW or
 * MERGED device always, for the others if swiotlb bounces them.
 */
TEST_F(importer, held_mapping_is_stale_until_synced)
{
	static const __u32 some[] = {
		IMPORTER_DEV_COHERENT, IMPORTER_DEV_SHADOW, IMPORTER_DEV_MERGED,
	};
	int s = self->session;

	SKIP_IF_A_HEAP_CANNOT_SYNC(variant);
	for (size_t i = 0; i < ARRAY_LEN(some); i++) {
		bool shadow = is_shadow(some[i]);
		unsigned char at_map = shadow && !variant->syncs ?
				       IMPORTER_SHADOW_POISON : 0x11;
		unsigned char cpu, device;
		bool stale, sync_helps;

		memset(self->mem, 0x11, SIZE);
		ASSERT_EQ(0, attach(s, self->dmabuf, some[i]));
		ASSERT_EQ(0, map(s, IMPORTER_BIDIRECTIONAL));
		stale = sees_a_copy(s);
		EXPECT_EQ(shadow || swiotlb_forced(), stale);
		sync_helps = stale && variant->syncs;

		/* The CPU writes. */
		ASSERT_EQ(0, sync_cpu(self->dmabuf, DMA_BUF_SYNC_START |
				      DMA_BUF_SYNC_RW));
		self->mem[5000] = 0x22;
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, 5000, 1, &device));
		EXPECT_EQ(stale ? at_map : 0x22, device);
		ASSERT_EQ(0, sync_cpu(self->dmabuf, DMA_BUF_SYNC_END |
				      DMA_BUF_SYNC_RW));
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, 5000, 1, &device));
		EXPECT_EQ(stale && !sync_helps ? at_map : 0x22, device);

		/* The device writes. */
		device = 0x33;
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_WRITE, 5000, 1, &device));
		cpu = self->mem[5000];
		EXPECT_EQ(stale ? 0x22 : 0x33, cpu);
		ASSERT_EQ(0, sync_cpu(self->dmabuf, DMA_BUF_SYNC_START |
				      DMA_BUF_SYNC_RW));
		cpu = self->mem[5000];
		EXPECT_EQ(stale && !sync_helps ? 0x22 : 0x33, cpu);
		ASSERT_EQ(0, sync_cpu(self->dmabuf, DMA_BUF_SYNC_END |
				      DMA_BUF_SYNC_RW));

		if (!variant->syncs) {
			ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
			ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
			continue;
		}

		/* A sync of too much replaces what the CPU wrote meanwhile. */
		self->mem[9000] = 0x44;
		ASSERT_EQ(0, directed(s, IMPORTER_IOC_BEGIN_CPU,
				      IMPORTER_FROM_DEVICE));
		cpu = self->mem[9000];
		EXPECT_EQ(stale ? 0x11 : 0x44, cpu);
		self->mem[9000] = 0x55;
		ASSERT_EQ(0, directed(s, IMPORTER_IOC_END_CPU,
				      IMPORTER_TO_DEVICE));
		EXPECT_EQ(0, transfer(s, IMPORTER_IOC_READ, 9000, 1, &device));
		EXPECT_EQ(0x55, device);

		ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
		ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	}
}

static void counts_syncs(struct __test_metadata *_metadata, int s, int dmabuf,
			 __u32 device, bool syncs)
{
	struct importer_info in;
	__u32 synced;

	ASSERT_EQ(0, attach(s, dmabuf, device));
	ASSERT_EQ(0, map(s, IMPORTER_TO_DEVICE));
	in = info(s);
	EXPECT_TRUE(shows_entries(&in, in.nr_mapped));
	EXPECT_EQ(0, in.nr_sync_for_device);
	EXPECT_EQ(0, in.nr_sync_for_cpu);

	ASSERT_EQ(0, sync_cpu(dmabuf, DMA_BUF_SYNC_START |
			      DMA_BUF_SYNC_WRITE));
	ASSERT_EQ(0, sync_cpu(dmabuf, DMA_BUF_SYNC_END |
			      DMA_BUF_SYNC_WRITE));
	ASSERT_EQ(0, sync_cpu(dmabuf, DMA_BUF_SYNC_END |
			      DMA_BUF_SYNC_WRITE));
	in = info(s);
	synced = syncs ? in.nr_mapped : 0;
	EXPECT_EQ(synced, in.nr_sync_for_cpu);
	EXPECT_EQ(synced ? SIZE : 0, in.sync_for_cpu_bytes);
	EXPECT_EQ(2 * synced, in.nr_sync_for_device);
	EXPECT_EQ(synced ? 2 * SIZE : 0, in.sync_for_device_bytes);
	EXPECT_EQ(0, in.nr_errors);

	/*
	 * The heap passes the caller's direction on, whatever it mapped with.
	 * CONFIG_DMA_API_DEBUG would complain about that in the kernel's log.
	 */
	if (!has_dma_api_debug()) {
		ASSERT_EQ(0, sync_cpu(dmabuf, DMA_BUF_SYNC_START |
				      DMA_BUF_SYNC_READ));
		EXPECT_EQ(synced, info(s).nr_errors);
	}
	ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
}

TEST_F(importer, shadow_device_counts_syncs)
{
	SKIP_IF_A_HEAP_CANNOT_SYNC(variant);
	for (size_t i = 0; i < ARRAY_LEN(devices); i++)
		if (is_shadow(devices[i]))
			counts_syncs(_metadata, self->session, self->dmabuf,
				     devices[i], variant->syncs);
}

/* A device that writes to memory mapped for reading must not be believed. */
TEST_F(importer, shadow_device_honours_the_direction)
{
	unsigned char *data = pattern(6);
	int s = self->session;

	ASSERT_TRUE(!!data);
	memset(self->mem, 0x77, SIZE);
	ASSERT_EQ(0, attach(s, self->dmabuf, IMPORTER_DEV_SHADOW));
	ASSERT_EQ(0, map(s, IMPORTER_TO_DEVICE));
	EXPECT_EQ(0, transfer(s, IMPORTER_IOC_WRITE, 0, SIZE, data));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_UNMAP, NULL));
	ASSERT_EQ(0, step(s, IMPORTER_IOC_DETACH, NULL));
	EXPECT_TRUE(all_bytes_are(self->mem, SIZE, 0x77));
	free(data);
}

TEST_HARNESS_MAIN

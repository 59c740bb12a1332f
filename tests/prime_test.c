// SPDX-License-Identifier: GPL-2.0
/*
 * DRM PRIME: what libdrm and a DRM driver (vgem) make of an exported dma-buf.
 *
 * An imported buffer is mapped through a dma-buf that the handle is exported
 * to, since DRM does not map imported buffers by itself.
 */
#include "lib/vmemexp_utils.h"

#include <sys/stat.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#define PAGES		5
#define SIZE		(PAGES * page_size())

#define RW		(PROT_READ | PROT_WRITE)

static uint32_t __import(struct __test_metadata *_metadata, int card, int dmabuf)
{
	uint32_t handle = 0;

	ASSERT_EQ(0, drmPrimeFDToHandle(card, dmabuf, &handle)) {
		TH_LOG("PRIME import: %s", strerror(errno));
	}
	ASSERT_NE(0, handle);
	return handle;
}

#define import(card, dmabuf) __import(_metadata, card, dmabuf)

static int __export_back(struct __test_metadata *_metadata, int card,
			 uint32_t handle)
{
	int dmabuf = -1;

	ASSERT_EQ(0, drmPrimeHandleToFD(card, handle, DRM_CLOEXEC | DRM_RDWR,
					&dmabuf));
	ASSERT_LE(0, dmabuf);
	return dmabuf;
}

#define export_back(card, handle) __export_back(_metadata, card, handle)

static unsigned char *__map_dmabuf(struct __test_metadata *_metadata, int dmabuf)
{
	unsigned char *mapping = mmap(NULL, SIZE, RW, MAP_SHARED, dmabuf, 0);

	ASSERT_NE(MAP_FAILED, (void *)mapping);
	return mapping;
}

#define map_dmabuf(dmabuf) __map_dmabuf(_metadata, dmabuf)

FIXTURE(prime)
{
	int fd;
	struct test_state before;
	int card;
	unsigned char *source;
	int dmabuf;
};

FIXTURE_SETUP(prime)
{
	system("modprobe -q vgem");
	self->card = open_vgem();
	if (self->card < 0)
		SKIP(return, "the kernel has no vgem driver");
	close(self->card);

	test_setup();
	self->card = open_vgem();
	ASSERT_LE(0, self->card);
	self->source = map_anon(SIZE);
	ASSERT_NE(MAP_FAILED, (void *)self->source);
	fill(self->source, SIZE, 1);
	self->dmabuf = test_export(self->source, SIZE, O_RDWR);
}

FIXTURE_TEARDOWN(prime)
{
	close(self->dmabuf);
	close(self->card);
	test_teardown();
}

TEST_F(prime, import_gives_the_same_handle_for_the_same_dmabuf)
{
	uint32_t handle;
	int again, other, other_card;

	/*
	 * A device may map the same pages twice. But of two mappings of an address,
	 * none is found if a part of one is synced.
	 */
	if (!access("/sys/kernel/debug/dma-api", F_OK))
		SKIP(return, "CONFIG_DMA_API_DEBUG loses track of what is mapped twice");

	handle = import(self->card, self->dmabuf);
	again = dup(self->dmabuf);
	other_card = open_vgem();
	other = test_export(self->source, SIZE, O_RDWR);
	EXPECT_EQ(1, test_query(self->dmabuf).attachments);
	EXPECT_EQ(handle, import(self->card, self->dmabuf));
	EXPECT_EQ(handle, import(self->card, again));
	EXPECT_EQ(1, test_query(self->dmabuf).attachments);

	/* The same pages, but another dma-buf. */
	EXPECT_NE(handle, import(self->card, other));
	EXPECT_EQ(1, test_query(self->dmabuf).attachments);
	EXPECT_EQ(1, test_query(other).attachments);

	/* Another client has handles of its own. */
	import(other_card, self->dmabuf);
	EXPECT_EQ(2, test_query(self->dmabuf).attachments);
	close(other_card);
	EXPECT_EQ(1, test_query(self->dmabuf).attachments);
	EXPECT_EQ(0, drmCloseBufferHandle(self->card, handle));
	EXPECT_EQ(0, test_query(self->dmabuf).attachments);
	EXPECT_EQ(0, test_query(self->dmabuf).mappings);
	close(again);
	close(other);
}

TEST_F(prime, export_of_the_handle_gives_back_the_same_dmabuf)
{
	uint32_t handle = import(self->card, self->dmabuf);
	int back = export_back(self->card, handle);
	struct stat ours, theirs;

	ASSERT_EQ(0, fstat(self->dmabuf, &ours));
	ASSERT_EQ(0, fstat(back, &theirs));
	EXPECT_EQ(ours.st_dev, theirs.st_dev);
	EXPECT_EQ(ours.st_ino, theirs.st_ino);
	EXPECT_EQ(SIZE, test_query(back).dmabuf_size);
	EXPECT_EQ(1, test_query(back).attachments);
	close(back);
}

TEST_F(prime, import_is_the_very_same_memory)
{
	uint32_t handle = import(self->card, self->dmabuf);
	int back = export_back(self->card, handle);
	unsigned char *mapping = map_dmabuf(back);

	EXPECT_EQ(-1, first_difference(mapping, SIZE, 1));
	fill(self->source, SIZE, 2);
	EXPECT_EQ(-1, first_difference(mapping, SIZE, 2));
	fill(mapping, SIZE, 3);
	EXPECT_EQ(-1, first_difference(self->source, SIZE, 3));
	munmap(mapping, SIZE);
	close(back);
}

TEST_F(prime, import_takes_an_unaligned_range_and_shows_it_at_its_offset)
{
	const size_t cut = 123, length = 2 * page_size();
	struct vmemexp_export cmd = export_args(self->source + cut, length, O_RDWR);
	unsigned char *mapping;
	int back;

	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_export_cmd(&cmd);
	back = export_back(self->card, import(self->card, cmd.fd));
	mapping = mmap(NULL, cmd.dmabuf_size, RW, MAP_SHARED, back, 0);
	ASSERT_NE(MAP_FAILED, (void *)mapping);
	EXPECT_EQ(cut, cmd.offset);
	EXPECT_EQ(0, memcmp(self->source + cut, mapping + cmd.offset, length));
	memset(mapping + cmd.offset, 0xee, length);
	EXPECT_EQ(pattern(1, cut - 1), self->source[cut - 1]);
	EXPECT_EQ(0xee, self->source[cut]);
	EXPECT_EQ(0xee, self->source[cut + length - 1]);
	EXPECT_EQ(pattern(1, cut + length), self->source[cut + length]);
	munmap(mapping, cmd.dmabuf_size);
	close(back);
	close(cmd.fd);
}

TEST_F(prime, does_not_map_the_handle_itself)
{
	uint32_t handle = import(self->card, self->dmabuf);
	uint64_t offset;

	EXPECT_EQ(-EINVAL, drmModeMapDumbBuffer(self->card, handle, &offset));
}

/* DRM maps for both directions, and since 7.0 vgem does not map at all. */
TEST_F(prime, import_of_a_read_only_dmabuf_is_refused_or_attaches_only)
{
	int dmabuf = test_export(self->source, SIZE, O_RDONLY);
	uint32_t handle = 0;
	int ret = drmPrimeFDToHandle(self->card, dmabuf, &handle);

	if (ret) {
		EXPECT_EQ(EACCES, errno);
		EXPECT_EQ(0, test_query(dmabuf).attachments);
	} else {
		EXPECT_EQ(1, test_query(dmabuf).attachments);
	}
	EXPECT_EQ(0, test_query(dmabuf).mappings);
	close(dmabuf);
}

/*
 * Mappings of DRM drivers have no pages to pin, except for those of vgem before 45d9c8dde4cd
 * (v5.16).
 */
TEST_F(prime, mapping_of_a_drm_buffer_is_not_exported_unless_it_has_pages)
{
	uint32_t handle, pitch;
	uint64_t offset, size;
	void *mapping;

	ASSERT_EQ(0, drmModeCreateDumbBuffer(self->card, 64, 64, 32, 0, &handle,
					     &pitch, &size));
	ASSERT_EQ(0, drmModeMapDumbBuffer(self->card, handle, &offset));
	mapping = mmap64(NULL, size, RW, MAP_SHARED, self->card, offset);
	ASSERT_NE(MAP_FAILED, mapping);
	memset(mapping, 0, size);
	if (kernel_at_least(5, 16))
		test_err_export(EPERM, VMEMEXP_REASON_RAM, mapping, mapping, size, O_RDWR);
	else
		close(test_export(mapping, size, O_RDWR));
	munmap(mapping, size);
}

/* --- every order of dropping references --- */

enum holder { DMABUF, CARD, BACK, MAPPING, NR_HOLDERS };

/* Return true if @order names each holder once. */
static bool is_order(const unsigned int *order)
{
	unsigned int seen = 0;

	for (int i = 0; i < NR_HOLDERS; i++)
		seen |= 1U << order[i];
	return seen == (1U << NR_HOLDERS) - 1;
}

static void try_order(struct __test_metadata *_metadata, int fd,
		      const unsigned int *order, bool close_handle)
{
	struct test_state before = get_state();
	void *source = map_anon(SIZE);
	int dmabuf = __test_export_range(_metadata, fd, source, SIZE, O_RDWR);
	int card = open_vgem();
	uint32_t handle = import(card, dmabuf);
	int back = export_back(card, handle);
	unsigned char *mapping = map_dmabuf(back);

	munmap(source, SIZE);
	fill(mapping, SIZE, 4);
	for (int i = 0; i < NR_HOLDERS; i++) {
		/* The last one keeps the pages. */
		EXPECT_EQ(before.pins + PAGES, pinned_pages());
		switch (order[i]) {
		case DMABUF:
			close(dmabuf);
			break;
		case CARD:
			if (close_handle)
				drmCloseBufferHandle(card, handle);
			close(card);
			break;
		case BACK:
			close(back);
			break;
		default:
			EXPECT_EQ(-1, first_difference(mapping, SIZE, 4));
			munmap(mapping, SIZE);
			break;
		}
	}
	test_state(&before);
}

TEST_F(prime, references_are_dropped_in_any_order)
{
	unsigned int order[NR_HOLDERS];

	for (unsigned int code = 0; code < 1 << 2 * NR_HOLDERS; code++) {
		for (int i = 0; i < NR_HOLDERS; i++)
			order[i] = code >> 2 * i & 3;
		if (!is_order(order))
			continue;
		try_order(_metadata, self->fd, order, true);
		try_order(_metadata, self->fd, order, false);
	}
}

TEST_HARNESS_MAIN

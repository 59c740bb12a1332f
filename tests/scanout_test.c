// SPDX-License-Identifier: GPL-2.0
/*
 * A display controller (PL111) that fetches frames from exported memory by DMA, without
 * an IOMMU: memory that it can show, memory that its driver refuses, and a frame that it
 * shows from a copy. Each look at the screen is a picture that the host takes.
 *
 * Wants a display, and some memory above 4 GiB: tests/suites/display has both.
 */
#include "lib/kms.h"
#include "lib/screendump.h"
#include "lib/vmemexp_memory.h"

#define CARD		"/dev/dri/card0"
#define WIDTH		640
#define HEIGHT		480
#define STRIDE		(WIDTH * 4)
#define PIXELS		(WIDTH * HEIGHT)
/* Whole pages; less than a huge one. */
#define SIZE		(STRIDE * (size_t)HEIGHT)

/* What the display reaches. */
#define REACH		(1ULL << 32)
/* More than is on either side of that, so that there is one on each. */
#define NR_HUGE_PAGES	"80"

/* No two seeds, and no two neighbours, have pixels that are alike. */
static uint32_t pixel(unsigned int seed, size_t i)
{
	return (i * 2654435761U + seed * 40503U) >> 8;
}

static void paint(uint32_t *frame, unsigned int seed)
{
	for (size_t i = 0; i < PIXELS; i++)
		frame[i] = pixel(seed, i);
}

FIXTURE(scanout)
{
	int fd;
	struct test_state before;
	struct kms kms;
	uint32_t *frame;
	uint64_t address;
	size_t mapped;
	uint32_t *seen;
};

FIXTURE_SETUP(scanout)
{
	test_setup();
	self->seen = malloc(SIZE);
	ASSERT_NE(NULL, self->seen);
	ASSERT_EQ(0, kms_open(&self->kms, CARD, WIDTH, HEIGHT));
}

FIXTURE_TEARDOWN(scanout)
{
	kms_close(&self->kms);
	if (self->mapped)
		munmap(self->frame, self->mapped);
	free(self->seen);
	restore_system();
	test_teardown();
}

static uint64_t __address_of(struct __test_metadata *_metadata, const void *p)
{
	uint64_t *entry = read_pagemap(p, PAGE);
	uint64_t address = (*entry & PAGEMAP_PFN) * PAGE;

	ASSERT_TRUE(*entry & PAGEMAP_PRESENT);
	free(entry);
	return address;
}

/* A huge page that the display reaches, or one that it does not. */
static void __make_huge_page(struct __test_metadata *_metadata, FIXTURE_DATA(scanout) *self,
			     bool within_reach)
{
	unsigned int nr = atoi(NR_HUGE_PAGES), found;
	unsigned char *pages;

	ASSERT_EQ(0, set_knob(HUGE_PAGES, NR_HUGE_PAGES));
	pages = mmap(NULL, nr * HUGE_PAGE, RW, ANON | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)pages);
	/* What is given back would be the next one again. */
	for (found = 0; found < nr; found++) {
		pages[found * HUGE_PAGE] = 0;
		self->address = __address_of(_metadata, pages + found * HUGE_PAGE);
		if ((self->address < REACH) == within_reach)
			break;
	}
	ASSERT_GT(nr, found);
	self->frame = (uint32_t *)(pages + found * HUGE_PAGE);
	self->mapped = HUGE_PAGE;
	munmap(pages, found * HUGE_PAGE);
	munmap(pages + (found + 1) * HUGE_PAGE, (nr - found - 1) * HUGE_PAGE);
	paint(self->frame, 1);
}

#define make_huge_page(within_reach) __make_huge_page(_metadata, self, within_reach)

static int __export_frame(struct __test_metadata *_metadata, FIXTURE_DATA(scanout) *self)
{
	struct vmemexp_export cmd = export_args(self->frame, SIZE, O_RDWR | O_CLOEXEC);

	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	return test_export_cmd(&cmd);
}

#define export_frame() __export_frame(_metadata, self)

/* Imports the dma-buf, and sets the mode with the frame in it. */
static uint32_t __show(struct __test_metadata *_metadata, FIXTURE_DATA(scanout) *self,
		       int dmabuf, uint32_t *handle)
{
	uint32_t frame;

	ASSERT_EQ(0, kms_import(&self->kms, dmabuf, handle));
	ASSERT_EQ(0, kms_add_frame(&self->kms, *handle, 0, STRIDE, &frame));
	ASSERT_EQ(0, kms_show(&self->kms, frame));
	return frame;
}

#define show(dmabuf, handle) __show(_metadata, self, dmabuf, handle)

static void __look(struct __test_metadata *_metadata, FIXTURE_DATA(scanout) *self)
{
	int port = screendump_begin(1);

	ASSERT_LE(0, port);
	ASSERT_EQ(0, screendump_end(port));
	ASSERT_EQ(0, screendump_read(self->seen, WIDTH, HEIGHT));
}

/* Pixels from @first to @end on the screen that paint() does not make of @seed. */
static size_t wrong_pixels(const uint32_t *seen, unsigned int seed, size_t first, size_t end)
{
	size_t wrong = 0;

	for (size_t i = first; i < end; i++)
		wrong += seen[i] != pixel(seed, i);
	return wrong;
}

#define expect_screen(seed) do {						\
	__look(_metadata, self);						\
	EXPECT_EQ(0, wrong_pixels(self->seen, seed, 0, PIXELS));		\
} while (0)

static uint32_t __base(struct __test_metadata *_metadata)
{
	uint32_t address;

	ASSERT_EQ(0, pl111_base(&address));
	return address;
}

#define base() __base(_metadata)

/* --- memory that it shows --- */

TEST_F(scanout, huge_page_is_read_by_the_display_itself)
{
	const size_t changed = 222 * WIDTH + 333;
	struct vmemexp_query query;
	uint32_t handle;
	int dmabuf;

	make_huge_page(true);
	dmabuf = export_frame();
	show(dmabuf, &handle);
	query = test_query(dmabuf);
	EXPECT_EQ(1, query.attachments);
	EXPECT_EQ(1, query.mappings);
	EXPECT_EQ(0, query.vmaps);
	EXPECT_EQ(0, query.state & VMEMEXP_STATE_BOUNCED);
	EXPECT_EQ(self->address, base());
	expect_screen(1);

	/* No call to the kernel tells of this, but QEMU has no caches. */
	paint(self->frame, 2);
	expect_screen(2);
	self->frame[changed] ^= 1;
	__look(_metadata, self);
	EXPECT_EQ(1, wrong_pixels(self->seen, 2, 0, PIXELS));
	EXPECT_EQ(pixel(2, changed) ^ 1, self->seen[changed]);
	close(dmabuf);
}

TEST_F(scanout, transparent_huge_page_is_shown)
{
	uint32_t handle;
	int dmabuf;

	self->frame = map_huge_pages(HUGE_PAGE, HUGE_PAGE, RW, ANON, -1);
	ASSERT_NE(MAP_FAILED, (void *)self->frame);
	self->mapped = HUGE_PAGE;
	ASSERT_EQ(0, madvise(self->frame, HUGE_PAGE, MADV_HUGEPAGE));
	paint(self->frame, 1);
	ASSERT_EQ(0, collapse(self->frame, HUGE_PAGE));
	dmabuf = export_frame();
	show(dmabuf, &handle);
	expect_screen(1);
	close(dmabuf);
}

/* --- memory that it cannot show --- */

TEST_F(scanout, scattered_memory_is_refused_and_left_alone)
{
	struct vmemexp_export cmd;
	struct vmemexp_query query;
	uint32_t handle = 0;
	int dmabuf;

	self->frame = map_anon(SIZE);
	ASSERT_NE(MAP_FAILED, (void *)self->frame);
	self->mapped = SIZE;
	ASSERT_EQ(0, forbid_thp(self->frame, SIZE));
	touch_scattered((unsigned char *)self->frame);
	paint(self->frame, 1);
	dmabuf = test_export(self->frame, SIZE, O_RDWR | O_CLOEXEC);
	EXPECT_LT(1, test_query(dmabuf).nr_extents);
	EXPECT_EQ(-EINVAL, kms_import(&self->kms, dmabuf, &handle));
	query = test_query(dmabuf);
	EXPECT_EQ(0, query.attachments);
	EXPECT_EQ(0, query.mappings);
	EXPECT_EQ(0, query.vmaps);
	EXPECT_EQ(0, query.state & VMEMEXP_STATE_BOUNCED);
	close(dmabuf);

	/* Who asks for what the display needs is told where it ends. */
	cmd = export_args(self->frame, SIZE, O_RDWR | O_CLOEXEC);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
			    to_u64(self->frame) +
			    physical_runs((unsigned char *)self->frame, SIZE).second, &cmd);
}

/* The driver behind it has no idea: the display fetches from a bounce buffer. */
TEST_F(scanout, page_out_of_reach_is_shown_from_a_copy_that_syncs_refresh)
{
	const size_t first = 100, rows = 7;
	uint32_t handle;
	int dmabuf;

	make_huge_page(false);
	ASSERT_LE(REACH, self->address);
	dmabuf = export_frame();
	show(dmabuf, &handle);
	EXPECT_EQ(VMEMEXP_STATE_BOUNCED, test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED);
	EXPECT_EQ(1, test_query(dmabuf).attachments);
	EXPECT_NE((uint32_t)self->address, base());
	expect_screen(1);

	paint(self->frame, 2);
	expect_screen(1);
	test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);
	paint(self->frame, 2);
	test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
	expect_screen(2);

	/* Of a range, no more than that. */
	test_sync(dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_WRITE, first * STRIDE,
		  rows * STRIDE);
	paint(self->frame, 3);
	test_sync(dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, first * STRIDE,
		  rows * STRIDE);
	__look(_metadata, self);
	EXPECT_EQ(0, wrong_pixels(self->seen, 2, 0, first * WIDTH));
	EXPECT_EQ(0, wrong_pixels(self->seen, 3, first * WIDTH, (first + rows) * WIDTH));
	EXPECT_EQ(0, wrong_pixels(self->seen, 2, (first + rows) * WIDTH, PIXELS));
	close(dmabuf);
}

/* --- the end of a frame --- */

TEST_F(scanout, memory_that_is_unmapped_stays_on_the_screen)
{
	uint32_t handle;
	int dmabuf;

	make_huge_page(true);
	dmabuf = export_frame();
	show(dmabuf, &handle);
	EXPECT_EQ(0, test_query(dmabuf).state & VMEMEXP_STATE_STALE);
	munmap(self->frame, HUGE_PAGE);
	self->mapped = 0;
	EXPECT_EQ(VMEMEXP_STATE_STALE, test_query(dmabuf).state & VMEMEXP_STATE_STALE);
	EXPECT_EQ(1, test_query(dmabuf).mappings);
	EXPECT_EQ(self->address, base());
	/* Whoever may have the page now, or all of memory. */
	set_knob(HUGE_PAGES, "0");
	expect_screen(1);
	close(dmabuf);
}

enum holder { DMABUF, HANDLE, MAPPING, NR_HOLDERS };

/* The frame on the screen is the last one to hold the memory. */
static void __try_order(struct __test_metadata *_metadata, FIXTURE_DATA(scanout) *self,
			const enum holder *order, bool with_the_card)
{
	struct test_state before = get_state();
	uint32_t handle, frame;
	int dmabuf;

	make_huge_page(true);
	dmabuf = export_frame();
	frame = show(dmabuf, &handle);
	for (int i = 0; i < NR_HOLDERS; i++) {
		switch (order[i]) {
		case DMABUF:
			close(dmabuf);
			break;
		case HANDLE:
			ASSERT_EQ(0, kms_drop(&self->kms, handle));
			break;
		default:
			munmap(self->frame, HUGE_PAGE);
			self->frame = NULL;
			self->mapped = 0;
			break;
		}
	}
	/* A huge page is pinned as one. */
	EXPECT_EQ(before.pins + 1, pinned_pages());
	EXPECT_EQ(self->address, base());
	expect_screen(1);
	if (with_the_card) {
		kms_close(&self->kms);
		ASSERT_EQ(0, kms_open(&self->kms, CARD, WIDTH, HEIGHT));
	} else {
		ASSERT_EQ(0, kms_remove_frame(&self->kms, frame));
	}
	test_state(&before);
}

TEST_F(scanout, references_are_dropped_in_any_order)
{
	static const enum holder orders[][NR_HOLDERS] = {
		{ DMABUF, HANDLE, MAPPING }, { DMABUF, MAPPING, HANDLE },
		{ HANDLE, DMABUF, MAPPING }, { HANDLE, MAPPING, DMABUF },
		{ MAPPING, DMABUF, HANDLE }, { MAPPING, HANDLE, DMABUF },
	};

	for (size_t i = 0; i < sizeof(orders) / sizeof(*orders); i++)
		__try_order(_metadata, self, orders[i], i % 2);
}

/* --- frame after frame --- */

static unsigned long __display_interrupts(struct __test_metadata *_metadata)
{
	char line[256];
	FILE *interrupts = fopen("/proc/interrupts", "re");
	unsigned long nr = 0;
	bool found = false;

	ASSERT_NE(NULL, interrupts);
	while (!found && fgets(line, sizeof(line), interrupts))
		found = strstr(line, "PL111") && sscanf(line, "%*[^:]: %lu", &nr) == 1;
	fclose(interrupts);
	ASSERT_TRUE(found);
	return nr;
}

#define display_interrupts() __display_interrupts(_metadata)

/* Each flip is told of when the display has begun anew, and not before. */
TEST_F(scanout, flips_are_paced_by_the_display)
{
	/* Both are of the one huge page. */
	const size_t offsets[] = { 0, 64 * STRIDE };
	struct vmemexp_export cmd;
	struct drm_event_vblank event;
	uint32_t handle, frames[2];
	unsigned long interrupts;
	unsigned int last = 0;

	make_huge_page(true);
	cmd = export_args(self->frame, HUGE_PAGE, O_RDWR | O_CLOEXEC);
	test_export_cmd(&cmd);
	ASSERT_EQ(0, kms_import(&self->kms, cmd.fd, &handle));
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, kms_add_frame(&self->kms, handle, offsets[i], STRIDE, &frames[i]));
	ASSERT_EQ(0, kms_show(&self->kms, frames[1]));
	interrupts = display_interrupts();
	for (int i = 0; i < 30; i++) {
		ASSERT_EQ(0, kms_flip(&self->kms, frames[i % 2], &event));
		EXPECT_EQ(self->address + offsets[i % 2], base());
		EXPECT_EQ(self->kms.crtc_id, event.crtc_id);
		if (i)
			EXPECT_LT(last, event.sequence);
		last = event.sequence;
	}
	EXPECT_LE(interrupts + 30, display_interrupts());
	close(cmd.fd);
}

TEST_HARNESS_MAIN

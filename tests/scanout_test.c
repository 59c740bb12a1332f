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
#include "lib/ti.h"
#include "lib/vmemexp_memory.h"

#define CARD		"/dev/dri/card0"
#define WIDTH		640
#define HEIGHT		480
#define STRIDE		(WIDTH * 4)
#define PIXELS		(WIDTH * HEIGHT)
/* Whole pages; less than a huge one. */
#define SIZE		(STRIDE * (size_t)HEIGHT)

/* Where tests/vm/vexpress-high-memory.dts keeps memory from the kernel. */
#define RESERVED	0xb4000000ULL

/* The display reaches the memory below it. */
#define REACH		0x100000000ULL
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

/**
 * struct view - a display, and memory for it
 * @kms: the display
 * @frame: the memory; its first SIZE bytes are a frame
 * @mapped: bytes of it, 0 if it is not mapped
 * @address: physical, of a huge page
 * @seen: the last picture of the screen
 */
struct view {
	struct kms kms;
	uint32_t *frame;
	size_t mapped;
	uint64_t address;
	uint32_t *seen;
};

FIXTURE(scanout)
{
	int fd;
	struct test_state before;
	struct view view;
};

FIXTURE_SETUP(scanout)
{
	test_setup();
	self->view.seen = malloc(SIZE);
	ASSERT_NE(NULL, self->view.seen);
	ASSERT_EQ(0, kms_open(&self->view.kms, CARD, WIDTH, HEIGHT));
}

FIXTURE_TEARDOWN(scanout)
{
	kms_close(&self->view.kms);
	if (self->view.mapped)
		munmap(self->view.frame, self->view.mapped);
	free(self->view.seen);
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
static void __make_huge_page(struct __test_metadata *_metadata, struct view *view,
			     bool within_reach)
{
	unsigned int nr = atoi(NR_HUGE_PAGES), found;
	unsigned char *pages;
	bool reached;

	ASSERT_EQ(0, set_knob(HUGE_PAGES, NR_HUGE_PAGES));
	pages = mmap(NULL, nr * HUGE_PAGE, RW, ANON | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)pages);
	/* A page that is given back would be the next one again. */
	for (found = 0; found < nr; found++) {
		pages[found * HUGE_PAGE] = 0;
		view->address = __address_of(_metadata, pages + found * HUGE_PAGE);
		reached = view->address < REACH;
		if (reached == within_reach)
			break;
	}
	ASSERT_GT(nr, found);
	view->frame = (uint32_t *)(pages + found * HUGE_PAGE);
	view->mapped = HUGE_PAGE;
	munmap(pages, found * HUGE_PAGE);
	munmap(pages + (found + 1) * HUGE_PAGE, (nr - found - 1) * HUGE_PAGE);
	paint(view->frame, 1);
}

#define make_huge_page(within_reach) __make_huge_page(_metadata, &self->view, within_reach)

static int __export_frame(struct __test_metadata *_metadata, int fd, const struct view *view)
{
	struct vmemexp_export cmd = export_args(view->frame, SIZE, O_RDWR | O_CLOEXEC);

	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	return __test_export(_metadata, fd, &cmd);
}

#define export_frame() __export_frame(_metadata, self->fd, &self->view)

/* Imports the dma-buf, and sets the mode with the frame in it. */
static uint32_t __show(struct __test_metadata *_metadata, struct view *view,
		       int dmabuf, uint32_t *handle)
{
	uint32_t frame;

	ASSERT_EQ(0, kms_import(&view->kms, dmabuf, handle));
	ASSERT_EQ(0, kms_add_frame(&view->kms, *handle, 0, STRIDE, &frame));
	ASSERT_EQ(0, kms_show(&view->kms, frame));
	return frame;
}

#define show(dmabuf, handle) __show(_metadata, &self->view, dmabuf, handle)

static void __look(struct __test_metadata *_metadata, struct view *view)
{
	int port = screendump_begin(1);

	ASSERT_LE(0, port);
	ASSERT_EQ(0, screendump_end(port));
	ASSERT_EQ(0, screendump_read(view->seen, WIDTH, HEIGHT));
}

#define look() __look(_metadata, &self->view)

/* Pixels from @first to @end on the screen that paint() does not make of @seed. */
static size_t wrong_pixels(const uint32_t *seen, unsigned int seed, size_t first, size_t end)
{
	size_t wrong = 0;

	for (size_t i = first; i < end; i++)
		wrong += seen[i] != pixel(seed, i);
	return wrong;
}

#define expect_screen(seed) do {						\
	look();									\
	EXPECT_EQ(0, wrong_pixels(self->view.seen, seed, 0, PIXELS));		\
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
	EXPECT_EQ(self->view.address, base());
	expect_screen(1);

	/* No call to the kernel tells of this, but QEMU has no caches. */
	paint(self->view.frame, 2);
	expect_screen(2);
	self->view.frame[changed] ^= 1;
	look();
	EXPECT_EQ(1, wrong_pixels(self->view.seen, 2, 0, PIXELS));
	EXPECT_EQ(pixel(2, changed) ^ 1, self->view.seen[changed]);
	close(dmabuf);
}

TEST_F(scanout, transparent_huge_page_is_shown)
{
	struct vmemexp_export cmd;
	uint32_t handle;
	int ret = -ERANGE;

	/*
	 * Some are in CMA, and have to be moved before they are pinned: in pieces, if there
	 * is no other huge page. The next one is another, as this one stays mapped.
	 */
	for (int tries = 0; ret == -ERANGE && tries < 16; tries++) {
		self->view.frame = map_huge_pages(HUGE_PAGE, HUGE_PAGE, RW, ANON, -1);
		ASSERT_NE(MAP_FAILED, (void *)self->view.frame);
		ASSERT_EQ(0, madvise(self->view.frame, HUGE_PAGE, MADV_HUGEPAGE));
		paint(self->view.frame, 1);
		ASSERT_EQ(0, collapse(self->view.frame, HUGE_PAGE));
		cmd = export_args(self->view.frame, SIZE, O_RDWR | O_CLOEXEC);
		cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
		ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
	}
	self->view.mapped = HUGE_PAGE;
	ASSERT_EQ(0, ret);
	show(cmd.fd, &handle);
	expect_screen(1);
	close(cmd.fd);
}

/*
 * A carve-out through /dev/mem, exported, imported, and both descriptors closed, as programs for
 * TI's vmemexp do it. The screen shows what the program draws then.
 */
TEST_F(scanout, program_for_ti_shows_a_carveout)
{
	struct dmabuf_vmem_export arg = { .size = WIDTH * 4 * HEIGHT };
	int mem = open("/dev/mem", O_RDWR | O_CLOEXEC);
	int device = open("/dev/vmemexp", O_RDWR | O_CLOEXEC);
	char list[64];
	uint32_t handle;

	snprintf(list, sizeof(list), "%#llx:%#zx", RESERVED, SIZE);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, list));
	ASSERT_LE(0, mem);
	ASSERT_LE(0, device);
	self->view.frame = mmap64(NULL, SIZE, RW, MAP_SHARED, mem, RESERVED);
	ASSERT_NE(MAP_FAILED, (void *)self->view.frame);
	self->view.mapped = SIZE;
	paint(self->view.frame, 1);

	arg.vaddr = (unsigned long)self->view.frame;
	ASSERT_EQ(0, ioctl(device, DBUFIOC_EXPORT_VIRTMEM, &arg));
	EXPECT_EQ(VMEMEXP_MEMORY_PFNMAP, test_query(arg.fd).memory);
	show(arg.fd, &handle);
	close(arg.fd);
	close(device);
	close(mem);
	EXPECT_EQ(RESERVED, base());
	expect_screen(1);
	paint(self->view.frame, 2);
	expect_screen(2);
}

/* --- memory that it cannot show --- */

/*
 * A frame in two huge pages that are no neighbours, both within reach: the copies of what
 * the display does not reach may well be in one piece, and so may small pages that move
 * when they are pinned. Returns the pages.
 */
static unsigned char *__make_broken_frame(struct __test_metadata *_metadata, struct view *view)
{
	unsigned int nr = atoi(NR_HUGE_PAGES), first, second = 0;
	unsigned char *pages;
	uint64_t *at = calloc(nr, sizeof(*at));
	int file = memfd_create("frame", MFD_CLOEXEC | MFD_HUGETLB);

	ASSERT_EQ(0, set_knob(HUGE_PAGES, NR_HUGE_PAGES));
	ASSERT_EQ(0, ftruncate(file, nr * HUGE_PAGE));
	pages = mmap(NULL, nr * HUGE_PAGE, RW, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, (void *)pages);
	for (unsigned int i = 0; i < nr; i++) {
		pages[i * HUGE_PAGE] = 0;
		at[i] = __address_of(_metadata, pages + i * HUGE_PAGE);
	}
	for (first = 0; first < nr && !second; first += !second)
		for (unsigned int i = nr - 1; i > first && !second; i--)
			if (at[first] < REACH && at[i] < REACH && at[i] != at[first] + HUGE_PAGE)
				second = i;
	ASSERT_NE(0, second);
	ASSERT_EQ(0, munmap(pages + 2 * HUGE_PAGE, (nr - 2) * HUGE_PAGE));
	ASSERT_NE(MAP_FAILED, mmap(pages, HUGE_PAGE, RW, MAP_SHARED | MAP_FIXED, file,
				   first * HUGE_PAGE));
	ASSERT_NE(MAP_FAILED, mmap(pages + HUGE_PAGE, HUGE_PAGE, RW, MAP_SHARED | MAP_FIXED, file,
				   second * HUGE_PAGE));
	close(file);
	free(at);
	view->frame = (uint32_t *)(pages + HUGE_PAGE - SIZE / 2);
	paint(view->frame, 1);
	return pages;
}

TEST_F(scanout, scattered_memory_is_refused_and_left_alone)
{
	struct vmemexp_export cmd;
	struct vmemexp_query query;
	unsigned char *pages;
	uint32_t handle = 0;
	int dmabuf;

	pages = __make_broken_frame(_metadata, &self->view);
	dmabuf = test_export(self->view.frame, SIZE, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(2, test_query(dmabuf).nr_extents);
	EXPECT_EQ(-EINVAL, kms_import(&self->view.kms, dmabuf, &handle));
	query = test_query(dmabuf);
	EXPECT_EQ(0, query.attachments);
	EXPECT_EQ(0, query.mappings);
	EXPECT_EQ(0, query.vmaps);
	EXPECT_EQ(0, query.state & VMEMEXP_STATE_BOUNCED);
	close(dmabuf);

	/* CONTIGUOUS, which the display needs, names the end of the first extent. */
	cmd = export_args(self->view.frame, SIZE, O_RDWR | O_CLOEXEC);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
			    to_u64(self->view.frame) +
			    physical_extents((unsigned char *)self->view.frame, SIZE).second, &cmd);
	munmap(pages, 2 * HUGE_PAGE);
}

/* The driver behind it has no idea: the display fetches from a bounce buffer. */
TEST_F(scanout, page_out_of_reach_is_shown_from_a_copy_that_syncs_refresh)
{
	const size_t first = 100, rows = 7;
	uint32_t handle;
	int dmabuf;

	make_huge_page(false);
	ASSERT_LE(REACH, self->view.address);
	dmabuf = export_frame();
	show(dmabuf, &handle);
	EXPECT_EQ(VMEMEXP_STATE_BOUNCED, test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED);
	EXPECT_EQ(1, test_query(dmabuf).attachments);
	EXPECT_NE((uint32_t)self->view.address, base());
	expect_screen(1);

	paint(self->view.frame, 2);
	expect_screen(1);
	test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);
	paint(self->view.frame, 2);
	test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
	expect_screen(2);

	/* A sync of a range shows no more than the range. */
	test_sync(dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_WRITE, first * STRIDE,
		  rows * STRIDE);
	paint(self->view.frame, 3);
	test_sync(dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, first * STRIDE,
		  rows * STRIDE);
	look();
	EXPECT_EQ(0, wrong_pixels(self->view.seen, 2, 0, first * WIDTH));
	EXPECT_EQ(0, wrong_pixels(self->view.seen, 3, first * WIDTH, (first + rows) * WIDTH));
	EXPECT_EQ(0, wrong_pixels(self->view.seen, 2, (first + rows) * WIDTH, PIXELS));
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
	munmap(self->view.frame, HUGE_PAGE);
	self->view.mapped = 0;
	EXPECT_EQ(VMEMEXP_STATE_STALE, test_query(dmabuf).state & VMEMEXP_STATE_STALE);
	EXPECT_EQ(1, test_query(dmabuf).mappings);
	EXPECT_EQ(self->view.address, base());
	/* The frame stays, even if the kernel takes all free huge pages back. */
	set_knob(HUGE_PAGES, "0");
	expect_screen(1);
	close(dmabuf);
}

enum holder { DMABUF, HANDLE, MAPPING, NR_HOLDERS };

/* The frame on the screen is the last one to hold the memory. */
static void __try_order(struct __test_metadata *_metadata, int fd, struct view *view,
			const enum holder *order, bool with_the_card)
{
	struct test_state before = get_state();
	uint32_t handle, frame;
	int dmabuf;

	__make_huge_page(_metadata, view, true);
	dmabuf = __export_frame(_metadata, fd, view);
	frame = __show(_metadata, view, dmabuf, &handle);
	for (int i = 0; i < NR_HOLDERS; i++) {
		switch (order[i]) {
		case DMABUF:
			close(dmabuf);
			break;
		case HANDLE:
			ASSERT_EQ(0, kms_drop(&view->kms, handle));
			break;
		default:
			munmap(view->frame, HUGE_PAGE);
			view->frame = NULL;
			view->mapped = 0;
			break;
		}
	}
	/* A huge page is pinned as one. */
	EXPECT_EQ(before.pins + 1, pinned_pages());
	EXPECT_EQ(view->address, base());
	__look(_metadata, view);
	EXPECT_EQ(0, wrong_pixels(view->seen, 1, 0, PIXELS));
	if (with_the_card) {
		kms_close(&view->kms);
		ASSERT_EQ(0, kms_open(&view->kms, CARD, WIDTH, HEIGHT));
	} else {
		ASSERT_EQ(0, kms_remove_frame(&view->kms, frame));
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
		__try_order(_metadata, self->fd, &self->view, orders[i], i % 2);
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
	cmd = export_args(self->view.frame, HUGE_PAGE, O_RDWR | O_CLOEXEC);
	test_export_cmd(&cmd);
	ASSERT_EQ(0, kms_import(&self->view.kms, cmd.fd, &handle));
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, kms_add_frame(&self->view.kms, handle, offsets[i], STRIDE,
					   &frames[i]));
	ASSERT_EQ(0, kms_show(&self->view.kms, frames[1]));
	interrupts = display_interrupts();
	for (int i = 0; i < 30; i++) {
		ASSERT_EQ(0, kms_flip(&self->view.kms, frames[i % 2], &event));
		EXPECT_EQ(self->view.address + offsets[i % 2], base());
		EXPECT_EQ(self->view.kms.crtc_id, event.crtc_id);
		if (i)
			EXPECT_LT(last, event.sequence);
		last = event.sequence;
	}
	EXPECT_LE(interrupts + 30, display_interrupts());
	close(cmd.fd);
}

TEST_HARNESS_MAIN

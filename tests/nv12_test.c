// SPDX-License-Identifier: GPL-2.0
/*
 * NV12 on a display that takes it: two pieces of memory that lie apart, one for luma and one
 * for chroma, are one dma-buf, whose picture the display shows. The display is vkms, which
 * works with the CPU, by vmap, and can write what it shows into memory. Each pixel of that is
 * compared.
 *
 * Wants vkms of a kernel from 6.16 on, in /vkms.ko: tests/suites/gstreamer nv12 has it.
 */
#include "lib/kms.h"
#include "lib/vmemexp_memory.h"

#define WIDTH		640
#define HEIGHT		480
/* The last page of chroma is half full. */
#define LUMA		((size_t)WIDTH * HEIGHT)
#define CHROMA		(LUMA / 2)
#define CHROMA_PAGES	((CHROMA + PAGE - 1) / PAGE * PAGE)

FIXTURE(nv12)
{
	int fd;
	struct test_state before;
	struct kms kms;
	unsigned char *luma;
	unsigned char *chroma;
};

/* It is none of Debian's. */
#define LOAD_VKMS								\
	"grep -q '^vkms ' /proc/modules || { "				\
	"modprobe -a $(modinfo -F depends /vkms.ko | tr , ' ') && insmod /vkms.ko; }"

FIXTURE_SETUP(nv12)
{
	run(LOAD_VKMS);
	test_setup();
	ASSERT_EQ(0, kms_open_driver(&self->kms, "vkms", WIDTH, HEIGHT));
	self->luma = aligned_alloc(PAGE, LUMA);
	self->chroma = aligned_alloc(PAGE, CHROMA_PAGES);
	ASSERT_NE(NULL, self->luma);
	ASSERT_NE(NULL, self->chroma);
	/* One range would do for what follows one another. */
	ASSERT_NE(self->luma + LUMA, self->chroma);
}

FIXTURE_TEARDOWN(nv12)
{
	kms_close(&self->kms);
	free(self->luma);
	free(self->chroma);
	test_teardown();
}

/* No two seeds, and no two neighbours, are alike. */
static unsigned char sample(unsigned int seed, size_t i)
{
	return (i * 2654435761U + seed * 2246822519U) >> 23;
}

static void paint(unsigned char *luma, unsigned char *chroma, unsigned int seed)
{
	for (size_t i = 0; i < LUMA; i++)
		luma[i] = sample(seed, i);
	for (size_t i = 0; i < CHROMA; i++)
		chroma[i] = sample(seed + 1, i);
}

static bool is_near(double value, unsigned int seen)
{
	value = value < 0 ? 0 : value > 255 ? 255 : value;
	return seen + 1 >= value && seen <= value + 1;
}

/* BT.601 with full range, which is the default of vkms, except for rounding. */
static bool is_shown(double y, double cb, double cr, uint32_t seen)
{
	return is_near(y + 1.402 * (cr - 128), seen >> 16 & 0xff) &&
	       is_near(y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), seen >> 8 & 0xff) &&
	       is_near(y + 1.772 * (cb - 128), seen & 0xff);
}

/* Pixels that are not those of what paint() makes of @seed. */
static size_t wrong_pixels(const uint32_t *seen, unsigned int seed)
{
	size_t wrong = 0;

	for (unsigned int y = 0; y < HEIGHT; y++) {
		for (unsigned int x = 0; x < WIDTH; x++) {
			size_t pair = y / 2 * WIDTH + x / 2 * 2;

			wrong += !is_shown(sample(seed, y * WIDTH + x), sample(seed + 1, pair),
					   sample(seed + 1, pair + 1), seen[y * WIDTH + x]);
		}
	}
	return wrong;
}

static size_t __wrong_on_screen(struct __test_metadata *_metadata, struct kms *kms,
				unsigned int seed)
{
	unsigned int width, height;
	uint32_t *seen;
	size_t wrong;

	ASSERT_EQ(0, kms_write_back(kms->fd, &seen, &width, &height));
	ASSERT_EQ(WIDTH, width);
	ASSERT_EQ(HEIGHT, height);
	wrong = wrong_pixels(seen, seed);
	free(seen);
	return wrong;
}

#define wrong_on_screen(seed) __wrong_on_screen(_metadata, &self->kms, seed)

/* Exports the two ranges as one dma-buf, returns that, and shows it. */
static int __show_planes(struct __test_metadata *_metadata, int fd, struct kms *kms,
			 const struct vmemexp_range *planes)
{
	struct vmemexp_export cmd = list_args(planes, 2, O_RDWR | O_CLOEXEC);
	uint32_t handle, frame;

	__test_export(_metadata, fd, &cmd);
	ASSERT_EQ(0, kms_import(kms, cmd.fd, &handle));
	ASSERT_EQ(0, kms_add_nv12(kms, handle, LUMA, WIDTH, &frame));
	ASSERT_EQ(0, kms_show(kms, frame));
	return cmd.fd;
}

#define show_planes(planes) __show_planes(_metadata, self->fd, &self->kms, planes)

TEST_F(nv12, planes_of_two_mallocs_are_on_the_screen)
{
	struct vmemexp_range planes[] = {
		range_of(self->luma, LUMA),
		range_of(self->chroma, CHROMA_PAGES),
	};
	struct vmemexp_query query;
	int dmabuf;

	paint(self->luma, self->chroma, 1);
	dmabuf = show_planes(planes);
	query = test_query(dmabuf);
	EXPECT_EQ(2, query.nr_ranges);
	/* It maps each plane by itself. */
	EXPECT_EQ(2, query.vmaps);
	EXPECT_EQ(0, wrong_on_screen(1));
	/* Another picture is another one in nearly all pixels. */
	EXPECT_LT(LUMA / 2, wrong_on_screen(3));

	/* The display shows later drawings as well: it reads with the CPU. */
	test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);
	paint(self->luma, self->chroma, 3);
	test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
	EXPECT_EQ(0, wrong_on_screen(3));
	close(dmabuf);
}

TEST_F(nv12, planes_in_the_other_order_are_another_picture)
{
	struct vmemexp_range planes[] = {
		range_of(self->chroma, CHROMA_PAGES),
		range_of(self->luma, LUMA),
	};
	int dmabuf;

	paint(self->luma, self->chroma, 1);
	/* With the offset of luma, the bytes of the same picture are found in neither. */
	dmabuf = show_planes(planes);
	EXPECT_LT(LUMA / 2, wrong_on_screen(1));
	close(dmabuf);
}

TEST_HARNESS_MAIN

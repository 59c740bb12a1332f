// SPDX-License-Identifier: GPL-2.0
/*
 * Syncs, and the data that they copy. QEMU has no caches that could be stale, so devices are used
 * that see the memory through a copy: bounce buffers (swiotlb) where the memory lies above what the
 * device can address, and the test importer's SHADOW and MERGED devices. A model computes what must
 * be copied, and after every step all bytes that the CPU and the device see are compared with it.
 */
#include "lib/rect.h"
#include "lib/vmemexp_utils.h"

#define SCATTERED_PAGES	24
/* Half of a huge page: several entries of what swiotlb can map at once. */
#define HUGE_PAGE	(2UL << 20)
#define HUGE_SIZE	(HUGE_PAGE / 2)

/* More than one block of memory may lie within the reach of the device. */
#define MAX_TRIES	32

FIXTURE(sync)
{
	int fd;
	struct test_state before;
	size_t size;
	uint8_t *buf;
	int dmabuf;
	int session;
	/* The model: what each of them has to see. */
	uint8_t *cpu, *dev;
	uint8_t *seen;
};

FIXTURE_VARIANT(sync)
{
	unsigned int device;
	unsigned int address_bits;
	bool huge;
};

FIXTURE_VARIANT_ADD(sync, shadow)
{
	.device = IMPORTER_DEV_SHADOW,
};

FIXTURE_VARIANT_ADD(sync, shadow_huge)
{
	.device = IMPORTER_DEV_SHADOW,
	.huge = true,
};

FIXTURE_VARIANT_ADD(sync, merged)
{
	.device = IMPORTER_DEV_MERGED,
};

FIXTURE_VARIANT_ADD(sync, bounced_32_bits)
{
	.device = IMPORTER_DEV_MASK32,
	.address_bits = 32,
};

FIXTURE_VARIANT_ADD(sync, bounced_32_bits_huge)
{
	.device = IMPORTER_DEV_MASK32,
	.address_bits = 32,
	.huge = true,
};

FIXTURE_VARIANT_ADD(sync, bounced_28_bits)
{
	.device = IMPORTER_DEV_MASK28,
	.address_bits = 28,
};

FIXTURE_VARIANT_ADD(sync, bounced_28_bits_huge)
{
	.device = IMPORTER_DEV_MASK28,
	.address_bits = 28,
	.huge = true,
};

static uint8_t *make_scattered(struct __test_metadata *_metadata)
{
	const size_t size = SCATTERED_PAGES * page_size();
	uint8_t *buf = map_anon(size);

	ASSERT_NE(MAP_FAILED, (void *)buf);
	ASSERT_EQ(0, forbid_thp(buf, size));
	for (size_t i = 0; i < SCATTERED_PAGES; i++)
		buf[i * 7 % SCATTERED_PAGES * page_size()] = 1;
	return buf;
}

static uint8_t *make_huge(struct __test_metadata *_metadata)
{
	uint8_t *area = map_anon(2 * HUGE_PAGE);

	ASSERT_NE(MAP_FAILED, (void *)area);
	area += -(uintptr_t)area & (HUGE_PAGE - 1);
	ASSERT_EQ(0, madvise(area, HUGE_PAGE, MADV_HUGEPAGE));
	*area = 1;
	ASSERT_EQ(0, collapse(area, HUGE_PAGE));
	return area;
}

/*
 * Return true if the device sees no byte of the memory itself. If the importer cannot count
 * (CONFIG_DMABUF_DEBUG), the driver only knows that there are some it does not see.
 */
static bool __is_all_copied(struct __test_metadata *_metadata, int fd, int session, int dmabuf)
{
	struct importer_info info;
	bool some;

	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	info = test_importer_info(session);
	some = __test_query(_metadata, fd, dmabuf).state & VMEMEXP_STATE_BOUNCED;
	test_importer_unmap(session);
	return info.flags & IMPORTER_INFO_BOUNCED ? info.nr_bounced == info.nents : some;
}

FIXTURE_SETUP(sync)
{
	int ret;

	skip_without_importer();
	if (variant->huge && !has_thp())
		SKIP(return, "the kernel has no transparent huge pages");
	if (variant->address_bits &&
	    bounce_buffers_end() - 1 >= 1ULL << variant->address_bits)
		SKIP(return, "no bounce buffer (swiotlb) below %u address bits",
		     variant->address_bits);
	test_setup();

	self->size = variant->huge ? HUGE_SIZE : SCATTERED_PAGES * page_size();
	for (int tries = 0; tries < MAX_TRIES; tries++) {
		self->buf = variant->huge ? make_huge(_metadata) :
					    make_scattered(_metadata);
		self->dmabuf = test_export(self->buf, self->size, O_RDWR);
		self->session = test_importer_open();
		ret = _test_importer_attach(self->session, self->dmabuf,
					    variant->device);
		if (ret == -EOPNOTSUPP)
			SKIP(return, "the kernel has no CONFIG_ARCH_HAS_DMA_OPS");
		ASSERT_EQ(0, ret);
		if (__is_all_copied(_metadata, self->fd, self->session, self->dmabuf))
			break;
		/* Keep the memory, and take more, so that the next try gets other. */
		memset(map_anon(4 * HUGE_PAGE), 1, 4 * HUGE_PAGE);
		close(self->session);
		close(self->dmabuf);
		self->dmabuf = -1;
	}
	if (self->dmabuf < 0)
		SKIP(return, "no memory above %u address bits",
		     variant->address_bits);
	ASSERT_EQ(variant->huge, test_query(self->dmabuf).nr_extents == 1);

	self->cpu = malloc(self->size);
	self->dev = malloc(self->size);
	self->seen = malloc(self->size);
	ASSERT_TRUE(self->cpu && self->dev && self->seen);
	memset(self->buf, 0, self->size);
	memset(self->cpu, 0, self->size);
}

FIXTURE_TEARDOWN(sync)
{
	/* Wrong uses of the DMA API, which these devices look for. */
	EXPECT_EQ(0, test_importer_info(self->session).nr_errors);
	close(self->session);
	close(self->dmabuf);
	test_teardown();
}

/* ---- the model ---- */

static void __check_bytes(struct __test_metadata *_metadata, const char *who,
			  const uint8_t *want, const uint8_t *got, size_t size)
{
	EXPECT_EQ(0, memcmp(want, got, size)) {
		size_t i = 0;

		while (want[i] == got[i])
			i++;
		TH_LOG("%s sees %#x instead of %#x at byte %zu", who, got[i],
		       want[i], i);
	}
}

/* For a device that is not the fixture's, too. */
#define check_device(session, want) do {				\
	test_importer_read(session, 0, self->seen, self->size);		\
	__check_bytes(_metadata, "the device", want, self->seen,	\
		      self->size);					\
} while (0)

#define check_cpu() \
	__check_bytes(_metadata, "the CPU", self->cpu, self->buf, self->size)

#define check_both() do {						\
	check_cpu();							\
	check_device(self->session, self->dev);				\
} while (0)

/* The CPU writes all bytes; neighbours and seeds differ. */
#define cpu_writes(seed) do {						\
	fill(self->cpu, self->size, seed);				\
	memcpy(self->buf, self->cpu, self->size);			\
} while (0)

#define other_device_writes(session, dev, seed) do {			\
	fill(dev, self->size, seed);					\
	test_importer_write(session, 0, dev, self->size);		\
} while (0)

#define device_writes(seed) \
	other_device_writes(self->session, self->dev, seed)

/* The state that most tests begin with: both see the same. */
#define map_filled(direction, seed) do {				\
	cpu_writes(seed);						\
	test_importer_map(self->session, direction);			\
	memcpy(self->dev, self->cpu, self->size);			\
	check_both();							\
} while (0)

#define MAX_RECTS	13

/* Ranges that begin and end anywhere, and across pages, extents and entries. */
static size_t make_rects(struct rect *rects, size_t size)
{
	const size_t page = page_size();
	const struct rect all[] = {
		{ 0, 1, 0, 1 },
		{ size - 1, 1, 0, 1 },
		{ 0, size, 0, 1 },
		{ 1, size - 2, 0, 1 },
		{ page - 1, 2, 0, 1 },
		{ page + 100, 3 * page, 0, 1 },
		{ size / 4 - 7, size / 2 + 14, 0, 1 },
		{ 0, page, 2 * page, size / page / 2 },
		{ page / 2, 64, 256, (size - page) / 256 },
		{ 7, 100, 100, 100 },
		{ 3, 5, page + 1, size / (page + 1) - 1 },
		{ 0, 1, size - 1, 2 },
		/* More at a time than others wait for, if the buffer is large. */
		{ 5, size / 4 + 9, size / 3, 3 },
	};

	memcpy(rects, all, sizeof(all));
	return ARRAY_SIZE(all);
}

#define sync_rect(flags, rect)						\
	test_sync_rows(self->dmabuf, flags, (rect)->offset,		\
		       (rect)->length, (rect)->stride, (rect)->rows)

/* ---- the tests: explicit syncs ---- */

TEST_F(sync, without_one_both_see_old_data)
{
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	cpu_writes(2);
	check_both();
	device_writes(3);
	check_both();
}

TEST_F(sync, end_write_shows_the_device_exactly_the_bytes_named)
{
	static const unsigned int flags[] = {
		VMEMEXP_SYNC_WRITE, VMEMEXP_SYNC_RW,
	};
	struct rect rects[MAX_RECTS];
	size_t nr = make_rects(rects, self->size);
	unsigned int seed = 1;

	map_filled(IMPORTER_BIDIRECTIONAL, seed);
	for (size_t i = 0; i < 2 * nr; i++) {
		const struct rect *rect = &rects[i / 2];

		cpu_writes(++seed);
		sync_rect(VMEMEXP_SYNC_END | flags[i % 2], rect);
		copy_rect(self->dev, self->cpu, rect);
		check_both();
	}
}

TEST_F(sync, start_read_shows_the_cpu_exactly_the_bytes_named)
{
	static const unsigned int flags[] = {
		VMEMEXP_SYNC_READ, VMEMEXP_SYNC_RW,
	};
	struct rect rects[MAX_RECTS];
	size_t nr = make_rects(rects, self->size);
	unsigned int seed = 1;

	map_filled(IMPORTER_BIDIRECTIONAL, seed);
	for (size_t i = 0; i < 2 * nr; i++) {
		const struct rect *rect = &rects[i / 2];

		device_writes(++seed);
		sync_rect(VMEMEXP_SYNC_START | flags[i % 2], rect);
		copy_rect(self->cpu, self->dev, rect);
		check_both();
	}
}

TEST_F(sync, end_read_does_not_overwrite_what_the_device_wrote_meanwhile)
{
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 0,
		  self->size);
	device_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ, 0,
		  self->size);
	check_both();
}

/* END hands over the whole range, also what the CPU did not write in it. */
TEST_F(sync, bracket_for_writing_keeps_what_the_device_wrote_before)
{
	const size_t half = self->size / 2 + 5;

	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	device_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_WRITE, 0,
		  self->size);
	fill(self->buf, half, 3);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, 0,
		  self->size);
	fill(self->dev, half, 3);
	memcpy(self->cpu, self->dev, self->size);
	check_both();
}

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Any rectangle that fits. */
static struct rect random_rect(uint32_t *state, size_t size)
{
	struct rect rect = { .rows = 1 };
	size_t room;

	rect.offset = next_random(state) % size;
	rect.length = 1 + next_random(state) % (size - rect.offset);
	if (next_random(state) % 2) {
		rect.length = rect.length / 8 + 1;
		rect.stride = rect.length + next_random(state) % page_size();
		room = size - rect.offset - rect.length;
		rect.rows = 1 + next_random(state) % (room / rect.stride + 1);
	}
	return rect;
}

TEST_F(sync, random_steps_follow_the_model)
{
	uint32_t random = 20170222;

	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	for (unsigned int step = 0; step < 200; step++) {
		struct rect rect = random_rect(&random, self->size);
		size_t offset = next_random(&random) % self->size;
		size_t length = 1 + next_random(&random) %
				    (self->size - offset);
		unsigned int what = next_random(&random) % 5;

		switch (what) {
		case 0:
			fill(self->cpu + offset, length, step);
			memcpy(self->buf + offset, self->cpu + offset, length);
			break;
		case 1:
			fill(self->dev + offset, length, step);
			test_importer_write(self->session, offset,
					    self->dev + offset, length);
			break;
		case 2:
			sync_rect(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ,
				  &rect);
			copy_rect(self->cpu, self->dev, &rect);
			break;
		case 3:
			sync_rect(VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE,
				  &rect);
			copy_rect(self->dev, self->cpu, &rect);
			break;
		case 4:
			sync_rect(VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ, &rect);
			break;
		}
		check_both();
		ASSERT_EQ(0, _metadata->exit_code) {
			TH_LOG("step %u, kind %u", step, what);
		}
	}
}

TEST_F(sync, names_each_byte_once)
{
	/* Other devices do not count. */
	const bool counts = !variant->address_bits;
	struct importer_info before, after;
	struct rect rects[MAX_RECTS];
	size_t nr = make_rects(rects, self->size);

	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	before = test_importer_info(self->session);
	for (size_t i = 0; i < nr; i++) {
		size_t bytes = counts ? rects[i].rows * rects[i].length : 0;

		sync_rect(VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, &rects[i]);
		after = test_importer_info(self->session);
		EXPECT_EQ(bytes, after.sync_for_device_bytes -
				 before.sync_for_device_bytes);
		EXPECT_EQ(before.sync_for_cpu_bytes, after.sync_for_cpu_bytes);

		before = after;
		sync_rect(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, &rects[i]);
		after = test_importer_info(self->session);
		EXPECT_EQ(bytes, after.sync_for_cpu_bytes -
				 before.sync_for_cpu_bytes);
		EXPECT_EQ(before.sync_for_device_bytes,
			  after.sync_for_device_bytes);
		before = after;
	}
	check_both();
}

TEST_F(sync, for_an_observer_does_not_touch_devices)
{
	struct importer_info before, after;

	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	before = test_importer_info(self->session);
	cpu_writes(2);
	device_writes(3);
	for (unsigned int flags = 1; flags < 8; flags++) {
		if (flags & VMEMEXP_SYNC_RW)
			test_sync(self->dmabuf, flags | VMEMEXP_SYNC_OBSERVER,
				  0, self->size);
		check_both();
	}
	after = test_importer_info(self->session);
	EXPECT_EQ(before.nr_sync_for_cpu, after.nr_sync_for_cpu);
	EXPECT_EQ(before.nr_sync_for_device, after.nr_sync_for_device);
}

/* ---- the same by way of the dma-buf core: always the whole buffer ---- */

TEST_F(sync, of_dma_buf_does_it_for_the_whole_buffer)
{
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	cpu_writes(2);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
	memcpy(self->dev, self->cpu, self->size);
	check_both();

	device_writes(3);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
	memcpy(self->cpu, self->dev, self->size);
	check_both();

	device_writes(4);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
	check_both();
}

TEST_F(sync, of_an_importer_does_it_for_the_whole_buffer)
{
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	cpu_writes(2);
	test_importer_end_cpu(self->session, IMPORTER_TO_DEVICE);
	memcpy(self->dev, self->cpu, self->size);
	check_both();

	device_writes(3);
	test_importer_begin_cpu(self->session, IMPORTER_FROM_DEVICE);
	memcpy(self->cpu, self->dev, self->size);
	check_both();

	device_writes(4);
	test_importer_end_cpu(self->session, IMPORTER_FROM_DEVICE);
	check_both();
}

/* ---- map and unmap, and the direction they are given ---- */

TEST_F(sync, map_and_unmap_need_none)
{
	for (unsigned int seed = 1; seed < 9; seed += 2) {
		map_filled(IMPORTER_BIDIRECTIONAL, seed);
		device_writes(seed + 1);
		test_importer_unmap(self->session);
		memcpy(self->cpu, self->dev, self->size);
		check_cpu();
	}
}

TEST_F(sync, to_device_never_changes_memory)
{
	map_filled(IMPORTER_TO_DEVICE, 1);
	device_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW, 0,
		  self->size);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
	check_both();
	test_importer_unmap(self->session);
	check_cpu();
}

TEST_F(sync, to_device_shows_the_device_what_is_synced)
{
	map_filled(IMPORTER_TO_DEVICE, 1);
	cpu_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, 0,
		  self->size);
	memcpy(self->dev, self->cpu, self->size);
	check_both();
}

TEST_F(sync, from_device_never_changes_what_the_device_has)
{
	cpu_writes(1);
	test_importer_map(self->session, IMPORTER_FROM_DEVICE);
	device_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW, 0,
		  self->size);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);
	check_both();
	test_importer_unmap(self->session);
	memcpy(self->cpu, self->dev, self->size);
	check_cpu();
}

TEST_F(sync, from_device_shows_the_cpu_what_is_synced)
{
	const size_t half = self->size / 2 + 5;

	cpu_writes(1);
	test_importer_map(self->session, IMPORTER_FROM_DEVICE);
	device_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 0,
		  half);
	memcpy(self->cpu, self->dev, half);
	check_both();
}

TEST_F(sync, of_what_is_not_mapped_does_nothing)
{
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW, 0,
		  self->size);
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	device_writes(2);
	test_importer_unmap(self->session);
	cpu_writes(3);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW, 0,
		  self->size);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW, 0,
		  self->size);
	check_cpu();
}

/* ---- two devices, two processes, two views of the memory ---- */

TEST_F(sync, reaches_two_devices_each_in_its_direction)
{
	uint8_t *dev2 = malloc(self->size);
	int reader = test_importer_open();

	ASSERT_NE(NULL, dev2);
	test_importer_attach(reader, self->dmabuf, variant->device);
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	test_importer_map(reader, IMPORTER_TO_DEVICE);
	memcpy(dev2, self->cpu, self->size);
	check_device(reader, dev2);

	cpu_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, 100,
		  self->size / 2);
	memcpy(self->dev + 100, self->cpu + 100, self->size / 2);
	memcpy(dev2 + 100, self->cpu + 100, self->size / 2);
	check_both();
	check_device(reader, dev2);

	/* Only one of them may write. */
	other_device_writes(reader, dev2, 3);
	device_writes(4);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 100,
		  self->size / 2);
	memcpy(self->cpu + 100, self->dev + 100, self->size / 2);
	check_both();
	check_device(reader, dev2);

	EXPECT_EQ(0, test_importer_info(reader).nr_errors);
	close(reader);
	free(dev2);
}

/* One of the two works on the memory itself, and has nothing to be synced. */
TEST_F(sync, reaches_a_device_beside_one_that_needs_none)
{
	int direct = test_importer_open();
	struct rect rects[MAX_RECTS];
	size_t nr = make_rects(rects, self->size);
	unsigned int seed = 1;

	for (int round = 0; round < 2; round++) {
		/* It comes after the other device, and later before it. */
		if (!round) {
			map_filled(IMPORTER_BIDIRECTIONAL, seed);
			test_importer_attach(direct, self->dmabuf, IMPORTER_DEV_COHERENT);
			test_importer_map(direct, IMPORTER_BIDIRECTIONAL);
		} else {
			test_importer_detach(self->session);
			test_importer_attach(self->session, self->dmabuf, variant->device);
			map_filled(IMPORTER_BIDIRECTIONAL, ++seed);
		}
		EXPECT_EQ(2, test_query(self->dmabuf).mappings);
		for (size_t i = 0; i < nr; i++) {
			cpu_writes(++seed);
			sync_rect(VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, &rects[i]);
			copy_rect(self->dev, self->cpu, &rects[i]);
			check_both();
			check_device(direct, self->cpu);

			device_writes(++seed);
			sync_rect(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, &rects[i]);
			copy_rect(self->cpu, self->dev, &rects[i]);
			check_both();
			check_device(direct, self->cpu);
		}
		test_importer_unmap(self->session);
		memcpy(self->cpu, self->dev, self->size);
		check_cpu();
		check_device(direct, self->cpu);
	}

	/* The order in which they are unmapped does not matter, either. */
	map_filled(IMPORTER_BIDIRECTIONAL, ++seed);
	test_importer_unmap(direct);
	cpu_writes(++seed);
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, 0, self->size);
	memcpy(self->dev, self->cpu, self->size);
	check_both();
	close(direct);
}

TEST_F(sync, brings_data_from_one_device_to_another)
{
	int display = test_importer_open();

	test_importer_attach(display, self->dmabuf, variant->device);
	cpu_writes(1);
	test_importer_map(self->session, IMPORTER_FROM_DEVICE);
	test_importer_map(display, IMPORTER_TO_DEVICE);
	check_device(display, self->cpu);

	for (unsigned int seed = 2; seed < 5; seed++) {
		device_writes(seed);
		check_device(display, self->cpu);
		test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW, 0,
			  self->size);
		test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW, 0,
			  self->size);
		memcpy(self->cpu, self->dev, self->size);
		check_both();
		check_device(display, self->cpu);
	}
	EXPECT_EQ(0, test_importer_info(display).nr_errors);
	close(display);
}

TEST_F(sync, takes_what_a_writing_device_has_over_what_another_one_could)
{
	int display = test_importer_open();

	test_importer_attach(display, self->dmabuf, variant->device);
	cpu_writes(1);
	test_importer_map(self->session, IMPORTER_FROM_DEVICE);
	test_importer_map(display, IMPORTER_BIDIRECTIONAL);
	check_device(display, self->cpu);

	device_writes(2);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 5,
		  self->size / 2);
	memcpy(self->cpu + 5, self->dev + 5, self->size / 2);
	check_both();
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
	memcpy(self->cpu, self->dev, self->size);
	check_both();

	EXPECT_EQ(0, test_importer_info(display).nr_errors);
	close(display);
}

TEST_F(sync, covers_what_was_written_through_the_dma_buf)
{
	uint8_t *map = mmap(NULL, self->size, PROT_READ | PROT_WRITE,
			    MAP_SHARED, self->dmabuf, 0);

	ASSERT_NE(MAP_FAILED, (void *)map);
	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	fill(map, self->size, 2);
	fill(self->cpu, self->size, 2);
	check_both();
	test_sync(self->dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, 0,
		  self->size);
	memcpy(self->dev, self->cpu, self->size);
	check_both();
	device_writes(3);
	test_sync(self->dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 0,
		  self->size);
	EXPECT_EQ(-1, first_difference(map, self->size, 3));
	munmap(map, self->size);
}

TEST_F(sync, works_from_another_process)
{
	pid_t pid;

	map_filled(IMPORTER_BIDIRECTIONAL, 1);
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid) {
		int fd = open(VMEMEXP_PATH, O_RDWR);
		uint8_t *map = mmap(NULL, self->size, PROT_READ | PROT_WRITE,
				    MAP_SHARED, self->dmabuf, 0);

		if (fd < 0 || map == MAP_FAILED)
			_exit(1);
		fill(map, self->size, 2);
		_exit(_test_sync(fd, self->dmabuf, VMEMEXP_SYNC_END |
				 VMEMEXP_SYNC_WRITE, 0, self->size) ? 2 : 0);
	}
	ASSERT_EQ(0, wait_for_child(pid));
	fill(self->cpu, self->size, 2);
	memcpy(self->dev, self->cpu, self->size);
	check_both();
}

TEST_F(sync, of_a_read_only_buffer_shows_the_device_what_the_owner_wrote)
{
	int dmabuf = test_export(self->buf, self->size, O_RDONLY);
	int reader = test_importer_open();

	test_importer_attach(reader, dmabuf, variant->device);
	cpu_writes(1);
	test_importer_map(reader, IMPORTER_TO_DEVICE);
	memcpy(self->dev, self->cpu, self->size);
	check_device(reader, self->dev);

	cpu_writes(2);
	for (unsigned int flags = 1; flags < 4; flags++)
		test_sync(dmabuf, VMEMEXP_SYNC_START | flags, 0, self->size);
	check_device(reader, self->dev);
	check_cpu();
	test_sync(dmabuf, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, 7,
		  self->size - 14);
	memcpy(self->dev + 7, self->cpu + 7, self->size - 14);
	check_device(reader, self->dev);
	check_cpu();

	EXPECT_EQ(0, test_importer_info(reader).nr_errors);
	close(reader);
	close(dmabuf);
}

/* ---- importers that edit the scatterlist which they got ---- */

/* Neighbours in the range, but not in memory. */
#define EDITED_PAGES	256

/* As many of these use up all bounce buffers, if they are not given back. */
#define EDITS		100

FIXTURE(edited)
{
	int fd;
	struct test_state before;
	size_t size;
	uint8_t *buf;
	int dmabuf;
	int session;
	struct importer_info fresh;
	uint8_t *seen;
};

FIXTURE_VARIANT(edited)
{
	unsigned int device;
	unsigned int address_bits;
};

FIXTURE_VARIANT_ADD(edited, by_a_coherent_device)
{
	.device = IMPORTER_DEV_COHERENT,
};

FIXTURE_VARIANT_ADD(edited, by_a_device_with_small_segments)
{
	.device = IMPORTER_DEV_SEGMENT64K,
};

FIXTURE_VARIANT_ADD(edited, by_a_noncoherent_device)
{
	.device = IMPORTER_DEV_NONCOHERENT,
};

FIXTURE_VARIANT_ADD(edited, by_a_shadow_device)
{
	.device = IMPORTER_DEV_SHADOW,
};

FIXTURE_VARIANT_ADD(edited, by_a_merged_device)
{
	.device = IMPORTER_DEV_MERGED,
};

FIXTURE_VARIANT_ADD(edited, by_a_device_with_32_bits)
{
	.device = IMPORTER_DEV_MASK32,
	.address_bits = 32,
};

FIXTURE_VARIANT_ADD(edited, by_a_device_with_28_bits)
{
	.device = IMPORTER_DEV_MASK28,
	.address_bits = 28,
};

FIXTURE_SETUP(edited)
{
	skip_without_importer();
	if (variant->address_bits &&
	    bounce_buffers_end() - 1 >= 1ULL << variant->address_bits)
		SKIP(return, "no bounce buffer (swiotlb) below %u address bits",
		     variant->address_bits);
	test_setup();
	self->size = EDITED_PAGES * page_size();
	self->seen = malloc(self->size);
	ASSERT_NE(NULL, self->seen);
	for (int tries = 0; tries < MAX_TRIES; tries++) {
		self->buf = map_anon(self->size);
		ASSERT_NE(MAP_FAILED, (void *)self->buf);
		ASSERT_EQ(0, forbid_thp(self->buf, self->size));
		/* Odd, so that it reaches each page of a power of two. */
		for (size_t i = 0; i < EDITED_PAGES; i++)
			self->buf[i * 7 % EDITED_PAGES * page_size()] = 1;
		self->dmabuf = test_export(self->buf, self->size, O_RDWR);
		ASSERT_LT(2, test_query(self->dmabuf).nr_extents);
		if (!variant->address_bits ||
		    test_query(self->dmabuf).address_bits > variant->address_bits)
			break;
		/* Keep the memory, and take more, so that the next try gets other. */
		memset(map_anon(4 * HUGE_PAGE), 1, 4 * HUGE_PAGE);
		close(self->dmabuf);
		self->dmabuf = -1;
	}
	if (self->dmabuf < 0)
		SKIP(return, "no memory above %u address bits", variant->address_bits);
	self->session = test_importer_open();
	test_importer_attach(self->session, self->dmabuf, variant->device);
}

FIXTURE_TEARDOWN(edited)
{
	close(self->session);
	close(self->dmabuf);
	free(self->seen);
	test_teardown();
}

/* An earlier change of the list does not change what the importer gets. */
#define check_fresh(seed) do {						\
	struct importer_info now;					\
									\
	fill(self->buf, self->size, seed);				\
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);	\
	now = test_importer_info(self->session);			\
	EXPECT_EQ(self->fresh.nents, now.nents);			\
	EXPECT_EQ(self->fresh.orig_nents, now.orig_nents);		\
	EXPECT_EQ(self->fresh.nr_bounced, now.nr_bounced);		\
	EXPECT_EQ(self->fresh.dma_size, now.dma_size);			\
	EXPECT_EQ(self->fresh.min_segment, now.min_segment);		\
	EXPECT_EQ(self->fresh.max_segment, now.max_segment);		\
	EXPECT_EQ(self->fresh.nr_mapped, now.nr_mapped);		\
	EXPECT_EQ(0, now.nr_errors);					\
	test_importer_read(self->session, 0, self->seen, self->size);	\
	EXPECT_EQ(-1, first_difference(self->seen, self->size, seed));	\
} while (0)

/* The device writes before, and what it wrote is all there afterwards. */
#define edit_and_unmap(seed, nents, skip, trim) do {			\
	fill(self->seen, self->size, seed);				\
	test_importer_write(self->session, 0, self->seen, self->size);	\
	test_importer_edit(self->session, nents, skip, trim);		\
	EXPECT_GT(self->size, test_importer_info(self->session).dma_size); \
	test_importer_unmap(self->session);				\
	EXPECT_EQ(-1, first_difference(self->buf, self->size, seed));	\
	EXPECT_EQ(0, test_importer_info(self->session).nr_mapped);	\
	EXPECT_EQ(0, test_importer_info(self->session).nr_errors);	\
} while (0)

TEST_F(edited, list_is_fresh_with_the_next_mapping)
{
	const size_t page = page_size();
	unsigned int all;

	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
	self->fresh = test_importer_info(self->session);
	EXPECT_EQ(self->size, self->fresh.dma_size);
	all = self->fresh.nents;
	test_importer_unmap(self->session);

	check_fresh(1);
	edit_and_unmap(2, all, 100, 0);
	check_fresh(3);
	edit_and_unmap(4, all, 0, page - 1);
	check_fresh(5);
	edit_and_unmap(6, all, page / 2, page / 2 - 1);
	check_fresh(7);
	if (all > 1) {
		edit_and_unmap(8, 1, 0, 0);
		check_fresh(9);
		edit_and_unmap(10, all / 2, 1, page / 4);
		check_fresh(11);
	}
	test_importer_unmap(self->session);
}

TEST_F(edited, list_leaves_nothing_mapped)
{
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
	self->fresh = test_importer_info(self->session);
	for (unsigned int i = 0; i < EDITS; i++) {
		test_importer_edit(self->session, (self->fresh.nents + 1) / 2, 64, 64);
		test_importer_unmap(self->session);
		ASSERT_EQ(0, test_importer_info(self->session).nr_mapped);
		test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
	}
	test_importer_unmap(self->session);
	check_fresh(1);
	/* Also if this is the last that the importer does. */
	test_importer_edit(self->session, (self->fresh.nents + 1) / 2, 64, 64);
	test_importer_unmap(self->session);
	EXPECT_EQ(0, test_importer_info(self->session).nr_errors);
	EXPECT_EQ(-1, first_difference(self->buf, self->size, 1));
	test_importer_detach(self->session);
	EXPECT_EQ(0, test_query(self->dmabuf).attachments);
}

/* There is no entry behind the end of a list, for those who walk to it. */
TEST_F(edited, list_that_an_importer_has_ended_is_whole_with_the_next_mapping)
{
	unsigned int ends[3], seed = 1;

	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
	self->fresh = test_importer_info(self->session);
	/* Each of them before the end, also if all are one segment. */
	ASSERT_LT(2, self->fresh.orig_nents);
	ends[0] = 1;
	ends[1] = (self->fresh.nents + 1) / 2;
	ends[2] = self->fresh.nents - (self->fresh.nents == self->fresh.orig_nents);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		int ret = _test_importer_mark_end(self->session, ends[i]);

		if (ret == -EOPNOTSUPP)
			SKIP(return, "CONFIG_DMABUF_DEBUG does not stand a list that ends early");
		ASSERT_EQ(0, ret);
		/* It is in use meanwhile. */
		fill(self->buf, self->size, seed);
		test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
		test_importer_unmap(self->session);
		EXPECT_EQ(-1, first_difference(self->buf, self->size, seed));
		EXPECT_EQ(0, test_importer_info(self->session).nr_mapped);
		EXPECT_EQ(0, test_importer_info(self->session).nr_errors);
		seed++;
		check_fresh(seed);
	}
	/* Also if this is the last that the importer does. */
	ASSERT_EQ(0, _test_importer_mark_end(self->session, 1));
	test_importer_unmap(self->session);
	test_importer_detach(self->session);
	EXPECT_EQ(0, test_query(self->dmabuf).attachments);
}

TEST_F(edited, list_is_that_of_one_device)
{
	int other = test_importer_open();

	test_importer_attach(other, self->dmabuf, variant->device);
	test_importer_map(self->session, IMPORTER_TO_DEVICE);
	test_importer_map(other, IMPORTER_TO_DEVICE);
	self->fresh = test_importer_info(other);
	test_importer_edit(self->session, 1, 100, 100);
	EXPECT_EQ(self->fresh.nents, test_importer_info(other).nents);
	EXPECT_EQ(self->size, test_importer_info(other).dma_size);
	fill(self->buf, self->size, 3);
	test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
	test_importer_read(other, 0, self->seen, self->size);
	EXPECT_EQ(-1, first_difference(self->seen, self->size, 3));
	/* A sync goes to what was mapped, whatever the list says. */
	test_importer_read(self->session, 0, self->seen, 64);
	EXPECT_EQ(0, memcmp(self->buf + 100, self->seen, 64));
	EXPECT_EQ(0, test_importer_info(self->session).nr_errors);
	EXPECT_EQ(0, test_importer_info(other).nr_errors);
	close(other);
}

/* ---- what cannot be mapped ---- */

FIXTURE(unmappable)
{
	int fd;
	struct test_state before;
};

FIXTURE_SETUP(unmappable)
{
	skip_without_importer();
	test_setup();
}

FIXTURE_TEARDOWN(unmappable)
{
	test_teardown();
}

/*
 * More than all bounce buffers, or where there are none, for a device that
 * reaches nothing. The harness sees to it that the kernel log keeps quiet.
 */
TEST_F(unmappable, is_refused_without_a_word_in_the_log)
{
	const bool bounces = bounce_buffers_end();
	const size_t size = bounces ? 64 * HUGE_PAGE : page_size();
	struct importer_info info;
	int dmabuf, session, small;
	uint8_t *buf = map_anon(size + HUGE_PAGE);

	ASSERT_NE(MAP_FAILED, (void *)buf);
	madvise(buf, size + HUGE_PAGE, MADV_HUGEPAGE);
	dmabuf = test_export(buf, size, O_RDWR);
	session = test_importer_open();
	test_importer_attach(session, dmabuf,
			     bounces ? IMPORTER_DEV_MASK32 :
				       IMPORTER_DEV_MASK28);
	if (test_query(dmabuf).address_bits <= (bounces ? 32 : 28))
		SKIP(return, "all memory is within reach");
	/* Since fffe3cc8c219 (v5.15) dma_map_sgtable() tells why. */
	EXPECT_EQ(kernel_at_least(5, 15) ? -EIO : -EINVAL,
		  _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, test_query(dmabuf).mappings);
	EXPECT_EQ(0, test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED);
	close(session);
	close(dmabuf);

	/* The bounce buffers that were taken before they ran out have been given back. */
	if (bounces) {
		small = test_export(buf, HUGE_PAGE, O_RDWR);
		session = test_importer_open();
		test_importer_attach(session, small, IMPORTER_DEV_MASK32);
		for (int i = 0; i < 64; i++) {
			test_importer_map(session, IMPORTER_BIDIRECTIONAL);
			info = test_importer_info(session);
			test_importer_unmap(session);
		}
		EXPECT_EQ(0, info.nr_errors);
		close(session);
		close(small);
	}
}

TEST_HARNESS_MAIN

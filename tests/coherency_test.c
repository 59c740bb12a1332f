// SPDX-License-Identifier: GPL-2.0
/*
 * Coherency that can be seen: data that a real DMA engine (QEMU's edu device)
 * moves in and out of exported memory, as the mode of the machine has it:
 * directly, through a bounce buffer, or behind an IOMMU.
 *
 * A model says what the CPU and the device have to see. Where nothing bounces
 * they share their bytes; where something does, it is the copy that a sync, or
 * mapping and unmapping, brings up to date, and just that. So it is shown not
 * only that data arrives, but also that without the sync it would not have.
 *
 * Each transfer takes the device 100 ms, so most tests look at a few KiB.
 */
#include "lib/rect.h"
#include "lib/vmemexp_coherency.h"
#include "lib/vmemexp_memory.h"

/* No two of them are neighbours in memory. */
#define NR_PAGES	4
#define SIZE		(NR_PAGES * PAGE)

/* Half of a huge page: more than what swiotlb maps as one segment. */
#define BIG_SIZE	(HUGE_PAGE / 2)
#define BOUNCE_SEGMENT	(256UL << 10)

#define READ		VMEMEXP_SYNC_READ
#define WRITE		VMEMEXP_SYNC_WRITE

static const struct rect whole = { .length = SIZE };

/* Across the border of two pages that are no neighbours in memory. */
static const struct rect part = { .offset = PAGE - 1001, .length = 1713 };

/* The ranges do not touch: a sync of a byte too many is seen. */
static const struct rect rects[] = {
	{ .offset = 5, .length = 1 },
	{ .offset = PAGE - 3, .length = 7 },
	{ .offset = PAGE + 301, .length = 33, .stride = 257, .rows = 11 },
	{ .offset = 2 * PAGE - 100, .length = PAGE + 201 },
	{ .offset = SIZE - 1, .length = 1 },
};

/* ---- a buffer, the device that maps it, and what each side has to see ---- */

/* How the CPU's turn begins and ends. */
enum how { MAP_UNMAP, SYNC, RANGED };

struct bench {
	int fd;			/* /dev/vmemexp */
	enum how how;
	bool bounces;
	unsigned int bits;	/* of the device's DMA mask */
	uint8_t *buf;
	size_t size;
	int dmabuf;
	int edu;
	unsigned int dir;
	/* The model; one and the same where nothing bounces. */
	uint8_t *cpu, *dev;
};

FIXTURE(coherency)
{
	int fd;
	struct test_state before;
	struct bench bench;
};

FIXTURE_VARIANT(coherency)
{
	enum how how;
};

FIXTURE_VARIANT_ADD(coherency, map_unmap)
{
	.how = MAP_UNMAP,
};

FIXTURE_VARIANT_ADD(coherency, sync)
{
	.how = SYNC,
};

FIXTURE_VARIANT_ADD(coherency, ranged)
{
	.how = RANGED,
};

/* The kernel may well hand out neighbours, but not everywhere. */
static uint8_t *__make_scattered(struct __test_metadata *_metadata)
{
	struct memory memory = { .size = SMALL };

	for (int tries = 0; tries < 16; tries++) {
		make_anon(_metadata, &memory);
		for (size_t i = 0; i <= PAGES - NR_PAGES; i++)
			if (physical_extents(memory.addr + i * PAGE, SIZE).nr == NR_PAGES)
				return memory.addr + i * PAGE;
	}
	ASSERT_TRUE(!"scattered pages");
	return NULL;
}

/* Exports @buf as @cmd says, attaches, and makes the model. */
static void __use_buffer(struct __test_metadata *_metadata, struct bench *b,
			 struct vmemexp_export *cmd, uint8_t *buf, size_t size)
{
	b->buf = buf;
	b->size = size;
	b->dmabuf = __test_export(_metadata, b->fd, cmd);
	ASSERT_EQ(size, cmd->dmabuf_size);
	b->edu = test_edu_open();
	test_edu_attach(b->edu, b->dmabuf, 0, b->bits);
	b->cpu = malloc(size);
	b->dev = b->bounces ? malloc(size) : b->cpu;
	ASSERT_TRUE(b->cpu && b->dev);
	fill(b->buf, size, 1);
	fill(b->cpu, size, 1);
}

static void drop_buffer(struct bench *b)
{
	close(b->edu);
	close(b->dmabuf);
	if (b->dev != b->cpu)
		free(b->dev);
	free(b->cpu);
}

FIXTURE_SETUP(coherency)
{
	struct bench *b = &self->bench;
	struct vmemexp_export cmd;
	uint8_t *buf;

	skip_without_edu(1);
	test_setup();
	b->fd = self->fd;
	b->how = variant->how;
	b->bits = test_coherency_mode();
	b->bounces = bounces_in(coherency_mode());

	buf = __make_scattered(_metadata);
	/* The exported range begins and ends in the middle of a page. */
	cmd = export_args(buf + CUT_FRONT, SIZE - CUT_FRONT - CUT_BACK, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	__use_buffer(_metadata, b, &cmd, buf, SIZE);
}

FIXTURE_TEARDOWN(coherency)
{
	drop_buffer(&self->bench);
	test_teardown();
}

/* ---- CPU access, and what START and END bring up to date ---- */

static void copy_scope(const struct bench *b, uint8_t *to, const uint8_t *from,
		       const struct rect *r)
{
	if (b->how == RANGED)
		copy_rect(to, from, r);
	else
		memmove(to, from, b->size);
}

static void __sync(struct __test_metadata *_metadata, const struct bench *b,
		   unsigned int flags, const struct rect *r)
{
	int ret;

	if (b->how == SYNC)
		ret = _test_dmabuf_sync(b->dmabuf, flags);
	else
		ret = _test_sync_rows(b->fd, b->dmabuf, flags, r->offset,
				      r->length, r->stride, r->rows);
	ASSERT_EQ(0, ret);
}

static void __map_buffer(struct __test_metadata *_metadata, struct bench *b,
			 unsigned int dir)
{
	test_edu_map(b->edu, dir);
	b->dir = dir;
	memmove(b->dev, b->cpu, b->size);
}

static void __unmap_buffer(struct __test_metadata *_metadata, struct bench *b)
{
	test_edu_unmap(b->edu);
	if (b->dir != EDU_TO_DEVICE)
		memmove(b->cpu, b->dev, b->size);
}

static void __start(struct __test_metadata *_metadata, struct bench *b,
		    unsigned int access, const struct rect *r)
{
	if (b->how == MAP_UNMAP) {
		__unmap_buffer(_metadata, b);
		return;
	}
	__sync(_metadata, b, VMEMEXP_SYNC_START | access, r);
	if (b->dir != EDU_TO_DEVICE)
		copy_scope(b, b->cpu, b->dev, r);
}

/* The device may have written where the CPU did nothing but read. */
static void __end(struct __test_metadata *_metadata, struct bench *b,
		  unsigned int access, const struct rect *r)
{
	if (b->how == MAP_UNMAP) {
		__map_buffer(_metadata, b, b->dir);
		return;
	}
	__sync(_metadata, b, VMEMEXP_SYNC_END | access, r);
	if (b->dir == EDU_TO_DEVICE ||
	    (b->dir == EDU_BIDIRECTIONAL && access & WRITE))
		copy_scope(b, b->dev, b->cpu, r);
}

#define map_buffer(dir)		__map_buffer(_metadata, &self->bench, dir)
#define unmap_buffer()		__unmap_buffer(_metadata, &self->bench)
#define start(access, rect)	__start(_metadata, &self->bench, access, rect)
#define end(access, rect)	__end(_metadata, &self->bench, access, rect)

/* The mapping goes on while the CPU has its turn. */
#define is_held()		(variant->how != MAP_UNMAP)

/* ---- both sides write and look ---- */

/* The patterns of two seeds differ in every byte, at any offset. */
static void write_pattern(uint8_t *buf, const struct rect *r, unsigned int seed)
{
	for (unsigned int row = 0; row < (r->rows ?: 1); row++) {
		size_t offset = r->offset + row * r->stride;

		for (size_t i = offset; i < offset + r->length; i++)
			buf[i] = pattern(seed, i);
	}
}

static void __cpu_writes(struct bench *b, const struct rect *r, unsigned int seed)
{
	write_pattern(b->buf, r, seed);
	write_pattern(b->cpu, r, seed);
}

static void __device_writes(struct __test_metadata *_metadata, struct bench *b,
			    const struct rect *r, unsigned int seed)
{
	write_pattern(b->dev, r, seed);
	test_edu_write(b->edu, r->offset, b->dev + r->offset, r->length);
}

/* Expects that the device sees @want. */
static void __check_view(struct __test_metadata *_metadata, int edu,
			 const uint8_t *want, const struct rect *r)
{
	uint8_t *seen = malloc(r->length);

	test_edu_read(edu, r->offset, seen, r->length);
	EXPECT_SAME(want + r->offset, seen, r->length);
	free(seen);
}

/* One side has written: where it is a copy, the other one has to see old data. */
static void __expect_unequal(struct __test_metadata *_metadata,
			     const struct bench *b, const struct rect *r)
{
	EXPECT_EQ(b->bounces, !!memcmp(b->cpu + r->offset, b->dev + r->offset,
				       r->length));
}

#define cpu_writes(rect, seed)	__cpu_writes(&self->bench, rect, seed)
#define device_writes(rect, seed) \
	__device_writes(_metadata, &self->bench, rect, seed)

/* All bytes of the buffer. */
#define check_cpu() \
	EXPECT_SAME(self->bench.cpu, self->bench.buf, self->bench.size)
#define check_device(rect) \
	__check_view(_metadata, self->bench.edu, self->bench.dev, rect)

#define expect_stale_cpu(rect) do {					\
	__expect_unequal(_metadata, &self->bench, rect);		\
	check_cpu();							\
} while (0)

#define expect_stale_device(rect) do {					\
	__expect_unequal(_metadata, &self->bench, rect);		\
	check_device(rect);						\
} while (0)

/* ---- one device ---- */

TEST_F(coherency, brings_to_the_device_what_the_cpu_wrote)
{
	static const unsigned int dirs[] = { EDU_TO_DEVICE, EDU_BIDIRECTIONAL };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		cpu_writes(&whole, 10);
		map_buffer(dirs[i]);
		check_device(&part);

		cpu_writes(&part, 11);
		expect_stale_device(&part);
		start(WRITE, &part);
		cpu_writes(&part, 12);
		if (is_held())
			expect_stale_device(&part);
		end(WRITE, &part);
		check_device(&part);
		check_cpu();
		unmap_buffer();
		check_cpu();
	}
}

TEST_F(coherency, brings_to_the_cpu_what_the_device_wrote)
{
	static const unsigned int dirs[] = { EDU_FROM_DEVICE, EDU_BIDIRECTIONAL };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		cpu_writes(&whole, 20);
		map_buffer(dirs[i]);
		for (unsigned int turn = 0; turn < 2; turn++) {
			device_writes(&part, 21 + turn);
			expect_stale_cpu(&part);
			start(READ, &part);
			check_cpu();
			end(READ, &part);
			check_cpu();
		}
		device_writes(&part, 23);
		expect_stale_cpu(&part);
		unmap_buffer();
		check_cpu();
	}
}

/* The ranges in @r, the gaps between them, and some bytes on either side. */
static struct rect around(const struct rect *r)
{
	size_t first = r->offset < 64 ? 0 : r->offset - 64;
	size_t last = r->offset + r->length + 64;

	if (r->rows)
		last += (r->rows - 1) * r->stride;
	return (struct rect){
		.offset = first, .length = (last < SIZE ? last : SIZE) - first,
	};
}

TEST_F(coherency, fetches_no_byte_that_is_not_named)
{
	const struct rect beside = { .offset = PAGE + 200, .length = 1000 };

	map_buffer(EDU_BIDIRECTIONAL);
	for (size_t i = 0; i < ARRAY_SIZE(rects); i++) {
		const struct rect area = around(&rects[i]);

		device_writes(&area, 30 + i);
		expect_stale_cpu(&rects[i]);
		start(READ, &rects[i]);
		check_cpu();
		/* The device goes on beside what the CPU has its turn at. */
		if (is_held())
			device_writes(&beside, 40 + i);
		end(READ, &rects[i]);
		check_cpu();
	}
	unmap_buffer();
	check_cpu();
}

TEST_F(coherency, hands_over_no_byte_that_is_not_named)
{
	map_buffer(EDU_TO_DEVICE);
	for (size_t i = 0; i < ARRAY_SIZE(rects); i++) {
		const struct rect area = around(&rects[i]);

		start(WRITE, &rects[i]);
		cpu_writes(&area, 50 + i);
		if (is_held())
			expect_stale_device(&rects[i]);
		end(WRITE, &rects[i]);
		check_device(&area);
	}
}

TEST_F(coherency, overwrites_nothing_that_the_device_wrote_beside_the_range)
{
	map_buffer(EDU_BIDIRECTIONAL);
	for (size_t i = 0; i < ARRAY_SIZE(rects); i++) {
		const struct rect area = around(&rects[i]);

		device_writes(&area, 60 + i);
		start(WRITE, &rects[i]);
		cpu_writes(&rects[i], 70 + i);
		end(WRITE, &rects[i]);
		check_device(&area);
		check_cpu();
	}
}

TEST_F(coherency, keeps_what_the_device_writes_while_the_cpu_reads)
{
	map_buffer(EDU_BIDIRECTIONAL);
	device_writes(&part, 80);
	start(READ, &part);
	check_cpu();
	if (is_held()) {
		device_writes(&part, 81);
		expect_stale_cpu(&part);
	}
	end(READ, &part);
	check_device(&part);
	start(READ, &part);
	check_cpu();
}

/*
 * Long enough for several segments where it bounces. DMA is done at their ends;
 * that the rest has arrived shows when it is fetched back.
 */
TEST_F(coherency, holds_for_all_of_a_long_contiguous_buffer)
{
	const struct rect all = { .length = BIG_SIZE };
	struct memory memory = { .size = HUGE_PAGE };
	struct vmemexp_export cmd;
	struct edu_info info;

	make_thp(_metadata, &memory);
	cmd = export_args(memory.addr, BIG_SIZE, O_RDWR);
	cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
	drop_buffer(&self->bench);
	__use_buffer(_metadata, &self->bench, &cmd, memory.addr, BIG_SIZE);
	ASSERT_EQ(1, cmd.nr_extents);

	map_buffer(EDU_BIDIRECTIONAL);
	info = test_edu_info(self->bench.edu);
	EXPECT_EQ(BIG_SIZE, info.dma_size);
	EXPECT_EQ(self->bench.bounces ? BIG_SIZE / BOUNCE_SEGMENT : 1, info.nents);

	start(WRITE, &all);
	cpu_writes(&all, 90);
	end(WRITE, &all);
	for (size_t at = 0; at <= BIG_SIZE - 32; at += BOUNCE_SEGMENT - 32) {
		const struct rect at_end = { .offset = at, .length = 64 };

		check_device(&at_end);
		device_writes(&at_end, 91);
		expect_stale_cpu(&at_end);
	}
	start(READ, &all);
	check_cpu();
	end(READ, &all);

	cpu_writes(&all, 92);
	start(READ, &all);
	check_cpu();
}

/* ---- two devices ---- */

/* It has to see what the CPU sees. */
#define check_display(rect) \
	__check_view(_metadata, display, self->bench.cpu, rect)

TEST_F(coherency, hands_data_from_one_device_to_another)
{
	static const struct {
		unsigned int dir;
		bool is_first;
	} displays[] = {
		{ EDU_TO_DEVICE, false },
		{ EDU_BIDIRECTIONAL, false },
		{ EDU_BIDIRECTIONAL, true },
	};

	skip_without_edu(2);
	for (size_t i = 0; i < ARRAY_SIZE(displays); i++) {
		int display = test_edu_open();

		if (displays[i].is_first)
			test_edu_detach(self->bench.edu);
		test_edu_attach(display, self->bench.dmabuf, 1, self->bench.bits);
		if (displays[i].is_first)
			test_edu_attach(self->bench.edu, self->bench.dmabuf, 0, self->bench.bits);

		cpu_writes(&part, 100 + i);
		map_buffer(EDU_FROM_DEVICE);
		test_edu_map(display, displays[i].dir);
		device_writes(&part, 110 + i);
		expect_stale_cpu(&part);
		check_display(&part);

		if (!is_held())
			test_edu_unmap(display);
		start(READ | WRITE, &part);
		check_cpu();
		end(READ | WRITE, &part);
		if (!is_held())
			test_edu_map(display, displays[i].dir);
		check_display(&part);
		check_cpu();
		unmap_buffer();
		close(display);
	}
}

TEST_F(coherency, goes_on_when_another_device_is_unmapped)
{
	int display;

	skip_without_edu(2);
	display = test_edu_open();
	test_edu_attach(display, self->bench.dmabuf, 1, self->bench.bits);
	map_buffer(EDU_FROM_DEVICE);
	test_edu_map(display, EDU_BIDIRECTIONAL);
	device_writes(&part, 120);
	test_edu_unmap(display);
	check_cpu();
	start(READ, &part);
	check_cpu();
	end(READ, &part);

	/* And the other way round. */
	test_edu_map(display, EDU_TO_DEVICE);
	device_writes(&part, 121);
	unmap_buffer();
	check_cpu();
	test_edu_unmap(display);
	test_edu_map(display, EDU_TO_DEVICE);
	check_display(&part);
	close(display);
}

/* ---- what does not depend on how the CPU's turn begins ---- */

FIXTURE(device)
{
	int fd;
	struct test_state before;
	bool bounces;
	unsigned int bits;
	struct memory memory;
	int edu;
};

FIXTURE_SETUP(device)
{
	skip_without_edu(1);
	test_setup();
	self->bits = test_coherency_mode();
	self->bounces = bounces_in(coherency_mode());
	self->memory.size = SMALL;
	make_anon(_metadata, &self->memory);
	self->edu = test_edu_open();
}

FIXTURE_TEARDOWN(device)
{
	close(self->edu);
	test_teardown();
}

#define is_bounced(dmabuf) \
	(!!(test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED))

TEST_F(device, is_told_to_bounce_just_while_it_does)
{
	struct map_event event;
	uint64_t extents;
	int dmabuf, second;

	skip_without_edu(2);
	dmabuf = test_export(self->memory.addr, SMALL, O_RDWR);
	extents = test_query(dmabuf).nr_extents;
	second = test_edu_open();
	EXPECT_FALSE(is_bounced(dmabuf));
	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	test_edu_attach(second, dmabuf, 1, self->bits);
	EXPECT_FALSE(is_bounced(dmabuf));

	event = test_edu_map_traced(self->edu, EDU_TO_DEVICE);
	EXPECT_EQ(extents, event.entries);
	EXPECT_EQ(self->bounces ? extents : 0, event.bounced);
	EXPECT_EQ(self->bounces, is_bounced(dmabuf));
	test_edu_map(second, EDU_BIDIRECTIONAL);
	EXPECT_EQ(self->bounces, is_bounced(dmabuf));
	test_edu_unmap(self->edu);
	EXPECT_EQ(self->bounces, is_bounced(dmabuf));
	test_edu_unmap(second);
	EXPECT_FALSE(is_bounced(dmabuf));
	close(second);
	close(dmabuf);
}

TEST_F(device, may_only_read_what_was_exported_read_only)
{
	const uint8_t *buf = self->memory.addr;
	uint8_t seen[1000];
	int dmabuf;

	ASSERT_EQ(0, mprotect(self->memory.addr, SMALL, PROT_READ));
	dmabuf = test_export(buf, SMALL, O_RDONLY);
	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	EXPECT_EQ(-EACCES, _test_edu_map(self->edu, EDU_FROM_DEVICE));
	EXPECT_EQ(-EACCES, _test_edu_map(self->edu, EDU_BIDIRECTIONAL));
	EXPECT_EQ(0, test_query(dmabuf).mappings);
	test_edu_map(self->edu, EDU_TO_DEVICE);
	test_edu_read(self->edu, PAGE - 500, seen, sizeof(seen));
	EXPECT_SAME(buf + PAGE - 500, seen, sizeof(seen));
	close(dmabuf);
}

/* A ring, mapped twice in a row, is for devices that work on the memory itself. */
TEST_F(device, maps_a_page_twice_unless_it_bounces)
{
	const size_t half = 2 * PAGE;
	uint8_t written[200], seen[200], *ring;
	int file = memfd(half, 0), dmabuf;

	ring = map(2 * half, PROT_NONE, ANON, -1);
	for (size_t at = 0; at < 2 * half; at += half)
		ASSERT_EQ(ring + at, mmap(ring + at, half, RW, MAP_SHARED | MAP_FIXED, file, 0));
	close(file);
	fill(ring, half, 1);
	dmabuf = test_export(ring, 2 * half, O_RDWR);
	EXPECT_NE(0, test_query(dmabuf).state & VMEMEXP_STATE_OVERLAPS);
	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	if (self->bounces) {
		for (unsigned int dir = EDU_BIDIRECTIONAL; dir <= EDU_FROM_DEVICE; dir++)
			EXPECT_EQ(-ENOTUNIQ, _test_edu_map(self->edu, dir));
		EXPECT_EQ(0, test_query(dmabuf).mappings);
		EXPECT_FALSE(is_bounced(dmabuf));
	} else {
		/* Across the seam. */
		test_edu_map(self->edu, EDU_BIDIRECTIONAL);
		fill(written, sizeof(written), 2);
		test_edu_write(self->edu, half - 100, written, sizeof(written));
		test_sync(dmabuf, VMEMEXP_SYNC_START | READ, 0, 2 * half);
		EXPECT_SAME(written, ring + half - 100, 100);
		EXPECT_SAME(written + 100, ring, 100);
		test_sync(dmabuf, VMEMEXP_SYNC_END | READ, 0, 2 * half);
		test_edu_read(self->edu, 0, seen, 100);
		EXPECT_SAME(written + 100, seen, 100);
		test_edu_unmap(self->edu);
	}
	close(dmabuf);
	munmap(ring, 2 * half);
}

/* An observer sees memory, and knows nothing of copies. */
TEST_F(device, keeps_its_copy_from_the_sync_of_an_observer)
{
	const unsigned int all = VMEMEXP_SYNC_RW | VMEMEXP_SYNC_OBSERVER;
	uint8_t *buf = self->memory.addr;
	uint8_t written[500], seen[500];
	int dmabuf = test_export(buf, SMALL, O_RDWR);

	fill(written, sizeof(written), 2);
	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	test_edu_map(self->edu, EDU_BIDIRECTIONAL);
	test_edu_write(self->edu, 77, written, sizeof(written));
	test_sync(dmabuf, VMEMEXP_SYNC_START | all, 0, SMALL);
	if (!self->bounces)
		memcpy(self->memory.expect + 77, written, sizeof(written));
	EXPECT_SAME(self->memory.expect, buf, SMALL);

	fill(buf, SMALL, 3);
	test_sync(dmabuf, VMEMEXP_SYNC_END | all, 0, SMALL);
	test_edu_read(self->edu, 77, seen, sizeof(seen));
	EXPECT_SAME(self->bounces ? written : buf + 77, seen, sizeof(seen));
	close(dmabuf);
}

/* ---- carve-outs, which are never copied ---- */

/* Too few for some carve-out, but no fewer than the kernel has a use for. */
#if defined(__aarch64__)
#define FEW_BITS	32
#elif defined(__arm__)
#define FEW_BITS	31
#else
#define FEW_BITS	28
#endif

FIXTURE(reach)
{
	int fd;
	struct test_state before;
	char old_list[256];
	int edu;
};

FIXTURE_SETUP(reach)
{
	skip_without_edu(1);
	skip_without_carveout();
	test_setup();
	test_coherency_mode();
	ASSERT_LE(0, read_text(VMEMEXP_CARVEOUTS, self->old_list, sizeof(self->old_list)));
	self->edu = test_edu_open();
}

FIXTURE_TEARDOWN(reach)
{
	close(self->edu);
	EXPECT_EQ(0, write_text(VMEMEXP_CARVEOUTS, self->old_list));
	test_teardown();
}

static void __check_reach(struct __test_metadata *_metadata, int fd, int edu,
			  const struct carveout_info *info, unsigned int bits, bool reached)
{
	const struct carveout_setup setup = {
		.region = info->region, .cache = CARVEOUT_CACHED,
	};
	uint8_t bytes[64], seen[64], *region;
	int file, dmabuf;

	ASSERT_EQ(0, write_text(VMEMEXP_CARVEOUTS, carveout_text(info)));
	file = _test_carveout_open(&setup);
	ASSERT_LE(0, file);
	region = map(SMALL, RW, MAP_SHARED, file);
	close(file);
	dmabuf = __test_export_range(_metadata, fd, region, SMALL, O_RDWR);
	test_edu_attach(edu, dmabuf, 0, bits);
	for (unsigned int dir = EDU_BIDIRECTIONAL; dir <= EDU_FROM_DEVICE; dir++) {
		EXPECT_EQ(reached ? 0 : -EIO, _test_edu_map(edu, dir)) {
			TH_LOG("%s for %u address bits", carveout_text(info), bits);
		}
		EXPECT_EQ(reached, __test_query(_metadata, fd, dmabuf).mappings);
		if (reached)
			test_edu_unmap(edu);
	}
	if (reached) {
		fill(bytes, sizeof(bytes), info->region);
		test_edu_map(edu, EDU_FROM_DEVICE);
		test_edu_write(edu, PAGE + 100, bytes, sizeof(bytes));
		test_edu_unmap(edu);
		test_carveout_read(info->region, PAGE + 100, seen, sizeof(seen));
		EXPECT_SAME(bytes, seen, sizeof(seen));
	}
	test_edu_detach(edu);
	close(dmabuf);
	munmap(region, SMALL);
}

/* The kernel would complain in its log if it was asked to map what is not. */
TEST_F(reach, of_a_device_decides_and_nothing_is_said)
{
	static const unsigned int all_bits[] = { FEW_BITS, 0 };
	struct carveout_info info;
	unsigned int out_of_reach = 0;

	for (unsigned int i = 0; !_test_carveout_info(i, &info); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(all_bits); j++) {
			unsigned int bits = all_bits[j] ?: 8 * sizeof(long);
			bool reached = translates_in(coherency_mode()) || bits == 64 ||
				       (info.base + info.size - 1) >> bits == 0;

			/* Reserved or not, RAM may bounce. */
			if (info.flags & (CARVEOUT_INFO_RAM | CARVEOUT_INFO_MIXED))
				continue;
			/* The emulated device has no more address lines. */
			if (coherency_mode() == MODE_NARROW && bits != FEW_BITS)
				continue;
			__check_reach(_metadata, self->fd, self->edu, &info, all_bits[j],
				      reached);
			out_of_reach += !reached;
		}
	}
	if (coherency_mode() == MODE_PASSTHROUGH)
		EXPECT_LT(0, out_of_reach);
}

/* ---- what an IOMMU stops ---- */

#define INSIDE_PAGES	5
#define INSIDE_SIZE	(INSIDE_PAGES * PAGE)

FIXTURE(iommu)
{
	int fd;
	struct test_state before;
	unsigned int bits;
	struct memory memory;	/* contiguous; some pages of it are exported */
	uint8_t *inside;
	int edu;
	int log;
};

FIXTURE_SETUP(iommu)
{
	skip_without_edu(1);
	test_setup();
	self->bits = test_coherency_mode();
	self->memory.size = HUGE_PAGE;
	make_thp(_metadata, &self->memory);
	self->inside = self->memory.addr + 8 * PAGE;
	self->edu = test_edu_open();
	self->log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, self->log);
	ASSERT_EQ(0, lseek(self->log, 0, SEEK_END));
	/* To tests/vm/run, for which a fault is a failure. */
	ASSERT_EQ(0, write_text("/dev/kmsg", "vmemexp-run: faults wanted"));
}

FIXTURE_TEARDOWN(iommu)
{
	EXPECT_EQ(0, write_text("/dev/kmsg", "vmemexp-run: no faults wanted"));
	EXPECT_SAME(self->memory.expect, self->memory.addr, HUGE_PAGE);
	close(self->log);
	close(self->edu);
	test_teardown();
}

/* The kernel reports no more than some faults in 5 seconds: this is longer. */
#define REPORT_MS		6000

/* How it begins what it says of them. */
#ifdef __aarch64__
#define READ_FAULT		"event 0x10 received"
#define WRITE_FAULT		"event 0x10 received"
#define READ_ONLY_FAULT		"event 0x13 received"
#else
#define READ_FAULT		"DMAR: [DMA Read"
#define WRITE_FAULT		"DMAR: [DMA Write"
#define READ_ONLY_FAULT		"DMAR: [DMA Write"
#endif

static bool is_logged(int log, const char *text)
{
	char record[1024];
	ssize_t n;

	for (int ms = 0; ms < REPORT_MS;) {
		n = read(log, record, sizeof(record) - 1);
		if (n > 0) {
			record[n] = '\0';
			if (strstr(record, text))
				return true;
		} else {
			sleep_ms(10);
			ms += 10;
		}
	}
	return false;
}

/*
 * The device accesses 4 bytes, which is one fault, at @offset from where its
 * mapping begins or began. @target is what it must not reach. A fault that is not reported,
 * because others were a moment ago, is provoked again.
 */
static void __expect_fault(struct __test_metadata *_metadata, int edu, int log,
			   unsigned long request, int64_t offset,
			   const uint8_t *target, const char *text)
{
	bool logged = false;

	ASSERT_LE(0, lseek(log, 0, SEEK_END));
	for (int ms = 0; !logged && ms < RELEASE_TIMEOUT_MS; ms += REPORT_MS) {
		uint8_t bytes[4] = { 0x11, 0x22, 0x33, 0x44 };

		ASSERT_EQ(0, _test_edu_transfer(edu, request, offset, bytes, sizeof(bytes),
						EDU_UNCHECKED));
		EXPECT_NE(0, memcmp(target, bytes, sizeof(bytes)));
		logged = is_logged(log, text);
	}
	EXPECT_TRUE(logged) {
		TH_LOG("no \"%s\" in the kernel log", text);
	}
}

/* There is nothing that would stop the device, so its driver does. */
static void __expect_refusal(struct __test_metadata *_metadata, int edu,
			     unsigned long request, int64_t offset)
{
	uint8_t bytes[4] = {};

	EXPECT_EQ(-EPERM, _test_edu_transfer(edu, request, offset, bytes,
					     sizeof(bytes), EDU_UNCHECKED));
}

#define expect_stopped(request, offset, text) do {			\
	if (translates_in(coherency_mode()))				\
		__expect_fault(_metadata, self->edu, self->log, request, \
			       offset, self->inside + (offset), text);	\
	else								\
		__expect_refusal(_metadata, self->edu, request, offset);	\
} while (0)

TEST_F(iommu, stops_a_device_outside_of_the_buffer)
{
	int dmabuf = test_export(self->inside, INSIDE_SIZE, O_RDWR);
	uint8_t seen[4];

	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	test_edu_map(self->edu, EDU_BIDIRECTIONAL);
	expect_stopped(EDU_IOC_WRITE, INSIDE_SIZE, WRITE_FAULT);
	expect_stopped(EDU_IOC_READ, INSIDE_SIZE, READ_FAULT);
	expect_stopped(EDU_IOC_WRITE, -4, WRITE_FAULT);
	expect_stopped(EDU_IOC_READ, -4, READ_FAULT);

	/* Not because it does not work at all. */
	test_edu_read(self->edu, INSIDE_SIZE - 4, seen, sizeof(seen));
	EXPECT_SAME(self->inside + INSIDE_SIZE - 4, seen, sizeof(seen));
	close(dmabuf);
}

TEST_F(iommu, stops_a_device_that_writes_where_it_may_only_read)
{
	uint8_t seen[4];
	int dmabuf;

	ASSERT_EQ(0, mprotect(self->inside, INSIDE_SIZE, PROT_READ));
	dmabuf = test_export(self->inside, INSIDE_SIZE, O_RDONLY);
	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	test_edu_map(self->edu, EDU_TO_DEVICE);
	expect_stopped(EDU_IOC_WRITE, PAGE + 20, READ_ONLY_FAULT);
	test_edu_read(self->edu, PAGE + 20, seen, sizeof(seen));
	EXPECT_SAME(self->inside + PAGE + 20, seen, sizeof(seen));
	close(dmabuf);
}

TEST_F(iommu, stops_a_device_after_unmap)
{
	int dmabuf = test_export(self->inside, INSIDE_SIZE, O_RDWR);
	uint8_t seen[4];

	test_edu_attach(self->edu, dmabuf, 0, self->bits);
	test_edu_map(self->edu, EDU_BIDIRECTIONAL);
	test_edu_read(self->edu, PAGE, seen, sizeof(seen));
	EXPECT_SAME(self->inside + PAGE, seen, sizeof(seen));
	test_edu_unmap(self->edu);
	expect_stopped(EDU_IOC_WRITE, PAGE, WRITE_FAULT);
	expect_stopped(EDU_IOC_READ, PAGE, READ_FAULT);
	close(dmabuf);
}

TEST_HARNESS_MAIN

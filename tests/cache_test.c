// SPDX-License-Identifier: GPL-2.0
/*
 * Cache maintenance: which bytes the kernel's functions for it are given.
 *
 * The module vmemexp_cachewatch records the calls that a step causes. They have
 * to be those that the step needs, no more and no less: for each device that does
 * not snoop, every byte that was named, once, at the physical address that
 * /proc/self/pagemap tells (for a device that works on a copy: at the address of
 * the copy). On amd64 every device snoops, so there must not be any.
 *
 * A variant is an access path, a way to give memory to a device and to take it back; every
 * test runs for each. The device is one of the test importer's, or
 * if COHERENCY_MODE names how devices reach memory in this machine (direct,
 * narrow, force: by bounce buffers, iommu, passthrough: as direct, by an IOMMU that
 * translates nothing; snooped: by an IOMMU, and snooping), QEMU's "edu", of which two
 * are needed.
 *
 * An IOMMU maps what it is told to be a device's memory, as carve-outs without struct
 * page have to be, in such a way that even a device that snoops does not snoop there.
 */
#include "lib/rect.h"
#include "lib/vmemexp_memory.h"

#include "modules/cachewatch/vmemexp_cachewatch.h"
#include "modules/edu/vmemexp_edu.h"

#define MAX_DEVICES	2
#define MAX_EXPECTED	8

/*
 * Differences between architectures: ALL_SNOOP    no device needs cache maintenance MAP_FORGETS
 * the DMA API may forget what is in the caches before a device writes CLEAN       how the caches
 * are written back FORGET  how they are forgotten FORGET_CLEANS FORGET writes them back before, so
 * that CLEAN need not come first NARROW_BITS      address bits of a device that does not reach all
 * of the memory
 */
#if defined(__arm__)
#define ALL_SNOOP	0
#define MAP_FORGETS	1
#define CLEAN		CACHEWATCH_FLUSH
#define FORGET		CACHEWATCH_FLUSH
/* There is an outer cache between the two. */
#define FORGET_CLEANS	0
#define NARROW_BITS	31
#elif defined(__aarch64__)
#define ALL_SNOOP	0
/* c50f11c6196f (v5.19) made it write them back, which kernels of vendors have undone. */
#define MAP_FORGETS	1
#define CLEAN		CACHEWATCH_FLUSH
#define FORGET		CACHEWATCH_FLUSH
#define FORGET_CLEANS	1
#define NARROW_BITS	32
#else
#define ALL_SNOOP	1
#define MAP_FORGETS	0
#define CLEAN		CACHEWATCH_CLEAN
#define FORGET		CACHEWATCH_FLUSH
#define FORGET_CLEANS	1
#define NARROW_BITS	28
#endif

enum access_path {
	MAP_UNMAP,
	DMA_BUF_SYNC,	/* DMA_BUF_IOCTL_SYNC */
	RANGED_SYNC,	/* VMEMEXP_IOC_SYNC */
	OBSERVER_SYNC,	/* the same for an observer that is no Linux device */
};

enum way {
	GIVE,		/* to the device: map, END */
	TAKE,		/* back: unmap, START */
};

static const char * const ways[] = { [GIVE] = "give", [TAKE] = "take" };

struct step {
	enum way way;
	unsigned int access;	/* VMEMEXP_SYNC_READ, _WRITE; not for map and unmap */
	struct rect rect;	/* the bytes that are named; if none are, all */
};

struct device {
	int session;
	unsigned long map, unmap;	/* requests of the driver that has it */
	unsigned int address_bits;	/* it reaches no more memory than that */
	bool snoops;
	bool snoops_pages;	/* only what has a struct page */
	unsigned int direction;	/* of the mapping */
	bool mapped;
	uint64_t *pfns;		/* where it finds the pages of the buffer */
};

struct expected {
	unsigned int op, direction;
	unsigned int times;	/* for each byte */
	uint8_t *seen;		/* how often, for each byte */
};

/* State of a test. */
struct scene {
	int fd;
	struct test_state before;
	int watch;
	enum access_path path;
	const char *mode;	/* COHERENCY_MODE, NULL if it is not set */
	/* The buffer. */
	struct memory m;
	int dmabuf;
	uint64_t *pfns;
	bool is_ram, is_cached, has_pages;
	struct device devices[MAX_DEVICES];
	unsigned int nr_devices;
	unsigned int nr_edus;	/* of them */
	/* The last step. */
	struct cachewatch_record *records;
	size_t nr_records;
	struct expected expected[MAX_EXPECTED];
	unsigned int nr_expected;
};

FIXTURE(cache)
{
	struct scene scene;
};

FIXTURE_VARIANT(cache)
{
	enum access_path path;
};

FIXTURE_VARIANT_ADD(cache, map_unmap)
{
	.path = MAP_UNMAP,
};

FIXTURE_VARIANT_ADD(cache, sync)
{
	.path = DMA_BUF_SYNC,
};

FIXTURE_VARIANT_ADD(cache, ranged)
{
	.path = RANGED_SYNC,
};

FIXTURE_VARIANT_ADD(cache, observer)
{
	.path = OBSERVER_SYNC,
};

static void __set_up(struct __test_metadata *_metadata, struct scene *self)
{
	test_setup();
	self->mode = getenv("COHERENCY_MODE");
	self->watch = open(CACHEWATCH_PATH, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->watch) {
		TH_LOG("%s: %s", CACHEWATCH_PATH, strerror(errno));
	}
	self->records = malloc(CACHEWATCH_MAX_RECORDS * sizeof(*self->records));
	ASSERT_NE(NULL, self->records);
	self->dmabuf = -1;
	/* To bring code into memory may need cache maintenance, too. */
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
}

FIXTURE_SETUP(cache)
{
	skip_without_importer();
	if (access(CACHEWATCH_PATH, F_OK))
		SKIP(return, "the module vmemexp_cachewatch is not loaded");
	self->scene.path = variant->path;
	__set_up(_metadata, &self->scene);
}

static void close_buffer(struct scene *self)
{
	for (unsigned int i = 0; i < self->nr_devices; i++) {
		close(self->devices[i].session);
		free(self->devices[i].pfns);
	}
	self->nr_devices = 0;
	self->nr_edus = 0;
	close(self->dmabuf);
	self->dmabuf = -1;
	free(self->pfns);
	self->pfns = NULL;
	munmap(self->m.addr, self->m.size);
	self->m = (struct memory){};
}

static void __tear_down(struct __test_metadata *_metadata, struct scene *self)
{
	close_buffer(self);
	close(self->watch);
	restore_system();
	test_teardown();
}

FIXTURE_TEARDOWN(cache)
{
	__tear_down(_metadata, &self->scene);
}

/* Return true if COHERENCY_MODE is @mode. */
static bool is_mode(const struct scene *self, const char *mode)
{
	return self->mode && !strcmp(self->mode, mode);
}

static bool is_translated(const struct scene *self)
{
	return is_mode(self, "iommu") || is_mode(self, "snooped");
}

/* ---- the buffer and its devices ---- */

/* Once they are pinned: before that, the kernel may put others in their place. */
static void __find_pages(struct __test_metadata *_metadata, struct scene *self)
{
	self->pfns = read_pagemap(self->m.addr, self->m.size);
	for (size_t i = 0; i < self->m.size / PAGE; i++) {
		ASSERT_NE(0, self->pfns[i] & PAGEMAP_PRESENT);
		self->pfns[i] &= PAGEMAP_PFN;
	}
}

/* Exports what @self->m is now. */
static void __export_buffer(struct __test_metadata *_metadata, struct scene *self)
{
	self->dmabuf = test_export(self->m.addr, self->m.size, O_RDWR);
	self->is_ram = true;
	self->has_pages = true;
	self->is_cached = test_query(self->dmabuf).cache == VMEMEXP_CACHE_CACHED;
}

#define export_buffer()	__export_buffer(_metadata, self)

#define make_buffer(make, bytes) do {					\
	self->m = (struct memory){ .size = bytes };			\
	make(_metadata, &self->m);					\
	export_buffer();						\
	__find_pages(_metadata, self);					\
} while (0)

/* The next real device, which must be as the mode says. */
static void __open_edu(struct __test_metadata *_metadata, struct scene *self,
		       struct device *d)
{
	struct edu_attach attach = {
		.dmabuf_fd = self->dmabuf,
		.device = self->nr_edus++,
		.address_bits = is_mode(self, "narrow") ? NARROW_BITS : 0,
	};
	struct edu_info info;

	d->map = EDU_IOC_MAP;
	d->unmap = EDU_IOC_UNMAP;
	d->session = open(EDU_PATH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, d->session) {
		TH_LOG("%s: %s", EDU_PATH, strerror(errno));
	}
	ASSERT_EQ(0, _test_ioctl(d->session, EDU_IOC_ATTACH, &attach));
	ASSERT_EQ(0, _test_ioctl(d->session, EDU_IOC_INFO, &info));
	d->snoops_pages = ALL_SNOOP || is_mode(self, "snooped");
	ASSERT_EQ(is_translated(self), !!(info.flags & EDU_INFO_IOMMU));
	ASSERT_EQ(!d->snoops_pages, !!(info.flags & EDU_INFO_NONCOHERENT)) {
		TH_LOG("the device tree does not fit: dma-coherent");
	}
	if (!is_translated(self))
		d->address_bits = info.address_bits;
}

static void __open_importer(struct __test_metadata *_metadata, struct scene *self,
			    struct device *d)
{
	d->map = IMPORTER_IOC_MAP;
	d->unmap = IMPORTER_IOC_UNMAP;
	d->session = test_importer_open();
	test_importer_attach(d->session, self->dmabuf,
			     d->snoops ? IMPORTER_DEV_COHERENT :
					 IMPORTER_DEV_NONCOHERENT);
}

/* Only RAM can be copied to where a device reaches. */
static bool is_out_of_reach(const struct scene *self)
{
	for (size_t i = 0; is_mode(self, "narrow") && !self->is_ram && i < self->m.size / PAGE; i++)
		if (self->pfns[i] * PAGE >> NARROW_BITS)
			return true;
	return false;
}

/* Attaches a device, that will be mapped in @direction. */
static void __add_device(struct __test_metadata *_metadata, struct scene *self,
			 bool snoops, unsigned int direction)
{
	struct device *d = &self->devices[self->nr_devices];
	size_t bytes = self->m.size / PAGE * sizeof(*d->pfns);

	*d = (struct device){
		.snoops = snoops,
		.address_bits = 64,
		.direction = direction,
		.pfns = malloc(bytes),
	};
	if (self->mode && !snoops && !is_out_of_reach(self))
		__open_edu(_metadata, self, d);
	else
		__open_importer(_metadata, self, d);
	memcpy(d->pfns, self->pfns, bytes);
	self->nr_devices++;
}

#define add_device(direction)	__add_device(_metadata, self, false, direction)
#define add_snooping_device(direction) __add_device(_metadata, self, true, direction)

static void map_devices(struct __test_metadata *_metadata, struct scene *self)
{
	for (struct device *d = self->devices; d < self->devices + self->nr_devices; d++) {
		ASSERT_EQ(0, _test_importer_direction(d->session, d->map, d->direction));
		d->mapped = true;
	}
}

static void unmap_devices(struct __test_metadata *_metadata, struct scene *self)
{
	for (struct device *d = self->devices; d < self->devices + self->nr_devices; d++) {
		ASSERT_EQ(0, _test_ioctl(d->session, d->unmap, NULL));
		d->mapped = false;
	}
}

/* ---- recording ---- */

static bool by_kernel_address(const struct cachewatch_record *r)
{
	return r->op != CACHEWATCH_FOR_DEVICE && r->op != CACHEWATCH_FOR_CPU;
}

static ssize_t find_pfn(const uint64_t *pfns, size_t nr, uint64_t pfn)
{
	for (size_t i = 0; i < nr; i++)
		if (pfns[i] == pfn)
			return i;
	return -1;
}

/* The page of the buffer that is there for the CPU or for a device, or -1. */
static ssize_t find_page(const struct scene *self,
			 const struct cachewatch_record *r, uint64_t pfn)
{
	size_t nr = self->m.size / PAGE;
	ssize_t page = -1;

	if (by_kernel_address(r))
		return find_pfn(self->pfns, nr, pfn);
	for (unsigned int i = 0; page < 0 && i < self->nr_devices; i++)
		if (!self->devices[i].snoops)
			page = find_pfn(self->devices[i].pfns, nr, pfn);
	return page;
}

/* The call is all there is: neither architecture does anything then. */
static bool is_nothing(const struct cachewatch_record *r)
{
	return r->op == CACHEWATCH_FOR_CPU && r->direction == IMPORTER_TO_DEVICE;
}

/*
 * An IOMMU that does not snoop wants its page tables written back when something
 * is mapped. They are not in the buffer.
 */
static bool is_page_table(const struct scene *self, const struct cachewatch_record *r)
{
	unsigned int op = ALL_SNOOP ? CACHEWATCH_FLUSH : CACHEWATCH_FOR_DEVICE;

	return self->path == MAP_UNMAP && is_translated(self) && r->op == op &&
	       (ALL_SNOOP || r->direction == IMPORTER_TO_DEVICE) &&
	       r->phys != CACHEWATCH_NOWHERE && find_page(self, r, r->phys / PAGE) < 0;
}

static void start_recording(struct __test_metadata *_metadata, const struct scene *self)
{
	ASSERT_EQ(0, ioctl(self->watch, CACHEWATCH_IOC_START));
}

static void stop_recording(struct __test_metadata *_metadata, struct scene *self)
{
	ssize_t bytes;

	ASSERT_EQ(0, ioctl(self->watch, CACHEWATCH_IOC_STOP));
	bytes = read(self->watch, self->records,
		     CACHEWATCH_MAX_RECORDS * sizeof(*self->records));
	ASSERT_LE(0, bytes);
	self->nr_records = 0;
	for (size_t i = 0; i < bytes / sizeof(*self->records); i++)
		if (!is_nothing(&self->records[i]) && !is_page_table(self, &self->records[i]))
			self->records[self->nr_records++] = self->records[i];
}

/* The nth of the devices that do not snoop. */
static struct device *find_device(struct scene *self, size_t n)
{
	for (unsigned int i = 0; i < self->nr_devices; i++)
		if (!self->devices[i].snoops && !n--)
			return &self->devices[i];
	return NULL;
}

/*
 * Where the copies are that a device works on, only the DMA API knows. When it
 * is mapped all of them are synced, in the order of the buffer.
 */
static void learn_copies(struct __test_metadata *_metadata, struct scene *self)
{
	const size_t pages = self->m.size / PAGE;
	struct device *d;
	size_t n = 0;

	for (size_t i = 0; i < self->nr_records; i++) {
		const struct cachewatch_record *r = &self->records[i];

		if (r->op != CACHEWATCH_FOR_DEVICE)
			continue;
		for (uint64_t at = r->phys; at < r->phys + r->size; at += PAGE) {
			d = find_device(self, n / pages);
			ASSERT_NE(NULL, d);
			d->pfns[n++ % pages] = at / PAGE;
		}
	}
	ASSERT_EQ(0, n % pages);
	ASSERT_EQ(NULL, find_device(self, n / pages));
}

/* Return true if the kernel has to bounce some of the memory. */
static bool must_bounce(const struct scene *self)
{
	if (is_mode(self, "force"))
		return true;
	for (unsigned int i = 0; i < self->nr_devices; i++) {
		const struct device *d = &self->devices[i];

		for (size_t j = 0; d->address_bits < 64 && j < self->m.size / PAGE; j++)
			if (self->pfns[j] * PAGE >> d->address_bits)
				return true;
	}
	return false;
}

/* Maps all devices, and keeps the recorded calls for a test that asks for them. */
static void __map_recorded(struct __test_metadata *_metadata, struct scene *self)
{
	bool bounced;

	start_recording(_metadata, self);
	map_devices(_metadata, self);
	stop_recording(_metadata, self);
	if (!self->nr_devices || !self->is_ram)
		return;
	bounced = test_query(self->dmabuf).state & VMEMEXP_STATE_BOUNCED;
	if (self->mode)
		ASSERT_EQ(must_bounce(self), bounced);
	if (bounced && !ALL_SNOOP)
		learn_copies(_metadata, self);
}

#define map_recorded()	__map_recorded(_metadata, self)

static void __record(struct __test_metadata *_metadata, struct scene *self,
		     const struct step *step)
{
	unsigned int flags = step->access;
	const struct rect *rect = &step->rect;

	if (self->path == MAP_UNMAP && step->way == GIVE) {
		map_recorded();
		return;
	}
	if (step->way == GIVE)
		flags |= VMEMEXP_SYNC_END;
	start_recording(_metadata, self);
	switch (self->path) {
	case MAP_UNMAP:
		unmap_devices(_metadata, self);
		break;
	case DMA_BUF_SYNC:
		/* The same bits mean the same. */
		test_dmabuf_sync(self->dmabuf, flags);
		break;
	case OBSERVER_SYNC:
		test_sync_rows(self->dmabuf, flags | VMEMEXP_SYNC_OBSERVER,
			       rect->offset, rect->length, rect->stride, rect->rows);
		break;
	case RANGED_SYNC:
		test_sync_rows(self->dmabuf, flags, rect->offset, rect->length,
			       rect->stride, rect->rows);
		break;
	}
	stop_recording(_metadata, self);
}

/* ---- what is expected ---- */

static struct expected *find_expected(struct scene *self, unsigned int op,
				      unsigned int direction)
{
	for (unsigned int i = 0; i < self->nr_expected; i++)
		if (self->expected[i].op == op && self->expected[i].direction == direction)
			return &self->expected[i];
	return NULL;
}

static void expect(struct scene *self, unsigned int op, unsigned int direction)
{
	struct expected *e = find_expected(self, op, direction);

	if (!e) {
		e = &self->expected[self->nr_expected++];
		*e = (struct expected){ .op = op, .direction = direction };
	}
	e->times++;
}

static unsigned int to_direction(unsigned int access)
{
	return access == VMEMEXP_SYNC_RW ? IMPORTER_BIDIRECTIONAL :
	       access == VMEMEXP_SYNC_READ ? IMPORTER_FROM_DEVICE : IMPORTER_TO_DEVICE;
}

static void expect_forgotten(struct scene *self)
{
	if (!FORGET_CLEANS)
		expect(self, CLEAN, 0);
	expect(self, FORGET, 0);
}

static void expect_for_device(struct scene *self, const struct step *step,
			      const struct device *d)
{
	unsigned int direction = d->direction;

	if (step->way == TAKE) {
		/* It cannot have written. */
		if (direction == IMPORTER_TO_DEVICE)
			return;
		if (self->is_ram)
			expect(self, CACHEWATCH_FOR_CPU, direction);
		else
			expect_forgotten(self);
		return;
	}
	if (self->path != MAP_UNMAP && direction == IMPORTER_BIDIRECTIONAL)
		direction = to_direction(step->access);
	if (!self->is_ram || (MAP_FORGETS && direction == IMPORTER_FROM_DEVICE))
		expect(self, CLEAN, 0);
	if (self->is_ram)
		expect(self, CACHEWATCH_FOR_DEVICE, direction);
}

static void expect_for_observer(struct scene *self, const struct step *step)
{
	if (step->way == TAKE)
		expect_forgotten(self);
	else if (step->access & VMEMEXP_SYNC_WRITE)
		expect(self, CLEAN, 0);
}

/* Called before the step: afterwards it may be unmapped. */
static void expect_all(struct scene *self, const struct step *step)
{
	self->nr_expected = 0;
	if (ALL_SNOOP || !self->is_cached)
		return;
	if (self->path == OBSERVER_SYNC) {
		expect_for_observer(self, step);
		return;
	}
	for (unsigned int i = 0; i < self->nr_devices; i++) {
		const struct device *d = &self->devices[i];

		if (d->snoops || (d->snoops_pages && self->has_pages))
			continue;
		if (d->mapped || self->path == MAP_UNMAP)
			expect_for_device(self, step, d);
	}
}

/* ---- comparing ---- */

/*
 * Lines must not be invalidated before they are written back: the zeroes by which the kernel erased
 * the page may be in the caches alone.
 */
static bool comes_too_early(struct scene *self, const struct expected *e, size_t at)
{
	struct expected *clean = find_expected(self, CLEAN, 0);
	bool forgets = e->op == FORGET && FORGET != CLEAN;

	if (MAP_FORGETS && e->op == CACHEWATCH_FOR_DEVICE)
		forgets = e->direction == IMPORTER_FROM_DEVICE;
	return forgets && clean->seen[at] <= e->seen[at];
}

static void count_record(struct __test_metadata *_metadata, struct scene *self,
			 const struct cachewatch_record *r)
{
	struct expected *e = find_expected(self, r->op, r->direction);
	uint64_t at, end = r->phys + r->size;

	ASSERT_NE(NULL, e) {
		TH_LOG("not expected: operation %u, direction %u, %llu bytes",
		       r->op, r->direction, (unsigned long long)r->size);
	}
	ASSERT_NE(CACHEWATCH_NOWHERE, r->phys);
	/* Windows are for what the kernel has no address of, and for nothing else. */
	if (by_kernel_address(r))
		EXPECT_EQ(!self->is_ram, !!(r->flags & CACHEWATCH_VMALLOC));

	for (at = r->phys; at < end;) {
		uint64_t next = (at / PAGE + 1) * PAGE;
		ssize_t page = find_page(self, r, at / PAGE);
		size_t offset = page * PAGE + at % PAGE;

		ASSERT_LE(0, page) {
			TH_LOG("operation %u of %#llx, which is not in the buffer",
			       r->op, (unsigned long long)at);
		}
		EXPECT_FALSE(comes_too_early(self, e, offset));
		for (; at < end && at < next; at++)
			e->seen[offset++]++;
	}
}

static void compare(struct __test_metadata *_metadata, struct scene *self,
		    const struct expected *e, const uint8_t *named)
{
	for (size_t i = 0; i < self->m.size; i++) {
		ASSERT_EQ(e->times * named[i], e->seen[i]) {
			TH_LOG("operation %u, direction %u: byte %zu of %zu",
			       e->op, e->direction, i, self->m.size);
		}
	}
}

/* Makes one step, and expects what it needs. */
static void __check_step(struct __test_metadata *_metadata, struct scene *self,
			 const struct step *step)
{
	const struct rect *rect = &step->rect;
	uint8_t *named = calloc(1, self->m.size);

	for (size_t row = 0; row < rect->rows; row++)
		memset(named + rect->offset + row * rect->stride, 1, rect->length);
	expect_all(self, step);
	for (unsigned int i = 0; i < self->nr_expected; i++)
		self->expected[i].seen = calloc(1, self->m.size);

	__record(_metadata, self, step);
	for (size_t i = 0; i < self->nr_records; i++)
		count_record(_metadata, self, &self->records[i]);
	for (unsigned int i = 0; i < self->nr_expected; i++) {
		compare(_metadata, self, &self->expected[i], named);
		free(self->expected[i].seen);
	}
	free(named);
	ASSERT_EQ(0, _metadata->exit_code) {
		TH_LOG("in: %s, access %u, offset %zu, length %zu, stride %zu, rows %u",
		       ways[step->way], step->access, rect->offset, rect->length,
		       rect->stride, rect->rows);
	}
}

/* Both ways. */
#define check_steps(what, bytes_named) do {				\
	struct step _step = { .access = what, .rect = bytes_named };	\
									\
	for (_step.way = GIVE; _step.way <= TAKE; _step.way++)		\
		__check_step(_metadata, self, &_step);			\
} while (0)

/* ---- the tests ---- */

/* A test that has the scene for its "self". */
#define CACHE_TEST(name)						\
	static void name(struct __test_metadata *_metadata, struct scene *self); \
	TEST_F(cache, name)						\
	{								\
		name(_metadata, &self->scene);				\
	}								\
	static void name(struct __test_metadata *_metadata, struct scene *self)

#define is_ranged() \
	(self->path == RANGED_SYNC || self->path == OBSERVER_SYNC)

/* Devices are mapped while something else is looked at. */
#define map_before() do {						\
	if (self->path != MAP_UNMAP)					\
		map_recorded();						\
} while (0)

#define unmap_after() do {						\
	if (self->path != MAP_UNMAP)					\
		unmap_devices(_metadata, self);				\
} while (0)

#define MAX_RECTS	11

/* Ranges that begin and end anywhere, across pages and extents; or everything. */
static size_t make_rects(const struct scene *self, struct rect *rects)
{
	const size_t size = self->m.size;
	const struct rect all[] = {
		{ 0, size, 0, 1 },
		{ 0, 1, 0, 1 },
		{ size - 1, 1, 0, 1 },
		{ 1, size - 2, 0, 1 },
		{ PAGE - 1, 2, 0, 1 },
		{ PAGE + 100, 3 * PAGE, 0, 1 },
		{ 3 * PAGE, PAGE, 0, 1 },
		{ 0, PAGE, 2 * PAGE, size / PAGE / 2 },
		{ PAGE / 2, 64, 256, 2 * PAGE / 256 },
		{ 7, 100, 100, 100 },
		{ 3, 5, PAGE + 1, size / (PAGE + 1) - 1 },
	};

	memcpy(rects, all, sizeof(all));
	return is_ranged() ? ARRAY_SIZE(all) : 1;
}

static struct rect some_range(const struct scene *self)
{
	struct rect rect = { 0, self->m.size, 0, 1 };

	if (is_ranged()) {
		rect.offset = PAGE - 77;
		rect.length = self->m.size / 2;
	}
	return rect;
}

static void __check_rects(struct __test_metadata *_metadata, struct scene *self)
{
	struct rect rects[MAX_RECTS];
	size_t nr = make_rects(self, rects);

	map_before();
	for (size_t i = 0; i < nr; i++)
		check_steps(VMEMEXP_SYNC_RW, rects[i]);
	unmap_after();
}

#define check_rects()	__check_rects(_metadata, self)

CACHE_TEST(takes_exactly_the_bytes_named)
{
	make_buffer(make_anon, SMALL);
	add_device(IMPORTER_BIDIRECTIONAL);
	if (is_mode(self, "narrow"))
		ASSERT_TRUE(must_bounce(self));
	check_rects();
}

CACHE_TEST(takes_exactly_the_bytes_named_of_a_huge_page)
{
	const char *missing = need_thp();

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	make_buffer(make_thp, HUGE_PAGE);
	ASSERT_EQ(1, test_query(self->dmabuf).nr_extents);
	add_device(IMPORTER_BIDIRECTIONAL);
	check_rects();
}

/* On a machine with high memory these are not from there. */
CACHE_TEST(takes_exactly_the_bytes_named_of_pages_of_a_driver)
{
	const char *missing = need_packet();

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	make_buffer(make_driver, SMALL);
	add_device(IMPORTER_BIDIRECTIONAL);
	check_rects();
}

#ifdef __arm__
/* The first page frame that has no kernel address of its own; 0 if all have. */
static uint64_t find_high_memory(void)
{
	static char text[64 * 1024];
	unsigned long pfn = 0, present = 0;
	const char *zone;

	if (read_text("/proc/zoneinfo", text, sizeof(text)) < 0)
		return 0;
	zone = strstr(text, "zone  HighMem");
	if (!zone || sscanf(strstr(zone, "present"), "present %lu", &present) != 1 ||
	    sscanf(strstr(zone, "start_pfn:"), "start_pfn: %lu", &pfn) != 1)
		return 0;
	return present ? pfn : 0;
}

CACHE_TEST(takes_exactly_the_bytes_named_of_high_memory)
{
	uint64_t high = find_high_memory();
	size_t found = 0;

	if (!high)
		SKIP(return, "the kernel has an address for all memory");
	make_buffer(make_anon, SMALL);
	for (size_t i = 0; i < PAGES; i++)
		found += self->pfns[i] >= high;
	ASSERT_LT(PAGES / 2, found);
	add_device(IMPORTER_BIDIRECTIONAL);
	check_rects();
}
#endif

static const unsigned int directions[] = {
	IMPORTER_BIDIRECTIONAL, IMPORTER_TO_DEVICE, IMPORTER_FROM_DEVICE,
};

static const unsigned int accesses[] = {
	VMEMEXP_SYNC_READ, VMEMEXP_SYNC_WRITE, VMEMEXP_SYNC_RW,
};

static void __check_accesses(struct __test_metadata *_metadata, struct scene *self)
{
	map_before();
	for (size_t i = 0; i < ARRAY_SIZE(accesses); i++)
		check_steps(accesses[i], some_range(self));
	unmap_after();
}

#define check_accesses()	__check_accesses(_metadata, self)

CACHE_TEST(goes_by_the_direction)
{
	make_buffer(make_anon, SMALL);
	add_device(IMPORTER_BIDIRECTIONAL);
	for (size_t i = 0; i < ARRAY_SIZE(directions); i++) {
		self->devices[0].direction = directions[i];
		check_accesses();
	}
}

CACHE_TEST(reaches_each_of_two_devices)
{
	make_buffer(make_anon, SMALL);
	add_device(IMPORTER_BIDIRECTIONAL);
	add_device(IMPORTER_BIDIRECTIONAL);
	for (size_t i = 0; i < ARRAY_SIZE(directions); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(directions); j++) {
			self->devices[0].direction = directions[i];
			self->devices[1].direction = directions[j];
			check_accesses();
		}
	}
}

CACHE_TEST(leaves_out_a_device_that_snoops)
{
	make_buffer(make_anon, SMALL);
	add_snooping_device(IMPORTER_BIDIRECTIONAL);
	check_accesses();
	add_device(IMPORTER_BIDIRECTIONAL);
	check_accesses();
}

CACHE_TEST(does_nothing_for_devices_that_are_not_mapped)
{
	make_buffer(make_anon, SMALL);
	check_accesses();
	add_device(IMPORTER_BIDIRECTIONAL);
	if (self->path == MAP_UNMAP)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(accesses); i++)
		check_steps(accesses[i], some_range(self));
}

/* ---- carve-outs ---- */

/* Scattered pages of the region; pagemap does not show page frames of drivers. */
static void __map_region(struct __test_metadata *_metadata, struct scene *self,
			 const struct carveout_info *info, unsigned int cache)
{
	static const struct { unsigned int page, count; } extents[] = {
		{ 20, 5 }, { 2, 3 }, { 9, 1 }, { 40, 8 },
	};
	struct carveout_setup setup = { .region = info->region, .cache = cache };
	int fd = _test_carveout_open(&setup);
	size_t page = 0;

	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, carveout_text(info)));
	ASSERT_LE(0, fd);
	self->m = (struct memory){ .size = SMALL };
	self->m.addr = map(SMALL, PROT_NONE, ANON, -1);
	self->pfns = malloc(PAGES * sizeof(*self->pfns));
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++) {
		ASSERT_NE(MAP_FAILED, mmap(self->m.addr + page * PAGE, extents[i].count * PAGE,
					   RW, MAP_SHARED | MAP_FIXED, fd,
					   extents[i].page * PAGE));
		for (size_t j = 0; j < extents[i].count; j++)
			self->pfns[page++] = info->base / PAGE + extents[i].page + j;
	}
	ASSERT_EQ(PAGES, page);
	close(fd);
	export_buffer();
	self->is_ram = info->flags & CARVEOUT_INFO_RAM;
	self->has_pages = info->flags & CARVEOUT_INFO_PAGES;
	ASSERT_EQ(cache, test_query(self->dmabuf).cache);
	ASSERT_EQ(ARRAY_SIZE(extents), test_query(self->dmabuf).nr_extents);
}

#define map_region(info, cache)	__map_region(_metadata, self, info, cache)

static void __check_region(struct __test_metadata *_metadata, struct scene *self,
			   const struct carveout_info *info, unsigned int cache)
{
	map_region(info, cache);
	add_snooping_device(IMPORTER_BIDIRECTIONAL);
	add_device(IMPORTER_BIDIRECTIONAL);
	check_rects();
	for (size_t i = 0; i < ARRAY_SIZE(directions); i++) {
		self->devices[1].direction = directions[i];
		check_accesses();
	}
	close_buffer(self);
}

/* All regions of a sort; returns how many there are. */
static unsigned int __check_regions(struct __test_metadata *_metadata,
				    struct scene *self, bool is_ram, unsigned int cache)
{
	struct carveout_info info;
	unsigned int checked = 0;

	for (unsigned int i = 0; !_test_carveout_info(i, &info); i++) {
		if (!!(info.flags & CARVEOUT_INFO_RAM) != is_ram ||
		    info.flags & CARVEOUT_INFO_MIXED)
			continue;
		__check_region(_metadata, self, &info, cache);
		checked++;
	}
	return checked;
}

#define check_regions(is_ram, cache)	__check_regions(_metadata, self, is_ram, cache)

/* Return true if a region has no struct page: an IOMMU maps it so that no device snoops there. */
static bool has_region_without_pages(void)
{
	struct carveout_info info;

	for (unsigned int i = 0; !_test_carveout_info(i, &info); i++)
		if (!(info.flags & CARVEOUT_INFO_PAGES))
			return true;
	return false;
}

CACHE_TEST(goes_through_windows_outside_of_ram)
{
	skip_without_carveout();
	if (is_mode(self, "snooped"))
		ASSERT_TRUE(has_region_without_pages());
	ASSERT_LT(0, check_regions(false, CARVEOUT_CACHED));
}

/* Nothing can be reserved on amd64 and be System RAM. */
#if !ALL_SNOOP
CACHE_TEST(needs_no_window_in_reserved_ram)
{
	skip_without_carveout();
	ASSERT_LT(0, check_regions(true, CARVEOUT_CACHED));
}
#endif

CACHE_TEST(leaves_out_what_is_not_cached)
{
	skip_without_carveout();
	ASSERT_LT(0, check_regions(false, CARVEOUT_WRITECOMBINE));
	ASSERT_LT(0, check_regions(false, CARVEOUT_UNCACHED));
}

/* ---- cost ---- */

#define LARGE		(16UL << 20)
#define A_FEW_PAGES	(16 * PAGE)

/* Pages that are no neighbours in memory. */
static void make_large(struct __test_metadata *_metadata, struct memory *m)
{
	const size_t pages = m->size / PAGE;

	m->addr = map(m->size, RW, ANON, -1);
	ASSERT_EQ(0, forbid_thp(m->addr, m->size));
	/* Odd, so that it reaches each page of a power of two. */
	for (size_t i = 0; i < pages; i++)
		*(volatile unsigned char *)(m->addr + i * 7 % pages * PAGE) = 1;
}

struct cost {
	size_t calls, bytes;
};

/* The cost of both ways, in the middle of a buffer. */
static struct cost __cost_of_a_page(struct __test_metadata *_metadata, struct scene *self,
				    size_t size)
{
	struct step step = {
		.access = VMEMEXP_SYNC_RW,
		.rect = { size / 2 / PAGE * PAGE, PAGE, 0, 1 },
	};
	struct cost cost = {};

	make_buffer(make_large, size);
	/* Some are neighbours nevertheless, by chance. */
	ASSERT_LE(size / PAGE / 8, test_query(self->dmabuf).nr_extents);
	add_device(IMPORTER_BIDIRECTIONAL);
	map_before();
	for (step.way = GIVE; step.way <= TAKE; step.way++) {
		__record(_metadata, self, &step);
		for (size_t i = 0; i < self->nr_records; i++)
			cost.bytes += self->records[i].size;
		cost.calls += self->nr_records;
	}
	unmap_after();
	close_buffer(self);
	return cost;
}

#define cost_of_a_page(size)	__cost_of_a_page(_metadata, self, size)

CACHE_TEST(costs_as_much_as_is_named)
{
	struct cost small = cost_of_a_page(A_FEW_PAGES);
	struct cost large = cost_of_a_page(LARGE);

	if (ALL_SNOOP || (is_mode(self, "snooped") && self->path != OBSERVER_SYNC)) {
		EXPECT_EQ(0, small.calls);
		EXPECT_EQ(0, large.calls);
	} else if (is_ranged()) {
		EXPECT_LT(0, small.calls);
		EXPECT_EQ(small.calls, large.calls);
		EXPECT_EQ(small.bytes, large.bytes);
	} else {
		/* Everything, in no more pieces than it is made of. */
		EXPECT_EQ(2 * A_FEW_PAGES, small.bytes);
		EXPECT_EQ(2 * LARGE, large.bytes);
		EXPECT_GE(2 * LARGE / PAGE, large.calls);
	}
}

TEST_HARNESS_MAIN

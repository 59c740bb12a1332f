// SPDX-License-Identifier: GPL-2.0
/*
 * The table of kinds: every kind of memory, read-write and read-only, page aligned and not, by
 * every access path.
 *
 * A row is one KIND() below. It makes four variants of the fixture: NAME_rw, NAME_rw_unaligned,
 * NAME_ro and NAME_ro_unaligned. A column is a test: query, mmap, mmap_later (when the exporter has
 * no mapping any more), vmap, dma_out (a device reads), dma_in (a device writes), sync and
 * observer. So "kinds.carveout_wc_fault_rw_unaligned.dma_in" is one field. A test that is not
 * possible for a kind expects the documented refusal.
 *
 * In each field the range that is named by the export has to hold the right bytes for the exporter
 * and for the importer, and the bytes around it must not change. Other programs test what is the
 * same for all kinds: refusals, limits, lifetimes.
 *
 * Memory that a driver maps comes from a stand-in, vmemexp_carveout. It is
 * looked at byte by byte, since some of it bears nothing else: on arm and arm64
 * what is uncached must not be accessed unaligned.
 */
#include "lib/vmemexp_memory.h"

#include <assert.h>

/* The same numbers stand for the same in three interfaces. */
#define CACHE_IS_THE_SAME(name)						\
	static_assert(CARVEOUT_##name == VMEMEXP_CACHE_##name &&	\
		      IMPORTER_CACHE_##name == VMEMEXP_CACHE_##name, "cache")

CACHE_IS_THE_SAME(CACHED);
CACHE_IS_THE_SAME(WRITECOMBINE);
CACHE_IS_THE_SAME(UNCACHED);

/* Where memory of a driver lies. */
enum region {
	NO_REGION,
	PAGELESS,	/* a carve-out without struct page */
	PAGED,		/* a carve-out with struct page, not in System RAM */
	RESERVED,	/* System RAM that was reserved at boot */
	RAM,		/* System RAM that the driver allocated */
};

static const char * const region_names[] = {
	[PAGELESS] = "without struct page",
	[PAGED] = "with struct page, outside of System RAM",
	[RESERVED] = "in System RAM",
	[RAM] = "of the driver's own pages",
};

/*
 * The part of a region that is watched, and which of its pages are exported:
 * some, so that there are neighbours on both sides.
 */
#define WINDOW		(5 * PAGE)
#define WINDOW_PAGES	32
#define WINDOW_SIZE	(WINDOW_PAGES * PAGE)

static const unsigned int in_one_piece[PAGES] = {
	4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
};

static const unsigned int in_three_pieces[PAGES] = {
	25, 26, 27, 28, 29, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17, 18, 19,
};

/* Bytes before the exported range, if that is a part of a dma-buf. */
#define DMABUF_FRONT	(4 * PAGE)
#define DMABUF_SIZE	(DMABUF_FRONT + SMALL)

struct field;

/* One kind. */
struct row {
	void (*make)(struct __test_metadata *_metadata, struct field *self);
	const char *(*missing)(void);
	/* Other memory than a driver's. */
	void (*make_memory)(struct __test_metadata *_metadata, struct memory *m);
	size_t size;		/* of the mapping; SMALL if it is 0 */
	size_t skip;		/* where the exported pages begin in it */
	/* A driver's memory. */
	enum region region;
	unsigned int how;	/* CARVEOUT_HOW_*, or how /dev/mem is opened */
	bool scattered;
	bool unlisted;		/* root may export it nevertheless */
	/* The expected answers. */
	unsigned int memory;	/* VMEMEXP_MEMORY_* */
	unsigned int cache;	/* VMEMEXP_CACHE_*; CACHED if it is 0 */
	bool foreign;		/* a dma-buf of another driver */
	int rw_errno, ro_errno;	/* 0 if it can be exported */
	unsigned int reason;
};

/* State of a test. */
struct field {
	const struct row *row;
	bool writable;
	bool unaligned;
	int fd;
	struct test_state before;
	struct carveout_info region;
	const unsigned int *pages;	/* of the window */
	struct memory m;		/* the mapping that is exported from */
	ino_t dmabuf;			/* of which it is a mapping, if it is */
	int dmabuf_fd;
	struct vmemexp_export cmd;
	/* The range that the export names. */
	unsigned char *source;
	unsigned char *expect;		/* in m.expect, if not source_writes() */
	size_t length;
	unsigned char *seen;		/* as long as the mapping */
};

/* --- the memory of a driver, and the other processor --- */

/* Returns 0 or a negative errno. */
static int find_region(enum region wanted, struct carveout_info *info)
{
	static const unsigned int flags[] = {
		[PAGED] = CARVEOUT_INFO_PAGES,
		[RESERVED] = FRAMES_OF_RAM,
	};
	int ret = 0;

	if (wanted == RAM)
		return _test_carveout_info(CARVEOUT_REGION_RAM, info);
	for (unsigned int i = 0; !ret; i++) {
		ret = _test_carveout_info(i, info);
		if (!ret && info->flags == flags[wanted])
			break;
	}
	return ret;
}

static int open_region(const struct field *self)
{
	struct carveout_setup setup = {
		.region = self->region.region,
		.cache = self->row->cache,
		.how = self->row->how,
	};

	return _test_carveout_open(&setup);
}

/* Map each extent by itself, side by side. */
static void map_pages(struct __test_metadata *_metadata, struct field *self,
		      int fd, off64_t window)
{
	const unsigned int *page = self->pages;
	size_t nr;

	self->m.addr = map(SMALL, PROT_NONE, ANON, -1);
	for (size_t i = 0; i < PAGES; i += nr) {
		for (nr = 1; i + nr < PAGES && page[i + nr] == page[i] + nr;)
			nr++;
		ASSERT_NE(MAP_FAILED,
			  mmap64(self->m.addr + i * PAGE, nr * PAGE, RW,
				 MAP_SHARED | MAP_FIXED, fd,
				 window + page[i] * PAGE)) {
			TH_LOG("mmap: %s", strerror(errno));
		}
	}
	self->m.writer = self->m.addr;
	ASSERT_EQ(0, close(fd));
}

/* @request is CARVEOUT_IOC_READ or _WRITE, @offset is in the exported pages. */
static void other_processor(struct __test_metadata *_metadata,
			    struct field *self, unsigned long request,
			    size_t offset, unsigned char *buf, size_t length)
{
	while (length) {
		size_t in_page = offset % PAGE;
		size_t n = PAGE - in_page < length ? PAGE - in_page : length;
		uint64_t at = WINDOW + self->pages[offset / PAGE] * PAGE + in_page;

		ASSERT_EQ(0, _test_carveout_transfer(request, self->region.region,
						     at, buf, n));
		offset += n;
		buf += n;
		length -= n;
	}
}

/* The mapping is not touched before the export. */
static void prepare_region(struct __test_metadata *_metadata,
			   struct field *self)
{
	unsigned char window[WINDOW_SIZE];

	self->pages = self->row->scattered ? in_three_pieces : in_one_piece;
	fill(window, WINDOW_SIZE, 90);
	test_carveout_write(self->region.region, WINDOW, window, WINDOW_SIZE);
	self->m.expect = malloc(SMALL);
	for (size_t i = 0; i < PAGES; i++)
		memcpy(self->m.expect + i * PAGE,
		       window + self->pages[i] * PAGE, PAGE);

	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS,
			      self->row->unlisted ? "\n" : carveout_text(&self->region)));
}

static void make_driver_memory(struct __test_metadata *_metadata,
			       struct field *self)
{
	int fd = open_region(self);

	ASSERT_LE(0, fd);
	prepare_region(_metadata, self);
	map_pages(_metadata, self, fd, WINDOW);
}

static void make_devmem(struct __test_metadata *_metadata, struct field *self)
{
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC | self->row->how);

	ASSERT_LE(0, fd);
	prepare_region(_metadata, self);
	map_pages(_metadata, self, fd, self->region.base + WINDOW);
}

/* All of the window is as it should be, also around the exported pages. */
static void check_window(struct __test_metadata *_metadata, struct field *self)
{
	unsigned char want[WINDOW_SIZE], window[WINDOW_SIZE];

	fill(want, WINDOW_SIZE, 90);
	for (size_t i = 0; i < PAGES; i++)
		memcpy(want + self->pages[i] * PAGE,
		       self->m.expect + i * PAGE, PAGE);
	test_sync(self->cmd.fd, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW |
		  VMEMEXP_SYNC_OBSERVER, 0, SMALL);
	test_carveout_read(self->region.region, WINDOW, window, WINDOW_SIZE);
	EXPECT_SAME(want, window, WINDOW_SIZE);
}

/* --- mappings of dma-bufs --- */

/* A part of the dma-buf, which is kept open: only then it is handed out once more. */
static void map_dmabuf(struct __test_metadata *_metadata, struct field *self,
		       int dmabuf)
{
	int prot = self->writable ? RW : PROT_READ;
	struct stat st;

	ASSERT_EQ(0, fstat(dmabuf, &st));
	self->dmabuf = st.st_ino;
	self->m.addr = mmap(NULL, SMALL, prot, MAP_SHARED, dmabuf, DMABUF_FRONT);
	ASSERT_NE(MAP_FAILED, (void *)self->m.addr);
	self->dmabuf_fd = dmabuf;
}

static void make_own_dmabuf(struct __test_metadata *_metadata,
			    struct field *self)
{
	unsigned char *area = map(DMABUF_SIZE, RW, ANON, -1);

	int dmabuf;

	self->m.addr = area + DMABUF_FRONT;
	write_contents(&self->m, 1);
	dmabuf = test_export(area, DMABUF_SIZE,
			     self->writable ? O_RDWR : O_RDONLY);
	map_dmabuf(_metadata, self, dmabuf);
}

static void make_foreign(struct __test_metadata *_metadata, struct field *self,
			 int dmabuf)
{
	unsigned char *whole = map(DMABUF_SIZE, RW, MAP_SHARED, dmabuf);

	self->m.addr = whole + DMABUF_FRONT;
	write_contents(&self->m, 1);
	map_dmabuf(_metadata, self, dmabuf);
}

static void make_udmabuf_mapping(struct __test_metadata *_metadata,
				 struct field *self)
{
	make_foreign(_metadata, self, make_udmabuf(DMABUF_SIZE));
}

static void make_heap_mapping(struct __test_metadata *_metadata,
			      struct field *self)
{
	make_foreign(_metadata, self, make_heap_dmabuf(DMABUF_SIZE));
}

/* 45d9c8dde4cd (v5.16) made page frames of it; before, this was a file of shmem. */
static const struct row vgem_of_shmem = {
	.memory = VMEMEXP_MEMORY_SHMEM, .cache = VMEMEXP_CACHE_WRITECOMBINE,
};

static void make_vgem_mapping(struct __test_metadata *_metadata,
			      struct field *self)
{
	make_foreign(_metadata, self, make_vgem_dmabuf(DMABUF_SIZE));
	if (!maps_frames(self->m.addr)) {
		self->row = &vgem_of_shmem;
		self->dmabuf = 0;
	}
}

static const char *need_devmem(void)
{
	return access("/dev/mem", F_OK) ? "/dev/mem" : NULL;
}

static void make_other_memory(struct __test_metadata *_metadata,
			      struct field *self)
{
	self->row->make_memory(_metadata, &self->m);
}

/* --- the source, and the export --- */

/* On arm, what is not in the linear map cannot be inserted page by page. */
static bool can_insert_pages(const struct field *self)
{
	int fd = 0;

	if (self->row->make == make_driver_memory) {
		fd = open_region(self);
		close(fd);
	}
	return fd != -EOPNOTSUPP;
}

static void set_up(struct __test_metadata *_metadata, struct field *self)
{
	ASSERT_EQ(PAGE, page_size());
	/* Small kinds are to be made of small pages. */
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	self->m.size = self->row->size ?: SMALL;
	self->cmd.fd = -1;
	self->dmabuf_fd = -1;
	test_setup();
}

static void tear_down(struct __test_metadata *_metadata, struct field *self)
{
	if (self->cmd.fd >= 0)
		close(self->cmd.fd);
	if (self->dmabuf_fd >= 0)
		close(self->dmabuf_fd);
	/* Mappings of a dma-buf keep it, and its pins. */
	if (self->dmabuf) {
		munmap(self->m.addr, SMALL);
		munmap(self->m.writer - DMABUF_FRONT, DMABUF_SIZE);
	}
	test_teardown();
	restore_system();
}

static bool is_outside_ram(const struct row *row)
{
	return row->region == PAGELESS || row->region == PAGED;
}

static void copy_bytes(volatile unsigned char *to,
		       const volatile unsigned char *from, size_t size)
{
	while (size--)
		*to++ = *from++;
}

/*
 * The exporter writes all of the range. Where it was read-only, kernels before
 * 6c287605fd56 (v5.19) put anonymous memory that is pinned elsewhere then, so that the
 * dma-buf keeps what was written before.
 */
static void source_writes(struct __test_metadata *_metadata, struct field *self,
			  unsigned int seed)
{
	size_t start = self->source - self->m.addr;
	unsigned char *writer = self->m.writer + start, *written = self->m.expect + start;
	bool locked = !self->writable && self->m.writer == self->m.addr;

	if (locked && self->row->memory == VMEMEXP_MEMORY_ANON && !self->row->size &&
	    !kernel_at_least(5, 19) && self->expect == written) {
		self->expect = malloc(self->length);
		memcpy(self->expect, written, self->length);
	}
	fill(written, self->length, seed);
	if (locked)
		ASSERT_EQ(0, mprotect(self->m.addr, self->m.size, RW));
	copy_bytes(writer, written, self->length);
	if (locked)
		ASSERT_EQ(0, mprotect(self->m.addr, self->m.size, PROT_READ));
}

/* Check what the exporter sees of the range and around it. */
static void check_source(struct __test_metadata *_metadata, struct field *self)
{
	const unsigned char *seen = self->m.addr;

	if (self->row->region) {
		copy_bytes(self->seen, self->m.addr, self->m.size);
		seen = self->seen;
	}
	EXPECT_SAME(self->m.expect, seen, self->m.size);
}

/* A descriptor of the very same dma-buf, which has other pages, too. */
static void export_dmabuf(struct __test_metadata *_metadata, struct field *self)
{
	struct vmemexp_export *cmd = &self->cmd;
	struct stat st;

	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, cmd)) {
		TH_LOG("reason %u", cmd->err_reason);
	}
	close(self->dmabuf_fd);
	self->dmabuf_fd = -1;
	ASSERT_EQ(0, fstat(cmd->fd, &st));
	ASSERT_EQ(self->dmabuf, st.st_ino);
	ASSERT_EQ(DMABUF_FRONT + (self->unaligned ? CUT_FRONT : 0), cmd->offset);
	ASSERT_EQ(DMABUF_SIZE, cmd->dmabuf_size);
	ASSERT_EQ(VMEMEXP_REASON_NONE, cmd->err_reason);
	ASSERT_EQ(0, cmd->err_addr);
}

/*
 * Lets CPUs see what the other processor has put there. By another dma-buf, so
 * that nothing has been done to the one that is tested.
 */
static void sync_for_cpu(struct __test_metadata *_metadata, struct field *self)
{
	int dmabuf = test_export(self->m.addr, SMALL,
				 self->writable ? O_RDWR : O_RDONLY);

	test_sync(dmabuf, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW |
		  VMEMEXP_SYNC_OBSERVER, 0, SMALL);
	close(dmabuf);
}

/* Returns false if the export was refused as it should be. */
static bool begin(struct __test_metadata *_metadata, struct field *self)
{
	size_t cut = self->unaligned ? CUT_FRONT : 0;
	struct vmemexp_export *cmd = &self->cmd;
	int error;

	self->row->make(_metadata, self);
	error = self->writable ? self->row->rw_errno : self->row->ro_errno;
	if (!self->writable)
		ASSERT_EQ(0, mprotect(self->m.addr, self->m.size, PROT_READ));
	if (self->row->region)
		sync_for_cpu(_metadata, self);
	self->source = self->m.addr + self->row->skip + cut;
	self->expect = self->m.expect + self->row->skip + cut;
	self->length = SMALL - (self->unaligned ? CUT_FRONT + CUT_BACK : 0);
	self->seen = malloc(self->m.size);
	ASSERT_NE(NULL, self->seen);

	*cmd = export_args(self->source, self->length,
			   self->writable ? O_RDWR : O_RDONLY);
	cmd->flags = self->unaligned ? VMEMEXP_EXPORT_UNALIGNED : 0;
	if (error) {
		if (self->row->reason == VMEMEXP_REASON_ACCESS)
			cut = 0;
		test_err_export_cmd(error, self->row->reason,
				    to_u64(self->source - cut), cmd);
		cmd->fd = -1;
		return false;
	}
	if (self->dmabuf) {
		export_dmabuf(_metadata, self);
	} else {
		test_export_cmd(cmd);
		ASSERT_EQ(cut, cmd->offset);
	}
	return true;
}

static void end(struct __test_metadata *_metadata, struct field *self)
{
	check_source(_metadata, self);
	EXPECT_EQ(0, self->m.bystander ?
		     memcmp(self->m.original, self->m.bystander, self->m.size) : 0);
	if (self->row->region)
		check_window(_metadata, self);
	EXPECT_EQ(0, close(self->cmd.fd));
	self->cmd.fd = -1;
}

/* --- query --- */

static bool machine_is(const char *name)
{
	struct utsname system;

	uname(&system);
	return !strncmp(system.machine, name, strlen(name));
}

/* How /dev/mem caches memory outside of System RAM. */
static unsigned int cache_of_devmem(const struct field *self)
{
	bool arm = machine_is("arm");

	if (machine_is("aarch64") || (arm && self->row->region == PAGELESS))
		return VMEMEXP_CACHE_UNCACHED;
	if (!(self->row->how & O_SYNC))
		return VMEMEXP_CACHE_CACHED;
	return arm ? VMEMEXP_CACHE_WRITECOMBINE : VMEMEXP_CACHE_UNCACHED;
}

static unsigned int expected_cache(const struct field *self)
{
	if (self->row->make == make_devmem)
		return cache_of_devmem(self);
	return self->row->cache ?: VMEMEXP_CACHE_CACHED;
}

static struct extents expected_extents(struct __test_metadata *_metadata, struct field *self)
{
	uint64_t frames[PAGES];

	if (self->dmabuf)
		return physical_extents(self->m.writer - DMABUF_FRONT, DMABUF_SIZE);
	if (!self->row->region)
		return physical_extents(self->m.addr + self->row->skip, SMALL);
	for (size_t i = 0; i < PAGES; i++)
		frames[i] = (self->region.base + WINDOW) / PAGE + self->pages[i];
	return find_extents(frames, PAGES);
}

static void try_query(struct __test_metadata *_metadata, struct field *self)
{
	struct vmemexp_query query = query_args(0);
	struct extents extents;

	if (!begin(_metadata, self))
		return;
	EXPECT_EQ(self->row->memory, self->cmd.memory);
	query.fd = self->cmd.fd;
	if (self->row->foreign) {
		EXPECT_EQ(0, self->cmd.nr_extents);
		test_err_struct(EINVAL, VMEMEXP_IOC_QUERY, &query);
		end(_metadata, self);
		return;
	}

	query = test_query(self->cmd.fd);
	extents = expected_extents(_metadata, self);
	EXPECT_EQ(VMEMEXP_ACCESS_READ |
		  (self->writable ? VMEMEXP_ACCESS_WRITE : 0), query.access);
	EXPECT_EQ(self->row->memory & ~VMEMEXP_MEMORY_DMABUF, query.memory);
	EXPECT_EQ(expected_cache(self), query.cache);
	EXPECT_EQ(self->cmd.dmabuf_size, query.dmabuf_size);
	EXPECT_EQ(self->dmabuf ? 0 : self->cmd.offset, query.offset);
	EXPECT_EQ(self->dmabuf ? DMABUF_SIZE : self->length, query.length);
	EXPECT_EQ(extents.nr, self->cmd.nr_extents);
	EXPECT_EQ(extents.nr, query.nr_extents);
	EXPECT_EQ(extents.min, query.min_extent);
	EXPECT_EQ(extents.max, query.max_extent);
	EXPECT_EQ(extents.address_bits, query.address_bits);
	EXPECT_EQ(0, query.state & (VMEMEXP_STATE_STALE | VMEMEXP_STATE_OVERLAPS));
	end(_metadata, self);
}

/* --- mmap --- */

/* Check the caching of the first page of the mapping and of the last one. */
static void check_cache_of_mapping(struct __test_metadata *_metadata,
				   struct field *self,
				   const unsigned char *mapping)
{
	const unsigned char *last = mapping + self->cmd.dmabuf_size - 1;
	struct importer_cache cmds[] = {
		{ .address = to_u64(mapping) }, { .address = to_u64(last) },
	};
	unsigned int wanted = expected_cache(self);
	int session = test_importer_open();

	/* x86 maps pages as all of the kernel has to, which is not told by vgem. */
	if (self->row == &vgem_of_shmem && machine_is("x86_64"))
		wanted = VMEMEXP_CACHE_CACHED;
	/* Fill the page table. */
	(void)*(const volatile unsigned char *)mapping;
	for (size_t i = 0; i < ARRAY_SIZE(cmds); i++) {
		ASSERT_EQ(0, _test_ioctl(session, IMPORTER_IOC_CACHE, &cmds[i]));
		EXPECT_EQ(wanted, cmds[i].cache);
	}
	close(session);
}

/*
 * Executable or not, and changed from one to the other. By an importer's file:
 * newer kernels execute nothing that a dma-buf's own file maps.
 */
static void check_cache_after_mprotect(struct __test_metadata *_metadata,
				       struct field *self)
{
	size_t size = self->cmd.dmabuf_size;
	int session = test_importer_open();
	unsigned char *mapping;

	test_importer_attach(session, self->cmd.fd, IMPORTER_DEV_COHERENT);
	mapping = map(size, PROT_READ | PROT_EXEC, MAP_SHARED, session);
	close(session);
	check_cache_of_mapping(_metadata, self, mapping);
	ASSERT_EQ(0, mprotect(mapping, size, PROT_NONE));
	ASSERT_EQ(0, mprotect(mapping, size, PROT_READ));
	check_cache_of_mapping(_metadata, self, mapping);
	munmap(mapping, size);
}

/* The range, as a mapping of the dma-buf shows it. */
static void check_mapping(struct __test_metadata *_metadata, struct field *self,
			  const unsigned char *mapping)
{
	copy_bytes(self->seen, mapping + self->cmd.offset, self->length);
	EXPECT_SAME(self->expect, self->seen, self->length);
}

/* By the dma-buf's own file, and by an importer's, which is open for writing. */
static void check_read_only(struct __test_metadata *_metadata,
			    struct field *self, int dmabuf)
{
	size_t size = self->cmd.dmabuf_size;
	int session = test_importer_open();
	int files[] = { dmabuf, session };
	void *mapping;

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		EXPECT_EQ(MAP_FAILED,
			  mmap(NULL, size, RW, MAP_SHARED, files[i], 0));
		EXPECT_EQ(EACCES, errno);
		mapping = map(size, PROT_READ, MAP_SHARED, files[i]);
		EXPECT_EQ(-1, mprotect(mapping, size, RW));
		EXPECT_EQ(EACCES, errno);
		munmap(mapping, size);
	}
	close(session);
}

static void try_mmap(struct __test_metadata *_metadata, struct field *self)
{
	int prot = self->writable ? RW : PROT_READ;
	unsigned char *mapping, *part;
	size_t size;
	int dmabuf;

	if (!begin(_metadata, self))
		return;
	dmabuf = self->cmd.fd;
	size = self->cmd.dmabuf_size;
	mapping = map(size, prot, MAP_SHARED, dmabuf);
	part = mmap(NULL, PART_SIZE, prot, MAP_SHARED, dmabuf, PART_START);
	ASSERT_NE(MAP_FAILED, (void *)part);
	if (!self->row->foreign) {
		check_cache_of_mapping(_metadata, self, mapping);
		check_cache_after_mprotect(_metadata, self);
	}

	check_mapping(_metadata, self, mapping);
	copy_bytes(self->seen, part, PART_SIZE);
	for (size_t i = 0; i < PART_SIZE; i++)
		ASSERT_EQ(mapping[PART_START + i], self->seen[i]);
	source_writes(_metadata, self, 2);
	check_mapping(_metadata, self, mapping);

	if (self->writable) {
		test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
		fill(self->expect, self->length, 3);
		copy_bytes(mapping + self->cmd.offset, self->expect, self->length);
		test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);
	} else {
		check_read_only(_metadata, self, dmabuf);
	}
	munmap(part, PART_SIZE);
	munmap(mapping, size);
	end(_metadata, self);
}

/*
 * The exporter has unmapped the memory: on x86, the kernel remembers how memory outside of RAM is
 * cached only as long as something maps it.
 */
static void try_mmap_later(struct __test_metadata *_metadata,
			   struct field *self)
{
	int prot = self->writable ? RW : PROT_READ;
	unsigned char *mapping;
	int driver = -1;

	if (!begin(_metadata, self))
		return;
	/* The pages of a driver are cached as it has them, while it has them. */
	if (self->row->region && self->row->memory == VMEMEXP_MEMORY_DRIVER)
		driver = open_region(self);
	ASSERT_EQ(0, munmap(self->m.addr, self->m.size));
	mapping = map(self->cmd.dmabuf_size, prot, MAP_SHARED, self->cmd.fd);
	if (!self->row->foreign)
		check_cache_of_mapping(_metadata, self, mapping);
	check_mapping(_metadata, self, mapping);
	if (self->writable) {
		fill(self->expect, self->length, 2);
		copy_bytes(mapping + self->cmd.offset, self->expect, self->length);
		check_mapping(_metadata, self, mapping);
	}
	munmap(mapping, self->cmd.dmabuf_size);
	close(driver);
	if (self->row->region)
		check_window(_metadata, self);
}

/* --- vmap --- */

static bool can_vmap(const struct field *self)
{
	const struct row *row = self->row;

	return self->writable && !row->unlisted &&
	       !(row->region == PAGELESS && row->scattered);
}

static void check_cache_of_vmap(struct __test_metadata *_metadata,
				struct field *self, int session)
{
	struct importer_cache cmd = { .flags = IMPORTER_CACHE_OF_VMAP };
	unsigned int wanted = expected_cache(self);
	int ret = _test_ioctl(session, IMPORTER_IOC_CACHE, &cmd);

	if (ret == -EOPNOTSUPP)
		return;
	/*
	 * The kernel does not use uncached memory as it uses memory: accesses would fault where the
	 * CPU has them for devices.
	 */
	if (wanted == VMEMEXP_CACHE_UNCACHED && !machine_is("x86_64"))
		wanted = VMEMEXP_CACHE_WRITECOMBINE;
	EXPECT_EQ(0, ret);
	EXPECT_EQ(wanted, cmd.cache);
}

static void try_vmap(struct __test_metadata *_metadata, struct field *self)
{
	const size_t half = SMALL / 2 + 33;
	unsigned char *end_of_write;
	uint64_t offset;
	int session;

	if (!begin(_metadata, self))
		return;
	offset = self->cmd.offset;
	session = test_importer_open();
	test_importer_attach(session, self->cmd.fd, IMPORTER_DEV_COHERENT);
	if (can_vmap(self)) {
		test_importer_vmap(session);
		if (!self->row->foreign)
			check_cache_of_vmap(_metadata, self, session);
		test_importer_vread(session, offset, self->seen, self->length);
		EXPECT_SAME(self->expect, self->seen, self->length);

		source_writes(_metadata, self, 2);
		test_importer_vread(session, offset, self->seen, self->length);
		EXPECT_SAME(self->expect, self->seen, self->length);

		end_of_write = self->expect + self->length - half;
		fill(end_of_write, half, 3);
		test_importer_vwrite(session, offset + self->length - half,
				     end_of_write, half);
		test_importer_vunmap(session);
	} else {
		EXPECT_EQ(-vmap_refused(), _test_ioctl(session, IMPORTER_IOC_VMAP, NULL));
	}
	close(session);
	end(_metadata, self);
}

/* --- dma_out, dma_in --- */

/* Devices of the importer. A dma-buf of another driver is tried with the first one alone. */
static const unsigned int devices[] = {
	IMPORTER_DEV_COHERENT, IMPORTER_DEV_NONCOHERENT, IMPORTER_DEV_SHADOW,
};

static size_t nr_devices(const struct field *self)
{
	return self->row->foreign ? 1 : ARRAY_SIZE(devices);
}

/* Check that the device reads these bytes of the range. */
static void check_device(struct __test_metadata *_metadata, struct field *self,
			 int session, const unsigned char *want)
{
	test_importer_read(session, self->cmd.offset, self->seen, self->length);
	EXPECT_SAME(want, self->seen, self->length);
}

/* One segment for each extent, and none that is bounced or has no page to show. */
static void check_segments(struct __test_metadata *_metadata,
			   struct field *self, int session)
{
	struct importer_info info = test_importer_info(session);

	EXPECT_EQ(self->cmd.dmabuf_size, info.dma_size);
	if (self->row->foreign)
		return;
	EXPECT_EQ(self->cmd.nr_extents, info.nents);
	if (info.device == IMPORTER_DEV_SHADOW || !(info.flags & IMPORTER_INFO_BOUNCED))
		return;
	EXPECT_EQ(0, info.nr_bounced);
	EXPECT_EQ(self->row->region == PAGELESS,
		  !!(info.flags & IMPORTER_INFO_PAGELESS));
}

/*
 * Nothing bounces what is not RAM: the device reaches it, or is refused. For one that
 * might bounce, dma_map_resource() takes what has a struct page since a9c38c5d267c
 * (v5.16).
 */
static void check_narrow_device(struct __test_metadata *_metadata,
				struct field *self)
{
	bool can_map = self->row->region != PAGED || kernel_at_least(5, 16);
	unsigned int bits = test_query(self->cmd.fd).address_bits;
	int session = test_importer_open();
	int ret;

	ret = _test_importer_attach(session, self->cmd.fd, IMPORTER_DEV_MASK28);
	/* The machine has no memory at all in its reach. */
	if (ret == -EIO) {
		close(session);
		return;
	}
	ASSERT_EQ(0, ret);
	ret = _test_importer_map(session, IMPORTER_TO_DEVICE);
	if (bits > 28 || !can_map) {
		EXPECT_GT(0, ret);
	} else {
		ASSERT_EQ(0, ret);
		check_device(_metadata, self, session, self->expect);
		EXPECT_EQ(0, test_importer_info(session).nr_bounced);
	}
	close(session);
}

static void try_dma_out(struct __test_metadata *_metadata, struct field *self)
{
	unsigned int seed = 2;

	if (!begin(_metadata, self))
		return;
	for (size_t i = 0; i < nr_devices(self); i++) {
		int session = test_importer_open();

		test_importer_attach(session, self->cmd.fd, devices[i]);
		test_importer_map(session, IMPORTER_TO_DEVICE);
		check_segments(_metadata, self, session);
		check_device(_metadata, self, session, self->expect);
		test_importer_unmap(session);

		source_writes(_metadata, self, seed++);
		test_importer_map(session, IMPORTER_TO_DEVICE);
		check_device(_metadata, self, session, self->expect);
		test_importer_unmap(session);
		EXPECT_EQ(0, test_importer_info(session).nr_errors);
		close(session);
	}
	if (is_outside_ram(self->row))
		check_narrow_device(_metadata, self);
	end(_metadata, self);
}

static void check_dma_in(struct __test_metadata *_metadata, struct field *self,
			 unsigned int device, unsigned int direction,
			 unsigned int seed)
{
	int session = test_importer_open();
	int ret;

	test_importer_attach(session, self->cmd.fd, device);
	ret = _test_importer_map(session, direction);
	EXPECT_EQ(self->writable ? 0 : -EACCES, ret);
	if (!ret) {
		fill(self->expect, self->length, seed);
		test_importer_write(session, self->cmd.offset, self->expect,
				    self->length);
		test_importer_unmap(session);
		check_source(_metadata, self);
	}
	EXPECT_EQ(0, test_importer_info(session).nr_errors);
	close(session);
}

static void try_dma_in(struct __test_metadata *_metadata, struct field *self)
{
	if (!begin(_metadata, self))
		return;
	for (size_t i = 0; i < nr_devices(self); i++) {
		check_dma_in(_metadata, self, devices[i], IMPORTER_FROM_DEVICE,
			     2 * i + 2);
		check_dma_in(_metadata, self, devices[i], IMPORTER_BIDIRECTIONAL,
			     2 * i + 3);
	}
	end(_metadata, self);
}

/* --- sync: exactly the bytes named --- */

/* Begins and ends inside of pages. */
#define PIECE_START	(2 * PAGE + 77)
#define PIECE_SIZE	(7 * PAGE + 1234)

static void check_sync_of_device(struct __test_metadata *_metadata,
				 struct field *self, unsigned int device,
				 unsigned int seed)
{
	/* RAM alone can be synced, and so need not be seen without. */
	bool copied = device == IMPORTER_DEV_SHADOW && !is_outside_ram(self->row);
	uint64_t piece = self->cmd.offset + PIECE_START;
	unsigned char *on_device = malloc(self->length);
	int session = test_importer_open();
	struct importer_info info;

	test_importer_attach(session, self->cmd.fd, device);
	test_importer_map(session, self->writable ? IMPORTER_BIDIRECTIONAL :
						       IMPORTER_TO_DEVICE);
	info = test_importer_info(session);
	if (info.flags & IMPORTER_INFO_BOUNCED)
		EXPECT_EQ(copied ? info.nents : 0, info.nr_bounced);
	memcpy(on_device, self->expect, self->length);
	check_device(_metadata, self, session, on_device);

	source_writes(_metadata, self, seed);
	test_sync(self->cmd.fd, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, piece, PIECE_SIZE);
	if (copied)
		memcpy(on_device + PIECE_START, self->expect + PIECE_START, PIECE_SIZE);
	else
		memcpy(on_device, self->expect, self->length);
	check_device(_metadata, self, session, on_device);
	check_source(_metadata, self);

	if (self->writable) {
		fill(on_device, self->length, seed + 1);
		test_importer_write(session, self->cmd.offset, on_device, self->length);
		test_sync(self->cmd.fd, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ,
			  piece, PIECE_SIZE);
		if (copied)
			memcpy(self->expect + PIECE_START, on_device + PIECE_START,
			       PIECE_SIZE);
		else
			memcpy(self->expect, on_device, self->length);
		check_source(_metadata, self);
		check_device(_metadata, self, session, on_device);
		/* The rest comes with the end of the mapping. */
		memcpy(self->expect, on_device, self->length);
	}
	test_importer_unmap(session);
	check_source(_metadata, self);
	EXPECT_EQ(0, test_importer_info(session).nr_errors);
	close(session);
	free(on_device);
}

static void check_sync_is_refused(struct __test_metadata *_metadata,
				  struct field *self, unsigned int flags)
{
	struct vmemexp_sync cmd = sync_args(self->cmd.fd, flags, 0, PAGE);

	test_err_struct(EINVAL, VMEMEXP_IOC_SYNC, &cmd);
}

static void try_sync(struct __test_metadata *_metadata, struct field *self)
{
	if (!begin(_metadata, self))
		return;
	if (self->row->foreign) {
		check_sync_is_refused(_metadata, self, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
		check_sync_is_refused(_metadata, self, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE);
	} else {
		check_sync_of_device(_metadata, self, IMPORTER_DEV_SHADOW, 2);
		check_sync_of_device(_metadata, self, IMPORTER_DEV_NONCOHERENT, 4);
	}
	end(_metadata, self);
}

/* --- observer: a processor beside Linux, or for other kinds a device as one --- */

/* @session is the device; @offset counts from the start of the range. */
static void observe(struct __test_metadata *_metadata, struct field *self,
		    int session, bool write, size_t offset, unsigned char *buf,
		    size_t length)
{
	size_t cut = self->unaligned ? CUT_FRONT : 0;

	if (self->row->region) {
		other_processor(_metadata, self, write ? CARVEOUT_IOC_WRITE : CARVEOUT_IOC_READ,
				cut + offset, buf, length);
	} else if (write) {
		test_importer_write(session, self->cmd.offset + offset, buf, length);
	} else {
		test_importer_read(session, self->cmd.offset + offset, buf, length);
	}
}

static void check_observer(struct __test_metadata *_metadata,
			   struct field *self, int session)
{
	uint64_t piece = self->cmd.offset + PIECE_START;

	source_writes(_metadata, self, 2);
	test_sync(self->cmd.fd, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE | VMEMEXP_SYNC_OBSERVER,
		  piece, PIECE_SIZE);
	observe(_metadata, self, session, false, PIECE_START, self->seen, PIECE_SIZE);
	EXPECT_SAME(self->expect + PIECE_START, self->seen, PIECE_SIZE);

	/* Access rights do not stop the other processor, but they do a device. */
	if (!self->writable && !self->row->region)
		return;
	fill(self->expect + PIECE_START, PIECE_SIZE, 3);
	observe(_metadata, self, session, true, PIECE_START, self->expect + PIECE_START,
		PIECE_SIZE);
	test_sync(self->cmd.fd, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER,
		  piece, PIECE_SIZE);
	check_source(_metadata, self);
}

static void try_observer(struct __test_metadata *_metadata, struct field *self)
{
	unsigned int direction = self->writable ? IMPORTER_BIDIRECTIONAL :
						     IMPORTER_TO_DEVICE;
	int session;

	if (!begin(_metadata, self))
		return;
	if (self->row->foreign) {
		check_sync_is_refused(_metadata, self, VMEMEXP_SYNC_START |
				      VMEMEXP_SYNC_READ | VMEMEXP_SYNC_OBSERVER);
		end(_metadata, self);
		return;
	}
	session = test_importer_open();
	test_importer_attach(session, self->cmd.fd, IMPORTER_DEV_COHERENT);
	if (!self->row->region)
		test_importer_map(session, direction);
	check_observer(_metadata, self, session);
	close(session);
	end(_metadata, self);
}

/* --- the rows of the table --- */

FIXTURE(kinds)
{
	struct field field;
};

FIXTURE_VARIANT(kinds)
{
	const struct row *row;
	bool writable;
	bool unaligned;
};

#define KIND(name, ...)							\
	static const struct row name = { __VA_ARGS__ };			\
	FIXTURE_VARIANT_ADD(kinds, name##_rw) {				\
		.row = &name, .writable = true,				\
	};								\
	FIXTURE_VARIANT_ADD(kinds, name##_rw_unaligned) {		\
		.row = &name, .writable = true, .unaligned = true,	\
	};								\
	FIXTURE_VARIANT_ADD(kinds, name##_ro) {				\
		.row = &name,						\
	};								\
	FIXTURE_VARIANT_ADD(kinds, name##_ro_unaligned) {		\
		.row = &name, .unaligned = true,			\
	}

#define MEMORY(kind, make_it)						\
	.memory = VMEMEXP_MEMORY_##kind, .make = make_other_memory,	\
	.make_memory = make_it

#define FOR_READING_ONLY						\
	.rw_errno = EPERM, .reason = VMEMEXP_REASON_KIND

/* Pages on both sides of where two huge pages meet. */
#define HUGE	.size = 2 * HUGE_PAGE, .skip = HUGE_PAGE - PAGES / 2 * PAGE

KIND(anon, MEMORY(ANON, make_anon));
KIND(thp, MEMORY(ANON, make_thp), .missing = need_thp, HUGE);
KIND(shared_anon, MEMORY(SHMEM, make_shared_anon));
KIND(memfd, MEMORY(SHMEM, make_memfd));
KIND(tmpfs, MEMORY(SHMEM, make_posix_shm));
KIND(hugetlb_private, MEMORY(HUGETLB, make_hugetlb), .missing = need_hugetlb, HUGE);
KIND(hugetlb_shared, MEMORY(HUGETLB, make_hugetlb_memfd), .missing = need_hugetlb, HUGE);
KIND(file, MEMORY(FILE, make_file_shared), .missing = need_ext4, FOR_READING_ONLY);
KIND(file_copied, MEMORY(ANON, make_file_written), .missing = need_ext4);
KIND(packet_ring, MEMORY(DRIVER, make_driver), .missing = need_packet);

/* Pages that a driver inserted one by one, in and outside of System RAM. */
#define INSERTED(where, attribute)					\
	.make = make_driver_memory, .region = where,			\
	.cache = VMEMEXP_CACHE_##attribute, .how = CARVEOUT_HOW_PAGES,	\
	.memory = VMEMEXP_MEMORY_DRIVER

KIND(driver_cached, INSERTED(RAM, CACHED));
KIND(driver_wc, INSERTED(RAM, WRITECOMBINE));
KIND(driver_uncached, INSERTED(RAM, UNCACHED));
KIND(driver_carveout_cached, INSERTED(PAGED, CACHED));
KIND(driver_carveout_wc, INSERTED(PAGED, WRITECOMBINE));
KIND(driver_carveout_uncached, INSERTED(PAGED, UNCACHED));

/* Page frames. */
#define FRAMES(where, attribute, manner)				\
	.make = make_driver_memory, .region = where,			\
	.cache = VMEMEXP_CACHE_##attribute,				\
	.how = CARVEOUT_HOW_##manner, .memory = VMEMEXP_MEMORY_PFNMAP

KIND(carveout_cached_remap, FRAMES(PAGELESS, CACHED, REMAP));
KIND(carveout_cached_fault, FRAMES(PAGELESS, CACHED, FAULT));
KIND(carveout_wc_remap, FRAMES(PAGELESS, WRITECOMBINE, REMAP));
KIND(carveout_wc_fault, FRAMES(PAGELESS, WRITECOMBINE, FAULT));
KIND(carveout_uncached_remap, FRAMES(PAGELESS, UNCACHED, REMAP));
KIND(carveout_uncached_fault, FRAMES(PAGELESS, UNCACHED, FAULT));
KIND(carveout_scattered, FRAMES(PAGELESS, WRITECOMBINE, REMAP), .scattered = true);
KIND(carveout_unlisted, FRAMES(PAGELESS, CACHED, REMAP), .unlisted = true);

KIND(paged_cached_remap, FRAMES(PAGED, CACHED, REMAP));
KIND(paged_cached_fault, FRAMES(PAGED, CACHED, FAULT));
KIND(paged_wc_remap, FRAMES(PAGED, WRITECOMBINE, REMAP));
KIND(paged_wc_fault, FRAMES(PAGED, WRITECOMBINE, FAULT));
KIND(paged_uncached_remap, FRAMES(PAGED, UNCACHED, REMAP));
KIND(paged_uncached_fault, FRAMES(PAGED, UNCACHED, FAULT));
KIND(paged_scattered, FRAMES(PAGED, CACHED, FAULT), .scattered = true);
KIND(paged_unlisted, FRAMES(PAGED, CACHED, REMAP), .unlisted = true);

KIND(reserved_cached_remap, FRAMES(RESERVED, CACHED, REMAP));
KIND(reserved_cached_fault, FRAMES(RESERVED, CACHED, FAULT));
KIND(reserved_wc_remap, FRAMES(RESERVED, WRITECOMBINE, REMAP));
KIND(reserved_uncached_remap, FRAMES(RESERVED, UNCACHED, REMAP));

KIND(ram_cached_remap, FRAMES(RAM, CACHED, REMAP));
KIND(ram_cached_fault, FRAMES(RAM, CACHED, FAULT));
KIND(ram_wc_remap, FRAMES(RAM, WRITECOMBINE, REMAP));
KIND(ram_uncached_remap, FRAMES(RAM, UNCACHED, REMAP));
KIND(ram_scattered, FRAMES(RAM, WRITECOMBINE, REMAP), .scattered = true);

/* The same by a driver that all kernels have. */
#define DEVMEM(where, flags)						\
	.make = make_devmem, .missing = need_devmem, .region = where,	\
	.how = flags, .memory = VMEMEXP_MEMORY_PFNMAP

KIND(devmem_carveout, DEVMEM(PAGELESS, 0));
KIND(devmem_carveout_sync, DEVMEM(PAGELESS, O_SYNC));
KIND(devmem_carveout_scattered, DEVMEM(PAGELESS, 0), .scattered = true);
KIND(devmem_paged, DEVMEM(PAGED, 0));
KIND(devmem_paged_sync, DEVMEM(PAGED, O_SYNC));

/*
 * Ranges that are a dma-buf's already. Dma-bufs of other drivers are open for writing, so they
 * cannot be exported read-only. vgem's mappings do not show which part of a dma-buf they are, only
 * that there is RAM behind them.
 */
#define OWN(kind)							\
	.make = make_own_dmabuf,					\
	.memory = VMEMEXP_MEMORY_##kind | VMEMEXP_MEMORY_DMABUF

#define FOREIGN(make_it)						\
	.make = make_it, .foreign = true, .memory = VMEMEXP_MEMORY_DMABUF, \
	.ro_errno = EACCES, .reason = VMEMEXP_REASON_ACCESS

#define NOT_SHOWN							\
	.rw_errno = EPERM, .ro_errno = EPERM, .reason = VMEMEXP_REASON_RAM

KIND(dmabuf_own, OWN(ANON));
KIND(dmabuf_udmabuf, FOREIGN(make_udmabuf_mapping), .missing = need_udmabuf);
KIND(dmabuf_heap, FOREIGN(make_heap_mapping), .missing = need_heap);
KIND(dmabuf_vgem, .make = make_vgem_mapping, .missing = need_vgem, NOT_SHOWN);

/* --- the columns --- */

FIXTURE_SETUP(kinds)
{
	const struct row *row = variant->row;
	const char *missing = row->missing ? row->missing() : NULL;

	self->field.row = row;
	self->field.writable = variant->writable;
	self->field.unaligned = variant->unaligned;
	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	if (row->region) {
		skip_without_carveout();
		if (find_region(row->region, &self->field.region))
			SKIP(return, "there is no carve-out %s",
			     region_names[row->region]);
	}
	if (!can_insert_pages(&self->field))
		SKIP(return, "the kernel cannot insert pages from outside of System RAM");
	set_up(_metadata, &self->field);
}

FIXTURE_TEARDOWN(kinds)
{
	tear_down(_metadata, &self->field);
}

TEST_F(kinds, query)
{
	try_query(_metadata, &self->field);
}

TEST_F(kinds, mmap)
{
	try_mmap(_metadata, &self->field);
}

TEST_F(kinds, mmap_later)
{
	try_mmap_later(_metadata, &self->field);
}

TEST_F(kinds, vmap)
{
	try_vmap(_metadata, &self->field);
}

TEST_F(kinds, dma_out)
{
	try_dma_out(_metadata, &self->field);
}

TEST_F(kinds, dma_in)
{
	try_dma_in(_metadata, &self->field);
}

TEST_F(kinds, sync)
{
	try_sync(_metadata, &self->field);
}

TEST_F(kinds, observer)
{
	try_observer(_metadata, &self->field);
}

TEST_HARNESS_MAIN

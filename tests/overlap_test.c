// SPDX-License-Identifier: GPL-2.0
/*
 * A page that is in one buffer more than once, as in a ring buffer whose memory is
 * mapped twice in a row.
 *
 * A device that works on the memory itself sees what every other one sees, at either
 * place. One that works on a copy has two copies of the page, each of which knows
 * nothing of what was written to the other: it must not get a mapping. And nothing may
 * be taken for a page that is there twice and is none.
 *
 * A layout says which pages of a file are mapped side by side, or, if they are listed, which
 * pages of one mapping of it are the ranges of an export. Its kind says what sort of file
 * that is.
 */
#include "lib/vmemexp_memory.h"

#define TMPFS		"/tmp/vmemexp-overlap"

/* More pages than the driver pins at a time. */
#define MANY		600
#define MAX_UNITS	(MANY + 9)

struct layout {
	const char *name;
	bool overlaps;
	/* So many pages are mapped in their order ... */
	unsigned int before;
	/* ... and behind them these, by their numbers in the file. */
	unsigned int nr;
	unsigned short units[9];
};

static const struct layout layouts[] = {
	{ "in order", false, 0, 6, { 0, 1, 2, 3, 4, 5 } },
	{ "backwards", false, 0, 6, { 5, 4, 3, 2, 1, 0 } },
	{ "first all even ones", false, 0, 6, { 0, 2, 4, 1, 3, 5 } },
	{ "the halves the other way round", false, 0, 6, { 3, 4, 5, 0, 1, 2 } },
	{ "one", false, 0, 1, { 3 } },
	{ "one twice", true, 0, 2, { 2, 2 } },
	{ "a ring", true, 0, 8, { 0, 1, 2, 3, 0, 1, 2, 3 } },
	{ "three times", true, 0, 9, { 3, 4, 5, 3, 4, 5, 3, 4, 5 } },
	{ "the last of one is the first of the next", true, 0, 6, { 0, 1, 2, 2, 3, 4 } },
	{ "one in the middle of others", true, 0, 5, { 1, 2, 3, 4, 2 } },
	{ "the first again at the end", true, 0, 7, { 0, 4, 2, 5, 3, 1, 0 } },
	{ "backwards and forwards", true, 0, 6, { 2, 1, 0, 0, 1, 2 } },
};

/* These take too long, or too much memory, in huge pages. */
static const struct layout long_layouts[] = {
	{ "many", false, MANY, 0, {} },
	{ "many, and the first again", true, MANY, 1, { 0 } },
	{ "many, and the last again", true, MANY, 1, { MANY - 1 } },
};

/* ---- kinds of files ---- */

struct scene {
	int fd;
	struct test_state before;
	const struct kind *kind;
	int file;
	unsigned char *source;	/* all of it, in order */
	size_t unit;		/* bytes in a page, which one of hugetlb's is as well */
	unsigned int nr_units;
	/* The exported memory. */
	unsigned char *addr;
	struct vmemexp_range ranges[MAX_UNITS];
	size_t size;
	unsigned int nr;
	unsigned short units[MAX_UNITS];
	unsigned char *seen;
};

struct kind {
	void (*make)(struct __test_metadata *_metadata, struct scene *self);
	const char *(*missing)(void);
	unsigned int memory;
	bool listed;		/* the pages of a layout are ranges of one mapping */
	bool huge;		/* a page is a page of hugetlb */
	bool read_only;
	bool no_copies;		/* no device works on a copy of it */
};

static void make_memfd_file(struct __test_metadata *_metadata, struct scene *self)
{
	self->file = memfd(self->nr_units * self->unit, 0);
}

/* There is a file behind it that has no name: see __place(). */
static void make_shared_anonymous(struct __test_metadata *_metadata, struct scene *self)
{
	self->file = -1;
	self->source = map(self->nr_units * self->unit, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
}

/* It is at one address, so only a list can have a page of it twice. */
static void make_private(struct __test_metadata *_metadata, struct scene *self)
{
	self->file = -1;
	self->source = map(self->nr_units * self->unit, RW, ANON, -1);
	ASSERT_EQ(0, forbid_thp(self->source, self->nr_units * self->unit));
}

static void make_private_huge_pages(struct __test_metadata *_metadata, struct scene *self)
{
	struct memory m = { .size = 2 * HUGE_PAGE };

	make_thp(_metadata, &m);
	free(m.expect);
	self->file = -1;
	self->source = m.addr;
	self->nr_units = m.size / PAGE;
}

static void make_hugetlb_file(struct __test_metadata *_metadata, struct scene *self)
{
	self->unit = HUGE_PAGE;
	self->nr_units = 6;
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "6"));
	self->file = memfd(self->nr_units * self->unit, MFD_HUGETLB);
}

/* Its pages are parts of huge ones. */
static void make_huge_tmpfs_file(struct __test_metadata *_metadata, struct scene *self)
{
	mkdir(TMPFS, 0700);
	ASSERT_EQ(0, mount("tmpfs", TMPFS, "tmpfs", 0, "huge=always"));
	self->file = open(TMPFS "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	/* It goes with its file. */
	ASSERT_EQ(0, umount2(TMPFS, MNT_DETACH));
	ASSERT_LE(0, self->file);
	self->nr_units = 2 * HUGE_PAGE / PAGE;
	ASSERT_EQ(0, ftruncate(self->file, 2 * HUGE_PAGE));
	self->source = map_huge_pages(2 * HUGE_PAGE, HUGE_PAGE, RW, MAP_SHARED, self->file);
	ASSERT_NE(MAP_FAILED, (void *)self->source);
	for (size_t at = 0; at < 2 * HUGE_PAGE; at += HUGE_PAGE)
		self->source[at] = 1;
	ASSERT_EQ(2 * HUGE_PAGE / 1024,
		  strtoul(smaps_field(self->source, "ShmemPmdMapped:"), NULL, 10));
}

static void make_ext4_file(struct __test_metadata *_metadata, struct scene *self)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "file"));
	self->file = ext4_file(self->nr_units * self->unit);
}

/* A driver's file: of its own pages, or of those of a carve-out. */
static void __open_driver(struct __test_metadata *_metadata, struct scene *self,
			  const struct carveout_info *info, unsigned int how)
{
	const struct carveout_setup setup = {
		.region = info->region,
		.cache = CARVEOUT_CACHED,
		.how = how,
	};

	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, carveout_text(info)));
	self->file = _test_carveout_open(&setup);
	ASSERT_LE(0, self->file);
	/* As much as every region has, and a layout needs. */
	self->nr_units = 16;
}

static void make_pages_of_driver(struct __test_metadata *_metadata, struct scene *self)
{
	struct carveout_info info;

	ASSERT_EQ(0, _test_carveout_info(CARVEOUT_REGION_RAM, &info));
	__open_driver(_metadata, self, &info, CARVEOUT_HOW_PAGES);
}

static void make_frames_of_ram(struct __test_metadata *_metadata, struct scene *self)
{
	struct carveout_info info;

	ASSERT_EQ(0, _test_carveout_info(CARVEOUT_REGION_RAM, &info));
	__open_driver(_metadata, self, &info, CARVEOUT_HOW_REMAP);
}

/* With struct pages or without. */
static void __make_frames(struct __test_metadata *_metadata, struct scene *self,
			  unsigned int how)
{
	struct carveout_info info = { .flags = CARVEOUT_INFO_RAM };

	for (unsigned int i = 0; info.flags & CARVEOUT_INFO_RAM; i++)
		ASSERT_EQ(0, _test_carveout_info(i, &info));
	__open_driver(_metadata, self, &info, how);
}

static void make_frames(struct __test_metadata *_metadata, struct scene *self)
{
	__make_frames(_metadata, self, CARVEOUT_HOW_REMAP);
}

static void make_frames_by_fault(struct __test_metadata *_metadata, struct scene *self)
{
	__make_frames(_metadata, self, CARVEOUT_HOW_FAULT);
}

static const char *need_carveout(void)
{
	return access(CARVEOUT_PATH, F_OK) ? "module vmemexp_carveout" : NULL;
}

FIXTURE(overlap)
{
	struct scene scene;
};

FIXTURE_VARIANT(overlap)
{
	struct kind kind;
};

FIXTURE_VARIANT_ADD(overlap, memfd) {
	.kind = {
		.make = make_memfd_file, .memory = VMEMEXP_MEMORY_SHMEM,
	},
};

FIXTURE_VARIANT_ADD(overlap, shared_anon) {
	.kind = {
		.make = make_shared_anonymous, .memory = VMEMEXP_MEMORY_SHMEM,
	},
};

FIXTURE_VARIANT_ADD(overlap, hugetlb) {
	.kind = {
		.make = make_hugetlb_file, .missing = need_hugetlb, .huge = true,
		.memory = VMEMEXP_MEMORY_HUGETLB,
	},
};

FIXTURE_VARIANT_ADD(overlap, thp) {
	.kind = {
		.make = make_huge_tmpfs_file, .missing = need_thp, .memory = VMEMEXP_MEMORY_SHMEM,
	},
};

FIXTURE_VARIANT_ADD(overlap, file) {
	.kind = {
		.make = make_ext4_file, .missing = need_ext4, .read_only = true,
		.memory = VMEMEXP_MEMORY_FILE,
	},
};

FIXTURE_VARIANT_ADD(overlap, driver) {
	.kind = {
		.make = make_pages_of_driver, .missing = need_carveout,
		.memory = VMEMEXP_MEMORY_DRIVER,
	},
};

FIXTURE_VARIANT_ADD(overlap, frames_of_ram) {
	.kind = {
		.make = make_frames_of_ram, .missing = need_carveout,
		.memory = VMEMEXP_MEMORY_PFNMAP,
	},
};

FIXTURE_VARIANT_ADD(overlap, frames) {
	.kind = {
		.make = make_frames, .missing = need_carveout, .no_copies = true,
		.memory = VMEMEXP_MEMORY_PFNMAP,
	},
};

FIXTURE_VARIANT_ADD(overlap, frames_by_fault) {
	.kind = {
		.make = make_frames_by_fault, .missing = need_carveout, .no_copies = true,
		.memory = VMEMEXP_MEMORY_PFNMAP,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_anon) {
	.kind = {
		.make = make_private, .listed = true, .memory = VMEMEXP_MEMORY_ANON,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_thp) {
	.kind = {
		.make = make_private_huge_pages, .missing = need_thp, .listed = true,
		.memory = VMEMEXP_MEMORY_ANON,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_memfd) {
	.kind = {
		.make = make_memfd_file, .listed = true, .memory = VMEMEXP_MEMORY_SHMEM,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_hugetlb) {
	.kind = {
		.make = make_hugetlb_file, .missing = need_hugetlb, .listed = true,
		.huge = true, .memory = VMEMEXP_MEMORY_HUGETLB,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_file) {
	.kind = {
		.make = make_ext4_file, .missing = need_ext4, .listed = true,
		.read_only = true, .memory = VMEMEXP_MEMORY_FILE,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_driver) {
	.kind = {
		.make = make_pages_of_driver, .missing = need_carveout, .listed = true,
		.memory = VMEMEXP_MEMORY_DRIVER,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_frames) {
	.kind = {
		.make = make_frames, .missing = need_carveout, .listed = true,
		.no_copies = true, .memory = VMEMEXP_MEMORY_PFNMAP,
	},
};

FIXTURE_VARIANT_ADD(overlap, listed_frames_by_fault) {
	.kind = {
		.make = make_frames_by_fault, .missing = need_carveout, .listed = true,
		.no_copies = true, .memory = VMEMEXP_MEMORY_PFNMAP,
	},
};

static void __set_up(struct __test_metadata *_metadata, struct scene *self,
		     const struct kind *kind)
{
	test_setup();
	ASSERT_EQ(PAGE, page_size());
	self->kind = kind;
	self->unit = PAGE;
	self->nr_units = MANY;
	kind->make(_metadata, self);
	if (!self->source)
		self->source = map(self->nr_units * self->unit, RW, MAP_SHARED, self->file);
}

FIXTURE_SETUP(overlap)
{
	const char *missing = variant->kind.missing ? variant->kind.missing() : NULL;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	__set_up(_metadata, &self->scene, &variant->kind);
}

static void __tear_down(struct __test_metadata *_metadata, struct scene *self)
{
	if (self->file >= 0)
		close(self->file);
	munmap(self->source, self->nr_units * self->unit);
	test_teardown();
	restore_system();
}

FIXTURE_TEARDOWN(overlap)
{
	__tear_down(_metadata, &self->scene);
}

/* ---- layouts of pages ---- */

/* Maps a page of the file once more. */
static void __place(struct __test_metadata *_metadata, struct scene *self,
		    unsigned char *to, unsigned int unit)
{
	unsigned char *from = self->source + unit * self->unit;
	int prot = self->kind->read_only ? PROT_READ : RW;

	if (self->file >= 0)
		to = mmap(to, self->unit, prot, MAP_SHARED | MAP_FIXED, self->file,
			  unit * self->unit);
	else
		/* The length of 0 makes it a second mapping. */
		to = mremap(from, 0, self->unit, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_NE(MAP_FAILED, (void *)to);
}

static void __lay_out(struct __test_metadata *_metadata, struct scene *self,
		      const struct layout *layout)
{
	self->nr = 0;
	for (unsigned int i = 0; i < layout->before; i++)
		self->units[self->nr++] = i;
	for (unsigned int i = 0; i < layout->nr; i++)
		self->units[self->nr++] = layout->units[i];
	self->size = self->nr * self->unit;
	self->seen = malloc(self->size);
	ASSERT_NE(NULL, self->seen);
	if (self->kind->listed)
		return;
	self->addr = map_huge_pages(self->size, self->unit, PROT_NONE, ANON | MAP_NORESERVE, -1);
	ASSERT_NE(MAP_FAILED, (void *)self->addr);
	for (unsigned int i = 0; i < self->nr; i++)
		__place(_metadata, self, self->addr + i * self->unit, self->units[i]);
}

#define lay_out(layout)	__lay_out(_metadata, self, layout)

static void clear_away(struct scene *self)
{
	if (!self->kind->listed)
		munmap(self->addr, self->size);
	free(self->seen);
}

/* The arguments that export the layout from @cut bytes on, without as many at its end. */
static struct vmemexp_export layout_args(struct scene *self, size_t cut, unsigned int fd_flags)
{
	if (!self->kind->listed)
		return export_args(self->addr + cut, self->size - 2 * cut, fd_flags);
	for (unsigned int i = 0; i < self->nr; i++) {
		self->ranges[i].vaddr = to_u64(self->source + self->units[i] * self->unit);
		self->ranges[i].length = self->unit;
	}
	self->ranges[0].vaddr += cut;
	self->ranges[0].length -= cut;
	self->ranges[self->nr - 1].length -= cut;
	return list_args(self->ranges, self->nr, fd_flags);
}

static int __export_layout(struct __test_metadata *_metadata, struct scene *self,
			   unsigned int fd_flags)
{
	struct vmemexp_export cmd = layout_args(self, 0, fd_flags);

	return test_export_cmd(&cmd);
}

#define export_layout(fd_flags) __export_layout(_metadata, self, fd_flags)

#define for_each_layout						\
	for (const struct layout *layout = layouts;			\
	     layout < layouts + ARRAY_SIZE(layouts); layout++)

/* Neither what the kernel maps for a driver nor hugetlb has so many pages. */
#define for_each_long_layout					\
	for (const struct layout *layout = long_layouts;		\
	     self->nr_units >= MANY && !self->kind->huge &&		\
	     layout < long_layouts + ARRAY_SIZE(long_layouts); layout++)

/* Bytes that are compared in each page: not all of a huge one. */
#define LOOK		PAGE

/* Fill the units. All places of the buffer that are the same unit hold this. */
static void write_source(struct scene *self, unsigned int seed)
{
	for (size_t i = 0; i < self->nr_units; i++)
		fill(self->source + i * self->unit, LOOK, seed + i);
}

static void __check_seen(struct __test_metadata *_metadata, const struct scene *self)
{
	for (unsigned int i = 0; i < self->nr; i++)
		EXPECT_SAME(self->source + self->units[i] * self->unit,
			    self->seen + i * self->unit, LOOK);
}

#define check_seen()	__check_seen(_metadata, self)

/* By the device or the kernel's mapping, as @request has it. */
static void __look(struct __test_metadata *_metadata, struct scene *self, int session,
		   unsigned long request)
{
	memset(self->seen, 0, self->size);
	for (size_t at = 0; at < self->size; at += self->unit)
		ASSERT_EQ(0, _test_importer_transfer(session, request, at, self->seen + at,
						     LOOK));
	check_seen();
}

#define look(session, request)	__look(_metadata, self, session, request)

/* ---- what is said about it ---- */

/* Check a layout that is exported from @cut bytes on, and without as many at its end. */
static void __check_answers(struct __test_metadata *_metadata, struct scene *self,
			    size_t cut, unsigned int flags, bool overlaps, const char *name)
{
	for (int fd_flags = O_RDONLY; fd_flags <= O_RDWR; fd_flags += O_RDWR - O_RDONLY) {
		struct vmemexp_export cmd = layout_args(self, cut, fd_flags);
		unsigned int others = VMEMEXP_STATE_NO_VMAP | VMEMEXP_STATE_NO_PAGES;
		unsigned int state = VMEMEXP_STATE_TRACKED;

		if (fd_flags == O_RDWR && self->kind->read_only)
			continue;
		state |= overlaps ? VMEMEXP_STATE_OVERLAPS : 0;
		cmd.flags = flags;
		test_export_cmd(&cmd);
		EXPECT_EQ(self->kind->memory, cmd.memory);
		EXPECT_EQ(state, cmd.state & ~others) {
			TH_LOG("%s", name);
		}
		EXPECT_EQ(cmd.state, test_query(cmd.fd).state);
		close(cmd.fd);
	}
}

#define check_answers(cut, flags, overlaps, name) \
	__check_answers(_metadata, self, cut, flags, overlaps, name)

/* A test that has the scene for its "self". */
#define OVERLAP_TEST(name)						\
	static void name(struct __test_metadata *_metadata, struct scene *self); \
	TEST_F(overlap, name)						\
	{								\
		name(_metadata, &self->scene);				\
	}								\
	static void name(struct __test_metadata *_metadata, struct scene *self)

OVERLAP_TEST(is_told_exactly_where_it_is)
{
	for_each_layout {
		lay_out(layout);
		check_answers(0, 0, layout->overlaps, layout->name);
		clear_away(self);
	}
	for_each_long_layout {
		lay_out(layout);
		check_answers(0, 0, layout->overlaps, layout->name);
		clear_away(self);
	}
}

/* Overlaps are those of pages, which also hold bytes outside of the ranges. */
OVERLAP_TEST(is_told_of_pages_and_not_of_bytes)
{
	static const struct layout twice = { .nr = 2, .units = { 2, 2 } };
	static const struct layout between = { .nr = 3, .units = { 2, 1, 2 } };

	if (!self->kind->huge) {
		lay_out(&twice);
		check_answers(PAGE / 2 + 1, VMEMEXP_EXPORT_UNALIGNED, true, "two halves");
		clear_away(self);
		return;
	}
	/* Parts of a huge page, which are no others' pages. */
	lay_out(&between);
	check_answers(HUGE_PAGE / 2, 0, false, "its halves");
	check_answers(HUGE_PAGE - PAGE, 0, false, "its edges");
	check_answers(HUGE_PAGE / 2 - PAGE, 0, true, "more than its halves");
	clear_away(self);
}

/* ---- what devices get ---- */

static bool works_on_copy(unsigned int device)
{
	return device == IMPORTER_DEV_SHADOW || device == IMPORTER_DEV_MERGED;
}

/* A device that sees the memory itself reads and writes it at any of its places. */
static void __check_mapping(struct __test_metadata *_metadata, struct scene *self,
			    int dmabuf, int session, unsigned int direction)
{
	const size_t last = self->size - self->unit;
	const unsigned char *source = self->source + self->units[self->nr - 1] * self->unit;
	unsigned char bytes[200];

	write_source(self, direction);
	fill(bytes, sizeof(bytes), 77);
	test_importer_map(session, direction);
	EXPECT_EQ(self->size, test_importer_info(session).dma_size);
	if (direction != IMPORTER_FROM_DEVICE)
		look(session, IMPORTER_IOC_READ);
	if (direction != IMPORTER_TO_DEVICE) {
		test_importer_write(session, last + 55, bytes, sizeof(bytes));
		test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
		EXPECT_SAME(bytes, source + 55, sizeof(bytes));
		test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
		look(session, IMPORTER_IOC_READ);
	}
	test_importer_unmap(session);
	if (direction != IMPORTER_TO_DEVICE)
		EXPECT_SAME(bytes, source + 55, sizeof(bytes));
}

/* And not one byte or bounce buffer less afterwards. */
static void __check_refusal(struct __test_metadata *_metadata, struct scene *self,
			    int dmabuf, int session, unsigned int direction)
{
	unsigned int mappings = test_query(dmabuf).mappings;

	EXPECT_EQ(-ENOTUNIQ, _test_importer_map(session, direction));
	EXPECT_EQ(mappings, test_query(dmabuf).mappings);
	EXPECT_EQ(0, test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED);
	EXPECT_EQ(0, test_importer_info(session).nr_mapped);
	EXPECT_EQ(0, test_importer_info(session).nr_errors);
	EXPECT_EQ(IMPORTER_HELD_ATTACH, test_importer_info(session).held);
}

static void __check_device(struct __test_metadata *_metadata, struct scene *self,
			   int dmabuf, unsigned int device, bool refused)
{
	static const unsigned int directions[] = {
		IMPORTER_TO_DEVICE, IMPORTER_FROM_DEVICE, IMPORTER_BIDIRECTIONAL,
	};
	int session = test_importer_open();

	test_importer_attach(session, dmabuf, device);
	/* Twice, to see that an attachment outlives a refusal. */
	for (unsigned int i = 0; i < 2 * ARRAY_SIZE(directions); i++) {
		unsigned int direction = directions[i % ARRAY_SIZE(directions)];

		if (self->kind->read_only && direction != IMPORTER_TO_DEVICE)
			continue;
		if (refused)
			__check_refusal(_metadata, self, dmabuf, session, direction);
		else
			__check_mapping(_metadata, self, dmabuf, session, direction);
	}
	EXPECT_EQ(0, test_importer_info(session).nr_errors);
	test_importer_detach(session);
	close(session);
}

#define check_device(dmabuf, device, refused) \
	__check_device(_metadata, self, dmabuf, device, refused)

OVERLAP_TEST(is_for_devices_that_see_the_memory_itself)
{
	static const unsigned int devices[] = {
		IMPORTER_DEV_COHERENT, IMPORTER_DEV_SEGMENT64K, IMPORTER_DEV_NONCOHERENT,
		IMPORTER_DEV_SHADOW, IMPORTER_DEV_MERGED,
	};
	int fd_flags = self->kind->read_only ? O_RDONLY : O_RDWR;

	for_each_layout {
		int dmabuf;

		lay_out(layout);
		dmabuf = export_layout(fd_flags);
		for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
			bool copies = works_on_copy(devices[i]) && !self->kind->no_copies;

			/* Its driver would have to cut up a huge page. */
			if (self->kind->huge && devices[i] == IMPORTER_DEV_SEGMENT64K)
				continue;
			/* A copy of one takes long enough. */
			if (self->kind->huge && copies && !layout->overlaps && layout->nr > 1)
				continue;
			check_device(dmabuf, devices[i], layout->overlaps && copies);
			ASSERT_EQ(0, _metadata->exit_code) {
				TH_LOG("device %u, %s", devices[i], layout->name);
			}
		}
		close(dmabuf);
		clear_away(self);
	}
}

/* The one that is refused takes nothing from the one that has its mapping. */
OVERLAP_TEST(is_refused_to_one_device_while_another_one_has_it)
{
	static const struct layout ring = { .nr = 4, .units = { 0, 1, 0, 1 } };
	int fd_flags = self->kind->read_only ? O_RDONLY : O_RDWR;
	int dmabuf, session = test_importer_open();

	lay_out(&ring);
	write_source(self, 5);
	dmabuf = export_layout(fd_flags);
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	check_device(dmabuf, IMPORTER_DEV_SHADOW, !self->kind->no_copies);
	check_device(dmabuf, IMPORTER_DEV_MERGED, !self->kind->no_copies);
	EXPECT_EQ(1, test_query(dmabuf).mappings);
	look(session, IMPORTER_IOC_READ);
	close(session);
	close(dmabuf);
	clear_away(self);
}

/* The CPUs' views know nothing of copies. */
OVERLAP_TEST(shows_in_mappings_of_the_dmabuf_and_of_the_kernel)
{
	static const struct layout ring = { .nr = 6, .units = { 0, 1, 2, 0, 1, 2 } };
	int fd_flags = self->kind->read_only ? O_RDONLY : O_RDWR;
	int dmabuf, session = test_importer_open();
	unsigned char *view;

	lay_out(&ring);
	write_source(self, 5);
	dmabuf = export_layout(fd_flags);
	view = map(self->size, PROT_READ, MAP_SHARED, dmabuf);
	memcpy(self->seen, view, self->size);
	check_seen();
	munmap(view, self->size);

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	if (!(test_query(dmabuf).state & VMEMEXP_STATE_NO_VMAP)) {
		test_importer_vmap(session);
		look(session, IMPORTER_IOC_VREAD);
		test_importer_vunmap(session);
	}
	close(session);
	close(dmabuf);
	clear_away(self);
}

/* ---- devices that really bounce ---- */

FIXTURE(bounced)
{
	struct scene scene;
};

FIXTURE_VARIANT(bounced)
{
	unsigned int device;
	unsigned int address_bits;
};

FIXTURE_VARIANT_ADD(bounced, for_32_bits) {
	.device = IMPORTER_DEV_MASK32, .address_bits = 32,
};

FIXTURE_VARIANT_ADD(bounced, for_28_bits) {
	.device = IMPORTER_DEV_MASK28, .address_bits = 28,
};

static const struct kind memfd_kind = {
	.make = make_memfd_file, .memory = VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_SETUP(bounced)
{
	skip_without_importer();
	if (bounce_buffers_end() - 1 >= 1ULL << variant->address_bits)
		SKIP(return, "no bounce buffer (swiotlb) below %u address bits",
		     variant->address_bits);
	__set_up(_metadata, &self->scene, &memfd_kind);
}

FIXTURE_TEARDOWN(bounced)
{
	__tear_down(_metadata, &self->scene);
}

/* More than one block of memory may lie within the reach of the device. */
#define MAX_BLOCKS	32

/* As many such buffers use up all bounce buffers, if they are kept. */
#define TRIES		60

/* Takes other memory until some of it is beyond the device's reach. */
static bool __find_far_memory(struct __test_metadata *_metadata, struct scene *self,
			      unsigned int address_bits)
{
	for (unsigned int block = 0; block < MAX_BLOCKS; block++) {
		unsigned int bits;
		int dmabuf;

		write_source(self, 1);
		dmabuf = test_export(self->source, self->nr_units * self->unit, O_RDWR);
		bits = test_query(dmabuf).address_bits;
		close(dmabuf);
		if (bits > address_bits)
			return true;
		/* The mapping keeps what is there. */
		memset(map(32 << 20, RW, ANON, -1), 1, 32 << 20);
		close(self->file);
		self->kind->make(_metadata, self);
		self->source = map(self->nr_units * self->unit, RW, MAP_SHARED, self->file);
	}
	return false;
}

static void __check_bounced(struct __test_metadata *_metadata, struct scene *self,
			    unsigned int device)
{
	static const struct layout once = { .before = MANY };
	static const struct layout twice = { .nr = 1, .units = { MANY / 2 }, .before = MANY };
	int dmabuf, session;

	lay_out(&twice);
	dmabuf = export_layout(O_RDWR);
	EXPECT_NE(0, test_query(dmabuf).state & VMEMEXP_STATE_OVERLAPS);
	check_device(dmabuf, device, true);
	session = test_importer_open();
	test_importer_attach(session, dmabuf, device);
	for (unsigned int i = 0; i < TRIES; i++)
		ASSERT_EQ(-ENOTUNIQ, _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	close(session);
	check_device(dmabuf, IMPORTER_DEV_COHERENT, false);
	close(dmabuf);
	clear_away(self);

	/* It is not the device, nor the memory. */
	lay_out(&once);
	dmabuf = export_layout(O_RDWR);
	session = test_importer_open();
	test_importer_attach(session, dmabuf, device);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	EXPECT_NE(0, test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED);
	close(session);
	check_device(dmabuf, device, false);
	close(dmabuf);
	clear_away(self);
}

TEST_F(bounced, pages_are_refused_that_are_there_twice)
{
	if (!__find_far_memory(_metadata, &self->scene, variant->address_bits))
		SKIP(return, "no memory above %u address bits", variant->address_bits);
	__check_bounced(_metadata, &self->scene, variant->device);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * A machine that encrypts its memory (SME, SEV, TDX). Drivers may have set what they
 * map to clear text, of which neither a page nor a page frame tells, so a second
 * mapping of it could show anything: memory of drivers is refused. Memory of programs
 * is what it is elsewhere.
 *
 * The module vmemexp_encrypted lets the driver believe that the machine is such a one.
 */
#include "lib/vmemexp_memory.h"

#define DRIVER_TEXT	"/sys/module/vmemexp/sections/.text"
#define ENCRYPTED_TEXT	"/sys/module/vmemexp_encrypted/parameters/text"

/* ---- kinds ---- */

/* Maps @m->size bytes of a region of the stand-in for drivers. */
static void map_region(struct __test_metadata *_metadata, struct memory *m,
		       const struct carveout_info *info, unsigned int how)
{
	const struct carveout_setup setup = {
		.region = info->region,
		.cache = CARVEOUT_CACHED,
		.how = how,
	};
	int fd;

	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, carveout_text(info)));
	fd = _test_carveout_open(&setup);
	ASSERT_LE(0, fd);
	m->addr = map(m->size, RW, MAP_SHARED, fd);
	close(fd);
	write_contents(m, 1);
}

static void map_ram_region(struct __test_metadata *_metadata, struct memory *m,
			   unsigned int how)
{
	struct carveout_info info;

	ASSERT_EQ(0, _test_carveout_info(CARVEOUT_REGION_RAM, &info));
	map_region(_metadata, m, &info, how);
}

static void make_pages(struct __test_metadata *_metadata, struct memory *m)
{
	map_ram_region(_metadata, m, CARVEOUT_HOW_PAGES);
}

static void make_frames_of_ram(struct __test_metadata *_metadata, struct memory *m)
{
	map_ram_region(_metadata, m, CARVEOUT_HOW_REMAP);
}

static void make_frames_by_fault(struct __test_metadata *_metadata, struct memory *m)
{
	map_ram_region(_metadata, m, CARVEOUT_HOW_FAULT);
}

static void make_frames(struct __test_metadata *_metadata, struct memory *m)
{
	struct carveout_info info = { .flags = CARVEOUT_INFO_RAM };

	for (unsigned int i = 0; info.flags & CARVEOUT_INFO_RAM; i++)
		ASSERT_EQ(0, _test_carveout_info(i, &info));
	map_region(_metadata, m, &info, CARVEOUT_HOW_REMAP);
}

/* Some pages of a program come first. */
#define OWN_PAGES	5

static void make_pages_behind_others(struct __test_metadata *_metadata, struct memory *m)
{
	size_t own = OWN_PAGES * PAGE;
	struct memory driver = { .size = m->size };

	make_driver(_metadata, &driver);
	free(driver.expect);
	m->addr = map(m->size, RW, ANON, -1);
	ASSERT_EQ(m->addr + own, mremap(driver.addr + own, m->size - own, m->size - own,
					MREMAP_MAYMOVE | MREMAP_FIXED, m->addr + own));
	munmap(driver.addr, own);
	write_contents(m, 1);
}

static void make_anon_thp(struct __test_metadata *_metadata, struct memory *m)
{
	m->size = HUGE_PAGE;
	make_thp(_metadata, m);
}

static void make_huge_memfd(struct __test_metadata *_metadata, struct memory *m)
{
	m->size = HUGE_PAGE;
	make_hugetlb_memfd(_metadata, m);
}

static const char *need_carveout(void)
{
	return access(CARVEOUT_PATH, F_OK) ? "module vmemexp_carveout" : NULL;
}

FIXTURE(encrypted)
{
	int fd;
	struct test_state before;
	struct memory m;
};

FIXTURE_VARIANT(encrypted)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	bool refused;
	size_t bad;		/* offset of the first page that is refused */
	bool read_only;
};

FIXTURE_VARIANT_ADD(encrypted, driver) {
	.make = make_driver, .missing = need_packet, .refused = true,
};

FIXTURE_VARIANT_ADD(encrypted, driver_behind_others) {
	.make = make_pages_behind_others, .missing = need_packet, .refused = true,
	.bad = OWN_PAGES * PAGE,
};

FIXTURE_VARIANT_ADD(encrypted, pages) {
	.make = make_pages, .missing = need_carveout, .refused = true,
};

FIXTURE_VARIANT_ADD(encrypted, frames_of_ram) {
	.make = make_frames_of_ram, .missing = need_carveout, .refused = true,
};

FIXTURE_VARIANT_ADD(encrypted, frames_by_fault) {
	.make = make_frames_by_fault, .missing = need_carveout, .refused = true,
};

FIXTURE_VARIANT_ADD(encrypted, frames) {
	.make = make_frames, .missing = need_carveout, .refused = true,
};

FIXTURE_VARIANT_ADD(encrypted, anon) {
	.make = make_anon,
};

FIXTURE_VARIANT_ADD(encrypted, thp) {
	.make = make_anon_thp, .missing = need_thp,
};

FIXTURE_VARIANT_ADD(encrypted, memfd) {
	.make = make_memfd,
};

FIXTURE_VARIANT_ADD(encrypted, hugetlb) {
	.make = make_huge_memfd, .missing = need_hugetlb,
};

FIXTURE_VARIANT_ADD(encrypted, file) {
	.make = make_file_shared, .missing = need_ext4, .read_only = true,
};

static int _set_encrypted(bool encrypted)
{
	char text[32] = "0";

	if (encrypted && read_text(DRIVER_TEXT, text, sizeof(text)) <= 0)
		return -ENODEV;
	return write_text(ENCRYPTED_TEXT, text);
}

#define set_encrypted(encrypted)	ASSERT_EQ(0, _set_encrypted(encrypted))

FIXTURE_SETUP(encrypted)
{
	const char *missing = variant->missing ? variant->missing() : NULL;

	if (access(ENCRYPTED_TEXT, F_OK))
		SKIP(return, "the module vmemexp_encrypted is not loaded");
	/* Before, the answer was in a variable that the whole kernel looks at. */
	if (!kernel_at_least(5, 16))
		SKIP(return, "the kernel has no cc_platform_has()");
	/* Without CONFIG_ARCH_HAS_CC_PLATFORM, the driver does not ask. */
	if (_set_encrypted(true) == -ENOENT)
		SKIP(return, "the kernel has no cc_platform_has()");
	set_encrypted(false);
	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	test_setup();
	self->m.size = SMALL;
	variant->make(_metadata, &self->m);
}

FIXTURE_TEARDOWN(encrypted)
{
	set_encrypted(false);
	munmap(self->m.addr, self->m.size);
	if (self->m.alias)
		munmap(self->m.alias, self->m.size);
	free(self->m.expect);
	test_teardown();
	restore_system();
}

#define for_each_mode(fd_flags)						\
	for (int fd_flags = variant->read_only ? O_RDONLY : O_RDWR, _i = 0; \
	     _i < (variant->read_only ? 1 : 2); fd_flags = O_RDONLY, _i++)

/* All is well with the bytes of what can be exported. */
#define check_export(fd_flags) do {					\
	int dmabuf = test_export(self->m.addr, self->m.size, fd_flags);	\
	void *view = map(self->m.size, PROT_READ, MAP_SHARED, dmabuf);	\
									\
	EXPECT_SAME(self->m.expect, view, self->m.size);		\
	munmap(view, self->m.size);					\
	close(dmabuf);							\
} while (0)

TEST_F(encrypted, memory_of_drivers_is_refused_and_no_other)
{
	unsigned char *bad = self->m.addr + variant->bad;

	for_each_mode(fd_flags) {
		check_export(fd_flags);
		set_encrypted(true);
		if (variant->refused) {
			test_err_export(EOPNOTSUPP, VMEMEXP_REASON_ENCRYPTED, bad,
					self->m.addr, self->m.size, fd_flags);
		} else {
			check_export(fd_flags);
		}
		/* Up to there it is as good as any. */
		if (variant->bad)
			close(test_export(self->m.addr, variant->bad, fd_flags));
		set_encrypted(false);
		check_export(fd_flags);
	}
}

/* The permission is checked first: the answer does not tell if the memory is encrypted. */
TEST_F(encrypted, memory_of_drivers_is_refused_as_before_where_it_was)
{
	unsigned char *bad = self->m.addr + variant->bad;

	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, variant->refused ? "anon" : "pfnmap,driver"));
	set_encrypted(true);
	for_each_mode(fd_flags) {
		test_err_export(EPERM, VMEMEXP_REASON_KIND, bad, self->m.addr, self->m.size,
				fd_flags);
	}
	set_encrypted(false);
}

TEST_HARNESS_MAIN

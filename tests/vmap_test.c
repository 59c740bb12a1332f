// SPDX-License-Identifier: GPL-2.0
/*
 * Buffers that an importer may not expect, since they have no kernel mapping or no struct page:
 * they say so early, and by default only programs that may do everything with hardware anyway get
 * one mapped for a device. v4l2_test shows what such a driver would do otherwise.
 */
#include <sched.h>
#include <sys/resource.h>

#include "lib/vmemexp_frames.h"

#define USER		65534

#define WITHOUT_VMAP	"/sys/module/vmemexp/parameters/map_without_vmap"
#define WITHOUT_PAGES	"/sys/module/vmemexp/parameters/map_without_pages"

/* ---- buffers of every sort ---- */

/* In the middle of the carve-out that has pages, without any order. */
static void make_scattered_frames_with_pages(struct __test_metadata *_metadata,
					     struct memory *m)
{
	__map_scattered_frames(_metadata, m, FRAMES_WITH_PAGES, 0, 2 * PAGE);
}

static void make_unlisted_frames_with_pages(struct __test_metadata *_metadata,
					    struct memory *m)
{
	make_frames_with_pages(_metadata, m);
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, "\n"));
}

FIXTURE(buffer)
{
	int fd;
	struct test_state before;
	struct memory m;
	int dmabuf;
	unsigned int state;	/* as the export answered */
	int session;
};

FIXTURE_VARIANT(buffer)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	size_t size;
	bool read_only;
	bool no_vmap, no_pages;
};

FIXTURE_VARIANT_ADD(buffer, anon) {
	.make = make_anon, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, anon_read_only) {
	.make = make_anon, .size = SMALL, .read_only = true, .no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, thp) {
	.make = make_thp, .missing = need_thp, .size = HUGE_PAGE,
};

FIXTURE_VARIANT_ADD(buffer, thp_read_only) {
	.make = make_thp, .missing = need_thp, .size = HUGE_PAGE, .read_only = true,
	.no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, memfd_read_only) {
	.make = make_memfd, .size = SMALL, .read_only = true, .no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, hugetlb_read_only) {
	.make = make_hugetlb, .missing = need_hugetlb, .size = HUGE_PAGE, .read_only = true,
	.no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, file_read_only) {
	.make = make_file_shared, .missing = need_ext4, .size = SMALL, .read_only = true,
	.no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, driver) {
	.make = make_driver, .missing = need_packet, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, driver_read_only) {
	.make = make_driver, .missing = need_packet, .size = SMALL, .read_only = true,
	.no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, frames) {
	.make = make_frames, .missing = need_frames, .size = SMALL, .no_pages = true,
};

FIXTURE_VARIANT_ADD(buffer, frames_read_only) {
	.make = make_frames, .missing = need_frames, .size = SMALL, .read_only = true,
	.no_vmap = true, .no_pages = true,
};

FIXTURE_VARIANT_ADD(buffer, scattered_frames) {
	.make = make_scattered_frames, .missing = need_frames, .size = SMALL, .no_vmap = true,
	.no_pages = true,
};

FIXTURE_VARIANT_ADD(buffer, unlisted_frames) {
	.make = make_unlisted_frames, .missing = need_frames, .size = SMALL, .no_vmap = true,
	.no_pages = true,
};

FIXTURE_VARIANT_ADD(buffer, frames_with_pages) {
	.make = make_frames_with_pages, .missing = need_frames_with_pages, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, frames_with_pages_read_only) {
	.make = make_frames_with_pages, .missing = need_frames_with_pages, .size = SMALL,
	.read_only = true, .no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, scattered_frames_with_pages) {
	.make = make_scattered_frames_with_pages, .missing = need_frames_with_pages,
	.size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, unlisted_frames_with_pages) {
	.make = make_unlisted_frames_with_pages, .missing = need_frames_with_pages,
	.size = SMALL, .no_vmap = true,
};

FIXTURE_VARIANT_ADD(buffer, frames_of_ram) {
	.make = make_frames_of_ram, .missing = need_stand_in, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, frames_of_ram_read_only) {
	.make = make_frames_of_ram, .missing = need_stand_in, .size = SMALL,
	.read_only = true, .no_vmap = true,
};

FIXTURE_SETUP(buffer)
{
	const char *missing = variant->missing ? variant->missing() : NULL;
	struct vmemexp_export cmd;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	ASSERT_EQ(PAGE, page_size());
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	test_setup();
	self->m.size = variant->size;
	variant->make(_metadata, &self->m);
	cmd = export_args(self->m.addr, self->m.size, variant->read_only ? O_RDONLY : O_RDWR);
	self->dmabuf = test_export_cmd(&cmd);
	self->state = cmd.state;
	self->session = test_importer_open();
}

FIXTURE_TEARDOWN(buffer)
{
	setresuid(0, 0, 0);
	set_caps(ALL_CAPS);
	close(self->session);
	close(self->dmabuf);
	munmap(self->m.addr, self->m.size);
	test_teardown();
	restore_system();
}

#define IS_EXPECTED	(!variant->no_vmap && !variant->no_pages)

/* As what the importer attaches, and who is told about it. */
static const unsigned int devices[] = {
	IMPORTER_DEV_COHERENT, IMPORTER_DEV_SHADOW, IMPORTER_DEV_NONCOHERENT,
};

/* Every direction that there is: those of writing are looked at first. */
#define expect_map(error) do {						\
	int __error = error;						\
									\
	for (unsigned int __dir = 0; __dir <= IMPORTER_FROM_DEVICE; __dir++) { \
		bool __denied = variant->read_only && __dir != IMPORTER_TO_DEVICE; \
									\
		EXPECT_EQ(__denied ? -EACCES : -__error,		\
			  _test_importer_map(self->session, __dir));	\
		if (!__denied && !__error)				\
			test_importer_unmap(self->session);		\
	}								\
} while (0)

#define attach(device) test_importer_attach(self->session, self->dmabuf, device)

#define detach() test_importer_detach(self->session)

TEST_F(buffer, says_what_it_has_not)
{
	unsigned int lacks = (variant->no_vmap ? VMEMEXP_STATE_NO_VMAP : 0) |
			     (variant->no_pages ? VMEMEXP_STATE_NO_PAGES : 0);

	EXPECT_EQ(VMEMEXP_STATE_TRACKED | lacks, self->state);
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | lacks, test_query(self->dmabuf).state);
	/* And it is so. */
	attach(IMPORTER_DEV_COHERENT);
	EXPECT_EQ(variant->no_vmap ? -vmap_refused() : 0,
		  _test_ioctl(self->session, IMPORTER_IOC_VMAP, NULL));
	if (!variant->no_vmap)
		test_importer_vunmap(self->session);
	test_importer_map(self->session, IMPORTER_TO_DEVICE);
	/* A kernel that hides the pages from importers does not tell. */
	if (access("/sys/kernel/debug/dma-api", F_OK))
		EXPECT_EQ(variant->no_pages, !!(test_importer_info(self->session).flags &
						IMPORTER_INFO_PAGELESS));
}

TEST_F(buffer, is_mapped_for_users_if_it_lacks_nothing)
{
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		attach(devices[i]);
		expect_map(IS_EXPECTED ? 0 : EPERM);
		EXPECT_EQ(0, test_query(self->dmabuf).mappings);
		EXPECT_EQ(1, test_query(self->dmabuf).attachments);
		detach();
	}
}

/* It is one capability, and no other does. */
TEST_F(buffer, is_mapped_with_sys_rawio_whatever_it_lacks)
{
	set_caps(~RAWIO);
	attach(IMPORTER_DEV_COHERENT);
	expect_map(IS_EXPECTED ? 0 : EPERM);
	detach();
	set_caps(RAWIO);
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		attach(devices[i]);
		expect_map(0);
		detach();
	}
}

/* The DMA API is not asked: it warns of a device without a mask. */
TEST_F(buffer, is_mapped_without_an_address_for_a_device_that_does_no_dma)
{
	struct importer_info info;

	set_caps(RAWIO);
	attach(IMPORTER_DEV_NO_DMA);
	test_importer_map(self->session, IMPORTER_TO_DEVICE);
	info = test_importer_info(self->session);
	EXPECT_EQ(0, info.nents);
	EXPECT_EQ(0, info.dma_size);
	EXPECT_EQ(1, test_query(self->dmabuf).mappings);
	test_importer_unmap(self->session);
	EXPECT_EQ(0, test_query(self->dmabuf).mappings);
	detach();
}

TEST_F(buffer, is_not_mapped_for_root_of_a_user_namespace)
{
	pid_t child;

	if (access("/proc/self/ns/user", F_OK))
		SKIP(return, "the kernel has no user namespaces");
	write_text("/proc/sys/kernel/unprivileged_userns_clone", "1");
	child = fork_child();
	if (!child) {
		int ret;

		if (setresuid(USER, USER, USER) || unshare(CLONE_NEWUSER))
			_exit(KSFT_SKIP);
		ret = _test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT) ?:
		      _test_importer_map(self->session, IMPORTER_TO_DEVICE);
		_exit(-ret);
	}
	EXPECT_EQ(IS_EXPECTED ? 0 : EPERM, wait_for_child(child));
}

/* The importer may ask for the mapping in a kernel thread. */
TEST_F(buffer, is_mapped_for_whom_the_one_that_attaches_may)
{
	set_caps(~RAWIO);
	attach(IMPORTER_DEV_COHERENT);
	set_caps(ALL_CAPS);
	expect_map(IS_EXPECTED ? 0 : EPERM);
	detach();

	attach(IMPORTER_DEV_COHERENT);
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	expect_map(0);
	detach();
}

/* Up to 6.12 the core maps for both directions when such an importer attaches. */
TEST_F(buffer, is_not_mapped_by_attaching_dynamically)
{
	struct importer_attach arg = {
		.dmabuf_fd = self->dmabuf,
		.device = IMPORTER_DEV_COHERENT,
		.flags = IMPORTER_ATTACH_DYNAMIC,
	};
	int ret;

	ASSERT_EQ(0, setresuid(USER, USER, 0));
	ret = _test_ioctl(self->session, IMPORTER_IOC_ATTACH, &arg);
	if (ret) {
		EXPECT_EQ(variant->read_only ? -EACCES : -EPERM, ret);
	} else {
		ret = _test_importer_map(self->session, IMPORTER_TO_DEVICE);
		EXPECT_EQ(IS_EXPECTED ? 0 : -EPERM, ret);
	}
	EXPECT_EQ(!IS_EXPECTED, ret != 0);
	EXPECT_EQ(IS_EXPECTED, test_query(self->dmabuf).mappings);
}

static void __allow(struct __test_metadata *_metadata, bool no_vmap, bool no_pages)
{
	ASSERT_EQ(0, set_knob(WITHOUT_VMAP, no_vmap ? "1" : "0"));
	ASSERT_EQ(0, set_knob(WITHOUT_PAGES, no_pages ? "1" : "0"));
}

#define allow(no_vmap, no_pages) __allow(_metadata, no_vmap, no_pages)

TEST_F(buffer, is_mapped_if_the_administrator_says_so)
{
	unsigned char *seen = malloc(self->m.size);

	for (int i = 0; i < 4; i++) {
		bool no_vmap = i & 1, no_pages = i & 2;
		bool allowed = (no_vmap || !variant->no_vmap) &&
			       (no_pages || !variant->no_pages);

		allow(no_vmap, no_pages);
		ASSERT_EQ(0, setresuid(USER, USER, 0));
		for (size_t d = 0; d < ARRAY_SIZE(devices); d++) {
			attach(devices[d]);
			expect_map(allowed ? 0 : EPERM);
			if (allowed) {
				/* The device sees what is there. */
				test_importer_map(self->session, IMPORTER_TO_DEVICE);
				memset(seen, 0, self->m.size);
				test_importer_read(self->session, 0, seen, self->m.size);
				EXPECT_SAME(self->m.expect, seen, self->m.size);
				test_importer_unmap(self->session);
			}
			detach();
		}
		/* It has it not for all that. */
		EXPECT_EQ(self->state, test_query(self->dmabuf).state);
		ASSERT_EQ(0, setresuid(0, 0, 0));
	}
	free(seen);
}

TEST_F(buffer, is_mapped_as_the_administrator_said_when_it_was_attached)
{
	ASSERT_EQ(0, seteuid(USER));
	attach(IMPORTER_DEV_COHERENT);
	ASSERT_EQ(0, seteuid(0));
	allow(true, true);
	ASSERT_EQ(0, seteuid(USER));
	expect_map(IS_EXPECTED ? 0 : EPERM);
	detach();

	attach(IMPORTER_DEV_COHERENT);
	ASSERT_EQ(0, seteuid(0));
	allow(false, false);
	ASSERT_EQ(0, seteuid(USER));
	expect_map(0);
	detach();
	ASSERT_EQ(0, seteuid(0));
}

/* ---- a kernel of 32 bits has few addresses, which are for everybody ---- */

FIXTURE(large)
{
	int fd;
	struct test_state before;
	unsigned char *addr;
	size_t size;
};

FIXTURE_SETUP(large)
{
	skip_without_importer();
	test_setup();
	/* More than a quarter of what vmalloc() has on arm, and no problem elsewhere. */
	self->size = 128UL << 20;
	self->addr = map(self->size, RW, ANON, -1);
	memset(self->addr, 1, self->size);
}

FIXTURE_TEARDOWN(large)
{
	setresuid(0, 0, 0);
	munmap(self->addr, self->size);
	test_teardown();
}

TEST_F(large, has_no_vmap_where_addresses_are_few)
{
	int dmabuf, session = test_importer_open();
	struct utsname system;
	unsigned int state;
	bool few;

	uname(&system);
	few = !strncmp(system.machine, "arm", 3);
	dmabuf = test_export(self->addr, self->size, O_RDWR);
	state = test_query(dmabuf).state;
	EXPECT_EQ(few ? VMEMEXP_STATE_NO_VMAP : 0, state & VMEMEXP_STATE_NO_VMAP);
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	EXPECT_EQ(few ? -EPERM : 0, _test_importer_map(session, IMPORTER_TO_DEVICE));
	close(session);
	close(dmabuf);
}

/* ---- the parameters ---- */

FIXTURE(parameter)
{
	int fd;
	struct test_state before;
};

FIXTURE_VARIANT(parameter)
{
	const char *path;
};

FIXTURE_VARIANT_ADD(parameter, map_without_vmap) {
	.path = WITHOUT_VMAP,
};

FIXTURE_VARIANT_ADD(parameter, map_without_pages) {
	.path = WITHOUT_PAGES,
};

FIXTURE_SETUP(parameter)
{
	test_setup();
}

FIXTURE_TEARDOWN(parameter)
{
	setresuid(0, 0, 0);
	test_teardown();
	restore_system();
}

TEST_F(parameter, is_off_by_default)
{
	char text[16];

	ASSERT_LT(0, read_text(variant->path, text, sizeof(text)));
	EXPECT_STREQ("N\n", text);
}

TEST_F(parameter, takes_yes_and_no_and_nothing_else)
{
	static const char * const good[] = { "1", "0", "Y", "N", "y\n", "n\n" };
	static const char * const bad[] = { "2", "-1", "maybe", "\n" };
	char text[16];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(0, set_knob(variant->path, good[i]));
		ASSERT_LT(0, read_text(variant->path, text, sizeof(text)));
		EXPECT_STREQ(i % 2 ? "N\n" : "Y\n", text);
	}
	ASSERT_EQ(0, set_knob(variant->path, "1"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, write_text(variant->path, bad[i])) {
			TH_LOG("\"%s\"", bad[i]);
		}
		ASSERT_LT(0, read_text(variant->path, text, sizeof(text)));
		EXPECT_STREQ("Y\n", text);
	}
}

TEST_F(parameter, is_not_for_users)
{
	char text[16];

	ASSERT_EQ(0, setresuid(USER, USER, 0));
	EXPECT_EQ(-EACCES, write_text(variant->path, "1"));
	/* They may read what holds for them. */
	EXPECT_LT(0, read_text(variant->path, text, sizeof(text)));
	EXPECT_STREQ("N\n", text);
}

TEST_HARNESS_MAIN

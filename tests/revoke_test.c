// SPDX-License-Identifier: GPL-2.0
/*
 * REVOKE: an administrator takes a dma-buf back from all who have it. Afterwards no access path
 * leads to the memory. Devices that use it are named, and keep it until they unmap it; everything
 * else is released at once. This holds for all kinds of memory, and beside other calls. ioctl_test
 * has wrong arguments, and taken_test drivers that take their page frames away.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "lib/signals.h"
#include "lib/vmemexp_frames.h"

#define USER		65534

#define BUFFERS		"/sys/kernel/debug/vmemexp/buffers"
#define STAND_IN_USERS	"/sys/module/vmemexp_carveout/refcnt"

/* ---- a buffer of each kind, and all that can be done with it ---- */

FIXTURE(buffer)
{
	int fd;
	struct test_state before;
	struct memory m;
	int dmabuf;
	unsigned char *view;		/* of the dma-buf, and used */
	unsigned char *untouched;	/* another one that is not */
	int session;			/* has a device attached */
	long accounted;			/* before the export */
};

FIXTURE_VARIANT(buffer)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	size_t size;
	bool read_only;
	bool frames;
	bool of_ram;	/* so that there are devices that work on a copy of them */
	bool no_vmap;	/* for another reason than being read-only */
	bool no_pages;
};

FIXTURE_VARIANT_ADD(buffer, anon) {
	.make = make_anon, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, anon_read_only) {
	.make = make_anon, .size = SMALL, .read_only = true,
};

FIXTURE_VARIANT_ADD(buffer, thp) {
	.make = make_thp, .missing = need_thp, .size = HUGE_PAGE,
};

FIXTURE_VARIANT_ADD(buffer, memfd) {
	.make = make_memfd, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, hugetlb) {
	.make = make_hugetlb, .missing = need_hugetlb, .size = HUGE_PAGE,
};

FIXTURE_VARIANT_ADD(buffer, file_read_only) {
	.make = make_file_shared, .missing = need_ext4, .size = SMALL, .read_only = true,
};

FIXTURE_VARIANT_ADD(buffer, driver) {
	.make = make_driver, .missing = need_packet, .size = SMALL,
};

FIXTURE_VARIANT_ADD(buffer, frames) {
	.make = make_frames, .missing = need_frames, .size = SMALL, .frames = true,
	.no_pages = true,
};

FIXTURE_VARIANT_ADD(buffer, frames_read_only) {
	.make = make_frames, .missing = need_frames, .size = SMALL, .frames = true,
	.no_pages = true,
	.read_only = true,
};

FIXTURE_VARIANT_ADD(buffer, frames_with_pages) {
	.make = make_frames_with_pages, .missing = need_frames_with_pages, .size = SMALL,
	.frames = true,
};

FIXTURE_VARIANT_ADD(buffer, frames_of_ram) {
	.make = make_frames_of_ram, .missing = need_stand_in, .size = SMALL, .frames = true,
	.of_ram = true,
};

FIXTURE_VARIANT_ADD(buffer, scattered_frames) {
	.make = make_scattered_frames, .missing = need_frames, .size = SMALL, .frames = true,
	.no_vmap = true, .no_pages = true,
};

FIXTURE_VARIANT_ADD(buffer, unlisted_frames) {
	.make = make_unlisted_frames, .missing = need_frames, .size = SMALL, .frames = true,
	.no_vmap = true, .no_pages = true,
};

FIXTURE_SETUP(buffer)
{
	const char *missing = variant->missing ? variant->missing() : NULL;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	ASSERT_EQ(PAGE, page_size());
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	catch_signals();
	test_setup();
	self->m.size = variant->size;
	variant->make(_metadata, &self->m);
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,shmem,hugetlb,file,driver,pfnmap,dmabuf"));
	self->accounted = accounted_pages();
	self->dmabuf = test_export(self->m.addr, self->m.size,
				   variant->read_only ? O_RDONLY : O_RDWR);
	self->view = map(self->m.size, variant->read_only ? PROT_READ : RW, MAP_SHARED,
			 self->dmabuf);
	EXPECT_SAME(self->m.expect, self->view, self->m.size);
	self->untouched = map(self->m.size, PROT_READ, MAP_SHARED, self->dmabuf);
	self->session = test_importer_open();
	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
}

FIXTURE_TEARDOWN(buffer)
{
	close(self->session);
	munmap(self->view, self->m.size);
	munmap(self->untouched, self->m.size);
	munmap(self->m.addr, self->m.size);
	if (self->m.alias)
		munmap(self->m.alias, self->m.size);
	close(self->dmabuf);
	test_teardown();
	restore_system();
}

#define OF_FRAMES	(variant->frames)
#define HAS_VMAP	(!variant->read_only && !variant->no_vmap)
#define DIRECTION	(variant->read_only ? IMPORTER_TO_DEVICE : IMPORTER_BIDIRECTIONAL)

/* Pages are still pinned, and the user is charged for them. */
#define expect_kept() do {						\
	if (!OF_FRAMES) {						\
		EXPECT_LT(self->before.pins, pinned_pages());		\
		EXPECT_LT(self->accounted, accounted_pages());		\
	}								\
} while (0)

#define expect_given_back() do {					\
	EXPECT_EQ(self->before.pins, pinned_pages());			\
	EXPECT_EQ(self->accounted, accounted_pages());			\
} while (0)

#define expect_given_back_soon() do {					\
	EXPECT_SOON(self->before.pins, pinned_pages());			\
	EXPECT_SOON(self->accounted, accounted_pages());		\
} while (0)

/* The line about the dma-buf in the list of buffers says that it is revoked, or not. */
static void __expect_listed(struct __test_metadata *_metadata, int dmabuf, bool revoked)
{
	static char text[256 * 1024];
	const char *line = text;
	char state[32] = "", ino[32];

	ASSERT_LT(0, read_text(BUFFERS, text, sizeof(text)));
	snprintf(ino, sizeof(ino), "%llu ", (unsigned long long)inode_of(dmabuf));
	while (line && strncmp(line, ino, strlen(ino)))
		line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL;
	ASSERT_NE(NULL, line);
	if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %31s", state) != 1)
		state[0] = '\0';
	/* A device may work on a copy. */
	state[strcspn(state, ",")] = '\0';
	EXPECT_STREQ(revoked ? "revoked" : "live", state);
}

#define expect_listed(dmabuf, revoked) __expect_listed(_metadata, dmabuf, revoked)

/* Old mappings are empty, for the program and for the kernel on its behalf. */
static void __expect_empty(struct __test_metadata *_metadata, unsigned char *view, size_t size,
			   bool writable)
{
	int pipes[2];
	pid_t child;

	EXPECT_EQ(SIGBUS, signal_of(view, false));
	EXPECT_EQ(SIGBUS, signal_of(view + size / 2, false));
	EXPECT_EQ(SIGBUS, signal_of(view + size - 1, false));
	if (writable)
		EXPECT_EQ(SIGBUS, signal_of(view + size - 1, true));
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-1, write(pipes[1], view, 1));
	EXPECT_EQ(EFAULT, errno);
	close(pipes[0]);
	close(pipes[1]);
	/* A child has inherited the mapping. */
	child = fork_child();
	if (!child)
		_exit(signal_of(view, false));
	EXPECT_EQ(SIGBUS, wait_for_child(child));
}

#define expect_empty(where)						\
	__expect_empty(_metadata, where, self->m.size,			\
		       !variant->read_only && (where) == self->view)

/* @session has a device attached that has not mapped it, and there is no vmap. */
static void __expect_closed(struct __test_metadata *_metadata, int fd, int dmabuf, int session,
			    size_t size, bool read_only, bool has_vmap)
{
	const int paths[] = { dmabuf, session };
	unsigned char *seen = malloc(size);
	int other = test_importer_open();

	for (unsigned int device = 0; device < IMPORTER_NR_DEVS; device++) {
		if (device == IMPORTER_DEV_MASK28)
			continue;
		EXPECT_EQ(-ENODEV, _test_importer_attach(other, dmabuf, device));
	}
	EXPECT_EQ(-ENODEV, _test_importer_map(session, IMPORTER_TO_DEVICE));
	EXPECT_EQ(read_only ? -EACCES : -ENODEV,
		  _test_importer_map(session, IMPORTER_FROM_DEVICE));
	EXPECT_EQ(read_only ? -EACCES : -ENODEV,
		  _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		EXPECT_EQ(MAP_FAILED, mmap(NULL, size, PROT_READ, MAP_SHARED, paths[i], 0));
		EXPECT_EQ(ENODEV, errno);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, paths[i],
					   size - PAGE));
		EXPECT_EQ(ENODEV, errno);
	}

	/* Drivers that do not expect it to fail get something else. */
	if (has_vmap) {
		test_importer_vmap(session);
		memset(seen, 0xff, size);
		test_importer_vread(session, 0, seen, size);
		for (size_t i = 0; i < size; i++)
			ASSERT_EQ(0, seen[i]);
		memset(seen, 0x77, size);
		test_importer_vwrite(session, 0, seen, size);
		test_importer_vunmap(session);
	} else {
		EXPECT_EQ(-vmap_refused(), _test_ioctl(session, IMPORTER_IOC_VMAP, NULL));
	}

	for (unsigned int flags = 1; flags <= 3; flags++) {
		EXPECT_EQ(-ENODEV, _test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_START | flags));
		EXPECT_EQ(0, _test_dmabuf_sync(dmabuf, DMA_BUF_SYNC_END | flags));
		EXPECT_EQ(-ENODEV, _test_sync(fd, dmabuf, VMEMEXP_SYNC_START | flags, 0, size));
		EXPECT_EQ(-ENODEV, _test_sync(fd, dmabuf, VMEMEXP_SYNC_END | flags, 1, 1));
		EXPECT_EQ(-ENODEV, _test_sync(fd, dmabuf, VMEMEXP_SYNC_OBSERVER |
					      VMEMEXP_SYNC_START | flags, 0, size));
		EXPECT_EQ(-ENODEV, _test_sync(fd, dmabuf, VMEMEXP_SYNC_OBSERVER |
					      VMEMEXP_SYNC_END | flags, 0, size));
		EXPECT_EQ(-ENODEV, _test_sync_rows(fd, dmabuf, flags, 0, 1, PAGE, 2));
	}
	/* Errors of the argument come first. */
	EXPECT_EQ(-EINVAL, _test_sync(fd, dmabuf, VMEMEXP_SYNC_READ, 0, size + 1));
	EXPECT_EQ(-ENODEV, _test_importer_direction(session, IMPORTER_IOC_BEGIN_CPU,
						    IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, _test_importer_direction(session, IMPORTER_IOC_END_CPU,
					      IMPORTER_BIDIRECTIONAL));
	expect_listed(dmabuf, true);
	close(other);
	free(seen);
}

#define expect_closed()							\
	__expect_closed(_metadata, self->fd, self->dmabuf, self->session, \
			self->m.size, variant->read_only, HAS_VMAP)

/* The exporter's own memory is as it was, and its own. */
#define expect_source_unchanged() do {					\
	EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);	\
	self->m.addr[5]++;						\
	self->m.expect[5]++;						\
	EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);	\
} while (0)

TEST_F(buffer, is_closed_at_every_door)
{
	unsigned int state = VMEMEXP_STATE_TRACKED | (HAS_VMAP ? 0 : VMEMEXP_STATE_NO_VMAP) |
			     (variant->no_pages ? VMEMEXP_STATE_NO_PAGES : 0);
	struct vmemexp_query before = test_query(self->dmabuf), after;
	struct vmemexp_revoke cmd;

	EXPECT_EQ(state, before.state);
	expect_listed(self->dmabuf, false);
	expect_kept();
	cmd = test_revoke(self->dmabuf);
	EXPECT_EQ(1, cmd.names_size);
	EXPECT_EQ(0, cmd.mappings);
	EXPECT_EQ(0, cmd.vmaps);
	EXPECT_EQ(state | VMEMEXP_STATE_REVOKED, cmd.state);
	expect_given_back();

	expect_empty(self->view);
	expect_empty(self->untouched);
	expect_closed();
	expect_given_back();
	expect_source_unchanged();

	/* A query still describes what was exported. */
	after = test_query(self->dmabuf);
	EXPECT_EQ(before.state | VMEMEXP_STATE_REVOKED, after.state);
	after.state = before.state;
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ((off_t)self->m.size, lseek(self->dmabuf, 0, SEEK_END));
}

TEST_F(buffer, is_revoked_once_and_for_all)
{
	struct vmemexp_revoke first = test_revoke(self->dmabuf), again;

	for (int i = 0; i < 3; i++) {
		again = test_revoke(self->dmabuf);
		EXPECT_EQ(0, memcmp(&first, &again, sizeof(first)));
	}
	expect_given_back();
	expect_closed();
	expect_empty(self->view);
}

/* It is the very same dma-buf, if it is one at all. */
TEST_F(buffer, is_not_brought_back_by_exporting_a_mapping_of_it)
{
	struct vmemexp_export cmd = export_args(self->view, self->m.size,
						variant->read_only ? O_RDONLY : O_RDWR);
	int ret;

	test_revoke(self->dmabuf);
	ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
	if (ret) {
		EXPECT_EQ(-ENODEV, ret);
	} else {
		EXPECT_EQ(inode_of(self->dmabuf), inode_of(cmd.fd));
		EXPECT_EQ(VMEMEXP_STATE_REVOKED, cmd.state & VMEMEXP_STATE_REVOKED);
		close(cmd.fd);
	}
	expect_given_back();
	expect_closed();
}

/* The mapping may be moved and changed as any, and stays empty. */
TEST_F(buffer, is_not_brought_back_by_changing_a_mapping_of_it)
{
	unsigned char *moved;

	test_revoke(self->dmabuf);
	ASSERT_EQ(0, mprotect(self->view, self->m.size, PROT_NONE));
	EXPECT_EQ(SIGSEGV, signal_of(self->view, false));
	ASSERT_EQ(0, mprotect(self->view, self->m.size, PROT_READ));
	EXPECT_EQ(SIGBUS, signal_of(self->view, false));
	moved = mremap(self->view, self->m.size, self->m.size, MREMAP_MAYMOVE | MREMAP_FIXED,
		       map_anon(self->m.size));
	ASSERT_NE(MAP_FAILED, (void *)moved);
	self->view = moved;
	EXPECT_EQ(SIGBUS, signal_of(self->view, false));
	madvise(self->view, self->m.size, MADV_WILLNEED);
	mlock(self->view, self->m.size);
	EXPECT_EQ(SIGBUS, signal_of(self->view + self->m.size - PAGE, false));
	expect_given_back();
}

TEST_F(buffer, may_be_exported_anew)
{
	int again;

	test_revoke(self->dmabuf);
	again = test_export(self->m.addr, self->m.size, variant->read_only ? O_RDONLY : O_RDWR);
	EXPECT_EQ(0, test_query_state(again) & VMEMEXP_STATE_REVOKED);
	EXPECT_NE(inode_of(self->dmabuf), inode_of(again));
	test_contents(again, self->m.size, 1);
	/* The old one is closed all the same. */
	expect_empty(self->view);
	close(again);
	expect_given_back_soon();
	expect_closed();
}

/* ---- what uses it at that moment ---- */

/* One line with the name of a device of the test importer for each. */
static unsigned int count_names(const char *names)
{
	unsigned int nr = 0;

	while (*names) {
		int length = 0;

		if (sscanf(names, "vmemexp-importer.%*u.auto%n", &length) < 0 || !length ||
		    names[length] != '\n')
			return ~0U;
		names += length + 1;
		nr++;
	}
	return nr;
}

TEST_F(buffer, is_kept_for_a_device_until_that_lets_go)
{
	static const unsigned int devices[] = {
		IMPORTER_DEV_COHERENT, IMPORTER_DEV_SHADOW,
	};
	unsigned char *seen = malloc(self->m.size);

	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		int dmabuf = test_export(self->m.addr, self->m.size,
					 variant->read_only ? O_RDONLY : O_RDWR);
		int session = test_importer_open(), idle = test_importer_open();
		long accounted = accounted_pages(), pins = pinned_pages();
		struct vmemexp_revoke cmd = revoke_args(dmabuf);
		char names[64];

		test_importer_attach(session, dmabuf, devices[i]);
		test_importer_attach(idle, dmabuf, IMPORTER_DEV_COHERENT);
		test_importer_map(session, DIRECTION);
		cmd.names = to_u64(names);
		cmd.names_size = sizeof(names);
		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
		EXPECT_EQ(1, cmd.mappings);
		EXPECT_EQ(0, cmd.vmaps);
		EXPECT_EQ(1, count_names(names));
		EXPECT_EQ(strlen(names) + 1, cmd.names_size);
		EXPECT_EQ(2, test_query(dmabuf).attachments);
		EXPECT_EQ(1, test_query(dmabuf).mappings);

		/* It goes on with what it has, and gets nothing else. */
		__expect_closed(_metadata, self->fd, dmabuf, idle, self->m.size,
				variant->read_only, HAS_VMAP);
		test_importer_read(session, 0, seen, self->m.size);
		EXPECT_SAME(self->m.expect, seen, self->m.size);
		if (!variant->read_only) {
			fill(seen, self->m.size, 40 + i);
			test_importer_write(session, 0, seen, self->m.size);
			/* A sync does not copy to page frames that may have another owner. */
			if (!variant->of_ram || devices[i] != IMPORTER_DEV_SHADOW)
				memcpy(self->m.expect, seen, self->m.size);
		}
		EXPECT_EQ(accounted, accounted_pages());
		EXPECT_EQ(pins, pinned_pages());

		test_importer_unmap(session);
		EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);
		/* Only the other buffer of the same pages is left. */
		EXPECT_SOON(accounted - (accounted - self->accounted) / 2, accounted_pages());
		EXPECT_EQ(0, test_query(dmabuf).mappings);
		EXPECT_EQ(-ENODEV, _test_importer_map(session, IMPORTER_TO_DEVICE));
		EXPECT_EQ(1, test_revoke(dmabuf).names_size);
		close(session);
		close(idle);
		close(dmabuf);
	}
	free(seen);
}

TEST_F(buffer, is_kept_until_the_last_device_lets_go)
{
	int sessions[3];
	char names[3 * 64];
	struct vmemexp_revoke cmd = revoke_args(self->dmabuf);

	for (int i = 0; i < 3; i++) {
		sessions[i] = test_importer_open();
		test_importer_attach(sessions[i], self->dmabuf, IMPORTER_DEV_COHERENT);
		test_importer_map(sessions[i], IMPORTER_TO_DEVICE);
	}
	cmd.names = to_u64(names);
	for (int i = 0; i < 3; i++) {
		cmd.names_size = sizeof(names);
		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
		EXPECT_EQ(3 - i, cmd.mappings);
		EXPECT_EQ(3 - i, count_names(names));
		EXPECT_EQ(strlen(names) + 1, cmd.names_size);
		expect_kept();
		/* By detaching, by unmapping, or by going. */
		if (i == 1)
			close(sessions[i]);
		else
			test_importer_unmap(sessions[i]);
	}
	expect_given_back_soon();
	close(sessions[0]);
	close(sessions[2]);
	expect_closed();
}

TEST_F(buffer, is_kept_for_a_kernel_mapping_until_that_goes)
{
	unsigned char *seen = malloc(self->m.size);
	struct vmemexp_revoke cmd;

	if (!HAS_VMAP) {
		free(seen);
		EXPECT_EQ(-vmap_refused(), _test_ioctl(self->session, IMPORTER_IOC_VMAP, NULL));
		return;
	}
	test_importer_vmap(self->session);
	cmd = test_revoke(self->dmabuf);
	EXPECT_EQ(0, cmd.mappings);
	EXPECT_EQ(1, cmd.vmaps);
	EXPECT_EQ(1, cmd.names_size);
	expect_kept();
	test_importer_vread(self->session, 0, seen, self->m.size);
	EXPECT_SAME(self->m.expect, seen, self->m.size);
	fill(self->m.expect, self->m.size, 50);
	test_importer_vwrite(self->session, 0, self->m.expect, self->m.size);
	EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);
	expect_kept();
	test_importer_vunmap(self->session);
	expect_given_back_soon();
	EXPECT_EQ(0, test_revoke(self->dmabuf).vmaps);
	expect_closed();
	expect_source_unchanged();
	free(seen);
}

/*
 * Up to 6.12 the core maps when such an importer attaches, to the end. The notification, and an
 * unmap, change nothing before it detaches.
 */
TEST_F(buffer, is_told_to_dynamic_importers)
{
	struct importer_attach arg = {
		.dmabuf_fd = self->dmabuf,
		.device = IMPORTER_DEV_COHERENT,
		.flags = IMPORTER_ATTACH_DYNAMIC,
	};
	int session = test_importer_open();
	unsigned char byte;
	int ret;

	ret = _test_ioctl(session, IMPORTER_IOC_ATTACH, &arg);
	/* The core maps for both directions. */
	if (ret && variant->read_only) {
		EXPECT_EQ(-EACCES, ret);
		close(session);
		return;
	}
	ASSERT_EQ(0, ret);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	test_importer_read(session, 0, &byte, 1);
	EXPECT_EQ(0, test_importer_info(session).flags & IMPORTER_INFO_TOLD);
	EXPECT_EQ(1, test_revoke(self->dmabuf).mappings);
	EXPECT_NE(0, test_importer_info(session).flags & IMPORTER_INFO_TOLD);
	EXPECT_EQ(-ESTALE, _test_importer_transfer(session, IMPORTER_IOC_READ, 0, &byte, 1));
	expect_kept();
	test_importer_unmap(session);
	test_importer_detach(session);
	expect_given_back_soon();
	close(session);
	expect_closed();
}

/* A second revoke finds all done. Importers are not told again. */
TEST_F(buffer, that_is_revoked_again_is_told_to_nobody)
{
	struct importer_attach arg = {
		.dmabuf_fd = self->dmabuf,
		.device = IMPORTER_DEV_COHERENT,
		.flags = IMPORTER_ATTACH_DYNAMIC,
	};
	int session = test_importer_open();
	int ret = _test_ioctl(session, IMPORTER_IOC_ATTACH, &arg);

	if (ret && variant->read_only) {
		EXPECT_EQ(-EACCES, ret);
		close(session);
		return;
	}
	ASSERT_EQ(0, ret);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	EXPECT_EQ(0, test_importer_info(session).nr_told);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(1, test_revoke(self->dmabuf).mappings);
		EXPECT_EQ(1, test_importer_info(session).nr_told);
	}
	test_importer_unmap(session);
	/* It is attached still, and would be told. */
	test_revoke(self->dmabuf);
	EXPECT_EQ(1, test_importer_info(session).nr_told);
	test_importer_detach(session);
	expect_given_back_soon();
	close(session);
	expect_closed();
}

TEST_F(buffer, is_let_go_by_importers_that_do_so_when_they_are_told)
{
	struct importer_attach arg = {
		.dmabuf_fd = self->dmabuf,
		.device = IMPORTER_DEV_COHERENT,
		.flags = IMPORTER_ATTACH_DYNAMIC | IMPORTER_ATTACH_LETS_GO,
	};
	int session = test_importer_open(), ret;
	struct importer_info info;

	ret = _test_ioctl(session, IMPORTER_IOC_ATTACH, &arg);
	if (ret && variant->read_only) {
		EXPECT_EQ(-EACCES, ret);
		close(session);
		return;
	}
	ASSERT_EQ(0, ret);
	test_importer_map(session, IMPORTER_TO_DEVICE);
	expect_kept();
	test_revoke(self->dmabuf);
	/* The rest happens by itself. */
	expect_given_back_soon();
	EXPECT_EQ(0, test_revoke(self->dmabuf).mappings);
	info = test_importer_info(session);
	EXPECT_EQ(0, info.held);
	EXPECT_NE(0, info.flags & IMPORTER_INFO_TOLD);
	expect_closed();
	close(session);
}

/* ---- whose it was ---- */

/* A child exports, sends the dma-buf, and does not live to see the end of it. */
static int __export_and_die(struct __test_metadata *_metadata, int fd, const struct memory *m,
			    unsigned int fd_flags)
{
	int sockets[2], dmabuf;
	pid_t child;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
	child = fork_child();
	if (!child) {
		struct vmemexp_export cmd = export_args(m->addr, m->size, fd_flags);

		CHECK(!_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd));
		CHECK(!send_fd(sockets[1], cmd.fd));
		pause();
	}
	dmabuf = receive_fd(sockets[0]);
	ASSERT_LE(0, dmabuf);
	ASSERT_EQ(0, kill(child, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, wait_for_child(child));
	close(sockets[0]);
	close(sockets[1]);
	return dmabuf;
}

TEST_F(buffer, of_an_exporter_that_was_killed_is_given_back)
{
	long pins = pinned_pages();
	int dmabuf;

	/* The child's copies of hugetlb pages would take more of the pool than there is. */
	dmabuf = __export_and_die(_metadata, self->fd, &self->m,
				  variant->read_only ? O_RDONLY : O_RDWR);
	EXPECT_EQ(VMEMEXP_STATE_STALE, test_query_state(dmabuf) & VMEMEXP_STATE_STALE);
	if (!OF_FRAMES)
		EXPECT_LT(pins, pinned_pages());
	test_importer_detach(self->session);
	test_importer_attach(self->session, dmabuf, IMPORTER_DEV_COHERENT);
	test_revoke(dmabuf);
	EXPECT_EQ(pins, pinned_pages());
	__expect_closed(_metadata, self->fd, dmabuf, self->session, self->m.size,
			variant->read_only, HAS_VMAP);
	test_importer_detach(self->session);
	close(dmabuf);
	/* The other one of the same memory is none of it. */
	EXPECT_SAME(self->m.expect, self->view, self->m.size);
	EXPECT_EQ(0, test_query_state(self->dmabuf) & VMEMEXP_STATE_REVOKED);
}

/* The driver may go, even if the buffer is still held in some way. */
TEST_F(buffer, lets_the_driver_of_its_page_frames_go_at_once)
{
	long users;

	if (!OF_FRAMES)
		return;
	test_importer_map(self->session, IMPORTER_TO_DEVICE);
	ASSERT_EQ(0, munmap(self->m.addr, self->m.size));
	users = read_number(STAND_IN_USERS);
	EXPECT_LT(0, users);
	EXPECT_EQ(1, test_revoke(self->dmabuf).mappings);
	EXPECT_SOON(users - 1, read_number(STAND_IN_USERS));
	test_importer_unmap(self->session);
	expect_closed();
}

/* ---- names ---- */

FIXTURE(names)
{
	int fd;
	struct test_state before;
	int dmabuf;
	int sessions[2];
	struct vmemexp_revoke cmd;
	char all[128];		/* what the names are */
	size_t size;		/* and how long, with the NUL */
};

FIXTURE_SETUP(names)
{
	skip_without_importer();
	test_setup();
	self->dmabuf = test_export(map_anon(SMALL), SMALL, O_RDWR);
	for (int i = 0; i < 2; i++) {
		self->sessions[i] = test_importer_open();
		test_importer_attach(self->sessions[i], self->dmabuf, IMPORTER_DEV_COHERENT);
		test_importer_map(self->sessions[i], IMPORTER_BIDIRECTIONAL);
	}
	self->cmd = revoke_args(self->dmabuf);
	self->cmd.names = to_u64(self->all);
	self->cmd.names_size = sizeof(self->all);
}

FIXTURE_TEARDOWN(names)
{
	close(self->sessions[0]);
	close(self->sessions[1]);
	close(self->dmabuf);
	test_teardown();
}

#define learn_names() do {						\
	struct vmemexp_revoke __cmd = self->cmd;			\
									\
	memset(self->all, POISON_BYTE, sizeof(self->all));		\
	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &__cmd)); \
	self->size = __cmd.names_size;					\
	ASSERT_EQ(self->size, strlen(self->all) + 1);			\
	ASSERT_EQ(2, count_names(self->all));				\
} while (0)

TEST_F(names, are_cut_off_where_the_memory_ends)
{
	learn_names();
	for (size_t size = 1; size <= self->size + 8; size++) {
		struct vmemexp_revoke cmd = self->cmd;
		/* One byte behind it, and there is a signal. */
		char *names = guard_end(size);
		size_t length = size < self->size ? size - 1 : self->size - 1;

		memset(names, POISON_BYTE, size);
		cmd.names = to_u64(names);
		cmd.names_size = size;
		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
		EXPECT_EQ(self->size, cmd.names_size);
		EXPECT_EQ(2, cmd.mappings);
		EXPECT_EQ(0, memcmp(self->all, names, length));
		EXPECT_EQ('\0', names[length]);
		for (size_t i = self->size; i < size; i++)
			EXPECT_EQ((char)POISON_BYTE, names[i]);
		guard_free(names, size);
	}
}

TEST_F(names, are_not_looked_at_if_there_is_no_room)
{
	static const uint64_t addresses[] = { 0, 1, ~0ULL, 1ULL << 63 };

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct vmemexp_revoke cmd = self->cmd;

		cmd.names = addresses[i];
		cmd.names_size = 0;
		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
		EXPECT_EQ(2, cmd.mappings);
		EXPECT_LT(2, cmd.names_size);
	}
}

TEST_F(names, that_cannot_be_written_are_efault_and_it_is_revoked)
{
	char *page = guard_start(PAGE);
	/* The upper half of an address is no less a part of it where none needs one. */
	const uint64_t addresses[] = {
		0, 1, ~0ULL, 1ULL << 63, to_u64(self->all) ^ 1ULL << 32, to_u64(page) - 1,
		to_u64(page) + PAGE - 3,
	};

	page[PAGE - 3] = 'x';
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct vmemexp_revoke cmd = self->cmd;

		cmd.names = addresses[i];
		test_err_struct(EFAULT, VMEMEXP_IOC_REVOKE, &cmd);
		EXPECT_EQ(VMEMEXP_STATE_REVOKED,
			  test_query_state(self->dmabuf) & VMEMEXP_STATE_REVOKED);
	}
	/* Without users, there is one byte to write. */
	close(self->sessions[0]);
	close(self->sessions[1]);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct vmemexp_revoke cmd = self->cmd;

		cmd.names = addresses[i];
		EXPECT_EQ(i < 6 ? -EFAULT : 0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
	}
	EXPECT_EQ('\0', page[PAGE - 3]);
	guard_free(page, PAGE);
}

/* The answer is as long as the program knows it. */
TEST_F(names, and_the_answer_may_not_be_writable)
{
	struct vmemexp_revoke *cmd = map(PAGE, RW, ANON, -1);

	*cmd = self->cmd;
	ASSERT_EQ(0, mprotect(cmd, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, cmd));
	EXPECT_EQ(0, memcmp(&self->cmd, cmd, sizeof(*cmd)));
	EXPECT_EQ(VMEMEXP_STATE_REVOKED, test_query_state(self->dmabuf) & VMEMEXP_STATE_REVOKED);
	munmap(cmd, PAGE);
}

TEST_F(names, may_be_asked_for_far_more_room_than_there_is)
{
	learn_names();
	self->cmd.names_size = ~0U;
	memset(self->all, POISON_BYTE, sizeof(self->all));
	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &self->cmd));
	EXPECT_EQ(self->size, self->cmd.names_size);
	EXPECT_EQ(2, count_names(self->all));
}

/* ---- the user who was charged ---- */

FIXTURE(user)
{
	int fd;
	struct test_state before;
	unsigned char *buf;
};

FIXTURE_SETUP(user)
{
	struct rlimit limit = { SMALL, SMALL };

	test_setup();
	self->buf = map(SMALL, RW, ANON, -1);
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, setresuid(USER, USER, 0));
}

FIXTURE_TEARDOWN(user)
{
	ASSERT_EQ(0, setresuid(0, 0, 0));
	test_teardown();
}

/* By root, who may. */
#define revoke_as_root(dmabuf) do {					\
	ASSERT_EQ(0, seteuid(0));					\
	test_revoke(dmabuf);						\
	ASSERT_EQ(0, seteuid(USER));					\
} while (0)

#define test_err_charged()						\
	test_err_export(ENOMEM, VMEMEXP_REASON_LIMIT, self->buf,	\
			self->buf, PAGE, O_RDWR)

TEST_F(user, is_given_back_what_was_charged)
{
	int dmabuf = test_export(self->buf, SMALL, O_RDWR), again;
	unsigned char *view = map(SMALL, RW, MAP_SHARED, dmabuf);

	view[0] = 1;
	test_err_charged();
	revoke_as_root(dmabuf);
	/* And no more than that. */
	again = test_export(self->buf, SMALL, O_RDWR);
	test_err_charged();
	close(dmabuf);
	munmap(view, SMALL);
	test_err_charged();
	close(again);
	close(test_export(self->buf, SMALL, O_RDWR));
}

TEST_F(user, is_charged_until_the_device_lets_go)
{
	int dmabuf = test_export(self->buf, SMALL, O_RDWR), session;

	ASSERT_EQ(0, seteuid(0));
	if (!importer_present())
		SKIP(return, "the test importer module is not loaded");
	session = test_importer_open();
	ASSERT_EQ(0, seteuid(USER));
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	revoke_as_root(dmabuf);
	test_err_charged();
	test_importer_unmap(session);
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS; ms += 10) {
		struct vmemexp_export cmd = export_args(self->buf, SMALL, O_RDWR);

		if (!_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd)) {
			close(cmd.fd);
			break;
		}
		sleep_ms(10);
	}
	close(test_export(self->buf, SMALL, O_RDWR));
	close(session);
	close(dmabuf);
}

/* The exporter himself may not, unless he is an administrator. */
TEST_F(user, may_not_revoke_what_is_his_own)
{
	int dmabuf = test_export(self->buf, SMALL, O_RDWR);
	struct vmemexp_revoke cmd = revoke_args(dmabuf);

	test_err_struct(EPERM, VMEMEXP_IOC_REVOKE, &cmd);
	EXPECT_EQ(0, test_query_state(dmabuf) & VMEMEXP_STATE_REVOKED);
	close(dmabuf);
}

/* ---- at the same time as everything else ---- */

#define VISITORS	3
#define ROUNDS		25

/* Visits before a revoke, and of those that come too late. */
#define EARLY		20
#define LATE		5

struct visitor {
	int fd, dmabuf;
	int session;			/* attached, if it has one */
	unsigned char *view;
	unsigned int seed;
	unsigned int early, late;	/* visits that found it, and did not */
	bool over;
	int wrong;			/* an errno that must not be */
};

FIXTURE(race)
{
	int fd;
	struct test_state before;
	unsigned char *buf;
};

/*
 * Each uses the buffer, and writes to it if it is there: 0, -ENODEV when it has been
 * revoked, or another errno.
 */
FIXTURE_VARIANT(race)
{
	int (*visit)(struct visitor *visitor);
};

static int visit_by_mmap(struct visitor *v)
{
	unsigned char *view = mmap(NULL, SMALL, RW, MAP_SHARED, v->dmabuf, 0);
	int ret = 0;

	if (view == MAP_FAILED)
		return -errno;
	for (size_t i = 0; i < PAGES && !ret; i += 4)
		ret = signal_of(view + i * PAGE, true);
	munmap(view, SMALL);
	return ret == SIGBUS ? -ENODEV : ret;
}

static int visit_by_view(struct visitor *v)
{
	int signal = signal_of(v->view + v->seed++ % PAGES * PAGE, true);

	return signal == SIGBUS ? -ENODEV : signal;
}

/* Empties the page table, so that each visit is a fault. */
static int visit_by_fault(struct visitor *v)
{
	unsigned char *view = mmap(NULL, PAGE, RW, MAP_SHARED, v->dmabuf, 3 * PAGE);
	int signal;

	if (view == MAP_FAILED)
		return -errno;
	signal = signal_of(view, true);
	munmap(view, PAGE);
	return signal == SIGBUS ? -ENODEV : signal;
}

static int visit_by_device(struct visitor *v)
{
	unsigned char byte = 0x5e;
	int ret = _test_importer_map(v->session, IMPORTER_BIDIRECTIONAL);

	if (ret)
		return ret;
	ret = _test_importer_transfer(v->session, IMPORTER_IOC_WRITE, v->seed++ % PAGES * PAGE,
				      &byte, 1);
	return _test_ioctl(v->session, IMPORTER_IOC_UNMAP, NULL) ?: ret;
}

static int visit_by_attachment(struct visitor *v)
{
	int session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC), ret;

	ret = _test_importer_attach(session, v->dmabuf, IMPORTER_DEV_COHERENT);
	if (!ret)
		ret = _test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	close(session);
	return ret;
}

static int visit_by_dynamic_attachment(struct visitor *v)
{
	struct importer_attach arg = {
		.dmabuf_fd = v->dmabuf,
		.device = IMPORTER_DEV_COHERENT,
		.flags = IMPORTER_ATTACH_DYNAMIC | IMPORTER_ATTACH_LETS_GO,
	};
	int session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC), ret;

	ret = _test_ioctl(session, IMPORTER_IOC_ATTACH, &arg);
	/* It may let go at any time. */
	if (!ret) {
		ret = _test_importer_map(session, IMPORTER_BIDIRECTIONAL);
		ret = ret == -ENXIO ? -ENODEV : ret;
	}
	close(session);
	return ret;
}

/* That it finds something else says that it came too late. */
static int visit_by_vmap(struct visitor *v)
{
	unsigned char byte = 0x5e, seen = 0;
	int ret = _test_ioctl(v->session, IMPORTER_IOC_VMAP, NULL);

	if (ret)
		return ret;
	_test_importer_transfer(v->session, IMPORTER_IOC_VREAD, PAGE - 1, &seen, 1);
	_test_importer_transfer(v->session, IMPORTER_IOC_VWRITE, 0, &byte, 1);
	ret = _test_ioctl(v->session, IMPORTER_IOC_VUNMAP, NULL);
	return ret ?: seen ? 0 : -ENODEV;
}

static int visit_by_sync(struct visitor *v)
{
	int ret = _test_dmabuf_sync(v->dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);

	if (ret)
		return ret;
	ret = _test_dmabuf_sync(v->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);
	return ret ?: _test_sync(v->fd, v->dmabuf, VMEMEXP_SYNC_RW, v->seed++ % SMALL, 1);
}

FIXTURE_VARIANT_ADD(race, with_mappings) {
	.visit = visit_by_mmap,
};

FIXTURE_VARIANT_ADD(race, with_accesses) {
	.visit = visit_by_view,
};

FIXTURE_VARIANT_ADD(race, with_faults) {
	.visit = visit_by_fault,
};

FIXTURE_VARIANT_ADD(race, with_devices) {
	.visit = visit_by_device,
};

FIXTURE_VARIANT_ADD(race, with_attachments) {
	.visit = visit_by_attachment,
};

FIXTURE_VARIANT_ADD(race, with_dynamic_attachments) {
	.visit = visit_by_dynamic_attachment,
};

FIXTURE_VARIANT_ADD(race, with_kernel_mappings) {
	.visit = visit_by_vmap,
};

FIXTURE_VARIANT_ADD(race, with_syncs) {
	.visit = visit_by_sync,
};

FIXTURE_SETUP(race)
{
	skip_without_importer();
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	catch_signals();
	test_setup();
	self->buf = map(SMALL, RW, ANON, -1);
}

FIXTURE_TEARDOWN(race)
{
	munmap(self->buf, SMALL);
	test_teardown();
}

/* Work of a thread of the visitor. */
struct visit {
	struct visitor visitor;
	int (*visit)(struct visitor *visitor);
};

static void *visit(void *arg)
{
	struct visit *visit = arg;
	struct visitor *v = &visit->visitor;

	while (!__atomic_load_n(&v->over, __ATOMIC_ACQUIRE)) {
		int ret = visit->visit(v);

		if (!ret)
			__atomic_add_fetch(&v->early, 1, __ATOMIC_RELEASE);
		else if (ret == -ENODEV)
			__atomic_add_fetch(&v->late, 1, __ATOMIC_RELEASE);
		else
			v->wrong = ret;
		/* On one CPU as well. */
		sched_yield();
	}
	return NULL;
}

/* Waits until each visitor has come so often. */
static bool wait_for_visits(const struct visit *visits, bool late, unsigned int count)
{
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS; ms++) {
		unsigned int done = 0;

		for (int i = 0; i < VISITORS; i++) {
			const struct visitor *v = &visits[i].visitor;

			done += __atomic_load_n(late ? &v->late : &v->early,
						__ATOMIC_ACQUIRE) >= count;
		}
		if (done == VISITORS)
			return true;
		sleep_ms(1);
	}
	return false;
}

/*
 * When it has returned, no writes to the memory follow. Nothing is pinned either, if no visitor was
 * in the middle of it; that one comes back soon.
 */
TEST_F(race, is_won_by_the_revoke)
{
	struct visit visits[VISITORS];
	pthread_t threads[VISITORS];

	for (int round = 0; round < ROUNDS; round++) {
		int dmabuf;
		unsigned int late;

		memset(self->buf, 0xaa, SMALL);
		dmabuf = test_export(self->buf, SMALL, O_RDWR);
		for (int i = 0; i < VISITORS; i++) {
			struct visitor *v = &visits[i].visitor;

			*v = (struct visitor){ .fd = self->fd, .dmabuf = dmabuf, .seed = i * 5 };
			v->view = map(SMALL, RW, MAP_SHARED, dmabuf);
			v->session = test_importer_open();
			test_importer_attach(v->session, dmabuf, IMPORTER_DEV_COHERENT);
			visits[i].visit = variant->visit;
			ASSERT_EQ(0, pthread_create(&threads[i], NULL, visit, &visits[i]));
		}
		EXPECT_TRUE(wait_for_visits(visits, false, EARLY));
		test_revoke(dmabuf);

		/* All visitors have left, and none enters. */
		EXPECT_TRUE(wait_for_visits(visits, true, LATE));
		EXPECT_SOON(self->before.pins, pinned_pages());
		fill(self->buf, SMALL, round);
		late = visits[0].visitor.late;
		EXPECT_TRUE(wait_for_visits(visits, true, late + LATE));
		EXPECT_EQ(-1, first_difference(self->buf, SMALL, round));
		for (int i = 0; i < VISITORS; i++) {
			struct visitor *v = &visits[i].visitor;

			__atomic_store_n(&v->over, true, __ATOMIC_RELEASE);
			pthread_join(threads[i], NULL);
			EXPECT_EQ(0, v->wrong) {
				TH_LOG("%s", strerror(-v->wrong));
			}
			close(v->session);
			munmap(v->view, SMALL);
		}
		EXPECT_EQ(0, test_query(dmabuf).mappings);
		close(dmabuf);
	}
}

/* ---- while an address space ends ---- */

/* More than a workqueue serves at a time. */
#define MANY_BUFFERS	1500

/*
 * Exports so many buffers, which stay open in the parent, and ends. The end waits where the
 * address space is torn down, as it would for long if that was large.
 */
static void __attribute__((noreturn)) export_many_and_end(int fd, int session)
{
	unsigned char *page = mmap(NULL, PAGE, RW, ANON, -1, 0);

	CHECK(page != MAP_FAILED);
	for (int i = 0; i < MANY_BUFFERS; i++) {
		struct vmemexp_export cmd = export_args(page, PAGE, O_RDWR);

		CHECK(!_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd));
	}
	CHECK(!_test_ioctl(session, IMPORTER_IOC_HOLD_MM, NULL));
	_exit(0);
}

/* Returns how many there were. */
static int close_dmabufs(void)
{
	int nr = 0;

	for (int fd = 3; fd < 2 * MANY_BUFFERS; fd++) {
		char path[32], name[32] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, name, sizeof(name) - 1) > 0 && strstr(name, "dmabuf"))
			nr += !close(fd);
	}
	return nr;
}

FIXTURE(ending)
{
	int fd;
	struct test_state before;
	int session;
	pid_t child;
};

FIXTURE_SETUP(ending)
{
	struct rlimit files = { 2 * MANY_BUFFERS, 2 * MANY_BUFFERS };

	skip_without_importer();
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	test_setup();
	self->session = test_importer_open();
	self->child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	ASSERT_LE(0, self->child);
	if (!self->child)
		export_many_and_end(self->fd, self->session);
	/* It has come to its end, and stays there. */
	ASSERT_EQ(0, _test_ioctl(self->session, IMPORTER_IOC_AWAIT_END, NULL));
}

FIXTURE_TEARDOWN(ending)
{
	int status;

	ASSERT_EQ(0, _test_ioctl(self->session, IMPORTER_IOC_LET_END, NULL));
	ASSERT_EQ(self->child, waitpid(self->child, &status, 0));
	EXPECT_EQ(0, status);
	close(self->session);
	close_dmabufs();
	test_teardown();
}

TEST_F(ending, of_an_exporter_with_many_buffers_keeps_no_other_waiting)
{
	int session = test_importer_open();
	unsigned char *own = map_anon(SMALL);
	int dmabuf = test_export(own, SMALL, O_RDWR);
	long pins = pinned_pages();

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	EXPECT_EQ(1, test_revoke(dmabuf).mappings);
	EXPECT_EQ(pins, pinned_pages());
	test_importer_unmap(session);
	EXPECT_SOON(pins - (long)(SMALL / PAGE), pinned_pages());
	close(session);
	close(dmabuf);
	munmap(own, SMALL);
}

/* A close by another holder of the buffers does not wait either. */
TEST_F(ending, of_the_exporter_keeps_no_close_waiting)
{
	EXPECT_EQ(MANY_BUFFERS, close_dmabufs());
}

/* ---- while it ends, and another process closes one buffer after the other ---- */

#define NR_ORPHANS	2
/* The longest pause between two closes is 2 to the power of less than this, in us. */
#define PAUSES		16

FIXTURE(orphans)
{
	int fd;
	struct test_state before;
	int *dmabufs;
};

FIXTURE_SETUP(orphans)
{
	test_setup();
	self->dmabufs = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->dmabufs);
}

FIXTURE_TEARDOWN(orphans)
{
	munmap(self->dmabufs, PAGE);
	test_teardown();
}

/* Exports the buffers, which the parent has open as well, and ends. */
static void __attribute__((noreturn)) export_orphans_and_end(int fd, int *dmabufs)
{
	for (int i = 0; i < NR_ORPHANS; i++) {
		unsigned char *page = mmap(NULL, PAGE, RW, ANON, -1, 0);
		struct vmemexp_export cmd = export_args(page, PAGE, O_RDWR);

		CHECK(page != MAP_FAILED);
		CHECK(!_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd));
		__atomic_store_n(&dmabufs[i], cmd.fd, __ATOMIC_RELEASE);
	}
	_exit(0);
}

/* Returns the descriptor when the child has stored it; 0 if the child has ended without. */
static int await_orphan(const int *dmabuf, pid_t child)
{
	siginfo_t ended = {};
	int fd;

	do {
		CHECK(!waitid(P_PID, child, &ended, WEXITED | WNOHANG | WNOWAIT));
		fd = __atomic_load_n(dmabuf, __ATOMIC_ACQUIRE);
		sched_yield();
	} while (!fd && !ended.si_pid);
	return fd;
}

/*
 * The driver leaves the address space and frees the buffers by one work item of the user, which
 * goes with the user's last buffer. Closes meet it at each moment of its life.
 */
TEST_F(orphans, are_freed_whenever_they_are_closed)
{
	unsigned int seed = 1;

	for (int round = 0; round < 8 * PAUSES; round++) {
		pid_t child;
		int status;

		memset(self->dmabufs, 0, NR_ORPHANS * sizeof(*self->dmabufs));
		child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
		ASSERT_LE(0, child);
		if (!child)
			export_orphans_and_end(self->fd, self->dmabufs);
		for (int i = 0; i < NR_ORPHANS; i++) {
			int dmabuf = await_orphan(&self->dmabufs[i], child);

			ASSERT_LT(0, dmabuf);
			usleep(rand_r(&seed) % (1U << round % PAUSES));
			ASSERT_EQ(0, close(dmabuf));
		}
		ASSERT_EQ(child, waitpid(child, &status, 0));
		ASSERT_EQ(0, status);
	}
}

/* ---- at the same time as its end, or as another revoke ---- */

FIXTURE(end)
{
	int fd;
	struct test_state before;
	unsigned char *buf;
};

FIXTURE_SETUP(end)
{
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	catch_signals();
	test_setup();
	self->buf = map(SMALL, RW, ANON, -1);
}

FIXTURE_TEARDOWN(end)
{
	munmap(self->buf, SMALL);
	test_teardown();
}

struct revoker {
	int fd;
	uint64_t ino;		/* of the latest buffer */
	bool over;
	unsigned int revoked, gone;
	int wrong;
};

static void *revoke_all(void *arg)
{
	struct revoker *r = arg;

	while (!__atomic_load_n(&r->over, __ATOMIC_ACQUIRE)) {
		struct vmemexp_revoke cmd = {
			.size = sizeof(cmd),
			.ino = __atomic_load_n(&r->ino, __ATOMIC_ACQUIRE),
		};
		int ret = _test_ioctl(r->fd, VMEMEXP_IOC_REVOKE, &cmd);

		if (!ret)
			__atomic_add_fetch(&r->revoked, 1, __ATOMIC_RELAXED);
		else if (ret == -ENOENT)
			__atomic_add_fetch(&r->gone, 1, __ATOMIC_RELAXED);
		else
			r->wrong = ret;
		sched_yield();
	}
	return NULL;
}

#define REVOKERS	2

/* Whichever comes first, nothing is left and nothing is given back twice. */
TEST_F(end, of_the_buffer_may_come_at_any_time)
{
	struct revoker revokers[REVOKERS] = {};
	long accounted = accounted_pages();
	unsigned int revoked = 0, gone = 0;
	pthread_t threads[REVOKERS];

	for (int i = 0; i < REVOKERS; i++) {
		revokers[i].fd = self->fd;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, revoke_all, &revokers[i]));
	}
	for (int i = 0; i < 1000 || ((!revoked || !gone) && i < 100000); i++) {
		int dmabuf = test_export(self->buf, SMALL, O_RDWR);
		uint64_t ino = inode_of(dmabuf);
		unsigned char *view = NULL;

		for (int r = 0; r < REVOKERS; r++)
			__atomic_store_n(&revokers[r].ino, ino, __ATOMIC_RELEASE);
		if (i % 3) {
			view = mmap(NULL, SMALL, RW, MAP_SHARED, dmabuf, 0);
			if (view == MAP_FAILED) {
				ASSERT_EQ(ENODEV, errno);
				view = NULL;
			} else {
				signal_of(view, true);
			}
		}
		for (int wait = i * 37 % 256; wait; wait--)
			__asm__ volatile("");
		close(dmabuf);
		if (view)
			munmap(view, SMALL);
		revoked = __atomic_load_n(&revokers[0].revoked, __ATOMIC_RELAXED);
		gone = __atomic_load_n(&revokers[0].gone, __ATOMIC_RELAXED);
	}
	for (int i = 0; i < REVOKERS; i++) {
		__atomic_store_n(&revokers[i].over, true, __ATOMIC_RELEASE);
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, revokers[i].wrong);
		EXPECT_NE(0, revokers[i].revoked);
		EXPECT_NE(0, revokers[i].gone);
	}
	EXPECT_SOON(accounted, accounted_pages());
}

/* Its address space, to which the pages were charged, goes away meanwhile. */
TEST_F(end, of_the_exporter_may_come_at_any_time)
{
	int sockets[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
	for (int round = 0; round < 100; round++) {
		pid_t child = fork_child();
		int dmabuf;

		if (!child) {
			struct vmemexp_export cmd = export_args(self->buf, SMALL, O_RDWR);

			CHECK(!_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
			CHECK(!send_fd(sockets[1], cmd.fd));
			if (round % 2)
				_exit(KSFT_PASS);
			pause();
		}
		dmabuf = receive_fd(sockets[0]);
		ASSERT_LE(0, dmabuf);
		if (!(round % 2))
			kill(child, SIGKILL);
		test_revoke(dmabuf);
		EXPECT_EQ(round % 2 ? KSFT_PASS : 128 + SIGKILL, wait_for_child(child));
		EXPECT_SOON(self->before.pins, pinned_pages());
		close(dmabuf);
	}
	close(sockets[0]);
	close(sockets[1]);
}

/* ---- at the same time as a fault that takes long ---- */

#define LONG_SIZE	(8UL << 20)
#define LONG_ROUNDS	30

FIXTURE(fault)
{
	int fd;
	struct test_state before;
	unsigned char *buf;
	int probe;
};

FIXTURE_SETUP(fault)
{
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	catch_signals();
	test_setup();
	self->buf = map(LONG_SIZE, RW, ANON, -1);
	memset(self->buf, 1, LONG_SIZE);
	self->probe = memfd(PAGE, 0);
	ASSERT_LE(0, self->probe);
}

FIXTURE_TEARDOWN(fault)
{
	close(self->probe);
	munmap(self->buf, LONG_SIZE);
	test_teardown();
}

struct touch {
	unsigned char *view;
	bool begun;
	int signal;
};

static void *touch(void *arg)
{
	struct touch *touch = arg;

	__atomic_store_n(&touch->begun, true, __ATOMIC_RELEASE);
	touch->signal = signal_of(touch->view, false);
	return NULL;
}

/* By the kernel, which is told of a fault sooner than a program is. */
static unsigned int count_present(int probe, const unsigned char *view, size_t size)
{
	unsigned int present = 0;

	for (size_t at = 0; at < size; at += PAGE)
		present += pwrite(probe, view + at, 1, 0) != -1 || errno != EFAULT;
	return present;
}

static long elapsed_us(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - start->tv_sec) * 1000000L + (now.tv_nsec - start->tv_nsec) / 1000;
}

static void wait_us(long us)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (elapsed_us(&start) < us)
		;
}

/*
 * The first access to a mapping brings all of its pages. Wherever the revoke catches
 * it, none of them is there afterwards.
 */
TEST_F(fault, leaves_nothing_behind_that_is_caught_by_a_revoke)
{
	int dmabuf = test_export(self->buf, LONG_SIZE, O_RDWR);
	unsigned int early = 0, late = 0;
	struct timespec start;
	struct touch t;
	long all;

	t.view = map(LONG_SIZE, PROT_READ, MAP_SHARED, dmabuf);
	clock_gettime(CLOCK_MONOTONIC, &start);
	ASSERT_EQ(0, signal_of(t.view, false));
	all = elapsed_us(&start);
	munmap(t.view, LONG_SIZE);
	close(dmabuf);

	/* From before it begins to behind its end, in equal steps. */
	for (int round = 0; round < LONG_ROUNDS; round++) {
		pthread_t thread;

		dmabuf = test_export(self->buf, LONG_SIZE, O_RDWR);
		t = (struct touch){ .view = map(LONG_SIZE, PROT_READ, MAP_SHARED, dmabuf) };
		ASSERT_EQ(0, pthread_create(&thread, NULL, touch, &t));
		while (!__atomic_load_n(&t.begun, __ATOMIC_ACQUIRE))
			sched_yield();
		wait_us(round % LONG_ROUNDS * 3 * all / 2 / LONG_ROUNDS);
		test_revoke(dmabuf);
		ASSERT_EQ(0, count_present(self->probe, t.view, LONG_SIZE));
		pthread_join(thread, NULL);
		early += !t.signal;
		late += t.signal == SIGBUS;
		ASSERT_EQ(0, count_present(self->probe, t.view, LONG_SIZE));
		munmap(t.view, LONG_SIZE);
		close(dmabuf);
	}
	/* Each fault has come to an end, one way or the other. */
	EXPECT_EQ(LONG_ROUNDS, early + late);
}

/* ---- files that hold each other ---- */

FIXTURE(cycle)
{
	int fd;
	struct test_state before;
	long users;		/* of vgem */
};

FIXTURE_VARIANT(cycle)
{
	int files;		/* in the circle */
	bool killed;
};

FIXTURE_VARIANT_ADD(cycle, of_one_file) {
	.files = 1,
};

FIXTURE_VARIANT_ADD(cycle, of_one_file_of_a_killed_process) {
	.files = 1, .killed = true,
};

FIXTURE_VARIANT_ADD(cycle, of_two_files) {
	.files = 2,
};

FIXTURE_VARIANT_ADD(cycle, of_three_files) {
	.files = 3,
};

#define VGEM_USERS	"/sys/module/vgem/refcnt"
#define MAX_CYCLE	3

FIXTURE_SETUP(cycle)
{
	int card;

	run("modprobe -q vgem");
	card = open_vgem();
	if (card < 0)
		SKIP(return, "the kernel has no vgem");
	close(card);
	/* 45d9c8dde4cd (v5.16) made page frames of what it maps; before, nothing held it. */
	if (!kernel_at_least(5, 16))
		SKIP(return, "this kernel's vgem does not map page frames");
	test_setup();
	/* All of the RAM there is. */
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, "0x0:0x8000000000"));
	self->users = read_number(VGEM_USERS);
	ASSERT_LE(0, self->users);
}

FIXTURE_TEARDOWN(cycle)
{
	restore_system();
	test_teardown();
}

/* Memory of the card, mapped, and exported. */
static int export_from_card(int fd, int card)
{
	struct drm_mode_create_dumb dumb = { .width = 64, .height = 64, .bpp = 32 };
	struct drm_mode_map_dumb where = {};
	struct vmemexp_export cmd;
	void *addr;

	CHECK(!ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &dumb));
	where.handle = dumb.handle;
	CHECK(!ioctl(card, DRM_IOCTL_MODE_MAP_DUMB, &where));
	addr = mmap64(NULL, dumb.size, RW, MAP_SHARED, card, where.offset);
	CHECK(addr != MAP_FAILED);
	memset(addr, 1, dumb.size);
	cmd = export_args(addr, dumb.size, O_RDWR | O_CLOEXEC);
	CHECK(!_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd));
	CHECK(cmd.memory == VMEMEXP_MEMORY_PFNMAP);
	return cmd.fd;
}

/* Each card imports what was exported from the one before it. */
static void make_cycle(int fd, int files, uint64_t *inos)
{
	int cards[MAX_CYCLE], dmabufs[MAX_CYCLE];

	for (int i = 0; i < files; i++) {
		cards[i] = open_vgem();
		CHECK(cards[i] >= 0);
		dmabufs[i] = export_from_card(fd, cards[i]);
		inos[i] = inode_of(dmabufs[i]);
	}
	for (int i = 0; i < files; i++) {
		struct drm_prime_handle prime = { .fd = dmabufs[i] };

		CHECK(!ioctl(cards[(i + 1) % files], DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime));
	}
}

static unsigned int count_listed(const uint64_t *inos, int nr)
{
	static char text[256 * 1024];
	unsigned int found = 0;

	if (read_text(BUFFERS, text, sizeof(text)) <= 0)
		return ~0U;
	for (int i = 0; i < nr; i++) {
		char start[32];

		snprintf(start, sizeof(start), "\n%llu ", (unsigned long long)inos[i]);
		found += !!strstr(text, start);
	}
	return found;
}

TEST_F(cycle, is_broken_by_revoking_one_buffer)
{
	uint64_t *inos = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct vmemexp_revoke cmd = { .size = sizeof(cmd) };
	int ready[2];
	pid_t child;
	char byte;

	ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
	child = fork_child();
	if (!child) {
		make_cycle(self->fd, variant->files, inos);
		if (!variant->killed)
			_exit(KSFT_PASS);
		CHECK(write(ready[1], "", 1) == 1);
		pause();
	}
	if (variant->killed) {
		ASSERT_EQ(1, read(ready[0], &byte, 1));
		ASSERT_EQ(0, kill(child, SIGKILL));
	}
	EXPECT_EQ(variant->killed ? 128 + SIGKILL : KSFT_PASS, wait_for_child(child));
	close(ready[0]);
	close(ready[1]);

	/* No process has a descriptor, and nothing goes away. */
	EXPECT_EQ(variant->files, count_listed(inos, variant->files));
	EXPECT_LT(self->users, read_number(VGEM_USERS));
	EXPECT_EQ(-1, syscall(SYS_delete_module, "vgem", O_NONBLOCK));
	EXPECT_EQ(EWOULDBLOCK, errno);

	cmd.ino = inos[0];
	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &cmd));
	EXPECT_SOON(0, count_listed(inos, variant->files));
	EXPECT_SOON(self->users, read_number(VGEM_USERS));
	EXPECT_EQ(0, syscall(SYS_delete_module, "vgem", O_NONBLOCK)) {
		TH_LOG("vgem: %s", strerror(errno));
	}
	EXPECT_TRUE(run("modprobe -q vgem"));
	munmap(inos, PAGE);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Implicit fences: a sync that begins CPU access waits for the devices that
 * still work on the buffer, and looks at the memory only then; and the memory of
 * a buffer that was revoked waits for them.
 *
 * The fences are vgem's, which a program attaches and signals as it likes. One
 * that is forgotten signals itself after 10 s. To signal it then is an error, so
 * that no test mistakes the timeout for an answer.
 */
#include "lib/vmemexp_utils.h"

#include <poll.h>
#include <signal.h>

#define PAGES		3
#define SIZE		(PAGES * page_size())

/* vgem's interface; libdrm does not have <vgem_drm.h>. */

#define FENCE_READ	0
#define FENCE_WRITE	1

struct fence_attach {
	uint32_t handle;
	uint32_t flags;
	uint32_t fence;
	uint32_t pad;
};

struct fence_signal {
	uint32_t fence;
	uint32_t flags;
};

#define FENCE_IOC_ATTACH DRM_IOWR(DRM_COMMAND_BASE + 1, struct fence_attach)
#define FENCE_IOC_SIGNAL DRM_IOW(DRM_COMMAND_BASE + 2, struct fence_signal)

static uint32_t __import(struct __test_metadata *_metadata, int card, int dmabuf)
{
	struct drm_prime_handle cmd = { .fd = dmabuf };

	ASSERT_EQ(0, _test_ioctl(card, DRM_IOCTL_PRIME_FD_TO_HANDLE, &cmd));
	return cmd.handle;
}

#define import(card, dmabuf) __import(_metadata, card, dmabuf)

static uint32_t __attach_fence(struct __test_metadata *_metadata, int card,
			       uint32_t handle, uint32_t kind)
{
	struct fence_attach cmd = { .handle = handle, .flags = kind };

	ASSERT_EQ(0, _test_ioctl(card, FENCE_IOC_ATTACH, &cmd));
	return cmd.fence;
}

#define attach_fence(kind) \
	__attach_fence(_metadata, self->card, self->handle, kind)

/* Also asserts that it was not signalled so far. */
#define signal_fence(number) do {					\
	struct fence_signal cmd = { .fence = number };			\
									\
	ASSERT_EQ(0, _test_ioctl(self->card, FENCE_IOC_SIGNAL, &cmd));	\
} while (0)

/* ---- the ways to sync; the flags are VMEMEXP_SYNC_* for each of them ---- */

static int sync_by_dmabuf(int vmemexp, int dmabuf, unsigned int flags)
{
	(void)vmemexp;
	return _test_dmabuf_sync(dmabuf, flags);
}

static int sync_range(int vmemexp, int dmabuf, unsigned int flags)
{
	return _test_sync(vmemexp, dmabuf, flags, 0, SIZE);
}

static int sync_observer(int vmemexp, int dmabuf, unsigned int flags)
{
	return _test_sync(vmemexp, dmabuf, flags | VMEMEXP_SYNC_OBSERVER, 0, SIZE);
}

FIXTURE(fence)
{
	int fd;
	struct test_state before;
	int card;
	unsigned char *source;
	int dmabuf;
	uint32_t handle;
};

FIXTURE_VARIANT(fence)
{
	int (*sync)(int vmemexp, int dmabuf, unsigned int flags);
	bool reaches_devices;
};

FIXTURE_VARIANT_ADD(fence, sync)
{
	.sync = sync_by_dmabuf,
	.reaches_devices = true,
};

FIXTURE_VARIANT_ADD(fence, ranged)
{
	.sync = sync_range,
	.reaches_devices = true,
};

FIXTURE_VARIANT_ADD(fence, observer)
{
	.sync = sync_observer,
};

#define set_up() do {						\
	system("modprobe -q vgem");					\
	self->card = open_vgem();					\
	if (self->card < 0)						\
		SKIP(return, "the kernel has no vgem driver");		\
	close(self->card);						\
									\
	test_setup();							\
	self->card = open_vgem();					\
	ASSERT_LE(0, self->card);					\
	self->source = map_anon(SIZE);					\
	ASSERT_NE(MAP_FAILED, (void *)self->source);			\
	fill(self->source, SIZE, 1);					\
	self->dmabuf = test_export(self->source, SIZE, O_RDWR);		\
	self->handle = import(self->card, self->dmabuf);		\
} while (0)

#define tear_down() do {						\
	close(self->dmabuf);						\
	close(self->card);						\
	munmap(self->source, SIZE);					\
	test_teardown();						\
} while (0)

FIXTURE_SETUP(fence)
{
	set_up();
}

FIXTURE_TEARDOWN(fence)
{
	tear_down();
}

#define do_sync(flags)	variant->sync(self->fd, self->dmabuf, flags)

/* Return true if poll() says that a sync with these flags need not wait. */
static bool is_ready(int dmabuf, unsigned int flags)
{
	short event = flags & VMEMEXP_SYNC_WRITE ? POLLOUT : POLLIN;
	struct pollfd file = { .fd = dmabuf, .events = event };

	return poll(&file, 1, 0) == 1 && file.revents == event;
}

/* ---- a process that waits ---- */

/* In memory that the parent sees. */
static volatile unsigned int *handled;

static void count_signal(int signal)
{
	*handled += signal == SIGUSR1;
}

/*
 * Its exit status is the errno of the sync, or 128 if a signal came in between
 * and the sync succeeded nevertheless.
 */
static void run_sync(int (*sync)(int, int, unsigned int), int vmemexp,
		     int dmabuf, unsigned int flags, int sa_flags)
{
	struct sigaction action = {
		.sa_handler = count_signal,
		.sa_flags = sa_flags,
	};
	int ret;

	sigaction(SIGUSR1, &action, NULL);
	ret = sync(vmemexp, dmabuf, flags);
	_exit(!ret && *handled ? 128 : -ret);
}

/* Only the sync puts the process into a sleep that a signal interrupts. */
#define ASLEEP	"S"

/* Returns the process once it waits in the sync. */
static pid_t __start_waiting(struct __test_metadata *_metadata,
			     int (*sync)(int, int, unsigned int), int vmemexp,
			     int dmabuf, unsigned int flags, int sa_flags)
{
	pid_t pid;

	handled = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)handled);
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid)
		run_sync(sync, vmemexp, dmabuf, flags, sa_flags);
	EXPECT_FALSE(is_ready(dmabuf, flags));
	EXPECT_TRUE(wait_until_asleep(pid, &pid, ASLEEP));
	return pid;
}

#define start_waiting(flags, sa_flags)					\
	__start_waiting(_metadata, variant->sync, self->fd,		\
			self->dmabuf, flags, sa_flags)

#define expect_wait(kind, flags) do {					\
	uint32_t fence = attach_fence(kind);				\
	pid_t pid = start_waiting(flags, 0);				\
									\
	signal_fence(fence);						\
	EXPECT_EQ(0, wait_for_child(pid));				\
	EXPECT_TRUE(is_ready(self->dmabuf, flags));			\
	EXPECT_EQ(0, do_sync(flags));					\
} while (0)

#define expect_no_wait(kind, flags) do {				\
	uint32_t fence = attach_fence(kind);				\
									\
	EXPECT_EQ(0, do_sync(flags));					\
	signal_fence(fence);						\
} while (0)

/* ---- who waits for whom ---- */

TEST_F(fence, start_read_waits_for_a_device_that_writes)
{
	expect_wait(FENCE_WRITE, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
}

TEST_F(fence, start_read_does_not_wait_for_a_device_that_reads)
{
	expect_no_wait(FENCE_READ, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ);
}

TEST_F(fence, poll_for_reading_does_not_wait_for_a_device_that_reads)
{
	uint32_t fence = attach_fence(FENCE_READ);

	EXPECT_TRUE(is_ready(self->dmabuf, VMEMEXP_SYNC_READ));
	signal_fence(fence);
}

TEST_F(fence, start_write_waits_for_a_device_that_writes)
{
	expect_wait(FENCE_WRITE, VMEMEXP_SYNC_START | VMEMEXP_SYNC_WRITE);
	expect_wait(FENCE_WRITE, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW);
}

TEST_F(fence, start_write_waits_for_a_device_that_reads)
{
	expect_wait(FENCE_READ, VMEMEXP_SYNC_START | VMEMEXP_SYNC_WRITE);
	expect_wait(FENCE_READ, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW);
}

TEST_F(fence, end_waits_for_nobody)
{
	for (unsigned int kind = FENCE_READ; kind <= FENCE_WRITE; kind++) {
		expect_no_wait(kind, VMEMEXP_SYNC_END | VMEMEXP_SYNC_READ);
		expect_no_wait(kind, VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE);
		expect_no_wait(kind, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW);
	}
}

/* ---- signals ---- */

TEST_F(fence, signal_interrupts_the_wait)
{
	uint32_t fence = attach_fence(FENCE_WRITE);
	pid_t pid = start_waiting(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 0);

	kill(pid, SIGUSR1);
	EXPECT_EQ(EINTR, wait_for_child(pid));
	signal_fence(fence);
}

TEST_F(fence, wait_goes_on_after_a_signal_that_restarts)
{
	uint32_t fence = attach_fence(FENCE_WRITE);
	pid_t pid = start_waiting(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ,
				  SA_RESTART);

	kill(pid, SIGUSR1);
	EXPECT_SOON(1, *handled);
	EXPECT_TRUE(wait_until_asleep(pid, &pid, ASLEEP));
	signal_fence(fence);
	EXPECT_EQ(128, wait_for_child(pid));
}

TEST_F(fence, process_that_waits_can_be_killed)
{
	uint32_t fence = attach_fence(FENCE_WRITE);
	pid_t pid = start_waiting(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 0);

	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_for_child(pid));
	signal_fence(fence);
}

/* ---- the order of waiting and looking ---- */

/* The device works on a copy, which has to be fetched when it is complete. */
TEST_F(fence, start_shows_what_a_device_wrote_during_the_wait)
{
	unsigned char *data = malloc(SIZE);
	int session, ret;
	uint32_t fence;
	pid_t pid;

	skip_without_importer();
	session = test_importer_open();
	ret = _test_importer_attach(session, self->dmabuf, IMPORTER_DEV_SHADOW);
	if (ret == -EOPNOTSUPP) {
		close(session);
		SKIP(return, "the kernel has no CONFIG_ARCH_HAS_DMA_OPS");
	}
	ASSERT_EQ(0, ret);
	test_importer_map(session, IMPORTER_FROM_DEVICE);

	fence = attach_fence(FENCE_WRITE);
	pid = start_waiting(VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 0);
	fill(data, SIZE, 2);
	test_importer_write(session, 0, data, SIZE);
	EXPECT_EQ(-1, first_difference(self->source, SIZE, 1));
	signal_fence(fence);
	EXPECT_EQ(0, wait_for_child(pid));
	/* An observer's sync leaves devices alone. */
	EXPECT_EQ(-1, first_difference(self->source, SIZE,
				       variant->reaches_devices ? 2 : 1));
	EXPECT_EQ(0, test_importer_info(session).nr_errors);
	close(session);
	free(data);
}

/* ---- a buffer that was taken back ---- */

/* Newer vgems than 6.12's do not map what they import: a device does. */
FIXTURE(revoked)
{
	int fd;
	struct test_state before;
	int card;
	unsigned char *source;
	int dmabuf;
	uint32_t handle;
	int session;
};

FIXTURE_VARIANT(revoked)
{
	uint32_t kind;
};

FIXTURE_VARIANT_ADD(revoked, read)
{
	.kind = FENCE_READ,
};

FIXTURE_VARIANT_ADD(revoked, written)
{
	.kind = FENCE_WRITE,
};

FIXTURE_SETUP(revoked)
{
	skip_without_importer();
	set_up();
	self->session = test_importer_open();
	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
}

FIXTURE_TEARDOWN(revoked)
{
	close(self->session);
	tear_down();
}

static void __let_go(struct __test_metadata *_metadata, int card, uint32_t handle)
{
	struct drm_gem_close cmd = { .handle = handle };

	ASSERT_EQ(0, _test_ioctl(card, DRM_IOCTL_GEM_CLOSE, &cmd));
}

#define let_go() do {							\
	__let_go(_metadata, self->card, self->handle);			\
	close(self->session);						\
	self->session = -1;						\
} while (0)

#define WORK_EVENT	"workqueue/workqueue_execute_start"

static unsigned int works_traced(void)
{
	FILE *trace = fopen(TRACING "/trace", "re");
	unsigned int works = 0;
	char line[256];

	if (!trace)
		return 0;
	while (fgets(line, sizeof(line), trace))
		works += !!strstr(line, "function vmemexp_work ");
	fclose(trace);
	return works;
}

/*
 * Returns when the driver has looked at the fences of the one buffer that is left. It does so
 * again and again: when it begins for the third time, it has done so twice.
 */
static void __wait_for_looks(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, trace_events(WORK_EVENT));
	EXPECT_SOON(true, works_traced() >= 3);
	EXPECT_EQ(0, write_text(TRACING "/events/" WORK_EVENT "/enable", "0"));
}

/* A driver may unmap it before its device has ended: the fence says when it has. */
TEST_F(revoked, memory_is_kept_until_the_fence_of_a_device_that_let_go_is_signalled)
{
	uint32_t fence = attach_fence(variant->kind);
	struct vmemexp_revoke cmd = test_revoke(self->dmabuf);

	EXPECT_LE(1, cmd.mappings);
	let_go();
	__wait_for_looks(_metadata);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	signal_fence(fence);
	EXPECT_SOON(self->before.pins, pinned_pages());
}

TEST_F(revoked, memory_is_kept_until_a_device_lets_go_whose_fence_is_signalled)
{
	uint32_t fence = attach_fence(variant->kind);

	test_revoke(self->dmabuf);
	signal_fence(fence);
	/* This one finds that the fence is signalled. */
	EXPECT_LE(1, test_revoke(self->dmabuf).mappings);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	let_go();
	EXPECT_SOON(self->before.pins, pinned_pages());
}

/* The revoke does not wait for the fence, nor does the close of the last descriptor. */
TEST_F(revoked, buffer_may_be_closed_before_the_fence_is_signalled)
{
	uint32_t fence = attach_fence(variant->kind);

	test_revoke(self->dmabuf);
	let_go();
	close(self->dmabuf);
	self->dmabuf = -1;
	EXPECT_SOON(self->before.pins, pinned_pages());
	signal_fence(fence);
}

/* Since 6.0; the headers of older ones do not have it. */
#ifndef DMA_BUF_IOCTL_IMPORT_SYNC_FILE
struct dma_buf_export_sync_file {
	__u32 flags;
	__s32 fd;
};

struct dma_buf_import_sync_file {
	__u32 flags;
	__s32 fd;
};

#define DMA_BUF_IOCTL_EXPORT_SYNC_FILE _IOWR(DMA_BUF_BASE, 2, struct dma_buf_export_sync_file)
#define DMA_BUF_IOCTL_IMPORT_SYNC_FILE _IOW(DMA_BUF_BASE, 3, struct dma_buf_import_sync_file)
#endif

/* Gives a file of the fences of a dma-buf, or a negative errno. */
static int _test_export_fences(int dmabuf)
{
	struct dma_buf_export_sync_file cmd = { .flags = DMA_BUF_SYNC_RW };
	int ret = _test_ioctl(dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &cmd);

	return ret ?: cmd.fd;
}

static int _test_import_fences(int dmabuf, int file, uint32_t kind)
{
	struct dma_buf_import_sync_file cmd = {
		.flags = kind == FENCE_WRITE ? DMA_BUF_SYNC_WRITE : DMA_BUF_SYNC_READ,
		.fd = file,
	};

	return _test_ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &cmd);
}

/*
 * Each holder of a descriptor can add fences of other devices for ever. A revoke only counts those
 * that are there when it returns.
 */
TEST_F(revoked, memory_is_not_kept_for_fences_that_are_added_when_all_have_let_go)
{
	int other = make_vgem_dmabuf(SIZE), file;
	uint32_t early, late;

	ASSERT_LE(0, other);
	late = __attach_fence(_metadata, self->card, import(self->card, other), variant->kind);
	file = _test_export_fences(other);
	close(other);
	if (file == -ENOTTY)
		SKIP(return, "the kernel has no DMA_BUF_IOCTL_EXPORT_SYNC_FILE");
	ASSERT_LE(0, file);

	early = attach_fence(variant->kind);
	EXPECT_LE(1, test_revoke(self->dmabuf).mappings);
	let_go();
	EXPECT_EQ(0, test_revoke(self->dmabuf).mappings);
	ASSERT_EQ(0, _test_import_fences(self->dmabuf, file, variant->kind));
	close(file);
	/* The early fence still counts. */
	test_revoke(self->dmabuf);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	signal_fence(early);
	EXPECT_SOON(self->before.pins, pinned_pages());
	EXPECT_FALSE(is_ready(self->dmabuf, VMEMEXP_SYNC_RW));
	signal_fence(late);
	EXPECT_TRUE(is_ready(self->dmabuf, VMEMEXP_SYNC_RW));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Messages of the driver: everything is in its tracepoints, and nothing in the kernel log, whatever
 * a user does.
 */
#include "lib/vmemexp_utils.h"

#include <sys/stat.h>

#define PAGES		4
#define SIZE		(PAGES * page_size())

FIXTURE(trace)
{
	int fd;
	struct test_state before;
	unsigned char *source;
};

FIXTURE_SETUP(trace)
{
	test_setup();
	self->source = map_anon(SIZE);
	fill(self->source, SIZE, 1);
}

FIXTURE_TEARDOWN(trace)
{
	munmap(self->source, SIZE);
	test_teardown();
}

TEST_F(trace, has_an_event_for_each_step)
{
	static const char * const expected[] = {
		"vmemexp_export: ino=%lu size=%zu extents=%llu memory=anon access=rw ranges=1",
		"vmemexp_map: ino=%lu ",
		"vmemexp_sync: ino=%lu start read offset=1 length=2 stride=0 rows=0 devices=1",
		"vmemexp_sync: ino=%lu start read|write offset=0 length=%zu stride=0 rows=1 devices=1",
		"vmemexp_sync: ino=%lu end read|write offset=0 length=%zu stride=0 rows=1 devices=1",
		"vmemexp_unmap: ino=%lu ",
		"vmemexp_release: ino=%lu size=%zu dirty=1",
	};
	static char trace[256 * 1024];
	struct vmemexp_export cmd = {
		.size = sizeof(cmd), .vaddr = to_u64(self->source),
		.length = SIZE, .fd_flags = O_RDWR,
	};
	char line[256], *at = trace;
	struct stat st;
	int session;

	skip_without_importer();
	ASSERT_EQ(0, trace_events("vmemexp"));

	test_export_cmd(&cmd);
	ASSERT_EQ(0, fstat(cmd.fd, &st));
	session = test_importer_open();
	test_importer_attach(session, cmd.fd, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	test_sync(cmd.fd, VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ, 1, 2);
	test_dmabuf_sync(cmd.fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
	test_dmabuf_sync(cmd.fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);
	close(session);
	close(cmd.fd);

	ASSERT_EQ(0, write_text(TRACING "/events/vmemexp/enable", "0"));
	ASSERT_LT(0, read_text(TRACING "/trace", trace, sizeof(trace)));

	/* Each of them, in this order. */
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		const char *format = expected[i];

		if (strstr(format, "%llu"))
			snprintf(line, sizeof(line), format, (unsigned long)st.st_ino,
				 SIZE, (unsigned long long)cmd.nr_extents);
		else
			snprintf(line, sizeof(line), format, (unsigned long)st.st_ino, SIZE);
		at = strstr(at, line);
		ASSERT_NE(NULL, at) {
			TH_LOG("no \"%s\" behind the one before in:\n%s", line, trace);
		}
	}
}

/* Root needs no list of carve-outs for what is not System RAM. */
TEST_F(trace, names_the_kind_of_page_frames)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED };
	char line[256], trace[4096];
	unsigned char *addr;
	struct stat st;
	int fd, dmabuf;

	skip_without_carveout();
	fd = _test_carveout_open(&setup);
	ASSERT_LE(0, fd);
	addr = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)addr);
	ASSERT_EQ(0, trace_events("vmemexp/vmemexp_export"));

	dmabuf = test_export(addr, SIZE, O_RDONLY);
	ASSERT_EQ(0, fstat(dmabuf, &st));
	close(dmabuf);
	munmap(addr, SIZE);
	close(fd);

	ASSERT_EQ(0, write_text(TRACING "/events/vmemexp/enable", "0"));
	ASSERT_LT(0, read_text(TRACING "/trace", trace, sizeof(trace)));
	snprintf(line, sizeof(line),
		 "vmemexp_export: ino=%lu size=%zu extents=1 memory=pfnmap access=ro ranges=1",
		 (unsigned long)st.st_ino, SIZE);
	EXPECT_NE(NULL, strstr(trace, line)) {
		TH_LOG("no \"%s\" in:\n%s", line, trace);
	}
}

/* Return true if the kernel's log has a line of the driver that was not read yet. */
static bool driver_logged(int kmsg)
{
	char record[8192];
	bool found = false;
	ssize_t n;

	/* Ends with EAGAIN. */
	while ((n = read(kmsg, record, sizeof(record) - 1)) > 0) {
		record[n] = '\0';
		if (strstr(record, ";vmemexp:"))
			found = true;
	}
	return found;
}

TEST_F(trace, leaves_the_kernel_log_alone)
{
	const uint64_t wrong[] = { 0, 1, to_u64(self->source) + 1, -4096ULL, 1ULL << 63 };
	int kmsg = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	static const char probe[] = "vmemexp: a line that must be found\n";
	int dmabuf;

	ASSERT_LE(0, kmsg);
	ASSERT_EQ(0, lseek(kmsg, 0, SEEK_END));

	dmabuf = test_export(self->source, SIZE, O_RDWR);
	test_query(dmabuf);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct vmemexp_export cmd = {
			.size = sizeof(cmd), .vaddr = wrong[i],
			.length = SIZE, .fd_flags = O_RDWR,
		};

		EXPECT_NE(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
		EXPECT_NE(0, _test_sync(self->fd, wrong[i], 0, wrong[i], 0));
		EXPECT_NE(0, ioctl(self->fd, wrong[i], &cmd));
	}
	close(dmabuf);
	EXPECT_FALSE(driver_logged(kmsg));

	/* It would have been seen; without a newline it would not be complete. */
	ASSERT_EQ((ssize_t)strlen(probe), write(kmsg, probe, strlen(probe)));
	EXPECT_TRUE(driver_logged(kmsg));
	close(kmsg);
}

TEST_HARNESS_MAIN

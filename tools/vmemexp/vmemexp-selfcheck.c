// SPDX-License-Identifier: GPL-2.0
/* vmemexp selfcheck: does the driver do on this machine what it promises? */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmemexp-common.h"

#define NR_PAGES	16

/* State that the checks share. */
static struct {
	long long pinned;	/* KiB, before anything was exported */
	size_t page;
	size_t size;
	struct vmemexp *v;
	unsigned char *memory;	/* what is exported */
	struct vmemexp_buf *buf;
	unsigned char *mapping;	/* of the dma-buf */
} self;

/* Why the check that ran last failed. */
static char why[512];

/* Notes the reason and is false, for checks to return. */
#define fail(...) (snprintf(why, sizeof(why), __VA_ARGS__), false)

static bool fail_errno(const char *what)
{
	return fail("%s: %s (%s)", what, strerror(errno), errno_name(errno));
}

/* A value for each byte that tells pages and places in a page apart. */
static unsigned char pattern(size_t i, unsigned char seed)
{
	return i + i / self.page * 7 + seed;
}

static void fill(unsigned char *bytes, unsigned char seed)
{
	size_t i;

	for (i = 0; i < self.size; i++)
		bytes[i] = pattern(i, seed);
}

static bool is_filled(const unsigned char *bytes, unsigned char seed)
{
	size_t i;

	for (i = 0; i < self.size; i++)
		if (bytes[i] != pattern(i, seed))
			return fail("byte %zu is %#x instead of %#x", i,
				    bytes[i], pattern(i, seed));
	return true;
}

/* An export that must be refused with exactly this errno, reason and address. */
static bool is_refused(const void *memory, size_t length, int err, unsigned int reason,
		       const void *address)
{
	struct vmemexp_error error;
	struct vmemexp_buf *buf;

	if (!vmemexp_export(self.v, memory, length, 0, &buf, &error)) {
		vmemexp_buf_unref(buf);
		return fail("it was exported");
	}
	if (error.err != err || error.reason != reason || error.addr != (uintptr_t)address)
		return fail("expected %s with reason %u at %p, got reason %u at %#llx: %s",
			    errno_name(err), reason, address, error.reason,
			    (unsigned long long)error.addr, error_text(&error));
	return true;
}

static unsigned char *map_pages(void)
{
	unsigned char *pages = mmap(NULL, self.size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED) {
		fail_errno("mmap");
		return NULL;
	}
	return pages;
}

static bool check_open(void)
{
	self.v = open_device();
	if (!self.v)
		return fail("see the message above");
	return true;
}

static bool check_export(void)
{
	struct vmemexp_error error;

	if (posix_memalign((void **)&self.memory, self.page, self.size))
		return fail("out of memory");
	/*
	 * VmPin is to be exact, but the driver charges all of a large folio, which malloc() may
	 * have touched already.
	 */
	madvise(self.memory, self.size, MADV_NOHUGEPAGE);
	madvise(self.memory, self.size, MADV_DONTNEED);
	fill(self.memory, 0);

	if (vmemexp_export(self.v, self.memory, self.size, 0, &self.buf, &error))
		return fail("%s", error_text(&error));
	if (vmemexp_buf_size(self.buf) != self.size || vmemexp_buf_offset(self.buf))
		return fail("the dma-buf has %llu bytes from offset %llu on",
			    (unsigned long long)vmemexp_buf_size(self.buf),
			    (unsigned long long)vmemexp_buf_offset(self.buf));
	return true;
}

static bool check_pinned(void)
{
	long long pinned = status_value("self", "VmPin", 10);
	long long expected = self.pinned + self.size / 1024;

	if (pinned != expected)
		return fail("VmPin is %lld KiB instead of %lld KiB", pinned,
			    expected);
	return true;
}

static bool check_query(void)
{
	struct vmemexp_query query = { .size = sizeof(query) };

	if (vmemexp_buf_query(self.buf, &query))
		return fail_errno("VMEMEXP_IOC_QUERY");
	if (query.dmabuf_size != self.size || query.length != self.size ||
	    query.offset)
		return fail("it has %llu bytes, of which %llu from offset %llu on were exported",
			    (unsigned long long)query.dmabuf_size,
			    (unsigned long long)query.length,
			    (unsigned long long)query.offset);
	if (query.access != (VMEMEXP_ACCESS_READ | VMEMEXP_ACCESS_WRITE))
		return fail("its access bits are %#x", query.access);
	if (query.memory != VMEMEXP_MEMORY_ANON)
		return fail("it was taken for %s memory", memory_names(query.memory));
	if (!query.nr_extents || query.nr_extents > NR_PAGES)
		return fail("it has %llu extents", (unsigned long long)query.nr_extents);
	if (query.cache != VMEMEXP_CACHE_CACHED)
		return fail("its cache attribute is %u", query.cache);
	if (query.state & VMEMEXP_STATE_STALE)
		return fail("it is said to be stale");
	return true;
}

static bool check_read(void)
{
	unsigned char *mapping = mmap(NULL, self.size, PROT_READ | PROT_WRITE,
				MAP_SHARED, vmemexp_buf_fd(self.buf), 0);

	if (mapping == MAP_FAILED)
		return fail_errno("mmap");
	self.mapping = mapping;
	return is_filled(self.mapping, 0);
}

static bool check_write(void)
{
	fill(self.mapping, 1);
	return is_filled(self.memory, 1);
}

static bool check_dma_buf_sync(void)
{
	const int fd = vmemexp_buf_fd(self.buf);

	if (vmemexp_sync(self.v, fd, VMEMEXP_SYNC_START | VMEMEXP_SYNC_RW, NULL))
		return fail_errno("start");
	if (vmemexp_sync(self.v, fd, VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW, NULL))
		return fail_errno("end");
	return is_filled(self.memory, 1);
}

static bool check_ranged_sync(void)
{
	struct vmemexp_area area = {
		.offset = self.page / 2,
		.length = self.page / 4,
		.rows = NR_PAGES,
		.stride = self.page,
	};

	if (vmemexp_begin(self.buf, VMEMEXP_SYNC_RW, &area))
		return fail_errno("start");
	if (vmemexp_end(self.buf))
		return fail_errno("end");

	/* The last row ends one byte behind the dma-buf. */
	area.length = self.page / 2 + 1;
	if (!vmemexp_sync(self.v, vmemexp_buf_fd(self.buf), VMEMEXP_SYNC_END | VMEMEXP_SYNC_RW,
			  &area))
		return fail("a range beyond the end was accepted");
	if (errno != EINVAL)
		return fail_errno("a range beyond the end");
	return is_filled(self.memory, 1);
}

static bool check_read_only_fd(const unsigned char *pages, int fd)
{
	unsigned char *mapping = mmap(NULL, self.size, PROT_READ | PROT_WRITE,
				MAP_SHARED, fd, 0);
	bool ok;

	if (mapping != MAP_FAILED) {
		munmap(mapping, self.size);
		return fail("it can be mapped for writing");
	}
	if (errno != EACCES)
		return fail_errno("mmap for writing");

	mapping = mmap(NULL, self.size, PROT_READ, MAP_SHARED, fd, 0);
	if (mapping == MAP_FAILED)
		return fail_errno("mmap for reading");
	if (!mprotect(mapping, self.size, PROT_READ | PROT_WRITE))
		ok = fail("a mapping of it can be made writable");
	else if (memcmp(mapping, pages, self.size))
		ok = fail("a mapping of it shows other data");
	else
		ok = true;
	munmap(mapping, self.size);
	return ok;
}

static bool check_read_only(void)
{
	unsigned char *pages = map_pages();
	struct vmemexp_error error;
	struct vmemexp_buf *buf;
	bool ok;

	if (!pages)
		return false;
	fill(pages, 2);
	mprotect(pages, self.size, PROT_READ);

	ok = is_refused(pages, self.size, EACCES, VMEMEXP_REASON_NOT_WRITABLE, pages);
	if (ok && vmemexp_export(self.v, pages, self.size, VMEMEXP_RDONLY, &buf, &error)) {
		ok = fail("%s", error_text(&error));
	} else if (ok) {
		ok = check_read_only_fd(pages, vmemexp_buf_fd(buf));
		vmemexp_buf_unref(buf);
	}
	munmap(pages, self.size);
	return ok;
}

static bool check_hole(void)
{
	unsigned char *pages = map_pages();
	unsigned char *hole;
	bool ok;

	if (!pages)
		return false;
	hole = pages + NR_PAGES / 2 * self.page;
	munmap(hole, self.page);
	ok = is_refused(pages, self.size, EFAULT, VMEMEXP_REASON_NOT_MAPPED, hole);
	munmap(pages, self.size);
	return ok;
}

static bool check_alignment(void)
{
	return is_refused(self.memory + 1, self.page, EINVAL, VMEMEXP_REASON_ALIGNMENT,
			  self.memory + 1);
}

static bool check_close(void)
{
	long long pinned;

	munmap(self.mapping, self.size);
	vmemexp_buf_unref(self.buf);
	pinned = status_value("self", "VmPin", 10);
	if (pinned != self.pinned)
		return fail("VmPin is still %lld KiB, it was %lld KiB", pinned,
			    self.pinned);
	return is_filled(self.memory, 1);
}

/* In this order; without a needed one there is nothing to try the rest on. */
static const struct {
	const char *title;
	bool (*run)(void);
	bool needed;
} checks[] = {
	{ "the device can be opened", check_open, true },
	{ "malloc'ed memory can be exported", check_export, true },
	{ "its pages are pinned", check_pinned, false },
	{ "a query describes it", check_query, false },
	{ "a mapping of the dma-buf shows what the program wrote", check_read,
	  true },
	{ "the program sees what is written to that mapping", check_write,
	  false },
	{ "DMA_BUF_IOCTL_SYNC syncs it", check_dma_buf_sync, false },
	{ "VMEMEXP_IOC_SYNC syncs ranges, and none beyond the end",
	  check_ranged_sync, false },
	{ "read-only memory can be exported, for reading only",
	  check_read_only, false },
	{ "a range with a hole is refused with the hole's address",
	  check_hole, false },
	{ "an unaligned range is refused", check_alignment, false },
	{ "no page is pinned after close", check_close, false },
};

static int run_selfcheck(int argc, char **argv)
{
	const unsigned int nr_checks = ARRAY_SIZE(checks);
	unsigned int failed = 0;
	unsigned int i;

	take_no_arguments(&verb_selfcheck, argc, argv);

	self.page = sysconf(_SC_PAGESIZE);
	self.size = NR_PAGES * self.page;
	self.pinned = status_value("self", "VmPin", 10);

	for (i = 0; i < nr_checks; i++) {
		if (checks[i].run()) {
			printf("ok    %s\n", checks[i].title);
			continue;
		}
		failed++;
		printf("FAIL  %s: %s\n", checks[i].title, why);
		if (checks[i].needed)
			break;
	}

	if (failed) {
		printf("%u of %u checks failed, %u not tried\n", failed,
		       nr_checks, i < nr_checks ? nr_checks - i - 1 : 0);
		return EXIT_FAILURE;
	}
	printf("all %u checks passed\n", nr_checks);
	return EXIT_SUCCESS;
}

const struct verb verb_selfcheck = {
	.name = "selfcheck",
	.arguments = "[--help]",
	.help =
	"  Try on this machine what the driver promises: export, mapping, sync and query,\n"
	"  refusal of what must be refused, and that closing releases everything. Prints\n"
	"  a line for each check and fails if one does. Needs no other driver.\n",
	.run = run_selfcheck,
};

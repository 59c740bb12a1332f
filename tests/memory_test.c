// SPDX-License-Identifier: GPL-2.0
/*
 * Every kind of memory that can be exported, and every kind that must not be.
 *
 * Each kind is a variant of the fixture "memory": a make_*() function, here or
 * in vmemexp_memory.h, produces a range of it with known contents. The tests
 * then export it in four ways (read-write and read-only, page aligned and
 * unaligned) and look at the bytes from every side. The fixture "refusal" does
 * the same for what has to fail.
 *
 * Tests need CAP_SYS_ADMIN, for pagemap as for swap, huge pages and mounts.
 */
#include "lib/vmemexp_memory.h"

#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#define KSM		"/sys/kernel/mm/ksm/"
#define TMPFS		"/tmp/vmemexp-tmpfs"

/* Since 6.13: what is touched there is a fault for good. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#endif

/* Each need_x() returns the name of what the kernel lacks for a kind, or NULL. */

static const char *need_swap(void)
{
	return access("/proc/swaps", F_OK) ? "swap" : need_ram_disk();
}

static const char *need_ksm(void)
{
	return access(KSM "run", F_OK) ? "KSM" : NULL;
}

/* Not every architecture has it. */
static int new_memfd_secret(unsigned int flags)
{
#ifdef SYS_memfd_secret
	return syscall(SYS_memfd_secret, flags);
#else
	(void)flags;
	errno = ENOSYS;
	return -1;
#endif
}

static const char *need_secretmem(void)
{
	int fd = new_memfd_secret(0);

	if (fd < 0)
		return "memfd_secret (secretmem.enable=1)";
	close(fd);
	return NULL;
}

/* Without a length, no page is broken by the question. */
static const char *need_poison(void)
{
	return madvise(NULL, 0, MADV_HWPOISON) ? "MADV_HWPOISON (CONFIG_MEMORY_FAILURE)" : NULL;
}

static const char *need_poison_and_thp(void)
{
	return need_poison() ?: need_thp();
}

static const char *need_poison_and_hugetlb(void)
{
	return need_poison() ?: need_hugetlb();
}

static const char *need_guard_pages(void)
{
	return madvise(NULL, 0, MADV_GUARD_INSTALL) ? "guard pages (MADV_GUARD_INSTALL)" : NULL;
}

/* They came for anonymous memory first. */
static const char *need_guard_pages_in_files(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ret = madvise(page, PAGE, MADV_GUARD_INSTALL);

	munmap(page, PAGE);
	return ret ? "guard pages in shared memory (MADV_GUARD_INSTALL)" : NULL;
}

static const char *need_carveout(void)
{
	return access(CARVEOUT_PATH, F_OK) ? "module vmemexp_carveout" : NULL;
}

/* ---- persistent memory: two blocks, that memmap=SIZE!BASE makes of RAM ---- */

#define PMEM_DEVICES	"/sys/bus/nd/devices"
#define PMEM_DRIVERS	"/sys/bus/nd/drivers"
#define DAX		"/dev/dax0.0"
#define PMEM		"/dev/pmem1"
#define DAX_MOUNT	"/tmp/vmemexp-dax"

/* Found and bound a moment after a module was loaded. */
static bool appears(const char *path)
{
	for (int ms = 0; access(path, F_OK) && ms < RELEASE_TIMEOUT_MS; ms += 10)
		sleep_ms(10);
	return !access(path, F_OK);
}

/*
 * Gives block @nr to what the region's file @seed names: a driver of its own, or the
 * one of disks that programs may map.
 */
static bool use_block(unsigned int nr, const char *seed, const char *driver)
{
	const struct {
		const char *file, *text;
	} settings[] = {
		{ "mode", "ram" },
		{ "uuid", nr ? "5c0e5c6c-1111-4222-8333-0123456789ac" :
			       "5c0e5c6c-1111-4222-8333-0123456789ab" },
		{ "align", "2097152" },
	};
	char path[256], block[32], name[64];

	snprintf(block, sizeof(block), "namespace%u.0", nr);
	snprintf(path, sizeof(path), PMEM_DEVICES "/%s/driver", block);
	if (!appears(path) || write_text(PMEM_DRIVERS "/nd_pmem/unbind", block))
		return false;
	snprintf(path, sizeof(path), PMEM_DEVICES "/region%u/%s", nr, seed);
	if (read_text(path, name, sizeof(name)) <= 0)
		return false;
	name[strcspn(name, "\n")] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		snprintf(path, sizeof(path), PMEM_DEVICES "/%s/%s", name, settings[i].file);
		if (write_text(path, settings[i].text))
			return false;
	}
	snprintf(path, sizeof(path), PMEM_DEVICES "/%s/namespace", name);
	if (write_text(path, block))
		return false;
	snprintf(path, sizeof(path), PMEM_DRIVERS "/%s/bind", driver);
	return !write_text(path, name);
}

/* Once used, a block stays what it is for as long as the machine runs. */
static const char *need_dax(void)
{
	run("for m in nd_e820 nd_pmem device_dax dax_pmem; do modprobe -q $m; done");
	if (access(PMEM_DEVICES "/namespace0.0", F_OK))
		return "DAX device (memmap=SIZE!BASE)";
	if (access(DAX, F_OK))
		use_block(0, "dax_seed", "dax_pmem");
	return appears(DAX) ? NULL : "DAX device (dax_pmem)";
}

static const char *need_fsdax(void)
{
	run("for m in nd_e820 nd_pmem ext4; do modprobe -q $m; done");
	if (access(PMEM_DEVICES "/namespace1.0", F_OK))
		return "DAX file system (memmap=SIZE!BASE)";
	/* Without pfn1.0, it is a disk that cannot be mapped. */
	if (access(PMEM_DEVICES "/pfn1.0/driver", F_OK) &&
	    !use_block(1, "pfn_seed", "nd_pmem"))
		return "DAX file system (nd_pmem)";
	return appears(PMEM) ? NULL : "DAX file system (nd_pmem)";
}

/* The range, or a file behind it, has contents already. */
static void __take_contents(struct __test_metadata *_metadata,
			    struct memory *m, const void *contents)
{
	m->expect = malloc(m->size);
	ASSERT_NE(NULL, m->expect);
	memcpy(m->expect, contents, m->size);
}

#define take_contents(m, contents) __take_contents(_metadata, m, contents)

static void unmake(struct memory *m)
{
	unsigned char *mappings[] = {
		m->permanent ? NULL : m->addr, m->alias, m->bystander,
	};

	for (size_t i = 0; i < ARRAY_SIZE(mappings); i++)
		if (mappings[i])
			munmap(mappings[i], m->size);
	if (m->child) {
		kill(m->child, SIGKILL);
		wait_for_child(m->child);
	}
	free(m->original);
	free(m->expect);
}

/* --- anonymous memory --- */

static void make_untouched(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = map(m->size, RW, ANON, -1);
	m->writer = m->addr;
	m->expect = calloc(1, m->size);
}

static void make_swapped(struct __test_metadata *_metadata, struct memory *m)
{
	size_t left = PAGES;
	uint64_t *entries;

	if (!swapping) {
		wait_for_disk(_metadata);
		ASSERT_TRUE(run("mkswap " RAM_DISK " >/dev/null"));
		ASSERT_EQ(0, swapon(RAM_DISK, 0));
		swapping = true;
	}
	make_anon(_metadata, m);
	for (int ms = 0; left && ms < RELEASE_TIMEOUT_MS; ms += 20) {
		ASSERT_EQ(0, madvise(m->addr, m->size, MADV_PAGEOUT));
		entries = read_pagemap(m->addr, m->size);
		left = 0;
		for (size_t i = 0; i < PAGES; i++)
			left += !(entries[i] & PAGEMAP_SWAPPED);
		free(entries);
		/* Some may wait in another CPU's list, which this empties. */
		if (left) {
			ASSERT_TRUE(run("echo 1 >/proc/sys/vm/compact_memory"));
			sleep_ms(20);
		}
	}
	ASSERT_EQ(0, left);
}

static void make_ksm(struct __test_metadata *_metadata, struct memory *m)
{
	uint64_t *ours, *theirs, left = 1;

	make_anon(_metadata, m);
	m->bystander = map(m->size, RW, ANON, -1);
	memcpy(m->bystander, m->addr, m->size);
	m->original = malloc(m->size);
	memcpy(m->original, m->addr, m->size);
	ASSERT_EQ(0, madvise(m->addr, m->size, MADV_MERGEABLE));
	ASSERT_EQ(0, madvise(m->bystander, m->size, MADV_MERGEABLE));
	ASSERT_EQ(0, set_knob(KSM "pages_to_scan", "1000"));
	ASSERT_EQ(0, set_knob(KSM "sleep_millisecs", "10"));
	ASSERT_EQ(0, set_knob(KSM "run", "1"));
	for (int ms = 0; left && ms < RELEASE_TIMEOUT_MS; ms += 20) {
		sleep_ms(20);
		ours = read_pagemap(m->addr, m->size);
		theirs = read_pagemap(m->bystander, m->size);
		left = 0;
		for (size_t i = 0; i < PAGES; i++)
			left |= (ours[i] ^ theirs[i]) & PAGEMAP_PFN;
		free(ours);
		free(theirs);
	}
	ASSERT_EQ(0, left);
	/* It must not merge again what the export takes apart. */
	ASSERT_EQ(0, set_knob(KSM "run", "0"));
}

static void make_forked(struct __test_metadata *_metadata, struct memory *m)
{
	make_anon(_metadata, m);
	/* The child's pages are the parent's, copy on write. */
	m->child = fork_child();
	if (!m->child) {
		for (;;)
			pause();
	}
	ASSERT_LT(0, m->child);
}

static void make_mprotected(struct __test_metadata *_metadata, struct memory *m)
{
	make_anon(_metadata, m);
	ASSERT_EQ(0, mprotect(m->addr, m->size, PROT_READ));
	m->writer = NULL;
}

/* A part of the stack that no function uses now. */
static void make_stack(struct __test_metadata *_metadata, struct memory *m)
{
	unsigned char here, *low;

	low = (unsigned char *)((uintptr_t)&here & ~(PAGE - 1)) - (256 << 10);
	/* It grows by faults, not too far below the stack pointer. */
	for (unsigned char *p = &here; p > low - PAGE; p -= PAGE)
		*(volatile unsigned char *)p = *(volatile unsigned char *)p;
	m->addr = low;
	m->permanent = true;
	write_contents(m, 1);
}

static _Alignas(PAGE) unsigned char data_segment[SMALL] = { 1 };
static _Alignas(PAGE) unsigned char bss_segment[SMALL];
static _Alignas(PAGE) const unsigned char rodata_segment[SMALL] = {
	1, [SMALL - 1] = 2,
};

static void make_data_segment(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = data_segment;
	m->permanent = true;
	write_contents(m, 1);
}

static void make_bss_segment(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = bss_segment;
	m->permanent = true;
	write_contents(m, 1);
}

static void make_rodata_segment(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = (unsigned char *)rodata_segment;
	m->permanent = true;
	take_contents(m, m->addr);
}

/* The code of this program, which is a good deal larger. */
static void make_text_segment(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = (unsigned char *)((uintptr_t)make_text_segment & ~(PAGE - 1));
	m->permanent = true;
	take_contents(m, m->addr);
}

static int open_zero(struct __test_metadata *_metadata)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, fd);
	return fd;
}

static void make_zero_private(struct __test_metadata *_metadata,
			      struct memory *m)
{
	int fd = open_zero(_metadata);

	m->addr = map(m->size, RW, MAP_PRIVATE, fd);
	close(fd);
	write_contents(m, 1);
}

/* --- shared memory --- */

static void make_zero_shared(struct __test_metadata *_metadata,
			     struct memory *m)
{
	int fd = open_zero(_metadata);

	m->addr = map(m->size, RW, MAP_SHARED, fd);
	close(fd);
	write_contents(m, 1);
}

static void make_sysv_shm(struct __test_metadata *_metadata, struct memory *m)
{
	int id = shmget(IPC_PRIVATE, m->size, 0600);

	ASSERT_LE(0, id);
	m->addr = shmat(id, NULL, 0);
	m->alias = shmat(id, NULL, 0);
	ASSERT_EQ(0, shmctl(id, IPC_RMID, NULL));
	write_contents(m, 1);
}

/* The mapping can be read only; its file is written through another one. */
static void share_read_only(struct __test_metadata *_metadata, struct memory *m,
			    unsigned int seals)
{
	int fd = memfd(m->size, MFD_ALLOW_SEALING);

	share(_metadata, m, dup(fd));
	ASSERT_EQ(0, munmap(m->addr, m->size));
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, seals));
	m->addr = map(m->size, PROT_READ, MAP_SHARED, fd);
	m->writer = m->alias;
	close(fd);
}

static void make_memfd_read_only(struct __test_metadata *_metadata,
				 struct memory *m)
{
	share_read_only(_metadata, m, 0);
}

static void make_memfd_sealed(struct __test_metadata *_metadata,
			      struct memory *m)
{
	share_read_only(_metadata, m,
			F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
}

/* --- huge pages --- */

static void make_hugetlb_untouched(struct __test_metadata *_metadata,
				   struct memory *m)
{
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "8"));
	m->addr = map(m->size, RW, ANON | MAP_HUGETLB, -1);
	m->writer = m->addr;
	m->expect = calloc(1, m->size);
}

/* --- files --- */

static void make_file_never_written(struct __test_metadata *_metadata,
				    struct memory *m)
{
	map_file(_metadata, m, RW);
	take_contents(m, m->original);
	m->writer = m->addr;
	/* Some pages are in the page tables, others are not. */
	EXPECT_EQ(m->expect[PAGE], *(volatile unsigned char *)(m->addr + PAGE));
}

static void make_file_read_only(struct __test_metadata *_metadata,
				struct memory *m)
{
	map_file(_metadata, m, PROT_READ);
	take_contents(m, m->original);
}

/* --- others --- */

static void make_two_kinds(struct __test_metadata *_metadata, struct memory *m)
{
	size_t half = m->size / 2 / PAGE * PAGE;
	int fd = memfd(half, 0);

	m->addr = map(m->size, RW, ANON, -1);
	ASSERT_EQ(m->addr, mmap(m->addr, half, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	close(fd);
	write_contents(m, 1);
}

/* It has struct pages, and is not System RAM. */
static void make_dax(struct __test_metadata *_metadata, struct memory *m)
{
	int fd = open(DAX, O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, fd);
	/* It maps nothing smaller. */
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
	m->addr = map_huge_pages(m->size, HUGE_PAGE, RW, MAP_SHARED, fd);
	ASSERT_NE(MAP_FAILED, (void *)m->addr);
	m->alias = map_huge_pages(m->size, HUGE_PAGE, RW, MAP_SHARED, fd);
	ASSERT_NE(MAP_FAILED, (void *)m->alias);
	close(fd);
	write_contents(m, 1);
}

/* --- the kinds --- */

FIXTURE(memory)
{
	int fd;
	struct test_state before;
	size_t size;
};

FIXTURE_VARIANT(memory)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	size_t size;		/* SMALL if it is 0 */
	unsigned int memory;	/* VMEMEXP_MEMORY_*, ANON if it is 0 */
	bool scattered;		/* surely more than one extent */
	size_t extent;		/* sizes of extents are multiples of this */
	/* errno with O_RDWR; 0 if that works. */
	int rdwr_errno;
	unsigned int rdwr_reason;
};

#define READ_ONLY_MAPPING	\
	.rdwr_errno = EACCES, .rdwr_reason = VMEMEXP_REASON_NOT_WRITABLE

FIXTURE_VARIANT_ADD(memory, anon) {
	.make = make_anon, .scattered = true,
};

FIXTURE_VARIANT_ADD(memory, untouched) {
	.make = make_untouched,
};

FIXTURE_VARIANT_ADD(memory, thp) {
	.make = make_thp, .missing = need_thp, .size = 2 * HUGE_PAGE,
	.extent = HUGE_PAGE,
};

FIXTURE_VARIANT_ADD(memory, swapped) {
	.make = make_swapped, .missing = need_swap,
};

FIXTURE_VARIANT_ADD(memory, ksm) {
	.make = make_ksm, .missing = need_ksm,
};

FIXTURE_VARIANT_ADD(memory, forked) {
	.make = make_forked,
};

FIXTURE_VARIANT_ADD(memory, mprotected) {
	.make = make_mprotected, .scattered = true, READ_ONLY_MAPPING,
};

FIXTURE_VARIANT_ADD(memory, stack) {
	.make = make_stack,
};

FIXTURE_VARIANT_ADD(memory, data_segment) {
	.make = make_data_segment,
};

FIXTURE_VARIANT_ADD(memory, bss_segment) {
	.make = make_bss_segment,
};

FIXTURE_VARIANT_ADD(memory, rodata_segment) {
	.make = make_rodata_segment, READ_ONLY_MAPPING,
};

FIXTURE_VARIANT_ADD(memory, text_segment) {
	.make = make_text_segment, READ_ONLY_MAPPING,
};

FIXTURE_VARIANT_ADD(memory, zero_private) {
	.make = make_zero_private,
};

FIXTURE_VARIANT_ADD(memory, zero_shared) {
	.make = make_zero_shared, .memory = VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, shared_anon) {
	.make = make_shared_anon, .memory = VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, memfd) {
	.make = make_memfd, .memory = VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, posix_shm) {
	.make = make_posix_shm, .memory = VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, sysv_shm) {
	.make = make_sysv_shm, .memory = VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, memfd_read_only) {
	.make = make_memfd_read_only, .memory = VMEMEXP_MEMORY_SHMEM,
	READ_ONLY_MAPPING,
};

FIXTURE_VARIANT_ADD(memory, memfd_sealed) {
	.make = make_memfd_sealed, .memory = VMEMEXP_MEMORY_SHMEM,
	READ_ONLY_MAPPING,
};

FIXTURE_VARIANT_ADD(memory, hugetlb) {
	.make = make_hugetlb, .missing = need_hugetlb, .size = 2 * HUGE_PAGE,
	.extent = HUGE_PAGE, .memory = VMEMEXP_MEMORY_HUGETLB,
};

FIXTURE_VARIANT_ADD(memory, hugetlb_untouched) {
	.make = make_hugetlb_untouched, .missing = need_hugetlb,
	.size = HUGE_PAGE, .extent = HUGE_PAGE, .memory = VMEMEXP_MEMORY_HUGETLB,
};

FIXTURE_VARIANT_ADD(memory, hugetlb_memfd) {
	.make = make_hugetlb_memfd, .missing = need_hugetlb,
	.size = 2 * HUGE_PAGE, .extent = HUGE_PAGE,
	.memory = VMEMEXP_MEMORY_HUGETLB,
};

FIXTURE_VARIANT_ADD(memory, file_written) {
	.make = make_file_written, .missing = need_ext4,
};

FIXTURE_VARIANT_ADD(memory, file_never_written) {
	.make = make_file_never_written, .missing = need_ext4,
};

FIXTURE_VARIANT_ADD(memory, file_read_only) {
	.make = make_file_read_only, .missing = need_ext4, READ_ONLY_MAPPING,
};

FIXTURE_VARIANT_ADD(memory, file_shared) {
	.make = make_file_shared, .missing = need_ext4,
	.memory = VMEMEXP_MEMORY_FILE, .rdwr_errno = EPERM,
	.rdwr_reason = VMEMEXP_REASON_KIND,
};

FIXTURE_VARIANT_ADD(memory, two_kinds) {
	.make = make_two_kinds,
	.memory = VMEMEXP_MEMORY_ANON | VMEMEXP_MEMORY_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, driver) {
	.make = make_driver, .missing = need_packet,
	.memory = VMEMEXP_MEMORY_DRIVER,
};

FIXTURE_VARIANT_ADD(memory, dax) {
	.make = make_dax, .missing = need_dax, .size = HUGE_PAGE,
	.memory = VMEMEXP_MEMORY_DRIVER,
};

FIXTURE_SETUP(memory)
{
	const char *missing = variant->missing ? variant->missing() : NULL;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	ASSERT_EQ(PAGE, page_size());
	/* Small kinds are to be made of small pages. */
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	self->size = variant->size ?: SMALL;
	test_setup();
}

FIXTURE_TEARDOWN(memory)
{
	test_teardown();
	restore_system();
}

/* --- four ways to export it --- */

static const struct way {
	const char *name;
	unsigned int fd_flags;
	unsigned int flags;
} ways[] = {
	{ "read-write", O_RDWR, 0 },
	{ "read-write, unaligned", O_RDWR, VMEMEXP_EXPORT_UNALIGNED },
	{ "read-only", O_RDONLY, 0 },
	{ "read-only, unaligned", O_RDONLY, VMEMEXP_EXPORT_UNALIGNED },
};

/* An export of fresh memory of the variant's kind. */
struct exported {
	struct vmemexp_export cmd;
	struct memory m;
	const struct way *way;
	bool writable;
};

static struct vmemexp_export way_args(const struct way *way,
				      const struct memory *m)
{
	struct vmemexp_export cmd = export_args(m->addr, m->size, way->fd_flags);

	cmd.flags = way->flags;
	if (way->flags & VMEMEXP_EXPORT_UNALIGNED) {
		cmd.vaddr += CUT_FRONT;
		cmd.length -= CUT_FRONT + CUT_BACK;
	}
	return cmd;
}

static struct exported
__begin(struct __test_metadata *_metadata, int fd, size_t size,
	void (*make)(struct __test_metadata *_metadata, struct memory *m),
	const struct way *way)
{
	struct exported e = {
		.way = way,
		.writable = way->fd_flags == O_RDWR,
	};

	e.m.size = size;
	make(_metadata, &e.m);
	e.cmd = way_args(way, &e.m);
	__test_export(_metadata, fd, &e.cmd);
	return e;
}

#define begin(way) \
	__begin(_metadata, self->fd, self->size, variant->make, way)

/* The bytes of others must not have changed. */
static void __end(struct __test_metadata *_metadata, struct exported *e)
{
	EXPECT_EQ(0, e->m.bystander ?
		     memcmp(e->m.original, e->m.bystander, e->m.size) : 0);
	EXPECT_EQ(0, close(e->cmd.fd));
	unmake(&e->m);
	if (_metadata->exit_code)
		TH_LOG("seen with an export that was %s", e->way->name);
}

#define end(e) __end(_metadata, e)

/* The first two are for writing. */
#define for_each_way()							\
	for (const struct way *way = ways + (variant->rdwr_errno ? 2 : 0); \
	     way < ways + ARRAY_SIZE(ways); way++)

/* --- the same bytes, seen from every side --- */

TEST_F(memory, is_the_very_same_bytes_in_a_mapping_of_the_dmabuf)
{
	for_each_way() {
		struct exported e = begin(way);
		int prot = PROT_READ | (e.writable ? PROT_WRITE : 0);
		unsigned char *whole, *part;

		whole = map(e.m.size, prot, MAP_SHARED, e.cmd.fd);
		part = mmap(NULL, PART_SIZE, prot, MAP_SHARED, e.cmd.fd, PART_START);
		ASSERT_NE(MAP_FAILED, (void *)part);

		test_dmabuf_sync(e.cmd.fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
		EXPECT_SAME(e.m.expect, whole, e.m.size);
		EXPECT_SAME(e.m.expect + PART_START, part, PART_SIZE);
		EXPECT_SAME(e.m.expect + CUT_FRONT, whole +
			    (e.cmd.flags ? e.cmd.offset : CUT_FRONT), PAGE);
		if (e.m.writer) {
			memcpy(e.m.writer, change(&e.m, 2), e.m.size);
			EXPECT_SAME(e.m.expect, whole, e.m.size);
			EXPECT_SAME(e.m.expect + PART_START, part, PART_SIZE);
		}
		test_dmabuf_sync(e.cmd.fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);

		if (e.writable) {
			test_dmabuf_sync(e.cmd.fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
			memcpy(whole, change(&e.m, 3), e.m.size);
			memcpy(part, change_part(&e.m, 4), PART_SIZE);
			test_dmabuf_sync(e.cmd.fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);
		}
		EXPECT_IN_SOURCE(&e.m);

		munmap(whole, e.m.size);
		munmap(part, PART_SIZE);
		end(&e);
	}
}

TEST_F(memory, is_the_very_same_bytes_in_a_kernel_mapping)
{
	for_each_way() {
		struct exported e = begin(way);
		unsigned char *seen = malloc(e.m.size);
		int session = test_importer_open();

		test_importer_attach(session, e.cmd.fd, IMPORTER_DEV_COHERENT);
		if (e.writable) {
			test_importer_vmap(session);
			test_importer_vread(session, 0, seen, e.m.size);
			EXPECT_SAME(e.m.expect, seen, e.m.size);
			test_importer_vread(session, PART_START, seen, PART_SIZE);
			EXPECT_SAME(e.m.expect + PART_START, seen, PART_SIZE);
			test_importer_vwrite(session, 0, change(&e.m, 2), e.m.size);
			EXPECT_IN_SOURCE(&e.m);
			test_importer_vwrite(session, PART_START,
					     change_part(&e.m, 3), PART_SIZE);
			EXPECT_IN_SOURCE(&e.m);
			memcpy(e.m.writer, change(&e.m, 4), e.m.size);
			test_importer_vread(session, 0, seen, e.m.size);
			EXPECT_SAME(e.m.expect, seen, e.m.size);
			test_importer_vunmap(session);
		} else {
			/* A kernel mapping cannot be read-only. */
			EXPECT_EQ(-vmap_refused(), _test_ioctl(session, IMPORTER_IOC_VMAP, NULL));
		}
		close(session);
		free(seen);
		end(&e);
	}
}

static void check_device(struct __test_metadata *_metadata,
			 struct exported *e, unsigned int device)
{
	unsigned char *seen = malloc(e->m.size);
	int session = test_importer_open();

	test_importer_attach(session, e->cmd.fd, device);

	test_importer_map(session, IMPORTER_TO_DEVICE);
	test_importer_read(session, 0, seen, e->m.size);
	EXPECT_SAME(e->m.expect, seen, e->m.size);
	EXPECT_EQ(e->m.size, test_importer_info(session).dma_size);
	test_importer_unmap(session);
	EXPECT_IN_SOURCE(&e->m);

	if (e->m.writer) {
		memcpy(e->m.writer, change(&e->m, 2), e->m.size);
		test_importer_map(session, IMPORTER_TO_DEVICE);
		test_importer_read(session, 0, seen, e->m.size);
		EXPECT_SAME(e->m.expect, seen, e->m.size);
		test_importer_unmap(session);
	}
	if (e->writable) {
		test_importer_map(session, IMPORTER_FROM_DEVICE);
		test_importer_write(session, 0, change(&e->m, 3), e->m.size);
		test_importer_unmap(session);
		EXPECT_IN_SOURCE(&e->m);

		test_importer_map(session, IMPORTER_BIDIRECTIONAL);
		test_importer_read(session, 0, seen, e->m.size);
		EXPECT_SAME(e->m.expect, seen, e->m.size);
		test_importer_write(session, PART_START,
				    change_part(&e->m, 4), PART_SIZE);
		test_importer_unmap(session);
		EXPECT_IN_SOURCE(&e->m);
	}
	EXPECT_EQ(0, test_importer_info(session).nr_errors);
	close(session);
	free(seen);
}

/* One that sees all memory, and one behind a cache that must be looked after. */
TEST_F(memory, is_the_very_same_bytes_for_a_device)
{
	for_each_way() {
		struct exported e = begin(way);

		check_device(_metadata, &e, IMPORTER_DEV_COHERENT);
		check_device(_metadata, &e, IMPORTER_DEV_SHADOW);
		end(&e);
	}
}

/* --- what is said about it --- */

TEST_F(memory, is_described_as_it_is)
{
	for_each_way() {
		struct exported e = begin(way);
		struct vmemexp_query query = test_query(e.cmd.fd);
		struct extents extents = physical_extents(e.m.addr, e.m.size);

		EXPECT_EQ(variant->memory ?: VMEMEXP_MEMORY_ANON, e.cmd.memory);
		EXPECT_EQ(e.m.size, e.cmd.dmabuf_size);
		EXPECT_EQ(way->flags ? CUT_FRONT : 0, e.cmd.offset);
		EXPECT_EQ(extents.nr, e.cmd.nr_extents);

		EXPECT_EQ(VMEMEXP_ACCESS_READ |
			  (e.writable ? VMEMEXP_ACCESS_WRITE : 0), query.access);
		EXPECT_EQ(e.cmd.dmabuf_size, query.dmabuf_size);
		EXPECT_EQ(e.cmd.offset, query.offset);
		EXPECT_EQ(e.cmd.length, query.length);
		EXPECT_EQ(e.cmd.memory, query.memory);
		EXPECT_EQ(VMEMEXP_CACHE_CACHED, query.cache);
		EXPECT_EQ(extents.nr, query.nr_extents);
		EXPECT_EQ(extents.min, query.min_extent);
		EXPECT_EQ(extents.max, query.max_extent);
		EXPECT_EQ(extents.address_bits, query.address_bits);
		EXPECT_EQ(0, query.attachments);
		EXPECT_EQ(0, query.mappings);
		EXPECT_EQ(0, query.vmaps);
		EXPECT_EQ(0, query.cpu_mappings);
		/* No page is there twice, and a kernel mapping cannot be read-only. */
		EXPECT_EQ(VMEMEXP_STATE_TRACKED | (e.writable ? 0 : VMEMEXP_STATE_NO_VMAP),
			  query.state);
		EXPECT_EQ(query.state, e.cmd.state);

		EXPECT_EQ((off_t)e.m.size, lseek(e.cmd.fd, 0, SEEK_END));
		if (variant->extent) {
			EXPECT_EQ(0, query.min_extent % variant->extent);
			EXPECT_EQ(0, query.max_extent % variant->extent);
		}
		end(&e);
	}
}

/* The export brings the pages in, so their places are not known before. */
static void try_contiguous(struct __test_metadata *_metadata, int fd,
			   struct vmemexp_export *cmd)
{
	int ret = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, cmd);

	if (!ret) {
		EXPECT_EQ(1, cmd->nr_extents);
		close(cmd->fd);
		return;
	}
	EXPECT_EQ(-ERANGE, ret);
	EXPECT_EQ(VMEMEXP_REASON_NOT_CONTIGUOUS, cmd->err_reason);
	EXPECT_LT(cmd->vaddr, cmd->err_addr);
	EXPECT_GT(cmd->vaddr + cmd->length, cmd->err_addr);
	EXPECT_EQ(0, cmd->err_addr % PAGE);
}

TEST_F(memory, is_contiguous_or_the_error_says_where_not)
{
	/* Before 6c287605fd56 (v5.19) an export copies what is pinned and read-only. */
	bool moves = !kernel_at_least(5, 19) && variant->rdwr_errno && !variant->memory;

	for_each_way() {
		struct exported e = begin(way);
		struct extents extents = physical_extents(e.m.addr, e.m.size);
		struct vmemexp_export cmd = way_args(way, &e.m);
		unsigned char *first_page = e.m.addr;

		/* The first export keeps the pages where they are. */
		cmd.flags |= VMEMEXP_EXPORT_CONTIGUOUS;
		ASSERT_LT(variant->scattered ? 1 : 0, extents.nr);
		if (moves) {
			try_contiguous(_metadata, self->fd, &cmd);
		} else if (extents.nr == 1) {
			close(test_export_cmd(&cmd));
			EXPECT_EQ(1, cmd.nr_extents);
		} else {
			test_err_export_cmd(ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS,
					    to_u64(first_page + extents.second), &cmd);
		}

		/* A huge page is one extent in any case, and so is a small one. */
		cmd = export_args(first_page, variant->extent ?: PAGE, way->fd_flags);
		cmd.flags = VMEMEXP_EXPORT_CONTIGUOUS;
		close(test_export_cmd(&cmd));
		EXPECT_EQ(1, cmd.nr_extents);
		end(&e);
	}
}

/* --- read-only dma-bufs --- */

#define EXPECT_MMAP_ERR(error, size, prot, flags, fd, offset) do {	\
	EXPECT_EQ(MAP_FAILED, mmap64(NULL, size, prot, flags, fd, offset)); \
	EXPECT_EQ(error, errno);					\
} while (0)

/* No write access by mapping @fd, which may be an importer's. */
static void check_read_only_mapping(struct __test_metadata *_metadata, int fd,
				    const struct memory *m)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	unsigned char *seen, byte = ~m->expect[0];

	EXPECT_MMAP_ERR(EACCES, m->size, RW, MAP_SHARED, fd, 0);
	EXPECT_MMAP_ERR(EACCES, m->size, PROT_WRITE, MAP_SHARED, fd, 0);
	seen = map(m->size, PROT_READ, MAP_SHARED, fd);
	EXPECT_EQ(-1, mprotect(seen, m->size, RW));
	EXPECT_EQ(EACCES, errno);
	/* As a debugger does, who may write to any private mapping. */
	EXPECT_EQ(-1, pwrite64(mem, &byte, 1, to_u64(seen)));
	EXPECT_SAME(m->expect, seen, m->size);
	munmap(seen, m->size);
	close(mem);
}

static void check_read_only_device(struct __test_metadata *_metadata, int dmabuf,
				   const struct memory *m)
{
	struct importer_attach dynamic = {
		.dmabuf_fd = dmabuf,
		.device = IMPORTER_DEV_COHERENT,
		.flags = IMPORTER_ATTACH_DYNAMIC,
	};
	unsigned char *seen = malloc(m->size);
	int session = test_importer_open();
	int ret;

	/* For a dynamic importer, kernels up to 6.12 map it in both directions. */
	ret = _test_ioctl(session, IMPORTER_IOC_ATTACH, &dynamic);
	if (!ret) {
		ret = _test_importer_map(session, IMPORTER_BIDIRECTIONAL);
		test_importer_detach(session);
	}
	EXPECT_EQ(-EACCES, ret);

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	EXPECT_EQ(-EACCES, _test_importer_map(session, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(-EACCES, _test_importer_map(session, IMPORTER_FROM_DEVICE));
	EXPECT_EQ(-vmap_refused(), _test_ioctl(session, IMPORTER_IOC_VMAP, NULL));
	test_importer_map(session, IMPORTER_TO_DEVICE);
	test_importer_read(session, 0, seen, m->size);
	EXPECT_SAME(m->expect, seen, m->size);
	check_read_only_mapping(_metadata, session, m);
	close(session);
	free(seen);
}

TEST_F(memory, cannot_be_written_through_a_read_only_dmabuf)
{
	for_each_way() {
		struct exported e;
		char path[64];
		int again;

		if (way->fd_flags == O_RDWR)
			continue;
		e = begin(way);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", e.cmd.fd);

		check_read_only_mapping(_metadata, e.cmd.fd, &e.m);
		check_read_only_device(_metadata, e.cmd.fd, &e.m);

		/* The file's mode cannot be changed, nor the file opened anew. */
		EXPECT_EQ(O_RDONLY, fcntl(e.cmd.fd, F_GETFL) & O_ACCMODE);
		fcntl(e.cmd.fd, F_SETFL, O_RDWR);
		EXPECT_EQ(O_RDONLY, fcntl(e.cmd.fd, F_GETFL) & O_ACCMODE);
		EXPECT_MMAP_ERR(EACCES, e.m.size, RW, MAP_SHARED, e.cmd.fd, 0);
		again = open(path, O_RDWR | O_CLOEXEC);
		EXPECT_EQ(-1, again);
		EXPECT_EQ(-1, write(e.cmd.fd, "x", 1));
		EXPECT_IN_SOURCE(&e.m);
		end(&e);
	}
}

TEST_F(memory, is_exported_for_writing_only_if_that_is_allowed)
{
	struct memory m = { .size = self->size };

	variant->make(_metadata, &m);
	for (const struct way *way = ways; way < ways + ARRAY_SIZE(ways); way++) {
		struct vmemexp_export cmd = way_args(way, &m);

		if (variant->rdwr_errno && way->fd_flags == O_RDWR)
			test_err_export_cmd(variant->rdwr_errno, variant->rdwr_reason,
					    to_u64(m.addr), &cmd);
		else
			close(test_export_cmd(&cmd));
	}
}

/* --- what cannot be exported --- */

/* A range that cannot be exported, filled in by make_*(). */
struct refusal {
	int fd;			/* in: the driver's */
	unsigned char *addr;
	size_t size;
	size_t bad;		/* offset that err_addr is expected to name */
	bool read_only_works;	/* on this kernel, if not by the variant */
	bool works;		/* on this kernel, also for writing */
	int file;		/* behind it, or 0; closed by the test */
	bool hole;		/* it has no contents, and is to get none */
	blkcnt_t blocks;	/* that it has all the same */
};

FIXTURE(refusal)
{
	int fd;
	struct test_state before;
};

/* PAGES pages, one of which is to be replaced by something bad. */
static void make_good(struct __test_metadata *_metadata, struct refusal *r)
{
	r->size = SMALL;
	r->bad = 8 * PAGE;
	r->addr = map(r->size, RW, ANON, -1);
	fill(r->addr, r->size, 1);
}

/* Maps one page of @fd over the one that is to be bad, and closes @fd. */
static void put_bad_page(struct __test_metadata *_metadata, struct refusal *r,
			 int fd)
{
	make_good(_metadata, r);
	ASSERT_EQ(r->addr + r->bad, mmap(r->addr + r->bad, PAGE, RW,
					 MAP_SHARED | MAP_FIXED, fd, 0));
	close(fd);
}

/* Maps PAGES pages of @fd, which is not that long, and closes it. */
static void map_too_much(struct __test_metadata *_metadata, struct refusal *r,
			 int flags, int fd)
{
	r->size = SMALL;
	r->bad = 8 * PAGE;
	r->addr = map(r->size, RW, flags, fd);
	close(fd);
}

static void make_hole(struct __test_metadata *_metadata, struct refusal *r)
{
	make_good(_metadata, r);
	ASSERT_EQ(0, munmap(r->addr + r->bad, PAGE));
}

static void make_prot_none(struct __test_metadata *_metadata, struct refusal *r)
{
	make_good(_metadata, r);
	ASSERT_EQ(0, mprotect(r->addr + r->bad, PAGE, PROT_NONE));
}

static void make_write_only(struct __test_metadata *_metadata,
			    struct refusal *r)
{
	make_good(_metadata, r);
	ASSERT_EQ(0, mprotect(r->addr + r->bad, PAGE, PROT_WRITE));
}

static void make_part_read_only(struct __test_metadata *_metadata,
				struct refusal *r)
{
	make_good(_metadata, r);
	ASSERT_EQ(0, mprotect(r->addr + r->bad, PAGE, PROT_READ));
}

/* The page below a mapping that a fault there would make grow. */
static void make_below_growing(struct __test_metadata *_metadata,
			       struct refusal *r)
{
	const size_t room = 512 * PAGE;
	unsigned char *low = map(room, PROT_NONE, ANON, -1);

	ASSERT_EQ(0, munmap(low, room));
	r->size = SMALL;
	r->addr = mmap(low + room - SMALL, SMALL, RW,
		       ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)r->addr);
	fill(r->addr, SMALL, 1);
	r->addr -= PAGE;
}

/* The last page of the file is only partly in it, and can be exported. */
static void make_beyond_memfd(struct __test_metadata *_metadata,
			      struct refusal *r)
{
	map_too_much(_metadata, r, MAP_SHARED, memfd(8 * PAGE - 100, 0));
}

/* Page indices of these files count base pages for some and huge ones for others. */
static void make_beyond_hugetlb_memfd(struct __test_metadata *_metadata,
				      struct refusal *r)
{
	int fd;

	ASSERT_EQ(0, set_knob(HUGE_PAGES, "8"));
	fd = memfd(2 * HUGE_PAGE, MFD_HUGETLB);
	r->size = 2 * HUGE_PAGE;
	r->bad = HUGE_PAGE;
	r->addr = map(r->size, RW, MAP_SHARED, fd);
	ASSERT_EQ(0, ftruncate(fd, HUGE_PAGE));
	close(fd);
}

static void make_beyond_private_file(struct __test_metadata *_metadata,
				     struct refusal *r)
{
	map_too_much(_metadata, r, MAP_PRIVATE, ext4_file(8 * PAGE - 100));
}

/*
 * A file of PAGES pages, none of which is there yet, in a tmpfs that has room for
 * @room more pages. A program that touches what does not fit gets SIGBUS.
 */
static int __full_tmpfs(struct __test_metadata *_metadata, size_t room)
{
	const size_t all = PAGES - 1;
	int fd, other;

	mkdir(TMPFS, 0700);
	ASSERT_EQ(0, mount("tmpfs", TMPFS, "tmpfs", 0, "nr_blocks=16"));
	fd = open(TMPFS "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	other = open(TMPFS "/other", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	/* It goes with the last file. */
	ASSERT_EQ(0, umount2(TMPFS, MNT_DETACH));
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SMALL));
	if (room < all)
		ASSERT_EQ(0, posix_fallocate(other, 0, (all - room) * PAGE));
	close(other);
	return fd;
}

static void map_full_tmpfs(struct __test_metadata *_metadata, struct refusal *r, size_t room,
			   int prot, int flags)
{
	int fd = __full_tmpfs(_metadata, room);

	r->size = SMALL;
	r->bad = room * PAGE;
	r->addr = map(r->size, prot, flags, fd);
	close(fd);
}

static void make_full_tmpfs(struct __test_metadata *_metadata, struct refusal *r)
{
	map_full_tmpfs(_metadata, r, 8, RW, MAP_SHARED);
}

static void make_full_tmpfs_at_once(struct __test_metadata *_metadata, struct refusal *r)
{
	map_full_tmpfs(_metadata, r, 0, RW, MAP_SHARED);
}

static void make_full_tmpfs_at_last(struct __test_metadata *_metadata, struct refusal *r)
{
	map_full_tmpfs(_metadata, r, PAGES - 1, RW, MAP_SHARED);
}

static void make_full_tmpfs_read_only(struct __test_metadata *_metadata, struct refusal *r)
{
	map_full_tmpfs(_metadata, r, 8, PROT_READ, MAP_SHARED);
}

static void make_full_tmpfs_read_only_at_once(struct __test_metadata *_metadata,
					      struct refusal *r)
{
	map_full_tmpfs(_metadata, r, 0, PROT_READ, MAP_SHARED);
}

/* It would be copied, but there is nothing to copy from. */
static void make_full_tmpfs_private(struct __test_metadata *_metadata, struct refusal *r)
{
	map_full_tmpfs(_metadata, r, 8, RW, MAP_PRIVATE);
}

/* Two huge pages, of which the pool has @room; they are not reserved by mmap(). */
static void map_empty_pool(struct __test_metadata *_metadata, struct refusal *r, size_t room,
			   int prot, int flags, int fd)
{
	ASSERT_EQ(0, set_knob(HUGE_PAGES, room ? "1" : "0"));
	ASSERT_EQ(room, read_counter("/proc/meminfo", "HugePages_Free"));
	r->size = 2 * HUGE_PAGE;
	r->bad = room * HUGE_PAGE;
	r->addr = map(r->size, prot, flags | MAP_NORESERVE, fd);
}

static void make_empty_pool(struct __test_metadata *_metadata, struct refusal *r)
{
	map_empty_pool(_metadata, r, 1, RW, ANON | MAP_HUGETLB, -1);
}

static void make_empty_pool_at_once(struct __test_metadata *_metadata, struct refusal *r)
{
	map_empty_pool(_metadata, r, 0, RW, ANON | MAP_HUGETLB, -1);
}

static void make_empty_pool_shared(struct __test_metadata *_metadata, struct refusal *r)
{
	int fd = memfd(2 * HUGE_PAGE, MFD_HUGETLB);

	map_empty_pool(_metadata, r, 1, RW, MAP_SHARED, fd);
	close(fd);
}

static void make_empty_pool_shared_at_once(struct __test_metadata *_metadata,
					   struct refusal *r)
{
	int fd = memfd(2 * HUGE_PAGE, MFD_HUGETLB);

	map_empty_pool(_metadata, r, 0, RW, MAP_SHARED, fd);
	close(fd);
}

static void make_empty_pool_read_only(struct __test_metadata *_metadata, struct refusal *r)
{
	int fd = memfd(2 * HUGE_PAGE, MFD_HUGETLB);

	map_empty_pool(_metadata, r, 1, PROT_READ, MAP_SHARED, fd);
	close(fd);
}

static void make_guard_page(struct __test_metadata *_metadata, struct refusal *r)
{
	make_good(_metadata, r);
	ASSERT_EQ(0, madvise(r->addr + r->bad, PAGE, MADV_GUARD_INSTALL));
}

static void make_guard_page_at_once(struct __test_metadata *_metadata, struct refusal *r)
{
	make_good(_metadata, r);
	r->bad = 0;
	ASSERT_EQ(0, madvise(r->addr, PAGE, MADV_GUARD_INSTALL));
}

static void map_memfd(struct __test_metadata *_metadata, struct refusal *r)
{
	int fd = memfd(SMALL, 0);

	r->size = SMALL;
	r->bad = 8 * PAGE;
	r->addr = map(r->size, RW, MAP_SHARED, fd);
	close(fd);
	fill(r->addr, r->size, 1);
}

static void make_guard_page_in_memfd(struct __test_metadata *_metadata, struct refusal *r)
{
	map_memfd(_metadata, r);
	ASSERT_EQ(0, madvise(r->addr + r->bad, PAGE, MADV_GUARD_INSTALL));
}

static void ignore_signal(int signal)
{
	(void)signal;
}

/*
 * The kernel never uses that memory again: no more of it than needed. Kernels tell the
 * program by SIGBUS, newer ones than 6.1 in a way that cannot be ignored.
 */
static void __poison(struct __test_metadata *_metadata, void *addr)
{
	signal(SIGBUS, ignore_signal);
	ASSERT_EQ(0, madvise(addr, PAGE, MADV_HWPOISON));
	signal(SIGBUS, SIG_DFL);
}

#define poison(addr)	__poison(_metadata, addr)

static void make_poisoned(struct __test_metadata *_metadata, struct refusal *r)
{
	make_good(_metadata, r);
	poison(r->addr + r->bad);
}

/* The rest of the huge page stays in use, as small ones. */
static void make_poisoned_thp(struct __test_metadata *_metadata, struct refusal *r)
{
	struct memory m = { .size = HUGE_PAGE };

	make_thp(_metadata, &m);
	free(m.expect);
	r->addr = m.addr;
	r->size = m.size;
	r->bad = 8 * PAGE;
	poison(r->addr + r->bad);
}

static void make_poisoned_memfd(struct __test_metadata *_metadata, struct refusal *r)
{
	map_memfd(_metadata, r);
	poison(r->addr + r->bad);
}

/*
 * A mapping made before has a poison entry in its page table; for this one the driver has to ask
 * the file.
 */
static void make_poisoned_memfd_mapped_anew(struct __test_metadata *_metadata,
					    struct refusal *r)
{
	unsigned char *alias;

	map_memfd(_metadata, r);
	/* The length of 0 makes it a second mapping. */
	alias = mremap(r->addr, 0, r->size, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, (void *)alias);
	poison(r->addr + r->bad);
	munmap(r->addr, r->size);
	r->addr = alias;
	/* Before 5.16 the page was dropped, and its contents lost. */
	r->works = !kernel_at_least(5, 16);
}

/*
 * No part of a page of hugetlb can be mapped without the rest. Private memory, since
 * the pool gets that of a file never back.
 */
static void make_poisoned_hugetlb(struct __test_metadata *_metadata, struct refusal *r)
{
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "2"));
	r->size = 2 * HUGE_PAGE;
	r->bad = HUGE_PAGE;
	r->addr = map(r->size, RW, ANON | MAP_HUGETLB, -1);
	fill(r->addr, r->size, 1);
	poison(r->addr + r->bad + 5 * PAGE);
}

/* A hypervisor marks pages like this that were lost when the machine moved to this host. */
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON	0x4000
#define UFFDIO_POISON		_IOWR(UFFDIO, 0x08, struct uffdio_poison)

struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#endif

static int open_userfaultfd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static const char *need_userfaultfd_poison(void)
{
	int fd = open_userfaultfd(UFFD_FEATURE_POISON);

	close(fd);
	return fd < 0 ? "UFFD_FEATURE_POISON" : NULL;
}

static void make_poisoned_by_userfaultfd(struct __test_metadata *_metadata,
					 struct refusal *r)
{
	int fd = open_userfaultfd(UFFD_FEATURE_POISON);
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_poison cmd = {};

	make_good(_metadata, r);
	area.range.start = to_u64(r->addr + r->bad);
	area.range.len = PAGE;
	cmd.range = area.range;
	ASSERT_EQ(0, madvise(r->addr + r->bad, PAGE, MADV_DONTNEED));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_REGISTER, &area));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_POISON, &cmd));
	close(fd);
}

/*
 * Map pages of a driver that may take all of them away, or that tracks every write, as frame
 * buffers with deferred I/O do.
 */
static int map_of_driver(struct __test_metadata *_metadata, struct refusal *r,
			 unsigned int flags)
{
	const struct carveout_setup setup = {
		.region = CARVEOUT_REGION_RAM,
		.cache = CARVEOUT_CACHED,
		.how = CARVEOUT_HOW_PAGES,
		.flags = flags,
	};
	int fd = _test_carveout_open(&setup);

	ASSERT_LE(0, fd);
	r->size = SMALL;
	r->addr = map(r->size, RW, MAP_SHARED, fd);
	fill(r->addr, r->size, 1);
	return fd;
}

static void make_taken_away(struct __test_metadata *_metadata, struct refusal *r)
{
	int fd = map_of_driver(_metadata, r, 0);

	ASSERT_EQ(0, ioctl(fd, CARVEOUT_IOC_TAKE_AWAY));
	close(fd);
}

static void make_tracked_by_a_driver(struct __test_metadata *_metadata, struct refusal *r)
{
	close(map_of_driver(_metadata, r, CARVEOUT_TRACKED));
	/* Since 6.5 the kernel refuses it. */
	r->works = !kernel_at_least(6, 5);
}

/* The pages of the mapping are always those of the file. */
static void make_file_on_dax(struct __test_metadata *_metadata, struct refusal *r)
{
	int fd;

	mkdir(DAX_MOUNT, 0700);
	ASSERT_TRUE(run("mke2fs -b 4096 " PMEM " >/dev/null 2>&1"));
	ASSERT_EQ(0, mount(PMEM, DAX_MOUNT, "ext4", 0, "dax"));
	fd = open(DAX_MOUNT "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	/* It goes with its file. */
	ASSERT_EQ(0, umount2(DAX_MOUNT, MNT_DETACH));
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SMALL));
	r->size = SMALL;
	r->addr = map(r->size, RW, MAP_SHARED, fd);
	fill(r->addr, r->size, 1);
	r->file = fd;
}

/* A write fault would fill it. */
static void make_hole_on_dax(struct __test_metadata *_metadata, struct refusal *r)
{
	struct stat stat;

	make_file_on_dax(_metadata, r);
	ASSERT_EQ(0, fallocate(r->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, r->size));
	ASSERT_EQ(0, fstat(r->file, &stat));
	r->blocks = stat.st_blocks;
	r->hole = true;
}

/* One call may fault in the pages of both mappings. */
static void make_hole_behind_fresh_memory(struct __test_metadata *_metadata, struct refusal *r)
{
	unsigned char *area = map(PAGE + SMALL, RW, ANON, -1);

	make_hole_on_dax(_metadata, r);
	munmap(r->addr, r->size);
	ASSERT_EQ(area + PAGE, mmap(area + PAGE, SMALL, RW, MAP_SHARED | MAP_FIXED, r->file, 0));
	r->addr = area;
	r->size = PAGE + SMALL;
	r->bad = PAGE;
}

static void make_shared_file(struct __test_metadata *_metadata,
			     struct refusal *r)
{
	put_bad_page(_metadata, r, ext4_file(PAGE));
}

static void make_shared_file_for_writing(struct __test_metadata *_metadata,
					 struct refusal *r)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,shmem,hugetlb,file"));
	put_bad_page(_metadata, r, ext4_file(PAGE));
}

static void make_kind_not_allowed(struct __test_metadata *_metadata,
				  struct refusal *r)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,hugetlb"));
	put_bad_page(_metadata, r, memfd(PAGE, 0));
}

static void make_secret_memory(struct __test_metadata *_metadata,
			       struct refusal *r)
{
	int fd = new_memfd_secret(O_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	put_bad_page(_metadata, r, fd);
}

static void make_mapping_of_a_dmabuf(struct __test_metadata *_metadata,
				     struct refusal *r)
{
	unsigned char *page = map(PAGE, RW, ANON, -1);

	put_bad_page(_metadata, r,
		     __test_export_range(_metadata, r->fd, page, PAGE, O_RDWR));
}

/* Memory of the kernel that it maps into every process, or NULL. */
static unsigned char *find_vvar(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, found = 0;
	char line[256];

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[vvar]") && sscanf(line, "%lx-", &start) == 1)
			found = start;
	if (maps)
		fclose(maps);
	return (unsigned char *)found;
}

/*
 * Mostly these are page frames. But arm has always shown pages there, and all
 * architectures do since 6a011a228293 (v7.1), some kernels as memory for I/O.
 */
static void make_vvar(struct __test_metadata *_metadata, struct refusal *r)
{
	r->addr = find_vvar();
	r->size = PAGE;
	ASSERT_NE(NULL, r->addr);
	r->read_only_works = !maps_frames(r->addr);
}

static const char *need_vvar(void)
{
	return find_vvar() ? NULL : "[vvar] mapping";
}

FIXTURE_VARIANT(refusal)
{
	void (*make)(struct __test_metadata *_metadata, struct refusal *r);
	const char *(*missing)(void);
	int error;
	unsigned int reason;
	bool read_only_works;
	bool mapped_read_only;
};

FIXTURE_VARIANT_ADD(refusal, hole) {
	.make = make_hole, .error = EFAULT, .reason = VMEMEXP_REASON_NOT_MAPPED,
};

FIXTURE_VARIANT_ADD(refusal, prot_none) {
	.make = make_prot_none, .error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_READABLE,
};

FIXTURE_VARIANT_ADD(refusal, write_only) {
	.make = make_write_only, .error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_READABLE,
};

FIXTURE_VARIANT_ADD(refusal, part_read_only) {
	.make = make_part_read_only, .error = EACCES,
	.reason = VMEMEXP_REASON_NOT_WRITABLE, .read_only_works = true,
};

FIXTURE_VARIANT_ADD(refusal, below_growing) {
	.make = make_below_growing, .error = EFAULT,
	.reason = VMEMEXP_REASON_NOT_MAPPED,
};

FIXTURE_VARIANT_ADD(refusal, beyond_memfd) {
	.make = make_beyond_memfd, .error = EFAULT,
	.reason = VMEMEXP_REASON_NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, beyond_hugetlb_memfd) {
	.make = make_beyond_hugetlb_memfd, .missing = need_hugetlb,
	.error = EFAULT, .reason = VMEMEXP_REASON_NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, beyond_private_file) {
	.make = make_beyond_private_file, .missing = need_ext4, .error = EFAULT,
	.reason = VMEMEXP_REASON_NO_BACKING,
};

#define NO_BACKING	.error = EFAULT, .reason = VMEMEXP_REASON_NO_BACKING
#define POISONED	.error = EHWPOISON, .reason = VMEMEXP_REASON_POISONED

FIXTURE_VARIANT_ADD(refusal, full_tmpfs) {
	.make = make_full_tmpfs, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, full_tmpfs_at_once) {
	.make = make_full_tmpfs_at_once, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, full_tmpfs_at_last) {
	.make = make_full_tmpfs_at_last, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, full_tmpfs_read_only) {
	.make = make_full_tmpfs_read_only, NO_BACKING, .mapped_read_only = true,
};

FIXTURE_VARIANT_ADD(refusal, full_tmpfs_read_only_at_once) {
	.make = make_full_tmpfs_read_only_at_once, NO_BACKING,
	.mapped_read_only = true,
};

FIXTURE_VARIANT_ADD(refusal, full_tmpfs_private) {
	.make = make_full_tmpfs_private, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, empty_pool) {
	.make = make_empty_pool, .missing = need_hugetlb, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, empty_pool_at_once) {
	.make = make_empty_pool_at_once, .missing = need_hugetlb, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, empty_pool_shared) {
	.make = make_empty_pool_shared, .missing = need_hugetlb, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, empty_pool_shared_at_once) {
	.make = make_empty_pool_shared_at_once, .missing = need_hugetlb, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, empty_pool_read_only) {
	.make = make_empty_pool_read_only, .missing = need_hugetlb, NO_BACKING,
	.mapped_read_only = true,
};

FIXTURE_VARIANT_ADD(refusal, guard_page) {
	.make = make_guard_page, .missing = need_guard_pages, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, guard_page_at_once) {
	.make = make_guard_page_at_once, .missing = need_guard_pages, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, guard_page_in_memfd) {
	.make = make_guard_page_in_memfd, .missing = need_guard_pages_in_files,
	NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, poisoned) {
	.make = make_poisoned, .missing = need_poison, POISONED,
};

FIXTURE_VARIANT_ADD(refusal, poisoned_thp) {
	.make = make_poisoned_thp, .missing = need_poison_and_thp, POISONED,
};

FIXTURE_VARIANT_ADD(refusal, poisoned_memfd) {
	.make = make_poisoned_memfd, .missing = need_poison, POISONED,
};

FIXTURE_VARIANT_ADD(refusal, poisoned_memfd_mapped_anew) {
	.make = make_poisoned_memfd_mapped_anew, .missing = need_poison, POISONED,
};

FIXTURE_VARIANT_ADD(refusal, poisoned_hugetlb) {
	.make = make_poisoned_hugetlb, .missing = need_poison_and_hugetlb, POISONED,
};

FIXTURE_VARIANT_ADD(refusal, poisoned_by_userfaultfd) {
	.make = make_poisoned_by_userfaultfd, .missing = need_userfaultfd_poison,
	POISONED,
};

FIXTURE_VARIANT_ADD(refusal, file_on_dax) {
	.make = make_file_on_dax, .missing = need_fsdax, .error = EOPNOTSUPP,
	.reason = VMEMEXP_REASON_UNPINNABLE,
};

FIXTURE_VARIANT_ADD(refusal, hole_on_dax) {
	.make = make_hole_on_dax, .missing = need_fsdax, .error = EOPNOTSUPP,
	.reason = VMEMEXP_REASON_UNPINNABLE,
};

FIXTURE_VARIANT_ADD(refusal, hole_behind_fresh_memory) {
	.make = make_hole_behind_fresh_memory, .missing = need_fsdax, .error = EOPNOTSUPP,
	.reason = VMEMEXP_REASON_UNPINNABLE,
};

FIXTURE_VARIANT_ADD(refusal, taken_away) {
	.make = make_taken_away, .missing = need_carveout, NO_BACKING,
};

FIXTURE_VARIANT_ADD(refusal, tracked_by_a_driver) {
	.make = make_tracked_by_a_driver, .missing = need_carveout,
	.error = EPERM, .reason = VMEMEXP_REASON_KIND, .read_only_works = true,
};

FIXTURE_VARIANT_ADD(refusal, shared_file) {
	.make = make_shared_file, .missing = need_ext4, .error = EPERM,
	.reason = VMEMEXP_REASON_KIND,
};

FIXTURE_VARIANT_ADD(refusal, shared_file_for_writing) {
	.make = make_shared_file_for_writing, .missing = need_ext4,
	.error = EPERM, .reason = VMEMEXP_REASON_KIND, .read_only_works = true,
};

FIXTURE_VARIANT_ADD(refusal, kind_not_allowed) {
	.make = make_kind_not_allowed, .error = EPERM,
	.reason = VMEMEXP_REASON_KIND,
};

FIXTURE_VARIANT_ADD(refusal, secret_memory) {
	.make = make_secret_memory, .missing = need_secretmem, .error = EFAULT,
	.reason = VMEMEXP_REASON_UNPINNABLE,
};

FIXTURE_VARIANT_ADD(refusal, mapping_of_a_dmabuf) {
	.make = make_mapping_of_a_dmabuf, .error = EINVAL,
	.reason = VMEMEXP_REASON_MIXED,
};

FIXTURE_VARIANT_ADD(refusal, vvar) {
	.make = make_vvar, .missing = need_vvar, .error = EPERM,
	.reason = VMEMEXP_REASON_RAM, .mapped_read_only = true,
};

FIXTURE_SETUP(refusal)
{
	const char *missing = variant->missing ? variant->missing() : NULL;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	test_setup();
}

FIXTURE_TEARDOWN(refusal)
{
	test_teardown();
	restore_system();
}

TEST_F(refusal, names_errno_reason_and_address_and_leaves_nothing_behind)
{
	struct refusal r = { .fd = self->fd };
	struct stat stat;

	variant->make(_metadata, &r);
	if (variant->mapped_read_only)
		test_err_export(EACCES, VMEMEXP_REASON_NOT_WRITABLE, r.addr, r.addr, r.size,
				O_RDWR);
	else if (r.works)
		close(test_export(r.addr, r.size, O_RDWR));
	else
		test_err_export(variant->error, variant->reason, r.addr + r.bad,
				r.addr, r.size, O_RDWR);
	if (variant->read_only_works || r.read_only_works || r.works)
		close(test_export(r.addr, r.size, O_RDONLY));
	else
		test_err_export(variant->error, variant->reason, r.addr + r.bad,
				r.addr, r.size, O_RDONLY);
	/* Up to there it is as good as any. */
	if (r.bad)
		close(test_export(r.addr, r.bad, variant->mapped_read_only ? O_RDONLY : O_RDWR));
	munmap(r.addr, r.size);
	if (r.file) {
		ASSERT_EQ(0, fstat(r.file, &stat));
		if (r.hole)
			EXPECT_EQ(r.blocks, stat.st_blocks);
		close(r.file);
	}
}

/* --- a dma-buf's mappings and extents --- */

FIXTURE(dmabuf)
{
	int fd;
	struct test_state before;
	unsigned char *source;
	int dmabuf;
};

FIXTURE_SETUP(dmabuf)
{
	test_setup();
	self->source = map(SMALL, RW, ANON, -1);
	fill(self->source, SMALL, 1);
	self->dmabuf = test_export(self->source, SMALL, O_RDWR);
}

FIXTURE_TEARDOWN(dmabuf)
{
	close(self->dmabuf);
	test_teardown();
	restore_system();
}

/* Size of the kernel's addresses for mappings, in bytes. */
static uint64_t kernel_addresses(struct __test_metadata *_metadata)
{
	uint64_t kib = 0;
	char line[128];
	FILE *file;

	file = fopen("/proc/meminfo", "r");
	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file) &&
	       sscanf(line, "VmallocTotal: %" SCNu64, &kib) != 1)
		;
	fclose(file);
	ASSERT_NE(0, kib);
	return kib << 10;
}

static int vmap_of(struct __test_metadata *_metadata, int fd, size_t size)
{
	int session = test_importer_open(), dmabuf, ret;
	unsigned char *addr;

	addr = map(size, RW, ANON, -1);
	/* Neighbours are not had one after the other, nor side by side then. */
	ASSERT_EQ(0, forbid_thp(addr, size));
	for (size_t first = 0; first < 2; first++)
		for (size_t at = first * PAGE; at < size; at += 2 * PAGE)
			addr[at] = 1;
	dmabuf = __test_export_range(_metadata, fd, addr, size, O_RDWR);
	ASSERT_LT(1, __test_query(_metadata, fd, dmabuf).nr_extents);
	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	ret = _test_ioctl(session, IMPORTER_IOC_VMAP, NULL);
	close(session);
	close(dmabuf);
	munmap(addr, size);
	return ret;
}

/*
 * A 32-bit kernel has 240 MiB or so, for everybody. That vmap is refused for what
 * takes too much of them is told by the error alone: a vmap that is tried and
 * fails would be a warning in the kernel log, and so a failure of the guest.
 */
TEST_F(dmabuf, has_a_kernel_mapping_if_it_leaves_addresses_to_others)
{
	uint64_t limit = kernel_addresses(_metadata) / 4;
	size_t size = 64 << 20;

	/* A 64-bit kernel has more of them than there is memory. */
	if (limit < 1 << 30) {
		EXPECT_EQ(-vmap_refused(), vmap_of(_metadata, self->fd, limit + page_size()));
		/* PCI's configuration space takes most of them in 5.10. */
		size = kernel_at_least(5, 11) ? limit : limit / 4;
	}
	EXPECT_EQ(0, vmap_of(_metadata, self->fd, size));
}

/* The C library refuses it for 32-bit programs, the kernel for 64-bit ones. */
#define WRAPS_AROUND	(sizeof(long) == 4 ? EINVAL : EOVERFLOW)
/* A 32-bit kernel takes no such offset for the file of a driver. */
#ifdef __arm__
#define FAR_AWAY	EOVERFLOW
#else
#define FAR_AWAY	EINVAL
#endif

TEST_F(dmabuf, is_mapped_inside_of_its_bounds_only)
{
	static const struct {
		uint64_t offset;
		size_t size;
		int error;
	} outside[] = {
		{ 0, SMALL + PAGE, EINVAL },
		{ PAGE, SMALL, EINVAL },
		{ SMALL, PAGE, EINVAL },
		{ SMALL - PAGE, 2 * PAGE, EINVAL },
		{ 1ULL << 40, PAGE, FAR_AWAY },
		{ 1ULL << 63, PAGE, EINVAL },
		/* Wraps around in bytes, which no driver gets to see. */
		{ -(uint64_t)PAGE, PAGE, WRAPS_AROUND },
		{ -(uint64_t)SMALL, 2 * SMALL, WRAPS_AROUND },
	};
	unsigned char *last = mmap64(NULL, PAGE, PROT_READ, MAP_SHARED,
				     self->dmabuf, SMALL - PAGE);

	ASSERT_NE(MAP_FAILED, (void *)last);
	EXPECT_EQ(0, memcmp(self->source + SMALL - PAGE, last, PAGE));

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		EXPECT_MMAP_ERR(outside[i].error, outside[i].size, PROT_READ, MAP_SHARED,
				self->dmabuf, outside[i].offset);
	}

	/* Nor does it grow out of it. */
	EXPECT_EQ(MAP_FAILED, mremap(last, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	munmap(last, PAGE);
}

TEST_F(dmabuf, is_never_mapped_privately)
{
	EXPECT_MMAP_ERR(EINVAL, SMALL, PROT_READ, MAP_PRIVATE, self->dmabuf, 0);
	EXPECT_MMAP_ERR(EINVAL, SMALL, RW, MAP_PRIVATE, self->dmabuf, 0);
	EXPECT_EQ(0, test_query(self->dmabuf).cpu_mappings);
}

TEST_F(dmabuf, that_is_read_only_is_never_mapped_privately)
{
	int dmabuf = test_export(self->source, SMALL, O_RDONLY);

	EXPECT_MMAP_ERR(EINVAL, SMALL, PROT_READ, MAP_PRIVATE, dmabuf, 0);
	EXPECT_MMAP_ERR(EINVAL, SMALL, RW, MAP_PRIVATE, dmabuf, 0);
	close(dmabuf);
}

/*
 * MADV_FREE lets the kernel drop pages that have not been written since. A write through the
 * dma-buf leaves no trace in the exporter's page table.
 */
TEST_F(dmabuf, keeps_what_was_written_through_it)
{
	unsigned char *written = malloc(SMALL);
	unsigned char *view = map(SMALL, RW, MAP_SHARED, self->dmabuf);

	fill(written, SMALL, 2);
	ASSERT_EQ(0, madvise(self->source, SMALL, MADV_FREE));
	memcpy(view, written, SMALL);
	ASSERT_EQ(0, munmap(view, SMALL));
	ASSERT_EQ(0, close(self->dmabuf));

	ASSERT_EQ(0, madvise(self->source, SMALL, MADV_PAGEOUT));
	EXPECT_EQ(0, memcmp(written, self->source, SMALL));
	free(written);
	self->dmabuf = open("/dev/null", O_RDONLY);
}

/* Their number is what a buffer costs. */
TEST_F(dmabuf, has_no_more_extents_than_huge_pages)
{
	const char *missing = need_hugetlb();
	const size_t size = 32 * HUGE_PAGE;
	struct vmemexp_export cmd;
	unsigned char *addr;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "32"));
	addr = map(size, RW, ANON | MAP_HUGETLB, -1);
	cmd = export_args(addr, size, O_RDWR);
	test_export_cmd(&cmd);
	EXPECT_GE(32, cmd.nr_extents);
	EXPECT_EQ(physical_extents(addr, size).nr, cmd.nr_extents);
	close(cmd.fd);
	munmap(addr, size);
}

/* They are pinned otherwise than small ones, and begin where they like. */
TEST_F(dmabuf, gives_back_huge_pages_among_small_ones)
{
	const size_t edge = 3 * PAGE, size = 2 * HUGE_PAGE + 2 * edge;
	const char *missing = need_hugetlb();
	const size_t starts[] = { 0, edge, edge + 5 * PAGE, edge + HUGE_PAGE - PAGE };
	unsigned char *area, *addr, *seen;
	struct vmemexp_export cmd;
	long free_pages;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "4"));
	free_pages = read_counter("/proc/meminfo", "HugePages_Free");
	ASSERT_EQ(4, free_pages);

	/* Small pages replace the memory around two huge pages. */
	area = map(4 * HUGE_PAGE, RW, ANON | MAP_HUGETLB, -1);
	munmap(area, HUGE_PAGE);
	munmap(area + 3 * HUGE_PAGE, HUGE_PAGE);
	addr = area + HUGE_PAGE - edge;
	for (size_t at = 0; at < size; at += edge + 2 * HUGE_PAGE)
		ASSERT_EQ(addr + at, mmap(addr + at, edge, RW, ANON | MAP_FIXED, -1, 0));
	fill(addr, size, 3);

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		const size_t length = size - starts[i];

		cmd = export_args(addr + starts[i], length, O_RDWR);
		test_export_cmd(&cmd);
		EXPECT_EQ(VMEMEXP_MEMORY_ANON | VMEMEXP_MEMORY_HUGETLB,
			  test_query(cmd.fd).memory);
		EXPECT_EQ(physical_extents(addr + starts[i], length).nr, cmd.nr_extents);
		seen = map(length, RW, MAP_SHARED, cmd.fd);
		EXPECT_EQ(0, memcmp(addr + starts[i], seen, length));
		munmap(seen, length);
		close(cmd.fd);
	}

	munmap(addr, size);
	for (int ms = 0; ms < RELEASE_TIMEOUT_MS; ms += 10) {
		if (read_counter("/proc/meminfo", "HugePages_Free") == free_pages)
			break;
		sleep_ms(10);
	}
	EXPECT_EQ(free_pages, read_counter("/proc/meminfo", "HugePages_Free"));
}

/* --- contiguous memory, and what a device gets of it --- */

FIXTURE(segments)
{
	int fd;
	struct test_state before;
	struct memory m;
};

FIXTURE_VARIANT(segments)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	unsigned int device;
	unsigned int mask;	/* address bits of the device */
};

FIXTURE_VARIANT_ADD(segments, hugetlb_for_a_device_that_reaches_it) {
	.make = make_hugetlb, .missing = need_hugetlb,
	.device = IMPORTER_DEV_COHERENT, .mask = 64,
};

FIXTURE_VARIANT_ADD(segments, thp_for_a_device_that_reaches_it) {
	.make = make_thp, .missing = need_thp,
	.device = IMPORTER_DEV_COHERENT, .mask = 64,
};

FIXTURE_VARIANT_ADD(segments, hugetlb_for_a_device_with_32_address_bits) {
	.make = make_hugetlb, .missing = need_hugetlb,
	.device = IMPORTER_DEV_MASK32, .mask = 32,
};

FIXTURE_VARIANT_ADD(segments, hugetlb_for_a_device_with_28_address_bits) {
	.make = make_hugetlb, .missing = need_hugetlb,
	.device = IMPORTER_DEV_MASK28, .mask = 28,
};

FIXTURE_SETUP(segments)
{
	const char *missing = variant->missing();

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	self->m.size = HUGE_PAGE;
	test_setup();
}

FIXTURE_TEARDOWN(segments)
{
	test_teardown();
	restore_system();
}

TEST_F(segments, are_as_large_as_the_device_can_map)
{
	uint64_t limit, bounce_end = bounce_buffers_end();
	unsigned char *seen = malloc(HUGE_PAGE);
	int dmabuf, session = test_importer_open();
	struct importer_info info;
	unsigned int bits;

	variant->make(_metadata, &self->m);
	dmabuf = test_export(self->m.addr, HUGE_PAGE, O_RDWR);
	bits = test_query(dmabuf).address_bits;
	if (bits > variant->mask && (!bounce_end || (bounce_end - 1) >> variant->mask)) {
		close(session);
		close(dmabuf);
		SKIP(return, "no bounce buffer (swiotlb) below %u address bits",
		     variant->mask);
	}
	test_importer_attach(session, dmabuf, variant->device);

	/* One entry, unless the device is limited by what can be bounced. */
	limit = test_importer_info(session).max_mapping_size;
	if (limit > HUGE_PAGE)
		limit = HUGE_PAGE;
	limit = limit / PAGE * PAGE;
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	info = test_importer_info(session);
	EXPECT_EQ((HUGE_PAGE + limit - 1) / limit, info.orig_nents);
	EXPECT_GE(limit, info.max_segment);
	EXPECT_EQ(HUGE_PAGE, info.dma_size);
	EXPECT_GE(variant->mask, info.address_bits);
	if (bits > variant->mask) {
		EXPECT_GE(256 << 10, limit);
		EXPECT_NE(0, test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED);
		/* With CONFIG_DMABUF_DEBUG the importer cannot count them. */
		if (info.flags & IMPORTER_INFO_BOUNCED)
			EXPECT_NE(0, info.nr_bounced);
	}

	test_importer_read(session, 0, seen, HUGE_PAGE);
	EXPECT_EQ(0, memcmp(self->m.expect, seen, HUGE_PAGE));
	test_importer_write(session, 0, change(&self->m, 2), HUGE_PAGE);
	test_importer_unmap(session);
	EXPECT_EQ(0, memcmp(self->m.expect, self->m.addr, HUGE_PAGE));
	close(session);
	close(dmabuf);
}

TEST_HARNESS_MAIN

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ranges of memory of every kind that the tests of what can be exported share.
 *
 * A make_x() function produces a range of one kind with known contents. need_y() tells what the
 * kernel lacks for it. restore_system() undoes what it changed in the system. /proc/self/pagemap is
 * the oracle for what is physically there.
 */
#ifndef VMEMEXP_MEMORY_H
#define VMEMEXP_MEMORY_H

#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/swap.h>

#include "range.h"
#include "vmemexp_utils.h"

/* The kernel unmounts a moment after the last process that used the disk has ended. */
static inline void wait_for_disk(struct __test_metadata *_metadata)
{
	int fd = -1;

	for (int ms = 0; fd < 0 && ms < RELEASE_TIMEOUT_MS; ms += 10) {
		fd = open(RAM_DISK, O_RDWR | O_EXCL | O_CLOEXEC);
		if (fd < 0)
			sleep_ms(10);
	}
	ASSERT_LE(0, fd);
	close(fd);
}

/* The entries of @size bytes; to be freed. */
static inline uint64_t *__read_pagemap(struct __test_metadata *_metadata,
				       const unsigned char *addr, size_t size)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t bytes = size / PAGE * sizeof(uint64_t);
	uint64_t *entries = malloc(bytes);

	ASSERT_EQ((ssize_t)bytes,
		  pread64(fd, entries, bytes,
			  to_u64(addr) / PAGE * sizeof(uint64_t)));
	close(fd);
	return entries;
}

#define read_pagemap(addr, size) __read_pagemap(_metadata, addr, size)

static inline struct extents __physical_extents(struct __test_metadata *_metadata,
						const unsigned char *addr, size_t size)
{
	uint64_t *pfns = read_pagemap(addr, size);
	struct extents r;

	for (size_t i = 0; i < size / PAGE; i++) {
		ASSERT_NE(0, pfns[i] & PAGEMAP_PRESENT);
		pfns[i] &= PAGEMAP_PFN;
		ASSERT_NE(0, pfns[i]);
	}
	r = find_extents(pfns, size / PAGE);
	free(pfns);
	return r;
}

#define physical_extents(addr, size) __physical_extents(_metadata, addr, size)

static inline void *__map(struct __test_metadata *_metadata, size_t size,
			  int prot, int flags, int fd)
{
	void *addr = flags & MAP_HUGETLB || is_hugetlb_file(fd) ?
		     map_huge_pages(size, HUGE_PAGE, prot, flags, fd) :
		     mmap(NULL, size, prot, flags, fd, 0);

	ASSERT_NE(MAP_FAILED, addr) {
		TH_LOG("mmap: %s", strerror(errno));
	}
	return addr;
}

#define map(size, prot, flags, fd) __map(_metadata, size, prot, flags, fd)

/* The range is writable: give it contents. */
static inline void __write_contents(struct __test_metadata *_metadata,
				    struct memory *m, unsigned int seed)
{
	m->writer = m->addr;
	m->expect = malloc(m->size);
	ASSERT_NE(NULL, m->expect);
	fill(m->expect, m->size, seed);
	memcpy(m->addr, m->expect, m->size);
}

#define write_contents(m, seed) __write_contents(_metadata, m, seed)

/* ---- kinds of memory ---- */

static inline void make_anon(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = map(m->size, RW, ANON, -1);
	touch_scattered(m->addr);
	write_contents(m, 1);
}

static inline void make_thp(struct __test_metadata *_metadata, struct memory *m)
{
	unsigned char *area = map(m->size + HUGE_PAGE, RW, ANON, -1);

	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
	m->addr = area + (-(uintptr_t)area & (HUGE_PAGE - 1));
	ASSERT_EQ(0, madvise(m->addr, m->size, MADV_HUGEPAGE));
	write_contents(m, 1);
	/* Not only asked for. */
	ASSERT_LE(HUGE_PAGE, physical_extents(m->addr, m->size).min);
}

static inline void make_shared_anon(struct __test_metadata *_metadata,
				    struct memory *m)
{
	m->addr = map(m->size, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
	/* The length of 0 makes it a second mapping. */
	m->alias = mremap(m->addr, 0, m->size, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, (void *)m->alias);
	write_contents(m, 1);
}

static inline int __memfd(struct __test_metadata *_metadata, size_t size,
			  unsigned int flags)
{
	int fd = memfd_create("vmemexp test", flags | MFD_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, size));
	return fd;
}

#define memfd(size, flags) __memfd(_metadata, size, flags)

/* Maps @fd, and closes it. */
static inline void share(struct __test_metadata *_metadata, struct memory *m, int fd)
{
	m->addr = map(m->size, RW, MAP_SHARED, fd);
	m->alias = map(m->size, RW, MAP_SHARED, fd);
	close(fd);
	write_contents(m, 1);
}

static inline void make_memfd(struct __test_metadata *_metadata, struct memory *m)
{
	share(_metadata, m, memfd(m->size, 0));
}

static inline void make_posix_shm(struct __test_metadata *_metadata, struct memory *m)
{
	int fd = shm_open("/vmemexp-test", O_RDWR | O_CREAT | O_EXCL, 0600);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, shm_unlink("/vmemexp-test"));
	ASSERT_EQ(0, ftruncate(fd, m->size));
	share(_metadata, m, fd);
}

static inline void make_hugetlb(struct __test_metadata *_metadata, struct memory *m)
{
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "8"));
	m->addr = map(m->size, RW, ANON | MAP_HUGETLB, -1);
	write_contents(m, 1);
}

static inline void make_hugetlb_memfd(struct __test_metadata *_metadata,
				      struct memory *m)
{
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "8"));
	share(_metadata, m, memfd(m->size, MFD_HUGETLB));
}

/* A file on a file system that writes back to a disk; has contents. */
static inline int __ext4_file(struct __test_metadata *_metadata, size_t size)
{
	unsigned char *contents = malloc(size);
	int fd;

	if (!mounted) {
		wait_for_disk(_metadata);
		mkdir(MOUNT_POINT, 0700);
		ASSERT_TRUE(run("mke2fs -q " RAM_DISK " >/dev/null 2>&1"));
		ASSERT_EQ(0, mount(RAM_DISK, MOUNT_POINT, "ext4", 0, NULL));
		mounted = true;
	}
	fd = open(MOUNT_POINT "/file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
		  0600);
	ASSERT_LE(0, fd);
	fill(contents, size, 9);
	ASSERT_EQ((ssize_t)size, write(fd, contents, size));
	free(contents);
	return fd;
}

#define ext4_file(size) __ext4_file(_metadata, size)

/* Copies of its pages must be exported, never the pages of the file. */
static inline void map_file(struct __test_metadata *_metadata, struct memory *m, int prot)
{
	int fd = ext4_file(m->size);

	m->addr = map(m->size, prot, MAP_PRIVATE, fd);
	m->bystander = map(m->size, PROT_READ, MAP_SHARED, fd);
	m->original = malloc(m->size);
	memcpy(m->original, m->bystander, m->size);
	close(fd);
}

static inline void make_file_written(struct __test_metadata *_metadata,
				     struct memory *m)
{
	map_file(_metadata, m, RW);
	write_contents(m, 1);
}

/* The file itself, once the administrator allows it. */
static inline void make_file_shared(struct __test_metadata *_metadata,
				    struct memory *m)
{
	int fd = ext4_file(m->size);

	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,file"));
	m->addr = map(m->size, RW, MAP_SHARED, fd);
	close(fd);
	write_contents(m, 1);
}

static inline void make_driver(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = map_packet_ring(PAGE, PAGES);
	ASSERT_NE(MAP_FAILED, (void *)m->addr);
	write_contents(m, 1);
}

/* ---- contents ---- */

#define EXPECT_SAME(expect, seen, size) \
	EXPECT_EQ(-1, first_wrong(expect, seen, size))

/* The source range, wherever it is mapped, shows what was written to @m. */
#define EXPECT_IN_SOURCE(m) do {					\
	EXPECT_SAME((m)->expect, (m)->addr, (m)->size);			\
	EXPECT_SAME((m)->expect, (m)->alias ?: (m)->addr, (m)->size);	\
} while (0)

#endif /* VMEMEXP_MEMORY_H */

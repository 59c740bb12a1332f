/* SPDX-License-Identifier: GPL-2.0 */
/* A range of memory of one kind with known contents, and the page frames behind it. */
#ifndef VMEMEXP_TEST_RANGE_H
#define VMEMEXP_TEST_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

/* The same on amd64, arm64 and armhf as Debian builds them; setup checks. */
#define PAGE		4096UL
#define PAGES		17
#define SMALL		(PAGES * PAGE)
#define HUGE_PAGE	(2UL << 20)

#define RW		(PROT_READ | PROT_WRITE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)

/* Part of a buffer: some pages in the middle. */
#define PART_START	(5 * PAGE)
#define PART_SIZE	(3 * PAGE)

/* Bytes that an unaligned range leaves out at its ends. */
#define CUT_FRONT	123
#define CUT_BACK	77

/* ---- which page frames are behind a range ---- */

#define PAGEMAP_PRESENT	0x8000000000000000ULL
#define PAGEMAP_SWAPPED	0x4000000000000000ULL
#define PAGEMAP_PFN	0x007fffffffffffffULL

/* Stretches of a range that are physically contiguous. */
struct extents {
	uint64_t nr;
	uint64_t min, max;	/* bytes in the smallest and the largest */
	size_t second;		/* offset of the second one, if there is one */
	unsigned int address_bits;
};

struct extents find_extents(const uint64_t *pfns, size_t nr);

/* ---- a range of memory ---- */

struct memory {
	unsigned char *addr;
	size_t size;
	unsigned char *expect;	/* what the range should hold now */
	unsigned char *writer;	/* an address to write it at, if any */
	unsigned char *alias;	/* the same memory, mapped elsewhere, if any */
	unsigned char *bystander;	/* what must keep its contents, if any */
	unsigned char *original;	/* the contents of @bystander */
	pid_t child;		/* shares the range, if there is one */
	bool permanent;		/* part of the program: not to be unmapped */
};

/*
 * Fault pages in so that neighbours in the range are none in memory: whichever
 * way the kernel hands out pages, it is not in steps of 7.
 */
void touch_scattered(unsigned char *addr);
/* Change what @m should hold, in full or in the middle. */
unsigned char *change(struct memory *m, unsigned int seed);
unsigned char *change_part(struct memory *m, unsigned int seed);

#endif /* VMEMEXP_TEST_RANGE_H */

/* SPDX-License-Identifier: GPL-2.0 */
/* Memory to export: how it is mapped, what it holds, what is behind it. */
#ifndef VMEMEXP_TEST_MEMORY_H
#define VMEMEXP_TEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Since 6.1: makes huge pages now, or tells why not. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

size_t page_size(void);

/* For parameters of which a function takes the address, and looks at nothing behind it. */
#define ADDRESS_ONLY(nr)	__attribute__((access(none, nr)))

uint64_t to_u64(const volatile void *p) ADDRESS_ONLY(1);
size_t page_align(size_t length);

/* ---- mappings ---- */

void *map_anon(size_t length);
/*
 * Memory in huge pages of @huge bytes, at an address that is a multiple of that. On
 * arm, newer kernels than 6.12 choose any other as well, and go down when it is used.
 */
void *map_huge_pages(size_t size, size_t huge, int prot, int flags, int fd);
/* The text behind @name in /proc/self/smaps, for the mapping of @p; "" if there is none. */
const char *smaps_field(const volatile void *p, const char *name);
/* Is @p in a mapping of page frames, or in one whose pages the kernel does not pin? */
bool maps_frames(const volatile void *p);
/* Returns 0 or a negative errno: memory is going to be of small pages. */
int forbid_thp(void *p, size_t length);
/*
 * Has memory in transparent huge pages, or returns a negative errno. Before
 * 7d8faaf15545 (v6.1) it must be there already.
 */
int collapse(void *p, size_t length);
/*
 * Pages with a PROT_NONE page on either side. The last byte of the buffer (or
 * with guard_start() the first) touches it, so that one byte too far faults.
 */
void *guard_start(size_t length);
void *guard_end(size_t length);
/* For what either of the two returned. */
void guard_free(void *p, size_t length);
/* A packet socket's ring: blocks of pages that a driver inserted one by one. */
void *map_packet_ring(size_t block, unsigned int nr);
bool is_hugetlb_file(int fd);

/* ---- contents ---- */

/* Differs between neighbouring bytes, lines and pages, and between seeds. */
uint8_t pattern(unsigned int seed, size_t i);
void fill(volatile void *p, size_t length, unsigned int seed);
/* Offset of the first byte that is not fill()'s, or -1. */
long first_difference(const volatile void *p, size_t length, unsigned int seed);
/* Offset of the first byte that differs, or -1. */
long first_wrong(const unsigned char *expect, const unsigned char *seen, size_t size);

#endif /* VMEMEXP_TEST_MEMORY_H */

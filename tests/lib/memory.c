// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "memory.h"
#include "state.h"

size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

uint64_t to_u64(const volatile void *p)
{
	return (uintptr_t)p;
}

void *map_anon(size_t length)
{
	return mmap(NULL, length, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void *map_huge_pages(size_t size, size_t huge, int prot, int flags, int fd)
{
	/* The kernel rounds @size up. */
	size_t room = size + 2 * huge;
	char *area = mmap(NULL, room, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *addr = area + (-(uintptr_t)area & (huge - 1));

	if (area == MAP_FAILED)
		return area;
	munmap(area, room);
	return mmap(addr, size, prot, flags | MAP_FIXED_NOREPLACE, fd, 0);
}

const char *smaps_field(const volatile void *p, const char *name)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	static char line[512], found[512];
	unsigned long start, end;
	bool here = false;

	found[0] = '\0';
	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)p && (uintptr_t)p < end;
		else if (here && !strncmp(line, name, strlen(name)))
			snprintf(found, sizeof(found), "%s", line + strlen(name));
	}
	if (maps)
		fclose(maps);
	return found;
}

bool maps_frames(const volatile void *p)
{
	const char *flags = smaps_field(p, "VmFlags:");

	return strstr(flags, " pf") || strstr(flags, " io");
}

int forbid_thp(void *p, size_t length)
{
	return has_thp() && madvise(p, length, MADV_NOHUGEPAGE) ? -errno : 0;
}

int collapse(void *p, size_t length)
{
	if (!madvise(p, length, MADV_COLLAPSE))
		return 0;
	if (kernel_at_least(6, 1))
		return -errno;
	return strtoul(smaps_field(p, "AnonHugePages:"), NULL, 10) >= length / 1024 ?
	       0 : -EAGAIN;
}

size_t page_align(size_t length)
{
	return (length + page_size() - 1) & ~(page_size() - 1);
}

void *guard_start(size_t length)
{
	size_t inner = page_align(length);
	char *map = mmap(NULL, inner + 2 * page_size(), PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	if (mprotect(map + page_size(), inner, PROT_READ | PROT_WRITE))
		return NULL;
	return map + page_size();
}

void *guard_end(size_t length)
{
	char *start = guard_start(length);

	return start ? start + page_align(length) - length : NULL;
}

void guard_free(void *p, size_t length)
{
	char *start = (char *)((uintptr_t)p & ~(page_size() - 1));

	munmap(start - page_size(), page_align(length) + 2 * page_size());
}

uint8_t pattern(unsigned int seed, size_t i)
{
	return seed * 37 + i * 7 + (i >> 8) * 13 + (i >> 12) * 29;
}

#define LINE	256

/*
 * pattern() from @i to the end of its line. In a line it goes through the multiples of 7,
 * among which is every byte: the first one is where 183, the inverse of 7, says.
 */
static const uint8_t *pattern_from(unsigned int seed, size_t i)
{
	static uint8_t multiples[2 * LINE];

	if (!multiples[1])
		for (size_t k = 0; k < sizeof(multiples); k++)
			multiples[k] = k * 7;
	return multiples + (uint8_t)(pattern(seed, i) * 183);
}

static size_t left_in_line(size_t i, size_t length)
{
	size_t left = LINE - i % LINE;

	return left < length - i ? left : length - i;
}

/* A word of a buffer, whatever the type of its elements. */
typedef unsigned long __attribute__((may_alias)) word;

static bool is_aligned(const volatile uint8_t *p)
{
	return (uintptr_t)p % sizeof(word) == 0;
}

/*
 * fill() and first_difference() are most of what many tests do, so they go by words; by
 * aligned ones, since page frames may be mapped as a device's.
 */

static void copy_line(volatile uint8_t *to, const uint8_t *from, size_t size)
{
	word w;

	for (; size && !is_aligned(to); size--)
		*to++ = *from++;
	for (; size >= sizeof(w); size -= sizeof(w), to += sizeof(w), from += sizeof(w)) {
		memcpy(&w, from, sizeof(w));
		*(volatile word *)to = w;
	}
	while (size--)
		*to++ = *from++;
}

/* The bytes that are equal before the first that is not. */
static size_t equal_in_line(const volatile uint8_t *seen, const uint8_t *line, size_t size)
{
	size_t i = 0;
	word w;

	for (; i < size && !is_aligned(seen + i); i++)
		if (seen[i] != line[i])
			return i;
	for (; size - i >= sizeof(w); i += sizeof(w)) {
		memcpy(&w, line + i, sizeof(w));
		if (*(const volatile word *)(seen + i) != w)
			break;
	}
	while (i < size && seen[i] == line[i])
		i++;
	return i;
}

void fill(volatile void *p, size_t length, unsigned int seed)
{
	volatile uint8_t *bytes = p;
	size_t n;

	for (size_t i = 0; i < length; i += n) {
		n = left_in_line(i, length);
		copy_line(bytes + i, pattern_from(seed, i), n);
	}
}

long first_difference(const volatile void *p, size_t length, unsigned int seed)
{
	const volatile uint8_t *bytes = p;
	size_t n, equal;

	for (size_t i = 0; i < length; i += n) {
		n = left_in_line(i, length);
		equal = equal_in_line(bytes + i, pattern_from(seed, i), n);
		if (equal < n)
			return i + equal;
	}
	return -1;
}

long first_wrong(const unsigned char *expect, const unsigned char *seen, size_t size)
{
	size_t i = 0;

	if (!memcmp(expect, seen, size))
		return -1;
	while (expect[i] == seen[i])
		i++;
	return i;
}

void *map_packet_ring(size_t block, unsigned int nr)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct tpacket_req ring = {
		.tp_block_size = block,
		.tp_block_nr = nr,
		.tp_frame_size = block,
		.tp_frame_nr = nr,
	};
	void *map = MAP_FAILED;

	if (fd >= 0 && !setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)))
		map = mmap(NULL, block * nr, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return map;
}

bool is_hugetlb_file(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (uint32_t)fs.f_type == HUGETLBFS_MAGIC;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Calls on memory that may be exported: of each kind, whole and in pieces.
 *
 * Regions lie in an arena that is empty (PROT_NONE) where there are none, so that
 * nothing else comes to lie between them, and cleaning up is one mmap().
 */
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/syscall.h>

#include "fuzz.h"

/* Free in every process of 32 and 64 bits, on every architecture. */
#define ARENA		((char *)0x50000000)
#define ARENA_SIZE	(NR_REGIONS * REGION_SPACE)

#define OWN_FILE	"/proc/self/exe"

#ifndef MADV_PAGEOUT
#define MADV_COLD	20
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif

#ifndef SYS_memfd_secret
#define SYS_memfd_secret	447
#endif

struct region regions[NR_REGIONS];

sigjmp_buf access_fault;
volatile sig_atomic_t access_guarded;

static void on_fault(int sig)
{
	if (!access_guarded) {
		signal(sig, SIG_DFL);
		return;
	}
	access_guarded = false;
	siglongjmp(access_fault, 1);
}

static char *place_of(const struct region *r)
{
	return ARENA + (r - regions) * REGION_SPACE;
}

static void empty(void *addr, size_t size)
{
	if (mmap(addr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		 -1, 0) == MAP_FAILED)
		give_up("no memory for the arena: %s", strerror(errno));
}

void setup_memory(void)
{
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	empty(ARENA, ARENA_SIZE);
	for (int i = 0; i < NR_REGIONS; i++)
		regions[i] = (struct region){ place_of(&regions[i]), .file = -1 };
}

void clean_memory(void)
{
	empty(ARENA, ARENA_SIZE);
	for (struct region *r = regions; r < regions + NR_REGIONS; r++) {
		if (r->file >= 0)
			close(r->file);
		*r = (struct region){ place_of(r), .file = -1 };
	}
}

char *begin_region(struct region *r)
{
	char *place = place_of(r);

	empty(place, REGION_SPACE);
	if (r->file >= 0)
		close(r->file);
	*r = (struct region){ place, .file = -1 };
	return place;
}

void set_region(struct region *r, char *addr, size_t size)
{
	r->addr = addr;
	r->size = size;
}

/* --- kinds --- */

/* @special is a number below 1 << 10 that some kinds look at. */
struct wish {
	struct region *r;
	size_t size;
	int prot;
	unsigned int special;
};

/* Each returns 0 or a negative errno, and leaves its file in the region. */
static int map_at(const struct wish *w, int flags, int fd)
{
	void *addr = mmap(w->r->addr, w->size, w->prot, flags | MAP_FIXED, fd, 0);

	w->r->file = fd;
	return addr == MAP_FAILED ? -errno : 0;
}

static int map_anonymous(const struct wish *w)
{
	return map_at(w, w->special & 1 ? MAP_SHARED | MAP_ANONYMOUS : ANON, -1);
}

static int map_touched(const struct wish *w)
{
	int ret = map_anonymous(w);

	if (!ret && w->prot & PROT_WRITE)
		memset(w->r->addr, 1, w->size);
	return ret;
}

/* Neighbours in the region are none in memory. */
static int map_scattered(const struct wish *w)
{
	int ret = map_anonymous(w);
	size_t pages = w->size / PAGE;

	for (size_t i = 0; !ret && w->prot & PROT_WRITE && i < pages; i++)
		w->r->addr[i * 7 % pages * PAGE] = 1;
	return ret;
}

/* Mostly one huge page, seldom two. */
static size_t in_huge_pages(size_t size)
{
	return size < 64 * PAGE ? HUGE_PAGE : 2 * HUGE_PAGE;
}

static int map_thp(const struct wish *w)
{
	struct wish whole = *w;
	int ret;

	whole.size = in_huge_pages(w->size);
	w->r->size = whole.size;
	ret = map_anonymous(&whole);
	if (!ret && madvise(w->r->addr, whole.size, MADV_HUGEPAGE))
		ret = -errno;
	if (!ret && w->prot & PROT_WRITE)
		w->r->addr[0] = 1;
	return ret;
}

static int map_hugetlb(const struct wish *w)
{
	struct wish whole = *w;

	whole.size = in_huge_pages(w->size);
	w->r->size = whole.size;
	return map_at(&whole, MAP_HUGETLB | MAP_ANONYMOUS |
		      (w->special & 1 ? MAP_SHARED : MAP_PRIVATE), -1);
}

static int map_memfd_of(const struct wish *w, unsigned int flags)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	if (fd >= 0 && ftruncate(fd, w->size))
		return close(fd), -errno;
	return map_at(w, w->special & 1 ? MAP_PRIVATE : MAP_SHARED, fd);
}

static int map_memfd(const struct wish *w)
{
	return map_memfd_of(w, 0);
}

static int map_memfd_hugetlb(const struct wish *w)
{
	struct wish whole = *w;

	whole.size = in_huge_pages(w->size);
	w->r->size = whole.size;
	return map_memfd_of(&whole, MFD_HUGETLB);
}

/* Sealed, which the kernel knows by VM_MAYWRITE. */
static int map_sealed(const struct wish *w)
{
	int ret = map_memfd(w);

	if (!ret)
		fcntl(w->r->file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK);
	return ret;
}

static int map_secret(const struct wish *w)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd >= 0 && ftruncate(fd, w->size))
		return close(fd), -errno;
	return map_at(w, MAP_SHARED, fd);
}

static int map_path(const struct wish *w, const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd >= 0 && flags & O_CREAT && ftruncate(fd, w->size))
		return close(fd), -errno;
	return map_at(w, w->special & 1 ? MAP_PRIVATE : MAP_SHARED, fd);
}

static int map_shm_file(const struct wish *w)
{
	return map_path(w, "/tmp/vmemexp-fuzz", O_RDWR | O_CREAT | O_TRUNC);
}

static int map_disk_file(const struct wish *w)
{
	return has_disk() ? map_path(w, MOUNT_POINT "/file", O_RDWR | O_CREAT) : -ENODEV;
}

static int map_own_file(const struct wish *w)
{
	struct wish read_only = *w;

	if (!(w->special & 1))
		read_only.prot &= ~PROT_WRITE;
	return map_path(&read_only, OWN_FILE, O_RDONLY);
}

static int map_zero(const struct wish *w)
{
	return map_path(w, "/dev/zero", O_RDWR);
}

/* Page frames, or pages that a driver inserts one by one. */
static int map_carveout(const struct wish *w)
{
	static const unsigned int set[] = { CARVEOUT_REGION_RAM, 0, 1, CARVEOUT_REGION_RAM };
	struct carveout_setup setup = {
		.region = set[w->special & 3],
		.cache = 1 + (w->special >> 2) % 3,
		.how = (w->special >> 4) % 3,
		.flags = w->special >> 6 & (CARVEOUT_READ_ONLY | CARVEOUT_THEN_REFUSE),
		.nr_faults = w->special >> 8,
	};

	/* Only one of the two; and what cannot be combined goes. */
	if (w->special >> 6 == 0xf)
		setup.flags = CARVEOUT_THEN_TAKE_AWAY;
	if (setup.how != CARVEOUT_HOW_FAULT)
		setup.flags = 0;
	if (!(setup.flags & (CARVEOUT_THEN_REFUSE | CARVEOUT_THEN_TAKE_AWAY)))
		setup.nr_faults = 0;
	return map_at(w, w->special & 1 << 5 && w->special & 1 << 9 ? MAP_PRIVATE : MAP_SHARED,
		      _test_carveout_open(&setup));
}

static int map_udmabuf(const struct wish *w)
{
	return map_at(w, MAP_SHARED, make_udmabuf(w->size));
}

static int map_heap(const struct wish *w)
{
	return map_at(w, MAP_SHARED, make_heap_dmabuf(w->size));
}

static int borrow(const struct wish *w, void *addr)
{
	w->r->addr = (char *)((uintptr_t)addr & -PAGE);
	w->r->size = PAGE;
	w->r->borrowed = true;
	return addr ? 0 : -ENODEV;
}

static int map_vdso(const struct wish *w)
{
	return borrow(w, (void *)getauxval(AT_SYSINFO_EHDR));
}

static int map_stack(const struct wish *w)
{
	return map_at(w, ANON | MAP_STACK | MAP_GROWSDOWN, -1);
}

/* Beyond what a process may have. */
static int map_kernel(const struct wish *w)
{
	static const uint64_t where[] = {
		1ULL << 47, (1ULL << 47) - PAGE, -PAGE, -10 * 1ULL << 20, 0, 1ULL << 32,
	};

	return borrow(w, (void *)(uintptr_t)where[w->special % ARRAY_SIZE(where)]);
}

/* Two things that do not belong together. */
static int map_mixed(const struct wish *w)
{
	struct wish first = *w, second = *w;
	struct region rest = *w->r;
	int ret;

	first.size = PAGE;
	ret = map_anonymous(&first);
	if (ret)
		return ret;
	rest.addr += PAGE;
	second.r = &rest;
	second.size -= PAGE;
	ret = w->special & 2 ? map_carveout(&second) : map_memfd(&second);
	w->r->file = rest.file;
	return second.size ? ret : 0;
}

static int (*const kinds[NR_KINDS])(const struct wish *w) = {
	map_anonymous, map_touched, map_scattered, map_thp, map_hugetlb,
	map_stack, map_memfd, map_memfd_hugetlb, map_sealed, map_secret,
	map_shm_file, map_disk_file, map_own_file, map_zero, map_carveout,
	map_udmabuf, map_heap, map_vdso, map_kernel, map_mixed,
};

/* In pages. Two huge ones are more than the driver pins in one go. */
static const uint8_t sizes[NR_SIZES] = {
	1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 12, 16, 17, 33, 64,
};

int call_map(const struct arg *args)
{
	struct wish wish = {
		.r = &regions[args[0].n % NR_REGIONS],
		.size = sizes[args[2].n % NR_SIZES] * PAGE,
		.prot = args[3].n & 7,
		.special = args[4].n & 0x3ff,
	};
	int ret;

	begin_region(wish.r);
	wish.r->size = wish.size;
	ret = kinds[args[1].n % NR_KINDS](&wish);
	return ret < 0 ? ret : (int)(args[1].n % NR_KINDS);
}

/* --- what is done to it --- */

/* The part that @args name, as far as it lies in the arena. */
static bool find_part(const struct arg *args, char **addr, size_t *size)
{
	const struct region *r = &regions[args[0].n % NR_REGIONS];
	uint64_t offset = bytes_of(&args[1], r->size);
	uint64_t length;

	if (r->borrowed || offset > REGION_SPACE)
		return false;
	length = bytes_of(&args[2], r->size - offset);
	if (length > REGION_SPACE - offset)
		length = REGION_SPACE - offset;
	*addr = r->addr + offset;
	*size = length;
	return true;
}

static int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

int call_munmap(const struct arg *args)
{
	size_t size;
	char *addr;

	return find_part(args, &addr, &size) ? result(munmap(addr, size)) : -ERANGE;
}

int call_mprotect(const struct arg *args)
{
	size_t size;
	char *addr;

	if (!find_part(args, &addr, &size))
		return -ERANGE;
	return result(mprotect(addr, size, args[3].n & 7));
}

/* Moves a part to another region, or changes its size where it is. */
int call_mremap(const struct arg *args)
{
	struct region *to = &regions[args[4].n % NR_REGIONS];
	const struct region *from = &regions[args[0].n % NR_REGIONS];
	size_t size, new_size;
	char *addr, *place;

	if (!find_part(args, &addr, &size))
		return -ERANGE;
	new_size = bytes_of(&args[3], size);
	if (new_size > REGION_SPACE)
		return -ERANGE;
	if (from == to || !args[5].n)
		return result((long)mremap(addr, size, new_size, 0) == -1 ? -1 : 0);
	place = begin_region(to);
	to->size = new_size;
	return result((long)mremap(addr, size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED |
				   (args[5].n == 2 ? MREMAP_DONTUNMAP : 0),
				   place) == -1 ? -1 : 0);
}

int call_madvise(const struct arg *args)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_REMOVE, MADV_FREE, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_COLLAPSE, MADV_COLD, MADV_PAGEOUT,
		MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_DONTDUMP,
	};
	size_t size;
	char *addr;

	if (!find_part(args, &addr, &size))
		return -ERANGE;
	return result(madvise(addr, size, advice[args[3].n % ARRAY_SIZE(advice)]));
}

static void touch(char *addr, size_t size, bool write, size_t step)
{
	volatile char *bytes = addr;

	for (size_t i = 0; i < size; i += step) {
		if (write)
			bytes[i] = i;
		else
			bytes[i];
	}
}

int call_touch(const struct arg *args)
{
	static const size_t steps[] = { PAGE, 7 * PAGE, 2 * PAGE, 1009 };
	const struct region *r = &regions[args[0].n % NR_REGIONS];
	size_t size;
	char *addr;

	if (!find_part(args, &addr, &size) || !r->size)
		return -ERANGE;
	if (!try_access(touch(addr, size, args[3].n & 1, steps[args[4].n & 3])))
		return -EFAULT;
	return 0;
}

int call_truncate(const struct arg *args)
{
	const struct region *r = &regions[args[0].n % NR_REGIONS];
	uint64_t length = bytes_of(&args[1], r->size);

	return length > REGION_SPACE ? -ERANGE : result(ftruncate(r->file, length));
}

int call_punch(const struct arg *args)
{
	const struct region *r = &regions[args[0].n % NR_REGIONS];

	return result(fallocate(r->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				bytes_of(&args[1], r->size), bytes_of(&args[2], r->size)));
}

int call_take_away(const struct arg *args)
{
	const struct region *r = &regions[args[0].n % NR_REGIONS];

	return _test_ioctl(r->file, CARVEOUT_IOC_TAKE_AWAY, NULL);
}

/* A child looks at the region, or writes to it, and is gone. */
int call_fork(const struct arg *args)
{
	const struct region *r = &regions[args[0].n % NR_REGIONS];
	bool write = args[1].n & 1 && !r->borrowed;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		try_access(touch(r->addr, r->size, write, PAGE));
		_exit(0);
	}
	/* An alarm may come meanwhile. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

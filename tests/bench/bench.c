// SPDX-License-Identifier: GPL-2.0
/*
 * bench: what vmemexp costs, beside what else could be done with the same memory
 *
 * Usage: bench [--max BYTES] [--only OPERATION,...] [--memory MEMORY,...]
 *        bench --profile OPERATION METHOD MEMORY BYTES
 *
 * Each line on stdout is the result of one measurement, its fields separated by
 * blanks; tests/bench/run makes tables and plots of them:
 *
 *	unit ns
 *	    of all times. They are the clock's: on a board, time; in QEMU with
 *	    -icount shift=0, a nanosecond is an instruction.
 *	time OPERATION METHOD MEMORY BYTES RUNS MINIMUM MEDIAN
 *	kept METHOD MEMORY BYTES EXTENTS BUFFERS DRIVER_BYTES ALL_BYTES
 *	    kernel memory for one buffer, as the mean over BUFFERS. DRIVER_BYTES is
 *	    what lies in kmalloc's caches and in vmalloc's memory; ALL_BYTES has in
 *	    addition the inode, the dentry and the file that each dma-buf has.
 *	extents MEMORY BYTES EXTENTS
 *	    how scattered the memory is that was exported
 *	absent OPERATION METHOD MEMORY BYTES ERRNO
 *	    could not be measured; OPERATION is "memory", and BYTES 0, if there is no
 *	    such memory
 *
 * MEMORY is
 *	4k	pages of the smallest size, no two of which lie side by side
 *	thp	anonymous memory in transparent huge pages
 *	hugetlb	pages of hugetlbfs, of the default size
 *	shared-thp, shared-hugetlb
 *		a shared mapping of a memfd in such pages. udmabuf gets this memfd; for
 *		the three above it gets another one, of the same sort.
 *	carveout, carveout-fault, carveout-huge
 *		page frames without struct page, mapped at mmap(), by faults, and by
 *		faults with huge entries. All are mapped before anything is measured.
 *	paged, paged-fault, paged-huge
 *		page frames with struct page, mapped in the same ways
 *
 * "export-list-N" is the export and close of a list of N ranges of one size, the last part
 * of the memory first.
 *
 * "query" asks for what there is to know of a buffer. "list" reads the list of buffers
 * to its end: BYTES are those of all buffers, a page each. Syncs with a device that is
 * not cache coherent, or that sees the memory through a copy, have names that end in
 * "-noncoherent" and "-bounced"; on x86 there are none of the former. Any other device
 * is coherent.
 *
 * The cost of reading the clock is subtracted, that of a system call's way into the
 * kernel and back is not.
 *
 * --max leaves larger sizes out; --only measures some operations, of vmemexp and all
 * others; --memory measures with some sorts of memory. --profile does one thing over and
 * over for two seconds, and prints "sample ADDRESS" for where the CPU was, now and then.
 *
 * Wants root, and the modules vmemexp, vmemexp_importer and, for carve-outs,
 * vmemexp_carveout: its first region without and its first one with struct page are
 * what is exported, up to 256 MiB of them. Huge entries want regions that begin and end
 * at a multiple of a huge page. For "-bounced", the kernel has to find free memory above
 * 4 GiB, where it looks first.
 */
#include <asm/unistd.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/udmabuf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "../../include/uapi/vmemexp.h"
#include "../modules/carveout/vmemexp_carveout.h"
#include "../modules/importer/vmemexp_importer.h"

#define KIB		1024UL
#define MIB		(1024 * KIB)
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define EXIT_USAGE	2

/* The largest size, only exported: it shows if the cost of a page depends on their number. */
#define LARGEST		(1024 * MIB)
/* The largest size of all other measurements. */
#define LARGE		(256 * MIB)

#define MAX_RUNS	32

#define SETTLE_SECONDS	10

/* A picture in a carve-out: 3840x2160, 32 bits a pixel. */
#define UHD_SIZE	(3840 * 2160 * 4UL)

/* In which lists of ranges are compared, and the longest of these. */
#define LIST_SIZE	(32 * MIB)
#define MAX_LIST	16

#define VMEMEXP_CARVEOUTS	"/sys/module/vmemexp/parameters/carveouts"
#define VMEMEXP_LIST		"/sys/kernel/debug/vmemexp/buffers"
#define LIST_READ		(64 * KIB)

/* The picture of which a part is synced: 32 bits a pixel. */
#define FRAME_STRIDE	(1920 * 4UL)
#define FRAME_SIZE	(1080 * FRAME_STRIDE)
#define PART_ROWS	480
#define PART_LENGTH	(640 * 4UL)
#define PART_OFFSET	(300 * FRAME_STRIDE + 640 * 4UL)

static size_t page_size, huge_page_bytes;
static int vmemexp_fd, importer_fd, heap_fd, udmabuf_fd, gup_fd, ring_fd;

/* --- the clock --- */

static uint64_t clock_cost;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void measure_clock(void)
{
	uint64_t begin, cost;
	int i;

	clock_cost = UINT64_MAX;
	for (i = 0; i < 1000; i++) {
		begin = now();
		cost = now() - begin;
		if (cost < clock_cost)
			clock_cost = cost;
	}
}

/* A stop watch for the parts of one run. */
#define MAX_PARTS	3

struct watch {
	uint64_t begin;
	uint64_t parts[MAX_PARTS];
};

static void start(struct watch *w)
{
	w->begin = now();
}

static void stop(struct watch *w, unsigned int part)
{
	uint64_t elapsed = now() - w->begin;

	w->parts[part] += elapsed > clock_cost ? elapsed - clock_cost : 0;
}

/* --- memory --- */

/* The origin of memory in huge pages, and who else maps it. */
#define OF_HUGETLB	1
#define IS_SHARED	2
#define IS_CARVEOUT	4

/* Measured from the last to the first: huge pages while free memory is not scattered. */
enum memory {
	SMALL_PAGES,
	CARVEOUT_REMAPPED, CARVEOUT_FAULTED, CARVEOUT_HUGE,
	PAGED_REMAPPED, PAGED_FAULTED, PAGED_HUGE,
	SHARED_THP, SHARED_HUGETLB, THP, HUGETLB, NR_MEMORY
};

/*
 * The last two are of carve-outs: the flags of CARVEOUT_IOC_INFO for the region, and how it is
 * mapped.
 */
static const struct kind {
	const char *name;
	unsigned int flags;
	unsigned int region;
	unsigned int how;
} kinds[] = {
	[SMALL_PAGES] = { "4k", 0, 0, 0 },
	[CARVEOUT_REMAPPED] = { "carveout", IS_CARVEOUT, 0, CARVEOUT_HOW_REMAP },
	[CARVEOUT_FAULTED] = { "carveout-fault", IS_CARVEOUT, 0, CARVEOUT_HOW_FAULT },
	[CARVEOUT_HUGE] = { "carveout-huge", IS_CARVEOUT, 0, CARVEOUT_HOW_HUGE },
	[PAGED_REMAPPED] = { "paged", IS_CARVEOUT, CARVEOUT_INFO_PAGES, CARVEOUT_HOW_REMAP },
	[PAGED_FAULTED] = { "paged-fault", IS_CARVEOUT, CARVEOUT_INFO_PAGES,
			    CARVEOUT_HOW_FAULT },
	[PAGED_HUGE] = { "paged-huge", IS_CARVEOUT, CARVEOUT_INFO_PAGES, CARVEOUT_HOW_HUGE },
	[SHARED_THP] = { "shared-thp", IS_SHARED, 0, 0 },
	[SHARED_HUGETLB] = { "shared-hugetlb", IS_SHARED | OF_HUGETLB, 0, 0 },
	[THP] = { "thp", 0, 0, 0 },
	[HUGETLB] = { "hugetlb", OF_HUGETLB, 0, 0 },
};

/* Memory to export, and a memfd of the same sort for udmabuf. */
struct area {
	enum memory memory;
	char *addr;
	size_t size;
	int memfd;
};

static bool is(enum memory memory, unsigned int flag)
{
	return kinds[memory].flags & flag;
}

static size_t huge_page_size(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	size_t kib = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Hugepagesize: %zu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * KIB;
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return written;
}

/*
 * Touches every page once. The kernel hands out pages that lie side by side one after
 * the other, so small ones are touched in an order in which no two neighbours follow
 * each other: the largest odd number that Fibonacci hashing would take.
 */
static void populate(char *addr, size_t size, enum memory memory)
{
	size_t pages = size / page_size, step = 1, i;

	if (memory == SMALL_PAGES && pages > 2)
		step = (size_t)(pages * 0.618) | 1;
	/* Odd, so it meets every page if their number is a power of two. */
	if (pages & (pages - 1))
		step = 1;
	for (i = 0; i < pages; i++)
		*(volatile char *)(addr + i * step % pages * page_size) = 1;
}

/*
 * Finds an address at which huge entries are possible, where nothing is mapped now.
 * Returns NULL if there is none.
 */
static char *free_place(size_t size)
{
	size_t huge = huge_page_bytes;
	char *addr;

	addr = mmap(NULL, size + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (addr == MAP_FAILED)
		return NULL;
	munmap(addr, size + huge);
	return (char *)(((uintptr_t)addr + huge - 1) & ~(huge - 1));
}

/* @fd: what is mapped, or -1 for anonymous memory. */
static char *map_area(enum memory memory, size_t size, int fd)
{
	int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	char *addr;

	if (fd < 0 && is(memory, OF_HUGETLB))
		flags |= MAP_HUGETLB;
	addr = mmap(free_place(size), size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (addr == MAP_FAILED)
		return NULL;
	if (memory == SMALL_PAGES)
		madvise(addr, size, MADV_NOHUGEPAGE);
	else if (memory == THP || memory == SHARED_THP)
		madvise(addr, size, MADV_HUGEPAGE);
	return addr;
}

/* The memfd is populated through a mapping, which then goes. */
static void make_memfd(struct area *area, size_t size)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	char *addr;

	if (is(area->memory, OF_HUGETLB))
		flags |= MFD_HUGETLB;
	area->memfd = memfd_create("bench", flags);
	if (area->memfd < 0 || ftruncate(area->memfd, size))
		err(1, "memfd");
	addr = map_area(area->memory, size, area->memfd);
	if (!addr)
		err(1, "memfd of %s", kinds[area->memory].name);
	populate(addr, size, area->memory);
	munmap(addr, size);
	if (fcntl(area->memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		err(1, "F_SEAL_SHRINK");
}

/* Returns a file that maps the first region of the sort, or a negative errno. */
static int open_carveout(enum memory memory, struct carveout_info *info)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED, .how = kinds[memory].how };
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	for (info->region = 0; !ioctl(fd, CARVEOUT_IOC_INFO, info); info->region++) {
		if (info->flags != kinds[memory].region)
			continue;
		setup.region = info->region;
		if (!ioctl(fd, CARVEOUT_IOC_SETUP, &setup))
			return fd;
		break;
	}
	ret = -errno;
	close(fd);
	return ret;
}

/* The administrator has listed it, as he should. */
static int make_carveout(struct area *area)
{
	struct carveout_info info;
	int fd = open_carveout(area->memory, &info);
	char text[64];

	if (fd < 0)
		return fd;
	snprintf(text, sizeof(text), "%#llx:%#llx", (unsigned long long)info.base,
		 (unsigned long long)info.size);
	if (!write_file(VMEMEXP_CARVEOUTS, text))
		err(1, "%s", VMEMEXP_CARVEOUTS);
	if (area->size > info.size)
		area->size = info.size;
	area->addr = map_area(area->memory, area->size, fd);
	if (!area->addr)
		err(1, "%zu bytes of %s", area->size, kinds[area->memory].name);
	close(fd);
	populate(area->addr, area->size, area->memory);
	return 0;
}

/* Returns a negative errno if there is no such memory. */
static int make_area(struct area *area, enum memory memory, size_t size)
{
	bool shared = is(memory, IS_SHARED);
	char text[32];

	*area = (struct area){ .memory = memory, .size = size, .memfd = -1 };
	if (is(memory, IS_CARVEOUT))
		return make_carveout(area);
	if (is(memory, OF_HUGETLB)) {
		/* One area for the memfd, if that is another one. */
		snprintf(text, sizeof(text), "%zu", (shared ? 1 : 2) * size / huge_page_bytes);
		if (!write_file("/proc/sys/vm/nr_hugepages", text))
			err(1, "nr_hugepages");
	}
	if (shared)
		make_memfd(area, size);
	area->addr = map_area(memory, size, area->memfd);
	if (!area->addr)
		err(1, "%zu bytes of %s", size, kinds[memory].name);
	populate(area->addr, size, memory);
	if (!shared)
		make_memfd(area, size < LARGE ? size : LARGE);
	return 0;
}

static void drop_area(struct area *area)
{
	munmap(area->addr, area->size);
	if (area->memfd >= 0)
		close(area->memfd);
	if (is(area->memory, OF_HUGETLB))
		write_file("/proc/sys/vm/nr_hugepages", "0");
}

/* --- what is compared --- */

/* The range that a measurement is about, and the dma-buf of it where it wants one. */
struct subject {
	const struct area *area;
	size_t size;
	unsigned int ranges;
	int fd;
};

static int vmemexp_export(const struct subject *s)
{
	struct vmemexp_export arg = {
		.size = sizeof(arg), .vaddr = (uintptr_t)s->area->addr, .length = s->size,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};

	return ioctl(vmemexp_fd, VMEMEXP_IOC_EXPORT, &arg) ? -1 : arg.fd;
}

static int udmabuf_create(const struct subject *s)
{
	struct udmabuf_create arg = {
		.memfd = s->area->memfd, .flags = UDMABUF_FLAGS_CLOEXEC, .size = s->size,
	};

	return ioctl(udmabuf_fd, UDMABUF_CREATE, &arg);
}

/* Where part @i of a list begins. Those that follow each other do not in memory. */
static size_t part_start(const struct subject *s, unsigned int i)
{
	return (s->ranges - 1 - i) * (s->size / s->ranges);
}

static int vmemexp_export_list(const struct subject *s)
{
	struct vmemexp_range ranges[MAX_LIST];
	struct vmemexp_export arg = {
		.size = sizeof(arg), .ranges = (uintptr_t)ranges, .nr_ranges = s->ranges,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};

	for (unsigned int i = 0; i < s->ranges; i++)
		ranges[i] = (struct vmemexp_range){
			.vaddr = (uintptr_t)s->area->addr + part_start(s, i),
			.length = s->size / s->ranges,
		};
	return ioctl(vmemexp_fd, VMEMEXP_IOC_EXPORT, &arg) ? -1 : arg.fd;
}

static int udmabuf_create_list(const struct subject *s)
{
	struct {
		struct udmabuf_create_list head;
		struct udmabuf_create_item items[MAX_LIST];
	} arg = { .head = { .flags = UDMABUF_FLAGS_CLOEXEC, .count = s->ranges } };

	for (unsigned int i = 0; i < s->ranges; i++)
		arg.items[i] = (struct udmabuf_create_item){
			.memfd = s->area->memfd, .offset = part_start(s, i),
			.size = s->size / s->ranges,
		};
	return ioctl(udmabuf_fd, UDMABUF_CREATE_LIST, &arg);
}

static int heap_allocate(const struct subject *s)
{
	struct dma_heap_allocation_data arg = {
		.len = s->size, .fd_flags = O_RDWR | O_CLOEXEC,
	};

	return ioctl(heap_fd, DMA_HEAP_IOCTL_ALLOC, &arg) ? -1 : (int)arg.fd;
}

/* --- export and close --- */

static int time_create(struct subject *s, struct watch *w, int (*create)(const struct subject *))
{
	int fd;

	start(w);
	fd = create(s);
	stop(w, 0);
	if (fd < 0)
		return -errno;
	start(w);
	close(fd);
	stop(w, 1);
	return 0;
}

static int export_vmemexp(struct subject *s, struct watch *w)
{
	return time_create(s, w, vmemexp_export);
}

static int export_udmabuf(struct subject *s, struct watch *w)
{
	return time_create(s, w, udmabuf_create);
}

static int export_vmemexp_list(struct subject *s, struct watch *w)
{
	return time_create(s, w, vmemexp_export_list);
}

static int export_udmabuf_list(struct subject *s, struct watch *w)
{
	return time_create(s, w, udmabuf_create_list);
}

/* Allocates and copies, which is what an export saves. */
static int export_heap(struct subject *s, struct watch *w)
{
	char *addr;
	int fd;

	start(w);
	fd = heap_allocate(s);
	if (fd < 0)
		return -errno;
	addr = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED)
		return -errno;
	memcpy(addr, s->area->addr, s->size);
	stop(w, 0);
	start(w);
	munmap(addr, s->size);
	close(fd);
	stop(w, 1);
	return 0;
}

/*
 * The kernel's own test of pinning, CONFIG_GUP_TEST. Its header is not among those
 * for programs. FOLL_* are the numbers since v6.3.
 */
struct gup_test {
	uint64_t get_delta_usec;
	uint64_t put_delta_usec;
	uint64_t addr;
	uint64_t size;
	uint32_t nr_pages_per_call;
	uint32_t gup_flags;
	uint32_t test_flags;
	uint32_t which_pages[8];
};

#define PIN_FAST_BENCHMARK	_IOWR('g', 2, struct gup_test)
#define FOLL_WRITE		0x1
#define FOLL_LONGTERM		0x100

/*
 * The lower bound: pin_user_pages_fast() and unpin_user_pages() and nothing else.
 * (PIN_LONGTERM_BENCHMARK takes the slow way.) It is told in microseconds, cut off.
 */
static int export_pin(struct subject *s, struct watch *w)
{
	struct gup_test arg = {
		.addr = (uintptr_t)s->area->addr, .size = s->size,
		.nr_pages_per_call = s->size / page_size,
		.gup_flags = FOLL_WRITE | FOLL_LONGTERM,
	};

	if (ioctl(gup_fd, PIN_FAST_BENCHMARK, &arg))
		return -errno;
	if (arg.size != s->size)
		return -EFAULT;
	w->parts[0] = arg.get_delta_usec * 1000;
	w->parts[1] = arg.put_delta_usec * 1000;
	return 0;
}

static int ring_register(unsigned int what, const void *arg, unsigned int count)
{
	return syscall(__NR_io_uring_register, ring_fd, what, arg, count) ? -errno : 0;
}

static int export_io_uring(struct subject *s, struct watch *w)
{
	struct iovec iov = { .iov_base = s->area->addr, .iov_len = s->size };
	int ret;

	start(w);
	ret = ring_register(IORING_REGISTER_BUFFERS, &iov, 1);
	stop(w, 0);
	if (ret)
		return ret;
	start(w);
	ret = ring_register(IORING_UNREGISTER_BUFFERS, NULL, 0);
	stop(w, 1);
	return ret;
}

/* --- what is done to a dma-buf --- */

static int map_and_touch(struct subject *s, struct watch *w)
{
	char *place = free_place(s->size);
	volatile char *addr;
	size_t offset;

	start(w);
	addr = mmap(place, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	stop(w, 0);
	if (addr == MAP_FAILED)
		return -errno;
	start(w);
	for (offset = 0; offset < s->size; offset += page_size)
		addr[offset] = 1;
	stop(w, 1);
	start(w);
	munmap((void *)addr, s->size);
	stop(w, 2);
	return 0;
}

static int importer_attach(int fd, unsigned int device)
{
	struct importer_attach arg = { .dmabuf_fd = fd, .device = device };

	return ioctl(importer_fd, IMPORTER_IOC_ATTACH, &arg);
}

static int importer_map(void)
{
	struct importer_direction arg = { .direction = IMPORTER_BIDIRECTIONAL };

	return ioctl(importer_fd, IMPORTER_IOC_MAP, &arg);
}

/* The importer makes a device for each attachment, which has a cost of its own. */
static int attach_and_map(struct subject *s, struct watch *w)
{
	start(w);
	if (importer_attach(s->fd, IMPORTER_DEV_COHERENT))
		return -errno;
	stop(w, 0);
	start(w);
	if (importer_map() || ioctl(importer_fd, IMPORTER_IOC_UNMAP))
		return -errno;
	stop(w, 1);
	start(w);
	if (ioctl(importer_fd, IMPORTER_IOC_DETACH))
		return -errno;
	stop(w, 2);
	return 0;
}

static int map_again(struct subject *s, struct watch *w)
{
	(void)s;
	start(w);
	if (importer_map())
		return -errno;
	stop(w, 0);
	start(w);
	if (ioctl(importer_fd, IMPORTER_IOC_UNMAP))
		return -errno;
	stop(w, 1);
	return 0;
}

static int kernel_map(struct subject *s, struct watch *w)
{
	(void)s;
	start(w);
	if (ioctl(importer_fd, IMPORTER_IOC_VMAP))
		return -errno;
	stop(w, 0);
	start(w);
	if (ioctl(importer_fd, IMPORTER_IOC_VUNMAP))
		return -errno;
	stop(w, 1);
	return 0;
}

static int query_buffer(struct subject *s, struct watch *w)
{
	struct vmemexp_query arg = { .size = sizeof(arg), .fd = s->fd };

	start(w);
	if (ioctl(vmemexp_fd, VMEMEXP_IOC_QUERY, &arg))
		return -errno;
	stop(w, 0);
	return 0;
}

/* The list of all buffers, with whatever it costs to begin. */
static int read_list(struct subject *s, struct watch *w)
{
	static char buffer[LIST_READ];
	ssize_t got;
	int fd;

	(void)s;
	start(w);
	fd = open(VMEMEXP_LIST, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do {
		got = read(fd, buffer, sizeof(buffer));
	} while (got > 0);
	close(fd);
	stop(w, 0);
	return got ? -errno : 0;
}

/* An ioctl that does nothing, for the way into the kernel and back. */
static int empty_ioctl(struct subject *s, struct watch *w)
{
	(void)s;
	start(w);
	ioctl(vmemexp_fd, _IO('V', 0xff), NULL);
	stop(w, 0);
	return 0;
}

/* --- syncs: START and END --- */

static int sync_range(struct subject *s, struct watch *w, size_t offset, size_t length,
		      unsigned int rows)
{
	struct vmemexp_sync arg = {
		.size = sizeof(arg), .fd = s->fd, .flags = VMEMEXP_SYNC_RW, .offset = offset,
		.length = length, .rows = rows, .stride = FRAME_STRIDE,
	};

	start(w);
	if (ioctl(vmemexp_fd, VMEMEXP_IOC_SYNC, &arg))
		return -errno;
	stop(w, 0);
	arg.flags |= VMEMEXP_SYNC_END;
	start(w);
	if (ioctl(vmemexp_fd, VMEMEXP_IOC_SYNC, &arg))
		return -errno;
	stop(w, 1);
	return 0;
}

static int sync_4k(struct subject *s, struct watch *w)
{
	return sync_range(s, w, s->size / 2, 4096, 1);
}

static int sync_row(struct subject *s, struct watch *w)
{
	return sync_range(s, w, s->size / 2, FRAME_STRIDE, 1);
}

static int sync_rectangle(struct subject *s, struct watch *w)
{
	return sync_range(s, w, PART_OFFSET, PART_LENGTH, PART_ROWS);
}

static int sync_all(struct subject *s, struct watch *w)
{
	return sync_range(s, w, 0, s->size, 1);
}

static int sync_dmabuf(struct subject *s, struct watch *w)
{
	struct dma_buf_sync arg = { .flags = DMA_BUF_SYNC_RW };

	start(w);
	if (ioctl(s->fd, DMA_BUF_IOCTL_SYNC, &arg))
		return -errno;
	stop(w, 0);
	arg.flags |= DMA_BUF_SYNC_END;
	start(w);
	if (ioctl(s->fd, DMA_BUF_IOCTL_SYNC, &arg))
		return -errno;
	stop(w, 1);
	return 0;
}

/* --- the measurements --- */

/* Needed before a measurement begins. */
#define NEEDS_BUFFER	1	/* a dma-buf */
#define NEEDS_ATTACH	2	/* one that the importer has attached */
#define NEEDS_MAP	4	/* and mapped */
#define NONCOHERENT	8	/* by a device that is not cache coherent */
#define BOUNCED		16	/* by one that sees nothing but copies */
/* And, in the same field, of how many parts the range is made. */
#define LIST_OF(parts)	((parts) << 8)

struct measurement {
	const char *operation;
	const char *method;
	/* Names of what the watch's parts are; the sum is the operation itself. */
	const char *parts[MAX_PARTS];
	int (*create)(const struct subject *s);
	int (*run)(struct subject *s, struct watch *w);
	unsigned int needs;
	size_t min_size;
	size_t max_size;
};

#define EXPORT_PARTS	{ "export", "close" }
#define MMAP_PARTS	{ "mmap", "touch", "munmap" }
#define ATTACH_PARTS	{ "attach", "first-map", "detach" }
#define REMAP_PARTS	{ "map", "unmap" }
#define VMAP_PARTS	{ "vmap", "vunmap" }
#define SYNC_PARTS	{ "start", "end" }

static const struct measurement measurements[] = {
	{ "empty-ioctl", "vmemexp", {}, NULL, empty_ioctl, 0, 0, 4096 },

	{ "export+close", "vmemexp", EXPORT_PARTS, NULL, export_vmemexp, 0, 0, LARGEST },
	{ "export+close", "pin", EXPORT_PARTS, NULL, export_pin, 0, 0, LARGEST },
	{ "export+close", "io_uring", EXPORT_PARTS, NULL, export_io_uring, 0, 0, LARGE },
	{ "export+close", "udmabuf", EXPORT_PARTS, NULL, export_udmabuf, 0, 0, LARGE },
	{ "export+close", "heap+copy", EXPORT_PARTS, NULL, export_heap, 0, 0, LARGE },

	{ "export-list-1", "vmemexp", {}, NULL, export_vmemexp_list, LIST_OF(1),
	  LIST_SIZE, LIST_SIZE },
	{ "export-list-1", "udmabuf", {}, NULL, export_udmabuf_list, LIST_OF(1),
	  LIST_SIZE, LIST_SIZE },
	{ "export-list-4", "vmemexp", {}, NULL, export_vmemexp_list, LIST_OF(4),
	  LIST_SIZE, LIST_SIZE },
	{ "export-list-4", "udmabuf", {}, NULL, export_udmabuf_list, LIST_OF(4),
	  LIST_SIZE, LIST_SIZE },
	{ "export-list-16", "vmemexp", {}, NULL, export_vmemexp_list, LIST_OF(16),
	  LIST_SIZE, LIST_SIZE },
	{ "export-list-16", "udmabuf", {}, NULL, export_udmabuf_list, LIST_OF(16),
	  LIST_SIZE, LIST_SIZE },

	{ "mmap+touch+munmap", "vmemexp", MMAP_PARTS, vmemexp_export, map_and_touch,
	  NEEDS_BUFFER, 0, LARGE },
	{ "mmap+touch+munmap", "udmabuf", MMAP_PARTS, udmabuf_create, map_and_touch,
	  NEEDS_BUFFER, 0, LARGE },
	{ "mmap+touch+munmap", "heap", MMAP_PARTS, heap_allocate, map_and_touch,
	  NEEDS_BUFFER, 0, LARGE },

	{ "attach+map+unmap+detach", "vmemexp", ATTACH_PARTS, vmemexp_export, attach_and_map,
	  NEEDS_BUFFER, 0, LARGE },
	{ "attach+map+unmap+detach", "udmabuf", ATTACH_PARTS, udmabuf_create, attach_and_map,
	  NEEDS_BUFFER, 0, LARGE },
	{ "attach+map+unmap+detach", "heap", ATTACH_PARTS, heap_allocate, attach_and_map,
	  NEEDS_BUFFER, 0, LARGE },

	{ "map+unmap", "vmemexp", REMAP_PARTS, vmemexp_export, map_again,
	  NEEDS_ATTACH, 0, LARGE },
	{ "map+unmap", "udmabuf", REMAP_PARTS, udmabuf_create, map_again,
	  NEEDS_ATTACH, 0, LARGE },
	{ "map+unmap", "heap", REMAP_PARTS, heap_allocate, map_again,
	  NEEDS_ATTACH, 0, LARGE },

	{ "vmap+vunmap", "vmemexp", VMAP_PARTS, vmemexp_export, kernel_map,
	  NEEDS_ATTACH, 0, LARGE },
	{ "vmap+vunmap", "udmabuf", VMAP_PARTS, udmabuf_create, kernel_map,
	  NEEDS_ATTACH, 0, LARGE },
	{ "vmap+vunmap", "heap", VMAP_PARTS, heap_allocate, kernel_map,
	  NEEDS_ATTACH, 0, LARGE },

	{ "sync-4k-unmapped", "vmemexp", SYNC_PARTS, vmemexp_export, sync_4k,
	  NEEDS_BUFFER, MIB, LARGE },
	{ "sync-4k", "vmemexp", SYNC_PARTS, vmemexp_export, sync_4k,
	  NEEDS_MAP, MIB, LARGE },
	{ "sync-row", "vmemexp", SYNC_PARTS, vmemexp_export, sync_row,
	  NEEDS_MAP, MIB, LARGE },
	{ "sync-rectangle", "vmemexp", SYNC_PARTS, vmemexp_export, sync_rectangle,
	  NEEDS_MAP, FRAME_SIZE, LARGE },
	{ "sync-all", "vmemexp", SYNC_PARTS, vmemexp_export, sync_all,
	  NEEDS_MAP, MIB, LARGE },
	{ "sync-all", "DMA_BUF_IOCTL_SYNC", SYNC_PARTS, vmemexp_export, sync_dmabuf,
	  NEEDS_MAP, MIB, LARGE },
	{ "sync-all", "heap", SYNC_PARTS, heap_allocate, sync_dmabuf,
	  NEEDS_MAP, MIB, LARGE },

	{ "sync-rectangle-noncoherent", "vmemexp", SYNC_PARTS, vmemexp_export, sync_rectangle,
	  NEEDS_MAP | NONCOHERENT, 16 * MIB, 16 * MIB },
	{ "sync-all-noncoherent", "vmemexp", SYNC_PARTS, vmemexp_export, sync_all,
	  NEEDS_MAP | NONCOHERENT, 16 * MIB, 16 * MIB },
	{ "sync-rectangle-bounced", "vmemexp", SYNC_PARTS, vmemexp_export, sync_rectangle,
	  NEEDS_MAP | BOUNCED, 16 * MIB, 16 * MIB },
	{ "sync-all-bounced", "vmemexp", SYNC_PARTS, vmemexp_export, sync_all,
	  NEEDS_MAP | BOUNCED, 16 * MIB, 16 * MIB },

	{ "query", "vmemexp", {}, vmemexp_export, query_buffer, NEEDS_BUFFER, 0, LARGE },
};

static const struct measurement list_measurement = {
	"list", "vmemexp", {}, NULL, read_list, 0, 0, 0
};

/* Carve-outs are no memory of the peers, but they can be copied. */
static bool is_for_carveout(const struct measurement *m)
{
	if (m->run == map_and_touch)
		return m->create == vmemexp_export;
	return m->run == export_vmemexp || m->run == export_heap ||
	       (m->create == vmemexp_export && (m->run == sync_rectangle || m->run == sync_all));
}

static bool is_measured(const struct measurement *m, size_t size, enum memory memory)
{
	if (size < m->min_size || size > m->max_size)
		return false;
	if (memory != SMALL_PAGES && m->needs & (NONCOHERENT | BOUNCED))
		return false;
	if (is(memory, IS_CARVEOUT))
		return is_for_carveout(m);
	return !is(memory, IS_SHARED) || !strncmp(m->operation, "export", strlen("export"));
}

static unsigned int device_of(const struct measurement *m)
{
	if (m->needs & NONCOHERENT)
		return IMPORTER_DEV_NONCOHERENT;
	return m->needs & BOUNCED ? IMPORTER_DEV_MASK32 : IMPORTER_DEV_COHERENT;
}

/* The importer has such a device everywhere, but on x86 it is as coherent as any other. */
static bool has_device(const struct measurement *m)
{
	struct utsname names;

	return !(m->needs & NONCOHERENT) || uname(&names) || !strstr(names.machine, "86");
}

static bool sees_copies_alone(void)
{
	struct importer_info info;

	return !ioctl(importer_fd, IMPORTER_IOC_INFO, &info) && info.nents &&
	       info.flags & IMPORTER_INFO_BOUNCED && info.nr_bounced == info.nents;
}

/* Prepares what @m needs; undone by give_up(). */
static int prepare(const struct measurement *m, struct subject *s)
{
	s->fd = -1;
	if (!m->create)
		return 0;
	s->fd = m->create(s);
	if (s->fd < 0)
		return -errno;
	if (!has_device(m))
		return -EOPNOTSUPP;
	if (m->needs & (NEEDS_ATTACH | NEEDS_MAP) && importer_attach(s->fd, device_of(m)))
		return -errno;
	if (m->needs & NEEDS_MAP && importer_map())
		return -errno;
	return m->needs & BOUNCED && !sees_copies_alone() ? -ERANGE : 0;
}

/* Whatever of it there is; what is not held is refused. */
static void give_up(struct subject *s)
{
	ioctl(importer_fd, IMPORTER_IOC_VUNMAP);
	ioctl(importer_fd, IMPORTER_IOC_UNMAP);
	ioctl(importer_fd, IMPORTER_IOC_DETACH);
	if (s->fd >= 0)
		close(s->fd);
}

static int compare_times(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static void print_times(const char *operation, const struct measurement *m,
			const struct subject *s, uint64_t *times, unsigned int runs)
{
	qsort(times, runs, sizeof(*times), compare_times);
	printf("time %s %s %s %zu %u %llu %llu\n", operation, m->method,
	       kinds[s->area->memory].name, s->size, runs, (unsigned long long)times[0],
	       (unsigned long long)times[runs / 2]);
}

static unsigned int number_of_runs(size_t size)
{
	if (size <= MIB)
		return 21;
	return size <= 16 * MIB ? 9 : 3;
}

static void print_absent(const char *operation, const char *method, enum memory memory,
			 size_t size, int error)
{
	printf("absent %s %s %s %zu %d\n", operation, method, kinds[memory].name, size, error);
}

/* Measures what is prepared. Returns 0 or a negative errno. */
static int measure_prepared(const struct measurement *m, struct subject *s)
{
	static uint64_t times[MAX_PARTS + 1][MAX_RUNS];
	unsigned int runs = number_of_runs(s->size), run, part;
	struct watch w = {};
	int ret = 0;

	/* One in vain, where it may matter that something is done for the first time. */
	if (s->size <= 16 * MIB)
		ret = m->run(s, &w);
	for (run = 0; !ret && run < runs; run++) {
		memset(&w, 0, sizeof(w));
		ret = m->run(s, &w);
		times[MAX_PARTS][run] = 0;
		for (part = 0; part < MAX_PARTS; part++) {
			times[part][run] = w.parts[part];
			times[MAX_PARTS][run] += w.parts[part];
		}
	}
	if (ret)
		return ret;
	print_times(m->operation, m, s, times[MAX_PARTS], runs);
	for (part = 0; part < MAX_PARTS && m->parts[part]; part++)
		print_times(m->parts[part], m, s, times[part], runs);
	return 0;
}

static void measure(const struct measurement *m, const struct area *area, size_t size)
{
	struct subject s = { .area = area, .size = size, .ranges = m->needs / LIST_OF(1) };
	int ret = prepare(m, &s);

	if (!ret)
		ret = measure_prepared(m, &s);
	give_up(&s);
	if (ret)
		print_absent(m->operation, m->method, area->memory, size, -ret);
}

/* How many extents the first @size bytes of @area have; 0: not known. */
static unsigned long long physical_extents(const struct area *area, size_t size)
{
	struct subject s = { .area = area, .size = size };
	struct vmemexp_query query = { .size = sizeof(query) };

	query.fd = vmemexp_export(&s);
	if (query.fd < 0)
		return 0;
	if (ioctl(vmemexp_fd, VMEMEXP_IOC_QUERY, &query))
		query.nr_extents = 0;
	close(query.fd);
	return query.nr_extents;
}

static const size_t sizes[] = {
	4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 32 * MIB, 64 * MIB,
	256 * MIB, 1024 * MIB,
};

/* Returns true if @list, names with commas in between, has @name. NULL has all. */
static bool has_name(const char *list, const char *name)
{
	size_t length = strlen(name);

	if (!list)
		return true;
	for (; list; list = strchr(list, ',')) {
		list += *list == ',';
		if (!strncmp(list, name, length) && (!list[length] || list[length] == ','))
			return true;
	}
	return false;
}

static void measure_size(const struct area *area, size_t size, const char *only)
{
	const struct measurement *m = measurements;

	printf("extents %s %zu %llu\n", kinds[area->memory].name, size,
	       physical_extents(area, size));
	for (; m < measurements + ARRAY_SIZE(measurements); m++)
		if (is_measured(m, size, area->memory) && has_name(only, m->operation))
			measure(m, area, size);
	fflush(stdout);
}

/* A picture, or what huge entries can map of it, and the whole. */
static void measure_carveout(const struct area *area, const char *only)
{
	size_t size = UHD_SIZE;

	if (kinds[area->memory].how == CARVEOUT_HOW_HUGE)
		size &= ~(huge_page_bytes - 1);
	if (size < area->size)
		measure_size(area, size, only);
	measure_size(area, area->size, only);
}

static void measure_all(const struct area *area, const char *only)
{
	size_t i;

	if (is(area->memory, IS_CARVEOUT)) {
		measure_carveout(area, only);
		return;
	}
	for (i = 0; i < ARRAY_SIZE(sizes) && sizes[i] <= area->size; i++)
		measure_size(area, sizes[i], only);
}

/* --- many buffers --- */

/* All are of the same page. */
static void measure_list(const struct area *area, unsigned int buffers)
{
	struct subject s = { .area = area, .size = page_size };
	int *fds = calloc(buffers, sizeof(*fds)), ret = 0;
	unsigned int made;

	if (!fds)
		err(1, "calloc");
	for (made = 0; !ret && made < buffers; made += !ret) {
		fds[made] = vmemexp_export(&s);
		if (fds[made] < 0)
			ret = -errno;
	}
	s.size = buffers * page_size;
	if (!ret)
		ret = measure_prepared(&list_measurement, &s);
	if (ret)
		print_absent("list", "vmemexp", area->memory, s.size, -ret);
	while (made)
		close(fds[--made]);
	free(fds);
	fflush(stdout);
}

static void measure_lists(const struct area *area)
{
	measure_list(area, 1);
	measure_list(area, 1000);
	measure_list(area, 8000);
}

/* --- memory that is kept --- */

struct kernel_memory {
	/* Objects of kmalloc's caches, what is too large for them, and vmalloc's. */
	long long driver;
	/* All slabs, and vmalloc's. */
	long long all;
};

static long long bytes_of(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "re");
	size_t length = strlen(name);
	long long kib = 0;
	char line[128];

	if (!file)
		err(1, "/proc/meminfo");
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, length) && line[length] == ':')
			kib = atoll(line + length + 1);
	fclose(file);
	return kib * (long long)KIB;
}

#define SLABINFO_LINE \
	"%63s %lld %lld %lld %lld %lld : tunables %*d %*d %*d : slabdata %*d %lld"

static struct kernel_memory kernel_memory(void)
{
	long long objects, total, size, per_slab, pages, slabs, in_slabs = 0, kmalloc = 0;
	FILE *file = fopen("/proc/slabinfo", "re");
	struct kernel_memory used;
	char line[512], name[64];

	if (!file)
		err(1, "/proc/slabinfo");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, SLABINFO_LINE, name, &objects, &total, &size, &per_slab, &pages,
			   &slabs) != 7)
			continue;
		in_slabs += slabs * pages * (long long)page_size;
		if (!strncmp(name, "kmalloc-", 8))
			kmalloc += objects * size;
	}
	fclose(file);
	used.all = bytes_of("Slab") + bytes_of("VmallocUsed");
	used.driver = kmalloc + used.all - in_slabs;
	return used;
}

/* Wait for objects that RCU frees: as long as the memory gets less. */
static void wait_until_freed(void)
{
	struct kernel_memory now = kernel_memory(), last;

	do {
		last = now;
		usleep(200000);
		now = kernel_memory();
	} while (now.driver < last.driver);
}

static void measure_kept(const char *method, int (*create)(const struct subject *),
			 const struct area *area, size_t size, unsigned int buffers)
{
	struct subject s = { .area = area, .size = size };
	struct kernel_memory before, after;
	unsigned int i, made;
	int *fds;

	fds = calloc(buffers, sizeof(*fds));
	if (!fds)
		err(1, "calloc");
	/* Once in vain, so that what the first ones leave behind is there. */
	for (i = 0; i < 2; i++) {
		before = kernel_memory();
		for (made = 0; made < buffers; made++) {
			fds[made] = create(&s);
			if (fds[made] < 0)
				break;
		}
		after = kernel_memory();
		if (made < buffers)
			print_absent("kept", method, area->memory, size, errno);
		else if (i)
			printf("kept %s %s %zu %llu %u %lld %lld\n", method,
			       kinds[area->memory].name, size, physical_extents(area, size),
			       buffers, (after.driver - before.driver) / buffers,
			       (after.all - before.all) / buffers);
		while (made)
			close(fds[--made]);
		wait_until_freed();
	}
	free(fds);
}

static const struct {
	size_t size;
	unsigned int buffers;
} kept[] = {
	{ 4 * KIB, 2048 }, { 64 * KIB, 2048 }, { MIB, 512 }, { 32 * MIB, 16 },
	/* Numbers of extents for which allocators round up most. */
	{ 300 * 4 * KIB, 256 }, { 350 * 4 * KIB, 256 }, { 5000 * 4 * KIB, 16 },
};

static void measure_all_kept(const struct area *area)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kept) && kept[i].size <= area->size; i++) {
		measure_kept("vmemexp", vmemexp_export, area, kept[i].size, kept[i].buffers);
		measure_kept("udmabuf", udmabuf_create, area, kept[i].size, kept[i].buffers);
	}
	fflush(stdout);
}

/* --- where the time goes --- */

#define PROFILE_PAGES	512UL
/* One sample in so many ns; a round number would keep step with something. */
#define PROFILE_PERIOD	20011
#define PROFILE_NS	2000000000ULL

struct sample {
	struct perf_event_header header;
	uint64_t ip;
};

/* Prints what was sampled: addresses, for the caller to look up in /proc/kallsyms. */
static void print_samples(struct perf_event_mmap_page *head)
{
	const char *data = (const char *)head + page_size;
	uint64_t tail = head->data_tail, end = head->data_head;
	size_t size = PROFILE_PAGES * page_size;
	struct sample sample;

	__sync_synchronize();
	while (tail < end) {
		/* Records are a multiple of 8 bytes and may wrap around. */
		for (size_t i = 0; i < sizeof(sample); i += 8)
			memcpy((char *)&sample + i, data + (tail + i) % size, 8);
		if (sample.header.type == PERF_RECORD_SAMPLE)
			printf("sample 0x%llx\n", (unsigned long long)sample.ip);
		tail += sample.header.size;
	}
	__sync_synchronize();
	head->data_tail = tail;
}

static void profile(const struct measurement *m, const struct area *area, size_t size)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_CPU_CLOCK,
		.size = sizeof(attr), .sample_period = PROFILE_PERIOD,
		.sample_type = PERF_SAMPLE_IP, .disabled = 1,
	};
	struct subject s = { .area = area, .size = size, .ranges = m->needs / LIST_OF(1) };
	struct perf_event_mmap_page *head;
	uint64_t begin;
	struct watch w = {};
	int fd, ret;

	fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		err(1, "perf_event_open");
	head = mmap(NULL, (PROFILE_PAGES + 1) * page_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		    fd, 0);
	if (head == MAP_FAILED)
		err(1, "perf_event_open");
	ret = prepare(m, &s);
	begin = now();
	while (!ret && now() - begin < PROFILE_NS) {
		ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
		ret = m->run(&s, &w);
		ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
		print_samples(head);
	}
	give_up(&s);
	if (ret)
		errx(1, "%s of %s: %s", m->operation, m->method, strerror(-ret));
}

static void profile_named(char *names[])
{
	size_t size = strtoull(names[3], NULL, 0), i;
	enum memory memory = 0;
	struct area area;

	while (memory < NR_MEMORY && strcmp(names[2], kinds[memory].name))
		memory++;
	for (i = 0; i < ARRAY_SIZE(measurements); i++)
		if (!strcmp(names[0], measurements[i].operation) &&
		    !strcmp(names[1], measurements[i].method))
			break;
	if (memory == NR_MEMORY || i == ARRAY_SIZE(measurements) || !size)
		errx(EXIT_USAGE, "nothing of that name is measured");
	if (make_area(&area, memory, size > LARGE ? size : LARGE) || size > area.size)
		errx(1, "there is not as much memory of that sort");
	profile(&measurements[i], &area, size);
	drop_area(&area);
}

/* --- main --- */

static int open_or_none(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		warn("%s", path);
	return fd;
}

static void open_devices(void)
{
	struct io_uring_params params = {};

	vmemexp_fd = open_or_none("/dev/vmemexp", O_RDWR);
	importer_fd = open_or_none(IMPORTER_PATH, O_RDWR);
	heap_fd = open_or_none("/dev/dma_heap/system", O_RDWR);
	udmabuf_fd = open_or_none("/dev/udmabuf", O_RDWR);
	gup_fd = open_or_none("/sys/kernel/debug/gup_test", O_RDWR);
	ring_fd = syscall(__NR_io_uring_setup, 1, &params);
	if (ring_fd < 0)
		warn("io_uring_setup");
}

/* Without these, the kernel's own limits are what would be measured. */
static void lift_limits(void)
{
	struct rlimit files = { .rlim_cur = 8192, .rlim_max = 8192 };
	struct rlimit locked = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };

	if (setrlimit(RLIMIT_NOFILE, &files) || setrlimit(RLIMIT_MEMLOCK, &locked))
		err(1, "setrlimit");
	write_file("/sys/module/udmabuf/parameters/size_limit_mb", "1024");
	write_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
}

static void wrong_usage(void)
{
	fputs("usage: bench [--max BYTES] [--only OPERATION,...] [--memory MEMORY,...]\n"
	      "       bench --profile OPERATION METHOD MEMORY BYTES\n", stderr);
	exit(EXIT_USAGE);
}

struct options {
	size_t max;
	/* Names with commas in between, or NULL for all. */
	const char *only, *memory;
};

static void parse_option(struct options *options, const char *name, const char *value)
{
	char *end;

	if (!strcmp(name, "--only")) {
		options->only = value;
	} else if (!strcmp(name, "--memory")) {
		options->memory = value;
	} else if (!strcmp(name, "--max")) {
		options->max = strtoull(value, &end, 0);
		if (*end || options->max < MIB)
			wrong_usage();
	} else {
		wrong_usage();
	}
}

static void measure_memory(enum memory memory, const struct options *options)
{
	size_t size = memory == SMALL_PAGES ? LARGEST : LARGE;
	struct area area;
	int ret;

	ret = make_area(&area, memory, size < options->max ? size : options->max);
	if (ret) {
		print_absent("memory", "vmemexp", memory, 0, -ret);
		return;
	}
	measure_all(&area, options->only);
	if (memory == SMALL_PAGES && has_name(options->only, "list"))
		measure_lists(&area);
	if ((memory == SMALL_PAGES || memory == HUGETLB) && has_name(options->only, "kept"))
		measure_all_kept(&area);
	drop_area(&area);
}

int main(int argc, char *argv[])
{
	struct options options = { .max = LARGEST };
	enum memory memory;

	page_size = sysconf(_SC_PAGESIZE);
	huge_page_bytes = huge_page_size();
	for (; argc > 2 && strcmp(argv[1], "--profile"); argv += 2, argc -= 2)
		parse_option(&options, argv[1], argv[2]);
	if (argc != 1 && argc != 6)
		wrong_usage();

	lift_limits();
	open_devices();
	measure_clock();
	if (argc == 6) {
		profile_named(argv + 2);
		return 0;
	}
	/*
	 * The kernel still has work to do after the boot, on what may be the only CPU. No event
	 * tells when it is done.
	 */
	sleep(SETTLE_SECONDS);
	puts("unit ns");
	for (memory = NR_MEMORY; memory-- > 0;)
		if (has_name(options.memory, kinds[memory].name))
			measure_memory(memory, &options);
	puts("end");
	return 0;
}

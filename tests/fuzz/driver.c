// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls of /dev/vmemexp, with every argument that a program can think of,
 * and what include/uapi/vmemexp.h says that they may answer.
 */
#include <linux/capability.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "fuzz.h"

/* Where the argument of an ioctl is. */
enum place {
	IN_MEMORY,
	AT_GUARD,		/* ends where nothing is mapped */
	CUT_OFF,		/* all but the last bytes, likewise */
	READ_ONLY,
	AT_NULL,
	IN_KERNEL,
	NOT_MAPPED,
	IN_SOURCE,		/* in the memory that the call is about */
};

/* Where the array of a list is, and what becomes of it while the driver reads it. */
enum array {
	ARRAY_PLAIN,
	ARRAY_AT_GUARD,
	ARRAY_CUT_OFF,		/* in the middle of the last range */
	ARRAY_CUT_SHORT,	/* before the last page of it, if it has several */
	ARRAY_READ_ONLY,
	ARRAY_AT_NULL,
	ARRAY_IN_KERNEL,
	ARRAY_NOT_MAPPED,
	ARRAY_IN_SOURCE,	/* in the memory that the first range is about */
	ARRAY_ODD,		/* at no multiple of anything */
	ARRAY_HIGH,		/* at its address and a bit that none has */
	ARRAY_CHANGES,		/* by another thread */
};

/* Room for the largest structure that the driver takes, and more. */
#define PLACE_SIZE	(2 * PAGE)

#define MAX_ROWS	1024

/* More pages than any machine here has. */
#define MAX_CHARGED	0x1000000L

/* One more than the driver takes; and room for them, and more. */
#define MAX_LIST	(VMEMEXP_MAX_RANGES + 1)
#define ARRAY_PAGES	6
#define ARRAY_SIZE_MAX	(ARRAY_PAGES * PAGE)

/* A list may have a range many times, but not so often that it takes long. */
#define MAX_LISTED	(64UL << 20)

#define KERNEL_ADDRESS	((char *)-(intptr_t)HUGE_PAGE)

static int device = -1;

/* An ioctl's argument before and after. */
struct request {
	const char *name;
	unsigned long nr;
	size_t size;		/* of the structure that both of us know */
	size_t min_size;	/* of its first version */
	enum place place;
	char *addr;
	size_t told;		/* its size as the program says */
	unsigned char before[PLACE_SIZE];
	unsigned char after[PLACE_SIZE];
	bool known;		/* whether the two are what was and is there */
	int ret;
	/* An export as the driver sees it, and the ranges as it can read them. */
	struct vmemexp_export export;
	struct vmemexp_range ranges[VMEMEXP_MAX_RANGES];
	bool ranges_read;
	bool ranges_known;	/* neither the one nor the other can change */
};

static struct request request;

/* Two pages that can be written to, one that cannot, none. */
static char *pages;

/* The list that a program makes, and the region of its first range. */
static struct vmemexp_range list[MAX_LIST];
static unsigned int nr_listed;
static uint64_t bytes_listed;
static const struct region *list_source = &regions[0];

/* ARRAY_PAGES that can be written to, and one that is not there. */
static char *array_pages;
static bool array_changes;

static char default_carveouts[4096];
static char default_allow[256];
static bool lists_changed, limits_changed;
static struct rlimit limits[2];
static const int limit_nrs[2] = { RLIMIT_MEMLOCK, RLIMIT_NOFILE };

/* --- what a program can change of the process and the module --- */

#define ALL_CAPS	(~0ULL)

static void set_caps(uint64_t wanted)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	syscall(SYS_capget, &header, data);
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted & (wanted >> (32 * i));
	syscall(SYS_capset, &header, data);
}

int call_caps(const struct arg *args)
{
	uint64_t dropped = 0;

	if (args[0].n & 1)
		dropped |= 1ULL << CAP_IPC_LOCK;
	if (args[0].n & 2)
		dropped |= 1ULL << CAP_SYS_RAWIO;
	if (args[0].n & 4)
		dropped |= 1ULL << CAP_SYS_ADMIN;
	limits_changed = true;
	set_caps(ALL_CAPS & ~dropped);
	return args[0].n & 7;
}

int call_limit(const struct arg *args)
{
	unsigned int i = args[0].n & 1;
	struct rlimit limit = limits[i];
	uint64_t n = args[1].n & 0xff;

	limits_changed = true;
	limit.rlim_cur = i ? next_file() + n % 4 : n * PAGE;
	return setrlimit(limit_nrs[i], &limit) ? -errno : 0;
}

int call_allow(const struct arg *args)
{
	static const char * const names[] = {
		"anon", "shmem", "hugetlb", "file", "driver", "pfnmap", "dmabuf", "none",
	};
	char list[128] = "";

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (args[0].n & 1 << i)
			sprintf(list + strlen(list), "%s%s", *list ? "," : "", names[i]);
	lists_changed = true;
	return write_text(VMEMEXP_ALLOW, *list ? list : "\n");
}

int call_carveouts(const struct arg *args)
{
	static const char * const lists[NR_LISTS] = {
		NULL, "\n", "0x1000", "0x1000:0", "0x1001:0x1000", "0x1000:0x2000,0x2000:0x1000",
		"0xfffffffffffff000:0x2000",
		/* one too many */
		"0:1M,2M:1M,4M:1M,6M:1M,8M:1M,10M:1M,12M:1M,14M:1M,16M:1M,18M:1M,20M:1M,22M:1M,24M:1M,26M:1M,28M:1M,30M:1M,32M:1M",
	};
	const char *list = lists[args[0].n % NR_LISTS];

	lists_changed = true;
	return write_text(VMEMEXP_CARVEOUTS, list ? list : default_carveouts);
}

int call_list(const struct arg *args)
{
	static char text[64 * 1024];

	(void)args;
	read_text(VMEMEXP_ALLOW, text, sizeof(text));
	read_text(VMEMEXP_CARVEOUTS, text, sizeof(text));
	return read_text("/sys/kernel/debug/vmemexp/buffers", text, sizeof(text)) < 0 ? -1 : 0;
}

void setup_driver(void)
{
	device = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	if (device < 0)
		give_up("%s: %s", VMEMEXP_PATH, strerror(errno));
	pages = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
	if (pages == MAP_FAILED || mprotect(pages + 3 * PAGE, PAGE, PROT_NONE))
		give_up("no memory");
	array_pages = mmap(NULL, ARRAY_SIZE_MAX + PAGE, RW, ANON, -1, 0);
	if (array_pages == MAP_FAILED || mprotect(array_pages + ARRAY_SIZE_MAX, PAGE, PROT_NONE))
		give_up("no memory");
	for (int i = 0; i < 2; i++)
		getrlimit(limit_nrs[i], &limits[i]);
	if (read_text(VMEMEXP_CARVEOUTS, default_carveouts, sizeof(default_carveouts)) < 0 ||
	    read_text(VMEMEXP_ALLOW, default_allow, sizeof(default_allow)) < 0)
		give_up("the parameters of the module cannot be read");
}

void clean_driver(void)
{
	if (limits_changed) {
		set_caps(ALL_CAPS);
		for (int i = 0; i < 2; i++)
			setrlimit(limit_nrs[i], &limits[i]);
	}
	if (lists_changed) {
		write_text(VMEMEXP_CARVEOUTS, default_carveouts);
		write_text(VMEMEXP_ALLOW, default_allow);
	}
	limits_changed = false;
	lists_changed = false;
	nr_listed = 0;
	bytes_listed = 0;
	list_source = &regions[0];
}

/* Return true if one more page can be exported with this RLIMIT_MEMLOCK. */
static bool is_enough(uint64_t limit_pages)
{
	struct vmemexp_export arg = export_args(pages, PAGE, O_RDWR);
	struct rlimit limit = { limit_pages * PAGE, RLIM_INFINITY };
	int ret;

	setrlimit(RLIMIT_MEMLOCK, &limit);
	ret = _test_ioctl(device, VMEMEXP_IOC_EXPORT, &arg);
	setrlimit(RLIMIT_MEMLOCK, &limits[0]);
	if (!ret)
		close(arg.fd);
	return !ret;
}

/* No file tells. */
long charged_pages(void)
{
	long low = 0, high = 1, mid;

	set_caps(ALL_CAPS & ~(1ULL << CAP_IPC_LOCK));
	while (high < MAX_CHARGED && !is_enough(high)) {
		low = high;
		high *= 2;
	}
	while (high - low > 1) {
		mid = low + (high - low) / 2;
		if (is_enough(mid))
			high = mid;
		else
			low = mid;
	}
	set_caps(ALL_CAPS);
	return high < MAX_CHARGED ? low : -1;
}

/* --- one ioctl --- */

static char *find_place(enum place place, size_t size, const struct region *source)
{
	switch (place) {
	case IN_MEMORY:
		return pages;
	case AT_GUARD:
		return pages + 3 * PAGE - size;
	case CUT_OFF:
		return pages + 3 * PAGE - size + sizeof(uint64_t);
	case READ_ONLY:
		return pages + 2 * PAGE;
	case AT_NULL:
		return NULL;
	case IN_KERNEL:
		return KERNEL_ADDRESS;
	case NOT_MAPPED:
		return pages + 3 * PAGE;
	default:
		return source->borrowed ? pages : source->addr;
	}
}

static bool copy(void *to, const void *from, size_t size)
{
	return try_access(memcpy(to, from, size));
}

/* The driver sees zeroes behind the end of a structure that is smaller than it knows. */
static void read_export(struct request *r)
{
	size_t size = r->told < r->size ? r->told : r->size;
	struct vmemexp_export *arg = &r->export;

	memset(arg, 0, sizeof(*arg));
	memcpy(arg, r->before, size);
	r->ranges_known = r->place != IN_SOURCE && !array_changes;
	r->ranges_read = arg->nr_ranges <= VMEMEXP_MAX_RANGES &&
			 arg->ranges == (uintptr_t)arg->ranges &&
			 copy(r->ranges, (void *)(uintptr_t)arg->ranges,
			      arg->nr_ranges * sizeof(*r->ranges));
}

/* One that an older driver had, or nearly. */
static uint32_t told_size(unsigned long nr, uint64_t n, size_t size)
{
	static const uint8_t exports[] = {
		0, VMEMEXP_EXPORT_SIZE_VER0, VMEMEXP_EXPORT_SIZE_VER1,
		VMEMEXP_EXPORT_SIZE_VER1 + 4, VMEMEXP_EXPORT_SIZE_VER2 - 4,
	};
	static const uint8_t queries[] = {
		0, VMEMEXP_QUERY_SIZE_VER0, VMEMEXP_QUERY_SIZE_VER0 + 4,
	};

	if (!n)
		return size;
	if (nr == VMEMEXP_IOC_EXPORT && n < ARRAY_SIZE(exports))
		return exports[n];
	if (nr == VMEMEXP_IOC_QUERY && n < ARRAY_SIZE(queries))
		return queries[n];
	return n;
}

static size_t first_size(unsigned long nr, size_t size)
{
	if (nr == VMEMEXP_IOC_EXPORT)
		return VMEMEXP_EXPORT_SIZE_VER0;
	return nr == VMEMEXP_IOC_QUERY ? VMEMEXP_QUERY_SIZE_VER0 : size;
}

/*
 * Makes the call with a structure of @size bytes, changed and put where the last
 * of @args say.
 */
static void do_ioctl(const char *name, unsigned long nr, const void *arg, size_t size,
		     const struct arg *args, const struct region *source)
{
	struct request *r = &request;
	uint32_t told = told_size(nr, args[1].n, size);
	size_t room, word = args[2].n % (PLACE_SIZE / sizeof(uint32_t));
	bool writable;

	r->name = name;
	r->nr = nr;
	r->size = size;
	r->min_size = first_size(nr, size);
	r->place = args[0].n % NR_PLACES;
	r->told = told;
	memset(r->before, 0, sizeof(r->before));
	memcpy(r->before, arg, size);
	memcpy(r->before, &told, sizeof(told));
	/* The size is changed by the argument that is made for it. */
	if (word)
		memcpy(r->before + word * sizeof(uint32_t), &args[3].n, sizeof(uint64_t));

	room = told > PAGE ? PAGE : told < size ? size : told;
	r->addr = find_place(r->place, room, source);
	mprotect(pages + 2 * PAGE, PAGE, RW);
	writable = r->place != AT_NULL && r->place != IN_KERNEL && r->place != NOT_MAPPED;
	r->known = writable && r->place != IN_SOURCE;
	if (writable)
		copy(r->addr, r->before, r->place == CUT_OFF ? room - sizeof(uint64_t) : room);
	if (r->place == READ_ONLY)
		mprotect(pages + 2 * PAGE, PAGE, PROT_READ);

	if (nr == VMEMEXP_IOC_EXPORT)
		read_export(r);

	r->ret = _test_ioctl(device, nr, r->addr);

	memcpy(r->after, r->before, sizeof(r->after));
	if (writable)
		copy(r->after, r->addr, r->place == CUT_OFF ? room - sizeof(uint64_t) : room);
}

static bool is_zero(const unsigned char *p, size_t size)
{
	while (size && !*p)
		p++, size--;
	return !size;
}

/* The error that is the same for all ioctls, or 0. */
static int common_error(const struct request *r)
{
	if (r->place == AT_NULL || r->place == IN_KERNEL || r->place == NOT_MAPPED)
		return -EFAULT;
	if (r->told < r->min_size)
		return -EINVAL;
	if (r->told > PAGE)
		return -E2BIG;
	/* A structure of an older version may end before the cut. */
	if (r->place == CUT_OFF && r->told > r->size - sizeof(uint64_t))
		return -EFAULT;
	if (r->told > r->size && !is_zero(r->before + r->size, r->told - r->size))
		return -E2BIG;
	return 0;
}

static bool is_one_of(int ret, const int *errors)
{
	while (*errors && ret != -*errors)
		errors++;
	return *errors;
}

/* Fails if the answer is not documented; true if the structure was accepted. */
static bool check_common(const int *errors)
{
	const struct request *r = &request;
	int expected = common_error(r);

	if (r->place == IN_SOURCE) {
		if (r->ret && r->ret != -E2BIG && !is_one_of(r->ret, errors))
			fail("%s: errno %d is not documented", r->name, -r->ret);
		return !r->ret;
	}
	if (!expected) {
		if (r->ret && !is_one_of(r->ret, errors))
			fail("%s: errno %d is not documented", r->name, -r->ret);
		return true;
	}
	/* The driver may find a structure that is cut off too big before it sees the end. */
	if (r->ret != expected && !(r->place == CUT_OFF && r->ret == -E2BIG))
		fail("%s: errno %d instead of %d", r->name, -r->ret, -expected);
	if (r->known && memcmp(r->before, r->after, r->told < PAGE ? r->told : PAGE))
		fail("%s: what was refused was written to", r->name);
	return false;
}

int call_unknown(const struct arg *args)
{
	static const unsigned long known[] = {
		VMEMEXP_IOC_EXPORT, VMEMEXP_IOC_SYNC, VMEMEXP_IOC_QUERY, VMEMEXP_IOC_REVOKE,
	};
	uint32_t nr = _VMEMEXP_IOC(0) + args[0].n;
	char *addr = find_place(args[1].n % NR_PLACES, 64, &regions[0]);

	for (unsigned int i = 0; i < ARRAY_SIZE(known); i++)
		if (nr == known[i])
			return 0;
	if (_test_ioctl(device, nr, addr) != -ENOTTY &&
	    /* These are the kernel's. */
	    (nr >> 8 & 0xff) == VMEMEXP_IOC_MAGIC)
		fail("unknown request %#x is known", nr);
	return 0;
}

/* --- export --- */

static const int export_errors[] = {
	EFAULT, EINVAL, EACCES, EPERM, ENOMEM, EINTR, ERANGE, EAGAIN, EBUSY, EHWPOISON,
	EMFILE, ENFILE, EDQUOT, EOPNOTSUPP, 0
};

/* The errno of each reason; of the first and of UNPINNABLE it may be several. */
static const int reason_errors[][6] = {
	/* EFAULT: there is no such list. */
	[VMEMEXP_REASON_NONE] = { ENOMEM, EINTR, EMFILE, ENFILE, EFAULT },
	[VMEMEXP_REASON_FLAGS] = { EINVAL },
	[VMEMEXP_REASON_LENGTH] = { EINVAL },
	[VMEMEXP_REASON_ALIGNMENT] = { EINVAL },
	[VMEMEXP_REASON_LIMIT] = { ENOMEM },
	[VMEMEXP_REASON_NOT_MAPPED] = { EFAULT },
	[VMEMEXP_REASON_NOT_READABLE] = { EFAULT },
	[VMEMEXP_REASON_NOT_WRITABLE] = { EACCES },
	[VMEMEXP_REASON_KIND] = { EPERM },
	[VMEMEXP_REASON_PFNMAP] = { EPERM },
	[VMEMEXP_REASON_NO_BACKING] = { EFAULT },
	[VMEMEXP_REASON_UNPINNABLE] = { ENOMEM, EAGAIN, EBUSY, EOPNOTSUPP, EFAULT },
	[VMEMEXP_REASON_NOT_CONTIGUOUS] = { ERANGE },
	[VMEMEXP_REASON_RAM] = { EPERM },
	[VMEMEXP_REASON_MIXED] = { EINVAL },
	[VMEMEXP_REASON_PRIVATE] = { EPERM },
	[VMEMEXP_REASON_CHANGED] = { EAGAIN },
	[VMEMEXP_REASON_ACCESS] = { EACCES },
	[VMEMEXP_REASON_PARTIAL] = { EPERM },
	[VMEMEXP_REASON_QUOTA] = { EDQUOT },
	[VMEMEXP_REASON_POISONED] = { EHWPOISON },
	[VMEMEXP_REASON_ENCRYPTED] = { EOPNOTSUPP },
	[VMEMEXP_REASON_RANGES] = { EINVAL },
};

/* As the driver takes it. */
static uint64_t without_tag(uint64_t vaddr)
{
#ifdef __aarch64__
	return (uint64_t)((int64_t)(vaddr << 8) >> 8);
#else
	return vaddr;
#endif
}

/* A range that is in no list counts as one. */
static bool has_list(void)
{
	return request.export.nr_ranges;
}

static unsigned int nr_ranges(void)
{
	return has_list() ? request.export.nr_ranges : 1;
}

static struct vmemexp_range range_at(unsigned int i)
{
	struct vmemexp_range range = request.ranges[i];

	if (!has_list())
		range = (struct vmemexp_range){ request.export.vaddr, request.export.length };
	range.vaddr = without_tag(range.vaddr);
	return range;
}

/*
 * Returns the reason to refuse range @i by itself: LENGTH, ALIGNMENT at @addr, or NONE. In a list
 * of several, the first may begin and the last may end anywhere.
 */
static unsigned int wrong_with(unsigned int i, uint64_t *addr)
{
	bool unaligned = request.export.flags & VMEMEXP_EXPORT_UNALIGNED;
	struct vmemexp_range range = range_at(i);
	uint64_t end = range.vaddr + range.length;

	*addr = range.vaddr;
	if (!range.length || end < range.vaddr)
		return VMEMEXP_REASON_LENGTH;
	if (range.vaddr % PAGE && !(unaligned && i == 0))
		return VMEMEXP_REASON_ALIGNMENT;
	*addr = end;
	if (end % PAGE && !(unaligned && i == nr_ranges() - 1))
		return VMEMEXP_REASON_ALIGNMENT;
	return VMEMEXP_REASON_NONE;
}

/* The same of all of them. */
static bool is_any_wrong(void)
{
	uint64_t addr;

	for (unsigned int i = 0; i < nr_ranges(); i++)
		if (wrong_with(i, &addr))
			return true;
	return false;
}

/* In pages, or what is more than any machine has. */
static uint64_t pages_in_ranges(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < nr_ranges(); i++) {
		struct vmemexp_range range = range_at(i);

		sum += range.length / PAGE + (range.vaddr % PAGE + range.length % PAGE +
					      PAGE - 1) / PAGE;
	}
	return sum;
}

static bool is_too_large(void)
{
	return pages_in_ranges() >= INT32_MAX || pages_in_ranges() >= SIZE_MAX / PAGE;
}

/* The reason that the structure itself gives, before a list is read, or NONE. */
static unsigned int wrong_with_arg(void)
{
	const struct vmemexp_export *arg = &request.export;
	unsigned int access = arg->fd_flags & O_ACCMODE;

	if (arg->flags & ~(VMEMEXP_EXPORT_UNALIGNED | VMEMEXP_EXPORT_CONTIGUOUS) ||
	    arg->fd_flags & ~(O_ACCMODE | O_CLOEXEC) || arg->reserved ||
	    (access != O_RDWR && access != O_RDONLY))
		return VMEMEXP_REASON_FLAGS;
	if (arg->nr_ranges > VMEMEXP_MAX_RANGES ||
	    (arg->nr_ranges ? arg->vaddr || arg->length : !!arg->ranges))
		return VMEMEXP_REASON_RANGES;
	return VMEMEXP_REASON_NONE;
}

/* These need no look at memory, nor at a range. */
static bool is_about_no_range(unsigned int reason)
{
	return reason == VMEMEXP_REASON_NONE || reason == VMEMEXP_REASON_FLAGS ||
	       reason == VMEMEXP_REASON_RANGES;
}

/* These are about all of them, and name the first. */
static bool is_about_all_ranges(unsigned int reason)
{
	return reason == VMEMEXP_REASON_LIMIT || reason == VMEMEXP_REASON_QUOTA;
}

static bool is_address_good(const struct vmemexp_export *arg, unsigned int index)
{
	struct vmemexp_range range = range_at(index);
	uint64_t start = range.vaddr, end = start + range.length, addr;

	switch (arg->err_reason) {
	case VMEMEXP_REASON_NONE:
	case VMEMEXP_REASON_FLAGS:
	case VMEMEXP_REASON_RANGES:
		return !arg->err_addr;
	case VMEMEXP_REASON_LENGTH:
		return arg->err_addr == start &&
		       (wrong_with(index, &addr) == VMEMEXP_REASON_LENGTH || is_too_large());
	case VMEMEXP_REASON_ALIGNMENT:
		return wrong_with(index, &addr) == VMEMEXP_REASON_ALIGNMENT &&
		       arg->err_addr == addr;
	case VMEMEXP_REASON_LIMIT:
	case VMEMEXP_REASON_ACCESS:
	case VMEMEXP_REASON_QUOTA:
		return arg->err_addr == start;
	case VMEMEXP_REASON_PARTIAL:
		if (nr_ranges() == 1)
			return arg->err_addr == start;
		break;
	case VMEMEXP_REASON_CHANGED:
		return arg->err_addr == (start & -PAGE);
	}
	return arg->err_addr >= (start & -PAGE) && arg->err_addr < end &&
	       (arg->err_addr == start || !(arg->err_addr % PAGE));
}

static void fail_by_ranges(const char *what, const struct vmemexp_export *arg)
{
	for (unsigned int i = 0; i < nr_ranges() && i < 8; i++)
		printf("fuzz: range %u: %#llx, length %#llx\n", i,
		       (unsigned long long)range_at(i).vaddr,
		       (unsigned long long)range_at(i).length);
	fail("export: %s: reason %u, address %#llx, range %u of %u", what, arg->err_reason,
	     (unsigned long long)arg->err_addr, arg->err_range, nr_ranges());
}

static bool is_range_told(void)
{
	return request.told >= VMEMEXP_EXPORT_SIZE_VER2;
}

/* The reason, the address and the range belong to each other and to what was asked. */
static void check_reason(const struct vmemexp_export *arg)
{
	bool is_told = is_range_told(), needs_none = is_about_no_range(arg->err_reason);
	unsigned int wrong = wrong_with_arg(), first, last;

	if (arg->err_reason != wrong && (wrong || (needs_none && arg->err_reason)))
		fail_by_ranges("another reason is due", arg);
	if (is_told && arg->err_range >= nr_ranges())
		fail_by_ranges("there is no such range", arg);
	if (is_told && (needs_none || is_about_all_ranges(arg->err_reason)) && arg->err_range)
		fail_by_ranges("it is about no range, or about the first", arg);
	if (wrong || !request.ranges_known)
		return;
	if (request.ret == -EFAULT && arg->err_reason == VMEMEXP_REASON_NONE &&
	    request.ranges_read)
		fail_by_ranges("the list can be read", arg);
	if (!request.ranges_read) {
		if (request.ret != -EFAULT || arg->err_reason)
			fail_by_ranges("the list cannot be read", arg);
		return;
	}
	/* An older program is not told which range it is. */
	first = is_told ? arg->err_range : 0;
	last = is_told ? arg->err_range : nr_ranges() - 1;
	while (first < last && !is_address_good(arg, first))
		first++;
	if (!is_address_good(arg, first))
		fail_by_ranges("another address is due", arg);
	/* That comes first, but for a range that no program can have. */
	if (is_any_wrong() && arg->err_reason && arg->err_reason != VMEMEXP_REASON_LENGTH &&
	    arg->err_reason != VMEMEXP_REASON_ALIGNMENT &&
	    arg->err_reason != VMEMEXP_REASON_NOT_MAPPED)
		fail_by_ranges("a length or an alignment is wrong", arg);
}

static void check_refusal(const struct vmemexp_export *arg)
{
	struct vmemexp_export rest = *arg;

	/* An answer that cannot be written takes precedence over nothing. */
	if (request.place == READ_ONLY)
		return;
	if (arg->err_reason >= ARRAY_SIZE(reason_errors))
		fail("export: unknown reason %u", arg->err_reason);
	if (!is_one_of(request.ret, reason_errors[arg->err_reason]))
		fail("export: reason %u with errno %d", arg->err_reason, -request.ret);
	check_reason(arg);
	memcpy(&rest.err_reason, request.before + offsetof(struct vmemexp_export, err_reason),
	       sizeof(rest.err_reason));
	memcpy(&rest.err_addr, request.before + offsetof(struct vmemexp_export, err_addr),
	       sizeof(rest.err_addr));
	if (is_range_told())
		memcpy(&rest.err_range, request.before + offsetof(struct vmemexp_export, err_range),
		       sizeof(rest.err_range));
	if (memcmp(request.before, &rest, sizeof(rest)))
		fail("export: more than the error was written");
}

/* A page here and a page of the dma-buf, as far as both can be read. */
static void check_page(const char *view, uint64_t offset, uint64_t addr)
{
	static char here[PAGE], there[PAGE];

	if (copy(here, (void *)(uintptr_t)addr, PAGE) && copy(there, view + offset, PAGE) &&
	    memcmp(here, there, PAGE))
		fail("export: at %#llx is not the page of %#llx", (unsigned long long)offset,
		     (unsigned long long)addr);
}

/* The ranges are in the dma-buf one after the other. */
static void check_pages(const struct vmemexp_export *arg)
{
	uint64_t offset = 0, start, pages;
	char *view = mmap(NULL, arg->dmabuf_size, PROT_READ, MAP_SHARED, arg->fd, 0);

	/* The process may have no more memory, or the driver has taken its own away. */
	if (view == MAP_FAILED)
		return;
	for (unsigned int i = 0; i < nr_ranges(); i++) {
		struct vmemexp_range range = range_at(i);

		start = range.vaddr & -PAGE;
		pages = (range.vaddr % PAGE + range.length + PAGE - 1) / PAGE;
		/* Check both ends of a long list: a mistake in a sum would move them. */
		if (i < 16 || i + 16 >= nr_ranges()) {
			check_page(view, offset, start);
			check_page(view, offset + (pages - 1) * PAGE, start + (pages - 1) * PAGE);
		}
		offset += pages * PAGE;
	}
	munmap(view, arg->dmabuf_size);
}

/* A list that was taken is one, and all of it is in the dma-buf. */
static void check_list(const struct vmemexp_export *arg)
{
	if (wrong_with_arg() || !request.ranges_read)
		fail_by_ranges("there is no such list", arg);
	if (is_any_wrong() || is_too_large())
		fail_by_ranges("the list is wrong, and was taken", arg);
	if (nr_ranges() == 1)
		return;
	if (arg->memory & VMEMEXP_MEMORY_DMABUF)
		fail("export: a list of several ranges is a mapping of a dma-buf");
	if (arg->dmabuf_size != pages_in_ranges() * PAGE ||
	    arg->offset != range_at(0).vaddr % PAGE)
		fail("export: size %#llx, offset %#llx of %llu pages",
		     (unsigned long long)arg->dmabuf_size, (unsigned long long)arg->offset,
		     (unsigned long long)pages_in_ranges());
	check_pages(arg);
}

static void check_answer(const struct vmemexp_export *arg)
{
	unsigned int known = VMEMEXP_MEMORY_ANON | VMEMEXP_MEMORY_SHMEM |
			     VMEMEXP_MEMORY_HUGETLB | VMEMEXP_MEMORY_FILE |
			     VMEMEXP_MEMORY_DRIVER | VMEMEXP_MEMORY_PFNMAP |
			     VMEMEXP_MEMORY_DMABUF;
	bool reused = arg->memory & VMEMEXP_MEMORY_DMABUF;

	if (arg->fd < 0 || fcntl(arg->fd, F_GETFD) < 0)
		fail("export: file descriptor %d", arg->fd);
	if (!arg->memory || arg->memory & ~known)
		fail("export: memory %#x", arg->memory);
	if (arg->err_reason || arg->err_addr)
		fail("export: reason %u, address %#llx after success", arg->err_reason,
		     (unsigned long long)arg->err_addr);
	if (is_range_told() && arg->err_range)
		fail("export: range %u after success", arg->err_range);
	if (arg->dmabuf_size % PAGE || arg->offset > arg->dmabuf_size ||
	    arg->length > arg->dmabuf_size - arg->offset ||
	    (!reused && !has_list() && arg->offset != arg->vaddr % PAGE))
		fail("export: offset %#llx, size %#llx of length %#llx",
		     (unsigned long long)arg->offset, (unsigned long long)arg->dmabuf_size,
		     (unsigned long long)arg->length);
	if (arg->nr_extents > arg->dmabuf_size / PAGE || (!arg->nr_extents && !reused) ||
	    (arg->flags & VMEMEXP_EXPORT_CONTIGUOUS && arg->nr_extents != 1))
		fail("export: %llu extents", (unsigned long long)arg->nr_extents);
	if (request.told >= VMEMEXP_EXPORT_SIZE_VER1 && request.place != IN_SOURCE &&
	    arg->state & ~0x7fU)
		fail("export: state %#x", arg->state);
	if (request.ranges_known && memcmp(request.before + request.told,
					   request.after + request.told,
					   request.told < request.size ?
					   request.size - request.told : 0))
		fail("export: what was not told of was written to");
	if (request.ranges_known)
		check_list(arg);
}

/* Keeps the dma-buf that came of it in the slot; returns what tells results apart. */
static int finish_export(const struct arg *slot)
{
	struct vmemexp_export arg;
	uint64_t length = 0;
	unsigned int ranges;

	if (!check_common(export_errors))
		return request.ret;
	memcpy(&arg, request.after, sizeof(arg));
	if (request.ret) {
		check_refusal(&arg);
		return request.ret - 1000 * (request.place == READ_ONLY ? 0 : arg.err_reason);
	}
	check_answer(&arg);
	ranges = request.ranges_known ? nr_ranges() : 0;
	for (unsigned int i = 0; i < ranges; i++)
		length += range_at(i).length;
	set_file(slot, (struct file_slot){
		.fd = arg.fd,
		.ours = arg.nr_extents,
		.size = arg.dmabuf_size,
		.offset = arg.offset,
		.length = length,
		.nr_ranges = ranges,
		.writable = (arg.fd_flags & O_ACCMODE) == O_RDWR,
		.reused = arg.memory & VMEMEXP_MEMORY_DMABUF,
	});
	return arg.memory;
}

int call_export(const struct arg *args)
{
	const struct region *r = &regions[args[0].n % NR_REGIONS];
	uint64_t offset = bytes_of(&args[1], r->size);
	struct vmemexp_export arg = export_args(r->addr + offset,
						bytes_of(&args[2], r->size - offset), args[4].n);

	/* Also beyond what a pointer can be. */
	arg.vaddr = (uintptr_t)r->addr + offset;
	arg.length = bytes_of(&args[2], r->size - offset);
	arg.flags = args[3].n;
	do_ioctl("export", VMEMEXP_IOC_EXPORT, &arg, sizeof(arg), args + 6, r);
	return finish_export(&args[5]);
}

/* --- lists of ranges --- */

int call_range(const struct arg *args)
{
	static const uint16_t repeats[NR_REPEATS] = { 1, 2, 3, 16, 17, 100, 512, MAX_LIST };
	const struct region *r = &regions[args[0].n % NR_REGIONS];
	uint64_t offset = bytes_of(&args[1], r->size);
	uint64_t length = bytes_of(&args[2], r->size - offset);
	uint64_t step = bytes_of(&args[4], r->size);

	if (!nr_listed)
		list_source = r;
	for (unsigned int i = 0; i < repeats[args[3].n % NR_REPEATS]; i++) {
		if (nr_listed == MAX_LIST || (i && bytes_listed + length > MAX_LISTED))
			break;
		list[nr_listed++] = (struct vmemexp_range){
			.vaddr = (uintptr_t)r->addr + offset + i * step, .length = length,
		};
		bytes_listed += length;
	}
	return nr_listed;
}

/* Returns where @size bytes of the list are for the driver. */
static char *place_array(enum array array, size_t size)
{
	char *end = array_pages + ARRAY_SIZE_MAX;
	size_t whole = size < ARRAY_SIZE_MAX ? size : ARRAY_SIZE_MAX, cut = 0;

	switch (array) {
	case ARRAY_AT_NULL:
		return NULL;
	case ARRAY_IN_KERNEL:
		return KERNEL_ADDRESS;
	case ARRAY_NOT_MAPPED:
		return end;
	case ARRAY_AT_GUARD:
		return end - whole;
	case ARRAY_CUT_OFF:
		cut = sizeof(uint64_t);
		break;
	case ARRAY_CUT_SHORT:
		cut = PAGE;
		break;
	case ARRAY_IN_SOURCE:
		return list_source->borrowed || list_source->size < whole ? array_pages :
									    list_source->addr;
	case ARRAY_ODD:
		return array_pages + 3;
	default:
		return array_pages;
	}
	return end - whole + (cut < whole ? cut : whole);
}

/* Another range, and the first one again, until it is told to end. */
static void *change_array(void *arg)
{
	struct vmemexp_range *array = arg, first = *array;

	for (unsigned int i = 0; __atomic_load_n(&array_changes, __ATOMIC_RELAXED); i++) {
		__atomic_store_n(&array->vaddr, first.vaddr + i % 2 * PAGE, __ATOMIC_RELAXED);
		__atomic_store_n(&array->length, i % 3 ? first.length : i, __ATOMIC_RELAXED);
	}
	return NULL;
}

int call_export_list(const struct arg *args)
{
	uint32_t nr = args[0].from_end ? nr_listed - args[0].n : args[0].n;
	struct vmemexp_export arg = list_args(NULL, nr, args[3].n);
	enum array array = args[1].n % NR_ARRAYS;
	size_t there = nr < MAX_LIST ? nr : MAX_LIST;
	char *addr = place_array(array, there * sizeof(*list));
	size_t room = there * sizeof(*list);
	pthread_t thread;

	/* The ranges behind its end are not there. */
	if (addr >= array_pages && addr < array_pages + ARRAY_SIZE_MAX) {
		memset(array_pages, 0, ARRAY_SIZE_MAX);
		if (room > (size_t)(array_pages + ARRAY_SIZE_MAX - addr))
			room = array_pages + ARRAY_SIZE_MAX - addr;
	}
	if (array != ARRAY_AT_NULL && array != ARRAY_IN_KERNEL && array != ARRAY_NOT_MAPPED)
		copy(addr, list, room);
	if (array == ARRAY_READ_ONLY)
		mprotect(array_pages, ARRAY_SIZE_MAX, PROT_READ);
	array_changes = array == ARRAY_CHANGES && there &&
			!pthread_create(&thread, NULL, change_array, addr);

	arg.ranges = (uintptr_t)addr;
	if (array == ARRAY_HIGH)
		arg.ranges |= 1ULL << 50;
	arg.flags = args[2].n;
	do_ioctl("export_list", VMEMEXP_IOC_EXPORT, &arg, sizeof(arg), args + 5, list_source);

	if (array == ARRAY_CHANGES && array_changes) {
		__atomic_store_n(&array_changes, false, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
	}
	if (array == ARRAY_READ_ONLY)
		mprotect(array_pages, ARRAY_SIZE_MAX, RW);
	return finish_export(&args[4]);
}

/* --- sync, query and revoke --- */

static const int sync_errors[] = {
	EFAULT, EINVAL, EBADF, ENODEV, EOPNOTSUPP, ENOMEM, EINTR, 0
};

static const int query_errors[] = { EFAULT, EINVAL, EBADF, EINTR, 0 };

/* The file as the driver was told, which may be another one than the program's. */
static const struct file_slot *find_file(int fd)
{
	for (const struct file_slot *f = files; f < files + NR_FILES; f++)
		if (f->fd >= 0 && f->fd == fd)
			return f;
	return NULL;
}

/* Counted from the most that fit, or as they are; but not so many that it takes long. */
static uint32_t rows_of(const struct arg *arg, const struct vmemexp_sync *sync, uint64_t size)
{
	uint64_t room = size - sync->offset - sync->length, fitting;

	if (!sync->stride || sync->offset > size || sync->length > size - sync->offset)
		return arg->n;
	fitting = 1 + room / sync->stride;
	if (arg->from_end)
		return fitting > MAX_ROWS ? MAX_ROWS : fitting - arg->n;
	return arg->n > MAX_ROWS && arg->n <= fitting ? MAX_ROWS : arg->n;
}

static bool is_inside(const struct vmemexp_sync *arg, uint64_t size)
{
	uint64_t rows = arg->rows > 1 ? arg->rows - 1 : 0, end;

	return arg->length && !__builtin_mul_overflow(rows, arg->stride, &end) &&
	       !__builtin_add_overflow(end, arg->offset, &end) &&
	       !__builtin_add_overflow(end, arg->length, &end) && end <= size;
}

int call_sync(const struct arg *args)
{
	const struct file_slot *f = &files[args[0].n % NR_FILES];
	struct vmemexp_sync arg = sync_args(f->fd, args[1].n,
					    bytes_of(&args[3], f->size), 0);

	arg.length = bytes_of(&args[4], f->size - arg.offset);
	arg.stride = bytes_of(&args[5], f->size);
	arg.rows = rows_of(&args[2], &arg, f->size);
	do_ioctl("sync", VMEMEXP_IOC_SYNC, &arg, sizeof(arg), args + 6, &regions[0]);
	if (!check_common(sync_errors) || request.ret)
		return request.ret;
	memcpy(&arg, request.before, sizeof(arg));
	f = find_file(arg.fd);
	if (f && f->ours && request.place != IN_SOURCE && !is_inside(&arg, f->size))
		fail("sync: went beyond the end");
	return arg.rows > 1;
}

static void check_description(const struct vmemexp_query *arg, const struct file_slot *f)
{
	if (!(arg->access & VMEMEXP_ACCESS_READ) ||
	    arg->access & ~(VMEMEXP_ACCESS_READ | VMEMEXP_ACCESS_WRITE) ||
	    arg->cache < VMEMEXP_CACHE_CACHED || arg->cache > VMEMEXP_CACHE_UNCACHED ||
	    !arg->memory || arg->memory & ~0x3fU || arg->state & ~0x7fU)
		fail("query: access %#x, cache %u, memory %#x, state %#x", arg->access,
		     arg->cache, arg->memory, arg->state);
	if (!arg->nr_extents || !arg->min_extent || arg->min_extent > arg->max_extent ||
	    arg->max_extent > arg->dmabuf_size ||
	    arg->nr_extents > arg->dmabuf_size / PAGE ||
	    arg->address_bits < 12 || arg->address_bits > 64)
		fail("query: extents %llu, %#llx to %#llx bytes, %u bits",
		     (unsigned long long)arg->nr_extents, (unsigned long long)arg->min_extent,
		     (unsigned long long)arg->max_extent, arg->address_bits);
	if (arg->mappings > arg->attachments)
		fail("query: %u mappings of %u attachments", arg->mappings, arg->attachments);
	if (!f)
		return;
	if (!f->ours)
		fail("query: another driver's dma-buf is ours");
	if (arg->dmabuf_size != f->size ||
	    (arg->access & VMEMEXP_ACCESS_WRITE) != (f->writable ? VMEMEXP_ACCESS_WRITE : 0))
		fail("query: not what the export said");
	if (!f->reused && f->nr_ranges &&
	    (arg->offset != f->offset || arg->length != f->length ||
	     (request.told >= VMEMEXP_QUERY_SIZE_VER1 && arg->nr_ranges != f->nr_ranges)))
		fail("query: offset %#llx, length %#llx, %u ranges",
		     (unsigned long long)arg->offset, (unsigned long long)arg->length,
		     arg->nr_ranges);
	/* The ranges have no gaps between them. */
	if ((arg->offset + arg->length + PAGE - 1) / PAGE * PAGE != arg->dmabuf_size)
		fail("query: %#llx bytes from %#llx on are not all of it",
		     (unsigned long long)arg->length, (unsigned long long)arg->offset);
}

int call_query(const struct arg *args)
{
	struct vmemexp_query arg = query_args(files[args[0].n % NR_FILES].fd);

	arg.flags = args[1].n;
	do_ioctl("query", VMEMEXP_IOC_QUERY, &arg, sizeof(arg), args + 2, &regions[0]);
	if (!check_common(query_errors))
		return request.ret;
	memcpy(&arg, request.after, sizeof(arg));
	if (!request.ret) {
		check_description(&arg, find_file(arg.fd));
		return (arg.state << 4) + !!arg.attachments + 2 * !!arg.mappings +
		       4 * !!arg.vmaps + 8 * !!arg.cpu_mappings;
	}
	if (request.place != IN_SOURCE && memcmp(request.before, request.after, sizeof(arg)))
		fail("query: written in spite of errno %d", -request.ret);
	return request.ret;
}

static const int revoke_errors[] = {
	EFAULT, EINVAL, EPERM, ENOENT, ENOTUNIQ, EINTR, ENOMEM, 0
};

int call_revoke(const struct arg *args)
{
	static char names[256];
	struct stat st = {};
	struct vmemexp_revoke arg = {
		.size = sizeof(arg),
		.names = args[2].n & 1 ? to_u64(KERNEL_ADDRESS) : to_u64(names),
		.names_size = args[3].n % sizeof(names),
	};

	fstat(files[args[0].n % NR_FILES].fd, &st);
	arg.ino = st.st_ino;
	arg.flags = args[1].n;
	memset(names, 0x55, sizeof(names));
	do_ioctl("revoke", VMEMEXP_IOC_REVOKE, &arg, sizeof(arg), args + 4, &regions[0]);
	if (!check_common(revoke_errors) || request.ret)
		return request.ret;
	if (!request.known)
		return 0;
	memcpy(&arg, request.after, sizeof(arg));
	if (!(arg.state & VMEMEXP_STATE_REVOKED) || arg.state & ~0x7fU || !arg.names_size ||
	    arg.vmaps > 1U << 16 || (!arg.mappings && arg.names_size != 1))
		fail("revoke: state %#x, %u mappings, %u vmaps, %u bytes of names", arg.state,
		     arg.mappings, arg.vmaps, arg.names_size);
	return 1 + !!arg.mappings + 2 * !!arg.vmaps;
}

/* --- TI's ioctls --- */

/* A descriptor that comes back is one of a dma-buf; what is refused is not written. */
static int check_ti_export(const struct arg *slot, int ret,
			   const struct vmemexp_ti_export64 *before,
			   const struct vmemexp_ti_export64 *after, int fd)
{
	struct vmemexp_query query;

	if (ret) {
		if (!is_one_of(ret, export_errors))
			fail("ti export: errno %d is not documented", -ret);
		if (memcmp(before, after, sizeof(*before)))
			fail("ti export: what was refused was written to");
		return ret;
	}
	if (fcntl(fd, F_GETFD) != FD_CLOEXEC || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		fail("ti export: descriptor %d", fd);
	query = query_args(fd);
	set_file(slot, (struct file_slot){
		.fd = fd,
		.ours = _test_ioctl(device, VMEMEXP_IOC_QUERY, &query) == 0,
		.size = lseek(fd, 0, SEEK_END),
		.writable = true,
		/* Its offset and length were not told. */
		.reused = true,
	});
	return 0;
}

int call_ti(const struct arg *args)
{
	static const unsigned long numbers[] = {
		VMEMEXP_TI_IOC_EXPORT32, VMEMEXP_TI_IOC_EXPORT64, VMEMEXP_TI_IOC_SYNC,
	};
	const struct region *r = &regions[args[1].n % NR_REGIONS];
	unsigned int which = args[0].n % ARRAY_SIZE(numbers), place = args[5].n % NR_PLACES;
	uint64_t offset = bytes_of(&args[2], r->size);
	uint64_t length = bytes_of(&args[3], r->size - offset);
	union {
		struct vmemexp_ti_export32 narrow;
		struct vmemexp_ti_export64 wide;
		struct vmemexp_ti_sync sync;
	} arg = {}, before;
	int ret;

	if (place == AT_NULL || place == IN_KERNEL || place == NOT_MAPPED) {
		ret = _test_ioctl(device, numbers[which], find_place(place, PAGE, &regions[0]));
		if (ret != -EFAULT)
			fail("ti: errno %d for a structure that is nowhere", -ret);
		return ret;
	}
	if (which == 0) {
		arg.narrow.vaddr = (uintptr_t)r->addr + offset;
		arg.narrow.size = length;
	} else if (which == 1) {
		arg.wide.vaddr = (uintptr_t)r->addr + offset;
		arg.wide.size = length;
	} else {
		arg.sync.fd = files[args[4].n % NR_FILES].fd;
		arg.sync.op = length % 3;
	}
	before = arg;
	ret = _test_ioctl(device, numbers[which], &arg);
	if (which < 2)
		return check_ti_export(&args[4], ret, &before.wide, &arg.wide,
				       which ? arg.wide.fd : arg.narrow.fd);
	if (ret && !is_one_of(ret, sync_errors))
		fail("ti sync: errno %d is not documented", -ret);
	if (memcmp(&before, &arg, sizeof(arg)))
		fail("ti sync: the structure was written to");
	return ret;
}

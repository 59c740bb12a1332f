// SPDX-License-Identifier: GPL-2.0
/*
 * Memory runs out, or an address goes bad, in the middle of a call: each
 * allocation and each copy from or to user space that a call makes is made to
 * fail once, one after the other, until there is none left that has not. A call
 * that can do without it gives the right result; any other fails with the errno
 * that is due, and nothing is pinned, charged, mapped or open that was not before.
 *
 * The kernel does that by /proc/thread-self/fail-nth if it has fault injection. It
 * counts what any of its functions does for the thread, so that much of what fails
 * here is not the driver's own.
 */
#include "lib/vmemexp_memory.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define DEBUGFS		"/sys/kernel/debug/"
#define BUFFERS		DEBUGFS "vmemexp/buffers"

/* More than one batch of what is pinned in one go. */
#define LARGE		(1100 * PAGE)

/* More ranges than a small array holds. */
#define MANY_RANGES	20

/* Rows of a rectangle. */
#define ROWS		4
#define STRIDE		(2 * PAGE)

/* Steps of all tests of this run, in memory that they share. */
static unsigned int *steps;

/* --- faults --- */

/* Kinds of faults; NR_FAULTS: none. */
enum fault { SLAB, BUDDY, USER_COPY, NR_FAULTS };

/* Their directories in debugfs. */
static const char * const fault_dirs[] = {
	"failslab", "fail_page_alloc", "fail_usercopy",
};

/* Initial value of "times", which a fault decrements. */
#define TIMES		"1000000"

static int set_fault(enum fault fault, const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", fault_dirs[fault], name);
	return write_text(path, text);
}

/* Nothing strikes by itself, as the probability is 0. */
static void __set_up_faults(struct __test_metadata *_metadata)
{
	for (enum fault i = 0; i < NR_FAULTS; i++) {
		ASSERT_EQ(0, set_fault(i, "probability", "0"));
		ASSERT_EQ(0, set_fault(i, "times", TIMES));
		/* Call traces in the kernel log are for what is wrong. */
		ASSERT_EQ(0, set_fault(i, "verbose", "0"));
	}
	/* Also where the kernel would wait for memory, which is nearly everywhere. */
	ASSERT_EQ(0, set_fault(SLAB, "ignore-gfp-wait", "N"));
	ASSERT_EQ(0, set_fault(BUDDY, "ignore-gfp-wait", "N"));
	ASSERT_EQ(0, set_fault(BUDDY, "ignore-gfp-highmem", "N"));
}

/*
 * Counts, of allocations, those of @kind only. User copies are counted always. When
 * the slabs need pages changes from call to call, but each by itself is repeatable.
 */
static void __count_only(struct __test_metadata *_metadata, enum fault kind)
{
	/* No slab has the mark that this asks for. */
	ASSERT_EQ(0, set_fault(SLAB, "cache-filter", kind == SLAB ? "N" : "Y"));
	ASSERT_EQ(0, set_fault(BUDDY, "min-order", kind == BUDDY ? "0" : "32"));
}

#define count_only(kind) __count_only(_metadata, kind)

/* Return the fault that was injected. */
static enum fault find_fault(void)
{
	char path[128], text[32];
	enum fault i;

	for (i = 0; i < NR_FAULTS; i++) {
		snprintf(path, sizeof(path), DEBUGFS "%s/times", fault_dirs[i]);
		if (read_text(path, text, sizeof(text)) > 0 && strcmp(text, TIMES "\n")) {
			set_fault(i, "times", TIMES);
			break;
		}
	}
	return i;
}

/* --- the calls --- */

struct scene {
	int fd;
	struct test_state before;
	int fail_nth;
	struct memory m;
	struct vmemexp_range ranges[MANY_RANGES];
	struct vmemexp_export export;
	struct vmemexp_revoke revoke;
	/* Made by prepare() or the call; -1 or NULL if it is not there. */
	int dmabuf;
	int session;
	int card;
	int made;
	unsigned char *view;
	char text[4096];
};

/*
 * @need: says what the kernel lacks for it, or NULL
 * @memory: makes what is exported, of @size bytes or 17 pages, once
 * @discard: advice by which its pages go before each call, to be faulted in, if any
 * @flags, @fd_flags: of the export
 * @ranges: the memory is exported in so many parts, the last part first, if not 0
 * @charge: pages that this counts against the limit, which is no higher
 * @prepare: makes what the call needs
 * @call: returns 0 or a negative errno
 * @check: looks at what the call did
 * @copies: user copies that it makes, none of which it can do without
 * @slabs: allocations of slabs that it cannot do without, at least; an export wants
 *         more if the pages happen to be scattered
 * @pages: the same of pages
 * @lasts: what it has done when it fails is not taken back
 * @other_error: errno of other code for lack of memory, if not ENOMEM
 * @warns: the core takes it for a bug of the exporter if there is no memory
 */
struct operation {
	const char *(*need)(void);
	void (*memory)(struct __test_metadata *_metadata, struct memory *m);
	size_t size;
	int discard;
	unsigned int flags;
	unsigned int fd_flags;
	unsigned int ranges;
	long charge;
	void (*prepare)(struct __test_metadata *_metadata, struct scene *self);
	int (*call)(struct scene *self);
	void (*check)(struct __test_metadata *_metadata, struct scene *self);
	unsigned int copies;
	unsigned int slabs;
	unsigned int pages;
	bool lasts;
	int other_error;
	bool warns;
};

/* --- prepare: what a call needs --- */

static void prepare_dmabuf(struct __test_metadata *_metadata, struct scene *self)
{
	self->dmabuf = test_export_cmd(&self->export);
}

static void prepare_view(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_dmabuf(_metadata, self);
	self->view = map(self->m.size, RW, MAP_SHARED, self->dmabuf);
}

/* A range that is a mapping of a dma-buf. */
static void prepare_export_of_view(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_view(_metadata, self);
	self->export = export_args(self->view, self->m.size, O_RDWR);
}

static void prepare_session(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_dmabuf(_metadata, self);
	self->session = test_importer_open();
}

static void prepare_attached(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_session(_metadata, self);
	test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_SHADOW);
}

static void prepare_mapped(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_attached(_metadata, self);
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
}

static void prepare_card(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_dmabuf(_metadata, self);
	self->card = open_vgem();
	ASSERT_LE(0, self->card);
}

/* --- call, check --- */

static int call_open(struct scene *self)
{
	self->made = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	return self->made < 0 ? -errno : 0;
}

static int call_export(struct scene *self)
{
	int ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &self->export);

	if (!ret)
		self->made = self->export.fd;
	return ret;
}

static void check_export(struct __test_metadata *_metadata, struct scene *self)
{
	unsigned char *view = map(self->m.size, PROT_READ, MAP_SHARED, self->made);

	EXPECT_SAME(self->m.expect, view, self->m.size);
	munmap(view, self->m.size);
}

/* Returns where range @i of the list begins in the memory: the last part comes first. */
static size_t list_part(const struct scene *self, unsigned int i)
{
	return (self->export.nr_ranges - 1 - i) * (self->m.size / self->export.nr_ranges);
}

static void check_list_export(struct __test_metadata *_metadata, struct scene *self)
{
	unsigned char *view = map(self->m.size, PROT_READ, MAP_SHARED, self->made);
	size_t size = self->m.size / self->export.nr_ranges;

	for (unsigned int i = 0; i < self->export.nr_ranges; i++)
		EXPECT_SAME(self->m.expect + list_part(self, i), view + i * size, size);
	munmap(view, self->m.size);
	EXPECT_EQ(self->export.nr_ranges, test_query(self->made).nr_ranges);
}

static int call_query(struct scene *self)
{
	struct vmemexp_query query = query_args(self->dmabuf);
	int ret = _test_ioctl(self->fd, VMEMEXP_IOC_QUERY, &query);

	memcpy(self->text, &query, sizeof(query));
	return ret;
}

static void check_query(struct __test_metadata *_metadata, struct scene *self)
{
	struct vmemexp_query query;

	memcpy(&query, self->text, sizeof(query));
	EXPECT_EQ(self->m.size, query.dmabuf_size);
	EXPECT_EQ(self->export.nr_extents, query.nr_extents);
	EXPECT_EQ(1, query.mappings);
}

static int call_sync(struct scene *self)
{
	return _test_sync(self->fd, self->dmabuf, VMEMEXP_SYNC_RW | VMEMEXP_SYNC_END,
			  1, self->m.size - 2);
}

static int call_sync_rows(struct scene *self)
{
	return _test_sync_rows(self->fd, self->dmabuf,
			       VMEMEXP_SYNC_RW | VMEMEXP_SYNC_START, 1, PAGE, STRIDE, ROWS);
}

static int call_sync_observer(struct scene *self)
{
	return _test_sync(self->fd, self->dmabuf, VMEMEXP_SYNC_RW | VMEMEXP_SYNC_END |
			  VMEMEXP_SYNC_OBSERVER, 0, self->m.size);
}

static int call_dmabuf_sync(struct scene *self)
{
	return _test_dmabuf_sync(self->dmabuf, DMA_BUF_SYNC_RW | DMA_BUF_SYNC_START);
}

static int call_mmap(struct scene *self)
{
	unsigned char *view = mmap(NULL, self->m.size, RW, MAP_SHARED, self->dmabuf, 0);

	if ((void *)view == MAP_FAILED)
		return -errno;
	self->view = view;
	for (size_t i = 0; i < self->m.size; i += PAGE)
		*(volatile unsigned char *)(view + i);
	return 0;
}

static void check_mmap(struct __test_metadata *_metadata, struct scene *self)
{
	EXPECT_SAME(self->m.expect, self->view, self->m.size);
	EXPECT_EQ(1, test_query(self->dmabuf).cpu_mappings);
}

/* Splits the mapping. */
static int call_munmap_part(struct scene *self)
{
	return munmap(self->view + PART_START, self->m.size - PART_START) ? -errno : 0;
}

static void check_munmap_part(struct __test_metadata *_metadata, struct scene *self)
{
	EXPECT_SAME(self->m.expect, self->view, PART_START);
	EXPECT_EQ(1, test_query(self->dmabuf).cpu_mappings);
}

static int call_attach(struct scene *self)
{
	return _test_importer_attach(self->session, self->dmabuf, IMPORTER_DEV_COHERENT);
}

static void check_attach(struct __test_metadata *_metadata, struct scene *self)
{
	EXPECT_EQ(1, test_query(self->dmabuf).attachments);
	test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
}

static int call_map(struct scene *self)
{
	return _test_importer_map(self->session, IMPORTER_BIDIRECTIONAL);
}

static void check_map(struct __test_metadata *_metadata, struct scene *self)
{
	test_importer_read(self->session, 0, self->text, sizeof(self->text));
	EXPECT_SAME(self->m.expect, (unsigned char *)self->text, sizeof(self->text));
	test_importer_unmap(self->session);
	EXPECT_EQ(0, test_importer_info(self->session).nr_mapped);
	EXPECT_EQ(0, test_importer_info(self->session).nr_errors);
}

static int call_vmap(struct scene *self)
{
	return _test_ioctl(self->session, IMPORTER_IOC_VMAP, NULL);
}

static void check_vmap(struct __test_metadata *_metadata, struct scene *self)
{
	unsigned char *read = malloc(self->m.size);

	test_importer_vread(self->session, 0, read, self->m.size);
	EXPECT_SAME(self->m.expect, read, self->m.size);
	EXPECT_EQ(1, test_query(self->dmabuf).vmaps);
	free(read);
}

/* Pages of zeroes, once those of the buffer are unpinned. */
static void prepare_revoked(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_attached(_metadata, self);
	test_revoke(self->dmabuf);
	EXPECT_SOON(self->before.pins, pinned_pages());
}

static void check_vmap_of_revoked(struct __test_metadata *_metadata, struct scene *self)
{
	unsigned char *zeroes = calloc(2, self->m.size), *read = zeroes + self->m.size;

	memset(read, 0xff, self->m.size);
	test_importer_vread(self->session, 0, read, self->m.size);
	EXPECT_SAME(zeroes, read, self->m.size);
	EXPECT_EQ(1, test_query(self->dmabuf).vmaps);
	free(zeroes);
}

static int call_import(struct scene *self)
{
	struct drm_prime_handle prime = { .fd = self->dmabuf };

	int ret = _test_ioctl(self->card, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime);

	/* The program was not told the number of the handle. Closing the card drops it. */
	if (ret == -EFAULT) {
		close(self->card);
		self->card = open_vgem();
	}
	return ret;
}

static void check_import(struct __test_metadata *_metadata, struct scene *self)
{
	struct vmemexp_query query = test_query(self->dmabuf);

	EXPECT_EQ(1, query.attachments);
	/* Newer kernels wait until the pages are wanted. */
	EXPECT_GE(1, query.mappings);
}

static int call_list(struct scene *self)
{
	int ret = read_text(BUFFERS, self->text, sizeof(self->text));

	return ret < 0 ? ret : 0;
}

static void check_list(struct __test_metadata *_metadata, struct scene *self)
{
	char text[sizeof(self->text)];

	ASSERT_LT(0, read_text(BUFFERS, text, sizeof(text)));
	EXPECT_STREQ(text, self->text);
	EXPECT_NE(NULL, strstr(text, "failnth_test"));
}

static void prepare_revoke(struct __test_metadata *_metadata, struct scene *self)
{
	prepare_mapped(_metadata, self);
	self->revoke = revoke_args(self->dmabuf);
	self->revoke.names = to_u64(self->text);
	self->revoke.names_size = sizeof(self->text);
}

static int call_revoke(struct scene *self)
{
	return _test_ioctl(self->fd, VMEMEXP_IOC_REVOKE, &self->revoke);
}

/* The importer is named, and keeps its mapping. */
static void check_revoke(struct __test_metadata *_metadata, struct scene *self)
{
	EXPECT_NE(NULL, strstr(self->text, "importer"));
	EXPECT_EQ(VMEMEXP_STATE_REVOKED,
		  test_query_state(self->dmabuf) & VMEMEXP_STATE_REVOKED);
	EXPECT_EQ(1, test_query(self->dmabuf).mappings);
	test_importer_read(self->session, 0, self->text, sizeof(self->text));
	EXPECT_SAME(self->m.expect, (unsigned char *)self->text, sizeof(self->text));
}

/* Ends whatever prepare() made of the dma-buf. */
static int call_close(struct scene *self)
{
	int ret = close(self->session) || close(self->dmabuf) ? -errno : 0;

	self->session = -1;
	self->dmabuf = -1;
	return ret;
}

static void check_close(struct __test_metadata *_metadata, struct scene *self)
{
	ASSERT_LT(0, read_text(BUFFERS, self->text, sizeof(self->text)));
	EXPECT_EQ(NULL, strstr(self->text, "failnth_test"));
}

static int call_allow(struct scene *self)
{
	(void)self;
	return write_text(VMEMEXP_ALLOW, "shmem,anon");
}

static void check_allow(struct __test_metadata *_metadata, struct scene *self)
{
	ASSERT_LT(0, read_text(VMEMEXP_ALLOW, self->text, sizeof(self->text)));
	EXPECT_STREQ("anon,shmem\n", self->text);
}

static void prepare_allow(struct __test_metadata *_metadata, struct scene *self)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon"));
	(void)self;
}

static int call_carveouts(struct scene *self)
{
	(void)self;
	return write_text(VMEMEXP_CARVEOUTS, "0x1000:0x1000,0x3000:0x1000");
}

static void check_carveouts(struct __test_metadata *_metadata, struct scene *self)
{
	ASSERT_LT(0, read_text(VMEMEXP_CARVEOUTS, self->text, sizeof(self->text)));
	EXPECT_STREQ("0x1000:0x1000,0x3000:0x1000\n", self->text);
}

static void prepare_carveouts(struct __test_metadata *_metadata, struct scene *self)
{
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, "\n"));
	(void)self;
}

/* --- one call, in which one thing fails --- */

/* State that a failed call does not change. */
struct snapshot {
	struct test_state state;
	long accounted;
	char buffers[1024];	/* with what is attached to and mapped of them */
};

static void take_snapshot(struct snapshot *s)
{
	s->state = get_state();
	s->accounted = accounted_pages();
	read_text(BUFFERS, s->buffers, sizeof(s->buffers));
}

static void __expect_unchanged(struct __test_metadata *_metadata, const struct snapshot *before)
{
	char buffers[sizeof(before->buffers)];

	test_state(&before->state);
	EXPECT_EQ(before->accounted, accounted_pages());
	read_text(BUFFERS, buffers, sizeof(buffers));
	EXPECT_STREQ(before->buffers, buffers);
}

#define expect_unchanged(before) __expect_unchanged(_metadata, before)

static void close_file(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Undo the call and prepare(). */
static void clean_up(struct scene *self)
{
	close_file(&self->made);
	close_file(&self->session);
	close_file(&self->card);
	close_file(&self->dmabuf);
	if (self->view)
		munmap(self->view, self->m.size);
	self->view = NULL;
}

static void prepare(struct __test_metadata *_metadata, struct scene *self,
		    const struct operation *op)
{
	const struct memory *m = &self->m;
	bool cut = op->flags & VMEMEXP_EXPORT_UNALIGNED;

	if (op->discard) {
		ASSERT_EQ(0, madvise(m->addr, m->size, op->discard));
		memset(m->expect, 0, m->size);
	}
	self->export = export_args(m->addr + (cut ? CUT_FRONT : 0),
				   m->size - (cut ? CUT_FRONT + CUT_BACK : 0),
				   op->fd_flags ?: O_RDWR);
	if (op->ranges) {
		self->export = list_args(self->ranges, op->ranges, op->fd_flags ?: O_RDWR);
		for (unsigned int i = 0; i < op->ranges; i++)
			self->ranges[i] = range_of(m->addr + list_part(self, i),
						   m->size / op->ranges);
	}
	self->export.flags = op->flags;
	if (op->prepare)
		op->prepare(_metadata, self);
}

/* An export may name the page for which there was no memory. */
static void check_reason(struct __test_metadata *_metadata, const struct scene *self,
			 const struct vmemexp_export *before)
{
	struct vmemexp_range range = range_of(self->m.addr, self->m.size);
	struct vmemexp_export expected = *before;

	expected.err_reason = self->export.err_reason;
	expected.err_addr = self->export.err_addr;
	expected.err_range = self->export.err_range;
	EXPECT_EQ(0, memcmp(&expected, &self->export, sizeof(expected)));
	if (expected.err_reason == VMEMEXP_REASON_UNPINNABLE) {
		if (expected.nr_ranges) {
			ASSERT_GT(expected.nr_ranges, expected.err_range);
			range = self->ranges[expected.err_range];
		}
		EXPECT_LE(range.vaddr, expected.err_addr);
		EXPECT_GT(range.vaddr + range.length, expected.err_addr);
	} else if (expected.err_reason) {
		/* Refused before it was even read. */
		EXPECT_EQ(before->err_reason, expected.err_reason);
		EXPECT_EQ(before->err_addr, expected.err_addr);
		EXPECT_EQ(before->err_range, expected.err_range);
	} else {
		EXPECT_EQ(0, expected.err_addr);
		EXPECT_EQ(0, expected.err_range);
	}
}

/* Lets the @nth allocation or copy fail; 0: none, from now on. */
static bool arm(const struct scene *self, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	return pwrite(self->fail_nth, text, len, 0) == len;
}

/* Tells what has failed. */
static enum fault disarm(const struct scene *self)
{
	char text[16] = "";
	bool failed;

	/* If it was nothing before, it may be this read or write. */
	failed = pread(self->fail_nth, text, sizeof(text) - 1, 0) > 0 && !strcmp(text, "0\n");
	while (!arm(self, 0))
		;
	return failed ? find_fault() : NR_FAULTS;
}

/* An ordinary call. */
static void __succeed(struct __test_metadata *_metadata, struct scene *self,
		      const struct operation *op)
{
	prepare(_metadata, self, op);
	ASSERT_EQ(0, op->call(self));
	if (op->check)
		op->check(_metadata, self);
	clean_up(self);
}

#define succeed() __succeed(_metadata, self, op)

/* The importer drops what an exporter forgets, and so would hide it. */
static uint64_t __count_mapped(struct __test_metadata *_metadata, const struct scene *self)
{
	return self->session < 0 ? 0 : test_importer_info(self->session).nr_mapped;
}

#define count_mapped() __count_mapped(_metadata, self)

struct result {
	enum fault fault;
	int ret;
};

static struct result __attempt(struct __test_metadata *_metadata, struct scene *self,
			       const struct operation *op, unsigned int nth)
{
	struct vmemexp_export export;
	struct snapshot prepared;
	struct result r;
	uint64_t mapped;

	prepare(_metadata, self, op);
	take_snapshot(&prepared);
	mapped = count_mapped();
	export = self->export;

	ASSERT_TRUE(arm(self, nth));
	r.ret = op->call(self);
	r.fault = disarm(self);

	if (r.ret) {
		if (!op->lasts)
			expect_unchanged(&prepared);
		EXPECT_EQ(mapped, count_mapped());
		check_reason(_metadata, self, &export);
	} else if (op->check) {
		op->check(_metadata, self);
	}
	clean_up(self);
	return r;
}

#define attempt(nth) __attempt(_metadata, self, op, nth)

static bool is_due(const struct operation *op, const struct result *r)
{
	if (r->fault == USER_COPY)
		return r->ret == -EFAULT;
	return !r->ret || r->ret == -ENOMEM || r->ret == -op->other_error;
}

static void set_up(struct __test_metadata *_metadata, struct scene *self,
		   const struct operation *op)
{
	const char *missing = op->need ? op->need() : NULL;

	if (access(FAIL_NTH, F_OK))
		SKIP(return, "the kernel has no fault injection");
	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	skip_without_importer();
	__set_up_faults(_metadata);
	test_setup();
	self->fail_nth = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fail_nth);
	self->dmabuf = -1;
	self->session = -1;
	self->card = -1;
	self->made = -1;
	if (op->warns) {
		ASSERT_EQ(0, set_knob("/proc/sys/kernel/panic_on_warn", "0"));
		ASSERT_EQ(0, write_text("/dev/kmsg", "vmemexp-run: faults wanted"));
	}
	self->m.size = op->size ?: SMALL;
	op->memory(_metadata, &self->m);

	/* A page that stayed charged would be missing in the next call. */
	limit_memlock(op->charge * PAGE);
}

static void tear_down(struct __test_metadata *_metadata, struct scene *self,
		      const struct operation *op)
{
	clean_up(self);
	if (op->warns)
		EXPECT_EQ(0, write_text("/dev/kmsg", "vmemexp-run: no faults wanted"));
	restore_system();
	close(self->fail_nth);
	test_teardown();
}

/*
 * Returns how many faults of @kind the call could not do without. With @between,
 * each of them is followed by a call in which nothing fails.
 */
static unsigned int __fail_each(struct __test_metadata *_metadata, struct scene *self,
				const struct operation *op, enum fault kind, bool between)
{
	struct result r = { .fault = NR_FAULTS };
	unsigned int nth, failures = 0;
	struct snapshot before;

	count_only(kind);
	take_snapshot(&before);
	for (nth = 1; !_metadata->exit_code; nth++) {
		r = attempt(nth);
		if (r.fault == NR_FAULTS)
			break;
		++*steps;
		EXPECT_TRUE(is_due(op, &r));
		expect_unchanged(&before);
		failures += r.fault == kind && r.ret;
		if (_metadata->exit_code)
			TH_LOG("%s number %u: %d", fault_dirs[r.fault], nth, r.ret);
		if (between)
			succeed();
	}
	EXPECT_EQ(0, r.ret);
	expect_unchanged(&before);
	return failures;
}

#define fail_each(kind, between) __fail_each(_metadata, self, op, kind, between)

/*
 * Slabs twice: what the kernel allocates once and keeps, as the list of an mm's
 * notifiers, is met in the first round only, where it hides what follows.
 */
static void __fail_all(struct __test_metadata *_metadata, struct scene *self,
		       const struct operation *op)
{
	unsigned int slabs, pages, copies;

	fail_each(SLAB, false);
	slabs = fail_each(SLAB, true);
	pages = fail_each(BUDDY, true);
	copies = fail_each(USER_COPY, true);
	TH_LOG("not without %u slabs, %u pages, %u copies", slabs, pages, copies);
	EXPECT_LE(op->slabs, slabs);
	EXPECT_LE(op->pages, pages);
	EXPECT_EQ(op->copies, copies);
}

FIXTURE(call)
{
	struct scene scene;
};

FIXTURE_VARIANT(call)
{
	struct operation op;
};

FIXTURE_SETUP(call)
{
	set_up(_metadata, &self->scene, &variant->op);
}

FIXTURE_TEARDOWN(call)
{
	tear_down(_metadata, &self->scene, &variant->op);
}

TEST_F_TIMEOUT(call, fails_without_a_trace_or_works_whatever_fails_in_it, 300)
{
	__fail_all(_metadata, &self->scene, &variant->op);
}

/* --- memory that the other tests have none of --- */

static void make_scattered(struct __test_metadata *_metadata, struct memory *m)
{
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	m->addr = map(m->size, RW, ANON, -1);
	/* Every other page, so that neighbours are none in memory. */
	for (size_t i = 0; i < m->size; i += 2 * PAGE)
		m->addr[i] = 1;
	write_contents(m, 1);
}

/* More hugetlb pages than a buffer has room for, and no two are neighbours. */
static void make_scattered_hugetlb(struct __test_metadata *_metadata, struct memory *m)
{
	char pages[24];
	int file;

	snprintf(pages, sizeof(pages), "%lu", (unsigned long)(m->size / HUGE_PAGE));
	ASSERT_EQ(0, set_knob(HUGE_PAGES, pages));
	file = memfd(m->size, MFD_HUGETLB);
	m->addr = map(m->size, RW, MAP_SHARED, file);
	memset(m->addr, 1, m->size);
	/* They may have been neighbours in this order. */
	for (size_t at = 0; at < m->size; at += HUGE_PAGE)
		ASSERT_NE(MAP_FAILED, mmap(m->addr + at, HUGE_PAGE, RW, MAP_SHARED | MAP_FIXED,
					   file, m->size - HUGE_PAGE - at));
	close(file);
	write_contents(m, 1);
}

static void make_file_read_only(struct __test_metadata *_metadata, struct memory *m)
{
	map_file(_metadata, m, PROT_READ);
	m->expect = malloc(m->size);
	memcpy(m->expect, m->original, m->size);
}

/* In two parts that change places: not contiguous. */
static void make_carveout(struct __test_metadata *_metadata, struct memory *m,
			  unsigned int how)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED, .how = how };
	int file = _test_carveout_open(&setup);
	size_t half = m->size / 2;
	struct carveout_info info;

	ASSERT_LE(0, file) {
		TH_LOG("the module vmemexp_carveout is not loaded, or has no range");
	}
	ASSERT_EQ(0, _test_carveout_info(setup.region, &info));
	ASSERT_EQ(0, set_knob(VMEMEXP_CARVEOUTS, carveout_text(&info)));

	m->addr = map(m->size, PROT_NONE, ANON, -1);
	ASSERT_NE(MAP_FAILED, mmap(m->addr, half, RW, MAP_SHARED | MAP_FIXED, file, half));
	ASSERT_NE(MAP_FAILED, mmap(m->addr + half, half, RW, MAP_SHARED | MAP_FIXED, file, 0));
	close(file);
	m->expect = malloc(m->size);
	fill(m->expect, m->size, 1);
	test_carveout_write(setup.region, half, m->expect, half);
	test_carveout_write(setup.region, 0, m->expect + half, half);
}

static void make_carveout_at_mmap(struct __test_metadata *_metadata, struct memory *m)
{
	make_carveout(_metadata, m, CARVEOUT_HOW_REMAP);
}

static void make_carveout_by_fault(struct __test_metadata *_metadata, struct memory *m)
{
	make_carveout(_metadata, m, CARVEOUT_HOW_FAULT);
}

static void make_carveout_in_one_piece(struct __test_metadata *_metadata, struct memory *m)
{
	size_t size = m->size;

	/* The second half of a range twice as long. */
	m->size = 2 * size;
	make_carveout(_metadata, m, CARVEOUT_HOW_REMAP);
	m->addr += size;
	m->expect += size;
	m->size = size;
}

/* --- the list of calls --- */

FIXTURE_VARIANT_ADD(call, open) { .op = {
	.memory = make_anon,
	.call = call_open,
	.copies = 1, .slabs = 2,
} };

FIXTURE_VARIANT_ADD(call, export) { .op = {
	.memory = make_anon, .charge = PAGES,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_what_was_never_touched) { .op = {
	.memory = make_anon, .charge = PAGES, .discard = MADV_DONTNEED,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_read_only) { .op = {
	.memory = make_anon, .charge = PAGES, .fd_flags = O_RDONLY | O_CLOEXEC,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_unaligned) { .op = {
	.memory = make_anon, .charge = PAGES, .flags = VMEMEXP_EXPORT_UNALIGNED,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_in_batches) { .op = {
	.memory = make_scattered, .size = LARGE, .charge = LARGE / PAGE,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_shared_memory) { .op = {
	.memory = make_memfd, .charge = PAGES, .discard = MADV_REMOVE,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_hugetlb) { .op = {
	.need = need_hugetlb,
	.memory = make_hugetlb, .size = HUGE_PAGE, .charge = HUGE_PAGE / PAGE,
	.flags = VMEMEXP_EXPORT_CONTIGUOUS, .discard = MADV_DONTNEED,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_scattered_hugetlb) { .op = {
	.need = need_hugetlb,
	.memory = make_scattered_hugetlb, .size = 20 * HUGE_PAGE, .charge = 20 * HUGE_PAGE / PAGE,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 7,
} };

FIXTURE_VARIANT_ADD(call, export_of_a_private_file) { .op = {
	.need = need_ext4,
	.memory = make_file_read_only, .charge = PAGES, .fd_flags = O_RDONLY | O_CLOEXEC,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_a_shared_file) { .op = {
	.need = need_ext4,
	.memory = make_file_shared, .charge = PAGES, .fd_flags = O_RDONLY | O_CLOEXEC,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_pages_of_a_driver) { .op = {
	.need = need_packet,
	.memory = make_driver, .charge = PAGES,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, export_of_a_carveout) { .op = {
	.memory = make_carveout_at_mmap, .size = 16 * PAGE,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 8,
} };

FIXTURE_VARIANT_ADD(call, export_of_a_carveout_by_fault) { .op = {
	.memory = make_carveout_by_fault, .size = 16 * PAGE,
	.call = call_export, .check = check_export,
	.copies = 2, .slabs = 8,
} };

FIXTURE_VARIANT_ADD(call, export_of_a_list_of_one) { .op = {
	.memory = make_anon, .charge = PAGES, .ranges = 1,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 7,
} };

FIXTURE_VARIANT_ADD(call, export_of_two_ranges) { .op = {
	.memory = make_scattered, .size = 4 * PAGE, .charge = 4, .ranges = 2,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

FIXTURE_VARIANT_ADD(call, export_of_two_ranges_that_were_never_touched) { .op = {
	.memory = make_scattered, .size = 4 * PAGE, .charge = 4, .ranges = 2,
	.discard = MADV_DONTNEED,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

FIXTURE_VARIANT_ADD(call, export_of_three_ranges_read_only) { .op = {
	.memory = make_memfd, .size = 6 * PAGE, .charge = 6, .ranges = 3,
	.fd_flags = O_RDONLY | O_CLOEXEC,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

FIXTURE_VARIANT_ADD(call, export_of_many_ranges) { .op = {
	.memory = make_scattered, .size = MANY_RANGES * PAGE, .charge = MANY_RANGES,
	.ranges = MANY_RANGES,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 10,
} };

FIXTURE_VARIANT_ADD(call, export_of_ranges_in_batches) { .op = {
	.memory = make_scattered, .size = LARGE, .charge = LARGE / PAGE, .ranges = 2,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

FIXTURE_VARIANT_ADD(call, export_of_two_ranges_of_hugetlb) { .op = {
	.need = need_hugetlb,
	.memory = make_hugetlb, .size = 2 * HUGE_PAGE, .charge = 2 * HUGE_PAGE / PAGE,
	.ranges = 2, .discard = MADV_DONTNEED,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

FIXTURE_VARIANT_ADD(call, export_of_many_ranges_of_hugetlb) { .op = {
	.need = need_hugetlb,
	.memory = make_scattered_hugetlb, .size = MANY_RANGES * HUGE_PAGE,
	.charge = MANY_RANGES * HUGE_PAGE / PAGE, .ranges = MANY_RANGES,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

FIXTURE_VARIANT_ADD(call, export_of_two_ranges_of_a_carveout) { .op = {
	.memory = make_carveout_at_mmap, .size = 16 * PAGE, .ranges = 2,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 9,
} };

/* The description of so many extents and ranges is charged. */
FIXTURE_VARIANT_ADD(call, export_of_many_ranges_of_a_carveout) { .op = {
	.memory = make_carveout_by_fault, .size = MANY_RANGES * PAGE, .ranges = MANY_RANGES,
	.charge = 3,
	.call = call_export, .check = check_list_export,
	.copies = 3, .slabs = 10,
} };

FIXTURE_VARIANT_ADD(call, export_of_a_mapped_dmabuf) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_export_of_view, .call = call_export, .check = check_export,
	.copies = 2,
} };

FIXTURE_VARIANT_ADD(call, query) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_mapped, .call = call_query, .check = check_query,
	.copies = 2,
} };

FIXTURE_VARIANT_ADD(call, sync) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_mapped, .call = call_sync,
	.copies = 1,
} };

FIXTURE_VARIANT_ADD(call, sync_of_rows) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_mapped, .call = call_sync_rows,
	.copies = 1,
} };

FIXTURE_VARIANT_ADD(call, sync_for_an_observer) { .op = {
	.memory = make_carveout_at_mmap, .size = 16 * PAGE,
	.prepare = prepare_dmabuf, .call = call_sync_observer,
	.copies = 1,
} };

FIXTURE_VARIANT_ADD(call, sync_of_the_core) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_mapped, .call = call_dmabuf_sync,
	.copies = 1,
} };

FIXTURE_VARIANT_ADD(call, mmap) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_dmabuf, .call = call_mmap, .check = check_mmap,
	.slabs = 2,
} };

FIXTURE_VARIANT_ADD(call, mmap_into_several_page_tables) { .op = {
	.memory = make_scattered, .size = LARGE, .charge = LARGE / PAGE,
	.prepare = prepare_dmabuf, .call = call_mmap, .check = check_mmap,
	.slabs = 2,
} };

FIXTURE_VARIANT_ADD(call, mmap_of_a_carveout) { .op = {
	.memory = make_carveout_at_mmap, .size = 16 * PAGE,
	.prepare = prepare_dmabuf, .call = call_mmap, .check = check_mmap,
	.slabs = 2,
} };

FIXTURE_VARIANT_ADD(call, mmap_of_a_carveout_into_several_page_tables) { .op = {
	.memory = make_carveout_at_mmap, .size = LARGE,
	.prepare = prepare_dmabuf, .call = call_mmap, .check = check_mmap,
	.slabs = 2, .pages = 1,
} };

FIXTURE_VARIANT_ADD(call, munmap_of_a_part) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_view, .call = call_munmap_part, .check = check_munmap_part,
	.slabs = 1,
} };

/* With a device that is made for it, from which some of the errors come. */
FIXTURE_VARIANT_ADD(call, attach) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_session, .call = call_attach, .check = check_attach,
	.copies = 1, .slabs = 10, .other_error = EINVAL,
} };

FIXTURE_VARIANT_ADD(call, map) { .op = {
	.memory = make_memfd, .size = 4 * PAGE, .charge = 4,
	.prepare = prepare_attached, .call = call_map, .check = check_map,
	.copies = 1, .slabs = 4,
} };

/* As a resource, of which the DMA API cannot say why it could not. */
FIXTURE_VARIANT_ADD(call, map_of_a_carveout) { .op = {
	.memory = make_carveout_at_mmap, .size = 16 * PAGE,
	.prepare = prepare_attached, .call = call_map, .check = check_map,
	.copies = 1, .slabs = 2, .other_error = EIO,
} };

/*
 * The array and what describes the area; the addresses have one more, but for those that
 * the kernel has kept from an earlier area (since 6.9).
 */
FIXTURE_VARIANT_ADD(call, vmap) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_attached, .call = call_vmap, .check = check_vmap,
	.slabs = 2, .warns = true,
} };

FIXTURE_VARIANT_ADD(call, vmap_of_a_carveout) { .op = {
	.memory = make_carveout_in_one_piece, .size = 16 * PAGE,
	.prepare = prepare_attached, .call = call_vmap, .check = check_vmap,
	.slabs = 1, .warns = true,
} };

FIXTURE_VARIANT_ADD(call, vmap_of_what_was_revoked) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_revoked, .call = call_vmap, .check = check_vmap_of_revoked,
	.slabs = 2, .pages = 1, .warns = true,
} };

/* vgem attaches, and in older kernels maps. */
FIXTURE_VARIANT_ADD(call, prime_import) { .op = {
	.need = need_vgem,
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_card, .call = call_import, .check = check_import,
	.copies = 2, .slabs = 6,
} };

FIXTURE_VARIANT_ADD(call, list_of_buffers) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_dmabuf, .call = call_list, .check = check_list,
	.copies = 2, .slabs = 2,
} };

FIXTURE_VARIANT_ADD(call, revoke) { .op = {
	.memory = make_memfd, .size = 4 * PAGE, .charge = 4,
	.prepare = prepare_revoke, .call = call_revoke, .check = check_revoke,
	.copies = 3, .slabs = 1, .lasts = true,
} };

FIXTURE_VARIANT_ADD(call, revoke_of_a_carveout) { .op = {
	.memory = make_carveout_at_mmap, .size = 16 * PAGE,
	.prepare = prepare_revoke, .call = call_revoke, .check = check_revoke,
	.copies = 3, .slabs = 1, .lasts = true,
} };

FIXTURE_VARIANT_ADD(call, close) { .op = {
	.memory = make_anon, .charge = PAGES,
	.prepare = prepare_mapped, .call = call_close, .check = check_close,
} };

FIXTURE_VARIANT_ADD(call, change_of_what_is_allowed) { .op = {
	.memory = make_anon,
	.prepare = prepare_allow, .call = call_allow, .check = check_allow,
	.copies = 2, .slabs = 3,
} };

FIXTURE_VARIANT_ADD(call, change_of_the_carveouts) { .op = {
	.memory = make_anon,
	.prepare = prepare_carveouts, .call = call_carveouts, .check = check_carveouts,
	.copies = 2, .slabs = 3,
} };

static void print_steps(void)
{
	ksft_print_msg("fail-nth steps %u\n", *steps);
}

int main(int argc, char **argv)
{
	steps = mmap(NULL, sizeof(*steps), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (steps == MAP_FAILED)
		return KSFT_FAIL;
	atexit(print_steps);
	return test_harness_run(argc, argv);
}

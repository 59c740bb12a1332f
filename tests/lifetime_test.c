// SPDX-License-Identifier: GPL-2.0
/*
 * How long the pages of a dma-buf live, and that they are given back: whatever
 * the exporter does with its memory, in whatever order references are dropped,
 * and however a process ends.
 *
 * Every fixture ends with the pins and open files that it began with.
 */
#include "lib/vmemexp_utils.h"

#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>

#define PAGES		4
#define SIZE		(PAGES * page_size())

#define RW		(PROT_READ | PROT_WRITE)

/* A user without privileges, and the RLIMIT_MEMLOCK in pages. */
#define NOBODY		65534
#define LIMIT_PAGES	8

static bool is_pattern(const volatile void *p, unsigned int seed)
{
	return first_difference(p, SIZE, seed) == -1;
}

static void *__map_dmabuf(struct __test_metadata *_metadata, int dmabuf)
{
	void *view = mmap(NULL, SIZE, RW, MAP_SHARED, dmabuf, 0);

	ASSERT_NE(MAP_FAILED, view);
	return view;
}

#define map_dmabuf(dmabuf) __map_dmabuf(_metadata, dmabuf)

/* A session that holds all that a session can hold. */
static int __hold_by_importer(struct __test_metadata *_metadata, int dmabuf)
{
	int session = test_importer_open();

	test_importer_attach(session, dmabuf, IMPORTER_DEV_COHERENT);
	test_importer_map(session, IMPORTER_BIDIRECTIONAL);
	test_importer_vmap(session);
	return session;
}

#define hold_by_importer(dmabuf) __hold_by_importer(_metadata, dmabuf)

/* --- references --- */

FIXTURE(reference)
{
	int fd;
	struct test_state before;
	unsigned char *source;
	int dmabuf;
};

FIXTURE_SETUP(reference)
{
	skip_without_importer();
	test_setup();
	self->source = map_anon(SIZE);
	ASSERT_NE(MAP_FAILED, (void *)self->source);
	fill(self->source, SIZE, 1);
	self->dmabuf = test_export(self->source, SIZE, O_RDWR);
}

FIXTURE_TEARDOWN(reference)
{
	close(self->dmabuf);
	test_teardown();
}

enum holder { SOURCE, DRIVER, DMABUF, MAPPING, IMPORTER, NR_HOLDERS };

#define NR_ORDERS	(5 * 4 * 3 * 2 * 1)

/* The @nth order of all holders. */
static void get_order(int nth, enum holder *order)
{
	enum holder left[] = { SOURCE, DRIVER, DMABUF, MAPPING, IMPORTER };

	for (int n = NR_HOLDERS; n; nth /= n, n--) {
		*order++ = left[nth % n];
		left[nth % n] = left[n - 1];
	}
}

static void try_order(struct __test_metadata *_metadata, const enum holder *order)
{
	long expected, pins = pinned_pages();
	int driver = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	void *source = map_anon(SIZE), *mapping, *seen = malloc(SIZE);
	bool held[] = { true, true, true, true, true };
	int dmabuf, session;

	fill(source, SIZE, 2);
	dmabuf = __test_export_range(_metadata, driver, source, SIZE, O_RDWR);
	mapping = map_dmabuf(dmabuf);
	session = hold_by_importer(dmabuf);

	for (int i = 0; i < NR_HOLDERS; i++) {
		switch (order[i]) {
		case SOURCE:
			munmap(source, SIZE);
			break;
		case DRIVER:
			close(driver);
			break;
		case DMABUF:
			close(dmabuf);
			break;
		case MAPPING:
			munmap(mapping, SIZE);
			break;
		default:
			close(session);
			break;
		}
		held[order[i]] = false;

		expected = pins;
		if (held[DMABUF] || held[MAPPING] || held[IMPORTER])
			expected += PAGES;
		EXPECT_SOON(expected, pinned_pages());
		EXPECT_TRUE(!held[SOURCE] || is_pattern(source, 2));
		EXPECT_TRUE(!held[MAPPING] || is_pattern(mapping, 2));
		if (held[DMABUF])
			test_contents(dmabuf, SIZE, 2);
		if (held[IMPORTER]) {
			test_importer_read(session, 0, seen, SIZE);
			EXPECT_EQ(-1, first_difference(seen, SIZE, 2));
		}
	}
	free(seen);
}

TEST_F(reference, of_whatever_kind_is_dropped_in_any_order)
{
	enum holder order[NR_HOLDERS];

	for (int i = 0; i < NR_ORDERS && !_metadata->exit_code; i++) {
		get_order(i, order);
		try_order(_metadata, order);
	}
}

#define EXPECT_COUNTS(nr_attached, nr_mapped, nr_vmapped, nr_mmapped) do { \
	struct vmemexp_query query = test_query(self->dmabuf);		\
									\
	EXPECT_EQ(nr_attached, query.attachments);			\
	EXPECT_EQ(nr_mapped, query.mappings);				\
	EXPECT_EQ(nr_vmapped, query.vmaps);				\
	EXPECT_EQ(nr_mmapped, query.cpu_mappings);			\
} while (0)

TEST_F(reference, is_counted_step_by_step_up_and_down)
{
	int one = test_importer_open(), two = test_importer_open();
	unsigned char *mapping;

	EXPECT_COUNTS(0, 0, 0, 0);
	test_importer_attach(one, self->dmabuf, IMPORTER_DEV_COHERENT);
	EXPECT_COUNTS(1, 0, 0, 0);
	test_importer_map(one, IMPORTER_BIDIRECTIONAL);
	EXPECT_COUNTS(1, 1, 0, 0);
	test_importer_attach(two, self->dmabuf, IMPORTER_DEV_SHADOW);
	EXPECT_COUNTS(2, 1, 0, 0);
	test_importer_map(two, IMPORTER_TO_DEVICE);
	EXPECT_COUNTS(2, 2, 0, 0);
	test_importer_vmap(one);
	EXPECT_COUNTS(2, 2, 1, 0);
	test_importer_vmap(two);
	EXPECT_COUNTS(2, 2, 2, 0);

	mapping = map_dmabuf(self->dmabuf);
	EXPECT_COUNTS(2, 2, 2, 1);
	/* A hole in the middle leaves two. */
	munmap(mapping + page_size(), page_size());
	EXPECT_COUNTS(2, 2, 2, 2);
	munmap(mapping, page_size());
	EXPECT_COUNTS(2, 2, 2, 1);
	munmap(mapping, SIZE);
	EXPECT_COUNTS(2, 2, 2, 0);
	/* It is a mapping of the dma-buf, even if the importer's mmap() makes it. */
	mapping = map_dmabuf(two);
	EXPECT_COUNTS(2, 2, 2, 1);

	/* Calls that fail do not count. */
	EXPECT_EQ(-EBUSY, _test_importer_map(one, IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, RW, MAP_PRIVATE, self->dmabuf, 0));
	EXPECT_COUNTS(2, 2, 2, 1);

	test_importer_vunmap(two);
	EXPECT_COUNTS(2, 2, 1, 1);
	test_importer_unmap(one);
	EXPECT_COUNTS(2, 1, 1, 1);
	test_importer_vunmap(one);
	EXPECT_COUNTS(2, 1, 0, 1);
	test_importer_detach(one);
	EXPECT_COUNTS(1, 1, 0, 1);
	/* A process that dies closes it like this. */
	close(two);
	EXPECT_COUNTS(0, 0, 0, 1);
	munmap(mapping, SIZE);
	EXPECT_COUNTS(0, 0, 0, 0);
	close(one);
}

TEST_F(reference, by_mapping_is_inherited_by_a_child)
{
	unsigned char *mapping = map_dmabuf(self->dmabuf);
	int go[2];
	pid_t child;
	char byte;

	ASSERT_EQ(0, pipe2(go, O_CLOEXEC));
	child = fork_child();
	if (!child) {
		close(go[1]);
		close(self->dmabuf);
		CHECK(is_pattern(mapping, 1));
		fill(mapping, SIZE, 2);
		/* Until the parent has nothing left. */
		read(go[0], &byte, 1);
		CHECK(is_pattern(mapping, 2));
		_exit(KSFT_PASS);
	}
	close(go[0]);
	EXPECT_SOON(2, test_query(self->dmabuf).cpu_mappings);
	EXPECT_SOON(true, is_pattern(mapping, 2));
	EXPECT_TRUE(is_pattern(self->source, 2));

	munmap(mapping, SIZE);
	munmap(self->source, SIZE);
	close(self->dmabuf);
	self->dmabuf = -1;
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	close(go[1]);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	EXPECT_SOON(self->before.pins, pinned_pages());
}

#define BUFFERS	"/sys/kernel/debug/vmemexp/buffers"

/* The line of inode @ino in the list of live buffers. */
static bool find_buffer(unsigned long ino, char *line, size_t size)
{
	FILE *f = fopen(BUFFERS, "re");
	bool found = false;

	while (f && !found && fgets(line, size, f))
		found = strtoul(line, NULL, 10) == ino;
	if (f)
		fclose(f);
	return found;
}

TEST_F(reference, shows_in_the_list_of_live_buffers)
{
	int session = hold_by_importer(self->dmabuf);
	unsigned char *mapping = map_dmabuf(self->dmabuf);
	char comm[32], line[256], expected[256];
	struct stat list, dmabuf;

	ASSERT_EQ(0, stat(BUFFERS, &list));
	EXPECT_EQ(S_IFREG | 0400, list.st_mode);
	EXPECT_EQ(0, list.st_uid);

	ASSERT_EQ(0, fstat(self->dmabuf, &dmabuf));
	ASSERT_LT(0, read_text("/proc/self/comm", comm, sizeof(comm)));
	munmap(self->source, page_size());
	snprintf(expected, sizeof(expected),
		 "%lu %zu rw anon %llu 1 1 1 1 stale %u %d %s",
		 (unsigned long)dmabuf.st_ino, SIZE,
		 (unsigned long long)test_query(self->dmabuf).nr_extents,
		 getuid(), getpid(), comm);
	ASSERT_TRUE(find_buffer(dmabuf.st_ino, line, sizeof(line)));
	EXPECT_STREQ(expected, line);

	close(session);
	munmap(mapping, SIZE);
	close(self->dmabuf);
	self->dmabuf = -1;
	EXPECT_SOON(false, find_buffer(dmabuf.st_ino, line, sizeof(line)));
}

/* --- the list of live buffers, read piece by piece --- */

/* This is less than a line. */
#define PIECE		30

#define KEPT		24
#define FRESH		16

struct listed {
	int dmabuf;
	unsigned long ino;
};

struct reader {
	int file;
	char text[16384];	/* what has been read */
	size_t length;
};

FIXTURE(list)
{
	int fd;
	struct test_state before;
	unsigned char *source;		/* of all buffers */
	struct listed kept[KEPT];	/* buffers that are there all the time ... */
	struct listed closed[KEPT];	/* ... each followed by one that tests close ... */
	struct listed fresh[FRESH];	/* ... and those that come later */
	struct reader reader;
};

static struct listed __export_listed(struct __test_metadata *_metadata, int fd,
				     const unsigned char *source)
{
	struct listed buffer = {
		.dmabuf = __test_export_range(_metadata, fd, source, SIZE, O_RDWR),
	};
	struct stat stat;

	ASSERT_EQ(0, fstat(buffer.dmabuf, &stat));
	buffer.ino = stat.st_ino;
	return buffer;
}

#define export_listed() __export_listed(_metadata, self->fd, self->source)

static void close_listed(struct listed *buffer)
{
	if (buffer->dmabuf >= 0)
		close(buffer->dmabuf);
	buffer->dmabuf = -1;
}

FIXTURE_SETUP(list)
{
	test_setup();
	self->source = map_anon(SIZE);
	ASSERT_NE(MAP_FAILED, (void *)self->source);
	for (int i = 0; i < KEPT; i++) {
		self->kept[i] = export_listed();
		self->closed[i] = export_listed();
	}
	for (int i = 0; i < FRESH; i++)
		self->fresh[i].dmabuf = -1;
	self->reader.file = open(BUFFERS, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->reader.file);
}

FIXTURE_TEARDOWN(list)
{
	close(self->reader.file);
	for (int i = 0; i < KEPT; i++) {
		close_listed(&self->kept[i]);
		close_listed(&self->closed[i]);
	}
	for (int i = 0; i < FRESH; i++)
		close_listed(&self->fresh[i]);
	munmap(self->source, SIZE);
	test_teardown();
}

/* Returns false at the end. */
static bool __read_piece(struct __test_metadata *_metadata, struct reader *reader)
{
	ssize_t got;

	ASSERT_LT(reader->length + PIECE, sizeof(reader->text));
	got = read(reader->file, reader->text + reader->length, PIECE);
	ASSERT_LE(0, got);
	reader->length += got;
	reader->text[reader->length] = '\0';
	return got;
}

#define read_piece() __read_piece(_metadata, &self->reader)

#define read_to_the_end() do {						\
	while (read_piece())						\
		;							\
} while (0)

/* Begins anew, and forgets what has been read. */
#define rewind_list() do {						\
	ASSERT_EQ(0, lseek(self->reader.file, 0, SEEK_SET));		\
	self->reader.length = 0;					\
} while (0)

/* Returns the first line of the buffer at @text or later, or NULL. */
static const char *find_line(const char *text, unsigned long ino)
{
	char begin[32];

	sprintf(begin, "\n%lu ", ino);
	return strstr(text, begin);
}

static int count_lines(const char *text, unsigned long ino)
{
	int nr = 0;

	for (text = find_line(text, ino); text; text = find_line(text + 1, ino))
		nr++;
	return nr;
}

/* Reads on until some of the buffer's line has been read, but not all of it. */
static void __read_into(struct __test_metadata *_metadata, struct reader *reader,
			unsigned long ino)
{
	while (!find_line(reader->text, ino))
		ASSERT_TRUE(__read_piece(_metadata, reader));
	ASSERT_EQ(NULL, strchr(find_line(reader->text, ino) + 1, '\n'));
}

#define read_into(ino) __read_into(_metadata, &self->reader, ino)

/*
 * Expects the headline, and whole lines, each of another buffer; among them those that
 * are kept, in the order in which they were exported.
 */
static void __check_list(struct __test_metadata *_metadata, const char *text,
			 const struct listed *kept)
{
	const char *line, *end, *last = text;
	int words;

	EXPECT_EQ(0, strncmp(text, "ino size access ", 16));
	for (line = text; *line; line = end + 1) {
		end = strchr(line, '\n');
		ASSERT_NE(NULL, end) {
			TH_LOG("the end of a line is missing: %s", line);
		}
		words = 1;
		for (const char *c = line; c < end; c++)
			words += *c == ' ';
		EXPECT_EQ(13, words) {
			TH_LOG("%.*s", (int)(end - line), line);
		}
		if (line != text)
			EXPECT_EQ(1, count_lines(text, strtoul(line, NULL, 10)));
	}
	for (int i = 0; i < KEPT; i++) {
		line = find_line(text, kept[i].ino);
		ASSERT_LT(last, line) {
			TH_LOG("buffer %d is missing, or in the wrong place", i);
		}
		last = line;
	}
}

#define check_list() __check_list(_metadata, self->reader.text, self->kept)

#define lines_of(buffer) count_lines(self->reader.text, (buffer).ino)

static void __expect_lines(struct __test_metadata *_metadata, int expected, const char *text,
			   const struct listed *buffers, int nr)
{
	for (int i = 0; i < nr; i++) {
		EXPECT_EQ(expected, count_lines(text, buffers[i].ino)) {
			TH_LOG("buffer %d", i);
		}
	}
}

/* Expects so many lines of each of the buffers. */
#define expect_lines(expected, buffers, nr) \
	__expect_lines(_metadata, expected, self->reader.text, buffers, nr)

TEST_F(list, shows_each_buffer_once)
{
	read_to_the_end();
	check_list();
	expect_lines(1, self->closed, KEPT);
	EXPECT_FALSE(read_piece());
}

/* They are closed before the line that is read, and behind it. */
TEST_F(list, that_changes_while_it_is_read_shows_what_stays_once)
{
	int nr_closed = 0, nr_fresh = 0;

	while (read_piece()) {
		if (nr_closed < KEPT)
			close_listed(&self->closed[nr_closed++ * 7 % KEPT]);
		if (nr_fresh < FRESH)
			self->fresh[nr_fresh++] = export_listed();
	}
	EXPECT_EQ(KEPT, nr_closed);
	EXPECT_EQ(FRESH, nr_fresh);
	check_list();
	/* They are younger than the list. */
	expect_lines(0, self->fresh, FRESH);
}

/* Others export more than one buffer for each line that is read. */
TEST_F(list, ends_however_much_is_exported)
{
	for (int i = 0; read_piece(); i++) {
		close_listed(&self->fresh[i % FRESH]);
		self->fresh[i % FRESH] = export_listed();
	}
	check_list();
	expect_lines(1, self->closed, KEPT);
}

/* The reader is in the line of such a buffer, or its line comes next. */
TEST_F(list, lets_buffers_be_closed_in_the_middle)
{
	read_into(self->closed[0].ino);
	close_listed(&self->closed[0]);
	read_into(self->kept[5].ino);
	close_listed(&self->closed[5]);
	close_listed(&self->closed[6]);
	read_into(self->kept[9].ino);
	for (int i = 0; i < KEPT; i++)
		close_listed(&self->closed[i]);
	read_to_the_end();
	check_list();
	EXPECT_EQ(1, lines_of(self->closed[0]));
	EXPECT_EQ(1, lines_of(self->closed[4]));
	EXPECT_EQ(0, lines_of(self->closed[5]));
	EXPECT_EQ(0, lines_of(self->closed[6]));
	EXPECT_EQ(0, lines_of(self->closed[KEPT - 1]));
}

/* The reader is in the line of one of them. */
TEST_F(list, holds_no_buffer)
{
	const char *text = self->reader.text;
	size_t length;

	read_into(self->kept[3].ino);
	for (int i = 0; i < KEPT; i++) {
		close_listed(&self->kept[i]);
		close_listed(&self->closed[i]);
	}
	EXPECT_SOON(self->before.pins, pinned_pages());
	length = self->reader.length;
	read_to_the_end();
	/* The rest of its line was left, and no other. */
	ASSERT_LT(length, self->reader.length);
	EXPECT_EQ(text + self->reader.length - 1, strchr(text + length, '\n'));
}

TEST_F(list, may_be_read_again_from_its_begin)
{
	read_into(self->kept[KEPT / 2].ino);
	rewind_list();
	read_to_the_end();
	check_list();
	expect_lines(1, self->closed, KEPT);

	/* It is as it is then, also after the end. */
	for (int i = 0; i < KEPT; i++)
		close_listed(&self->closed[i]);
	for (int i = 0; i < FRESH; i++)
		self->fresh[i] = export_listed();
	rewind_list();
	read_to_the_end();
	check_list();
	expect_lines(0, self->closed, KEPT);
	expect_lines(1, self->fresh, FRESH);
}

/* --- what the exporter does with its range --- */

/* A page on either side of the range is mapped, too. */
struct range {
	unsigned char *addr;
	int memfd;		/* -1: private anonymous memory */
};

FIXTURE(range)
{
	int fd;
	struct test_state before;
	struct range range;
	int dmabuf;
};

static int do_munmap(const struct range *range)
{
	return munmap(range->addr, SIZE);
}

static int do_munmap_a_page(const struct range *range)
{
	return munmap(range->addr + SIZE - page_size(), page_size());
}

static int do_munmap_neighbours(const struct range *range)
{
	return munmap(range->addr - page_size(), page_size()) ||
	       munmap(range->addr + SIZE, page_size());
}

static int do_mremap(const struct range *range)
{
	/* To where it cannot stay. */
	void *to = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mremap(range->addr, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		      to) == MAP_FAILED;
}

static int do_shrink(const struct range *range)
{
	return mremap(range->addr, SIZE, page_size(), 0) == MAP_FAILED;
}

static int do_map_over(const struct range *range)
{
	unsigned char *other = mmap(range->addr, SIZE, RW,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (other == MAP_FAILED)
		return -1;
	fill(other, SIZE, 5);
	return 0;
}

static int do_madv_dontneed(const struct range *range)
{
	return madvise(range->addr, SIZE, MADV_DONTNEED);
}

static int do_madv_remove(const struct range *range)
{
	return madvise(range->addr, SIZE, MADV_REMOVE);
}

static int do_truncate(const struct range *range)
{
	return ftruncate(range->memfd, 0);
}

static int do_mprotect(const struct range *range)
{
	return mprotect(range->addr, SIZE, PROT_NONE) ||
	       mprotect(range->addr, SIZE, PROT_READ);
}

static int do_write(const struct range *range)
{
	fill(range->addr, SIZE, 1);
	return 0;
}

static int do_compact(const struct range *range)
{
	return madvise(range->addr, SIZE, MADV_COLD) ||
	       write_text("/proc/sys/vm/compact_memory", "1");
}

static int do_fork(const struct range *range)
{
	pid_t child = fork_child();

	if (!child) {
		munmap(range->addr, SIZE);
		_exit(KSFT_PASS);
	}
	return wait_for_child(child);
}

static int do_vfork_and_exec(const struct range *range)
{
	pid_t child = vfork();

	if (!child) {
		execl("/proc/self/exe", "lifetime_test", "--exit", NULL);
		_exit(KSFT_FAIL);
	}
	return range->addr ? wait_for_child(child) : -1;
}

FIXTURE_VARIANT(range)
{
	int (*act)(const struct range *range);
	bool stale;
	bool shared;
};

FIXTURE_VARIANT_ADD(range, munmap) {
	.act = do_munmap, .stale = true,
};

FIXTURE_VARIANT_ADD(range, munmap_of_a_page) {
	.act = do_munmap_a_page, .stale = true,
};

FIXTURE_VARIANT_ADD(range, munmap_of_neighbours) {
	.act = do_munmap_neighbours,
};

FIXTURE_VARIANT_ADD(range, munmap_of_shared_memory) {
	.act = do_munmap, .stale = true, .shared = true,
};

FIXTURE_VARIANT_ADD(range, mremap) {
	.act = do_mremap, .stale = true,
};

FIXTURE_VARIANT_ADD(range, mremap_to_a_smaller_size) {
	.act = do_shrink, .stale = true,
};

FIXTURE_VARIANT_ADD(range, mmap_over_it) {
	.act = do_map_over, .stale = true,
};

FIXTURE_VARIANT_ADD(range, madv_dontneed) {
	.act = do_madv_dontneed,
};

FIXTURE_VARIANT_ADD(range, madv_remove) {
	.act = do_madv_remove, .shared = true,
};

FIXTURE_VARIANT_ADD(range, truncation) {
	.act = do_truncate, .shared = true,
};

FIXTURE_VARIANT_ADD(range, mprotect) {
	.act = do_mprotect,
};

FIXTURE_VARIANT_ADD(range, writing) {
	.act = do_write,
};

FIXTURE_VARIANT_ADD(range, compaction) {
	.act = do_compact,
};

FIXTURE_VARIANT_ADD(range, fork) {
	.act = do_fork,
};

FIXTURE_VARIANT_ADD(range, vfork_and_exec) {
	.act = do_vfork_and_exec,
};

FIXTURE_SETUP(range)
{
	size_t size = SIZE + 2 * page_size();
	unsigned char *area;

	skip_without_importer();
	test_setup();
	self->range.memfd = -1;
	if (variant->shared) {
		self->range.memfd = memfd_create("vmemexp test", MFD_CLOEXEC);
		ASSERT_LE(0, self->range.memfd);
		ASSERT_EQ(0, ftruncate(self->range.memfd, size));
	}
	area = mmap(NULL, size, RW, variant->shared ? MAP_SHARED :
		    MAP_PRIVATE | MAP_ANONYMOUS, self->range.memfd, 0);
	ASSERT_NE(MAP_FAILED, (void *)area);
	self->range.addr = area + page_size();
	fill(self->range.addr, SIZE, 1);
	self->dmabuf = test_export(self->range.addr, SIZE, O_RDWR);
}

FIXTURE_TEARDOWN(range)
{
	close(self->dmabuf);
	if (self->range.memfd >= 0)
		close(self->range.memfd);
	test_teardown();
}

/* Takes and writes a lot of memory, and would meet a page that was freed. */
static void use_up_memory(void)
{
	size_t size = 32 << 20;
	void *memory = map_anon(size);

	memset(memory, 0xee, size);
	munmap(memory, size);
}

TEST_F(range, is_left_without_any_effect_on_the_dmabuf)
{
	unsigned int stale = variant->stale ? VMEMEXP_STATE_STALE : 0;
	unsigned char *mapping = map_dmabuf(self->dmabuf), *later;

	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query(self->dmabuf).state);
	ASSERT_EQ(0, variant->act(&self->range));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | stale, test_query(self->dmabuf).state);

	use_up_memory();
	EXPECT_EQ(-1, first_difference(mapping, SIZE, 1));
	test_contents(self->dmabuf, SIZE, 1);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());

	/* A later mapping at the same address is not the memory of the dma-buf. */
	later = mmap(self->range.addr, SIZE, RW,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)later);
	fill(later, SIZE, 3);
	fill(mapping, SIZE, 4);
	test_contents(self->dmabuf, SIZE, 4);
	EXPECT_EQ(-1, first_difference(later, SIZE, 3));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE,
		  test_query(self->dmabuf).state);
	munmap(mapping, SIZE);
}

/* --- fork --- */

FIXTURE(fork)
{
	int fd;
	struct test_state before;
};

FIXTURE_VARIANT(fork)
{
	int flags;
	unsigned int fd_flags;
};

FIXTURE_VARIANT_ADD(fork, private_read_write) {
	.flags = MAP_PRIVATE, .fd_flags = O_RDWR,
};

FIXTURE_VARIANT_ADD(fork, private_read_only) {
	.flags = MAP_PRIVATE, .fd_flags = O_RDONLY,
};

FIXTURE_VARIANT_ADD(fork, shared_read_write) {
	.flags = MAP_SHARED, .fd_flags = O_RDWR,
};

FIXTURE_VARIANT_ADD(fork, shared_read_only) {
	.flags = MAP_SHARED, .fd_flags = O_RDONLY,
};

FIXTURE_SETUP(fork)
{
	skip_without_importer();
	test_setup();
}

FIXTURE_TEARDOWN(fork)
{
	test_teardown();
}

TEST_F(fork, leaves_private_pages_to_the_parent_and_shares_shared_ones)
{
	bool shared = variant->flags == MAP_SHARED;
	int to_child[2], from_child[2], dmabuf;
	unsigned char *source;
	pid_t child;
	char byte;

	source = mmap(NULL, SIZE, RW, variant->flags | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)source);
	fill(source, SIZE, 1);
	dmabuf = test_export(source, SIZE, variant->fd_flags);
	ASSERT_EQ(0, pipe2(to_child, O_CLOEXEC));
	ASSERT_EQ(0, pipe2(from_child, O_CLOEXEC));

	child = fork_child();
	if (!child) {
		close(to_child[1]);
		CHECK(is_pattern(source, 1));
		close(from_child[1]);
		/* Until the parent has written. */
		read(to_child[0], &byte, 1);
		CHECK(is_pattern(source, shared ? 2 : 1));
		fill(source, SIZE, 3);
		_exit(KSFT_PASS);
	}
	close(to_child[0]);
	close(from_child[1]);
	/* Until the child has looked. */
	EXPECT_EQ(0, read(from_child[0], &byte, 1));
	close(from_child[0]);
	fill(source, SIZE, 2);
	test_contents(dmabuf, SIZE, 2);
	close(to_child[1]);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));

	test_contents(dmabuf, SIZE, shared ? 3 : 2);
	EXPECT_EQ(-1, first_difference(source, SIZE, shared ? 3 : 2));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED |
		  (variant->fd_flags == O_RDONLY ? VMEMEXP_STATE_NO_VMAP : 0),
		  test_query(dmabuf).state);
	close(dmabuf);
}

/* --- processes that end --- */

FIXTURE(process)
{
	int fd;
	struct test_state before;
	int sock[2];
};

FIXTURE_SETUP(process)
{
	skip_without_importer();
	test_setup();
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				self->sock));
}

FIXTURE_TEARDOWN(process)
{
	close(self->sock[0]);
	close(self->sock[1]);
	test_teardown();
}

/* In a child: one byte from or to the other end, which must be alive. */
#define CHECK_RECEIVE(sock) do {					\
	char byte;							\
									\
	CHECK(read(sock, &byte, 1) == 1);				\
} while (0)

#define CHECK_SEND(sock)	CHECK(write(sock, "x", 1) == 1)

#define ASSERT_RECEIVE(sock) do {					\
	char byte;							\
									\
	ASSERT_EQ(1, read(sock, &byte, 1));				\
} while (0)

#define ASSERT_SEND(sock)	ASSERT_EQ(1, write(sock, "x", 1))

/* In a child: fresh memory with contents, and a dma-buf of it. */
static unsigned char *export_fresh(int fd, unsigned int fd_flags, int *dmabuf)
{
	unsigned char *source = map_anon(SIZE);
	struct vmemexp_export cmd = export_args(source, SIZE, fd_flags);

	CHECK((void *)source != MAP_FAILED);
	fill(source, SIZE, 1);
	CHECK(_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd) == 0);
	*dmabuf = cmd.fd;
	return source;
}

TEST_F(process, that_receives_the_fd_works_on_the_same_bytes_and_outlives_the_exporter)
{
	unsigned char *mapping, *source;
	int dmabuf;
	pid_t child;

	child = fork_child();
	if (!child) {
		close(self->sock[0]);
		source = export_fresh(self->fd, O_RDWR | O_CLOEXEC, &dmabuf);
		CHECK(send_fd(self->sock[1], dmabuf) == 0);
		CHECK_RECEIVE(self->sock[1]);
		CHECK(is_pattern(source, 2));
		fill(source, SIZE, 3);
		CHECK_SEND(self->sock[1]);
		CHECK_RECEIVE(self->sock[1]);
		_exit(KSFT_PASS);
	}
	dmabuf = receive_fd(self->sock[0]);
	ASSERT_LE(0, dmabuf);
	mapping = map_dmabuf(dmabuf);
	EXPECT_EQ(-1, first_difference(mapping, SIZE, 1));
	fill(mapping, SIZE, 2);
	ASSERT_SEND(self->sock[0]);
	ASSERT_RECEIVE(self->sock[0]);
	EXPECT_EQ(-1, first_difference(mapping, SIZE, 3));
	EXPECT_EQ(VMEMEXP_STATE_TRACKED, test_query(dmabuf).state);

	ASSERT_SEND(self->sock[0]);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	EXPECT_SOON(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE,
		    test_query(dmabuf).state);
	use_up_memory();
	EXPECT_EQ(-1, first_difference(mapping, SIZE, 3));
	fill(mapping, SIZE, 4);
	test_contents(dmabuf, SIZE, 4);
	munmap(mapping, SIZE);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	close(dmabuf);
}

/* Exit statuses of "--check", after exec(). */
enum { FOUND_DATA, FOUND_NO_FD, FOUND_WRONG };

static int check_after_exec(int dmabuf)
{
	struct vmemexp_query query = query_args(dmabuf);
	int ret, driver = open(VMEMEXP_PATH, O_RDWR);
	void *mapping;

	ret = _test_ioctl(driver, VMEMEXP_IOC_QUERY, &query);
	if (ret == -EBADF)
		return FOUND_NO_FD;
	if (ret || query.state != (VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE))
		return FOUND_WRONG;
	mapping = mmap(NULL, SIZE, RW, MAP_SHARED, dmabuf, 0);
	if (mapping == MAP_FAILED || !is_pattern(mapping, 1))
		return FOUND_WRONG;
	return FOUND_DATA;
}

static pid_t exporter_that_executes(int fd, unsigned int fd_flags)
{
	pid_t child = fork_child();
	char number[16];
	int dmabuf;

	if (child)
		return child;
	export_fresh(fd, fd_flags, &dmabuf);
	snprintf(number, sizeof(number), "%d", dmabuf);
	execl("/proc/self/exe", "lifetime_test", "--check", number, NULL);
	_exit(KSFT_FAIL);
}

TEST_F(process, that_calls_exec_keeps_the_dmabuf_unless_it_is_close_on_exec)
{
	pid_t keeps = exporter_that_executes(self->fd, O_RDWR);
	pid_t drops = exporter_that_executes(self->fd, O_RDWR | O_CLOEXEC);

	EXPECT_EQ(FOUND_DATA, wait_for_child(keeps));
	EXPECT_EQ(FOUND_NO_FD, wait_for_child(drops));
	EXPECT_SOON(self->before.pins, pinned_pages());
}

static long elapsed_us(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - start->tv_sec) * 1000000 + (now.tv_nsec - start->tv_nsec) / 1000;
}

#define LARGE_SIZE	(384UL << 20)

static pid_t start_large_export(int fd)
{
	struct vmemexp_export cmd;
	pid_t child = fork_child();

	if (child)
		return child;
	cmd = export_args(map_anon(LARGE_SIZE), LARGE_SIZE, O_RDWR);
	/* By huge pages it would be over too soon. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	_exit(-_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd));
}

/*
 * Returns how many us a child takes to end when it is killed in an export. LONG_MAX if it was
 * killed too late: the export was over, or went on for long after its pages were counted.
 */
static long __kill_in_large_export(struct __test_metadata *_metadata, int fd, long pins_before)
{
	const long pages = LARGE_SIZE / page_size();
	pid_t child = start_large_export(fd);
	struct timespec killed;
	long pins, most, us;
	int status;

	ASSERT_LE(0, child);
	do {
		sleep_ms(1);
		pins = pinned_pages() - pins_before;
	} while (!ended_child() && pins < pages / 16);
	ASSERT_EQ(0, kill(child, SIGKILL));
	clock_gettime(CLOCK_MONOTONIC, &killed);
	most = pins;
	while (!ended_child()) {
		long now = pinned_pages() - pins_before;

		most = now > most ? now : most;
	}
	us = elapsed_us(&killed);
	status = wait_for_child(child);
	EXPECT_SOON(pins_before, pinned_pages());
	if (status == 0 || most - pins > pages / 4)
		return LONG_MAX;
	EXPECT_EQ(128 + SIGKILL, status);
	return us;
}

/*
 * No time is right for all machines, so this one's is measured: an export that goes on to its end
 * does most of the work of one that is not killed. The lowest of several times counts, because the
 * machine may do something else meanwhile.
 */
TEST_F(process, that_is_killed_in_the_middle_of_a_large_export_ends_promptly)
{
	long all = LONG_MAX, least = LONG_MAX, us;
	struct timespec start;

	for (int i = 0; i < 3; i++) {
		clock_gettime(CLOCK_MONOTONIC, &start);
		EXPECT_EQ(0, wait_for_child(start_large_export(self->fd)));
		us = elapsed_us(&start);
		all = us < all ? us : all;
		EXPECT_SOON(self->before.pins, pinned_pages());
	}
	for (int i = 0; i < 10 && least >= all / 2; i++) {
		us = __kill_in_large_export(_metadata, self->fd, self->before.pins);
		TH_LOG("exported and ended in %ld us, killed in %ld us", all, us);
		least = us < least ? us : least;
	}
	EXPECT_GT(all / 2, least);
}

/* A file system of one file, that never sends the file's contents. */
struct server {
	int fuse;
	int asked[2];	/* a byte for each read that will not be answered */
};

static void answer(const struct server *server, uint64_t unique, int error,
		   const void *out, size_t size)
{
	struct fuse_out_header header = { sizeof(header) + size, error, unique };
	struct iovec iov[] = { { &header, sizeof(header) }, { (void *)out, size } };

	writev(server->fuse, iov, 2);
}

/* Ends when the file system is not mounted any more. */
static void *serve(void *arg)
{
	const struct server *server = arg;
	union {
		struct fuse_in_header header;
		char space[2 * FUSE_MIN_READ_BUFFER];
	} in;
	/* For a read without read-ahead the file system itself waits, unkillably. */
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096,
		.max_readahead = 1 << 17, .flags = FUSE_ASYNC_READ,
	};
	struct fuse_attr_out attr = {
		.attr = { .ino = 1, .size = SIZE, .mode = S_IFREG | 0600, .nlink = 1 },
	};
	struct fuse_open_out opened = {};

	while (read(server->fuse, &in, sizeof(in)) > 0) {
		switch (in.header.opcode) {
		case FUSE_INIT:
			answer(server, in.header.unique, 0, &init, sizeof(init));
			break;
		case FUSE_GETATTR:
			answer(server, in.header.unique, 0, &attr, sizeof(attr));
			break;
		case FUSE_OPEN:
			answer(server, in.header.unique, 0, &opened, sizeof(opened));
			break;
		case FUSE_READ:
			write(server->asked[1], "", 1);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(server, in.header.unique, -ENOSYS, NULL, 0);
		}
	}
	return NULL;
}

#define SERVED	"/tmp/vmemexp-served"

FIXTURE(server)
{
	int fd;
	struct test_state before;
	struct server server;
	pthread_t thread;
};

FIXTURE_VARIANT(server)
{
	int prot, flags, fd_flags;
};

FIXTURE_VARIANT_ADD(server, shared) {
	.prot = PROT_READ, .flags = MAP_SHARED, .fd_flags = O_RDONLY,
};

/* Before 6.2 such a mapping is pinned for writing, by force. */
FIXTURE_VARIANT_ADD(server, private_read_only) {
	.prot = PROT_READ, .flags = MAP_PRIVATE, .fd_flags = O_RDONLY,
};

FIXTURE_VARIANT_ADD(server, private_for_reading) {
	.prot = RW, .flags = MAP_PRIVATE, .fd_flags = O_RDONLY,
};

FIXTURE_VARIANT_ADD(server, private_for_writing) {
	.prot = RW, .flags = MAP_PRIVATE, .fd_flags = O_RDWR,
};

FIXTURE_SETUP(server)
{
	char options[64];

	system("modprobe -q fuse");
	if (access("/dev/fuse", F_OK))
		SKIP(return, "the kernel has no FUSE");
	test_setup();
	self->server.fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->server.fuse);
	ASSERT_EQ(0, pipe2(self->server.asked, O_CLOEXEC));
	close(open(SERVED, O_CREAT | O_CLOEXEC, 0600));
	snprintf(options, sizeof(options), "fd=%d,rootmode=%o,user_id=0,group_id=0",
		 self->server.fuse, S_IFREG);
	ASSERT_EQ(0, mount("vmemexp", SERVED, "fuse", 0, options));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, serve, &self->server));
}

FIXTURE_TEARDOWN(server)
{
	/* The kernel tells all that still wait for an answer that there will be none. */
	umount2(SERVED, MNT_FORCE | MNT_DETACH);
	pthread_join(self->thread, NULL);
	close(self->server.fuse);
	close(self->server.asked[0]);
	close(self->server.asked[1]);
	unlink(SERVED);
	test_teardown();
}

/* An exporter that cannot be killed there holds the mmap_lock, and blocks its observers. */
TEST_F(server, that_never_answers_is_waited_for_by_who_can_be_killed)
{
	int file = open(SERVED, O_RDONLY | O_CLOEXEC);
	struct vmemexp_export cmd;
	struct pollfd asked = { .fd = self->server.asked[0], .events = POLLIN };
	struct stat stat;
	pid_t child;

	/* FUSE asks for the size at fstat(). */
	ASSERT_EQ(0, fstat(file, &stat));
	ASSERT_EQ(SIZE, stat.st_size);
	child = fork_child();
	if (!child) {
		void *mem = mmap(NULL, SIZE, variant->prot, variant->flags, file, 0);

		CHECK(mem != MAP_FAILED);
		cmd = export_args(mem, SIZE, variant->fd_flags);
		_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
		_exit(KSFT_FAIL);
	}
	close(file);
	ASSERT_EQ(1, poll(&asked, 1, RELEASE_TIMEOUT_MS));
	EXPECT_EQ(0, ended_child());
	ASSERT_EQ(0, kill(child, SIGKILL));
	EXPECT_SOON(child, ended_child());
}

static volatile sig_atomic_t signals;

static void on_signal(int signal)
{
	(void)signal;
	signals = 1;
}

/*
 * The first export of an address space, a child's; a signal comes @us microseconds after its start,
 * or none if that is 0. Exit status: KSFT_XPASS, it came before; KSFT_XFAIL, during the export;
 * KSFT_PASS, not before its end, which was @took microseconds after the start.
 */
static int export_in_child(int device, const void *mem, unsigned int us, unsigned int *took)
{
	struct itimerval timer = { .it_value.tv_usec = us };
	struct timespec begin, end;
	struct vmemexp_export cmd;
	pid_t child = fork_child();

	if (!child) {
		cmd = export_args(mem, SIZE, O_RDWR);
		clock_gettime(CLOCK_MONOTONIC, &begin);
		CHECK(!setitimer(ITIMER_REAL, &timer, NULL));
		if (signals)
			_exit(KSFT_XPASS);
		CHECK(!_test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd));
		clock_gettime(CLOCK_MONOTONIC, &end);
		*took = (end.tv_sec - begin.tv_sec) * 1000000 +
			(end.tv_nsec - begin.tv_nsec) / 1000;
		_exit(signals ? KSFT_XFAIL : KSFT_PASS);
	}
	return wait_for_child(child);
}

/*
 * The first export of a process has the kernel take all locks of the address space, which
 * any signal ends. With so many mappings, that takes long enough to be met.
 */
TEST_F(process, gets_no_eintr_for_a_signal_in_its_first_export)
{
	/* Few enough for a kernel that checks itself: each child has to copy them. */
	const size_t mappings = 8000;
	struct sigaction act = { .sa_handler = on_signal };
	char *area = mmap(NULL, mappings * page_size(), PROT_READ,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *mem = map_anon(SIZE);
	unsigned int *took = mmap(NULL, page_size(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int step, us, met = 0;
	int status = KSFT_PASS;

	ASSERT_NE(MAP_FAILED, area);
	ASSERT_NE(MAP_FAILED, (void *)took);
	for (size_t i = 0; i < mappings; i += 2)
		ASSERT_EQ(0, mprotect(area + i * page_size(), page_size(), PROT_NONE));
	ASSERT_EQ(0, sigaction(SIGALRM, &act, NULL));
	ASSERT_EQ(KSFT_PASS, export_in_child(self->fd, mem, 0, took));
	/*
	 * The first one may have taken much longer than others do, so take smaller steps
	 * until an export is met.
	 */
	for (step = *took / 24 + 1; !met && step; step /= 2) {
		/* Faster and faster: on a busy machine the others may take much longer. */
		for (us = 1; us < 1000000; us += step + us / 8) {
			status = export_in_child(self->fd, mem, us, took);
			ASSERT_NE(KSFT_FAIL, status);
			/* The signal came too late. */
			if (status == KSFT_PASS)
				break;
			met += status == KSFT_XFAIL;
		}
		EXPECT_EQ(KSFT_PASS, status);
	}
	EXPECT_LT(0, met);
}

TEST_F(process, that_is_killed_with_everything_held_leaves_nothing)
{
	unsigned char *mapping;
	int dmabuf, session;
	pid_t child;

	child = fork_child();
	if (!child) {
		export_fresh(self->fd, O_RDWR, &dmabuf);
		mapping = mmap(NULL, SIZE, RW, MAP_SHARED, dmabuf, 0);
		CHECK((void *)mapping != MAP_FAILED);
		session = open(IMPORTER_PATH, O_RDWR);
		CHECK(_test_importer_attach(session, dmabuf, IMPORTER_DEV_SHADOW) == 0);
		CHECK(_test_importer_map(session, IMPORTER_BIDIRECTIONAL) == 0);
		CHECK(_test_ioctl(session, IMPORTER_IOC_VMAP, NULL) == 0);
		CHECK_SEND(self->sock[1]);
		for (;;)
			fill(mapping, SIZE, 1);
	}
	ASSERT_RECEIVE(self->sock[0]);
	EXPECT_EQ(self->before.pins + PAGES, pinned_pages());
	ASSERT_EQ(0, kill(child, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, wait_for_child(child));
	EXPECT_SOON(self->before.pins, pinned_pages());
}

/* --- threads --- */

#define RACE_PAGES	64

struct race {
	unsigned char *addr;
	bool over;
};

static void *unmap_and_map(void *arg)
{
	struct race *race = arg;

	for (unsigned int i = 0; !__atomic_load_n(&race->over, __ATOMIC_RELAXED); i += 7) {
		unsigned char *page = race->addr + i % RACE_PAGES * page_size();
		/* Longer and longer: on a busy machine an export may need it. */
		unsigned int ms = 1 + i / 1024;

		munmap(page, page_size());
		/* With one CPU, no export runs in between unless this waits. */
		if (i % 16 == 8)
			sleep_ms(ms);
		mmap(page, page_size(), RW,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		/* Time for an export that nothing happens to. */
		if (i % 16 == 0)
			sleep_ms(ms);
	}
	return NULL;
}

TEST_F(process, that_unmaps_while_it_exports_gets_all_or_nothing)
{
	const size_t size = RACE_PAGES * page_size();
	struct race race = { .addr = map_anon(size) };
	unsigned long good = 0, bad = 0;
	struct vmemexp_export cmd;
	struct timespec start;
	pthread_t thread;
	void *mapping;

	ASSERT_EQ(0, pthread_create(&thread, NULL, unmap_and_map, &race));
	clock_gettime(CLOCK_MONOTONIC, &start);
	while ((good < 50 || bad < 50) && elapsed_us(&start) < 1000L * RELEASE_TIMEOUT_MS) {
		cmd = export_args(race.addr, size, O_RDWR);
		if (_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd) == 0) {
			good++;
			mapping = mmap(NULL, size, RW, MAP_SHARED, cmd.fd, 0);
			ASSERT_NE(MAP_FAILED, mapping);
			fill(mapping, size, 1);
			munmap(mapping, size);
			close(cmd.fd);
			continue;
		}
		bad++;
		ASSERT_EQ(EFAULT, errno);
		/* The page may be back when the driver looks for the reason. */
		ASSERT_TRUE(cmd.err_reason == VMEMEXP_REASON_NOT_MAPPED ||
			    cmd.err_reason == VMEMEXP_REASON_UNPINNABLE);
		ASSERT_EQ(0, cmd.err_addr % page_size());
		ASSERT_LE(to_u64(race.addr), cmd.err_addr);
		ASSERT_GT(to_u64(race.addr) + size, cmd.err_addr);
	}
	__atomic_store_n(&race.over, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_LE(50, good);
	EXPECT_LE(50, bad);
	munmap(race.addr, size);
}

/* --- the module --- */

static int unload(void)
{
	return syscall(SYS_delete_module, "vmemexp", O_NONBLOCK) ? -errno : 0;
}

TEST_F(process, that_holds_anything_keeps_the_module_loaded)
{
	int dmabuf = -1, session;
	void *mapping;
	pid_t child;

	/* The exporter is gone before we look. */
	child = fork_child();
	if (!child) {
		export_fresh(self->fd, O_RDWR, &dmabuf);
		_exit(send_fd(self->sock[1], dmabuf) ? KSFT_FAIL : KSFT_PASS);
	}
	dmabuf = receive_fd(self->sock[0]);
	ASSERT_LE(0, dmabuf);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));

	/* The driver's file alone is tried last: it is needed again. */
	close(self->fd);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	mapping = map_dmabuf(dmabuf);
	close(dmabuf);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(-1, first_difference(mapping, SIZE, 1));

	self->fd = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	munmap(mapping, SIZE);
	EXPECT_EQ(-EWOULDBLOCK, unload());

	mapping = map_anon(SIZE);
	dmabuf = test_export(mapping, SIZE, O_RDWR);
	session = hold_by_importer(dmabuf);
	close(dmabuf);
	close(self->fd);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	self->fd = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	close(session);
}

/* --- what the user is charged --- */

/* In a child: no privileges, and a limit of LIMIT_PAGES. */
static void become_nobody(void)
{
	struct rlimit limit = { LIMIT_PAGES * page_size(), LIMIT_PAGES * page_size() };

	/* A huge page would be charged whole. */
	CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

static int export_pages(int fd, size_t pages, struct vmemexp_export *cmd)
{
	*cmd = export_args(map_anon(pages * page_size()), pages * page_size(), O_RDWR);
	return _test_ioctl(fd, VMEMEXP_IOC_EXPORT, cmd);
}

/* Return the errno that a new process of the same user gets when it exports @pages. */
static int result_for_nobody(int fd, size_t pages)
{
	struct vmemexp_export cmd;
	pid_t child = fork_child();

	if (!child) {
		become_nobody();
		_exit(-export_pages(fd, pages, &cmd));
	}
	return -wait_for_child(child);
}

TEST_F(process, is_charged_until_the_last_reference_is_gone_even_when_it_has_ended)
{
	struct vmemexp_export cmd;
	void *mapping;
	int dmabuf;
	pid_t child;

	ASSERT_EQ(0, result_for_nobody(self->fd, LIMIT_PAGES));
	ASSERT_EQ(-ENOMEM, result_for_nobody(self->fd, LIMIT_PAGES + 1));

	child = fork_child();
	if (!child) {
		become_nobody();
		CHECK(export_pages(self->fd, LIMIT_PAGES, &cmd) == 0);
		dmabuf = cmd.fd;
		CHECK(accounted_pages() == LIMIT_PAGES);
		munmap((void *)(uintptr_t)cmd.vaddr, cmd.length);
		CHECK(export_pages(self->fd, 1, &cmd) == -ENOMEM);
		CHECK(cmd.err_reason == VMEMEXP_REASON_LIMIT);
		CHECK(send_fd(self->sock[1], dmabuf) == 0);
		_exit(KSFT_PASS);
	}
	dmabuf = receive_fd(self->sock[0]);
	ASSERT_LE(0, dmabuf);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));

	EXPECT_EQ(-ENOMEM, result_for_nobody(self->fd, 1));
	mapping = map_dmabuf(dmabuf);
	close(dmabuf);
	EXPECT_EQ(-ENOMEM, result_for_nobody(self->fd, 1));
	munmap(mapping, SIZE);
	EXPECT_SOON(0, result_for_nobody(self->fd, LIMIT_PAGES));
}

TEST_F(process, is_shown_what_it_has_pinned)
{
	void *source = map_anon(SIZE);
	long before = accounted_pages();
	int dmabuf = test_export(source, SIZE, O_RDWR);

	EXPECT_EQ(before + PAGES, accounted_pages());
	munmap(source, SIZE);
	EXPECT_EQ(before + PAGES, accounted_pages());
	close(dmabuf);
	EXPECT_SOON(before, accounted_pages());
}

/* Other than itself, the tests execute this program with an argument. */
int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--exit"))
		return 0;
	if (argc == 3 && !strcmp(argv[1], "--check"))
		return check_after_exec(atoi(argv[2]));
	return test_harness_run(argc, argv);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of dma-bufs whose descriptor the caller does not have: never does an export
 * give more than the mapping shows. It gives the dma-buf itself to those who have a
 * descriptor of it already, or map all of it for the same access, and refuses all
 * others, whoever exported it and whoever asks.
 *
 * Without a descriptor means in flight in a socket here, so that it can come back.
 */
#include <pthread.h>
#include <sched.h>

#include "modules/parts/vmemexp_parts.h"
#include "lib/vmemexp_memory.h"

#undef PAGES

#define USER		65534

#define PAGES		8
#define SIZE		(PAGES * PAGE)

/* Room for mappings of the dma-buf one behind the other, with nothing around. */
#define AREA_PAGES	(3 * PAGES)

/* Before 9c930054f2f5 (v5.15) modules cannot hand out a file as one that was received. */
static bool can_receive(void)
{
	return kernel_at_least(5, 15);
}

/* ---- the exporters ---- */

static int make_own(size_t size, unsigned int fd_flags)
{
	struct vmemexp_export cmd = export_args(map_anon(size), size, fd_flags | O_CLOEXEC);
	int device = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	int ret = _test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd);

	close(device);
	return ret ? -1 : cmd.fd;
}

static int make_own_writable(size_t size)
{
	return make_own(size, O_RDWR);
}

static int make_own_read_only(size_t size)
{
	return make_own(size, O_RDONLY);
}

static int make_heap_read_only(size_t size)
{
	return make_heap_dmabuf_for(size, O_RDONLY);
}

FIXTURE(part)
{
	int fd;
	struct test_state before;
	int dmabuf;		/* -1 while it is in flight */
	int other;		/* of the same exporter, and as large */
	int sockets[2];
	unsigned char *area;
};

FIXTURE_VARIANT(part)
{
	int (*make)(size_t size);
	const char *exporter;
	bool own;
	/* A descriptor is more than a mapping of all: it lets importers write. */
	bool for_holders;
	/* Access of the dma-buf's file, and of most mappings of it. */
	unsigned int fd_flags;
	int prot;
	uid_t user;
};

FIXTURE_VARIANT_ADD(part, own)
{
	.make = make_own_writable,
	.exporter = VMEMEXP_PATH,
	.own = true,
	.fd_flags = O_RDWR,
	.prot = RW,
	.user = USER,
};

FIXTURE_VARIANT_ADD(part, own_by_root)
{
	.make = make_own_writable,
	.exporter = VMEMEXP_PATH,
	.own = true,
	.fd_flags = O_RDWR,
	.prot = RW,
};

FIXTURE_VARIANT_ADD(part, own_read_only)
{
	.make = make_own_read_only,
	.exporter = VMEMEXP_PATH,
	.own = true,
	.fd_flags = O_RDONLY,
	.prot = PROT_READ,
	.user = USER,
};

FIXTURE_VARIANT_ADD(part, udmabuf)
{
	.make = make_udmabuf,
	.exporter = "/dev/udmabuf",
	.fd_flags = O_RDWR,
	.prot = RW,
	.user = USER,
};

FIXTURE_VARIANT_ADD(part, dma_heap)
{
	.make = make_heap_dmabuf,
	.exporter = "/dev/dma_heap/system",
	.fd_flags = O_RDWR,
	.prot = RW,
	.user = USER,
};

FIXTURE_VARIANT_ADD(part, dma_heap_by_root)
{
	.make = make_heap_dmabuf,
	.exporter = "/dev/dma_heap/system",
	.fd_flags = O_RDWR,
	.prot = RW,
};

FIXTURE_VARIANT_ADD(part, dma_heap_read_only)
{
	.make = make_heap_read_only,
	.exporter = "/dev/dma_heap/system",
	.for_holders = true,
	.fd_flags = O_RDONLY,
	.prot = PROT_READ,
	.user = USER,
};

FIXTURE_VARIANT_ADD(part, dma_heap_read_only_by_root)
{
	.make = make_heap_read_only,
	.exporter = "/dev/dma_heap/system",
	.for_holders = true,
	.fd_flags = O_RDONLY,
	.prot = PROT_READ,
};

FIXTURE_SETUP(part)
{
	int probe = variant->make(SIZE);

	if (probe < 0)
		SKIP(return, "this kernel has no %s", variant->exporter);
	close(probe);
	test_setup();
	self->dmabuf = variant->make(SIZE);
	ASSERT_LE(0, self->dmabuf);
	self->other = variant->make(SIZE);
	ASSERT_LE(0, self->other);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, self->sockets));
	self->area = mmap(NULL, AREA_PAGES * PAGE, PROT_NONE, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->area);
	ASSERT_EQ(0, munmap(self->area, AREA_PAGES * PAGE));
	ASSERT_EQ(0, setresuid(variant->user, variant->user, 0));
}

FIXTURE_TEARDOWN(part)
{
	setresuid(0, 0, 0);
	munmap(self->area, AREA_PAGES * PAGE);
	close(self->sockets[0]);
	close(self->sockets[1]);
	close(self->dmabuf);
	close(self->other);
	test_teardown();
}

/* Leave no open descriptor: the only one is on its way in the socket. */
static void __give_away(struct __test_metadata *_metadata, int sockets[2], int *dmabuf)
{
	ASSERT_EQ(0, send_fd(sockets[0], *dmabuf));
	close(*dmabuf);
	*dmabuf = -1;
}

#define give_away() __give_away(_metadata, self->sockets, &self->dmabuf)

static void __take_back(struct __test_metadata *_metadata, int sockets[2], int *dmabuf)
{
	*dmabuf = receive_fd(sockets[1]);
	ASSERT_LE(0, *dmabuf);
}

#define take_back() __take_back(_metadata, self->sockets, &self->dmabuf)

static void __map_pages(struct __test_metadata *_metadata, unsigned char *where, int dmabuf,
			unsigned int first, unsigned int nr, int prot)
{
	ASSERT_EQ(where, mmap(where, nr * PAGE, prot, MAP_SHARED | MAP_FIXED, dmabuf,
			      first * PAGE));
}

/* Puts @nr pages of the dma-buf, from @first on, to page @at of the area. */
#define map_pages(at, first, nr)					\
	__map_pages(_metadata, self->area + (at) * PAGE, self->dmabuf,	\
		    first, nr, variant->prot)

/* Exports @nr pages at page @at of the area, which are those from @first on. */
static int __get_dmabuf(struct __test_metadata *_metadata, int fd, bool own,
			unsigned char *area, unsigned int at, unsigned int first,
			unsigned int nr, unsigned int fd_flags)
{
	struct vmemexp_export cmd = export_args(area + at * PAGE, nr * PAGE, fd_flags);
	int ret = _test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd);

	ASSERT_EQ(0, ret) {
		TH_LOG("%s, reason %u, address %#llx", strerror(-ret), cmd.err_reason,
		       (unsigned long long)cmd.err_addr);
	}
	EXPECT_EQ(VMEMEXP_MEMORY_DMABUF, cmd.memory & VMEMEXP_MEMORY_DMABUF);
	EXPECT_EQ(first * PAGE, cmd.offset);
	EXPECT_EQ(SIZE, cmd.dmabuf_size);
	EXPECT_EQ(own, cmd.nr_extents != 0);
	EXPECT_EQ(VMEMEXP_REASON_NONE, cmd.err_reason);
	EXPECT_EQ(0, cmd.err_addr);
	EXPECT_EQ(own ? VMEMEXP_STATE_TRACKED : 0, cmd.state & VMEMEXP_STATE_TRACKED);
	EXPECT_EQ(fd_flags & O_CLOEXEC ? FD_CLOEXEC : 0, fcntl(cmd.fd, F_GETFD));
	EXPECT_EQ(fd_flags & O_ACCMODE, (unsigned int)fcntl(cmd.fd, F_GETFL) & O_ACCMODE);
	return cmd.fd;
}

#define get_dmabuf(at, first, nr, fd_flags)				\
	__get_dmabuf(_metadata, self->fd, variant->own, self->area,	\
		     at, first, nr, fd_flags)

#define test_err_pages(error, reason, where, at, nr, fd_flags)		\
	test_err_export(error, reason, self->area + (where) * PAGE,	\
			self->area + (at) * PAGE, (nr) * PAGE, fd_flags)

/* Refused in every way to ask: whole pages, some bytes, and contiguous memory. */
#define expect_refused(at, nr) do {					\
	struct vmemexp_export bytes;					\
									\
	test_err_pages(EPERM, VMEMEXP_REASON_PARTIAL, at, at, nr,	\
		       variant->fd_flags);				\
	test_err_pages(EPERM, VMEMEXP_REASON_PARTIAL, at, at, nr,	\
		       variant->fd_flags | O_CLOEXEC);			\
	bytes = export_args(self->area + (at) * PAGE + 100,		\
			    (nr) * PAGE - 200, variant->fd_flags);	\
	bytes.flags = VMEMEXP_EXPORT_UNALIGNED;				\
	test_err_export_cmd(EPERM, VMEMEXP_REASON_PARTIAL, bytes.vaddr, &bytes); \
	bytes.flags |= VMEMEXP_EXPORT_CONTIGUOUS;			\
	test_err_export_cmd(EPERM, VMEMEXP_REASON_PARTIAL, bytes.vaddr, &bytes); \
} while (0)

/*
 * @nr pages at page @at of the area, which are those from @first on: a holder of a
 * descriptor gets another one, and other programs get none.
 */
#define expect_for_holders_only(at, first, nr) do {			\
	int again = get_dmabuf(at, first, nr, variant->fd_flags);	\
									\
	EXPECT_TRUE(is_same_file(self->dmabuf, again));			\
	close(again);							\
	give_away();							\
	expect_refused(at, nr);						\
	take_back();							\
} while (0)

#define CAN_HAVE_ALL	(can_receive() && !variant->for_holders)

/* The mappings show all of it: a descriptor adds nothing, if it does not lead to more. */
#define expect_for_all(at, first, nr) do {				\
	int again;							\
									\
	if (!CAN_HAVE_ALL) {						\
		expect_for_holders_only(at, first, nr);			\
		break;							\
	}								\
	give_away();							\
	again = get_dmabuf(at, first, nr, variant->fd_flags);		\
	take_back();							\
	EXPECT_TRUE(is_same_file(self->dmabuf, again));			\
	close(again);							\
} while (0)

/* ---- which part is mapped ---- */

TEST_F(part, from_the_middle_is_for_holders_only)
{
	map_pages(1, 2, 3);
	expect_for_holders_only(1, 2, 3);
	expect_for_holders_only(2, 3, 1);
}

TEST_F(part, of_the_first_page_is_for_holders_only)
{
	map_pages(1, 0, 1);
	expect_for_holders_only(1, 0, 1);
}

TEST_F(part, of_the_last_page_is_for_holders_only)
{
	map_pages(1, PAGES - 1, 1);
	expect_for_holders_only(1, PAGES - 1, 1);
}

TEST_F(part, of_all_but_the_last_page_is_for_holders_only)
{
	map_pages(1, 0, PAGES - 1);
	expect_for_holders_only(1, 0, PAGES - 1);
	expect_for_holders_only(1, 0, 1);
}

TEST_F(part, of_all_but_the_first_page_is_for_holders_only)
{
	map_pages(1, 1, PAGES - 1);
	expect_for_holders_only(1, 1, PAGES - 1);
	expect_for_holders_only(PAGES - 1, PAGES - 1, 1);
}

TEST_F(part, of_all_is_for_all)
{
	map_pages(1, 0, PAGES);
	expect_for_all(1, 0, PAGES);
	/* Whatever is asked for. */
	expect_for_all(1, 0, 1);
	expect_for_all(3, 2, 4);
	expect_for_all(PAGES, PAGES - 1, 1);
}

TEST_F(part, of_all_in_mappings_side_by_side_is_for_all)
{
	/* Not in the order of their addresses. */
	map_pages(1, 0, 3);
	map_pages(6, 5, 3);
	map_pages(4, 3, 2);
	expect_for_all(1, 0, PAGES);
	/* The others count on both sides of what is asked for. */
	expect_for_all(4, 3, 2);
	expect_for_all(1, 0, 1);
	expect_for_all(PAGES, PAGES - 1, 1);
	expect_for_all(3, 2, 4);

	ASSERT_EQ(0, munmap(self->area + 6 * PAGE, 3 * PAGE));
	expect_for_holders_only(1, 0, 5);
	expect_for_holders_only(4, 3, 2);
}

TEST_F(part, of_all_with_other_mappings_around_is_for_all)
{
	map_pages(PAGES, 0, PAGES);
	/* The last page before, and the first one behind. */
	__map_pages(_metadata, self->area + (PAGES - 1) * PAGE, self->other, PAGES - 1, 1,
		    variant->prot);
	__map_pages(_metadata, self->area + 2 * PAGES * PAGE, self->other, 0, 1, variant->prot);
	expect_for_all(PAGES, 0, PAGES);
	expect_for_all(PAGES + 3, 3, 1);
	/* And the neighbours do not become more by it, once that one is closed. */
	close(self->other);
	self->other = -1;
	expect_refused(PAGES - 1, 1);
	expect_refused(2 * PAGES, 1);
	test_err_pages(EINVAL, VMEMEXP_REASON_MIXED, PAGES, PAGES - 1, 2, variant->fd_flags);
}

TEST_F(part, of_all_that_is_mapped_twice_is_for_all)
{
	map_pages(0, 0, PAGES);
	map_pages(PAGES, 0, PAGES);
	expect_for_all(0, 0, PAGES);
	expect_for_all(PAGES, 0, PAGES);
	expect_for_all(PAGES + 2, 2, 2);
	test_err_pages(EINVAL, VMEMEXP_REASON_MIXED, PAGES, PAGES - 1, 2, variant->fd_flags);
}

TEST_F(part, of_all_with_a_hole_is_for_holders_only)
{
	map_pages(1, 0, 3);
	map_pages(5, 4, 4);
	expect_for_holders_only(1, 0, 3);
	expect_for_holders_only(5, 4, 4);
	test_err_pages(EFAULT, VMEMEXP_REASON_NOT_MAPPED, 4, 1, PAGES, variant->fd_flags);
	/* A mapping elsewhere does not fill the gap. */
	map_pages(2 * PAGES, 3, 1);
	expect_for_holders_only(1, 0, 3);
	/* Nor does anything else. */
	ASSERT_EQ(self->area + 4 * PAGE,
		  mmap(self->area + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
	expect_for_holders_only(1, 0, 3);
	expect_for_holders_only(5, 4, 4);
}

TEST_F(part, of_all_in_the_wrong_order_is_for_holders_only)
{
	map_pages(1, PAGES / 2, PAGES / 2);
	map_pages(1 + PAGES / 2, 0, PAGES / 2);
	expect_for_holders_only(1, PAGES / 2, PAGES / 2);
	expect_for_holders_only(1 + PAGES / 2, 0, PAGES / 2);
	test_err_pages(EINVAL, VMEMEXP_REASON_MIXED, 1 + PAGES / 2, 1, PAGES,
		       variant->fd_flags);
}

TEST_F(part, of_all_with_a_page_of_another_dmabuf_is_for_holders_only)
{
	map_pages(1, 0, PAGES);
	/* At the same place in the other one. */
	__map_pages(_metadata, self->area + 3 * PAGE, self->other, 2, 1, variant->prot);
	expect_for_holders_only(1, 0, 2);
	expect_for_holders_only(4, 3, PAGES - 3);
	test_err_pages(EINVAL, VMEMEXP_REASON_MIXED, 3, 1, PAGES, variant->fd_flags);
}

/* ---- what may be done with the part ---- */

TEST_F(part, of_all_with_a_page_that_is_not_to_be_touched_is_for_holders_only)
{
	map_pages(1, 0, PAGES);
	ASSERT_EQ(0, mprotect(self->area + 3 * PAGE, PAGE, PROT_NONE));
	expect_for_holders_only(1, 0, 2);
	expect_for_holders_only(4, 3, PAGES - 3);
	test_err_pages(EFAULT, VMEMEXP_REASON_NOT_READABLE, 3, 1, PAGES, variant->fd_flags);
	/* It is not for ever. */
	ASSERT_EQ(0, mprotect(self->area + 3 * PAGE, PAGE, variant->prot));
	expect_for_all(1, 0, PAGES);
}

TEST_F(part, of_all_with_a_page_that_is_not_writable_is_for_holders_only)
{
	if (variant->fd_flags == O_RDONLY) {
		/* Nothing is taken away there: none of it can be written. */
		map_pages(1, 0, PAGES);
		expect_for_all(1, 0, PAGES);
		return;
	}
	map_pages(1, 0, 2);
	__map_pages(_metadata, self->area + 3 * PAGE, self->dmabuf, 2, 1, PROT_READ);
	map_pages(4, 3, PAGES - 3);
	expect_for_holders_only(1, 0, 2);
	expect_for_holders_only(4, 3, PAGES - 3);
	test_err_pages(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 3, 1, PAGES, O_RDWR);
}

TEST_F(part, with_another_access_is_refused_for_that)
{
	map_pages(1, 2, 3);
	for (int held = 1; held >= 0; held--) {
		if (!held)
			give_away();
		if (variant->fd_flags == O_RDWR)
			test_err_pages(EACCES, VMEMEXP_REASON_ACCESS, 1, 1, 3, O_RDONLY);
		else
			test_err_pages(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 1, 1, 3, O_RDWR);
	}
	take_back();
}

/* All of it, for reading: the file is one for writing, and there is no other. */
TEST_F(part, of_all_that_is_mapped_for_reading_gives_no_descriptor_for_writing)
{
	__map_pages(_metadata, self->area + PAGE, self->dmabuf, 0, PAGES, PROT_READ);
	give_away();
	if (variant->fd_flags == O_RDWR)
		test_err_pages(EACCES, VMEMEXP_REASON_ACCESS, 1, 1, PAGES, O_RDONLY);
	test_err_pages(EACCES, VMEMEXP_REASON_NOT_WRITABLE, 1, 1, PAGES, O_RDWR);
	take_back();
}

TEST_F(part, of_a_kind_that_is_not_allowed_is_refused_for_that)
{
	map_pages(1, 2, 3);
	give_away();
	ASSERT_EQ(0, seteuid(0));
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,shmem,hugetlb,file,driver,pfnmap"));
	ASSERT_EQ(0, seteuid(variant->user));
	test_err_pages(EPERM, VMEMEXP_REASON_KIND, 1, 1, 3, variant->fd_flags);
	ASSERT_EQ(0, seteuid(0));
	restore_system();
	ASSERT_EQ(0, seteuid(variant->user));
	take_back();
}

/*
 * A private mapping is not one of the dma-buf. If it can be exported at all, it is no more than was
 * asked for, and what is written there goes to a copy.
 */
TEST_F(part, that_is_mapped_privately_is_never_the_dmabuf)
{
	volatile unsigned char *shared;

	map_pages(0, 0, PAGES);
	shared = self->area;
	for (unsigned int i = 0; i < 4; i++) {
		size_t size = i & 1 ? SIZE : PAGE;
		int prot = i & 2 ? RW : PROT_READ;
		unsigned char *addr = mmap(NULL, size, prot, MAP_PRIVATE, self->dmabuf, 0);
		struct vmemexp_export cmd;

		if (addr == MAP_FAILED)
			continue;
		for (int written = 0; written <= (prot == RW); written++) {
			if (written)
				addr[7] = shared[7] + 1;
			cmd = export_args(addr, size, prot == RW ? O_RDWR : O_RDONLY);
			if (_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd))
				continue;
			EXPECT_EQ(0, cmd.memory & VMEMEXP_MEMORY_DMABUF);
			EXPECT_EQ(size, cmd.dmabuf_size);
			EXPECT_FALSE(is_same_file(self->dmabuf, cmd.fd));
			close(cmd.fd);
		}
		if (prot == RW)
			EXPECT_NE(addr[7], shared[7]);
		munmap(addr, size);
	}
}

/* ---- who is a holder ---- */

TEST_F(part, is_for_holders_by_whatever_descriptor)
{
	int numbers[] = { 100, 511, 1000 };

	map_pages(1, 2, 3);
	give_away();
	expect_refused(1, 3);
	take_back();
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		int high = fcntl(self->dmabuf, F_DUPFD_CLOEXEC, numbers[i]), again;

		ASSERT_LE(numbers[i], high);
		close(self->dmabuf);
		self->dmabuf = high;
		again = get_dmabuf(1, 2, 3, variant->fd_flags | O_CLOEXEC);
		EXPECT_TRUE(is_same_file(high, again));
		close(again);
	}
	give_away();
	expect_refused(1, 3);
	take_back();
}

TEST_F(part, is_not_for_holders_of_another_dmabuf)
{
	map_pages(1, 2, 3);
	give_away();
	EXPECT_EQ((off_t)SIZE, lseek(self->other, 0, SEEK_END));
	expect_refused(1, 3);
	take_back();
}

/* It may be asked for its name, and that is all. */
TEST_F(part, is_not_for_holders_of_a_path)
{
	char path[64];
	int file;

	map_pages(1, 2, 3);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->dmabuf);
	file = open(path, O_PATH | O_CLOEXEC);
	ASSERT_LE(0, file);
	EXPECT_TRUE(is_same_file(self->dmabuf, file));
	give_away();
	expect_refused(1, 3);
	take_back();
	close(file);
}

TEST_F(part, is_not_for_a_process_whose_parent_is_a_holder)
{
	pid_t child;

	map_pages(1, 2, 3);
	child = fork_child();
	if (!child) {
		struct vmemexp_export cmd = export_args(self->area + PAGE, 3 * PAGE,
							variant->fd_flags);
		struct test_state before, after;

		close(self->dmabuf);
		before = get_state();
		CHECK(_test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd) == -EPERM);
		CHECK(cmd.err_reason == VMEMEXP_REASON_PARTIAL);
		CHECK(cmd.err_addr == cmd.vaddr);
		after = get_state();
		CHECK(before.files == after.files && before.next_file == after.next_file);
		_exit(KSFT_PASS);
	}
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	/* The parent is one all the same. */
	close(get_dmabuf(1, 2, 3, variant->fd_flags));
}

struct without {
	int device, dmabuf;
	struct vmemexp_export cmd;
	int ret, opened;
};

/* A thread may have descriptors of its own. */
static void *export_without(void *arg)
{
	struct without *w = arg;
	int next;

	w->ret = unshare(CLONE_FILES);
	if (w->ret)
		return NULL;
	close(w->dmabuf);
	next = next_file();
	w->ret = _test_ioctl(w->device, VMEMEXP_IOC_EXPORT, &w->cmd);
	w->opened = next_file() - next;
	return NULL;
}

TEST_F(part, is_not_for_a_thread_beside_which_another_one_is_a_holder)
{
	struct without without = {
		.device = self->fd,
		.dmabuf = self->dmabuf,
		.cmd = export_args(self->area + PAGE, 3 * PAGE, variant->fd_flags),
	};
	pthread_t thread;

	map_pages(1, 2, 3);
	ASSERT_EQ(0, pthread_create(&thread, NULL, export_without, &without));
	pthread_join(thread, NULL);
	EXPECT_EQ(-EPERM, without.ret);
	EXPECT_EQ(VMEMEXP_REASON_PARTIAL, without.cmd.err_reason);
	EXPECT_EQ(without.cmd.vaddr, without.cmd.err_addr);
	EXPECT_EQ(0, without.opened);
	close(get_dmabuf(1, 2, 3, variant->fd_flags));
}

/* A mapping that was made by an importing driver is like one of the dma-buf itself. */
TEST_F(part, that_an_importer_mapped_is_for_holders_only)
{
	int session;

	skip_without_importer();
	ASSERT_EQ(0, seteuid(0));
	session = test_importer_open();
	ASSERT_EQ(0, seteuid(variant->user));
	test_importer_attach(session, self->dmabuf, IMPORTER_DEV_COHERENT);
	__map_pages(_metadata, self->area + PAGE, session, 2, 3, variant->prot);
	expect_for_holders_only(1, 2, 3);
	ASSERT_EQ(0, munmap(self->area, AREA_PAGES * PAGE));
	__map_pages(_metadata, self->area + PAGE, session, 0, PAGES, variant->prot);
	expect_for_all(1, 0, PAGES);
	close(session);
}

struct holding {
	const int *sockets;
	int dmabuf;
	bool over;
};

/* Has a descriptor, and has it not, all the time. */
static void *come_and_go(void *arg)
{
	struct holding *holding = arg;

	while (!__atomic_load_n(&holding->over, __ATOMIC_RELAXED)) {
		if (send_fd(holding->sockets[0], holding->dmabuf))
			break;
		close(holding->dmabuf);
		sched_yield();
		holding->dmabuf = receive_fd(holding->sockets[1]);
		sched_yield();
	}
	return NULL;
}

/* It is found, or it is not; what is handed out is the dma-buf. */
TEST_F(part, is_handed_out_right_while_descriptors_come_and_go)
{
	unsigned int good = 0, bad = 0;
	struct holding holding;
	pthread_t thread;

	map_pages(1, 2, 3);
	holding = (struct holding){ .sockets = self->sockets, .dmabuf = self->dmabuf };
	ASSERT_EQ(0, pthread_create(&thread, NULL, come_and_go, &holding));
	for (int i = 0; i < 2000 || ((!good || !bad) && i < 100000); i++) {
		struct vmemexp_export cmd = export_args(self->area + PAGE, 3 * PAGE,
							variant->fd_flags);
		int ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);

		if (!ret) {
			good++;
			ASSERT_EQ((off_t)SIZE, lseek(cmd.fd, 0, SEEK_END));
			close(cmd.fd);
			continue;
		}
		bad++;
		ASSERT_EQ(-EPERM, ret);
		ASSERT_EQ(VMEMEXP_REASON_PARTIAL, cmd.err_reason);
	}
	__atomic_store_n(&holding.over, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	self->dmabuf = holding.dmabuf;
	ASSERT_EQ((off_t)SIZE, lseek(self->dmabuf, 0, SEEK_END));
	EXPECT_NE(0, good);
	EXPECT_NE(0, bad);
}

/* ---- handing out fails late, and leaves nothing ---- */

TEST_F(part, of_all_is_not_handed_out_without_a_free_descriptor)
{
	struct vmemexp_export cmd = export_args(self->area + PAGE, SIZE, variant->fd_flags);
	struct vmemexp_export expected = cmd;
	struct rlimit limit, none;
	struct test_state before;
	int ret;

	map_pages(1, 0, PAGES);
	expected.err_reason = VMEMEXP_REASON_NONE;
	expected.err_addr = 0;
	expected.err_range = 0;
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	for (int held = 1; held >= 0; held--) {
		if (!held) {
			give_away();
			if (!CAN_HAVE_ALL)
				break;
		}
		before = get_state();
		none = limit;
		none.rlim_cur = before.next_file;
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
		ret = _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd);
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
		EXPECT_EQ(-EMFILE, ret);
		EXPECT_EQ(0, memcmp(&expected, &cmd, sizeof(cmd)));
		test_state(&before);
	}
	take_back();
}

TEST_F(part, of_all_is_not_handed_out_if_the_answer_cannot_be_written)
{
	struct vmemexp_export *cmd = map(PAGE, RW, ANON, -1), expected;
	struct test_state before;

	map_pages(1, 0, PAGES);
	expected = export_args(self->area + PAGE, SIZE, variant->fd_flags);
	*cmd = expected;
	ASSERT_EQ(0, mprotect(cmd, PAGE, PROT_READ));
	for (int held = 1; held >= 0; held--) {
		if (!held)
			give_away();
		before = get_state();
		EXPECT_EQ(held || CAN_HAVE_ALL ? -EFAULT : -EPERM,
			  _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, cmd));
		EXPECT_EQ(0, memcmp(&expected, cmd, sizeof(expected)));
		test_state(&before);
	}
	take_back();
	munmap(cmd, PAGE);
}

/* The last page that can be written ends before each of the fields that are answered. */
TEST_F(part, of_all_is_not_handed_out_if_a_part_of_the_answer_cannot_be_written)
{
	unsigned char *pages = map(2 * PAGE, RW, ANON, -1);
	struct test_state before;

	map_pages(1, 0, PAGES);
	for (int held = 1; held >= 0; held--) {
		if (!held) {
			give_away();
			if (!CAN_HAVE_ALL)
				break;
		}
		for (size_t there = 24; there < sizeof(struct vmemexp_export); there += 4) {
			struct vmemexp_export *cmd = (void *)(pages + PAGE - there);

			ASSERT_EQ(0, mprotect(pages + PAGE, PAGE, RW));
			*cmd = export_args(self->area + PAGE, SIZE, variant->fd_flags);
			ASSERT_EQ(0, mprotect(pages + PAGE, PAGE, PROT_READ));
			before = get_state();
			EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, cmd));
			test_state(&before);
		}
	}
	take_back();
	munmap(pages, 2 * PAGE);
}

/* ---- mappings that have become larger than the dma-buf ---- */

/* Where the dma-buf begins in the memory that it is a part of, and where a mapping ends. */
#define BEGIN_PAGES	3
#define GROWN_PAGES	(2 * PAGES)

FIXTURE(grown)
{
	int fd;
	struct test_state before;
	int dmabuf;
	int sockets[2];
	unsigned char *all;	/* the memory, most of it secret */
	unsigned char *addr;	/* a mapping of the dma-buf */
	bool grown;
};

FIXTURE_VARIANT(grown)
{
	bool standin;		/* made by the module vmemexp_parts, and not by udmabuf */
	unsigned int memfd_flags;
	size_t memory;
	unsigned int pages;	/* of the dma-buf */
};

FIXTURE_VARIANT_ADD(grown, pages)
{
	.standin = true,
	.memory = 4 * SIZE,
	.pages = PAGES,
};

FIXTURE_VARIANT_ADD(grown, one_page_of_a_huge_page)
{
	.standin = true,
	.memfd_flags = MFD_HUGETLB,
	.memory = HUGE_PAGE,
	.pages = 1,
};

FIXTURE_VARIANT_ADD(grown, some_pages_of_a_huge_page)
{
	.standin = true,
	.memfd_flags = MFD_HUGETLB,
	.memory = HUGE_PAGE,
	.pages = PAGES,
};

FIXTURE_VARIANT_ADD(grown, udmabuf)
{
	.memory = 4 * SIZE,
	.pages = PAGES,
};

FIXTURE_VARIANT_ADD(grown, udmabuf_of_one_page)
{
	.memory = 4 * SIZE,
	.pages = 1,
};

FIXTURE_VARIANT_ADD(grown, udmabuf_of_one_page_of_a_huge_page)
{
	.memfd_flags = MFD_HUGETLB,
	.memory = HUGE_PAGE,
	.pages = 1,
};

FIXTURE_VARIANT_ADD(grown, udmabuf_of_some_pages_of_a_huge_page)
{
	.memfd_flags = MFD_HUGETLB,
	.memory = HUGE_PAGE,
	.pages = PAGES,
};

/*
 * Returns a dma-buf of some of the pages, or a negative errno. They are there already:
 * before udmabuf pinned folios (v6.11) it did not bring in hugetlb pages.
 */
static int __make_part(struct __test_metadata *_metadata, bool standin, size_t size,
		       unsigned int flags, unsigned int pages, unsigned char **all)
{
	int device = open(standin ? PARTS_PATH : "/dev/udmabuf", O_RDWR | O_CLOEXEC), dmabuf;
	int file = memfd(size, flags | MFD_ALLOW_SEALING);
	struct udmabuf_create cmd = {
		.memfd = file,
		.flags = UDMABUF_FLAGS_CLOEXEC,
		.offset = BEGIN_PAGES * PAGE,
		.size = pages * PAGE,
	};
	struct parts_create parts = { .pages = pages };

	*all = map(size, RW, MAP_SHARED, file);
	fill(*all, size, 1);
	ASSERT_EQ(0, fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK));
	parts.vaddr = to_u64(*all + cmd.offset);
	if (standin)
		dmabuf = ioctl(device, PARTS_IOC_CREATE, &parts) ? -1 : parts.fd;
	else
		dmabuf = ioctl(device, UDMABUF_CREATE, &cmd);
	if (dmabuf < 0)
		dmabuf = -errno;
	close(device);
	close(file);
	return dmabuf;
}

#define make_part(all)							\
	__make_part(_metadata, variant->standin, variant->memory, variant->memfd_flags, \
		    variant->pages, all)

FIXTURE_SETUP(grown)
{
	unsigned char *all;
	int dmabuf;

	if (variant->standin && access(PARTS_PATH, F_OK))
		SKIP(return, "the module vmemexp_parts is not loaded");
	if (!variant->standin && access("/dev/udmabuf", F_OK))
		SKIP(return, "this kernel has no /dev/udmabuf");
	if (variant->memfd_flags & MFD_HUGETLB)
		ASSERT_EQ(0, set_knob(HUGE_PAGES, "8"));
	dmabuf = make_part(&all);
	close(dmabuf);
	munmap(all, variant->memory);
	if (dmabuf == -EBADFD && variant->memfd_flags & MFD_HUGETLB) {
		restore_system();
		SKIP(return, "this kernel's udmabuf takes no hugetlb pages");
	}
	ASSERT_LE(0, dmabuf);

	test_setup();
	self->dmabuf = make_part(&self->all);
	ASSERT_LE(0, self->dmabuf);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, self->sockets));
	/* There is room for it to grow where it is. */
	self->addr = map((GROWN_PAGES + 1) * PAGE, PROT_NONE, ANON, -1);
	ASSERT_EQ(0, munmap(self->addr, (GROWN_PAGES + 1) * PAGE));
	/* And it is not touched: kernels that map huge pages in parts lose count of them. */
	__map_pages(_metadata, self->addr, self->dmabuf, 0, variant->pages, RW);
	ASSERT_EQ(0, setresuid(USER, USER, 0));
}

FIXTURE_TEARDOWN(grown)
{
	setresuid(0, 0, 0);
	munmap(self->addr, GROWN_PAGES * PAGE);
	munmap(self->all, variant->memory);
	close(self->sockets[0]);
	close(self->sockets[1]);
	close(self->dmabuf);
	restore_system();
	test_teardown();
}

/* Since 7d79cd784470 (v6.11) udmabuf maps page frames, which do not grow. */
#define grow() do {							\
	void *_grown = mremap(self->addr, variant->pages * PAGE, GROWN_PAGES * PAGE, 0); \
									\
	self->grown = variant->standin || !kernel_at_least(6, 11);	\
	if (self->grown) {						\
		ASSERT_EQ(self->addr, _grown);				\
	} else {							\
		ASSERT_EQ(MAP_FAILED, _grown);				\
		ASSERT_EQ(EFAULT, errno);				\
	}								\
} while (0)

/* The mapping as it was made: who maps all of the dma-buf may have it. */
#define expect_the_dmabuf() do {					\
	const size_t _size = variant->pages * PAGE;			\
									\
	for (int held = 1; held >= 0; held--) {				\
		struct vmemexp_export cmd = export_args(self->addr, _size, O_RDWR); \
									\
		if (!held)						\
			give_away();					\
		if (!held && !can_receive()) {				\
			test_err_export(EPERM, VMEMEXP_REASON_PARTIAL, self->addr, \
					self->addr, _size, O_RDWR);	\
			take_back();					\
			break;						\
		}							\
		ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd)); \
		if (!held)						\
			take_back();					\
		EXPECT_TRUE(is_same_file(self->dmabuf, cmd.fd));	\
		EXPECT_EQ(_size, cmd.dmabuf_size);			\
		EXPECT_EQ(VMEMEXP_MEMORY_DMABUF, cmd.memory & VMEMEXP_MEMORY_DMABUF); \
		close(cmd.fd);						\
	}								\
} while (0)

#define expect_too_large(first, nr) do {				\
	unsigned char *_where = self->addr + (first) * PAGE;		\
									\
	test_err_export(EPERM, VMEMEXP_REASON_PARTIAL, _where, _where,	\
			(nr) * PAGE, O_RDWR);				\
	test_err_export(EPERM, VMEMEXP_REASON_PARTIAL, _where, _where,	\
			(nr) * PAGE, O_RDONLY);				\
} while (0)

TEST_F(grown, mapping_as_it_was_before_is_the_dmabuf)
{
	expect_the_dmabuf();
}

/* Neither with a descriptor nor without. */
TEST_F(grown, mapping_is_refused_whichever_part_is_asked_for)
{
	grow();
	if (!self->grown) {
		/* Nothing has become of it. */
		expect_the_dmabuf();
		test_err_export(EFAULT, VMEMEXP_REASON_NOT_MAPPED,
				self->addr + variant->pages * PAGE, self->addr,
				GROWN_PAGES * PAGE, O_RDWR);
		return;
	}
	for (int held = 1; held >= 0; held--) {
		if (!held)
			give_away();
		expect_too_large(0, variant->pages);
		expect_too_large(0, 1);
		expect_too_large(0, GROWN_PAGES);
		expect_too_large(0, variant->pages + 1);
		expect_too_large(variant->pages - 1, 2);
		expect_too_large(variant->pages - 1, 1);
		expect_too_large(variant->pages, 1);
		expect_too_large(GROWN_PAGES - 1, 1);
	}
	take_back();
}

TEST_F(grown, mapping_of_which_only_the_end_is_left_is_refused)
{
	grow();
	ASSERT_EQ(0, munmap(self->addr, variant->pages * PAGE));
	if (!self->grown) {
		test_err_export(EFAULT, VMEMEXP_REASON_NOT_MAPPED, self->addr, self->addr, PAGE,
				O_RDWR);
		return;
	}
	expect_too_large(variant->pages, 1);
	expect_too_large(variant->pages, GROWN_PAGES - variant->pages);
}

TEST_F(grown, mapping_that_is_cut_down_again_is_the_dmabuf)
{
	grow();
	ASSERT_EQ(0, munmap(self->addr + variant->pages * PAGE,
			    (GROWN_PAGES - variant->pages) * PAGE));
	expect_the_dmabuf();
}

/* ---- the attack: one page of a dma-buf of another process ---- */

FIXTURE(sandbox)
{
	int fd;
	struct test_state before;
	int dmabuf;
	unsigned char *all;
	unsigned char *one;	/* the page that the sandbox is given */
};

FIXTURE_VARIANT(sandbox)
{
	int (*make)(size_t size);
	const char *exporter;
};

FIXTURE_VARIANT_ADD(sandbox, own)
{
	.make = make_own_writable,
	.exporter = VMEMEXP_PATH,
};

FIXTURE_VARIANT_ADD(sandbox, udmabuf)
{
	.make = make_udmabuf,
	.exporter = "/dev/udmabuf",
};

FIXTURE_VARIANT_ADD(sandbox, dma_heap)
{
	.make = make_heap_dmabuf,
	.exporter = "/dev/dma_heap/system",
};

#define SECRET_PAGES	4
#define SECRET_SIZE	(SECRET_PAGES * PAGE)
#define GIVEN		1

FIXTURE_SETUP(sandbox)
{
	int probe = variant->make(SECRET_SIZE);

	if (probe < 0)
		SKIP(return, "this kernel has no %s", variant->exporter);
	close(probe);
	test_setup();
	self->dmabuf = variant->make(SECRET_SIZE);
	self->all = map(SECRET_SIZE, RW, MAP_SHARED, self->dmabuf);
	fill(self->all, SECRET_SIZE, 1);
	/* With nothing beside it that the sandbox could inherit. */
	self->one = map(3 * PAGE, PROT_NONE, ANON, -1);
	munmap(self->one, 3 * PAGE);
	self->one += PAGE;
	ASSERT_EQ(self->one, mmap(self->one, PAGE, RW, MAP_SHARED | MAP_FIXED, self->dmabuf,
				  GIVEN * PAGE));
	ASSERT_EQ(0, madvise(self->all, SECRET_SIZE, MADV_DONTFORK));
}

FIXTURE_TEARDOWN(sandbox)
{
	munmap(self->one, PAGE);
	munmap(self->all, SECRET_SIZE);
	close(self->dmabuf);
	test_teardown();
}

/* Overwrites all that the descriptor shows. */
static void exploit(int dmabuf, size_t size)
{
	unsigned char *view = mmap(NULL, size, RW, MAP_SHARED, dmabuf, 0);

	if (view != MAP_FAILED)
		memset(view, 0, size);
}

/* Becomes an unprivileged process that has no descriptor but that of the device. */
static int enter_sandbox(void)
{
	int device = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);

	CHECK(dup2(device, 3) == 3 && !syscall(SYS_close_range, 4, ~0U, 0));
	CHECK(!setresgid(USER, USER, USER) && !setresuid(USER, USER, USER));
	return 3;
}

/* Every way to ask for the page, or for more around it. */
static void attack(unsigned char *one)
{
	static const struct { long start; size_t length; } ranges[] = {
		{ 0, PAGE }, { 1, PAGE - 1 }, { 0, 1 }, { PAGE - 1, 1 }, { 0, SECRET_SIZE },
		{ -PAGE, SECRET_SIZE },
	};
	int device = enter_sandbox(), next = next_file();

	for (unsigned int flags = 0; flags < 4; flags++) {
		for (size_t i = 0; i < 2 * ARRAY_SIZE(ranges); i++) {
			struct vmemexp_export cmd = export_args(one + ranges[i / 2].start,
								ranges[i / 2].length,
								i % 2 ? O_RDWR : O_RDONLY);

			cmd.flags = flags;
			if (!_test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd))
				exploit(cmd.fd, cmd.dmabuf_size);
		}
	}
	CHECK(next_file() == next);
	_exit(KSFT_PASS);
}

/* With the page before and behind it, whatever the sandbox puts there. */
static void attack_with_another(unsigned char *one)
{
	int device = enter_sandbox(), other;
	struct vmemexp_export cmd;

	/* Mapped so that the offsets go together. */
	cmd = export_args(map_anon(SECRET_SIZE), SECRET_SIZE, O_RDWR | O_CLOEXEC);
	CHECK(!_test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd));
	other = cmd.fd;
	CHECK(mmap(one - PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, other, 0) != MAP_FAILED);
	CHECK(mmap(one + PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, other, 2 * PAGE) !=
	      MAP_FAILED);
	for (int begin = -1; begin <= 0; begin++) {
		for (int end = 1; end <= 2; end++) {
			cmd = export_args(one + begin * (long)PAGE, (end - begin) * PAGE, O_RDWR);
			if (!_test_ioctl(device, VMEMEXP_IOC_EXPORT, &cmd) &&
			    !is_same_file(other, cmd.fd))
				exploit(cmd.fd, cmd.dmabuf_size);
		}
	}
	_exit(KSFT_PASS);
}

/* The pages that the sandbox was not given are unchanged. */
#define expect_untouched() do {						\
	unsigned char *expect = malloc(SECRET_SIZE);			\
									\
	fill(expect, SECRET_SIZE, 1);					\
	for (int i = 0; i < SECRET_PAGES; i++)				\
		if (i != GIVEN)						\
			EXPECT_SAME(expect + i * PAGE, self->all + i * PAGE, PAGE); \
	free(expect);							\
} while (0)

TEST_F(sandbox, with_one_page_gets_no_other)
{
	pid_t child = fork_child();

	if (!child)
		attack(self->one);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	expect_untouched();
}

TEST_F(sandbox, with_one_page_and_a_dmabuf_of_its_own_gets_no_other)
{
	pid_t child = fork_child();

	if (!child)
		attack_with_another(self->one);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	expect_untouched();
}

/* The page is as good as any, and its bytes may be exported as memory is read. */
TEST_F(sandbox, may_use_the_page_that_it_has)
{
	pid_t child = fork_child();

	if (!child) {
		CHECK(!setresuid(USER, USER, USER));
		CHECK(self->one[5] == pattern(1, GIVEN * PAGE + 5));
		self->one[5]++;
		_exit(KSFT_PASS);
	}
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	EXPECT_EQ((uint8_t)(pattern(1, GIVEN * PAGE + 5) + 1), self->all[GIVEN * PAGE + 5]);
	expect_untouched();
}

TEST_HARNESS_MAIN

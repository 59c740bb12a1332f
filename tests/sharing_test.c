// SPDX-License-Identifier: GPL-2.0
/*
 * A program that goes on working with memory it has exported: what the dma-buf
 * still shows, what an export costs the program later, which calls of the
 * kernel take a mapping of the dma-buf for memory and which do not, and what parts
 * the program from the dma-buf. Most of it is the kernel's doing and not the driver's.
 * Documentation/vmemexp.rst tells it to users, and names these tests.
 */
#include <arpa/inet.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "lib/signals.h"
#include "lib/vmemexp_memory.h"

/* Since 662df3e5c376 (v6.13). */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

/* Since 5e8ffb43b213 (v6.4) and by asm/prctl.h of newer headers, on amd64. */
#ifndef ARCH_ENABLE_TAGGED_ADDR
#define ARCH_ENABLE_TAGGED_ADDR	0x4002
#endif

static unsigned char *__map_view(struct __test_metadata *_metadata, int dmabuf, size_t size)
{
	return __map(_metadata, size, RW, MAP_SHARED, dmabuf);
}

#define map_view(dmabuf, size) __map_view(_metadata, dmabuf, size)

/* ---- what the dma-buf shows after the program has let go ---- */

FIXTURE(sharing)
{
	int fd;
	struct test_state before;
};

FIXTURE_SETUP(sharing)
{
	test_setup();
}

FIXTURE_TEARDOWN(sharing)
{
	test_teardown();
	restore_system();
}

/* Small enough to come from the heap, and not from a mapping of its own. */
TEST_F(sharing, goes_on_after_free_with_what_malloc_puts_there)
{
	const size_t size = 16 * PAGE, next_size = size - PAGE;
	uintptr_t block, next, start, end;
	unsigned char *view;
	void *p, *behind;
	int dmabuf;

	p = aligned_alloc(PAGE, size);
	/* So that the block is not the end of the heap. */
	behind = malloc(64);
	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, behind);
	block = (uintptr_t)p;
	fill(p, size, 1);
	dmabuf = test_export(p, size, O_RDWR);
	view = map_view(dmabuf, size);
	free(p);

	p = malloc(next_size);
	ASSERT_NE(NULL, p);
	next = (uintptr_t)p;
	start = next > block ? next : block;
	end = next + next_size < block + size ? next + next_size : block + size;
	ASSERT_LT(start + PAGE, end);
	fill(p, next_size, 2);
	EXPECT_EQ(0, memcmp(view + (start - block), (void *)start, end - start));
	EXPECT_EQ(pattern(2, start - next), view[start - block]);
	EXPECT_EQ(0, test_query(dmabuf).state & VMEMEXP_STATE_STALE);

	free(p);
	free(behind);
	munmap(view, size);
	close(dmabuf);
}

/* ---- fork() copies what is pinned at once, and not when it is written ---- */

FIXTURE(child)
{
	int fd;
	struct test_state before;
	struct memory m;
	long *copied;		/* shared with children */
};

FIXTURE_VARIANT(child)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	size_t size;
	unsigned int fd_flags;
	bool shared;
};

FIXTURE_VARIANT_ADD(child, anon)
{
	.make = make_anon, .size = SMALL, .fd_flags = O_RDWR,
};

FIXTURE_VARIANT_ADD(child, anon_exported_read_only)
{
	.make = make_anon, .size = SMALL, .fd_flags = O_RDONLY,
};

FIXTURE_VARIANT_ADD(child, thp)
{
	.make = make_thp, .size = HUGE_PAGE, .fd_flags = O_RDWR,
	.missing = need_thp,
};

FIXTURE_VARIANT_ADD(child, hugetlb)
{
	.make = make_hugetlb, .size = HUGE_PAGE, .fd_flags = O_RDWR,
	.missing = need_hugetlb,
};

FIXTURE_VARIANT_ADD(child, shared_anon)
{
	.make = make_shared_anon, .size = SMALL, .fd_flags = O_RDWR,
	.shared = true,
};

FIXTURE_SETUP(child)
{
	const char *missing = variant->missing ? variant->missing() : NULL;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	test_setup();
	self->m.size = variant->size;
	variant->make(_metadata, &self->m);
	self->copied = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
}

FIXTURE_TEARDOWN(child)
{
	munmap(self->copied, PAGE);
	munmap(self->m.addr, self->m.size);
	test_teardown();
	restore_system();
}

/*
 * The number of pages at @addr that are others than those in @entries of the
 * parent's pagemap, or a negative errno. They are only read, so that nothing but
 * fork() itself can have copied them.
 */
static long count_copies(const volatile unsigned char *addr, size_t size,
			 const uint64_t *entries)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;
	long copied = 0;

	for (size_t i = 0; i < size / PAGE; i++) {
		(void)addr[i * PAGE];
		if (pread64(pagemap, &entry, sizeof(entry),
			    (to_u64(addr) / PAGE + i) * sizeof(entry)) != sizeof(entry))
			return -EIO;
		if (!(entry & PAGEMAP_PRESENT) || !(entry & PAGEMAP_PFN))
			return -ENODATA;
		copied += (entry & PAGEMAP_PFN) != (entries[i] & PAGEMAP_PFN);
	}
	return copied;
}

/* How many pages of @m a child of now has for itself. */
static long __copied_by_fork(struct __test_metadata *_metadata, const struct memory *m,
			     long *copied)
{
	uint64_t *entries = read_pagemap(m->addr, m->size);
	unsigned char unused[m->size / PAGE];
	pid_t child;

	*copied = -1;
	child = fork_child();
	if (!child) {
		*copied = mincore(m->addr, m->size, unused) && errno == ENOMEM ?
			  -ENOMEM : count_copies(m->addr, m->size, entries);
		_exit(KSFT_PASS);
	}
	ASSERT_LT(0, child);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	free(entries);
	return *copied;
}

#define copied_by_fork() __copied_by_fork(_metadata, &self->m, self->copied)

TEST_F(child, gets_copies_of_exported_private_memory_at_once)
{
	long pages = self->m.size / PAGE;
	bool copies = !variant->shared;
	int dmabuf;

	/* Since 4eae4efa2c29 (v5.12) also of hugetlb's. */
	if (variant->make == make_hugetlb && !kernel_at_least(5, 12))
		copies = false;

	EXPECT_EQ(0, copied_by_fork());
	dmabuf = test_export(self->m.addr, self->m.size, variant->fd_flags);
	EXPECT_EQ(copies ? pages : 0, copied_by_fork());
	EXPECT_EQ(copies ? pages : 0, copied_by_fork());
	close(dmabuf);
	EXPECT_EQ(0, copied_by_fork());
}

TEST_F(child, gets_nothing_of_it_with_madv_dontfork)
{
	int dmabuf = test_export(self->m.addr, self->m.size, variant->fd_flags);

	ASSERT_EQ(0, madvise(self->m.addr, self->m.size, MADV_DONTFORK));
	EXPECT_EQ(-ENOMEM, copied_by_fork());
	EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);
	close(dmabuf);
}

/* The copies come from the pool as well, and none of them was reserved. */
TEST_F(sharing, of_hugetlb_pages_makes_fork_fail_if_the_pool_has_too_few)
{
	const char *missing = need_hugetlb();
	struct memory m = { .size = 2 * HUGE_PAGE };
	int dmabuf;
	pid_t child;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	make_hugetlb(_metadata, &m);
	ASSERT_EQ(0, set_knob(HUGE_PAGES, "3"));
	dmabuf = test_export(m.addr, m.size, O_RDWR);
	child = fork_child();
	if (!child)
		_exit(KSFT_PASS);
	if (kernel_at_least(5, 12)) {
		EXPECT_EQ(-1, child);
		EXPECT_EQ(ENOMEM, errno);
	}
	if (child > 0)
		EXPECT_EQ(KSFT_PASS, wait_for_child(child));

	ASSERT_EQ(0, madvise(m.addr, m.size, MADV_DONTFORK));
	child = fork_child();
	if (!child)
		_exit(KSFT_PASS);
	ASSERT_LT(0, child);
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	close(dmabuf);
	munmap(m.addr, m.size);
}

/* ---- a mapping of the dma-buf is not ordinary memory ---- */

#define SEED	3

/*
 * One way to have the kernel read, or write, a page at @addr that it is to find by
 * its page. It holds what fill() writes for SEED, before or afterwards. Returns 0, or
 * a negative errno.
 */
typedef int use_fn(unsigned char *addr);

static int is_seed(const void *bytes, ssize_t size)
{
	if (size < 0)
		return -errno;
	return size == (ssize_t)PAGE && first_difference(bytes, PAGE, SEED) < 0 ?
	       0 : -EBADMSG;
}

static int use_process_vm_readv(unsigned char *addr)
{
	unsigned char bytes[PAGE];
	struct iovec local = { bytes, PAGE }, remote = { addr, PAGE };

	return is_seed(bytes, process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
}

static int use_process_vm_writev(unsigned char *addr)
{
	unsigned char bytes[PAGE];
	struct iovec local = { bytes, PAGE }, remote = { addr, PAGE };

	fill(bytes, PAGE, SEED);
	return is_seed(addr, process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
}

static int use_proc_mem(unsigned char *addr)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	unsigned char bytes[PAGE];
	int ret = is_seed(bytes, pread64(fd, bytes, PAGE, to_u64(addr)));

	close(fd);
	return ret;
}

static int use_ptrace(unsigned char *addr)
{
	pid_t child = fork_child();
	long word, seen;
	int status, ret;

	if (!child) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(KSFT_PASS);
	}
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		return -ECHILD;
	errno = 0;
	seen = ptrace(PTRACE_PEEKDATA, child, addr, NULL);
	ret = -errno;
	kill(child, SIGKILL);
	wait_for_child(child);
	memcpy(&word, addr, sizeof(word));
	return ret ?: seen == word ? 0 : -EBADMSG;
}

static int use_direct_write(unsigned char *addr)
{
	int fd = open(RAM_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	void *bytes = aligned_alloc(PAGE, PAGE);
	int ret;

	ret = pwrite(fd, addr, PAGE, 0) < 0 ? -errno : is_seed(bytes, pread(fd, bytes, PAGE, 0));
	free(bytes);
	close(fd);
	return ret;
}

static int use_direct_read(unsigned char *addr)
{
	int fd = open(RAM_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	void *bytes = aligned_alloc(PAGE, PAGE);
	int ret;

	fill(bytes, PAGE, SEED);
	ret = pwrite(fd, bytes, PAGE, 0) < 0 ? -errno : is_seed(addr, pread(fd, addr, PAGE, 0));
	free(bytes);
	close(fd);
	return ret;
}

static int use_vmsplice(unsigned char *addr)
{
	struct iovec iov = { addr, PAGE };
	unsigned char bytes[PAGE];
	int pipes[2], ret;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	ret = vmsplice(pipes[1], &iov, 1, 0) < 0 ? -errno :
	      is_seed(bytes, read(pipes[0], bytes, PAGE));
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

/* Two connected sockets of TCP; returns 0 or a negative errno. */
static int connect_tcp(int *sockets)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t size = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret = 0;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sockets[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sockets[1] = -1;
	if (bind(listener, (struct sockaddr *)&addr, size) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&addr, &size) ||
	    connect(sockets[0], (struct sockaddr *)&addr, size))
		ret = -errno;
	else
		sockets[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	close(listener);
	return ret;
}

static int use_msg_zerocopy(unsigned char *addr)
{
	unsigned char bytes[PAGE];
	int sockets[2], one = 1;
	int ret = connect_tcp(sockets);

	if (!ret && setsockopt(sockets[0], SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)))
		ret = -errno;
	if (!ret && send(sockets[0], addr, PAGE, MSG_ZEROCOPY) < 0)
		ret = -errno;
	if (!ret)
		ret = is_seed(bytes, recv(sockets[1], bytes, PAGE, MSG_WAITALL));
	close(sockets[0]);
	close(sockets[1]);
	return ret;
}

static int use_io_uring_buffer(unsigned char *addr)
{
	struct iovec iov = { addr, PAGE };
	struct io_uring_params params = {};
	int ring = syscall(SYS_io_uring_setup, 4, &params);
	int ret = 0;

	if (ring < 0 || syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1))
		ret = -errno;
	close(ring);
	return ret;
}

/* Mutexes and semaphores that processes share wake others up by this. */
static int use_shared_futex(unsigned char *addr)
{
	return syscall(SYS_futex, addr, FUTEX_WAKE, 1, NULL, NULL, 0) < 0 ? -errno : 0;
}

/* These copy by the address, as the program itself would do, and work with both. */

static int use_write(unsigned char *addr)
{
	unsigned char bytes[PAGE];
	int pipes[2], ret;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	ret = write(pipes[1], addr, PAGE) < 0 ? -errno :
	      is_seed(bytes, read(pipes[0], bytes, PAGE));
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

static int use_read(unsigned char *addr)
{
	unsigned char bytes[PAGE];
	int pipes[2], ret;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	fill(bytes, PAGE, SEED);
	ret = write(pipes[1], bytes, PAGE) < 0 ? -errno :
	      is_seed(addr, read(pipes[0], addr, PAGE));
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

FIXTURE(mapping)
{
	int fd;
	struct test_state before;
	unsigned char *source;
	int dmabuf;
	unsigned char *view;
};

FIXTURE_VARIANT(mapping)
{
	use_fn *use;
	const char *(*missing)(void);
	bool writes;
	int error;		/* with a mapping of the dma-buf */
};

FIXTURE_VARIANT_ADD(mapping, process_vm_readv)
{
	.use = use_process_vm_readv, .error = EFAULT,
};

FIXTURE_VARIANT_ADD(mapping, process_vm_writev)
{
	.use = use_process_vm_writev, .error = EFAULT, .writes = true,
};

FIXTURE_VARIANT_ADD(mapping, proc_mem)
{
	.use = use_proc_mem, .error = EIO,
};

FIXTURE_VARIANT_ADD(mapping, ptrace)
{
	.use = use_ptrace, .error = EIO,
};

FIXTURE_VARIANT_ADD(mapping, direct_write)
{
	.use = use_direct_write, .error = EFAULT,
	.missing = need_ram_disk,
};

FIXTURE_VARIANT_ADD(mapping, direct_read)
{
	.use = use_direct_read, .error = EFAULT, .writes = true,
	.missing = need_ram_disk,
};

FIXTURE_VARIANT_ADD(mapping, vmsplice)
{
	.use = use_vmsplice, .error = EFAULT,
};

FIXTURE_VARIANT_ADD(mapping, msg_zerocopy)
{
	.use = use_msg_zerocopy, .error = EFAULT,
};

FIXTURE_VARIANT_ADD(mapping, io_uring_buffer)
{
	.use = use_io_uring_buffer, .error = EFAULT,
};

FIXTURE_VARIANT_ADD(mapping, shared_futex)
{
	.use = use_shared_futex, .error = EFAULT,
};

FIXTURE_VARIANT_ADD(mapping, write)
{
	.use = use_write,
};

FIXTURE_VARIANT_ADD(mapping, read)
{
	.use = use_read, .writes = true,
};

FIXTURE_SETUP(mapping)
{
	const char *missing = variant->missing ? variant->missing() : NULL;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	test_setup();
	self->source = map(PAGE, RW, ANON, -1);
	fill(self->source, PAGE, variant->writes ? 1 : SEED);
	self->dmabuf = test_export(self->source, PAGE, O_RDWR);
	self->view = map_view(self->dmabuf, PAGE);
}

FIXTURE_TEARDOWN(mapping)
{
	munmap(self->view, PAGE);
	close(self->dmabuf);
	test_teardown();
	restore_system();
}

/* Also of what was never touched, for which nothing is in the page table yet. */
TEST_F(mapping, of_the_dmabuf_is_refused_where_the_exported_address_is_taken)
{
	unsigned int seed = variant->writes ? 1 : SEED;

	EXPECT_EQ(-variant->error, variant->use(self->view));
	if (variant->writes && !variant->error)
		seed = SEED;
	EXPECT_EQ(-1, first_difference(self->view, PAGE, seed));
	EXPECT_EQ(-variant->error, variant->use(self->view));

	fill(self->source, PAGE, variant->writes ? 1 : SEED);
	EXPECT_EQ(0, variant->use(self->source));
	EXPECT_EQ(-1, first_difference(self->view, PAGE, SEED));
}

/* ---- sealing, cgroups: others that have to wait for the dma-buf ---- */

/* Adding the seal waits a little, and then refuses; it may take a moment that it works. */
static int seal_against_writing(int file)
{
	return fcntl(file, F_ADD_SEALS, F_SEAL_WRITE) ? errno : 0;
}

static void __seal(struct __test_metadata *_metadata, int fd, unsigned int fd_flags)
{
	int file = memfd(SMALL, MFD_ALLOW_SEALING), dmabuf;
	unsigned char *source = map(SMALL, RW, MAP_SHARED, file), *view;

	fill(source, SMALL, 1);
	dmabuf = __test_export_range(_metadata, fd, source, SMALL, fd_flags);
	/* A writable mapping would be reason enough to refuse. */
	munmap(source, SMALL);
	EXPECT_EQ(EBUSY, seal_against_writing(file));
	/* It is about mappings and writes to come, and the dma-buf is none of them. */
	EXPECT_EQ(0, fcntl(file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	if (fd_flags == O_RDWR) {
		view = map_view(dmabuf, SMALL);
		fill(view, SMALL, 2);
		munmap(view, SMALL);
		source = map(SMALL, PROT_READ, MAP_SHARED, file);
		EXPECT_EQ(-1, first_difference(source, SMALL, 2));
		munmap(source, SMALL);
	}
	EXPECT_EQ(EBUSY, seal_against_writing(file));
	close(dmabuf);
	EXPECT_SOON(0, seal_against_writing(file));
	close(file);
}

TEST_F(sharing, keeps_a_memfd_from_being_sealed_against_writing)
{
	__seal(_metadata, self->fd, O_RDWR);
	__seal(_metadata, self->fd, O_RDONLY);
}

#define CGROUPS		"/tmp/vmemexp-cgroup2"
#define CGROUP		CGROUPS "/vmemexp-test"
#define CHARGED		(16UL << 20)

static const char *mount_cgroups(void)
{
	mkdir(CGROUPS, 0700);
	if (mount("none", CGROUPS, "cgroup2", 0, NULL))
		return "cgroup2";
	if (write_text(CGROUPS "/cgroup.subtree_control", "+memory")) {
		umount(CGROUPS);
		return "memory cgroups";
	}
	return mkdir(CGROUP, 0700) ? "right to make a cgroup" : NULL;
}

/* Bytes that the kernel says the group uses. */
static long charged_to_group(void)
{
	return read_number(CGROUP "/memory.current");
}

/* In the group: exports, sends the dma-buf, and ends. */
static int export_in_group(int fd, int sock)
{
	struct vmemexp_export cmd;
	void *memory;

	if (write_text(CGROUP "/cgroup.procs", "0"))
		return KSFT_FAIL;
	memory = map_anon(CHARGED);
	if (memory == MAP_FAILED)
		return KSFT_FAIL;
	memset(memory, 1, CHARGED);
	cmd = export_args(memory, CHARGED, O_RDWR);
	if (_test_ioctl(fd, VMEMEXP_IOC_EXPORT, &cmd) || send_fd(sock, cmd.fd))
		return KSFT_FAIL;
	return KSFT_PASS;
}

TEST_F(sharing, is_paid_for_by_the_exporters_memory_cgroup_until_the_last_holder_lets_go)
{
	const char *missing = mount_cgroups();
	int sockets[2], dmabuf;
	pid_t child;

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
	child = fork_child();
	if (!child)
		_exit(export_in_group(self->fd, sockets[1]));
	EXPECT_EQ(KSFT_PASS, wait_for_child(child));
	dmabuf = receive_fd(sockets[0]);
	ASSERT_LE(0, dmabuf);

	/* Nothing of the group runs any more. */
	EXPECT_LE((long)CHARGED, charged_to_group());
	close(dmabuf);
	EXPECT_SOON(true, charged_to_group() < (long)CHARGED / 2);

	close(sockets[0]);
	close(sockets[1]);
	EXPECT_EQ(0, rmdir(CGROUP));
	EXPECT_EQ(0, umount(CGROUPS));
	rmdir(CGROUPS);
}

/* ---- what parts the program from the dma-buf without unmapping anything ---- */

FIXTURE(parted)
{
	int fd;
	struct test_state before;
	unsigned char *source;
	int file;		/* -1: private memory */
	int dmabuf;
	unsigned char *view;
};

FIXTURE_VARIANT(parted)
{
	/* Takes the pages away; what raises a signal then, the other one ends. */
	int (*part)(unsigned char *addr, int file);
	int (*come_back)(unsigned char *addr, int file);
	int signal;
	bool shared;
	bool newer_than_6_12;
};

static int part_dontneed(unsigned char *addr, int file __attribute__((unused)))
{
	return madvise(addr, SMALL, MADV_DONTNEED);
}

static int part_guards(unsigned char *addr, int file __attribute__((unused)))
{
	return madvise(addr, SMALL, MADV_GUARD_INSTALL);
}

static int remove_guards(unsigned char *addr, int file __attribute__((unused)))
{
	return madvise(addr, SMALL, MADV_GUARD_REMOVE);
}

static int part_remove(unsigned char *addr, int file __attribute__((unused)))
{
	return madvise(addr, SMALL, MADV_REMOVE);
}

static int part_hole(unsigned char *addr __attribute__((unused)), int file)
{
	return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SMALL);
}

static int part_truncation(unsigned char *addr __attribute__((unused)), int file)
{
	return ftruncate(file, 0);
}

static int grow_again(unsigned char *addr __attribute__((unused)), int file)
{
	return ftruncate(file, SMALL);
}

FIXTURE_VARIANT_ADD(parted, by_madv_dontneed)
{
	.part = part_dontneed,
};

FIXTURE_VARIANT_ADD(parted, by_guard_pages)
{
	.part = part_guards, .come_back = remove_guards, .signal = SIGSEGV,
	.newer_than_6_12 = true,
};

FIXTURE_VARIANT_ADD(parted, by_madv_remove)
{
	.part = part_remove, .shared = true,
};

FIXTURE_VARIANT_ADD(parted, by_a_hole_in_the_file)
{
	.part = part_hole, .shared = true,
};

FIXTURE_VARIANT_ADD(parted, by_truncation)
{
	.part = part_truncation, .come_back = grow_again, .signal = SIGBUS,
	.shared = true,
};

FIXTURE_SETUP(parted)
{
	test_setup();
	self->file = variant->shared ? memfd(SMALL, 0) : -1;
	self->source = map(SMALL, RW, variant->shared ? MAP_SHARED : ANON, self->file);
	fill(self->source, SMALL, 1);
	self->dmabuf = test_export(self->source, SMALL, O_RDWR);
	self->view = map_view(self->dmabuf, SMALL);
	catch_signals();
}

FIXTURE_TEARDOWN(parted)
{
	munmap(self->view, SMALL);
	close(self->dmabuf);
	if (self->file >= 0)
		close(self->file);
	test_teardown();
}

TEST_F(parted, program_gets_other_pages_and_the_dmabuf_keeps_the_old_ones)
{
	int ret = variant->part(self->source, self->file) ? -errno : 0;

	if (variant->newer_than_6_12 && !kernel_at_least(6, 13)) {
		EXPECT_EQ(-EINVAL, ret);
		return;
	}
	ASSERT_EQ(0, ret);
	EXPECT_EQ(variant->signal, signal_of(self->source, false));
	EXPECT_EQ(0, signal_of(self->view, false));
	if (variant->come_back)
		ASSERT_EQ(0, variant->come_back(self->source, self->file));

	EXPECT_EQ(0, self->source[0]);
	EXPECT_EQ(-1, first_difference(self->view, SMALL, 1));
	fill(self->source, SMALL, 2);
	EXPECT_EQ(-1, first_difference(self->view, SMALL, 1));
	fill(self->view, SMALL, 3);
	EXPECT_EQ(-1, first_difference(self->source, SMALL, 2));
	EXPECT_EQ(0, test_query(self->dmabuf).state & VMEMEXP_STATE_STALE);
}

/* ---- memory that breaks ---- */

FIXTURE(broken)
{
	int fd;
	struct test_state before;
	unsigned char *source;
	int dmabuf;
	unsigned char *view;
};

FIXTURE_VARIANT(broken)
{
	int flags;
};

FIXTURE_VARIANT_ADD(broken, anon)
{
	.flags = MAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(broken, shared_anon)
{
	.flags = MAP_SHARED,
};

FIXTURE_SETUP(broken)
{
	test_setup();
	self->source = map(SMALL, RW, variant->flags | MAP_ANONYMOUS, -1);
	/* Without huge pages: one small page is to be poisoned. */
	ASSERT_EQ(0, forbid_thp(self->source, SMALL));
	fill(self->source, SMALL, 1);
	self->dmabuf = test_export(self->source, SMALL, O_RDWR);
	self->view = map_view(self->dmabuf, SMALL);
	catch_signals();
}

FIXTURE_TEARDOWN(broken)
{
	munmap(self->view, SMALL);
	close(self->dmabuf);
	test_teardown();
}

/* The call may raise the signal itself, or say that the page is still in use. */
static int break_page(unsigned char *addr)
{
	volatile int ret = 0;

	if (!sigsetjmp(after_signal, 1)) {
		may_signal = true;
		ret = madvise(addr, PAGE, MADV_HWPOISON) && errno != EBUSY ? -errno : 0;
	}
	may_signal = false;
	return ret;
}

/* If it were really broken, the machine would tell at a read. */
TEST_F(broken, page_ends_the_program_and_not_who_maps_the_dmabuf)
{
	unsigned char *later;
	int ret;

	EXPECT_EQ(-1, first_difference(self->view, SMALL, 1));
	ret = break_page(self->source + PAGE);
	if (ret == -EINVAL)
		SKIP(return, "the kernel has no CONFIG_MEMORY_FAILURE");
	ASSERT_EQ(0, ret);
	EXPECT_EQ(0, signal_of(self->source, false));
	EXPECT_EQ(SIGBUS, signal_of(self->source + PAGE, false));
	EXPECT_EQ(0, signal_of(self->source + 2 * PAGE, false));

	EXPECT_EQ(0, signal_of(self->view + PAGE, false));
	EXPECT_EQ(-1, first_difference(self->view, SMALL, 1));
	later = map_view(self->dmabuf, SMALL);
	EXPECT_EQ(0, signal_of(later + PAGE, false));
	EXPECT_EQ(-1, first_difference(later, SMALL, 1));
	munmap(later, SMALL);
	EXPECT_EQ(0, test_query(self->dmabuf).state & VMEMEXP_STATE_STALE);
}

/* ---- userfaultfd ---- */

/* Returns a file that can write-protect, or a negative errno. */
static int open_userfaultfd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int err;

	if (uffd < 0)
		return -errno;
	if (!ioctl(uffd, UFFDIO_API, &api))
		return uffd;
	err = -errno;
	close(uffd);
	return err;
}

static int protect(int uffd, const void *addr, uint64_t mode)
{
	struct uffdio_writeprotect cmd = {
		.range = { to_u64(addr), SMALL },
		.mode = mode,
	};

	return _test_ioctl(uffd, UFFDIO_WRITEPROTECT, &cmd);
}

static bool has_event(int uffd, int timeout_ms)
{
	struct pollfd wait = { .fd = uffd, .events = POLLIN };

	return poll(&wait, 1, timeout_ms) == 1;
}

static void *write_byte(void *addr)
{
	*(volatile unsigned char *)addr = 0x11;
	return NULL;
}

TEST_F(sharing, writes_past_the_write_protection_of_userfaultfd)
{
	unsigned char *source = map(SMALL, RW, ANON, -1), *view;
	struct uffdio_register watch = {
		.range = { to_u64(source), SMALL },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffd_msg event;
	pthread_t thread;
	int uffd, dmabuf;

	uffd = open_userfaultfd();
	if (uffd < 0)
		SKIP(return, "the kernel has no write-protection by userfaultfd");
	fill(source, SMALL, 1);
	dmabuf = test_export(source, SMALL, O_RDWR);
	view = map_view(dmabuf, SMALL);
	ASSERT_EQ(0, _test_ioctl(uffd, UFFDIO_REGISTER, &watch));
	ASSERT_EQ(0, protect(uffd, source, UFFDIO_WRITEPROTECT_MODE_WP));

	fill(view, SMALL, 2);
	EXPECT_FALSE(has_event(uffd, 0));
	EXPECT_EQ(-1, first_difference(source, SMALL, 2));

	/* And that of the program is seen. */
	ASSERT_EQ(0, pthread_create(&thread, NULL, write_byte, source + PAGE));
	EXPECT_TRUE(has_event(uffd, RELEASE_TIMEOUT_MS));
	ASSERT_EQ((ssize_t)sizeof(event), read(uffd, &event, sizeof(event)));
	EXPECT_EQ(UFFD_EVENT_PAGEFAULT, event.event);
	EXPECT_EQ(to_u64(source + PAGE), event.arg.pagefault.address);
	EXPECT_NE(0, event.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
	EXPECT_EQ(pattern(2, PAGE), view[PAGE]);
	ASSERT_EQ(0, protect(uffd, source, 0));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	/* Before 6c287605fd56 (v5.19) the program gets a copy of the page. */
	EXPECT_EQ(kernel_at_least(5, 19) ? 0x11 : pattern(2, PAGE), view[PAGE]);

	close(uffd);
	munmap(view, SMALL);
	close(dmabuf);
	munmap(source, SMALL);
}

/* ---- tagged pointers ---- */

/*
 * A bit of a pointer that the CPU ignores, after it has been made to; 0 if there is
 * none. arm64 always ignores it, amd64 if the CPU has LAM.
 */
static uint64_t tag(void)
{
#if defined(__aarch64__)
	return 1ULL << 60;
#elif defined(__x86_64__)
	return syscall(SYS_arch_prctl, ARCH_ENABLE_TAGGED_ADDR, 6) ? 0 : 1ULL << 60;
#else
	return 0;
#endif
}

TEST_F(sharing, ignores_the_tag_of_a_pointer_where_the_cpu_does)
{
	unsigned char *source = map(SMALL, RW, ANON, -1), *view;
	uint64_t ignored = tag(), bit = ignored ?: 1ULL << 60;
	struct vmemexp_export cmd = export_args(source, SMALL, O_RDWR);
	struct vmemexp_export other = cmd;

	fill(source, SMALL, 1);
	cmd.vaddr |= bit;
	other.vaddr |= bit;
	if (!ignored) {
		test_err_export_cmd(EFAULT, VMEMEXP_REASON_NOT_MAPPED, cmd.vaddr, &cmd);
		return;
	}
	ASSERT_EQ(0, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &cmd));
	EXPECT_EQ(to_u64(source), cmd.vaddr);
	view = map_view(cmd.fd, SMALL);
	EXPECT_EQ(-1, first_difference(view, SMALL, 1));
	munmap(view, SMALL);
	close(cmd.fd);

	/* An error names the address without it, too. */
	munmap(source + PAGE, PAGE);
	EXPECT_EQ(-EFAULT, _test_ioctl(self->fd, VMEMEXP_IOC_EXPORT, &other));
	EXPECT_EQ(VMEMEXP_REASON_NOT_MAPPED, other.err_reason);
	EXPECT_EQ(to_u64(source + PAGE), other.err_addr);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/* A driver without a kernel, for the tests of libvmemexp. */
#define _GNU_SOURCE
#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILES	4096

struct fake fake;

enum kind { DEVICE = 1, DMABUF };

/* By inode number: no other file has it while this one is open. */
static struct file {
	ino_t ino;
	enum kind kind;
	bool foreign;
	uint32_t state, memory;
	uint64_t size, offset, length;
	uint32_t nr_ranges;
} files[MAX_FILES];
static unsigned int next_file;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.memory = VMEMEXP_MEMORY_ANON;
	fake.state = VMEMEXP_STATE_TRACKED;
	fake.export_size = sizeof(struct vmemexp_export);
	fake.query_size = sizeof(struct vmemexp_query);
}

static int add_file(struct file file, bool cloexec)
{
	int fd = memfd_create("fake", cloexec ? MFD_CLOEXEC : 0);
	struct stat st;

	if (fd < 0 || ftruncate(fd, file.size) || fstat(fd, &st))
		abort();
	file.ino = st.st_ino;
	files[next_file++ % MAX_FILES] = file;
	return fd;
}

static struct file *find_file(int fd)
{
	struct file *found = NULL;
	struct stat st;

	if (fstat(fd, &st))
		return NULL;
	/* Numbers are given out again: the newest counts. */
	for (unsigned int i = 0; i < MAX_FILES; i++) {
		struct file *file = &files[(next_file - 1 - i) % MAX_FILES];

		if (file->ino == st.st_ino && !found)
			found = file;
	}
	return found;
}

unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int nr = 0;

	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

int fake_foreign_dmabuf(uint64_t size)
{
	return add_file((struct file) { .kind = DMABUF, .foreign = true, .size = size }, true);
}

void fake_set_state(int dmabuf, uint32_t state)
{
	pthread_mutex_lock(&lock);
	find_file(dmabuf)->state = state;
	pthread_mutex_unlock(&lock);
}

/* Returns true, and sets errno, if this call is to fail. */
static bool is_to_fail(unsigned long request)
{
	if (fake.fail_request != request || !fake.fail_times)
		return false;
	fake.fail_times--;
	errno = fake.fail_errno;
	return true;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

static int open_device(const char *path, int flags)
{
	int fd;

	pthread_mutex_lock(&lock);
	fake.nr_opens++;
	fake.open_flags = flags;
	snprintf(fake.path, sizeof(fake.path), "%s", path);
	if (is_to_fail(FAKE_OPEN))
		fd = -1;
	else
		fd = add_file((struct file) { .kind = DEVICE }, flags & O_CLOEXEC);
	pthread_mutex_unlock(&lock);
	return fd;
}

/* Nothing else is opened by the library. */
int __wrap_open(const char *path, int flags, ...)
{
	return open_device(path, flags);
}

int __wrap_open64(const char *path, int flags, ...)
{
	return open_device(path, flags);
}

/* Does a structure have anything but zeroes where a driver knows no field? */
static bool has_more(const void *cmd, size_t known, size_t size)
{
	const unsigned char *bytes = cmd;

	while (size > known)
		if (bytes[--size])
			return true;
	return false;
}

/* Keeps the ranges of a list. Returns true if there is one, or none is asked for. */
static bool read_ranges(struct vmemexp_export *cmd, uint64_t *length)
{
	*length = cmd->length;
	if (cmd->nr_ranges > VMEMEXP_MAX_RANGES ||
	    (cmd->nr_ranges ? cmd->vaddr || cmd->length : !!cmd->ranges)) {
		cmd->err_reason = VMEMEXP_REASON_RANGES;
		errno = EINVAL;
		return false;
	}
	if (cmd->nr_ranges)
		memcpy(fake.ranges, (void *)(uintptr_t)cmd->ranges,
		       cmd->nr_ranges * sizeof(*fake.ranges));
	for (uint32_t i = 0; i < cmd->nr_ranges; i++)
		*length += fake.ranges[i].length;
	return true;
}

static int export(struct vmemexp_export *cmd)
{
	struct vmemexp_export answer;
	uint64_t length, vaddr;

	fake.nr_exports++;
	fake.export = *cmd;
	if (cmd->size != sizeof(*cmd) || cmd->state || cmd->reserved || cmd->err_range ||
	    has_more(cmd, fake.export_size, sizeof(*cmd)))
		return fail(E2BIG);
	if (!read_ranges(cmd, &length))
		return -1;
	if (is_to_fail(VMEMEXP_IOC_EXPORT)) {
		cmd->err_reason = fake.fail_reason;
		cmd->err_addr = fake.fail_addr;
		if (cmd->nr_ranges)
			cmd->err_range = fake.fail_range;
		return -1;
	}
	vaddr = cmd->nr_ranges ? fake.ranges[0].vaddr : cmd->vaddr;
	answer = *cmd;
	answer.offset = fake.offset ? fake.offset : vaddr % FAKE_PAGE;
	answer.dmabuf_size = (answer.offset + length + FAKE_PAGE - 1) & -(uint64_t)FAKE_PAGE;
	answer.memory = fake.memory;
	answer.state = fake.foreign ? 0 : fake.state;
	answer.nr_extents = !fake.foreign;
	answer.fd = add_file((struct file) {
		.kind = DMABUF,
		.foreign = fake.foreign,
		.state = fake.state,
		.memory = fake.memory,
		.size = answer.dmabuf_size,
		.offset = answer.offset,
		.length = length,
		.nr_ranges = cmd->nr_ranges ? cmd->nr_ranges : 1,
	}, cmd->fd_flags & O_CLOEXEC);
	memcpy(cmd, &answer, fake.export_size);
	return 0;
}

static int query(struct vmemexp_query *cmd)
{
	struct file *file = find_file(cmd->fd);

	fake.nr_queries++;
	if (is_to_fail(VMEMEXP_IOC_QUERY))
		return -1;
	if (cmd->size < VMEMEXP_QUERY_SIZE_VER0 || cmd->flags)
		return fail(EINVAL);
	if (has_more(cmd, fake.query_size, MIN(cmd->size, sizeof(*cmd))))
		return fail(E2BIG);
	if (fcntl(cmd->fd, F_GETFD) < 0)
		return fail(EBADF);
	if (!file || file->kind != DMABUF || file->foreign)
		return fail(EINVAL);
	cmd->access = VMEMEXP_ACCESS_READ;
	cmd->dmabuf_size = file->size;
	cmd->offset = file->offset;
	cmd->length = file->length;
	cmd->memory = file->memory;
	cmd->attachments = fake.attachments;
	cmd->state = file->state;
	if (cmd->size > VMEMEXP_QUERY_SIZE_VER0 && fake.query_size > VMEMEXP_QUERY_SIZE_VER0)
		cmd->nr_ranges = file->nr_ranges;
	return 0;
}

static int sync_range(struct vmemexp_sync *cmd)
{
	struct file *file = find_file(cmd->fd);

	fake.nr_syncs++;
	fake.sync = *cmd;
	if (is_to_fail(VMEMEXP_IOC_SYNC))
		return -1;
	if (!cmd->length || (cmd->rows > 1 && cmd->stride < cmd->length))
		return fail(EINVAL);
	if (fcntl(cmd->fd, F_GETFD) < 0)
		return fail(EBADF);
	if (!file || file->kind != DMABUF || file->foreign ||
	    cmd->offset > file->size || cmd->length > file->size - cmd->offset)
		return fail(EINVAL);
	return 0;
}

static int sync_whole(int fd, struct dma_buf_sync *cmd)
{
	struct file *file = find_file(fd);

	/* As of a dma-buf. */
	if (file && file->kind == DMABUF && !(cmd->flags & DMA_BUF_SYNC_RW))
		return fail(EINVAL);
	fake.nr_whole_syncs++;
	fake.whole_flags = cmd->flags;
	fake.whole_fd = fd;
	if (is_to_fail(DMA_BUF_IOCTL_SYNC))
		return -1;
	if (fcntl(fd, F_GETFD) < 0)
		return fail(EBADF);
	return file && file->kind == DMABUF ? 0 : fail(ENOTTY);
}

pid_t __wrap_getpid(void)
{
	return 1;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	void (*hook)(void) = NULL;
	struct file *file;
	va_list arguments;
	void *argument;
	int ret, error;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);

	pthread_mutex_lock(&lock);
	if (request == VMEMEXP_IOC_EXPORT) {
		hook = fake.in_export;
		fake.in_export = NULL;
	}
	pthread_mutex_unlock(&lock);
	if (hook)
		hook();

	pthread_mutex_lock(&lock);
	file = find_file(fd);
	if (request == DMA_BUF_IOCTL_SYNC)
		ret = sync_whole(fd, argument);
	else if (!file || file->kind != DEVICE)
		ret = fail(file ? ENOTTY : EBADF);
	else if (request == VMEMEXP_IOC_EXPORT)
		ret = export(argument);
	else if (request == VMEMEXP_IOC_QUERY)
		ret = query(argument);
	else if (request == VMEMEXP_IOC_SYNC)
		ret = sync_range(argument);
	else
		ret = fail(ENOTTY);
	error = errno;
	pthread_mutex_unlock(&lock);
	errno = error;
	return ret;
}

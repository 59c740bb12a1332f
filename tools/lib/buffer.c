// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* libvmemexp: the device, and the buffers that it exports. */
/* For madvise(), beside POSIX. */
#define _DEFAULT_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#define DEVICE_PATH	"/dev/vmemexp"

#define ALL_FLAGS	(VMEMEXP_RDONLY | VMEMEXP_CONTIGUOUS | VMEMEXP_ROUND)

/* The kernel takes no larger structures, on any architecture. */
#define MAX_STRUCT_SIZE	4096

int vmemexp_fail(struct vmemexp_error *err, int error, uint32_t reason, uint64_t addr)
{
	if (err) {
		err->err = error;
		err->reason = reason;
		err->addr = addr;
	}
	errno = error;
	return -1;
}

int vmemexp_ioctl(int fd, unsigned long request, void *argument)
{
	int ret;

	do {
		ret = ioctl(fd, request, argument);
	} while (ret < 0 && errno == EINTR);
	return ret;
}

/* ---- the device ---- */

/* A page that holds 1, and 0 in a child of fork(). */
static char *map_own(void)
{
	size_t page = sysconf(_SC_PAGESIZE);
	char *own = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (own == MAP_FAILED)
		return NULL;
	if (madvise(own, page, MADV_WIPEONFORK)) {
		munmap(own, page);
		return NULL;
	}
	*own = 1;
	return own;
}

static void unmap_own(char *own)
{
	munmap(own, sysconf(_SC_PAGESIZE));
}

struct vmemexp *vmemexp_open(const char *path, struct vmemexp_error *err)
{
	struct vmemexp *v = calloc(1, sizeof(*v));

	if (!v)
		goto no_memory;
	v->own = map_own();
	if (!v->own)
		goto no_own;
	do {
		v->fd = open(path ? path : DEVICE_PATH, O_RDWR | O_CLOEXEC);
	} while (v->fd < 0 && errno == EINTR);
	if (v->fd < 0) {
		vmemexp_fail(err, errno, VMEMEXP_REASON_NONE, 0);
		unmap_own(v->own);
		free(v);
		return NULL;
	}
	atomic_init(&v->refs, 1);
	pthread_mutex_init(&v->lock, NULL);
	if (err)
		memset(err, 0, sizeof(*err));
	return v;

no_own:
	free(v);
no_memory:
	vmemexp_fail(err, ENOMEM, VMEMEXP_REASON_NONE, 0);
	return NULL;
}

void vmemexp_unref(struct vmemexp *v)
{
	if (atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(v->fd);
	pthread_mutex_destroy(&v->lock);
	unmap_own(v->own);
	free(v);
}

void vmemexp_close(struct vmemexp *v)
{
	int error = errno;

	if (!v)
		return;
	/* The cached buffers have references to the device, which end with this. */
	vmemexp_forget(v, NULL, SIZE_MAX);
	vmemexp_unref(v);
	errno = error;
}

int vmemexp_fd(const struct vmemexp *v)
{
	return v->fd;
}

/* ---- exports ---- */

size_t vmemexp_aligned_size(size_t length)
{
	size_t page = sysconf(_SC_PAGESIZE);

	/* A length that is too large wraps around to 0. */
	return (length + page - 1) & ~(page - 1);
}

/* VMEMEXP_IOC_EXPORT, again if it says that it is worth a try. */
static int call_export(struct vmemexp *v, struct vmemexp_export *export)
{
	int ret = 0;
	int tries;

	for (tries = 0; tries < MAX_TRIES; tries++) {
		export->err_reason = VMEMEXP_REASON_NONE;
		export->err_addr = 0;
		export->err_range = 0;
		ret = vmemexp_ioctl(v->fd, VMEMEXP_IOC_EXPORT, export);
		if (!ret || errno != EAGAIN || export->err_reason != VMEMEXP_REASON_CHANGED)
			break;
	}
	return ret;
}

/*
 * Returns the array that the driver reads, for the caller to free, or NULL if there is no
 * memory. A single range goes without one, so that old drivers take it.
 */
static struct vmemexp_range *set_ranges(struct vmemexp_export *export, const struct iovec *iov,
					unsigned int n)
{
	struct vmemexp_range *ranges = calloc(n, sizeof(*ranges));
	unsigned int i;

	if (!ranges)
		return NULL;
	if (n == 1) {
		export->vaddr = (uintptr_t)iov->iov_base;
		export->length = iov->iov_len;
		return ranges;
	}
	for (i = 0; i < n; i++) {
		ranges[i].vaddr = (uintptr_t)iov[i].iov_base;
		ranges[i].length = iov[i].iov_len;
	}
	export->ranges = (uintptr_t)ranges;
	export->nr_ranges = n;
	return ranges;
}

static void set_flags(struct vmemexp_export *export, unsigned int flags)
{
	export->fd_flags = (flags & VMEMEXP_RDONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	if (flags & VMEMEXP_CONTIGUOUS)
		export->flags |= VMEMEXP_EXPORT_CONTIGUOUS;
	if (flags & VMEMEXP_ROUND)
		export->flags |= VMEMEXP_EXPORT_UNALIGNED;
}

/* Bytes in all, of an export that the driver has made: they do not wrap around. */
static uint64_t sum_of(const struct iovec *iov, unsigned int n)
{
	uint64_t sum = 0;

	while (n--)
		sum += iov[n].iov_len;
	return sum;
}

static void init_buf(struct vmemexp_buf *buf, struct vmemexp *v,
		     const struct vmemexp_export *export)
{
	atomic_init(&buf->refs, 1);
	atomic_init(&buf->access, ACCESS_NONE);
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	buf->v = v;
	buf->fd = export->fd;
	buf->memory = export->memory;
	buf->offset = export->offset;
	buf->size = export->dmabuf_size;
}

int vmemexp_exportv(struct vmemexp *v, const struct iovec *iov, unsigned int n,
		    unsigned int flags, struct vmemexp_buf **buf, struct vmemexp_error *err,
		    unsigned int *err_range)
{
	struct vmemexp_export export;
	struct vmemexp_range *ranges;
	struct vmemexp_buf *new;
	int error = 0;

	if (buf)
		*buf = NULL;
	if (err_range)
		*err_range = 0;
	if (!v || !buf)
		return vmemexp_fail(err, EINVAL, VMEMEXP_REASON_NONE, 0);
	if (flags & ~ALL_FLAGS)
		return vmemexp_fail(err, EINVAL, VMEMEXP_REASON_FLAGS, 0);
	if (!iov || !n || n > VMEMEXP_MAX_RANGES)
		return vmemexp_fail(err, EINVAL, VMEMEXP_REASON_RANGES, 0);

	memset(&export, 0, sizeof(export));
	export.size = sizeof(export);
	set_flags(&export, flags);
	/* Before the export, which would have to be undone. */
	new = calloc(1, sizeof(*new));
	ranges = set_ranges(&export, iov, n);
	if (!new || !ranges)
		error = ENOMEM;
	else if (call_export(v, &export))
		error = errno;
	free(ranges);
	if (error) {
		free(new);
		if (err_range)
			*err_range = export.err_range;
		return vmemexp_fail(err, error, export.err_reason, export.err_addr);
	}

	init_buf(new, v, &export);
	new->addr = (uintptr_t)iov->iov_base;
	new->length = sum_of(iov, n);
	new->flags = flags;
	*buf = new;
	if (err)
		memset(err, 0, sizeof(*err));
	return 0;
}

int vmemexp_export(struct vmemexp *v, const void *addr, size_t length, unsigned int flags,
		   struct vmemexp_buf **buf, struct vmemexp_error *err)
{
	struct iovec range = { (void *)addr, length };

	return vmemexp_exportv(v, &range, 1, flags, buf, err, NULL);
}

/* ---- buffers ---- */

struct vmemexp_buf *vmemexp_buf_ref(struct vmemexp_buf *buf)
{
	if (buf)
		atomic_fetch_add_explicit(&buf->refs, 1, memory_order_relaxed);
	return buf;
}

void vmemexp_buf_unref(struct vmemexp_buf *buf)
{
	int error = errno;

	/* All that other threads did with the buffer happens before it is freed. */
	if (!buf || atomic_fetch_sub_explicit(&buf->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(buf->fd);
	vmemexp_unref(buf->v);
	free(buf);
	errno = error;
}

int vmemexp_buf_fd(const struct vmemexp_buf *buf)
{
	return buf->fd;
}

uint64_t vmemexp_buf_offset(const struct vmemexp_buf *buf)
{
	return buf->offset;
}

uint64_t vmemexp_buf_size(const struct vmemexp_buf *buf)
{
	return buf->size;
}

int vmemexp_buf_query(const struct vmemexp_buf *buf, struct vmemexp_query *query)
{
	union {
		struct vmemexp_query query;
		unsigned char bytes[MAX_STRUCT_SIZE];
	} answer;

	if (!buf || !query || query->size < VMEMEXP_QUERY_SIZE_VER0)
		return vmemexp_fail(NULL, EINVAL, VMEMEXP_REASON_NONE, 0);
	if (query->size > sizeof(answer))
		return vmemexp_fail(NULL, E2BIG, VMEMEXP_REASON_NONE, 0);

	/* A newer program may know fields that neither this library nor the driver does. */
	memset(&answer, 0, query->size);
	answer.query.size = query->size;
	answer.query.fd = buf->fd;
	if (vmemexp_ioctl(buf->v->fd, VMEMEXP_IOC_QUERY, &answer))
		return -1;
	memcpy(query, &answer, query->size);
	return 0;
}

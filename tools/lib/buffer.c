// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* libvmemexp: the device, and the buffers that it exports. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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

struct vmemexp *vmemexp_open(const char *path, struct vmemexp_error *err)
{
	struct vmemexp *v = calloc(1, sizeof(*v));

	if (!v) {
		vmemexp_fail(err, ENOMEM, VMEMEXP_REASON_NONE, 0);
		return NULL;
	}
	do {
		v->fd = open(path ? path : DEVICE_PATH, O_RDWR | O_CLOEXEC);
	} while (v->fd < 0 && errno == EINTR);
	if (v->fd < 0) {
		vmemexp_fail(err, errno, VMEMEXP_REASON_NONE, 0);
		free(v);
		return NULL;
	}
	atomic_init(&v->refs, 1);
	pthread_mutex_init(&v->lock, NULL);
	v->pid = getpid();
	if (err)
		memset(err, 0, sizeof(*err));
	return v;
}

void vmemexp_unref(struct vmemexp *v)
{
	if (atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(v->fd);
	pthread_mutex_destroy(&v->lock);
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
		ret = vmemexp_ioctl(v->fd, VMEMEXP_IOC_EXPORT, export);
		if (!ret || errno != EAGAIN || export->err_reason != VMEMEXP_REASON_CHANGED)
			break;
	}
	return ret;
}

int vmemexp_export(struct vmemexp *v, const void *addr, size_t length, unsigned int flags,
		   struct vmemexp_buf **buf, struct vmemexp_error *err)
{
	struct vmemexp_export export;
	struct vmemexp_buf *new;

	if (buf)
		*buf = NULL;
	if (!v || !buf)
		return vmemexp_fail(err, EINVAL, VMEMEXP_REASON_NONE, 0);
	if (flags & ~ALL_FLAGS)
		return vmemexp_fail(err, EINVAL, VMEMEXP_REASON_FLAGS, 0);

	/* Before the export, which would have to be undone. */
	new = calloc(1, sizeof(*new));
	if (!new)
		return vmemexp_fail(err, ENOMEM, VMEMEXP_REASON_NONE, 0);

	memset(&export, 0, sizeof(export));
	export.size = sizeof(export);
	export.vaddr = (uintptr_t)addr;
	export.length = length;
	export.fd_flags = (flags & VMEMEXP_RDONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	if (flags & VMEMEXP_CONTIGUOUS)
		export.flags |= VMEMEXP_EXPORT_CONTIGUOUS;
	if (flags & VMEMEXP_ROUND)
		export.flags |= VMEMEXP_EXPORT_UNALIGNED;

	if (call_export(v, &export)) {
		vmemexp_fail(err, errno, export.err_reason, export.err_addr);
		free(new);
		return -1;
	}

	atomic_init(&new->refs, 1);
	atomic_init(&new->access, ACCESS_NONE);
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	new->v = v;
	new->addr = (uintptr_t)addr;
	new->length = length;
	new->flags = flags;
	new->fd = export.fd;
	new->memory = export.memory;
	new->offset = export.offset;
	new->size = export.dmabuf_size;
	*buf = new;
	if (err)
		memset(err, 0, sizeof(*err));
	return 0;
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

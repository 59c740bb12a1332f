// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* libvmemexp: what goes around access by the CPU. */
#include <errno.h>
#include <linux/dma-buf.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

#define ALL_FLAGS	(VMEMEXP_SYNC_RW | VMEMEXP_SYNC_END | VMEMEXP_SYNC_OBSERVER)

/* The library's flags are handed on as they are. */
_Static_assert(VMEMEXP_SYNC_READ == DMA_BUF_SYNC_READ, "READ");
_Static_assert(VMEMEXP_SYNC_WRITE == DMA_BUF_SYNC_WRITE, "WRITE");
_Static_assert(VMEMEXP_SYNC_END == DMA_BUF_SYNC_END, "END");

static int fail(int error)
{
	return vmemexp_fail(NULL, error, VMEMEXP_REASON_NONE, 0);
}

/* Return true if all rows of @area are among @size bytes. Nothing here wraps around. */
static bool is_inside(const struct vmemexp_area *area, uint64_t size)
{
	if (!area->length || area->offset > size || area->length > size - area->offset)
		return false;
	if (area->rows <= 1)
		return true;
	return area->stride >= area->length &&
	       (size - area->offset - area->length) / area->stride >= area->rows - 1;
}

/* All of any dma-buf. The kernel's rule is to call again. */
static int sync_whole(int fd, unsigned int flags)
{
	struct dma_buf_sync sync;
	int tries, ret = 0;

	for (tries = 0; tries < MAX_TRIES; tries++) {
		memset(&sync, 0, sizeof(sync));
		sync.flags = flags;
		ret = vmemexp_ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync);
		if (!ret || errno != EAGAIN)
			break;
	}
	return ret;
}

/* Returns 0 if the driver has exported it, else -1 with errno. */
static int query(struct vmemexp *v, int fd, struct vmemexp_query *query)
{
	memset(query, 0, sizeof(*query));
	query->size = sizeof(*query);
	query->fd = fd;
	return vmemexp_ioctl(v->fd, VMEMEXP_IOC_QUERY, query);
}

static int sync_area(struct vmemexp *v, int fd, unsigned int flags,
		     const struct vmemexp_area *area)
{
	struct vmemexp_query answer;
	struct vmemexp_sync sync;
	struct stat st;

	memset(&sync, 0, sizeof(sync));
	sync.size = sizeof(sync);
	sync.fd = fd;
	sync.flags = flags;
	sync.rows = area->rows;
	sync.offset = area->offset;
	sync.length = area->length;
	sync.stride = area->stride;
	if (!vmemexp_ioctl(v->fd, VMEMEXP_IOC_SYNC, &sync))
		return 0;
	if (errno != EINVAL || flags & VMEMEXP_SYNC_OBSERVER)
		return -1;

	/* Is the area wrong, or the exporter another one? */
	if (!query(v, fd, &answer))
		return fail(EINVAL);
	if (errno != EINVAL)
		return -1;
	if (fstat(fd, &st))
		return -1;
	/* Without a direction nothing is synced: a dma-buf answers EINVAL, another file ENOTTY. */
	if (!is_inside(area, st.st_size))
		flags = 0;
	return sync_whole(fd, flags);
}

int vmemexp_sync(struct vmemexp *v, int fd, unsigned int flags, const struct vmemexp_area *area)
{
	struct vmemexp_area whole = { 0, 0, 1, 0 };
	struct vmemexp_query answer;

	if (!v || flags & ~ALL_FLAGS || !(flags & VMEMEXP_SYNC_RW))
		return fail(EINVAL);
	if (area)
		return sync_area(v, fd, flags, area);
	if (!(flags & VMEMEXP_SYNC_OBSERVER))
		return sync_whole(fd, flags);

	/* The dma-buf core knows of no observers. */
	if (query(v, fd, &answer))
		return -1;
	whole.length = answer.dmabuf_size;
	return sync_area(v, fd, flags, &whole);
}

/* Return true if the access was in state @from; then the caller may change it. */
static bool take_access(struct vmemexp_buf *buf, int from)
{
	return atomic_compare_exchange_strong(&buf->access, &from, ACCESS_CHANGES);
}

int vmemexp_begin(struct vmemexp_buf *buf, unsigned int rw, const struct vmemexp_area *area)
{
	struct vmemexp_area whole = { 0, 0, 1, 0 };
	int ret;

	if (!buf || rw & ~(VMEMEXP_SYNC_RW | VMEMEXP_SYNC_OBSERVER) || !(rw & VMEMEXP_SYNC_RW))
		return fail(EINVAL);
	if (!area) {
		whole.length = buf->length;
		area = &whole;
	}
	/* The driver would take the bytes beside an export of ROUND as well. */
	if (!is_inside(area, buf->length))
		return fail(EINVAL);

	if (!take_access(buf, ACCESS_NONE))
		return fail(EBUSY);
	buf->access_flags = rw;
	buf->access_area = *area;
	buf->access_area.offset += buf->offset;
	ret = vmemexp_sync(buf->v, buf->fd, VMEMEXP_SYNC_START | rw, &buf->access_area);
	atomic_store(&buf->access, ret ? ACCESS_NONE : ACCESS_OPEN);
	return ret;
}

int vmemexp_end(struct vmemexp_buf *buf)
{
	int ret;

	if (!buf || !take_access(buf, ACCESS_OPEN))
		return fail(EINVAL);
	ret = vmemexp_sync(buf->v, buf->fd, VMEMEXP_SYNC_END | buf->access_flags,
			   &buf->access_area);
	atomic_store(&buf->access, ACCESS_NONE);
	return ret;
}

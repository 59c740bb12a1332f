// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * libvmemexp: exports that are found again.
 *
 * The lock is held for the list alone, never over an ioctl: an export may take long, and
 * other threads must be able to forget and to find other memory meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

/* Drops a list of buffers that no other thread can see. */
static void unref_list(struct vmemexp_buf *buf)
{
	struct vmemexp_buf *next;

	for (; buf; buf = next) {
		next = buf->next_cached;
		vmemexp_buf_unref(buf);
	}
}

/*
 * Locks the list. In a child of fork() the addresses are the child's, and the exports the
 * parent's, so the child begins with an empty one: returns what it has to drop when the
 * lock is free again.
 */
static struct vmemexp_buf *lock_list(struct vmemexp *v)
{
	struct vmemexp_buf *parents = NULL;

	pthread_mutex_lock(&v->lock);
	if (!*v->own) {
		parents = v->cached;
		v->cached = NULL;
		*v->own = 1;
	}
	return parents;
}

static bool is_export_of(const struct vmemexp_buf *buf, uintptr_t addr, size_t length,
			 unsigned int flags)
{
	return buf->addr == addr && buf->length == length && buf->flags == flags;
}

/* Ranges end where the address space does. */
static bool overlaps(const struct vmemexp_buf *buf, uintptr_t addr, size_t length)
{
	if (!length)
		return false;
	return addr < buf->addr ? length > buf->addr - addr : buf->length > addr - buf->addr;
}

/* Return true if the address still leads to it, as far as the driver can tell. */
static bool is_current(const struct vmemexp_buf *buf)
{
	struct vmemexp_query query;

	query.size = sizeof(query);
	return !vmemexp_buf_query(buf, &query) &&
	       (query.state & (VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE |
			       VMEMEXP_STATE_REVOKED)) == VMEMEXP_STATE_TRACKED;
}

/* Takes the buffer out of the list, if another thread has not done so. */
static void forget_buf(struct vmemexp *v, struct vmemexp_buf *buf)
{
	struct vmemexp_buf **link;
	bool found;

	pthread_mutex_lock(&v->lock);
	for (link = &v->cached; *link && *link != buf; link = &(*link)->next_cached)
		;
	found = *link;
	if (found)
		*link = buf->next_cached;
	pthread_mutex_unlock(&v->lock);
	if (found)
		vmemexp_buf_unref(buf);
}

/* A reference to the export of exactly this, or NULL. */
static struct vmemexp_buf *find(struct vmemexp *v, uintptr_t addr, size_t length,
				unsigned int flags)
{
	struct vmemexp_buf *parents = lock_list(v);
	struct vmemexp_buf *buf;

	for (buf = v->cached; buf; buf = buf->next_cached)
		if (is_export_of(buf, addr, length, flags))
			break;
	vmemexp_buf_ref(buf);
	pthread_mutex_unlock(&v->lock);
	unref_list(parents);
	return buf;
}

/*
 * A reference to the @nr-th export that has a byte of the range, or NULL. Others may change
 * the list between two calls: then one is asked twice, or at the next miss.
 */
static struct vmemexp_buf *find_overlap(struct vmemexp *v, uintptr_t addr, size_t length,
					unsigned int nr)
{
	struct vmemexp_buf *buf;

	pthread_mutex_lock(&v->lock);
	for (buf = v->cached; buf; buf = buf->next_cached)
		if (overlaps(buf, addr, length) && !nr--)
			break;
	vmemexp_buf_ref(buf);
	pthread_mutex_unlock(&v->lock);
	return buf;
}

/* Otherwise memory that was mapped anew in another size would stay pinned for good. */
static void forget_what_has_gone(struct vmemexp *v, uintptr_t addr, size_t length)
{
	struct vmemexp_buf *buf;
	unsigned int nr = 0;

	while ((buf = find_overlap(v, addr, length, nr))) {
		if (is_current(buf))
			nr++;
		else
			forget_buf(v, buf);
		vmemexp_buf_unref(buf);
	}
}

/*
 * Adds the buffer, for which the list gets a reference. If another thread has added an
 * export of the same memory meanwhile, gives that one instead, and drops the caller's.
 */
static struct vmemexp_buf *add(struct vmemexp *v, struct vmemexp_buf *new)
{
	struct vmemexp_buf *parents = lock_list(v);
	struct vmemexp_buf *buf;

	for (buf = v->cached; buf; buf = buf->next_cached)
		if (is_export_of(buf, new->addr, new->length, new->flags))
			break;
	if (buf) {
		vmemexp_buf_ref(buf);
	} else {
		new->next_cached = v->cached;
		v->cached = vmemexp_buf_ref(new);
	}
	pthread_mutex_unlock(&v->lock);
	unref_list(parents);
	if (!buf)
		return new;
	vmemexp_buf_unref(new);
	return buf;
}

int vmemexp_get(struct vmemexp *v, const void *addr, size_t length, unsigned int flags,
		struct vmemexp_buf **buf, struct vmemexp_error *err)
{
	struct vmemexp_buf *found = NULL;

	/* vmemexp_export() refuses the others. */
	if (v && buf)
		found = find(v, (uintptr_t)addr, length, flags);
	if (found && is_current(found)) {
		*buf = found;
		if (err)
			memset(err, 0, sizeof(*err));
		return 0;
	}
	if (found) {
		forget_buf(v, found);
		vmemexp_buf_unref(found);
	}

	if (v && buf)
		forget_what_has_gone(v, (uintptr_t)addr, length);
	if (vmemexp_export(v, addr, length, flags, buf, err))
		return -1;
	/* The state of such a dma-buf is about the memory behind it, not this mapping of it. */
	if (!((*buf)->memory & VMEMEXP_MEMORY_DMABUF))
		*buf = add(v, *buf);
	return 0;
}

void vmemexp_forget(struct vmemexp *v, const void *addr, size_t length)
{
	struct vmemexp_buf *forgotten = NULL;
	struct vmemexp_buf **link, *buf, *parents;

	if (!v)
		return;
	parents = lock_list(v);
	link = &v->cached;
	while ((buf = *link)) {
		if (overlaps(buf, (uintptr_t)addr, length)) {
			*link = buf->next_cached;
			buf->next_cached = forgotten;
			forgotten = buf;
		} else {
			link = &buf->next_cached;
		}
	}
	pthread_mutex_unlock(&v->lock);
	unref_list(forgotten);
	unref_list(parents);
}

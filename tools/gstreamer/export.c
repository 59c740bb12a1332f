// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Memory of GStreamer as dma-bufs, and the exports that are found again.
 *
 * Ownership: a memory owns its cache, by qdata, and the cache owns the dma-bufs, which are memories
 * as well. A dma-buf owns the export, by qdata, and the export the exporter. Nothing leads back
 * from the dma-buf to the memory: the buffer around the dma-buf holds the buffer that the memory is
 * in, and with it the memory, for as long as it is used.
 */
#include <errno.h>
#include <gst/allocators/gstdmabuf.h>
#include <gst/allocators/gstfdmemory.h>

#include "export.h"
#include "pages.h"

/* So many frames may be dropped on their way before no device counts as having one. */
#define UNUSED_AT_LEAST	10

/**
 * struct exporter - a device, and what was exported by it
 * @refs: one of the element, and one of each export
 * @device: open as long as there is any reference
 * @path: by which it was opened; exports of the same one are shared
 * @flags: of each export, VMEMEXP_ROUND and so on
 * @max_bytes: that may be pinned at a time, 0 for any number
 * @allocator: GStreamer's, for dma-bufs
 * @pinned: bytes that are, protected by cache_lock
 * @entries: in the caches, that which was not used for longest first; likewise
 * @idle: how often an export was found again that no device had; -1: one was
 * @nr_extents: of the last one of these
 */
struct exporter {
	gatomicrefcount refs;
	struct vmemexp *device;
	char *path;
	unsigned int flags;
	guint64 max_bytes;
	GstAllocator *allocator;
	guint64 pinned;
	GQueue entries;
	gint idle;
	guint64 nr_extents;
};

/* The export behind a dma-buf. */
struct export {
	struct exporter *exporter;
	struct vmemexp_buf *buf;
	gsize bytes;
};

/* A part of a memory, which has that cache. */
struct part {
	GQueue *cache;
	gsize offset;
	gsize size;
};

/*
 * A dma-buf of parts of memories, one after the other; it is in a list of the exporter, and in
 * the cache of each memory, so that it goes with the first of them that is freed.
 */
struct entry {
	struct exporter *exporter;
	GstMemory *dmabuf;
	GList link;
	guint nr;
	struct part parts[];
};

/* Protects all caches: several elements may have the same memory, behind a tee. */
static GMutex cache_lock;

static GQuark cache_quark(void)
{
	return g_quark_from_static_string("vmemexp-cache");
}

static GQuark export_quark(void)
{
	return g_quark_from_static_string("vmemexp-export");
}

static GstMemory *fail(struct failure *failure, enum outcome outcome, GstResourceError code,
		       char *text)
{
	failure->outcome = outcome;
	failure->code = code;
	failure->text = text;
	return NULL;
}

/* --- the exporter --- */

static const char *help_to_open(int error)
{
	switch (error) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return "; is the kernel module vmemexp loaded?";
	case EACCES:
	case EPERM:
		return "; its group, usually video, may open it";
	default:
		return "";
	}
}

struct exporter *exporter_new(const char *device, unsigned int flags, guint64 max_bytes,
			      struct failure *failure)
{
	const char *path = device ? device : "/dev/vmemexp";
	struct vmemexp_error error;
	struct exporter *exporter;
	struct vmemexp *v;
	char why[256];

	v = vmemexp_open(path, &error);
	if (!v) {
		fail(failure, OUTCOME_LIMIT, GST_RESOURCE_ERROR_OPEN_READ_WRITE,
		     g_strdup_printf("cannot open %s: %s%s", path,
				     vmemexp_strerror(&error, why, sizeof(why)),
				     help_to_open(error.err)));
		return NULL;
	}
	exporter = g_new0(struct exporter, 1);
	g_atomic_ref_count_init(&exporter->refs);
	exporter->device = v;
	exporter->path = g_strdup(path);
	exporter->flags = flags;
	exporter->max_bytes = max_bytes;
	exporter->allocator = gst_dmabuf_allocator_new();
	g_queue_init(&exporter->entries);
	return exporter;
}

void exporter_unref(struct exporter *exporter)
{
	if (!g_atomic_ref_count_dec(&exporter->refs))
		return;
	vmemexp_close(exporter->device);
	gst_object_unref(exporter->allocator);
	g_free(exporter->path);
	g_free(exporter);
}

guint64 exporter_pinned(struct exporter *exporter)
{
	guint64 pinned;

	g_mutex_lock(&cache_lock);
	pinned = exporter->pinned;
	g_mutex_unlock(&cache_lock);
	return pinned;
}

gboolean exporter_is_unused(struct exporter *exporter, guint64 *nr_extents)
{
	gboolean unused;

	g_mutex_lock(&cache_lock);
	unused = exporter->idle == UNUSED_AT_LEAST;
	*nr_extents = exporter->nr_extents;
	if (unused)
		exporter->idle = -1;
	g_mutex_unlock(&cache_lock);
	return unused;
}

/* --- the caches --- */

/*
 * Takes an entry out of its lists, with the lock held. The caller drops the dma-buf when
 * the lock is free: what that ends takes the lock as well.
 */
static GstMemory *remove_entry(struct entry *entry)
{
	GstMemory *dmabuf = entry->dmabuf;
	guint i;

	for (i = 0; i < entry->nr; i++)
		g_queue_remove(entry->parts[i].cache, entry);
	g_queue_unlink(&entry->exporter->entries, &entry->link);
	g_free(entry);
	return dmabuf;
}

static void unref_memories(GList *memories)
{
	g_list_free_full(memories, (GDestroyNotify)gst_memory_unref);
}

static void free_cache(gpointer data)
{
	GQueue *cache = data;
	GList *gone = NULL;

	g_mutex_lock(&cache_lock);
	while (cache->head)
		gone = g_list_prepend(gone, remove_entry(cache->head->data));
	g_mutex_unlock(&cache_lock);
	g_queue_free(cache);
	unref_memories(gone);
}

void exporter_forget(struct exporter *exporter)
{
	GList *gone = NULL;

	g_mutex_lock(&cache_lock);
	while (exporter->entries.head)
		gone = g_list_prepend(gone, remove_entry(exporter->entries.head->data));
	g_mutex_unlock(&cache_lock);
	unref_memories(gone);
}

/* Parts of a memory come and go with each frame; what they are parts of stays. */
static GstMemory *whole_memory(GstMemory *mem)
{
	while (mem->parent)
		mem = mem->parent;
	return mem;
}

/* The cache of a memory, with the lock held. */
static GQueue *cache_of(GstMemory *whole)
{
	GQueue *cache = gst_mini_object_get_qdata(GST_MINI_OBJECT_CAST(whole), cache_quark());

	if (!cache) {
		cache = g_queue_new();
		gst_mini_object_set_qdata(GST_MINI_OBJECT_CAST(whole), cache_quark(), cache,
					  free_cache);
	}
	return cache;
}

/* Says what the memories are parts of, with the lock held. */
static void find_parts(GstMemory *const *mems, guint nr, struct part *parts)
{
	guint i;

	for (i = 0; i < nr; i++) {
		parts[i].cache = cache_of(whole_memory(mems[i]));
		parts[i].size = gst_memory_get_sizes(mems[i], &parts[i].offset, NULL);
	}
}

static gboolean is_export_of(const struct entry *entry, const struct exporter *exporter,
			     const struct part *parts, guint nr)
{
	guint i;

	if (entry->nr != nr || entry->exporter->flags != exporter->flags ||
	    g_strcmp0(entry->exporter->path, exporter->path))
		return FALSE;
	for (i = 0; i < nr; i++)
		if (entry->parts[i].cache != parts[i].cache ||
		    entry->parts[i].offset != parts[i].offset ||
		    entry->parts[i].size != parts[i].size)
			return FALSE;
	return TRUE;
}

static struct entry *find_entry(const struct exporter *exporter, const struct part *parts,
				guint nr)
{
	GList *link;

	for (link = parts->cache->head; link; link = link->next)
		if (is_export_of(link->data, exporter, parts, nr))
			return link->data;
	return NULL;
}

/* A reference to the dma-buf of exactly these, or NULL. */
static GstMemory *find(struct exporter *exporter, GstMemory *const *mems, guint nr)
{
	struct part *parts = g_newa(struct part, nr);
	GstMemory *dmabuf = NULL;
	struct entry *entry;

	g_mutex_lock(&cache_lock);
	find_parts(mems, nr, parts);
	entry = find_entry(exporter, parts, nr);
	if (entry) {
		GQueue *entries = &entry->exporter->entries;

		g_queue_unlink(entries, &entry->link);
		g_queue_push_tail_link(entries, &entry->link);
		dmabuf = gst_memory_ref(entry->dmabuf);
	}
	g_mutex_unlock(&cache_lock);
	return dmabuf;
}

static void drop(struct exporter *exporter, GstMemory *const *mems, guint nr, GstMemory *dmabuf)
{
	struct part *parts = g_newa(struct part, nr);
	GstMemory *gone = NULL;
	struct entry *entry;

	g_mutex_lock(&cache_lock);
	find_parts(mems, nr, parts);
	entry = find_entry(exporter, parts, nr);
	if (entry && entry->dmabuf == dmabuf)
		gone = remove_entry(entry);
	g_mutex_unlock(&cache_lock);
	if (gone)
		gst_memory_unref(gone);
}

/* Another thread may have added its own dma-buf meanwhile; then that one stays there. */
static void add(struct exporter *exporter, GstMemory *const *mems, guint nr, GstMemory *dmabuf)
{
	struct entry *entry = g_malloc0(sizeof(*entry) + nr * sizeof(*entry->parts));
	guint i;

	g_mutex_lock(&cache_lock);
	find_parts(mems, nr, entry->parts);
	if (find_entry(exporter, entry->parts, nr)) {
		g_clear_pointer(&entry, g_free);
	} else {
		entry->exporter = exporter;
		entry->dmabuf = gst_memory_ref(dmabuf);
		entry->link.data = entry;
		entry->nr = nr;
		/* A memory that has two of the parts has it twice. */
		for (i = 0; i < nr; i++)
			g_queue_push_tail(entry->parts[i].cache, entry);
		g_queue_push_tail_link(&exporter->entries, &entry->link);
	}
	g_mutex_unlock(&cache_lock);
}

/* --- exports --- */

static void uncharge(struct exporter *exporter, gsize bytes)
{
	g_mutex_lock(&cache_lock);
	exporter->pinned -= bytes;
	g_mutex_unlock(&cache_lock);
}

/* Makes room by forgetting exports. A sink may hold them still: they stay charged then. */
static gboolean charge(struct exporter *exporter, gsize bytes)
{
	gboolean fits;

	for (;;) {
		GstMemory *gone = NULL;

		g_mutex_lock(&cache_lock);
		fits = !exporter->max_bytes || (bytes <= exporter->max_bytes &&
			exporter->pinned <= exporter->max_bytes - bytes);
		if (fits)
			exporter->pinned += bytes;
		else if (exporter->entries.head)
			gone = remove_entry(exporter->entries.head->data);
		g_mutex_unlock(&cache_lock);
		if (!gone)
			return fits;
		gst_memory_unref(gone);
	}
}

static void free_export(gpointer data)
{
	struct export *export = data;

	vmemexp_buf_unref(export->buf);
	uncharge(export->exporter, export->bytes);
	exporter_unref(export->exporter);
	g_free(export);
}

static struct export *export_of(GstMemory *dmabuf)
{
	return gst_mini_object_get_qdata(GST_MINI_OBJECT_CAST(dmabuf), export_quark());
}

/* Counts what no device has, until one has. */
static void count_use(struct exporter *exporter, const struct vmemexp_query *query)
{
	g_mutex_lock(&cache_lock);
	if (query->attachments || query->mappings || query->vmaps)
		exporter->idle = -1;
	else if (exporter->idle >= 0 && exporter->idle < UNUSED_AT_LEAST)
		exporter->idle++;
	exporter->nr_extents = query->nr_extents;
	g_mutex_unlock(&cache_lock);
}

gboolean exporter_has_no_import(struct exporter *exporter, GstMemory *dmabuf, guint64 *nr_extents)
{
	struct export *export = export_of(dmabuf);
	struct vmemexp_query query;
	gboolean none;

	query.size = sizeof(query);
	if (!export || vmemexp_buf_query(export->buf, &query))
		return FALSE;
	count_use(exporter, &query);
	*nr_extents = query.nr_extents;
	g_mutex_lock(&cache_lock);
	none = exporter->idle >= 0;
	g_mutex_unlock(&cache_lock);
	return none;
}

/*
 * Gives devices what the CPU has written since. Return false if the address leads to other
 * memory by now, or if the dma-buf is another driver's, which cannot tell.
 */
static gboolean refresh(struct exporter *exporter, GstMemory *dmabuf, gsize size)
{
	struct export *export = export_of(dmabuf);
	struct vmemexp_query query;
	struct vmemexp_area area = {
		.offset = vmemexp_buf_offset(export->buf),
		.length = size,
	};

	query.size = sizeof(query);
	if (vmemexp_buf_query(export->buf, &query) ||
	    (query.state & (VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE |
			    VMEMEXP_STATE_REVOKED)) != VMEMEXP_STATE_TRACKED)
		return FALSE;
	count_use(exporter, &query);
	return !vmemexp_sync(exporter->device, vmemexp_buf_fd(export->buf),
			     VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE, &area);
}

static gboolean is_limit(const struct vmemexp_error *error)
{
	return error->reason == VMEMEXP_REASON_LIMIT || error->reason == VMEMEXP_REASON_QUOTA ||
	       (error->reason == VMEMEXP_REASON_NONE &&
		(error->err == ENOMEM || error->err == EMFILE || error->err == ENFILE));
}

static const char *help_to_export(const struct vmemexp_error *error)
{
	switch (error->reason) {
	case VMEMEXP_REASON_LIMIT:
		return "; raise that limit, or take fewer or smaller buffers";
	case VMEMEXP_REASON_NOT_CONTIGUOUS:
		return "; contiguous=false, if the sink's device has an IOMMU";
	default:
		return "";
	}
}

/* Is it the list that is refused, and not the memory? */
static gboolean is_about_list(const struct vmemexp_error *error, guint nr_ranges)
{
	return nr_ranges > 1 && (error->err == E2BIG || error->reason == VMEMEXP_REASON_MIXED);
}

static GstMemory *fail_export(struct failure *failure, const struct vmemexp_error *error,
			      guint nr_ranges)
{
	enum outcome outcome = OUTCOME_REFUSED;
	char why[256];

	if (is_limit(error))
		outcome = OUTCOME_LIMIT;
	else if (is_about_list(error, nr_ranges))
		outcome = OUTCOME_APART;
	return fail(failure, outcome,
		    is_limit(error) ? GST_RESOURCE_ERROR_NO_SPACE_LEFT : GST_RESOURCE_ERROR_FAILED,
		    g_strdup_printf("no dma-buf of the frame: %s%s",
				    vmemexp_strerror(error, why, sizeof(why)),
				    help_to_export(error)));
}

/* The memory of GStreamer around a new export, of which it gets the reference. */
static GstMemory *wrap(struct exporter *exporter, struct vmemexp_buf *buf, gsize size, gsize bytes)
{
	struct export *export = g_new0(struct export, 1);
	GstMemory *dmabuf;

	g_atomic_ref_count_inc(&exporter->refs);
	export->exporter = exporter;
	export->buf = buf;
	export->bytes = bytes;
	/* The descriptor stays the library's, which closes it with the export. */
	dmabuf = gst_dmabuf_allocator_alloc_with_flags(exporter->allocator, vmemexp_buf_fd(buf),
						       vmemexp_buf_size(buf),
						       GST_FD_MEMORY_FLAG_DONT_CLOSE |
						       GST_FD_MEMORY_FLAG_KEEP_MAPPED);
	gst_mini_object_set_qdata(GST_MINI_OBJECT_CAST(dmabuf), export_quark(), export,
				  free_export);
	gst_memory_resize(dmabuf, vmemexp_buf_offset(buf), size);
	return dmabuf;
}

static GstMemory *fail_unaligned(struct failure *failure, const void *addr, gsize size)
{
	return fail(failure, OUTCOME_UNALIGNED, GST_RESOURCE_ERROR_SETTINGS,
		    g_strdup_printf("%" G_GSIZE_FORMAT " bytes at %p are not whole pages; "
				    "unaligned=wrap exports the pages around them, for sinks that take an offset",
				    size, addr));
}

static GstMemory *fail_between(struct failure *failure, const struct iovec *range)
{
	return fail(failure, OUTCOME_UNALIGNED, GST_RESOURCE_ERROR_SETTINGS,
		    g_strdup_printf("%" G_GSIZE_FORMAT " bytes at %p are not whole pages; "
				    "they have to be where memories meet in one dma-buf",
				    range->iov_len, range->iov_base));
}

static gboolean is_at_page(const void *addr)
{
	return !((guintptr)addr % page_size());
}

static const guint8 *end_of(const struct iovec *range)
{
	return (const guint8 *)range->iov_base + range->iov_len;
}

static gsize size_of(GstMemory *const *mems, guint nr)
{
	gsize size = 0;

	while (nr--)
		size += gst_memory_get_sizes(mems[nr], NULL, NULL);
	return size;
}

/* Writes where memories are, of which those that follow one another are one range. */
static guint ranges_of(const GstMapInfo *maps, guint nr, struct iovec *ranges)
{
	guint i, nr_ranges = 0;

	for (i = 0; i < nr; i++) {
		if (nr_ranges && end_of(&ranges[nr_ranges - 1]) == maps[i].data) {
			ranges[nr_ranges - 1].iov_len += maps[i].size;
		} else {
			ranges[nr_ranges].iov_base = maps[i].data;
			ranges[nr_ranges++].iov_len = maps[i].size;
		}
	}
	return nr_ranges;
}

/* The first range that is not whole pages where it meets another one, or NULL. */
static const struct iovec *find_gap(const struct iovec *ranges, guint nr)
{
	guint i;

	for (i = 0; i < nr; i++)
		if ((i && !is_at_page(ranges[i].iov_base)) ||
		    (i < nr - 1 && !is_at_page(end_of(&ranges[i]))))
			return &ranges[i];
	return NULL;
}

/* Exports @size bytes in @nr ranges, behind which @room more belong to the same memory. */
static GstMemory *export_ranges(struct exporter *exporter, struct iovec *ranges, guint nr,
				gsize size, gsize room, struct failure *failure)
{
	gsize before = (guintptr)ranges->iov_base % page_size();
	gsize bytes = whole_pages(before + size);
	gboolean whole = !before && bytes - size <= room;
	gboolean round = exporter->flags & VMEMEXP_ROUND;
	const struct iovec *gap = find_gap(ranges, nr);
	struct vmemexp_error error;
	struct vmemexp_buf *buf;

	if (gap)
		return fail_between(failure, gap);
	if (!whole && !round)
		return fail_unaligned(failure, ranges->iov_base, size);
	if (!charge(exporter, bytes))
		return fail(failure, OUTCOME_LIMIT, GST_RESOURCE_ERROR_NO_SPACE_LEFT,
			    g_strdup_printf("no dma-buf of the frame: max-bytes is %"
					    G_GUINT64_FORMAT, exporter->max_bytes));
	if (whole)
		ranges[nr - 1].iov_len += bytes - size;
	if (vmemexp_exportv(exporter->device, ranges, nr, exporter->flags, &buf, &error, NULL)) {
		uncharge(exporter, bytes);
		return fail_export(failure, &error, nr);
	}
	/* A mapping of a dma-buf has the place in there that it is mapped from. */
	if (vmemexp_buf_offset(buf) && !round) {
		vmemexp_buf_unref(buf);
		uncharge(exporter, bytes);
		return fail_unaligned(failure, ranges->iov_base, size);
	}
	return wrap(exporter, buf, size, bytes);
}

static void unmap_all(GstMemory *const *mems, guint nr, GstMapInfo *maps)
{
	while (nr--)
		gst_memory_unmap(mems[nr], &maps[nr]);
}

static gboolean map_all(GstMemory *const *mems, guint nr, GstMapInfo *maps)
{
	guint i;

	for (i = 0; i < nr; i++) {
		if (!gst_memory_map(mems[i], &maps[i], GST_MAP_READ)) {
			unmap_all(mems, i, maps);
			return FALSE;
		}
	}
	return TRUE;
}

gboolean is_plain_memory(GstMemory *mem)
{
	return gst_is_fd_memory(mem) || gst_memory_is_type(mem, GST_ALLOCATOR_SYSMEM);
}

/* A GPU's memory gets there while it is mapped for the CPU: by a copy, for each frame. */
static gboolean fetch(GstMemory *const *mems, guint nr)
{
	GstMapInfo map;
	guint i;

	for (i = 0; i < nr; i++) {
		if (is_plain_memory(mems[i]))
			continue;
		if (!gst_memory_map(mems[i], &map, GST_MAP_READ))
			return FALSE;
		gst_memory_unmap(mems[i], &map);
	}
	return TRUE;
}

static GstMemory *export_memories(struct exporter *exporter, GstMemory *const *mems, guint nr,
				  struct failure *failure)
{
	struct iovec *ranges = g_newa(struct iovec, nr);
	GstMapInfo *maps = g_newa(GstMapInfo, nr);
	gsize last, offset, maxsize, size;
	GstMemory *dmabuf;

	if (!map_all(mems, nr, maps))
		return fail(failure, OUTCOME_REFUSED, GST_RESOURCE_ERROR_FAILED,
			    g_strdup("the CPU cannot map the memory of the frame"));
	last = gst_memory_get_sizes(mems[nr - 1], &offset, &maxsize);
	size = size_of(mems, nr);
	dmabuf = export_ranges(exporter, ranges, ranges_of(maps, nr, ranges), size,
			       maxsize - offset - last, failure);
	unmap_all(mems, nr, maps);
	return dmabuf;
}

/*
 * A source that allocates each frame has no export found again. The one that has been there
 * for longest is with the sink, if any is.
 */
static void look_at_oldest(struct exporter *exporter)
{
	struct vmemexp_query query;
	GstMemory *oldest = NULL;

	g_mutex_lock(&cache_lock);
	if (exporter->idle >= 0 && exporter->entries.head) {
		struct entry *entry = exporter->entries.head->data;

		oldest = gst_memory_ref(entry->dmabuf);
	}
	g_mutex_unlock(&cache_lock);
	if (!oldest)
		return;
	query.size = sizeof(query);
	if (!vmemexp_buf_query(export_of(oldest)->buf, &query))
		count_use(exporter, &query);
	gst_memory_unref(oldest);
}

GstMemory *exporter_get(struct exporter *exporter, GstMemory *const *mems, guint nr,
			enum outcome *outcome, struct failure *failure)
{
	GstMemory *dmabuf;

	*outcome = OUTCOME_REUSED;
	dmabuf = find(exporter, mems, nr);
	if (dmabuf && fetch(mems, nr) && refresh(exporter, dmabuf, size_of(mems, nr)))
		return dmabuf;
	if (dmabuf) {
		drop(exporter, mems, nr, dmabuf);
		gst_memory_unref(dmabuf);
	}
	look_at_oldest(exporter);
	*outcome = OUTCOME_EXPORTED;
	dmabuf = export_memories(exporter, mems, nr, failure);
	if (dmabuf)
		add(exporter, mems, nr, dmabuf);
	return dmabuf;
}

// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/**
 * SECTION:element-vmemexpupload
 * @title: vmemexpupload
 *
 * Turns the memory that a frame is in into a dma-buf, by /dev/vmemexp, and hands it on
 * without a copy, whatever has allocated it. Sinks and converters that import dma-bufs then
 * need no copy either.
 *
 * A frame that is in dma-bufs already passes unchanged, and so does everything while the device is
 * missing. Frames that cannot be exported where they are, because they are not whole pages, are
 * copied to memory that can.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 videotestsrc ! vmemexpupload ! v4l2sink device=/dev/video1 io-mode=dmabuf-import
 * ]| A driver that takes nothing but dma-bufs.
 * |[
 * gst-launch-1.0 filesrc location=frames.raw ! rawvideoparse width=640 height=480 !
 *     vmemexpupload unaligned=wrap ! kmssink
 * ]| A screen shows the memory that the file was read into.
 */
#include <gst/allocators/gstdmabuf.h>
#include <gst/video/gstvideometa.h>
#include <gst/video/gstvideopool.h>

#include "caps.h"
#include "copy.h"
#include "export.h"
#include "pages.h"
#include "upload.h"

GST_DEBUG_CATEGORY_STATIC(vmemexpupload);
#define GST_CAT_DEFAULT vmemexpupload

/* Most GPUs import rows that begin at a multiple of this. */
#define STRIDE_ALIGNMENT	256

enum unaligned { UNALIGNED_COPY, UNALIGNED_WRAP };
enum fallback { FALLBACK_AUTO, FALLBACK_PASS, FALLBACK_COPY, FALLBACK_ERROR };
enum planes { PLANES_AUTO, PLANES_ONE, PLANES_SPLIT };

enum { PROP_0, PROP_DEVICE, PROP_UNALIGNED, PROP_FALLBACK, PROP_CONTIGUOUS, PROP_PLANES,
	PROP_MAX_BYTES, PROP_STATS };

#define DEFAULT_DEVICE		"/dev/vmemexp"

#define PIECES								\
	"The last one is in %" G_GUINT64_FORMAT " pieces; a device without an "	\
	"IOMMU wants one, which contiguous=true may give"
#define NO_IMPORT							\
	"No device has imported a dma-buf so far: the sink may copy it, or work with the CPU. "	\
	PIECES
#define SINK_FAILED							\
	"The sink failed, and no device has imported a dma-buf so far. " PIECES

/**
 * struct stats - frames since the element was started, protected by the object's lock
 * @exported: in memory that had to be exported
 * @reused: in memory that had been exported before
 * @copied: copied to memory that can be exported; these are counted here alone
 * @passed: unchanged
 * @last_error: why a frame is not among the first two; NULL: none
 */
struct stats {
	guint64 exported, reused, copied, passed;
	char *last_error;
};

/**
 * struct _VmemexpUpload - the element
 * @device: property, like the five that follow; by the object's lock
 * @exporter: from start to stop; NULL if there is no device
 * @copier: of the streaming thread
 * @info: of the frames that come
 * @only_dmabuf: the caps behind it are those of dma-bufs, so that no other memory may pass
 * @offered: the pool that downstream has offered for the current caps, or NULL; by the
 *	object's lock
 * @is_warned: a warning has been on the bus since it was started
 * @handed_on: the first dma-buf of the frame that is on its way downstream, or NULL
 * @chain: the base class's function for what comes in
 * @stats: see there
 */
struct _VmemexpUpload {
	GstBaseTransform parent;

	char *device;
	enum unaligned unaligned;
	enum fallback fallback;
	gboolean contiguous;
	enum planes planes;
	guint64 max_bytes;

	struct exporter *exporter;
	struct copier copier;
	GstVideoInfo info;
	gboolean only_dmabuf;
	GstBufferPool *offered;
	gboolean is_warned;
	GstMemory *handed_on;
	GstPadChainFunction chain;
	struct stats stats;
};

G_DEFINE_TYPE(VmemexpUpload, vmemexp_upload, GST_TYPE_BASE_TRANSFORM)

static GstStaticPadTemplate sink_template =
	GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS,
				GST_STATIC_CAPS(VMEMEXP_CAPS));
static GstStaticPadTemplate src_template =
	GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
				GST_STATIC_CAPS(VMEMEXP_CAPS));

/* --- messages --- */

/* The reason of each failure is kept, and the first one is told on the bus. */
static void warn(VmemexpUpload *self, const char *what, struct failure *failure)
{
	gboolean first;

	GST_OBJECT_LOCK(self);
	first = !self->is_warned;
	self->is_warned = TRUE;
	g_free(self->stats.last_error);
	self->stats.last_error = g_strdup(failure->text);
	GST_OBJECT_UNLOCK(self);
	GST_LOG_OBJECT(self, "%s: %s", what, failure->text);
	if (first)
		gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_WARNING, GST_RESOURCE_ERROR,
					 failure->code,
					 g_strdup_printf("%s: %s", what, failure->text), NULL,
					 __FILE__, GST_FUNCTION, __LINE__);
	g_clear_pointer(&failure->text, g_free);
}

static void set_last_error(VmemexpUpload *self, const char *text)
{
	GST_OBJECT_LOCK(self);
	g_free(self->stats.last_error);
	self->stats.last_error = g_strdup(text);
	GST_OBJECT_UNLOCK(self);
}

static void stop_with_error(VmemexpUpload *self, struct failure *failure)
{
	set_last_error(self, failure->text);
	gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_ERROR, GST_RESOURCE_ERROR,
				 failure->code, g_steal_pointer(&failure->text), NULL, __FILE__,
				 GST_FUNCTION, __LINE__);
}

static void count(VmemexpUpload *self, guint64 *counter)
{
	GST_OBJECT_LOCK(self);
	++*counter;
	GST_OBJECT_UNLOCK(self);
}

/*
 * Only the sink sees a refused import, and it may copy without a word. gst-launch shows the second
 * of the two texts.
 */
static void tell_of_no_import(VmemexpUpload *self)
{
	guint64 nr_extents;

	if (exporter_is_unused(self->exporter, &nr_extents))
		GST_ELEMENT_INFO(self, RESOURCE, FAILED,
				 (NO_IMPORT, nr_extents), (NO_IMPORT, nr_extents));
}

/* Or it may fail without a word, as v4l2sink does. */
static void tell_of_failed_sink(VmemexpUpload *self, GstMemory *dmabuf)
{
	guint64 nr_extents;
	char *text;

	if (!exporter_has_no_import(self->exporter, dmabuf, &nr_extents))
		return;
	text = g_strdup_printf(SINK_FAILED, nr_extents);
	set_last_error(self, text);
	gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_WARNING, GST_RESOURCE_ERROR,
				 GST_RESOURCE_ERROR_FAILED, text, NULL, __FILE__, GST_FUNCTION,
				 __LINE__);
}

/* --- start and stop --- */

static gboolean start(GstBaseTransform *base)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(base);
	struct failure failure = { .text = NULL };
	unsigned int flags = 0;

	GST_OBJECT_LOCK(self);
	self->is_warned = FALSE;
	g_free(self->stats.last_error);
	self->stats = (struct stats) { .last_error = NULL };
	GST_OBJECT_UNLOCK(self);
	if (self->contiguous)
		flags |= VMEMEXP_CONTIGUOUS;
	if (self->unaligned == UNALIGNED_WRAP)
		flags |= VMEMEXP_ROUND;
	page_allocator_set_contiguous(self->copier.allocator, self->contiguous);
	self->exporter = exporter_new(self->device, flags, self->max_bytes, &failure);
	gst_base_transform_set_passthrough(base, !self->exporter);
	if (self->exporter)
		return TRUE;
	if (self->fallback == FALLBACK_COPY || self->fallback == FALLBACK_ERROR) {
		stop_with_error(self, &failure);
		return FALSE;
	}
	warn(self, "Frames pass as they are", &failure);
	return TRUE;
}

static void set_offer(VmemexpUpload *self, GstBufferPool *offered)
{
	GST_OBJECT_LOCK(self);
	gst_object_replace((GstObject **)&self->offered, (GstObject *)offered);
	GST_OBJECT_UNLOCK(self);
}

static gboolean stop(GstBaseTransform *base)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(base);

	copier_stop(&self->copier);
	set_offer(self, NULL);
	if (self->exporter) {
		exporter_forget(self->exporter);
		exporter_unref(self->exporter);
		self->exporter = NULL;
	}
	GST_INFO_OBJECT(self, "exported %" G_GUINT64_FORMAT ", reused %" G_GUINT64_FORMAT
			", copied %" G_GUINT64_FORMAT ", passed %" G_GUINT64_FORMAT,
			self->stats.exported, self->stats.reused, self->stats.copied,
			self->stats.passed);
	return TRUE;
}

/* --- caps and allocation --- */

static GstCaps *transform_caps(GstBaseTransform *base, GstPadDirection direction, GstCaps *caps,
			       GstCaps *filter)
{
	GstCaps *others, *all;

	/* Without the device nothing can become a dma-buf. */
	if (gst_base_transform_is_passthrough(base))
		all = gst_caps_ref(caps);
	else
		all = caps_of_other_side(direction, caps);
	if (!filter)
		return all;
	others = gst_caps_intersect_full(filter, all, GST_CAPS_INTERSECT_FIRST);
	gst_caps_unref(all);
	return others;
}

static gboolean set_caps(GstBaseTransform *base, GstCaps *in, GstCaps *out)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(base);

	self->only_dmabuf = caps_are_dmabuf(out);
	set_offer(self, NULL);
	gst_video_info_init(&self->info);
	/* Caps of dma-bufs say nothing of planes, and such a frame passes. */
	return caps_are_dmabuf(in) || gst_video_info_from_caps(&self->info, in);
}

/* It has no use for a pool of its own between its input and its output. */
static gboolean decide_allocation(GstBaseTransform *base, GstQuery *query)
{
	(void)base;
	while (gst_query_get_n_allocation_pools(query))
		gst_query_remove_nth_allocation_pool(query, 0);
	return TRUE;
}

/* Asks downstream, whose answer to other caps helps upstream with its metas alone. */
static void ask_downstream(GstBaseTransform *base, GstCaps *caps, GstQuery *query)
{
	GstCaps *out = gst_pad_get_current_caps(base->srcpad);
	GstQuery *own;
	guint i;

	if (!out || gst_caps_is_equal(out, caps)) {
		gst_pad_peer_query(base->srcpad, query);
	} else {
		own = gst_query_new_allocation(out, FALSE);
		gst_pad_peer_query(base->srcpad, own);
		for (i = 0; i < gst_query_get_n_allocation_metas(own); i++) {
			const GstStructure *params;
			GType api = gst_query_parse_nth_allocation_meta(own, i, &params);

			gst_query_add_allocation_meta(query, api, params);
		}
		gst_query_unref(own);
	}
	gst_clear_caps(&out);
}

/* Unless another element decides how memory is allocated, it is to be whole pages. */
static void propose_allocator(VmemexpUpload *self, GstQuery *query, gsize align)
{
	GstAllocator *allocator = NULL;
	GstAllocationParams params;

	gst_allocation_params_init(&params);
	if (!gst_query_get_n_allocation_params(query))
		gst_query_add_allocation_param(query, NULL, &params);
	gst_query_parse_nth_allocation_param(query, 0, &allocator, &params);
	if (!allocator) {
		params.align |= align;
		gst_query_set_nth_allocation_param(query, 0, self->copier.allocator, &params);
	}
	gst_clear_object(&allocator);
}

/* Other strides than usual need a meta that says so. */
static void align_strides(GstStructure *config)
{
	GstVideoAlignment alignment;
	guint i;

	gst_video_alignment_reset(&alignment);
	for (i = 0; i < GST_VIDEO_MAX_PLANES; i++)
		alignment.stride_align[i] = STRIDE_ALIGNMENT - 1;
	gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
	gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
	gst_buffer_pool_config_set_video_alignment(config, &alignment);
}

/* @size: of a buffer at least, @min and @max: how many buffers, as downstream asks for */
static gboolean propose_pool(VmemexpUpload *self, GstQuery *query, GstCaps *caps, guint size,
			     guint min, guint max, gboolean align)
{
	gboolean has_meta = gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
	GstBufferPool *pool = gst_video_buffer_pool_new();
	GstStructure *config = gst_buffer_pool_get_config(pool);
	GstAllocationParams params;
	GstVideoInfo info;

	if (!gst_video_info_from_caps(&info, caps)) {
		gst_structure_free(config);
		gst_object_unref(pool);
		return FALSE;
	}
	gst_allocation_params_init(&params);
	gst_buffer_pool_config_set_params(config, caps, MAX(size, info.size), min, max);
	gst_buffer_pool_config_set_allocator(config, self->copier.allocator, &params);
	if (has_meta && align)
		align_strides(config);
	if (gst_buffer_pool_set_config(pool, config)) {
		/* With these strides it may be larger. */
		config = gst_buffer_pool_get_config(pool);
		gst_buffer_pool_config_get_params(config, NULL, &size, NULL, NULL);
		gst_structure_free(config);
		gst_query_add_allocation_pool(query, pool, size, min, max);
	}
	gst_object_unref(pool);
	return TRUE;
}

/* Has the pool nothing but what malloc() gives? An element that uses the CPU offers such. */
static gboolean is_ordinary(GstBufferPool *pool)
{
	GstStructure *config = gst_buffer_pool_get_config(pool);
	GstAllocator *allocator = NULL;
	gboolean ordinary;

	gst_buffer_pool_config_get_allocator(config, &allocator, NULL);
	ordinary = (!allocator || !g_strcmp0(allocator->mem_type, GST_ALLOCATOR_SYSMEM)) &&
		   (G_OBJECT_TYPE(pool) == GST_TYPE_BUFFER_POOL ||
		    G_OBJECT_TYPE(pool) == GST_TYPE_VIDEO_BUFFER_POOL);
	gst_structure_free(config);
	return ordinary;
}

/* The pool that downstream offers, for the caller to unref, or NULL. */
static GstBufferPool *offered_pool(GstQuery *query)
{
	GstBufferPool *pool = NULL;

	if (gst_query_get_n_allocation_pools(query))
		gst_query_parse_nth_allocation_pool(query, 0, &pool, NULL, NULL, NULL);
	return pool;
}

/* In place of @theirs, one of whole pages, with the strides that downstream asks for. */
static gboolean replace_pool(VmemexpUpload *self, GstQuery *query, GstBufferPool *theirs)
{
	GstStructure *config = gst_buffer_pool_get_config(theirs);
	GstBufferPool *pool = gst_video_buffer_pool_new();
	GstAllocationParams params;
	guint size, min, max;
	gboolean done;

	gst_query_parse_nth_allocation_pool(query, 0, NULL, &size, &min, &max);
	gst_buffer_pool_config_get_allocator(config, NULL, &params);
	gst_buffer_pool_config_set_allocator(config, self->copier.allocator, &params);
	done = gst_buffer_pool_set_config(pool, config);
	if (done)
		gst_query_set_nth_allocation_pool(query, 0, pool, size, min, max);
	gst_object_unref(pool);
	return done;
}

/* A pool of a device's memory is the best that there is, whether it has dma-bufs or not. */
static gboolean propose_allocation(GstBaseTransform *base, GstQuery *decide_query, GstQuery *query)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(base);
	gboolean need_pool, ordinary, done, sized;
	guint size = 0, min = 0, max = 0;
	GstBufferPool *pool;
	GstCaps *caps;

	if (!self->exporter)
		return GST_BASE_TRANSFORM_CLASS(vmemexp_upload_parent_class)
			->propose_allocation(base, decide_query, query);
	gst_query_parse_allocation(query, &caps, &need_pool);
	if (!caps)
		return FALSE;
	/* Frames that are in dma-bufs already are no business of this element. */
	if (caps_are_dmabuf(caps))
		return gst_pad_peer_query(base->srcpad, query);
	ask_downstream(base, caps, query);
	pool = offered_pool(query);
	ordinary = pool && is_ordinary(pool);
	set_offer(self, ordinary ? NULL : pool);
	GST_DEBUG_OBJECT(self, "downstream offers %" GST_PTR_FORMAT, pool);
	if (pool) {
		done = !ordinary || replace_pool(self, query, pool);
		if (done && ordinary)
			propose_allocator(self, query, 0);
		gst_object_unref(pool);
		if (done)
			return TRUE;
	}
	/* v4l2sink names a size alone, and refuses dma-bufs with other strides than usual. */
	sized = gst_query_get_n_allocation_pools(query);
	if (sized)
		gst_query_parse_nth_allocation_pool(query, 0, NULL, &size, &min, &max);
	while (gst_query_get_n_allocation_pools(query))
		gst_query_remove_nth_allocation_pool(query, 0);
	propose_allocator(self, query, sized ? 0 : STRIDE_ALIGNMENT - 1);
	if (need_pool)
		return propose_pool(self, query, caps, size, min, max, !sized);
	/* A tee asks for the numbers alone. */
	if (sized)
		gst_query_add_allocation_pool(query, NULL, size, min, max);
	return TRUE;
}

/* --- frames --- */

/* The pieces of a frame that has one memory for each plane, or FALSE. */
static gboolean pieces_of_planes(VmemexpUpload *self, GstBuffer *in, struct piece *pieces,
				 guint *nr)
{
	GstVideoMeta *meta = gst_buffer_get_video_meta(in);
	const gsize *offsets = meta ? meta->offset : self->info.offset;
	guint i, n_planes = meta ? meta->n_planes : GST_VIDEO_INFO_N_PLANES(&self->info);
	gsize end = gst_buffer_get_size(in);

	if (offsets[0])
		return FALSE;
	for (i = n_planes; i-- > 0; end = offsets[i]) {
		if (offsets[i] >= end)
			return FALSE;
		pieces[i].offset = offsets[i];
		pieces[i].size = end - offsets[i];
	}
	*nr = n_planes;
	return TRUE;
}

/* Finds the pieces in which the frame is copied. */
static guint pieces_to_copy(VmemexpUpload *self, GstBuffer *in, struct piece *pieces)
{
	guint nr;

	if (self->planes == PLANES_SPLIT && pieces_of_planes(self, in, pieces, &nr))
		return nr;
	pieces[0].offset = 0;
	pieces[0].size = gst_buffer_get_size(in);
	return 1;
}

/* A part of its memory can be exported by itself if it begins with a page. */
static gboolean append_parts(GstBuffer *parts, GstMemory *mem, const struct piece *pieces, guint nr)
{
	guint i;

	if (GST_MEMORY_FLAG_IS_SET(mem, GST_MEMORY_FLAG_NO_SHARE))
		return FALSE;
	for (i = 0; i < nr; i++) {
		if (pieces[i].offset % page_size())
			return FALSE;
		gst_buffer_append_memory(parts, gst_memory_share(mem, pieces[i].offset,
								 pieces[i].size));
	}
	return TRUE;
}

/* Has each of the pieces a memory of its own? */
static gboolean is_memory_for_each(GstBuffer *in, const struct piece *pieces, guint nr)
{
	guint i;

	if (gst_buffer_n_memory(in) != nr)
		return FALSE;
	for (i = 0; i < nr; i++)
		if (gst_memory_get_sizes(gst_buffer_peek_memory(in, i), NULL, NULL) !=
		    pieces[i].size)
			return FALSE;
	return TRUE;
}

/* The memories to export of a frame, where it is, in a buffer, or NULL. */
static GstBuffer *lay_out(VmemexpUpload *self, GstBuffer *in)
{
	guint nr, nr_memories = gst_buffer_n_memory(in);
	struct piece pieces[GST_VIDEO_MAX_PLANES];
	GstBuffer *parts;

	if (self->planes != PLANES_SPLIT)
		return gst_buffer_ref(in);
	if (!pieces_of_planes(self, in, pieces, &nr))
		return NULL;
	if (is_memory_for_each(in, pieces, nr))
		return gst_buffer_ref(in);
	parts = gst_buffer_new();
	if (nr_memories != 1 || !append_parts(parts, gst_buffer_peek_memory(in, 0), pieces, nr))
		gst_clear_buffer(&parts);
	return parts;
}

/* Does a plane begin there, in the bytes of the frame? */
static gboolean is_begin_of_plane(VmemexpUpload *self, GstBuffer *in, gsize at)
{
	GstVideoMeta *meta = gst_buffer_get_video_meta(in);
	const gsize *offsets = meta ? meta->offset : self->info.offset;
	guint i, n_planes = meta ? meta->n_planes : GST_VIDEO_INFO_N_PLANES(&self->info);

	for (i = 0; i < n_planes; i++)
		if (offsets[i] == at)
			return TRUE;
	return FALSE;
}

/*
 * Is the frame to be in one dma-buf? The meta that it gets has those who map a plane look
 * for all of it in the memory that it begins in.
 */
static gboolean is_to_be_one(VmemexpUpload *self, GstBuffer *in)
{
	guint i, nr = gst_buffer_n_memory(in);
	gsize at = 0;

	if (self->planes == PLANES_SPLIT)
		return FALSE;
	for (i = 1; i < nr && self->planes == PLANES_AUTO; i++) {
		at += gst_memory_get_sizes(gst_buffer_peek_memory(in, i - 1), NULL, NULL);
		if (!is_begin_of_plane(self, in, at))
			return TRUE;
	}
	return self->planes == PLANES_ONE;
}

/* Has this element the frame for itself? A decoder or another branch of a tee may hold it, too. */
static gboolean is_writable(GstBuffer *frame)
{
	guint i;

	if (!gst_buffer_is_writable(frame))
		return FALSE;
	for (i = 0; i < gst_buffer_n_memory(frame); i++) {
		GstMemory *mem = gst_buffer_peek_memory(frame, i);

		if (GST_MEMORY_IS_READONLY(mem) || !gst_memory_is_writable(mem))
			return FALSE;
	}
	return TRUE;
}

/*
 * Elements behind this one write to a frame that they have for themselves. The dma-buf is the
 * memory of the incoming frame, so it may be written where that one may. Elements copy what is
 * read-only. The flag of a dma-buf that another frame has still changes to read-only alone.
 */
static void set_writable(GstMemory *dmabuf, gboolean writable)
{
	if (writable && GST_MEMORY_IS_READONLY(dmabuf))
		GST_MINI_OBJECT_FLAG_UNSET(dmabuf, GST_MEMORY_FLAG_READONLY);
	else if (!writable && !GST_MEMORY_IS_READONLY(dmabuf))
		GST_MINI_OBJECT_FLAG_SET(dmabuf, GST_MEMORY_FLAG_READONLY);
}

/* A dma-buf of @nr memories of @from, or NULL. *@outcome changes if it is new. */
static GstMemory *export_of(VmemexpUpload *self, GstBuffer *from, guint first, guint nr,
			    enum outcome *outcome, struct failure *failure)
{
	GstMemory **mems = g_newa(GstMemory *, nr);
	enum outcome one;
	GstMemory *dmabuf;
	guint i;

	for (i = 0; i < nr; i++)
		mems[i] = gst_buffer_peek_memory(from, first + i);
	dmabuf = exporter_get(self->exporter, mems, nr, &one, failure);
	if (dmabuf && one == OUTCOME_EXPORTED)
		*outcome = one;
	return dmabuf;
}

/*
 * Appends the dma-bufs of the memories of @from, of @nr each, as @writable as the frame is.
 * *@outcome changes if one is new.
 */
static gboolean append_exports(VmemexpUpload *self, GstBuffer *out, GstBuffer *from, guint nr,
			       gboolean writable, enum outcome *outcome, struct failure *failure)
{
	guint i, nr_memories = gst_buffer_n_memory(from);

	for (i = 0; i < nr_memories; i += nr) {
		GstMemory *dmabuf = export_of(self, from, i, nr, outcome, failure);

		if (!dmabuf)
			return FALSE;
		set_writable(dmabuf, writable);
		gst_buffer_append_memory(out, dmabuf);
	}
	return TRUE;
}

static void add_video_meta(VmemexpUpload *self, GstBuffer *out, GstBuffer *in)
{
	GstVideoMeta *meta = gst_buffer_get_video_meta(in), *added;
	GstVideoInfo *info = &self->info;

	if (!meta) {
		gst_buffer_add_video_meta_full(out, GST_VIDEO_FRAME_FLAG_NONE,
					       GST_VIDEO_INFO_FORMAT(info),
					       GST_VIDEO_INFO_WIDTH(info),
					       GST_VIDEO_INFO_HEIGHT(info),
					       GST_VIDEO_INFO_N_PLANES(info), info->offset,
					       info->stride);
		return;
	}
	added = gst_buffer_add_video_meta_full(out, meta->flags, meta->format, meta->width,
					       meta->height, meta->n_planes, meta->offset,
					       meta->stride);
	gst_video_meta_set_alignment(added, meta->alignment);
}

/* All that is known of the frame but its memory. */
static void copy_metadata(VmemexpUpload *self, GstBuffer *out, GstBuffer *in)
{
	gst_buffer_copy_into(out, in, GST_BUFFER_COPY_FLAGS | GST_BUFFER_COPY_TIMESTAMPS |
			     GST_BUFFER_COPY_META, 0, -1);
	add_video_meta(self, out, in);
}

static GstBuffer *export_in_place(VmemexpUpload *self, GstBuffer *in, struct failure *failure)
{
	guint nr = is_to_be_one(self, in) ? gst_buffer_n_memory(in) : 1;
	/* Before there are more references. */
	gboolean writable = is_writable(in);
	GstBuffer *parts = lay_out(self, in), *out;
	enum outcome outcome = OUTCOME_REUSED;

	if (!parts) {
		failure->outcome = OUTCOME_LAYOUT;
		failure->code = GST_RESOURCE_ERROR_SETTINGS;
		failure->text = g_strdup("the planes are not in memory as planes= wants them");
		return NULL;
	}
	out = gst_buffer_new();
	if (append_exports(self, out, parts, nr, writable, &outcome, failure)) {
		copy_metadata(self, out, in);
		gst_buffer_add_parent_buffer_meta(out, in);
		count(self, outcome == OUTCOME_EXPORTED ? &self->stats.exported :
							  &self->stats.reused);
	} else {
		gst_clear_buffer(&out);
	}
	gst_buffer_unref(parts);
	return out;
}

static GstBuffer *export_copy(VmemexpUpload *self, GstBuffer *in, struct failure *failure)
{
	GstBuffer *copies[GST_VIDEO_MAX_PLANES], *out = gst_buffer_new();
	struct piece pieces[GST_VIDEO_MAX_PLANES];
	guint i, nr = pieces_to_copy(self, in, pieces);
	enum outcome outcome;
	gboolean exported = TRUE;

	if (!copier_copy(&self->copier, in, pieces, nr, copies)) {
		failure->outcome = OUTCOME_LIMIT;
		failure->code = GST_RESOURCE_ERROR_FAILED;
		failure->text = g_strdup("the frame cannot be copied");
		gst_buffer_unref(out);
		return NULL;
	}
	for (i = 0; i < nr && exported; i++)
		exported = append_exports(self, out, copies[i], 1, TRUE, &outcome, failure);
	copy_metadata(self, out, in);
	for (i = 0; i < nr; i++) {
		gst_buffer_add_parent_buffer_meta(out, copies[i]);
		gst_buffer_unref(copies[i]);
	}
	if (exported)
		count(self, &self->stats.copied);
	else
		gst_clear_buffer(&out);
	return out;
}

static gboolean is_other_memory(GstBuffer *in, gboolean (*is_type)(GstMemory *))
{
	guint i;

	for (i = 0; i < gst_buffer_n_memory(in); i++)
		if (!is_type(gst_buffer_peek_memory(in, i)))
			return TRUE;
	return FALSE;
}

/* True of dma-bufs, of what is the sink's own, and of frames without a picture. */
static gboolean passes(VmemexpUpload *self, GstBuffer *in)
{
	gboolean offered;

	if (!self->exporter || !gst_buffer_get_size(in) ||
	    !is_other_memory(in, gst_is_dmabuf_memory))
		return TRUE;
	GST_OBJECT_LOCK(self);
	offered = in->pool && in->pool == self->offered;
	GST_OBJECT_UNLOCK(self);
	/* A wl_shm pool has files in memory, from which a dma-buf is the better thing to have. */
	return offered && is_other_memory(in, is_plain_memory);
}

/* Will a copy do where the memory itself does not? */
static gboolean is_to_copy(VmemexpUpload *self, const struct failure *failure)
{
	switch (failure->outcome) {
	case OUTCOME_UNALIGNED:
	case OUTCOME_LAYOUT:
	case OUTCOME_APART:
		return TRUE;
	case OUTCOME_REFUSED:
		return self->fallback == FALLBACK_AUTO || self->fallback == FALLBACK_COPY;
	default:
		return self->fallback == FALLBACK_COPY;
	}
}

static gboolean may_pass(VmemexpUpload *self)
{
	return !self->only_dmabuf &&
	       (self->fallback == FALLBACK_AUTO || self->fallback == FALLBACK_PASS);
}

/* A buffer with the frame in dma-bufs, or the frame as it is, or NULL after an error. */
static GstBuffer *upload(VmemexpUpload *self, GstBuffer *in)
{
	struct failure failure = { .text = NULL };
	GstBuffer *out = export_in_place(self, in, &failure);

	if (!out && is_to_copy(self, &failure)) {
		struct failure first = failure;

		out = export_copy(self, in, &failure);
		/* Planes that are asked for otherwise are no fault. */
		if (out && first.outcome != OUTCOME_LAYOUT)
			warn(self, "Frames are copied", &first);
		g_free(first.text);
	}
	if (!out && may_pass(self)) {
		warn(self, "Frames pass as they are", &failure);
		count(self, &self->stats.passed);
		return gst_buffer_ref(in);
	}
	if (!out)
		stop_with_error(self, &failure);
	return out;
}

static GstFlowReturn generate_output(GstBaseTransform *base, GstBuffer **out)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(base);
	GstBuffer *in = g_steal_pointer(&base->queued_buf);

	*out = NULL;
	if (!in)
		return GST_FLOW_OK;
	if (passes(self, in)) {
		count(self, &self->stats.passed);
		*out = in;
		return GST_FLOW_OK;
	}
	*out = upload(self, in);
	if (*out && *out != in)
		self->handed_on = gst_memory_ref(gst_buffer_peek_memory(*out, 0));
	gst_buffer_unref(in);
	tell_of_no_import(self);
	return *out ? GST_FLOW_OK : GST_FLOW_ERROR;
}

/* The base class has generate_output() called, and hands on what that gives. */
static GstFlowReturn chain(GstPad *pad, GstObject *parent, GstBuffer *in)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(parent);
	GstFlowReturn ret = self->chain(pad, parent, in);
	GstMemory *dmabuf = g_steal_pointer(&self->handed_on);

	if (dmabuf && ret == GST_FLOW_ERROR)
		tell_of_failed_sink(self, dmabuf);
	if (dmabuf)
		gst_memory_unref(dmabuf);
	return ret;
}

/* --- properties --- */

/* With the object's lock. */
static GstStructure *stats_of(VmemexpUpload *self)
{
	return gst_structure_new("application/x-vmemexpupload-stats",
				 "exported", G_TYPE_UINT64, self->stats.exported,
				 "reused", G_TYPE_UINT64, self->stats.reused,
				 "copied", G_TYPE_UINT64, self->stats.copied,
				 "passed", G_TYPE_UINT64, self->stats.passed,
				 "last-error", G_TYPE_STRING, self->stats.last_error, NULL);
}

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(object);

	GST_OBJECT_LOCK(self);
	switch (id) {
	case PROP_DEVICE:
		g_free(self->device);
		self->device = g_value_dup_string(value);
		break;
	case PROP_UNALIGNED:
		self->unaligned = g_value_get_enum(value);
		break;
	case PROP_FALLBACK:
		self->fallback = g_value_get_enum(value);
		break;
	case PROP_CONTIGUOUS:
		self->contiguous = g_value_get_boolean(value);
		break;
	case PROP_PLANES:
		self->planes = g_value_get_enum(value);
		break;
	case PROP_MAX_BYTES:
		self->max_bytes = g_value_get_uint64(value);
		break;
	default:
		G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
	}
	GST_OBJECT_UNLOCK(self);
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(object);

	GST_OBJECT_LOCK(self);
	switch (id) {
	case PROP_DEVICE:
		g_value_set_string(value, self->device);
		break;
	case PROP_UNALIGNED:
		g_value_set_enum(value, self->unaligned);
		break;
	case PROP_FALLBACK:
		g_value_set_enum(value, self->fallback);
		break;
	case PROP_CONTIGUOUS:
		g_value_set_boolean(value, self->contiguous);
		break;
	case PROP_PLANES:
		g_value_set_enum(value, self->planes);
		break;
	case PROP_MAX_BYTES:
		g_value_set_uint64(value, self->max_bytes);
		break;
	case PROP_STATS:
		g_value_take_boxed(value, stats_of(self));
		break;
	default:
		G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
	}
	GST_OBJECT_UNLOCK(self);
}

static void finalize(GObject *object)
{
	VmemexpUpload *self = VMEMEXP_UPLOAD(object);

	gst_object_unref(self->copier.allocator);
	g_free(self->stats.last_error);
	g_free(self->device);
	G_OBJECT_CLASS(vmemexp_upload_parent_class)->finalize(object);
}

static GType unaligned_type(void)
{
	static const GEnumValue values[] = {
		{ UNALIGNED_COPY, "Copy them to memory that is whole pages", "copy" },
		{ UNALIGNED_WRAP, "Export the pages around them, and hand on the offset in there",
		  "wrap" },
		{ 0, NULL, NULL },
	};
	static GType type;

	if (g_once_init_enter(&type))
		g_once_init_leave(&type, g_enum_register_static("VmemexpUploadUnaligned", values));
	return type;
}

static GType fallback_type(void)
{
	static const GEnumValue values[] = {
		{ FALLBACK_AUTO, "Copy them where that helps, else pass them as they are", "auto" },
		{ FALLBACK_PASS, "Pass them as they are", "pass" },
		{ FALLBACK_COPY, "Copy them, and stop with an error if that does not help either",
		  "copy" },
		{ FALLBACK_ERROR, "Stop with an error", "error" },
		{ 0, NULL, NULL },
	};
	static GType type;

	if (g_once_init_enter(&type))
		g_once_init_leave(&type, g_enum_register_static("VmemexpUploadFallback", values));
	return type;
}

static GType planes_type(void)
{
	static const GEnumValue values[] = {
		{ PLANES_AUTO, "As many dma-bufs as memories, or one if a plane is in several",
		  "auto" },
		{ PLANES_ONE, "One dma-buf with all planes", "one" },
		{ PLANES_SPLIT, "A dma-buf for each plane", "split" },
		{ 0, NULL, NULL },
	};
	static GType type;

	if (g_once_init_enter(&type))
		g_once_init_leave(&type, g_enum_register_static("VmemexpUploadPlanes", values));
	return type;
}

static void install(GObjectClass *class, guint id, GParamSpec *spec)
{
	g_object_class_install_property(class, id, spec);
}

static void install_properties(GObjectClass *class)
{
	GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY;

	install(class, PROP_DEVICE,
		g_param_spec_string("device", "Device", "Device node of vmemexp", DEFAULT_DEVICE,
				    flags));
	install(class, PROP_UNALIGNED,
		g_param_spec_enum("unaligned", "Unaligned", "Frames that are not whole pages",
				  unaligned_type(), UNALIGNED_COPY, flags));
	install(class, PROP_FALLBACK,
		g_param_spec_enum("fallback", "Fallback", "Frames that cannot be exported",
				  fallback_type(), FALLBACK_AUTO, flags));
	install(class, PROP_CONTIGUOUS,
		g_param_spec_boolean("contiguous", "Contiguous",
				     "Refuse memory that is not one physical piece", FALSE, flags));
	install(class, PROP_PLANES,
		g_param_spec_enum("planes", "Planes", "Number of dma-bufs of a frame",
				  planes_type(), PLANES_AUTO, flags));
	install(class, PROP_MAX_BYTES,
		g_param_spec_uint64("max-bytes", "Maximum bytes",
				    "Bytes that may be exported at a time (0: any number)", 0,
				    G_MAXUINT64, 0, flags));
	install(class, PROP_STATS,
		g_param_spec_boxed("stats", "Statistics",
				   "Frames exported, reused, copied, passed, and the last-error",
				   GST_TYPE_STRUCTURE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS));
}

static void vmemexp_upload_class_init(VmemexpUploadClass *class)
{
	GstBaseTransformClass *base_class = GST_BASE_TRANSFORM_CLASS(class);
	GstElementClass *element_class = GST_ELEMENT_CLASS(class);
	GObjectClass *object_class = G_OBJECT_CLASS(class);

	GST_DEBUG_CATEGORY_INIT(vmemexpupload, "vmemexpupload", 0, "frames as dma-bufs by vmemexp");

	object_class->set_property = set_property;
	object_class->get_property = get_property;
	object_class->finalize = finalize;
	install_properties(object_class);
	gst_type_mark_as_plugin_api(unaligned_type(), 0);
	gst_type_mark_as_plugin_api(fallback_type(), 0);
	gst_type_mark_as_plugin_api(planes_type(), 0);

	gst_element_class_add_static_pad_template(element_class, &sink_template);
	gst_element_class_add_static_pad_template(element_class, &src_template);
	gst_element_class_set_static_metadata(element_class, "vmemexp uploader", "Filter/Video",
					      "Turns the memory of frames into dma-bufs without a copy",
					      "vmemexp developers <vmemexp@example.org>");

	base_class->start = start;
	base_class->stop = stop;
	base_class->transform_caps = transform_caps;
	base_class->set_caps = set_caps;
	base_class->decide_allocation = decide_allocation;
	base_class->propose_allocation = propose_allocation;
	base_class->generate_output = generate_output;
	base_class->passthrough_on_same_caps = FALSE;
}

static void vmemexp_upload_init(VmemexpUpload *self)
{
	self->device = g_strdup(DEFAULT_DEVICE);
	self->copier.allocator = page_allocator_new();
	gst_video_info_init(&self->info);
	self->chain = GST_PAD_CHAINFUNC(GST_BASE_TRANSFORM(self)->sinkpad);
	gst_pad_set_chain_function(GST_BASE_TRANSFORM(self)->sinkpad, chain);
	/* The base class takes an element without transform() for one that changes nothing. */
	gst_base_transform_set_in_place(GST_BASE_TRANSFORM(self), FALSE);
	gst_base_transform_set_passthrough(GST_BASE_TRANSFORM(self), FALSE);
}

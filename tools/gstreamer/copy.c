// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* Copies of frames, in memory that can be exported. */
#include "copy.h"

static void stop_pool(GstBufferPool **pool)
{
	if (!*pool)
		return;
	gst_buffer_pool_set_active(*pool, FALSE);
	gst_clear_object(pool);
}

void copier_stop(struct copier *copier)
{
	guint i;

	for (i = 0; i < G_N_ELEMENTS(copier->pools); i++)
		stop_pool(&copier->pools[i]);
}

static GstBufferPool *start_pool(GstAllocator *allocator, gsize size)
{
	GstBufferPool *pool = gst_buffer_pool_new();
	GstStructure *config = gst_buffer_pool_get_config(pool);
	GstAllocationParams params;

	gst_allocation_params_init(&params);
	gst_buffer_pool_config_set_params(config, NULL, size, 0, 0);
	gst_buffer_pool_config_set_allocator(config, allocator, &params);
	if (!gst_buffer_pool_set_config(pool, config) || !gst_buffer_pool_set_active(pool, TRUE))
		gst_clear_object(&pool);
	return pool;
}

static GstBuffer *acquire(struct copier *copier, guint nr, gsize size)
{
	GstBuffer *buffer = NULL;

	if (copier->pools[nr] && copier->sizes[nr] != size)
		stop_pool(&copier->pools[nr]);
	if (!copier->pools[nr])
		copier->pools[nr] = start_pool(copier->allocator, size);
	copier->sizes[nr] = size;
	if (copier->pools[nr])
		gst_buffer_pool_acquire_buffer(copier->pools[nr], &buffer, NULL);
	return buffer;
}

/* Where GStreamer's own elements tell of their copies. */
static GstDebugCategory *performance(void)
{
	static GstDebugCategory *category;

	if (!category)
		GST_DEBUG_CATEGORY_GET(category, "GST_PERFORMANCE");
	return category;
}

static gboolean copy_piece(GstBuffer *to, GstBuffer *from, const struct piece *piece)
{
	gsize copied;
	GstMapInfo map;

	if (!gst_buffer_map(to, &map, GST_MAP_WRITE))
		return FALSE;
	GST_CAT_DEBUG(performance(), "vmemexpupload: copying %" G_GSIZE_FORMAT " bytes",
		      piece->size);
	copied = gst_buffer_extract(from, piece->offset, map.data, piece->size);
	gst_buffer_unmap(to, &map);
	return copied == piece->size;
}

gboolean copier_copy(struct copier *copier, GstBuffer *in, const struct piece *pieces, guint nr,
		     GstBuffer **copies)
{
	guint i;

	for (i = 0; i < nr; i++) {
		copies[i] = acquire(copier, i, pieces[i].size);
		if (copies[i] && copy_piece(copies[i], in, &pieces[i]))
			continue;
		gst_clear_buffer(&copies[i]);
		while (i--)
			gst_buffer_unref(copies[i]);
		return FALSE;
	}
	return TRUE;
}

// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* Copies of frames, in memory that can be exported. */
#include "copy.h"
#include "export.h"

void copier_params(GstAllocationParams *params)
{
	gst_allocation_params_init(params);
	params->align = page_size() - 1;
	params->padding = page_size() - 1;
}

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

static GstBufferPool *start_pool(gsize size)
{
	GstBufferPool *pool = gst_buffer_pool_new();
	GstStructure *config = gst_buffer_pool_get_config(pool);
	GstAllocationParams params;

	copier_params(&params);
	gst_buffer_pool_config_set_params(config, NULL, size, 0, 0);
	gst_buffer_pool_config_set_allocator(config, NULL, &params);
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
		copier->pools[nr] = start_pool(size);
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
	GST_CAT_DEBUG(performance(), "vmemexpupload: copying %" G_GSIZE_FORMAT " bytes", piece->size);
	copied = gst_buffer_extract(from, piece->offset, map.data, piece->size);
	gst_buffer_unmap(to, &map);
	return copied == piece->size;
}

GstBuffer *copier_copy(struct copier *copier, GstBuffer *in, const struct piece *pieces, guint nr)
{
	GstBuffer *copy = gst_buffer_new();
	guint i;

	for (i = 0; i < nr; i++) {
		GstBuffer *buffer = acquire(copier, i, pieces[i].size);

		if (!buffer || !copy_piece(buffer, in, &pieces[i])) {
			gst_clear_buffer(&buffer);
			gst_buffer_unref(copy);
			return NULL;
		}
		gst_buffer_append_memory(copy, gst_buffer_get_memory(buffer, 0));
		gst_buffer_add_parent_buffer_meta(copy, buffer);
		gst_buffer_unref(buffer);
	}
	return copy;
}

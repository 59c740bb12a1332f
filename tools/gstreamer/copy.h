/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/* Copies of frames, in memory that can be exported. */
#ifndef VMEMEXP_GST_COPY_H
#define VMEMEXP_GST_COPY_H

#include <gst/video/video.h>

/* A part of a frame that gets a memory of its own. */
struct piece {
	gsize offset;
	gsize size;
};

/**
 * struct copier - where frames are copied to
 * @pools: one for each piece, which give the same memory again and again
 * @sizes: of what they give
 */
struct copier {
	GstBufferPool *pools[GST_VIDEO_MAX_PLANES];
	gsize sizes[GST_VIDEO_MAX_PLANES];
};

/* Memory that starts with a page and owns all of the last one. */
void copier_params(GstAllocationParams *params);

/*
 * A buffer with the memory of the @nr pieces of @in and nothing else, or NULL. It holds
 * those of the pools, which get their memory back with it.
 */
GstBuffer *copier_copy(struct copier *copier, GstBuffer *in, const struct piece *pieces, guint nr);

void copier_stop(struct copier *copier);

#endif /* VMEMEXP_GST_COPY_H */

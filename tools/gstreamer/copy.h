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
 * @allocator: of memory that can be exported
 * @pools: one for each piece, which give the same memory again and again
 * @sizes: of what they give
 */
struct copier {
	GstAllocator *allocator;
	GstBufferPool *pools[GST_VIDEO_MAX_PLANES];
	gsize sizes[GST_VIDEO_MAX_PLANES];
};

/*
 * Copies the @nr pieces of @in to a buffer each, which the pools get back with its last
 * reference. Return false, and no buffers, if that cannot be done.
 */
gboolean copier_copy(struct copier *copier, GstBuffer *in, const struct piece *pieces, guint nr,
		     GstBuffer **copies);

void copier_stop(struct copier *copier);

#endif /* VMEMEXP_GST_COPY_H */

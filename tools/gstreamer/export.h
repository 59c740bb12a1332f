/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/* Memory of GStreamer as dma-bufs, and the exports that are found again. */
#ifndef VMEMEXP_GST_EXPORT_H
#define VMEMEXP_GST_EXPORT_H

#include <gst/gst.h>
#include <libvmemexp.h>

/**
 * enum outcome - what became of memory that was to be a dma-buf
 * @OUTCOME_EXPORTED: there is a dma-buf of it now
 * @OUTCOME_REUSED: there was one, and it shows what was written since
 * @OUTCOME_UNALIGNED: it is not whole pages
 * @OUTCOME_LAYOUT: its planes lie otherwise than they were asked for
 * @OUTCOME_APART: its memories cannot be one dma-buf, as they were asked to be
 * @OUTCOME_REFUSED: other memory may do
 * @OUTCOME_LIMIT: other memory will not do either, for now
 */
enum outcome {
	OUTCOME_EXPORTED,
	OUTCOME_REUSED,
	OUTCOME_UNALIGNED,
	OUTCOME_LAYOUT,
	OUTCOME_APART,
	OUTCOME_REFUSED,
	OUTCOME_LIMIT,
};

/**
 * struct failure - why there is no dma-buf
 * @outcome: none of the first two
 * @code: for the message on the bus
 * @text: a sentence on the reason and on what helps, or NULL
 */
struct failure {
	enum outcome outcome;
	GstResourceError code;
	char *text;
};

struct exporter;

/* Is it in memory of the system from the start, and not only where it is mapped? */
gboolean is_plain_memory(GstMemory *mem);

/* @device is NULL for the usual one; @max_bytes is 0 for any number. */
struct exporter *exporter_new(const char *device, unsigned int flags, guint64 max_bytes,
			      struct failure *failure);
void exporter_unref(struct exporter *exporter);

/* Drops the exports that would be found again. Those that a sink holds live on. */
void exporter_forget(struct exporter *exporter);

/* The bytes that are pinned by what this exporter has exported. */
guint64 exporter_pinned(struct exporter *exporter);

/*
 * True, once, if what was exported has been handed on often and no device has ever been
 * seen to import it. @nr_extents gets the number of pieces of the last one.
 */
gboolean exporter_is_unused(struct exporter *exporter, guint64 *nr_extents);

/*
 * True if no device has imported @dmabuf, or has ever been seen to import one. @nr_extents
 * gets the number of its pieces.
 */
gboolean exporter_has_no_import(struct exporter *exporter, GstMemory *dmabuf, guint64 *nr_extents);

/*
 * A dma-buf with the bytes of the @nr memories, one after the other, for the caller to unref,
 * or NULL with @failure. It is kept with the memories, or what they are parts of, until the
 * first of them is freed.
 */
GstMemory *exporter_get(struct exporter *exporter, GstMemory *const *mems, guint nr,
			enum outcome *outcome, struct failure *failure);

#endif /* VMEMEXP_GST_EXPORT_H */

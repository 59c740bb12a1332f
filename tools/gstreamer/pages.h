/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/* Memory of whole pages. */
#ifndef VMEMEXP_GST_PAGES_H
#define VMEMEXP_GST_PAGES_H

#include <gst/gst.h>

gsize page_size(void);

/* @length rounded up to whole pages. */
gsize whole_pages(gsize length);

/* The allocator of memory that begins with a page and owns all of its last one. */
GstAllocator *page_allocator_new(void);

/*
 * From now on memory that fits into a huge page is in one, and so physically in one piece,
 * if the kernel has one to spare. It takes all of that page.
 */
void page_allocator_set_contiguous(GstAllocator *allocator, gboolean contiguous);

#endif /* VMEMEXP_GST_PAGES_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/* The caps of both sides. */
#ifndef VMEMEXP_GST_CAPS_H
#define VMEMEXP_GST_CAPS_H

#include <gst/video/video.h>

/* From 1.24 on there are caps for dma-bufs that say what a DRM driver calls the format. */
#define HAVE_DMA_DRM	GST_CHECK_VERSION(1, 24, 0)

#if HAVE_DMA_DRM
#define VMEMEXP_CAPS	GST_VIDEO_CAPS_MAKE(GST_VIDEO_FORMATS_ALL) ";" GST_VIDEO_DMA_DRM_CAPS_MAKE
#else
#define VMEMEXP_CAPS	GST_VIDEO_CAPS_MAKE(GST_VIDEO_FORMATS_ALL)
#endif

/* Returns what the other side can be if this one is @caps: in system memory rather than not. */
GstCaps *caps_of_other_side(GstPadDirection direction, GstCaps *caps);

/* True of caps that only dma-bufs have. */
gboolean caps_are_dmabuf(GstCaps *caps);

#endif /* VMEMEXP_GST_CAPS_H */

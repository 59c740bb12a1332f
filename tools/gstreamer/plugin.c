// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* The plugin for GStreamer: one element. */
#include "upload.h"

static gboolean plugin_init(GstPlugin *plugin)
{
	return gst_element_register(plugin, "vmemexpupload", GST_RANK_NONE, VMEMEXP_TYPE_UPLOAD);
}

#define PACKAGE	"vmemexp"

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, vmemexp,
		  "Memory of a program as dma-bufs, by way of /dev/vmemexp", plugin_init, VERSION,
		  "LGPL", PACKAGE, "https://example.org/vmemexp")

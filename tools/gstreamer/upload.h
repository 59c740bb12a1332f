/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/* The element vmemexpupload. */
#ifndef VMEMEXP_GST_UPLOAD_H
#define VMEMEXP_GST_UPLOAD_H

#include <gst/base/gstbasetransform.h>

#define VMEMEXP_TYPE_UPLOAD	(vmemexp_upload_get_type())
G_DECLARE_FINAL_TYPE(VmemexpUpload, vmemexp_upload, VMEMEXP, UPLOAD, GstBaseTransform)

#endif /* VMEMEXP_GST_UPLOAD_H */

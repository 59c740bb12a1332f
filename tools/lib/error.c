// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* libvmemexp: what went wrong, in words. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

/* The address that the reason is about goes where %#llx stands, if it does. */
static const char * const reasons[] = {
	[VMEMEXP_REASON_FLAGS] = "the flags are wrong",
	[VMEMEXP_REASON_LENGTH] = "the length is zero or too large for memory at %#llx",
	[VMEMEXP_REASON_ALIGNMENT] = "%#llx is not a multiple of the page size",
	[VMEMEXP_REASON_LIMIT] = "it would exceed RLIMIT_MEMLOCK at %#llx",
	[VMEMEXP_REASON_NOT_MAPPED] = "%#llx is not mapped",
	[VMEMEXP_REASON_NOT_READABLE] = "%#llx is not readable",
	[VMEMEXP_REASON_NOT_WRITABLE] =
		"%#llx is not writable, only a read-only export is possible",
	[VMEMEXP_REASON_KIND] =
		"the kind of memory at %#llx may not be exported, or not for writing",
	[VMEMEXP_REASON_PFNMAP] = "%#llx is memory of a driver that is not listed in carveouts=",
	[VMEMEXP_REASON_NO_BACKING] =
		"no page can be had at %#llx: beyond the end of the file, or no room for it",
	[VMEMEXP_REASON_UNPINNABLE] = "the kernel refuses to pin %#llx",
	[VMEMEXP_REASON_NOT_CONTIGUOUS] =
		"the memory is not physically contiguous, it breaks at %#llx",
	[VMEMEXP_REASON_RAM] =
		"%#llx is memory of the kernel that a driver mapped, not listed in carveouts=",
	[VMEMEXP_REASON_MIXED] =
		"memory of another nature begins at %#llx, it wants an export of its own",
	[VMEMEXP_REASON_PRIVATE] =
		"%#llx is a private mapping of a driver's memory, use a shared one",
	[VMEMEXP_REASON_CHANGED] = "the mapping at %#llx changes at this moment",
	[VMEMEXP_REASON_ACCESS] = "%#llx is a mapping of a dma-buf that has another access mode",
	[VMEMEXP_REASON_PARTIAL] =
		"%#llx is a mapping of a part of a dma-buf, of which you have no descriptor",
	[VMEMEXP_REASON_QUOTA] = "you have as many buffers as the driver's max_buffers= allows",
	[VMEMEXP_REASON_POISONED] = "the memory at %#llx is broken",
	[VMEMEXP_REASON_ENCRYPTED] =
		"%#llx is memory of a driver, and this machine encrypts its memory",
	[VMEMEXP_REASON_RANGES] = "the list of ranges is empty, too long, or not one",
};

const char *vmemexp_strerror(const struct vmemexp_error *err, char *text, size_t size)
{
	char why[128];

	if (!size)
		return "";
	if (err->reason < ARRAY_SIZE(reasons) && reasons[err->reason])
		snprintf(text, size, reasons[err->reason], (unsigned long long)err->addr);
	/* So a driver answers that does not know a field. */
	else if (err->err == E2BIG)
		snprintf(text, size, "the driver is too old for several ranges in one dma-buf");
	/* Not strerror(), which threads share. */
	else if (strerror_r(err->err, why, sizeof(why)))
		snprintf(text, size, "error %d", err->err);
	else
		snprintf(text, size, "%s", why);
	return text;
}

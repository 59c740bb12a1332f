/* SPDX-License-Identifier: GPL-2.0 */
/* TI's vmemexp, as its programs declare it in a header of their own. */
#ifndef VMEMEXP_TEST_TI_H
#define VMEMEXP_TEST_TI_H

#include <linux/ioctl.h>

struct dmabuf_vmem_export {
	unsigned long vaddr;
	unsigned long size;
	int fd;
};

enum { CACHE_INVALIDATE, CACHE_WRITEBACK };

struct dmabuf_cache_flush {
	int fd;
	int op;
};

#define DBUFIOC_EXPORT_VIRTMEM	_IOWR(0xDB, 0xD0, struct dmabuf_vmem_export)
#define DBUFIOC_CACHE_SYNC	_IOWR(0xDB, 0xD0, struct dmabuf_cache_flush)

#endif /* VMEMEXP_TEST_TI_H */

/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ioctl interface of /dev/vmemexp-parts, a stand-in for exporters of dma-bufs whose
 * mappings can be pinned and grown, for tests.
 *
 * errno, in the order of the checks:
 *	ENOTTY		unknown ioctl number
 *	EFAULT		the argument is not accessible
 *	EINVAL		@vaddr is no page's, or @pages is 0 or more than PARTS_MAX
 *	ENOMEM		there is no memory
 *	EFAULT		the pages cannot be pinned
 *	EMFILE		there is no free file descriptor
 */
#ifndef _VMEMEXP_PARTS_H
#define _VMEMEXP_PARTS_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define PARTS_PATH		"/dev/vmemexp-parts"

#define PARTS_MAX		512

/**
 * struct parts_create - argument of PARTS_IOC_CREATE
 * @vaddr: in: where the pages begin in the calling program
 * @pages: in: how many
 * @fd: out: a dma-buf of them, open for reading and writing, closed on exec
 */
struct parts_create {
	__u64 vaddr;
	__u32 pages;
	__s32 fd;
};

#define PARTS_IOC_CREATE	_IOWR('p', 0xe0, struct parts_create)

#endif /* _VMEMEXP_PARTS_H */

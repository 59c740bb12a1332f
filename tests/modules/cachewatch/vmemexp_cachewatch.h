/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ioctl interface of /dev/vmemexp-cachewatch, which records for tests what the
 * kernel's functions for cache maintenance are asked to do.
 *
 * An open file is a watch. It records the calls that its opener's thread causes between START and
 * STOP, and no others: none of interrupts, none of other tasks. read() gives the records from the
 * first one on, all of them at once.
 *
 * errno, in the order of the checks:
 *	ENOENT		open(): the kernel has no function of that name ...
 *	EINVAL		... or it cannot be probed
 *	ENOTTY		unknown ioctl number
 *	EBUSY		read(): there was no STOP yet
 *	EOVERFLOW	read(): there were more than CACHEWATCH_MAX_RECORDS
 *	EMSGSIZE	read(): there are more than fit
 *	EFAULT		read(): the caller's buffer is not accessible
 */
#ifndef _VMEMEXP_CACHEWATCH_H
#define _VMEMEXP_CACHEWATCH_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define CACHEWATCH_PATH		"/dev/vmemexp-cachewatch"

#define CACHEWATCH_MAX_RECORDS	32768

/* By the DMA API, which names physical addresses in the linear map. */
#define CACHEWATCH_FOR_DEVICE	0	/* arch_sync_dma_for_device() */
#define CACHEWATCH_FOR_CPU	1	/* arch_sync_dma_for_cpu() */
/* By kernel address, up to the point of coherency. */
#define CACHEWATCH_CLEAN	2	/* written back (amd64) */
#define CACHEWATCH_FLUSH	3	/* written back, then forgotten */
#define CACHEWATCH_NR_OPS	4

/* The kernel address led to more than one physical range, or to none. */
#define CACHEWATCH_NOWHERE	(~0ULL)

/* The kernel address is not one of the linear map, nor a temporary mapping. */
#define CACHEWATCH_VMALLOC	0x1

/**
 * struct cachewatch_record - one call
 * @phys: physical address of the first byte; what was named by a kernel address
 *	is looked up at the moment of the call
 * @size: number of bytes
 * @op: CACHEWATCH_FOR_DEVICE, ...
 * @direction: of CACHEWATCH_FOR_*, as enum dma_data_direction has them, else 0
 * @flags: CACHEWATCH_VMALLOC
 * @reserved: 0
 */
struct cachewatch_record {
	__aligned_u64 phys;
	__aligned_u64 size;
	__u32 op;
	__u32 direction;
	__u32 flags;
	__u32 reserved;
};

#define CACHEWATCH_MAGIC	0xea

/* Forget what was recorded, and watch the caller from now on. */
#define CACHEWATCH_IOC_START	_IO(CACHEWATCH_MAGIC, 0x00)
#define CACHEWATCH_IOC_STOP	_IO(CACHEWATCH_MAGIC, 0x01)

#endif /* _VMEMEXP_CACHEWATCH_H */

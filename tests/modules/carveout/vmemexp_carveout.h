/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ioctl interface of /dev/vmemexp-carveout, a stand-in for the drivers that map
 * carve-outs of other processors, for tests.
 *
 * The module owns physical ranges that the kernel does not use (parameter ranges=base:size,...;
 * reserved by memmap= on amd64, by a reserved-memory node on arm and arm64) and one block of pages
 * that it allocates itself. An open file says with SETUP what its mmap() maps, and how; the file's
 * offset counts from the start of the region.
 *
 * errno, in the order of the checks:
 *	ENOTTY		unknown ioctl number
 *	EFAULT		the argument, or the caller's buffer, is not accessible
 *	EINVAL		a field has an unknown value, or a reserved one is not zero
 *	ENXIO		there is no such region; mmap(), TAKE_AWAY: no SETUP yet
 *	EINVAL		offset and length reach outside of the region; mmap(): it
 *			is private and writable, with another way than HOW_REMAP,
 *			or not of whole eight page frames, with CARVEOUT_SWAPPED
 *	EOPNOTSUPP	CARVEOUT_HOW_PAGES for a region without struct page; on
 *			arm, also for one that is not System RAM.
 *			CARVEOUT_HOW_HUGE: the kernel has no huge entries for page
 *			frames (it has them from Linux 6.12 on, with transparent huge
 *			pages, on amd64 and arm64)
 *	EBUSY		SETUP: it has been done, or other open files (or mappings
 *			that hold them) have the region cached in another way
 */
#ifndef _VMEMEXP_CARVEOUT_H
#define _VMEMEXP_CARVEOUT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define CARVEOUT_PATH		"/dev/vmemexp-carveout"

/* Regions 0, 1, ... are those of ranges=; this one is allocated by the module. */
#define CARVEOUT_REGION_RAM	0xffffffffU

/* How the mapping is cached. */
#define CARVEOUT_CACHED		1
#define CARVEOUT_WRITECOMBINE	2
#define CARVEOUT_UNCACHED	3

/* How it comes into being. */
#define CARVEOUT_HOW_REMAP	0	/* page frames, at mmap(): VM_PFNMAP */
#define CARVEOUT_HOW_FAULT	1	/* page frames, one by one as they are touched */
#define CARVEOUT_HOW_PAGES	2	/* refcounted pages, at mmap(): VM_MIXEDMAP */
#define CARVEOUT_HOW_MIXED	3	/* page frames where pages may be: VM_MIXEDMAP */
/*
 * As HOW_FAULT, but by one entry of the page middle directory (2 MiB with small pages of
 * 4 KiB) where address, offset in memory, and the mapping's end allow it.
 */
#define CARVEOUT_HOW_HUGE	4

/* Write accesses are refused although the mapping has PROT_WRITE (HOW_FAULT). */
#define CARVEOUT_READ_ONLY	0x1
/*
 * At fault number @nr_faults + 1 (HOW_FAULT), one of two things happens: it and all later ones are
 * refused ...
 */
#define CARVEOUT_THEN_REFUSE	0x2
/* ... or all pages mapped so far are taken away, and it and others succeed. */
#define CARVEOUT_THEN_TAKE_AWAY	0x4
/*
 * The driver is told of the first write to each page, as those of frame buffers with
 * deferred I/O are, and pages come as they are touched (HOW_PAGES, HOW_FAULT). With
 * HOW_FAULT, such a write counts as a fault.
 */
#define CARVEOUT_TRACKED	0x8
/* In each eight page frames, the last four come before the first four (HOW_FAULT). */
#define CARVEOUT_SWAPPED	0x10

/**
 * struct carveout_setup - argument of CARVEOUT_IOC_SETUP
 * @region: in: number of the region, or CARVEOUT_REGION_RAM
 * @cache: in: CARVEOUT_CACHED, _WRITECOMBINE or _UNCACHED
 * @how: in: CARVEOUT_HOW_*
 * @flags: in: CARVEOUT_READ_ONLY, CARVEOUT_THEN_*, CARVEOUT_TRACKED, CARVEOUT_SWAPPED
 * @nr_faults: in: faults that are served before a CARVEOUT_THEN_*, else 0
 * @reserved: in: must be 0
 */
struct carveout_setup {
	__u32 region;
	__u32 cache;
	__u32 how;
	__u32 flags;
	__u32 nr_faults;
	__u32 reserved;
};

/**
 * struct carveout_info - argument of CARVEOUT_IOC_INFO
 * @region: in: number of the region, or CARVEOUT_REGION_RAM
 * @flags: out: CARVEOUT_INFO_*
 * @base: out: physical address of its first byte
 * @size: out: bytes in it
 */
struct carveout_info {
	__u32 region;
	__u32 flags;
	__aligned_u64 base;
	__aligned_u64 size;
};

/* Every page frame of the region has a struct page. */
#define CARVEOUT_INFO_PAGES	0x1
/* It lies in what the kernel calls System RAM. */
#define CARVEOUT_INFO_RAM	0x2
/* A part of it does. */
#define CARVEOUT_INFO_MIXED	0x4

/**
 * struct carveout_transfer - argument of CARVEOUT_IOC_READ and _WRITE
 * @region: in: number of the region, or CARVEOUT_REGION_RAM
 * @reserved: in: must be 0
 * @offset: in: first byte in the region
 * @length: in: number of bytes
 * @user_ptr: in: address of the caller's buffer
 *
 * The access of the other processor: past the CPUs' caches where the region
 * lies outside of System RAM (on amd64 nothing needs to go past them).
 */
struct carveout_transfer {
	__u32 region;
	__u32 reserved;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 user_ptr;
};

#define CARVEOUT_MAGIC		0xe8

#define CARVEOUT_IOC_SETUP	_IOW(CARVEOUT_MAGIC, 0x00, struct carveout_setup)
#define CARVEOUT_IOC_INFO	_IOWR(CARVEOUT_MAGIC, 0x01, struct carveout_info)
#define CARVEOUT_IOC_READ	_IOW(CARVEOUT_MAGIC, 0x02, struct carveout_transfer)
#define CARVEOUT_IOC_WRITE	_IOW(CARVEOUT_MAGIC, 0x03, struct carveout_transfer)
/* Unmaps the file's pages from every mapping; what is touched then is SIGBUS. */
#define CARVEOUT_IOC_TAKE_AWAY	_IO(CARVEOUT_MAGIC, 0x04)

#endif /* _VMEMEXP_CARVEOUT_H */

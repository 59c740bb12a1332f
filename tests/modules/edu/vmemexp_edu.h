/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ioctl interface of /dev/vmemexp-edu, a dma-buf importer for tests that has a
 * real DMA engine: QEMU's PCI device "edu".
 *
 * One open file is one session, and a session holds at most one attachment of
 * one device to one dma-buf; open the node again for the second device. A device
 * serves one session at a time. Each ioctl makes one step and the session holds
 * it until the opposite ioctl drops it:
 *
 *	ATTACH ... DETACH	everything below needs the attachment
 *	  MAP ... UNMAP		READ and WRITE in between
 *
 * close() drops whatever is still held, in the right order.
 *
 * The device has no more than 4 KiB of memory, which only its DMA engine
 * reaches, and takes 100 ms for each transfer. So READ and WRITE go by chunks of
 * at most EDU_CHUNK bytes, none across the border of a DMA segment; each chunk
 * is two transfers: between the mapping and the device, and between the device
 * and memory of this driver's own.
 *
 * errno, the same for every ioctl, in the order of the checks:
 *	ENOTTY		unknown ioctl number
 *	EFAULT		the argument is not accessible
 *	EINVAL		a field has an unknown value, or a reserved one is not zero
 *	ENXIO		the step that this one builds on is not held; ATTACH: QEMU
 *			was given no such device
 *	EBUSY		the step is held already, or one that builds on it is;
 *			ATTACH: another session has the device
 *	EPERM		EDU_UNCHECKED without an IOMMU that would stop the device,
 *			or without CAP_SYS_RAWIO
 *	EINVAL		offset and length reach outside of the mapping
 *	EACCES		the mapping's direction does not allow it
 *	EFAULT		the caller's buffer is not accessible
 *	ETIMEDOUT	the device does not come to an end; DETACH resets it
 *	EIO		it has not been reset since; ATTACH: the kernel has no way
 *			to serve a device with so few address bits
 *	EINTR		a fatal signal during a long transfer
 *	ENOMEM		as ever
 * Anything else was answered by the exporter or by the dma-buf core and is
 * handed on as it was. A failed ioctl leaves the session as it was, but READ and
 * WRITE may have transferred some chunks.
 */
#ifndef _VMEMEXP_EDU_H
#define _VMEMEXP_EDU_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define EDU_PATH	"/dev/vmemexp-edu"

/* As many devices are served, in the order of their places on the PCI bus. */
#define EDU_MAX_DEVICES	2

#define EDU_CHUNK	2048

/* Directions, as enum dma_data_direction has them. */
#define EDU_BIDIRECTIONAL	0
#define EDU_TO_DEVICE		1
#define EDU_FROM_DEVICE		2

/**
 * struct edu_attach - argument of EDU_IOC_ATTACH
 * @dmabuf_fd: in: file descriptor of the dma-buf; EBADF if it is none,
 *	EINVAL if it is one of another kind
 * @device: in: number of the device, from 0 on
 * @address_bits: in: the device's DMA mask in bits, or 0 for the most that it can have: 64, or 32
 *	under a 32-bit kernel, which cannot write more of an address into the device in one piece.
 *	QEMU's dma_mask= may be more, but not less: the device ignores address bits outside of that.
 * @reserved: in: must be 0
 */
struct edu_attach {
	__u32 dmabuf_fd;
	__u32 device;
	__u32 address_bits;
	__u32 reserved;
};

/**
 * struct edu_direction - argument of EDU_IOC_MAP
 * @direction: in: EDU_BIDIRECTIONAL, _TO_DEVICE or _FROM_DEVICE
 * @reserved: in: must be 0
 */
struct edu_direction {
	__u32 direction;
	__u32 reserved;
};

/*
 * The transfer goes to the DMA address of the mapping's first byte plus @offset
 * (which wraps around, so it may be negative), wherever that is, and in spite of
 * the mapping's direction: what a broken device would do. After UNMAP the address
 * is that of the last mapping.
 */
#define EDU_UNCHECKED		0x1

/**
 * struct edu_transfer - argument of EDU_IOC_READ and EDU_IOC_WRITE
 * @offset: in: first byte, counted over the DMA segments one after the other
 * @length: in: number of bytes; 0 only checks the state and @offset
 * @user_ptr: in: address of the caller's buffer
 * @flags: in: EDU_UNCHECKED
 * @reserved: in: must be 0
 */
struct edu_transfer {
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 user_ptr;
	__u32 flags;
	__u32 reserved;
};

/* An IOMMU translates the device's addresses and stops what is not mapped. */
#define EDU_INFO_IOMMU		0x1
/* The device does not snoop the CPUs' caches. */
#define EDU_INFO_NONCOHERENT	0x2
/* The session has the dma-buf mapped. */
#define EDU_INFO_MAPPED		0x4

/**
 * struct edu_info - argument of EDU_IOC_INFO
 * @flags: out: EDU_INFO_*
 * @address_bits: out: the DMA mask in bits
 * @nents: out: number of DMA segments, 0 while not mapped
 * @reserved: out: 0
 * @dma_size: out: sum of the DMA segments in bytes
 * @max_segment: out: length of the largest DMA segment in bytes
 */
struct edu_info {
	__u32 flags;
	__u32 address_bits;
	__u32 nents;
	__u32 reserved;
	__aligned_u64 dma_size;
	__aligned_u64 max_segment;
};

#define EDU_MAGIC		0xe9

#define EDU_IOC_ATTACH		_IOW(EDU_MAGIC, 0x00, struct edu_attach)
#define EDU_IOC_DETACH		_IO(EDU_MAGIC, 0x01)
#define EDU_IOC_MAP		_IOW(EDU_MAGIC, 0x02, struct edu_direction)
#define EDU_IOC_UNMAP		_IO(EDU_MAGIC, 0x03)
/*
 * The device reads memory into the caller's buffer, or writes the caller's
 * buffer to memory, by DMA at the addresses of the mapping.
 */
#define EDU_IOC_READ		_IOW(EDU_MAGIC, 0x04, struct edu_transfer)
#define EDU_IOC_WRITE		_IOW(EDU_MAGIC, 0x05, struct edu_transfer)
#define EDU_IOC_INFO		_IOR(EDU_MAGIC, 0x06, struct edu_info)

#endif /* _VMEMEXP_EDU_H */

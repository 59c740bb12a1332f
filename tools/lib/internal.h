/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/* Declarations that the files of libvmemexp share. */
#ifndef LIBVMEMEXP_INTERNAL_H
#define LIBVMEMEXP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "libvmemexp.h"

/* The static library has no symbol map that would hide them. */
#define HIDDEN	__attribute__((visibility("hidden")))

/*
 * How often the driver is asked again after EAGAIN. One call finds that the mappings
 * change if another thread is at work on them at that moment: a few are enough for the
 * thread that stops, and no number is for one that does not.
 */
#define MAX_TRIES	16

/**
 * struct vmemexp - an open device
 * @refs: one of the program, until vmemexp_close(), and one of each buffer
 * @fd: of the device, never changed
 * @lock: protects @cached and *@own, and the @next_cached of all buffers
 * @cached: buffers that vmemexp_get() finds, each with a reference; a list, because what
 *	is asked of it costs a system call for the one that is found
 * @own: 1 if @cached is about addresses of this process; the kernel makes it 0 in a child of
 *	fork(). A process ID would not do: a child in another PID namespace may have the same.
 */
struct vmemexp {
	atomic_uint refs;
	int fd;
	pthread_mutex_t lock;
	struct vmemexp_buf *cached;
	char *own;
};

/* The state of a buffer between vmemexp_begin() and vmemexp_end(). */
enum access_state { ACCESS_NONE, ACCESS_CHANGES, ACCESS_OPEN };

/**
 * struct vmemexp_buf - an export
 * @refs: references; all below but @access and @next_cached is never changed
 * @v: the device, to which this is a reference
 * @addr: first byte of the (first) exported range
 * @length: bytes in it, or in all; more than an address space has if ranges overlap
 * @flags: VMEMEXP_RDONLY and so on
 * @fd: the dma-buf
 * @memory: VMEMEXP_MEMORY_* bits
 * @offset: of @addr in the dma-buf
 * @size: bytes in the dma-buf
 * @access: an enum access_state; who sets it to ACCESS_CHANGES owns the two that follow
 * @access_flags: of vmemexp_begin()
 * @access_area: of vmemexp_begin(), counted from the first byte of the dma-buf
 * @next_cached: of @v's list
 */
struct vmemexp_buf {
	atomic_uint refs;
	struct vmemexp *v;
	uintptr_t addr;
	uint64_t length;
	unsigned int flags;
	int fd;
	uint32_t memory;
	uint64_t offset;
	uint64_t size;
	atomic_int access;
	unsigned int access_flags;
	struct vmemexp_area access_area;
	struct vmemexp_buf *next_cached;
};

/* Sets errno and @err, and is -1. */
HIDDEN int vmemexp_fail(struct vmemexp_error *err, int error, uint32_t reason, uint64_t addr);

/* ioctl() that is called again after a signal. */
HIDDEN int vmemexp_ioctl(int fd, unsigned long request, void *argument);

HIDDEN void vmemexp_unref(struct vmemexp *v);

#endif /* LIBVMEMEXP_INTERNAL_H */

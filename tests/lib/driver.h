/* SPDX-License-Identifier: GPL-2.0 */
/* The ioctls of /dev/vmemexp. Calls return 0 or a negative errno. */
#ifndef VMEMEXP_TEST_DRIVER_H
#define VMEMEXP_TEST_DRIVER_H

#include <stdint.h>
#include <stddef.h>

#include "../../include/uapi/vmemexp.h"

#define VMEMEXP_PATH	"/dev/vmemexp"
#define VMEMEXP_ALLOW	"/sys/module/vmemexp/parameters/allow"
#define VMEMEXP_CARVEOUTS "/sys/module/vmemexp/parameters/carveouts"
#define VMEMEXP_WITHOUT_PAGES "/sys/module/vmemexp/parameters/map_without_pages"
#define VMEMEXP_WITHOUT_VMAP "/sys/module/vmemexp/parameters/map_without_vmap"

/* Every output field holds it before a call. */
#define POISON_BYTE	0xcc

int _test_ioctl(int fd, unsigned long request, void *arg);
/* The request that every variation starts from; all outputs are poisoned. */
struct vmemexp_export
export_args(const volatile void *vaddr, size_t length, unsigned int fd_flags);
/* The same for a list of ranges, which must live as long as the call. */
struct vmemexp_export
list_args(const struct vmemexp_range *ranges, unsigned int nr, unsigned int fd_flags);
/* Where the first range of @cmd begins, and how long all of them are. */
struct vmemexp_range asked_range(const struct vmemexp_export *cmd);
struct vmemexp_sync sync_args(int dmabuf, unsigned int flags, uint64_t offset, uint64_t length);
struct vmemexp_query query_args(int dmabuf);
/* The number that an administrator knows the dma-buf by; 0 if it is no file. */
uint64_t inode_of(int dmabuf);
struct vmemexp_revoke revoke_args(int dmabuf);
int _test_sync(int fd, int dmabuf, unsigned int flags, uint64_t offset, uint64_t length);
int _test_sync_rows(int fd, int dmabuf, unsigned int flags, uint64_t offset, uint64_t length,
		    uint64_t stride, unsigned int rows);
/* DMA_BUF_IOCTL_SYNC; the flags are DMA_BUF_SYNC_*. */
int _test_dmabuf_sync(int dmabuf, uint64_t flags);
/* One of a list. */
struct vmemexp_range range_of(const volatile void *vaddr, size_t length);

#endif /* VMEMEXP_TEST_DRIVER_H */

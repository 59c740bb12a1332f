// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <linux/dma-buf.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "driver.h"
#include "memory.h"

int _test_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

struct vmemexp_export
export_args(const volatile void *vaddr, size_t length, unsigned int fd_flags)
{
	struct vmemexp_export cmd;

	memset(&cmd, POISON_BYTE, sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.flags = 0;
	cmd.reserved = 0;
	cmd.vaddr = to_u64(vaddr);
	cmd.length = length;
	cmd.fd_flags = fd_flags;
	cmd.ranges = 0;
	cmd.nr_ranges = 0;
	return cmd;
}

struct vmemexp_export
list_args(const struct vmemexp_range *ranges, unsigned int nr, unsigned int fd_flags)
{
	struct vmemexp_export cmd = export_args(NULL, 0, fd_flags);

	cmd.ranges = to_u64(ranges);
	cmd.nr_ranges = nr;
	return cmd;
}

struct vmemexp_range asked_range(const struct vmemexp_export *cmd)
{
	const struct vmemexp_range *ranges = (const void *)(uintptr_t)cmd->ranges;
	struct vmemexp_range all = { cmd->vaddr, cmd->length };

	if (cmd->size < offsetof(struct vmemexp_export, err_range) || !cmd->nr_ranges)
		return all;
	all.vaddr = ranges[0].vaddr;
	for (unsigned int i = 0; i < cmd->nr_ranges; i++)
		all.length += ranges[i].length;
	return all;
}

struct vmemexp_sync sync_args(int dmabuf, unsigned int flags, uint64_t offset, uint64_t length)
{
	return (struct vmemexp_sync){
		.size = sizeof(struct vmemexp_sync),
		.fd = dmabuf,
		.flags = flags,
		.offset = offset,
		.length = length,
	};
}

struct vmemexp_query query_args(int dmabuf)
{
	struct vmemexp_query cmd;

	memset(&cmd, POISON_BYTE, sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.fd = dmabuf;
	cmd.flags = 0;
	cmd.reserved = 0;
	return cmd;
}

uint64_t inode_of(int dmabuf)
{
	struct stat64 stat = {};

	return fstat64(dmabuf, &stat) ? 0 : stat.st_ino;
}

struct vmemexp_revoke revoke_args(int dmabuf)
{
	struct vmemexp_revoke cmd;

	memset(&cmd, POISON_BYTE, sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.flags = 0;
	cmd.ino = inode_of(dmabuf);
	cmd.names_size = 0;
	return cmd;
}

int _test_sync(int fd, int dmabuf, unsigned int flags, uint64_t offset, uint64_t length)
{
	struct vmemexp_sync cmd = sync_args(dmabuf, flags, offset, length);

	return _test_ioctl(fd, VMEMEXP_IOC_SYNC, &cmd);
}

int _test_sync_rows(int fd, int dmabuf, unsigned int flags, uint64_t offset, uint64_t length,
		    uint64_t stride, unsigned int rows)
{
	struct vmemexp_sync cmd = sync_args(dmabuf, flags, offset, length);

	cmd.stride = stride;
	cmd.rows = rows;
	return _test_ioctl(fd, VMEMEXP_IOC_SYNC, &cmd);
}

int _test_dmabuf_sync(int dmabuf, uint64_t flags)
{
	struct dma_buf_sync cmd = { .flags = flags };

	return _test_ioctl(dmabuf, DMA_BUF_IOCTL_SYNC, &cmd);
}

struct vmemexp_range range_of(const volatile void *vaddr, size_t length)
{
	return (struct vmemexp_range){ .vaddr = to_u64(vaddr), .length = length };
}

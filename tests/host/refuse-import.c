// SPDX-License-Identifier: GPL-2.0
/*
 * A display without an IOMMU, as vmemexp(1) meets it: linked with --wrap, libdrm gives it
 * the answer of a driver that wants memory in one physical piece.
 */
#include <errno.h>
#include <stdint.h>

int __wrap_drmPrimeFDToHandle(int fd, int dmabuf, uint32_t *handle);

int __wrap_drmPrimeFDToHandle(int fd, int dmabuf, uint32_t *handle)
{
	(void)fd;
	(void)dmabuf;
	(void)handle;
	errno = EINVAL;
	return -1;
}

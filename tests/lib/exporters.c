// SPDX-License-Identifier: GPL-2.0
#include <drm.h>
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exporters.h"
#include "memory.h"
#include "state.h"

int make_udmabuf(size_t size)
{
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	int memfd = memfd_create("udmabuf", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	struct udmabuf_create cmd = {
		.memfd = memfd,
		.flags = UDMABUF_FLAGS_CLOEXEC,
		.size = size,
	};
	int dmabuf = -1;

	if (device >= 0 && memfd >= 0 && !ftruncate(memfd, size) &&
	    !fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		dmabuf = ioctl(device, UDMABUF_CREATE, &cmd);
	close(memfd);
	close(device);
	return dmabuf;
}

int make_heap_dmabuf_for(size_t size, unsigned int access)
{
	struct dma_heap_allocation_data cmd = {
		.len = size,
		.fd_flags = access | O_CLOEXEC,
	};
	int heap = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
	int ret = ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &cmd);

	close(heap);
	return ret ? -1 : (int)cmd.fd;
}

int make_heap_dmabuf(size_t size)
{
	return make_heap_dmabuf_for(size, O_RDWR);
}

bool is_vgem(int card)
{
	char name[16] = "";
	struct drm_version version = {
		.name = name,
		.name_len = sizeof(name) - 1,
	};

	return !ioctl(card, DRM_IOCTL_VERSION, &version) && !strcmp(name, "vgem");
}

int open_vgem(void)
{
	for (int i = 0; i < 16; i++) {
		char path[32];
		int card;

		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		card = open(path, O_RDWR | O_CLOEXEC);
		if (is_vgem(card))
			return card;
		close(card);
	}
	return -1;
}

int make_vgem_dmabuf(size_t size)
{
	struct drm_mode_create_dumb dumb = {
		.width = page_size() / 4, .height = size / page_size(),
		.bpp = 32,
	};
	struct drm_prime_handle prime = { .flags = DRM_CLOEXEC | DRM_RDWR, .fd = -1 };
	int card = open_vgem();

	if (!ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &dumb)) {
		prime.handle = dumb.handle;
		ioctl(card, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime);
	}
	close(card);
	return prime.fd;
}

static const char *need_dmabuf(int dmabuf, const char *name)
{
	close(dmabuf);
	return dmabuf < 0 ? name : NULL;
}

const char *need_udmabuf(void)
{
	return need_dmabuf(make_udmabuf(page_size()), "/dev/udmabuf");
}

const char *need_heap(void)
{
	return need_dmabuf(make_heap_dmabuf(page_size()), "/dev/dma_heap/system");
}

const char *need_vgem(void)
{
	run("modprobe -q vgem");
	return need_dmabuf(make_vgem_dmabuf(page_size()), "vgem");
}

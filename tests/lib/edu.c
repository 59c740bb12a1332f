// SPDX-License-Identifier: GPL-2.0
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "edu.h"
#include "memory.h"

enum coherency_mode coherency_mode(void)
{
	static const char * const names[] = {
		[MODE_DIRECT] = "direct", [MODE_NARROW] = "narrow",
		[MODE_FORCE] = "force", [MODE_IOMMU] = "iommu",
		[MODE_SNOOPED] = "snooped", [MODE_PASSTHROUGH] = "passthrough",
	};
	const char *mode = getenv("COHERENCY_MODE") ?: "";

	for (size_t i = MODE_DIRECT; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(mode, names[i]))
			return i;
	return MODE_NONE;
}

int _test_edu_attach(int session, int dmabuf, unsigned int device, unsigned int bits)
{
	struct edu_attach cmd = {
		.dmabuf_fd = dmabuf,
		.device = device,
		.address_bits = bits,
	};

	return _test_ioctl(session, EDU_IOC_ATTACH, &cmd);
}

int _test_edu_map(int session, unsigned int direction)
{
	struct edu_direction cmd = { .direction = direction };

	return _test_ioctl(session, EDU_IOC_MAP, &cmd);
}

int _test_edu_transfer(int session, unsigned long request, uint64_t offset,
		       const volatile void *buf, size_t length, unsigned int flags)
{
	struct edu_transfer cmd = {
		.offset = offset,
		.length = length,
		.user_ptr = to_u64(buf),
		.flags = flags,
	};

	return _test_ioctl(session, request, &cmd);
}

unsigned int edu_devices(void)
{
	unsigned int count = 0;
	glob_t found;

	if (!glob("/sys/bus/pci/drivers/vmemexp_edu/*:*", 0, NULL, &found))
		count = found.gl_pathc;
	globfree(&found);
	return count;
}

bool bounces_in(enum coherency_mode mode)
{
	return mode == MODE_NARROW || mode == MODE_FORCE;
}

bool translates_in(enum coherency_mode mode)
{
	return mode == MODE_IOMMU || mode == MODE_SNOOPED;
}

bool snoops_in(enum coherency_mode mode)
{
#if defined(__arm__) || defined(__aarch64__)
	return mode == MODE_SNOOPED;
#else
	(void)mode;
	return true;
#endif
}

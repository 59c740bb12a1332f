// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "carveout.h"
#include "driver.h"
#include "memory.h"

int _test_carveout_info(unsigned int region, struct carveout_info *info)
{
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC);
	int ret;

	*info = (struct carveout_info){ .region = region };
	ret = _test_ioctl(fd, CARVEOUT_IOC_INFO, info);
	close(fd);
	return ret;
}

int _test_carveout_open(const struct carveout_setup *setup)
{
	struct carveout_setup arg = *setup;
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = _test_ioctl(fd, CARVEOUT_IOC_SETUP, &arg);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

int _test_carveout_transfer(unsigned long request, unsigned int region, uint64_t offset,
			    const volatile void *buf, size_t length)
{
	struct carveout_transfer cmd = {
		.region = region,
		.offset = offset,
		.length = length,
		.user_ptr = to_u64(buf),
	};
	int fd = open(CARVEOUT_PATH, O_RDWR | O_CLOEXEC);
	int ret = _test_ioctl(fd, request, &cmd);

	close(fd);
	return ret;
}

const char *carveout_text(const struct carveout_info *region)
{
	static __thread char text[64];

	snprintf(text, sizeof(text), "%#llx:%#llx", (unsigned long long)region->base,
		 (unsigned long long)region->size);
	return text;
}

bool find_carveout(unsigned int sort, struct carveout_info *region)
{
	for (unsigned int i = 0; !_test_carveout_info(i, region); i++)
		if (region->flags == sort)
			return true;
	return false;
}

const char *need_carveout_of(unsigned int sort)
{
	struct carveout_info region;

	if (access(CARVEOUT_PATH, F_OK))
		return "module vmemexp_carveout";
	return find_carveout(sort, &region) ? NULL : "carve-out of this sort";
}

const char *need_frames_with_pages(void)
{
	return need_carveout_of(FRAMES_WITH_PAGES);
}

const char *need_frames(void)
{
	return need_carveout_of(FRAMES_WITHOUT_PAGES);
}

const char *need_stand_in(void)
{
	return access(CARVEOUT_PATH, F_OK) ? "module vmemexp_carveout" : NULL;
}

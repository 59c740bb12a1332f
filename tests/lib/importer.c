// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <unistd.h>

#include "driver.h"
#include "importer.h"
#include "memory.h"
#include "state.h"

bool importer_present(void)
{
	return access(IMPORTER_PATH, F_OK) == 0;
}

int _test_importer_attach(int session, int dmabuf, unsigned int device)
{
	struct importer_attach cmd = { .dmabuf_fd = dmabuf, .device = device };

	return _test_ioctl(session, IMPORTER_IOC_ATTACH, &cmd);
}

int _test_importer_direction(int session, unsigned long request, unsigned int direction)
{
	struct importer_direction cmd = { .direction = direction };

	return _test_ioctl(session, request, &cmd);
}

int _test_importer_map(int session, unsigned int direction)
{
	return _test_importer_direction(session, IMPORTER_IOC_MAP, direction);
}

int _test_importer_transfer(int session, unsigned long request, uint64_t offset,
			    const volatile void *buf, size_t length)
{
	struct importer_transfer cmd = {
		.offset = offset,
		.length = length,
		.user_ptr = to_u64(buf),
	};

	return _test_ioctl(session, request, &cmd);
}

int _test_importer_edit(int session, unsigned int nents, uint64_t skip, uint64_t trim)
{
	struct importer_edit cmd = { .nents = nents, .skip = skip, .trim = trim };

	return _test_ioctl(session, IMPORTER_IOC_EDIT, &cmd);
}

int _test_importer_mark_end(int session, unsigned int nents)
{
	struct importer_edit cmd = { .nents = nents, .flags = IMPORTER_EDIT_MARK_END };

	return _test_ioctl(session, IMPORTER_IOC_EDIT, &cmd);
}

int vmap_refused(void)
{
	return kernel_at_least(5, 11) ? EINVAL : ENOMEM;
}

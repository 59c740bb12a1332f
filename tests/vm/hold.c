// SPDX-License-Identifier: GPL-2.0
/*
 * For tests/vm/selftest: export a page and sleep, so that the module cannot
 * be unloaded and a page stays pinned.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uapi/vmemexp.h>

int main(void)
{
	size_t length = sysconf(_SC_PAGESIZE);
	struct vmemexp_export export = { .size = sizeof(export) };
	void *page;
	int fd;

	page = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		err(1, "mmap");
	fd = open("/dev/vmemexp", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/vmemexp");
	export.vaddr = (unsigned long)page;
	export.length = length;
	export.fd_flags = O_RDWR | O_CLOEXEC;
	if (ioctl(fd, VMEMEXP_IOC_EXPORT, &export))
		err(1, "VMEMEXP_IOC_EXPORT");
	puts("held");
	fflush(stdout);
	for (;;)
		pause();
}

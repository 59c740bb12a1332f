// SPDX-License-Identifier: GPL-2.0
/* What the verbs of vmemexp(1) share. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmemexp-common.h"

int next_option(const struct verb *verb, int argc, char **argv,
		const struct option *options)
{
	int option;

	opterr = 0;
	option = getopt_long(argc, argv, ":h", options, NULL);

	switch (option) {
	case 'h':
		printf("Usage: vmemexp %s %s\n%s", verb->name, verb->arguments,
		       verb->help);
		exit(EXIT_SUCCESS);
	case ':':
		errx(EXIT_USAGE, "%s: %s needs a value", verb->name,
		     argv[optind - 1]);
	case '?':
		errx(EXIT_USAGE, "%s: unknown option %s", verb->name,
		     argv[optind - 1]);
	}
	return option;
}

void take_no_arguments(const struct verb *verb, int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ }
	};

	next_option(verb, argc, argv, options);
	if (optind < argc)
		errx(EXIT_USAGE, "%s: unexpected argument %s", verb->name,
		     argv[optind]);
}

int open_device(void)
{
	int fd = open(DEVICE_PATH, O_RDWR | O_CLOEXEC);
	int error = errno;

	if (fd >= 0)
		return fd;

	if (access(SYSFS_PATH, F_OK))
		warnx("the driver is not loaded: as root, modprobe vmemexp or insmod vmemexp.ko");
	else if (error == EACCES || error == EPERM)
		warnx("%s may not be opened (%s): be root, or in a group that may",
		      DEVICE_PATH, errno_name(error));
	else if (error == ENOENT)
		warnx("the driver is loaded but %s is missing: mount devtmpfs",
		      DEVICE_PATH);
	else
		warnx("%s cannot be opened: %s (%s)", DEVICE_PATH,
		      strerror(error), errno_name(error));
	return -1;
}

int export_memory(int device, const void *memory, size_t length,
		  unsigned int fd_flags, struct vmemexp_export *export)
{
	*export = (struct vmemexp_export) {
		.size = sizeof(*export),
		.vaddr = (uintptr_t)memory,
		.length = length,
		.fd_flags = fd_flags,
	};
	return ioctl(device, VMEMEXP_IOC_EXPORT, export);
}

/* The address that the reason is about goes where %#llx stands, if it does. */
static const char * const reasons[] = {
	[VMEMEXP_REASON_FLAGS] = "the flags are wrong",
	[VMEMEXP_REASON_LENGTH] =
		"the length is zero or too large for memory at %#llx",
	[VMEMEXP_REASON_ALIGNMENT] = "%#llx is not a multiple of the page size",
	[VMEMEXP_REASON_LIMIT] =
		"it would exceed your limit of locked memory (vmemexp info tells more)",
	[VMEMEXP_REASON_NOT_MAPPED] = "%#llx is not mapped",
	[VMEMEXP_REASON_NOT_READABLE] = "%#llx is not readable",
	[VMEMEXP_REASON_NOT_WRITABLE] =
		"%#llx is not writable, only a read-only export is possible",
	[VMEMEXP_REASON_KIND] =
		"the kind of memory at %#llx may not be exported, or not for writing",
	[VMEMEXP_REASON_PFNMAP] =
		"%#llx is memory of a driver that is not listed in carveouts=",
	[VMEMEXP_REASON_NO_BACKING] =
		"no page can be had at %#llx: beyond the end of the file, or no room for it",
	[VMEMEXP_REASON_UNPINNABLE] = "the kernel refuses to pin %#llx",
	[VMEMEXP_REASON_NOT_CONTIGUOUS] =
		"the memory is not physically contiguous, it breaks at %#llx",
	[VMEMEXP_REASON_RAM] =
		"%#llx is memory of the kernel that a driver mapped, not listed in carveouts=",
	[VMEMEXP_REASON_MIXED] =
		"memory of another nature begins at %#llx, it wants an export of its own",
	[VMEMEXP_REASON_PRIVATE] =
		"%#llx is a private mapping of a driver's memory, use a shared one",
	[VMEMEXP_REASON_CHANGED] = "a driver has just changed the mapping at %#llx",
	[VMEMEXP_REASON_ACCESS] =
		"%#llx is a mapping of a dma-buf that has another access mode",
	[VMEMEXP_REASON_PARTIAL] =
		"%#llx is a mapping of a part of a dma-buf, of which you have no descriptor",
	[VMEMEXP_REASON_QUOTA] =
		"you have as many buffers as the driver's max_buffers= allows",
	[VMEMEXP_REASON_POISONED] = "the memory at %#llx is broken",
	[VMEMEXP_REASON_ENCRYPTED] =
		"%#llx is memory of a driver, and this machine encrypts its memory",
};

const char *export_error(const struct vmemexp_export *export, int error)
{
	static char text[256];
	unsigned int reason = export->err_reason;
	int length;

	if (reason < ARRAY_SIZE(reasons) && reasons[reason])
		length = snprintf(text, sizeof(text), reasons[reason],
				  (unsigned long long)export->err_addr);
	else
		length = snprintf(text, sizeof(text), "%s", strerror(error));
	snprintf(text + length, sizeof(text) - length, " (%s)",
		 errno_name(error));
	return text;
}

const char *errno_name(int error)
{
	const char *name = strerrorname_np(error);

	return name ? name : "unknown errno";
}

const char *memory_names(unsigned int memory)
{
	static const char * const names[] = {
		"anonymous", "shmem", "hugetlb", "file", "driver", "pfnmap",
		"dmabuf",
	};
	static char text[64];
	unsigned int i;

	text[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(memory & (1U << i)))
			continue;
		if (text[0])
			strcat(text, "+");
		strcat(text, names[i]);
	}
	return text;
}

long long status_value(const char *pid, const char *field, int base)
{
	size_t length = strlen(field);
	long long value = -1;
	char path[64];
	char line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/status", pid);
	file = fopen(path, "re");
	if (!file)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, field, length) && line[length] == ':')
			value = strtoll(line + length + 1, NULL, base);
	}
	fclose(file);
	return value;
}

// SPDX-License-Identifier: GPL-2.0
/* vmemexp revoke: take the memory of a dma-buf back from all who have it. */
#include <err.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmemexp-common.h"

#define NAMES_SIZE	(64 * 1024)

static unsigned long long inode_number(const char *text)
{
	unsigned long long ino;
	char *end;

	errno = 0;
	ino = strtoull(text, &end, 10);
	if (errno || end == text || *end || strchr(text, '-'))
		errx(EXIT_USAGE, "revoke: %s is not an inode number (vmemexp list shows them)",
		     text);
	return ino;
}

static void print_users(const struct vmemexp_revoke *revoke, const char *names)
{
	if (!revoke->mappings && !revoke->vmaps) {
		puts("revoked, and nobody uses the memory any more");
		return;
	}
	printf("revoked; the memory stays pinned until those let go that use it now:\n");
	while (*names) {
		int length = strcspn(names, "\n");

		printf("  device %.*s\n", length, names);
		names += length + (names[length] == '\n');
	}
	if (revoke->vmaps)
		printf("  %u kernel mapping%s\n", revoke->vmaps, revoke->vmaps > 1 ? "s" : "");
}

static int run_revoke(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	static char names[NAMES_SIZE];
	struct vmemexp_revoke revoke = {
		.size = sizeof(revoke),
		.names = (uintptr_t)names,
		.names_size = sizeof(names),
	};
	struct vmemexp *v;
	int ret;

	next_option(&verb_revoke, argc, argv, options);
	if (optind + 1 != argc)
		errx(EXIT_USAGE, "revoke: wants one inode number (vmemexp list shows them)");
	revoke.ino = inode_number(argv[optind]);

	v = open_device();
	if (!v)
		return EXIT_FAILURE;
	ret = ioctl(vmemexp_fd(v), VMEMEXP_IOC_REVOKE, &revoke);
	if (!ret)
		print_users(&revoke, names);
	else if (errno == ENOENT)
		warnx("no dma-buf of the driver has the inode number %s (%s)", argv[optind],
		      errno_name(errno));
	else if (errno == EPERM)
		warnx("only root, with CAP_SYS_ADMIN, may revoke (%s)", errno_name(errno));
	else if (errno == ENOTTY)
		warnx("the driver that is loaded is too old to revoke (%s)", errno_name(errno));
	else
		warnx("%s cannot be revoked: %s (%s)", argv[optind], strerror(errno),
		      errno_name(errno));
	vmemexp_close(v);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct verb verb_revoke = {
	.name = "revoke",
	.arguments = "INO",
	.help =
	"  Take the memory of a dma-buf back from all who have it. INO is its inode\n"
	"  number, which the list shows first. It cannot be attached or mapped any more,\n"
	"  and programs that have it mapped get SIGBUS. Devices that use it at this moment\n"
	"  go on until their driver lets go; they are named. For root.\n",
	.run = run_revoke,
};

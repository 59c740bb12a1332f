// SPDX-License-Identifier: GPL-2.0
/* vmemexp list: the live buffers, as the driver tells them in debugfs. */
#include <err.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vmemexp-common.h"

#define DEBUGFS_PATH	"/sys/kernel/debug"
#define BUFFERS_PATH	DEBUGFS_PATH "/vmemexp/buffers"

/* Says why the list could not be opened. */
static void explain_failure(int error)
{
	struct statfs fs;

	if (access(SYSFS_PATH, F_OK))
		warnx("the driver is not loaded: there are no buffers");
	else if (statfs(DEBUGFS_PATH, &fs) || fs.f_type != DEBUGFS_MAGIC)
		warnx("debugfs is not mounted: run 'mount -t debugfs none %s' as root",
		      DEBUGFS_PATH);
	else if (error == EACCES)
		warnx("%s may be read by root only", BUFFERS_PATH);
	else
		warnx("%s cannot be read: %s (%s)", BUFFERS_PATH,
		      strerror(error), errno_name(error));
}

/* Prints the words of a line in columns. */
static void print_line(char *line)
{
	static const int widths[] = { 6, 12, 6, 10, 8, 11, 8, 6, 6, 6, 6, 8 };
	size_t i = 0;
	char *word;

	for (word = strtok(line, "\n "); word; word = strtok(NULL, "\n "))
		printf("%-*s ", i < ARRAY_SIZE(widths) ? widths[i++] : 0, word);
	printf("\n");
}

static int run_list(int argc, char **argv)
{
	char *line = NULL;
	size_t size = 0;
	size_t nr_lines;
	FILE *file;

	take_no_arguments(&verb_list, argc, argv);

	file = fopen(BUFFERS_PATH, "re");
	if (!file) {
		explain_failure(errno);
		return EXIT_FAILURE;
	}
	for (nr_lines = 0; getline(&line, &size, file) > 0; nr_lines++)
		print_line(line);
	free(line);
	fclose(file);

	/* The first line is the names of the columns. */
	if (nr_lines <= 1)
		puts("no live buffers");
	return EXIT_SUCCESS;
}

const struct verb verb_list = {
	.name = "list",
	.arguments = "[--help]",
	.help =
	"  List the live buffers: inode number of the dma-buf, size in bytes, access,\n"
	"  kinds of memory, physically contiguous extents, attached devices, their DMA\n"
	"  mappings, kernel and user mappings, whether the source has been unmapped\n"
	"  since (stale) or the memory taken back (revoked), and who exported it. For\n"
	"  root; needs debugfs.\n",
	.run = run_list,
};

// SPDX-License-Identifier: GPL-2.0
/* vmemexp list: the live buffers, as debugfs tells them, and their holders, by /proc. */
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vmemexp-common.h"

#define DEBUGFS_PATH	"/sys/kernel/debug"
#define BUFFERS_PATH	DEBUGFS_PATH "/vmemexp/buffers"

/* The kernel calls files that are dma-bufs so, before their own name. */
#define DMABUF_PREFIX	"/dmabuf:"

/**
 * struct holder - one way in which a process holds a dma-buf
 * @ino: inode number of the dma-buf
 * @pid: the process
 * @fd: its descriptor, or -1 for mappings
 * @name: that a program gave to the dma-buf, or empty
 */
struct holder {
	unsigned long long ino;
	int pid;
	int fd;
	char name[32];
};

static struct holder *holders;
static size_t nr_holders;

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

static void add_holder(unsigned long long ino, int pid, int fd, const char *name)
{
	/* One allocation for each 64. */
	if (nr_holders % 64 == 0) {
		holders = reallocarray(holders, nr_holders + 64, sizeof(*holders));
		if (!holders)
			err(EXIT_FAILURE, "no memory for the holders");
	}
	holders[nr_holders] = (struct holder){ .ino = ino, .pid = pid, .fd = fd };
	snprintf(holders[nr_holders++].name, sizeof(holders->name), "%s", name);
}

/* The name in a path of the kernel's, which may have a note behind it that it cannot be opened. */
static const char *name_in(char *path)
{
	char *end = strstr(path, " (deleted)");

	if (end)
		*end = '\0';
	path[strcspn(path, "\n")] = '\0';
	return printable(path + strlen(DMABUF_PREFIX));
}

static void find_descriptors(int pid)
{
	struct dirent *entry;
	char path[PATH_MAX];
	struct stat st;
	ssize_t length;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		length = readlinkat(dirfd(dir), entry->d_name, path, sizeof(path) - 1);
		if (length < 0)
			continue;
		path[length] = '\0';
		if (!strncmp(path, DMABUF_PREFIX, strlen(DMABUF_PREFIX)) &&
		    !fstatat(dirfd(dir), entry->d_name, &st, 0))
			add_holder(st.st_ino, pid, atoi(entry->d_name), name_in(path));
	}
	if (dir)
		closedir(dir);
}

static void find_mappings(int pid)
{
	unsigned long long ino;
	char *line = NULL, *name;
	char path[64];
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	file = fopen(path, "re");
	while (file && getline(&line, &size, file) > 0) {
		name = strstr(line, DMABUF_PREFIX);
		if (!name || sscanf(line, "%*s %*s %*s %*s %llu", &ino) != 1)
			continue;
		/* Parts of one mapping follow each other. */
		if (nr_holders && holders[nr_holders - 1].fd < 0 &&
		    holders[nr_holders - 1].pid == pid && holders[nr_holders - 1].ino == ino)
			continue;
		add_holder(ino, pid, -1, name_in(name));
	}
	free(line);
	if (file)
		fclose(file);
}

static void find_holders(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		if (!isdigit(entry->d_name[0]))
			continue;
		find_descriptors(atoi(entry->d_name));
		find_mappings(atoi(entry->d_name));
	}
	if (proc)
		closedir(proc);
}

static void print_comm(int pid)
{
	char path[64], comm[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (file && fgets(comm, sizeof(comm), file))
		comm[strcspn(comm, "\n")] = '\0';
	if (file)
		fclose(file);
	printf("%d %s:", pid, printable(comm));
}

/* A line for the name of the dma-buf, and one for each process that holds it. */
static void print_holders(unsigned long long ino)
{
	bool named = false, held = false;
	int pid = -1;
	size_t i;

	for (i = 0; i < nr_holders && !named; i++) {
		named = holders[i].ino == ino && holders[i].name[0];
		if (named)
			printf("  name     %s\n", holders[i].name);
	}
	for (i = 0; i < nr_holders; i++) {
		if (holders[i].ino != ino)
			continue;
		if (holders[i].pid != pid) {
			printf("%s  held by  ", held ? "\n" : "");
			pid = holders[i].pid;
			print_comm(pid);
		}
		held = true;
		if (holders[i].fd < 0)
			printf(" mapped");
		else
			printf(" fd %d", holders[i].fd);
	}
	puts(held ? "" : "  held by  no process: a driver, or a descriptor on its way");
}

/* Prints the words of a line in columns. */
static void print_line(char *line)
{
	static const int widths[] = { 6, 12, 6, 10, 8, 11, 8, 6, 6, 6, 6, 8 };
	size_t i = 0;
	char *word;

	for (word = strtok(line, "\n "); word; word = strtok(NULL, "\n "))
		printf("%-*s ", i < ARRAY_SIZE(widths) ? widths[i++] : 0, printable(word));
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
	find_holders();
	for (nr_lines = 0; getline(&line, &size, file) > 0; nr_lines++) {
		unsigned long long ino = strtoull(line, NULL, 10);

		print_line(line);
		/* The first line is the names of the columns. */
		if (nr_lines)
			print_holders(ino);
	}
	free(line);
	free(holders);
	fclose(file);

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
	"  since (stale) or the memory taken back (revoked), and who exported it. Below are\n"
	"  the name that somebody gave to it, and the processes that hold it, by a descriptor\n"
	"  or a mapping. For root; needs debugfs.\n",
	.run = run_list,
};

// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "memory.h"
#include "state.h"

bool swapping, mounted;

/* Files of /proc and /sys that were written, and what they held before. */
static struct knob {
	const char *path;
	char before[256];
} knobs[8];

bool kernel_at_least(unsigned int version, unsigned int patchlevel)
{
	unsigned int has_version = 0, has_patchlevel = 0;
	struct utsname system;

	uname(&system);
	return sscanf(system.release, "%u.%u", &has_version, &has_patchlevel) == 2 &&
	       (has_version > version ||
		(has_version == version && has_patchlevel >= patchlevel));
}

int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n = 1;
	int err = 0;

	if (fd < 0)
		return -errno;
	while (n > 0 && done < size - 1) {
		n = read(fd, text + done, size - 1 - done);
		if (n > 0)
			done += n;
		else if (n < 0)
			err = -errno;
	}
	close(fd);
	text[done] = '\0';
	return err ? err : (int)done;
}

int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

long read_number(const char *path)
{
	char text[32];

	return read_text(path, text, sizeof(text)) > 0 ? strtol(text, NULL, 0) : -1;
}

bool is_same_file(int fd, int other)
{
	struct stat stat, other_stat;

	return !fstat(fd, &stat) && !fstat(other, &other_stat) &&
	       stat.st_dev == other_stat.st_dev && stat.st_ino == other_stat.st_ino;
}

int trace_events(const char *events)
{
	char path[256];
	int trace = open(TRACING "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (trace < 0)
		return -errno;
	close(trace);
	snprintf(path, sizeof(path), TRACING "/events/%s/enable", events);
	return write_text(TRACING "/options/record-cmd", "0") ?: write_text(path, "1");
}

long read_counter(const char *path, const char *name)
{
	static char text[64 * 1024];
	size_t len = strlen(name);
	const char *line = text;

	if (read_text(path, text, sizeof(text)) < 0)
		return -1;
	while (line && *line) {
		if (!strncmp(line, name, len) &&
		    (line[len] == ' ' || line[len] == ':'))
			return strtol(line + len + 1, NULL, 10);
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return -1;
}

long pinned_pages(void)
{
	char ignored[16];

	/* The CPUs keep their own counts for a while; reading this adds them. */
	read_text("/proc/sys/vm/stat_refresh", ignored, sizeof(ignored));
	return read_counter("/proc/vmstat", "nr_foll_pin_acquired") -
	       read_counter("/proc/vmstat", "nr_foll_pin_released");
}

long page_tables(void)
{
	return read_counter("/proc/self/status", "VmPTE");
}

long accounted_pages(void)
{
	return read_counter("/proc/self/status", "VmPin") * 1024L /
	       (long)page_size();
}

int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = -1; /* the directory itself */

	if (!dir)
		return -1;
	for (struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

int next_file(void)
{
	int fd = dup(STDOUT_FILENO);

	close(fd);
	return fd;
}

uint64_t bounce_buffers_end(void)
{
	static char log[1 << 20];
	unsigned long long start, end = 0;
	int size = klogctl(3, log, sizeof(log) - 1);
	const char *line = log;

	if (size < 0)
		return 0;
	log[size] = '\0';
	while ((line = strstr(line, "software IO TLB: mapped [mem "))) {
		if (sscanf(line, "software IO TLB: mapped [mem 0x%llx-0x%llx]",
			   &start, &end) == 2)
			break;
		line++;
	}
	return end;
}

bool has_thp(void)
{
	return !access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK);
}

bool run(const char *command)
{
	return system(command) == 0;
}

int set_knob(const char *path, const char *text)
{
	struct knob *knob = knobs;

	while (knob->path && strcmp(knob->path, path))
		knob++;
	if (!knob->path && read_text(path, knob->before, sizeof(knob->before)) >= 0)
		knob->path = path;
	return write_text(path, text);
}

void restore_system(void)
{
	if (swapping)
		swapoff(RAM_DISK);
	if (mounted)
		umount2(MOUNT_POINT, MNT_DETACH);
	for (struct knob *knob = knobs; knob->path; knob++)
		write_text(knob->path, knob->before);
}

const char *need_ram_disk(void)
{
	run("modprobe -q brd rd_nr=1 rd_size=65536");
	return access(RAM_DISK, F_OK) ? "brd (RAM disk)" : NULL;
}

const char *need_ext4(void)
{
	run("modprobe -q ext4");
	return run("grep -q ext4 /proc/filesystems") ? need_ram_disk() : "ext4";
}

const char *need_thp(void)
{
	return has_thp() ? NULL : "transparent huge pages";
}

const char *need_hugetlb(void)
{
	return access("/sys/kernel/mm/hugepages/hugepages-2048kB", F_OK) ?
	       "hugetlb pages of 2 MiB" : NULL;
}

const char *need_packet(void)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0)
		return "packet sockets";
	close(fd);
	return NULL;
}

struct test_state get_state(void)
{
	uid_t euid = geteuid();
	struct test_state state;

	if (euid)
		seteuid(0);
	state = (struct test_state){
		pinned_pages(), open_files(), next_file()
	};
	if (euid)
		seteuid(euid);
	return state;
}

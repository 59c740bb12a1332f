// SPDX-License-Identifier: GPL-2.0
/* vmemexp info: what there is on this machine, and what this user may do. */
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "vmemexp-common.h"

/* Prints the one line that a file in sysfs has. */
static void print_attribute(const char *path)
{
	FILE *file = fopen(path, "re");
	char line[1024];

	if (file && fgets(line, sizeof(line), file))
		printf("%.*s", (int)strcspn(line, "\n"), line);
	else
		printf("(not readable)");
	if (file)
		fclose(file);
}

/* Bytes of the @size at @base that are System RAM; -1 if that is not told. */
static int64_t system_ram_in(uint64_t base, uint64_t size)
{
	uint64_t first, last, end = base + size - 1;
	FILE *file = fopen("/proc/iomem", "re");
	bool told = false;
	int64_t sum = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file)) {
		/* What is indented is a part of the line above. */
		if (line[0] == ' ' || !strstr(line, " : System RAM") ||
		    sscanf(line, "%" SCNx64 "-%" SCNx64, &first, &last) != 2)
			continue;
		told = told || last;
		if (first <= end && last >= base)
			sum += (last < end ? last : end) - (first > base ? first : base) + 1;
	}
	if (file)
		fclose(file);
	return told ? sum : -1;
}

/* One line for each carve-out: where it lies, and whether that looks right. */
static void print_carveouts(void)
{
	FILE *file = fopen(SYSFS_PATH "/parameters/carveouts", "re");
	uint64_t base, size;
	int64_t ram;

	if (!file) {
		puts("carve-outs   (only root may see them)");
		return;
	}
	while (fscanf(file, "%" SCNx64 ":%" SCNx64, &base, &size) == 2) {
		printf("carve-out    0x%" PRIx64 ", %" PRIu64 " KiB: ", base, size / 1024);
		ram = system_ram_in(base, size);
		if (ram < 0)
			puts("/proc/iomem does not tell what is there");
		else if (!ram)
			puts("outside of System RAM");
		else if ((uint64_t)ram == size)
			puts("System RAM; nothing but your word keeps the kernel from using it");
		else
			puts("in part System RAM; is the address right?");
		if (fgetc(file) != ',')
			break;
	}
	fclose(file);
}

static void print_driver(void)
{
	static const char parameters[] = SYSFS_PATH "/parameters";
	struct dirent *entry;
	char path[512];
	DIR *dir;

	if (access(SYSFS_PATH, F_OK)) {
		puts("driver       not loaded");
		return;
	}

	printf("driver       version ");
	print_attribute(SYSFS_PATH "/version");
	printf("\nparameters  ");
	dir = opendir(parameters);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", parameters, entry->d_name);
		printf(" %s=", entry->d_name);
		print_attribute(path);
	}
	if (dir)
		closedir(dir);
	putchar('\n');
	print_carveouts();
}

/*
 * Group names are looked up in the file and not by getgrgid(), which does not
 * work in a statically linked program.
 */
static void print_group(gid_t gid)
{
	FILE *file = fopen("/etc/group", "re");
	struct group *group = NULL;

	while (file && (group = fgetgrent(file)))
		if (group->gr_gid == gid)
			break;
	if (group)
		printf("%s", group->gr_name);
	else
		printf("%u", gid);
	if (file)
		fclose(file);
}

static void print_device(void)
{
	struct stat st;

	if (stat(DEVICE_PATH, &st)) {
		printf("device       %s: %s\n", DEVICE_PATH, strerror(errno));
		return;
	}
	printf("device       %s, mode %04o, user id %u, group ", DEVICE_PATH,
	       st.st_mode & 07777, st.st_uid);
	print_group(st.st_gid);
	putchar('\n');
}

/*
 * What the kernel counts for a user cannot be read. What its processes have
 * pinned and locked comes close, but for buffers whose process has ended.
 */
static void print_limit(void)
{
	long long pinned = 0, locked = 0, value;
	struct rlimit limit;
	struct dirent *entry;
	DIR *proc;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	printf("limit        ");
	if (limit.rlim_cur == RLIM_INFINITY)
		printf("unlimited");
	else
		printf("%llu KiB", (unsigned long long)limit.rlim_cur / 1024);
	printf(" of locked memory (RLIMIT_MEMLOCK)\n");

	proc = opendir("/proc");
	while (proc && (entry = readdir(proc))) {
		if (!isdigit(entry->d_name[0]) ||
		    status_value(entry->d_name, "Uid", 10) != getuid())
			continue;
		value = status_value(entry->d_name, "VmPin", 10);
		pinned += value > 0 ? value : 0;
		value = status_value(entry->d_name, "VmLck", 10);
		locked += value > 0 ? value : 0;
	}
	if (proc)
		closedir(proc);
	printf("in use       %lld KiB pinned and %lld KiB locked by the processes of user id %u\n",
	       pinned, locked, getuid());

	value = status_value("self", "CapEff", 16);
	if (value >= 0 && (value & (1LL << CAP_IPC_LOCK)))
		puts("privilege    CAP_IPC_LOCK: the limit does not apply to you");
	else
		puts("privilege    no CAP_IPC_LOCK: the limit applies to you");
}

static void print_kernel(void)
{
	struct utsname name;

	uname(&name);
	printf("kernel       %s %s, pages of %ld bytes\n", name.release,
	       name.machine, sysconf(_SC_PAGESIZE));
}

static int run_info(int argc, char **argv)
{
	struct vmemexp *v;

	take_no_arguments(&verb_info, argc, argv);

	print_driver();
	print_device();
	print_limit();
	print_kernel();
	fflush(stdout);

	v = open_device();
	if (!v)
		return EXIT_FAILURE;
	vmemexp_close(v);
	return EXIT_SUCCESS;
}

const struct verb verb_info = {
	.name = "info",
	.arguments = "[--help]",
	.help =
	"  Print the driver's version and parameters, what lies where its carve-outs are,\n"
	"  who may open its device, how much memory the user may pin and has pinned, and\n"
	"  the kernel's version. Fails with advice if the driver is not loaded or its\n"
	"  device may not be opened.\n",
	.run = run_info,
};

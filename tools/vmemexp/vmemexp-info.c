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
		/* Skip indented lines: they are parts of the one above. */
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

static bool has_ipc_lock(void)
{
	long long value = status_value("self", "CapEff", 16);

	return value >= 0 && (value & (1LL << CAP_IPC_LOCK));
}

/*
 * Programs cannot read what the kernel counts for a user. The pinned and locked memory of the
 * user's processes comes close, except for buffers whose process has ended. Returns that, in KiB.
 */
static long long print_limit(void)
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

	if (has_ipc_lock())
		puts("privilege    CAP_IPC_LOCK: the limit does not apply to you");
	else
		puts("privilege    no CAP_IPC_LOCK: the limit applies to you");
	return pinned + locked;
}

static void print_kernel(void)
{
	struct utsname name;

	uname(&name);
	printf("kernel       %s %s, pages of %ld bytes\n", name.release,
	       name.machine, sysconf(_SC_PAGESIZE));
}

/* ---- what keeps the module from loading, or the device from being opened ---- */

#define OBSTACLE	"obstacle     "
/* Advice, on a line of its own. */
#define REMEDY		"             "

/* Return true if a line of the file has @text. */
static bool file_has(const char *path, const char *text)
{
	FILE *file = fopen(path, "re");
	bool found = false;
	char line[1024];

	while (file && !found && fgets(line, sizeof(line), file))
		found = strstr(line, text);
	if (file)
		fclose(file);
	return found;
}

#define EFI_VARIABLES	"/sys/firmware/efi/efivars/"
#define SECURE_BOOT	EFI_VARIABLES "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

/* The variable is a byte, behind four of attributes. */
static bool secure_boot(void)
{
	FILE *file = fopen(SECURE_BOOT, "re");
	unsigned char value[5] = { };
	bool on = file && fread(value, sizeof(value), 1, file) == 1 && value[4] == 1;

	if (file)
		fclose(file);
	return on;
}

/* Why the kernel wants modules to be signed, or NULL if it does not. */
static const char *signature_wanted(void)
{
	static const char lockdown[] = "/sys/kernel/security/lockdown";

	if (file_has(lockdown, "[integrity]") || file_has(lockdown, "[confidentiality]"))
		return secure_boot() ? "Secure Boot is on and has locked the kernel down" :
				       "the kernel is locked down";
	if (file_has("/sys/module/module/parameters/sig_enforce", "Y"))
		return "the kernel enforces signatures (module.sig_enforce)";
	if (secure_boot())
		return "Secure Boot is on";
	return NULL;
}

/* Sets path to where depmod knows the module to be; return false if it does not. */
static bool find_module(char *path, size_t size)
{
	struct utsname name;
	char line[4096];
	bool found = false;
	FILE *file;

	uname(&name);
	snprintf(line, sizeof(line), "/lib/modules/%s/modules.dep", name.release);
	file = fopen(line, "re");
	while (file && !found && fgets(line, sizeof(line), file)) {
		line[strcspn(line, ":\n")] = '\0';
		found = strstr(line, "/vmemexp.ko");
	}
	if (found)
		snprintf(path, size, "/lib/modules/%s/%s", name.release, line);
	if (file)
		fclose(file);
	return found;
}

/* The kernel's own mark behind the signature. A compressed file does not show it. */
static bool is_unsigned(const char *path)
{
	static const char mark[] = "~Module signature appended~\n";
	char end[sizeof(mark)] = "";
	FILE *file = fopen(path, "re");
	bool without = false;

	if (file && strlen(path) > 3 && !strcmp(path + strlen(path) - 3, ".ko") &&
	    !fseek(file, -(long)(sizeof(mark) - 1), SEEK_END) &&
	    fread(end, sizeof(mark) - 1, 1, file) == 1)
		without = strcmp(end, mark);
	if (file)
		fclose(file);
	return without;
}

static void print_obstacles_to_loading(void)
{
	const char *wanted = signature_wanted();
	struct utsname name;
	char path[4224];

	uname(&name);
	if (!find_module(path, sizeof(path)))
		printf(OBSTACLE "the module is not installed for this kernel (%s)\n"
		       REMEDY "are its headers installed?\n", name.release);
	else if (!wanted)
		puts(OBSTACLE "the module is not loaded: modprobe vmemexp, as root");
	else if (is_unsigned(path))
		printf(OBSTACLE "%s is not signed\n", path);
	if (wanted)
		printf(OBSTACLE "%s: a module must be signed by an enrolled key\n"
		       REMEDY "mokutil --import /var/lib/dkms/mok.pub, as root, and reboot\n",
		       wanted);
}

static bool has_udev_rule(void)
{
	static const char * const directories[] = {
		"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib",
	};
	char path[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(directories); i++) {
		snprintf(path, sizeof(path), "%s/udev/rules.d/60-vmemexp.rules", directories[i]);
		if (!access(path, F_OK))
			return true;
	}
	return false;
}

static void print_obstacles_to_opening(void)
{
	struct stat st;

	if (!access(DEVICE_PATH, R_OK | W_OK) || stat(DEVICE_PATH, &st))
		return;
	if (!(st.st_mode & 0060)) {
		printf(OBSTACLE "the device is for root alone: ");
		puts(has_udev_rule() ? "udev has not applied 60-vmemexp.rules\n"
		     REMEDY "udevadm trigger /dev/vmemexp, as root" :
		     "there is no udev rule 60-vmemexp.rules");
		return;
	}
	printf(OBSTACLE "you are not in the group ");
	print_group(st.st_gid);
	puts(", which may open the device\n" REMEDY "usermod -aG, as root, and log in again");
}

/* A frame of full HD in 32 bits a pixel. */
#define FRAME_KIB	8100

static void print_obstacle_of_limit(long long in_use)
{
	struct rlimit limit;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur == RLIM_INFINITY || has_ipc_lock() ||
	    (long long)(limit.rlim_cur / 1024) - in_use >= FRAME_KIB)
		return;
	printf(OBSTACLE "RLIMIT_MEMLOCK leaves less than a frame of 1920x1080 (%d KiB)\n"
	       REMEDY "raise memlock in /etc/security/limits.d, or LimitMEMLOCK= of a service\n",
	       FRAME_KIB);
}

static int run_info(int argc, char **argv)
{
	long long in_use;
	struct vmemexp *v;

	take_no_arguments(&verb_info, argc, argv);

	print_driver();
	print_device();
	in_use = print_limit();
	print_kernel();
	if (access(SYSFS_PATH, F_OK))
		print_obstacles_to_loading();
	print_obstacles_to_opening();
	print_obstacle_of_limit(in_use);
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
	"  the kernel's version; and what stands in the way, if anything does: a module that\n"
	"  is not there or not signed, Secure Boot, lockdown, no udev rule, a group, the\n"
	"  limit. Fails with advice if the driver is not loaded or its device may not be\n"
	"  opened.\n",
	.run = run_info,
};

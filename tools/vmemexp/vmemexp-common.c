// SPDX-License-Identifier: GPL-2.0
/* Code that the verbs of vmemexp(1) share. */
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmemexp-common.h"

int next_option(const struct verb *verb, int argc, char **argv,
		const struct option *options)
{
	const char *word;
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
		/* getopt is in the middle of a word whose letters are options. */
		word = argv[optind - 1];
		if (optind < argc && argv[optind][0] == '-' && argv[optind][1] == optopt)
			word = argv[optind];
		errx(EXIT_USAGE, "%s: unknown option %s", verb->name, word);
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

struct vmemexp *open_device(void)
{
	struct vmemexp_error error;
	struct vmemexp *v = vmemexp_open(DEVICE_PATH, &error);

	if (v)
		return v;

	if (access(SYSFS_PATH, F_OK))
		warnx("the driver is not loaded: as root, modprobe vmemexp or insmod vmemexp.ko");
	else if (error.err == EACCES || error.err == EPERM)
		warnx("%s may not be opened (%s): be root, or in a group that may",
		      DEVICE_PATH, errno_name(error.err));
	else if (error.err == ENOENT)
		warnx("the driver is loaded but %s is missing: mount devtmpfs",
		      DEVICE_PATH);
	else
		warnx("%s cannot be opened: %s", DEVICE_PATH, error_text(&error));
	return NULL;
}

const char *error_text(const struct vmemexp_error *error)
{
	/* The limit is what users meet first, and the command knows more of it. */
	const char *more = error->reason == VMEMEXP_REASON_LIMIT ?
			   " (vmemexp info tells more)" : "";
	static char text[256];
	size_t length;

	vmemexp_strerror(error, text, sizeof(text));
	length = strlen(text);
	snprintf(text + length, sizeof(text) - length, "%s (%s)", more, errno_name(error->err));
	return text;
}

/* From glibc 2.32 on; other libraries have no names. */
static const char *name_of_errno(int error)
{
#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 32)
	return strerrorname_np(error);
#endif
#endif
	(void)error;
	return NULL;
}

const char *errno_name(int error)
{
	const char *name = name_of_errno(error);
	static char number[32];

	if (name)
		return name;
	snprintf(number, sizeof(number), "errno %d", error);
	return number;
}

const char *printable(char *text)
{
	char *c;

	for (c = text; *c; c++)
		if (!isascii(*c) || !isprint(*c))
			*c = '?';
	return text;
}

void deadly_signals(sigset_t *signals)
{
	struct sigaction action;

	sigemptyset(signals);
	sigaddset(signals, SIGINT);
	sigaddset(signals, SIGTERM);
	if (!sigaction(SIGHUP, NULL, &action) && action.sa_handler != SIG_IGN)
		sigaddset(signals, SIGHUP);
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

void *alloc_frame(size_t size)
{
	void *memory;

	/* Less than that would waste more than it gains. */
	if (size > HUGE_PAGE / 4 && size <= SIZE_MAX - HUGE_PAGE)
		size = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
	if (posix_memalign(&memory, HUGE_PAGE, size))
		return NULL;
	madvise(memory, size, MADV_HUGEPAGE);
	memset(memory, 0, size);
	return memory;
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

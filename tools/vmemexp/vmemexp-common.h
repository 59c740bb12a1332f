/* SPDX-License-Identifier: GPL-2.0 */
/* Code that the verbs of vmemexp(1) share. */
#ifndef _VMEMEXP_COMMON_H
#define _VMEMEXP_COMMON_H

#include <getopt.h>
#include <signal.h>

#include <libvmemexp.h>

#define DEVICE_PATH	"/dev/vmemexp"
#define SYSFS_PATH	"/sys/module/vmemexp"

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

/* EXIT_SUCCESS and EXIT_FAILURE are those of stdlib.h. */
#define EXIT_USAGE	2

/**
 * struct verb - a word that vmemexp takes as its first argument
 * @name: the word
 * @arguments: what may follow it, for the usage line
 * @help: complete description, ending with a newline
 * @run: does it; gets the arguments from the word on, returns the exit status
 */
struct verb {
	const char *name;
	const char *arguments;
	const char *help;
	int (*run)(int argc, char **argv);
};

extern const struct verb verb_info;
extern const struct verb verb_selfcheck;
extern const struct verb verb_show;
extern const struct verb verb_export;
extern const struct verb verb_query;
extern const struct verb verb_list;
extern const struct verb verb_revoke;

/*
 * getopt_long() that deals with --help and with whatever is not understood
 * itself, by ending the program. Returns -1 behind the last option.
 */
int next_option(const struct verb *verb, int argc, char **argv,
		const struct option *options);

/* For verbs that take nothing but --help. */
void take_no_arguments(const struct verb *verb, int argc, char **argv);

/* Opens the device, or says what to do about it and returns NULL. */
struct vmemexp *open_device(void);

/* One sentence on why a call failed, with the errno's name, valid until the next call. */
const char *error_text(const struct vmemexp_error *error);

/* "EINVAL" for EINVAL, or "errno 22" where the C library knows no names; until the next call. */
const char *errno_name(int error);

/*
 * Puts '?' for what is not printable ASCII, and returns @text: programs give names to
 * themselves and to dma-bufs, which could command the terminal of the one who looks at them.
 */
const char *printable(char *text);

/*
 * SIGINT, SIGTERM, and SIGHUP unless nohup has it ignored. For commands with "&", shells have
 * SIGINT ignored, but who sends it means it.
 */
void deadly_signals(sigset_t *signals);

/* VMEMEXP_MEMORY_* bits in words, valid until the next call. */
const char *memory_names(unsigned int memory);

/* The usual size; where they are larger, one is too large for a frame. */
#define HUGE_PAGE	(2UL << 20)

/*
 * Zeroes from posix_memalign(), page aligned, or NULL: in as few physical pieces as one can
 * have without privilege and preparation, because some devices take no more than one.
 */
void *alloc_frame(size_t size);

/*
 * The number behind @field (without colon) in /proc/@pid/status, or -1 if there
 * is none: kernel threads have no memory, and processes end.
 */
long long status_value(const char *pid, const char *field, int base);

#endif /* _VMEMEXP_COMMON_H */

/* SPDX-License-Identifier: GPL-2.0 */
/* The state of the kernel and of the process, and how to put it right. */
#ifndef VMEMEXP_TEST_STATE_H
#define VMEMEXP_TEST_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For what kernels do otherwise since a version, and nothing else tells. */
bool kernel_at_least(unsigned int version, unsigned int patchlevel);
/* Kernels for real time have none. */
bool has_thp(void);
/*
 * Where the kernel bounces, it can only do so if its bounce buffers are within
 * reach of the device; the address behind these, or 0 if there are none.
 */
uint64_t bounce_buffers_end(void);

/* ---- files ---- */

/* Returns the number of bytes, or a negative errno; @text is terminated. */
int read_text(const char *path, char *text, size_t size);
/* Returns 0 or a negative errno. */
int write_text(const char *path, const char *text);
/* The number that is all of a file; -1 if it cannot be read. */
long read_number(const char *path);
/* Do both lead to the same file, and not to equal ones? */
bool is_same_file(int fd, int other);
#define TRACING		"/sys/kernel/tracing"

/*
 * Empties the trace and turns on @events, one or a directory of them. The
 * scheduler's, by which ftrace learns the names of tasks, stay off: patching code
 * that is running is not a thing to do often under multi-threaded emulation.
 */
int trace_events(const char *events);
/* The number behind @name in a file of "name value" lines; -1 if absent. */
long read_counter(const char *path, const char *name);

/* ---- what must be the same after as before ---- */

/* Pages of the whole system that are pinned now. */
long pinned_pages(void);
/* Pages that this process pinned and that count against its limit. */
long accounted_pages(void);
/* KiB of this process's page tables for small entries. */
long page_tables(void);
int open_files(void);
/* The next file descriptor; one that is reserved is in no directory. */
int next_file(void);

/* How long the last reference to a buffer may take to be dropped. */
#define RELEASE_TIMEOUT_MS	60000

struct test_state {
	long pins;
	int files;
	int next_file;
};

/* A test that gave up root must be able to take it back for this. */
struct test_state get_state(void);

/* ---- the system: what a test changes there, restore_system() puts right ---- */

#define RAM_DISK	"/dev/ram0"
#define MOUNT_POINT	"/tmp/vmemexp-ext4"
#define HUGE_PAGES	"/proc/sys/vm/nr_hugepages"

/* RAM_DISK is swap, or is mounted at MOUNT_POINT. */
extern bool swapping, mounted;

/* Writes a file of /proc or /sys and remembers what it held before. */
int set_knob(const char *path, const char *text);
void restore_system(void);
/* Runs a shell's command. Returns true if it succeeded. */
bool run(const char *command);

/* The name of something that a kind of memory needs and the kernel lacks, or NULL. */
const char *need_ram_disk(void);
const char *need_ext4(void);
const char *need_thp(void);
const char *need_hugetlb(void);
const char *need_packet(void);

#endif /* VMEMEXP_TEST_STATE_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A coverage-guided fuzzer of vmemexp; fuzz.c says how it works.
 *
 *	fuzz.c		the loop, the corpus, coverage, the process that watches
 *	program.c	programs: made at random, changed, written and read as text
 *	calls.c		what a program can do, run and cleaned up after
 *	memory.c	calls on memory that may be exported
 *	driver.c	the ioctls of /dev/vmemexp, and what they may answer
 *	dmabuf.c	calls on dma-bufs and importers
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/dma-buf.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kselftest.h>

#include "../lib/driver.h"
#include "../lib/exporters.h"
#include "../lib/importer.h"
#include "../lib/carveout.h"
#include "../lib/memory.h"
#include "../lib/process.h"
#include "../lib/range.h"
#include "../lib/state.h"

/* --- program.c --- */

#define MAX_CALLS	12
#define MAX_ARGS	10

/* With it a line of the kernel log is less than 1 KiB, which is all it takes. */
#define MAX_TEXT	960

/* Counted from the end of what it is about, or as it is. */
struct arg {
	uint64_t n;
	bool from_end;
};

struct call {
	unsigned int nr;	/* index in call_types[] */
	struct arg args[MAX_ARGS];
};

struct program {
	unsigned int nr_calls;
	struct call calls[MAX_CALLS];
};

/* How good values for an argument are found; any value may come all the same. */
enum arg_kind {
	ARG_NONE,		/* there are no more */
	ARG_PICK,		/* below @limit */
	ARG_SLOT,		/* the same, but half of them 0 */
	ARG_RARE,		/* mostly 0 */
	ARG_BITS,		/* of the mask @limit */
	ARG_OFFSET,		/* in bytes, half of them 0 */
	ARG_LENGTH,		/* in bytes, half of them all there is */
	ARG_ROWS,		/* how many, counted from what fits */
	ARG_COUNT,		/* how many, mostly all there are */
	ARG_NUMBER,		/* any number: small, negative, random, at a boundary */
};

struct arg_type {
	enum arg_kind kind;
	uint64_t limit;
};

/* Slots are few, so that calls meet each other's results. */
struct call_type {
	const char *name;
	/* Returns 0 or more, or a negative errno; it tells results apart. */
	int (*run)(const struct arg *args);
	unsigned int weight;	/* how often it is chosen */
	struct arg_type args[MAX_ARGS];
};

uint64_t random_number(void);
void seed_random(uint64_t seed);
void make_program(struct program *p);
/* Changes @p; calls may come from @other. */
void mutate_program(struct program *p, const struct program *other);
/* How long it takes, very roughly; the clock would not say the same each time. */
unsigned int program_cost(const struct program *p);
void print_program(const struct program *p, char text[MAX_TEXT]);
/* Returns true if @text is a program. */
bool parse_program(struct program *p, const char *text);

/* --- calls.c --- */

extern const struct call_type call_types[];
extern const unsigned int nr_call_types;

/* Before the watched process begins, and after it has ended. */
void setup_system(void);
void cleanup_system(void);
/* Return true if there is a file system on a disk at MOUNT_POINT. */
bool has_disk(void);
/* In the process that runs programs. */
void setup_calls(void);
/* Runs @p; calls @seen after each call with its result. */
void run_program(const struct program *p,
		 void (*seen)(unsigned int nr, int result));
/*
 * Return true, and print what is left, if the state differs from that before the first program or
 * after the last call.
 */
bool is_anything_left(void);
/* A program has found a bug. */
__attribute__((format(printf, 1, 2), noreturn)) void fail(const char *format, ...);
__attribute__((format(printf, 1, 2), noreturn)) void give_up(const char *format, ...);

/* Bytes, counted from the end of @size if the program says so. */
static inline uint64_t bytes_of(const struct arg *arg, uint64_t size)
{
	return arg->from_end ? size - arg->n : arg->n;
}

/* --- memory.c --- */

#define NR_REGIONS	5
#define NR_KINDS	20
#define NR_SIZES	16
#define REGION_SPACE	(2 * HUGE_PAGE)

struct region {
	char *addr;
	size_t size;
	int file;		/* behind it, or -1 */
	bool borrowed;		/* no memory of ours: must not be changed */
};

extern struct region regions[NR_REGIONS];

void setup_memory(void);
void clean_memory(void);
/* Unmap the slot, and return the address for a new mapping. */
char *begin_region(struct region *r);
/* A dma-buf was mapped at begin_region(). */
void set_region(struct region *r, char *addr, size_t size);

/* Runs @statement; false if there is no memory where it goes. */
#define try_access(statement) \
	(sigsetjmp(access_fault, 0) ? false : \
	 ({ access_guarded = true; statement; access_guarded = false; true; }))
extern sigjmp_buf access_fault;
extern volatile sig_atomic_t access_guarded;

int call_map(const struct arg *args);
int call_munmap(const struct arg *args);
int call_mprotect(const struct arg *args);
int call_mremap(const struct arg *args);
int call_madvise(const struct arg *args);
int call_touch(const struct arg *args);
int call_truncate(const struct arg *args);
int call_punch(const struct arg *args);
int call_take_away(const struct arg *args);
int call_fork(const struct arg *args);

/* --- driver.c --- */

#define NR_PLACES	8
#define NR_LISTS	8
#define NR_ARRAYS	12
#define NR_REPEATS	8

void setup_driver(void);
void clean_driver(void);
/* How many pages the user is charged for; less than 0 if it was given back too much. */
long charged_pages(void);

int call_export(const struct arg *args);
int call_range(const struct arg *args);
int call_export_list(const struct arg *args);
int call_sync(const struct arg *args);
int call_query(const struct arg *args);
int call_revoke(const struct arg *args);
int call_ti(const struct arg *args);
int call_unknown(const struct arg *args);
int call_list(const struct arg *args);
int call_limit(const struct arg *args);
int call_caps(const struct arg *args);
int call_allow(const struct arg *args);
int call_carveouts(const struct arg *args);

/* --- dmabuf.c --- */

/* The first are for dma-bufs, then for importers, then for what is left. */
#define NR_DMABUFS	3
#define FIRST_IMPORTER	3
#define NR_IMPORTERS	2
#define NR_FILES	7

struct file_slot {
	int fd;			/* or -1 */
	bool ours;		/* an export; the rest is what it answered */
	uint64_t size;
	uint64_t offset;
	uint64_t length;
	unsigned int nr_ranges;	/* 0: not known */
	bool writable;
	bool reused;		/* the answers are those of another one */
};

extern struct file_slot files[NR_FILES];

/* Steps of "import". */
enum import_step {
	IMPORT_DETACH, IMPORT_MAP, IMPORT_UNMAP, IMPORT_READ, IMPORT_WRITE, IMPORT_VMAP,
	IMPORT_VUNMAP, IMPORT_VREAD, IMPORT_VWRITE, IMPORT_BEGIN_CPU, IMPORT_END_CPU,
	IMPORT_MMAP, IMPORT_CACHE, NR_IMPORT_STEPS,
};

void setup_dmabuf(void);
void clean_dmabuf(void);
/* The slot for @file, with nothing in it. */
struct file_slot *set_file(const struct arg *slot, struct file_slot file);

int call_mmap(const struct arg *args);
int call_access(const struct arg *args);
int call_name(const struct arg *args);
int call_sync_file(const struct arg *args);
int call_poll(const struct arg *args);
int call_seek(const struct arg *args);
int call_read_write(const struct arg *args);
int call_dup(const struct arg *args);
int call_reopen(const struct arg *args);
int call_close(const struct arg *args);
int call_stat(const struct arg *args);
int call_foreign(const struct arg *args);
int call_fence(const struct arg *args);
int call_attach(const struct arg *args);
int call_import(const struct arg *args);

#endif /* FUZZ_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A driver without a kernel: open() and ioctl() of the library end here (ld --wrap).
 *
 * Dma-bufs are memfds, so that they are closed and counted as real ones are. "fake" has the
 * requests to the fake and its answers; tests with one thread read and set it as they like.
 */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmemexp.h>

#define FAKE_PAGE	4096

struct fake {
	/* The requests that it got. */
	unsigned int nr_opens, nr_exports, nr_queries, nr_syncs, nr_whole_syncs;
	char path[64];
	int open_flags;
	struct vmemexp_export export;
	struct vmemexp_range ranges[VMEMEXP_MAX_RANGES];
	struct vmemexp_sync sync;
	uint64_t whole_flags;
	int whole_fd;

	/* The next so many calls of this request fail. */
	unsigned long fail_request;
	unsigned int fail_times;
	int fail_errno;
	uint32_t fail_reason;
	uint64_t fail_addr;
	uint32_t fail_range;
	/* The bytes that it knows of these structures; of an old driver, fewer than all. */
	uint32_t export_size, query_size;
	/* Of the next exports. */
	uint32_t memory;
	uint32_t state;
	bool foreign;
	uint64_t offset;
	/* The devices that a query tells of. */
	uint32_t attachments;
	/* Called in the middle of an export, once. */
	void (*in_export)(void);
};

extern struct fake fake;

/* For fail_request. */
#define FAKE_OPEN	1UL

void fake_reset(void);
/* As if something had happened to the source of the dma-buf; by any thread. */
void fake_set_state(int dmabuf, uint32_t state);
/* A dma-buf of another exporter. */
int fake_foreign_dmabuf(uint64_t size);
/* How many descriptors this process has. */
unsigned int open_files(void);

/* The program counts in "failures". */
#define EXPECT(condition) do {						\
	if (!(condition)) {						\
		printf("# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
		failures++;						\
	}								\
} while (0)

/* The names by which the linker calls them. */
int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
/* 1 in each process, as in PID namespaces: nobody may tell processes apart by that. */
pid_t __wrap_getpid(void);

#endif /* FAKE_H */

// SPDX-License-Identifier: GPL-2.0
/* vmemexp query: what the driver knows of a dma-buf that some process has. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmemexp-common.h"

/* They have these numbers on all architectures. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open	434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd	438
#endif

/* Sets both, or ends the program. */
static void parse_target(const char *text, int *pid, int *fd)
{
	char end;

	if (text[strspn(text, "0123456789:")] ||
	    sscanf(text, "%9d:%9d%c", pid, fd, &end) != 2)
		errx(EXIT_USAGE, "query: wants PID:FD as in 1234:5, not %s", text);
}

/* A duplicate of that process's descriptor, or -1 after it has said why. */
static int fetch_descriptor(int pid, int fd)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int duplicate = -1;

	if (pidfd >= 0)
		duplicate = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (duplicate >= 0)
		;
	else if (pidfd < 0 && (errno == ESRCH || errno == EINVAL))
		warnx("there is no process %d (%s)", pid, errno_name(errno));
	else if (errno == EBADF)
		warnx("process %d has no descriptor %d (%s)", pid, fd, errno_name(errno));
	else if (errno == EPERM)
		warnx("process %d may not be looked into (%s): be root", pid, errno_name(errno));
	else
		warnx("descriptor %d of process %d cannot be had: %s (%s)", fd, pid,
		      strerror(errno), errno_name(errno));
	if (pidfd >= 0)
		close(pidfd);
	return duplicate;
}

static void print_state(unsigned int state)
{
	static const struct {
		unsigned int bit;
		const char *text;
	} bits[] = {
		{ VMEMEXP_STATE_STALE, "stale: the source has been unmapped or mapped anew" },
		{ VMEMEXP_STATE_BOUNCED, "bounced: a device works on a copy" },
		{ VMEMEXP_STATE_NO_VMAP, "no-vmap: it has no kernel mapping" },
		{ VMEMEXP_STATE_OVERLAPS, "overlaps: some of its pages are in it more than once" },
		{ VMEMEXP_STATE_REVOKED, "revoked: the memory has been taken back" },
		{ VMEMEXP_STATE_NO_PAGES, "no-pages: its memory has no struct pages" },
	};
	unsigned int i;

	if (!(state & VMEMEXP_STATE_TRACKED))
		puts("state        untracked: nothing tells whether the source is still mapped");
	else if (!(state & ~VMEMEXP_STATE_TRACKED))
		puts("state        live");
	for (i = 0; i < ARRAY_SIZE(bits); i++)
		if (state & bits[i].bit)
			printf("state        %s\n", bits[i].text);
}

static void print_query(const struct vmemexp_query *query)
{
	static const char * const caches[] = { "unknown", "cached", "write-combined", "uncached" };

	printf("dma-buf      %llu bytes, %s\n", (unsigned long long)query->dmabuf_size,
	       query->access & VMEMEXP_ACCESS_WRITE ? "read and write" : "read-only");
	printf("exported     %llu bytes at offset %llu, %s memory\n",
	       (unsigned long long)query->length, (unsigned long long)query->offset,
	       memory_names(query->memory));
	/* An older driver does not tell. */
	if (query->nr_ranges)
		printf("ranges       %u\n", query->nr_ranges);
	printf("cache        %s\n", caches[query->cache < ARRAY_SIZE(caches) ? query->cache : 0]);
	printf("extents      %llu contiguous, of %llu to %llu bytes, below 2^%u\n",
	       (unsigned long long)query->nr_extents, (unsigned long long)query->min_extent,
	       (unsigned long long)query->max_extent, query->address_bits);
	printf("devices      %u attached, %u DMA mappings\n", query->attachments, query->mappings);
	printf("mappings     %u of the kernel, %u of programs\n", query->vmaps,
	       query->cpu_mappings);
	print_state(query->state);
}

static int run_query(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct vmemexp_query query = { .size = sizeof(query) };
	struct vmemexp *v;
	int pid, fd, ret;

	next_option(&verb_query, argc, argv, options);
	if (optind + 1 != argc)
		errx(EXIT_USAGE, "query: wants one PID:FD");
	parse_target(argv[optind], &pid, &fd);

	v = open_device();
	if (!v)
		return EXIT_FAILURE;
	query.fd = fetch_descriptor(pid, fd);
	if (query.fd < 0) {
		vmemexp_close(v);
		return EXIT_FAILURE;
	}
	ret = ioctl(vmemexp_fd(v), VMEMEXP_IOC_QUERY, &query);
	if (!ret)
		print_query(&query);
	else if (errno == EINVAL)
		warnx("descriptor %d of process %d is no dma-buf of the driver (%s)", fd, pid,
		      errno_name(errno));
	else
		warn("the driver does not tell");
	vmemexp_close(v);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct verb verb_query = {
	.name = "query",
	.arguments = "PID:FD",
	.help =
	"  Print what the driver knows of a dma-buf that process PID has as descriptor FD:\n"
	"  size and access, kinds of memory, the number of ranges it is of, how it is cached,\n"
	"  its physically contiguous extents, who uses it, and its state. Wants the privilege\n"
	"  to trace PID.\n",
	.run = run_query,
};

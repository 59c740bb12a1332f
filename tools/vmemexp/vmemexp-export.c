// SPDX-License-Identifier: GPL-2.0
/* vmemexp export: the contents of a file as a dma-buf, for a command to use. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmemexp-common.h"

/**
 * struct content - memory that is going to be exported
 * @memory: begins with the contents, zeroes behind
 * @length: bytes of contents
 * @size: bytes at @memory, whole pages
 */
struct content {
	void *memory;
	size_t length;
	size_t size;
};

/* "4096", "16K", "8M" or "1G". */
static size_t parse_size(const char *text)
{
	static const char units[] = "KMG";
	unsigned long long size;
	const char *unit;
	char *end;

	errno = 0;
	size = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		int shift = 10 * (unit - units + 1);

		if (size << shift >> shift != size)
			errno = ERANGE;
		size <<= shift;
		end++;
	}
	if (errno || *end || end == text || *text == '-' || !vmemexp_aligned_size(size) ||
	    vmemexp_aligned_size(size) < size)
		errx(EXIT_USAGE, "export: --size needs a number as in 4096, 16K or 8M, not %s",
		     text);
	return size;
}

static int content_alloc(struct content *content, size_t size)
{
	content->size = vmemexp_aligned_size(size);
	content->memory = alloc_frame(content->size);
	if (!content->memory) {
		warnx("no memory for %zu bytes", size);
		return -1;
	}
	return 0;
}

/* Returns false if it has no room for more. */
static bool content_grow(struct content *content)
{
	struct content larger;

	if (content->size > SIZE_MAX / 2 || content_alloc(&larger, content->size * 2))
		return false;
	memcpy(larger.memory, content->memory, content->length);
	free(content->memory);
	content->memory = larger.memory;
	content->size = larger.size;
	return true;
}

/* Reads all of the file, and at least @size bytes become memory. */
static int content_read(struct content *content, const char *path, size_t size)
{
	bool is_input = !strcmp(path, "-");
	const char *name = is_input ? "standard input" : path;
	int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	size_t expected = size;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st)) {
		warn("%s", name);
		return -1;
	}
	/* Files of sysfs have less than they say. */
	if (S_ISREG(st.st_mode) && (size_t)st.st_size > size)
		expected = st.st_size;
	/* One more page shows that a file has ended, if it is whole pages. */
	if (content_alloc(content, expected + 1))
		return -1;
	while ((n = read(fd, (char *)content->memory + content->length,
			 content->size - content->length))) {
		if (n < 0 && errno != EINTR) {
			warn("%s", name);
			return -1;
		}
		content->length += n > 0 ? n : 0;
		if (content->length == content->size && !content_grow(content))
			return -1;
	}
	if (!is_input)
		close(fd);
	if (!content->length && !size) {
		warnx("%s is empty: there is nothing to export", name);
		return -1;
	}
	if (content->length < size)
		content->length = size;
	return 0;
}

static void set_variable(const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	setenv(name, text, true);
}

/* Runs the command with the descriptor and returns its status as a shell would. */
static int run_command(char **command, int fd)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		warn("no process for %s", command[0]);
		return EXIT_FAILURE;
	}
	if (!pid) {
		fcntl(fd, F_SETFD, 0);
		execvp(command[0], command);
		status = errno == ENOENT ? 127 : 126;
		warn("%s", command[0]);
		_exit(status);
	}
	/* A terminal sends signals to both; what the command makes of them counts. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_FAILURE;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Until a signal ends it, so that others can fetch the descriptor. */
static void hold(void)
{
	sigset_t signals;
	int number;

	fflush(stdout);
	deadly_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	sigwait(&signals, &number);
}

static int export(const struct content *content, unsigned int flags, char **command)
{
	struct vmemexp *v = open_device();
	struct vmemexp_error error;
	int status = EXIT_SUCCESS;
	struct vmemexp_buf *buf;

	if (!v)
		return EXIT_FAILURE;
	/* The rest of the last page is not for others to see. */
	if (vmemexp_export(v, content->memory, vmemexp_aligned_size(content->length), flags,
			   &buf, &error)) {
		warnx("the memory is refused: %s", error_text(&error));
		vmemexp_close(v);
		return EXIT_FAILURE;
	}
	set_variable("VMEMEXP_FD", vmemexp_buf_fd(buf));
	set_variable("VMEMEXP_SIZE", vmemexp_buf_size(buf));
	set_variable("VMEMEXP_LENGTH", content->length);
	if (command) {
		status = run_command(command, vmemexp_buf_fd(buf));
	} else {
		printf("%d:%d has %zu bytes, in a dma-buf of %" PRIu64 "\n", getpid(),
		       vmemexp_buf_fd(buf), content->length, vmemexp_buf_size(buf));
		hold();
	}
	vmemexp_buf_unref(buf);
	vmemexp_close(v);
	return status;
}

static int run_export(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "read-only", no_argument, NULL, 'r' },
		{ "contiguous", no_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct content content = { };
	char **command = NULL;
	const char *path;
	unsigned int flags = 0;
	size_t size = 0;
	int option, i;

	/* Before getopt, which would bring FILE behind it. */
	for (i = 1; i < argc && !command; i++) {
		if (strcmp(argv[i], "--"))
			continue;
		command = argv + i + 1;
		if (!*command)
			errx(EXIT_USAGE, "export: a command is missing behind --");
		argv[i] = NULL;
		argc = i;
	}
	while ((option = next_option(&verb_export, argc, argv, options)) >= 0) {
		if (option == 's')
			size = parse_size(optarg);
		else
			flags |= option == 'r' ? VMEMEXP_RDONLY : VMEMEXP_CONTIGUOUS;
	}
	if (optind + 1 < argc)
		errx(EXIT_USAGE, "export: unexpected argument %s (a command goes behind --)",
		     argv[optind + 1]);
	path = optind < argc ? argv[optind] : NULL;
	if (!path && !size)
		errx(EXIT_USAGE, "export: wants a file, - for standard input, or --size");

	if (path ? content_read(&content, path, size) : content_alloc(&content, size))
		return EXIT_FAILURE;
	if (!path)
		content.length = size;
	return export(&content, flags, command);
}

const struct verb verb_export = {
	.name = "export",
	.arguments = "[OPTION]... [FILE] [-- COMMAND...]",
	.help =
	"  Read FILE, or standard input if it is -, into memory, export that, and run\n"
	"  COMMAND with the descriptor of the dma-buf, whose number is in the variable\n"
	"  VMEMEXP_FD; VMEMEXP_SIZE has the bytes of the dma-buf, which are whole pages, and\n"
	"  VMEMEXP_LENGTH those of FILE, or those of --size if they are more. FILE itself is\n"
	"  not changed. The exit status is that of COMMAND. Without COMMAND, print PID:FD, as\n"
	"  vmemexp query wants it, and hold the export until a signal comes.\n"
	"\n"
	"  --size=BYTES          export at least so many, zeroes behind FILE or instead of\n"
	"                        it; K, M and G may follow the number\n"
	"  --read-only           nobody can write to it\n"
	"  --contiguous          fail unless the memory is one contiguous extent\n",
	.run = run_export,
};

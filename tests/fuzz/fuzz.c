// SPDX-License-Identifier: GPL-2.0
/*
 * fuzz - look for bugs in vmemexp by random programs, as root in a guest
 *
 * Usage: fuzz [--seed N] [--executions N] [--seconds N] [--no-coverage]
 *        fuzz --replay FILE
 *
 *   --seed N        begin with N (default 1); a seed gives the same programs again,
 *                   as long as the kernel answers the same
 *   --executions N  stop after N programs (default 10000 without --seconds)
 *   --seconds N     stop after N seconds, if that is earlier
 *   --no-coverage   do without CONFIG_KCOV: programs are interesting by their
 *                   results alone
 *   --replay FILE   run the programs in FILE, one a line, and check after each. Text
 *                   before "fuzz: program " in a line is ignored, so that it may be
 *                   a kernel log.
 *
 * A program is a few calls: see calls.c. One that reaches what none has reached
 * before, an edge in vmemexp.ko or a result of a call, is kept, and most programs
 * are changes to those that were kept. After each there must be no file
 * descriptor left, after each 64 no pin, charge or buffer. That, an answer that
 * include/uapi/vmemexp.h does not allow, a killed process and one that hangs are
 * failures.
 *
 * The program that failed is printed in the form that --replay takes. If the
 * kernel panics, it is the last "fuzz: program" on the console: each program goes
 * to the kernel log before it runs, where the console does not show it, and a panic
 * shows all of the log.
 *
 * The last lines tell the seed, what was reached, and "fuzz executions N".
 * Exit status: 0, 1 (a failure), 2 (wrong usage), 4 (there is no KCOV).
 */
#include <getopt.h>
#include <linux/kcov.h>
#include <signal.h>

#include "fuzz.h"

#define KCOV_PATH	"/sys/kernel/debug/kcov"
#define TEXT_SECTION	"/sys/module/vmemexp/sections/.text"

/* Addresses that one call may pass and that are looked at. */
#define MAX_TRACE	(64 * 1024)

#define DEFAULT_EXECUTIONS	10000

/* Precedes a program in the kernel log. */
#define MARK		"fuzz: program "

#define MAX_CORPUS	8192
#define NR_LATE		32

/* Programs from one check to the next. */
#define BATCH		64

/*
 * Enough for a busy emulated machine, and for the report of what a program has left behind, which
 * is waited for before.
 */
#define HANG_SECONDS	(60 + RELEASE_TIMEOUT_MS / 1000)

/* Bits of a Bloom filter with one hash: enough for some ten thousand. */
#define SET_BITS	0x100000

struct set {
	uint64_t bits[SET_BITS / 64];
	unsigned int count;
};

/* Memory that is shared with the watching process. */
static struct {
	char text[MAX_TEXT];
	unsigned long executions;
	unsigned int nr_corpus, nr_edges, nr_results;
} *shared;

static struct set edges, results;
static unsigned int nr_new;

static struct program corpus[MAX_CORPUS];
static unsigned int nr_corpus;

static unsigned long *trace;
static unsigned long text_base;
static int kmsg = -1;

static struct {
	uint64_t seed;
	unsigned long executions;
	unsigned long seconds;
	bool coverage;
	const char *replay;
} options = { .seed = 1, .coverage = true };

/* --- what has been reached --- */

static void add(struct set *set, uint64_t value)
{
	uint64_t bit = value * 0x9e3779b97f4a7c15 >> 32 & (SET_BITS - 1);

	if (set->bits[bit / 64] & 1ULL << bit % 64)
		return;
	set->bits[bit / 64] |= 1ULL << bit % 64;
	set->count++;
	nr_new++;
}

static void add_trace(void)
{
	unsigned long count = __atomic_load_n(&trace[0], __ATOMIC_RELAXED);
	uint64_t from = 0;

	for (unsigned long i = 1; i <= count; i++) {
		uint64_t to = trace[i] - text_base;

		add(&edges, from << 32 ^ to);
		from = to;
	}
	__atomic_store_n(&trace[0], 0, __ATOMIC_RELAXED);
}

static void add_result(unsigned int nr, int result)
{
	add(&results, (uint64_t)nr << 32 | (uint32_t)result);
	if (trace)
		add_trace();
}

/* Returns true if there is one. */
static bool open_kcov(void)
{
	char text[32];
	int fd = open(KCOV_PATH, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (read_text(TEXT_SECTION, text, sizeof(text)) < 0)
		give_up("%s: %s", TEXT_SECTION, strerror(errno));
	text_base = strtoul(text, NULL, 16);
	if (ioctl(fd, KCOV_INIT_TRACE, MAX_TRACE))
		give_up("KCOV_INIT_TRACE: %s", strerror(errno));
	trace = mmap(NULL, MAX_TRACE * sizeof(*trace), RW, MAP_SHARED, fd, 0);
	if (trace == MAP_FAILED)
		give_up("%s: %s", KCOV_PATH, strerror(errno));
	if (ioctl(fd, KCOV_ENABLE, KCOV_TRACE_PC))
		give_up("KCOV_ENABLE: %s", strerror(errno));
	return true;
}

/* --- the process that runs programs --- */

static void execute(const struct program *p)
{
	char line[MAX_TEXT + 32];
	int len;

	print_program(p, shared->text);
	/* 7: for the log alone. */
	len = sprintf(line, "<7>" MARK "%s\n", shared->text);
	if (write(kmsg, line, len) < 0)
		give_up("/dev/kmsg: %s", strerror(errno));
	nr_new = 0;
	run_program(p, add_result);
	shared->executions++;
	shared->nr_edges = edges.count;
	shared->nr_results = results.count;
}

/* Half of the time a late one, which is about what is hard to reach. */
static const struct program *pick_program(void)
{
	if (random_number() % 2 && nr_corpus > NR_LATE)
		return &corpus[nr_corpus - 1 - random_number() % NR_LATE];
	return &corpus[random_number() % nr_corpus];
}

static struct program next_program(void)
{
	const struct program *one, *other;
	struct program p;

	if (!nr_corpus || random_number() % 3 == 0) {
		make_program(&p);
		return p;
	}
	one = pick_program();
	other = pick_program();
	p = program_cost(one) <= program_cost(other) ? *one : *other;
	mutate_program(&p, other);
	return p;
}

static unsigned long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* Something is left of one of them: of which? */
static void blame(const struct program *batch, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		execute(&batch[i]);
		if (is_anything_left())
			fail("a program leaves something behind");
	}
	for (unsigned int i = 0; i < count; i++) {
		print_program(&batch[i], shared->text);
		printf(MARK "%s\n", shared->text);
	}
	fail("these programs together leave something behind");
}

static bool is_done(unsigned long end)
{
	return (options.executions && shared->executions >= options.executions) ||
	       (options.seconds && now() >= end);
}

static void explore(void)
{
	static struct program batch[BATCH];
	unsigned long end = now() + options.seconds;
	unsigned int count;

	while (!is_done(end)) {
		for (count = 0; count < BATCH && !is_done(end); count++) {
			batch[count] = next_program();
			execute(&batch[count]);
			if (nr_new && nr_corpus < MAX_CORPUS)
				corpus[nr_corpus++] = batch[count];
			shared->nr_corpus = nr_corpus;
		}
		if (is_anything_left())
			blame(batch, count);
	}
}

static void replay(FILE *file)
{
	char line[MAX_TEXT + 256], *text;
	struct program p;

	while (fgets(line, sizeof(line), file)) {
		text = strstr(line, MARK);
		text = text ? text + strlen(MARK) : line;
		text[strcspn(text, "\r\n")] = '\0';
		if (!parse_program(&p, text))
			continue;
		execute(&p);
		if (is_anything_left())
			fail("the program leaves something behind");
	}
	if (!shared->executions)
		give_up("%s: there is no program in it", options.replay);
}

static int work(void)
{
	FILE *programs = NULL;

	if (options.coverage && !open_kcov()) {
		printf("fuzz: %s: no KCOV (--no-coverage does without)\n", KCOV_PATH);
		return KSFT_SKIP;
	}
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (kmsg < 0)
		give_up("/dev/kmsg: %s", strerror(errno));
	/* A file that is opened later would count as left behind. */
	if (options.replay) {
		programs = fopen(options.replay, "r");
		if (!programs)
			give_up("%s: %s", options.replay, strerror(errno));
	}
	setup_calls();
	seed_random(options.seed);
	if (programs)
		replay(programs);
	else
		explore();
	return 0;
}

/* --- the process that watches it --- */

/* Returns its exit status, 1 if it was killed. */
static int watch(pid_t pid)
{
	unsigned long seen = 0, since = now();
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		sleep_ms(20);
		if (shared->executions != seen) {
			seen = shared->executions;
			since = now();
		} else if (now() - since > HANG_SECONDS) {
			printf("fuzz: failed: a program does not come to its end\n");
			kill(pid, SIGKILL);
			since = now();
		}
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("fuzz: failed: killed by signal %d\n", WTERMSIG(status));
	return 1;
}

static void usage_error(const char *what)
{
	fprintf(stderr, "fuzz: wrong usage: %s\n", what);
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (end == text || *end)
		usage_error(text);
	return n;
}

static void parse_options(int argc, char **argv)
{
	static const struct option names[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "executions", required_argument, NULL, 'e' },
		{ "seconds", required_argument, NULL, 't' },
		{ "no-coverage", no_argument, NULL, 'n' },
		{ "replay", required_argument, NULL, 'r' },
		{ }
	};
	int name;

	while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (name == 's')
			options.seed = number(optarg);
		else if (name == 'e')
			options.executions = number(optarg);
		else if (name == 't')
			options.seconds = number(optarg);
		else if (name == 'n')
			options.coverage = false;
		else if (name == 'r')
			options.replay = optarg;
		else
			exit(2);
	}
	if (optind < argc)
		usage_error(argv[optind]);
	if (!options.executions && !options.seconds)
		options.executions = DEFAULT_EXECUTIONS;
}

int main(int argc, char **argv)
{
	int status;
	pid_t pid;

	parse_options(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		give_up("no memory");
	setup_system();

	pid = fork();
	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (!pid)
		exit(work());
	status = watch(pid);
	cleanup_system();
	if (status == KSFT_SKIP)
		return status;
	if (status)
		printf(MARK "%s\n", shared->text);
	printf("fuzz seed %llu corpus %u edges %u results %u\n",
	       (unsigned long long)options.seed, shared->nr_corpus, shared->nr_edges,
	       shared->nr_results);
	printf("fuzz executions %lu\n", shared->executions);
	return status;
}

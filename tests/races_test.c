// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once: the threads of several processes export parts of one range, or lists
 * of them, sync, map, query, attach and close what the others exported, while something
 * happens to the range, to the processes, to memory, to a CPU or to the module.
 *
 * A race passes if the kernel does not complain, best under lockdep and KASAN, if a call that loses
 * fails with one of the errors allowed for it, and if nothing is left in the end.
 *
 * VMEMEXP_RACE_MS is how long each race takes (default 1000). Choices are random;
 * VMEMEXP_SEED repeats those of a run that printed its seed, though not the races.
 */
#include <glob.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "lib/vmemexp_utils.h"

#define RW		(PROT_READ | PROT_WRITE)
#define BUFFERS		"/sys/kernel/debug/vmemexp/buffers"
#define CPU1		"/sys/devices/system/cpu/cpu1/online"

#define PAGES		64
#define SIZE		(PAGES * page_size())

/* Parts of a list: they are drawn one by one, and may overlap. */
#define MAX_PARTS	5

#define PROCESSES	2
#define THREADS		3
#define SLOTS		4

/* A slow machine may need so long to have each thing happen once. */
#define MAX_MS		120000

static unsigned int seed;

struct process;
struct scene;

/* --- what all processes share --- */

/* Events that are counted. */
enum event {
	EXPORT, LIST_EXPORT, LOST_EXPORT, LOST_LIST_EXPORT, VISIT, LOST_VISIT, SYNC,
	RANGED_SYNC, QUERY, MMAP, ATTACH, DISTURBANCE, END, REFUSAL, SAW_STALE, SAW_REVOKED,
	NR_EVENTS,
};

static const char * const event_names[] = {
	"exports", "exports of lists", "lost exports", "lost exports of lists", "visits",
	"lost visits", "syncs", "ranged syncs", "queries", "mappings", "attachments",
	"disturbances", "ends", "refusals", "stale lists", "revoked lists",
};

struct race {
	bool over;
	bool poor;	/* of memory, so that any call may fail */
	bool closed;	/* to more visits, until the module has been reloaded */
	unsigned int events[NR_EVENTS];
	/* The first call that failed in a way that it must not. */
	const char *wrong;
	int wrong_errno;
};

static void count(struct race *race, enum event event)
{
	__atomic_add_fetch(&race->events[event], 1, __ATOMIC_RELAXED);
}

static unsigned int counted(const struct race *race, enum event event)
{
	return __atomic_load_n(&race->events[event], __ATOMIC_RELAXED);
}

static bool is_over(const struct race *race)
{
	return __atomic_load_n(&race->over, __ATOMIC_RELAXED);
}

static bool is_closed(const struct race *race)
{
	return __atomic_load_n(&race->closed, __ATOMIC_RELAXED);
}

/* @ret is 0 or a negative errno, @allowed ends with 0; whether it succeeded. */
static bool check(struct race *race, const char *call, int ret, const int *allowed)
{
	if (ret >= 0)
		return true;
	if (ret == -ENOMEM && race->poor)
		return false;
	while (*allowed && *allowed != -ret)
		allowed++;
	if (!*allowed && !__atomic_exchange_n(&race->wrong_errno, -ret, __ATOMIC_RELAXED))
		race->wrong = call;
	return false;
}

/* May be called by one thread with its own @state; never 0 if the state is not. */
static unsigned int draw(unsigned int *state, unsigned int below)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state % below;
}

/*
 * The parts of a race.
 * @inside: what a process does to itself or its memory, over and over
 * @outside: what the test does meanwhile
 * @prepare: what it needs; says what is missing, or NULL
 * @restore: undoes that
 * @shared: the range is shared memory, the same for all processes
 * @frames: it is page frames of a driver
 * @visits: the device is opened anew each time, and everything closed again
 * @ends: processes do not live long, or need not
 * @status: that they leave then
 * @lost: errors with which exports may lose as well, and some must
 * @states: VMEMEXP_STATE_* that some list must have been seen in
 */
struct rules {
	void (*inside)(struct process *process);
	void (*outside)(struct __test_metadata *_metadata, struct scene *self);
	const char *(*prepare)(struct scene *self);
	void (*restore)(struct scene *self);
	bool shared;
	bool frames;
	bool visits;
	bool ends;
	int status;
	int lost[2];
	unsigned int states;
};

struct scene {
	int fd;
	struct test_state before;
	struct race *race;
	pid_t processes[PROCESSES];
	unsigned int random;
	long available;		/* memory of the system, in KiB */
	char cgroup[64];
	char module[256], parameters[2][4096];
	unsigned int refusals;	/* to unload it, one after the other */
};

/* --- one process --- */

/*
 * @area: the range, PAGES long
 * @elsewhere: where it goes for a moment, as long
 * @memfd: what it is a mapping of, or -1
 * @driver: the device, unless each thread opens it for each visit
 * @slots: dma-bufs that all threads use and any of them exported; 0 if there is none. The thread
 *	that takes one out has to close it, the others may notice too late.
 */
struct process {
	struct race *race;
	const struct rules *rules;
	unsigned char *area;
	unsigned char *elsewhere;
	int memfd;
	int driver;
	int slots[SLOTS];
	unsigned int random;	/* the disturber's */
};

struct worker {
	struct process *process;
	unsigned int random;
	unsigned char *window;	/* for mappings: holes in the area are not for them */
};

/* --- what its threads do --- */

/* Another thread may have closed it, and the number may be of another file now. */
static const int stale[] = { EBADF, EINVAL, ENOTTY, ENODEV, ENXIO, EACCES, 0 };

/* The same, or a page is in it twice, which no device bears that works on a copy. */
static const int not_mapped[] = { EBADF, EINVAL, ENOTTY, ENODEV, ENXIO, EACCES, ENOTUNIQ, 0 };

/* Says that something else than an errno was wrong. */
static void report(struct race *race, const char *what)
{
	static const int nothing[] = { 0 };

	check(race, what, -ERANGE, nothing);
}

static struct vmemexp_range draw_range(struct worker *w)
{
	unsigned int first = draw(&w->random, PAGES);
	unsigned int pages = 1 + draw(&w->random, PAGES - first);

	return range_of(w->process->area + first * page_size(), pages * page_size());
}

/* Leaves out some bytes at either end of @nr ranges. */
static unsigned int cut_ends(struct vmemexp_range *ranges, unsigned int nr)
{
	ranges[0].vaddr += 8;
	ranges[0].length -= 8;
	ranges[nr - 1].length -= 8;
	return VMEMEXP_EXPORT_UNALIGNED;
}

/* Whatever others did meanwhile, an answer is about the ranges that were asked for. */
static void check_list(struct race *race, const struct vmemexp_export *cmd,
		       const struct vmemexp_range *ranges, int ret)
{
	uint64_t size = 0;

	for (unsigned int i = 0; i < cmd->nr_ranges; i++)
		size += ranges[i].length;
	if (!ret && (cmd->err_range || page_align(size) != cmd->dmabuf_size))
		report(race, "size of a list");
	if (ret && !cmd->err_reason && cmd->err_range)
		report(race, "range of an error that is about none");
	if (!ret || !cmd->err_reason)
		return;
	if (cmd->err_range >= cmd->nr_ranges) {
		report(race, "range of an error");
		return;
	}
	ranges += cmd->err_range;
	if (cmd->err_addr < (ranges->vaddr & -(uint64_t)page_size()) ||
	    cmd->err_addr >= ranges->vaddr + ranges->length)
		report(race, "address of an error");
	if (cmd->err_reason == VMEMEXP_REASON_CHANGED && cmd->err_addr % page_size())
		report(race, "address of a range that changed");
}

static void do_export(struct worker *w, int driver)
{
	unsigned int nr = draw(&w->random, 2) ? 1 : 2 + draw(&w->random, MAX_PARTS - 1);
	unsigned int access = draw(&w->random, 4) ? O_RDWR : O_RDONLY;
	struct vmemexp_range ranges[MAX_PARTS];
	struct vmemexp_export cmd;
	const int *lost = w->process->rules->lost;
	/* A page that others hold at this moment cannot be moved to where it may stay. */
	const int allowed[] = { EAGAIN, EBUSY, ENOMEM, lost[0], lost[1], 0 };
	struct race *race = w->process->race;
	int *slot = &w->process->slots[draw(&w->random, SLOTS)], old;
	unsigned int flags = 0;
	int ret;

	for (unsigned int i = 0; i < nr; i++)
		ranges[i] = draw_range(w);
	if (!draw(&w->random, 4))
		flags = cut_ends(ranges, nr);
	cmd = list_args(ranges, nr, access);
	if (nr == 1) {
		cmd = export_args(NULL, ranges[0].length, access);
		cmd.vaddr = ranges[0].vaddr;
	}
	cmd.flags = flags;
	ret = _test_ioctl(driver, VMEMEXP_IOC_EXPORT, &cmd);
	if (nr > 1)
		check_list(race, &cmd, ranges, ret);
	if (!check(race, nr > 1 ? "export of a list" : "export", ret, allowed)) {
		count(race, nr > 1 ? LOST_LIST_EXPORT : LOST_EXPORT);
		return;
	}
	count(race, nr > 1 ? LIST_EXPORT : EXPORT);
	old = __atomic_exchange_n(slot, cmd.fd, __ATOMIC_RELAXED);
	if (old)
		close(old);
}

static void do_sync(struct worker *w, int dmabuf)
{
	unsigned int access = 1 + draw(&w->random, DMA_BUF_SYNC_RW);
	int ret = _test_dmabuf_sync(dmabuf, access | DMA_BUF_SYNC_START);

	if (!check(w->process->race, "sync", ret, stale))
		return;
	count(w->process->race, SYNC);
	ret = _test_dmabuf_sync(dmabuf, access | DMA_BUF_SYNC_END);
	check(w->process->race, "end of sync", ret, stale);
}

static void do_ranged_sync(struct worker *w, int driver, int dmabuf)
{
	unsigned int flags = 1 + draw(&w->random, VMEMEXP_SYNC_RW);
	unsigned int rows = 1 + draw(&w->random, 8);
	int ret;

	if (draw(&w->random, 2))
		flags |= VMEMEXP_SYNC_END;
	if (!draw(&w->random, 4))
		flags |= VMEMEXP_SYNC_OBSERVER;
	ret = _test_sync_rows(driver, dmabuf, flags, draw(&w->random, 2 * page_size()),
			      1 + draw(&w->random, 256), 256, rows);
	if (check(w->process->race, "ranged sync", ret, stale))
		count(w->process->race, RANGED_SYNC);
}

static void do_query(struct worker *w, int driver, int dmabuf)
{
	struct vmemexp_query query = query_args(dmabuf);
	int ret = _test_ioctl(driver, VMEMEXP_IOC_QUERY, &query);

	if (!check(w->process->race, "query", ret, stale))
		return;
	count(w->process->race, QUERY);
	if (query.nr_ranges > 1 && query.state & VMEMEXP_STATE_STALE)
		count(w->process->race, SAW_STALE);
	if (query.nr_ranges > 1 && query.state & VMEMEXP_STATE_REVOKED)
		count(w->process->race, SAW_REVOKED);
}

/* A buffer may be revoked while a thread touches a mapping of it. */
static __thread sigjmp_buf revoked;

static void on_revoked(int sig)
{
	(void)sig;
	siglongjmp(revoked, 1);
}

static void touch(volatile unsigned char *view, unsigned int pages, bool write)
{
	if (sigsetjmp(revoked, 1))
		return;
	for (unsigned int i = 0; i < pages; i++) {
		if (write)
			view[i * page_size()]++;
		else
			(void)view[i * page_size()];
	}
}

/* In the window, which is reserved again afterwards. */
static void do_mmap(struct worker *w, int driver, int dmabuf)
{
	/* EPERM: of a part, when another thread has closed the descriptor. */
	static const int lost[] = { EBADF, EINVAL, ENODEV, ENXIO, EACCES, EFAULT, EPERM, 0 };
	unsigned int pages = 1 + draw(&w->random, 4);
	bool write = draw(&w->random, 2);
	size_t size = pages * page_size();
	volatile unsigned char *view = mmap(w->window, size, write ? RW : PROT_READ,
					    MAP_SHARED | MAP_FIXED, dmabuf, 0);
	struct vmemexp_export again = export_args(view, size, write ? O_RDWR : O_RDONLY);
	int ret = view == MAP_FAILED ? -errno : 0;

	if (check(w->process->race, "mmap", ret, stale)) {
		count(w->process->race, MMAP);
		touch(view, pages, write);
		/* One more for the same, by its mapping. */
		ret = _test_ioctl(driver, VMEMEXP_IOC_EXPORT, &again);
		if (check(w->process->race, "export of a mapping", ret, lost))
			close(again.fd);
	}
	mmap(w->window, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void do_attach(struct worker *w, int dmabuf)
{
	static const unsigned int devices[] = {
		IMPORTER_DEV_COHERENT, IMPORTER_DEV_SHADOW, IMPORTER_DEV_MERGED,
	};
	struct race *race = w->process->race;
	int session = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
	unsigned char byte;
	int ret;

	ret = _test_importer_attach(session, dmabuf, devices[draw(&w->random, 3)]);
	if (check(race, "attach", ret, stale)) {
		count(race, ATTACH);
		ret = _test_importer_map(session, draw(&w->random, 3));
		if (check(race, "map", ret, not_mapped))
			_test_importer_transfer(session, IMPORTER_IOC_READ, 0, &byte, 1);
		ret = _test_ioctl(session, IMPORTER_IOC_VMAP, NULL);
		check(race, "vmap", ret == -vmap_refused() ? -EINVAL : ret, stale);
		if (draw(&w->random, 2))
			_test_ioctl(session, IMPORTER_IOC_UNMAP, NULL);
	}
	close(session);
}

static void empty_slot(int *slot)
{
	int dmabuf = __atomic_exchange_n(slot, 0, __ATOMIC_RELAXED);

	if (dmabuf)
		close(dmabuf);
}

static void do_close(struct worker *w)
{
	empty_slot(&w->process->slots[draw(&w->random, SLOTS)]);
}

/* Something with any of the dma-bufs. */
static void do_something(struct worker *w, int driver)
{
	int dmabuf = __atomic_load_n(&w->process->slots[draw(&w->random, SLOTS)],
				     __ATOMIC_RELAXED);

	switch (dmabuf ? draw(&w->random, 8) : 0) {
	case 0:
	case 1:
		do_export(w, driver);
		break;
	case 2:
		do_sync(w, dmabuf);
		break;
	case 3:
		do_ranged_sync(w, driver, dmabuf);
		break;
	case 4:
		do_query(w, driver, dmabuf);
		break;
	case 5:
		do_mmap(w, driver, dmabuf);
		break;
	case 6:
		do_attach(w, dmabuf);
		break;
	default:
		do_close(w);
	}
}

/* The module may be gone, on its way, or be there in a moment. */
static void visit(struct worker *w)
{
	static const int gone[] = { ENOENT, ENODEV, ENXIO, 0 };
	struct race *race = w->process->race;
	int driver = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);

	if (check(race, "open", driver < 0 ? -errno : 0, gone)) {
		count(race, VISIT);
		for (int i = 0; i < 8; i++)
			do_something(w, driver);
		/* All: without further visits, no other thread would. */
		for (int i = 0; i < SLOTS; i++)
			empty_slot(&w->process->slots[i]);
		close(driver);
	} else {
		count(race, LOST_VISIT);
	}
	sleep_ms(draw(&w->random, 20));
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!is_over(w->process->race)) {
		if (is_closed(w->process->race))
			sleep_ms(1);
		else if (w->process->rules->visits)
			visit(w);
		else
			do_something(w, w->process->driver);
	}
	return NULL;
}

static void *reserve(void)
{
	return mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void map_area(struct process *p, unsigned int first, unsigned int pages)
{
	mmap(p->area + first * page_size(), pages * page_size(), RW,
	     MAP_FIXED | (p->memfd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED),
	     p->memfd, first * page_size());
}

/* Page frames of the stand-in for drivers of carve-outs, which come by faults. */
static int open_frames(void)
{
	struct carveout_setup setup = { .cache = CARVEOUT_CACHED, .how = CARVEOUT_HOW_FAULT };

	return _test_carveout_open(&setup);
}

/* Returns the exit status. */
static int run_process(struct process *p)
{
	struct worker workers[THREADS];
	pthread_t threads[THREADS];

	p->area = reserve();
	p->elsewhere = reserve();
	if (p->rules->frames) {
		signal(SIGBUS, on_revoked);
		p->memfd = open_frames();
		if (p->memfd < 0)
			return KSFT_FAIL;
	}
	map_area(p, 0, PAGES);
	p->driver = p->rules->visits ? -1 : open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
	for (int i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){
			.process = p, .random = p->random + i + 1, .window = reserve(),
		};
		if (pthread_create(&threads[i], NULL, work, &workers[i]))
			return KSFT_FAIL;
	}
	while (!is_over(p->race)) {
		if (!p->rules->inside) {
			sleep_ms(1);
			continue;
		}
		p->rules->inside(p);
		count(p->race, DISTURBANCE);
		/* Time for an export to which nothing happens. */
		if (!draw(&p->random, 8))
			sleep_ms(2);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return KSFT_PASS;
}

static pid_t start_process(struct race *race, const struct rules *rules, int memfd,
			   const char *cgroup, unsigned int random)
{
	pid_t child = fork_child();

	if (!child) {
		struct process p = {
			.race = race, .rules = rules, .memfd = memfd, .random = random,
		};

		if (*cgroup && write_text(cgroup, "0"))
			_exit(KSFT_FAIL);
		_exit(run_process(&p));
	}
	return child;
}

/* --- inside: what a process does to its own range --- */

struct part {
	unsigned int first, pages;
	unsigned char *addr;
	size_t offset, size;
};

static struct part draw_part(struct process *p)
{
	unsigned int first = draw(&p->random, PAGES);
	unsigned int pages = 1 + draw(&p->random, PAGES - first);

	return (struct part){
		first, pages, p->area + first * page_size(), first * page_size(),
		pages * page_size(),
	};
}

static void unmap_and_map(struct process *p)
{
	struct part part = draw_part(p);

	munmap(part.addr, part.size);
	map_area(p, part.first, part.pages);
}

static void move_away_and_back(struct process *p)
{
	struct part part = draw_part(p);
	void *to = p->elsewhere + part.offset;

	mremap(part.addr, part.size, part.size, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	mremap(to, part.size, part.size, MREMAP_MAYMOVE | MREMAP_FIXED, part.addr);
	mmap(to, part.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void drop_pages(struct process *p)
{
	struct part part = draw_part(p);

	madvise(part.addr, part.size, MADV_DONTNEED);
	memset(part.addr, 1, part.size);
}

static void remove_pages(struct process *p)
{
	struct part part = draw_part(p);

	madvise(part.addr, part.size, MADV_REMOVE);
}

static void punch_hole(struct process *p)
{
	struct part part = draw_part(p);

	fallocate(p->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, part.offset, part.size);
}

static void truncate_and_extend(struct process *p)
{
	ftruncate(p->memfd, draw_part(p).offset);
	ftruncate(p->memfd, SIZE);
}

static void protect(struct process *p)
{
	static const int prots[] = { PROT_NONE, PROT_READ };
	struct part part = draw_part(p);

	mprotect(part.addr, part.size, prots[draw(&p->random, 2)]);
	mprotect(part.addr, part.size, RW);
}

static void fork_and_write(struct process *p)
{
	pid_t child = fork_child();

	if (!child) {
		memset(p->area, 2, SIZE);
		_exit(KSFT_PASS);
	}
	memset(p->area, 3, SIZE);
	wait_for_child(child);
}

/* Has the driver take all away, and maps a new file of it: the old one has no more. */
static void take_away(struct process *p)
{
	int old = p->memfd;

	/* Time for exports that see nothing of it. */
	sleep_ms(draw(&p->random, 100));
	ioctl(old, CARVEOUT_IOC_TAKE_AWAY);
	sleep_ms(draw(&p->random, 10));
	p->memfd = open_frames();
	map_area(p, 0, PAGES);
	close(old);
}

/* The same when some of it is another mapping by now. */
static void take_away_and_map(struct process *p)
{
	unmap_and_map(p);
	if (!draw(&p->random, 4))
		take_away(p);
}

static void exit_soon(struct process *p)
{
	sleep_ms(draw(&p->random, 50));
	_exit(KSFT_PASS);
}

static void exec_soon(struct process *p)
{
	sleep_ms(draw(&p->random, 50));
	execl("/proc/self/exe", "races_test", "--exit", NULL);
	_exit(KSFT_FAIL);
}

/* --- outside: what happens to the processes and to the system --- */

static void kill_one(struct __test_metadata *_metadata, struct scene *self)
{
	sleep_ms(draw(&self->random, 50));
	EXPECT_EQ(0, kill(self->processes[draw(&self->random, PROCESSES)], SIGKILL));
	count(self->race, DISTURBANCE);
}

static const char *prepare_cpu(struct scene *self)
{
	(void)self;
	return access(CPU1, W_OK) ? "second CPU that can be turned off" : NULL;
}

static void turn_cpu_off_and_on(struct __test_metadata *_metadata, struct scene *self)
{
	EXPECT_EQ(0, write_text(CPU1, "0"));
	sleep_ms(draw(&self->random, 20));
	EXPECT_EQ(0, write_text(CPU1, "1"));
	sleep_ms(draw(&self->random, 20));
	count(self->race, DISTURBANCE);
}

static void restore_cpu(struct scene *self)
{
	(void)self;
	write_text(CPU1, "1");
}

#define CGROUPS		"/tmp/vmemexp-cgroup"
#define CGROUP		CGROUPS "/race"

/* As much as the processes and their dma-bufs need, and some. */
#define CGROUP_LIMIT	"33554432"

static const char *prepare_cgroup(struct scene *self)
{
	mkdir(CGROUPS, 0700);
	if (mount("cgroup2", CGROUPS, "cgroup2", 0, NULL))
		return "cgroups";
	if (write_text(CGROUPS "/cgroup.subtree_control", "+memory") || mkdir(CGROUP, 0700) ||
	    write_text(CGROUP "/memory.max", CGROUP_LIMIT)) {
		umount(CGROUPS);
		return "memory cgroups";
	}
	snprintf(self->cgroup, sizeof(self->cgroup), CGROUP "/cgroup.procs");
	/* To tests/vm/run: the kernel tells by a call trace whom it kills. */
	write_text("/dev/kmsg", "vmemexp-run: faults wanted");
	return NULL;
}

static void restore_cgroup(struct scene *self)
{
	write_text("/dev/kmsg", "vmemexp-run: no faults wanted");
	/* It may take a moment until those who were killed are gone. */
	for (int ms = 0; *self->cgroup && rmdir(CGROUP) && ms < RELEASE_TIMEOUT_MS; ms += 10)
		sleep_ms(10);
	umount(CGROUPS);
}

/* Takes all that the cgroup has, and is the one to be killed for it. */
static void use_up_memory(struct __test_metadata *_metadata, struct scene *self)
{
	const size_t size = 2 * strtoul(CGROUP_LIMIT, NULL, 10);
	pid_t hog = fork_child();

	if (!hog) {
		void *memory = map_anon(size);

		if (write_text(self->cgroup, "0") ||
		    write_text("/proc/self/oom_score_adj", "1000"))
			_exit(KSFT_FAIL);
		memset(memory, 1, size);
		_exit(KSFT_PASS);
	}
	EXPECT_EQ(128 + SIGKILL, wait_for_child(hog));
	count(self->race, DISTURBANCE);
}

#define MODULE		"/sys/module/vmemexp"
/* Refusals to unload it before visitors are told to wait. */
#define PATIENCE	100

/* The file that the module was loaded from, and what else it was told. */
static const char *prepare_module(struct scene *self)
{
	const char *file = getenv("VMEMEXP_KO");
	glob_t found;

	if (!file && !glob("/run/host/modules/*-vmemexp.ko", 0, NULL, &found))
		file = found.gl_pathv[0];
	if (!file)
		return "vmemexp.ko (VMEMEXP_KO=)";
	snprintf(self->module, sizeof(self->module), "%s", file);
	read_text(VMEMEXP_ALLOW, self->parameters[0], sizeof(self->parameters[0]));
	read_text(VMEMEXP_CARVEOUTS, self->parameters[1], sizeof(self->parameters[1]));
	/* The module must not be in use. */
	close(self->fd);
	return NULL;
}

static int load_module(struct scene *self)
{
	int file = open(self->module, O_RDONLY | O_CLOEXEC);
	int ret = syscall(SYS_finit_module, file, "", 0) ? -errno : 0;

	close(file);
	return ret;
}

static void reload_module(struct __test_metadata *_metadata, struct scene *self)
{
	if (syscall(SYS_delete_module, "vmemexp", O_NONBLOCK)) {
		EXPECT_EQ(EWOULDBLOCK, errno);
		count(self->race, REFUSAL);
		/* Where visits take long, there is always one. */
		if (++self->refusals == PATIENCE)
			__atomic_store_n(&self->race->closed, true, __ATOMIC_RELAXED);
		sleep_ms(draw(&self->random, 5));
		return;
	}
	self->refusals = 0;
	__atomic_store_n(&self->race->closed, false, __ATOMIC_RELAXED);
	sleep_ms(draw(&self->random, 5));
	EXPECT_EQ(0, load_module(self));
	count(self->race, DISTURBANCE);
}

static void restore_module(struct scene *self)
{
	if (access(MODULE, F_OK))
		load_module(self);
	write_text(VMEMEXP_ALLOW, self->parameters[0]);
	write_text(VMEMEXP_CARVEOUTS, self->parameters[1]);
	self->fd = open(VMEMEXP_PATH, O_RDWR | O_CLOEXEC);
}

/* --- the test --- */

static void set_up(struct __test_metadata *_metadata, struct scene *self,
		   const struct rules *rules)
{
	const char *missing;

	skip_without_importer();
	if (rules->frames)
		skip_without_carveout();
	test_setup();
	missing = rules->prepare ? rules->prepare(self) : NULL;
	if (missing)
		SKIP(return, "the system has no %s", missing);
	self->race = mmap(NULL, sizeof(*self->race), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->race);
	self->race->poor = *self->cgroup;
	self->available = read_counter("/proc/meminfo", "MemAvailable");
	ASSERT_LT(0, self->available);
	self->random = seed;
}

/* But for what a debug kernel keeps of what was freed, and other caches. */
static void __expect_memory_back(struct __test_metadata *_metadata, long available)
{
	long slack = read_counter("/proc/meminfo", "MemTotal") / 32 + 16 * 1024;
	long now = 0;

	for (int ms = 0; now < available - slack && ms < RELEASE_TIMEOUT_MS; ms += 10) {
		sleep_ms(10);
		now = read_counter("/proc/meminfo", "MemAvailable");
	}
	EXPECT_LE(available - slack, now);
}

/* All of the limit is there to be used. */
static void __expect_nothing_charged(struct __test_metadata *_metadata, int fd)
{
	struct vmemexp_export cmd;

	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	cmd = export_args(map_anon(SIZE), SIZE, O_RDWR);
	limit_memlock(SIZE);
	close(__test_export(_metadata, fd, &cmd));
}

static void tear_down(struct __test_metadata *_metadata, struct scene *self,
		      const struct rules *rules)
{
	char buffers[4096];

	if (rules->restore)
		rules->restore(self);
	__expect_memory_back(_metadata, self->available);
	__expect_nothing_charged(_metadata, self->fd);
	EXPECT_LT(0, read_text(BUFFERS, buffers, sizeof(buffers)));
	EXPECT_EQ(NULL, strstr(buffers, "races_test")) {
		TH_LOG("%s", buffers);
	}
	test_teardown();
}

static long elapsed_ms(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000;
}

/* Return true if all that this race is about has happened. */
static bool all_happened(const struct race *race, const struct rules *rules)
{
	for (enum event i = 0; i < NR_EVENTS; i++) {
		bool wanted = true;

		if (i == LOST_EXPORT)
			wanted = rules->lost[0];
		else if (i == LOST_LIST_EXPORT)
			wanted = rules->lost[0];
		else if (i == SAW_STALE)
			wanted = rules->states & VMEMEXP_STATE_STALE;
		else if (i == SAW_REVOKED)
			wanted = rules->states & VMEMEXP_STATE_REVOKED;
		else if (i == VISIT || i == LOST_VISIT || i == REFUSAL)
			wanted = rules->visits;
		else if (i == DISTURBANCE)
			wanted = rules->outside || (rules->inside && !rules->ends);
		else if (i == END)
			wanted = rules->inside && rules->ends;
		if (wanted && !counted(race, i))
			return false;
	}
	return true;
}

static void run_race(struct __test_metadata *_metadata, struct scene *self,
		     const struct rules *rules)
{
	const char *text = getenv("VMEMEXP_RACE_MS");
	long ms = text ? strtol(text, NULL, 0) : 1000;
	struct race *race = self->race;
	struct timespec start;
	int status, memfd = -1, n = 0;
	char line[512] = "";

	if (rules->shared) {
		memfd = memfd_create("races_test", MFD_CLOEXEC);
		ASSERT_EQ(0, ftruncate(memfd, SIZE));
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (elapsed_ms(&start) < ms ||
	       (!all_happened(race, rules) && elapsed_ms(&start) < MAX_MS)) {
		for (int i = 0; i < PROCESSES; i++) {
			if (self->processes[i]) {
				if (waitpid(self->processes[i], &status, WNOHANG) == 0)
					continue;
				count(race, END);
				EXPECT_TRUE(rules->ends);
				EXPECT_EQ(rules->status, WIFEXITED(status) ?
					  WEXITSTATUS(status) : 128 + WTERMSIG(status));
			}
			self->processes[i] = start_process(race, rules, memfd, self->cgroup,
							   1 + draw(&self->random, INT_MAX));
		}
		if (rules->outside)
			rules->outside(_metadata, self);
		else
			sleep_ms(1);
		if (_metadata->exit_code)
			break;
	}
	__atomic_store_n(&race->over, true, __ATOMIC_RELAXED);
	for (int i = 0; i < PROCESSES; i++) {
		status = wait_for_child(self->processes[i]);
		EXPECT_TRUE(status == 0 || status == rules->status);
	}
	close(memfd);

	EXPECT_EQ(0, race->wrong_errno) {
		TH_LOG("%s: %s", race->wrong, strerror(race->wrong_errno));
	}
	EXPECT_TRUE(all_happened(race, rules));
	for (enum event i = 0; i < NR_EVENTS; i++)
		if (counted(race, i))
			n += snprintf(line + n, sizeof(line) - n, ", %u %s", counted(race, i),
				      event_names[i]);
	TH_LOG("%ld ms%s", elapsed_ms(&start), line);
}

FIXTURE(race)
{
	struct scene scene;
};

FIXTURE_VARIANT(race)
{
	struct rules rules;
};

FIXTURE_SETUP(race)
{
	set_up(_metadata, &self->scene, &variant->rules);
}

FIXTURE_TEARDOWN(race)
{
	tear_down(_metadata, &self->scene, &variant->rules);
}

TEST_F_TIMEOUT(race, is_lost_as_it_may_be_and_leaves_nothing, 2 * MAX_MS / 1000)
{
	run_race(_metadata, &self->scene, &variant->rules);
}

/* --- the races --- */

FIXTURE_VARIANT_ADD(race, with_nothing_but_each_other) { .rules = {
	.inside = NULL,
} };

FIXTURE_VARIANT_ADD(race, with_munmap) { .rules = {
	.inside = unmap_and_map, .lost = { EFAULT }, .states = VMEMEXP_STATE_STALE,
} };

FIXTURE_VARIANT_ADD(race, with_munmap_of_shared_memory) { .rules = {
	.inside = unmap_and_map, .shared = true, .lost = { EFAULT },
	.states = VMEMEXP_STATE_STALE,
} };

FIXTURE_VARIANT_ADD(race, with_mremap) { .rules = {
	.inside = move_away_and_back, .lost = { EFAULT }, .states = VMEMEXP_STATE_STALE,
} };

FIXTURE_VARIANT_ADD(race, with_a_driver_that_takes_page_frames_away) { .rules = {
	.inside = take_away, .frames = true, .lost = { EFAULT, EINVAL },
	.states = VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED,
} };

FIXTURE_VARIANT_ADD(race, with_a_driver_that_takes_away_what_is_mapped_anew) { .rules = {
	.inside = take_away_and_map, .frames = true, .lost = { EFAULT, EINVAL },
	.states = VMEMEXP_STATE_STALE | VMEMEXP_STATE_REVOKED,
} };

FIXTURE_VARIANT_ADD(race, with_mprotect) { .rules = {
	.inside = protect, .lost = { EFAULT, EACCES },
} };

FIXTURE_VARIANT_ADD(race, with_madv_dontneed) { .rules = {
	.inside = drop_pages,
} };

FIXTURE_VARIANT_ADD(race, with_madv_remove) { .rules = {
	.inside = remove_pages, .shared = true,
} };

FIXTURE_VARIANT_ADD(race, with_holes) { .rules = {
	.inside = punch_hole, .shared = true,
} };

FIXTURE_VARIANT_ADD(race, with_truncation) { .rules = {
	.inside = truncate_and_extend, .shared = true, .lost = { EFAULT },
} };

FIXTURE_VARIANT_ADD(race, with_fork) { .rules = {
	.inside = fork_and_write,
} };

FIXTURE_VARIANT_ADD(race, with_exit) { .rules = {
	.inside = exit_soon, .ends = true,
} };

FIXTURE_VARIANT_ADD(race, with_exec) { .rules = {
	.inside = exec_soon, .ends = true,
} };

FIXTURE_VARIANT_ADD(race, with_sigkill) { .rules = {
	.outside = kill_one, .ends = true, .status = 128 + SIGKILL,
} };

FIXTURE_VARIANT_ADD(race, with_lack_of_memory) { .rules = {
	.prepare = prepare_cgroup, .outside = use_up_memory, .restore = restore_cgroup,
	.shared = true, .ends = true, .status = 128 + SIGKILL,
} };

FIXTURE_VARIANT_ADD(race, with_a_cpu_that_goes_and_comes) { .rules = {
	.prepare = prepare_cpu, .outside = turn_cpu_off_and_on, .restore = restore_cpu,
} };

FIXTURE_VARIANT_ADD(race, with_reloads_of_the_module) { .rules = {
	.prepare = prepare_module, .outside = reload_module, .restore = restore_module,
	.visits = true,
} };

/* Other than itself, the tests execute this program with an argument. */
int main(int argc, char **argv)
{
	const char *text = getenv("VMEMEXP_SEED");

	if (argc == 2 && !strcmp(argv[1], "--exit"))
		return 0;
	seed = text ? strtoul(text, NULL, 0) : (unsigned int)time(NULL);
	/* The generator never leaves 0. */
	seed = seed ?: 1;
	ksft_print_msg("VMEMEXP_SEED=%u\n", seed);
	return test_harness_run(argc, argv);
}

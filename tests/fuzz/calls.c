// SPDX-License-Identifier: GPL-2.0
/*
 * The calls that a program can make, and the checks after it.
 *
 * Nothing is left of one program when the next one begins: the slots are empty,
 * the files closed, and whatever it did to the process is undone. The same
 * program does the same thing at the same addresses whenever it runs.
 */
#include <stdarg.h>
#include <sys/syscall.h>

#include "fuzz.h"

#define BUFFERS		"/sys/kernel/debug/vmemexp/buffers"

/* How many file descriptors are looked at for one that is not free. */
#define NR_FREE_FILES	31

#define PROT		{ ARG_BITS, PROT_READ | PROT_WRITE | PROT_EXEC }
#define REGION		{ ARG_SLOT, NR_REGIONS }
#define DMABUF		{ ARG_SLOT, NR_DMABUFS }
#define IMPORTER	{ ARG_SLOT, NR_IMPORTERS }
#define FILE_SLOT	{ ARG_PICK, NR_FILES }
#define OFFSET		{ ARG_OFFSET, 0 }
#define LENGTH		{ ARG_LENGTH, 0 }
#define NUMBER		{ ARG_NUMBER, 0 }
#define ROWS		{ ARG_ROWS, 0 }
#define COUNT		{ ARG_COUNT, 0 }
/* The place of the argument of an ioctl, and a word of it that is changed. */
#define PLACE		{ ARG_RARE, NR_PLACES }
#define WORD		{ ARG_RARE, 40 }

/* Slow calls have the weight 1. */
const struct call_type call_types[] = {
	/* kind, size, protection, and what is special about the kind */
	{ "map", call_map, 32,
	  { REGION, { ARG_PICK, NR_KINDS }, { ARG_PICK, NR_SIZES }, PROT,
	    { ARG_PICK, 1 << 10 } } },
	{ "munmap", call_munmap, 12, { REGION, OFFSET, LENGTH } },
	{ "mprotect", call_mprotect, 12, { REGION, OFFSET, LENGTH, PROT } },
	{ "mremap", call_mremap, 12,
	  { REGION, OFFSET, LENGTH, LENGTH, REGION, { ARG_PICK, 3 } } },
	{ "madvise", call_madvise, 12, { REGION, OFFSET, LENGTH, { ARG_PICK, 16 } } },
	/* what, in steps of */
	{ "touch", call_touch, 20,
	  { REGION, OFFSET, LENGTH, { ARG_PICK, 2 }, { ARG_PICK, 4 } } },
	{ "truncate", call_truncate, 4, { REGION, OFFSET } },
	{ "punch", call_punch, 4, { REGION, OFFSET, LENGTH } },
	{ "take_away", call_take_away, 4, { REGION } },
	{ "fork", call_fork, 1, { REGION, { ARG_PICK, 2 } } },

	/* the fields; where the structure is, its size, a word of it, what goes there */
	{ "export", call_export, 80,
	  { REGION, OFFSET, LENGTH,
	    { ARG_BITS, VMEMEXP_EXPORT_UNALIGNED | VMEMEXP_EXPORT_CONTIGUOUS },
	    { ARG_BITS, O_RDWR | O_CLOEXEC }, DMABUF,
	    PLACE, NUMBER, WORD, NUMBER } },
	/* one more range of the list, how often, and how far apart */
	{ "range", call_range, 40,
	  { REGION, OFFSET, LENGTH, { ARG_RARE, NR_REPEATS }, OFFSET } },
	/* ranges, where the array is, the fields; the same as above */
	{ "export_list", call_export_list, 80,
	  { COUNT, { ARG_RARE, NR_ARRAYS },
	    { ARG_BITS, VMEMEXP_EXPORT_UNALIGNED | VMEMEXP_EXPORT_CONTIGUOUS },
	    { ARG_BITS, O_RDWR | O_CLOEXEC }, DMABUF,
	    PLACE, NUMBER, WORD, NUMBER } },
	{ "sync", call_sync, 80,
	  { DMABUF,
	    { ARG_BITS, VMEMEXP_SYNC_RW | VMEMEXP_SYNC_END | VMEMEXP_SYNC_OBSERVER },
	    ROWS, OFFSET, LENGTH, LENGTH, PLACE, NUMBER, WORD, NUMBER } },
	{ "query", call_query, 24,
	  { DMABUF, { ARG_RARE, 2 }, PLACE, NUMBER, WORD, NUMBER } },
	/* flags, where the names go to, how many bytes of them */
	{ "revoke", call_revoke, 8,
	  { DMABUF, { ARG_RARE, 2 }, { ARG_RARE, 2 }, NUMBER, PLACE, NUMBER, WORD, NUMBER } },
	/* which one, the fields of an export, where the structure is */
	{ "ti", call_ti, 16,
	  { { ARG_PICK, 3 }, REGION, OFFSET, LENGTH, DMABUF, { ARG_RARE, NR_PLACES } } },
	{ "unknown", call_unknown, 4, { NUMBER, { ARG_RARE, NR_PLACES } } },
	{ "list", call_list, 4, { { 0 } } },
	/* of memory or files, how much */
	{ "limit", call_limit, 16, { { ARG_PICK, 2 }, { ARG_PICK, 20 } } },
	{ "caps", call_caps, 8, { { ARG_PICK, 8 } } },
	{ "allow", call_allow, 8, { { ARG_BITS, 0xff } } },
	{ "carveouts", call_carveouts, 8, { { ARG_PICK, NR_LISTS } } },

	/* where to, offset, length, protection, how */
	{ "mmap", call_mmap, 32,
	  { DMABUF, REGION, OFFSET, LENGTH, PROT, { ARG_RARE, 4 } } },
	{ "access", call_access, 20,
	  { DMABUF, { ARG_BITS, DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END } } },
	{ "name", call_name, 4, { DMABUF, { ARG_PICK, 3 } } },
	{ "sync_file", call_sync_file, 8,
	  { DMABUF, FILE_SLOT, { ARG_PICK, 2 }, { ARG_BITS, DMA_BUF_SYNC_RW } } },
	{ "poll", call_poll, 4, { DMABUF, { ARG_PICK, 4 } } },
	{ "seek", call_seek, 4, { DMABUF, OFFSET, { ARG_PICK, 5 } } },
	{ "read_write", call_read_write, 4, { FILE_SLOT, { ARG_PICK, 2 } } },
	{ "dup", call_dup, 8, { FILE_SLOT, FILE_SLOT } },
	{ "reopen", call_reopen, 4, { DMABUF, DMABUF, { ARG_BITS, O_ACCMODE } } },
	{ "close", call_close, 16, { FILE_SLOT } },
	{ "stat", call_stat, 4, { FILE_SLOT } },
	{ "foreign", call_foreign, 1,
	  { DMABUF, { ARG_PICK, 3 }, { ARG_PICK, NR_SIZES } } },
	{ "fence", call_fence, 1, { DMABUF, { ARG_PICK, 2 }, FILE_SLOT } },

	/* the device; a step, and what it may want */
	{ "attach", call_attach, 40,
	  { IMPORTER, DMABUF, { ARG_PICK, IMPORTER_NR_DEVS },
	    { ARG_RARE, 2 } } },
	{ "import", call_import, 80,
	  { IMPORTER, { ARG_PICK, NR_IMPORT_STEPS }, { ARG_PICK, 3 }, OFFSET, LENGTH,
	    REGION } },
};

const unsigned int nr_call_types = ARRAY_SIZE(call_types);

/* Resources that a program may leave behind. All are long, so there is no padding to compare. */
struct state {
	long free_files;	/* bit I: number first_file + I */
	long pins;
	long accounted;		/* pages, to the process */
	long charged;		/* pages, to the user */
	long buffers;
};

static struct state before;
static int first_file;

/* --- verdicts --- */

void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("fuzz: failed: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_exit(1);
}

void give_up(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "fuzz: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	_exit(1);
}

/* --- the system --- */

/*
 * Programs go to the kernel log, to be seen if the kernel panics, only then. restore_system()
 * undoes this.
 */
static void setup_log(void)
{
	set_knob("/sys/module/printk/parameters/ignore_loglevel", "N");
	set_knob("/proc/sys/kernel/printk", "7");
	set_knob("/proc/sys/kernel/panic_print", "32");
}

void setup_system(void)
{
	static const unsigned int owned[] = { 0, 1, CARVEOUT_REGION_RAM };
	struct carveout_info info;
	char list[128];
	int len = 0;

	if (page_size() != PAGE)
		give_up("pages are not %lu bytes", PAGE);
	if (access(BUFFERS, R_OK))
		give_up("%s: %s", BUFFERS, strerror(errno));

	setup_log();
	run("modprobe -q vgem");
	set_knob(HUGE_PAGES, "8");
	/* All that the stand-in has. */
	for (unsigned int i = 0; i < ARRAY_SIZE(owned); i++) {
		if (_test_carveout_info(owned[i], &info))
			continue;
		len += snprintf(list + len, sizeof(list) - len, "%s%#llx:%#llx",
				len ? "," : "", (unsigned long long)info.base,
				(unsigned long long)info.size);
	}
	set_knob(VMEMEXP_CARVEOUTS, len ? list : "\n");

	mkdir(MOUNT_POINT, 0700);
	mounted = !need_ext4() && run("mke2fs -q " RAM_DISK " >/dev/null 2>&1") &&
		  !mount(RAM_DISK, MOUNT_POINT, "ext4", 0, NULL);
}

bool has_disk(void)
{
	return mounted;
}

void cleanup_system(void)
{
	restore_system();
}

/* One that is reserved can be seen only by not getting it. */
static long free_files(void)
{
	long free = 0;
	int fd;

	while ((fd = dup(STDOUT_FILENO)) >= 0 && fd < first_file + NR_FREE_FILES)
		free |= 1L << (fd - first_file);
	syscall(SYS_close_range, first_file, ~0U, 0);
	return free;
}

static long listed_buffers(void)
{
	static char text[64 * 1024];
	int lines = 0;

	if (read_text(BUFFERS, text, sizeof(text)) < 0)
		give_up("%s cannot be read", BUFFERS);
	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	return lines - 1;
}

static struct state state_now(void)
{
	return (struct state){
		.free_files = free_files(),
		.pins = pinned_pages(),
		.accounted = accounted_pages(),
		.charged = charged_pages(),
		.buffers = listed_buffers(),
	};
}

void setup_calls(void)
{
	setup_memory();
	setup_dmabuf();
	setup_driver();
	first_file = next_file();
	before = state_now();
}

bool is_anything_left(void)
{
	struct state now = state_now();

	/* References may be dropped a moment later. */
	for (int ms = 0; memcmp(&now, &before, sizeof(now)) && ms < RELEASE_TIMEOUT_MS; ms += 100) {
		sleep_ms(100);
		now = state_now();
	}
	if (!memcmp(&now, &before, sizeof(now)))
		return false;
	printf("fuzz: left: %ld pinned, %ld accounted, %ld charged pages, %ld buffers",
	       now.pins - before.pins, now.accounted - before.accounted,
	       now.charged - before.charged, now.buffers - before.buffers);
	printf(", free file descriptors %#lx instead of %#lx\n", now.free_files,
	       before.free_files);
	before = now;
	return true;
}

/* --- programs --- */

void run_program(const struct program *p,
		 void (*seen)(unsigned int nr, int result))
{
	for (unsigned int i = 0; i < p->nr_calls; i++) {
		const struct call *call = &p->calls[i];

		seen(call->nr, call_types[call->nr].run(call->args));
	}
	/* Drop references to dma-bufs in another order than they were taken. */
	clean_driver();
	clean_memory();
	clean_dmabuf();
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Calls on dma-bufs, as everybody who is given one can make them, and on devices
 * that import them.
 */
#include <poll.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <drm.h>

#include "fuzz.h"

/* Time after which the wait for a fence that is never signalled is interrupted. */
#define FENCE_WAIT_MS	20

/* Devices with 28 address bits cannot do with memory beyond them. */
#define MASK28_END	0x10000000

struct file_slot files[NR_FILES];

static bool fences;		/* there are some, and waits are to be interrupted */
static int vgem = -1;		/* the number of its card */
static uint64_t bounce_end;
static char buffer[64 * 1024];

static void on_alarm(int sig)
{
	(void)sig;
}

/* Again and again, since more than one call may wait. */
static void set_alarm(int ms)
{
	struct itimerval timer = { { 0, ms * 1000 }, { 0, ms * 1000 } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static int open_card(int nr)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/dri/card%d", nr);
	return open(path, O_RDWR | O_CLOEXEC);
}

void setup_dmabuf(void)
{
	/* Calls that wait are to end, not to begin again. */
	struct sigaction action = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < NR_FILES; i++)
		files[i].fd = -1;
	for (int nr = 0; nr < 8 && vgem < 0; nr++) {
		int card = open_card(nr);

		if (is_vgem(card))
			vgem = nr;
		close(card);
	}
	bounce_end = bounce_buffers_end();
}

/* The test importer counts wrong uses of the DMA API. */
static void check_importer(int fd)
{
	struct importer_info info;

	if (!_test_ioctl(fd, IMPORTER_IOC_INFO, &info) && info.nr_errors)
		fail("%llu wrong uses of the DMA API", (unsigned long long)info.nr_errors);
}

static void close_slot(struct file_slot *f)
{
	if (f->fd < 0)
		return;
	if (f >= files + FIRST_IMPORTER)
		check_importer(f->fd);
	close(f->fd);
	*f = (struct file_slot){ .fd = -1 };
}

void clean_dmabuf(void)
{
	for (int i = 0; i < NR_FILES; i++)
		close_slot(&files[i]);
	if (fences)
		set_alarm(0);
	fences = false;
}

static struct file_slot *slot_of(const struct arg *arg)
{
	return &files[arg->n % NR_FILES];
}

struct file_slot *set_file(const struct arg *slot, struct file_slot file)
{
	struct file_slot *f = slot_of(slot);

	close_slot(f);
	*f = file;
	return f;
}

static int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

/* --- the file descriptor --- */

int call_mmap(const struct arg *args)
{
	static const int flags[] = {
		MAP_SHARED, MAP_PRIVATE, MAP_SHARED | MAP_POPULATE, MAP_SHARED | MAP_LOCKED,
	};
	const struct file_slot *f = slot_of(&args[0]);
	uint64_t offset = bytes_of(&args[2], f->size);
	uint64_t length = bytes_of(&args[3], f->size - offset);
	struct region *r = &regions[args[1].n % NR_REGIONS];
	uint64_t reach = length > REGION_SPACE ? 0 : length;
	char *place = begin_region(r), *addr;

	/* Longer ones, of several ranges, do not fit there. */
	addr = mmap(place, length, args[4].n & 7, flags[args[5].n & 3] | (reach ? MAP_FIXED : 0),
		    f->fd, offset);
	if (addr == MAP_FAILED)
		return -errno;
	if (f->ours && (offset > f->size || length > page_align(f->size - offset)))
		fail("mmap of %#llx bytes at %#llx of %#llx", (unsigned long long)length,
		     (unsigned long long)offset, (unsigned long long)f->size);
	if (f->ours && !f->writable && args[4].n & PROT_WRITE)
		fail("mmap for writing of what is read-only");
	if (!reach) {
		munmap(addr, length);
		return -ERANGE;
	}
	set_region(r, place, length);
	return args[5].n & 3;
}

int call_access(const struct arg *args)
{
	return _test_dmabuf_sync(slot_of(&args[0])->fd, args[1].n);
}

int call_name(const struct arg *args)
{
	static const char * const names[] = {
		"name", "", "a name that is longer than a dma-buf's may be",
	};

	return result(ioctl(slot_of(&args[0])->fd, DMA_BUF_SET_NAME, names[args[1].n % 3]));
}

int call_sync_file(const struct arg *args)
{
	struct dma_buf_export_sync_file export = { .flags = args[3].n, .fd = -1 };
	struct dma_buf_import_sync_file import = { .flags = args[3].n };
	int fd = slot_of(&args[0])->fd, ret;

	if (args[2].n & 1) {
		import.fd = slot_of(&args[1])->fd;
		return _test_ioctl(fd, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &import);
	}
	ret = _test_ioctl(fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &export);
	if (!ret)
		set_file(&args[1], (struct file_slot){ .fd = export.fd });
	return ret;
}

int call_poll(const struct arg *args)
{
	static const short events[] = { POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI };
	struct pollfd p = { slot_of(&args[0])->fd, events[args[1].n & 3], 0 };

	return poll(&p, 1, 0) < 0 ? -errno : p.revents;
}

int call_seek(const struct arg *args)
{
	const struct file_slot *f = slot_of(&args[0]);
	off_t at = lseek(f->fd, bytes_of(&args[1], f->size), args[2].n);

	if (f->ours && at > 0 && (uint64_t)at != f->size)
		fail("seek: %#llx of %#llx", (unsigned long long)at,
		     (unsigned long long)f->size);
	return result(at);
}

int call_read_write(const struct arg *args)
{
	const struct file_slot *f = slot_of(&args[0]);

	/* The fence file descriptors of a card would wait for events. */
	if (!f->ours)
		return -EOPNOTSUPP;
	return result(args[1].n & 1 ? write(f->fd, buffer, PAGE) : read(f->fd, buffer, PAGE));
}

int call_dup(const struct arg *args)
{
	struct file_slot copy = *slot_of(&args[0]);

	copy.fd = dup(copy.fd);
	if (copy.fd < 0)
		return -errno;
	set_file(&args[1], copy);
	return 0;
}

int call_reopen(const struct arg *args)
{
	struct file_slot copy = *slot_of(&args[0]);
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", copy.fd);
	copy.fd = open(path, (args[2].n & O_ACCMODE) | O_CLOEXEC);
	if (copy.fd < 0)
		return -errno;
	if (copy.ours)
		fail("a dma-buf can be opened by its path");
	set_file(&args[1], copy);
	return 0;
}

int call_close(const struct arg *args)
{
	close_slot(slot_of(&args[0]));
	return 0;
}

int call_stat(const struct arg *args)
{
	const struct file_slot *f = slot_of(&args[0]);
	char path[40], text[1024];
	struct stat st;

	if (fstat(f->fd, &st))
		return -errno;
	if (f->ours && (uint64_t)st.st_size != f->size)
		fail("stat: size %lld of %#llx", (long long)st.st_size,
		     (unsigned long long)f->size);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", f->fd);
	return read_text(path, text, sizeof(text)) < 0 ? -1 : 0;
}

/* A dma-buf of another driver. */
int call_foreign(const struct arg *args)
{
	size_t size = (1 + args[2].n % NR_SIZES) * PAGE;
	int fd;

	switch (args[1].n % 3) {
	case 0:
		fd = make_udmabuf(size);
		break;
	case 1:
		fd = make_heap_dmabuf(size);
		break;
	default:
		fd = make_vgem_dmabuf(size);
	}
	if (fd < 0)
		return -ENODEV;
	set_file(&args[0], (struct file_slot){ .fd = fd, .size = size });
	return args[1].n % 3;
}

/* vgem's interface; libdrm does not have <vgem_drm.h>. */
struct fence_attach {
	uint32_t handle;
	uint32_t flags;		/* 1: the device writes */
	uint32_t fence;
	uint32_t pad;
};

#define FENCE_IOC_ATTACH DRM_IOWR(DRM_COMMAND_BASE + 1, struct fence_attach)

/* The longest segment for a device whose driver, as vgem, does not set one. */
#define MAX_SEGMENT	(64 << 10)

/*
 * vgem works on the dma-buf until its card is closed. CONFIG_DMA_API_DEBUG does not
 * cope with one device that maps the same memory twice, so it does only once; and it
 * complains of longer pieces.
 */
int call_fence(const struct arg *args)
{
	struct drm_prime_handle prime = { .fd = slot_of(&args[0])->fd };
	struct fence_attach attach = { .flags = args[1].n & 1 };
	int card, ret;

	if (vgem < 0 || fences || lseek(prime.fd, 0, SEEK_END) > MAX_SEGMENT)
		return -ENODEV;
	card = open_card(vgem);
	if (card < 0)
		return -errno;
	fences = true;
	set_alarm(FENCE_WAIT_MS);
	ret = _test_ioctl(card, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime);
	attach.handle = prime.handle;
	if (!ret)
		ret = _test_ioctl(card, FENCE_IOC_ATTACH, &attach);
	set_file(&args[2], (struct file_slot){ .fd = card });
	return ret;
}

/* --- importers --- */

static struct file_slot *importer_of(const struct arg *arg)
{
	return &files[FIRST_IMPORTER + arg->n % NR_IMPORTERS];
}

/*
 * The kernel warns where a device cannot reach the memory or the bounce buffers, or does no
 * DMA, and with CONFIG_DMA_API_DEBUG_SG of entries that are larger than its segments. That does
 * not go with CONFIG_DMABUF_DEBUG for dma-bufs of a heap: see importer_test.
 */
static bool may_attach(const struct file_slot *f, unsigned int dev)
{
	if (!f->ours && !access("/sys/kernel/debug/dma-api", F_OK))
		return false;
	/* Heaps map for it all the same. */
	if (dev == IMPORTER_DEV_NO_DMA)
		return f->ours;
	if (dev == IMPORTER_DEV_SEGMENT64K)
		return f->size <= 0x10000;
	if (dev == IMPORTER_DEV_MASK28)
		return bounce_end ? bounce_end <= MASK28_END : f->ours;
	return true;
}

int call_attach(const struct arg *args)
{
	struct file_slot *importer = importer_of(&args[0]);
	const struct file_slot *f = slot_of(&args[1]);
	struct importer_attach arg = {
		.dmabuf_fd = f->fd, .device = args[2].n, .flags = args[3].n,
	};

	if (!may_attach(f, arg.device))
		return -EOPNOTSUPP;
	if (importer->fd < 0) {
		importer->fd = open(IMPORTER_PATH, O_RDWR | O_CLOEXEC);
		importer->size = f->size;
	}
	return _test_ioctl(importer->fd, IMPORTER_IOC_ATTACH, &arg) ?: (int)arg.device;
}

static int import_transfer(int fd, unsigned long nr, uint64_t size, const struct arg *args)
{
	uint64_t offset = bytes_of(&args[3], size);
	uint64_t length = bytes_of(&args[4], size - offset);

	if (length > sizeof(buffer))
		length = sizeof(buffer);
	return _test_importer_transfer(fd, nr, offset, buffer, length);
}

static int import_mmap(int fd, uint64_t size, const struct arg *args)
{
	uint64_t offset = bytes_of(&args[3], size);
	uint64_t length = bytes_of(&args[4], size - offset);
	struct region *r = &regions[args[5].n % NR_REGIONS];
	char *place = begin_region(r);

	if (length > REGION_SPACE)
		return -ERANGE;
	if (mmap(place, length, args[2].n == 2 ? PROT_READ : RW, MAP_SHARED | MAP_FIXED, fd,
		 offset) == MAP_FAILED)
		return -errno;
	set_region(r, place, length);
	return 0;
}

int call_import(const struct arg *args)
{
	const struct file_slot *importer = importer_of(&args[0]);
	struct importer_cache cache = {
		.address = to_u64(regions[args[5].n % NR_REGIONS].addr),
		.flags = args[2].n & IMPORTER_CACHE_OF_VMAP,
	};
	int fd = importer->fd;

	switch (args[1].n % NR_IMPORT_STEPS) {
	case IMPORT_DETACH:
		check_importer(fd);
		return _test_ioctl(fd, IMPORTER_IOC_DETACH, NULL);
	case IMPORT_MAP:
		return _test_importer_map(fd, args[2].n);
	case IMPORT_UNMAP:
		return _test_ioctl(fd, IMPORTER_IOC_UNMAP, NULL);
	case IMPORT_READ:
		return import_transfer(fd, IMPORTER_IOC_READ, importer->size, args);
	case IMPORT_WRITE:
		return import_transfer(fd, IMPORTER_IOC_WRITE, importer->size, args);
	case IMPORT_VMAP:
		return _test_ioctl(fd, IMPORTER_IOC_VMAP, NULL);
	case IMPORT_VUNMAP:
		return _test_ioctl(fd, IMPORTER_IOC_VUNMAP, NULL);
	case IMPORT_VREAD:
		return import_transfer(fd, IMPORTER_IOC_VREAD, importer->size, args);
	case IMPORT_VWRITE:
		return import_transfer(fd, IMPORTER_IOC_VWRITE, importer->size, args);
	case IMPORT_BEGIN_CPU:
		return _test_importer_direction(fd, IMPORTER_IOC_BEGIN_CPU, args[2].n);
	case IMPORT_END_CPU:
		return _test_importer_direction(fd, IMPORTER_IOC_END_CPU, args[2].n);
	case IMPORT_MMAP:
		return import_mmap(fd, importer->size, args);
	default:
		return _test_ioctl(fd, IMPORTER_IOC_CACHE, &cache);
	}
}

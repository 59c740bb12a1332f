// SPDX-License-Identifier: GPL-2.0
/*
 * V4L2: capture into and output from exported dma-bufs, by vivid, and that no
 * driver writes to what the exporter could only read.
 *
 * vivid has no DMA engine: its CPU moves the pictures, through a kernel mapping
 * (vmap) of the dma-buf. That is all it asks for with allocators=0
 * (vb2-vmalloc). With allocators=1 (vb2-dma-contig) the dma-buf is mapped for a
 * device without scatter-gather that has 32 address bits, too, and must be
 * contiguous for it. Where that device has to bounce, because the memory lies
 * above 4 GiB or by swiotlb=force, vivid writes past the bounce buffer, whose old
 * contents win at the next sync and at the end. So pictures are looked at before.
 */
#include "lib/vmemexp_memory.h"

#include <grp.h>
#include <linux/videodev2.h>
#include <sys/resource.h>

/* Small, and no multiple of the page size. */
#define WIDTH		320
#define HEIGHT		180
#define PICTURE_SIZE	(WIDTH * HEIGHT * 2UL)

/*
 * A buffer has a page that no picture reaches. It is smaller than the 256 KiB
 * that can bounce in one piece.
 */
#define BUFFER_SIZE	(((PICTURE_SIZE + PAGE - 1) & ~(PAGE - 1)) + PAGE)
#define SLOT_SIZE	(HUGE_PAGE / 16)

#define MAX_VIDEOS	8

/* Controls of vivid's own. */
#define CID_PATTERN	0x00f0f000
#define CID_TEXT	0x00f0f001
#define CID_LOOP	0x00f0f025	/* in 6.1 */
#define CID_CONNECTED	0x00f0f080	/* in 6.12: the first S-Video input */

#define PATTERN_SQUARES	4
#define TEXT_NONE	2

/* ---- vivid: one S-Video input, which shows a picture, and one output ---- */

static bool load_vivid(unsigned int allocator)
{
	static const char format[] =
		"modprobe -q vivid node_types=0x101 input_types=2 num_outputs=1 allocators=%u";
	char command[sizeof(format)];

	/* A test that died may have left it, with another allocator. */
	run("rmmod vivid 2>/dev/null");
	snprintf(command, sizeof(command), format, allocator);
	return run(command);
}

/* One side of the device: an open file of a video node. */
struct video {
	int fd;
	unsigned int type;
};

/* Opens the node that has @type, or sets the file to -1. */
static struct video open_video(unsigned int type)
{
	unsigned int caps = type == V4L2_BUF_TYPE_VIDEO_OUTPUT ?
			    V4L2_CAP_VIDEO_OUTPUT : V4L2_CAP_VIDEO_CAPTURE;
	struct video video = { .type = type };

	for (int i = 0; i < MAX_VIDEOS; i++) {
		struct v4l2_capability capability;
		char path[32];

		snprintf(path, sizeof(path), "/dev/video%d", i);
		video.fd = open(path, O_RDWR | O_CLOEXEC);
		if (!_test_ioctl(video.fd, VIDIOC_QUERYCAP, &capability) &&
		    !strcmp((char *)capability.driver, "vivid") &&
		    capability.device_caps & caps)
			return video;
		close(video.fd);
	}
	video.fd = -1;
	return video;
}

/* Not PAL: the first line would begin with something else in each frame. */
static int _test_set_format(const struct video *video)
{
	v4l2_std_id standard = V4L2_STD_NTSC;
	struct v4l2_format format = {
		.type = video->type,
		.fmt.pix = {
			.width = WIDTH,
			.height = HEIGHT,
			.pixelformat = V4L2_PIX_FMT_YUYV,
		},
	};
	int ret = _test_ioctl(video->fd, VIDIOC_S_STD, &standard) ?:
		  _test_ioctl(video->fd, VIDIOC_S_FMT, &format);

	return !ret && format.fmt.pix.sizeimage != PICTURE_SIZE ? -ERANGE : ret;
}

static int _test_set_control(const struct video *video, unsigned int id, int value)
{
	struct v4l2_control control = { .id = id, .value = value };

	return _test_ioctl(video->fd, VIDIOC_S_CTRL, &control);
}

/*
 * The picture is then the same in all frames. vivid's threads are let first: in
 * 6.12 one that had to wait for the CPU before it goes to sleep may ask to sleep
 * for less than no time, and the kernel log tells of it with a backtrace.
 */
static void __open_vivid(struct __test_metadata *_metadata,
			 struct video *capture, struct video *output)
{
	ASSERT_EQ(19, nice(19));
	*capture = open_video(V4L2_BUF_TYPE_VIDEO_CAPTURE);
	ASSERT_LE(0, capture->fd);
	ASSERT_EQ(0, _test_set_format(capture));
	ASSERT_EQ(0, _test_set_control(capture, CID_PATTERN, PATTERN_SQUARES));
	ASSERT_EQ(0, _test_set_control(capture, CID_TEXT, TEXT_NONE));
	*output = open_video(V4L2_BUF_TYPE_VIDEO_OUTPUT);
	ASSERT_LE(0, output->fd);
	ASSERT_EQ(0, _test_set_format(output));
}

/* Connect the input to the output. */
static void __connect_output(struct __test_metadata *_metadata,
			     const struct video *capture)
{
	struct v4l2_querymenu item = { .id = CID_CONNECTED };

	if (!_test_set_control(capture, CID_LOOP, 1))
		return;
	for (; item.index < 8; item.index++)
		if (!_test_ioctl(capture->fd, VIDIOC_QUERYMENU, &item) &&
		    !strncmp((char *)item.name, "Output S-Video", 14))
			break;
	ASSERT_EQ(0, _test_set_control(capture, CID_CONNECTED, item.index));
}

#define connect_output(capture) __connect_output(_metadata, capture)

static int _test_request(const struct video *video, unsigned int memory,
			 unsigned int count)
{
	struct v4l2_requestbuffers cmd = {
		.type = video->type,
		.memory = memory,
		.count = count,
	};

	return _test_ioctl(video->fd, VIDIOC_REQBUFS, &cmd);
}

#define test_request(video, count) \
	ASSERT_EQ(0, _test_request(video, V4L2_MEMORY_DMABUF, count))

static int _test_queue(const struct video *video, unsigned int index, int dmabuf,
		       size_t length)
{
	struct v4l2_buffer cmd = {
		.type = video->type,
		.memory = V4L2_MEMORY_DMABUF,
		.index = index,
		.m.fd = dmabuf,
		.length = length,
		.bytesused = PICTURE_SIZE,
	};

	return _test_ioctl(video->fd, VIDIOC_QBUF, &cmd);
}

#define test_queue(video, index, dmabuf) \
	ASSERT_EQ(0, _test_queue(video, index, dmabuf, BUFFER_SIZE))

/* Waits. Returns the index of a buffer that is done, or a negative errno. */
static int _test_dequeue(const struct video *video, unsigned int memory)
{
	struct v4l2_buffer cmd = { .type = video->type, .memory = memory };
	int ret = _test_ioctl(video->fd, VIDIOC_DQBUF, &cmd);

	if (ret)
		return ret;
	if (cmd.flags & V4L2_BUF_FLAG_ERROR || cmd.bytesused != PICTURE_SIZE)
		return -EIO;
	return cmd.index;
}

static unsigned int __test_dequeue(struct __test_metadata *_metadata,
				   const struct video *video, unsigned int memory)
{
	int index = _test_dequeue(video, memory);

	ASSERT_LE(0, index);
	return index;
}

#define test_dequeue(video) \
	__test_dequeue(_metadata, video, V4L2_MEMORY_DMABUF)

static int _test_stream(const struct video *video, bool on)
{
	int type = video->type;

	return _test_ioctl(video->fd, on ? VIDIOC_STREAMON : VIDIOC_STREAMOFF,
			   &type);
}

#define test_stream(video, on) ASSERT_EQ(0, _test_stream(video, on))

/* Without as many queued, the vivid of older kernels (5.10) does not begin. */
#define LEAST_BUFFERS	2

/* The picture in memory of the kernel's own; to be freed. */
static unsigned char *__capture_by_mmap(struct __test_metadata *_metadata,
					const struct video *video)
{
	unsigned char *picture = malloc(PICTURE_SIZE);
	struct v4l2_buffer cmd = {
		.type = video->type,
		.memory = V4L2_MEMORY_MMAP,
	};
	void *view;

	ASSERT_EQ(0, _test_request(video, V4L2_MEMORY_MMAP, LEAST_BUFFERS));
	ASSERT_EQ(0, _test_ioctl(video->fd, VIDIOC_QUERYBUF, &cmd));
	view = mmap(NULL, PICTURE_SIZE, PROT_READ, MAP_SHARED, video->fd,
		    cmd.m.offset);
	ASSERT_NE(MAP_FAILED, view);
	for (cmd.index = 0; cmd.index < LEAST_BUFFERS; cmd.index++)
		ASSERT_EQ(0, _test_ioctl(video->fd, VIDIOC_QBUF, &cmd));
	test_stream(video, true);
	ASSERT_EQ(0, __test_dequeue(_metadata, video, V4L2_MEMORY_MMAP));
	memcpy(picture, view, PICTURE_SIZE);
	munmap(view, PICTURE_SIZE);
	test_stream(video, false);
	ASSERT_EQ(0, _test_request(video, V4L2_MEMORY_MMAP, 0));

	/* There is something in it. */
	ASSERT_NE(0, memcmp(picture, picture + PICTURE_SIZE / 2, PICTURE_SIZE / 2));
	return picture;
}

#define capture_by_mmap(video) __capture_by_mmap(_metadata, video)

/* ---- memory: one huge page, or as much, which holds all buffers ---- */

static void make_malloced(struct __test_metadata *_metadata, struct memory *m)
{
	m->addr = aligned_alloc(PAGE, m->size);
	ASSERT_NE(NULL, m->addr);
	write_contents(m, 1);
}

static void make_scattered(struct __test_metadata *_metadata, struct memory *m)
{
	const size_t pages = m->size / PAGE;

	m->addr = map(m->size, RW, ANON, -1);
	ASSERT_EQ(0, forbid_thp(m->addr, m->size));
	for (size_t i = 0; i < pages; i++)
		m->addr[i * 7 % pages * PAGE] = 1;
	write_contents(m, 1);
}

/* One of the buffers in the memory, and its dma-buf. */
struct buffer {
	unsigned char *addr;
	int dmabuf;
};

static struct buffer __export_slot(struct __test_metadata *_metadata, int fd,
				   const struct memory *m, unsigned int slot,
				   unsigned int flags)
{
	unsigned char *addr = m->addr + slot * SLOT_SIZE;
	struct vmemexp_export cmd = export_args(addr, BUFFER_SIZE, O_RDWR | O_CLOEXEC);

	cmd.flags = flags;
	__test_export(_metadata, fd, &cmd);
	return (struct buffer){ addr, cmd.fd };
}

#define export_slot(slot)						\
	__export_slot(_metadata, self->fd, &self->m, slot,		\
		      variant->allocator ? VMEMEXP_EXPORT_CONTIGUOUS : 0)

/* Two patterns, so that both parts can be looked at alone. */
static void fill_buffer(const struct buffer *buffer, unsigned int seed)
{
	fill(buffer->addr, PICTURE_SIZE, seed);
	fill(buffer->addr + PICTURE_SIZE, BUFFER_SIZE - PICTURE_SIZE, seed + 1);
}

#define expect_filled(buffer, seed)					\
	EXPECT_EQ(-1, first_difference((buffer)->addr, PICTURE_SIZE, seed))

#define expect_rest_filled(buffer, seed)				\
	EXPECT_EQ(-1, first_difference((buffer)->addr + PICTURE_SIZE,	\
				       BUFFER_SIZE - PICTURE_SIZE, (seed) + 1))

#define bounces(dmabuf)	(test_query(dmabuf).state & VMEMEXP_STATE_BOUNCED)

/*
 * Around CPU access, as in any program, since V4L2 does not do it. But what vivid
 * wrote past a bounce buffer would be lost by that.
 */
#define test_bracket(dmabuf, flags) do {				\
	if (!bounces(dmabuf))						\
		test_dmabuf_sync(dmabuf, flags);			\
} while (0)

#define test_fill_buffer(buffer, seed) do {				\
	test_bracket((buffer)->dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE); \
	fill_buffer(buffer, seed);					\
	test_bracket((buffer)->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE); \
} while (0)

/*
 * Setup and teardown of both fixtures. Importers should say how long a piece their device takes;
 * vivid's takes any, but does not say so.
 */

#define set_up() do {							\
	const char *missing = variant->missing ? variant->missing() : NULL; \
									\
	if (missing)							\
		SKIP(return, "the kernel has no %s", missing);		\
	if (variant->allocator && !access("/sys/kernel/debug/dma-api", F_OK)) \
		SKIP(return, "CONFIG_DMA_API_DEBUG_SG believes vivid's device"); \
	if (!load_vivid(variant->allocator))				\
		SKIP(return, "the kernel has no vivid driver");		\
	test_setup();							\
	self->m.size = HUGE_PAGE;					\
	variant->make(_metadata, &self->m);				\
	__open_vivid(_metadata, &self->capture, &self->output);	\
} while (0)

#define tear_down() do {						\
	close(self->capture.fd);					\
	close(self->output.fd);						\
	test_teardown();						\
	restore_system();						\
	EXPECT_TRUE(run("rmmod vivid"));				\
} while (0)

/* ---- pictures, for each kind of memory ---- */

FIXTURE(pictures)
{
	int fd;
	struct test_state before;
	struct memory m;
	struct video capture, output;
};

FIXTURE_VARIANT(pictures)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	unsigned int allocator;
};

FIXTURE_VARIANT_ADD(pictures, vmalloc_malloced)
{
	.make = make_malloced,
};

FIXTURE_VARIANT_ADD(pictures, vmalloc_scattered)
{
	.make = make_scattered,
};

FIXTURE_VARIANT_ADD(pictures, contig_thp)
{
	.make = make_thp,
	.missing = need_thp,
	.allocator = 1,
};

FIXTURE_VARIANT_ADD(pictures, contig_hugetlb)
{
	.make = make_hugetlb,
	.missing = need_hugetlb,
	.allocator = 1,
};

FIXTURE_SETUP(pictures)
{
	set_up();
}

FIXTURE_TEARDOWN(pictures)
{
	tear_down();
}

#define CAPTURE_BUFFERS	4
#define OUTPUT_BUFFERS	2
#define FRAMES		20

TEST_F(pictures, captured_are_those_of_mmap_buffers)
{
	unsigned char *picture = capture_by_mmap(&self->capture);
	struct buffer buffers[CAPTURE_BUFFERS];
	unsigned int seeds[CAPTURE_BUFFERS];

	test_request(&self->capture, CAPTURE_BUFFERS);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++) {
		buffers[i] = export_slot(i);
		seeds[i] = i;
		test_fill_buffer(&buffers[i], i);
		test_queue(&self->capture, i, buffers[i].dmabuf);
	}
	test_stream(&self->capture, true);

	for (unsigned int frame = 0; frame < FRAMES; frame++) {
		unsigned int i = test_dequeue(&self->capture);
		const struct buffer *buffer = &buffers[i];

		test_bracket(buffer->dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
		EXPECT_SAME(picture, buffer->addr, PICTURE_SIZE);
		expect_rest_filled(buffer, seeds[i]);
		test_bracket(buffer->dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
		seeds[i] += CAPTURE_BUFFERS;
		test_fill_buffer(buffer, seeds[i]);
		test_queue(&self->capture, i, buffer->dmabuf);
	}

	test_stream(&self->capture, false);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++)
		close(buffers[i].dmabuf);
	free(picture);
}

/* V4L2 knows nothing of the offset at which the range begins. */
TEST_F(pictures, captured_begin_where_the_first_page_of_an_unaligned_range_does)
{
	unsigned char *picture = capture_by_mmap(&self->capture);
	unsigned char *start = self->m.addr + SLOT_SIZE, *end = start + PICTURE_SIZE;
	struct vmemexp_export cmd = export_args(start + CUT_FRONT,
						PICTURE_SIZE - CUT_FRONT, O_RDWR);

	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_export_cmd(&cmd);
	ASSERT_EQ(CUT_FRONT, cmd.offset);
	test_request(&self->capture, LEAST_BUFFERS);
	for (unsigned int i = 0; i < LEAST_BUFFERS; i++)
		ASSERT_EQ(0, _test_queue(&self->capture, i, cmd.fd, 0));
	test_stream(&self->capture, true);
	test_dequeue(&self->capture);

	EXPECT_SAME(picture, start, PICTURE_SIZE);
	EXPECT_SAME(self->m.expect, self->m.addr, SLOT_SIZE);
	EXPECT_SAME(self->m.expect + (end - self->m.addr), end,
		    self->m.size - (end - self->m.addr));
	test_stream(&self->capture, false);
	close(cmd.fd);
	free(picture);
}

/* As of memory that malloc() gave: its own notes lie before the range. */
TEST_F(pictures, captured_overwrite_the_bytes_before_an_unaligned_range_and_leave_its_end)
{
	unsigned char *picture = capture_by_mmap(&self->capture);
	unsigned char *start = self->m.addr + SLOT_SIZE;
	struct vmemexp_export cmd = export_args(start + CUT_FRONT, PICTURE_SIZE, O_RDWR);

	cmd.flags = VMEMEXP_EXPORT_UNALIGNED;
	test_export_cmd(&cmd);
	test_request(&self->capture, LEAST_BUFFERS);
	for (unsigned int i = 0; i < LEAST_BUFFERS; i++)
		ASSERT_EQ(0, _test_queue(&self->capture, i, cmd.fd, 0));
	test_stream(&self->capture, true);
	test_dequeue(&self->capture);

	ASSERT_NE(0, memcmp(self->m.expect + SLOT_SIZE, picture, CUT_FRONT));
	EXPECT_SAME(picture, start, CUT_FRONT);
	ASSERT_NE(0, memcmp(picture + PICTURE_SIZE - CUT_FRONT,
			    start + PICTURE_SIZE, CUT_FRONT));
	EXPECT_SAME(self->m.expect + SLOT_SIZE + PICTURE_SIZE, start + PICTURE_SIZE,
		    CUT_FRONT);
	test_stream(&self->capture, false);
	close(cmd.fd);
	free(picture);
}

/*
 * The bounce buffer, where there is one, was filled when the memory was mapped,
 * and vivid did not write to it.
 */
TEST_F(pictures, captured_stay_when_buffers_are_given_back_unless_they_bounce)
{
	unsigned char *picture = capture_by_mmap(&self->capture);
	struct buffer buffer = export_slot(0), next = export_slot(1);
	bool bounced;

	fill_buffer(&buffer, 5);
	test_request(&self->capture, LEAST_BUFFERS);
	test_queue(&self->capture, 0, buffer.dmabuf);
	test_queue(&self->capture, 1, next.dmabuf);
	test_stream(&self->capture, true);
	ASSERT_EQ(0, test_dequeue(&self->capture));
	EXPECT_SAME(picture, buffer.addr, PICTURE_SIZE);
	bounced = bounces(buffer.dmabuf);
	test_stream(&self->capture, false);
	test_request(&self->capture, 0);
	EXPECT_EQ(-1, bounced ? first_difference(buffer.addr, PICTURE_SIZE, 5) :
				first_wrong(picture, buffer.addr, PICTURE_SIZE));
	expect_rest_filled(&buffer, 5);
	close(buffer.dmabuf);
	close(next.dmabuf);
	free(picture);
}

/*
 * Waits until a picture is captured that is fill()'s for @seed. All before it,
 * which were captured before, are fill()'s for @old. Returns the picture's buffer,
 * which is not queued.
 */
static unsigned int __capture_filled(struct __test_metadata *_metadata,
				     const struct video *capture,
				     const struct buffer *buffers,
				     unsigned int seed, unsigned int old)
{
	unsigned int i = test_dequeue(capture);

	for (int tries = 0; tries <= CAPTURE_BUFFERS &&
	     first_difference(buffers[i].addr, PICTURE_SIZE, seed) >= 0; tries++) {
		expect_filled(&buffers[i], old);
		test_queue(capture, i, buffers[i].dmabuf);
		i = test_dequeue(capture);
	}
	expect_filled(&buffers[i], seed);
	return i;
}

/*
 * The first picture that is fill()'s for @seed. On a busy machine, 7.3 has shown
 * something else for as long as a test took: so it is connected anew.
 */
static unsigned int __capture_connected(struct __test_metadata *_metadata,
					const struct video *capture,
					const struct buffer *buffers, unsigned int seed)
{
	unsigned int i = test_dequeue(capture);

	for (int tries = 0; tries < FRAMES &&
	     first_difference(buffers[i].addr, PICTURE_SIZE, seed) >= 0; tries++) {
		TH_LOG("the input is not connected to the output yet");
		_test_set_control(capture, CID_CONNECTED, 0);
		connect_output(capture);
		test_queue(capture, i, buffers[i].dmabuf);
		i = test_dequeue(capture);
	}
	expect_filled(&buffers[i], seed);
	return i;
}

/* vivid gives one of two buffers back, and shows the other one until it gets a third. */
TEST_F(pictures, output_are_captured_again)
{
	struct buffer shown[OUTPUT_BUFFERS], seen[CAPTURE_BUFFERS];
	unsigned int current, i, seed = OUTPUT_BUFFERS;

	test_request(&self->output, OUTPUT_BUFFERS);
	test_request(&self->capture, CAPTURE_BUFFERS);
	for (i = 0; i < OUTPUT_BUFFERS; i++) {
		shown[i] = export_slot(i);
		test_fill_buffer(&shown[i], i + 1);
		test_queue(&self->output, i, shown[i].dmabuf);
	}
	connect_output(&self->capture);
	test_stream(&self->output, true);
	ASSERT_EQ(0, test_dequeue(&self->output));
	current = 1;
	for (i = 0; i < CAPTURE_BUFFERS; i++) {
		seen[i] = export_slot(OUTPUT_BUFFERS + i);
		test_queue(&self->capture, i, seen[i].dmabuf);
	}
	test_stream(&self->capture, true);
	i = __capture_connected(_metadata, &self->capture, seen, seed);

	for (int frame = 0; frame < FRAMES / 3; frame++) {
		seed++;
		test_fill_buffer(&shown[!current], seed);
		test_queue(&self->output, !current, shown[!current].dmabuf);
		ASSERT_EQ(current, test_dequeue(&self->output));
		expect_filled(&shown[current], seed - 1);
		current = !current;

		test_queue(&self->capture, i, seen[i].dmabuf);
		i = __capture_filled(_metadata, &self->capture, seen, seed, seed - 1);
	}

	test_stream(&self->capture, false);
	test_stream(&self->output, false);
	expect_filled(&shown[current], seed);
	for (i = 0; i < OUTPUT_BUFFERS; i++)
		close(shown[i].dmabuf);
	for (i = 0; i < CAPTURE_BUFFERS; i++)
		close(seen[i].dmabuf);
}

/* ---- what is refused, and how long things live ---- */

FIXTURE(queue)
{
	int fd;
	struct test_state before;
	struct memory m;
	struct video capture, output;
};

FIXTURE_VARIANT(queue)
{
	void (*make)(struct __test_metadata *_metadata, struct memory *m);
	const char *(*missing)(void);
	unsigned int allocator;
	unsigned int memfd_flags;
	/* errno if the dma-buf is read-only, as target and as source */
	int capture_error;
	int output_error;
};

/* A read-only buffer has no vmap. */
FIXTURE_VARIANT_ADD(queue, vmalloc)
{
	.make = make_malloced,
	.capture_error = EFAULT,
	.output_error = EFAULT,
};

/* It can be mapped for a device that reads. V4L2 hides the EACCES. */
FIXTURE_VARIANT_ADD(queue, contig)
{
	.make = make_hugetlb,
	.missing = need_hugetlb,
	.allocator = 1,
	.memfd_flags = MFD_HUGETLB,
	.capture_error = EINVAL,
};

FIXTURE_SETUP(queue)
{
	set_up();
}

FIXTURE_TEARDOWN(queue)
{
	tear_down();
}

static void __expect_unused(struct __test_metadata *_metadata, int fd, int dmabuf)
{
	struct vmemexp_query query = __test_query(_metadata, fd, dmabuf);

	EXPECT_EQ(0, query.attachments);
	EXPECT_EQ(0, query.mappings);
	EXPECT_EQ(0, query.vmaps);
}

#define expect_unused(dmabuf) __expect_unused(_metadata, self->fd, dmabuf)

/* That it cannot be queued is due to the dma-buf, since another one can. */
#define expect_not_queued(error, video, dmabuf, length) do {		\
	struct buffer good = export_slot(15);				\
									\
	test_request(video, 2);						\
	EXPECT_EQ(-(error), _test_queue(video, 0, dmabuf, length));	\
	expect_unused(dmabuf);						\
	test_queue(video, 1, good.dmabuf);				\
	test_request(video, 0);						\
	close(good.dmabuf);						\
} while (0)

TEST_F(queue, refuses_memory_that_is_exported_read_only_as_target)
{
	int dmabuf = test_export(self->m.addr, BUFFER_SIZE, O_RDONLY);

	expect_not_queued(variant->capture_error, &self->capture, dmabuf,
			  BUFFER_SIZE);
	EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);
	close(dmabuf);
}

/* Files of root, which others may only read, with what ext4_file() writes. */

static int __tmpfs_file(struct __test_metadata *_metadata)
{
	static const char path[] = "/tmp/vmemexp-v4l2";
	unsigned char *contents = malloc(BUFFER_SIZE);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	fill(contents, BUFFER_SIZE, 9);
	ASSERT_EQ((ssize_t)BUFFER_SIZE, write(fd, contents, BUFFER_SIZE));
	ASSERT_EQ(0, unlink(path));
	free(contents);
	return fd;
}

static void __refuse_file(struct __test_metadata *_metadata, int fd, int file,
			  const struct video *capture, int error)
{
	void *addr = map(BUFFER_SIZE, PROT_READ, MAP_SHARED, file);
	unsigned char *contents = malloc(BUFFER_SIZE);
	int dmabuf = __test_export_range(_metadata, fd, addr, BUFFER_SIZE, O_RDONLY);

	test_request(capture, 1);
	EXPECT_EQ(-error, _test_queue(capture, 0, dmabuf, BUFFER_SIZE));
	__expect_unused(_metadata, fd, dmabuf);
	close(dmabuf);
	munmap(addr, BUFFER_SIZE);
	ASSERT_EQ((ssize_t)BUFFER_SIZE, pread(file, contents, BUFFER_SIZE, 0));
	EXPECT_EQ(-1, first_difference(contents, BUFFER_SIZE, 9));
	free(contents);
	close(file);
}

TEST_F(queue, refuses_a_file_on_tmpfs_that_is_mapped_read_only_as_target)
{
	__refuse_file(_metadata, self->fd, __tmpfs_file(_metadata),
		      &self->capture, variant->capture_error);
}

TEST_F(queue, refuses_a_file_on_disk_that_is_mapped_read_only_as_target)
{
	const char *missing = need_ext4();

	if (missing)
		SKIP(return, "the kernel has no %s", missing);
	ASSERT_EQ(0, set_knob(VMEMEXP_ALLOW, "anon,hugetlb,file"));
	__refuse_file(_metadata, self->fd, ext4_file(BUFFER_SIZE),
		      &self->capture, variant->capture_error);
}

/* vivid is not told to look at it: it would want a kernel mapping for that. */
TEST_F(queue, takes_read_only_memory_as_source_where_it_is_only_mapped_for_dma)
{
	struct buffer buffers[OUTPUT_BUFFERS];
	int ret;

	test_request(&self->output, OUTPUT_BUFFERS);
	for (unsigned int i = 0; i < OUTPUT_BUFFERS; i++) {
		buffers[i].addr = self->m.addr + i * SLOT_SIZE;
		buffers[i].dmabuf = test_export(buffers[i].addr, BUFFER_SIZE, O_RDONLY);
		ret = _test_queue(&self->output, i, buffers[i].dmabuf, BUFFER_SIZE);
		EXPECT_EQ(-variant->output_error, ret);
		EXPECT_EQ(!ret, test_query(buffers[i].dmabuf).mappings);
		EXPECT_EQ(0, test_query(buffers[i].dmabuf).vmaps);
	}
	if (!variant->output_error) {
		test_stream(&self->output, true);
		EXPECT_EQ(0, test_dequeue(&self->output));
		test_stream(&self->output, false);
	}
	test_request(&self->output, 0);
	EXPECT_SAME(self->m.expect, self->m.addr, self->m.size);
	for (unsigned int i = 0; i < OUTPUT_BUFFERS; i++)
		close(buffers[i].dmabuf);
}

/* Most of the usual widths and heights give no whole pages. */
TEST_F(queue, takes_a_picture_of_no_whole_pages_if_the_export_is_rounded_up)
{
	struct v4l2_format format = { .type = self->capture.type };
	unsigned char *addr = self->m.addr;
	size_t size;
	int dmabuf;

	ASSERT_EQ(0, _test_ioctl(self->capture.fd, VIDIOC_G_FMT, &format));
	size = format.fmt.pix.sizeimage;
	ASSERT_NE(0, size % PAGE);
	test_err_export(EINVAL, VMEMEXP_REASON_ALIGNMENT, addr + size, addr, size, O_RDWR);
	dmabuf = test_export(addr, page_align(size), O_RDWR);
	test_request(&self->capture, 1);
	EXPECT_EQ(0, _test_queue(&self->capture, 0, dmabuf, 0));
	test_request(&self->capture, 0);
	close(dmabuf);
}

static int _test_queue_pointer(const struct video *video, const void *addr)
{
	struct v4l2_buffer cmd = {
		.type = video->type,
		.memory = V4L2_MEMORY_USERPTR,
		.m.userptr = (uintptr_t)addr,
		.length = BUFFER_SIZE,
	};

	return _test_ioctl(video->fd, VIDIOC_QBUF, &cmd);
}

/* vivid takes user pointers with vb2-vmalloc alone. */
TEST_F(queue, takes_the_exported_address_as_user_pointer_and_no_mapping_of_the_dmabuf)
{
	struct buffer buffer = export_slot(0);
	void *view = map(BUFFER_SIZE, RW, MAP_SHARED, buffer.dmabuf);
	int ret = _test_request(&self->capture, V4L2_MEMORY_USERPTR, 1);

	EXPECT_EQ(variant->allocator ? -EINVAL : 0, ret);
	if (!ret) {
		EXPECT_EQ(-EFAULT, _test_queue_pointer(&self->capture, view));
		EXPECT_EQ(0, _test_queue_pointer(&self->capture, buffer.addr));
		ASSERT_EQ(0, _test_request(&self->capture, V4L2_MEMORY_USERPTR, 0));
	}
	munmap(view, BUFFER_SIZE);
	close(buffer.dmabuf);
}

#define USER	1000
#define GROUP	44	/* "video", as Debian numbers it */

/* Becomes a user who may open all video devices, and opens them. */
static void __open_vivid_as_user(struct __test_metadata *_metadata, struct video *capture,
				 struct video *output)
{
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	gid_t group = GROUP;

	for (int i = 0; i < MAX_VIDEOS; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/dev/video%d", i);
		if (access(path, F_OK))
			continue;
		ASSERT_EQ(0, chown(path, 0, GROUP));
		ASSERT_EQ(0, chmod(path, 0660));
	}
	close(capture->fd);
	close(output->fd);
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
	ASSERT_EQ(0, setgroups(1, &group));
	ASSERT_EQ(0, setresgid(USER, USER, USER));
	ASSERT_EQ(0, setresuid(USER, USER, 0));
	*capture = open_video(V4L2_BUF_TYPE_VIDEO_CAPTURE);
	ASSERT_LE(0, capture->fd);
	*output = open_video(V4L2_BUF_TYPE_VIDEO_OUTPUT);
	ASSERT_LE(0, output->fd);
}

/*
 * vivid's capture thread looks at the output's pictures by the kernel's address of them,
 * and does not ask whether there is one: 6.1, 6.12 and 7.3 crash. No buffer without one gets
 * so far, unless an administrator has it; those that have one are as good as before.
 */
TEST_F(queue, refuses_memory_without_kernel_mapping_from_users)
{
	struct buffer shown[OUTPUT_BUFFERS], seen[CAPTURE_BUFFERS];
	int error = variant->allocator ? EINVAL : EFAULT;

	__open_vivid_as_user(_metadata, &self->capture, &self->output);
	test_request(&self->output, OUTPUT_BUFFERS);
	for (unsigned int i = 0; i < OUTPUT_BUFFERS; i++) {
		struct vmemexp_export cmd = export_args(self->m.addr + i * SLOT_SIZE, BUFFER_SIZE,
							O_RDONLY);

		test_export_cmd(&cmd);
		EXPECT_EQ(VMEMEXP_STATE_NO_VMAP, cmd.state & VMEMEXP_STATE_NO_VMAP);
		EXPECT_EQ(-error, _test_queue(&self->output, i, cmd.fd, BUFFER_SIZE));
		expect_unused(cmd.fd);
		close(cmd.fd);
	}

	/* In places where nothing was refused before. */
	test_request(&self->output, 0);
	test_request(&self->output, OUTPUT_BUFFERS);
	for (unsigned int i = 0; i < OUTPUT_BUFFERS; i++) {
		shown[i] = export_slot(i);
		test_fill_buffer(&shown[i], i + 1);
		test_queue(&self->output, i, shown[i].dmabuf);
	}
	connect_output(&self->capture);
	test_stream(&self->output, true);
	ASSERT_EQ(0, test_dequeue(&self->output));
	test_request(&self->capture, CAPTURE_BUFFERS);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++) {
		seen[i] = export_slot(OUTPUT_BUFFERS + i);
		test_queue(&self->capture, i, seen[i].dmabuf);
	}
	test_stream(&self->capture, true);
	__capture_connected(_metadata, &self->capture, seen, OUTPUT_BUFFERS);

	test_stream(&self->capture, false);
	test_stream(&self->output, false);
	test_request(&self->capture, 0);
	test_request(&self->output, 0);
	for (unsigned int i = 0; i < OUTPUT_BUFFERS; i++)
		close(shown[i].dmabuf);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++)
		close(seen[i].dmabuf);
	ASSERT_EQ(0, setresuid(0, 0, 0));
}

/* To name a length beyond its end is no use: 6.12 leaks the dma-buf then. */
TEST_F(queue, refuses_a_dmabuf_that_is_smaller_than_a_picture)
{
	size_t size = PICTURE_SIZE & ~(PAGE - 1);
	int dmabuf = test_export(self->m.addr, size, O_RDWR);

	expect_not_queued(EINVAL, &self->capture, dmabuf, 0);
	expect_not_queued(EINVAL, &self->capture, dmabuf, size);
	expect_not_queued(EINVAL, &self->output, dmabuf, 0);
	close(dmabuf);
}

/* Bounce buffers of scattered pages may happen to be neighbours. */
TEST_F(queue, refuses_scattered_memory_for_a_device_without_scatter_gather)
{
	struct memory scattered = { .size = HUGE_PAGE };
	struct buffer buffer;
	int ret, expected = 0;

	make_scattered(_metadata, &scattered);
	buffer = __export_slot(_metadata, self->fd, &scattered, 0, 0);
	ASSERT_LT(1, test_query(buffer.dmabuf).nr_extents);
	test_request(&self->capture, 1);
	ret = _test_queue(&self->capture, 0, buffer.dmabuf, BUFFER_SIZE);
	if (variant->allocator && (ret || !bounces(buffer.dmabuf)))
		expected = -EFAULT;
	EXPECT_EQ(expected, ret);
	test_request(&self->capture, 0);
	expect_unused(buffer.dmabuf);
	close(buffer.dmabuf);
}

static unsigned int count_events(const char *trace, const char *name)
{
	unsigned int count = 0;

	while ((trace = strstr(trace, name))) {
		trace += strlen(name);
		count++;
	}
	return count;
}

TEST_F(queue, maps_once_and_never_brackets_access)
{
	static char trace[256 * 1024];
	struct buffer buffers[CAPTURE_BUFFERS];
	struct vmemexp_query query;

	ASSERT_EQ(0, trace_events("vmemexp"));
	test_request(&self->capture, CAPTURE_BUFFERS);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++) {
		buffers[i] = export_slot(i);
		test_queue(&self->capture, i, buffers[i].dmabuf);
	}
	test_stream(&self->capture, true);
	for (unsigned int frame = 0; frame < 2 * CAPTURE_BUFFERS; frame++) {
		unsigned int i = test_dequeue(&self->capture);

		query = test_query(buffers[i].dmabuf);
		EXPECT_EQ(variant->allocator, query.attachments);
		EXPECT_EQ(variant->allocator, query.mappings);
		EXPECT_EQ(1, query.vmaps);
		test_queue(&self->capture, i, buffers[i].dmabuf);
	}
	ASSERT_EQ(0, write_text(TRACING "/events/vmemexp/enable", "0"));
	ASSERT_LT(0, read_text(TRACING "/trace", trace, sizeof(trace)));
	EXPECT_EQ(CAPTURE_BUFFERS, count_events(trace, "vmemexp_export:"));
	EXPECT_EQ(variant->allocator * CAPTURE_BUFFERS,
		  count_events(trace, "vmemexp_map:"));
	EXPECT_EQ(0, count_events(trace, "vmemexp_unmap:"));
	EXPECT_EQ(0, count_events(trace, "vmemexp_sync:"));

	/* It is kept until the buffers are given back. */
	test_stream(&self->capture, false);
	EXPECT_EQ(1, test_query(buffers[0].dmabuf).vmaps);
	test_request(&self->capture, 0);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++) {
		expect_unused(buffers[i].dmabuf);
		close(buffers[i].dmabuf);
	}
}

TEST_F(queue, lets_go_of_a_dmabuf_when_its_place_is_taken_by_another)
{
	struct buffer first = export_slot(0), next = export_slot(1), second = export_slot(2);

	test_request(&self->capture, LEAST_BUFFERS);
	test_queue(&self->capture, 0, first.dmabuf);
	test_queue(&self->capture, 1, next.dmabuf);
	test_stream(&self->capture, true);
	ASSERT_EQ(0, test_dequeue(&self->capture));
	test_queue(&self->capture, 0, second.dmabuf);
	expect_unused(first.dmabuf);
	ASSERT_EQ(1, test_dequeue(&self->capture));
	ASSERT_EQ(0, test_dequeue(&self->capture));
	EXPECT_EQ(1, test_query(second.dmabuf).vmaps);
	test_stream(&self->capture, false);
	close(first.dmabuf);
	close(next.dmabuf);
	close(second.dmabuf);
}

TEST_F(queue, keeps_memory_that_the_program_has_given_up)
{
	unsigned char *picture = capture_by_mmap(&self->capture);
	int file = memfd(self->m.size, variant->memfd_flags);
	struct memory source = {
		.addr = map(self->m.size, RW, MAP_SHARED, file),
	};
	unsigned char *seen = malloc(PICTURE_SIZE);
	long pins;

	memset(source.addr, 0, self->m.size);
	test_request(&self->capture, CAPTURE_BUFFERS);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++) {
		struct buffer buffer = __export_slot(_metadata, self->fd, &source, i,
						     0);

		test_queue(&self->capture, i, buffer.dmabuf);
		close(buffer.dmabuf);
	}
	pins = pinned_pages();
	EXPECT_LE(self->before.pins + CAPTURE_BUFFERS, pins);
	munmap(source.addr, self->m.size);
	test_stream(&self->capture, true);
	for (unsigned int frame = 0; frame < CAPTURE_BUFFERS; frame++) {
		unsigned int i = test_dequeue(&self->capture);

		ASSERT_EQ((ssize_t)PICTURE_SIZE,
			  pread(file, seen, PICTURE_SIZE, i * SLOT_SIZE));
		EXPECT_SAME(picture, seen, PICTURE_SIZE);
	}
	EXPECT_EQ(pins, pinned_pages());
	test_stream(&self->capture, false);
	EXPECT_EQ(pins, pinned_pages());
	test_request(&self->capture, 0);
	EXPECT_EQ(self->before.pins, pinned_pages());
	close(file);
	free(seen);
	free(picture);
}

/* With buffers queued that were never filled. */
TEST_F(queue, lets_go_when_the_file_is_closed_while_it_streams)
{
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++) {
		struct buffer buffer = export_slot(i);

		if (!i)
			test_request(&self->capture, CAPTURE_BUFFERS);
		test_queue(&self->capture, i, buffer.dmabuf);
		close(buffer.dmabuf);
	}
	test_stream(&self->capture, true);
	EXPECT_LT(self->before.pins, pinned_pages());
	close(self->capture.fd);
	EXPECT_EQ(self->before.pins, pinned_pages());
	self->capture.fd = -1;
}

/* Tells by a byte in @pipe that pictures come in. */
static void stream_for_ever(const struct buffer *buffers, int pipe)
{
	struct video capture = open_video(V4L2_BUF_TYPE_VIDEO_CAPTURE);
	int i;

	if (_test_request(&capture, V4L2_MEMORY_DMABUF, CAPTURE_BUFFERS))
		_exit(KSFT_FAIL);
	for (i = 0; i < CAPTURE_BUFFERS; i++)
		if (_test_queue(&capture, i, buffers[i].dmabuf, BUFFER_SIZE))
			_exit(KSFT_FAIL);
	if (_test_stream(&capture, true))
		_exit(KSFT_FAIL);
	for (;;) {
		i = _test_dequeue(&capture, V4L2_MEMORY_DMABUF);
		if (i < 0 || write(pipe, "", 1) != 1 ||
		    _test_queue(&capture, i, buffers[i].dmabuf, BUFFER_SIZE))
			_exit(KSFT_FAIL);
	}
}

TEST_F(queue, lets_go_when_the_process_is_killed_while_it_streams)
{
	struct buffer buffers[CAPTURE_BUFFERS];
	struct test_state before = get_state();
	int pipes[2];
	char byte;
	pid_t pid;

	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++)
		buffers[i] = export_slot(i);
	ASSERT_EQ(0, pipe(pipes));
	pid = fork_child();
	if (!pid)
		stream_for_ever(buffers, pipes[1]);
	close(pipes[1]);
	for (unsigned int i = 0; i < CAPTURE_BUFFERS; i++)
		close(buffers[i].dmabuf);
	for (unsigned int frame = 0; frame < 2 * CAPTURE_BUFFERS; frame++)
		ASSERT_EQ(1, read(pipes[0], &byte, 1));
	EXPECT_LT(before.pins, pinned_pages());
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_for_child(pid));
	close(pipes[0]);
	test_state(&before);
}

TEST_HARNESS_MAIN

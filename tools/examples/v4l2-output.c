// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * v4l2-output: pictures from memory of the program through a V4L2 output device
 *
 *   cc -o v4l2-output v4l2-output.c $(pkg-config --cflags --libs libvmemexp)
 *   v4l2-ctl -d /dev/video1 --set-fmt-video-out=width=320,height=180,pixelformat=YUYV
 *   ./v4l2-output /dev/video1 100
 *
 * The device can be vivid, an encoder or a transmitter; this one is not for the
 * multi-planar ones. Each of three buffers is exported once, and queued again and again.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <libvmemexp.h>

#define NR_BUFFERS	3

struct output {
	int fd;
	struct v4l2_pix_format format;
	size_t size;
	uint8_t *memory[NR_BUFFERS];
	struct vmemexp_buf *bufs[NR_BUFFERS];
};

static void call(const struct output *output, unsigned long request, void *argument,
		 const char *what)
{
	while (ioctl(output->fd, request, argument))
		if (errno != EINTR)
			err(EXIT_FAILURE, "%s", what);
}

static void open_output(struct output *output, const char *path)
{
	struct v4l2_format format = { .type = V4L2_BUF_TYPE_VIDEO_OUTPUT };
	struct v4l2_requestbuffers request = { .type = V4L2_BUF_TYPE_VIDEO_OUTPUT,
					       .memory = V4L2_MEMORY_DMABUF,
					       .count = NR_BUFFERS };

	output->fd = open(path, O_RDWR | O_CLOEXEC);
	if (output->fd < 0)
		err(EXIT_FAILURE, "%s", path);
	call(output, VIDIOC_G_FMT, &format, "is it a video output?");
	output->format = format.fmt.pix;
	if (output->format.pixelformat != V4L2_PIX_FMT_YUYV)
		errx(EXIT_FAILURE, "this example draws YUYV: see v4l2-ctl --set-fmt-video-out");
	call(output, VIDIOC_REQBUFS, &request, "it does not import dma-bufs");
	if (request.count < NR_BUFFERS)
		errx(EXIT_FAILURE, "it has buffers for %u frames only", request.count);

	/* A picture is seldom whole pages; the rest of the last page is not shown. */
	output->size = vmemexp_aligned_size(output->format.sizeimage);
}

static void create_buffers(struct output *output, struct vmemexp *v)
{
	struct vmemexp_error error;
	char why[256];
	int i;

	for (i = 0; i < NR_BUFFERS; i++) {
		output->memory[i] = aligned_alloc(sysconf(_SC_PAGESIZE), output->size);
		if (!output->memory[i])
			errx(EXIT_FAILURE, "no memory");
		if (vmemexp_export(v, output->memory[i], output->size, 0, &output->bufs[i], &error))
			errx(EXIT_FAILURE, "no export: %s",
			     vmemexp_strerror(&error, why, sizeof(why)));
	}
}

/* A grey ramp that moves to the left, between the syncs that access by the CPU wants. */
static void draw(const struct output *output, unsigned int index, unsigned int frame)
{
	unsigned int x, y;

	if (vmemexp_begin(output->bufs[index], VMEMEXP_SYNC_WRITE, NULL))
		err(EXIT_FAILURE, "no access");
	for (y = 0; y < output->format.height; y++) {
		uint8_t *row = output->memory[index] + y * output->format.bytesperline;

		for (x = 0; x < output->format.width; x++) {
			row[2 * x] = 16 + (x + y + 5 * frame) % 220;
			row[2 * x + 1] = 128;
		}
	}
	if (vmemexp_end(output->bufs[index]))
		err(EXIT_FAILURE, "the access does not end");
}

static void queue(const struct output *output, unsigned int index)
{
	struct v4l2_buffer cmd = {
		.type = V4L2_BUF_TYPE_VIDEO_OUTPUT,
		.memory = V4L2_MEMORY_DMABUF,
		.index = index,
		.m.fd = vmemexp_buf_fd(output->bufs[index]),
		.length = output->size,
		.bytesused = output->format.sizeimage,
		.field = V4L2_FIELD_NONE,
	};

	call(output, VIDIOC_QBUF, &cmd, "the buffer is not taken (EFAULT: CONTIGUOUS may help)");
}

static unsigned int dequeue(const struct output *output)
{
	struct v4l2_buffer cmd = { .type = V4L2_BUF_TYPE_VIDEO_OUTPUT,
				   .memory = V4L2_MEMORY_DMABUF };

	call(output, VIDIOC_DQBUF, &cmd, "no buffer comes back");
	return cmd.index;
}

int main(int argc, char **argv)
{
	int type = V4L2_BUF_TYPE_VIDEO_OUTPUT;
	struct output output = { 0 };
	struct vmemexp_error error;
	unsigned int frame, frames, index;
	struct vmemexp *v;
	char why[256];

	if (argc != 3)
		errx(2, "usage: v4l2-output DEVICE FRAMES");
	frames = strtoul(argv[2], NULL, 10);
	open_output(&output, argv[1]);
	v = vmemexp_open(NULL, &error);
	if (!v)
		errx(EXIT_FAILURE, "%s", vmemexp_strerror(&error, why, sizeof(why)));
	create_buffers(&output, v);

	for (frame = 0; frame < frames; frame++) {
		index = frame < NR_BUFFERS ? frame : dequeue(&output);
		draw(&output, index, frame);
		queue(&output, index);
		if (frame == NR_BUFFERS - 1)
			call(&output, VIDIOC_STREAMON, &type, "it does not begin");
	}
	printf("%u frames of %ux%u pixels\n", frames, output.format.width, output.format.height);
	return EXIT_SUCCESS;
}

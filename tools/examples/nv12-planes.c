// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * nv12-planes: planes that lie apart in memory, as one dma-buf of NV12
 *
 *   cc -o nv12-planes nv12-planes.c $(pkg-config --cflags --libs libvmemexp)
 *   v4l2-ctl -d /dev/video1 --set-fmt-video-out=width=512,height=256,pixelformat=NV12
 *   ./nv12-planes /dev/video1 100
 *
 * The driver wants chroma right behind luma, in one dma-buf. A decoder may have given memory
 * for each. Luma has to be whole pages: 512x256 and 1920x1088 pixels are, 1920x1080 are not.
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

struct picture {
	struct iovec planes[2];
	struct vmemexp_buf *buf;
};

struct output {
	int fd;
	struct v4l2_pix_format format;
	struct picture pictures[NR_BUFFERS];
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
	if (output->format.pixelformat != V4L2_PIX_FMT_NV12)
		errx(EXIT_FAILURE, "this example draws NV12: see v4l2-ctl --set-fmt-video-out");
	call(output, VIDIOC_REQBUFS, &request, "it does not import dma-bufs");
}

static struct iovec allocate(size_t size)
{
	struct iovec plane = { aligned_alloc(sysconf(_SC_PAGESIZE), size), size };

	if (!plane.iov_base)
		errx(EXIT_FAILURE, "no memory");
	return plane;
}

static void create(struct picture *picture, struct vmemexp *v, size_t luma)
{
	struct vmemexp_error error;
	unsigned int plane;
	char why[256];

	if (luma != vmemexp_aligned_size(luma))
		errx(EXIT_FAILURE, "luma of %zu bytes is not whole pages: take another size", luma);
	picture->planes[0] = allocate(luma);
	/* Behind the last plane may be some bytes more. */
	picture->planes[1] = allocate(vmemexp_aligned_size(luma / 2));
	if (vmemexp_exportv(v, picture->planes, 2, 0, &picture->buf, &error, &plane))
		errx(EXIT_FAILURE, "no export, because of plane %u: %s", plane,
		     vmemexp_strerror(&error, why, sizeof(why)));
}

/* Ramps that move, between the syncs that access by the CPU wants. */
static void draw(const struct output *output, const struct picture *picture, unsigned int frame)
{
	unsigned int x, y, stride = output->format.bytesperline;
	uint8_t *luma = picture->planes[0].iov_base, *chroma = picture->planes[1].iov_base;

	if (vmemexp_begin(picture->buf, VMEMEXP_SYNC_WRITE, NULL))
		err(EXIT_FAILURE, "no access");
	for (y = 0; y < output->format.height; y++)
		for (x = 0; x < output->format.width; x++)
			luma[y * stride + x] = 16 + (x + y + 5 * frame) % 220;
	for (y = 0; y < output->format.height / 2; y++)
		for (x = 0; x < output->format.width; x += 2) {
			chroma[y * stride + x] = 16 + (x + 5 * frame) % 220;
			chroma[y * stride + x + 1] = 16 + (y + 5 * frame) % 220;
		}
	if (vmemexp_end(picture->buf))
		err(EXIT_FAILURE, "the access does not end");
}

static void queue(const struct output *output, unsigned int index)
{
	struct vmemexp_buf *buf = output->pictures[index].buf;
	struct v4l2_buffer cmd = { .type = V4L2_BUF_TYPE_VIDEO_OUTPUT,
				   .memory = V4L2_MEMORY_DMABUF,
				   .index = index,
				   .m.fd = vmemexp_buf_fd(buf),
				   .length = vmemexp_buf_size(buf),
				   .bytesused = output->format.sizeimage,
				   .field = V4L2_FIELD_NONE };

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
		errx(2, "usage: nv12-planes DEVICE FRAMES");
	frames = strtoul(argv[2], NULL, 10);
	open_output(&output, argv[1]);
	v = vmemexp_open(NULL, &error);
	if (!v)
		errx(EXIT_FAILURE, "%s", vmemexp_strerror(&error, why, sizeof(why)));
	for (index = 0; index < NR_BUFFERS; index++)
		create(&output.pictures[index], v,
		       (size_t)output.format.bytesperline * output.format.height);

	for (frame = 0; frame < frames; frame++) {
		index = frame < NR_BUFFERS ? frame : dequeue(&output);
		draw(&output, &output.pictures[index], frame);
		queue(&output, index);
		if (frame == NR_BUFFERS - 1)
			call(&output, VIDIOC_STREAMON, &type, "it does not begin");
	}
	printf("%u frames of %ux%u pixels\n", frames, output.format.width, output.format.height);
	return EXIT_SUCCESS;
}

// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * gst-appsrc: frames from memory of the program into a GStreamer pipeline, without a copy
 *
 *   cc -o gst-appsrc gst-appsrc.c $(pkg-config --cflags --libs libvmemexp \
 *           gstreamer-app-1.0 gstreamer-allocators-1.0)
 *   ./gst-appsrc 100 'v4l2sink device=/dev/video1 io-mode=dmabuf-import'
 *   ./gst-appsrc 100 kmssink
 *
 * Each of three buffers is exported once; GStreamer gives it back by a destroy notifier.
 */
#include <err.h>
#include <gst/allocators/gstdmabuf.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <libvmemexp.h>

#define WIDTH		320
#define HEIGHT		180
#define FRAME_SIZE	(WIDTH * HEIGHT * 2)
#define NR_BUFFERS	3
#define SOURCE		"appsrc name=source is-live=true format=time do-timestamp=true"
#define CAPS		"video/x-raw,format=YUY2,width=%d,height=%d,framerate=30/1"

struct buffer {
	uint8_t *memory;
	struct vmemexp_buf *buf;
	GstMemory *dmabuf;
	GAsyncQueue *free;
};

/* A grey ramp that moves to the left, as YUY2. */
static void draw(const struct buffer *buffer, unsigned int frame)
{
	unsigned int x, y;

	if (vmemexp_begin(buffer->buf, VMEMEXP_SYNC_WRITE, NULL))
		err(EXIT_FAILURE, "no access");
	for (y = 0; y < HEIGHT; y++)
		for (x = 0; x < WIDTH; x++) {
			buffer->memory[(y * WIDTH + x) * 2] = 16 + (x + y + 5 * frame) % 220;
			buffer->memory[(y * WIDTH + x) * 2 + 1] = 128;
		}
	if (vmemexp_end(buffer->buf))
		err(EXIT_FAILURE, "the access does not end");
}

static void create_buffer(struct buffer *buffer, struct vmemexp *v, GstAllocator *allocator,
			  GAsyncQueue *free)
{
	size_t size = vmemexp_aligned_size(FRAME_SIZE);
	struct vmemexp_error error;
	char why[256];
	int fd;

	buffer->memory = aligned_alloc(sysconf(_SC_PAGESIZE), size);
	if (!buffer->memory)
		errx(EXIT_FAILURE, "no memory");
	/* At offset 0: v4l2sink takes no other. */
	if (vmemexp_export(v, buffer->memory, size, 0, &buffer->buf, &error))
		errx(EXIT_FAILURE, "no export: %s", vmemexp_strerror(&error, why, sizeof(why)));
	/* The descriptor stays the library's. */
	fd = vmemexp_buf_fd(buffer->buf);
	buffer->dmabuf = gst_dmabuf_allocator_alloc_with_flags(allocator, fd, size,
							       GST_FD_MEMORY_FLAG_DONT_CLOSE);
	buffer->free = free;
	g_async_queue_push(free, buffer);
}

/* The last reference to what was pushed is gone, and with it the sink's use of it. */
static void give_back(gpointer data)
{
	struct buffer *buffer = data;

	g_async_queue_push(buffer->free, buffer);
}

static GstBuffer *wrap(struct buffer *buffer)
{
	GstBuffer *wrapped = gst_buffer_new();

	gst_buffer_append_memory(wrapped, gst_memory_ref(buffer->dmabuf));
	gst_buffer_set_size(wrapped, FRAME_SIZE);
	gst_mini_object_set_qdata(GST_MINI_OBJECT(wrapped), g_quark_from_static_string("buffer"),
				  buffer, give_back);
	return wrapped;
}

static GstElement *start(const char *sink, GstElement **source)
{
	char *text = g_strdup_printf(SOURCE " caps=" CAPS " ! %s", WIDTH, HEIGHT, sink);
	GError *error = NULL;
	GstElement *pipeline = gst_parse_launch(text, &error);

	if (!pipeline || error)
		errx(EXIT_FAILURE, "no pipeline: %s", error->message);
	g_free(text);
	*source = gst_bin_get_by_name(GST_BIN(pipeline), "source");
	gst_element_set_state(pipeline, GST_STATE_PLAYING);
	return pipeline;
}

int main(int argc, char **argv)
{
	struct buffer buffers[NR_BUFFERS];
	GAsyncQueue *free = g_async_queue_new();
	GstElement *pipeline, *source;
	unsigned int frame, frames;
	struct vmemexp *v;
	GstMessage *end;
	GError *error;
	int i;

	gst_init(&argc, &argv);
	if (argc != 3)
		errx(2, "usage: gst-appsrc FRAMES SINK");
	frames = strtoul(argv[1], NULL, 10);
	v = vmemexp_open(NULL, NULL);
	if (!v)
		err(EXIT_FAILURE, "/dev/vmemexp");
	for (i = 0; i < NR_BUFFERS; i++)
		create_buffer(&buffers[i], v, gst_dmabuf_allocator_new(), free);

	pipeline = start(argv[2], &source);
	for (frame = 0; frame < frames; frame++) {
		struct buffer *buffer = g_async_queue_timeout_pop(free, 5 * G_USEC_PER_SEC);

		/* A sink that has failed gives nothing back. */
		if (!buffer)
			break;
		draw(buffer, frame);
		gst_app_src_push_buffer(GST_APP_SRC(source), wrap(buffer));
	}
	gst_app_src_end_of_stream(GST_APP_SRC(source));
	end = gst_bus_timed_pop_filtered(gst_element_get_bus(pipeline), GST_CLOCK_TIME_NONE,
					 GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
	if (GST_MESSAGE_TYPE(end) == GST_MESSAGE_ERROR) {
		gst_message_parse_error(end, &error, NULL);
		errx(EXIT_FAILURE, "%s", error->message);
	}
	gst_element_set_state(pipeline, GST_STATE_NULL);
	printf("%u frames\n", frame);
	return EXIT_SUCCESS;
}

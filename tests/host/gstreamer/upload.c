// SPDX-License-Identifier: GPL-2.0
/*
 * The element vmemexpupload without a driver: what it exports of a frame, what it finds
 * again, what it does with frames that cannot be exported, and what it says then. After each
 * test all descriptors are closed again. Prints TAP.
 *
 *   upload           the tests
 *   upload cost WHAT FRAMES
 *                    pushes so many frames of 1080p, for a count of instructions: "exported"
 *                    (found again), "passed" (without a device) or "copied" (by memcpy())
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <gst/allocators/gstdmabuf.h>
#include <gst/check/gstharness.h>
#include <gst/video/video.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../fake.h"
#include "upload.h"

#define PAGE	FAKE_PAGE

/* 45 pages and a half. */
#define YUY2	"video/x-raw,format=YUY2,width=320,height=291,framerate=30/1"
#define YUY2_SIZE	((gsize)320 * 291 * 2)
#define YUY2_PAGES	((gsize)46 * PAGE)

/* Two planes, of which the second begins with a page. */
#define NV12	"video/x-raw,format=NV12,width=256,height=64,framerate=30/1"
#define NV12_Y		((gsize)256 * 64)
#define NV12_SIZE	(NV12_Y * 3 / 2)

static atomic_int failures;

/* --- the element between two pads, and a bus --- */

static GstHarness *h;
static GstBus *bus;

static GstHarness *new_harness(const char *first, ...)
{
	GstElement *element = g_object_new(VMEMEXP_TYPE_UPLOAD, NULL);
	GstHarness *harness;
	va_list properties;

	va_start(properties, first);
	g_object_set_valist(G_OBJECT(element), first, properties);
	va_end(properties);
	gst_element_set_bus(element, bus);
	harness = gst_harness_new_with_element(element, "sink", "src");
	gst_object_unref(element);
	return harness;
}

/* Starts the element with these properties and caps, in place of the one before. */
#define START(caps, ...) do {						\
	if (h)								\
		gst_harness_teardown(h);				\
	h = new_harness(__VA_ARGS__, NULL);				\
	gst_harness_set_src_caps_str(h, caps);				\
} while (0)

static void stop(void)
{
	gst_harness_teardown(h);
	h = NULL;
}

/*
 * Takes the next message of the type, or NULL. The others are dropped here, and not by the
 * bus: it does so under its lock, which an element takes again that ends with its last
 * message (1.26).
 */
static GstMessage *pop(GstMessageType type)
{
	GstMessage *got;

	while ((got = gst_bus_pop(bus)) && GST_MESSAGE_TYPE(got) != type)
		gst_message_unref(got);
	return got;
}

/* Returns the text of the next message of the type, or NULL. */
static char *message(GstMessageType type)
{
	GstMessage *got = pop(type);
	GError *error = NULL;
	char *text;

	if (!got)
		return NULL;
	if (type == GST_MESSAGE_WARNING)
		gst_message_parse_warning(got, &error, NULL);
	else if (type == GST_MESSAGE_ERROR)
		gst_message_parse_error(got, &error, NULL);
	else
		gst_message_parse_info(got, &error, NULL);
	gst_message_unref(got);
	text = g_strdup(error->message);
	g_error_free(error);
	return text;
}

/* There is one more message of the type, with these words; none is left. */
static void expect_message(GstMessageType type, const char *words)
{
	char *text = message(type), *another;

	if (!text || !strstr(text, words)) {
		printf("# no \"%s\" in: %s\n", words, text);
		failures++;
	}
	g_free(text);
	another = message(type);
	EXPECT(!another);
	g_free(another);
}

static void expect_no_messages(void)
{
	char *text = message(GST_MESSAGE_WARNING);

	if (text)
		printf("# warns: %s\n", text);
	EXPECT(!text);
	g_free(text);
	text = message(GST_MESSAGE_ERROR);
	EXPECT(!text);
	g_free(text);
}

static guint64 stat_of(const char *name)
{
	guint64 value = G_MAXUINT64;
	GstStructure *stats;

	g_object_get(h->element, "stats", &stats, NULL);
	EXPECT(gst_structure_get_uint64(stats, name, &value));
	gst_structure_free(stats);
	return value;
}

static void expect_stats(guint64 exported, guint64 reused, guint64 copied, guint64 passed)
{
	EXPECT(stat_of("exported") == exported);
	EXPECT(stat_of("reused") == reused);
	EXPECT(stat_of("copied") == copied);
	EXPECT(stat_of("passed") == passed);
}

/* --- frames --- */

static void unmap(gpointer data)
{
	/* The length is before what is given out. */
	char *begin = (char *)data - PAGE;

	munmap(begin, *(gsize *)begin);
}

static void *map_pages(gsize length)
{
	gsize all = PAGE + ((length + PAGE - 1) & -(gsize)PAGE);
	char *begin = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*(gsize *)begin = all;
	return begin + PAGE;
}

/* Memory of @maxsize bytes, on a page, of which @size from @offset on are in use. */
static GstMemory *memory(gsize maxsize, gsize offset, gsize size)
{
	char *data = map_pages(maxsize);
	gsize i;

	for (i = 0; i < maxsize; i++)
		data[i] = i * 7 + (i >> 8);
	return gst_memory_new_wrapped(0, data, maxsize, offset, size, data, unmap);
}

static void *address_of(GstMemory *mem)
{
	GstMapInfo map;

	if (!gst_memory_map(mem, &map, GST_MAP_READ))
		abort();
	gst_memory_unmap(mem, &map);
	return map.data;
}

static GstBuffer *frame_of(GstMemory *mem)
{
	GstBuffer *buffer = gst_buffer_new();

	gst_buffer_append_memory(buffer, gst_memory_ref(mem));
	GST_BUFFER_PTS(buffer) = 17 * GST_SECOND;
	GST_BUFFER_DURATION(buffer) = GST_SECOND;
	return buffer;
}

/* Returns the frame that comes out for @in, whose reference is the element's. */
static GstBuffer *push(GstBuffer *in)
{
	GstFlowReturn ret = gst_harness_push(h, in);

	if (ret != GST_FLOW_OK)
		printf("# flow: %s\n", gst_flow_get_name(ret));
	return ret == GST_FLOW_OK ? gst_harness_pull(h) : NULL;
}

static GstBuffer *push_memory(GstMemory *mem)
{
	return push(frame_of(mem));
}

/* The memory of a frame that is nothing but one dma-buf. */
static GstMemory *only_dmabuf(GstBuffer *out)
{
	EXPECT(out && gst_buffer_n_memory(out) == 1);
	EXPECT(gst_is_dmabuf_memory(gst_buffer_peek_memory(out, 0)));
	return gst_buffer_peek_memory(out, 0);
}

static void fail_next(unsigned long request, unsigned int times, int error, uint32_t reason)
{
	fake.fail_request = request;
	fake.fail_times = times;
	fake.fail_errno = error;
	fake.fail_reason = reason;
	fake.fail_addr = 0x1234;
}

/* --- in place --- */

static void a_frame_is_exported_where_it_is(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstVideoMeta *meta;
	GstBuffer *out;

	START(YUY2, NULL);
	out = push_memory(mem);
	EXPECT(fake.nr_exports == 1 && !fake.nr_syncs);
	EXPECT(fake.export.vaddr == (uintptr_t)address_of(mem));
	EXPECT(fake.export.length == YUY2_PAGES);
	EXPECT(!fake.export.flags);
	EXPECT(gst_memory_get_sizes(only_dmabuf(out), NULL, NULL) == YUY2_SIZE);
	EXPECT(GST_BUFFER_PTS(out) == 17 * GST_SECOND && GST_BUFFER_DURATION(out) == GST_SECOND);
	EXPECT(gst_buffer_get_n_meta(out, GST_VIDEO_META_API_TYPE) == 1);
	meta = gst_buffer_get_video_meta(out);
	EXPECT(meta->stride[0] == 640 && meta->width == 320 && meta->height == 291);
	expect_stats(1, 0, 0, 0);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
	expect_no_messages();
}

static void whole_pages_need_nothing_behind_them(void)
{
	GstMemory *mem = memory(NV12_SIZE, 0, NV12_SIZE);
	GstBuffer *out;

	START(NV12, NULL);
	out = push_memory(mem);
	EXPECT(fake.export.length == NV12_SIZE);
	only_dmabuf(out);
	expect_stats(1, 0, 0, 0);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

static void metas_are_handed_on(void)
{
	GstMemory *mem = memory(2 * NV12_SIZE, 0, 2 * NV12_SIZE);
	gsize offset[GST_VIDEO_MAX_PLANES] = { 0, 320 * 64 };
	gint stride[GST_VIDEO_MAX_PLANES] = { 320, 320 };
	GstBuffer *in = frame_of(mem), *out;
	GstVideoAlignment alignment;
	GstVideoCropMeta *crop;
	GstVideoMeta *meta;

	START(NV12, NULL);
	meta = gst_buffer_add_video_meta_full(in, GST_VIDEO_FRAME_FLAG_INTERLACED,
					      GST_VIDEO_FORMAT_NV12, 256, 64, 2, offset, stride);
	gst_video_alignment_reset(&alignment);
	alignment.padding_right = 64;
	EXPECT(gst_video_meta_set_alignment(meta, alignment));
	crop = gst_buffer_add_video_crop_meta(in);
	crop->width = 100;
	GST_BUFFER_FLAG_SET(in, GST_BUFFER_FLAG_MARKER);
	out = push(in);
	EXPECT(gst_buffer_get_n_meta(out, GST_VIDEO_META_API_TYPE) == 1);
	meta = gst_buffer_get_video_meta(out);
	EXPECT(meta->stride[1] == 320 && meta->offset[1] == 320 * 64);
	EXPECT(meta->flags == GST_VIDEO_FRAME_FLAG_INTERLACED);
	EXPECT(meta->alignment.padding_right == 64);
	crop = gst_buffer_get_video_crop_meta(out);
	EXPECT(crop && crop->width == 100);
	EXPECT(GST_BUFFER_FLAG_IS_SET(out, GST_BUFFER_FLAG_MARKER));
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

/* A sink may hold the frame, and upstream must not write to it meanwhile. */
static void the_frame_is_held_as_long_as_its_dma_buf_is_used(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstBuffer *in = gst_buffer_ref(frame_of(mem)), *out;

	START(YUY2, NULL);
	out = push(in);
	EXPECT(GST_MINI_OBJECT_REFCOUNT_VALUE(in) == 2);
	gst_buffer_unref(out);
	EXPECT(GST_MINI_OBJECT_REFCOUNT_VALUE(in) == 1);
	gst_buffer_unref(in);
	gst_memory_unref(mem);
}

/* Writes as an element does that has the frame for itself: in place, or to a copy. */
static void expect_write_in_place(GstBuffer *in, gboolean in_place)
{
	GstBuffer *out = push(in);
	GstMapInfo map;

	EXPECT(GST_MEMORY_IS_READONLY(only_dmabuf(out)) == !in_place);
	EXPECT(gst_buffer_is_writable(out) && gst_buffer_map(out, &map, GST_MAP_WRITE));
	gst_buffer_unmap(out, &map);
	EXPECT(gst_is_dmabuf_memory(gst_buffer_peek_memory(out, 0)) == in_place);
	gst_buffer_unref(out);
}

static void only_a_frame_of_its_own_is_written_to_behind_it(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE), *part;
	GstBuffer *in, *other;

	START(YUY2, NULL);
	expect_write_in_place(frame_of(mem), TRUE);
	/* A decoder holds the buffer. */
	in = frame_of(mem);
	expect_write_in_place(gst_buffer_ref(in), FALSE);
	gst_buffer_unref(in);
	/* An element before this one has it in another buffer. */
	other = frame_of(mem);
	expect_write_in_place(frame_of(mem), FALSE);
	gst_buffer_unref(other);
	expect_write_in_place(frame_of(mem), TRUE);
	/* It is read-only. */
	part = gst_memory_share(mem, 0, YUY2_SIZE);
	EXPECT(GST_MEMORY_IS_READONLY(part));
	expect_write_in_place(frame_of(part), FALSE);
	gst_memory_unref(part);
	gst_memory_unref(mem);
	expect_no_messages();
}

static void a_copy_of_a_frame_of_others_may_be_written_to(void)
{
	GstMemory *mem = memory(YUY2_PAGES + PAGE, 16, YUY2_SIZE);
	GstBuffer *in = frame_of(mem);

	START(YUY2, NULL);
	expect_write_in_place(gst_buffer_ref(in), TRUE);
	expect_stats(0, 0, 1, 0);
	gst_buffer_unref(in);
	gst_memory_unref(mem);
}

static void memory_is_found_again_and_synced(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE), *first;
	GstBuffer *out;

	START(YUY2, NULL);
	out = push_memory(mem);
	first = only_dmabuf(out);
	gst_buffer_unref(out);
	out = push_memory(mem);
	EXPECT(only_dmabuf(out) == first);
	EXPECT(fake.nr_exports == 1 && fake.nr_syncs == 1 && !fake.nr_whole_syncs);
	EXPECT(fake.sync.flags == (VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE));
	EXPECT(fake.sync.fd == gst_dmabuf_memory_get_fd(first));
	EXPECT(!fake.sync.offset && fake.sync.length == YUY2_SIZE && fake.sync.rows <= 1);
	expect_stats(1, 1, 0, 0);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

/* rawvideoparse cuts each frame anew from what it is given. */
static void a_part_of_a_memory_is_found_again(void)
{
	GstMemory *mem = memory(2 * YUY2_PAGES, 0, 2 * YUY2_PAGES), *part;
	GstBuffer *out;
	int i;

	START(YUY2, NULL);
	for (i = 0; i < 3; i++) {
		part = gst_memory_share(mem, YUY2_PAGES, YUY2_SIZE);
		out = push_memory(part);
		gst_memory_unref(part);
		only_dmabuf(out);
		gst_buffer_unref(out);
	}
	EXPECT(fake.nr_exports == 1 && fake.export.length == YUY2_PAGES);
	EXPECT(fake.export.vaddr == (uintptr_t)address_of(mem) + YUY2_PAGES);
	part = gst_memory_share(mem, 0, YUY2_SIZE);
	gst_buffer_unref(push_memory(part));
	gst_memory_unref(part);
	EXPECT(fake.nr_exports == 2);
	expect_stats(2, 2, 0, 0);
	/* One that is shorter is another part. */
	part = gst_memory_share(mem, 0, YUY2_SIZE - PAGE);
	out = push_memory(part);
	EXPECT(fake.nr_exports == 3 && gst_buffer_get_size(out) == YUY2_SIZE - PAGE);
	gst_buffer_unref(out);
	gst_memory_unref(part);
	gst_memory_unref(mem);
}

static void the_export_ends_with_the_memory(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	unsigned int before;

	START(YUY2, NULL);
	before = open_files();
	gst_buffer_unref(push_memory(mem));
	EXPECT(open_files() == before + 1);
	gst_memory_unref(mem);
	EXPECT(open_files() == before);
}

/* An application may keep its memory for the next pipeline. */
static void the_export_ends_with_the_element(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	unsigned int before = open_files();

	START(YUY2, NULL);
	gst_buffer_unref(push_memory(mem));
	stop();
	EXPECT(open_files() == before);
	START(YUY2, NULL);
	gst_buffer_unref(push_memory(mem));
	EXPECT(fake.nr_exports == 2);
	gst_memory_unref(mem);
}

static void counts_begin_anew_with_the_element(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);

	START(YUY2, NULL);
	gst_buffer_unref(push_memory(mem));
	gst_buffer_unref(push_memory(mem));
	expect_stats(1, 1, 0, 0);
	gst_element_set_state(h->element, GST_STATE_READY);
	expect_stats(1, 1, 0, 0);
	gst_element_set_state(h->element, GST_STATE_PAUSED);
	expect_stats(0, 0, 0, 0);
	gst_memory_unref(mem);
}

static void what_a_sink_holds_outlives_the_element(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstBuffer *out;

	START(YUY2, NULL);
	out = push_memory(mem);
	stop();
	EXPECT(fcntl(gst_dmabuf_memory_get_fd(only_dmabuf(out)), F_GETFD) == FD_CLOEXEC);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

static void expect_new_export_in_state(uint32_t state)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	unsigned int before;
	GstBuffer *out;

	START(YUY2, NULL);
	before = open_files();
	out = push_memory(mem);
	fake_set_state(gst_dmabuf_memory_get_fd(only_dmabuf(out)), state);
	gst_buffer_unref(out);
	gst_buffer_unref(push_memory(mem));
	EXPECT(open_files() == before + 1);
	expect_stats(2, 0, 0, 0);
	gst_memory_unref(mem);
}

static void what_is_stale_is_exported_anew(void)
{
	expect_new_export_in_state(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE);
	expect_new_export_in_state(VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_REVOKED);
	expect_new_export_in_state(0);
}

static void a_sync_that_fails_has_it_exported_anew(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);

	START(YUY2, NULL);
	gst_buffer_unref(push_memory(mem));
	fail_next(VMEMEXP_IOC_SYNC, 1, ENODEV, 0);
	gst_buffer_unref(push_memory(mem));
	expect_stats(2, 0, 0, 0);
	gst_memory_unref(mem);
}

/* Behind a tee, two of them have the same memory, and pin it once. */
static void two_elements_share_an_export(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE), *first;
	GstHarness *other;
	GstBuffer *out;

	START(YUY2, NULL);
	other = h;
	h = NULL;
	START(YUY2, NULL);
	out = push_memory(mem);
	first = only_dmabuf(out);
	gst_harness_push(other, frame_of(mem));
	gst_buffer_unref(out);
	out = gst_harness_pull(other);
	EXPECT(only_dmabuf(out) == first && fake.nr_exports == 1);
	gst_buffer_unref(out);
	gst_harness_teardown(other);
	/* It is that of the other one still. */
	gst_buffer_unref(push_memory(mem));
	expect_stats(1, 1, 0, 0);
	gst_memory_unref(mem);
}

static void exports_that_differ_are_not_shared(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstHarness *other;

	START(YUY2, NULL);
	other = h;
	h = NULL;
	START(YUY2, "contiguous", TRUE);
	gst_buffer_unref(push_memory(mem));
	EXPECT(fake.export.flags == VMEMEXP_EXPORT_CONTIGUOUS);
	gst_harness_push(other, frame_of(mem));
	EXPECT(fake.nr_exports == 2 && !fake.export.flags);
	gst_harness_teardown(other);
	gst_memory_unref(mem);
}

/* --- what passes --- */

static void dma_bufs_pass(void)
{
	GstAllocator *allocator = gst_dmabuf_allocator_new();
	GstMemory *mem = gst_dmabuf_allocator_alloc(allocator, fake_foreign_dmabuf(YUY2_PAGES),
						    YUY2_SIZE);
	GstBuffer *in, *out;

	START(YUY2, NULL);
	in = frame_of(mem);
	out = push(in);
	EXPECT(out == in);
	EXPECT(!fake.nr_exports);
	expect_stats(0, 0, 0, 1);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
	gst_object_unref(allocator);
}

static void what_has_no_picture_passes(void)
{
	GstBuffer *in = gst_buffer_new(), *out;

	START(YUY2, NULL);
	GST_BUFFER_FLAG_SET(in, GST_BUFFER_FLAG_GAP);
	out = push(in);
	EXPECT(out == in && !fake.nr_exports);
	gst_buffer_unref(out);
	expect_no_messages();
}

/* --- what is not whole pages --- */

/* The bytes at an address that the fake was asked to export. */
static void expect_bytes(uint64_t vaddr, GstMemory *mem, gsize offset, gsize size)
{
	EXPECT(!memcmp((void *)(uintptr_t)vaddr, (char *)address_of(mem) + offset, size));
}

static void what_is_unaligned_is_copied(void)
{
	static const struct {
		gsize maxsize, offset;
	} cases[] = {
		/* It does not begin with a page, or does not own the end of its last one. */
		{ YUY2_PAGES, 16 }, { YUY2_SIZE, 0 }, { YUY2_PAGES - 1, 0 },
	};
	GstBuffer *out;
	guint i;

	for (i = 0; i < G_N_ELEMENTS(cases); i++) {
		GstMemory *mem = memory(cases[i].maxsize, cases[i].offset, YUY2_SIZE);

		START(YUY2, NULL);
		fake.nr_exports = 0;
		out = push_memory(mem);
		EXPECT(fake.nr_exports == 1 && fake.export.length == YUY2_PAGES);
		EXPECT(!(fake.export.vaddr % PAGE) && !fake.export.flags);
		EXPECT(gst_memory_get_sizes(only_dmabuf(out), NULL, NULL) == YUY2_SIZE);
		expect_bytes(fake.export.vaddr, mem, 0, YUY2_SIZE);
		EXPECT(GST_BUFFER_PTS(out) == 17 * GST_SECOND);
		EXPECT(gst_buffer_get_video_meta(out)->stride[0] == 640);
		gst_buffer_unref(out);
		/* To the same memory again. */
		gst_buffer_unref(push_memory(mem));
		EXPECT(fake.nr_exports == 1);
		expect_stats(0, 0, 2, 0);
		expect_message(GST_MESSAGE_WARNING, "unaligned=wrap");
		gst_memory_unref(mem);
	}
}

static void a_copy_is_not_written_over_while_a_sink_has_it(void)
{
	GstMemory *mem = memory(YUY2_SIZE, 0, YUY2_SIZE);
	GstBuffer *first, *second;
	uint64_t vaddr;

	START(YUY2, NULL);
	first = push_memory(mem);
	vaddr = fake.export.vaddr;
	second = push_memory(mem);
	EXPECT(fake.nr_exports == 2 && fake.export.vaddr != vaddr);
	gst_buffer_unref(first);
	gst_buffer_unref(second);
	gst_memory_unref(mem);
}

static void what_is_unaligned_is_wrapped_if_that_is_asked_for(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 16, YUY2_SIZE), *dmabuf;
	GstBuffer *out;
	gsize offset;

	START(YUY2, "unaligned", 1);
	out = push_memory(mem);
	dmabuf = only_dmabuf(out);
	EXPECT(fake.export.flags == VMEMEXP_EXPORT_UNALIGNED);
	EXPECT(fake.export.vaddr == (uintptr_t)address_of(mem));
	EXPECT(gst_memory_get_sizes(dmabuf, &offset, NULL) == YUY2_SIZE && offset == 16);
	gst_buffer_unref(out);
	gst_buffer_unref(push_memory(mem));
	EXPECT(fake.sync.offset == 16 && fake.sync.length == YUY2_SIZE);
	expect_stats(1, 1, 0, 0);
	expect_no_messages();
	gst_memory_unref(mem);
}

/* Memory that an application has mapped from a dma-buf is a part of that one. */
static void an_offset_is_not_handed_on_unasked(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstBuffer *out;

	START(YUY2, NULL);
	fake.offset = PAGE;
	out = push_memory(mem);
	EXPECT(fake.nr_exports == 2);
	/* The export of the copy fails here, too, so the frame passes as it was. */
	EXPECT(!gst_is_dmabuf_memory(gst_buffer_peek_memory(out, 0)));
	gst_buffer_unref(out);
	expect_message(GST_MESSAGE_WARNING, "not whole pages");
	gst_memory_unref(mem);
}

/* --- planes --- */

static void planes_are_exported_as_they_lie(void)
{
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(NV12_Y / 2, 0, NV12_Y / 2);
	GstBuffer *in = frame_of(y), *out;

	gst_buffer_append_memory(in, gst_memory_ref(uv));
	START(NV12, NULL);
	out = push(in);
	EXPECT(gst_buffer_n_memory(out) == 2 && fake.nr_exports == 2);
	EXPECT(fake.export.vaddr == (uintptr_t)address_of(uv));
	EXPECT(gst_buffer_get_size(out) == NV12_SIZE);
	EXPECT(gst_buffer_get_video_meta(out)->offset[1] == NV12_Y);
	expect_stats(1, 0, 0, 0);
	gst_buffer_unref(out);
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

static void planes_are_split_where_pages_begin(void)
{
	GstMemory *mem = memory(NV12_SIZE, 0, NV12_SIZE);
	GstBuffer *out;
	int i;

	START(NV12, "planes", 2);
	for (i = 0; i < 2; i++) {
		out = push_memory(mem);
		EXPECT(gst_buffer_n_memory(out) == 2 && fake.nr_exports == 2);
		EXPECT(gst_buffer_peek_memory(out, 0)->size == NV12_Y);
		EXPECT(gst_buffer_peek_memory(out, 1)->size == NV12_Y / 2);
		gst_buffer_unref(out);
	}
	EXPECT(fake.export.vaddr == (uintptr_t)address_of(mem) + NV12_Y);
	EXPECT(fake.nr_syncs == 2);
	expect_stats(1, 1, 0, 0);
	expect_no_messages();
	gst_memory_unref(mem);
}

static void planes_that_begin_elsewhere_are_copied(void)
{
	GstMemory *mem = memory(PAGE, 0, 16 * 16 * 3 / 2);
	GstBuffer *out;

	START("video/x-raw,format=NV12,width=16,height=16,framerate=30/1", "planes", 2);
	out = push_memory(mem);
	EXPECT(gst_buffer_n_memory(out) == 2 && fake.nr_exports == 2);
	EXPECT(gst_buffer_get_video_meta(out)->offset[1] == 256);
	expect_bytes(fake.export.vaddr, mem, 256, 128);
	expect_stats(0, 0, 1, 0);
	expect_no_messages();
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

/* As many as there are planes, but the first one ends in the middle of one. */
static void memories_that_are_no_planes_are_copied(void)
{
	GstMemory *first = memory(2 * PAGE, 0, 2 * PAGE);
	GstMemory *rest = memory(NV12_SIZE - 2 * PAGE, 0, NV12_SIZE - 2 * PAGE);
	GstBuffer *in = frame_of(first), *out;

	gst_buffer_append_memory(in, gst_memory_ref(rest));
	START(NV12, "planes", 2);
	out = push(in);
	EXPECT(gst_buffer_n_memory(out) == 2);
	EXPECT(gst_buffer_peek_memory(out, 0)->size == NV12_Y);
	EXPECT(gst_buffer_peek_memory(out, 1)->size == NV12_Y / 2);
	expect_stats(0, 0, 1, 0);
	expect_no_messages();
	gst_buffer_unref(out);
	gst_memory_unref(first);
	gst_memory_unref(rest);
}

/* --- memories that become one dma-buf --- */

#define NV12_UV		(NV12_Y / 2)
/* The second plane begins at byte 256. */
#define SMALL_NV12	"video/x-raw,format=NV12,width=16,height=16,framerate=30/1"

static GstBuffer *frame_of_two(GstMemory *first, GstMemory *second)
{
	GstBuffer *buffer = frame_of(first);

	gst_buffer_append_memory(buffer, gst_memory_ref(second));
	return buffer;
}

static void expect_ranges(GstMemory *first, gsize first_length, GstMemory *second,
			  gsize second_length)
{
	EXPECT(fake.export.nr_ranges == 2);
	EXPECT(fake.ranges[0].vaddr == (uintptr_t)address_of(first));
	EXPECT(fake.ranges[0].length == first_length);
	EXPECT(fake.ranges[1].vaddr == (uintptr_t)address_of(second));
	EXPECT(fake.ranges[1].length == second_length);
}

static void planes_become_one(void)
{
	/* The frame ends within its last page. */
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(NV12_UV, 0, NV12_UV - 100);
	GstBuffer *out;
	GstMemory *dmabuf;
	gsize offset;

	START(NV12, "planes", 1);
	out = push(frame_of_two(y, uv));
	EXPECT(fake.nr_exports == 1 && !fake.export.flags);
	expect_ranges(y, NV12_Y, uv, NV12_UV);
	dmabuf = only_dmabuf(out);
	EXPECT(gst_memory_get_sizes(dmabuf, &offset, NULL) == NV12_SIZE - 100 && !offset);
	EXPECT(gst_buffer_get_video_meta(out)->offset[1] == NV12_Y);
	EXPECT(GST_BUFFER_PTS(out) == 17 * GST_SECOND);
	expect_stats(1, 0, 0, 0);
	gst_buffer_unref(out);

	out = push(frame_of_two(y, uv));
	EXPECT(only_dmabuf(out) == dmabuf && fake.nr_exports == 1 && fake.nr_syncs == 1);
	EXPECT(!fake.sync.offset && fake.sync.length == NV12_SIZE - 100);
	expect_stats(1, 1, 0, 0);
	expect_no_messages();
	gst_buffer_unref(out);
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

static void the_planes_offsets_in_one_are_those_of_the_frame(void)
{
	gsize offset[GST_VIDEO_MAX_PLANES] = { 0, NV12_Y + PAGE };
	gint stride[GST_VIDEO_MAX_PLANES] = { 256, 256 };
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(2 * NV12_UV, 0, NV12_UV + PAGE);
	GstBuffer *in = frame_of_two(y, uv), *out;
	GstVideoFrame frame;
	GstVideoInfo info;

	START(NV12, "planes", 1);
	gst_buffer_add_video_meta_full(in, 0, GST_VIDEO_FORMAT_NV12, 256, 64, 2, offset, stride);
	out = push(in);
	only_dmabuf(out);
	EXPECT(gst_buffer_get_n_meta(out, GST_VIDEO_META_API_TYPE) == 1);
	EXPECT(gst_buffer_get_video_meta(out)->offset[1] == NV12_Y + PAGE);
	gst_video_info_set_format(&info, GST_VIDEO_FORMAT_NV12, 256, 64);
	EXPECT(gst_video_frame_map(&frame, &info, out, GST_MAP_READ));
	EXPECT((guint8 *)frame.data[1] - (guint8 *)frame.data[0] == (gssize)(NV12_Y + PAGE));
	gst_video_frame_unmap(&frame);
	expect_stats(1, 0, 0, 0);
	gst_buffer_unref(out);
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

/* A plane may be in several pieces, as those of a file that was read block by block. */
static void any_number_of_memories_becomes_one(void)
{
	GstMemory *mems[6];
	GstBuffer *in = gst_buffer_new(), *out;
	int i;

	START(NV12, "planes", 1);
	for (i = 0; i < 6; i++) {
		mems[i] = memory(NV12_SIZE / 6, 0, NV12_SIZE / 6);
		gst_buffer_append_memory(in, mems[i]);
	}
	out = push(in);
	EXPECT(gst_memory_get_sizes(only_dmabuf(out), NULL, NULL) == NV12_SIZE);
	EXPECT(fake.export.nr_ranges == 6);
	for (i = 0; i < 6; i++)
		EXPECT(fake.ranges[i].vaddr == (uintptr_t)address_of(mems[i]));
	expect_stats(1, 0, 0, 0);
	gst_buffer_unref(out);
}

/* The list goes with the first of its memories: the others may be in another one meanwhile. */
static void one_dma_buf_ends_with_any_of_its_memories(void)
{
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(NV12_UV, 0, NV12_UV);
	GstMemory *other = memory(NV12_UV, 0, NV12_UV);
	unsigned int before;

	START(NV12, "planes", 1);
	before = open_files();
	gst_buffer_unref(push(frame_of_two(y, uv)));
	gst_buffer_unref(push(frame_of_two(y, other)));
	gst_buffer_unref(push(frame_of_two(y, uv)));
	EXPECT(fake.nr_exports == 2 && open_files() == before + 2);
	gst_memory_unref(uv);
	EXPECT(open_files() == before + 1);
	gst_buffer_unref(push(frame_of_two(y, other)));
	EXPECT(fake.nr_exports == 2);
	expect_stats(2, 2, 0, 0);
	gst_memory_unref(y);
	EXPECT(open_files() == before);
	gst_memory_unref(other);
}

/* Each of these is another dma-buf. */
static void one_dma_buf_is_found_for_the_same_memories_alone(void)
{
	GstMemory *mem = memory(4 * NV12_Y, 0, 4 * NV12_Y), *parts[4];
	static const struct {
		int first, second;
	} cases[] = { { 0, 2 }, { 2, 0 }, { 0, 3 }, { 1, 3 }, { 0, 0 } };
	guint i, round;

	for (i = 0; i < 4; i++)
		parts[i] = gst_memory_share(mem, i * NV12_Y, NV12_Y);
	START(NV12, "planes", 1);
	for (round = 0; round < 2; round++)
		for (i = 0; i < G_N_ELEMENTS(cases); i++) {
			GstMemory *first = parts[cases[i].first], *second = parts[cases[i].second];

			gst_buffer_unref(push(frame_of_two(first, second)));
			if (!round)
				expect_ranges(first, NV12_Y, second, NV12_Y);
		}
	EXPECT(fake.nr_exports == G_N_ELEMENTS(cases));
	/* Nor is it one of its memories alone. */
	gst_buffer_unref(push_memory(parts[0]));
	EXPECT(fake.nr_exports == G_N_ELEMENTS(cases) + 1);
	expect_stats(G_N_ELEMENTS(cases) + 1, G_N_ELEMENTS(cases), 0, 0);
	for (i = 0; i < 4; i++)
		gst_memory_unref(parts[i]);
	gst_memory_unref(mem);
}

static void one_dma_buf_that_is_stale_is_exported_anew(void)
{
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(NV12_UV, 0, NV12_UV);
	unsigned int before;
	GstBuffer *out;

	START(NV12, "planes", 1);
	before = open_files();
	out = push(frame_of_two(y, uv));
	fake_set_state(gst_dmabuf_memory_get_fd(only_dmabuf(out)),
		       VMEMEXP_STATE_TRACKED | VMEMEXP_STATE_STALE);
	gst_buffer_unref(out);
	gst_buffer_unref(push(frame_of_two(y, uv)));
	EXPECT(open_files() == before + 1);
	expect_stats(2, 0, 0, 0);
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

static void memories_that_follow_one_another_are_one_range(void)
{
	GstMemory *mem = memory(PAGE, 0, PAGE), *y, *uv;
	GstBuffer *out;

	START(SMALL_NV12, "planes", 1);
	/* An old driver takes one range as well. */
	fake.export_size = VMEMEXP_EXPORT_SIZE_VER1;
	y = gst_memory_share(mem, 0, 256);
	uv = gst_memory_share(mem, 256, 128);
	out = push(frame_of_two(y, uv));
	EXPECT(gst_memory_get_sizes(only_dmabuf(out), NULL, NULL) == 384);
	EXPECT(fake.export.vaddr == (uintptr_t)address_of(mem));
	EXPECT(fake.export.length == PAGE && !fake.export.nr_ranges);
	expect_stats(1, 0, 0, 0);
	expect_no_messages();
	gst_buffer_unref(out);
	gst_memory_unref(y);
	gst_memory_unref(uv);
	gst_memory_unref(mem);
}

/* A copy of both is in one memory, and its dma-buf is the one. */
static void expect_copy(GstMemory *y, GstMemory *uv, const char *words)
{
	gsize y_size = gst_memory_get_sizes(y, NULL, NULL);
	gsize uv_size = gst_memory_get_sizes(uv, NULL, NULL);
	GstBuffer *out = push(frame_of_two(y, uv));

	EXPECT(out && !fake.export.nr_ranges);
	expect_stats(0, 0, 1, 0);
	expect_message(GST_MESSAGE_WARNING, words);
	if (out && !fake.export.nr_ranges) {
		EXPECT(gst_memory_get_sizes(only_dmabuf(out), NULL, NULL) == y_size + uv_size);
		expect_bytes(fake.export.vaddr, y, 0, y_size);
		expect_bytes(fake.export.vaddr + y_size, uv, 0, uv_size);
	}
	gst_clear_buffer(&out);
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

/* A map of a plane by the meta shows no more of it than is in the first of its memories. */
static void a_plane_in_several_memories_is_one_dma_buf(void)
{
	GstMemory *mems[] = { memory(NV12_Y, 0, NV12_Y), memory(PAGE, 0, PAGE),
			      memory(PAGE, 0, PAGE) };
	GstBuffer *in, *out;

	START(YUY2, NULL);
	out = push(frame_of_two(mems[0], mems[1]));
	only_dmabuf(out);
	expect_ranges(mems[0], NV12_Y, mems[1], PAGE);
	gst_buffer_unref(out);
	gst_buffer_unref(push(frame_of_two(mems[0], mems[1])));
	expect_stats(1, 1, 0, 0);

	/* The second begins with a plane, and the third not. */
	START(NV12, NULL);
	in = frame_of_two(mems[0], mems[1]);
	gst_buffer_append_memory(in, gst_memory_ref(mems[2]));
	out = push(in);
	only_dmabuf(out);
	EXPECT(fake.export.nr_ranges == 3);
	gst_buffer_unref(out);
	expect_stats(1, 0, 0, 0);

	START(YUY2, "fallback", 3);
	expect_copy(memory(PAGE, 0, PAGE - 8), memory(PAGE, 0, PAGE), "4088 bytes at 0x");
	for (size_t i = 0; i < G_N_ELEMENTS(mems); i++)
		gst_memory_unref(mems[i]);
}

static void memories_that_are_not_whole_pages_are_copied_to_one(void)
{
	/* With what is asked for frames that cannot be exported: these can, once copied. */
	int fallback, wrap;

	for (fallback = 0; fallback < 4; fallback++)
		for (wrap = 0; wrap < 2; wrap++) {
			START(SMALL_NV12, "planes", 1, "fallback", fallback, "unaligned", wrap);
			expect_copy(memory(PAGE, 0, 256), memory(PAGE, 0, 128),
				    "256 bytes at 0x");
			START(NV12, "planes", 1, "fallback", fallback, "unaligned", wrap);
			expect_copy(memory(NV12_Y, 0, NV12_Y),
				    memory(NV12_Y, 64, NV12_UV), "8192 bytes at 0x");
		}
	START(NV12, "planes", 1);
	fake.nr_exports = 0;
	expect_copy(memory(2 * NV12_Y, 64, NV12_Y), memory(NV12_UV, 0, NV12_UV),
		    "are not whole pages");
	START(NV12, "planes", 1);
	expect_copy(memory(NV12_Y, 0, NV12_Y), memory(NV12_UV - 8, 0, NV12_UV - 8),
		    "are not whole pages; unaligned=wrap");
	/* The driver was not asked for those before the copies. */
	EXPECT(fake.nr_exports == 2);
}

static void memories_of_one_may_begin_and_end_anywhere_if_that_is_asked_for(void)
{
	/* The first one ends with a page, and the last one begins with one. */
	GstMemory *y = memory(2 * NV12_Y, 2 * NV12_Y - (NV12_Y - 64), NV12_Y - 64);
	GstMemory *uv = memory(NV12_UV - 8, 0, NV12_UV - 8), *dmabuf;
	GstBuffer *out;
	gsize offset;

	START(NV12, "planes", 1, "unaligned", 1);
	out = push(frame_of_two(y, uv));
	dmabuf = only_dmabuf(out);
	EXPECT(fake.export.flags == VMEMEXP_EXPORT_UNALIGNED);
	expect_ranges(y, NV12_Y - 64, uv, NV12_UV - 8);
	EXPECT(gst_memory_get_sizes(dmabuf, &offset, NULL) == NV12_SIZE - 72 && offset == 64);
	gst_buffer_unref(out);
	gst_buffer_unref(push(frame_of_two(y, uv)));
	EXPECT(fake.sync.offset == 64 && fake.sync.length == NV12_SIZE - 72);
	expect_stats(1, 1, 0, 0);
	expect_no_messages();
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

static void an_old_driver_has_memories_copied_to_one(void)
{
	int fallback;

	/* A copy was all that there was for "one". */
	for (fallback = 0; fallback < 4; fallback++) {
		START(NV12, "planes", 1, "fallback", fallback);
		fake.export_size = VMEMEXP_EXPORT_SIZE_VER1;
		fake.query_size = VMEMEXP_QUERY_SIZE_VER0;
		expect_copy(memory(NV12_Y, 0, NV12_Y), memory(NV12_UV, 0, NV12_UV),
			    "Frames are copied: no dma-buf of the frame: the driver is too old");
	}
}

static void memories_that_do_not_go_together_are_copied_to_one(void)
{
	int fallback;

	for (fallback = 0; fallback < 4; fallback++) {
		START(NV12, "planes", 1, "fallback", fallback);
		fail_next(VMEMEXP_IOC_EXPORT, 1, EINVAL, VMEMEXP_REASON_MIXED);
		expect_copy(memory(NV12_Y, 0, NV12_Y), memory(NV12_UV, 0, NV12_UV),
			    "memory of another nature begins at 0x1234");
	}
}

/* As a file that is mapped for reading. */
static void memories_that_are_read_only_are_copied_to_one(void)
{
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(NV12_UV, 0, NV12_UV);

	GST_MINI_OBJECT_FLAG_SET(uv, GST_MEMORY_FLAG_READONLY);
	START(NV12, "planes", 1);
	fail_next(VMEMEXP_IOC_EXPORT, 1, EACCES, VMEMEXP_REASON_NOT_WRITABLE);
	fake.fail_range = 1;
	expect_copy(y, uv, "0x1234 is not writable, only a read-only");

	START(NV12, "planes", 1, "fallback", 3);
	y = memory(NV12_Y, 0, NV12_Y);
	uv = memory(NV12_UV, 0, NV12_UV);
	fail_next(VMEMEXP_IOC_EXPORT, 1, EACCES, VMEMEXP_REASON_NOT_WRITABLE);
	EXPECT(gst_harness_push(h, frame_of_two(y, uv)) == GST_FLOW_ERROR);
	expect_message(GST_MESSAGE_ERROR, "0x1234 is not writable");
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

static void max_bytes_counts_all_memories_of_one(void)
{
	GstMemory *y = memory(NV12_Y, 0, NV12_Y), *uv = memory(NV12_UV, 0, NV12_UV);
	GstBuffer *in, *out;

	START(NV12, "planes", 1, "max-bytes", (guint64)NV12_SIZE - 1);
	in = frame_of_two(y, uv);
	out = push(in);
	EXPECT(out == in && !fake.nr_exports);
	expect_message(GST_MESSAGE_WARNING, "max-bytes is");
	gst_buffer_unref(out);
	START(NV12, "planes", 1, "max-bytes", (guint64)NV12_SIZE);
	gst_buffer_unref(push(frame_of_two(y, uv)));
	expect_stats(1, 0, 0, 0);
	gst_memory_unref(y);
	gst_memory_unref(uv);
}

/* --- what goes wrong --- */

static void expect_open_failure(int error, const char *words)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstBuffer *in = frame_of(mem), *out;

	fail_next(FAKE_OPEN, 1, error, 0);
	START(YUY2, NULL);
	out = push(in);
	EXPECT(out == in && !fake.nr_exports);
	expect_stats(0, 0, 0, 1);
	expect_message(GST_MESSAGE_WARNING, words);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

static void without_the_device_all_passes(void)
{
	expect_open_failure(ENOENT, "/dev/vmemexp: No such file or directory; is the kernel");
	expect_open_failure(EACCES, "Permission denied; its group");
}

static void without_the_device_it_stops_if_that_is_asked_for(void)
{
	int fallback;

	for (fallback = 2; fallback <= 3; fallback++) {
		GstElement *element;

		element = g_object_new(VMEMEXP_TYPE_UPLOAD, "fallback", fallback, "device",
				       "/dev/another", NULL);
		gst_object_ref_sink(element);
		gst_element_set_bus(element, bus);
		fail_next(FAKE_OPEN, 1, ENOENT, 0);
		EXPECT(gst_element_set_state(element, GST_STATE_PAUSED) ==
		       GST_STATE_CHANGE_FAILURE);
		EXPECT(!strcmp(fake.path, "/dev/another"));
		expect_message(GST_MESSAGE_ERROR, "cannot open /dev/another");
		gst_element_set_state(element, GST_STATE_NULL);
		gst_object_unref(element);
	}
}

static void at_the_limit_frames_pass_with_one_warning(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	int i;

	START(YUY2, NULL);
	fail_next(VMEMEXP_IOC_EXPORT, 3, ENOMEM, VMEMEXP_REASON_LIMIT);
	for (i = 0; i < 3; i++) {
		GstBuffer *in = frame_of(mem), *out = push(in);

		EXPECT(out == in);
		gst_buffer_unref(out);
	}
	EXPECT(fake.nr_exports == 3);
	/* It goes on without when there is room. */
	gst_buffer_unref(push_memory(mem));
	expect_stats(1, 0, 0, 3);
	expect_message(GST_MESSAGE_WARNING, "RLIMIT_MEMLOCK at 0x1234; raise that limit");
	gst_memory_unref(mem);
}

/* The source's pages may be of a kind that no driver exports. */
static void refused_memory_is_copied(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstStructure *stats;
	GstBuffer *out;

	START(YUY2, NULL);
	fail_next(VMEMEXP_IOC_EXPORT, 1, EPERM, VMEMEXP_REASON_KIND);
	out = push_memory(mem);
	only_dmabuf(out);
	EXPECT(fake.export.vaddr != (uintptr_t)address_of(mem));
	expect_stats(0, 0, 1, 0);
	expect_message(GST_MESSAGE_WARNING,
		       "Frames are copied: no dma-buf of the frame: the kind of");
	g_object_get(h->element, "stats", &stats, NULL);
	EXPECT(strstr(gst_structure_get_string(stats, "last-error"), "the kind of memory"));
	gst_structure_free(stats);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

static void refused_memory_passes_if_that_is_asked_for(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstBuffer *in, *out;

	START(YUY2, "fallback", 1);
	fail_next(VMEMEXP_IOC_EXPORT, 1, EPERM, VMEMEXP_REASON_KIND);
	in = frame_of(mem);
	out = push(in);
	EXPECT(out == in);
	expect_stats(0, 0, 0, 1);
	expect_message(GST_MESSAGE_WARNING, "Frames pass as they are");
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

static void expect_stop(int fallback, unsigned int times, uint32_t reason, const char *words)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);

	START(YUY2, "fallback", fallback);
	fail_next(VMEMEXP_IOC_EXPORT, times, ENOMEM, reason);
	EXPECT(gst_harness_push(h, frame_of(mem)) == GST_FLOW_ERROR);
	EXPECT(!fake.fail_times);
	expect_message(GST_MESSAGE_ERROR, words);
	expect_stats(0, 0, 0, 0);
	gst_memory_unref(mem);
}

static void it_stops_if_that_is_asked_for(void)
{
	expect_stop(3, 1, VMEMEXP_REASON_LIMIT, "RLIMIT_MEMLOCK");
	expect_stop(3, 1, VMEMEXP_REASON_KIND, "the kind of memory");
	/* After it has tried with a copy. */
	expect_stop(2, 2, VMEMEXP_REASON_LIMIT, "RLIMIT_MEMLOCK");
}

static void scattered_memory_is_refused_if_that_is_asked_for(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);

	START(YUY2, "contiguous", TRUE, "fallback", 1);
	fail_next(VMEMEXP_IOC_EXPORT, 1, ERANGE, VMEMEXP_REASON_NOT_CONTIGUOUS);
	gst_buffer_unref(push_memory(mem));
	EXPECT(fake.export.flags == VMEMEXP_EXPORT_CONTIGUOUS);
	expect_message(GST_MESSAGE_WARNING, "not physically contiguous");
	gst_memory_unref(mem);
}

static void max_bytes_has_the_oldest_export_forgotten(void)
{
	GstMemory *one = memory(YUY2_PAGES, 0, YUY2_SIZE), *two = memory(YUY2_PAGES, 0, YUY2_SIZE);
	unsigned int before;

	START(YUY2, "max-bytes", (guint64)YUY2_PAGES);
	before = open_files();
	gst_buffer_unref(push_memory(one));
	gst_buffer_unref(push_memory(two));
	EXPECT(open_files() == before + 1);
	gst_buffer_unref(push_memory(two));
	expect_stats(2, 1, 0, 0);
	expect_no_messages();
	gst_memory_unref(one);
	gst_memory_unref(two);
}

/* It is that which was not used for longest. */
static void max_bytes_keeps_what_was_used_last(void)
{
	GstMemory *mems[3];
	static const int order[] = { 0, 1, 0, 2, 0 };
	unsigned int i;

	START(YUY2, "max-bytes", (guint64)YUY2_PAGES * 2);
	for (i = 0; i < 3; i++)
		mems[i] = memory(YUY2_PAGES, 0, YUY2_SIZE);
	for (i = 0; i < G_N_ELEMENTS(order); i++)
		gst_buffer_unref(push_memory(mems[order[i]]));
	expect_stats(3, 2, 0, 0);
	for (i = 0; i < 3; i++)
		gst_memory_unref(mems[i]);
}

static void max_bytes_bounds_what_a_sink_holds(void)
{
	GstMemory *one = memory(YUY2_PAGES, 0, YUY2_SIZE), *two = memory(YUY2_PAGES, 0, YUY2_SIZE);
	GstBuffer *held, *out;

	START(YUY2, "max-bytes", (guint64)YUY2_PAGES * 2 - 1);
	held = push_memory(one);
	out = push_memory(two);
	EXPECT(fake.nr_exports == 1);
	EXPECT(gst_buffer_peek_memory(out, 0) == two);
	expect_message(GST_MESSAGE_WARNING, "max-bytes is 376831");
	gst_buffer_unref(out);
	gst_buffer_unref(held);
	gst_buffer_unref(push_memory(two));
	expect_stats(2, 0, 0, 1);
	gst_memory_unref(one);
	gst_memory_unref(two);
}

static void push_often(GstMemory *mem)
{
	int i;

	for (i = 0; i < 30; i++)
		gst_buffer_unref(push_memory(mem));
}

static void it_tells_once_that_nobody_imports(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);

	START(YUY2, NULL);
	push_often(mem);
	expect_message(GST_MESSAGE_INFO, "No device has imported");
	fake.attachments = 1;
	START(YUY2, NULL);
	push_often(mem);
	EXPECT(!message(GST_MESSAGE_INFO));
	gst_memory_unref(mem);
}

/* As from a source that has no pool, to a sink that holds the last frame. */
static void push_often_anew(void)
{
	GstBuffer *last = NULL;
	GstMemory *mem;
	int i;

	for (i = 0; i < 30; i++) {
		GstBuffer *out;

		mem = memory(YUY2_PAGES, 0, YUY2_SIZE);
		out = push_memory(mem);
		gst_clear_buffer(&last);
		last = out;
		gst_memory_unref(mem);
	}
	gst_buffer_unref(last);
}

static void it_tells_that_nobody_imports_what_is_always_new(void)
{
	START(YUY2, NULL);
	push_often_anew();
	expect_stats(30, 0, 0, 0);
	expect_message(GST_MESSAGE_INFO, "No device has imported");
	fake.attachments = 1;
	START(YUY2, NULL);
	push_often_anew();
	EXPECT(!message(GST_MESSAGE_INFO));
}

static GstFlowReturn fail_chain(GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
	(void)pad;
	(void)parent;
	gst_buffer_unref(buffer);
	return GST_FLOW_ERROR;
}

static void push_to_failing_sink(GstMemory *mem)
{
	gst_pad_set_chain_function(h->sinkpad, fail_chain);
	EXPECT(gst_harness_push(h, frame_of(mem)) == GST_FLOW_ERROR);
}

/* As v4l2sink, which says nothing, or as one that fails for a reason of its own. */
static void it_says_what_a_sink_that_fails_may_have_refused(void)
{
	GstMemory *mem = memory(YUY2_PAGES, 0, YUY2_SIZE);

	START(YUY2, NULL);
	push_to_failing_sink(mem);
	expect_message(GST_MESSAGE_WARNING,
		       "The sink failed, and no device has imported a dma-buf");
	START(YUY2, NULL);
	gst_buffer_unref(push_memory(mem));
	fake.attachments = 1;
	gst_buffer_unref(push_memory(mem));
	push_to_failing_sink(mem);
	expect_no_messages();
	fake.attachments = 0;
	fail_next(FAKE_OPEN, 1, ENOENT, 0);
	START(YUY2, NULL);
	expect_message(GST_MESSAGE_WARNING, "cannot open");
	push_to_failing_sink(mem);
	expect_no_messages();
	gst_memory_unref(mem);
}

/* --- caps and allocation --- */

static void frames_of_another_size_are_their_own(void)
{
	GstMemory *mem = memory(YUY2_SIZE, 0, YUY2_SIZE), *small = memory(64, 0, 64);
	GstBuffer *out;

	START(YUY2, NULL);
	gst_buffer_unref(push_memory(mem));
	gst_harness_set_src_caps_str(h, "video/x-raw,format=YUY2,width=8,height=4,framerate=30/1");
	out = push_memory(small);
	EXPECT(gst_buffer_get_size(out) == 64);
	EXPECT(gst_buffer_get_video_meta(out)->width == 8);
	gst_buffer_unref(out);
	gst_harness_set_src_caps_str(h, YUY2);
	out = push_memory(mem);
	EXPECT(gst_buffer_get_size(out) == YUY2_SIZE);
	gst_buffer_unref(out);
	expect_stats(0, 0, 3, 0);
	gst_memory_unref(mem);
	gst_memory_unref(small);
}

#define HUGE_PAGE	((gsize)2 << 20)

/* Return TRUE if huge pages have that size, as on amd64; other machines have other sizes. */
static gboolean has_huge_pages(void)
{
	char *text = NULL;
	gboolean has;

	has = g_file_get_contents("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", &text,
				  NULL, NULL) && strtoull(text, NULL, 10) == HUGE_PAGE;
	g_free(text);
	return has;
}

/* The element's answer to upstream. */
static GstQuery *ask(gboolean need_pool)
{
	GstCaps *caps = gst_caps_from_string(YUY2);
	GstQuery *query = gst_query_new_allocation(caps, need_pool);

	gst_caps_unref(caps);
	EXPECT(gst_pad_peer_query(h->srcpad, query));
	return query;
}

/* A frame from the first pool in the answer. */
static GstBuffer *frame_from_pool(GstQuery *query, GstBufferPool **pool)
{
	GstBuffer *buffer = NULL;

	EXPECT(gst_query_get_n_allocation_pools(query) == 1);
	gst_query_parse_nth_allocation_pool(query, 0, pool, NULL, NULL, NULL);
	EXPECT(gst_buffer_pool_set_active(*pool, TRUE));
	EXPECT(gst_buffer_pool_acquire_buffer(*pool, &buffer, NULL) == GST_FLOW_OK);
	return buffer;
}

static void free_pool(GstBufferPool *pool)
{
	gst_buffer_pool_set_active(pool, FALSE);
	gst_object_unref(pool);
}

static void upstream_is_offered_whole_pages(void)
{
	GstAllocationParams params;
	GstAllocator *allocator;
	GstBufferPool *pool;
	GstBuffer *in, *out;
	GstVideoMeta *meta;
	GstQuery *query;
	GstMemory *mem;

	START(YUY2, NULL);
	gst_harness_add_propose_allocation_meta(h, GST_VIDEO_META_API_TYPE, NULL);
	query = ask(TRUE);
	EXPECT(gst_query_get_n_allocation_params(query) == 1);
	gst_query_parse_nth_allocation_param(query, 0, &allocator, &params);
	mem = gst_allocator_alloc(allocator, 100, &params);
	EXPECT(!((uintptr_t)address_of(mem) % PAGE) && mem->maxsize == PAGE && mem->size == 100);
	gst_memory_unref(mem);
	gst_object_unref(allocator);
	EXPECT(gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL));
	in = frame_from_pool(query, &pool);
	meta = gst_buffer_get_video_meta(in);
	/* 640 is no multiple of 256. */
	EXPECT(meta && meta->stride[0] == 768);
	mem = gst_buffer_peek_memory(in, 0);
	out = push(in);
	EXPECT(fake.nr_exports == 1 && fake.export.vaddr == (uintptr_t)address_of(mem));
	EXPECT(gst_buffer_get_video_meta(out)->stride[0] == 768);
	gst_buffer_unref(out);
	expect_stats(1, 0, 0, 0);
	free_pool(pool);
	gst_query_unref(query);
}

/* Guests show that it is one. Here it begins where one begins. */
static void memory_of_one_piece_is_in_a_huge_page(void)
{
	GstAllocationParams params;
	GstAllocator *allocator;
	GstQuery *query;
	GstMemory *mem;
	gsize sizes[] = { 100, HUGE_PAGE, HUGE_PAGE + 1 };
	guint i;

	if (!has_huge_pages())
		return;
	START(YUY2, "contiguous", TRUE);
	query = ask(TRUE);
	gst_query_parse_nth_allocation_param(query, 0, &allocator, &params);
	for (i = 0; i < G_N_ELEMENTS(sizes); i++) {
		mem = gst_allocator_alloc(allocator, sizes[i], &params);
		EXPECT(mem->size == sizes[i] && mem->maxsize - sizes[i] < PAGE);
		EXPECT(i == 2 || !((uintptr_t)address_of(mem) % HUGE_PAGE));
		gst_memory_unref(mem);
	}
	gst_object_unref(allocator);
	gst_query_unref(query);
}

static void strides_are_the_usual_ones_for_who_knows_no_others(void)
{
	GstBufferPool *pool;
	GstQuery *query;
	GstBuffer *in;

	START(YUY2, NULL);
	query = ask(TRUE);
	EXPECT(!gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL));
	in = frame_from_pool(query, &pool);
	EXPECT(gst_buffer_get_size(in) == YUY2_SIZE);
	gst_buffer_unref(push(in));
	expect_stats(1, 0, 0, 0);
	free_pool(pool);
	gst_query_unref(query);
	query = ask(FALSE);
	EXPECT(!gst_query_get_n_allocation_pools(query));
	gst_query_unref(query);
}

static GstBufferPool *offer;
static guint offer_size, offer_max;

static gboolean offer_pool(GstPad *pad, GstObject *parent, GstQuery *query)
{
	if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION)
		return gst_pad_query_default(pad, parent, query);
	gst_query_add_allocation_pool(query, offer, offer_size, 2, offer_max);
	gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
	return TRUE;
}

static void a_pool_of_ordinary_memory_is_replaced(void)
{
	GstCaps *caps = gst_caps_from_string(YUY2);
	GstStructure *config;
	GstBufferPool *pool;
	GstQuery *query;
	GstBuffer *in;

	START(YUY2, NULL);
	offer_size = YUY2_SIZE;
	offer = gst_buffer_pool_new();
	config = gst_buffer_pool_get_config(offer);
	gst_buffer_pool_config_set_params(config, caps, YUY2_SIZE, 2, 0);
	gst_buffer_pool_set_config(offer, config);
	gst_pad_set_query_function(h->sinkpad, offer_pool);
	query = ask(TRUE);
	in = frame_from_pool(query, &pool);
	EXPECT(pool != offer);
	/* Its strides are those that downstream has asked for. */
	EXPECT(gst_buffer_get_size(in) == YUY2_SIZE && !gst_buffer_get_video_meta(in));
	gst_buffer_unref(push(in));
	expect_stats(1, 0, 0, 0);
	expect_no_messages();
	free_pool(pool);
	gst_query_unref(query);
	stop();
	gst_object_unref(offer);
	gst_caps_unref(caps);
}

/* As v4l2sink does: a size, and no pool. */
static void strides_are_the_usual_ones_for_a_size_without_a_pool(void)
{
	GstBufferPool *pool;
	GstQuery *query;
	GstBuffer *in;

	START(YUY2, NULL);
	offer = NULL;
	offer_size = YUY2_SIZE;
	gst_pad_set_query_function(h->sinkpad, offer_pool);
	query = ask(TRUE);
	in = frame_from_pool(query, &pool);
	EXPECT(gst_buffer_get_size(in) == YUY2_SIZE);
	gst_buffer_unref(push(in));
	expect_stats(1, 0, 0, 0);
	free_pool(pool);
	gst_query_unref(query);
}

/* A driver may want more bytes than the frame has, and keep some frames. */
static void a_size_and_a_number_without_a_pool_are_handed_on(void)
{
	guint size, min, max;
	GstBufferPool *pool;
	GstQuery *query;
	GstBuffer *in;

	START(YUY2, NULL);
	offer = NULL;
	offer_size = YUY2_PAGES;
	offer_max = 5;
	gst_pad_set_query_function(h->sinkpad, offer_pool);
	query = ask(TRUE);
	EXPECT(gst_query_get_n_allocation_pools(query) == 1);
	gst_query_parse_nth_allocation_pool(query, 0, NULL, &size, &min, &max);
	EXPECT(size == YUY2_PAGES && min == 2 && max == 5);
	in = frame_from_pool(query, &pool);
	EXPECT(gst_buffer_get_size(in) == YUY2_PAGES);
	gst_buffer_unref(push(in));
	expect_stats(1, 0, 0, 0);
	expect_no_messages();
	free_pool(pool);
	gst_query_unref(query);
	/* Also to who wants no pool, as a tee. */
	query = ask(FALSE);
	EXPECT(gst_query_get_n_allocation_pools(query) == 1);
	gst_query_parse_nth_allocation_pool(query, 0, &pool, &size, &min, &max);
	EXPECT(!pool && size == YUY2_PAGES && min == 2 && max == 5);
	gst_query_unref(query);
	offer_max = 0;
}

/* Upstream has them already, and asks the sink. */
static void who_has_dma_bufs_is_offered_nothing(void)
{
	GstCaps *caps = gst_caps_from_string("video/x-raw(memory:DMABuf),format=YUY2,width=320");
	GstQuery *query = gst_query_new_allocation(caps, TRUE);
	GstBufferPool *pool;

	START(YUY2, NULL);
	offer = NULL;
	offer_size = YUY2_SIZE;
	gst_pad_set_query_function(h->sinkpad, offer_pool);
	EXPECT(gst_pad_peer_query(h->srcpad, query));
	EXPECT(gst_query_get_n_allocation_pools(query) == 1);
	gst_query_parse_nth_allocation_pool(query, 0, &pool, NULL, NULL, NULL);
	EXPECT(!pool);
	EXPECT(!gst_query_get_n_allocation_params(query));
	gst_query_unref(query);
	gst_caps_unref(caps);
}

/* Memory of a device, which no CPU can map: a sink's frame buffer, or a GPU's. */
struct device_memory {
	GstMemory parent;
	char *data;
	char drawn;
};

static GstMemory *alloc_device_memory(GstAllocator *allocator, gsize size,
				      GstAllocationParams *params)
{
	struct device_memory *device = g_new0(struct device_memory, 1);

	(void)params;
	device->data = map_pages(size);
	gst_memory_init(&device->parent, GST_MEMORY_FLAG_NO_SHARE, allocator, NULL, size, 0, 0,
			size);
	return &device->parent;
}

static void free_device_memory(GstAllocator *allocator, GstMemory *mem)
{
	(void)allocator;
	unmap(((struct device_memory *)mem)->data);
	g_free(mem);
}

/* Unless a map copies to system memory what the GPU has drawn. */
static gpointer map_gpu_memory(GstMemory *mem, gsize maxsize, GstMapFlags flags)
{
	struct device_memory *device = (struct device_memory *)mem;

	(void)flags;
	memset(device->data, device->drawn, maxsize);
	return device->data;
}

static void unmap_gpu_memory(GstMemory *mem)
{
	(void)mem;
}

G_DECLARE_FINAL_TYPE(DeviceAllocator, device_allocator, DEVICE, ALLOCATOR, GstAllocator)

struct _DeviceAllocator {
	GstAllocator parent;
};

G_DEFINE_TYPE(DeviceAllocator, device_allocator, GST_TYPE_ALLOCATOR)

static void device_allocator_class_init(DeviceAllocatorClass *class)
{
	GST_ALLOCATOR_CLASS(class)->alloc = alloc_device_memory;
	GST_ALLOCATOR_CLASS(class)->free = free_device_memory;
}

static void device_allocator_init(DeviceAllocator *self)
{
	GstAllocator *allocator = GST_ALLOCATOR(self);

	allocator->mem_type = "DeviceMemory";
	GST_OBJECT_FLAG_SET(allocator, GST_ALLOCATOR_FLAG_CUSTOM_ALLOC);
}

static void what_a_gpu_has_drawn_since_is_shown(void)
{
	GstAllocator *allocator = g_object_new(device_allocator_get_type(), NULL);
	struct device_memory *gpu;
	GstMemory *mem;
	int i;

	gst_object_ref_sink(allocator);
	allocator->mem_map = map_gpu_memory;
	allocator->mem_unmap = unmap_gpu_memory;
	GST_OBJECT_FLAG_UNSET(allocator, GST_ALLOCATOR_FLAG_CUSTOM_ALLOC);
	mem = gst_allocator_alloc(allocator, NV12_SIZE, NULL);
	gpu = (struct device_memory *)mem;
	START(NV12, NULL);
	for (i = 1; i <= 3; i++) {
		gpu->drawn = i;
		gst_buffer_unref(push_memory(mem));
		EXPECT(gpu->data[0] == i && gpu->data[NV12_SIZE - 1] == i);
	}
	EXPECT(fake.nr_exports == 1);
	expect_stats(1, 2, 0, 0);
	gst_memory_unref(mem);
	stop();
	gst_object_unref(allocator);
}

static void the_sinks_own_memory_passes(void)
{
	GstAllocator *allocator = g_object_new(device_allocator_get_type(), NULL);
	GstCaps *caps = gst_caps_from_string(YUY2);
	GstAllocationParams params;
	GstStructure *config;
	GstBufferPool *pool;
	GstBuffer *in, *out;
	GstQuery *query;

	gst_object_ref_sink(allocator);
	START(YUY2, NULL);
	offer_size = YUY2_SIZE;
	offer = gst_buffer_pool_new();
	config = gst_buffer_pool_get_config(offer);
	gst_allocation_params_init(&params);
	gst_buffer_pool_config_set_params(config, caps, YUY2_SIZE, 2, 0);
	gst_buffer_pool_config_set_allocator(config, allocator, &params);
	/* gst_buffer_new_allocate() takes no allocator of this sort. */
	GST_OBJECT_FLAG_UNSET(allocator, GST_ALLOCATOR_FLAG_CUSTOM_ALLOC);
	gst_buffer_pool_set_config(offer, config);
	gst_pad_set_query_function(h->sinkpad, offer_pool);
	query = ask(TRUE);
	in = frame_from_pool(query, &pool);
	EXPECT(pool == offer && !gst_query_get_n_allocation_params(query));
	out = push(in);
	EXPECT(out == in && !fake.nr_exports);
	expect_stats(0, 0, 0, 1);
	expect_no_messages();
	gst_buffer_unref(out);
	free_pool(pool);
	gst_query_unref(query);
	stop();
	gst_object_unref(offer);
	gst_caps_unref(caps);
	gst_object_unref(allocator);
}

#if GST_CHECK_VERSION(1, 24, 0)

#define ONLY_DMABUF	"video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format="

static void a_sink_of_dma_bufs_alone_gets_its_caps(void)
{
	GstMemory *mem = memory(NV12_SIZE, 0, NV12_SIZE);
	GstBuffer *out;
	GstCaps *caps;
	char *text;

	if (h)
		stop();
	h = new_harness(NULL, NULL);
	gst_harness_set_sink_caps_str(h, ONLY_DMABUF "{NV12,YUYV}");
	gst_harness_set_src_caps_str(h, NV12);
	out = push_memory(mem);
	only_dmabuf(out);
	EXPECT(gst_buffer_get_video_meta(out)->format == GST_VIDEO_FORMAT_NV12);
	caps = gst_pad_get_current_caps(h->sinkpad);
	text = gst_caps_to_string(caps);
	EXPECT(strstr(text, "memory:DMABuf") && strstr(text, "drm-format=(string)NV12"));
	g_free(text);
	gst_caps_unref(caps);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

/* A filter may say nothing of formats. The source then gets a choice that has them all. */
static void a_filter_of_dma_bufs_alone_gets_any_format(void)
{
	GstCaps *caps, *raw = gst_caps_from_string(NV12 ";" YUY2);
	GstMemory *mem = memory(NV12_SIZE, 0, NV12_SIZE);
	GstBuffer *out;
	char *text;

	if (h)
		stop();
	h = new_harness(NULL, NULL);
	gst_harness_set_sink_caps_str(h, "video/x-raw(memory:DMABuf)");
	caps = gst_pad_peer_query_caps(h->srcpad, NULL);
	EXPECT(gst_caps_is_subset(raw, caps));
	gst_caps_unref(raw);
	/* Nothing is offered that has no DRM format. */
	raw = gst_caps_from_string("video/x-raw,format=AYUV,width=256,height=64");
	EXPECT(!gst_caps_can_intersect(raw, caps));
	gst_caps_unref(raw);
	gst_caps_unref(caps);
	gst_harness_set_src_caps_str(h, NV12);
	out = push_memory(mem);
	only_dmabuf(out);
	caps = gst_pad_get_current_caps(h->sinkpad);
	text = gst_caps_to_string(caps);
	EXPECT(strstr(text, "memory:DMABuf") && strstr(text, "drm-format=(string)NV12"));
	g_free(text);
	gst_caps_unref(caps);
	gst_buffer_unref(out);
	gst_memory_unref(mem);
}

/* Nothing else may have those caps. */
static void a_sink_of_dma_bufs_alone_gets_nothing_else(void)
{
	GstMemory *mem = memory(NV12_SIZE, 0, NV12_SIZE);

	if (h)
		stop();
	h = new_harness(NULL, NULL);
	gst_harness_set_sink_caps_str(h, ONLY_DMABUF "NV12");
	gst_harness_set_src_caps_str(h, NV12);
	fail_next(VMEMEXP_IOC_EXPORT, 1, ENOMEM, VMEMEXP_REASON_LIMIT);
	EXPECT(gst_harness_push(h, frame_of(mem)) == GST_FLOW_ERROR);
	expect_message(GST_MESSAGE_ERROR, "RLIMIT_MEMLOCK");
	gst_memory_unref(mem);
}

/* No upstream element has memory that is tiled. */
static void a_sink_of_tiles_alone_is_offered_nothing(void)
{
	GstCaps *raw = gst_caps_from_string(NV12), *caps;

	if (h)
		stop();
	h = new_harness(NULL, NULL);
	gst_harness_set_sink_caps_str(h, ONLY_DMABUF "NV12:0x0100000000000002");
	caps = gst_pad_peer_query_caps(h->srcpad, NULL);
	EXPECT(!gst_caps_can_intersect(caps, raw));
	gst_caps_unref(caps);
	gst_caps_unref(raw);
}

static void system_memory_comes_first(void)
{
	GstCaps *caps;
	char *text;

	if (h)
		stop();
	h = new_harness(NULL, NULL);
	gst_harness_set_sink_caps_str(h, ONLY_DMABUF "NV12;video/x-raw");
	gst_harness_set_src_caps_str(h, NV12);
	gst_harness_push(h, gst_buffer_new());
	caps = gst_pad_get_current_caps(h->sinkpad);
	text = gst_caps_to_string(caps);
	EXPECT(!strstr(text, "DMABuf"));
	g_free(text);
	gst_caps_unref(caps);
}

#endif

/* --- --- */

#define TEST(name)	{ #name, name }

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	TEST(a_frame_is_exported_where_it_is),
	TEST(whole_pages_need_nothing_behind_them),
	TEST(metas_are_handed_on),
	TEST(the_frame_is_held_as_long_as_its_dma_buf_is_used),
	TEST(only_a_frame_of_its_own_is_written_to_behind_it),
	TEST(a_copy_of_a_frame_of_others_may_be_written_to),
	TEST(memory_is_found_again_and_synced),
	TEST(a_part_of_a_memory_is_found_again),
	TEST(the_export_ends_with_the_memory),
	TEST(the_export_ends_with_the_element),
	TEST(counts_begin_anew_with_the_element),
	TEST(what_a_sink_holds_outlives_the_element),
	TEST(what_is_stale_is_exported_anew),
	TEST(a_sync_that_fails_has_it_exported_anew),
	TEST(two_elements_share_an_export),
	TEST(exports_that_differ_are_not_shared),
	TEST(dma_bufs_pass),
	TEST(what_has_no_picture_passes),
	TEST(what_is_unaligned_is_copied),
	TEST(a_copy_is_not_written_over_while_a_sink_has_it),
	TEST(what_is_unaligned_is_wrapped_if_that_is_asked_for),
	TEST(an_offset_is_not_handed_on_unasked),
	TEST(planes_are_exported_as_they_lie),
	TEST(planes_are_split_where_pages_begin),
	TEST(planes_that_begin_elsewhere_are_copied),
	TEST(memories_that_are_no_planes_are_copied),
	TEST(planes_become_one),
	TEST(the_planes_offsets_in_one_are_those_of_the_frame),
	TEST(any_number_of_memories_becomes_one),
	TEST(one_dma_buf_ends_with_any_of_its_memories),
	TEST(one_dma_buf_is_found_for_the_same_memories_alone),
	TEST(one_dma_buf_that_is_stale_is_exported_anew),
	TEST(memories_that_follow_one_another_are_one_range),
	TEST(a_plane_in_several_memories_is_one_dma_buf),
	TEST(memories_that_are_not_whole_pages_are_copied_to_one),
	TEST(memories_of_one_may_begin_and_end_anywhere_if_that_is_asked_for),
	TEST(an_old_driver_has_memories_copied_to_one),
	TEST(memories_that_do_not_go_together_are_copied_to_one),
	TEST(memories_that_are_read_only_are_copied_to_one),
	TEST(max_bytes_counts_all_memories_of_one),
	TEST(without_the_device_all_passes),
	TEST(without_the_device_it_stops_if_that_is_asked_for),
	TEST(at_the_limit_frames_pass_with_one_warning),
	TEST(refused_memory_is_copied),
	TEST(refused_memory_passes_if_that_is_asked_for),
	TEST(it_stops_if_that_is_asked_for),
	TEST(scattered_memory_is_refused_if_that_is_asked_for),
	TEST(max_bytes_has_the_oldest_export_forgotten),
	TEST(max_bytes_keeps_what_was_used_last),
	TEST(max_bytes_bounds_what_a_sink_holds),
	TEST(it_tells_once_that_nobody_imports),
	TEST(it_tells_that_nobody_imports_what_is_always_new),
	TEST(it_says_what_a_sink_that_fails_may_have_refused),
	TEST(frames_of_another_size_are_their_own),
	TEST(upstream_is_offered_whole_pages),
	TEST(memory_of_one_piece_is_in_a_huge_page),
	TEST(strides_are_the_usual_ones_for_who_knows_no_others),
	TEST(a_pool_of_ordinary_memory_is_replaced),
	TEST(strides_are_the_usual_ones_for_a_size_without_a_pool),
	TEST(a_size_and_a_number_without_a_pool_are_handed_on),
	TEST(who_has_dma_bufs_is_offered_nothing),
	TEST(what_a_gpu_has_drawn_since_is_shown),
	TEST(the_sinks_own_memory_passes),
#if GST_CHECK_VERSION(1, 24, 0)
	TEST(a_sink_of_dma_bufs_alone_gets_its_caps),
	TEST(a_filter_of_dma_bufs_alone_gets_any_format),
	TEST(a_sink_of_dma_bufs_alone_gets_nothing_else),
	TEST(a_sink_of_tiles_alone_is_offered_nothing),
	TEST(system_memory_comes_first),
#endif
};

static int run_tests(void)
{
	int failed = 0;
	guint i;

	printf("TAP version 13\n1..%zu\n", G_N_ELEMENTS(tests));
	for (i = 0; i < G_N_ELEMENTS(tests); i++) {
		unsigned int before;

		failures = 0;
		fake_reset();
		bus = gst_bus_new();
		before = open_files();
		tests[i].run();
		if (h)
			stop();
		EXPECT(open_files() == before);
		gst_object_unref(bus);
		failed += failures > 0;
		printf("%sok %u gstreamer.%s\n", failures ? "not " : "", i + 1, tests[i].name);
		fflush(stdout);
	}
	return failed > 0;
}

/* --- cost --- */

#define FULL_HD	"video/x-raw,format=NV12,width=1920,height=1080,framerate=30/1"
#define FULL_HD_SIZE	((gsize)1920 * 1080 * 3 / 2)

static int run_cost(const char *what, unsigned long frames)
{
	GstMemory *mem = memory(FULL_HD_SIZE + PAGE, 0, FULL_HD_SIZE);
	char *to = malloc(FULL_HD_SIZE);

	fake_reset();
	fake.attachments = 1;
	bus = gst_bus_new();
	if (!strcmp(what, "passed"))
		fail_next(FAKE_OPEN, 1, ENOENT, 0);
	START(FULL_HD, NULL);
	for (; frames; frames--) {
		gst_buffer_unref(push_memory(mem));
		if (!strcmp(what, "copied"))
			memcpy(to, address_of(mem), FULL_HD_SIZE);
		/* The compiler cannot know that it is read. */
		asm volatile("" : : "r"(to) : "memory");
	}
	free(to);
	gst_memory_unref(mem);
	stop();
	gst_object_unref(bus);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	int status;

	/* No plugin is needed, and none is to be looked for. */
	setenv("GST_REGISTRY_DISABLE", "yes", true);
	gst_init(NULL, NULL);
	if (argc == 4)
		status = run_cost(argv[2], strtoul(argv[3], NULL, 10));
	else
		status = run_tests();
	gst_deinit();
	return status;
}

// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Memory of whole pages.
 *
 * An alignment in GstAllocationParams would do for the first byte, but pools of video align
 * each row by it as well.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pages.h"

/* From 6.1 on; older kernels refuse it. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define HUGE_PAGE_SIZE	"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

struct mapping {
	void *addr;
	gsize length;
};

gsize page_size(void)
{
	static gsize size;

	if (!size)
		size = sysconf(_SC_PAGESIZE);
	return size;
}

gsize whole_pages(gsize length)
{
	return (length + page_size() - 1) & ~(page_size() - 1);
}

/* 0: the kernel has none. */
static gsize huge_page_size(void)
{
	static gsize size_plus_one;
	char *text = NULL;

	if (g_once_init_enter(&size_plus_one)) {
		gsize size = 0;

		if (g_file_get_contents(HUGE_PAGE_SIZE, &text, NULL, NULL))
			size = strtoull(text, NULL, 10);
		g_free(text);
		g_once_init_leave(&size_plus_one, size + 1);
	}
	return size_plus_one - 1;
}

static void *map_pages(gsize length)
{
	return mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* A mapping of a huge page. If there is none now, it is of small pages. */
static void *map_huge_page(gsize size)
{
	guint8 *begin = map_pages(2 * size), *addr;

	if (begin == MAP_FAILED)
		return begin;
	addr = begin + (-(guintptr)begin & (size - 1));
	if (addr != begin)
		munmap(begin, addr - begin);
	munmap(addr + size, begin + size - addr);
	madvise(addr, size, MADV_HUGEPAGE);
	*(volatile guint8 *)addr = 0;
	/* Where the first access brings none, because of the system's settings. */
	madvise(addr, size, MADV_COLLAPSE);
	return addr;
}

static void free_mapping(gpointer data)
{
	struct mapping *mapping = data;

	munmap(mapping->addr, mapping->length);
	g_free(mapping);
}

#define VMEMEXP_TYPE_PAGES	(vmemexp_pages_get_type())
G_DECLARE_FINAL_TYPE(VmemexpPages, vmemexp_pages, VMEMEXP, PAGES, GstAllocator)

struct _VmemexpPages {
	GstAllocator parent;

	gint contiguous;
};

static GstMemory *alloc(GstAllocator *allocator, gsize size, GstAllocationParams *params);

G_DEFINE_TYPE(VmemexpPages, vmemexp_pages, GST_TYPE_ALLOCATOR)

static void vmemexp_pages_class_init(VmemexpPagesClass *class)
{
	GST_ALLOCATOR_CLASS(class)->alloc = alloc;
}

static void vmemexp_pages_init(VmemexpPages *self)
{
	GST_ALLOCATOR(self)->mem_type = GST_ALLOCATOR_SYSMEM;
}

/* It is system memory for all that look at it, and freed by that allocator. */
static GstMemory *alloc(GstAllocator *allocator, gsize size, GstAllocationParams *params)
{
	gsize length = whole_pages(MAX(params->prefix + size + params->padding, 1));
	gboolean huge = g_atomic_int_get(&VMEMEXP_PAGES(allocator)->contiguous) &&
			length <= huge_page_size();
	gsize mapped = huge ? huge_page_size() : length;
	void *addr = huge ? map_huge_page(mapped) : map_pages(mapped);
	struct mapping *mapping;
	GstMemory *mem;

	if (addr == MAP_FAILED)
		return NULL;
	mapping = g_new(struct mapping, 1);
	mapping->addr = addr;
	mapping->length = mapped;
	mem = gst_memory_new_wrapped(params->flags, addr, length, params->prefix, size, mapping,
				     free_mapping);
	mem->align = page_size() - 1;
	return mem;
}

GstAllocator *page_allocator_new(void)
{
	return gst_object_ref_sink(g_object_new(VMEMEXP_TYPE_PAGES, NULL));
}

void page_allocator_set_contiguous(GstAllocator *allocator, gboolean contiguous)
{
	g_atomic_int_set(&VMEMEXP_PAGES(allocator)->contiguous, contiguous);
}

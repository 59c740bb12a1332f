// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Memory of whole pages.
 *
 * An alignment in GstAllocationParams would do for the first byte, but pools of video align
 * each row by it as well.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "pages.h"

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

static void free_mapping(gpointer data)
{
	struct mapping *mapping = data;

	munmap(mapping->addr, mapping->length);
	g_free(mapping);
}

/* It is system memory for all that look at it, and freed by that allocator. */
static GstMemory *alloc(GstAllocator *allocator, gsize size, GstAllocationParams *params)
{
	gsize length = whole_pages(MAX(params->prefix + size + params->padding, 1));
	struct mapping *mapping;
	GstMemory *mem;
	void *addr;

	(void)allocator;
	addr = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return NULL;
	mapping = g_new(struct mapping, 1);
	mapping->addr = addr;
	mapping->length = length;
	mem = gst_memory_new_wrapped(params->flags, addr, length, params->prefix, size, mapping,
				     free_mapping);
	mem->align = page_size() - 1;
	return mem;
}

#define VMEMEXP_TYPE_PAGES	(vmemexp_pages_get_type())
G_DECLARE_FINAL_TYPE(VmemexpPages, vmemexp_pages, VMEMEXP, PAGES, GstAllocator)

struct _VmemexpPages {
	GstAllocator parent;
};

G_DEFINE_TYPE(VmemexpPages, vmemexp_pages, GST_TYPE_ALLOCATOR)

static void vmemexp_pages_class_init(VmemexpPagesClass *class)
{
	GST_ALLOCATOR_CLASS(class)->alloc = alloc;
}

static void vmemexp_pages_init(VmemexpPages *self)
{
	GST_ALLOCATOR(self)->mem_type = GST_ALLOCATOR_SYSMEM;
}

GstAllocator *page_allocator_new(void)
{
	return gst_object_ref_sink(g_object_new(VMEMEXP_TYPE_PAGES, NULL));
}

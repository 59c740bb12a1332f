/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of vmemexp
 *
 * A buffer's name is its dma-buf's inode number, as in /proc/PID/fdinfo.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vmemexp

#if !defined(_VMEMEXP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VMEMEXP_TRACE_H

#include <linux/device.h>
#include <linux/dma-direction.h>
#include <linux/tracepoint.h>

#include "../../vmemexp.h"

#define vmemexp_show_memory(mask)				\
	__print_flags(mask, "|",				\
		      { VMEMEXP_MEMORY_ANON, "anon" },		\
		      { VMEMEXP_MEMORY_SHMEM, "shmem" },	\
		      { VMEMEXP_MEMORY_HUGETLB, "hugetlb" },	\
		      { VMEMEXP_MEMORY_FILE, "file" },		\
		      { VMEMEXP_MEMORY_DRIVER, "driver" },	\
		      { VMEMEXP_MEMORY_PFNMAP, "pfnmap" })

#define vmemexp_show_direction(dir)				\
	__print_symbolic(dir,					\
			 { DMA_BIDIRECTIONAL, "bidirectional" },	\
			 { DMA_TO_DEVICE, "to_device" },	\
			 { DMA_FROM_DEVICE, "from_device" })

TRACE_EVENT(vmemexp_export,
	TP_PROTO(const struct vmemexp_buf *buf),
	TP_ARGS(buf),
	TP_STRUCT__entry(
		__field(u64, ino)
		__field(size_t, size)
		__field(unsigned long, extents)
		__field(unsigned int, ranges)
		__field(u32, memory)
		__field(bool, writable)
	),
	TP_fast_assign(
		__entry->ino = vmemexp_ino(buf);
		__entry->size = vmemexp_size(buf);
		__entry->extents = buf->nr_extents;
		__entry->ranges = buf->nr_sources;
		__entry->memory = buf->memory;
		__entry->writable = buf->writable;
	),
	TP_printk("ino=%llu size=%zu extents=%lu memory=%s access=%s ranges=%u",
		  __entry->ino, __entry->size, __entry->extents,
		  vmemexp_show_memory(__entry->memory),
		  __entry->writable ? "rw" : "ro", __entry->ranges)
);

TRACE_EVENT(vmemexp_release,
	TP_PROTO(const struct vmemexp_buf *buf),
	TP_ARGS(buf),
	TP_STRUCT__entry(
		__field(u64, ino)
		__field(size_t, size)
		__field(bool, dirty)
	),
	TP_fast_assign(
		__entry->ino = vmemexp_ino(buf);
		__entry->size = vmemexp_size(buf);
		__entry->dirty = buf->dirty;
	),
	TP_printk("ino=%llu size=%zu dirty=%d",
		  __entry->ino, __entry->size, __entry->dirty)
);

DECLARE_EVENT_CLASS(vmemexp_mapping,
	TP_PROTO(const struct vmemexp_buf *buf, const struct vmemexp_attachment *at),
	TP_ARGS(buf, at),
	TP_STRUCT__entry(
		__field(u64, ino)
		__string(device, dev_name(at->dev))
		__field(unsigned int, entries)
		__field(unsigned int, segments)
		__field(unsigned int, bounced)
		__field(int, dir)
	),
	TP_fast_assign(
		__entry->ino = vmemexp_ino(buf);
		vmemexp_assign_str(device, dev_name(at->dev));
		__entry->entries = at->sgt.orig_nents;
		__entry->segments = at->nr_segments;
		__entry->bounced = at->nr_bounced;
		__entry->dir = at->dir;
	),
	TP_printk("ino=%llu device=%s entries=%u segments=%u bounced=%u dir=%s",
		  __entry->ino, __get_str(device), __entry->entries,
		  __entry->segments, __entry->bounced,
		  vmemexp_show_direction(__entry->dir))
);

DEFINE_EVENT(vmemexp_mapping, vmemexp_map,
	TP_PROTO(const struct vmemexp_buf *buf, const struct vmemexp_attachment *at),
	TP_ARGS(buf, at)
);

DEFINE_EVENT(vmemexp_mapping, vmemexp_unmap,
	TP_PROTO(const struct vmemexp_buf *buf, const struct vmemexp_attachment *at),
	TP_ARGS(buf, at)
);

TRACE_EVENT(vmemexp_sync,
	TP_PROTO(const struct vmemexp_buf *buf, const struct vmemexp_sync *sync,
		 unsigned int devices),
	TP_ARGS(buf, sync, devices),
	TP_STRUCT__entry(
		__field(u64, ino)
		__field(u32, flags)
		__field(u32, rows)
		__field(u64, offset)
		__field(u64, length)
		__field(u64, stride)
		__field(unsigned int, devices)
	),
	TP_fast_assign(
		__entry->ino = vmemexp_ino(buf);
		__entry->flags = sync->flags;
		__entry->rows = sync->rows;
		__entry->offset = sync->offset;
		__entry->length = sync->length;
		__entry->stride = sync->stride;
		__entry->devices = devices;
	),
	TP_printk("ino=%llu %s %s offset=%llu length=%llu stride=%llu rows=%u devices=%u",
		  __entry->ino,
		  __entry->flags & VMEMEXP_SYNC_END ? "end" : "start",
		  __print_flags(__entry->flags & ~VMEMEXP_SYNC_END, "|",
				{ VMEMEXP_SYNC_READ, "read" },
				{ VMEMEXP_SYNC_WRITE, "write" },
				{ VMEMEXP_SYNC_OBSERVER, "observer" }),
		  __entry->offset, __entry->length, __entry->stride,
		  __entry->rows, __entry->devices)
);

#endif /* _VMEMEXP_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH vmemexp
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

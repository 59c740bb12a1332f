// SPDX-License-Identifier: GPL-2.0
/*
 * vmemexp: export user virtual memory as a dma-buf
 *
 * The model
 * =========
 *
 * A program passes one range of its addresses to VMEMEXP_IOC_EXPORT, or several. The driver
 * charges the pages behind them to the user, pins them, checks their kind, and keeps a
 * list of extents: consecutive page frames. From then on the addresses do not matter. The
 * driver derives everything that a dma-buf can do from the extents:
 *
 *   /dev/vmemexp fd     keeps no state
 *
 *   vmemexp_buf         one export. The ioctl builds it. Once dma_buf_export() has
 *     sources[]         succeeded, the dma_buf owns it, and all that the ioctl may do on
 *     extents[]         an error is dma_buf_put(). From then on, only its release and a
 *     attachments       revoke unpin the pages and uncharge the user. A source range does
 *                       no more than tell when the exporter has unmapped it.
 *
 *   vmemexp_attachment  one attached device: its own scatterlist, and while it is
 *     segments[]        mapped the DMA addresses that syncs use
 *
 * The memory of a dma-buf is of one of three sorts:
 *
 *   pages               The driver pins them, so mm/ keeps them
 *                       (vmemexp_collect_pages()).
 *   page frames         that a driver mapped without page accounting, above all the
 *                       carve-out of another processor. They cannot be pinned, so an
 *                       export needs the administrator's word that they are never freed,
 *                       or CAP_SYS_RAWIO outside of System RAM (vmemexp_collect_pfns()).
 *   another dma-buf     that the one range maps. The driver makes no second one: it gives
 *                       a descriptor of that one, and only to callers that have all of it
 *                       already (vmemexp_find_dmabuf()).
 *
 * Memory outside of System RAM (!is_ram) is not in the kernel's linear map. The DMA API's
 * cache maintenance and bounce buffers go there, so they never get to see such memory.
 *
 * Nothing can fail after the file descriptor has been installed: user space may have
 * closed it before the ioctl returns.
 *
 * Pages, not mappings, decide what may be exported (vmemexp_add_pages()). Another thread
 * can replace a mapping between its check and the pinning; a pinned page does not change.
 * The driver checks mappings before, to refuse early and to name the reason
 * (vmemexp_check_source()).
 *
 * A buffer whose pages were pinned for reading is read-only for ever, on all four access
 * paths: the file's mode, mmap, vmap, and the direction of DMA.
 *
 * A buffer can be revoked: by an administrator, or by the driver that takes its page
 * frames away. After that, only the devices and kernel mappings that used the memory at
 * that moment can get at it. When the last of them has gone, the driver releases the
 * memory (vmemexp_revoke_buf()).
 *
 * Locks
 * =====
 *
 * This is the one order, outermost first. No function takes a lock while it holds one
 * from further down.
 *
 *   mmap_lock                   The ioctl takes it, and holds no other lock then: to
 *                               register the notifier, to check mappings, to look up page
 *                               frames, to fault pages in, and to pin hugetlb pages. GUP
 *                               takes it to pin others. (A turn, vmemexp_turns, may be held.
 *                               It is no lock: nothing waits for it for long.) The core
 *                               holds it around mmap and faults.
 *   dma_resv of the dma-buf     The core holds it around map, unmap, vmap and vunmap
 *                               (since 6.2). A revoke takes it to tell importers.
 *   vmemexp_buffers_lock        the list of buffers
 *   vmemexp_buf.lock            protects the attachments, their mappings, the kernel
 *                               mapping and @revoked. A sync takes it for a few rows at a
 *                               time, since importers wait for it uninterruptibly.
 *   vmemexp_tables_locks        a fault takes one to fill page tables with either small or
 *                               huge entries. Of the locks above, only the mmap_lock is
 *                               held then.
 *   vmemexp_carveouts_lock,     spinlocks, with no other lock of the driver inside: the
 *   vmemexp_users_lock,         list of carve-outs; the users with buffers; what has been
 *   vmemexp_buf.unmapped_lock   unmapped, for the notifier
 *
 * The driver unpins pages, lets files go, empties mappings and waits for fences under
 * none of these. It pins pages under none but the mmap_lock.
 *
 * The dma_resv of vmemexp_buf.fences is held alone.
 *
 * A fault of a dma-buf's mapping enters vmemexp_faults (SRCU) inside of the mmap_lock, or
 * of the VMA's own lock, and of vmemexp_tables_locks. A revoke waits for these faults
 * under no lock.
 *
 * The notifier callback runs under locks of mm/, and takes no lock but unmapped_lock. It
 * sets flags, and leaves the rest to a work item.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/backing-dev.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/hashtable.h>
#include <linux/hugetlb.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/magic.h>
#include <linux/math64.h>
#include <linux/miscdevice.h>
#include <linux/mmu_context.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/srcu.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#include "vmemexp.h"

#define CREATE_TRACE_POINTS
#include <vmemexp/trace.h>

/*
 * A batch: as many pages as one page of page pointers describes. They are pinned in one
 * call.
 */
#define VMEMEXP_BATCH		(PAGE_SIZE / sizeof(struct page *))

/*
 * Pages that are contiguous are unpinned in one call, up to this number. The parts of a
 * larger folio are unpinned one after the other.
 */
#define VMEMEXP_UNPIN_STEP	(SZ_32M >> PAGE_SHIFT)

/*
 * A page that GUP must migrate first may be in use for a moment. An export tries again
 * VMEMEXP_PIN_TRIES times, with pauses of up to VMEMEXP_PIN_PAUSE: for a second, twice if
 * it has to find the page among others, or longer on a busy machine. It waits no longer
 * than VMEMEXP_TURN_TIMEOUT, in all, for other exports that try again as well.
 */
#define VMEMEXP_PIN_TRIES	20
#define VMEMEXP_PIN_PAUSE	(HZ / 20UL)
#define VMEMEXP_TURN_TIMEOUT	HZ

/*
 * If an export finds max_buffers= reached, it waits this long for buffers that its user has
 * closed and that are not freed yet.
 */
#define VMEMEXP_FREE_TIMEOUT	(HZ / 10)

/* One fault may make an entry present, and another one make it writable. */
#define VMEMEXP_FAULT_TRIES	4

/*
 * While the memory of a revoked buffer waits for fences, the work item polls them this
 * often.
 */
#define VMEMEXP_FENCE_INTERVAL	(HZ / 10)

/* The kernel memory that describes one extent, as it is charged to the user, in bytes. */
#define VMEMEXP_EXTENT_COST	512

/* The list of buffers is a tree: the lowest serial number is the oldest buffer. */
static struct rb_root vmemexp_buffers = RB_ROOT;
static u64 vmemexp_last_serial;
static DEFINE_MUTEX(vmemexp_buffers_lock);

/*
 * Faults of a dma-buf's mappings read vmemexp_buf.revoked and fill page tables inside
 * of this.
 */
DEFINE_STATIC_SRCU(vmemexp_faults);

/*
 * vmemexp_wq runs vmemexp_buf.work, and vmemexp_free_wq runs vmemexp_user.free_work.
 * The latter can take long: a user's processes can delay it by invalidations in their own
 * address spaces. So nothing that revokes waits for the exporter's address space.
 */
static struct workqueue_struct *vmemexp_wq;
static struct workqueue_struct *vmemexp_free_wq;

/* --- allow=: which kinds of memory the administrator lets users export --- */

/* These name the VMEMEXP_MEMORY_* bits, in the order of the bits. */
static const char * const vmemexp_memory_names[] = {
	"anon", "shmem", "hugetlb", "file", "driver", "pfnmap", "dmabuf",
};

static unsigned int vmemexp_allow = VMEMEXP_MEMORY_ANON | VMEMEXP_MEMORY_SHMEM |
				    VMEMEXP_MEMORY_HUGETLB | VMEMEXP_MEMORY_DRIVER |
				    VMEMEXP_MEMORY_PFNMAP | VMEMEXP_MEMORY_DMABUF;

/* Write the names of the bits in @mask to @buffer, separated by commas. Return the length. */
static int vmemexp_print_memory(char *buffer, size_t size, unsigned int mask)
{
	int len = 0;
	size_t i;

	buffer[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(vmemexp_memory_names); i++)
		if (mask & BIT(i))
			len += scnprintf(buffer + len, size - len, "%s%s",
					 len ? "," : "", vmemexp_memory_names[i]);
	return len;
}

static int vmemexp_allow_set(const char *val, const struct kernel_param *kp)
{
	char *copy = kstrdup(val, GFP_KERNEL);
	unsigned int mask = 0;
	char *rest, *name;
	int ret = 0;

	if (!copy)
		return -ENOMEM;

	/* An empty list allows nothing. */
	rest = strim(copy);
	if (!*rest)
		rest = NULL;
	while (ret >= 0 && (name = strsep(&rest, ","))) {
		ret = match_string(vmemexp_memory_names,
				   ARRAY_SIZE(vmemexp_memory_names), name);
		if (ret >= 0)
			mask |= BIT(ret);
	}
	kfree(copy);
	if (ret < 0)
		return ret;

	WRITE_ONCE(*(unsigned int *)kp->arg, mask);
	return 0;
}

static int vmemexp_allow_get(char *buffer, const struct kernel_param *kp)
{
	int len = vmemexp_print_memory(buffer, PAGE_SIZE - 1,
				       READ_ONCE(*(unsigned int *)kp->arg));

	return len + scnprintf(buffer + len, PAGE_SIZE - len, "\n");
}

static const struct kernel_param_ops vmemexp_allow_ops = {
	.set = vmemexp_allow_set,
	.get = vmemexp_allow_get,
};

/* It is writable at run time: it decides for future exports, and nothing caches it. */
module_param_cb(allow, &vmemexp_allow_ops, &vmemexp_allow, 0644);
MODULE_PARM_DESC(allow,
		 "kinds of memory that may be exported: any of anon,shmem,hugetlb,file,driver,pfnmap,dmabuf (default: all but file; file is read-only)");

/* --- carveouts=: page frames that are never freed, as the administrator says --- */

#define VMEMEXP_MAX_CARVEOUTS	16

struct vmemexp_carveout {
	u64 base;
	u64 size;
};

struct vmemexp_carveout_list {
	struct vmemexp_carveout ranges[VMEMEXP_MAX_CARVEOUTS];
	unsigned int count;
};

static struct vmemexp_carveout_list vmemexp_carveouts;
static DEFINE_SPINLOCK(vmemexp_carveouts_lock);

/* Add a range, written as "base:size", to @list. */
static int vmemexp_add_carveout(struct vmemexp_carveout_list *list, const char *text)
{
	struct vmemexp_carveout new, *old;
	char *end;

	if (list->count == VMEMEXP_MAX_CARVEOUTS)
		return -EINVAL;
	new.base = memparse(text, &end);
	if (end == text || *end != ':')
		return -EINVAL;
	text = end + 1;
	new.size = memparse(text, &end);
	if (end == text || *end)
		return -EINVAL;

	if (!new.size || new.base + new.size < new.base)
		return -EINVAL;
	if (!IS_ALIGNED(new.base, PAGE_SIZE) || !IS_ALIGNED(new.size, PAGE_SIZE))
		return -EINVAL;
	for (old = list->ranges; old < list->ranges + list->count; old++)
		if (new.base < old->base + old->size && old->base < new.base + new.size)
			return -EINVAL;

	list->ranges[list->count++] = new;
	return 0;
}

static int vmemexp_carveouts_set(const char *val, const struct kernel_param *kp)
{
	char *copy = kstrdup(val, GFP_KERNEL);
	struct vmemexp_carveout_list list = {};
	char *rest, *text;
	int ret = 0;

	if (!copy)
		return -ENOMEM;

	rest = strim(copy);
	if (!*rest)
		rest = NULL;
	while (!ret && (text = strsep(&rest, ",")))
		ret = vmemexp_add_carveout(&list, text);
	kfree(copy);
	if (ret)
		return ret;

	spin_lock(&vmemexp_carveouts_lock);
	vmemexp_carveouts = list;
	spin_unlock(&vmemexp_carveouts_lock);
	return 0;
}

static int vmemexp_carveouts_get(char *buffer, const struct kernel_param *kp)
{
	const struct vmemexp_carveout *range;
	unsigned int i;
	int len = 0;

	/* No lock is needed: the parameter lock of the kernel keeps writers away. */
	for (i = 0; i < vmemexp_carveouts.count; i++) {
		range = &vmemexp_carveouts.ranges[i];
		len += scnprintf(buffer + len, PAGE_SIZE - len, "%s0x%llx:0x%llx",
				 i ? "," : "", range->base, range->size);
	}
	return len + scnprintf(buffer + len, PAGE_SIZE - len, "\n");
}

static const struct kernel_param_ops vmemexp_carveouts_ops = {
	.set = vmemexp_carveouts_set,
	.get = vmemexp_carveouts_get,
};

/* Only root may read physical addresses. */
module_param_cb(carveouts, &vmemexp_carveouts_ops, NULL, 0600);
MODULE_PARM_DESC(carveouts,
		 "physical memory that is reserved for good and may be exported where a driver maps it without page accounting: base:size,... in bytes (default: none)");

/*
 * Return true if the list has page frame @pfn. Reduce @pages to the page frames from
 * there on for which the answer is the same.
 */
static bool vmemexp_is_carveout(unsigned long pfn, unsigned long *pages)
{
	u64 addr = PFN_PHYS(pfn), room = (u64)*pages << PAGE_SHIFT;
	const struct vmemexp_carveout *range;
	bool found = false;

	spin_lock(&vmemexp_carveouts_lock);
	for (range = vmemexp_carveouts.ranges;
	     !found && range < vmemexp_carveouts.ranges + vmemexp_carveouts.count; range++) {
		found = addr >= range->base && addr - range->base < range->size;
		if (found)
			room = min(room, range->size - (addr - range->base));
		else if (addr < range->base)
			room = min(room, range->base - addr);
	}
	spin_unlock(&vmemexp_carveouts_lock);
	*pages = room >> PAGE_SHIFT;
	return found;
}

/*
 * The result of a walk of System RAM: @end is the end of the RAM at the first address, @next is
 * the start of the RAM behind that.
 */
struct vmemexp_ram {
	u64 end;
	u64 next;
};

static int vmemexp_walk_ram(struct resource *res, void *data)
{
	struct vmemexp_ram *ram = data;

	if (res->start != ram->end) {
		ram->next = res->start;
		return 1;
	}
	ram->end = (u64)res->end + 1;
	return 0;
}

/*
 * Return true if any byte of page frame @pfn is System RAM. Reduce @pages to the page frames
 * from there on for which the answer is the same. region_intersects() would not do: it takes
 * RAM with a hole behind it for RAM, and on arm memory with no-map is such a hole.
 */
static bool vmemexp_is_system_ram(unsigned long pfn, unsigned long *pages)
{
	u64 start = PFN_PHYS(pfn), end = start + ((u64)*pages << PAGE_SHIFT);
	struct vmemexp_ram ram = { .end = start, .next = end };

	walk_iomem_res_desc(IORES_DESC_NONE, IORESOURCE_SYSTEM_RAM, start, end - 1, &ram,
			    vmemexp_walk_ram);
	if (ram.next - start < PAGE_SIZE)
		ram.end = ram.next;
	if (ram.end > start) {
		*pages = PFN_UP(ram.end - start);
		return true;
	}
	*pages = PFN_DOWN(ram.next - start);
	return false;
}

/* --- errors: what an export that fails reports --- */

/*
 * Why an export fails, at which address, and in which of its ranges: user space gets these
 * beside the errno. This is what netlink calls extack; vmemexp_fail() fills it in and
 * passes the errno on. The loops over ranges set @range before they look at one.
 */
struct vmemexp_error {
	u32 reason;
	u32 range;
	u64 addr;
};

static int vmemexp_fail(struct vmemexp_error *error, u32 reason, u64 addr, int ret)
{
	error->reason = reason;
	error->addr = addr;
	return ret;
}

/* --- map_without_...=: let importers map buffers that some drivers do not expect --- */

static bool vmemexp_map_without_vmap;
module_param_named(map_without_vmap, vmemexp_map_without_vmap, bool, 0644);
MODULE_PARM_DESC(map_without_vmap,
		 "let importers without CAP_SYS_RAWIO map buffers for DMA that have no kernel mapping, like read-only ones; drivers that do not check for one crash the kernel (default: N)");

static bool vmemexp_map_without_pages;
module_param_named(map_without_pages, vmemexp_map_without_pages, bool, 0644);
MODULE_PARM_DESC(map_without_pages,
		 "let importers without CAP_SYS_RAWIO map carve-outs for DMA that have no struct page; drivers that look for pages map other memory instead, or crash the kernel (default: N)");

/* --- source ranges of a buffer --- */

/* Return the address of page @index of the buffer, which @source has. */
static unsigned long vmemexp_source_addr(const struct vmemexp_source *source, unsigned long index)
{
	return source->start + ((index - source->first) << PAGE_SHIFT);
}

/* Return the address behind the last page of @source. */
static unsigned long vmemexp_source_end(const struct vmemexp_source *source)
{
	return source->start + ((unsigned long)source->npages << PAGE_SHIFT);
}

/* Fail at page @index of the buffer. */
static int vmemexp_fail_at(const struct vmemexp_buf *buf, unsigned long index,
			   struct vmemexp_error *error, u32 reason, int ret)
{
	const struct vmemexp_source *source = buf->sources;

	while (index - source->first >= source->npages)
		source++;
	error->range = source - buf->sources;
	return vmemexp_fail(error, reason, vmemexp_source_addr(source, index), ret);
}

/* Fail because of the buffer as a whole: name the first byte that was asked for. */
static int vmemexp_fail_whole(const struct vmemexp_buf *buf, struct vmemexp_error *error,
			      u32 reason, int ret)
{
	error->range = 0;
	return vmemexp_fail(error, reason, buf->sources[0].start + buf->offset, ret);
}

static void vmemexp_free_sources(struct vmemexp_buf *buf)
{
	if (buf->sources != &buf->one_source)
		kvfree(buf->sources);
}

/* --- extents of a buffer, and segments of an attachment --- */

/* Call cond_resched() in every VMEMEXP_BATCH-th round of a loop; @i counts the rounds. */
static void vmemexp_relax(unsigned long i)
{
	if (!(i % VMEMEXP_BATCH))
		cond_resched();
}

/*
 * Return the first page frame of @extent, which is number @i and has its upper half in @high.
 * Loops over many extents keep both in registers.
 */
static unsigned long vmemexp_join_pfn(const struct vmemexp_extent *extent, const u32 *high,
				      unsigned long i)
{
	u64 pfn = extent->low;

	if (unlikely(high))
		pfn |= (u64)high[i] << VMEMEXP_LOW_BITS;
	return pfn;
}

/* Return the first page frame of extent @i. */
static unsigned long vmemexp_extent_pfn(const struct vmemexp_buf *buf, unsigned long i)
{
	return vmemexp_join_pfn(&buf->extents[i], buf->high, i);
}

static u32 vmemexp_lower_half(u64 pfn)
{
	return pfn & (BIT_ULL(VMEMEXP_LOW_BITS) - 1);
}

static u32 vmemexp_upper_half(u64 pfn)
{
	return pfn >> VMEMEXP_LOW_BITS;
}

/* Return true if the extents can store @pfn: without buf->high, its upper half must be 0. */
static bool vmemexp_has_room_for(const struct vmemexp_buf *buf, unsigned long pfn)
{
	return buf->high || !vmemexp_upper_half(pfn);
}

static void vmemexp_set_extent(struct vmemexp_buf *buf, unsigned long i, unsigned long pfn,
			       unsigned long start)
{
	buf->extents[i].low = vmemexp_lower_half(pfn);
	buf->extents[i].start = start;
	if (buf->high)
		buf->high[i] = vmemexp_upper_half(pfn);
}

static unsigned long vmemexp_extent_pages(const struct vmemexp_buf *buf, unsigned long i)
{
	unsigned long end = i + 1 < buf->nr_extents ? buf->extents[i + 1].start : buf->npages;

	return end - buf->extents[i].start;
}

static phys_addr_t vmemexp_extent_phys(const struct vmemexp_buf *buf, unsigned long i)
{
	return PFN_PHYS(vmemexp_extent_pfn(buf, i));
}

/* Return the offset of extent @i in the buffer, in bytes. */
static size_t vmemexp_extent_offset(const struct vmemexp_buf *buf, unsigned long i)
{
	return (size_t)buf->extents[i].start << PAGE_SHIFT;
}

/* Return the offset of the byte behind extent @i, in bytes. */
static size_t vmemexp_extent_end(const struct vmemexp_buf *buf, unsigned long i)
{
	return i + 1 < buf->nr_extents ? vmemexp_extent_offset(buf, i + 1) : vmemexp_size(buf);
}

static size_t vmemexp_segment_offset(const struct vmemexp_attachment *at, unsigned long i)
{
	return (size_t)at->segments[i].start << PAGE_SHIFT;
}

static size_t vmemexp_segment_end(const struct vmemexp_buf *buf,
				  const struct vmemexp_attachment *at, unsigned long i)
{
	return i + 1 < at->nr_segments ? vmemexp_segment_offset(at, i + 1) : vmemexp_size(buf);
}

/*
 * Return which of @nr entries holds page @index of the buffer. Each entry stores the index of
 * its first page: entry 0 at @starts, where it is 0, and each further entry @stride bytes
 * behind the one before.
 */
static unsigned long vmemexp_find_entry(const u32 *starts, size_t stride, unsigned long nr,
					unsigned long index)
{
	unsigned long low = 0, high = nr, mid;

	while (high - low > 1) {
		mid = low + (high - low) / 2;
		if (*(const u32 *)((const u8 *)starts + mid * stride) <= index)
			low = mid;
		else
			high = mid;
	}
	return low;
}

static unsigned long vmemexp_find_extent(const struct vmemexp_buf *buf, unsigned long index)
{
	return vmemexp_find_entry(&buf->extents->start, sizeof(*buf->extents), buf->nr_extents,
				  index);
}

static unsigned long vmemexp_find_segment(const struct vmemexp_attachment *at, unsigned long index)
{
	return vmemexp_find_entry(&at->segments->start, sizeof(*at->segments), at->nr_segments,
				  index);
}

/*
 * Allocate @nr extents, with room for upper halves behind them if @high. kmalloc() rounds up
 * to a power of two; this array lives as long as the buffer, so do not waste half of it.
 */
static struct vmemexp_extent *vmemexp_alloc_extents(struct vmemexp_buf *buf, unsigned long nr,
						    bool high)
{
	size_t size = array_size(nr, sizeof(*buf->extents) + (high ? sizeof(*buf->high) : 0));

	if (nr == 1 && !high)
		return &buf->one_extent;
	/* kvmalloc() does not allocate more than INT_MAX bytes. */
	if (size > INT_MAX || (size > PAGE_SIZE && !is_power_of_2(PAGE_ALIGN(size))))
		return __vmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	return kvmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

static void vmemexp_free_extents(struct vmemexp_buf *buf)
{
	if (buf->extents != &buf->one_extent)
		kvfree(buf->extents);
}

/*
 * Move the extents to an array of @max entries, at least as many as are in use, with upper
 * halves if @high.
 */
static int vmemexp_resize_extents(struct vmemexp_collect *collect, unsigned long max, bool high)
{
	struct vmemexp_buf *buf = collect->buf;
	struct vmemexp_extent *extents = vmemexp_alloc_extents(buf, max, high);
	u32 *halves = NULL;

	if (!extents)
		return -ENOMEM;
	if (high)
		halves = (u32 *)(extents + max);
	memcpy(extents, buf->extents, buf->nr_extents * sizeof(*extents));
	if (buf->high)
		memcpy(halves, buf->high, buf->nr_extents * sizeof(*halves));
	else if (halves)
		memset(halves, 0, buf->nr_extents * sizeof(*halves));
	if (buf->extents != collect->few_extents)
		vmemexp_free_extents(buf);
	buf->extents = extents;
	buf->high = halves;
	collect->max_extents = max;
	return 0;
}

/*
 * Make room for @count more extents, so that vmemexp_add_extent() cannot fail. If the rest
 * of the pages is as scattered as those so far, there is room for all of it. Do not
 * extrapolate from less than a batch: allocators put small pages before huge ones.
 */
static int vmemexp_reserve_extents(struct vmemexp_collect *collect, unsigned long count)
{
	const struct vmemexp_buf *buf = collect->buf;
	unsigned long most = buf->nr_extents + (buf->npages - collect->nr_pages);
	unsigned long max = buf->nr_extents + count, likely = 0;

	if (max <= collect->max_extents)
		return 0;
	if (collect->nr_pages >= VMEMEXP_BATCH)
		likely = count + div64_u64((u64)buf->nr_extents * buf->npages, collect->nr_pages);
	max = max3(max, likely, 2 * collect->max_extents);
	return vmemexp_resize_extents(collect, min(most, max), buf->high);
}

/* Make room for the upper half of @pfn, if it has one. */
static int vmemexp_reserve_high(struct vmemexp_collect *collect, unsigned long pfn)
{
	if (likely(vmemexp_has_room_for(collect->buf, pfn)))
		return 0;
	return vmemexp_resize_extents(collect, collect->max_extents, true);
}

/* Make room for an extent at @pfn, if it is a new one, and then for some of @count more. */
static int vmemexp_reserve_for(struct vmemexp_collect *collect, unsigned long pfn,
			       unsigned long count)
{
	int ret = 0;

	if (pfn == collect->next_pfn)
		return 0;
	if (collect->buf->nr_extents == collect->max_extents)
		ret = vmemexp_reserve_extents(collect, count);
	return ret ?: vmemexp_reserve_high(collect, pfn);
}

/* Add @pages page frames to the last extent if they continue it, otherwise as a new one. */
static void vmemexp_add_extent(struct vmemexp_collect *collect, unsigned long pfn,
			       unsigned long pages)
{
	struct vmemexp_buf *buf = collect->buf;

	if (pfn != collect->next_pfn)
		vmemexp_set_extent(buf, buf->nr_extents++, pfn, collect->nr_pages);
	collect->nr_pages += pages;
	collect->next_pfn = pfn + pages;
}

/* --- accounting: refuse before doing, on a user that outlives the process --- */

/*
 * Allocate the entry that a buffer holds, so that it can uncharge the user that it has
 * charged.
 */
static struct vmemexp_user *vmemexp_alloc_user(void)
{
	struct vmemexp_user *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);

	if (!new)
		return NULL;
	new->user = vmemexp_hold_current_user(&new->cred);
	if (!new->user) {
		kfree(new);
		return NULL;
	}
	INIT_LIST_HEAD(&new->dying);
	return new;
}

static void vmemexp_free_user(struct vmemexp_user *user)
{
	vmemexp_drop_user(user->user, user->cred);
	kfree(user);
}

static unsigned int vmemexp_max_buffers = 4096;
module_param_named(max_buffers, vmemexp_max_buffers, uint, 0644);
MODULE_PARM_DESC(max_buffers,
		 "buffers that each user without CAP_SYS_RESOURCE may have at a time (default: 4096)");

/* Subordinate IDs give one person tens of thousands of users. */
static DEFINE_HASHTABLE(vmemexp_users, 8);
static DEFINE_SPINLOCK(vmemexp_users_lock);

/* Subtract from the counts of @user. Free the entry when both are 0. */
static void vmemexp_put_user_counts(struct vmemexp_user *user, unsigned int buffers,
				    unsigned int runs)
{
	bool last;

	spin_lock(&vmemexp_users_lock);
	user->buffers -= buffers;
	user->runs -= runs;
	last = !user->buffers && !user->runs;
	if (last)
		hash_del(&user->node);
	spin_unlock(&vmemexp_users_lock);
	if (last)
		vmemexp_free_user(user);
}

static void vmemexp_put_user(struct vmemexp_user *user)
{
	vmemexp_put_user_counts(user, 1, 0);
}

static int vmemexp_charge(struct vmemexp_buf *buf, unsigned long pages)
{
	struct user_struct *user = buf->user->user;
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	long charged = atomic_long_read(&user->locked_vm);
	unsigned long wanted;

	/*
	 * pinned_vm belongs to the mm, and a dma-buf outlives that, so it cannot be the
	 * limit. The user's locked_vm can.
	 */
	do {
		wanted = charged + pages;
		if ((wanted > limit || wanted < pages) && !capable(CAP_IPC_LOCK))
			return -ENOMEM;
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &charged, wanted));

	atomic64_add(pages, &buf->mm->pinned_vm);
	buf->charged += pages;
	return 0;
}

static void vmemexp_uncharge(struct vmemexp_buf *buf)
{
	if (!buf->charged)
		return;
	/* The mm may have ended, or end at this moment: see vmemexp_leave_mm(). */
	mutex_lock(&buf->lock);
	if (buf->mm)
		atomic64_sub(buf->charged, &buf->mm->pinned_vm);
	mutex_unlock(&buf->lock);
	atomic_long_sub(buf->charged, &buf->user->user->locked_vm);
	buf->charged = 0;
}

/*
 * Page frames are reserved already: do not charge them. Charge the memory that describes
 * them: the bit for each page (vmemexp_buf.unmapped), for each extent the entries and the
 * kernel addresses that it may need, and the source ranges but for the first. If a page
 * frame repeats, charge the page table of a mapping as well: it may be larger than the
 * carve-out.
 */
static int vmemexp_charge_extents(struct vmemexp_buf *buf, struct vmemexp_error *error)
{
	unsigned long bytes = buf->nr_extents * VMEMEXP_EXTENT_COST +
			      buf->npages / BITS_PER_BYTE +
			      (buf->nr_sources - 1) * sizeof(struct vmemexp_source);
	unsigned long cost;

	if (buf->overlaps)
		bytes += buf->npages * sizeof(pte_t);
	cost = bytes >> PAGE_SHIFT;

	if (cost > buf->charged && vmemexp_charge(buf, cost - buf->charged))
		return vmemexp_fail_whole(buf, error, VMEMEXP_REASON_LIMIT, -ENOMEM);
	return 0;
}

/*
 * Charge each page before it is pinned. For page frames, which are reserved already,
 * charge the memory that describes them.
 */
static int vmemexp_charge_range(struct vmemexp_buf *buf, struct vmemexp_error *error)
{
	if (buf->pfnmap)
		return vmemexp_charge_extents(buf, error);
	if (vmemexp_charge(buf, buf->npages))
		return vmemexp_fail_whole(buf, error, VMEMEXP_REASON_LIMIT, -ENOMEM);
	return 0;
}

/* --- mappings: refuse early what will not work, and say why --- */

static int vmemexp_check_access(struct vm_area_struct *vma, bool write, unsigned long addr,
				struct vmemexp_error *error)
{
	if (!vma)
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_MAPPED, addr, -EFAULT);
	/* Check this for O_RDWR as well: a dma-buf cannot be write-only. */
	if (!(vma->vm_flags & VM_READ))
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_READABLE, addr, -EFAULT);
	if (write && !(vma->vm_flags & VM_WRITE))
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_WRITABLE, addr, -EACCES);
	/*
	 * A protection key may deny the access to this thread. GUP checks that for pages;
	 * this does for page frames. Not all architectures let modules check it. Those
	 * without VMEMEXP_PROT_CACHE_MASK export no page frames.
	 */
	if (VMEMEXP_PROT_CACHE_MASK && !arch_vma_access_permitted(vma, false, false, false))
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_READABLE, addr, -EFAULT);
	if (VMEMEXP_PROT_CACHE_MASK && write &&
	    !arch_vma_access_permitted(vma, true, false, false))
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_WRITABLE, addr, -EACCES);
	return 0;
}

static bool vmemexp_is_pfnmap(const struct vm_area_struct *vma)
{
	return vma->vm_flags & (VM_IO | VM_PFNMAP);
}

/* It stands behind the tables of operations, which it compares. */
static struct vmemexp_buf *vmemexp_buf_of(const struct dma_buf *dmabuf);

/*
 * In vm_pgoff, DRM drivers leave the offset by which they find their objects
 * (DRM_FILE_PAGE_OFFSET_START and more), and not the offset in the dma-buf.
 */
#define VMEMEXP_DRM_PGOFF	((BITS_PER_LONG == 64 ? SZ_4G : SZ_256M) >> PAGE_SHIFT)

/*
 * Return the dma-buf that @vma maps, or NULL if it maps none. Return an error pointer
 * if it maps an unknown part of one, or has grown beyond the end of the dma-buf.
 */
static struct dma_buf *vmemexp_vma_dmabuf(struct vm_area_struct *vma)
{
	struct dma_buf *dmabuf;
	unsigned long pages;

	if (!vma || !vma->vm_file || !(vma->vm_flags & VM_MAYSHARE))
		return NULL;
	if (file_inode(vma->vm_file)->i_sb->s_magic != DMA_BUF_MAGIC)
		return NULL;
	dmabuf = vma->vm_file->private_data;
	if (vma->vm_pgoff >= VMEMEXP_DRM_PGOFF && !vmemexp_buf_of(dmabuf))
		return ERR_PTR(-ENXIO);
	pages = dmabuf->size >> PAGE_SHIFT;
	if (vma->vm_pgoff > pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return ERR_PTR(-ENXIO);
	return dmabuf;
}

/* Check @vma against the first VMA of the first range. */
static int vmemexp_check_vma(const struct vmemexp_buf *buf, struct vm_area_struct *vma,
			     unsigned long addr, struct vmemexp_error *error)
{
	int ret = vmemexp_check_access(vma, buf->writable, addr, error);
	struct dma_buf *dmabuf;

	if (ret)
		return ret;
	/*
	 * vmemexp_find_dmabuf() has taken every range that is alone and starts in a known
	 * part of a dma-buf.
	 */
	dmabuf = vmemexp_vma_dmabuf(vma);
	if (vmemexp_is_pfnmap(vma) != buf->pfnmap || !IS_ERR_OR_NULL(dmabuf))
		return vmemexp_fail(error, VMEMEXP_REASON_MIXED, addr, -EINVAL);
	/* Do not wrap a dma-buf into a second one. Page frames have the rules below. */
	if (dmabuf && !buf->pfnmap)
		return vmemexp_fail(error, VMEMEXP_REASON_PARTIAL, addr, -EPERM);
	if (!buf->pfnmap) {
		if (vmemexp_prot_cache(vma->vm_page_prot) != buf->prot_cache)
			return vmemexp_fail(error, VMEMEXP_REASON_MIXED, addr, -EINVAL);
		return 0;
	}

	if (vma->vm_file != buf->file)
		return vmemexp_fail(error, VMEMEXP_REASON_MIXED, addr, -EINVAL);
	if (!VMEMEXP_PROT_CACHE_MASK || !(READ_ONCE(vmemexp_allow) & VMEMEXP_MEMORY_PFNMAP))
		return vmemexp_fail(error, VMEMEXP_REASON_KIND, addr, -EPERM);
	/* Mappings in clear text and encrypted ones are not interchangeable. */
	if (vmemexp_is_memory_encrypted())
		return vmemexp_fail(error, VMEMEXP_REASON_ENCRYPTED, addr, -EOPNOTSUPP);
	/* Copy-on-write leaves an anonymous page in such a mapping, and nothing pins that. */
	if ((vma->vm_flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE)
		return vmemexp_fail(error, VMEMEXP_REASON_PRIVATE, addr, -EPERM);
	return 0;
}

/*
 * Decide by the first VMA, @vma, whether pages are pinned or page frames looked up, and how
 * the memory is cached.
 */
static void vmemexp_choose_memory(struct vmemexp_buf *buf, struct vm_area_struct *vma)
{
	WRITE_ONCE(buf->pfnmap, vmemexp_is_pfnmap(vma));
	buf->memory = buf->pfnmap ? VMEMEXP_MEMORY_PFNMAP : 0;
	buf->prot_cache = vmemexp_prot_cache(vma->vm_page_prot);
	/* Nothing but the file keeps the driver that owns the page frames. */
	if (buf->pfnmap && vma->vm_file)
		buf->file = get_file(vma->vm_file);
}

/*
 * Check all VMAs of a source range, of which @vma is the first, and count them. Return the
 * last one, or an error pointer. Do not count a VMA again that was the last one of the range
 * before: it has the same vm_start. (If another mapping had replaced it meanwhile, the
 * notifier would have made the buffer stale.)
 */
static struct vm_area_struct *vmemexp_check_source(struct vmemexp_collect *collect,
						   const struct vmemexp_source *source,
						   struct vm_area_struct *vma)
{
	unsigned long addr = source->start, end = vmemexp_source_end(source);
	struct vmemexp_buf *buf = collect->buf;
	int ret;

	for (;;) {
		ret = vmemexp_check_vma(buf, vma, addr, collect->error);
		if (ret)
			return ERR_PTR(ret);
		collect->nr_vmas += !collect->nr_vmas || vma->vm_start != collect->last_vma;
		collect->last_vma = vma->vm_start;
		collect->mixed |= !!(vma->vm_flags & VM_MIXEDMAP);
		addr = vma->vm_end;
		if (addr >= end)
			return vma;
		vma = vma_lookup(buf->mm, addr);
	}
}

/*
 * Check source range @i. Skip the ranges behind it that lie in its last VMA, which is checked
 * already. Return the index of the next range to check, or an errno.
 */
static int vmemexp_inspect_from(struct vmemexp_collect *collect, unsigned int i)
{
	struct vmemexp_buf *buf = collect->buf;
	const struct vmemexp_source *source = &buf->sources[i];
	struct vm_area_struct *vma = vma_lookup(buf->mm, source->start);

	collect->error->range = i;
	if (!i && vma)
		vmemexp_choose_memory(buf, vma);
	vma = vmemexp_check_source(collect, source, vma);
	if (IS_ERR(vma))
		return PTR_ERR(vma);
	for (i++, source++; i < buf->nr_sources; i++, source++)
		if (source->start < vma->vm_start || vmemexp_source_end(source) > vma->vm_end)
			break;
	return i;
}

/*
 * Choose by the first VMA, and check all of them. Hold the mmap_lock only for one range, and
 * those behind it in the same VMA: there may be many ranges, with many VMAs each.
 */
static int vmemexp_inspect_sources(struct vmemexp_collect *collect)
{
	struct vmemexp_buf *buf = collect->buf;
	int next = 0;

	while (next >= 0 && next < buf->nr_sources) {
		/* A lock that is free is taken whatever signal is pending. */
		if (fatal_signal_pending(current) || mmap_read_lock_killable(buf->mm))
			return -EINTR;
		next = vmemexp_inspect_from(collect, next);
		mmap_read_unlock(buf->mm);
		cond_resched();
	}
	return min(next, 0);
}

/*
 * Return true if a file system or driver has to track writes to @vma. Since 6.5, GUP refuses
 * FOLL_LONGTERM pins of such pages for writing.
 */
static bool vmemexp_tracks_writes(const struct vm_area_struct *vma)
{
	const struct vm_operations_struct *ops = vma->vm_ops;

	return vma->vm_flags & VM_SHARED &&
	       ((ops && (ops->page_mkwrite || ops->pfn_mkwrite)) ||
		(vma->vm_file && mapping_can_writeback(vma->vm_file->f_mapping)));
}

/* Try to make the page at @addr present. Return 0 or the errno of that. */
static int vmemexp_fault_in(struct vmemexp_buf *buf, unsigned long addr)
{
	unsigned int fault_flags = buf->writable ? FAULT_FLAG_WRITE : 0;
	unsigned int gup_flags = FOLL_HWPOISON | (buf->writable ? FOLL_WRITE : 0);
	bool unlocked = false;
	struct page *page;
	int ret;

	/* Only FOLL_HWPOISON reports a poisoned page. */
	ret = get_user_pages_unlocked(addr, 1, &page, gup_flags);
	if (ret == 1)
		put_page(page);
	if (ret == 1 || ret == -EHWPOISON)
		return min(ret, 0);

	/* GUP refuses some pages that are present. */
	if (fatal_signal_pending(current) || mmap_read_lock_killable(buf->mm))
		return -EINTR;
	ret = fixup_user_fault(buf->mm, addr, fault_flags, &unlocked);
	mmap_read_unlock(buf->mm);
	return ret;
}

/* Find out why the page at @addr could not be pinned. GUP has returned @ret. */
static int vmemexp_pin_failed(struct vmemexp_buf *buf, unsigned long addr, int ret,
			      struct vmemexp_error *error)
{
	struct vm_area_struct *vma;
	int err;

	if (ret == -EINTR || mmap_read_lock_killable(buf->mm))
		return -EINTR;
	/* Another mapping may have replaced the one that was checked. */
	vma = vma_lookup(buf->mm, addr);
	err = vmemexp_check_vma(buf, vma, addr, error);
	if (!err && ret == -EFAULT && buf->writable && vmemexp_tracks_writes(vma))
		err = vmemexp_fail(error, VMEMEXP_REASON_KIND, addr, -EPERM);
	mmap_read_unlock(buf->mm);
	if (err)
		return err;

	err = ret == -EFAULT ? vmemexp_fault_in(buf, addr) : 0;
	if (err == -EINTR)
		return err;
	if (err == -EHWPOISON)
		return vmemexp_fail(error, VMEMEXP_REASON_POISONED, addr, err);
	if (err == -EFAULT)
		return vmemexp_fail(error, VMEMEXP_REASON_NO_BACKING, addr, err);
	return vmemexp_fail(error, VMEMEXP_REASON_UNPINNABLE, addr, ret);
}

/* --- collecting pages: pin them, check them, add them to the extents --- */

/*
 * Return true if @folio is a hugetlb page. @large is folio_test_large(): hugetlb pages are
 * always large, so nothing is looked up for small ones.
 */
static bool vmemexp_is_hugetlb(struct folio *folio, bool large)
{
	return large && folio_test_hugetlb(folio);
}

static u32 vmemexp_memory_kind(struct folio *folio, bool large)
{
	if (vmemexp_is_hugetlb(folio, large))
		return VMEMEXP_MEMORY_HUGETLB;
	if (folio_test_anon(folio))
		return VMEMEXP_MEMORY_ANON;
	/*
	 * Page cache that may be swapped is tmpfs. Ask this before folio->mapping,
	 * which truncation may clear at this moment.
	 */
	if (folio_test_swapbacked(folio))
		return VMEMEXP_MEMORY_SHMEM;
	/* A page of /dev/dax has a mapping, but no file system is behind it. */
	if (folio->mapping && !is_zone_device_page(vmemexp_folio_page(folio)))
		return VMEMEXP_MEMORY_FILE;
	return VMEMEXP_MEMORY_DRIVER;
}

/* Return how many pages of the source range that is being collected are still to come. */
static unsigned long vmemexp_pages_left(const struct vmemexp_collect *collect)
{
	return collect->source->first + collect->source->npages - collect->nr_pages;
}

/* Return how many of the @count @pages follow each other in @folio, from the first one on. */
static unsigned long vmemexp_nr_in_folio(struct folio *folio, struct page **pages,
					 unsigned long count)
{
	unsigned long left = folio_nr_pages(folio) - folio_page_idx(folio, pages[0]), nr = 1;
	struct page *first = pages[0];

	left = min(left, count);
	/* Compare four at a time: for huge pages, this loop is most of the cost of an export. */
	while (nr + 4 <= left && pages[nr] == first + nr && pages[nr + 1] == first + nr + 1 &&
	       pages[nr + 2] == first + nr + 2 && pages[nr + 3] == first + nr + 3)
		nr += 4;
	while (nr < left && pages[nr] == first + nr)
		nr++;
	return nr;
}

/* Return how many pages follow in the hugetlb page of @first, with @first, at most @count. */
static unsigned long vmemexp_nr_in_hugetlb(struct page *first, unsigned long count)
{
	struct folio *folio = page_folio(first);
	unsigned long left = folio_nr_pages(folio) - folio_page_idx(folio, first);

	return min(left, count);
}

/*
 * Add a hugetlb page of which @pins consecutive pages from @page on are pinned; drop
 * all pins but one, or all if the page has one already. If hugetlb itself maps the page
 * (@whole), all of it is mapped, so the rest of it is known. Other drivers, like
 * udmabuf, may map a part.
 *
 * One pin remains for the start of each extent, and one for each hugetlb page that
 * starts further on in it. vmemexp_unpin_hugetlb() drops the pins by that rule.
 */
static unsigned long vmemexp_add_hugetlb(struct vmemexp_collect *collect, struct page *page,
					 unsigned long pins, bool whole)
{
	struct vmemexp_buf *buf = collect->buf;
	unsigned long extents = buf->nr_extents, nr = pins, surplus = pins;

	if (whole)
		nr = vmemexp_nr_in_hugetlb(page, vmemexp_pages_left(collect));
	vmemexp_add_extent(collect, page_to_pfn(page), nr);
	if (buf->nr_extents > extents || page == compound_head(page))
		surplus--;
	if (surplus)
		unpin_user_page_range_dirty_lock(page, surplus, false);
	return nr;
}

static int vmemexp_refuse_kind(u32 kind, unsigned long addr, struct vmemexp_error *error)
{
	if (kind == VMEMEXP_MEMORY_DRIVER && READ_ONCE(vmemexp_allow) & kind)
		return vmemexp_fail(error, VMEMEXP_REASON_ENCRYPTED, addr, -EOPNOTSUPP);
	return vmemexp_fail(error, VMEMEXP_REASON_KIND, addr, -EPERM);
}

/*
 * Add small anonymous pages. The caller has checked the first of @pages and made room for it.
 * Stop behind @count pages, at the first page of another kind, or when the extents are full.
 * Return how many have been added.
 *
 * Most pages are of this kind. vmemexp_add_pages() would do the same with each of them, but
 * here the counters stay in registers.
 */
static unsigned long vmemexp_add_small_pages(struct vmemexp_collect *collect,
					     struct page **pages, unsigned long count)
{
	struct vmemexp_buf *buf = collect->buf;
	struct vmemexp_extent *extent = buf->extents + buf->nr_extents;
	const struct vmemexp_extent *end = buf->extents + collect->max_extents;
	unsigned long i, pfn, next_pfn = collect->next_pfn;
	u32 *high = buf->high ? buf->high + buf->nr_extents : NULL;
	struct folio *folio;

	for (i = 0; i < count; i++, next_pfn = pfn + 1) {
		folio = page_folio(pages[i]);
		if (folio_test_large(folio) || !folio_test_anon(folio))
			break;
		pfn = page_to_pfn(pages[i]);
		if (pfn == next_pfn)
			continue;
		if (extent == end || (!high && vmemexp_upper_half(pfn)))
			break;
		if (unlikely(high))
			*high++ = vmemexp_upper_half(pfn);
		extent->low = vmemexp_lower_half(pfn);
		extent->start = collect->nr_pages + i;
		extent++;
	}
	buf->nr_extents = extent - buf->extents;
	collect->nr_pages += i;
	collect->next_pfn = next_pfn;
	collect->nr_folio_pages += i;
	collect->last_folio = page_folio(pages[i - 1]);
	return i;
}

/*
 * Add the @count pinned pages in collect->pages to the extents, and check by the pages
 * themselves whether they may be exported. If @whole, there is one page, and hugetlb itself
 * maps it. Return 0 or an errno. On an error, unpin the pages that have not been added; the
 * caller unpins the others.
 *
 * A pinned folio can be neither split nor freed, so count it whole. It is counted once
 * more if pages of another folio come between: vmemexp_survey() corrects that.
 */
static int vmemexp_add_pages(struct vmemexp_collect *collect, unsigned long count,
			     bool whole, unsigned long addr)
{
	u32 kind, allowed = READ_ONCE(vmemexp_allow);
	struct page **pages = collect->pages;
	struct vmemexp_buf *buf = collect->buf;
	unsigned long i, nr, pfn;
	struct folio *folio;
	bool large;
	int ret;

	/*
	 * A file system does not expect its pages to change without its knowledge. A
	 * device that writes to them corrupts it.
	 */
	if (buf->writable)
		allowed &= ~VMEMEXP_MEMORY_FILE;
	/* A driver may have set its pages to clear text; a struct page does not show it. */
	if (vmemexp_is_memory_encrypted())
		allowed &= ~VMEMEXP_MEMORY_DRIVER;

	for (i = 0; i < count; i += nr) {
		folio = page_folio(pages[i]);
		large = folio_test_large(folio);
		kind = vmemexp_memory_kind(folio, large);
		if (unlikely(!(kind & allowed))) {
			ret = vmemexp_refuse_kind(kind, addr + (i << PAGE_SHIFT), collect->error);
			goto err_unpin;
		}
		pfn = page_to_pfn(pages[i]);
		ret = vmemexp_reserve_for(collect, pfn, count - i);
		if (ret)
			goto err_unpin;
		buf->memory |= kind;
		collect->in_hugetlb = kind == VMEMEXP_MEMORY_HUGETLB;
		if (kind == VMEMEXP_MEMORY_ANON && !large) {
			nr = vmemexp_add_small_pages(collect, pages + i, count - i);
			continue;
		}

		/* The last extent or batch may have ended in this folio, and has counted it. */
		if (folio != collect->last_folio)
			collect->nr_folio_pages += large ? folio_nr_pages(folio) : 1;
		collect->last_folio = folio;

		nr = large ? vmemexp_nr_in_folio(folio, pages + i, count - i) : 1;
		if (kind == VMEMEXP_MEMORY_HUGETLB)
			nr = vmemexp_add_hugetlb(collect, pages[i], nr, whole);
		else
			vmemexp_add_extent(collect, pfn, nr);
	}
	return 0;

err_unpin:
	unpin_user_pages(pages + i, count - i);
	return ret;
}

/*
 * GUP cannot migrate a page that another export has pinned. So of all exports that have
 * to try again, only one for each mm does so at a time (the mms share 64 bits). The
 * others wait for this turn, but not for long: the page of the one that has it may
 * depend on a userfaultfd.
 */
static DECLARE_BITMAP(vmemexp_turns, 64);

static unsigned int vmemexp_turn_of(const struct mm_struct *mm)
{
	return hash_ptr((void *)mm, ilog2(BITS_PER_TYPE(vmemexp_turns)));
}

static bool vmemexp_take_turn(struct vmemexp_collect *collect, unsigned int turn)
{
	while (test_and_set_bit_lock(turn, vmemexp_turns)) {
		if (fatal_signal_pending(current) || collect->waited >= VMEMEXP_TURN_TIMEOUT)
			return false;
		schedule_timeout_killable(1);
		collect->waited++;
	}
	return true;
}

/*
 * Return the GUP flags for a long-term pin of @count pages from @addr on. For reading,
 * before 6.2, vmemexp_gup_read_flags() may reduce @count: its flags hold for one VMA.
 */
static unsigned int vmemexp_gup_flags(struct vmemexp_buf *buf, unsigned long addr,
				      unsigned long *count)
{
	if (buf->writable)
		return FOLL_LONGTERM | FOLL_WRITE;
	return vmemexp_gup_read_flags(buf->mm, addr, count);
}

/* Return true if GUP could not migrate a page, or memory is short. */
static bool vmemexp_is_temporary(int ret)
{
	return ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM;
}

/*
 * Pin at most @count pages from @addr on. Return how many there are, or an errno. Try again
 * while pages cannot be migrated or memory is short.
 */
static int vmemexp_pin_batch(struct vmemexp_collect *collect, unsigned long addr,
			     unsigned long count)
{
	struct vmemexp_buf *buf = collect->buf;
	unsigned int flags = vmemexp_gup_flags(buf, addr, &count);
	unsigned int turn = vmemexp_turn_of(buf->mm);
	unsigned long pause = 0;
	bool my_turn = false;
	int tries, ret;

	for (tries = 1;; tries++) {
		ret = vmemexp_pin_user_pages(addr, count, flags, collect->pages);
		if (ret > 0 || fatal_signal_pending(current) || tries == VMEMEXP_PIN_TRIES)
			break;
		if (!vmemexp_is_temporary(ret))
			break;
		if (!my_turn)
			my_turn = vmemexp_take_turn(collect, turn);
		if (pause)
			schedule_timeout_killable(pause);
		pause = min(2 * pause + 1, VMEMEXP_PIN_PAUSE);
	}
	if (my_turn)
		clear_bit_unlock(turn, vmemexp_turns);
	if (ret <= 0 && fatal_signal_pending(current))
		return -EINTR;
	/* GUP returns -EEXIST for an entry with a page frame that is not a page. */
	return ret && ret != -EEXIST ? ret : -EFAULT;
}

/*
 * Pin the page at @addr if hugetlb maps it, under the mmap_lock, which keeps the
 * mapping. Under that lock this can neither wait for a userfaultfd nor try again. The
 * caller goes on with vmemexp_pin_batch() if this fails.
 */
static bool vmemexp_pin_hugetlb(struct vmemexp_collect *collect, unsigned long addr)
{
	struct vmemexp_buf *buf = collect->buf;
	unsigned long count = 1;
	unsigned int flags = vmemexp_gup_flags(buf, addr, &count);
	struct vm_area_struct *vma;
	bool pinned;

	if (mmap_read_lock_killable(buf->mm))
		return false;
	vma = vma_lookup(buf->mm, addr);
	pinned = vma && is_vm_hugetlb_page(vma) && !userfaultfd_armed(vma) &&
		 pin_user_pages(addr, 1, flags, collect->pages) == 1;
	mmap_read_unlock(buf->mm);
	return pinned;
}

/* Pin at most @count pages from @addr on, check them, and add them to the extents. */
static int vmemexp_collect_pages(struct vmemexp_collect *collect, unsigned long addr,
				 unsigned long count)
{
	int ret;

	/* A hugetlb page most likely follows. One pin holds all of it, so pin one page only. */
	if (collect->in_hugetlb && vmemexp_pin_hugetlb(collect, addr))
		return vmemexp_add_pages(collect, 1, true, addr);
	if (collect->one_by_one) {
		collect->one_by_one--;
		count = 1;
	}
	ret = vmemexp_pin_batch(collect, addr, count);
	/*
	 * Without GUP-fast, GUP pins none of the pages if it cannot migrate one. Pin them one
	 * by one, to find that page.
	 */
	if (vmemexp_is_temporary(ret) && count > 1) {
		collect->one_by_one = count;
		return 0;
	}
	if (ret < 0)
		return vmemexp_pin_failed(collect->buf, addr, ret, collect->error);
	return vmemexp_add_pages(collect, ret, false, addr);
}

/* Unpin an extent of a buffer with hugetlb pages: one page of each hugetlb page is pinned. */
static void vmemexp_unpin_hugetlb(unsigned long pfn, unsigned long pages, bool dirty)
{
	struct page *first;
	struct folio *folio;
	unsigned long nr;

	for (; pages; pages -= nr, pfn += nr) {
		first = pfn_to_page(pfn);
		folio = page_folio(first);
		nr = 1;
		if (vmemexp_is_hugetlb(folio, folio_test_large(folio)))
			nr = vmemexp_nr_in_hugetlb(first, pages);
		unpin_user_page_range_dirty_lock(first, 1, dirty);
		cond_resched();
	}
}

static void vmemexp_unpin_pages(unsigned long pfn, unsigned long pages, bool dirty)
{
	unsigned long nr;

	/* For one page, the call for a range costs twice as much. */
	if (pages == 1 && !dirty) {
		unpin_user_page(pfn_to_page(pfn));
		return;
	}
	for (; pages; pages -= nr, pfn += nr) {
		nr = min_t(unsigned long, pages, VMEMEXP_PAGE_ROOM(pfn));
		nr = min_t(unsigned long, nr, VMEMEXP_UNPIN_STEP);
		unpin_user_page_range_dirty_lock(pfn_to_page(pfn), nr, dirty);
		if (pages > nr)
			cond_resched();
	}
}

/* Unpin the first @nr_pages pages of the buffer. The extents have no others. */
static void vmemexp_unpin(struct vmemexp_buf *buf, unsigned long nr_pages)
{
	bool dirty = buf->dirty, hugetlb = buf->memory & VMEMEXP_MEMORY_HUGETLB;
	const struct vmemexp_extent *extent = buf->extents;
	unsigned long i, pfn, pages, last = 0, nr = buf->nr_extents;
	const u32 *high = buf->high;

	for (i = 0; i < nr; i++, extent++) {
		pfn = vmemexp_join_pfn(extent, high, i);
		pages = (i + 1 < nr ? extent[1].start : nr_pages) - extent->start;
		if (hugetlb)
			vmemexp_unpin_hugetlb(pfn, pages, dirty);
		else
			vmemexp_unpin_pages(pfn, pages, dirty);
		if (extent->start - last >= VMEMEXP_BATCH) {
			last = extent->start;
			cond_resched();
		}
	}
}

/* --- collecting page frames: look them up, check them, add them to the extents --- */

/*
 * Check that page frames, the first of which is mapped at @addr, may be exported. Note
 * if some are in no carve-out that is listed.
 */
static int vmemexp_check_pfns(struct vmemexp_buf *buf, unsigned long pfn, unsigned long pages,
			      unsigned long addr, struct vmemexp_error *error)
{
	unsigned long nr;

	for (; pages; pages -= nr, pfn += nr, addr += nr << PAGE_SHIFT) {
		nr = pages;
		if (vmemexp_is_carveout(pfn, &nr))
			continue;
		/* The kernel may give this memory to another user, and nothing would report it. */
		if (vmemexp_is_system_ram(pfn, &nr))
			return vmemexp_fail(error, VMEMEXP_REASON_RAM, addr, -EPERM);
		if (!capable(CAP_SYS_RAWIO))
			return vmemexp_fail(error, VMEMEXP_REASON_PFNMAP, addr, -EPERM);
		buf->unlisted = true;
	}
	return 0;
}

/* Check the page frames collected from page @index on; extent @i has the first of them. */
static int vmemexp_check_extents(const struct vmemexp_collect *collect, unsigned long i,
				 unsigned long index)
{
	struct vmemexp_buf *buf = collect->buf;
	unsigned long end, skip;
	int ret = 0;

	for (; !ret && index < collect->nr_pages; i++, index = end) {
		end = i + 1 < buf->nr_extents ? buf->extents[i + 1].start : collect->nr_pages;
		skip = index - buf->extents[i].start;
		ret = vmemexp_check_pfns(buf, vmemexp_extent_pfn(buf, i) + skip, end - index,
					 vmemexp_source_addr(collect->source, index),
					 collect->error);
	}
	return ret;
}

/*
 * Look @addr up in the page table. If there is no entry that allows the access, fault
 * it in. Return the VMA, or an error pointer.
 */
static struct vm_area_struct *vmemexp_find_pfn(struct vmemexp_buf *buf, unsigned long addr,
					       struct vmemexp_pfn *found,
					       struct vmemexp_error *error)
{
	unsigned int flags = buf->writable ? FAULT_FLAG_WRITE : 0;
	bool present, unlocked = false;
	struct vm_area_struct *vma;
	int tries, ret;

	for (tries = 0;; tries++) {
		/* Look the VMA up again: the fault may have dropped the mmap_lock. */
		vma = vma_lookup(buf->mm, addr);
		ret = vmemexp_check_vma(buf, vma, addr, error);
		if (ret)
			return ERR_PTR(ret);
		present = !vmemexp_follow_pfn(vma, addr, found);
		if (present && (found->writable || !buf->writable))
			return vma;
		if (tries == VMEMEXP_FAULT_TRIES)
			ret = -EFAULT;
		else
			ret = fixup_user_fault(buf->mm, addr, flags, &unlocked);
		if (ret)
			break;
	}
	if (ret == -EFAULT && present)
		/* VM_WRITE is the mapping's permission, but the driver left the entry read-only. */
		ret = vmemexp_fail(error, VMEMEXP_REASON_NOT_WRITABLE, addr, -EACCES);
	else if (ret == -EFAULT)
		ret = vmemexp_fail(error, VMEMEXP_REASON_NO_BACKING, addr, ret);
	else if (ret != -EINTR)
		ret = vmemexp_fail(error, VMEMEXP_REASON_UNPINNABLE, addr, ret);
	return ERR_PTR(ret);
}

/*
 * A walk of one page table. @pfn is the first page frame of an extent that has not been added
 * yet, @first is its entry, and @next is the entry that would continue the extent.
 */
struct vmemexp_walk {
	struct vmemexp_collect *collect;
	const struct vm_area_struct *vma;
	unsigned long pfn;
	u64 first;
	u64 next;
};

/* A value that no present entry has: its page frame would be beyond all memory. */
#define VMEMEXP_NO_PTE	U64_MAX

static void vmemexp_start_extent(struct vmemexp_walk *walk, unsigned long pfn, u64 next)
{
	walk->pfn = pfn;
	walk->first = next - PAGE_SIZE;
	walk->next = next;
}

static void vmemexp_finish_extent(const struct vmemexp_walk *walk)
{
	vmemexp_add_extent(walk->collect, walk->pfn, (walk->next - walk->first) >> PAGE_SHIFT);
}

/*
 * Start a new extent at @pte, or end the walk if @pte takes another vmemexp_find_pfn(). This is
 * not inlined, so that vmemexp_walk_pte(), which runs for every page, stays small.
 */
static noinline int vmemexp_walk_on(struct vmemexp_walk *walk, pte_t pte)
{
	const struct vmemexp_buf *buf = walk->collect->buf;
	u64 next = (u64)pte_val(pte) + PAGE_SIZE;
	struct vmemexp_pfn found;

	if (!pte_present(pte))
		return 1;
	vmemexp_read_pte(walk->vma, pte, &found);
	if (found.prot_cache != buf->prot_cache || (buf->writable && !found.writable) ||
	    !vmemexp_has_room_for(buf, found.pfn))
		return 1;
	vmemexp_finish_extent(walk);
	/* x86 stores the page frame of an entry that allows no access in another way. */
	if (pte_pfn(__pte(next)) != found.pfn + 1)
		next = VMEMEXP_NO_PTE;
	vmemexp_start_extent(walk, found.pfn, next);
	return 0;
}

static int vmemexp_walk_pte(pte_t *ptep, unsigned long addr, void *data)
{
	struct vmemexp_walk *walk = data;
	pte_t pte = ptep_get(ptep);

	if (pte_val(pte) != walk->next)
		return vmemexp_walk_on(walk, pte);
	walk->next += PAGE_SIZE;
	return 0;
}

/*
 * Collect the page frames from @addr to @end, but no more than one huge entry or one
 * page table maps.
 *
 * The page table of a VM_PFNMAP mapping stays between the two looks at it: mm/ frees it
 * only for a writer of the mmap_lock. So apply_to_page_range() makes no new one, and
 * meets no huge entry. Of other mappings, MADV_DONTNEED may free one at any moment, so
 * those are looked up page by page.
 */
static int vmemexp_collect_table(struct vmemexp_collect *collect, unsigned long addr,
				 unsigned long end)
{
	struct vmemexp_buf *buf = collect->buf;
	struct vm_area_struct *vma;
	struct vmemexp_walk walk;
	struct vmemexp_pfn found;
	int ret;

	vma = vmemexp_find_pfn(buf, addr, &found, collect->error);
	if (IS_ERR(vma))
		return PTR_ERR(vma);
	if (!collect->nr_pages)
		buf->prot_cache = found.prot_cache;
	else if (found.prot_cache != buf->prot_cache)
		return vmemexp_fail(collect->error, VMEMEXP_REASON_MIXED, addr, -EINVAL);
	ret = vmemexp_reserve_high(collect, found.pfn);
	if (ret)
		return ret;

	end = min(end, vma->vm_end);
	if (found.size > PAGE_SIZE) {
		end = min(end - 1, addr | (found.size - 1)) + 1;
		vmemexp_add_extent(collect, found.pfn, (end - addr) >> PAGE_SHIFT);
		return 0;
	}
	walk = (struct vmemexp_walk) { .collect = collect, .vma = vma };
	vmemexp_start_extent(&walk, found.pfn, VMEMEXP_NO_PTE);
	end = min(end - 1, addr | (PMD_SIZE - 1)) + 1;
	addr += PAGE_SIZE;
	if (vma->vm_flags & VM_PFNMAP && addr < end)
		apply_to_page_range(buf->mm, addr, end - addr, vmemexp_walk_pte, &walk);
	vmemexp_finish_extent(&walk);
	return 0;
}

/* Look up @count page frames from @addr on, check them, and add them to the extents. */
static int vmemexp_collect_pfns(struct vmemexp_collect *collect, unsigned long addr,
				unsigned long count)
{
	unsigned long end = addr + (count << PAGE_SHIFT), index, last;
	struct vmemexp_buf *buf = collect->buf;
	int ret;

	/* A walk adds extents under the lock of a page table. */
	ret = vmemexp_reserve_extents(collect, count);
	if (ret)
		return ret;
	if (mmap_read_lock_killable(buf->mm))
		return -EINTR;
	while (!ret && addr < end) {
		index = collect->nr_pages;
		last = buf->nr_extents - !!buf->nr_extents;
		ret = vmemexp_collect_table(collect, addr, end);
		if (!ret)
			ret = vmemexp_check_extents(collect, last, index);
		addr = vmemexp_source_addr(collect->source, collect->nr_pages);
	}
	mmap_read_unlock(buf->mm);
	return ret ?: vmemexp_charge_extents(buf, collect->error);
}

/* --- collecting: batch by batch, and then the checks of the whole --- */

static bool vmemexp_has_pages(const struct vmemexp_buf *buf)
{
	unsigned long i, pfn, end;

	for (i = 0; i < buf->nr_extents; i++) {
		pfn = vmemexp_extent_pfn(buf, i);
		end = pfn + vmemexp_extent_pages(buf, i);
		for (; pfn < end; pfn = ALIGN(pfn + 1, VMEMEXP_PFN_BLOCK)) {
			if (!pfn_valid(pfn) || fatal_signal_pending(current))
				return false;
			cond_resched();
		}
	}
	return true;
}

/*
 * Check that all of the memory is System RAM, or none of it, and note which. Pages that
 * drivers insert may lie outside as well.
 */
static int vmemexp_check_placement(struct vmemexp_buf *buf, struct vmemexp_error *error)
{
	unsigned long i, pages, nr;
	bool is_ram;

	for (i = 0; i < buf->nr_extents; i++) {
		vmemexp_relax(i);
		if (fatal_signal_pending(current))
			return -EINTR;
		nr = vmemexp_extent_pages(buf, i);
		pages = nr;
		is_ram = vmemexp_is_system_ram(vmemexp_extent_pfn(buf, i), &pages);
		if (!i)
			buf->is_ram = is_ram;
		if (is_ram != buf->is_ram)
			pages = 0;
		if (pages < nr)
			return vmemexp_fail_at(buf, buf->extents[i].start + pages, error,
					       VMEMEXP_REASON_MIXED, -EINVAL);
	}
	buf->has_pages = buf->is_ram || vmemexp_has_pages(buf);
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/* Consecutive pages, to be sorted: of an extent by page frame, of a source range by address. */
struct vmemexp_span {
	unsigned long first;
	unsigned long pages;
};

static struct vmemexp_span *vmemexp_alloc_spans(unsigned long nr)
{
	return kvmalloc_array(nr, sizeof(struct vmemexp_span), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

static int vmemexp_compare_spans(const void *a, const void *b)
{
	const struct vmemexp_span *left = a, *right = b;

	/* sort() may have millions of extents to compare. */
	cond_resched();
	return left->first < right->first ? -1 : left->first > right->first;
}

/* Sort @spans. Return true if some page is in more than one of them. */
static bool vmemexp_sort_spans(struct vmemexp_span *spans, unsigned long nr)
{
	unsigned long i, end = 0;
	bool overlap = false;

	sort(spans, nr, sizeof(*spans), vmemexp_compare_spans, NULL);
	for (i = 0; i < nr; i++) {
		overlap |= spans[i].first < end;
		end = max(end, spans[i].first + spans[i].pages);
		vmemexp_relax(i);
	}
	return overlap;
}

/*
 * Count the pages of all folios that have a page from @pfn to @end, except those before
 * @counted. Move @counted behind the last of them.
 */
static unsigned long vmemexp_count_folio_pages(unsigned long pfn, unsigned long end,
					       unsigned long *counted)
{
	unsigned long nr = 0, pages;
	struct folio *folio;

	for (pfn = max(pfn, *counted); pfn < end && !fatal_signal_pending(current);
	     pfn = *counted) {
		folio = page_folio(pfn_to_page(pfn));
		pages = folio_nr_pages(folio);
		nr += pages;
		*counted = pfn - folio_page_idx(folio, pfn_to_page(pfn)) + pages;
		cond_resched();
	}
	return nr;
}

/*
 * Sort the extents by address. Find out if a page is in the buffer more than once, and
 * count the folios: a folio is pinned once, however often its pages alternate with
 * those of others.
 */
static int vmemexp_survey(struct vmemexp_collect *collect)
{
	struct vmemexp_buf *buf = collect->buf;
	unsigned long i, counted = 0, nr = 0;
	struct vmemexp_span *spans;

	spans = vmemexp_alloc_spans(buf->nr_extents);
	if (!spans)
		return -ENOMEM;
	for (i = 0; i < buf->nr_extents; i++) {
		spans[i].first = vmemexp_extent_pfn(buf, i);
		spans[i].pages = vmemexp_extent_pages(buf, i);
		vmemexp_relax(i);
	}
	buf->overlaps = vmemexp_sort_spans(spans, buf->nr_extents);
	for (i = 0; !buf->pfnmap && i < buf->nr_extents; i++) {
		nr += vmemexp_count_folio_pages(spans[i].first, spans[i].first + spans[i].pages,
						&counted);
		vmemexp_relax(i);
	}
	collect->nr_folio_pages = nr;
	kvfree(spans);
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/*
 * Return true if each source range lies completely above or below all ranges before it. So do
 * parts in ascending or descending order, and the two parts of a ring. Then no two ranges
 * overlap.
 */
static bool vmemexp_sources_spread(const struct vmemexp_buf *buf)
{
	const struct vmemexp_source *source = buf->sources, *end = source + buf->nr_sources;
	unsigned long low = source->start, high = vmemexp_source_end(source);

	while (++source < end) {
		if (source->start >= high)
			high = vmemexp_source_end(source);
		else if (vmemexp_source_end(source) <= low)
			low = source->start;
		else
			return false;
	}
	return true;
}

/* Return 1 if some address is in more than one source range, 0 if none is, or an errno. */
static int vmemexp_sources_overlap(const struct vmemexp_buf *buf)
{
	struct vmemexp_span *spans;
	unsigned int i;
	bool overlap;

	if (vmemexp_sources_spread(buf))
		return 0;
	spans = vmemexp_alloc_spans(buf->nr_sources);
	if (!spans)
		return -ENOMEM;
	for (i = 0; i < buf->nr_sources; i++) {
		spans[i].first = buf->sources[i].start >> PAGE_SHIFT;
		spans[i].pages = buf->sources[i].npages;
	}
	overlap = vmemexp_sort_spans(spans, buf->nr_sources);
	kvfree(spans);
	return overlap;
}

/*
 * Return 1 if some page may be in the buffer more than once, 0 if none is, or an errno.
 *
 * A private page is mapped at one address only, and a page of a file once in each mapping
 * of the file. Drivers may map a page as often as they like. If a mapping has changed
 * meanwhile, the number of mappings is of no use.
 */
static int vmemexp_may_overlap(const struct vmemexp_collect *collect)
{
	const struct vmemexp_buf *buf = collect->buf;

	if (buf->nr_extents == 1)
		return 0;
	if (!IS_ENABLED(CONFIG_MMU_NOTIFIER) || READ_ONCE(buf->stale) ||
	    buf->memory & (VMEMEXP_MEMORY_DRIVER | VMEMEXP_MEMORY_PFNMAP) || collect->mixed)
		return 1;
	if (collect->nr_vmas > 1 && buf->memory != VMEMEXP_MEMORY_ANON)
		return 1;
	return vmemexp_sources_overlap(buf);
}

/* Collect the next pages of the source range, at most VMEMEXP_BATCH of them. */
static int vmemexp_collect_batch(struct vmemexp_collect *collect)
{
	struct vmemexp_buf *buf = collect->buf;
	unsigned long addr = vmemexp_source_addr(collect->source, collect->nr_pages);
	unsigned long count = min_t(unsigned long, vmemexp_pages_left(collect), VMEMEXP_BATCH);
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;
	if (buf->pfnmap)
		ret = vmemexp_collect_pfns(collect, addr, count);
	else
		ret = vmemexp_collect_pages(collect, addr, count);
	if (ret)
		return ret;
	if (collect->contiguous && buf->nr_extents > 1)
		return vmemexp_fail_at(buf, buf->extents[1].start, collect->error,
				       VMEMEXP_REASON_NOT_CONTIGUOUS, -ERANGE);
	cond_resched();
	return 0;
}

static int vmemexp_collect_source(struct vmemexp_collect *collect,
				  const struct vmemexp_source *source)
{
	int ret = 0;

	collect->source = source;
	collect->error->range = source - collect->buf->sources;
	while (!ret && vmemexp_pages_left(collect))
		ret = vmemexp_collect_batch(collect);
	return ret;
}

/* Collect the memory of all source ranges, batch by batch. */
static int vmemexp_collect_sources(struct vmemexp_collect *collect)
{
	const struct vmemexp_buf *buf = collect->buf;
	unsigned long npages = buf->npages;
	struct page *few[VMEMEXP_FEW_PAGES];
	unsigned int i;
	int ret = 0;

	collect->pages = few;
	if (npages > ARRAY_SIZE(few))
		collect->pages = kmalloc_array(min_t(unsigned long, npages, VMEMEXP_BATCH),
					       sizeof(*collect->pages), GFP_KERNEL);
	if (!collect->pages)
		return -ENOMEM;
	for (i = 0; !ret && i < buf->nr_sources; i++)
		ret = vmemexp_collect_source(collect, &buf->sources[i]);
	if (collect->pages != few)
		kfree(collect->pages);
	return ret;
}

/* Return the first source range that has been unmapped, or NULL. */
static const struct vmemexp_source *vmemexp_find_stale(const struct vmemexp_buf *buf)
{
	unsigned int i;

	for (i = 0; i < buf->nr_sources; i++)
		if (READ_ONCE(buf->sources[i].stale))
			return &buf->sources[i];
	return NULL;
}

/* Make the checks that need the whole buffer. */
static int vmemexp_check_collected(const struct vmemexp_collect *collect)
{
	struct vmemexp_buf *buf = collect->buf;
	const struct vmemexp_source *stale;
	int ret;

	if (buf->memory & (VMEMEXP_MEMORY_DRIVER | VMEMEXP_MEMORY_PFNMAP)) {
		ret = vmemexp_check_placement(buf, collect->error);
		if (ret)
			return ret;
	}
	/*
	 * The driver has taken from the mappings how the memory is cached, whether it may be
	 * used without a pin, and that it is not a dma-buf's. So they must not have changed.
	 * For private memory that is cached, the driver needs none of this.
	 */
	stale = vmemexp_find_stale(buf);
	if (stale && (buf->memory != VMEMEXP_MEMORY_ANON ||
		      vmemexp_cache(buf->prot_cache) != VMEMEXP_CACHE_CACHED))
		return vmemexp_fail_at(buf, stale->first, collect->error, VMEMEXP_REASON_CHANGED,
				       -EAGAIN);
	return 0;
}

/*
 * vmemexp_charge_range() has charged each page. But a pin keeps all of a large folio,
 * also if the program unmaps the rest, so charge the rest of each folio. For page frames
 * that are in the buffer more than once, charge the page table.
 */
static int vmemexp_charge_rest(struct vmemexp_collect *collect)
{
	struct vmemexp_buf *buf = collect->buf;
	int ret = 1;

	if (collect->nr_folio_pages <= buf->npages)
		ret = vmemexp_may_overlap(collect);
	if (ret > 0)
		ret = vmemexp_survey(collect);
	if (ret)
		return ret;
	if (buf->pfnmap && buf->overlaps)
		return vmemexp_charge_extents(buf, collect->error);
	if (collect->nr_folio_pages > buf->npages &&
	    vmemexp_charge(buf, collect->nr_folio_pages - buf->npages))
		return vmemexp_fail_whole(buf, collect->error, VMEMEXP_REASON_LIMIT, -ENOMEM);
	return 0;
}

/*
 * Move the extents to an array without unused entries. If that allocation fails, keep the
 * larger array; but fail if the extents are still on the stack.
 */
static int vmemexp_keep_extents(struct vmemexp_collect *collect)
{
	struct vmemexp_buf *buf = collect->buf;
	int ret = 0;

	if (buf->nr_extents < collect->max_extents || buf->extents == collect->few_extents)
		ret = vmemexp_resize_extents(collect, buf->nr_extents, buf->high);
	return buf->extents == collect->few_extents ? ret : 0;
}

/* --- windows: kernel addresses of cached memory that the linear map lacks --- */

/*
 * Return true if the memory is cached, and its caches have to be written back for an
 * observer, which does not snoop them.
 */
static bool vmemexp_needs_cache_ops(const struct vmemexp_buf *buf)
{
	return VMEMEXP_HAS_CACHE_OPS && vmemexp_cache(buf->prot_cache) == VMEMEXP_CACHE_CACHED;
}

/* Pages of address space that the windows of all buffers take. */
static atomic_long_t vmemexp_window_pages;

/*
 * The addresses and page tables of windows are charged to no user, and a user can export the
 * same memory many times. So bound their sum: a 32-bit kernel has few addresses for mappings,
 * of which a quarter is for others. Elsewhere the page tables may take a 32nd of RAM.
 */
static unsigned long vmemexp_max_window_pages(void)
{
	return min_t(unsigned long, VMALLOC_TOTAL / 4 * 3 >> PAGE_SHIFT,
		     totalram_pages() / 32 * (PAGE_SIZE / sizeof(u64)));
}

/*
 * get_vm_area() aligns a mapping like this one to its size, rounded up to a power of two, and
 * then puts a guard page behind it: 8 MiB keep others out of 16.
 */
static unsigned long vmemexp_window_size(const struct vmemexp_buf *buf, unsigned long extent)
{
	unsigned long pages = vmemexp_extent_pages(buf, extent);
	int order = min_t(int, get_count_order_long(pages), IOREMAP_MAX_ORDER - PAGE_SHIFT);

	return ALIGN(pages + 1, 1UL << order);
}

/* Add @pages to those of all windows, unless that makes too many. */
static int vmemexp_reserve_windows(unsigned long pages)
{
	unsigned long max = vmemexp_max_window_pages();
	long taken = atomic_long_read(&vmemexp_window_pages);

	do {
		if (taken > max || pages > max - taken)
			return -ENOMEM;
	} while (!atomic_long_try_cmpxchg(&vmemexp_window_pages, &taken, taken + pages));
	return 0;
}

static struct vmemexp_windows *vmemexp_alloc_windows(const struct vmemexp_buf *buf)
{
	struct vmemexp_windows *windows = kvzalloc(struct_size(windows, addrs, buf->nr_extents),
						   GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	unsigned long i;

	if (!windows)
		return NULL;
	for (i = 0; i < buf->nr_extents; i++) {
		vmemexp_relax(i);
		windows->pages += vmemexp_window_size(buf, i);
	}
	if (!vmemexp_reserve_windows(windows->pages))
		return windows;
	kvfree(windows);
	return NULL;
}

static void vmemexp_close_windows(struct vmemexp_buf *buf)
{
	struct vmemexp_windows *windows = buf->windows;
	unsigned long i;

	if (!windows)
		return;
	for (i = 0; i < buf->nr_extents && windows->addrs[i]; i++)
		memunmap(windows->addrs[i]);
	atomic_long_sub(windows->pages, &vmemexp_window_pages);
	kvfree(windows);
	buf->windows = NULL;
}

/*
 * Map each extent into the kernel. The windows stay until the memory is released,
 * because an unmap, which needs them, must not fail. They are not opened before they
 * are needed: they take address space.
 */
static int vmemexp_open_windows(struct vmemexp_buf *buf)
{
	u32 cache = vmemexp_cache(buf->prot_cache);
	unsigned long i;
	void *addr;

	if (buf->windows)
		return 0;
	buf->windows = vmemexp_alloc_windows(buf);
	if (!buf->windows)
		return -ENOMEM;
	for (i = 0; i < buf->nr_extents; i++) {
		cond_resched();
		addr = vmemexp_remap(vmemexp_extent_phys(buf, i),
				     vmemexp_extent_pages(buf, i) << PAGE_SHIFT, cache);
		buf->windows->addrs[i] = addr;
		if (!addr) {
			buf->caching_lost = true;
			vmemexp_close_windows(buf);
			return -ENOMEM;
		}
	}
	return 0;
}

/* --- notifier: mm/ calls it when a source range goes away --- */

#ifdef CONFIG_MMU_NOTIFIER
/* Return the first source range, from @source on, that @range has a part of, or NULL. */
static struct vmemexp_source *vmemexp_next_source(struct vmemexp_buf *buf,
						  struct vmemexp_source *source,
						  const struct mmu_notifier_range *range)
{
	for (; source < buf->sources + buf->nr_sources; source++)
		if (range->start < vmemexp_source_end(source) && range->end > source->start)
			return source;
	return NULL;
}

/*
 * Return the index in the buffer of the first page of @source that @range has, and in @end
 * the index behind the last one.
 */
static unsigned long vmemexp_range_pages(const struct vmemexp_source *source,
					 const struct mmu_notifier_range *range,
					 unsigned long *end)
{
	unsigned long start = source->start, last = min(range->end, vmemexp_source_end(source));

	*end = source->first + ((last - start) >> PAGE_SHIFT);
	return source->first + ((max(range->start, start) - start) >> PAGE_SHIFT);
}

static void vmemexp_set_stale(struct vmemexp_buf *buf, struct vmemexp_source *source)
{
	WRITE_ONCE(source->stale, true);
	WRITE_ONCE(buf->stale, true);
}

/* If an export has not allocated @unmapped yet, it fails later because of @stale. */
static void vmemexp_notify_unmap(struct vmemexp_buf *buf, const struct mmu_notifier_range *range)
{
	struct vmemexp_source *source = buf->sources;
	unsigned long first, end;

	while ((source = vmemexp_next_source(buf, source, range))) {
		first = vmemexp_range_pages(source, range, &end);
		spin_lock(&buf->unmapped_lock);
		if (buf->unmapped)
			bitmap_set(buf->unmapped, first, end - first);
		spin_unlock(&buf->unmapped_lock);
		vmemexp_set_stale(buf, source);
		source++;
	}
}

/*
 * Return true if all that @range has of @source was unmapped before: it may be another
 * mapping by now.
 */
static bool vmemexp_was_unmapped(struct vmemexp_buf *buf, const struct vmemexp_source *source,
				 const struct mmu_notifier_range *range)
{
	unsigned long first, end;
	bool unmapped;

	first = vmemexp_range_pages(source, range, &end);
	spin_lock(&buf->unmapped_lock);
	unmapped = buf->unmapped && find_next_zero_bit(buf->unmapped, end, first) >= end;
	spin_unlock(&buf->unmapped_lock);
	return unmapped;
}

/*
 * mm/ neither reclaims nor migrates page frames, so it is their driver that clears
 * them, and takes them away. There is an exception: when mm/ splits a mapping, it
 * announces the one huge entry that may be there as cleared, and clears nothing. It
 * does that under the mmap_lock for writing, which a driver does not hold where it
 * takes memory away. If mm/ splits an entry without that lock, as for a driver that
 * takes a part of it away, all of the entry counts as taken.
 */
static void vmemexp_notify_clear(struct vmemexp_buf *buf, const struct mmu_notifier_range *range)
{
	unsigned long size = range->end - range->start;
	struct vmemexp_source *source = buf->sources;
	bool taken = false;

	if ((size == PMD_SIZE || size == PUD_SIZE) && IS_ALIGNED(range->start, size) &&
	    vmemexp_is_mmap_writer(range->mm))
		return;
	while ((source = vmemexp_next_source(buf, source, range))) {
		if (!vmemexp_was_unmapped(buf, source, range)) {
			vmemexp_set_stale(buf, source);
			taken = true;
		}
		source++;
	}
	if (!taken)
		return;
	WRITE_ONCE(buf->taken, true);
	mod_delayed_work(vmemexp_wq, &buf->work, 0);
}

static bool vmemexp_invalidate(struct mmu_interval_notifier *notifier,
			       const struct mmu_notifier_range *range, unsigned long seq)
{
	struct vmemexp_buf *buf = container_of(notifier, struct vmemexp_buf, notifier);

	mmu_interval_set_seq(notifier, seq);
	/*
	 * Pairs with the barrier in vmemexp_wait_invalidated(). If pfnmap is set after
	 * it is read below, the export waits there for this callback.
	 */
	smp_mb();
	/*
	 * mm/ announces every attempt to migrate or reclaim a page, too; those fail for
	 * pinned ones. Only the end of the mapping counts.
	 */
	switch (range->event) {
	case MMU_NOTIFY_UNMAP:
		vmemexp_notify_unmap(buf, range);
		break;
	case MMU_NOTIFY_RELEASE:
		/* No export runs in an mm that ends, so no source->stale is needed. */
		WRITE_ONCE(buf->stale, true);
		WRITE_ONCE(buf->orphaned, true);
		mod_delayed_work(vmemexp_wq, &buf->work, 0);
		break;
	case MMU_NOTIFY_CLEAR:
		if (READ_ONCE(buf->pfnmap))
			vmemexp_notify_clear(buf, range);
		break;
	default:
		break;
	}
	return true;
}

static const struct mmu_interval_notifier_ops vmemexp_notifier_ops = {
	.invalidate = vmemexp_invalidate,
};

/*
 * Have the notifier watch the source ranges in @mm, and the addresses between them. Hold the
 * mm_struct, not the memory.
 */
static int vmemexp_register_notifier(struct vmemexp_buf *buf, struct mm_struct *mm)
{
	const struct vmemexp_source *source = buf->sources;
	unsigned long start = source->start, end = vmemexp_source_end(source);
	unsigned int i;
	int ret;

	for (i = 1; i < buf->nr_sources; i++) {
		start = min(start, source[i].start);
		end = max(end, vmemexp_source_end(&source[i]));
	}
	ret = mmu_interval_notifier_insert(&buf->notifier, mm, start, end - start,
					   &vmemexp_notifier_ops);
	/*
	 * The first notifier of an mm takes all locks of the mm, and fails if any
	 * signal is pending.
	 */
	if (ret == -EINTR && !fatal_signal_pending(current))
		return -ERESTARTNOINTR;
	if (ret)
		return ret;
	mmgrab(mm);
	buf->mm = mm;
	/* mm/ does not announce an invalidation that started before. Wait for its end. */
	mmu_interval_read_begin(&buf->notifier);
	return 0;
}

static void vmemexp_unregister_notifier(struct vmemexp_buf *buf)
{
	mmu_interval_notifier_remove(&buf->notifier);
}

/* Wait until all invalidations that were announced to the notifier have ended. */
static void vmemexp_wait_invalidated(struct vmemexp_buf *buf)
{
	/* Pairs with the barrier in vmemexp_invalidate(). */
	smp_mb();
	mmu_interval_read_begin(&buf->notifier);
}

/* Allocate @unmapped: from now on, the notifier records which pages have been unmapped. */
static int vmemexp_alloc_unmapped(struct vmemexp_buf *buf)
{
	unsigned long *unmapped = kvzalloc(BITS_TO_LONGS(buf->npages) * sizeof(*unmapped),
					   GFP_KERNEL_ACCOUNT | __GFP_NOWARN);

	if (!unmapped)
		return -ENOMEM;
	spin_lock(&buf->unmapped_lock);
	buf->unmapped = unmapped;
	spin_unlock(&buf->unmapped_lock);
	return 0;
}
#else
static int vmemexp_register_notifier(struct vmemexp_buf *buf, struct mm_struct *mm)
{
	mmgrab(mm);
	buf->mm = mm;
	return 0;
}

static void vmemexp_unregister_notifier(struct vmemexp_buf *buf) { }
static void vmemexp_wait_invalidated(struct vmemexp_buf *buf) { }
static int vmemexp_alloc_unmapped(struct vmemexp_buf *buf) { return 0; }
#endif

/*
 * Leave the address space. When it has ended, there is nothing to watch, and its count of
 * pinned pages is not shown any more. But as long as the buffer holds the mm, it keeps the
 * page directory and the user namespace.
 */
static void vmemexp_leave_mm(struct vmemexp_buf *buf)
{
	struct mm_struct *mm;

	mutex_lock(&buf->lock);
	mm = buf->mm;
	WRITE_ONCE(buf->mm, NULL);
	mutex_unlock(&buf->lock);
	if (!mm)
		return;
	vmemexp_unregister_notifier(buf);
	mmdrop(mm);
}

/* --- buffer: the release of its memory, its user, and its end --- */

static bool vmemexp_is_gone(const struct vmemexp_buf *buf)
{
	return READ_ONCE(buf->revoked) || READ_ONCE(buf->taken);
}

/* Return 0 if the memory may be put to a new use, or the errno. */
static int vmemexp_check_gone(const struct vmemexp_buf *buf)
{
	return vmemexp_is_gone(buf) ? -ENODEV : 0;
}

/* Return true if a device has the buffer mapped, or there is a kernel mapping of it. */
static bool vmemexp_is_in_use(const struct vmemexp_buf *buf)
{
	lockdep_assert_held(&buf->lock);

	return buf->nr_mapped || (buf->vaddr && !buf->blank);
}

/*
 * Release the memory, once and for ever. Unpinning takes page locks, so hold no lock.
 * The extents stay for as long as the buffer, since a query may ask for them.
 */
static void vmemexp_put_memory(struct vmemexp_buf *buf)
{
	bool mine;

	mutex_lock(&buf->lock);
	mine = !buf->dropped;
	buf->dropped = true;
	mutex_unlock(&buf->lock);
	if (!mine)
		return;
	vmemexp_close_windows(buf);
	if (!buf->pfnmap)
		vmemexp_unpin(buf, buf->npages);
	vmemexp_uncharge(buf);
}

/*
 * Free the buffer and its arrays. The notifier uses @sources and @unmapped, so it must not be
 * registered any more.
 */
static void vmemexp_free_buf(struct vmemexp_buf *buf)
{
	vmemexp_free_extents(buf);
	kvfree(buf->unmapped);
	vmemexp_free_sources(buf);
	mutex_destroy(&buf->lock);
	kfree(buf);
}

/* Leave the mm. Wait for invalidations that run there, and for the work that they queued. */
static void vmemexp_leave_mm_sync(struct vmemexp_buf *buf)
{
	vmemexp_leave_mm(buf);
	/*
	 * Without the notifier, nothing queues the work any more. Everything that queued it
	 * has set one of these flags before.
	 */
	if (vmemexp_is_gone(buf) || READ_ONCE(buf->orphaned))
		cancel_delayed_work_sync(&buf->work);
}

/*
 * Free what vmemexp_put_resources() left. This may wait for long: see
 * vmemexp_leave_mm_sync().
 */
static void vmemexp_free(struct vmemexp_buf *buf)
{
	vmemexp_leave_mm_sync(buf);
	vmemexp_put_user(buf->user);
	iput(buf->inode);
	vmemexp_free_buf(buf);
}

/* Return the oldest buffer in the list whose serial number is @serial or more, or NULL. */
static struct vmemexp_buf *vmemexp_find_buf_from(u64 serial)
{
	struct rb_node *node = vmemexp_buffers.rb_node;
	struct vmemexp_buf *buf, *found = NULL;

	lockdep_assert_held(&vmemexp_buffers_lock);

	while (node) {
		buf = rb_entry(node, struct vmemexp_buf, node);
		if (buf->serial >= serial) {
			found = buf;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	return found;
}

/*
 * Make all orphaned buffers of @user leave their mm, and wait for mms that are still ending.
 * A buffer that is exported later queues the work again. Return false if a buffer has to be
 * freed first.
 *
 * After the unlock, the buffer may be released, but not freed. It is orphaned, so its mm has
 * no user left. So neither an ioctl nor a close of its exporter, which free other buffers
 * directly, can be running. Only vmemexp_free_work() frees it, and that is the caller.
 */
static bool vmemexp_leave_ended_mms(struct vmemexp_user *user)
{
	struct vmemexp_buf *buf;
	u64 serial = 0, last;
	bool leaves;

	mutex_lock(&vmemexp_buffers_lock);
	last = vmemexp_last_serial;
	mutex_unlock(&vmemexp_buffers_lock);
	do {
		mutex_lock(&vmemexp_buffers_lock);
		buf = vmemexp_find_buf_from(serial);
		if (buf && buf->serial > last)
			buf = NULL;
		leaves = buf && buf->user == user && READ_ONCE(buf->orphaned) &&
			 READ_ONCE(buf->mm);
		if (buf)
			serial = buf->serial + 1;
		mutex_unlock(&vmemexp_buffers_lock);
		if (leaves)
			vmemexp_leave_mm(buf);
		if (leaves && !list_empty_careful(&user->dying))
			return false;
		cond_resched();
	} while (buf);
	return true;
}

static void vmemexp_queue_free_work(struct vmemexp_user *user)
{
	lockdep_assert_held(&vmemexp_users_lock);

	/* A run that is queued and has not begun serves this request as well. */
	if (queue_work(vmemexp_free_wq, &user->free_work))
		user->runs++;
}

static void vmemexp_leave_mm_later(struct vmemexp_user *user)
{
	spin_lock(&vmemexp_users_lock);
	user->orphaned = true;
	vmemexp_queue_free_work(user);
	spin_unlock(&vmemexp_users_lock);
}

/*
 * Free one buffer, then let other users have their turn: a process can delay the removal of
 * its own notifier without limit, and this must not delay other users. If there is no buffer
 * to free, leave address spaces that have ended.
 */
static void vmemexp_free_work(struct work_struct *work)
{
	struct vmemexp_user *user = container_of(work, struct vmemexp_user, free_work);
	struct vmemexp_buf *buf;
	bool orphaned;

	spin_lock(&vmemexp_users_lock);
	buf = list_first_entry_or_null(&user->dying, struct vmemexp_buf, free_node);
	orphaned = user->orphaned;
	if (buf)
		list_del(&buf->free_node);
	else
		user->orphaned = false;
	if (!list_empty(&user->dying) || user->orphaned)
		vmemexp_queue_free_work(user);
	spin_unlock(&vmemexp_users_lock);
	if (buf)
		vmemexp_free(buf);
	else if (orphaned && !vmemexp_leave_ended_mms(user))
		vmemexp_leave_mm_later(user);
	vmemexp_put_user_counts(user, 0, 1);
}

static struct vmemexp_user *vmemexp_find_user(struct user_struct *user)
{
	struct vmemexp_user *entry;

	lockdep_assert_held(&vmemexp_users_lock);

	hash_for_each_possible(vmemexp_users, entry, node, (unsigned long)user)
		if (entry->user == user)
			return entry;
	return NULL;
}

/* Count one more buffer of the calling user, and hold that user for it. */
static struct vmemexp_user *vmemexp_get_user(const struct vmemexp_buf *buf,
					     struct vmemexp_error *error)
{
	unsigned long end = jiffies + VMEMEXP_FREE_TIMEOUT;
	struct vmemexp_user *new = NULL, *user;
	bool unlimited = false, full, dying;

again:
	spin_lock(&vmemexp_users_lock);
	user = vmemexp_find_user(current_user()) ?: new;
	if (!user) {
		spin_unlock(&vmemexp_users_lock);
		new = vmemexp_alloc_user();
		if (!new)
			return ERR_PTR(-ENOMEM);
		INIT_WORK(&new->free_work, vmemexp_free_work);
		goto again;
	}
	full = user->buffers >= READ_ONCE(vmemexp_max_buffers) && !unlimited;
	dying = user->runs;
	if (!full) {
		user->buffers++;
		if (user == new)
			hash_add(vmemexp_users, &user->node, (unsigned long)user->user);
	}
	spin_unlock(&vmemexp_users_lock);

	/* Ask only if it matters: capable() leaves traces (PF_SUPERPRIV, audit). */
	if (full && capable(CAP_SYS_RESOURCE)) {
		unlimited = true;
		goto again;
	}
	/* Buffers that are closed will be freed soon: wait for them. */
	if (full && dying && time_before(jiffies, end) && !fatal_signal_pending(current)) {
		schedule_timeout_killable(1);
		goto again;
	}
	if (new && (full || user != new))
		vmemexp_free_user(new);
	if (full)
		return ERR_PTR(vmemexp_fail_whole(buf, error, VMEMEXP_REASON_QUOTA, -EDQUOT));
	return user;
}

static struct dma_resv *vmemexp_alloc_fences(void)
{
	struct dma_resv *fences = kmalloc(sizeof(*fences), GFP_KERNEL);

	if (fences)
		dma_resv_init(fences);
	return fences;
}

static void vmemexp_free_fences(struct dma_resv *fences)
{
	if (fences)
		dma_resv_fini(fences);
	kfree(fences);
}

/* Release the memory, the fences and the file. vmemexp_free() does the rest. */
static void vmemexp_put_resources(struct vmemexp_buf *buf)
{
	struct dma_resv *fences;
	struct file *file;

	vmemexp_put_memory(buf);
	mutex_lock(&buf->lock);
	fences = buf->fences;
	buf->fences = NULL;
	file = buf->file;
	buf->file = NULL;
	buf->dmabuf = NULL;
	mutex_unlock(&buf->lock);
	/* Drop the fences now: their drivers may be unloaded later. */
	vmemexp_free_fences(fences);
	if (file)
		fput(file);
}

/* Undo vmemexp_create(), if dma_buf_export() has failed. */
static void vmemexp_destroy(struct vmemexp_buf *buf)
{
	vmemexp_put_resources(buf);
	vmemexp_free(buf);
}

/*
 * Destroy a buffer that is released. Any process may close the last descriptor, and must
 * not wait for the exporter's mm. Only the exporter itself waits for it here: that is short
 * in most cases, and saves waking a worker.
 */
static void vmemexp_destroy_later(struct vmemexp_buf *buf)
{
	vmemexp_put_resources(buf);
	if (current->mm && READ_ONCE(buf->mm) == current->mm && !READ_ONCE(buf->orphaned)) {
		vmemexp_free(buf);
		return;
	}
	spin_lock(&vmemexp_users_lock);
	list_add_tail(&buf->free_node, &buf->user->dying);
	vmemexp_queue_free_work(buf->user);
	spin_unlock(&vmemexp_users_lock);
}

/* --- coherency: every mapped device, only the bytes named --- */

/*
 * Page frames that are revoked or taken away may belong to a new owner. A sync would
 * invalidate the new owner's cache lines, or overwrite the memory with a device's copy. A
 * driver takes page frames away without vmemexp_buf.lock, so a sync checks before each
 * piece.
 */
static bool vmemexp_is_foreign(const struct vmemexp_buf *buf)
{
	return buf->pfnmap && vmemexp_is_gone(buf);
}

/*
 * Write the CPUs' caches back to memory, and unless @keep invalidate them after that.
 * The caller has opened windows if the memory needs them.
 *
 * Never invalidate without writing back. The zeroes that the kernel wrote to erase the
 * pages may be only in the caches, and memory may still hold the data of an earlier owner.
 */
static void vmemexp_clean_caches(const struct vmemexp_buf *buf, size_t offset, size_t length,
				 bool keep)
{
	unsigned long i = vmemexp_find_extent(buf, offset >> PAGE_SHIFT);
	size_t end, size, skip;
	phys_addr_t phys;
	void *va;

	for (; length && !vmemexp_is_foreign(buf); offset += size, length -= size) {
		end = vmemexp_extent_end(buf, i);
		size = min(length, end - offset);
		size = min_t(size_t, size, PAGE_SIZE - offset_in_page(offset));
		skip = offset - vmemexp_extent_offset(buf, i);
		phys = vmemexp_extent_phys(buf, i) + skip;
		if (buf->is_ram)
			va = kmap_local_page(pfn_to_page(PHYS_PFN(phys))) + offset_in_page(offset);
		else
			va = buf->windows->addrs[i] + skip;
		if (keep)
			vmemexp_cache_clean(phys, va, size);
		else
			vmemexp_cache_flush(phys, va, size);
		if (buf->is_ram)
			kunmap_local(va);
		i += offset + size == end;
		vmemexp_relax(offset >> PAGE_SHIFT);
	}
}

/*
 * Sync in pieces that are contiguous both for the device and in memory: an IOMMU may
 * have merged scattered pages, and dma_sync_*() translates only the start address.
 *
 * The callers skip a device that needs no sync.
 */
static void vmemexp_sync_attachment(const struct vmemexp_buf *buf,
				    const struct vmemexp_attachment *at, size_t offset,
				    size_t length, enum dma_data_direction dir, bool for_cpu)
{
	unsigned long first = offset >> PAGE_SHIFT, extent, segment, pieces = 0;
	size_t extent_end, segment_end, size;
	dma_addr_t addr;

	if (!buf->is_ram) {
		if (!for_cpu || dir != DMA_TO_DEVICE)
			vmemexp_clean_caches(buf, offset, length, !for_cpu);
		return;
	}
	if (at->noncoherent && !for_cpu && dir == DMA_FROM_DEVICE)
		vmemexp_clean_caches(buf, offset, length, true);

	extent = vmemexp_find_extent(buf, first);
	segment = vmemexp_find_segment(at, first);
	for (; length && !vmemexp_is_foreign(buf); offset += size, length -= size) {
		extent_end = vmemexp_extent_end(buf, extent);
		segment_end = vmemexp_segment_end(buf, at, segment);
		size = min3(length, extent_end - offset, segment_end - offset);
		addr = at->segments[segment].addr +
		       (offset - vmemexp_segment_offset(at, segment));
		if (for_cpu)
			dma_sync_single_for_cpu(at->dev, addr, size, dir);
		else
			dma_sync_single_for_device(at->dev, addr, size, dir);
		extent += offset + size == extent_end;
		segment += offset + size == segment_end;
		vmemexp_relax(++pieces);
	}
}

/*
 * Before CPU access: fetch what devices wrote. A CPU that only writes needs this as
 * well: it may leave bytes of the range alone, and the end of the access hands the
 * whole range to the device.
 *
 * Fetch last from devices that are sure to write. If devices work on copies, the copy of one
 * that merely may write would overwrite newer data.
 */
static void vmemexp_sync_for_cpu(struct vmemexp_buf *buf, size_t offset, size_t length)
{
	static const enum dma_data_direction order[] = {
		DMA_TO_DEVICE, DMA_BIDIRECTIONAL, DMA_FROM_DEVICE,
	};
	unsigned int i, to_sync = buf->nr_to_sync;
	struct vmemexp_attachment *at;

	lockdep_assert_held(&buf->lock);

	for (i = 0; to_sync && i < ARRAY_SIZE(order); i++) {
		list_for_each_entry(at, &buf->attachments, node) {
			if (at->dir != order[i] || !at->needs_sync)
				continue;
			vmemexp_sync_attachment(buf, at, offset, length, at->dir, true);
			to_sync--;
		}
	}
}

/*
 * After CPU access: let devices see what the CPU wrote. After a mere read, do not
 * overwrite a bounce buffer, since the device may have written to it meanwhile.
 */
static void vmemexp_sync_for_device(struct vmemexp_buf *buf, size_t offset, size_t length,
				    enum dma_data_direction access)
{
	struct vmemexp_attachment *at;

	lockdep_assert_held(&buf->lock);

	if (!buf->nr_to_sync)
		return;
	list_for_each_entry(at, &buf->attachments, node)
		if (at->needs_sync)
			vmemexp_sync_attachment(buf, at, offset, length,
						at->dir == DMA_BIDIRECTIONAL ? access : at->dir,
						false);
}

/*
 * An observer (see vmemexp_cache_clean()) does not snoop the caches: write them back
 * (and invalidate them) first.
 */
static int vmemexp_sync_observer(struct vmemexp_buf *buf, size_t offset, size_t length, bool keep)
{
	int ret;

	if (vmemexp_needs_cache_ops(buf)) {
		ret = buf->is_ram ? 0 : vmemexp_open_windows(buf);
		if (ret)
			return ret;
		vmemexp_clean_caches(buf, offset, length, keep);
	}
	/* Order this against the doorbell that Linux will ring, or has heard. */
	mb();
	return 0;
}

static int vmemexp_wait_fences(struct dma_buf *dmabuf, bool write)
{
	long ret = dma_resv_wait_timeout(dmabuf->resv, dma_resv_usage_rw(write), true,
					 MAX_SCHEDULE_TIMEOUT);

	return ret < 0 ? ret : 0;
}

/* --- dma_buf_ops: attach --- */

/* Return true if the buffer is one extent in low memory, which has a kernel address already. */
static bool vmemexp_has_kernel_addr(const struct vmemexp_buf *buf)
{
	return buf->is_ram && buf->nr_extents == 1 &&
	       vmemexp_cache(buf->prot_cache) == VMEMEXP_CACHE_CACHED &&
	       !PageHighMem(pfn_to_page(vmemexp_extent_pfn(buf, 0) + buf->npages - 1));
}

/*
 * Return true if the kernel can map the buffer. If not, the dma-buf has the table of
 * operations without vmap, since the core warns about a vmap that fails. The answer is kept
 * in vmemexp_buf.has_vmap: there may be more RAM later, or less.
 */
static bool vmemexp_can_vmap(const struct vmemexp_buf *buf)
{
	/* A kernel mapping would be writable. */
	if (!buf->writable)
		return false;
	/* This may be a device's registers, which speculative reads may upset. */
	if (buf->unlisted)
		return false;
	if (!buf->has_pages && buf->nr_extents > 1)
		return false;
	if (vmemexp_has_kernel_addr(buf))
		return true;
	/*
	 * A 32-bit kernel has few addresses for mappings, no kernel allocates a larger
	 * array of pages, and vmap() takes no more pages than there are in RAM.
	 */
	return vmemexp_size(buf) <= VMALLOC_TOTAL / 4 &&
	       buf->npages <= INT_MAX / sizeof(struct page *) &&
	       (!buf->has_pages || buf->npages <= totalram_pages());
}

/*
 * Return how many of @pages page frames from @pfn on one entry may have. An importer increments
 * the pointer to the first struct page to get the others. Without VMEMMAP, the arrays of two
 * sections need not follow one another, but mostly do.
 */
static unsigned long vmemexp_entry_pages(const struct vmemexp_buf *buf, unsigned long pfn,
					 unsigned long pages)
{
	unsigned long nr;

	if (!buf->has_pages)
		return pages;
	nr = min(pages, VMEMEXP_PAGE_ROOM(pfn));
	while (nr < pages && pfn_to_page(pfn + nr) == pfn_to_page(pfn) + nr)
		nr += min(pages - nr, VMEMEXP_PAGE_ROOM(pfn + nr));
	return nr;
}

/* Return the number of entries that vmemexp_fill_sgt() makes of extent @i. */
static unsigned long vmemexp_count_entries(const struct vmemexp_buf *buf, unsigned long i,
					   unsigned long max_pages)
{
	unsigned long pages = vmemexp_extent_pages(buf, i), pfn = vmemexp_extent_pfn(buf, i);
	unsigned long nr, nents = 0;

	for (; pages; pages -= nr, pfn += nr) {
		nr = vmemexp_entry_pages(buf, pfn, pages);
		nents += DIV_ROUND_UP(nr, max_pages);
	}
	return nents;
}

/*
 * Give contiguous memory to the importer as one entry, since some importers refuse
 * anything else. But no entry may be larger than what the device can map at once, which
 * is 256 KiB if it has to bounce; only RAM bounces. iommu-dma pads entries in 32 bits,
 * so none may come close to 4 GiB.
 */
static int vmemexp_alloc_sgt(const struct vmemexp_buf *buf, struct vmemexp_attachment *at)
{
	size_t max_bytes = SZ_2G;
	unsigned long i, nents = 0;
	bool whole;

	/* A device without a DMA mask cannot map anything. */
	if (buf->is_ram && at->dev->dma_mask)
		max_bytes = min(max_bytes, dma_max_mapping_size(at->dev));
	at->max_pages = max_bytes >> PAGE_SHIFT ?: 1;
	/* Only a larger buffer can have an extent that needs more than one entry. */
	whole = buf->npages <= at->max_pages && VMEMEXP_PAGE_ROOM(0) == ULONG_MAX;
	if (whole)
		nents = buf->nr_extents;
	for (i = 0; !whole && i < buf->nr_extents; i++) {
		nents += vmemexp_count_entries(buf, i, at->max_pages);
		vmemexp_relax(i);
	}
	at->nr_entries = nents;
	return sg_alloc_table(&at->sgt, nents, GFP_KERNEL_ACCOUNT);
}

/*
 * Return false if the buffer lacks a vmap or struct pages, which all exporters in the
 * kernel's tree have. Some importing drivers use them without a check. Root can allow
 * such buffers by map_without_vmap= and map_without_pages=.
 */
static bool vmemexp_is_expected(const struct vmemexp_buf *buf)
{
	return (buf->has_vmap || READ_ONCE(vmemexp_map_without_vmap)) &&
	       (buf->has_pages || READ_ONCE(vmemexp_map_without_pages));
}

static int vmemexp_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct vmemexp_buf *buf = dmabuf->priv;
	struct vmemexp_attachment *at;
	int ret;

	at = kzalloc(sizeof(*at), GFP_KERNEL_ACCOUNT);
	if (!at)
		return -ENOMEM;
	at->dev = attach->dev;
	at->dir = DMA_NONE;
	/*
	 * Check the capability here and not at map: the importer may map on behalf of
	 * another program.
	 */
	at->may_map = vmemexp_is_expected(buf) || capable(CAP_SYS_RAWIO);

	ret = vmemexp_alloc_sgt(buf, at);
	if (ret)
		goto err_free;

	mutex_lock(&buf->lock);
	ret = vmemexp_check_gone(buf);
	if (ret)
		goto err_unlock;
	list_add_tail(&at->node, &buf->attachments);
	mutex_unlock(&buf->lock);
	attach->priv = at;
	return 0;

err_unlock:
	mutex_unlock(&buf->lock);
	sg_free_table(&at->sgt);
err_free:
	kfree(at);
	return ret;
}

/* --- dma_buf_ops: map_dma_buf, unmap_dma_buf, detach --- */

/*
 * Return the entry behind @sg, which is not the last one. Unlike sg_next(), this ignores the
 * end marker, since importers may have moved it.
 */
static struct scatterlist *vmemexp_next_entry(struct scatterlist *sg)
{
	sg++;
	return sg_is_chain(sg) ? sg_chain_ptr(sg) : sg;
}

/*
 * Fill the scatterlist again: importers have edited what they were given the last time.
 * A persistent mapping has one DMA address for each entry.
 */
static void vmemexp_fill_sgt(const struct vmemexp_buf *buf, struct vmemexp_attachment *at)
{
	/* The compiler would read these again for each entry. */
	bool has_pages = buf->has_pages, persistent = at->persistent;
	unsigned long i, end, pfn, pages, chunk, max_pages = at->max_pages, nr = buf->nr_extents;
	const struct vmemexp_extent *extent = buf->extents;
	const u32 *high = buf->high;
	unsigned int left = at->nr_entries;
	struct scatterlist *sg = at->sgt.sgl;
	u64 offset = at->dma_offset;

	at->sgt.orig_nents = left;
	at->sgt.nents = left;
	for (i = 0; i < nr; i++, extent++) {
		pfn = vmemexp_join_pfn(extent, high, i);
		end = i + 1 < nr ? extent[1].start : buf->npages;
		for (pages = end - extent->start; pages; pages -= chunk, pfn += chunk) {
			chunk = min(max_pages, vmemexp_entry_pages(buf, pfn, pages));
			sg_unmark_end(sg);
			/* sg_set_page() looks at the struct pages, and there may be none. */
			sg_assign_page(sg, has_pages ? pfn_to_page(pfn) : NULL);
			sg->offset = 0;
			sg->length = chunk << PAGE_SHIFT;
			if (persistent) {
				sg_dma_address(sg) = PFN_PHYS(pfn) + offset;
				sg_dma_len(sg) = chunk << PAGE_SHIFT;
			}
			if (--left)
				sg = vmemexp_next_entry(sg);
		}
		vmemexp_relax(i);
	}
	sg_mark_end(sg);
}

static void vmemexp_dma_unmap_resources(struct vmemexp_attachment *at, unsigned int nents,
					enum dma_data_direction dir)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(at->sgt.sgl, sg, nents, i) {
		dma_unmap_phys(at->dev, sg_dma_address(sg), sg_dma_len(sg), dir,
			       DMA_ATTR_SKIP_CPU_SYNC | DMA_ATTR_MMIO);
		vmemexp_relax(i);
	}
}

static int vmemexp_dma_map_resources(const struct vmemexp_buf *buf, struct vmemexp_attachment *at,
				     enum dma_data_direction dir)
{
	unsigned long index = 0, extent;
	struct scatterlist *sg;
	phys_addr_t phys;
	dma_addr_t addr;
	unsigned int i;

	for_each_sgtable_sg(&at->sgt, sg, i) {
		extent = vmemexp_find_extent(buf, index);
		phys = vmemexp_extent_phys(buf, extent) +
		       PFN_PHYS(index - buf->extents[extent].start);
		if (!vmemexp_can_map_resource(at->dev, phys, sg->length))
			goto err_unmap;
		addr = dma_map_phys(at->dev, phys, sg->length, dir,
				    DMA_ATTR_SKIP_CPU_SYNC | DMA_ATTR_MMIO);
		if (dma_mapping_error(at->dev, addr))
			goto err_unmap;
		sg_dma_address(sg) = addr;
		sg_dma_len(sg) = sg->length;
		index += sg->length >> PAGE_SHIFT;
		vmemexp_relax(i);
	}
	at->sgt.nents = at->sgt.orig_nents;
	return 0;

err_unmap:
	vmemexp_dma_unmap_resources(at, i, dir);
	return -EIO;
}

/*
 * Return true if the DMA API may copy: dma_max_mapping_size() is only limited for
 * devices that may bounce.
 */
static bool vmemexp_may_bounce(const struct vmemexp_buf *buf, struct device *dev)
{
	return buf->is_ram && dma_max_mapping_size(dev) != SIZE_MAX;
}

/*
 * Return true if @dev can address all of the memory. The DMA API would warn in the
 * kernel log.
 */
static bool vmemexp_can_reach(const struct vmemexp_buf *buf, struct device *dev)
{
	u64 limit = min_not_zero(dma_get_mask(dev), (u64)dev->bus_dma_limit);
	phys_addr_t phys;
	unsigned long i;
	dma_addr_t addr;
	u64 size;

	if (vmemexp_is_translated(dev) || (buf->is_ram && !dma_addressing_limited(dev)))
		return true;
	for (i = 0; i < buf->nr_extents; i++) {
		phys = vmemexp_extent_phys(buf, i);
		size = (u64)vmemexp_extent_pages(buf, i) << PAGE_SHIFT;
		addr = phys_to_dma_unencrypted(dev, phys);
		if (addr == DMA_MAPPING_ERROR || addr > limit || size - 1 > limit - addr)
			return false;
		vmemexp_relax(i);
	}
	return true;
}

/*
 * Return true if caches lie between the CPUs and the device, and the DMA API does not
 * maintain all of them. An IOMMU maps a resource as memory that is not snooped,
 * whatever the device can do.
 */
static bool vmemexp_is_noncoherent(const struct vmemexp_buf *buf,
				   const struct vmemexp_attachment *at)
{
	bool coherent = vmemexp_is_dma_coherent(at->dev);

	if (!VMEMEXP_HAS_CACHES || vmemexp_cache(buf->prot_cache) != VMEMEXP_CACHE_CACHED)
		return false;
	if (buf->is_ram)
		return !coherent && VMEMEXP_HAS_CACHE_OPS;
	return !coherent || (at->resource && vmemexp_is_translated(at->dev));
}

/*
 * Map the scatterlist, without cache maintenance: vmemexp_map_dma_buf() syncs
 * explicitly. The same pages may be mapped for several devices at once. The DMA API
 * takes that for a mistake, unless DMA_ATTR_SKIP_CPU_SYNC tells it that the caller
 * maintains the caches.
 *
 * Even with that attribute, bouncing goes through the linear map. So if memory that is
 * not RAM might bounce, map it as a resource, which is mapped as it is or not at all.
 */
static int vmemexp_dma_map_sgt(struct vmemexp_buf *buf, struct vmemexp_attachment *at,
			       enum dma_data_direction dir)
{
	int ret;

	if (!vmemexp_may_bounce(buf, at->dev) && !vmemexp_can_reach(buf, at->dev))
		return -EIO;
	at->resource = !buf->is_ram &&
		       (!buf->has_pages || dma_max_mapping_size(at->dev) != SIZE_MAX);
	at->noncoherent = vmemexp_is_noncoherent(buf, at);
	if (at->noncoherent && !buf->is_ram) {
		/* An error is better than data that is silently stale. */
		if (!VMEMEXP_HAS_CACHE_OPS)
			return -EOPNOTSUPP;
		ret = vmemexp_open_windows(buf);
		if (ret)
			return ret;
	}
	if (at->resource)
		return vmemexp_dma_map_resources(buf, at, dir);
	/* Bounce buffers may run out. The importer reports that, so do not warn. */
	return dma_map_sgtable(at->dev, &at->sgt, dir, DMA_ATTR_SKIP_CPU_SYNC | DMA_ATTR_NO_WARN);
}

/* Put back the DMA addresses that were mapped: importers may have changed them. */
static void vmemexp_restore_sgt(const struct vmemexp_buf *buf, struct vmemexp_attachment *at)
{
	struct scatterlist *sg = at->sgt.sgl;
	size_t start, end;
	unsigned int i;

	at->sgt.orig_nents = at->nr_entries;
	for (i = 0; i < at->nr_entries; i++) {
		if (i)
			sg = vmemexp_next_entry(sg);
		sg_unmark_end(sg);
		if (i < at->nr_segments) {
			start = vmemexp_segment_offset(at, i);
			end = vmemexp_segment_end(buf, at, i);
			sg_dma_address(sg) = at->segments[i].addr;
			sg_dma_len(sg) = end - start;
		} else {
			sg_dma_address(sg) = 0;
			sg_dma_len(sg) = 0;
		}
		vmemexp_relax(i);
	}
	sg_mark_end(sg);
}

static void vmemexp_forget_dma_map(struct vmemexp_attachment *at)
{
	at->nr_segments = 0;
	at->nr_bounced = 0;
	at->persistent = false;
}

/* Undo vmemexp_dma_map() with the scatterlist as it was then. */
static void vmemexp_undo_dma_map(struct vmemexp_attachment *at)
{
	/* Unmap with the direction of the map, whatever the importer says now. */
	if (at->resource)
		vmemexp_dma_unmap_resources(at, at->nr_segments, at->mapped_dir);
	else if (at->nr_segments)
		dma_unmap_sgtable(at->dev, &at->sgt, at->mapped_dir, DMA_ATTR_SKIP_CPU_SYNC);
	vmemexp_forget_dma_map(at);
}

/* Undo vmemexp_dma_map(), whatever importers have done to the scatterlist. */
static void vmemexp_dma_unmap(const struct vmemexp_buf *buf, struct vmemexp_attachment *at)
{
	/* The mapping was a computation. Only CONFIG_DMA_API_DEBUG keeps a record of it. */
	if (at->persistent && !IS_ENABLED(CONFIG_DMA_API_DEBUG)) {
		vmemexp_forget_dma_map(at);
		return;
	}
	if (at->persistent)
		vmemexp_fill_sgt(buf, at);
	else
		vmemexp_restore_sgt(buf, at);
	vmemexp_undo_dma_map(at);
}

/* Return the number of segments that are not the buffer's memory but copies of it. */
static unsigned int vmemexp_count_bounced(const struct vmemexp_buf *buf,
					  const struct vmemexp_attachment *at)
{
	struct iommu_domain *domain = vmemexp_domain(at->dev);
	unsigned int i, bounced = 0;
	unsigned long extent = 0;
	size_t start;
	phys_addr_t phys;

	if (!buf->is_ram)
		return 0;
	/* An IOMMU's page table is slow to read. */
	if (domain && !buf->overlaps && !vmemexp_may_bounce(buf, at->dev))
		return 0;
	for (i = 0; i < at->nr_segments; i++) {
		start = vmemexp_segment_offset(at, i);
		while (start >= vmemexp_extent_end(buf, extent))
			extent++;
		phys = vmemexp_extent_phys(buf, extent) +
		       (start - vmemexp_extent_offset(buf, extent));
		bounced += vmemexp_dma_to_phys(at->dev, domain, at->segments[i].addr) != phys;
		vmemexp_relax(i);
	}
	return bounced;
}

/*
 * Return true if the DMA API only computes addresses, and syncs do nothing: the device
 * sees memory where it is, with no cache, no copy and no IOMMU between.
 */
static bool vmemexp_is_direct(const struct vmemexp_buf *buf, struct device *dev)
{
	return buf->is_ram && vmemexp_is_dma_coherent(dev) && !get_dma_ops(dev) &&
	       !vmemexp_is_translated(dev) && !dma_addressing_limited(dev) &&
	       !vmemexp_may_bounce(buf, dev);
}

/*
 * Return true if all DMA addresses that a direct device has just got are physical addresses
 * plus one offset, and store that offset. They are not if the device got a copy after all,
 * or if its bus shows parts of the memory at different offsets.
 */
static bool vmemexp_is_linear(struct vmemexp_attachment *at)
{
	struct scatterlist *sg = at->sgt.sgl;
	u64 offset = sg_dma_address(sg) - sg_phys(sg);
	unsigned int i;

	if (at->sgt.nents != at->nr_entries ||
	    vmemexp_dma_to_phys(at->dev, NULL, sg_dma_address(sg)) != sg_phys(sg))
		return false;
	for (i = 1; i < at->nr_entries; i++) {
		sg = vmemexp_next_entry(sg);
		if (sg_dma_address(sg) != (dma_addr_t)(sg_phys(sg) + offset))
			return false;
		vmemexp_relax(i);
	}
	at->dma_offset = offset;
	return true;
}

/* Keep the DMA addresses that were mapped. */
static int vmemexp_keep_segments(const struct vmemexp_buf *buf, struct vmemexp_attachment *at)
{
	unsigned long index = 0;
	struct scatterlist *sg;
	int i;

	if (!at->segments)
		at->segments = kvmalloc_array(at->nr_entries, sizeof(*at->segments),
					      GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!at->segments)
		return -ENOMEM;
	for_each_sgtable_dma_sg(&at->sgt, sg, i) {
		at->segments[i].addr = sg_dma_address(sg);
		at->segments[i].start = index;
		index += sg_dma_len(sg) >> PAGE_SHIFT;
		vmemexp_relax(i);
	}
	at->nr_bounced = vmemexp_count_bounced(buf, at);
	/* If a page is in the buffer twice, its two copies would overwrite each other. */
	return buf->overlaps && at->nr_bounced ? -ENOTUNIQ : 0;
}

/*
 * Map the attachment for DMA. If the device is @direct, the mapping stays, and its DMA
 * addresses are known; for others, keep them as the segments.
 */
static int vmemexp_dma_map(struct vmemexp_buf *buf, struct vmemexp_attachment *at,
			   enum dma_data_direction dir, bool direct)
{
	int ret;

	/* Devices on slow buses do no DMA. Their drivers map, and use no DMA address. */
	if (!at->dev->dma_mask) {
		at->resource = false;
		at->sgt.nents = 0;
		return 0;
	}
	/* A mapping that stays has to serve later maps, in all directions. */
	if (direct && buf->writable)
		dir = DMA_BIDIRECTIONAL;
	ret = vmemexp_dma_map_sgt(buf, at, dir);
	if (ret)
		return ret;
	at->mapped_dir = dir;
	at->nr_segments = at->sgt.nents;
	if (direct && vmemexp_is_linear(at)) {
		at->persistent = true;
		return 0;
	}
	ret = vmemexp_keep_segments(buf, at);
	if (ret)
		vmemexp_undo_dma_map(at);
	return ret;
}

/*
 * Return true if a sync has anything to do for the device. It has not if the device does
 * no DMA, if nothing lies between it and memory, or if the memory is no RAM, which the
 * DMA API does not sync, and the device snoops the caches.
 */
static bool vmemexp_needs_sync(const struct vmemexp_buf *buf, const struct vmemexp_attachment *at)
{
	return at->nr_segments && !at->persistent && (buf->is_ram || at->noncoherent);
}

static void vmemexp_count_mapped(struct vmemexp_buf *buf, struct vmemexp_attachment *at,
				 enum dma_data_direction dir)
{
	at->dir = dir;
	at->needs_sync = vmemexp_needs_sync(buf, at);
	buf->nr_mapped++;
	buf->nr_to_sync += at->needs_sync;
}

/* An importer may unmap an attachment that it has not mapped: ignore that. */
static void vmemexp_count_unmapped(struct vmemexp_buf *buf, struct vmemexp_attachment *at)
{
	if (at->dir == DMA_NONE)
		return;
	buf->nr_mapped--;
	buf->nr_to_sync -= at->needs_sync;
	at->needs_sync = false;
	at->dir = DMA_NONE;
}

static struct sg_table *vmemexp_map_dma_buf(struct dma_buf_attachment *attach,
					    enum dma_data_direction dir)
{
	struct vmemexp_buf *buf = attach->dmabuf->priv;
	struct vmemexp_attachment *at = attach->priv;
	bool direct;
	int ret;

	if (!buf->writable && dir != DMA_TO_DEVICE)
		return ERR_PTR(-EACCES);
	if (!at->may_map)
		return ERR_PTR(-EPERM);

	mutex_lock(&buf->lock);
	ret = vmemexp_check_gone(buf);
	if (ret)
		goto err_unlock;
	if (at->dir != DMA_NONE) {
		ret = -EBUSY;
		goto err_unlock;
	}
	/* Ask at each map: the device's driver may have changed its DMA mask. */
	direct = vmemexp_is_direct(buf, at->dev);
	if (at->persistent && !direct)
		vmemexp_dma_unmap(buf, at);
	vmemexp_fill_sgt(buf, at);
	if (!at->persistent) {
		ret = vmemexp_dma_map(buf, at, dir, direct);
		if (ret)
			goto err_unlock;
	}
	vmemexp_count_mapped(buf, at, dir);
	if (at->needs_sync)
		vmemexp_sync_attachment(buf, at, 0, vmemexp_size(buf), dir, false);
	if (dir != DMA_TO_DEVICE)
		WRITE_ONCE(buf->dirty, true);
	trace_vmemexp_map(buf, at);
	mutex_unlock(&buf->lock);
	return &at->sgt;

err_unlock:
	mutex_unlock(&buf->lock);
	return ERR_PTR(ret);
}

static void vmemexp_unmap_dma_buf(struct dma_buf_attachment *attach, struct sg_table *sgt,
				  enum dma_data_direction dir)
{
	struct vmemexp_buf *buf = attach->dmabuf->priv;
	struct vmemexp_attachment *at = attach->priv;

	mutex_lock(&buf->lock);
	trace_vmemexp_unmap(buf, at);
	if (at->needs_sync)
		vmemexp_sync_attachment(buf, at, 0, vmemexp_size(buf), at->dir, true);
	if (!at->persistent || buf->revoked)
		vmemexp_dma_unmap(buf, at);
	vmemexp_count_unmapped(buf, at);
	if (buf->revoked)
		mod_delayed_work(vmemexp_wq, &buf->work, 0);
	mutex_unlock(&buf->lock);
}

static void vmemexp_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct vmemexp_buf *buf = dmabuf->priv;
	struct vmemexp_attachment *at = attach->priv;

	mutex_lock(&buf->lock);
	/* An importer may have forgotten to unmap. */
	if (at->persistent || at->dir != DMA_NONE)
		vmemexp_dma_unmap(buf, at);
	vmemexp_count_unmapped(buf, at);
	list_del(&at->node);
	if (buf->revoked)
		mod_delayed_work(vmemexp_wq, &buf->work, 0);
	mutex_unlock(&buf->lock);
	kvfree(at->segments);
	at->sgt.orig_nents = at->nr_entries;
	sg_free_table(&at->sgt);
	kfree(at);
}

/* --- dma_buf_ops: begin_cpu_access, end_cpu_access --- */

static void vmemexp_trace_access(const struct vmemexp_buf *buf, enum dma_data_direction access,
				 u32 flags)
{
	struct vmemexp_sync sync = { .flags = flags, .rows = 1, .length = vmemexp_size(buf) };

	if (access != DMA_TO_DEVICE)
		sync.flags |= VMEMEXP_SYNC_READ;
	if (access != DMA_FROM_DEVICE)
		sync.flags |= VMEMEXP_SYNC_WRITE;
	trace_vmemexp_sync(buf, &sync, buf->nr_mapped);
}

/*
 * Take the lock for begin_cpu_access. The core waits for fences after it. That is too late
 * for a bounce buffer, which begin_cpu_access copies, so wait before if there is anything
 * to sync.
 */
static int vmemexp_lock_for_cpu(struct vmemexp_buf *buf, struct dma_buf *dmabuf, bool write)
{
	int ret = mutex_lock_interruptible(&buf->lock);

	if (ret || !buf->nr_to_sync)
		return ret;
	mutex_unlock(&buf->lock);
	ret = vmemexp_wait_fences(dmabuf, write);
	return ret ?: mutex_lock_interruptible(&buf->lock);
}

static int vmemexp_begin_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction access)
{
	struct vmemexp_buf *buf = dmabuf->priv;
	int ret = vmemexp_lock_for_cpu(buf, dmabuf, access != DMA_FROM_DEVICE);

	if (ret)
		return ret;
	if (!vmemexp_is_gone(buf)) {
		vmemexp_sync_for_cpu(buf, 0, vmemexp_size(buf));
		if (trace_vmemexp_sync_enabled())
			vmemexp_trace_access(buf, access, VMEMEXP_SYNC_START);
	}
	/* Its driver may have taken the memory away before all of it was synced. */
	ret = vmemexp_check_gone(buf);
	mutex_unlock(&buf->lock);
	return ret;
}

/* Do not let signals interrupt this: in-kernel callers do not expect the end to fail. */
static int vmemexp_end_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction access)
{
	struct vmemexp_buf *buf = dmabuf->priv;

	mutex_lock(&buf->lock);
	vmemexp_sync_for_device(buf, 0, vmemexp_size(buf), access);
	if (trace_vmemexp_sync_enabled())
		vmemexp_trace_access(buf, access, VMEMEXP_SYNC_END);
	mutex_unlock(&buf->lock);
	return 0;
}

/* --- dma_buf_ops: mmap and faults --- */

/*
 * Importers that forward their mmap use vm_private_data. The file is the dma-buf's in
 * any case.
 */
static struct vmemexp_buf *vmemexp_vma_buf(const struct vm_area_struct *vma)
{
	struct dma_buf *dmabuf = vma->vm_file->private_data;

	return dmabuf->priv;
}

/*
 * A fork reads huge entries without a lock, and could give the child one that a revoke
 * has cleared meanwhile. VM_WIPEONFORK makes it copy none: the child faults them in. A
 * fork opens the new VMA before it looks at this flag there.
 */
static void vmemexp_vma_open(struct vm_area_struct *vma)
{
	if (VMEMEXP_HAS_HUGE_FAULTS)
		vmemexp_vm_flags_mod(vma, VM_WIPEONFORK, 0);
	atomic_inc(&vmemexp_vma_buf(vma)->cpu_mappings);
}

static void vmemexp_vma_close(struct vm_area_struct *vma)
{
	atomic_dec(&vmemexp_vma_buf(vma)->cpu_mappings);
}

/*
 * The state of a fill: the next page is @pfn, the first of @left pages in @extent. @prot is
 * computed again, since mm/ may have dropped the cache attribute from the mapping's
 * protection.
 */
struct vmemexp_fill {
	const struct vmemexp_buf *buf;
	struct vm_area_struct *vma;
	pgprot_t prot;
	unsigned long extent;
	unsigned long pfn;
	unsigned long left;
};

/* Return the next page frame. */
static unsigned long vmemexp_fill_next(struct vmemexp_fill *fill)
{
	if (!fill->left) {
		fill->extent++;
		fill->pfn = vmemexp_extent_pfn(fill->buf, fill->extent);
		fill->left = vmemexp_extent_pages(fill->buf, fill->extent);
	}
	fill->left--;
	return fill->pfn++;
}

/* Return true if all of @vma shows a part of the buffer. */
static bool vmemexp_is_inside(const struct vmemexp_buf *buf, struct vm_area_struct *vma)
{
	return vma->vm_pgoff <= buf->npages && vma_pages(vma) <= buf->npages - vma->vm_pgoff;
}

/* Return true if all of the memory is write-back. Memory that a driver mapped need not be. */
static bool vmemexp_is_plain(const struct vmemexp_buf *buf)
{
	return !(buf->memory & (VMEMEXP_MEMORY_DRIVER | VMEMEXP_MEMORY_PFNMAP)) &&
	       vmemexp_cache(buf->prot_cache) == VMEMEXP_CACHE_CACHED;
}

static int vmemexp_fill_pte(pte_t *pte, unsigned long addr, void *data)
{
	struct vmemexp_fill *fill = data;
	unsigned long pfn = vmemexp_fill_next(fill);

	/* Another thread may have filled the entry meanwhile. */
	if (pte_none(*pte))
		vmemexp_set_pte(fill->vma, addr, pte, pfn, fill->prot);
	return 0;
}

/*
 * Ordinary memory is write-back, so set its entries without the PAT lookup that x86
 * makes in vmf_insert_pfn_prot() and remap_pfn_range(), for each page. For 32 MiB of 4
 * KiB pages, mmap, first touch and munmap took 7.1 million instructions with
 * remap_pfn_range() for each extent, and take a sixth of that with this: see
 * mmap+touch+munmap in Documentation/performance.rst.
 */
static vm_fault_t vmemexp_fill_ptes(struct vmemexp_fill *fill, unsigned long addr,
				    unsigned long end)
{
	if (apply_to_page_range(fill->vma->vm_mm, addr, end - addr, vmemexp_fill_pte, fill))
		return VM_FAULT_OOM;
	return VM_FAULT_NOPAGE;
}

static vm_fault_t vmemexp_fill_range(struct vmemexp_fill *fill, unsigned long addr,
				     unsigned long end)
{
	struct vm_area_struct *vma = fill->vma;
	vm_fault_t ret = VM_FAULT_NOPAGE;

	if (VMEMEXP_CAN_SET_PTES && vmemexp_is_plain(fill->buf))
		return vmemexp_fill_ptes(fill, addr, end);
	for (; addr < end && ret == VM_FAULT_NOPAGE; addr += PAGE_SIZE)
		ret = vmf_insert_pfn_prot(vma, addr, vmemexp_fill_next(fill), fill->prot);
	return ret;
}

/* Return the page frame for @addr. Set @i to its extent and @left to the pages left in it. */
static unsigned long vmemexp_pfn_at(const struct vmemexp_buf *buf, struct vm_area_struct *vma,
				    unsigned long addr, unsigned long *i, unsigned long *left)
{
	unsigned long index = vma->vm_pgoff + ((addr - vma->vm_start) >> PAGE_SHIFT), skip;

	*i = vmemexp_find_extent(buf, index);
	skip = index - buf->extents[*i].start;
	*left = vmemexp_extent_pages(buf, *i) - skip;
	return vmemexp_extent_pfn(buf, *i) + skip;
}

static void vmemexp_fill_start(struct vmemexp_fill *fill, unsigned long addr)
{
	fill->pfn = vmemexp_pfn_at(fill->buf, fill->vma, addr, &fill->extent, &fill->left);
}

/*
 * Return the first page frame of the huge entry that can map @addr, or 0 if only small
 * entries can. A huge entry must lie inside of the mapping, and inside of one extent, at an
 * aligned page frame.
 */
static unsigned long vmemexp_huge_pfn(const struct vmemexp_buf *buf, struct vm_area_struct *vma,
				      unsigned long addr)
{
	unsigned long first = ALIGN_DOWN(addr, PMD_SIZE), pfn, i, left;
	pgprot_t prot = vmemexp_prot_with_cache(vma->vm_page_prot, buf->prot_cache);

	if (!VMEMEXP_HAS_HUGE_FAULTS || first < vma->vm_start || vma->vm_end - first < PMD_SIZE)
		return 0;
	/* mm/ takes the protection from the mapping, and may have dropped the cache bits there. */
	if (!vmemexp_is_plain(buf) || pgprot_val(prot) != pgprot_val(vma->vm_page_prot))
		return 0;
	/* An importer's driver could have changed the flags, which mm/ does not expect. */
	if ((vma->vm_flags & (VM_PFNMAP | VM_MIXEDMAP)) != VM_PFNMAP || userfaultfd_armed(vma))
		return 0;
	pfn = vmemexp_pfn_at(buf, vma, first, &i, &left);
	return left >= PTRS_PER_PTE && IS_ALIGNED(pfn, PTRS_PER_PTE) ? pfn : 0;
}

/*
 * A thread that faults in a huge entry, and one that faults in small entries at the same
 * addresses, must not run at the same time: the kernel warns if either finds the other's.
 * Both threads belong to one mm, so hash the mm to one lock. There are 64, because a page
 * table is allocated under the lock, and other mms should not wait for that.
 */
static struct mutex vmemexp_tables_locks[64];

static struct mutex *vmemexp_tables_lock(const struct mm_struct *mm)
{
	return &vmemexp_tables_locks[hash_ptr((void *)mm, ilog2(ARRAY_SIZE(vmemexp_tables_locks)))];
}

/*
 * Fill one step of a mapping. A revoke of any buffer waits for the end of this, so it
 * must be short.
 */
static vm_fault_t vmemexp_fill_step(struct vmemexp_fill *fill, unsigned long addr,
				    unsigned long end)
{
	struct mm_struct *mm = fill->vma->vm_mm;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	struct mutex *lock = NULL;
	int srcu;

	vmemexp_fill_start(fill, addr);
	if (vmemexp_huge_pfn(fill->buf, fill->vma, addr)) {
		lock = vmemexp_tables_lock(mm);
		if (mutex_lock_killable(lock))
			return ret;
	}
	srcu = srcu_read_lock(&vmemexp_faults);
	/* Another fault may have put a huge entry there, which maps these pages already. */
	if (vmemexp_has_pmd(mm, addr))
		ret = VM_FAULT_NOPAGE;
	else if (!vmemexp_is_gone(fill->buf))
		ret = vmemexp_fill_range(fill, addr, end);
	srcu_read_unlock(&vmemexp_faults, srcu);
	if (lock)
		mutex_unlock(lock);
	return ret;
}

/* A fault fills no more than this, so that nothing waits long for its end. */
#define VMEMEXP_FILL_SIZE	SZ_64M
#define VMEMEXP_FILL_STEP	SZ_2M

/*
 * Fill the mapping around @addr, to avoid a fault for each page. Fill the page that was
 * touched first: if a signal kills the process, the rest is left out. If @small, the kernel
 * asks for no huge entries.
 */
static vm_fault_t vmemexp_fill_vma(const struct vmemexp_buf *buf, struct vm_area_struct *vma,
				   unsigned long addr, bool small)
{
	unsigned long first = ALIGN_DOWN(addr, VMEMEXP_FILL_SIZE);
	unsigned long last = min(first + (VMEMEXP_FILL_SIZE - 1), vma->vm_end - 1);
	struct vmemexp_fill fill = {
		.buf = buf, .vma = vma,
		.prot = vmemexp_prot_with_cache(vma->vm_page_prot, buf->prot_cache),
	};
	unsigned long at, next;
	vm_fault_t ret;

	addr = ALIGN_DOWN(addr, PAGE_SIZE);
	ret = vmemexp_fill_step(&fill, addr, addr + PAGE_SIZE);
	if (ret != VM_FAULT_NOPAGE)
		return ret;

	/* Nothing needs the rest yet. If this fails, a later fault reports it. */
	for (at = max(first, vma->vm_start); ret == VM_FAULT_NOPAGE && at <= last; at = next) {
		if (fatal_signal_pending(current))
			break;
		next = min(ALIGN_DOWN(at, VMEMEXP_FILL_STEP) + (VMEMEXP_FILL_STEP - 1), last) + 1;
		/* Leave addresses to a huge entry that may have one. */
		if (small || ALIGN_DOWN(at, PMD_SIZE) == ALIGN_DOWN(addr, PMD_SIZE) ||
		    !vmemexp_huge_pfn(buf, vma, at))
			ret = vmemexp_fill_step(&fill, at, next);
		cond_resched();
	}
	return VM_FAULT_NOPAGE;
}

/*
 * Some drivers fault while they map. A revoke cannot find the mapping then, so fill
 * nothing.
 */
static bool vmemexp_is_linked(const struct vm_area_struct *vma)
{
	return vma_lookup(vma->vm_mm, vma->vm_start) == vma;
}

static vm_fault_t vmemexp_vm_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	const struct vmemexp_buf *buf = vmemexp_vma_buf(vma);
	bool small;

	if (!vmemexp_is_linked(vma))
		return VM_FAULT_NOPAGE;
	/*
	 * An importer's driver could have moved the mapping. And some kernels let userfaultfd put
	 * marks into the page table, which no fault replaces.
	 */
	if (!vmemexp_is_inside(buf, vma) || userfaultfd_armed(vma))
		return VM_FAULT_SIGBUS;
	/* The kernel would have asked for a huge entry first. */
	small = vmemexp_huge_pfn(buf, vma, vmf->address) && pmd_none(READ_ONCE(*vmf->pmd));
	return vmemexp_fill_vma(buf, vma, vmf->address, small);
}

#if VMEMEXP_HAS_HUGE_FAULTS
/* The kernel asks for small entries if this falls back. */
static vm_fault_t vmemexp_vm_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	const struct vmemexp_buf *buf = vmemexp_vma_buf(vma);
	struct mutex *lock = vmemexp_tables_lock(vma->vm_mm);
	vm_fault_t ret = VM_FAULT_SIGBUS;
	unsigned long pfn;
	pmd_t pmd;
	int srcu;

	if (order != PMD_ORDER || !vmemexp_is_linked(vma) || !vmemexp_is_inside(buf, vma))
		return VM_FAULT_FALLBACK;
	pfn = vmemexp_huge_pfn(buf, vma, vmf->address);
	if (!pfn)
		return VM_FAULT_FALLBACK;
	if (mutex_lock_killable(lock))
		return ret;
	srcu = srcu_read_lock(&vmemexp_faults);
	pmd = READ_ONCE(*vmf->pmd);
	/* Another thread may have filled in small entries meanwhile: those will do. */
	if (!pmd_none(pmd) && !pmd_leaf(pmd))
		ret = VM_FAULT_NOPAGE;
	else if (!vmemexp_is_gone(buf))
		ret = vmemexp_insert_pmd(vmf, pfn);
	srcu_read_unlock(&vmemexp_faults, srcu);
	mutex_unlock(lock);
	return ret;
}
#endif

static const struct vm_operations_struct vmemexp_vm_ops = {
	.open = vmemexp_vma_open,
	.close = vmemexp_vma_close,
	.fault = vmemexp_vm_fault,
#if VMEMEXP_HAS_HUGE_FAULTS
	.huge_fault = vmemexp_vm_huge_fault,
#endif
};

/* PAT tracks non-RAM only while a mapping reserves it. Keep one that does. */
static int vmemexp_keep_caching(struct vmemexp_buf *buf)
{
	int ret = 0;

	if (!IS_ENABLED(CONFIG_X86) || buf->is_ram)
		return 0;
	mutex_lock(&buf->lock);
	/* Do not try again: the kernel logs a conflict if another type is reserved by now. */
	if (buf->caching_lost)
		ret = -ENOMEM;
	else if (!buf->dropped)
		ret = vmemexp_open_windows(buf);
	mutex_unlock(&buf->lock);
	return ret;
}

static int vmemexp_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct vmemexp_buf *buf = dmabuf->priv;
	int ret;

	/* The core checks this before. Beyond the end, there are no extents to look at. */
	if (!vmemexp_is_inside(buf, vma))
		return -EINVAL;
	/*
	 * mm/ cannot copy page frames that it does not count, so there are no private
	 * mappings.
	 */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (!buf->writable && vma->vm_flags & VM_WRITE)
		return -EACCES;
	/* The buffer may be revoked after this check: a fault checks again. */
	ret = vmemexp_check_gone(buf) ?: vmemexp_keep_caching(buf);
	if (ret)
		return ret;

	/* VM_MAYWRITE comes from the file, which may be an importer's, open for writing. */
	if (!buf->writable)
		vmemexp_vm_flags_mod(vma, 0, VM_MAYWRITE);
	vmemexp_vm_flags_mod(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP, 0);
	vma->vm_page_prot = vmemexp_prot_with_cache(vma->vm_page_prot, buf->prot_cache);

	vma->vm_ops = &vmemexp_vm_ops;
	vmemexp_vma_open(vma);
	if (vma->vm_flags & VM_MAYWRITE)
		WRITE_ONCE(buf->dirty, true);
	return 0;
}

/* --- dma_buf_ops: vmap, vunmap --- */

/*
 * Do not charge this to the caller's cgroup: its limit would make vmap fail, and the
 * core warns about that.
 */
static struct page **vmemexp_alloc_vmap_array(const struct vmemexp_buf *buf)
{
	return kvmalloc_array(buf->npages, sizeof(struct page *), GFP_KERNEL | __GFP_NOWARN);
}

/* Fill in the pages of the buffer. Its cost for each page adds to that of vmap(). */
static void vmemexp_fill_vmap_array(const struct vmemexp_buf *buf, struct page **pages)
{
	unsigned long i, pfn = 0, next = 0, extent = 0, npages = buf->npages;

	for (i = 0; i < npages; i++, pfn++) {
		if (i == next) {
			pfn = vmemexp_extent_pfn(buf, extent);
			next += vmemexp_extent_pages(buf, extent++);
		}
		pages[i] = pfn_to_page(pfn);
		vmemexp_relax(i);
	}
}

static void *vmemexp_vmap_pages(const struct vmemexp_buf *buf, pgprot_t prot)
{
	struct page **pages = vmemexp_alloc_vmap_array(buf);
	void *vaddr;

	if (!pages)
		return NULL;
	vmemexp_fill_vmap_array(buf, pages);
	vaddr = vmap(pages, buf->npages, VM_MAP, prot);
	kvfree(pages);
	return vaddr;
}

static void *vmemexp_kernel_map(const struct vmemexp_buf *buf)
{
	u32 cache = vmemexp_cache(buf->prot_cache);
	unsigned long pfn = vmemexp_extent_pfn(buf, 0);

	if (!buf->has_pages)
		return vmemexp_remap(PFN_PHYS(pfn), vmemexp_size(buf), cache);
	if (vmemexp_has_kernel_addr(buf))
		return page_address(pfn_to_page(pfn));
	return vmemexp_vmap_pages(buf, vmemexp_kernel_prot(cache));
}

static void vmemexp_kernel_unmap(const struct vmemexp_buf *buf, void *vaddr)
{
	if (!buf->has_pages)
		memunmap(vaddr);
	else if (is_vmalloc_addr(vaddr))
		vunmap(vaddr);
}

/*
 * Map one page of zeroes, again and again, instead of the memory of a revoked buffer.
 * The core warns about a vmap that fails, and some drivers do not expect it.
 */
static void *vmemexp_vmap_blank(struct vmemexp_buf *buf)
{
	struct page **pages, *blank;
	void *vaddr = NULL;
	unsigned long i;

	pages = vmemexp_alloc_vmap_array(buf);
	if (!pages)
		return NULL;
	blank = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!blank)
		goto free_pages;
	for (i = 0; i < buf->npages; i++) {
		pages[i] = blank;
		vmemexp_relax(i);
	}
	vaddr = vmap(pages, buf->npages, VM_MAP, PAGE_KERNEL);
	if (!vaddr)
		__free_page(blank);
	buf->blank = vaddr;
free_pages:
	kvfree(pages);
	return vaddr;
}

static void vmemexp_vunmap_blank(struct vmemexp_buf *buf)
{
	struct page *blank = vmalloc_to_page(buf->vaddr);

	vunmap(buf->vaddr);
	__free_page(blank);
	buf->blank = false;
}

/* The core counts the users of the kernel mapping, and calls this for the first one only. */
static int vmemexp_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct vmemexp_buf *buf = dmabuf->priv;
	void *vaddr;

	mutex_lock(&buf->lock);
	if (vmemexp_is_gone(buf)) {
		vaddr = vmemexp_vmap_blank(buf);
	} else {
		vaddr = vmemexp_kernel_map(buf);
		WRITE_ONCE(buf->dirty, true);
	}
	buf->vaddr = vaddr;
	mutex_unlock(&buf->lock);
	if (!vaddr)
		return -ENOMEM;
	iosys_map_set_vaddr(map, vaddr);
	return 0;
}

static void vmemexp_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct vmemexp_buf *buf = dmabuf->priv;

	mutex_lock(&buf->lock);
	if (buf->blank)
		vmemexp_vunmap_blank(buf);
	else
		vmemexp_kernel_unmap(buf, buf->vaddr);
	buf->vaddr = NULL;
	if (buf->revoked)
		mod_delayed_work(vmemexp_wq, &buf->work, 0);
	mutex_unlock(&buf->lock);
}

VMEMEXP_LEGACY_VMAP_OPS(vmemexp_vmap, vmemexp_vunmap);

/* --- dma_buf_ops: release, and the tables of operations --- */

static void vmemexp_put_buf(struct vmemexp_buf *buf)
{
	if (!refcount_dec_and_test(&buf->refs))
		return;
	/*
	 * Pairs with the barrier in wait_var_event(). The buffer may be freed by now:
	 * wake_up_var() uses its address only.
	 */
	smp_mb();
	wake_up_var(&buf->refs);
}

static void vmemexp_release(struct dma_buf *dmabuf)
{
	struct vmemexp_buf *buf = dmabuf->priv;

	trace_vmemexp_release(buf);
	mutex_lock(&vmemexp_buffers_lock);
	rb_erase(&buf->node, &vmemexp_buffers);
	mutex_unlock(&vmemexp_buffers_lock);
	/* Wait for revokes of the buffer that are running, and for readers of the list. */
	vmemexp_put_buf(buf);
	wait_var_event(&buf->refs, !refcount_read(&buf->refs));
	/* Pairs with the release in refcount_dec_and_test(). */
	smp_acquire__after_ctrl_dep();
	vmemexp_destroy_later(buf);
}

static const struct dma_buf_ops vmemexp_dma_buf_ops = {
	.attach = vmemexp_attach,
	.detach = vmemexp_detach,
	.map_dma_buf = vmemexp_map_dma_buf,
	.unmap_dma_buf = vmemexp_unmap_dma_buf,
	.begin_cpu_access = vmemexp_begin_cpu_access,
	.end_cpu_access = vmemexp_end_cpu_access,
	.mmap = vmemexp_mmap,
	.vmap = vmemexp_vmap_op,
	.vunmap = vmemexp_vunmap_op,
	.release = vmemexp_release,
};

/*
 * For buffers that the kernel must not map: the core warns about a vmap that exists and
 * fails.
 */
static const struct dma_buf_ops vmemexp_no_vmap_dma_buf_ops = {
	.attach = vmemexp_attach,
	.detach = vmemexp_detach,
	.map_dma_buf = vmemexp_map_dma_buf,
	.unmap_dma_buf = vmemexp_unmap_dma_buf,
	.begin_cpu_access = vmemexp_begin_cpu_access,
	.end_cpu_access = vmemexp_end_cpu_access,
	.mmap = vmemexp_mmap,
	.release = vmemexp_release,
};

/* Return the buffer behind @dmabuf, or NULL if another driver exported it. */
static struct vmemexp_buf *vmemexp_buf_of(const struct dma_buf *dmabuf)
{
	if (dmabuf->ops != &vmemexp_dma_buf_ops && dmabuf->ops != &vmemexp_no_vmap_dma_buf_ops)
		return NULL;
	return dmabuf->priv;
}

static struct dma_buf *vmemexp_get_dmabuf(int fd)
{
	struct dma_buf *dmabuf = dma_buf_get(fd);

	if (IS_ERR(dmabuf))
		return dmabuf;
	if (!vmemexp_buf_of(dmabuf)) {
		dma_buf_put(dmabuf);
		return ERR_PTR(-EINVAL);
	}
	return dmabuf;
}

/* --- revoke: take the memory back from all holders --- */

/*
 * Undo persistent mappings of devices that do not have the buffer mapped: none maps it
 * again.
 */
static void vmemexp_dma_unmap_persistent(struct vmemexp_buf *buf)
{
	struct vmemexp_attachment *at;

	lockdep_assert_held(&buf->lock);

	list_for_each_entry(at, &buf->attachments, node)
		if (at->persistent && at->dir == DMA_NONE)
			vmemexp_dma_unmap(buf, at);
}

/*
 * Take the buffer away from its users, for the administrator, or for the driver that
 * mapped the page frames.
 *
 * A fault that has not seen the flag has filled its page tables when synchronize_srcu()
 * returns, and later ones fill nothing. So unmap_mapping_range() finds every mapping.
 * An importer that the core cannot notify, or that is slow, keeps the pages pinned until it
 * unmaps. Put the file at once: its driver may itself be the importer, and this reference
 * would then keep both alive for ever. Page frames are reserved for good, so they do not
 * depend on it.
 */
static int vmemexp_revoke_buf(struct vmemexp_buf *buf, bool interruptible)
{
	struct dma_buf *dmabuf = buf->dmabuf;
	struct file *file;
	bool emptied;
	int ret;

	mutex_lock(&buf->lock);
	WRITE_ONCE(buf->revoked, true);
	emptied = buf->emptied;
	mutex_unlock(&buf->lock);
	if (emptied)
		return 0;

	synchronize_srcu(&vmemexp_faults);
	unmap_mapping_range(buf->inode->i_mapping, 0, 0, 1);

	ret = interruptible ? dma_resv_lock_interruptible(dmabuf->resv, NULL) :
			      dma_resv_lock(dmabuf->resv, NULL);
	if (ret)
		return ret;
	dma_buf_invalidate_mappings(dmabuf);
	dma_resv_unlock(dmabuf->resv);

	mutex_lock(&buf->lock);
	vmemexp_dma_unmap_persistent(buf);
	buf->emptied = true;
	file = buf->file;
	buf->file = NULL;
	mutex_unlock(&buf->lock);
	if (file)
		fput(file);
	return 0;
}

/*
 * Copy the fences that a revoked buffer has. Return the copy, which stays until the release, or
 * NULL if memory has run out: the next poll tries again. A revoke may do this while the work
 * does: the first copy counts.
 */
static struct dma_resv *vmemexp_copy_fences(struct vmemexp_buf *buf)
{
	struct dma_resv *copy = vmemexp_alloc_fences(), *fences;
	int ret;

	if (!copy)
		return NULL;
	dma_resv_lock(copy, NULL);
	ret = dma_resv_copy_fences(copy, buf->dmabuf->resv);
	dma_resv_unlock(copy);
	mutex_lock(&buf->lock);
	if (!ret && !buf->fences)
		swap(buf->fences, copy);
	fences = buf->fences;
	mutex_unlock(&buf->lock);
	vmemexp_free_fences(copy);
	return fences;
}

/*
 * Return true if the devices that unmapped a revoked buffer have finished. Only fences
 * count that are there when the last device unmaps: any program with a descriptor can
 * add more.
 */
static bool vmemexp_is_idle(struct vmemexp_buf *buf)
{
	struct dma_resv *fences;

	mutex_lock(&buf->lock);
	fences = buf->fences;
	mutex_unlock(&buf->lock);
	if (!fences)
		fences = vmemexp_copy_fences(buf);
	return fences && dma_resv_wait_timeout(fences, VMEMEXP_RESV_USAGE_ALL, false, 0) > 0;
}

/*
 * Release the memory of a revoked buffer if nothing uses it. An importer that was notified
 * may unmap while its device still works: fences signal when the device has finished.
 * Return false if they are not signalled yet.
 */
static bool vmemexp_put_unused_memory(struct vmemexp_buf *buf)
{
	bool unused;

	mutex_lock(&buf->lock);
	unused = buf->emptied && !buf->dropped && !vmemexp_is_in_use(buf);
	mutex_unlock(&buf->lock);
	/*
	 * A revoked buffer gets no new users. When the last one unmaps or vunmaps, it
	 * queues the work.
	 */
	if (!unused)
		return true;
	if (!vmemexp_is_idle(buf))
		return false;
	vmemexp_put_memory(buf);
	return true;
}

/* Do the work that the notifier, or a function that holds locks, cannot do itself. */
static void vmemexp_work(struct work_struct *work)
{
	struct vmemexp_buf *buf = container_of(to_delayed_work(work), struct vmemexp_buf, work);
	bool exported;

	/* Leaving the mm may take long, so it has a work item of its own. */
	if (READ_ONCE(buf->orphaned) && READ_ONCE(buf->mm))
		vmemexp_leave_mm_later(buf->user);

	mutex_lock(&buf->lock);
	exported = buf->dmabuf && refcount_inc_not_zero(&buf->refs);
	mutex_unlock(&buf->lock);
	/*
	 * If there is no dma-buf yet, the export checks the flags itself. If it is gone
	 * already, there is nothing to do.
	 */
	if (!exported)
		return;
	if (vmemexp_is_gone(buf))
		vmemexp_revoke_buf(buf, false);
	if (!vmemexp_put_unused_memory(buf))
		queue_delayed_work(vmemexp_wq, &buf->work, VMEMEXP_FENCE_INTERVAL);
	vmemexp_put_buf(buf);
}

/* --- the state of a buffer, as ioctls report it --- */

/* Return the VMEMEXP_STATE_* bits, except for those that depend on attachments. */
static u32 vmemexp_state(const struct vmemexp_buf *buf)
{
	u32 state = IS_ENABLED(CONFIG_MMU_NOTIFIER) ? VMEMEXP_STATE_TRACKED : 0;

	if (READ_ONCE(buf->stale))
		state |= VMEMEXP_STATE_STALE;
	if (!buf->has_vmap)
		state |= VMEMEXP_STATE_NO_VMAP;
	if (!buf->has_pages)
		state |= VMEMEXP_STATE_NO_PAGES;
	if (buf->overlaps)
		state |= VMEMEXP_STATE_OVERLAPS;
	if (vmemexp_is_gone(buf))
		state |= VMEMEXP_STATE_REVOKED;
	return state;
}

/* --- VMEMEXP_IOC_EXPORT --- */

/*
 * A request for an export: a kernel copy of the ranges, whose addresses have no tags, and the
 * flags of struct vmemexp_export.
 */
struct vmemexp_request {
	struct vmemexp_range *ranges;
	unsigned int nr_ranges;
	u32 flags;
	u32 fd_flags;
};

static bool vmemexp_wants_write(const struct vmemexp_request *request)
{
	return (request->fd_flags & O_ACCMODE) == O_RDWR;
}

/* Check all but the ranges themselves. */
static int vmemexp_check_export(const struct vmemexp_export *arg, struct vmemexp_error *error)
{
	if (arg->flags & ~(VMEMEXP_EXPORT_UNALIGNED | VMEMEXP_EXPORT_CONTIGUOUS) ||
	    arg->fd_flags & ~(O_ACCMODE | O_CLOEXEC) || arg->reserved ||
	    ((arg->fd_flags & O_ACCMODE) != O_RDWR && (arg->fd_flags & O_ACCMODE) != O_RDONLY))
		return vmemexp_fail(error, VMEMEXP_REASON_FLAGS, 0, -EINVAL);
	if (arg->nr_ranges > VMEMEXP_MAX_RANGES ||
	    (arg->nr_ranges ? arg->vaddr || arg->length : !!arg->ranges))
		return vmemexp_fail(error, VMEMEXP_REASON_RANGES, 0, -EINVAL);
	return 0;
}

/* Check the addresses of range @i. */
static int vmemexp_check_range(const struct vmemexp_request *request, unsigned int i,
			       struct vmemexp_error *error)
{
	bool unaligned = request->flags & VMEMEXP_EXPORT_UNALIGNED;
	u64 addr = request->ranges[i].vaddr, length = request->ranges[i].length;
	u64 end = addr + length;

	if (!length || end < addr)
		return vmemexp_fail(error, VMEMEXP_REASON_LENGTH, addr, -EINVAL);
	/* The dma-buf has no gaps, so only its own ends may lie inside of a page. */
	if (!PAGE_ALIGNED(addr) && !(unaligned && i == 0))
		return vmemexp_fail(error, VMEMEXP_REASON_ALIGNMENT, addr, -EINVAL);
	if (!PAGE_ALIGNED(end) && !(unaligned && i == request->nr_ranges - 1))
		return vmemexp_fail(error, VMEMEXP_REASON_ALIGNMENT, end, -EINVAL);
	if (addr >= TASK_SIZE)
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_MAPPED, addr, -EFAULT);
	if (length > TASK_SIZE - addr)
		return vmemexp_fail(error, VMEMEXP_REASON_NOT_MAPPED, TASK_SIZE, -EFAULT);
	return 0;
}

/* Return how many pages @range touches. */
static u64 vmemexp_range_npages(const struct vmemexp_range *range)
{
	return (offset_in_page(range->vaddr) + range->length + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static int vmemexp_check_ranges(const struct vmemexp_request *request, struct vmemexp_error *error)
{
	/* A scatterlist counts its entries in an int, and a dma-buf its bytes in a size_t. */
	const u64 max = min_t(u64, INT_MAX, SIZE_MAX >> PAGE_SHIFT);
	unsigned int i;
	u64 pages = 0;
	int ret;

	for (i = 0; i < request->nr_ranges; i++) {
		error->range = i;
		ret = vmemexp_check_range(request, i, error);
		if (ret)
			return ret;
		pages += vmemexp_range_npages(&request->ranges[i]);
		if (pages >= max)
			return vmemexp_fail(error, VMEMEXP_REASON_LENGTH, request->ranges[i].vaddr,
					    -EINVAL);
	}
	return 0;
}

/* Return true if the mappings around @vma show all of @dmabuf, with the wanted access. */
static bool vmemexp_maps_all(struct vm_area_struct *vma, const struct dma_buf *dmabuf, bool write)
{
	unsigned long size = dmabuf->size, offset = vma->vm_pgoff << PAGE_SHIFT;
	struct vmemexp_error unused;
	unsigned long start, addr;

	/* Mappings show whole pages only. */
	if (!PAGE_ALIGNED(size) || offset > vma->vm_start)
		return false;
	start = vma->vm_start - offset;
	for (addr = start; addr - start < size; addr = vma->vm_end) {
		vma = vma_lookup(current->mm, addr);
		if (vmemexp_vma_dmabuf(vma) != dmabuf ||
		    vma->vm_pgoff != (vma->vm_start - start) >> PAGE_SHIFT ||
		    vmemexp_check_access(vma, write, addr, &unused))
			return false;
	}
	return true;
}

static int vmemexp_is_file(const void *wanted, struct file *file, unsigned int fd)
{
	return file == wanted;
}

/*
 * Return true if the caller may have a descriptor of @dmabuf. A descriptor gives access to
 * all of the dma-buf, and a mapping may show only a part. So give one only to callers that
 * have one already, or that map all of it. The latter takes receive_fd(), which asks
 * security modules, as for every file that a process receives.
 *
 * Importers do not check the mode of a file. So a read-only mapping of another
 * exporter's dma-buf is not enough: a descriptor would allow writing.
 */
static bool vmemexp_may_have(struct vm_area_struct *vma, const struct dma_buf *dmabuf, bool write)
{
	return (VMEMEXP_CAN_RECEIVE_FD && (write || vmemexp_buf_of(dmabuf)) &&
		vmemexp_maps_all(vma, dmabuf, write)) ||
	       iterate_fd(current->files, 0, vmemexp_is_file, dmabuf->file);
}

/*
 * If the one range is a mapping of a dma-buf, return that dma-buf with a reference, and set
 * @offset to where the range starts in it. If not, return NULL.
 */
static struct dma_buf *vmemexp_find_dmabuf(const struct vmemexp_request *request, u64 *offset,
					   struct vmemexp_error *error)
{
	const struct vmemexp_range *range = request->ranges;
	unsigned long addr = range->vaddr & PAGE_MASK;
	unsigned long end = PAGE_ALIGN(range->vaddr + range->length);
	bool write = vmemexp_wants_write(request);
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	struct vmemexp_buf *buf;
	struct dma_buf *dmabuf;
	int ret = 0;
	u64 next;

	if (mmap_read_lock_killable(mm))
		return ERR_PTR(-EINTR);
	vma = vma_lookup(mm, addr);
	dmabuf = vmemexp_vma_dmabuf(vma);
	if (IS_ERR_OR_NULL(dmabuf)) {
		dmabuf = NULL;
		goto unlock;
	}

	*offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) + (range->vaddr - vma->vm_start);
	for (;;) {
		ret = vmemexp_check_access(vma, write, addr, error);
		if (ret)
			goto unlock;
		if (end <= vma->vm_end)
			break;
		addr = vma->vm_end;
		next = vma->vm_pgoff + vma_pages(vma);
		vma = vma_lookup(mm, addr);
		if (vma && (vmemexp_vma_dmabuf(vma) != dmabuf || vma->vm_pgoff != next)) {
			ret = vmemexp_fail(error, VMEMEXP_REASON_MIXED, addr, -EINVAL);
			goto unlock;
		}
	}

	buf = vmemexp_buf_of(dmabuf);
	if (!(READ_ONCE(vmemexp_allow) & VMEMEXP_MEMORY_DMABUF))
		ret = vmemexp_fail(error, VMEMEXP_REASON_KIND, range->vaddr, -EPERM);
	else if (write != !!(dmabuf->file->f_mode & FMODE_WRITE))
		/* A file has one mode for all its users. */
		ret = vmemexp_fail(error, VMEMEXP_REASON_ACCESS, range->vaddr, -EACCES);
	else if (!vmemexp_may_have(vma, dmabuf, write))
		ret = vmemexp_fail(error, VMEMEXP_REASON_PARTIAL, range->vaddr, -EPERM);
	else if (request->flags & VMEMEXP_EXPORT_CONTIGUOUS && (!buf || buf->nr_extents > 1))
		ret = vmemexp_fail(error, VMEMEXP_REASON_NOT_CONTIGUOUS, range->vaddr, -ERANGE);
	else
		get_dma_buf(dmabuf);
unlock:
	mmap_read_unlock(mm);
	return ret ? ERR_PTR(ret) : dmabuf;
}

/* Make the source ranges of the buffer, and count its pages and bytes. */
static int vmemexp_add_sources(struct vmemexp_buf *buf, const struct vmemexp_request *request)
{
	const struct vmemexp_range *range = request->ranges;
	struct vmemexp_source *source;

	buf->sources = &buf->one_source;
	if (request->nr_ranges > 1)
		buf->sources = kvcalloc(request->nr_ranges, sizeof(*buf->sources),
					GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!buf->sources)
		return -ENOMEM;
	buf->nr_sources = request->nr_ranges;
	buf->offset = offset_in_page(range->vaddr);
	for (source = buf->sources; source < buf->sources + buf->nr_sources; source++, range++) {
		source->start = range->vaddr & PAGE_MASK;
		source->first = buf->npages;
		source->npages = vmemexp_range_npages(range);
		buf->npages += source->npages;
		buf->length += range->length;
	}
	return 0;
}

/* Allocate a buffer that no other thread can find yet. Pairs with vmemexp_free_buf(). */
static struct vmemexp_buf *vmemexp_alloc_buf(const struct vmemexp_request *request)
{
	struct vmemexp_buf *buf = kzalloc(sizeof(*buf), GFP_KERNEL_ACCOUNT);

	if (!buf)
		return NULL;
	if (vmemexp_add_sources(buf, request)) {
		kfree(buf);
		return NULL;
	}
	buf->writable = vmemexp_wants_write(request);
	buf->is_ram = true;
	buf->has_pages = true;
	buf->tgid = task_tgid_nr(current);
	get_task_comm(buf->comm, current);
	spin_lock_init(&buf->unmapped_lock);
	mutex_init(&buf->lock);
	INIT_LIST_HEAD(&buf->attachments);
	INIT_DELAYED_WORK(&buf->work, vmemexp_work);
	refcount_set(&buf->refs, 1);
	return buf;
}

/*
 * Build a buffer of the ranges. On an error, undo all steps in reverse order, but decrement
 * the user's count of buffers last.
 */
static struct vmemexp_buf *vmemexp_create(const struct vmemexp_request *request,
					  struct vmemexp_error *error)
{
	struct vmemexp_buf *buf = vmemexp_alloc_buf(request);
	struct vmemexp_collect collect = {
		.buf = buf,
		.error = error,
		.contiguous = request->flags & VMEMEXP_EXPORT_CONTIGUOUS,
		.max_extents = ARRAY_SIZE(collect.few_extents),
		/* No page frame continues an extent yet. */
		.next_pfn = ULONG_MAX,
	};
	int ret;

	if (!buf)
		return ERR_PTR(-ENOMEM);
	buf->extents = collect.few_extents;
	/* Register before anything is checked, so that no unmapping is missed. */
	ret = vmemexp_register_notifier(buf, current->mm);
	if (ret)
		goto err_free;
	ret = vmemexp_inspect_sources(&collect);
	if (ret)
		goto err_put_file;
	/* Before pfnmap was set, the notifier ignored page frames that their driver cleared. */
	if (buf->pfnmap)
		vmemexp_wait_invalidated(buf);

	buf->user = vmemexp_get_user(buf, error);
	ret = PTR_ERR_OR_ZERO(buf->user);
	if (ret)
		goto err_put_file;
	ret = vmemexp_charge_range(buf, error);
	if (ret)
		goto err_put_file;
	ret = buf->pfnmap ? vmemexp_alloc_unmapped(buf) : 0;
	if (ret)
		goto err_uncharge;

	ret = vmemexp_collect_sources(&collect);
	if (ret)
		goto err_unpin;
	ret = vmemexp_check_collected(&collect);
	if (ret)
		goto err_unpin;
	ret = vmemexp_charge_rest(&collect);
	if (ret)
		goto err_unpin;
	ret = vmemexp_keep_extents(&collect);
	if (ret)
		goto err_unpin;
	return buf;

err_unpin:
	if (!buf->pfnmap)
		vmemexp_unpin(buf, collect.nr_pages);
err_uncharge:
	vmemexp_uncharge(buf);
err_put_file:
	if (buf->file)
		fput(buf->file);
	vmemexp_leave_mm_sync(buf);
	/* This may have waited. Until here, the buffer exists and counts for max_buffers=. */
	if (!IS_ERR_OR_NULL(buf->user))
		vmemexp_put_user(buf->user);
err_free:
	if (buf->extents == collect.few_extents)
		buf->extents = NULL;
	vmemexp_free_buf(buf);
	return ERR_PTR(ret);
}

/* Add @buf to the list, as the newest buffer. */
static void vmemexp_list_buf(struct vmemexp_buf *buf)
{
	struct rb_node **link = &vmemexp_buffers.rb_node, *parent = NULL;

	mutex_lock(&vmemexp_buffers_lock);
	buf->serial = ++vmemexp_last_serial;
	while (*link) {
		parent = *link;
		link = &parent->rb_right;
	}
	rb_link_node(&buf->node, parent, link);
	rb_insert_color(&buf->node, &vmemexp_buffers);
	mutex_unlock(&vmemexp_buffers_lock);
}

/* Build a buffer, and export it. */
static struct dma_buf *vmemexp_create_dmabuf(const struct vmemexp_request *request,
					     struct vmemexp_error *error)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct vmemexp_buf *buf;
	struct dma_buf *dmabuf;

	buf = vmemexp_create(request, error);
	if (IS_ERR(buf))
		return ERR_CAST(buf);

	/* The core warns about a vmap that fails, so leave it out where it would. */
	buf->has_vmap = vmemexp_can_vmap(buf);
	info.ops = buf->has_vmap ? &vmemexp_dma_buf_ops : &vmemexp_no_vmap_dma_buf_ops;
	info.size = vmemexp_size(buf);
	info.flags = request->fd_flags & O_ACCMODE;
	info.priv = buf;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		vmemexp_destroy(buf);
		return dmabuf;
	}
	/* From here on, the dma-buf owns the buffer. */

	/* A revoke empties the inode's mappings, and the file may be gone by then. */
	buf->inode = file_inode(dmabuf->file);
	ihold(buf->inode);
	mutex_lock(&buf->lock);
	buf->dmabuf = dmabuf;
	mutex_unlock(&buf->lock);
	/* Until dmabuf was set, the work did nothing. */
	if (READ_ONCE(buf->taken))
		mod_delayed_work(vmemexp_wq, &buf->work, 0);

	vmemexp_list_buf(buf);
	trace_vmemexp_export(buf);
	return dmabuf;
}

/*
 * The answer to an export: @size bytes at @data are copied to @to. The descriptor is stored
 * at @fd in @data, which is at @ufd in user space. @request is a copy of what the caller had
 * written there.
 */
struct vmemexp_answer {
	void __user *to;
	void *data;
	const void *request;
	size_t size;
	s32 *fd;
	s32 __user *ufd;
	unsigned int fd_flags;
};

/*
 * Write the answer and give the caller a new descriptor of @dmabuf. If anything fails,
 * nothing is written; once the descriptor is installed, nothing can fail.
 */
static int vmemexp_answer_new(const struct vmemexp_answer *answer, struct dma_buf *dmabuf)
{
	int fd = get_unused_fd_flags(answer->fd_flags);

	if (fd < 0)
		return fd;
	*answer->fd = fd;
	if (copy_to_user(answer->to, answer->data, answer->size)) {
		put_unused_fd(fd);
		return -EFAULT;
	}
	get_dma_buf(dmabuf);
	fd_install(fd, dmabuf->file);
	return 0;
}

/* Do the same for a dma-buf that existed before. Here, security modules may refuse. */
static int vmemexp_answer_known(const struct vmemexp_answer *answer, struct dma_buf *dmabuf)
{
	int ret;

	if (!VMEMEXP_CAN_RECEIVE_FD)
		return vmemexp_answer_new(answer, dmabuf);

	if (copy_to_user(answer->to, answer->data, answer->size))
		return -EFAULT;
	ret = vmemexp_receive_fd(dmabuf->file, answer->ufd, answer->fd_flags);
	if (ret >= 0)
		return 0;
	/* Restore the request. */
	return copy_to_user(answer->to, answer->request, answer->size) ? -EFAULT : ret;
}

/*
 * Copy the list of ranges into the kernel. Copy it only once, so that the driver uses the
 * same values that it has checked. Pairs with kvfree().
 */
static struct vmemexp_range *vmemexp_copy_ranges(const struct vmemexp_export *arg)
{
	size_t size = array_size(arg->nr_ranges, sizeof(struct vmemexp_range));
	struct vmemexp_range *ranges;

	if (arg->ranges != (uintptr_t)arg->ranges)
		return ERR_PTR(-EFAULT);
	ranges = kvmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!ranges)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(ranges, u64_to_user_ptr(arg->ranges), size)) {
		kvfree(ranges);
		return ERR_PTR(-EFAULT);
	}
	return ranges;
}

/*
 * Find or build the dma-buf of the ranges. Set @known if it existed before, and @offset to
 * where the (first) range starts in it.
 */
static struct dma_buf *vmemexp_get_exported(const struct vmemexp_request *request, bool *known,
					    u64 *offset, struct vmemexp_error *error)
{
	struct dma_buf *dmabuf = NULL;
	unsigned int i;
	int ret;

	for (i = 0; i < request->nr_ranges; i++)
		request->ranges[i].vaddr = untagged_addr(request->ranges[i].vaddr);
	ret = vmemexp_check_ranges(request, error);
	if (ret)
		return ERR_PTR(ret);

	/* In a list of several ranges, vmemexp_check_vma() refuses one that maps a dma-buf. */
	if (request->nr_ranges == 1)
		dmabuf = vmemexp_find_dmabuf(request, offset, error);
	*known = dmabuf;
	if (dmabuf)
		return dmabuf;
	*offset = offset_in_page(request->ranges[0].vaddr);
	return vmemexp_create_dmabuf(request, error);
}

/* Find or build the dma-buf that @arg asks for. Fill in the answer except for the descriptor. */
static struct dma_buf *vmemexp_export_memory(struct vmemexp_export *arg, bool *known,
					     struct vmemexp_error *error)
{
	struct vmemexp_range one = { .vaddr = arg->vaddr, .length = arg->length };
	struct vmemexp_request request = {
		.ranges = &one,
		.nr_ranges = 1,
		.flags = arg->flags,
		.fd_flags = arg->fd_flags,
	};
	struct vmemexp_buf *buf;
	struct dma_buf *dmabuf;
	u64 offset = 0;
	int ret;

	ret = vmemexp_check_export(arg, error);
	if (ret)
		return ERR_PTR(ret);
	if (arg->nr_ranges) {
		request.nr_ranges = arg->nr_ranges;
		request.ranges = vmemexp_copy_ranges(arg);
		if (IS_ERR(request.ranges))
			return ERR_CAST(request.ranges);
	}
	dmabuf = vmemexp_get_exported(&request, known, &offset, error);
	if (request.ranges != &one)
		kvfree(request.ranges);
	if (IS_ERR(dmabuf))
		return dmabuf;

	buf = vmemexp_buf_of(dmabuf);
	/* The answer has always had the address without its tag. */
	arg->vaddr = one.vaddr;
	arg->offset = offset;
	arg->dmabuf_size = dmabuf->size;
	arg->nr_extents = buf ? buf->nr_extents : 0;
	arg->memory = (*known ? VMEMEXP_MEMORY_DMABUF : 0) | (buf ? buf->memory : 0);
	arg->err_reason = VMEMEXP_REASON_NONE;
	arg->err_addr = 0;
	arg->err_range = 0;
	arg->state = buf ? vmemexp_state(buf) : 0;
	return dmabuf;
}

static long vmemexp_ioctl_export(void __user *uarg, size_t usize, void *karg)
{
	struct vmemexp_error error = { .reason = VMEMEXP_REASON_NONE };
	struct vmemexp_export __user *uexport = uarg;
	struct vmemexp_export *arg = karg, request = *arg;
	const struct vmemexp_answer answer = {
		.to = uarg,
		.data = arg,
		.request = &request,
		.size = min(usize, sizeof(*arg)),
		.fd = &arg->fd,
		.ufd = &uexport->fd,
		.fd_flags = arg->fd_flags & O_CLOEXEC,
	};
	struct dma_buf *dmabuf;
	bool known;
	int ret;

	dmabuf = vmemexp_export_memory(arg, &known, &error);
	ret = PTR_ERR_OR_ZERO(dmabuf);
	if (ret)
		goto err_report;
	ret = known ? vmemexp_answer_known(&answer, dmabuf) : vmemexp_answer_new(&answer, dmabuf);
	dma_buf_put(dmabuf);
	if (!ret)
		return 0;
err_report:
	/* The errno stands, whether or not the reason can be written. */
	put_user(error.reason, &uexport->err_reason);
	put_user(error.addr, &uexport->err_addr);
	if (usize >= offsetofend(struct vmemexp_export, err_range))
		put_user(error.reason ? error.range : 0, &uexport->err_range);
	return ret;
}

/* --- VMEMEXP_IOC_SYNC --- */

static int vmemexp_check_sync(const struct vmemexp_sync *arg)
{
	if (arg->flags & ~(VMEMEXP_SYNC_RW | VMEMEXP_SYNC_END | VMEMEXP_SYNC_OBSERVER))
		return -EINVAL;
	if (!(arg->flags & VMEMEXP_SYNC_RW) || !arg->length)
		return -EINVAL;
	if (arg->rows > 1 && arg->stride < arg->length)
		return -EINVAL;
	return 0;
}

/* Return true if the last byte of the last row lies inside of @size bytes. */
static bool vmemexp_sync_fits(const struct vmemexp_sync *arg, u64 size)
{
	u64 room;

	if (arg->offset >= size || arg->length > size - arg->offset)
		return false;
	if (arg->rows <= 1)
		return true;
	/* Divide: rows times stride may not fit 64 bits. */
	room = size - arg->offset - arg->length;
	return div64_u64(room, arg->stride) >= arg->rows - 1;
}

/* Return true if a sync has anything to do. */
static bool vmemexp_sync_is_needed(const struct vmemexp_buf *buf, const struct vmemexp_sync *arg)
{
	lockdep_assert_held(&buf->lock);

	if (arg->flags & VMEMEXP_SYNC_OBSERVER)
		return vmemexp_needs_cache_ops(buf);
	return buf->nr_to_sync;
}

static int vmemexp_sync_row(struct vmemexp_buf *buf, const struct vmemexp_sync *arg, size_t offset)
{
	enum dma_data_direction access = DMA_BIDIRECTIONAL;
	bool end = arg->flags & VMEMEXP_SYNC_END;

	if (!(arg->flags & VMEMEXP_SYNC_WRITE))
		access = DMA_FROM_DEVICE;
	else if (!(arg->flags & VMEMEXP_SYNC_READ))
		access = DMA_TO_DEVICE;

	if (arg->flags & VMEMEXP_SYNC_OBSERVER) {
		if (end && access == DMA_FROM_DEVICE)
			return 0;
		return vmemexp_sync_observer(buf, offset, arg->length, end);
	}
	if (end)
		vmemexp_sync_for_device(buf, offset, arg->length, access);
	else
		vmemexp_sync_for_cpu(buf, offset, arg->length);
	return 0;
}

/* Sync @rows rows from @offset on. */
static int vmemexp_sync_batch(struct vmemexp_buf *buf, const struct vmemexp_sync *arg,
			      size_t offset, u32 rows)
{
	int ret = vmemexp_check_gone(buf);

	for (; !ret && rows; rows--, offset += arg->stride) {
		ret = vmemexp_sync_row(buf, arg, offset);
		/* Not all of it was synced if the driver has taken it away meanwhile. */
		if (!ret)
			ret = vmemexp_check_gone(buf);
	}
	return ret;
}

/*
 * There may be as many rows as bytes, and importers wait for the lock without a way to
 * interrupt them. So take it for a batch of rows at a time, which is no longer than this.
 */
#define VMEMEXP_SYNC_ROWS	32
#define VMEMEXP_SYNC_BYTES	SZ_64K

static u32 vmemexp_sync_batch_rows(const struct vmemexp_sync *arg)
{
	if (arg->length >= VMEMEXP_SYNC_BYTES)
		return 1;
	return min_t(u32, VMEMEXP_SYNC_ROWS, VMEMEXP_SYNC_BYTES / (u32)arg->length);
}

static int vmemexp_sync_rows(struct vmemexp_buf *buf, const struct vmemexp_sync *arg)
{
	u32 left = arg->rows ?: 1, most = vmemexp_sync_batch_rows(arg), rows;
	unsigned int devices = 0;
	size_t offset = arg->offset;
	int ret;

	for (;;) {
		ret = mutex_lock_interruptible(&buf->lock);
		if (ret)
			break;
		/* If there is nothing to do for one row, there is nothing for all others. */
		if (!vmemexp_sync_is_needed(buf, arg))
			left = 1;
		rows = min(left, most);
		ret = vmemexp_sync_batch(buf, arg, offset, rows);
		devices = buf->nr_mapped;
		mutex_unlock(&buf->lock);
		left -= rows;
		if (ret || !left)
			break;
		offset += (size_t)rows * arg->stride;
		cond_resched();
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
	}
	trace_vmemexp_sync(buf, arg, devices);
	return ret;
}

static int vmemexp_sync_dmabuf(const struct vmemexp_sync *arg, struct dma_buf *dmabuf)
{
	struct vmemexp_buf *buf = dmabuf->priv;
	int ret = 0;

	if (!vmemexp_sync_fits(arg, vmemexp_size(buf)))
		return -EINVAL;
	if (vmemexp_is_gone(buf))
		return -ENODEV;
	if (arg->flags & VMEMEXP_SYNC_OBSERVER && !VMEMEXP_CAN_SYNC_OBSERVER)
		return -EOPNOTSUPP;
	if (!(arg->flags & VMEMEXP_SYNC_END))
		ret = vmemexp_wait_fences(dmabuf, arg->flags & VMEMEXP_SYNC_WRITE);
	return ret ?: vmemexp_sync_rows(buf, arg);
}

static long vmemexp_ioctl_sync(void __user *uarg, size_t usize, void *karg)
{
	const struct vmemexp_sync *arg = karg;
	struct dma_buf *dmabuf;
	int ret;

	ret = vmemexp_check_sync(arg);
	if (ret)
		return ret;
	dmabuf = vmemexp_get_dmabuf(arg->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	ret = vmemexp_sync_dmabuf(arg, dmabuf);
	dma_buf_put(dmabuf);
	return ret;
}

/* --- VMEMEXP_IOC_QUERY, and the list of buffers in debugfs --- */

/* Answer the part of a query that changes during the life of a buffer. */
static void vmemexp_query_state(struct vmemexp_buf *buf, struct vmemexp_query *now)
{
	struct vmemexp_attachment *at;

	lockdep_assert_held(&buf->lock);

	now->attachments = 0;
	now->mappings = buf->nr_mapped;
	now->vmaps = READ_ONCE(buf->dmabuf->vmapping_counter);
	now->cpu_mappings = atomic_read(&buf->cpu_mappings);
	now->state = vmemexp_state(buf);
	list_for_each_entry(at, &buf->attachments, node) {
		now->attachments++;
		if (at->nr_bounced)
			now->state |= VMEMEXP_STATE_BOUNCED;
	}
}

/*
 * Look at all extents, for the first query. Two threads that do this at the same time store
 * the same values. Store @address_bits last: it is never 0, and shows that the others are
 * set.
 */
static void vmemexp_measure_extents(struct vmemexp_buf *buf)
{
	u32 pages, min_pages = U32_MAX, max_pages = 0;
	unsigned long i;
	u64 last = 0;

	for (i = 0; i < buf->nr_extents; i++) {
		pages = vmemexp_extent_pages(buf, i);
		min_pages = min(min_pages, pages);
		max_pages = max(max_pages, pages);
		last = max_t(u64, last, vmemexp_extent_pfn(buf, i) + pages);
		vmemexp_relax(i);
	}
	WRITE_ONCE(buf->min_pages, min_pages);
	WRITE_ONCE(buf->max_pages, max_pages);
	/* Pairs with the acquire in vmemexp_query_info(). */
	smp_store_release(&buf->address_bits, fls64((last << PAGE_SHIFT) - 1));
}

static void vmemexp_query_info(struct vmemexp_buf *buf, struct vmemexp_query *arg)
{
	/* Pairs with the release there, so that the other two are set as well. */
	if (!smp_load_acquire(&buf->address_bits))
		vmemexp_measure_extents(buf);
	arg->access = VMEMEXP_ACCESS_READ | (buf->writable ? VMEMEXP_ACCESS_WRITE : 0);
	arg->dmabuf_size = vmemexp_size(buf);
	arg->offset = buf->offset;
	arg->length = buf->length;
	arg->memory = buf->memory;
	arg->cache = vmemexp_cache(buf->prot_cache);
	arg->nr_extents = buf->nr_extents;
	arg->min_extent = (u64)READ_ONCE(buf->min_pages) << PAGE_SHIFT;
	arg->max_extent = (u64)READ_ONCE(buf->max_pages) << PAGE_SHIFT;
	arg->address_bits = READ_ONCE(buf->address_bits);
	arg->nr_ranges = buf->nr_sources;
}

static long vmemexp_ioctl_query(void __user *uarg, size_t usize, void *karg)
{
	struct vmemexp_query *arg = karg;
	struct vmemexp_buf *buf;
	struct dma_buf *dmabuf;
	int ret;

	if (arg->flags || arg->reserved)
		return -EINVAL;
	dmabuf = vmemexp_get_dmabuf(arg->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	buf = dmabuf->priv;

	ret = mutex_lock_interruptible(&buf->lock);
	if (ret)
		goto put;
	vmemexp_query_state(buf, arg);
	mutex_unlock(&buf->lock);

	vmemexp_query_info(buf, arg);
	if (copy_to_user(uarg, arg, min(usize, sizeof(*arg))))
		ret = -EFAULT;
put:
	dma_buf_put(dmabuf);
	return ret;
}

static const char *vmemexp_state_name(u32 state)
{
	if (state & VMEMEXP_STATE_REVOKED)
		return "revoked";
	return state & VMEMEXP_STATE_STALE ? "stale" : "live";
}

/*
 * Return the oldest buffer from @serial to @last, and make its release wait. Return NULL
 * if there is none.
 */
static struct vmemexp_buf *vmemexp_get_buf_from(u64 serial, u64 last)
{
	struct vmemexp_buf *found;

	mutex_lock(&vmemexp_buffers_lock);
	found = vmemexp_find_buf_from(serial);
	if (found && found->serial > last)
		found = NULL;
	if (found)
		refcount_inc(&found->refs);
	mutex_unlock(&vmemexp_buffers_lock);
	return found;
}

/*
 * The position in the file is the serial number of the next buffer; 0 is the headline.
 * So a reader continues at the right place whatever is exported or closed meanwhile. Only
 * the close of the buffer being shown waits for it. m->private is the newest buffer when
 * the headline was shown: the file ends there, however fast others export.
 */
static void *vmemexp_buffers_start(struct seq_file *m, loff_t *pos)
{
	u64 *last = m->private;

	if (*pos)
		return vmemexp_get_buf_from(*pos, *last);
	mutex_lock(&vmemexp_buffers_lock);
	*last = vmemexp_last_serial;
	mutex_unlock(&vmemexp_buffers_lock);
	return SEQ_START_TOKEN;
}

static void vmemexp_buffers_stop(struct seq_file *m, void *v)
{
	if (v && v != SEQ_START_TOKEN)
		vmemexp_put_buf(v);
}

static void *vmemexp_buffers_next(struct seq_file *m, void *v, loff_t *pos)
{
	const struct vmemexp_buf *buf = v;
	const u64 *last = m->private;

	*pos = v == SEQ_START_TOKEN ? 1 : buf->serial + 1;
	vmemexp_buffers_stop(m, v);
	return vmemexp_get_buf_from(*pos, *last);
}

static int vmemexp_buffers_show(struct seq_file *m, void *v)
{
	struct vmemexp_buf *buf = v;
	struct vmemexp_query now;
	char memory[64];

	if (v == SEQ_START_TOKEN) {
		seq_puts(m, "ino size access memory extents attachments mappings vmaps mmaps state uid pid comm\n");
		return 0;
	}
	mutex_lock(&buf->lock);
	vmemexp_query_state(buf, &now);
	mutex_unlock(&buf->lock);
	vmemexp_print_memory(memory, sizeof(memory), buf->memory);
	seq_printf(m, "%llu %zu %s %s %lu %u %u %u %u %s%s %u %d ",
		   vmemexp_ino(buf), vmemexp_size(buf), buf->writable ? "rw" : "ro", memory,
		   buf->nr_extents, now.attachments, now.mappings, now.vmaps,
		   now.cpu_mappings, vmemexp_state_name(now.state),
		   now.state & VMEMEXP_STATE_BOUNCED ? ",bounced" : "",
		   from_kuid_munged(&init_user_ns, buf->user->user->uid), buf->tgid);
	/* A process may give itself any name. */
	seq_escape(m, buf->comm, "\n\\ \t");
	seq_putc(m, '\n');
	return 0;
}

static const struct seq_operations vmemexp_buffers_sops = {
	.start = vmemexp_buffers_start,
	.next = vmemexp_buffers_next,
	.stop = vmemexp_buffers_stop,
	.show = vmemexp_buffers_show,
};

static int vmemexp_buffers_open(struct inode *inode, struct file *file)
{
	return __seq_open_private(file, &vmemexp_buffers_sops, sizeof(u64)) ? 0 : -ENOMEM;
}

static const struct file_operations vmemexp_buffers_fops = {
	.owner = THIS_MODULE,
	.open = vmemexp_buffers_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release_private,
};

/* --- VMEMEXP_IOC_REVOKE --- */

/*
 * Find a buffer by its dma-buf's inode number, and make its release wait. Before 6.1,
 * inode numbers have 32 bits here, and the kernel may use one again.
 */
static struct vmemexp_buf *vmemexp_get_buf(u64 ino)
{
	struct vmemexp_buf *buf, *found = ERR_PTR(-ENOENT);
	struct rb_node *node;

	mutex_lock(&vmemexp_buffers_lock);
	for (node = rb_first(&vmemexp_buffers); node; node = rb_next(node)) {
		buf = rb_entry(node, struct vmemexp_buf, node);
		if (vmemexp_ino(buf) != ino)
			continue;
		if (!IS_ERR(found)) {
			found = ERR_PTR(-ENOTUNIQ);
			break;
		}
		found = buf;
	}
	if (!IS_ERR(found))
		refcount_inc(&found->refs);
	mutex_unlock(&vmemexp_buffers_lock);
	return found;
}

/*
 * Write the names of the devices that have the buffer mapped to @names, one on each
 * line, as far as they fit. Return the number of bytes that all of them take.
 */
static size_t vmemexp_name_devices(struct vmemexp_buf *buf, char *names, size_t size)
{
	const struct vmemexp_attachment *at;
	size_t len = 0;

	lockdep_assert_held(&buf->lock);

	list_for_each_entry(at, &buf->attachments, node)
		if (at->dir != DMA_NONE)
			len += snprintf(names + min(len, size), size - min(len, size), "%s\n",
					dev_name(at->dev));
	return len + 1;
}

/*
 * Count the mappings of the buffer that are left, and set @names to an array of @names_size
 * bytes with the names of the devices. The caller frees it.
 */
static int vmemexp_list_devices(struct vmemexp_buf *buf, struct vmemexp_revoke *arg, char **names,
				size_t *names_size)
{
	struct vmemexp_query now;
	size_t size = 0;
	int ret;

	ret = mutex_lock_interruptible(&buf->lock);
	if (ret)
		return ret;
	if (arg->names_size)
		size = min_t(size_t, arg->names_size, vmemexp_name_devices(buf, NULL, 0));
	mutex_unlock(&buf->lock);

	if (size) {
		*names = kvzalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
		if (!*names)
			return -ENOMEM;
		*names_size = size;
	}

	ret = mutex_lock_interruptible(&buf->lock);
	if (ret)
		return ret;
	/* A revoked buffer gets no new users, so the array is large enough. */
	arg->names_size = vmemexp_name_devices(buf, *names, size);
	vmemexp_query_state(buf, &now);
	mutex_unlock(&buf->lock);
	arg->mappings = now.mappings;
	arg->vmaps = now.vmaps;
	arg->state = now.state;
	return 0;
}

static long vmemexp_ioctl_revoke(void __user *uarg, size_t usize, void *karg)
{
	struct vmemexp_revoke *arg = karg;
	size_t names_size = 0;
	struct vmemexp_buf *buf;
	char *names = NULL;
	int ret;

	if (arg->flags)
		return -EINVAL;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	buf = vmemexp_get_buf(arg->ino);
	if (IS_ERR(buf))
		return PTR_ERR(buf);

	ret = vmemexp_revoke_buf(buf, true);
	if (!ret)
		ret = vmemexp_list_devices(buf, arg, &names, &names_size);
	/* A revoke that has started must be finished: by the work, if not here. */
	if (!vmemexp_put_unused_memory(buf) || ret)
		mod_delayed_work(vmemexp_wq, &buf->work, 0);
	/*
	 * Drop the reference before writing to user memory. That may wait for a process
	 * that is closing the buffer.
	 */
	vmemexp_put_buf(buf);

	if (!ret && names && (arg->names != (uintptr_t)arg->names ||
			      copy_to_user(u64_to_user_ptr(arg->names), names, names_size)))
		ret = -EFAULT;
	kvfree(names);
	if (!ret && copy_to_user(uarg, arg, min(usize, sizeof(*arg))))
		ret = -EFAULT;
	return ret;
}

/* --- the ioctls of TI's vmemexp --- */

/* Both layouts of the structure, as the kernel's and its programs' compilers had it. */
union vmemexp_ti_any {
	struct vmemexp_ti_export32 narrow;
	struct vmemexp_ti_export64 wide;
};

static long vmemexp_ti_export(void __user *uarg, bool wide)
{
	size_t size = wide ? sizeof(struct vmemexp_ti_export64) :
			     sizeof(struct vmemexp_ti_export32);
	struct vmemexp_error error = { .reason = VMEMEXP_REASON_NONE };
	struct vmemexp_ti_export64 __user *uwide = uarg;
	struct vmemexp_ti_export32 __user *unarrow = uarg;
	union vmemexp_ti_any karg = {}, request;
	const struct vmemexp_answer answer = {
		.to = uarg,
		.data = &karg,
		.request = &request,
		.size = size,
		.fd = wide ? &karg.wide.fd : &karg.narrow.fd,
		.ufd = wide ? &uwide->fd : &unarrow->fd,
		.fd_flags = O_CLOEXEC,
	};
	struct vmemexp_export arg = {
		.flags = VMEMEXP_EXPORT_UNALIGNED,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};
	struct dma_buf *dmabuf;
	bool known;
	int ret;

	if (copy_from_user(&karg, uarg, size))
		return -EFAULT;
	request = karg;
	arg.vaddr = wide ? karg.wide.vaddr : karg.narrow.vaddr;
	arg.length = wide ? karg.wide.size : karg.narrow.size;
	if (!(untagged_addr(arg.vaddr) & PAGE_MASK))
		return -EINVAL;

	dmabuf = vmemexp_export_memory(&arg, &known, &error);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	if (wide)
		karg.wide.vaddr &= PAGE_MASK;
	else
		karg.narrow.vaddr &= PAGE_MASK;
	/* TI's structure has no field for an offset of a page or more in the dma-buf. */
	if (arg.offset >= PAGE_SIZE)
		ret = -EINVAL;
	else if (known)
		ret = vmemexp_answer_known(&answer, dmabuf);
	else
		ret = vmemexp_answer_new(&answer, dmabuf);
	dma_buf_put(dmabuf);
	return ret;
}

/* Sync the whole dma-buf, for devices and for an observer: TI's ioctl does not say which. */
static long vmemexp_ti_sync_all(void __user *uarg)
{
	struct vmemexp_sync arg = {};
	struct vmemexp_ti_sync karg;
	struct dma_buf *dmabuf;
	int ret;

	if (copy_from_user(&karg, uarg, sizeof(karg)))
		return -EFAULT;
	switch (karg.op) {
	case VMEMEXP_TI_INVALIDATE:
		arg.flags = VMEMEXP_SYNC_START | VMEMEXP_SYNC_READ;
		break;
	case VMEMEXP_TI_WRITEBACK:
		arg.flags = VMEMEXP_SYNC_END | VMEMEXP_SYNC_WRITE;
		break;
	default:
		return -EINVAL;
	}
	dmabuf = vmemexp_get_dmabuf(karg.fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	arg.length = dmabuf->size;
	ret = vmemexp_sync_dmabuf(&arg, dmabuf);
	if (!ret) {
		arg.flags |= VMEMEXP_SYNC_OBSERVER;
		ret = vmemexp_sync_dmabuf(&arg, dmabuf);
	}
	dma_buf_put(dmabuf);
	return ret;
}

/* --- device --- */

/* One request. Its handler gets a complete and checked copy of the argument. */
struct vmemexp_ioctl_op {
	unsigned int cmd;
	size_t min_size;
	size_t size;
	long (*handler)(void __user *uarg, size_t usize, void *karg);
};

static const struct vmemexp_ioctl_op vmemexp_ioctl_ops[] = {
	{ VMEMEXP_IOC_EXPORT, VMEMEXP_EXPORT_SIZE_VER0, sizeof(struct vmemexp_export),
	  vmemexp_ioctl_export },
	{ VMEMEXP_IOC_SYNC, VMEMEXP_SYNC_SIZE_VER0, sizeof(struct vmemexp_sync),
	  vmemexp_ioctl_sync },
	{ VMEMEXP_IOC_QUERY, VMEMEXP_QUERY_SIZE_VER0, sizeof(struct vmemexp_query),
	  vmemexp_ioctl_query },
	{ VMEMEXP_IOC_REVOKE, VMEMEXP_REVOKE_SIZE_VER0, sizeof(struct vmemexp_revoke),
	  vmemexp_ioctl_revoke },
};

static long vmemexp_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;
	const struct vmemexp_ioctl_op *op = vmemexp_ioctl_ops;
	const struct vmemexp_ioctl_op *end = op + ARRAY_SIZE(vmemexp_ioctl_ops);
	union {
		u32 size;
		struct vmemexp_export export;
		struct vmemexp_sync sync;
		struct vmemexp_query query;
		struct vmemexp_revoke revoke;
	} karg;
	u32 usize;
	int ret;

	switch (cmd) {
	case VMEMEXP_TI_IOC_EXPORT32:
	case VMEMEXP_TI_IOC_EXPORT64:
		return vmemexp_ti_export(uarg, cmd == VMEMEXP_TI_IOC_EXPORT64);
	case VMEMEXP_TI_IOC_SYNC:
		return vmemexp_ti_sync_all(uarg);
	}

	while (op < end && op->cmd != cmd)
		op++;
	if (op == end)
		return -ENOTTY;

	if (get_user(usize, (u32 __user *)uarg))
		return -EFAULT;
	if (usize < op->min_size)
		return -EINVAL;
	if (usize > PAGE_SIZE)
		return -E2BIG;
	ret = copy_struct_from_user(&karg, op->size, uarg, usize);
	if (ret)
		return ret;
	/* User space may have changed the size between the two reads. The first one counts. */
	karg.size = usize;

	return op->handler(uarg, usize, &karg);
}

static const struct file_operations vmemexp_fops = {
	.owner = THIS_MODULE,
	.open = nonseekable_open,
	.unlocked_ioctl = vmemexp_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice vmemexp_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmemexp",
	.fops = &vmemexp_fops,
	/*
	 * A user who may open this may pin memory, so only the administrator gives
	 * access.
	 */
	.mode = 0600,
};

static struct dentry *vmemexp_debugfs;

static bool vmemexp_has_users(void)
{
	bool any;

	spin_lock(&vmemexp_users_lock);
	any = !hash_empty(vmemexp_users);
	spin_unlock(&vmemexp_users_lock);
	return any;
}

static int __init vmemexp_init(void)
{
	int ret = -ENOMEM;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(vmemexp_tables_locks); i++)
		mutex_init(&vmemexp_tables_locks[i]);
	vmemexp_wq = alloc_workqueue("vmemexp", WQ_UNBOUND, 0);
	if (!vmemexp_wq)
		return ret;
	vmemexp_free_wq = alloc_workqueue("vmemexp_free", WQ_UNBOUND, 0);
	if (!vmemexp_free_wq)
		goto err_destroy_wq;
	ret = misc_register(&vmemexp_misc);
	if (ret)
		goto err_destroy_free_wq;

	vmemexp_debugfs = debugfs_create_dir("vmemexp", NULL);
	debugfs_create_file("buffers", 0400, vmemexp_debugfs, NULL, &vmemexp_buffers_fops);
	return 0;

err_destroy_free_wq:
	destroy_workqueue(vmemexp_free_wq);
err_destroy_wq:
	destroy_workqueue(vmemexp_wq);
	return ret;
}
module_init(vmemexp_init);

static void __exit vmemexp_exit(void)
{
	debugfs_remove_recursive(vmemexp_debugfs);
	misc_deregister(&vmemexp_misc);
	/* All buffers are released, but some may not be freed yet. */
	while (vmemexp_has_users())
		flush_workqueue(vmemexp_free_wq);
	destroy_workqueue(vmemexp_free_wq);
	destroy_workqueue(vmemexp_wq);
}
module_exit(vmemexp_exit);

/* MODULE_IMPORT_NS(), whose argument has been a string since cdd30ebb1b9f (v6.13). */
MODULE_INFO(import_ns, "DMA_BUF");
MODULE_DESCRIPTION("Export user virtual memory as a dma-buf");
MODULE_VERSION("0.2.0");
MODULE_LICENSE("GPL");

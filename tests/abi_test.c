// SPDX-License-Identifier: GPL-2.0
/*
 * The numbers of the ABI. All are literals: what is compiled into programs out
 * there must not follow a change of the header. Needs no device. The same
 * source as a 32-bit program shows that both see one layout.
 */
#include <stddef.h>

#include "lib/vmemexp_utils.h"

struct field {
	const char *name;
	size_t offset, end, expected_offset;
};

#define FIELD(type, field, expected) {					\
	.name = #type "." #field,					\
	.offset = offsetof(struct type, field),				\
	.end = offsetof(struct type, field) +				\
	       sizeof(((struct type *)NULL)->field),			\
	.expected_offset = expected,					\
}

/* A table that leaves a field out shows as a hole. */
static void check_layout(struct __test_metadata *_metadata,
			 const struct field *fields, size_t nr, size_t size,
			 size_t expected_size)
{
	size_t end = 0;

	EXPECT_EQ(expected_size, size);
	for (size_t i = 0; i < nr; i++) {
		EXPECT_EQ(fields[i].expected_offset, fields[i].offset) {
			TH_LOG("%s moved", fields[i].name);
		}
		EXPECT_EQ(end, fields[i].offset) {
			TH_LOG("padding before %s", fields[i].name);
		}
		end = fields[i].end;
	}
	EXPECT_EQ(size, end) {
		TH_LOG("padding at the end");
	}
}

#define CHECK_LAYOUT(type, fields, expected_size)		\
	check_layout(_metadata, fields, ARRAY_SIZE(fields),	\
		     sizeof(struct type), expected_size)

TEST(export_layout_is_fixed)
{
	static const struct field fields[] = {
		FIELD(vmemexp_export, size, 0),
		FIELD(vmemexp_export, flags, 4),
		FIELD(vmemexp_export, vaddr, 8),
		FIELD(vmemexp_export, length, 16),
		FIELD(vmemexp_export, fd_flags, 24),
		FIELD(vmemexp_export, fd, 28),
		FIELD(vmemexp_export, offset, 32),
		FIELD(vmemexp_export, dmabuf_size, 40),
		FIELD(vmemexp_export, nr_extents, 48),
		FIELD(vmemexp_export, memory, 56),
		FIELD(vmemexp_export, err_reason, 60),
		FIELD(vmemexp_export, err_addr, 64),
		FIELD(vmemexp_export, state, 72),
		FIELD(vmemexp_export, reserved, 76),
		FIELD(vmemexp_export, ranges, 80),
		FIELD(vmemexp_export, nr_ranges, 88),
		FIELD(vmemexp_export, err_range, 92),
	};

	CHECK_LAYOUT(vmemexp_export, fields, 96);
	EXPECT_EQ(72, VMEMEXP_EXPORT_SIZE_VER0);
	EXPECT_EQ(80, VMEMEXP_EXPORT_SIZE_VER1);
	EXPECT_EQ(96, VMEMEXP_EXPORT_SIZE_VER2);
}

TEST(range_layout_is_fixed)
{
	static const struct field fields[] = {
		FIELD(vmemexp_range, vaddr, 0),
		FIELD(vmemexp_range, length, 8),
	};

	CHECK_LAYOUT(vmemexp_range, fields, 16);
	EXPECT_EQ(1024, VMEMEXP_MAX_RANGES);
}

TEST(sync_layout_is_fixed)
{
	static const struct field fields[] = {
		FIELD(vmemexp_sync, size, 0),
		FIELD(vmemexp_sync, fd, 4),
		FIELD(vmemexp_sync, flags, 8),
		FIELD(vmemexp_sync, rows, 12),
		FIELD(vmemexp_sync, offset, 16),
		FIELD(vmemexp_sync, length, 24),
		FIELD(vmemexp_sync, stride, 32),
	};

	CHECK_LAYOUT(vmemexp_sync, fields, 40);
	EXPECT_EQ(40, VMEMEXP_SYNC_SIZE_VER0);
}

TEST(query_layout_is_fixed)
{
	static const struct field fields[] = {
		FIELD(vmemexp_query, size, 0),
		FIELD(vmemexp_query, fd, 4),
		FIELD(vmemexp_query, flags, 8),
		FIELD(vmemexp_query, access, 12),
		FIELD(vmemexp_query, dmabuf_size, 16),
		FIELD(vmemexp_query, offset, 24),
		FIELD(vmemexp_query, length, 32),
		FIELD(vmemexp_query, memory, 40),
		FIELD(vmemexp_query, cache, 44),
		FIELD(vmemexp_query, nr_extents, 48),
		FIELD(vmemexp_query, min_extent, 56),
		FIELD(vmemexp_query, max_extent, 64),
		FIELD(vmemexp_query, address_bits, 72),
		FIELD(vmemexp_query, attachments, 76),
		FIELD(vmemexp_query, mappings, 80),
		FIELD(vmemexp_query, vmaps, 84),
		FIELD(vmemexp_query, cpu_mappings, 88),
		FIELD(vmemexp_query, state, 92),
		FIELD(vmemexp_query, nr_ranges, 96),
		FIELD(vmemexp_query, reserved, 100),
	};

	CHECK_LAYOUT(vmemexp_query, fields, 104);
	EXPECT_EQ(96, VMEMEXP_QUERY_SIZE_VER0);
	EXPECT_EQ(104, VMEMEXP_QUERY_SIZE_VER1);
}

TEST(revoke_layout_is_fixed)
{
	static const struct field fields[] = {
		FIELD(vmemexp_revoke, size, 0),
		FIELD(vmemexp_revoke, flags, 4),
		FIELD(vmemexp_revoke, ino, 8),
		FIELD(vmemexp_revoke, names, 16),
		FIELD(vmemexp_revoke, names_size, 24),
		FIELD(vmemexp_revoke, mappings, 28),
		FIELD(vmemexp_revoke, vmaps, 32),
		FIELD(vmemexp_revoke, state, 36),
	};

	CHECK_LAYOUT(vmemexp_revoke, fields, 40);
	EXPECT_EQ(40, VMEMEXP_REVOKE_SIZE_VER0);
}

/* As TI's programs were compiled, for 32 and for 64 bits. */
TEST(ti_layouts_are_fixed)
{
	static const struct field narrow[] = {
		FIELD(vmemexp_ti_export32, vaddr, 0),
		FIELD(vmemexp_ti_export32, size, 4),
		FIELD(vmemexp_ti_export32, fd, 8),
	};
	static const struct field wide[] = {
		FIELD(vmemexp_ti_export64, vaddr, 0),
		FIELD(vmemexp_ti_export64, size, 8),
		FIELD(vmemexp_ti_export64, fd, 16),
		FIELD(vmemexp_ti_export64, padding, 20),
	};
	static const struct field sync[] = {
		FIELD(vmemexp_ti_sync, fd, 0),
		FIELD(vmemexp_ti_sync, op, 4),
	};

	CHECK_LAYOUT(vmemexp_ti_export32, narrow, 12);
	CHECK_LAYOUT(vmemexp_ti_export64, wide, 24);
	CHECK_LAYOUT(vmemexp_ti_sync, sync, 8);
	EXPECT_EQ(4, __alignof__(struct vmemexp_ti_export32));
	EXPECT_EQ(0, VMEMEXP_TI_INVALIDATE);
	EXPECT_EQ(1, VMEMEXP_TI_WRITEBACK);
}

/* A structure in an array, or followed by another, is where others expect it. */
TEST(alignment_is_8)
{
	EXPECT_EQ(8, __alignof__(struct vmemexp_export));
	EXPECT_EQ(8, __alignof__(struct vmemexp_sync));
	EXPECT_EQ(8, __alignof__(struct vmemexp_query));
	EXPECT_EQ(8, __alignof__(struct vmemexp_revoke));
}

#define IS_SIGNED(x) ((__typeof__(x))(-1) < 1)

TEST(fd_is_signed_and_the_rest_is_not)
{
	struct vmemexp_export export;
	struct vmemexp_sync sync;
	struct vmemexp_query query;
	struct vmemexp_revoke revoke;

	EXPECT_TRUE(IS_SIGNED(export.fd));
	EXPECT_TRUE(IS_SIGNED(sync.fd));
	EXPECT_TRUE(IS_SIGNED(query.fd));
	EXPECT_FALSE(IS_SIGNED(export.flags));
	EXPECT_FALSE(IS_SIGNED(export.vaddr));
	EXPECT_FALSE(IS_SIGNED(export.length));
	EXPECT_FALSE(IS_SIGNED(export.err_addr));
	EXPECT_FALSE(IS_SIGNED(sync.rows));
	EXPECT_FALSE(IS_SIGNED(sync.offset));
	EXPECT_FALSE(IS_SIGNED(sync.stride));
	EXPECT_FALSE(IS_SIGNED(query.dmabuf_size));
	EXPECT_FALSE(IS_SIGNED(export.state));
	EXPECT_FALSE(IS_SIGNED(revoke.ino));
	EXPECT_FALSE(IS_SIGNED(revoke.names_size));
}

TEST(request_numbers_are_fixed)
{
	EXPECT_EQ(0xc000d700U, VMEMEXP_IOC_EXPORT);
	EXPECT_EQ(0xc000d701U, VMEMEXP_IOC_SYNC);
	EXPECT_EQ(0xc000d702U, VMEMEXP_IOC_QUERY);
	EXPECT_EQ(0xc000d703U, VMEMEXP_IOC_REVOKE);
	EXPECT_EQ(0xc00cdbd0U, VMEMEXP_TI_IOC_EXPORT32);
	EXPECT_EQ(0xc018dbd0U, VMEMEXP_TI_IOC_EXPORT64);
	EXPECT_EQ(0xc008dbd0U, VMEMEXP_TI_IOC_SYNC);
}

TEST(export_flags_are_fixed)
{
	EXPECT_EQ(0x1, VMEMEXP_EXPORT_UNALIGNED);
	EXPECT_EQ(0x2, VMEMEXP_EXPORT_CONTIGUOUS);
}

TEST(memory_kinds_are_fixed)
{
	EXPECT_EQ(0x01, VMEMEXP_MEMORY_ANON);
	EXPECT_EQ(0x02, VMEMEXP_MEMORY_SHMEM);
	EXPECT_EQ(0x04, VMEMEXP_MEMORY_HUGETLB);
	EXPECT_EQ(0x08, VMEMEXP_MEMORY_FILE);
	EXPECT_EQ(0x10, VMEMEXP_MEMORY_DRIVER);
	EXPECT_EQ(0x20, VMEMEXP_MEMORY_PFNMAP);
	EXPECT_EQ(0x40, VMEMEXP_MEMORY_DMABUF);
}

TEST(reasons_are_fixed)
{
	EXPECT_EQ(0, VMEMEXP_REASON_NONE);
	EXPECT_EQ(1, VMEMEXP_REASON_FLAGS);
	EXPECT_EQ(2, VMEMEXP_REASON_LENGTH);
	EXPECT_EQ(3, VMEMEXP_REASON_ALIGNMENT);
	EXPECT_EQ(4, VMEMEXP_REASON_LIMIT);
	EXPECT_EQ(5, VMEMEXP_REASON_NOT_MAPPED);
	EXPECT_EQ(6, VMEMEXP_REASON_NOT_READABLE);
	EXPECT_EQ(7, VMEMEXP_REASON_NOT_WRITABLE);
	EXPECT_EQ(8, VMEMEXP_REASON_KIND);
	EXPECT_EQ(9, VMEMEXP_REASON_PFNMAP);
	EXPECT_EQ(10, VMEMEXP_REASON_NO_BACKING);
	EXPECT_EQ(11, VMEMEXP_REASON_UNPINNABLE);
	EXPECT_EQ(12, VMEMEXP_REASON_NOT_CONTIGUOUS);
	EXPECT_EQ(13, VMEMEXP_REASON_RAM);
	EXPECT_EQ(14, VMEMEXP_REASON_MIXED);
	EXPECT_EQ(15, VMEMEXP_REASON_PRIVATE);
	EXPECT_EQ(16, VMEMEXP_REASON_CHANGED);
	EXPECT_EQ(17, VMEMEXP_REASON_ACCESS);
	EXPECT_EQ(18, VMEMEXP_REASON_PARTIAL);
	EXPECT_EQ(19, VMEMEXP_REASON_QUOTA);
	EXPECT_EQ(20, VMEMEXP_REASON_POISONED);
	EXPECT_EQ(21, VMEMEXP_REASON_ENCRYPTED);
	EXPECT_EQ(22, VMEMEXP_REASON_RANGES);
}

TEST(sync_flags_are_those_of_dma_buf)
{
	EXPECT_EQ(1, VMEMEXP_SYNC_READ);
	EXPECT_EQ(2, VMEMEXP_SYNC_WRITE);
	EXPECT_EQ(3, VMEMEXP_SYNC_RW);
	EXPECT_EQ(0, VMEMEXP_SYNC_START);
	EXPECT_EQ(4, VMEMEXP_SYNC_END);
	EXPECT_EQ(8, VMEMEXP_SYNC_OBSERVER);
	EXPECT_EQ(DMA_BUF_SYNC_READ, VMEMEXP_SYNC_READ);
	EXPECT_EQ(DMA_BUF_SYNC_WRITE, VMEMEXP_SYNC_WRITE);
	EXPECT_EQ(DMA_BUF_SYNC_RW, VMEMEXP_SYNC_RW);
	EXPECT_EQ(DMA_BUF_SYNC_START, VMEMEXP_SYNC_START);
	EXPECT_EQ(DMA_BUF_SYNC_END, VMEMEXP_SYNC_END);
}

TEST(query_answers_are_fixed)
{
	EXPECT_EQ(1, VMEMEXP_ACCESS_READ);
	EXPECT_EQ(2, VMEMEXP_ACCESS_WRITE);
	EXPECT_EQ(1, VMEMEXP_CACHE_CACHED);
	EXPECT_EQ(2, VMEMEXP_CACHE_WRITECOMBINE);
	EXPECT_EQ(3, VMEMEXP_CACHE_UNCACHED);
}

TEST(states_are_fixed)
{
	EXPECT_EQ(0x01, VMEMEXP_STATE_STALE);
	EXPECT_EQ(0x02, VMEMEXP_STATE_TRACKED);
	EXPECT_EQ(0x04, VMEMEXP_STATE_BOUNCED);
	EXPECT_EQ(0x08, VMEMEXP_STATE_NO_VMAP);
	EXPECT_EQ(0x10, VMEMEXP_STATE_OVERLAPS);
	EXPECT_EQ(0x20, VMEMEXP_STATE_REVOKED);
	EXPECT_EQ(0x40, VMEMEXP_STATE_NO_PAGES);
}

TEST_HARNESS_MAIN

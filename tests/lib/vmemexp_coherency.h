/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the tests of coherency: the mode of the machine, and QEMU's edu
 * device, which moves data by DMA.
 *
 * The suite passes the mode in COHERENCY_MODE. The tests do not rely on it: test_coherency_mode()
 * checks it.
 */
#ifndef VMEMEXP_COHERENCY_H
#define VMEMEXP_COHERENCY_H

#include "edu.h"
#include "vmemexp_utils.h"

#define PCI_DEVICES	"/sys/bus/pci/devices"

/* ---- the edu device; a session is an open file of its driver ---- */

static inline int __test_edu_open(struct __test_metadata *_metadata)
{
	int session = open(EDU_PATH, O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, session);
	return session;
}

#define test_edu_open() __test_edu_open(_metadata)

#define test_edu_attach(session, dmabuf, device, bits) \
	ASSERT_EQ(0, _test_edu_attach(session, dmabuf, device, bits))

#define test_edu_detach(session) \
	ASSERT_EQ(0, _test_ioctl(session, EDU_IOC_DETACH, NULL))

#define test_edu_map(session, direction) \
	ASSERT_EQ(0, _test_edu_map(session, direction))

#define test_edu_unmap(session) \
	ASSERT_EQ(0, _test_ioctl(session, EDU_IOC_UNMAP, NULL))

/* The device reads @length bytes at @offset of its mapping into @buf. */
#define test_edu_read(session, offset, buf, length)			\
	ASSERT_EQ(0, _test_edu_transfer(session, EDU_IOC_READ, offset, buf, \
					length, 0))

#define test_edu_write(session, offset, buf, length)			\
	ASSERT_EQ(0, _test_edu_transfer(session, EDU_IOC_WRITE, offset, buf, \
					length, 0))

static inline struct edu_info
__test_edu_info(struct __test_metadata *_metadata, int session)
{
	struct edu_info info;

	memset(&info, POISON_BYTE, sizeof(info));
	ASSERT_EQ(0, _test_ioctl(session, EDU_IOC_INFO, &info));
	return info;
}

/* Gives a struct edu_info. */
#define test_edu_info(session) __test_edu_info(_metadata, session)

/* ---- what the driver traces of a mapping ---- */

struct map_event {
	char device[32];
	unsigned int entries, segments, bounced;
};

static inline struct map_event
__test_edu_map_traced(struct __test_metadata *_metadata, int session,
		      unsigned int direction)
{
	static char trace[64 * 1024];
	struct map_event event = {};
	const char *line;
	int fields;

	/* It stays on: it is wanted often. */
	ASSERT_EQ(0, trace_events("vmemexp/vmemexp_map"));
	test_edu_map(session, direction);
	ASSERT_LT(0, read_text(TRACING "/trace", trace, sizeof(trace)));
	line = strstr(trace, "vmemexp_map: ");
	ASSERT_NE(NULL, line);
	fields = sscanf(line, "vmemexp_map: ino=%*u device=%31s entries=%u segments=%u bounced=%u",
			event.device, &event.entries, &event.segments, &event.bounced);
	ASSERT_EQ(4, fields);
	return event;
}

/* Maps; gives the struct map_event. */
#define test_edu_map_traced(session, direction) \
	__test_edu_map_traced(_metadata, session, direction)

/* ---- the mode ---- */

/* For tests and for FIXTURE_SETUP. */
#define skip_without_edu(count) do {					\
	if (!getenv("COHERENCY_MODE"))					\
		SKIP(return, "COHERENCY_MODE is not set (by tests/suites/coherency)"); \
	if (edu_devices() < (count))					\
		SKIP(return, "fewer than %u edu devices with their driver", \
		     count);						\
} while (0)

/*
 * The DMA mask that a device of the mode has, 0 for the most there is. A narrow
 * one has to reach the bounce buffers, and some kernels refuse it if it does not
 * reach a certain part of memory.
 */
static inline unsigned int __edu_address_bits(struct __test_metadata *_metadata,
					      enum coherency_mode mode, int dmabuf)
{
	unsigned int bits = 28;
	int session, ret;

	if (mode != MODE_NARROW)
		return 0;
	ASSERT_LT(0, bounce_buffers_end());
	while (bounce_buffers_end() > 1ULL << bits)
		bits++;
	for (; bits <= 32; bits++) {
		session = test_edu_open();
		ret = _test_edu_attach(session, dmabuf, 0, bits);
		close(session);
		if (!ret)
			return bits;
		ASSERT_EQ(-EIO, ret);
	}
	ASSERT_TRUE(!"a narrow device");
	return 0;
}

/* Expects that what the device maps is as it has to be with these bits. */
static inline void __test_mapping(struct __test_metadata *_metadata, int dmabuf,
				  unsigned int bits, bool bounces)
{
	enum coherency_mode mode = coherency_mode();
	bool translated = translates_in(mode);
	int session = test_edu_open();
	struct map_event event;
	struct edu_info info;
	char path[128], type[16] = "";

	test_edu_attach(session, dmabuf, 0, bits);
	event = test_edu_map_traced(session, EDU_BIDIRECTIONAL);
	ASSERT_LE(1, event.segments);
	ASSERT_EQ(bounces ? event.segments : 0, event.bounced);
	info = test_edu_info(session);
	ASSERT_EQ(translated, !!(info.flags & EDU_INFO_IOMMU));
	ASSERT_EQ(snoops_in(mode), !(info.flags & EDU_INFO_NONCOHERENT));
	if (bits)
		ASSERT_EQ(bits, info.address_bits);
	close(session);

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/iommu_group/type",
		 event.device);
	if (translated || mode == MODE_PASSTHROUGH) {
		/* Neither passed through, nor unmapped later than told; or the former. */
		ASSERT_LT(0, read_text(path, type, sizeof(type)));
		ASSERT_EQ(0, strcmp(translated ? "DMA\n" : "identity\n", type));
	} else {
		ASSERT_NE(0, access(path, F_OK));
	}
}

/*
 * Fails unless the machine is in the mode that COHERENCY_MODE names, and returns
 * the bits of the DMA mask that devices have in it. @fd is /dev/vmemexp.
 */
static inline unsigned int
__test_coherency_mode(struct __test_metadata *_metadata, int fd)
{
	enum coherency_mode mode = coherency_mode();
	volatile char *page = map_anon(page_size());
	unsigned int bits;
	int dmabuf;

	ASSERT_NE(MODE_NONE, mode) {
		TH_LOG("COHERENCY_MODE=%s", getenv("COHERENCY_MODE"));
	}
	ASSERT_NE(MAP_FAILED, (void *)page);
	*page = 1;
	dmabuf = __test_export_range(_metadata, fd, page, page_size(), O_RDWR);
	bits = __edu_address_bits(_metadata, mode, dmabuf);
	__test_mapping(_metadata, dmabuf, bits, bounces_in(mode));
	/* It is the mask that makes the device bounce, and nothing else. */
	if (mode == MODE_NARROW)
		__test_mapping(_metadata, dmabuf, 0, false);
	close(dmabuf);
	munmap((void *)page, page_size());
	return bits;
}

#define test_coherency_mode() __test_coherency_mode(_metadata, self->fd)

#endif /* VMEMEXP_COHERENCY_H */

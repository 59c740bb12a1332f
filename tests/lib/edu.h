/* SPDX-License-Identifier: GPL-2.0 */
/* QEMU's edu device, which moves data by DMA, and the ways from it to memory. */
#ifndef VMEMEXP_TEST_EDU_H
#define VMEMEXP_TEST_EDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"
#include "../modules/edu/vmemexp_edu.h"

enum coherency_mode {
	MODE_NONE,
	MODE_DIRECT,	/* devices work on the memory itself */
	MODE_NARROW,	/* too few address bits for it: they bounce */
	MODE_FORCE,	/* all devices bounce: swiotlb=force */
	MODE_IOMMU,	/* addresses are translated, and what is not mapped faults */
	MODE_SNOOPED,	/* the same, and devices snoop the CPUs' caches */
	MODE_PASSTHROUGH, /* there is an IOMMU, which leaves devices alone */
};

/* The mode that the environment names; the tests check that it is true. */
enum coherency_mode coherency_mode(void);
/* @bits: of the device's DMA mask, 0 for as many as there can be. */
int _test_edu_attach(int session, int dmabuf, unsigned int device, unsigned int bits);
int _test_edu_map(int session, unsigned int direction);
/* @request is EDU_IOC_READ or EDU_IOC_WRITE. */
int _test_edu_transfer(int session, unsigned long request, uint64_t offset,
		       const volatile void *buf, size_t length, unsigned int flags) ADDRESS_ONLY(4);
/* Devices that the driver serves. */
unsigned int edu_devices(void);
bool bounces_in(enum coherency_mode mode);
bool translates_in(enum coherency_mode mode);
/* The devices of x86 always do. */
bool snoops_in(enum coherency_mode mode);

#endif /* VMEMEXP_TEST_EDU_H */

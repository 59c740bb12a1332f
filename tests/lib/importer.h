/* SPDX-License-Identifier: GPL-2.0 */
/* The test importer; a session is an open file of it. */
#ifndef VMEMEXP_TEST_IMPORTER_H
#define VMEMEXP_TEST_IMPORTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"
#include "../modules/importer/vmemexp_importer.h"

bool importer_present(void);
int _test_importer_attach(int session, int dmabuf, unsigned int device);
/* @request is IMPORTER_IOC_MAP, _BEGIN_CPU or _END_CPU. */
int _test_importer_direction(int session, unsigned long request, unsigned int direction);
int _test_importer_map(int session, unsigned int direction);
int _test_importer_transfer(int session, unsigned long request, uint64_t offset,
			    const volatile void *buf, size_t length) ADDRESS_ONLY(4);
/* Cuts its own scatterlist down, and leaves it so. */
int _test_importer_edit(int session, unsigned int nents, uint64_t skip, uint64_t trim);
/* Ends it behind its first @nents segments, for all who walk over it. */
int _test_importer_mark_end(int session, unsigned int nents);
/*
 * The errno of a vmap that the exporter refuses by EINVAL: before 6619ccf1bb1d (v5.11)
 * an importer saw nothing but NULL.
 */
int vmap_refused(void);

#endif /* VMEMEXP_TEST_IMPORTER_H */

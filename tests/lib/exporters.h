/* SPDX-License-Identifier: GPL-2.0 */
/* Dma-bufs of other exporters, or -1 if the kernel has none. */
#ifndef VMEMEXP_TEST_EXPORTERS_H
#define VMEMEXP_TEST_EXPORTERS_H

#include <stdbool.h>
#include <stddef.h>

int make_udmabuf(size_t size);
int make_heap_dmabuf_for(size_t size, unsigned int access);
int make_heap_dmabuf(size_t size);
bool is_vgem(int card);
/* Opens vgem's card, or returns -1. */
int open_vgem(void);
/* A dumb buffer of vgem, exported by PRIME; -1 if it is not there. */
int make_vgem_dmabuf(size_t size);

/* Each is asked for one, or loaded: the name of what is missing, or NULL. */
const char *need_udmabuf(void);
const char *need_heap(void);
const char *need_vgem(void);

#endif /* VMEMEXP_TEST_EXPORTERS_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pictures of the screen, taken by the host: what the command "screendump" does, for
 * programs that do something meanwhile, or that look at a picture themselves.
 */
#ifndef VMEMEXP_TEST_SCREENDUMP_H
#define VMEMEXP_TEST_SCREENDUMP_H

#include <stdint.h>

/* Asks for @count pictures; returns a descriptor that can be read when they are taken. */
int screendump_begin(unsigned int count);
/* Waits for that, and closes it. Returns 0 or a negative errno. */
int screendump_end(int port);

/* The picture that was taken last, as XRGB8888. Returns 0 or a negative errno. */
int screendump_read(uint32_t *pixels, unsigned int width, unsigned int height);

#endif /* VMEMEXP_TEST_SCREENDUMP_H */

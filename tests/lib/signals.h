/* SPDX-License-Identifier: GPL-2.0 */
/* Accesses to memory that may end with a signal. */
#ifndef VMEMEXP_TEST_SIGNALS_H
#define VMEMEXP_TEST_SIGNALS_H

#include <setjmp.h>
#include <stdbool.h>

/*
 * Where a thread goes on after SIGBUS or SIGSEGV, while it has set may_signal. Any other such
 * signal ends the process.
 */
extern __thread sigjmp_buf after_signal;
extern __thread volatile bool may_signal;

/* From then on, the process survives accesses of the next function. */
void catch_signals(void);
/* The signal that reading or writing the byte raises, or 0. */
int signal_of(volatile unsigned char *byte, bool write);

#endif /* VMEMEXP_TEST_SIGNALS_H */

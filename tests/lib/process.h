/* SPDX-License-Identifier: GPL-2.0 */
/* Child processes, and file descriptors on their way to another process. */
#ifndef VMEMEXP_TEST_PROCESS_H
#define VMEMEXP_TEST_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* A child that does not outlive the test. */
pid_t fork_child(void);
/* A child that has ended and was not waited for, or 0. */
pid_t ended_child(void);
/* Exit status of a child, or 128 plus the signal that killed it. */
int wait_for_child(pid_t pid);
/*
 * Waits until a thread sleeps: in state S where a signal would wake it, in state D elsewhere;
 * @states has those that count. @tid is 0 until the thread has written it. Returns false if the
 * thread ends, or never sleeps.
 */
bool wait_until_asleep(pid_t pid, const pid_t *tid, const char *states);
/* Returns 0 or a negative errno. */
int send_fd(int sock, int fd);
/* Returns the file descriptor, or a negative errno. */
int receive_fd(int sock);
void sleep_ms(unsigned int ms);

#endif /* VMEMEXP_TEST_PROCESS_H */

// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "state.h"

pid_t fork_child(void)
{
	pid_t parent = getpid(), child = fork();

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent may have ended before. */
		if (getppid() != parent)
			_exit(EXIT_FAILURE);
	}
	return child;
}

pid_t ended_child(void)
{
	siginfo_t info = {};

	waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
	return info.si_pid;
}

int wait_for_child(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool wait_until_asleep(pid_t pid, const pid_t *tid, const char *states)
{
	char path[64], text[512], state;

	for (int ms = 0; ms < RELEASE_TIMEOUT_MS; ms++) {
		pid_t now = __atomic_load_n(tid, __ATOMIC_SEQ_CST);

		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, now);
		if (now && read_text(path, text, sizeof(text)) < 0)
			return false;
		/* The name of the program is in brackets, and has none. */
		if (now && sscanf(strrchr(text, ')') ?: "", ") %c", &state) == 1) {
			if (strchr(states, state))
				return true;
			if (state == 'Z')
				return false;
		}
		sleep_ms(1);
	}
	return false;
}

/* A message of one byte, which the kernel wants, with room for one descriptor. */
struct fd_message {
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov;
	struct msghdr msg;
};

static void init_fd_message(struct fd_message *m)
{
	*m = (struct fd_message){
		.iov = { &m->byte, 1 },
		.msg = {
			.msg_iov = &m->iov,
			.msg_iovlen = 1,
			.msg_control = m->control.space,
			.msg_controllen = sizeof(m->control.space),
		},
	};
}

int send_fd(int sock, int fd)
{
	struct fd_message m;
	struct cmsghdr *cmsg;

	init_fd_message(&m);
	cmsg = CMSG_FIRSTHDR(&m.msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	return sendmsg(sock, &m.msg, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

int receive_fd(int sock)
{
	struct fd_message m;
	struct cmsghdr *cmsg;
	int fd;

	init_fd_message(&m);
	if (recvmsg(sock, &m.msg, MSG_CMSG_CLOEXEC) != 1)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&m.msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EBADMSG;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
	return fd;
}

void sleep_ms(unsigned int ms)
{
	struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };

	nanosleep(&t, NULL);
}

// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * send-fd: memory of one process in another one, without a copy
 *
 *   cc -o send-fd send-fd.c $(pkg-config --cflags --libs libvmemexp)
 *   ./send-fd serve /tmp/socket <picture     exports what it has read, for one client
 *   ./send-fd fetch /tmp/socket >picture     the client, which needs no /dev/vmemexp
 *
 * With the descriptor goes what a dma-buf does not tell: where the bytes begin, and how
 * many they are.
 */
#include <err.h>
#include <linux/dma-buf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <libvmemexp.h>

struct message {
	uint64_t offset;
	uint64_t length;
};

#define MAX_LENGTH	(1024UL * 1024 * 1024)

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static struct msghdr header_for(struct iovec *data, union control *control)
{
	struct msghdr msg = { .msg_iov = data, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(*control) };

	memset(control, 0, sizeof(*control));
	return msg;
}

static void send_dmabuf(int client, int dmabuf, struct message *message)
{
	struct iovec data = { message, sizeof(*message) };
	union control control;
	struct msghdr msg = header_for(&data, &control);

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &dmabuf, sizeof(int));
	if (sendmsg(client, &msg, MSG_NOSIGNAL) != sizeof(*message))
		err(EXIT_FAILURE, "not sent");
}

static int receive_dmabuf(int server, struct message *message)
{
	struct iovec data = { message, sizeof(*message) };
	union control control;
	struct msghdr msg = header_for(&data, &control);
	int dmabuf;

	if (recvmsg(server, &msg, MSG_CMSG_CLOEXEC) != sizeof(*message) ||
	    msg.msg_controllen < CMSG_LEN(sizeof(int)) ||
	    control.header.cmsg_type != SCM_RIGHTS)
		errx(EXIT_FAILURE, "the server has sent something else");
	memcpy(&dmabuf, CMSG_DATA(&control.header), sizeof(int));
	return dmabuf;
}

static void serve(int listener)
{
	struct message message = { 0 };
	struct vmemexp_error error;
	struct vmemexp_buf *buf;
	struct vmemexp *v;
	int client;
	char why[256], done, *memory;
	ssize_t n;

	/* Whole pages; those that nothing is read into are never there. */
	memory = mmap(NULL, MAX_LENGTH, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		err(EXIT_FAILURE, "no memory");
	while ((n = read(STDIN_FILENO, memory + message.length, MAX_LENGTH - message.length)) > 0)
		message.length += n;

	v = vmemexp_open(NULL, &error);
	if (!v || vmemexp_export(v, memory, vmemexp_aligned_size(message.length), 0, &buf, &error))
		errx(EXIT_FAILURE, "no export: %s", vmemexp_strerror(&error, why, sizeof(why)));
	client = accept(listener, NULL, NULL);
	if (client < 0)
		err(EXIT_FAILURE, "no client");
	message.offset = vmemexp_buf_offset(buf);
	send_dmabuf(client, vmemexp_buf_fd(buf), &message);
	/* The client has the memory, as long as it wants; this waits until it is done. */
	while (read(client, &done, 1) > 0)
		;
	vmemexp_buf_unref(buf);
	vmemexp_close(v);
}

static void fetch(int server)
{
	struct dma_buf_sync sync = { DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ };
	struct message message;
	int dmabuf = receive_dmabuf(server, &message);
	size_t size = lseek(dmabuf, 0, SEEK_END);
	char *view;

	/* It is the server's word, not the kernel's. */
	if (message.offset > size || message.length > size - message.offset)
		errx(EXIT_FAILURE, "the server has told another length");
	view = mmap(NULL, size, PROT_READ, MAP_SHARED, dmabuf, 0);
	if (view == MAP_FAILED || ioctl(dmabuf, DMA_BUF_IOCTL_SYNC, &sync))
		err(EXIT_FAILURE, "the dma-buf cannot be read");
	if (fwrite(view + message.offset, 1, message.length, stdout) != message.length ||
	    fflush(stdout))
		err(EXIT_FAILURE, "not written");
	sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ;
	if (ioctl(dmabuf, DMA_BUF_IOCTL_SYNC, &sync))
		err(EXIT_FAILURE, "the access does not end");
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (argc != 3 || strlen(argv[2]) >= sizeof(address.sun_path))
		errx(2, "usage: send-fd serve|fetch SOCKET");
	memcpy(address.sun_path, argv[2], strlen(argv[2]) + 1);
	if (!strcmp(argv[1], "fetch")) {
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
			err(EXIT_FAILURE, "%s", argv[2]);
		fetch(fd);
	} else {
		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
			err(EXIT_FAILURE, "%s", argv[2]);
		serve(fd);
	}
	return EXIT_SUCCESS;
}

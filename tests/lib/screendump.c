// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "screendump.h"

#define PORT	"/dev/virtio-ports/org.vmemexp.screen"
#define PICTURE	"/run/host/screen.ppm"

int screendump_begin(unsigned int count)
{
	int port = open(PORT, O_RDWR | O_CLOEXEC);
	char request[32];
	int length;

	if (port < 0)
		return -errno;
	/* In one piece, and without the ioctl by which stdio looks for a terminal. */
	length = snprintf(request, sizeof(request), "screendump %u\n", count);
	if (write(port, request, length) == length)
		return port;
	close(port);
	return -EIO;
}

int screendump_end(int port)
{
	static const char done[] = "done\n";
	char answer[256];
	size_t length = 0;
	ssize_t got;

	do {
		got = read(port, answer + length, sizeof(answer) - 1 - length);
		if (got <= 0)
			break;
		length += got;
	} while (answer[length - 1] != '\n' && length < sizeof(answer) - 1);
	close(port);
	answer[length] = '\0';
	if (!strcmp(answer, done))
		return 0;
	fprintf(stderr, "# screendump: %s", answer);
	return -EIO;
}

int screendump_read(uint32_t *pixels, unsigned int width, unsigned int height)
{
	FILE *file = fopen(PICTURE, "re");
	unsigned int w, h, samples;
	unsigned char rgb[3];
	int ret = -EIO;

	if (!file)
		return -errno;
	if (fscanf(file, "P6 %u %u %u", &w, &h, &samples) != 3 || fgetc(file) != '\n' ||
	    samples != 255)
		goto out;
	ret = -ERANGE;
	if (w != width || h != height)
		goto out;
	ret = -EIO;
	for (size_t i = 0; i < (size_t)w * h; i++) {
		if (fread(rgb, 1, sizeof(rgb), file) != sizeof(rgb))
			goto out;
		pixels[i] = (uint32_t)rgb[0] << 16 | rgb[1] << 8 | rgb[2];
	}
	ret = 0;
out:
	fclose(file);
	return ret;
}

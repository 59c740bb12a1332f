// SPDX-License-Identifier: GPL-2.0
/*
 * show-frames: what the RTOS draws, on a screen, without a copy
 *
 * Maps the memory that the RTOS shares, exports it once, and has the display's
 * driver import it. Then the frames are shown as the RTOS finishes them. No
 * pixel is read or written by this program.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared.h"

#define EXIT_USAGE		2

/*
 * Runs the command while the frame is on the screen. Meanwhile the RTOS goes on
 * as far as it may, which is up to the buffer that is shown.
 */
static void hold_frame(const struct shared *shared, uint32_t frame, const char *command)
{
	uint32_t last = frame + RTOS_NR_BUFFERS - 1;

	wait_for_frame(shared, last);
	printf("shown:    frame %u; the RTOS has drawn %u\n", frame, last);
	fflush(stdout);
	if (system(command))
		errx(EXIT_FAILURE, "%s failed", command);
	if (frames_drawn(shared) != last)
		errx(EXIT_FAILURE, "the RTOS has drawn over frame %u while it was shown",
		     frame);
}

int main(int argc, char **argv)
{
	const char *where = RTOS_DEVICE, *card, *command;
	struct shared shared;
	struct screen screen;
	uint32_t frame, stop_at;
	int i, option, flags = 0;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: show-frames [-m FILE[@OFFSET]] [-s] CARD COMMAND FRAME...\n"
		     "Show the frames of the RTOS on the screen of CARD (/dev/dri/card0), one after\n"
		     "the other. At each FRAME, wait until the shell has run COMMAND. End behind the\n"
		     "last. Exits with 0 if all went well.\n"
		     "  -m FILE[@OFFSET]  what to map (default: " RTOS_DEVICE ")\n"
		     "  -s                open it with O_SYNC: /dev/mem of ARM maps it write-combined");
		return EXIT_SUCCESS;
	}
	while ((option = getopt(argc, argv, "+m:s")) != -1) {
		if (option == 'm')
			where = optarg;
		else if (option == 's')
			flags = O_SYNC;
		else
			exit(EXIT_USAGE);
	}
	if (argc - optind < 3)
		errx(EXIT_USAGE, "arguments are missing (try show-frames --help)");
	card = argv[optind++];
	command = argv[optind++];

	shared_open(&shared, where, flags);
	screen_open(&screen, card, &shared);
	frame = frames_released(&shared);
	for (i = optind; i < argc; i++) {
		stop_at = parse_frame(argv[i], frame);
		while (frame < stop_at) {
			wait_for_frame(&shared, ++frame);
			screen_show(&screen, frame);
			/* The frame before has left the screen. */
			release_frame(&shared, frame - 1);
		}
		hold_frame(&shared, frame, command);
	}
	screen_close(&screen);
	return EXIT_SUCCESS;
}

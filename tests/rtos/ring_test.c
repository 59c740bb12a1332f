// SPDX-License-Identifier: GPL-2.0
/*
 * The example rtos-ring, with the RTOS on the second CPU: each frame that it hands on is
 * the one that the RTOS has drawn, in every pixel, and goes back to the RTOS. For the
 * guest of tests/suites/examples, which has the example in /examples.
 */
#include <linux/types.h>
#include <kselftest_harness.h>

#include <stdlib.h>

#include "../modules/rtos/rtos.h"

/* The ring goes around four times; it stands still if frames do not go back. */
#define FRAMES	12

static __u32 pixels[RTOS_WIDTH * RTOS_HEIGHT];

static int first_difference(__u32 frame)
{
	__u32 x, y;

	for (y = 0; y < RTOS_HEIGHT; y++)
		for (x = 0; x < RTOS_WIDTH; x++)
			if (pixels[y * RTOS_WIDTH + x] != rtos_pixel(frame, x, y))
				return y * RTOS_WIDTH + x;
	return -1;
}

TEST(frames_are_those_of_the_rtos)
{
	char command[64];
	FILE *frames;
	__u32 frame;

	snprintf(command, sizeof(command), "/examples/rtos-ring /dev/vmemexp-rtos %d", FRAMES);
	frames = popen(command, "r");
	ASSERT_NE(NULL, frames);
	for (frame = 1; frame <= FRAMES; frame++) {
		ASSERT_EQ(1, fread(pixels, sizeof(pixels), 1, frames));
		EXPECT_EQ(-1, first_difference(frame)) {
			TH_LOG("frame %u", frame);
		}
	}
	EXPECT_EQ(0, fread(pixels, 1, 1, frames));
	EXPECT_EQ(0, pclose(frames));
}

TEST(frames_are_none_without_the_carve_out)
{
	EXPECT_EQ(1, WEXITSTATUS(system("/examples/rtos-ring /dev/none 1")));
	/* The driver has no memory there. */
	EXPECT_EQ(1, WEXITSTATUS(system("/examples/rtos-ring /dev/vmemexp-rtos 1 0x40000000")));
}

TEST_HARNESS_MAIN

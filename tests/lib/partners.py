# SPDX-License-Identifier: GPL-2.0
"""Shared by the tests of examples: a directory and a judge of commands, and vivid as the
partner of those that give video.
"""
from __future__ import annotations

import re
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy

EXAMPLES = Path("/examples")
BUFFERS = Path("/sys/kernel/debug/vmemexp/buffers")


def run(*command, **options):
    """Runs a command to its end."""
    return subprocess.run([str(word) for word in command], check=False, capture_output=True,
                          **options)


class Example(unittest.TestCase):
    """In a directory of its own; nothing is exported any more afterwards."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)

    def tearDown(self):
        self.assertEqual(1, len(BUFFERS.read_text(encoding="ascii").splitlines()))

    def passes(self, *command, **options):
        """The output of a command that succeeds."""
        ended = run(*command, **options)
        self.assertEqual(0, ended.returncode, f"{command}: {ended.stderr.decode()}"
                         f"{ended.stdout[-500:].decode(errors='replace')}")
        return ended.stdout

    def fails(self, status, words, *command, **options):
        """It says so and why, as a program that died would not."""
        ended = run(*command, **options)
        self.assertEqual(status, ended.returncode, f"{command}: {ended.stderr.decode()}")
        self.assertRegex(ended.stderr.decode(), words)


class Vivid(Example):
    """A video output, and an input that sees what it shows."""

    width, height = 320, 180
    pixelformat, bits = "YUYV", 16
    # Parameters of the module, the standard of both, and the connection between them.
    options = ("input_types=2", "num_outputs=1")
    timing = "--set-standard=ntsc"
    plug = "S-Video"

    def setUp(self):
        super().setUp()
        # A program that has ended may have left it: v4l2sink keeps the device open.
        run("rmmod", "vivid")
        self.passes("modprobe", "vivid", "node_types=0x101", *self.options)
        self.addCleanup(run, "rmmod", "vivid")
        nodes = {}
        for node in sorted(Path("/sys/class/video4linux").glob("video*")):
            nodes["out" if "out" in (node / "name").read_text() else "cap"] = f"/dev/{node.name}"
        self.output, self.input = nodes["out"], nodes["cap"]
        for node in nodes.values():
            self.passes("v4l2-ctl", "-d", node, self.timing)
        self.passes("v4l2-ctl", "-d", self.output,
                    f"--set-fmt-video-out=width={self.width},height={self.height},pixelformat={self.pixelformat}")
        self.passes("v4l2-ctl", "-d", self.input,
                    f"--set-fmt-video=width={self.width},height={self.height},pixelformat={self.pixelformat}")
        # Connects the input to the output, with nothing written over it.
        self.passes("v4l2-ctl", "-d", self.input, "-c", "osd_text_mode=2")
        menu = self.passes("v4l2-ctl", "-d", self.input, "--list-ctrls-menus").decode()
        control = rf"\w*{self.plug.lower().replace('-', '_')}\w*connected\w*"
        entry = re.search(rf"(?s)({control}) .*?(\d+): Output {self.plug}", menu)
        self.assertIsNotNone(entry, menu)
        self.passes("v4l2-ctl", "-d", self.input, "-c", f"{entry[1]}={entry[2]}")

    def drawn(self, frame):
        """Frame number such, as the examples draw it."""
        y, x = numpy.indices((self.height, self.width))
        return numpy.stack([16 + (x + y + 5 * frame) % 220, numpy.full(x.shape, 128)],
                           2).astype(numpy.uint8)

    def sees(self, *program):
        """The input gets whole frames, right in every byte and one after the other."""
        size = self.width * self.height * self.bits // 8
        captured = self.dir / "captured"
        frames = [self.drawn(frame).tobytes() for frame in range(44)]
        with subprocess.Popen([str(word) for word in program]) as running:
            try:
                # The driver maps what the output has first; frames before that are no pictures.
                while not any(line.split()[7] != "0" for line in BUFFERS.read_text().splitlines()[1:]):
                    self.assertIsNone(running.poll())
                    time.sleep(0.05)
                self.passes("v4l2-ctl", "-d", self.input, "--stream-mmap", "--stream-skip=5",
                            "--stream-count=6", f"--stream-to={captured}", timeout=240)
                self.assertIsNone(running.poll())
                held = BUFFERS.read_text(encoding="ascii")
                # vivid connects the two only if they agree.
                formats = b"".join(self.passes("v4l2-ctl", "-d", node, option) for node, option in
                                   ((self.output, "--get-fmt-video-out"), (self.input, "--get-fmt-video")))
            finally:
                running.terminate()
        self.assertEqual(3, len(re.findall(f"(?m) {Path(program[0]).name}$", held)), held)
        data = captured.read_bytes()
        self.assertEqual(6 * size, len(data))
        # The ramp comes back to where it was after 44 frames.
        seen = [frames.index(data[at:at + size]) if data[at:at + size] in frames else None
                for at in range(0, len(data), size)]
        self.assertNotIn(None, seen, f"begins with {data[:16].hex()}, {len(set(data))} values; "
                         f"{formats.decode()}")
        self.assertGreater(len(set(seen)), 1)

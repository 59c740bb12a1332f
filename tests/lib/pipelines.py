# SPDX-License-Identifier: GPL-2.0
"""Pipelines of GStreamer with vmemexpupload, for a guest of Debian with python3-gi.

Import it before gi.repository.Gst: it says where plugins are.
"""
from __future__ import annotations

import ctypes
import gc
import mmap
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gi

from partners import BUFFERS, Example, Vivid, run

PLUGIN = "/gstreamer/libgstvmemexp.so"
# Plugins that the tests use. An emulated CPU takes a minute to look at all plugins.
USED = ("app coreelements coretracers kms matroska ogg playback rawparse shm theora "
        "typefindfunctions unixfd video4linux2 videoconvert videoconvertscale videorate "
        "videotestsrc vpx waylandsink").split()
# A process that another test has started has its own.
LOG = Path(os.environ.get("GST_DEBUG_FILE", "/tmp/gstreamer.log"))
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# A source whose memory is from malloc(), as a decoder's with a pool of its own.
OWN_MEMORY = "identity drop-allocation=true"
# The words of each element that copies a frame.
COPIES = re.compile(r"GST_PERFORMANCE.*(frame copy|copying|copy video|slow copy)")


def prepare():
    """The environment, also that of other processes."""
    plugins = Path("/tmp/plugins")
    plugins.mkdir(exist_ok=True)
    system = next(Path("/usr/lib").glob("*/gstreamer-1.0"))
    for name in [system / f"libgst{used}.so" for used in USED] + [Path(PLUGIN)]:
        link = plugins / name.name
        if name.exists() and not link.exists():
            link.symlink_to(name)
    os.environ.update(
        # Elements for devices are in it as well, which differ between programs.
        GST_PLUGIN_SYSTEM_PATH_1_0=str(plugins), GST_REGISTRY=f"/tmp/registry-{Path(sys.argv[0]).name}",
        GST_REGISTRY_FORK="no", GST_DEBUG_NO_COLOR="1", GST_DEBUG_FILE=str(LOG),
        GST_DEBUG="GST_PERFORMANCE:5,vmemexpupload:4,GST_TRACER:7,wl_dmabuf:1,wldisplay:1",
        XDG_RUNTIME_DIR="/tmp",
        LIBGL_ALWAYS_SOFTWARE="1", GST_TRACERS="leaks")


prepare()
gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402  pylint: disable=wrong-import-position

Gst.init(None)

ENDS = Gst.MessageType.EOS | Gst.MessageType.ERROR
TOLD = ENDS | Gst.MessageType.WARNING | Gst.MessageType.INFO
# A busy machine is slow; what hangs is to be told of all the same.
PATIENCE = 240 * Gst.SECOND


def pinned():
    """Pages that are pinned by FOLL_PIN."""
    Path("/proc/sys/vm/stat_refresh").read_bytes()
    stat = dict(line.split() for line in Path("/proc/vmstat").read_text("ascii").splitlines())
    return int(stat["nr_foll_pin_acquired"]) - int(stat["nr_foll_pin_released"])


def resident():
    """Bytes of memory of this process's own, without what was freed and malloc() has kept."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # Pages of libraries come and go with the page cache.
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))[1]) << 10


def told_since(at):
    """The lines that GStreamer has logged behind that place in the log."""
    with open(LOG, encoding="utf-8", errors="replace") as log:
        log.seek(at)
        return log.read()


def alive():
    """How many objects of each type there are, as GStreamer's own tracer sees it."""
    gc.collect()
    tracer, = Gst.tracing_get_active_tracers()
    at = LOG.stat().st_size if LOG.exists() else 0
    tracer.emit("log-live-objects")
    return Counter(re.findall(r":: object-alive, type-name=\(string\)(\w+)", told_since(at)))


def visible(data, form, width, height):
    """The bytes of frames without what is between their rows, where anything may be."""
    def plane(bytes_of_row, rows):
        return -(-bytes_of_row // 4) * 4, bytes_of_row, rows

    chroma = (width + 1) // 2, (height + 1) // 2
    planes = {"NV12": [plane(width, height), plane(2 * chroma[0], chroma[1])],
              "I420": [plane(width, height), plane(*chroma), plane(*chroma)],
              "RGB": [plane(3 * width, height)], "BGRx": [plane(4 * width, height)],
              "YUY2": [plane(2 * width, height)]}[form]
    rows, at = [], 0
    while at < len(data):
        for stride, length, count in planes:
            rows += [data[row:row + length] for row in range(at, at + stride * count, stride)]
            at += stride * count
    assert at == len(data), (at, len(data), form, width, height)
    return b"".join(rows)


def buffer_of(data, number=1, prefix=0):
    """A frame in NUMBER memories, each of which starts PREFIX bytes into a page."""
    params = Gst.AllocationParams()
    params.align = mmap.PAGESIZE - 1
    params.prefix = prefix
    buffer = Gst.Buffer()
    for _ in range(number):
        buffer.append_memory(Gst.Allocator.find("SystemMemory").alloc(len(data) // number, params))
    buffer.fill(0, data)
    return buffer


def exports():
    """The lines of the list of buffers."""
    return BUFFERS.read_text(encoding="ascii").splitlines()[1:]


class Pipeline:
    """From its text to its end; with "up" as the name of the element."""

    def __init__(self, text):
        self.log = LOG.stat().st_size if LOG.exists() else 0
        self.pipeline = Gst.parse_launch(text)
        self.bus = self.pipeline.get_bus()
        self.told = {"warning": [], "info": [], "error": []}
        self.last_stats = None

    def __getitem__(self, name):
        return self.pipeline.get_by_name(name)

    def set(self, state):
        """Asks for a state, which may come later."""
        return self.pipeline.set_state(state)

    def play(self):
        """Starts it."""
        self.set(Gst.State.PLAYING)
        return self

    def take(self, message):
        """Keeps what a message says; returns true if it is the end."""
        if message.type == Gst.MessageType.WARNING:
            self.told["warning"].append(message.parse_warning()[0].message)
        elif message.type == Gst.MessageType.INFO:
            self.told["info"].append(message.parse_info()[0].message)
        elif message.type == Gst.MessageType.ERROR:
            error, debug = message.parse_error()
            self.told["error"].append(f"{error.message} ({debug})")
        return bool(message.type & ENDS)

    def wait(self):
        """To the end of the stream, or to an error."""
        while True:
            message = self.bus.timed_pop_filtered(PATIENCE, TOLD)
            if message is None:
                raise AssertionError(f"no end within {PATIENCE // Gst.SECOND} s: {self.told}")
            if self.take(message):
                return self

    def wait_state(self):
        """Until it is in the state that was asked for."""
        result, state, _ = self.pipeline.get_state(PATIENCE)
        if result == Gst.StateChangeReturn.FAILURE:
            self.wait()
            raise AssertionError(f"no state: {self.told}")
        return state

    def stats(self, name="up"):
        """The counters of the element NAME."""
        text = self[name].get_property("stats").to_string()
        found = {key: int(value) for key, value in re.findall(r"(\w+)=\(guint64\)(\d+)", text)}
        return found["exported"], found["reused"], found["copied"], found["passed"]

    def end(self):
        """Stops it. Nothing of it is left afterwards."""
        if self.pipeline is None:
            return self
        if self["up"] is not None:
            self.last_stats = self.stats()
        # In NULL the bus is emptied.
        while message := self.bus.pop_filtered(TOLD):
            self.take(message)
        self.set(Gst.State.NULL)
        self.pipeline = self.bus = None
        gc.collect()
        return self

    def said(self):
        """The lines that GStreamer has logged since it was made."""
        return told_since(self.log)

    def copies(self):
        """How often a frame was copied since it was made, as GStreamer tells."""
        return sum(bool(COPIES.search(line)) for line in self.said().splitlines())


class Pipelines(Example):
    """Each test leaves as many pages pinned, dma-bufs open and objects alive as there were."""

    # Objects that a sink leaves behind, even without the element in the pipeline.
    leaky = Counter()

    def setUp(self):
        super().setUp()
        self.pipelines = []
        self.alive = alive()
        self.before = pinned(), self.descriptors()

    def tearDown(self):
        for pipeline in self.pipelines:
            pipeline.end()
        self.assertEqual([], exports())
        super().tearDown()
        self.assertEqual(self.before, (pinned(), self.descriptors()))
        self.assertEqual(Counter(), alive() - self.alive - self.leaky)

    @staticmethod
    def descriptors():
        """Open dma-bufs and devices; v4l2sink may keep its own device open for longer."""
        names = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                names.append(os.readlink(f"/proc/self/fd/{fd}"))
            except FileNotFoundError:
                # It was the descriptor of the listing.
                pass
        return [name for name in names if "dmabuf" in name or "vmemexp" in name]

    def scatter(self):
        """Every other page of much memory is what the kernel gives out first from now on."""
        # A huge page that a frame happened to be in would be one piece.
        self.addCleanup(HUGE_PAGES.write_text, re.search(r"\[(\w+)\]", HUGE_PAGES.read_text("ascii"))[1],
                        encoding="ascii")
        HUGE_PAGES.write_text("madvise", encoding="ascii")
        # MADV_DONTNEED gives nothing of shared memory back.
        pages = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.addCleanup(pages.close)
        pages.write(b"\1" * len(pages))
        for at in range(0, len(pages), 2 * mmap.PAGESIZE):
            pages.madvise(mmap.MADV_DONTNEED, at, mmap.PAGESIZE)

    def pipeline(self, text):
        """It is stopped when the test ends."""
        made = Pipeline(text)
        self.pipelines.append(made)
        return made

    def plays(self, text):
        """To the end of the stream, without an error; it is not stopped yet."""
        played = self.pipeline(text).play().wait()
        self.assertEqual([], played.told["error"])
        return played

    def file_of(self, text, name="frames"):
        """The bytes that a pipeline gives."""
        path = self.dir / name
        path.unlink(missing_ok=True)
        ended = self.plays(f"{text} ! filesink location={path}").end()
        self.assertEqual([], ended.told["warning"])
        return path.read_bytes()

    def launch(self, text, *before, **environment):
        """gst-launch-1.0 in a process of its own, behind the words of another command."""
        log = self.dir / "launch.log"
        return run(*before, "gst-launch-1.0", *text.split(),
                   env={**os.environ, "GST_DEBUG_FILE": str(log), **environment})


class Screen(Pipelines):
    """A display whose driver imports."""

    width, height = 640, 480
    sink = "kmssink name=sink driver-name=cirrus"

    def equal(self, picture, data):
        """Compares a picture with a frame of BGRx, in every pixel."""
        expected = self.dir / "expected.ppm"
        pixels = bytearray(self.width * self.height * 3)
        for out, into in ((0, 2), (1, 1), (2, 0)):
            pixels[out::3] = data[into::4]
        expected.write_bytes(b"P6\n%d %d\n255\n" % (self.width, self.height) + pixels)
        told = self.passes("compare-screen", picture, expected).decode()
        self.assertIn(f"{self.width * self.height} pixels compared, 0 differ", told)

    def frame(self, data):
        """The screen shows a frame of BGRx."""
        self.passes("screendump")
        picture = self.dir / "screen.png"
        self.passes("cp", "/run/host/screen.png", picture)
        self.equal(picture, data)

    def raw_file(self, frames, name="frames.raw"):
        """A file of random frames, and the frames."""
        size = self.width * self.height * 4
        data = [os.urandom(size) for _ in range(frames)]
        path = self.dir / name
        path.write_bytes(b"".join(data))
        return path, data

    def parse(self, path, rate=30):
        """The beginning of a pipeline that reads such a file."""
        return (f"filesrc location={path} ! rawvideoparse width={self.width} height={self.height} "
                f"format=bgrx framerate={rate}/1")


class Output(Pipelines, Vivid):
    """v4l2sink io-mode=dmabuf-import, with vivid."""

    leaky = Counter("GstV4l2Sink GstV4l2BufferPool GstV4l2Allocator GstPad GstCaps".split())

    def source(self, frames):
        """Frames that differ, with what vivid's S-Video is particular about."""
        return (f"videotestsrc num-buffers={frames} pattern=ball ! video/x-raw,format=YUY2,"
                f"width={self.width},height={self.height},framerate=30000/1001,"
                "pixel-aspect-ratio=11/10,colorimetry=bt601,interlace-mode=interleaved")

    def sink(self):
        """The end of the pipeline."""
        # The driver sets the pace; on a busy machine the clock would have most frames dropped.
        return f"v4l2sink device={self.output} io-mode=dmabuf-import sync=false"

    def captured(self):
        """Six frames that the input sees."""
        path, size = self.dir / "captured", self.width * self.height * self.bits // 8
        self.passes("v4l2-ctl", "-d", self.input, "--stream-mmap", "--stream-skip=5",
                    "--stream-count=6", f"--stream-to={path}", timeout=240)
        data = path.read_bytes()
        self.assertEqual(6 * size, len(data))
        return [data[at:at + size] for at in range(0, len(data), size)]

    def input_sees(self, elements):
        """It gets frames that the source has drawn; what was exported then, and the pipeline."""
        size = self.width * self.height * self.bits // 8
        drawn = self.file_of(self.source(100))
        known = {drawn[at:at + size] for at in range(0, len(drawn), size)}
        playing = self.pipeline(f"{self.source(-1)} ! {elements} ! {self.sink()}").play()
        playing.wait_state()
        # On a busy machine, the input may see one frame six times, or few frames have come.
        for _ in range(30):
            seen = self.captured()
            if len(set(seen)) > 1 and sum(playing.stats()) > 20:
                break
        self.assertGreater(len(set(seen)), 1)
        held = exports()
        playing.end()
        self.assertEqual([True] * 6, [frame in known for frame in seen], seen[0][:32].hex())
        return held, playing


def start(*command, **options):
    """A command that goes on beside the test."""
    return subprocess.Popen([str(word) for word in command], **options)

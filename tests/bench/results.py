# SPDX-License-Identifier: GPL-2.0
"""Results of tests/bench/bench: read, judged, and made into tables.

A result is kept as JSON with one measurement a line, so that two of them can be
compared with diff as well. Times are medians unless something else is said.
"""
import json

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MEMORY = {"4k": "4 KiB pages", "thp": "transparent huge pages", "hugetlb": "hugetlb pages"}
SHARED = {
    "shared-thp": "shared memfd in transparent huge pages",
    "shared-hugetlb": "shared memfd in hugetlb pages",
}
CARVEOUTS = (
    "carveout", "carveout-fault", "carveout-huge", "paged", "paged-fault", "paged-huge",
)
PEERS = ("io_uring", "udmabuf", "heap+copy")
# Methods that give a dma-buf.
EXPORTERS = ("udmabuf", "heap+copy")
DMABUFS = ("udmabuf", "heap")
# Lists of so many ranges, LIST_BYTES in all.
RANGES = (1, 4, 16)
LIST_BYTES = 32 * MIB
SYNCS = ("sync-4k-unmapped", "sync-4k", "sync-row", "sync-rectangle", "sync-all")

# The words of the lines of bench, behind the first one.
FIELDS = {
    "time": ("operation", "method", "memory", "bytes", "runs", "min", "median"),
    "kept": ("method", "memory", "bytes", "extents", "buffers", "driver_bytes", "all_bytes"),
    "extents": ("memory", "bytes", "extents"),
    "absent": ("operation", "method", "memory", "bytes", "errno"),
}
# No device on x86 is not cache coherent.
MAY_BE_ABSENT = ("sync-rectangle-noncoherent", "sync-all-noncoherent")
PAGE = 4 * KIB
# 3840x2160 in 32 bits a pixel: 8100 pages.
UHD = 3840 * 2160 * 4
LISTS = {"time": "times", "kept": "kept", "extents": "extents", "absent": "absent"}


class Incomplete(Exception):
    """There is something that bench should have measured, and has not."""


class Results:
    """One run of bench."""

    def __init__(self, about, lists):
        self.about = about
        self.lists = lists
        self.times = {
            (row["operation"], row["method"], row["memory"], row["bytes"]): row
            for row in lists["times"]
        }
        self.extents = {
            (row["memory"], row["bytes"]): row["extents"] for row in lists["extents"]
        }

    def time(self, operation, method, memory, size):
        """The median, or None if that was not measured."""
        row = self.times.get((operation, method, memory, size))
        return row["median"] if row else None

    def need(self, operation, method, memory, size):
        """The median, which has to be there."""
        median = self.time(operation, method, memory, size)
        if median is None:
            raise Incomplete(f"{operation} of {method}, {memory}, {size} bytes")
        return median

    def sizes(self, operation, memory):
        """The sizes that OPERATION of vmemexp was measured for."""
        return sorted(
            size for o, method, m, size in self.times if (o, method, m) == (operation, "vmemexp", memory)
        )

    def empty_ioctl(self):
        """The cost of the way into the kernel and back, or None if that was not measured."""
        return min(
            (row["median"] for key, row in self.times.items() if key[0] == "empty-ioctl"),
            default=None,
        )

    def absent(self):
        """The measurements that could not be made though they should."""
        return [row for row in self.lists["absent"] if row["operation"] not in MAY_BE_ABSENT]


def parse(lines, about):
    """Makes Results of what bench has printed."""
    lists = {name: [] for name in LISTS.values()}
    ended = False
    for line in lines:
        kind, *words = line.split() or [""]
        if kind == "end":
            ended = True
        if kind not in FIELDS or len(words) != len(FIELDS[kind]):
            continue
        numbers = [int(word) if word.lstrip("-").isdigit() else word for word in words]
        lists[LISTS[kind]].append(dict(zip(FIELDS[kind], numbers)))
    if not ended:
        raise Incomplete("bench did not come to its end")
    return Results(about, lists)


def load(path):
    """Reads what save() has written."""
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    lists = {
        name: [dict(zip(FIELDS[kind], row)) for row in document[name]] for kind, name in LISTS.items()
    }
    return Results(document["about"], lists)


def save(results, path):
    """Writes RESULTS, one measurement a line."""
    parts = ['{\n"about": ' + json.dumps(results.about)]
    for kind, name in LISTS.items():
        rows = [json.dumps([row[field] for field in FIELDS[kind]]) for row in results.lists[name]]
        parts.append(f'"{name}": [\n' + ",\n".join(rows) + "\n]")
    with open(path, "w", encoding="utf-8") as file:
        file.write(",\n".join(parts) + "\n}\n")


# --- goals ---


class Goal:
    """Something that was promised, and what became of it."""

    def __init__(self, name, measured, limit, at_least=False, digits=2):
        self.name = name
        self.measured = measured
        self.limit = limit
        self.at_least = at_least
        self.digits = digits

    def met(self):
        """Judged by the rounded number, so that the table and the verdict agree."""
        measured = round(self.measured, self.digits)
        return measured >= self.limit if self.at_least else measured <= self.limit

    def __str__(self):
        sign = ">=" if self.at_least else "<="
        return (
            f"goal {self.name} {self.measured:.{self.digits}f} {sign}{self.limit} "
            f"{'met' if self.met() else 'missed'}"
        )


def worst(ratios, name):
    """The largest of RATIOS, of which there has to be one."""
    ratios = list(ratios)
    if not ratios:
        raise Incomplete(name)
    return max(ratios)


def to_other(results, operation, other, memory, size):
    """vmemexp's time as a multiple of OTHER's."""
    return results.need(operation, "vmemexp", memory, size) / results.need(
        operation, other, memory, size
    )


def worst_to_other(results, operation, other, memories, least):
    """The largest such multiple from LEAST up; the peers stop at 256 MiB."""
    return worst(
        (
            to_other(results, operation, other, memory, size)
            for memory in memories
            for size in results.sizes(operation, memory)
            if least <= size <= 256 * MIB
        ),
        operation,
    )


def to_best_peer(results, memory, size):
    """Export and close by the best of what else makes memory shareable."""
    peers = [results.time("export+close", peer, memory, size) for peer in PEERS]
    peers = [peer for peer in peers if peer]
    if not peers:
        return None
    return results.need("export+close", "vmemexp", memory, size) / min(peers)


def list_to_one(results, memory):
    """Export and close of the longest list as a multiple of one range of as many bytes."""
    operation = f"export-list-{RANGES[-1]}"
    return results.need(operation, "vmemexp", memory, LIST_BYTES) / results.need(
        "export+close", "vmemexp", memory, LIST_BYTES
    )


def mmap_and_touch(results, memory):
    """udmabuf's time as a multiple of vmemexp's, without munmap."""
    ours, theirs = (
        results.need("mmap", method, memory, 32 * MIB)
        + results.need("touch", method, memory, 32 * MIB)
        for method in ("vmemexp", "udmabuf")
    )
    return theirs / ours


def instructions(results, operation, memory, size):
    """The cost in instructions, which are not what is counted everywhere."""
    if results.about["unit"] != "instructions":
        raise Incomplete(f"{operation} in instructions")
    return results.need(operation, "vmemexp", memory, size)


def per_page(results, memory, least=0):
    """Instructions for a page of a carve-out: the most of all sizes from LEAST up."""
    return worst(
        (
            instructions(results, "export+close", memory, size) * PAGE / size
            for size in results.sizes("export+close", memory)
            if size >= least
        ),
        f"export+close of {memory}",
    )


def remap(results, size):
    """A second map as a part of attach, map, unmap and detach."""
    first, second = (
        results.need(operation, "vmemexp", "4k", size)
        for operation in ("attach+map+unmap+detach", "map+unmap")
    )
    return second / first


def sync_4k(results):
    """A sync of 4 KiB as a multiple of two ioctls that do nothing."""
    empty = results.empty_ioctl()
    if not empty:
        raise Incomplete("empty-ioctl")
    return worst(
        (
            results.need("sync-4k", "vmemexp", memory, size) / (2 * empty)
            for memory in MEMORY
            for size in results.sizes("sync-4k", memory)
        ),
        "sync-4k",
    )


def worst_ratio(results, above, below, memories):
    """The largest multiple of BELOW that ABOVE costs. Each is an operation and a method."""
    return worst(
        (
            results.need(*above, memory, size) / results.need(*below, memory, size)
            for memory in memories
            for size in results.sizes(above[0], memory)
        ),
        f"{above[0]} of {memories[0]}",
    )


def rectangle_to_all(results, memories):
    """A sync of 480 rows as a multiple of one of the whole buffer."""
    return worst_ratio(
        results, ("sync-rectangle", "vmemexp"), ("sync-all", "vmemexp"), memories
    )


def dmabuf_sync(results):
    """DMA_BUF_IOCTL_SYNC as a multiple of what it costs with a heap's buffer."""
    return worst_ratio(
        results, ("sync-all", "DMA_BUF_IOCTL_SYNC"), ("sync-all", "heap"), tuple(MEMORY)
    )


def query(results):
    """A buffer of 8192 extents as a multiple of one of as many bytes in huge pages."""
    many, few = (results.need("query", "vmemexp", memory, 32 * MIB) for memory in ("4k", "thp"))
    return many / few


def list_growth(results):
    """One of 8000 buffers in the list as a multiple of one of 1000."""
    many, few = (
        results.need("list", "vmemexp", "4k", buffers * PAGE) / buffers
        for buffers in (8000, 1000)
    )
    return many / few


def export_growth(results):
    """A byte of 1 GiB as a multiple of one of 32 MiB."""
    large, small = (
        results.need("export+close", "vmemexp", "4k", size) / size for size in (GIB, 32 * MIB)
    )
    return large / small


def kept_beside(results):
    """Bytes kept for a buffer beside 8 for each extent."""
    return worst(
        (
            row["driver_bytes"] - 8 * row["extents"]
            for row in results.lists["kept"]
            if row["method"] == "vmemexp"
        ),
        "memory that is kept",
    )


def promises(results):
    """Yields what is promised, of 32 MiB unless the name says something else.

    Each is a name, a function that measures, a limit, and more arguments for Goal.
    """
    size = 32 * MIB
    export = "export+close"
    everything = (*MEMORY, *SHARED)

    for memory, limit in (("4k", 1.15), ("thp", 1.0), ("hugetlb", 1.0)):
        yield (
            f"{export}-to-pin-{memory}",
            lambda m=memory: to_other(results, export, "pin", m, size),
            limit,
        )
    yield (
        f"{export}-to-other-dma-bufs-64k-and-up",
        lambda: max(
            worst_to_other(results, export, other, everything, 64 * KIB) for other in EXPORTERS
        ),
        0.99,
    )
    yield (
        f"{export}-to-io_uring-1m-and-up",
        lambda: worst_to_other(results, export, "io_uring", everything, MIB),
        1.1,
    )
    for memory, limit in (("thp", 0.95), ("shared-thp", 0.3), ("shared-hugetlb", 0.3)):
        yield (
            f"{export}-to-udmabuf-{memory}",
            lambda m=memory: to_other(results, export, "udmabuf", m, size),
            limit,
        )
    yield (
        f"{export}-to-udmabuf-thp-64k-and-up",
        lambda: worst_to_other(results, export, "udmabuf", ["thp"], 64 * KIB),
        1.0,
    )
    for memory in everything:
        yield f"{export}-16-ranges-to-one-{memory}", lambda m=memory: list_to_one(results, m), 1.1
    for memory in SHARED:
        yield (
            f"{export}-16-ranges-to-udmabuf-{memory}",
            lambda m=memory: to_other(results, "export-list-16", "udmabuf", m, size),
            1.0,
        )
    yield "export-per-page-1g-to-32m", lambda: export_growth(results), 1.1
    yield f"{export}-instructions-per-page-paged", lambda: per_page(results, "paged"), 30
    for memory in ("carveout-huge", "paged-huge"):
        yield (
            f"{export}-instructions-per-page-{memory}-128m-and-up",
            lambda m=memory: per_page(results, m, 128 * MIB),
            5,
        )
    for memory in MEMORY:
        yield (
            f"mmap+touch-times-less-than-udmabuf-{memory}",
            lambda m=memory: mmap_and_touch(results, m),
            20,
            {"at_least": True, "digits": 1},
        )
    for memory in ("thp", "hugetlb"):
        yield (
            f"mmap+touch+munmap-instructions-{memory}",
            lambda m=memory: instructions(results, "mmap+touch+munmap", m, size),
            100000,
            {"digits": 0},
        )
    yield (
        "attach+map+unmap+detach-to-udmabuf-4k-64k-and-up",
        lambda: worst_to_other(results, "attach+map+unmap+detach", "udmabuf", ["4k"], 64 * KIB),
        1.0,
    )
    yield "remap-to-first-map-4k", lambda: remap(results, size), 0.4
    yield (
        "vmap+vunmap-to-udmabuf-4k",
        lambda: to_other(results, "vmap+vunmap", "udmabuf", "4k", size),
        1.05,
    )
    yield "sync-4k-to-empty-ioctls", lambda: sync_4k(results), 2.0
    yield "sync-rectangle-to-all", lambda: rectangle_to_all(results, tuple(MEMORY)), 1.1
    yield "sync-rectangle-to-all-carveouts", lambda: rectangle_to_all(results, CARVEOUTS), 1.1
    yield "dma-buf-ioctl-sync-to-heap", lambda: dmabuf_sync(results), 1.1
    yield "query-4k-to-thp", lambda: query(results), 1.1
    yield "list-per-buffer-8000-to-1000", lambda: list_growth(results), 1.2
    yield "kept-bytes-beside-8-per-extent", lambda: kept_beside(results), 1024, {"digits": 0}


def goals(results, partial=False):
    """The judged promises. PARTIAL leaves out what was not measured."""
    found = []
    for name, measure, limit, *options in promises(results):
        try:
            found.append(Goal(name, measure(), limit, **(options[0] if options else {})))
        except Incomplete:
            if not partial:
                raise
    return found


# --- tables ---


class Table:
    """Rows of text under a title."""

    def __init__(self, name, title, head):
        self.name = name
        self.title = title
        self.rows = [head]

    def add(self, *cells):
        """Appends a row."""
        self.rows.append([str(cell) for cell in cells])

    def has_rows(self):
        """False if there is nothing but the head."""
        return len(self.rows) > 1

    def widths(self):
        """The widths of the columns."""
        return [max(len(row[i]) for row in self.rows) for i in range(len(self.rows[0]))]

    def line(self, row):
        """ROW, the first column to the left and the others to the right."""
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, self.widths()))
        ]
        return "  ".join(cells).rstrip()

    def plain(self):
        """For a terminal."""
        return "\n".join([self.title, ""] + [self.line(row) for row in self.rows]) + "\n"

    def rst(self):
        """A simple table of reStructuredText."""
        rule = " ".join("=" * width for width in self.widths())
        lines = [
            " ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, self.widths()))
            ).rstrip()
            for row in self.rows
        ]
        return "\n".join([rule, lines[0], rule] + lines[1:] + [rule]) + "\n"


def size_name(size):
    """As people say it."""
    if size == UHD:
        return "UHD frame"
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and not size % unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def thousands(time):
    """A time in thousands, with three digits that count."""
    if time is None:
        return "-"
    if time < 10000:
        return f"{time / 1000:.2f}"
    return f"{time / 1000:.1f}" if time < 100000 else f"{time / 1000:.0f}"


def ratio(part, whole):
    """PART of WHOLE as text, or a dash if one is missing."""
    if not part or not whole:
        return "-"
    number = part / whole
    return f"{number:.2f}" if number < 10 else f"{number:.1f}"


def export_table(results, memory):
    """Export and close, by everything there is."""
    table = Table(
        f"export-{memory}",
        f"export + close, {(MEMORY | SHARED)[memory]}",
        ["size", "extents", "to pin", "to best", "vmemexp", "pin", *PEERS],
    )
    for size in results.sizes("export+close", memory):
        ours = results.time("export+close", "vmemexp", memory, size)
        bound = results.time("export+close", "pin", memory, size)
        peers = [results.time("export+close", peer, memory, size) for peer in PEERS]
        best = to_best_peer(results, memory, size)
        table.add(
            size_name(size),
            results.extents.get((memory, size), "-"),
            # It is told in thousands, cut off.
            ratio(ours, bound) if bound and bound >= 20000 else "-",
            "-" if best is None else f"{best:.2f}",
            *(thousands(time) for time in (ours, bound, *peers)),
        )
    return table


def ranges_table(results):
    """Lists of ranges, beside one range of as many bytes."""
    table = Table(
        "ranges",
        f"export + close of several ranges, {size_name(LIST_BYTES)} in all",
        [
            "memory", "one range", *(f"list of {nr}" for nr in RANGES), "16 to one",
            "udmabuf of 16", "to udmabuf",
        ],
    )
    for memory in (*MEMORY, *SHARED):
        one = results.time("export+close", "vmemexp", memory, LIST_BYTES)
        ours = [
            results.time(f"export-list-{nr}", "vmemexp", memory, LIST_BYTES) for nr in RANGES
        ]
        theirs = results.time(f"export-list-{RANGES[-1]}", "udmabuf", memory, LIST_BYTES)
        if ours[-1]:
            table.add(
                memory, thousands(one), *(thousands(time) for time in ours),
                ratio(ours[-1], one), thousands(theirs), ratio(ours[-1], theirs),
            )
    return table


def dmabuf_table(results, operation, memory, title):
    """An operation on a dma-buf, by vmemexp and by other exporters."""
    table = Table(
        f"{operation}-{memory}",
        f"{title}, {MEMORY[memory]}",
        ["size", "to best", "vmemexp", *DMABUFS],
    )
    for size in results.sizes(operation, memory):
        ours = results.time(operation, "vmemexp", memory, size)
        peers = [results.time(operation, peer, memory, size) for peer in DMABUFS]
        best = min((peer for peer in peers if peer), default=None)
        table.add(
            size_name(size), ratio(ours, best), *(thousands(time) for time in (ours, *peers))
        )
    return table


def sync_table(results, memory):
    """Syncs of parts, in empty ioctls: a START and an END by two of them."""
    empty = 2 * (results.empty_ioctl() or 0)
    table = Table(
        f"sync-{memory}",
        f"START + END in a mapped buffer, as multiples of two empty ioctls, {MEMORY[memory]}",
        ["size", "4 KiB", "row", "rectangle", "all", "DMA_BUF_IOCTL_SYNC", "of a heap", "not mapped"],
    )
    for size in results.sizes("sync-4k", memory):
        times = [
            results.time("sync-4k", "vmemexp", memory, size),
            results.time("sync-row", "vmemexp", memory, size),
            results.time("sync-rectangle", "vmemexp", memory, size),
            results.time("sync-all", "vmemexp", memory, size),
            results.time("sync-all", "DMA_BUF_IOCTL_SYNC", memory, size),
            results.time("sync-all", "heap", memory, size),
            results.time("sync-4k-unmapped", "vmemexp", memory, size),
        ]
        table.add(size_name(size), *(ratio(time, empty) for time in times))
    return table


def kept_table(results):
    """Kernel memory for one buffer."""
    table = Table(
        "kept",
        "kernel memory kept for one buffer, in bytes",
        ["size", "memory", "extents", "vmemexp", "8 per extent", "a MiB", "udmabuf", "with inode", "udmabuf "],
    )
    udmabuf = {
        (row["memory"], row["bytes"]): row
        for row in results.lists["kept"]
        if row["method"] == "udmabuf"
    }
    for row in results.lists["kept"]:
        if row["method"] != "vmemexp":
            continue
        peer = udmabuf.get((row["memory"], row["bytes"]), {})
        table.add(
            size_name(row["bytes"]),
            row["memory"],
            row["extents"],
            row["driver_bytes"],
            8 * row["extents"],
            row["driver_bytes"] * MIB // row["bytes"],
            peer.get("driver_bytes", "-"),
            row["all_bytes"],
            peer.get("all_bytes", "-"),
        )
    return table


def carveout_table(results):
    """Carve-outs, in every way that drivers map them."""
    table = Table(
        "carveouts",
        "export + close of carve-outs, and mmap + first touch + munmap of the dma-buf",
        ["mapping", "size", "extents", "vmemexp", "for a page", "heap+copy", "to heap+copy", "mmap"],
    )
    for memory in CARVEOUTS:
        for size in results.sizes("export+close", memory):
            ours = results.time("export+close", "vmemexp", memory, size)
            copy = results.time("export+close", "heap+copy", memory, size)
            table.add(
                memory,
                size_name(size),
                results.extents.get((memory, size), "-"),
                thousands(ours),
                f"{ours * PAGE / size:.1f}",
                thousands(copy),
                ratio(ours, copy),
                thousands(results.time("mmap+touch+munmap", "vmemexp", memory, size)),
            )
    return table


def sync_device_table(results):
    """Syncs of a part and of all, by what the device that has the buffer mapped needs."""
    table = Table(
        "sync-devices",
        "START + END in a buffer that a device has mapped",
        ["device", "memory", "size", "rectangle", "all", "rectangle to all"],
    )
    rows = [("coherent", "", memory) for memory in ("4k", *CARVEOUTS)]
    rows += [("not coherent", "-noncoherent", "4k"), ("bounced", "-bounced", "4k")]
    for device, suffix, memory in rows:
        sizes = results.sizes(f"sync-rectangle{suffix}", memory)
        if not sizes:
            continue
        part, whole = (
            results.time(f"sync-{what}{suffix}", "vmemexp", memory, sizes[0])
            for what in ("rectangle", "all")
        )
        table.add(
            device, memory, size_name(sizes[0]), thousands(part), thousands(whole),
            ratio(part, whole),
        )
    return table


def query_table(results):
    """QUERY, which should not depend on the buffer."""
    table = Table("query", "VMEMEXP_IOC_QUERY", ["size", "extents of 4k", *MEMORY])
    for size in results.sizes("query", "4k"):
        table.add(
            size_name(size),
            results.extents.get(("4k", size), "-"),
            *(thousands(results.time("query", "vmemexp", memory, size)) for memory in MEMORY),
        )
    return table


def list_table(results):
    """The list of all buffers."""
    table = Table(
        "list", "the list of buffers, read to its end", ["buffers", "all", "for a buffer"]
    )
    for size in results.sizes("list", "4k"):
        time = results.time("list", "vmemexp", "4k", size)
        table.add(size // PAGE, thousands(time), thousands(time * PAGE / size))
    return table


def tables(results):
    """All of them; not all have rows if not everything was measured."""
    operations = (
        ("mmap+touch+munmap", "mmap + first touch + munmap"),
        ("attach+map+unmap+detach", "attach + map + unmap + detach"),
        ("map+unmap", "map + unmap while attached"),
        ("vmap+vunmap", "vmap + vunmap"),
    )
    found = [export_table(results, memory) for memory in (*MEMORY, *SHARED)]
    found += [ranges_table(results), carveout_table(results)]
    for operation, title in operations:
        found += [dmabuf_table(results, operation, memory, title) for memory in MEMORY]
    found += [sync_table(results, memory) for memory in MEMORY]
    found += [
        sync_device_table(results), query_table(results), list_table(results), kept_table(results)
    ]
    return found

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
PEERS = ("io_uring", "udmabuf", "heap+copy")
DMABUFS = ("udmabuf", "heap")
SYNCS = ("sync-4k-unmapped", "sync-4k", "sync-row", "sync-rectangle", "sync-all")

# What the lines of bench say behind their first word.
FIELDS = {
    "time": ("operation", "method", "memory", "bytes", "runs", "min", "median"),
    "kept": ("method", "memory", "bytes", "physical_runs", "buffers", "driver_bytes", "all_bytes"),
    "runs": ("memory", "bytes", "physical_runs"),
    "absent": ("operation", "method", "memory", "bytes", "errno"),
}
LISTS = {"time": "times", "kept": "kept", "runs": "runs", "absent": "absent"}


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
        self.runs = {(row["memory"], row["bytes"]): row["physical_runs"] for row in lists["runs"]}

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
        """What the way into the kernel and back costs."""
        found = [row["median"] for key, row in self.times.items() if key[0] == "empty-ioctl"]
        if not found:
            raise Incomplete("empty-ioctl")
        return min(found)


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
        """Judged by the number that is shown, so that nobody has to wonder."""
        measured = round(self.measured, self.digits)
        return measured >= self.limit if self.at_least else measured <= self.limit

    def __str__(self):
        sign = ">=" if self.at_least else "<="
        return (
            f"goal {self.name} {self.measured:.{self.digits}f} {sign}{self.limit} "
            f"{'met' if self.met() else 'missed'}"
        )


def to_bound(results, memory):
    """Export and close of 32 MiB by pin and unpin alone."""
    size = 32 * MIB
    return results.need("export+close", "vmemexp", memory, size) / results.need(
        "export+close", "pin", memory, size
    )


def to_best_peer(results, memory, size):
    """Export and close by the best of what else makes memory shareable."""
    peers = [results.time("export+close", peer, memory, size) for peer in PEERS]
    peers = [peer for peer in peers if peer]
    if not peers:
        return None
    return results.need("export+close", "vmemexp", memory, size) / min(peers)


def worst_to_peers(results):
    """The largest such ratio from 64 KiB up."""
    ratios = [
        to_best_peer(results, memory, size)
        for memory in MEMORY
        for size in results.sizes("export+close", memory)
        if 64 * KIB <= size <= 256 * MIB
    ]
    if not ratios or None in ratios:
        raise Incomplete("export+close of a peer")
    return max(ratios)


def mmap_and_touch(results, method, memory, size):
    """Without munmap."""
    return results.need("mmap", method, memory, size) + results.need("touch", method, memory, size)


def goals(results):
    """What is promised, of 32 MiB unless the name says something else."""
    size = 32 * MIB
    empty = 2 * results.empty_ioctl()
    kept = [row for row in results.lists["kept"] if row["method"] == "vmemexp"]
    if not kept:
        raise Incomplete("memory that is kept")
    per_page = [
        results.need("export+close", "vmemexp", "4k", n) / n for n in (GIB, 32 * MIB)
    ]
    return [
        Goal("export+close-to-pin-4k", to_bound(results, "4k"), 1.15),
        Goal("export+close-to-pin-thp", to_bound(results, "thp"), 1.0),
        Goal("export+close-to-pin-hugetlb", to_bound(results, "hugetlb"), 1.0),
        Goal("export+close-to-best-peer-64k-and-up", worst_to_peers(results), 0.99),
        *(
            Goal(
                f"mmap+touch-times-less-than-udmabuf-{memory}",
                mmap_and_touch(results, "udmabuf", memory, size)
                / mmap_and_touch(results, "vmemexp", memory, size),
                20,
                at_least=True,
                digits=1,
            )
            for memory in MEMORY
        ),
        Goal(
            "remap-256m-to-1m",
            results.need("map+unmap", "vmemexp", "4k", 256 * MIB)
            / results.need("map+unmap", "vmemexp", "4k", MIB),
            1.1,
        ),
        Goal(
            "sync-4k-to-empty-ioctls",
            max(
                results.need("sync-4k", "vmemexp", memory, n) / empty
                for memory in MEMORY
                for n in results.sizes("sync-4k", memory)
            ),
            2.0,
        ),
        Goal("export-per-page-1g-to-32m", per_page[0] / per_page[1], 1.1),
        Goal(
            "kept-bytes-beside-16-per-run",
            max(row["driver_bytes"] - 16 * row["physical_runs"] for row in kept),
            1024,
            digits=0,
        ),
    ]


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

    def widths(self):
        """Of the columns."""
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
    """Or a dash where there is no telling."""
    if not part or not whole:
        return "-"
    number = part / whole
    return f"{number:.2f}" if number < 10 else f"{number:.1f}"


def export_table(results, memory):
    """Export and close, by everything there is."""
    table = Table(
        f"export-{memory}",
        f"export + close, {MEMORY[memory]}",
        ["size", "runs", "to pin", "to best", "vmemexp", "pin", *PEERS],
    )
    for size in results.sizes("export+close", memory):
        ours = results.time("export+close", "vmemexp", memory, size)
        bound = results.time("export+close", "pin", memory, size)
        peers = [results.time("export+close", peer, memory, size) for peer in PEERS]
        best = to_best_peer(results, memory, size)
        table.add(
            size_name(size),
            results.runs.get((memory, size), "-"),
            # It is told in thousands, cut off.
            ratio(ours, bound) if bound and bound >= 20000 else "-",
            "-" if best is None else f"{best:.2f}",
            *(thousands(time) for time in (ours, bound, *peers)),
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
    empty = 2 * results.empty_ioctl()
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
        ["size", "memory", "runs", "vmemexp", "16 per run", "a MiB", "udmabuf", "with inode", "udmabuf "],
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
            row["physical_runs"],
            row["driver_bytes"],
            16 * row["physical_runs"],
            row["driver_bytes"] * MIB // row["bytes"],
            peer.get("driver_bytes", "-"),
            row["all_bytes"],
            peer.get("all_bytes", "-"),
        )
    return table


def tables(results):
    """All of them."""
    operations = (
        ("mmap+touch+munmap", "mmap + first touch + munmap"),
        ("attach+map+unmap+detach", "attach + map + unmap + detach"),
        ("map+unmap", "map + unmap while attached"),
        ("vmap+vunmap", "vmap + vunmap"),
    )
    found = [export_table(results, memory) for memory in MEMORY]
    for operation, title in operations:
        found += [dmabuf_table(results, operation, memory, title) for memory in MEMORY]
    found += [sync_table(results, memory) for memory in MEMORY]
    found.append(kept_table(results))
    return found

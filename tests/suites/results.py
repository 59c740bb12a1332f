#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""results.py - judge what the tests have printed, add it up and print it

Usage: results.py kernels [--partial] DIR ARCH/KERNEL...
       results.py coherency DIR ARCH/MODE[=REASON]...
       results.py debug --gcov DIR --uncovered FILE DIR GUEST...
       results.py builds DIR ARCH/VERSION-FLAVOUR...
       results.py parts DIR PART...
       results.py show DIR GUEST...

kernels, coherency and debug read a log of each guest, DIR/ARCH-KERNEL.log and so
on, and print a table. They leave the counts and the closing lines in
DIR/results.json. A guest of coherency with a REASON is a machine that cannot be
had. With --partial, a guest without a log is no failure. --gcov names a directory
with what gcov wrote, whose lines are judged, too, and --uncovered a file with those
that need no coverage.

builds reads what was said while modules were built, and prints a table of the kernels.
parts adds up the parts of a run, from DIR/PART.log and from DIR/PART.json, which is
the results.json of a suite. show prints what guests have said that did not pass.

A log has, in this order:

  # programs: PROGRAM...            all that have to run
  # may skip: REGEX                 "PROGRAM: CASE: WHY" of a skip that is no failure
  ...                               what tests/run_tests and tests/vm/run printed
  # guest ended with status N       by itself, as the last line

It is a failure if a case failed, was reported twice or was skipped without leave; if
a program did not begin, did not end or did not report what it announced; if the
guest ended otherwise than its cases say, or if the log is cut off.

The last line is "N passed, N failed, N skipped".
Exit status: 0, 1 (something failed), 2 (wrong usage).
"""
from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# --- what a guest has printed ---

RESULT = re.compile(r"(passed|failed|skipped) (\S+): (\S+?)(?:: (.*))?")
BEGIN = re.compile(r"begin (\S+)")
PLAN = re.compile(r"plan (\S+): (\d+)")
END = re.compile(r"end (\S+): exit status (\d+)")
COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
PROTOCOL = re.compile(r"(passed|failed|skipped|begin|plan|end) \S+(:|$)")
PROGRAMS = re.compile(r"# programs: (.*)")
MAY_SKIP = re.compile(r"# may skip: (.*)")
RUNNING = re.compile(r"# #  RUN +(\S+) \.\.\.")
ENDED = re.compile(r"# guest ended with status (\d+)$")

# Lines of tests/vm/run about a guest that is not well.
VERDICT = re.compile(r"LOST: |FAIL: the command ended with \d+, but:$")
COMPLAINT = "--- first complaint of the kernel ---"
KERNEL_LOG = "--- end of the kernel log ---"
LOST, HARNESS = 98, 99

# The pseudo-case of run_tests about the program itself.
END_CASE = "end"
NOT_ALLOWED = "(this may not be skipped here)"
# In a complaint of the kernel, these lines take the place of better ones.
NOISE = re.compile(
    r"(\[[^]]*\]\s*)*($|Modules linked in:|Tainted: |Hardware name: |Code: |</?TASK>"
    # lines around a report, and what may have been a caller
    r"|-+\[ cut here|=+$|\? "
    # registers, but for the instruction
    r"|[RE](?!IP)[A-Z0-9]{2}: |[CD]R\d: |[FC]S: |PKRU: |[rx]\d+ *: )"
)
# All complaints together fit into the last 40 lines of an output, with what is below.
COMPLAINT_LINES, ALL_COMPLAINTS = 12, 34


@dataclass
class Case:
    """One result of a program."""

    verdict: str
    program: str
    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.program}: {self.name}" + (f": {self.why}" if self.why else "")


@dataclass
class Program:
    """The report of one program."""

    name: str
    begun: bool = False
    planned: int | None = None
    status: int | None = None
    running: str = ""
    # How many results there were, with those that were reported twice.
    reported: int = 0
    cases: list[Case] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status is not None

    @property
    def failures(self) -> int:
        return len(self.problems) + self.count("failed")

    def count(self, verdict: str) -> int:
        return sum(case.verdict == verdict for case in self.cases)


@dataclass
class Guest:
    """One guest: its programs, and what is wrong with itself."""

    name: str
    programs: dict[str, Program] = field(default_factory=dict)
    may_skip: list[re.Pattern[str]] = field(default_factory=list)
    # By run_tests, and by the lines themselves: passed, failed, skipped.
    counts: tuple[int, ...] | None = None
    seen: Counter[str] = field(default_factory=Counter)
    status: int | None = None
    problems: list[str] = field(default_factory=list)
    complaint: list[str] = field(default_factory=list)
    was_run: bool = True
    # Where its output ended.
    last_program: str = ""

    @property
    def lost(self) -> bool:
        """Its end explains all that is missing."""
        return self.status in (None, LOST, HARNESS)

    def cases(self) -> Iterator[Case]:
        for program in self.programs.values():
            yield from program.cases

    def count(self, verdict: str) -> int:
        return sum(program.count(verdict) for program in self.programs.values())


def split_report(lines: list[str]) -> tuple[list[str], list[str]]:
    """Takes what tests/vm/run said of a guest that is not well off its output.

    Its first line may stand behind a line that the guest has not ended.
    """
    marks = [i for i, line in enumerate(lines) if line == KERNEL_LOG]
    if not marks:
        return lines, []
    for i in range(marks[-1], -1, -1):
        found = VERDICT.search(lines[i])
        if found and (found.start() == 0 or lines[i].startswith("#") or PROTOCOL.match(lines[i])):
            return lines[:i], [lines[i][found.start():], *lines[i + 1:]]
    return lines[:marks[-1]], lines[marks[-1]:]


def complaint_of(report: list[str]) -> list[str]:
    """The reason for which a guest was not well: the verdict, and the kernel's words."""
    # A command that failed has the end of the kernel log behind its output as well.
    if not report or not VERDICT.match(report[0]):
        return []
    end = report.index(KERNEL_LOG)
    start = report.index(COMPLAINT) if COMPLAINT in report else end
    if start < end:
        words = [line for line in report[start + 1:end] if not NOISE.match(line)]
    else:
        words = report[end + 1:]
        words = words[-(COMPLAINT_LINES - 2):]
    reasons = [line for line in report[:start] if line and line not in words]
    return reasons[:4] + words


class LogReader:
    """Takes the lines of a log, in their order, and fills in a Guest."""

    def __init__(self, name: str) -> None:
        self.guest = Guest(name)
        self.current: Program | None = None

    def program(self, name: str) -> Program:
        """The program NAME, which has to be the one that runs."""
        if self.current is None or self.current.name != name:
            self.guest.problems.append(f"{name} reported something while it did not run")
            return Program(name)
        return self.current

    def begin(self, name: str) -> None:
        if name not in self.guest.programs:
            self.guest.problems.append(f"{name} began, which is not among the programs")
        program = self.guest.programs.setdefault(name, Program(name))
        if program.begun:
            program.problems.append("began twice")
        program.begun = True
        self.current = program
        self.guest.last_program = name

    def plan(self, name: str, cases: str) -> None:
        program = self.program(name)
        if program.planned is not None:
            program.problems.append("announced its cases twice")
        program.planned = int(cases)

    def result(self, verdict: str, name: str, case: str, why: str | None) -> None:
        program = self.program(name)
        program.running = ""
        program.reported += case != END_CASE
        self.guest.seen[verdict] += 1
        if any(case == other.name for other in program.cases):
            program.problems.append(f"{case}: reported twice")
        else:
            program.cases.append(Case(verdict, name, case, why or ""))

    def end(self, name: str, status: str) -> None:
        self.program(name).status = int(status)
        self.current = None

    def take(self, line: str) -> None:
        guest = self.guest
        if found := PROGRAMS.fullmatch(line):
            guest.programs = {name: Program(name) for name in found[1].split()}
        elif found := MAY_SKIP.fullmatch(line):
            guest.may_skip.append(re.compile(found[1]))
        elif found := RUNNING.fullmatch(line):
            if self.current:
                self.current.running = found[1]
        elif found := BEGIN.fullmatch(line):
            self.begin(found[1])
        elif found := PLAN.fullmatch(line):
            self.plan(*found.groups())
        elif found := RESULT.fullmatch(line):
            self.result(*found.groups())
        elif found := END.fullmatch(line):
            self.end(*found.groups())
        elif found := COUNTS.fullmatch(line):
            guest.counts = tuple(map(int, found.groups()))
        elif PROTOCOL.match(line):
            guest.problems.append(f"a line is not understood: {line}")


def take_ending(guest: Guest, text: str) -> list[str]:
    """Sets how GUEST ended, and returns the lines above."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    # Behind the last end of a line is nothing, or a line that may look like another
    # result than it was going to be.
    whole = lines.pop() == ""
    found = ENDED.search(lines[-1]) if lines and whole else None
    if found:
        guest.status = int(found[1])
        cut = lines.pop()[:found.start()]
        if cut:
            guest.problems.append(f"a line is cut off: {cut}")
    else:
        guest.problems.append("the log is cut off: it does not say how the guest ended")
    return lines


def read_log(name: str, text: str, runs_programs: bool = True) -> Guest:
    """Reads the log of guest NAME, which may have run something else than run_tests."""
    reader = LogReader(name)
    lines, report = split_report(take_ending(reader.guest, text))
    for line in lines if runs_programs else ():
        reader.take(line)
    guest = reader.guest
    guest.complaint = complaint_of(report)
    if guest.status == HARNESS and not guest.complaint:
        guest.complaint = [line for line in lines if not line.startswith("# ")][-4:]
    return guest


# --- the verdict ---


def judge_program(guest: Guest, program: Program) -> None:
    """Adds what PROGRAM has not done and should have."""
    said_so = any(case.name == END_CASE for case in program.cases)
    if not program.ended:
        if not guest.lost:
            where = f" (in {program.running})" if program.running else ""
            program.problems.append("did not end" + where if program.begun else "did not begin")
    elif said_so:
        pass
    elif not program.planned:
        program.problems.append("announced no cases")
    elif program.planned != program.reported:
        program.problems.append(f"{program.reported} of {program.planned} cases reported")
    elif program.status not in (0, 4) and not program.failures:
        program.problems.append(f"exit status {program.status}")


def judge_skips(guest: Guest) -> None:
    """Makes a failure of each skip that nothing allows."""
    for case in guest.cases():
        if case.verdict == "skipped" and not any(p.match(str(case)) for p in guest.may_skip):
            case.verdict = "failed"
            case.why += f" {NOT_ALLOWED}"


def judge_guest(guest: Guest) -> None:
    """Adds what is wrong with the guest itself."""
    seen = tuple(guest.seen[verdict] for verdict in ("passed", "failed", "skipped"))
    if not guest.programs and not guest.lost:
        guest.problems.append("the log names no programs")
    if guest.counts is None:
        if not guest.lost:
            guest.problems.append("run_tests did not come to its end")
    elif guest.counts != seen:
        counted = ", ".join(map(str, guest.counts))
        found = ", ".join(map(str, seen))
        guest.problems.append(f"run_tests counted {counted}, the log has {found}")
    # run_tests ends with 1 if a case failed.
    if guest.status is not None and guest.status != (seen[1] > 0):
        guest.problems.append(f"ended with status {guest.status} (see tests/vm/run --help)")


def judge(guest: Guest) -> Guest:
    """Judges a guest that ran test programs."""
    judge_guest(guest)
    judge_skips(guest)
    for program in guest.programs.values():
        judge_program(guest, program)
    return guest


def judge_command(guest: Guest) -> Guest:
    """Judges a guest whose command is no test program: one case, by its status."""
    if guest.status == 0:
        guest.programs[guest.name] = Program(guest.name, cases=[Case("passed", guest.name, "all")])
    elif guest.status is not None:
        guest.problems.append(f"ended with status {guest.status} (see tests/vm/run --help)")
    return guest


def log_of(directory: Path, name: str) -> Path:
    return directory / (name.replace("/", "-") + ".log")


def load_guest(directory: Path, name: str, runs_programs: bool = True) -> Guest:
    """Reads and judges the log of guest NAME, if there is one."""
    log = log_of(directory, name)
    if not log.exists():
        return Guest(name, was_run=False)
    guest = read_log(name, log.read_text(errors="replace"), runs_programs)
    return judge(guest) if runs_programs else judge_command(guest)


# --- the sum ---


@dataclass
class Sum:
    """The result of a suite."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    closing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def fail(self, what: str) -> None:
        self.failed += 1
        self.closing.append(f"# failed {what}")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Sum:
        return Sum(**json.loads(path.read_text()))


def groups_of(guests: Iterable[Guest]) -> list[str]:
    """Lines that name each reason of a skip, with how often which guest had it."""
    groups: dict[str, list[str]] = {}
    for guest in guests:
        sizes = Counter(
            f"{case.verdict} {case.why}"
            for case in guest.cases()
            if case.verdict == "skipped" or case.why.endswith(NOT_ALLOWED)
        )
        for group, size in sizes.items():
            groups.setdefault(group, []).append(f"{size} on {guest.name}")
    return [f"# {group}: {', '.join(groups[group])}" for group in sorted(groups, reverse=True)]


def failures_of(guest: Guest) -> list[str]:
    """Lines that name what failed in a guest, but for skips, which are grouped."""
    lines = []
    for program in guest.programs.values():
        lines += [
            str(case)
            for case in program.cases
            if case.verdict == "failed" and not case.why.endswith(NOT_ALLOWED)
        ]
        lines += [f"{program.name}: {problem}" for problem in program.problems]
    return [f"# failed {guest.name}: {line}" for line in lines + guest.problems]


def complaint_lines(guests: list[Guest]) -> list[str]:
    """Lines that tell why guests have died, few enough to be seen at the end of an output."""
    ill = [guest for guest in guests if guest.complaint]
    if not ill:
        return []
    limit = max(3, min(COMPLAINT_LINES, ALL_COMPLAINTS // len(ill) - 1))
    lines = []
    for guest in ill:
        program = guest.programs.get(guest.last_program)
        where = f"the last program was {program.name}" if program else "no program had begun"
        if program and program.running:
            where = f"in {program.name}: {program.running}"
        elif program and not program.ended:
            last = f", after {program.cases[-1].name}" if program.cases else ""
            where = f"in {program.name}{last}"
        lines += [f"# {guest.name}: {line}" for line in [where, *guest.complaint[:limit]]]
    return lines


def add_up(guests: list[Guest]) -> Sum:
    """The result of all guests. The most important lines are the last."""
    total = Sum()
    for guest in guests:
        total.passed += guest.count("passed")
        total.skipped += guest.count("skipped")
        total.failed += len(guest.problems)
        total.failed += sum(program.failures for program in guest.programs.values())
    total.closing = groups_of(guests)
    for guest in guests:
        total.closing += failures_of(guest)
    total.closing += complaint_lines(guests)
    return total


def print_sum(total: Sum, *more: str) -> int:
    """Prints the last lines, and returns the exit status."""
    if total.closing or more:
        print(*total.closing, *more, "", sep="\n")
    print(total)
    return int(total.failed > 0)


# --- the table of kernels ---


def program_cell(program: Program | None) -> str:
    if program is None:
        return ""
    if program.failures:
        return f"FAIL {program.failures}"
    if not program.ended:
        return "FAIL"
    skipped = program.count("skipped")
    return str(program.count("passed")) + (f"+{skipped}s" if skipped else "")


def guest_cell(guest: Guest) -> str:
    if not guest.was_run:
        return "not run"
    return "FAIL" if guest.problems else "ok"


def kernels_table(guests: list[Guest]) -> list[str]:
    """The table of programs and kernels."""
    head: tuple[list[str], list[str]] = ([], [])
    before = ""
    for guest in guests:
        arch, kernel = guest.name.split("/", 1)
        # The first of an architecture names it; the flavour goes without.
        head[0].append(arch if arch != before else "")
        head[1].append(kernel.removesuffix(f"-{arch}"))
        before = arch
    names = sorted({name for guest in guests for name in guest.programs})
    rows = [("", head[0]), ("", head[1])]
    rows += [(name, [program_cell(g.programs.get(name)) for g in guests]) for name in names]
    rows.append(("guest", [guest_cell(guest) for guest in guests]))
    widths = [max(6, *map(len, column)) + 2 for column in zip(*(row[1] for row in rows[1:]))]
    return [
        (f"{title:17}" + "".join(f"{c:{w}}" for c, w in zip(cells, widths))).rstrip()
        for title, cells in rows
    ]


def verb_kernels(arguments: argparse.Namespace) -> int:
    guests = [load_guest(arguments.dir, name) for name in arguments.names]
    total = add_up(guests)
    if not arguments.partial:
        for guest in guests:
            if not guest.was_run:
                total.fail(f"{guest.name}: was not run")
    print(*kernels_table(guests), "", sep="\n")
    total.save(arguments.dir / "results.json")
    return print_sum(total)


# --- the table of coherency ---

ARCHS = ("amd64", "arm64", "armhf")
MODES = {
    "direct": "direct",
    "narrow": "narrow mask",
    "force": "swiotlb=force",
    "iommu": "IOMMU",
    "snooped": "IOMMU, snoop",
    "passthrough": "IOMMU, pt",
}
# All guests must have tests of the first three.
ROWS = {
    "map_unmap": "map/unmap",
    "sync": "SYNC",
    "ranged": "ranged SYNC",
    "observer": "observer",
    "other": "other",
}
NEEDED_ROWS = ("map_unmap", "sync", "ranged")


def row_of(case: str) -> str:
    """The row of a case, which its variant tells: FIXTURE.ROW.TEST."""
    parts = case.split(".")
    if len(parts) != 3:
        return "other"
    row = parts[1].split("_")[0]
    row = "map_unmap" if row == "map" else row
    return row if row in ROWS else "other"


def coherency_cells(guest: Guest) -> dict[str, str]:
    """The cells of a guest, which gets a failure for each row that it must have."""
    whole = guest.was_run and not guest.problems and not any(
        program.problems or not program.ended or any(c.name == END_CASE for c in program.cases)
        for program in guest.programs.values()
    )
    if not whole:
        return dict.fromkeys(ROWS if guest.was_run else NEEDED_ROWS, "FAIL")
    cells: dict[str, str] = {}
    for case in guest.cases():
        row = row_of(case.name)
        if cells.get(row) != "FAIL":
            cells[row] = "pass" if case.verdict == "passed" else "FAIL"
    for row in NEEDED_ROWS:
        if row not in cells:
            cells[row] = "FAIL"
            guest.problems.append(f"no test of {ROWS[row]}")
    return cells


def coherency_table(cells: dict[str, dict[str, str]]) -> list[str]:
    """The table of the ways to hand over data, and of what lies in between."""
    lines = [" " * 20 + "".join(f"{title:15}" for title in MODES.values())]
    for arch in ARCHS:
        for row, title in ROWS.items():
            line = "".join(f"{cells.get(f'{arch}/{mode}', {}).get(row, ''):15}" for mode in MODES)
            if line.strip():
                lines.append(f"{arch:7}{title:13}{line}")
    return [line.rstrip() for line in lines]


def verb_coherency(arguments: argparse.Namespace) -> int:
    cells: dict[str, dict[str, str]] = {}
    guests: list[Guest] = []
    reasons: list[str] = []
    for word in arguments.names:
        name, _, reason = word.partition("=")
        if reason:
            cells[name] = dict.fromkeys(NEEDED_ROWS, "-")
            reasons.append(f"- {name}: {reason}")
            continue
        guest = load_guest(arguments.dir, name)
        cells[name] = coherency_cells(guest)
        if not guest.was_run:
            guest.problems.append("was not run")
        guests.append(guest)
    total = add_up(guests)
    total.closing = reasons + total.closing
    print(*coherency_table(cells), "", sep="\n")
    total.save(arguments.dir / "results.json")
    return print_sum(total)


# --- coverage, and the guests of the debug kernel ---

# The driver's own files, by how their names end; gcov tells of the kernel's as well.
SOURCES = re.compile(r"(?:^|/)(vmemexp\.[ch]|include/vmemexp/(?:arch|compat)\.h)$")
MIN_LINES = 95
GCOV_LINE = re.compile(r" *([^:]+): *(\d+):(.*)")


@dataclass
class Coverage:
    """How much of the driver was reached, from what gcov wrote."""

    lines: int = 0
    covered: int = 0
    branches: int = 0
    taken: int = 0
    # "FILE:LINE FUNCTION: TEXT" of lines that were not reached
    uncovered: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    # "FUNCTION: TEXT" of excuses for lines that are not there any more
    stale: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines, branches = percent(self.covered, self.lines), percent(self.taken, self.branches)
        return f"coverage lines {lines}% branches {branches}%"

    def failures(self) -> list[str]:
        if not self.lines:
            return ["no line of the driver was counted"]
        found = [f"uncovered {line}" for line in self.uncovered]
        found += [f"stale {line}" for line in self.stale]
        if not self.branches:
            found.append("no branch of the driver was counted")
        elif self.covered * 100 < MIN_LINES * self.lines:
            found.append(f"less than {MIN_LINES}% of all lines")
        return found

    def listing(self) -> list[str]:
        found = [f"excused {line}" for line in self.excused]
        found += [f"stale {line}" for line in self.stale]
        return found + [f"uncovered {line}" for line in self.uncovered]


def percent(part: int, whole: int) -> str:
    """PART of WHOLE, never more than it is."""
    tenths = 1000 * part // whole if whole else 0
    return f"{tenths // 10}.{tenths % 10}"


def source_of(text: str) -> str | None:
    """The name of the file of the driver that TEXT, which gcov wrote, is about."""
    found = re.search(r"^ *-: *0:Source:(.*)$", text, re.MULTILINE)
    found = found and SOURCES.search(found[1].strip())
    return found[1] if found else None


def judge_coverage(texts: Iterable[str], excuses: Iterable[str]) -> Coverage:
    """Adds up TEXTS, files that gcov wrote. EXCUSES are "FUNCTION: TEXT" of lines."""
    coverage = Coverage()
    unused = dict.fromkeys(excuses)
    known = set(unused)
    no_code: set[str] = set()
    for text in texts:
        source = source_of(text)
        if source is None:
            continue
        function = ""
        for line in text.splitlines():
            words = line.split()
            if line.startswith("function "):
                function = words[1]
            elif line.startswith("branch "):
                # "branch  0 taken 12 (fallthrough)" or "branch  0 never executed"
                coverage.branches += 1
                coverage.taken += words[2] == "taken" and int(words[3]) > 0
            elif found := GCOV_LINE.match(line):
                count, number, code = found[1].strip(), found[2], found[3].strip()
                if count == "-":
                    no_code.add(code)
                    continue
                key = f"{function}: {code}"
                unused.pop(key, None)
                coverage.lines += 1
                if count[0].isdigit():
                    coverage.covered += 1
                else:
                    found_in = coverage.excused if key in known else coverage.uncovered
                    found_in.append(f"{source}:{number} {key}")
    # For some kernels, no code is made of a line.
    coverage.stale = [key for key in unused if key.partition(": ")[2] not in no_code]
    return coverage


def read_coverage(directory: Path, uncovered: Path) -> tuple[Coverage, list[str]]:
    """The coverage in DIRECTORY, and the text of its files."""
    texts = [path.read_text(errors="replace") for path in sorted(directory.glob("*.gcov"))]
    texts = sorted((text for text in texts if source_of(text)), key=lambda t: str(source_of(t)))
    lines = uncovered.read_text().splitlines()
    excuses = [line for line in lines if line and not line.startswith("#")]
    return judge_coverage(texts, excuses), texts


def sum_of(words: str, texts: Iterable[str]) -> int:
    """The sum of the numbers behind WORDS at the ends of lines."""
    pattern = re.compile(rf"\b{words} (\d+)\r?$", re.MULTILINE)
    return sum(int(number) for text in texts for number in pattern.findall(text))


def verb_debug(arguments: argparse.Namespace) -> int:
    guests = [load_guest(arguments.dir, name, name != "fuzz") for name in arguments.names]
    total = add_up(guests)
    for guest in guests:
        if not guest.was_run:
            total.fail(f"{guest.name}: was not run")
    logs = [log_of(arguments.dir, guest.name) for guest in guests if guest.was_run]
    texts = [log.read_text(errors="replace") for log in logs]
    more = []
    for words, of in (("fail-nth steps", "failnth"), ("fuzz executions", "fuzz")):
        number = sum_of(words, texts)
        more.append(f"{words} {number}")
        if of in arguments.names and not number:
            total.fail(f"{of}: {words} 0")
    coverage, sources = read_coverage(arguments.gcov, arguments.uncovered)
    (arguments.dir / "coverage.txt").write_text("\n".join([*coverage.listing(), "", *sources]))
    failures = coverage.failures()
    total.passed += not failures
    for failure in failures:
        total.fail(f"coverage: {failure}")
    more.append(str(coverage))
    total.save(arguments.dir / "results.json")
    return print_sum(total, *more)


# --- the table of builds ---

BUILT = re.compile(r"# build ended with status (\d+)")


def judge_build(text: str) -> tuple[str, list[str]]:
    """The cell of a build, and what was said."""
    lines = text.splitlines()
    found = BUILT.fullmatch(lines[-1]) if lines else None
    if not found:
        return "FAIL", [*lines, "the log is cut off"]
    said = lines[:-1]
    if found[1] != "0":
        return "FAIL", said
    return "warn" if said else "ok", said


def builds_table(cells: dict[str, str]) -> list[str]:
    """The table of architectures with flavours, and versions."""
    rows: dict[str, dict[str, str]] = {}
    for name, cell in cells.items():
        arch, _, kernel = name.partition("/")
        version, _, flavour = kernel.partition("-")
        rows.setdefault(f"{arch} {flavour}", {})[version] = cell
    versions = sorted({version for row in rows.values() for version in row},
                      key=lambda version: [int(part) for part in version.split(".")])
    width = max([18, *(len(title) + 2 for title in rows)])
    lines = [" " * width + "".join(f"{version:7}" for version in versions)]
    for title, row in rows.items():
        lines.append(f"{title:{width}}" + "".join(f"{row.get(version, '-'):7}" for version in versions))
    return [line.rstrip() for line in lines]


def verb_builds(arguments: argparse.Namespace) -> int:
    cells: dict[str, str] = {}
    total = Sum()
    for name in arguments.names:
        log = log_of(arguments.dir, name)
        cells[name], said = judge_build(log.read_text(errors="replace") if log.exists() else "")
        total.closing += [f"# {name}: {line}" for line in said]
        total.passed += cells[name] == "ok"
    for name, cell in cells.items():
        if cell != "ok":
            total.fail(f"{name}: {cell}")
    print(*builds_table(cells), "", sep="\n")
    total.save(arguments.dir / "results.json")
    return print_sum(total)


# --- the parts of a run ---

KTAP_PLAN = re.compile(r"1\.\.(\d+)")
KTAP_RESULT = re.compile(r"(not )?ok (\d+)(?: -)?(?: (.*))?")
PART_ENDED = re.compile(r"# ended with status (\d+) after (\d+) s")
PART_NOT_RUN = re.compile(r"# (not run: .*)")
# Parts that print KTAP; a suite leaves its results.json instead.
KTAP_PARTS = ("lint", "harness", "install")
# timeout's own status, and that of what it had to kill.
CUT_OFF = (124, 137)


def judge_ktap(name: str, lines: Iterable[str]) -> Sum:
    """Adds up KTAP, which may be several runs one after the other."""
    total = Sum()
    planned = reported = 0
    begun = False
    seen: set[str] = set()

    def end_of_run() -> None:
        if begun and planned != reported:
            total.fail(f"{name}: {reported} of {planned} cases reported")

    for line in lines:
        if found := KTAP_PLAN.fullmatch(line):
            end_of_run()
            begun, planned, reported = True, int(found[1]), 0
            seen.clear()
        elif found := KTAP_RESULT.fullmatch(line):
            bad, number, case = found.groups()
            case, _, skip = (case or number).partition(" # SKIP")
            reported += 1
            if case in seen:
                total.fail(f"{name}: {case}: reported twice")
            elif bad:
                total.fail(f"{name}: {case}")
            elif skip:
                total.skipped += 1
                total.closing.append(f"# skipped {name}: {case}:{skip}")
            else:
                total.passed += 1
            seen.add(case)
    end_of_run()
    if not begun or not planned:
        total.fail(f"{name}: announced no cases")
    return total


def outcome_of(directory: Path, part: str, kind: str, lines: list[str], status: int) -> Sum:
    """The result of a part that came to its end."""
    if (directory / f"{part}.json").exists():
        total = Sum.load(directory / f"{part}.json")
    elif kind in KTAP_PARTS:
        total = judge_ktap(part, lines)
    else:
        total = Sum()
        total.fail(f"{part}: left no results")
    if (status != 0) != (total.failed > 0):
        total.fail(f"{part}: ended with status {status}")
    return total


def judge_part(directory: Path, part: str) -> tuple[str, Sum]:
    """The verdict on a part as text, and its sum."""
    log = directory / f"{part}.log"
    total = Sum()
    if not log.exists():
        total.fail(f"{part}: was not run")
        return "FAIL: was not run", total
    text = log.read_text(errors="replace")
    lines = [line.rstrip("\r") for line in text.splitlines()]
    last = lines[-1] if lines else ""
    if found := PART_NOT_RUN.fullmatch(last):
        return found[1], total
    found = PART_ENDED.fullmatch(last)
    if not found:
        total.fail(f"{part}: the log is cut off: it does not say how the part ended")
        return "FAIL", total
    status, seconds = int(found[1]), found[2]
    # A limit in time is no verdict, but what had failed before has failed.
    if status in CUT_OFF:
        saved = directory / f"{part}.json"
        return f"cut off after {seconds} s", Sum.load(saved) if saved.exists() else total
    # "kernels-arm64" is the suite "kernels".
    total = outcome_of(directory, part, part.partition("-")[0], lines[:-1], status)
    return f"{'FAIL' if total.failed else 'pass'} after {seconds} s", total


def verb_parts(arguments: argparse.Namespace) -> int:
    total = Sum()
    words = []
    for part in arguments.names:
        became, one = judge_part(arguments.dir, part)
        words.append(f"# {part}: {became}")
        total.passed += one.passed
        total.failed += one.failed
        total.skipped += one.skipped
        total.closing += one.closing
    print()
    # The last lines tell what failed, as that matters most.
    total.closing.sort(key=lambda line: not line.startswith("# skipped "))
    total.closing = words + total.closing
    total.save(arguments.dir / "results.json")
    return print_sum(total)


# --- what a guest has said ---

PASSED = re.compile(r"# (programs|may skip): |# (ok |#  (RUN|         *OK) )|(passed|skipped) ")


def verb_show(arguments: argparse.Namespace) -> int:
    """Prints what guests have said that did not pass, without what passed in them."""
    for name in arguments.names:
        log = log_of(arguments.dir, name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        if lines and lines[-1] != "# guest ended with status 0":
            for line in lines:
                if not PASSED.match(line):
                    print(f"{name}: {line}".rstrip())
    return 0


# --- the command line ---


def parse_arguments(words: list[str]) -> argparse.Namespace:
    if words and words[0] in ("-h", "--help"):
        print(__doc__, end="")
        sys.exit(0)
    parser = argparse.ArgumentParser(prog="results.py", add_help=False)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for function in (verb_kernels, verb_coherency, verb_debug, verb_builds, verb_parts, verb_show):
        verb = verbs.add_parser(function.__name__.removeprefix("verb_"), add_help=False)
        verb.set_defaults(function=function)
        verb.add_argument("dir", type=Path)
        verb.add_argument("names", nargs="+")
        if function is verb_kernels:
            verb.add_argument("--partial", action="store_true")
        if function is verb_debug:
            verb.add_argument("--gcov", type=Path, required=True)
            verb.add_argument("--uncovered", type=Path, required=True)
    arguments = parser.parse_args(words)
    if not arguments.dir.is_dir():
        parser.error(f"no such directory: {arguments.dir}")
    return arguments


def main() -> int:
    arguments = parse_arguments(sys.argv[1:])
    return arguments.function(arguments)


if __name__ == "__main__":
    sys.exit(main())

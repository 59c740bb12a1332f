#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""results_test.py - prove that results.py takes nothing for a pass that is none

Usage: results_test.py

Needs no guest: judges logs as the suites leave them, with one thing wrong in each, and
what tests/run_tests prints of programs that are made here. Prints KTAP.
Exit status: 0 if all cases passed, else 1
"""
from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterator
from pathlib import Path

sys.dont_write_bytecode = True
import results  # noqa: E402  # pylint: disable=wrong-import-position

RUN_TESTS = Path(__file__).resolve().parent.parent / "run_tests"


def program(name: str, *lines: str, planned: int | None = None, status: int = 0) -> list[str]:
    """The output of run_tests for a program that reports LINES, "VERDICT CASE[: WHY]"."""
    said = [f"{verdict} {name}: {case}" for verdict, case in (line.split(" ", 1) for line in lines)]
    plan = f"plan {name}: {len(lines) if planned is None else planned}"
    return [f"begin {name}", plan, *said, f"end {name}: exit status {status}"]


A_TEST = program("a_test", "passed t", "passed u")


def log(*lines: str, counts: str, status: int, programs: str = "a_test b_test") -> str:
    """The log of a guest."""
    return "\n".join(
        [f"# programs: {programs}", *lines, counts, f"# guest ended with status {status}", ""]
    )


def sum_line(passed: int, failed: int = 0, skipped: int = 0) -> str:
    return f"{passed} passed, {failed} failed, {skipped} skipped"


SOUND = log(*A_TEST, *program("b_test", "passed v", "passed w"), counts=sum_line(4), status=0)


class LogCase(unittest.TestCase):
    """Has a directory for logs, and calls results.py."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = Path(temporary.name)

    def write(self, name: str, text: str) -> None:
        (self.dir / f"{name}.log").write_text(text)

    def call(self, verb: str, *words: str) -> tuple[int, list[str]]:
        """The exit status of results.py, and what it printed."""
        options = [word for word in words if word.startswith("--")]
        names = [word for word in words if not word.startswith("--")]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            arguments = results.parse_arguments([verb, *options, str(self.dir), *names])
            status = arguments.function(arguments)
        return status, out.getvalue().splitlines()

    def table(self, verb: str, *words: str) -> tuple[int, str]:
        """The same without blanks that line up columns, and without empty lines."""
        status, lines = self.call(verb, *words)
        return status, "\n".join(" ".join(line.split()) for line in lines if line)

    def failures(self, text: str) -> list[str]:
        """The failures in the log TEXT of a guest amd64/6.12, as results.py prints them."""
        self.write("amd64-6.12", text)
        status, lines = self.call("kernels", "amd64/6.12")
        start = "# failed "
        found = [line.removeprefix(start) for line in lines if line.startswith(start)]
        found = [line.removeprefix("amd64/6.12: ") for line in found]
        self.assertEqual(status, int(bool(found)), lines)
        self.assertIn(f" {len(found)} failed, ", lines[-1])
        return found


class OneLog(LogCase):
    """Each log has one thing wrong with it."""

    def test_a_sound_log_is_a_pass(self) -> None:
        self.assertEqual(self.failures(SOUND), [])

    def test_carriage_returns_of_a_serial_console_are_nothing(self) -> None:
        self.assertEqual(self.failures(SOUND.replace("\n", "\r\n")), [])

    def test_a_case_that_failed_is_named_with_its_reason(self) -> None:
        b_test = program("b_test", "passed v", "failed w: x.c:1:w:Expected 1 == 2", status=1)
        text = log(*A_TEST, *b_test, counts=sum_line(3, 1), status=1)
        self.assertEqual(self.failures(text), ["b_test: w: x.c:1:w:Expected 1 == 2"])

    def test_a_missing_plan_fails(self) -> None:
        self.assertEqual(
            self.failures(SOUND.replace("plan b_test: 2\n", "")), ["b_test: announced no cases"]
        )

    def test_a_plan_of_nothing_fails(self) -> None:
        text = log(*A_TEST, *program("b_test"), counts=sum_line(2), status=0)
        self.assertEqual(self.failures(text), ["b_test: announced no cases"])

    def test_a_case_that_was_announced_and_not_reported_fails(self) -> None:
        text = log(*A_TEST, *program("b_test", "passed v", planned=2), counts=sum_line(3), status=0)
        self.assertEqual(self.failures(text), ["b_test: 1 of 2 cases reported"])

    def test_what_run_tests_says_of_a_program_is_one_failure(self) -> None:
        b_test = program("b_test", "passed v", "failed end: 1 of 2 cases reported", status=139)
        text = log(*A_TEST, *b_test, counts=sum_line(3, 1), status=1)
        self.assertEqual(self.failures(text), ["b_test: end: 1 of 2 cases reported"])

    def test_a_case_reported_twice_fails(self) -> None:
        b_test = program("b_test", "passed v", "passed v")
        text = log(*A_TEST, *b_test, counts=sum_line(4), status=0)
        self.assertEqual(self.failures(text), ["b_test: v: reported twice"])

    def test_a_program_that_did_not_begin_fails(self) -> None:
        text = log(*A_TEST, counts=sum_line(2), status=0)
        self.assertEqual(self.failures(text), ["b_test: did not begin"])

    def test_a_program_that_did_not_end_fails_with_the_case_that_ran(self) -> None:
        text = SOUND.replace("end b_test: exit status 0\n", "# #  RUN           x.y ...\n")
        self.assertEqual(self.failures(text), ["b_test: did not end (in x.y)"])

    def test_a_program_that_began_twice_fails(self) -> None:
        text = log(*A_TEST, *program("b_test", "passed v"), *program("b_test", "passed w"),
                   counts=sum_line(4), status=0)
        self.assertIn("b_test: began twice", self.failures(text))

    def test_a_program_that_announced_its_cases_twice_fails(self) -> None:
        text = SOUND.replace("plan b_test: 2", "plan b_test: 1\nplan b_test: 2")
        self.assertEqual(self.failures(text), ["b_test: announced its cases twice"])

    def test_a_program_that_nobody_asked_for_fails(self) -> None:
        text = SOUND.replace("programs: a_test b_test", "programs: a_test")
        self.assertEqual(self.failures(text), ["b_test began, which is not among the programs"])

    def test_a_program_that_died_without_a_failed_case_fails(self) -> None:
        text = SOUND.replace("end b_test: exit status 0", "end b_test: exit status 139")
        self.assertEqual(self.failures(text), ["b_test: exit status 139"])

    def test_a_result_of_a_program_that_does_not_run_fails(self) -> None:
        text = SOUND.replace("begin b_test", "passed b_test: early\nbegin b_test")
        self.assertIn("b_test reported something while it did not run", self.failures(text))

    def test_a_log_without_programs_fails(self) -> None:
        text = log(counts=sum_line(0), status=0, programs="")
        self.assertEqual(self.failures(text), ["the log names no programs"])

    def test_a_log_cut_off_between_two_lines_fails(self) -> None:
        lines = SOUND.splitlines(keepends=True)
        for length in range(len(lines)):
            self.assertEqual(
                self.failures("".join(lines[:length])),
                ["the log is cut off: it does not say how the guest ended"],
            )

    def test_a_log_cut_off_in_a_line_fails(self) -> None:
        for length in range(1, len(SOUND)):
            self.assertTrue(self.failures(SOUND[:length]), SOUND[:length])

    def test_half_a_result_is_not_counted(self) -> None:
        self.failures(SOUND[:SOUND.index("passed b_test: w") + len("passed b_test: w")])
        self.assertEqual(json.loads((self.dir / "results.json").read_text())["passed"], 3)

    def test_a_line_cut_off_before_the_end_of_the_guest_fails(self) -> None:
        text = SOUND.replace("end b_test: exit status 0\n" + sum_line(4) + "\n", "passed b_te")
        self.assertIn("a line is cut off: passed b_te", self.failures(text))

    def test_a_result_that_is_not_understood_fails(self) -> None:
        text = SOUND.replace("passed b_test: w", "passed b_test: w and more words")
        self.assertIn(
            "a line is not understood: passed b_test: w and more words", self.failures(text)
        )

    def test_a_count_that_is_another_fails(self) -> None:
        self.assertEqual(
            self.failures(SOUND.replace(sum_line(4), sum_line(5))),
            ["run_tests counted 5, 0, 0, the log has 4, 0, 0"],
        )

    def test_a_missing_count_fails(self) -> None:
        self.assertEqual(
            self.failures(SOUND.replace(sum_line(4) + "\n", "")),
            ["run_tests did not come to its end"],
        )

    def test_every_other_status_of_the_guest_fails(self) -> None:
        for status in (1, 2, 96, 97, 98, 99, 127, 137):
            self.assertEqual(
                self.failures(SOUND.replace("ended with status 0", f"ended with status {status}")),
                [f"ended with status {status} (see tests/vm/run --help)"],
            )

    def test_a_failure_of_which_the_status_knows_nothing_fails_as_well(self) -> None:
        b_test = program("b_test", "passed v", "failed w", status=1)
        text = log(*A_TEST, *b_test, counts=sum_line(3, 1), status=0)
        self.assertEqual(
            self.failures(text), ["b_test: w", "ended with status 0 (see tests/vm/run --help)"]
        )

    def test_a_guest_without_a_log_fails(self) -> None:
        status, lines = self.call("kernels", "amd64/6.12")
        self.assertEqual((status, lines[-1]), (1, sum_line(0, 1)))

    def test_a_guest_without_a_log_may_be_missing_from_a_part_of_the_table(self) -> None:
        status, lines = self.call("kernels", "--partial", "amd64/6.12")
        self.assertEqual((status, lines[-1]), (0, sum_line(0)))


class Skips(LogCase):
    """A skip wants leave."""

    def skipped(self, *patterns: str) -> str:
        b_test = program("b_test", "passed v", "skipped w: the kernel has no w")
        leave = [f"# may skip: {pattern}" for pattern in patterns]
        return log(*leave, *A_TEST, *b_test, counts=sum_line(3, 0, 1), status=0)

    def test_a_skip_without_leave_fails(self) -> None:
        self.assertEqual(
            self.failures(self.skipped()),
            ["the kernel has no w (this may not be skipped here): 1 on amd64/6.12"],
        )

    def test_a_skip_with_leave_is_none(self) -> None:
        self.assertEqual(self.failures(self.skipped(r"b_test(_32)?: .*has no w")), [])

    def test_leave_that_nobody_takes_is_nothing(self) -> None:
        self.assertEqual(self.failures(self.skipped("c_test: .*", "b_test: w")), [])

    def test_leave_for_another_program_or_reason_is_none(self) -> None:
        for pattern in ("a_test: .*", "b_test: v", "b_test: .*has no x", "has no w"):
            self.assertTrue(self.failures(self.skipped(pattern)), pattern)

    def test_skips_are_grouped_by_their_reason(self) -> None:
        b_test = program("b_test", *(f"skipped {name}: no w" for name in "vwx"), status=4)
        text = log("# may skip: .*", *A_TEST, *b_test, counts=sum_line(2, 0, 3), status=0)
        self.write("amd64-6.1", text)
        self.write("amd64-6.12", text)
        status, lines = self.call("kernels", "amd64/6.1", "amd64/6.12")
        self.assertEqual(status, 0)
        self.assertEqual(
            lines[-3:], ["# skipped no w: 3 on amd64/6.1, 3 on amd64/6.12", "", sum_line(4, 0, 6)]
        )


OUTPUT = ["begin b_test", "plan b_test: 2", "passed b_test: v", "# #  RUN           x.y ..."]
KERNEL_LOG = [f"[ {n}.0] last words {n}" for n in range(60)]


def death(*report: str, cut: str = "", status: int = 98) -> str:
    """The log of a guest that did not survive, with REPORT by tests/vm/run."""
    lines = ["# programs: a_test b_test", *A_TEST, *OUTPUT, cut + report[0], *report[1:]]
    return "\n".join([*lines, f"# guest ended with status {status}", ""])


class Deaths(LogCase):
    """The last lines say why a guest died."""

    def last_words(self, text: str) -> list[str]:
        self.write("armhf-6.12", text)
        _, lines = self.call("kernels", "armhf/6.12")
        start = lines.index("# failed armhf/6.12: ended with status 98 (see tests/vm/run --help)")
        self.assertEqual(lines[-2:], ["", sum_line(3, 1)])
        return [line.removeprefix("# armhf/6.12: ") for line in lines[start + 1:-2]]

    def test_a_guest_that_hangs_tells_the_case_and_the_end_of_its_kernel_log(self) -> None:
        text = death("LOST: no verdict after 40 s", "--- end of the kernel log ---", *KERNEL_LOG)
        words = self.last_words(text)
        self.assertEqual(words[:2], ["in b_test: x.y", "LOST: no verdict after 40 s"])
        self.assertEqual(words[-1], KERNEL_LOG[-1])
        self.assertEqual(len(words), 12)

    def test_a_guest_that_panics_tells_the_first_complaint(self) -> None:
        complaint = ["[ 1.0] BUG: KASAN: use-after-free in f+0x1", ""]
        complaint += ["[ 1.1] Modules linked in: x"]
        complaint += [f"[ 2.{n}]  function_{n}+0x10/0x20" for n in range(40)]
        text = death("LOST: the guest ended without a verdict", results.COMPLAINT, *complaint,
                     "--- end of the kernel log ---", *KERNEL_LOG)
        words = self.last_words(text)
        self.assertEqual(words[:4], ["in b_test: x.y", "LOST: the guest ended without a verdict",
                                     complaint[0], complaint[3]])
        self.assertEqual(len(words), 13)

    def test_a_line_that_its_death_cut_off_is_no_result(self) -> None:
        text = death("LOST: no verdict after 40 s", "--- end of the kernel log ---", *KERNEL_LOG,
                     cut="passed b_test: w")
        self.assertIn("in b_test: x.y", self.last_words(text))
        text = text.replace("# #  RUN           x.y ...\n", "")
        self.assertIn("in b_test, after v", self.last_words(text))

    def test_the_kernel_log_has_no_results(self) -> None:
        text = death("LOST: no verdict after 40 s", "--- end of the kernel log ---",
                     "passed b_test: w", "end b_test: exit status 0", sum_line(5))
        self.assertIn("end b_test: exit status 0", self.last_words(text))

    def test_a_kernel_that_complains_is_quoted(self) -> None:
        self.write("amd64-6.12", SOUND.replace("# guest ended with status 0", "\n".join([
            "FAIL: the command ended with 0, but:", "cannot unload vmemexp: busy",
            "[ 1.0] WARNING: at f", results.COMPLAINT, "[ 0.9] run_tests: a_test",
            "[ 1.0] WARNING: at f", "[ 1.1] RAX: 0123",
            "[ 1.1] RIP: 0010:f+0x10", "--- end of the kernel log ---",
            *KERNEL_LOG, "# guest ended with status 97"])))
        status, lines = self.call("kernels", "amd64/6.12")
        self.assertEqual((status, lines[-1]), (1, sum_line(4, 1)))
        start = lines.index("# failed amd64/6.12: ended with status 97 (see tests/vm/run --help)")
        self.assertEqual(lines[start + 1:-2], ["# amd64/6.12: " + line for line in (
            "the last program was b_test", "FAIL: the command ended with 0, but:",
            "cannot unload vmemexp: busy", "[ 0.9] run_tests: a_test", "[ 1.0] WARNING: at f",
            "[ 1.1] RIP: 0010:f+0x10")])

    def test_what_the_harness_could_not_do_is_quoted(self) -> None:
        self.write("amd64-6.12", "# programs: a_test\nrun: no such file to put: x\n"
                   "# guest ended with status 99\n")
        _, lines = self.call("kernels", "amd64/6.12")
        self.assertIn("# amd64/6.12: run: no such file to put: x", lines)

    def test_a_command_that_just_failed_has_no_last_words(self) -> None:
        b_test = program("b_test", "passed v", "failed w", status=1)
        text = log(*A_TEST, *b_test, counts=sum_line(3, 1), status=1)
        text = text.replace("# guest", "--- end of the kernel log ---\nLOST: in thought\n# guest")
        self.assertEqual(self.failures(text), ["b_test: w"])
        _, lines = self.call("kernels", "amd64/6.12")
        self.assertFalse([line for line in lines if line.startswith("# amd64/6.12: ")])

    def test_all_deaths_fit_into_the_last_40_lines(self) -> None:
        text = death("LOST: no verdict after 40 s", "--- end of the kernel log ---", *KERNEL_LOG)
        for number in (1, 2, 3, 4, 5, 8):
            names = [f"armhf/6.{n}" for n in range(number)]
            for name in names:
                self.write(name.replace("/", "-"), text)
            _, lines = self.call("kernels", *names)
            for name in names:
                self.assertIn(f"# {name}: in b_test: x.y", lines[-40:])
                self.assertIn(f"# {name}: LOST: no verdict after 40 s", lines[-40:])


class Kernels(LogCase):
    """The table of programs and kernels."""

    def test_the_table_shows_what_failed_what_was_skipped_and_what_a_guest_lost(self) -> None:
        self.write("amd64-6.1", log(
            "# may skip: b_test: w: no w", *A_TEST,
            *program("b_test", "passed v", "skipped w: no w"), counts=sum_line(3, 0, 1), status=0))
        self.write("amd64-6.12", log(
            *A_TEST, *program("b_test", "passed v", "failed w", status=1),
            counts=sum_line(3, 1), status=1))
        self.write("amd64-6.12-rt-amd64", log(*A_TEST, counts=sum_line(2), status=0,
                                              programs="a_test"))
        self.write("arm64-6.12", SOUND.replace("ended with status 0", "ended with status 97"))
        self.write("armhf-6.12", log(*A_TEST[:-1], counts="", status=98))
        status, table = self.table("kernels", "--partial", "amd64/6.1", "amd64/6.12",
                                   "amd64/6.12-rt-amd64", "arm64/6.12", "armhf/6.12", "armhf/7.2")
        self.assertEqual(table, textwrap.dedent("""\
            amd64 arm64 armhf
            6.1 6.12 6.12-rt 6.12 6.12 7.2
            a_test 2 2 2 2 FAIL
            b_test 1+1s FAIL 1 2 FAIL
            guest ok ok ok FAIL FAIL not run
            # skipped no w: 1 on amd64/6.1
            # failed amd64/6.12: b_test: w
            # failed arm64/6.12: ended with status 97 (see tests/vm/run --help)
            # failed armhf/6.12: ended with status 98 (see tests/vm/run --help)
            14 passed, 3 failed, 1 skipped"""))
        self.assertEqual(status, 1)

    def test_the_columns_are_in_line(self) -> None:
        self.write("amd64-6.1", SOUND)
        self.write("arm64-6.12-something-long", SOUND)
        _, lines = self.call("kernels", "amd64/6.1", "arm64/6.12-something-long")
        self.assertEqual(lines[:3], [
            "                 amd64   arm64",
            "                 6.1     6.12-something-long",
            "a_test           2       2",
        ])

    def test_what_was_not_run_is_left_empty_and_the_status_is_0_if_nothing_failed(self) -> None:
        self.write("amd64-6.1", SOUND)
        status, _ = self.call("kernels", "amd64/6.1")
        self.assertEqual(status, 0)

    def test_show_leaves_out_what_passed(self) -> None:
        self.write("amd64-6.1", SOUND)
        self.write("amd64-6.12", log(
            "# #  RUN           x.y ...", "# # x.c:1:y:Expected 1 == 2", "# not ok 1 x.y",
            "failed a_test: x.y", "# ok 2 x.z", "passed a_test: x.z", counts="", status=1))
        _, lines = self.call("show", "amd64/6.1", "amd64/6.12")
        self.assertEqual(lines, ["amd64/6.12: " + line for line in (
            "# # x.c:1:y:Expected 1 == 2", "# not ok 1 x.y", "failed a_test: x.y")]
            + ["amd64/6.12:", "amd64/6.12: # guest ended with status 1"])


class Coherency(LogCase):
    """The table of coherency."""

    RESULTS = ("passed c.map_unmap.t", "passed c.sync.t", "passed c.ranged.t")

    def guest(self, name: str, status: int, counts: tuple[int, ...], *lines: str,
              planned: int | None = None) -> None:
        said = program("p", *lines, planned=planned, status=int(status == 1))
        self.write(name, log(*said, counts=sum_line(*counts), status=status, programs="p"))

    def test_the_table_shows_as_fail_what_failed_was_skipped_or_not_run_and_what_a_guest_lost(
        self,
    ) -> None:
        one, two, three = self.RESULTS
        self.guest("amd64-direct", 0, (3,), *self.RESULTS)
        self.guest("amd64-narrow", 1, (2, 1), one, "failed c.sync.t", three)
        self.guest("amd64-force", 0, (2, 0, 1), one, two, "skipped c.ranged.t: none")
        self.guest("amd64-iommu", 97, (3,), *self.RESULTS)
        self.write("arm64-direct", log("begin p", "passed p: c.map_unmap.t", counts="",
                                       status=98, programs="p"))
        self.guest("arm64-narrow", 1, (3, 1), *self.RESULTS, "failed end: 3 of 4 cases reported",
                   planned=4)
        self.guest("arm64-force", 0, (2,), one, two)
        status, table = self.table(
            "coherency", *(f"amd64/{mode}" for mode in ("direct", "narrow", "force", "iommu")),
            "amd64/snooped=all do", "amd64/passthrough",
            *(f"arm64/{mode}" for mode in results.MODES), "armhf/iommu=there is none")
        rows = [line for line in table.splitlines()
                if line.startswith("a") and (" map/unmap " in line or "SYNC " in line)]
        self.assertEqual("\n".join(rows), textwrap.dedent("""\
            amd64 map/unmap pass pass pass FAIL - FAIL
            amd64 SYNC pass FAIL pass FAIL - FAIL
            amd64 ranged SYNC pass pass FAIL FAIL - FAIL
            arm64 map/unmap FAIL FAIL pass FAIL FAIL FAIL
            arm64 SYNC FAIL FAIL pass FAIL FAIL FAIL
            arm64 ranged SYNC FAIL FAIL FAIL FAIL FAIL FAIL
            armhf map/unmap -
            armhf SYNC -
            armhf ranged SYNC -"""))
        self.assertEqual(status, 1)
        for line in ("# failed arm64/force: no test of ranged SYNC", "- armhf/iommu: there is none",
                     "# failed amd64/passthrough: was not run",
                     "# failed none (this may not be skipped here): 1 on amd64/force"):
            self.assertIn(line, table)

    def test_all_passed_is_status_0(self) -> None:
        self.guest("amd64-direct", 0, (4,), *self.RESULTS, "passed c.d")
        status, table = self.table("coherency", "amd64/direct")
        self.assertIn("amd64 other pass", table)
        self.assertEqual((status, table.splitlines()[-1]), (0, sum_line(4)))

    def test_what_belongs_to_no_row_fails_too(self) -> None:
        self.guest("amd64-direct", 1, (3, 1), *self.RESULTS, "failed c.d")
        status, table = self.table("coherency", "amd64/direct")
        self.assertIn("amd64 other FAIL", table)
        self.assertEqual(status, 1)

    def test_a_row_is_fail_if_one_of_several_cases_failed(self) -> None:
        for cases in (("failed c.sync.v", "passed c.sync.w"),
                      ("passed c.sync.v", "failed c.sync.w")):
            self.guest("amd64-direct", 1, (4, 1), *self.RESULTS, *cases)
            _, table = self.table("coherency", "amd64/direct")
            self.assertIn("amd64 SYNC FAIL", table)
            self.assertIn("amd64 ranged SYNC pass", table)

    def test_the_row_is_told_by_the_variant(self) -> None:
        for case, row in (("c.map_unmap.t", "map_unmap"), ("c.sync_of_all.t", "sync"),
                          ("c.observer.t", "observer"), ("c.new.t", "other"), ("c.sync", "other"),
                          ("sync", "other"), ("c.other_sync.t", "other")):
            self.assertEqual(results.row_of(case), row, case)

    def test_the_title_is_above_its_column(self) -> None:
        self.guest("amd64-iommu", 0, (3,), *self.RESULTS)
        _, lines = self.call("coherency", "amd64/iommu")
        self.assertEqual(lines[0].index("IOMMU"), lines[1].index("pass"))


GCOV_C = """\
        -:    0:Source:vmemexp.c
        -:    0:Runs:1
        -:    1:/* a comment */
function f called 2 returned 100% blocks executed 75%
        2:    2:static int f(int a)
        -:    3:{
        2:    4:	if (a)
branch  0 taken 1 (fallthrough)
branch  1 taken 1
branch  2 never executed
       1*:    5:		return 1;
    #####:    6:	goto out: never;
    =====:    7:	return -EIO;
branch  0 taken 0
        -:    8:}
"""
GCOV_H = """\
        -:    0:Source:include/vmemexp/arch.h
function g called 0 returned 0% blocks executed 0%
    #####:    9:static inline void g(void)
"""
GCOV_KERNEL = GCOV_H.replace("include/vmemexp/arch.h", "include/linux/arch.h")


class Coverage(LogCase):
    """The output of gcov is counted."""

    def test_lines_and_branches_are_counted(self) -> None:
        coverage = results.judge_coverage([GCOV_C], [])
        self.assertEqual(
            (coverage.lines, coverage.covered, coverage.branches, coverage.taken), (5, 3, 4, 2)
        )
        self.assertEqual(str(coverage), "coverage lines 60.0% branches 50.0%")

    def test_a_line_that_was_not_reached_is_named(self) -> None:
        coverage = results.judge_coverage([GCOV_C], ["f: goto out: never;"])
        self.assertEqual(coverage.uncovered, ["vmemexp.c:7 f: return -EIO;"])
        self.assertEqual(coverage.excused, ["vmemexp.c:6 f: goto out: never;"])
        self.assertIn("uncovered vmemexp.c:7 f: return -EIO;", coverage.failures())

    def test_an_excuse_for_another_function_is_none(self) -> None:
        coverage = results.judge_coverage([GCOV_C], ["g: return -EIO;"])
        self.assertEqual(len(coverage.uncovered), 2)
        self.assertEqual(coverage.stale, ["g: return -EIO;"])
        self.assertIn("stale g: return -EIO;", coverage.failures())

    def test_an_excuse_for_a_line_without_code_is_not_stale(self) -> None:
        self.assertEqual(results.judge_coverage([GCOV_C], ["f: }"]).stale, [])

    def test_the_drivers_headers_count_and_the_kernels_do_not(self) -> None:
        coverage = results.judge_coverage([GCOV_H, GCOV_KERNEL], [])
        self.assertEqual(coverage.uncovered, [
            "include/vmemexp/arch.h:9 g: static inline void g(void)"])
        for name in ("vmemexp.c", "vmemexp.h", "include/vmemexp/arch.h", "include/vmemexp/compat.h",
                     "/build/6.12/vmemexp.c"):
            text = GCOV_H.replace("include/vmemexp/arch.h", name)
            self.assertEqual(results.judge_coverage([text], []).lines, 1, name)
        for name in ("include/vmemexp/trace.h", "other_vmemexp.c", "include/linux/compat.h"):
            text = GCOV_H.replace("include/vmemexp/arch.h", name)
            self.assertEqual(results.judge_coverage([text], []).lines, 0, name)

    def test_coverage_of_no_lines_fails(self) -> None:
        for texts in ([], [""], [GCOV_KERNEL]):
            self.assertEqual(
                results.judge_coverage(texts, []).failures(), ["no line of the driver was counted"]
            )

    def test_coverage_of_no_branches_fails(self) -> None:
        text = "        -:    0:Source:vmemexp.c\n        1:    1:x\n"
        self.assertEqual(
            results.judge_coverage([text], []).failures(), ["no branch of the driver was counted"]
        )

    def test_coverage_that_is_too_low_fails_whatever_is_excused(self) -> None:
        excuses = ["f: goto out: never;", "f: return -EIO;"]
        self.assertEqual(
            results.judge_coverage([GCOV_C], excuses).failures(), ["less than 95% of all lines"]
        )
        less = GCOV_C + "        1:    9:x\n" * 34
        self.assertEqual(
            str(results.judge_coverage([less], [])), "coverage lines 94.8% branches 50.0%"
        )
        self.assertEqual(len(results.judge_coverage([less], excuses).failures()), 1)
        enough = GCOV_C + "        1:    9:x\n" * 35
        self.assertEqual(results.judge_coverage([enough], excuses).failures(), [])

    def test_percents_are_never_rounded_up(self) -> None:
        self.assertEqual(results.percent(9999, 10000), "99.9")
        self.assertEqual(results.percent(1, 3), "33.3")
        self.assertEqual(results.percent(7, 7), "100.0")
        self.assertEqual(results.percent(0, 0), "0.0")


class Debug(LogCase):
    """The report of check-debug."""

    def setUp(self) -> None:
        super().setUp()
        (self.dir / "gcov").mkdir()
        (self.dir / "excuses").write_text("# none\n\nf: goto out: never;\nf: return -EIO;\n")
        self.gcov(GCOV_C + "        1:    9:x\n" * 35)
        self.write("failnth", log("# # fail-nth steps 20", "# # fail-nth steps 3\r", *A_TEST,
                                  counts=sum_line(2), status=0, programs="a_test"))
        self.fuzz("fuzz executions 77")

    def gcov(self, text: str) -> None:
        (self.dir / "gcov" / "vmemexp.c.gcov").write_text(text)

    def fuzz(self, *lines: str, status: int = 0) -> None:
        self.write("fuzz", "\n".join([*lines, f"# guest ended with status {status}", ""]))

    def report(self, *names: str) -> tuple[int, list[str]]:
        return self.call("debug", f"--gcov={self.dir / 'gcov'}",
                         f"--uncovered={self.dir / 'excuses'}", *(names or ("failnth", "fuzz")))

    def test_the_last_lines_sum_up(self) -> None:
        status, lines = self.report()
        self.assertEqual(lines, ["fail-nth steps 23", "fuzz executions 77",
                                 "coverage lines 95.0% branches 50.0%", "", sum_line(4)])
        self.assertEqual(status, 0)

    def test_coverage_txt_begins_with_what_was_not_reached(self) -> None:
        self.report()
        lines = (self.dir / "coverage.txt").read_text().splitlines()
        self.assertEqual(lines[0], "excused vmemexp.c:6 f: goto out: never;")
        self.assertIn("    =====:    7:	return -EIO;", lines)

    def test_coverage_that_is_0_fails(self) -> None:
        self.gcov("")
        status, lines = self.report()
        self.assertIn("# failed coverage: no line of the driver was counted", lines)
        self.assertIn("coverage lines 0.0% branches 0.0%", lines)
        self.assertEqual((status, lines[-1]), (1, sum_line(3, 1)))

    def test_a_line_without_coverage_fails(self) -> None:
        (self.dir / "excuses").write_text("f: goto out: never;\n")
        status, lines = self.report()
        self.assertIn("# failed coverage: uncovered vmemexp.c:7 f: return -EIO;", lines)
        self.assertEqual((status, lines[-1]), (1, sum_line(3, 1)))

    def test_a_fuzzer_that_failed_or_did_nothing_fails(self) -> None:
        self.fuzz("fuzz executions 77", status=1)
        status, lines = self.report()
        self.assertIn("# failed fuzz: ended with status 1 (see tests/vm/run --help)", lines)
        self.assertEqual((status, lines[-1]), (1, sum_line(3, 1)))
        self.fuzz("fuzz executions 0")
        status, lines = self.report()
        self.assertIn("# failed fuzz: fuzz executions 0", lines)
        self.assertEqual(status, 1)

    def test_a_fuzzer_whose_log_is_cut_off_fails(self) -> None:
        self.write("fuzz", "fuzz executions 77\n")
        status, lines = self.report()
        self.assertEqual((status, lines[-1]), (1, sum_line(3, 1)))

    def test_what_the_fuzzer_prints_is_no_result(self) -> None:
        self.fuzz("passed a_test: t", "end of it", "begin a_test", "fuzz executions 77")
        self.assertEqual(self.report()[0], 0)

    def test_no_fail_nth_steps_fail(self) -> None:
        self.write("failnth", log(*A_TEST, counts=sum_line(2), status=0, programs="a_test"))
        status, lines = self.report()
        self.assertIn("# failed failnth: fail-nth steps 0", lines)
        self.assertEqual(status, 1)

    def test_a_guest_without_a_log_fails(self) -> None:
        status, lines = self.report("failnth", "fuzz", "kinds")
        self.assertIn("# failed kinds: was not run", lines)
        self.assertEqual(status, 1)


class Builds(LogCase):
    """The table of builds."""

    BUILT = "# build ended with status 0\n"

    def test_the_table_shows_what_was_not_built_and_what_was_built_with_words(self) -> None:
        self.write("amd64-5.10-amd64", self.BUILT)
        self.write("amd64-6.12-amd64", "x.c:1: warning: odd\n" + self.BUILT)
        self.write("amd64-6.12-rt-amd64", "x.c:1: error: bad\n# build ended with status 99\n")
        self.write("armhf-6.1-armmp", "")
        status, table = self.table("builds", "amd64/5.10-amd64", "amd64/6.12-amd64",
                                   "amd64/6.12-rt-amd64", "armhf/6.1-armmp", "armhf/7.3-armmp")
        self.assertEqual(table, textwrap.dedent("""\
            5.10 6.1 6.12 7.3
            amd64 amd64 ok - warn -
            amd64 rt-amd64 - - FAIL -
            armhf armmp - FAIL - FAIL
            # amd64/6.12-amd64: x.c:1: warning: odd
            # amd64/6.12-rt-amd64: x.c:1: error: bad
            # armhf/6.1-armmp: the log is cut off
            # armhf/7.3-armmp: the log is cut off
            # failed amd64/6.12-amd64: warn
            # failed amd64/6.12-rt-amd64: FAIL
            # failed armhf/6.1-armmp: FAIL
            # failed armhf/7.3-armmp: FAIL
            1 passed, 4 failed, 0 skipped"""))
        self.assertEqual(status, 1)

    def test_all_built_in_silence_is_status_0(self) -> None:
        self.write("amd64-5.10-amd64", self.BUILT)
        status, lines = self.call("builds", "amd64/5.10-amd64")
        self.assertEqual((status, lines[-1]), (0, sum_line(1)))


KTAP = "TAP version 13\n1..3\n# a word\nok 1 l.a\nok 2 - l.b\nok 3 l.c # SKIP no c\n"


class Parts(LogCase):
    """The sum of a run."""

    def part(self, name: str, text: str = "", status: int = 0) -> None:
        self.write(name, f"{text}# ended with status {status} after 12 s\n")

    def saved(self, name: str, total: results.Sum) -> None:
        total.save(self.dir / f"{name}.json")

    def one(self, text: str, status: int = 0) -> tuple[int, list[str]]:
        self.part("lint", text, status)
        return self.call("parts", "lint")

    def test_all_parts_are_added_up(self) -> None:
        self.part("lint", KTAP)
        self.part("kernels")
        self.saved("kernels", results.Sum(5, 0, 1, ["# skipped no w: 1 on amd64/6.1"]))
        self.part("coherency", status=1)
        self.saved("coherency", results.Sum(7, 1, 0, ["# failed x"]))
        status, lines = self.call("parts", "lint", "coherency", "kernels")
        self.assertEqual(lines, [
            "", "# lint: pass after 12 s", "# coherency: FAIL after 12 s",
            "# kernels: pass after 12 s", "# skipped lint: l.c: no c",
            "# skipped no w: 1 on amd64/6.1", "# failed x", "", sum_line(14, 1, 2)])
        self.assertEqual(status, 1)

    def test_a_part_of_which_all_passed_is_status_0(self) -> None:
        self.assertEqual(self.one(KTAP)[0], 0)

    def test_a_missing_plan_fails(self) -> None:
        status, lines = self.one(KTAP.replace("1..3\n", ""))
        self.assertIn("# failed lint: announced no cases", lines)
        self.assertEqual(status, 1)

    def test_a_plan_of_nothing_fails(self) -> None:
        status, lines = self.one("1..0\n")
        self.assertIn("# failed lint: announced no cases", lines)
        self.assertEqual(status, 1)

    def test_a_case_that_failed_is_named(self) -> None:
        status, lines = self.one(KTAP.replace("ok 2", "not ok 2"), status=1)
        self.assertIn("# failed lint: l.b", lines)
        self.assertEqual((status, lines[-1]), (1, sum_line(1, 1, 1)))

    def test_a_case_that_was_announced_and_not_reported_fails(self) -> None:
        status, lines = self.one(KTAP.replace("ok 2 - l.b\n", ""))
        self.assertIn("# failed lint: 2 of 3 cases reported", lines)
        self.assertEqual(status, 1)

    def test_so_it_does_in_the_first_of_two_runs(self) -> None:
        self.assertEqual(self.one(KTAP + KTAP)[0], 0)
        self.assertEqual(self.one(KTAP.replace("ok 2 - l.b\n", "") + KTAP)[0], 1)

    def test_a_case_reported_twice_fails(self) -> None:
        status, lines = self.one(KTAP.replace("l.b", "l.a"))
        self.assertIn("# failed lint: l.a: reported twice", lines)
        self.assertEqual(status, 1)

    def test_a_status_that_contradicts_the_cases_fails(self) -> None:
        status, lines = self.one(KTAP, status=1)
        self.assertIn("# failed lint: ended with status 1", lines)
        self.assertEqual(status, 1)
        self.part("kernels", status=0)
        self.saved("kernels", results.Sum(5, 1, 0, []))
        self.assertIn("# failed kernels: ended with status 0", self.call("parts", "kernels")[1])

    def test_a_suite_that_left_no_results_fails(self) -> None:
        self.part("kernels", sum_line(5) + "\n")
        status, lines = self.call("parts", "kernels")
        self.assertIn("# failed kernels: left no results", lines)
        self.assertEqual(status, 1)

    def test_a_log_that_is_cut_off_or_missing_fails(self) -> None:
        self.write("lint", KTAP)
        self.assertEqual(self.call("parts", "lint")[0], 1)
        self.write("lint", "")
        status, lines = self.call("parts", "lint")
        self.assertEqual((status, lines[-1]), (1, sum_line(0, 1)))
        status, lines = self.call("parts", "harness")
        self.assertIn("# failed harness: was not run", lines)
        self.assertEqual(status, 1)

    def test_what_had_no_time_is_neither_a_pass_nor_a_failure(self) -> None:
        self.write("debug", "# not run: 5 minutes left, of 60\n")
        self.part("kernels-arm64", status=124)
        status, lines = self.call("parts", "debug", "kernels-arm64")
        self.assertEqual(lines, ["", "# debug: not run: 5 minutes left, of 60",
                                 "# kernels-arm64: cut off after 12 s", "", sum_line(0)])
        self.assertEqual(status, 0)

    def test_what_failed_before_it_was_cut_off_has_failed(self) -> None:
        for cut in (124, 137):
            self.part("kernels-arm64", status=cut)
            self.saved("kernels-arm64", results.Sum(5, 1, 0, ["# failed x"]))
            status, lines = self.call("parts", "kernels-arm64")
            self.assertEqual((status, lines[-1]), (1, sum_line(5, 1)))
            self.assertIn("# kernels-arm64: cut off after 12 s", lines)


class CommandLine(LogCase):
    """How the suites and people call it."""

    def run_it(self, *words: str) -> tuple[int, str]:
        ran = subprocess.run([sys.executable, results.__file__, *words], text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return ran.returncode, ran.stdout

    def test_help_is_the_text_at_the_top(self) -> None:
        self.assertEqual(self.run_it("--help"), (0, results.__doc__))

    def test_wrong_usage_is_status_2(self) -> None:
        for words in ((), ("tables",), ("kernels",), ("kernels", str(self.dir)),
                      ("kernels", str(self.dir / "nothing"), "amd64/6.12"),
                      ("debug", str(self.dir), "fuzz")):
            self.assertEqual(self.run_it(*words), (2, ""), words)

    def test_the_status_is_that_of_the_tests(self) -> None:
        self.write("amd64-6.12", SOUND)
        self.assertEqual(self.run_it("kernels", str(self.dir), "amd64/6.12")[0], 0)
        self.assertEqual(self.run_it("kernels", str(self.dir), "amd64/6.1")[0], 1)

    def test_each_suite_leaves_its_sum(self) -> None:
        self.write("a", SOUND)
        self.write("lint", KTAP + "# ended with status 0 after 12 s\n")
        self.write("amd64-6.12-amd64", Builds.BUILT)
        for verb, *words in (("kernels", "a/b"), ("coherency", "a"), ("builds", "amd64/6.12-amd64"),
                             ("debug", f"--gcov={self.dir}",
                              f"--uncovered={self.dir / 'a.log'}", "a"),
                             ("parts", "lint")):
            _, lines = self.call(verb, *words)
            left = results.Sum.load(self.dir / "results.json")
            self.assertEqual(str(left), lines[-1], verb)
            (self.dir / "results.json").unlink()


class RunTests(LogCase):
    """results.py understands the output of tests/run_tests."""

    def run_tests(self, awk: str = "", **programs: str) -> list[str]:
        """The failures of programs with these texts, as run_tests prints them and results.py counts them."""
        board, commands = self.dir / "board", self.dir / "bin"
        board.mkdir()
        commands.mkdir()
        (board / "run_tests").write_text(RUN_TESTS.read_text())
        (board / "settings").write_text("timeout=2\n")
        for name, text in programs.items():
            self.executable(board / name, text)
        # It is not for this machine's kernel.
        self.executable(commands / "modprobe", ":")
        if awk:
            self.executable(commands / "awk", awk)
        path = f"{commands}:{os.environ['PATH']}"
        self.ran = subprocess.run(
            ["sh", str(board / "run_tests"), *programs], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, env={**os.environ, "PATH": path, "KMSG": "/dev/null"},
            # A shell that runs this in the background may ignore it, and then no child can
            # else.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # pylint: disable=subprocess-popen-preexec-fn
            check=False)
        return self.failures(f"# programs: {' '.join(programs)}\n# may skip: .*: has none\n"
                             f"{self.ran.stdout}# guest ended with status {self.ran.returncode}\n")

    @staticmethod
    def executable(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def test_what_passed_or_may_be_skipped_is_counted(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="echo 1..2; echo ok 1 x.a; echo 'ok 2 - x.b # SKIP has none'",
            b_test="echo 1..1; echo 'ok 1 x.a # SKIP has none'; exit 4"), [])
        self.assertEqual(self.ran.returncode, 0)
        self.assertEqual(self.ran.stdout.splitlines()[-2:],
                         ["# skipped 2: has none", sum_line(1, 0, 2)])

    def test_a_skip_for_another_reason_fails(self) -> None:
        self.assertTrue(self.run_tests(a_test="echo 1..1; echo 'ok 1 x.a # SKIP why not'"))

    def test_a_case_that_failed_has_the_expectation_as_its_reason(self) -> None:
        self.assertEqual(self.run_tests(a_test="""
            echo 1..2; echo '#  RUN           x.a ...'; echo ok 1 x.a
            echo '#  RUN           x.b ...'; echo '# a word'; echo '# y.c:1:b:Expected 1 == 2'
            echo '#          FAIL  x.b'; echo not ok 2 x.b; exit 1"""),
            ["a_test: x.b: y.c:1:b:Expected 1 == 2"])
        self.assertEqual(self.ran.returncode, 1)

    def test_a_program_that_dies_has_failed(self) -> None:
        self.assertEqual(self.run_tests(a_test="echo 1..2; echo ok 1 x.a; kill -9 $$"),
                         ["a_test: end: 1 of 2 cases reported, exit status 137"])

    def test_a_program_that_fails_without_a_case_has_failed(self) -> None:
        self.assertEqual(self.run_tests(a_test="echo 1..1; echo ok 1 x.a; exit 3"),
                         ["a_test: end: exit status 3"])

    def test_a_program_that_says_nothing_has_failed(self) -> None:
        self.assertEqual(self.run_tests(a_test=":"),
                         ["a_test: end: no case was announced, exit status 0"])

    def test_a_program_that_hangs_has_failed(self) -> None:
        self.assertEqual(self.run_tests(a_test="echo 1..1; exec sleep 60"),
                         ["a_test: end: 0 of 1 cases reported, exit status 124"])

    def test_a_program_that_hangs_in_a_child_has_failed(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="echo 1..1; echo ok 1 x.a; sh -c 'sleep 60; :' >/dev/null"),
            ["a_test: end: exit status 124"])

    def test_a_program_that_hangs_and_ends_well_has_failed(self) -> None:
        self.assertEqual(self.run_tests(a_test="""
            trap 'kill $!; exit 0' TERM; echo 1..1; echo ok 1 x.a; sleep 60 & wait"""),
            ["a_test: end: exit status 124"])

    def test_a_program_that_hangs_and_cannot_be_ended_is_killed(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="trap '' TERM; echo 1..1; echo ok 1 x.a; while :; do sleep 1; done"),
            ["a_test: end: exit status 124"])

    def test_a_program_may_take_long_while_it_prints(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="echo 1..5; for i in 1 2 3 4 5; do sleep 1; echo ok $i x.$i; done"), [])

    def test_a_program_can_be_interrupted(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="trap 'echo ok 1 x.a; exit' INT; echo 1..1; kill -INT $$; sleep 60"), [])

    def test_an_awk_that_ends_early_is_no_pass(self) -> None:
        self.assertIn("a_test: end: awk ended with status 2",
                      self.run_tests(awk="exit 2", a_test="echo 1..1; echo ok 1 x.a"))
        self.assertEqual(self.ran.returncode, 1)

    def test_a_program_that_leaves_a_process_behind_has_failed(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="echo 1..1; echo ok 1 x.a; (sleep 600; :) &",
            b_test="echo 1..1; echo ok 1 x.a"), ["a_test: end: left a process behind"])

    def test_a_program_may_end_before_its_children(self) -> None:
        self.assertEqual(self.run_tests(a_test="echo 1..1; echo ok 1 x.a; (sleep 1; :) &"), [])

    def test_a_case_reported_twice_fails(self) -> None:
        self.assertEqual(self.run_tests(a_test="echo 1..2; echo ok 1 x.a; echo ok 2 x.a"),
                         ["a_test: x.a: reported twice"])

    def test_what_a_program_prints_is_not_taken_for_a_result(self) -> None:
        self.assertEqual(self.run_tests(
            a_test="echo 1..1; echo passed a_test: x.b; echo end a_test: exit status 0; "
                   "echo 1 passed, 2 failed, 3 skipped; echo ok 1 x.a"), [])


def cases_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases_of(item)
        else:
            yield item


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, end="")
        return 0
    cases = list(cases_of(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])))
    print("KTAP version 1")
    print(f"1..{len(cases)}")
    failed = False
    for number, case in enumerate(cases, 1):
        outcome = unittest.TestResult()
        case.run(outcome)
        for _, text in outcome.failures + outcome.errors:
            print(textwrap.indent(text.rstrip(), "# "))
        group, name = case.id().split(".")[-2:]
        name = f"results.{group.lower()}.{name.removeprefix('test_')}"
        print(f"{'ok' if outcome.wasSuccessful() else 'not ok'} {number} {name}")
        failed = failed or not outcome.wasSuccessful()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0
"""For test programs in Python, of unittest's classes: prints KTAP as the others do.

A case is CLASS.METHOD, the class in small letters and the method without "test_".
"""
from __future__ import annotations

import io
import sys
import traceback
import unittest


def cases(suite: unittest.TestSuite):
    """All tests of a suite, in its order."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def name_of(test: unittest.TestCase) -> str:
    """CLASS.METHOD, as tests are called."""
    _, fixture, method = test.id().rsplit(".", 2)
    return f"{fixture.lower()}.{method.removeprefix('test_')}"


class Result(unittest.TestResult):
    """Keeps why the one test failed: in one line first, then how it came to that."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.why: list[str] = []

    def take(self, error) -> None:
        kind, value, _ = error
        first = (str(value).splitlines() or [""])[0]
        self.why += [f"{kind.__name__}: {first}"]
        self.why += "".join(traceback.format_exception(*error)).splitlines()

    def addError(self, test, err) -> None:  # pylint: disable=invalid-name
        super().addError(test, err)
        self.take(err)

    def addFailure(self, test, err) -> None:  # pylint: disable=invalid-name
        super().addFailure(test, err)
        self.take(err)

    def addSubTest(self, test, subtest, err) -> None:  # pylint: disable=invalid-name
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.take(err)


def main() -> int:
    """Runs the tests of the program; returns its exit status."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    tests = list(cases(suite))
    print(f"TAP version 13\n1..{len(tests)}", flush=True)
    failed = 0
    for number, test in enumerate(tests, 1):
        result = Result()
        test.run(result)
        if result.skipped:
            outcome = f"ok {number} {name_of(test)} # SKIP {result.skipped[0][1]}"
        elif result.wasSuccessful():
            outcome = f"ok {number} {name_of(test)}"
        else:
            failed += 1
            outcome = f"not ok {number} {name_of(test)}"
        print(*(f"# {line}" for line in result.why), outcome, sep="\n", flush=True)
    return int(failed > 0)

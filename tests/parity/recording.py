"""Runs tests in this process, and records how far their comparisons were from their bounds."""

from collections import defaultdict
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from tests.support import compare
from tests.support.places import CHECKOUT

# test id -> {(kind, bound): the largest difference}
Measured = dict[str, dict[tuple[compare.Kind, float], float]]


class Recorder:
    """A plugin of pytest that records the comparisons of each test."""

    def __init__(self) -> None:
        self.measured: Measured = defaultdict(dict)
        self.problems: list[str] = []  # tests that did not pass

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        of_test = self.measured[item.nodeid.removeprefix("tests/")]

        def record(kind: compare.Kind, difference: float, bound: float) -> None:
            of_test[kind, bound] = max(difference, of_test.get((kind, bound), 0.0))

        compare.observers.append(record)
        try:
            return (yield)
        finally:
            compare.observers.remove(record)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.problems.append(f"{report.nodeid}: {report.outcome}")


def measure(tests: Iterable[str]) -> Measured:
    """Run tests, given by file and function; return what their comparisons found. Raises RuntimeError: one fails."""
    recorder = Recorder()
    paths = [str(CHECKOUT / "tests" / test) for test in dict.fromkeys(tests)]
    status = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(CHECKOUT), *paths], plugins=[recorder])
    if status or recorder.problems:
        raise RuntimeError(f"expected all tests to pass, found exit status {status}: {recorder.problems}")
    return recorder.measured

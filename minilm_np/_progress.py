"""Messages and the progress of long work, on stderr: a bar on a terminal, elsewhere one line every ten seconds."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

EVERY_S = 10.0  # seconds between two lines

T = TypeVar("T")


class Report(Protocol):
    """A function to call with the number of units finished since its last call, and with a note to show."""

    def __call__(self, done: int, note: str = "", /) -> object: ...


clock = time.monotonic  # tests replace it


def say(text: str) -> None:
    """Print one line on stderr; nothing in a process without stderr, where `print` would write to stdout."""
    if sys.stderr is not None:
        print(f"minilm-np: {text}", file=sys.stderr, flush=True)


@contextmanager
def progress(
    what: str, unit: str, total: int | None = None, *, initial: int = 0, delay: float = 0.0, leave: bool = True
) -> Iterator[Report]:
    """Yield a function that shows how far some work is.

    what: the work, such as "encode". unit: what is counted, in the singular. total: None if it is unknown.
    initial: the units that were finished before.
    delay, leave: seconds before the bar is drawn, and whether it stays when the work is done.
    """
    if sys.stderr is None:
        yield lambda done, note="": None
    elif sys.stderr.isatty():
        from tqdm import tqdm  # its import is a tenth of the start-up time

        with tqdm(total=total, desc=what, unit=unit, initial=initial, delay=delay, leave=leave) as bar:

            def report(done: int, note: str = "") -> None:
                bar.set_postfix_str(note, refresh=False)
                bar.update(done)

            yield report
    else:
        yield _Lines(what, unit, total, initial).report


def tracked(items: Sequence[T], what: str, unit: str, *, delay: float = 0.0, leave: bool = True) -> Iterator[T]:
    """Yield the items. Each counts as one unit when the next one is taken; otherwise as `progress`."""
    with progress(what, unit, len(items), delay=delay, leave=leave) as report:
        for item in items:
            yield item
            report(1)


class _Lines:
    """Prints how far the work is, at most every ten seconds, and nothing if it takes less."""

    def __init__(self, what: str, unit: str, total: int | None, initial: int) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._done = self._initial = initial
        self._start = self._last = clock()

    def report(self, done: int, note: str = "") -> None:
        self._done += done
        now = clock()
        if now - self._last < EVERY_S or self._done == self._total:
            return
        self._last, seconds = now, now - self._start
        parts = [f"{self._done:,} {self._unit}s after {seconds:,.0f} s"]
        if self._total is not None:
            parts = [f"{self._done:,} of {self._total:,} {self._unit}s after {seconds:,.0f} s"]
            if self._done > self._initial:
                left = seconds * (self._total - self._done) / (self._done - self._initial)
                parts.append(f"about {left:,.0f} s left")
        line = ", ".join(filter(None, [*parts, note]))
        with suppress(OSError):  # the work goes on without a reader of stderr
            say(f"{self._what}: {line}")

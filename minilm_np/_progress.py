"""Progress of long work, on stderr: a bar on a terminal, elsewhere one line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

EVERY_S = 10.0  # seconds between two lines

T = TypeVar("T")
Report = Callable[[int], object]  # called with the number of units finished since the last call

clock = time.monotonic  # tests replace it


@contextmanager
def progress(
    what: str, unit: str, total: int | None = None, *, delay: float = 0.0, leave: bool = True
) -> Iterator[Report]:
    """Yield a function to call with the number of units finished since its last call.

    what: the work, such as "encode". unit: what is counted, in the singular. total: None if it is unknown.
    delay, leave: seconds before the bar is drawn, and whether it stays when the work is done.
    """
    if sys.stderr is None:
        yield lambda done: None
    elif sys.stderr.isatty():
        from tqdm import tqdm  # its import is a tenth of the start-up time

        with tqdm(total=total, desc=what, unit=unit, delay=delay, leave=leave) as bar:
            yield bar.update
    else:
        yield _Lines(what, unit, total).update


def tracked(items: Sequence[T], what: str, unit: str, *, delay: float = 0.0, leave: bool = True) -> Iterator[T]:
    """Yield the items. Each counts as one unit when the next one is taken; otherwise as `progress`."""
    with progress(what, unit, len(items), delay=delay, leave=leave) as report:
        for item in items:
            yield item
            report(1)


class _Lines:
    """Prints how far the work is, at most every ten seconds, and nothing if it takes less."""

    def __init__(self, what: str, unit: str, total: int | None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._done = 0
        self._start = self._last = clock()

    def update(self, done: int) -> None:
        self._done += done
        now = clock()
        if now - self._last < EVERY_S or self._done == self._total:
            return
        self._last, seconds = now, now - self._start
        of_total = left = ""
        if self._total is not None:
            of_total = f" of {self._total:,}"
            if self._done:
                left = f", about {seconds * (self._total - self._done) / self._done:,.0f} s left"
        line = f"minilm-np: {self._what}: {self._done:,}{of_total} {self._unit}s after {seconds:,.0f} s{left}"
        with suppress(OSError):  # the work goes on without a reader of stderr
            print(line, file=sys.stderr, flush=True)

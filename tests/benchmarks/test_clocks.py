"""benchmarks.peak.in_turn and benchmarks.start_parts: what the clocks count, with clocks that are made up."""

from collections.abc import Iterator

import pytest

from benchmarks import start_parts
from benchmarks.peak import TURN, in_turn, turn


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("seconds", "calls_per_turn"), [(0.26 * TURN, 4), (10 * TURN, 1)])
def test_short_calls_fill_a_turn_and_a_long_one_is_a_turn(seconds: float, calls_per_turn: int) -> None:
    clock, events = Clock(), ""

    def call() -> None:
        nonlocal events
        events += "c"
        clock.advance(seconds)

    def loop() -> float:
        nonlocal events
        events += "|"
        clock.advance(1000.0)  # is not counted as time of the calls
        return 5.0

    duration, rate = in_turn(call, loop, 20 * TURN, clock)
    assert duration == pytest.approx(seconds)
    assert rate == 5.0
    turns = events.split("|")[:-1]
    assert len(turns) >= 3
    assert {len(calls) for calls in turns} == {calls_per_turn}


def test_the_loop_of_a_turn_takes_as_many_steps_as_the_turn_is_long() -> None:
    steps = []

    def rate(n: int) -> float:
        steps.append(n)
        return 1e9  # operations per second

    turn(rate, operations=10)()
    assert steps[-1] == TURN * 1e9 / 10


def test_a_part_interrupts_the_part_that_it_begins_in(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    parts = start_parts.Parts(-1.0)
    parts.switch("rest")  # after 1 s: Python has started

    def read() -> Iterator[int]:
        for item in range(3):
            clock.advance(2.0)
            yield item
        clock.advance(1.0)

    def pack(items: Iterator[int]) -> list[int]:
        found = []
        for item in items:
            clock.advance(10.0)
            found.append(item)
        return found

    timed_read = parts.timed("read", read)
    assert parts.timed("pack", pack)(timed_read()) == [0, 1, 2]
    clock.advance(0.5)
    parts.switch("end")
    assert parts.seconds == {start_parts.PYTHON: 1.0, "rest": 0.5, "read": 7.0, "pack": 30.0}

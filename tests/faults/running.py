"""Run experiments, each in a forked process with a time limit."""

import json
import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from random import Random

from tests.faults import Experiment, Outcome
from tests.faults.children import kill_with_descendants

_FORK = multiprocessing.get_context("fork")  # a forked process has the imports already


@dataclass(frozen=True)
class Result:
    """What an experiment came to, and how to repeat it."""

    experiment: Experiment
    outcome: Outcome
    seconds: float
    command: str


def run(
    chosen: Iterable[Experiment], *, quick: bool, count: int | None, seconds: float, seed: int, jobs: int
) -> Iterator[Result]:
    """Run experiments, `jobs` at a time, and yield each result when it is there.

    count: the number of tries of each, instead of its own. seconds: repeat each, with the following seeds, until so
    many seconds have passed.
    """
    tries = {one: count or (one.quick if quick else one.count) for one in chosen}
    waiting, running = [one for one in tries if tries[one]], list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                next_one = waiting.pop(0)
                running.append(_Running(next_one, tries[next_one], seconds, seed))
            soonest = min(one.deadline for one in running)
            wait([one.pipe for one in running], timeout=max(0.0, soonest - time.monotonic()))
            for one in [one for one in running if one.pipe.poll() or time.monotonic() > one.deadline]:
                running.remove(one)
                yield one.result()
    finally:
        for one in running:
            one.kill()


class _Running:
    """An experiment in its process."""

    def __init__(self, experiment: Experiment, tries: int, seconds: float, seed: int) -> None:
        self.experiment, self.start = experiment, time.monotonic()
        self.deadline = self.start + experiment.limit_s + seconds
        self.command = f"python -m tests.faults {experiment.name} --count {tries} --seed {seed}"
        self.pipe, other_end = _FORK.Pipe(duplex=False)
        arguments = (other_end, experiment, tries, seconds, seed)
        self.process: BaseProcess = _FORK.Process(target=_in_child, args=arguments)
        self.process.start()
        other_end.close()

    def result(self) -> Result:
        outcome = Outcome()
        if self.pipe.poll():
            try:
                held, failures, skipped = json.loads(self.pipe.recv_bytes())
                outcome = Outcome(Counter(held), failures, skipped)
            except EOFError:
                self.process.join()
                outcome.fail(f"the experiment's process ended with exit code {self.process.exitcode}")
        else:
            outcome.fail(f"no end within {self.deadline - self.start:.0f} s")
        self.kill()
        return Result(self.experiment, outcome, time.monotonic() - self.start, self.command)

    def kill(self) -> None:
        """Kill the process and its descendants."""
        kill_with_descendants(self.process.pid or 0)
        self.process.join()
        self.pipe.close()


def _in_child(pipe: Connection, experiment: Experiment, tries: int, seconds: float, seed: int) -> None:
    outcome, end = Outcome(), time.monotonic() + seconds
    while True:
        try:
            found = experiment.run(tries, Random(f"{experiment.name} {seed}"))
        except Exception:
            found = Outcome()
            found.fail(traceback.format_exc())
        failures = [f"{failure} (seed {seed})" if seconds else failure for failure in found.failures]
        outcome.add(Outcome(found.held, failures, found.skipped))
        seed += 1
        if time.monotonic() >= end:
            break
    pipe.send_bytes(json.dumps([outcome.held, outcome.failures, outcome.skipped]).encode())

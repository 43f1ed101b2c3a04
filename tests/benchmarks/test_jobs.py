"""Processes that a benchmark lets work in turns."""

import itertools

from benchmarks.common import Worker
from benchmarks.jobs import in_turns

STEPS = """
import json, sys, time
sys.stdin.readline()
times = []
for _ in range(200):
    time.sleep(0.001)
    times.append(time.monotonic())
print(json.dumps(times), flush=True)
"""


def test_one_process_works_at_a_time() -> None:
    workers = [Worker("-c", STEPS) for _ in range(2)]
    seconds = in_turns(workers, 0.05)
    times = [worker.answer() for worker in workers]
    for worker in workers:
        worker.close()
    steps = sorted((time, number) for number, of_worker in enumerate(times) for time in of_worker)
    changes = sum(before[1] != after[1] for before, after in itertools.pairwise(steps))
    assert 0 < changes < 50  # two processes that sleep a millisecond at a time change places about 200 times
    last = max(of_worker[-1] for of_worker in times)
    first = min(of_worker[0] for of_worker in times)
    assert sum(seconds) > last - first  # every moment is counted for one of them

"""Leaks: many calls, and many models that are made and dropped, need no more memory, threads or descriptors."""

import gc
import os
import re
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from minilm_np import SentenceEncoder
from tests.faults import Outcome, experiment, writers
from tests.faults.calls import TEXTS, public_calls
from tests.faults.writers import CONFIG

RESIDENT = 3 << 20  # bytes by which the resident memory may grow: the C library's allocator is not exact
TRACED = 8192, 2048  # bytes, at all and per round, by which Python's memory may grow: its lists of free objects


def resident() -> int:
    """The resident memory of this process, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def traced() -> int:
    """The memory of Python's objects and of NumPy's arrays that were made since tracing began, in bytes."""
    return tracemalloc.get_traced_memory()[0]


def growth(work: Callable[[], object], count: int, warm_up: int, memory: Callable[[], int], limit: float) -> str:
    """What `count` calls of `work` have left: memory above the limit, threads, descriptors; "" if none."""

    def used() -> tuple[int, int, int]:
        gc.collect()
        return memory(), threading.active_count(), len(os.listdir("/proc/self/fd"))

    for _ in range(warm_up):
        work()
    before = used()
    for _ in range(count):
        work()
    grown, threads, descriptors = (b - a for a, b in zip(before, used(), strict=True))
    if grown <= limit and threads <= 0 and descriptors <= 0:
        return ""
    return f"{count} times: {grown:,} bytes, {threads} threads, {descriptors} descriptors more"


@experiment("leaks: calls", count=10_000, quick=150)
def calls(count: int, random: Random) -> Outcome:
    """Encode 300 texts again and again, on two threads: memory, threads and descriptors stay the same."""
    outcome = Outcome()
    encoder = SentenceEncoder.random(CONFIG, 1, threads=2)
    texts = ["a b", "c"] * 150
    found = growth(lambda: encoder.encode(texts, on_truncation="ignore"), count, count // 5, resident, RESIDENT)
    if found:
        outcome.fail(found)
    else:
        outcome.hold("nothing left", count)
    return outcome


@experiment("leaks: calls of every method", count=2000, quick=100)
def methods(count: int, random: Random) -> Outcome:
    """Call all public methods and functions again and again: memory, threads and descriptors stay the same."""
    outcome = Outcome()
    every = public_calls(SentenceEncoder.random(CONFIG, 1, threads=2))
    rounds = -(-count // len(every))

    def one_round() -> None:
        for call in every.values():
            call()

    one_round()
    tracemalloc.start()
    found = growth(one_round, rounds, 1 + rounds // 5, traced, TRACED[0] + rounds * TRACED[1])
    if found:
        outcome.fail(found)
    else:
        outcome.hold("nothing left", rounds * len(every))
    return outcome


@experiment("leaks: models made and dropped", count=100, quick=6)
def models(count: int, random: Random) -> Outcome:
    """Load a model from its folder, encode, and drop it, 100 times: it is freed at once, and nothing else stays."""
    outcome = Outcome()
    with writers.saved_model() as folder:

        def one_model() -> None:
            encoder = SentenceEncoder(folder, threads=2)
            alive = weakref.ref(encoder.model)
            encoder.encode(TEXTS, on_truncation="ignore")
            np.asarray(encoder.weights["embeddings.word_embeddings.weight"])
            del encoder
            outcome.check(alive() is None, "freed", "a dropped model is still alive")

        if found := growth(one_model, count, 1 + count // 5, resident, RESIDENT):
            outcome.fail(found)
    return outcome

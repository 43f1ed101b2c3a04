"""Leaks: many calls, and many models that are made and dropped, need no more memory, threads or descriptors."""

import gc
import os
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from minilm_np import SentenceEncoder
from tests.faults import Outcome, experiment, writers
from tests.faults.calls import TEXTS, public_calls
from tests.faults.writers import CONFIG

MEMORY = 3 << 20  # bytes by which a process may grow: allocators and caches are not exact


def resident() -> int:
    """The resident memory of this process, in bytes."""
    gc.collect()
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def growth(work: Callable[[], object], count: int, warm_up: int) -> str:
    """How much memory, threads and descriptors `count` calls of `work` have left; "" if none."""
    for _ in range(warm_up):
        work()
    before = resident(), threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(count):
        work()
    after = resident(), threading.active_count(), len(os.listdir("/proc/self/fd"))
    memory, threads, descriptors = (b - a for a, b in zip(before, after, strict=True))
    if memory <= MEMORY and threads <= 0 and descriptors <= 0:
        return ""
    return f"{count} times: {memory / 1e6:.1f} MB, {threads} threads, {descriptors} descriptors more"


@experiment("leaks: calls", count=10_000, quick=150)
def calls(count: int, random: Random) -> Outcome:
    """Encode 100 texts thousands of times, one model, two threads: memory, threads and descriptors stay the same."""
    outcome = Outcome()
    encoder = SentenceEncoder.random(CONFIG, 1, threads=2)
    texts = TEXTS * 20
    found = growth(lambda: encoder.encode(texts, on_truncation="ignore"), count, warm_up=count // 5)
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
    found = growth(lambda: [call() for call in every.values()], rounds, warm_up=1 + rounds // 3)
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

        if found := growth(one_model, count, warm_up=1 + count // 5):
            outcome.fail(found)
    return outcome

"""The float32 engine in many threads and processes: correct, never stalled, interruptible, with bounded memory."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from minilm_np.engine.float32 import engine as float32_engine
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.engine.runtime import workers
from tests.support.compare import assert_same_bits
from tests.support.engine import PATIENCE, THREADS

pytestmark = pytest.mark.usefixtures("own_cache")


# ---- threads ---------------------------------------------------------------------------------------------------------


def in_threads(functions):
    """Run functions at once, each in a thread; fail if one does not end; return what they returned."""
    results = [None] * len(functions)
    gate = threading.Barrier(len(functions), timeout=PATIENCE)

    def run(number):
        gate.wait()
        results[number] = functions[number]()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    return results


@pytest.mark.parametrize("threads", THREADS)
def test_64_threads_may_call_one_engine_at_once(random_family, threads):
    engine, n = random_family.engines[threads], len(random_family.texts)
    generator = np.random.default_rng(threads)
    batches = [[generator.integers(0, n, size) for size in (1, 2, 1, 40, 9)] for _ in range(64)]

    def encode(number):
        return lambda: [engine.encode([random_family.texts[row] for row in rows]) for rows in batches[number]]

    for rows, vectors in zip(batches, in_threads([encode(number) for number in range(64)]), strict=True):
        for row, vector in zip(rows, vectors, strict=True):
            assert_same_bits(vector, random_family.alone[row])
    assert len(engine._idle) <= 2 * threads, "workspaces pile up"


def test_engines_may_be_made_in_many_threads_at_once(random_family):
    weights = random_family.engines[1].weights()

    def make():
        return Float32Engine(random_family.engines[1].config, weights.items(), 2).encode(random_family.texts)

    for vectors in in_threads([make] * 6):
        assert_same_bits(vectors, random_family.alone)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("failure", [IndexError, RuntimeError, KeyboardInterrupt])
def test_a_failing_report_reaches_the_caller_and_the_engine_goes_on(random_family, threads, failure):
    engine, texts = random_family.engines[threads], random_family.texts * 5
    calls = []

    def report(done):
        calls.append(done)
        if len(calls) == 3:
            raise failure("no room for a bar")

    with pytest.raises(failure, match="no room"):
        engine.encode(texts, report=report)
    assert sum(calls) < len(texts), "the work was not cancelled"
    assert_same_bits(engine.encode(random_family.texts), random_family.alone)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("n", [0, 1, 5, 300])
def test_every_text_is_reported_once(random_family, threads, n):
    done: list[int] = []
    random_family.engines[threads].encode((random_family.texts * 5)[:n], report=done.append)
    assert sum(done) == n


def test_a_helper_that_fails_in_a_shared_pass_raises_in_the_caller_and_the_engine_goes_on(random_family, monkeypatch):
    engine, run = random_family.engines[2], float32_engine._RaggedPass.run
    failed = threading.Event()

    def failing(shared, member):
        if threading.current_thread().name == "minilm_np":
            failed.set()
            raise MemoryError
        assert failed.wait(PATIENCE)
        run(shared, member)

    with monkeypatch.context() as patch:
        patch.setattr(float32_engine._RaggedPass, "run", failing)
        with pytest.raises(MemoryError):
            engine.encode(random_family.texts[:3])
    assert_same_bits(engine.encode(random_family.texts[:3]), random_family.alone[:3])


def test_all_threads_share_one_text_however_long_it_is(random_family, monkeypatch):
    """Otherwise one thread would compute a text of thousands of tokens, and the others would have nothing to do."""
    monkeypatch.setattr(float32_engine, "SHARED_TOKENS", 10)
    engine, members = random_family.engines[2], list[int]()
    take = engine.take_workspace

    def record(n_tokens, longest, n_members):
        members.append(n_members)
        return take(n_tokens, longest, n_members)

    row = max(range(len(random_family.texts)), key=lambda row: len(random_family.texts[row]))
    monkeypatch.setattr(engine, "take_workspace", record)
    assert_same_bits(engine.encode([random_family.texts[row]]), random_family.alone[row : row + 1])
    assert members == [2]


def test_texts_are_encoded_when_no_helper_runs(random_family, monkeypatch):
    """The caller never waits for a helper that has not started. Here none starts."""
    monkeypatch.setattr(workers._Offer, "help", lambda offer: None)
    monkeypatch.setattr(workers, "_pool", workers._Pool())
    for threads in (2, 4):
        assert_same_bits(random_family.engines[threads].encode(random_family.texts), random_family.alone)
        assert_same_bits(random_family.engines[threads].encode(random_family.texts[60:61]), random_family.alone[60:61])


# ---- processes -------------------------------------------------------------------------------------------------------


def same(digests, expected):
    assert digests == [expected] * len(digests)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_have_the_same_vectors_even_while_other_threads_encode(child, targets):
    digests = child("forks")
    assert len(digests) == 13
    same(digests, targets["native"]["sha256"]["random, 1"])


def test_spawned_processes_and_those_of_a_forkserver_have_the_same_vectors(child, targets):
    digests = child("pools")
    assert len(digests) == 5
    same(digests, targets["native"]["sha256"]["random, 1"])


def test_ctrl_c_ends_a_long_list_soon_and_the_model_stays_usable(child):
    for seconds, done, done_later, same_bits in child("interrupt"):
        assert seconds < 10
        assert done == done_later < 5000, "the work was not cancelled"
        assert same_bits


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_on_a_busy_machine_the_vectors_are_the_same_and_nothing_stalls(child, targets):
    same(child("crowded"), targets["native"]["sha256"]["random, 1"])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_the_default_is_not_more_threads_than_processors(child):
    assert child("default_threads") == 1


@pytest.mark.weights
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_published_model_needs_little_memory_and_no_more_over_time(child, model_folder):
    peaks = child("memory", model_folder)
    weights = model_folder.joinpath("model.safetensors").stat().st_size / 1e6
    assert peaks["load"] - peaks["kernels"] < 1.9 * weights, "there was a second copy of the weights"
    assert peaks["text"] < 300
    assert peaks["last"] - peaks["first"] < 10

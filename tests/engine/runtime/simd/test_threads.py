"""The float mode, and atomics between threads."""

import threading

import numpy as np

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.processor import STANDARD_FLOAT_MODE
from minilm_np.engine.runtime.simd import kernel
from tests.support.kernels import fma_of_arrays

DENORMALS_ARE_ZERO_AND_FLUSH = 0x8040 if STANDARD_FLOAT_MODE else 1 << 24


@kernel
def get_mode():
    return simd.get_float_mode()


@kernel
def set_mode(mode):
    simd.set_float_mode(mode)


def test_float_mode():
    before = get_mode()
    half, tiny, out = np.full(16, 0.5, np.float32), np.full(16, 2.0**-140, np.float32), np.empty(16, np.float32)
    fma_of_arrays(half, tiny, np.zeros(16, np.float32), out)
    assert (out == 2.0**-141).all()
    try:
        set_mode(before | DENORMALS_ARE_ZERO_AND_FLUSH)
        assert get_mode() == before | DENORMALS_ARE_ZERO_AND_FLUSH
        fma_of_arrays(half, tiny, np.zeros(16, np.float32), out)
        flushed = out.tobytes() == bytes(64)
        set_mode(STANDARD_FLOAT_MODE)
        fma_of_arrays(half, tiny, np.zeros(16, np.float32), out)
    finally:
        set_mode(before)
    assert flushed
    assert (out == 2.0**-141).all()


@kernel
def meet(counters, rounds, n_threads):
    """Add 1 to counters[1] in each round, and wait for the other threads. Returns the number of wrong totals seen."""
    wrong = 0
    for i in range(rounds):
        simd.atomic_add(counters, 1, 1)
        if simd.atomic_add(counters, 0, 1) == n_threads * (i + 1) - 1:
            if simd.atomic_load(counters, 1) != n_threads * (i + 1):
                wrong += 1
            simd.atomic_add(counters, 2, 1)
        while simd.atomic_load(counters, 2) <= i:
            simd.pause()
    return wrong


def test_atomics_make_a_barrier():
    meet(np.zeros(3, np.int64), 1, 1)
    counters = np.zeros(3, np.int64)
    wrong: list[int] = []
    threads = [threading.Thread(target=lambda: wrong.append(meet(counters, 200, 2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [0, 0]
    assert counters.tolist() == [400, 400, 200]

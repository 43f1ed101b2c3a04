"""What the tests of the kernels share: what Hypothesis draws, guarded arrays, a comparison of bits."""

from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel

EPSILON = 2.0**-24  # the unit round-off of float32
EPS = np.float32(1e-12)  # LayerNorm's

seeds = st.integers(0, 2**32 - 1)
# Ordinary values, values whose products are subnormal or vanish, and values that make large logits.
scales = st.sampled_from([1.0, 2.0**-70, 2.0**-130, 12.0])
sizes = st.one_of(st.integers(1, 70), st.sampled_from([16, 48, 96, 127, 128, 129, 300]))
few = settings(max_examples=40, deadline=None, derandomize=True)


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def guarded(array: np.ndarray) -> tuple[np.ndarray, Callable[[], bool]]:
    """A copy with NaN directly before and after it, and a function that says whether those are still there."""
    memory = np.full(array.size + 128, np.nan, np.float32)
    memory[64:-64] = array.ravel()

    def intact() -> bool:
        return bool(np.isnan(memory[:64]).all() and np.isnan(memory[-64:]).all())

    return memory[64:-64].reshape(array.shape), intact


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Fail unless shape and every bit of two float32 arrays agree. NaN is allowed, unlike in `compare`."""
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    differ = found.view(np.int32) != expected.view(np.int32)
    assert not differ.any(), f"{differ.sum()} of {differ.size} differ, first {found[differ][0]}, {expected[differ][0]}"


@kernel
def fma_of_arrays(a, b, c, out):
    for i in range(0, len(a), simd.LANES):
        a_part, b_part = simd.load(simd.address(a) + i), simd.load(simd.address(b) + i)
        simd.store(simd.address(out) + i, simd.fma(a_part, b_part, simd.load(simd.address(c) + i)))

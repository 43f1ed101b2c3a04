"""fma: exact in the contract's own form, and the same bits in the kernels."""

import numpy as np

from tests.support import contract
from tests.support.kernels import assert_same_bits, fma_of_arrays, normal


def awkward_floats(rng, n):
    """Random bit patterns, near cancellations, subnormals: all finite."""
    a, b = (rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32) for _ in range(2))
    a, b = (np.where(np.isfinite(x), x, np.float32(1.5)) for x in (a, b))
    small = (rng.integers(-8, 9, n) * 2.0**-149).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        c = np.choose(rng.integers(0, 4, n), [-(a * b), normal(rng, n), small, np.nextafter(-(a * b), np.float32(0))])
        fine = np.isfinite(c) & (np.abs(a.astype(float) * b + c) < 2.0**127)
    return a[fine], b[fine], c[fine]


def test_the_contracts_fma_is_exact():
    a, b, c = awkward_floats(np.random.default_rng(1), 6000)
    assert_same_bits(contract.fma(a, b, c), np.array([contract.fma_exact(*abc) for abc in zip(a, b, c, strict=True)]))


def test_fma_is_the_contracts():
    a, b, c = (x[: len(x) // 16 * 16].copy() for x in awkward_floats(np.random.default_rng(2), 400_000))
    out = np.empty_like(a)
    fma_of_arrays(a, b, c, out)
    assert_same_bits(out, contract.fma(a, b, c))

"""Dropout factors, 0 or 1 / (1 - p), from a counter instead of a state: any thread can compute any of them.

Twin: `train/dropout.py`, which defines the counter. Philox4x32-10: Salmon, Moraes, Dror and Shaw, Parallel Random
Numbers: As Easy as 1, 2, 3 (2011).
"""

import numpy as np

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import inlined, kernel, load_part, store_part

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10
_ZERO = np.float32(0.0)


@inlined
def _philox(j, row, text, step, key_0, key_1):
    """Four words of 32 bits. They and all arguments are uint64, so that LLVM vectorises the loop over j."""
    c0, c1, c2, c3 = j, row, text, step
    for _ in range(_ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _BITS) ^ c1 ^ key_0, product_1 & _LOW, (product_0 >> _BITS) ^ c3 ^ key_1, product_0 & _LOW,
        )  # fmt: skip
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


@kernel
def dropout_row(seed, place, step, text, row, threshold, scale, columns, factors):
    """Write the factors of one row. factors: at least `columns` rounded up to a multiple of 4; the rest is unused."""
    quarter = (columns + 3) // 4
    row, text, step = np.uint64(row), np.uint64(text), np.uint64(step)
    key_0, key_1, threshold = np.uint64(seed), np.uint64(place), np.uint64(threshold)
    for j in range(quarter):
        w0, w1, w2, w3 = _philox(np.uint64(j), row, text, step, key_0, key_1)
        factors[j] = _ZERO if w0 < threshold else scale
        factors[quarter + j] = _ZERO if w1 < threshold else scale
        factors[2 * quarter + j] = _ZERO if w2 < threshold else scale
        factors[3 * quarter + j] = _ZERO if w3 < threshold else scale


@kernel
def dropout_add(x, residual, adds, texts, rows, seed, place, step, threshold, scale, factors, out, row_start, row_stop):
    # (N, D), (N, D), (N,), (N,) -> (N, D): x * factor, + residual if `adds`; out may be x
    # texts, rows: the number of each row's text, and the row's position in it; threshold 0: no dropout
    D = x.shape[1]
    for n in range(row_start, row_stop):
        if threshold > 0:
            dropout_row(seed, place, step, texts[n], rows[n], threshold, scale, D, factors)
        for d in range(0, D, simd.LANES):
            value = load_part(simd.address(x) + (n * D + d), D - d, _ZERO)
            if threshold > 0:
                value = value * load_part(simd.address(factors) + d, D - d, _ZERO)
            if adds:
                value = value + load_part(simd.address(residual) + (n * D + d), D - d, _ZERO)
            store_part(simd.address(out) + (n * D + d), D - d, value)

"""Pooling of each text's token vectors into one vector, and L2 normalisation.

Twins: `reference.pooling(...)` and `reference.normalize(...)`.

Reads   hidden_states (N, D), offsets (B + 1,) int64: text b is rows offsets[b]..offsets[b + 1], at least one row.
Writes  `pooling`: rows text_start..text_stop of out (B, D). `normalize`: rows row_start..row_stop of out; it may be x.
Sums    over T tokens: per element, tokens are added to +0 in ascending order; then / T, or / sqrt(T). Of a weighted
        mean, token * position is added, and the sum is divided by the sum of the positions, rounded once. The maximum
        is token > maximum ? token : maximum, from the first token on (NaN stays NaN).
        norm: the squares in 16 lanes; lane i adds elements i, i + 16, ... to +0 in ascending order, missing elements
        are +0; then the lane pairs. norm = the square root, at least 1e-12; out = x / norm.
Fused   nothing.
"""

import numpy as np

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import (
    inlined,
    kernel,
    lane_sum,
    load_part,
    maximum,
    maximum_or_nan,
    splat,
    sqrt,
    store_part,
)

# Numbers of the pooling modes: positions in `config.POOLING_MODES`.
MEAN, CLS, MAX, MEAN_SQRT_LEN, WEIGHTED_MEAN, LAST_TOKEN = range(6)

_ZERO = np.float32(0.0)
_SMALLEST_NORM = np.float32(1e-12)


@kernel
def pooling(hidden_states, offsets, mode, out, text_start, text_stop):
    # (N, D), (B + 1,) -> (B, D)
    D = hidden_states.shape[1]
    for b in range(text_start, text_stop):
        first_row = simd.address(hidden_states) + offsets[b] * D
        T = offsets[b + 1] - offsets[b]
        for d in range(0, D, simd.LANES):
            pooled = _pool(first_row + d, T, D, D - d, mode)
            store_part(simd.address(out) + (b * D + d), D - d, pooled)


@inlined
def _pool(tokens, T, D, count, mode):
    """At most sixteen elements of a text's vector."""
    first = load_part(tokens, count, _ZERO)
    if mode == CLS:
        return first
    if mode == LAST_TOKEN:
        return load_part(tokens + (T - 1) * D, count, _ZERO)
    if mode == MAX:
        highest = first
        for t in range(1, T):
            highest = maximum_or_nan(load_part(tokens + t * D, count, _ZERO), highest)
        return highest
    if mode == WEIGHTED_MEAN:
        weighted = splat(_ZERO)
        for t in range(T):
            weighted = weighted + load_part(tokens + t * D, count, _ZERO) * splat(np.float32(t + 1))
        return weighted / splat(np.float32(T * (T + 1) // 2))
    total = splat(_ZERO) + first
    for t in range(1, T):
        total = total + load_part(tokens + t * D, count, _ZERO)
    divisor = splat(np.float32(T))
    if mode == MEAN_SQRT_LEN:
        divisor = sqrt(divisor)
    return total / divisor


@kernel
def normalize(x, out, row_start, row_stop):
    # (B, D) -> (B, D)
    D = x.shape[1]
    for b in range(row_start, row_stop):
        row, out_row = simd.address(x) + b * D, simd.address(out) + b * D
        total = splat(_ZERO)
        for d in range(0, D, simd.LANES):
            value = load_part(row + d, D - d, _ZERO)
            total = total + value * value
        norm = maximum(sqrt(splat(lane_sum(total))), splat(_SMALLEST_NORM))
        for d in range(0, D, simd.LANES):
            store_part(out_row + d, D - d, load_part(row + d, D - d, _ZERO) / norm)

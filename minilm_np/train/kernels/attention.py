"""Self-attention with dropout, and its gradient, for one text and head at a time.

Twins: `reference.self_attention` after its query, key and value layers, and `backward.self_attention_backward`. With
the scores S = query @ key.T * scale, the probabilities P = softmax(S), and the dropout factors M:

    context = (P * M) @ value
    d_value = (P * M).T @ d_context                 d_P = (d_context @ value.T) * M
    d_S = P * (d_P - sum of d_P * P along the keys)
    d_query = d_S @ key * scale                     d_key = d_S.T @ query * scale

Sums    products as in `engine/float32/kernels/attention.py`: chains of fma over blocks of 128. Sums along a row in 16
        lanes.

The gradient computes the probabilities again from query and key. Stored, they would be most of the memory: T x T per
head.
"""

import numpy as np

from minilm_np.engine.float32.kernels.attention import (
    TILE_ROWS,
    matrix_product,
    pack_keys,
    pack_values,
    softmax_row,
)
from minilm_np.engine.float32.kernels.layout import ATTENTION_PANEL as PANEL
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import inlined, kernel, lane_sum, load, load_part, splat, store, store_part
from minilm_np.train.kernels.dropout import dropout_row

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@kernel
def attention_forward(
    qkv, offsets, texts, n_heads, scale, seed, place, step, threshold, factor, context, scratch, start, stop
):  # fmt: skip
    # (N, 3 D), (B + 1,), (B,) -> (N, D): heads start..stop, where head h of text b has number b * n_heads + h
    D = context.shape[1]
    E = D // n_heads
    for number in range(start, stop):
        b, h = number // n_heads, number % n_heads
        first, T = offsets[b], offsets[b + 1] - offsets[b]
        width, size = _padded(T), _padded(E)
        panels, probs, _, _, sums, factors = _split(scratch, width, size)
        query = simd.address(qkv) + (first * 3 * D + h * E)
        _probabilities(query, query + D, 3 * D, T, E, scale, panels, probs)
        if threshold > 0:
            for t in range(T):
                dropout_row(seed, place, step, texts[b], h * T + t, threshold, factor, T, factors)
                row = probs + t * width
                for c in range(0, T, simd.LANES):
                    store(row + c, load(row + c) * load_part(simd.address(factors) + c, T - c, _ZERO))
        pack_values(query + 2 * D, 3 * D, T, E, panels)
        _product(probs, width, T, T, panels, E, sums, _ONE, simd.address(context) + (first * D + h * E), D)


@kernel
def attention_backward(
    qkv, d_context, offsets, texts, n_heads, scale, seed, place, step, threshold, factor, d_qkv, scratch, start, stop
):  # fmt: skip
    # (N, 3 D), (N, D), (B + 1,), (B,) -> (N, 3 D): heads start..stop, numbered in the same way
    D = d_context.shape[1]
    E = D // n_heads
    for number in range(start, stop):
        b, h = number // n_heads, number % n_heads
        first, T = offsets[b], offsets[b + 1] - offsets[b]
        width, size = _padded(T), _padded(E)
        panels, probs, d_probs, transposed, sums, factors = _split(scratch, width, size)
        query = simd.address(qkv) + (first * 3 * D + h * E)
        d_query = simd.address(d_qkv) + (first * 3 * D + h * E)
        d_out = simd.address(d_context) + (first * D + h * E)
        _probabilities(query, query + D, 3 * D, T, E, scale, panels, probs)
        # (T, E), (T, E) -> (T, T): d_context @ value.T
        pack_keys(query + 2 * D, 3 * D, T, E, size * PANEL, panels)
        _wide_product(d_out, D, T, E, panels, size * PANEL, width, d_probs)
        for t in range(T):
            if threshold > 0:
                dropout_row(seed, place, step, texts[b], h * T + t, threshold, factor, T, factors)
            _softmax_backward_row(probs + t * width, d_probs + t * width, threshold > 0, simd.address(factors), T)
        pack_values(d_out, D, T, E, panels)
        _transpose(probs, width, T, transposed)
        _product(transposed, width, T, T, panels, E, sums, _ONE, d_query + 2 * D, 3 * D)
        pack_values(query, 3 * D, T, E, panels)
        _transpose(d_probs, width, T, transposed)
        _product(transposed, width, T, T, panels, E, sums, scale, d_query + D, 3 * D)
        pack_values(query + D, 3 * D, T, E, panels)
        _product(d_probs, width, T, T, panels, E, sums, scale, d_query, 3 * D)


@inlined
def _padded(count):
    return (count + PANEL - 1) // PANEL * PANEL


@inlined
def _split(scratch, width, size):
    """The parts of a task's scratch; `layout.attention_scratch_size` is their total size."""
    panels = simd.address(scratch)
    probs = panels + width * size
    d_probs = probs + width * width
    transposed = d_probs + width * width
    sums = transposed + width * width
    start = width * size + 3 * width * width + TILE_ROWS * size
    return panels, probs, d_probs, transposed, sums, scratch[start : start + width]


@kernel
def _probabilities(query, key, stride, T, E, scale, panels, probs):
    # (T, E), (T, E) -> (T, T): softmax(query @ key.T * scale)
    width, panel_size = _padded(T), _padded(E) * PANEL
    pack_keys(key, stride, T, E, panel_size, panels)
    _wide_product(query, stride, T, E, panels, panel_size, width, probs)
    for t in range(T):
        row = probs + t * width
        total = splat(softmax_row(row, T, scale))
        for c in range(0, T, simd.LANES):
            store(row + c, load(row + c) / total)


@inlined
def _softmax_backward_row(probs, d_probs, drops, factors, T):
    """One row, in place: d_probs becomes d_scores; probs becomes probs * factors, the weights of the values."""
    total = splat(_ZERO)
    for c in range(0, T, simd.LANES):
        d_prob = load_part(d_probs + c, T - c, _ZERO)
        if drops:
            d_prob = d_prob * load_part(factors + c, T - c, _ZERO)
            store(d_probs + c, d_prob)
        total = total + d_prob * load(probs + c)
    mean = splat(lane_sum(total))
    for c in range(0, T, simd.LANES):
        prob = load(probs + c)
        store(d_probs + c, prob * (load_part(d_probs + c, T - c, _ZERO) - mean))
        if drops:
            store(probs + c, prob * load_part(factors + c, T - c, _ZERO))


@inlined
def _transpose(x, width, T, out):
    # (T, T) -> (T, T), rows of both `width` floats apart
    for r in range(0, T, simd.LANES):
        for c in range(0, T, simd.LANES):
            simd.transpose(x + (r * width + c), width, T - r, T - c, out + (c * width + r), width)


@kernel
def _wide_product(x, stride, T, E, panels, panel_size, width, out):
    # (T, E), (T, E) in panels -> (T, T), rows `width` floats apart
    for start in range(0, T, TILE_ROWS):
        rows = min(TILE_ROWS, T - start)
        matrix_product(x + start * stride, stride, rows, E, panels, panel_size, width, out + start * width, width)


@kernel
def _product(x, width, M, K, panels, E, sums, scale, out, stride):
    # (M, K), (K, E) in panels -> (M, E): (x @ panels) * scale
    size = _padded(E)
    for start in range(0, M, TILE_ROWS):
        rows = min(TILE_ROWS, M - start)
        matrix_product(x + start * width, width, rows, K, panels, K * PANEL, size, sums, size)
        for r in range(rows):
            row = out + (start + r) * stride
            for e in range(0, E, simd.LANES):
                store_part(row + e, E - e, load(sums + (r * size + e)) * splat(scale))

"""Self-attention of one text of a ragged batch, per head: context = softmax(query @ key.T * scale + bias) @ value.

Twin: `reference.self_attention(...)`, after its query, key and value layers.

Letters: T tokens of the text, E elements of a head. The text's first token is row `first` of the batch; `last` is the
row after its last token.

Reads   qkv (N, 3 D): in each row the queries of all heads, then the keys, then the values, as one dense layer writes
        them; scale, float32(1 / sqrt(E)); relative_bias (H, 2 P - 1): element P - 1 + d of a head's row is the bias
        of the score of a key that is d tokens after its query. (H, 0): no bias.
Writes  context (N, D): the given ranges of rows and heads; scratch: `layout.scratch_size(T, E)` floats.
Sums    score: one chain of fma over E in blocks of 128, as in `linear.py`; then times scale; then plus the bias.
        softmax: the maximum and the sum in 16 lanes: lane i takes scores i, i + 16, ... in ascending order. Missing
        scores are -inf for the maximum and +0 for the sum. Then the lane pairs. exp(score - maximum) is not divided.
        context: the same chain over the T tokens in blocks of 128; then divided by the sum.
Fused   everything, a few query rows at a time. Memory holds one head's packed keys and values and those rows' scores.

Keys are packed as linear.py packs weights, in panels of 32 tokens stored element by element. Values are packed in
panels of 32 elements stored token by token. Each call packs both again for each head.
"""

import numpy as np

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.float32.kernels.layout import ATTENTION_PANEL as PANEL
from minilm_np.engine.float32.kernels.layout import ATTENTION_TILES, BLOCK
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import inlined, kernel, load, load_part, maximum, splat, store, store_part

TILE_ROWS, TILE_COLUMNS = ATTENTION_TILES[simd.TARGET]

_fma_block = simd.fma_block(TILE_ROWS, TILE_COLUMNS // simd.LANES, PANEL)
_local_totals = simd.local_floats(TILE_ROWS * simd.LANES)

_ZERO, _ONE, _MINUS_INFINITY = np.float32(0.0), np.float32(1.0), np.float32(-np.inf)


@kernel
def attention(
    qkv, first, last, row_start, row_stop, head_start, head_stop, n_heads, scale, relative_bias, context, scratch
):
    # (N, 3 D), (H, 2 P - 1) -> (N, D): rows row_start..row_stop of the text at rows first..last
    D, bias_width = context.shape[1], relative_bias.shape[1]
    E, T = D // n_heads, last - first
    padded_length, padded_size = (T + PANEL - 1) // PANEL * PANEL, (E + PANEL - 1) // PANEL * PANEL
    panel_size = padded_size * PANEL
    keys = simd.address(scratch)
    values = keys + padded_length * padded_size
    scores = values + T * padded_size
    sums = scores + TILE_ROWS * padded_length
    totals = _local_totals()
    rows_total = row_stop - row_start
    row_blocks = (rows_total + TILE_ROWS - 1) // TILE_ROWS
    for h in range(head_start, head_stop):
        pack_keys(simd.address(qkv) + (first * 3 * D + D + h * E), 3 * D, T, E, panel_size, keys)
        pack_values(simd.address(qkv) + (first * 3 * D + 2 * D + h * E), 3 * D, T, E, values)
        for block in range(row_blocks):
            row = row_start + rows_total * block // row_blocks
            rows = row_start + rows_total * (block + 1) // row_blocks - row
            query = simd.address(qkv) + (row * 3 * D + h * E)
            # (rows, E), (T, E) -> (rows, T)
            matrix_product(query, 3 * D, rows, E, keys, panel_size, padded_length, scores, padded_length)
            for r in range(rows):
                row_scale = scale
                if bias_width > 0:
                    # of the first key, which is row + r - first tokens before the query
                    bias = simd.address(relative_bias) + (h * bias_width + bias_width // 2 - (row + r - first))
                    scale_and_add(scores + r * padded_length, T, scale, bias)
                    row_scale = _ONE
                total = softmax_row(scores + r * padded_length, T, row_scale)
                store(totals + r * simd.LANES, splat(total))
            # (rows, T), (T, E) -> (rows, E)
            matrix_product(scores, padded_length, rows, T, values, T * PANEL, padded_size, sums, padded_size)
            for r in range(rows):
                total = load(totals + r * simd.LANES)
                out = simd.address(context) + ((row + r) * D + h * E)
                for e in range(0, E, simd.LANES):
                    store_part(out + e, E - e, load(sums + (r * padded_size + e)) / total)


@inlined
def pack_keys(key, stride, T, E, panel_size, keys):
    # (T, E) -> (T / 32, E, 32); tokens past the last one repeat it, and are never used
    for t in range(0, (T + PANEL - 1) // PANEL * PANEL, simd.LANES):
        panel = keys + (t // PANEL * panel_size + t % PANEL)
        start = min(t, T - 1)
        for e in range(0, E, simd.LANES):
            simd.transpose(key + (start * stride + e), stride, T - start, E - e, panel + e * PANEL, PANEL)


@inlined
def pack_values(value, stride, T, E, values):
    # (T, E) -> (E / 32, T, 32); missing elements are 0
    for e in range(0, (E + PANEL - 1) // PANEL * PANEL, simd.LANES):
        panel = values + (e // PANEL * PANEL * T + e % PANEL)
        for t in range(T):
            store(panel + t * PANEL, load_part(value + (t * stride + e), E - e, _ZERO))


@kernel
def matrix_product(x, x_stride, rows, K, panels, panel_size, columns, out, out_stride):
    # (rows, K), (columns / 32, K, 32) -> (rows, columns); rows <= TILE_ROWS
    for panel in range(0, columns, PANEL):
        for k in range(0, K, BLOCK):
            for c in range(panel, panel + PANEL, TILE_COLUMNS):
                start = panels + (panel // PANEL * panel_size + k * PANEL + (c - panel))
                _fma_block(rows, x + k, x_stride, start, min(BLOCK, K - k), out + c, out_stride, k > 0, 0)


@inlined
def scale_and_add(scores, T, scale, bias):
    """Turn one row of dot products into scores: times scale, plus the bias of each key."""
    for t in range(0, T, simd.LANES):
        store(scores + t, load(scores + t) * splat(scale) + load_part(bias + t, T - t, _ZERO))


@inlined
def softmax_row(scores, T, scale):
    """Turn one row of dot products into exp(score - maximum); return their sum."""
    highest = splat(_MINUS_INFINITY)
    for t in range(0, T, simd.LANES):
        score = load_part(scores + t, T - t, _MINUS_INFINITY) * splat(scale)
        store(scores + t, score)
        highest = maximum(score, highest)
    offset = splat(simd.lane_max(highest))
    total = splat(_ZERO)
    for t in range(0, T, simd.LANES):
        exponential = mathf.exp(load(scores + t) - offset)  # 0 for missing scores, which are -inf
        store(scores + t, exponential)
        total = total + exponential
    return simd.lane_sum(total)

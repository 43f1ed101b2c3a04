"""The two products of a dense layer's gradient, and the sums over tokens.

Twin: `backward.linear_backward`. For y = x @ weight.T + bias:

    d_x = d_y @ weight          `linear.linear` of d_y and the weight packed by `pack_inputs`
    d_weight = d_y.T @ x        `weight_gradient`
    d_bias = sum of d_y's rows  `column_sums`

Letters of a matrix product: M outputs of the layer, K its inputs, N tokens.

Sums    d_weight, per element: spans of 512 tokens, blocks of 128 tokens in a span. A block is one chain of fma from 0,
        tokens ascending. Block sums are added to the sum of the span, and span sums to d_weight, both ascending.
        column_sums and column_dots: blocks of 128 rows. A block starts from 0, rows ascending (for dots, with fma).
        Block sums are added to out, ascending.
"""

import numpy as np

from minilm_np.engine.float32.kernels.layout import BLOCK, PANEL
from minilm_np.engine.float32.kernels.linear import TILE_COLUMNS, TILE_ROWS
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import fma, inlined, kernel, load, load_part, splat, store, store_part
from minilm_np.train.kernels.layout import SPAN

_fma_block = simd.fma_block(TILE_ROWS, TILE_COLUMNS // simd.LANES, PANEL)
_local_tile = simd.local_floats(TILE_ROWS * PANEL)
_ZERO = np.float32(0.0)


@kernel
def pack_outputs(weight, weight_packed, first_output):
    # (M, K) -> (outputs / 48, K, 48): row m is output first_output + m; the same as `layout.pack`
    M, K = weight.shape
    for m in range(M):
        panel, column = (first_output + m) // PANEL, (first_output + m) % PANEL
        for k in range(K):
            weight_packed[panel, k, column] = weight[m, k]


@kernel
def pack_inputs(weight, weight_packed, first_output):
    # (M, K) -> (K / 48, outputs, 48): the transposed weight, the same as `layout.pack` of weight.T
    M, K = weight.shape
    for m in range(M):
        for k in range(0, K, PANEL):
            columns = min(PANEL, K - k)
            for c in range(columns):
                weight_packed[k // PANEL, first_output + m, c] = weight[m, k + c]


@kernel
def weight_gradient(d_y, x, d_weight, scratch, output_start, output_stop):
    # (N, M), (N, K) -> adds to rows output_start..output_stop of (M, K); scratch: gradient_scratch_size(rows) floats
    N, M, K = x.shape[0], d_y.shape[1], x.shape[1]
    outputs = output_stop - output_start
    padded = (outputs + simd.LANES - 1) // simd.LANES * simd.LANES
    columns_of_d_y = simd.address(scratch)  # (outputs, 512)
    panel = columns_of_d_y + padded * SPAN  # (512, 48)
    tile = _local_tile()
    row_blocks = (outputs + TILE_ROWS - 1) // TILE_ROWS
    for span in range(0, N, SPAN):
        tokens = min(SPAN, N - span)
        _transpose_rows(simd.address(d_y) + (span * M + output_start), M, tokens, outputs, columns_of_d_y)
        for k in range(0, K, PANEL):
            columns = min(PANEL, K - k)
            _copy_panel(simd.address(x) + (span * K + k), K, tokens, columns, panel)
            for b in range(row_blocks):
                first = outputs * b // row_blocks
                rows = outputs * (b + 1) // row_blocks - first
                for n in range(0, tokens, BLOCK):
                    for c in range(0, PANEL, TILE_COLUMNS):
                        d_y_block = columns_of_d_y + (first * SPAN + n)
                        x_block = panel + (n * PANEL + c)
                        _fma_block(rows, d_y_block, SPAN, x_block, min(BLOCK, tokens - n), tile + c, PANEL, n > 0, 0)
                for r in range(rows):
                    out = simd.address(d_weight) + ((output_start + first + r) * K + k)
                    for c in range(0, columns, simd.LANES):
                        total = load_part(out + c, columns - c, _ZERO) + load(tile + (r * PANEL + c))
                        store_part(out + c, columns - c, total)


@inlined
def _transpose_rows(y, stride, tokens, outputs, out):
    # (tokens, outputs) -> (outputs, 512); columns past the last token are never used
    for n in range(0, tokens, simd.LANES):
        for m in range(0, outputs, simd.LANES):
            block = y + (n * stride + m)
            simd.transpose(block, stride, tokens - n, outputs - m, out + (m * SPAN + n), SPAN)


@inlined
def _copy_panel(x, stride, tokens, columns, panel):
    # (tokens, columns) -> (tokens, 48); missing columns are 0
    for n in range(tokens):
        for c in range(0, PANEL, simd.LANES):
            store(panel + (n * PANEL + c), load_part(x + (n * stride + c), columns - c, _ZERO))


@kernel
def column_sums(x, out, column_start, column_stop):
    # (N, C) -> adds to columns column_start..column_stop of (C,): the sums of x
    N, C = x.shape
    for c in range(column_start, column_stop, simd.LANES):
        count = column_stop - c
        total = load_part(simd.address(out) + c, count, _ZERO)
        for start in range(0, N, BLOCK):
            block = splat(_ZERO)
            for n in range(start, min(start + BLOCK, N)):
                block = block + load_part(simd.address(x) + (n * C + c), count, _ZERO)
            total = total + block
        store_part(simd.address(out) + c, count, total)


@kernel
def column_dots(x, y, out, column_start, column_stop):
    # (N, C), (N, C) -> adds to columns column_start..column_stop of (C,): the sums of x * y
    N, C = x.shape
    for c in range(column_start, column_stop, simd.LANES):
        count = column_stop - c
        total = load_part(simd.address(out) + c, count, _ZERO)
        for start in range(0, N, BLOCK):
            block = splat(_ZERO)
            for n in range(start, min(start + BLOCK, N)):
                place = n * C + c
                y_part = load_part(simd.address(y) + place, count, _ZERO)
                block = fma(load_part(simd.address(x) + place, count, _ZERO), y_part, block)
            total = total + block
        store_part(simd.address(out) + c, count, total)

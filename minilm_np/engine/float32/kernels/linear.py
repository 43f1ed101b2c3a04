"""Dense layers: out = epilogue(x @ weight.T + bias).

Twin: `reference.linear(x, weight, bias)`. `linear_gelu` then applies `reference.gelu`; `linear_residual` adds the
residual.

Letters of a matrix product: M rows of x, N outputs, K inputs.

Reads   x (M, K), weight_packed (N / 48 rounded up, K, 48), bias (N,), residual (M, N).
Writes  rows row_start..row_stop and panels panel_start..panel_stop (48 columns each) of out (M, N).
Sums    one chain per output and block of 128 in k: acc = 0, then acc = fma(x[k], weight[k], acc) for k ascending. The
        block sums are added in ascending order; then the bias is added; then GELU is applied or the residual added.
        Tiles, tails and the given ranges decide which outputs are computed together, never the chain of one.
Fused   bias and GELU or residual, while the tile is in the first-level cache.

`weight_packed` is the weight (N, K) cut into panels of 48 outputs, each stored k by k:
weight_packed[n // 48, k, n % 48] = weight[n, k]. Missing outputs of the last panel are 0. Each tile of rows reads a
panel from front to back. So with few rows the weights are read from memory once, and with many rows a panel stays in
the second-level cache.
"""

import numpy as np

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.float32.kernels.layout import BLOCK, PANEL, TILES
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import inlined, kernel, load, load_part, store_part

TILE_ROWS, TILE_COLUMNS = TILES[simd.TARGET]

# The first time that a panel is read, its weights are prefetched this many steps of k ahead (12 kB), but only for tiles
# of at least this many rows. With fewer rows memory is the limit, and the CPU's own prefetching is better.
PREFETCH_AHEAD, PREFETCH_ROWS = 64, 5

_fma_block = simd.fma_block(TILE_ROWS, TILE_COLUMNS // simd.LANES, PANEL)
_local_tile = simd.local_floats(TILE_ROWS * PANEL)

# np.int64, because Numba would compile _linear again for each Python integer that it is called with.
_BIAS, _GELU, _RESIDUAL = np.int64(0), np.int64(1), np.int64(2)
_ZERO = np.float32(0.0)


@kernel
def linear(x, weight_packed, bias, out, row_start, row_stop, panel_start, panel_stop):
    # (M, K), (N / 48, K, 48), (N,) -> (M, N)
    _linear(x, weight_packed, bias, out, out, row_start, row_stop, panel_start, panel_stop, _BIAS)


@kernel
def linear_gelu(x, weight_packed, bias, out, row_start, row_stop, panel_start, panel_stop):
    # (M, K), (N / 48, K, 48), (N,) -> (M, N)
    _linear(x, weight_packed, bias, out, out, row_start, row_stop, panel_start, panel_stop, _GELU)


@kernel
def linear_residual(x, weight_packed, bias, residual, out, row_start, row_stop, panel_start, panel_stop):
    # (M, K), (N / 48, K, 48), (N,), (M, N) -> (M, N); residual may be out itself
    _linear(x, weight_packed, bias, residual, out, row_start, row_stop, panel_start, panel_stop, _RESIDUAL)


@kernel
def _linear(x, weight_packed, bias, residual, out, row_start, row_stop, panel_start, panel_stop, kind):
    K, N = x.shape[1], out.shape[1]
    M = row_stop - row_start
    x_rows, panels = simd.address(x), simd.address(weight_packed)
    bias_row, residual_rows, out_rows = simd.address(bias), simd.address(residual), simd.address(out)
    tile = _local_tile()
    row_blocks = (M + TILE_ROWS - 1) // TILE_ROWS  # of nearly equal height: 10 rows become 5 and 5, not 9 and 1
    for p in range(panel_start, panel_stop):
        n = p * PANEL
        columns = min(PANEL, N - n)
        for b in range(row_blocks):
            m = row_start + M * b // row_blocks
            rows = row_start + M * (b + 1) // row_blocks - m
            ahead = PREFETCH_AHEAD if b == 0 and rows >= PREFETCH_ROWS else 0
            for k in range(0, K, BLOCK):
                for c in range(0, PANEL, TILE_COLUMNS):
                    x_block, panel = x_rows + (m * K + k), panels + (n * K + k * PANEL + c)
                    _fma_block(rows, x_block, K, panel, min(BLOCK, K - k), tile + c, PANEL, k > 0, ahead)
            for r in range(rows):
                start = (m + r) * N + n
                _epilogue(tile + r * PANEL, bias_row + n, residual_rows + start, out_rows + start, columns, kind)


@inlined
def _epilogue(tile_row, bias, residual, out, columns, kind):
    for c in range(0, columns, simd.LANES):
        value = load(tile_row + c) + load_part(bias + c, columns - c, _ZERO)
        if kind == _GELU:
            value = mathf.gelu(value)
        elif kind == _RESIDUAL:
            value = value + load_part(residual + c, columns - c, _ZERO)
        store_part(out + c, columns - c, value)

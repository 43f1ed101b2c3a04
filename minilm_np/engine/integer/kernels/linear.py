"""Dense layers over quantised rows: out = epilogue(x @ weight.T + bias), where x and weight are integers times scales.

Letters of a matrix product: M rows of x, N outputs, K inputs.

Reads   x and weight_packed (bytes, see `layout`), x_scale (M,), weight_scale (N,), bias (N,), residual (M, N); with
        8 bits also x_zero (M,) and weight_sum (N,) in int32: the integer that stands for 0, and a weight row's sum.
Writes  rows row_start..row_stop and panels panel_start..panel_stop of out (M, N), float32. row_start is a multiple of
        layout.ROW_BLOCK.
Sums    in int32, exactly; with 8 bits sum - x_zero[m] * weight_sum[n], exactly.
Order   float32(sum), rounded once, * (x_scale[m] * weight_scale[n]); then + bias[n]; then, by kind, GELU of it, or
        it + residual.
Fused   everything after the sums, while they are in the first-level cache.
"""

from typing import Any, NamedTuple

import numpy as np

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.integer.kernels import products
from minilm_np.engine.integer.kernels.layout import PANEL, TILES
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import inlined, integers, kernel, load_part, splat, store_part, tiles
from minilm_np.engine.runtime.simd.integers import load_ints_part, splat_int, to_floats

# Panels are taken in groups that stay in the second-level cache, rows in runs that stay in the first-level cache: a
# group's panels stream past a run, and its outputs are written side by side. Meanwhile the next group is prefetched,
# evenly: the weights of a layer exceed the second-level cache, and the third takes a tenth of the time, or a sixth with
# 16 bits, if a text of 121 tokens has to wait for it.
_GROUP_BYTES, _RUN_BYTES = 128 * 2**10, 24 * 2**10

# np.int64, because Numba would compile a function once for each Python integer that it is called with.
_BIAS, _GELU, _RESIDUAL = np.int64(0), np.int64(1), np.int64(2)
_ZERO = np.float32(0.0)
_LINE = 64  # bytes of a cache line

_row_sums_16, _row_sums_8 = products.BLOCK_16.row_sums, products.BLOCK_8.row_sums


class _Rows(NamedTuple):
    """Quantised rows: value = scale * (integer - zero)."""

    integers: Any  # (M,) rows of bytes
    scale: Any  # (M,)
    zero: Any  # (M,) int32; with 16 bits None: all are 0


class _Weight(NamedTuple):
    """A quantised weight: value = scale * integer."""

    packed: Any  # panels of bytes
    scale: Any  # (N,)
    sum: Any  # (N,) int32; with 16 bits None


@kernel
def linear_16(x, x_scale, weight_packed, weight_scale, bias, out, row_start, row_stop, panel_start, panel_stop):
    # (M,) rows, (N,) columns in panels -> (M, N)
    ranges = row_start, row_stop, panel_start, panel_stop
    _linear_16(_Rows(x, x_scale, None), _Weight(weight_packed, weight_scale, None), bias, out, out, ranges, _BIAS)


@kernel
def linear_gelu_16(x, x_scale, weight_packed, weight_scale, bias, out, row_start, row_stop, panel_start, panel_stop):
    # (M,) rows, (N,) columns in panels -> (M, N)
    ranges = row_start, row_stop, panel_start, panel_stop
    _linear_16(_Rows(x, x_scale, None), _Weight(weight_packed, weight_scale, None), bias, out, out, ranges, _GELU)


@kernel
def linear_residual_16(
    x, x_scale, weight_packed, weight_scale, bias, residual, out, row_start, row_stop, panel_start, panel_stop
):
    # (M,) rows, (N,) columns in panels, (M, N) -> (M, N); residual may be out itself
    ranges = row_start, row_stop, panel_start, panel_stop
    x_rows, weight = _Rows(x, x_scale, None), _Weight(weight_packed, weight_scale, None)
    _linear_16(x_rows, weight, bias, residual, out, ranges, _RESIDUAL)


@kernel
def linear_8(
    x, x_scale, x_zero, weight_packed, weight_scale, weight_sum, bias, out,
    row_start, row_stop, panel_start, panel_stop,
):  # fmt: skip
    # (M,) rows, (N,) columns in panels -> (M, N)
    ranges = row_start, row_stop, panel_start, panel_stop
    x_rows, weight = _Rows(x, x_scale, x_zero), _Weight(weight_packed, weight_scale, weight_sum)
    _linear_8(x_rows, weight, bias, out, out, ranges, _BIAS)


@kernel
def linear_gelu_8(
    x, x_scale, x_zero, weight_packed, weight_scale, weight_sum, bias, out,
    row_start, row_stop, panel_start, panel_stop,
):  # fmt: skip
    # (M,) rows, (N,) columns in panels -> (M, N)
    ranges = row_start, row_stop, panel_start, panel_stop
    x_rows, weight = _Rows(x, x_scale, x_zero), _Weight(weight_packed, weight_scale, weight_sum)
    _linear_8(x_rows, weight, bias, out, out, ranges, _GELU)


@kernel
def linear_residual_8(
    x, x_scale, x_zero, weight_packed, weight_scale, weight_sum, bias, residual, out,
    row_start, row_stop, panel_start, panel_stop,
):  # fmt: skip
    # (M,) rows, (N,) columns in panels, (M, N) -> (M, N); residual may be out itself
    ranges = row_start, row_stop, panel_start, panel_stop
    x_rows, weight = _Rows(x, x_scale, x_zero), _Weight(weight_packed, weight_scale, weight_sum)
    _linear_8(x_rows, weight, bias, residual, out, ranges, _RESIDUAL)


class _Finished(NamedTuple):
    """A block whose sums are complete, and what makes outputs of them."""

    rows: Any
    m: Any  # its first row and column in `out`
    n: Any
    pace: Any  # rows to finish in each gap of the next block, times 2^16
    sums: Any
    x: Any  # _Rows
    weight: Any  # _Weight
    bias: Any
    residual: Any
    out: Any
    kind: Any


def _make_linear(bits, block, column_sums, totals):
    """Make the loops of the three kernels of one width."""
    block_rows, begin, make_step, end, count_steps, count_gaps, _ = block
    panel_columns, group_bits = PANEL[bits], PANEL[bits] * bits  # of one k of a panel

    @inlined
    def linear(x, weight, bias, residual, out, ranges, kind):
        row_start, row_stop, panel_start, panel_stop = ranges
        x_bytes, panel_bytes = x.integers.shape[1], weight.packed.shape[1]
        K = panel_bytes * 8 // group_bits
        x_rows, panels = integers.bytes_address(x.integers), integers.bytes_address(weight.packed)
        sums, state = products.local_sums(), tiles.local_tiles()
        steps = count_steps(K)
        group = max(1, _GROUP_BYTES // panel_bytes)
        run = max(1, _RUN_BYTES // (x_bytes * block_rows)) * block_rows
        m, n, rows = row_start, 0, 0  # of the block whose sums wait to be finished
        tiles.tile_begin()
        for group_start in range(panel_start, panel_stop, group):
            ahead, ahead_bytes = panels + (group_start + group) * panel_bytes, 0  # to prefetch in each step
            if group_start + group < panel_stop:
                group_steps = (row_stop - row_start + block_rows - 1) // block_rows * group * steps
                ahead_bytes = (group * panel_bytes + group_steps - 1) // group_steps
            for run_start in range(row_start, row_stop, run):
                run_stop = min(run_start + run, row_stop)
                for p in range(group_start, min(group_start + group, panel_stop)):
                    panel = panels + p * panel_bytes
                    blocks = (run_stop - run_start + block_rows - 1) // block_rows
                    for b in range(blocks):
                        next_m, next_rows = _block(run_start, run_stop, b, blocks, block_rows)
                        x_block = x_rows + next_m * x_bytes
                        pace = _pace(rows, count_gaps(K, next_rows))
                        before = _Finished(rows, m, n, pace, sums, x, weight, bias, residual, out, kind)
                        begin(state, next_rows)
                        for step in range(steps):
                            multiply(state, step, x_block, next_rows, K, panel, before)
                            for line in range(0, ahead_bytes, _LINE):
                                integers.prefetch_line(ahead + line)
                            ahead = ahead + ahead_bytes
                        end(state, x_block, next_rows, K, panel, sums)
                        m, n, rows = next_m, p * panel_columns, next_rows
                        if not TILES:
                            finish(_Finished(rows, m, n, 0, sums, x, weight, bias, residual, out, kind))
        tiles.tile_end()
        if TILES:
            finish(_Finished(rows, m, n, 0, sums, x, weight, bias, residual, out, kind))

    @inlined
    def finish(block):
        """Write the outputs of a whole block."""
        for c in range(0, panel_columns, simd.LANES):
            count = block.out.shape[1] - (block.n + c)
            if count > 0:
                factors = column_factors(block, c, count)
                for r in range(block.rows):
                    finish_vector(block, r, c, count, factors)

    @inlined
    def finish_some(block, gap):
        """Write the rows that are due in a gap of the next block: mostly none or one."""
        start, stop = gap * block.pace >> 16, (gap + 1) * block.pace >> 16
        for r in range(start, min(stop, block.rows)):
            for c in range(0, panel_columns, simd.LANES):
                count = block.out.shape[1] - (block.n + c)
                if count > 0:
                    finish_vector(block, r, c, count, column_factors(block, c, count))

    @inlined
    def column_factors(block, c, count):
        n = block.n + c
        scales = load_part(simd.address(block.weight.scale) + n, count, _ZERO)
        biases = load_part(simd.address(block.bias) + n, count, _ZERO)
        return scales, biases, column_sums(block.weight, n, count)

    @inlined
    def finish_vector(block, r, c, count, factors):
        """Sixteen outputs of row r of the block, from its column c on, from their sums."""
        scales, biases, weight_sums = factors
        m = block.m + r
        place = m * block.out.shape[1] + (block.n + c)
        value = to_floats(totals(block.sums, r, c, block.x, m, weight_sums)) * (splat(block.x.scale[m]) * scales)
        value = value + biases
        if block.kind == _GELU:
            value = mathf.gelu(value)
        elif block.kind == _RESIDUAL:
            value = value + load_part(simd.address(block.residual) + place, count, _ZERO)
        store_part(simd.address(block.out) + place, count, value)

    multiply = make_step(finish_some)
    return linear


@inlined
def _pace(rows, gaps):
    """How many rows to finish in each gap, times 2^16, so that all are finished in the last one."""
    return (rows * 2**16 + gaps - 1) // gaps if gaps > 0 else 0


@inlined
def _block(start, stop, b, blocks, block_rows):
    """First row and number of rows of block b. Vectors take blocks of nearly equal height: 10 rows are 5 and 5."""
    if TILES:
        m = start + b * block_rows
        return m, min(block_rows, stop - m)
    m = start + (stop - start) * b // blocks
    return m, start + (stop - start) * (b + 1) // blocks - m


@inlined
def _column_sums_16(weight, n, count):
    return splat_int(np.int32(0))  # unused: the integer that stands for 0 is 0


@inlined
def _totals_16(sums, r, c, x, m, weight_sums):
    return _row_sums_16(sums, r, c)


@inlined
def _column_sums_8(weight, n, count):
    return load_ints_part(integers.ints_address(weight.sum) + n, count)


@inlined
def _totals_8(sums, r, c, x, m, weight_sums):
    return _row_sums_8(sums, r, c) - splat_int(x.zero[m]) * weight_sums


_linear_16 = _make_linear(16, products.BLOCK_16, _column_sums_16, _totals_16)
_linear_8 = _make_linear(8, products.BLOCK_8, _column_sums_8, _totals_8)

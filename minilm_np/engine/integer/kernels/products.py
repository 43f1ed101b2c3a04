"""Sums of integer products: a block of rows of x times one panel of the weight, in int32, by the target's instructions.

A block has from 1 to `rows` rows, of 16-bit integers, or of uint8 in x and int8 in the weight. It is computed by these
functions, so that other work can be done while the tiles multiply:

    begin(state, rows)
    step(state, step, x, rows, K, panel, work)  for each step from 0 to steps(K) - 1
    end(state, x, rows, K, panel, sums)
    row_sums(sums, r, c)                        the sums of row r and of the sixteen columns from c on

`step` is made by `make_step(between)`. It calls between(work, gap) after each product of two tiles, for gaps 0 to
gaps(K, rows) - 1 of the block. A processor looks ahead about 500 instructions: it computes a few vectors during the 16
cycles of a product, but all vectors of a step only after its eight products. Vectors have no gaps.

x points to the block's first row, `panel` to the panel, `sums` is `local_sums()`, and only `end` writes to it; `state`
is `tiles.local_tiles()`. K is padded. BLOCK_16 and BLOCK_8 are these functions for the target. Each sum is that of all
K products modulo 2^32; where it fits into int32 it is exact. No instruction saturates, so neither the order of the
additions nor the partial sums matter.

AMX multiplies bytes. An int16 is high * 256 + low, with high from -128 to 127 and low from 0 to 255. So

    x * w = (high high) * 65,536 + (high low + low high) * 256 + low low

and each of these three sums has an accumulator. They wrap around as well, if K is large enough.
"""

from typing import Any, NamedTuple

from minilm_np.engine.integer.kernels.layout import (
    GROUP,
    K_STEP,
    PANEL,
    QUADS,
    TARGET,
    TILE_BYTES,
    TILE_SIDE,
    TILES,
    row_bytes,
)
from minilm_np.engine.runtime.simd import LANES, inlined, integers, kernel
from minilm_np.engine.runtime.simd.integers import load_ints, shift_left
from minilm_np.engine.runtime.simd.tiles import (
    NUMBERS,
    tile_dot_ss,
    tile_dot_su,
    tile_dot_us,
    tile_dot_uu,
    tile_load,
    tile_store,
    tile_zero,
)

# ---- tiles -----------------------------------------------------------------------------------------------------------

_PANEL_16, _PANEL_8 = PANEL[16], PANEL[8]
_PART = 2 * TILE_SIDE * TILE_SIDE  # int32 of a block of int16: the high, the mixed or the low sums


@inlined
def _tile_steps(K):
    return K // K_STEP


# Tiles for 16-bit integers: sums of rows 0 to 15 and of rows 16 to 31, and one operand of either side.
_HIGH, _MIXED, _LOW, _HIGH_2, _MIXED_2, _LOW_2, _X, _W = NUMBERS


@inlined
def _tile_begin_16(state, rows):
    tile_zero(state, _HIGH)
    tile_zero(state, _MIXED)
    tile_zero(state, _LOW)
    tile_zero(state, _HIGH_2)
    tile_zero(state, _MIXED_2)
    tile_zero(state, _LOW_2)


@inlined
def _tile_gaps_16(K, rows):
    return _tile_steps(K) * (8 if rows > TILE_SIDE else 4)


def _make_tile_step_16(between):
    @inlined
    def tile_step(state, step, x, rows, K, panel, work):
        # A sum's product takes 52 cycles, and a new one can begin every 16: four lie between the uses of a sum.
        x, panel = x + 2 * TILE_BYTES * step, panel + 2 * TILE_BYTES * step
        second = x + 2 * TILE_SIDE * K
        tile_load(state, _W, panel)  # high
        tile_load(state, _X, x)
        tile_dot_ss(state, _HIGH, _X, _W)
        if rows > TILE_SIDE:
            gap = 8 * step
            between(work, gap)
            tile_load(state, _X, x + TILE_BYTES)
            tile_dot_us(state, _MIXED, _X, _W)
            between(work, gap + 1)
            tile_load(state, _X, second)
            tile_dot_ss(state, _HIGH_2, _X, _W)
            between(work, gap + 2)
            tile_load(state, _X, second + TILE_BYTES)
            tile_dot_us(state, _MIXED_2, _X, _W)
            between(work, gap + 3)
            tile_load(state, _W, panel + TILE_BYTES)  # low
            tile_dot_uu(state, _LOW_2, _X, _W)
            between(work, gap + 4)
            tile_load(state, _X, x)
            tile_dot_su(state, _MIXED, _X, _W)
            between(work, gap + 5)
            tile_load(state, _X, x + TILE_BYTES)
            tile_dot_uu(state, _LOW, _X, _W)
            between(work, gap + 6)
            tile_load(state, _X, second)
            tile_dot_su(state, _MIXED_2, _X, _W)
            between(work, gap + 7)
        else:
            gap = 4 * step
            between(work, gap)
            tile_load(state, _X, x + TILE_BYTES)
            tile_dot_us(state, _MIXED, _X, _W)
            between(work, gap + 1)
            tile_load(state, _W, panel + TILE_BYTES)
            tile_dot_uu(state, _LOW, _X, _W)
            between(work, gap + 2)
            tile_load(state, _X, x)
            tile_dot_su(state, _MIXED, _X, _W)
            between(work, gap + 3)

    return tile_step


@inlined
def _tile_end_16(state, x, rows, K, panel, sums):
    tile_store(state, _HIGH, sums, TILE_SIDE)
    tile_store(state, _MIXED, sums + _PART, TILE_SIDE)
    tile_store(state, _LOW, sums + 2 * _PART, TILE_SIDE)
    if rows > TILE_SIDE:
        tile_store(state, _HIGH_2, sums + _PART // 2, TILE_SIDE)
        tile_store(state, _MIXED_2, sums + 3 * _PART // 2, TILE_SIDE)
        tile_store(state, _LOW_2, sums + 5 * _PART // 2, TILE_SIDE)


@inlined
def _tile_row_sums_16(sums, r, c):
    p = sums + r * TILE_SIDE
    high, mixed, low = load_ints(p), load_ints(p + _PART), load_ints(p + 2 * _PART)
    return shift_left(shift_left(high, 8) + mixed, 8) + low


# Tiles for 8-bit integers: sums of rows 0 to 15 by columns 0 to 15, ..., and two operands of either side.
_SUM_00, _SUM_01, _SUM_10, _SUM_11, _X_0, _X_1, _W_0, _W_1 = NUMBERS


@inlined
def _tile_begin_8(state, rows):
    tile_zero(state, _SUM_00)
    tile_zero(state, _SUM_01)
    tile_zero(state, _SUM_10)
    tile_zero(state, _SUM_11)


@inlined
def _tile_gaps_8(K, rows):
    return _tile_steps(K) * (4 if rows > TILE_SIDE else 2)


def _make_tile_step_8(between):
    @inlined
    def tile_step(state, step, x, rows, K, panel, work):
        x, panel = x + TILE_BYTES * step, panel + 2 * TILE_BYTES * step
        gap = step * (4 if rows > TILE_SIDE else 2)
        tile_load(state, _X_0, x)
        tile_load(state, _W_0, panel)
        tile_dot_us(state, _SUM_00, _X_0, _W_0)
        between(work, gap)
        tile_load(state, _W_1, panel + TILE_BYTES)
        tile_dot_us(state, _SUM_01, _X_0, _W_1)
        between(work, gap + 1)
        if rows > TILE_SIDE:
            tile_load(state, _X_1, x + TILE_SIDE * K)
            tile_dot_us(state, _SUM_10, _X_1, _W_0)
            between(work, gap + 2)
            tile_dot_us(state, _SUM_11, _X_1, _W_1)
            between(work, gap + 3)

    return tile_step


@inlined
def _tile_end_8(state, x, rows, K, panel, sums):
    tile_store(state, _SUM_00, sums, _PANEL_8)
    tile_store(state, _SUM_01, sums + TILE_SIDE, _PANEL_8)
    if rows > TILE_SIDE:
        tile_store(state, _SUM_10, sums + TILE_SIDE * _PANEL_8, _PANEL_8)
        tile_store(state, _SUM_11, sums + (TILE_SIDE * _PANEL_8 + TILE_SIDE), _PANEL_8)


# ---- vectors ---------------------------------------------------------------------------------------------------------

# Rows and columns of the register tile: accumulators, columns and one group of x must fit the vector registers.
_ROWS, _COLUMNS = {
    "avx512vnni": (9, 48), "avx512": (9, 48), "avxvnni": (6, 16), "avx2": (5, 16), "neon": (5, 16),
}.get(TARGET, (2, 16))  # fmt: skip

if TARGET == "neon":
    _multiply_16, _multiply_8 = integers.Singles(16), integers.Singles(8)
elif QUADS:
    _BITS = 512 if TARGET == "avx512vnni" else 256
    _multiply_16, _multiply_8 = integers.Pairs(16, _BITS), integers.Quads(_BITS)
else:
    _multiply_16, _multiply_8 = integers.Pairs(16), integers.Pairs(8)
_dot_16 = integers.dot_block(_ROWS, _COLUMNS // LANES, PANEL[16], _multiply_16)
_dot_8 = integers.dot_block(_ROWS, _COLUMNS // LANES, PANEL[8], _multiply_8)
_COLUMN_BYTES_16, _COLUMN_BYTES_8 = _multiply_16.w_bytes, _multiply_8.w_bytes
_GROUP_16, _GROUP_8 = GROUP[16], GROUP[8]
_BYTES_16, _BYTES_8 = row_bytes(16, K_STEP) // K_STEP, row_bytes(8, K_STEP) // K_STEP  # of an element of x


@inlined
def _vector_steps(K):
    return 1  # which does nothing: a block of vectors is multiplied in its end


@inlined
def _vector_begin(state, rows):
    pass


@inlined
def _vector_gaps(K, rows):
    return 0


def _make_vector_step(between):
    @inlined
    def vector_step(state, step, x, rows, K, panel, work):
        pass

    return vector_step


@kernel
def _vector_end_16(state, x, rows, K, panel, sums):
    for c in range(0, _PANEL_16, _COLUMNS):
        _dot_16(rows, x, _BYTES_16 * K, panel + c * _COLUMN_BYTES_16, K // _GROUP_16, sums + c, _PANEL_16, 0)


@kernel
def _vector_end_8(state, x, rows, K, panel, sums):
    for c in range(0, _PANEL_8, _COLUMNS):
        _dot_8(rows, x, _BYTES_8 * K, panel + c * _COLUMN_BYTES_8, K // _GROUP_8, sums + c, _PANEL_8, 0)


@inlined
def _row_sums(sums, r, c):
    return load_ints(sums + (r * _PANEL_8 + c))


# ---- the target's ----------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """The functions that compute a block, or make them, and its most rows."""

    rows: int
    begin: Any
    make_step: Any
    end: Any
    steps: Any
    gaps: Any
    row_sums: Any


if TILES:
    local_sums = integers.local_ints(3 * _PART)
    BLOCK_16 = Block(
        2 * TILE_SIDE, _tile_begin_16, _make_tile_step_16, _tile_end_16, _tile_steps, _tile_gaps_16, _tile_row_sums_16
    )
    BLOCK_8 = Block(2 * TILE_SIDE, _tile_begin_8, _make_tile_step_8, _tile_end_8, _tile_steps, _tile_gaps_8, _row_sums)
else:
    local_sums = integers.local_ints(_ROWS * PANEL[8])
    BLOCK_16 = Block(_ROWS, _vector_begin, _make_vector_step, _vector_end_16, _vector_steps, _vector_gaps, _row_sums)
    BLOCK_8 = Block(_ROWS, _vector_begin, _make_vector_step, _vector_end_8, _vector_steps, _vector_gaps, _row_sums)

"""Rows of float32 to rows of integers and a scale per row, by the contracts' rules.

Twin: `reference.quantise` of this engine.

Reads   x (M, K).
Writes  rows row_start..row_stop of out (bytes, see `layout`), of scale (M,) float32, and with 8 bits of zero (M,)
        int32. The padding of k is written as well.
Sums    `squares` as LayerNorm's: 16 lanes, lane i adds elements i, i + 16, ... to +0, ascending, by mul and add; then
        the lane pairs.

16 bits: value = scale * integer. The 2-norm of a row of integers is at most 46,340, as that of a weight's row is. By
Cauchy-Schwarz |sum over any k of x[k] * w[k]| <= 46,340 ^ 2 < 2^31: no sum of products leaves int32.

    amax    = max |x[k]|
    inverse = 1 / amax if amax > 2^-100 else 0
    squares = sum of (x[k] * inverse) ^ 2
    limit   = float32(46,338 - isqrt(K)) / sqrt(squares)        rounding adds at most sqrt(K) / 2 to the norm
    steps   = 32,767 if limit > 32,767 else limit
    scale   = amax / steps
    integer = x[k] * (inverse * steps), rounded to nearest even

8 bits: value = scale * (integer - zero), integers from 0 to 255.

    high, low = max(0, max x[k]), min(0, min x[k])
    inverse   = 255 / (high - low) if high - low > 2^-100 else 0
    scale     = (high - low) / 255
    zero      = -low * inverse, rounded to nearest even
    integer   = min(x[k] * inverse, rounded to nearest even, + zero, 255)

Each product that is rounded to an integer is exact before: fma(x, factor, 1.5 * 2^23) has the integer in its last bits.
A NaN or an infinity in a row makes its scale NaN or infinite, and its integers are whatever the bits give.
"""

import numpy as np

from minilm_np.engine.integer.kernels.layout import K_STEP, QUADS, ROW_BLOCK, TILE_BYTES, TILES
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import (
    fma,
    inlined,
    integers,
    kernel,
    lane_max,
    lane_sum,
    load,
    load_part,
    maximum,
    maximum_or_nan,
    select_greater,
    splat,
    sqrt,
    store,
)
from minilm_np.engine.runtime.simd.integers import (
    absolute,
    bits_float,
    first_int,
    first_lane,
    float_bits,
    lane_max_or_nan,
    maximum_int,
    minimum_int,
    splat_int,
    store_four_bytes,
    store_four_second_bytes,
    store_shorts,
)

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
SMALLEST = np.float32(2.0**-100)  # from there on the reciprocal is far from infinity
_MOST_STEPS, _MOST_NORM = np.float32(32767.0), 46338
_LEVELS, _LAST_LEVEL = np.float32(255.0), np.int32(255)
_ROUND = np.float32(1.5 * 2**23)
_ROUND_BITS, _NO_BITS = np.int32(_ROUND.view(np.int32)), np.int32(0)

# Bytes from 64 elements of a row to its next 64: in tiles, other rows and planes lie between them.
_STEP_16 = 2 * TILE_BYTES if TILES else 2 * K_STEP
_STEP_8 = TILE_BYTES if TILES else K_STEP if QUADS else 2 * K_STEP


# The steps of a row wait for each other: the largest element, the sum, the square root. So several rows take each step
# one after the other, and the processor overlaps them.
_GROUP = 4
_local_factors = simd.local_floats(_GROUP * simd.LANES)


@kernel
def quantise_rows_16(x, out, scale, row_start, row_stop):
    # (M, K) -> (M,) rows, (M,)
    K, row_bytes = x.shape[1], out.shape[1]
    x_rows, out_bytes = simd.address(x), integers.bytes_address(out)
    factors = _local_factors()
    for start in range(row_start, row_stop, _GROUP):
        stop = min(start + _GROUP, row_stop)
        for m in range(start, stop):
            scale[m] = largest_magnitude(x_rows + m * K, K)
        for m in range(start, stop):
            scale[m], factor = scale_and_factor(x_rows + m * K, K, scale[m])
            store(factors + (m - start) * simd.LANES, factor)
        for m in range(start, stop):
            _write_16(x_rows + m * K, K, load(factors + (m - start) * simd.LANES), out_bytes, row_bytes, m)


@inlined
def quantise_row_16(x, K, out, row_bytes, m):
    """One row by pointers, as row m of out; returns the scale. A row in `quantise_rows_16` takes less time."""
    scale, factor = scale_and_factor(x, K, largest_magnitude(x, K))
    _write_16(x, K, factor, out, row_bytes, m)
    return scale


@inlined
def largest_magnitude(x, K):
    """The largest magnitude, NaN left out."""
    amax = splat(_ZERO)
    for k in range(0, K, simd.LANES):
        amax = maximum(absolute(load_part(x + k, K - k, _ZERO)), amax)
    return lane_max(amax)


@inlined
def scale_and_factor(x, K, largest):
    """The scale, and in each lane what x is multiplied by."""
    amax = splat(largest)
    inverse = select_greater(amax, splat(SMALLEST), splat(_ONE) / amax, splat(_ZERO))
    squares = splat(_ZERO)
    for k in range(0, K, simd.LANES):
        value = load_part(x + k, K - k, _ZERO) * inverse
        squares = squares + value * value
    limit = splat(np.float32(_MOST_NORM - _root(K))) / sqrt(splat(lane_sum(squares)))
    steps = select_greater(limit, splat(_MOST_STEPS), splat(_MOST_STEPS), limit)
    return first_lane(amax / steps), inverse * steps


@inlined
def _root(n):
    """The integer part of the square root, exactly for n below 2^22."""
    return np.int64(first_lane(sqrt(splat(np.float32(n)))))


@inlined
def _write_16(x, K, factor, out, row_bytes, m):
    row = out + _row_start(row_bytes, m)
    for k in range(0, K, K_STEP):
        a, b = _integers_16(x, k, K, factor), _integers_16(x, k + 16, K, factor)
        c, d = _integers_16(x, k + 32, K, factor), _integers_16(x, k + 48, K, factor)
        if TILES:
            store_four_second_bytes(row, a, b, c, d)
            store_four_bytes(row + TILE_BYTES, a, b, c, d)
        else:
            _store_four_shorts(row, a, b, c, d)
        row = row + _STEP_16


@inlined
def _integers_16(x, k, K, factor):
    return nearest(load_part(x + k, K - k, _ZERO), factor)


@inlined
def _store_four_shorts(row, a, b, c, d):
    store_shorts(row, a)
    store_shorts(row + 32, b)
    store_shorts(row + 64, c)
    store_shorts(row + 96, d)


@inlined
def _row_start(row_bytes, m):
    """The offset in bytes of row m's first element."""
    if TILES:
        return m // ROW_BLOCK * (ROW_BLOCK * row_bytes) + m % ROW_BLOCK * K_STEP
    return m * row_bytes


@kernel
def quantise_rows_8(x, out, scale, zero, row_start, row_stop):
    # (M, K) -> (M,) rows, (M,), (M,)
    K, row_bytes = x.shape[1], out.shape[1]
    x_rows, out_bytes = simd.address(x), integers.bytes_address(out)
    factors = _local_factors()
    for start in range(row_start, row_stop, _GROUP):
        stop = min(start + _GROUP, row_stop)
        for m in range(start, stop):
            scale[m], zero[m], factor = _scale_zero_and_factor(x_rows + m * K, K)
            store(factors + (m - start) * simd.LANES, factor)
        for m in range(start, stop):
            factor = load(factors + (m - start) * simd.LANES)
            _write_8(x_rows + m * K, K, factor, zero[m], out_bytes, row_bytes, m)


@inlined
def quantise_row_8(x, K, out, row_bytes, m):
    """One row by pointers, as row m of out; returns the scale and the zero. In `quantise_rows_8` it takes less time."""
    scale, zero, factor = _scale_zero_and_factor(x, K)
    _write_8(x, K, factor, zero, out, row_bytes, m)
    return scale, zero


@inlined
def _scale_zero_and_factor(x, K):
    """The scale, the zero, and in each lane what x is multiplied by."""
    high = low = splat(_ZERO)
    sizes = splat_int(_NO_BITS)  # |x| as integers, which are in the same order, and NaN is the largest
    for k in range(0, K, simd.LANES):
        value = load_part(x + k, K - k, _ZERO)
        high, low = maximum(value, high), select_greater(low, value, value, low)
        sizes = maximum_int(float_bits(absolute(value)), sizes)
    minus_low = splat(lane_max(splat(_ZERO) - low))
    extent = splat(lane_max(high)) + minus_low
    extent = maximum_or_nan(splat(lane_max_or_nan(bits_float(sizes))), extent)  # which is as large, or x has a NaN
    factor = select_greater(extent, splat(SMALLEST), splat(_LEVELS) / extent, splat(_ZERO))
    return first_lane(extent / splat(_LEVELS)), first_int(nearest(minus_low, factor)), factor


@inlined
def nearest(value, factor):
    """The exact product, rounded to nearest even."""
    return float_bits(fma(value, factor, splat(_ROUND))) - splat_int(_ROUND_BITS)


@inlined
def _write_8(x, K, factor, zero, out, row_bytes, m):
    row = out + _row_start(row_bytes, m)
    for k in range(0, K, K_STEP):
        a, b = _levels_8(x, k, K, factor, zero), _levels_8(x, k + 16, K, factor, zero)
        c, d = _levels_8(x, k + 32, K, factor, zero), _levels_8(x, k + 48, K, factor, zero)
        if TILES or QUADS:
            store_four_bytes(row, a, b, c, d)
        else:
            _store_four_shorts(row, a, b, c, d)
        row = row + _STEP_8


@inlined
def _levels_8(x, k, K, factor, zero):
    level = nearest(load_part(x + k, K - k, _ZERO), factor) + splat_int(zero)
    return minimum_int(level, splat_int(_LAST_LEVEL))

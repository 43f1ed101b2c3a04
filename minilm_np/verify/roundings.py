"""Numbers rounded to fewer bits or digits: by a format of weights, or by the file in which vectors are stored."""

import numpy as np

from minilm_np.reference import Array


def rounded_to_float16(array: Array) -> Array:
    """Return the numbers rounded to float16, in their own dtype."""
    return array.astype(np.float16).astype(array.dtype)


def rounded_to_bfloat16(array: Array) -> Array:
    """Return float32 numbers rounded to bfloat16 (8 bits of precision), ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def rounded_to_int8(matrix: Array, axis: int | None, divides: bool = True) -> Array:  # (M, K) -> (M, K)
    """Return round(w / scale) * scale, ties to even, with scale = max|w| / 127 of the matrix or of each row.

    divides: False to multiply by 1 / scale, as some implementations do; some ties then round the other way.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = np.maximum(largest, np.float32(1e-30)) / np.float32(127.0)
    return np.rint(matrix / scale if divides else matrix * (np.float32(1.0) / scale)) * scale


def rounded_to_uint8(matrix: Array, divides: bool = True) -> Array:  # (M, K) -> (M, K)
    """Return the matrix rounded to 256 levels from its smallest number to its largest, one of which is 0.

    divides: as in `rounded_to_int8`.
    """
    low, high = min(matrix.min(), np.float32(0.0)), max(matrix.max(), np.float32(0.0))
    scale = np.maximum(high - low, np.float32(1e-30)) / np.float32(255.0)
    zero = np.rint(-low / scale)
    levels = np.rint(matrix / scale if divides else matrix * (np.float32(1.0) / scale)) + zero
    return ((np.clip(levels, 0.0, 255.0) - zero) * scale).astype(matrix.dtype)


def storage_rounding(vectors: Array) -> tuple[str, float]:
    """Return how stored vectors were rounded ("" if they were not), and the error of that.

    The error is relative to a vector's largest number.
    """
    numbers = vectors.astype(np.float64)
    if (vectors.astype(np.float16).astype(np.float64) == numbers).all():
        return "as float16", 2.0**-11
    if (rounded_to_bfloat16(vectors.astype(np.float32)).astype(np.float64) == numbers).all():
        return "as bfloat16", 2.0**-8
    largest = float(np.abs(numbers).max(axis=1).min())
    for digits in range(2, 8):
        # a decimal that was read into float32 is off by its last bit
        if (np.abs(np.round(numbers, digits) - numbers) <= 2.0**-23 * np.abs(numbers)).all() and largest > 0:
            return f"with {digits} decimals", 0.5 * 10.0**-digits / largest
    for which, groups in (
        ("in 256 levels", [numbers.ravel()]),
        ("in 256 levels per vector", list(numbers)),
        ("in 256 levels per dimension", list(numbers.T) if len(numbers) >= FEWEST_NUMBERS else []),
    ):
        steps = [_step(group) for group in groups]
        if steps and largest > 0 and (widest := max(steps)) < np.inf:
            return f"{which}, as 8-bit integers", 0.5 * widest / largest
    return "", 0.0


FEWEST_NUMBERS = 16  # in which levels are recognised
LEVELS = 256


def _step(numbers: Array) -> float:  # (n,) -> ()
    """The distance of the levels on which all numbers are; infinite if there are no such levels."""
    levels = np.unique(numbers)
    if len(numbers) < FEWEST_NUMBERS or not 3 <= len(levels) <= LEVELS:
        return np.inf
    places = (levels - levels[0]) / np.diff(levels).min()
    # float32 rounds the numbers, which moves a place by less than this
    if places[-1] >= LEVELS or (np.abs(places - np.rint(places)) > 0.02).any():
        return np.inf
    return float((levels[-1] - levels[0]) / np.rint(places[-1]))

"""Vectors in fewer bits: int8 and uint8 by ranges a dimension, binary and ubinary by sign, a bit a dimension.

Upstream: sentence_transformers/util/quantization.py; the same bits come out.
"""

import logging
from typing import Any

import numpy as np

from minilm_np._checks import check_choice
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.names import PRECISIONS
from minilm_np.vectors.similarity import Array, as_array

FEW = 100  # vectors below which ranges that are taken from them are a guess

logger = logging.getLogger(__name__)


def quantize_embeddings(
    embeddings: Any, precision: str, ranges: Any = None, calibration_embeddings: Any = None
) -> Array | list[Array]:
    """Floating-point vectors in fewer bits.

    embeddings: (n, D), or (D,) for one; or a list of (n_i, D), of several vectors a text, whose ranges are shared.
    precision: "float32"; "int8" or "uint8", 255 steps between the lowest and highest number of each dimension, which
        goes to the step below and not beyond the ends; "ubinary" or "binary", a bit a dimension, 1 where it is above 0,
        the first in the highest bit of a byte, the last byte filled up with zeros. "int8" is "uint8" less 128, as
        "binary" is "ubinary" less 128.
    ranges: (2, D), the lowest and the highest number of each dimension. None: those of calibration_embeddings (m, D),
        or, where they are None too, of the vectors themselves. Vectors are comparable only if their ranges are the
        same: keep the ranges of the corpus for the queries.

    Returns (n, D) float32, int8 or uint8, or (n, ceil(D / 8)) int8 or uint8; a list of such for a list of matrices.
    Raises InputTypeError (they are bytes already), InputValueError (no such precision, a wrong shape, NaN, or ranges
    to be taken from a single vector).
    """
    check_choice("precision", precision, PRECISIONS)
    if isinstance(embeddings, list):
        if not embeddings:
            return []
        if getattr(embeddings[0], "ndim", 0) == 2:
            return _quantize_matrices(embeddings, precision, ranges, calibration_embeddings)
    array = _as_floats(embeddings, "embeddings")
    if precision == "float32":
        return array.astype(np.float32)
    if precision == "ubinary":
        return np.packbits(array > 0, axis=-1)
    if precision == "binary":
        return (np.packbits(array > 0, axis=-1) ^ 0x80).view(np.int8)  # less 128, modulo 256

    if ranges is None and array.ndim == 2 and not len(array):
        return array.astype(precision)  # nothing to take ranges from, and nothing to do
    if ranges is None:
        ranges = _ranges(array, precision, calibration_embeddings)
    low, high = _check_ranges(ranges, array.shape[-1])
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is refused below
        levels = array - low
        levels /= steps
        np.clip(np.floor(levels, out=levels), 0, 255, out=levels)
    if np.isnan(levels.min(initial=0)):
        where = np.argwhere(np.isnan(levels))[0].tolist()
        raise InputValueError(
            f"embeddings: the number at {where} is NaN, or infinite, or its range is: {precision} has no such"
        )
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def _quantize_matrices(matrices: list[Any], precision: str, ranges: Any, calibration_embeddings: Any) -> list[Array]:
    """Each of the matrices (n_i, D), with ranges that are taken once."""
    arrays = [_as_floats(matrix, f"embeddings[{index}]") for index, matrix in enumerate(matrices)]
    if ranges is None and precision in ("int8", "uint8"):
        try:
            together = np.concatenate(arrays)
        except ValueError as error:
            raise InputValueError(f"embeddings: expected matrices with vectors of one length: {error}") from None
        if len(together):
            ranges = _ranges(together, precision, calibration_embeddings)
    return [np.asarray(quantize_embeddings(array, precision, ranges)) for array in arrays]


def _ranges(array: Array, precision: str, calibration_embeddings: Any) -> Array:
    """The lowest and the highest number of each dimension, (2, D)."""
    if calibration_embeddings is not None:
        array = _as_floats(calibration_embeddings, "calibration_embeddings")
    elif array.ndim == 1 or len(array) == 1:
        raise InputValueError(
            f"embeddings: the ranges of {precision} cannot be taken from a single vector: give ranges or "
            "calibration_embeddings"
        )
    elif len(array) < FEW:
        logger.warning(
            "the ranges of %s are taken from %d vectors only: give ranges, or calibration_embeddings of many vectors",
            precision, len(array),
        )  # fmt: skip
    if array.ndim != 2 or not len(array):
        raise InputValueError(f"calibration_embeddings: expected vectors (m, D), at least one, found {array.shape}")
    return np.stack([array.min(axis=0), array.max(axis=0)])


def _check_ranges(ranges: Any, D: int) -> Array:
    ranges = as_array(ranges, "ranges")
    if ranges.shape != (2, D):
        raise InputValueError(
            f"ranges: expected the lowest and highest number of each dimension, (2, {D}), found the shape "
            f"{ranges.shape}"
        )
    return ranges.astype(np.float32, copy=False)


def _as_floats(embeddings: Any, name: str) -> Array:
    # Lists of numbers are float64 here, as upstream has it: in float32 a number may fall to another step.
    if isinstance(embeddings, list | tuple) and not any(hasattr(row, "__array__") for row in embeddings):
        try:
            embeddings = np.array(embeddings)
        except ValueError as error:
            raise InputValueError(f"{name}: expected vectors of one length: {error}") from None
    array = as_array(embeddings, name)
    if array.dtype in (np.int8, np.uint8):
        raise InputTypeError(
            f"{name}: expected floating-point numbers, found {array.dtype}: are they quantized already?"
        )
    return array

"""Vectors in fewer bits: int8 and uint8 by the range of each dimension, binary and ubinary by the sign of each number.

Upstream: sentence_transformers/util/quantization.py. The results have the same bits.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilm_np._checks import check_choice
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.names import PRECISIONS
from minilm_np.vectors.similarity import Array, as_array, quiet

FEW = 100  # fewer vectors than this give only a rough estimate of the ranges

logger = logging.getLogger(__name__)


_Numbers = NDArray[Any] | Sequence[float] | Sequence[Sequence[float]]  # always one array, never a list of matrices


@overload
def quantize_embeddings(
    embeddings: _Numbers,
    precision: Literal["float32"],
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[np.float32]: ...
@overload
def quantize_embeddings(
    embeddings: _Numbers,
    precision: Literal["int8", "binary"],
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[np.int8]: ...
@overload
def quantize_embeddings(
    embeddings: _Numbers,
    precision: Literal["uint8", "ubinary"],
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[np.uint8]: ...
@overload
def quantize_embeddings(
    embeddings: _Numbers,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> Array: ...
@overload
def quantize_embeddings(
    embeddings: ArrayLike,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> Array | list[Array]: ...
@quiet  # NaN raises an error
def quantize_embeddings(
    embeddings: ArrayLike,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> Array | list[Array]:
    """Quantize floating-point vectors.

    embeddings: (n, D), or (D,) for a single one; or a list of matrices (n_i, D), which share their ranges.
    precision:
        "float32": converted only.
        "uint8", "int8": 255 steps from the lowest to the highest number of each dimension. Numbers are rounded down to
            a step; numbers outside the range are clipped. int8 is uint8 minus 128.
        "ubinary", "binary": one bit per dimension, 1 for numbers above 0. The first dimension is the highest bit of the
            first byte; the last byte is padded with zeros. binary is ubinary minus 128.
    ranges: (2, D), the lowest and the highest number of each dimension. None: the ranges of calibration_embeddings
        (m, D), or, if that is None too, of the vectors themselves. Only vectors quantized with the same ranges are
        comparable: quantize queries with the ranges of the corpus.

    Returns (n, D) float32, int8 or uint8, or (n, ceil(D / 8)) int8 or uint8; a list of these for a list of matrices.
    Raises InputTypeError (integers of 8 bits, which are quantized already), InputValueError (an unknown precision, a
    wrong shape, NaN, or a single vector to take the ranges from).
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
        return (np.packbits(array > 0, axis=-1) ^ 0x80).view(np.int8)  # minus 128, modulo 256

    if ranges is None and array.ndim == 2 and not len(array):
        return array.astype(precision)  # no vectors: no ranges, and nothing to quantize
    if ranges is None:
        ranges = _ranges(array, precision, calibration_embeddings)
    low, high = _check_ranges(ranges, array.shape[-1])
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    levels = array - low
    levels /= steps
    np.clip(np.floor(levels, out=levels), 0, 255, out=levels)
    if np.isnan(levels.min(initial=0)):
        where = np.argwhere(np.isnan(levels))[0].tolist()
        raise InputValueError(
            f"embeddings: the number at {where}, or the range of its dimension, is NaN or infinite, which {precision} "
            "cannot represent"
        )
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def _quantize_matrices(
    matrices: Sequence[ArrayLike], precision: str, ranges: ArrayLike | None, calibration_embeddings: ArrayLike | None
) -> list[Array]:
    """Quantize each matrix (n_i, D) with the ranges of all of them."""
    arrays = [_as_floats(matrix, f"embeddings[{index}]") for index, matrix in enumerate(matrices)]
    if ranges is None and precision in ("int8", "uint8"):
        try:
            together = np.concatenate(arrays)
        except ValueError as error:
            raise InputValueError(f"embeddings: expected matrices with vectors of the same length: {error}") from None
        if len(together):
            ranges = _ranges(together, precision, calibration_embeddings)
    return [quantize_embeddings(array, precision, ranges) for array in arrays]


def _ranges(array: Array, precision: str, calibration_embeddings: ArrayLike | None) -> Array:
    """The lowest and the highest number of each dimension, (2, D)."""
    if calibration_embeddings is not None:
        array = _as_floats(calibration_embeddings, "calibration_embeddings")
    elif array.ndim == 1 or len(array) == 1:
        raise InputValueError(
            f"embeddings: the ranges of {precision} cannot be taken from a single vector: pass ranges or "
            "calibration_embeddings"
        )
    elif len(array) < FEW:
        logger.warning(
            "minilm_np.util.quantize_embeddings: the ranges of %s are taken from only %d vectors: pass ranges, or "
            "calibration_embeddings of many vectors",
            precision, len(array),
        )  # fmt: skip
    if array.ndim != 2 or not len(array):
        raise InputValueError(f"calibration_embeddings: expected vectors (m, D), at least one, found {array.shape}")
    return np.stack([array.min(axis=0), array.max(axis=0)])


def _check_ranges(ranges: ArrayLike, D: int) -> Array:
    array = as_array(ranges, "ranges")
    if array.shape != (2, D):
        raise InputValueError(
            f"ranges: expected the lowest and the highest number of each dimension, (2, {D}), found the shape "
            f"{array.shape}"
        )
    return array.astype(np.float32, copy=False)


def _as_floats(embeddings: ArrayLike, name: str) -> Array:
    # Lists of numbers become float64 here, as upstream: float32 could round a number to another step.
    if isinstance(embeddings, list | tuple) and not any(hasattr(row, "__array__") for row in embeddings):
        try:
            embeddings = np.array(embeddings)
        except ValueError as error:
            raise InputValueError(f"{name}: expected vectors of the same length: {error}") from None
    array = as_array(embeddings, name)
    if array.dtype in (np.int8, np.uint8):
        raise InputTypeError(
            f"{name}: expected floating-point numbers, found {array.dtype}: are the vectors quantized already?"
        )
    return array

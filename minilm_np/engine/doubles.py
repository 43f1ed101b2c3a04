"""Functions of float64 arrays with the same bits on every machine, for the few numbers after a pass.

Every operation is an addition, a subtraction, a multiplication, a division or a square root of NumPy, element by
element, in a fixed order. So neither BLAS nor libm has an influence. Results are rounded to float32 once.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.protocol import Vectors

Doubles = NDArray[np.float64]

_ODD = range(15, 0, -2)  # the numbers of the continued fraction of tanh, from the innermost outwards


def _small_tanh(x: Doubles) -> Doubles:  # (...) -> (...)
    """tanh for |x| <= 0.7: Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...)))."""
    square, below = x * x, np.full_like(x, _ODD.start + 2)
    for odd in _ODD:
        below = odd + square / below
    return x / below


def tanh(x: Doubles) -> Doubles:  # (...) -> (...)
    """tanh within 3e-15 relative: that of x / 32, then five times tanh(2 y) = 2 t / (1 + t^2)."""
    t = _small_tanh(np.clip(x, -20.0, 20.0) / 32.0)  # beyond 20, tanh rounds to 1
    for _ in range(5):
        t = 2.0 * t / (1.0 + t * t)
    return t


def exp(x: Doubles) -> Doubles:  # (...) -> (...)
    """exp within 1e-12 relative: (1 + t) / (1 - t) with t = tanh(x / 2048), squared ten times. x is clamped to 700."""
    t = _small_tanh(np.clip(x, -700.0, 700.0) / 2048.0)
    e = (1.0 + t) / (1.0 - t)
    for _ in range(10):
        e = e * e
    return e


def pooling(x: Vectors, mode: str, start: int) -> Vectors:  # (T, D) -> (D,)
    """`reference.pooling` of the tokens from `start` on; tokens are added in order."""
    kept = x[start:]
    if mode in ("cls", "lasttoken"):
        return kept[0 if mode == "cls" else -1]
    if mode == "max":
        highest: Vectors = kept.max(axis=0)
        return highest
    wide, positions = kept.astype(np.float64), np.arange(start + 1.0, len(x) + 1)
    if mode == "weightedmean":
        wide = wide * positions[:, None]
    count = float(positions.sum()) if mode == "weightedmean" else len(kept)
    total = np.cumsum(wide, axis=0)[-1]  # `sum` may add in any order
    return cast(Vectors, (total / (np.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)).astype(np.float32))


def unit_length(vectors: Vectors) -> Vectors:  # (n, d) -> (n, d)
    """Return vectors scaled to unit length; the squares are added in order."""
    wide = vectors.astype(np.float64)
    squares = np.cumsum(wide * wide, axis=1)[:, -1:]  # `sum` may add in any order
    return cast(Vectors, (wide / np.maximum(np.sqrt(squares), 1e-12)).astype(np.float32))

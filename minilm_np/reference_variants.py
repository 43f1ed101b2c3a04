"""Functions that all-MiniLM-L6-v2 does not have, and other encoders do: three activations, and MPNet's positions.

`reference.py` calls them; its conventions hold here, too. Upstream: activations.py and MPNetEncoder of transformers.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def gelu_tanh(x: Array) -> Array:  # (...) -> (...)
    """The approximation of `gelu` by tanh: `gelu_new` and `gelu_pytorch_tanh` in a config.json."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def relu(x: Array) -> Array:  # (...) -> (...)
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def silu(x: Array) -> Array:  # (...) -> (...)
    """x / (1 + exp(-x)), written with tanh, because exp(-x) overflows."""
    return 0.5 * x * (1.0 + np.tanh(0.5 * x))


def relative_buckets(distance: Array) -> Array:  # (...) -> (...)
    """The row of MPNet's table for each distance from a query to a key, key minus query: 0 to 31.

    Keys after the query use the second half of the table. Within a half, each distance n up to 7 has its row, and the
    others share the rows 8 + floor(2 log2(n / 8)), at most 15. The floor is the number of j with n^2 >= 64 2^j, which
    needs no logarithm and no rounding.
    """
    n = np.abs(distance)
    doublings = (n[..., None] ** 2 >= 64 * 2 ** np.arange(1, 8)).sum(axis=-1)  # floor(2 log2(n / 8)) from n = 8 on
    return 16 * (distance > 0) + np.minimum(n, 8) + doublings


def relative_bias(table: Array, T: int) -> Array:  # (32, H), T -> (H, T, T)
    """MPNet's bias of the attention scores by relative position, query by key; it is the same in all layers."""
    place = np.arange(T)
    return np.moveaxis(table[relative_buckets(place - place[:, None])], -1, 0)

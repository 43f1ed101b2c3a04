"""The head of a cross-encoder: from the vectors of the first tokens to logits, with the same bits everywhere.

Twin: `reference.pooler` and the last line of `reference.classify`.

CONTRACT.md promises the bits. All numbers are float64 here, and every operation is an addition, a subtraction, a
multiplication or a division of NumPy, element by element, in an order that is fixed per pair. So neither BLAS, nor
libm, nor the number of pairs of a call has an influence. Logits and scores are rounded to float32 once.

A head costs 0.3 million multiplications per pair, and the encoder 10 million per token.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.doubles import Doubles, exp, tanh
from minilm_np.engine.float_mode import standard_float_mode
from minilm_np.engine.protocol import Vectors, Weights
from minilm_np.model_files.cross_encoder_files import ACTIVATIONS


class Classifier:
    """The pooler and the classifier of one model.

    weights: those of `checkpoint.head_shapes`, float32.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._pooler = _transposed(weights["pooler.dense.weight"]), weights["pooler.dense.bias"].astype(np.float64)
        self._classifier = _transposed(weights["classifier.weight"]), weights["classifier.bias"].astype(np.float64)

    def logits(self, first_tokens: Vectors) -> Vectors:  # (B, D) -> (B, C)
        """The logits of B pairs, from the vector of each pair's first token. They may be infinite or NaN."""
        with standard_float_mode(), np.errstate(all="ignore"):
            pooled = tanh(_dense(first_tokens.astype(np.float64), *self._pooler))
            return _dense(pooled, *self._classifier).astype(np.float32)


def activate(
    logits: NDArray[Any], activation: str, *, normalize: bool = False, dtype: str = "float32"
) -> NDArray[Any]:  # (B, C) -> (B, C)
    """The scores of logits. activation: one of ACTIVATIONS. normalize: then apply softmax to each row."""
    with standard_float_mode(), np.errstate(all="ignore"):
        scores = _FUNCTIONS[activation](logits.astype(np.float64))
        return (softmax(scores) if normalize else scores).astype(dtype)


def _transposed(weight: Vectors) -> Doubles:  # (M, K) -> (K, M)
    return np.ascontiguousarray(weight.T, np.float64)


def _dense(x: Doubles, weight: Doubles, bias: Doubles) -> Doubles:  # (B, K), (K, M), (M,) -> (B, M)
    """x W + b. The K products of a sum are halved until one is left: product i is added to product i + ceil(K / 2)."""
    out, products = np.empty((len(x), weight.shape[1])), np.empty_like(weight)
    for row, numbers in zip(out, x, strict=True):
        np.multiply(weight, numbers[:, None], out=products)
        K = len(products)
        while K > 1:
            half = (K + 1) // 2
            products[: K - half] += products[half:K]
            K = half
        np.add(products[0], bias, out=row)
    return out


def sigmoid(x: Doubles) -> Doubles:  # (...) -> (...)
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exp(-x))


def softmax(x: Doubles) -> Doubles:  # (B, C) -> (B, C)
    """exp(x) / sum exp(x) along each row; the sum adds the labels in ascending order."""
    e = exp(x - x.max(axis=1, keepdims=True))
    total = np.zeros((len(x), 1))
    for label in range(x.shape[1]):
        total = total + e[:, label : label + 1]
    return e / total


def relu(x: Doubles) -> Doubles:  # (...) -> (...)
    """The larger of x and 0."""
    return np.maximum(x, 0.0)


def identity(x: Doubles) -> Doubles:  # (...) -> (...)
    """x."""
    return x


_FUNCTIONS: dict[str, Callable[[Doubles], NDArray[Any]]] = dict(
    zip(ACTIVATIONS, (identity, relu, sigmoid, tanh), strict=True)
)

"""Integrated gradients of a cosine: how much each token of a text adds to its cosine with a fixed vector.

For a function f of an input x, and a baseline x',

    attributions = (x - x') * integral over s from 0 to 1 of (df/dx at x' + s (x - x'))

Their sum is f(x) - f(x'): this is the completeness of the method, and it is checked. Here

- f is the cosine of the text's vector with the vector of the other text, which stays as it is;
- x are the sums of word, position and token type embedding, before LayerNorm, (T, D). An attribution is summed over D,
  so each token gets one number;
- x' is the same text with the padding token, such as [PAD], in place of every token of the text. The tokens that the
  tokenizer adds, such as [CLS] and [SEP], stay. Positions and types do not change, so only word embeddings move, and
  the added tokens get 0.

Why the other text stays: if both moved to their baselines, f(x') would be the cosine of two texts of [PAD] only. In the
published model that is 0.98 to 1, so every sum would be negative, however similar the texts are.

The gradients are those of `train/backward.py`. Gauss-Legendre quadrature computes the integral.

Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks (2017), sections 3 and 5. For BERT, a
baseline of [PAD] between [CLS] and [SEP] is the usual choice, as in the tutorials of Captum.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilm_np import reference
from minilm_np.engine.blas import one_blas_thread
from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array, Nested, layer_norm, nest, normalize, pooling, within
from minilm_np.train.backward import layer_backward, layer_norm_backward, normalize_backward, pooling_backward

FEWEST_STEPS, MOST_STEPS = 24, 192
TOLERANCE = 1e-3  # of the residual: more steps are taken until it is smaller
CHUNK_TOKENS = 1024  # whose intermediates are in memory at once, about 0.25 GB in float64


@dataclass(frozen=True, eq=False)
class Attribution:
    """The integrated gradients of one text."""

    values: Array  # (T,) one per token
    cosine: float  # at the input
    baseline: float  # the cosine at the baseline
    steps: int  # points of the quadrature

    @property
    def residual(self) -> float:
        """The error of completeness: the sum of the values minus (cosine - baseline)."""
        return float(self.values.sum()) - (self.cosine - self.baseline)


def integrated_gradients(
    ids: Array, baseline_ids: Array, other: Array, weights: Nested, config: ModelConfig,
    report: Callable[[int], object] = lambda steps: None,
) -> Attribution:  # (T,), (T,), (D,) -> values (T,)  # fmt: skip
    """Attribute the cosine of a text's vector with `other` to the text's tokens.

    ids, baseline_ids: of the text and of its baseline.
    other: the vector of the other text, of unit length.
    weights: from `reference.nest`; their dtype is that of the computation.
    report: called with the number of steps done since the last call.

    The number of steps is doubled until the residual is at most TOLERANCE, or until there are MOST_STEPS.
    """
    start, end = summed_embeddings(baseline_ids, weights), summed_embeddings(ids, weights)
    (baseline, cosine), _ = cosine_and_gradient(np.stack([start, end]), other, weights, config, gradient=False)
    steps = FEWEST_STEPS
    while True:
        total = np.zeros_like(end)
        for places, lengths in _chunks(steps, len(ids)):
            path = start + places.astype(end.dtype)[:, None, None] * (end - start)  # (steps of the chunk, T, D)
            _, d_path = cosine_and_gradient(path, other, weights, config)
            total += np.einsum("s,std->td", lengths, d_path)
            report(len(places))
        found = Attribution(((end - start) * total).sum(axis=-1), float(cosine), float(baseline), steps)
        if abs(found.residual) <= TOLERANCE or steps >= MOST_STEPS:
            return found
        steps *= 2


def summed_embeddings(ids: Array, weights: Nested) -> Array:  # (T,) -> (T, D)
    """Return the sum of word, position and token type embeddings, the input of the first LayerNorm.

    DistilBERT has no token types.
    """
    tables = weights["embeddings"]
    total: Array = tables["word_embeddings"]["weight"][ids] + tables["position_embeddings"]["weight"][: len(ids)]
    return total + tables["token_type_embeddings"]["weight"][0] if "token_type_embeddings" in tables else total


def cosine_and_gradient(
    total: Array, other: Array, weights: Nested, config: ModelConfig, *, gradient: bool = True
) -> tuple[Array, Array]:  # (S, T, D), (D,) -> (S,), (S, T, D)
    """Return the cosine of the vector of `total` with `other`, and its gradient with respect to `total`.

    total: from `summed_embeddings`; the texts must have the same length.
    other: a vector of unit length.
    gradient: False: the second array is empty.
    """
    H, eps, norm = config.num_attention_heads, config.layer_norm_eps, weights["embeddings"]["LayerNorm"]
    layers = weights["encoder"]["layer"]
    flat: dict[str, Array] = {}

    def keep(name: str, x: Array) -> Array:
        flat[name] = x
        return x

    with one_blas_thread():  # its threads wait for each other by spinning, which costs most on a busy machine
        record = keep if gradient else reference.ignore
        inputs = [layer_norm(total, **norm, eps=eps)]
        for number, of_layer in layers.items():
            inputs.append(reference.layer(inputs[-1], None, of_layer, H, eps, within(number, record)))
        pooled = pooling(inputs[-1], None, config.pooling_mode)  # (S, D)
        cosines = normalize(pooled) @ other
        if not gradient:
            return cosines, np.empty(0)

        saved = nest(flat, total.dtype)
        d_pooled = normalize_backward(np.broadcast_to(other, pooled.shape), pooled)
        d_x = pooling_backward(d_pooled, inputs[-1], None, config.pooling_mode)
        for number in reversed(layers):
            d_x, _ = layer_backward(d_x, inputs[int(number)], layers[number], saved[number], H, eps)
        d_total, _ = layer_norm_backward(d_x, total, norm["weight"], eps)
    return cosines, d_total


def _chunks(steps: int, T: int) -> Iterator[tuple[Array, Array]]:
    """Yield the places between 0 and 1 of the steps, and their weights in the sum, as many as fit into memory."""
    places, lengths = np.polynomial.legendre.leggauss(steps)
    places, lengths = (places + 1.0) / 2.0, lengths / 2.0
    count = math.ceil(steps / max(1, CHUNK_TOKENS // T))
    yield from zip(np.array_split(places, count), np.array_split(lengths, count), strict=True)

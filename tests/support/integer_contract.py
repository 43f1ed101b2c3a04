"""The integer engine's contracts as scalar loops over Python integers, to be compared bit for bit.

Like `contract.py`, which has the float parts, this imports nothing of the package. A Python float is a float64; it
holds a product of two float32 exactly.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.support import contract

F = np.float32
SMALLEST = F(2.0**-100)


class Row(NamedTuple):
    """A quantised row."""

    integers: list[int]
    scale: np.float32
    zero: int


def nearest(x: np.float32, factor: np.float32) -> int:
    """x * factor, rounded once, ties to even."""
    return round(float(x) * float(factor))


def quantise_row_16(row: np.ndarray) -> Row:
    highest = max(abs(value) for value in row)
    inverse = F(1) / highest if highest > SMALLEST else F(0)
    squares = contract.row_sum([(value * inverse) * (value * inverse) for value in row])
    norm = F(46338 - math.isqrt(len(row)))
    limit = norm / np.sqrt(squares) if squares > 0 else F(math.inf)
    steps = min(limit, F(32767))
    return Row([nearest(value, inverse * steps) for value in row], highest / steps, 0)


def quantise_row_8(row: np.ndarray) -> Row:
    high, low = max(F(0), *row), min(F(0), *row)
    extent = high - low
    inverse = F(255) / extent if extent > SMALLEST else F(0)
    zero = nearest(-low, inverse)
    return Row([min(nearest(value, inverse) + zero, 255) for value in row], extent / F(255), zero)


def quantise_row_symmetric(row: np.ndarray, levels: int) -> Row:
    highest = max(abs(value) for value in row)
    inverse = F(levels) / highest if highest > SMALLEST else F(0)
    return Row([nearest(value, inverse) for value in row], highest / F(levels), 0)


def quantise_weight_row_8(row: np.ndarray) -> Row:
    return quantise_row_symmetric(row, 127)


def rounded_table(table: np.ndarray) -> np.ndarray:
    rows = [quantise_row_symmetric(row, 32767) for row in table]
    return np.array([[F(integer) * row.scale for integer in row.integers] for row in rows])


QUANTISE = {"int16": quantise_row_16, "int8": quantise_row_8}
QUANTISE_WEIGHT = {"int16": quantise_row_16, "int8": quantise_weight_row_8}


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, compute_type: str) -> np.ndarray:
    """x @ weight.T + bias, quantised: (M, K), (N, K), (N,) -> (M, N)."""
    rows = [QUANTISE[compute_type](row) for row in x]
    weights = [QUANTISE_WEIGHT[compute_type](row) for row in weight]
    out = np.empty((len(x), len(weight)), np.float32)
    for m, row in enumerate(rows):
        for n, other in enumerate(weights):
            total = sum((a - row.zero) * b for a, b in zip(row.integers, other.integers, strict=True))
            assert abs(total) < 2**31
            out[m, n] = F(total) * (row.scale * other.scale) + bias[n]
    return out


# ---- channels --------------------------------------------------------------------------------------------------------


def lane_sum(values: Sequence[float]) -> float:
    """`contract.row_sum` in float64."""
    lanes = [0.0] * 16
    for k, value in enumerate(values):
        lanes[k % 16] += value
    return contract.fold_lanes(lanes, lambda a, b: a + b)


Moments = list[tuple[float, float]]  # mean and variance of each channel


def first_moments(weight: np.ndarray, bias: np.ndarray) -> Moments:
    return [(float(b), float(w) * float(w)) for w, b in zip(weight, bias, strict=True)]


def next_moments(
    moments: Moments, dense: np.ndarray, dense_bias: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> Moments:
    summed = []
    for (mean, variance), row, b in zip(moments, dense, dense_bias, strict=True):
        summed.append((mean + float(b), variance + lane_sum([float(w) * float(w) for w in row]) * 0.0625))
    D = len(summed)
    centre = lane_sum([mean for mean, _ in summed]) / D
    spread = lane_sum([mean * mean + variance for mean, variance in summed]) / D - centre * centre
    if spread <= 0:
        return first_moments(weight, bias)
    return [
        ((mean - centre) / math.sqrt(spread) * float(w) + float(b), variance / spread * (float(w) * float(w)))
        for (mean, variance), w, b in zip(summed, weight, bias, strict=True)
    ]


def channels(moments: Moments) -> np.ndarray:
    """A power of two for each channel: 2^p where the magnitude is from 2^(2p - 1) up to 2^(2p + 1)."""
    found = []
    for mean, variance in moments:
        magnitude = abs(mean) + 2.0 * math.sqrt(variance)
        p = 0 if magnitude == 0 else max(-16, min(16, math.frexp(magnitude)[1] // 2))
        found.append(F(2.0**p))
    return np.array(found)


# ---- the whole pass --------------------------------------------------------------------------------------------------


def encode(
    texts: Sequence[Sequence[int]],
    weights: Mapping[str, np.ndarray],
    config: Any,
    compute_type: str,
    token_type_ids: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """The vectors of ragged token ids, made of scalar functions."""
    lengths = [len(text) for text in texts]
    offsets = [0, *itertools.accumulate(lengths)]
    eps = config.layer_norm_eps

    def at(name: str) -> tuple[np.ndarray, np.ndarray]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def dense(x: np.ndarray, name: str, by: np.ndarray | None = None) -> np.ndarray:
        weight, bias = at(name)
        if by is not None and compute_type == "int8":
            x, weight = x / by, weight * by
        return linear(x, weight, bias, compute_type)

    word, position = (weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    no_types = np.zeros((1, config.hidden_size), np.float32)
    token_type = weights.get("embeddings.token_type_embeddings.weight", no_types)
    table = weights.get("encoder.relative_attention_bias.weight")
    ids = np.concatenate(texts)
    positions = np.concatenate([contract.positions(text, config.padding_idx) for text in texts])
    types = np.zeros_like(ids) if token_type_ids is None else np.concatenate(token_type_ids)
    rounded, norm = rounded_table(word), at("embeddings.LayerNorm")
    x = contract.embeddings(ids, positions, rounded, position, token_type, *norm, eps, types)
    moments = first_moments(*at("embeddings.LayerNorm"))
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layer.{number}."
        by = channels(moments)
        parts = [dense(x, f"{layer}attention.self.{name}", by) for name in ("query", "key", "value")]
        context = contract.attention(np.concatenate(parts, axis=1), offsets, config.num_attention_heads, table)
        attended = dense(context, f"{layer}attention.output.dense") + x
        attended = contract.layer_norm(attended, *at(f"{layer}attention.output.LayerNorm"), eps)
        moments = next_moments(
            moments, *at(f"{layer}attention.output.dense"), *at(f"{layer}attention.output.LayerNorm")
        )
        activation = contract.ACTIVATIONS[config.hidden_act]
        intermediate = activation(dense(attended, f"{layer}intermediate.dense", channels(moments)))
        x = dense(intermediate, f"{layer}output.dense") + attended
        x = contract.layer_norm(x, *at(f"{layer}output.LayerNorm"), eps)
        moments = next_moments(moments, *at(f"{layer}output.dense"), *at(f"{layer}output.LayerNorm"))
    vectors = contract.pooling(x, offsets, config.pooling_mode)
    return contract.normalize(vectors) if config.normalize else vectors

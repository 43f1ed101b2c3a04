"""The quantised model in NumPy: `minilm_np/reference.py` with integers in its dense layers. Read that file first.

A dense layer rounds the rows of x and the rows of its weight to integers times a scale per row, and multiplies the
integers exactly:

    x[m, k] = (q_x[m, k] - zero[m]) * scale_x[m],   weight[n, k] = q_w[n, k] * scale_w[n]
    y[m, n] = float32(sum of (q_x[m, k] - zero[m]) * q_w[n, k]) * (scale_x[m] * scale_w[n]) + bias[n]

The sum is computed in int64 here, where it cannot overflow; CONTRACT.md proves that int32 is enough for the kernels.
The word embeddings are integers times a scale per row too, to save memory. Everything else is float32 and the same
function as in `minilm_np/reference.py`: attention between its dense layers, softmax, GELU, LayerNorm, residuals,
pooling. The integers, the scales and the y of given x and weights are the engine's, bit for bit. The other functions'
last bits are NumPy's; CONTRACT.md says what the engine's are.

Letters: M rows of x, N outputs, K inputs; otherwise those of `minilm_np/reference.py`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilm_np import reference
from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Nested, Record, ignore, within
from minilm_np.reference_variants import relative_bias

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

COMPUTE_TYPES = ("int16", "int8")

SMALLEST = np.float32(2.0**-100)  # a row whose magnitude is not above it is quantised to zeros
LANES = 16


# ---- rows of integers ------------------------------------------------------------------------------------------------


class Quantised(NamedTuple):
    """Rows of integers, with the scale of each row and the integer that stands for 0 in it."""

    integers: Integers  # (M, K)
    scale: Floats  # (M,)
    zero: Integers  # (M,)


def row_sums(x: NDArray[Any]) -> NDArray[Any]:  # (M, K) -> (M,)
    """The sum of each row in the order of contract 1: 16 lanes, then pairs of lanes."""
    padded = np.zeros((len(x), -(-x.shape[1] // LANES) * LANES), x.dtype)
    padded[:, : x.shape[1]] = x
    lanes = np.zeros((len(x), LANES), x.dtype)
    for k in range(0, padded.shape[1], LANES):
        lanes = lanes + padded[:, k : k + LANES]
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def times(x: Floats, factor: Floats) -> Integers:  # (M, K), (M,) -> (M, K)
    """The exact product x[m, k] * factor[m], rounded to the nearest integer, ties to even. float64 holds it exactly."""
    return np.rint(x.astype(np.float64) * factor[:, None]).astype(np.int64)


def inverse(levels: float, extent: Floats) -> Floats:  # (M,) -> (M,)
    """levels / extent; 0 for rows of zeros, and of numbers so small that the quotient could be infinite."""
    return np.divide(np.float32(levels), extent, out=np.zeros_like(extent), where=extent > SMALLEST)


def quantise_16(x: Floats) -> Quantised:  # (M, K)
    """Integers from -32,767 to 32,767, the 2-norm of each row at most 46,340: any sum of products is below 2^31.

    The trap: the norm of the rounded row counts. `largest_norm` leaves room for the rounding.
    """
    highest = np.abs(x).max(axis=1)
    to_unit = inverse(1, highest)
    unit = x * to_unit[:, None]  # at most 1: its squares neither overflow nor vanish
    with np.errstate(divide="ignore"):
        limit = np.float32(largest_norm(x.shape[1])) / np.sqrt(row_sums(unit * unit))
    steps = np.minimum(limit, np.float32(32767))  # from 0 to the row's largest magnitude
    return Quantised(times(x, to_unit * steps), highest / steps, np.zeros(len(x), np.int64))


def largest_norm(n_inputs: int) -> int:
    """R: a row of 2-norm R, rounded to integers, has a 2-norm of at most 46,340."""
    return 46338 - math.isqrt(n_inputs)


def quantise_8(x: Floats) -> Quantised:  # (M, K)
    """Integers from 0 to 255 between the smallest and the largest element, with a zero point; for x."""
    high, low = np.maximum(x.max(axis=1), np.float32(0)), np.minimum(x.min(axis=1), np.float32(0))
    to_levels = inverse(255, high - low)
    zero = times(-low[:, None], to_levels)[:, 0]
    integers = np.minimum(times(x, to_levels) + zero[:, None], 255)  # 256 where both ends are rounded up
    return Quantised(integers, (high - low) / np.float32(255), zero)


def quantise_symmetric(weight: Floats, levels: int) -> Quantised:  # (N, K)
    """Integers from -levels to levels, the row's largest magnitude being one of the two ends, 0 for 0."""
    highest = np.abs(weight).max(axis=1)
    integers = times(weight, inverse(levels, highest))
    return Quantised(integers, highest / np.float32(levels), np.zeros(len(weight), np.int64))


def quantise_weight_8(weight: Floats) -> Quantised:  # (N, K)
    """Weights are symmetric around 0, and need no zero point."""
    return quantise_symmetric(weight, 127)


QUANTISE = {"int16": quantise_16, "int8": quantise_8}
QUANTISE_WEIGHT = {"int16": quantise_16, "int8": quantise_weight_8}


# ---- channels --------------------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """Rough mean and variance of each channel of a LayerNorm's output, over all texts."""

    mean: Doubles  # (D,)
    variance: Doubles  # (D,)


def first_moments(weight: Floats, bias: Floats) -> Moments:  # (D,), (D,)
    """Moments after the embeddings' LayerNorm, as if each channel were normalised by itself."""
    gain = weight.astype(np.float64)
    return Moments(bias.astype(np.float64), gain * gain)


def next_moments(
    moments: Moments, dense_weight: Floats, dense_bias: Floats, weight: Floats, bias: Floats
) -> Moments:  # (D,), (D, K), (D,), (D,), (D,)
    """Moments after a dense layer, whose inputs are taken as independent with mean 0 and mean square 1/16, the residual
    and a LayerNorm. In float64, which lets the powers of two below depend on no rounding that differs by machine."""
    wide = dense_weight.astype(np.float64)
    mean = moments.mean + dense_bias
    variance = moments.variance + row_sums(wide * wide) * 0.0625
    D = len(mean)
    centre = row_sums(mean[None])[0] / D
    spread = row_sums((mean * mean + variance)[None])[0] / D - centre * centre
    gain = weight.astype(np.float64)
    if spread <= 0:
        return first_moments(weight, bias)
    return Moments((mean - centre) / np.sqrt(spread) * gain + bias, variance / spread * (gain * gain))


def channels(moments: Moments) -> Floats:  # (D,) -> (D,)
    """The power of two nearest to the square root of each channel's usual magnitude, |mean| + 2 standard deviations.

    8 bits have few levels, and a channel that is always large takes them from the others. So x is divided by the
    channels, and the weight's columns are multiplied by them, which changes no product: both are exact.
    """
    magnitude = np.abs(moments.mean) + 2.0 * np.sqrt(moments.variance)
    _, exponent = np.frexp(magnitude)
    return np.ldexp(np.float32(1), np.clip(exponent >> 1, -16, 16))


# ---- the model -------------------------------------------------------------------------------------------------------


class IntegerWeight(NamedTuple):
    """The weight of a dense layer, its columns multiplied by the channels and then its rows quantised."""

    rows: Quantised  # (N, K)
    channels: Floats  # (K,)


def integer_linear(x: Quantised, weight: Quantised, bias: Floats) -> Floats:  # (M, K), (N, K), (N,) -> (M, N)
    """x W^T + b. The sum is exact; rounded once to float32; then times the product of the scales, plus the bias."""
    sums = (x.integers - x.zero[:, None]) @ weight.integers.T  # int64
    return sums.astype(np.float32) * (x.scale[:, None] * weight.scale) + bias


def linear(x: Floats, weight: IntegerWeight, bias: Floats, compute_type: str) -> Floats:  # (T, K), (N, K), (N,)
    """`reference.linear` with a quantised weight: quantise the rows of x, then `integer_linear`."""
    return integer_linear(QUANTISE[compute_type](x / weight.channels), weight.rows, bias)


def quantise_weight(weight: Floats, channels: Floats | None, compute_type: str) -> IntegerWeight:  # (N, K), (K,)
    """The weight of a dense layer; no channels: 1 for each."""
    by = np.ones(weight.shape[1], np.float32) if channels is None else channels
    return IntegerWeight(QUANTISE_WEIGHT[compute_type](weight * by), by)


def quantise_weights(weights: Nested, compute_type: str) -> Nested:
    """The nested weights of `reference.nest`, the dense layers' as `IntegerWeight`, the word table rounded."""

    def dense(module: Nested, by: Floats | None = None) -> Nested:
        return {"weight": quantise_weight(module["weight"], by, compute_type), "bias": module["bias"]}

    def usual(moments: Moments) -> Floats | None:
        return channels(moments) if compute_type == "int8" else None

    layers: dict[str, Nested] = {}
    moments = first_moments(**weights["embeddings"]["LayerNorm"])
    for number, layer in weights["encoder"]["layer"].items():
        attention, intermediate, output = layer["attention"], layer["intermediate"], layer["output"]
        before = usual(moments)
        moments = _after(moments, attention["output"])
        between = usual(moments)
        moments = _after(moments, output)
        layers[number] = {
            "attention": {
                "self": {name: dense(module, before) for name, module in attention["self"].items()},
                "output": attention["output"] | {"dense": dense(attention["output"]["dense"])},
            },
            "intermediate": {"dense": dense(intermediate["dense"], between)},
            "output": output | {"dense": dense(output["dense"])},
        }
    tables = weights["embeddings"]
    word = rounded_table(tables["word_embeddings"]["weight"])
    encoder = {**weights["encoder"], "layer": layers}
    return {"embeddings": {**tables, "word_embeddings": {"weight": word}}, "encoder": encoder}


def rounded_table(table: Floats) -> Floats:  # (V, D) -> (V, D)
    """The word embeddings that both types use: integers of 16 bits times a scale per row."""
    rows = quantise_symmetric(table, 32767)
    return rows.integers.astype(np.float32) * rows.scale[:, None]


def _after(moments: Moments, module: Nested) -> Moments:
    dense, norm = module["dense"], module["LayerNorm"]
    return next_moments(moments, dense["weight"], dense["bias"], norm["weight"], norm["bias"])


def self_attention(
    x: Floats, weights: Nested, H: int, compute_type: str, record: Record = ignore, bias: Floats | None = None
) -> Floats:  # (T, D) -> (T, D)
    """As in `minilm_np/reference.py`, of one text. Scores, softmax and context are float32."""

    def heads(name: str) -> Floats:
        y = record(name, linear(x, **weights[name], compute_type=compute_type))
        return y.reshape(len(y), H, -1).swapaxes(0, 1)  # (H, T, E)

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.swapaxes(-1, -2) * (1.0 / math.sqrt(query.shape[-1]))  # (H, T, T)
    if bias is not None:
        scores = scores + bias
    probs = record("probs", reference.softmax(record("scores", scores)))
    return record("context", (probs @ value).swapaxes(0, 1).reshape(x.shape))


def layer(
    x: Floats, weights: Nested, H: int, eps: float, compute_type: str, record: Record = ignore,
    hidden_act: str = "gelu", bias: Floats | None = None,
) -> Floats:  # (T, D) -> (T, D)  # fmt: skip
    """Attention, then feed-forward; post-norm."""
    attention, intermediate, output = weights["attention"], weights["intermediate"], weights["output"]

    context = self_attention(x, attention["self"], H, compute_type, within("attention.self", record), bias)
    dense = record("attention.output.dense", linear(context, **attention["output"]["dense"], compute_type=compute_type))
    norm = reference.layer_norm(dense + x, **attention["output"]["LayerNorm"], eps=eps)
    x = record("attention.output.LayerNorm", norm)

    dense = record("intermediate.dense", linear(x, **intermediate["dense"], compute_type=compute_type))  # (T, F)
    activation = record("intermediate.intermediate_act_fn", reference.ACTIVATIONS[hidden_act](dense))
    dense = record("output.dense", linear(activation, **output["dense"], compute_type=compute_type))  # (T, D)
    return record("output.LayerNorm", reference.layer_norm(dense + x, **output["LayerNorm"], eps=eps))


def forward(
    ids: NDArray[np.int64], weights: Nested, config: ModelConfig, compute_type: str, record: Record = ignore
) -> Floats:  # (T,) -> (D,)
    """Token ids of one text to its vector.

    weights: from `quantise_weights`. compute_type: "int16" or "int8". record: as in `minilm_np/reference.py`.
    """
    H, eps = config.num_attention_heads, config.layer_norm_eps
    scope = within("embeddings", record)
    x = reference.embeddings(ids, None, weights["embeddings"], eps, scope, config.padding_idx)
    table = weights["encoder"].get("relative_attention_bias")
    bias = None if table is None else relative_bias(table["weight"], len(ids))
    for number, layer_weights in weights["encoder"]["layer"].items():
        scope = within(f"encoder.layer.{number}", record)
        x = layer(x, layer_weights, H, eps, compute_type, scope, config.hidden_act, bias)
    vector = record("pooling", reference.pooling(x, None, config.pooling_mode))
    return record("normalize", reference.normalize(vector)) if config.normalize else vector

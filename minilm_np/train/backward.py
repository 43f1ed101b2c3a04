"""The gradient of every operation of `reference.py`, in its order and under its names. Read the two side by side.

`y = f(x, weight)` there is `d_x, d_weight = f_backward(d_y, x, weight)` here, where `d_x` is the gradient of the loss
by `x`, of the shape of `x`. Each is the chain rule once: what comes in is the gradient by f's output, what goes out is
the gradient by f's inputs. Functions that hold parameters return the gradients by them too, nested as the weights are.

The forward pass is `reference.py`'s own. Its `record` keeps every intermediate, and applies dropout: whatever `record`
returns is what the model goes on with. Dropout multiplies by a mask, and so does its gradient, so the same function
`drop(name, x)` serves both passes.

Letters and dtypes are those of `reference.py`. Texts of one length go together, `(..., T, D)`; there is no padding,
unless a mask says where.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minilm_np import reference
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array, Nested, Record, erf, ignore, nest, softmax, within
from minilm_np.train.dropout import Dropout, dropping


def erf_backward(d_y: Array, x: Array) -> Array:  # (...), (...) -> (...)
    """d_x = d_y 2/sqrt(pi) exp(-x^2)."""
    return d_y * (2.0 / math.sqrt(math.pi)) * np.exp(-x * x)


def gelu_backward(d_y: Array, x: Array) -> Array:  # (...), (...) -> (...)
    """y = x Phi(x), so d_x = d_y (Phi(x) + x Phi'(x)), with Phi(x) = (1 + erf(x / sqrt 2)) / 2."""
    scaled = x * (1.0 / math.sqrt(2.0))
    return 0.5 * (d_y * (1.0 + erf(scaled)) + scaled * erf_backward(d_y, scaled))


def softmax_backward(d_y: Array, y: Array) -> Array:  # (..., T), (..., T) -> (..., T)
    """d_x = y (d_y - sum(d_y y)) along the last axis: y_i by x_j is y_i (1 - y_i) if i = j, else -y_i y_j."""
    return y * (d_y - (d_y * y).sum(axis=-1, keepdims=True))


def layer_norm_backward(
    d_y: Array, x: Array, weight: Array, eps: float
) -> tuple[Array, Nested]:  # (..., D), (..., D), (D,) -> (..., D), of (D,)
    """y = n weight + bias with n = (x - mean) / deviation; d_n = d_y weight, then over D

    d_x = (d_n - mean(d_n) - n mean(d_n n)) / deviation: a shift of x, or (but for eps) a stretch, does not change n.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    n = centred / deviation
    d_n = d_y * weight
    d_x = (d_n - d_n.mean(axis=-1, keepdims=True) - n * (d_n * n).mean(axis=-1, keepdims=True)) / deviation
    return d_x, {"weight": _sum_rows(d_y * n), "bias": _sum_rows(d_y)}


def linear_backward(
    d_y: Array, x: Array, weight: Array
) -> tuple[Array, Nested]:  # (..., M), (..., K), (M, K) -> (..., K), of (M, K) and (M,)
    """y = x W^T + b, so d_x = d_y W, d_W = d_y^T x and d_b = the sum of d_y over all rows."""
    d_rows, rows = d_y.reshape(-1, d_y.shape[-1]), x.reshape(-1, x.shape[-1])
    d_x = (d_rows @ weight).reshape(x.shape)
    return d_x, {"weight": d_rows.T @ rows, "bias": _sum_rows(d_y)}


def embeddings_backward(
    d_x: Array, ids: Array, token_type_ids: Array | None, weights: Nested, saved: Nested, eps: float,
    drop: Record = ignore,
) -> Nested:  # (..., T, D), (..., T), (..., T) -> of (V, D), (P, D), ...  # fmt: skip
    """A row of a table gets the sum of the gradients of all tokens that it was looked up for. Ids have no gradient.

    Id 0 is a token like any other. (Torch's BertModel has padding_idx=0, which gives the row of a typed [PAD] none.)
    """
    T, D = d_x.shape[-2:]
    total = saved["word_embeddings"] + saved["position_embeddings"] + saved["token_type_embeddings"]
    d_total, d_norm = layer_norm_backward(drop("LayerNorm", d_x), total, weights["LayerNorm"]["weight"], eps)
    word, position, token_type = (
        np.zeros_like(weights[name]["weight"])
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    )
    np.add.at(word, ids, d_total)
    position[:T] = d_total.reshape(-1, T, D).sum(axis=0)
    np.add.at(token_type, np.zeros_like(ids) if token_type_ids is None else token_type_ids, d_total)
    return {
        "word_embeddings": {"weight": word},
        "position_embeddings": {"weight": position},
        "token_type_embeddings": {"weight": token_type},
        "LayerNorm": d_norm,
    }


def self_attention_backward(
    d_context: Array, x: Array, weights: Nested, saved: Nested, H: int, drop: Record = ignore
) -> tuple[Array, Nested]:  # (..., T, D), (..., T, D) -> (..., T, D), nested
    """context = probs value, so d_probs = d_context value^T and d_value = probs^T d_context; scores = query key^T /
    sqrt(E), so d_query = d_scores key / sqrt(E) and d_key = d_scores^T query / sqrt(E). x was read three times: add.

    Scores of the padding are -inf, their probabilities 0, and so are their gradients. So is that of key.bias, but for
    rounding: it adds the same to all scores of a query, which softmax does not see.
    """

    def heads(y: Array) -> Array:
        return y.reshape(*y.shape[:-1], H, -1).swapaxes(-2, -3)  # (..., H, T, E)

    query, key, value, d_context = (heads(y) for y in (saved["query"], saved["key"], saved["value"], d_context))
    d_value = saved["probs"].swapaxes(-1, -2) @ d_context  # (..., H, T, E); these are the probabilities after dropout
    d_probs = drop("probs", d_context @ value.swapaxes(-1, -2))  # (..., H, T, T)
    d_scores = softmax_backward(d_probs, softmax(saved["scores"])) * (1.0 / math.sqrt(query.shape[-1]))
    d_query = d_scores @ key
    d_key = d_scores.swapaxes(-1, -2) @ query

    d_x, gradients = np.zeros_like(x), {}
    for name, d_y in (("query", d_query), ("key", d_key), ("value", d_value)):
        d_rows = d_y.swapaxes(-2, -3).reshape(x.shape)  # (..., T, D)
        d_input, gradients[name] = linear_backward(d_rows, x, weights[name]["weight"])
        d_x += d_input
    return d_x, gradients


def layer_backward(
    d_x: Array, x: Array, weights: Nested, saved: Nested, H: int, eps: float, drop: Record = ignore
) -> tuple[Array, Nested]:  # (..., T, D), (..., T, D) -> (..., T, D), nested
    """Feed-forward, then attention. What is added to its input passes its gradient both ways: through it, and past it.

    d_x: by the layer's output. x: the layer's input.
    """
    attention, intermediate, output = weights["attention"], weights["intermediate"], weights["output"]
    middle = saved["attention"]["output"]["LayerNorm"]  # what feed-forward reads

    total = saved["output"]["dense"] + middle
    d_total, d_output_norm = layer_norm_backward(d_x, total, output["LayerNorm"]["weight"], eps)
    d_dense, activation = drop("output.dense", d_total), saved["intermediate"]["intermediate_act_fn"]
    d_activation, d_output = linear_backward(d_dense, activation, output["dense"]["weight"])  # (..., T, F)
    d_dense = gelu_backward(d_activation, saved["intermediate"]["dense"])
    d_middle, d_intermediate = linear_backward(d_dense, middle, intermediate["dense"]["weight"])  # (..., T, D)

    total = saved["attention"]["output"]["dense"] + x
    d_norm = d_middle + d_total
    d_total, d_attention_norm = layer_norm_backward(d_norm, total, attention["output"]["LayerNorm"]["weight"], eps)
    d_dense, inner = drop("attention.output.dense", d_total), saved["attention"]["self"]
    d_context, d_attention = linear_backward(d_dense, inner["context"], attention["output"]["dense"]["weight"])
    d_input, d_self = self_attention_backward(d_context, x, attention["self"], inner, H, within("attention.self", drop))
    return d_input + d_total, {
        "attention": {"self": d_self, "output": {"dense": d_attention, "LayerNorm": d_attention_norm}},
        "intermediate": {"dense": d_intermediate},
        "output": {"dense": d_output, "LayerNorm": d_output_norm},
    }


def encoder_backward(
    d_x: Array, ids: Array, token_type_ids: Array | None, weights: Nested, saved: Nested, config: ModelConfig,
    drop: Record = ignore,
) -> Nested:  # (..., T, D), (..., T), (..., T) -> nested  # fmt: skip
    """The layers from the last to the first, then the embeddings. A layer's input is the output of the one before."""
    H, eps = config.num_attention_heads, config.layer_norm_eps
    kept = saved["encoder"]["layer"]
    gradients: dict[str, Nested] = {}
    for number in reversed(range(config.num_hidden_layers)):
        x = kept[str(number - 1)]["output"]["LayerNorm"] if number else saved["embeddings"]["LayerNorm"]
        here, scope = str(number), f"encoder.layer.{number}"
        d_x, gradients[here] = layer_backward(
            d_x, x, weights["encoder"]["layer"][here], kept[here], H, eps, within(scope, drop)
        )
    d_embeddings = embeddings_backward(
        d_x, ids, token_type_ids, weights["embeddings"], saved["embeddings"], eps, within("embeddings", drop)
    )
    return {"embeddings": d_embeddings, "encoder": {"layer": gradients}}


def pooling_backward(
    d_vector: Array, x: Array, mask: Array | None, mode: str
) -> Array:  # (..., D), (..., T, D), (..., T) or None -> (..., T, D)
    """The mean gives each token d_vector / T; where only the first token was read, or the largest, that one takes all.

    Of equal largest values the first takes it.
    """
    d_x = np.zeros_like(x)
    if mode == "cls":
        d_x[..., 0, :] = d_vector
        return d_x
    keep = np.ones((*x.shape[:-1], 1), bool) if mask is None else mask[..., None]  # (..., T, 1)
    if mode == "max":
        largest = np.where(keep, x, -math.inf).argmax(axis=-2)[..., None, :]  # (..., 1, D)
        np.put_along_axis(d_x, largest, d_vector[..., None, :], axis=-2)
        return d_x
    count = keep.sum(axis=-2).astype(x.dtype)  # (..., 1); an int64 would promote float32
    share = d_vector / (count if mode == "mean" else np.sqrt(count))
    return np.where(keep, share[..., None, :], d_x)


def normalize_backward(d_y: Array, x: Array) -> Array:  # (..., D), (..., D) -> (..., D)
    """y = x / |x|, so d_x = (d_y - y (y . d_y)) / |x|: along x nothing changes.

    Where the length is taken as 1e-12 it does not depend on x, and d_x = d_y / 1e-12.
    """
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    y = np.where(length > 1e-12, x / np.maximum(length, 1e-12), 0.0)
    return (d_y - y * (y * d_y).sum(axis=-1, keepdims=True)) / np.maximum(length, 1e-12)


def forward_saving(
    ids: Array, weights: Nested, config: ModelConfig, *, mask: Array | None = None,
    token_type_ids: Array | None = None, dropout: Dropout | None = None, text_numbers: Sequence[int] = (0,),
) -> tuple[Array, Nested]:  # fmt: skip
    """`reference.forward`, under dropout, and every intermediate for `backward`: after dropout, nested by its name.

    ids, weights, config, mask, token_type_ids: as `reference.forward` has them.
    text_numbers: each text's number in the batch, which dropout's masks depend on.

    Returns (D,) or (B, D), and the intermediates. Raises InputValueError for dropout with a mask: which elements are
    dropped depends on the text's length, so texts go with others of their length.
    """
    if mask is not None and dropout is not None:
        raise InputValueError("dropout with a mask: expected texts of one length and no padding under dropout")
    drop = dropping(dropout, text_numbers, config.num_hidden_layers)
    saved: dict[str, Array] = {}

    def keep(name: str, x: Array) -> Array:
        saved[name] = drop(name, x)
        return saved[name]

    vector = reference.forward(ids, weights, config, mask=mask, token_type_ids=token_type_ids, record=keep)
    return vector, nest(saved, vector.dtype)


def backward(
    d_vector: Array, saved: Nested, ids: Array, weights: Nested, config: ModelConfig, *, mask: Array | None = None,
    token_type_ids: Array | None = None, dropout: Dropout | None = None, text_numbers: Sequence[int] = (0,),
) -> dict[str, Array]:  # fmt: skip
    """The gradient by every parameter, under the names of `parameter_shapes`, summed over the texts.

    d_vector: (D,) or (B, D), the gradient of the loss by what `forward_saving` returned.
    saved: the intermediates that it returned; the rest as it was given.
    """
    drop = dropping(dropout, text_numbers, config.num_hidden_layers)
    d_pooled = normalize_backward(d_vector, saved["pooling"]) if config.normalize else d_vector
    last = saved["encoder"]["layer"][str(config.num_hidden_layers - 1)]["output"]["LayerNorm"]
    d_x = pooling_backward(d_pooled, last, mask, config.pooling_mode)
    gradients = dict(flatten(encoder_backward(d_x, ids, token_type_ids, weights, saved, config, drop)))
    return {name: gradients[name] for name in parameter_shapes(config)}


def flatten(nested: Nested, scope: str = "") -> Iterator[tuple[str, Array]]:
    """{"a": {"b": {"weight": array}}} -> ("a.b.weight", array), ...: what `reference.nest` was made from."""
    for name, inner in nested.items():
        if isinstance(inner, Mapping):
            yield from flatten(inner, f"{scope}{name}.")
        else:
            yield f"{scope}{name}", inner


def _sum_rows(x: Array) -> Array:  # (..., D) -> (D,)
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


class ReferenceTrainingEngine:
    """A model in training, in NumPy: ragged texts to vectors, and the gradient by the vectors to that by the weights.

    weights: by the names of `parameter_shapes`, all float32, or all float64 to measure against. They are not copied: an
        optimiser changes them in place.
    chunk_tokens: tokens whose intermediates are kept at a time (at least one text): what bounds the memory.

    A text's number is its place in `texts`, so forward and backward must be given the same ones.
    Raises InputTypeError: the weights are of several dtypes.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array], chunk_tokens: int = 1024) -> None:
        self.config = config
        self.weights = {name: weights[name] for name in parameter_shapes(config)}
        dtypes = {array.dtype for array in self.weights.values()}
        if len(dtypes) > 1:
            raise InputTypeError(f"weights: expected one dtype, found {' and '.join(sorted(map(str, dtypes)))}")
        self._dtype = dtypes.pop()
        self._nested = nest(self.weights, self._dtype)  # the same arrays
        self._chunk_tokens = chunk_tokens

    def refresh(self) -> None:
        """To be called when weights were changed. Nothing to do here: they are used as they are."""

    def forward(
        self, texts: Sequence[Sequence[int]], dropout: Dropout | None = None
    ) -> Array:  # B texts of T tokens each, whatever T -> (B, D)
        """The vectors, scaled to unit length if the model does so. Nothing is kept for `backward`."""
        vectors = np.empty((len(texts), self.config.hidden_size), self._dtype)
        for numbers, ids in self._chunks(texts):
            drop = dropping(dropout, numbers, self.config.num_hidden_layers)
            vectors[numbers] = reference.forward(ids, self._nested, self.config, record=drop)
        return vectors

    def backward(
        self, texts: Sequence[Sequence[int]], d_vectors: Array, dropout: Dropout | None = None
    ) -> dict[str, Array]:  # B texts, (B, D) -> one array a parameter
        """The gradient by every parameter: chunk by chunk the forward pass once more, then back; the sum of all."""
        total = {name: np.zeros_like(array) for name, array in self.weights.items()}
        for numbers, ids in self._chunks(texts):
            _, saved = forward_saving(ids, self._nested, self.config, dropout=dropout, text_numbers=numbers)
            gradients = backward(
                d_vectors[numbers], saved, ids, self._nested, self.config, dropout=dropout, text_numbers=numbers
            )
            for name, gradient in gradients.items():
                total[name] += gradient
        return total

    def _chunks(self, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Array]]:
        """The texts' numbers and their ids, (B, T): texts of one length, as many as the limit of tokens allows."""
        by_length: dict[int, list[int]] = {}
        for number, text in enumerate(texts):
            by_length.setdefault(len(text), []).append(number)
        for length, numbers in sorted(by_length.items()):
            size = max(1, self._chunk_tokens // length)
            for start in range(0, len(numbers), size):
                part = numbers[start : start + size]
                yield part, np.array([texts[number] for number in part], np.int64)

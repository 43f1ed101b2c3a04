"""The backward pass: the gradient of each operation of `reference.py`, in the same order and under the same names.

Read the two files side by side. For `y = f(x, weight)` in `reference.py`, this file has

    d_x, d_weight = f_backward(d_y, x, weight)

where `d_x` is the gradient of the loss with respect to `x`, and has the shape of `x`. Each function applies the chain
rule once: it takes the gradient with respect to the output of f, and returns the gradients with respect to the inputs
of f. If f has parameters, their gradients are returned second, nested as the weights are.

The forward pass is that of `reference.py`. Here its argument `record` does two things. It stores each intermediate. And
it applies dropout, because the model continues with the array that `record` returns. Dropout multiplies an array by a
mask, and so multiplies its gradient by the same mask: one function `drop(name, x)` serves both passes.

Letters and dtypes are those of `reference.py`. Texts of equal length form one array `(..., T, D)`. There is no padding,
unless a mask marks it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minilm_np import reference
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig, require_plain_bert
from minilm_np.reference import Array, Nested, Record, erf, ignore, nest, softmax, within
from minilm_np.train.dropout import Dropout, dropping


def erf_backward(d_y: Array, x: Array) -> Array:  # (...), (...) -> (...)
    """Gradient of erf: d_x = d_y 2/sqrt(pi) exp(-x^2)."""
    return d_y * (2.0 / math.sqrt(math.pi)) * np.exp(-x * x)


def gelu_backward(d_y: Array, x: Array) -> Array:  # (...), (...) -> (...)
    """Gradient of y = x Phi(x), where Phi(x) = (1 + erf(x / sqrt 2)) / 2: d_x = d_y (Phi(x) + x Phi'(x))."""
    scaled = x * (1.0 / math.sqrt(2.0))
    return 0.5 * (d_y * (1.0 + erf(scaled)) + scaled * erf_backward(d_y, scaled))


def softmax_backward(d_y: Array, y: Array) -> Array:  # (..., T), (..., T) -> (..., T)
    """Gradient of y = softmax(x) along the last axis, from y alone: d_x = y (d_y - sum(d_y y)).

    The derivative of y_i with respect to x_j is y_i (1 - y_i) if i = j, and -y_i y_j otherwise.
    """
    return y * (d_y - (d_y * y).sum(axis=-1, keepdims=True))


def layer_norm_backward(
    d_y: Array, x: Array, weight: Array, eps: float
) -> tuple[Array, Nested]:  # (..., D), (..., D), (D,) -> (..., D), {weight (D,), bias (D,)}
    """Gradient of y = n weight + bias, where n = (x - mean(x)) / deviation and deviation = sqrt(var(x) + eps).

    With d_n = d_y weight, and means over D,

        d_x = (d_n - mean(d_n) - n mean(d_n n)) / deviation

    The subtractions remove two directions from d_n, because n does not change along them: adding a constant to x leaves
    n as it is, and so (apart from eps) does scaling x.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    n = centred / deviation
    d_n = d_y * weight
    d_x = (d_n - d_n.mean(axis=-1, keepdims=True) - n * (d_n * n).mean(axis=-1, keepdims=True)) / deviation
    return d_x, {"weight": _sum_rows(d_y * n), "bias": _sum_rows(d_y)}


def linear_backward(
    d_y: Array, x: Array, weight: Array
) -> tuple[Array, Nested]:  # (..., M), (..., K), (M, K) -> (..., K), {weight (M, K), bias (M,)}
    """Gradient of y = x W^T + b: d_x = d_y W, d_W = d_y^T x, and d_b is the sum of d_y over all rows."""
    d_rows, rows = d_y.reshape(-1, d_y.shape[-1]), x.reshape(-1, x.shape[-1])
    d_x = (d_rows @ weight).reshape(x.shape)
    return d_x, {"weight": d_rows.T @ rows, "bias": _sum_rows(d_y)}


def embeddings_backward(
    d_x: Array, ids: Array, token_type_ids: Array | None, weights: Nested, saved: Nested, eps: float,
    drop: Record = ignore,
) -> Nested:  # (..., T, D), (..., T), (..., T) -> {word (V, D), position (P, D), ...}  # fmt: skip
    """Gradient of the embeddings: each row of a table gets the sum of the gradients of all tokens that use it.

    Token ids have no gradient. Id 0 is a token like any other. (BertModel in torch has padding_idx=0, so there the row
    of a [PAD] that a text contains gets no gradient.)
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
) -> tuple[Array, Nested]:  # (..., T, D), (..., T, D) -> (..., T, D), {query, key, value}
    """Gradient of self-attention, with respect to its input x and to the parameters of query, key and value.

        context = probs value             d_probs = d_context value^T         d_value = probs^T d_context
        scores = query key^T / sqrt(E)    d_query = d_scores key / sqrt(E)    d_key = d_scores^T query / sqrt(E)

    x is the input of query, key and value, so d_x is the sum of three gradients.

    Scores of padding are -inf, so their probabilities and gradients are 0. The gradient of key.bias is 0 as well, up to
    rounding: the bias adds the same number to all scores of a query, which does not change their softmax.
    """

    def heads(y: Array) -> Array:
        return y.reshape(*y.shape[:-1], H, -1).swapaxes(-2, -3)  # (..., H, T, E)

    query, key, value, d_context = (heads(y) for y in (saved["query"], saved["key"], saved["value"], d_context))
    d_value = saved["probs"].swapaxes(-1, -2) @ d_context  # (..., H, T, E)
    d_probs = drop("probs", d_context @ value.swapaxes(-1, -2))  # (..., H, T, T)
    probs = softmax(saved["scores"])  # computed again, because saved["probs"] is after dropout
    d_scores = softmax_backward(d_probs, probs)
    d_product = d_scores * (1.0 / math.sqrt(query.shape[-1]))  # (..., H, T, T): of query key^T
    d_query = d_product @ key  # (..., H, T, E)
    d_key = d_product.swapaxes(-1, -2) @ query

    d_x, gradients = np.zeros_like(x), {}
    for name, d_y in (("query", d_query), ("key", d_key), ("value", d_value)):
        d_rows = d_y.swapaxes(-2, -3).reshape(x.shape)  # (..., T, D)
        d_input, gradients[name] = linear_backward(d_rows, x, weights[name]["weight"])
        d_x += d_input
    return d_x, gradients


def layer_backward(
    d_x: Array, x: Array, weights: Nested, saved: Nested, H: int, eps: float, drop: Record = ignore
) -> tuple[Array, Nested]:  # (..., T, D), (..., T, D) -> (..., T, D), nested like the layer's weights
    """Gradient of one layer: through feed-forward first, then through attention.

    A residual connection adds the input of a block to its output. The gradient of the sum therefore goes both ways:
    through the block, and directly to its input, where the two are added.

    d_x: with respect to the output of the layer. x: the input of the layer.
    """
    attention, intermediate, output = weights["attention"], weights["intermediate"], weights["output"]
    middle = saved["attention"]["output"]["LayerNorm"]  # the input of feed-forward

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
) -> Nested:  # (..., T, D), (..., T), (..., T) -> nested like the weights  # fmt: skip
    """Gradient of the encoder: the layers from last to first, then the embeddings.

    d_x: with respect to the output of the last layer. The input of a layer is the output of the layer before it.
    """
    H, eps = config.num_attention_heads, config.layer_norm_eps
    saved_layers = saved["encoder"]["layer"]
    gradients: dict[str, Nested] = {}
    for number in reversed(range(config.num_hidden_layers)):
        x = saved_layers[str(number - 1)]["output"]["LayerNorm"] if number else saved["embeddings"]["LayerNorm"]
        key, scope = str(number), f"encoder.layer.{number}"
        d_x, gradients[key] = layer_backward(
            d_x, x, weights["encoder"]["layer"][key], saved_layers[key], H, eps, within(scope, drop)
        )
    d_embeddings = embeddings_backward(
        d_x, ids, token_type_ids, weights["embeddings"], saved["embeddings"], eps, within("embeddings", drop)
    )
    return {"embeddings": d_embeddings, "encoder": {"layer": gradients}}


def pooling_backward(
    d_vector: Array, x: Array, mask: Array | None, mode: str
) -> Array:  # (..., D), (..., T, D), (..., T) or None -> (..., T, D)
    """Gradient of pooling, which distributes d_vector over the T tokens of a text. Padding gets 0.

    mean: each token gets d_vector / T. mean_sqrt_len_tokens: each token gets d_vector / sqrt(T). weightedmean: each
    token gets d_vector times its position over the sum of the positions. cls: the first token gets d_vector; lasttoken:
    the last one. max: each number of d_vector goes to the token with the largest value there, the first of equals.
    """
    d_x = np.zeros_like(x)
    if mode == "cls":
        d_x[..., 0, :] = d_vector
        return d_x
    keep = np.ones((*x.shape[:-1], 1), bool) if mask is None else mask[..., None]  # (..., T, 1)
    position = np.where(keep, np.arange(1, x.shape[-2] + 1)[:, None], 0)  # (..., T, 1)
    if mode == "lasttoken":
        return np.where(position == position.max(axis=-2, keepdims=True), d_vector[..., None, :], d_x)
    if mode == "weightedmean":
        weight = position.astype(x.dtype)
        return weight * (d_vector / weight.sum(axis=-2))[..., None, :]
    if mode == "max":
        largest = np.where(keep, x, -math.inf).argmax(axis=-2)[..., None, :]  # (..., 1, D)
        np.put_along_axis(d_x, largest, d_vector[..., None, :], axis=-2)
        return d_x
    count = keep.sum(axis=-2).astype(x.dtype)  # (..., 1); an int64 would promote float32
    share = d_vector / (count if mode == "mean" else np.sqrt(count))
    return np.where(keep, share[..., None, :], d_x)


def normalize_backward(d_y: Array, x: Array) -> Array:  # (..., D), (..., D) -> (..., D)
    """Gradient of y = x / |x|: d_x = (d_y - y (y . d_y)) / |x|, which has no component along x.

    Where |x| is below 1e-12, y is x / 1e-12, and d_x = d_y / 1e-12.
    """
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    y = np.where(length > 1e-12, x / np.maximum(length, 1e-12), 0.0)
    return (d_y - y * (y * d_y).sum(axis=-1, keepdims=True)) / np.maximum(length, 1e-12)


def forward_saving(
    ids: Array, weights: Nested, config: ModelConfig, *, mask: Array | None = None,
    token_type_ids: Array | None = None, dropout: Dropout | None = None, text_numbers: Sequence[int] = (0,),
) -> tuple[Array, Nested]:  # fmt: skip
    """Run `reference.forward` with dropout, and store every intermediate for `backward`.

    ids, weights, config, mask, token_type_ids: as for `reference.forward`.
    text_numbers: the number of each text in the batch. The masks of dropout depend on it.

    Returns the vectors, (D,) or (B, D), and the intermediates after dropout, nested by their names. Raises
    InputValueError for dropout with a padding mask: which elements are dropped depends on the length of the text, so
    all texts must have the same length.
    """
    if mask is not None and dropout is not None:
        raise InputValueError(
            "mask: expected None, found a mask together with dropout: give texts of equal length, without padding"
        )
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
    """Gradient of the loss with respect to every parameter, by the names of `parameter_shapes`, summed over the texts.

    d_vector: the gradient with respect to the vectors that `forward_saving` returned, (D,) or (B, D).
    saved: the intermediates that it returned. The other arguments: as given to it.
    """
    drop = dropping(dropout, text_numbers, config.num_hidden_layers)
    d_pooled = normalize_backward(d_vector, saved["pooling"]) if config.normalize else d_vector
    last = saved["encoder"]["layer"][str(config.num_hidden_layers - 1)]["output"]["LayerNorm"]
    d_x = pooling_backward(d_pooled, last, mask, config.pooling_mode)
    gradients = dict(flatten(encoder_backward(d_x, ids, token_type_ids, weights, saved, config, drop)))
    return {name: gradients[name] for name in parameter_shapes(config)}


def flatten(nested: Nested, scope: str = "") -> Iterator[tuple[str, Array]]:
    """Yield ("a.b.weight", array) for {"a": {"b": {"weight": array}}}, the inverse of `reference.nest`."""
    for name, inner in nested.items():
        if isinstance(inner, Mapping):
            yield from flatten(inner, f"{scope}{name}.")
        else:
            yield f"{scope}{name}", inner


def _sum_rows(x: Array) -> Array:  # (..., D) -> (D,)
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


class ReferenceTrainingEngine:
    """The training engine in NumPy: ragged texts to vectors, and gradients of vectors to gradients of weights.

    weights: an array for every name of `parameter_shapes`, all float32, or all float64 as the reference for measuring
        other engines. They are not copied, so an optimiser can update them in place.
    chunk_tokens: the largest number of tokens whose intermediates are in memory at once (but at least one text).

    The number of a text is its index in `texts`, so `backward` must be given the same texts as `forward`.
    Raises InputTypeError if the weights have different dtypes, ConfigError if the model is not BERT with GELU or has a
    Dense module.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array], chunk_tokens: int = 1024) -> None:
        require_plain_bert(config, "train")
        self.config = config
        self.weights = {name: weights[name] for name in parameter_shapes(config)}
        dtypes = {array.dtype for array in self.weights.values()}
        if len(dtypes) > 1:
            raise InputTypeError(f"weights: expected one dtype, found {' and '.join(sorted(map(str, dtypes)))}")
        self._dtype = dtypes.pop()
        self._nested = nest(self.weights, self._dtype)  # the same arrays
        self._chunk_tokens = chunk_tokens

    def refresh(self) -> None:
        """Call this after the weights have changed. It does nothing here, because the arrays are used directly."""

    def forward(
        self, texts: Sequence[Sequence[int]], dropout: Dropout | None = None
    ) -> Array:  # B texts of any lengths -> (B, D)
        """The vectors of the texts, of unit length if the model normalises. Nothing is stored for `backward`."""
        vectors = np.empty((len(texts), self.config.hidden_size), self._dtype)
        for numbers, ids in self._chunks(texts):
            drop = dropping(dropout, numbers, self.config.num_hidden_layers)
            vectors[numbers] = reference.forward(ids, self._nested, self.config, record=drop)
        return vectors

    def backward(
        self, texts: Sequence[Sequence[int]], d_vectors: Array, dropout: Dropout | None = None
    ) -> dict[str, Array]:  # B texts, (B, D) -> one array per parameter
        """Gradient of every parameter, summed over chunks. Each chunk is run forward once more, then backward."""
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
        """Yield the numbers and the ids (B, T) of texts of equal length, as many as `chunk_tokens` allows."""
        by_length: dict[int, list[int]] = {}
        for number, text in enumerate(texts):
            by_length.setdefault(len(text), []).append(number)
        for length, numbers in sorted(by_length.items()):
            size = max(1, self._chunk_tokens // length)
            for start in range(0, len(numbers), size):
                part = numbers[start : start + size]
                yield part, np.array([texts[number] for number in part], np.int64)

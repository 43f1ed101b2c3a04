"""The whole model in NumPy: a BERT encoder, pooling, normalisation. Read it top down: small functions come first.

The other encoders of the family are the same but for a few lines, which name them: RoBERTa and XLM-R count positions
from another number, DistilBERT and MPNet have no token types, MPNet has a bias of the attention scores. The functions
that only they have are in `reference_variants.py`.

Letters, used in the whole package:

    B texts       T tokens of one text     N tokens of a ragged batch     D hidden size (384)
    H heads (12)  E = D / H (32)           F feed-forward size (1536)     L layers (6)
    V vocabulary  P positions              G numbers of a vector after a Dense module (D in this model: it has none)

A function takes `(..., T, D)` with any leading axes, so the same lines compute one text `(T, D)` and a padded batch
`(B, T, D)`. It keeps the dtype of its arguments: float32 as published, or float64 as the ground truth. For that reason
constants are Python floats: a NumPy float64 scalar would promote float32 arrays. Weights are nested like the names of
the checkpoint: `layer["attention"]["self"]["query"]` is `encoder.layer.0.attention.self.query`, so a layer needs no
class. Every named step calls `record(name, array)` with Hugging Face's name. With your own `record` you can see every
intermediate, or compare it.

Source: Devlin et al., BERT (2018), sections 3 and A.2; Vaswani et al., Attention Is All You Need (2017), section 3;
Reimers and Gurevych, Sentence-BERT (2019), section 3. Upstream: BertModel of transformers, Pooling and Normalize of
sentence-transformers; DistilBertModel, RobertaModel, XLMRobertaModel, MPNetModel.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference_variants import gelu_tanh, relative_bias, relu, silu

Array = NDArray[Any]
Nested = Mapping[str, Any]
Record = Callable[[str, Array], Array]


def ignore(name: str, x: Array) -> Array:
    """The default `record`: it returns the array and stores nothing."""
    return x


# exp(x^2) erfc(x) for 0 <= x <= 6 as a Chebyshev series in s = (2x - 3) / (x + 3), which runs from -1 to 1. With all
# terms the error of erf is 3e-16, with the first nine it is 3e-8. Computed by `python -m benchmarks.fit_erf`.
ERFC_SERIES = (
    0.4310634054820028, -0.431776884537462, 0.11240012030838864, -0.02160270111941227, 0.0029235483262740457,
    -0.00023395398679905218, 1.3120228285000757e-06, 1.8388769572666934e-06, -1.036155682341427e-07,
    -1.551214429893936e-08, 1.3916389949762706e-09, 1.8185219119899412e-10, -1.5415890940980576e-11,
    -2.7673211334541896e-12, 1.1975959941836804e-13, 4.5295397939018555e-14, 6.097230979323003e-16,
    -6.665184538494992e-16, -5.62727762442817e-17,
)  # fmt: skip


def erf(x: Array) -> Array:  # (...) -> (...)
    """Gauss error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x. NumPy has none.

    erf(x) = sign(x) (1 - exp(-x^2) series(|x|)). Clenshaw's recurrence sums the series. For x >= 6, erf is 1.
    """
    terms = ERFC_SERIES if x.dtype == np.float64 else ERFC_SERIES[:9]
    size = np.minimum(np.abs(x), 6.0)
    s2 = 2.0 * (2.0 * size - 3.0) / (size + 3.0)
    b1, b2 = np.zeros_like(x), np.zeros_like(x)
    for term in reversed(terms[1:]):
        b1, b2 = s2 * b1 - b2 + term, b1
    return np.copysign(1.0 - np.exp(-size * size) * (0.5 * s2 * b1 - b2 + terms[0]), x)


def gelu(x: Array) -> Array:  # (...) -> (...)
    """Gaussian error linear unit, x Phi(x). The published model uses erf; its tanh approximation differs by 5e-4."""
    return 0.5 * x * (1.0 + erf(x * (1.0 / math.sqrt(2.0))))


# `hidden_act` of config.json -> the activation of the feed-forward part
ACTIVATIONS = {"gelu": gelu, "gelu_new": gelu_tanh, "gelu_pytorch_tanh": gelu_tanh, "relu": relu, "silu": silu}


def softmax(x: Array) -> Array:  # (..., T) -> (..., T)
    """exp(x) / sum exp(x) along the last axis. The maximum is subtracted first: exp(89) is infinite in float32."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:  # (..., D), (D,), (D,) -> (..., D)
    """(x - mean) / sqrt(var + eps) * weight + bias, over D. The variance divides by D; eps is inside the root."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def linear(x: Array, weight: Array, bias: Array | float) -> Array:  # (..., K), (M, K), (M,) -> (..., M)
    """x W^T + b. Weights keep the checkpoint's orientation, (out, in). One matrix product covers all leading axes."""
    y = x.reshape(-1, x.shape[-1]) @ weight.T + bias
    return y.reshape(*x.shape[:-1], -1)


def positions(ids: Array, padding_idx: int | None) -> Array:  # (..., T) -> (T,) or (..., T)
    """The row of the position table for each token: 0, 1, 2, ...

    RoBERTa and MPNet count from padding_idx + 1. A token with the id padding_idx is not counted and has that row.
    """
    if padding_idx is None:
        return np.arange(ids.shape[-1])
    counted = ids != padding_idx
    return padding_idx + counted.cumsum(axis=-1) * counted


def embeddings(
    ids: Array, token_type_ids: Array | None, weights: Nested, eps: float, record: Record = ignore,
    padding_idx: int | None = None,
) -> Array:  # (..., T), (..., T) -> (..., T, D)  # fmt: skip
    """LayerNorm(word + position + token type). All tokens of a single text have type 0."""
    word = record("word_embeddings", weights["word_embeddings"]["weight"][ids])  # (..., T, D)
    rows = positions(ids, padding_idx)
    position = record("position_embeddings", weights["position_embeddings"]["weight"][rows])  # (T, D) or (..., T, D)
    token_type: Array | float = 0.0  # DistilBERT and MPNet have no token types
    if "token_type_embeddings" in weights:
        types = np.zeros_like(ids) if token_type_ids is None else token_type_ids
        token_type = record("token_type_embeddings", weights["token_type_embeddings"]["weight"][types])  # (..., T, D)
    return record("LayerNorm", layer_norm(word + position + token_type, **weights["LayerNorm"], eps=eps))


def self_attention(
    x: Array, mask: Array | None, weights: Nested, H: int, record: Record = ignore, bias: Array | None = None
) -> Array:  # (..., T, D), (..., T) or None, (H, T, T) or None -> (..., T, D)
    """Each token's context: the values of all tokens, weighted by softmax(query . key / sqrt(E)), in H heads.

    The mask is True for tokens and False for padding, which gets probability 0. The bias is added to the scores.
    """

    def heads(y: Array) -> Array:
        return y.reshape(*y.shape[:-1], H, -1).swapaxes(-2, -3)  # (..., H, T, E)

    query = heads(record("query", linear(x, **weights["query"])))
    key = heads(record("key", linear(x, **weights["key"])))
    value = heads(record("value", linear(x, **weights["value"])))
    scores = query @ key.swapaxes(-1, -2) * (1.0 / math.sqrt(query.shape[-1]))  # (..., H, T, T): query by key
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = np.where(mask[..., None, None, :], scores, -math.inf)
    probs = record("probs", softmax(record("scores", scores)))
    context = (probs @ value).swapaxes(-2, -3)  # (..., T, H, E)
    return record("context", context.reshape(x.shape))


def layer(
    x: Array, mask: Array | None, weights: Nested, H: int, eps: float, record: Record = ignore,
    hidden_act: str = "gelu", bias: Array | None = None,
) -> Array:  # (..., T, D) -> (..., T, D)  # fmt: skip
    """Attention, then feed-forward. Post-norm: each is added to its input, and the *sum* is normalised."""
    attention, intermediate, output = weights["attention"], weights["intermediate"], weights["output"]

    context = self_attention(x, mask, attention["self"], H, within("attention.self", record), bias)
    dense = record("attention.output.dense", linear(context, **attention["output"]["dense"]))
    norm = layer_norm(dense + x, **attention["output"]["LayerNorm"], eps=eps)
    x = record("attention.output.LayerNorm", norm)

    dense = record("intermediate.dense", linear(x, **intermediate["dense"]))  # (..., T, F)
    # `gelu` by its name: `explain` shows its lines for this step, and `diagnose` replaces it
    activation = gelu(dense) if hidden_act == "gelu" else ACTIVATIONS[hidden_act](dense)
    activation = record("intermediate.intermediate_act_fn", activation)
    dense = record("output.dense", linear(activation, **output["dense"]))  # (..., T, D)
    return record("output.LayerNorm", layer_norm(dense + x, **output["LayerNorm"], eps=eps))


def encoder(
    ids: Array, mask: Array | None, token_type_ids: Array | None, weights: Nested, config: ModelConfig,
    record: Record = ignore,
) -> Array:  # (..., T), (..., T), (..., T) -> (..., T, D)  # fmt: skip
    """Token vectors of token ids: the embeddings, then L layers."""
    H, eps = config.num_attention_heads, config.layer_norm_eps
    x = embeddings(
        ids, token_type_ids, weights["embeddings"], eps, within("embeddings", record), config.padding_idx
    )  # fmt: skip
    table = weights["encoder"].get("relative_attention_bias")
    bias = None if table is None else relative_bias(table["weight"], ids.shape[-1])
    for number, layer_weights in weights["encoder"]["layer"].items():
        scope = within(f"encoder.layer.{number}", record)
        x = layer(x, mask, layer_weights, H, eps, scope, config.hidden_act, bias)
    return x


def pooling(
    x: Array, mask: Array | None, mode: str, start: int = 0
) -> Array:  # (..., T, D), (..., T) or None -> (..., D)
    """One vector of a text's token vectors: the mean over tokens (not padding), the first ([CLS]), or the maximum.

    weightedmean: a mean in which each token's weight is its position, counted from 1. lasttoken: the last token.
    start: the first token that is pooled; the tokens of a prompt before it are left out, and the positions stay.
    """
    if mode == "cls":
        return x[..., start, :]
    keep = np.ones((*x.shape[:-1], 1), bool) if mask is None else mask[..., None]  # (..., T, 1)
    position = np.arange(1, x.shape[-2] + 1)[:, None]  # (T, 1)
    if mode == "lasttoken":
        last = np.where(keep, position, 0).argmax(axis=-2, keepdims=True)  # (..., 1, 1)
        return np.take_along_axis(x, last, axis=-2)[..., 0, :]
    keep = keep & (position > start)
    if mode == "max":
        return np.where(keep, x, -math.inf).max(axis=-2)
    kept, weight = np.where(keep, x, 0.0), keep
    if mode == "weightedmean":
        weight = np.where(keep, position, 0)  # (..., T, 1)
        kept = kept * weight.astype(x.dtype)
    count = weight.sum(axis=-2).astype(x.dtype)  # (..., 1); an int64 would promote float32
    return kept.sum(axis=-2) / (np.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)


def dense(x: Array, weights: Nested, activation: str) -> Array:  # (..., D) -> (..., G)
    """tanh(x W^T + b), or without tanh: a Dense module, which some models have after the pooling. b may be missing."""
    y = linear(x, weights["weight"], weights.get("bias", 0.0))
    return np.tanh(y) if activation == "tanh" else y


def normalize(x: Array) -> Array:  # (..., D) -> (..., D)
    """x / |x|: unit length. The divisor is at least 1e-12, as in torch, so a zero vector stays zero."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), 1e-12)


def forward(
    ids: Array, weights: Nested, config: ModelConfig, *,
    mask: Array | None = None, token_type_ids: Array | None = None, record: Record = ignore,
) -> Array:  # fmt: skip
    """Sentence vectors of token ids: encoder, pooling and, if the model has them, Dense and normalisation.

    ids: integers, (T,) for one text or (B, T) for several; padding comes after the tokens, and mask marks it.
    weights: from `nest`; their dtype is the dtype of every result.
    mask: bool, in the shape of ids, True for tokens, at least one per text; None if there is no padding.
    token_type_ids: in the shape of ids; None for all 0.

    Returns (D,) or (B, D).
    """
    x = encoder(ids, mask, token_type_ids, weights, config, record)
    vector = record("pooling", pooling(x, mask, config.pooling_mode))
    if config.dense_size is not None:
        vector = record("dense", dense(vector, weights["dense"]["linear"], config.dense_activation))
    return record("normalize", normalize(vector)) if config.normalize else vector


def encode_ragged(
    texts: Sequence[Sequence[int] | Array], weights: Nested, config: ModelConfig,
    token_type_ids: Sequence[Sequence[int] | Array] | None = None,
) -> Array:  # B texts of any lengths T -> (B, D)  # fmt: skip
    """Sentence vectors of texts of any lengths. Texts of one length are one batch, so nothing is padded.

    token_type_ids: as the texts; None for all 0.
    """
    lengths = np.array([len(ids) for ids in texts], dtype=np.int64)
    dtype = weights["embeddings"]["word_embeddings"]["weight"].dtype
    vectors = np.empty((len(texts), config.vector_size), dtype)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length).tolist()
        ids = np.array([texts[row] for row in rows], dtype=np.int64)
        types = None if token_type_ids is None else np.array([token_type_ids[row] for row in rows], dtype=np.int64)
        vectors[rows] = forward(ids, weights, config, token_type_ids=types)
    return vectors


def pooler(x: Array, weights: Nested, record: Record = ignore) -> Array:  # (..., D) -> (..., D)
    """tanh(W x + b) of the first token's vector, [CLS]. Cross-encoders use it; sentence vectors do not."""
    return record("activation", np.tanh(record("dense", linear(x, **weights["dense"]))))


def classify(
    ids: Array, token_type_ids: Array | None, weights: Nested, config: ModelConfig, *,
    mask: Array | None = None, record: Record = ignore,
) -> Array:  # (..., T), (..., T) -> (..., C)  # fmt: skip
    """A cross-encoder: C logits of a pair of texts, [CLS] a [SEP] b [SEP], which pass through the encoder together.

    token_type_ids: 0 up to the first [SEP], 1 after it. weights: also those of `pooler` and `classifier`.
    The other parameters are those of `forward`. Upstream: BertForSequenceClassification of transformers.
    """
    x = encoder(ids, mask, token_type_ids, weights, config, record)
    pooled = pooler(x[..., 0, :], weights["pooler"], within("pooler", record))
    return record("classifier", linear(pooled, **weights["classifier"]))


def nest(weights: Mapping[str, Array], dtype: DTypeLike = np.float32) -> Nested:
    """{"a.b.weight": array} -> {"a": {"b": {"weight": array}}}, in this dtype (without a copy if it has it)."""
    nested: dict[str, Any] = {}
    for name, array in weights.items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = array.astype(dtype, copy=False)
    return nested


def within(scope: str, record: Record) -> Record:
    """A `record` that adds the prefix `scope.` to each name."""
    return record if record is ignore else lambda name, x: record(f"{scope}.{name}", x)

"""Known ways in which another implementation differs from the model: each a small named variation of `reference.py`.

None is a copy of the reference. A variation changes what goes into it (the token ids, the padding, the masks, the
weights, the config), or replaces one of its functions in a private second instance of the module; the module that
everybody imports is never touched, so variations may run in many threads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.verify.variations import LONGEST, Variation


@dataclass(frozen=True)
class Deviation:
    """One way to differ: of two of one kind no pair is made."""

    name: str
    kind: str
    what: str  # one sentence: what is done, and who is known to do it
    remedy: str
    vary: Callable[[Variation], Variation]
    or_so: Callable[[Variation], Variation] | None = None  # the same as others may do it, where that is not laid down


def deviations(config: ModelConfig) -> list[Deviation]:
    """All that are known of a model with this config; what the model itself does is none."""
    return [
        *_activations(),
        *_truncations(config),
        *_paddings(config),
        *_poolings(config),
        *_texts(),
        *_encoders(config),
        *_weights(),
    ]


# What the other side computes in place of the error function


def gelu_tanh(x: Array) -> Array:  # (...) -> (...)
    """GELU's approximation by tanh, with the constants of Hendrycks and Gimpel (2016), section 2."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def gelu_tanh_table(x: Array) -> Array:  # (...) -> (...)
    """`gelu_tanh` of x rounded to float16, rounded to float16; from -10 and 10 on 0 and x."""
    half = np.clip(x, -10.0, 10.0).astype(np.float16).astype(np.float32)
    rounded = gelu_tanh(half).astype(np.float16).astype(x.dtype)
    return np.where(x <= -10.0, 0.0, np.where(x >= 10.0, x, rounded)).astype(x.dtype)


def _activations() -> list[Deviation]:
    remedy = "Set the activation to the exact GELU with erf ('gelu' in config.json, not 'gelu_new' or 'gelu_tanh')."

    def with_gelu(gelu: Callable[[Array], Array]) -> Callable[[Variation], Variation]:
        return lambda v: replace(v, functions={**v.functions, "gelu": lambda model: gelu})

    return [
        Deviation(
            "tanh GELU", "activation",
            "GELU is approximated by tanh, as llama.cpp and one backend of text-embeddings-inference do.",
            remedy, with_gelu(gelu_tanh),
        ),
        Deviation(
            "tanh GELU from a float16 table", "activation",
            "GELU is approximated by tanh and looked up in a table of float16 numbers, as llama.cpp does on a CPU.",
            remedy, with_gelu(gelu_tanh_table),
        ),
    ]  # fmt: skip


# Where texts are cut, and what shorter ones are filled up with


def _truncations(config: ModelConfig) -> list[Deviation]:
    own, P = config.max_seq_length, config.max_position_embeddings
    limits = {min(limit, P) for limit in (32, 64, 128, 256, 384, 510, 512, own - 2, own + 2) if limit > 2} - {own}
    return [
        Deviation(
            f"truncation at {limit}", "truncation",
            f"Texts are cut at {limit} tokens and not at {own}; {_WHOSE_LIMIT.get(limit, 'a limit of its own')}.",
            f"Set the maximal length to {own} tokens, [CLS] and [SEP] included.",
            lambda v, limit=limit: replace(v, config=replace(v.config, max_seq_length=limit)),  # type: ignore[misc]
        )
        for limit in sorted(limits)
    ]  # fmt: skip


_WHOSE_LIMIT = {
    128: "the tokenizer.json of all-MiniLM-L6-v2 says so to those who load it by itself",
    512: "all positions that BERT has are used, as transformers and many servers do by default",
    510: "all positions that BERT has less two for [CLS] and [SEP]",
}


def _paddings(config: ModelConfig) -> list[Deviation]:
    found = []
    lengths = {min(length, config.max_position_embeddings) for length in (128, 256)}
    for pad_to in (*sorted(lengths), LONGEST):
        length = "the longest text" if pad_to == LONGEST else str(pad_to)
        for words, done, remedy, attends, pools in (
            ("counted in the mean", "is counted in pooling", "Give the attention mask to the pooling.", False, True),
            ("attended to", "is attended to", "Give the attention mask to the encoder.", True, False),
            ("attended to and counted", "is attended to and counted in pooling", "Give the attention mask to the "
             "encoder and to the pooling.", True, True),
        ):  # fmt: skip
            found.append(
                Deviation(
                    f"padding to {length} {words}", "padding",
                    f"Texts are padded to {length}, and the padding {done}: an attention mask is ignored, as "
                    "hand-written pooling and exported graphs without that input do.",
                    remedy,
                    lambda v, pad_to=pad_to, attends=attends, pools=pools: replace(  # type: ignore[misc]
                        v, pad_to=pad_to, attends_to_padding=attends, pools_padding=pools
                    ),
                )
            )  # fmt: skip
    return found


# From token vectors to one vector


def _poolings(config: ModelConfig) -> list[Deviation]:
    whose = {
        "mean": "the mean of all tokens, which most models want, is taken",
        "cls": "the vector of [CLS] is taken, as servers do that know no pooling config",
        "max": "the maximum of all tokens is taken",
    }
    names = {"mean": "mean pooling", "cls": "CLS pooling", "max": "max pooling"}
    found = [
        Deviation(
            names[mode], "pooling", f"Of the token vectors {whose[mode]}.",
            f"Set the pooling to {config.pooling_mode!r}, as 1_Pooling/config.json says.",
            lambda v, mode=mode: replace(v, config=replace(v.config, pooling_mode=mode)),  # type: ignore[misc]
        )
        for mode in names
        if mode != config.pooling_mode
    ]  # fmt: skip
    normalize = not config.normalize
    found.append(
        Deviation(
            "normalisation" if normalize else "no normalisation", "normalisation",
            "Vectors are scaled to unit length, which the model does not do." if normalize else
            "Vectors are not scaled to unit length, as transformers' BertModel and pooling alone give them.",
            "Leave the normalisation out." if normalize else "Divide each vector by its length.",
            lambda v: replace(v, config=replace(v.config, normalize=normalize)),
        )
    )  # fmt: skip
    found.append(
        Deviation(
            "special tokens left out of the mean", "special tokens",
            "The vectors of [CLS] and [SEP] do not count in pooling, as where a mask of special tokens is used.",
            "Pool over every token that the attention mask has, [CLS] and [SEP] too.",
            lambda v: replace(v, pools_special_tokens=False),
        )
    )  # fmt: skip
    return found


# From text to token ids


def _texts() -> list[Deviation]:
    def normalizing(**options: bool) -> Callable[[Variation], Variation]:
        return lambda v: replace(v, normalizer=tuple(options.items()))

    remedy = "Take the tokenizer.json of the model, or BERT's WordPiece with do_lower_case=True."
    return [
        Deviation(
            "special tokens left out of the input", "special tokens",
            "Texts go in without [CLS] and [SEP], as with add_special_tokens=False.",
            "Put [CLS] before and [SEP] after each text.",
            lambda v: replace(v, special_tokens=False),
        ),
        Deviation(
            "no lower-casing", "text",
            "Capitals stay, and accents with them, as with do_lower_case=False.", remedy, normalizing(lowercase=False),
        ),
        Deviation(
            "no lower-casing, accents stripped", "text",
            "Capitals stay, accents do not.", remedy, normalizing(lowercase=False, strip_accents=True),
        ),
        Deviation(
            "accents not stripped", "text",
            "Accents stay, as in hand-written tokenizers that only lower-case.",
            "Strip accents after lower-casing: Unicode's NFD form without its combining marks.",
            normalizing(strip_accents=False),
        ),
    ]  # fmt: skip


# In the encoder


def pre_norm(model: Any) -> Callable[..., Array]:
    """`layer` of this instance of the reference with each LayerNorm before its block, and not after the sum."""

    def layer(x: Array, mask: Array | None, weights: Any, H: int, eps: float, record: Any = None) -> Array:
        attention, intermediate, output = weights["attention"], weights["intermediate"], weights["output"]
        norm = model.layer_norm(x, **attention["output"]["LayerNorm"], eps=eps)
        context = model.self_attention(norm, mask, attention["self"], H)
        x = x + model.linear(context, **attention["output"]["dense"])
        norm = model.layer_norm(x, **output["LayerNorm"], eps=eps)
        return x + model.linear(model.gelu(model.linear(norm, **intermediate["dense"])), **output["dense"])

    return layer


def _encoders(config: ModelConfig) -> list[Deviation]:
    whose = {1e-12: "BERT's own", 1e-6: "Flax's default", 1e-5: "PyTorch's default", 1e-3: "Keras's default"}
    found = [
        Deviation(
            f"LayerNorm eps {eps:.0e}".replace("e-0", "e-"), "eps",
            f"LayerNorm adds {eps:g} to the variance and not {config.layer_norm_eps:g}: that is {whose[eps]}.",
            f"Set LayerNorm's eps to {config.layer_norm_eps:g}.",
            lambda v, eps=eps: replace(v, config=replace(v.config, layer_norm_eps=eps)),  # type: ignore[misc]
        )
        for eps in whose
        if eps != config.layer_norm_eps
    ]  # fmt: skip

    def changing(part: str, change: Callable[[Array], Array]) -> Callable[[Variation], Variation]:
        def weights(name: str, array: Array) -> Array:
            return change(array) if name == f"embeddings.{part}.weight" else array

        return lambda v: replace(v, weights=(*v.weights, weights))

    def two_later(table: Array) -> Array:
        return table[np.minimum(np.arange(len(table)) + 2, len(table) - 1)]

    return [
        *found,
        Deviation(
            "no token-type embedding", "token types",
            "The embedding of token type 0 is not added, as in ports that take it for optional.",
            "Add the first row of token_type_embeddings to every token.",
            changing("token_type_embeddings", np.zeros_like),
        ),
        Deviation(
            "positions off by two", "positions",
            "Positions count from 2 and not from 0, as RoBERTa's do; beyond the last one it stays the last one.",
            "Count positions from 0.", changing("position_embeddings", two_later),
        ),
        Deviation(
            "pre-norm", "order of LayerNorm",
            "LayerNorm stands before attention and feed-forward, as in GPT-2, and not after each sum.",
            "Normalise the sum of each block's input and output.",
            lambda v: replace(v, functions={**v.functions, "layer": pre_norm}),
        ),
    ]  # fmt: skip


# In the weights


def rounded_to_bfloat16(array: Array) -> Array:
    """Float32 numbers to the nearest that have 8 bits of mantissa, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def rounded_to_int8(matrix: Array, axis: int | None, divides: bool = True) -> Array:  # (M, K) -> (M, K)
    """Symmetric: round(w / scale) * scale, ties to even, with scale = max|w| / 127 of all or of each row.

    Some multiply by 1 / scale, which rounds some of what lies halfway the other way.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = np.maximum(largest, np.float32(1e-30)) / np.float32(127.0)
    return np.rint(matrix / scale if divides else matrix * (np.float32(1.0) / scale)) * scale


def _weights() -> list[Deviation]:
    def rounding(change: Callable[[Array], Array], dense_only: bool = False) -> Callable[[Variation], Variation]:
        def weights(name: str, array: Array) -> Array:
            return change(array) if not dense_only or (name.startswith("encoder.") and array.ndim == 2) else array

        return lambda v: replace(v, weights=(*v.weights, weights))

    remedy = "Take the float32 weights; or keep these, if the error is small enough for what the vectors are for."
    return [
        Deviation(
            "weights rounded to float16", "weights",
            "Weights are rounded to float16, as in F16 files (GGUF, ONNX, safetensors); sums stay float32.",
            remedy, rounding(lambda array: array.astype(np.float16).astype(np.float32)),
        ),
        Deviation(
            "weights rounded to bfloat16", "weights",
            "Weights are rounded to bfloat16, as in BF16 files; sums stay float32.",
            remedy, rounding(rounded_to_bfloat16),
        ),
        *(
            Deviation(
                f"int8 weights per {each}", "weights",
                f"The dense layers' weights are int8, with one scale for each {whose}; activations stay float32.",
                remedy,
                rounding(lambda array, axis=axis: rounded_to_int8(array, axis), True),  # type: ignore[misc]
                rounding(lambda array, axis=axis: rounded_to_int8(array, axis, False), True),  # type: ignore[misc]
            )
            for each, axis, whose in (
                ("tensor", None, "matrix, as quantised ONNX exports have them"),
                ("channel", 1, "output channel, as torchao and per-channel ONNX exports have them"),
            )
        ),
    ]  # fmt: skip

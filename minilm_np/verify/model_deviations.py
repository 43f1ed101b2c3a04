"""Deviations inside the model: the activation, LayerNorm, embeddings, and rounded weights."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.verify.roundings import rounded_to_bfloat16, rounded_to_float16, rounded_to_int8, rounded_to_uint8
from minilm_np.verify.variations import Deviation, Variation

Vary = Callable[[Variation], Variation]

# ---- the activation --------------------------------------------------------------------------------------------------


def gelu_tanh(x: Array) -> Array:  # (...) -> (...)
    """GELU's approximation by tanh, with the constants of Hendrycks and Gimpel (2016), section 2."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def gelu_tanh_table(x: Array) -> Array:  # (...) -> (...)
    """`gelu_tanh` from a table of float16: x and the result are rounded; 0 up to x = -10, x from x = 10 on."""
    half = np.clip(x, -10.0, 10.0).astype(np.float16).astype(np.float32)
    rounded = gelu_tanh(half).astype(np.float16).astype(x.dtype)
    return np.where(x <= -10.0, 0.0, np.where(x >= 10.0, x, rounded)).astype(x.dtype)


def activations() -> list[Deviation]:
    """Return deviations of the activation."""
    remedy = "Set the activation to the exact GELU with erf ('gelu' in config.json, not 'gelu_new' or 'gelu_tanh')."

    def with_gelu(gelu: Callable[[Array], Array]) -> Vary:
        def make(model: Any) -> Callable[[Array], Array]:
            return gelu

        return lambda v: replace(v, functions=(*v.functions, ("gelu", make)))

    return [
        Deviation(
            "tanh GELU", "activation",
            "GELU is approximated by tanh, as in llama.cpp and in one backend of text-embeddings-inference.",
            remedy, with_gelu(gelu_tanh),
        ),
        Deviation(
            "tanh GELU from a float16 table", "activation",
            "GELU is approximated by tanh and read from a table of float16 numbers, as in llama.cpp on a CPU.",
            remedy, with_gelu(gelu_tanh_table),
        ),
    ]  # fmt: skip


# ---- the encoder -----------------------------------------------------------------------------------------------------


def pre_norm(model: Any) -> Callable[..., Array]:
    """Return `layer` of this instance of the reference with LayerNorm before each block instead of after each sum."""

    def layer(x: Array, mask: Array | None, weights: Any, H: int, eps: float, record: Any = None) -> Array:
        attention, intermediate, output = weights["attention"], weights["intermediate"], weights["output"]
        norm = model.layer_norm(x, **attention["output"]["LayerNorm"], eps=eps)
        context = model.self_attention(norm, mask, attention["self"], H)
        x = x + model.linear(context, **attention["output"]["dense"])
        norm = model.layer_norm(x, **output["LayerNorm"], eps=eps)
        return x + model.linear(model.gelu(model.linear(norm, **intermediate["dense"])), **output["dense"])

    return layer


EPSILONS = {1e-12: "BERT's own value", 1e-6: "Flax's default", 1e-5: "PyTorch's default", 1e-3: "Keras's default"}


def encoders(config: ModelConfig) -> list[Deviation]:
    """Return deviations of LayerNorm and of the embeddings."""
    found = [
        Deviation(
            f"LayerNorm eps {eps:.0e}".replace("e-0", "e-"), "eps",
            f"LayerNorm adds {eps:g} ({whose}) to the variance instead of {config.layer_norm_eps:g}.",
            f"Set LayerNorm's eps to {config.layer_norm_eps:g}.",
            lambda v, eps=eps: replace(v, config=replace(v.config, layer_norm_eps=eps)),  # type: ignore[misc]
        )
        for eps, whose in EPSILONS.items()
        if eps != config.layer_norm_eps
    ]  # fmt: skip

    def changing(part: str, change: Callable[[Array], Array]) -> Vary:
        def weights(name: str, array: Array) -> Array:
            return change(array) if name == f"embeddings.{part}.weight" else array

        return lambda v: replace(v, weights=(*v.weights, weights))

    def two_later(table: Array) -> Array:
        return table[np.minimum(np.arange(len(table)) + 2, len(table) - 1)]

    return [
        *found,
        Deviation(
            "no token-type embedding", "token types",
            "The embedding of token type 0 is not added, as in ports that treat it as optional.",
            "Add the first row of token_type_embeddings to every token.",
            changing("token_type_embeddings", np.zeros_like),
        ),
        Deviation(
            "positions off by two", "positions",
            "Positions are counted from 2 instead of 0, as in RoBERTa; positions beyond the last one are the last one.",
            "Count positions from 0.", changing("position_embeddings", two_later),
        ),
        Deviation(
            "pre-norm", "order of LayerNorm",
            "LayerNorm is applied before attention and feed-forward, as in GPT-2, instead of after each sum.",
            "Apply LayerNorm to the sum of each block's input and output.",
            lambda v: replace(v, functions=(*v.functions, ("layer", pre_norm))),
        ),
    ]  # fmt: skip


# ---- the weights -----------------------------------------------------------------------------------------------------


def weights() -> list[Deviation]:
    """Return deviations of the weights' precision."""

    def rounding(change: Callable[[Array], Array], dense_only: bool = False) -> Vary:
        def weights(name: str, array: Array) -> Array:
            return change(array) if not dense_only or (name.startswith("encoder.") and array.ndim == 2) else array

        return lambda v: replace(v, weights=(*v.weights, weights))

    remedy = "Use the float32 weights; or keep these, if the error is small enough for your use of the vectors."
    return [
        Deviation(
            "weights rounded to float16", "weights",
            "Weights are rounded to float16, as in F16 files (GGUF, ONNX, safetensors); sums are float32.",
            remedy, rounding(rounded_to_float16),
        ),
        Deviation(
            "weights rounded to bfloat16", "weights",
            "Weights are rounded to bfloat16, as in BF16 files; sums are float32.",
            remedy, rounding(rounded_to_bfloat16),
        ),
        *(
            Deviation(
                f"int8 weights per {each}", "weights",
                f"The dense layers' weights are int8, with one scale per {whose}; activations are float32.",
                remedy,
                rounding(lambda array, axis=axis: rounded_to_int8(array, axis), True),  # type: ignore[misc]
                rounding(lambda array, axis=axis: rounded_to_int8(array, axis, False), True),  # type: ignore[misc]
            )
            for each, axis, whose in (
                ("tensor", None, "matrix, as in quantised ONNX exports"),
                ("channel", 1, "output channel, as in torchao and in per-channel ONNX exports"),
            )
        ),
        Deviation(
            "uint8 weights with a zero point", "weights",
            "The dense layers' weights are uint8, with one scale and one zero point per matrix, as in older ONNX "
            "exports (QUInt8); activations are float32.",
            remedy, rounding(rounded_to_uint8, True),
            rounding(lambda array: rounded_to_uint8(array, divides=False), True),
        ),
    ]  # fmt: skip

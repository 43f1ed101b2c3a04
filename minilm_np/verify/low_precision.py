"""Arithmetic in fewer bits, which no two implementations round alike: it is recognised, not reproduced.

Each is a variation as in `deviations.py`, with its activations rounded too. Where each operation rounds is not laid
down, so their vectors never are the other side's; but the error is of the same size and points the same way.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.verify.deviations import Deviation, deviations, rounded_to_bfloat16
from minilm_np.verify.variations import Variation
from minilm_np.verify.vector_errors import alike, norms

# Of torch's float16, bfloat16 and autocast and onnxruntime's int8 the errors' mean cosine with ours is 0.35 to 0.95;
# that of other deviations, of noise, and of the wrong one of these is at most 0.14.
LEAST_ALIKE = 0.25
SIZES = 0.25, 4.0  # times our error that of a text may be; of the above it is 0.45 to 1.4


def low_precisions(config: ModelConfig) -> list[Deviation]:
    """All that are known."""
    weights = {one.name: one for one in deviations(config) if one.kind == "weights"}
    remedy = "Compute in float32; or keep this, if the error is small enough for what the vectors are for."
    found = [
        Deviation(
            f"arithmetic in {name}", "arithmetic",
            f"Weights and the results of operations are {name}, as by {whose}.", remedy,
            lambda v, name=name, rounded=rounded: _computing(  # type: ignore[misc]
                weights[f"weights rounded to {name}"].vary(v),
                ("linear", "gelu", "softmax", "layer_norm", "pooling", "normalize"),
                lambda f: lambda *a, **b: rounded(f(*a, **b)),
            ),
        )
        for name, rounded, whose in (
            ("float16", lambda x: x.astype(np.float16).astype(x.dtype), "torch's model.half() and autocast"),
            ("bfloat16", lambda x: rounded_to_bfloat16(x).astype(x.dtype), "torch's model.bfloat16() and autocast"),
        )
    ]  # fmt: skip
    found += [
        Deviation(
            f"arithmetic in int8, weights per {each}", "arithmetic",
            "The dense layers' weights and inputs are int8, as onnxruntime's dynamic quantisation makes them.", remedy,
            lambda v, each=each: _computing(  # type: ignore[misc]
                weights[f"int8 weights per {each}"].vary(v), ("linear",), lambda f: lambda x, **b: f(_levels(x), **b)
            ),
        )
        for each in ("tensor", "channel")
    ]  # fmt: skip
    return found


def is_like(error: Array, ours: Array) -> bool:  # (n, D), (n, D) -> ()
    """Whether errors may come from the same arithmetic: those of every text are of one size, and point the same way."""
    sizes = norms(error) / np.maximum(norms(ours), 1e-30)
    return bool(SIZES[0] <= sizes.min() and sizes.max() <= SIZES[1] and alike(error, ours) >= LEAST_ALIKE)


def _computing(v: Variation, names: tuple[str, ...], change: Callable[[Any], Any]) -> Variation:
    """A variation with these functions of the reference changed."""
    makers = {name: lambda model, name=name: change(getattr(model, name)) for name in names}
    return replace(v, functions={**v.functions, **makers})


def _levels(x: Array) -> Array:  # (..., T, K) -> (..., T, K)
    """Each text rounded to 256 levels from its smallest number, or 0, to its largest one, or 0."""
    low, high = x.min((-2, -1), initial=0.0, keepdims=True), x.max((-2, -1), initial=0.0, keepdims=True)
    scale = np.maximum(high - low, 1e-30) / 255.0
    return np.rint(x / scale) * scale

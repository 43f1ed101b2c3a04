"""Low-precision arithmetic (float16, bfloat16, int8): its errors are recognised, not reproduced.

No two implementations round at the same places, so no variation gives another one's vectors exactly. But the errors of
one arithmetic have about the same size, and about the same direction, in all implementations.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np.reference import Array
from minilm_np.verify import model_deviations
from minilm_np.verify.roundings import rounded_to_bfloat16, rounded_to_float16
from minilm_np.verify.variations import Deviation, Make, Variation
from minilm_np.verify.vector_errors import alike, norms

# Measured against the errors of our variations: those of torch's float16, bfloat16 and autocast, and of onnxruntime's
# int8, have a mean cosine of 0.35 to 0.95; other deviations, noise, and the wrong arithmetic have at most 0.14.
LEAST_ALIKE = 0.25
SIZES = 0.25, 4.0  # the size of a text's error over ours; of the above 0.45 to 1.4

ROUNDED = ("linear", "gelu", "softmax", "layer_norm", "pooling", "normalize")  # functions of the reference


def low_precisions() -> list[Deviation]:
    """Return all known low-precision arithmetics."""
    weights = {one.name: one for one in model_deviations.weights()}
    remedy = "Compute in float32; or keep this, if the error is small enough for your use of the vectors."
    found = []
    for name, rounded, whose in (
        ("float16", rounded_to_float16, "torch's model.half() and autocast"),
        ("bfloat16", _bfloat16, "torch's model.bfloat16() and autocast"),
    ):
        found.append(
            Deviation(
                f"arithmetic in {name}", "arithmetic",
                f"Weights and the results of operations are {name}, as with {whose}.", remedy,
                _computing(weights[f"weights rounded to {name}"], _changed(ROUNDED, _then(rounded))),
            )
        )  # fmt: skip
    changed = _changed(("linear",), lambda f: lambda x, **b: f(_levels(x), **b))
    for name, of_weights in (
        *((f"int8, weights per {each}", f"int8 weights per {each}") for each in ("tensor", "channel")),
        ("int8, uint8 weights with a zero point", "uint8 weights with a zero point"),
    ):
        found.append(
            Deviation(
                f"arithmetic in {name}", "arithmetic",
                "The dense layers' weights and inputs are 8-bit integers, as after onnxruntime's dynamic quantisation.",
                remedy, _computing(weights[of_weights], changed),
            )
        )  # fmt: skip
    return found


def is_like(error: Array, ours: Array) -> bool:  # (n, D), (n, D) -> ()
    """Return whether errors may come from the arithmetic of ours: similar sizes in every text, similar directions."""
    sizes = norms(error) / np.maximum(norms(ours), 1e-30)
    return bool(SIZES[0] <= sizes.min() and sizes.max() <= SIZES[1] and alike(error, ours) >= LEAST_ALIKE)


def _computing(weights: Deviation, functions: tuple[tuple[str, Make], ...]) -> Callable[[Variation], Variation]:
    """A change of a variation: these weights, and these functions."""
    return lambda v: replace(weights.vary(v), functions=(*v.functions, *functions))


def _changed(names: tuple[str, ...], change: Callable[[Any], Any]) -> tuple[tuple[str, Make], ...]:
    """The makers of these functions of the reference, each one changed."""
    return tuple((name, lambda model, name=name: change(getattr(model, name))) for name in names)


def _then(rounded: Callable[[Array], Array]) -> Callable[[Any], Any]:
    """A change of a function: its result is rounded."""
    return lambda f: lambda *a, **b: rounded(f(*a, **b))


def _bfloat16(x: Array) -> Array:
    return rounded_to_bfloat16(x).astype(x.dtype)


def _levels(x: Array) -> Array:  # (..., T, K) -> (..., T, K)
    """Each text rounded to 256 levels between its smallest number (or 0) and its largest number (or 0)."""
    low, high = x.min((-2, -1), initial=0.0, keepdims=True), x.max((-2, -1), initial=0.0, keepdims=True)
    scale = np.maximum(high - low, 1e-30) / 255.0
    return np.rint(x / scale) * scale

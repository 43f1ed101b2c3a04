"""How far vectors are from those of their texts, whose else they are, and how their numbers were stored."""

import numpy as np

from minilm_np.reference import Array
from minilm_np.verify.deviations import rounded_to_bfloat16

FLOOR = 1e-30  # below this an array is taken for zero, and what differs from it is infinitely wrong


def relative_errors(given: Array, expected: Array) -> Array:  # (n, D), (n, D) -> (n,)
    """The largest difference in each vector, relative to its largest number; NaN where it is unknown."""
    return np.abs(given - expected).max(axis=1) / np.maximum(np.abs(expected).max(axis=1), FLOOR)


def norms(x: Array) -> Array:  # (..., D) -> (...)
    return np.sqrt((x * x).sum(axis=-1))


def units(x: Array) -> Array:  # (..., D) -> (..., D)
    return x / np.maximum(norms(x), FLOOR)[..., None]


def owners(given: Array, ours: Array, tolerance: float) -> list[int] | None:  # (n, D), (n, D) -> n
    """Which text each vector is of, every text once, in the order of the first that fit; None where one is of none."""
    cosines, free, found = units(given) @ units(ours).T, np.ones(len(ours), bool), []
    for vector, cosine in zip(given, cosines, strict=True):
        near = np.flatnonzero(free & (cosine > cosine.max() - 1e-4))  # equal texts have equal vectors
        fitting = near[relative_errors(vector[None], ours[near]) <= tolerance]
        if not len(fitting):
            return None
        found.append(int(fitting[0]))
        free[fitting[0]] = False
    return found


def alike(change: Array, other: Array) -> float:  # (n, D), (n, D) -> ()
    """The mean cosine of two changes of the same vectors: 1 for the same one, about 0 for unrelated ones."""
    return float((units(change) * units(other)).sum(axis=1).mean())


def storage_rounding(vectors: Array) -> tuple[str, float]:
    """How the numbers were rounded when they were stored, and how much that is of a vector's largest number."""
    numbers = vectors.astype(np.float64)
    if (vectors.astype(np.float16).astype(np.float64) == numbers).all():
        return "as float16", 2.0**-11
    if (rounded_to_bfloat16(vectors.astype(np.float32)).astype(np.float64) == numbers).all():
        return "as bfloat16", 2.0**-8
    largest = float(np.abs(numbers).max(axis=1).min())
    for digits in range(2, 8):
        # a decimal that was read into float32 is off by its last bit
        if (np.abs(np.round(numbers, digits) - numbers) <= 2.0**-23 * np.abs(numbers)).all() and largest > 0:
            return f"with {digits} decimals", 0.5 * 10.0**-digits / largest
    return "", 0.0

"""Errors of vectors, one number per vector; lengths, directions, and the text that each vector belongs to."""

import numpy as np

from minilm_np.reference import Array

FLOOR = 1e-30  # an array whose largest number is below this counts as zero


def relative_errors(given: Array, expected: Array) -> Array:  # (n, D), (n, D) -> (n,)
    """Return max|given - expected| / max|expected| of each vector; NaN where a vector is not known."""
    return np.abs(given - expected).max(axis=1) / np.maximum(np.abs(expected).max(axis=1), FLOOR)


def norms(x: Array) -> Array:  # (..., D) -> (...)
    """Return the Euclidean lengths of vectors."""
    return np.sqrt((x * x).sum(axis=-1))


def units(x: Array) -> Array:  # (..., D) -> (..., D)
    """Return vectors scaled to unit length; a vector of zeros stays as it is."""
    return x / np.maximum(norms(x), FLOOR)[..., None]


def owners(given: Array, ours: Array, tolerance: float) -> list[int] | None:  # (n, D), (n, D) -> n
    """Return for each given vector the row of `ours` that it equals, each row once; None if a vector equals none.

    If several rows fit, the first one is taken.
    """
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
    """Return the mean cosine of two changes of the same vectors: 1 for equal ones, about 0 for unrelated ones."""
    return float((units(change) * units(other)).sum(axis=1).mean())

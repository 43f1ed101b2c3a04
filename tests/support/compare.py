"""One comparator for arrays: shape, dtype, finiteness, absolute and relative error, units in the last place, bits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["abs", "rel", "bits"]

# Called with each comparison's kind, difference and bound; `tests.parity` adds one to record them.
observers: list[Callable[[Kind, float, float], object]] = []

FLOOR = 1e-30  # below this the reference is taken for zero, and the difference is judged as it is


@dataclass(frozen=True)
class Difference:
    """How far an array is from its reference."""

    max_abs: float
    max_rel: float  # max|difference| / max|reference|, of the whole array: an element may well be near zero
    max_ulp: float  # in units of the last place of the coarser dtype, at the reference's largest value
    same_bits: bool


def compare(found: Any, reference: Any, *, same_dtype: bool = True) -> Difference:
    """Measure the difference. Raises AssertionError where it means nothing: shape, dtype, NaN or infinity."""
    found, reference = np.asarray(found), np.asarray(reference)
    assert found.shape == reference.shape, f"shape: found {found.shape}, expected {reference.shape}"
    if same_dtype:
        assert found.dtype == reference.dtype, f"dtype: found {found.dtype}, expected {reference.dtype}"
    for name, array in (("found", found), ("reference", reference)):
        assert np.isfinite(array).all(), f"{name}: {np.count_nonzero(~np.isfinite(array))} values are not finite"
    if not found.size:
        return Difference(0.0, 0.0, 0.0, found.dtype == reference.dtype)
    wide = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    largest = float(np.abs(reference).max())
    max_abs = float(wide.max())
    coarser = np.float32 if np.float32 in (found.dtype, reference.dtype) else np.float64
    return Difference(
        max_abs=max_abs,
        max_rel=max_abs / largest if largest > FLOOR else (0.0 if max_abs <= FLOOR else np.inf),
        max_ulp=max_abs / float(np.spacing(coarser(largest))),
        same_bits=found.dtype == reference.dtype and found.tobytes() == reference.tobytes(),
    )


def assert_close(found: Any, reference: Any, *, rel: float = np.inf, abs_: float = np.inf, what: str = "") -> None:
    """Fail unless the arrays agree within the bounds, of which at least one must be given; dtypes may differ."""
    assert min(rel, abs_) < np.inf, "no bound was given"
    difference = compare(found, reference, same_dtype=False)
    assert difference.max_rel <= rel and difference.max_abs <= abs_, (
        f"{what}: {difference}, bounds rel={rel} abs={abs_}"
    )
    if rel < np.inf:
        observe("rel", difference.max_rel, rel)
    if abs_ < np.inf:
        observe("abs", difference.max_abs, abs_)


def assert_same_bits(found: Any, reference: Any, what: str = "") -> None:
    """Fail unless shape, dtype and every bit agree."""
    difference = compare(found, reference)
    assert difference.same_bits, f"{what}: {difference}, expected the same bits"
    observe("bits", 0.0, 0.0)


def assert_near(found: Mapping[str, float], expected: Mapping[str, float], bound: float) -> None:
    """Fail unless two tables of scores agree: each score within `bound` of 1 or of the expected one; NaN equals NaN."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if math.isnan(value):
            assert math.isnan(found[name]), name
            continue
        difference = abs(found[name] - value) / max(1.0, abs(value))
        assert difference <= bound, f"{name}: found {found[name]}, expected {value} within {bound}"
        observe("rel", difference, bound)


def observe(kind: Kind, difference: float, bound: float) -> None:
    """Report a comparison that is within its bound to the observers."""
    for observer in observers:
        observer(kind, difference, bound)

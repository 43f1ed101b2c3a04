"""Errors of whole arrays: the measure that `verify` and `conformance` share, and the rows of verify's table."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from minilm_np.reference import Array
from minilm_np.verify.vector_errors import FLOOR, norms, units


@dataclass(frozen=True)
class Errors:
    """The difference between an array and its reference; over several texts, the worst of each number."""

    max_abs: float = 0.0  # max|difference|
    max_rel: float = 0.0  # max|difference| / max|reference|
    max_ulp: float = 0.0  # max|difference| in units in the last place (float32) of max|reference|
    min_cosine: float = 1.0  # of the vectors along the last axis


INFINITE = Errors(math.inf, math.inf, math.inf, -1.0)  # the other array is not finite


@dataclass(frozen=True)
class Row:
    """The errors of one named array, or of the vector: the worst over all texts."""

    name: str
    difference: Errors  # theirs against ours
    ours: Errors  # ours against float64
    theirs: Errors  # theirs against float64
    worst_text: str  # the label of the text with the largest difference
    worst_position: int | None = None  # the token of that text with the largest difference; of scores, the query
    worst_token: str | None = None  # that token, if the caller of `row` adds it


def largest_error(found: Array, truth: Array, floor: float = 0.0, size: float | None = None) -> tuple[float, float]:
    """Return max|found - truth|, and that over max|truth| or `size`, computed in float64.

    If max|truth| is at most `floor`, the second number is 0 if the first is at most `floor` too, else infinity.
    """
    a, b = found.astype(np.float64), truth.astype(np.float64)
    difference = float(np.abs(a - b).max(initial=0.0))
    size = float(np.abs(b).max(initial=0.0)) if size is None else size
    if size <= floor:
        return difference, 0.0 if difference <= floor else math.inf
    return difference, difference / size


def errors(found: Array, truth: Array) -> Errors:
    """Return how far an array is from its reference; both have one shape and are finite."""
    a, b = found.astype(np.float64), truth.astype(np.float64)
    max_abs, max_rel = largest_error(a, b, FLOOR)
    size = float(np.abs(b).max(initial=0.0))
    if size <= FLOOR:
        return Errors(max_abs, max_rel, max_rel, 1.0 if max_rel == 0.0 else 0.0)
    last_place = float(np.spacing(np.float32(min(size, float(np.finfo(np.float32).max)))))
    # 1 - |u - v|^2 / 2 of unit vectors, where u . v would round
    apart = np.square(units(a) - units(b)).sum(axis=-1)
    apart = np.where((norms(a) <= FLOOR) != (norms(b) <= FLOOR), 2.0, apart)  # a vector of zeros has no direction
    return Errors(max_abs, max_rel, max_abs / last_place, 1.0 - float(apart.max(initial=0.0)) / 2.0)


def row(name: str, ours: Array, theirs: Array | None, truth: Array, text: str) -> Row:
    """Return the errors of one array of one text; theirs are infinite if `theirs` is None."""
    if theirs is None:
        return Row(name, INFINITE, errors(ours, truth), INFINITE, text)
    found = Row(name, errors(theirs, ours), errors(ours, truth), errors(theirs, truth), text)
    if truth.ndim < 2:  # a vector, which belongs to no token
        return found
    of_rows = np.abs(theirs.astype(np.float64) - ours).max(axis=-1)  # (T,) or (H, T)
    return replace(found, worst_position=int(of_rows.reshape(-1, of_rows.shape[-1]).max(axis=0).argmax()))


def worst(known: Row | None, new: Row) -> Row:
    """Return one row for two: the larger errors, the smaller cosines, the name of the second."""
    if known is None:
        return new
    larger = new if new.difference.max_abs > known.difference.max_abs else known
    return Row(
        new.name,
        _worst_errors(known.difference, new.difference),
        _worst_errors(known.ours, new.ours),
        _worst_errors(known.theirs, new.theirs),
        larger.worst_text,
        larger.worst_position,
        larger.worst_token,
    )


def _worst_errors(a: Errors, b: Errors) -> Errors:
    return Errors(
        max(a.max_abs, b.max_abs), max(a.max_rel, b.max_rel), max(a.max_ulp, b.max_ulp), min(a.min_cosine, b.min_cosine)
    )


def summarised(rows: Iterable[Row]) -> list[Row]:
    """Return one row for the embeddings and one for each layer, with the worst errors; pooling and normalize stay."""
    found: dict[str, Row] = {}
    for one in rows:
        parts = one.name.split(".")
        name = ".".join(parts[:3]) if parts[0] == "encoder" else parts[0]
        found[name] = worst(found.get(name), replace(one, name=name))
    return list(found.values())

"""Vectors that no deviation has to explain: of other lengths, in another order, wrong one by one, or resembling others.

Each function answers one question about the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minilm_np.reference import Array
from minilm_np.verify.diagnosis import Finding
from minilm_np.verify.evidence import Evidence, Given
from minilm_np.verify.low_precision import is_like
from minilm_np.verify.pairs import fitting_pairs
from minilm_np.verify.scoring import Bar, Candidate, measure
from minilm_np.verify.vector_errors import alike, norms, owners, relative_errors, units

COMPARED_TOKENS = 250  # of the texts whose errors are compared with those of low-precision arithmetic
MOST_MOVED = 5000  # vectors; above that an order is not searched


def order(given: Given, wrong: Sequence[int], tolerance: float) -> list[int] | None:
    """Return for each wrong vector the text that it belongs to, if the wrong ones are only permuted; else None."""
    if not 2 <= len(wrong) <= MOST_MOVED:
        return None
    places = owners(given.vectors[wrong], given.ours[wrong], tolerance)
    return None if places is None else [int(wrong[place]) for place in places]


def state(given: Given, row: int, tolerance: float) -> str:
    """Return what a vector is, if it is not that of its text: a predicate of a sentence."""
    vector = given.vectors[row]
    if not vector.any():
        return "is all zeros"
    fitting = np.flatnonzero(relative_errors(vector[None], given.ours) <= tolerance)
    if len(fitting):
        return f"is that of text {fitting[0]}"
    return f"is off by {np.abs(vector - given.ours[row]).max():.1e}"


@dataclass(frozen=True)
class Scaled:
    """Vectors with the directions of the model's, or of one deviation's, and other lengths."""

    finding: Finding  # measured at unit length
    factors: Array  # the given lengths over the expected ones
    exact: list[Finding]  # pairs with (or without) normalisation that explain the lengths, too


def scaled(evidence: Evidence, seen: Sequence[Candidate], twins: set[str], bar: Bar) -> Scaled | None:
    """Return how the vectors are scaled, if only their lengths are wrong.

    seen: the deviations that change vectors. twins: see `fitting_pairs`.
    """
    vectors = evidence.vectors[evidence.probes]
    expected: list[tuple[tuple[str, ...], Array, float]] = [((), evidence.base, evidence.tolerance)]
    expected += [((one.name,), one.vectors, one.limit) for one in seen]
    for names, found, limit in expected:
        if not np.nanmax(relative_errors(units(vectors), units(found))) <= limit:  # NaN: no text was run
            continue
        finding = measure(evidence, names, unit=True)
        if not finding.explains:
            continue
        normalisations = [one for one in seen if one.deviation.kind == "normalisation"]
        pairs = [(one, other) for one in seen if one.name in names for other in normalisations]
        measured = [measure(evidence, pair) for pair in fitting_pairs(evidence, pairs, twins, bar)]
        found = evidence.vectors_of(evidence.variation(names), evidence.probes)
        known = np.isfinite(found).all(axis=1)
        factors = norms(vectors[known]) / norms(found[known])
        if np.abs(factors - 1.0).max() <= evidence.tolerance:
            continue
        return Scaled(finding, factors, [pair for pair in measured if pair.explains])
    return None


def low_precision(evidence: Evidence, candidates: Sequence[Candidate], bar: Bar) -> Finding | None:
    """Return the low-precision arithmetic that the errors resemble most; None if they resemble none, or another one.

    candidates: all deviations, after the screen.
    """
    probes, base = evidence.probes, evidence.model.base
    errors = evidence.vectors[probes] - evidence.base
    places = evidence.few(base, probes, COMPARED_TOKENS)
    rows = [probes.index(place) for place in places]
    changes = {
        one.name: evidence.vectors_of(one.vary(base), places) - evidence.base[rows]
        for one in bar(evidence.low_precisions, "low-precision arithmetic")
    }
    like = {name: alike(errors[rows], change) for name, change in changes.items() if is_like(errors[rows], change)}
    if not like:
        return None
    best = max(like, key=like.__getitem__)
    for one in candidates:
        known = np.isfinite(one.vectors).all(axis=1)
        change = one.vectors[known] - evidence.base[known]
        if one.deviation.kind != "weights" and known.any() and alike(errors[known], change) > like[best]:
            return None
    return replace(measure(evidence, (best,)), explains=False)


def is_related(evidence: Evidence, candidates: Sequence[Candidate]) -> bool:
    """Whether most vectors are near that of their own text, and nearer than to other texts, under any deviation."""
    given = units(evidence.vectors[evidence.probes])
    for found in (evidence.base, *(one.vectors for one in candidates)):
        known = np.isfinite(found).all(axis=1)
        cosines = given[known] @ units(found[known]).T
        own = np.diagonal(cosines)
        if own.size and own.mean() > 0.5 and (own >= cosines.max(axis=1) - 1e-6).mean() > 0.5:
            return True
    return False

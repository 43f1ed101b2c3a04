"""How a deviation is scored: a quick screen in float32 on the probes, then a measurement in float64.

A deviation explains the vectors if the error that remains is no more than rounding makes of this variation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minilm_np.reference import Array
from minilm_np.verify.diagnosis import Finding
from minilm_np.verify.evidence import ROUNDING, SEARCH_TOKENS, Evidence
from minilm_np.verify.variations import Deviation
from minilm_np.verify.vector_errors import relative_errors, units

SCREEN_TOKENS = 600  # on which a deviation that acts on every text is screened
CHECK_TOKENS = 8000  # on which an explanation is checked outside the probes
VARIANT_ROUNDING = 3.0  # rounding explains errors up to this many times the difference between two ways to do the same


@dataclass(frozen=True)
class Candidate:
    """A deviation after the screen. Arrays have one entry per probe; NaN: it was not run on this text."""

    deviation: Deviation
    vectors: Array  # (probes, D) with this deviation, by the reference in float32, as float64
    left: Array  # (probes,) the relative error that remains
    limit: float  # how much of `left` rounding explains
    moves: Array  # (probes,) bool: the deviation changes this text's vector, or was not run on it

    @property
    def name(self) -> str:
        return self.deviation.name

    @property
    def is_seen(self) -> bool:
        """Whether the deviation changes a vector by more than rounding."""
        return bool((self.moves & np.isfinite(self.left)).any())

    @property
    def fits(self) -> bool:
        """Whether the deviation may explain the vectors."""
        return bool(np.nanmax(self.left) <= self.limit)


def screen(evidence: Evidence, deviation: Deviation) -> Candidate:
    """Run a deviation on the probes on which it acts; on a few short ones if it acts on all texts, or pads them."""
    name, probes = deviation.name, evidence.probes
    variation, acts = deviation.vary(evidence.model.base), evidence.acts[deviation.name]
    everywhere = variation.pad_to or acts.all()
    budget = SCREEN_TOKENS if everywhere else SEARCH_TOKENS
    few = evidence.few(variation, (place for place in probes if acts[place]), budget)
    single = evidence.model.vectors(variation, few).astype(np.float64)
    exact = evidence.model.vectors(variation, few[:1], np.float64)
    found = np.where(acts[probes, None], np.nan, evidence.base)
    found[[probes.index(place) for place in few]] = single
    rounding = max(evidence.rounding, _rounding(evidence, (name,), few[:1], single[:1], exact))
    return Candidate(
        deviation,
        found,
        left=relative_errors(evidence.vectors[probes], found),
        limit=2.0 * rounding + evidence.given.storage,
        moves=~(relative_errors(found, evidence.base) <= evidence.tolerance) & acts[probes],
    )


def measure(evidence: Evidence, names: tuple[str, ...], unit: bool = False) -> Finding:
    """Return the error that remains under these deviations, in float64 on the probes.

    unit: scale all vectors to unit length first.
    """
    probes = evidence.probes
    variation = evidence.variation(names)
    exact = evidence.model.vectors(variation, probes, np.float64)
    few = evidence.few(variation, probes, SCREEN_TOKENS)
    single = evidence.model.vectors(variation, few).astype(np.float64)
    rounding = _rounding(evidence, names, few, single, exact[[probes.index(place) for place in few]])
    rounding = max(evidence.rounding, rounding) + evidence.given.storage
    given = evidence.vectors[probes]
    if unit:
        given, exact = units(given), units(exact)
    known = np.isfinite(exact).all(axis=1)
    if not known.any():
        return Finding(names, np.inf, np.inf, rounding, 0.0, False)
    given, exact = given[known], exact[known]
    relative = float(relative_errors(given, exact).max())
    # if rounding alone moves a variation far, as in a table of float16, a small rest explains little
    explains = relative <= min(rounding, float(evidence.errors.max()) / 4 if names else np.inf)
    cosine = float((units(given) * units(exact)).sum(axis=1).min())
    return Finding(names, float(np.abs(given - exact).max()), relative, rounding, cosine, explains)


def _rounding(evidence: Evidence, names: tuple[str, ...], places: list[int], single: Array, exact: Array) -> float:
    """The relative error that rounding explains: of our float32 on some texts, and between variants of a deviation."""
    rounding = ROUNDING * float(np.nanmax(relative_errors(single, exact), initial=0.0))
    for one in evidence.known:
        if one.name in names and one.variant is not None:
            variation = one.variant(evidence.variation(name for name in names if name != one.name))
            other = evidence.model.vectors(variation, places).astype(np.float64)
            rounding = max(rounding, VARIANT_ROUNDING * float(np.nanmax(relative_errors(other, exact), initial=0.0)))
    return rounding


def remains(evidence: Evidence, candidate: Candidate) -> float:
    """Return the part of the error that remains, from 1 (or more) to 0: the geometric mean over the probes."""
    before, after = evidence.errors[evidence.probes], candidate.left
    return float(np.exp(np.nanmean(np.log((after + evidence.rounding) / (before + evidence.rounding)))))


def indistinguishable(evidence: Evidence, candidates: Sequence[Candidate]) -> tuple[tuple[str, ...], ...]:
    """Return groups of deviations that change the vectors of these texts, and by the same amounts."""
    groups: list[list[Candidate]] = []
    for one in candidates:
        known = np.isfinite(one.vectors).all(axis=1)
        if not one.is_seen:
            continue
        for group in groups:
            other = group[0].vectors
            same_rows = np.array_equal(known, np.isfinite(other).all(axis=1))
            if same_rows and relative_errors(one.vectors[known], other[known]).max() <= evidence.tolerance:
                group.append(one)
                break
        else:
            groups.append([one])
    return tuple(tuple(one.name for one in group) for group in groups if len(group) > 1)


def unexplained_texts(evidence: Evidence, finding: Finding) -> list[int]:
    """Return the texts outside the probes, counted from 0, that a finding does not explain."""
    variation = evidence.variation(finding.deviations)
    others = [place for place in range(len(evidence.sample)) if place not in evidence.probes]
    places = evidence.few(variation, others, CHECK_TOKENS) if others else []
    left = relative_errors(evidence.vectors[places], evidence.model.vectors(variation, places).astype(np.float64))
    return [evidence.sample[place] for place, error in zip(places, left, strict=True) if error > 2.0 * finding.rounding]

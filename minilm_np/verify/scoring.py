"""How a deviation is scored: a quick screen in float32 on a few short texts, then a measurement in float64.

A deviation explains the vectors if the error that remains is no more than rounding makes of this variation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilm_np.reference import Array
from minilm_np.verify.diagnosis import Finding
from minilm_np.verify.evidence import ROUNDING, Evidence
from minilm_np.verify.variations import Deviation
from minilm_np.verify.vector_errors import relative_errors, units

Bar = Callable[[Sequence[Any], str], Iterable[Any]]  # items, and what is done to them -> the items, with a progress bar

SCREENED = 4  # texts on which a deviation is screened
SCREEN_TOKENS = 300  # theirs
CHECK_TOKENS = 2000  # on which an explanation is checked outside its measurement
NEAR = 0.2  # relative error; the rounding of a deviation that leaves more is not worth a run
VARIANT_ROUNDING = 3.0  # rounding explains errors up to this many times the difference between two ways to do the same


@dataclass(frozen=True)
class Candidate:
    """A deviation after the screen. Arrays have one entry per probe; NaN: it was not run on this text."""

    deviation: Deviation
    vectors: Array  # (probes, D) with this deviation, in float32, as float64
    left: Array  # (probes,) the relative error that remains
    change: Array  # (probes,) how far the deviation moves the model's vector, relative to it
    limit: float  # how much of `left` rounding explains
    moves: Array  # (probes,) bool: the deviation changes this text's vector, or was not run on it
    is_tried: bool  # it was run, or acts on no text

    @property
    def name(self) -> str:
        return self.deviation.name

    @property
    def is_seen(self) -> bool:
        """Whether the deviation was run, and changes a vector by more than rounding."""
        return bool((self.moves & np.isfinite(self.left)).any())

    @property
    def is_void(self) -> bool:
        """Whether the deviation changes no vector of the texts on which it was run."""
        return self.is_tried and not self.is_seen

    @property
    def fits(self) -> bool:
        """Whether the deviation may explain the vectors."""
        return self.is_seen and bool(np.nanmax(self.left) <= self.limit)


def screen(evidence: Evidence, deviation: Deviation, runs: bool = True) -> Candidate:
    """Run a deviation on a few short probes on which it acts.

    runs: False if it need not be run, because it cannot explain the texts on which it does not act.
    """
    probes, model = evidence.probes, evidence.model
    variation = deviation.vary(model.base)
    acts = model.acts_on(variation)[probes]
    places = [place for place, acted in zip(probes, acts, strict=True) if acted and runs]
    few = evidence.few(variation, places, SCREEN_TOKENS)[:SCREENED]
    found = np.where(acts[:, None], np.nan, evidence.base)
    single = evidence.vectors_of(variation, few)
    found[[probes.index(place) for place in few]] = single
    left = relative_errors(evidence.vectors[probes], found)
    change = relative_errors(found, evidence.base)
    rounding = evidence.rounding
    if few and np.nanmax(left, initial=0.0) <= NEAR:
        exact = model.vectors(variation, few[:1], np.float64)
        rounding = max(rounding, _rounding(evidence, (deviation.name,), few[:1], single[:1], exact))
    return Candidate(
        deviation, found, left, change,
        limit=2.0 * rounding + evidence.given.storage,
        moves=~(change <= evidence.tolerance) & acts,
        is_tried=bool(few) or not acts.any(),
    )  # fmt: skip


def screen_all(
    evidence: Evidence, everywhere: Sequence[Deviation], partial: Sequence[Deviation], bar: Bar
) -> list[Candidate]:
    """Screen deviations; one that acts on some texts only is run if the other texts can be explained."""
    candidates = [screen(evidence, one) for one in bar(everywhere, "deviations")]
    explained = [evidence.errors[evidence.probes] <= evidence.tolerance]
    explained += [~(one.left > one.limit) for one in candidates]
    for one in bar(partial, "deviations of some texts"):
        others = ~evidence.model.acts_on(one.vary(evidence.model.base))[evidence.probes]
        candidates.append(screen(evidence, one, any(fits[others].all() for fits in explained)))
    return candidates


def measure(evidence: Evidence, names: tuple[str, ...], unit: bool = False) -> Finding:
    """Return the error that remains under these deviations, in float64 on the most telling probes.

    unit: scale all vectors to unit length first.
    """
    variation = evidence.variation(names)
    places = evidence.telling(variation)
    exact = evidence.model.vectors(variation, places, np.float64)
    few = evidence.few(variation, places, SCREEN_TOKENS)[:SCREENED]
    single = evidence.vectors_of(variation, few)
    rounding = _rounding(evidence, names, few, single, exact[[places.index(place) for place in few]])
    rounding = max(evidence.rounding, rounding) + evidence.given.storage
    kinds = tuple(evidence.named(name).kind for name in names)
    given = evidence.vectors[places]
    if unit:
        given, exact = units(given), units(exact)
    known = np.isfinite(exact).all(axis=1)
    if not known.any():
        return Finding(names, kinds, np.inf, np.inf, rounding, 0.0, False)
    given, exact = given[known], exact[known]
    relative = float(relative_errors(given, exact).max())
    # if rounding alone moves a variation far, as in a table of float16, a small rest explains little
    explains = relative <= min(rounding, float(evidence.errors.max()) / 4 if names else np.inf)
    cosine = float((units(given) * units(exact)).sum(axis=1).min())
    return Finding(names, kinds, float(np.abs(given - exact).max()), relative, rounding, cosine, explains)


def _rounding(evidence: Evidence, names: tuple[str, ...], places: list[int], single: Array, exact: Array) -> float:
    """The relative error that rounding explains: of our float32 on some texts, and between variants of a deviation."""
    rounding = ROUNDING * float(np.nanmax(relative_errors(single, exact), initial=0.0))
    for name in names:
        variant = evidence.named(name).variant
        if variant is not None:
            other = evidence.vectors_of(variant(evidence.variation(one for one in names if one != name)), places)
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
        if one.is_seen:
            group = next((group for group in groups if _same(evidence, one, group[0])), None)
            if group is None:
                groups.append([one])
            else:
                group.append(one)
    return tuple(tuple(one.name for one in group) for group in groups if len(group) > 1)


def _same(evidence: Evidence, a: Candidate, b: Candidate) -> bool:
    """Whether two deviations have the same effect on all probes, as far as their runs and their inputs show."""
    errors = relative_errors(a.vectors, b.vectors)
    known = np.isfinite(errors)
    if not known.any() or (errors[known] > evidence.tolerance).any():
        return False
    base = evidence.model.base
    return bool(
        evidence.model.same_inputs(a.deviation.vary(base), b.deviation.vary(base))[evidence.probes][~known].all()
    )


def confirmed(evidence: Evidence, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings; one that explains its own texts, but not all others, has those others as `odd`."""
    checked = []
    for finding in findings:
        odd = _unexplained_texts(evidence, finding) if finding.explains else ()
        checked.append(replace(finding, explains=finding.explains and not odd, odd=odd))
    return checked


def _unexplained_texts(evidence: Evidence, finding: Finding) -> tuple[int, ...]:
    """The texts outside the measurement, counted from 0, that a finding does not explain."""
    variation = evidence.variation(finding.deviations)
    others = {*range(len(evidence.sample))} - {*evidence.telling(variation)}
    probes = [place for place in evidence.probes if place in others]
    places = [*probes, *evidence.few(variation, others - {*probes}, CHECK_TOKENS)] if others else []
    left = relative_errors(evidence.vectors[places], evidence.vectors_of(variation, places))
    wrong = zip(places, left, strict=True)
    return tuple(sorted(evidence.sample[place] for place, error in wrong if error > 2.0 * finding.rounding))

"""Pairs of deviations: which of them explain the vectors together."""

from collections.abc import Iterable

import numpy as np

from minilm_np.verify.diagnosis import Finding
from minilm_np.verify.evidence import Evidence
from minilm_np.verify.scoring import Bar, Candidate, measure, remains
from minilm_np.verify.vector_errors import relative_errors

# A deviation leaves no error that is this many times the effect of the other one of the pair: effects are not exactly
# additive, but a change of the sixth digit mends no error of the first one.
MOST_MENDED = 10.0

# The nearer one of a pair alone leaves at most this part of the error. In all pairs of the tests, it leaves 0.62.
MOST_LEFT = 0.75


def fitting_pairs(
    evidence: Evidence, pairs: Iterable[tuple[Candidate, Candidate]], twins: set[str], bar: Bar
) -> list[tuple[str, ...]]:
    """Return the pairs that may explain the vectors; if there is none, the two that come nearest.

    twins: deviations that have the same effect as one that is tried; their pairs would have the same effect, too.
    """
    kept = [(a, b) for a, b in pairs if not {a.name, b.name} & twins]
    left = {one.name: remains(evidence, one) for pair in kept for one in pair}
    nearer = {(a.name, b.name): min(left[a.name], left[b.name]) for a, b in kept}
    possible = [(a, b) for a, b in kept if nearer[a.name, b.name] <= MOST_LEFT and _is_possible(evidence, a, b)]
    possible.sort(key=lambda pair: nearer[pair[0].name, pair[1].name])
    fitting: list[tuple[str, ...]] = []
    nearest: dict[tuple[str, ...], float] = {}
    for a, b in bar(possible, "pairs of deviations"):
        names, variation = (a.name, b.name), b.deviation.vary(a.deviation.vary(evidence.model.base))
        if fitting and nearer[a.name, b.name] > nearer[fitting[-1][0], fitting[-1][1]]:
            break  # the other pairs with the nearer one of a pair that fits have been tried
        both = (evidence.probes[probe] for probe in np.flatnonzero(a.moves & b.moves))
        places = evidence.shortest(variation, both)
        limit = max(a.limit, b.limit)
        for some in (places[:1], places[1:3]):  # the shortest text excludes most pairs
            found = evidence.vectors_of(variation, some)
            nearest[names] = float(
                np.nanmax(relative_errors(evidence.vectors[some], found), initial=nearest.get(names, 0.0))
            )
            if nearest[names] > limit:
                break
        else:
            fitting.append(names)
    return fitting or sorted(nearest, key=nearest.__getitem__)[:2]


def _is_possible(evidence: Evidence, a: Candidate, b: Candidate) -> bool:
    """Whether the screen allows this pair.

    A text that only one of the two changes must be explained by that one, a text that neither changes by the model as
    it is. And what one leaves must be of the size of the other one's effect.
    """
    if a.deviation.kind == b.deviation.kind:
        return False
    left = np.where(a.moves, a.left - a.limit, evidence.errors[evidence.probes] - evidence.tolerance)
    left = np.where(b.moves, b.left - b.limit, left)
    if (left[~(a.moves & b.moves)] > 0.0).any():
        return False
    mends = (a.left <= MOST_MENDED * b.change + a.limit) & (b.left <= MOST_MENDED * a.change + b.limit)
    return bool(mends[np.isfinite(a.left) & np.isfinite(b.left) & a.moves & b.moves].all())


def needs_both(evidence: Evidence, pair: Finding) -> bool:
    """Whether a pair leaves at most half the error of the better one of the two alone."""
    singles = [measure(evidence, (name,)).relative_error for name in pair.deviations]
    return pair.relative_error <= min(singles) / 2

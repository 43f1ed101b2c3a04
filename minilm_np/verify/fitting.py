"""Deviations with a number that is fitted to the vectors: how far texts are padded, how long windows are."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from minilm_np.verify.evidence import SAMPLE, Evidence
from minilm_np.verify.input_deviations import MASKED, padding
from minilm_np.verify.scoring import NEAR
from minilm_np.verify.text_deviations import windows
from minilm_np.verify.variations import Deviation, Padding, Variation, Windows
from minilm_np.verify.vector_errors import relative_errors

CHECKED = 4  # texts that decide between rules of padding
COARSE = 8, 12, 16, 24, 32, 48, 64, 96, 128, 256  # tokens; the first lengths that are tried
HOPELESS = 0.4  # if they all leave more than this part of the error, padding does not explain it
REFINED = 3  # lengths around which the search for a length is refined
MOST_FITTED = 3  # deviations that a fit returns

SHORTEST_WINDOW = 64  # tokens; if a shorter vector is wrong, windows do not explain that

MULTIPLES = 4, 8, 16, 32, 64, 128  # tokens
BATCHES = (
    8,
    16,
    32,
    64,
    128,
    2,
    4,
    *(n for n in range(3, 128) if n not in (4, 8, 16, 32, 64)),
)  # texts; likely ones first

# Tokens of a window, usual limits first; with and without [CLS] and [SEP].
WINDOWS = (
    510, 254, 126, 128, 256, 512, 100, 200, 300, 400, 500, 64, 62, 250, 384, 382, 120, 150, 192, 190, 320, 350, 450,
)  # fmt: skip


# ---- padding ---------------------------------------------------------------------------------------------------------


def fitted_paddings(evidence: Evidence) -> list[Deviation]:
    """Return the rules of padding that explain a few short vectors; none if there is no such rule."""
    wrong = [place for place in evidence.probes if evidence.errors[place] > evidence.tolerance]
    places = evidence.shortest(evidence.model.base, wrong)[:CHECKED]
    if not places:
        return []
    for attends, pools in MASKED:
        fit = _Fit(evidence, attends, pools)
        length, error = fit.best(places[0])
        if error <= fit.limit:
            rules = [rule for rule in _rules(evidence) if fit.lengths(rule)[places[0]] == length]
            return [padding(rule, attends, pools) for rule in fit.consistent(rules, places[1:])][:MOST_FITTED]
    return []


def _rules(evidence: Evidence) -> Iterator[Padding]:
    """The rules of padding, the likely ones first."""
    n = len(evidence.given.texts)
    P = evidence.model.base.config.max_position_embeddings
    batches = [size for size in BATCHES if size < n and n <= SAMPLE]  # the batches of a sample are unknown
    yield from (Padding("batch", size) for size in batches[:5])
    yield from (Padding("fixed", length) for length in range(1, P + 1))
    yield from (Padding("multiple", size) for size in MULTIPLES)
    yield from (Padding("sorted batch", size) for size in batches[:5])
    yield from (Padding("batch", size) for size in batches[5:])
    yield from (Padding("sorted batch", size) for size in batches[5:])


class _Fit:
    """How well padding of any length, with this use of the mask, explains single texts."""

    def __init__(self, evidence: Evidence, attends: bool, pools: bool) -> None:
        self._evidence, self._attends, self._pools = evidence, attends, pools
        self.limit = 2.0 * evidence.tolerance
        self._errors: dict[tuple[int, int], float] = {}

    def _variation(self, rule: Padding) -> Variation:
        return replace(
            self._evidence.model.base, padding=rule, attends_to_padding=self._attends, pools_padding=self._pools
        )

    def lengths(self, rule: Padding) -> list[int]:
        """Return the padded length of each text under a rule."""
        return self._evidence.model.padded(self._variation(rule))

    def error(self, place: int, length: int) -> float:
        """Return the relative error that remains if a text is padded to a length."""
        if (place, length) not in self._errors:
            found = self._evidence.vectors_of(self._variation(Padding("fixed", length)), [place])
            self._errors[place, length] = float(relative_errors(self._evidence.vectors[[place]], found)[0])
        return self._errors[place, length]

    def best(self, place: int) -> tuple[int, float]:
        """Return the length that explains a text best, and the error that remains.

        The error mostly grows with the distance from the right length. So a coarse search is refined around its few
        best lengths: the very best one may be a near miss.
        """
        own = self._evidence.model.padded(self._evidence.model.base)[place]
        P = self._evidence.model.base.config.max_position_embeddings
        tried = sorted({min(own + 1, P), *(n for n in COARSE if own < n <= P)})
        if min(self.error(place, length) for length in tried) > HOPELESS * self._evidence.errors[place]:
            return tried[0], math.inf
        while True:
            ranked = sorted(tried, key=lambda length: self.error(place, length))
            if self.error(place, ranked[0]) <= self.limit:
                return ranked[0], self.error(place, ranked[0])
            middles: set[int] = set()
            for best in ranked[:REFINED]:
                at = tried.index(best)
                middles |= {(a + b) // 2 for a, b in itertools.pairwise(tried[max(0, at - 1) : at + 2])}
            if ranked[0] == tried[-1]:
                middles.add(min(2 * tried[-1], P))
            if middles <= {*tried}:
                return ranked[0], self.error(place, ranked[0])
            tried = sorted({*tried, *middles})

    def consistent(self, rules: Sequence[Padding], places: Sequence[int]) -> list[Padding]:
        """Return the rules that explain further texts, too; of rules with the same lengths the likeliest one."""
        left = list({tuple(self.lengths(rule)): rule for rule in reversed(rules)}.values())[::-1]
        for place in places:
            lengths = {self.lengths(rule)[place] for rule in left}
            fitting = {length for length in lengths if self.error(place, length) <= self.limit}
            left = [rule for rule in left if self.lengths(rule)[place] in fitting]
        return left


# ---- windows ---------------------------------------------------------------------------------------------------------


def fitted_windows(evidence: Evidence) -> list[Deviation]:
    """Return the windows that explain a long text, if all texts that fit into one window are explained by it."""
    base, model = evidence.model.base, evidence.model
    P = base.config.max_position_embeddings
    best: list[tuple[float, Deviation]] = []
    for size in dict.fromkeys(min(size, P - 2) for size in (*WINDOWS, base.config.max_seq_length - 2)):
        for splits_words in (True, False):
            cut = replace(base, windows=Windows(size, splits_words))
            long = [place for place in evidence.probes if len(model.tokens(cut)[place]) > 1]
            place = next(iter(evidence.shortest(cut, long)), None)
            if place is None:
                continue
            for weighted, normalizes in ((True, False), (False, False), (True, True), (False, True)):
                parts = Windows(size, splits_words, weighted, normalizes)
                found = evidence.vectors_of(replace(base, windows=parts), [place])
                error = float(relative_errors(evidence.vectors[[place]], found)[0])
                best.append((error, windows(parts, base.config.max_seq_length)))
    near = sorted((one for one in best if one[0] <= min(NEAR, 4.0 * evidence.tolerance)), key=lambda one: one[0])
    return [deviation for _, deviation in near[:MOST_FITTED]]


# ---- both ------------------------------------------------------------------------------------------------------------


def fitted(evidence: Evidence) -> list[Deviation]:
    """Return deviations with fitted numbers that explain a few of the vectors, and are not among the known ones."""
    lengths = evidence.model.padded(evidence.model.base)
    wrong = [lengths[place] for place in evidence.probes if evidence.errors[place] > evidence.tolerance]
    if not wrong:
        return []
    found = fitted_windows(evidence) if min(wrong) >= SHORTEST_WINDOW else []
    known = {one.name for one in evidence.known}
    return [one for one in found or fitted_paddings(evidence) if one.name not in known]

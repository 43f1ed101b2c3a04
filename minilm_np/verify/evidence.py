"""The evidence of a diagnosis: the vectors, their errors, and the few texts on which the deviations are tried.

Three sets of texts, each one a part of the set before it:

- all texts: every vector is compared with the model as it is;
- the sample: at most SAMPLE texts, from which the search chooses;
- the probes: a few texts of each kind, with at most SEARCH_TOKENS tokens; every deviation is tried on them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.deviations import deviations
from minilm_np.verify.low_precision import low_precisions
from minilm_np.verify.roundings import storage_rounding
from minilm_np.verify.variations import Deviation, Variation, VariedModel
from minilm_np.verify.vector_errors import relative_errors

SAMPLE = 1000  # texts
SEARCH_TOKENS = 1500  # of all probes, padding included
SHORT = 6  # tokens; shorter texts show less than others, so they are chosen last

ROUNDING = (
    8.0  # rounding explains errors up to this many times our own float32 error: other orders of sums may be worse
)
LEAST_ROUNDING = 4e-6  # relative to a vector's largest number


@dataclass(frozen=True)
class Given:
    """All n given vectors, and those of the encoder."""

    texts: list[str]
    vectors: Array  # (n, D) float64
    ours: Array  # (n, D) float64, by the encoder's own backend
    errors: Array  # (n,) relative errors of `vectors`
    same_bits: bool
    stored_as: str  # "as float16", "with 4 decimals"; "" if the numbers were not rounded
    storage: float  # the relative error of that


@dataclass(frozen=True)
class Evidence:
    """What is tried, on which texts, and what counts as rounding."""

    given: Given
    known: list[Deviation]
    low_precisions: list[Deviation]
    sample: list[int]  # rows of `given`, ascending
    vectors: Array  # (sample, D) the given ones
    errors: Array  # (sample,) theirs
    model: VariedModel  # on the texts of the sample
    lengths: list[int]  # tokens of each text of the sample
    acts: dict[str, Array]  # by deviation: the texts of the sample on which it can act, (sample,) bool
    probes: list[int]  # places in the sample, ascending
    base: Array  # (probes, D) the model's vectors by the reference in float32, as float64
    rounding: float  # the relative error that float32 rounding explains
    tolerance: float  # the same of two sides that both round, with the rounding of the stored numbers

    def variation(self, names: Iterable[str]) -> Variation:
        """Return the model with these deviations."""
        variation = self.model.base
        for name in names:
            variation = next(one for one in (*self.known, *self.low_precisions) if one.name == name).vary(variation)
        return variation

    def few(self, variation: Variation, places: Iterable[int], budget: int) -> list[int]:
        """Return the shortest of some texts of the sample that fit into a number of tokens; at least one."""
        lengths = self.model.lengths(variation)
        return _within(sorted(places, key=lambda place: (self.lengths[place] < SHORT, lengths[place])), lengths, budget)


def gather(encoder: SentenceEncoder, vectors: Array, texts: list[str]) -> Evidence:
    """Return the evidence on vectors (n, D) of n texts."""
    given = _given(encoder, vectors, texts)
    sample = _sample(given.errors, encoder.tokenizer(texts).n_tokens)
    model = VariedModel(encoder, [texts[row] for row in sample])
    known = deviations(encoder.config)
    acts = {one.name: model.acts_on(one.vary(model.base)) for one in known}
    lengths = model.lengths(model.base)
    probes = _probes(list(acts.values()), lengths, given.errors[sample])
    base = model.vectors(model.base, probes).astype(np.float64)
    noise = relative_errors(base, model.vectors(model.base, probes, np.float64))
    rounding = max(LEAST_ROUNDING, ROUNDING * float(noise.max()))
    return Evidence(
        given, known, low_precisions(), sample, given.vectors[sample], given.errors[sample],
        model, lengths, acts, probes, base, rounding,
        tolerance=2.0 * rounding + given.storage,
    )  # fmt: skip


def _given(encoder: SentenceEncoder, vectors: Array, texts: list[str]) -> Given:
    ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.hidden_size, on_truncation="ignore")
    same_bits = vectors.dtype == np.float32 and vectors.tobytes() == ours.tobytes()
    wide, wide_ours = vectors.astype(np.float64), ours.astype(np.float64)
    return Given(texts, wide, wide_ours, relative_errors(wide, wide_ours), same_bits, *storage_rounding(vectors))


def _sample(errors: Array, lengths: Sequence[int]) -> list[int]:
    """All rows, or of very many the longest text, those with the largest errors, and others at even distances."""
    n = len(errors)
    if n <= SAMPLE:
        return list(range(n))
    worst = np.argsort(-errors)[: SAMPLE // 2].tolist()
    spread = np.linspace(0, n - 1, SAMPLE // 2 - 1).astype(int).tolist()
    return sorted({int(np.argmax(lengths)), *worst, *spread})


def _probes(acts: list[Array], lengths: Sequence[int], errors: Array) -> list[int]:
    """A few texts of each kind. Two texts are of one kind if the same deviations can act on both."""
    partial = [one for one in acts if one.any() and not one.all()]
    kinds: dict[bytes, list[int]] = {}
    for place in range(len(lengths)):
        kinds.setdefault(np.array([one[place] for one in partial], bool).tobytes(), []).append(place)
    first, more = [], []
    for places in kinds.values():
        cheap = sorted(places, key=lambda place: (lengths[place] < SHORT, lengths[place]))
        first.append(cheap[0])
        more += [*cheap[1:3], max(places, key=errors.__getitem__)]
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    spread = [by_length[place] for place in np.linspace(0, len(by_length) - 1, 12).astype(int)]
    return sorted(_within([int(np.argmax(errors)), *first, *more, *spread], lengths, SEARCH_TOKENS))


def _within(places: Iterable[int], lengths: Sequence[int], budget: int) -> list[int]:
    """The places, each once, whose texts fit into a number of tokens one after the other; at least the first one."""
    chosen: list[int] = []
    for place in dict.fromkeys(places):
        if not chosen or lengths[place] <= budget:
            chosen.append(place)
            budget -= lengths[place]
    return chosen

"""The evidence of a diagnosis: the vectors, their errors, and the few texts on which the deviations are tried.

Four sets of texts, each one a part of the set before it:

- all texts: every vector is compared with the model as it is;
- the sample: at most SAMPLE texts, from which the search chooses;
- the probes: a few texts of each kind, with at most SEARCH_TOKENS tokens;
- the texts of one deviation: the screen runs it on the shortest few probes on which it acts, a measurement in float64
  on the most telling probes, with at most MEASURE_TOKENS tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.deviations import deviations
from minilm_np.verify.low_precision import low_precisions
from minilm_np.verify.roundings import storage_rounding
from minilm_np.verify.variations import Deviation, Variation
from minilm_np.verify.varied_model import VariedModel
from minilm_np.verify.vector_errors import relative_errors

SAMPLE = 1000  # texts
SEARCH_TOKENS = 1500  # of all probes
MEASURE_TOKENS = 600  # of the probes of one measurement, padding included
NOISE_TOKENS = 300  # of the texts on which our own rounding is measured
SHORT = 6  # tokens; shorter texts show less than others, so they are chosen last

# Rounding explains errors up to this many times our own float32 error: other orders of sums may be worse.
ROUNDING = 8.0
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
    known: list[Deviation]  # `diagnose` appends those that it fits
    sample: list[int]  # rows of `given`, ascending
    vectors: Array  # (sample, D) the given ones
    errors: Array  # (sample,) theirs
    model: VariedModel  # on the texts of the sample
    probes: list[int]  # places in the sample, the most telling first
    base: Array  # (probes, D) the model's vectors in float32, as float64
    rounding: float  # the relative error that float32 rounding explains
    tolerance: float  # the same of two sides that both round, with the rounding of the stored numbers

    @cached_property
    def low_precisions(self) -> list[Deviation]:
        """Return the low-precision arithmetics."""
        return low_precisions()

    def variation(self, names: Iterable[str]) -> Variation:
        """Return the model with these deviations."""
        variation = self.model.base
        for name in names:
            variation = self.named(name).vary(variation)
        return variation

    def named(self, name: str) -> Deviation:
        """Return the deviation of this name."""
        return next(one for one in (*self.known, *self.low_precisions) if one.name == name)

    def shortest(self, variation: Variation, places: Iterable[int]) -> list[int]:
        """Return texts of the sample, the shortest first; those that show little are the last."""
        own, lengths = self.model.padded(self.model.base), self.model.padded(variation)
        return sorted(places, key=lambda place: (own[place] < SHORT, lengths[place]))

    def few(self, variation: Variation, places: Iterable[int], budget: int) -> list[int]:
        """Return the shortest of some texts of the sample that fit into a number of tokens; at least one."""
        return _within(self.shortest(variation, places), self.model.padded(variation), budget)

    def telling(self, variation: Variation) -> list[int]:
        """Return the most telling probes that fit into a measurement, ascending."""
        return sorted(_within(self.probes, self.model.padded(variation), MEASURE_TOKENS))

    def vectors_of(self, variation: Variation, places: Sequence[int]) -> Array:  # (places, D)
        """Return the vectors of some texts of the sample under a variation, in float32, as float64."""
        return self.model.vectors(variation, places).astype(np.float64)


def gather(encoder: SentenceEncoder, vectors: Array, texts: list[str]) -> Evidence:
    """Return the evidence on vectors (n, D) of n texts."""
    given = _given(encoder, vectors, texts)
    sample = _sample(given.errors, encoder.tokenizer(texts).n_tokens)
    model = VariedModel(encoder, [texts[row] for row in sample])
    known = deviations(encoder.config)
    errors = given.errors[sample]
    lengths = model.padded(model.base)
    probes = _probes([model.acts_on(one.vary(model.base)) for one in known], lengths, errors)
    base = model.vectors(model.base, probes).astype(np.float64)
    few = _within(
        sorted(range(len(probes)), key=lambda n: lengths[probes[n]]), [lengths[n] for n in probes], NOISE_TOKENS
    )
    noise = relative_errors(base[few], model.vectors(model.base, [probes[n] for n in few], np.float64))
    rounding = max(LEAST_ROUNDING, ROUNDING * float(noise.max()))
    return Evidence(
        given, known, sample, given.vectors[sample], errors, model, probes, base, rounding,
        tolerance=2.0 * rounding + given.storage,
    )  # fmt: skip


def _given(encoder: SentenceEncoder, vectors: Array, texts: list[str]) -> Given:
    ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.vector_size, on_truncation="ignore")
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
    first.sort(key=lengths.__getitem__)
    return _within([int(np.argmax(errors)), *first, *more, *spread], lengths, SEARCH_TOKENS)


def _within(places: Iterable[int], lengths: Sequence[int], budget: int) -> list[int]:
    """The places, each once, whose texts fit into a number of tokens one after the other; at least the first one."""
    chosen: list[int] = []
    for place in dict.fromkeys(places):
        if not chosen or lengths[place] <= budget:
            chosen.append(place)
            budget -= lengths[place]
    return chosen

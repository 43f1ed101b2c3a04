"""How near the vectors of an engine are to those of the reference in float64, and what that means for a ranking."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.texts import paragraphs, read_pairs
from minilm_np import SentenceEncoder, reference
from minilm_np.evaluation import spearman

LARGEST_ERROR = 1e-5  # of any number of a float32 vector; correct float32 has a tenth of it
BF16_DISTANCE = 1e-4  # mean 1 - cosine; multiplying in bf16 gives about 2e-5, in 8 bits about 5e-3
WRONG = 0.1  # mean 1 - cosine that is a fault, not rounding
LOST = 0.5  # Spearman correlation, times 100

FLOAT32, CLOSE, EIGHT_BITS = GROUPS = ("float32", "as close as bf16 or closer", "8 bits")

Vectors = NDArray[np.floating]


class Accuracy(NamedTuple):
    """The errors of an engine's vectors. They are scaled to unit length first."""

    mean: float  # of 1 - cosine
    largest: float
    largest_difference: float  # of any number of a vector
    spearman: float | None  # times 100; None without a file of sentence pairs

    def group(self) -> str:
        """Return the most accurate group that this engine belongs to. The groups contain each other."""
        if self.largest_difference <= LARGEST_ERROR:
            return FLOAT32
        return CLOSE if self.mean <= BF16_DISTANCE else EIGHT_BITS


class Judge:
    """Measures engines on a fixed set of texts, and on a .tsv of sentence pairs if there is one."""

    def __init__(self, n_texts: int, sts: Path | None) -> None:
        self.texts = paragraphs(n_texts, half=1)
        encoder = SentenceEncoder(backend="numpy")
        weights = reference.nest(encoder.weights, np.float64)
        self._truth = unit(reference.encode_ragged(encoder.tokenizer(self.texts).ids, weights, encoder.config))
        self._scores, first, second = read_pairs(sts) if sts else ([], [], [])
        self.pairs = [*first, *second]

    def judge(self, vectors: Vectors, pair_vectors: Vectors | None) -> Accuracy:
        """Return the accuracy of an engine from its vectors of `texts` and of `pairs`."""
        found = unit(vectors)
        distances = one_minus_cosine(found, self._truth)
        correlation = None
        if pair_vectors is not None:
            first, second = np.split(unit(pair_vectors), 2)
            correlation = 100 * spearman(np.array(self._scores), (first * second).sum(axis=1))
        return Accuracy(
            float(distances.mean()), float(distances.max()), float(np.abs(found - self._truth).max()), correlation
        )


def unit(vectors: Vectors) -> NDArray[np.float64]:
    """Return the vectors in float64, scaled to unit length."""
    found = np.asarray(vectors, np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def one_minus_cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 - cosine of each pair of unit vectors, as half the squared distance: exact where it is small."""
    return ((a - b) ** 2).sum(axis=1) / 2


def fault(found: Vectors, expected: Vectors) -> str | None:
    """Return what is wrong with the vectors of a workload, other than rounding; None if nothing is."""
    if found.shape != expected.shape:
        return f"its vectors have the shape {found.shape}, not {expected.shape}"
    if not np.isfinite(found).all():
        return "its vectors have numbers that are not finite"
    distance = one_minus_cosine(unit(found), unit(expected)).mean()
    return f"its vectors are wrong: 1 - cosine is {distance:.1e} on average" if distance > WRONG else None

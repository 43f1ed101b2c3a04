"""Whether a difference matters: the nearest neighbours and the cosines of a corpus, with both sides' vectors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np._checks import check_texts
from minilm_np.errors import ImplementationError, InputValueError
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.implementations import as_implementation
from minilm_np.verify.interface import Implementation
from minilm_np.verify.stored_vectors import StoredVectors
from minilm_np.verify.vector_errors import units

NEIGHBOURS = 10
QUERIES = 1000  # texts whose neighbours are compared; of a larger corpus, evenly spaced ones
RANKED = 200  # texts whose similarities are ranked for Kendall's tau, which takes RANKED^3 steps
TIE = 1e-6  # cosines closer than this are a tie: the order of two such neighbours is decided by rounding
NEARLY = 0.99  # share of equal neighbours from which retrieval is nearly the same
BLOCK = 2**23  # similarities in memory at a time


@dataclass(frozen=True)
class Retrieval:
    """The result of `compare_retrieval`."""

    theirs: str
    corpus: str  # how many texts, and where they come from
    texts: int
    queries: int  # each of these texts is a query for the others
    neighbours: int  # per query
    mean_overlap: float  # neighbours of a query that both sides find, on average
    all_equal: int  # queries for which all neighbours are equal
    first_equal: int  # queries for which the nearest neighbour is equal
    worst_query: str  # the query with the fewest equal neighbours
    worst_overlap: int
    kendall_tau: float  # of the similarities of each query to the other texts, on average; 1: the same order
    max_cosine_change: float  # largest change of the cosine of a query and a text
    not_finite: int  # their vectors with NaN or infinity, which count as vectors of zeros

    @property
    def is_same(self) -> bool:
        """Whether both sides find the same neighbours for all queries."""
        return self.all_equal == self.queries and not self.not_finite

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        k = self.neighbours
        invalid = f"; {self.not_finite} of their vectors are not finite" if self.not_finite else ""
        if k == self.texts - 1:
            return (
                f"Equal neighbours show nothing here: there are {self.texts} texts, so the {k} neighbours of a query "
                f"are all other texts{invalid}. Search more texts."
            )
        if self.all_equal == self.queries:
            return f"Retrieval is the same: all {k} neighbours are equal for every query{invalid}."
        how = "nearly the same" if self.mean_overlap >= NEARLY * k and not self.not_finite else "different"
        return (
            f"Retrieval is {how}: {self.mean_overlap:.2f} of {k} neighbours are equal on average, all {k} for "
            f"{self.all_equal} of {self.queries} queries, {self.worst_overlap} for the worst query{invalid}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        return {"sentence": self.sentence, "is_same": self.is_same, **asdict(self)}


def built_in_sentences() -> list[str]:
    """Return 300 sentences on everyday topics. Most have a near neighbour."""
    return (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()


def compare_retrieval(
    encoder: SentenceEncoder,
    source: str | Implementation,
    corpus: Sequence[str] | None = None,
    *,
    neighbours: int = NEIGHBOURS,
) -> Retrieval:
    """Search a corpus with both sides' vectors, and return how far the results agree.

    source: an argument of `open_implementation`, or its result.
    corpus: at least two texts. None: the texts of the source, if it is a file of vectors with texts; else 300 built-in
        sentences.
    neighbours: the number of neighbours per query.

    Each text is a query for the others, ranked by cosine. Of a corpus of more than 1000 texts, 1000 evenly spaced ones
    are queries. Two neighbours whose cosines differ by less than 1e-6 are a tie, and count as equal.
    Kendall's tau is measured among at most 200 evenly spaced texts.
    Raises InputTypeError and InputValueError (corpus, neighbours, source), ImplementationError (the other
    implementation fails), MissingExtraError (a package is not installed).
    """
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
        raise InputValueError(f"neighbours: expected a whole number of at least 1, found {neighbours!r}")
    other = as_implementation(source, encoder)
    texts, name = _corpus(other, corpus)
    D = encoder.config.vector_size
    ours = units(encoder.encode(texts, prompt="", truncate_dim=D, on_truncation="ignore").astype(np.float64))
    given = np.asarray(other.vectors(texts))
    if given.ndim != 2 or len(given) != len(texts):
        raise ImplementationError(f"{other.name}: expected {len(texts)} vectors, found an array of shape {given.shape}")
    finite = np.isfinite(given).all(axis=1)
    theirs = units(np.where(finite[:, None], given, 0.0).astype(np.float64))
    k = min(neighbours, len(texts) - 1)
    queries = _spaced(len(texts), QUERIES)
    overlaps, firsts, change = _searched(ours, theirs, queries, k)
    worst = int(np.argmin(overlaps))
    return Retrieval(
        theirs=other.name,
        corpus=name,
        texts=len(texts),
        queries=len(queries),
        neighbours=k,
        mean_overlap=float(overlaps.mean()),
        all_equal=int((overlaps == k).sum()),
        first_equal=int(firsts.sum()),
        worst_query=texts[queries[worst]],
        worst_overlap=int(overlaps[worst]),
        kendall_tau=_kendall_tau(ours, theirs, _spaced(len(texts), RANKED)),
        max_cosine_change=change,
        not_finite=int((~finite).sum()),
    )


def _corpus(other: Implementation, corpus: Sequence[str] | None) -> tuple[list[str], str]:
    """The texts, and how many they are and where they come from, in words."""
    if corpus is None and isinstance(other, StoredVectors):
        if other.texts is None:
            raise InputValueError(f"corpus: expected the texts of {other.name}, which has none, found None")
        texts, name = other.texts, f"texts of {other.name}"
    elif corpus is None:
        texts, name = built_in_sentences(), "built-in sentences"
    else:
        texts, name = check_texts(corpus), "texts of the corpus"
    if len(texts) < 2:
        raise InputValueError(f"corpus: expected at least 2 texts, found {len(texts)}")
    return list(texts), f"{len(texts)} {name}"


def _spaced(count: int, most: int) -> Array:
    """At most `most` of the numbers below `count`, evenly spaced."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def _searched(ours: Array, theirs: Array, queries: Array, k: int) -> tuple[Array, Array, float]:
    """Per query, the number of equal neighbours and whether the nearest is equal; the largest change of a cosine."""
    overlaps, firsts, change = [], [], 0.0
    size = max(1, BLOCK // len(ours))
    for start in range(0, len(queries), size):
        rows = queries[start : start + size]
        a, b = ours[rows] @ ours.T, theirs[rows] @ theirs.T  # (queries, texts)
        change = max(change, float(np.abs(a - b).max()))
        at = np.arange(len(rows))
        a[at, rows] = b[at, rows] = -np.inf  # a query is no neighbour of itself
        found = np.argpartition(-b, k - 1, axis=1)[:, :k]
        least = np.partition(a, -k, axis=1)[:, -k] - TIE
        overlaps.append((np.take_along_axis(a, found, axis=1) >= least[:, None]).sum(axis=1))
        firsts.append(a[at, b.argmax(axis=1)] >= a.max(axis=1) - TIE)
    return np.concatenate(overlaps), np.concatenate(firsts), change


def _kendall_tau(ours: Array, theirs: Array, rows: Array) -> float:
    """The mean of Kendall's tau-b of the similarities of each of these texts to the others."""
    a, b = ours[rows] @ ours[rows].T, theirs[rows] @ theirs[rows].T
    others = ~np.eye(len(rows), dtype=bool)
    found = []
    for row, keep in enumerate(others):
        x, y = (np.sign(np.subtract.outer(one, one)).astype(np.float32) for one in (a[row][keep], b[row][keep]))
        pairs = float(np.sqrt(np.square(x).sum(dtype=np.float64) * np.square(y).sum(dtype=np.float64)))
        if pairs:  # without any order on one side, or with a single other text, there is no tau
            found.append(float((x * y).sum(dtype=np.float64)) / pairs)
    return float(np.mean(found)) if found else 1.0

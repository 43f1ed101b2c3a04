"""How good vectors are: agreement with people's scores of similarity (STS), and finding what belongs to a query.

Both take anything with `encode(texts) -> (n, D)`, so that a model can be asked while it is trained.
"""

import csv
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilm_np.errors import DataError, InputValueError
from minilm_np.train.data import decode_line, raw_lines, read_samples

Floats = NDArray[np.float64]

SCORES_AT_A_TIME = 1 << 22  # of queries with documents: 32 MB of float64
RAW_STS_COLUMNS = {"score": 4, "sentence1": 5, "sentence2": 6}  # of the STS benchmark as it is distributed, no header


class TextEncoder(Protocol):
    """A `SentenceEncoder`, or anything else that turns n texts into (n, D) numbers."""

    def encode(self, texts: list[str], /) -> Any: ...


def sts(encoder: TextEncoder, path: str | os.PathLike[str]) -> dict[str, float]:
    """Correlation of the cosine of two sentences with the score that people gave them.

    path: a file that `read_sts` reads.
    Returns pairs, spearman and pearson (from -1 to 1; NaN where all cosines are equal). Raises DataError.
    """
    scores, first, second = read_sts(path)
    vectors, rows = _encode_distinct(encoder, first + second)
    cosines = np.einsum("nd,nd->n", vectors[rows[: len(first)]], vectors[rows[len(first) :]])
    return {"pairs": len(scores), "spearman": spearman(cosines, scores), "pearson": pearson(cosines, scores)}


def retrieval(
    encoder: TextEncoder, path: str | os.PathLike[str], *, k: int = 10, merge_queries: bool = False
) -> dict[str, float]:
    """How well a query finds its own document among all the distinct documents of a file.

    path: a file of pairs (query, document), as for training; further columns are documents that are not relevant.
    merge_queries: False: every line is a query, and only its own document is relevant. True: lines with the same query
        are one, with several relevant documents.
    Returns queries, documents, MRR@k, recall@1, recall@5, recall@k, nDCG@k, as `retrieval_vectors`. Raises DataError.
    """
    samples = list(read_samples(path))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(text for s in samples for text in s[1:]))}
    queries = [sample[0] for sample in samples]
    relevant = [[numbers[sample[1]]] for sample in samples]
    if merge_queries:
        merged: dict[str, list[int]] = {}
        for query, own in zip(queries, relevant, strict=True):
            merged.setdefault(query, []).extend(own)
        queries, relevant = list(merged), [list(dict.fromkeys(own)) for own in merged.values()]
    query_vectors, rows = _encode_distinct(encoder, queries)
    document_vectors, _ = _encode_distinct(encoder, list(numbers))
    return retrieval_vectors(query_vectors[rows], document_vectors, relevant, k=k)


def retrieval_vectors(
    queries: ArrayLike, documents: ArrayLike, relevant: Sequence[Sequence[int]], *, k: int = 10
) -> dict[str, float]:
    """Measures of search by cosine: queries (q, D) against documents (n, D), averaged over the queries.

    relevant: for each query the rows of the documents that it should find, at least one.
    MRR@k: 1 / the place of the first relevant document, 0 if it is not among the first k. recall@k: the part of the
    relevant documents that is among the first k. nDCG@k: the sum of 1 / log2(1 + place) over the relevant documents
    among the first k, divided by the largest that it could be.

    Documents with equal scores (in float32) have no order; each measure is its expected value if they are shuffled
    (McSherry and Najork 2008). A model that gives all texts one vector is then as good as chance, not perfect.
    Raises InputValueError. Memory: the vectors in float64, and some 50 MB of scores at a time (or one query's).
    """
    query_rows, document_rows = unit_rows(queries, "queries"), unit_rows(documents, "documents")
    n = len(document_rows)
    if query_rows.shape[1] != document_rows.shape[1] or not n or not len(query_rows):
        raise InputValueError(
            f"expected queries (q, D) and documents (n, D), at least one of each, found {query_rows.shape} and "
            f"{document_rows.shape}"
        )
    if len(relevant) != len(query_rows):
        raise InputValueError(f"relevant: expected a list for each of {len(query_rows)} queries, found {len(relevant)}")
    for query, own in enumerate(relevant):
        if not len(own) or len(set(own)) != len(own) or not all(0 <= row < n for row in own):
            raise InputValueError(f"relevant[{query}]: expected distinct rows of {n} documents, at least one")
    if k < 1:
        raise InputValueError(f"k: expected at least 1, found {k}")
    cutoffs = sorted({1, 5, k})
    measures = []
    size = max(1, SCORES_AT_A_TIME // n)
    for start in range(0, len(query_rows), size):
        # float64 sums in whatever order, rounded to float32: equal vectors then have equal scores
        scores = (query_rows[start : start + size] @ document_rows.T).astype(np.float32)
        for row, own in zip(scores, relevant[start : start + size], strict=True):
            measures.append(_measures(row, own, k, cutoffs))
    means = np.mean(measures, axis=0).tolist()
    names = [f"MRR@{k}", *(f"recall@{cutoff}" for cutoff in cutoffs), f"nDCG@{k}"]
    return {"queries": len(query_rows), "documents": n} | dict(zip(names, means, strict=True))


def _measures(scores: NDArray[np.float32], relevant: Sequence[int], k: int, cutoffs: list[int]) -> list[float]:
    """One query: [mrr, recall at each cutoff, ndcg], expected over all orders of equal scores."""
    own, counts = np.unique(-scores[list(relevant)], return_counts=True)  # best first
    reciprocal = gain = 0.0
    found = [0.0] * len(cutoffs)
    for place, (score, count) in enumerate(zip(-own, counts.tolist(), strict=True)):
        before = int(np.count_nonzero(scores > score))
        if before >= max(k, cutoffs[-1]):
            break
        tied = int(np.count_nonzero(scores == score))  # `count` relevant ones among them
        for i, cutoff in enumerate(cutoffs):
            found[i] += count * min(max(cutoff - before, 0), tied) / tied
        places = range(before + 1, min(before + tied, k) + 1)
        gain += count / tied * sum(1 / math.log2(1 + p) for p in places)
        if place == 0:
            none_yet = 1.0  # the probability that no relevant one has come
            for i, p in enumerate(places):
                here = min(1.0, count / (tied - i))
                reciprocal += none_yet * here / p
                none_yet *= 1 - here
    ideal = sum(1 / math.log2(1 + p) for p in range(1, min(len(relevant), k) + 1))
    return [reciprocal, *(part / len(relevant) for part in found), gain / ideal]


def read_sts(path: str | os.PathLike[str]) -> tuple[list[float], list[str], list[str]]:
    """Scores, first and second sentences of a file of the semantic textual similarity task.

    A header line that names score, sentence1 and sentence2 among its columns, tab-separated (quotes are text) or
    comma-separated (quotes quote); or, without one, the STS benchmark as it is distributed: tab-separated, the same
    three in columns 5, 6 and 7. A name that ends in .gz is unpacked.

    Raises DataError, naming the line: no such columns, a score that is no number, an empty sentence, fewer than two
    pairs, scores that are all the same.
    """
    path = Path(path)
    rows = _cells(path)
    number, head = next(rows, (1, []))
    names = [name.strip().lower() for name in head]
    columns = RAW_STS_COLUMNS
    scores: list[float] = []
    first: list[str] = []
    second: list[str] = []
    if columns.keys() <= set(names):
        columns = {name: names.index(name) for name in columns}
    elif len(head) > max(columns.values()) and _number(head[columns["score"]]) is not None:
        rows = itertools.chain([(number, head)], rows)
    else:
        raise DataError(
            f"{path}, line {number}: expected a header that names the columns score, sentence1 and sentence2, or the "
            "STS benchmark's own columns (the score in column 5, the sentences in 6 and 7, between tabs), found "
            + (", ".join(name[:20] for name in head[:8]) or "an empty file")
        )
    for number, cells in rows:
        where = f"{path}, line {number}"
        if len(cells) <= max(columns.values()):
            raise DataError(f"{where}: expected at least {max(columns.values()) + 1} columns, found {len(cells)}")
        score = _number(cells[columns["score"]])
        if score is None:
            raise DataError(f"{where}: the score: expected a number, found {cells[columns['score']][:40]!r}")
        for name, sentences in (("sentence1", first), ("sentence2", second)):
            if not cells[columns[name]].strip():
                raise DataError(f"{where}: {name} is empty")
            sentences.append(cells[columns[name]])
        scores.append(score)
    if len(set(scores)) < 2:
        raise DataError(
            f"{path}, line {number}: the file ends here, with {len(scores)} pairs and {len(set(scores))} different "
            "scores: a correlation needs two"
        )
    return scores, first, second


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line number and cells of each line that is not empty. Raises DataError."""
    lines = (decode_line(raw, path, number) for number, raw in enumerate(raw_lines(path), 1))
    head = next(lines, "")
    lines = itertools.chain([head], lines)  # type: ignore[assignment]
    if "\t" in head:  # split here, for in these files quotes are part of the text, and stand alone
        for number, line in enumerate(lines, 1):
            if stripped := line.rstrip("\r\n"):
                yield number, stripped.split("\t")
        return
    reader = csv.reader(lines, strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: broken CSV: {error}: expected the columns score, sentence1 and "
            "sentence2, between tabs (.tsv) or as CSV"
        ) from None


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """The correlation of two series of n numbers; NaN where one of them is constant. Raises InputValueError."""
    a, b = _series(x, "x"), _series(y, "y")
    if a.shape != b.shape or a.size < 2:
        raise InputValueError(f"expected two series of the same length, at least 2, found {a.size} and {b.size}")
    if (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    a, b = ((c - c.mean()) / np.abs(c - c.mean()).max() for c in (a, b))  # so that no square overflows or vanishes
    return float(np.clip((a @ b) / math.sqrt(a @ a) / math.sqrt(b @ b), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """The correlation of the ranks of two series; NaN where one of them is constant. Raises InputValueError."""
    return pearson(ranks(x), ranks(y))


def ranks(values: ArrayLike) -> Floats:
    """The rank of each of n numbers, from 1; equal numbers share the mean of theirs. Raises InputValueError."""
    _, which, counts = np.unique(_series(values, "values"), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def unit_rows(vectors: ArrayLike, name: str = "vectors") -> Floats:
    """(n, D) -> float64 rows of length 1; a row of zeros stays. Raises InputValueError."""
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2:
        raise InputValueError(f"{name}: expected an array (n, D), found the shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputValueError(f"{name}: row {int(np.argmin(np.isfinite(rows).all(axis=1)))} is NaN or infinite")
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return rows / np.where(lengths > 0, lengths, 1)[:, None]


def _encode_distinct(encoder: TextEncoder, texts: list[str]) -> tuple[Floats, list[int]]:
    """Encode each distinct text once. Returns unit vectors, and the row of each text."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return unit_rows(encoder.encode(list(numbers))), [numbers[text] for text in texts]


def _series(values: ArrayLike, name: str) -> Floats:
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or not np.isfinite(series).all():
        raise InputValueError(f"{name}: expected a series of finite numbers, found the shape {series.shape}")
    return series

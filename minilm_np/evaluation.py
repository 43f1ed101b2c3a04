"""Evaluate sentence vectors: correlation with human scores of similarity (STS), and retrieval of relevant documents.

`sts` and `retrieval` accept any object with a method `encode(texts) -> (n, D)`, so they also evaluate a model during
training. `retrieval` uses the methods `encode_query` and `encode_document` instead if the object has them, so that a
model's prompts for queries and documents are put before the texts.
"""

import csv
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilm_np._text_files import decode_line, raw_lines, read_samples
from minilm_np.errors import DataError, InputValueError

Floats = NDArray[np.float64]

SCORES_AT_A_TIME = 1 << 22  # scores of queries with documents in memory at once: 32 MB of float64
# The columns, counted from 0, of the STS benchmark as it is distributed, without a header.
RAW_STS_COLUMNS = {"score": 4, "sentence1": 5, "sentence2": 6}


class TextEncoder(Protocol):
    """A `SentenceEncoder`, or any other object that turns n texts into n vectors, (n, D)."""

    def encode(self, texts: list[str], /) -> ArrayLike: ...


def sts(encoder: TextEncoder, path: str | os.PathLike[str]) -> dict[str, float]:
    """Correlate the cosines of sentence pairs with human scores of their similarity.

    path: a file that `read_sts` reads.
    Returns pairs (their number), spearman and pearson (from -1 to 1; NaN if all cosines are equal). Raises DataError.
    """
    scores, first, second = read_sts(path)
    vectors, rows = _encode_distinct(encoder.encode, first + second)
    cosines = np.einsum("nd,nd->n", vectors[rows[: len(first)]], vectors[rows[len(first) :]])
    return {"pairs": len(scores), "spearman": spearman(cosines, scores), "pearson": pearson(cosines, scores)}


def retrieval(
    encoder: TextEncoder, path: str | os.PathLike[str], *, k: int = 10, merge_queries: bool = False
) -> dict[str, float]:
    """Measure how well each query of a file retrieves its document among all distinct documents of the file.

    encoder: encodes queries by `encode_query` and documents by `encode_document`, or all by `encode` if it lacks these.
    path: a file of pairs (query, document), as for training. Further columns hold documents that are not relevant.
    k: the number of top-ranked documents that count.
    merge_queries: False: each line is one query, and only the document on that line is relevant. True: lines with the
        same query form one query, with several relevant documents.
    Returns queries, documents, MRR@k, recall@1, recall@5, recall@k and nDCG@k, as `retrieval_vectors` does.
    Raises DataError, InputValueError.
    """
    samples = list(read_samples(path))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(text for s in samples for text in s[1:]))}
    queries = [sample[0] for sample in samples]
    relevant = [[numbers[sample[1]]] for sample in samples]
    if merge_queries:
        merged: dict[str, list[int]] = {}
        for query, documents in zip(queries, relevant, strict=True):
            merged.setdefault(query, []).extend(documents)
        queries, relevant = list(merged), [list(dict.fromkeys(documents)) for documents in merged.values()]
    query_vectors, rows = _encode_distinct(getattr(encoder, "encode_query", encoder.encode), queries)
    document_vectors, _ = _encode_distinct(getattr(encoder, "encode_document", encoder.encode), list(numbers))
    return retrieval_vectors(query_vectors[rows], document_vectors, relevant, k=k)


def retrieval_vectors(
    queries: ArrayLike, documents: ArrayLike, relevant: Sequence[Sequence[int]], *, k: int = 10
) -> dict[str, float]:
    """Measure search by cosine, queries (q, D) against documents (n, D). Returns means over the queries.

    relevant: for each query, the rows of the relevant documents, at least one.

    MRR@k is 1 / rank of the first relevant document, or 0 if that is not among the top k. recall@k is the share of the
    relevant documents that are among the top k. nDCG@k is the sum of 1 / log2(1 + rank) over the relevant documents
    among the top k, divided by the largest possible sum.

    Documents with equal scores (in float32) have no order. Each measure is its expected value over all their orders
    (McSherry and Najork 2008). So a model that gives all texts the same vector gets the scores of a
    random order, not perfect scores.

    Raises InputValueError. Memory: the vectors in float64, and about 50 MB of scores at a time (or those of one query).
    """
    query_rows, document_rows = unit_rows(queries, "queries"), unit_rows(documents, "documents")
    n = len(document_rows)
    if query_rows.shape[1] != document_rows.shape[1] or not n or not len(query_rows):
        raise InputValueError(
            "expected queries (q, D) and documents (n, D), at least one of each, found the shapes "
            f"{query_rows.shape} and {document_rows.shape}"
        )
    if len(relevant) != len(query_rows):
        raise InputValueError(f"relevant: expected one list per query, {len(query_rows)} in all, found {len(relevant)}")
    for query, rows in enumerate(relevant):
        if not len(rows) or len(set(rows)) != len(rows) or not all(0 <= row < n for row in rows):
            raise InputValueError(
                f"relevant[{query}]: expected distinct rows of documents, from 0 to {n - 1}, at least one"
            )
    if k < 1:
        raise InputValueError(f"k: expected at least 1, found {k}")
    cutoffs = sorted({1, 5, k})
    measures = []
    size = max(1, SCORES_AT_A_TIME // n)
    for start in range(0, len(query_rows), size):
        # BLAS may sum equal vectors in different orders; the scores are equal again after rounding to float32
        scores = (query_rows[start : start + size] @ document_rows.T).astype(np.float32)
        for of_query, rows in zip(scores, relevant[start : start + size], strict=True):
            measures.append(_measures(of_query, rows, k, cutoffs))
    means = np.mean(measures, axis=0).tolist()
    names = [f"MRR@{k}", *(f"recall@{cutoff}" for cutoff in cutoffs), f"nDCG@{k}"]
    return {"queries": len(query_rows), "documents": n} | dict(zip(names, means, strict=True))


def _measures(scores: NDArray[np.float32], relevant: Sequence[int], k: int, cutoffs: list[int]) -> list[float]:
    """The measures of one query, [MRR, recall at each cutoff, nDCG]: means over all orders of equal scores."""
    negated, counts = np.unique(-scores[list(relevant)], return_counts=True)  # distinct scores, the best one first
    reciprocal = gain = 0.0
    retrieved = [0.0] * len(cutoffs)  # relevant documents among the top ones, for each cutoff
    for group, (score, count) in enumerate(zip(-negated, counts.tolist(), strict=True)):
        before = int(np.count_nonzero(scores > score))
        if before >= max(k, cutoffs[-1]):
            break
        tied = int(np.count_nonzero(scores == score))  # documents with this score; `count` of them are relevant
        for i, cutoff in enumerate(cutoffs):
            retrieved[i] += count * min(max(cutoff - before, 0), tied) / tied
        ranks_in_reach = range(before + 1, min(before + tied, k) + 1)
        gain += count / tied * sum(1 / math.log2(1 + rank) for rank in ranks_in_reach)
        if group == 0:
            none_before = 1.0  # the probability that no rank before this one holds a relevant document
            for i, rank in enumerate(ranks_in_reach):
                here = min(1.0, count / (tied - i))  # the probability that this rank holds one, if none before does
                reciprocal += none_before * here / rank
                none_before *= 1 - here
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(len(relevant), k) + 1))
    return [reciprocal, *(number / len(relevant) for number in retrieved), gain / ideal]


def read_sts(path: str | os.PathLike[str]) -> tuple[list[float], list[str], list[str]]:
    """Read a file of semantic textual similarity. Returns the scores, the first sentences and the second sentences.

    Either a header line names the columns score, sentence1 and sentence2, among others. The columns are separated by
    tabs (a quote is then part of the text) or by commas (quotes then enclose a text, as CSV has it). Or the file is the
    STS benchmark as it is distributed: no header, tabs, the score in column 5 and the sentences in columns 6 and 7.
    A file named `.gz` is decompressed.

    Raises DataError, with the line: missing columns, a score that is not a number, an empty sentence, fewer than two
    distinct scores.
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
            "columns of the STS benchmark (separated by tabs, the score in column 5, the sentences in 6 and 7), "
            "found " + (", ".join(name[:20] for name in head[:8]) or "an empty file")
        )
    for number, cells in rows:
        where = f"{path}, line {number}"
        if len(cells) <= max(columns.values()):
            raise DataError(f"{where}: expected at least {max(columns.values()) + 1} columns, found {len(cells)}")
        score = _number(cells[columns["score"]])
        if score is None:
            raise DataError(f"{where}: score: expected a number, found {cells[columns['score']][:40]!r}")
        for name, sentences in (("sentence1", first), ("sentence2", second)):
            if not cells[columns[name]].strip():
                raise DataError(f"{where}: {name} is empty: remove the line")
            sentences.append(cells[columns[name]])
        scores.append(score)
    if len(set(scores)) < 2:
        raise DataError(
            f"{path}: expected at least two distinct scores, for a correlation, found {len(set(scores))} "
            f"({len(scores)} pairs)"
        )
    return scores, first, second


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each line that is not empty. Raises DataError."""
    lines = (decode_line(raw, path, number) for number, raw in enumerate(raw_lines(path), 1))
    head = next(lines, "")
    lines = itertools.chain([head], lines)  # type: ignore[assignment]
    if "\t" in head:  # not by the csv module: in these files a quote is part of the text, and may be unpaired
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
            "sentence2, separated by tabs or as CSV"
        ) from None


def _number(text: str) -> float | None:
    """The number in a text; None if the text is not a number, or the number is not finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of two series of n numbers; NaN if one of them is constant. Raises InputValueError."""
    a, b = _series(x, "x"), _series(y, "y")
    if a.shape != b.shape or a.size < 2:
        raise InputValueError(f"expected two series of the same length, at least 2, found {a.size} and {b.size}")
    if (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    a, b = ((c - c.mean()) / np.abs(c - c.mean()).max() for c in (a, b))  # so that no square overflows or vanishes
    return float(np.clip((a @ b) / math.sqrt(a @ a) / math.sqrt(b @ b), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation, that is Pearson's of the ranks; NaN if a series is constant. Raises InputValueError."""
    return pearson(ranks(x), ranks(y))


def ranks(values: ArrayLike) -> Floats:
    """The ranks of n numbers, from 1; equal numbers share the mean of their ranks. Raises InputValueError."""
    _, which, counts = np.unique(_series(values, "values"), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # the highest rank of each distinct number
    return (last - (counts - 1) / 2)[which]


def unit_rows(vectors: ArrayLike, name: str = "vectors") -> Floats:
    """Scale the rows of (n, D) to length 1, in float64. A row of zeros stays zero. Raises InputValueError."""
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2:
        raise InputValueError(f"{name}: expected an array (n, D), found the shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputValueError(
            f"{name}: expected finite numbers, found NaN or infinity in row "
            f"{int(np.argmin(np.isfinite(rows).all(axis=1)))}"
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return rows / np.where(lengths > 0, lengths, 1)[:, None]


def _encode_distinct(encode: Callable[[list[str]], ArrayLike], texts: list[str]) -> tuple[Floats, list[int]]:
    """Encode each distinct text once. Returns unit vectors, and the row of each text."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return unit_rows(encode(list(numbers))), [numbers[text] for text in texts]


def _series(values: ArrayLike, name: str) -> Floats:
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or not np.isfinite(series).all():
        raise InputValueError(f"{name}: expected a series of finite numbers, found the shape {series.shape}")
    return series

"""Chunks of a ragged batch, each of whole texts, and the pooling of their tokens with its gradient.

Twins: `reference.pooling`, `backward.pooling_backward`. The sums are NumPy's, one per text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Chunk:
    """N tokens of B texts, one text after the other."""

    ids: Integers  # (N,)
    offsets: Integers  # (B + 1,): text b has the tokens offsets[b] to offsets[b + 1] - 1
    numbers: Integers  # (B,): the number of each text in the whole batch
    rows: Integers  # (N,): the position of each token in its text
    texts: Integers  # (N,): the number of the text of each token

    def same(self, other: "Chunk") -> bool:
        """Whether both chunks hold the same texts with the same numbers."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("ids", "offsets", "numbers"))


def chunks(texts: Sequence[Sequence[int]], budget: int) -> Iterator[Chunk]:
    """Cut a batch, in its order, into chunks of at most `budget` tokens (but at least one text)."""
    start, tokens = 0, 0
    for number, text in enumerate(texts):
        if number > start and tokens + len(text) > budget:
            yield _chunk(texts, start, number)
            start, tokens = number, 0
        tokens += len(text)
    if start < len(texts):
        yield _chunk(texts, start, len(texts))


def _chunk(texts: Sequence[Sequence[int]], start: int, stop: int) -> Chunk:
    lengths = np.array([len(text) for text in texts[start:stop]], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    numbers = np.arange(start, stop)
    return Chunk(
        ids=np.concatenate([np.asarray(text, np.int64) for text in texts[start:stop]]),
        offsets=offsets,
        numbers=numbers,
        rows=np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths),
        texts=np.repeat(numbers, lengths),
    )


def pooling(x: Array, offsets: Integers, mode: str) -> Array:  # (N, D), (B + 1,) -> (B, D)
    """`reference.pooling` for each text."""
    starts = offsets[:-1]
    if mode == "cls":
        return x[starts]
    if mode == "lasttoken":
        return x[offsets[1:] - 1]
    if mode == "max":
        highest: Array = np.maximum.reduceat(x, starts)
        return highest
    if mode == "weightedmean":
        weighted: Array = np.add.reduceat(x * _shares(offsets), starts)
        return weighted
    total: Array = np.add.reduceat(x, starts)
    return total / _divisors(offsets, mode)


def pooling_backward(d_vectors: Array, x: Array, offsets: Integers, mode: str) -> Array:  # (B, D), (N, D) -> (N, D)
    """`backward.pooling_backward` for each text."""
    if mode == "weightedmean":
        return np.repeat(d_vectors, np.diff(offsets), axis=0) * _shares(offsets)
    if mode in ("cls", "lasttoken", "max"):
        d_x = np.zeros_like(x)
        if mode != "max":
            d_x[offsets[:-1] if mode == "cls" else offsets[1:] - 1] = d_vectors
            return d_x
        for d_vector, start, stop in zip(d_vectors, offsets[:-1], offsets[1:], strict=True):
            largest = x[start:stop].argmax(axis=0)[None]  # the first of equals
            np.put_along_axis(d_x[start:stop], largest, d_vector[None], axis=0)
        return d_x
    return np.repeat(d_vectors / _divisors(offsets, mode), np.diff(offsets), axis=0)


def _shares(offsets: Integers) -> Array:  # -> (N, 1)
    """The weight of each token in a weighted mean: its position over the sum of its text's positions."""
    lengths = np.diff(offsets)
    positions = np.arange(1, offsets[-1] + 1) - np.repeat(offsets[:-1], lengths)
    shares: Array = (positions / np.repeat(lengths * (lengths + 1) // 2, lengths)).astype(np.float32)
    return shares[:, None]


def _divisors(offsets: Integers, mode: str) -> Array:  # -> (B, 1)
    lengths = np.diff(offsets).astype(np.float32)[:, None]
    return lengths if mode == "mean" else np.sqrt(lengths)


def sum_rows(values: Array, numbers: Integers) -> tuple[Integers, Array]:  # (N, D), (N,) -> (n,) ascending, (n, D)
    """Sum the rows of `values` that have the same number, from first to last. Returns the numbers and the sums."""
    order = np.argsort(numbers, kind="stable")
    rows, starts = np.unique(numbers[order], return_index=True)
    return rows, np.add.reduceat(values[order], starts)

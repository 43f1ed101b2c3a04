"""Vectors with the model's numbers in other places: fewer of them, or in another order."""

from collections.abc import Sequence

import numpy as np

from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.evidence import Given
from minilm_np.verify.vector_errors import relative_errors, units

COMPARED = 64  # texts that decide on an order


def order_of_numbers(given: Given, tolerance: float) -> list[int] | None:
    """Return for each number of the given vectors its place in the model's; None if they are not only permuted.

    Two numbers that no text distinguishes may be exchanged.
    """
    vectors, ours = given.vectors[:COMPARED], given.ours[:COMPARED]
    bound = tolerance * np.abs(ours).max(axis=1, keepdims=True)
    if (np.abs(np.sort(vectors) - np.sort(ours)) > bound).any():
        return None
    order: list[int] = []
    free = np.ones(ours.shape[1], bool)
    for column in vectors.T:
        far = (np.abs(ours - column[:, None]) / bound).max(axis=0)
        place = int(np.argmin(np.where(free, far, np.inf)))
        if far[place] > 2.0:
            return None
        order.append(place)
        free[place] = False
    whole = relative_errors(given.vectors, given.ours[:, order])
    return order if order != sorted(order) and whole.max() <= 2.0 * tolerance else None


def first_numbers(encoder: SentenceEncoder, vectors: Array, texts: Sequence[str], tolerance: float) -> str | None:
    """Return how vectors with fewer numbers are made of the model's; None if they are not its first numbers."""
    ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.vector_size, on_truncation="ignore")
    first = ours[:, : vectors.shape[1]].astype(np.float64)
    if relative_errors(vectors, units(first)).max() <= tolerance:
        return "scaled to unit length again"
    if relative_errors(vectors, first).max() <= tolerance:
        return "not scaled to unit length again"
    return None

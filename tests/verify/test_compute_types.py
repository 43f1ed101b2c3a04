"""Vectors of the integer engine are recognised as such, and are no deviation."""

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from minilm_np.verify import diagnose

TEXTS = ["a text of some words", "", "what is it? 42!", "the quick brown fox", "jumps over the lazy dog", "x"]


@pytest.mark.parametrize("compute_type", ["int16", "int8"])
@pytest.mark.parametrize("own", [False, True])
def test_vectors_of_a_compute_type_are_named(compute_type: str, own: bool) -> None:
    vectors = SentenceEncoder.random(seed=5, compute_type=compute_type).encode(TEXTS)
    encoder = SentenceEncoder.random(seed=5, compute_type=compute_type if own else "float32")
    found = diagnose(encoder, vectors, TEXTS)
    assert found.matches and found.verdict == "same bits" and not found.findings
    assert f"compute_type='{compute_type}' of this package" in found.sentence


def test_other_vectors_are_not_taken_for_them() -> None:
    encoder = SentenceEncoder.random(seed=5)
    vectors = SentenceEncoder.random(seed=5, compute_type="int16").encode(TEXTS)
    vectors[-1] = np.nextafter(vectors[-1], np.float32(1))
    assert "of this package" not in diagnose(encoder, vectors, TEXTS).sentence

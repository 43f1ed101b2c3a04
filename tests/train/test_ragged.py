"""Test ragged batches: chunks hold every text once, and pooling equals the reference for each text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np import reference
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.train import backward, ragged
from tests.support.compare import assert_close

LENGTHS = (1, 5, 2, 9, 1)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
TEXTS = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), max_size=8)


@given(TEXTS, st.integers(1, 30))
def test_chunks_hold_every_text_once_in_order(texts: list[list[int]], budget: int) -> None:
    chunks = list(ragged.chunks(texts, budget))
    assert [number for chunk in chunks for number in chunk.numbers] == list(range(len(texts)))
    for chunk in chunks:
        assert len(chunk.ids) <= budget or len(chunk.numbers) == 1
        for b, number in enumerate(chunk.numbers):
            place = slice(chunk.offsets[b], chunk.offsets[b + 1])
            assert chunk.ids[place].tolist() == texts[number]
            assert chunk.rows[place].tolist() == list(range(len(texts[number])))
            assert (chunk.texts[place] == number).all()


def test_chunks_are_the_same_only_with_equal_texts_and_numbers() -> None:
    (chunk,) = ragged.chunks([[1, 2], [3]], 9)
    assert chunk.same(next(ragged.chunks([[1, 2], [3]], 4)))
    assert not chunk.same(next(ragged.chunks([[1], [2, 3]], 9)))
    assert not chunk.same(list(ragged.chunks([[0], [1, 2], [3]], 1))[1])


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_pooling_and_its_gradient_equal_the_reference(mode: str) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(OFFSETS[-1], 6)).astype(np.float32)
    x[2] = x[1]  # equal maxima in a text: the first one gets the gradient
    d_vectors = generator.normal(size=(len(LENGTHS), 6)).astype(np.float32)
    texts = np.split(x, OFFSETS[1:-1])
    expected = np.stack([reference.pooling(text, None, mode) for text in texts])
    assert_close(ragged.pooling(x, OFFSETS, mode), expected, rel=1e-6)
    gradients = [backward.pooling_backward(d, text, None, mode) for d, text in zip(d_vectors, texts, strict=True)]
    assert_close(ragged.pooling_backward(d_vectors, x, OFFSETS, mode), np.concatenate(gradients), rel=1e-6)


def test_rows_with_the_same_number_are_summed() -> None:
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    rows, sums = ragged.sum_rows(values, np.array([7, 2, 7, 0, 2]))
    assert rows.tolist() == [0, 2, 7]
    assert sums.tolist() == [[6, 7], [2 + 8, 3 + 9], [0 + 4, 1 + 5]]

"""DistilBERT, which has no token types, is explained as BERT is."""

from dataclasses import replace

import numpy as np
import pytest

from minilm_np import SentenceEncoder, explain
from minilm_np.model_files.random_weights import SMALL
from tests.support.models import living_weights


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    config = replace(SMALL, model_type="distilbert", type_vocab_size=0)
    weights = {name: array.astype(np.float32) for name, array in living_weights(config, seed=2, scale=0.2).items()}
    tokenizer = SentenceEncoder.random(backend="numpy").tokenizer
    return SentenceEncoder.from_weights(config, tokenizer, weights, backend="numpy")


def test_a_text(encoder: SentenceEncoder) -> None:
    found = explain.text(encoder, "some words")
    assert found.error < 1e-6
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-6)
    page = found.page()
    assert "LayerNorm(word + position)" in page and "The two rows of each token are added." in page
    assert "Token type embeddings" not in page


def test_two_texts(encoder: SentenceEncoder) -> None:
    found = explain.similarity(encoder, "some words", "others")
    assert abs(found.error) <= 1e-6
    for side in (found.a, found.b):
        assert abs(side.attribution.residual) <= 1e-3 < abs(side.attribution.cosine - side.attribution.baseline)
    assert "It adds up" in found.page()

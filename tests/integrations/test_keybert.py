"""KeyBERT: its vectors come from this package, and it does not silently load another model."""

from pathlib import Path
from typing import Any

import pytest

from minilm_np import InputValueError, SentenceEncoder
from tests.support.compare import assert_close, assert_same_bits
from tests.support.integrations import TEXTS


class OtherModelError(Exception):
    """KeyBERT loads a model of sentence-transformers."""


@pytest.fixture(autouse=True)
def no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise where KeyBERT would load a model of sentence-transformers."""
    from keybert.backend import _sentencetransformers

    def refuse(backend: Any, model: Any, **options: Any) -> None:
        raise OtherModelError(model)

    monkeypatch.setattr(_sentencetransformers.SentenceTransformerBackend, "__init__", refuse)


def backend(model: Path | SentenceEncoder, **options: Any) -> Any:
    from minilm_np.integrations.keybert import MiniLMBackend

    return MiniLMBackend(model, **options)


def keybert(model: Any) -> Any:
    """A KeyBERT, imported here so that collecting the tests does not import torch."""
    from keybert import KeyBERT

    return KeyBERT(model)


@pytest.mark.parametrize("loaded", [False, True])
def test_the_scores_are_cosines_of_the_encoders_vectors(small: Path, loaded: bool) -> None:
    encoder = SentenceEncoder(small)
    words = ["dough", "knead", "let", "minutes", "rise"]  # of TEXTS[1], without stop words
    cosines = encoder.similarity(encoder.encode(TEXTS[1]), encoder.encode(words))[0]
    expected = sorted(zip(words, cosines.tolist(), strict=True), key=lambda pair: -pair[1])
    found = keybert(backend(encoder if loaded else small)).extract_keywords(TEXTS[1], top_n=10)
    assert [word for word, _ in found] == [word for word, _ in expected]
    assert_close([score for _, score in found], [score for _, score in expected], abs_=1e-4)  # KeyBERT rounds


def test_an_encoder_itself_would_be_replaced_by_another_model(small: Path) -> None:
    """This is why the backend exists; if it fails, KeyBERT no longer changes the model silently: mend the page."""
    with pytest.raises(OtherModelError, match="multilingual"):
        keybert(SentenceEncoder(small))


def test_the_options_are_those_of_encode(small: Path) -> None:
    encoder = SentenceEncoder(small)
    found = backend(small, truncate_dim=20, normalize_embeddings=True).embed(TEXTS)
    assert_same_bits(found, encoder.encode(TEXTS, truncate_dim=20, normalize_embeddings=True))
    with pytest.raises(InputValueError, match="expected the defaults with a loaded model, found 'numpy', None"):
        backend(encoder, backend="numpy")

"""BERTopic: its vectors come from this package, and it does not silently load another model."""

import importlib
import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder, TruncationWarning
from tests.support.compare import assert_same_bits
from tests.support.integrations import TEXTS

# BERTopic imports a deprecated module of sentence-transformers
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class OtherModelError(Exception):
    """BERTopic loads a model of sentence-transformers."""


@pytest.fixture(scope="module", autouse=True)
def bertopic() -> Any:
    """The library, imported here so that collecting the tests does not import torch."""
    return pytest.importorskip("bertopic", reason="needs bertopic (pip install -e '.[bertopic]')")


@pytest.fixture(autouse=True)
def no_other_model(bertopic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise where BERTopic would load a model of sentence-transformers."""
    from bertopic.backend import _sentencetransformers

    def refuse(backend: Any, model: Any) -> None:
        raise OtherModelError(model)

    monkeypatch.setattr(_sentencetransformers.SentenceTransformerBackend, "__init__", refuse)


class Reducer:
    """Takes the place of UMAP: keeps the vectors that it gets, and passes their first numbers on."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def fit(self, X: np.ndarray, y: Any = None) -> "Reducer":
        self.seen.append(X)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return X[:, :5]


def topic_model(embedding_model: Any) -> tuple[Any, Reducer]:
    from bertopic import BERTopic
    from sklearn.cluster import KMeans

    reducer = Reducer()
    model = BERTopic(
        embedding_model=embedding_model,
        umap_model=reducer,
        hdbscan_model=KMeans(3, n_init=10, random_state=0),
    )
    return model, reducer


def backend(model: Path | SentenceEncoder, **options: Any) -> Any:
    from minilm_np.integrations.bertopic import MiniLMBackend

    return MiniLMBackend(model, **options)


@pytest.mark.parametrize("loaded", [False, True])
def test_the_vectors_are_the_encoders(small: Path, loaded: bool) -> None:
    encoder = SentenceEncoder(small)
    model, reducer = topic_model(backend(encoder if loaded else small))
    topics, _ = model.fit_transform(TEXTS)
    assert_same_bits(reducer.seen[0], encoder.encode(TEXTS))
    assert len(topics) == len(TEXTS)
    assert model.embedding_model.embed_words(["dough", "stars"]).shape == (2, 96)
    (similar, *_), _ = model.find_topics(TEXTS[0])  # embeds a query
    assert similar in topics


def test_an_encoder_itself_would_be_replaced_by_another_model(small: Path) -> None:
    """This is why the backend exists; if it fails, BERTopic no longer changes the model silently: mend the page."""
    model, _ = topic_model(SentenceEncoder(small))
    with pytest.raises(OtherModelError, match="all-MiniLM-L6-v2"):
        model.fit_transform(TEXTS)


def test_the_options_are_those_of_encode(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = SentenceEncoder(small)
    found = backend(small, truncate_dim=20, normalize_embeddings=True).embed(TEXTS, verbose=True)
    assert_same_bits(found, encoder.encode(TEXTS, truncate_dim=20, normalize_embeddings=True))
    assert "6/6" in capfd.readouterr().err  # the progress bar
    for options in ({"backend": "numpy"}, {"threads": 1}):
        with pytest.raises(InputValueError, match="expected the defaults with a loaded model"):
            backend(encoder, **options)


@pytest.mark.parametrize("hidden_by_the_program", [False, True])
def test_a_long_document_is_reported_although_bertopic_hides_warnings(
    small: Path, hidden_by_the_program: bool, bertopic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minilm_np.integrations import bertopic as adapter

    assert 'warnings.filterwarnings("ignore", category=UserWarning)' in inspect.getsource(bertopic._bertopic)
    monkeypatch.setattr(adapter, "MiniLMBackend", adapter.MiniLMBackend)  # restores it: the module is loaded again
    with warnings.catch_warnings(record=True) as found:
        warnings.resetwarnings()
        if hidden_by_the_program:
            warnings.filterwarnings("ignore", category=TruncationWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        importlib.reload(adapter).MiniLMBackend(small).embed(["a " * 200])
    shown = [warning.category for warning in found if warning.category is TruncationWarning]
    assert shown == ([] if hidden_by_the_program else [TruncationWarning])


def test_a_saved_model_gives_the_same_topics(small: Path, tmp_path: Path, bertopic: Any) -> None:
    model, _ = topic_model(backend(small))
    model.fit(TEXTS)
    model.save(tmp_path / "topics", serialization="pickle")
    again = bertopic.BERTopic.load(tmp_path / "topics")
    assert list(again.transform(TEXTS)[0]) == list(model.transform(TEXTS)[0])
    assert len(pickle.dumps(backend(small))) < 1000  # without the weights
    model.save(tmp_path / "folder", serialization="safetensors")  # without the backend
    other = bertopic.BERTopic.load(tmp_path / "folder", embedding_model=backend(small))
    assert_same_bits(other.embedding_model.embed(TEXTS), SentenceEncoder(small).encode(TEXTS))
    assert len(other.transform(TEXTS)[0]) == len(TEXTS)

"""Models of every family end to end: the vectors of sentence-transformers, and what is refused for all but BERT."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import ConfigError, SentenceEncoder
from minilm_np.engine.registry import KINDS
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.trace import trace
from tests.support.compare import assert_close, assert_same_bits
from tests.support.families import NAMES, Sizes, model_of, write

# "[UNK]" has id 1, which is the padding index of RoBERTa and MPNet: both sides count positions without it
TEXTS = ["a text", "", "one that is longer than the limit of the model is", "ünïcödé", "[SEP] [PAD]", "[UNK] 12%"]
SIZES = Sizes(vocabulary=len(CHARACTER_VOCABULARY), tokens=44, hidden=48)


def sentence_transformers(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a family with BERT's tokenizer over single characters."""
    from transformers import BertTokenizer

    folder: Path = tmp_path_factory.mktemp("family")
    write(folder, model_of(request.param, "gelu_new" if request.param == "roberta" else "gelu", SIZES, 5))
    (folder / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    BertTokenizer.from_pretrained(str(folder), model_max_length=40).save_pretrained(folder)
    return folder


def test_every_family_has_the_vectors_of_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    model = sentence_transformers(folder)
    expected = model.encode(TEXTS, normalize_embeddings=True)
    alone = np.stack([model.encode(text, normalize_embeddings=True) for text in TEXTS])
    for kind in KINDS:
        encoder = SentenceEncoder(folder, backend=kind.backend, compute_type=kind.compute_type)
        found = encoder.encode(TEXTS, normalize_embeddings=True, on_truncation="ignore")
        bound = {"float32": 2e-6, "int16": 2e-4, "int8": 0.2}[kind.compute_type]
        assert_close(found, expected, abs_=bound, what=kind.name)
        assert_close(found, alone, abs_=bound, what=kind.name)
    encoder.save_pretrained(tmp_path / "saved")
    saved = sentence_transformers(tmp_path / "saved")
    assert_close(saved.encode(TEXTS, normalize_embeddings=True), expected, abs_=2e-6)


def test_a_trace_ends_with_the_vector(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    text = "some words"
    found, fused = trace(encoder, text), trace(encoder, text, backend="numba")
    assert_same_bits(fused["pooling"], encoder.encode(text))
    assert_close(found["pooling"], fused["pooling"], rel=1e-5)
    assert set(fused) <= set(found)
    has_types = encoder.config.type_vocab_size > 0
    assert ("embeddings.token_type_embeddings" in found) == has_types


# ---- for BERT with GELU only -----------------------------------------------------------------------------------------


def _train(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np.train.engine import TrainingEngine

    return TrainingEngine(encoder.config, encoder.weights)


def _train_numpy(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np.train.backward import ReferenceTrainingEngine

    return ReferenceTrainingEngine(encoder.config, encoder.weights)


def _diagnose(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np.verify import diagnose

    return diagnose(encoder, encoder.encode(["a"]), ["a"])


def _explain(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np import explain

    return explain.text(encoder, "a")


def _similarity(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np import explain

    return explain.similarity(encoder, "a", "b")


def _conformance(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np.verify import conformance

    conformance.write(encoder, path / "file.safetensors")
    return None


def _transformers(encoder: SentenceEncoder, path: Path) -> object:
    from minilm_np.verify.torch_models import TransformersModel

    return TransformersModel(encoder)


@pytest.mark.parametrize("call", [_train, _train_numpy, _diagnose, _conformance, _transformers])
def test_other_encoders_are_refused_by_name(call: Callable[[SentenceEncoder, Path], object], tmp_path: Path) -> None:
    from tests.support.engine_children import SMALL_MPNET

    encoder = SentenceEncoder.random(SMALL_MPNET)
    with pytest.raises(
        ConfigError, match="expected a model of type 'bert' with the activation 'gelu', found 'mpnet' w"
    ):
        call(encoder, tmp_path)


@pytest.mark.parametrize("call", [_explain, _similarity])
def test_encoders_that_cannot_be_explained_are_refused_by_name(
    call: Callable[[SentenceEncoder, Path], object], tmp_path: Path
) -> None:
    from tests.support.engine_children import SMALL_MPNET

    encoder = SentenceEncoder.random(SMALL_MPNET)
    with pytest.raises(ConfigError, match=r"explain: expected a model of type 'bert' or 'distilbert' .* 'mpnet'"):
        call(encoder, tmp_path)


def test_verify_compares_other_encoders_with_transformers(folder: Path) -> None:
    from minilm_np.verify import compare

    encoder = SentenceEncoder(folder)
    for name in ("transformers", "sentence-transformers"):
        found = compare(encoder, name, ["a text", "another one"])
        assert found.within, found.verdict

"""sentence-transformers and transformers as `verify` opens them."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder
from minilm_np.errors import ImplementationError, MissingExtraError
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.hub import ModelFolder
from minilm_np.model_files.random_weights import SMALL
from minilm_np.verify import built_in_texts, open_implementation
from tests.support.compare import assert_close
from tests.support.verify_ports import recorded

TEXTS = ["hello world", "", "a much longer text than the others, with [SEP] in it"]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


@pytest.mark.parametrize("source", ["sentence-transformers", "transformers"])
@pytest.mark.parametrize("pooling_mode", POOLING_MODES)
def test_torch_computes_a_random_encoder(source: str, pooling_mode: str) -> None:
    config = replace(SMALL, pooling_mode=pooling_mode, normalize=pooling_mode in ("mean", "cls"), num_hidden_layers=2)
    encoder = SentenceEncoder.random(config, seed=3, backend="numpy")
    other = open_implementation(source, encoder)
    assert_close(other.vectors(TEXTS), encoder.encode(TEXTS), rel=3e-6)
    intermediates = other.intermediates(TEXTS)
    assert intermediates is not None
    for text, steps in zip(TEXTS, intermediates, strict=True):
        expected = recorded(encoder, text)
        assert set(expected) - set(steps) == {f"encoder.layer.{n}.attention.self.scores" for n in range(2)}
        assert set(steps) <= set(expected)
        for name, array in steps.items():
            assert_close(array, expected[name], rel=1e-5, what=name)
    assert other.vectors([]).shape == (0, config.hidden_size)


@pytest.mark.weights
@pytest.mark.parametrize("source", ["sentence-transformers", "transformers"])
def test_torch_loads_the_published_folder_with_its_own_tokenizer(source: str, published: SentenceEncoder) -> None:
    texts = [text for _, text in built_in_texts(published)]
    other = open_implementation(source, published)
    assert other.token_ids(texts) == published.tokenizer(texts).ids
    assert_close(other.vectors(TEXTS), published.encode(TEXTS), abs_=5e-7)
    intermediates = other.intermediates(TEXTS[:1])
    assert intermediates is not None
    assert len(intermediates[0]) == 4 + 6 * 11 + 2


@pytest.mark.weights
@pytest.mark.parametrize("source", ["sentence-transformers", "transformers"])
def test_a_folder_that_was_replaced_after_the_encoder_was_loaded_is_refused(source: str, tmp_path: Path) -> None:
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    first.save_pretrained(tmp_path / "model")
    encoder = SentenceEncoder(tmp_path / "model", backend="numpy")
    second.save_pretrained(tmp_path / "model")
    with pytest.raises(ImplementationError, match="model: the folder was replaced or changed after the model had"):
        open_implementation(source, encoder)
    open_implementation(source, SentenceEncoder(tmp_path / "model", backend="numpy"))


def test_a_package_that_is_missing_is_named(published: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"needs sentence_transformers, .*pip install sentence-tr[a-z]* torch$"):
        open_implementation("sentence-transformers", published)


def test_a_folder_that_torch_cannot_load_is_named(small: SentenceEncoder, tmp_path: Path) -> None:
    broken = SentenceEncoder.random(backend="numpy")
    broken._model = replace(broken.model, origin=ModelFolder(None, tmp_path, "a folder", False))
    with pytest.raises(ImplementationError, match=f"transformers cannot load {tmp_path}"):
        open_implementation("transformers", broken)

"""The public class, from text to vector: against sentence-transformers live, and against golden vectors."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import (
    ConfigError,
    InputTypeError,
    InputValueError,
    MiniLMError,
    ModelConfig,
    NonFiniteError,
    SentenceEncoder,
)
from minilm_np.engine.registry import BACKENDS
from minilm_np.model_files.checkpoint import write_checkpoint
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.conftest import load_sentence_transformer
from tests.golden import make
from tests.support.compare import assert_close, assert_same_bits
from tests.support.encoders import BOUND, overflowing

SMALL_SENTENCES = st.lists(st.text(max_size=40), min_size=1, max_size=5)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def published(model_folder: Path, backend: str) -> SentenceEncoder:
    return SentenceEncoder(model_folder, backend=backend)


# ---- the published model ---------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_golden_vectors_are_reproduced(published: SentenceEncoder) -> None:
    records = json.loads(make.PATH.read_text(encoding="utf-8"))
    texts = [record["text"] for record in records]
    assert texts == make.TEXTS
    assert published.tokenize(texts)["n_tokens"] == [record["n_tokens"] for record in records]
    vectors = published.encode(texts, on_truncation="ignore")
    assert_close(vectors, np.array([record["embedding"] for record in records]), abs_=BOUND)


@pytest.mark.weights
def test_the_published_figures_are_reproduced(published: SentenceEncoder) -> None:
    first = published.encode("This is an example sentence")[:5]
    assert_close(first, np.array([0.0676569, 0.0634959, 0.0487131, 0.0793050, 0.0374481]), abs_=BOUND)
    weather = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    cosines = published.encode(weather) @ published.encode(weather).T
    assert_close(cosines[np.triu_indices(3, 1)], np.array([0.6660, 0.1046, 0.1411]), abs_=1e-4)


@pytest.mark.weights
@given(SMALL_SENTENCES)
@settings(max_examples=25)
def test_any_text_has_the_vector_of_sentence_transformers(
    published: SentenceEncoder, sentence_transformer: Any, texts: list[str]
) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert_close(published.encode(texts), sentence_transformer.encode(texts), abs_=BOUND)


@pytest.mark.weights
def test_a_long_text_has_the_vector_of_sentence_transformers(
    published: SentenceEncoder, sentence_transformer: Any
) -> None:
    texts = ["word " * 253 + "one two three", "short", "long! " * 9000, "x" * 5000]
    vectors = published.encode(texts, on_truncation="ignore")
    assert_close(vectors, sentence_transformer.encode(texts), abs_=BOUND)
    assert published.tokenize(texts)["truncated"] == [True, False, True, False]


@pytest.mark.weights
def test_a_folder_written_by_the_installed_sentence_transformers_loads_alike(
    published: SentenceEncoder, sentence_transformer: Any, tmp_path: Path
) -> None:
    sentence_transformer.save_pretrained(str(tmp_path))
    encoder = SentenceEncoder(tmp_path, backend=published.backend)
    assert encoder.config == published.config
    texts = [text[:300] for text in make.TEXTS]
    assert_same_bits(encoder.encode(texts), published.encode(texts))


@pytest.mark.weights
def test_a_limit_of_128_cuts_at_128_and_the_published_256_at_256(
    published: SentenceEncoder, model_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "v1"))
    folder.joinpath("sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": false}')
    v1 = SentenceEncoder(folder, backend=published.backend)
    texts = ["a " * 126, "a " * 127, "a " * 254, "a " * 255]
    assert (v1.max_seq_length, published.max_seq_length) == (128, 256)
    cut_128, cut_256 = v1.tokenize(texts), published.tokenize(texts)
    assert (cut_128["n_tokens"], cut_128["truncated"]) == ([128] * 4, [False, True, True, True])
    assert (cut_256["n_tokens"], cut_256["truncated"]) == ([128, 129, 256, 256], [False, False, False, True])
    oracle = load_sentence_transformer(folder)
    assert_close(v1.encode(texts, on_truncation="ignore"), oracle.encode(texts), abs_=BOUND)


@pytest.mark.weights
def test_what_the_model_sees_is_what_torch_would_see(published: SentenceEncoder, sentence_transformer: Any) -> None:
    texts = ["a text", "", "another, longer text"]
    found = published.tokenize(texts)
    expected = sentence_transformer.tokenizer(texts, padding=True, return_tensors="np")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert_same_bits(found[name], expected[name], name)


# ---- the class, on a random model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(backend: str) -> SentenceEncoder:
    return SentenceEncoder.random(backend=backend)


def test_one_text_has_one_vector_and_n_texts_have_n(encoder: SentenceEncoder) -> None:
    one, two = encoder.encode("a text"), encoder.encode(["a text", "another"])
    dimension = encoder.get_sentence_embedding_dimension()
    assert (one.shape, two.shape) == ((dimension,), (2, dimension))
    assert one.dtype == two.dtype == np.float32
    assert_close(one, two[0], abs_=BOUND)
    assert_close(np.linalg.norm(two, axis=1), np.ones(2), abs_=BOUND)


def test_no_texts_have_no_vectors(encoder: SentenceEncoder) -> None:
    assert_same_bits(encoder.encode([]), np.empty((0, encoder.get_sentence_embedding_dimension()), np.float32))
    assert encoder.tokenize([])["input_ids"].shape == (0, 0)


def test_the_empty_text_has_an_ordinary_vector(encoder: SentenceEncoder) -> None:
    assert encoder.tokenize([""])["n_tokens"] == [2]
    assert_close(np.linalg.norm(encoder.encode("")), np.float32(1), abs_=BOUND)


@given(SMALL_SENTENCES, st.integers(1, 7), st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(
    encoder: SentenceEncoder, texts: list[str], batch_size: int, random: Any
) -> None:
    expected = np.array([encoder.encode(text) for text in texts])
    order = list(range(len(texts)))
    random.shuffle(order)
    found = encoder.encode([texts[row] for row in order], batch_size=batch_size)
    assert_close(found, expected[order], abs_=BOUND)


@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_any_sequence_of_texts_will_do(encoder: SentenceEncoder, container: Any) -> None:
    assert_close(encoder.encode(container(["one", "two"])), encoder.encode(["one", "two"]), abs_=0.0)


def test_a_list_of_two_texts_is_not_a_pair(encoder: SentenceEncoder) -> None:
    assert encoder.tokenize(["one", "two"])["n_tokens"] == [5, 5]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        pytest.param(b"bytes", InputTypeError, "texts: expected a list, an array or .*, found bytes", id="bytes"),
        pytest.param(7, InputTypeError, "found int", id="a number"),
        pytest.param(None, InputTypeError, "found NoneType", id="None"),
        pytest.param({"a": 1}, InputTypeError, "found dict", id="a dict"),
        pytest.param(["one", b"two"], InputTypeError, "text 1: .* found bytes .*decode", id="bytes inside"),
        pytest.param(["one", ["two", "three"]], InputTypeError, "text 1: .* found list", id="a pair inside"),
        pytest.param(
            ["a", "b\ud800"], InputValueError, r"text 1: the lone surrogate U\+D800 at character 1", id="lone"
        ),
    ],
)
def test_what_is_no_text_is_named(encoder: SentenceEncoder, texts: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        encoder.encode(texts)


@pytest.mark.parametrize(
    ("batch_size", "error"),
    [
        (0, InputValueError),
        (-1, InputValueError),
        (True, InputTypeError),
        (1.5, InputTypeError),
        ("8", InputTypeError),
    ],
)
def test_a_batch_size_is_a_number_of_texts(encoder: SentenceEncoder, batch_size: Any, error: type) -> None:
    with pytest.raises(error, match="batch_size"):
        encoder.encode("a text", batch_size=batch_size)


def test_normalize_embeddings_scales_what_the_model_leaves(backend: str) -> None:
    config = ModelConfig(vocab_size=200, hidden_size=32, num_hidden_layers=1, intermediate_size=64,
                         num_attention_heads=2, normalize=False)  # fmt: skip
    encoder = SentenceEncoder.random(config, backend=backend)
    left, scaled = encoder.encode("a text"), encoder.encode("a text", normalize_embeddings=True)
    assert not np.isclose(np.linalg.norm(left), 1.0)
    assert_close(scaled, left / np.linalg.norm(left), abs_=BOUND)


def test_a_seed_is_a_model() -> None:
    text = "the same text"
    assert_same_bits(SentenceEncoder.random(seed=3).encode(text), SentenceEncoder.random(seed=3).encode(text))
    assert not np.allclose(SentenceEncoder.random(seed=3).encode(text), SentenceEncoder.random(seed=4).encode(text))


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size 50: expected at least"):
        SentenceEncoder.random(ModelConfig(vocab_size=50))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputValueError, match=r"backend: expected one of .*'numpy'.*, found 'cuda'"):
        SentenceEncoder.random(backend="cuda")


def test_a_model_pickles(encoder: SentenceEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    assert_same_bits(again.encode(["a text", ""]), encoder.encode(["a text", ""]))
    assert (again.config, again.model_path, again.backend) == (encoder.config, None, encoder.backend)


@pytest.mark.weights
def test_a_loaded_model_pickles(published: SentenceEncoder) -> None:
    again = pickle.loads(pickle.dumps(published))
    assert_same_bits(again.encode("a text"), published.encode("a text"))
    assert again.model_path == published.model_path


def test_threads_may_share_a_model(encoder: SentenceEncoder) -> None:
    texts = [f"text number {number} " * (number % 7) for number in range(40)]
    expected = [encoder.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for found, one in zip(pool.map(encoder.encode, texts), expected, strict=True):
            assert_same_bits(found, one)


def test_a_vector_that_is_not_finite_is_an_error(backend: str) -> None:
    broken = overflowing(SentenceEncoder.random(backend=backend))
    with pytest.raises(NonFiniteError, match="text 0: its vector is not finite"):
        broken.encode(["a text", "another"])


def test_a_folder_round_trips_through_files(encoder: SentenceEncoder, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.safetensors", encoder.weights)
    sizes = ("vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size", "num_hidden_layers")
    config = {name: getattr(encoder.config, name) for name in (*sizes, "num_attention_heads", "intermediate_size")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    (tmp_path / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules])
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    loaded = SentenceEncoder(tmp_path, backend=encoder.backend)
    assert loaded.model_path == str(tmp_path)
    assert_same_bits(loaded.encode("a text"), encoder.encode("a text"))


def test_every_error_of_the_package_has_one_base() -> None:
    with pytest.raises(MiniLMError, match="/no/such/folder: no such folder"):
        SentenceEncoder("/no/such/folder")

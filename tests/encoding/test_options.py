"""The other arguments of `encode`: what is refused, lists, tensors, truncated vectors, hidden states."""

import pickle
import sys
from typing import Any

import numpy as np
import pytest

from minilm_np import (
    InputTypeError,
    InputValueError,
    MissingExtraError,
    NonFiniteError,
    SentenceEncoder,
)
from minilm_np.util import community_detection
from tests.support.compare import assert_close, assert_same_bits
from tests.support.encoders import BOUND, overflowing


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "cuda:0"}, InputValueError, "device: expected 'cpu' or None, found 'cuda:0'"),
        ({"device": ["cpu", "cpu"]}, InputValueError, r"device: expected 'cpu' or None, found \['cpu', 'cpu'\]"),
        ({"pool": {}}, InputValueError, "pool: expected None, found {}: one process already uses all CPUs"),
        ({"chunk_size": 10}, InputValueError, "chunk_size: expected None, found 10"),
        ({"output_value": "logits"}, InputValueError, "output_value: expected one of 'sentence_embedding', "),
        ({"precision": "float16"}, InputValueError, "precision: expected one of 'float32', .* found 'float16'"),
        (
            {"precision": "int8", "output_value": None},
            InputValueError,
            "precision: expected 'float32' with output_value",
        ),
        ({"truncate_dim": 0}, InputValueError, "truncate_dim: expected an int of at least 1 or None, found 0"),
        ({"truncate_dim": "9"}, InputTypeError, "truncate_dim: expected an int or None, found str"),
        ({"prompt": 1}, InputTypeError, "prompt: expected a str or None, found int"),
        ({"prompt": "\ud800"}, InputValueError, "prompt: .*lone surrogate"),
        ({"prompt_name": ["query"]}, InputValueError, "prompt_name: expected one of 'query', 'document'"),
        ({"processing_kwargs": {"text": {}}}, InputValueError, "processing_kwargs: expected None, found"),
        ({"temperature": 1}, InputValueError, "encode has no argument 'temperature'"),
    ],
)
def test_what_is_not_done_is_refused(
    encoder: SentenceEncoder, arguments: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        encoder.encode(["a text", "another"], **arguments)


def test_the_prompt_of_tokenize_is_checked(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputTypeError, match="prompt: expected a str or None, found int"):
        encoder.tokenize(["a text"], prompt=1)  # type: ignore[arg-type]
    with pytest.raises(InputValueError, match=r"prompt: .*lone surrogate"):
        encoder.preprocess(["a text"], "\ud800")


def test_older_names(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputTypeError, match="inputs, sentences: expected one of them, found both: sentences is the"):
        encoder.encode(["a"], sentences=["b"])
    with encoder.truncate_sentence_embeddings(5):
        assert encoder.encode("a").shape == (5,)


def test_a_closed_stderr_has_no_progress_bar(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encoder.encode(["a"] * 3)
    monkeypatch.setattr(sys, "stderr", None)
    assert_same_bits(encoder.encode(["a"] * 3, show_progress_bar=True), expected)
    assert community_detection(expected, min_community_size=3, show_progress_bar=True) == [[0, 1, 2]]


def test_no_texts_have_no_vectors_in_any_precision(encoder: SentenceEncoder) -> None:
    for precision, width, dtype in (("int8", 96, np.int8), ("uint8", 96, np.uint8), ("ubinary", 12, np.uint8)):
        assert_same_bits(encoder.encode([], precision=precision), np.empty((0, width), dtype))
    assert encoder.encode([], output_value="token_embeddings") == encoder.encode([], output_value=None) == []


def test_vectors_are_a_list_or_tensors_where_asked_for(encoder: SentenceEncoder) -> None:
    import torch

    expected = encoder.encode(["a", "b"])
    listed = encoder.encode(["a", "b"], convert_to_numpy=False)
    assert isinstance(listed, list)
    assert_same_bits(np.array(listed), expected)
    tensors = encoder.encode(["a", "b"], convert_to_tensor=True)
    assert isinstance(tensors, torch.Tensor)
    assert_same_bits(tensors.numpy(), expected)
    features = encoder.encode("a", output_value=None, convert_to_tensor=True)
    assert all(isinstance(value, torch.Tensor) for name, value in features.items() if name != "modality")


def test_tensors_need_torch(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"convert_to_tensor=True needs torch, .*`pip install torch`"):
        encoder.encode("a", convert_to_tensor=True)


def test_truncated_vectors_are_the_first_numbers(encoder: SentenceEncoder) -> None:
    whole = encoder.encode(["a", "b c", ""])
    short = encoder.encode(["a", "b c", ""], truncate_dim=10)
    assert_close(short, whole[:, :10], abs_=0.0)
    scaled = encoder.encode(["a", "b c", ""], truncate_dim=10, normalize_embeddings=True)
    assert_close(scaled, short / np.linalg.norm(short, axis=1, keepdims=True), abs_=BOUND)
    if encoder.backend == "numba":
        assert_same_bits(encoder.encode("b c", truncate_dim=10, normalize_embeddings=True), scaled[1])


def test_token_vectors_pool_to_the_text_vector(encoder: SentenceEncoder) -> None:
    texts = ["a text", "", "another, longer text"]
    for x, vector in zip(encoder.encode(texts, output_value="token_embeddings"), encoder.encode(texts), strict=True):
        mean = x.mean(axis=0)
        assert_close(mean / np.linalg.norm(mean), vector, abs_=BOUND)


def test_token_vectors_that_are_not_finite_are_an_error(backend: str) -> None:
    broken = overflowing(SentenceEncoder.random(backend=backend))
    with pytest.raises(NonFiniteError, match="text 0: its vector is not finite"):
        broken.encode(["a text", "another"], output_value="token_embeddings")


def test_what_is_set_is_pickled(encoder: SentenceEncoder) -> None:
    copy = pickle.loads(pickle.dumps(encoder))
    copy.prompts["query"], copy.truncate_dim, copy.similarity_fn_name, copy.max_seq_length = "q: ", 9, "dot", 7
    again = pickle.loads(pickle.dumps(copy))
    assert (again.prompts, again.truncate_dim) == ({"query": "q: ", "document": ""}, 9)
    assert (again.similarity_fn_name, again.max_seq_length) == ("dot", 7)
    assert encoder.prompts == {"query": "", "document": ""}


def test_the_fingerprint_is_the_models_whatever_is_set() -> None:
    encoder = SentenceEncoder.random(threads=1)
    expected = encoder.fingerprint()
    encoder.truncate_dim, encoder.default_prompt_name, encoder.prompts["query"] = 7, "query", "q: "
    assert encoder.fingerprint() == expected


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("default_prompt_name", "zz", InputValueError, "default_prompt_name: expected one of 'query', .* found 'zz'"),
        ("default_prompt_name", 3, InputValueError, "default_prompt_name: expected one of 'query', .* found 3"),
        ("prompts", 3, InputTypeError, "prompts: expected a mapping of names to strings, found 3"),
        ("prompts", {"query": 3}, InputTypeError, "prompts: expected Unicode names and strings, found 'query': 3"),
        ("prompts", {"other": ""}, InputValueError, "prompts: expected one named 'query', because it is the default"),
        ("truncate_dim", 0, InputValueError, "truncate_dim: expected an int of at least 1 or None, found 0"),
        ("truncate_dim", "9", InputTypeError, "truncate_dim: expected an int or None, found str"),
        ("similarity_fn_name", "zz", InputValueError, "similarity_fn_name: expected one of 'cosine'"),
        ("max_seq_length", 1.5, InputTypeError, "max_seq_length: expected an int, found float"),
    ],
)
def test_a_setting_is_checked_when_it_is_set(name: str, value: Any, error: type, message: str) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    encoder.default_prompt_name = "query"
    before = getattr(encoder, name)
    with pytest.raises(error, match=message):
        setattr(encoder, name, value)
    assert getattr(encoder, name) == before


def test_settings_that_are_set_are_used() -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    plain = encoder.encode("q: text")
    encoder.prompts = {"mine": "q: "}
    encoder.default_prompt_name = "mine"
    assert_close(encoder.encode("text"), plain, abs_=BOUND)
    encoder.default_prompt_name = None
    encoder.prompts = {}
    assert encoder.prompts == {}


@pytest.mark.parametrize("name", [3, None, b"model", ["model"]], ids=repr)
def test_a_model_is_given_by_name_or_path(name: Any) -> None:
    message = "model_name_or_path: expected the name of a model or the path of a folder, found "
    with pytest.raises(InputTypeError, match=message + type(name).__name__):
        SentenceEncoder(name)

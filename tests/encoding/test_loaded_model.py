"""A loaded model as a value: pickled, copied, and with other settings."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.encoding.loaded_model import LoadedModel
from tests.support.compare import assert_same_bits
from tests.support.encoders import with_weights


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("duplicate", [by_pickle, copy.copy, copy.deepcopy])
def test_a_duplicate_is_the_same_model(encoder: SentenceEncoder, duplicate: Callable[[Any], Any]) -> None:
    model: LoadedModel = duplicate(encoder.model)
    assert model.kind is encoder.model.kind
    assert (model.config, model.settings, model.origin) == (encoder.config, encoder.settings, None)
    assert (model.engine.threads, model.weights_digest) == (encoder.threads, encoder.weights_digest)
    assert not any(array.flags.writeable for array in model.engine.weights().values())
    assert_same_bits(duplicate(encoder).encode(["a text", ""]), encoder.encode(["a text", ""]))


def test_what_is_set_on_a_copy_leaves_the_original_alone(encoder: SentenceEncoder) -> None:
    other = copy.copy(encoder)
    other.max_seq_length, other.truncate_dim = 5, 3
    assert other.encode("a long text", on_truncation="ignore").shape == (3,)
    assert encoder.max_seq_length != 5
    assert encoder.truncate_dim is None


def test_attributes_of_a_subclass_are_pickled() -> None:
    encoder = Loud.random(backend="numpy")
    encoder.note = "mine"
    found = by_pickle(encoder)
    assert isinstance(found, Loud)
    assert found.note == "mine"


def test_queries_and_documents_are_encoded_by_the_encode_of_a_subclass() -> None:
    encoder = Loud.random(backend="numpy")
    plain = SentenceEncoder.random(backend="numpy")
    for method in (encoder.encode_query, encoder.encode_document):
        assert_same_bits(method(["a text"], truncate_dim=4), plain.encode(["a text!"], truncate_dim=4))


@pytest.mark.parametrize("name", ["encode_query", "encode_document"])
def test_queries_and_documents_show_the_arguments_of_encode(name: str) -> None:
    assert inspect.signature(getattr(SentenceEncoder, name)) == inspect.signature(SentenceEncoder.encode)


def test_the_digest_is_computed_once_whatever_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    digest = encoder.weights_digest
    monkeypatch.setattr(encoder.model.engine, "weights", None)
    encoder.truncate_dim, encoder.max_seq_length = 3, 9
    assert encoder.weights_digest == digest


def test_the_digest_is_of_the_weights() -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    name = "embeddings.LayerNorm.bias"
    other = with_weights(encoder, {name: encoder.weights[name] + np.float32(1)})
    assert other.weights_digest != encoder.weights_digest


def test_the_dimension_is_checked_where_it_is_used(encoder: SentenceEncoder) -> None:
    other = SentenceEncoder._of(encoder.model.with_settings(replace(encoder.settings, truncate_dim=0)))
    for call in (other.get_embedding_dimension, lambda: other.encode("a"), lambda: other.encode_long("a")):
        with pytest.raises(InputValueError, match="truncate_dim: expected an int of at least 1 or None, found 0"):
            call()


class Loud(SentenceEncoder):
    """A subclass with its own `encode` and an attribute."""

    note = ""

    def encode(self, inputs: Any = None, *rest: Any, **options: Any) -> Any:
        return super().encode([f"{text}!" for text in inputs], *rest, **options)

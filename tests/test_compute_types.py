"""`compute_type` of the public class: each type has its contract and its fingerprint, and is the same in every call."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.engine.integer.reference import forward, quantise_weights
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.reference import nest
from minilm_np.trace import Trace
from tests.support.compare import assert_close, assert_same_bits

TEXTS = ["a text", "", "one that is longer " * 5, "x" * 100, "another text"]
INTEGERS = tuple(name for name in COMPUTE_TYPES if name != "float32")


@pytest.fixture(scope="module", params=INTEGERS)
def encoder(request: pytest.FixtureRequest) -> SentenceEncoder:
    return SentenceEncoder.random(seed=3, compute_type=request.param)


def test_float32_is_the_default() -> None:
    assert SentenceEncoder.random().compute_type == "float32"
    assert COMPUTE_TYPES == ("float32", "int16", "int8")


def test_each_type_has_a_contract_and_a_fingerprint() -> None:
    encoders = [SentenceEncoder.random(seed=3, compute_type=name) for name in COMPUTE_TYPES]
    assert [encoder.contract for encoder in encoders] == [1, "int16-1", "int8-1"]
    assert len({encoder.fingerprint() for encoder in encoders}) == 3
    assert repr(encoders[1]) == "SentenceEncoder(random weights, backend='numba', compute_type='int16')"


def test_vectors_are_near_those_of_float32(encoder: SentenceEncoder) -> None:
    expected = SentenceEncoder.random(seed=3).encode(TEXTS)
    cosines = np.sum(encoder.encode(TEXTS).astype(np.float64) * expected, axis=1)
    assert (1 - cosines).max() < {"int16": 1e-6, "int8": 1e-2}[encoder.compute_type]


def test_vectors_are_those_of_the_numpy_twin(encoder: SentenceEncoder) -> None:
    weights = quantise_weights(nest(encoder.weights), encoder.compute_type)
    for text in TEXTS:
        ids = np.array(encoder.tokenizer([text]).ids[0])
        expected = forward(ids, weights, encoder.config, encoder.compute_type)
        # the twin's float parts round otherwise, which may move an integer by one
        assert_close(encoder.encode(text), expected, abs_={"int16": 2e-5, "int8": 5e-3}[encoder.compute_type])


def test_calls_agree(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert_same_bits(encoder.encode(text), vector)
        found = encoder.trace(text, backend="numba")
        assert_same_bits(list(found.values())[-1], vector)
    assert_same_bits(np.array(list(encoder.encode_iter(TEXTS, batch_size=2))), vectors)
    assert_same_bits(encoder.encode_long(TEXTS[:2]), vectors[:2])
    features = encoder.encode(TEXTS, output_value=None)
    assert_same_bits(np.array([one["sentence_embedding"] for one in features]), vectors)


def test_a_trace_reads_back(encoder: SentenceEncoder, tmp_path: Path) -> None:
    found = encoder.trace("a text", backend="numba")
    found.save(tmp_path / "trace.safetensors")
    assert Trace.load(tmp_path / "trace.safetensors") == found


def test_copies_and_pickles_have_the_same_bits(encoder: SentenceEncoder) -> None:
    expected = encoder.encode(TEXTS)
    for other in (copy.copy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other.compute_type == encoder.compute_type
        assert_same_bits(other.encode(TEXTS), expected)


def test_a_saved_model_is_float32_and_loads_as_any_type(encoder: SentenceEncoder, tmp_path: Path) -> None:
    SentenceEncoder.random(seed=3).save_pretrained(tmp_path / "float32")
    encoder.save_pretrained(tmp_path / "integer")
    saved = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("float32", "integer")]
    assert saved[0] == saved[1]
    loaded = SentenceEncoder(tmp_path / "integer", compute_type=encoder.compute_type)
    assert_same_bits(loaded.encode(TEXTS), encoder.encode(TEXTS))
    for name, array in loaded.weights.items():  # read again from the folder
        assert_same_bits(array, encoder.weights[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_type": "float16"}, "compute_type: expected one of 'float32', 'int16', 'int8', found 'float16'"),
        ({"compute_type": "int8", "backend": "numpy"}, "compute_type: backend 'numpy' has 'float32', found 'int8'"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        SentenceEncoder.random(**options)  # type: ignore[arg-type]

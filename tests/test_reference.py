"""The reference: naive scalar loops = reference.py in float64 = torch, at every named intermediate."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import ModelConfig, SentenceEncoder, reference
from minilm_np.model_files.config import POOLING_MODES
from tests.support import naive
from tests.support.compare import assert_close
from tests.support.models import (
    encoder_configs,
    living_weights,
    ragged_ids,
    small_configs,
    torch_intermediates,
    torch_model,
)

BOUND = 1e-12  # relative, of each intermediate, in float64


def recorded(
    ids: Any, weights: Any, config: ModelConfig, dtype: Any = np.float64, **options: Any
) -> dict[str, np.ndarray]:
    """Every intermediate of the reference, by name."""
    kept: dict[str, np.ndarray] = {}

    def record(name: str, x: np.ndarray) -> np.ndarray:
        assert name not in kept
        kept[name] = x
        return x

    reference.forward(np.array(ids), reference.nest(weights, dtype), config, record=record, **options)
    return kept


@given(st.data())
@settings(max_examples=60)
def test_every_intermediate_equals_the_scalar_loops(data: st.DataObject) -> None:
    config = data.draw(encoder_configs())
    ids = data.draw(ragged_ids(config, max_texts=1))[0]
    weights = living_weights(config, data.draw(st.integers(0, 2**32)))
    found = recorded(ids, weights, config)
    _, expected = naive.encode(ids, {name: array.tolist() for name, array in weights.items()}, config)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], rel=BOUND, what=name)


@given(st.data())
@settings(max_examples=60)
def test_every_intermediate_equals_torch_on_padded_batches(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    texts = data.draw(ragged_ids(config))
    weights = living_weights(config, data.draw(st.integers(0, 2**32)))
    longest = max(map(len, texts))
    ids = np.array([text + [0] * (longest - len(text)) for text in texts])
    mask = np.array([[True] * len(text) + [False] * (longest - len(text)) for text in texts])
    types = data.draw(st.none() | st.just(np.arange(ids.size).reshape(ids.shape) % config.type_vocab_size))
    found = recorded(ids, weights, config, mask=mask, token_type_ids=types)

    expected = torch_intermediates(torch_model(config, weights), ids, mask, types)
    assert set(found) - set(expected) == not_in_torch(found)
    for name, array in expected.items():
        # the padding may hold anything
        tokens = mask[:, None, :, None] if name.endswith(".probs") else mask[..., None]
        if name == "embeddings.position_embeddings":
            array, tokens = array[0], np.array(True)
        assert_close(np.where(tokens, found[name], 0), np.where(tokens, array, 0), rel=BOUND, what=name)
    last = expected[f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm"]
    assert_close(found["pooling"], torch_pooling(last, mask, config), rel=BOUND, what="pooling")


def not_in_torch(found: dict[str, np.ndarray]) -> set[str]:
    return {name for name in found if name.endswith(".scores") or name in ("pooling", "normalize")}


def torch_pooling(hidden_states: np.ndarray, mask: np.ndarray, config: ModelConfig) -> np.ndarray:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = Pooling(config.hidden_size, config.pooling_mode)
    features = {"token_embeddings": torch.from_numpy(hidden_states), "attention_mask": torch.from_numpy(mask).long()}
    features = pooling(features)
    return np.asarray(features["sentence_embedding"])


@given(st.data())
@settings(max_examples=40)
def test_ragged_padded_and_single_texts_agree(data: st.DataObject) -> None:
    config = data.draw(encoder_configs())
    texts = data.draw(ragged_ids(config, max_texts=6))
    weights = reference.nest(living_weights(config, data.draw(st.integers(0, 2**32))), np.float64)
    ragged = reference.encode_ragged(texts, weights, config)
    singly = np.array([reference.forward(np.array(text), weights, config) for text in texts])
    width = config.max_tokens
    ids = np.array([text + [1] * (width - len(text)) for text in texts])
    mask = np.arange(width) < np.array([len(text) for text in texts])[:, None]
    padded = reference.forward(ids, weights, config, mask=mask)
    assert_close(ragged, singly, rel=BOUND)
    assert_close(padded, singly, rel=BOUND)


@pytest.mark.weights
def test_every_intermediate_of_the_published_model_equals_torch(published: SentenceEncoder) -> None:
    weights = {name: array.astype(np.float64) for name, array in published.weights.items()}
    model = torch_model(published.config, weights)
    for text in ("This is an example sentence", "", "naïve café 東京 " * 9):
        ids = published.tokenizer([text]).ids
        found, expected = recorded(ids, weights, published.config), torch_intermediates(model, np.array(ids))
        assert set(found) - set(expected) == not_in_torch(found)
        for name, array in expected.items():
            assert_close(found[name].reshape(array.shape), array, rel=BOUND, what=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_at_every_step(dtype: Any) -> None:
    for pooling in POOLING_MODES:
        config = ModelConfig(
            vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=5,
            pooling_mode=pooling,
        )  # fmt: skip
        mask = np.array([[True, True], [True, False]])
        kept = recorded([[1, 2], [3, 0]], living_weights(config, 0), config, dtype=dtype, mask=mask)
        assert {array.dtype for array in kept.values()} == {np.dtype(dtype)}


def test_erf_is_right_to_the_last_places() -> None:
    x = np.concatenate([np.linspace(-7, 7, 100_001), np.logspace(-300, 2, 1000), [0.0, -0.0, np.inf, -np.inf]])
    expected = np.array([math.erf(value) for value in x])
    assert_close(reference.erf(x), expected, abs_=4e-16)
    single = x.astype(np.float32)
    assert_close(reference.erf(single), np.array([math.erf(value) for value in single.tolist()]), abs_=3e-7)
    assert np.signbit(reference.erf(np.array([-0.0])))[0]


def test_softmax_takes_scores_that_overflow_exp() -> None:
    scores = np.array([[1000.0, 1000.0, -1000.0]], np.float32)
    np.testing.assert_array_equal(reference.softmax(scores), np.array([[0.5, 0.5, 0.0]], np.float32))


def test_normalize_leaves_zero_at_zero() -> None:
    np.testing.assert_array_equal(reference.normalize(np.zeros((1, 3), np.float32)), np.zeros((1, 3), np.float32))


def test_the_reference_runs_with_numba_absent() -> None:
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
from minilm_np import SentenceEncoder
vectors = SentenceEncoder.random(backend="numpy").encode(["a text", ""])
assert vectors.shape == (2, 96), vectors.shape
assert not {"numba", "llvmlite"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

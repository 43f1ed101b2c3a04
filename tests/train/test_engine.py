"""Test the training engine against the NumPy reference, for many shapes; threads and chunks must change no bit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.train import engine as engines
from minilm_np.train.backward import ReferenceTrainingEngine
from minilm_np.train.dropout import Dropout
from minilm_np.train.engine import TrainingEngine
from minilm_np.train.optim import Gradient, SparseRows
from tests.support.models import living_weights, ragged_ids, small_configs

DROPOUTS = (None, Dropout(7, 3, 0.1, 0.25), Dropout(2**32 - 1, 0, 0.5, 0.0), Dropout(0, 2**32 - 1, 0.0, 0.9))
MEDIUM = ModelConfig(
    vocab_size=60, max_position_embeddings=160, max_seq_length=160, type_vocab_size=2, hidden_size=96,
    num_hidden_layers=2, num_attention_heads=3, intermediate_size=200, layer_norm_eps=1e-12,
)  # fmt: skip
# Lengths below and above multiples of the tile, the panel and the vector; one text as long as three spans of keys.
TEXTS = [np.random.default_rng(0).integers(0, 60, length).tolist() for length in (1, 5, 33, 160, 7, 2, 16, 49)]


Weights = dict[str, np.ndarray]
Texts = Sequence[Sequence[int]]


def run(
    config: ModelConfig,
    weights: Weights,
    texts: Texts,
    d_vectors: np.ndarray,
    dropout: Dropout | None,
    threads: int = 2,
) -> tuple[np.ndarray, dict[str, Gradient]]:
    """The vectors and the gradients of the engine."""
    engine = TrainingEngine(config, weights, threads)
    return engine.forward(texts, dropout), engine.backward(texts, d_vectors, dropout)


def truth(
    config: ModelConfig, weights: Weights, texts: Texts, d_vectors: np.ndarray, dropout: Dropout | None
) -> tuple[np.ndarray, Weights]:
    """The vectors and the gradients of the reference in float64."""
    reference = ReferenceTrainingEngine(config, {name: array.astype(np.float64) for name, array in weights.items()})
    return reference.forward(texts, dropout), reference.backward(texts, d_vectors.astype(np.float64), dropout)


def dense(gradient: Gradient, shape: tuple[int, ...]) -> np.ndarray:
    """A gradient as one array."""
    if not isinstance(gradient, SparseRows):
        return gradient
    table = np.zeros(shape, np.float32)
    table[gradient.rows] = gradient.values
    return table


def errors(found: Mapping[str, Gradient], expected: Weights) -> dict[str, float]:
    """The error of each parameter's gradient, relative to the largest number of that gradient.

    The gradient of key.bias is zero in theory, so its error is relative to the gradient of value.bias.
    """
    largest = {name: np.abs(array).max() for name, array in expected.items()}
    for name in largest:
        if name.endswith("key.bias"):
            largest[name] = largest[name.replace("key", "value")]
    floor = 1e-6 * max(largest.values())
    return {
        name: np.abs(dense(found[name], array.shape) - array).max() / max(largest[name], floor)
        for name, array in expected.items()
    }


def assert_same_bits(first: Mapping[str, Gradient], second: Mapping[str, Gradient]) -> None:
    assert first.keys() == second.keys()
    for name, a in first.items():
        b = second[name]
        if isinstance(a, SparseRows):
            assert isinstance(b, SparseRows)
            assert np.array_equal(a.rows, b.rows)
            a, b = a.values, b.values
        assert isinstance(b, np.ndarray)
        assert a.tobytes() == b.tobytes(), name


def drawn(config: ModelConfig, seed: int, texts: Texts, scale: float = 0.3) -> tuple[Weights, np.ndarray]:
    """Random weights, and a random gradient of the vectors."""
    weights = {name: array.astype(np.float32) for name, array in living_weights(config, seed, scale).items()}
    d_vectors = np.random.default_rng(seed).normal(size=(len(texts), config.hidden_size)).astype(np.float32)
    return weights, d_vectors


@given(st.data())
@settings(max_examples=60)
def test_gradients_equal_the_reference_in_float64(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    texts = data.draw(ragged_ids(config, max_texts=6))
    dropout = data.draw(st.sampled_from(DROPOUTS))
    weights, d_vectors = drawn(config, data.draw(st.integers(0, 99)), texts)
    vectors, gradients = run(config, weights, texts, d_vectors, dropout)
    exact, expected = truth(config, weights, texts, d_vectors, dropout)
    # Some tiny random models are ill-conditioned: a vector near zero before Normalize, or a nearly constant row before
    # LayerNorm. The reference in float32 has the same rounding errors, so for those it sets the bound.
    rounded = ReferenceTrainingEngine(config, weights).backward(texts, d_vectors, dropout)
    bound = max(1e-4, 20 * max(errors(rounded, expected).values()))
    assert np.abs(vectors - exact).max() <= 1e-4 * max(1.0, np.abs(exact).max())
    assert max(errors(gradients, expected).values()) <= bound


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_gradients_of_a_larger_model(pooling: str, dropout: Dropout | None) -> None:
    config = replace(MEDIUM, pooling_mode=pooling, normalize=pooling != "cls")
    weights, d_vectors = drawn(config, 1, TEXTS, 0.1)
    _, gradients = run(config, weights, TEXTS, d_vectors, dropout)
    _, expected = truth(config, weights, TEXTS, d_vectors, dropout)
    worst = errors(gradients, expected)
    assert max(worst.values()) <= 1e-4, max(worst, key=worst.__getitem__)


@pytest.mark.parametrize("dropout", DROPOUTS[:2])
def test_the_number_of_threads_changes_no_bit(dropout: Dropout | None) -> None:
    weights, d_vectors = drawn(MEDIUM, 2, TEXTS)
    vectors, gradients = run(MEDIUM, weights, TEXTS, d_vectors, dropout, threads=1)
    for threads in (2, 3, 5):
        again, others = run(MEDIUM, weights, TEXTS, d_vectors, dropout, threads)
        assert again.tobytes() == vectors.tobytes()
        assert_same_bits(gradients, others)


@pytest.mark.parametrize("budget", [1, 60, 200])
def test_a_gradient_in_chunks_equals_the_unchunked_one(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    weights, d_vectors = drawn(MEDIUM, 3, TEXTS)
    vectors, gradients = run(MEDIUM, weights, TEXTS, d_vectors, DROPOUTS[1])
    monkeypatch.setattr(engines, "CHUNK_TOKENS", budget)
    again, cached = run(MEDIUM, weights, TEXTS, d_vectors, DROPOUTS[1])
    assert again.tobytes() == vectors.tobytes()
    whole = {name: dense(gradient, (60, 96)) for name, gradient in gradients.items()}
    assert max(errors(cached, whole).values()) <= 1e-5


def test_stored_activations_are_used_only_for_the_same_texts_and_dropout() -> None:
    weights, d_vectors = drawn(MEDIUM, 4, TEXTS)
    engine = TrainingEngine(MEDIUM, weights, 2)
    fresh = {}
    for dropout in DROPOUTS[:2]:
        engine.refresh()  # discards stored activations
        fresh[dropout] = engine.backward(TEXTS, d_vectors, dropout)
    engine.forward(TEXTS, DROPOUTS[0])
    assert_same_bits(engine.backward(TEXTS, d_vectors, DROPOUTS[1]), fresh[DROPOUTS[1]])
    engine.forward(TEXTS[::-1], DROPOUTS[0])
    assert_same_bits(engine.backward(TEXTS, d_vectors, DROPOUTS[0]), fresh[DROPOUTS[0]])
    assert_same_bits(
        engine.backward(TEXTS, d_vectors, DROPOUTS[0]), fresh[DROPOUTS[0]]
    )  # again: the activations are gone


def test_changed_weights_take_effect_after_refresh() -> None:
    weights, d_vectors = drawn(MEDIUM, 5, TEXTS)
    engine = TrainingEngine(MEDIUM, weights, 2)
    engine.forward(TEXTS)
    for array in weights.values():
        array *= np.float32(1.25)
    engine.refresh()
    vectors, gradients = run(MEDIUM, weights, TEXTS, d_vectors, None)
    assert engine.forward(TEXTS).tobytes() == vectors.tobytes()
    assert_same_bits(engine.backward(TEXTS, d_vectors), gradients)


def test_without_dropout_the_vectors_equal_those_of_the_encoder() -> None:
    weights, _ = drawn(MEDIUM, 6, TEXTS)
    from minilm_np.engine.float32.engine import Float32Engine

    found = TrainingEngine(MEDIUM, weights, 2).forward(TEXTS)
    expected = Float32Engine(MEDIUM, weights.items(), 2).encode(TEXTS)
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.weights
def test_gradients_of_the_published_model(published: SentenceEncoder) -> None:
    texts = published.tokenizer(["How to list files", "ls -l", "a much longer sentence " * 8, ""]).ids
    d_vectors = np.random.default_rng(0).normal(size=(4, 384)).astype(np.float32)
    weights = {name: np.array(array) for name, array in published.weights.items()}
    dropout = Dropout(1, 2)
    vectors, gradients = run(published.config, weights, texts, d_vectors, dropout)
    exact, expected = truth(published.config, weights, texts, d_vectors, dropout)
    assert np.abs(vectors - exact).max() <= 5e-7
    assert max(errors(gradients, expected).values()) <= 1e-4

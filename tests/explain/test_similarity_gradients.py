"""Integrated gradients against torch autograd, central differences and their completeness."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minilm_np import ModelConfig, SentenceEncoder, reference
from minilm_np.explain import gradients
from minilm_np.explain.gradients import cosine_and_gradient, integrated_gradients, summed_embeddings
from minilm_np.model_files.config import POOLING_MODES
from tests.support.compare import assert_close
from tests.support.models import living_weights, small_configs, torch_model

SMALL = ModelConfig(
    vocab_size=13, max_position_embeddings=9, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
    intermediate_size=10, max_seq_length=9,
)  # fmt: skip


def unit(size: int, seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=size)
    return vector / np.sqrt((vector * vector).sum())


def torch_cosine(model: Any, embedded: Any, other: Any, config: ModelConfig) -> Any:
    """The cosine by torch, from word vectors with a gradient: its own embeddings, encoder and pooling."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    ones = torch.ones(embedded.shape[:2], dtype=torch.long)
    states = model(inputs_embeds=embedded, attention_mask=ones).last_hidden_state
    pooled = Pooling(config.hidden_size, config.pooling_mode)({"token_embeddings": states, "attention_mask": ones})
    return torch.nn.functional.cosine_similarity(pooled["sentence_embedding"], other[None], dim=-1)


def torch_gradient(config: ModelConfig, weights: dict[str, np.ndarray], ids: list[int], other: np.ndarray) -> Any:
    """The cosine and its gradient with respect to the word vectors, which is that with respect to their sum."""
    import torch

    model = torch_model(config, weights)
    word = torch.from_numpy(weights["embeddings.word_embeddings.weight"][ids][None]).requires_grad_()
    cosine = torch_cosine(model, word, torch.from_numpy(other), config)
    cosine.sum().backward()
    assert word.grad is not None
    return cosine.detach().numpy(), word.grad.numpy()


@given(st.data())
@settings(max_examples=8)
def test_the_gradient_equals_torch_autograd(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    assume(config.hidden_size >= 6)  # LayerNorm of two numbers is +-1: ties in max pooling, and gradients of zero
    ids = data.draw(st.lists(st.integers(0, config.vocab_size - 1), min_size=1, max_size=9))
    weights = living_weights(config, data.draw(st.integers(0, 2**32)))
    other = unit(config.hidden_size, data.draw(st.integers(0, 2**32)))
    nested = reference.nest(weights, np.float64)
    cosine, found = cosine_and_gradient(summed_embeddings(np.array(ids), nested)[None], other, nested, config)
    expected_cosine, expected = torch_gradient(config, weights, ids, other)
    assert_close(cosine, expected_cosine, abs_=1e-11)
    assert_close(found, expected, abs_=1e-9 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.weights
def test_the_gradient_of_the_published_model_equals_torch_autograd(published: SentenceEncoder) -> None:
    weights = {name: array.astype(np.float64) for name, array in published.weights.items()}
    ids = published.tokenizer(["It's so sunny outside!"]).ids[0]
    other = published.encode("The weather is lovely today.").astype(np.float64)
    other /= np.sqrt((other * other).sum())
    nested = reference.nest(weights, np.float64)
    _, found = cosine_and_gradient(summed_embeddings(np.array(ids), nested)[None], other, nested, published.config)
    _, expected = torch_gradient(published.config, weights, ids, other)
    assert_close(found, expected, rel=1e-9)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_the_gradient_equals_central_differences(mode: str) -> None:
    config = ModelConfig(**{**vars(SMALL), "pooling_mode": mode})
    nested = reference.nest(living_weights(config, 3), np.float64)
    total = np.stack([summed_embeddings(np.array(ids), nested) for ids in ([1, 2, 3, 3], [4, 0, 5, 1])])
    other = unit(config.hidden_size, 4)
    _, found = cosine_and_gradient(total, other, nested, config)
    direction = np.random.default_rng(5).normal(size=total.shape)
    up, down = (
        cosine_and_gradient(total + sign * 1e-5 * direction, other, nested, config, gradient=False)[0]
        for sign in (1, -1)
    )
    assert_close((found * direction).sum(axis=(1, 2)), (up - down) / 2e-5, abs_=1e-8)


def test_integrated_gradients_equal_a_sum_over_many_small_steps() -> None:
    nested = reference.nest(living_weights(SMALL, 6), np.float64)
    ids, baseline = np.array([1, 7, 9, 2]), np.array([1, 0, 0, 2])
    other = unit(SMALL.hidden_size, 7)
    found = integrated_gradients(ids, baseline, other, nested, SMALL)
    start, end = summed_embeddings(baseline, nested), summed_embeddings(ids, nested)
    middles = (np.arange(4000) + 0.5) / 4000
    _, along = cosine_and_gradient(start + middles[:, None, None] * (end - start), other, nested, SMALL)
    assert abs(found.residual) <= gradients.TOLERANCE
    assert_close(found.values, ((end - start) * along.mean(axis=0)).sum(axis=-1), abs_=2e-3)
    vectors = reference.normalize(reference.forward(np.stack([baseline, ids]), nested, SMALL))
    assert_close(np.array([found.baseline, found.cosine]), vectors @ other, abs_=1e-13)


@given(st.data())
@settings(max_examples=20)
def test_the_attributions_of_drawn_texts_are_complete(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 9))
    ids, baseline = (
        np.array(data.draw(st.lists(st.integers(0, 12), min_size=length, max_size=length))) for _ in range(2)
    )
    nested = reference.nest(living_weights(SMALL, data.draw(st.integers(0, 2**32)), scale=0.2), np.float64)
    found = integrated_gradients(ids, baseline, unit(SMALL.hidden_size, data.draw(st.integers(0, 99))), nested, SMALL)
    assert abs(found.residual) <= gradients.TOLERANCE
    assert not found.values[ids == baseline].any()
    assert found.steps in (24, 48, 96, 192)


def test_steps_are_doubled_up_to_the_limit_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = reference.nest(living_weights(SMALL, 6), np.float64)
    monkeypatch.setattr(gradients, "TOLERANCE", -1.0)
    monkeypatch.setattr(gradients, "CHUNK_TOKENS", 20)
    done: list[int] = []
    found = integrated_gradients(
        np.array([1, 7, 2]), np.array([1, 0, 2]), unit(12, 0), nested, SMALL, lambda steps: done.append(steps)
    )
    assert found.steps == 192
    assert sum(done) == 24 + 48 + 96 + 192
    assert max(done) * 3 <= 20


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = reference.nest(living_weights(SMALL, 6), np.float64)
    arguments = np.array([1, 7, 2]), np.array([1, 0, 2]), unit(12, 0), nested, SMALL
    whole = integrated_gradients(*arguments)
    monkeypatch.setattr(gradients, "CHUNK_TOKENS", 1)
    assert_close(integrated_gradients(*arguments).values, whole.values, abs_=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_that_of_the_weights(dtype: Any) -> None:
    nested = reference.nest(living_weights(SMALL, 6), dtype)
    other = unit(12, 0).astype(dtype)
    cosine, found = cosine_and_gradient(summed_embeddings(np.array([1, 2]), nested)[None], other, nested, SMALL)
    assert cosine.dtype == found.dtype == dtype

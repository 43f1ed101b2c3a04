"""The head of a cross-encoder: equal to scalar loops bit for bit, to the reference, and accurate to the last bit."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import reference
from minilm_np.engine import doubles
from minilm_np.engine.classifier import Classifier, activate
from minilm_np.model_files.cross_encoder_files import ACTIVATIONS
from tests.support.compare import assert_close, assert_same_bits


def dense_by_loops(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The contract's rule as scalar loops: (B, K), (M, K), (M,) -> (B, M), in Python's floats."""
    rows = []
    for row in x.tolist():
        outputs = []
        for weights, addend in zip(weight.tolist(), bias.tolist(), strict=True):
            products = [a * b for a, b in zip(row, weights, strict=True)]
            while len(products) > 1:
                half = (len(products) + 1) // 2
                first, second = products[:half], products[half:]
                products = [a + b for a, b in zip(first, second, strict=False)] + first[len(second) :]
            outputs.append(products[0] + addend)
        rows.append(outputs)
    return np.array(rows)


def tanh_by_loops(x: float) -> float:
    y = min(max(x, -20.0), 20.0) / 32.0
    below = 17.0
    for odd in (15, 13, 11, 9, 7, 5, 3, 1):
        below = odd + y * y / below
    t = y / below
    for _ in range(5):
        t = 2.0 * t / (1.0 + t * t)
    return t


def head(generator: Any, D: int, C: int) -> dict[str, np.ndarray]:
    shapes = {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,)}
    shapes |= {"classifier.weight": (C, D), "classifier.bias": (C,)}
    return {name: generator.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 40), st.integers(1, 4))
def test_logits_have_the_bits_of_scalar_loops(seed: int, B: int, D: int, C: int) -> None:
    generator = np.random.default_rng(seed)
    weights, x = head(generator, D, C), generator.normal(0, 3, (B, D)).astype(np.float32)
    pooled = dense_by_loops(x, weights["pooler.dense.weight"], weights["pooler.dense.bias"])
    pooled = np.array([[tanh_by_loops(value) for value in row] for row in pooled.tolist()])
    expected = dense_by_loops(pooled, weights["classifier.weight"], weights["classifier.bias"]).astype(np.float32)
    found = Classifier(weights).logits(x)
    assert_same_bits(found, expected)
    assert_same_bits(np.concatenate([Classifier(weights).logits(row[None]) for row in x]), found)


@pytest.mark.parametrize("D", [1, 12, 384])
def test_logits_are_those_of_the_reference(D: int) -> None:
    generator = np.random.default_rng(D)
    weights, x = head(generator, D, 3), generator.normal(0, 3, (4, D)).astype(np.float32)
    nested = reference.nest(weights, np.float64)
    pooled = reference.pooler(x.astype(np.float64), nested["pooler"])
    expected = reference.linear(pooled, **nested["classifier"]).astype(np.float32)
    assert_close(Classifier(weights).logits(x), expected, rel=1e-7)


@given(st.floats(-1e4, 1e4) | st.floats(-1e-3, 1e-3) | st.sampled_from([0.0, -0.0, 1e-300, -1e-200]))
def test_tanh_is_accurate(x: float) -> None:
    found = float(doubles.tanh(np.array([x]))[0])
    assert found == pytest.approx(math.tanh(x), rel=3e-15, abs=1e-307)


@given(st.floats(-700, 700))
def test_exp_is_accurate(x: float) -> None:
    assert float(doubles.exp(np.array([x]))[0]) == pytest.approx(math.exp(x), rel=1e-12, abs=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalize", [False, True])
def test_scores_are_those_of_torch(activation: str, normalize: bool) -> None:
    import torch

    logits = np.random.default_rng(5).normal(0, 8, (50, 4)).astype(np.float32)
    expected = getattr(torch.nn, activation)()(torch.from_numpy(logits).double())
    if normalize:
        expected = expected.softmax(dim=1)
    assert_close(activate(logits, activation, normalize=normalize), expected.float().numpy(), rel=1e-7)


def test_large_and_missing_numbers_stay_what_they_are() -> None:
    logits = np.array([[3e38, -3e38], [np.inf, -np.inf], [np.nan, 0]], np.float32)
    found = activate(logits, "Sigmoid")
    assert found[:2].tolist() == [[1, 0], [1, 0]]
    assert np.isnan(found[2, 0])
    assert activate(logits[:1], "Identity", normalize=True).tolist() == [[1, 0]]

"""Test the loss and its gradient: against torch in float64, at common and at extreme scales, and error messages."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, NonFiniteError
from minilm_np.train.loss import contrastive_loss, cross_entropy
from tests.support.compare import assert_close, assert_same_bits


def columns(n: int, B: int, D: int, seed: int, *, unit: bool = True) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, B, D)) + 0.3
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) if unit else vectors


def torch_loss(vectors: np.ndarray, scale: float, normalize: bool) -> tuple[float, np.ndarray]:
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.functional import normalize as to_unit

    leaf = torch.tensor(vectors, dtype=torch.float64, requires_grad=True)
    unit = to_unit(leaf, dim=-1) if normalize else leaf
    labels = torch.arange(vectors.shape[1])
    scores = scale * unit[0] @ torch.cat(list(unit[1:])).T
    loss = cross_entropy(scores, labels)
    if len(vectors) == 2:
        loss = (loss + cross_entropy(scores.T, labels)) / 2
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad.numpy()


@given(st.integers(2, 5), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32), st.booleans(),
       st.sampled_from([1.0, 20.0, 1e4]))  # fmt: skip
@settings(max_examples=80)
def test_loss_and_gradient_equal_torch(n: int, B: int, D: int, seed: int, normalize: bool, scale: float) -> None:
    vectors = columns(n, B, D, seed, unit=not normalize)
    loss, d_vectors = contrastive_loss(vectors, scale=scale, normalize=normalize)
    expected, d_expected = torch_loss(vectors, scale, normalize)
    assert loss == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert_close(d_vectors, d_expected, abs_=1e-10 * scale)


def test_the_loss_by_hand() -> None:
    """Two pairs with the scores [[1, 0], [1, 0]] times 2: the first anchor finds its positive, the second does not."""
    vectors = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    rows = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    columns = (math.log(2) + math.log(2)) / 2
    assert contrastive_loss(vectors, scale=2.0)[0] == pytest.approx((rows + columns) / 2, rel=1e-15)
    # with one orthogonal negative per pair: it adds exp(0) twice to each row, and the columns no longer count
    negatives = np.zeros((1, 2, 2))
    rows = (math.log(1 + 3 * math.exp(-2)) + math.log(3 + math.exp(2))) / 2
    assert contrastive_loss(np.concatenate([vectors, negatives]), scale=2.0)[0] == pytest.approx(rows, rel=1e-15)


def test_the_gradient_equals_central_differences() -> None:
    for n, normalize in ((2, False), (2, True), (3, False), (4, True)):
        vectors = columns(n, 3, 4, seed=n, unit=not normalize)
        _, d_vectors = contrastive_loss(vectors, normalize=normalize)
        for place in np.ndindex(vectors.shape):
            losses = []
            for sign in (1, -1):
                moved = vectors.copy()
                moved[place] += sign * 1e-6
                losses.append(contrastive_loss(moved, normalize=normalize)[0])
            assert d_vectors[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-7)


def test_no_scale_overflows() -> None:
    scores = np.array([[1e5, -1e5, 0.0], [1e5, 1e5, -1e5]])
    loss, d_scores = cross_entropy(scores)
    assert loss == pytest.approx(math.log(2) / 2, rel=1e-12)
    assert_close(d_scores, np.array([[0, 0, 0], [0.25, -0.25, 0]]), abs_=1e-15)
    loss, d_vectors = contrastive_loss(columns(2, 4, 8, seed=0), scale=1e100)
    assert math.isfinite(loss) and np.isfinite(d_vectors).all()


def test_float32_vectors_give_a_float32_gradient_of_the_float64_sums() -> None:
    vectors = columns(3, 5, 8, seed=1).astype(np.float32)
    loss, d_vectors = contrastive_loss(vectors)
    wide_loss, d_wide = contrastive_loss(vectors.astype(np.float64))
    assert loss == wide_loss
    assert_same_bits(d_vectors, d_wide.astype(np.float32))


def test_normalizing_unit_vectors_removes_only_the_gradient_along_them() -> None:
    vectors = columns(2, 4, 6, seed=2)
    loss, d_vectors = contrastive_loss(vectors)
    same_loss, d_tangent = contrastive_loss(vectors, normalize=True)
    assert loss == pytest.approx(same_loss, rel=1e-14)
    assert_close(d_vectors - vectors * (vectors * d_vectors).sum(axis=-1, keepdims=True), d_tangent, abs_=1e-13)


@pytest.mark.parametrize(
    ("vectors", "scale", "error", "message"),
    [
        ([[1.0]], 20, InputTypeError, "vectors: expected an array of float32 or float64, found list"),
        (np.ones((2, 2, 2), int), 20, InputTypeError, "vectors: expected an array .*, found int64"),
        (np.ones((1, 2, 2)), 20, InputValueError, r"at least 2 columns and 1 text, found \(1, 2, 2\)"),
        (np.ones((4, 2)), 20, InputValueError, r"expected \(n, B, D\), .*, found \(4, 2\)"),
        (np.ones((2, 0, 2)), 20, InputValueError, r"at least 2 columns and 1 text, found \(2, 0, 2\)"),
        (np.ones((2, 2, 2)), 0, InputValueError, "scale: expected a finite number above 0, found 0"),
        (np.ones((2, 2, 2)), math.nan, InputValueError, "scale: expected a finite number above 0, found nan"),
        (
            np.ones((2, 2, 2)) * [[[1]], [[math.nan]]],
            20,
            NonFiniteError,
            "NaN or infinity in 2 of 4 vectors, first in column 1, row 0: ",
        ),
        (
            np.array([[[1.0], [1.0]], [[1.0], [math.inf]]]),
            20,
            NonFiniteError,
            "in 1 of 4 vectors, first in column 1, row 1: ",
        ),
    ],
)
def test_refusals(vectors: Any, scale: float, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        contrastive_loss(vectors, scale=scale)


def test_scores_that_overflow_are_refused() -> None:
    with pytest.raises(NonFiniteError, match=r"the loss is nan: the scores overflow at scale 1e\+308"):
        contrastive_loss(np.full((2, 2, 2), 1e3), scale=1e308)

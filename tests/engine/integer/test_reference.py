"""The NumPy twin of the integer engine: equal to scalar loops over Python integers, and within its bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np import ModelConfig
from minilm_np import reference as float_reference
from minilm_np.engine.integer import reference
from tests.support import integer_contract
from tests.support.compare import assert_same_bits
from tests.support.kernels import few, normal, seeds
from tests.support.models import living_weights

LARGEST = 3.0e38
COMPUTE_TYPES = reference.COMPUTE_TYPES

types = st.sampled_from(COMPUTE_TYPES)
lengths = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 384, 1536]))


@st.composite
def rows(draw: st.DrawFn) -> np.ndarray:
    """Rows of one length: ordinary ones, and the kinds that are hard to quantise."""
    K, rng = draw(lengths), np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from([1.0, 2.0**-70, 2.0**-97, 2.0**-140, 2.0**60, 2.0**125]))
    one_huge = normal(rng, K)
    one_huge[rng.integers(K)] = draw(st.sampled_from([1e6, -1e6, 1e30, -LARGEST]))
    return np.stack(
        [
            normal(rng, K, scale=scale),
            np.abs(normal(rng, K, scale=scale)),
            -np.abs(normal(rng, K, scale=scale)),
            one_huge,
            np.zeros(K, np.float32),
            np.full(K, scale, np.float32),
            rng.choice(np.array([-1, 1], np.float32), K),
            rng.integers(-300, 300, K).astype(np.float32) / 2,  # ties
        ]
    )


@few
@given(rows(), types)
def test_rows_of_x_are_those_of_scalar_loops(x, compute_type):
    found = reference.QUANTISE[compute_type](x)
    expected = [integer_contract.QUANTISE[compute_type](row) for row in x]
    assert found.integers.tolist() == [row.integers for row in expected]
    assert found.zero.tolist() == [row.zero for row in expected]
    assert_same_bits(found.scale, np.array([row.scale for row in expected]))


@few
@given(rows())
def test_rows_of_weights_are_those_of_scalar_loops(weight):
    found = reference.quantise_weight_8(weight)
    expected = [integer_contract.quantise_weight_row_8(row) for row in weight]
    assert found.integers.tolist() == [row.integers for row in expected]
    assert_same_bits(found.scale, np.array([row.scale for row in expected]))


@few
@given(rows())
def test_integers_stay_in_their_bounds_and_near_the_numbers(x):
    found = reference.quantise_16(x)
    assert np.abs(found.integers).max() <= 32767
    assert (found.integers**2).sum(axis=1).max() <= 46340**2 < 2**31
    assert_near(found, x)
    found = reference.quantise_8(x)
    assert found.integers.min() >= 0 and found.integers.max() <= 255
    assert found.zero.min() >= 0 and found.zero.max() <= 255
    assert_near(found, x)
    found = reference.quantise_weight_8(x)
    assert np.abs(found.integers).max() <= 127
    assert_near(found, x)


def assert_near(found: reference.Quantised, x: np.ndarray) -> None:
    """Within half a step and what the rounding of zero adds, but for rows that are quantised to zeros."""
    wide = x.astype(np.float64)
    back = (found.integers - found.zero[:, None]) * found.scale.astype(np.float64)[:, None]
    size = np.abs(wide).max(axis=1)
    counted = size > 2.0**-99
    error = np.abs(back - wide).max(axis=1)
    assert (error <= 1.01 * found.scale + 1e-5 * size)[counted].all()
    assert (back == 0)[size <= 2.0**-100].all()


@pytest.mark.parametrize("K", [1, 2, 3, 15, 16, 17, 384, 1536, 5000, 70_000])
def test_the_norm_of_sixteen_bits_holds_where_rounding_adds_most(K):
    # every element of the row lies just above a half, so that all are rounded up
    worst = np.float32(reference.largest_norm(K) / math.sqrt(K))
    base = np.full((1, K), min(float(worst), 32767.0), np.float32)
    for row in (base, base * np.float32(1 / 3), np.arange(1, K + 1, dtype=np.float32)[None]):
        integers = reference.quantise_16(row).integers
        assert (integers**2).sum() <= 46340**2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_row_that_is_not_finite_has_no_finite_output(value):
    rng = np.random.default_rng(0)
    weight = normal(rng, 5, 40)
    for compute_type in COMPUTE_TYPES:
        x = normal(rng, 3, 40)
        x[1, 17] = value
        scale = reference.QUANTISE[compute_type](x).scale
        assert np.isfinite(scale).tolist() == [True, False, True]
        quantised = reference.quantise_weight(weight, None, compute_type)
        assert not np.isfinite(reference.linear(x, quantised, np.zeros(5, np.float32), compute_type)[1]).any()


@few
@given(seeds, st.integers(1, 5), st.integers(1, 9), lengths, types)
def test_products_are_those_of_python_integers(seed, M, N, K, compute_type):
    rng = np.random.default_rng(seed)
    x, weight, bias = normal(rng, M, K), normal(rng, N, K), normal(rng, N)
    x[0] = 0
    found = reference.linear(x, reference.quantise_weight(weight, None, compute_type), bias, compute_type)
    assert_same_bits(found, integer_contract.linear(x, weight, bias, compute_type))
    assert_same_bits(found[0], bias)  # a row of zeros


def test_products_at_the_ends_of_the_range_are_exact():
    K = 1536
    for compute_type in COMPUTE_TYPES:
        x = np.stack([np.full(K, 3.0, np.float32), np.full(K, -3.0, np.float32), np.zeros(K, np.float32)])
        x[2, 0] = 3.0
        found = reference.linear(
            x, reference.quantise_weight(x, None, compute_type), np.zeros(3, np.float32), compute_type
        )
        exact = x.astype(np.float64) @ x.T.astype(np.float64)
        assert np.abs(found - exact).max() <= 2e-3 * exact.max()


@given(seeds)
@few
def test_channels_are_those_of_scalar_loops(seed):
    rng = np.random.default_rng(seed)
    D, K = 20, 37
    parts = [normal(rng, D) * scale for scale in (1, 2)]
    moments, expected = reference.first_moments(*parts), integer_contract.first_moments(*parts)
    for _ in range(3):
        parts = [normal(rng, D, K), normal(rng, D), normal(rng, D, scale=5), normal(rng, D)]
        moments = reference.next_moments(moments, *parts)
        expected = integer_contract.next_moments(expected, *parts)
        assert moments.mean.tolist() == [mean for mean, _ in expected]
        assert moments.variance.tolist() == [variance for _, variance in expected]
        assert_same_bits(reference.channels(moments), integer_contract.channels(expected))


def test_channels_of_zeros_are_ones():
    zeros = np.zeros(4, np.float32)
    moments = reference.first_moments(zeros, zeros)
    assert reference.channels(moments).tolist() == [1] * 4
    moments = reference.next_moments(moments, np.zeros((4, 4), np.float32), zeros, zeros, zeros)
    assert reference.channels(moments).tolist() == [1] * 4


@pytest.mark.parametrize(("compute_type", "bound"), [("int16", 2e-3), ("int8", 0.1)])
def test_the_model_is_near_the_float_model(compute_type, bound):
    config = ModelConfig(
        vocab_size=30, max_position_embeddings=20, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=70, max_seq_length=20,
    )  # fmt: skip
    weights = {name: array.astype(np.float32) for name, array in living_weights(config, 3, scale=0.1).items()}
    nested, ids = float_reference.nest(weights), np.arange(12)
    seen: dict[str, np.ndarray] = {}

    def record(name: str, x: np.ndarray) -> np.ndarray:
        seen[name] = x
        return x

    vector = reference.forward(ids, reference.quantise_weights(nested, compute_type), config, compute_type, record)
    expected = float_reference.forward(ids, nested, config)
    assert 0 < np.abs(vector - expected).max() < bound
    names: set[str] = set()

    def note(name: str, x: np.ndarray) -> np.ndarray:
        names.add(name)
        return x

    float_reference.forward(ids, nested, config, record=note)
    assert set(seen) <= names and "encoder.layer.1.attention.self.probs" in seen

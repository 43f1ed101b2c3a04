"""Quantised rows: by the contracts' rules, within the bounds that keep sums of products inside int32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.compare import assert_same_bits
from tests.support.integer_kernels import F32, MOST_NORM, quantise_rule_8, quantise_rule_16, run_quantise

few = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
sizes = st.one_of(st.integers(1, 70), st.sampled_from([63, 64, 65, 128, 300, 384, 1536]))
scales = st.sampled_from([1.0, 2.0**-70, 2.0**-99, 2.0**-130, 2.0**-149, 2.0**60, 2.0**120])


def drawn_rows(rng, M, K, scale):
    rows = rng.standard_normal((M, K)) * scale
    for row, kind in zip(rows, rng.integers(0, 6, M), strict=True):
        if kind == 0:
            row[:] = 0
        elif kind == 1:
            row[:] = scale
        elif kind == 2:
            row[:] = rng.standard_normal(K) * 2.0**-149
            row[rng.integers(0, K)] = -scale
        elif kind == 3:
            row[:] = abs(row)
    return rows.astype(F32)


@few
@given(seeds, st.integers(1, 20), sizes, scales)
def test_16(seed, M, K, scale):
    x = drawn_rows(np.random.default_rng(seed), M, K, scale)
    found, found_scale, _ = run_quantise(16, x)
    for m in range(M):
        integers, row_scale = quantise_rule_16(x[m])
        assert found[m].tolist() == integers.tolist()
        assert_same_bits(found_scale[m], row_scale)
    wide = found.astype(np.int64)
    assert (wide * wide).sum(1).max() <= MOST_NORM**2 < 2**31
    assert abs(wide).max() <= 32_767


@few
@given(seeds, st.integers(1, 20), sizes, scales)
def test_8(seed, M, K, scale):
    x = drawn_rows(np.random.default_rng(seed), M, K, scale)
    found, found_scale, found_zero = run_quantise(8, x)
    for m in range(M):
        integers, row_scale, zero = quantise_rule_8(x[m])
        assert found[m].tolist() == integers.tolist() and found_zero[m] == zero
        assert_same_bits(found_scale[m], row_scale)
    assert found_zero.min() >= 0 and found_zero.max() <= 255


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("K", [1, 16, 100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scale_tells_of_what_is_not_finite(bits, K, value):
    for k in {0, K // 2, K - 1}:
        x = np.ones((3, K), F32)
        x[1, k] = value
        _, scale, _ = run_quantise(bits, x, checks_padding=False)
        assert np.isfinite(scale).tolist() == [True, False, True]


def test_zeros_stay_zeros():
    for row in (np.zeros(50, F32), np.full(50, -0.0, F32), np.full(50, 2.0**-149, F32)):
        integers, scale, _ = run_quantise(16, row[None])
        assert not integers.any() and np.isfinite(scale).all()
        integers, scale, zero = run_quantise(8, row[None])
        assert (integers == zero).all() and np.isfinite(scale).all()

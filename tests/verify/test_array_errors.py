"""The errors of arrays: relative to the largest value, in units in the last place, and as cosines."""

import math

import numpy as np
import pytest

from minilm_np.verify.array_errors import errors, largest_error


def test_an_array_is_judged_by_its_largest_value() -> None:
    found = errors(np.array([[1.0, 0.0], [0.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 2.0]]))
    assert (found.max_abs, found.max_rel, found.max_ulp, found.min_cosine) == (2.0, 1.0, 2.0**23, 1.0)
    assert errors(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])).min_cosine == pytest.approx(0, abs=1e-15)
    zero = np.zeros((1, 2))
    assert errors(zero[0], np.array([0.0, 1.0])).min_cosine == 0
    assert errors(zero, zero) == errors(zero.astype(np.float32), zero)
    assert errors(zero, zero).max_rel == 0 and errors(zero, zero).min_cosine == 1
    assert errors(zero + 1, zero).max_rel == math.inf and errors(zero + 1, zero).min_cosine == 0
    assert errors(np.zeros((0, 2)), np.zeros((0, 2))).max_abs == 0


def test_the_error_of_a_conformance_file_has_no_floor() -> None:
    tiny = np.array([1e-35, -2e-35])
    assert largest_error(tiny * 1.5, tiny) == pytest.approx((1e-35, 0.5))
    assert largest_error(np.zeros(2), np.zeros(2)) == (0.0, 0.0)
    assert largest_error(tiny, np.zeros(2)) == (2e-35, math.inf)
    assert math.isnan(largest_error(np.array([math.nan]), np.ones(1))[1])

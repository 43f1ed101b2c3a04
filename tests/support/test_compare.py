"""The comparator itself: it must fail where it should."""

import numpy as np
import pytest

from tests.support.compare import assert_close, assert_same_bits, compare

X = np.array([1.0, -2.0, 0.5], np.float32)


def test_equal_arrays_agree() -> None:
    assert_same_bits(X, X.copy())
    assert_close(X, X.astype(np.float64), rel=0.0, abs_=0.0)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(np.zeros_like(X), id="all zeros"),
        pytest.param(X * np.float32(1.001), id="a thousandth off"),
        pytest.param(X[::-1].copy(), id="another order"),
        pytest.param(X[:2], id="another shape"),
        pytest.param(X[None], id="another rank"),
        pytest.param(np.array([1.0, np.nan, 0.5], np.float32), id="NaN"),
        pytest.param(np.array([1.0, np.inf, 0.5], np.float32), id="infinity"),
    ],
)
def test_a_wrong_array_fails(found: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        assert_close(found, X, rel=1e-4)
    with pytest.raises(AssertionError):
        assert_same_bits(found, X)


def test_a_nan_in_the_reference_fails() -> None:
    reference = np.array([1.0, np.nan, 0.5], np.float32)
    with pytest.raises(AssertionError, match="not finite"):
        assert_close(reference, reference, rel=1.0)


def test_a_wrong_dtype_has_not_the_same_bits() -> None:
    with pytest.raises(AssertionError, match="dtype"):
        assert_same_bits(X.astype(np.float64), X)


def test_the_sign_of_zero_is_a_bit() -> None:
    with pytest.raises(AssertionError, match="same bits"):
        assert_same_bits(np.array([-0.0]), np.array([0.0]))


def test_a_reference_of_zeros_hides_nothing() -> None:
    with pytest.raises(AssertionError):
        assert_close(np.array([1e-10]), np.array([0.0]), rel=1e-3)


def test_no_bound_is_no_test() -> None:
    with pytest.raises(AssertionError, match="no bound"):
        assert_close(X, X)


def test_the_measures_are_what_they_say() -> None:
    difference = compare(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert (difference.max_abs, difference.max_rel) == (2.0, 0.5)
    one_ulp = compare(np.nextafter(np.array([4.0], np.float32), np.float32(9)), np.array([4.0], np.float32))
    assert one_ulp.max_ulp == 1.0

"""Arrays inside a page: exact ones keep every bit, rounded ones stay within half a level."""

import base64
import json
import zlib

import numpy as np
import pytest

from minilm_np import pages
from minilm_np.pages import Embedded
from minilm_np.reference import Array

DTYPES = {"float32": "<f4", "float64": "<f8", "uint16": "<u2", "int8": "i1"}


def stored(embedded: Embedded) -> Array:
    """What `js/arrays.js` reads, in Python."""
    dtype = np.dtype(DTYPES[embedded.kind])
    planes = np.frombuffer(zlib.decompress(base64.b64decode(embedded.data)), np.uint8)
    return planes.reshape(dtype.itemsize, -1).T.copy().view(dtype).reshape(embedded.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_arrays_keep_every_bit(dtype: type) -> None:
    array: Array = np.random.default_rng(1).standard_normal((3, 5)).astype(dtype)
    array[0, :3] = np.nan, -np.inf, -0.0
    embedded = pages.exact(array)
    assert stored(embedded).dtype == dtype and stored(embedded).tobytes() == array.tobytes()


def test_rounded_arrays_are_within_half_a_step() -> None:
    array = np.random.default_rng(2).standard_normal((40, 50))
    embedded = pages.rounded(array)
    difference = np.abs(stored(embedded) * embedded.steps[0] - array)
    assert (difference > embedded.steps[0] * 0.5000001).sum() == embedded.clipped
    assert embedded.clipped <= 0.002 * array.size + 1


def test_each_matrix_of_a_rounded_array_has_its_own_levels() -> None:
    array = np.stack([np.eye(4), 1000 * np.eye(4)])
    embedded = pages.rounded(array)
    again = stored(embedded) * np.array(embedded.steps)[:, None, None]
    np.testing.assert_allclose(again, array, rtol=1e-12)


def test_fractions_are_within_half_a_step() -> None:
    array = np.random.default_rng(3).random((7, 7))
    embedded = pages.fractions(array)
    assert np.abs(stored(embedded) * embedded.steps[0] - array).max() <= 0.5 / 65535 + 1e-12


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.nan, 1.0], [np.inf, -np.inf], [5e-324, 0.0], [1e308, -1e308]])
def test_strange_values_give_finite_steps(values: list[float]) -> None:
    embedded = pages.rounded(np.array([values]))
    assert np.isfinite(embedded.steps).all() and min(embedded.steps) > 0
    json.dumps(embedded.facts(), allow_nan=False)

"""Quantization: the same bits as sentence_transformers.util.quantize_embeddings; what is refused."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np import util
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.names import PRECISIONS
from tests.support.vectors import HOLDERS, SEEDS, random_vectors

DTYPES = st.sampled_from(["float16", "float32", "float64", "int64"])


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        return
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, expected, strict=True)


@given(data=st.data())
def test_vectors_have_the_bits_of_upstream(upstream: Any, data: st.DataObject) -> None:
    precision, dtype = data.draw(st.sampled_from(PRECISIONS)), data.draw(DTYPES)
    n, D = data.draw(st.integers(2, 9)), data.draw(st.integers(1, 20))
    vectors = random_vectors(data.draw(SEEDS), n, D, dtype)
    holder = HOLDERS[data.draw(st.sampled_from(sorted(set(HOLDERS) - {"tuple"})))]
    given_too: dict[str, Any] = {}
    if data.draw(st.booleans()):
        given_too["ranges"] = np.sort(random_vectors(data.draw(SEEDS), 2, D, data.draw(DTYPES)), axis=0)
    if data.draw(st.booleans()):
        given_too["calibration_embeddings"] = random_vectors(data.draw(SEEDS), 3, D, data.draw(DTYPES))
    one = bool(given_too) and data.draw(st.booleans())
    held = holder(vectors)[0] if one else holder(vectors)
    assert_same(
        util.quantize_embeddings(held, precision, **given_too),
        upstream.quantize_embeddings(held, precision, **given_too),
    )


@given(data=st.data())
def test_matrices_share_their_ranges_as_upstream(upstream: Any, data: st.DataObject) -> None:
    precision, D = data.draw(st.sampled_from(PRECISIONS)), data.draw(st.integers(1, 9))
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(lambda lengths: sum(lengths) != 1))
    matrices = [random_vectors(seed, n, D) for seed, n in enumerate(lengths)]
    calibrated: bool = data.draw(st.booleans())
    given_too: dict[str, Any] = {"calibration_embeddings": random_vectors(9, 3, D)} if calibrated else {}
    held = [HOLDERS["tensor"](matrix) for matrix in matrices] if data.draw(st.booleans()) else matrices
    assert_same(
        util.quantize_embeddings(held, precision, **given_too),
        upstream.quantize_embeddings(held, precision, **given_too),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_is_quantized_as_upstream(upstream: Any, precision: str) -> None:
    nothings: tuple[Any, ...] = ([], np.empty((0, 12), np.float32))
    for nothing in nothings:
        assert_same(util.quantize_embeddings(nothing, precision), upstream.quantize_embeddings(nothing, precision))


def test_numbers_at_and_beyond_the_ends_of_the_ranges(upstream: Any) -> None:
    vectors = np.array([[-9.0, -1.0, 0.0, 1.0, 9.0]], np.float32).T
    ranges = np.array([[-1.0], [1.0]], np.float32)
    found = util.quantize_embeddings(vectors, "uint8", ranges)
    assert found.ravel().tolist() == [0, 0, 127, 254, 255]  # 254, because 254.99 steps in float32 are rounded down
    assert_same(found, upstream.quantize_embeddings(vectors, "uint8", ranges))
    assert util.quantize_embeddings(vectors, "int8", ranges).ravel().tolist() == [-128, -128, -1, 126, 127]
    bits = np.array([[0.0, -1, 1, 0, 0, 0, 0, 1, 1]], np.float32)
    assert util.quantize_embeddings(bits, "ubinary").tolist() == [[0b00100001, 0b10000000]]
    assert util.quantize_embeddings(bits, "binary").tolist() == [[0b00100001 - 128, 0]]


def test_ranges_of_few_vectors_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        util.quantize_embeddings(np.eye(100, dtype=np.float32), "int8")
        assert not caplog.records
        util.quantize_embeddings(np.eye(99, dtype=np.float32), "int8")
    assert caplog.messages == [
        "minilm_np.util.quantize_embeddings: the ranges of int8 are taken from only 99 vectors: pass ranges, or "
        "calibration_embeddings of many vectors"
    ]


# ---- what is refused -------------------------------------------------------------------------------------------------

X = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, "int4"), "precision: expected one of 'float32', 'int8', 'uint8', 'binary', 'ubinary', found 'int4'"),
        ((X[:1], "int8"), "the ranges of int8 cannot be taken from a single vector: pass ranges or calibration_emb"),
        ((X[0], "uint8"), "the ranges of uint8 cannot be taken from a single vector"),
        ((X, "int8", np.ones((2, 3))), r"ranges: expected .* each dimension, \(2, 2\), found the shape \(2, 3\)"),
        ((X, "int8", np.ones(2)), r"ranges: expected .* each dimension, \(2, 2\), found the shape \(2,\)"),
        ((X, "int8", None, np.ones((2, 3))), r"ranges: expected .* found the shape \(2, 3\)"),
        ((X, "int8", None, X[:0]), r"calibration_embeddings: expected vectors \(m, D\), at least one, found \(0, 2\)"),
        ((X * [[1], [np.nan]], "int8", X), r"embeddings: the number at \[1, 0\], or the range .*, is NaN or infinite"),
        (([[1.0], [1.0, 2.0]], "int8"), "embeddings: expected vectors of the same length"),
        (([X, X[:, :1]], "int8"), "embeddings: expected matrices with vectors of the same length"),
        ((np.float32(1), "binary"), "embeddings: expected vectors, found the single number"),
    ],
)
def test_an_impossible_value_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        util.quantize_embeddings(*arguments)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bytes_are_refused_as_upstream(upstream: Any, dtype: str) -> None:
    with pytest.raises(InputTypeError, match=f"expected floating-point numbers, found {dtype}: are the vectors quant"):
        util.quantize_embeddings(X.astype(dtype), "int8")
    with pytest.raises(Exception, match="must be float"):
        upstream.quantize_embeddings(X.astype(dtype), "int8")


def test_what_upstream_refuses_is_refused(upstream: Any) -> None:
    for arguments in ((X, "int4"), (X[:1], "int8"), (X[0], "uint8"), (X, "int8", None, X[:0])):
        with pytest.raises(ValueError):  # noqa: PT011 - upstream has its own messages
            upstream.quantize_embeddings(*arguments)

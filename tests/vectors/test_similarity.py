"""Similarity: the scores of sentence_transformers.util, exact distances, bounded memory, and what is refused."""

import inspect
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np import MiniLMError, util
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.names import SIMILARITIES
from tests.support.compare import assert_close
from tests.support.vectors import HOLDERS, SEEDS, SIZES, as_tensor, random_vectors

EVERY_PAIR = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim", "pytorch_cos_sim")
PAIR_BY_PAIR = ("pairwise_cos_sim", "pairwise_dot_score", "pairwise_euclidean_sim", "pairwise_manhattan_sim")
NEEDS_FLOATS = ("cos_sim", "euclidean_sim", "manhattan_sim", "pairwise_cos_sim", "pairwise_angle_sim")


def assert_alike(found: Any, expected: Any, scale: float, dtype: str = "") -> None:
    """Check for the same type, shape and dtype, and for values that differ only by rounding (in `dtype`, if given)."""
    expected = expected.numpy()
    assert isinstance(found, np.ndarray if expected.ndim else np.generic)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    bounds = {"float32": 3e-6, "float64": 1e-11}
    bound = max(bounds.get(str(found.dtype), 0.0), bounds.get(dtype, 0.0))
    assert_close(found, expected, abs_=bound * scale)


def largest(function: str, *vectors: np.ndarray) -> float:
    """The scale of the rounding errors of a function: the largest number that it adds up."""
    length = max(float(np.abs(x.astype(np.float64)).sum(axis=-1).max(initial=0)) for x in vectors)
    return 2.0 if "cos" in function or "angle" in function else length**2 if "dot" in function else 2 * length + 1e-30


@given(data=st.data())
def test_every_pair_is_scored_as_upstream(upstream: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(EVERY_PAIR))
    dtypes = ["float16", "float32", "float64", *(["int64"] if name == "dot_score" else [])]
    dtype, D = data.draw(st.sampled_from(dtypes)), data.draw(SIZES)
    a, b = (random_vectors(data.draw(SEEDS), data.draw(SIZES), D, dtype) for _ in "ab")
    holder = HOLDERS[data.draw(st.sampled_from(sorted(HOLDERS)))]
    one = data.draw(st.booleans())
    held = [holder(a)[0] if one else holder(a), holder(b)]
    expected = getattr(upstream, name)(*held)
    assert_alike(getattr(util, name)(*held), expected, largest(name, a[:1] if one else a, b))


@given(data=st.data())
def test_pairs_are_scored_as_upstream(upstream: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from((*PAIR_BY_PAIR, "pairwise_angle_sim")))
    dtypes = ["float16", "float32", "float64", *([] if name in NEEDS_FLOATS else ["int64"])]
    (dtype, other), D = (data.draw(st.sampled_from(dtypes)) for _ in "ab"), data.draw(SIZES)
    n = data.draw(SIZES)
    a, b = random_vectors(data.draw(SEEDS), n, D, dtype), random_vectors(data.draw(SEEDS), n, D, other)
    holder = HOLDERS[data.draw(st.sampled_from(sorted(HOLDERS)))]
    held = [holder(a), holder(b)]
    if name != "pairwise_angle_sim" and data.draw(st.booleans()):  # one vector with all, or one with one
        held = [held[0][0], held[1] if data.draw(st.booleans()) else held[1][0]]
    computed = "float64" if dtype == other == "float64" else "" if "int64" == dtype == other else "float32"
    assert_alike(getattr(util, name)(*held), getattr(upstream, name)(*held), largest(name, a, b), computed)


@pytest.mark.parametrize("name", EVERY_PAIR)
@pytest.mark.parametrize(("n", "m", "D"), [(0, 3, 4), (3, 0, 4), (0, 0, 4), (2, 3, 0)])
def test_nothing_is_scored_as_upstream(upstream: Any, name: str, n: int, m: int, D: int) -> None:
    a, b = np.ones((n, D), np.float32), np.ones((m, D), np.float32)
    assert_alike(getattr(util, name)(a, b), getattr(upstream, name)(a, b), 1.0)
    assert_alike(getattr(util, name)([], []), getattr(upstream, name)([], []), 1.0)


@given(SEEDS, SIZES, st.sampled_from(["float16", "float32", "float64"]), st.integers(-3, 12) | st.none())
def test_normalize_and_truncate_are_upstream_s(
    upstream: Any, seed: int, D: int, dtype: str, truncate_dim: int | None
) -> None:
    vectors = random_vectors(seed, 5, D, dtype)
    for x in (vectors, vectors[0]):
        # in float16 the 1e-12 of upstream is 0, so zero vectors become NaN
        expected = np.nan_to_num(upstream.normalize_embeddings(as_tensor(x)).numpy())
        found = util.normalize_embeddings(x)
        assert found.dtype == expected.dtype
        assert_close(found, expected, abs_=1e-3 if dtype == "float16" else 1e-6)
        np.testing.assert_array_equal(
            util.truncate_embeddings(x, truncate_dim), upstream.truncate_embeddings(x, truncate_dim), strict=True
        )


@pytest.mark.parametrize("name", [*EVERY_PAIR, *PAIR_BY_PAIR, "pairwise_angle_sim"])
def test_nan_and_infinity_go_through_as_upstream(upstream: Any, name: str) -> None:
    for number in (np.nan, np.inf):
        a = np.array([[number, 1.0], [1.0, 2.0]], np.float32)
        b = np.array([[0.0, 1.0], [3.0, 4.0]], np.float32)
        expected = getattr(upstream, name)(a, b).numpy()
        np.testing.assert_allclose(getattr(util, name)(a, b), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_distance_keeps_its_digits_however_small_it_is(dtype: str) -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (40, 384)).astype(dtype)
    near = (vectors + np.logspace(-7, -1, 40)[:, None].astype(dtype)).astype(dtype)
    expected = -np.sqrt(((vectors[:, None].astype(np.float64) - near.astype(np.float64)) ** 2).sum(axis=-1))
    found = util.euclidean_sim(vectors, near)
    rtol = 4 * float(np.finfo(np.float32).eps) if dtype == "float32" else 1e-11
    np.testing.assert_allclose(found, expected, rtol=rtol)
    assert not np.diag(util.euclidean_sim(vectors, vectors)).any()


@pytest.mark.parametrize("name", ["euclidean_sim", "manhattan_sim"])
def test_distances_need_memory_for_one_block_only(name: str) -> None:
    vectors = np.ones((600, 384), np.float32)  # all equal: their differences would take 552 MB
    tracemalloc.start()
    getattr(util, name)(vectors, vectors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


# ---- names and arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in util.__all__ if name != "SimilarityFunction"])
def test_arguments_and_their_defaults_are_upstream_s(upstream: Any, name: str) -> None:
    def arguments(module: Any) -> list[tuple[str, Any]]:
        parameters = inspect.signature(getattr(module, name)).parameters.values()
        return [(p.name, getattr(p.default, "__name__", p.default)) for p in parameters]

    assert arguments(util) == arguments(upstream)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_functions_are_found_by_name_as_upstream(upstream: Any, name: str) -> None:
    for method in ("to_similarity_fn", "to_similarity_pairwise_fn"):
        expected = getattr(upstream.SimilarityFunction, method)(name).__name__
        assert getattr(util.SimilarityFunction, method)(name) is getattr(util, expected)
        assert getattr(util.SimilarityFunction, method)(util.SimilarityFunction(name)).__name__ == expected
    members = upstream.SimilarityFunction.__members__
    assert {key: members[key].value for key in util.SimilarityFunction.__members__} == {
        key: member.value for key, member in util.SimilarityFunction.__members__.items()
    }


def test_possible_values_are_the_implemented_ones() -> None:
    assert util.SimilarityFunction.possible_values() == ["cosine", "dot", "euclidean", "manhattan"]
    assert tuple(util.SimilarityFunction.possible_values()) == SIMILARITIES
    with pytest.raises(InputValueError, match="expected one of 'cosine', 'dot', 'euclidean', 'manhattan', found 'max"):
        util.SimilarityFunction.to_similarity_fn("maxsim")


# ---- what is refused -------------------------------------------------------------------------------------------------

A = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("name", [*EVERY_PAIR, *PAIR_BY_PAIR, "pairwise_angle_sim"])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (None, A, "[ax]: expected an array of numbers, found NoneType object"),
        (A, "text", "[by]: expected an array of numbers, found str <U4"),
        (A, [[1.0, 2.0], [1.0]], "[by]: cannot be read as an array of numbers: .*vectors must have the same length"),
        (A, [A[0], A[0, :1]], "[by]: cannot be read as an array of numbers: .*vectors must have the same length"),
        (A, A[0, 0], "[by]: expected vectors, found the single number"),
        (A, A > 0, "[by]: expected an array of numbers, found ndarray bool"),
        (A, A[:, :2], r"a and b must have vectors of the same length, found the shapes \(2, 3\) and \(2, 2\)$"),
        (A, [], r"found the shapes .* \(an empty list has no dimension: pass np.empty\(\(0, D\)\)\)"),
    ],
    ids=["None", "str", "ragged numbers", "ragged arrays", "one number", "bool", "dimensions", "empty"],
)
def test_arguments_that_are_not_vectors_are_refused(name: str, a: Any, b: Any, message: str) -> None:
    with pytest.raises(MiniLMError, match=message):
        getattr(util, name)(a, b)


@pytest.mark.parametrize("name", [*EVERY_PAIR, "pairwise_angle_sim"])
def test_more_than_two_axes_are_refused(name: str) -> None:
    with pytest.raises(InputValueError, match=r"\(D,\) or vectors \(n, D\), found the shape \(1, 2, 3\)"):
        getattr(util, name)(A[None], A)


@pytest.mark.parametrize("name", [*PAIR_BY_PAIR, "pairwise_angle_sim"])
def test_different_numbers_of_vectors_are_refused_as_upstream(upstream: Any, name: str) -> None:
    b = np.ones((4, 3), np.float32)
    with pytest.raises(
        InputValueError, match=r"the same number of vectors in a and b, found the shapes \(2, 3\) and \(4, 3\)"
    ):
        getattr(util, name)(A, b)
    with pytest.raises(RuntimeError):
        getattr(upstream, name)(A, b)


@pytest.mark.parametrize("name", NEEDS_FLOATS)
def test_integers_are_refused_as_upstream(upstream: Any, name: str) -> None:
    integers = np.ones((2, 2), np.int64)
    with pytest.raises(InputTypeError, match=f"{name}: expected floating-point numbers, found int64: convert them"):
        getattr(util, name)(integers, integers)
    with pytest.raises(RuntimeError):
        getattr(upstream, name)(integers, integers)


def test_quantized_vectors_do_not_overflow() -> None:
    vectors = np.full((1, 384), -128, np.int8)
    assert util.dot_score(vectors, vectors).tolist() == [[384 * 128 * 128]]
    assert util.pairwise_dot_score(vectors, vectors).tolist() == [384 * 128 * 128]


def test_a_tensor_that_numpy_cannot_read_is_refused_with_what_to_do() -> None:
    import torch

    message = r"a: cannot be read as an array of numbers: .*\.detach\(\)\.cpu\(\)\.float\(\) first"
    with pytest.raises(InputTypeError, match=message):
        util.cos_sim(torch.ones(2, 3, requires_grad=True), A)


# ---- next to 1 -------------------------------------------------------------------------------------------------------


@given(st.data())
def test_equal_vectors_have_the_cosine_1(data: st.DataObject) -> None:
    dtype, D = data.draw(st.sampled_from(["float16", "float32", "float64"])), data.draw(st.integers(1, 400))
    distinct = np.random.default_rng(data.draw(SEEDS)).normal(0, 1, (3, D)).astype(dtype)
    vectors = distinct[data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=40))]
    scores, equal = util.cos_sim(vectors, vectors), (vectors[:, None] == vectors).all(axis=2)
    assert (scores[equal] == 1).all()
    assert np.abs(scores).max() <= 1
    assert (util.pairwise_cos_sim(vectors, vectors) == 1).all()
    assert util.pairwise_cos_sim(vectors[0], vectors[0]) == 1
    assert (np.abs(util.cos_sim(vectors, -3 * vectors)) <= 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cosines_next_to_1_are_more_accurate_than_dot_products(dtype: str) -> None:
    generator, D = np.random.default_rng(0), 384
    x = generator.normal(0, 1, (1, D))
    y = x + generator.normal(0, 1, (200, D)) * np.geomspace(1e-9, 1e-1, 200)[:, None]
    x, y = x.astype(dtype), y.astype(dtype)
    wide_x, wide_y = x.astype(np.longdouble), y.astype(np.longdouble)
    exact = (wide_y @ wide_x[0]) / np.sqrt((wide_y**2).sum(axis=1) * (wide_x**2).sum())
    eps = np.finfo(dtype).eps
    near = exact > 1 - D * eps
    assert near.any() and not near.all()
    for scores in (util.cos_sim(x, y)[0], util.pairwise_cos_sim(x, y)):
        assert np.abs(scores - exact)[near].max() <= eps  # about one rounding
        assert np.abs(scores - exact).max() <= D * eps
        assert scores.max() <= 1


def test_very_small_numbers_are_no_error_where_numpy_raises() -> None:
    tiny = np.full((3, 4), 1e-30, np.float32)
    with np.errstate(all="raise"):
        for name in (*EVERY_PAIR, *PAIR_BY_PAIR, "pairwise_angle_sim"):
            getattr(util, name)(tiny, tiny)
        util.normalize_embeddings(tiny)
        util.semantic_search(tiny, tiny)
        util.community_detection(tiny, min_community_size=1)
        util.paraphrase_mining_embeddings(tiny)
        util.quantize_embeddings(tiny, "uint8", np.array([[-1e-30] * 4, [1e-30] * 4]))

"""Search, paraphrases, communities: the results of sentence_transformers.util, ties, memory, and what is refused."""

import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minilm_np import SentenceEncoder, util
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.mining import top_indices
from tests.support.vectors import HOLDERS, SEEDS, as_tensor

CHUNKS = st.integers(1, 12)


def some_vectors(seed: int, n: int, D: int = 7, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, D)).astype(dtype)


def small_integers(seed: int, n: int) -> np.ndarray:
    """Vectors whose dot products are exact in float32, and very often equal."""
    return np.random.default_rng(seed).integers(-2, 3, (n, 3)).astype(np.float32)


# ---- the highest of a row --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 35))
def test_the_highest_come_first_and_equal_ones_by_index(numbers: list[int], k: int) -> None:
    expected = sorted(range(len(numbers)), key=lambda index: (-numbers[index], index))[:k]
    for dtype in (np.float32, np.float64, np.int8):
        assert top_indices(np.array(numbers, dtype), k).tolist() == expected


# ---- semantic search -------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_search_finds_what_upstream_finds(upstream: Any, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float16", "float32", "float64"]))
    queries = some_vectors(data.draw(SEEDS), data.draw(st.integers(0, 9)), 7, dtype)
    corpus = some_vectors(data.draw(SEEDS), data.draw(st.integers(0, 30)), 7, dtype)
    holder = HOLDERS[data.draw(st.sampled_from(sorted(HOLDERS)))] if len(queries) else HOLDERS["array"]
    name = data.draw(st.sampled_from([None, "cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"]))
    sizes: dict[str, Any] = {"query_chunk_size": data.draw(CHUNKS), "corpus_chunk_size": data.draw(CHUNKS)}
    sizes["top_k"] = data.draw(st.integers(0, 35))
    one = len(queries) and data.draw(st.booleans())
    held = (holder(queries)[0] if one else holder(queries), holder(corpus))
    here, there = ({"score_function": getattr(module, name)} if name else {} for module in (util, upstream))
    found = util.semantic_search(*held, **sizes | here)
    expected = upstream.semantic_search(*held, **sizes | there)
    assert len(found) == len(expected)
    for hits, hits_there in zip(found, expected, strict=True):
        assert [[(key, type(value)) for key, value in hit.items()] for hit in hits] == [
            [(key, type(value)) for key, value in hit.items()] for hit in hits_there
        ]
        assert [hit["corpus_id"] for hit in hits] == [hit["corpus_id"] for hit in hits_there]
        scores, scores_there = ([hit["score"] for hit in side] for side in (hits, hits_there))
        np.testing.assert_allclose(scores, scores_there, rtol=1e-4, atol=1e-5)


@given(SEEDS, st.integers(0, 30), CHUNKS, CHUNKS, st.integers(0, 12))
def test_equal_scores_are_ordered_by_index_for_any_chunks(
    upstream: Any, seed: int, n: int, query_chunk: int, corpus_chunk: int, k: int
) -> None:
    queries, corpus = small_integers(seed, 5), small_integers(seed + 1, n)
    for score_function in (util.dot_score, upstream.dot_score):  # a function that returns tensors works too
        found = util.semantic_search(queries, corpus, query_chunk, corpus_chunk, k, score_function)
        for query, hits in zip(queries, found, strict=True):
            scores = [float(query @ entry) for entry in corpus]
            order = sorted(range(n), key=lambda entry: (-scores[entry], entry))[:k]
            assert hits == [{"corpus_id": entry, "score": scores[entry]} for entry in order]


def test_integers_have_integer_scores_as_upstream(upstream: Any) -> None:
    vectors = np.array([[1, 2], [3, 4]])
    found = util.semantic_search(vectors, vectors, score_function=util.dot_score)
    assert found == upstream.semantic_search(vectors, vectors, score_function=upstream.dot_score)
    assert type(found[0][0]["score"]) is int


def test_an_empty_corpus_has_no_hits_as_upstream(upstream: Any) -> None:
    queries = some_vectors(0, 2)
    nothings: tuple[Any, ...] = ([], np.empty((0, 7), np.float32))
    for corpus in nothings:
        assert util.semantic_search(queries, corpus) == upstream.semantic_search(queries, corpus) == [[], []]
    assert util.semantic_search(np.empty((0, 7)), queries) == []


# ---- paraphrases -----------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(0, 25), CHUNKS, CHUNKS, st.integers(0, 40), st.integers(0, 12), st.sampled_from("cde"))
def test_paraphrases_are_those_of_upstream(
    upstream: Any, seed: int, n: int, query_chunk: int, corpus_chunk: int, max_pairs: int, k: int, function: str
) -> None:
    vectors = some_vectors(seed, n, dtype="float64")
    name = {"c": "cos_sim", "d": "dot_score", "e": "euclidean_sim"}[function]
    arguments = (query_chunk, corpus_chunk, max_pairs, k)
    found = util.paraphrase_mining_embeddings(vectors, *arguments, getattr(util, name))
    expected = upstream.paraphrase_mining_embeddings(as_tensor(vectors), *arguments, getattr(upstream, name))
    assert [list(map(type, triplet)) for triplet in found] == [[float, int, int]] * len(expected)
    assert [triplet[1:] for triplet in found] == [triplet[1:] for triplet in expected]
    np.testing.assert_allclose([triplet[0] for triplet in found], [triplet[0] for triplet in expected], atol=1e-6)


@given(SEEDS, st.integers(0, 20), CHUNKS, CHUNKS, st.integers(0, 40), st.integers(0, 12))
def test_equal_pairs_are_ordered_by_index_for_any_chunks(
    seed: int, n: int, query_chunk: int, corpus_chunk: int, max_pairs: int, k: int
) -> None:
    vectors = small_integers(seed, n)
    scores = vectors @ vectors.T
    pairs = set()
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: (-scores[i, j], j))
        pairs |= {(min(i, j), max(i, j)) for j in others[:k]}
    best = sorted(pairs, key=lambda pair: (-scores[pair], pair))[:max_pairs]
    found = util.paraphrase_mining_embeddings(vectors, query_chunk, corpus_chunk, max_pairs, k, util.dot_score)
    assert found == [[float(scores[i, j]), i, j] for i, j in best]


def test_a_vector_alone_has_no_paraphrase_as_upstream(upstream: Any) -> None:
    for vectors in (np.ones((1, 3), np.float32), np.ones(3, np.float32), np.empty((0, 3), np.float32)):
        assert util.paraphrase_mining_embeddings(vectors) == upstream.paraphrase_mining_embeddings(vectors) == []


SENTENCES = [
    "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", "How do I reset my password?",
    "I forgot my password.", "A man is playing a guitar.", "Someone plays the guitar.", "The cat sleeps.",
]  # fmt: skip


@pytest.mark.weights
def test_paraphrases_of_sentences_are_upstream_s(
    upstream: Any, published: SentenceEncoder, sentence_transformer: Any
) -> None:
    found = util.paraphrase_mining(published, SENTENCES, max_pairs=9)
    expected = upstream.paraphrase_mining(sentence_transformer, SENTENCES, max_pairs=9)
    assert [triplet[1:] for triplet in found] == [triplet[1:] for triplet in expected]
    np.testing.assert_allclose([triplet[0] for triplet in found], [triplet[0] for triplet in expected], atol=1e-5)
    assert util.paraphrase_mining(sentence_transformer, SENTENCES, truncate_dim=32, prompt="a: ")[0][1:] == [5, 6]


# ---- communities -----------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_communities_are_those_of_upstream(upstream: Any, data: st.DataObject) -> None:
    n, dtype = data.draw(st.integers(0, 60)), data.draw(st.sampled_from(["float32", "float64"]))
    generator = np.random.default_rng(data.draw(SEEDS))
    centers = generator.normal(0, 1, (4, 5))
    spread = data.draw(st.sampled_from([0.01, 0.3, 0.6, 2.0]))
    vectors = (centers[generator.integers(0, 4, n)] + generator.normal(0, spread, (n, 5))).astype(dtype)
    threshold = data.draw(st.sampled_from([0.75, 0.5, 0.9, 0, 1]))
    unit = util.normalize_embeddings(vectors.astype(np.float64)) if n else vectors
    assume(not (np.abs(unit @ unit.T - threshold)[~np.eye(n, dtype=bool)] < 1e-6).any())
    if threshold == 1:
        vectors = np.eye(5, dtype=dtype)[generator.integers(0, 5, n)]  # cosines with themselves are exactly 1
    size, batch_size = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 70))
    holder = HOLDERS[data.draw(st.sampled_from(["array", "tensor", "arrays", "tensors"]))] if n else HOLDERS["array"]
    found = util.community_detection(holder(vectors), threshold, size, batch_size)
    expected = upstream.community_detection(holder(vectors), threshold, size, batch_size)
    # members with almost the same cosine may come in another order
    assert [(group[0], sorted(group)) for group in found] == [(group[0], sorted(group)) for group in expected]
    assert all(type(index) is int for group in found for index in group)
    unit = util.normalize_embeddings(vectors)
    with np.errstate(all="ignore"):  # BLAS sometimes sets a flag, although all numbers are finite
        assert all((np.diff(unit[group] @ unit[group[0]]) < 1e-6).all() for group in found)


def test_equal_members_are_ordered_by_index() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 1, 0, 1, 1, 2]]
    assert util.community_detection(vectors, min_community_size=2, batch_size=2) == [[1, 3, 4], [0, 2]]


@given(SEEDS, st.sampled_from([3, 7, 384]), st.sampled_from(["float32", "float64"]), st.integers(1, 9))
def test_equal_vectors_reach_any_threshold_up_to_1(seed: int, D: int, dtype: str, batch_size: int) -> None:
    distinct = some_vectors(seed, 3, D, dtype)
    vectors = distinct[[0, 1, 0, 1, 2, 0]]
    for threshold in (1, 1.0, 0.9999999999):
        assert util.community_detection(vectors, threshold, 2, batch_size) == [[0, 2, 5], [1, 3]]
    assert util.paraphrase_mining_embeddings(vectors, max_pairs=4) == [[1, 0, 2], [1, 0, 5], [1, 1, 3], [1, 2, 5]]
    assert [hit["score"] for hit in util.semantic_search(distinct[0], vectors, top_k=3)[0]] == [1, 1, 1]


def test_communities_of_nothing_and_of_one_are_upstream_s(upstream: Any) -> None:
    few: tuple[Any, ...] = ([], np.empty((0, 3), np.float32), np.ones(3, np.float32), np.ones((1, 3), np.float32))
    for vectors in few:
        for size in (1, 2):
            found = util.community_detection(vectors, min_community_size=size)
            assert found == upstream.community_detection(vectors, min_community_size=size)


def test_zero_and_nan_are_in_no_community_as_upstream(upstream: Any) -> None:
    vectors = np.array([[1, 1], [0, 0], [1, 1], [np.nan, 1], [1, 1]], np.float32)
    found = util.community_detection(vectors, min_community_size=2)
    assert [sorted(group) for group in found] == [[0, 2, 4]]
    assert [sorted(group) for group in upstream.community_detection(vectors, min_community_size=2)] == [[0, 2, 4]]


def test_a_progress_bar_is_drawn_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    util.community_detection(np.ones((3, 2), np.float32), min_community_size=1)
    assert capsys.readouterr().err == ""
    util.community_detection(np.ones((3, 2), np.float32), min_community_size=1, show_progress_bar=True)
    assert "Finding clusters: 100%" in capsys.readouterr().err


# ---- memory ----------------------------------------------------------------------------------------------------------


def recording(shapes: list[tuple[int, int]]) -> Callable[[Any, Any], Any]:
    def score(a: Any, b: Any) -> Any:
        shapes.append((len(a), len(b)))
        return util.dot_score(a, b)

    return score


def test_scores_are_computed_one_chunk_at_a_time() -> None:
    vectors = some_vectors(0, 25)
    shapes: list[tuple[int, int]] = []
    util.semantic_search(vectors, vectors, 10, 20, 3, recording(shapes))
    assert sorted(shapes) == sorted([(10, 20), (10, 20), (5, 20), (10, 5), (10, 5), (5, 5)])
    shapes.clear()
    util.paraphrase_mining_embeddings(vectors, 10, 20, 3, 3, recording(shapes))
    assert sorted(shapes) == sorted([(10, 20), (10, 20), (5, 20), (10, 5), (10, 5), (5, 5)])


@contextmanager
def at_most(bytes_: float) -> Iterator[None]:
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < bytes_


def test_memory_is_bounded_by_the_chunks() -> None:
    vectors = some_vectors(0, 3000, 16)  # all scores would take 36 MB
    with at_most(3e6):
        util.semantic_search(vectors[:300], vectors, 50, 500, 5)
    with at_most(4e6):
        util.paraphrase_mining_embeddings(vectors, 50, 500, 1000, 5)
    alike = np.ones((3000, 16), np.float32)  # all are neighbours: all groups together would have 9 million members
    with at_most(3e6):
        assert util.community_detection(alike, batch_size=50) == [list(range(3000))]


# ---- what is refused -------------------------------------------------------------------------------------------------

X = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("semantic_search", {"top_k": -1}, "top_k: expected an int of at least 0, found -1"),
        ("semantic_search", {"top_k": 1.5}, "top_k: expected an int, found float"),
        ("semantic_search", {"query_chunk_size": 0}, "query_chunk_size: expected an int of at least 1, found 0"),
        ("semantic_search", {"corpus_chunk_size": -1}, "corpus_chunk_size: expected an int of at least 1, found -1"),
        ("paraphrase_mining_embeddings", {"max_pairs": -1}, "max_pairs: expected an int of at least 0, found -1"),
        ("paraphrase_mining_embeddings", {"top_k": None}, "top_k: expected an int, found NoneType"),
        ("paraphrase_mining_embeddings", {"query_chunk_size": 0}, "query_chunk_size: expected an int of at least 1"),
        ("paraphrase_mining_embeddings", {"corpus_chunk_size": 0}, "corpus_chunk_size: expected an int of at least 1"),
        ("community_detection", {"batch_size": 0}, "batch_size: expected an int of at least 1, found 0"),
        ("community_detection", {"min_community_size": 0}, "min_community_size: expected an int of at least 1"),
        ("community_detection", {"threshold": None}, "threshold: expected a number, found None"),
        ("community_detection", {"threshold": "much"}, "threshold: expected a number, found 'much'"),
    ],
)
def test_an_impossible_size_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((InputTypeError, InputValueError), match=message):
        getattr(util, name)(*[X] * (2 if name == "semantic_search" else 1), **arguments)


def test_vectors_that_do_not_fit_are_refused_as_upstream(upstream: Any) -> None:
    message = "query_embeddings and corpus_embeddings must have vectors of the same length"
    for queries, corpus in ((X, X[:, :1]), ([], X)):
        with pytest.raises(InputValueError, match=message):
            util.semantic_search(queries, corpus)
        with pytest.raises(RuntimeError):
            upstream.semantic_search(queries, corpus)
    with pytest.raises(InputValueError, match=r"corpus_embeddings: expected a vector .* found the shape \(1, 3, 2\)"):
        util.semantic_search(X, X[None])
    for name in ("paraphrase_mining_embeddings", "community_detection"):
        with pytest.raises(InputValueError, match=r"embeddings: expected a vector .* found the shape \(1, 3, 2\)"):
            getattr(util, name)(X[None])


def test_integers_have_no_cosine_as_upstream(upstream: Any) -> None:
    for module, error in ((util, InputTypeError), (upstream, RuntimeError)):
        for call in (lambda m: m.semantic_search(X.astype(int), X.astype(int)), lambda m: m.community_detection(
            X.astype(int), min_community_size=1
        )):  # fmt: skip
            with pytest.raises(error, match=r"[Ff]loating"):
                call(module)


def test_a_score_that_is_nan_is_refused_by_name() -> None:
    corpus = np.ones((9, 2), np.float32)
    corpus[7] = np.nan
    for chunk in (1, 4, 100):
        with pytest.raises(InputValueError, match="the score of query 0 and corpus entry 7 is NaN: look for NaN or"):
            util.semantic_search(X, corpus, corpus_chunk_size=chunk)
    with pytest.raises(InputValueError, match="the score of query 0 and corpus entry 7 is NaN"):
        util.paraphrase_mining_embeddings(corpus)
    with pytest.raises(InputValueError, match="the score of query 5 and corpus entry 0 is NaN"):
        util.paraphrase_mining_embeddings(
            np.arange(9)[:, None], query_chunk_size=2, score_function=lambda a, b: np.where(a == 5, np.nan, a * b.T)
        )


def test_scores_of_another_shape_are_refused() -> None:
    message = re.escape("score_function: expected scores of the shape (3, 3), found (3,)")
    with pytest.raises(InputValueError, match=message):
        util.semantic_search(X, X, score_function=util.pairwise_cos_sim)

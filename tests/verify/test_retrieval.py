"""Whether both sides find the same neighbours."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from minilm_np import ImplementationError, InputValueError, SentenceEncoder
from minilm_np.verify import built_in_sentences, compare_retrieval
from minilm_np.verify.retrieval import QUERIES
from tests.support.verify_ports import Stored


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


@pytest.fixture(scope="module")
def ours(small: SentenceEncoder) -> np.ndarray:
    return small.encode(built_in_sentences())


def test_there_are_300_plain_sentences() -> None:
    sentences = built_in_sentences()
    assert len(sentences) == len(set(sentences)) == 300
    assert all(line.isprintable() and line.isascii() and line.strip() == line for line in sentences)
    assert all(20 <= len(line) <= 100 and line[0].isupper() and line.endswith(".") for line in sentences)


def test_equal_vectors_and_other_lengths_change_nothing(small: SentenceEncoder, ours: np.ndarray) -> None:
    found = compare_retrieval(small, Stored(ours * 3))
    assert (found.texts, found.queries, found.all_equal, found.first_equal) == (300, 300, 300, 300)
    assert (found.neighbours, found.mean_overlap, found.worst_overlap) == (10, 10.0, 10)
    assert found.is_same and found.kendall_tau > 0.99999 and found.max_cosine_change < 1e-6
    assert found.sentence == "Retrieval is the same: all 10 neighbours are equal for every query."
    assert json.loads(json.dumps(found.as_dict()))["is_same"] is True


def test_vectors_in_fewer_dimensions_are_judged_by_their_neighbours(small: SentenceEncoder, ours: np.ndarray) -> None:
    found = compare_retrieval(small, Stored(ours[:, :48]))
    assert 2 < found.mean_overlap < 9.9 and found.worst_overlap < 10 and 0.3 < found.kendall_tau < 0.99
    assert found.sentence.startswith(
        f"Retrieval is different: {found.mean_overlap:.2f} of 10 neighbours are equal on average"
    )


def test_neighbours_among_few_texts_are_not_called_the_same(small: SentenceEncoder, ours: np.ndarray) -> None:
    texts = built_in_sentences()[:4]
    found = compare_retrieval(small, Stored(ours[:4]), texts)
    assert found.sentence.startswith("Equal neighbours show nothing here: there are 4 texts, so the 3 neighbours ")


def test_small_changes_are_nearly_the_same(small: SentenceEncoder, ours: np.ndarray) -> None:
    changed = ours.copy()
    changed[[0, 1]] = changed[[1, 0]]
    found = compare_retrieval(small, Stored(changed))
    assert not found.is_same and found.mean_overlap > 9.0 and found.max_cosine_change > 1e-3
    assert found.worst_query in built_in_sentences()


@pytest.mark.parametrize("count", [2, 3, 40])
def test_the_numbers_are_those_of_plain_loops(small: SentenceEncoder, ours: np.ndarray, count: int) -> None:
    texts, rng = built_in_sentences()[:count], np.random.default_rng(count)
    theirs = ours[:count] + rng.normal(0, 0.01, (count, ours.shape[1]))
    found = compare_retrieval(small, Stored(theirs), texts, neighbours=4)
    a, b = (
        (x / np.linalg.norm(x, axis=1)[:, None]) @ (x / np.linalg.norm(x, axis=1)[:, None]).T
        for x in (ours[:count].astype(np.float64), theirs)
    )
    overlaps, taus = [], []
    k = min(4, count - 1)
    for query in range(count):
        others = [text for text in range(count) if text != query]
        nearest = [set(sorted(others, key=lambda text: -x[query, text])[:k]) for x in (a, b)]
        overlaps.append(len(nearest[0] & nearest[1]))
        if count > 2:
            taus.append(kendalltau(a[query, others], b[query, others]).statistic)
    assert found.neighbours == k
    assert found.mean_overlap == pytest.approx(np.mean(overlaps)) and found.worst_overlap == min(overlaps)
    assert found.kendall_tau == pytest.approx(np.mean(taus) if taus else 1.0)
    assert found.max_cosine_change == pytest.approx(np.abs(a - b).max())


def test_the_order_of_equal_texts_does_not_count(small: SentenceEncoder) -> None:
    texts = [f"{word} text" for word in "abcd"] * 10
    vectors = small.encode(texts)
    noise = np.random.default_rng(0).uniform(-1e-8, 1e-8, vectors.shape)
    assert compare_retrieval(small, Stored(vectors + noise), texts).is_same


def test_of_a_large_corpus_some_texts_are_queries(small: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm_np.verify.retrieval.QUERIES", 7)
    monkeypatch.setattr("minilm_np.verify.retrieval.BLOCK", 100)
    texts = built_in_sentences()[:50]
    found = compare_retrieval(small, Stored(small.encode(texts)), texts)
    assert (found.texts, found.queries, found.all_equal) == (50, 7, 7)
    assert QUERIES == 1000


def test_a_file_of_vectors_is_its_own_corpus(small: SentenceEncoder, tmp_path: Path) -> None:
    texts = built_in_sentences()[:12]
    lines = (
        json.dumps({"text": text, "embedding": vector.tolist()})
        for text, vector in zip(texts, small.encode(texts), strict=True)
    )
    (tmp_path / "v.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "v.npy", small.encode(texts))
    found = compare_retrieval(small, str(tmp_path / "v.jsonl"))
    assert (found.texts, found.neighbours, found.is_same) == (12, 10, True)
    assert found.corpus == "12 texts of v.jsonl"
    assert compare_retrieval(small, str(tmp_path / "v.npy"), texts).is_same
    with pytest.raises(InputValueError, match=r"corpus: expected the texts of v\.npy, which has none"):
        compare_retrieval(small, str(tmp_path / "v.npy"))


def test_vectors_that_are_not_finite_are_counted(small: SentenceEncoder, ours: np.ndarray) -> None:
    vectors = ours.copy()
    vectors[3, 5] = np.nan
    found = compare_retrieval(small, Stored(vectors))
    assert found.not_finite == 1 and not found.is_same
    assert found.sentence.endswith("; 1 of their vectors are not finite.")


def test_refusals(small: SentenceEncoder, ours: np.ndarray) -> None:
    def refused(vectors: Any, corpus: Sequence[str] | None, message: str, **options: Any) -> None:
        with pytest.raises((InputValueError, ImplementationError), match=message):
            compare_retrieval(small, Stored(vectors), corpus, **options)

    refused(ours, ["one"], "corpus: expected at least 2 texts, found 1")
    refused(ours, None, "neighbours: expected a whole number of at least 1, found 0", neighbours=0)
    refused(ours, None, "neighbours: expected a whole number of at least 1, found True", neighbours=True)
    refused(ours[:5], None, r"stored: expected 300 vectors, found an array of shape \(5, 96\)")

"""`verify`: what it says of an implementation that agrees, and of one with a fault that was planted."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError, SentenceEncoder
from minilm_np.model_files.random_weights import SMALL
from minilm_np.verify import Comparison, built_in_texts, compare, summarised
from tests.support.verify_ports import TEXTS, Port, Stored, fault


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def test_the_built_in_texts_are_what_their_labels_say(small: SentenceEncoder) -> None:
    texts = dict(built_in_texts(small))
    assert len(texts) == len(built_in_texts(small))
    limit = small.max_seq_length
    tokenized = small.tokenizer([texts[f"{label} the limit"] for label in ("one under", "at", "one over", "far over")])
    assert tokenized.n_tokens == [limit - 1, limit, limit, limit]
    assert tokenized.truncated == [False, False, True, True]
    shortest = SentenceEncoder.random(replace(SMALL, max_seq_length=2), backend="numpy")
    assert dict(built_in_texts(shortest))["one under the limit"] == ""


@pytest.mark.weights
def test_the_built_in_texts_reach_the_published_limit(published: SentenceEncoder) -> None:
    texts = dict(built_in_texts(published))
    tokenized = published.tokenizer([texts[f"{label} the limit"] for label in ("one under", "at", "one over")])
    assert (tokenized.n_tokens, tokenized.truncated) == ([255, 256, 256], [False, False, True])
    unknown = published.tokenizer(["[UNK]"]).ids[0]
    assert published.tokenizer([texts["a word of 101 characters"]]).ids[0] == unknown
    assert published.tokenizer([texts["a word of 100 characters"]]).ids[0] != unknown


@pytest.mark.parametrize(
    ("backend", "pooling_mode"), [("numba", "mean"), ("numba", "cls"), ("numba", "max"), ("numpy", "mean")]
)
def test_an_implementation_that_agrees_is_within_the_tolerance(backend: str, pooling_mode: str) -> None:
    config = replace(SMALL, pooling_mode=pooling_mode, normalize=pooling_mode == "mean")
    encoder = SentenceEncoder.random(config, seed=5, backend=backend)
    comparison = compare(encoder, Port(encoder))
    assert comparison.within and comparison.parts_at is None and comparison.problems == []
    assert comparison.texts == len(built_in_texts(encoder))
    assert comparison.vector is not None and comparison.largest is not None
    assert comparison.vector.theirs.max_abs == 0  # the port is the truth itself
    assert 0 < comparison.vector.ours.max_rel < 2e-6
    assert 0 < comparison.largest == comparison.our_largest < 5e-7
    assert comparison.vector.difference.min_cosine == pytest.approx(1, abs=1e-11)
    assert len(comparison.intermediates) == 4 + 3 * 12 + 1 + config.normalize
    assert all(row.theirs.max_abs == 0 and row.ours.max_rel < 4e-6 for row in comparison.intermediates)
    assert comparison.verdict.startswith("within the tolerance: the largest difference is ")
    assert "closer to float64: theirs (largest error: ours " in comparison.verdict
    tight = compare(encoder, Port(encoder), TEXTS, tolerance=1e-12)
    assert not tight.within


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("embeddings.position_embeddings", lambda x: np.roll(x, 2, axis=0)),
        ("encoder.layer.0.attention.self.query", lambda x: x.astype(np.float16).astype(np.float64)),
        ("encoder.layer.1.attention.self.scores", lambda x: x * 1.01),
        ("encoder.layer.2.intermediate.intermediate_act_fn", lambda x: np.maximum(x, 0)),
        ("encoder.layer.2.output.LayerNorm", lambda x: x + 1e-4),
        ("pooling", lambda x: x * np.where(np.arange(len(x)) == 3, 1.001, 1)),
    ],
)
def test_the_step_with_a_fault_is_named(small: SentenceEncoder, where: str, change: Any) -> None:
    comparison = compare(small, Port(small, fault(where, change)), TEXTS)
    assert comparison.parts_at == where
    assert f"the first step that differs is {where}; " in comparison.verdict


def test_another_models_vectors_are_outside(small: SentenceEncoder) -> None:
    other = SentenceEncoder.random(seed=1, backend="numpy")
    comparison = compare(small, Port(other), TEXTS)
    assert not comparison.within and comparison.parts_at == "embeddings.word_embeddings"
    assert comparison.verdict.startswith("outside the tolerance: ") and "closer to float64: ours" in comparison.verdict
    assert comparison.vector is not None and comparison.vector.difference.min_cosine < 0.9


def test_the_worst_text_and_both_errors_are_measured(small: SentenceEncoder) -> None:
    truth = Port(small).vectors(TEXTS)
    theirs = truth.copy()
    theirs[2, 7] += 0.25
    theirs[0, 3] -= 0.125
    comparison = compare(small, Stored(theirs, TEXTS))
    row = comparison.vector
    assert row is not None and comparison.intermediates == [] and comparison.parts_at is None
    assert row.worst_text == "text 2 'a longer text than the others'"
    assert row.theirs.max_abs == pytest.approx(0.25, rel=1e-12)
    assert row.difference.max_abs == pytest.approx(0.25, abs=1e-6)
    assert row.theirs.max_rel == pytest.approx(max(0.25 / np.abs(truth[2]).max(), 0.125 / np.abs(truth[0]).max()))
    assert comparison.largest == pytest.approx(0.25, abs=1e-6)  # of vectors of length 1
    cosines = (theirs * truth).sum(1) / np.linalg.norm(theirs, axis=1)
    assert row.theirs.min_cosine == pytest.approx(cosines.min(), abs=1e-12)


def test_the_tolerance_is_of_the_vectors_length() -> None:
    encoder = SentenceEncoder.random(replace(SMALL, normalize=False), backend="numpy")
    truth = Port(encoder).vectors(TEXTS)
    theirs = truth.copy()
    theirs[1, 0] += 0.01 * np.linalg.norm(truth[1])
    assert compare(encoder, Stored(theirs), TEXTS).largest == pytest.approx(0.01, rel=1e-4)
    assert compare(encoder, Stored(theirs), TEXTS, tolerance=0.011).within
    assert not compare(encoder, Stored(theirs), TEXTS, tolerance=0.009).within


def test_vectors_that_are_not_finite_are_reported(small: SentenceEncoder) -> None:
    theirs = Port(small).vectors(TEXTS)
    theirs[0, 0], theirs[1, 5] = np.nan, -np.inf
    comparison = compare(small, Stored(theirs), TEXTS)
    assert comparison.problems == [
        "2 of 3 vectors are not finite (NaN or infinity): text 0 'hello world', text 'empty'"
    ]
    assert not comparison.within and comparison.largest is not None and comparison.largest < 1e-6
    assert comparison.verdict.startswith("2 of 3 vectors are not finite (NaN")
    assert "'empty'; everything else is within the tolerance: " in comparison.verdict
    nothing = compare(small, Stored(np.full_like(theirs, np.nan)), TEXTS)
    assert nothing.vector is None and nothing.verdict.startswith("not comparable; 3 of 3 vectors are not finite")


@pytest.mark.parametrize("shape", [(3, 384), (2, 96), (3,), (0, 0)])
def test_vectors_of_another_shape_are_reported(small: SentenceEncoder, shape: tuple[int, ...]) -> None:
    comparison = compare(small, Stored(np.zeros(shape)), TEXTS)
    assert comparison.problems == [f"the vectors have shape {shape}, expected (3, 96)"]
    assert not comparison.within and comparison.vector is None and comparison.largest is None


def test_intermediates_that_cannot_be_compared_are_reported(small: SentenceEncoder) -> None:
    name = "encoder.layer.1.output.dense"
    comparison = compare(small, Port(small, fault(name, lambda x: x * np.nan)), TEXTS[:1])
    assert comparison.problems[0] == "1 of 1 vectors is not finite (NaN or infinity): text 0 'hello world'"
    assert comparison.problems[1] == f"text 0 'hello world': {name} is not finite"
    assert comparison.parts_at == name and not comparison.within
    json.dumps(comparison.as_dict(), allow_nan=False)
    comparison = compare(small, Port(small, fault("normalize", lambda x: x[1:])), TEXTS[:1])
    assert comparison.problems[1] == "text 0 'hello world': normalize has shape (95,), expected (96,)"


def test_token_ids_that_differ_are_reported(small: SentenceEncoder) -> None:
    ids = [list(text) for text in small.tokenizer(TEXTS).ids]
    assert compare(small, Port(small, ids=ids), TEXTS).problems == []
    ids[0][2] += 1
    ids[1].pop()
    first, second = compare(small, Port(small, ids=ids), TEXTS).problems
    assert first.startswith("text 0 'hello world': the token ids differ from position 2 on: ours ")
    assert second == "empty: the token ids differ from position 1 on: ours 3 (2 in total), theirs (end) (1 in total)"


def test_a_summary_keeps_the_worst_of_each_layer(small: SentenceEncoder) -> None:
    name = "encoder.layer.1.attention.self.scores"
    rows = compare(small, Port(small, fault(name, lambda x: x + 1)), TEXTS).intermediates  # which softmax undoes
    lines = {row.name: row for row in summarised(rows)}
    assert list(lines) == ["embeddings", *(f"encoder.layer.{n}" for n in range(3)), "pooling", "normalize"]
    assert lines["encoder.layer.1"].difference.max_abs == pytest.approx(1, abs=1e-5)
    assert lines["encoder.layer.2"].difference.max_abs < 1e-5


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ([], {}, InputValueError, "texts: expected at least one, found none"),
        ("text", {}, InputTypeError, "expected"),
        ([3], {}, InputTypeError, "expected"),
        (TEXTS, {"tolerance": -1}, InputValueError, "tolerance: expected a number of at least 0, found -1"),
        (TEXTS, {"tolerance": math.nan}, InputValueError, "tolerance: expected"),
        (TEXTS, {"tolerance": True}, InputValueError, "tolerance: expected"),
    ],
)
def test_wrong_arguments_are_refused(
    small: SentenceEncoder, texts: Any, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        compare(small, Port(small), texts, **options)


@pytest.mark.weights
@pytest.mark.parametrize("source", ["sentence-transformers", "transformers"])
def test_the_published_model_agrees_with_torch(published: SentenceEncoder, source: str) -> None:
    comparison = compare(published, source, [text for _, text in built_in_texts(published)[:10]])
    assert comparison.within and comparison.parts_at is None, comparison.verdict
    assert comparison.largest is not None and comparison.largest < 5e-7
    assert len(comparison.intermediates) == 4 + 6 * 11 + 2


def test_a_comparison_is_a_value(small: SentenceEncoder) -> None:
    first, second = (compare(small, Port(small), TEXTS) for _ in range(2))
    assert isinstance(first, Comparison) and first == second

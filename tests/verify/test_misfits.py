"""Diagnose vectors of other lengths or orders, single wrong ones, low precision, other models; and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.low_precision import is_like
from minilm_np.verify.vector_errors import alike
from tests.support.diagnose_models import CONFIG, SHORT, by_torch, explaining, folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(folder(tmp_path_factory.mktemp("model"), CONFIG, 1), backend="numpy")


def test_vectors_of_another_length_are_scaled(encoder: SentenceEncoder) -> None:
    diagnosis = diagnose(encoder, 3.0 * by_torch(encoder, SHORT), SHORT)
    assert diagnosis.verdict == "scaled" and "the model's times 3" in diagnosis.sentence
    factors = np.linspace(0.5, 2.0, len(SHORT))[:, None]
    diagnosis = diagnose(encoder, factors * by_torch(encoder, SHORT, "tanh GELU"), SHORT)
    assert diagnosis.verdict == "scaled" and "those of the model with tanh GELU" in diagnosis.sentence
    assert "times 0.5 to 2:" in diagnosis.sentence


@pytest.mark.parametrize(
    ("store", "how"),
    [
        (lambda x: x.astype(np.float16), "as float16"),
        (lambda x: np.round(x, 4), "with 4 decimals"),
        (lambda x: np.round(x.astype(np.float64), 6), "with 6 decimals"),
    ],
)
def test_how_vectors_were_stored_is_rounding(encoder: SentenceEncoder, store: Any, how: str) -> None:
    diagnosis = diagnose(encoder, store(by_torch(encoder, SHORT)), SHORT)
    assert diagnosis.verdict == "match" and f"numbers stored {how}" in diagnosis.sentence
    diagnosis = diagnose(encoder, store(by_torch(encoder, SHORT, "positions off by two")), SHORT)
    assert {"positions off by two"} in explaining(diagnosis)


def test_vectors_in_another_order(encoder: SentenceEncoder) -> None:
    texts = [*SHORT, SHORT[1]]  # one text twice
    diagnosis = diagnose(encoder, by_torch(encoder, texts)[[1, 0, 2, 3, 4, 5, 6]], texts)
    assert diagnosis.verdict == "reordered"
    assert "vector 0 is that of text 1" in diagnosis.sentence and "vector 1 is that of text 0" in diagnosis.sentence


def test_equal_texts_do_not_move(encoder: SentenceEncoder) -> None:
    """Texts with equal vectors tie: only a vector that does not fit its own text has moved, each to another one."""
    texts = [*SHORT, *SHORT[:2], "jump"]
    vectors = by_torch(encoder, texts)
    swapped = vectors.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    sentence = diagnose(encoder, swapped, texts).sentence
    assert sentence.endswith(": vector 3 is that of text 4; vector 4 is that of text 3."), sentence
    diagnosis = diagnose(encoder, vectors[::-1], texts)
    assert diagnosis.verdict == "reordered" and diagnosis.sentence.endswith("; and 3 more."), diagnosis.sentence
    named = [part.split()[-1] for part in diagnosis.sentence.rstrip(".").split("; ")[:3]]
    assert len(set(named)) == 3
    assert "--texts FILE" in diagnosis.remedies[0]


def test_some_wrong_vectors_are_named(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, SHORT)
    for wrong, what in (
        (np.zeros(32), "is all zeros"),
        (vectors[1], "is that of text 1"),
        (-vectors[5], "is off by "),
    ):
        given = vectors.copy()
        given[5] = wrong
        diagnosis = diagnose(encoder, given, SHORT)
        shown = "'the quick brown fox jumps over the la...'"
        expected = f"5 of 6 vectors match, 1 does not (counted from 0): vector 5 (text {shown}) {what}"
        assert diagnosis.verdict == "unexplained" and diagnosis.sentence.startswith(expected), diagnosis.sentence
        assert diagnosis.findings == () and "minilm-np trace" in diagnosis.remedies[0]
    texts = [*SHORT, "jump", "over"]
    given = by_torch(encoder, texts)
    given[[0, 1, 4, 6]] *= np.array([[-1], [-1], [0], [-1]], np.float32)
    sentence = diagnose(encoder, given, texts).sentence
    assert sentence.startswith("4 of 8 vectors match, 4 do not (counted from 0, worst first): vector "), sentence
    assert sentence.endswith("; and 1 more."), sentence


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8, weights per tensor"])
def test_arithmetic_in_fewer_bits_is_recognised(encoder: SentenceEncoder, name: str) -> None:
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT, f"arithmetic in {name}"), SHORT)
    assert diagnosis.verdict == "unexplained" and explaining(diagnosis) == [], diagnosis.sentence
    assert f"are consistent with arithmetic in {name}. This is a resemblance, not a proof" in diagnosis.sentence
    assert "Compute in float32" in diagnosis.remedies[0]


def test_alike_is_a_cosine() -> None:
    random = np.random.default_rng(0).standard_normal((2, 8, 64))
    assert alike(random[0], 3 * random[0]) == pytest.approx(1) and abs(alike(*random)) < 0.15
    assert is_like(random[0], 3 * random[0]) and not is_like(random[0], 5 * random[0]) and not is_like(*random)


def test_another_model_is_unrelated(encoder: SentenceEncoder, tmp_path: Path) -> None:
    other = SentenceEncoder(folder(tmp_path, CONFIG, 7), backend="numpy")
    diagnosis = diagnose(encoder, by_torch(other, SHORT), SHORT)
    assert diagnosis.verdict == "unrelated" and diagnosis.findings == ()
    assert "another model" in diagnosis.sentence
    random = np.random.default_rng(0).standard_normal((len(SHORT), 32)).astype(np.float32)
    assert diagnose(encoder, random, SHORT).verdict == "unrelated"


def test_another_dimension_is_unrelated(encoder: SentenceEncoder) -> None:
    diagnosis = diagnose(encoder, np.ones((len(SHORT), 33), np.float32), SHORT)
    assert diagnosis.verdict == "unrelated" and "they have 33 numbers, this model's have 32" in diagnosis.sentence


def test_what_nothing_explains_is_not_explained(encoder: SentenceEncoder) -> None:
    """A little noise on the right vectors, or on deviating ones: nearest comes, but does not explain."""
    noise = np.random.default_rng(1).standard_normal((len(SHORT), 32)) * 1e-4
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT) + noise, SHORT)
    assert diagnosis.verdict == "unexplained" and explaining(diagnosis) == [], diagnosis.sentence
    assert "consistent with" not in diagnosis.sentence and "nearest" not in diagnosis.sentence
    assert "names the first step that differs" in diagnosis.remedies[0]
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT, "CLS pooling") + noise, SHORT)
    assert "The nearest is CLS pooling: " in diagnosis.sentence  # and no pair, which would hardly come nearer
    assert diagnosis.verdict == "unexplained" and explaining(diagnosis) == [], diagnosis.sentence
    assert "CLS pooling" in diagnosis.sentence and "but that is not rounding" in diagnosis.sentence


def test_a_text_that_is_wrong_for_another_reason_is_named(encoder: SentenceEncoder) -> None:
    """Of many texts the search looks at few; what explains those is checked on the others."""
    texts = [f"{text} {number}" for number in range(16) for text in SHORT]
    vectors = by_torch(encoder, texts, "tanh GELU")
    wrong = 53
    vectors[wrong] = (vectors[wrong] + by_torch(encoder, [texts[wrong]])) / 2  # no text of its kind errs less
    diagnosis = diagnose(encoder, vectors, texts)
    assert diagnosis.verdict == "unexplained" and f"not that of text {wrong}" in diagnosis.sentence, diagnosis.sentence


def test_texts_that_show_little(encoder: SentenceEncoder) -> None:
    """Without a token but [CLS] and [SEP], where some deviations define no vector; and numbers beyond all bounds."""
    vectors = by_torch(encoder, [""], "CLS pooling")
    assert {"CLS pooling"} in explaining(diagnose(encoder, vectors, [""]))
    assert diagnose(encoder, np.full((len(SHORT), 32), 1e300), SHORT).verdict == "unrelated"
    assert diagnose(encoder, np.zeros((len(SHORT), 32)), SHORT).verdict == "unrelated"


def test_refusals(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, SHORT)
    with pytest.raises(InputValueError, match="texts: expected the texts of the array of vectors, found None"):
        diagnose(encoder, vectors)
    with pytest.raises(InputValueError, match="vectors: expected at least one, found none"):
        diagnose(encoder, vectors[:0], [])
    with pytest.raises(InputValueError, match="expected one per text, found 5 for 6 texts"):
        diagnose(encoder, vectors[:5], SHORT)
    with pytest.raises(InputValueError, match=r"expected floats of shape \(texts, numbers\), found float32 of shape"):
        diagnose(encoder, vectors[0], SHORT)
    with pytest.raises(InputValueError, match=r"expected floats .*, found int64"):
        diagnose(encoder, vectors.astype(np.int64), SHORT)
    vectors[3, 5] = np.nan
    with pytest.raises(
        InputValueError, match=r"vector 3 contains NaN or infinity \(1 of 6 vectors do\); its text is ''"
    ):
        diagnose(encoder, vectors, SHORT)

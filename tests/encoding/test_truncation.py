"""Texts longer than the limit: one warning or error per call, and reports of what is used."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import (
    InputTypeError,
    InputValueError,
    SentenceEncoder,
    TruncationWarning,
)
from tests.support.compare import assert_close, assert_same_bits
from tests.support.encoders import BOUND, LONG


def test_one_warning_says_what_is_cut_and_what_to_do(encoder: SentenceEncoder) -> None:
    texts = ["short", LONG, "x", LONG + "x" * 100, LONG]
    with pytest.warns(TruncationWarning) as caught:
        warned = encoder.encode(texts)
    assert [warning.filename for warning in caught] == [__file__]
    assert str(caught[0].message) == (
        "3 of 5 texts were truncated to 128 tokens; the longest, text 3, has 340 characters. Use encode_long for texts "
        "of any length, call tokenize_report to see what is truncated, or pass "
        "on_truncation='ignore'"
    )
    assert_same_bits(warned, encoder.encode(texts, on_truncation="ignore"))


def test_a_limit_that_can_be_raised_is_named(encoder: SentenceEncoder) -> None:
    lower = pickle.loads(pickle.dumps(encoder))
    lower.max_seq_length = 5
    with pytest.warns(TruncationWarning, match=r"1 of 1 text was truncated to 5 tokens.*max_seq_length to at most 128"):
        lower.encode_query("abcdef")
    assert encoder.max_seq_length == 128


def test_more_texts_than_a_slice_are_one_warning(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm_np.encoding.pipeline.SLICE", 2)
    texts = [LONG, "a", LONG, "b", LONG + "x"]
    with pytest.warns(TruncationWarning, match="3 of 5 texts .* text 4, has 241") as caught:
        vectors = encoder.encode(texts)
    assert len(caught) == 1
    assert_close(vectors, np.array([encoder.encode(text, on_truncation="ignore") for text in texts]), abs_=BOUND)
    with pytest.raises(
        InputValueError, match=r"text 2 \(240 characters\) is longer than the limit of 128 tokens\. Use"
    ):
        encoder.encode(["a", "b", LONG], on_truncation="error")


def test_an_unknown_action_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputValueError, match="on_truncation: expected one of 'ignore', 'warn', 'error', found 'cut'"):
        encoder.encode("a", on_truncation="cut")


def test_the_report_says_what_is_read(encoder: SentenceEncoder) -> None:
    report = encoder.tokenize_report(["abc", "", LONG, "a" + LONG * 100])
    assert report[0] == (3, 3, 5, 5, False)
    assert report[1] == (0, 0, 2, 2, False)
    assert report[2] == (240, 167, 182, 128, True)  # 126 tokens are 42 words of 3 characters and the 41 spaces between
    assert report[2]._fields == ("n_characters", "n_characters_used", "n_tokens", "n_tokens_used", "truncated")
    assert report[3] == (24001, 167, 18003, 128, True)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(2, 128), st.sampled_from(["", "q "])
)
@settings(max_examples=50)
def test_what_is_read_has_the_vector_of_the_whole(text: str, limit: int, prompt: str) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    encoder.max_seq_length = limit
    (report,) = encoder.tokenize_report([text], prompt=prompt)
    ids = encoder.tokenizer([prompt + text])
    assert (report.n_tokens_used, report.truncated) == (ids.n_tokens[0], ids.truncated[0])
    assert encoder.tokenizer([prompt + text[: report.n_characters_used]]).ids[0][: limit - 1] == ids.ids[0][: limit - 1]


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (1, InputValueError, "max_seq_length: expected an int from 2 to 128, found 1; the model has 128 positions"),
        (129, InputValueError, "from 2 to 128"),
        (None, InputTypeError, "max_seq_length: expected an int, found NoneType"),
    ],
)
def test_a_limit_has_positions(encoder: SentenceEncoder, limit: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        encoder.max_seq_length = limit
    assert encoder.max_seq_length == 128

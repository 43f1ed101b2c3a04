"""`encode_iter`: the vectors of a stream are those of a list, read one batch at a time."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minilm_np import (
    InputTypeError,
    InputValueError,
    SentenceEncoder,
    TruncationWarning,
)
from minilm_np.encoding.pipeline import Pipeline
from tests.support.compare import assert_close
from tests.support.encoders import BOUND, LONG


def test_a_stream_has_the_vectors_of_a_list(encoder: SentenceEncoder) -> None:
    texts = [f"text {number}" for number in range(23)]
    found = list(
        encoder.encode_iter(iter(texts), batch_size=5, truncate_dim=9, prompt="q: ", normalize_embeddings=True)
    )
    expected = encoder.encode(texts, prompt="q: ", truncate_dim=9, normalize_embeddings=True)
    assert_close(np.array(found), expected, abs_=BOUND)
    assert list(encoder.encode_iter([])) == []


def test_an_endless_stream_is_read_a_batch_at_a_time(encoder: SentenceEncoder) -> None:
    read = []

    def texts() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            yield f"text {number}"

    stream = encoder.encode_iter(texts(), batch_size=4)
    assert read == []
    first = next(stream)
    assert read == [0, 1, 2, 3]
    for _ in range(4):
        next(stream)
    assert len(read) == 8
    assert_close(first, encoder.encode("text 0"), abs_=BOUND)


def test_a_stream_stores_nothing_of_earlier_batches(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines, made = [], encoder._pipeline

    def pipeline(*arguments: Any) -> Pipeline:
        pipelines.append(made(*arguments))
        return pipelines[-1]

    monkeypatch.setattr(encoder, "_pipeline", pipeline)
    assert len(list(encoder.encode_iter(map(str, range(20)), batch_size=4))) == 20
    assert [len(one.counts.n_tokens) for one in pipelines] == [4]


def test_a_stream_names_the_item(encoder: SentenceEncoder) -> None:
    stream = encoder.encode_iter(["a", "b", "c", 7, "d"], batch_size=2)  # type: ignore[list-item]
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(InputTypeError, match="text 3: expected a str, found int '7'"):
        next(stream)
    cut = encoder.encode_iter(["a", "b", LONG], batch_size=1, on_truncation="error")
    assert len([next(cut), next(cut)]) == 2
    with pytest.raises(InputValueError, match=r"text 2 \(240 characters\) is longer"):
        next(cut)


def test_a_stream_warns_once(encoder: SentenceEncoder) -> None:
    with pytest.warns(TruncationWarning, match="1 of the first 4 texts was truncated .* text 2, has 240") as caught:
        assert len(list(encoder.encode_iter(["a", "b", LONG, LONG[:9], LONG, LONG], batch_size=2))) == 6
    assert [warning.filename for warning in caught] == [__file__]


def test_a_streams_arguments_are_checked_at_once(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputTypeError, match="texts: expected a list, an array or a column of str, found str"):
        encoder.encode_iter("a text")
    with pytest.raises(InputValueError, match="batch_size"):
        encoder.encode_iter(["a"], batch_size=0)
    with pytest.raises(InputValueError, match="prompt_name: expected one of 'query', 'document', found 'q'"):
        encoder.encode_iter(["a"], prompt_name="q")

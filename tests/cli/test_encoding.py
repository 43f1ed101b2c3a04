"""Encoding a batch at a time: nothing is read ahead, batches are bounded, one warning counts all truncated texts."""

from collections.abc import Iterator

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder, TruncationWarning
from minilm_np.cli import encoding
from minilm_np.cli.encoding import TextEncoding
from tests.support.cli import TEXTS, Command


def row(number: int, _: str) -> str:
    return f"row {number}"


def test_texts_are_encoded_with_their_tokens(encoder: SentenceEncoder) -> None:
    run = TextEncoding(encoder)
    [batch] = run.batches(enumerate(TEXTS), row)
    with pytest.warns(TruncationWarning, match=r"1 of 5 texts is longer .* the longest, row 4, has 100 characters"):
        run.warn_if_truncated()
    tokenized = encoder.tokenizer(TEXTS)
    assert (batch.numbers, batch.texts) == ([0, 1, 2, 3, 4], TEXTS)
    assert (batch.n_tokens, batch.truncated) == (tokenized.n_tokens, tokenized.truncated)
    assert batch.vectors.tobytes() == encoder.encode(TEXTS, on_truncation="ignore").tobytes()


def test_a_batch_is_encoded_before_more_is_read(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 3)
    read = []

    def texts() -> Iterator[tuple[int, str]]:
        for number in range(8):
            read.append(number)
            yield number, "a"

    sizes = []
    for batch in TextEncoding(encoder).batches(texts(), row):
        sizes.append(len(batch.texts))
        assert read == list(range(sum(sizes)))
    assert sizes == [3, 3, 2]


def test_a_batch_of_long_texts_has_few_of_them(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHARACTERS", 10)
    texts = ["a" * length for length in (4, 4, 4, 30, 1, 1)]
    assert [batch.texts for batch in TextEncoding(encoder).batches(enumerate(texts), row)] == [
        texts[:3], texts[3:4], texts[4:],
    ]  # fmt: skip


def test_vectors_are_those_of_encode_for_any_batches(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {number}" for number in range(7)]
    monkeypatch.setattr(encoding, "BATCH", 3)
    found = TextEncoding(encoder, truncate_dim=5, normalize=True).vectors(texts, row)
    np.testing.assert_array_equal(found, encoder.encode(texts, truncate_dim=5, normalize_embeddings=True))


def test_one_warning_counts_the_texts_of_all_calls(encoder: SentenceEncoder) -> None:
    run = TextEncoding(encoder)
    run.vectors(["b", "a " * 40], row)
    run.vectors(["c", "a " * 20], lambda *_: "the other")
    with pytest.warns(TruncationWarning) as caught:
        run.warn_if_truncated()
    assert [str(one.message) for one in caught] == [
        "2 of 4 texts are longer than the limit of 16 tokens and were truncated; the longest, row 2, has 80 "
        "characters: split texts that must be encoded completely"
    ]


def test_truncation_may_be_an_error_or_ignored(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputValueError, match=r"row 2 \(80 characters\) is longer than the limit of 16 tokens: split"):
        TextEncoding(encoder, on_truncation="error").vectors(["a", "a " * 40], row)
    ignoring = TextEncoding(encoder, on_truncation="ignore")
    ignoring.vectors(["a " * 40], row)
    ignoring.warn_if_truncated()


@pytest.mark.filterwarnings("always::minilm_np.TruncationWarning")
def test_the_command_warns_once_or_not_at_all(command: Command) -> None:
    assert command.encode("word " * 20, "word " * 30)[2].count("minilm-np: warning: 2 of 2 texts are longer") == 1
    assert command.encode("--on-truncation", "ignore", "word " * 20)[2] == ""

"""Tokenizers of other families: pieces have the ids of the whole text, and no piece is cut where that may fail."""

import functools
import pickle
from collections.abc import Callable, Iterable
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

import minilm_np.text.tokenizer as tokenizer_module
from minilm_np import ModelConfig
from minilm_np.text.breaks import breaks_of
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.windows import cut
from tests.support.other_tokenizers import FAMILIES, trained_roberta, trained_unigram
from tests.support.tokenizer_json import words
from tests.support.tokenizer_texts import fragments

SPECIAL = ["<s>", "</s>", "<pad>", "<mask>", " <mask>", "<mask> ", "<MASK>", "▁", "Ġ", "a<mask>b"]
SPACES = [" ", "  ", "\n", "\r\n", "\t ", " \u3000", "\u00a0", "\u2003 "]
SPACES += [" \u0301", "\u0600 ", "\u200b ", "\x00 ", "¨ "]
parts = fragments | st.sampled_from(SPECIAL + SPACES + ["the cat", "東京 は", "हिन्दी में", "ﬁ", "''", "``", "a ` `b"])
texts = st.lists(parts, min_size=1, max_size=40).map("".join)


def parts_of(text: str, offsets: Iterable[tuple[int, int]]) -> list[tuple[int, str]]:
    """The end of each token, and its characters without white space; tokens for white space alone are left out."""
    return [(end, text[start:end].strip()) for start, end in offsets if text[start:end].strip()]


@functools.cache
def whole_tokenizer(name: str) -> Tokenizer:
    return FAMILIES[name]()


@functools.cache
def text_tokenizer(name: str, limit: int) -> TextTokenizer:
    tokenizer = FAMILIES[name]()
    return TextTokenizer(tokenizer, config_of(tokenizer, limit))


def config_of(tokenizer: Tokenizer, limit: int = 500) -> ModelConfig:
    return ModelConfig(vocab_size=tokenizer.get_vocab_size(), max_seq_length=limit)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@settings(max_examples=60)
@given(text=texts, piece=st.sampled_from([1, 2, 5, 17]), limit=st.sampled_from([4, 9, 500]))
def test_pieces_have_the_ids_of_the_whole_text(name: str, text: str, piece: int, limit: int) -> None:
    whole = whole_tokenizer(name)
    tokenizer = text_tokenizer(name, limit)
    expected = whole.encode(text)
    content = expected.ids[1:-1]
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert "".join(tokenizer._pieces(text)) == text
        found = tokenizer([text])
        assert tokenizer.measure(text)[0] == len(expected.ids)
        encodings = list(tokenizer.encodings(text))
    assert found.ids == [expected.ids[:1] + content[: limit - 2] + expected.ids[-1:]]
    assert found.truncated == [len(expected.ids) > limit]
    offsets = [(start + a, start + b) for start, several in encodings for each in several for a, b in each.offsets]
    # RobertaProcessing trims white space off the offsets, but not off those of the first token
    assert parts_of(text, offsets) == parts_of(text, whole.encode(text, add_special_tokens=False).offsets)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_long_texts_are_tokenized_in_pieces(name: str) -> None:
    breaks = breaks_of(FAMILIES[name]())
    assert breaks is not None
    text = "The quick fox. " * 10
    pieces = list(breaks.pieces(text, 20))
    assert len(pieces) >= 6
    assert all(piece[0] in " ." for piece in pieces[1:])


def _metaspace(*, split: bool) -> Tokenizer:
    tokenizer = trained_unigram()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    return tokenizer


def _normalized(*steps: normalizers.Normalizer) -> Tokenizer:
    tokenizer = trained_unigram()
    tokenizer.normalizer = normalizers.Sequence(list(steps))
    return tokenizer


def _with_token(token: AddedToken) -> Tokenizer:
    tokenizer = trained_roberta()
    tokenizer.add_tokens([token])
    return tokenizer


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(words, id="Split first"),
        pytest.param(lambda: _metaspace(split=False), id="Metaspace without split"),
        pytest.param(lambda: _normalized(normalizers.Strip()), id="Strip"),
        pytest.param(lambda: _normalized(normalizers.Replace("a b", "c")), id="Replace over a space"),
        pytest.param(lambda: _normalized(normalizers.Replace(" ", "")), id="spaces removed"),
        pytest.param(lambda: _with_token(AddedToken("New York")), id="an added token with a space"),
        pytest.param(lambda: _with_token(AddedToken("York", single_word=True)), id="a single word"),
        pytest.param(lambda: _with_token(AddedToken("York", rstrip=True)), id="rstrip"),
    ],
)
def test_a_tokenizer_that_may_join_both_sides_gets_the_whole_text(make: Callable[[], Tokenizer]) -> None:
    assert breaks_of(make()) is None


def test_spaces_that_are_not_breaks_are_passed_over() -> None:
    tokenizer = trained_roberta()  # without a normalizer, white space is part of the next word, if it is a space
    breaks = breaks_of(tokenizer)
    assert breaks is not None
    text = "ab  cd\u0301 ef\u200b gh\n\nij kl"
    assert list(breaks.pieces(text, 1)) == ["ab", "  cd\u0301 ef\u200b gh", "\n\nij", " kl"]


def test_a_pickled_tokenizer_has_the_same_breaks() -> None:
    backend = trained_unigram()
    tokenizer = TextTokenizer(backend, config_of(backend))
    again = pickle.loads(pickle.dumps(tokenizer))
    text = "The cat sat. " * 1000
    assert list(again._pieces(text)) == list(tokenizer._pieces(text))
    assert again.special_tokens == tokenizer.special_tokens


@pytest.mark.parametrize("name", sorted(FAMILIES))
@settings(max_examples=40)
@given(text=texts, room=st.integers(3, 30), data=st.data(), piece=st.sampled_from([1, 17, 4096]))
def test_every_piece_is_in_a_window(name: str, text: str, room: int, data: st.DataObject, piece: int) -> None:
    """The windows are runs of the whole text's ids, each after the one before, and leave nothing out."""
    tokenizer, found = text_tokenizer(name, 500), whole_tokenizer(name).encode(text, add_special_tokens=False)
    content, start, stop = found.ids, -1, 0
    starts = [end - len(text[begin:end].lstrip()) for begin, end in found.offsets]
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        windows = list(cut(tokenizer, "", 0, text, room, data.draw(st.integers(1, room))))
    for window in windows:
        ids = window.ids[1:-1]
        assert ([window.ids[0]], [window.ids[-1]]) == (tokenizer.before, tokenizer.after)
        assert len(ids) <= room and text[window.start : window.end].strip() == text[window.start : window.end]
        begins = (
            begin
            for begin in range(start + 1, stop + 1)
            if content[begin : begin + len(ids)] == ids
            and (not ids or not text[starts[begin] : window.start].strip())
            and begin + len(ids) > stop - (not ids)
        )
        start = next(begins)
        stop = start + len(ids)
    assert stop == len(content)


def test_windows_end_at_sentences_of_a_script_without_spaces() -> None:
    backend = trained_unigram()
    tokenizer = TextTokenizer(backend, config_of(backend))
    text = "東京は大きい。" * 20
    windows = list(cut(tokenizer, "", 0, text, 30, 20))
    assert len(windows) > 3
    assert all(text[window.start : window.end].endswith("。") for window in windows)

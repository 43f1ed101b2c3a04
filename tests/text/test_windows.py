"""How a text is cut: every word piece is in a window, and windows end between words."""

import itertools
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import minilm_np.text.tokenizer as tokenizer_module
from minilm_np import ModelConfig
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer, load_tokenizer
from minilm_np.text.windows import cut
from tests.support.tokenizer_texts import long_texts as unicode_texts

# ---- every word piece, and nothing but the text's --------------------------------------------------------------------


def assert_covers(tokenizer: TextTokenizer, whole: Tokenizer, text: str, room: int, stride: int) -> None:
    """The windows are runs of the whole text's ids, begin and end between words, and leave nothing out."""
    expected = whole.encode(text, add_special_tokens=False)
    first, last = whole.encode("").ids
    word_sizes = {word: len(list(group)) for word, group in itertools.groupby(expected.word_ids)}
    start, stop = -1, 0
    for part in cut(tokenizer, "", 0, text, room, stride):
        ids = part.ids[1:-1]
        assert (part.ids[0], part.ids[-1]) == (first, last)
        assert len(ids) <= room
        begins = range(start + 1, stop + 1)  # behind the last one's beginning, and not behind its end
        start = next(
            begin
            for begin in begins
            if expected.ids[begin : begin + len(ids)] == ids
            and (not ids or expected.offsets[begin][0] == part.start)
            and begin + len(ids) > stop - (not ids)
        )
        stop = start + len(ids)
        assert all(part.start <= a and b <= part.end for a, b in expected.offsets[start:stop])
        for edge in {start, stop} - {0, len(expected.ids)}:
            if expected.word_ids[edge - 1] == expected.word_ids[edge]:
                assert word_sizes[expected.word_ids[edge]] > room
        if all(word_sizes[word] <= room for word in expected.word_ids[start:stop]):
            assert whole.encode(text[part.start : part.end]).ids == part.ids
    assert stop == len(expected.ids)


@settings(max_examples=300)
@given(data=st.data(), text=unicode_texts, room=st.integers(1, 60), piece=st.sampled_from([1, 17, 4096]))
def test_every_word_piece_is_in_a_window(data: st.DataObject, text: str, room: int, piece: int) -> None:
    config = ModelConfig(vocab_size=len(CHARACTER_VOCABULARY), max_seq_length=data.draw(st.integers(3, 70)))
    tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert_covers(tokenizer, bert_tokenizer(CHARACTER_VOCABULARY), text, room, data.draw(st.integers(1, room)))


@pytest.mark.weights
@settings(max_examples=200)
@given(data=st.data(), text=unicode_texts, room=st.integers(1, 60), piece=st.sampled_from([1, 17, 4096]))
def test_every_word_piece_of_the_published_vocabulary_is_in_a_window(
    published_tokenizers: tuple[TextTokenizer, Tokenizer], data: st.DataObject, text: str, room: int, piece: int
) -> None:
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert_covers(*published_tokenizers, text, room, data.draw(st.integers(1, room)))


@pytest.fixture(scope="module")
def published_tokenizers(model_folder: Any) -> tuple[TextTokenizer, Tokenizer]:
    """As the package has it, and the library's own without any limit."""
    whole = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    whole.no_truncation()
    whole.no_padding()
    return load_tokenizer(model_folder, load_config(model_folder)), whole

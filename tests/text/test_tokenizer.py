"""Tokenizer: ids are those of sentence-transformers for any text, in pieces or whole, and hostile texts cost little."""

import dataclasses
import functools
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import minilm_np.text.tokenizer as tokenizer_module
from minilm_np import InputTypeError, InputValueError, ModelConfig
from minilm_np._checks import check_texts
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, SMALL
from minilm_np.text.breaks import bert_breaks
from minilm_np.text.tokenizer import PIECE, TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer, load_tokenizer
from tests.support.tokenizer_texts import characters, fragments, long_texts, mixed_texts, texts

CLS, SEP, UNK, MASK, PAD = 101, 102, 100, 103, 0  # of the published vocabulary


def tiny() -> TextTokenizer:
    """The tokenizer over single characters; its limit is 128 tokens."""
    return TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), SMALL)


@pytest.fixture(scope="session")
def published_tokenizer(model_folder: Path) -> TextTokenizer:
    return load_tokenizer(model_folder, ModelConfig())


# ---- the ids of sentence-transformers --------------------------------------------------------------------------------


@pytest.mark.weights
@settings(max_examples=300)
@given(batch=st.lists(texts | st.text(characters, max_size=40), max_size=6))
def test_ids_are_those_of_sentence_transformers(
    published_tokenizer: TextTokenizer, sentence_transformer: Any, batch: list[str]
) -> None:
    expected = sentence_transformer.tokenizer(batch, truncation=True, max_length=256)["input_ids"] if batch else []
    assert published_tokenizer(batch).ids == expected


@pytest.mark.weights
@settings(max_examples=300)
@given(text=long_texts | texts, piece=st.sampled_from([1, 2, 5, 17, 64]))
def test_pieces_have_the_ids_of_the_whole_text(
    published_tokenizer: TextTokenizer, sentence_transformer: Any, text: str, piece: int
) -> None:
    oracle = sentence_transformer.tokenizer
    whole = oracle(text)["input_ids"]
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert "".join(published_tokenizer._pieces(text)) == text
        found = published_tokenizer([text])
    assert found.ids == [oracle(text, truncation=True, max_length=256)["input_ids"]]
    assert found.n_tokens == [min(len(whole), 256)]
    assert found.truncated == [len(whole) > 256]


@settings(max_examples=200)
@given(text=long_texts | texts, piece=st.sampled_from([1, 3, 17]), limit=st.integers(2, 40))
def test_pieces_are_cut_where_the_whole_text_is(text: str, piece: int, limit: int) -> None:
    config = ModelConfig(vocab_size=len(CHARACTER_VOCABULARY), max_seq_length=limit)
    tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
    whole = tokenizer([text])
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert tokenizer([text]) == whole
    assert len(whole.ids[0]) <= limit


def test_no_character_that_a_text_is_cut_before_changes_its_neighbours() -> None:
    """Every break, between every kind of neighbour: what stands before and after it is split as if alone."""
    tokenizer = bert_tokenizer(CHARACTER_VOCABULARY)
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer

    def words(text: str) -> list[str]:
        return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]

    every = (chr(code) for code in (*range(0x3500), *range(0xF800, 0x20400)) if not 0xD800 <= code < 0xE000)
    breaks = [character for character in every if bert_breaks().match(character)]
    assert len(breaks) > 1000
    assert set(" \t\n!.[]中") - set(breaks) == {"中"}  # beyond the range that is gone through here
    for character in breaks:
        for before in ("a", "e\u0301", "ᄀ", "\u0345", "!", "\u200d"):
            for after in ("b", "\u0301x", "\u0338", "ᅡ", "!", "\ufe0f"):
                assert words(before + character + after) == words(before) + words(character + after)


@pytest.mark.weights
def test_typed_special_tokens_are_special_ids(published_tokenizer: TextTokenizer) -> None:
    found = published_tokenizer(["[SEP] [PAD][MASK][CLS] [UNK]", "[sep]"]).ids
    assert found[0] == [CLS, SEP, PAD, MASK, CLS, UNK, SEP]
    assert SEP not in found[1][1:-1]


@pytest.mark.weights
def test_a_word_of_more_than_100_characters_is_unknown(published_tokenizer: TextTokenizer) -> None:
    known, unknown, much_longer = published_tokenizer(["a" * 100, "a" * 101, "a" * 100_000]).ids
    assert UNK not in known
    assert unknown == much_longer == [CLS, UNK, SEP]


@pytest.mark.weights
@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000\u2028", "\x00\x07\x1b\x7f", "\u200b\u200d\u0301", " " * 10_000])
def test_a_text_of_nothing_is_cls_and_sep(published_tokenizer: TextTokenizer, text: str) -> None:
    found = published_tokenizer([text])
    assert (found.ids, found.n_tokens, found.truncated) == ([[CLS, SEP]], [2], [False])


def test_two_texts_are_two_texts_and_no_pair() -> None:
    tokenizer = tiny()
    assert tokenizer(["ab", "c"]).ids == [*tokenizer(["ab"]).ids, *tokenizer(["c"]).ids]


def test_no_texts_have_no_ids() -> None:
    found = tiny()([])
    assert (found.ids, found.n_tokens, found.truncated) == ([], [], [])


# ---- where a text is cut ---------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize("limit", [128, 256])
@pytest.mark.parametrize("separator", [" ", " " * 100], ids=["short", "in pieces"])
def test_a_text_is_cut_at_the_folder_s_limit(model_folder: Path, tmp_path: Path, limit: int, separator: str) -> None:
    for path in model_folder.rglob("*.json"):
        target = tmp_path / path.relative_to(model_folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    tokenizer = load_tokenizer(tmp_path, load_config(tmp_path))
    just, over, far_over = (separator.join(["the"] * words) for words in (limit - 2, limit - 1, 10 * limit))
    assert len(over) > PIECE or separator == " "
    assert len(far_over) > PIECE
    found = tokenizer([just, over, far_over])
    assert found.n_tokens == [limit, limit, limit]
    assert found.truncated == [False, True, True]
    assert found.ids[0] == found.ids[1] == found.ids[2]


@pytest.mark.parametrize("piece", [PIECE, 3])
@pytest.mark.parametrize("limit", [2, 3, 4])
def test_the_smallest_limits(limit: int, piece: int) -> None:
    config = ModelConfig(vocab_size=len(CHARACTER_VOCABULARY), max_seq_length=limit)
    tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        found = tokenizer(["", "a", "a b c d e f g h", "     "])
    assert found.n_tokens == [2, min(limit, 3), limit, 2]
    assert found.truncated == [False, limit == 2, True, False]
    assert all(ids[0] == found.ids[0][0] and ids[-1] == found.ids[0][1] for ids in found.ids)


# ---- hostile texts ---------------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize("character", [" ", "\n", "\u0301", "\x00", "\u200d"], ids=ascii)
def test_two_words_after_much_nothing_are_found(published_tokenizer: TextTokenizer, character: str) -> None:
    found = published_tokenizer([character * 300_000 + "hello world", "hello world"])
    assert found.ids[0] == found.ids[1]
    assert found.truncated == [False, False]


letters = st.builds(lambda letter, n: letter * n, st.sampled_from("aZ7é"), st.sampled_from([1, 99, 100, 101, 250, 700]))


@functools.cache
def tokenizer_of_short_pieces() -> tuple[TextTokenizer, Tokenizer]:
    with mock.patch.object(tokenizer_module, "PIECE", 110):
        return TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), SMALL), bert_tokenizer(CHARACTER_VOCABULARY)


@settings(max_examples=200)
@given(parts=st.lists(letters | fragments, min_size=1, max_size=12))
def test_long_words_are_shortened_to_the_same_ids(parts: list[str]) -> None:
    text = "".join(parts)
    tokenizer, plain = tokenizer_of_short_pieces()
    with mock.patch.object(tokenizer_module, "PIECE", 110):  # pieces of more than 220 characters are shortened
        found = tokenizer([text])
        shortened = tokenizer._shortened(text)
    expected = plain.encode(text).ids
    assert plain.encode(shortened).ids == expected
    limit = SMALL.max_seq_length
    assert found.ids == [expected if len(expected) <= limit else [*expected[: limit - 1], expected[-1]]]


def test_megabytes_without_a_space_are_not_tokenized() -> None:
    tokenizer = tiny()
    assert len(tokenizer._shortened("a" * 5_000_000)) < 300
    assert (
        tokenizer(["a" * 5_000_000, "b" + "a1" * 10_000 + ". c"]).ids == tokenizer(["a" * 101, "a" * 101 + ". c"]).ids
    )


def test_an_added_token_of_letters_is_found_in_a_long_word() -> None:
    backend = bert_tokenizer(CHARACTER_VOCABULARY)
    backend.add_special_tokens(["aba"])
    config = dataclasses.replace(SMALL, vocab_size=SMALL.vocab_size + 1)
    text = "b" * 9000 + "aba" + "b" * 9000
    expected = backend.encode(text).ids
    assert len(expected) == 5
    assert TextTokenizer(backend, config)([text]).ids == [expected]


_MEASURED = """
import sys
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, SMALL
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer
from tests.support.memory import peak_memory

tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), SMALL)
tokenizer(["a b", "a " * 5000])
before = peak_memory()
text = eval(sys.argv[1])
found = tokenizer([text])
after = peak_memory()
print(found.n_tokens[0], found.truncated[0], (after - before) // 1_000_000)
"""


@pytest.mark.parametrize("text", ["'!' * 2_000_000", "'a ' * 1_000_000", "'[SEP]' * 400_000", "'中' * 2_000_000"])
def test_megabytes_take_little_memory(text: str) -> None:
    found = subprocess.run([sys.executable, "-c", _MEASURED, text], capture_output=True, text=True, check=True)
    n_tokens, truncated, megabytes = found.stdout.split()
    assert (n_tokens, truncated) == ("128", "True")
    assert int(megabytes) < 100


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (["\ud800"], r"text 0: the lone surrogate U\+D800 at character 0 is not Unicode text"),
        (["a", "b", "long enough \udcff"], r"text 2: the lone surrogate U\+DCFF at character 12 "),
        (["a", "\ude00\ud83d"], r"text 1: the lone surrogate U\+DE00 at character 0"),
    ],
    ids=["alone", "later", "the wrong way round"],
)
def test_lone_surrogates_are_refused_by_place(batch: list[str], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        check_texts(batch)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            "one text",
            r"^texts: expected a list, an array or .*, found str: pass \[text\] for a single text$",
        ),
        (b"bytes", "^texts: expected a list, an array or a column of str, found bytes: decode it first$"),
        ({"a": 1}, "found dict"),
        (None, "found NoneType"),
        (3, "found int"),
        (["a", None], "text 1: expected a str, found NoneType 'None'"),
        (["a", b"b"], "text 1: expected a str, found bytes .*: decode it first"),
        ([["a", "b"]], "text 0: expected a str, found list"),
        (["a", float("nan")], "text 1: expected a str, found float 'nan'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ascii(value),
)
def test_what_is_no_text_is_refused(batch: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        check_texts(batch)


def test_any_iterable_of_texts_will_do() -> None:
    assert check_texts(iter(["a", "b"])) == check_texts(("a", "b")) == ["a", "b"]


# ---- one tokenizer, many users ---------------------------------------------------------------------------------------


def test_short_and_long_texts_keep_their_order() -> None:
    tokenizer, batch = tiny(), mixed_texts(0)
    found = tokenizer(batch)
    alone = [tokenizer([text]) for text in batch]
    assert found.ids == [one.ids[0] for one in alone]
    assert found.truncated == [one.truncated[0] for one in alone]
    assert found.truncated == [len(text) >= PIECE - 1 for text in batch]


def test_eight_threads_share_one_tokenizer() -> None:
    tokenizer = tiny()
    batches = [mixed_texts(seed) for seed in range(32)]
    expected = [tokenizer(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer, batches * 2)) == expected * 2


def test_a_pickled_tokenizer_is_the_same() -> None:
    tokenizer, batch = tiny(), mixed_texts(1)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again(batch) == tokenizer(batch)
    assert again.pad_id == tokenizer.pad_id

"""Long texts: windows end where sentences do, and a text that fits has the vector of `encode`."""

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, NonFiniteError, SentenceEncoder
from minilm_np.encoding import long_texts as long_texts_module
from minilm_np.encoding.long_texts import Window, encode_long
from minilm_np.model_files.random_weights import SMALL
from tests.support.compare import assert_close, assert_same_bits
from tests.support.encoders import overflowing
from tests.support.tokenizer_texts import long_texts as unicode_texts

TINY = replace(SMALL, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)

SPEECH = "Four score and seven years ago our fathers brought forth a new nation. Now we are engaged in a war. "


@pytest.fixture(scope="module", params=["numba", "numpy"])
def encoder(request: pytest.FixtureRequest) -> SentenceEncoder:
    return SentenceEncoder.random(TINY, backend=request.param)


def texts_of(encoder: SentenceEncoder, text: str, window: int, stride: int | None = None) -> list[str]:
    return [found.text for found in encode_long(encoder, text, window, stride, pooling=None)]


@settings(max_examples=50)
@given(text=unicode_texts, window=st.integers(102, 128))  # of more than 100 pieces a word is [UNK]: none is cut
def test_a_window_has_the_vector_of_its_text(encoder: SentenceEncoder, text: str, window: int) -> None:
    for part in encode_long(encoder, text, window, pooling=None):
        assert part.text == text[part.start : part.end] == part.text.strip()
        assert_close(part.vector, encoder.encode(part.text), abs_=1e-6)


# ---- where windows begin and end -------------------------------------------------------------------------------------


def test_windows_end_where_sentences_end(encoder: SentenceEncoder) -> None:
    text = "One two three four. Five six seven! Eight nine ten eleven twelve? Thirteen\nfourteen fifteen. End"
    assert texts_of(encoder, text, 40, 38) == [
        "One two three four. Five six seven!",
        "Eight nine ten eleven twelve? Thirteen",
        "fourteen fifteen. End",
    ]


def test_the_next_window_begins_with_a_sentence_of_the_last_one(encoder: SentenceEncoder) -> None:
    text = "Aaaa bbbb cccc dddd. Eeee. Ffff gggg hhhh iiii jjjj kkkk. Llll mmmm."
    assert texts_of(encoder, text, 30, 14) == [
        "Aaaa bbbb cccc dddd. Eeee.",
        "Eeee. Ffff gggg hhhh iiii jjjj",
        "hhhh iiii jjjj kkkk. Llll mmmm.",
    ]


def test_without_sentences_windows_end_at_white_space(encoder: SentenceEncoder) -> None:
    assert texts_of(encoder, "it costs 1,000.50 and don't ask", 13, 11) == ["it costs", "1,000.50 and", "don't ask"]
    assert texts_of(encoder, "it costs 1,000.50", 7, 5) == ["it", "costs", "1,000", ".50"]  # too long for that


def test_only_a_word_longer_than_a_window_is_cut(encoder: SentenceEncoder) -> None:
    assert texts_of(encoder, "an extraordinary word", 9, 7) == ["an extra", "ordinar", "y word"]
    assert texts_of(encoder, "an extraordinary word", 15, 13) == ["an", "extraordinary", "word"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u4e00\u4e8c\u4e09\u3002\u56db\u4e94\u516d", ["\u4e00\u4e8c\u4e09\u3002", "\u56db\u4e94\u516d"]),
        ("\u4e00\u4e8c\u3002\u300d\u56db\u4e94\u516d", ["\u4e00\u4e8c\u3002\u300d", "\u56db\u4e94\u516d"]),
        ('ab." cdef', ['ab."', "cdef"]),
        ("ab 3.5 cd", ["ab 3.5", "cd"]),
        ("abc\ndef", ["abc", "def"]),
        ("ab\u2026 cdef", ["ab\u2026", "cdef"]),
    ],
    ids=ascii,
)
def test_what_ends_a_sentence(encoder: SentenceEncoder, text: str, expected: list[str]) -> None:
    assert texts_of(encoder, text, 7, 5) == expected


def test_the_stride_is_how_far_apart_windows_begin(encoder: SentenceEncoder) -> None:
    text = " ".join("abcdefghijklmnopqrstuvwxyz")
    for stride in (1, 3, 6, 8):
        found = encode_long(encoder, text, 10, stride, pooling=None)
        starts = [part.start // 2 for part in found]
        assert [b - a for a, b in itertools.pairwise(starts)] == [stride] * (len(found) - 1)
        assert [part.n_tokens for part in found[:-1]] == [10] * (len(found) - 1)
        assert found[-1].end == len(text)
    assert encode_long(encoder, text, 10, pooling=None)[1].start // 2 == 6  # three quarters of 8


def test_what_belongs_to_no_token_stays_with_its_neighbour(encoder: SentenceEncoder) -> None:
    text = "  cafe\u0301 \ufeff abcdef\u0301\n"
    assert texts_of(encoder, text, 8, 6) == ["cafe\u0301 \ufeff", "abcdef\u0301"]


# ---- vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "max", None])
@pytest.mark.parametrize("text", ["", "   ", "\x00", "a text", "a" * 126, "[SEP]", "a. b\nc"], ids=ascii)
def test_a_text_that_fits_has_the_bits_of_encode(encoder: SentenceEncoder, text: str, pooling: Any) -> None:
    found = encode_long(encoder, text, pooling=pooling)
    if pooling is None:
        assert len(found) == 1
        assert found[0].n_tokens == len(encoder.tokenizer([text]).ids[0])
        found = found[0].vector
    assert_same_bits(found, encoder.encode(text))


def test_a_prompt_is_in_every_window(encoder: SentenceEncoder) -> None:
    text = "abc def. " * 4
    for prompt in ("find: ", "xyz"):  # the second one's last word goes on in the text
        found = encode_long(encoder, text, 20, prompt=prompt, pooling=None)
        assert len(found) > 1
        for part in found:
            assert part.text == text[part.start : part.end]
            if prompt.endswith(" "):
                assert_close(part.vector, encoder.encode(part.text, prompt=prompt), abs_=1e-6)
        assert_same_bits(encode_long(encoder, "abc", prompt=prompt), encoder.encode("abc", prompt=prompt))


def test_the_models_own_prompt_and_dimension_are_used() -> None:
    encoder = SentenceEncoder.random(TINY)
    encoder.prompts["passage"], encoder.default_prompt_name, encoder.truncate_dim = "passage: ", "passage", 5
    assert_same_bits(encode_long(encoder, "a text"), encoder.encode("a text"))
    (whole, short), rows = (
        encode_long(encoder, ["a " * 200, "b"], pooling=None),
        encode_long(encoder, ["a " * 200, "b"]),
    )
    assert {part.vector.shape for part in (*whole, *short)} == {(5,)}
    assert rows.shape == (2, 5)
    assert_same_bits(encode_long(encoder, "b", prompt_name="query"), encoder.encode("b", prompt_name="query"))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_mean_is_weighted_by_tokens_and_the_maximum_is_not(normalize: bool) -> None:
    encoder = SentenceEncoder.random(replace(TINY, normalize=normalize))
    windows = encode_long(encoder, SPEECH * 3, 50, pooling=None)
    assert len({part.n_tokens for part in windows}) > 1
    vectors = np.array([part.vector for part in windows], np.float64)
    mean = np.average(vectors, axis=0, weights=[part.n_tokens for part in windows])
    found = encode_long(encoder, SPEECH * 3, 50, pooling="mean"), encode_long(encoder, SPEECH * 3, 50, pooling="max")
    for pooled, expected in zip(found, (mean, vectors.max(axis=0)), strict=True):
        assert_close(pooled, expected / np.linalg.norm(expected) if normalize else expected, abs_=1e-7)


def test_many_texts_have_the_bits_that_each_has_alone() -> None:
    encoder = SentenceEncoder.random(TINY)
    texts = ["short", SPEECH * 5, "", "!" * 1000, SPEECH]
    windows = encode_long(encoder, texts, pooling=None)
    assert [len(found) > 1 for found in windows] == [False, True, False, True, False]
    for batch_tokens in (1, 300, 65536):
        with mock.patch.object(long_texts_module, "BATCH_TOKENS", batch_tokens):
            for pooling in ("mean", "max"):
                found = encode_long(encoder, texts, pooling=pooling)
                assert found.shape == (5, 8)
                for row, text in zip(found, texts, strict=True):
                    assert_same_bits(row, encode_long(encoder, text, pooling=pooling))


def test_no_texts_have_no_vectors(encoder: SentenceEncoder) -> None:
    assert_same_bits(encode_long(encoder, []), np.empty((0, 8), np.float32))
    assert encode_long(encoder, [], pooling=None) == []


@pytest.mark.weights
def test_windows_of_the_published_model(model_folder: Any, sentence_transformer: Any) -> None:
    encoder = SentenceEncoder(model_folder)
    text = SPEECH * 40
    windows = encode_long(encoder, text, pooling=None)
    assert windows[0].text.startswith("Four score")
    assert all(part.text.endswith(".") and part.n_tokens <= 256 for part in windows)
    for part in windows:
        assert_same_bits(part.vector, encoder.encode(part.text))
    expected = sentence_transformer.encode([part.text for part in windows])
    assert_close(np.array([part.vector for part in windows]), expected, abs_=5e-7)
    mean = np.average(expected.astype(np.float64), axis=0, weights=[part.n_tokens for part in windows])
    assert_close(encode_long(encoder, text), mean / np.linalg.norm(mean), abs_=5e-7)


def test_a_window_is_a_named_tuple(encoder: SentenceEncoder) -> None:
    (found,) = encode_long(encoder, "  a text ", pooling=None)
    assert isinstance(found, Window)
    assert (*found[:3], found[4]) == (2, 8, "a text", 7)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"window": 2},
            InputValueError,
            r"window: expected an int from 3 to 128 or None, found 2; 2 of a window's tokens are \[CLS\] and \[SEP\]",
        ),
        ({"window": 9, "prompt": "a prompt"}, InputValueError, "window: expected an int from 10 to .*, the prompt and"),
        ({"prompt": "a " * 126}, InputValueError, "prompt: .* it has 128 tokens, which leaves no room for a text"),
        ({"prompt_name": "poem"}, InputValueError, "prompt_name: expected one of .*, found 'poem'"),
        ({"window": 129}, InputValueError, "window: expected an int from 3 to 128 or None, found 129; "),
        ({"window": "64"}, InputTypeError, "window: expected an int or None, found str"),
        ({"window": True}, InputTypeError, "window: expected an int or None, found bool"),
        (
            {"stride": 0},
            InputValueError,
            "stride: expected an int from 1 to 126 or None, found 0; a window of 128 tokens holds 126 ",
        ),
        (
            {"window": 10, "stride": 9},
            InputValueError,
            "stride: expected an int from 1 to 8 or None, found 9; a window of 10 tokens",
        ),
        ({"stride": 1.5}, InputTypeError, "stride: expected an int or None, found float"),
        ({"pooling": "min"}, InputValueError, "pooling: expected one of 'mean', 'max', None, found 'min'"),
        ({"texts": ["a", "\ud800"]}, InputValueError, r"text 1: the lone surrogate U\+D800"),
        ({"texts": "\ud800"}, InputValueError, r"text 0: the lone surrogate U\+D800"),
        ({"texts": b"a"}, InputTypeError, "texts: expected a list, an array or .*, found bytes"),
        ({"texts": ["a", 1]}, InputTypeError, "text 1: expected a str, found int"),
    ],
    ids=ascii,
)
def test_a_wrong_argument_is_named(
    encoder: SentenceEncoder, arguments: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        encode_long(encoder, **{"texts": "a text", **arguments})


def test_a_vector_that_is_not_finite_is_an_error_that_says_where(encoder: SentenceEncoder) -> None:
    broken = overflowing(encoder)
    with pytest.raises(NonFiniteError, match="text 0, characters 0 to 6: its vector is not finite"):
        encode_long(broken, ["a text", "another"])


# ---- hostile texts ---------------------------------------------------------------------------------------------------

_MEASURED = """
import sys
from dataclasses import replace
from minilm_np import SentenceEncoder
from minilm_np.encoding.long_texts import encode_long
from minilm_np.model_files.random_weights import SMALL
from tests.support.memory import peak_memory

tiny = replace(SMALL, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
encoder = SentenceEncoder.random(tiny, threads=1)
text = eval(sys.argv[1])
encode_long(encoder, "a. " * 20_000)
before = peak_memory()
print(len(encode_long(encoder, text)))
print((peak_memory() - before) // 1_000_000)
"""


@pytest.mark.parametrize("text", ["'!' * 2_000_000", "'[SEP]' * 100_000", "' ' * 300_000 + 'two words'"])
def test_megabytes_take_little_memory(text: str) -> None:
    found = subprocess.run([sys.executable, "-c", _MEASURED, text], capture_output=True, text=True, check=True)
    size, megabytes = map(int, found.stdout.split())
    assert size == 8
    assert megabytes < 50


@pytest.mark.parametrize("nothing", [" ", "\n", "\u0301", "\x00", "\u200d"], ids=ascii)
def test_two_words_after_much_nothing_are_found(encoder: SentenceEncoder, nothing: str) -> None:
    assert_same_bits(encode_long(encoder, nothing * 300_000 + "two words"), encoder.encode("two words"))
    assert encode_long(encoder, "two" + nothing * 300_000 + " words", 7, pooling=None)[-1].text == "words"

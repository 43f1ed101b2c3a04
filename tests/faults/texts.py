"""Drawn texts: their token ids are those of transformers' tokenizer with the published files."""

import unicodedata
import warnings
from random import Random
from typing import Any

from minilm_np import HubError, InputValueError
from minilm_np._checks import check_texts
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.hub import fetch
from minilm_np.text.tokenizer import PIECE
from minilm_np.text.tokenizer_files import load_tokenizer
from tests.faults import Outcome, experiment
from tests.support.tokenizer_texts import SPECIMENS, TYPED

WORDS = "the of and to in is naïve café embedding tokenization RÉSUMÉ 3.14 don't www.example.org über Straße".split()
BATCH = 500


def every(*ranges: range) -> list[str]:
    """The assigned characters of these ranges, controls and private ones included."""
    codes = (code for codes in ranges for code in codes)
    return [chr(code) for code in codes if unicodedata.category(chr(code)) not in ("Cs", "Cn")]


# what a text is drawn from: name -> characters or pieces
ALPHABETS = {
    "words": [*WORDS, " ", " ", ".", ", "],
    "controls": [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA1)), "\u2028", "\u2029", "\ufeff", "a", " "],
    "formats": ["\u200b", "\u200c", "\u200d", "\u2060", "\u00ad", "\u202e", "\u2066", "\ufe0f", "\U000e0041", "a", " "],
    "combining marks": [*every(range(0x300, 0x370), range(0x1AB0, 0x1B00), range(0x3099, 0x309B)), "a", "e", "か", " "],
    "ideographs": [
        *every(range(0x4E00, 0x4E80), range(0x3400, 0x3440), range(0x20000, 0x20040), range(0xF900, 0xFA20))
    ],
    "kana and hangul": [*every(range(0x3040, 0x3130), range(0xAC00, 0xAC80), range(0x1100, 0x1200)), " "],
    "emoji": [*every(range(0x1F300, 0x1F700), range(0x1F1E6, 0x1F200)), "\u200d", "\ufe0f", "\U0001f3fd", " "],
    "other scripts": [*every(range(0x370, 0x780), range(0x900, 0xE80), range(0x1E00, 0x2000)), " "],
    "case and ligatures": [*"İıſßẞΣςǄǅªºﬁﬃ½²ᾼ", "\u0345", "\u0307", "i", "S", " "],
    "punctuation": [*every(range(0x21, 0x30), range(0x3A, 0x41), range(0x5B, 0x61), range(0x2010, 0x2060)), "a", "1"],
    "special tokens": [*TYPED, "[", "]", "#", " ", "a"],
    "specimens": SPECIMENS,
    "every plane": every(range(0x20000), range(0xE0000, 0xE01F0), range(0xF0000, 0xF0100)),
}


def draw(random: Random) -> str:
    """A text from one alphabet, or from several; now and then a word that never ends, or a very long text."""
    names = random.sample(list(ALPHABETS), random.choice((1, 1, 1, 2, 3)))
    length = random.choice((1, 3, 10, 30, 100))
    pieces = [piece for name in names for piece in random.choices(ALPHABETS[name], k=random.randint(0, length))]
    random.shuffle(pieces)
    if random.random() < 0.05:
        pieces.insert(
            random.randint(0, len(pieces)), random.choice("aé中#") * random.choice((99, 100, 101, 1000, PIECE))
        )
    text = "".join(pieces)
    return text * (PIECE // len(text) + 1) if random.random() < 0.01 and text else text


@experiment("texts: ids against transformers'", count=100_000, quick=2000, limit_s=3600)
def text_ids(count: int, random: Random) -> Outcome:
    """Tokenize drawn texts (controls, marks, scripts, emoji, typed special tokens, long words): transformers' ids."""
    outcome = Outcome()
    try:
        folder = fetch(on_message=lambda message: None).path
    except HubError as error:
        outcome.skipped = f"the published files cannot be had here: {error}"
        return outcome
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        theirs: Any = AutoTokenizer.from_pretrained(str(folder))
    config = load_config(folder)
    ours = load_tokenizer(folder, config)
    while outcome.tried < count:
        texts = [draw(random) for _ in range(min(BATCH, count - outcome.tried))]
        expected = theirs(texts, truncation=True, max_length=config.max_seq_length)["input_ids"]
        for text, found, right in zip(texts, ours(check_texts(texts)).ids, expected, strict=True):
            outcome.check(found == right, "same ids", f"{text!r}: expected {right}, found {found}")
    return outcome


@experiment("texts: lone surrogates", count=2000, quick=200)
def surrogates(count: int, random: Random) -> Outcome:
    """Put half a surrogate pair into a drawn text: InputValueError names the text and the character."""
    outcome = Outcome()
    for _ in range(count):
        texts = [draw(random)[:200] for _ in range(3)]
        number, code = random.randrange(3), random.randrange(0xD800, 0xE000)
        place = random.randint(0, len(texts[number]))
        texts[number] = texts[number][:place] + chr(code) + texts[number][place:]
        try:
            check_texts(texts)
            outcome.fail(f"accepted: {texts[number]!r}")
        except InputValueError as error:
            named = f"text {number}:" in str(error) and f"U+{code:04X} at character {place}" in str(error)
            outcome.check(named, "refused by name", f"{texts[number]!r}: {error}")
    return outcome

"""Split a text of any length into overlapping windows of word pieces that end at the ends of sentences.

The word pieces are those of the whole text, for any length, and each is in at least one window. Rules:

1. A window holds as many word pieces as fit. It ends after the last sentence that ends in the window's last part, half
   a stride long; else after the last white space in that part; else after the last word. A punctuation mark and a
   Chinese character are words for BERT's tokenizer. The words of other tokenizers, such as XLM-R's, may end at white
   space only; then a word also ends where a sentence does, and before a Chinese character. A word is split, between two
   of its pieces, only if it is longer than a window.
2. The next window begins within the last `room - stride` pieces of the window before it: with the first sentence that
   begins there; else after the first white space; else with the first word.

A sentence ends at a newline; after `.`, `!`, `?` or `…` if white space follows (closing quotes and brackets may come
between them); and after the full stops of Chinese and Japanese. Abbreviations end a sentence, too: there is no list of
them. The time is proportional to the length of the text.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from minilm_np.text.tokenizer import TextTokenizer

# What comes before a word piece: the rest of its own word, another word, white space, the end of a sentence.
INSIDE, WORD, SPACE, SENTENCE = range(4)

# Lookbehinds, so that the search passes a run of marks once.
_SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’»)\]]*(?=\s)|(?<=[。！？｡．])["'”’」』）]*|(?<=\n)""")
_WHITE_SPACE = re.compile(r"\s")
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df]")


class _Token(NamedTuple):
    id: int
    start: int  # in characters of the text
    end: int
    before: int  # INSIDE, WORD, SPACE or SENTENCE


class Part(NamedTuple):
    """A window that is not encoded yet."""

    number: int  # of its text
    start: int  # in characters of the text
    end: int
    ids: list[int]  # special tokens and the prompt included


def cut(tokenizer: TextTokenizer, prefix: str, number: int, text: str, room: int, stride: int) -> Iterator[Part]:
    """Split a text into windows of at most `room` word pieces; a text without word pieces gives one window."""
    pieces = _tokens(tokenizer, text, room)
    tokens: list[_Token] = []
    first, fits = 0, True  # the window begins at tokens[first]; it may yet be the only one
    while True:
        while len(tokens) - first <= room and (more := next(pieces, None)) is not None:
            del tokens[:first]
            first = 0
            tokens += more
        full = first + room
        stop = _stop(tokens, full, stride) if full < len(tokens) else len(tokens)
        fits = fits and stop == len(tokens)
        following = tokens[stop].start if stop < len(tokens) else len(text)
        start = tokens[first].start if stop > first else 0
        start = following - len(text[start:following].lstrip())  # a piece may stand for white space alone
        # also characters without a token, after the last one: accents, joiners, marks of direction
        end = start + len(text[start:following].rstrip())
        ids = surrounded(tokenizer, prefix, [token.id for token in tokens[first:stop]])
        if fits and prefix:  # the last word of the prompt may continue in the text
            ids = tokenizer([prefix + text]).ids[0]
        yield Part(number, start, end, ids)
        if stop == len(tokens):
            return
        first = _next_start(tokens, first, stop, room, room - stride)


def _stop(tokens: list[_Token], full: int, stride: int) -> int:
    """The end of the window that is full before `full`: rule 1."""
    for wanted in (SENTENCE, SPACE):
        for stop in range(full, full - stride // 2 - 1, -1):
            if tokens[stop].before >= wanted:
                return stop
    return next(stop for stop in range(full, 0, -1) if tokens[stop].before >= WORD)


def _next_start(tokens: list[_Token], first: int, stop: int, room: int, overlap: int) -> int:
    """The start of the window that follows the one from `first` to `stop`, and has room for the next word: rule 2."""
    word_end = next((end for end in range(stop + 1, len(tokens)) if tokens[end].before >= WORD), len(tokens))
    least = max(stop - overlap, first + 1, word_end - room)
    for wanted in (SENTENCE, SPACE, WORD):
        for start in range(least, stop):
            if tokens[start].before >= wanted:
                return start
    return stop


def _tokens(tokenizer: TextTokenizer, text: str, room: int) -> Iterator[list[_Token]]:
    """The word pieces of a text, in lists of whole words. A word of more than `room` pieces counts as several words."""
    sentence_ends = (match.end() for match in _SENTENCE_END.finditer(text))
    sentence_end = next(sentence_ends, len(text) + 1)
    previous = 0
    for shift, encodings in tokenizer.encodings(text):
        tokens: list[_Token] = []
        word: int | None = None  # by its number in the piece
        word_start = 0
        for encoding in encodings:
            for id_, (start, end), number in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
                start, end = start + shift, end + shift
                start = end - len(text[start:end].lstrip())  # the piece "▁word" of Metaspace includes a space
                before = INSIDE
                if number != word:
                    _split_long_word(tokens, word_start, room)
                    word, word_start = number, len(tokens)
                    before = SPACE if previous < start and _WHITE_SPACE.search(text, previous, start) else WORD
                elif previous <= start and (start == sentence_end or _IDEOGRAPH.match(text, start, end)):
                    before = WORD
                while sentence_end <= start:
                    before = SENTENCE if before else INSIDE
                    sentence_end = next(sentence_ends, len(text) + 1)
                tokens.append(_Token(id_, start, end, before))
                previous = end
        _split_long_word(tokens, word_start, room)
        yield tokens


def _split_long_word(tokens: list[_Token], start: int, room: int) -> None:
    """Allow the last word, which begins at `start`, to be split anywhere if it does not fit into a window."""
    if len(tokens) - start > room:
        tokens[start + 1 :] = [token._replace(before=max(token.before, WORD)) for token in tokens[start + 1 :]]


def surrounded(tokenizer: TextTokenizer, prefix: str, ids: list[int]) -> list[int]:
    """[CLS], the prompt's ids, the ids, [SEP]; or the other special tokens that the tokenizer adds to a text."""
    of_prefix = (encoding.ids for _, encodings in tokenizer.encodings(prefix) for encoding in encodings)
    return tokenizer.before + [id_ for part in of_prefix for id_ in part] + ids + tokenizer.after

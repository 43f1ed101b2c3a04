"""Texts beyond the model's limit: overlapping windows of word pieces, broken where sentences end.

A text's word pieces are those of the whole text, whatever its length, and each is in at least one window. The rules:

1. A window takes as many word pieces as fit, and ends after the last sentence that ends in its last part, which is half
   a stride; else after the last white space there; else after the last word. To the tokenizer a punctuation mark and a
   Chinese character are words. Only a word that is longer than a window is cut, between two of its pieces.
2. The next window begins within the last `window - 2 - stride` pieces of the one before (2 for [CLS] and [SEP]): with
   the first sentence that begins there; else behind the first white space; else with the first word.

A sentence ends at a newline, behind `.`, `!`, `?` or `…` where white space follows (perhaps after closing quotes and
brackets), and behind the full stops of Chinese and Japanese. So do abbreviations: there is no list of them.

The time is in proportion to the text. Besides the results, memory holds a piece of the text and a batch of windows.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from minilm_np._checks import check_choice, check_optional_int
from minilm_np._pipeline import unit_length
from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputValueError, NonFiniteError
from minilm_np.model_files.settings import resolve_prompt
from minilm_np.text.tokenizer import TextTokenizer, check_texts

if TYPE_CHECKING:
    from minilm_np.sentence_encoder import SentenceEncoder

POOLINGS = ("mean", "max", None)

BATCH_TOKENS = 65536  # of the windows that are encoded at a time, of any texts; enough to share out evenly

# What stands before a word piece: the rest of its own word, another word, white space, the end of a sentence.
INSIDE, WORD, SPACE, SENTENCE = range(4)

# Found by what stands before, so that a run of marks is gone through once.
_SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’»)\]]*(?=\s)|(?<=[。！？｡．])["'”’」』）]*|(?<=\n)""")
_WHITE_SPACE = re.compile(r"\s")


class Window(NamedTuple):
    """A part of a text, and its vector."""

    start: int  # in characters of the text
    end: int
    text: str  # the text's [start:end], without white space at either end
    vector: Vectors  # (D,)
    n_tokens: int  # [CLS] and [SEP] included


class _Token(NamedTuple):
    id: int
    start: int  # in characters of the text
    end: int
    before: int  # INSIDE, WORD, SPACE or SENTENCE


class _Part(NamedTuple):
    """A window that is not encoded yet."""

    number: int  # of its text
    start: int
    end: int
    ids: list[int]


@overload
def encode_long(
    encoder: "SentenceEncoder",
    texts: str | Sequence[str],
    window: int | None = None,
    stride: int | None = None,
    pooling: Literal["mean", "max"] = "mean",
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> Vectors: ...


@overload
def encode_long(
    encoder: "SentenceEncoder",
    texts: str | Sequence[str],
    window: int | None = None,
    stride: int | None = None,
    *,
    pooling: None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[Any]: ...  # of Window, or of lists of them


def encode_long(
    encoder: "SentenceEncoder",
    texts: str | Sequence[str],
    window: int | None = None,
    stride: int | None = None,
    pooling: Literal["mean", "max"] | None = "mean",
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> Vectors | list[Any]:
    """Encode texts of any length, nothing of which is left out.

    texts: a str, or a sequence of str.
    window: the tokens of a window, [CLS] and [SEP] included; None for all that the model takes.
    stride: how many tokens behind a window's beginning the next one begins, where no sentence says otherwise; None for
        three quarters of the window. The rest is in both.
    pooling: "mean", of the windows' vectors, each weighted by its n_tokens; "max", element by element; both are scaled
        to unit length where the model does so. None for all windows, each with its place in the text.
    prompt_name, prompt: as for `encode`, of what is put before each window.

    Returns float32 for "mean" and "max": (d,) for a str, (n, d) for n texts. For None each text's `Window`s in order,
    at least one: a list of them for a str, a list of such lists for many. The vector of a text that fits in one window
    is that of `encode`, to the bit.
    Raises InputTypeError, InputValueError (both name the argument or the text), NonFiniteError.
    """
    check_choice("pooling", pooling, POOLINGS)
    prefix = resolve_prompt(encoder.prompts, encoder.default_prompt_name, prompt_name, prompt)
    room, stride = _sizes(encoder, prefix, window, stride)
    many = check_texts([texts] if isinstance(texts, str) else texts)
    parts = (part for n, text in enumerate(many) for part in _parts(encoder.tokenizer, prefix, n, text, room, stride))
    encoded = itertools.groupby(_encoded(encoder, parts), key=lambda found: found[0].number)
    dimension = encoder.get_embedding_dimension()
    if pooling is None:
        windows = [
            [
                Window(part.start, part.end, many[number][part.start : part.end], vector[:dimension], len(part.ids))
                for part, vector in of_text
            ]
            for number, of_text in encoded
        ]
        return windows[0] if isinstance(texts, str) else windows
    vectors = np.empty((len(many), dimension), np.float32)
    for number, of_text in encoded:
        vectors[number] = _pooled(of_text, pooling, encoder.config.normalize)[:dimension]
    return vectors[0] if isinstance(texts, str) else vectors


def _sizes(encoder: "SentenceEncoder", prefix: str, window: int | None, stride: int | None) -> tuple[int, int]:
    """The word pieces of a text that a window has room for, and the stride, both checked."""
    limit, n_special = encoder.max_seq_length, len(_surrounded(encoder.tokenizer, prefix, []))
    if n_special >= limit:
        raise InputValueError(f"prompt: its tokens leave no room for a text in the {limit} that the model takes")
    taken = f"{n_special} of a window's tokens are [CLS]{', the prompt' * bool(prefix)} and [SEP]"
    window = check_optional_int("window", window, n_special + 1, limit, hint=taken) or limit
    room = window - n_special
    reason = f"a window of {window} tokens holds {room} of the text, and none may fall between two windows"
    return room, check_optional_int("stride", stride, 1, room, hint=reason) or room - room // 4


def _parts(tokenizer: TextTokenizer, prefix: str, number: int, text: str, room: int, stride: int) -> Iterator[_Part]:
    """Cut a text into windows of at most `room` word pieces; one without any is a window too."""
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
        start, end = (tokens[first].start, tokens[stop - 1].end) if stop > first else (0, 0)
        end += len(text[end:following].rstrip())  # what belongs to no token: accents, joiners, marks of direction
        ids = _surrounded(tokenizer, prefix, [token.id for token in tokens[first:stop]])
        if fits and prefix:  # whose last word may go on in the text
            ids = tokenizer([prefix + text]).ids[0]
        yield _Part(number, start, end, ids)
        if stop == len(tokens):
            return
        first = _next_start(tokens, first, stop, room, room - stride)


def _stop(tokens: list[_Token], full: int, stride: int) -> int:
    """Where the window ends that is full before `full`: rule 1."""
    for wanted in (SENTENCE, SPACE):
        for stop in range(full, full - stride // 2 - 1, -1):
            if tokens[stop].before >= wanted:
                return stop
    return next(stop for stop in range(full, 0, -1) if tokens[stop].before >= WORD)


def _next_start(tokens: list[_Token], first: int, stop: int, room: int, overlap: int) -> int:
    """Where the window begins that follows the one from `first` to `stop`, and has room for the next word: rule 2."""
    word_end = next((end for end in range(stop + 1, len(tokens)) if tokens[end].before >= WORD), len(tokens))
    least = max(stop - overlap, first + 1, word_end - room)
    for wanted in (SENTENCE, SPACE, WORD):
        for start in range(least, stop):
            if tokens[start].before >= wanted:
                return start
    return stop


def _tokens(tokenizer: TextTokenizer, text: str, room: int) -> Iterator[list[_Token]]:
    """The word pieces of a text, in lists that hold whole words. A word of more than `room` pieces counts as many."""
    sentence_ends = (match.end() for match in _SENTENCE_END.finditer(text))
    sentence_end = next(sentence_ends, len(text))
    previous = 0
    for shift, encodings in tokenizer.encodings(text):
        tokens: list[_Token] = []
        word: int | None = None  # by its number in the piece
        word_start = 0
        for encoding in encodings:
            for id_, (start, end), number in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
                start, end = start + shift, end + shift
                before = INSIDE
                if number != word:
                    _split_long_word(tokens, word_start, room)
                    word, word_start = number, len(tokens)
                    before = SPACE if previous < start and _WHITE_SPACE.search(text, previous, start) else WORD
                while sentence_end <= start:
                    before = SENTENCE if before else INSIDE
                    sentence_end = next(sentence_ends, len(text))
                tokens.append(_Token(id_, start, end, before))
                previous = end
        _split_long_word(tokens, word_start, room)
        yield tokens


def _split_long_word(tokens: list[_Token], start: int, room: int) -> None:
    """Let the word that begins at `start`, the last one, be cut anywhere if no window can hold it."""
    if len(tokens) - start > room:
        tokens[start + 1 :] = [token._replace(before=WORD) for token in tokens[start + 1 :]]


def _surrounded(tokenizer: TextTokenizer, prefix: str, ids: list[int]) -> list[int]:
    """[CLS], the prompt's ids, the ids, [SEP]; or whatever else the tokenizer adds to a text."""
    of_prefix = (encoding.ids for _, encodings in tokenizer.encodings(prefix) for encoding in encodings)
    return tokenizer.before + [id_ for part in of_prefix for id_ in part] + ids + tokenizer.after


def _encoded(encoder: "SentenceEncoder", parts: Iterable[_Part]) -> Iterator[tuple[_Part, Vectors]]:
    """The windows with their vectors, in order, encoded a batch at a time."""
    for batch in _batches(parts):
        vectors = encoder._engine.encode([part.ids for part in batch], normalize=False, report=lambda done: None)
        for part, vector in zip(batch, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise NonFiniteError(
                    f"text {part.number}, characters {part.start} to {part.end}: its vector is not finite. The weights "
                    "overflow float32 on this text: check the model that was loaded"
                )
            yield part, vector


def _batches(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    n_tokens = 0
    for part in parts:
        batch.append(part)
        n_tokens += len(part.ids)
        if n_tokens >= BATCH_TOKENS:
            yield batch
            batch, n_tokens = [], 0
    if batch:
        yield batch


def _pooled(windows: Iterable[tuple[_Part, Vectors]], pooling: str, normalize: bool) -> NDArray[Any]:
    """One vector, (D,), of a text's windows: float64 sums in the text's order, so the bits are the same everywhere."""
    of_text = iter(windows)
    part, only = next(of_text)
    count, n_tokens = 1, len(part.ids)
    pooled: NDArray[Any] = only.astype(np.float64) * (n_tokens if pooling == "mean" else 1)
    for part, vector in of_text:
        count, n_tokens = count + 1, n_tokens + len(part.ids)
        pooled = pooled + vector.astype(np.float64) * len(part.ids) if pooling == "mean" else np.maximum(pooled, vector)
    if count == 1:
        return only
    if pooling == "mean":
        pooled /= n_tokens
    return unit_length(pooled[None])[0] if normalize else pooled

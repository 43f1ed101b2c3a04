"""Encoding texts for the commands: a batch at a time, with progress on stderr and one warning for truncated texts."""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from minilm_np._progress import progress
from minilm_np.encoding.pipeline import ON_TRUNCATION, encode_with_counts
from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputValueError, TruncationWarning
from minilm_np.sentence_encoder import SentenceEncoder

BATCH = 1024  # texts: as many as `encode_iter` reads ahead
CHARACTERS = 1 << 20  # of a batch, not counting its last text; BATCH texts of 256 tokens have about as many
LONG_WORK = 200  # texts; encoding fewer takes less than a second or two, too short for a progress bar

Numbered = Iterable[tuple[int, str]]  # texts, each with the number by which the user knows it, such as its line
Name = Callable[[int, str], str]  # the number and the text -> the user's name for it, such as "line 3"


class Batch(NamedTuple):
    """Consecutive texts, their vectors, and how much of each text the model used."""

    numbers: list[int]
    texts: list[str]
    vectors: Vectors  # (n, d)
    n_tokens: list[int]  # used by the model, [CLS] and [SEP] included
    truncated: list[bool]


class TextEncoding:
    """Encodes the texts of one command. `warn_if_truncated` issues one warning for all of them.

    normalize, truncate_dim, on_truncation: as for `SentenceEncoder.encode`.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        *,
        normalize: bool = False,
        truncate_dim: int | None = None,
        on_truncation: str = ON_TRUNCATION[1],
    ) -> None:
        self.dimension = encoder.settings.dimension(encoder.config.vector_size, truncate_dim)  # d, of each vector
        self._encoder = encoder
        self._normalize, self._truncate_dim, self._on_truncation = normalize, truncate_dim, on_truncation
        self._n_texts = self._n_truncated = self._longest = 0
        self._where = ""  # the name of the longest truncated text

    def batches(
        self,
        texts: Numbered,
        name: Name,
        *,
        prompt_name: str | None = None,
        total: int | None = None,
        quiet: bool = False,
    ) -> Iterator[Batch]:
        """Return an iterator over the vectors of texts, a batch of bounded size at a time. It reads no batch ahead.

        prompt_name: the prompt to put before each text; None: the model's default prompt.
        total: the number of texts, for the progress on stderr. quiet: show no progress.

        Raises InputValueError: the model has no such prompt. The iterator raises as `SentenceEncoder.encode`.
        """
        self._encoder.settings.prefix(prompt_name)  # so that a wrong name is reported before any output
        return self._encoded(texts, name, prompt_name, total, quiet)

    def _encoded(
        self, texts: Numbered, name: Name, prompt_name: str | None, total: int | None, quiet: bool
    ) -> Iterator[Batch]:
        shown = not quiet and (total is None or total >= LONG_WORK)
        nothing = contextlib.nullcontext(lambda done: None)
        with progress("encode", "text", total) if shown else nothing as report:
            first = 0
            for numbers, some in text_batches(texts):
                vectors, counts = encode_with_counts(
                    self._encoder.model, some, report, first=first, prompt_name=prompt_name,
                    normalize=self._normalize, truncate_dim=self._truncate_dim,
                )  # fmt: skip
                self._note(numbers, some, counts.truncated, name)
                yield Batch(numbers, some, vectors, counts.n_tokens, counts.truncated)
                first += len(some)

    def vectors(self, texts: list[str], name: Name, *, prompt_name: str | None = None) -> Vectors:
        """The vectors of n texts, (n, d). They are numbered from 1."""
        found = np.empty((len(texts), self.dimension), np.float32)
        stop = 0
        for batch in self.batches(enumerate(texts, 1), name, prompt_name=prompt_name, total=len(texts)):
            start, stop = stop, stop + len(batch.texts)
            found[start:stop] = batch.vectors
        return found

    def warn_if_truncated(self) -> None:
        """Issue a TruncationWarning if texts were truncated."""
        if not self._n_truncated or self._on_truncation == "ignore":
            return
        are, were = ("is", "was") if self._n_truncated == 1 else ("are", "were")
        warnings.warn(
            f"{self._n_truncated:,} of {self._n_texts:,} text{'s' * (self._n_texts != 1)} {are} longer than the limit "
            f"of {self._encoder.max_seq_length} tokens and {were} truncated; the longest, {self._where}, has "
            f"{self._longest:,} character{'s' * (self._longest != 1)}: split texts that must be encoded completely",
            TruncationWarning,
            stacklevel=2,
        )

    def _note(self, numbers: list[int], texts: list[str], truncated: list[bool], name: Name) -> None:
        self._n_texts += len(texts)
        for number, text, is_truncated in zip(numbers, texts, truncated, strict=True):
            if not is_truncated:
                continue
            if self._on_truncation == "error":
                raise InputValueError(
                    f"{name(number, text)} ({len(text):,} characters) is longer than the limit of "
                    f"{self._encoder.max_seq_length} tokens: split it, or allow truncation"
                )
            self._n_truncated += 1
            if len(text) > self._longest:
                self._longest, self._where = len(text), name(number, text)


def text_batches(texts: Numbered) -> Iterator[tuple[list[int], list[str]]]:
    """Texts in groups of at most BATCH texts, and of few characters if they are long: their numbers, and the texts."""
    unread = iter(texts)
    while group := _group(unread):
        yield [number for number, _ in group], [text for _, text in group]


def _group(unread: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    group, characters = [], 0
    for number, text in itertools.islice(unread, BATCH):
        group.append((number, text))
        characters += len(text)
        if characters >= CHARACTERS:
            break
    return group

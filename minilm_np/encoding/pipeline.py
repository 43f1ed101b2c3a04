"""One call, from checked texts to its result: a bounded number of texts at a time, through tokenizer and engine."""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilm_np._checks import callers_level, check_choice, check_texts
from minilm_np._forks import no_fork
from minilm_np.encoding.call_types import Features, PaddedTokens
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.prompts import encode, encode_with_hidden_states, pooling_start, prompt_length
from minilm_np.engine.doubles import unit_length
from minilm_np.engine.protocol import Report, Vectors
from minilm_np.errors import InputValueError, MissingExtraError, NonFiniteError, TruncationWarning
from minilm_np.model_files.config import ModelConfig

SLICE = 4096  # texts whose tokens are in memory at a time; enough to sort by length and to divide evenly

ON_TRUNCATION = ("ignore", "warn", "error")
WAYS = ("Use encode_long for texts of any length", "call tokenize_report to see what is truncated")


@dataclass(frozen=True)
class TokenCounts:
    """For each text of a call: how many tokens were used, [CLS] and [SEP] included, and whether it was truncated."""

    n_tokens: list[int] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)


class Pipeline:
    """The model, the prompt and the options of one call.

    prefix: the prompt, put before each text. normalize: scale the vectors to unit length even if the model does not.
    dimension: d, the number of dimensions to keep.
    counts: of the last call of `vectors`, or of all texts of `token_ids`.
    """

    def __init__(self, model: LoadedModel, prefix: str, on_truncation: str, normalize: bool, dimension: int) -> None:
        self._model = model
        self._prefix = prefix
        self._normalize = normalize
        self._dimension = dimension
        self._vector_size = model.config.dense_size or model.config.hidden_size
        self._start = pooling_start(model, prefix) if prefix else 0
        self.truncation = Truncation(on_truncation, model.config)
        self.counts = TokenCounts()

    def vectors(self, texts: Sequence[str], report: Report, first: int = 0) -> Vectors:
        """Return the vectors of n checked texts, (n, d). `first` is the number of the first text, for errors."""
        self.counts = TokenCounts()  # not of a stream's earlier batches, which would fill the memory
        vectors = np.empty((len(texts), self._dimension), np.float32)
        for part, ids in self._slices(texts):
            vectors[part] = self.vectors_of_ids(ids, report, first + part.start)
        return vectors

    def vectors_of_ids(self, ids: list[list[int]], report: Report, first: int = 0) -> Vectors:
        """Return the vectors of texts from their token ids, (n, d). `first` is the number of the first text."""
        normalize = self._normalize and self._dimension == self._vector_size
        if self._start:
            mode = self._model.config.pooling_mode
            vectors = encode(self._model.engine, ids, self._start, mode, normalize=normalize, report=report)
        else:
            vectors = self._model.engine.encode(ids, normalize=normalize, report=report)
        _check_finite(vectors, first)
        return self._truncated(vectors)

    def hidden_states(self, texts: Sequence[str], report: Report) -> list[Vectors]:
        """Return, for each text, the hidden states of its T tokens after the last layer, (T, D)."""
        return [x for _, x, _ in self._with_hidden_states(texts, report)]

    def features(self, texts: Sequence[str], report: Report) -> list[Features]:
        """Return, for each text, sentence-transformers' features: ids, masks, hidden states, vector; nothing is padded.

        The vector is the model's output, without further normalization.
        """
        d = self._dimension
        prompt = {"prompt_length": prompt_length(self._model, self._prefix)} if self._prefix else {}
        found = []
        for ids, x, vector in self._with_hidden_states(texts, report):
            tokens = padded([ids], 0)
            found.append(
                {
                    "input_ids": tokens["input_ids"][0],
                    "token_type_ids": tokens["token_type_ids"][0],
                    "attention_mask": tokens["attention_mask"][0],
                    "token_embeddings": x,
                    "sentence_embedding": vector[:d],
                    "modality": "text",
                    **prompt,
                }
            )
        return found

    def _with_hidden_states(
        self, texts: Sequence[str], report: Report
    ) -> Iterator[tuple[list[int], Vectors, Vectors]]:  # token ids, (T, D), (D,) for each text
        for part, ids in self._slices(texts):
            vectors, hidden = encode_with_hidden_states(
                self._model.engine, ids, self._start, self._model.config.pooling_mode, normalize=False, report=report
            )
            for number, x in enumerate(hidden, part.start):
                _check_finite(x.reshape(1, -1), number)
            yield from zip(ids, hidden, vectors, strict=True)

    def _slices(self, texts: Sequence[str]) -> Iterator[tuple[slice, list[list[int]]]]:
        for start in range(0, len(texts), SLICE):
            part = slice(start, start + SLICE)
            yield part, self.token_ids(texts[part])

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of further checked texts of the call, with the prompt, and count them."""
        tokenized = self._model.tokenizer([self._prefix + text for text in texts] if self._prefix else texts)
        self._model.tokenizer.check_tokens(tokenized.ids, self.truncation.n_texts)
        self.truncation.note(list(map(len, texts)), tokenized.truncated)
        self.counts.n_tokens.extend(tokenized.n_tokens)
        self.counts.truncated.extend(tokenized.truncated)
        return tokenized.ids

    def _truncated(self, vectors: Vectors) -> Vectors:  # (n, D) -> (n, d)
        d = self._dimension
        if d == self._vector_size:
            return vectors
        return unit_length(vectors[:, :d]) if self._normalize else vectors[:, :d]


class Truncation:
    """Counts the truncated texts of one call, and warns once.

    noun: "text" or "pair". ways: what a caller can do instead.
    n_texts, n_truncated: so far. where: the index of the longest truncated text.
    """

    def __init__(
        self, on_truncation: str, config: ModelConfig, *, noun: str = "text", ways: Sequence[str] = WAYS
    ) -> None:
        check_choice("on_truncation", on_truncation, ON_TRUNCATION)
        self._action = on_truncation
        self._config = config
        self._noun, self._ways = noun, ways
        self.n_texts = self.n_truncated = self._longest = self.where = 0

    def note(self, characters: Sequence[int], truncated: Sequence[bool]) -> None:
        """Count further texts, in order, by their characters. Raises InputValueError if truncation is an error."""
        indices = [index for index, is_truncated in enumerate(truncated) if is_truncated]
        if indices and self._action == "error":
            index = indices[0]
            raise InputValueError(
                f"{self._noun} {self.n_texts + index} ({characters[index]:,} characters) is longer than the limit of "
                f"{self._config.max_seq_length} tokens. {self._advice()}"
            )
        for index in indices:
            if characters[index] > self._longest:
                self._longest, self.where = characters[index], self.n_texts + index
        self.n_truncated += len(indices)
        self.n_texts += len(characters)

    def warn(self, *, more_to_come: bool = False) -> None:
        """Issue a TruncationWarning if texts were truncated; at most one per object.

        more_to_come: whether further texts will follow.
        """
        if not self.n_truncated or self._action == "ignore":
            return
        self._action = "ignore"
        were = "was" if self.n_truncated == 1 else "were"
        warnings.warn(
            f"{self.n_truncated:,} of {'the first ' * more_to_come}{self.n_texts:,} "
            f"{self._noun}{'s' * (self.n_texts != 1)} {were} truncated to {self._config.max_seq_length} tokens; the "
            f"longest, {self._noun} {self.where}, has {self._longest:,} character{'s' * (self._longest != 1)}. "
            + self._advice("pass on_truncation='ignore'"),
            TruncationWarning,
            stacklevel=callers_level(),
        )

    def _advice(self, *more: str) -> str:
        ways = list(self._ways)
        if self._config.max_seq_length < self._config.max_tokens:
            ways.append(f"set max_seq_length to at most {self._config.max_tokens}")
        ways += more
        return f"{', '.join(ways[:-1])}, or {ways[-1]}" if ways[1:] else ways[0]


def _check_finite(vectors: Vectors, first: int) -> None:
    """Raise NonFiniteError that names the text whose row has a NaN or an infinity; row 0 belongs to text `first`."""
    if not np.isfinite(vectors).all():
        row = first + int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise NonFiniteError(
            f"text {row}: its vector is not finite. The weights overflow float32 on this text: check the model that "
            "was loaded"
        )


def encode_with_counts(
    model: LoadedModel,
    texts: Sequence[str],
    report: Report,
    *,
    first: int = 0,
    prompt_name: str | None = None,
    prompt: str | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
) -> tuple[Vectors, TokenCounts]:
    """Return the vectors of texts, (n, d), and their token counts; each text is tokenized once.

    first: the number of the first text, for errors. prompt_name, prompt, normalize, truncate_dim: as for
    `SentenceEncoder.encode`. Truncated texts raise no warning: the counts name them.
    Raises InputTypeError, InputValueError, NonFiniteError (all name the text).
    """
    d = model.settings.dimension(model.config.vector_size, truncate_dim)
    pipeline = Pipeline(model, model.settings.prefix(prompt_name, prompt), "ignore", normalize, d)
    return pipeline.vectors(check_texts(texts, first), report, first), pipeline.counts


@contextmanager
def progress_bar(what: str, unit: str, total: int, shown: bool | None) -> Iterator[Report]:
    """Yield a function to call with the number of units finished since its last call. It advances the bar, if any.

    what: the work, such as "encode". unit: what is counted, in the singular.
    shown: None: the level of the logger decides, as in sentence-transformers.
    """
    if shown is None:
        shown = logging.getLogger("minilm_np").getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    if not shown or sys.stderr is None:  # a process without a console, or `2>&-`
        yield lambda done: None
        return
    with no_fork:
        from tqdm import tqdm  # its import is a tenth of the start-up time

    with tqdm(total=total, desc=what, unit=unit) as bar:
        yield bar.update


def padded(texts: Sequence[Sequence[int]], pad_id: int) -> PaddedTokens:
    """Return token ids of B texts as torch's BertModel takes them: arrays (B, T), padded to the longest text."""
    B, T = len(texts), max(map(len, texts), default=0)
    input_ids = np.full((B, T), pad_id, np.int64)
    attention_mask = np.zeros((B, T), np.int64)
    for row, ids in enumerate(texts):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {
        "input_ids": input_ids,
        "token_type_ids": np.zeros((B, T), np.int64),
        "attention_mask": attention_mask,
    }


def as_tensors(found: Any) -> Any:
    """Return arrays, in lists and dicts too, as torch tensors that share their memory. Raises MissingExtraError."""
    try:
        with no_fork:
            import torch
    except ImportError:
        raise MissingExtraError(
            "convert_to_tensor=True needs torch, which is not installed: run `pip install torch`, or use the arrays"
        ) from None
    if isinstance(found, list):
        return [as_tensors(one) for one in found]
    if isinstance(found, dict):
        return {name: as_tensors(one) for name, one in found.items()}
    return torch.from_numpy(found) if isinstance(found, np.ndarray) else found

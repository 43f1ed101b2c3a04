"""Report and warn about texts that are longer than the model's limit."""

import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from minilm_np._checks import check_choice
from minilm_np.errors import InputValueError, TruncationWarning
from minilm_np.model_files.config import ModelConfig
from minilm_np.text.tokenizer import TextTokenizer

ON_TRUNCATION = ("ignore", "warn", "error")


class TextReport(NamedTuple):
    """How much of a text the model uses."""

    n_characters: int
    n_characters_used: int  # up to the end of the last used token
    n_tokens: int  # of the complete text, including [CLS] and [SEP]
    n_tokens_used: int
    truncated: bool


def report_on(tokenizer: TextTokenizer, prefix: str, text: str, limit: int) -> TextReport:
    """How much of a text the model uses, if `prefix` is put before it and both are truncated to `limit` tokens."""
    n_tokens, used = tokenizer.measure(prefix + text)
    used = max(0, used - len(prefix))
    return TextReport(len(text), used, n_tokens, min(n_tokens, limit), n_tokens > limit)


class Truncation:
    """Counts the truncated texts of one call, and warns once."""

    def __init__(self, on_truncation: str, config: ModelConfig) -> None:
        check_choice("on_truncation", on_truncation, ON_TRUNCATION)
        self._action = on_truncation
        self._config = config
        self._n_texts = self._n_truncated = self._longest = self._where = 0

    def note(self, texts: Sequence[str], truncated: Sequence[bool]) -> None:
        """Count further texts, in order. Raises InputValueError for a truncated text if that is an error."""
        indices = [index for index, is_truncated in enumerate(truncated) if is_truncated]
        if indices and self._action == "error":
            index = indices[0]
            raise InputValueError(
                f"text {self._n_texts + index}: with {len(texts[index]):,} characters it is longer than the limit of "
                f"{self._config.max_seq_length} tokens. {self._advice()}"
            )
        for index in indices:
            if len(texts[index]) > self._longest:
                self._longest, self._where = len(texts[index]), self._n_texts + index
        self._n_truncated += len(indices)
        self._n_texts += len(texts)

    def warn(self, *, more_to_come: bool = False) -> None:
        """Issue a TruncationWarning if texts were truncated; at most one per object.

        more_to_come: whether further texts will follow.
        """
        if not self._n_truncated or self._action == "ignore":
            return
        self._action = "ignore"
        were = "was" if self._n_truncated == 1 else "were"
        warnings.warn(
            f"{self._n_truncated:,} of {'the first ' * more_to_come}{self._n_texts:,} "
            f"text{'s' * (self._n_texts != 1)} {were} truncated to {self._config.max_seq_length} tokens; the longest, "
            f"text {self._where}, has {self._longest:,} characters. {self._advice()}, or on_truncation='ignore'",
            TruncationWarning,
            stacklevel=_callers_level(),
        )

    def _advice(self) -> str:
        advice = "Use encode_long for texts of any length, tokenize_report to see what is truncated"
        if self._config.max_seq_length < self._config.max_position_embeddings:
            advice += f", a max_seq_length of up to {self._config.max_position_embeddings}"
        return advice


def _callers_level() -> int:
    """The `stacklevel` of a warning, issued by the caller of this function, that points to the first frame outside."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("minilm_np."):
        level, frame = level + 1, frame.f_back
    return level

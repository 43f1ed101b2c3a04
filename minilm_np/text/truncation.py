"""Texts that are longer than the model's limit: nobody is left to find out by themselves."""

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
    """What the model reads of a text."""

    n_characters: int
    n_characters_used: int  # up to the end of the last token that is used
    n_tokens: int  # of the whole text, [CLS] and [SEP] included
    n_tokens_used: int
    truncated: bool


def report_on(tokenizer: TextTokenizer, prefix: str, text: str, limit: int) -> TextReport:
    """What the model reads of a text that has the prefix put before it, and is cut at a limit of tokens."""
    n_tokens, used = tokenizer.measure(prefix + text)
    used = max(0, used - len(prefix))
    return TextReport(len(text), used, n_tokens, min(n_tokens, limit), n_tokens > limit)


class Truncation:
    """Counts the texts of one call that are cut, and says so once."""

    def __init__(self, on_truncation: str, config: ModelConfig) -> None:
        check_choice("on_truncation", on_truncation, ON_TRUNCATION)
        self._action = on_truncation
        self._config = config
        self._n_texts = self._n_cut = self._longest = self._where = 0

    def note(self, texts: Sequence[str], truncated: Sequence[bool]) -> None:
        """Count some more texts, in order. Raises InputValueError where a text that is cut is an error."""
        cut = [number for number, is_cut in enumerate(truncated) if is_cut]
        if cut and self._action == "error":
            number = cut[0]
            raise InputValueError(
                f"text {self._n_texts + number}: its {len(texts[number]):,} characters are more than the limit of "
                f"{self._config.max_seq_length} tokens. {self._advice()}"
            )
        for number in cut:
            if len(texts[number]) > self._longest:
                self._longest, self._where = len(texts[number]), self._n_texts + number
        self._n_cut += len(cut)
        self._n_texts += len(texts)

    def warn(self, *, more_to_come: bool = False) -> None:
        """Issue one TruncationWarning if texts were cut, the first time that this is called with any."""
        if not self._n_cut or self._action == "ignore":
            return
        self._action = "ignore"
        are = "is" if self._n_cut == 1 else "are"
        warnings.warn(
            f"{self._n_cut:,} of {'the first ' * more_to_come}{self._n_texts:,} text{'s' * (self._n_texts != 1)} {are} "
            f"longer than the limit of {self._config.max_seq_length} tokens, and the rest was left out; the longest, "
            f"text {self._where}, has {self._longest:,} characters. {self._advice()}, or say on_truncation='ignore'",
            TruncationWarning,
            stacklevel=_callers_level(),
        )

    def _advice(self) -> str:
        advice = "Use encode_long for texts of any length, tokenize_report to see what is left out"
        if self._config.max_seq_length < self._config.max_position_embeddings:
            advice += f", a max_seq_length of up to {self._config.max_position_embeddings}"
        return advice


def _callers_level() -> int:
    """The `stacklevel` with which a warning of the function that calls this one points out of the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("minilm_np."):
        level, frame = level + 1, frame.f_back
    return level

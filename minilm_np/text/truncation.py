"""How much of a text the model uses."""

from typing import NamedTuple

from minilm_np.text.tokenizer import TextTokenizer


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

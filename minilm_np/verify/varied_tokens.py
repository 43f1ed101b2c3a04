"""The token ids of texts under a variation: another tokenizer, a prompt, other ids, truncation, windows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.verify.variations import Variation, Windows

UNCUT = 8  # times the model's positions: the most tokens of a text that windows use


@dataclass(frozen=True)
class Tokens:
    """The token ids of a text, or of a part of it; [CLS] and [SEP] are separate."""

    before: tuple[int, ...]
    content: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, in order."""
        return self.before + self.content + self.after

    def cut(self, limit: int) -> "Tokens":
        """Return the first tokens, `limit` of them together with the special ones."""
        return replace(self, content=self.content[: max(0, limit - len(self.before) - len(self.after))])


class VariedTokens:
    """The token ids of some texts under any variation."""

    def __init__(self, tokenizer: TextTokenizer, config: ModelConfig, texts: Sequence[str]) -> None:
        self._tokenizer, self._config, self._texts = tokenizer, config, texts
        self._uncut: dict[Any, list[Tokens]] = {}
        self._parts: dict[Any, list[list[Tokens]]] = {}

    def parts(self, v: Variation) -> list[list[Tokens]]:
        """Return for each text its parts: one, truncated as the variation does, or several with windows."""
        cuts = v.windows and (v.windows.size, v.windows.splits_words)
        key = v.tokenizer, v.prompt, v.relabel, v.special_tokens, v.config.max_seq_length, cuts
        if key not in self._parts:
            found = self._found(v)
            if not v.special_tokens:
                found = [Tokens((), tokens.content, ()) for tokens in found]
            if v.windows:
                self._parts[key] = [self._windows(tokens, v.windows) for tokens in found]
            else:
                self._parts[key] = [[tokens.cut(v.config.max_seq_length)] for tokens in found]
        return self._parts[key]

    def _found(self, v: Variation) -> list[Tokens]:
        """The tokens of the texts, not truncated at the model's limit."""
        if (v.tokenizer, v.prompt) not in self._uncut:
            self._uncut[v.tokenizer, v.prompt] = self._tokenized(v)
        found = self._uncut[v.tokenizer, v.prompt]
        if v.relabel is None:
            return found
        ids = v.relabel([self._tokenizer.token(number) or "" for number in range(self._config.vocab_size)]).tolist()
        return [
            Tokens(*(tuple(ids[one] for one in part) for part in (tokens.before, tokens.content, tokens.after)))
            for tokens in found
        ]

    def _tokenized(self, v: Variation) -> list[Tokens]:
        varied = self._varied(v)
        before, after = tuple(varied.before), tuple(varied.after)
        return [
            Tokens(before, tuple(ids[len(before) : len(ids) - len(after)]), after)
            for ids in varied([v.prompt + text for text in self._texts]).ids
        ]

    def _varied(self, v: Variation) -> TextTokenizer:
        """The tokenizer of a variation, without the model's limit.

        All variations share one `Tokenizer`, because its vocabulary takes long to read: the parts before the vocabulary
        are replaced.
        """
        described = self._described
        for change in v.tokenizer:
            described = change(described)
        small: dict[str, Any] = {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##"}
        small |= {"max_input_chars_per_word": 1, "vocab": {"a": 0}}
        parts = Tokenizer.from_str(json.dumps(described | {"model": small, "added_tokens": [], "post_processor": None}))
        # a removed part is an empty sequence: `tokenizers` refuses None for it
        self._shared.normalizer = parts.normalizer or normalizers.Sequence([])
        self._shared.pre_tokenizer = parts.pre_tokenizer or pre_tokenizers.Sequence([])
        limit = UNCUT * self._config.max_position_embeddings
        widened = replace(self._config, max_position_embeddings=limit, max_seq_length=limit, do_lower_case=False)
        return TextTokenizer(self._shared, widened)

    @cached_property
    def _described(self) -> dict[str, Any]:
        described: dict[str, Any] = json.loads(self._tokenizer.to_json())
        return described

    @cached_property
    def _shared(self) -> Tokenizer:
        return Tokenizer.from_str(self._tokenizer.to_json())

    def _windows(self, tokens: Tokens, windows: Windows) -> list[Tokens]:
        """The parts of a text; a text without content has one."""
        room = self._config.max_position_embeddings - len(tokens.before) - len(tokens.after)
        size, content = min(windows.size, room), tokens.content
        parts, start = [], 0
        while start < len(content):
            stop = min(start + size, len(content))
            if stop < len(content) and not windows.splits_words:
                inside = (self._tokenizer.token(content[end]).startswith("##") for end in range(stop, start, -1))
                stop -= next((back for back, is_inside in enumerate(inside) if not is_inside), 0)
            parts.append(replace(tokens, content=content[start:stop]))
            start = stop
        return parts or [tokens]


# ---- descriptions of tokenizers --------------------------------------------------------------------------------------


def with_options(described: dict[str, Any], options: dict[str, bool]) -> dict[str, Any]:
    """Return a tokenizer.json with other options of BERT's normalizer (`lowercase`, `strip_accents`, ...)."""
    return described | {"normalizer": _with_options(described["normalizer"], options)}


def with_pre_tokenizer(described: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a tokenizer.json with another class of `tokenizers.pre_tokenizers` that has no options."""
    return described | {"pre_tokenizer": {"type": kind}}


def _with_options(normalizer: Any, options: dict[str, bool]) -> Any:
    """The description of a normalizer with other options; an unwanted part of a sequence is left out."""
    if normalizer is None:
        return None
    if normalizer["type"] == "BertNormalizer":
        return normalizer | options
    if normalizer["type"] == "Sequence":
        unwanted = {"Lowercase": "lowercase", "StripAccents": "strip_accents"}
        kept = [part for part in normalizer["normalizers"] if options.get(unwanted.get(part["type"], ""), True)]
        return normalizer | {"normalizers": [_with_options(part, options) for part in kept]}
    return normalizer


def alphabetical(tokens: Sequence[str]) -> Array:
    """Return for each token its place in the vocabulary sorted by code points."""
    places = np.empty(len(tokens), np.int64)
    places[sorted(range(len(tokens)), key=tokens.__getitem__)] = np.arange(len(tokens))
    return places


def shifted(tokens: Sequence[str]) -> Array:
    """Return for each token the id after its own; the last one keeps its id."""
    return np.minimum(np.arange(len(tokens)) + 1, len(tokens) - 1)

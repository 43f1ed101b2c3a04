"""The model with deviations: `reference.py` with other inputs, weights or config, or with some functions replaced."""

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from minilm_np import reference
from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array, Nested, nest
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.text.tokenizer import TextTokenizer

LONGEST = -1  # value of `pad_to`: the length of the longest text, as if all texts were one batch


@dataclass(frozen=True)
class Variation:
    """The model with its deviations. Everything else is as in the reference."""

    config: ModelConfig
    functions: Mapping[str, Callable[[Any], Any]] = field(
        default_factory=dict
    )  # name in reference.py -> maker of the function
    weights: tuple[Callable[[str, Array], Array], ...] = ()  # (name, float32 parameter) -> parameter
    normalizer: tuple[tuple[str, bool], ...] = ()  # options of BERT's text normalizer
    special_tokens: bool = True  # [CLS] and [SEP] are added
    pad_to: int = 0  # tokens
    attends_to_padding: bool = False
    pools_padding: bool = False
    pools_special_tokens: bool = True


@dataclass(frozen=True)
class Deviation:
    """One known way to differ from the model. A pair never has two deviations of one kind."""

    name: str
    kind: str
    what: str  # one sentence: what is done, and which software does it
    remedy: str
    vary: Callable[[Variation], Variation]
    variant: Callable[[Variation], Variation] | None = None  # another way to do it, if implementations differ in detail


@dataclass(frozen=True)
class Tokens:
    """The token ids of a text; [CLS] and [SEP] are apart."""

    before: list[int]
    content: list[int]
    after: list[int]

    @property
    def ids(self) -> list[int]:
        """All of them, in order."""
        return [*self.before, *self.content, *self.after]

    def cut(self, limit: int, special_tokens: bool) -> "Tokens":
        """Return the first tokens, `limit` with the special ones."""
        if not special_tokens:
            return Tokens([], self.content[:limit], [])
        return Tokens(self.before, self.content[: limit - len(self.before) - len(self.after)], self.after)


class VariedModel:
    """An encoder's model on some texts, under any variation."""

    BATCH_TOKENS = 4096

    def __init__(self, encoder: SentenceEncoder, texts: Sequence[str]) -> None:
        self.base = Variation(encoder.config)
        self._texts = texts
        self._tokenizer = encoder.tokenizer
        self._parameters = encoder.weights
        self._tokens: dict[Any, list[Tokens]] = {}
        self._nested: dict[Any, Nested] = {}

    def tokens(self, variation: Variation) -> list[Tokens]:
        """Return the token ids of every text, truncated as the variation does."""
        options = variation.normalizer
        if options not in self._tokens:
            self._tokens[options] = _uncut(self._tokenizer, self.base.config, options, self._texts)
        limit = variation.config.max_seq_length
        return [tokens.cut(limit, variation.special_tokens) for tokens in self._tokens[options]]

    def lengths(self, variation: Variation) -> list[int]:
        """Return the number of tokens of every text, padding included."""
        lengths = [len(tokens.ids) for tokens in self.tokens(variation)]
        pad_to = max(lengths, default=0) if variation.pad_to == LONGEST else variation.pad_to
        return [max(length, pad_to) for length in lengths]

    def acts_on(self, variation: Variation) -> Array:  # (n,) bool
        """Return on which texts the variation can change the vector; on the others it cannot."""
        config = replace(variation.config, max_seq_length=self.base.config.max_seq_length)
        if variation.functions or variation.weights or config != self.base.config or not variation.pools_special_tokens:
            return np.ones(len(self._texts), bool)
        own, tokens, lengths = self.tokens(self.base), self.tokens(variation), self.lengths(variation)
        return np.array([a.ids != b.ids or len(b.ids) != T for a, b, T in zip(own, tokens, lengths, strict=True)], bool)

    def vectors(self, variation: Variation, rows: Sequence[int], dtype: Any = np.float32) -> Array:
        """Return the vectors of some texts, (B, D); NaN for a text without a token to pool."""
        model = _instance_of_reference(variation.functions)
        config, weights = variation.config, self._weights(variation.weights, dtype)
        tokens, lengths = self.tokens(variation), self.lengths(variation)
        vectors = np.full((len(rows), config.hidden_size), np.nan, dtype)
        places: dict[int, list[int]] = {}  # of the rows of one length
        for place, row in enumerate(rows):
            if tokens[row].content or (tokens[row].ids and variation.pools_special_tokens):
                places.setdefault(lengths[row], []).append(place)
        for T, same_length in places.items():
            size = max(1, self.BATCH_TOKENS // T)
            for batch in (same_length[start : start + size] for start in range(0, len(same_length), size)):
                ids, real, pooled = self._batch([tokens[rows[place]] for place in batch], T, variation)
                x = model.encoder(ids, None if variation.attends_to_padding else real, None, weights, config)
                vector = model.pooling(x, pooled, config.pooling_mode)
                vectors[batch] = model.normalize(vector) if config.normalize else vector
        return vectors

    def _batch(self, texts: list[Tokens], T: int, variation: Variation) -> tuple[Array, Array, Array]:
        """The padded ids, which of them are tokens, and which are pooled; each (B, T)."""
        ids = np.full((len(texts), T), self._tokenizer.pad_id, np.int64)
        real = np.zeros(ids.shape, bool)
        special = np.zeros(ids.shape, bool)
        for row, text in enumerate(texts):
            n = len(text.ids)
            ids[row, :n], real[row, :n] = text.ids, True
            special[row, : len(text.before)] = special[row, n - len(text.after) : n] = True
        pooled = real | variation.pools_padding
        return ids, real, pooled if variation.pools_special_tokens else pooled & ~special

    def _weights(self, changes: tuple[Callable[[str, Array], Array], ...], dtype: Any) -> Nested:
        """The nested weights with these changes; float32 weights with one change are cached."""
        key = (changes, dtype)
        if key in self._nested:
            return self._nested[key]
        parameters = dict(self._parameters)
        for change in changes:
            parameters = {name: change(name, array) for name, array in parameters.items()}
        nested = nest(parameters, dtype)
        if not changes or (len(changes) == 1 and dtype == np.float32):
            self._nested[key] = nested
        return nested


def _uncut(
    tokenizer: TextTokenizer, config: ModelConfig, options: tuple[tuple[str, bool], ...], texts: Sequence[str]
) -> list[Tokens]:
    """The tokens of the texts, truncated only at the model's positions, with these options of the normalizer."""
    described = json.loads(tokenizer.to_json())
    described["normalizer"] = _with_options(described["normalizer"], dict(options))
    around = len(tokenizer([""]).ids[0])
    limit = config.max_position_embeddings + around
    widened = replace(config, max_position_embeddings=limit, max_seq_length=limit, do_lower_case=False)
    varied = TextTokenizer(Tokenizer.from_str(json.dumps(described)), widened)
    empty, probe = varied(["", "a"]).ids
    before = next((n for n, pair in enumerate(zip(empty, probe, strict=False)) if pair[0] != pair[1]), len(empty))
    after = around - before
    return [Tokens(ids[:before], ids[before : len(ids) - after], ids[len(ids) - after :]) for ids in varied(texts).ids]


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


def _instance_of_reference(functions: Mapping[str, Callable[[Any], Any]]) -> Any:
    """A private second instance of `reference.py` with some functions replaced."""
    if not functions:
        return reference
    spec = importlib.util.find_spec(reference.__name__)
    assert spec is not None and spec.loader is not None  # it has been imported
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, make in functions.items():
        setattr(module, name, make(module))
    return module

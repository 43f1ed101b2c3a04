"""Texts to token ids without padding, by the `tokenizers` library.

This module avoids four traps of `tokenizers`. The published tokenizer.json contains truncation at 128 tokens and
padding to 128, which are not the model's. The library tokenizes a complete text before it truncates, so megabytes of
punctuation need gigabytes of memory: here a long text is tokenized piece by piece until the limit is reached. A lone
surrogate is an error for the whole batch, with a misleading message. And a list of two strings is one pair of texts.

A special token that is typed in a text (`[SEP]`, `</s>`) becomes the id of that special token, as in
sentence-transformers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tokenizers import Encoding, Tokenizer, normalizers

from minilm_np._checks import check_texts
from minilm_np.errors import InputValueError, TokenizerError
from minilm_np.model_files.config import ModelConfig
from minilm_np.text.breaks import breaks_of
from minilm_np.text.components import raise_named

# A text of at most this many characters is tokenized at once, a longer text in pieces of about this many.
PIECE = 4096

# The special tokens of BERT's and of RoBERTa's tokenizers, by the keys of tokenizer_config.json.
USUAL_TOKENS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class TokenizedTexts:
    """The token ids of B texts, without padding."""

    ids: list[list[int]]
    truncated: list[bool]  # whether the text was longer than the limit

    @property
    def n_tokens(self) -> list[int]:
        """The number of tokens of each text after truncation, including [CLS] and [SEP]."""
        return [len(ids) for ids in self.ids]


class TextTokenizer:
    """A `tokenizers.Tokenizer` for one config. It does not change after its creation, so threads may share it.

    before, after: the ids that are added to every text, such as those of [CLS] and [SEP], or <s> and </s>.
    pad_id: the id for padding, which this package does not need.
    special_tokens: the tokens with a role, by the keys of tokenizer_config.json: "pad_token", "unk_token", ...
    origin: the tokenizer's file, for errors.
    limit: max_seq_length of the config.

    named: the special tokens of tokenizer_config.json; a role that is missing gets its usual token, if there is one.
    Raises TokenizerError: the tokenizer does not fit the config.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ModelConfig,
        origin: str = "the tokenizer",
        named: Mapping[str, str] | None = None,
    ) -> None:
        self.origin = origin
        try:
            self._breaks = breaks_of(tokenizer)  # lower-casing, below, moves no break
        except BaseException as error:
            raise_named(error, f"{origin} cannot be loaded by `tokenizers`")
        if config.do_lower_case and not _lower_cases(tokenizer.normalizer):
            before = [normalizers.Lowercase()] + ([tokenizer.normalizer] if tokenizer.normalizer is not None else [])
            tokenizer.normalizer = normalizers.Sequence(before)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        try:
            self.before, self.after = _special_ids(tokenizer)
        except BaseException as error:
            raise_named(error, f"{origin} cannot be loaded by `tokenizers`")
        self.limit = config.max_seq_length
        self._room = config.max_seq_length - tokenizer.num_special_tokens_to_add(is_pair=False)
        if self._room < 0:
            raise TokenizerError(
                f"{origin}: expected at most {config.max_seq_length} special tokens per text, the model's "
                f"max_seq_length, found {config.max_seq_length - self._room}"
            )
        tokenizer.enable_truncation(config.max_seq_length)
        self._tokenizer = tokenizer
        self.special_tokens = self._find_special_tokens(named or {})
        pad = self.special_tokens.get("pad_token")
        self.pad_id: int = (None if pad is None else tokenizer.token_to_id(pad)) or 0
        self._abridged = _abridged(tokenizer) if self._breaks is not None and self._breaks.are_berts else None
        largest = max([_largest_id(tokenizer), *self.before, *self.after])
        if largest >= config.vocab_size:
            raise TokenizerError(
                f"{origin} has token ids up to {largest}, but the model only up to {config.vocab_size - 1}: use the "
                "tokenizer and the weights of one model"
            )

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize texts; truncate each to max_seq_length tokens. A list is expected to be from `check_texts`.

        Raises InputTypeError, InputValueError (both name the text), TokenizerError (the tokenizer's file is broken).
        """
        checked = texts if type(texts) is list else check_texts(texts)
        try:
            return self._tokenized(checked)
        except BaseException as error:
            raise_named(error, f"{self.origin} fails on a text")

    def _tokenized(self, texts: list[str]) -> TokenizedTexts:
        found = self._ids(texts, special=True)
        return TokenizedTexts([ids for ids, _ in found], [truncated for _, truncated in found])

    def contents(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """The ids of each text without special tokens, at most `limit` of them, and whether the text has more.

        Raises as a call does.
        """
        try:
            return self._ids(texts, special=False)
        except BaseException as error:
            raise_named(error, f"{self.origin} fails on a text")

    def _ids(self, texts: Sequence[str], *, special: bool) -> list[tuple[list[int], bool]]:
        """The ids of each text, up to the limit, and whether it has more. special: with special tokens."""
        is_long = [len(text) > PIECE and self._breaks is not None for text in texts]
        short = self._encode_batch(
            [text for text, long in zip(texts, is_long, strict=True) if not long], add_special_tokens=special
        )
        long = self._encode_long(
            [text for text, long in zip(texts, is_long, strict=True) if long], self._room if special else self.limit
        )
        before, after = (self.before, self.after) if special else ([], [])
        of_kind = (
            ((encoding.ids, bool(encoding.overflowing)) for encoding in short),
            ((before + ids + after, truncated) for ids, truncated in long),
        )
        return [next(of_kind[long]) for long in is_long]

    def pair_encoding(self, first: str, second: str) -> tuple[Encoding, Encoding, Encoding] | None:
        """The encodings of two short texts and of their pair, with special tokens and not truncated.

        None: the tokenizer has no post-processor. Raises TokenizerError: the tokenizer's file is broken.
        """
        processor = self._tokenizer.post_processor
        if processor is None:
            return None
        try:
            a, b = (self._tokenizer.encode(text, add_special_tokens=False) for text in (first, second))
            return a, b, processor.process(a, b)
        except BaseException as error:
            raise_named(error, f"{self.origin} fails on a pair of texts")

    def with_limit(self, config: ModelConfig) -> "TextTokenizer":
        """A new tokenizer, for a config with another max_seq_length."""
        return TextTokenizer(Tokenizer.from_str(self.to_json()), config, self.origin, self.special_tokens)

    def to_json(self) -> str:
        """The content of a tokenizer.json."""
        return self._tokenizer.to_str()

    def has_token(self, token: str) -> bool:
        """Whether the vocabulary contains a token, added tokens included."""
        return self._tokenizer.token_to_id(token) is not None

    def _find_special_tokens(self, named: Mapping[str, str]) -> dict[str, str]:
        """The token of each role: the named one, else the one that is added to each text, else the usual one."""
        found: dict[str, str] = {}
        for role, usual in USUAL_TOKENS.items():
            added = {"cls_token": self.before[:1], "sep_token": self.after[-1:]}.get(role, [])
            candidates = filter(self.has_token, [named.get(role, ""), *map(self.token, added), *usual])
            if (token := next(candidates, None)) is not None:
                found[role] = token
        return found

    def token(self, number: int) -> str:
        """The token with an id."""
        return str(self._tokenizer.id_to_token(number))

    def _encode_batch(self, texts: list[str], *, add_special_tokens: bool = True) -> list[Encoding]:
        try:
            return self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        except BaseException as error:
            if "thread pool" not in str(error):
                raise
            # the system lets no thread start, and a single text needs none
            return [self._tokenizer.encode(text, add_special_tokens=add_special_tokens) for text in texts]

    def encodings(self, text: str) -> Iterator[tuple[int, list[Encoding]]]:
        """Tokenize a complete text in pieces of bounded length, without special tokens and without truncation.

        Yields for each piece (start, encodings): the position of its first character in the text, and encodings with
        offsets relative to that position. No piece ends inside a word.
        """
        start = 0
        for piece in self._pieces(text) if len(text) > PIECE else [text]:
            try:
                encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            except BaseException as error:
                raise_named(error, f"{self.origin} fails on a text")
            yield start, [encoding, *encoding.overflowing]  # `overflowing` has what truncation removed
            start += len(piece)

    def measure(self, text: str) -> tuple[int, int]:
        """The tokens of the complete text, with special tokens; its characters up to the end of the last used token."""
        n_tokens, used = 0, 0
        for start, encodings in self.encodings(text):
            for encoding in encodings:
                if used_offsets := encoding.offsets[: max(0, self._room - n_tokens)]:
                    used = start + used_offsets[-1][1]
                n_tokens += len(encoding.ids)
        return n_tokens + len(self.before + self.after), used if n_tokens > self._room else len(text)

    def check_tokens(self, ids: Sequence[Sequence[int]], first: int = 0) -> None:
        """Raise InputValueError for a text without tokens, which has no vector; `first` is the index of the first text.

        Such texts exist for tokenizers that add no special tokens only.
        """
        if not all(ids):
            raise InputValueError(
                f"text {first + next(n for n, of_text in enumerate(ids) if not of_text)}: expected at least one token, "
                f"found none; {self.origin} adds no special tokens to a text: remove the text"
            )

    def _encode_long(self, texts: Sequence[str], room: int) -> list[tuple[list[int], bool]]:
        """Tokenize each text piece by piece, up to `room` tokens -> [(ids, whether truncated), ...], without special
        tokens.
        """
        pieces = [self._pieces(text) for text in texts]
        content: list[list[int]] = [[] for _ in texts]
        truncated = [False] * len(texts)
        unfilled = list(range(len(texts)))
        while unfilled:
            following = {number: piece for number in unfilled if (piece := next(pieces[number], None)) is not None}
            shortened = [self._shortened(piece) for piece in following.values()]
            batch = self._encode_batch(shortened, add_special_tokens=False)
            for number, encoding in zip(following, batch, strict=True):
                content[number] += encoding.ids
                truncated[number] = len(content[number]) > room or bool(encoding.overflowing)
            unfilled = [number for number in following if not truncated[number]]
        # joined as lists, because `Encoding.merge` takes quadratic time in the overflowing tokens
        return [(ids[:room], is_truncated) for ids, is_truncated in zip(content, truncated, strict=True)]

    def _shortened(self, piece: str) -> str:
        """A piece with the same ids, without most characters of the words that are too long for the vocabulary."""
        if self._abridged is None or len(piece) <= 2 * PIECE:
            return piece
        return self._abridged.sub(r"\1\2", piece)

    def _pieces(self, text: str) -> Iterator[str]:
        """Split a text so that its pieces have the tokens of the text: not in a word, a cluster or an added token."""
        return iter([text]) if self._breaks is None else self._breaks.pieces(text, PIECE)


def _lower_cases(normalizer: Any) -> bool:
    """Whether a normalizer lower-cases."""
    if isinstance(normalizer, normalizers.Sequence):
        return any(map(_lower_cases, cast(Any, normalizer)))  # iterable, despite its type stub
    return isinstance(normalizer, normalizers.Lowercase) or bool(getattr(normalizer, "lowercase", False))


def _largest_id(tokenizer: Tokenizer) -> int:
    """The largest id in the vocabulary, added tokens included; -1 if it is empty."""
    number = tokenizer.get_vocab_size(with_added_tokens=False)
    if None in map(tokenizer.model.id_to_token, range(number)):  # the ids are not those from 0 to number - 1
        return max(tokenizer.get_vocab().values(), default=-1)
    return max([number - 1, *tokenizer.get_added_tokens_decoder()])


def _special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer adds before and after those of a text. Its truncation must be off."""
    probe = tokenizer.encode("a")
    mask = probe.special_tokens_mask
    start = mask.index(0) if 0 in mask else len(mask)
    return probe.ids[:start], probe.ids[start + mask.count(0) :]


def _abridged(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """A pattern of ASCII letters and digits that are more than a word may have; its groups are both ends of them.

    A word of more than max_input_chars_per_word characters is one [UNK], and so is the word without the characters
    between the two groups: BERT's normalizer neither removes nor separates ASCII letters and digits. Each group is so
    long that the rest of a word is too long even after an added token at its end. None: an added token consists of
    such characters, and could be found between the groups.
    """
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    end = tokenizer.model.max_input_chars_per_word + max(map(len, added), default=0) + 1
    if end > PIECE or any(token.isalnum() for token in added):
        return None
    return re.compile(f"([0-9A-Za-z]{{{end}}})[0-9A-Za-z]+([0-9A-Za-z]{{{end}}})")

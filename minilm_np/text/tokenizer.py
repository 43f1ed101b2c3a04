"""Text to ragged token ids, through the `tokenizers` library: WordPiece as the model was trained with.

What this file adds to `tokenizers` is care about four traps. The published tokenizer.json bakes in truncation at 128
and padding to 128, which the model does not mean. A text is tokenized whole before it is cut, so megabytes of
punctuation cost gigabytes: here a long text is fed in pieces until the limit is filled. A lone surrogate fails the
whole batch with a misleading message. And a list of two strings is taken for one pair of texts.

A special token that is typed in a text (`[SEP]`, `[PAD]`) becomes that special id, as in sentence-transformers.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, processors

from minilm_np.errors import InputTypeError, InputValueError, TokenizerError
from minilm_np.model_files.config import ModelConfig, read_object

# A text of at most this many characters is tokenized in one go, a longer one in pieces of about this many.
PIECE = 4096

# What tokenizer_config.json may say of BERT's normalizer: its name there, and what transformers takes where it is not.
_BERT_OPTIONS: dict[str, tuple[str, bool | None]] = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of B texts, with nothing padded, and what was left out of them."""

    ids: list[list[int]]
    truncated: list[bool]  # the text went on beyond the limit

    @property
    def n_tokens(self) -> list[int]:
        """The number of tokens that are used of each text, [CLS] and [SEP] included."""
        return [len(ids) for ids in self.ids]


class TextTokenizer:
    """A `tokenizers.Tokenizer` that is configured once, and never changed: many threads may use it at a time."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self._splits_safely = _splits_safely(tokenizer)  # making lower case moves no break
        if config.do_lower_case and not _lower_cases(tokenizer.normalizer):
            before = [normalizers.Lowercase()] + ([tokenizer.normalizer] if tokenizer.normalizer is not None else [])
            tokenizer.normalizer = normalizers.Sequence(before)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.before, self.after = _special_ids(tokenizer)  # ids that every text gets around it: [CLS], [SEP]
        self._room = config.max_seq_length - tokenizer.num_special_tokens_to_add(is_pair=False)
        if self._room < 0:
            raise TokenizerError(
                f"max_seq_length {config.max_seq_length} has no room for the {config.max_seq_length - self._room} "
                "special tokens that the tokenizer adds to a text"
            )
        tokenizer.enable_truncation(config.max_seq_length)
        pad = tokenizer.token_to_id("[PAD]")
        self.pad_id = 0 if pad is None else pad  # for those who pad; this package does not
        self._tokenizer = tokenizer
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        largest = max(tokenizer.get_vocab().values(), default=-1)
        if largest >= config.vocab_size:
            raise TokenizerError(
                f"the tokenizer has token ids up to {largest}, the model embeds {config.vocab_size} (ids from 0): "
                "they do not belong together"
            )

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize texts that `check_texts` has let pass, each cut at max_seq_length tokens."""
        is_long = [len(text) > PIECE and self._splits_safely for text in texts]
        short = self._tokenizer.encode_batch_fast([text for text, long in zip(texts, is_long, strict=True) if not long])
        long = self._encode_long([text for text, long in zip(texts, is_long, strict=True) if long])
        of_kind = (((encoding.ids, bool(encoding.overflowing)) for encoding in short), iter(long))
        found = [next(of_kind[long]) for long in is_long]
        return TokenizedTexts([ids for ids, _ in found], [truncated for _, truncated in found])

    def with_limit(self, config: ModelConfig) -> "TextTokenizer":
        """The same tokenizer for a config with another max_seq_length; this one stays as it is."""
        return TextTokenizer(Tokenizer.from_str(self.to_json()), config)

    def to_json(self) -> str:
        """The text of a tokenizer.json."""
        return self._tokenizer.to_str()

    def has_token(self, token: str) -> bool:
        """Whether the vocabulary, or what was added to it, holds a token."""
        return self._tokenizer.token_to_id(token) is not None

    def token(self, number: int) -> str:
        """The token that an id stands for."""
        return str(self._tokenizer.id_to_token(number))

    def encodings(self, text: str) -> Iterator[tuple[int, list[Encoding]]]:
        """The tokens of a whole text, without what is added to it, in pieces of bounded length.

        Of each piece the character at which it starts, and its encodings, whose offsets count from there. No piece ends
        in a word.
        """
        start = 0
        for piece in self._pieces(text) if len(text) > PIECE and self._splits_safely else [text]:
            encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            yield start, [encoding, *encoding.overflowing]  # it truncates, but keeps what it cuts off
            start += len(piece)

    def measure(self, text: str) -> tuple[int, int]:
        """The tokens of a whole text, specials included, and the characters of it up to its last token that is used."""
        n_tokens, used = 0, 0
        for start, encodings in self.encodings(text):
            for encoding in encodings:
                if kept := encoding.offsets[: max(0, self._room - n_tokens)]:
                    used = start + kept[-1][1]
                n_tokens += len(encoding.ids)
        return n_tokens + len(self.before + self.after), used if n_tokens > self._room else len(text)

    def _encode_long(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """Tokenize pieces of each text until they overflow the limit: the ids are those of the whole text."""
        pieces = [self._pieces(text) for text in texts]
        content: list[list[int]] = [[] for _ in texts]
        truncated = [False] * len(texts)
        unfilled = list(range(len(texts)))
        while unfilled:
            following = {number: piece for number in unfilled if (piece := next(pieces[number], None)) is not None}
            batch = self._tokenizer.encode_batch_fast(list(following.values()), add_special_tokens=False)
            for number, encoding in zip(following, batch, strict=True):
                content[number] += encoding.ids
                truncated[number] = len(content[number]) > self._room or bool(encoding.overflowing)
            unfilled = [number for number in following if not truncated[number]]
        # joined as lists: `Encoding.merge` is quadratic in what overflows
        found = (self.before + ids[: self._room] + self.after for ids in content)
        return list(zip(found, truncated, strict=True))

    def _pieces(self, text: str) -> Iterator[str]:
        """Cut a text where the pieces' tokens are the text's: never inside a word, a cluster or an added token."""
        start = 0
        while start < len(text):
            breaks = (match.start() for match in _breaks().finditer(text, start + PIECE))
            whole = (stop for stop in breaks if not any(_spans(text, stop, token) for token in self._added))
            stop = next(whole, len(text))
            yield text[start:stop]
            start = stop


def load_tokenizer(folder: Path, config: ModelConfig) -> TextTokenizer:
    """The tokenizer of a model folder: tokenizer.json, or in an old folder vocab.txt.

    Raises TokenizerError: neither is there, or it is broken, or it has ids that the model does not.
    """
    folder = folder / config.transformer_path
    options = _read_options(folder / "tokenizer_config.json")
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            tokenizer = Tokenizer.from_file(str(path))
            side = options.get("truncation_side") or (tokenizer.truncation or {}).get("direction", "right")
            if side != "right":
                raise TokenizerError(f"{path}: a truncation_side of {side!r} is not implemented: expected 'right'")
            if str(options.get("tokenizer_class") or "BertTokenizer").startswith("BertTokenizer"):
                _apply_bert_options(tokenizer, options)
        else:
            path = folder / "vocab.txt"
            if not path.exists():
                raise TokenizerError(f"{folder} has neither tokenizer.json nor vocab.txt: the model cannot read text")
            tokenizer = bert_tokenizer(path.read_text(encoding="utf-8").split("\n"), options)
        return TextTokenizer(tokenizer, config)
    except TokenizerError:
        raise
    except Exception as error:  # `tokenizers` raises plain Exceptions
        raise TokenizerError(f"{path} is not a tokenizer that `tokenizers` can load: {error}") from error


def bert_tokenizer(vocabulary: Sequence[str], options: dict[str, Any] | None = None) -> Tokenizer:
    """BERT's WordPiece tokenizer over a list of tokens, which must hold [PAD], [UNK], [CLS], [SEP] and [MASK].

    options: do_lower_case, strip_accents and tokenize_chinese_chars, as tokenizer_config.json has them.
    """
    vocab = {token: index for index, token in enumerate(vocabulary) if token}
    for token in ("[UNK]", "[CLS]", "[SEP]"):
        if token not in vocab:
            raise TokenizerError(f"the vocabulary lacks {token}: a BERT vocabulary holds it on a line of its own")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens([token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in vocab])
    tokenizer.normalizer = normalizers.BertNormalizer()
    _apply_bert_options(tokenizer, options or {})
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    )
    return tokenizer


def check_texts(texts: Sequence[str], first: int = 0) -> list[str]:
    """A sequence of texts as a list, each of which `tokenizers` can take; `first` is the number of the first one.

    Raises InputTypeError: no sequence, or something in it that is no str; InputValueError: a lone surrogate, which
    UTF-8 cannot hold. Both name the text's index.
    """
    if isinstance(texts, str | bytes | dict) or not hasattr(texts, "__iter__") or getattr(texts, "shape", None) == ():
        raise InputTypeError(f"texts: expected a str or a sequence of str, found {type(texts).__name__}")
    found = list(texts)
    for index, text in enumerate(found, first):
        if not isinstance(text, str):
            hint = ": decode it first" if isinstance(text, bytes) else ""
            raise InputTypeError(f"text {index}: expected a str, found {type(text).__name__} {str(text)[:40]!r}{hint}")
        if text.isascii():  # a flag of the str, so ordinary texts pay nothing
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputValueError(
                f"text {index}: the lone surrogate U+{ord(text[error.start]):04X} at character {error.start} is not "
                "Unicode text: decode the bytes it came from rightly, or replace it by "
                "text.encode('utf-8', 'replace').decode()"
            ) from None
    return found


def _read_options(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, or {} where there is none; what this file uses of it is checked."""
    options = read_object(path, optional=True)
    for option in _BERT_OPTIONS:
        value, may_be_null = options.get(option, False), option == "strip_accents"
        if type(value) is not bool and not (value is None and may_be_null):
            expected = "true, false or null" if may_be_null else "true or false"
            raise TokenizerError(f"{path}: {option}: expected {expected}, found {value!r}")
    return options


def _apply_bert_options(tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    """Let tokenizer_config.json overrule the normalizer of tokenizer.json, as transformers does for BertTokenizer.

    So does what it leaves out: transformers then takes its own default, whatever tokenizer.json says.
    """
    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        for option, (name, default) in _BERT_OPTIONS.items():
            setattr(tokenizer.normalizer, name, options.get(option, default))


def _lower_cases(normalizer: Any) -> bool:
    """Whether a normalizer already makes lower case."""
    if isinstance(normalizer, normalizers.Sequence):
        return any(map(_lower_cases, cast(Any, normalizer)))  # iterable, though its type stub does not say so
    return isinstance(normalizer, normalizers.Lowercase) or bool(getattr(normalizer, "lowercase", False))


def _special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer without truncation puts before and after those of a text."""
    probe = tokenizer.encode("a")
    mask = probe.special_tokens_mask
    start = mask.index(0) if 0 in mask else len(mask)
    return probe.ids[:start], probe.ids[start + mask.count(0) :]


def _splits_safely(tokenizer: Tokenizer) -> bool:
    """Whether `_breaks` holds for this tokenizer: BERT's own normalizer, splitting and WordPiece.

    An added token that is looked for in the normalised text, or that holds white space, could bridge a break.
    """
    return (
        isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
        and tokenizer.normalizer.clean_text
        and tokenizer.normalizer.handle_chinese_chars
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.model, models.WordPiece)
        and all(
            not (token.normalized or token.single_word) and not re.search(r"\s", token.content)
            for token in tokenizer.get_added_tokens_decoder().values()
        )
    )


@functools.cache
def _breaks() -> re.Pattern[str]:
    """The characters before which BERT's rules split a text whatever stands on either side, and that combine with
    nothing before them: white space, punctuation, ideographs.

    The library is asked, not Unicode: its tables are of another version than Python's.
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    found = ""
    for code in range(0x20000):
        character = chr(code)
        if unicodedata.category(character)[0] in "PZ" or (code < 0x80 and not character.isalnum()):
            words = splitter.pre_tokenize_str(normalizer.normalize_str(f"a{character}b"))
            if len(words) > 1 and unicodedata.combining(character) == 0:
                found += character
    return re.compile(f"[{re.escape(found)}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df]")


def _spans(text: str, position: int, token: str) -> bool:
    """Whether an occurrence of token begins before position and ends after it."""
    return token in text[max(0, position - len(token) + 1) : position + len(token) - 1]

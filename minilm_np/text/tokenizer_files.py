"""The tokenizer files of a model folder: tokenizer.json or vocab.txt, and the options of tokenizer_config.json.

A tokenizer.json is used as it is, with any model that the library `tokenizers` has: WordPiece, Unigram, BPE. Two
options of tokenizer_config.json overrule it, as in transformers: those of BERT's normalizer, and `add_prefix_space` of
RoBERTa.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from minilm_np._checks import short_repr
from minilm_np._files import read_regular
from minilm_np._forks import no_fork
from minilm_np.errors import TokenizerError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.json_files import read_object
from minilm_np.text.components import check_components, raise_named
from minilm_np.text.tokenizer import USUAL_TOKENS, TextTokenizer

# Limits in bytes of files that anybody may have written. Honest, for the 500,000 tokens of LaBSE: 10 MB and 5 MB.
MAX_TOKENIZER = 20_000_000
MAX_VOCABULARY = 10_000_000

# Classes of transformers that replace the options of BERT's normalizer by those of tokenizer_config.json.
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer")
# Vocabularies that only transformers reads, and what to do.
_OTHER_VOCABULARIES = ("sentencepiece.bpe.model", "spiece.model", "vocab.json")
_CONVERT = (
    'write tokenizer.json with `python -c "from transformers import AutoTokenizer; '
    'AutoTokenizer.from_pretrained({folder!r}).save_pretrained({folder!r})"`'
)
# Options of tokenizer_config.json for BERT's normalizer: {option: (the normalizer's attribute, transformers' default)}.
_BERT_OPTIONS: dict[str, tuple[str, bool | None]] = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}


def load_tokenizer(folder: Path, config: ModelConfig) -> TextTokenizer:
    """The tokenizer of a model folder, from tokenizer.json, or in an old folder from vocab.txt.

    Raises TokenizerError: both files are missing, the file is broken, or it does not fit the config.
    """
    folder = folder / config.transformer_path
    options_path = folder / "tokenizer_config.json"
    options = _read_options(options_path)
    named = _named_tokens(options, options_path)
    for path, most, make in (
        (folder / "tokenizer.json", MAX_TOKENIZER, _from_json),
        (folder / "vocab.txt", MAX_VOCABULARY, _from_vocabulary),
    ):
        try:
            content = read_regular(path, most)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror or error}") from None
        with no_fork:  # each class of `tokenizers` locks itself for its first object, and other threads run meanwhile
            return TextTokenizer(make(content, options, str(path)), config, str(path), named)
    other = next((name for name in _OTHER_VOCABULARIES if (folder / name).exists()), None)
    found = "neither" if other is None else f"{other}, which is not read: {_CONVERT.format(folder=str(folder))}"
    raise TokenizerError(f"{folder}: expected tokenizer.json or vocab.txt, found {found}")


def _from_json(content: bytes, options: dict[str, Any], origin: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, with the options of tokenizer_config.json."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except BaseException as error:
        raise_named(error, f"{origin} cannot be loaded by `tokenizers`")
    check_components(tokenizer, origin)
    side = options.get("truncation_side") or (tokenizer.truncation or {}).get("direction", "right")
    if side != "right":
        raise TokenizerError(f"{origin}: truncation_side {short_repr(side)} is not implemented: expected 'right'")
    tokenizer_class = str(options.get("tokenizer_class") or "BertTokenizer").removesuffix("Fast")
    if tokenizer_class in _BERT_CLASSES:
        _apply_bert_options(tokenizer, options)
    if tokenizer_class == "RobertaTokenizer" and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        tokenizer.pre_tokenizer.add_prefix_space = options.get("add_prefix_space", False)
    return tokenizer


def _from_vocabulary(content: bytes, options: dict[str, Any], origin: str) -> Tokenizer:
    """BERT's tokenizer with the vocabulary of a vocab.txt, with the options of tokenizer_config.json."""
    try:
        lines = io.TextIOWrapper(io.BytesIO(content), "utf-8").read().split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{origin}: expected UTF-8: {error}") from None
    return bert_tokenizer(lines, options, origin)


def bert_tokenizer(
    vocabulary: Sequence[str], options: dict[str, Any] | None = None, origin: str = "the vocabulary"
) -> Tokenizer:
    """BERT's WordPiece tokenizer with a vocabulary: a list of tokens, by id.

    options: do_lower_case, strip_accents and tokenize_chinese_chars, as in tokenizer_config.json.
    origin: the file of the vocabulary, for errors.
    Raises TokenizerError: the vocabulary lacks [UNK], [CLS] or [SEP].
    """
    vocab = {token: index for index, token in enumerate(vocabulary) if token}
    for token in ("[UNK]", "[CLS]", "[SEP]"):
        if token not in vocab:
            raise TokenizerError(f"{origin} has no {token}: expected the vocabulary of a BERT model")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens([token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in vocab])
    tokenizer.normalizer = normalizers.BertNormalizer()
    _apply_bert_options(tokenizer, options or {})
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _named_tokens(options: dict[str, Any], path: Path) -> dict[str, str]:
    """The special tokens that tokenizer_config.json names: a str, or an object with the str as its content."""
    found = {}
    for role in USUAL_TOKENS:
        token = options.get(role)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            if any("\ud800" <= character <= "\udfff" for character in content):
                raise TokenizerError(f"{path}: {role}: expected valid Unicode, found {short_repr(content)}")
            found[role] = content
    return found


def _read_options(path: Path) -> dict[str, Any]:
    """The values of tokenizer_config.json, {} if it is missing; those that are used here are checked."""
    options = read_object(path, optional=True)
    for option in (*_BERT_OPTIONS, "add_prefix_space"):
        value, may_be_null = options.get(option, False), option == "strip_accents"
        if type(value) is not bool and not (value is None and may_be_null):
            expected = "true, false or null" if may_be_null else "true or false"
            raise TokenizerError(f"{path}: {option}: expected {expected}, found {short_repr(value)}")
    return options


def _apply_bert_options(tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    """Override the normalizer of tokenizer.json by tokenizer_config.json, as transformers does for BertTokenizer.

    A missing option overrides too: transformers then uses its default instead of the value in tokenizer.json.
    """
    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        for option, (name, default) in _BERT_OPTIONS.items():
            setattr(tokenizer.normalizer, name, options.get(option, default))

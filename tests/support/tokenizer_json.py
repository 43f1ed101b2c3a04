"""Contents of a tokenizer.json: a BERT tokenizer of six tokens, honest tokenizers of other families, broken parts."""

import base64
import json
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from minilm_np.text.tokenizer_files import bert_tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]
BERT: dict[str, Any] = json.loads(bert_tokenizer(VOCABULARY).to_str())
IDS = {token: number for number, token in enumerate(VOCABULARY)}
CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}


def template(single: list[Any], **tokens: list[int]) -> dict[str, Any]:
    """A post-processor; tokens: the ids of each special token."""
    special = {f"[{name}]": {"id": f"[{name}]", "ids": ids, "tokens": [f"[{name}]"]} for name, ids in tokens.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


def normalizer(*steps: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json with these steps as its normalizer."""
    return BERT | {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def replace(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def character_map(character: str, value: int, replacements: bytes) -> dict[str, Any]:
    """A precompiled character map with one key, whose replacement begins at `value`, in SentencePiece's format.

    The trie is an array of units: a label, an offset to the next units, a flag for a leaf, which holds the value.
    """
    units = [0] * 4096
    position, parent = 0, 0
    for number, byte in enumerate(character.encode(), 1):
        base = 256 * number
        units[parent] |= (position ^ base) << 10
        parent = position = base ^ byte
        units[parent] = byte
    units[parent] |= (position ^ 2048) << 10 | 1 << 8
    units[2048] = 1 << 31 | value
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    raw = len(trie).to_bytes(4, "little") + trie + replacements
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}


def _with_specials(tokenizer: Tokenizer, first: str, last: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    return tokenizer


def xlm_roberta() -> Tokenizer:
    """SentencePiece's Unigram, as transformers converts it for the multilingual models."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0), ("fi", -3.0)]
    pieces += [(letter, -4.0) for letter in "abfi"]
    tokenizer = Tokenizer(models.Unigram(pieces, 3, False))
    charsmap = base64.b64decode(character_map("ﬁ", 0, b"fi\0")["precompiled_charsmap"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    return _with_specials(tokenizer, "<s>", "</s>")


def roberta() -> Tokenizer:
    """Byte-level BPE."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet, "ab", "Ġa"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("a", "b"), ("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def albert() -> Tokenizer:
    """Unigram with replacements of quotes, decomposition, lower case."""
    tokenizer = xlm_roberta()
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("``", '"'),
            normalizers.Replace("''", '"'),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    return tokenizer


def words() -> Tokenizer:
    """WordLevel, with a normalizer that a user may write."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"[\n\r\t]"), " "),
            normalizers.Replace("ё", "е"),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"), pre_tokenizers.Whitespace(), pre_tokenizers.Digits()]
    )
    return _with_specials(tokenizer, "[CLS]", "[SEP]")


HONEST = {"XLM-R": xlm_roberta, "RoBERTa": roberta, "ALBERT": albert, "words": words}

"""tokenizer.json files of strangers: honest families load with the ids of `tokenizers`, everything else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from minilm_np import InputValueError, ModelConfig, SentenceEncoder, TokenizerError
from minilm_np.engine.registry import BACKENDS
from minilm_np.model_files.random_weights import random_weights
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import load_tokenizer
from tests.support.tokenizer_json import (
    BERT,
    CLS,
    HONEST,
    IDS,
    TEXT,
    VOCABULARY,
    character_map,
    normalizer,
    replace,
    split,
    template,
)
from tests.support.tokenizer_texts import SPECIMENS, TYPED

CONFIG = ModelConfig(
    vocab_size=300, max_position_embeddings=64, max_seq_length=64, hidden_size=8, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=8,
)  # fmt: skip
TEXTS = ["", "a b", "ﬁ  ab\n\tfi 12", "``x'' é ё 中文", " ".join(SPECIMENS), "".join(TYPED), "a" * 3000]
UNKNOWN = "model: expected a token for unknown words, unk_token or unk_id, in the vocabulary: "


def load(folder: Path, content: dict[str, Any]) -> TextTokenizer:
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return load_tokenizer(folder, CONFIG)


@pytest.mark.parametrize("family", HONEST)
def test_honest_tokenizers_have_their_ids(tmp_path: Path, family: str) -> None:
    expected = HONEST[family]()
    found = load(tmp_path, json.loads(expected.to_str()))(TEXTS).ids
    expected.enable_truncation(CONFIG.max_seq_length)
    assert found == [encoding.ids for encoding in expected.encode_batch(TEXTS)]


def test_a_character_map_is_used(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, normalizer(character_map("é", 2, b"x\0b\0")))
    assert tokenizer(["é", "aé"]).ids == [tokenizer(["b"]).ids[0], tokenizer(["ab"]).ids[0]]


def _model(**changes: Any) -> dict[str, Any]:
    return BERT | {"model": BERT["model"] | changes}


def _unigram(**changes: Any) -> dict[str, Any]:
    pieces = [[token, -1.0] for token in VOCABULARY]
    return BERT | {"model": {"type": "Unigram", "unk_id": 1, "vocab": pieces, "byte_fallback": False} | changes}


def _bpe(**changes: Any) -> dict[str, Any]:
    return BERT | {"model": {"type": "BPE", "unk_token": "[UNK]", "vocab": IDS, "merges": []} | changes}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # components that make `tokenizers` panic, when the file is read or when a text is encoded
    "a template without its token": (
        BERT | {"post_processor": template([CLS, TEXT])},
        r"post_processor TemplateProcessing: single: the token '\[CLS\]' is missing in special_tokens",
    ),
    "a template of a second text": (
        BERT | {"post_processor": template([{"Sequence": {"id": "B", "type_id": 0}}])},
        r"single: expected the text, \$A, once, found \$B",
    ),
    "a template without a text": (BERT | {"post_processor": template([])}, "once, found no text"),
    "no character map": (normalizer({"type": "Precompiled", "precompiled_charsmap": ""}), "cannot be loaded by"),
    "a character map without a trie": (
        normalizer({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}),
        "cannot be loaded by `tokenizers`: index out of bounds",
    ),
    "pieces of length 0": (
        BERT | {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        "pre_tokenizer 'FixedLength' is not supported: expected one of 'BertPreTokenizer', ",
    ),
    # components that take exponential time or memory
    "a split by nested repetitions": (
        BERT | {"pre_tokenizer": split("(a+)+$")},
        r"pre_tokenizer Split: the regular expression '\(a\+\)\+\$' is not supported: expected one character or set",
    ),
    "a replacement by alternatives": (normalizer(replace(" ", Regex="(a|a)*$")), "the regular expression"),
    "a replacement of nothing": (normalizer(replace("", Regex="a*")), r"the regular expression 'a\*' is not supported"),
    "32 replacements that double": (
        normalizer(*[replace("aa", String="a")] * 32),
        "normalizer Replace: expected a content that is not longer than its pattern, found 'aa' for 'a'",
    ),
    "a replacement that grows later": (
        normalizer(replace("\ufdfa", String="a"), {"type": "NFKC"}),
        "a content that is not longer",
    ),
    "a replacement of the empty text": (normalizer(replace("x", String="")), "a content that is not longer"),
    "bytes of bytes": (normalizer(*[{"type": "ByteLevel"}] * 32), "normalizer: expected one ByteLevel, found several"),
    "a long prefix": (
        normalizer({"type": "Prepend", "prepend": "a" * 10**6}),
        "expected at most 100 .*, found 1000000",
    ),
    "a map to long texts": (
        normalizer(character_map("a", 0, b"b" * 10**6 + b"\0")),
        "normalizer Precompiled: precompiled_charsmap: expected replacements of at most 100 bytes, found 1000000",
    ),
    "the text twice": (BERT | {"post_processor": template([TEXT, TEXT])}, r"once, found \$A and \$A"),
    "101 steps": (normalizer(*[replace("b", String="a")] * 101), "expected at most 100 components, found 101"),
    "words without a limit": (
        _model(max_input_chars_per_word=10**9),
        "model: max_input_chars_per_word: expected at most 1000, found 1000000000",
    ),
    # ids that are random, or that the model does not have
    "dropout": (_bpe(dropout=0.5), "model: dropout: expected null, found 0.5: it makes ids random"),
    "a special token's id": (
        BERT | {"post_processor": template([CLS, TEXT], CLS=[999_999])},
        "has token ids up to 999999, but the model only up to 299: use the tokenizer and the weights of one model",
    ),
    # an error at the first unknown word
    "Unigram without unk_id": (_unigram(unk_id=None), UNKNOWN + "Encountered an unknown token but `unk_id` is missing"),
    "Unigram without pieces": (_unigram(unk_id=None, vocab=[]), UNKNOWN),
    "Unigram without bytes": (_unigram(unk_id=None, byte_fallback=True), UNKNOWN),
    "WordPiece without unk_token": (_model(unk_token="<unk>"), UNKNOWN + "WordPiece error: Missing"),
    "WordLevel without unk_token": (
        BERT | {"model": {"type": "WordLevel", "vocab": IDS, "unk_token": "<unk>"}},
        UNKNOWN + "WordLevel error: Missing",
    ),
    "BPE without unk_token": (_bpe(unk_token="<unk>"), UNKNOWN + "Unk token `<unk>` not found"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_tokenizers_are_refused_by_file_and_component(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(TokenizerError, match=message) as caught:
        load(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'tokenizer.json'}")


def test_a_panic_at_a_text_names_the_file(tmp_path: Path) -> None:
    """What cannot be found when the file is read: here the trie points beyond the replacements."""
    tokenizer = load(tmp_path, normalizer(character_map("é", 10**6, b"b\0")))
    assert tokenizer(["a b"]).n_tokens == [4]
    for call in (lambda: tokenizer(["a é"]), lambda: list(tokenizer.encodings("a é"))):
        with pytest.raises(TokenizerError, match=r"tokenizer\.json fails on a text: "):
            call()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_text_without_tokens_has_no_vector(tmp_path: Path, backend: str) -> None:
    tokenizer = load(tmp_path, BERT | {"post_processor": None})
    encoder = SentenceEncoder.from_weights(CONFIG, tokenizer, random_weights(CONFIG, 0), backend=backend)
    assert encoder.encode(["a", "b"]).shape == (2, 8)
    message = r"^text 1: expected at least one token, found none; .*tokenizer\.json adds no special tokens to a text"
    for call in (encoder.encode, encoder.encode_long, encoder.trace, lambda texts: list(encoder.encode_iter(texts, 1))):
        with pytest.raises(InputValueError, match=message):
            call(["a", " "])
    with pytest.raises(InputValueError, match=message):
        encoder.encode(["a", ""], output_value="token_embeddings")
    if encoder.contract is not None:
        assert encoder.fingerprint() != encoder.fingerprint(["a", " "]) == encoder.fingerprint(["a"])

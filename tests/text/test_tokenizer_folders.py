"""Tokenizer files are read as transformers reads them, or refused."""

import json
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, processors

import minilm_np.text.tokenizer as tokenizer_module
from minilm_np import ModelConfig, SentenceEncoder, TokenizerError
from minilm_np._forks import no_fork
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer, load_tokenizer
from tests.conftest import load_sentence_transformer
from tests.support.tokenizer_texts import SPECIMENS, TYPED, mixed_texts

LETTERS = ["a", "b", "e", "é", "o", "ö", "A", "B", "E", "É", "Ö", "ς", "σ", "中", "1", "."]
CASED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
CASED_TEXTS = ["a B É", "AbÉö", "ÖE\u0301 中a", "o\u0308", "ΣΑ Aς", "[SEP] A [MASK]b", "ABC.É1", "", "İ"]
CONFIG = ModelConfig(vocab_size=len(CASED), max_position_embeddings=16, max_seq_length=16)


def write_folder(folder: Path, options: dict[str, Any] | None, normalizer: dict[str, Any] | None = None) -> Path:
    """A folder with CASED as its vocabulary; normalizer: what tokenizer.json says of it."""
    tokenizer = bert_tokenizer(CASED)
    for name, value in (normalizer or {}).items():
        setattr(tokenizer.normalizer, name, value)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=5)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if options is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(options))
    return folder


def by_transformers(folder: Path) -> list[list[int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        found: list[list[int]] = tokenizer(CASED_TEXTS, truncation=True, max_length=16)["input_ids"]
        return found


BERT_CLASS = {"tokenizer_class": "BertTokenizer"}
LOWER, UPPER = {"lowercase": True}, {"lowercase": False}


@pytest.mark.parametrize("normalizer", [LOWER, UPPER, UPPER | {"strip_accents": True}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        BERT_CLASS,
        BERT_CLASS | {"do_lower_case": True},
        BERT_CLASS | {"do_lower_case": False},
        BERT_CLASS | {"do_lower_case": False, "strip_accents": True},
        BERT_CLASS | {"strip_accents": False},
        BERT_CLASS | {"strip_accents": None, "tokenize_chinese_chars": False},
        {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False},
        {"do_lower_case": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
    ],
    ids=str,
)
def test_tokenizer_config_overrules_tokenizer_json_as_in_transformers(
    tmp_path: Path, options: dict[str, Any] | None, normalizer: dict[str, Any]
) -> None:
    folder = write_folder(tmp_path, options, normalizer)
    assert load_tokenizer(folder, CONFIG)(CASED_TEXTS).ids == by_transformers(folder)


def test_the_options_make_a_difference(tmp_path: Path) -> None:
    cased = write_folder(tmp_path / "cased", BERT_CLASS | {"do_lower_case": False})
    lower = write_folder(tmp_path / "lower", BERT_CLASS | {"do_lower_case": True})
    assert load_tokenizer(cased, CONFIG)(CASED_TEXTS) != load_tokenizer(lower, CONFIG)(CASED_TEXTS)


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}, {"strip_accents": False}], ids=str)
def test_a_folder_with_vocab_txt_alone_is_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    both = write_folder(tmp_path / "json", BERT_CLASS | options)
    alone = write_folder(tmp_path / "vocab", BERT_CLASS | options)
    (alone / "tokenizer.json").unlink()
    expected = load_tokenizer(both, CONFIG)(CASED_TEXTS)
    for end in ("\n", "\r\n"):
        (alone / "vocab.txt").write_bytes((end.join(CASED) + end).encode())
        assert load_tokenizer(alone, CONFIG)(CASED_TEXTS) == expected
    (alone / "vocab.txt").write_text("\n".join(CASED), encoding="utf-8")
    assert by_transformers(alone) == expected.ids


@pytest.mark.weights
def test_the_published_vocab_txt_alone_is_the_same(model_folder: Path, tmp_path: Path) -> None:
    if not (model_folder / "vocab.txt").exists():
        pytest.skip("a Hugging Face cache need not hold vocab.txt")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(model_folder / name, tmp_path)
    batch = [*SPECIMENS, *TYPED, *mixed_texts(2), "".join(SPECIMENS)]
    config = ModelConfig()
    assert load_tokenizer(tmp_path, config)(batch) == load_tokenizer(model_folder, config)(batch)


@pytest.mark.parametrize("lower_case", [True, False])
def test_lower_case_before_a_cased_tokenizer_is_that_of_sentence_transformers(tmp_path: Path, lower_case: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertModel

        sizes: dict[str, Any] = {
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 8,
        }
        bert = BertConfig(vocab_size=len(CASED), max_position_embeddings=16, **sizes)
        BertModel(bert).save_pretrained(tmp_path)
    config_json = (tmp_path / "config.json").read_text()
    write_folder(tmp_path, BERT_CLASS | {"do_lower_case": False})
    (tmp_path / "config.json").write_text(config_json)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8}))
    names = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules: list[dict[str, Any]] = [
        {"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in names
    ]
    modules = [module | {"idx": number, "name": str(number)} for number, module in enumerate(modules)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    sentence = {"max_seq_length": 16, "do_lower_case": lower_case}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(sentence))

    oracle = load_sentence_transformer(tmp_path)
    batch = [*CASED_TEXTS, *SPECIMENS, "".join(SPECIMENS)]
    encoder = SentenceEncoder(tmp_path, backend="numpy")
    found = encoder.tokenizer(batch)
    assert found.ids == oracle.tokenizer(batch, truncation=True, max_length=16)["input_ids"]
    with mock.patch.object(tokenizer_module, "PIECE", 3):
        assert encoder.tokenizer(batch) == found
    assert (found.ids[0] == encoder.tokenizer(["a b é"]).ids[0]) == lower_case


def test_ids_that_the_model_does_not_embed_are_refused() -> None:
    config = ModelConfig(vocab_size=len(CHARACTER_VOCABULARY) - 1, max_seq_length=16)
    last = len(CHARACTER_VOCABULARY) - 1
    with pytest.raises(TokenizerError, match=rf"token ids up to {last}, but the model only up to {last - 1}: use"):
        TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"{}", b"[]", b"\xff\xfe", b'{"version": "9.9"}', b'{"model": {"type": "Magic"}}', b"[" * 100_000],
    ids=lambda raw: ascii(raw[:20]),
)
def test_a_broken_tokenizer_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(raw)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be loaded by `tokenizers`: "):
        load_tokenizer(tmp_path, CONFIG)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r": expected tokenizer\.json or vocab\.txt, found neither"):
        load_tokenizer(tmp_path, CONFIG)


@pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path: Path, token: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(word for word in CASED if word != token), encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"vocab\.txt has no \{token}"):
        load_tokenizer(tmp_path, CONFIG)


def test_a_vocabulary_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(TokenizerError, match=r"vocab\.txt: expected UTF-8: .*codec can't decode byte 0xff"):
        load_tokenizer(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_lower_case": "yes"}, r"tokenizer_config\.json: do_lower_case: expected true or false, found 'yes'"),
        ({"do_lower_case": None}, r"do_lower_case: expected true or false, found None"),
        ({"strip_accents": 1}, r"strip_accents: expected true, false or null, found 1"),
        ({"tokenize_chinese_chars": []}, r"tokenize_chinese_chars: expected true or false, found \[\]"),
        ({"truncation_side": "left"}, r"truncation_side 'left' is not implemented: expected 'right'"),
        ({"unk_token": "\ud800"}, r"tokenizer_config\.json: unk_token: expected valid Unicode"),
        ({"pad_token": {"content": "a\udfff"}}, r"tokenizer_config\.json: pad_token: expected valid Unicode"),
    ],
    ids=str,
)
def test_options_that_are_not_implemented_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(write_folder(tmp_path, options), CONFIG)


def test_a_tokenizer_json_that_cuts_on_the_left_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(write_folder(tmp_path, {}) / "tokenizer.json"))
    tokenizer.enable_truncation(16, direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="truncation_side 'left' is not implemented"):
        load_tokenizer(tmp_path, CONFIG)


def test_a_limit_without_room_for_the_special_tokens_is_refused() -> None:
    backend = bert_tokenizer(CASED)
    three = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] [CLS] $A [SEP]", special_tokens=three)
    with pytest.raises(
        TokenizerError,
        match=r"the tokenizer: expected at most 2 special tokens per text, the model's max_seq_length, found 3",
    ):
        TextTokenizer(backend, ModelConfig(vocab_size=len(CASED), max_seq_length=2))


@pytest.mark.parametrize("single", ["$A", "[CLS] $A", "$A [SEP] [SEP]", "[CLS] [CLS] $A [SEP]"])
def test_pieces_get_the_special_tokens_of_the_folder(single: str) -> None:
    backend = bert_tokenizer(CASED)
    specials = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=specials)
    tokenizer = TextTokenizer(backend, ModelConfig(vocab_size=len(CASED), max_seq_length=9))
    batch = ["", " ", "o", "a b e o", "a b e o a", "a b e o a b", "a b e o a b e o", "a b e o a b e o a", "a b " * 40]
    whole = tokenizer(batch)
    for piece in (1, 3, 15):
        with mock.patch.object(tokenizer_module, "PIECE", piece):
            assert tokenizer(batch) == whole


def test_a_folder_s_own_truncation_and_padding_are_not_used(tmp_path: Path) -> None:
    found = load_tokenizer(write_folder(tmp_path, {}), CONFIG)(["", "a b e o a b e o"])
    assert found.n_tokens == [2, 10]
    assert found.truncated == [False, False]


@pytest.mark.parametrize("change", ["an added token", "no BERT normalizer"])
def test_tokenizers_with_other_rules_are_not_cut_in_pieces(change: str) -> None:
    backend = bert_tokenizer(CASED)
    if change == "an added token":
        backend.add_tokens([AddedToken("a b", normalized=True)])
    else:
        backend.normalizer = normalizers.Sequence([normalizers.NFC()])
    text = "o a b e. " * 3
    expected = [backend.encode(text).ids]
    tokenizer = TextTokenizer(backend, ModelConfig(vocab_size=len(CASED) + 1, max_seq_length=256))
    with mock.patch.object(tokenizer_module, "PIECE", 1):
        assert tokenizer([text]).ids == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: load_tokenizer(write_folder(folder, None), CONFIG),
        lambda folder: SentenceEncoder.random(backend="numpy"),
    ],
    ids=["folder", "random"],
)
def test_a_fork_waits_until_the_tokenizer_is_made(make: Callable[[Path], object], tmp_path: Path) -> None:
    # In a child of a fork at the first object of a class of `tokenizers`, that class stays locked for ever.
    def another_thread_may_fork() -> bool:
        if free := no_fork.acquire(blocking=False):
            no_fork.release()
        return free

    may_fork = []

    def probe(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        with ThreadPoolExecutor(1) as other:
            may_fork.append(other.submit(another_thread_may_fork).result())
        return special_ids(tokenizer)

    special_ids = tokenizer_module._special_ids
    with mock.patch.object(tokenizer_module, "_special_ids", probe):
        make(tmp_path)
    assert may_fork == [False]

"""Tokenizer: ids are those of sentence-transformers for any text, in pieces or whole, and hostile texts cost little."""

import json
import pickle
import random
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, processors

import minilm_np.text.tokenizer as tokenizer_module
from minilm_np import InputTypeError, InputValueError, ModelConfig, SentenceEncoder, TokenizerError
from minilm_np.model_files.config import load_config
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, SMALL
from minilm_np.text.tokenizer import PIECE, TextTokenizer, bert_tokenizer, check_texts, load_tokenizer
from tests.conftest import load_sentence_transformer

CLS, SEP, UNK, MASK, PAD = 101, 102, 100, 103, 0  # of the published vocabulary

# every plane but the surrogates; then what a text is really made of, and what its rules are about
characters = st.characters(exclude_categories=["Cs"])
TYPED = ["[SEP]", "[PAD]", "[MASK]", "[CLS]", "[UNK]", "[SE", "[SEP", "SEP]", "[[SEP]]", "[sep]", "[CLS][SEP]", "##ing"]
SPECIMENS = [
    *(" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u200d", "\ufeff", "\u2028", "\u0085"),
    *("\x00", "\x07", "\x1b", "\x7f", "\ufffd", "\u00ad", "\ufe0f", "\U000e0041"),
    *("\u0301", "e\u0301", "a\u0323\u0301", "\u0345", "\u3099", "か\u3099", "\u20dd", "\u0338", "!\u0301", " \u0308"),
    *("中文", "漢字かな交じり", "\uf900", "\U00020000", "\U0002f800", "한국어", "각", "ᄒ", "ᅡ", "ᆫ"),
    *(
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "👍🏽",
        "🇩🇪",
        "שלום",
        "مرحبا",
        "\u202e",
        "ไทย",
        "हिन्दी",
        "ﬁ",
        "ß",
        "İ",
        "ſ",
        "Σς",
        "Ǆ",
        "½",
        "²",
    ),
    *("the", "Hello", "naïve", "unaffable", "embeddings", "1,000.50", "don't", "a-b", "https://x.org/?q=1&r=2", "..."),
    *("a" * 99, "a" * 100, "a" * 101, "€", "$", "^", "`", "~", "«", "„", "—", "·", ";", "¿", "٪", "。"),
]
fragments = st.sampled_from(TYPED + SPECIMENS)
texts = st.lists(fragments | st.text(characters, max_size=8), max_size=20).map("".join)
long_texts = st.lists(fragments | st.text(characters, max_size=12), min_size=10, max_size=60).map("".join)


def tiny() -> TextTokenizer:
    """The tokenizer over single characters; its limit is 128 tokens."""
    return TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), SMALL)


@pytest.fixture(scope="session")
def published_tokenizer(model_folder: Path) -> TextTokenizer:
    return load_tokenizer(model_folder, ModelConfig())


# ---- the ids of sentence-transformers --------------------------------------------------------------------------------


@pytest.mark.weights
@settings(max_examples=300)
@given(batch=st.lists(texts | st.text(characters, max_size=40), max_size=6))
def test_ids_are_those_of_sentence_transformers(
    published_tokenizer: TextTokenizer, sentence_transformer: Any, batch: list[str]
) -> None:
    expected = sentence_transformer.tokenizer(batch, truncation=True, max_length=256)["input_ids"] if batch else []
    assert published_tokenizer(batch).ids == expected


@pytest.mark.weights
@settings(max_examples=300)
@given(text=long_texts | texts, piece=st.sampled_from([1, 2, 5, 17, 64]))
def test_pieces_have_the_ids_of_the_whole_text(
    published_tokenizer: TextTokenizer, sentence_transformer: Any, text: str, piece: int
) -> None:
    oracle = sentence_transformer.tokenizer
    whole = oracle(text)["input_ids"]
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert "".join(published_tokenizer._pieces(text)) == text
        found = published_tokenizer([text])
    assert found.ids == [oracle(text, truncation=True, max_length=256)["input_ids"]]
    assert found.n_tokens == [min(len(whole), 256)]
    assert found.truncated == [len(whole) > 256]


@settings(max_examples=200)
@given(text=long_texts | texts, piece=st.sampled_from([1, 3, 17]), limit=st.integers(2, 40))
def test_pieces_are_cut_where_the_whole_text_is(text: str, piece: int, limit: int) -> None:
    config = ModelConfig(vocab_size=len(CHARACTER_VOCABULARY), max_seq_length=limit)
    tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
    whole = tokenizer([text])
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert tokenizer([text]) == whole
    assert len(whole.ids[0]) <= limit


def test_no_character_that_a_text_is_cut_before_changes_its_neighbours() -> None:
    """Every break, between every kind of neighbour: what stands before and after it is split as if alone."""
    tokenizer = bert_tokenizer(CHARACTER_VOCABULARY)
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer

    def words(text: str) -> list[str]:
        return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]

    every = (chr(code) for code in (*range(0x3500), *range(0xF800, 0x20400)) if not 0xD800 <= code < 0xE000)
    breaks = [character for character in every if tokenizer_module._breaks().match(character)]
    assert len(breaks) > 1000
    assert set(" \t\n!.[]中") - set(breaks) == {"中"}  # beyond the range that is gone through here
    for character in breaks:
        for before in ("a", "e\u0301", "ᄀ", "\u0345", "!", "\u200d"):
            for after in ("b", "\u0301x", "\u0338", "ᅡ", "!", "\ufe0f"):
                assert words(before + character + after) == words(before) + words(character + after)


@pytest.mark.weights
def test_typed_special_tokens_are_special_ids(published_tokenizer: TextTokenizer) -> None:
    found = published_tokenizer(["[SEP] [PAD][MASK][CLS] [UNK]", "[sep]"]).ids
    assert found[0] == [CLS, SEP, PAD, MASK, CLS, UNK, SEP]
    assert SEP not in found[1][1:-1]


@pytest.mark.weights
def test_a_word_of_more_than_100_characters_is_unknown(published_tokenizer: TextTokenizer) -> None:
    known, unknown, much_longer = published_tokenizer(["a" * 100, "a" * 101, "a" * 100_000]).ids
    assert UNK not in known
    assert unknown == much_longer == [CLS, UNK, SEP]


@pytest.mark.weights
@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000\u2028", "\x00\x07\x1b\x7f", "\u200b\u200d\u0301", " " * 10_000])
def test_a_text_of_nothing_is_cls_and_sep(published_tokenizer: TextTokenizer, text: str) -> None:
    found = published_tokenizer([text])
    assert (found.ids, found.n_tokens, found.truncated) == ([[CLS, SEP]], [2], [False])


def test_two_texts_are_two_texts_and_no_pair() -> None:
    tokenizer = tiny()
    assert tokenizer(["ab", "c"]).ids == [*tokenizer(["ab"]).ids, *tokenizer(["c"]).ids]


def test_no_texts_have_no_ids() -> None:
    found = tiny()([])
    assert (found.ids, found.n_tokens, found.truncated) == ([], [], [])


# ---- where a text is cut ---------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize("limit", [128, 256])
@pytest.mark.parametrize("separator", [" ", " " * 100], ids=["short", "in pieces"])
def test_a_text_is_cut_at_the_folder_s_limit(model_folder: Path, tmp_path: Path, limit: int, separator: str) -> None:
    for path in model_folder.rglob("*.json"):
        target = tmp_path / path.relative_to(model_folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    tokenizer = load_tokenizer(tmp_path, load_config(tmp_path))
    just, over, far_over = (separator.join(["the"] * words) for words in (limit - 2, limit - 1, 10 * limit))
    assert len(over) > PIECE or separator == " "
    assert len(far_over) > PIECE
    found = tokenizer([just, over, far_over])
    assert found.n_tokens == [limit, limit, limit]
    assert found.truncated == [False, True, True]
    assert found.ids[0] == found.ids[1] == found.ids[2]


@pytest.mark.parametrize("piece", [PIECE, 3])
@pytest.mark.parametrize("limit", [2, 3, 4])
def test_the_smallest_limits(limit: int, piece: int) -> None:
    config = ModelConfig(vocab_size=len(CHARACTER_VOCABULARY), max_seq_length=limit)
    tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        found = tokenizer(["", "a", "a b c d e f g h", "     "])
    assert found.n_tokens == [2, min(limit, 3), limit, 2]
    assert found.truncated == [False, limit == 2, True, False]
    assert all(ids[0] == found.ids[0][0] and ids[-1] == found.ids[0][1] for ids in found.ids)


# ---- hostile texts ---------------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize("character", [" ", "\n", "\u0301", "\x00", "\u200d"], ids=ascii)
def test_two_words_after_much_nothing_are_found(published_tokenizer: TextTokenizer, character: str) -> None:
    found = published_tokenizer([character * 300_000 + "hello world", "hello world"])
    assert found.ids[0] == found.ids[1]
    assert found.truncated == [False, False]


_MEASURED = """
import sys
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, SMALL
from minilm_np.text.tokenizer import TextTokenizer, bert_tokenizer
from tests.support.memory import peak_memory

tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), SMALL)
tokenizer(["a b", "a " * 5000])
before = peak_memory()
text = eval(sys.argv[1])
found = tokenizer([text])
after = peak_memory()
print(found.n_tokens[0], found.truncated[0], (after - before) // 1_000_000)
"""


@pytest.mark.parametrize("text", ["'!' * 2_000_000", "'a ' * 1_000_000", "'[SEP]' * 400_000", "'中' * 2_000_000"])
def test_megabytes_take_little_memory(text: str) -> None:
    found = subprocess.run([sys.executable, "-c", _MEASURED, text], capture_output=True, text=True, check=True)
    n_tokens, truncated, megabytes = found.stdout.split()
    assert (n_tokens, truncated) == ("128", "True")
    assert int(megabytes) < 100


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (["\ud800"], r"text 0: the lone surrogate U\+D800 at character 0 is not Unicode text"),
        (["a", "b", "long enough \udcff"], r"text 2: the lone surrogate U\+DCFF at character 12 "),
        (["a", "\ude00\ud83d"], r"text 1: the lone surrogate U\+DE00 at character 0"),
    ],
    ids=["alone", "later", "the wrong way round"],
)
def test_lone_surrogates_are_refused_by_place(batch: list[str], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        check_texts(batch)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("one text", "expected a str or a sequence of str, found str"),
        (b"bytes", "expected a str or a sequence of str, found bytes"),
        ({"a": 1}, "found dict"),
        (None, "found NoneType"),
        (3, "found int"),
        (["a", None], "text 1: expected a str, found NoneType 'None'"),
        (["a", b"b"], "text 1: expected a str, found bytes .*: decode it first"),
        ([["a", "b"]], "text 0: expected a str, found list"),
        (["a", float("nan")], "text 1: expected a str, found float 'nan'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ascii(value),
)
def test_what_is_no_text_is_refused(batch: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        check_texts(batch)


def test_any_iterable_of_texts_will_do() -> None:
    assert check_texts(iter(["a", "b"])) == check_texts(("a", "b")) == ["a", "b"]


# ---- one tokenizer, many users ---------------------------------------------------------------------------------------


def _mixed(seed: int) -> list[str]:
    """Texts of 0 to 20,000 characters, no two alike."""
    generator = random.Random(seed)
    lengths = [0, 1, 10, 100, PIECE - 1, PIECE, PIECE + 1, 20_000] * 2
    generator.shuffle(lengths)
    return ["".join(generator.choices("abc def.!", k=length)) for length in lengths]


def test_short_and_long_texts_keep_their_order() -> None:
    tokenizer, batch = tiny(), _mixed(0)
    found = tokenizer(batch)
    alone = [tokenizer([text]) for text in batch]
    assert found.ids == [one.ids[0] for one in alone]
    assert found.truncated == [one.truncated[0] for one in alone]
    assert found.truncated == [len(text) >= PIECE - 1 for text in batch]


def test_eight_threads_share_one_tokenizer() -> None:
    tokenizer = tiny()
    batches = [_mixed(seed) for seed in range(32)]
    expected = [tokenizer(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer, batches * 2)) == expected * 2


def test_a_pickled_tokenizer_is_the_same() -> None:
    tokenizer, batch = tiny(), _mixed(1)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again(batch) == tokenizer(batch)
    assert again.pad_id == tokenizer.pad_id


# ---- folders ---------------------------------------------------------------------------------------------------------

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
    batch = [*SPECIMENS, *TYPED, *_mixed(2), "".join(SPECIMENS)]
    config = ModelConfig()
    assert load_tokenizer(tmp_path, config)(batch) == load_tokenizer(model_folder, config)(batch)


@pytest.mark.parametrize("lower_case", [True, False])
def test_lower_case_before_a_cased_tokenizer_is_that_of_sentence_transformers(tmp_path: Path, lower_case: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        bert = BertConfig(vocab_size=len(CASED), max_position_embeddings=16, **sizes)
        BertModel(bert).save_pretrained(tmp_path)
    config_json = (tmp_path / "config.json").read_text()
    write_folder(tmp_path, BERT_CLASS | {"do_lower_case": False})
    (tmp_path / "config.json").write_text(config_json)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8}))
    names = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in names]
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
    with pytest.raises(TokenizerError, match=rf"token ids up to {last}, the model embeds {last} \(ids from 0\)"):
        TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"{}", b"[]", b"\xff\xfe", b'{"version": "9.9"}', b'{"model": {"type": "Magic"}}', b"[" * 100_000],
    ids=lambda raw: ascii(raw[:20]),
)
def test_a_broken_tokenizer_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(raw)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a tokenizer that `tokenizers` can load: "):
        load_tokenizer(tmp_path, CONFIG)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has neither tokenizer\.json nor vocab\.txt"):
        load_tokenizer(tmp_path, CONFIG)


@pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path: Path, token: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(word for word in CASED if word != token), encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"the vocabulary lacks \{token}"):
        load_tokenizer(tmp_path, CONFIG)


def test_a_vocabulary_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(TokenizerError, match=r"vocab\.txt is not a tokenizer .*codec can't decode byte 0xff"):
        load_tokenizer(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_lower_case": "yes"}, r"tokenizer_config\.json: do_lower_case: expected true or false, found 'yes'"),
        ({"do_lower_case": None}, r"do_lower_case: expected true or false, found None"),
        ({"strip_accents": 1}, r"strip_accents: expected true, false or null, found 1"),
        ({"tokenize_chinese_chars": []}, r"tokenize_chinese_chars: expected true or false, found \[\]"),
        ({"truncation_side": "left"}, r"a truncation_side of 'left' is not implemented: expected 'right'"),
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
    with pytest.raises(TokenizerError, match="a truncation_side of 'left' is not implemented"):
        load_tokenizer(tmp_path, CONFIG)


def test_a_limit_without_room_for_the_special_tokens_is_refused() -> None:
    backend = bert_tokenizer(CASED)
    three = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] [CLS] $A [SEP]", special_tokens=three)
    with pytest.raises(TokenizerError, match="max_seq_length 2 has no room for the 3 special tokens"):
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

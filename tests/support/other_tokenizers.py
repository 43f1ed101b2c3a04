"""Tokenizers of the families beside BERT, trained on a few sentences: XLM-R, RoBERTa, MPNet."""

import base64
import functools
from collections.abc import Callable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.support.tokenizer_json import character_map

SENTENCES = [
    "The cat sat on the mat. It's so sunny outside! He drove to the stadium.",
    "Die Katze sitzt auf der Matte. Heute scheint draußen die Sonne; er fuhr zum Stadion.",
    "El gato está en la alfombra. ¿Dónde está mi paquete? Olvidé mi contraseña.",
    "東京は大きい。猫がいる。今日は天気がいい。駅まで歩く。",
    "हिन्दी में एक वाक्य। สวัสดี ชาวโลก. Привет, мир! مرحبا بالعالم. 한국어 문장입니다.",
    "query: how do I reset my password? passage: 1,000.50 a-b https://x.org/?q=1&r=2 ...",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def trained_unigram() -> Tokenizer:
    """XLM-R's tokenizer as transformers builds it, with a small vocabulary and a small precompiled character map."""
    return Tokenizer.from_str(_unigram())


@functools.cache
def _unigram() -> str:
    tokenizer = Tokenizer(models.Unigram())
    charsmap = base64.b64decode(character_map("ﬁ", 0, b"fi\0")["precompiled_charsmap"])
    tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(vocab_size=250, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    return _between(tokenizer, "<s>", "</s>").to_str()


def metaspace_only() -> Tokenizer:
    """Unigram as in older conversions: Metaspace alone, runs of spaces collapsed by the normalizer."""
    tokenizer = trained_unigram()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def albert_like() -> Tokenizer:
    """Unigram with replaced quotes, decomposition, stripped accents and lower case."""
    tokenizer = trained_unigram()
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    steps += [normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def trained_roberta(*, add_prefix_space: bool = False) -> Tokenizer:
    """RoBERTa's byte-level BPE."""
    tokenizer = Tokenizer.from_str(_roberta())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    return tokenizer


@functools.cache
def _roberta() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer.to_str()


def trained_mpnet() -> Tokenizer:
    """MPNet's WordPiece: BERT's normalizer, <s> and </s>, and a <mask> that takes the space before it."""
    return Tokenizer.from_str(_mpnet())


@functools.cache
def _mpnet() -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*SPECIAL, "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer.to_str()


def _between(tokenizer: Tokenizer, first: str, last: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)]
    )
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "XLM-R": trained_unigram,
    "Metaspace only": metaspace_only,
    "ALBERT": albert_like,
    "RoBERTa": trained_roberta,
    "RoBERTa with add_prefix_space": lambda: trained_roberta(add_prefix_space=True),
    "MPNet": trained_mpnet,
}

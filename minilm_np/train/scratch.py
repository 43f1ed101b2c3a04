"""A model to train from nothing: a WordPiece vocabulary of the data's own texts, and random weights."""

import dataclasses
from collections.abc import Iterable

from tokenizers import Tokenizer, models, trainers

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.errors import InputValueError
from minilm_np.model_files.random_weights import random_weights
from minilm_np.text.tokenizer import TextTokenizer, bert_tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def new_encoder(texts: Iterable[str], config: ModelConfig, seed: int = 0, backend: str = "numba") -> SentenceEncoder:
    """An encoder of this config, with a vocabulary learned from texts, and weights drawn by seed.

    config: its vocab_size is how many word pieces are wanted; the encoder's is how many the texts gave.
    Raises InputValueError: the texts have too few different pieces to make a vocabulary of.
    """
    vocabulary = learn_vocabulary(texts, config.vocab_size, config.do_lower_case)
    config = dataclasses.replace(config, vocab_size=len(vocabulary))
    tokenizer = TextTokenizer(bert_tokenizer(vocabulary), config)
    return SentenceEncoder.from_weights(config, tokenizer, random_weights(config, seed), backend=backend)


def learn_vocabulary(texts: Iterable[str], size: int, lower_case: bool = True) -> list[str]:
    """`size` word pieces at most, the special tokens first, by the `tokenizers` library's WordPiece trainer.

    (Every character gets one, so texts of more than `size` characters have more.) The same texts give the same
    vocabulary. The trainer alone does not: it numbers the pieces of one character that go on with a word ("##a") as a
    hash table has them, and those numbers decide between equally frequent pairs. So they are given to it in order,
    where it takes special tokens. The texts are held in memory meanwhile.
    """
    texts = list(texts)
    bert = bert_tokenizer([*SPECIAL_TOKENS], {"do_lower_case": lower_case})
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # that takes a "[SEP]" in a text for characters
    tokenizer.normalizer, tokenizer.pre_tokenizer = bert.normalizer, bert.pre_tokenizer
    first = [*SPECIAL_TOKENS, *(f"##{character}" for character in _characters_in_words(tokenizer, texts))]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    pieces = tokenizer.get_vocab()
    if len(pieces) <= len(SPECIAL_TOKENS):
        raise InputValueError("the texts have no words to make a vocabulary of")
    return sorted(pieces, key=pieces.__getitem__)


def _characters_in_words(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The characters that a word has anywhere but at its start, sorted."""
    found: set[str] = set()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            found.update(word[1:])
    return sorted(found)

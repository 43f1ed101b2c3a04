"""A new model to train from scratch: a WordPiece vocabulary learned from texts, and random weights."""

import dataclasses
from collections.abc import Iterable

from tokenizers import Tokenizer, models, trainers

from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.random_weights import random_weights
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def new_encoder(texts: Iterable[str], config: ModelConfig, seed: int = 0, backend: str = "numba") -> SentenceEncoder:
    """A new encoder with this configuration, a vocabulary learned from texts, and random weights.

    config: its vocab_size is the most word pieces to learn; that of the encoder is their actual number.
    seed: of the random weights.
    Raises InputValueError if the texts contain no words.
    """
    vocabulary = learn_vocabulary(texts, config.vocab_size, config.do_lower_case)
    config = dataclasses.replace(config, vocab_size=len(vocabulary))
    tokenizer = TextTokenizer(bert_tokenizer(vocabulary), config)
    return SentenceEncoder.from_weights(config, tokenizer, random_weights(config, seed), backend=backend)


def learn_vocabulary(texts: Iterable[str], size: int, lower_case: bool = True) -> list[str]:
    """Learn at most `size` word pieces with the WordPiece trainer of `tokenizers`. Special tokens come first.

    (Each character is a piece, so texts with more than `size` different characters give more pieces.) The same texts
    always give the same vocabulary. The trainer alone does not ensure that: it numbers the one-character pieces inside
    words ("##a") in the order of a hash table, and these numbers decide between pairs of equal frequency. So this
    function passes those pieces in sorted order, as if they were special tokens.

    The texts are held in memory during training. Raises InputValueError if they contain no words.
    """
    texts = list(texts)
    bert = bert_tokenizer([*SPECIAL_TOKENS], {"do_lower_case": lower_case})
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # here "[SEP]" in a text is characters
    tokenizer.normalizer, tokenizer.pre_tokenizer = bert.normalizer, bert.pre_tokenizer
    first = [*SPECIAL_TOKENS, *(f"##{character}" for character in _characters_in_words(tokenizer, texts))]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    pieces = tokenizer.get_vocab()
    if len(pieces) <= len(SPECIAL_TOKENS):
        raise InputValueError("texts: expected words to learn a vocabulary from, found none")
    return sorted(pieces, key=pieces.__getitem__)


def _characters_in_words(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """All characters that occur inside a word, after its first character; sorted."""
    found: set[str] = set()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            found.update(word[1:])
    return sorted(found)

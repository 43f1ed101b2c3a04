"""Test the new models to train from scratch."""

import json
from pathlib import Path

import pytest

from minilm_np.errors import InputValueError
from minilm_np.train.scratch import SPECIAL_TOKENS, learn_vocabulary


def test_the_same_texts_give_the_same_vocabulary(pairs: Path) -> None:
    texts = [text for line in pairs.read_text().splitlines() for text in json.loads(line)]
    texts += ["[SEP] copy [MASK]"] * 3
    found = {tuple(learn_vocabulary(texts, 60)) for _ in range(20)}
    assert len(found) == 1
    vocabulary = found.pop()
    assert vocabulary[:5] == SPECIAL_TOKENS and len(vocabulary) == len(set(vocabulary)) == 60
    assert {"c", "o", "##o"} < set(vocabulary) and "##c" not in vocabulary  # no word has a c inside
    assert all(piece == piece.lower() for piece in vocabulary[5:])


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(InputValueError, match="texts: expected words to learn a vocabulary from, found none"):
        learn_vocabulary(["", " "], 60)

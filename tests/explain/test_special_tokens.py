"""The pages name the special tokens of the model's tokenizer, whatever their names are."""

import html
from dataclasses import replace

import pytest

from minilm_np import SentenceEncoder, explain
from minilm_np.model_files.random_weights import SMALL, random_weights
from minilm_np.text.tokenizer import TextTokenizer
from tests.support.other_tokenizers import trained_unigram

BERTS = ("[CLS]", "[SEP]", "[PAD]")


@pytest.fixture(scope="module")
def multilingual() -> SentenceEncoder:
    """BERT's encoder with XLM-R's tokenizer, as multilingual MiniLM has it."""
    tokenizer = trained_unigram()
    config = replace(SMALL, vocab_size=tokenizer.get_vocab_size(), pooling_mode="mean")
    weights = random_weights(config, 1)
    return SentenceEncoder.from_weights(config, TextTokenizer(tokenizer, config), weights, backend="numpy")


def prose(page: str) -> str:
    """The page without the code of `reference.py`, whose comments name BERT's tokens."""
    return html.unescape("".join(part.partition("</pre>")[2] or part for part in page.split("<pre")))


def test_the_page_of_a_text(multilingual: SentenceEncoder) -> None:
    page = prose(explain.text(multilingual, "The cat sat").page())
    assert "The mean of all token vectors, <s> and </s> included." in page
    assert "The mark ▁ in a piece stands for the space before a word." in page
    assert not [token for token in BERTS if token in page]


def test_the_page_of_two_texts(multilingual: SentenceEncoder) -> None:
    page = prose(explain.similarity(multilingual, "The cat", "sat").page())
    assert "starts as <pad> and moves" in page and "with <pad> only" in page
    assert "The tokenizer adds <s> and </s>; their gradients are 0" in page
    assert not [token for token in BERTS if token in page]


def test_berts_tokens_are_named_for_bert() -> None:
    encoder = SentenceEncoder.random(replace(SMALL, pooling_mode="cls"), backend="numpy")
    text, pair = explain.text(encoder, "ab").page(), explain.similarity(encoder, "ab", "c").page()
    assert "The vector of the first token, [CLS]." in text and "begins with ##" in text
    assert "starts as [PAD] and moves" in pair and "adds [CLS] and [SEP]; their" in pair

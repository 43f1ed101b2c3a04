"""Pairs of texts to token ids: as `tokenizers` itself makes them, for texts of any length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from minilm_np import ModelConfig, TokenizerError
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.text.pairs import PairTokenizer, longest_first
from minilm_np.text.tokenizer import PIECE, TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer

texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(["[SEP]", "a [CLS] b", "12.5%"])


def config(limit: int) -> ModelConfig:
    return ModelConfig(vocab_size=len(CHARACTER_VOCABULARY), max_position_embeddings=200, max_seq_length=limit)


def pair_tokenizer(limit: int, backend: Tokenizer | None = None) -> PairTokenizer:
    return PairTokenizer(TextTokenizer(backend or bert_tokenizer(CHARACTER_VOCABULARY), config(limit)))


def by_the_library(limit: int, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    tokenizer = bert_tokenizer(CHARACTER_VOCABULARY)
    tokenizer.enable_truncation(limit, strategy="longest_first")
    return [(found.ids, found.type_ids) for found in tokenizer.encode_batch(pairs)]


@given(st.lists(st.tuples(texts, texts), max_size=4), st.integers(3, 40))
def test_pairs_are_those_of_the_library(pairs: list[tuple[str, str]], limit: int) -> None:
    found = pair_tokenizer(limit)(pairs)
    assert list(zip(found.ids, found.token_type_ids, strict=True)) == by_the_library(limit, pairs)
    complete = by_the_library(10_000, pairs)
    assert found.truncated == [len(ids) > limit for ids, _ in complete]


@settings(max_examples=20)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(3, 50))
def test_the_longer_text_is_shortened_first(n_first: int, n_second: int, limit: int) -> None:
    pair = (" ".join("a" * n_first), " ".join("b" * n_second))
    found = pair_tokenizer(limit)([pair])
    assert list(zip(found.ids, found.token_type_ids, strict=True)) == by_the_library(limit, [pair])
    used = longest_first(n_first, n_second, limit - 3)
    types = found.token_type_ids[0]
    assert (types.count(0) - 2, types.count(1) - 1) == used


@pytest.mark.parametrize("limit", [20, 21])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_texts_longer_than_a_piece_are_cut_alike(limit: int, more: int) -> None:
    """Their exact lengths decide which of them gets an odd token."""
    pairs = [("a " * PIECE, "b " * (PIECE + more)), ("a " * PIECE, "b"), ("", "b " * PIECE), ("a " * 18, "b " * PIECE)]
    found = pair_tokenizer(limit)(pairs)
    short = [("a " * 300, "b " * (300 + more)), ("a " * 300, "b"), ("", "b " * 300), ("a " * 18, "b " * 300)]
    assert list(zip(found.ids, found.token_type_ids, strict=True)) == by_the_library(limit, short)
    assert found.truncated == [True] * 4


def test_a_long_query_is_read_to_its_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = pair_tokenizer(20)
    measured: list[str] = []

    def measure(text: str) -> tuple[int, int]:
        measured.append(text)
        return TextTokenizer.measure(tokenizer.texts, text)

    monkeypatch.setattr(tokenizer.texts, "measure", measure)
    query, documents = "a " * 300, [f"b {'c ' * (100 + number)}" for number in range(3)]
    tokenizer([(query, document) for document in documents])
    assert sorted(measured) == sorted([query, *documents])


def test_other_types_and_places_of_special_tokens_are_the_template_s() -> None:
    backend = bert_tokenizer(CHARACTER_VOCABULARY)
    specials = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]", "[MASK]")]
    backend.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A:0 [SEP]:1 [MASK]:0 $B:1", special_tokens=specials
    )
    found = pair_tokenizer(20, backend)([("ab", "c")])
    names = [CHARACTER_VOCABULARY[number] for number in found.ids[0]]
    assert names == ["a", "##b", "[SEP]", "[MASK]", "c"]
    assert found.token_type_ids == [[0, 0, 1, 0, 1]]


def test_a_tokenizer_without_a_template_for_pairs_is_refused() -> None:
    backend = bert_tokenizer(CHARACTER_VOCABULARY)
    backend.post_processor = None
    with pytest.raises(TokenizerError, match=r"expected a template for pairs of texts, .*, found none"):
        pair_tokenizer(20, backend)


def test_a_limit_below_the_special_tokens_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"expected at most 2 special tokens per pair, .*, found 3"):
        pair_tokenizer(2)

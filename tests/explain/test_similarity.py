"""The cosine of two texts is the sum of the contributions of their pairs of tokens, for every pooling and backend."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, SentenceEncoder, reference
from minilm_np.explain import Similarity, similarity
from minilm_np.explain.similarity import baseline_ids, pair_contributions
from minilm_np.model_files.config import POOLING_MODES, ModelConfig
from tests.support.compare import assert_close
from tests.support.models import living_weights

BOUND = 1e-6  # of the sum of the contributions against the cosine of `encode`
TEXTS = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "",
    "a",
    "[SEP] typed [PAD] by hand",
    "naïve 👍🏽 שלום",
)

encoder = SentenceEncoder.random(backend="numpy")
texts = st.text(max_size=40) | st.sampled_from(TEXTS)


def other_pooling(mode: str, normalize: bool = True) -> SentenceEncoder:
    config = replace(encoder.config, pooling_mode=mode, normalize=normalize)
    weights = {name: array.astype(np.float32) for name, array in living_weights(config, seed=1, scale=0.2).items()}
    return SentenceEncoder.from_weights(config, encoder.tokenizer, weights, backend="numpy")


others = {(mode, normalize): other_pooling(mode, normalize) for mode in POOLING_MODES for normalize in (True, False)}


def cosine_of_encode(model: SentenceEncoder, a: str, b: str) -> float:
    u, v = model.encode([a, b], normalize_embeddings=True).astype(np.float64)
    return float(u @ v)


def assert_adds_up(found: Similarity, model: SentenceEncoder, a: str, b: str) -> None:
    assert found.cosine == cosine_of_encode(model, a, b)
    assert found.contributions.shape == (len(found.a.tokens), len(found.b.tokens))
    assert found.contributions.dtype == np.float64
    assert abs(found.total - found.cosine) <= BOUND
    assert found.error == found.total - found.cosine
    for side in (found.a, found.b):
        assert side.attribution.values.shape == (len(side.tokens),)
        assert abs(side.attribution.residual) <= 1e-3


@given(texts, texts)
@settings(max_examples=12)
def test_the_contributions_of_drawn_texts_add_up_to_the_cosine(a: str, b: str) -> None:
    assert_adds_up(similarity(encoder, a, b), encoder, a, b)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9), st.lists(st.integers(0, 30), min_size=1, max_size=9),
       st.sampled_from(sorted(others)), st.sampled_from([0.0, 1e-3, 1.0, 30.0]), st.integers(0, 2**32 - 1))  # fmt: skip
@settings(max_examples=60)
def test_the_contributions_add_up_for_every_pooling(
    a: list[int], b: list[int], kind: tuple[str, bool], scale: float, seed: int
) -> None:
    model, generator = others[kind], np.random.default_rng(seed)
    weights = reference.nest(model.weights, np.float64)
    states = [reference.encoder(np.array(ids), None, None, weights, model.config) for ids in (a, b)]
    states = [x + scale * generator.normal(size=x.shape) for x in states]
    vectors = [reference.normalize(reference.pooling(x, None, model.config.pooling_mode)) for x in states]
    found = pair_contributions(states[0], states[1], model.config)
    assert found.shape == (len(a), len(b))
    assert_close(np.array(found.sum()), np.array(vectors[0] @ vectors[1]), abs_=1e-12)


@pytest.mark.parametrize("kind", sorted(others))
def test_every_pooling_through_the_public_call(kind: tuple[str, bool]) -> None:
    found = similarity(others[kind], "ab", "b c")
    assert found.pooling == kind[0]
    assert found.cosine == cosine_of_encode(others[kind], "ab", "b c")
    assert abs(found.error) <= BOUND
    if kind[0] == "cls":
        assert np.count_nonzero(found.contributions) == 1
        assert found.strongest(1)[0][:2] == (0, 0)


def test_contributions_equal_two_loops() -> None:
    generator = np.random.default_rng(1)
    x_a, x_b = generator.normal(size=(3, 8)), generator.normal(size=(4, 8))
    a, b = x_a.mean(axis=0), x_b.mean(axis=0)
    size = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
    expected = [[sum(x_a[i] * x_b[j]) / 12 / size for j in range(4)] for i in range(3)]
    assert_close(pair_contributions(x_a, x_b, ModelConfig()), np.array(expected), abs_=1e-14)


@pytest.mark.parametrize(("backend", "compute_type"), [("numba", "float32"), ("numba", "int8"), ("numba", "int16")])
def test_the_contributions_are_those_of_the_encoders_own_numbers(backend: str, compute_type: str) -> None:
    model = SentenceEncoder.random(backend=backend, compute_type=compute_type)
    found = similarity(model, "one text", "another")
    assert (found.backend, found.compute_type) == (backend, compute_type)
    assert found.cosine == cosine_of_encode(model, "one text", "another")
    assert abs(found.error) <= BOUND


def test_a_text_with_itself() -> None:
    found = similarity(encoder, "abc", "abc")
    assert abs(found.cosine - 1.0) <= 1e-6
    assert_close(found.contributions, found.contributions.T, abs_=1e-15)
    np.testing.assert_array_equal(found.a.attribution.values, found.b.attribution.values)


def test_exchanging_the_texts_exchanges_the_arrays() -> None:
    one, other = similarity(encoder, "abc d", "xy"), similarity(encoder, "xy", "abc d")
    assert_close(one.contributions, other.contributions.T, abs_=1e-7)
    assert_close(one.a.attribution.values, other.b.attribution.values, abs_=1e-12)


def test_strongest_pairs() -> None:
    found = similarity(encoder, "abc d", "xy")
    pairs = found.strongest(5)
    sizes = np.sort(np.abs(found.contributions), axis=None)[::-1][:5]
    assert [abs(pair.contribution) for pair in pairs] == sizes.tolist()
    assert all(found.contributions[pair.a, pair.b] == pair.contribution for pair in pairs)
    assert found.strongest(0) == []
    assert len(found.strongest(10**6)) == found.contributions.size
    with pytest.raises(InputValueError, match="n: expected"):
        found.strongest(-1)


def test_tokens_and_truncation() -> None:
    short = SentenceEncoder.random(replace(encoder.config, max_seq_length=12), backend="numpy")
    found = similarity(short, "ab", "z " * 500)
    assert found.a.tokens[0] == "[CLS]" and found.a.tokens[-1] == "[SEP]"
    assert not found.a.truncated and found.b.truncated
    assert len(found.b.ids) == short.max_seq_length == 12
    assert "Similarity('ab'" in repr(found)


def test_a_typed_sep_is_a_token_of_the_text() -> None:
    ids = np.array(encoder.tokenizer(["[SEP]a"]).ids[0])
    pad = encoder.tokenizer.pad_id
    assert baseline_ids(ids, encoder.tokenizer).tolist() == [ids[0], pad, pad, ids[-1]]


def test_what_is_not_a_text_is_refused() -> None:
    with pytest.raises(InputTypeError, match="text 1: expected a str"):
        similarity(encoder, "a", ["b"])  # type: ignore[arg-type]


@pytest.mark.weights
def test_the_published_model(published: SentenceEncoder) -> None:
    a, b = TEXTS[:2]
    found = similarity(published, a, b)
    assert_adds_up(found, published, a, b)
    assert round(found.cosine, 3) == 0.666
    strongest = found.strongest(1)[0]
    assert (found.a.tokens[strongest.a], found.b.tokens[strongest.b]) == ("weather", "sunny")
    assert int(found.a.attribution.values.argmax()) == found.a.tokens.index("weather")
    assert int(found.b.attribution.values.argmax()) == found.b.tokens.index("sunny")
    assert found.a.attribution.values[0] == found.a.attribution.values[-1] == 0.0  # [CLS] and [SEP] do not move

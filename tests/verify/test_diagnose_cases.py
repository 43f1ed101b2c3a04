"""Diagnose: deviations with a fitted number, layers, dimensions, what is near; and how much it computes."""

import dataclasses

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.evidence import gather
from minilm_np.verify.variations import LONGEST, Padding
from minilm_np.verify.varied_model import VariedModel
from tests.support.diagnose_models import CONFIG, SHORT, WORDS, by_torch, explaining, folder

DEEP = dataclasses.replace(CONFIG, num_hidden_layers=4)
FOX = ("jump over the lazy fox and run back to it " * 40).split()
# 20 texts of 3 to 60 tokens, not sorted; the last ones are longer than a batch's others
MANY = [" ".join(FOX[n : n + 1 + n * 7 % 13]) for n in range(20)]
ARTICLES = [*SHORT[:3], " ".join(FOX[:30]), " ".join(FOX[5:47]), " ".join(FOX[11:60])]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(folder(tmp_path_factory.mktemp("model"), CONFIG, 1), backend="numpy")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(folder(tmp_path_factory.mktemp("model"), DEEP, 3), backend="numpy")


@pytest.mark.parametrize(
    "name",
    [
        "padding to 96 counted in the mean",
        "padding to 77 attended to",
        "padding to multiples of 16 attended to and counted",
        "padding to the longest of each batch of 8 attended to",
        "padding to the longest of each batch of 8, longest texts first counted in the mean",
    ],
)
def test_the_length_of_padding_is_fitted(encoder: SentenceEncoder, name: str) -> None:
    diagnosis = diagnose(encoder, by_torch(encoder, MANY, name), MANY)
    assert explaining(diagnosis)[:1] == [{name}], diagnosis.sentence


@pytest.mark.parametrize(
    "name",
    [
        "windows of 100 tokens averaged, weighted",
        "windows of 62 tokens averaged",
        "windows of 126 tokens averaged, weighted, words kept whole",
        "windows of 64 tokens averaged, normalised",
    ],
)
def test_windows_are_fitted(encoder: SentenceEncoder, name: str) -> None:
    diagnosis = diagnose(encoder, by_torch(encoder, ARTICLES, name), ARTICLES)
    assert {name} in explaining(diagnosis), diagnosis.sentence


@pytest.mark.parametrize(
    "name", ["second-to-last layer", "mean of the last two layers", "mean of the last four layers", "tanh GELU"]
)
def test_layers(deep: SentenceEncoder, name: str) -> None:
    diagnosis = diagnose(deep, by_torch(deep, SHORT, name), SHORT)
    assert explaining(diagnosis) == [{name}], diagnosis.sentence


@pytest.mark.parametrize(
    "pair",
    [
        ("attention mask and token types swapped, attention to all alike", "padding to the longest text attended to"),
        ("prompt 'query: '", "max pooling"),
        ("token types of ones", "splitting at white space only"),
        ("vocabulary in alphabetical order", "no normalisation"),
    ],
    ids=" and ".join,
)
def test_pairs_of_new_kinds(encoder: SentenceEncoder, pair: tuple[str, str]) -> None:
    diagnosis = diagnose(encoder, by_torch(encoder, WORDS, *pair), WORDS)
    assert set(pair) in explaining(diagnosis), diagnosis.sentence


def test_dimensions_in_another_order(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, SHORT)
    diagnosis = diagnose(encoder, vectors[:, ::-1], SHORT)
    assert diagnosis.verdict == "reordered", diagnosis.sentence
    assert diagnosis.sentence.startswith("The numbers of each vector are reversed (counted from 0): number 0 is number")
    swapped = vectors.copy()
    swapped[:, [3, 5]] = swapped[:, [5, 3]]
    sentence = diagnose(encoder, swapped, SHORT).sentence
    assert sentence.endswith(": number 3 is number 5 of the model's; number 5 is number 3 of the model's."), sentence


def test_fewer_dimensions(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, SHORT)[:, :20]
    diagnosis = diagnose(encoder, vectors, SHORT)
    assert diagnosis.verdict == "explained" and "first 20 of the 32 numbers" in diagnosis.sentence
    assert diagnosis.sentence.endswith(", not scaled to unit length again.")
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert diagnose(encoder, scaled, SHORT).sentence.endswith(", scaled to unit length again.")
    assert diagnose(encoder, vectors[:, ::-1], SHORT).verdict == "unrelated"
    assert diagnose(encoder, np.full((len(SHORT), 20), 1e300), SHORT).verdict == "unrelated"  # without a warning


def test_vectors_stored_in_256_levels(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, MANY).astype(np.float64)
    low, high = vectors.min(), vectors.max()
    step = (high - low) / 255
    stored = np.rint((vectors - low) / step) * step + low
    diagnosis = diagnose(encoder, stored.astype(np.float32), MANY)
    assert diagnosis.verdict == "match" and "stored in 256 levels" in diagnosis.sentence, diagnosis.sentence


def test_what_comes_near_is_named_with_checks(encoder: SentenceEncoder) -> None:
    noise = np.random.default_rng(1).standard_normal((len(SHORT), 32)) * 1e-4
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT, "CLS pooling") + noise, SHORT)
    assert diagnosis.verdict == "unexplained" and len(diagnosis.findings) == 3
    errors = [finding.relative_error for finding in diagnosis.findings]
    assert errors == sorted(errors) and diagnosis.findings[0].deviations == ("CLS pooling",)
    assert any(check.startswith("Pooling: ") for check in diagnosis.tell_apart)


def test_how_much_is_computed(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token counts, not seconds: a match computes each text at most twice, a deviation is screened on few texts."""
    models: list[VariedModel] = []
    create = VariedModel.__init__

    def counted(self: VariedModel, *arguments: object) -> None:
        create(self, *arguments)  # type: ignore[arg-type]
        models.append(self)

    monkeypatch.setattr(VariedModel, "__init__", counted)
    n_tokens = sum(encoder.tokenizer(SHORT).n_tokens)
    assert diagnose(encoder, by_torch(encoder, SHORT), SHORT).matches
    assert models[-1].n_tokens <= 2 * n_tokens
    n_known = len(gather(encoder, encoder.encode(SHORT), SHORT).known)
    assert diagnose(encoder, by_torch(encoder, SHORT, "tanh GELU"), SHORT).verdict == "explained"
    assert models[-1].n_tokens <= 120 * n_known
    assert diagnose(encoder, by_torch(encoder, SHORT, "CLS pooling", "pre-norm"), SHORT).verdict == "explained"
    assert models[-1].n_tokens <= 400 * n_known


def test_padding_rules() -> None:
    own, characters = [3, 9, 5, 4, 7], [10, 50, 20, 30, 40]
    assert Padding().lengths(own, characters, 99) == own
    assert Padding("fixed", 6).lengths(own, characters, 99) == [6, 9, 6, 6, 7]
    assert Padding("multiple", 4).lengths(own, characters, 99) == [4, 12, 8, 4, 8]
    assert Padding("batch", 2).lengths(own, characters, 99) == [9, 9, 5, 5, 7]
    assert Padding("sorted batch", 2).lengths(own, characters, 99) == [3, 9, 5, 5, 9]
    assert LONGEST.lengths(own, characters, 8) == [8, 9, 8, 8, 8]


def test_the_engine_and_the_reference_agree(encoder: SentenceEncoder) -> None:
    """The screen takes hidden states from the encoder's kernels where it can."""
    model = VariedModel(encoder, SHORT)
    fast = model.vectors(model.base, range(len(SHORT)))
    exact = model.vectors(model.base, range(len(SHORT)), np.float64)
    np.testing.assert_allclose(fast, exact, atol=2e-6)
    assert model.n_tokens == 2 * sum(encoder.tokenizer(SHORT).n_tokens)

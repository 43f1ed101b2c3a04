"""Diagnose: each deviation that torch plants is named, pairs too, and nothing is named that is not there."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from minilm_np.verify.deviations import deviations
from minilm_np.verify.diagnose import diagnose
from tests.support.diagnose_models import CONFIG, LONG, SHORT, WORDS, by_torch, explaining, folder
from tests.support.torch_deviations import planted


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(folder(tmp_path_factory.mktemp("model"), CONFIG, 1), backend="numpy")


@pytest.mark.parametrize("name", [one.name for one in deviations(CONFIG)])
def test_every_deviation_is_named(encoder: SentenceEncoder, name: str) -> None:
    texts = LONG if name.startswith("truncation") else WORDS
    diagnosis = diagnose(encoder, by_torch(encoder, texts, name), texts)
    assert diagnosis.verdict == "explained", diagnosis.sentence
    assert explaining(diagnosis) == [{name}], diagnosis.sentence
    assert diagnosis.findings[0].kinds == (next(one.kind for one in deviations(CONFIG) if one.name == name),)


PAIRS = [
    ("truncation at 128", "tanh GELU"),
    ("CLS pooling", "no lower-casing"),
    ("max pooling", "LayerNorm eps 1e-5"),
    ("no normalisation", "weights rounded to float16"),
    ("padding to 128 attended to and counted", "truncation at 128"),
    ("pre-norm", "no token-type embedding"),
    ("positions off by two", "special tokens left out of the mean"),
    ("int8 weights per channel", "accents not stripped"),
    ("special tokens left out of the input", "no normalisation"),
    ("padding to the longest text counted in the mean", "weights rounded to bfloat16"),
]


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_every_pair_is_named(encoder: SentenceEncoder, pair: tuple[str, str]) -> None:
    texts = LONG if any(name.startswith("truncation") for name in pair) else SHORT
    diagnosis = diagnose(encoder, by_torch(encoder, texts, *pair), texts)
    assert diagnosis.verdict == "explained", diagnosis.sentence
    assert explaining(diagnosis) == [set(pair)], diagnosis.sentence


def test_torch_without_a_deviation_is_a_match(encoder: SentenceEncoder) -> None:
    for texts in (SHORT, LONG):
        diagnosis = diagnose(encoder, by_torch(encoder, texts), texts)
        assert diagnosis.verdict == "match" and diagnosis.matches
        assert "is within float32 rounding" in diagnosis.sentence
        assert diagnosis.findings == () and diagnosis.remedies == ()


@pytest.mark.parametrize("mode", ["cls", "max", "mean"])
def test_models_of_other_kinds(tmp_path: Path, mode: str) -> None:
    """Other poolings, eps 1e-5, no normalisation: what deviates is what the model itself does not do."""
    config = dataclasses.replace(CONFIG, pooling_mode=mode, layer_norm_eps=1e-5, normalize=False)
    encoder = SentenceEncoder(folder(tmp_path, config, 2), backend="numpy")
    known = {one.name for one in deviations(encoder.config)}
    assert {"LayerNorm eps 1e-12", "normalisation"} < known
    assert not {"LayerNorm eps 1e-5", "no normalisation", f"{mode} pooling"} & known
    other = "CLS pooling" if mode == "mean" else "mean pooling"
    for name in ("LayerNorm eps 1e-12", "normalisation", other, "tanh GELU"):
        diagnosis = diagnose(encoder, by_torch(encoder, SHORT, name), SHORT)
        assert explaining(diagnosis) == [{name}], diagnosis.sentence
    assert diagnose(encoder, by_torch(encoder, SHORT), SHORT).verdict == "match"


def test_the_encoders_own_vectors_are_the_same_bits(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(SHORT)
    assert diagnose(encoder, vectors, SHORT).verdict == "same bits"
    vectors[2, 3] = np.nextafter(vectors[2, 3], np.float32(1))
    assert diagnose(encoder, vectors, SHORT).verdict == "match"


def test_what_the_texts_do_not_show_is_said(encoder: SentenceEncoder) -> None:
    """No long text, no capital, no accent: nothing that acts on those is seen, or blamed."""
    texts = ["one plain text", "and another one, longer", "a third"]
    diagnosis = diagnose(encoder, by_torch(encoder, texts), texts)
    assert {"truncation at 32", "truncation at 128", "no lower-casing", "accents not stripped"} <= {
        *diagnosis.no_effect
    }
    diagnosis = diagnose(encoder, by_torch(encoder, ["Ångström", *texts], "no lower-casing"), ["Ångström", *texts])
    assert {"no lower-casing"} in explaining(diagnosis)


def test_deviations_that_the_texts_do_not_tell_apart(encoder: SentenceEncoder) -> None:
    texts = [*SHORT, "jump over the lazy fox " * 8]  # 154 tokens: beyond 128, below 256
    texts[-1] = texts[-1].strip()
    diagnosis = diagnose(encoder, by_torch(encoder, texts, "truncation at 256"), texts)
    alike = {"truncation at 256", "truncation at 384", "truncation at 510", "truncation at 512"}
    assert {*map(tuple, explaining(diagnosis))} == {(name,) for name in alike}
    assert alike in [{*names} for names in diagnosis.indistinguishable]
    assert "These texts do not distinguish it from" in diagnosis.sentence


@pytest.mark.weights
@pytest.mark.parametrize(
    "names",
    [(), ("truncation at 128",)],
    ids=lambda names: " and ".join(names) or "none",
)
def test_published_model(published: SentenceEncoder, names: tuple[str, ...]) -> None:
    texts = ["This is an example sentence", "Naïve Café", "a dog", "the lighthouse " * 70]
    vocabulary = Path(published.model_path or "", "vocab.txt").read_text(encoding="utf-8").splitlines()
    vectors = planted(texts, published.config, published.weights, vocabulary, names)
    diagnosis = diagnose(published, vectors, texts)
    assert diagnosis.verdict == ("explained" if names else "match"), diagnosis.sentence
    assert explaining(diagnosis)[:1] == ([set(names)] if names else []), diagnosis.sentence


@pytest.mark.weights
def test_inputs_swapped_in_transformers(published: SentenceEncoder) -> None:
    """The vectors that people get who confuse the attention mask with the token types, by transformers itself."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["This is an example sentence", "a dog runs home", "what is the capital of Peru?"]
    folder = str(published.model_path)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        real = inputs["attention_mask"]
        with torch.no_grad():
            hidden = model(inputs["input_ids"], attention_mask=torch.zeros_like(real), token_type_ids=real)[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(1), dim=1)[0].numpy())
    diagnosis = diagnose(published, np.stack(vectors), texts)
    assert explaining(diagnosis) == [{"attention mask and token types swapped, no attention"}], diagnosis.sentence

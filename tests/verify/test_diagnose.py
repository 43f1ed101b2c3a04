"""Diagnose: each deviation that torch plants is named, pairs too, and nothing is named that is not there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, ModelConfig, SentenceEncoder, cli
from minilm_np.cli import diagnose as command
from minilm_np.model_files.checkpoint import parameter_shapes, write_checkpoint
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.verify.deviations import deviations
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.diagnosis import Diagnosis
from minilm_np.verify.low_precision import is_like
from minilm_np.verify.vector_errors import alike
from tests.support.torch_deviations import planted

CONFIG = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY),
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    max_seq_length=64,
)
# each deviation changes the vector of one of them, and no two change all alike
SHORT = [
    "a text of some words",
    "Capitals And MORE of them",
    "naïve café résumé, Ångström",
    "",
    "what is it? 42!",
    "the quick brown fox jumps over the lazy dog",
]
LONG = [*SHORT[:3], *(("jump over the lazy fox " * 40)[:n] for n in (75, 79, 170, 320, 480, 700))]


def weights(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Weights on which every deviation shows: small embeddings for eps, activations of some size for GELU."""
    generator = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        return generator.normal(mean, 0.02 if "embeddings.weight" in name else 0.2, shape).astype(np.float32)

    return {name: draw(name, shape) for name, shape in parameter_shapes(config).items()}


def folder(path: Path, config: ModelConfig, seed: int) -> Path:
    """A model of that config with random weights over single characters."""
    write_checkpoint(path / "model.safetensors", weights(config, seed))
    (path / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    sizes = {key: value for key, value in dataclasses.asdict(config).items() if key in ENCODER_KEYS}
    (path / "config.json").write_text(json.dumps({"model_type": "bert"} | sizes))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": config.max_seq_length}))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 2 + config.normalize]
    modules = [{"path": where, "type": f"sentence_transformers.models.{kind}"} for where, kind in kinds]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode": config.pooling_mode}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


ENCODER_KEYS = (
    "vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "intermediate_size", "layer_norm_eps",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(folder(tmp_path_factory.mktemp("model"), CONFIG, 1), backend="numpy")


def by_torch(encoder: SentenceEncoder, texts: list[str], *names: str) -> np.ndarray:
    return planted(texts, encoder.config, encoder.weights, CHARACTER_VOCABULARY, names)


def explaining(diagnosis: Diagnosis) -> list[set[str]]:
    return [set(finding.deviations) for finding in diagnosis.findings if finding.explains]


@pytest.mark.parametrize("name", [one.name for one in deviations(CONFIG)])
def test_every_deviation_is_named(encoder: SentenceEncoder, name: str) -> None:
    texts = LONG if name.startswith("truncation") else SHORT
    diagnosis = diagnose(encoder, by_torch(encoder, texts, name), texts)
    assert diagnosis.verdict == "explained", diagnosis.sentence
    assert explaining(diagnosis) == [{name}], diagnosis.sentence


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
    assert "these texts do not tell them apart" in diagnosis.sentence


def test_vectors_of_another_length_are_scaled(encoder: SentenceEncoder) -> None:
    diagnosis = diagnose(encoder, 3.0 * by_torch(encoder, SHORT), SHORT)
    assert diagnosis.verdict == "scaled" and "the model's times 3" in diagnosis.sentence
    factors = np.linspace(0.5, 2.0, len(SHORT))[:, None]
    diagnosis = diagnose(encoder, factors * by_torch(encoder, SHORT, "tanh GELU"), SHORT)
    assert diagnosis.verdict == "scaled" and "those of the model with tanh GELU" in diagnosis.sentence
    assert "times 0.5 to 2:" in diagnosis.sentence


@pytest.mark.parametrize(
    ("store", "how"),
    [
        (lambda x: x.astype(np.float16), "as float16"),
        (lambda x: np.round(x, 4), "with 4 decimals"),
        (lambda x: np.round(x.astype(np.float64), 6), "with 6 decimals"),
    ],
)
def test_how_vectors_were_stored_is_rounding(encoder: SentenceEncoder, store: Any, how: str) -> None:
    diagnosis = diagnose(encoder, store(by_torch(encoder, SHORT)), SHORT)
    assert diagnosis.verdict == "match" and f"numbers stored {how}" in diagnosis.sentence
    diagnosis = diagnose(encoder, store(by_torch(encoder, SHORT, "positions off by two")), SHORT)
    assert {"positions off by two"} in explaining(diagnosis)


def test_vectors_in_another_order(encoder: SentenceEncoder) -> None:
    texts = [*SHORT, SHORT[1]]  # one text twice
    diagnosis = diagnose(encoder, by_torch(encoder, texts)[[1, 0, 2, 3, 4, 5, 6]], texts)
    assert diagnosis.verdict == "reordered"
    assert "vector 0 is that of text 1" in diagnosis.sentence and "vector 1 is that of text 0" in diagnosis.sentence


def test_equal_texts_do_not_move(encoder: SentenceEncoder) -> None:
    """Texts with equal vectors tie: only a vector that does not fit its own text has moved, each to another one."""
    texts = [*SHORT, *SHORT[:2], "jump"]
    vectors = by_torch(encoder, texts)
    swapped = vectors.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    sentence = diagnose(encoder, swapped, texts).sentence
    assert sentence.endswith(": vector 3 is that of text 4; vector 4 is that of text 3."), sentence
    diagnosis = diagnose(encoder, vectors[::-1], texts)
    assert diagnosis.verdict == "reordered" and diagnosis.sentence.endswith("; and 3 more."), diagnosis.sentence
    named = [part.split()[-1] for part in diagnosis.sentence.rstrip(".").split("; ")[:3]]
    assert len(set(named)) == 3
    assert "--texts FILE" in diagnosis.remedies[0]


def test_some_wrong_vectors_are_named(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, SHORT)
    for wrong, what in (
        (np.zeros(32), "is all zeros"),
        (vectors[1], "is that of text 1"),
        (-vectors[5], "is off by "),
    ):
        given = vectors.copy()
        given[5] = wrong
        diagnosis = diagnose(encoder, given, SHORT)
        shown = "'the quick brown fox jumps over the la...'"
        expected = f"5 of 6 vectors match, 1 does not (counted from 0): vector 5 (text {shown}) {what}"
        assert diagnosis.verdict == "unexplained" and diagnosis.sentence.startswith(expected), diagnosis.sentence
        assert diagnosis.findings == () and "minilm-np trace" in diagnosis.remedies[0]
    texts = [*SHORT, "jump", "over"]
    given = by_torch(encoder, texts)
    given[[0, 1, 4, 6]] *= np.array([[-1], [-1], [0], [-1]], np.float32)
    sentence = diagnose(encoder, given, texts).sentence
    assert sentence.startswith("4 of 8 vectors match, 4 do not (counted from 0, worst first): vector "), sentence
    assert sentence.endswith("; and 1 more."), sentence


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8, weights per tensor"])
def test_arithmetic_in_fewer_bits_is_recognised(encoder: SentenceEncoder, name: str) -> None:
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT, f"arithmetic in {name}"), SHORT)
    assert diagnosis.verdict == "unexplained" and explaining(diagnosis) == [], diagnosis.sentence
    assert f"are consistent with arithmetic in {name} (" in diagnosis.sentence
    assert "Compute in float32" in diagnosis.remedies[0]


def test_alike_is_a_cosine() -> None:
    random = np.random.default_rng(0).standard_normal((2, 8, 64))
    assert alike(random[0], 3 * random[0]) == pytest.approx(1) and abs(alike(*random)) < 0.15
    assert is_like(random[0], 3 * random[0]) and not is_like(random[0], 5 * random[0]) and not is_like(*random)


def test_another_model_is_unrelated(encoder: SentenceEncoder, tmp_path: Path) -> None:
    other = SentenceEncoder(folder(tmp_path, CONFIG, 7), backend="numpy")
    diagnosis = diagnose(encoder, by_torch(other, SHORT), SHORT)
    assert diagnosis.verdict == "unrelated" and diagnosis.findings == ()
    assert "another model" in diagnosis.sentence
    random = np.random.default_rng(0).standard_normal((len(SHORT), 32)).astype(np.float32)
    assert diagnose(encoder, random, SHORT).verdict == "unrelated"


def test_another_dimension_is_unrelated(encoder: SentenceEncoder) -> None:
    diagnosis = diagnose(encoder, np.ones((len(SHORT), 33), np.float32), SHORT)
    assert diagnosis.verdict == "unrelated" and "they have 33 numbers, this model's have 32" in diagnosis.sentence


def test_what_nothing_explains_is_not_explained(encoder: SentenceEncoder) -> None:
    """A little noise on the right vectors, or on deviating ones: nearest comes, but does not explain."""
    noise = np.random.default_rng(1).standard_normal((len(SHORT), 32)) * 1e-4
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT) + noise, SHORT)
    assert diagnosis.verdict == "unexplained" and explaining(diagnosis) == [], diagnosis.sentence
    assert "consistent with" not in diagnosis.sentence and "Nearest" not in diagnosis.sentence
    assert "names the first step that differs" in diagnosis.remedies[0]
    diagnosis = diagnose(encoder, by_torch(encoder, SHORT, "CLS pooling") + noise, SHORT)
    assert "Nearest comes CLS pooling: " in diagnosis.sentence  # and no pair, which would hardly come nearer
    assert diagnosis.verdict == "unexplained" and explaining(diagnosis) == [], diagnosis.sentence
    assert "CLS pooling" in diagnosis.sentence and "what is left is more than rounding" in diagnosis.sentence


def test_a_text_that_is_wrong_for_another_reason_is_named(encoder: SentenceEncoder) -> None:
    """Of many texts the search looks at few; what explains those is checked on the others."""
    texts = [f"{text} {number}" for number in range(16) for text in SHORT]
    vectors = by_torch(encoder, texts, "tanh GELU")
    wrong = 53
    vectors[wrong] = (vectors[wrong] + by_torch(encoder, [texts[wrong]])) / 2  # no text of its kind errs less
    diagnosis = diagnose(encoder, vectors, texts)
    assert diagnosis.verdict == "unexplained" and f"not that of text {wrong}" in diagnosis.sentence, diagnosis.sentence


def test_texts_that_show_little(encoder: SentenceEncoder) -> None:
    """Without a token but [CLS] and [SEP], where some deviations define no vector; and numbers beyond all bounds."""
    vectors = by_torch(encoder, [""], "CLS pooling")
    assert {"CLS pooling"} in explaining(diagnose(encoder, vectors, [""]))
    assert diagnose(encoder, np.full((len(SHORT), 32), 1e300), SHORT).verdict == "unrelated"
    assert diagnose(encoder, np.zeros((len(SHORT), 32)), SHORT).verdict == "unrelated"


def test_refusals(encoder: SentenceEncoder) -> None:
    vectors = by_torch(encoder, SHORT)
    with pytest.raises(InputValueError, match="give their texts"):
        diagnose(encoder, vectors)
    with pytest.raises(InputValueError, match="there are none"):
        diagnose(encoder, vectors[:0], [])
    with pytest.raises(InputValueError, match="expected one a text, found 5 for 6 texts"):
        diagnose(encoder, vectors[:5], SHORT)
    with pytest.raises(InputValueError, match=r"expected floats of shape \(texts, numbers\), found float32 of shape"):
        diagnose(encoder, vectors[0], SHORT)
    with pytest.raises(InputValueError, match=r"expected floats .*, found int64"):
        diagnose(encoder, vectors.astype(np.int64), SHORT)
    vectors[3, 5] = np.nan
    with pytest.raises(InputValueError, match=r"vector 3 holds NaN or infinity \(1 of 6 vectors do\).*its text is ''"):
        diagnose(encoder, vectors, SHORT)


@pytest.fixture
def run(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A command line -> its exit code, stdout and stderr; the model is the encoder's."""
    monkeypatch.setattr(cli, "COMMANDS", (command,))

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main(["diagnose", "--model", encoder.model_path, "--backend", "numpy", *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


LEGEND = "relative: to the largest number of the same vector; rounding: how much of that rounding may do)\n"


def test_command(encoder: SentenceEncoder, run: Any, tmp_path: Path) -> None:
    path, texts = tmp_path / "vectors.npy", tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in SHORT))
    np.save(path, by_torch(encoder, SHORT))
    code, out, _ = run("--vectors", path, "--texts", texts)
    assert code == 0 and out.startswith("A match: ") and "on these texts:" not in out
    assert out.endswith("(in float64;\n" + LEGEND)
    np.save(path, by_torch(encoder, SHORT, "tanh GELU"))
    code, out, _ = run("--vectors", path, "--texts", texts)
    assert code == 1 and out.startswith("Tanh GELU explains the vectors: ") and "What to do: Set the activation" in out
    assert "Would not be seen on these texts:\n  truncation at" in out
    assert "as llama.cpp and one backend of text-embeddings-inference do" in out
    code, out, _ = run("--against", path, "--texts", texts, "--format", "json")
    found = json.loads(out)
    assert code == 1 and found["verdict"] == "explained" and found["findings"][0]["deviations"] == ["tanh GELU"]


def test_command_takes_a_file_that_has_its_texts(encoder: SentenceEncoder, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "vectors.jsonl"
    vectors = by_torch(encoder, SHORT, "CLS pooling").tolist()
    lines = [json.dumps({"text": text, "embedding": vector}) for text, vector in zip(SHORT, vectors, strict=True)]
    path.write_text("\n".join(lines))
    code, out, _ = run("--vectors", path)
    assert code == 1 and out.startswith("CLS pooling explains the vectors: ")


def test_command_refuses(run: Any, tmp_path: Path) -> None:
    code, out, err = run()
    assert code == 2 and not out and "the following arguments are required: --vectors/--against" in err
    code, out, err = run("--vectors", "nonsense")
    assert code == 2 and not out and "expected one of" in err and "nonsense" in err
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    code, out, err = run("--vectors", empty)
    assert code == 1 and not out and f"{empty}: expected at least one vector of at least one number, found none" in err


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

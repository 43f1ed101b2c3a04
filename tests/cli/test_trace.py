"""`trace`: the table and the JSON show the arrays of `minilm_np.trace`, and --save writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minilm_np import CrossEncoder, ModelConfig, SentenceEncoder, cli
from minilm_np.cli import trace as trace_command
from minilm_np.cli.printing import cells
from minilm_np.trace import Trace, trace
from tests.support.encoders import with_weights

TEXT = "Naïve café, 東京 👍 [SEP] x"

Run = Callable[..., int]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1, backend="numpy")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, encoder: SentenceEncoder) -> Run:
    """`minilm-np trace ...` with a random model."""
    monkeypatch.setattr(trace_command, "load", lambda options: encoder)
    return lambda *arguments: cli.main(["trace", *map(str, arguments)])


def test_the_table_has_one_row_per_array(
    run: Run, encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(TEXT * 9) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 160
    found = trace(encoder, TEXT * 9)
    names = [line.split()[0] for line in lines[-len(found) :]]
    assert names == list(found)
    array = found["encoder.layer.1.attention.self.query"].astype(np.float64)
    [line] = [line.split() for line in lines if line.startswith("encoder.layer.1.attention.self.query")]
    assert line[1:6] == ["T", "D", str(array.shape[0]), "x", "96"]
    expected = [array.mean(), array.std(), array.min(), array.max(), np.linalg.norm(array), *array.ravel()[:3]]
    assert [float(number) for number in line[6:]] == pytest.approx(expected, abs=6e-5, rel=6e-2)
    assert "(the text was truncated)" in lines[1] and "naïve" not in "".join(lines)


def test_the_table_of_a_large_model_fits_too(
    monkeypatch: pytest.MonkeyPatch, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {**vars(SentenceEncoder.random().config), "num_hidden_layers": 11, "max_seq_length": 512}
    config = ModelConfig(**sizes | {"max_position_embeddings": 512, "hidden_size": 16, "num_attention_heads": 16})
    large = SentenceEncoder.random(config, backend="numpy")
    monkeypatch.setattr(trace_command, "load", lambda options: large)
    assert run("a " * 600) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("16 x 512 x 512" in line for line in lines)
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize(("columns", "n_numbers"), [(80, 5), (110, 8), (200, 8)])
def test_the_table_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, run: Run, encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str],
    columns: int, n_numbers: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(TEXT * 9) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cells, lines)) <= columns
    found = trace(encoder, TEXT * 9)
    lines = lines[lines.index("") + 2 :]
    rows = lines if columns == 200 else [f"{name} {row}" for name, row in zip(lines[::2], lines[1::2], strict=True)]
    assert [row.split()[0] for row in rows] == list(found)
    for row, array in zip(rows, found.values(), strict=True):
        numbers = [float(word) for word in row.split()[-n_numbers:]]
        assert numbers[4] == pytest.approx(np.linalg.norm(array.astype(np.float64)), abs=6e-5, rel=6e-2)


def test_json_has_the_same(run: Run, encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TEXT, "--format", "json", "--dtype", "float64") == 0
    facts = json.loads(capsys.readouterr().out)
    found = trace(encoder, TEXT, dtype="float64")
    assert facts["text"] == TEXT and facts["truncated"] is False and facts["dtype"] == "float64"
    assert [(t["token"], t["id"], tuple(t["offsets"])) for t in facts["tokens"]] == list(
        zip(found.tokens, found.ids, found.offsets, strict=True)
    )
    for entry, (name, array) in zip(facts["intermediates"], found.items(), strict=True):
        assert (entry["name"], entry["shape"]) == (name, list(array.shape))
        assert entry["first"] == array.ravel()[:3].tolist()
        assert entry["norm"] == pytest.approx(np.linalg.norm(array))


def test_json_has_no_infinity(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    name = "embeddings.LayerNorm.weight"
    overflowing = with_weights(encoder, {name: encoder.weights[name] * np.float32(1e30)})
    monkeypatch.setattr(trace_command, "load", lambda options: overflowing)
    assert run("x", "--format", "json") == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads(capsys.readouterr().out, parse_constant=refuse)
    by_name = {entry["name"]: entry for entry in facts["intermediates"]}
    assert by_name["encoder.layer.0.attention.self.probs"]["mean"] is None
    assert run("x") == 0
    assert "nan" in capsys.readouterr().out


def test_the_command_saves(run: Run, encoder: SentenceEncoder, tmp_path: Path) -> None:
    assert run(TEXT, "--save", tmp_path / "file.safetensors") == 0
    assert Trace.load(tmp_path / "file.safetensors") == trace(encoder, TEXT)


def test_wrong_arguments_are_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TEXT, "--save", tmp_path) == 1
    assert "expected a file, found a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        run(TEXT, "--dtype", "float64", "--backend", "numba")
    assert usage.value.code == 2
    assert "--dtype float64 needs --backend numpy" in capsys.readouterr().err


def test_a_pair_has_a_row_per_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "model")
    CrossEncoder.random(backend="numpy").save_pretrained(folder)
    assert cli.main(["trace", "ab", "--pair", "c", "--model", folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:8] == [
        "tokens  6, each with its characters in its text",
        "        special, token type 0:",
        "        [CLS] 0-0",
        "        first, token type 0:",
        "        a 0-1   ##b 1-2",
        "        special, token type 0:",
        "        [SEP] 0-0",
    ]
    assert [line.split()[0] for line in lines[-3:]] == ["pooler.activation", "classifier", "score"]
    assert cli.main(["trace", "ab", "--pair", "c", "--model", folder, "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["text"], facts["text_pair"]) == ("ab", "c")
    assert facts["tokens"][4] == {
        "token": "c", "id": facts["tokens"][4]["id"], "offsets": [0, 1], "segment": "second", "token_type_id": 1,
    }  # fmt: skip
    with pytest.raises(SystemExit):
        cli.main(["trace", "ab", "--model", folder])
    assert "is a cross-encoder: give the second text with --pair" in capsys.readouterr().err

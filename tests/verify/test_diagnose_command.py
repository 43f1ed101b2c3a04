"""The command `minilm-np diagnose`."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, _progress, cli
from minilm_np.cli import diagnose as command
from tests.support.diagnose_models import CONFIG, SHORT, by_torch, folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(folder(tmp_path_factory.mktemp("model"), CONFIG, 1), backend="numpy")


@pytest.fixture
def run(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A command line -> its exit code, stdout and stderr; the model is the encoder's."""
    monkeypatch.setattr(cli, "COMMANDS", (command,))

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main(
                ["diagnose", "--model", str(encoder.model_path), "--backend", "numpy", *map(str, arguments)]
            )
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


LEGEND = """(errors: against the model in float64, with the deviation of the row;
 relative: max abs / the largest number of the vector;
 rounding: the largest relative error that rounding can cause)
"""


def test_command(encoder: SentenceEncoder, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts = tmp_path / "vectors.npy", tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in SHORT))
    np.save(path, by_torch(encoder, SHORT))
    code, out, _ = run("--vectors", path, "--texts", texts)
    assert code == 0 and out.startswith("A match: ") and "on these texts:" not in out
    assert out.endswith(LEGEND)
    np.save(path, by_torch(encoder, SHORT, "tanh GELU"))
    monkeypatch.setattr(_progress, "EVERY_S", 0.0)
    code, out, err = run("--vectors", path, "--texts", texts)
    assert re.match(r"minilm-np: trying deviations: 1 of \d+ trials after \d+ s, about [\d,]+ s left\n", err)
    table = out[out.index("  max abs  relative") :].partition("\n(errors")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert code == 1 and out.startswith("Tanh GELU explains the vectors: ") and "What to do: Set the activation" in out
    assert "Neither found nor excluded, because they have no effect on these texts:\n  truncation at" in out
    assert "as in llama.cpp and in one backend of text-embeddings-inference" in out
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

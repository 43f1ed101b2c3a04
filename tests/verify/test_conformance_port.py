"""`check_port`, and a port in another language that was written from CONFORMANCE.md: the page is enough."""

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minilm_np import InputValueError, SentenceEncoder, cli
from minilm_np.verify.conformance import write
from minilm_np.verify.conformance_port import check_port
from minilm_np.verify.tokenizer_lines import tokenizer_lines
from tests.support.conformance_port import TEXTS, read_safetensors
from tests.support.places import CHECKOUT

PORT = CHECKOUT / "tests" / "ports" / "port.mjs"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conformance") / "file.safetensors"
    write(SentenceEncoder.random(seed=3, backend="numpy"), path, TEXTS)
    return path


@pytest.fixture(scope="module")
def arrays(file: Path) -> dict[str, np.ndarray]:
    return read_safetensors(file)[0]


def saved(folder: Path, arrays: dict[str, Any]) -> Path:
    save_file(arrays, folder / "port.safetensors")
    return folder / "port.safetensors"


@pytest.mark.weights
@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_port_to_javascript_conforms(
    published: SentenceEncoder, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, port = tmp_path / "file.safetensors", tmp_path / "port.safetensors"
    write(published, path)
    command = ["node", str(PORT), str(path), str(model_folder), str(port), "12"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert cli.main(["conformance", "check", str(path), "--against", str(port)]) == 0
    out = capsys.readouterr().out
    assert "compared texts and all compared tokenizer lines\n" in out and "encoder.layer.5.output.LayerNorm" in out
    assert out.endswith("\nconforms: every compared array is within its tolerance\n")


def test_any_part_of_the_tensors_is_compared(file: Path, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    names = [
        "vectors.float32",
        "texts.1.ids",
        "texts.0.float32.pooling",
        "texts.0.float64.encoder.layer.1.output.dense",
    ]
    result = check_port(file, saved(tmp_path, {name: arrays[name] for name in names}))
    assert result.conforms
    assert [(row.text, row.implementation, row.name) for row in result.rows[:3]] == [
        (0, "port float64", "encoder.layer.1.output.dense"), (0, "port float32", "pooling"), (1, "port", "ids"),
    ]  # fmt: skip
    assert [(row.text, row.name) for row in result.rows[3:]] == [(i, "vector") for i in range(len(TEXTS))]
    half = {"vectors.float32": arrays["vectors.float32"].astype(np.float16)}
    assert not check_port(file, saved(tmp_path, half)).conforms  # half precision is read, and is not accurate enough


def test_the_first_wrong_step_is_named(file: Path, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    wrong = {name: array.copy() for name, array in arrays.items() if ".float32." in name}
    for name in ("texts.2.float32.embeddings.LayerNorm", "texts.1.float32.normalize", "texts.1.float32.pooling"):
        wrong[name] *= np.float32(1.001)
    failure = check_port(file, saved(tmp_path, wrong)).first_failure
    assert failure is not None and (failure.text, failure.name) == (1, "pooling")
    assert failure.max_rel == pytest.approx(1e-3, rel=1e-3)


def test_token_ids_are_read_from_json_lines(
    file: Path, arrays: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, port = SentenceEncoder.random(seed=3, backend="numpy"), tmp_path / "ids.jsonl"
    texts = [*TEXTS[:2], *tokenizer_lines()[:40]]
    rows = [{"text": text, "ids": ids} for text, ids in zip(texts, encoder.tokenizer(texts).ids, strict=True)]
    port.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["conformance", "check", str(file), "--against", str(port)]) == 0
    assert "token ids  equal in all 2 compared texts and all compared tokenizer lines\n" in capsys.readouterr().out
    for k in (0, 5, 9):
        rows[k]["ids"] = [*rows[k]["ids"], 7]
    port.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["conformance", "check", str(file), "--against", str(port)]) == 1
    out = capsys.readouterr().out
    assert "token ids  differ in 1 text and 2 tokenizer lines *\n" in out
    assert "does not conform: the token ids of text 0 (counted from 0), " in out and "differ at 1 position: " in out


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "expected tensors with names of .*, found 'no tensor'"),
        ({"vector": np.zeros(3)}, "expected tensors with names of .*, found 'vector'"),
        (
            {"vectors.float32": np.zeros((2, 3), np.float32)},
            r"expected floats of shape \(6, .*, found float32 of shape",
        ),
        ({"texts.0.ids": np.zeros(3)}, "tensor 'texts.0.ids': expected integers, found float64"),
        ({"tokenizer_lines.ids": np.zeros(3, int)}, "'tokenizer_lines.offsets', found one of them"),
        ({"tokenizer_lines.offsets": np.zeros(2001, int)}, "'tokenizer_lines.offsets', found one of them"),
        (
            {"tokenizer_lines.ids": np.zeros(3, int), "tokenizer_lines.offsets": np.zeros(2001)},
            "tensor 'tokenizer_lines.offsets': expected integers, found float64",
        ),
        (
            {"tokenizer_lines.ids": np.zeros(3, int), "tokenizer_lines.offsets": np.zeros(2001, int)},
            "expected one offset per line, and at the end the number of ids: 2001 numbers, the last one 3, found",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(file: Path, tmp_path: Path, tensors: Any, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        check_port(file, saved(tmp_path, tensors))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", 'line 1: expected {"text": ..., "ids": '),
        ('{"text": "a", "ids": "x"}', "line 1: expected"),
        ('{"text": "a", "ids": "12"}', "line 1: expected"),
        ('{"text": "a", "ids": [1.9]}', "line 1: expected .* with integers as ids"),
        ('{"text": "a", "ids": ["1"]}', "line 1: expected .* with integers as ids"),
        ('{"text": "a", "ids": [true]}', "line 1: expected .* with integers as ids"),
        ('{"text": "a", "ids": [Infinity]}', "line 1: expected .* with integers as ids"),
        ('{"text": ["a"], "ids": [1]}', "line 1: expected"),
        ('{"text": "a", "text_pair": {}, "ids": [1]}', "line 1: expected"),
        ("{", "line 1: expected"),
        ('{"text": "nowhere", "ids": [1]}', "line 1: expected a text or a line of .*, found 'nowhere'"),
    ],
)
def test_a_broken_line_of_ids_is_refused(file: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "ids.jsonl").write_text(line + "\n")
    with pytest.raises(InputValueError, match=message):
        check_port(file, tmp_path / "ids.jsonl")


def test_a_file_without_ids_does_not_conform(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.jsonl").write_bytes(b"")
    with pytest.raises(InputValueError, match=r"ids\.jsonl: expected at least one text with its ids, found none"):
        check_port(file, tmp_path / "ids.jsonl")


def test_ids_of_all_lines_are_compared(file: Path, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    tensors = {name: arrays[name].copy() for name in ("tokenizer_lines.ids", "tokenizer_lines.offsets")}
    assert check_port(file, saved(tmp_path, tensors)).conforms
    tensors["tokenizer_lines.offsets"][7] += 1
    result = check_port(file, saved(tmp_path, tensors))
    assert [(row.name, row.max_abs, row.conforms) for row in result.rows] == [("lines", 2, False)]


def test_the_tensors_are_aligned_as_the_page_says(file: Path) -> None:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            assert (8 + length + entry["data_offsets"][0]) % {"I64": 8, "F64": 8, "F32": 4}[entry["dtype"]] == 0, name


def test_the_lines_are_the_same_everywhere_and_of_many_kinds() -> None:
    lines = tokenizer_lines()
    assert len(lines) == len(set(lines)) == 2000 and lines == tokenizer_lines()
    assert lines[:2] == ["Z\u0489C", "\u2029\r\u248c\u2028\u20deg\x02\u3007"]
    kinds = ("\t", "Σ", "々", "⼀", "\ue000", "\0", "\xad", "\u200b", "[sep]", "[SEP]", "\U00020000", "$", "İ")
    assert all(any(kind in line for line in lines) for kind in kinds)

"""Conformance files of cross-encoders: written, checked, and enough for a port."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minilm_np import CrossEncoder, InputValueError, SentenceEncoder
from minilm_np.verify.conformance import check, write
from minilm_np.verify.conformance_file import read
from minilm_np.verify.conformance_port import check_port
from minilm_np.verify.conformance_subjects import FULL_PAIRS
from tests.support.cli import NUMPY, Command
from tests.support.conformance_port import changed, digest, error, port, read_safetensors, set_first

PAIRS = [*FULL_PAIRS, ("a query", "a document " * 30), ("a query", "another document")]


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    return CrossEncoder.random(seed=3, num_labels=2, backend="numpy")


@pytest.fixture(scope="module")
def file(model: CrossEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conformance") / "pairs.safetensors"
    write(model, path, PAIRS)
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_port_from_the_page_conforms(model: CrossEncoder, file: Path, dtype: str) -> None:
    arrays, manifest = read_safetensors(file)
    assert manifest["format"] == "minilm_np pair conformance 1"
    assert manifest["model"]["labels"] == ["LABEL_0", "LABEL_1"]
    assert digest(model.weights, manifest) == manifest["model"]["weights_sha256"]
    weights = {name: array.astype(dtype) for name, array in model.weights.items()}
    for i, text in enumerate(manifest["texts"]):
        assert (text["text"], text["text_pair"]) == PAIRS[i]
        ids, types = arrays[f"texts.{i}.ids"], arrays[f"texts.{i}.token_type_ids"]
        seen = port(ids, weights, manifest["model"]["config"], token_types=types)
        assert error(seen["classifier"], arrays["logits.float64"][i]) <= manifest["tolerance"][dtype]
        for step in manifest["intermediates"] if text["intermediates"] else ():
            expected = arrays[f"texts.{i}.float64.{step['name']}"]
            assert error(seen[step["name"]], expected) <= manifest["tolerance"][dtype]
    assert [step["dimensions"] for step in manifest["intermediates"]][-3:] == ["D", "D", "C"]


def test_the_engine_conforms_bit_for_bit(tmp_path: Path) -> None:
    model = CrossEncoder.random(seed=3)
    path = tmp_path / "file.safetensors"
    write(model, path, PAIRS)
    result = check(CrossEncoder.random(seed=3, threads=1), path)
    assert result.conforms and result.first_failure is None
    found = [(row.implementation, row.name) for row in result.rows]
    assert found.count(("engine float32", "logits, bit for bit")) == len(PAIRS)
    assert found.count(("tokenizer", "token_type_ids")) == len(PAIRS)
    assert ("engine float32", "classifier") in found and ("reference float64", "pooler.activation") in found


def test_a_logit_near_0_is_compared_with_the_largest_one(model: CrossEncoder, file: Path) -> None:
    def small(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["logits.float64"][4] = arrays["logits.float32"][4] = 1e-9 * arrays["logits.float64"][4]

    arrays, manifest = read_safetensors(changed(file, small))
    size = np.abs(arrays["logits.float64"]).max()
    other = arrays["logits.float64"].copy()
    other[4] += 0.5 * manifest["tolerance"]["float64"] * size
    save_file({"logits.float64": other}, file.with_name("port.safetensors"))
    path = file.with_name("changed.safetensors")
    assert check_port(path, file.with_name("port.safetensors")).conforms
    other[4] += manifest["tolerance"]["float64"] * size
    save_file({"logits.float64": other}, file.with_name("port.safetensors"))
    failure = check_port(path, file.with_name("port.safetensors")).first_failure
    assert failure is not None and (failure.text, failure.name) == (4, "logits")


def test_a_file_by_default_and_again(model: CrossEncoder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert check(model, tmp_path / "a").conforms


def test_differences_are_found(model: CrossEncoder, file: Path) -> None:
    def spoil(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["texts.2.float64.pooler.dense"][5] += 1e-3

    failure = check(model, changed(file, spoil)).first_failure
    assert failure is not None and (failure.text, failure.name) == (2, "pooler.dense")

    def retype(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["texts.4.token_type_ids"][-1] = 0

    failure = check(model, changed(file, retype)).first_failure
    assert failure is not None and (failure.text, failure.name, failure.max_abs) == (4, "token_type_ids", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, manifest: manifest["texts"][0].pop("text_pair"), "manifest: KeyError: 'text_pair'"),
        (lambda arrays, manifest: manifest["texts"][0].update(text_pair=5), "a text, a tolerance or a digest"),
        (lambda arrays, manifest: manifest["model"].pop("labels"), "manifest: KeyError: 'labels'"),
        (lambda arrays, manifest: arrays.pop("logits.float32"), "'logits.float32': expected .*, found none"),
        (lambda arrays, manifest: arrays.pop("texts.0.token_type_ids"), "type_ids': expected .*, found none"),
        (lambda arrays, manifest: set_first(arrays["texts.0.token_type_ids"], 2), "expected token types from 0 to 1"),
    ],
)
def test_a_broken_file_is_refused(model: CrossEncoder, file: Path, change: Any, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        read(changed(file, change))


def test_another_model_is_refused(file: Path) -> None:
    with pytest.raises(InputValueError, match=r"is for other weights, those of random weights"):
        check(CrossEncoder.random(seed=4, num_labels=2, backend="numpy"), file)
    with pytest.raises(InputValueError, match=r"is for another model, random weights: expected labels .*, found"):
        check(CrossEncoder.random(seed=3, backend="numpy"), file)
    with pytest.raises(InputValueError, match=r"is for another model, random weights: expected labels .*, found None"):
        check(SentenceEncoder.random(seed=3, backend="numpy"), file)


def test_what_a_port_has_written_is_compared(file: Path, tmp_path: Path) -> None:
    arrays, manifest = read_safetensors(file)
    names = ["logits.float32", "texts.0.token_type_ids", "texts.1.float32.classifier"]
    save_file({name: arrays[name].copy() for name in names}, tmp_path / "port.safetensors")
    result = check_port(file, tmp_path / "port.safetensors")
    assert result.conforms
    assert [row.name for row in result.rows] == ["token_type_ids", "classifier", *["logits"] * len(PAIRS)]
    lines = [
        {"text": text["text"], "text_pair": text["text_pair"], "ids": arrays[f"texts.{i}.ids"].tolist()}
        for i, text in enumerate(manifest["texts"])
    ]
    (tmp_path / "port.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert check_port(file, tmp_path / "port.jsonl").conforms
    lines[1]["ids"][0] += 1
    (tmp_path / "port.jsonl").write_text("\n".join(map(json.dumps, lines)))
    failure = check_port(file, tmp_path / "port.jsonl").first_failure
    assert failure is not None and (failure.text, failure.name) == (1, "ids")


def test_the_command(capsysbinary: pytest.CaptureFixture[bytes], model: CrossEncoder, tmp_path: Path) -> None:
    folder, path, pairs = tmp_path / "model", str(tmp_path / "file.safetensors"), tmp_path / "pairs.tsv"
    model.save_pretrained(folder)
    pairs.write_text("a query\ta document\nanother\tb\n")
    command = Command(capsysbinary, folder)
    options = (*NUMPY, "--model", str(folder))
    code, out, err = command("conformance", "write", path, "--input", str(pairs), *options)
    assert (code, err) == (0, "")
    assert ", 2 pairs, 2 of them with " in out.decode()
    code, out, err = command("conformance", "check", path, *options)
    shown = out.decode()
    assert (code, err) == (0, "")
    assert "\npairs      2, 2 of them with intermediates\n" in shown
    assert "token ids  equal in all 2 compared pairs and all compared tokenizer lines" in shown
    assert shown.endswith("\nconforms: every compared array is within its tolerance\n")

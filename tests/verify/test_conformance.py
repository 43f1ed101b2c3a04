"""Conformance files: a port from CONFORMANCE.md alone, what is written, what is refused, what the command says."""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from minilm_np import InputValueError, ModelConfig, NonFiniteError, SentenceEncoder, cli
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.verify import conformance
from minilm_np.verify.conformance import FULL_TEXTS, check, write
from tests.support.models import living_weights, small_configs, torch_intermediates, torch_model

TEXTS = [*FULL_TEXTS, "punctuation?! ... (yes)", "long " * 300, "naïve 日本"]


# ------------------------------------------------------------------------ a port, from CONFORMANCE.md and nothing else


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """The bytes, as the page describes them."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["minilm_np"])
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype = {"I64": "<i8", "F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        data = content[8 + length + start : 8 + length + stop]
        arrays[name] = np.frombuffer(data, dtype).reshape(entry["shape"])
    return arrays, manifest


def digest(weights: dict[str, np.ndarray], manifest: Any) -> str:
    found = hashlib.sha256()
    for name, shape in manifest["model"]["parameters"].items():
        sizes = f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
        found.update(f"{name} {sizes}\n".encode())
        found.update(np.ascontiguousarray(weights[name], "<f4").tobytes())
    return found.hexdigest()


def erf_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x.astype(np.float64) / math.sqrt(2)).astype(x.dtype))


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def port(
    ids: np.ndarray, w: dict[str, np.ndarray], config: dict[str, Any], gelu: Callable[..., Any] = erf_gelu
) -> dict[str, np.ndarray]:
    """The steps of the page, in the dtype of the weights."""
    seen = {}
    T, D, H = len(ids), config["hidden_size"], config["num_attention_heads"]
    E = D // H

    def see(name: str, x: np.ndarray) -> np.ndarray:
        seen[name] = x
        return x

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return see(name, np.einsum("tk,mk->tm", x, w[f"{name}.weight"]) + w[f"{name}.bias"])

    def layer_norm(name: str, x: np.ndarray) -> np.ndarray:
        mean = x.sum(1, keepdims=True) / D
        var = ((x - mean) ** 2).sum(1, keepdims=True) / D
        root = np.sqrt(var + x.dtype.type(config["layer_norm_eps"]))
        return see(name, (x - mean) / root * w[f"{name}.weight"] + w[f"{name}.bias"])

    words = see("embeddings.word_embeddings", w["embeddings.word_embeddings.weight"][ids])
    positions = see("embeddings.position_embeddings", w["embeddings.position_embeddings.weight"][np.arange(T)])
    types = see("embeddings.token_type_embeddings", w["embeddings.token_type_embeddings.weight"][[0] * T])
    x = layer_norm("embeddings.LayerNorm", words + positions + types)
    for number in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{number}."
        query = dense(f"{at}attention.self.query", x)
        key = dense(f"{at}attention.self.key", x)
        value = dense(f"{at}attention.self.value", x)
        scores, context = np.zeros((H, T, T), x.dtype), np.zeros((T, D), x.dtype)
        for h in range(H):
            columns = slice(h * E, (h + 1) * E)
            scores[h] = query[:, columns] @ key[:, columns].T / math.sqrt(E)
        exp = np.exp(scores - scores.max(2, keepdims=True))
        probs = exp / exp.sum(2, keepdims=True)
        for h in range(H):
            context[:, h * E : (h + 1) * E] = probs[h] @ value[:, h * E : (h + 1) * E]
        see(f"{at}attention.self.scores", scores)
        see(f"{at}attention.self.probs", probs)
        see(f"{at}attention.self.context", context)
        a = layer_norm(f"{at}attention.output.LayerNorm", dense(f"{at}attention.output.dense", context) + x)
        active = see(f"{at}intermediate.intermediate_act_fn", gelu(dense(f"{at}intermediate.dense", a)))
        x = layer_norm(f"{at}output.LayerNorm", dense(f"{at}output.dense", active) + a)
    pooled = {"mean": x.mean(0), "cls": x[0], "max": x.max(0), "mean_sqrt_len_tokens": x.sum(0) / math.sqrt(T)}
    x = see("pooling", pooled[config["pooling_mode"]])
    if config["normalize"]:
        x = see("normalize", x / max(math.sqrt((x * x).sum()), 1e-12))
    return seen


def error(x: np.ndarray, r: np.ndarray) -> float:
    assert x.shape == r.shape
    difference, largest = np.abs(x.astype(np.float64) - r).max(), np.abs(r).max()
    return float(difference / largest) if largest else (0.0 if difference == 0 else math.inf)


def first_out(path: Path, weights: dict[str, np.ndarray], dtype: str, **options: Any) -> tuple[str, float] | None:
    """The first name of the port that does not conform, and its error; every array of the file is looked at."""
    arrays, manifest = read_safetensors(path)
    assert manifest["format"] == "minilm_np conformance 1"
    assert digest(weights, manifest) == manifest["model"]["weights_sha256"]
    tolerance = manifest["tolerance"][dtype]
    left = set(arrays) - {"vectors.float32"} - {name for name in arrays if ".float32." in name}
    w = {name: array.astype(dtype) for name, array in weights.items()}
    for i, text in enumerate(manifest["texts"]):
        seen = port(arrays[f"texts.{i}.ids"], w, manifest["model"]["config"], **options)
        left -= {f"texts.{i}.ids", "vectors.float64"}
        expected = {"vector": arrays["vectors.float64"][i]}
        if text["intermediates"]:
            assert list(manifest["intermediates"]) == list_as(manifest, seen)
            expected = {name: arrays[f"texts.{i}.float64.{name}"] for name in manifest["intermediates"]} | expected
            left -= {f"texts.{i}.float64.{name}" for name in manifest["intermediates"]}
        seen["vector"] = seen["normalize" if manifest["model"]["config"]["normalize"] else "pooling"]
        for name, r in expected.items():
            if not error(seen[name], r) <= tolerance:
                return name, error(seen[name], r)
    assert not left
    return None


def list_as(manifest: Any, seen: dict[str, np.ndarray]) -> list[str]:
    """The port's names in the file's order, which must be all of them."""
    assert set(seen) == set(manifest["intermediates"])
    return sorted(seen, key=list(manifest["intermediates"]).index)


# ---------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=3, backend="numpy")


@pytest.fixture(scope="module")
def file(encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conformance") / "file.safetensors"
    write(encoder, path, TEXTS)
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_port_from_the_page_conforms(encoder: SentenceEncoder, file: Path, dtype: str) -> None:
    assert first_out(file, encoder.weights, dtype) is None


def test_a_port_with_another_gelu_is_caught_where_it_parts(encoder: SentenceEncoder, file: Path) -> None:
    found = first_out(file, encoder.weights, "float32", gelu=tanh_gelu)
    assert found is not None and found[0] == "encoder.layer.0.intermediate.intermediate_act_fn"


@pytest.mark.weights
def test_a_port_of_the_published_model_conforms(published: SentenceEncoder, model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    write(published, path, [*FULL_TEXTS, "A longer text of which only the vector is there."])
    content = (model_folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    manifest = read_safetensors(path)[1]
    weights = {}
    for name in manifest["model"]["parameters"]:
        start, _ = header[name]["data_offsets"]
        count = math.prod(header[name]["shape"])
        weights[name] = np.frombuffer(content, "<f4", count, 8 + length + start).reshape(header[name]["shape"])
    assert first_out(path, weights, "float32") is None
    found = first_out(path, weights, "float32", gelu=tanh_gelu)
    assert found is not None and found[0] == "encoder.layer.0.intermediate.intermediate_act_fn"


@given(st.data())
@settings(max_examples=15)
def test_models_of_every_kind_conform_to_their_own_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    drawn = data.draw(small_configs())
    config = ModelConfig(**{**vars(drawn), "vocab_size": len(CHARACTER_VOCABULARY)})
    encoder = SentenceEncoder.random(config, backend="numpy")
    weights = {
        name: array.astype(np.float32) for name, array in living_weights(config, data.draw(st.integers(0, 9))).items()
    }
    state = encoder.__getstate__() | {"weights": weights}
    encoder = SentenceEncoder.__new__(SentenceEncoder)
    encoder.__setstate__(state)
    path = tmp_path_factory.mktemp("drawn") / "file.safetensors"
    write(encoder, path, ["a b", "", "cut " * 30], full=2)
    assert first_out(path, weights, "float64") is None
    assert check(encoder, path).conforms

    arrays, manifest = read_safetensors(path)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    torch = torch_intermediates(torch_model(config, wide), arrays["texts.0.ids"][None].copy())
    for name, array in torch.items():
        assert error(array[0], arrays[f"texts.0.float64.{name}"]) <= manifest["tolerance"]["float64"], name


def test_the_built_in_file_has_texts_of_every_kind(command: Any, encoder: SentenceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    assert command("write", path) == 0
    arrays, manifest = read_safetensors(path)
    texts = manifest["texts"]
    assert [text["intermediates"] for text in texts[:4]] == [True, True, True, False]
    assert any(text["truncated"] and len(arrays[f"texts.{i}.ids"]) == 128 for i, text in enumerate(texts))
    assert any(text["text"] == "" for text in texts) and any(not text["text"].isascii() for text in texts)
    for i, text in enumerate(texts):
        ids = encoder.tokenizer([text["text"]])
        assert arrays[f"texts.{i}.ids"].tolist() == ids.ids[0] and text["truncated"] == ids.truncated[0]
    assert manifest["model"]["config"]["max_seq_length"] == 128
    assert manifest["written_by"]["contract"] is None
    assert path.stat().st_size < 4e6


def test_a_file_is_written_the_same_again(encoder: SentenceEncoder, file: Path, tmp_path: Path) -> None:
    write(encoder, tmp_path / "again.safetensors", TEXTS)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_float64_arrays_are_the_same_on_other_processors(encoder: SentenceEncoder, file: Path) -> None:
    """A child whose BLAS is told that it runs on an older processor, in one thread."""
    code = (
        "import sys; from minilm_np import SentenceEncoder; from minilm_np.verify.conformance import check\n"
        "rows = check(SentenceEncoder.random(seed=3, backend='numpy'), sys.argv[1]).rows\n"
        "print(max(row.max_rel for row in rows if row.implementation == 'reference float64'))"
    )
    old = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"}
    child = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(child, env=os.environ | old, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1e-12


def test_the_engine_conforms_bit_for_bit(tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(seed=3)
    path = tmp_path / "file.safetensors"
    write(encoder, path, TEXTS)
    result = check(SentenceEncoder.random(seed=3, threads=1), path)
    assert result.conforms and result.first_failure is None
    found = {(row.implementation, row.name) for row in result.rows}
    assert {("engine float32", "vector, bit for bit"), ("engine float32", "encoder.layer.2.output.LayerNorm")} <= found
    assert len([row for row in result.rows if row.name == "vector, bit for bit"]) == len(TEXTS)

    def nudge(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["vectors.float32"][4, 7] = np.nextafter(arrays["vectors.float32"][4, 7], np.float32(9))

    failure = check(encoder, changed(path, nudge)).first_failure
    assert failure is not None and (failure.text, failure.name, failure.max_abs) == (4, "vector, bit for bit", 1)


def test_a_file_of_the_other_backend_promises_no_bits(file: Path) -> None:
    result = check(SentenceEncoder.random(seed=3), file)
    assert result.conforms and all(row.name != "vector, bit for bit" for row in result.rows)


def changed(path: Path, change: Callable[[dict[str, np.ndarray], Any], object]) -> Path:
    """A copy of a file, beside it, with something changed."""
    arrays, manifest = read_safetensors(path)
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays, manifest)
    copy = path.with_name("changed.safetensors")
    copy.write_bytes(save(arrays, {"minilm_np": json.dumps(manifest)}))
    return copy


def test_the_first_array_out_of_tolerance_is_named(encoder: SentenceEncoder, file: Path) -> None:
    def spoil(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        for name in ("encoder.layer.2.output.dense", "encoder.layer.1.attention.self.probs"):
            arrays[f"texts.2.float64.{name}"].flat[5] += 1e-3

    result = check(encoder, changed(file, spoil))
    failure = result.first_failure
    assert failure is not None and not result.conforms
    assert (failure.text, failure.name) == (2, "encoder.layer.1.attention.self.probs")
    assert failure.max_abs == pytest.approx(1e-3, rel=1e-6)


def test_a_tokenizer_that_differs_is_named(encoder: SentenceEncoder, file: Path) -> None:
    failure = check(encoder, changed(file, lambda arrays, manifest: set_first(arrays["texts.3.ids"], 7))).first_failure
    assert failure is not None and (failure.text, failure.implementation, failure.max_abs) == (3, "tokenizer", 1)


def set_first(array: np.ndarray, value: Any) -> None:
    array.flat[0] = value


REFUSALS: list[tuple[str, Callable[[dict[str, np.ndarray], Any], object], str]] = [
    ("format", lambda arrays, manifest: manifest.update(format="minilm_np conformance 2"), "expected the format"),
    ("no texts", lambda arrays, manifest: manifest.pop("texts"), "manifest: KeyError: 'texts'"),
    ("a number as text", lambda arrays, manifest: manifest["texts"][0].update(text=3), "a text, a tolerance or a"),
    ("tolerance", lambda arrays, manifest: manifest["tolerance"].update(float32=-1), "a text, a tolerance or a digest"),
    ("config", lambda arrays, manifest: manifest["model"]["config"].update(hidden_size=0), "hidden_size: expected an"),
    ("missing", lambda arrays, manifest: arrays.pop("vectors.float64"), "'vectors.float64': expected .*, found none"),
    ("more", lambda arrays, manifest: arrays.update(x=np.zeros(1)), "tensor 'x': expected none, found"),
    (
        "dtype",
        lambda arrays, manifest: arrays.update({"texts.3.ids": np.zeros(3)}),
        r"'texts.3.ids': expected \('int64'",
    ),
    ("shape", lambda arrays, manifest: arrays.update({"vectors.float64": np.zeros((6, 9))}), r"found .*\(6, 9\)"),
    ("an id", lambda arrays, manifest: set_first(arrays["texts.0.ids"], 10**6), "expected token ids from 0 to"),
    ("NaN", lambda arrays, manifest: set_first(arrays["vectors.float64"], math.nan), "expected finite values"),
    ("no letters", lambda arrays, manifest: manifest["intermediates"].update(pooling="Q"), "manifest: KeyError: 'Q'"),
    ("no names", lambda arrays, manifest: manifest.update(intermediates=[]), "manifest: AttributeError: 'list' object"),
    ("long", lambda arrays, manifest: arrays.update({"texts.0.ids": np.zeros(999, int)}), "text 0 has 999 tokens"),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS])
def test_a_broken_file_is_refused(encoder: SentenceEncoder, file: Path, change: Any, message: str) -> None:
    path = changed(file, change)
    with pytest.raises(InputValueError, match=message) as refusal:
        check(encoder, path)
    assert str(path) in str(refusal.value)


def test_another_model_is_refused(file: Path) -> None:
    with pytest.raises(
        InputValueError, match=r"file.safetensors is of other weights, those of random weights: expected"
    ):
        check(SentenceEncoder.random(seed=4, backend="numpy"), file)
    small = ModelConfig(**{**vars(SentenceEncoder.random().config), "max_seq_length": 20})
    with pytest.raises(InputValueError, match=r"is of another model.*: expected max_seq_length 128, found 20"):
        check(SentenceEncoder.random(small, seed=3, backend="numpy"), file)


def test_what_cannot_be_written_is_refused(encoder: SentenceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(InputValueError, match="texts: expected at least one, found none"):
        write(encoder, path, [])
    with pytest.raises(InputValueError, match="full: expected 0 to 1, the number of texts, found 2"):
        write(encoder, path, ["a"], full=2)
    with pytest.raises(InputValueError, match="text 0: the lone surrogate"):
        write(encoder, path, ["\ud800"], full=0)
    state = encoder.__getstate__()
    state["weights"] = {name: array.copy() for name, array in state["weights"].items()}
    state["weights"]["embeddings.LayerNorm.weight"] *= np.float32(1e30)
    overflowing = SentenceEncoder.__new__(SentenceEncoder)
    overflowing.__setstate__(state)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="is not finite: the weights overflow"):
        write(overflowing, path, ["a"], full=1)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, encoder: SentenceEncoder) -> Callable[..., int]:
    """`minilm-np conformance ...` of the random model."""
    from minilm_np.cli import conformance as module

    monkeypatch.setattr(module, "load", lambda options: encoder)
    monkeypatch.setattr(cli, "COMMANDS", (module,))
    return lambda *arguments: cli.main(["conformance", *map(str, arguments)])


def test_the_command_writes_and_checks(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.safetensors"
    assert command("write", path, "--input", texts_file(tmp_path)) == 0
    assert "2 texts, 2 of them with 42 intermediates" in capsys.readouterr().out
    assert command("check", path) == 0
    out = capsys.readouterr().out
    assert out.endswith("\nconforms: every array is within its tolerance\n")
    assert max(map(len, out.splitlines())) <= 160 and not any(line.endswith(" ") for line in out.splitlines())
    assert command("check", path, "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["conforms"] and facts["first_failure"] is None and len(facts["compared"]) == 2 * (1 + 2 * 43)


def texts_file(folder: Path) -> Path:
    (folder / "texts").write_text("one\ntwo\n")
    return folder / "texts"


@pytest.mark.weights
def test_the_command_checks_a_file_of_the_engine_as_json(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = str(tmp_path / "file.safetensors"), ("--model", str(model_folder))
    texts = ("--input", str(texts_file(tmp_path)))
    assert cli.main(["conformance", "write", path, *texts, "--full", "1", *model]) == 0
    capsys.readouterr()
    assert cli.main(["conformance", "check", path, *model, "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["conforms"]
    bits = [row for row in facts["compared"] if row["name"] == "vector, bit for bit"]
    assert [(row["max_abs"], row["max_rel"], row["conforms"]) for row in bits] == [(0, 0, True)] * 2


def test_the_command_gives_the_first_texts_intermediates(command: Any, tmp_path: Path) -> None:
    assert command("write", tmp_path / "file.safetensors", "--input", texts_file(tmp_path), "--full", 1) == 0
    _, manifest = read_safetensors(tmp_path / "file.safetensors")
    assert [(text["text"], text["intermediates"]) for text in manifest["texts"]] == [("one", True), ("two", False)]


def test_the_command_fails_where_the_file_differs(command: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["texts.0.float64.encoder.layer.1.output.dense"] *= 1.001

    path = changed(file, spoil)
    assert command("check", path) == 1
    out = capsys.readouterr().out
    assert "1.0e-03*" in out and out.splitlines()[-1] == (
        "does not conform: the first array out of tolerance is encoder.layer.1.output.dense of text 0, "
        "'This is an example sentence', reference float64: error 0.001, tolerance 1e-10"
    )
    assert command("check", path, "--format", "json") == 1
    first = json.loads(capsys.readouterr().out)["first_failure"]
    assert first["name"] == "encoder.layer.1.output.dense" and first["conforms"] is False


def test_the_command_says_what_is_wrong(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"no such thing")
    assert command("check", tmp_path / "x") == 1
    assert "expected a whole .safetensors file" in capsys.readouterr().err
    assert command("check", tmp_path / "none") == 1
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        command("write", tmp_path / "y", "--full", "-1")
    assert usage.value.code == 2
    assert "expected a number of texts" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        command("write", tmp_path / "y", "--input", texts_file(tmp_path), "--full", "99")
    assert usage.value.code == 2
    assert "argument --full: expected at most 2, all the texts, found 99" in capsys.readouterr().err
    assert command("write", tmp_path / "no" / "y") == 1
    expected = f"minilm-np: error: {tmp_path}/no/y: there is no folder {tmp_path}/no: make it first\n"
    assert capsys.readouterr().err == expected


def test_the_page_names_every_key_and_tensor(file: Path) -> None:
    page = (Path(conformance.__file__).parent / "CONFORMANCE.md").read_text(encoding="utf-8")
    _, manifest = read_safetensors(file)
    keys = [*manifest["model"]["config"], *(key for text in manifest["texts"] for key in text), *manifest["tolerance"]]
    keys += [f"model.{key}" for key in manifest["model"] if key != "name"] + list(manifest)
    for key in keys:
        assert f"`{key}`" in page or f'"{key}"' in page or f"`{key}" in page, key
    for name in manifest["intermediates"]:
        assert f"`[{name.removeprefix('encoder.layer.0.').split('layer.1.')[-1].split('layer.2.')[-1]}]`" in page, name

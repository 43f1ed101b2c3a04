"""CONFORMANCE.md is enough: a port from the page conforms, its example runs, and it names every key and tensor."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.verify import conformance
from minilm_np.verify.conformance import check, write
from minilm_np.verify.conformance_subjects import FULL_TEXTS
from tests.support.conformance_port import TEXTS, error, first_out, read_safetensors, tanh_gelu
from tests.support.models import living_weights, small_configs, torch_intermediates, torch_model

PAGE = Path(conformance.__file__).with_name("CONFORMANCE.md")


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
    for name in (entry["name"] for entry in manifest["model"]["parameters"]):
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
    tokenizer = SentenceEncoder.random(config, backend="numpy").tokenizer
    weights = {
        name: array.astype(np.float32) for name, array in living_weights(config, data.draw(st.integers(0, 9))).items()
    }
    encoder = SentenceEncoder.from_weights(config, tokenizer, weights, backend="numpy")
    path = tmp_path_factory.mktemp("drawn") / "file.safetensors"
    write(encoder, path, ["a b", "", "cut " * 30], full=2)
    assert first_out(path, weights, "float64") is None
    assert check(encoder, path).conforms

    arrays, manifest = read_safetensors(path)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    torch = torch_intermediates(torch_model(config, wide), arrays["texts.0.ids"][None].copy())
    for name, array in torch.items():
        assert error(array[0], arrays[f"texts.0.float64.{name}"]) <= manifest["tolerance"]["float64"], name


def test_the_page_names_every_key_and_tensor(file: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    _, manifest = read_safetensors(file)
    keys = [*manifest["model"]["config"], *(key for text in manifest["texts"] for key in text), *manifest["tolerance"]]
    keys += [f"model.{key}" for key in manifest["model"] if key != "name"] + list(manifest)
    for key in keys:
        assert f"`{key}`" in page or f'"{key}"' in page or f"`{key}" in page, key
    for name in (step["name"] for step in manifest["intermediates"]):
        assert f"`[{name.removeprefix('encoder.layer.0.').split('layer.1.')[-1].split('layer.2.')[-1]}]`" in page, name


def test_the_example_of_the_page_reads_the_file(file: Path) -> None:
    _, _, code = PAGE.read_text(encoding="utf-8").partition("```python\n")
    code = code.partition("```")[0]
    assert len(code.strip().splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(code, names)
    arrays, manifest = names["read"](file)
    expected, expected_manifest = read_safetensors(file)
    assert manifest == expected_manifest and arrays.keys() == expected.keys()
    for name, (shape, numbers) in arrays.items():
        assert np.array_equal(np.array(numbers).reshape(shape), expected[name]), name

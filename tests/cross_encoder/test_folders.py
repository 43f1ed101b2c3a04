"""Folders of cross-encoders that are broken, or need something that is not implemented: one refusal each."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minilm_np import CheckpointError, ConfigError, CrossEncoder, InputTypeError, InputValueError, SentenceEncoder
from minilm_np.model_files.cross_encoder_files import load_cross_encoder_config
from tests.support.compare import assert_same_bits

BARE = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "model"
    CrossEncoder.random(num_labels=2, backend="numpy").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to change, as sentence-transformers 6 writes it."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def bare(folder: Path) -> Path:
    """A copy to change, as sentence-transformers before 6 and transformers write it."""
    for name in BARE:
        (folder / name).unlink()
    return folder


def change(folder: Path, file: str, **changes: Any) -> None:
    """Change keys of a JSON file; `...` removes a key."""
    values = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_a_bare_folder_loads_alike(saved: Path, bare: Path) -> None:
    pairs = [("a", "b"), ("c", "")]
    found, expected = (CrossEncoder(each, backend="numpy").predict(pairs) for each in (bare, saved))
    assert_same_bits(found, expected)


@pytest.mark.parametrize(
    ("values", "activation"),
    [
        ({}, "Identity"),
        ({"id2label": {"0": "relevance"}}, "Sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, "Tanh"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.ReLU"}}, "ReLU"),
        ({"sentence_transformers": {"version": "4.0.0"}}, "Identity"),
        ({"id2label": ..., "num_labels": 1}, "Sigmoid"),
        ({"id2label": ...}, "Identity"),
    ],
)
def test_the_activation_is_found_in_order(bare: Path, values: dict[str, Any], activation: str) -> None:
    change(bare, "config.json", sentence_transformers=...)
    change(bare, "config.json", **values)
    assert load_cross_encoder_config(bare)[1].activation == activation
    assert load_cross_encoder_config(bare, "Tanh")[1].activation == "Tanh"


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"architectures": ["BertForTokenClassification"]}, "is not implemented: expected BertForSeq"),
        ("config.json", {"architectures": ["BertModel"]}, "found no classifier: use minilm_np.SentenceEncoder"),
        ("config.json", {"architectures": ...}, "found no classifier: use minilm_np.SentenceEncoder"),
        ("config.json", {"model_type": "roberta"}, 'model_type "roberta" is not implemented'),
        ("config.json", {"id2label": {"1": "a"}}, "id2label: expected an object of the labels' names"),
        ("config.json", {"id2label": {"0": 5}}, "id2label: expected an object of the labels' names"),
        ("config.json", {"id2label": ["a"]}, "id2label: expected an object of the labels' names"),
        ("config.json", {"id2label": ..., "num_labels": 0}, "num_labels: expected an integer from 1 to 10000, found 0"),
        (
            "config_sentence_transformers.json",
            {"activation_fn": "torch.nn.modules.activation.GELU"},
            'activation_fn "torch.nn.modules.activation.GELU" is not implemented: .*: pass activation_fn',
        ),
        ("config_sentence_transformers.json", {"activation_fn": "my.code"}, 'activation_fn "my.code" is not impl'),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type 'SparseEncoder' is not"),
        (
            "sentence_bert_config.json",
            {"transformer_task": "text-generation"},
            "transformer_task .* is not impl",
        ),
        ("sentence_bert_config.json", {"module_output_name": "token_embeddings"}, "module_output_name .* expected"),
    ],
)
def test_what_is_refused(folder: Path, file: str, values: dict[str, Any], message: str) -> None:
    change(folder, file, **values)
    with pytest.raises(ConfigError, match=rf"{file}: .*{message}"):
        CrossEncoder(folder, backend="numpy")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer", "LogitScore"], "expected one module, Transformer, .*, found Transformer, LogitScore"),
        (["Transformer", "Pooling"], "this model gives a vector of each text: use minilm_np.SentenceEncoder"),
        ([], "expected one module, Transformer, .*, found none"),
    ],
)
def test_other_modules_are_refused(folder: Path, kinds: list[str], message: str) -> None:
    modules = [{"type": f"sentence_transformers.{kind}", "path": "x" * number} for number, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match=message):
        CrossEncoder(folder, backend="numpy")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("bert.pooler.dense.weight", None, "is missing: .*: transformers would replace it by random numbers"),
        ("classifier.bias", None, r"'classifier\.bias' is missing: expected shape \(2,\)"),
        (
            "classifier.weight",
            np.zeros((3, 96), np.float32),
            r"expected shape \(2, 96\), .*, found \(3, 96",
        ),
        ("classifier.bias", np.zeros(2, np.int32), "expected dtype F16, BF16, F32, F64, found I32"),
        ("classifier.bias", np.full(2, np.nan, np.float32), "expected finite values, found 2 of 2"),
        ("qa_outputs.weight", np.zeros(2, np.float32), "1 unexpected tensors: 'qa_outputs.weight'"),
    ],
)
def test_heads_that_are_refused(folder: Path, name: str, array: Any, message: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if array is None:
        del tensors[name]
    else:
        tensors[name] = array
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=message):
        CrossEncoder(folder, backend="numpy")


def test_a_cross_encoder_is_no_sentence_encoder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_type: .*, found 'CrossEncoder': use minilm_np\.CrossEncoder"):
        SentenceEncoder(folder)
    (folder / "config_sentence_transformers.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json: .* this is a cross-encoder: use minilm_np\.CrossEncoder"):
        SentenceEncoder(folder)


@pytest.mark.filterwarnings("ignore:.* has no modules.json", "ignore:.* unknown keys are ignored")
@pytest.mark.parametrize("architectures", [["BertForSequenceClassification"], ..., ["BertModel"]])
def test_a_bare_cross_encoder_is_no_sentence_encoder(bare: Path, architectures: Any) -> None:
    change(bare, "config.json", architectures=architectures)
    with pytest.raises((ConfigError, CheckpointError), match=r"minilm_np\.CrossEncoder"):
        SentenceEncoder(bare)


def test_arguments_of_the_class_that_are_refused(folder: Path) -> None:
    with pytest.raises(InputValueError, match=r"num_labels: expected None or 2, .* found 3"):
        CrossEncoder(folder, backend="numpy", num_labels=3)
    with pytest.raises(InputValueError, match="max_length: expected an int from 3 to 128, found 129; a pair has 3"):
        CrossEncoder(folder, backend="numpy", max_length=129)
    with pytest.raises(InputTypeError, match="CrossEncoder has no argument 'other'"):
        CrossEncoder(folder, other=1)
    with pytest.raises(InputTypeError, match=r"model_name_or_path: expected the name of a model .* found int"):
        CrossEncoder(5)  # type: ignore[arg-type]
    with pytest.raises(InputValueError, match="safe_serialization: expected True"):
        CrossEncoder(folder, backend="numpy").save_pretrained(folder, safe_serialization=False)

"""ONNX graphs as `verify` opens them."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from minilm_np.errors import ImplementationError
from minilm_np.model_files.random_weights import SMALL
from minilm_np.verify import open_implementation
from tests.support.compare import assert_close
from tests.support.models import torch_model
from tests.support.verify_ports import recorded

TEXTS = ["hello world", "", "a much longer text than the others, with [SEP] in it"]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def export(
    encoder: SentenceEncoder, path: Path, *, pooled: bool = False, outputs: list[str] | None = None,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"), tokens: int | None = None,
    dtype: str = "int64",
) -> Path:  # fmt: skip
    """The encoder as an ONNX graph, by torch's exporter."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = torch_model(encoder.config, dict(encoder.weights))

        def forward(self, *arrays: Any) -> Any:
            bert = self.bert(**dict(zip(inputs, arrays, strict=True)))
            hidden = bert.last_hidden_state
            if not pooled:
                return (hidden,) if outputs is None or len(outputs) == 1 else (hidden, hidden[:, 0] * 2.0)
            mask = arrays[1][..., None].to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    names = outputs or ["sentence_embedding" if pooled else "last_hidden_state"]
    axes = {} if tokens else {name: {0: "texts", 1: "tokens"} for name in inputs}
    ones = torch.ones(1 if tokens else 2, tokens or 8, dtype=getattr(torch, dtype))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Graph().eval(), tuple(torch.zeros_like(ones) if name == "token_type_ids" else ones for name in inputs),
            str(path), input_names=list(inputs), output_names=names, dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    return path


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"pooled": True},
        {"pooled": True, "outputs": ["vector"]},
        {"outputs": ["some_output"]},
        {"outputs": ["last_hidden_state", "pooler_output"]},
        {"inputs": ("input_ids", "attention_mask")},
        {"dtype": "int32"},
    ],
    ids=["hidden", "pooled", "pooled-unnamed", "hidden-unnamed", "pooler", "two-inputs", "int32"],
)
def test_an_onnx_graph_gives_the_vectors(small: SentenceEncoder, tmp_path: Path, kind: dict[str, Any]) -> None:
    other = open_implementation(str(export(small, tmp_path / "model.onnx", **kind)), small)
    assert_close(other.vectors(TEXTS), small.encode(TEXTS), rel=3e-6)
    assert other.token_ids(TEXTS) is None
    assert other.vectors([]).shape == (0, small.config.hidden_size)
    assert other.name.startswith("model.onnx (onnxruntime ")


def test_an_onnx_graph_of_fixed_size_gets_padding_and_cut_texts(small: SentenceEncoder, tmp_path: Path) -> None:
    other = open_implementation(str(export(small, tmp_path / "model.onnx", tokens=16)), small)
    assert_close(other.vectors(TEXTS[:2]), small.encode(TEXTS[:2]), rel=3e-6)
    cut = SentenceEncoder.random(replace(SMALL, max_seq_length=16), backend="numpy")
    with pytest.warns(UserWarning, match="has a fixed size of 16 tokens: longer texts are truncated for it"):
        assert_close(other.vectors(TEXTS[2:]), cut.encode(TEXTS[2:], on_truncation="ignore"), rel=3e-6)


def test_an_onnx_graph_shows_its_intermediates(small: SentenceEncoder, tmp_path: Path) -> None:
    other = open_implementation(str(export(small, tmp_path / "model.onnx")), small)
    intermediates = other.intermediates(TEXTS)
    assert intermediates is not None
    for text, steps in zip(TEXTS, intermediates, strict=True):
        expected = recorded(small, text)
        assert set(expected) - set(steps) == {"pooling", "normalize"}
        for name, array in steps.items():
            assert_close(array, expected[name], rel=1e-5, what=name)


def write_graph(path: Path, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, list[int]]) -> Path:
    """A graph of constants: what its inputs are called and its outputs look like."""
    import onnx
    from onnx import helper

    nodes = [helper.make_node("ConstantOfShape", [f"{name}_shape"], [name]) for name in outputs]
    shapes = [helper.make_tensor(f"{name}_shape", onnx.TensorProto.INT64, [len(s)], s) for name, s in outputs.items()]
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()], shapes,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


INT64, FLOAT = 7, 1


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"pixels": (INT64, ["B", "T"])}, {"hidden": [1, 2, 96]}, "expected the inputs input_ids, .* found pixels"),
        ({"input_ids": (FLOAT, ["B", "T"])}, {"hidden": [1, 2, 96]}, r"expected int64 or int32 .* tensor\(float\)"),
        ({"input_ids": (INT64, ["T"])}, {"hidden": [1, 2, 96]}, r"input_ids: expected .* of shape \['T'\]"),
        (
            {"input_ids": (INT64, ["B", "T"])},
            {"a": [1, 96], "b": [1, 96]},
            r"an output named .*found a \(rank 2\), b",
        ),
        ({"input_ids": (INT64, ["B", "T"])}, {"pooler_output": [1, 96]}, r"expected an output named .*found \(none\)"),
    ],
)
def test_an_onnx_graph_of_something_else_is_refused(
    small: SentenceEncoder, tmp_path: Path, inputs: Any, outputs: Any, message: str
) -> None:
    path = write_graph(tmp_path / "model.onnx", inputs, outputs)
    with pytest.raises(ImplementationError, match=message):
        open_implementation(str(path), small)


def test_what_is_no_onnx_graph_is_refused(small: SentenceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ImplementationError, match=r"model.onnx: onnxruntime cannot load it: .*[Pp]rotobuf"):
        open_implementation(str(path), small)

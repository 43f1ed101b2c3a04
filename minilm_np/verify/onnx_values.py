"""The intermediates inside an ONNX graph, found by the names that torch's exporter gives to values.

The module `encoder.layer.0.output.dense` computes the value `/encoder/layer.0/output/dense/Add_output_0`, with the path
of an outer module in front, if there is one. The last such value is the module's result. Quantisation keeps the names.
"""

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

from minilm_np.verify.interface import load_extra

_VALUE = re.compile(r"/(?:.*/)?(?P<module>(?:embeddings|encoder)/.*)/(?!Constant)[A-Za-z]+(?:_\d+)?_output_0")


def find_values(graph: Any, names: Container[str]) -> dict[str, str]:
    """Return, by name, the values of a graph (onnx.GraphProto) that are intermediates and can be identified."""
    found: dict[str, str] = {}
    for node in graph.node:  # in the order of computation: the last value of a module wins
        match = _VALUE.fullmatch(node.output[0]) if node.output else None
        if match is None:
            continue
        module = match["module"].replace("/", ".")
        if module in names:
            found[module] = node.output[0]
        elif f"{module}.context" in names:  # the steps of attention are not modules
            if node.op_type == "Softmax":
                found[f"{module}.scores"], found[f"{module}.probs"] = node.input[0], node.output[0]
            elif node.op_type == "Reshape":
                found[f"{module}.context"] = node.output[0]
    return found


def expose(path: Path, names: Container[str]) -> tuple[bytes, dict[str, str]] | None:
    """Return a file's graph with its intermediates as additional outputs, and their names; None if it has none.

    Raises MissingExtraError: the package onnx is not installed.
    """
    onnx = load_extra("onnx")
    model = onnx.load(path)
    values = find_values(model.graph, names)
    if not values:
        return None
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in sorted({*values.values()} - present))
    return model.SerializeToString(), values

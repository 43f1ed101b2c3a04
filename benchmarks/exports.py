"""Export the published model to the formats of other engines.

    python -m benchmarks.exports NAME... [--output FILE]

    onnx                   the plain graph
    onnx-fused             the same with fused operators (ONNX Runtime's optimizer for BERT)
    onnx-int8              quantised dynamically, one scale per weight
    onnx-int8-channels     quantised dynamically, one scale per channel of a weight
    onnx-fused-int8        the fused graph, quantised in this way
    openvino               from the plain graph
    openvino-int8          quantised after training by NNCF, with 300 texts
    ctranslate2            in float32; ctranslate2-bfloat16, ctranslate2-int16, ctranslate2-int8

prints the path of each export, or copies one to FILE. Exports are cached in `benchmarks` in the package's cache, by the
code below and the versions of the packages that made them. Exporting needs torch, transformers and the other engine.
`benchmarks.peers` runs this command if exports are missing.
"""

import argparse
import hashlib
import inspect
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import CHECKOUT, installed_version, say
from benchmarks.texts import paragraphs
from minilm_np._files import package_cache, staging_folder
from minilm_np.cli.files import check_output
from minilm_np.errors import MiniLMError
from minilm_np.model_files.hub import fetch
from minilm_np.model_files.manifest import DEFAULT_MODEL

_ONNX = ("torch", "transformers", "onnx")
# by name: the file, and the distributions whose versions decide its content
FILES = {
    "onnx": ("model.onnx", _ONNX),
    "onnx-int8": ("model_int8.onnx", (*_ONNX, "onnxruntime")),  # for `minilm-np verify`
    "onnx-fused": ("fused.onnx", (*_ONNX, "onnxruntime")),
    "onnx-int8-channels": ("int8.onnx", (*_ONNX, "onnxruntime")),
    "onnx-fused-int8": ("fused_int8.onnx", (*_ONNX, "onnxruntime")),
    "openvino": ("model.xml", (*_ONNX, "openvino")),
    "openvino-int8": ("int8.xml", (*_ONNX, "openvino", "nncf")),
    "ctranslate2": (".", ("torch", "transformers", "ctranslate2")),
    "ctranslate2-bfloat16": (".", ("torch", "transformers", "ctranslate2")),
    "ctranslate2-int16": (".", ("torch", "transformers", "ctranslate2")),
    "ctranslate2-int8": (".", ("torch", "transformers", "ctranslate2")),
}
CALIBRATION_TEXTS = 300


class ExportError(Exception):
    """The model could not be exported."""


def prepare(names: Sequence[str]) -> None:
    """Make the missing exports in one child process. It stops at the first failure, which `find` then reports."""
    if missing := [name for name in names if not _place(name).exists()]:
        say(f"exporting the model to {', '.join(missing)} (once)")
        command = [sys.executable, "-m", "benchmarks.exports", *missing]
        subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)


def find(name: str) -> Path:
    """Return the path of an export. If it is missing, a child process makes it first. Raises ExportError."""
    path = _place(name)
    if not path.exists():
        say(f"exporting the model to {name} (once)")
        command = [sys.executable, "-m", "benchmarks.exports", name]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExportError(f"exporting to {name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return path


def cache() -> Path:
    """Return the folder of everything that the benchmarks keep for later runs."""
    return package_cache() / "benchmarks"


def _place(name: str) -> Path:
    file, distributions = FILES[name]
    versions = [f"{distribution} {installed_version(distribution)}" for distribution in distributions]
    code = [inspect.getsource(getattr(maker, "func", maker)) for maker in MAKERS.values()]
    recipe = hashlib.sha256(repr((versions, code)).encode()).hexdigest()[:16]
    return cache() / f"{name}-{recipe}" / file


def make(name: str) -> None:
    """Make an export in a folder beside its place, then move it there."""
    place = _place(name)
    folder = place if FILES[name][0] == "." else place.parent
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["NNCF_CI"] = "1"  # NNCF sends no statistics then
    model = str(fetch(DEFAULT_MODEL, on_message=lambda message: None).path)
    with staging_folder(folder.parent, ".staging-") as staged:
        MAKERS[name](model, staged)
        try:
            staged.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise


def _onnx(model: str, folder: Path) -> None:
    import torch
    from transformers import BertModel

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel.from_pretrained(model, attn_implementation="eager", add_pooling_layer=False)

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            bert = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return bert.last_hidden_state

    inputs, axes = ("input_ids", "attention_mask", "token_type_ids"), {0: "texts", 1: "tokens"}
    ones = torch.ones(2, 8, dtype=torch.int64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Hidden().train(False),
            (ones, ones, torch.zeros_like(ones)),
            str(folder / "model.onnx"),
            input_names=list(inputs),
            output_names=["hidden"],
            dynamic_axes=dict.fromkeys((*inputs, "hidden"), axes),
            opset_version=17,
            dynamo=False,
        )


def _int8(model: str, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(find("onnx"), folder / "model_int8.onnx", weight_type=QuantType.QInt8)


def _int8_channels(source: str, file: str, model: str, folder: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    types = {"DefaultTensorType": TensorProto.FLOAT}  # of the results of fused operators
    quantize_dynamic(find(source), folder / file, weight_type=QuantType.QInt8, per_channel=True, extra_options=types)


def _fused(model: str, folder: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    fused = optimize_model(str(find("onnx")), model_type="bert", num_heads=12, hidden_size=384, opt_level=0)
    found = fused.get_fused_operator_statistics()
    expected = {"EmbedLayerNormalization": 1, "Attention": 6, "SkipLayerNormalization": 12, "BiasGelu": 6}
    if any(found[operator] != count for operator, count in expected.items()):
        raise ExportError(f"expected the fusions {expected}, found {found}")
    fused.change_graph_inputs_to_int32()  # the dtype of the fused embedding: saves three casts
    fused.save_model_to_file(str(folder / "fused.onnx"))


def _openvino(model: str, folder: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(str(find("onnx"))), folder / "model.xml", compress_to_fp16=False)


def _openvino_int8(model: str, folder: Path) -> None:
    """Quantise activations, too: their ranges come from texts that are no benchmark's texts."""
    import nncf
    import numpy as np
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def inputs(text: str) -> dict[str, Any]:
        ids = np.array([tokenizer.encode(text).ids])
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    quantised = nncf.quantize(
        openvino.Core().read_model(find("openvino")),
        nncf.Dataset(paragraphs(CALIBRATION_TEXTS, half=0), inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATION_TEXTS,
    )
    openvino.save_model(quantised, folder / "int8.xml", compress_to_fp16=False)


def _ctranslate2(quantization: str, model: str, folder: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(model).convert(str(folder), quantization=quantization, force=True)


MAKERS: dict[str, Callable[[str, Path], None]] = {
    "onnx": _onnx,
    "onnx-int8": _int8,
    "onnx-fused": _fused,
    "onnx-int8-channels": partial(_int8_channels, "onnx", "int8.onnx"),
    "onnx-fused-int8": partial(_int8_channels, "onnx-fused", "fused_int8.onnx"),
    "openvino": _openvino,
    "openvino-int8": _openvino_int8,
    "ctranslate2": partial(_ctranslate2, "float32"),
    "ctranslate2-bfloat16": partial(_ctranslate2, "bfloat16"),
    "ctranslate2-int16": partial(_ctranslate2, "int16"),
    "ctranslate2-int8": partial(_ctranslate2, "int8"),
}


def copy(name: str, output: Path) -> None:
    """Copy an existing export to `output`, with the additional files that OpenVINO has."""
    place = _place(name)
    if place.is_dir():
        shutil.copytree(place, output)
        return
    for file in place.parent.glob(f"{place.stem}.*"):
        shutil.copyfile(file, output if file == place else output.with_suffix(file.suffix))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exports",
        description="Export the model to the formats of other engines (cached), and print the paths.",
    )
    parser.add_argument("names", nargs="+", choices=FILES, metavar="NAME", help=f"{', '.join(FILES)}; one or more")
    parser.add_argument("--output", type=Path, metavar="FILE", help="copy the export to FILE (default: only cache it)")
    options = parser.parse_args(arguments)
    if options.output and len(options.names) > 1:
        parser.error(f"argument --output: expected one NAME with it, found {len(options.names)}")
    try:
        if options.output:
            check_output(options.output)
        for name in options.names:
            if not _place(name).exists():
                make(name)
            if options.output:
                copy(name, options.output)
            print(options.output or _place(name))
    except (ExportError, MiniLMError, OSError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()

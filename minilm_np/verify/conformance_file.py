"""The layout of a conformance file, as CONFORMANCE.md describes it: read and check one, and compare its model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from minilm_np.errors import ConfigError, InputValueError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.tensors import read_tensors
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder

FORMAT = "minilm_np conformance 1"  # the number changes with the layout


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the manifest of a conformance file; names, shapes, dtypes and finiteness are checked.

    Raises OSError, InputValueError.
    """
    arrays, manifest = read_tensors(path, FORMAT)
    try:
        config = ModelConfig(**manifest["model"]["config"])
        expected = _layout(manifest, config, [len(arrays[f"texts.{i}.ids"]) for i in range(len(manifest["texts"]))])
        complete = (
            all(isinstance(text["text"], str) for text in manifest["texts"])
            and all(manifest["tolerance"][dtype] > 0 for dtype in ("float64", "float32"))
            and isinstance(manifest["model"]["weights_sha256"], str)
            and "contract" in manifest["written_by"]
        )
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:  # any value may be of any type
        raise InputValueError(f"{path}: manifest: {type(error).__name__}: {error}: see CONFORMANCE.md") from None
    if not complete:
        raise InputValueError(f"{path}: manifest: a text, a tolerance or a digest is not as in CONFORMANCE.md")
    for name in sorted(arrays.keys() | expected.keys()):
        found = (str(arrays[name].dtype), arrays[name].shape) if name in arrays else "none"
        if found != expected.get(name, "none"):
            raise InputValueError(f"{path}: tensor {name!r}: expected {expected.get(name, 'none')}, found {found}")
        if not np.isfinite(arrays[name]).all():
            raise InputValueError(f"{path}: tensor {name!r}: expected finite values, found NaN or infinity")
        if name.endswith(".ids") and not 0 <= arrays[name].min() <= arrays[name].max() < config.vocab_size:
            raise InputValueError(f"{path}: tensor {name!r}: expected token ids from 0 to {config.vocab_size - 1}")
    return arrays, manifest


def _layout(
    manifest: Mapping[str, Any], config: ModelConfig, lengths: Sequence[int]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtype and shape of every tensor of a file, by name."""
    expected: dict[str, tuple[str, tuple[int, ...]]]
    expected = {f"texts.{i}.ids": ("int64", (T,)) for i, T in enumerate(lengths)}
    shape: tuple[int, ...] = (len(lengths), config.hidden_size)
    expected |= {"vectors.float64": ("float64", shape), "vectors.float32": ("float32", shape)}
    sizes = {"D": config.hidden_size, "H": config.num_attention_heads, "F": config.intermediate_size}
    for i, T in enumerate(lengths):
        if not 1 <= T <= config.max_seq_length:
            raise ValueError(f"text {i} has {T} tokens: expected 1 to {config.max_seq_length}")
        for name, letters in manifest["intermediates"].items() if manifest["texts"][i]["intermediates"] else ():
            shape = tuple((sizes | {"T": T})[letter] for letter in letters.split())
            expected |= {f"texts.{i}.{dtype}.{name}": (dtype, shape) for dtype in ("float64", "float32")}
    return expected


def described(encoder: SentenceEncoder) -> dict[str, Any]:
    """Return the manifest's `model`: the name, and everything that determines the vectors."""
    folder = encoder.folder
    config = asdict(encoder.config)
    del config["transformer_path"]  # a property of the folder, not of the model
    return {
        "name": "random weights" if folder is None else folder.name or folder.path.name,
        "config": config,
        "weights_sha256": encoder.weights_digest,
        "parameters": {name: list(shape) for name, shape in parameter_shapes(encoder.config).items()},
    }


def check_model(path: str | os.PathLike[str], expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise InputValueError unless the model of a file and the model found are the same."""
    for field, value in expected["config"].items():
        if found["config"].get(field) != value:
            raise InputValueError(
                f"{path} is for another model, {expected['name']}: expected {field} {value!r}, found "
                f"{found['config'].get(field)!r} in {found['name']}: check it with the model that wrote it (--model)"
            )
    if found["weights_sha256"] != expected["weights_sha256"]:
        raise InputValueError(
            f"{path} is for other weights, those of {expected['name']}: expected the SHA-256 "
            f"{expected['weights_sha256']:.16}..., found {found['weights_sha256']:.16}... in {found['name']}: check it "
            "with the model that wrote it (--model)"
        )

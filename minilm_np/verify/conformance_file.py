"""The layout of a conformance file, as CONFORMANCE.md describes it: read and check one, and compare its model."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from minilm_np._checks import short_repr
from minilm_np.errors import ConfigError, InputValueError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig, require_plain_bert
from minilm_np.model_files.tensors import read_tensors
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder

# fields of ModelConfig: a property of the folder, and those that have one value in every file
NOT_WRITTEN = (
    "transformer_path", "hidden_act", "model_type", "padding_idx", "relative_attention_num_buckets",
    "dense_size", "dense_bias", "dense_activation", "dense_path", "include_prompt",
)  # fmt: skip

FORMAT = "minilm_np conformance 2"  # the number changes with the layout


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the manifest of a conformance file; names, shapes, dtypes and finiteness are checked.

    Raises OSError, InputValueError.
    """
    arrays, manifest = read_tensors(path, FORMAT)
    left = set(arrays)
    try:
        config = ModelConfig(**manifest["model"]["config"])
        complete = (
            all(isinstance(text["text"], str) for text in manifest["texts"])
            and all(0 < manifest["tolerance"][dtype] < math.inf for dtype in ("float64", "float32"))
            and isinstance(manifest["model"]["weights_sha256"], str)
            and isinstance(manifest["model"]["name"], str)
            and "contract" in manifest["written_by"]
            and all(isinstance(line, str) for line in manifest["tokenizer_lines"])
        )
        # lazy: the manifest may list many more tensors than the file has, and the first one that differs is an error
        for name, dtype, shape in _layout(manifest, config, arrays) if complete else ():
            found = (str(arrays[name].dtype), arrays[name].shape) if name in arrays else "none"
            if found != (dtype, shape):
                raise InputValueError(f"{path}: tensor {short_repr(name)}: expected {(dtype, shape)}, found {found}")
            left.discard(name)
    except InputValueError:
        raise
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:  # any value may be of any type
        raise InputValueError(f"{path}: manifest: {type(error).__name__}: {error!s:.200}: see CONFORMANCE.md") from None
    if not complete:
        raise InputValueError(f"{path}: manifest: a text, a tolerance or a digest is not as in CONFORMANCE.md")
    for name in sorted(left):
        found = (str(arrays[name].dtype), arrays[name].shape)
        raise InputValueError(f"{path}: tensor {short_repr(name)}: expected none, found {found}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputValueError(f"{path}: tensor {name!r}: expected finite values, found NaN or infinity")
        if name.endswith(".ids") and array.size and not 0 <= array.min() <= array.max() < config.vocab_size:
            raise InputValueError(f"{path}: tensor {name!r}: expected token ids from 0 to {config.vocab_size - 1}")
    offsets = arrays["tokenizer_lines.offsets"]
    if offsets[0] != 0 or offsets[-1] != len(arrays["tokenizer_lines.ids"]) or (np.diff(offsets) < 1).any():
        raise InputValueError(
            f"{path}: tensor 'tokenizer_lines.offsets': expected rising numbers from 0 to the number of ids"
        )
    return arrays, manifest


def line_ids(arrays: Mapping[str, Array]) -> list[list[int]]:
    """Return the token ids of each of the tokenizer's lines."""
    ids, offsets = arrays["tokenizer_lines.ids"].tolist(), arrays["tokenizer_lines.offsets"].tolist()
    return [ids[start:stop] for start, stop in pairwise(offsets)]


def _layout(
    manifest: Mapping[str, Any], config: ModelConfig, arrays: Mapping[str, Array]
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of every tensor of a file. The lengths of the texts are those of their ids in `arrays`."""
    n_texts = len(manifest["texts"])
    yield "vectors.float64", "float64", (n_texts, config.hidden_size)
    yield "vectors.float32", "float32", (n_texts, config.hidden_size)
    yield "tokenizer_lines.ids", "int64", arrays["tokenizer_lines.ids"].shape[:1]
    yield "tokenizer_lines.offsets", "int64", (len(manifest["tokenizer_lines"]) + 1,)
    sizes = {"D": config.hidden_size, "H": config.num_attention_heads, "F": config.intermediate_size}
    for i, text in enumerate(manifest["texts"]):
        T = len(arrays[f"texts.{i}.ids"])
        yield f"texts.{i}.ids", "int64", (T,)
        if not 1 <= T <= config.max_seq_length:
            raise ValueError(f"text {i} has {T} tokens: expected 1 to {config.max_seq_length}")
        for step in manifest["intermediates"] if text["intermediates"] else ():
            shape = tuple((sizes | {"T": T})[letter] for letter in step["dimensions"].split())
            for dtype in ("float64", "float32"):
                yield f"texts.{i}.{dtype}.{step['name']}", dtype, shape


def described(encoder: SentenceEncoder) -> dict[str, Any]:
    """Return the manifest's `model`: the name, and everything that determines the vectors.

    Raises ConfigError: the model is not BERT with GELU and without Dense, which is all that CONFORMANCE.md describes.
    """
    folder = encoder.folder
    require_plain_bert(encoder.config, "conformance")
    config = asdict(encoder.config)
    for name in NOT_WRITTEN:
        del config[name]
    return {
        "name": "random weights" if folder is None else folder.name or folder.path.name,
        "config": config,
        "weights_sha256": encoder.weights_digest,
        "parameters": [
            {"name": name, "shape": list(shape)} for name, shape in parameter_shapes(encoder.config).items()
        ],
    }


def check_model(path: str | os.PathLike[str], expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise InputValueError unless the model of a file and the model found are the same."""
    for field, value in expected["config"].items():
        if found["config"].get(field) != value:
            raise InputValueError(
                f"{path} is for another model, {expected['name']}: expected {field} {short_repr(value)}, found "
                f"{short_repr(found['config'].get(field))} in {found['name']}: check it with the model that wrote it "
                "(--model)"
            )
    if found["weights_sha256"] != expected["weights_sha256"]:
        raise InputValueError(
            f"{path} is for other weights, those of {expected['name']}: expected the SHA-256 "
            f"{expected['weights_sha256']:.16}..., found {found['weights_sha256']:.16}... in {found['name']}: check it "
            "with the model that wrote it (--model)"
        )

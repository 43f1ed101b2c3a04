"""The layout of a conformance file, as CONFORMANCE.md describes it: read and check one, and compare its model."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from minilm_np._checks import short_repr
from minilm_np.errors import ConfigError, InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.tensors import read_tensors
from minilm_np.reference import Array
from minilm_np.verify.array_errors import largest_error


@dataclass(frozen=True)
class Kind:
    """What differs between the files of two kinds of models."""

    format: str  # the number changes with the layout
    results: str  # the name of the tensors with the results of all texts
    result: str  # the name of one result in a report
    of_pairs: bool


VECTORS = Kind("minilm_np conformance 2", "vectors", "vector", False)
LOGITS = Kind("minilm_np pair conformance 1", "logits", "logits", True)


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """Return the kind of a file."""
    return LOGITS if manifest["format"] == LOGITS.format else VECTORS


def shown_text(manifest: Mapping[str, Any], number: int) -> str:
    """Return a text of a file, or both texts of a pair, as a message shows it."""
    entry = manifest["texts"][number]
    parts = [entry["text"], *([entry["text_pair"]] if kind_of(manifest).of_pairs else [])]
    return ", ".join(repr(text if len(text) <= 40 else text[:37] + "...") for text in parts)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the manifest of a conformance file; names, shapes, dtypes and finiteness are checked.

    Raises OSError, InputValueError.
    """
    arrays, manifest = read_tensors(path, VECTORS.format, LOGITS.format)
    kind = kind_of(manifest)
    left = set(arrays)
    try:
        config = ModelConfig(**manifest["model"]["config"])
        complete = (
            all(isinstance(text["text"], str) for text in manifest["texts"])
            and (not kind.of_pairs or all(isinstance(text["text_pair"], str) for text in manifest["texts"]))
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
        for end, most, what in ((".ids", config.vocab_size, "ids"), ("type_ids", config.type_vocab_size, "types")):
            if name.endswith(end) and array.size and not 0 <= array.min() <= array.max() < most:
                raise InputValueError(f"{path}: tensor {name!r}: expected token {what} from 0 to {most - 1}")
    offsets = arrays["tokenizer_lines.offsets"]
    if offsets[0] != 0 or offsets[-1] != len(arrays["tokenizer_lines.ids"]) or (np.diff(offsets) < 1).any():
        raise InputValueError(
            f"{path}: tensor 'tokenizer_lines.offsets': expected rising numbers from 0 to the number of ids"
        )
    return arrays, manifest


def error_of(name: str, x: Array, r: Array, arrays: Mapping[str, Array]) -> tuple[float, float]:
    """Return the errors of an array x against the float64 array r of a file, as CONFORMANCE.md measures them.

    arrays: those of the file. One logit may be near 0, so logits are compared with the largest one of the file.
    """
    is_logits = name.endswith(("classifier", LOGITS.result))
    return largest_error(x, r, size=float(np.abs(arrays["logits.float64"]).max()) if is_logits else None)


def line_ids(arrays: Mapping[str, Array]) -> list[list[int]]:
    """Return the token ids of each of the tokenizer's lines."""
    ids, offsets = arrays["tokenizer_lines.ids"].tolist(), arrays["tokenizer_lines.offsets"].tolist()
    return [ids[start:stop] for start, stop in pairwise(offsets)]


def _layout(
    manifest: Mapping[str, Any], config: ModelConfig, arrays: Mapping[str, Array]
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of every tensor of a file. The lengths of the texts are those of their ids in `arrays`."""
    n_texts = len(manifest["texts"])
    kind = kind_of(manifest)
    size = len(manifest["model"]["labels"]) if kind.of_pairs else config.hidden_size
    yield f"{kind.results}.float64", "float64", (n_texts, size)
    yield f"{kind.results}.float32", "float32", (n_texts, size)
    yield "tokenizer_lines.ids", "int64", arrays["tokenizer_lines.ids"].shape[:1]
    yield "tokenizer_lines.offsets", "int64", (len(manifest["tokenizer_lines"]) + 1,)
    sizes = {"D": config.hidden_size, "H": config.num_attention_heads, "F": config.intermediate_size, "C": size}
    for i, text in enumerate(manifest["texts"]):
        T = len(arrays[f"texts.{i}.ids"])
        yield f"texts.{i}.ids", "int64", (T,)
        if kind.of_pairs:
            yield f"texts.{i}.token_type_ids", "int64", (T,)
        if not 1 <= T <= config.max_seq_length:
            raise ValueError(f"text {i} has {T} tokens: expected 1 to {config.max_seq_length}")
        for step in manifest["intermediates"] if text["intermediates"] else ():
            shape = tuple((sizes | {"T": T})[letter] for letter in step["dimensions"].split())
            for dtype in ("float64", "float32"):
                yield f"texts.{i}.{dtype}.{step['name']}", dtype, shape


def check_model(path: str | os.PathLike[str], expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise InputValueError unless the model of a file and the model found are the same."""
    if found.get("labels") != expected.get("labels"):
        raise InputValueError(
            f"{path} is for another model, {expected['name']}: expected labels {short_repr(expected.get('labels'))}, "
            f"found {short_repr(found.get('labels'))} in {found['name']}: check it with the model that wrote it "
            "(--model)"
        )
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

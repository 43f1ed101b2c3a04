"""A conformance file: what any implementation of one model has to compute, in one .safetensors file.

CONFORMANCE.md is its layout, for those who check an implementation in another language. `write` makes such a file, and
`check` checks this installation against one.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

import minilm_np
from minilm_np import reference
from minilm_np.errors import ConfigError, InputValueError, NonFiniteError
from minilm_np.model_files.config import ModelConfig
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.text.tokenizer import check_texts
from minilm_np.trace import Array, dimensions, intermediates, read_tensors, write_tensors
from minilm_np.verify.texts import built_in_texts

FORMAT = "minilm_np conformance 1"  # the number changes with the layout

# The first texts of a file have all intermediates, so they are short, and yet of every kind.
FULL_TEXTS = ("This is an example sentence", "", "Naïve café 東京 👍 [SEP]")

LEAST_TOLERANCE = 1e-5  # of float32: six times what the reference needs on the published model
ROUNDINGS = 5  # a model that is harder on float32 gets so many times the file's own float32 error
FLOAT64_FACTOR = 1e5  # by which the tolerance of float64 is the smaller

ENGINE = "engine float32"

Weights = Mapping[str, Array]


@dataclass(frozen=True)
class Row:
    """How far one array of one text is from the file's float64."""

    text: int
    implementation: str
    name: str  # of an intermediate, or "ids", "vector", "vector, bit for bit"
    max_abs: float
    max_rel: float  # max|difference| / max|float64|, of the whole array
    tolerance: float  # of max_rel; where it is 0, max_abs is how many numbers differ, max_rel their part

    @property
    def conforms(self) -> bool:
        return self.max_rel <= self.tolerance  # NaN does not


@dataclass(frozen=True)
class Conformance:
    """The result of `check`: what was compared, in the order of the texts and then of the model."""

    path: str
    manifest: dict[str, Any]  # of the file
    rows: list[Row]

    @property
    def conforms(self) -> bool:
        return all(row.conforms for row in self.rows)

    @property
    def first_failure(self) -> Row | None:
        """The first array that is out of tolerance; None where none is."""
        return next((row for row in self.rows if not row.conforms), None)


def write(
    encoder: SentenceEncoder,
    path: str | os.PathLike[str],
    texts: Sequence[str] | None = None,
    *,
    full: int | None = None,
) -> None:
    """Write a conformance file of this model. The same encoder on the same machine writes the same bytes.

    texts: what to put into it; None for `default_texts`.
    full: how many of the texts, from the first on, get all their intermediates, in float64 and in float32; None for
        three. A token of the published model takes 0.5 MB of them.

    The float64 arrays, and the float32 intermediates, are those of `reference.py`; the float32 vectors are the
    encoder's own. Raises InputTypeError, InputValueError (a text; no text), NonFiniteError, OSError.
    """
    texts = check_texts(default_texts(encoder) if texts is None else texts)
    if not texts:
        raise InputValueError("texts: expected at least one, found none")
    if full is None:
        full = min(len(FULL_TEXTS), len(texts))
    if not 0 <= full <= len(texts):
        raise InputValueError(f"full: expected 0 to {len(texts)}, the number of texts, found {full}")
    tokenized = encoder.tokenizer(texts)
    ids = [np.array(text, np.int64) for text in tokenized.ids]
    weights = encoder.weights
    arrays: dict[str, Array] = {f"texts.{i}.ids": text for i, text in enumerate(ids)}
    arrays["vectors.float32"] = encoder._engine.encode(tokenized.ids, normalize=False, report=lambda done: None)
    names: list[str] = []
    for dtype in ("float64", "float32"):
        nested = reference.nest(weights, dtype)
        for i in range(full):
            steps = intermediates(ids[i], nested, encoder.config)
            names = list(steps)
            arrays |= {f"texts.{i}.{dtype}.{name}": array for name, array in steps.items()}
        if dtype == "float64":
            arrays["vectors.float64"] = reference.encode_ragged(ids, nested, encoder.config)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise NonFiniteError(f"{name} is not finite: the weights overflow on this text")
    rounded = [name for name in arrays if ".float32" in name]
    worst = max(_error(arrays[name], arrays[name.replace("float32", "float64", 1)])[1] for name in rounded)
    tolerance = max(LEAST_TOLERANCE, ROUNDINGS * worst)
    manifest = {
        "format": FORMAT,
        "model": _described(encoder, weights),
        "texts": [
            {"text": text, "truncated": cut, "intermediates": i < full}
            for i, (text, cut) in enumerate(zip(texts, tokenized.truncated, strict=True))
        ],
        "intermediates": {name: dimensions(name) for name in names},
        "tolerance": {"float32": tolerance, "float64": tolerance / FLOAT64_FACTOR},
        "written_by": {"minilm-np": minilm_np.__version__, "backend": encoder.backend, "contract": _contract(encoder)},
    }
    write_tensors(path, arrays, manifest)


def default_texts(encoder: SentenceEncoder) -> list[str]:
    """`FULL_TEXTS`, and the built-in texts of `verify`."""
    return [*FULL_TEXTS, *(text for _, text in built_in_texts(encoder))]


def check(encoder: SentenceEncoder, path: str | os.PathLike[str]) -> Conformance:
    """Compare the tokenizer, the reference in float64 and float32, and the Numba engine with a conformance file.

    Everything but the tokenizer is given the file's token ids. The engine is left out where the encoder has the NumPy
    backend. Where the engine wrote the file, under the same version of the numerical contract, the bits count too.

    Raises OSError, and InputValueError: the file is none of these, or is broken, or belongs to another model.
    """
    arrays, manifest = read(path)
    weights = encoder.weights
    _check_model(path, manifest["model"], _described(encoder, weights))
    texts = manifest["texts"]
    ids = [arrays[f"texts.{i}.ids"].tolist() for i in range(len(texts))]
    found_ids = encoder.tokenizer(check_texts([text["text"] for text in texts])).ids
    rows = [[Row(i, "tokenizer", "ids", *_differing(found_ids[i], ids[i]), 0.0)] for i in range(len(texts))]
    for implementation, dtype, steps, encode in _implementations(encoder, weights):
        tolerance = manifest["tolerance"][dtype]
        vectors = encode(ids)
        for i, text in enumerate(texts):
            found = steps(ids[i]) if text["intermediates"] else {}
            pairs = [(name, array, arrays[f"texts.{i}.float64.{name}"]) for name, array in found.items()]
            pairs.append(("vector", vectors[i], arrays["vectors.float64"][i]))
            rows[i] += [Row(i, implementation, name, *_error(x, truth), tolerance) for name, x, truth in pairs]
            if implementation == ENGINE and manifest["written_by"]["contract"] == _contract(encoder):
                bits = (vectors[i].view(np.uint32), arrays["vectors.float32"][i].view(np.uint32))
                rows[i].append(Row(i, implementation, "vector, bit for bit", *_differing(*bits), 0.0))
    return Conformance(os.fspath(path), manifest, [row for of_text in rows for row in of_text])


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the manifest of a conformance file, every name, shape and dtype of them checked.

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
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:  # none of it can be relied on
        raise InputValueError(f"{path}: manifest: {type(error).__name__}: {error}: see CONFORMANCE.md") from None
    if not complete:
        raise InputValueError(f"{path}: manifest: a text, a tolerance or a digest is not what CONFORMANCE.md says")
    for name in sorted(arrays.keys() | expected.keys()):
        found = (str(arrays[name].dtype), arrays[name].shape) if name in arrays else "none"
        if found != expected.get(name, "none"):
            raise InputValueError(f"{path}: tensor {name!r}: expected {expected.get(name, 'none')}, found {found}")
        if not np.isfinite(arrays[name]).all():
            raise InputValueError(f"{path}: tensor {name!r}: expected finite values, found NaN or infinity")
        if name.endswith(".ids") and not 0 <= arrays[name].min() <= arrays[name].max() < config.vocab_size:
            raise InputValueError(f"{path}: tensor {name!r}: expected token ids from 0 to {config.vocab_size - 1}")
    return arrays, manifest


def _layout(manifest: Any, config: ModelConfig, lengths: Sequence[int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every tensor of a file, by its name."""
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


def _described(encoder: SentenceEncoder, weights: Weights) -> dict[str, Any]:
    """What decides a model's vectors, and its name, which does not."""
    folder = encoder.folder
    config = asdict(encoder.config)
    del config["transformer_path"]  # of a folder, not of a model
    return {
        "name": "random weights" if folder is None else folder.name or folder.path.name,
        "config": config,
        "weights_sha256": encoder.weights_digest,
        "parameters": {name: list(array.shape) for name, array in weights.items()},
    }


def _check_model(path: str | os.PathLike[str], expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise InputValueError unless the file is of this model."""
    for field, value in expected["config"].items():
        if found["config"].get(field) != value:
            raise InputValueError(
                f"{path} is of another model, {expected['name']}: expected {field} {value!r}, found "
                f"{found['config'].get(field)!r} in {found['name']}: check it with the model that it was written with"
            )
    if found["weights_sha256"] != expected["weights_sha256"]:
        raise InputValueError(
            f"{path} is of other weights, those of {expected['name']}: expected the SHA-256 "
            f"{expected['weights_sha256']:.16}..., found {found['weights_sha256']:.16}... of {found['name']}: check it "
            "with the model that it was written with"
        )


def _contract(encoder: SentenceEncoder) -> int | None:
    """The version of the numerical contract that the encoder's vectors keep; None for the NumPy backend."""
    if encoder.backend != "numba":
        return None
    from minilm_np.engine.float32.engine import CONTRACT_VERSION

    return CONTRACT_VERSION


Steps = Callable[[Sequence[int]], dict[str, Array]]
Encode = Callable[[Sequence[Sequence[int]]], Array]


def _implementations(encoder: SentenceEncoder, weights: Weights) -> Iterator[tuple[str, str, Steps, Encode]]:
    """What this installation can compute vectors with: its name, dtype, intermediates of one text, vectors of many."""
    for dtype in ("float64", "float32"):
        yield f"reference {dtype}", dtype, *_reference(encoder.config, reference.nest(weights, dtype))
    if encoder.backend == "numba":
        from minilm_np.engine.float32.engine import Float32Engine

        engine = encoder._engine
        assert isinstance(engine, Float32Engine)  # what the backend means
        yield ENGINE, "float32", engine.intermediates, engine.encode


def _reference(config: ModelConfig, weights: reference.Nested) -> tuple[Steps, Encode]:
    return (
        lambda ids: intermediates(np.array(ids), weights, config),
        lambda texts: reference.encode_ragged(texts, weights, config),
    )


def _error(found: Array, truth: Array) -> tuple[float, float]:
    """max|difference|, and as a part of max|truth|."""
    difference = float(np.abs(found.astype(np.float64) - truth).max())
    largest = float(np.abs(truth).max())
    return difference, difference / largest if largest else (0.0 if difference == 0 else math.inf)


def _differing(found: Iterable[int], expected: Sequence[int]) -> tuple[float, float]:
    """How many numbers differ, and as a part of all."""
    wrong = sum(bool(a != b) for a, b in zip_longest(found, expected))  # NumPy's bool would make it NumPy's int
    return wrong, wrong / len(expected)

"""Conformance files: `write` records what every implementation of a model must compute, `check` compares with it.

CONFORMANCE.md describes the file, for implementations in other languages. `check` is for this package; `check_port` in
`conformance_port.py` is for what another implementation has written.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

import minilm_np
from minilm_np import reference
from minilm_np._checks import check_texts
from minilm_np.engine.blas import one_blas_thread
from minilm_np.errors import InputValueError, NonFiniteError
from minilm_np.model_files.tensors import write_tensors
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.trace import dimensions, intermediates, trace
from minilm_np.verify.array_errors import largest_error
from minilm_np.verify.conformance_file import FORMAT, check_model, described, line_ids, read
from minilm_np.verify.texts import built_in_texts
from minilm_np.verify.tokenizer_lines import tokenizer_lines

# The first texts of a file have all intermediates. They are short, and of different kinds.
FULL_TEXTS = ("This is an example sentence", "", "Naïve café 東京 👍 [SEP]")

LEAST_TOLERANCE = 1e-5  # for float32: six times the error of the reference on the published model
ROUNDINGS = 5  # for a model on which float32 is less accurate: this many times the file's own float32 error
FLOAT64_FACTOR = 1e5  # the tolerance for float32 over that for float64


@dataclass(frozen=True)
class Check:
    """The error of one array of one text against the file's float64."""

    text: int | None  # None: the lines for the tokenizer
    implementation: str
    name: str  # of an intermediate, or "ids", "vector", "vector, bit for bit", "lines" (of which the ids differ)
    max_abs: float  # max|difference|; if the tolerance is 0, the number of values that differ
    max_rel: float  # max|difference| / max|float64|; if the tolerance is 0, the part of the values that differ
    tolerance: float  # of max_rel

    @property
    def conforms(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.max_rel <= self.tolerance


@dataclass(frozen=True)
class Conformance:
    """The result of `check`: the arrays compared, by text, and in the model's order."""

    path: str
    manifest: dict[str, Any]  # of the file
    rows: list[Check]

    @property
    def conforms(self) -> bool:
        """Whether every array conforms."""
        return all(row.conforms for row in self.rows)

    @property
    def first_failure(self) -> Check | None:
        """The first array that is out of tolerance, or None."""
        return next((row for row in self.rows if not row.conforms), None)


@one_blas_thread()
def write(
    encoder: SentenceEncoder,
    path: str | os.PathLike[str],
    texts: Sequence[str] | None = None,
    *,
    full: int | None = None,
) -> None:
    """Write a conformance file of this model. The same encoder on the same machine writes the same bytes.

    texts: the texts of the file. None: `default_texts`.
    full: the number of texts, from the first on, with all intermediates in float64 and float32. None: three. With the
        published model they take 0.5 MB per token.

    The float64 arrays and the float32 intermediates are those of `reference.py`; the float32 vectors are those of the
    encoder's own backend. Raises InputTypeError, InputValueError (a text, no text), NonFiniteError, SaveError.
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
    lines = tokenizer_lines()
    of_lines = encoder.tokenizer(lines).ids
    arrays["tokenizer_lines.ids"] = np.array([number for line in of_lines for number in line], np.int64)
    arrays["tokenizer_lines.offsets"] = np.cumsum([0, *map(len, of_lines)], dtype=np.int64)
    arrays["vectors.float32"] = _encoded(encoder, texts)
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
    worst = max(largest_error(arrays[name], arrays[name.replace("float32", "float64", 1)])[1] for name in rounded)
    tolerance = max(LEAST_TOLERANCE, ROUNDINGS * worst)
    manifest = {
        "format": FORMAT,
        "model": described(encoder),
        "texts": [
            {"text": text, "truncated": cut, "intermediates": i < full}
            for i, (text, cut) in enumerate(zip(texts, tokenized.truncated, strict=True))
        ],
        "tokenizer_lines": lines,
        "intermediates": [{"name": name, "dimensions": dimensions(name)} for name in names],
        "tolerance": {"float32": tolerance, "float64": tolerance / FLOAT64_FACTOR},
        "written_by": {
            "minilm-np": minilm_np.__version__, "backend": encoder.backend, "contract": encoder.contract,
        },
    }  # fmt: skip
    write_tensors(path, arrays, manifest)


def default_texts(encoder: SentenceEncoder) -> list[str]:
    """Return `FULL_TEXTS` and the built-in texts of `verify`."""
    return [*FULL_TEXTS, *(text for _, text in built_in_texts(encoder))]


@one_blas_thread()
def check(encoder: SentenceEncoder, path: str | os.PathLike[str]) -> Conformance:
    """Compare the tokenizer, the reference in float64 and float32, and the engine with a conformance file.

    The reference computes from the file's token ids, the engine from the texts. The engine is compared if its vectors
    have a numerical contract; texts whose token ids differ from the file's are left out. If the engine wrote the file
    under the same version of the contract, its vectors must be equal bit for bit.

    Raises OSError, and InputValueError: the file is not a conformance file, is broken, or is for another model.
    """
    arrays, manifest = read(path)
    check_model(path, manifest["model"], described(encoder))
    texts = check_texts([text["text"] for text in manifest["texts"]])
    found_ids = encoder.tokenizer(texts).ids
    ids = [arrays[f"texts.{i}.ids"].tolist() for i in range(len(texts))]
    rows = [[Check(i, "tokenizer", "ids", *differing(found_ids[i], ids[i]), 0.0)] for i in range(len(texts))]
    lines = encoder.tokenizer(check_texts(manifest["tokenizer_lines"])).ids
    for implementation, dtype, computed in (
        *_by_reference(encoder, manifest, ids),
        *_by_engine(encoder, manifest, [i for i in range(len(texts)) if found_ids[i] == ids[i]]),
    ):
        for i, found in computed:
            expected = {name: arrays[f"texts.{i}.float64.{name}"] for name in found if name != "vector"}
            expected["vector"] = arrays["vectors.float64"][i]
            rows[i] += [
                Check(i, implementation, name, *largest_error(x, expected[name]), manifest["tolerance"][dtype])
                for name, x in found.items()
            ]
            contract = manifest["written_by"]["contract"]
            if implementation == "engine float32" and contract == encoder.contract:
                bits = (found["vector"].view(np.uint32), arrays["vectors.float32"][i].view(np.uint32))
                rows[i].append(Check(i, implementation, "vector, bit for bit", *differing(*bits), 0.0))
    last = Check(None, "tokenizer", "lines", *differing(lines, line_ids(arrays)), 0.0)
    return Conformance(os.fspath(path), manifest, [*(row for of_text in rows for row in of_text), last])


Computed = Iterator[tuple[int, dict[str, Array]]]  # a text, and its arrays by name, the last one "vector"


def _by_reference(
    encoder: SentenceEncoder, manifest: Mapping[str, Any], ids: Sequence[Sequence[int]]
) -> Iterator[tuple[str, str, Computed]]:
    """The arrays of `reference.py` in both precisions."""
    weights = encoder.weights
    for dtype in ("float64", "float32"):
        yield f"reference {dtype}", dtype, _reference(encoder, reference.nest(weights, dtype), manifest, ids)


def _reference(
    encoder: SentenceEncoder, weights: reference.Nested, manifest: Mapping[str, Any], ids: Sequence[Sequence[int]]
) -> Computed:
    vectors = reference.encode_ragged(ids, weights, encoder.config)
    for i, text in enumerate(manifest["texts"]):
        steps = intermediates(np.array(ids[i]), weights, encoder.config) if text["intermediates"] else {}
        yield i, steps | {"vector": vectors[i]}


def _by_engine(
    encoder: SentenceEncoder, manifest: Mapping[str, Any], chosen: Sequence[int]
) -> Iterator[tuple[str, str, Computed]]:
    """The arrays of the encoder's engine for some texts, if its vectors have a contract."""
    if encoder.contract is not None and encoder.compute_type == "float32":  # the tolerances are those of float32
        yield "engine float32", "float32", _engine(encoder, manifest, chosen)


def _engine(encoder: SentenceEncoder, manifest: Mapping[str, Any], chosen: Sequence[int]) -> Computed:
    vectors = _encoded(encoder, [manifest["texts"][i]["text"] for i in chosen])
    for i, vector in zip(chosen, vectors, strict=True):
        text = manifest["texts"][i]
        steps = dict(trace(encoder, text["text"], backend=encoder.backend)) if text["intermediates"] else {}
        yield i, steps | {"vector": vector}


def _encoded(encoder: SentenceEncoder, texts: Sequence[str]) -> Array:
    """The encoder's vectors, whole and without a prompt, (B, D) float32."""
    vectors: Array = encoder.encode(texts, prompt="", truncate_dim=encoder.config.hidden_size, on_truncation="ignore")
    return vectors


def differing(found: Iterable[Any], expected: Sequence[Any]) -> tuple[float, float]:
    """Return how many values differ, and which part of all."""
    wrong = sum(bool(a != b) for a, b in zip_longest(found, expected))  # NumPy's bool would make it NumPy's int
    return wrong, wrong / max(1, len(expected))

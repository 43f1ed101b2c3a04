"""Conformance files: `write` records what every implementation of a model must compute, `check` compares with it.

CONFORMANCE.md describes the file, for implementations in other languages. `check` is for this package; `check_port` in
`conformance_port.py` is for what another implementation has written.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

import numpy as np

import minilm_np
from minilm_np import reference
from minilm_np._checks import check_texts
from minilm_np.cross_encoder import CrossEncoder
from minilm_np.engine.blas import one_blas_thread
from minilm_np.errors import InputValueError, NonFiniteError
from minilm_np.model_files.tensors import write_tensors
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.trace import dimensions
from minilm_np.verify.conformance_file import check_model, error_of, kind_of, line_ids, read
from minilm_np.verify.conformance_subjects import PairSubject, Subject, T, TextSubject, Tokens
from minilm_np.verify.interface import TextPair
from minilm_np.verify.tokenizer_lines import tokenizer_lines

LEAST_TOLERANCE = 1e-5  # for float32: six times the error of the reference on the published model
ROUNDINGS = 5  # for a model on which float32 is less accurate: this many times the error of the reference in float32
FLOAT64_FACTOR = 1e5  # the tolerance for float32 over that for float64


@dataclass(frozen=True)
class Check:
    """The error of one array of one text against the file's float64."""

    text: int | None  # None: the lines for the tokenizer
    implementation: str
    # of an intermediate, or "ids", "token_type_ids", "vector" or "logits", these with ", bit for bit", or "lines" (of
    # which the ids differ)
    name: str
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


Model = SentenceEncoder | CrossEncoder


def write(
    model: Model,
    path: str | os.PathLike[str],
    texts: Sequence[str] | Sequence[TextPair] | None = None,
    *,
    full: int | None = None,
) -> None:
    """Write a conformance file of this model. The same model on the same machine writes the same bytes.

    texts: the texts of the file, or the pairs for a cross-encoder. None: `default_texts`.
    full: the number of texts, from the first on, with all intermediates in float64 and float32. None: three. With the
        published model they take 0.5 MB per token.

    The float64 arrays and the float32 intermediates are those of `reference.py`; the float32 vectors or logits are
    those of the model's own backend. Raises InputTypeError, InputValueError (a text, no text, a model with another
    compute type), NonFiniteError, SaveError.
    """
    if isinstance(model, CrossEncoder):
        _write(PairSubject(model), path, cast(Sequence[TextPair] | None, texts), full)
    else:
        _write(TextSubject(model), path, cast(Sequence[str] | None, texts), full)


@one_blas_thread()
def _write(subject: Subject[T], path: str | os.PathLike[str], texts: Sequence[T] | None, full: int | None) -> None:
    checked = subject.checked(subject.default_texts() if texts is None else texts)
    if not checked:
        raise InputValueError("texts: expected at least one, found none")
    if full is None:
        full = min(len(subject.full), len(checked))
    if not 0 <= full <= len(checked):
        raise InputValueError(f"full: expected 0 to {len(checked)}, the number of texts, found {full}")
    kind = subject.loaded.kind
    if kind.compute_type != "float32":
        raise InputValueError(
            f"compute_type: expected 'float32', in which the file's results are, found {kind.compute_type!r}: load the "
            "model with compute_type='float32'"
        )
    tokens, results = subject.tokens(checked), subject.kind.results
    arrays: dict[str, Array] = {f"texts.{i}.ids": np.array(ids, np.int64) for i, ids in enumerate(tokens.ids)}
    types = tokens.types or [[]] * len(checked)
    if tokens.types is not None:
        arrays |= {f"texts.{i}.token_type_ids": np.array(of_text, np.int64) for i, of_text in enumerate(types)}
    lines = tokenizer_lines()
    of_lines = subject.loaded.tokenizer(lines).ids
    arrays["tokenizer_lines.ids"] = np.array([number for line in of_lines for number in line], np.int64)
    arrays["tokenizer_lines.offsets"] = np.cumsum([0, *map(len, of_lines)], dtype=np.int64)
    arrays[f"{results}.float32"] = subject.computed(checked)
    names: list[str] = []
    of_reference: dict[str, Array] = {}  # its results, by dtype
    for dtype in ("float64", "float32"):
        nested = reference.nest(subject.weights, dtype)
        for i in range(full):
            steps = subject.steps(tokens.ids[i], types[i], nested)
            names = list(steps)
            arrays |= {f"texts.{i}.{dtype}.{name}": array for name, array in steps.items()}
        of_reference[dtype] = subject.results(tokens, nested)
    arrays[f"{results}.float64"] = of_reference["float64"]
    # of the reference alone: a fault of the backend must not widen the tolerance by which it is judged
    rounded = {name: array for name, array in arrays.items() if ".float32." in name}
    rounded[f"{results}.float32"] = of_reference["float32"]
    for name, array in (*arrays.items(), *rounded.items()):
        if not np.isfinite(array).all():
            raise NonFiniteError(f"{name} is not finite: the weights overflow on this text")
    worst = max(
        error_of(name, array, arrays[name.replace("float32", "float64", 1)], arrays)[1]
        for name, array in rounded.items()
    )
    tolerance = max(LEAST_TOLERANCE, ROUNDINGS * worst)
    manifest = {
        "format": subject.kind.format,
        "model": subject.described(),
        "texts": [
            {**subject.entry(text), "truncated": cut, "intermediates": i < full}
            for i, (text, cut) in enumerate(zip(checked, tokens.truncated, strict=True))
        ],
        "tokenizer_lines": lines,
        "intermediates": [{"name": name, "dimensions": dimensions(name)} for name in names],
        "tolerance": {"float32": tolerance, "float64": tolerance / FLOAT64_FACTOR},
        "written_by": {"minilm-np": minilm_np.__version__, "backend": kind.backend, "contract": kind.contract},
    }
    write_tensors(path, arrays, manifest)


def default_texts(model: Model) -> list[str] | list[TextPair]:
    """Return the texts of a file by default: short ones, and the built-in texts or pairs of `verify`."""
    if isinstance(model, CrossEncoder):
        return PairSubject(model).default_texts()
    return TextSubject(model).default_texts()


def check(model: Model, path: str | os.PathLike[str]) -> Conformance:
    """Compare the tokenizer, the reference in float64 and float32, and the engine with a conformance file.

    The reference computes from the file's token ids, the engine from the texts. The engine is compared if it computes
    in float32 under a numerical contract; texts whose token ids differ from the file's are left out. If the engine
    wrote the file under the same version of the contract, its results must be equal bit for bit.

    Raises OSError, and InputValueError: the file is not a conformance file, is broken, or is for another model.
    """
    if isinstance(model, CrossEncoder):
        return _check(PairSubject(model), path)
    return _check(TextSubject(model), path)


@one_blas_thread()
def _check(subject: Subject[T], path: str | os.PathLike[str]) -> Conformance:
    arrays, manifest = read(path)
    kind, loaded = subject.kind, subject.loaded
    check_model(path, manifest["model"], subject.described())
    texts = subject.checked([subject.text(entry) for entry in manifest["texts"]])
    n, found_tokens, tokens = len(texts), subject.tokens(texts), _tokens_of(arrays, manifest)
    rows = [[Check(i, "tokenizer", "ids", *differing(found_tokens.ids[i], tokens.ids[i]), 0.0)] for i in range(n)]
    same_ids = [found_tokens.ids[i] == tokens.ids[i] for i in range(n)]
    if found_tokens.types is not None and tokens.types is not None:
        for i, (found, expected) in enumerate(zip(found_tokens.types, tokens.types, strict=True)):
            rows[i].append(Check(i, "tokenizer", "token_type_ids", *differing(found, expected), 0.0))
            same_ids[i] = same_ids[i] and found == expected
    lines = loaded.tokenizer(check_texts(manifest["tokenizer_lines"])).ids
    for implementation, dtype, computed in (
        *_by_reference(subject, manifest, tokens),
        *_by_engine(subject, manifest, [i for i in range(n) if same_ids[i]]),
    ):
        for i, found_arrays in computed:
            expected_arrays = {
                name: arrays[f"texts.{i}.float64.{name}"] for name in found_arrays if name != kind.result
            }
            expected_arrays[kind.result] = arrays[f"{kind.results}.float64"][i]
            rows[i] += [
                Check(
                    i,
                    implementation,
                    name,
                    *error_of(name, x, expected_arrays[name], arrays),
                    manifest["tolerance"][dtype],
                )
                for name, x in found_arrays.items()
            ]
            contract = manifest["written_by"]["contract"]
            if implementation == "engine float32" and contract == loaded.kind.contract:
                bits = found_arrays[kind.result].view(np.uint32), arrays[f"{kind.results}.float32"][i].view(np.uint32)
                rows[i].append(Check(i, implementation, f"{kind.result}, bit for bit", *differing(*bits), 0.0))
    last = Check(None, "tokenizer", "lines", *differing(lines, line_ids(arrays)), 0.0)
    return Conformance(os.fspath(path), manifest, [*(row for of_text in rows for row in of_text), last])


def _tokens_of(arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> Tokens:
    """The tokens in a file."""
    texts = manifest["texts"]
    types = None
    if kind_of(manifest).of_pairs:
        types = [arrays[f"texts.{i}.token_type_ids"].tolist() for i in range(len(texts))]
    ids = [arrays[f"texts.{i}.ids"].tolist() for i in range(len(texts))]
    return Tokens(ids, types, [bool(text["truncated"]) for text in texts])


Computed = Iterator[tuple[int, dict[str, Array]]]  # a text, and its arrays by name, the last one the result


def _by_reference(
    subject: Subject[T], manifest: Mapping[str, Any], tokens: Tokens
) -> Iterator[tuple[str, str, Computed]]:
    """The arrays of `reference.py` in both precisions."""
    for dtype in ("float64", "float32"):
        yield f"reference {dtype}", dtype, _reference(subject, reference.nest(subject.weights, dtype), manifest, tokens)


def _reference(subject: Subject[T], weights: reference.Nested, manifest: Mapping[str, Any], tokens: Tokens) -> Computed:
    results = subject.results(tokens, weights)
    for i, text in enumerate(manifest["texts"]):
        types = tokens.types[i] if tokens.types is not None else []
        steps = subject.steps(tokens.ids[i], types, weights) if text["intermediates"] else {}
        yield i, steps | {subject.kind.result: results[i]}


def _by_engine(
    subject: Subject[T], manifest: Mapping[str, Any], chosen: Sequence[int]
) -> Iterator[tuple[str, str, Computed]]:
    """The arrays of the model's engine for some texts, if its results have a contract."""
    kind = subject.loaded.kind
    if kind.contract is not None and kind.compute_type == "float32":  # the tolerances are those of float32
        yield "engine float32", "float32", _engine(subject, manifest, chosen)


def _engine(subject: Subject[T], manifest: Mapping[str, Any], chosen: Sequence[int]) -> Computed:
    texts = [subject.text(manifest["texts"][i]) for i in chosen]
    for i, text, result in zip(chosen, texts, subject.computed(texts), strict=True):
        steps = subject.engine_steps(text) if manifest["texts"][i]["intermediates"] else {}
        yield i, steps | {subject.kind.result: result}


def differing(found: Iterable[Any], expected: Sequence[Any]) -> tuple[float, float]:
    """Return how many values differ, and which part of all."""
    wrong = sum(bool(a != b) for a, b in zip_longest(found, expected))  # NumPy's bool would make it NumPy's int
    return wrong, wrong / max(1, len(expected))

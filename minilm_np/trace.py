"""Every named step of the model, to inspect and to compare: from a text's tokens to its vector.

The names are Hugging Face's, as `reference.py` records them: `embeddings.word_embeddings`, ...,
`encoder.layer.0.attention.self.scores`, ..., `pooling`, `normalize`. The dimension letters are those of `reference.py`.
"""

import importlib.metadata
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np

from minilm_np._checks import check_texts, short_repr
from minilm_np.encoding.loaded_model import HasModel, LoadedModel, model_of
from minilm_np.engine import registry
from minilm_np.engine.numpy import intermediates as intermediates
from minilm_np.engine.registry import DTYPES as DTYPES
from minilm_np.errors import InputValueError
from minilm_np.model_files.tensors import read_tensors, write_tensors
from minilm_np.reference import Array as Array
from minilm_np.text.tokenizer import TextTokenizer

_FORMAT = "minilm_np trace 1"  # of the file; the number changes with the layout
_KINDS = {"tokens": list, "ids": list, "offsets": list, "dimensions": dict, "versions": dict, "truncated": bool}


def dimensions(name: str) -> str:
    """Return the dimension letters of one text's intermediate: "T D", "H T T" (query by key), "T F", "D" or "G".

    G is for the vector after a Dense module. If there is one, `normalize` has G numbers too.
    """
    if name in ("pooling", "normalize"):
        return "D"
    if name == "dense":
        return "G"
    if name.endswith((".scores", ".probs")):
        return "H T T"
    return "T F" if ".intermediate." in name else "T D"


def statistics(array: Array) -> dict[str, float]:
    """Mean, standard deviation, minimum, maximum and Euclidean norm of an array, computed in float64."""
    with np.errstate(all="ignore"):  # NaN and infinity are shown as they are
        wide = array.astype(np.float64).ravel()
        return {
            "mean": float(wide.mean()),
            "std": float(wide.std()),
            "min": float(wide.min()),
            "max": float(wide.max()),
            "norm": math.sqrt(float(wide @ wide)),
        }


@dataclass(frozen=True, eq=False)
class Trace(Mapping[str, Array]):
    """The named intermediates of one text, in the model's order, with the text's tokens.

    A mapping from name to array; all arrays have the same dtype. Two traces are equal if all fields are, the arrays bit
    for bit.
    """

    arrays: dict[str, Array]
    dimensions: dict[str, str]  # for each array its letters, such as "T D"
    text: str
    tokens: list[str]  # T of them, [CLS] and [SEP] included
    ids: list[int]
    offsets: list[tuple[int, int]]  # each token comes from text[start:stop]; (0, 0) for [CLS] and [SEP]
    truncated: bool  # the text is longer than the limit
    model: str
    backend: str
    dtype: str
    versions: dict[str, str]  # of the packages that computed it

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return (
            self._facts() == other._facts()
            and list(self) == list(other)
            and all(self[n].shape == other[n].shape and self[n].tobytes() == other[n].tobytes() for n in self)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Trace({self.text[:40]!r}, {len(self.ids)} tokens, {len(self)} arrays of {self.dtype})"

    def _facts(self) -> dict[str, Any]:
        """Return every field except the arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "arrays"}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one .safetensors file atomically: the arrays by their names, the other fields in its metadata.

        The metadata has one entry, "minilm_np": a JSON object of the fields and the file's format. Raises SaveError.
        """
        write_tensors(path, self.arrays, {"format": _FORMAT} | self._facts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Read a file that `save` wrote. Raises OSError; InputValueError: the file is not a trace, or is broken."""
        arrays, metadata = read_tensors(path, _FORMAT)
        facts: dict[str, Any] = {}
        for field in fields(cls)[1:]:
            kind = _KINDS.get(field.name, str)
            facts[field.name] = metadata.get(field.name)
            if not isinstance(facts[field.name], kind):
                found = short_repr(facts[field.name])
                raise InputValueError(f"{path}: metadata {field.name!r}: expected a {kind.__name__}, found {found}")
        _check_arrays(path, arrays, facts)
        facts["offsets"] = [tuple(pair) for pair in facts["offsets"]]
        return cls({name: arrays[name] for name in facts["dimensions"]}, **facts)


@overload
def trace(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
    encoder: LoadedModel | HasModel,
    texts: str,
    *,
    dtype: str = ...,
    backend: str = ...,
) -> Trace: ...
@overload
def trace(
    encoder: LoadedModel | HasModel,
    texts: Iterable[str],
    *,
    dtype: str = ...,
    backend: str = ...,
) -> list[Trace]: ...
def trace(
    encoder: LoadedModel | HasModel, texts: str | Iterable[str], *, dtype: str = "float32", backend: str = "numpy"
) -> Trace | list[Trace]:
    """Return every named intermediate of a text, or of each of several.

    texts: a str gives a `Trace`; a sequence of str gives a list, in its order. Each text is computed alone, so nothing
        is padded, and its arrays do not depend on the other texts.
    dtype: "float32", as published; or "float64", the weights widened: the reference for measuring other results.
    backend: "numpy", the reference, which records every step, for an encoder with any backend; or "numba", the
        float32 engine, which leaves out the steps that it fuses. Its last array is the vector of `encode`, bit for bit.

    A trace of 256 tokens of the published model takes about 80 MB in float32, twice that in float64.
    Raises InputTypeError, InputValueError (a text, by its number; an unknown dtype or backend).
    """
    model = model_of(encoder)
    kind = model.kind if model.kind.backend == backend else registry.find(backend)
    kind.check_dtype(dtype)
    many = check_texts([texts] if isinstance(texts, str) else texts)
    engine = model.engine
    if model.kind is not kind or dtype != kind.dtypes[0]:
        engine = kind.make(model.config, engine.weights().items(), 1 if kind.own_threads else None, dtype)
    versions = _versions(("minilm-np", *kind.packages))
    traces = []
    for number, text in enumerate(many):
        tokens, ids, offsets, truncated = tokens_of(model.tokenizer, text)
        model.tokenizer.check_tokens([ids], number)
        arrays = engine.intermediates(ids)
        letters = {name: dimensions(name) for name in arrays}
        if "dense" in letters and "normalize" in letters:
            letters["normalize"] = "G"
        traces.append(
            Trace(arrays, letters, text, tokens, ids, offsets, truncated, model.name, backend, dtype, dict(versions))
        )
    return traces[0] if isinstance(texts, str) else traces


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed: kernels that were compiled in advance run without Numba."""
    found = {}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def tokens_of(tokenizer: TextTokenizer, text: str) -> tuple[list[str], list[int], list[tuple[int, int]], bool]:
    """Return the tokens of a text, their ids, the characters that each comes from, and whether the text was truncated.

    The ids are those of `tokenizer([text])`; a long text is tokenized in the same bounded pieces.
    """
    tokenized = tokenizer([text])
    ids = tokenized.ids[0]
    before, after = len(tokenizer.before), len(tokenizer.after)
    needed = len(ids) - before - after
    offsets: list[tuple[int, int]] = []
    for start, encodings in tokenizer.encodings(text):
        offsets += [(start + first, start + last) for encoding in encodings for first, last in encoding.offsets]
        if len(offsets) >= needed:
            break
    offsets = [(0, 0)] * before + offsets[:needed] + [(0, 0)] * after
    return [tokenizer.token(number) for number in ids], ids, offsets, tokenized.truncated[0]


def _check_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Raise InputValueError unless the arrays of a file agree with its metadata."""
    T = len(facts["ids"])
    sizes = {"T": T}
    if len(facts["tokens"]) != T or len(facts["offsets"]) != T:
        raise InputValueError(
            f"{path}: expected as many tokens and offsets as ids, {T}, found {len(facts['tokens'])} and "
            f"{len(facts['offsets'])}"
        )
    for pair in facts["offsets"]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)):
            raise InputValueError(f"{path}: metadata 'offsets': expected pairs of integers, found {short_repr(pair)}")
    for values, name, kind in (
        (facts["ids"], "ids", int),
        (facts["tokens"], "tokens", str),
        (facts["dimensions"].values(), "dimensions", str),
        (facts["versions"].values(), "versions", str),
    ):
        if wrong := [value for value in values if type(value) is not kind]:
            raise InputValueError(
                f"{path}: metadata {name!r}: expected values of type {kind.__name__}, found {short_repr(wrong[0])}"
            )
    if different := arrays.keys() ^ facts["dimensions"].keys():
        name = min(different)
        found = "in the file only" if name in arrays else "in the metadata's dimensions only"
        raise InputValueError(f"{path}: tensor {name!r}: expected in the file and in its metadata, found {found}")
    for name, letters in facts["dimensions"].items():
        array = arrays[name]
        if str(array.dtype) != facts["dtype"]:
            raise InputValueError(f"{path}: tensor {name!r}: expected dtype {facts['dtype']:.80}, found {array.dtype}")
        expected = letters.split()
        if len(expected) != array.ndim or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(expected, array.shape, strict=True)
        ):
            raise InputValueError(
                f"{path}: tensor {name!r}: expected the dimensions {short_repr(letters)}, where "
                f"{', '.join(f'{letter} is {sizes[letter]}' for letter in expected[:9] if letter in sizes)}; found "
                f"{array.shape}"
            )

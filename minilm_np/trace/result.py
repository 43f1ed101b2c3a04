"""`Trace` and `PairTrace`: the named arrays of one text or of one pair of texts, with its tokens; saved and read."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from minilm_np._checks import short_repr
from minilm_np.errors import InputValueError
from minilm_np.model_files.tensors import read_tensors, write_tensors
from minilm_np.reference import Array

# types of the fields in a file that are not a str
_KINDS = {
    "tokens": list, "ids": list, "offsets": list, "dimensions": dict, "versions": dict, "truncated": bool,
    "token_type_ids": list, "segments": list,
}  # fmt: skip


def dimensions(name: str) -> str:
    """Return the dimension letters of one text's intermediate: "T D", "H T T" (query by key), "T F", "D", "G" or "C".

    G is for the vector after a Dense module. If there is one, `normalize` has G numbers too. C is for the labels of a
    cross-encoder.
    """
    if name in ("pooling", "normalize") or name.startswith("pooler."):
        return "D"
    if name in ("classifier", "score"):
        return "C"
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

    _format: ClassVar[str] = "minilm_np trace 1"  # of the file; the number changes with the layout

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace) or type(other) is not type(self):
            return NotImplemented
        return (
            self._facts() == other._facts()
            and list(self) == list(other)
            and all(self[n].shape == other[n].shape and self[n].tobytes() == other[n].tobytes() for n in self)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text[:40]!r}, {len(self.ids)} tokens, {len(self)} arrays of {self.dtype})"

    def _facts(self) -> dict[str, Any]:
        """Return every field except the arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "arrays"}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one .safetensors file atomically: the arrays by their names, the other fields in its metadata.

        The metadata has one entry, "minilm_np": a JSON object of the fields and the file's format. Raises SaveError.
        """
        write_tensors(path, self.arrays, {"format": self._format} | self._facts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` of this class wrote.

        Raises OSError; InputValueError: the file is not such a trace, or is broken.
        """
        arrays, metadata = read_tensors(path, cls._format)
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


@dataclass(frozen=True, eq=False, repr=False)
class PairTrace(Trace):
    """The named intermediates of a pair of texts in a cross-encoder. `text` is the first text, such as a query.

    Its last arrays are `pooler.dense`, `pooler.activation`, `classifier` (the logits) and `score`. The offsets of a
    token are characters of the text of its segment.
    """

    text_pair: str  # the second text, such as a document
    token_type_ids: list[int]  # of the T tokens
    segments: list[str]  # "first" or "second" for the tokens of a text, "special" for the others

    _format: ClassVar[str] = "minilm_np pair trace 1"


def _check_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Raise InputValueError unless the arrays of a file agree with its metadata."""
    T = len(facts["ids"])
    sizes = {"T": T}
    if len(facts["tokens"]) != T or len(facts["offsets"]) != T:
        raise InputValueError(
            f"{path}: expected as many tokens and offsets as ids, {T}, found {len(facts['tokens'])} and "
            f"{len(facts['offsets'])}"
        )
    for name in ("token_type_ids", "segments"):  # of pairs
        if len(facts.get(name, facts["ids"])) != T:
            raise InputValueError(f"{path}: expected as many {name} as ids, {T}, found {len(facts[name])}")
    for pair in facts["offsets"]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)):
            raise InputValueError(f"{path}: metadata 'offsets': expected pairs of integers, found {short_repr(pair)}")
    for values, name, kind in (
        (facts["ids"], "ids", int),
        (facts["tokens"], "tokens", str),
        (facts.get("token_type_ids", ()), "token_type_ids", int),
        (facts.get("segments", ()), "segments", str),
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

"""Every named step of the model, to look at and to compare: what a text becomes on its way to a vector.

The names are Hugging Face's, as `reference.py` records them: `embeddings.word_embeddings`, ...,
`encoder.layer.0.attention.self.scores`, ..., `pooling`, `normalize`. The dimension letters are those of `reference.py`.
"""

import importlib.metadata
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from minilm_np import reference
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.sentence_encoder import SentenceEncoder, check_backend
from minilm_np.text.tokenizer import TextTokenizer, check_texts

Array = NDArray[Any]

DTYPES = ("float32", "float64")

_FORMAT = "minilm_np trace 1"  # of the file; the number changes with the layout
_KINDS = {"tokens": list, "ids": list, "offsets": list, "dimensions": dict, "versions": dict, "truncated": bool}


def intermediates(
    ids: Array, weights: reference.Nested, config: ModelConfig, *,
    mask: Array | None = None, token_type_ids: Array | None = None,
) -> dict[str, Array]:  # fmt: skip
    """Every recorded array of `reference.forward`, by name, in the model's order; the arguments are its.

    They are copies, in the weights' dtype. What overflows stays in them, without a warning: this is how to find it.
    `embeddings.position_embeddings` is (T, D) for a batch too.
    """
    kept: dict[str, Array] = {}

    def record(name: str, x: Array) -> Array:
        kept[name] = x.copy()  # some are views: of a table that would be kept alive, or of an array kept already
        return x

    with np.errstate(all="ignore"):
        reference.forward(ids, weights, config, mask=mask, token_type_ids=token_type_ids, record=record)
    return kept


def dimensions(name: str) -> str:
    """The dimension letters of one text's intermediate: "T D", "H T T" (query by key), "T F" or "D"."""
    if name in ("pooling", "normalize"):
        return "D"
    if name.endswith((".scores", ".probs")):
        return "H T T"
    return "T F" if ".intermediate." in name else "T D"


@dataclass(frozen=True, eq=False)
class Trace(Mapping[str, Array]):
    """The named intermediates of one text, in the model's order, and what the text became before them.

    A mapping from name to array, of the one dtype. Two traces are equal if all of this is, the arrays bit for bit.
    """

    arrays: dict[str, Array]
    dimensions: dict[str, str]  # of each array its letters, such as "T D"
    text: str
    tokens: list[str]  # T of them, [CLS] and [SEP] included
    ids: list[int]
    offsets: list[tuple[int, int]]  # text[start:stop] is what each token stands for; (0, 0) for [CLS] and [SEP]
    truncated: bool  # the text went on beyond the limit
    model: str
    backend: str
    dtype: str
    versions: dict[str, str]  # of what computed it

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
        """Everything but the arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "arrays"}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one .safetensors file, whole or not at all: the arrays by their names, all else in its metadata.

        The metadata has one entry, "minilm_np": a JSON object of everything, and the file's format. Raises OSError.
        """
        write_tensors(path, self.arrays, {"format": _FORMAT} | self._facts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Read what `save` wrote. Raises OSError, and InputValueError for a file that is no trace or a broken one."""
        arrays, metadata = read_tensors(path, _FORMAT)
        facts: dict[str, Any] = {}
        for field in fields(cls)[1:]:
            kind = _KINDS.get(field.name, str)
            facts[field.name] = metadata.get(field.name)
            if not isinstance(facts[field.name], kind):
                raise InputValueError(
                    f"{path}: metadata {field.name!r}: expected a {kind.__name__}, found {facts[field.name]!r:.60}"
                )
        _check_arrays(path, arrays, facts)
        facts["offsets"] = [tuple(pair) for pair in facts["offsets"]]
        return cls({name: arrays[name] for name in facts["dimensions"]}, **facts)


@overload
def trace(  # type: ignore[overload-overlap]  # a str is a sequence of str too
    encoder: SentenceEncoder, texts: str, *, dtype: str = ..., backend: str = ...
) -> Trace: ...
@overload
def trace(encoder: SentenceEncoder, texts: Sequence[str], *, dtype: str = ..., backend: str = ...) -> list[Trace]: ...
def trace(
    encoder: SentenceEncoder, texts: str | Sequence[str], *, dtype: str = "float32", backend: str = "numpy"
) -> Trace | list[Trace]:
    """Every named intermediate of a text, or of each of several.

    texts: a str gives a `Trace`, a sequence of str a list of them in its order. Each text is computed by itself, so
        nothing is padded, and an array is the same whatever the other texts are.
    dtype: "float32", as published; or "float64", the weights widened: the truth to measure others against.
    backend: "numpy", the reference, which has all of them, whatever the encoder's own backend is; or "numba", the
        engine, float32 only, which has those that it does not fuse: the last one is the vector of `encode`, bit for
        bit.

    A trace of 256 tokens of the published model is some 80 MB in float32, twice that in float64.
    Raises InputTypeError, InputValueError (a text, by its number; an unknown dtype or backend).
    """
    check_backend(backend, None)
    if dtype not in DTYPES:
        raise InputValueError(f"dtype: expected one of {', '.join(map(repr, DTYPES))}, found {dtype!r}")
    if backend == "numba" and dtype != "float32":
        raise InputValueError(f"dtype: backend 'numba' computes in float32 only, found {dtype!r}: take backend 'numpy'")
    many = check_texts([texts] if isinstance(texts, str) else texts)
    if backend == "numba":
        from minilm_np.engine.float32.engine import Float32Engine  # and LLVM, which the other backend does without

        engine = encoder._engine
        if not isinstance(engine, Float32Engine):
            engine = Float32Engine(encoder.config, encoder.weights.items(), 1)
        compute = engine.intermediates
    else:
        weights = reference.nest(encoder.weights, np.dtype(dtype))

        def compute(text: Sequence[int]) -> dict[str, Array]:
            return intermediates(np.array(text, np.int64), weights, encoder.config)

    folder = encoder.folder
    model = "random weights" if folder is None else folder.name or str(folder.path)
    packages = ("numpy", "tokenizers") + (("numba",) if backend == "numba" else ())
    versions = {name: importlib.metadata.version(name) for name in ("minilm-np", *packages)}
    traces = []
    for text in many:
        tokens, ids, offsets, truncated = tokens_of(encoder.tokenizer, text)
        arrays = compute(ids)
        letters = {name: dimensions(name) for name in arrays}
        traces.append(
            Trace(arrays, letters, text, tokens, ids, offsets, truncated, model, backend, dtype, dict(versions))
        )
    return traces[0] if isinstance(texts, str) else traces


def tokens_of(tokenizer: TextTokenizer, text: str) -> tuple[list[str], list[int], list[tuple[int, int]], bool]:
    """The tokens that the model sees of a text, their ids, the characters that each stands for, and whether it was cut.

    The ids are those of `tokenizer([text])`, and a long text is read in the same bounded pieces.
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
    """Raise InputValueError unless the arrays of a file are those that its metadata promises."""
    T = len(facts["ids"])
    sizes = {"T": T}
    if len(facts["tokens"]) != T or len(facts["offsets"]) != T:
        raise InputValueError(
            f"{path}: expected as many tokens and offsets as ids, {T}, found {len(facts['tokens'])} and "
            f"{len(facts['offsets'])}"
        )
    for pair in facts["offsets"]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)):
            raise InputValueError(f"{path}: metadata 'offsets': expected pairs of integers, found {pair!r:.60}")
    if different := arrays.keys() ^ facts["dimensions"].keys():
        name = min(different)
        found = "in the file only" if name in arrays else "in the metadata's dimensions only"
        raise InputValueError(f"{path}: tensor {name!r}: expected in the file and in its metadata, found {found}")
    for name, letters in facts["dimensions"].items():
        array = arrays[name]
        if str(array.dtype) != facts["dtype"]:
            raise InputValueError(f"{path}: tensor {name!r}: expected dtype {facts['dtype']}, found {array.dtype}")
        expected = str(letters).split()
        if len(expected) != array.ndim or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(expected, array.shape, strict=True)
        ):
            raise InputValueError(
                f"{path}: tensor {name!r}: expected the dimensions {letters!r}, where "
                f"{', '.join(f'{letter} is {sizes[letter]}' for letter in expected if letter in sizes)}; found "
                f"{array.shape}"
            )


# ------------------------------------------------------------------------------------- .safetensors with metadata


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write a .safetensors file with facts as JSON in its metadata, in one entry "minilm_np".

    It is written elsewhere first, beside it: what is at `path` is whole, old or new. The same arrays and facts give the
    same bytes (several entries would not: the library writes them in any order). Raises OSError.
    """
    path = Path(path).resolve()  # a link stays a link
    # the library writes the memory as it lies, whatever the strides are
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staging:
        temporary = Path(staging) / "new"
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        try:
            save_file(dense, temporary, {"minilm_np": json.dumps(facts, ensure_ascii=False)})
        except SafetensorError as error:  # a full disk, as the library says it
            raise OSError(f"{path} cannot be written: {error}") from None
        temporary.chmod(mode)  # the library leaves 0600, whatever the umask is
        temporary.replace(path)


def read_tensors(path: str | os.PathLike[str], format_: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the facts of a file that `write_tensors` wrote, if its facts say that it is of this format.

    It is read, and not mapped into memory: the file may change afterwards.
    Raises OSError, and InputValueError: it is no such file, or is broken.
    """
    content = Path(path).read_bytes()
    try:
        arrays = load(content)  # checks the header, and that the tensors fill the file
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy has not
        raise InputValueError(f"{path}: expected a whole .safetensors file, found otherwise: {error}") from None
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    try:
        facts = json.loads(metadata.get("minilm_np", "{}"))
    except (ValueError, RecursionError) as error:
        raise InputValueError(f"{path}: metadata 'minilm_np': expected JSON, found otherwise: {error}") from None
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != format_:
        raise InputValueError(f"{path}: expected the format {format_!r} in its metadata 'minilm_np', found {found!r}")
    return arrays, facts

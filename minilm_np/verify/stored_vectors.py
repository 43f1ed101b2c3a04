"""Files of vectors by any program: .npy, .jsonl, .safetensors."""

import io
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np._files import MAX_ARRAYS, bounded_lines, open_regular, parse_json, shown
from minilm_np.errors import InputValueError
from minilm_np.model_files.tensors import read_arrays
from minilm_np.verify.interface import Array


class StoredVectors:
    """A file of n vectors of D numbers.

    .npy: an (n, D) array of floats, in the order of the texts.
    .jsonl: one object per line, with `text` and `embedding`.
    .safetensors: one (n, D) tensor of floats; optionally the texts, as a JSON list in the metadata's `texts`.

    Raises InputValueError: the file is broken, empty, or contains something else.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.texts: list[str] | None
        try:
            self._vectors, self.texts = FORMATS[path.suffix.lower()](path)
        except OSError as error:
            raise InputValueError(f"{path} cannot be read: {error.strerror or error}") from None
        if self._vectors.ndim != 2 or self._vectors.dtype.kind != "f" or not self._vectors.size:
            raise _no_vectors(path, self._vectors.dtype, self._vectors.shape)
        if self.texts is not None and len(self.texts) != len(self._vectors):
            raise InputValueError(
                f"{path}: expected one vector per text, found {len(self._vectors)} for {len(self.texts)} texts"
            )

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return the vectors of these texts. Raises InputValueError: the file does not have them."""
        if self.texts is None:
            if len(texts) != len(self._vectors):
                raise InputValueError(
                    f"{self.name} has {len(self._vectors)} vectors without texts, but {len(texts)} texts are compared: "
                    "give the texts of the vectors, in their order (--texts FILE)"
                )
            return self._vectors
        if list(texts) == self.texts:
            return self._vectors
        rows = {text: row for row, text in reversed(list(enumerate(self.texts)))}
        missing = [text for text in texts if text not in rows]
        if missing:
            raise InputValueError(
                f"{self.name} has no vector for {len(missing)} texts, the first is {missing[0][:60]!r}"
            )
        return self._vectors[[rows[text] for text in texts]]

    def intermediates(self, texts: Sequence[str]) -> None:
        return None

    def token_ids(self, texts: Sequence[str]) -> None:
        return None


def _no_vectors(path: Path, dtype: np.dtype[Any], shape: Sequence[int]) -> InputValueError:
    """The error for an array that does not hold vectors."""
    if dtype.kind == "f" and len(shape) == 2 and 0 in shape:
        return InputValueError(f"{path}: expected at least one vector of at least one number, found none")
    return InputValueError(
        f"{path}: expected floats of shape (texts, numbers), found {dtype} of shape {tuple(shape)!r:.80}"
    )


def as_vectors(rows: Sequence[Any], places: Sequence[str]) -> Array:
    """Return JSON lists of numbers as an (n, D) float64 array; null, which servers write for NaN, becomes NaN.

    places: the name of each list in error messages. Raises InputValueError.
    """
    vectors: list[Array] = []
    for row, place in zip(rows, places, strict=True):
        vectors.append(_as_vector(row, place, len(vectors[0]) if vectors else None))
    return np.stack(vectors) if vectors else np.empty((0, 0))


def _as_vector(row: Any, place: str, size: int | None) -> Array:
    """A JSON list of numbers as a float64 array. size: the length of the other vectors, None for the first one."""
    if not isinstance(row, list) or not row or not set(map(type, row)) <= {int, float, type(None)}:
        raise InputValueError(f"{place}: expected a list of numbers, found {shown(row)}")
    if size not in (None, len(row)):
        raise InputValueError(f"{place}: expected as many numbers as in the first vector, {size}, found {len(row)}")
    try:
        return np.array(row, np.float64)
    except OverflowError:
        raise InputValueError(f"{place}: a number is too large for float64") from None


def _read_npy(path: Path) -> tuple[Array, None]:
    """The array of an .npy file. Its size is compared with that of the file before any memory is allocated."""
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        head = io.BytesIO(file.read(_NPY_HEAD))
        try:
            with warnings.catch_warnings(action="ignore"):  # of the parser of Python that NumPy uses
                read_header = _NPY_HEADERS[np.lib.format.read_magic(head)]
                shape, by_columns, dtype = read_header(head)
        except Exception as error:  # NumPy lets many kinds escape: tokenize.TokenError, SyntaxError, TypeError, ...
            raise InputValueError(f"{path} is not an .npy file of numbers: {type(error).__name__}: {error}") from None
        if dtype.kind != "f" or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
            raise _no_vectors(path, dtype, shape)
        expected, found = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - head.tell()
        if found != expected:
            raise InputValueError(
                f"{path} is not an .npy file of numbers: expected {shown(expected)} bytes after the header, for "
                f"{dtype} of shape {shape!r:.80}, found {found}: the file is damaged"
            )
        file.seek(head.tell())
        array = np.empty(shape, dtype, order="F" if by_columns else "C")
        flat = array.ravel("K").view(np.uint8)  # "K": a view, in the order of the memory
        if file.readinto(flat.data) != expected:
            raise InputValueError(f"{path} was truncated while it was being read")
        return array, None


# The first bytes of an .npy file contain its header: NumPy's limit for it is 10,000 bytes. NumPy writes version 3 only
# for structured arrays.
_NPY_HEAD = 10_100
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _read_jsonl(path: Path) -> tuple[Array, list[str]]:
    texts: list[str] = []
    vectors: list[Array] = []
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        for number, line in enumerate(bounded_lines(file.readline), 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                item = json.loads(line)
            except UnicodeDecodeError:
                raise InputValueError(f"{place}: not UTF-8: expected one JSON object per line") from None
            except (ValueError, RecursionError) as error:
                raise InputValueError(f"{place}: not JSON: {error}") from None
            if not isinstance(item, dict) or not isinstance(item.get("text"), str) or "embedding" not in item:
                raise InputValueError(
                    f'{place}: expected an object with "text" and "embedding", found '
                    f"{line.strip()[:60].decode(errors='replace')}"
                )
            texts.append(item["text"])
            vectors.append(_as_vector(item["embedding"], place, len(vectors[0]) if vectors else None))
    return np.stack(vectors) if vectors else np.empty((0, 0)), texts


def _read_safetensors(path: Path) -> tuple[Array, list[str] | None]:
    arrays, metadata = read_arrays(path)
    if len(arrays) != 1:
        raise InputValueError(
            f"{path}: expected one tensor, (texts, numbers), found {len(arrays)}: {shown(list(arrays))}"
        )
    (vectors,) = arrays.values()
    if "texts" not in metadata:
        return vectors, None
    try:
        texts = parse_json(metadata["texts"].encode())
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputValueError(f"{path}: metadata `texts`: expected a JSON list of strings")
    return vectors, texts


FORMATS: dict[str, Any] = {".npy": _read_npy, ".jsonl": _read_jsonl, ".safetensors": _read_safetensors}

"""Files of vectors by any program: .npy, .jsonl, .safetensors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np.errors import InputValueError
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
        self._vectors, self.texts = FORMATS[path.suffix.lower()](path)
        if self._vectors.ndim != 2 or self._vectors.dtype.kind != "f":
            raise InputValueError(
                f"{path}: expected floats of shape (texts, numbers), found {self._vectors.dtype} of shape "
                f"{self._vectors.shape}"
            )
        if not self._vectors.size:
            raise InputValueError(f"{path}: expected at least one vector of at least one number, found none")
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


def as_vectors(rows: Sequence[Any], places: Sequence[str]) -> Array:
    """Return JSON lists of numbers as an (n, D) float64 array; null, which servers write for NaN, becomes NaN.

    places: the name of each list in error messages. Raises InputValueError.
    """
    vectors = []
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, list) or not row or not set(map(type, row)) <= {int, float, type(None)}:
            raise InputValueError(f"{place}: expected a list of numbers, found {str(row)[:60]}")
        if len(row) != len(rows[0]):
            raise InputValueError(
                f"{place}: expected as many numbers as in the first vector, {len(rows[0])}, found {len(row)}"
            )
        try:
            vectors.append(np.array(row, np.float64))
        except OverflowError:
            raise InputValueError(f"{place}: a number is too large for float64") from None
    return np.stack(vectors) if vectors else np.empty((0, 0))


def _read_npy(path: Path) -> tuple[Array, None]:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False), None
    except (ValueError, EOFError) as error:
        raise InputValueError(f"{path} is not an .npy file of numbers: {error}") from None


def _read_jsonl(path: Path) -> tuple[Array, list[str]]:
    texts, rows, places = [], [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
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
            rows.append(item["embedding"])
            places.append(place)
    return as_vectors(rows, places), texts


def _read_safetensors(path: Path) -> tuple[Array, list[str] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
            if len(names) != 1:
                raise InputValueError(f"{path}: expected one tensor, (texts, numbers), found {len(names)}: {names[:5]}")
            vectors = file.get_tensor(names[0])
    except (SafetensorError, TypeError) as error:  # TypeError: BF16, which NumPy does not have
        raise InputValueError(f"{path} is not a readable .safetensors file: {error}") from None
    if "texts" not in metadata:
        return vectors, None
    try:
        texts = json.loads(metadata["texts"])
    except (ValueError, RecursionError):
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputValueError(f"{path}: metadata `texts`: expected a JSON list of strings")
    return vectors, texts


FORMATS: dict[str, Any] = {".npy": _read_npy, ".jsonl": _read_jsonl, ".safetensors": _read_safetensors}

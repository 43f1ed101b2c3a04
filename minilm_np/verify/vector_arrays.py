"""Rules that all readers of stored vectors share: the shape of vectors, the names of columns, the limits of memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np._files import MAX_ARRAYS, shown
from minilm_np.errors import InputValueError
from minilm_np.verify.interface import Array

VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors")
TEXT_NAMES = ("text", "texts", "document", "documents", "content", "page_content", "chunk", "sentence", "sentences")

EXPANSION = 100  # compressed vectors are never smaller by this factor; a file that is meant to fill the memory is
UNSUSPICIOUS = 2**26  # bytes of arrays that every file may have


def no_vectors(
    path: Path, dtype: np.dtype[Any], shape: Sequence[int], expected: str = "(texts, numbers)"
) -> InputValueError:
    """Return the error for an array that does not hold vectors, or numbers of another expected shape."""
    if dtype.kind == "f" and len(shape) == 2 and 0 in shape:
        return InputValueError(f"{path}: expected at least one vector of at least one number, found none")
    return InputValueError(f"{path}: expected floats of shape {expected}, found {dtype} of shape {tuple(shape)!r:.80}")


def check_expanded(path: Path, stored: int, expanded: int) -> None:
    """Raise InputValueError if a file of `stored` bytes contains arrays of suspiciously many bytes."""
    most = min(MAX_ARRAYS, max(UNSUSPICIOUS, EXPANSION * stored))
    if expanded > most:
        raise InputValueError(
            f"{path}: expected arrays of at most {most} bytes in a file of {stored} bytes, found {expanded}"
        )


def column(path: Path, names: Sequence[str], usual: Sequence[str], what: str, kind: str = "column") -> str | None:
    """Return the only name, or the one that is usual; None if there are no names.

    Raises InputValueError: several names, of which none or several are usual.
    """
    if len(names) <= 1:
        return names[0] if names else None
    known = [name for name in names if name.lower() in usual]
    if len(known) != 1:
        raise InputValueError(
            f"{path}: expected one {kind} of {what}, found {len(names)}: {shown(list(names))}: keep one of them, or "
            f"name it {usual[0]!r}"
        )
    return known[0]


def text_column(path: Path, names: Sequence[str]) -> str | None:
    """Return the name of the column of texts among columns of strings. A column of identifiers has no texts."""
    return column(path, [name for name in names if not is_identifier(name)], TEXT_NAMES, "texts")


def is_identifier(name: str) -> bool:
    """Return whether this is the name of a column of identifiers or row numbers; pandas gives row numbers no name."""
    name = name.strip().lower()
    return name in ("", "index", "unnamed: 0", "key", "ids", "uuid") or name == "id" or name.endswith(("_id", "-id"))


def as_vectors(rows: Sequence[Any], places: Sequence[str]) -> Array:
    """Return JSON lists of numbers as an (n, D) float64 array; null, which servers write for NaN, becomes NaN.

    places: the name of each list in error messages. Raises InputValueError.
    """
    vectors: list[Array] = []
    for row, place in zip(rows, places, strict=True):
        vectors.append(as_vector(row, place, len(vectors[0]) if vectors else None))
    return stacked(vectors)


def as_vector(row: Any, place: str, size: int | None) -> Array:
    """Return a JSON list of numbers as a float64 array. size: the length of the other vectors, None for the first."""
    if not isinstance(row, list) or not row or not set(map(type, row)) <= {int, float, type(None)}:
        raise InputValueError(f"{place}: expected a list of numbers, found {shown(row)}")
    if size not in (None, len(row)):
        raise InputValueError(f"{place}: expected as many numbers as in the first vector, {size}, found {len(row)}")
    try:
        return np.array(row, np.float64)
    except OverflowError:
        raise InputValueError(f"{place}: a number is too large for float64") from None


def stacked(vectors: list[Array]) -> Array:
    """Return vectors of equal length as one array."""
    return np.stack(vectors) if vectors else np.empty((0, 0))

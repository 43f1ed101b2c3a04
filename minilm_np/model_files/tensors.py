"""Named arrays as .safetensors files, with or without facts in their metadata; written atomically."""

import io
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from minilm_np._checks import short_repr
from minilm_np._files import MAX_ARRAYS, MAX_JSON, atomic_path, open_regular, parse_json
from minilm_np.errors import InputValueError, SaveError

Array = NDArray[Any]


def save_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: dict[str, str] | None = None
) -> None:
    """Write arrays as a .safetensors file. Raises OSError if it cannot be written, for any reason."""
    # the library writes the memory as it is and ignores the strides
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with atomic_path(path) as temporary:  # which also sets the permissions: the library leaves 0600
        try:
            save_file(dense, temporary, metadata)
        except SafetensorError as error:  # a full disk, or a dtype that the format does not have
            found = re.search(r"\(os error (\d+)\)", str(error))
            raise (OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))) from None


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write arrays as a .safetensors file, with facts as JSON in one entry of its metadata, "minilm_np".

    The same arrays and facts give the same bytes; with several entries they would not, because the library writes
    entries in any order. Raises SaveError.
    """
    text = json.dumps(facts, ensure_ascii=False)
    # an upper bound of the header's length: in it, quotes and backslashes of the text are escaped once more
    length = 2 * len(text.encode()) + sum(200 + 2 * len(name.encode()) for name in arrays)
    if length > MAX_JSON:  # `read_arrays` would refuse the file
        raise SaveError(f"{path} cannot be written: expected a header of at most {MAX_JSON} bytes, found {length}")
    try:
        save_arrays(path, arrays, {"minilm_np": text})
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror or error}") from error


def read_tensors(path: str | os.PathLike[str], *formats: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the facts of a file of `write_tensors`, if its facts contain one of these as "format".

    Raises OSError and InputValueError as `read_arrays` does, and InputValueError for another format.
    """
    arrays, metadata = read_arrays(path)
    try:
        facts = parse_json(metadata.get("minilm_np", "{}").encode())
    except ValueError as error:
        raise InputValueError(f"{path}: metadata 'minilm_np': {error}") from None
    found = facts.get("format") if isinstance(facts, dict) else None
    if found not in formats:
        raise InputValueError(
            f"{path}: expected the format {' or '.join(map(repr, formats))} in its metadata 'minilm_np', found "
            f"{short_repr(found)}"
        )
    return arrays, facts


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a .safetensors file, which anybody may have written.

    The file is read into memory and not mapped, so it may change afterwards.
    Raises OSError (as `_files.open_regular`), and InputValueError for a broken file or a header above MAX_JSON bytes.
    """
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if MAX_JSON < length < size:  # the library's limit is 10 times as high, which takes gigabytes to parse
            raise InputValueError(f"{path}: the header's length: expected at most {MAX_JSON} bytes, found {length}")
        file.seek(0)
        content = file.read(size)
    try:
        arrays = load(content)  # checks the header, and that the tensors fill the file
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # the others: NumPy has no such array
        raise InputValueError(f"{path}: expected a complete .safetensors file: {error}") from None
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    return arrays, metadata

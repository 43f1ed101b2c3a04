"""Named arrays as .safetensors files, with or without facts in their metadata; written atomically."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from minilm_np._files import atomic_path, parse_json
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
    try:
        save_arrays(path, arrays, {"minilm_np": json.dumps(facts, ensure_ascii=False)})
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror or error}") from error


def read_tensors(path: str | os.PathLike[str], format_: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the facts of a file of `write_tensors`, if its facts contain this "format".

    The file is read into memory and not mapped, so it may change afterwards.
    Raises OSError, and InputValueError for a file that is broken or of another format.
    """
    content = Path(path).read_bytes()
    try:
        arrays = load(content)  # checks the header, and that the tensors fill the file
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy does not have
        raise InputValueError(f"{path}: expected a complete .safetensors file: {error}") from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    try:
        facts = parse_json((header.get("__metadata__") or {}).get("minilm_np", "{}").encode())
    except ValueError as error:
        raise InputValueError(f"{path}: metadata 'minilm_np': {error}") from None
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != format_:
        raise InputValueError(f"{path}: expected the format {format_!r} in its metadata 'minilm_np', found {found!r}")
    return arrays, facts

"""One .safetensors file: its header, strictly validated, and its tensors as float32 arrays.

The format (https://huggingface.co/docs/safetensors): 8 bytes with the length n of the header, little-endian; n bytes
of JSON with the dtype, shape and position of each tensor; the bytes of the tensors, without gaps, to the end.

Weights are untrusted files. This module therefore parses the format itself, and refuses what the safetensors library
(0.8) accepts: a name that occurs twice (the library takes the last one), NaN and infinity, `__metadata__: null`, empty
tensors. The library also maps the file into memory: if the file is truncated or rewritten later, the process is killed
(SIGBUS). And it cannot read BF16 into NumPy. Here ordinary reads fill newly allocated arrays. The library writes the
files (`tensors.py`), and the tests compare with it. Unaligned data is accepted, because some writers do not pad the
header; the arrays are aligned in any case.
"""

import io
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minilm_np._checks import short_repr
from minilm_np._files import MAX_JSON, open_regular, parse_json
from minilm_np.errors import CheckpointError

# Bytes per element of each dtype of the format (F4 and F6, whose elements cross bytes, count as unknown); then the
# four dtypes that can be read, as NumPy's (BF16 as its bits).
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
READ_AS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}

_CHUNK = 1 << 17  # elements that are read, widened and checked at a time, while they are in the CPU's cache


@dataclass(frozen=True)
class Tensor:
    """The verified description of a tensor in the header of a file; `name` is as stored, with its prefix."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # position of the first byte in the file
    stop: int  # position after the last byte
    file: io.FileIO

    def __str__(self) -> str:
        return f"{self.file.name}: tensor {short_repr(self.name)}"


@contextmanager
def open_weights(path: Path) -> Iterator[io.FileIO]:
    """Open a regular file with weights, and check at the end that it has not changed."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_regular(path))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
        before = os.fstat(file.fileno())
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise CheckpointError(f"{path} changed while it was being read: load the model again")


def read_header(file: io.FileIO) -> dict[str, Tensor]:
    """{stored name: tensor} of one file. The tensors cover the data of the file without gap or overlap."""
    path, size = file.name, os.fstat(file.fileno()).st_size
    if size < 8:
        found = f"{size} bytes: the file is truncated" if size else "an empty file"
        raise CheckpointError(f"{path}: expected at least the 8 bytes of the header's length, found {found}")
    length = int.from_bytes(_read_bytes(file, 8), "little")
    most = min(MAX_JSON, size - 8)
    hint = "the file is truncated, or is not a safetensors file"
    check(length <= most, f"{path}: the header's length", f"at most {most} in a file of {size} bytes", length, hint)
    raw = _read_bytes(file, length)
    check(raw.startswith(b"{"), f"{path}: the header's first byte", "'{'", raw[:1])
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    metadata = header.pop("__metadata__", {})
    strings = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    check(strings, f"{path}: __metadata__", "an object of strings", metadata)

    data = 8 + length  # position of the first tensor
    tensors = [_parse_tensor(file, data, name, entry) for name, entry in header.items()]
    end, before = data, "the header"
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        hint = f"it {'overlaps' if tensor.start < end else 'leaves a gap after'} {before}"
        check(tensor.start == end, f"{tensor}: data_offsets", f"a start at {end - data}", tensor.start - data, hint)
        end, before = tensor.stop, short_repr(tensor.name)
    hint = "the file is truncated: download it again" if size < end else "there is data after the last tensor"
    check(end == size, f"{path}: size", f"{end} bytes, according to the header", size, hint)
    return {tensor.name: tensor for tensor in tensors}


def _parse_tensor(file: io.FileIO, data: int, name: str, entry: Any) -> Tensor:
    """The tensor of one entry of a header, after a check of its types, dtype, shape and size."""
    where = f"{file.name}: tensor {short_repr(name)}"
    fields = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
    check(fields, where, "an object of dtype, shape and data_offsets", entry)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    check(isinstance(dtype, str) and dtype in _BYTES, f"{where}: dtype", f"one of {', '.join(_BYTES)}", dtype)
    # 64 dimensions are NumPy's limit; with sizes below 2**63, the product has a bounded number of digits
    sizes = isinstance(shape, list) and len(shape) <= 64 and all(type(n) is int and 0 < n < 2**63 for n in shape)
    check(sizes, f"{where}: shape", "a list of at most 64 integers from 1 to 2**63 - 1", shape)
    pair = isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)
    check(pair and 0 <= offsets[0] <= offsets[1] < 2**63, f"{where}: data_offsets", "integers 0 <= a <= b", offsets)
    start, stop = offsets
    n_bytes = math.prod(shape) * _BYTES[dtype]
    of = f"{short_repr(n_bytes)} bytes, for {dtype} of shape {short_repr(tuple(shape))}"
    check(stop - start == n_bytes, f"{where}: data_offsets", of, stop - start)
    return Tensor(name, dtype, tuple(shape), data + start, data + stop, file)


# ------------------------------------------------------------------------------------------------- the bytes


def read_tensor(tensor: Tensor) -> npt.NDArray[np.float32]:
    """Read a tensor into a new, read-only float32 array. Every element is finite."""
    array = np.empty(tensor.shape, np.float32)
    flat: npt.NDArray[np.float32] = array.reshape(-1)
    stored: np.dtype[Any] = READ_AS[tensor.dtype]
    tensor.file.seek(tensor.start)
    n_bad, first_bad = 0, ""
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        raw = part if stored == part.dtype else np.empty(part.size, stored)
        _read_into(tensor.file, raw.data.cast("B"))
        if tensor.dtype == "BF16":  # the upper half of a float32
            np.left_shift(raw, np.uint32(16), out=part.view(np.uint32))
        elif raw is not part:
            with np.errstate(all="ignore"):
                part[:] = raw
        bad = ~np.isfinite(part)
        if bad.any():
            if not n_bad:
                i = int(bad.argmax())
                value = part[i] if tensor.dtype == "BF16" else raw[i]
                kind = "too large for float32" if np.isfinite(value) else "NaN or infinite"
                index = tuple(int(n) for n in np.unravel_index(start + i, tensor.shape))
                first_bad = f"{kind}, the first at index {index}: {value}"
            n_bad += int(np.count_nonzero(bad))
    if n_bad:
        raise CheckpointError(f"{tensor}: expected finite values, found {n_bad} of {flat.size} {first_bad}")
    array.flags.writeable = False
    return array


def _read_bytes(file: io.FileIO, size: int) -> bytes:
    """Read the next `size` bytes of a file."""
    buffer = bytearray(size)
    _read_into(file, memoryview(buffer))
    return bytes(buffer)


def _read_into(file: io.FileIO, view: memoryview) -> None:
    """Fill `view` with the next bytes of a file."""
    while view.nbytes:
        try:
            n_read = file.readinto(view)
        except OSError as error:
            raise CheckpointError(f"{file.name} cannot be read: {error.strerror or error}") from None
        if not n_read:
            raise CheckpointError(f"{file.name} was truncated while it was being read: {view.nbytes} bytes are missing")
        view = view[n_read:]


def check(holds: object, where: str, expected: str, found: object, hint: str = "") -> None:
    """Raise CheckpointError unless `holds`."""
    if not holds:
        raise CheckpointError(
            f"{where}: expected {expected}, found {short_repr(found)}" + (f": {hint}" if hint else "")
        )

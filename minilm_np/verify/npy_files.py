"""Arrays in NumPy's files, .npy and .npz. Python objects (pickles) are never read: they can run code."""

import io
import math
import os
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilm_np._files import MAX_ARRAYS, open_regular, shown
from minilm_np.errors import InputValueError
from minilm_np.verify.interface import Array
from minilm_np.verify.vector_arrays import TEXT_NAMES, VECTOR_NAMES, check_expanded, column, no_vectors

# The first bytes of an .npy file contain its header: NumPy's limit for it is 10,000 bytes. NumPy writes version 3 only
# for structured arrays.
HEAD = 10_100
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """The header of an .npy file."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]
    end: int  # where the numbers begin

    @property
    def bytes(self) -> int:
        """The size of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def _header(head: bytes, where: str) -> Header:
    """The header in the first bytes of a file. Raises InputValueError."""
    stream = io.BytesIO(head)
    try:
        with warnings.catch_warnings(action="ignore"):  # of the parser of Python that NumPy uses
            read_header = _HEADERS[np.lib.format.read_magic(stream)]
            shape, by_columns, dtype = read_header(stream)
    except Exception as error:  # NumPy lets many kinds escape: tokenize.TokenError, SyntaxError, TypeError, ...
        raise InputValueError(f"{where} is not an .npy file of numbers: {type(error).__name__}: {error}") from None
    return Header(shape, by_columns, dtype, stream.tell())


def _check_size(header: Header, found: int, where: str) -> None:
    if found != header.bytes:
        raise InputValueError(
            f"{where} is not an .npy file of numbers: expected {shown(header.bytes)} bytes after the header, for "
            f"{header.dtype} of shape {header.shape!r:.80}, found {found}: the file is damaged"
        )


def _is_shape(header: Header, kind: str, rank: int) -> bool:
    are_valid = all(type(n) is int and n > 0 for n in header.shape)
    return header.dtype.kind == kind and len(header.shape) == rank and are_valid


def read_npy(path: Path) -> tuple[Array, None]:
    """Return the vectors of an .npy file, (n, D)."""
    return read_floats(path, (2,), "(texts, numbers)"), None


def read_floats(path: Path, ranks: tuple[int, ...], expected: str) -> Array:
    """Return the array of an .npy file. Its size is compared with that of the file before any memory is allocated.

    ranks: the possible numbers of axes. expected: the shape, for the error.
    """
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        header = _header(file.read(HEAD), str(path))
        if not any(_is_shape(header, "f", rank) for rank in ranks):
            raise no_vectors(path, header.dtype, header.shape, expected)
        _check_size(header, os.fstat(file.fileno()).st_size - header.end, str(path))
        file.seek(header.end)
        array = np.empty(header.shape, header.dtype, order="F" if header.by_columns else "C")
        flat = array.ravel("K").view(np.uint8)  # "K": a view, in the order of the memory
        if file.readinto(flat.data) != header.bytes:
            raise InputValueError(f"{path} was truncated while it was being read")
        return array


def read_npz(path: Path) -> tuple[Array, list[str] | None]:
    """Return the (n, D) array of floats of an .npz file, and the (n,) array of strings if there is one."""
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                check_expanded(path, os.fstat(file.fileno()).st_size, sum(info.file_size for info in members.values()))
                headers: dict[str, Header] = {}
                for name, info in members.items():
                    with archive.open(info) as member:
                        headers[name] = _header(member.read(HEAD), f"{path}, {name}")
                floats = [name for name in headers if _is_shape(headers[name], "f", 2)]
                vectors = column(path, floats, VECTOR_NAMES, "floats", "array")
                if vectors is None:
                    found = shown({name: f"{one.dtype} {one.shape}" for name, one in headers.items()})
                    raise InputValueError(f"{path}: expected floats of shape (texts, numbers), found {found}")
                strings = [name for name in headers if _is_shape(headers[name], "U", 1)]
                texts = column(path, strings, TEXT_NAMES, "texts", "array")
                return (
                    _member(archive, members[vectors], headers[vectors], path),
                    None if texts is None else _member(archive, members[texts], headers[texts], path).tolist(),
                )
        except InputValueError:
            raise
        # RuntimeError: encrypted; NotImplementedError: another compression; ValueError: no Unicode text
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            raise InputValueError(f"{path} is not an .npz file, or is damaged: {error}") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Header, path: Path) -> Array:
    """One array of an .npz file."""
    with archive.open(info) as member:
        content = member.read(info.file_size)[header.end :]
    _check_size(header, len(content), f"{path}, {info.filename}")
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.by_columns else "C")

"""Texts in and results out: lines of UTF-8, and files that appear when they are whole."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from minilm_np.errors import InputValueError


def check_output(path: Path, option: str = "--output") -> None:
    """Refuse before the work what could not be written after it. An argument that is no option has "" for one."""
    where = f"{option} {path}".lstrip()
    if path.is_dir():
        raise InputValueError(f"{where}: it is a folder: name a file in it")
    if not path.parent.is_dir():
        raise InputValueError(f"{where}: there is no folder {path.parent}: make it first")
    if not os.access(path if path.exists() and not path.is_file() else path.resolve().parent, os.W_OK):
        raise InputValueError(f"{where}: the folder {path.resolve().parent} is not writable: choose another")


def decoded(texts: list[str]) -> list[str]:
    """Arguments that are not UTF-8 reach Python with surrogates in them; say which, as for a file."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputValueError(f"text {number} of the command line is not UTF-8: {os.fsencode(text)!r}") from None
    return texts


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 file, without their ends (\\n or \\r\\n), one at least; an empty line is an empty text."""
    where = "standard input" if path == "-" else path
    if path == "-" and sys.stdin is None:
        raise InputValueError("standard input is closed")
    raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise without_text(path)
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise InputValueError(
                f"{where}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start}): "
                "convert the file first, for example with iconv"
            ) from None
    return texts


def read_texts(path: str) -> list[str]:
    """Return the texts of a file: one per line, or `text` of each object of a .jsonl file.

    Raises InputValueError, OSError.
    """
    lines = read_lines(path)
    if not path.lower().endswith(".jsonl"):
        return lines
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputValueError(f"{path}, line {number}: not JSON: {error}") from None
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str):
            raise InputValueError(f'{path}, line {number}: expected an object with "text", found {line[:60]}')
        texts.append(text)
    return texts


def without_text(path: str) -> InputValueError:
    where = "standard input" if path == "-" else path
    return InputValueError(f"{where}: there is no text in it: expected a text a line")


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that is there when it is whole, and not before; a device such as /dev/null as it is."""
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            device.writelines(parts)
        return
    with temporary_beside(path.resolve()) as file:  # a link stays a link
        file.writelines(parts)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[IO[bytes]]:
    """A file to fill, which then takes the place of `path`. Raises OSError in the name of `path`."""
    name = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)  # mkstemp's 0600 is for secrets
            yield file
        Path(name).replace(path)
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise

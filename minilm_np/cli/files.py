"""Texts in and results out: reading lines of UTF-8, and writing files atomically."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from minilm_np._files import atomic_file
from minilm_np.errors import InputValueError


def check_output(path: Path, option: str = "--output") -> None:
    """Raise InputValueError, before any work is done, if a file cannot be written.

    option: the option that names the file, for the message; "" for a positional argument.
    """
    where = f"{option} {path}".lstrip()
    if path.is_dir():
        raise InputValueError(f"{where}: expected a file, found a folder: name a file in it")
    if not path.parent.is_dir():
        raise InputValueError(f"{where}: there is no folder {path.parent}: create it first")
    if not os.access(path if path.exists() and not path.is_file() else path.resolve().parent, os.W_OK):
        raise InputValueError(f"{where}: the folder {path.resolve().parent} is not writable: choose another folder")


def decoded(texts: list[str]) -> list[str]:
    """The texts of a command line, checked: Python passes bytes that are not UTF-8 as lone surrogates.

    Raises InputValueError, naming the text.
    """
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputValueError(f"text {number} of the command line is not UTF-8: {os.fsencode(text)!r}") from None
    return texts


def read_lines(path: str) -> list[str]:
    """Read the lines of a UTF-8 file, or of standard input for "-", without their ends (\\n or \\r\\n).

    An empty line is an empty text. Raises InputValueError for an empty file, and for a line that is not UTF-8.
    """
    where = _name(path)
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
                f"{where}, line {number}: expected UTF-8, found byte 0x{line[error.start]:02x} at position "
                f"{error.start}: convert the file, for example with iconv"
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
            raise InputValueError(f"{path}, line {number}: expected JSON: {error}") from None
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str):
            raise InputValueError(f'{path}, line {number}: expected an object with "text", found {line[:60]}')
        texts.append(text)
    return texts


def without_text(path: str) -> InputValueError:
    """The error for a file that contains no text."""
    return InputValueError(f"{_name(path)}: expected one text per line, found no text")


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def write_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file completely or not at all; a device such as /dev/null is written directly. Raises OSError."""
    with atomic_file(path) as file:
        file.writelines(parts)

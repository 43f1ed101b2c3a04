"""Texts in and results out: reading lines of UTF-8, and writing files atomically."""

import itertools
import json
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from minilm_np._files import atomic_file
from minilm_np._text_files import decode_line, read_samples
from minilm_np.errors import DataError, InputValueError

RECORDS = (".csv", ".tsv", ".json", ".jsonl")  # endings of files whose lines are usually more than a text

T = TypeVar("T")


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


class Lines(NamedTuple):
    """The lines of a text file, to be read once."""

    numbered: Iterator[tuple[int, str]]  # each with its number, from 1
    total: int | None  # how many there are; None if that is unknown before they are read


@contextmanager
def open_lines(path: str, *, skip_blank: bool = False, counted: bool = False, records: bool = False) -> Iterator[Lines]:
    """Yield the lines of a UTF-8 file, or of standard input for "-", without their ends (\\n or \\r\\n).

    They are read as they are taken, so the memory does not grow with the file. A file on disk is read twice: first to
    count the lines and to report errors before any work. Standard input, or a pipe, is read once.

    skip_blank: leave out lines of white space; otherwise an empty line is an empty text.
    counted: copy standard input, or a pipe, to a temporary file, so that the lines are counted, too.
    records: the caller reads the lines of a .csv, .tsv, .json or .jsonl file as records; otherwise a warning says that
        each line is one text.
    Raises DataError for a file without lines, and for a line that `decode_line` refuses; OSError.
    """
    if path == "-" and sys.stdin is None:
        raise InputValueError("standard input is closed")
    if not records and path.lower().endswith(RECORDS):
        warnings.warn(
            f"{path}: each line is one text, with all its separators, quotes and fields: to encode only a column or a "
            "field, use `minilm-np embed`, or write it to a text file first",
            stacklevel=4,
        )
    with ExitStack() as stack:
        file: IO[bytes] = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
        total = None
        if counted and not _is_on_disk(path, file):
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            file = copy
        if counted or _is_on_disk(path, file):
            total = sum(1 for _ in _decoded(file, path, skip_blank))
            file.seek(0)
        lines = _decoded(file, path, skip_blank)
        first = next(lines)  # now: an error in it is reported before any work
        yield Lines(_exactly(itertools.chain([first], lines), total, path), total)


def read_lines(path: str, *, skip_blank: bool = False, records: bool = False) -> tuple[list[int], list[str]]:
    """Read all lines of a file: their numbers, from 1, and their texts. Otherwise as `open_lines`."""
    with open_lines(path, skip_blank=skip_blank, records=records) as lines:
        numbers, texts = zip(*lines.numbered, strict=True)
    return list(numbers), list(texts)


def _is_on_disk(path: str, file: IO[bytes]) -> bool:
    return path != "-" and stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _decoded(file: IO[bytes], path: str, skip_blank: bool) -> Iterator[tuple[int, str]]:
    """The numbered lines of an open file. Raises DataError, also if there is none."""
    where, found = _name(path), False
    for number, raw in enumerate(file, 1):
        line = decode_line(raw, where, number)
        text = line.removesuffix("\n").removesuffix("\r")
        if line and not (skip_blank and not text.strip()):  # a file of a byte order mark has the line ""
            found = True
            yield number, text
    if not found:
        raise DataError(f"{where}: expected one text per line, found no text")


def _exactly(lines: Iterator[T], total: int | None, path: str) -> Iterator[T]:
    """The lines that were counted, and none that were appended since. Raises DataError if there are fewer."""
    found = 0
    for line in itertools.islice(lines, total):
        yield line
        found += 1
    if total is not None and found < total:
        raise DataError(f"{path}: expected {total:,} lines, found {found:,}: the file became shorter during the work")


def read_texts(path: str) -> list[str]:
    """Return the texts of a file: one per line, or `text` of each object of a .jsonl file.

    Raises DataError, OSError.
    """
    is_jsonl = path.lower().endswith(".jsonl")
    _, lines = read_lines(path, records=is_jsonl)
    if not is_jsonl:
        return lines
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: expected JSON: {error}") from None
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str):
            raise DataError(f'{path}, line {number}: expected an object with "text", found {line[:60]}')
        texts.append(text)
    return texts


def read_pairs(path: str) -> list[tuple[str, str]]:
    """The pairs of texts in a file of samples: .jsonl or .tsv. Raises DataError."""
    pairs = []
    for texts in read_samples(path):
        if len(texts) != 2:
            raise DataError(f"{path}: expected two texts on each line, found {len(texts)}")
        pairs.append((texts[0], texts[1]))
    return pairs


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def write_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file completely or not at all; a device such as /dev/null is written directly. Raises OSError."""
    with atomic_file(path) as file:
        file.writelines(parts)

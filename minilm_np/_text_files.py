"""Read files of texts line by line, and files of samples: pairs or triplets of texts, for training and evaluation.

A file of samples is `.jsonl` (each line is a list of texts, or an object {"texts": [...]}) or `.tsv` (texts separated
by tabs, no header, no quoting). Both may be compressed: `.jsonl.gz`, `.tsv.gz`. Each line holds one sample, `[anchor,
positive]` or `[anchor, positive, negative, ...]`. All lines of a file have the same number of texts.
"""

import codecs
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilm_np._files import bounded_lines, open_regular
from minilm_np._files import shown as shown
from minilm_np.errors import DataError

KINDS = (".jsonl", ".tsv")

_UTF_16 = ("the byte order mark of UTF-16", "convert the file, for example with iconv -f UTF-16")
OTHER_KINDS = {  # the first bytes of files that are often taken for text: what they are, and what to do
    codecs.BOM_UTF16_LE: _UTF_16,
    codecs.BOM_UTF16_BE: _UTF_16,
    b"\x1f\x8b": ("data compressed by gzip", "decompress it, for example with gunzip"),
    b"PK\x03\x04": ("a zip archive or an office document", "save its texts as a text file"),
}


def read_samples(path: str | os.PathLike[str]) -> Iterator[list[str]]:
    """Yield the samples of a file in order. Each line is checked when it is read. Raises DataError."""
    return (texts for _, texts in sample_lines(Path(path)))


def sample_lines(path: Path) -> Iterator[tuple[bytes, list[str]]]:
    """Yield each line of a file of samples, as raw bytes and as its texts. Raises DataError."""
    kind = kind_of(path)
    number = columns = 0
    for number, line in enumerate(raw_lines(path), 1):
        texts = parse_sample(line, kind, path, number)
        columns = columns or len(texts)
        if len(texts) != columns:
            raise DataError(
                f"{path}, line {number}: expected {columns} texts, as on the lines before, found {len(texts)}"
            )
        yield line, texts
    if not number:
        raise DataError(f"{path}, line 1: expected a pair or a triplet of texts on each line, found an empty file")


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a regular file, with their line ends. A file named `.gz` is decompressed.

    Raises DataError, also for a line of more than MAX_LINE bytes: a small .gz file can contain an endless one.
    """
    number = 0
    try:
        with open_regular(path) as unbuffered, io.BufferedReader(unbuffered) as file:
            readline = gzip.GzipFile(fileobj=file).readline if path.suffix == ".gz" else file.readline
            for line in bounded_lines(readline):
                number += 1
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}, line {number + 1}: the gzip data is broken: {error}: download the file again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def decode_line(raw: bytes, path: str | Path, number: int) -> str:
    """Decode a line as UTF-8. A byte order mark at the start of line 1 is removed.

    Raises DataError: it is not UTF-8, or has a null character, which is a sign of UTF-16 or of a binary file.
    """
    if number == 1:
        for mark, (kind, remedy) in OTHER_KINDS.items():
            if raw.startswith(mark):
                raise DataError(f"{path}: expected text in UTF-8, found {kind}: {remedy}")
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        line = raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: expected UTF-8, found byte 0x{raw[error.start]:02x} at position {error.start}: "
            "convert the file, for example with iconv"
        ) from None
    if "\0" in line:
        raise DataError(
            f"{path}, line {number}: expected text in UTF-8, found a null character at position {line.index(chr(0))}: "
            "if the file is UTF-16, convert it, for example with iconv -f UTF-16LE; a binary file has no texts"
        )
    return line


def kind_of(path: Path) -> str:
    """The kind of a file of samples by its name, ".jsonl" or ".tsv", whether compressed or not. Raises DataError."""
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind not in KINDS:
        raise DataError(f"{path}: expected a file name that ends in .jsonl, .tsv, .jsonl.gz or .tsv.gz")
    return kind


def parse_sample(raw: bytes, kind: str, path: Path, number: int) -> list[str]:
    """The texts of one line of a file of samples. Raises DataError."""
    where = f"{path}, line {number}"
    line = decode_line(raw, path, number)
    if kind == ".tsv":
        texts: list[Any] = line.removesuffix("\n").removesuffix("\r").split("\t")
    else:
        texts = _parse_json(line, where)
    if len(texts) < 2:
        tabs = ", separated by tabs" if kind == ".tsv" else ""
        found = "only one text" if texts else "no text"
        raise DataError(f"{where}: expected a pair or a triplet of texts{tabs}, found {found}")
    for column, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"{where}, text {column}: expected a string, found {shown(text)}")
        if not text.strip():
            raise DataError(f"{where}, text {column}: the text is empty: remove the line")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{where}, text {column}: expected valid Unicode, found a lone surrogate in {shown(text)}")
    return texts


def _parse_json(line: str, where: str) -> list[Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON: {error}") from None
    texts = value["texts"] if isinstance(value, dict) and value.keys() == {"texts"} else value
    if not isinstance(texts, list):
        raise DataError(f'{where}: expected a list of texts, or {{"texts": [...]}}, found {shown(value)}')
    return texts

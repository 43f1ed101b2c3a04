"""Training data from files: a pair or triplet of texts a line, checked line by line, read where it is needed.

A file is `.jsonl` (a line is a list of texts, or an object {"texts": [...]}) or `.tsv` (texts between tabs, no header,
no quoting), either of them also as `.gz`: `[anchor, positive]`, `[anchor, positive, negative, ...]`, the same number of
texts in every line. Several files are mixed by a `data_config.json` beside them, as published: a list of objects
{"name": FILE, "lines": N, "weight": W}.

Opening a file reads it once, checks every line, and keeps where each begins: 8 bytes a line, however large it is. What
is compressed is unpacked into a temporary file without a name (TMPDIR says where), for a .gz cannot be read from its
middle.
"""

import codecs
import contextlib
import gzip
import json
import math
import os
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from minilm_np._checks import check_int
from minilm_np.errors import DataError
from minilm_np.train.sampling import Sampler

KINDS = (".jsonl", ".tsv")
TABS = ", with a tab between the texts"


def open_data(
    path: str | os.PathLike[str],
    *,
    batch_size: int,
    seed: int = 0,
    sets_per_cycle: int = 2,
    steps_per_set: int = 4,
) -> Sampler:
    """Batches from one file of samples, or from the mix that a data_config.json describes.

    path: a .jsonl or .tsv, .gz or not, which is gone through pass after pass, shuffled, each text at most once a batch;
        or a .json in the form of data_config.json, sampled as published (see `sampling.py`).
    sets_per_cycle, steps_per_set: of a mix; 2 and 4 as published.

    Raises DataError (a file or line that is broken, fewer samples than a batch needs), InputTypeError, InputValueError.
    """
    check_int("batch_size", batch_size, 1)
    path = Path(path)
    if path.suffix == ".json":
        sets = [_open_listed(path, entry) for entry in _read_config(path)]
        cycle = {"sets_per_cycle": sets_per_cycle, "steps_per_set": steps_per_set}
    else:
        sets = [(SampleFile(path, path.name), 1.0)]
        cycle = {"sets_per_cycle": 1, "steps_per_set": 1}
    for file, _ in sets:
        _check_fills_a_batch(file, batch_size)
    return Sampler(
        [file for file, _ in sets], [weight for _, weight in sets], batch_size=batch_size, seed=seed, **cycle
    )


def read_samples(path: str | os.PathLike[str]) -> Iterator[list[str]]:
    """The samples of a file one after the other, each line checked; every one has the same number of texts.

    Raises DataError.
    """
    return (texts for _, texts in _lines(Path(path)))


class SampleFile:
    """A file of samples, open to be read anywhere: `file[n]` is the texts of line n + 1. Raises DataError."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.crc32 = 0  # of the text, unpacked
        self._kind = _kind(path)
        self._ends = array("q", [0])  # where each line ends, in bytes, and the next begins
        with tempfile.TemporaryFile() if path.suffix == ".gz" else contextlib.nullcontext() as unpacked:
            for line, _ in _lines(path):
                self.crc32 = zlib.crc32(line, self.crc32)
                self._ends.append(self._ends[-1] + len(line))
                if unpacked:
                    unpacked.write(line)
            if unpacked:
                unpacked.flush()
            self._descriptor = os.dup(unpacked.fileno()) if unpacked else os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, sample: int) -> list[str]:
        start, end = self._ends[sample], self._ends[sample + 1]
        return _parse(os.pread(self._descriptor, end - start, start), self._kind, self.path, sample + 1)


def _lines(path: Path) -> Iterator[tuple[bytes, list[str]]]:
    """Each line as it is, and the texts of it. Raises DataError."""
    kind = _kind(path)
    number = columns = 0
    for number, line in enumerate(raw_lines(path), 1):
        texts = _parse(line, kind, path, number)
        columns = columns or len(texts)
        if len(texts) != columns:
            raise DataError(
                f"{path}, line {number}: {len(texts)} texts, where the lines before have {columns}: "
                "expected as many in every line of a file"
            )
        yield line, texts
    if not number:
        raise DataError(f"{path}, line 1: the file is empty: expected a pair or a triplet of texts a line")


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends, unpacked if its name ends in .gz. Raises DataError."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                number += 1
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, line {number + 1}: the gzip data is broken: {error}: fetch the file again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def decode_line(raw: bytes, path: Path, number: int) -> str:
    """A line as text, without the byte order mark that may begin the first one. Raises DataError."""
    line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start}): convert the "
            "file first, for example with iconv"
        ) from None


def _kind(path: Path) -> str:
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind not in KINDS:
        raise DataError(f"{path}: expected a name that ends in .jsonl or .tsv, or in one of these and .gz")
    return kind


def _parse(raw: bytes, kind: str, path: Path, number: int) -> list[str]:
    """One line -> its texts. Raises DataError."""
    where = f"{path}, line {number}"
    line = decode_line(raw, path, number)
    if kind == ".tsv":
        texts: Any = line.removesuffix("\n").removesuffix("\r").split("\t")
    else:
        texts = _parse_json(line, where)
    if len(texts) < 2:
        found = "one text only" if texts else "no text"
        raise DataError(f"{where}: {found}: expected a pair or a triplet" + TABS * (kind == ".tsv"))
    for column, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"{where}: text {column}: expected a string, found {_shown(text)}")
        if not text.strip():
            raise DataError(f"{where}: text {column} is empty: leave the line out")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{where}: text {column} has a lone surrogate, which is not Unicode text: {_shown(text)}")
    return texts


def _parse_json(line: str, where: str) -> list[Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    texts = value["texts"] if isinstance(value, dict) and value.keys() == {"texts"} else value
    if not isinstance(texts, list):
        raise DataError(f'{where}: expected a list of texts, or {{"texts": [...]}}, found {_shown(value)}')
    return texts


def _read_config(path: Path) -> list[dict[str, Any]]:
    """data_config.json, each entry checked. Raises DataError."""
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path}: expected a list of {{"name", "lines", "weight"}}, found {_shown(entries)}')
    names = set()
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or entry.keys() != {"name", "lines", "weight"}:
            raise DataError(f"{where}: expected name, lines and weight, found {_shown(entry)}")
        name, lines, weight = entry["name"], entry["lines"], entry["weight"]
        if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{where}: name: expected a file beside {path.name}, found {_shown(name)}")
        if name in names:
            raise DataError(f"{where}: {name} is listed twice: give it one entry with the sum of the weights")
        if type(lines) is not int or lines < 1:
            raise DataError(f"{where}: lines: expected a number of at least 1, found {_shown(lines)}")
        if type(weight) not in (int, float) or not 0 < weight < math.inf:
            raise DataError(f"{where}: weight: expected a number above 0, found {_shown(weight)}")
        names.add(name)
    return entries


def _open_listed(config: Path, entry: dict[str, Any]) -> tuple[SampleFile, float]:
    file = SampleFile(config.parent / entry["name"], entry["name"])
    if len(file) != entry["lines"]:
        raise DataError(
            f"{file.path}, line {len(file)}: the file ends here, where {config} says {entry['lines']} lines: "
            "fetch it again, or correct the number"
        )
    return file, float(entry["weight"])


def _check_fills_a_batch(file: SampleFile, batch_size: int) -> None:
    """Raise DataError unless a batch can be made in which no text comes twice."""
    seen: set[str] = set()
    fitting = 0
    for sample in range(len(file)):
        texts = file[sample]
        if seen.isdisjoint(texts):
            seen.update(texts)
            fitting += 1
        if fitting == batch_size:
            return
    raise DataError(
        f"{file.path}, line {len(file)}: the file ends here, with {fitting} samples that have no text in common: "
        f"a batch of {batch_size} needs as many: choose a smaller batch size, or add data"
    )


def _shown(value: Any) -> str:
    """A value as an error message shows it, cut at 80 characters."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

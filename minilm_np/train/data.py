"""Training data from files: one pair or triplet of texts per line, every line checked, each read again when needed.

`_text_files.py` describes the files. A `data_config.json` mixes several files in the same folder, in the form of the
published model: a list of objects {"name": FILE, "lines": N, "weight": W}.

Opening a file reads it once, checks every line, and stores where each line begins: 8 bytes per line, for a file
of any size. A compressed file is first decompressed into an unnamed temporary file (in TMPDIR), because a .gz file
cannot be read from its middle.
"""

import contextlib
import math
import os
import tempfile
import weakref
import zlib
from array import array
from pathlib import Path, PurePosixPath
from typing import TypedDict

from minilm_np._checks import check_int, is_finite_number
from minilm_np._files import open_regular, read_json
from minilm_np._text_files import (
    KINDS,
    decode_line,
    kind_of,
    parse_sample,
    raw_lines,
    read_samples,
    sample_lines,
    shown,
)
from minilm_np.errors import DataError
from minilm_np.train.sampling import Sampler

__all__ = ["KINDS", "SampleFile", "decode_line", "open_data", "raw_lines", "read_samples"]


class _Entry(TypedDict):
    """One entry of data_config.json."""

    name: str
    lines: int
    weight: float


def open_data(
    path: str | os.PathLike[str],
    *,
    batch_size: int,
    seed: int = 0,
    sets_per_cycle: int = 2,
    steps_per_set: int = 4,
) -> Sampler:
    """Open one file of samples, or the mix of files that a data_config.json describes. Returns an endless iterator.

    path: a .jsonl or .tsv file, compressed or not. Its samples are shuffled again for each pass over the file, and no
        text occurs twice in a batch. Or a .json file in the form of data_config.json, sampled like the published
        model's data (see `sampling.py`).
    batch_size: samples per batch.
    sets_per_cycle, steps_per_set: for a mix; the published values are 2 and 4.

    Raises DataError (a broken file or line; fewer samples than one batch needs), InputTypeError, InputValueError.
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


class SampleFile:
    """An open file of samples with random access: `file[n]` is the list of texts on line n + 1. Raises DataError."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.crc32 = 0  # of the decompressed bytes
        self._kind = kind_of(path)
        self._ends = array("q", [0])  # the byte offset at which each line ends and the next one begins
        try:
            self._read()
        except OSError as error:
            raise DataError(
                f"{path} cannot be prepared for random access (a .gz file is decompressed into "
                f"{tempfile.gettempdir()}, or into TMPDIR): {error.strerror or error}"
            ) from error
        weakref.finalize(self, os.close, self._descriptor)

    def _read(self) -> None:
        """Check every line, note where it ends, and open the file for random access."""
        path = self.path
        with tempfile.TemporaryFile() if path.suffix == ".gz" else contextlib.nullcontext() as unpacked:
            for line, _ in sample_lines(path):
                self.crc32 = zlib.crc32(line, self.crc32)
                self._ends.append(self._ends[-1] + len(line))
                if unpacked:
                    unpacked.write(line)
            if unpacked:
                unpacked.flush()
            with contextlib.nullcontext(unpacked) if unpacked else open_regular(path) as file:
                self._descriptor = os.dup(file.fileno())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, sample: int) -> list[str]:
        start, end = self._ends[sample], self._ends[sample + 1]
        try:
            line = os.pread(self._descriptor, end - start, start)
        except OSError as error:
            raise DataError(f"{self.path}, line {sample + 1}: cannot be read: {error.strerror or error}") from None
        if len(line) != end - start:
            raise DataError(f"{self.path}, line {sample + 1}: the file was truncated while it was in use")
        return parse_sample(line, self._kind, self.path, sample + 1)


def _read_config(path: Path) -> list[_Entry]:
    """The entries of a data_config.json, each one checked. Raises DataError."""
    try:
        entries = read_json(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path}: expected a list of {{"name", "lines", "weight"}}, found {shown(entries)}')
    names = set()
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or entry.keys() != {"name", "lines", "weight"}:
            raise DataError(f"{where}: expected name, lines and weight, found {shown(entry)}")
        name, lines, weight = entry["name"], entry["lines"], entry["weight"]
        if not _is_inside(name):
            raise DataError(f"{where}: name: expected a file in the folder of {path.name}, found {shown(name)}")
        if name in names:
            raise DataError(f"{where}: {name} is listed twice: give it one entry with the sum of the weights")
        if type(lines) is not int or lines < 1:
            raise DataError(f"{where}: lines: expected an integer of at least 1, found {shown(lines)}")
        if not is_finite_number(weight) or weight <= 0:
            raise DataError(f"{where}: weight: expected a finite number above 0, found {shown(weight)}")
        names.add(name)
    if not math.isfinite(sum(float(entry["weight"]) for entry in entries)):
        raise DataError(f"{path}: weight: expected a finite sum of all weights, found infinity: divide them all")
    return entries


def _is_inside(name: object) -> bool:
    """Whether a name is that of a file in the same folder or below it, and not an impossible one."""
    if not isinstance(name, str) or "\0" in name:
        return False
    try:
        os.fsencode(name)  # fails for a lone surrogate
    except UnicodeEncodeError:
        return False
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _open_listed(config: Path, entry: _Entry) -> tuple[SampleFile, float]:
    file = SampleFile(config.parent / entry["name"], entry["name"])
    if len(file) != entry["lines"]:
        raise DataError(
            f"{file.path}: expected {entry['lines']} lines, as {config} says, found {len(file)}: "
            "download the file again, or correct the number of lines"
        )
    return file, float(entry["weight"])


def _check_fills_a_batch(file: SampleFile, batch_size: int) -> None:
    """Raise DataError unless the file can fill one batch in which no text occurs twice."""
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
        f"{file.path}: expected at least {batch_size} samples without a common text, to fill one batch; "
        f"found {fitting} (of {len(file)} samples): choose a smaller batch size, or add data"
    )

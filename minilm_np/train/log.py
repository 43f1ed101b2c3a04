"""The log of a training run, log.jsonl: one line per step, `{"step": ..., "loss": ...}`, and one per evaluation."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from minilm_np._checks import is_finite_number
from minilm_np._files import atomic_file, read_regular, sync
from minilm_np._text_files import shown
from minilm_np.errors import DataError, SaveError

MAX_LOG = 2**30  # bytes; a line has about 100, and a run has a line per step


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, or none if there is no file. A last line that a crash truncated is skipped.

    Raises DataError: the file cannot be read, or a line is broken; the message names the line.
    """
    try:
        lines = read_regular(path, MAX_LOG).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number}: expected JSON: {error}: remove the line") from None
        if not _is_entry(entry):
            raise DataError(
                f'{path}, line {number}: expected an object with an integer "step" and a number "loss" or an object of '
                f'numbers "evaluation", found {shown(entry)}: remove the line'
            )
        entries.append(entry)
    return entries


def open_log(path: Path, step: int) -> tuple[list[dict[str, Any]], FileIO]:
    """Remove all entries after a step. Returns the others, and the file opened for appending.

    Raises DataError as `read_log`, SaveError.
    """
    kept = [entry for entry in read_log(path) if entry["step"] <= step]
    try:
        with atomic_file(path) as file:
            file.writelines(_line(entry) for entry in kept)
        return kept, FileIO(path, "a")
    except OSError as error:
        raise SaveError(f"{path}: the log cannot be written: {error.strerror or error}") from error


def write_entry(log: FileIO, entry: Mapping[str, Any]) -> None:
    """Append one entry, or nothing of it. Raises SaveError."""
    end = os.fstat(log.fileno()).st_size
    left = _line(entry)
    try:
        while left:  # a disk that becomes full takes a part
            left = left[log.write(left) :]
    except OSError as error:
        with suppress(OSError):
            log.truncate(end)
        raise SaveError(f"{log.name}: the log cannot be written: {error.strerror or error}") from error


def sync_log(path: Path) -> None:
    """Flush a log to the disk. Raises SaveError."""
    try:
        sync(path)
    except OSError as error:
        raise SaveError(f"{path}: the log cannot be written: {error.strerror or error}") from error


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or type(entry.get("step")) is not int or entry["step"] < 0:
        return False
    if "loss" in entry:
        return is_finite_number(entry["loss"])
    figures = entry.get("evaluation")  # a figure may be NaN or infinite
    return isinstance(figures, dict) and all(type(x) is float or is_finite_number(x) for x in figures.values())


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"

"""The log of a training run, log.jsonl: one line per step, `{"step": ..., "loss": ...}`, and one per evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from minilm_np._files import atomic_file
from minilm_np.errors import SaveError


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, or none if there is no file. A line that a crash truncated is skipped."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and type(entry.get("step")) is int:
            entries.append(entry)
    return entries


def open_log(path: Path, step: int) -> tuple[list[dict[str, Any]], IO[str]]:
    """Remove all entries after a step. Returns the others, and the file opened for appending. Raises SaveError."""
    try:
        kept = [entry for entry in read_log(path) if entry["step"] <= step]
        with atomic_file(path) as file:
            file.writelines(_line(entry).encode() for entry in kept)
        return kept, path.open("a", encoding="utf-8")
    except OSError as error:
        raise SaveError(f"{path}: the log cannot be written: {error.strerror or error}") from error


def write_entry(log: IO[str], entry: Mapping[str, Any]) -> None:
    """Append one entry, and flush it."""
    log.write(_line(entry))
    log.flush()


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"

"""What the commands print on stdout: lines, JSON, and texts shortened to one line."""

import json
import sys
from collections.abc import Iterable

import numpy as np


def write_lines(lines: Iterable[str]) -> None:
    """Print lines as UTF-8, regardless of the locale."""
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode())


def write_json(result: object, indent: int | None = None) -> None:
    """Print a value as JSON in UTF-8."""
    write_lines([json.dumps(result, indent=indent, ensure_ascii=False)])


def one_line(text: str, width: int) -> str:
    """A text for a table: one line of at most `width` characters, without control characters."""
    text = text.strip()
    shown = "".join(character if character.isprintable() else " " for character in text[: width + 1])
    return shown if len(text) <= width else shown[: width - 3] + "..."


def shortest_float(number: float | np.floating) -> float:
    """The float whose decimal is the shortest one that reads back as the same float32."""
    return float(str(np.float32(number)))

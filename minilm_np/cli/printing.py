"""What the commands print on stdout: lines, JSON, and texts shortened to one line."""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable

import numpy as np

from minilm_np._checks import printable

WIDE = 160  # columns of a line that is written to a file or a pipe
LEAST = 12  # columns for a text, however narrow the terminal


def write_lines(lines: Iterable[str]) -> None:
    """Print lines. `cli.main` sets the encoding of stdout, UTF-8 in every locale."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def write_json(result: object, indent: int | None = None) -> None:
    """Print a value as JSON."""
    write_lines([json.dumps(result, indent=indent, ensure_ascii=False)])


def columns() -> int:
    """The columns of a line: COLUMNS, or those of the terminal; WIDE if stdout is not a terminal."""
    if "COLUMNS" in os.environ or sys.stdout.isatty():
        return shutil.get_terminal_size((WIDE, 24)).columns
    return WIDE


def room_after(start: str, most: int, width: int) -> int:
    """The columns that a line of some width has for a text after its start: at least LEAST, at most `most`."""
    return max(LEAST, min(most, width - cells(start)))


def one_line(text: str, width: int) -> str:
    """A text for a table: one line of at most `width` columns, without control characters."""
    text = text.strip()
    shown = printable(text[: width + 1])
    if len(text) <= width and cells(shown) <= width:
        return shown
    shown = shown[: width - 3]
    while cells(shown) > width - 3:
        shown = shown[:-1]
    return shown + "..."


def cells(text: str) -> int:
    """The columns that a text takes on a terminal: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def shortest_float(number: float | np.floating) -> float:
    """The float whose decimal is the shortest one that reads back as the same float32."""
    return float(str(np.float32(number)))

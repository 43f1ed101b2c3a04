"""Files of samples for tests: how to write one, and the forms that a file may have."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

# The name of a file, its bytes (before compression), and the texts of each line.
FORMS: list[tuple[str, bytes, list[list[str]]]] = [
    ("a.jsonl", b'["a", "b"]\n["c", "d"]\n', [["a", "b"], ["c", "d"]]),
    ("a.jsonl", b'["a", "b"]\r\n["c", "d"]', [["a", "b"], ["c", "d"]]),
    ("a.jsonl", b'\xef\xbb\xbf{"texts": ["a", "b", "c"]}\n["d", "e", "f"]\n', [["a", "b", "c"], ["d", "e", "f"]]),
    ("a.jsonl.gz", '["é", "\\u6771\\n"]\n'.encode(), [["é", "東\n"]]),
    ("a.jsonl", '["a\u2028b", "c\x85"]\n'.encode(), [["a\u2028b", "c\x85"]]),
    ("a.tsv", b'a "quoted\tb\nc\td\n', [['a "quoted', "b"], ["c", "d"]]),
    ("a.tsv.gz", b"a\tb\tc\r\nd\te\tf\r\n", [["a", "b", "c"], ["d", "e", "f"]]),
    ("a.tsv", b" a \tb\x0b\x0c1\n", [[" a ", "b\x0b\x0c1"]]),
]


def jsonl(samples: list[Any]) -> bytes:
    """The bytes of a .jsonl file."""
    return "".join(json.dumps(sample) + "\n" for sample in samples).encode()


def put(folder: Path, name: str, raw: bytes) -> Path:
    """Write a file, compressed if its name ends in .gz. Returns its path."""
    path = folder / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def message_of(caught: pytest.ExceptionInfo[Exception], folder: Path) -> str:
    """The message of an error about a file in this folder, from the file's name on."""
    message = str(caught.value)
    assert message.startswith(f"{folder}/")
    return message.removeprefix(f"{folder}/")

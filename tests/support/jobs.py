"""What the tests of jobs share: inputs of every format, and reading the outputs."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from minilm_np import SentenceEncoder
from minilm_np.jobs import cutting

TEXTS = ["a text", "", "naïve 日本 👍", 'quotes " and , and \t', "two\nlines", "long " * 20, "a text"]
LINES = [text.replace("\n", " ") for text in TEXTS]  # for .txt, where a text is a line
MANY = [f"text {number % 150}" for number in range(200)]


def small_parts(monkeypatch: Any, rows: int = 16) -> None:
    """Let a part end after so many rows."""
    monkeypatch.setattr(cutting, "PART_ROWS", rows)


def txt(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def jsonl(texts: Sequence[str]) -> bytes:
    return "".join(json.dumps({"id": n, "text": text, "n": [n]}) + "\n" for n, text in enumerate(texts)).encode()


def separated(delimiter: str) -> Callable[[Sequence[str]], bytes]:
    def table(texts: Sequence[str]) -> bytes:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter).writerows([("id", "text"), *enumerate(texts)])
        return file.getvalue().encode()

    return table


def arrow_table(texts: Sequence[str | None]) -> Any:
    stamps = pyarrow.array(range(len(texts)), pyarrow.timestamp("ns"))
    return pyarrow.table({"id": range(len(texts)), "text": pyarrow.array(texts, pyarrow.string()), "at": stamps})


def parquet(texts: Sequence[str | None]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(arrow_table(texts), file, row_group_size=90)
    return file.getvalue()


def arrow(texts: Sequence[str | None]) -> bytes:
    file = io.BytesIO()
    table = arrow_table(texts)
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)
    return file.getvalue()


def arrow_stream(texts: Sequence[str | None]) -> bytes:
    file = io.BytesIO()
    table = arrow_table(texts)
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)
    return file.getvalue()


FORMATS: dict[str, Callable[[Any], bytes]] = {
    "txt": txt,
    "jsonl": jsonl,
    "csv": separated(","),
    "tsv": separated("\t"),
    "parquet": parquet,
    "arrow": arrow,
}


def compressed(raw: bytes, compression: str) -> bytes:
    """Bytes compressed by "gz" or "zst", in two members or frames; "": as they are."""
    half = len(raw) // 2
    if compression == "gz":
        return gzip.compress(raw[:half], mtime=0) + gzip.compress(raw[half:], mtime=0)
    if compression == "zst":
        return b"".join(pyarrow.compress(part, "zstd", asbytes=True) for part in (raw[:half], raw[half:]))
    return raw


def write_input(folder: Path, kind: str) -> Path:
    """Write MANY texts to a file, such as in.csv.gz."""
    name, _, compression = kind.partition(".")
    (folder / f"in.{kind}").write_bytes(compressed(FORMATS[name](MANY), compression))
    return folder / f"in.{kind}"


def vectors_of(path: Path) -> np.ndarray:
    """The vectors of an output."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        return np.array([item["embedding"] for item in items_of(path)], np.float32)
    column = pyarrow.parquet.read_table(path).column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def items_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bytes."""
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def encoded(encoder: SentenceEncoder, texts: Sequence[str]) -> np.ndarray:
    """The vectors of texts, in memory."""
    return encoder.encode(list(texts), on_truncation="ignore")

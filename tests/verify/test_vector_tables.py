"""Vectors in Parquet, CSV and TSV, as `verify` reads them."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minilm_np import InputValueError, MissingExtraError
from minilm_np.verify.stored_vectors import StoredVectors

TEXTS = ["hello, world", "", 'a "quoted" text\nwith two lines, a \\ and a\ttab']
VECTORS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def read(path: Path, expected: Any = VECTORS, texts: list[str] | None = TEXTS) -> None:
    found = StoredVectors(path)
    assert found.texts == texts
    assert np.array_equal(found.vectors([""] * 3 if texts is None else texts).astype(np.float32), expected)


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 5), pa.list_(pa.float32(), 5)]
)
def test_lists_of_every_float_are_read(tmp_path: Path, kind: Any) -> None:
    dtype = kind.value_type.to_pandas_dtype()
    column = pa.array([list(vector) for vector in VECTORS.astype(dtype)], kind)
    path = write_parquet(tmp_path / "v.parquet", id=["x", "y", "z"], document=TEXTS, embedding=column)
    read(path, VECTORS.astype(dtype).astype(np.float32))


def test_a_frame_of_pandas_is_read(tmp_path: Path) -> None:
    pd.DataFrame({"text": TEXTS, "other": [1, 2, 3], "vector": list(VECTORS)}).to_parquet(tmp_path / "v.parquet")
    read(tmp_path / "v.parquet")


def test_identifiers_are_no_texts(tmp_path: Path) -> None:
    read(write_parquet(tmp_path / "v.parquet", id=["x", "y", "z"], e=VECTORS.tolist()), texts=None)


def test_null_is_a_number_that_is_none(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "v.parquet", e=[[1.0, None], [2.0, 3.0]])
    assert np.array_equal(StoredVectors(path).vectors(["", ""]), [[1.0, np.nan], [2.0, 3.0]], equal_nan=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "expected a column of lists of floats, found text string"),
        ({"e": [[1, 2]]}, "expected a column of lists of floats, found e list<element: int64>"),
        ({"a": [[1.0]], "b": [[1.0]]}, r'expected one column of vectors, found 2: \["a", "b"\]: keep one of them, or'),
        ({"e": [[1.0]], "a": ["x"], "b": ["y"]}, r"expected one column of texts, found 2.* or name it 'text'"),
        ({"e": [[1.0], None]}, "column e, row 1: expected a list of numbers, found null"),
        ({"e": [[1.0, 2.0], [1.0]]}, "column e, row 1: expected as many numbers as in the first row, 2, found 1"),
        ({"e": [[1.0], [2.0]], "text": ["x", None]}, "column text, row 1: expected a text, found null"),
        ({"e": pa.array([], pa.list_(pa.float32()))}, "expected at least one vector of at least one number"),
    ],
)
def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path, columns: Any, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        StoredVectors(write_parquet(tmp_path / "v.parquet", **columns))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "v.parquet", e=VECTORS.tolist())
    whole = path.read_bytes()
    for content in (b"", b"nothing", whole[:-1], whole[:40] + whole[60:]):
        path.write_bytes(content)
        with pytest.raises(InputValueError, match=r"v\.parquet"):
            StoredVectors(path)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    zeros = pa.array(np.zeros(10_000_000, np.float32))
    column = pa.FixedSizeListArray.from_arrays(zeros, 1000)
    pq.write_table(pa.table({"e": column}), tmp_path / "v.parquet")
    assert (tmp_path / "v.parquet").stat().st_size < 100_000
    with pytest.raises(InputValueError, match=r"expected arrays of at most 67108864 bytes .* found 80000000"):
        StoredVectors(tmp_path / "v.parquet")


# ---- CSV and TSV -----------------------------------------------------------------------------------------------------


def shortest(vector: np.ndarray) -> list[str]:
    return [str(number) for number in vector]


def pgvector(vector: np.ndarray) -> str:
    return f"[{','.join(shortest(vector))}]"


def write_csv(path: Path, rows: Any) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_one_column_per_number(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    read(write_csv(path, map(shortest, VECTORS)), texts=None)
    read(write_csv(path, [list("abcde"), *map(shortest, VECTORS)]), texts=None)
    rows = [
        [f"{number}", text, *shortest(vector)] for number, (text, vector) in enumerate(zip(TEXTS, VECTORS, strict=True))
    ]
    read(write_csv(path, [["id", "text", *"abcde"], *rows]))
    read(write_csv(path, [row[1:] for row in rows]))


def test_frames_of_pandas(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    frame = pd.DataFrame(VECTORS.astype(np.float64))
    frame.to_csv(path)
    read(path, texts=None)
    frame.to_csv(path, index=False)
    read(path, texts=None)
    frame.insert(0, "text", TEXTS)
    frame.to_csv(path)
    read(path)


def test_the_text_form_of_pgvector(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    rows = [[str(7 + row), text, pgvector(VECTORS[row])] for row, text in enumerate(TEXTS)]
    read(write_csv(path, rows))
    read(write_csv(path, [["item_id", "content", "embedding"], *rows]))
    read(write_csv(path, [row[2:] for row in rows]), texts=None)
    path.write_bytes(b"\xef\xbb\xbf" + write_csv(path, rows).read_bytes())
    read(path)


def test_copy_of_postgresql(tmp_path: Path) -> None:
    """COPY ... TO writes tabs, backslashes and line ends of a text as escapes, and no quotes."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")

    lines = (f"{row}\t{escaped(text)}\t{pgvector(VECTORS[row])}" for row, text in enumerate(TEXTS))
    (tmp_path / "v.tsv").write_text("\n".join(lines) + "\n")
    read(tmp_path / "v.tsv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected at least one vector of at least one number, found none"),
        (b"text,embedding\n", "expected at least one vector"),
        (b"a,b\nc,d\n", r"expected a column of vectors as \[0.1,0.2\], or one column per number, found \['c', 'd'\]"),
        (b"1.5,2\n1\n", "record 2: expected 2 fields, as in the first, found 1"),
        (b"text,a\nx,1,2\n", "expected 2 fields, as in the header, found 3"),
        (b"1.5,2\n1,x\n", "record 2: expected numbers: could not convert string to float: 'x'"),
        (b'"[1,2]"\n"[1]"\n', "record 2: expected as many numbers as in the first vector, 2, found 1"),
        (b'"[1,2]"\n"{1:2}/3"\n', r"record 2: expected \[0.1,0.2,...\], found '{1:2}/3'"),
        (b'"[1,2]"\n"' + b"[" * 50_000 + b'"\n', r"record 2: expected \[0.1,0.2,...\], found"),
        (b'"[1,""2""]"\n', r'record 1: expected a list of numbers, found \[1, "2"\]'),
        (b'a,b,"[1,2]"\n', r"expected one column of texts, found 2: \[.column 1., .column 2.\]"),
        (b'x,x\n"[1]",2\n', "expected a different name for each column, found one name twice"),
        (b"1,\xff\n", "line 1: expected UTF-8, found other bytes"),
        (b'1,"2\n', "is not a CSV file of vectors: unexpected end of data"),
        (b'"' + b"x" * 200_000 + b'",1\n', r"is not a CSV file of vectors: field larger than field limit"),
    ],
)
def test_a_csv_file_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.csv").write_bytes(content)
    with pytest.raises(InputValueError, match=message) as caught:
        StoredVectors(tmp_path / "v.csv")
    assert str(tmp_path / "v.csv") in str(caught.value) and len(str(caught.value)) < 500


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "v.parquet", e=VECTORS.tolist())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow, which cannot be imported .*: pip install pyarrow"):
        StoredVectors(path)
    (tmp_path / "v.jsonl").write_text(json.dumps({"text": "a", "embedding": [1.0]}))
    StoredVectors(tmp_path / "v.jsonl")

"""Bad rows and bad files: an error that names file and row, or a list of what was skipped."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from minilm_np import (
    DataError,
    InputTypeError,
    InputValueError,
    MiniLMError,
    MissingExtraError,
    SaveError,
    SentenceEncoder,
)
from minilm_np.jobs import SkippedRow, inputs, text_rows
from tests.jobs.conftest import Embed
from tests.support import jobs
from tests.support.encoders import overflowing
from tests.support.jobs import FORMATS, compressed, encoded, same_bits, vectors_of

# ending, content with two good rows "one" and "two", the bad line, the error
BAD_ROWS = [
    ("txt", b"one\n\xff\ntwo\n", 2, "expected UTF-8, found byte 0xff at position 0"),
    ("txt", b"one\na\0b\ntwo", 2, "found a null character at position 1"),
    ("jsonl", b'{"text": "one"}\n\n{"text": \n{"text": "two"}\n', 3, "expected a JSON object: Expecting value"),
    ("jsonl", b'{"text": "one"}\n["x"]\n{"text": "two"}\n', 2, 'expected a JSON object, found ["x"]'),
    ("jsonl", b'{"text": "one"}\n{"texts": "x"}\n{"text": "two"}', 2, "expected an object with 'text', found"),
    ("jsonl", b'{"text": "one"}\n{"text": null}\n{"text": "two"}', 2, "expected a string in 'text', found null"),
    ("jsonl", b'{"text": "one"}\n{"text": "\\ud800"}\n{"text": "two"}', 2, "found a lone surrogate"),
    ("jsonl", b'{"text": "one"}\n{"text": "\xe9"}\n{"text": "two"}', 2, "expected UTF-8, found byte 0xe9"),
    ("csv", b"id,text\n1,one\n2\n3,two\n", 3, "expected 2 fields, as in the header, found 1"),
    ("csv", b'id,text\n1,one\n2,"a\n\xff"\n3,two\n', 4, "expected UTF-8, found byte 0xff"),
    ("csv", b"id,text\n1,one\n2,a\rb\n3,two\n", 3, "new-line character seen in unquoted field"),
    ("csv", b'id,text\n1,one\n2,two\n3,"three\n4,four\n', 4, "the file ends in a quoted field"),
    ("tsv", b'text\tid\none\t1\ntwo\t2\n3\t"', 4, "the file ends in a quoted field: is a quotation mark not closed?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "raw", "line", "error"), BAD_ROWS, ids=[f"{row[0]}-{row[3][:25]}" for row in BAD_ROWS]
)
def test_a_bad_row_is_named_or_skipped(
    kind: str, raw: bytes, line: int, error: str, embed: Embed, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    path, output = tmp_path / f"in.{kind}", tmp_path / "out.npy"
    path.write_bytes(raw)
    remedy = ". To omit bad rows: --on-error skip (on_error='skip')"
    message = re.escape(f"{path}, line {line}: ") + ".*" + re.escape(error) + ".*" + re.escape(remedy)
    with pytest.raises(DataError, match=message):
        embed(path, output)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    made = embed(path, output, on_error="skip", report=tmp_path / "report.json")
    assert same_bits(vectors_of(output), encoded(encoder, ["one", "two"]))
    (skipped,) = made.skipped
    assert (skipped.file, error in skipped.error, remedy in skipped.error) == (str(path), True, False)
    assert json.loads((tmp_path / "report.json").read_text())["skipped"] == [skipped._asdict()]


def test_an_id_that_is_not_unicode(embed: Embed, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    for identifier in (b'"\\ud800"', b'["\\ud800"]', b'{"\\ud800": 1}'):
        path.write_bytes(b'{"text": "one", "id": [1]}\n{"text": "two", "id": ' + identifier + b"}\n")
        with pytest.raises(DataError, match=r"in.jsonl, line 2: expected valid Unicode, found a lone surrogate"):
            embed(path, tmp_path / "out.jsonl", id="id")
        assert len(embed(path, tmp_path / "out.jsonl", id="id", on_error="skip").skipped) == 1
        (tmp_path / "out.jsonl").unlink()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_null_and_bytes_that_are_not_utf_8_in_a_table(
    kind: str, embed: Embed, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    raw = pyarrow.array([b"one", b"\xff", None, b"two"], pyarrow.binary())
    strings = pyarrow.Array.from_buffers(pyarrow.string(), 4, raw.buffers(), 1)
    path, table = tmp_path / f"in.{kind}", pyarrow.table({"text": strings})
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=re.escape(f"{path}, row 2: expected UTF-8 in 'text', found byte 0xff")):
        embed(path, tmp_path / "out.npy")
    made = embed(path, tmp_path / "out.npy", on_error="skip")
    assert made.skipped[1] == SkippedRow(str(path), 3, f"{path}, row 3: expected a text in 'text', found null")
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, ["one", "two"]))
    embed(path, tmp_path / "out.parquet", on_error="skip")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("text").to_pylist() == ["one", "two"]


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_an_id_of_a_table_that_is_not_utf_8(output: str, embed: Embed, tmp_path: Path) -> None:
    raw = pyarrow.array([b"1", b"2\xfe", b"3"], pyarrow.binary())
    ids = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"id": ids, "text": ["one", "two", "three"]}), tmp_path / "in.parquet")
    message = f"{tmp_path / 'in.parquet'}, row 2: expected UTF-8 in 'id', found byte 0xfe at position 1"
    with pytest.raises(DataError, match=re.escape(message)):
        embed(tmp_path / "in.parquet", tmp_path / output, id="id")
    assert embed(tmp_path / "in.parquet", tmp_path / output, id="id", on_error="skip").rows == 2


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_a_row_that_is_too_long(
    kind: str, embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (inputs, text_rows):
        monkeypatch.setattr(module, "MAX_ROW", 100)
    (tmp_path / f"in.{kind}").write_bytes(FORMATS[kind](["one", "x" * 1000, "two"]))
    with pytest.raises(DataError, match=rf"in.{kind}, line [23]: expected at most 100 bytes, found 10\d\d"):
        embed(tmp_path / f"in.{kind}", tmp_path / "out.npy")
    embed(tmp_path / f"in.{kind}", tmp_path / "out.npy", on_error="skip")
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, ["one", "two"]))


def test_a_byte_order_mark_and_windows_line_ends(embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    lines = {"txt": b"one\r\ntwo\r\n", "csv": b'text\r\none\r\n"two"', "jsonl": b'{"text": "one"}\r\n{"text": "two"}'}
    for kind, raw in lines.items():
        (tmp_path / f"in.{kind}").write_bytes(b"\xef\xbb\xbf" + raw)
        embed(tmp_path / f"in.{kind}", tmp_path / f"{kind}.npy")
        assert same_bits(vectors_of(tmp_path / f"{kind}.npy"), encoded(encoder, ["one", "two"]))


BAD_FILES: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("in.txt", "one".encode("utf-16"), {}, "expected text in UTF-8, found the byte order mark of UTF-16"),
    ("in.csv", b"", {}, "line 1: expected a header with the names of the columns, found none"),
    ("in.csv", b'id,"text\n1,one\n', {}, "line 1: expected a header: the file ends in a quoted field"),
    ("in.csv", b"a,b\n1,2\n", {}, r"line 1: expected one column 'text', found the columns \[\"a\", \"b\"\]"),
    ("in.csv", b"text,text\n1,2\n", {}, "expected one column 'text'"),
    ("in.csv", b"text\n1\n", {"id": "id"}, "expected one column 'id'"),
    ("in.parquet", b"PAR1 no", {}, "expected a whole parquet file"),
    ("in.arrow", b"ARROW1 no", {}, "expected a whole arrow file"),
    ("in.parquet", FORMATS["parquet"](["a"]), {"column": "id"}, "column 'id': expected strings, found int64"),
    ("in.parquet", FORMATS["parquet"](["a"]), {"column": "x"}, "expected one column 'x', found the columns"),
    ("in.txt.gz", compressed(b"one\n" * 99, "gz")[:-6], {}, "the compressed data is broken"),
    ("in.txt.gz", b"one\n", {}, "the compressed data is broken: Not a gzipped file"),
    ("in.txt.zst", compressed(b"one\n" * 99, "zst")[:30], {}, "the compressed data is broken"),
    ("in.txt.zst", b"one\n" * 9, {}, "the compressed data is broken"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "options", "error"), BAD_FILES, ids=map(str, range(len(BAD_FILES))))
def test_a_bad_file_is_named(
    name: str, raw: bytes, options: dict[str, Any], error: str, embed: Embed, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(raw)
    for on_error in ("stop", "skip"):
        with pytest.raises(DataError, match=f"{re.escape(str(tmp_path / name))}.*{error}"):
            embed(tmp_path / name, tmp_path / "out.jsonl", on_error=on_error, **options)
        assert [item.name for item in tmp_path.iterdir()] == [name]


BAD_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "inputs: expected at least one file"),
    ({"inputs": "x.docx"}, "x.docx: expected a name that ends in .txt"),
    ({"input_format": "xml"}, "format of the input: expected .txt.*found 'xml'"),
    ({"inputs": "-", "input_format": "parquet"}, "standard input: parquet cannot be read from a pipe"),
    ({"inputs": "none.txt"}, "none.txt cannot be read: No such file"),
    ({"output": "out.csv"}, "out.csv: expected a name that ends in .npy, .parquet or .jsonl"),
    ({"output": "none/out.npy"}, "there is no folder none: create it first"),
    ({"output": "folder.npy"}, "expected a file, found a folder"),
    ({"output": "old.npy"}, "old.npy exists: .* --overwrite"),
    ({"dtype": "float64"}, "dtype: expected one of 'float32'"),
    ({"on_error": "ignore"}, "on_error: expected one of"),
    ({"id": "x"}, "id: an .npy file contains only vectors"),
    ({"id": "x", "output": "out.jsonl"}, "id: a .txt file has no columns"),
    ({"shard": (3, 2)}, "shard: expected an int from 1 to 2, found 3"),
    ({"shard": (1, 2), "inputs": "-"}, "shard: every shard reads the whole input, but a pipe is read once"),
    ({"inputs": ["-", "in.txt"]}, "standard input is a pipe, which must be the last input"),
    ({"shard": (1, 2), "overwrite": True}, "overwrite: the other shards use out.npy.parts, too"),
    ({"encoder": "model"}, "encoder: expected a SentenceEncoder, found str"),
    ({"prompt_name": "none"}, "prompt_name: expected"),
    ({"on_truncation": "error", "inputs": "long.txt"}, "long.txt, line 2: the text .100 characters. is longer"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error"), BAD_CALLS)
def test_a_bad_call(
    call: dict[str, Any], error: str, embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_bytes(b"one\n")
    Path("long.txt").write_bytes(b"one\n" + b"long " * 20 + b"\n")
    Path("old.npy").write_bytes(b"old")
    Path("folder.npy").mkdir()
    with pytest.raises(MiniLMError, match=error) as caught:
        embed(**{"inputs": "in.txt", "output": Path("out.npy"), **call})
    assert isinstance(caught.value, InputValueError | InputTypeError | DataError | SaveError)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder.npy", "in.txt", "long.txt", "old.npy"]
    assert Path("old.npy").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "output"),
    [("in.parquet", "out.npy"), ("in.arrow", "out.npy"), ("in.txt.zst", "out.npy"), ("in.txt", "out.parquet")],
)
def test_without_pyarrow_the_error_says_what_to_install(
    name: str, output: str, embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"one\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"\.(parquet|arrow|zst) needs pyarrow, .*: pip install pyarrow"):
        embed(tmp_path / name, tmp_path / output)
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_column_with_the_name_of_the_new_one(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"embedding,text\n1,one\n")
    with pytest.raises(InputValueError, match="the input has a column 'embedding'"):
        embed(tmp_path / "in.csv", tmp_path / "out.parquet")
    embed(tmp_path / "in.csv", tmp_path / "out.parquet", id="text")
    (tmp_path / "in.csv").write_bytes(b"embedding: old,text\n1,one\n")
    embed(tmp_path / "in.csv", tmp_path / "out.parquet", overwrite=True)


def test_inputs_with_different_columns(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,one\n")
    (tmp_path / "b.csv").write_bytes(b"text\none\n")
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(DataError, match=r"b.csv: expected the columns of the inputs before, id, text, found text"):
        embed(paths, tmp_path / "out.parquet")
    assert embed(paths, tmp_path / "out.npy").rows == 2


def test_a_vector_that_is_not_finite_is_an_error_with_its_rows(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_bytes(jobs.txt(["one", "two"]))
    with (
        np.errstate(all="ignore"),
        pytest.raises(MiniLMError, match=r"line 1 to .*line 2: text 0: its vector is"),
    ):
        embed(tmp_path / "in.txt", tmp_path / "out.npy", encoder=overflowing(encoder))

"""Every format of the input, plain and compressed, and of the output: the vectors are those of `encode`."""

import datetime
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from minilm_np import InputValueError, SentenceEncoder, _progress, util
from tests.jobs.conftest import Embed
from tests.support import jobs
from tests.support.jobs import FORMATS, LINES, MANY, TEXTS, compressed, encoded, items_of, same_bits, vectors_of


@pytest.mark.parametrize("compression", ["", "gz", "zst"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_input(
    kind: str, compression: str, embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.small_parts(monkeypatch, 70)
    texts = (LINES if kind == "txt" else TEXTS) + MANY
    path = tmp_path / ".".join(filter(None, ["in", kind, compression]))
    path.write_bytes(compressed(FORMATS[kind](texts), compression))
    made = embed(path, tmp_path / "out.npy")
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, texts))
    counts = encoder.tokenize(texts)
    assert (made.rows, made.skipped, made.resumed_rows) == (len(texts), (), 0)
    assert (made.tokens, made.truncated) == (sum(counts["n_tokens"]), sum(counts["truncated"]))
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([path.name, "out.npy"])


def test_an_arrow_stream(embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "in.arrow").write_bytes(jobs.arrow_stream(TEXTS))
    embed(tmp_path / "in.arrow", tmp_path / "out.npy")
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, TEXTS))


@pytest.mark.parametrize("n_texts", [0, 1])
@pytest.mark.parametrize("output", ["npy", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", FORMATS)
def test_no_row_and_one_row(
    kind: str, output: str, n_texts: int, embed: Embed, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    texts = LINES[:n_texts]
    (tmp_path / f"in.{kind}").write_bytes(FORMATS[kind](texts))
    assert embed(tmp_path / f"in.{kind}", tmp_path / f"out.{output}").rows == n_texts
    found = vectors_of(tmp_path / f"out.{output}")
    assert found.tobytes() == encoded(encoder, texts).tobytes()
    assert output != "npy" or found.shape == (n_texts, 8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("output", ["npy", "jsonl", "parquet"])
def test_every_type_of_numbers(output: str, dtype: str, embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(FORMATS["jsonl"](TEXTS))
    embed(tmp_path / "in.jsonl", tmp_path / f"out.{output}", dtype=dtype)
    exact = encoded(encoder, TEXTS)
    expected = {
        "float32": exact,
        "float16": exact.astype(np.float16),
        "int8": np.rint(exact / np.abs(exact).max(axis=1, keepdims=True) * 127).astype(np.int8),
    }[dtype]
    found = vectors_of(tmp_path / f"out.{output}")
    assert same_bits(found.astype(dtype), expected)
    assert output == "jsonl" or found.dtype == dtype
    assert util.pairwise_cos_sim(found.astype(np.float32), exact).min() > 0.9999


def test_vectors_that_are_not_finite_in_float16(embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    from minilm_np.jobs.outputs import converted

    with pytest.raises(InputValueError, match="float16 cannot represent numbers above 65,504"):
        converted(np.array([[1e5]], np.float32), "float16")
    assert converted(np.zeros((1, 3), np.float32), "int8").tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_jsonl_contains_the_text_or_the_id(kind: str, embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / f"in.{kind}").write_bytes(FORMATS[kind](TEXTS))
    embed(tmp_path / f"in.{kind}", tmp_path / "texts.jsonl")
    embed(tmp_path / f"in.{kind}", tmp_path / "ids.jsonl", id="id")
    counts = encoder.tokenize(TEXTS)
    texts = items_of(tmp_path / "texts.jsonl")
    assert [list(item) for item in texts] == [["text", "n_tokens", "truncated", "embedding"]] * len(TEXTS)
    assert [item["text"] for item in texts] == TEXTS
    assert [item["n_tokens"] for item in texts] == counts["n_tokens"]
    assert [item["truncated"] for item in texts] == counts["truncated"]
    numbers = range(len(TEXTS))
    assert [item["id"] for item in items_of(tmp_path / "ids.jsonl")] == (
        list(map(str, numbers)) if kind == "csv" else list(numbers)
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, math.nan, math.inf], [1.5, None, None]),
        ([[1.0], [math.nan], []], [[1.0], [None], []]),
        ([b"\x00\xff", b"", None], ["00ff", "", None]),
        ([datetime.date(2026, 1, 31), None, None], ["2026-01-31", None, None]),
        ([{"day": datetime.date(2026, 1, 31), "x": math.nan}] * 3, [{"day": "2026-01-31", "x": None}] * 3),
    ],
)
def test_an_id_of_any_type_becomes_valid_json(
    values: list[Any], expected: list[Any], embed: Embed, tmp_path: Path
) -> None:
    table = pyarrow.table({"id": values, "text": ["one", "two", "three"]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    embed(tmp_path / "in.parquet", tmp_path / "out.jsonl", id="id")
    assert "NaN" not in (tmp_path / "out.jsonl").read_text() and "Inf" not in (tmp_path / "out.jsonl").read_text()
    assert [item["id"] for item in items_of(tmp_path / "out.jsonl")] == expected


def test_an_id_that_is_nan_becomes_null_in_each_output(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": NaN, "text": "one"}\n{"id": [1e999], "text": "two"}\n')
    embed(tmp_path / "in.jsonl", tmp_path / "out.jsonl", id="id")
    embed(tmp_path / "in.jsonl", tmp_path / "out.parquet", id="id")
    assert [item["id"] for item in items_of(tmp_path / "out.jsonl")] == [None, [None]]
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("id").to_pylist() == ["null", "[null]"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_parquet_contains_the_columns_of_the_input(
    kind: str, embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.small_parts(monkeypatch, 50)
    (tmp_path / f"in.{kind}").write_bytes(FORMATS[kind](MANY))
    embed(tmp_path / f"in.{kind}", tmp_path / "out.parquet")
    embed(tmp_path / f"in.{kind}", tmp_path / "ids.parquet", id="id")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.drop_columns(["embedding"]).equals(jobs.arrow_table(MANY))
    assert str(found.schema.field("embedding").type) == "fixed_size_list<element: float>[8]"
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 4
    assert pyarrow.parquet.read_table(tmp_path / "ids.parquet").schema.names == ["id", "embedding"]


@pytest.mark.parametrize(
    ("kind", "names"), [("txt", ["text"]), ("jsonl", ["text"]), ("csv", ["id", "text"]), ("tsv", ["id", "text"])]
)
def test_parquet_contains_the_fields_of_a_text_file_as_strings(
    kind: str, names: list[str], embed: Embed, tmp_path: Path
) -> None:
    (tmp_path / f"in.{kind}").write_bytes(FORMATS[kind](LINES))
    embed(tmp_path / f"in.{kind}", tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.schema.names == [*names, "embedding"]
    assert found.column("text").to_pylist() == LINES


def test_dictionaries_are_taken_over(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.small_parts(monkeypatch, 50)
    table = pyarrow.table({"text": pyarrow.array(MANY).dictionary_encode(), "n": range(len(MANY))})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=60)
    embed(tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.column("text").to_pylist() == MANY
    assert found.column("n").to_pylist() == list(range(len(MANY)))


def test_several_inputs_of_different_formats(embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(FORMATS["txt"](LINES))
    (tmp_path / "b.csv").write_bytes(FORMATS["csv"](TEXTS))
    embed([tmp_path / "a.txt", str(tmp_path / "b.csv")], tmp_path / "out.npy")
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, LINES + TEXTS))


def test_standard_input(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jobs.jsonl(TEXTS))))
    embed("-", tmp_path / "out.npy", input_format="jsonl")
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, TEXTS))


def test_each_text_of_a_part_is_computed_once(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    engine = type(encoder.model.engine)
    whole = engine.encode

    def counting(self: Any, ids: list[list[int]], **rest: Any) -> np.ndarray:
        counted.append(len(ids))
        found: np.ndarray = whole(self, ids, **rest)
        return found

    monkeypatch.setattr(engine, "encode", counting)
    (tmp_path / "in.txt").write_bytes(jobs.txt(MANY))
    made = embed(tmp_path / "in.txt", tmp_path / "out.npy")
    assert counted == [150]
    assert made.duplicates == 50
    monkeypatch.undo()
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, MANY))


def test_the_report(embed: Embed, encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(jobs.txt(LINES))
    made = embed(tmp_path / "in.txt", tmp_path / "out.npy", report=tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "output": str(tmp_path / "out.npy"), "rows": 7, "dimension": 8, "dtype": "float32", "tokens": made.tokens,
        "truncated": 1, "duplicates": 1, "skipped": [], "seconds": made.seconds, "resumed_rows": 0,
        "model": encoder.model.name, "fingerprint": encoder.weights_digest,
    }  # fmt: skip
    assert "7 rows, " in str(made)
    assert "1 duplicates computed once" in str(made)


def test_the_progress(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "EVERY_S", 0.0)
    jobs.small_parts(monkeypatch, 100)
    (tmp_path / "in.txt").write_bytes(jobs.txt([*MANY, *LINES]))
    embed(tmp_path / "in.txt", tmp_path / "out.npy", show_progress_bar=True)
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"minilm-np: embed: 207 rows after \d+ s, [\d,]+ rows/s, 100 % of the input, about 0 s left, 1 truncated", last
    )

"""Test the reading of files of samples: each form of a file, and one test per error message."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np._files import MAX_LINE
from minilm_np._text_files import raw_lines, read_samples
from minilm_np.errors import DataError
from tests.support.sample_files import FORMS, jsonl, message_of, put


@pytest.mark.parametrize(("name", "raw", "expected"), FORMS)
def test_the_forms_of_a_file(tmp_path: Path, name: str, raw: bytes, expected: list[list[str]]) -> None:
    assert list(read_samples(put(tmp_path, name, raw))) == expected


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=1, max_size=8)))
def test_any_texts_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert list(read_samples(put(folder, name, jsonl(samples)))) == samples


def test_raw_lines_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbfa\r\n\nb\x85c"
    for name in ("a.txt", "a.txt.gz"):
        assert list(raw_lines(put(tmp_path, name, raw))) == [b"\xef\xbb\xbfa\r\n", b"\n", b"b\x85c"]


# ---- error messages: they name the file and the line -----------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_samples(path))
    return message_of(caught, path.parent)


PAIR = "expected a pair or a triplet of texts"
LIST = 'expected a list of texts, or {"texts": [...]}, found'
NAME = "expected a file name that ends in .jsonl, .tsv, .jsonl.gz or .tsv.gz"


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", b"", f"a.jsonl, line 1: {PAIR} on each line, found an empty file"),
        ("a.tsv.gz", b"", f"a.tsv.gz, line 1: {PAIR} on each line, found an empty file"),
        ("a.tsv", b"a\tb\nonly one\n", f"a.tsv, line 2: {PAIR}, separated by tabs, found only one text"),
        ("a.jsonl", b'["a"]\n', f"a.jsonl, line 1: {PAIR}, found only one text"),
        ("a.jsonl", b"[]\n", f"a.jsonl, line 1: {PAIR}, found no text"),
        (
            "a.jsonl",
            b'["a","b"]\n["a","b","c"]\n',
            "a.jsonl, line 2: expected 2 texts, as on the lines before, found 3",
        ),
        ("a.tsv", b"a\tb\n\tc\n", "a.tsv, line 2, text 1: the text is empty"),
        ("a.jsonl", b'["a", " \\n"]\n', "a.jsonl, line 1, text 2: the text is empty"),
        ("a.jsonl", b'["a", 3]\n', "a.jsonl, line 1, text 2: expected a string, found 3"),
        ("a.jsonl", b'["a", "\\ud800"]\n', "a.jsonl, line 1, text 2: expected valid Unicode, found a lone surrogate"),
        ("a.jsonl", b'["a", "b"]\n\n', "a.jsonl, line 2: expected JSON: "),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: expected JSON: "),
        ("a.jsonl", b'["a", "b"]\n["a", "\xff"]\n', "a.jsonl, line 2: expected UTF-8, found byte 0xff at position 7"),
        ("a.jsonl", b'{"set": ["a", "b"]}\n', f"a.jsonl, line 1: {LIST}"),
        ("a.jsonl", b'{"texts": "ab"}\n', f"a.jsonl, line 1: {LIST}"),
        ("a.jsonl", b'"ab"\n', f'a.jsonl, line 1: {LIST} "ab"'),
        ("a.csv", b"a,b\n", f"a.csv: {NAME}"),
        ("a.gz", b"a,b\n", f"a.gz: {NAME}"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    assert refusal(put(tmp_path, name, raw)).startswith(message)


def test_broken_gzip_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl.gz", jsonl([[str(n), "b" * n] for n in range(1, 2000)]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(path)
    assert message.startswith("a.jsonl.gz, line ")
    assert "the gzip data is broken: " in message
    assert int(message.split("line ")[1].split(":")[0]) > 100
    path.write_bytes(b"not gzip")
    assert refusal(path).startswith("a.jsonl.gz, line 1: the gzip data is broken: ")
    path.write_bytes(whole[:200] + b"\xff" * 40 + whole[240:])
    assert "the gzip data is broken: " in refusal(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jsonl") == "a.jsonl cannot be read: No such file or directory"
    (tmp_path / "b.tsv").mkdir()
    assert refusal(tmp_path / "b.tsv") == "b.tsv cannot be read: Is a directory"


def test_a_small_gz_file_with_an_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"a\tb\n" + b"x" * (MAX_LINE + 1)))
    assert path.stat().st_size < 20_000
    with pytest.raises(
        DataError, match=rf"a\.tsv\.gz cannot be read: line 2: expected at most {MAX_LINE} bytes, found"
    ):
        list(read_samples(path))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a\tb\n".encode("utf-16"), "a.tsv: expected text in UTF-8, found the byte order mark of UTF-16: convert the"),
        ("a\tb\n".encode("utf-16-be"), "a.tsv, line 1: expected text in UTF-8, found a null character at position 0"),
        (b"a\tb\na\tb\0\n", "a.tsv, line 2: expected text in UTF-8, found a null character at position 3: if the"),
        (gzip.compress(b"a\tb\n", mtime=0), "a.tsv: expected text in UTF-8, found data compressed by gzip: decompress"),
        (b"PK\x03\x04...", "a.tsv: expected text in UTF-8, found a zip archive or an office document: save its texts"),
    ],
)
def test_files_that_are_often_taken_for_text_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    assert refusal(put(tmp_path, "a.tsv", raw)).startswith(message)

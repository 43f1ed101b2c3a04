"""Reading texts, one per line, and writing files atomically: what is read, what is written, what is refused."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilm_np import DataError, cli
from minilm_np.cli.files import open_lines
from tests.cli.conftest import Stdin
from tests.support.cli import NUMPY, TEXTS, Command

pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")  # the last text is truncated

# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\ntwo\n", ["one", "two"]),
        (b"\n\none\n\n", ["", "", "one", ""]),
        (b"\r\n", [""]),
        (b"  one \t\n", ["  one \t"]),
        ("one\u2028still one\x0b\x0c\x85\n".encode(), ["one\u2028still one\x0b\x0c\x85"]),
        (b"a\rb\n", ["a\rb"]),
    ],
    ids=lambda value: ascii(value) if isinstance(value, bytes) else "",
)
def test_a_line_is_a_text(command: Command, stdin: Stdin, tmp_path: Path, raw: bytes, expected: list[str]) -> None:
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    for source in (str(tmp_path / "texts"), "-"):
        items = json.loads(command.result("--input", source, "--format", "json"))
        assert [item["text"] for item in items] == expected


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(command: Command, stdin: Stdin, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    for source, name in ((str(tmp_path / "texts"), str(tmp_path / "texts")), ("-", "standard input")):
        error = command.failure("encode", "--input", source)
        assert error == f"minilm-np: error: {name}: expected one text per line, found no text\n"


@pytest.mark.usefixtures("model_folder")
def test_a_file_that_is_not_utf_8_is_refused_by_line(command: Command, stdin: Stdin, tmp_path: Path) -> None:
    raw = b"fine\r\ncaf\xe9\n"
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    for source, name in ((str(tmp_path / "texts"), str(tmp_path / "texts")), ("-", "standard input")):
        error = command.failure("encode", "--input", source)
        assert f"{name}, line 2: expected UTF-8, found byte 0xe9 at position 3: convert the file" in error


@pytest.mark.parametrize("source", ["file", "-"])
def test_utf_16_without_a_mark_is_refused_by_its_null_characters(
    command: Command, stdin: Stdin, tmp_path: Path, source: str
) -> None:
    raw = "fine\nalso\n".encode("utf-16-le")
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    path, name = ("-", "standard input") if source == "-" else (str(tmp_path / "texts"),) * 2
    assert command.failure("encode", "--input", path) == (
        f"minilm-np: error: {name}, line 1: expected text in UTF-8, found a null character at position 1: if the file "
        "is UTF-16, convert it, for example with iconv -f UTF-16LE; a binary file has no texts\n"
    )


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("name", ["data.csv", "data.TSV", "data.jsonl"])
def test_a_table_that_is_read_as_lines_is_warned_about(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("number,text\n1,a\n")
    code, out, err = command.encode("--input", str(tmp_path / name))
    assert (code, out.count(b"\n")) == (0, 2)
    assert err == (
        f"minilm-np: warning: {tmp_path / name}: each line is one text, with all its separators, quotes and fields: to "
        "encode only a column or a field, use `minilm-np embed`, or write it to a text file first\n"
    )


def test_lines_that_are_appended_later_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\n\ntwo\n")
    with open_lines(str(path), skip_blank=True) as lines:
        with path.open("a") as log:
            log.write("three\n" * 9999)
        assert (lines.total, list(lines.numbered)) == (2, [(1, "one"), (3, "two")])


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_text("line\n" * 99_999)
    with open_lines(str(path)) as lines:
        os.truncate(path, 10)
        with pytest.raises(DataError, match=r"expected 99,999 lines, found [\d,]+: the file became shorter"):
            list(lines.numbered)


@pytest.mark.parametrize("counted", [True, False])
def test_a_pipe_is_counted_if_need_be(tmp_path: Path, counted: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"printf 'one\\ntwo' > {tmp_path / 'pipe'}"])
    with writer, open_lines(str(tmp_path / "pipe"), counted=counted) as lines:
        assert lines.total == (2 if counted else None)
        assert list(lines.numbered) == [(1, "one"), (2, "two")]


def test_an_argument_that_is_not_utf_8_is_refused(command: Command) -> None:
    assert "text 2 of the command line is not UTF-8: b'caf\\xe9'" in command.failure("encode", "a", "caf\udce9")


def test_a_missing_input_is_refused(command: Command, tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    assert f"{missing}: No such file or directory" in command.failure("encode", "--input", str(missing))
    assert f"{tmp_path}: Is a directory" in command.failure("encode", "--input", str(tmp_path))


def test_a_closed_standard_input_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in command.failure("encode", "--input", "-")


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_an_output_file_is_complete_and_has_the_permissions_of_the_umask(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "vectors.jsonl"
    expected = command.result("--format", "jsonl", *TEXTS)
    assert command.result("--format", "jsonl", "--output", str(output), *TEXTS) == b""
    assert output.read_bytes() == expected
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [output]


def test_an_output_that_fails_leaves_the_old_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Iterator[bytes]:
        yield b"the first half"
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(cli.encode.FORMATS, "jsonl", full)
    output = tmp_path / "vectors.jsonl"
    output.write_text("old")
    arguments = ("encode", *NUMPY, "--model", str(command.model), "--format", "jsonl", "--output", str(output), "a")
    assert "No space left on device" in command.failure(*arguments)
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_a_link_stays_a_link(command: Command, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    command.result("--output", str(tmp_path / "link"), "a")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == command.result("a")


def test_a_device_is_written_directly(command: Command) -> None:
    command.result("--output", os.devnull, "a")
    assert not Path(os.devnull).is_file()


def test_an_error_names_the_output_and_not_the_temporary_file(command: Command, tmp_path: Path) -> None:
    output = tmp_path / ("x" * 250)  # this name is short enough, that of the temporary file is not
    arguments = ("encode", *NUMPY, "--model", str(command.model), "--output", str(output), "a")
    assert command.failure(*arguments) == f"minilm-np: error: {output}: File name too long\n"
    assert list(tmp_path.iterdir()) == []


def test_an_output_without_a_folder_is_refused_before_any_work(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "no" / "vectors"
    error = command.failure("encode", "--model", "no/such-model", "--output", str(output), "a")
    assert f"--output {output}: there is no folder {output.parent}: create it first" in error
    error = command.failure("encode", "--model", "no/such-model", "--output", str(tmp_path), "a")
    assert f"--output {tmp_path}: expected a file, found a folder: name a file in it" in error


_AS_NOBODY = """
import os, sys
from minilm_np.cli import main
if os.getuid() == 0:
    os.setuid(65534)
sys.exit(main(["encode", "--model", "no/such-model", "--output", sys.argv[1], "a"]))
"""


def test_an_output_folder_that_is_not_writable_is_refused_before_any_work() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o555)
        found = subprocess.run([sys.executable, "-c", _AS_NOBODY, f"{folder}/vectors"], capture_output=True, text=True)
    expected = f"--output {folder}/vectors: the folder {folder} is not writable: choose another folder"
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"minilm-np: error: {expected}\n"

"""The command as a whole: wrong usage, help, errors of a model, and how a process ends."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import minilm_np
from minilm_np import SentenceEncoder, cli
from tests.support.cli import NUMPY, PROGRAM, TEXTS, Command, check_objects

pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")  # the last text is truncated

# ---- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["embeds", "a"], "invalid choice: 'embeds'"),
        (["encode"], "expected either texts as arguments or --input FILE"),
        (["encode", "--input", "-", "a"], "expected either texts as arguments or --input FILE"),
        (["encode", "--batch-size", "0", "a"], "--batch-size: expected a whole number of at least 1, found '0'"),
        (["encode", "--batch-size", "-1", "a"], "--batch-size: expected a whole number of at least 1, found '-1'"),
        (["encode", "--batch-size", "x", "a"], "--batch-size: expected a whole number of at least 1, found 'x'"),
        (["encode", "--batch-size", "1" * 9999, "a"], "--batch-size: expected a whole number of at most 18 digits"),
        (["encode", "--format", "csv", "a"], "invalid choice: 'csv'"),
        (["encode", "--backend", "gpu", "a"], "invalid choice: 'gpu'"),
        (["encode", "--bogus", "a"], "unrecognized arguments: --bogus"),
        (["info", "--format", "npy"], "invalid choice: 'npy'"),
        (["fetch", "a", "b"], "error: unrecognized arguments: b"),
        (["trace", "two", "words"], "unrecognized arguments: words: put quotes around a text of several words"),
        (["trace", "two", "words", "--bogus"], "error: unrecognized arguments: words --bogus"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_usage_has_exit_code_2(command: Command, arguments: list[str], message: str) -> None:
    assert message in command.misuse(*arguments)


# ---- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "raw", "message"),
    [
        ("config.json", b"{", "config.json: expected JSON in UTF-8"),
        ("config.json", None, "config.json is missing"),
        ("model.safetensors", b"\x00" * 20, "model.safetensors"),
        ("model.safetensors", None, "model.safetensors"),
        ("vocab.txt", None, "expected tokenizer.json or vocab.txt, found neither"),
        ("tokenizer.json", b"{}", "tokenizer.json cannot be loaded"),
        (
            "modules.json",
            b"[]",
            "optionally Dense, optionally Normalize, found none",
        ),
    ],
)
@pytest.mark.parametrize("name", ["encode", "info"])
def test_a_broken_model_is_one_line(
    command: Command, small: Path, tmp_path: Path, name: str, file: str, raw: bytes | None, message: str
) -> None:
    for path in small.rglob("*"):
        if path.is_file() and path != small / file:
            (tmp_path / path.relative_to(small)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(small)).write_bytes(path.read_bytes())
    if raw is not None:
        (tmp_path / file).write_bytes(raw)
    error = command.failure(name, "--model", str(tmp_path), *(["a"] if name == "encode" else []))
    assert message in error
    assert str(tmp_path) in error


def test_a_model_that_is_neither_folder_nor_name_is_refused(command: Command) -> None:
    assert "'./nowhere'" in command.failure("encode", "--model", "./nowhere", "a")


def test_a_warning_is_one_line_on_stderr(command: Command, small: Path, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    program = "import sys; from minilm_np.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", program, "encode", *NUMPY, "--model", str(tmp_path), "a"]
    found = subprocess.run(arguments, capture_output=True, text=True)
    assert found.returncode == 0
    expected = "has no modules.json: assuming mean pooling without normalisation"
    assert found.stderr == f"minilm-np: warning: {tmp_path} {expected}\n"


@pytest.mark.parametrize("arguments", [["encode"], ["encode", *NUMPY, "a"]])
def test_messages_are_not_printed_on_stdout_without_stderr(small: Path, arguments: list[str]) -> None:
    program = "import sys; from minilm_np.cli import main; sys.exit(main(sys.argv[1:]))"
    model = ["--model", str(small)] if len(arguments) > 1 else ["--no-such-option"]
    command = [sys.executable, "-c", program, *arguments, *model]
    with_stderr, without = (
        subprocess.run(["sh", "-c", f'exec "$@" {end}', "sh", *command], stdout=subprocess.PIPE) for end in ("", "2>&-")
    )
    assert (without.returncode, without.stdout) == (with_stderr.returncode, with_stderr.stdout)


def test_ctrl_c_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.encode, "load", interrupted)
    assert command("encode", "a") == (130, b"", "minilm-np: interrupted\n")


_IMPORTS = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == "numpy":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
import minilm_np.__main__
"""


def test_ctrl_c_during_the_imports_is_one_line() -> None:
    found = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "minilm-np: interrupted\n")


def test_too_many_threads_are_one_line(command: Command) -> None:
    error = command.failure("encode", "--model", str(command.model), "--threads", "99999999", "a")
    assert error == "minilm-np: error: threads: expected an int from 1 to 1024 or None, found 99999999\n"


def test_a_folder_that_is_missing_is_explained(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = command("encode", "--model", "trained/model", "a")
    assert (code, out) == (1, b"")
    assert err.startswith(
        "minilm-np: error: there is no folder trained/model in the current directory, so it is used as a name on the "
        "Hugging Face Hub; trained/model is not on this machine:\n"
    )


def test_a_closed_standard_output_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        assert cli.main(["encode", *NUMPY, "--model", str(small), "a"]) == 1
    assert capsys.readouterr().err == "minilm-np: error: standard output is closed\n"


# ---- as a process ----------------------------------------------------------------------------------------------------


def test_a_process_prints_its_results_and_nothing_else(small: Path, encoder: SentenceEncoder) -> None:
    arguments = [*PROGRAM, "encode", *NUMPY, "--model", str(small), "--input", "-", "--format", "json"]
    found = subprocess.run(arguments, input="\n".join(TEXTS).encode(), capture_output=True)
    assert found.returncode == 0
    assert found.stderr.decode() == (
        "minilm-np: warning: 1 of 5 texts is longer than the limit of 16 tokens and was truncated; "
        "the longest, line 5, has 100 characters: split texts that must be encoded completely\n"
    )
    check_objects(json.loads(found.stdout), encoder)


def test_a_reader_that_closes_the_pipe_is_no_failure(small: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a text\n" * 20_000)
    arguments = [*PROGRAM, "encode", *NUMPY, "--model", str(small), "--input", str(tmp_path / "texts")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stderr
        assert child.stdout.readline().endswith(b"a text\n")
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(small: Path) -> None:
    with open("/dev/full", "wb") as full:
        arguments = [*PROGRAM, "encode", *NUMPY, "--model", str(small), "a"]
        found = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (found.returncode, found.stderr) == (1, "minilm-np: error: No space left on device\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_without_a_reader_is_no_failure(option: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "wb") as pipe:
        found = subprocess.run([*PROGRAM, option], stdout=pipe, stderr=subprocess.PIPE, text=True, env=buffered)
    assert (found.returncode, found.stderr) == (0, "")


def test_results_are_utf_8_in_every_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a file's name that are not UTF-8 are printed as they are."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    monkeypatch.setattr(
        "minilm_np.model_files.hub.fetch", lambda name, to: SimpleNamespace(path=Path("日本/caf\udce9"))
    )
    assert cli.main(["fetch"]) == 0
    assert out.getvalue() == "日本/caf".encode() + b"\xe9\n"


_INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from minilm_np import cli
open_lines = cli.encode.open_lines
cli.encode.open_lines = lambda *a, **k: print("reading", file=sys.stderr, flush=True) or open_lines(*a, **k)
sys.exit(cli.main(["encode", "--input", "-"]))
"""


def test_an_interrupted_process_prints_one_line() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stderr
        assert child.stdout
        assert child.stderr.readline() == b"reading\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b"minilm-np: interrupted\n"
        assert child.stdout.read() == b""
    assert child.returncode == 130


# ---- version and help ------------------------------------------------------------------------------------------------


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"minilm-np {minilm_np.__version__}\n".encode(), "")


COMMANDS = (
    "encode", "embed", "similarity", "search", "cluster", "rerank", "trace", "explain", "verify", "diagnose",
    "conformance", "train", "eval", "serve", "fetch", "info",
)  # fmt: skip


def test_help_names_the_commands(command: Command) -> None:
    found = command.help()
    assert all(re.search(rf"^ +{name} ", found, re.M) for name in COMMANDS)

    assert re.search('^example: minilm-np encode "A text"', found, re.M)


def test_the_name_of_a_model_is_not_broken_in_help(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert "(default: cross-encoder/ms-marco-MiniLM-L6-v2)" in " ".join(command.help("rerank").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_what_it_does_and_an_example(command: Command, name: str) -> None:
    found = command.help(name)
    _, description, _ = found.split("\n\n", 2)
    assert re.fullmatch(r"[A-Z].*\.", description, re.S)
    assert found.index("\nexample: ") < found.index("\noptions:")


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
@pytest.mark.parametrize("name", ["encode", "fetch", "info"])
def test_the_example_in_the_help_works_as_printed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (example,) = re.findall("^example: (.*)$", command.help(name), re.M)
    program, *arguments = shlex.split(example)
    assert program == "minilm-np"
    code, out, err = command(*arguments)
    assert code == 0
    assert out
    assert "error" not in err

"""Command: what it prints and where, what it reads and writes, and how it fails: one line, the right code."""

import io
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minilm_np
from benchmarks import exports
from minilm_np import SentenceEncoder, cli
from minilm_np.model_files.checkpoint import write_checkpoint
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, random_weights

SIZES = {
    "vocab_size": len(CHARACTER_VOCABULARY),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
# The command does not depend on the backend, and this one compiles nothing, about which the other has a line to say.
NUMPY = ("--backend", "numpy")
pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")  # the last text is cut
TEXTS = ["a text", "", "naïve 日本 👍", 'quotes " and \\ and \t', "long " * 20]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model that is loaded in milliseconds; its limit is 16 tokens."""
    folder = tmp_path_factory.mktemp("small")
    config = minilm_np.ModelConfig(**SIZES, max_seq_length=16)
    write_checkpoint(folder / "model.safetensors", random_weights(config, 0))
    (folder / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | SIZES))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8}))
    return folder


@pytest.fixture(scope="session")
def encoder(small: Path) -> SentenceEncoder:
    return SentenceEncoder(small, backend="numpy")


class Command:
    """The command in this process: its exit code, and what it printed."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], model: Path) -> None:
        self.capture, self.model = capture, model

    def __call__(self, *arguments: str) -> tuple[int, bytes, str]:
        try:
            code = cli.main(arguments)
        except SystemExit as stopped:  # argparse
            code = int(stopped.code or 0)
        out, err = self.capture.readouterr()
        return code, out, err.decode()

    def encode(self, *arguments: str) -> tuple[int, bytes, str]:
        return self("encode", *NUMPY, "--model", str(self.model), *arguments)

    def result(self, *arguments: str) -> bytes:
        """What a run that must go well prints: results on stdout, nothing else anywhere."""
        code, out, err = self.encode(*arguments)
        assert (code, err) == (0, "")
        return out

    def failure(self, *arguments: str) -> str:
        """What a run that must fail says: one line on stderr, exit code 1, nothing on stdout."""
        code, out, err = self(*arguments)
        assert (code, out) == (1, b"")
        assert err.startswith("minilm-np: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    def misuse(self, *arguments: str) -> str:
        code, out, err = self(*arguments)
        assert (code, out) == (2, b"")
        assert err.startswith("usage: minilm-np")
        assert "Traceback" not in err
        return err.splitlines()[-1]


@pytest.fixture
def command(capsysbinary: pytest.CaptureFixture[bytes], small: Path) -> Command:
    return Command(capsysbinary, small)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts bytes on standard input."""

    def put(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    return put


def vectors_of(items: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([item["embedding"] for item in items], np.float32)


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype == np.float32 and found.tobytes() == expected.tobytes()


# ---- the formats -----------------------------------------------------------------------------------------------------


def check_objects(items: list[dict[str, Any]], encoder: SentenceEncoder) -> None:
    assert [list(item) for item in items] == [["text", "n_tokens", "truncated", "embedding"]] * len(TEXTS)
    assert [item["text"] for item in items] == TEXTS
    tokenized = encoder.tokenize(TEXTS)
    assert [item["n_tokens"] for item in items] == tokenized["n_tokens"]
    assert [item["truncated"] for item in items] == tokenized["truncated"] == [False, False, False, False, True]
    assert same_bits(vectors_of(items), encoder.encode(TEXTS))


def test_json_is_a_list_of_objects_whose_numbers_read_back_to_the_same_bits(
    command: Command, encoder: SentenceEncoder
) -> None:
    check_objects(json.loads(command.result("--format", "json", *TEXTS)), encoder)


def test_jsonl_is_an_object_a_line(command: Command, encoder: SentenceEncoder) -> None:
    out = command.result("--format", "jsonl", *TEXTS)
    assert out.endswith(b"\n")
    check_objects([json.loads(line) for line in out.decode().removesuffix("\n").split("\n")], encoder)


def test_npy_is_an_array_that_numpy_loads(command: Command, encoder: SentenceEncoder) -> None:
    found = np.load(io.BytesIO(command.result("--format", "npy", *TEXTS)), allow_pickle=False)
    assert same_bits(found, encoder.encode(TEXTS))
    assert found.shape == (len(TEXTS), 8)


def test_text_is_a_readable_line_a_text(command: Command, encoder: SentenceEncoder) -> None:
    lines = command.result(*TEXTS).decode().removesuffix("\n").split("\n")
    assert len(lines) == len(TEXTS)
    vectors, n_tokens = encoder.encode(TEXTS), encoder.tokenize(TEXTS)["n_tokens"]
    for line, vector, count in zip(lines, vectors, n_tokens, strict=True):
        match = re.match(r"\[(.*) \.\.\. 8 numbers\] +(\d+) tokens", line)
        assert match
        np.testing.assert_allclose([float(number) for number in match[1].split()], vector[:4], atol=5.1e-8)
        assert int(match[2]) == count
        assert line.isprintable()
    assert lines[0].endswith(" tokens  a text")
    assert lines[2].endswith("naïve 日本 👍")
    assert " (cut at 16)  long long" in lines[4]
    assert lines[4].endswith("...")


def test_a_text_cannot_break_its_line_or_write_to_the_terminal(command: Command) -> None:
    out = command.result("one\ntwo\r\x1b[31mred\u2028\x07").decode()
    assert out.count("\n") == 1
    assert out.removesuffix("\n").isprintable()


@pytest.mark.parametrize("batch_size", ["1", "2", "1000"])
def test_the_batch_size_changes_no_text_s_place(command: Command, encoder: SentenceEncoder, batch_size: str) -> None:
    items = json.loads(command.result("--format", "json", "--batch-size", batch_size, *TEXTS))
    np.testing.assert_allclose(vectors_of(items), encoder.encode(TEXTS), atol=1e-6)


@pytest.mark.weights
def test_the_published_model_gives_the_published_numbers(command: Command, model_folder: Path) -> None:
    code, out, _ = command(
        "encode", *NUMPY, "--format", "json", "--model", str(model_folder), "This is an example sentence"
    )
    (item,) = json.loads(out)
    assert code == 0
    assert (item["n_tokens"], item["truncated"]) == (7, False)
    np.testing.assert_allclose(item["embedding"][:3], [0.0676569, 0.0634959, 0.0487131], atol=1e-6)


# ---- where the texts come from ---------------------------------------------------------------------------------------


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
def test_a_line_is_a_text(command: Command, stdin: Any, tmp_path: Path, raw: bytes, expected: list[str]) -> None:
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    for source in (str(tmp_path / "texts"), "-"):
        items = json.loads(command.result("--input", source, "--format", "json"))
        assert [item["text"] for item in items] == expected


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(command: Command, stdin: Any, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    for source, name in ((str(tmp_path / "texts"), str(tmp_path / "texts")), ("-", "standard input")):
        error = command.failure("encode", "--input", source)
        assert error == f"minilm-np: error: {name}: there is no text in it: expected a text a line\n"


def test_a_file_that_is_not_utf_8_is_refused_by_line(command: Command, stdin: Any, tmp_path: Path) -> None:
    raw = b"fine\r\ncaf\xe9\n"
    (tmp_path / "texts").write_bytes(raw)
    stdin(raw)
    for source, name in ((str(tmp_path / "texts"), str(tmp_path / "texts")), ("-", "standard input")):
        error = command.failure("encode", "--input", source)
        assert f"{name}, line 2: not UTF-8 (byte 0xe9 at position 3): convert the file first" in error


def test_an_argument_that_is_not_utf_8_is_refused(command: Command) -> None:
    assert "text 2 of the command line is not UTF-8: b'caf\\xe9'" in command.failure("encode", "a", "caf\udce9")


def test_an_input_that_is_not_there_is_refused(command: Command, tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    assert f"{missing}: No such file or directory" in command.failure("encode", "--input", str(missing))
    assert f"{tmp_path}: Is a directory" in command.failure("encode", "--input", str(tmp_path))


def test_a_closed_standard_input_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in command.failure("encode", "--input", "-")


# ---- where the vectors go --------------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_an_output_file_is_whole_and_has_the_rights_of_the_umask(command: Command, tmp_path: Path) -> None:
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


def test_a_device_is_written_to_as_it_is(command: Command) -> None:
    command.result("--output", os.devnull, "a")
    assert not Path(os.devnull).is_file()


def test_an_output_that_cannot_be_made_is_named_by_its_own_name(command: Command, tmp_path: Path) -> None:
    output = tmp_path / ("x" * 250)  # a name that fits, whose temporary twin does not
    arguments = ("encode", *NUMPY, "--model", str(command.model), "--output", str(output), "a")
    assert command.failure(*arguments) == f"minilm-np: error: {output}: File name too long\n"
    assert list(tmp_path.iterdir()) == []


def test_an_output_without_a_folder_is_refused_before_the_work(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "no" / "vectors"
    error = command.failure("encode", "--model", "no/such-model", "--output", str(output), "a")
    assert f"--output {output}: there is no folder {output.parent}: make it first" in error
    error = command.failure("encode", "--model", "no/such-model", "--output", str(tmp_path), "a")
    assert f"--output {tmp_path}: it is a folder: name a file in it" in error


_AS_NOBODY = """
import os, sys
from minilm_np.cli import main
if os.getuid() == 0:
    os.setuid(65534)
sys.exit(main(["encode", "--model", "no/such-model", "--output", sys.argv[1], "a"]))
"""


def test_an_output_folder_that_is_not_writable_is_refused_before_the_work() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o555)
        found = subprocess.run([sys.executable, "-c", _AS_NOBODY, f"{folder}/vectors"], capture_output=True, text=True)
    expected = f"--output {folder}/vectors: the folder {folder} is not writable: choose another"
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"minilm-np: error: {expected}\n"


# ---- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["embed", "a"], "invalid choice: 'embed'"),
        (["encode"], "expected texts as arguments, or --input FILE"),
        (["encode", "--input", "-", "a"], "and not both"),
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


def test_binary_is_not_written_to_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "--format npy is binary: name a file with --output" in command.misuse("encode", "--format", "npy", "a")


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
        ("modules.json", b"[]", "the modules (none) are not implemented"),
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


def test_ctrl_c_is_quiet(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_ctrl_c_during_the_imports_is_quiet() -> None:
    found = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "minilm-np: interrupted\n")


def test_too_many_threads_are_one_line(command: Command) -> None:
    error = command.failure("encode", "--model", str(command.model), "--threads", "99999999", "a")
    assert error == "minilm-np: error: threads: expected an int from 1 to 1024 or None, found 99999999\n"


def test_a_model_that_may_be_meant_for_a_folder_says_so(
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


def test_a_closed_standard_output_is_an_error(capsys: Any, monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        assert cli.main(["encode", *NUMPY, "--model", str(small), "a"]) == 1
    assert capsys.readouterr().err == "minilm-np: error: standard output is closed\n"


# ---- as a process ----------------------------------------------------------------------------------------------------

PROGRAM = [sys.executable, "-m", "minilm_np"]


def test_a_process_prints_its_results_and_nothing_else(small: Path, encoder: SentenceEncoder) -> None:
    arguments = [*PROGRAM, "encode", *NUMPY, "--model", str(small), "--input", "-", "--format", "json"]
    found = subprocess.run(arguments, input="\n".join(TEXTS).encode(), capture_output=True)
    assert found.returncode == 0
    assert found.stderr.decode() == (
        "minilm-np: warning: 1 of 5 texts is longer than the limit of 16 tokens, and the rest was left out; "
        "the longest, line 5, has 100 characters: split what has to be read whole\n"
    )
    check_objects(json.loads(found.stdout), encoder)


def test_a_reader_that_goes_away_is_no_failure(small: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a text\n" * 20_000)
    arguments = [
        *PROGRAM,
        "encode",
        *NUMPY,
        "--model",
        str(small),
        "--input",
        str(tmp_path / "texts"),
        "--format",
        "text",
    ]
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


_INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from minilm_np import cli
read = cli.encode.read_lines
cli.encode.read_lines = lambda path: print("reading", file=sys.stderr, flush=True) or read(path)
sys.exit(cli.main(["encode", "--input", "-"]))
"""


def test_an_interrupted_process_is_quiet() -> None:
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


# ---- info, fetch, version, help --------------------------------------------------------------------------------------


def test_info_says_what_model_it_is(command: Command, small: Path) -> None:
    code, out, err = command("info", *NUMPY, "--model", str(small), "--format", "json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["path"] == str(small)
    assert facts["verified"] is False
    assert facts["parameters"] == sum(array.size for array in SentenceEncoder(small, backend="numpy").weights.values())
    assert (facts["dimension"], facts["layers"], facts["heads"], facts["feed_forward"]) == (8, 1, 2, 16)
    assert (facts["max_seq_length"], facts["pooling"], facts["normalize"]) == (16, "mean", True)
    assert facts["versions"]["minilm-np"] == minilm_np.__version__
    assert facts["versions"]["numpy"] == version("numpy")


def test_info_is_a_readable_line_a_fact(command: Command, small: Path) -> None:
    code, out, _ = command("info", *NUMPY, "--model", str(small))
    lines = dict(line.split(maxsplit=1) for line in out.decode().splitlines())
    assert code == 0
    assert lines["path"] == str(small)
    assert lines["verified"].startswith("no")
    assert lines["normalize"] == "yes"
    assert lines["versions"].startswith(f"minilm-np {minilm_np.__version__}, python 3.")


def test_info_names_a_package_that_is_not_installed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_numba(name: str) -> str:
        if name == "numba":
            raise cli.models.importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(cli.models.importlib.metadata, "version", without_numba)
    code, out, _ = command("info", *NUMPY, "--model", str(command.model), "--format", "json")
    assert code == 0
    assert json.loads(out)["versions"]["numba"] == "(not installed)"


@pytest.mark.weights
def test_info_verifies_the_published_model(command: Command, model_folder: Path) -> None:
    code, out, _ = command("info", *NUMPY, "--model", str(model_folder))
    assert code == 0
    assert re.search(r"^model +sentence-transformers/all-MiniLM-L6-v2$", out.decode(), re.M)
    assert re.search(r"^verified +yes", out.decode(), re.M)
    assert re.search(r"^parameters +22,565,376$", out.decode(), re.M)
    assert re.search(r"^max seq length +256$", out.decode(), re.M)


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
def test_fetch_copies_a_local_model_without_a_network(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = command("fetch", "--to", str(tmp_path / "copy"))
    assert (code, out.decode()) == (0, f"{tmp_path / 'copy'}\n")
    code, out, _ = command("info", *NUMPY, "--model", str(tmp_path / "copy"), "--format", "json")
    assert (code, json.loads(out)["verified"]) == (0, True)


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"minilm-np {minilm_np.__version__}\n".encode(), "")


def help_of(command: Command, *arguments: str) -> str:
    code, out, err = command(*arguments, "--help")
    assert (code, err) == (0, "")
    return out.decode()


def test_help_names_the_commands(command: Command) -> None:
    found = help_of(command)
    assert all(re.search(rf"^ +{name} ", found, re.M) for name in ("encode", "fetch", "info"))


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
@pytest.mark.parametrize("name", ["encode", "fetch", "info"])
def test_the_example_in_the_help_works_as_printed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (example,) = re.findall("^example: (.*)$", help_of(command, name), re.M)
    program, *arguments = shlex.split(example)
    assert program == "minilm-np"
    code, out, err = command(*arguments)
    assert code == 0
    assert out
    assert "error" not in err


# ---- benchmarks.exports, whose files this command is compared with ---------------------------------------------------


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of exports, in which an export is made at once, of a file or two."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(exports, "package_cache", lambda: cache)

    def make(name: str) -> None:
        place = exports._place(name)
        files = {"openvino": [place, place.with_suffix(".bin")], "ctranslate2": [place / "model.bin"]}
        for file in files.get(name, [place]):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{name} {file.name}")

    monkeypatch.setattr(exports, "make", make)
    return cache


def test_an_export_is_made_in_the_cache_or_copied_to_a_file(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.main(["onnx", "openvino"])
    first, second = capsys.readouterr().out.split()
    assert Path(first).parent.parent == export / "benchmarks"
    assert (Path(first).read_text(), Path(second).read_text()) == ("onnx model.onnx", "openvino model.xml")
    out = {"onnx": tmp_path / "mine.onnx", "openvino": tmp_path / "mine.xml", "ctranslate2": tmp_path / "folder"}
    for name, path in out.items():
        exports.main([name, "--output", str(path)])
        assert capsys.readouterr().out == f"{path}\n"
    assert out["onnx"].read_text() == "onnx model.onnx"
    assert out["openvino"].with_suffix(".bin").read_text() == "openvino model.bin"
    assert (out["ctranslate2"] / "model.bin").read_text() == "ctranslate2 model.bin"


@pytest.mark.usefixtures("export")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, "onnx, onnx-int8, onnx-fused, openvino, ctranslate2"),
        ([], 2, "the following arguments are required: NAME"),
        (["foo"], 2, "invalid choice: 'foo'"),
        (["onnx", "openvino", "--output", "x"], 2, "argument --output: expected one NAME with it, found 2"),
        (["onnx", "--output", "no/x"], 1, "error: --output no/x: there is no folder no: make it first"),
    ],
)
def test_the_usage_of_exports(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        exports.main(arguments)
    out, err = capsys.readouterr()
    assert stopped.value.code == code
    assert message in (out if code == 0 else err)

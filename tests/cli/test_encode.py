"""`encode`: the formats of its output, and the texts that it reports as truncated."""

import gc
import io
import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from minilm_np.cli import encoding
from minilm_np.cli.printing import cells
from minilm_np.text.tokenizer import TextTokenizer, TokenizedTexts
from tests.cli.conftest import Stdin
from tests.support.cli import NUMPY, TEXTS, Command, check_objects, same_bits, vectors_of

pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")  # the last text is truncated


def test_json_is_a_list_of_objects_whose_numbers_read_back_to_the_same_bits(
    command: Command, encoder: SentenceEncoder
) -> None:
    check_objects(json.loads(command.result("--format", "json", *TEXTS)), encoder)


def test_jsonl_is_one_object_per_line(command: Command, encoder: SentenceEncoder) -> None:
    out = command.result("--format", "jsonl", *TEXTS)
    assert out.endswith(b"\n")
    check_objects([json.loads(line) for line in out.decode().removesuffix("\n").split("\n")], encoder)


def test_npy_is_an_array_that_numpy_loads(command: Command, encoder: SentenceEncoder) -> None:
    found = np.load(io.BytesIO(command.result("--format", "npy", *TEXTS)), allow_pickle=False)
    assert same_bits(found, encoder.encode(TEXTS))
    assert found.shape == (len(TEXTS), 8)


def test_text_is_one_readable_line_per_text(command: Command, encoder: SentenceEncoder) -> None:
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
    assert " tokens (truncated)  long long" in lines[4]
    assert lines[4].endswith("...")


def test_a_text_cannot_break_its_line_or_write_to_the_terminal(command: Command) -> None:
    out = command.result("one\ntwo\r\x1b[31mred\u2028\x07").decode()
    assert out.count("\n") == 1
    assert out.removesuffix("\n").isprintable()


@pytest.mark.parametrize("batch_size", ["1", "2", "1000"])
def test_the_batch_size_does_not_change_the_order(command: Command, encoder: SentenceEncoder, batch_size: str) -> None:
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


def test_binary_is_not_written_to_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "--format npy is binary: name a file with --output" in command.misuse("encode", "--format", "npy", "a")


def test_each_text_is_tokenized_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenized: list[str] = []
    tokenize = TextTokenizer.__call__

    def counting(self: TextTokenizer, texts: list[str]) -> TokenizedTexts:
        tokenized.extend(texts)
        return tokenize(self, texts)

    monkeypatch.setattr(TextTokenizer, "__call__", counting)
    command.result("--format", "json", *TEXTS)
    assert tokenized == TEXTS


# ---- many lines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "npy"])
def test_batches_do_not_show_in_the_output(
    command: Command, stdin: Stdin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    raw = "".join(f"line {number}\n" for number in range(9)).encode()
    (tmp_path / "lines").write_bytes(raw)
    expected = command.result("--format", form, "--input", str(tmp_path / "lines"))
    monkeypatch.setattr(encoding, "BATCH", 2)
    assert command.result("--format", form, "--input", str(tmp_path / "lines")) == expected
    stdin(raw)
    assert command.result("--format", form, "--input", "-") == expected
    assert command.result("--format", form, "--input", str(tmp_path / "lines"), "--output", str(tmp_path / "x")) == b""
    assert (tmp_path / "x").read_bytes() == expected


def test_npy_has_the_bytes_of_numpy(command: Command, encoder: SentenceEncoder) -> None:
    saved = io.BytesIO()
    np.save(saved, encoder.encode(TEXTS))
    assert command.result("--format", "npy", *TEXTS) == saved.getvalue()


def test_memory_does_not_grow_with_the_lines(command: Command, tmp_path: Path) -> None:
    peaks = []
    for n in (1, 1, 8):  # the first run pays for what is made once
        (tmp_path / "lines").write_text("a b\n" * (encoding.BATCH * n))
        gc.collect()
        tracemalloc.start()
        command.result("--input", str(tmp_path / "lines"), "--format", "npy", "--output", str(tmp_path / "vectors"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 100_000  # 7 batches of vectors alone would take 230,000 bytes, their texts 370,000


# ---- options ---------------------------------------------------------------------------------------------------------


def test_vectors_are_truncated_and_normalized_as_by_the_class(command: Command, encoder: SentenceEncoder) -> None:
    for arguments, options in (
        (("--truncate-dim", "5"), {"truncate_dim": 5}),
        (("--truncate-dim", "5", "--normalize"), {"truncate_dim": 5, "normalize_embeddings": True}),
    ):
        found = np.load(io.BytesIO(command.result("--format", "npy", *arguments, *TEXTS)))
        assert same_bits(found, encoder.encode(TEXTS, **options))  # type: ignore[call-overload]


def test_texts_are_truncated_as_the_options_say(command: Command, small: Path) -> None:
    [item] = json.loads(command.result("--format", "json", "--max-length", "4", "abc abc abc"))
    assert (item["n_tokens"], item["truncated"]) == (4, True)
    shorter = SentenceEncoder(small, backend="numpy")
    shorter.max_seq_length = 4
    assert same_bits(vectors_of([item]), shorter.encode(["abc abc abc"]))
    arguments = ("encode", *NUMPY, "--model", str(small), "a", "word " * 20)
    error = command.failure(*arguments, "--on-truncation", "error")
    assert "text 2 (100 characters) is longer than the limit of 16 tokens" in error
    assert "expected an int from 2 to 16, found 1" in command.failure(*arguments, "--max-length", "1")


def test_a_prompt_is_put_before_each_text(command: Command, prompted: Path) -> None:
    encoder = SentenceEncoder(prompted, backend="numpy")
    arguments = ("encode", *NUMPY, "--model", str(prompted), "--format", "npy", "a text")
    code, out, _ = command(*arguments, "--prompt-name", "passage")
    assert code == 0
    assert same_bits(np.load(io.BytesIO(out)), encoder.encode(["a text"], prompt_name="passage"))
    assert "prompt_name: expected one of 'query', 'document', 'passage', found 'x'" in command.failure(
        *arguments, "--prompt-name", "x"
    )


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_text_that_may_be_meant_as_a_file_is_warned_about(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("a\nb\n")
    texts = [str(file), "-", str(tmp_path), "a"]
    code, out, err = command.encode("--format", "jsonl", "--on-truncation", "ignore", *texts)
    assert (code, [json.loads(line)["text"] for line in out.splitlines()]) == (0, texts)
    assert err == (
        f"minilm-np: warning: '{file}' is encoded as a text: to encode the lines of that file, use --input {file}\n"
        "minilm-np: warning: '-' is encoded as a text: to encode the lines of standard input, use --input -\n"
    )


@pytest.mark.parametrize("columns", [80, 40, 200])
def test_lines_fit_the_terminal(command: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    texts = [*TEXTS, "日本語" * 40, "e\u0301" * 90, "a" * 500]
    lines = command.result("--on-truncation", "ignore", *texts).decode().splitlines()
    assert len(lines) == len(texts)
    widest = max(map(cells, lines))
    assert widest <= max(columns, 64)  # one number, the tokens and a few letters are shown on any terminal
    assert all(line.startswith("[") for line in lines)

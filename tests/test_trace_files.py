"""Files of traces: they read back equal, are written atomically, and broken ones are refused."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from minilm_np import InputValueError, SaveError, SentenceEncoder
from minilm_np.trace import Trace, trace
from tests.support.compare import assert_same_bits

TEXT = "Naïve café, 東京 👍 [SEP] x"


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1, backend="numpy")


@pytest.fixture(scope="module")
def engine() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1)


@pytest.fixture
def saved(encoder: SentenceEncoder, tmp_path: Path) -> Path:
    trace(encoder, TEXT, dtype="float64").save(tmp_path / "file.safetensors")
    return tmp_path / "file.safetensors"


@pytest.mark.parametrize("text", [TEXT, "", "long " * 100, 'quotes " \\ \x00 \u2028'])
def test_a_trace_reads_back_equal(engine: SentenceEncoder, tmp_path: Path, text: str) -> None:
    for options in ({}, {"dtype": "float64"}, {"backend": "numba"}):
        found = trace(engine, text, **options)
        found.save(tmp_path / "file.safetensors")
        read = Trace.load(tmp_path / "file.safetensors")
        assert read == found and list(read) == list(found) and read.offsets == found.offsets
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]


def test_the_file_is_an_ordinary_one(encoder: SentenceEncoder, saved: Path) -> None:
    arrays = load_file(saved)
    for name, array in trace(encoder, TEXT, dtype="float64").items():
        assert_same_bits(arrays[name], array)
    with safe_open(saved, "numpy") as file:
        facts = json.loads(file.metadata()["minilm_np"])
    assert facts["text"] == TEXT and facts["format"] == "minilm_np trace 1"
    os.umask(umask := os.umask(0))
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_is_replaced_whole_or_not_at_all(encoder: SentenceEncoder, saved: Path) -> None:
    before = saved.read_bytes()
    found = trace(encoder, "x")
    found.arrays["pooling"] = np.array(["no number"])
    with pytest.raises(OSError, match="cannot be written: Unknown dtype"):  # the format has no text
        found.save(saved)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]
    with pytest.raises(SaveError, match=r"none/file\.safetensors cannot be written: No such file or directory"):
        found.save(saved.parent / "none" / "file.safetensors")


def test_many_threads_may_write_one_file(encoder: SentenceEncoder, tmp_path: Path) -> None:
    traces = [trace(encoder, text) for text in ("a", "another")]
    path = tmp_path / "file.safetensors"
    (tmp_path / f".{path.name}.{os.getpid()}.tmp").touch()  # of a killed process that had this one's number
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: traces[i % 2].save(path), range(80)):
            assert Trace.load(path) in traces
    path.unlink()
    assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]  # it is not ours to remove


REFUSALS: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], object], str]] = [
    ("format", lambda a, f: f.update(format="other"), "expected the format 'minilm_np trace 1' .* found 'other'"),
    ("no tokens", lambda a, f: f.pop("tokens"), "metadata 'tokens': expected a list, found None"),
    ("truncated", lambda a, f: f.update(truncated="no"), "metadata 'truncated': expected a bool, found 'no'"),
    ("token", lambda a, f: f["tokens"].pop(), "expected as many tokens and offsets as ids, 17, found 16 and 17"),
    ("offset", lambda a, f: f["offsets"].__setitem__(3, [1]), r"'offsets': expected pairs of integers, found \[1\]"),
    ("missing", lambda a, f: a.pop("pooling"), "'pooling': .* found in the metadata's dimensions only"),
    ("more", lambda a, f: a.update(x=np.zeros(1)), "'x': .* found in the file only"),
    ("dtype", lambda a, f: a.update(pooling=np.zeros(96, np.float32)), "expected dtype float64, found float32"),
    ("rank", lambda a, f: a.update(pooling=np.zeros((96, 1))), r"'pooling': expected the dimensions 'D'.*\(96, 1\)"),
    (
        "size",
        lambda a, f: a.update(pooling=np.zeros(95)),
        r"'pooling': expected the dimensions 'D', where D is 96; found",
    ),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS])
def test_a_broken_trace_is_refused(saved: Path, change: Any, message: str) -> None:
    arrays = load_file(saved)
    with safe_open(saved, "numpy") as file:
        facts = json.loads(file.metadata()["minilm_np"])
    change(arrays, facts)
    save_file(arrays, saved, {"minilm_np": json.dumps(facts)})
    with pytest.raises(InputValueError, match=message) as refusal:
        Trace.load(saved)
    assert str(saved) in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a complete .safetensors file"),
        (b"\x02" + bytes(7) + b"{}", "expected the format"),
        (b"\x02" + bytes(7) + b"[]", "expected a complete .safetensors file"),
        (b"\xff" * 20, "expected a complete .safetensors file"),
        ((b'{"__metadata__":{"minilm_np":"{"}}', "metadata 'minilm_np': expected JSON")),
        ((b'{"__metadata__":{"minilm_np":"3"}}', "expected the format")),
        ((b'{"x":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}', "expected a complete .safetensors file")),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content if content[:1] == b"{" else content)
    with pytest.raises(InputValueError, match=message):
        Trace.load(path)
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none")


def test_a_trace_that_was_cut_short_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(InputValueError, match=r"file.safetensors: expected a complete .safetensors file"):
        Trace.load(saved)

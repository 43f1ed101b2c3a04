"""Files of vectors as `verify` opens them."""

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.verify import open_implementation
from minilm_np.verify.stored_vectors import StoredVectors

TEXTS = ["hello world", "", "a much longer text than the others, with [SEP] in it"]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def test_a_file_of_vectors_gives_them_back(small: SentenceEncoder, tmp_path: Path) -> None:
    vectors = small.encode(TEXTS)
    np.save(tmp_path / "v.npy", vectors.astype(np.float64))
    save_file({"v": vectors}, tmp_path / "plain.safetensors")
    save_file({"v": vectors}, tmp_path / "texts.safetensors", {"texts": json.dumps(TEXTS)})
    lines = [json.dumps({"text": text, "embedding": v.tolist()}) for text, v in zip(TEXTS, vectors, strict=True)]
    (tmp_path / "v.jsonl").write_text("\n".join(lines) + "\n\n")
    for name in ("v.npy", "plain.safetensors", "texts.safetensors", "v.jsonl"):
        other = open_implementation(str(tmp_path / name), small)
        assert np.array_equal(other.vectors(TEXTS), vectors)
        assert other.texts == (TEXTS if name in ("texts.safetensors", "v.jsonl") else None)
        assert other.intermediates(TEXTS) is None and other.token_ids(TEXTS) is None
        if other.texts:
            assert np.array_equal(other.vectors(TEXTS[::-1]), vectors[::-1])
            with pytest.raises(
                InputValueError, match=f"{name} has no vector for 1 of the 2 texts, the first is 'other'"
            ):
                other.vectors(["other", TEXTS[0]])
        else:
            with pytest.raises(InputValueError, match=f"{name} has 3 vectors without texts, but 1 texts are compared"):
                other.vectors(["one"])


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def line(**item: Any) -> bytes:
    return json.dumps(item).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.npy", b"no", "not an .npy file of numbers"),
        ("v.npy", npy(np.zeros((2, 3), np.float32))[:-1], "not an .npy file of numbers"),
        ("v.npy", npy(np.array([None, {}], object)), r"expected floats .* found object of shape \(2,\)"),
        ("v.npy", npy(np.zeros(3)), r"expected floats of shape \(texts, numbers\), found float64 of shape \(3,\)"),
        ("v.npy", npy(np.zeros((2, 3), np.int8)), "expected floats .* found int8"),
        ("v.jsonl", line(text="a", embedding=[1.0]) + b"{", "line 2: not JSON"),
        ("v.jsonl", b"\xff\n", "line 1: not UTF-8: expected"),
        ("v.jsonl", b"", "v.jsonl: expected at least one vector of at least one number, found none"),
        ("v.npy", npy(np.zeros((2, 0))), "v.npy: expected at least one vector of at least one number"),
        ("v.jsonl", line(text="a", embedding=[]), r"line 1: expected a list of numbers, found \[\]"),
        ("v.jsonl", b"[" * 100000 + b"\n", "line 1: not JSON"),
        ("v.jsonl", line(embedding=[1.0]), 'line 1: expected an object with "text" and "embedding"'),
        ("v.jsonl", line(text=3, embedding=[1.0]), "line 1: expected an object"),
        ("v.jsonl", b"[1]\n", r"line 1: expected an object .*, found \[1\]$"),
        ("v.jsonl", line(text="a", embedding="AAAA"), 'line 1: expected a list of numbers, found "AAAA"'),
        ("v.jsonl", line(text="a", embedding=[1, "2"]), "line 1: expected a list of numbers"),
        ("v.jsonl", line(text="a", embedding=[1, True]), "line 1: expected a list of numbers"),
        ("v.jsonl", line(text="a", embedding=[1, 10**400]), "line 1: a number is too large"),
        (
            "v.jsonl",
            line(text="a", embedding=[1, 2]) + line(text="b", embedding=[1]),
            "line 2: expected as many numbers as in the first vector, 2, found 1",
        ),
        ("v.safetensors", b"no", "expected a complete .safetensors file"),
        (
            "v.safetensors",
            b"\x40" + bytes(7) + b'{"v":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}'.ljust(64) + bytes(4),
            "expected a complete .safetensors file: 'BF16'|found bfloat16",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(
    small: SentenceEncoder, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputValueError, match=message):
        open_implementation(str(tmp_path / name), small)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (("a", "b"), None, r"expected one tensor, \(texts, numbers\), found 2"),
        (("a",), {"texts": "{}"}, "metadata `texts`: expected a JSON list of strings"),
        (("a",), {"texts": "no JSON"}, "metadata `texts`"),
        (("a",), {"texts": "[1, 2]"}, "metadata `texts`"),
        (("a",), {"texts": '["one"]'}, "expected one vector per text, found 2 for 1 texts"),
    ],
)
def test_a_safetensors_file_of_something_else_is_refused(
    small: SentenceEncoder, tmp_path: Path, tensors: tuple[str, ...], metadata: Any, message: str
) -> None:
    save_file({name: np.zeros((2, 3), np.float32) for name in tensors}, tmp_path / "v.safetensors", metadata)
    with pytest.raises(InputValueError, match=message):
        open_implementation(str(tmp_path / "v.safetensors"), small)


def test_null_is_a_number_that_is_none(small: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_bytes(line(text="a", embedding=[1.0, None, 2]))
    found = open_implementation(str(tmp_path / "v.jsonl"), small).vectors(["a"])
    assert np.array_equal(found, [[1.0, np.nan, 2.0]], equal_nan=True)


# ---- .npy files, byte by byte ----------------------------------------------------------------------------------------


def header(text: str, version: int = 1) -> bytes:
    """The first bytes of an .npy file whose header is a text."""
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text.encode()


def described(shape: str, descr: str = "<f4") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            header(described("(1000000000000, 3)")) + bytes(24),
            "expected 12000000000000 bytes after the header, .* found 24",
        ),
        (header(described("(10**12, 3)")), "not an .npy file of numbers: ValueError"),
        (header(described("(2, 3)")) + bytes(25), "expected 24 bytes after the header, for float32 .*, found 25: the"),
        (header(described("(2, -3)")) + bytes(24), r"expected floats .* found float32 of shape \(2, -3\)"),
        (header(described("(2, True)")) + bytes(8), r"expected floats .* of shape \(2, True\)"),
        (header("{'descr': '<f4', 'shape': (2, 3"), "not an .npy file of numbers: "),
        (header("(" * 5000), "not an .npy file of numbers: "),
        (header("x" * 20_000), "not an .npy file of numbers: "),
        (header(described("(2, 3)"), version=2)[:10] + b"\xff\xff" + bytes(24), "not an .npy file of numbers: "),
        (header(described("(2, 3)"), version=3) + bytes(24), "not an .npy file of numbers: "),
        (header(described("(2, 3)", "<f400000")) + bytes(24), "not an .npy file of numbers: "),
    ],
)
def test_a_damaged_npy_header_is_refused(small: SentenceEncoder, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(InputValueError, match=message) as caught:
        open_implementation(str(tmp_path / "v.npy"), small)
    assert str(caught.value).startswith(str(tmp_path / "v.npy")) and len(str(caught.value)) < 700


def test_no_flipped_byte_of_an_npy_file_gives_anything_but_vectors_or_an_error(tmp_path: Path) -> None:
    whole = npy(np.ones((4, 5), np.float32))
    random = Random(0)
    for _ in range(400):
        content = bytearray(whole)
        for place in random.sample(range(100), random.choice([1, 1, 2])):
            content[place] = random.choice([random.randrange(256), *b"(){}[]',:0123456789 "])
        (tmp_path / "v.npy").write_bytes(content)
        try:
            found = StoredVectors(tmp_path / "v.npy").vectors([""] * 4)
        except InputValueError:
            continue
        assert found.shape == (4, 5)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "g"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_of_every_float_and_order_are_read(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.arange(12).reshape(4, 3).astype(dtype, order=order)
    (tmp_path / "v.npy").write_bytes(npy(array))
    found = StoredVectors(tmp_path / "v.npy").vectors([""] * 4)
    assert found.dtype == array.dtype and np.array_equal(found, array)

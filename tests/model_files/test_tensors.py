"""tensors.py: arrays and facts are read as they were written; a failed write and a wrong file are named."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np._files import MAX_JSON
from minilm_np.errors import InputValueError, SaveError
from minilm_np.model_files.tensors import read_tensors, save_arrays, write_tensors
from tests.support.compare import assert_same_bits

ARRAYS: dict[str, Any] = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(3, 2)),
    "every second": np.arange(9, dtype=np.int64)[::2],
    "number": np.array(3, np.float32),
}
FACTS = {"format": "test 1", "text": "é\ud83d".encode("utf-8", "replace").decode(), "numbers": [1, 2.5, None]}


def test_arrays_and_facts_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS, FACTS)
    arrays, facts = read_tensors(path, "test 1")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert_same_bits(array, ARRAYS[name])
    assert facts == FACTS
    first = path.read_bytes()
    write_tensors(path, ARRAYS, FACTS)
    assert path.read_bytes() == first


def test_the_library_s_permissions_are_not_kept(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a", ARRAYS)
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_failed_write_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=r"/a cannot be written: Unknown dtype"):
        write_tensors(path, {"text": np.array(["no such dtype"])}, FACTS)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(SaveError, match=r"/no/a cannot be written: No such file or directory"):
        write_tensors(tmp_path / "no" / "a", ARRAYS, FACTS)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "expected the format 'test 1' in its metadata 'minilm_np', found None"),
        ({"minilm_np": "[]"}, "expected the format 'test 1' .*, found None"),
        ({"minilm_np": '{"format": "test 2"}'}, "expected the format 'test 1' .*, found 'test 2'"),
        ({"minilm_np": "{"}, "metadata 'minilm_np': expected JSON in UTF-8"),
        ({"minilm_np": '{"a": 1, "a": 1}'}, "metadata 'minilm_np': the key 'a' occurs twice"),
    ],
    ids=str,
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    save_arrays(tmp_path / "a", ARRAYS, metadata)
    with pytest.raises(InputValueError, match=message):
        read_tensors(tmp_path / "a", "test 1")


def test_a_header_above_the_limit_is_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes((MAX_JSON + 1).to_bytes(8, "little"))
    os.truncate(path, 2 * MAX_JSON)  # sparse
    with pytest.raises(InputValueError, match=f"length: expected at most {MAX_JSON} bytes, found {MAX_JSON + 1}"):
        read_tensors(path, "test 1")
    with pytest.raises(OSError, match=f"/b cannot be written: expected a header of at most {MAX_JSON} bytes, found "):
        write_tensors(tmp_path / "b", ARRAYS, FACTS | {"text": '"' * (MAX_JSON // 4)})
    assert os.listdir(tmp_path) == ["a"]

"""Test the data of training: random access to a file, a mix of files, and one test per error message."""

import itertools
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from minilm_np._text_files import shown
from minilm_np.errors import DataError, InputTypeError, InputValueError
from minilm_np.train.data import SampleFile, open_data
from tests.support.sample_files import FORMS, jsonl, message_of, put

PAIRS = [[f"question {n}", f"answer {n}"] for n in range(20)]


# ---- one file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "raw", "expected"), FORMS)
def test_the_lines_of_a_file_can_be_read_in_any_order(
    tmp_path: Path, name: str, raw: bytes, expected: list[list[str]]
) -> None:
    file = SampleFile(put(tmp_path, name, raw), name)
    assert [file[sample] for sample in reversed(range(len(file)))] == expected[::-1]


def test_the_checksum_is_that_of_the_decompressed_data(tmp_path: Path) -> None:
    plain = SampleFile(put(tmp_path, "a.jsonl", jsonl(PAIRS)), "a")
    assert plain.crc32 == SampleFile(put(tmp_path, "a.jsonl.gz", jsonl(PAIRS)), "a").crc32
    assert plain.crc32 != SampleFile(put(tmp_path, "b.jsonl", jsonl(PAIRS[::-1])), "a").crc32


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_each_pass_over_one_file_uses_every_line_once(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", jsonl(PAIRS))
    batches = list(itertools.islice(open_data(path, batch_size=5, seed=1), 4))
    assert sorted(line for batch in batches for line in batch.lines) == list(range(1, 21))
    for batch in batches:
        assert batch.source == "a.jsonl"
        assert batch.columns == [[PAIRS[line - 1][column] for line in batch.lines] for column in range(2)]


def mix(folder: Path, *entries: dict[str, Any]) -> Path:
    return put(folder, "data_config.json", json.dumps(entries).encode())


def test_a_mix_is_read_from_the_folder_of_its_config_and_can_be_restored(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    put(tmp_path, "a.jsonl.gz", jsonl(PAIRS))
    put(tmp_path, "deeper/b.tsv", b"".join(b"%d\tb %d\tnot %d\n" % (n, n, n) for n in range(9)))
    config = mix(
        tmp_path,
        {"name": "a.jsonl.gz", "lines": 20, "weight": 3},
        {"name": "deeper/b.tsv", "lines": 9, "weight": 1},
    )
    sampler = open_data(config, batch_size=4, seed=2)
    assert len(sampler) == 29
    batches = list(itertools.islice(sampler, 400))
    assert {(batch.source, len(batch.columns)) for batch in batches} == {("a.jsonl.gz", 2), ("deeper/b.tsv", 3)}
    assert 250 < Counter(batch.source for batch in batches)["a.jsonl.gz"] < 350
    other = open_data(config, batch_size=4, seed=2)
    other.restore(json.loads(json.dumps(sampler.state())))
    assert list(itertools.islice(other, 50)) == list(itertools.islice(sampler, 50))


def test_a_state_of_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", jsonl(PAIRS))
    state = open_data(path, batch_size=4).state()
    put(tmp_path, "a.jsonl", jsonl(PAIRS[::-1]))
    with pytest.raises(InputValueError, match=r"belongs to another run: set a\.jsonl: expected \[20, .*, found \[20, "):
        open_data(path, batch_size=4).restore(state)


# ---- error messages: they name the file and the line -----------------------------------------------------------------


def refusal(path: Path, batch_size: int = 2) -> str:
    with pytest.raises(DataError) as caught:
        open_data(path, batch_size=batch_size)
    return message_of(caught, path.parent)


def test_a_broken_line_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", b"a\tb\nonly one\n")
    assert refusal(path).startswith("a.tsv, line 2: expected a pair or a triplet of texts, separated by tabs, found")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jsonl") == "a.jsonl cannot be read: No such file or directory"
    assert refusal(tmp_path / "c.json") == "c.json cannot be read: No such file or directory"


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    for name in ("a.tsv", "b.json", "c.jsonl.gz"):
        os.mkfifo(tmp_path / name)
        assert refusal(tmp_path / name) == f"{name} cannot be read: expected a regular file, found a FIFO"
    (tmp_path / "zero.tsv").symlink_to("/dev/zero")
    assert refusal(tmp_path / "zero.tsv") == "zero.tsv cannot be read: expected a regular file, found a device"
    (tmp_path / "folder.tsv").mkdir()
    assert refusal(tmp_path / "folder.tsv") == "folder.tsv cannot be read: Is a directory"
    assert refusal(tmp_path / "a\0.tsv") == "a\0.tsv cannot be read: embedded null byte"


def test_a_line_nested_too_deeply_to_show_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    assert len(shown(deep)) <= 80
    for line in ("[" * 984 + "]" * 984, '["a", ' + "[" * 983 + "]" * 984):
        assert refusal(put(tmp_path, "a.jsonl", line.encode())).startswith("a.jsonl, line 1")


def test_a_file_that_is_truncated_while_it_is_in_use_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", jsonl(PAIRS))
    sampler = open_data(path, batch_size=4)
    os.truncate(path, 3)
    with pytest.raises(DataError, match=r"a\.jsonl, line \d+: the file was truncated while it was in use"):
        next(sampler)


def test_a_full_disk_for_decompressed_data_is_an_error_that_names_the_file(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a.jsonl.gz", jsonl([[f"{n}", "x" * 10_000] for n in range(1000)]))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz cannot be prepared .* TMPDIR\): No space left on device"):
        open_data(path, batch_size=2)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", jsonl(PAIRS))
    assert len(open_data(path, batch_size=20)) == 20
    assert refusal(path, 21) == (
        "a.jsonl: expected at least 21 samples without a common text, to fill one batch; found 20 (of 20 samples): "
        "choose a smaller batch size, or add data"
    )
    path = put(tmp_path, "b.jsonl", jsonl([["the same", f"{n}"] for n in range(20)]))
    assert "found 1 (of 20 samples): choose a smaller" in refusal(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[", "data_config.json: expected JSON in UTF-8: "),
        ("[" * 984 + "]" * 984, "data_config.json"),
        ("{}", 'data_config.json: expected a list of {"name", "lines", "weight"}, found {}'),
        ("[]", 'data_config.json: expected a list of {"name", "lines", "weight"}, found []'),
        ('[{"name": "a.tsv"}]', "data_config.json, entry 1: expected name, lines and weight, found"),
        (
            '[{"name": "a.tsv", "lines": 2, "weight": 0}]',
            "data_config.json, entry 1: weight: expected a finite number above 0",
        ),
        ('[{"name": "a.tsv", "lines": 2, "weight": NaN}]', "data_config.json, entry 1: weight: expected a finite"),
        (f'[{{"name": "a.tsv", "lines": 2, "weight": 1{"0" * 400}}}]', "data_config.json, entry 1: weight: expected a"),
        (
            '[{"name": "a.tsv", "lines": 2, "weight": 1e308}, {"name": "c.tsv", "lines": 2, "weight": 1e308}]',
            "data_config.json: weight: expected a finite sum of all weights, found infinity",
        ),
        ('[{"name": "a\\u0000.tsv", "lines": 2, "weight": 1}]', "data_config.json, entry 1: name: expected a file in"),
        ('[{"name": "\\ud800.tsv", "lines": 2, "weight": 1}]', "data_config.json, entry 1: name: expected a file in"),
        ('[{"name": "a.tsv", "lines": "2", "weight": 1}]', "data_config.json, entry 1: lines: expected an integer of"),
        ('[{"name": "../a.tsv", "lines": 2, "weight": 1}]', "data_config.json, entry 1: name: expected a file in the"),
        ('[{"name": "/a.tsv", "lines": 2, "weight": 1}]', "data_config.json, entry 1: name: expected a file in the"),
        ('[{"name": "a.tsv", "lines": 3, "weight": 1}]', "a.tsv: expected 3 lines, as "),
        ('[{"name": "b.tsv", "lines": 2, "weight": 1}]', "b.tsv cannot be read: No such file or directory"),
    ],
)
def test_a_broken_config_is_refused(tmp_path: Path, config: str, message: str) -> None:
    put(tmp_path, "a.tsv", b"a\tb\nc\td\n")
    assert refusal(put(tmp_path, "data_config.json", config.encode())).startswith(message)


def test_a_set_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.tsv", b"a\tb\nc\td\n")
    entry = {"name": "a.tsv", "lines": 2, "weight": 1}
    assert refusal(mix(tmp_path, entry, entry)).startswith("data_config.json, entry 2: a.tsv is listed twice")


def test_a_batch_size_that_is_out_of_range_or_no_int_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", b"a\tb\nc\td\n")
    with pytest.raises(InputValueError, match="batch_size: expected an int of at least 1, found 0"):
        open_data(path, batch_size=0)
    with pytest.raises(InputTypeError, match="batch_size: expected an int, found str"):
        open_data(path, batch_size="2")  # type: ignore[arg-type]

"""Training data: the forms of a file, the mix, reading anywhere in a large one, and one test a refusal."""

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.errors import DataError, InputTypeError, InputValueError
from minilm_np.train.data import SampleFile, open_data, read_samples

PAIRS = [[f"question {n}", f"answer {n}"] for n in range(20)]


def jsonl(samples: list[Any]) -> bytes:
    return "".join(json.dumps(sample) + "\n" for sample in samples).encode()


def put(folder: Path, name: str, raw: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


# ---- the forms of a file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("a.jsonl", b'["a", "b"]\n["c", "d"]\n', [["a", "b"], ["c", "d"]]),
        ("a.jsonl", b'["a", "b"]\r\n["c", "d"]', [["a", "b"], ["c", "d"]]),
        ("a.jsonl", b'\xef\xbb\xbf{"texts": ["a", "b", "c"]}\n["d", "e", "f"]\n', [["a", "b", "c"], ["d", "e", "f"]]),
        ("a.jsonl.gz", '["é", "\\u6771\\n"]\n'.encode(), [["é", "東\n"]]),
        ("a.jsonl", '["a\u2028b", "c\x85"]\n'.encode(), [["a\u2028b", "c\x85"]]),
        ("a.tsv", b'a "quoted\tb\nc\td\n', [['a "quoted', "b"], ["c", "d"]]),
        ("a.tsv.gz", b"a\tb\tc\r\nd\te\tf\r\n", [["a", "b", "c"], ["d", "e", "f"]]),
        ("a.tsv", b" a \tb\x0b\x0c1\n", [[" a ", "b\x0b\x0c1"]]),
    ],
)
def test_the_forms_of_a_file(tmp_path: Path, name: str, raw: bytes, expected: list[list[str]]) -> None:
    path = put(tmp_path, name, raw)
    assert list(read_samples(path)) == expected
    file = SampleFile(path, name)
    assert [file[sample] for sample in reversed(range(len(file)))] == expected[::-1]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=1, max_size=8)))
def test_any_texts_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for name in ("a.jsonl", "a.jsonl.gz"):
        file = SampleFile(put(folder, name, jsonl(samples)), name)
        assert [file[sample] for sample in range(len(file))] == samples


def test_the_same_data_has_the_same_checksum_packed_or_not(tmp_path: Path) -> None:
    plain = SampleFile(put(tmp_path, "a.jsonl", jsonl(PAIRS)), "a")
    assert plain.crc32 == SampleFile(put(tmp_path, "a.jsonl.gz", jsonl(PAIRS)), "a").crc32
    assert plain.crc32 != SampleFile(put(tmp_path, "b.jsonl", jsonl(PAIRS[::-1])), "a").crc32


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_one_file_is_gone_through_once_before_it_is_shuffled_again(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", jsonl(PAIRS))
    batches = list(itertools.islice(open_data(path, batch_size=5, seed=1), 4))
    assert sorted(line for batch in batches for line in batch.lines) == list(range(1, 21))
    for batch in batches:
        assert batch.source == "a.jsonl"
        assert batch.columns == [[PAIRS[line - 1][column] for line in batch.lines] for column in range(2)]


def mix(folder: Path, *entries: dict[str, Any]) -> Path:
    return put(folder, "data_config.json", json.dumps(entries).encode())


def test_a_mix_is_read_from_beside_its_config_and_restarts_anywhere(tmp_path: Path) -> None:
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
    with pytest.raises(InputValueError, match=r"of another run: set a\.jsonl is \[20, "):
        open_data(path, batch_size=4).restore(state)


# ---- refusals: the file and the line are named -----------------------------------------------------------------------


def refusal(path: Path, batch_size: int = 2) -> str:
    with pytest.raises(DataError) as caught:
        open_data(path, batch_size=batch_size)
    assert str(caught.value).startswith(str(path.parent))
    return str(caught.value).removeprefix(str(path.parent) + "/")


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", b"", "a.jsonl, line 1: the file is empty: expected a pair or a triplet of texts a line"),
        ("a.tsv.gz", b"", "a.tsv.gz, line 1: the file is empty"),
        (
            "a.tsv",
            b"a\tb\nonly one\n",
            "a.tsv, line 2: one text only: expected a pair or a triplet, with a tab between",
        ),
        ("a.jsonl", b'["a"]\n', "a.jsonl, line 1: one text only: expected a pair or a triplet"),
        ("a.jsonl", b"[]\n", "a.jsonl, line 1: no text: expected a pair or a triplet"),
        ("a.jsonl", b'["a","b"]\n["a","b","c"]\n', "a.jsonl, line 2: 3 texts, where the lines before have 2: expected"),
        ("a.tsv", b"a\tb\n\tc\n", "a.tsv, line 2: text 1 is empty"),
        ("a.jsonl", b'["a", " \\n"]\n', "a.jsonl, line 1: text 2 is empty"),
        ("a.jsonl", b'["a", 3]\n', "a.jsonl, line 1: text 2: expected a string, found 3"),
        ("a.jsonl", b'["a", "\\ud800"]\n', "a.jsonl, line 1: text 2 has a lone surrogate"),
        ("a.jsonl", b'["a", "b"]\n\n', "a.jsonl, line 2: not JSON: "),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not JSON: "),
        ("a.jsonl", b'["a", "b"]\n["a", "\xff"]\n', "a.jsonl, line 2: not UTF-8 (byte 0xff at position 7): convert"),
        ("a.jsonl", b'{"set": ["a", "b"]}\n', 'a.jsonl, line 1: expected a list of texts, or {"texts": [...]}, found'),
        ("a.jsonl", b'{"texts": "ab"}\n', 'a.jsonl, line 1: expected a list of texts, or {"texts": [...]}, found'),
        ("a.jsonl", b'"ab"\n', 'a.jsonl, line 1: expected a list of texts, or {"texts": [...]}, found "ab"'),
        ("a.csv", b"a,b\n", "a.csv: expected a name that ends in .jsonl or .tsv, or in one of these and .gz"),
        ("a.gz", b"a,b\n", "a.gz: expected a name that ends in .jsonl or .tsv, or in one of these and .gz"),
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
    assert refusal(tmp_path / "c.json") == "c.json cannot be read: No such file or directory"
    (tmp_path / "b.tsv").mkdir()
    assert refusal(tmp_path / "b.tsv") == "b.tsv cannot be read: Is a directory"


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", jsonl(PAIRS))
    assert len(open_data(path, batch_size=20)) == 20
    assert refusal(path, 21) == (
        "a.jsonl, line 20: the file ends here, with 20 samples that have no text in common: a batch of 21 needs as "
        "many: choose a smaller batch size, or add data"
    )
    path = put(tmp_path, "b.jsonl", jsonl([["the same", f"{n}"] for n in range(20)]))
    assert refusal(path).startswith("b.jsonl, line 20: the file ends here, with 1 samples that have no text in common")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[", "data_config.json is not JSON: "),
        ("{}", 'data_config.json: expected a list of {"name", "lines", "weight"}, found {}'),
        ("[]", 'data_config.json: expected a list of {"name", "lines", "weight"}, found []'),
        ('[{"name": "a.tsv"}]', "data_config.json, entry 1: expected name, lines and weight, found"),
        (
            '[{"name": "a.tsv", "lines": 2, "weight": 0}]',
            "data_config.json, entry 1: weight: expected a number above 0",
        ),
        ('[{"name": "a.tsv", "lines": 2, "weight": NaN}]', "data_config.json, entry 1: weight: expected a number"),
        ('[{"name": "a.tsv", "lines": "2", "weight": 1}]', "data_config.json, entry 1: lines: expected a number of at"),
        ('[{"name": "../a.tsv", "lines": 2, "weight": 1}]', "data_config.json, entry 1: name: expected a file beside"),
        ('[{"name": "/a.tsv", "lines": 2, "weight": 1}]', "data_config.json, entry 1: name: expected a file beside"),
        ('[{"name": "a.tsv", "lines": 3, "weight": 1}]', "a.tsv, line 2: the file ends here, where "),
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


def test_a_batch_size_that_is_none_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", b"a\tb\nc\td\n")
    with pytest.raises(InputValueError, match="batch_size: expected an int of at least 1, found 0"):
        open_data(path, batch_size=0)
    with pytest.raises(InputTypeError, match="batch_size: expected an int, found str"):
        open_data(path, batch_size="2")  # type: ignore[arg-type]

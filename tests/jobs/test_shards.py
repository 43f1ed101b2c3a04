"""Shards: several processes compute the parts of one output, and their merged parts have the bytes of one run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minilm_np import DataError, InputValueError, SaveError, SentenceEncoder
from minilm_np.jobs import merge_shards
from minilm_np.jobs.store import PartStore
from tests.jobs.conftest import Embed
from tests.support import jobs
from tests.support.jobs import MANY, encoded, same_bits, vectors_of, write_input


@pytest.fixture(autouse=True)
def parts_of_16_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.small_parts(monkeypatch, 16)


@pytest.mark.parametrize(("kind", "output"), [("txt", "npy"), ("csv.zst", "jsonl"), ("parquet", "parquet")])
def test_merged_shards_have_the_bytes_of_one_run(kind: str, output: str, embed: Embed, tmp_path: Path) -> None:
    path, whole, merged = write_input(tmp_path, kind), tmp_path / f"whole.{output}", tmp_path / f"merged.{output}"
    made = embed(path, whole)
    of_shards = [embed(path, merged, shard=(number, 3)) for number in (2, 3, 1)]
    assert sum(report.rows for report in of_shards) == made.rows == len(MANY)
    assert merge_shards(merged, report=tmp_path / "report.json").rows == made.rows
    assert merged.read_bytes() == whole.read_bytes()
    assert json.loads((tmp_path / "report.json").read_text())["tokens"] == made.tokens
    assert not (tmp_path / f"merged.{output}.parts").exists()


def test_shards_of_several_machines(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for number in (1, 2):
        machine = tmp_path / str(number)
        machine.mkdir()
        path = write_input(machine, "jsonl")
        os.utime(path, (number, number))  # a copy has another time
        embed(path, machine / "out.npy", shard=(number, 2))
        folders.append(machine / "out.npy.parts")
    merge_shards(tmp_path / "out.npy", folders)
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, MANY))
    assert folders[0].exists()
    with pytest.raises(SaveError, match="exists"):
        merge_shards(tmp_path / "out.npy", folders)
    with pytest.raises(DataError, match=r"6 of 13 parts are missing \(1, 3, 5, 7, 9, 11; part n belongs to"):
        merge_shards(tmp_path / "out.npy", folders[:1], overwrite=True)
    with pytest.raises(DataError, match="the last part is missing"):
        merge_shards(tmp_path / "out.npy", folders[1:], overwrite=True)
    with pytest.raises(InputValueError, match=r"expected the format of the parts, \.npy, found \.jsonl"):
        merge_shards(tmp_path / "out.jsonl", folders)
    with pytest.raises(DataError, match="expected a folder with the parts of a job, found none"):
        merge_shards(tmp_path / "other.npy")
    with pytest.raises(DataError, match=r"mistyped: expected .*, found no folder of this name: correct the name"):
        merge_shards(tmp_path / "other.npy", [tmp_path / "mistyped"])
    with pytest.raises(DataError, match=r"1: expected .*, found no job.json in it: name a folder that a shard wrote"):
        merge_shards(tmp_path / "other.npy", [tmp_path / "1"])
    embed(path, tmp_path / "other.npy", shard=(1, 2), dtype="int8")
    with pytest.raises(DataError, match="found another model or options"):
        merge_shards(tmp_path / "out.npy", [folders[0], tmp_path / "other.npy.parts"], overwrite=True)


def test_parts_of_an_input_that_changed_during_the_run_are_not_merged(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output, write = write_input(tmp_path, "txt"), tmp_path / "out.npy", PartStore.write

    def changing(self: PartStore, index: int, *rest: Any, **counts: Any) -> None:
        write(self, index, *rest, **counts)
        if index == 4:
            path.write_bytes(jobs.txt(MANY[:96] + ["other"] * 104))

    monkeypatch.setattr(PartStore, "write", changing)
    with pytest.raises(DataError, match=r"in.txt: expected the same input, .* It changed during the run"):
        embed(path, output, shard=(1, 1))
    with pytest.raises(DataError, match="the last part is missing"):
        merge_shards(output)
    assert len(PartStore(tmp_path / "out.npy.parts").manifests()) == 5


def test_a_folder_of_another_version(embed: Embed, tmp_path: Path) -> None:
    path, output = write_input(tmp_path, "txt"), tmp_path / "out.npy"
    (tmp_path / "out.npy.parts").mkdir()
    for found in ("[]", '{"format": 2}'):
        (tmp_path / "out.npy.parts" / "job.json").write_text(found)
        for call in (lambda: embed(path, output), lambda: merge_shards(output)):
            with pytest.raises(DataError, match=r"job\.json: expected format 1, found another one: remove .*parts"):
                call()
    assert embed(path, output, overwrite=True).rows == len(MANY)


def test_a_merge_that_was_killed_before_it_removed_the_parts_is_repeated(embed: Embed, tmp_path: Path) -> None:
    path, output = write_input(tmp_path, "txt"), tmp_path / "out.npy"
    embed(path, output, shard=(1, 1))
    output.touch()
    assert merge_shards(output).rows == len(MANY)
    assert vectors_of(output).shape == (len(MANY), 8)


def test_a_shard_that_has_no_part(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(jobs.txt(["one"]))
    assert [embed(tmp_path / "in.txt", tmp_path / "out.npy", shard=(number, 2)).rows for number in (2, 1)] == [0, 1]
    assert merge_shards(tmp_path / "out.npy").rows == 1

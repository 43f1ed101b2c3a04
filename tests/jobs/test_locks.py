"""Processes with the same folder of parts: one of them works, the others are refused."""

import fcntl
import shutil
from pathlib import Path

import pytest

from minilm_np import SaveError, SentenceEncoder
from minilm_np._files import locked
from minilm_np.jobs import merge_shards
from tests.jobs.conftest import Embed
from tests.support.jobs import MANY, encoded, same_bits, vectors_of, write_input


def test_two_processes_with_the_same_output(embed: Embed, tmp_path: Path) -> None:
    path, output, parts = write_input(tmp_path, "txt"), tmp_path / "out.npy", tmp_path / "out.npy.parts"
    parts.mkdir()
    (parts / "run-1-of-1.lock").touch()
    with locked(parts / "run-1-of-1.lock", wait=False):
        for overwrite in (False, True):
            with pytest.raises(SaveError, match="another process is computing these parts"):
                embed(path, output, overwrite=overwrite)
    embed(path, output)


def test_processes_with_other_numbers_of_shards(embed: Embed, tmp_path: Path) -> None:
    path, output, parts = write_input(tmp_path, "txt"), tmp_path / "out.npy", tmp_path / "out.npy.parts"
    parts.mkdir()
    for name, shard in (("run-2-of-3.lock", None), ("run-1-of-1.lock", (1, 2))):
        (parts / name).touch()
        with locked(parts / name, wait=False), pytest.raises(SaveError, match="another process is computing these"):
            embed(path, output, shard=shard)
        (parts / name).unlink()
    (parts / "run-1-of-2.lock").touch()
    with locked(parts / "run-1-of-2.lock", wait=False):
        embed(path, output, shard=(2, 2))
        with pytest.raises(SaveError, match="another process is computing these parts"):
            merge_shards(output)


def test_a_folder_that_another_process_removes_before_it_is_locked(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output, parts = write_input(tmp_path, "txt"), tmp_path / "out.npy", tmp_path / "out.npy.parts"
    flock, removed = fcntl.flock, list[bool]()

    def late(descriptor: int, operation: int) -> None:
        if len(removed) < 2:  # the second time, a third process has begun the job again
            shutil.rmtree(parts)
            if removed:
                parts.mkdir()
                (parts / "run-1-of-1.lock").touch()
            removed.append(True)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    embed(path, output)
    assert len(removed) == 2
    assert same_bits(vectors_of(output), encoded(encoder, MANY))

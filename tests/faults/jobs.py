"""`minilm-np embed`, killed or without space, and continued: the bytes of a run that nothing disturbed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock

from minilm_np.jobs import cutting
from tests.faults import Outcome, disks, experiment, kills, writers
from tests.faults.writers import Writer, WrongError

OUTPUTS = ("out.npy", "out.jsonl", "out.parquet")


@contextmanager
def job(name: str) -> Iterator[Writer]:
    """`minilm-np embed` in seven parts. The parts of a killed process belong to the next one."""
    parts = f"{name}.parts"
    with writers.saved_model() as model, TemporaryDirectory() as scratch, mock.patch.object(cutting, "PART_ROWS", 32):
        texts = Path(scratch, "texts.txt")
        texts.write_text("\n".join(writers.LINES) + "\n")
        options = (str(texts), "--model", str(model), "--backend", "numpy", "--on-truncation", "ignore")

        def write(path: Path) -> None:
            begun = (path.with_name(parts) / "job.json").exists()
            again = ["--overwrite"] if path.exists() and not begun else []
            writers.command("embed", *options, "--output", str(path), *again)
            if path.with_name(parts).exists():
                raise WrongError(f"{parts} was left")

        with (
            mock.patch.dict(os.environ, {"TOKENIZERS_PARALLELISM": "false"}),  # its threads would be in forks' way
            writers.a_file(name, write) as writer,
        ):
            yield replace(writer, owned=writer.owned | {parts})


@experiment("kill -9: embed and continue", count=100, quick=6)
def kill_embed(count: int, random: Random) -> Outcome:
    """Kill `embed` at random moments: the file is the old or the new one; continued, it has the same bytes."""
    outcome = Outcome()
    for name, times in _divided(count):
        with job(name) as writer:
            outcome.add(kills.kill_tries(writer, times, random))
    return outcome


@experiment("full disk: embed and continue", count=60, quick=6)
def full_embed(count: int, random: Random) -> Outcome:
    """Fill the disk under `embed`: one line with the error; continued with space, it has the same bytes."""
    outcome = Outcome()
    for name, times in _divided(count):
        with job(name) as writer:
            outcome.add(disks.full_disk_tries(writer, times, random))
    return outcome


def _divided(count: int) -> Iterator[tuple[str, int]]:
    """The outputs, each with its part of the tries."""
    for index, name in enumerate(OUTPUTS):
        if times := (count + index) // len(OUTPUTS):
            yield name, times

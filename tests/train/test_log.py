"""Test the log of a run."""

import os
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder
from minilm_np.errors import DataError, SaveError
from minilm_np.train.log import open_log, read_log, write_entry
from minilm_np.train.loop import Habits
from tests.support.disks import fill
from tests.support.training_runs import log_of, run


def test_a_line_that_was_cut_off_is_skipped(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=5))
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    run(encoder, pairs, tmp_path / "run", resume=True)
    assert [entry["step"] for entry in log_of(tmp_path / "run")] == list(range(1, 13))


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2, "loss": "low"}',
        '{"step": 2, "loss": NaN}',
        f'{{"step": 2, "loss": 1{"0" * 400}}}',
        '{"step": -1, "loss": 1.0}',
        '{"step": true, "loss": 1.0}',
        '{"step": 2}',
        '{"step": 2, "evaluation": [1.0]}',
        '{"step": 2, "evaluation": {"a": "b"}}',
        "[]",
        "[" * 984 + "]" * 984,
        '{"step": 2, "lo',
    ],
    ids=lambda line: line[:40],
)
def test_a_broken_line_is_an_error_that_names_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    first, last = '{"step": 1, "loss": 2.5}', '{"step": 3, "evaluation": {"a": NaN}}'
    path.write_text(f"{first}\n{last}\n")
    assert [entry["step"] for entry in read_log(path)] == [1, 3]
    path.write_text(f"{first}\n{line}\n{last}\n")
    with pytest.raises(DataError, match=r"log\.jsonl, line 2: expected .*: remove the line$"):
        open_log(path, 9)
    assert path.read_text() == f"{first}\n{line}\n{last}\n"


def test_a_log_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(DataError, match=r"log\.jsonl cannot be read: expected a regular file"):
        open_log(tmp_path / "log.jsonl", 0)


def test_an_entry_that_does_not_fit_leaves_no_part_of_it(small_disk: Path) -> None:
    path = small_disk / "log.jsonl"
    _, log = open_log(path, 0)
    with log:
        write_entry(log, {"step": 1, "loss": 1.0})
        fill(small_disk)
        with pytest.raises(SaveError, match=r"log\.jsonl: the log cannot be written: No space left on device"):
            write_entry(log, {"step": 2, "loss": 1.0, "source": "x" * 10_000})
        assert path.read_text() == '{"step": 1, "loss": 1.0}\n'

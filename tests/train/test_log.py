"""Test the log of a run."""

from pathlib import Path

from minilm_np import SentenceEncoder
from minilm_np.train.loop import Habits
from tests.support.training_runs import log_of, run


def test_a_line_that_was_cut_off_is_skipped(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=5))
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    run(encoder, pairs, tmp_path / "run", resume=True)
    assert [entry["step"] for entry in log_of(tmp_path / "run")] == list(range(1, 13))

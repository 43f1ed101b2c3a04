"""Test Ctrl-C during training: the first one ends the step and writes a checkpoint, the second one stops at once."""

import os
import signal
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder
from minilm_np.train import loop
from minilm_np.train.checkpoints import list_checkpoints
from minilm_np.train.engine import TrainingEngine
from tests.support.training_runs import run, same_bits


@pytest.mark.parametrize("method", ["TrainingEngine.forward", "AdamW.step", "TrainingEngine.refresh"])
def test_ctrl_c_in_the_middle_of_a_step_ends_the_step(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    run(encoder, pairs, tmp_path / "whole")
    owner, name = getattr(loop, method.split(".")[0]), method.split(".")[1]
    original, calls = getattr(owner, name), []

    def interrupted(self: object, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "cut")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(list_checkpoints(tmp_path / "cut" / "checkpoints")) == 1
    run(encoder, pairs, tmp_path / "cut", resume=True)
    assert same_bits(tmp_path / "whole" / "model", tmp_path / "cut" / "model")


def test_a_second_ctrl_c_stops_at_once_without_a_checkpoint(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: object, *arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(TrainingEngine, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "checkpoints").exists()
    run(encoder, pairs, tmp_path / "run")  # the folder counts as empty

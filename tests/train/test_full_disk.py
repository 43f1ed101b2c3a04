"""Test that a full disk costs no step of a run: whatever cannot be written, the steps so far are in a checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder
from minilm_np.errors import SaveError
from minilm_np.train import checkpoints
from minilm_np.train.checkpoints import list_checkpoints
from minilm_np.train.loop import Current, Habits
from tests.support.disks import FILLING, fill
from tests.support.training_runs import RECIPE, log_of, run, same_bits


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SLACK", 64 << 10)  # what this small model needs


def evaluation(action: Callable[[], object]) -> dict[str, Callable[[Current], float]]:
    """An evaluation that does something to the disk."""

    def evaluate(current: Current) -> float:
        action()
        return 0.5

    return {"figure": evaluate}


@pytest.mark.parametrize(
    ("habits", "what"),
    [
        (Habits(evaluate_every=5), "best: the model cannot be saved"),
        (Habits(evaluate_every=5, save_every=5), "step-000005: the checkpoint cannot be written"),
    ],
    ids=["the best model", "a checkpoint"],
)
def test_a_disk_that_becomes_full_during_a_run_loses_no_step(
    habits: Habits, what: str, encoder: SentenceEncoder, pairs: Path, small_disk: Path, tmp_path: Path
) -> None:
    run(encoder, pairs, tmp_path / "whole")
    output = small_disk / "run"
    leave = 250_000 if habits.save_every else 0  # room for `best`, but not for a checkpoint, too
    with pytest.raises(SaveError, match=what) as caught:
        run(encoder, pairs, output, habits=habits, evaluations=evaluation(lambda: fill(small_disk, leave)))
    (saved,) = list_checkpoints(output / "checkpoints")
    assert saved.name == "step-000005"
    assert str(caught.value).endswith(
        f"No space left on device; the last checkpoint is {saved}, with all 5 steps: solve the problem, and resume the "
        "run"
    )
    assert [entry["step"] for entry in log_of(output) if "loss" in entry] == [1, 2, 3, 4, 5]
    (small_disk / FILLING).unlink()
    run(encoder, pairs, output, resume=True)
    assert same_bits(output / "model", tmp_path / "whole" / "model")
    assert sorted(path.name for path in small_disk.rglob(".*")) == []


def test_the_final_model_has_room_even_if_the_disk_is_full(
    encoder: SentenceEncoder, pairs: Path, small_disk: Path, tmp_path: Path
) -> None:
    run(encoder, pairs, tmp_path / "whole")
    filled = evaluation(lambda: fill(small_disk, 0) if not (small_disk / FILLING).exists() else None)
    output = small_disk / "run"
    with pytest.raises(SaveError, match="best: the model cannot be saved"):
        run(encoder, pairs, output, habits=Habits(evaluate_every=12), evaluations=filled)
    (saved,) = list_checkpoints(output / "checkpoints")
    assert saved.name == "step-000012"
    (small_disk / FILLING).unlink()
    assert run(encoder, pairs, output, resume=True).step == 12
    assert same_bits(output / "model", tmp_path / "whole" / "model")


def test_a_final_model_that_cannot_be_written_loses_no_step(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(encoder, pairs, tmp_path / "whole")
    save = checkpoints.save_weights

    def fails(folder: Path, *rest: object) -> None:
        if folder.name == "model" and folder.parent.name == "cut":
            raise SaveError(f"{folder}: the model cannot be saved: Quota exceeded")
        save(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "save_weights", fails)
    with pytest.raises(SaveError, match=r"cut/model: the model cannot be saved: Quota exceeded; .*, with all 12 steps"):
        run(encoder, pairs, tmp_path / "cut")
    monkeypatch.undo()
    run(encoder, pairs, tmp_path / "cut", resume=True)
    assert same_bits(tmp_path / "cut" / "model", tmp_path / "whole" / "model")


def test_a_run_without_room_for_a_checkpoint_is_refused_before_its_first_step(
    encoder: SentenceEncoder, pairs: Path, small_disk: Path
) -> None:
    fill(small_disk, leave=100_000)
    with pytest.raises(SaveError, match=r"run: expected room for one checkpoint, .* MB, found less \(No space"):
        run(encoder, pairs, small_disk / "run")
    (small_disk / FILLING).unlink()
    assert run(encoder, pairs, small_disk / "run").step == RECIPE.steps  # the same folder: nothing is in its way
    shutil.rmtree(small_disk / "run")


def test_a_system_that_cannot_reserve_room_trains_all_the_same(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.posix_fallocate")
    assert run(encoder, pairs, tmp_path / "run").step == RECIPE.steps

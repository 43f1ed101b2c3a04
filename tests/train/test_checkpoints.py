"""Test checkpoints: a resumed run gives the bits of an uninterrupted one, and what cannot be resumed is refused."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minilm_np import SentenceEncoder
from minilm_np.errors import CheckpointError, InputValueError
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import bert_tokenizer
from minilm_np.train.checkpoints import list_checkpoints
from minilm_np.train.loop import Current, Evaluation, Habits
from tests.support.training_runs import CONFIG, RECIPE, log_of, run, same_bits


def interrupted_at(step: int) -> dict[str, Evaluation]:
    """An evaluation at every step that raises KeyboardInterrupt at this one, as Ctrl-C does."""
    calls = []

    def evaluation(current: Current) -> float:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return 0.0

    return {"figure": evaluation}


@pytest.mark.parametrize("step", [1, 5, 11])
def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, step: int
) -> None:
    run(encoder, pairs, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "cut", habits=Habits(evaluate_every=1), evaluations=interrupted_at(step))
    assert [path.name for path in list_checkpoints(tmp_path / "cut" / "checkpoints")] == [f"step-{step:06d}"]
    assert not (tmp_path / "cut" / "model").exists()
    run(encoder, pairs, tmp_path / "cut", resume=True)
    assert same_bits(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
    losses = [[entry["loss"] for entry in log_of(tmp_path / name) if "loss" in entry] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_resumed_from_an_earlier_checkpoint_after_a_crash(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path
) -> None:
    run(encoder, pairs, tmp_path / "whole", habits=Habits(save_every=5))
    shutil.rmtree(tmp_path / "whole" / "model")  # as after a crash at step 12
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "whole", kept)
    shutil.rmtree(kept / "checkpoints" / "step-000010")
    run(encoder, pairs, tmp_path / "whole", resume=True)
    run(encoder, pairs, kept, resume=True)
    assert same_bits(tmp_path / "whole" / "model", kept / "model")
    assert [entry["step"] for entry in log_of(kept)] == list(range(1, 13))


@pytest.mark.parametrize("killed_at", [10, 12])
def test_the_remains_of_a_killed_run_are_removed(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, killed_at: int
) -> None:
    """Also if it was killed after its last checkpoint, so that the resumed run writes none."""
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=2, keep_last=6))
    checkpoints = tmp_path / "run" / "checkpoints"
    for number in range(killed_at + 2, 13, 2):
        shutil.rmtree(checkpoints / f"step-{number:06d}")
    shutil.copytree(checkpoints / "step-000002" / "model", checkpoints / ".step-0123abcd" / "model")
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=6, keep_last=2), resume=True)
    assert sorted(os.listdir(checkpoints)) == ["step-000010", "step-000012"]


def test_only_the_last_checkpoints_are_kept(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=3, keep_last=2))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in list_checkpoints(checkpoints)] == ["step-000009", "step-000012"]
    assert len({path.stat().st_mode for path in (checkpoints / "step-000012").glob("*.*")}) == 1


# ---- error messages --------------------------------------------------------------------------------------------------


def test_a_run_without_checkpoints_cannot_be_resumed(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputValueError, match="expected a checkpoint to resume from, found none: start a new run"):
        run(encoder, pairs, tmp_path / "run", resume=True)


def test_resuming_with_other_options_or_data_is_refused(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=4))
    with pytest.raises(InputValueError, match=r"rate: expected 0.001, as when the run was started, found 0.002"):
        run(encoder, pairs, tmp_path / "run", dataclasses.replace(RECIPE, rate=0.002), resume=True)
    other_texts = SentenceEncoder.random(dataclasses.replace(CONFIG, max_seq_length=16), seed=1, backend="numpy")
    with pytest.raises(InputValueError, match=r"max_seq_length: expected 32, as when the run was started, found 16"):
        run(other_texts, pairs, tmp_path / "run", resume=True)
    wider = SentenceEncoder.random(dataclasses.replace(CONFIG, hidden_size=64), seed=1, backend="numpy")
    with pytest.raises(InputValueError, match=r"hidden_size: expected 32, .*, found 64: resume with the same options"):
        run(wider, pairs, tmp_path / "run", resume=True)
    ids = [*CHARACTER_VOCABULARY[:-2], *CHARACTER_VOCABULARY[:-3:-1]]
    swapped = SentenceEncoder.from_weights(CONFIG, TextTokenizer(bert_tokenizer(ids), CONFIG), encoder.weights)
    with pytest.raises(InputValueError, match=r"tokenizer: expected '[0-9a-f]{64}', as when the run was started, fo"):
        run(swapped, pairs, tmp_path / "run", resume=True)
    other = tmp_path / "other.jsonl"
    other.write_text(pairs.read_text().replace("copy", "clone"))
    with pytest.raises(InputValueError, match="belongs to another run"):
        run(encoder, other, tmp_path / "run", resume=True)


BROKEN_RUNS: list[tuple[str, object, str]] = [
    ("step", -1, "step: expected an integer of at least 0, found -1"),
    ("step", float("inf"), "step: expected an integer of at least 0, found Infinity"),
    ("step", True, "step: expected an integer of at least 0, found true"),
    ("step", 6, "step: expected that of the folder's name, found 6"),
    ("evaluated", -1, "evaluated: expected an integer of at least 0, found -1"),
    ("since_best", 1.5, "since_best: expected an integer of at least 0, found 1.5"),
    ("best", float("inf"), "best: expected a finite number or null, found Infinity"),
    ("best", "high", 'best: expected a finite number or null, found "high"'),
    ("best", 10**400, "best: expected a finite number or null, found 1000"),
    ("options", [], r"options: expected an object, found \[\]"),
    ("data", None, "data: expected an object, found null"),
]


@pytest.fixture(scope="module")
def finished(encoder: SentenceEncoder, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a checkpoint after its last step, 12."""
    output = tmp_path_factory.mktemp("run") / "run"
    run(encoder, pairs, output, habits=Habits(save_every=6))
    return output


@pytest.fixture
def broken(finished: Path, tmp_path: Path) -> Path:
    """A copy of its last checkpoint, in a folder that can be resumed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run" / "checkpoints" / "step-000012"


def refuse(encoder: SentenceEncoder, pairs: Path, checkpoint: Path, message: str) -> None:
    with pytest.raises(
        CheckpointError, match=f"step-000012: {message}.*: remove this folder, to resume from an earlier one$"
    ):
        run(encoder, pairs, checkpoint.parents[1], resume=True)


def test_a_broken_checkpoint_is_refused(encoder: SentenceEncoder, pairs: Path, broken: Path) -> None:
    for name, damage in [
        ("optimizer.safetensors", b"half"),
        *(("run.json", text) for text in (b"{", b"[]", b'{"step": 1}', b"[" * 984 + b"]" * 984)),
    ]:
        good = (broken / name).read_bytes()
        (broken / name).write_bytes(damage)
        refuse(encoder, pairs, broken, name)
        (broken / name).write_bytes(good)
    (broken / "model" / "model.safetensors").write_bytes(b"half")
    refuse(encoder, pairs, broken, ".*model.safetensors: expected at least the 8 bytes")
    for name in ("optimizer.safetensors",):
        (broken / name).unlink()
        refuse(encoder, pairs, broken, f"{name} cannot be read: No such file or directory")
        os.mkfifo(broken / name)
        refuse(encoder, pairs, broken, f"{name} cannot be read: expected a regular file, found a FIFO")


@pytest.mark.parametrize(("key", "value", "message"), BROKEN_RUNS, ids=lambda value: str(value)[:20])
def test_a_value_of_run_json_out_of_range_is_refused(
    encoder: SentenceEncoder, pairs: Path, broken: Path, key: str, value: object, message: str
) -> None:
    content = json.loads((broken / "run.json").read_text())
    (broken / "run.json").write_text(json.dumps(content | {key: value}))
    refuse(encoder, pairs, broken, f"run.json: {message}")


@pytest.mark.parametrize(
    "damage",
    [{"step": -1}, {"step": float("inf")}, {"step": "3"}, {"walks": 3}, {"walks": []}, {"cycle": [[-1, 0]]},
     {"cycle": [[0, -1]]}, {"cycle": [[0, 0.5]]}, {"walks": [{"passes": float("inf"), "position": 0, "late": []}]},
     {"walks": [{"passes": -1, "position": 0, "late": []}]}, {"walks": [{"passes": 0, "position": 0, "late": [0.5]}]}],
    ids=str,
)  # fmt: skip
def test_a_broken_position_in_the_data_is_refused(
    encoder: SentenceEncoder, pairs: Path, broken: Path, damage: dict[str, object]
) -> None:
    content = json.loads((broken / "run.json").read_text())
    (broken / "run.json").write_text(json.dumps(content | {"data": content["data"] | damage}))
    with pytest.raises(InputValueError, match="step-000012: state of the sampler: expected a result of state"):
        run(encoder, pairs, broken.parents[1], resume=True)


@pytest.mark.parametrize(("array", "value"), [("m.", np.nan), ("m.", np.inf), ("v.", np.nan), ("v.", -1.0)])
def test_nan_in_the_state_of_the_optimizer_is_refused(
    encoder: SentenceEncoder, pairs: Path, broken: Path, array: str, value: float
) -> None:
    path = broken / "optimizer.safetensors"
    state = load_file(path)
    name = f"{array}encoder.layer.0.output.dense.bias"
    state[name][3] = value
    save_file(state, path)
    values = "finite values" if array == "m." else "values of at least 0"
    refuse(encoder, pairs, broken, f"optimizer.safetensors: state of AdamW: {name}: expected {values}, found others")

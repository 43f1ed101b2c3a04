"""Test a training run: the loss falls, evaluations and early stopping, what a run writes, and error messages."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError, SaveError
from minilm_np.train.data import open_data
from minilm_np.train.loop import Current, Evaluation, Habits, train
from tests.conftest import load_sentence_transformer
from tests.support.training_runs import CONFIG, RECIPE, log_of, run, same_bits


def constant(figure: float) -> dict[str, Evaluation]:
    """An evaluation that always returns the same figure."""
    return {"figure": lambda current: figure}


def test_the_loss_falls_and_the_model_loads_in_both_libraries(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, steps=60, rate=3e-3)
    result = run(encoder, pairs, tmp_path / "run", recipe)
    log = log_of(tmp_path / "run")
    assert [entry["step"] for entry in log] == list(range(1, 61))
    assert np.mean([entry["loss"] for entry in log[-10:]]) < 0.6 * np.mean([entry["loss"] for entry in log[:10]])
    assert log[0]["rate"] == 0.0  # where the warm-up begins
    assert result.step == 60 and not result.stopped_early

    texts = ["copy 3", "", "3 sort copy"]
    ours = SentenceEncoder(tmp_path / "run" / "model").encode(texts)
    theirs = load_sentence_transformer(tmp_path / "run" / "model").encode(texts)
    assert np.abs(ours - theirs).max() <= 5e-7
    assert np.abs(ours - encoder.encode(texts)).max() > 0.01
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path / "run" / "model").config.hidden_size == 32


def test_the_encoder_itself_is_not_changed(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    before = {name: array.copy() for name, array in encoder.weights.items()}
    run(encoder, pairs, tmp_path / "run")
    assert all(np.array_equal(before[name], array) for name, array in encoder.weights.items())


def test_the_number_of_threads_changes_no_bit(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    run(encoder, pairs, tmp_path / "one", threads=1)
    run(encoder, pairs, tmp_path / "three", threads=3)
    assert same_bits(tmp_path / "one" / "model", tmp_path / "three" / "model")


# ---- evaluations -----------------------------------------------------------------------------------------------------


def test_best_is_the_model_with_the_best_evaluation(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    figures = iter([0.1, 0.9, 0.3, 0.2])
    seen = []

    def evaluation(current: Current) -> float:
        seen.append(current.encode(["copy 3"]))
        return next(figures)

    output = tmp_path / "run"
    result = run(encoder, pairs, output, habits=Habits(evaluate_every=3), evaluations={"figure": evaluation})
    assert np.allclose(SentenceEncoder(output / "best").encode(["copy 3"]), seen[1], atol=1e-6)
    assert np.allclose(SentenceEncoder(output / "model").encode(["copy 3"]), seen[3], atol=1e-6)
    assert result.evaluations == {"figure": 0.2}
    assert [entry["evaluation"]["figure"] for entry in log_of(output) if "evaluation" in entry] == [0.1, 0.9, 0.3, 0.2]


def test_nan_is_never_the_best_figure(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    figures = iter([float("nan"), 0.5, 0.9, 0.7])
    habits = Habits(evaluate_every=3, save_every=3)
    run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": lambda current: next(figures)})
    assert same_bits(tmp_path / "run" / "best", tmp_path / "run" / "checkpoints" / "step-000009" / "model")


def test_evaluations_use_the_default_prompt_and_size(pairs: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(CONFIG, seed=1, backend="numpy")
    encoder.prompts, encoder.default_prompt_name, encoder.truncate_dim = {"query": "find "}, "query", 8
    seen = []

    def evaluation(current: Current) -> float:
        seen.append(current.encode(["copy 3", "sort"]))
        return 0.0

    run(encoder, pairs, tmp_path / "run", evaluations={"figure": evaluation})
    saved = SentenceEncoder(tmp_path / "run" / "model").encode(["copy 3", "sort"], normalize_embeddings=True)
    assert saved.shape == (2, 8) and np.allclose(saved, seen[0], atol=1e-6)


@pytest.mark.parametrize("failure", [ValueError("no such file"), KeyboardInterrupt()])
def test_an_evaluation_that_fails_loses_no_step_and_is_repeated(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path, failure: BaseException
) -> None:
    def fails(current: Current) -> float:
        raise failure

    run(encoder, pairs, tmp_path / "whole", evaluations=constant(0.5))
    with pytest.raises(type(failure)):
        run(encoder, pairs, tmp_path / "cut", evaluations={"figure": fails})  # at the end
    assert not (tmp_path / "cut" / "best").exists()
    resumed = run(encoder, pairs, tmp_path / "cut", resume=True, evaluations=constant(0.5))
    assert resumed.step == 12 and resumed.evaluations == {"figure": 0.5}
    assert resumed.loss == pytest.approx(np.mean([entry["loss"] for entry in log_of(tmp_path / "cut")[:12]]))
    assert same_bits(tmp_path / "whole" / "model", tmp_path / "cut" / "best")


def test_a_run_stops_early_without_an_improvement(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    result = run(
        encoder, pairs, tmp_path / "run", habits=Habits(evaluate_every=2, patience=2), evaluations=constant(0.5)
    )
    assert result.stopped_early and result.step == 6
    assert (tmp_path / "run" / "model").is_dir()


def test_early_stopping_counts_an_interrupted_evaluation(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    habits = Habits(evaluate_every=2, patience=2)
    figures: Iterator[float | KeyboardInterrupt] = iter([0.5, KeyboardInterrupt(), 0.5, 0.5])

    def evaluation(current: Current) -> float:
        figure = next(figures)
        if isinstance(figure, KeyboardInterrupt):
            raise figure
        return figure

    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": evaluation})
    result = run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": evaluation}, resume=True)
    assert result.stopped_early and result.step == 6
    assert [entry["step"] for entry in log_of(tmp_path / "run") if "evaluation" in entry] == [2, 4, 6]


def test_a_run_draws_its_chart(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(encoder, pairs, tmp_path / "run", habits=Habits(evaluate_every=4), evaluations=constant(0.5))
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


# ---- error messages --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_refused(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        InputValueError, match=r"expected a new or empty folder, found notes\.txt in it: choose another"
    ):
        run(encoder, pairs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_diverges_names_the_step_and_the_last_checkpoint(
    encoder: SentenceEncoder, pairs: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, rate=1e38, max_norm=float("inf"), warmup_steps=4)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"step \d+, pairs.jsonl: .*step-000002"):
        run(encoder, pairs, tmp_path / "run", recipe, habits=Habits(save_every=1, keep_last=99))
    assert not (tmp_path / "run" / "model").exists()


def test_an_output_that_cannot_be_written_is_refused(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(SaveError, match=r"the folder cannot be used: (File exists|Not a directory)"):
            run(encoder, pairs, output)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": float("nan")}, "rate: expected a finite number of at least 0, found nan"),
        ({"scale": -1.0}, "scale: expected a finite number above 0, found -1.0"),
        ({"max_norm": 0.0}, "max_norm: expected a number above 0, found 0.0"),
        ({"steps": 0}, "steps: expected an int of at least 1, found 0"),
        ({"seed": 2**32}, r"seed: expected an int from 0 to 4294967295, found 4294967296"),
        ({"dropout": 1.0}, "expected a probability from 0 to below 1, found 1.0"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": "1e-3"}, "rate: expected a float, found str"),
        ({"steps": 2.5}, "steps: expected an int, found float"),
        ({"warmup_steps": True}, "warmup_steps: expected an int or None, found bool"),
        ({"betas": (0.9, None)}, "betas: expected a float, found NoneType"),
    ],
)
def test_options_of_another_type_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        dataclasses.replace(RECIPE, **change)


def test_options_may_be_numbers_of_numpy(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    """Their checkpoint can be written and resumed from."""
    numbers: dict[str, Any] = {"steps": np.int64(4), "warmup_steps": np.int32(1), "seed": np.uint8(5)}
    numbers |= {"rate": np.float32(1e-3), "max_norm": np.int64(1)}
    recipe = dataclasses.replace(RECIPE, **numbers)
    run(encoder, pairs, tmp_path / "run", recipe, habits=Habits(save_every=2))
    assert run(encoder, pairs, tmp_path / "run", recipe, resume=True).step == 4


def test_a_batch_of_one_pair_is_refused(encoder: SentenceEncoder, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputValueError, match="a batch of one pair has no negatives: use a batch size of at least 2"):
        train(encoder, open_data(pairs, batch_size=1), tmp_path / "run", RECIPE)


def test_habits_out_of_range_are_refused() -> None:
    with pytest.raises(InputValueError, match="keep_last: expected at least 1, found 0"):
        Habits(keep_last=0)
    with pytest.raises(InputValueError, match="patience: expected at least 0, found -1"):
        Habits(patience=-1)

"""A training run: resumed it gives the bits of an uninterrupted one, what it writes is whole, bad input is named."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.errors import CheckpointError, InputValueError, NonFiniteError, SaveError
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.text.tokenizer import TextTokenizer, bert_tokenizer
from minilm_np.train import loop
from minilm_np.train.checkpoints import list_checkpoints
from minilm_np.train.data import open_data
from minilm_np.train.engine import TrainingEngine
from minilm_np.train.loop import Habits, TrainingOptions, train
from minilm_np.train.scratch import SPECIAL_TOKENS, learn_vocabulary

CONFIG = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, max_position_embeddings=32, max_seq_length=32,
)  # fmt: skip
RECIPE = TrainingOptions(steps=12, rate=1e-3, warmup_steps=2, seed=5)
WORDS = "list copy move remove open close find sort count print start stop user file folder disk".split()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts that share a word with their partner."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    lines = [[f"{word} {n}", f"{n} {generator.choice(WORDS)} {word}"] for word in WORDS for n in range(6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(CONFIG, seed=1, backend="numpy")


def run(encoder, pairs, output, recipe=RECIPE, habits=None, resume=False, **others):
    data = open_data(pairs, batch_size=16, seed=recipe.seed)
    return train(encoder, data, output, recipe, habits, resume=resume, **others)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return SentenceEncoder(folder, backend="numpy").weights


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def same_bits(first: Path, second: Path) -> bool:
    a, b = weights_of(first), weights_of(second)
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def interrupted_at(step: int):
    """An evaluation, at every step, that is interrupted at this one, as by Ctrl-C."""
    calls = []

    def evaluation(current):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return 0.0

    return {"figure": evaluation}


def test_the_loss_falls_and_the_model_loads_in_both_libraries(encoder, pairs, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=60, rate=3e-3)
    result = run(encoder, pairs, tmp_path / "run", recipe)
    log = log_of(tmp_path / "run")
    assert [entry["step"] for entry in log] == list(range(1, 61))
    assert np.mean([entry["loss"] for entry in log[-10:]]) < 0.6 * np.mean([entry["loss"] for entry in log[:10]])
    assert log[0]["rate"] == 0.0  # the warm-up begins there
    assert result.step == 60 and not result.stopped_early
    from tests.conftest import load_sentence_transformer

    texts = ["copy 3", "", "3 sort copy"]
    ours = SentenceEncoder(tmp_path / "run" / "model").encode(texts)
    theirs = load_sentence_transformer(tmp_path / "run" / "model").encode(texts)
    assert np.abs(ours - theirs).max() <= 5e-7
    assert np.abs(ours - encoder.encode(texts)).max() > 0.01
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path / "run" / "model").config.hidden_size == 32


def test_the_encoder_itself_is_not_changed(encoder, pairs, tmp_path):
    before = {name: array.copy() for name, array in encoder.weights.items()}
    run(encoder, pairs, tmp_path / "run")
    assert all(np.array_equal(before[name], array) for name, array in encoder.weights.items())


@pytest.mark.parametrize("step", [1, 5, 11])
def test_resumed_gives_the_bits_of_an_uninterrupted_run(encoder, pairs, tmp_path, step):
    run(encoder, pairs, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "cut", habits=Habits(evaluate_every=1), evaluations=interrupted_at(step))
    assert [path.name for path in list_checkpoints(tmp_path / "cut" / "checkpoints")] == [f"step-{step:06d}"]
    assert not (tmp_path / "cut" / "model").exists()
    run(encoder, pairs, tmp_path / "cut", resume=True)
    assert same_bits(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
    losses = [[entry["loss"] for entry in log_of(tmp_path / name) if "loss" in entry] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("method", ["TrainingEngine.forward", "AdamW.step", "TrainingEngine.refresh"])
def test_interrupted_in_the_middle_of_a_step(encoder, pairs, tmp_path, monkeypatch, method):
    run(encoder, pairs, tmp_path / "whole")
    owner, name = getattr(loop, method.split(".")[0]), method.split(".")[1]
    original, calls = getattr(owner, name), []

    def interrupted(self, *arguments):
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


def test_interrupted_twice_stops_at_once_and_without_a_checkpoint(encoder, pairs, tmp_path, monkeypatch):
    def interrupted(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(TrainingEngine, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "checkpoints").exists()
    run(encoder, pairs, tmp_path / "run")  # the folder is as good as new


@pytest.mark.parametrize("failure", [ValueError("no such file"), KeyboardInterrupt()])
def test_an_evaluation_that_fails_costs_no_step_and_is_made_again(encoder, pairs, tmp_path, failure):
    def fails(current):
        raise failure

    run(encoder, pairs, tmp_path / "whole", evaluations={"figure": lambda current: 0.5})
    with pytest.raises(type(failure)):
        run(encoder, pairs, tmp_path / "cut", evaluations={"figure": fails})  # at the end
    assert not (tmp_path / "cut" / "best").exists()
    resumed = run(encoder, pairs, tmp_path / "cut", resume=True, evaluations={"figure": lambda current: 0.5})
    assert resumed.step == 12 and resumed.evaluations == {"figure": 0.5}
    assert resumed.loss == pytest.approx(np.mean([entry["loss"] for entry in log_of(tmp_path / "cut")[:12]]))
    assert same_bits(tmp_path / "whole" / "model", tmp_path / "cut" / "best")


def test_early_stopping_counts_an_interrupted_evaluation(encoder, pairs, tmp_path):
    habits, figures = Habits(evaluate_every=2, patience=2), iter([0.5, KeyboardInterrupt(), 0.5, 0.5])

    def evaluation(current):
        figure = next(figures)
        if isinstance(figure, KeyboardInterrupt):
            raise figure
        return figure

    with pytest.raises(KeyboardInterrupt):
        run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": evaluation})
    result = run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": evaluation}, resume=True)
    assert result.stopped_early and result.step == 6
    assert [entry["step"] for entry in log_of(tmp_path / "run") if "evaluation" in entry] == [2, 4, 6]


def test_a_figure_that_is_not_a_number_is_no_best(encoder, pairs, tmp_path):
    figures = iter([float("nan"), 0.5, 0.9, 0.7])
    habits = Habits(evaluate_every=3, save_every=3)
    run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": lambda current: next(figures)})
    assert same_bits(tmp_path / "run" / "best", tmp_path / "run" / "checkpoints" / "step-000009" / "model")


def test_a_line_of_the_log_that_was_cut_off_is_left_out(encoder, pairs, tmp_path):
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=5))
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    run(encoder, pairs, tmp_path / "run", resume=True)
    assert [entry["step"] for entry in log_of(tmp_path / "run")] == list(range(1, 13))


def test_figures_on_the_way_are_of_the_model_as_it_is_used(pairs, tmp_path):
    encoder = SentenceEncoder.random(CONFIG, seed=1, backend="numpy")
    encoder.prompts, encoder.default_prompt_name, encoder.truncate_dim = {"query": "find "}, "query", 8
    seen = []

    def evaluation(current):
        seen.append(current.encode(["copy 3", "sort"]))
        return 0.0

    run(encoder, pairs, tmp_path / "run", evaluations={"figure": evaluation})
    saved = SentenceEncoder(tmp_path / "run" / "model").encode(["copy 3", "sort"], normalize_embeddings=True)
    assert saved.shape == (2, 8) and np.allclose(saved, seen[0], atol=1e-6)


def test_what_a_killed_run_left_is_removed(encoder, pairs, tmp_path):
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=5))
    left = tmp_path / "run" / "checkpoints" / ".step-000012.killed"
    left.mkdir()
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=6), resume=True)
    assert not left.exists()


def test_resumed_from_an_earlier_checkpoint_after_a_crash(encoder, pairs, tmp_path):
    run(encoder, pairs, tmp_path / "whole", habits=Habits(save_every=5))
    shutil.rmtree(tmp_path / "whole" / "model")  # as if it had died at step 12
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "whole", kept)
    shutil.rmtree(kept / "checkpoints" / "step-000010")
    run(encoder, pairs, tmp_path / "whole", resume=True)
    run(encoder, pairs, kept, resume=True)
    assert same_bits(tmp_path / "whole" / "model", kept / "model")
    assert [entry["step"] for entry in log_of(kept)] == list(range(1, 13))


def test_threads_and_batches_of_many_chunks_change_no_bit_between_resumes(encoder, pairs, tmp_path):
    run(encoder, pairs, tmp_path / "one", threads=1)
    run(encoder, pairs, tmp_path / "three", threads=3)
    assert same_bits(tmp_path / "one" / "model", tmp_path / "three" / "model")


def test_checkpoints_keep_the_last_and_best_keeps_the_best(encoder, pairs, tmp_path):
    figures = iter([0.1, 0.9, 0.3, 0.2])
    seen = []

    def evaluation(current):
        seen.append(current.encode(["copy 3"]))
        return next(figures)

    habits = Habits(evaluate_every=3, save_every=3, keep_last=2)
    result = run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": evaluation})
    output = tmp_path / "run"
    assert [path.name for path in list_checkpoints(output / "checkpoints")] == ["step-000009", "step-000012"]
    assert np.allclose(SentenceEncoder(output / "best").encode(["copy 3"]), seen[1], atol=1e-6)
    assert np.allclose(SentenceEncoder(output / "model").encode(["copy 3"]), seen[3], atol=1e-6)
    assert result.evaluations == {"figure": 0.2}
    assert len({path.stat().st_mode for path in (output / "checkpoints" / "step-000012").glob("*.*")}) == 1
    assert [entry["evaluation"]["figure"] for entry in log_of(output) if "evaluation" in entry] == [0.1, 0.9, 0.3, 0.2]


def test_a_run_ends_early_when_it_gets_no_better(encoder, pairs, tmp_path):
    habits = Habits(evaluate_every=2, patience=2)
    result = run(encoder, pairs, tmp_path / "run", habits=habits, evaluations={"figure": lambda current: 0.5})
    assert result.stopped_early and result.step == 6
    assert (tmp_path / "run" / "model").is_dir()


def test_the_loss_is_drawn(encoder, pairs, tmp_path):
    pytest.importorskip("matplotlib")
    run(encoder, pairs, tmp_path / "run", habits=Habits(evaluate_every=4), evaluations={"figure": lambda current: 0.5})
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_left_alone(encoder, pairs, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputValueError, match="expected a new or empty folder, or to resume the run that is in it"):
        run(encoder, pairs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_to_resume(encoder, pairs, tmp_path):
    with pytest.raises(InputValueError, match="expected a checkpoint to resume from, found none: begin anew"):
        run(encoder, pairs, tmp_path / "run", resume=True)


def test_resuming_with_other_options_or_data_is_refused(encoder, pairs, tmp_path):
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=4))
    with pytest.raises(InputValueError, match=r"begun with rate 0.001, not 0.002"):
        run(encoder, pairs, tmp_path / "run", dataclasses.replace(RECIPE, rate=0.002), resume=True)
    other_texts = SentenceEncoder.random(dataclasses.replace(CONFIG, max_seq_length=16), seed=1, backend="numpy")
    with pytest.raises(InputValueError, match=r"begun with max_seq_length 32, not 16"):
        run(other_texts, pairs, tmp_path / "run", resume=True)
    wider = SentenceEncoder.random(dataclasses.replace(CONFIG, hidden_size=64), seed=1, backend="numpy")
    with pytest.raises(InputValueError, match=r"begun with hidden_size 32, not 64: resume it as it was begun"):
        run(wider, pairs, tmp_path / "run", resume=True)
    ids = [*CHARACTER_VOCABULARY[:-2], *CHARACTER_VOCABULARY[:-3:-1]]
    swapped = SentenceEncoder.from_weights(CONFIG, TextTokenizer(bert_tokenizer(ids), CONFIG), encoder.weights)
    with pytest.raises(InputValueError, match=r"begun with tokenizer '[0-9a-f]{64}', not "):
        run(swapped, pairs, tmp_path / "run", resume=True)
    other = tmp_path / "other.jsonl"
    other.write_text(pairs.read_text().replace("copy", "clone"))
    with pytest.raises(InputValueError, match="of another run"):
        run(encoder, other, tmp_path / "run", resume=True)


def test_a_broken_checkpoint_is_named(encoder, pairs, tmp_path):
    run(encoder, pairs, tmp_path / "run", habits=Habits(save_every=6))
    broken = tmp_path / "run" / "checkpoints" / "step-000012"
    damages = [("optimizer.safetensors", b"half"), *(("run.json", text) for text in (b"{", b"[]", b'{"step": 1}'))]
    for name, damage in damages:
        good = (broken / name).read_bytes()
        (broken / name).write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"step-000012: .*remove its folder"):
            run(encoder, pairs, tmp_path / "run", resume=True)
        (broken / name).write_bytes(good)


def test_a_run_that_diverges_says_where_and_keeps_its_checkpoint(encoder, pairs, tmp_path):
    recipe = dataclasses.replace(RECIPE, rate=1e38, max_norm=float("inf"), warmup_steps=4)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"step \d+, pairs.jsonl: .*step-000002"):
        run(encoder, pairs, tmp_path / "run", recipe, habits=Habits(save_every=1, keep_last=99))
    assert not (tmp_path / "run" / "model").exists()


def test_an_output_that_cannot_be_written(encoder, pairs, tmp_path):
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
        ({"seed": 2**32}, "seed: expected an int from 0 to 4294967295, found 4294967296"),
        ({"dropout": 1.0}, "expected a share from 0 to below 1, found 1.0"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(change, message):
    with pytest.raises(InputValueError, match=message):
        dataclasses.replace(RECIPE, **change)


def test_a_batch_of_one_pair(encoder, pairs, tmp_path):
    with pytest.raises(InputValueError, match="a batch of one pair teaches nothing"):
        train(encoder, open_data(pairs, batch_size=1), tmp_path / "run", RECIPE)


def test_bad_habits():
    with pytest.raises(InputValueError, match="keep_last: expected at least 1, found 0"):
        Habits(keep_last=0)
    with pytest.raises(InputValueError, match="patience: expected at least 0, found -1"):
        Habits(patience=-1)


# ---- from nothing ----------------------------------------------------------------------------------------------------


def test_the_same_texts_give_the_same_vocabulary(pairs):
    texts = [text for line in pairs.read_text().splitlines() for text in json.loads(line)]
    texts += ["[SEP] copy [MASK]"] * 3
    found = {tuple(learn_vocabulary(texts, 60)) for _ in range(20)}
    assert len(found) == 1
    vocabulary = found.pop()
    assert vocabulary[:5] == SPECIAL_TOKENS and len(vocabulary) == len(set(vocabulary)) == 60
    assert {"c", "o", "##o"} < set(vocabulary) and "##c" not in vocabulary  # no word goes on with a c
    assert all(piece == piece.lower() for piece in vocabulary[5:])


# ---- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "minilm_np", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_command_trains_from_nothing_and_resumes(pairs, tmp_path):
    arguments = ["train", pairs, "--output", "run", "--init", "random", "--vocabulary", 200, "--hidden", 32]
    arguments += ["--heads", 2, "--layers", 1, "--feed-forward", 32, "--steps", 6, "--batch-size", 8, "--rate", 1e-3]
    arguments += ["--warmup-steps", 1, "--save-every", 3, "--quiet", "--evaluate-retrieval", pairs]
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run/model: 6 steps, loss ") and "MRR@10: " in done.stdout
    again = command(*arguments, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "minilm-np: error: run: expected a new or empty folder, or to resume the run that is in it\n"
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000006")
    before = weights_of(tmp_path / "run" / "model")
    resumed = command(*arguments, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert all(np.array_equal(before[name], array) for name, array in weights_of(tmp_path / "run" / "model").items())


def test_the_command_says_how_to_go_on_after_ctrl_c(pairs, tmp_path):
    arguments = ["train", pairs, "--output", "run", "--init", "random", "--vocabulary", 200, "--hidden", 32]
    arguments += ["--heads", 2, "--layers", 1, "--feed-forward", 32, "--steps", 10_000, "--batch-size", 8]
    line = [sys.executable, "-m", "minilm_np", *map(str, arguments)]
    child = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and log.stat().st_size) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert len(saved) == 1
    assert f"minilm-np: run/checkpoints/{saved[0].name} is saved: go on with the same command and --resume\n" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", 64], "--hidden: the size of a model that is made from nothing: expected --init random too"),
        (["--init", "random", "--model", "saved"], "--model: a model that is made from nothing"),
        (["--patience", 2], "--patience: expected --evaluate-retrieval FILE or --evaluate-sts FILE too"),
        (["--evaluate-sts", "missing.tsv"], "missing.tsv cannot be read: No such file"),
    ],
)
def test_the_command_refuses_what_it_would_ignore_or_not_find(pairs, tmp_path, options, message):
    done = command("train", pairs, "--output", "run", *options, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_command_names_the_line_of_bad_data_and_writes_nothing(tmp_path):
    (tmp_path / "bad.tsv").write_text("a\tb\nonly one\n")
    done = command("train", "bad.tsv", "--output", "run", cwd=tmp_path)
    assert done.returncode == 1 and "bad.tsv, line 2: one text only" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()

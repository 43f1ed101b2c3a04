"""Test `minilm-np train`: training from scratch, resuming, Ctrl-C, and errors in one line."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minilm_np.train.checkpoints import list_checkpoints
from tests.support.training_runs import weights_of, write_pairs

SMALL = ["--init", "random", "--vocabulary", 200, "--hidden", 32, "--heads", 2, "--layers", 1, "--feed-forward", 32]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    write_pairs(tmp_path / "pairs.jsonl")
    return "pairs.jsonl"


def line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "minilm_np", "train", *map(str, arguments)]


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line(*arguments), capture_output=True, text=True, cwd=cwd, check=False)


def test_the_command_trains_from_scratch_and_resumes(pairs: str, tmp_path: Path) -> None:
    arguments = [pairs, "--output", "run", *SMALL, "--steps", 6, "--batch-size", 8, "--rate", 1e-3]
    arguments += ["--warmup-steps", 1, "--save-every", 3, "--quiet", "--evaluate-retrieval", pairs]
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run/model: 6 steps, loss ")
    assert "(mean of the last 6)\nMRR@10: " in done.stdout
    again = command(*arguments, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == (
        "minilm-np: error: run: expected a new or empty folder, found best in it: choose another folder, or "
        "resume the run in this one\n"
    )
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000006")
    before = weights_of(tmp_path / "run" / "model")
    resumed = command(*arguments, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert all(np.array_equal(before[name], array) for name, array in weights_of(tmp_path / "run" / "model").items())


def test_after_ctrl_c_the_command_says_how_to_continue(pairs: str, tmp_path: Path) -> None:
    arguments = [pairs, "--output", "run", *SMALL, "--steps", 10_000, "--batch-size", 8]
    child = subprocess.Popen(line(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and log.stat().st_size) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert len(saved) == 1
    assert (
        f"minilm-np: the checkpoint run/checkpoints/{saved[0].name} is written: to continue, run the same command with "
        "--resume\n" in said
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", 64], "--hidden: it sets the size of a new model: add --init random"),
        (["--init", "random", "--model", "saved"], "--model: not allowed with --init random"),
        (["--patience", 2], "--patience: no evaluation is given: add --evaluate-retrieval FILE or --evaluate-sts FILE"),
        (["--evaluate-sts", "missing.tsv"], "missing.tsv cannot be read: No such file"),
    ],
)
@pytest.mark.usefixtures("model_folder")
def test_options_without_effect_and_missing_files_are_refused(
    pairs: str, tmp_path: Path, options: list[object], message: str
) -> None:
    done = command(pairs, "--output", "run", *options, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_error_in_the_data_names_the_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("a\tb\nonly one\n")
    done = command("bad.tsv", "--output", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "bad.tsv, line 2: expected a pair or a triplet of texts, separated by tabs, found only one" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
def test_the_example_of_the_help_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = command("--help", cwd=tmp_path).stdout
    (example,) = re.findall("^example: (.*)$", shown, re.M)
    making, _, training = example.rpartition(" && ")
    subprocess.run(["sh", "-c", making], check=True, cwd=tmp_path)
    program, name, *arguments = shlex.split(training)
    assert (program, name) == ("minilm-np", "train")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained/model: 10 steps, loss 0.")


def test_a_run_that_stops_early_says_so(pairs: str, tmp_path: Path) -> None:
    arguments = [pairs, "--output", "run", *SMALL, "--steps", 9, "--batch-size", 8, "--rate", 0, "--quiet"]
    done = command(*arguments, "--evaluate-retrieval", pairs, "--evaluate-every", 1, "--patience", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run/model: 3 steps, loss ")
    assert done.stderr == (
        "minilm-np: stopped early, after step 3 of 9: no improvement in 2 evaluations; the best model is run/best\n"
    )


def test_offline_uses_no_network(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    done = command(pairs, "--output", "run", "--model", "someone/model", "--offline", cwd=tmp_path)
    assert done.returncode == 1
    assert "someone/model is not on this machine" in done.stderr and "failed" not in done.stderr

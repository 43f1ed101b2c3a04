"""Training runs that are killed, or run out of disk, and are resumed: the same bits as an undisturbed run."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from minilm_np import SentenceEncoder
from minilm_np.train.checkpoints import list_checkpoints
from minilm_np.train.loop import Current, Habits
from tests.faults import Outcome, disks, experiment, kills, writers
from tests.faults.writers import WrongError
from tests.support import training_runs


class Run:
    """A training run, and what it leaves when nothing disturbs it."""

    def __init__(self, scratch: Path) -> None:
        self.encoder = SentenceEncoder.random(writers.CONFIG, 3, backend="numpy")
        self.pairs = scratch / "pairs.jsonl"
        training_runs.write_pairs(self.pairs)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would be in the way of forks
        self.train(scratch / "first")  # imports all that forked processes need, and loads the kernels
        undisturbed, log, began = scratch / "undisturbed", scratch / "operations", time.monotonic()
        kills.ended_by(kills.start(partial(self.train, undisturbed), log=log))
        self.seconds, self.operations = time.monotonic() - began, int(log.read_text())
        self.size = sum(path.stat().st_size for path in undisturbed.rglob("*"))
        self.expected = _described(undisturbed)

    def train(self, output: Path) -> None:
        """Begin the run, or continue it."""
        resume = bool(list_checkpoints(output / "checkpoints"))
        if not resume and output.exists():  # nothing was saved: a user begins again
            for path in output.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        training_runs.run(
            self.encoder, self.pairs, output, habits=Habits(save_every=3, evaluate_every=4), resume=resume,
            evaluations={"figure": _figure}, threads=1,
        )  # fmt: skip

    def check(self, output: Path) -> None:
        """Raise WrongError unless a finished run has left what the undisturbed run left."""
        found = _described(output)
        for name, expected in self.expected.items():
            if found[name] != expected:
                raise WrongError(f"{name}: expected {expected}, found {found[name]}")


@contextmanager
def a_run() -> Iterator[tuple[Run, Path]]:
    """A run, and a folder for other runs."""
    with TemporaryDirectory() as scratch:
        yield Run(Path(scratch)), Path(scratch)


def _figure(current: Current) -> float:
    """An evaluation."""
    return float(current.encode(["list 1", "1 move list"]).sum())


def _described(output: Path) -> dict[str, object]:
    """What a finished run has left: the bits of its models, and its log without times."""
    log = [{name: entry[name] for name in entry if name != "seconds"} for entry in training_runs.log_of(output)]
    model, best = (SentenceEncoder(output / name, backend="numpy").weights_digest for name in ("model", "best"))
    names, checkpoints = (sorted(os.listdir(folder)) for folder in (output, output / "checkpoints"))
    return {"log": log, "model": model, "best": best, "names": names, "checkpoints": checkpoints}


@experiment("kill -9: train and resume", count=15, quick=1)
def kill_train(count: int, random: Random) -> Outcome:
    """Kill a training run again and again, and resume it: the model has the bits of a run that was not disturbed."""
    outcome = Outcome()
    with a_run() as (run, scratch):
        for number in range(count):
            output, moments, ended = scratch / str(number), list[str](), -signal.SIGKILL
            try:
                while ended:
                    # more and more time, because a run that is always killed before its first checkpoint has no end
                    kill = kills.Kill(0, random.uniform(0, 0.6 * run.seconds) * (1 + len(moments) / 10))
                    if random.random() < 0.5 and len(moments) < 10:
                        kill = kills.draw_kill(random, run.seconds, run.operations)
                    moments.append(str(kill))
                    ended = kills.ended_by(kills.start(partial(run.train, output), kill))
                    if ended not in (0, -signal.SIGKILL):
                        raise WrongError(f"exit code {ended}")
                    for checkpoint in list_checkpoints(output / "checkpoints"):
                        SentenceEncoder(checkpoint / "model", backend="numpy")
                run.check(output)
                outcome.hold("to the same bits")
            except Exception as error:
                outcome.fail(f"killed {'; '.join(moments)}: {type(error).__name__}: {error}")
    return outcome


@experiment("full disk: train and resume", count=60, quick=2)
def full_train(count: int, random: Random) -> Outcome:
    """Fill the disk under a training run: SaveError; resumed with space, it ends with the same bits."""
    outcome = Outcome()
    with a_run() as (run, scratch), disks.small_disk(16 << 20) as disk:
        for number in range(count):
            output = (disk or scratch) / str(number)
            free = random.randrange(0, run.size)
            ballast = disks.fill(disk, free) if disk else None
            how = disks.written(partial(run.train, output), None if disk else free // 10)
            if ballast:
                ballast.unlink()
            try:
                if how != "written" and not (how.startswith("refused: ") and disks.is_about_space(how)):
                    raise WrongError(how)
                run.train(output)
                run.check(output)
                outcome.hold(how.split(":")[0])
            except Exception as error:
                outcome.fail(f"{free} bytes free: {type(error).__name__}: {error}")
            shutil.rmtree(output, ignore_errors=True)
    return outcome

"""A training run: it takes an encoder and batches, and writes one folder.

    OUTPUT/model/        the trained model, written at the end of the run
    OUTPUT/best/         the model with the best evaluation so far
    OUTPUT/log.jsonl     one line per step, and one line per evaluation
    OUTPUT/loss.png      the loss by step
    OUTPUT/checkpoints/  to resume from, see `checkpoints.py`

A run that was interrupted and resumed gives the same weights, bit for bit, as an uninterrupted run.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from minilm_np import reference
from minilm_np._checks import check_int, check_optional_int
from minilm_np._progress import Report, progress
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError, SaveError
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.train import checkpoints, interrupts
from minilm_np.train.chart import draw_loss
from minilm_np.train.dropout import Dropout
from minilm_np.train.engine import TrainingEngine
from minilm_np.train.log import open_log, sync_log, write_entry
from minilm_np.train.loss import contrastive_loss
from minilm_np.train.optim import AdamW, clip_by_global_norm, schedule
from minilm_np.train.sampling import Batch, Sampler


@dataclass(frozen=True)
class TrainingOptions:
    """The options that the result depends on.

    The defaults are those of the published model, except for the number of steps and of warm-up steps (there 500).
    """

    steps: int = 1000
    rate: float = 2e-5  # the highest learning rate
    warmup_steps: int | None = None  # in which the rate rises from 0; None: a tenth of the steps
    schedule: str = "linear"  # after the warm-up; or "constant", "cosine"
    optimizer: str = "published"  # the form of AdamW; or "torch"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    decay: float = 0.0  # weight decay
    max_norm: float = 1.0  # gradients are clipped to this global norm
    dropout: float = 0.1
    attention_dropout: float = 0.1
    scale: float = 20.0  # the factor of the cosines in the loss
    seed: int = 0  # of dropout

    def __post_init__(self) -> None:
        """Check the options that no other constructor checks. Raises InputTypeError, InputValueError.

        Numbers of NumPy become Python's, because the log and the checkpoints are JSON.
        """
        Dropout(self.seed, 0, self.dropout, self.attention_dropout)
        numbers: dict[str, Any] = {"seed": int(self.seed), "steps": check_int("steps", self.steps, 1)}
        numbers["warmup_steps"] = check_optional_int("warmup_steps", self.warmup_steps, 0)
        for name in ("rate", "eps", "decay", "max_norm", "scale"):
            numbers[name] = _as_float(name, getattr(self, name))
        numbers["betas"] = tuple(_as_float("betas", beta) for beta in self.betas)
        for name, number in numbers.items():
            object.__setattr__(self, name, number)
        if not 0 <= self.rate < math.inf:
            raise InputValueError(f"rate: expected a finite number of at least 0, found {self.rate}")
        if not 0 < self.scale < math.inf:
            raise InputValueError(f"scale: expected a finite number above 0, found {self.scale}")
        if not self.max_norm > 0:
            raise InputValueError(f"max_norm: expected a number above 0, found {self.max_norm}")


@dataclass(frozen=True)
class Habits:
    """The options that the result does not depend on: when to evaluate, to save and to stop."""

    evaluate_every: int = 0  # steps between evaluations; 0: evaluate at the end only
    save_every: int = 0  # steps between checkpoints; 0: write one at an interrupt only
    keep_last: int = 2  # the number of checkpoints to keep
    patience: int = 0  # stop after this many evaluations without an improvement; 0: never
    progress: bool = False  # show progress on stderr

    def __post_init__(self) -> None:
        """Raise InputValueError for a number below its minimum."""
        for name, least in {"evaluate_every": 0, "save_every": 0, "keep_last": 1, "patience": 0}.items():
            if getattr(self, name) < least:
                raise InputValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")


def _as_float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"{name}: expected a float, found {type(value).__name__}")
    return float(value)


# A function of an object with `encode(texts) -> (n, D)`. It returns a figure that is larger for a better model.
Evaluation = Callable[["Current"], float]


@dataclass
class Result:
    """The outcome of a training run."""

    step: int  # the number of steps done
    loss: float  # the mean over the last 50 steps
    evaluations: dict[str, float]  # the figures of the last evaluation
    stopped_early: bool


class Current:
    """The model in its current state, for evaluations. It encodes with the default prompt and size of the encoder."""

    def __init__(self, encoder: SentenceEncoder, engine: TrainingEngine) -> None:
        self._encoder, self._engine = encoder, engine

    def encode(self, texts: list[str]) -> NDArray[np.float32]:  # n texts -> (n, D) or, if truncated, (n, d)
        """The vectors of texts, of unit length."""
        settings = self._encoder.settings
        prompt = settings.prefix()
        vectors = self._engine.forward(self._encoder.tokenizer([prompt + text for text in texts]).ids)
        return reference.normalize(vectors[:, : settings.truncate_dim])


def train(
    encoder: SentenceEncoder,
    data: Sampler,
    output: str | Path,
    options: TrainingOptions | None = None,
    habits: Habits | None = None,
    *,
    evaluations: Mapping[str, Evaluation] | None = None,
    threads: int | None = None,
    resume: bool = False,
) -> Result:
    """Train a copy of an encoder's weights on batches of data, and write the folder OUTPUT.

    encoder: the model to start from. It is not changed.
    data: the batches, from `open_data`.
    output: a new or empty folder; or, with `resume`, the folder of the run to continue.
    options, habits: the options that the result depends on, and those that it does not depend on; None: the defaults.
    evaluations: functions of the current model, by name. The first one decides which model is the best, and when to
        stop early.
    threads: as for `SentenceEncoder`.
    resume: continue from the last checkpoint in OUTPUT, with the same options and data.

    Ctrl-C stops the run after the current step. Then, after an evaluation that raises, and if a file cannot be written,
    a checkpoint is written, from which the run can be resumed. The room for it on the disk is reserved when the run
    starts, so that a full disk loses no step.

    Raises InputValueError (OUTPUT is not empty; there is no checkpoint to resume from; the options or data differ from
    those of the run), DataError, SaveError (a file cannot be written; the message says where the steps so far are),
    CheckpointError, NonFiniteError (the run has diverged; the message names the step), and any exception of an
    evaluation.
    """
    options, habits = options or TrainingOptions(), habits or Habits()
    return _Run(encoder, data, Path(output), options, habits, evaluations or {}, threads).go(resume)


class _Run:
    """The state of a run, and its steps."""

    def __init__(
        self, encoder: SentenceEncoder, data: Sampler, output: Path, options: TrainingOptions, habits: Habits,
        evaluations: Mapping[str, Evaluation], threads: int | None,
    ) -> None:  # fmt: skip
        self.encoder, self.data, self.output, self.options, self.habits = encoder, data, output, options, habits
        self.evaluations = evaluations
        warmup_steps = options.steps // 10 if options.warmup_steps is None else options.warmup_steps
        self.factor = schedule(options.schedule, warmup_steps, options.steps)
        self.weights = {name: np.array(array) for name, array in encoder.weights.items()}
        self.optimizer = AdamW(
            self.weights, options.optimizer, betas=options.betas, eps=options.eps, decay=options.decay
        )
        self.engine = TrainingEngine(encoder.config, self.weights, threads)
        self.step = 0
        self.best: float | None = None
        self.since_best = 0  # evaluations
        self.evaluated = self.saved = 0  # the steps of the last evaluation and of the last checkpoint
        self.checkpoints = output / "checkpoints"
        self.log_file = output / "log.jsonl"

    def go(self, resume: bool) -> Result:
        """Run all steps that are left, and write the model."""
        if resume:
            self._resume()
        else:
            self._claim_output()
        entries, log = open_log(self.log_file, self.step)
        with log, checkpoints.reserved_room(self.output, self.weights) as room:
            try:
                return self._go_on(entries, log, room)
            except SaveError as error:
                room.close()
                raise SaveError(f"{error}{self._rescued()}") from error

    def _go_on(self, entries: list[dict[str, Any]], log: FileIO, room: IO[bytes]) -> Result:
        """Run all steps that are left, and write the model, for which the reserved room is given up."""
        losses = deque((entry["loss"] for entry in entries if "loss" in entry), maxlen=50)
        figures: dict[str, float] = next((e["evaluation"] for e in reversed(entries) if "evaluation" in e), {})
        with self._progress() as report, interrupts.deferred() as interrupted:
            figures = self._maybe_evaluate(log) or figures  # if the run was interrupted in this evaluation
            while self.step < self.options.steps and not self._has_stalled():
                began = time.perf_counter()
                entry = self._one_step(next(self.data))
                losses.append(entry["loss"])
                write_entry(log, entry | {"seconds": round(time.perf_counter() - began, 3)})
                report(1, f"loss={np.mean(losses):.4f}, rate={entry['rate']:.1e}")
                figures = self._maybe_evaluate(log) or figures
                if interrupted() or (self.habits.save_every and self.step % self.habits.save_every == 0):
                    self._save()
                if interrupted():
                    raise KeyboardInterrupt
        sync_log(self.log_file)
        room.close()
        checkpoints.save_weights(self.output / "model", self.encoder, self.weights)
        draw_loss(self.log_file, self.output / "loss.png")
        loss = float(np.mean(losses)) if losses else math.nan  # no losses: the log was lost
        return Result(self.step, loss, figures, self._has_stalled())

    def _claim_output(self) -> None:
        """Create the folder, or check that it is empty. (The empty log of a run that failed at once does not count.)"""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            found = [path for path in self.output.iterdir() if path != self.log_file or path.stat().st_size]
        except OSError as error:
            raise SaveError(f"{self.output}: the folder cannot be used: {error.strerror or error}") from error
        if found:
            raise InputValueError(
                f"{self.output}: expected a new or empty folder, found {min(found).name} in it: choose another folder, "
                "or resume the run in this one"
            )

    def _one_step(self, batch: Batch) -> dict[str, Any]:
        """Update the weights with one batch. Returns the entry of the log."""
        options, config = self.options, self.encoder.config
        if len(batch.columns) == 2 and len(batch.columns[0]) == 1:
            raise InputValueError("a batch of one pair has no negatives: use a batch size of at least 2")
        ids = self.encoder.tokenizer([text for column in batch.columns for text in column]).ids
        dropout = Dropout(options.seed, self.step, options.dropout, options.attention_dropout)
        rate = options.rate * self.factor(self.step)
        try:
            vectors = self.engine.forward(ids, dropout).reshape(len(batch.columns), -1, config.hidden_size)
            loss, d_vectors = contrastive_loss(vectors, scale=options.scale, normalize=not config.normalize)
            gradients = self.engine.backward(ids, d_vectors.reshape(-1, config.hidden_size), dropout)
            norm = clip_by_global_norm(gradients, options.max_norm)
        except NonFiniteError as error:
            raise NonFiniteError(f"step {self.step + 1}, {batch.source}: {error}{self._last_checkpoint()}") from None
        self.optimizer.step(gradients, rate)
        self.engine.refresh()
        self.step += 1
        return {
            "step": self.step, "loss": loss, "rate": rate, "gradient_norm": norm, "source": batch.source,
            "tokens": sum(map(len, ids)),
        }  # fmt: skip

    def _maybe_evaluate(self, log: FileIO) -> dict[str, float]:
        """Evaluate, log and save the best model, if an evaluation is due. Returns the figures, or none."""
        every = self.habits.evaluate_every
        due = self.step == self.options.steps or (every and self.step % every == 0)
        if not self.evaluations or not due or self.step == self.evaluated:
            return {}
        try:
            current = Current(self.encoder, self.engine)
            figures = {name: float(evaluation(current)) for name, evaluation in self.evaluations.items()}
        except BaseException:  # also KeyboardInterrupt: the steps so far must not be lost
            self._save()
            raise
        decisive = next(iter(figures.values()))
        is_better = math.isfinite(decisive) and (self.best is None or decisive > self.best)
        if is_better:
            checkpoints.save_weights(self.output / "best", self.encoder, self.weights)
        self.best, self.since_best = (decisive, 0) if is_better else (self.best, self.since_best + 1)
        self.evaluated = self.step
        write_entry(log, {"step": self.step, "evaluation": figures})
        return figures

    def _has_stalled(self) -> bool:
        """Whether the last `patience` evaluations brought no improvement."""
        return 0 < self.habits.patience <= self.since_best

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint of the current step, unless it has one."""
        if self.step == self.saved:
            return
        state = {
            "step": self.step,
            "options": self._fixed(),
            "data": self.data.state(),
            "best": self.best,
            "since_best": self.since_best,
            "evaluated": self.evaluated,
        }
        sync_log(self.log_file)
        checkpoints.write(self.checkpoints, self.encoder, self.weights, self.optimizer.state(), state)
        checkpoints.keep_last(self.checkpoints, self.habits.keep_last)
        self.saved = self.step

    def _fixed(self) -> dict[str, Any]:
        """Everything but weights, data and step that the result depends on; it must be the same after a resume."""
        model = dataclasses.asdict(self.encoder.config)
        del model["transformer_path"]  # a path in the folder, not a property of the model
        tokenizer = hashlib.sha256(self.encoder.tokenizer.to_json().encode()).hexdigest()
        return dataclasses.asdict(self.options) | model | {"tokenizer": tokenizer}

    def _resume(self) -> None:
        """Restore the last checkpoint."""
        found = checkpoints.list_checkpoints(self.checkpoints)
        if not found:
            raise InputValueError(
                f"{self.checkpoints}: expected a checkpoint to resume from, found none: start a new run"
            )
        state = checkpoints.read_run(found[-1])
        for name, expected in json.loads(json.dumps(self._fixed())).items():  # JSON turns tuples into lists
            if (was := state["options"].get(name)) != expected:
                raise InputValueError(
                    f"{found[-1]}: {name}: expected {was!r}, as when the run was started, found {expected!r}: resume "
                    f"with the same options and model, or start a new run from the model {found[-1] / 'model'}"
                )
        try:
            self.data.restore(state["data"])
        except InputValueError as error:
            raise InputValueError(f"{found[-1]}: {error}") from None
        weights, optimizer = checkpoints.read_arrays(found[-1], self.encoder.config)
        try:
            self.optimizer.load_state(optimizer)
        except (InputTypeError, InputValueError) as error:
            raise checkpoints.broken(found[-1], f"optimizer.safetensors: {error}") from None
        for name, array in weights.items():
            self.weights[name][:] = array
        self.engine.refresh()
        self.step = self.saved = state["step"]
        self.evaluated = state["evaluated"]
        self.best, self.since_best = state["best"], state["since_best"]
        checkpoints.keep_last(self.checkpoints, self.habits.keep_last)  # a killed run may have left more

    def _rescued(self) -> str:
        """Write a checkpoint after a file could not be written. Returns the end of the error's message."""
        if not self.step:
            return ""
        try:
            self._save()
        except SaveError as error:
            return f"; nor can a checkpoint be written: {error}{self._last_checkpoint()}"
        return f"{self._last_checkpoint()}, with all {self.step} steps: solve the problem, and resume the run"

    def _last_checkpoint(self) -> str:
        found = checkpoints.list_checkpoints(self.checkpoints)
        return f"; the last checkpoint is {found[-1]}" if found else ""

    def _progress(self) -> AbstractContextManager[Report]:
        if not self.habits.progress:
            return nullcontext(lambda done, note="": None)
        return progress("train", "step", self.options.steps, initial=self.step)

"""A training run: batches in, a model's folder out, and on the way a log, evaluations and checkpoints.

    OUTPUT/model/        the trained model, when the run is over
    OUTPUT/best/         the model of the best evaluation so far
    OUTPUT/log.jsonl     a line a step, and a line an evaluation
    OUTPUT/loss.png      the loss by step
    OUTPUT/checkpoints/  to go on from, see `checkpoints.py`

A run that was interrupted and resumed gives the same weights, bit for bit, as one that was not.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from minilm_np import SentenceEncoder, reference
from minilm_np.errors import InputValueError, NonFiniteError, SaveError
from minilm_np.model_files.settings import resolve_prompt
from minilm_np.train import checkpoints, interrupts
from minilm_np.train.chart import draw_loss
from minilm_np.train.dropout import Dropout
from minilm_np.train.engine import TrainingEngine
from minilm_np.train.log import open_log, write_entry
from minilm_np.train.loss import contrastive_loss
from minilm_np.train.optim import AdamW, clip_by_global_norm, schedule
from minilm_np.train.sampling import Batch, Sampler


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults are the published run's, but for the number of steps and of warm-up (500)."""

    steps: int = 1000
    rate: float = 2e-5  # the learning rate at its highest
    warmup_steps: int | None = None  # in which the rate rises from 0; None: a tenth of the steps
    schedule: str = "linear"  # or "constant", "cosine"
    optimizer: str = "published"  # AdamW's form, or "torch"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    decay: float = 0.0
    max_norm: float = 1.0  # the gradient is clipped to this length
    dropout: float = 0.1
    attention_dropout: float = 0.1
    scale: float = 20.0  # what cosines are multiplied by in the loss
    seed: int = 0  # of dropout

    def __post_init__(self) -> None:
        """Raises InputTypeError, InputValueError; of the schedule and the optimiser their own functions do."""
        Dropout(self.seed, 0, self.dropout, self.attention_dropout)
        if not 0 <= self.rate < math.inf:
            raise InputValueError(f"rate: expected a finite number of at least 0, found {self.rate}")
        if not 0 < self.scale < math.inf:
            raise InputValueError(f"scale: expected a finite number above 0, found {self.scale}")
        if not self.max_norm > 0:
            raise InputValueError(f"max_norm: expected a number above 0, found {self.max_norm}")


@dataclass(frozen=True)
class Habits:
    """What is done on the way, and decides no bit of the result."""

    evaluate_every: int = 0  # steps; 0 for at the end only
    save_every: int = 0  # steps from one checkpoint to the next; 0 for none but at an interrupt
    keep_last: int = 2  # checkpoints
    patience: int = 0  # evaluations without a better one, after which the run ends early; 0 for never
    progress: bool = False  # a bar on stderr

    def __post_init__(self) -> None:
        """Raises InputValueError."""
        for name, least in {"evaluate_every": 0, "save_every": 0, "keep_last": 1, "patience": 0}.items():
            if getattr(self, name) < least:
                raise InputValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")


# What it is called with has `encode(texts) -> (n, D)`; the larger the figure, the better the model.
Evaluation = Callable[["Current"], float]


@dataclass
class Result:
    """How a run ended."""

    step: int
    loss: float  # the mean of the last steps, at most 50
    evaluations: dict[str, float]  # the last ones
    stopped_early: bool


class Current:
    """The model as it is now, for evaluations: with the prompt and the size that it has when it is used."""

    def __init__(self, encoder: SentenceEncoder, engine: TrainingEngine) -> None:
        self._encoder, self._engine = encoder, engine

    def encode(self, texts: list[str]) -> NDArray[np.float32]:  # -> (n, d), of unit length
        use = self._encoder.use
        prompt = resolve_prompt(use.prompts, use.default_prompt_name, None, None)
        vectors = self._engine.forward(self._encoder.tokenizer([prompt + text for text in texts]).ids)
        return reference.normalize(vectors[:, : use.truncate_dim])


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
    """Train a copy of the encoder's weights on batches of data, and write OUTPUT.

    encoder: the model to begin with; it is not changed. data: from `open_data`; its batch size is the run's.
    evaluations: by name; the first one decides which model is the best, and when to end early.
    threads: as for `SentenceEncoder`. resume: go on from the last checkpoint in OUTPUT, with the same options and data.

    Raises InputValueError (OUTPUT holds something; nothing to resume; options or data of another run), DataError,
    SaveError, CheckpointError, NonFiniteError (the run has diverged; says at which step), and whatever an evaluation
    raises. After that, or Ctrl-C, it can be resumed: a checkpoint is written at the end of the step.
    """
    options, habits = options or TrainingOptions(), habits or Habits()
    return _Run(encoder, data, Path(output), options, habits, evaluations or {}, threads).go(resume)


class _Run:
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
        self.evaluated = self.saved = 0  # the steps of the last evaluation and checkpoint
        self.checkpoints = output / "checkpoints"
        self.log_file = output / "log.jsonl"

    def go(self, resume: bool) -> Result:
        if resume:
            self._resume()
        else:
            self._claim_output()
        entries, log = open_log(self.log_file, self.step)
        losses = deque((entry["loss"] for entry in entries if "loss" in entry), maxlen=50)
        figures: dict[str, float] = next((e["evaluation"] for e in reversed(entries) if "evaluation" in e), {})
        with log, self._bar() as bar, interrupts.deferred() as interrupted:
            figures = self._maybe_evaluate(log) or figures  # of a run that was stopped in an evaluation
            while self.step < self.options.steps and not self._has_stalled():
                began = time.perf_counter()
                entry = self._one_step(next(self.data))
                losses.append(entry["loss"])
                write_entry(log, entry | {"seconds": round(time.perf_counter() - began, 3)})
                bar.set_postfix(loss=f"{np.mean(losses):.4f}", rate=f"{entry['rate']:.1e}", refresh=False)
                bar.update()
                figures = self._maybe_evaluate(log) or figures
                if interrupted() or (self.habits.save_every and self.step % self.habits.save_every == 0):
                    self._save()
                if interrupted():
                    raise KeyboardInterrupt
        checkpoints.save_weights(self.output / "model", self.encoder, self.weights)
        draw_loss(self.log_file, self.output / "loss.png")
        loss = float(np.mean(losses)) if losses else math.nan  # of a log that was lost
        return Result(self.step, loss, figures, self._has_stalled())

    def _claim_output(self) -> None:
        """Make the folder; one with nothing but the empty log of a run that failed at once is as good as new."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            found = [path for path in self.output.iterdir() if path != self.log_file or path.stat().st_size]
        except OSError as error:
            raise SaveError(f"{self.output}: the folder cannot be used: {error.strerror or error}") from error
        if found:
            raise InputValueError(f"{self.output}: expected a new or empty folder, or to resume the run that is in it")

    def _one_step(self, batch: Batch) -> dict[str, Any]:
        options, config = self.options, self.encoder.config
        if len(batch.columns) == 2 and len(batch.columns[0]) == 1:
            raise InputValueError("a batch of one pair teaches nothing: the other pairs are what it is told from")
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

    def _maybe_evaluate(self, log: IO[str]) -> dict[str, float]:
        every = self.habits.evaluate_every
        due = self.step == self.options.steps or (every and self.step % every == 0)
        if not self.evaluations or not due or self.step == self.evaluated:
            return {}
        try:
            current = Current(self.encoder, self.engine)
            figures = {name: float(evaluation(current)) for name, evaluation in self.evaluations.items()}
            decisive = next(iter(figures.values()))
            is_better = not math.isnan(decisive) and (self.best is None or decisive > self.best)
            if is_better:
                checkpoints.save_weights(self.output / "best", self.encoder, self.weights)
        except BaseException:  # a file that is not there, Ctrl-C: the steps are not lost
            self._save()
            raise
        self.best, self.since_best = (decisive, 0) if is_better else (self.best, self.since_best + 1)
        self.evaluated = self.step
        write_entry(log, {"step": self.step, "evaluation": figures})
        return figures

    def _has_stalled(self) -> bool:
        return 0 < self.habits.patience <= self.since_best

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        if self.step == self.saved:
            return
        state = {
            "step": self.step,
            "options": self._decisive(),
            "data": self.data.state(),
            "best": self.best,
            "since_best": self.since_best,
            "evaluated": self.evaluated,
        }
        checkpoints.write(self.checkpoints, self.encoder, self.weights, self.optimizer.state(), state)
        checkpoints.keep_last(self.checkpoints, self.habits.keep_last)
        self.saved = self.step

    def _decisive(self) -> dict[str, Any]:
        """What decides the result besides weights, data and step, and must be the same when a run goes on."""
        model = dataclasses.asdict(self.encoder.config)
        del model["transformer_path"]  # of a folder, not of a model
        tokenizer = hashlib.sha256(self.encoder.tokenizer.to_json().encode()).hexdigest()
        return dataclasses.asdict(self.options) | model | {"tokenizer": tokenizer}

    def _resume(self) -> None:
        found = checkpoints.list_checkpoints(self.checkpoints)
        if not found:
            raise InputValueError(f"{self.checkpoints}: expected a checkpoint to resume from, found none: begin anew")
        state = checkpoints.read_run(found[-1])
        for name, expected in json.loads(json.dumps(self._decisive())).items():  # tuples as JSON has them
            if (was := state["options"].get(name)) != expected:
                raise InputValueError(
                    f"{found[-1]}: the run was begun with {name} {was!r}, not {expected!r}: resume it as it was begun, "
                    f"or begin a new one with {found[-1] / 'model'}"
                )
        self.data.restore(state["data"])
        weights, optimizer = checkpoints.read_arrays(found[-1], self.encoder.config)
        self.optimizer.load_state(optimizer)
        for name, array in weights.items():
            self.weights[name][:] = array
        self.engine.refresh()
        self.step = self.saved = state["step"]
        self.evaluated = state["evaluated"]
        self.best, self.since_best = state["best"], state["since_best"]

    def _last_checkpoint(self) -> str:
        found = checkpoints.list_checkpoints(self.checkpoints)
        return f"; the last checkpoint is {found[-1]}" if found else ""

    def _bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self.options.steps, initial=self.step, desc="train", unit="step", disable=not self.habits.progress
        )

"""The chart of a training run, drawn from its log: the loss and the evaluations by step."""

import warnings
from pathlib import Path

import numpy as np

from minilm_np._files import atomic_file
from minilm_np.errors import SaveError
from minilm_np.train.log import read_log


def draw_loss(log: Path, picture: Path) -> None:
    """Draw the loss of each step, its running mean, and the evaluations. Without matplotlib, only warn.

    log: the log.jsonl of a run. picture: the .png to write. Raises DataError (a broken log), SaveError.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warnings.warn(
            f"{picture.name} is not drawn, because matplotlib is not installed: pip install matplotlib",
            stacklevel=2,
        )
        return
    entries = read_log(log)
    steps = [entry["step"] for entry in entries if "loss" in entry]
    losses = np.array([entry["loss"] for entry in entries if "loss" in entry])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.plot(steps, losses, color="0.75", linewidth=0.8, label="loss")
    width = max(1, len(losses) // 20)
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - width)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    smooth = (sums[ends] - sums[starts]) / (ends - starts)
    axes.plot(steps, smooth, color="C0", label=f"mean of {width} steps")
    evaluations = [entry for entry in entries if "evaluation" in entry]
    if evaluations:
        right = axes.twinx()
        right.set_ylabel("evaluation")
        names = dict.fromkeys(name for entry in evaluations for name in entry["evaluation"])
        for number, name in enumerate(names, 1):  # a resumed run may have other evaluations
            having = [entry for entry in evaluations if name in entry["evaluation"]]
            at, figures = zip(*((entry["step"], entry["evaluation"][name]) for entry in having), strict=True)
            right.plot(at, figures, "o-", color=f"C{number}", label=name)
    figure.legend(loc="outside upper right", ncols=4)
    try:
        with atomic_file(picture) as file:
            figure.savefig(file, format="png", dpi=120)
    except OSError as error:
        raise SaveError(f"{picture}: the chart cannot be written: {error.strerror or error}") from error

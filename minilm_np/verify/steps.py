"""The errors of each named step, ours and theirs, against the reference in float64."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minilm_np import reference
from minilm_np.engine.blas import one_blas_thread
from minilm_np.engine.protocol import Weights
from minilm_np.reference import Array, Nested, Record
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.verify.array_errors import Row, row, worst

# The other implementation parts from the model where its error is more than this many times our float32 error.
PARTING = 16.0

Run = Callable[[Nested, Record], Array]  # runs the reference on one text, with these weights


class Steps:
    """The worst errors of each intermediate so far, by name, in the model's order.

    problems: the list to which arrays that cannot be compared are added.
    """

    def __init__(self, weights: Weights, tokenizer: TextTokenizer, problems: list[str]) -> None:
        self._rows: dict[str, Row] = {}
        self._problems, self._tokenizer = problems, tokenizer
        self._single, self._double = (reference.nest(weights, dtype) for dtype in (np.float32, np.float64))

    @property
    def rows(self) -> list[Row]:
        """One row per intermediate."""
        return list(self._rows.values())

    @property
    def parts_at(self) -> str | None:
        """The first intermediate whose error is more than float32 rounding."""
        return next((one.name for one in self.rows if _parted(one)), None)

    @one_blas_thread()
    def compare(self, ids: Array, run: Run, theirs: dict[str, Array], label: str) -> Array:
        """Compare the intermediates of one text with these token ids, and return the result of `run` in float64."""
        ours: dict[str, Array] = {}

        def keep(name: str, x: Array) -> Array:
            if name in theirs:
                ours[name] = x
            return x

        def judge(name: str, truth: Array) -> Array:  # immediately, so that the float64 arrays need not be stored
            if name in ours:
                self._judge(name, ours.pop(name), np.asarray(theirs[name]), truth, label, ids)
            return truth

        if theirs:
            run(self._single, keep)
        return run(self._double, judge)

    def _judge(self, name: str, ours: Array, theirs: Array, truth: Array, label: str, ids: Array) -> None:
        if theirs.shape != truth.shape:
            self._problems.append(f"{label}: {name} has shape {theirs.shape}, expected {truth.shape}")
            return
        finite = bool(np.isfinite(theirs).all())
        if not finite:
            self._problems.append(f"{label}: {name} is not finite")
        found = row(name, ours, theirs if finite else None, truth, label)
        if found.worst_position is not None:
            found = replace(found, worst_token=self._tokenizer.token(int(ids[found.worst_position])))
        self._rows[name] = worst(self._rows.get(name), found)


def _parted(one: Row) -> bool:
    return one.theirs.max_rel > PARTING * max(one.ours.max_rel, float(np.finfo(np.float32).eps))

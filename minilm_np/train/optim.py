"""How the weights follow the gradient: AdamW in two forms, clipping, and schedules of the rate.

AdamW keeps for every weight a running mean m of its gradient g, and v of its square, and at step t = 1, 2, ... does

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2

    "published"  p -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps);   then p -= rate decay p
    "torch"      p -= rate decay p;   then p -= rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)

The second corrects v before eps is added, so there eps weighs more at the end and less at the start.

An embedding table's gradient is sparse: a batch reads some of its rows. Dense AdamW still moves every row that a batch
has ever read, as its m goes on after its gradient is 0. But a row that none has read has m = v = 0, and moves by
0 / (0 + eps) = 0. So the update runs over the rows that were ever touched, through the same lines as a dense one, and
gives the same bits. (Late updates, caught up when a row is read again, would save only memory traffic and would not
give the same bits.) Weight decay moves untouched rows too, so with it the table is swept whole.

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2; Kingma and Ba, Adam (2015),
section 2, whose last line is the published form's order. Upstream: AdamW of transformers before version 5, with which
the published model was trained; torch.optim.AdamW; get_*_schedule_with_warmup of transformers.
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm_np._checks import check_choice
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError
from minilm_np.reference import Array

FORMS = ("published", "torch")
SCHEDULES = ("linear", "constant", "cosine")

_BLOCK = 1 << 16  # numbers updated while they are in the processor's cache
_CLIP_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


@dataclass(frozen=True)
class SparseRows:
    """The gradient of a table of which a batch read some rows: `rows`, (n,) ascending, and their `values`, (n, D)."""

    rows: Array
    values: Array


Gradient = Array | SparseRows


class AdamW:
    """The optimiser's state over a model's weights, which it updates in place.

    weights: by name; writable, C-contiguous, float32 or float64. The state has their dtype.
    form: "published" or "torch", see above.
    decay: the weight decay; not of biases nor of LayerNorm's weights.

    Raises InputTypeError, InputValueError.
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        form: str = "published",
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        decay: float = 0.0,
    ) -> None:
        check_choice("form of AdamW", form, FORMS)
        if not all(0 <= beta < 1 for beta in betas):
            raise InputValueError(f"betas: expected two numbers from 0 to below 1, found {betas}")
        if not 0 < eps < math.inf:  # 0 / (0 + eps) is 0
            raise InputValueError(f"eps: expected a finite number above 0, found {eps}")
        if not 0 <= decay < math.inf:
            raise InputValueError(f"decay: expected a finite number of at least 0, found {decay}")
        for name, array in weights.items():
            if array.dtype not in (np.float32, np.float64):
                raise InputTypeError(f"{name}: expected float32 or float64, found {array.dtype}")
            if not (array.flags.writeable and array.flags.c_contiguous):
                raise InputValueError(f"{name}: expected a writable, C-contiguous array: it is updated in place")
        self.steps = 0
        self._weights = dict(weights)
        self._form, self._betas, self._eps, self._decay = form, betas, eps, decay
        self._m = {name: np.zeros_like(array) for name, array in weights.items()}
        self._v = {name: np.zeros_like(array) for name, array in weights.items()}
        # the rows of a table that were ever touched, ascending; no entry once all are
        self._touched = {name: np.empty(0, np.int64) for name, array in weights.items() if array.ndim == 2}

    def step(self, gradients: Mapping[str, Gradient], rate: float) -> None:
        """One update of all weights at this rate. An error changes nothing.

        gradients: for every weight an array of its shape and dtype; for a table `SparseRows` will do, or not, in turn.
        Raises InputTypeError, InputValueError. That gradients are finite is for `clip_by_global_norm` to see.
        """
        if not 0 <= rate < math.inf:
            raise InputValueError(f"rate: expected a finite number of at least 0, found {rate}")
        _check_gradients(gradients, self._weights)
        self.steps += 1
        rate = float(rate)  # a NumPy float64 would promote float32
        for name, gradient in gradients.items():
            p, m, v = self._weights[name], self._m[name], self._v[name]
            decay = self._decay if decays(name) else 0.0
            if isinstance(gradient, SparseRows):
                blocks = _row_blocks(p, m, v, gradient, self._moving_rows(name, gradient.rows, decay))
            else:
                self._touched.pop(name, None)
                blocks = _dense_blocks(p, m, v, gradient)
            for block in blocks:
                self._update(*block, rate, decay)

    def _moving_rows(self, name: str, rows: Array, decay: float) -> Array:
        """The rows of a table that this step moves, `rows` having a gradient."""
        if name in self._touched:
            self._touched[name] = np.union1d(self._touched[name], rows)
            if not decay:
                return self._touched[name]
        return np.arange(len(self._weights[name]))

    def _update(self, p: Array, m: Array, v: Array, g: Array, rate: float, decay: float) -> None:
        """The formulas at the head of this file, in place. All arrays have one shape; scalars keep their dtype."""
        (b1, b2), t = self._betas, self.steps
        correction = math.sqrt(1 - b2**t)
        change = np.multiply(g, 1 - b1)
        m *= b1
        m += change
        np.multiply(g, g, out=change)
        change *= 1 - b2
        v *= b2
        v += change
        np.sqrt(v, out=change)
        if self._form == "torch":
            change /= correction
            correction = 1.0
            if decay:
                p *= 1 - rate * decay
        change += self._eps
        np.divide(m, change, out=change)
        change *= rate * correction / (1 - b1**t)
        p -= change
        if self._form == "published" and decay:
            p -= p * (rate * decay)

    def state(self) -> dict[str, Array]:
        """What a checkpoint needs: "steps", and "m.NAME", "v.NAME" and, of a table of which not all rows were touched,
        "rows.NAME" (m and v then hold these rows). Some are the arrays in use: write them, do not keep them.
        """
        state: dict[str, Array] = {"steps": np.array(self.steps, np.int64)}
        for name in self._weights:
            part: Any = self._touched.get(name, ...)
            state[f"m.{name}"], state[f"v.{name}"] = self._m[name][part], self._v[name][part]
            if name in self._touched:
                state[f"rows.{name}"] = part
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Take up what `state` gave, for the same weights. Raises InputTypeError, InputValueError, changing nothing."""
        tables = [name for name, array in self._weights.items() if array.ndim == 2]
        touched = {name: state[f"rows.{name}"] for name in tables if f"rows.{name}" in state}
        names = [f"{kind}.{name}" for kind in "mv" for name in self._weights]
        _check_names("state of AdamW", state, ["steps", *names, *(f"rows.{name}" for name in touched)])
        steps = state["steps"]
        if steps.shape != () or steps.dtype != np.int64 or steps < 0:
            raise InputValueError(f"state of AdamW: steps: expected an int64 of at least 0, found {steps!r:.60}")
        for name, rows in touched.items():
            _check_rows(f"rows.{name}", rows, len(self._weights[name]))
        for kind, name in (full.split(".", 1) for full in names):
            shape = self._weights[name].shape
            expected = (len(touched[name]), *shape[1:]) if name in touched else shape
            _check_array(f"{kind}.{name}", state[f"{kind}.{name}"], expected, self._weights[name].dtype)
        self.steps = int(steps)
        self._touched = {name: np.array(rows) for name, rows in touched.items()}
        for name in self._weights:
            part: Any = touched.get(name, ...)
            for kind, arrays in (("m", self._m), ("v", self._v)):
                arrays[name] = np.zeros_like(self._weights[name])
                arrays[name][part] = state[f"{kind}.{name}"]


def decays(name: str) -> bool:
    """Whether weight decay applies to this parameter: not to biases, nor to what LayerNorm multiplies by."""
    return not name.endswith(("bias", "LayerNorm.weight"))


def clip_by_global_norm(gradients: Mapping[str, Gradient], max_norm: float = 1.0) -> float:
    """Scale all gradients in place so that they are, as one long vector, no longer than max_norm; return its length.

    The factor is max_norm / (length + 1e-6), if below 1. Squares are summed in float64, always in the same order.
    max_norm: above 0; math.inf measures without clipping.
    Raises InputValueError, NonFiniteError (which parameter's gradient is not finite), before anything is changed.
    """
    if not max_norm > 0:
        raise InputValueError(f"max_norm: expected a number above 0, found {max_norm}")
    total = 0.0
    for name, array in _arrays(gradients):
        flat = array.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            total += float(np.square(flat[start : start + _BLOCK], dtype=np.float64).sum())
        if not math.isfinite(total):
            raise NonFiniteError(
                f"the gradient of {name} is not finite (NaN or infinity): the weights have diverged; use a smaller rate"
            )
    norm = math.sqrt(total)
    factor = max_norm / (norm + _CLIP_EPS)
    if factor < 1:
        for _, array in _arrays(gradients):
            array *= factor
    return norm


def schedule(name: str, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """The factor of the rate at each update, counted from 0, as transformers has it.

    All rise from 0 in warmup_steps (so with a warm-up the first update has rate 0). Then "constant" stays at 1,
    "linear" falls to 0 at total_steps, "cosine" does so as half a cosine wave. Raises InputValueError.
    """
    check_choice("schedule", name, SCHEDULES)
    if not 0 <= warmup_steps <= total_steps or total_steps < 1:
        raise InputValueError(
            f"schedule: expected 0 <= warmup_steps <= total_steps and at least 1 step, found {warmup_steps} warm-up "
            f"steps of {total_steps}"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        if name == "constant":
            return 1.0
        return 1.0 - progress if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor


def _dense_blocks(p: Array, m: Array, v: Array, g: Array) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Flat views of a parameter, its state and its gradient."""
    p, m, v, g = p.reshape(-1), m.reshape(-1), v.reshape(-1), g.reshape(-1)
    for start in range(0, p.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        yield p[part], m[part], v[part], g[part]


def _row_blocks(
    p: Array, m: Array, v: Array, gradient: SparseRows, rows: Array
) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Copies of these rows of a table, some at a time, which go back into it when the next are asked for."""
    size = max(1, _BLOCK // p.shape[1])
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        first, last = np.searchsorted(gradient.rows, [part[0], part[-1] + 1])
        g = np.zeros((len(part), p.shape[1]), p.dtype)
        g[np.searchsorted(part, gradient.rows[first:last])] = gradient.values[first:last]
        copies = p[part], m[part], v[part]
        yield *copies, g
        p[part], m[part], v[part] = copies


def _arrays(gradients: Mapping[str, Gradient]) -> Iterator[tuple[str, Array]]:
    for name, gradient in gradients.items():
        yield name, gradient.values if isinstance(gradient, SparseRows) else gradient


def _check_gradients(gradients: Mapping[str, Gradient], weights: Mapping[str, Array]) -> None:
    _check_names("gradients", gradients, weights)
    for name, gradient in gradients.items():
        weight = weights[name]
        if isinstance(gradient, SparseRows):
            if weight.ndim != 2:
                raise InputTypeError(f"gradient of {name}: expected an array, found SparseRows, which are for tables")
            _check_rows(f"gradient of {name}", gradient.rows, len(weight))
            shape = (len(gradient.rows), weight.shape[1])
            _check_array(f"gradient of {name}", gradient.values, shape, weight.dtype)
        else:
            _check_array(f"gradient of {name}", gradient, weight.shape, weight.dtype)


def _check_names(what: str, found: Mapping[str, Any], expected: Iterable[str]) -> None:
    missing, unknown = sorted(set(expected) - found.keys()), sorted(found.keys() - set(expected))
    if missing or unknown:
        raise InputValueError(f"{what}: missing: {reprlib.repr(missing)}; unknown: {reprlib.repr(unknown)}")


def _check_array(what: str, found: Array, shape: tuple[int, ...], dtype: Any) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != dtype:
        kind = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
        raise InputTypeError(f"{what}: expected an array of {dtype}, found {kind}")
    if found.shape != shape:
        raise InputValueError(f"{what}: expected the shape {shape}, found {found.shape}")


def _check_rows(what: str, rows: Array, length: int) -> None:
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputTypeError(f"{what}: rows: expected one axis of integers, found {rows.ndim} of {rows.dtype}")
    if len(rows) and not (rows[0] >= 0 and rows[-1] < length and (rows[1:] > rows[:-1]).all()):
        raise InputValueError(f"{what}: rows: expected ascending ones from 0 to {length - 1}, each once")

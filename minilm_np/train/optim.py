"""The optimiser: AdamW in two forms, clipping of gradients, and schedules of the learning rate.

For every weight p, AdamW stores a running mean m of its gradient g, and a running mean v of g^2. Step t = 1, 2, ... is

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2

    "published"  p -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps);   then p -= rate decay p
    "torch"      p -= rate decay p;   then p -= rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)

The "torch" form corrects v before it adds eps. The "published" form equals it with eps / sqrt(1 - b2^t) in the place of
eps, which is larger in the first steps.

The gradient of an embedding table is sparse, because a batch uses few of its rows. Dense AdamW still moves every row
that any earlier batch has used: m continues to act after the gradient is 0. A row that no batch has used has m = v = 0
and moves by 0 / (0 + eps) = 0. So the update runs over all rows that were ever used, through the same code as a dense
update, and gives the same bits. (Delayed updates, made when a row is used again, would save only memory traffic, and
would not give the same bits.) Weight decay also moves unused rows, so with decay the whole table is updated.

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2; Kingma and Ba, Adam (2015),
section 2, whose last line gives the order of the published form. Upstream: AdamW of transformers before version 5,
which trained the published model; torch.optim.AdamW; get_*_schedule_with_warmup of transformers.
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

_BLOCK = 1 << 16  # numbers updated at a time, so that they stay in the cache of the CPU
_CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@dataclass(frozen=True)
class SparseRows:
    """The gradient of a table of which a batch used n rows: `rows`, (n,) ascending, and their `values`, (n, D)."""

    rows: Array
    values: Array


Gradient = Array | SparseRows


class AdamW:
    """AdamW for a model's weights, which it updates in place, together with its state.

    weights: arrays by name, writable, C-contiguous, float32 or float64. The state has the same dtype.
    form: "published" or "torch", see above.
    betas, eps: b1, b2 and eps of the formulas.
    decay: the weight decay. It does not apply to biases and the weights of LayerNorm.

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
        # The rows of each table that were ever used, ascending. A table without an entry is updated as a whole.
        self._used_rows = {name: np.empty(0, np.int64) for name, array in weights.items() if array.ndim == 2}

    def step(self, gradients: Mapping[str, Gradient], rate: float) -> None:
        """Update all weights once. An error leaves them unchanged.

        gradients: for every weight an array of its shape and dtype, or `SparseRows` for a table. The kind may differ
            from step to step. Whether they are finite is not checked here, but in `clip_by_global_norm`.
        rate: the learning rate of this step.
        Raises InputTypeError, InputValueError.
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
                self._used_rows.pop(name, None)
                blocks = _dense_blocks(p, m, v, gradient)
            for block in blocks:
                self._update(*block, rate, decay)

    def _moving_rows(self, name: str, rows: Array, decay: float) -> Array:
        """The rows of a table that this step moves, if `rows` have a gradient."""
        if name in self._used_rows:
            self._used_rows[name] = np.union1d(self._used_rows[name], rows)
            if not decay:
                return self._used_rows[name]
        return np.arange(len(self._weights[name]))

    def _update(self, p: Array, m: Array, v: Array, g: Array, rate: float, decay: float) -> None:
        """Apply the formulas at the top of this file in place. All arrays have one shape, scalars are Python floats."""
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
        """The state for a checkpoint, as arrays by name: "steps", "m.NAME" and "v.NAME".

        A table of which only some rows were used also has "rows.NAME"; its m and v then hold these rows only. Some of
        the arrays are those in use, not copies: write them to a file before the next step.
        """
        state: dict[str, Array] = {"steps": np.array(self.steps, np.int64)}
        for name in self._weights:
            part: Any = self._used_rows.get(name, ...)
            state[f"m.{name}"], state[f"v.{name}"] = self._m[name][part], self._v[name][part]
            if name in self._used_rows:
                state[f"rows.{name}"] = part
        return state

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore a state that `state` returned for the same weights.

        Raises InputTypeError, InputValueError; the optimiser is then unchanged.
        """
        tables = [name for name, array in self._weights.items() if array.ndim == 2]
        used_rows = {name: state[f"rows.{name}"] for name in tables if f"rows.{name}" in state}
        names = [f"{kind}.{name}" for kind in "mv" for name in self._weights]
        _check_names("state of AdamW", state, ["steps", *names, *(f"rows.{name}" for name in used_rows)])
        steps = state["steps"]
        if steps.shape != () or steps.dtype != np.int64 or steps < 0:
            raise InputValueError(f"state of AdamW: steps: expected an int64 of at least 0, found {steps!r:.60}")
        for name, rows in used_rows.items():
            _check_rows(f"rows.{name}", rows, len(self._weights[name]))
        for kind, name in (full.split(".", 1) for full in names):
            shape = self._weights[name].shape
            expected = (len(used_rows[name]), *shape[1:]) if name in used_rows else shape
            array = state[f"{kind}.{name}"]
            _check_array(f"{kind}.{name}", array, expected, self._weights[name].dtype)
            if not (np.isfinite(array) if kind == "m" else array >= 0).all():
                values = "finite values" if kind == "m" else "values of at least 0"
                raise InputValueError(f"state of AdamW: {kind}.{name}: expected {values}, found others, such as NaN")
        self.steps = int(steps)
        self._used_rows = {name: np.array(rows) for name, rows in used_rows.items()}
        for name in self._weights:
            part: Any = used_rows.get(name, ...)
            for kind, arrays in (("m", self._m), ("v", self._v)):
                arrays[name] = np.zeros_like(self._weights[name])
                arrays[name][part] = state[f"{kind}.{name}"]


def decays(name: str) -> bool:
    """Whether weight decay applies to this parameter: to all but biases and the weights of LayerNorm."""
    return not name.endswith(("bias", "LayerNorm.weight"))


def clip_by_global_norm(gradients: Mapping[str, Gradient], max_norm: float = 1.0) -> float:
    """Scale all gradients in place so that their global norm is at most max_norm. Returns the norm before scaling.

    The global norm is the length of all gradients as one vector. The factor is max_norm / (norm + 1e-6), if that is
    below 1. Squares are summed in float64, always in the same order.

    max_norm: above 0; math.inf measures without clipping.
    Raises InputValueError, NonFiniteError (with the name of the first gradient that is not finite), before any change.
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
                f"the gradient of {name} is not finite (NaN or infinity): the weights have diverged: use a smaller rate"
            )
    norm = math.sqrt(total)
    factor = max_norm / (norm + _CLIP_EPS)
    if factor < 1:
        for _, array in _arrays(gradients):
            array *= factor
    return norm


def schedule(name: str, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """A function from the step, counted from 0, to the factor of the learning rate, as in transformers.

    The factor rises linearly from 0 to 1 over warmup_steps, so with a warm-up the first step has the rate 0. Then
    "constant" stays at 1, "linear" falls to 0 at total_steps, and "cosine" falls to 0 there as half a cosine wave.
    Raises InputValueError.
    """
    check_choice("schedule", name, SCHEDULES)
    if not 0 <= warmup_steps <= total_steps or total_steps < 1:
        raise InputValueError(
            f"schedule: expected 0 <= warmup_steps <= total_steps and total_steps >= 1, found warmup_steps "
            f"{warmup_steps} and total_steps {total_steps}"
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
    """Yield flat views of a parameter, of its state and of its gradient, block by block."""
    p, m, v, g = p.reshape(-1), m.reshape(-1), v.reshape(-1), g.reshape(-1)
    for start in range(0, p.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        yield p[part], m[part], v[part], g[part]


def _row_blocks(
    p: Array, m: Array, v: Array, gradient: SparseRows, rows: Array
) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield copies of these rows of a table, of its state and of its gradient, block by block.

    The caller changes the copies in place. They are written back to the table when the generator continues.
    """
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
                raise InputTypeError(f"gradient of {name}: expected an array, found SparseRows, which only tables have")
            _check_rows(f"gradient of {name}", gradient.rows, len(weight))
            shape = (len(gradient.rows), weight.shape[1])
            _check_array(f"gradient of {name}", gradient.values, shape, weight.dtype)
        else:
            _check_array(f"gradient of {name}", gradient, weight.shape, weight.dtype)


def _check_names(what: str, found: Mapping[str, object], expected: Iterable[str]) -> None:
    missing, unknown = sorted(set(expected) - found.keys()), sorted(found.keys() - set(expected))
    if missing or unknown:
        raise InputValueError(f"{what}: missing: {reprlib.repr(missing)}; unknown: {reprlib.repr(unknown)}")


def _check_array(what: str, found: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != dtype:
        kind = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
        raise InputTypeError(f"{what}: expected an array of {dtype}, found {kind}")
    if found.shape != shape:
        raise InputValueError(f"{what}: expected the shape {shape}, found {found.shape}")


def _check_rows(what: str, rows: Array, length: int) -> None:
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputTypeError(f"{what}: rows: expected integers (n,), found {rows.dtype} with {rows.ndim} axes")
    if len(rows) and not (rows[0] >= 0 and rows[-1] < length and (rows[1:] > rows[:-1]).all()):
        raise InputValueError(f"{what}: rows: expected distinct rows from 0 to {length - 1} in ascending order")

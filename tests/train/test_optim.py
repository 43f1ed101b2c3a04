"""Test AdamW against torch and scalar loops, sparse against dense gradients bit for bit, clipping and schedules."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, NonFiniteError
from minilm_np.train import optim
from minilm_np.train.optim import FORMS, AdamW, SparseRows, clip_by_global_norm, decays, schedule
from tests.support.compare import assert_close, assert_same_bits

TABLE, DENSE, BIAS, NORM = (
    "embeddings.word_embeddings.weight",
    "output.dense.weight",
    "output.dense.bias",
    "LayerNorm.weight",
)
SHAPES = {TABLE: (11, 6), DENSE: (5, 6), BIAS: (5,), NORM: (6,)}
RATES = [0.0, 0.01, 0.02, 0.005, 0.01, 0.0, 0.03]


def random_arrays(seed: int, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 1e-6)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_torchs_form_equals_torch(decay: float, dtype: Any, bound: float) -> None:
    import torch

    weights = random_arrays(0, dtype)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    groups = [
        {"params": [tensors[name] for name in (TABLE, DENSE)], "weight_decay": decay},
        {"params": [tensors[name] for name in (BIAS, NORM)], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-3)
    ours = AdamW(weights, "torch", betas=(0.8, 0.95), eps=1e-3, decay=decay)
    for step, rate in enumerate(RATES):
        gradients = random_arrays(step + 1, dtype)
        for group in theirs.param_groups:
            group["lr"] = rate
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(gradients[name].copy())
        theirs.step()
        ours.step(gradients, rate)
        for name, tensor in tensors.items():
            assert_close(weights[name], tensor.numpy(), rel=bound, what=f"{name}, step {step}")


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_published_form_equals_scalar_loops(decay: float) -> None:
    weights = random_arrays(0)
    scalars = {(name, place): [p, 0.0, 0.0] for name in SHAPES for place, p in np.ndenumerate(weights[name])}
    ours = AdamW(weights, "published", betas=(0.8, 0.95), eps=1e-3, decay=decay)
    for t, rate in enumerate(RATES, 1):
        gradients = random_arrays(t)
        ours.step(gradients, rate)
        for (name, place), (p, m, v) in scalars.items():
            g = float(gradients[name][place])
            m = 0.8 * m + 0.2 * g
            v = 0.95 * v + 0.05 * g * g
            p = p - rate * math.sqrt(1 - 0.95**t) / (1 - 0.8**t) * m / (math.sqrt(v) + 1e-3)
            if name in (TABLE, DENSE):
                p = p - rate * decay * p
            scalars[name, place] = [p, m, v]
            assert weights[name][place] == pytest.approx(p, rel=1e-12, abs=1e-14), (name, place, t)


def test_the_two_forms_differ_only_in_the_place_of_eps() -> None:
    weights, others = random_arrays(0), random_arrays(0)
    published, torchs = AdamW(weights, "published", eps=1e-300), AdamW(others, "torch", eps=1e-300)
    for step in range(3):
        published.step(random_arrays(step), 0.01)
        torchs.step(random_arrays(step), 0.01)
    for name in SHAPES:
        assert_close(weights[name], others[name], rel=1e-14, what=name)


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[float, SparseRows]]:
    """Steps, each a rate and a gradient of the table, in which a row may be used, unused, and used again."""
    steps = []
    for _ in range(draw(st.integers(1, 8))):
        rows = np.array(sorted(draw(st.sets(st.integers(0, 10), max_size=5))), np.int64)
        values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(len(rows), 6)).astype(np.float32)
        steps.append((draw(st.sampled_from([0.0, 0.01, 0.1])), SparseRows(rows, values)))
    return steps


def dense(rows: SparseRows) -> np.ndarray:
    array = np.zeros(SHAPES[TABLE], np.float32)
    array[rows.rows] = rows.values
    return array


@given(runs(), st.sampled_from(FORMS), st.sampled_from([0.0, 0.1]), st.sampled_from([6, 12, 30, 1000]))
@settings(max_examples=150)
def test_sparse_rows_give_the_bits_of_a_dense_gradient(
    steps: list[tuple[float, SparseRows]], form: str, decay: float, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "_BLOCK", block)
        weights, expected = random_arrays(0, np.float32), random_arrays(0, np.float32)
        sparse, whole = AdamW(weights, form, decay=decay), AdamW(expected, form, decay=decay)
        for step, (rate, rows) in enumerate(steps):
            others = random_arrays(step, np.float32)
            sparse.step(others | {TABLE: rows}, rate)
            whole.step(others | {TABLE: dense(rows)}, rate)
            for name in SHAPES:
                assert_same_bits(weights[name], expected[name], f"{name}, step {step}")


def test_alternating_sparse_and_dense_gradients_give_the_bits_of_dense_ones() -> None:
    weights, expected = random_arrays(0, np.float32), random_arrays(0, np.float32)
    mixed, whole = AdamW(weights), AdamW(expected)
    for step in range(6):
        gradients = random_arrays(step, np.float32)
        rows = SparseRows(np.array([step, step + 3]), gradients[TABLE][[step, step + 3]])
        mixed.step(gradients | ({TABLE: rows} if step % 3 != 1 else {}), 0.01)
        whole.step(gradients | ({TABLE: dense(rows)} if step % 3 != 1 else {}), 0.01)
        assert_same_bits(weights[TABLE], expected[TABLE], f"step {step}")


def test_rows_move_after_their_gradient_is_0_and_unused_rows_do_not() -> None:
    weights = random_arrays(0, np.float32)
    before = weights[TABLE].copy()
    optimiser = AdamW(weights)
    gradients = random_arrays(1, np.float32)
    optimiser.step(gradients | {TABLE: SparseRows(np.array([2]), gradients[TABLE][[2]])}, 0.01)
    after_one = weights[TABLE].copy()
    optimiser.step(gradients | {TABLE: SparseRows(np.array([5]), gradients[TABLE][[5]])}, 0.01)
    assert (np.flatnonzero((weights[TABLE] != before).any(axis=1)) == [2, 5]).all()
    assert (weights[TABLE][2] != after_one[2]).all()


def test_biases_and_layer_norms_do_not_decay() -> None:
    assert [name for name in SHAPES if decays(name)] == [TABLE, DENSE]
    assert not decays("encoder.layer.0.output.LayerNorm.weight")
    weights = random_arrays(0)
    before = {name: array.copy() for name, array in weights.items()}
    AdamW(weights, decay=0.5).step({name: np.zeros(shape) for name, shape in SHAPES.items()}, 0.1)
    for name in SHAPES:
        assert_close(weights[name], before[name] * (0.95 if decays(name) else 1.0), rel=1e-15, what=name)


# ---- the state -------------------------------------------------------------------------------------------------------


def sparse_gradients(step: int) -> dict[str, Any]:
    gradients: dict[str, Any] = random_arrays(step, np.float32)
    rows = np.unique([step % 7, 3 * step % 7])  # four of the 11 rows are never used
    return gradients | {TABLE: SparseRows(rows, gradients[TABLE][rows])}


@pytest.mark.parametrize("table", ["sparse", "dense"])
def test_a_run_resumed_from_its_state_gives_the_same_bits(table: str) -> None:
    def gradients(step: int) -> dict[str, Any]:
        return sparse_gradients(step) if table == "sparse" else random_arrays(step, np.float32)

    expected = random_arrays(0, np.float32)
    straight = AdamW(expected)
    for step in range(9):
        straight.step(gradients(step), RATES[step % 7])

    weights = random_arrays(0, np.float32)
    first = AdamW(weights)
    for step in range(4):
        first.step(gradients(step), RATES[step % 7])
    state = {name: array.copy() for name, array in first.state().items()}
    assert (f"rows.{TABLE}" in state) == (table == "sparse")
    weights = {name: array.copy() for name, array in weights.items()}
    second = AdamW(weights)
    second.step(gradients(100), 0.0)  # load_state discards this step
    second.load_state(state)
    assert second.steps == 4
    for name, array in second.state().items():
        assert_same_bits(array, state[name], name)
    for step in range(4, 9):
        second.step(gradients(step), RATES[step % 7])
    for name in SHAPES:
        assert_same_bits(weights[name], expected[name], name)


def test_a_fresh_state_can_be_restored() -> None:
    weights = random_arrays(0, np.float32)
    optimiser = AdamW(weights)
    optimiser.load_state(AdamW(random_arrays(1, np.float32)).state())
    assert optimiser.steps == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({f"m.{BIAS}": None}, InputValueError, r"state of AdamW: missing: \['m.output.dense.bias'\]; unknown: \[\]"),
        ({"m.else": np.zeros(2)}, InputValueError, r"state of AdamW: missing: \[\]; unknown: \['m.else'\]"),
        ({"steps": None}, InputValueError, r"missing: \['steps'\]"),
        ({"steps": np.array(-1)}, InputValueError, "steps: expected an int64 of at least 0, found array"),
        ({f"v.{BIAS}": np.zeros(4, np.float32)}, InputValueError, r"v.output.dense.bias: expected the shape \(5,\)"),
        ({f"v.{BIAS}": np.zeros(5)}, InputTypeError, "expected an array of float32, found float64"),
        (
            {f"rows.{TABLE}": np.array([3, 1])},
            InputValueError,
            "rows: expected distinct rows from 0 to 10 in ascending order",
        ),
        ({f"rows.{TABLE}": np.array([1])}, InputValueError, r"expected the shape \(1, 6\), found \(\d, 6\)"),
        ({f"rows.{TABLE}": None}, InputValueError, r"expected the shape \(11, 6\), found \(\d, 6\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    optimiser = AdamW(random_arrays(0, np.float32))
    for step in range(3):
        optimiser.step(sparse_gradients(step), 0.01)
    before = {name: array.copy() for name, array in optimiser.state().items()}
    state = {name: array for name, array in (before | change).items() if array is not None}
    with pytest.raises(error, match=message):
        optimiser.load_state(state)
    for name, array in optimiser.state().items():
        assert_same_bits(array, before[name], name)


# ---- clipping and schedules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_clipping_equals_torch(size: float) -> None:
    import torch

    gradients = {name: array * size for name, array in random_arrays(3).items()}
    tensors = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES.values()]
    for tensor, array in zip(tensors, gradients.values(), strict=True):
        tensor.grad = torch.from_numpy(array.copy())
    expected = torch.nn.utils.clip_grad_norm_(tensors, 1.0).item()
    assert clip_by_global_norm(gradients, 1.0) == pytest.approx(expected, rel=1e-14)
    for tensor, (name, array) in zip(tensors, gradients.items(), strict=True):
        assert tensor.grad is not None
        assert_close(array, tensor.grad.numpy(), rel=1e-14, what=name)


def test_clipping_sparse_rows_equals_clipping_the_dense_gradient() -> None:
    sparse, whole = sparse_gradients(5), sparse_gradients(5)
    whole[TABLE] = dense(whole[TABLE])
    assert clip_by_global_norm(sparse, 0.5) == pytest.approx(clip_by_global_norm(whole, 0.5), rel=1e-15)
    assert_same_bits(dense(sparse[TABLE]), whole[TABLE])


def test_clipping_at_infinity_only_measures() -> None:
    gradients = random_arrays(3)
    assert clip_by_global_norm(gradients, math.inf) > 5
    for name, array in random_arrays(3).items():
        assert_same_bits(gradients[name], array)


def test_the_norm_of_float32_does_not_overflow() -> None:
    gradients: dict[str, Any] = {BIAS: np.full(4, 1e30, np.float32)}
    assert clip_by_global_norm(gradients, 1.0) == pytest.approx(2e30, rel=1e-6)
    assert_close(gradients[BIAS], np.full(4, 0.5), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_by_name_and_nothing_is_scaled(value: float) -> None:
    gradients: dict[str, Any] = random_arrays(0)
    gradients[BIAS][2] = value
    before = gradients[DENSE].copy()
    with pytest.raises(NonFiniteError, match=r"the gradient of output\.dense\.bias is not finite"):
        clip_by_global_norm(gradients)
    assert_same_bits(gradients[DENSE], before)


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 10), (1, 1), (500, 2000)])
def test_schedules_equal_those_of_transformers(warmup: int, total: int) -> None:
    import torch
    from transformers import optimization

    theirs: dict[str, Any] = {
        "linear": optimization.get_linear_schedule_with_warmup,
        "constant": optimization.get_constant_schedule_with_warmup,
        "cosine": optimization.get_cosine_schedule_with_warmup,
    }
    for name in optim.SCHEDULES:
        torchs = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        lengths = (warmup,) if name == "constant" else (warmup, total)
        factor_of = theirs[name](torchs, *lengths).lr_lambdas[0]
        ours = schedule(name, warmup, total)
        for step in range(total):
            assert ours(step) == pytest.approx(factor_of(step), rel=1e-14, abs=1e-16), (name, step)
        assert ours(0) == (0.0 if warmup else 1.0)
        assert ours(total + 5) == pytest.approx(1.0 if name == "constant" else 0.0, abs=1e-16)


# ---- error messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "adam"}, "form of AdamW: expected one of 'published', 'torch', found 'adam'"),
        ({"betas": (0.9, 1.0)}, r"betas: expected two numbers from 0 to below 1, found \(0.9, 1.0\)"),
        ({"eps": 0.0}, "eps: expected a finite number above 0, found 0.0"),
        ({"decay": -0.1}, "decay: expected a finite number of at least 0, found -0.1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        AdamW(random_arrays(0), **options)


def test_weights_that_cannot_be_updated_in_place_are_refused() -> None:
    fixed = np.ones(3)
    fixed.flags.writeable = False
    with pytest.raises(InputValueError, match=r"a\.bias: expected a writable, C-contiguous array"):
        AdamW({"a.bias": fixed})
    with pytest.raises(InputValueError, match=r"a\.weight: expected a writable, C-contiguous array"):
        AdamW({"a.weight": np.ones((3, 2)).T})
    with pytest.raises(InputTypeError, match=r"a\.bias: expected float32 or float64, found int64"):
        AdamW({"a.bias": np.ones(3, np.int64)})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({BIAS: None}, InputValueError, r"gradients: missing: \['output.dense.bias'\]; unknown: \[\]"),
        ({"x": np.ones(1)}, InputValueError, r"gradients: missing: \[\]; unknown: \['x'\]"),
        (
            {BIAS: np.ones(4)},
            InputValueError,
            r"gradient of output.dense.bias: expected the shape \(5,\), found \(4,\)",
        ),
        ({BIAS: np.ones(5, np.float32)}, InputTypeError, "expected an array of float64, found float32"),
        ({BIAS: [1.0] * 5}, InputTypeError, "expected an array of float64, found list"),
        ({BIAS: SparseRows(np.array([1]), np.ones((1, 1)))}, InputTypeError, "found SparseRows, which only tables"),
        (
            {TABLE: SparseRows(np.array([1, 1]), np.ones((2, 6)))},
            InputValueError,
            "expected distinct rows from 0 to 10 in",
        ),
        ({TABLE: SparseRows(np.array([3, 11]), np.ones((2, 6)))}, InputValueError, "expected distinct rows from 0 to"),
        (
            {TABLE: SparseRows(np.array([-1]), np.ones((1, 6)))},
            InputValueError,
            "expected distinct rows from 0 to 10 in",
        ),
        (
            {TABLE: SparseRows(np.array([1.0]), np.ones((1, 6)))},
            InputTypeError,
            r"expected integers \(n,\), found float64 wi",
        ),
        ({TABLE: SparseRows(np.array([1]), np.ones((2, 6)))}, InputValueError, r"expected the shape \(1, 6\)"),
    ],
)
def test_gradients_that_do_not_fit_are_refused_and_change_nothing(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    weights = random_arrays(0)
    optimiser = AdamW(weights)
    gradients = {name: array for name, array in (random_arrays(1) | change).items() if array is not None}
    with pytest.raises(error, match=message):
        optimiser.step(gradients, 0.01)
    assert optimiser.steps == 0
    for name, array in random_arrays(0).items():
        assert_same_bits(weights[name], array)


def test_rates_norms_and_schedules_out_of_range_are_refused() -> None:
    with pytest.raises(InputValueError, match="rate: expected a finite number of at least 0, found nan"):
        AdamW(random_arrays(0)).step(random_arrays(1), math.nan)
    with pytest.raises(InputValueError, match="max_norm: expected a number above 0, found 0"):
        clip_by_global_norm(random_arrays(0), 0)
    with pytest.raises(InputValueError, match="schedule: expected one of 'linear', 'constant', 'cosine', found 'step'"):
        schedule("step", 0, 1)
    with pytest.raises(InputValueError, match="found warmup_steps 5 and total_steps 4"):
        schedule("linear", 5, 4)

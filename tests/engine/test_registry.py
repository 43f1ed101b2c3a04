"""The registry: engines are found by name, refuse what they cannot do, and give what the protocol promises."""

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.engine import registry
from minilm_np.model_files.random_weights import SMALL, random_weights
from tests.support.compare import assert_close, assert_same_bits

IDS = [[2, 5, 6, 3], [2, 3], [2, *range(5, 45), 3], [2, 7, 3]]


@pytest.mark.parametrize("kind", registry.KINDS, ids=lambda kind: f"{kind.backend}-{kind.compute_type}")
def test_every_engine_keeps_the_protocol(kind: registry.EngineKind) -> None:
    weights = random_weights(SMALL, 3)
    engine = kind.make(SMALL, weights.items())
    told: list[int] = []
    vectors = engine.encode(IDS, normalize=False, report=told.append)
    assert vectors.shape == (4, SMALL.hidden_size) and vectors.dtype == np.float32 and sum(told) == 4
    told.clear()
    again, hidden = engine.encode_with_hidden_states(IDS, normalize=False, report=told.append)
    assert sum(told) == 4
    assert [x.shape for x in hidden] == [(len(ids), SMALL.hidden_size) for ids in IDS]
    (assert_same_bits if kind.contract else lambda a, b: assert_close(a, b, abs_=1e-6))(again, vectors)
    last = f"encoder.layer.{SMALL.num_hidden_layers - 1}.output.LayerNorm"
    for ids, x, vector in zip(IDS, hidden, vectors, strict=True):
        steps = engine.intermediates(ids)
        assert_close(steps[last], x, abs_=1e-6)
        assert_close(list(steps.values())[-1], vector, abs_=1e-6)
    for name, array in engine.weights().items():
        assert_same_bits(array, weights[name])
        assert not array.flags.writeable


@pytest.mark.parametrize("kind", registry.KINDS, ids=lambda kind: f"{kind.backend}-{kind.compute_type}")
@pytest.mark.parametrize(
    "ids", [[], [2] * (SMALL.max_position_embeddings + 1), [2, -1], [SMALL.vocab_size]], ids=["none", "many", "-1", "V"]
)
def test_every_engine_refuses_ids_out_of_range(kind: registry.EngineKind, ids: list[int]) -> None:
    engine = kind.make(SMALL, random_weights(SMALL, 3).items())
    with pytest.raises(InputValueError, match=r"^text 1: expected .*token"):
        engine.encode([[2, 3], ids], normalize=False, report=lambda done: None)
    with pytest.raises(InputValueError, match=r"^text 1: expected .*token"):
        engine.encode_with_hidden_states([[2, 3], ids], normalize=False, report=lambda done: None)
    with pytest.raises(InputValueError, match=r"^text 0: expected .*token"):
        engine.intermediates(ids)


def test_the_first_kind_is_the_default() -> None:
    assert (SentenceEncoder.random().backend, registry.KINDS[0].backend) == ("numba", "numba")
    assert registry.find("numba") is registry.KINDS[0]


@pytest.mark.parametrize(
    ("backend", "compute_type", "message"),
    [
        ("torch", "float32", "backend: expected one of 'numba', 'numpy', found 'torch'"),
        ("numba", "float16", "compute_type: expected one of 'float32'.*, found 'float16'"),
    ],
)
def test_an_unknown_engine_is_refused(backend: str, compute_type: str, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        registry.find(backend, compute_type)


def test_an_engine_refuses_what_it_does_not_do() -> None:
    weights = random_weights(SMALL, 0).items()
    with pytest.raises(InputValueError, match="threads: expected None for backend 'numpy', found"):
        registry.find("numpy").make(SMALL, weights, threads=2)
    with pytest.raises(InputValueError, match="computes in float32 only, found 'float64': use backend 'numpy'"):
        registry.find("numba").make(SMALL, weights, dtype="float64")

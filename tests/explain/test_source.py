"""The lines of `reference.py` on the page are those that compute the step."""

import inspect

import pytest

from minilm_np import SentenceEncoder, reference
from minilm_np.explain.source import lines_of
from minilm_np.trace import trace


def test_every_step_of_a_trace_has_its_lines() -> None:
    source = inspect.getsource(reference).splitlines()
    for name in trace(SentenceEncoder.random(backend="numpy"), "a"):
        first, *called = lines_of(name)
        recorded = name.rpartition(".")[2]
        assert f'record("{recorded}"' in first.code or f'{recorded}"' in first.code
        for excerpt in (first, *called):
            lines = source[excerpt.first - 1 : excerpt.last]
            assert [line.strip() for line in lines] == [line.strip() for line in excerpt.code.splitlines()]
        assert all(excerpt.code.startswith("def ") for excerpt in called)


@pytest.mark.parametrize(
    ("name", "first", "functions"),
    [
        ("encoder.layer.0.attention.self.query", "query = heads(", ["linear"]),
        ("encoder.layer.3.attention.self.scores", "scores = query @ key", ["softmax"]),
        ("encoder.layer.0.attention.output.LayerNorm", "norm = layer_norm(dense + x", ["layer_norm"]),
        ("encoder.layer.0.output.LayerNorm", "return record(", ["layer_norm"]),
        ("encoder.layer.0.intermediate.intermediate_act_fn", "activation = ", ["gelu"]),
        ("embeddings.position_embeddings", "rows = positions(", ["positions"]),
        ("pooling", "vector = record(", ["pooling"]),
        ("normalize", "return record(", ["normalize"]),
    ],
)
def test_the_lines_of_some_steps(name: str, first: str, functions: list[str]) -> None:
    excerpt, *called = lines_of(name)
    assert excerpt.code.startswith(first)
    assert [one.code.split("(")[0] for one in called] == [f"def {function}" for function in functions]


def test_an_unknown_step_is_an_error() -> None:
    with pytest.raises(LookupError, match="expected a call record"):
        lines_of("encoder.layer.0.nothing")

"""Hosts that call `np.seterr`: the public functions give the same results, and neither raise nor warn."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder, evaluation, util
from minilm_np.engine.registry import BACKENDS
from minilm_np.vectors.similarity import Array
from tests.support.compare import assert_same_bits

TEXTS = ["a", "", "zz b", "a" * 60 + "!", "ab " * 100]

FUNCTIONS: dict[str, Callable[[Array], Any]] = {
    **{
        name: lambda v, name=name: getattr(util, name)(v, v)  # type: ignore[misc]
        for name in util.__all__
        if name.endswith(("_sim", "_score")) or name == "semantic_search"
    },
    "normalize_embeddings": util.normalize_embeddings,
    "truncate_embeddings": lambda v: util.truncate_embeddings(v, 3),
    "community_detection": lambda v: util.community_detection(v, min_community_size=1),
    "paraphrase_mining_embeddings": util.paraphrase_mining_embeddings,
    **{
        f"quantize_embeddings {precision}": lambda v, precision=precision: util.quantize_embeddings(v, precision)  # type: ignore[misc]
        for precision in ("float32", "int8", "uint8", "binary", "ubinary")
    },
    "retrieval_vectors": lambda v: evaluation.retrieval_vectors(v, v, [[row] for row in range(len(v))]),
    "pearson": lambda v: evaluation.pearson(v[0], v[1]),
    "spearman": lambda v: evaluation.spearman(v[0], v[1]),
}


def _vectors() -> Iterator[Array]:
    """Vectors whose squares, products, or float32 values underflow or overflow; all are finite."""
    normal = np.random.default_rng(0).normal(size=(5, 8))
    yield np.zeros((3, 8), np.float32)
    for scale in (1e-30, 1e-44, 1.0, 1e30):
        yield (normal * scale).astype(np.float32)
    for scale in (1e-200, 1e-320, 1e200):
        yield normal * scale


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_vectors_has_its_result_under_any_mode(name: str) -> None:
    assert {name.split()[0] for name in FUNCTIONS} >= {n for n in util.__all__ if n.islower()} - {"paraphrase_mining"}
    for vectors in _vectors():
        found = {}
        for mode in ("ignore", "raise"):
            with np.errstate(all=mode):
                try:
                    found[mode] = FUNCTIONS[name](vectors)
                except ValueError as error:  # such as an overflow that the function refuses
                    found[mode] = str(error)
        assert repr(found["raise"]) == repr(found["ignore"])


def test_a_score_function_keeps_the_mode_of_its_caller() -> None:
    tiny = np.full((2, 3), 1e-30, np.float32)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        util.semantic_search(tiny, tiny, score_function=lambda a, b: a @ b.T)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_encoder_has_its_vectors_under_any_mode(backend: str) -> None:
    encoder = SentenceEncoder.random(backend=backend)
    calls: list[Callable[[], Any]] = [
        lambda: encoder.encode(TEXTS, normalize_embeddings=True, truncate_dim=5, on_truncation="ignore"),
        lambda: np.array(list(encoder.encode_iter(TEXTS, on_truncation="ignore"))),
        lambda: encoder.encode_long(TEXTS),
        lambda: encoder.encode_long(TEXTS, pooling="max"),
        lambda: encoder.encode(TEXTS[:4], output_value="token_embeddings")[3],
        lambda: list(encoder.trace("zz b").arrays.values())[-1],
        lambda: encoder.similarity(encoder.encode(TEXTS[:4]), encoder.encode(TEXTS[:4])),
    ]
    for call in calls:
        with np.errstate(all="ignore"):
            expected = call()
        with np.errstate(all="raise"):
            assert_same_bits(call(), expected)


_HOST = """
import numpy as np
np.seterr(all="raise")
from minilm_np import SentenceEncoder
print(SentenceEncoder.random().encode(["a text", ""]).shape)
"""


def test_a_host_may_set_its_mode_before_the_import() -> None:
    found = subprocess.run([sys.executable, "-c", _HOST], capture_output=True, text=True, check=True)
    assert found.stdout == "(2, 96)\n"

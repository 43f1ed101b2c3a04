"""What sentence-transformers' own code needs of an encoder: its evaluators give the scores of the same model in it."""

import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minilm_np import SentenceEncoder
from tests.conftest import load_sentence_transformer
from tests.support.compare import assert_close, assert_near, assert_same_bits

NAMES = ["cosine", "dot", "euclidean", "manhattan"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with prompts."""
    encoder = SentenceEncoder.random(seed=3)
    encoder.prompts.update(query="query: ", document="passage: ")
    path = tmp_path_factory.mktemp("evaluators") / "model"
    encoder.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[SentenceEncoder, Any]:
    """The same model in both libraries."""
    return SentenceEncoder(folder, threads=1), load_sentence_transformer(folder)


def texts(count: int) -> list[str]:
    """Different texts of a few words each."""
    words = "apple bread city dawn east fish gold hand iron joy king lake moon night oak pear".split()
    pick = random.Random(5)
    return [" ".join(pick.choices(words, k=pick.randint(2, 9))) + f" {number}" for number in range(count)]


def evaluators() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.sentence_transformer import evaluation
    return evaluation


def similarity(**options: Any) -> Any:
    pick = random.Random(6)
    scores = [pick.random() for _ in range(30)]
    return evaluators().EmbeddingSimilarityEvaluator(texts(60)[:30], texts(60)[30:], scores, **options)


def retrieval(**options: Any) -> Any:
    queries = {f"q{number}": text for number, text in enumerate(texts(8))}
    corpus = {f"d{number}": text for number, text in enumerate(texts(60)[8:])}
    relevant = {f"q{number}": {f"d{number}", f"d{number + 20}"} for number in range(8)}
    return evaluators().InformationRetrievalEvaluator(queries, corpus, relevant, **options)


def triplets(**options: Any) -> Any:
    return evaluators().TripletEvaluator(texts(60)[:20], texts(60)[20:40], texts(60)[40:], **options)


def classification(**options: Any) -> Any:
    labels = [number % 3 == 0 for number in range(30)]
    return evaluators().BinaryClassificationEvaluator(texts(60)[:30], texts(60)[30:], list(map(int, labels)), **options)


def mining(**options: Any) -> Any:
    sentences = {str(number): text for number, text in enumerate(texts(40))}
    pairs = [(str(number), str(39 - number)) for number in range(10)]
    return evaluators().ParaphraseMiningEvaluator(sentences, pairs, **options)


def reranking(**options: Any) -> Any:
    samples = [
        {"query": text, "positive": texts(60)[10 + number : 12 + number], "negative": texts(60)[30 + number :]}
        for number, text in enumerate(texts(6))
    ]
    return evaluators().RerankingEvaluator(samples, **options)


KINDS: dict[str, Callable[..., Any]] = {
    "similarity": similarity,
    "retrieval": retrieval,
    "triplets": triplets,
    "classification": classification,
    "mining": mining,
    "reranking": reranking,
}


def assert_equal_scores(both: tuple[SentenceEncoder, Any], kind: str, **options: Any) -> dict[str, float]:
    found, expected = ({**KINDS[kind](**options)(model)} for model in both)
    assert found
    assert_near(found, expected, 2e-6)
    return found


@pytest.mark.parametrize("truncate_dim", [None, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluators_give_the_same_scores(
    both: tuple[SentenceEncoder, Any], kind: str, truncate_dim: int | None
) -> None:
    assert_equal_scores(both, kind, truncate_dim=truncate_dim)


@pytest.mark.parametrize("kind", ["similarity", "triplets", "classification"])
def test_evaluators_give_the_same_scores_with_every_similarity(both: tuple[SentenceEncoder, Any], kind: str) -> None:
    found = assert_equal_scores(both, kind, similarity_fn_names=NAMES)
    assert all(any(name in metric for metric in found) for name in NAMES)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_evaluators_give_the_same_scores_with_bits(both: tuple[SentenceEncoder, Any], precision: str) -> None:
    assert_equal_scores(both, "similarity", precision=precision)


@pytest.mark.parametrize("name", NAMES)
def test_retrieval_is_scored_by_the_encoders_similarity(both: tuple[SentenceEncoder, Any], name: str) -> None:
    try:
        for model in both:
            model.similarity_fn_name = name
        found = assert_equal_scores(both, "retrieval")
    finally:
        for model in both:
            model.similarity_fn_name = "cosine"
    assert all(metric.startswith(f"{name}_") for metric in found)


def test_similarities_of_tensors_are_tensors(both: tuple[SentenceEncoder, Any]) -> None:
    encoder, model = both
    arrays = encoder.encode(texts(5)), encoder.encode(texts(12)[7:])
    tensors = tuple(map(torch.from_numpy, arrays))
    for method in ("similarity", "similarity_pairwise"):
        compare = getattr(encoder, method)
        found, expected = compare(*tensors), getattr(model, method)(*tensors)
        assert (type(found), found.dtype, found.shape) == (torch.Tensor, expected.dtype, expected.shape)
        assert_close(found.numpy(), expected.numpy(), abs_=1e-6)
        assert_same_bits(compare(*arrays), found.numpy())
        assert type(compare(arrays[0], tensors[1])) is np.ndarray  # mixed: an array, as before
        assert compare(tensors[0][0], tensors[1][0]).shape == getattr(model, method)(tensors[0][0], tensors[1][0]).shape


# ---- the device ------------------------------------------------------------------------------------------------------


def test_the_device_equals_torchs_and_its_name(both: tuple[SentenceEncoder, Any]) -> None:
    device, torchs = both[0].device, torch.device("cpu")
    assert device == torchs
    assert torchs == device
    assert (device != torchs, torchs != device) == (False, False)  # other methods than those of ==
    assert device == "cpu"
    assert "cpu" == device  # noqa: SIM300 - the other operand's method
    assert device != torch.device("cuda")
    assert torch.device("cpu", 0) != device
    assert device != "cuda"
    assert device != 1
    by_name: dict[str, int] = {device: 1}
    assert (device.type, str(device), repr(device), by_name["cpu"]) == ("cpu", "cpu", "'cpu'", 1)
    assert torch.device(device) == torchs
    assert torch.ones(1).to(device).device == device
    assert SentenceEncoder.random(backend="numpy").encode("a", device=device).shape == (96,)


def test_the_device_is_a_name_without_torch() -> None:
    code = """
import sys, minilm_np
sys.modules["torch"] = None
encoder = minilm_np.SentenceEncoder.random(backend="numpy")
print(encoder.device == "cpu", encoder.device != "cpu", encoder.device == "cuda", encoder.similarity([1.0], [1.0]))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "True False False [[1.]]\n"

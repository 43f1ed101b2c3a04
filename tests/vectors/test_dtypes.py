"""Vectors in dtypes that NumPy lacks, and sparse vectors: scored as upstream, or refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilm_np import util
from minilm_np.errors import InputTypeError
from tests.support.compare import assert_close, assert_same_bits
from tests.support.vectors import as_tensor, random_vectors

A, B = (random_vectors(seed, 5, 8) for seed in (1, 2))
LOW_PRECISION = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def low_precision(vectors: np.ndarray, dtype: str) -> Any:
    import torch

    return as_tensor(np.clip(vectors, -400, 400)).to(getattr(torch, dtype))  # 448 is the largest float8_e4m3fn


@pytest.mark.parametrize("dtype", LOW_PRECISION)
@pytest.mark.parametrize("name", ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim", "pairwise_cos_sim"])
def test_tensors_of_low_precision_are_scored_in_float32_as_upstream(upstream: Any, name: str, dtype: str) -> None:
    a, b = low_precision(A, dtype), low_precision(B, dtype)
    found, expected = getattr(util, name)(a, b), getattr(upstream, name)(a, b).numpy()
    assert found.dtype == expected.dtype == np.float32
    assert_close(found, expected, rel=1e-5)
    assert_same_bits(getattr(util, name)(list(a), list(b)), found)  # a list of tensors
    assert_same_bits(getattr(util, name)(a.float().numpy(), b.float().numpy()), found)


def test_bfloat16_is_searched_normalised_and_quantized_as_upstream(upstream: Any) -> None:
    generator = np.random.default_rng(3)  # no equal scores, which upstream puts in any order
    a, b = (low_precision(generator.normal(size=(5, 8)).astype(np.float32), "bfloat16") for _ in range(2))
    ids = [[hit["corpus_id"] for hit in hits] for hits in util.semantic_search(a, b, top_k=3)]
    assert ids == [[hit["corpus_id"] for hit in hits] for hits in upstream.semantic_search(a, b, top_k=3)]
    assert_same_bits(util.quantize_embeddings(a, "ubinary"), upstream.quantize_embeddings(a, "ubinary"))
    assert util.normalize_embeddings(a).dtype == np.float32


def test_bfloat16_arrays_of_other_libraries_are_read() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        a = np.clip(A, -400, 400).astype(dtype)
        assert_same_bits(util.dot_score(a, a), util.dot_score(a.astype(np.float32), a.astype(np.float32)))


def coo() -> Any:
    return as_tensor(A).to_sparse()


def csr() -> Any:
    return as_tensor(A).to_sparse_csr()


def scipy_matrix() -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix(A)


def scipy_array() -> Any:
    from scipy.sparse import coo_array

    return coo_array(A)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize(
    ("sparse", "message"),
    [
        (coo, r"a: expected dense vectors, found a sparse Tensor: pass its \.to_dense\(\) if that fits in memory$"),
        (csr, r"a: expected dense vectors, found a sparse Tensor: pass its \.to_dense\(\)"),
        (lambda: list(coo()), r"a: expected dense vectors, found a sparse Tensor: pass its \.to_dense\(\)"),
        (scipy_matrix, r"a: expected dense vectors, found a sparse csr_matrix: pass its \.toarray\(\)"),
        (scipy_array, r"a: expected dense vectors, found a sparse coo_array: pass its \.toarray\(\)"),
    ],
    ids=["torch COO", "torch CSR", "list of torch COO", "SciPy matrix", "SciPy array"],
)
def test_sparse_vectors_are_refused_by_name(sparse: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        util.cos_sim(sparse(), A)
    with pytest.raises(InputTypeError, match="embeddings: expected dense vectors, found a sparse"):
        util.quantize_embeddings(sparse(), "binary")

"""How alike vectors are: every pair of two sets, or pair by pair. Named and called as in sentence_transformers.util.

Vectors are a NumPy array, whatever `np.asarray` reads (a torch tensor on the CPU), a list of either, or lists of
numbers, which count as float32. A result has the dtype of what goes in: float32 stays float32, float16 is computed in
float32, integers in int64, and of two dtypes the wider one wins, a floating-point one over integers.

Upstream: sentence_transformers/util/similarity.py and tensor.py.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.names import ScoreFunction, SimilarityFunction

Array = NDArray[Any]

BLOCK = 1 << 20  # numbers in a temporary array of the distances below

quiet = np.errstate(over="ignore", invalid="ignore")  # NaN and infinity go in and come out as in torch


def as_array(embeddings: Any, name: str = "embeddings") -> Array:
    """Whatever holds vectors as an array of at least one axis, its dtype kept; numbers of Python become float32.

    Raises InputTypeError (no numbers in it), InputValueError (vectors of several lengths, a single number).
    """
    try:
        if isinstance(embeddings, list | tuple) and embeddings and all(hasattr(row, "__array__") for row in embeddings):
            array = np.stack([np.asarray(row) for row in embeddings])
        else:
            array = np.asarray(embeddings)
            if array.dtype == np.float64 and not hasattr(embeddings, "__array__"):
                array = array.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = InputValueError if isinstance(error, ValueError) else InputTypeError
        raise kind(
            f"{name}: cannot be read as an array of numbers: {error} (vectors must be of one length; a torch tensor "
            "may need .detach().cpu().float() first)"
        ) from None
    if array.dtype.kind not in "fiu":
        raise InputTypeError(f"{name}: expected an array of numbers, found {type(embeddings).__name__} {array.dtype}")
    if array.ndim == 0:
        raise InputValueError(f"{name}: expected vectors, found the single number {embeddings!r}")
    return array


def as_matrix(embeddings: Any, name: str = "embeddings") -> Array:
    """As `as_array`, and (n, D): a single vector becomes one row."""
    array = as_array(embeddings, name)
    if array.ndim > 2:
        raise InputValueError(f"{name}: expected a vector (D,) or vectors (n, D), found the shape {array.shape}")
    return np.atleast_2d(array)


def normalize_embeddings(embeddings: Any) -> Array:
    """x / |x|, along the last axis: to unit length, in the dtype that is given. A zero vector stays zero.

    The length is taken as at least 1e-12, as torch does.
    Raises InputTypeError where these are no floating-point numbers.
    """
    array = as_array(embeddings)
    return unit_vectors(array, "normalize_embeddings").astype(array.dtype, copy=False)


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Array:
    """The first `truncate_dim` numbers of each vector, or all of them for None; a view, no longer of unit length."""
    return as_array(embeddings)[..., :truncate_dim]


# ---- every pair: (n, D), (m, D) -> (n, m); a single vector (D,) counts as one row ------------------------------------


@quiet
def cos_sim(a: Any, b: Any) -> Array:
    """The cosine of the angle between each a[i] and b[j]; 0 where one of them is zero."""
    a, b = _matrices(a, b, "cos_sim", floats=True)
    return _unit(a) @ _unit(b).T


@quiet
def dot_score(a: Any, b: Any) -> Array:
    """The dot product of each a[i] and b[j]; the cosine if they are of unit length."""
    a, b = _matrices(a, b, "dot_score")
    return a @ b.T


@quiet
def euclidean_sim(a: Any, b: Any) -> Array:
    """-|a[i] - b[j]|, the negative Euclidean distance, so that more is nearer.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, in float64 and a block of b at a time. Of vectors that are near each other this
    keeps too few digits: for those the differences themselves are squared, and a vector's distance to itself is 0.
    """
    a, b = _matrices(a, b, "euclidean_sim", floats=True)
    scores = np.empty((len(a), len(b)), np.result_type(a, b))
    a = a.astype(np.float64)
    a_squared = np.vecdot(a, a)[:, None]
    for columns in _blocks(len(b), max(a.shape)):
        part = b[columns].astype(np.float64)
        lengths = a_squared + np.vecdot(part, part)
        squared = lengths - 2 * (a @ part.T)
        near = ~(squared > 1e-4 * lengths)  # or not finite
        for i in np.flatnonzero(near.any(axis=1)):
            difference = part[near[i]] - a[i]
            squared[i, near[i]] = np.vecdot(difference, difference)
        scores[:, columns] = -np.sqrt(squared)
    return scores


@quiet
def manhattan_sim(a: Any, b: Any) -> Array:
    """-sum |a[i] - b[j]|, the negative Manhattan distance, so that more is nearer."""
    a, b = _matrices(a, b, "manhattan_sim", floats=True)
    scores = np.empty((len(a), len(b)), np.result_type(a, b))
    for columns in _blocks(len(b), 8 * a.shape[1]):  # an eighth stays in the processor's cache
        part = b[columns]
        for i, vector in enumerate(a):
            scores[i, columns] = -np.abs(part - vector).sum(axis=1)
    return scores


# ---- pair by pair: (..., D), (..., D) -> (...), broadcast as arithmetic is; of two (D,) a NumPy scalar ---------------


@quiet
def pairwise_cos_sim(a: Any, b: Any) -> Array:
    """The cosine of the angle between a[i] and b[i]; 0 where one of them is zero."""
    a, b = _pairs(a, b, "pairwise_cos_sim", floats=True)
    return np.vecdot(_unit(a), _unit(b))


@quiet
def pairwise_dot_score(a: Any, b: Any) -> Array:
    """The dot product of a[i] and b[i]."""
    a, b = _pairs(a, b, "pairwise_dot_score")
    return np.vecdot(a, b)


@quiet
def pairwise_euclidean_sim(a: Any, b: Any) -> Array:
    """-|a[i] - b[i]|, the negative Euclidean distance; of integers in float32."""
    a, b = _pairs(a, b, "pairwise_euclidean_sim")
    difference = a - b
    length = np.sqrt(np.vecdot(difference, difference))
    return -length if difference.dtype.kind == "f" else -length.astype(np.float32)


@quiet
def pairwise_manhattan_sim(a: Any, b: Any) -> Array:
    """-sum |a[i] - b[i]|, the negative Manhattan distance."""
    a, b = _pairs(a, b, "pairwise_manhattan_sim")
    return -np.abs(a - b).sum(axis=-1)


@quiet
def pairwise_angle_sim(x: Any, y: Any) -> Array:
    """|cosine + sine| of x[i] and y[i], (n, D), the similarity of AnglE (Li and Li, 2023, arXiv 2309.12871).

    The sine pairs number d with number d + D/2, as the parts of a complex number; an odd D is filled up with a 0.
    """
    x, y = (as_matrix(vectors, f"pairwise_angle_sim, {name}") for vectors, name in ((x, "x"), (y, "y")))
    x, y = _pairs(x, y, "pairwise_angle_sim", floats=True)
    x, y = (np.pad(_unit(vectors), [(0, 0), (0, vectors.shape[1] % 2)]) for vectors in (x, y))
    half = x.shape[1] // 2
    sine = np.vecdot(x[:, half:], y[:, :half]) - np.vecdot(x[:, :half], y[:, half:])
    return np.abs(np.vecdot(x, y) + sine)


FUNCTIONS: dict[SimilarityFunction, tuple[ScoreFunction, ScoreFunction]] = {
    SimilarityFunction.COSINE: (cos_sim, pairwise_cos_sim),
    SimilarityFunction.DOT: (dot_score, pairwise_dot_score),
    SimilarityFunction.EUCLIDEAN: (euclidean_sim, pairwise_euclidean_sim),
    SimilarityFunction.MANHATTAN: (manhattan_sim, pairwise_manhattan_sim),
}


# ---- what they share -------------------------------------------------------------------------------------------------


@quiet
def unit_vectors(array: Array, function: str) -> Array:  # (..., D) -> (..., D)
    """As `normalize_embeddings`, in the dtype that is computed in."""
    return _unit(_computable(array, function, floats=True))


def _unit(x: Array) -> Array:
    return x / np.maximum(np.sqrt(np.vecdot(x, x)), 1e-12)[..., None]


def _matrices(a: Any, b: Any, function: str, floats: bool = False) -> tuple[Array, Array]:
    return _together(as_matrix(a, f"{function}, a"), as_matrix(b, f"{function}, b"), function, floats)


def _pairs(a: Any, b: Any, function: str, floats: bool = False) -> tuple[Array, Array]:
    a, b = _together(as_array(a, f"{function}, a"), as_array(b, f"{function}, b"), function, floats)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise InputValueError(
            f"{function}: expected as many vectors in a as in b, found the shapes {a.shape} and {b.shape}"
        ) from None
    return a, b


def _together(a: Array, b: Array, function: str, floats: bool) -> tuple[Array, Array]:
    check_dimensions(a, b, f"{function}: a", "b")
    a, b = _computable(a, function, floats), _computable(b, function, floats)
    if a.dtype.kind != b.dtype.kind:  # integers take the other's dtype; NumPy would make float64 of both
        dtype = a.dtype if a.dtype.kind == "f" else b.dtype
        return a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    return a, b


def _computable(array: Array, function: str, floats: bool = False) -> Array:
    """An array in a dtype that sums of products fit in."""
    if array.dtype.kind == "f":
        return array.astype(np.float32) if array.dtype.itemsize < 4 else array
    if floats:
        raise InputTypeError(
            f"{function}: expected floating-point numbers, found {array.dtype}: convert them, with .astype(np.float32)"
        )
    return array.astype(np.int64)


def check_dimensions(a: Array, b: Array, a_name: str, b_name: str) -> None:
    """Raise InputValueError unless the vectors of both have as many numbers."""
    if a.shape[-1] != b.shape[-1]:
        hint = " (an empty list has no dimension: pass np.empty((0, D)))" if 0 in (*a.shape, *b.shape) else ""
        raise InputValueError(
            f"{a_name} and {b_name} must have vectors of one length, found the shapes {a.shape} and {b.shape}{hint}"
        )


def _blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows, of as many as fit in a block with `width` numbers a row, at least one."""
    size = max(1, BLOCK // max(1, width))
    return (slice(start, start + size) for start in range(0, n, size))

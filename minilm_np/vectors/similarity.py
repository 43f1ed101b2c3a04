"""Similarity scores of vectors, for every pair of two sets or for corresponding vectors.

Names and arguments are those of sentence_transformers.util. Vectors may be a NumPy array, anything that `np.asarray`
reads (such as a torch tensor on the CPU), a list of either, or lists of numbers, which are read as float32. float32
input gives float32 scores; float16, bfloat16 and floats of 8 bits are computed in float32, integers in int64. If the
two dtypes differ, the wider one is used, and a floating-point one rather than an integer one. Sparse vectors are
refused.

Upstream: sentence_transformers/util/similarity.py and tensor.py.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilm_np.errors import InputTypeError, InputValueError, MiniLMError

Array = NDArray[Any]
F = TypeVar("F", bound=np.floating)
SimilarityMeasure = Callable[[ArrayLike, ArrayLike], Array]  # in this file: takes all that `as_array` reads
ScoreFunction = Callable[[Array, Array], ArrayLike]  # of the caller: takes arrays

BLOCK = 1 << 20  # numbers in a temporary array of the distances below

# A decorator: NaN, infinity and underflow pass without a warning, as in torch, whatever the caller's `np.seterr` is.
# It cannot be used in a `with` statement, because NumPy allows one entry per object.
quiet = np.errstate(all="ignore")


def as_array(embeddings: ArrayLike, name: str = "embeddings") -> Array:
    """Vectors as an array of at least one axis. Keeps the dtypes of NumPy; other floats become float32.

    Raises InputTypeError (not numbers, sparse), InputValueError (vectors of different lengths, a single number).
    """
    try:
        if isinstance(embeddings, list | tuple) and embeddings and all(hasattr(row, "__array__") for row in embeddings):
            array = np.stack([_dense(row, name) for row in embeddings])
        else:
            array = _dense(embeddings, name)
            if array.dtype == np.float64 and not hasattr(embeddings, "__array__"):
                array = array.astype(np.float32)
    except MiniLMError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        kind = InputValueError if isinstance(error, ValueError) else InputTypeError
        raise kind(
            f"{name}: cannot be read as an array of numbers: {error} (all vectors must have the same length; a torch "
            "tensor may need .detach().cpu().float() first)"
        ) from None
    if array.dtype.kind not in "fiu":
        raise InputTypeError(f"{name}: expected an array of numbers, found {type(embeddings).__name__} {array.dtype}")
    if array.ndim == 0:
        raise InputValueError(f"{name}: expected vectors, found the single number {embeddings!r}")
    return array


def _dense(embeddings: ArrayLike, name: str) -> Array:
    """An object as an array, without a copy if NumPy has its dtype. Raises InputTypeError if it is sparse.

    torch and SciPy are not imported: their objects are recognised by their attributes.
    """
    if type(embeddings) is np.ndarray and embeddings.dtype.kind != "V":  # the quick way for long lists of arrays
        return embeddings
    if str(getattr(embeddings, "layout", "")).startswith("torch.sparse") or hasattr(embeddings, "tocoo"):
        method = "to_dense" if hasattr(embeddings, "to_dense") else "toarray"
        raise InputTypeError(
            f"{name}: expected dense vectors, found a sparse {type(embeddings).__name__}: pass its .{method}() if that "
            "fits in memory"
        )
    if str(getattr(embeddings, "dtype", "")).startswith(("torch.bfloat16", "torch.float8")):
        embeddings = cast(Any, embeddings).float()  # NumPy cannot read a tensor of these
    array = np.asarray(embeddings)
    of_ml_dtypes = array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat16", "float8"))
    return array.astype(np.float32) if of_ml_dtypes else array


def as_matrix(embeddings: ArrayLike, name: str = "embeddings") -> Array:
    """Vectors as an array (n, D); a single vector becomes one row. Otherwise as `as_array`."""
    array = as_array(embeddings, name)
    if array.ndim > 2:
        raise InputValueError(f"{name}: expected a vector (D,) or vectors (n, D), found the shape {array.shape}")
    return np.atleast_2d(array)


@overload
def normalize_embeddings(embeddings: NDArray[F]) -> NDArray[F]: ...
@overload
def normalize_embeddings(embeddings: ArrayLike) -> Array: ...
def normalize_embeddings(embeddings: ArrayLike) -> Array:
    """Scale vectors to unit length: x / max(|x|, 1e-12) along the last axis, in the same dtype.

    bfloat16 becomes float32. The lower bound is that of torch; a zero vector stays zero.
    Raises InputTypeError unless the numbers are floating-point.
    """
    array = as_array(embeddings)
    return unit_vectors(array, "normalize_embeddings").astype(array.dtype, copy=False)


@overload
def truncate_embeddings(embeddings: NDArray[F], truncate_dim: int | None) -> NDArray[F]: ...
@overload
def truncate_embeddings(embeddings: ArrayLike, truncate_dim: int | None) -> Array: ...
def truncate_embeddings(embeddings: ArrayLike, truncate_dim: int | None) -> Array:
    """The first `truncate_dim` numbers of each vector (None: all), as a view. They are no longer of unit length."""
    return as_array(embeddings)[..., :truncate_dim]


# ---- every pair: (n, D), (m, D) -> (n, m); a single vector (D,) is one row -------------------------------------------


@quiet
def cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """The cosine of the angle between each a[i] and each b[j]; 0 if one of them is a zero vector.

    Never outside [-1, 1], and exactly 1 for equal vectors: see `cosines`.
    """
    a, b = _matrices(a, b, "cos_sim", floats=True)
    return cosines(_unit(a), _unit(b))


@quiet
def dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """The dot product of each a[i] and each b[j]; for vectors of unit length, their cosine."""
    a, b = _matrices(a, b, "dot_score")
    return a @ b.T


@quiet
def euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """-|a[i] - b[j]|, the negative Euclidean distance: a higher score is a smaller distance.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, in float64, for one block of b at a time. For vectors that are close to each
    other the subtraction cancels most digits; their differences are squared instead, so that the distance of a vector
    to itself is 0.
    """
    a, b = _matrices(a, b, "euclidean_sim", floats=True)
    scores = np.empty((len(a), len(b)), np.result_type(a, b))
    a = a.astype(np.float64)
    a_squared = np.vecdot(a, a)[:, None]
    for columns in _blocks(len(b), max(a.shape)):
        part = b[columns].astype(np.float64)
        lengths = a_squared + np.vecdot(part, part)
        squared = lengths - 2 * (a @ part.T)
        near = ~(squared > 1e-4 * lengths)  # true for NaN, too
        for i in np.flatnonzero(near.any(axis=1)):
            difference = part[near[i]] - a[i]
            squared[i, near[i]] = np.vecdot(difference, difference)
        scores[:, columns] = -np.sqrt(squared)
    return scores


@quiet
def manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """-sum |a[i] - b[j]|, the negative Manhattan distance: a higher score is a smaller distance."""
    a, b = _matrices(a, b, "manhattan_sim", floats=True)
    scores = np.empty((len(a), len(b)), np.result_type(a, b))
    for columns in _blocks(len(b), 8 * a.shape[1]):  # an eighth of a block stays in the CPU cache
        part = b[columns]
        for i, vector in enumerate(a):
            scores[i, columns] = -np.abs(part - vector).sum(axis=1)
    return scores


# ---- corresponding vectors: (..., D), (..., D) -> (...), with broadcasting; a NumPy scalar for two vectors (D,) ------


@quiet
def pairwise_cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """The cosine of the angle between a[i] and b[i]; 0 if one of them is a zero vector.

    Never outside [-1, 1], and exactly 1 for equal vectors: see `cosines`.
    """
    a, b = _pairs(a, b, "pairwise_cos_sim", floats=True)
    u, v = np.broadcast_arrays(_unit(a), _unit(b))
    scores = np.asarray(np.vecdot(u, v))
    near = scores > _near_one(u, v)
    scores[near] = _cosine_of_near(u[near], v[near])
    return np.maximum(scores, -1)[()]


@quiet
def pairwise_dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """The dot product of a[i] and b[i]."""
    a, b = _pairs(a, b, "pairwise_dot_score")
    return np.vecdot(a, b)


@quiet
def pairwise_euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """-|a[i] - b[i]|, the negative Euclidean distance; for integers, as float32."""
    a, b = _pairs(a, b, "pairwise_euclidean_sim")
    difference = a - b
    length = np.sqrt(np.vecdot(difference, difference))
    return -length if difference.dtype.kind == "f" else -length.astype(np.float32)


@quiet
def pairwise_manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """-sum |a[i] - b[i]|, the negative Manhattan distance."""
    a, b = _pairs(a, b, "pairwise_manhattan_sim")
    return -np.abs(a - b).sum(axis=-1)


@quiet
def pairwise_angle_sim(x: ArrayLike, y: ArrayLike) -> Array:
    """|cosine + sine| of x[i] and y[i], (n, D): the similarity of AnglE (Li and Li, 2023, arXiv 2309.12871).

    For the sine, numbers d and d + D/2 are the real and the imaginary part of a complex number; an odd D is padded with
    one 0.
    """
    x, y = (as_matrix(vectors, f"pairwise_angle_sim, {name}") for vectors, name in ((x, "x"), (y, "y")))
    x, y = _pairs(x, y, "pairwise_angle_sim", floats=True)
    x, y = (np.pad(_unit(vectors), [(0, 0), (0, vectors.shape[1] % 2)]) for vectors in (x, y))
    half = x.shape[1] // 2
    sine = np.vecdot(x[:, half:], y[:, :half]) - np.vecdot(x[:, :half], y[:, half:])
    return np.abs(np.vecdot(x, y) + sine)


class SimilarityFunction(Enum):
    """The similarity functions by name: "cosine", "dot", "euclidean", "manhattan"."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796 - an alias of DOT_PRODUCT, as upstream
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def to_similarity_fn(similarity_function: "str | SimilarityFunction") -> SimilarityMeasure:
        """The function that scores every pair. Raises InputValueError for an unknown name."""
        return _functions(similarity_function)[0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: "str | SimilarityFunction") -> SimilarityMeasure:
        """The function that scores corresponding vectors. Raises InputValueError for an unknown name."""
        return _functions(similarity_function)[1]

    @staticmethod
    def possible_values() -> list[str]:
        """The names of all similarity functions."""
        return [function.value for function in SimilarityFunction]


FUNCTIONS: dict[str, tuple[SimilarityMeasure, SimilarityMeasure]] = {  # for every pair, for corresponding vectors
    "cosine": (cos_sim, pairwise_cos_sim),
    "dot": (dot_score, pairwise_dot_score),
    "euclidean": (euclidean_sim, pairwise_euclidean_sim),
    "manhattan": (manhattan_sim, pairwise_manhattan_sim),
}


def _functions(name: "str | SimilarityFunction") -> tuple[SimilarityMeasure, SimilarityMeasure]:
    try:
        return FUNCTIONS[SimilarityFunction(name).value]
    except ValueError:
        expected = ", ".join(map(repr, FUNCTIONS))
        raise InputValueError(f"similarity function: expected one of {expected}, found {name!r}") from None


# ---- helpers ---------------------------------------------------------------------------------------------------------


@quiet
def unit_vectors(array: Array, function: str) -> Array:  # (..., D) -> (..., D)
    """Scale vectors to unit length, as `normalize_embeddings`, but in the dtype of the computation."""
    return _unit(_computable(array, function, floats=True))


@quiet
def cosines(u: Array, v: Array) -> Array:  # (n, D), (m, D) -> (n, m)
    """The cosines of vectors that `unit_vectors` returned: dot products, without the rounding errors next to 1.

    A matrix product rounds the cosine of a vector with itself to 0.9999999 or 1.0000001, and the cosines of equal
    vectors not even to equal numbers. Every score within that error of 1 is therefore computed again: it is 1 for
    vectors of equal bits, and 1 - |u - v|^2 / 2 for others, which is at most 1. So equal vectors reach any threshold up
    to 1.
    """
    scores = u @ v.T
    near = scores > _near_one(u, v)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    numbers: dict[bytes, int] = {}  # by the bits of a vector: many duplicates take no time this way
    of_row, of_column = (np.empty(len(x), np.int64) for x in (u, v))
    of_row[rows] = [numbers.setdefault(u[i].tobytes(), len(numbers)) for i in rows]
    of_column[columns] = [numbers.setdefault(v[j].tobytes(), len(numbers)) for j in columns]
    for i in rows:
        entries = np.flatnonzero(near[i])
        equal = of_column[entries] == of_row[i]
        scores[i, entries[equal]] = 1
        entries = entries[~equal]
        for part in _blocks(len(entries), u.shape[1]):
            scores[i, entries[part]] = _cosine_of_near(u[i], v[entries[part]])
    return np.maximum(scores, -1, out=scores)


def _near_one(u: Array, v: Array) -> float:
    """1 less a bound on the rounding error of a dot product of unit vectors, whatever the order of its sum.

    For D numbers the sum and the two lengths round by at most D eps together (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1); 4 eps more for the divisions and the square roots.
    """
    return 1.0 - (u.shape[-1] + 4) * max(float(np.finfo(x.dtype).eps) for x in (u, v))


def _cosine_of_near(u: Array, v: Array) -> Array:  # (..., D), (..., D) -> (...)
    difference = u - v
    return 1 - np.vecdot(difference, difference) / 2


def _unit(x: Array) -> Array:
    return x / np.maximum(np.sqrt(np.vecdot(x, x)), 1e-12)[..., None]


def _matrices(a: ArrayLike, b: ArrayLike, function: str, floats: bool = False) -> tuple[Array, Array]:
    return _together(as_matrix(a, f"{function}, a"), as_matrix(b, f"{function}, b"), function, floats)


def _pairs(a: ArrayLike, b: ArrayLike, function: str, floats: bool = False) -> tuple[Array, Array]:
    a, b = _together(as_array(a, f"{function}, a"), as_array(b, f"{function}, b"), function, floats)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise InputValueError(
            f"{function}: expected the same number of vectors in a and b, found the shapes {a.shape} and {b.shape}"
        ) from None
    return a, b


def _together(a: Array, b: Array, function: str, floats: bool) -> tuple[Array, Array]:
    check_dimensions(a, b, f"{function}: a", "b")
    a, b = _computable(a, function, floats), _computable(b, function, floats)
    if a.dtype.kind != b.dtype.kind:  # integers take the other dtype; NumPy would convert both to float64
        dtype = a.dtype if a.dtype.kind == "f" else b.dtype
        return a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    return a, b


def _computable(array: Array, function: str, floats: bool = False) -> Array:
    """Convert an array to a dtype that holds sums of products."""
    if array.dtype.kind == "f":
        return array.astype(np.float32) if array.dtype.itemsize < 4 else array
    if floats:
        raise InputTypeError(
            f"{function}: expected floating-point numbers, found {array.dtype}: convert them with .astype(np.float32)"
        )
    return array.astype(np.int64)


def check_dimensions(a: Array, b: Array, a_name: str, b_name: str) -> None:
    """Raise InputValueError unless the vectors of both arrays have the same length."""
    if a.shape[-1] != b.shape[-1]:
        hint = " (an empty list has no dimension: pass np.empty((0, D)))" if 0 in (*a.shape, *b.shape) else ""
        raise InputValueError(
            f"{a_name} and {b_name} must have vectors of the same length, found the shapes {a.shape} and {b.shape}"
            f"{hint}"
        )


def _blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows, each with as many rows as fit in a block of `width` numbers per row, but at least one."""
    size = max(1, BLOCK // max(1, width))
    return (slice(start, start + size) for start in range(0, n, size))

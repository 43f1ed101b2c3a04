"""What the tests of vectors share: random vectors, and the kinds of objects that hold vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**32 - 1)


def random_vectors(seed: int, n: int, D: int, dtype: str = "float32") -> np.ndarray:
    """Vectors with numbers of very different magnitudes; some vectors are zero, some are equal."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(0, 1, (n, D)) * 10.0 ** generator.integers(-3, 4, (n, 1))
    vectors[generator.random(n) < 0.15] = 0
    if n > 1 and generator.random() < 0.5:
        vectors[0] = vectors[-1]
    return np.round(vectors).astype(dtype) if dtype.startswith("int") else vectors.astype(dtype)


def as_tensor(vectors: np.ndarray) -> Any:
    """A torch tensor that shares the memory of an array."""
    import torch

    return torch.from_numpy(vectors)


HOLDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda vectors: vectors,
    "tensor": as_tensor,
    "arrays": list,
    "tensors": lambda vectors: [as_tensor(vector) for vector in vectors],
    "numbers": lambda vectors: vectors.tolist(),
    "tuple": lambda vectors: tuple(map(tuple, vectors.tolist())),
}

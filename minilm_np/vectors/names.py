"""The names of the similarity functions and of the precisions. Imports no NumPy, so that a check of a name is cheap."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from minilm_np._checks import one_of
from minilm_np.errors import InputValueError

ScoreFunction = Callable[[Any, Any], Any]

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


class SimilarityFunction(Enum):
    """The similarity functions by name: "cosine", "dot", "euclidean", "manhattan"."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796 - an alias of DOT_PRODUCT, as upstream
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def to_similarity_fn(similarity_function: "str | SimilarityFunction") -> ScoreFunction:
        """The function that scores every pair of two sets of vectors. Raises InputValueError for an unknown name."""
        return _functions(similarity_function)[0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: "str | SimilarityFunction") -> ScoreFunction:
        """The function that scores vectors pair by pair. Raises InputValueError for an unknown name."""
        return _functions(similarity_function)[1]

    @staticmethod
    def possible_values() -> list[str]:
        """The names, in the order of their definition."""
        return [function.value for function in SimilarityFunction]


def _functions(name: "str | SimilarityFunction") -> tuple[ScoreFunction, ScoreFunction]:
    from minilm_np.vectors.similarity import FUNCTIONS

    try:
        return FUNCTIONS[SimilarityFunction(name)]
    except ValueError:
        expected = one_of(SimilarityFunction.possible_values())
        raise InputValueError(f"similarity function: expected {expected}, found {name!r}") from None

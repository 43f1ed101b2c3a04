"""scikit-learn: sentence vectors as a transformer, for pipelines, parameter searches and clustering."""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Self

from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputTypeError
from minilm_np.integrations import Backend, encode, missing
from minilm_np.model_files.manifest import DEFAULT_MODEL

if TYPE_CHECKING:
    from sklearn.utils import Tags

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ModuleNotFoundError as error:
    raise missing("sklearn", "scikit-learn", error) from error


class SentenceVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Turn texts into sentence vectors. There is nothing to fit: `transform` works without `fit`.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    Clones and pickles are small: they hold the parameters only, and the model is loaded on first use. A pickle gives
    the same vectors on every machine that has the same model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: Backend = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> None:
        self.model = model
        self.backend = backend
        self.threads = threads
        self.normalize_embeddings = normalize_embeddings
        self.truncate_dim = truncate_dim

    def fit(self, X: Collection[str], y: object = None) -> Self:
        """Check the texts and the parameters, and load the model. Raises as `transform`."""
        self.transform(_texts(X)[:1])
        return self

    def transform(self, X: Collection[str]) -> Vectors:  # B texts -> (B, D), or (B, truncate_dim)
        """Encode texts: a list, a one-dimensional array, or a column of a table.

        Returns float32. Raises InputTypeError (X is something else), and as `SentenceEncoder` and its `encode`.
        """
        return encode(_texts(X), **self.get_params(deep=False))

    @property
    def _n_features_out(self) -> int:
        return self.transform([""]).shape[1]

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


def _texts(X: Collection[str]) -> list[str]:
    """Texts as a list. Refuses a str (iterating gives its letters) and a table (iterating gives its column names)."""
    shape = getattr(X, "shape", (0,))
    if isinstance(X, str | bytes) or not hasattr(X, "__iter__") or len(shape) != 1:
        found = f"{type(X).__name__}" + (f" of shape {shape}" if len(shape) != 1 else "")
        raise InputTypeError(
            f"X: expected texts in a list, in a one-dimensional array or in a column of a table, found {found}"
        )
    return list(X)

"""scikit-learn: sentence vectors as a transformer, for pipelines, searches over parameters, and clustering."""

import os
from collections.abc import Sequence
from typing import Any

from minilm_np.errors import InputTypeError
from minilm_np.integrations import encode, missing
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import Vectors

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ModuleNotFoundError as error:
    raise missing("sklearn", "sklearn", error) from error


class SentenceVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # which sklearn has no types of
    """Texts to sentence vectors; there is nothing to fit, so `transform` works without.

    model: a model's name, or a folder that holds one.
    backend, threads: as `SentenceEncoder` takes them.
    normalize_embeddings, truncate_dim: as `SentenceEncoder.encode` takes them.

    Clones and pickles are small: they hold the parameters, and load the model when they need it. So a pickle gives the
    same vectors where the same model is found.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: str = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> None:
        self.model = model
        self.backend = backend
        self.threads = threads
        self.normalize_embeddings = normalize_embeddings
        self.truncate_dim = truncate_dim

    def fit(self, X: Sequence[str], y: Any = None) -> "SentenceVectorizer":
        """Check the texts and the parameters, and load the model. Raises as `transform`."""
        self.transform(list(_texts(X)[:1]))
        return self

    def transform(self, X: Sequence[str]) -> Vectors:  # B texts -> (B, D), or (B, truncate_dim)
        """Encode texts: a list, an array of one dimension, or a column of a table.

        Returns float32. Raises InputTypeError (texts of another kind, or shape), and as `SentenceEncoder` and its
        `encode`.
        """
        return encode(_texts(X), **self.get_params(deep=False))

    @property
    def _n_features_out(self) -> int:
        return self.transform([""]).shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


def _texts(X: Any) -> list[str]:
    """Refuse what would be taken for other texts: a str for its letters, a table for the names of its columns."""
    shape = getattr(X, "shape", (0,))
    if isinstance(X, str | bytes) or not hasattr(X, "__iter__") or len(shape) != 1:
        found = f"{type(X).__name__}" + (f" of shape {shape}" if len(shape) != 1 else "")
        raise InputTypeError(
            f"X: expected texts in a list, an array of one dimension or a column of a table, found {found}"
        )
    return list(X)

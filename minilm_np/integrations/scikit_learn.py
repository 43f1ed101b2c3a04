"""scikit-learn: sentence vectors as a transformer, for pipelines, parameter searches and clustering."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from minilm_np._checks import check_texts
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

    def fit(self, X: Iterable[str], y: object = None) -> Self:
        """Check the texts and the parameters, and load the model. Raises as `transform`."""
        encode(_texts(X)[:1], **self.get_params(deep=False))
        return self

    def transform(self, X: Iterable[str]) -> Vectors:  # B texts -> (B, D), or (B, truncate_dim)
        """Encode texts: a list, a one-dimensional array, or a column of a table.

        Returns float32, or the kind of frame that `set_output` selects. Raises InputTypeError (X is something else),
        and as `SentenceEncoder` and its `encode`.
        """
        return encode(_texts(X), **self.get_params(deep=False))

    @property
    def _n_features_out(self) -> int:
        # not `transform`, which sklearn wraps: to name the columns of its result, the wrapper calls this property
        return encode([""], **self.get_params(deep=False)).shape[1]

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


def _texts(X: Iterable[str]) -> list[str]:
    """Texts as a list. Raises InputTypeError, InputValueError."""
    if hasattr(X, "__next__"):  # `fit` would leave nothing for `transform`
        raise InputTypeError(f"X: expected texts that can be read twice, found {type(X).__name__}: pass list(X)")
    return check_texts(X, name="X")

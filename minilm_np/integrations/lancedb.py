"""LanceDB: an embedding function. After this module is imported, LanceDB reopens a table with its function."""

import os
from collections.abc import Iterable
from typing import Any

from minilm_np.integrations import Backend, Options, encode, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    import lancedb.embeddings
    from lancedb.embeddings import TextEmbeddingFunction
except ModuleNotFoundError as error:
    raise missing("lancedb", "lancedb", error) from error


@lancedb.embeddings.register("minilm_np")
class MiniLMEmbeddingFunction(TextEmbeddingFunction):  # type: ignore[misc]  # LanceDB's types are not read
    """Sentence vectors for LanceDB. Queries and documents get the prompts of the model, if it has any.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    Create it with `MiniLMEmbeddingFunction.create(...)`: LanceDB stores these arguments with the table. Raises as
    `SentenceEncoder` and its `encode`. A text that is missing is an error.
    """

    model: str = DEFAULT_MODEL
    backend: Backend = "numba"
    threads: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None

    @classmethod
    def create(cls, model: str | os.PathLike[str] = DEFAULT_MODEL, **options: Any) -> "MiniLMEmbeddingFunction":
        """Return the function with these arguments; a folder is stored as an absolute path."""
        return super().create(model=settled(model), **options)

    def compute_query_embeddings(self, query: str, *args: object, **kwargs: object) -> list[list[float]]:
        """The vector of a query, to compare with vectors of documents, in a list."""
        return encode([query], **self._options, purpose="query", name="query").tolist()

    # LanceDB repeats a failed call up to 7 times, with growing pauses, and hides the error. That is for services.

    def compute_query_embeddings_with_retry(self, query: str, *args: object, **kwargs: object) -> list[list[float]]:
        """The same as `compute_query_embeddings`: an error is raised at once."""
        return self.compute_query_embeddings(query)

    def compute_source_embeddings_with_retry(
        self, texts: str | Iterable[str], *args: object, **kwargs: object
    ) -> list[list[float]]:
        """The same as `compute_source_embeddings`: an error is raised at once."""
        return self.compute_source_embeddings(texts)

    def generate_embeddings(self, texts: Iterable[str], *args: object, **kwargs: object) -> list[list[float]]:
        """The vectors of documents, in their order."""
        return encode(texts, **self._options, purpose="document").tolist()

    def ndims(self) -> int:
        """The number of dimensions of a vector."""
        return encode([""], **self._options).shape[1]

    @property
    def _options(self) -> Options:
        return {
            "model": self.model,
            "backend": self.backend,
            "threads": self.threads,
            "normalize_embeddings": self.normalize_embeddings,
            "truncate_dim": self.truncate_dim,
        }

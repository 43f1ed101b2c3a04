"""Chroma: an embedding function. After this module is imported, Chroma reopens a collection with its function."""

import os
from typing import Any

from minilm_np.errors import InputValueError
from minilm_np.integrations import Backend, Options, encode, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError as error:
    raise missing("chromadb", "chromadb", error) from error


@register_embedding_function
class MiniLMEmbeddingFunction(EmbeddingFunction[Documents]):
    """Sentence vectors for Chroma. Queries and documents get the prompts of the model, if it has any.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    Chroma stores the arguments with the collection. Raises as `SentenceEncoder` and its `encode`.
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
        self.options: Options = {
            "model": settled(model),  # absolute: the collection may be reopened from another directory
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        }

    def __call__(self, input: Documents) -> Embeddings:
        """The vectors of documents, in their order."""
        return list(encode(input, **self.options, purpose="document", name="input"))

    def embed_query(self, input: Documents) -> Embeddings:
        """The vectors of queries, to compare with vectors of documents."""
        return list(encode(input, **self.options, purpose="query", name="input"))

    @staticmethod
    def name() -> str:
        """The name under which Chroma registers this function."""
        return "minilm_np"

    def default_space(self) -> Space:
        """The default distance of a collection."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """The distances by which these vectors can be compared."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Chroma stores them with the collection."""
        return dict(self.options)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "MiniLMEmbeddingFunction":
        """The function that `get_config` describes."""
        return MiniLMEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raise InputValueError if new vectors could not be compared with the stored ones."""
        for name in ("model", "normalize_embeddings", "truncate_dim"):
            if name in new_config and new_config[name] != old_config.get(name):
                raise InputValueError(
                    f"{name}: the stored vectors were made with {old_config.get(name)!r}, not {new_config[name]!r}: "
                    "create a new collection"
                )

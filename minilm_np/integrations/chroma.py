"""Chroma: an embedding function. A collection that was made with it is reopened without it, once this is imported."""

import os
from typing import Any

from minilm_np.errors import InputValueError
from minilm_np.integrations import encode, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError as error:
    raise missing("chromadb", "chroma", error) from error


@register_embedding_function
class MiniLMEmbeddingFunction(EmbeddingFunction[Documents]):
    """Sentence vectors for Chroma, with the model's prompts for queries and documents, where it has them.

    model: a model's name, or a folder that holds one.
    backend, threads: as `SentenceEncoder` takes them.
    normalize_embeddings, truncate_dim: as `SentenceEncoder.encode` takes them.

    A collection keeps the arguments. Raises as `SentenceEncoder` and its `encode`.
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
        self.options: dict[str, Any] = {
            "model": settled(model),  # the collection may be reopened from elsewhere
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        }

    def __call__(self, input: Documents) -> Embeddings:
        """A vector a document, in their order."""
        return list(encode(input, **self.options, purpose="document"))

    def embed_query(self, input: Documents) -> Embeddings:
        """A vector a question, to be compared with those of documents."""
        return list(encode(input, **self.options, purpose="query"))

    @staticmethod
    def name() -> str:
        return "minilm_np"

    def default_space(self) -> Space:
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        return dict(self.options)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "MiniLMEmbeddingFunction":
        return MiniLMEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raises InputValueError where new vectors could not be compared with those that are stored."""
        for name in ("model", "normalize_embeddings", "truncate_dim"):
            if name in new_config and new_config[name] != old_config.get(name):
                raise InputValueError(
                    f"{name}: the vectors that are stored were made with {old_config.get(name)!r}, not "
                    f"{new_config[name]!r}: make a new collection"
                )

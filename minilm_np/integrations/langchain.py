"""LangChain: an `Embeddings` for its vector stores and retrievers."""

import os
from typing import Any

from minilm_np.errors import InputTypeError
from minilm_np.integrations import encode, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    from langchain_core.embeddings import Embeddings
except ModuleNotFoundError as error:
    raise missing("langchain_core", "langchain", error) from error


class MiniLMEmbeddings(Embeddings):
    """Sentence vectors for LangChain, with the model's prompts for queries and documents, where it has them.

    model: a model's name, or a folder that holds one.
    backend, threads: as `SentenceEncoder` takes them.
    normalize_embeddings, truncate_dim: as `SentenceEncoder.encode` takes them.

    The asynchronous methods run these in a thread. Raises as `SentenceEncoder` and its `encode`.
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
            "model": settled(model),  # the vectors of a store are all of one model
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        }

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector a text, in their order."""
        if isinstance(texts, str):
            raise InputTypeError("texts: expected texts in a list, found str: put it in one, or take embed_query")
        return encode(texts, **self.options, purpose="document").tolist()

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, to be compared with those of documents."""
        return encode([text], **self.options, purpose="query")[0].tolist()

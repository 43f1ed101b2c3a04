"""LangChain: an `Embeddings` for its vector stores and retrievers."""

import os

from minilm_np.errors import InputTypeError
from minilm_np.integrations import Backend, Options, encode, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    from langchain_core.embeddings import Embeddings
except ModuleNotFoundError as error:
    raise missing("langchain_core", "langchain-core", error) from error


class MiniLMEmbeddings(Embeddings):
    """Sentence vectors for LangChain. Queries and documents get the prompts of the model, if it has any.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    The asynchronous methods run the synchronous ones in a thread. Raises as `SentenceEncoder` and its `encode`.
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
            "model": settled(model),  # absolute: all vectors of a store must come from one model
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        }

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in their order."""
        return encode(texts, **self.options, purpose="document").tolist()

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, to compare with vectors of documents."""
        if not isinstance(text, str):
            raise InputTypeError(f"text: expected a str, found {type(text).__name__}: use embed_documents for several")
        return encode([text], **self.options, purpose="query")[0].tolist()

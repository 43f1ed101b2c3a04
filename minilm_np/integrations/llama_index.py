"""LlamaIndex: a `BaseEmbedding` for its indexes, retrievers and ingestion pipelines."""

import asyncio
import os
from typing import Any, Literal

from minilm_np.integrations import Backend, encode, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
except ModuleNotFoundError as error:
    raise missing("llama_index", "llama-index-core", error) from error


class MiniLMEmbedding(BaseEmbedding):
    """Sentence vectors for LlamaIndex. Queries and texts get the prompts of the model, if it has any.

    model_name: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.
    query_instruction, text_instruction: replace the model's prompts for queries and for texts. They are put directly
        before the text, so they end in a space where one is needed. None: the model's prompt.
    embed_batch_size: texts per call. others: other fields of `BaseEmbedding`.

    The asynchronous methods run the synchronous ones in a thread. `to_dict` holds the arguments, not the weights.
    Raises pydantic's ValidationError, and as `SentenceEncoder` and its `encode`.
    """

    backend: Backend = "numba"
    threads: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    query_instruction: str | None = None
    text_instruction: str | None = None

    def __init__(
        self,
        model_name: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: Backend = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        query_instruction: str | None = None,
        text_instruction: str | None = None,
        embed_batch_size: int = 256,
        **others: Any,
    ) -> None:
        fields: dict[str, Any] = {
            "model_name": settled(model_name),  # absolute: all vectors of an index must come from one model
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
            "query_instruction": query_instruction,
            "text_instruction": text_instruction,
            "embed_batch_size": embed_batch_size,
        }
        super().__init__(**fields, **others)

    @classmethod
    def class_name(cls) -> str:
        """The name that `to_dict` writes."""
        return "MiniLMEmbedding"

    def _vectors(self, texts: list[str], purpose: Literal["query", "document"]) -> list[list[float]]:
        vectors = encode(
            texts,
            model=self.model_name,
            backend=self.backend,
            threads=self.threads,
            normalize_embeddings=self.normalize_embeddings,
            truncate_dim=self.truncate_dim,
            purpose=purpose,
            prompt=self.query_instruction if purpose == "query" else self.text_instruction,
        )
        return vectors.tolist()

    # What `BaseEmbedding` calls. Its public methods add batches, events and a cache.

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query], "query")[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text], "document")[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts, "document")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

"""Haystack: components that embed a query, and the documents of an index."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from minilm_np.errors import InputTypeError
from minilm_np.integrations import Backend, Options, encode, missing, settled, shared_encoder
from minilm_np.model_files.manifest import DEFAULT_MODEL

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ModuleNotFoundError as error:
    raise missing("haystack", "haystack-ai", error) from error

Serialized = dict[str, Any]  # a component, as Haystack writes it to YAML


class _Embedder:
    """The arguments of both components, and how a pipeline stores and loads them.

    The components call `_Embedder.__init__`, because `super()` fails: `@component` makes a new class of each.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        backend: Backend,
        threads: int | None,
        normalize_embeddings: bool,
        truncate_dim: int | None,
        prefix: str | None,
    ) -> None:
        self.model = settled(model)  # absolute: a pipeline may be loaded from another directory
        self.options: Options = {
            "model": self.model,
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        }
        self.prefix = prefix

    def warm_up(self) -> None:
        """Load the model, so that the first `run` takes no longer than the others."""
        shared_encoder(self.model, self.options["backend"], self.options["threads"])

    def to_dict(self) -> Serialized:
        """The arguments, as a pipeline stores them; not the weights."""
        return default_to_dict(self, **self.options, prefix=self.prefix)

    @classmethod
    def from_dict(cls, data: Serialized) -> Self:
        """The component that `to_dict` describes."""
        return default_from_dict(cls, data)


@component
class MiniLMTextEmbedder(_Embedder):
    """Embed a query. It gets the prompt of the model for queries, if the model has one.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.
    prefix: replaces the model's prompt for queries; None: the model's prompt.

    Raises as `SentenceEncoder` and its `encode`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: Backend = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prefix: str | None = None,
    ) -> None:
        _Embedder.__init__(self, model, backend, threads, normalize_embeddings, truncate_dim, prefix)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Embed a text: {"embedding": its vector}. Raises InputTypeError for anything but a str."""
        if not isinstance(text, str):
            raise InputTypeError(
                f"text: expected a str, found {type(text).__name__}: use MiniLMDocumentEmbedder for documents"
            )
        return {"embedding": encode([text], **self.options, purpose="query", prompt=self.prefix)[0].tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """`run`, in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class MiniLMDocumentEmbedder(_Embedder):
    """Embed documents. They get the prompt of the model for documents, if the model has one.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.
    prefix: replaces the model's prompt for documents; None: the model's prompt.
    meta_fields_to_embed: the names of fields of a document's metadata. Their values are put before its content; fields
        that a document lacks, or that are None, are left out.
    embedding_separator: put between these values and the content.

    Raises as `SentenceEncoder` and its `encode`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: Backend = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prefix: str | None = None,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
    ) -> None:
        _Embedder.__init__(self, model, backend, threads, normalize_embeddings, truncate_dim, prefix)
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.embedding_separator = embedding_separator

    def to_dict(self) -> Serialized:
        """The arguments, as a pipeline stores them; not the weights."""
        fields = {"meta_fields_to_embed": self.meta_fields_to_embed, "embedding_separator": self.embedding_separator}
        return default_to_dict(self, **self.options, prefix=self.prefix, **fields)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Embed documents: {"documents": copies with their vectors, in the same order}.

        Raises InputTypeError for anything but a list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise InputTypeError(
                f"documents: expected a list of Document, found {type(documents).__name__}: use MiniLMTextEmbedder for "
                "a str"
            )
        texts = [self._text(document) for document in documents]
        vectors = encode(texts, **self.options, purpose="document", prompt=self.prefix, name="documents")
        pairs = zip(documents, vectors.tolist(), strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`run`, in a thread."""
        return await asyncio.to_thread(self.run, documents)

    def _text(self, document: Document) -> str:
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        return self.embedding_separator.join([*(str(v) for v in values if v is not None), document.content or ""])

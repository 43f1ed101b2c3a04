"""Chroma: an embedding function. After this module is imported, Chroma reopens a collection with its function.

Chroma's default function runs the same model, all-MiniLM-L6-v2, with ONNX Runtime. Chroma refuses to open a collection
with another function than the one that filled it. `open_default_collection` opens a collection that Chroma's default
function filled, after a check that the vectors agree.
"""

import os
from typing import Any

import numpy as np

from minilm_np._checks import check_int
from minilm_np.errors import InputValueError
from minilm_np.integrations import Backend, Options, encode, missing, settled, shared_encoder
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.vectors.similarity import pairwise_cos_sim

try:
    from chromadb import Collection
    from chromadb.api import ClientAPI
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError as error:
    raise missing("chromadb", "chromadb", error) from error

MIN_COSINE = 0.9999  # of a stored vector and this package's; two runs of one model in float32 differ by about 1e-6


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


class _DefaultFunction(MiniLMEmbeddingFunction):
    """The function of a collection that Chroma's default function filled: its name and its stored arguments.

    So Chroma accepts it for such a collection, and a program without this package still opens the collection.
    """

    @staticmethod
    def name() -> str:
        return "default"

    def get_config(self) -> dict[str, Any]:
        return {}


def open_default_collection(
    client: ClientAPI,
    name: str,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    backend: Backend = "numba",
    threads: int | None = None,
    checked: int = 100,
) -> Collection:
    """Open a collection that Chroma's default function filled, so that this package embeds its new texts and queries.

    client: of Chroma. name: the collection's.
    model: all-MiniLM-L6-v2, or a folder that holds it. backend, threads: as for `SentenceEncoder`.
    checked: how many stored documents are encoded first. The cosine of each of their vectors and the stored one must be
        at least 0.9999. 0: no check.

    Nothing is written: Chroma's own function can still open the collection.
    Raises InputValueError: another function filled the collection, or a stored vector is another model's; Chroma's
    NotFoundError; and as `SentenceEncoder`.
    """
    check_int("checked", checked, 0)
    collection = client.get_collection(name, embedding_function=None)
    filled_by = (collection.configuration_json.get("embedding_function") or {}).get("name")
    if filled_by != "default":
        raise InputValueError(
            f"collection {name!r}: expected one that Chroma's default embedding function filled, found {filled_by!r}: "
            "pass the function that filled it to get_collection"
        )
    function = _DefaultFunction(model, backend=backend, threads=threads)
    if checked:
        _check_vectors(collection, shared_encoder(settled(model), backend, threads), checked)
    return client.get_collection(name, embedding_function=function)  # type: ignore[arg-type]  # of texts, not of images


def _check_vectors(collection: Collection, encoder: SentenceEncoder, most: int) -> None:
    """Raise InputValueError if a stored vector is not this model's vector of its document."""
    found = collection.get(limit=most, include=["documents", "embeddings"])
    stored, texts = np.asarray(found["embeddings"]), found["documents"] or []
    rows = [row for row, text in enumerate(texts) if text]  # the others were added as vectors
    if not rows:
        return
    vectors = encoder.encode_document([texts[row] for row in rows], on_truncation="ignore")
    if stored.shape[1:] == vectors.shape[1:]:
        cosines = pairwise_cos_sim(stored[rows], vectors)
        worst = int(np.argmin(cosines))
        if cosines[worst] >= MIN_COSINE:
            return
        difference = f"of id {found['ids'][rows[worst]]!r} has the cosine {cosines[worst]:.4f} with"
    else:
        difference = f"has {stored.shape[1]} dimensions, not the {vectors.shape[1]} of"
    raise InputValueError(
        f"collection {collection.name!r}: expected vectors of the same model, but a stored vector {difference} this "
        "model's vector of its document: create a new collection with MiniLMEmbeddingFunction, and add the documents "
        "again"
    )

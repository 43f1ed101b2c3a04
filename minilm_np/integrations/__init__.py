"""Adapters for other libraries. Import a module only if its library is installed; this package does not depend on it.

Reading order:

    __init__.py      code that the adapters share: encoding with a cached model
    scikit_learn.py  `SentenceVectorizer`, a transformer for pipelines    pip install scikit-learn
    langchain.py     `MiniLMEmbeddings`, embeddings for vector stores     pip install langchain-core
    chroma.py        `MiniLMEmbeddingFunction`, an embedding function     pip install chromadb
    llama_index.py   `MiniLMEmbedding`, embeddings for indexes            pip install llama-index-core
    haystack.py      `MiniLMTextEmbedder`, `MiniLMDocumentEmbedder`       pip install haystack-ai
    bertopic.py      `MiniLMBackend`, vectors for topic models            pip install bertopic
    keybert.py       `MiniLMBackend`, vectors for keywords                pip install keybert
    mteb.py          `MiniLMEncoder`, a model for mteb's tasks            pip install mteb
    lancedb.py       `MiniLMEmbeddingFunction`, for columns of tables     pip install lancedb
    txtai.py         `MiniLMVectors`, the vector model of an index        pip install txtai
    ray.py           `embed_dataset`, a column of vectors for a dataset   pip install 'ray[data]'

All classes take the same five arguments, those of `SentenceEncoder` and of its `encode`; txtai has them in its
configuration. The model is loaded on first use; adapters with the same model, backend and threads share it.
"""

import contextlib
import functools
import os
from collections.abc import Iterable
from typing import Literal, TypedDict

from minilm_np._checks import check_texts
from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputValueError, MissingExtraError
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.model_files.saving import WRITTEN
from minilm_np.sentence_encoder import SentenceEncoder

Backend = Literal["numba", "numpy"]
_Identities = tuple[tuple[str, int, int, int], ...]


class Options(TypedDict):
    """The arguments of an adapter, as it stores them."""

    model: str | SentenceEncoder  # a loaded model only for adapters whose arguments no file contains
    backend: Backend
    threads: int | None
    normalize_embeddings: bool
    truncate_dim: int | None


class DocumentBackend:
    """What the backends of BERTopic and of KeyBERT share: the arguments, and `embed`."""

    def __init__(
        self,
        model: str | os.PathLike[str] | SentenceEncoder = DEFAULT_MODEL,
        *,
        backend: Backend = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.options: Options = {
            "model": settled_or_loaded(model, backend, threads),
            "backend": backend,
            "threads": threads,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        }

    def embed(self, documents: list[str], verbose: bool = False) -> Vectors:  # B documents or words -> (B, D)
        """The vectors of documents or words, in their order. verbose: show a progress bar."""
        return encode(documents, **self.options, show_progress_bar=verbose, name="documents")


def encode(
    texts: Iterable[str],
    *,
    model: str | os.PathLike[str] | SentenceEncoder,
    backend: Backend,
    threads: int | None,
    normalize_embeddings: bool,
    truncate_dim: int | None,
    purpose: Literal["", "query", "document"] = "",
    prompt: str | None = None,
    show_progress_bar: bool | None = None,
    name: str = "texts",
) -> Vectors:  # B texts -> (B, D), or (B, truncate_dim)
    """Encode texts with a cached model, or with a loaded one.

    texts: as for `SentenceEncoder.encode`, but not a str, because every adapter takes several texts.
    purpose: selects the prompt of the model for queries or for documents, if the model has one.
    prompt: replaces that prompt; None: the model's.
    name: the adapter's name of the argument, for errors.
    """
    texts = check_texts(texts, name=name)
    encoder = model if isinstance(model, SentenceEncoder) else shared_encoder(os.fspath(model), backend, threads)
    methods = {"": encoder.encode, "query": encoder.encode_query, "document": encoder.encode_document}
    vectors: Vectors = methods[purpose](
        texts,
        prompt=prompt,
        show_progress_bar=show_progress_bar,
        normalize_embeddings=normalize_embeddings,
        truncate_dim=truncate_dim,
    )
    return vectors


def shared_encoder(model: str, backend: Backend, threads: int | None) -> SentenceEncoder:
    """The cached model for these arguments. It is loaded again after a file of its folder has changed."""
    model = settled(model)
    return cached_encoder(model, backend, threads, _identities(model))


@functools.lru_cache(maxsize=2)
def cached_encoder(model: str, backend: Backend, threads: int | None, identities: _Identities) -> SentenceEncoder:
    """Load a model. Two models are cached; `cached_encoder.cache_clear()` releases them."""
    return SentenceEncoder(model, backend=backend, threads=threads)


def settled(model: str | os.PathLike[str]) -> str:
    """The absolute path of a folder, so that it stays valid in another current directory; a name is unchanged."""
    return os.path.abspath(model) if os.path.isdir(model) else os.fspath(model)


def settled_or_loaded(
    model: str | os.PathLike[str] | SentenceEncoder, backend: Backend, threads: int | None
) -> str | SentenceEncoder:
    """`settled(model)`, or a loaded model itself.

    Raises InputValueError for a backend or threads beside a loaded model, which already has them.
    """
    if not isinstance(model, SentenceEncoder):
        return settled(model)
    if (backend, threads) != ("numba", None):
        raise InputValueError(
            f"backend, threads: expected the defaults with a loaded model, found {backend!r}, {threads!r}: pass them "
            "to SentenceEncoder"
        )
    return model


def _identities(folder: str) -> _Identities:
    """Values that change when a file of a model's folder is replaced or rewritten; empty for a name."""
    found = []
    for name in sorted(WRITTEN):
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(folder, name))
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def missing(library: str, distribution: str, error: ModuleNotFoundError) -> Exception:
    """The error to raise after a failed import: MissingExtraError, or `error` itself if it has another cause.

    library: the module that was imported. distribution: its name for pip.
    """
    if error.name is None or error.name.partition(".")[0] != library:
        return error
    return MissingExtraError(f"{library} is not installed, but this module needs it: pip install {distribution}")

"""minilm_np in other libraries' terms: a module each, imported only by those who have the library.

    scikit_learn.SentenceVectorizer    a transformer for pipelines    pip install 'minilm-np[sklearn]'
    langchain.MiniLMEmbeddings         embeddings for vector stores   pip install 'minilm-np[langchain]'
    chroma.MiniLMEmbeddingFunction     an embedding function          pip install 'minilm-np[chroma]'

All take the same five arguments, those of `SentenceEncoder` and of its `encode`. The model is loaded when it is first
needed, and shared by all that ask for the same.
"""

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import Literal

from minilm_np.errors import MissingExtraError
from minilm_np.model_files.saving import WRITTEN
from minilm_np.sentence_encoder import SentenceEncoder, Vectors

_Identities = tuple[tuple[str, int, int, int], ...]


def encode(
    texts: Sequence[str],
    *,
    model: str | os.PathLike[str],
    backend: str,
    threads: int | None,
    normalize_embeddings: bool,
    truncate_dim: int | None,
    purpose: Literal["", "query", "document"] = "",
) -> Vectors:  # B texts -> (B, D), or (B, truncate_dim)
    """Encode texts with a shared model, and with its prompt for queries or documents where that is their purpose."""
    encoder = shared_encoder(os.fspath(model), backend, threads)
    methods = {"": encoder.encode, "query": encoder.encode_query, "document": encoder.encode_document}
    return methods[purpose](texts, normalize_embeddings=normalize_embeddings, truncate_dim=truncate_dim)


def shared_encoder(model: str, backend: str, threads: int | None) -> SentenceEncoder:
    """The same object for the same arguments, until the model's folder is written again."""
    model = settled(model)
    return cached_encoder(model, backend, threads, _identities(model))


@functools.lru_cache(maxsize=2)
def cached_encoder(model: str, backend: str, threads: int | None, identities: _Identities) -> SentenceEncoder:
    """`cache_clear` lets go of all."""
    return SentenceEncoder(model, backend=backend, threads=threads)


def settled(model: str | os.PathLike[str]) -> str:
    """A folder by its absolute path, which stays the same one after a change of directory; a name as it is."""
    return os.path.abspath(model) if os.path.isdir(model) else os.fspath(model)


def _identities(folder: str) -> _Identities:
    """What tells each file of a model from one that took its place or was written over it; nothing for a name."""
    found = []
    for name in sorted(WRITTEN):
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(folder, name))
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def missing(library: str, extra: str, error: ModuleNotFoundError) -> Exception:
    """What to raise where a library cannot be imported: which extra to install, unless it is there but broken."""
    if error.name is None or error.name.partition(".")[0] != library:
        return error
    return MissingExtraError(f"{library} is not installed, which this module needs: pip install 'minilm-np[{extra}]'")

"""KeyBERT: a backend that gives it the vectors of this package.

`KeyBERT(encoder)` ignores an object of a class that KeyBERT does not list, and loads another model without a warning.
It accepts every subclass of its `BaseEmbedder`, such as `MiniLMBackend`.
"""

import os

from minilm_np.engine.protocol import Vectors
from minilm_np.integrations import Backend, Options, encode, missing, settled_or_loaded
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder

try:
    from keybert.backend import BaseEmbedder
except ModuleNotFoundError as error:
    raise missing("keybert", "keybert", error) from error


class MiniLMBackend(BaseEmbedder):  # type: ignore[misc]  # keybert has no types
    """Sentence vectors for KeyBERT: `KeyBERT(MiniLMBackend())`.

    model: a model's name, a folder that holds a model, or a loaded `SentenceEncoder`.
    backend, threads: as for `SentenceEncoder`; leave them out with a loaded one.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    Documents and words get the default prompt of the model, if it has one, because KeyBERT compares them with each
    other. A pickle holds the arguments; it holds the weights only of a loaded model. Raises InputValueError, and as
    `SentenceEncoder` and its `encode`.
    """

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

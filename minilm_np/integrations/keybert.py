"""KeyBERT: a backend that gives it the vectors of this package.

`KeyBERT(encoder)` ignores an object of a class that KeyBERT does not list, and loads another model without a warning.
It accepts every subclass of its `BaseEmbedder`, such as `MiniLMBackend`.
"""

from minilm_np.integrations import DocumentBackend, missing

try:
    from keybert.backend import BaseEmbedder
except ModuleNotFoundError as error:
    raise missing("keybert", "keybert", error) from error


class MiniLMBackend(DocumentBackend, BaseEmbedder):  # type: ignore[misc]  # keybert has no types
    """Sentence vectors for KeyBERT: `KeyBERT(MiniLMBackend())`.

    model: a model's name, a folder that holds a model, or a loaded `SentenceEncoder`.
    backend, threads: as for `SentenceEncoder`; leave them out with a loaded one.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    Documents and words get the default prompt of the model, if it has one, because KeyBERT compares them with each
    other. A pickle holds the arguments; it holds the weights only of a loaded model. Raises InputValueError, and as
    `SentenceEncoder` and its `encode`.
    """

"""BERTopic: a backend that gives it the vectors of this package.

`BERTopic(embedding_model=encoder)` ignores an object of a class that BERTopic does not list, and loads another model
without a warning. It accepts every subclass of its `BaseEmbedder`, such as `MiniLMBackend`.
"""

import warnings

from minilm_np.errors import TruncationWarning
from minilm_np.integrations import DocumentBackend, missing

try:
    from bertopic.backend import BaseEmbedder
except ModuleNotFoundError as error:
    raise missing("bertopic", "bertopic", error) from error

# Importing BERTopic adds this filter to the process. It hides TruncationWarning, which is a UserWarning.
_HIDES_WARNINGS = ("ignore", None, UserWarning, None, 0)
_has_its_own_filter = any(category is TruncationWarning for _, _, category, *_ in warnings.filters)
if _HIDES_WARNINGS in warnings.filters and not _has_its_own_filter:
    warnings.filterwarnings("default", category=TruncationWarning)


class MiniLMBackend(DocumentBackend, BaseEmbedder):  # type: ignore[misc]  # bertopic has no types
    """Sentence vectors for BERTopic: `BERTopic(embedding_model=MiniLMBackend())`.

    model: a model's name, a folder that holds a model, or a loaded `SentenceEncoder`.
    backend, threads: as for `SentenceEncoder`; leave them out with a loaded one.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    Documents and words get the default prompt of the model, if it has one, because BERTopic compares them with each
    other. A document that is longer than the limit is truncated with a TruncationWarning. A pickle holds the arguments;
    it holds the weights only of a loaded model. Raises InputValueError, and as `SentenceEncoder` and its `encode`.
    """

"""Compare this package with another implementation of the same model: `compare(encoder, "sentence-transformers")`."""

from minilm_np.verify.compare import Comparison, Errors, Row, compare, summarised
from minilm_np.verify.implementations import Implementation, ImplementationError, open_implementation
from minilm_np.verify.texts import built_in_texts

__all__ = [
    "Comparison",
    "Errors",
    "Implementation",
    "ImplementationError",
    "Row",
    "built_in_texts",
    "compare",
    "open_implementation",
    "summarised",
]

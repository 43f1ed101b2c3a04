"""Compare this package with another implementation of the same model: `compare(encoder, "sentence-transformers")`.

And where they differ, find out why: `diagnose(encoder, "vectors.npy")`.
"""

from minilm_np.verify.compare import Comparison, Errors, Row, compare, summarised
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.implementations import Implementation, open_implementation
from minilm_np.verify.texts import built_in_texts

__all__ = [
    "Comparison",
    "Diagnosis",
    "Errors",
    "Finding",
    "Implementation",
    "Row",
    "built_in_texts",
    "compare",
    "diagnose",
    "open_implementation",
    "summarised",
]

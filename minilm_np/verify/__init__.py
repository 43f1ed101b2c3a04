"""Compare this package with another implementation of the same model, and explain the differences.

    compare(encoder, "sentence-transformers")
    diagnose(encoder, "vectors.npy")

Reading order. The texts, and the other implementations:

- `texts.py`: the built-in texts
- `interface.py`: the interface of an implementation
- `implementations.py`: opens one, by its name, path or URL
- `torch_models.py`, `onnx_model.py` (with `onnx_values.py`), `stored_vectors.py`, `endpoint.py`: the implementations

Compare:

- `array_errors.py`: the errors of arrays, and rows of errors
- `compare.py`: `compare`, which measures both sides against float64

Diagnose:

- `variations.py`: the model with deviations, run
- `roundings.py`: numbers rounded to fewer bits or digits
- `deviations.py`: the list of known deviations, from `input_deviations.py` and `model_deviations.py`
- `low_precision.py`: low-precision arithmetic, which is recognised by its errors
- `diagnosis.py`: the result
- `diagnose.py`: `diagnose`, with the order of the steps
- `vector_errors.py`: the errors, lengths and directions of vectors
- `evidence.py`: what has to be explained, and on which texts
- `compute_types.py`: vectors that this package made with another compute type
- `scoring.py`: how a deviation is tested and measured
- `pairs.py`: pairs of deviations
- `misfits.py`: another order, other lengths, single wrong vectors, low-precision arithmetic, another model
- `advice.py`: the result in words

Pages: `page.py`, the results of both as HTML

Conformance files, for implementations in other languages (CONFORMANCE.md):

- `conformance.py`: `write` and `check`
- `conformance_file.py`: the layout
"""

from minilm_np.verify.array_errors import Errors, Row, summarised
from minilm_np.verify.compare import Comparison, compare
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.implementations import open_implementation
from minilm_np.verify.interface import Implementation
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

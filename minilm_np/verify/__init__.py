"""Compare this package with another implementation of the same model, and explain the differences.

    compare(encoder, "sentence-transformers")
    diagnose(encoder, "vectors.npy")

Reading order. The texts, and the other implementations:

- `texts.py`: the built-in texts
- `interface.py`: the interface of an implementation
- `implementations.py`: opens one, by its name, path or URL
- `torch_models.py`, `onnx_model.py` (with `onnx_values.py`), `stored_vectors.py`, `endpoint.py` (with `http_post.py`):
  the implementations
- `npy_files.py`, `vector_tables.py`, `vector_stores.py`: the formats of vectors (`vector_arrays.py`: their rules)

Compare:

- `array_errors.py`: the errors of arrays, and rows of errors
- `comparison.py`: the result of a comparison; `steps.py`: the errors of each step
- `compare.py`: `compare`, which measures both sides against float64
- `stability.py`: `check_stability`: does a vector depend on how it is asked for?
- `retrieval.py`: `compare_retrieval`: do both sides find the same neighbours? (`sentences.txt`: the built-in corpus)

The same for cross-encoders (not imported here, so that other commands start without them):

- `pair_sources.py`: opens an implementation: a file of scores, a server; `torch_pairs.py`: sentence-transformers
- `compare_pairs.py`: `compare_pairs`

Diagnose:

- `variations.py`: deviations and variations, as data
- `varied_tokens.py`, `varied_model.py`: the token ids, hidden states and vectors of a variation
- `roundings.py`: numbers rounded to fewer bits or digits
- `deviations.py`: the list of known deviations, from `text_deviations.py`, `input_deviations.py`,
  `model_deviations.py` and `pooling_deviations.py`
- `low_precision.py`: low-precision arithmetic, which is recognised by its errors
- `diagnosis.py`: the result
- `diagnose.py`: `diagnose`, with the order of the steps
- `vector_errors.py`: the errors, lengths and directions of vectors
- `evidence.py`: what has to be explained, and on which texts
- `compute_types.py`: vectors that this package made with another compute type
- `dimensions.py`: numbers in another order, or fewer of them
- `scoring.py`: how a deviation is tested and measured
- `fitting.py`: deviations with a number that is fitted: the length of padding, the size of windows
- `pairs.py`: pairs of deviations
- `misfits.py`: another order, other lengths, single wrong vectors, low-precision arithmetic, another model
- `advice.py`: the result in words

Pages: `page.py`, the results of both as HTML

Conformance files, for implementations in other languages (CONFORMANCE.md):

- `conformance.py`: `write` and `check`; `conformance_subjects.py`: the two kinds of models
- `conformance_port.py`: `check_port`, for what another implementation has written
- `conformance_file.py`: the layout; `tokenizer_lines.py`: the lines for the tokenizer
"""

from minilm_np.verify.array_errors import Errors, Row, summarised
from minilm_np.verify.compare import compare
from minilm_np.verify.comparison import Comparison, PairComparison
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.implementations import open_implementation
from minilm_np.verify.interface import Implementation, PairImplementation
from minilm_np.verify.retrieval import Retrieval, built_in_sentences, compare_retrieval
from minilm_np.verify.stability import Change, Stability, check_stability
from minilm_np.verify.texts import built_in_texts

__all__ = [
    "Change",
    "Comparison",
    "Diagnosis",
    "Errors",
    "Finding",
    "Implementation",
    "PairComparison",
    "PairImplementation",
    "Retrieval",
    "Row",
    "Stability",
    "built_in_sentences",
    "built_in_texts",
    "check_stability",
    "compare",
    "compare_retrieval",
    "diagnose",
    "open_implementation",
    "summarised",
]

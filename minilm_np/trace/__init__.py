"""Every named step of the model, to inspect and compare: from tokens to the vector of a text or the score of a pair.

The names are Hugging Face's, as `reference.py` records them: `embeddings.word_embeddings`, ...,
`encoder.layer.0.attention.self.scores`, ..., `pooling`, `normalize`. The dimension letters are those of `reference.py`.

    result.py   `Trace` and `PairTrace`: the arrays of one text or pair, saved and read
    parts.py    what the traces of texts and of pairs share
    run.py      `trace`, and the tokens of a text
    pairs.py    the traces of pairs
"""

from minilm_np.engine.numpy import intermediates
from minilm_np.engine.registry import DTYPES
from minilm_np.reference import Array
from minilm_np.trace.result import PairTrace, Trace, dimensions, statistics
from minilm_np.trace.run import tokens_of, trace

__all__ = [
    "DTYPES",
    "Array",
    "PairTrace",
    "Trace",
    "dimensions",
    "intermediates",
    "statistics",
    "tokens_of",
    "trace",
]

"""Vectors that this package made with another compute type: no deviation, and recognised bit for bit."""

import numpy as np

from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.evidence import Given

FIRST = 4  # texts that are compared first
LARGEST_ERROR = 0.2  # relative; int8 of the published model has at most 0.1


def compute_type_of(encoder: SentenceEncoder, given: Given) -> str | None:
    """Return the compute type of this package whose vectors these are, bit for bit; None if there is none.

    Compiles the kernels of a compute type when it is tried for the first time on a machine.
    """
    if given.same_bits:
        return encoder.compute_type
    if encoder.contract is None or not given.errors.max() <= LARGEST_ERROR:
        return None
    for compute_type in COMPUTE_TYPES:
        if compute_type == encoder.compute_type:
            continue
        other = SentenceEncoder.from_weights(
            encoder.config, encoder.tokenizer, encoder.weights, compute_type=compute_type, threads=encoder.threads
        )
        if all(_equal(other, given, rows) for rows in (slice(0, FIRST), slice(FIRST, None))):
            return compute_type
    return None


def _equal(encoder: SentenceEncoder, given: Given, rows: slice) -> bool:
    """Whether the given vectors of some rows are the encoder's."""
    vectors = encoder.encode(given.texts[rows], prompt="", on_truncation="ignore")
    return bool(np.array_equal(vectors.astype(np.float64), given.vectors[rows]))

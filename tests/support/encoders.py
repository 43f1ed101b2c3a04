"""What the tests of the public class share."""

import numpy as np

from minilm_np import SentenceEncoder
from minilm_np.engine.protocol import Weights

BOUND = 5e-7  # absolute, of a float32 vector of unit length

LONG = "abc " * 60  # 180 tokens of the random model, whose limit is 128


def with_weights(encoder: SentenceEncoder, weights: Weights) -> SentenceEncoder:
    """The same model, except for some weights."""
    return SentenceEncoder.from_weights(
        encoder.config, encoder.tokenizer, encoder.weights | weights, backend=encoder.backend, threads=encoder.threads
    )


def overflowing(encoder: SentenceEncoder) -> SentenceEncoder:
    """The same model with weights so large that every vector is NaN."""
    name = "encoder.layer.0.intermediate.dense.weight"
    return with_weights(encoder, {name: np.full_like(encoder.weights[name], 3e38)})

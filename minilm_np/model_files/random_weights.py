"""Random weights and a vocabulary of single characters: a model for tests and for teaching, without a download."""

import string
from collections.abc import Mapping

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from minilm_np.errors import ConfigError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

# every printable ASCII character in lower case, once as the start of a word and once as its continuation
_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
CHARACTER_VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS))

# small enough to encode a text in a millisecond, large enough that no size is a special case
SMALL = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY),
    max_position_embeddings=128,
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=384,
    max_seq_length=128,
)


def random_weights(config: ModelConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights as BERT is initialised: normal with standard deviation 0.02, biases 0, LayerNorm weights 1.

    Returns read-only float32 arrays with the names and shapes of `parameter_shapes`.
    """
    return random_arrays(parameter_shapes(config), seed)


def random_arrays(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights as BERT is initialised, with these names and shapes."""
    generator = default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("bias"):
            array = np.zeros(shape, np.float32)
        elif name.endswith("LayerNorm.weight"):
            array = np.ones(shape, np.float32)
        else:
            array = generator.standard_normal(shape, np.float32)
            array *= np.float32(0.02)
        array.flags.writeable = False
        weights[name] = array
    return weights


def check_characters(config: ModelConfig) -> None:
    """Raise ConfigError if the model's vocabulary is smaller than the character vocabulary."""
    if config.vocab_size < len(CHARACTER_VOCABULARY):
        raise ConfigError(
            f"vocab_size {config.vocab_size}: expected at least {len(CHARACTER_VOCABULARY)}, the number of tokens of "
            "the built-in character vocabulary"
        )

"""A model with random weights and a vocabulary of single characters: for tests and for teaching, with no download."""

import string

import numpy as np
from numpy.typing import NDArray

from minilm_np.errors import ConfigError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

# every printable ASCII character in lower case, at the beginning of a word and within one
_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
CHARACTER_VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS))

# small enough that a text takes a millisecond, large enough that nothing in it is a special case
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
    """Weights as BERT draws them before training: normal with deviation 0.02, biases 0, LayerNorm weights 1.

    Returns float32 arrays under the names and shapes of `parameter_shapes`, read-only.
    """
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in parameter_shapes(config).items():
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
    """Raise ConfigError if a model embeds fewer ids than the character vocabulary has."""
    if config.vocab_size < len(CHARACTER_VOCABULARY):
        raise ConfigError(
            f"vocab_size {config.vocab_size}: expected at least {len(CHARACTER_VOCABULARY)}, the number of tokens of "
            "the built-in character vocabulary"
        )

"""minilm_np: sentence-transformers/all-MiniLM-L6-v2 from scratch in NumPy and Numba. Text in, 384 numbers out.

Reading order: `reference.py` (the whole model, and the letters used everywhere), then `config.py`, `checkpoint.py`,
`tokenizer.py` and `hub.py` (what it is made from), then `sentence_encoder.py` (the public class) and `cli/`. The
engine: CONTRACT.md, `kernels/`, `packed_weights.py`, `encoder.py`, `workers.py`, `compiled.py`.
"""

from minilm_np.config import ModelConfig
from minilm_np.errors import (
    CheckpointError,
    ConfigError,
    HubError,
    InputTypeError,
    InputValueError,
    MiniLMError,
    NonFiniteError,
    TokenizerError,
)
from minilm_np.sentence_encoder import SentenceEncoder

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "HubError",
    "InputTypeError",
    "InputValueError",
    "MiniLMError",
    "ModelConfig",
    "NonFiniteError",
    "SentenceEncoder",
    "TokenizerError",
]

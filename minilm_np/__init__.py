"""minilm_np: sentence-transformers/all-MiniLM-L6-v2 from scratch in NumPy and Numba. Text in, 384 numbers out.

Reading order: `reference.py` (the whole model, and the letters used everywhere), then `config.py`, `checkpoint.py`,
`tokenizer.py` and `hub.py` (what it is made from), then `sentence_encoder.py` (the public class; `pipeline.py` is its
way from texts to vectors) and `cli/`. The engine: CONTRACT.md, `kernels/`, `packed_weights.py`, `encoder.py`,
`workers.py`, `compiled.py`.

The names below are imported when they are first used: `import minilm_np` by itself costs next to nothing.
"""

TYPE_CHECKING = False  # type checkers know better; `typing` would be most of what the import takes
if TYPE_CHECKING:
    from minilm_np import util
    from minilm_np.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        HubError,
        ImplementationError,
        InputTypeError,
        InputValueError,
        MiniLMError,
        MissingExtraError,
        NonFiniteError,
        SaveError,
        TokenizerError,
        TruncationWarning,
    )
    from minilm_np.model_files.config import ModelConfig
    from minilm_np.sentence_encoder import SentenceEncoder

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "HubError",
    "ImplementationError",
    "InputTypeError",
    "InputValueError",
    "MiniLMError",
    "MissingExtraError",
    "ModelConfig",
    "NonFiniteError",
    "SaveError",
    "SentenceEncoder",
    "TokenizerError",
    "TruncationWarning",
    "util",
]

# where a public name is from, if not from errors.py; a module is by itself
_MODULES = {"ModelConfig": "model_files.config", "SentenceEncoder": "sentence_encoder", "util": "util"}


if not TYPE_CHECKING:  # who would take it for a promise that every name exists

    def __getattr__(name):
        """Import a public name when it is first asked for (PEP 562)."""
        import importlib

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
        found = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

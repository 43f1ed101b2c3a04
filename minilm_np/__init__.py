"""Sentence vectors on a CPU: sentence-transformers/all-MiniLM-L6-v2 from scratch in NumPy and Numba.

    from minilm_np import SentenceEncoder

    vectors = SentenceEncoder().encode(["A text", "Another text"])  # float32, (2, 384)

`CrossEncoder` scores pairs of texts, to rerank the results of a search.

These modules are public, too: `reference` (the whole model in NumPy), `trace` (every step of a text), `explain` (pages
about texts), `evaluation`, `verify`, `train`, `integrations`, `jobs` (files of any size) and `server`. The manual is in
`docs/`.

To read the code, begin with `reference.py`: the whole model, and the letters that are used everywhere. Then come
`model_files/` and `text/` (model folders; texts to token ids), `sentence_encoder.py` (the public class) and `cli/`. For
the engine read `engine/float32/CONTRACT.md`, then `engine/float32/kernels/`. `docs/architecture.md` has a picture.

The names below are imported when they are first used, so `import minilm_np` is fast.
"""

TYPE_CHECKING = False  # type checkers treat it as True; importing `typing` would take most of the import time
if TYPE_CHECKING:
    from minilm_np import util
    from minilm_np.cross_encoder import CrossEncoder
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
    "CrossEncoder",
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

# The module that defines a public name, where that is not errors.py; `util` is a module itself.
_MODULES = {
    "CrossEncoder": "cross_encoder",
    "ModelConfig": "model_files.config",
    "SentenceEncoder": "sentence_encoder",
    "util": "util",
}


if not TYPE_CHECKING:  # a type checker would conclude that every name exists

    def __getattr__(name):
        """Import a public name when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        import importlib

        from minilm_np._forks import no_fork

        with no_fork:
            module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
        found = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

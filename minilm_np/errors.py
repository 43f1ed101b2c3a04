"""The exceptions of this package. Each message says where, what was expected, what was found, and what to do.

Each class also derives from the built-in exception that fits, so `except ValueError` and the like catch it.
"""


class MiniLMError(Exception):
    """Base class of all exceptions that this package raises on purpose."""


class HubError(MiniLMError, OSError):
    """A model could not be found, fetched or verified."""


class ConfigError(MiniLMError, ValueError):
    """A JSON file of a model folder is broken, or requires something that is not implemented."""


class CheckpointError(MiniLMError, ValueError):
    """A weights file is broken, or does not match the config."""


class TokenizerError(MiniLMError, ValueError):
    """A tokenizer file of a model folder is broken, or requires something that is not implemented."""


class InputTypeError(MiniLMError, TypeError):
    """An argument has an unsupported type."""


class InputValueError(MiniLMError, ValueError):
    """An argument has an unsupported value."""


class NonFiniteError(MiniLMError, ArithmeticError):
    """A result is NaN or infinite, because of wrong weights or an overflow."""


class MissingExtraError(MiniLMError, ImportError):
    """An optional library is not installed. The message says how to install it."""


class SaveError(MiniLMError, OSError):
    """A model, a training run or a file of results could not be saved."""


class DataError(MiniLMError, ValueError):
    """A file of texts, or of training or test data, is broken or too small. The message names the file and the line."""


class ImplementationError(MiniLMError, RuntimeError):
    """Another implementation could not be loaded or called, or its answer is invalid."""


class TruncationWarning(UserWarning):
    """Texts were longer than the model's limit, and were truncated."""

"""The package's own exceptions: each says what went wrong, where, what was expected, what was found and what to do.

They also derive from the built-in exception that a caller would expect, so `except ValueError` goes on working.
"""


class MiniLMError(Exception):
    """Base of every exception that this package raises on purpose."""


class HubError(MiniLMError, OSError):
    """A model could not be found, fetched or verified."""


class ConfigError(MiniLMError, ValueError):
    """A model folder's JSON files are broken, or ask for something that is not implemented."""


class CheckpointError(MiniLMError, ValueError):
    """A weights file is broken, or does not hold what its config promises."""


class TokenizerError(MiniLMError, ValueError):
    """A model folder's tokenizer files are broken, or ask for something that is not implemented."""


class InputTypeError(MiniLMError, TypeError):
    """An argument has a type that is not accepted."""


class InputValueError(MiniLMError, ValueError):
    """An argument has a value that is not accepted."""


class NonFiniteError(MiniLMError, ArithmeticError):
    """A result is NaN or infinite: the weights, or the arithmetic, are not what they should be."""


class MissingExtraError(MiniLMError, ImportError):
    """A library that only this call needs is not installed; the message names what to install."""


class SaveError(MiniLMError, OSError):
    """A model cannot be saved where it was asked for."""


class DataError(MiniLMError, ValueError):
    """A file of training or test data is broken or too small; the message names the file and the line."""


class ImplementationError(MiniLMError, RuntimeError):
    """Another implementation could not be loaded or asked, or its answer cannot be read."""


class TruncationWarning(UserWarning):
    """Texts were longer than the model's limit, and their ends were left out."""

"""The JSON files of a model folder, read as values or refused by a ConfigError that names the file."""

import warnings
from collections.abc import Set
from pathlib import Path
from typing import Any

from minilm_np._checks import callers_level, short_repr
from minilm_np._files import read_json, shown
from minilm_np.errors import ConfigError


def read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; {} for a missing optional file. Raises ConfigError."""
    values = read_value(path, {} if optional else None)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {shown(values)}")
    return values


def read_value(path: Path, default: Any = None) -> Any:
    """The value in a JSON file; the default, if there is one, for a missing file. Raises ConfigError."""
    try:
        return read_json(path)
    except FileNotFoundError:
        if default is not None:
            return default
        raise ConfigError(f"{path} is missing: expected it in the model folder, next to the weights") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def warn_of_unknown(path: Path, keys: Set[str]) -> None:
    """Warn of the keys of a file that this package does not read, if there are any."""
    if keys:
        names = ", ".join(map(short_repr, sorted(keys)[:5])) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        warnings.warn(f"{path}: unknown keys are ignored: {names}", stacklevel=callers_level())

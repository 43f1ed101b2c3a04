"""modules.json: the modules of a model, in order, and the folder of each."""

import os
from pathlib import Path, PurePosixPath

from minilm_np._checks import short_repr
from minilm_np._files import shown
from minilm_np.errors import ConfigError
from minilm_np.model_files.json_files import read_value

FILE = "modules.json"


def read_modules(folder: Path) -> list[tuple[str, str]] | None:
    """Return (name of the class, path) of each module, in order; None if there is no modules.json. Raises ConfigError.

    A path is inside the model folder.
    """
    path = folder / FILE
    modules = read_value(path, default=())
    if modules == ():  # no such file: JSON has no tuples
        return None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ConfigError(f"{path}: expected a list of objects, found {shown(modules)}")
    found = []
    for number, module in enumerate(modules):
        kind, where = module.get("type"), module.get("path", "")
        if not isinstance(kind, str) or not isinstance(where, str):
            raise ConfigError(f"{path}: module {number}: expected type and path to be strings, found {shown(module)}")
        _check_inside(folder, where, f"{path}: module {number}")
        # the class path changes between releases (sentence_transformers.models.Pooling, ...modules.pooling.Pooling)
        found.append((kind.rpartition(".")[2], where))
    return found


def _check_inside(folder: Path, where: str, what: str) -> None:
    """Refuse a module's path that leaves the model folder, by its words or by a link. what: starts the message."""
    if "\\" in where or PurePosixPath(where).is_absolute() or ".." in PurePosixPath(where).parts:
        raise ConfigError(f"{what}: the path {short_repr(where)} is outside the model folder")
    try:
        target = Path(os.path.realpath(folder / where))
    except ValueError as error:  # NUL, or a lone surrogate
        raise ConfigError(f"{what}: the path {short_repr(where)} is not valid: {error}") from None
    if not target.is_relative_to(os.path.realpath(folder)):
        raise ConfigError(
            f"{what}: the path {short_repr(where)} is a link to {target}, outside the model folder: copy that folder "
            "into it"
        )

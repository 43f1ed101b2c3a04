"""The source files that a module of this package is made of, found without importing it."""

import functools
import hashlib
import os
import re

from minilm_np._files import PACKAGE
from minilm_np.errors import InputValueError

_IMPORT = re.compile(r"^\s*from (minilm_np[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


@functools.cache
def digest(module: str) -> str:
    """A digest of the sources of a module and of all modules of this package that it imports."""
    found = hashlib.sha256()
    for name, source in sorted(sources(module).items()):
        found.update(name.encode() + b"\0" + source + b"\0")
    return found.hexdigest()


@functools.cache
def sources(module: str) -> dict[str, bytes]:
    """The source of a module of this package and of all modules of this package that it imports, by module name.

    They are found by their import statements, `from minilm_np... import ...`: importing them would import Numba.

    Raises InputValueError: the installation has no source of the module, so nothing says which code it has.
    """
    root = str(PACKAGE.parent)  # strings: pathlib is slower, and this runs in every process
    found: dict[str, bytes] = {}
    waiting, seen = [module], {module}
    while waiting:
        name = waiting.pop()
        path = f"{root}/{name.replace('.', '/')}"
        path = f"{path}/__init__.py" if os.path.isdir(path) else f"{path}.py"
        try:
            with open(path, "rb") as file:
                found[name] = file.read()
        except (FileNotFoundError, NotADirectoryError):
            if name == module:
                raise InputValueError(
                    f"backend 'numba' reads the package's source files, and {path} is missing: install minilm_np as "
                    "files, with its .py files (not as bytecode only, or in an archive), or use backend 'numpy'"
                ) from None
            continue  # a function or a constant of a package
        for parent, names in _IMPORT.findall(found[name].decode()):
            imported = {parent}
            if os.path.isdir(f"{root}/{parent.replace('.', '/')}"):
                imported |= {f"{parent}.{child}" for child in re.findall(r"\w+", names)}
            waiting += imported - seen
            seen |= imported
    return found

"""The functions of a package of kernels: from a library that was compiled in advance, or compiled on this machine."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from minilm_np._forks import no_fork
from minilm_np.engine.runtime import libraries
from minilm_np.errors import MissingExtraError

CTypes = tuple[type[ctypes.c_int64] | type[ctypes.c_float] | type[ctypes.c_void_p], ...]
# name of an entry -> the ctypes of its arguments
Entries = Mapping[str, CTypes]


class Code(NamedTuple):
    """The functions of a package of kernels, and the owner of their memory, which must live as long as they do."""

    functions: dict[str, Callable[..., int]]
    owner: object


def load_entries(package: str, entries: Entries) -> Code:
    """Load the functions that the module `entry` of a package defines.

    package: its full name. Its `entry` has a function `object_code(name)`, see `compilation.symbol_and_object`.
    entries: name -> the ctypes of its arguments.

    A function returns the integer that the entry returns, or 0 if that returns nothing.

    Raises MissingExtraError: the kernels have to be compiled, and Numba is not installed. InputValueError: an
    environment variable names kernels that this machine cannot run; or the installation has no sources.
    """
    with no_fork:  # a child could use neither LLVM nor Numba if another thread was inside them at the fork
        library = libraries.find(package)
        if library is None:
            addresses, owner = _compiled(package, entries)
        else:
            addresses, owner = library.addresses(list(entries)), library.handle
    return Code({name: _callable(addresses[name], name, types) for name, types in entries.items()}, owner)


def identity(package: str) -> str:
    """A digest of what decides the code of a package of kernels in this process. Raises as `load_entries` does."""
    with no_fork:
        library = libraries.find(package)
        if library is not None:
            return library.sha256
        with _naming_the_obstacle(package):
            from minilm_np.engine.runtime import code_cache

            return code_cache.identity(package)


def origin(package: str) -> str:
    """Where the code of a package of kernels comes from, for `minilm-np info`."""
    library = libraries.find(package)
    if library is None:
        return f"compiled on this machine ({libraries.obstacle(package)})"
    return f"compiled in advance for {library.target.description}"


def _compiled(package: str, entries: Entries) -> tuple[dict[str, int], object]:
    """Addresses of the entries and their owner, from the cache of compiled kernels, or newly compiled."""
    with _naming_the_obstacle(package):
        from minilm_np.engine.runtime import code_cache  # imports LLVM

        return code_cache.load(package, entries)


@contextmanager
def _naming_the_obstacle(package: str) -> Iterator[None]:
    """Let the error of a missing Numba say why no library is used."""
    try:
        yield
    except MissingExtraError as error:
        reason = libraries.obstacle(package)
        raise MissingExtraError(f"{error}. Kernels compiled in advance are not used: {reason}") from error


def _callable(address: int, name: str, argument_types: CTypes) -> Callable[..., int]:
    """A function in Numba's calling convention: it returns a status, and its results through pointers."""
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *argument_types)(address)

    def call(*arguments: float) -> int:
        result = ctypes.c_int64()
        exception = ctypes.c_void_p()
        if status := function(ctypes.addressof(result), ctypes.addressof(exception), *arguments):
            raise SystemError(f"{name} returned status {status}, but kernels raise nothing: its code is damaged")
        return result.value

    return call

"""Kernels that were compiled in advance: the library that fits this process. Needs neither Numba nor LLVM.

`minilm_np/engine/prebuilt` has one shared library per package of kernels and target, and a manifest. The library of the
best target that this processor supports is used, if

- the sources of the kernels are those that it was made of, so a changed checkout never runs old kernels,
- its content has the SHA-256 in the manifest,
- no setting of Numba changes the code, and MINILM_NP_INTEGER_TARGET forces no other instructions,
- MINILM_NP_KERNELS is not "compile".

Otherwise the kernels are compiled here (`code_cache.py`). The SHA-256 detects a damaged file, or one of another build.
It is no defence against somebody who can write to the installation: such a person could change every module, too.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

from minilm_np._files import PACKAGE, read_json
from minilm_np._forks import no_fork
from minilm_np.engine.runtime.integer_target import target_of
from minilm_np.engine.runtime.numba_settings import code_settings
from minilm_np.engine.runtime.sources import digest
from minilm_np.engine.runtime.targets import COMPILE, TARGETS, VARIABLE, Target, forced_target, host_features
from minilm_np.errors import InputValueError

logger = logging.getLogger(__name__)

FOLDER = PACKAGE / "engine" / "prebuilt"
MANIFEST = FOLDER / "manifest.json"


class Library(NamedTuple):
    """A library that is loaded."""

    target: Target
    sha256: str  # of its content
    handle: ctypes.CDLL

    def addresses(self, names: list[str]) -> dict[str, int]:
        """The addresses of its functions with these names."""
        return {name: ctypes.cast(getattr(self.handle, name), ctypes.c_void_p).value or 0 for name in names}


def file_name(package: str, target: Target) -> str:
    """The name of the library of a package of kernels for a target."""
    return f"{package.split('.')[-2]}-{target.name}.so"


def find(package: str) -> Library | None:
    """Load the library of a package of kernels. Returns None if the kernels have to be compiled here.

    Raises InputValueError: MINILM_NP_KERNELS names a target whose library cannot be used; or the installation has no
    sources.
    """
    library, obstacle = _find(package)
    if library is None and forced_target() is not None:
        raise InputValueError(
            f"{VARIABLE} is {os.environ[VARIABLE]!r}, but its library cannot be used: {obstacle}. Remove the obstacle, "
            f"or unset {VARIABLE}"
        )
    return library


def obstacle(package: str) -> str:
    """Why `find` returns None, in words."""
    return _find(package)[1]


def _find(package: str) -> tuple[Library | None, str]:
    """The library, or None and why there is none."""
    if os.environ.get(VARIABLE) == COMPILE:
        return None, f"{VARIABLE} is {COMPILE!r}"
    if settings := code_settings():
        return None, f"a setting of Numba may change the code of kernels: {', '.join(settings)}"
    of_sources = digest(f"{package}.entry")
    try:
        manifest = _manifest()
    except (OSError, ValueError) as error:
        return None, f"the installation has no manifest of libraries: {error}"
    if manifest["sources"].get(package) != of_sources:
        return None, "the libraries were made of other sources than the installed ones"
    target = _target(package, manifest)
    if target is None:
        if (sys.platform, platform.machine()) == ("linux", "x86_64") and not host_features():
            return None, "/proc/cpuinfo does not list the features of this processor"
        return None, "there is no library for this processor"
    name = file_name(package, target)
    with no_fork:  # a child could not load libraries if another thread was loading one at the fork
        found = _loaded(FOLDER / name, manifest["libraries"][name]["sha256"])
    if isinstance(found, str):
        return None, found
    return Library(target, manifest["libraries"][name]["sha256"], found), ""


def _target(package: str, manifest: dict[str, Any]) -> Target | None:
    """The best target that has a library and that this process may use."""
    forced, integers = forced_target(), target_of(package)
    for target in TARGETS:
        has_library = file_name(package, target) in manifest["libraries"]
        permitted = forced is None or (target.machine == forced.machine and target.features <= forced.features)
        if has_library and permitted and integers in (None, target.integers) and target.fits():
            return target
    return None


@functools.cache
def _manifest() -> dict[str, Any]:
    found: dict[str, Any] = read_json(MANIFEST)
    return found


@functools.cache
def _loaded(path: Path, sha256: str) -> ctypes.CDLL | str:
    """The loaded library, or what is wrong with its file, which is also logged."""
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{path} is damaged: its content does not have the SHA-256 in {MANIFEST.name}")
        return ctypes.CDLL(str(path))
    except (OSError, ValueError) as error:
        logger.warning("the kernels that were compiled in advance cannot be used: %s", error)
        return str(error)

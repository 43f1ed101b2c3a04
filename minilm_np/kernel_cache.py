"""Compiled kernels, kept on disk between processes: compiled once on a machine, loaded in a moment from then on.

Numba's own cache does not notice that an imported helper changed, and unpickles whatever it finds. This one lies in a
folder that only its user can write, named by a digest of everything that decides the code: the kernels' sources, the
versions of Numba, llvmlite and Python, the processor and its features, and Numba's settings. Each file begins with the
SHA-256 of the rest, which is checked before a byte is unpickled. On any trouble the kernel is compiled afresh; a folder
that cannot be written costs that time in every process, and nothing else.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import platform
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching, compiler, serialize

from minilm_np.hub import package_cache

logger = logging.getLogger(__name__)

_DIGEST = hashlib.sha256().digest_size


def compile_kernel(dispatcher: Any, signature: tuple[Any, ...], on_compile: Callable[[], None]) -> None:
    """Make a kernel ready for one signature, from the cache or by compiling it (`on_compile` is called before that)."""
    dispatcher._cache = _KernelCache(dispatcher.py_func, on_compile)
    dispatcher.compile(signature)


class _KernelCache(caching._Cache):
    """What Numba asks for the compiled form of one function, and hands it to."""

    def __init__(self, function: Any, on_compile: Callable[[], None]) -> None:
        self._function = f"{function.__module__}.{function.__qualname__}"
        self._on_compile = on_compile
        self._enabled = True

    @property
    def cache_path(self) -> str:
        return str(package_cache() / "kernels")

    def _file(self, signature: Any, codegen: Any) -> Path:
        name = hashlib.sha256(f"{self._function}{signature}".encode()).hexdigest()[:16]
        return package_cache() / "kernels" / _identity(codegen) / f"{self._function.rpartition('.')[2]}-{name}"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        target_context.refresh()
        if self._enabled:
            path = self._file(signature, target_context.codegen())
            try:
                payload = pickle.loads(_read_private(path))
                return compiler.CompileResult._rebuild(target_context, *payload)
            except FileNotFoundError:
                pass
            except Exception as error:
                # what is wrong with a cached file can be anything; compiling afresh is always right
                logger.warning("%s is not used, the kernel is compiled afresh: %s", path, error)
        self._on_compile()
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        if not self._enabled:
            return
        try:
            payload = serialize.dumps(compiled._reduce())
            _write_private(self._file(signature, compiled.codegen), payload)
        except Exception as error:
            logger.warning("the compiled kernels cannot be kept, every process compiles them again: %s", error)

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        """Nothing is kept in memory."""


def _identity(codegen: Any) -> str:
    """A digest of everything that decides the compiled code."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "kernels").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
    versions = (sys.version, platform.machine(), numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(repr((versions, codegen.magic_tuple(), settings)).encode())
    return digest.hexdigest()[:32]


def _read_private(path: Path) -> bytes:
    """The content of a file of our own. Raises OSError; ValueError where others can write it or its digest is wrong."""
    for place in (path.parent, path):
        status = place.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022):
            raise ValueError(f"{place} belongs to, or can be written by, somebody else")
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one that it begins with")
    return content[_DIGEST:]


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise

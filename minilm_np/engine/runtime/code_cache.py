"""Compiled kernels as plain functions: compiled once per machine, then loaded from a cache.

Numba compiles a kernel to object code that calls nothing but the C library's `memset` and `sched_yield`. Only that code
is stored on disk. LLVM loads it, and ctypes calls it without the GIL, so a process that finds it in the cache does not
import Numba and compiles nothing. Nothing is unpickled.

The folder is writable by its user only. Its name is a digest of everything that decides the code: the sources, the
versions of Numba, llvmlite, NumPy and Python, the CPU and its features, Numba's settings, and the
target of the integer kernels. Each file begins with the
SHA-256 of the rest, which is checked before LLVM reads a byte. If anything is wrong, the kernels are compiled again. If
the folder cannot be written, every process compiles them, and nothing else changes.
"""

import ctypes
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from minilm_np._files import PACKAGE, atomic_file, package_cache
from minilm_np.engine.runtime import NEEDS_NUMBA, processor
from minilm_np.engine.runtime.integer_target import integer_target
from minilm_np.errors import MissingExtraError

logger = logging.getLogger(__name__)

_DIGEST = hashlib.sha256().digest_size
_IMPORT = re.compile(r"^\s*from (minilm_np[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)

CTypes = tuple[type[ctypes.c_int64] | type[ctypes.c_float] | type[ctypes.c_void_p], ...]
# name of an entry -> the ctypes of its arguments
Entries = Mapping[str, CTypes]


class Code(NamedTuple):
    """The functions of a package of kernels, and LLVM's engine, which owns their memory."""

    functions: dict[str, Callable[..., int]]
    engine: llvm.ExecutionEngine


def load_entries(package: str, entries: Entries) -> Code:
    """Load the functions that the module `entry` of a package defines, from the cache or newly compiled.

    package: its full name. Its `entry` has a function `object_code(name)`, see `compilation.symbol_and_object`.
    entries: name -> the ctypes of its arguments.

    A function returns the integer that the entry returns, or 0 if that returns nothing.
    """
    folder = package_cache() / "kernels" / identity(package)
    code: dict[str, bytes] = {}
    for name in entries:
        try:
            code[name] = _read_private(folder / f"{name}.o")
        except FileNotFoundError:
            break
        except (OSError, ValueError) as error:
            logger.warning("compiling the kernels again, because the cached copy is unusable: %s", error)
            break
    if len(code) < len(entries):
        message = "minilm-np: compiling the kernels for this machine; this happens once and takes about 10 s"
        print(message, file=sys.stderr, flush=True)
        entry = importlib.import_module(f"{package}.entry")  # imports Numba
        code = {name: entry.object_code(name) for name in entries}
        try:
            for name, content in code.items():
                _write_private(folder / f"{name}.o", content)
        except OSError as error:
            logger.warning("the compiled kernels cannot be cached, so every process compiles them: %s", error)
    return _link(code, entries)


def _link(code: dict[str, bytes], entries: Entries) -> Code:
    """Object code to functions. It is machine code for this CPU already: LLVM only places it in memory."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    module = llvm.parse_assembly("")
    module.triple = machine.triple
    engine = llvm.create_mcjit_compiler(module, machine)
    symbols = {}
    for name, content in code.items():
        symbol, _, binary = content.partition(b"\0")
        engine.add_object_file(llvm.ObjectFileRef.from_data(binary))
        symbols[name] = symbol.decode()
    engine.finalize_object()
    functions = {
        name: _callable(engine.get_function_address(symbols[name]), name, arguments)
        for name, arguments in entries.items()
    }
    return Code(functions, engine)


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


# ---- what decides the code -------------------------------------------------------------------------------------------


def identity(package: str) -> str:
    """A digest of everything that decides the compiled code of a package of kernels."""
    digest = hashlib.sha256()
    found = sources(f"{package}.entry") | {__name__: Path(__file__).read_bytes()}
    for module in sorted(found):
        digest.update(module.encode() + b"\0" + found[module] + b"\0")
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
    versions = [sys.version, platform.machine(), llvm.llvm_version_info]
    versions += [_numba_version(), llvmlite.__version__, np.__version__]
    target = integer_target() if ".engine.integer." in package else None
    digest.update(repr((versions, processor.host(), settings, target)).encode())
    return digest.hexdigest()[:32]


def sources(module: str) -> dict[str, bytes]:
    """The source of a module of this package and of all modules of this package that it imports, by module name.

    They are found by their import statements, `from minilm_np... import ...`: importing them would import Numba.
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
        except FileNotFoundError:  # a function or a constant of a package
            continue
        for parent, names in _IMPORT.findall(found[name].decode()):
            imported = {parent}
            if os.path.isdir(f"{root}/{parent.replace('.', '/')}"):
                imported |= {f"{parent}.{child}" for child in re.findall(r"\w+", names)}
            waiting += imported - seen
            seen |= imported
    return found


def _numba_version() -> str:
    """What distinguishes the installed release of Numba. Importing it, or `importlib.metadata`, takes far longer."""
    found = importlib.util.find_spec("numba")
    if found is None or found.origin is None:
        raise MissingExtraError(NEEDS_NUMBA)
    try:
        return Path(found.origin).with_name("_version.py").read_text()
    except OSError:  # repackaged without that file
        from importlib.metadata import version

        return version("numba")


# ---- files -----------------------------------------------------------------------------------------------------------


def _read_private(path: Path) -> bytes:
    """The content of a cached file, without its digest.

    Raises OSError. Raises ValueError if another user can write the file or its folders, or if the digest is wrong.
    """
    for place in (path.parent.parent, path.parent, path):
        status = place.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022):
            raise ValueError(f"{place} belongs to another user, or other users can write to it: remove it")
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise ValueError(f"{path} is damaged: its content does not have the SHA-256 at its start")
    return content[_DIGEST:]


def _write_private(path: Path, content: bytes) -> None:
    for folder in (path.parent.parent, path.parent):  # one by one: `parents=True` uses the umask's permissions
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_file(path, private=True) as file:
        file.write(hashlib.sha256(content).digest() + content)

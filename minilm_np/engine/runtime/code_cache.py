"""The compiled kernels as plain functions: compiled once on a machine, loaded in a moment from then on.

Numba compiles a kernel to object code that calls nothing but the C library's `memset` and `sched_yield`. That code is
all that is kept on disk; LLVM loads it, and ctypes calls it (without the GIL), so a process that finds it there neither
imports Numba nor types a line. Nothing is unpickled.

The folder is one that only its user can write, named by a digest of everything that decides the code: the kernels'
sources, the versions of Numba, llvmlite, NumPy and Python, the processor and its features, Numba's settings. Each file
begins with the SHA-256 of the rest, which is checked before LLVM reads a byte. On any trouble the kernel is compiled
afresh; a folder that cannot be written costs that time in every process, and nothing else.
"""

import ctypes
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from minilm_np._files import PACKAGE, atomic_file, package_cache
from minilm_np.errors import MissingExtraError

logger = logging.getLogger(__name__)

_DIGEST = hashlib.sha256().digest_size

# kernels/entry.py: name -> how ctypes calls it, after Numba's two out-parameters (the result and the exception)
Entries = Mapping[str, tuple[Any, ...]]
_ENTRIES: Entries = {"run_pass": (ctypes.c_void_p,), "exchange_float_mode": (ctypes.c_int64,)}

# Round to nearest even, subnormals kept, exceptions masked: MXCSR (x86) or FPCR (AArch64) as a process starts with it.
STANDARD_FLOAT_MODE = 0x1F80 if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else 0

_lock = threading.Lock()
_loaded: "Kernels | None" = None


class Kernels:
    """The entry points of `kernels/entry.py`."""

    def __init__(self, functions: dict[str, Callable[..., int]], engine: Any) -> None:
        self.run_pass = functions["run_pass"]  # the address of a `layout.Pass`
        self.exchange_float_mode = functions["exchange_float_mode"]
        self._engine = engine  # LLVM's, which owns the code


def load() -> Kernels:
    """The kernels for this machine, from the cache, or compiled, which is said on stderr. Once in a process."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = Kernels(*load_entries("minilm_np.engine.float32.kernels", _ENTRIES))
        return _loaded


def load_entries(package: str, entries: Entries) -> tuple[dict[str, Callable[..., int]], Any]:
    """The functions that `package`.entry defines, and LLVM's engine, which owns their code.

    entries: name -> the ctypes of its arguments. Each call returns what the entry returns, an integer, or 0.
    """
    folder = package_cache() / "kernels" / _identity(package)
    code: dict[str, bytes] = {}
    for name in entries:
        try:
            code[name] = _read_private(folder / f"{name}.o")
        except FileNotFoundError:
            break
        except (OSError, ValueError) as error:
            logger.warning("compiling the kernels afresh, because what is kept is of no use: %s", error)
            break
    if len(code) < len(entries):
        print("minilm-np: compiling the kernels for this machine, once (some 10 s)", file=sys.stderr, flush=True)
        entry = importlib.import_module(f"{package}.entry")  # imports Numba
        code = {name: entry.object_code(name) for name in entries}
        try:
            for name, content in code.items():
                _write_private(folder / f"{name}.o", content)
        except OSError as error:
            logger.warning("the compiled kernels cannot be kept, so every process compiles them: %s", error)
    return _link(code, entries)


def _link(code: dict[str, bytes], entries: Entries) -> tuple[dict[str, Callable[..., int]], Any]:
    """Object code to functions. It was compiled for this processor: LLVM only places it in memory."""
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
    return functions, engine


def _callable(address: int, name: str, argument_types: tuple[Any, ...]) -> Callable[..., int]:
    """A function of Numba's calling convention: a status, results through pointers. The kernels raise nothing."""
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *argument_types)(address)

    def call(*arguments: float) -> int:
        result = ctypes.c_int64()
        exception = ctypes.c_void_p()
        if status := function(ctypes.addressof(result), ctypes.addressof(exception), *arguments):
            raise SystemError(f"{name} returned status {status}: kernels raise nothing, so its code is damaged")
        return result.value

    return call


def _identity(package: str = "minilm_np.engine.float32.kernels") -> str:
    """A digest of everything that decides the compiled code of a package of kernels."""
    digest = hashlib.sha256()
    shared = ("engine/runtime/simd", "engine/float32/kernels")
    folders = dict.fromkeys(PACKAGE / folder for folder in (*shared, "/".join(package.split(".")[1:])))
    for path in (Path(__file__), *(path for folder in folders for path in sorted(folder.glob("*.py")))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
    versions = [sys.version, platform.machine(), llvm.llvm_version_info]
    versions += [_numba_version(), llvmlite.__version__, np.__version__]
    processor = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    digest.update(repr((versions, processor, settings)).encode())
    return digest.hexdigest()[:32]


def _numba_version() -> str:
    """What tells one release of Numba from another. Importing it, or `importlib.metadata`, would take far longer."""
    found = importlib.util.find_spec("numba")
    if found is None or found.origin is None:
        raise MissingExtraError(
            "backend 'numba' needs Numba, which is not installed: `pip install numba`, or take backend 'numpy'"
        )
    try:
        return Path(found.origin).with_name("_version.py").read_text()
    except OSError:  # packed in another way than by its makers
        from importlib.metadata import version

        return version("numba")


def _read_private(path: Path) -> bytes:
    """The content of a file of our own. Raises OSError; ValueError where others can write it or its digest is wrong."""
    for place in (path.parent.parent, path.parent, path):
        status = place.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022):
            raise ValueError(f"{place} belongs to, or can be written by, somebody else: remove it")
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one that it begins with")
    return content[_DIGEST:]


def _write_private(path: Path, content: bytes) -> None:
    for folder in (path.parent.parent, path.parent):  # each by itself: `parents` are made with the umask's rights
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_file(path, private=True) as file:
        file.write(hashlib.sha256(content).digest() + content)

"""Kernels that are compiled on this machine: compiled once, then loaded from a cache. `entries.py` calls it.

Numba compiles a kernel to object code that calls nothing but the C library's `memset` and `sched_yield`. Only that code
is stored on disk. LLVM loads it, and ctypes calls it without the GIL, so a process that finds it in the cache does not
import Numba and compiles nothing. Nothing is unpickled.

The name of a folder of code is a digest of everything that decides the code: the sources, the versions of Numba,
llvmlite, NumPy and Python, the CPU and its features, the settings of Numba that change code, and the target of the
integer kernels. Each file begins with the SHA-256 of the rest, which is checked before LLVM reads a byte. Code is
loaded only from a folder to which nobody but the user and root can write (`trusted_folder.py`). So root may compile the
kernels into the image of a container, and any user may run it; a read-only cache is used as it is.

If several processes find no code, one compiles and the others wait for it, for at most WAIT_S seconds. If anything is
wrong with the cached code, the kernels are compiled again. If the folder cannot be written to, every process compiles
them, and nothing else changes.
"""

import hashlib
import importlib
import importlib.util
import logging
import platform
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from minilm_np._files import package_cache
from minilm_np._progress import say
from minilm_np.engine.runtime.integer_target import target_of
from minilm_np.engine.runtime.llvm import NEEDS_NUMBA, llvm, llvmlite
from minilm_np.engine.runtime.numba_settings import code_settings
from minilm_np.engine.runtime.sources import sources
from minilm_np.engine.runtime.trusted_folder import trusted_folder
from minilm_np.errors import MissingExtraError

logger = logging.getLogger(__name__)

WAIT_S = 120.0  # seconds to wait for another process that compiles, before this one compiles, too

_NOT_CACHED = "the compiled kernels cannot be cached, so every process compiles them"
_ADVICE = "Set MINILM_NP_CACHE to a folder that only you can write to"
_DIGEST = hashlib.sha256().digest_size

ObjectCode = dict[str, bytes]  # name of an entry -> its symbol and object file, see `compilation.symbol_and_object`


def load(package: str, names: Iterable[str]) -> tuple[dict[str, int], object]:
    """The addresses of the entries with these names, from the cache or newly compiled, and the owner of their memory.

    package: as for `entries.load_entries`, which holds `no_fork`. Raises MissingExtraError: Numba is not installed.
    """
    return _link(_object_code(package, list(names)))


def _object_code(package: str, names: Iterable[str]) -> ObjectCode:
    """The object code of these entries, from the cache or newly compiled."""
    place = package_cache(), "kernels", identity(package)
    code, problem = _cached(place, names)
    if code is not None:
        return code

    def waiting() -> None:
        say("waiting for another process that compiles the kernels")

    with ExitStack() as stack:
        try:
            folder = stack.enter_context(trusted_folder(*place, create=True))
            stack.enter_context(folder.locked(WAIT_S, waiting))
        except (OSError, ValueError) as error:
            logger.warning("%s: %s. %s", _NOT_CACHED, problem or error, _ADVICE)
            say("compiling the kernels for this machine; this takes about 10 s")
            return _compiled(package, names)
        code, problem = _cached(place, names)  # another process may have compiled them
        if code is not None:
            return code
        if problem is not None:
            logger.warning("compiling the kernels again, because the cached copy is unusable: %s", problem)
        say("compiling the kernels for this machine; this happens once and takes about 10 s")
        code = _compiled(package, names)
        try:
            for name, content in code.items():
                folder.write(f"{name}.o", hashlib.sha256(content).digest() + content)
        except OSError as error:
            logger.warning("%s: %s. %s", _NOT_CACHED, error, _ADVICE)
        return code


def _cached(place: tuple[Path, str, str], names: Iterable[str]) -> tuple[ObjectCode | None, Exception | None]:
    """The cached code, or None and what is wrong with it; nothing is wrong if it was never compiled."""
    code = {}
    try:
        with trusted_folder(*place) as folder:
            for name in names:
                content = folder.read(f"{name}.o")
                code[name] = content[_DIGEST:]
                if hashlib.sha256(code[name]).digest() != content[:_DIGEST]:
                    path = folder.path / f"{name}.o"
                    raise ValueError(f"{path} is damaged: its content does not have the SHA-256 at its start")
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, error
    return code, None


def _compiled(package: str, names: Iterable[str]) -> ObjectCode:
    entry = importlib.import_module(f"{package}.entry")  # imports Numba
    return {name: entry.object_code(name) for name in names}


def _link(code: ObjectCode) -> tuple[dict[str, int], object]:
    """Object code to addresses. It is machine code for this CPU already: LLVM only places it in memory, and owns it."""
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
    return {name: engine.get_function_address(symbol) for name, symbol in symbols.items()}, engine


# ---- what decides the code -------------------------------------------------------------------------------------------


def identity(package: str) -> str:
    """A digest of everything that decides the code that is compiled for a package of kernels."""
    digest = hashlib.sha256()
    found = sources(f"{package}.entry") | {__name__: Path(__file__).read_bytes()}
    for module in sorted(found):
        digest.update(module.encode() + b"\0" + found[module] + b"\0")
    versions = [sys.version, platform.machine(), llvm.llvm_version_info]
    versions += [_numba_version(), llvmlite.__version__, np.__version__]
    host = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    digest.update(repr((versions, host, code_settings(), target_of(package))).encode())
    return digest.hexdigest()[:32]


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

"""Build the libraries of kernels, or compare them with a new build. For maintainers, on Linux on x86-64.

Numba compiles for one processor per process, so each package of kernels and each target has its own process. Another
processor than that of this machine needs no emulator: LLVM's targets are replaced before Numba reads them.
"""

import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minilm_np._files import PACKAGE
from minilm_np.engine.runtime import integer_target
from minilm_np.engine.runtime.libraries import FOLDER, MANIFEST, file_name
from minilm_np.engine.runtime.sources import digest
from minilm_np.engine.runtime.targets import TARGETS, Target

PACKAGES = ("minilm_np.engine.float32.kernels", "minilm_np.engine.integer.kernels", "minilm_np.train.kernels")
TOOLS = ("numba", "llvmlite", "ziglang")  # whose versions decide the bytes, with that of Python

_EMULATIONS = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}  # the linker's names
_LINKER = [sys.executable, "-m", "ziglang", "ld.lld"]  # one linker for all machines


def targets_of(package: str) -> list[Target]:
    """The targets that a package of kernels has a library for; those for float32 do not differ in other features."""
    return [target for target in TARGETS if ".engine.integer." in package or not target.added]


def build(jobs: int) -> None:
    """Build all libraries and the manifest in the place where the package looks for them."""
    with TemporaryDirectory(dir=FOLDER) as place:
        manifest = _build(Path(place), jobs)
        for old in FOLDER.glob("*.so"):
            old.unlink()
        for name in manifest["libraries"]:
            Path(place, name).replace(FOLDER / name)
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def check(jobs: int) -> list[str]:
    """Build again, elsewhere, and return the differences from the libraries and the manifest of the package."""
    expected = json.loads(MANIFEST.read_text(encoding="utf-8"))
    if expected["made_with"] != _versions():
        return [f"the libraries were made with {expected['made_with']}, but here are {_versions()}: install the former"]
    with TemporaryDirectory() as place:
        found = _build(Path(place), jobs)
    differences = [
        f"{part}: {name}: expected {expected[part].get(name)}, found {found[part].get(name)}"
        for part in ("sources", "libraries")
        for name in sorted(expected[part].keys() | found[part].keys())
        if expected[part].get(name) != found[part].get(name)
    ]
    for name, library in expected["libraries"].items():
        if hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() != library["sha256"]:
            differences.append(f"{name}: its content does not have the SHA-256 in {MANIFEST.name}")
    return differences


def _versions() -> dict[str, str]:
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python} | {name: importlib.metadata.version(name) for name in TOOLS}


def _build(place: Path, jobs: int) -> dict[str, Any]:
    """Build all libraries in a folder, and return the manifest."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SystemExit(f"the libraries are built on Linux on x86-64, not on {sys.platform} {platform.machine()}")
    sources = {package: digest(f"{package}.entry") for package in PACKAGES}
    pairs = [(package, target) for package in PACKAGES for target in targets_of(package)]
    # Those that take longest first: integers, and AArch64, for which LLVM makes branches of masked loads.
    pairs.sort(key=lambda pair: (".engine.integer." not in pair[0], pair[1].machine != "aarch64"))
    with ThreadPoolExecutor(jobs) as pool:
        built = dict(zip(pairs, pool.map(lambda pair: _library(pair[0], pair[1], place), pairs), strict=True))
    libraries = {}
    for package in PACKAGES:
        for target in targets_of(package):
            path = built[package, target]
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            libraries[path.name] = {"target": target.name, "bytes": len(content), "sha256": sha256}
    return {"made_with": _versions(), "sources": sources, "libraries": libraries}


def _library(package: str, target: Target, place: Path) -> Path:
    """Compile a package of kernels for a target, link it, and check the result."""
    from minilm_np.engine.prebuilt.elf import faults

    library = place / file_name(package, target)
    print(f"compiling {library.name} ...", file=sys.stderr, flush=True)
    objects = place / f"{library.stem}.objects"
    objects.mkdir()
    command = [sys.executable, "-m", "minilm_np.engine.prebuilt", "compile", package, target.name, str(objects)]
    subprocess.run(command, check=True, env=environment(target))
    symbols = json.loads((objects / "symbols.json").read_text(encoding="utf-8"))
    script = objects / "exports"
    script.write_text(f"{{ global: {'; '.join(symbols)}; local: *; }};\n", encoding="utf-8")
    # `now`: a call never resolves a symbol, so it takes no lock of the loader. `text`: no relocation of code, so
    # processes share its memory. No build id and no symbol tables: they take space.
    options = [
        "-shared", "-m", _EMULATIONS[target.machine], "--strip-all", "--hash-style=gnu", "--build-id=none",
        "-z", "now", "-z", "relro", "-z", "text", "-z", "noexecstack", f"--version-script={script}",
    ]  # fmt: skip
    names = [f"--defsym={name}={symbol}" for name, symbol in symbols.items()]
    files = [str(objects / f"{name}.o") for name in symbols]
    subprocess.run([*_LINKER, *options, *names, "-o", str(library), *files], check=True)
    library.chmod(0o644)  # the linker makes it executable, as programs are
    if found := faults(library, target.machine, set(symbols)):
        raise SystemExit(f"{library.name}: {'; '.join(found)}")
    return library


def environment(target: Target) -> dict[str, str]:
    """The environment in which kernels are compiled for a target: nothing of this process's settings decides code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "MINILM_NP_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join(path for path in (str(PACKAGE.parent), kept.get("PYTHONPATH", "")) if path),
        "PYTHONHASHSEED": "0",
        "NUMBA_CPU_NAME": target.cpu,
        "NUMBA_CPU_FEATURES": target.added,
    }


def compile_package(package: str, target: Target, folder: Path) -> None:
    """Write an object file per entry of a package of kernels, and `symbols.json`: entry -> its symbol in the object."""
    stand_for(target)
    _position_independent(target)
    entry = importlib.import_module(f"{package}.entry")
    symbols = {}
    for name in entry.NAMES:
        symbol, _, binary = entry.object_code(name).partition(b"\0")
        symbols[name] = symbol.decode()
        (folder / f"{name}.o").write_bytes(binary)
    (folder / "symbols.json").write_text(json.dumps(symbols), encoding="utf-8")


def stand_for(target: Target) -> None:
    """Let this process compile as if it ran on another machine. To be called before anything imports Numba.

    `environment` selects the processor.
    """
    import llvmlite.binding as llvm

    triple, from_triple = f"{target.machine}-unknown-linux-gnu", llvm.Target.from_triple
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: triple
    llvm.Target.from_default_triple = classmethod(lambda cls: from_triple(triple))
    platform.machine = lambda: target.machine
    integer_target.integer_target = lambda: target.integers  # type: ignore[assignment]


def _position_independent(target: Target) -> None:
    """Let Numba compile code for a shared library.

    Its own code is placed in memory by LLVM, anywhere in 64 bits: the large code model, which is kept on x86-64. With
    the small one, LLVM keeps constants in registers through the loops of products, and where there are 16 registers, it
    spills sums instead: a text then takes 1.6 times as long with AVX2. On AArch64 the large model has no position-
    independent code, and there are 32 registers.
    """
    codegen: Any = importlib.import_module("numba.core.codegen").JITCPUCodegen
    customize = codegen._customize_tm_options

    def customized(self: Any, options: dict[str, Any]) -> None:
        customize(self, options)
        options.update(reloc="pic", codemodel="large" if target.machine == "x86_64" else "small")

    codegen._customize_tm_options = customized

"""What the kernels would weigh as shared libraries in the wheel, and how a process starts with them, without LLVM.

    python -m benchmarks.shared_kernels [--targets x86-64-v3,x86-64-v4,host] [--starts 9]

compiles the kernels of both engines for each target as position-independent code, and links them with `cc` to shared
libraries. Then processes take turns that compute a first vector: with the kernels of the code cache, which LLVM loads,
and with the libraries for this machine, which `ctypes` loads. The latter import neither Numba nor llvmlite. The
fingerprints must agree. This is a study: the package has no such libraries.
"""

import argparse
import ctypes
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import CHECKOUT, Worker, markdown, peak_memory, processor, say

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "host")
PACKAGES = {  # package: its entries
    "minilm_np.engine.float32.kernels": ("run_pass", "exchange_float_mode"),
    "minilm_np.engine.integer.kernels": ("run_pass_16", "run_pass_8", "quantise_weight", "exchange_float_mode"),
}
COMPUTE_TYPES = ("float32", "int16", "int8")
FIGURES = ("seconds", "cpu", "load", "peak")  # of a start
FLAGS = {  # of /proc/cpuinfo: LLVM's names
    "avx2": "avx2", "avx512bw": "avx512bw", "avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni",
    "amx_tile": "amx-tile", "amx_int8": "amx-int8",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--targets", default=",".join(TARGETS), help="LLVM's names of processors (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the libraries are, or will be (default: a temporary folder)")
    parser.add_argument("--starts", type=int, default=9, help="processes of each kind (default: %(default)s)")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)  # of the processes that this command starts
    options = parser.parse_args()
    if options.step:
        steps: dict[str, Callable[..., None]] = {"compile": compile_, "start": start}
        steps[options.step[0]](*options.step[1:])
        return 0
    print(f"{processor()}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        rows = [sizes(target, folder / target) for target in options.targets.split(",")]
        print(markdown(["target", "object code", "shared libraries", "compressed"], rows))
        print()
        same = starts(folder / "host", options.starts) if "host" in options.targets else True
    return 0 if same else 1


def sizes(target: str, folder: Path) -> list[str]:
    """Compile and link for a target, unless the folder has its libraries. Return the row of the table."""
    if len(list(folder.glob("*.json"))) < len(PACKAGES):
        say(f"compiling for {target} ...")
        folder.mkdir(parents=True, exist_ok=True)
        emulated = {} if target == "host" else {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
        command = [sys.executable, "-m", "benchmarks.shared_kernels", "--step", "compile", str(folder)]
        subprocess.run(command, check=True, cwd=CHECKOUT, env=os.environ | emulated)
    objects, libraries = sorted(folder.glob("*.o")), sorted(folder.glob("*.so"))
    bytes_ = [
        sum(path.stat().st_size for path in objects),
        sum(path.stat().st_size for path in libraries),
        sum(len(gzip.compress(path.read_bytes())) for path in libraries),
    ]
    return [target, *(f"{n / 1e3:,.0f} kB" for n in bytes_)]


def starts(folder: Path, count: int) -> bool:
    """Print the time to the first vector with LLVM and with the shared libraries. Return whether the bits agree."""
    rows, same = [], True
    for compute_type in COMPUTE_TYPES:
        found: dict[str, list[dict[str, Any]]] = {"LLVM": [], "ctypes": []}
        for round_ in range(count + 1):  # the first fills the caches
            for kind, answers in found.items():
                begin = time.perf_counter()
                worker = Worker("-m", "benchmarks.shared_kernels", "--step", "start", compute_type, kind, str(folder))
                worker.answer()
                seconds = time.perf_counter() - begin
                if round_:
                    answers.append({"seconds": seconds, **worker.answer()})
                worker.close()
        same = same and len({answer["fingerprint"] for answers in found.values() for answer in answers}) == 1
        for kind, answers in found.items():
            middle = {name: statistics.median(answer[name] for answer in answers) for name in FIGURES}
            rows.append([
                f"{compute_type}, {kind}", f"{middle['seconds'] * 1e3:.0f} ms", f"{middle['cpu'] * 1e3:.0f} ms",
                f"{middle['load'] * 1e3:.1f} ms", f"{middle['peak'] / 1e6:.0f} MB",
            ])  # fmt: skip
    print(markdown(["kernels", "start to first vector", "CPU time", "loading the kernels", "peak memory"], rows))
    print(f"\nthe fingerprints {'agree' if same else 'DIFFER'}")
    return same


# ---- the steps, each in its own process ------------------------------------------------------------------------------


def compile_(folder: str) -> None:
    """Compile the kernels of both engines as position-independent code, and link each package to a library."""
    import importlib

    jit: Any = importlib.import_module("numba.core.codegen").JITCPUCodegen
    customize = jit._customize_tm_options

    def position_independent(self: Any, options: dict[str, Any]) -> None:
        customize(self, options)
        options.update(reloc="pic", codemodel="small")

    jit._customize_tm_options = position_independent
    for package, entries in PACKAGES.items():
        entry = importlib.import_module(f"{package}.entry")
        symbols, objects = {}, []
        for name in entries:
            symbol, _, binary = entry.object_code(name).partition(b"\0")
            symbols[name] = symbol.decode()
            objects.append(Path(folder) / f"{package}.{name}.o")
            objects[-1].write_bytes(binary)
        library = Path(folder) / f"{package}.so"
        subprocess.run(["cc", "-shared", "-s", "-Wl,-z,text", "-o", library, *objects], check=True)
        library.with_suffix(".json").write_text(json.dumps(symbols))


def start(compute_type: str, kind: str, folder: str) -> None:
    """Compute a first vector; print that it is there, and then the facts."""
    loading = [0.0]
    if kind == "ctypes":
        _replace_llvm()
    from minilm_np.engine.runtime import code_cache

    load = code_cache.load_entries if kind == "LLVM" else partial(_linked, Path(folder))

    def timed(package: str, entries: code_cache.Entries) -> code_cache.Code:
        begin = time.perf_counter()
        code = load(package, entries)
        loading[0] += time.perf_counter() - begin
        return code

    code_cache.load_entries = timed
    from minilm_np import SentenceEncoder

    encoder = SentenceEncoder(compute_type=compute_type)
    encoder.encode("This is an example sentence")
    cpu = time.process_time()
    print("true", flush=True)
    if kind == "ctypes":
        assert sys.modules["llvmlite"].__file__ is None and "numba" not in sys.modules
    print(json.dumps({"cpu": cpu, "load": loading[0], "peak": peak_memory(), "fingerprint": encoder.fingerprint()}))


def _linked(folder: Path, package: str, entries: Any) -> Any:
    """The functions of a package from its shared library."""
    from minilm_np.engine.runtime import code_cache

    library = ctypes.CDLL(str(folder / f"{package}.so"))
    symbols = json.loads((folder / f"{package}.json").read_text())
    addresses = {name: ctypes.cast(getattr(library, symbols[name]), ctypes.c_void_p).value or 0 for name in entries}
    functions = {name: code_cache._callable(addresses[name], name, types_) for name, types_ in entries.items()}
    return code_cache.Code(functions, library)


def _replace_llvm() -> None:
    """Put a module in llvmlite's place that has what the package asks of LLVM: facts of this processor."""

    class Features(dict[str, bool]):
        def flatten(self) -> str:
            return ",".join(f"+{name}" for name in self)

    def features() -> Features:
        flags = next(_lines("flags")).split()
        return Features({name: True for flag, name in FLAGS.items() if flag in flags})

    llvmlite, binding = types.ModuleType("llvmlite"), types.ModuleType("llvmlite.binding")
    llvmlite.__file__ = None
    vars(llvmlite).update(__version__="none", binding=binding, __path__=[])
    vars(binding).update(
        get_process_triple=lambda: "x86_64-unknown-linux-gnu", get_host_cpu_name=lambda: next(_lines("model name")),
        get_host_cpu_features=features, llvm_version_info=(), ExecutionEngine=object,
    )  # fmt: skip
    sys.modules.update({"llvmlite": llvmlite, "llvmlite.binding": binding})


def _lines(name: str) -> Iterator[str]:
    """The values of a field of /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.partition("\t")[0].strip() == name:
            yield line.partition(":")[2].strip()


if __name__ == "__main__":
    sys.exit(main())

"""Run the kernels for AArch64 under QEMU on an x86-64 machine, and compare the bits.

    python -m benchmarks.aarch64 --folder /tmp/aarch64

downloads Debian's arm64 Python, QEMU and the aarch64 wheels (0.7 GB on disk), compiles the kernels on x86-64 for
AArch64, and computes under QEMU, for each compute type and for one thread and two:

- the fingerprint of the published model, which must be the one in its manifest;
- the vectors of small models with sizes off the tiles, one per way to pool, which must have the bits of this machine's
  kernels. The tests compare those with scalar loops that follow the contract;
- gradients of one of them, which must have the bits of this machine's kernels, too.

With --libraries it compiles nothing. It runs the libraries of the package (`minilm_np/engine/prebuilt`), and checks
that neither Numba nor LLVM is imported.

It takes some minutes. It needs Debian and a network, but no rights of root, and installs nothing. A second run uses the
downloaded files. QEMU shows neither real silicon nor weak memory ordering, because the host's memory is that of x86.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.aarch64_system import PYTHON, download
from benchmarks.common import CHECKOUT
from minilm_np.engine.prebuilt import build
from minilm_np.engine.runtime.targets import COMPILE, TARGETS, VARIABLE

AARCH64 = next(target for target in TARGETS if target.machine == "aarch64")
COMPUTE_TYPES = ("float32", "int16", "int8")
POOLINGS = ("mean", "cls", "max")
TEXTS = ["a", "", "two words", "Naïve café, RÉSUMÉ: 東京タワー", "a text off the tile " * 3, "one long text " * 20]
THREADS = (1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the downloaded files are or will be")
    parser.add_argument(
        "--cpu", default=AARCH64.cpu, help="the processor for which the kernels are compiled (default: %(default)s)"
    )
    parser.add_argument("--qemu-cpu", metavar="CPU", help="the processor that QEMU emulates (default: the same)")
    parser.add_argument(
        "--libraries", action="store_true", help="compile nothing: run the package's libraries, without Numba"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)  # of the processes that this command starts
    options = parser.parse_args()
    if options.step:
        STEPS[options.step[0]](*options.step[1:])
        return 0
    if options.folder is None:
        parser.error("the following arguments are required: --folder")
    start = time.monotonic()
    result = run(options.folder.resolve(), options.cpu, options.qemu_cpu or options.cpu, options.libraries)
    result["seconds"] = round(time.monotonic() - start)
    for line in lines(result):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["agrees"] else 1


def run(folder: Path, cpu: str, qemu_cpu: str, libraries: bool) -> dict[str, Any]:
    """Download, compile or use the libraries, compute on both sides, and return the facts."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SystemExit(f"this command runs on Linux on x86-64, not on {platform.system()} {platform.machine()}")
    from minilm_np.model_files import hub
    from minilm_np.model_files.manifest import DEFAULT_MODEL

    folder.mkdir(parents=True, exist_ok=True)
    model = str(hub.fetch(DEFAULT_MODEL).path)
    qemu, root, site = download(folder)
    emulated = [str(qemu), "-cpu", qemu_cpu, "-L", str(root), str(root / "usr" / "bin" / f"python{PYTHON}")]
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{site}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MINILM_NP_CACHE": str(cache),
    }
    small = folder / "small"
    _step([sys.executable], dict(os.environ), "save", str(small))
    environment[VARIABLE] = "aarch64" if libraries else COMPILE
    if not libraries:
        print("compiling for AArch64 ...", file=sys.stderr)
        identities = json.loads(_step(emulated, environment, "identities"))
        for package, identity in identities.items():
            place = str(cache / "kernels" / identity)
            _step([sys.executable], build.environment(AARCH64._replace(cpu=cpu)), "compile", package, place)
    print("computing on this machine ...", file=sys.stderr)
    expected = json.loads(_step([sys.executable], dict(os.environ), "compute", model, str(small)))
    print("computing under QEMU ...", file=sys.stderr)
    found = json.loads(_step(emulated, environment, "compute", model, str(small)))
    published = _published()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "qemu": _version_line(qemu),
        "cpu": f"{AARCH64.cpu}, compiled in advance" if libraries else cpu,
        "qemu_cpu": qemu_cpu,
        "machine": found["machine"],
        "versions": found["versions"],
        "fingerprints": found["fingerprints"],
        "published": published,
        "vectors": {name: digest == expected["vectors"][name] for name, digest in found["vectors"].items()},
        "agrees": found["machine"] == "aarch64"
        and not (libraries and found["imported"])
        and found["vectors"] == expected["vectors"]
        and all(value == published[name.partition(",")[0]] for name, value in found["fingerprints"].items()),
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Return the result for people."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    found = [f"{result['qemu']}, -cpu {result['qemu_cpu']}; code for {result['cpu']}; {result['machine']}, {versions}"]
    for name, fingerprint in result["fingerprints"].items():
        same = fingerprint == result["published"][name.partition(",")[0]]
        found.append(f"{name:20} {fingerprint}  {'as published' if same else 'NOT as published'}")
    equal = sum(result["vectors"].values())
    found.append(f"small models: {equal} of {len(result['vectors'])} runs have the bits of this machine")
    found.append(f"{'agrees' if result['agrees'] else 'DOES NOT AGREE'} ({result['date']}, {result['seconds']} s)")
    return found


def _published() -> dict[str, str]:
    from minilm_np.engine.registry import find
    from minilm_np.model_files.manifest import DEFAULT_MODEL, manifest_for

    manifest = manifest_for(DEFAULT_MODEL)
    assert manifest is not None
    return {kind: manifest.fingerprints[str(find("numba", kind).contract)] for kind in COMPUTE_TYPES}


def _version_line(qemu: Path) -> str:
    shown = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()[0].partition(" (")[0]


# ---- the steps, each in its own process, on this machine or under QEMU -----------------------------------------------


def _step(python: list[str], environment: dict[str, str], *arguments: str) -> str:
    """Run a step and return what it prints."""
    command = [*python, "-m", "benchmarks.aarch64", "--step", *arguments]
    ran = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout


def save(folder: str) -> None:
    """Save the small models: drawn once, because another C library may draw other numbers."""
    from dataclasses import replace

    from minilm_np import SentenceEncoder
    from minilm_np.model_files.random_weights import SMALL

    off_the_tiles = replace(SMALL, hidden_size=60, num_attention_heads=3, intermediate_size=250)
    for number, pooling in enumerate(POOLINGS):
        config = replace(off_the_tiles, pooling_mode=pooling)
        SentenceEncoder.random(config, number, backend="numpy").save_pretrained(Path(folder) / pooling)


def identities() -> None:
    """Print the name of the cache's folder of each package of kernels, as this Python computes it."""
    from minilm_np.engine.runtime import code_cache

    print(json.dumps({package: code_cache.identity(package) for package in build.PACKAGES}))


def compile_(package: str, folder: str) -> None:
    """Compile a package of kernels for AArch64 into a folder of the cache, on another processor."""
    build.stand_for(AARCH64)
    entry = importlib.import_module(f"{package}.entry")
    place = Path(folder)
    place.mkdir(parents=True, mode=0o700)
    for name in entry.NAMES:
        content = entry.object_code(name)
        (place / f"{name}.o").write_bytes(hashlib.sha256(content).digest() + content)


def compute(model: str, small: str) -> None:
    """Print the fingerprints of the published model and digests of the vectors of the small models, as JSON."""
    from minilm_np import SentenceEncoder

    fingerprints, vectors = {}, {}
    for kind in COMPUTE_TYPES:
        for threads in THREADS:
            name = f"{kind}, {threads} thread{'s' if threads > 1 else ''}"
            encoder = SentenceEncoder(model, compute_type=kind, threads=threads)
            fingerprints[name] = encoder.fingerprint()
            for pooling in POOLINGS:
                found = SentenceEncoder(f"{small}/{pooling}", compute_type=kind, threads=threads).encode(
                    TEXTS, on_truncation="ignore"
                )
                vectors[f"{name}, {pooling}"] = hashlib.sha256(found.tobytes()).hexdigest()
    versions = {"python": platform.python_version()}
    for name in ("numpy", "numba", "llvmlite", "tokenizers", "safetensors"):
        versions[name] = importlib.metadata.version(name)
    for threads in THREADS:
        vectors[f"gradients, {threads} thread{'s' if threads > 1 else ''}"] = _gradients(f"{small}/cls", threads)
    imported = sorted({"numba", "llvmlite"} & sys.modules.keys())
    facts = {
        "machine": platform.machine(), "versions": versions, "fingerprints": fingerprints, "vectors": vectors,
        "imported": imported,
    }  # fmt: skip
    print(json.dumps(facts))


def _gradients(model: str, threads: int) -> str:
    """A digest of the gradients of the dense layers and of LayerNorm. Embeddings are added up in NumPy."""
    import numpy as np

    from minilm_np import SentenceEncoder
    from minilm_np.train.dropout import Dropout
    from minilm_np.train.engine import TrainingEngine

    loaded = SentenceEncoder(model, threads=threads).model
    config, weights = loaded.config, {name: array.copy() for name, array in loaded.engine.weights().items()}
    engine, dropout = TrainingEngine(config, weights, threads), Dropout(7, 3, 0.1, 0.25)
    texts, d_vectors = [[2, 5, 6, 3], [2] * 50], np.ones((2, config.hidden_size), np.float32)
    gradients = engine.backward(texts, d_vectors, dropout)
    digest = hashlib.sha256()
    for name in sorted(gradients):
        if ".layer." in name:
            digest.update(np.asarray(gradients[name]).tobytes())
    return digest.hexdigest()


STEPS: dict[str, Callable[..., None]] = {
    "save": save,
    "identities": identities,
    "compile": compile_,
    "compute": compute,
}

if __name__ == "__main__":
    sys.exit(main())

"""Each library of kernels gives the published bits, and no part of the package needs Numba where a library fits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm_np.engine.registry import COMPUTE_TYPES, find
from minilm_np.engine.runtime.targets import TARGETS, VARIABLE
from minilm_np.model_files.manifest import DEFAULT_MODEL, manifest_for
from tests.support.code_cache import FORK, answer, start
from tests.support.places import CHECKOUT

HERE = [target.name for target in TARGETS if target.fits()]
pytestmark = pytest.mark.skipif(not HERE, reason="there is no library for this machine")

WITHOUT_NUMBA = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
BITS = (
    WITHOUT_NUMBA
    + """
import hashlib, json
import numpy as np
from minilm_np import SentenceEncoder
from minilm_np.engine.registry import COMPUTE_TYPES, find
from minilm_np.train.dropout import Dropout
from minilm_np.train.engine import TrainingEngine
from minilm_np.train.optim import SparseRows

facts = {"kernels": {name: find("numba", name).kernels() for name in COMPUTE_TYPES}, "fingerprints": {}, "bits": {}}
for name in COMPUTE_TYPES:
    if len(sys.argv) > 1:
        facts["fingerprints"][name] = SentenceEncoder(sys.argv[1], compute_type=name).fingerprint()
    vectors = SentenceEncoder.random(compute_type=name, threads=2).encode(["a", "", "some text", "x" * 100])
    facts["bits"][name] = hashlib.sha256(vectors.tobytes()).hexdigest()
model = SentenceEncoder.random().model
weights = {name: array.copy() for name, array in model.engine.weights().items()}
engine, dropout, texts = TrainingEngine(model.config, weights, 2), Dropout(7, 3, 0.1, 0.25), [[2, 5, 6, 3], [2] * 50]
digest = hashlib.sha256(engine.forward(texts, dropout).tobytes())
gradients = engine.backward(texts, np.ones((2, model.config.hidden_size), np.float32), dropout)
for name, gradient in sorted(gradients.items()):
    digest.update((gradient.values if isinstance(gradient, SparseRows) else gradient).tobytes())
facts["bits"]["training"] = digest.hexdigest()
print(json.dumps(facts))
"""
)


def run(program: str, *arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_") and name != VARIABLE}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=kept | {"PYTHONPATH": paths, "MINILM_NP_CACHE_WEIGHTS": "0"} | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def facts(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """What `BITS` prints for each target."""
    try:
        arguments = [str(request.getfixturevalue("model_folder"))]
    except pytest.skip.Exception:  # without the published weights
        arguments = []
    return {name: json.loads(run(BITS, *arguments, **{VARIABLE: name})) for name in HERE}


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
@pytest.mark.parametrize("name", HERE)
def test_every_library_gives_the_published_fingerprints_without_numba(facts: dict[str, Any], name: str) -> None:
    manifest = manifest_for(DEFAULT_MODEL)
    assert manifest is not None
    expected = {kind: manifest.fingerprints[str(find("numba", kind).contract)] for kind in COMPUTE_TYPES}
    assert facts[name]["fingerprints"] == expected


@pytest.mark.parametrize("name", HERE)
def test_every_library_gives_the_same_vectors_and_gradients(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["bits"] == facts[HERE[-1]]["bits"]


@pytest.mark.parametrize("name", HERE)
def test_the_library_is_the_one_of_the_target(facts: dict[str, Any], name: str) -> None:
    target = next(target for target in TARGETS if target.name == name)
    kernels = facts[name]["kernels"]
    assert kernels["int8"] == kernels["int16"]
    assert all(origin.startswith("compiled in advance for ") for origin in kernels.values())
    assert kernels["int8"].endswith(target.description) or target.integers == "amx"  # which the system may refuse


COMMANDS = (
    WITHOUT_NUMBA
    + """
import contextlib, io, os
from minilm_np import SentenceEncoder
from minilm_np.cli import main

folder = sys.argv[1]
SentenceEncoder.random().save_pretrained(folder + "/model")
with open(folder + "/pairs.jsonl", "w") as file:
    file.write('["a", "b"]\\n["c", "d"]\\n' * 4)
model = ["--model", folder + "/model"]
for words in (
    ["encode", "a", *model], ["encode", "a", "--compute-type", "int8", *model], ["info", *model],
    ["trace", "a", *model], ["similarity", "a", "b", *model],
    ["train", folder + "/pairs.jsonl", "--output", folder + "/trained", "--steps", "2", "--batch-size", "2", *model],
):
    out = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with contextlib.redirect_stdout(out):
        code = main(words)
    lines = out.buffer.getvalue().decode().splitlines()
    assert code == 0, (words, lines)
    if words[0] == "info":
        print(next(line for line in lines if line.startswith("kernels")))
assert sys.modules["numba"] is sys.modules["llvmlite"] is None
"""
)


def test_commands_work_without_numba(tmp_path: Path) -> None:
    assert run(COMMANDS, str(tmp_path)).startswith("kernels         compiled in advance for ")


def test_a_fork_while_another_thread_loads_a_library_gives_a_child_that_can_encode(tmp_path: Path) -> None:
    words, _ = answer(start(FORK, tmp_path, arguments=["ctypes.dlopen", "float32-"], MINILM_NP_KERNELS=""))
    assert len(words) == 2 and words[0] == words[1]

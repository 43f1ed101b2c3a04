"""Fixtures of the float32 engine's tests: kernels compiled for several targets, and families of engines."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm_np import ModelConfig
from minilm_np.engine.float32 import loading
from minilm_np.engine.runtime.targets import COMPILE, VARIABLE
from minilm_np.model_files.checkpoint import load_checkpoint
from minilm_np.model_files.folder_config import load_config
from tests.support.engine import COMPILED, FORCED, Family, answer, float32, start
from tests.support.engine_children import SMALL
from tests.support.models import living_weights


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest) -> Path | None:
    """The published model's folder, or None if it is not available: children then use only a random model."""
    try:
        return request.getfixturevalue("model_folder")
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="session")
def caches(run_folder: Path) -> dict[str, Path]:
    """A folder for each target's compiled kernels."""
    return {name: run_folder / "kernels" / name for name in FORCED}


@pytest.fixture(scope="session")
def targets(run_folder: Path, folder: Path | None, caches: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What `engine_children` prints for each target: `code` where it compiles, `bits` where it loads a library.

    All start at the same time, without a cache, when the first process of the run needs them.
    """
    found = run_folder / "targets.json"
    with open(run_folder / "targets.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            processes = {}
            for name, environment in FORCED.items():
                caches[name].mkdir(parents=True)
                program = "code" if name in COMPILED else "bits"
                processes[name] = start(program, folder, caches[name], **environment)
            found.write_text(json.dumps({name: answer(process) for name, process in processes.items()}))
    answers: dict[str, dict[str, Any]] = json.loads(found.read_text())
    return answers


@pytest.fixture(scope="session")
def child(targets: dict[str, Any], caches: dict[str, Path]) -> Callable[..., Any]:
    """Run a program of `engine_children` with kernels from the cache, which the native target filled."""

    def run(program: str, folder: Path | None = None, **environment: str) -> Any:
        return answer(start(program, folder, caches["native"], **environment))

    return run


@pytest.fixture(scope="session")
def own_cache(targets: dict[str, Any], caches: dict[str, Path]) -> None:
    """This process takes its kernels from that cache too, unless another file's tests have already loaded them."""
    with pytest.MonkeyPatch.context() as patch:  # ends here: the tests of other files have another cache
        patch.setenv("MINILM_NP_CACHE", str(caches["native"]))
        patch.setenv(VARIABLE, COMPILE)
        loading.load()


@pytest.fixture(scope="session")
def random_family(own_cache: None) -> Family:
    config = ModelConfig(**{**vars(SMALL), "max_position_embeddings": 256, "max_seq_length": 256})
    weights = float32(living_weights(config, 3, scale=0.2))
    lengths = [*range(1, 50), 63, 64, 65, 127, 128, 129, 130, 200, 254, 255, 256, 256, 100, 64, 64, 1]
    return Family(config, weights, lengths)


@pytest.fixture(scope="session")
def published_family(own_cache: None, model_folder: Path) -> Family:
    config = load_config(model_folder)
    lengths = [*range(1, 20), 31, 32, 33, 63, 64, 65, 128, 129, 200, 256, 100]
    return Family(config, load_checkpoint(model_folder, config), lengths)

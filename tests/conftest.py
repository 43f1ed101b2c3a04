"""Fixtures that several test files share, and the rule for tests that need the published weights."""

import os

# OpenBLAS's threads wait by spinning: beside torch's, and those of tests in child processes, they cost minutes
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # Haystack reads it when it is imported

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from minilm_np import HubError, SentenceEncoder
from minilm_np.model_files.hub import fetch
from tests.support.browser import Browser, running_browser
from tests.support.disks import mounted

# Every run draws the same examples: a failure is a failure for everybody. Slow machines are not a failure.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# The files of tests that take half a minute or more. They start first, so that no worker of pytest-xdist begins a long
# file when the others have nothing left to do.
LONG_FILES = (
    "engine/integer/test_targets.py",
    "docs/test_pages.py",
    "integrations/test_ray.py",
    "engine/integer/kernels/test_targets.py",
    "engine/float32/test_same_bits.py",
    "engine/float32/test_kernel_targets.py",
    "test_faults.py",
    "engine/runtime/test_code_cache.py",
    "integrations/test_integrations.py",
    "engine/runtime/test_library_bits.py",
    "test_types.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist start files in the order of the collection; by default those with the most tests come first."""
    missing = [name for name in LONG_FILES if not (Path(__file__).parent / name).exists()]
    assert not missing, f"LONG_FILES names files that do not exist: {missing}"
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the long files to the front; the others keep their order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True, scope="module")
def environment_of_a_module() -> Iterator[None]:
    """What a file of tests changes in the environment ends with it: files run in any order."""
    yield from restored()


@pytest.fixture(autouse=True)
def environment_of_a_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same for each test. Tables have the width that they have in a pipe; some program may have set COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)
    yield from restored()


def restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The folder of the published all-MiniLM-L6-v2, fetched if need be."""
    try:
        return fetch().path
    except HubError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the published weights cannot be had here: {error}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 8 MB, which a test can fill."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", 8 << 20) as disk:
        yield disk


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser, for the tests of pages."""
    yield from running_browser()


@pytest.fixture(scope="session")
def published(model_folder: Path) -> SentenceEncoder:
    """The published model on the NumPy backend."""
    return SentenceEncoder(model_folder, backend="numpy")


@pytest.fixture(scope="session")
def sentence_transformer(model_folder: Path) -> Any:
    """The published model in sentence-transformers: the live oracle."""
    return load_sentence_transformer(model_folder)


def load_sentence_transformer(folder: Path) -> Any:
    """A folder as sentence-transformers loads it, on the CPU, with the warnings of its imports left to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)  # more of them only wait for each other on arrays as small as the tests'
        return SentenceTransformer(str(folder), device="cpu")

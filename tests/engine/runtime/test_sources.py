"""The sources of a module, and the error where an installation has none."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from minilm_np import InputValueError
from minilm_np.engine.runtime import sources as module
from tests.support.places import CHECKOUT

ENTRY = "minilm_np.engine.float32.kernels.entry"


@pytest.mark.parametrize("place", ["bytecode only", "an archive"])
def test_an_installation_without_sources_is_refused_by_name(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sources, the kernels of every version would have the same digest."""
    package = tmp_path / "minilm_np"
    if place == "an archive":
        (tmp_path / "app.zip").write_bytes(b"PK")
        package = tmp_path / "app.zip" / "minilm_np"
    monkeypatch.setattr(module, "PACKAGE", package)
    missing = f"{package}/engine/float32/kernels/entry.py is missing: install minilm_np as files"
    for function in (module.sources.__wrapped__, module.digest.__wrapped__):
        module.sources.cache_clear()
        with pytest.raises(InputValueError) as caught:
            function(ENTRY)
        assert missing in str(caught.value)
    module.sources.cache_clear()


IN_AN_ARCHIVE = """
import sys
from minilm_np import InputValueError, SentenceEncoder

assert ".zip" in sys.modules["minilm_np"].__file__
print(SentenceEncoder.random(backend="numpy").encode("a").shape)
try:
    SentenceEncoder.random()
except InputValueError as error:
    print(error)
"""


def test_in_an_archive_numpy_works_and_numba_says_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        for path in (CHECKOUT / "minilm_np").rglob("*.py"):
            archive.write(path, path.relative_to(CHECKOUT))
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MINILM_NP_KERNELS")}
    ended = subprocess.run(
        [sys.executable, "-c", IN_AN_ARCHIVE],
        cwd=tmp_path, env=kept | {"PYTHONPATH": str(tmp_path / "app.zip")}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    shape, error = ended.stdout.splitlines()
    assert shape == "(96,)"
    assert error.startswith("backend 'numba' reads the package's source files, and ") and "numpy" in error

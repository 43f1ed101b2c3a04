"""What `import minilm_np` brings with it: nothing heavy, until a name is used."""

import subprocess
import sys

import pytest

import minilm_np

HEAVY = ("numpy", "numba", "llvmlite", "tokenizers", "huggingface_hub", "tqdm", "safetensors", "torch", "typing")


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_import_alone_imports_nothing_heavy() -> None:
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    assert (
        run(f"import sys; before = {loaded}; import minilm_np; print([m for m in {loaded} if m not in before])") == "[]"
    )


def test_errors_are_had_without_numpy() -> None:
    assert run("import sys; from minilm_np import MiniLMError; print('numpy' in sys.modules)") == "False"


def test_the_numpy_backend_encodes_without_numba_and_without_the_hub() -> None:
    code = "import sys, minilm_np; minilm_np.SentenceEncoder.random(backend='numpy').encode('a'); print(*sys.modules)"
    assert not {"numba", "llvmlite", "huggingface_hub", "tqdm", "torch"} & set(run(code).split())


@pytest.mark.parametrize("name", minilm_np.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert run(f"import minilm_np; print(minilm_np.{name} is not None, {name!r} in dir(minilm_np))") == "True True"
    assert getattr(minilm_np, name) is getattr(minilm_np, name)


def test_a_star_brings_the_public_names() -> None:
    assert run("from minilm_np import *; print(SentenceEncoder.__module__)") == "minilm_np.sentence_encoder"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'minilm_np' has no attribute 'SentenceTransformer'"):
        minilm_np.SentenceTransformer  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from minilm_np import nothing  # type: ignore[attr-defined]  # noqa: F401

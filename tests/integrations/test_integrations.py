"""What the integrations share: their arguments, the cached model, and the error for a missing library."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder, integrations
from tests.integrations.test_scikit_learn import vectorizer
from tests.support.compare import assert_same_bits

MODULES = {
    "scikit_learn": ("sklearn", "scikit-learn", "SentenceVectorizer"),
    "langchain": ("langchain_core", "langchain-core", "MiniLMEmbeddings"),
    "chroma": ("chromadb", "chromadb", "MiniLMEmbeddingFunction"),
    "llama_index": ("llama_index", "llama-index-core", "MiniLMEmbedding"),
    "haystack": ("haystack", "haystack-ai", "MiniLMTextEmbedder"),
    "bertopic": ("bertopic", "bertopic", "MiniLMBackend"),
    "keybert": ("keybert", "keybert", "MiniLMBackend"),
    "mteb": ("mteb", "mteb", "MiniLMEncoder"),
    "lancedb": ("lancedb", "lancedb", "MiniLMEmbeddingFunction"),
    "txtai": ("txtai", "txtai", "MiniLMVectors"),
}
# beyond the arguments that all take
OWN_ARGUMENTS = {
    "llama_index": ["query_instruction", "text_instruction", "embed_batch_size", "others"],
    "haystack": ["prefix"],
}


@pytest.mark.parametrize("module", MODULES)
def test_a_missing_library_is_named_with_the_command_that_installs_it(module: str) -> None:
    library, distribution, _ = MODULES[module]
    code = f"import sys; sys.modules[{library!r}] = None; import minilm_np.integrations.{module}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert f"MissingExtraError: {library} is not installed, but this module needs it" in found.stderr
    assert found.stderr.rstrip().endswith(f": pip install {distribution}")


def test_a_library_that_is_installed_but_broken_raises_its_own_error() -> None:
    code = "import sys; sys.modules['scipy'] = None; import minilm_np.integrations.scikit_learn"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, "scipy" in found.stderr.splitlines()[-1], "extra" in found.stderr) == (1, True, False)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("lancedb", "txtai")])  # made from settings
def test_all_take_the_same_arguments(module: str) -> None:
    pytest.importorskip(MODULES[module][0])
    made = getattr(importlib.import_module(f"minilm_np.integrations.{module}"), MODULES[module][2])
    parameters = inspect.signature(made.__init__).parameters
    model = "model_name" if module == "llama_index" else "model"  # a field of its base class
    shared = [model, "backend", "threads", "normalize_embeddings", "truncate_dim"]
    assert list(parameters) == ["self", *shared, *OWN_ARGUMENTS.get(module, [])]
    accepted = {**inspect.signature(SentenceEncoder).parameters, **inspect.signature(SentenceEncoder.encode).parameters}
    for name in shared[1:]:
        assert parameters[name].default == accepted[name].default


def test_a_model_is_loaded_once(small: Path) -> None:
    assert integrations.shared_encoder(str(small), "numba", None) is integrations.shared_encoder(
        str(small), "numba", None
    )


def test_a_model_that_is_saved_again_is_loaded_again(tmp_path: Path) -> None:
    for seed in (1, 2):
        encoder = SentenceEncoder.random(seed=seed, backend="numpy")
        encoder.save_pretrained(tmp_path / "model")
        assert_same_bits(vectorizer(tmp_path / "model", backend="numpy").transform(["a"]), encoder.encode(["a"]))
    use = tmp_path / "model" / "config_sentence_transformers.json"
    use.write_text(json.dumps(json.loads(use.read_text()) | {"truncate_dim": 5}))  # no other file changes
    assert vectorizer(tmp_path / "model", backend="numpy").transform(["a"]).shape == (1, 5)


def test_a_relative_path_is_relative_to_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minilm_np.integrations.langchain import MiniLMEmbeddings

    encoders = {name: SentenceEncoder.random(seed=seed, backend="numpy") for seed, name in enumerate(("one", "other"))}
    for name, encoder in encoders.items():
        encoder.save_pretrained(tmp_path / name / "model")
    monkeypatch.chdir(tmp_path / "one")
    embeddings = MiniLMEmbeddings("model", backend="numpy")
    for name, encoder in encoders.items():
        monkeypatch.chdir(tmp_path / name)
        assert_same_bits(vectorizer(Path("model"), backend="numpy").transform(["a"]), encoder.encode(["a"]))
        assert embeddings.embed_query("a") == encoders["one"].encode("a").tolist()


def test_names_reach_the_hub_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(integrations, "SentenceEncoder", lambda model, **options: asked.append(model))
    for _ in range(2):
        integrations.shared_encoder("intfloat/e5-small-v2", "numba", None)
    assert asked == ["intfloat/e5-small-v2"]

"""scikit-learn, LangChain and Chroma: the real libraries, with the published model and with a small random one."""

import asyncio
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError, SentenceEncoder, integrations
from tests.support.compare import assert_same_bits

FACTS = {
    "stars": "The Sun is one of many stars in the Milky Way.",
    "bread": "Knead the dough for ten minutes, then let it rise.",
    "football": "The striker scored twice in the second half.",
    "planets": "Jupiter is the largest planet of our solar system.",
    "soup": "Simmer the vegetables until they are soft.",
    "tennis": "She won the match after a long tie-break.",
}
TEXTS, TOPICS = list(FACTS.values()), ["space", "food", "sport"] * 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model, which has prompts."""
    folder = tmp_path_factory.mktemp("model") / "small"
    encoder = SentenceEncoder.random()
    encoder.prompts.update(query="query: ", document="passage: ")
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_model_is_kept() -> Any:
    yield
    integrations.cached_encoder.cache_clear()


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def vectorizer(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.scikit_learn import SentenceVectorizer

    return SentenceVectorizer(model, **options)


def test_a_vectorizer_gives_the_encoders_vectors(small: Path) -> None:
    encoder = SentenceEncoder(small)
    assert_same_bits(vectorizer(small).fit_transform(TEXTS), encoder.encode(TEXTS))
    assert_same_bits(vectorizer(small).transform(np.array(TEXTS)), encoder.encode(TEXTS))  # unfitted, as an array
    options = {"truncate_dim": 10, "normalize_embeddings": True}
    assert_same_bits(vectorizer(small, threads=1, **options).transform(TEXTS), encoder.encode(TEXTS, **options))
    assert vectorizer(small, backend="numpy").transform(TEXTS).shape == (6, 96)
    assert vectorizer(small).transform([]).shape == (0, 96)


def test_a_vectorizer_names_its_features(small: Path) -> None:
    names = vectorizer(small, truncate_dim=3).fit(TEXTS).get_feature_names_out()
    assert names.tolist() == ["sentencevectorizer0", "sentencevectorizer1", "sentencevectorizer2"]
    assert len(vectorizer(small).fit(TEXTS).get_feature_names_out()) == 96


@pytest.mark.parametrize("fitted", [False, True])
def test_a_vectorizer_clones_and_pickles(small: Path, fitted: bool) -> None:
    from sklearn.base import clone

    original = vectorizer(small, truncate_dim=7)
    if fitted:
        original.fit(TEXTS)
    pickled = pickle.dumps(original)
    assert len(pickled) < 2000  # the model is not in it
    for copy in (clone(original), pickle.loads(pickled)):
        assert copy.get_params() == original.get_params()
        assert_same_bits(copy.transform(TEXTS), original.transform(TEXTS))


def test_a_vectorizer_passes_the_checks_that_are_not_about_numbers(small: Path) -> None:
    """Those of `check_estimator`, which takes itself to one of them for what reads texts."""
    from sklearn.utils import estimator_checks

    names = """
    estimator_cloneable estimator_tags_renamed valid_tag_types estimator_repr no_attributes_set_in_init mixin_order
    do_not_raise_errors_in_init_or_set_params get_params_invariance set_params parameters_default_constructible
    """.split()
    for name in names:
        getattr(estimator_checks, f"check_{name}")("SentenceVectorizer", vectorizer(small))


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", InputTypeError, "X: expected texts in a list, .*, found str"),
        (None, InputTypeError, "X: expected texts in a list, .*, found NoneType"),
        (np.array([TEXTS]), InputTypeError, r"found ndarray of shape \(1, 6\)"),
        ([1.5], InputTypeError, "text 0: expected a str, found float"),
    ],
    ids=["str", "None", "table", "numbers"],
)
def test_what_is_no_list_of_texts_is_refused(small: Path, texts: Any, error: type, message: str) -> None:
    for method in (vectorizer(small).fit, vectorizer(small).transform):
        with pytest.raises(error, match=message):
            method(texts)


def test_wrong_parameters_are_refused_when_fitting(small: Path) -> None:
    with pytest.raises(InputValueError, match="truncate_dim"):
        vectorizer(small, truncate_dim=0).fit(TEXTS)
    with pytest.raises(InputValueError, match="backend: expected one of"):
        vectorizer(small, backend="torch").fit(TEXTS)


@pytest.mark.weights
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_grid_search_over_a_pipeline(model_folder: Path, n_jobs: int | None) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(vectorizer(model_folder), LogisticRegression())
    grid = {"sentencevectorizer__truncate_dim": [128, None], "logisticregression__C": [1.0, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(TEXTS * 2, TOPICS * 2)
    assert search.best_score_ == 1.0
    questions = ["How far away is the Moon?", "Boil the potatoes in salted water.", "Who won the race?"]
    again = pickle.loads(pickle.dumps(search))
    assert list(again.predict(questions)) == list(search.predict(questions)) == ["space", "food", "sport"]


@pytest.mark.weights
def test_clusters_are_the_topics(model_folder: Path) -> None:
    from sklearn.cluster import KMeans
    from sklearn.pipeline import make_pipeline

    found = make_pipeline(vectorizer(model_folder), KMeans(3, n_init=10, random_state=0)).fit_predict(TEXTS)
    assert found[:3].tolist() == found[3:].tolist()
    assert len(set(found)) == 3


# ---- LangChain -------------------------------------------------------------------------------------------------------


def test_embeddings_are_the_encoders_vectors_with_its_prompts(small: Path) -> None:
    from minilm_np.integrations.langchain import MiniLMEmbeddings

    encoder, embeddings = SentenceEncoder(small), MiniLMEmbeddings(small, truncate_dim=20)
    documents = encoder.encode(TEXTS, prompt="passage: ", truncate_dim=20).tolist()
    query = encoder.encode("a question", prompt="query: ", truncate_dim=20).tolist()
    assert embeddings.embed_documents(TEXTS) == documents == asyncio.run(embeddings.aembed_documents(TEXTS))
    assert embeddings.embed_query("a question") == query == asyncio.run(embeddings.aembed_query("a question"))
    assert embeddings.embed_documents([]) == []
    assert type(query[0]) is float
    with pytest.raises(InputTypeError, match="texts: expected texts in a list, found str"):
        embeddings.embed_documents("one text")  # type: ignore[arg-type]


@pytest.mark.weights
def test_a_vector_store_finds_what_is_meant(model_folder: Path) -> None:
    from langchain_core.vectorstores import InMemoryVectorStore

    from minilm_np.integrations.langchain import MiniLMEmbeddings

    store = InMemoryVectorStore.from_texts(TEXTS, MiniLMEmbeddings(model_folder))
    (best, score), (second, _) = store.similarity_search_with_score("giant gas planets", k=2)
    assert (best.page_content, second.page_content) == (FACTS["planets"], FACTS["stars"])
    encoder = SentenceEncoder(model_folder)
    assert score == pytest.approx(
        float(encoder.encode("giant gas planets") @ encoder.encode(best.page_content)), abs=1e-6
    )
    found = asyncio.run(store.as_retriever(search_kwargs={"k": 1}).ainvoke("baking"))
    assert [document.page_content for document in found] == [FACTS["bread"]]


# ---- Chroma ----------------------------------------------------------------------------------------------------------


def chroma_client(folder: Path) -> Any:
    import chromadb

    return chromadb.PersistentClient(folder, settings=chromadb.Settings(anonymized_telemetry=False))


def embedding_function(model: Path, **options: Any) -> Any:
    from minilm_np.integrations.chroma import MiniLMEmbeddingFunction

    return MiniLMEmbeddingFunction(model, **options)


_REOPENED = """
import json, sys
import chromadb
if sys.argv[2] == "imported":
    import minilm_np.integrations.chroma
client = chromadb.PersistentClient(sys.argv[1], settings=chromadb.Settings(anonymized_telemetry=False))
collection = client.get_collection("facts")
print(json.dumps(collection.query(query_texts=["giant gas planets"], n_results=2)))
"""


@pytest.mark.weights
def test_a_collection_is_filled_closed_and_reopened_by_another_process(model_folder: Path, tmp_path: Path) -> None:
    client = chroma_client(tmp_path)
    collection = client.create_collection("facts", embedding_function=embedding_function(model_folder))
    collection.add(ids=list(FACTS), documents=TEXTS)
    client.close()
    del collection, client
    child = [sys.executable, "-W", "error::UserWarning", "-c", _REOPENED, str(tmp_path)]
    found = json.loads(subprocess.run([*child, "imported"], capture_output=True, check=True, cwd=tmp_path).stdout)
    assert found["ids"] == [["planets", "stars"]]
    assert found["documents"][0][0] == FACTS["planets"]
    encoder = SentenceEncoder(model_folder)
    cosine = float(encoder.encode("giant gas planets") @ encoder.encode(FACTS["planets"]))
    assert found["distances"][0][0] == pytest.approx(1 - cosine, abs=1e-5)
    refused = subprocess.run([*child, "not imported"], capture_output=True, text=True, check=False)
    assert "minilm_np" in refused.stderr
    assert refused.returncode == 1


def test_an_embedding_function_gives_the_encoders_vectors_with_its_prompts(small: Path) -> None:
    encoder, function = SentenceEncoder(small), embedding_function(small, truncate_dim=20)
    expected = encoder.encode(TEXTS, prompt="passage: ", truncate_dim=20)
    assert_same_bits(np.array(function(TEXTS)), expected)
    query = encoder.encode(["a question"], prompt="query: ", truncate_dim=20)
    assert_same_bits(np.array(function.embed_query(["a question"])), query)


def test_an_embedding_function_is_what_chroma_asks_for(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chromadb.utils.embedding_functions import config_to_embedding_function

    monkeypatch.chdir(small.parent)
    function = embedding_function(Path("small"), threads=1)
    config = json.loads(json.dumps(function.get_config()))
    assert config["model"] == str(small)  # wherever the collection is reopened
    again = config_to_embedding_function({"name": function.name(), "config": config})
    assert type(again) is type(function)
    assert again.get_config() == config
    assert not function.is_legacy()
    assert function.default_space() in function.supported_spaces()


def test_a_collections_model_cannot_be_changed(small: Path, tmp_path: Path) -> None:
    client = chroma_client(tmp_path)
    collection = client.create_collection("facts", embedding_function=embedding_function(small))
    collection.add(ids=list(FACTS), documents=TEXTS)
    collection.modify(configuration={"embedding_function": embedding_function(small, threads=1)})
    with pytest.raises(InputValueError, match="truncate_dim: the vectors that are stored were made with None, not 8"):
        collection.modify(configuration={"embedding_function": embedding_function(small, truncate_dim=8)})
    client.close()


# ---- all of them -----------------------------------------------------------------------------------------------------

MODULES = {
    "scikit_learn": ("sklearn", "sklearn", "SentenceVectorizer"),
    "langchain": ("langchain_core", "langchain", "MiniLMEmbeddings"),
    "chroma": ("chromadb", "chroma", "MiniLMEmbeddingFunction"),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_missing_library_is_named_with_its_extra(module: str) -> None:
    library, extra, _ = MODULES[module]
    code = f"import sys; sys.modules[{library!r}] = None; import minilm_np.integrations.{module}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert f"MissingExtraError: {library} is not installed, which this module needs" in found.stderr
    assert found.stderr.rstrip().endswith(f"pip install 'minilm-np[{extra}]'")


def test_a_library_that_is_there_but_broken_speaks_for_itself() -> None:
    code = "import sys; sys.modules['scipy'] = None; import minilm_np.integrations.scikit_learn"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, "scipy" in found.stderr.splitlines()[-1], "extra" in found.stderr) == (1, True, False)


@pytest.mark.parametrize("module", MODULES)
def test_all_take_the_same_arguments(module: str) -> None:
    import importlib

    made = getattr(importlib.import_module(f"minilm_np.integrations.{module}"), MODULES[module][2])
    parameters = inspect.signature(made).parameters
    assert list(parameters) == ["model", "backend", "threads", "normalize_embeddings", "truncate_dim"]
    accepted = {**inspect.signature(SentenceEncoder).parameters, **inspect.signature(SentenceEncoder.encode).parameters}
    for name in list(parameters)[1:]:
        assert parameters[name].default == accepted[name].default


def test_a_model_is_loaded_once_for_all(small: Path) -> None:
    assert integrations.shared_encoder(str(small), "numba", None) is integrations.shared_encoder(
        str(small), "numba", None
    )


def test_a_model_that_is_saved_again_is_loaded_again(tmp_path: Path) -> None:
    for seed in (1, 2):
        encoder = SentenceEncoder.random(seed=seed, backend="numpy")
        encoder.save_pretrained(tmp_path / "model")
        assert_same_bits(vectorizer(tmp_path / "model", backend="numpy").transform(["a"]), encoder.encode(["a"]))
    use = tmp_path / "model" / "config_sentence_transformers.json"
    use.write_text(json.dumps(json.loads(use.read_text()) | {"truncate_dim": 5}))  # in its place, and nothing else
    assert vectorizer(tmp_path / "model", backend="numpy").transform(["a"]).shape == (1, 5)


def test_a_relative_path_is_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_names_reach_the_hub_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(integrations, "SentenceEncoder", lambda model, **options: asked.append(model))
    for _ in range(2):
        integrations.shared_encoder("intfloat/e5-small-v2", "numba", None)
    assert asked == ["intfloat/e5-small-v2"]

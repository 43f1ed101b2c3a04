"""mteb: `MiniLMEncoder` on synthetic tasks, beside the same model in sentence-transformers."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from tests.conftest import load_sentence_transformer
from tests.support.compare import assert_near
from tests.support.integrations import TEXTS

# mteb, datasets and their libraries warn about themselves
WARNINGS = ("DeprecationWarning", "FutureWarning", "UserWarning")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in WARNINGS]
QUESTIONS = ["Which stars are near?", "How do I bake?", "Who scored?", "Name a planet.", "What do I cook?", "Who won?"]


@pytest.fixture(scope="module")
def mteb() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("mteb")


def metadata(name: str, type_: str, main_score: str) -> dict[str, Any]:
    return {
        "name": name, "type": type_, "main_score": main_score, "description": "synthetic",
        "dataset": {"path": "none/none", "revision": "1"}, "eval_splits": ["test"], "eval_langs": ["eng-Latn"],
    }  # fmt: skip


def sts_task() -> Any:
    """Pairs of texts with drawn scores."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    class Task(AbsTaskSTS):  # type: ignore[misc]  # mteb's types are not read
        metadata = TaskMetadata(**metadata("SyntheticSTS", "STS", "cosine_spearman"))

    task = Task()
    pairs = {"sentence1": TEXTS, "sentence2": QUESTIONS, "score": [4.0, 1.5, 3.5, 5.0, 0.5, 2.0]}
    task.dataset = DatasetDict(test=Dataset.from_dict(pairs))
    task.data_loaded = True
    return task


def retrieval_task() -> Any:
    """A question for each text."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Task(AbsTaskRetrieval):  # type: ignore[misc]  # mteb's types are not read
        metadata = TaskMetadata(**metadata("SyntheticRetrieval", "Retrieval", "ndcg_at_10"))

    task = Task()
    corpus = {"id": [f"d{n}" for n in range(len(TEXTS))], "text": TEXTS, "title": [""] * len(TEXTS)}
    queries = {"id": [f"q{n}" for n in range(len(QUESTIONS))], "text": QUESTIONS}
    split = {
        "corpus": Dataset.from_dict(corpus), "queries": Dataset.from_dict(queries), "top_ranked": None,
        "relevant_docs": {f"q{n}": {f"d{n}": 1} for n in range(len(TEXTS))},
    }  # fmt: skip
    task.dataset = {"default": {"test": split}}
    task.data_loaded = True
    return task


def scores(mteb: Any, model: Any, task: Any) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results
    found = result.scores["test"][0]
    return {name: value for name, value in found.items() if isinstance(value, float)}


@pytest.mark.parametrize("make", [sts_task, retrieval_task])
def test_a_synthetic_task_gives_the_scores_of_sentence_transformers(mteb: Any, small: Path, make: Any) -> None:
    from minilm_np.integrations.mteb import MiniLMEncoder

    found = scores(mteb, MiniLMEncoder(small), make())
    expected = scores(mteb, load_sentence_transformer(small), make())
    assert len(found) >= 8
    assert_near(found, expected, 1e-6)  # some of mteb's scores are NaN
    assert 0 < abs(found["main_score"]) < 1  # a task on which models differ


def test_the_prompts_of_the_model_are_used(mteb: Any, small: Path, tmp_path: Path) -> None:
    """Without them the vectors differ; with the prompt of a task, it comes first."""
    from mteb.types import PromptType

    from minilm_np.integrations.mteb import MiniLMEncoder

    encoder = MiniLMEncoder(small, truncate_dim=8)
    batches: Any = [{"text": TEXTS[:2]}, {"text": TEXTS[2:]}]
    call = {"task_metadata": retrieval_task().metadata, "hf_split": "test", "hf_subset": "default"}
    plain = SentenceEncoder(small)
    for prompt_type, prompt in ((PromptType.query, "query: "), (PromptType.document, "passage: "), (None, "")):
        expected = plain.encode(TEXTS, prompt=prompt, truncate_dim=8)
        assert encoder.encode(batches, prompt_type=prompt_type, **call).tolist() == expected.tolist()


def test_stored_results_are_for_the_same_vectors_only(mteb: Any, small: Path, tmp_path: Path) -> None:
    from mteb.models import EncoderProtocol

    from minilm_np.integrations.mteb import MiniLMEncoder

    SentenceEncoder.random(seed=1).save_pretrained(tmp_path / "small")
    same, other, shorter = MiniLMEncoder(small), MiniLMEncoder(tmp_path / "small"), MiniLMEncoder(small, truncate_dim=8)
    assert isinstance(same, EncoderProtocol)
    assert same.mteb_model_meta.name == other.mteb_model_meta.name == "minilm_np/small"
    assert same.mteb_model_meta.revision == MiniLMEncoder(small).mteb_model_meta.revision
    assert same.mteb_model_meta.revision != other.mteb_model_meta.revision
    assert same.mteb_model_meta.experiment_name != shorter.mteb_model_meta.experiment_name

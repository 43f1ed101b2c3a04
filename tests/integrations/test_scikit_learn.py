"""scikit-learn: `SentenceVectorizer` alone, in a grid search over a pipeline, and before a clustering."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError, SentenceEncoder
from tests.support.compare import assert_same_bits
from tests.support.integrations import TEXTS, TOPICS


def vectorizer(model: Path, **options: Any) -> Any:
    """A SentenceVectorizer, imported here so that collecting the tests does not import scikit-learn."""
    from minilm_np.integrations.scikit_learn import SentenceVectorizer

    return SentenceVectorizer(model, **options)


def test_a_vectorizer_gives_the_encoders_vectors(small: Path) -> None:
    encoder = SentenceEncoder(small)
    assert_same_bits(vectorizer(small).fit_transform(TEXTS), encoder.encode(TEXTS))
    assert_same_bits(vectorizer(small).transform(np.array(TEXTS)), encoder.encode(TEXTS))  # not fitted; an array
    options: dict[str, Any] = {"truncate_dim": 10, "normalize_embeddings": True}
    assert_same_bits(vectorizer(small, threads=1, **options).transform(TEXTS), encoder.encode(TEXTS, **options))
    assert vectorizer(small, backend="numpy").transform(TEXTS).shape == (6, 96)
    assert vectorizer(small).transform([]).shape == (0, 96)


def test_a_vectorizer_names_its_features(small: Path) -> None:
    names = vectorizer(small, truncate_dim=3).fit(TEXTS).get_feature_names_out()
    assert names.tolist() == ["sentencevectorizer0", "sentencevectorizer1", "sentencevectorizer2"]
    assert len(vectorizer(small).fit(TEXTS).get_feature_names_out()) == 96


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_vectorizer_gives_frames_with_named_columns(small: Path, library: str) -> None:
    from sklearn import config_context
    from sklearn.pipeline import make_pipeline

    expected = SentenceEncoder(small).encode(TEXTS, truncate_dim=3)
    names = ["sentencevectorizer0", "sentencevectorizer1", "sentencevectorizer2"]
    plain = vectorizer(small, truncate_dim=3)
    with config_context(transform_output=library):
        frames = [plain.fit_transform(TEXTS)]
    frames.append(plain.set_output(transform=library).fit_transform(TEXTS))
    frames.append(make_pipeline(vectorizer(small, truncate_dim=3)).set_output(transform=library).fit_transform(TEXTS))
    for frame in frames:
        assert type(frame).__module__.startswith(library)
        assert list(frame.columns) == names
        assert_same_bits(frame.to_numpy(), expected)


def test_a_frame_has_the_index_of_its_texts(small: Path) -> None:
    import pandas

    texts = pandas.Series(TEXTS, index=list("fedcba"))
    frame = vectorizer(small).set_output(transform="pandas").fit(texts).transform(texts)
    assert frame.index.equals(texts.index)


def test_a_column_transformer_passes_one_column(small: Path) -> None:
    import pandas
    from sklearn.compose import ColumnTransformer

    table = pandas.DataFrame({"text": TEXTS, "n": 0})
    found = ColumnTransformer([("vectors", vectorizer(small), "text")]).fit_transform(table)
    assert_same_bits(found, SentenceEncoder(small).encode(TEXTS))


@pytest.mark.parametrize("fitted", [False, True])
def test_a_vectorizer_clones_and_pickles(small: Path, fitted: bool) -> None:
    from sklearn.base import clone

    original = vectorizer(small, truncate_dim=7)
    if fitted:
        original.fit(TEXTS)
    pickled = pickle.dumps(original)
    assert len(pickled) < 2000  # without the weights
    for copy in (clone(original), pickle.loads(pickled)):
        assert copy.get_params() == original.get_params()
        assert_same_bits(copy.transform(TEXTS), original.transform(TEXTS))


def test_a_vectorizer_passes_the_checks_that_are_not_about_numbers(small: Path) -> None:
    """`check_estimator` itself runs only one check for an estimator that reads texts."""
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
        ("one text", InputTypeError, "X: expected a list, an array or a column of str, found str"),
        (None, InputTypeError, "X: expected a list, an array or .*, found NoneType"),
        (np.array([TEXTS]), InputTypeError, r"found ndarray of shape \(1, 6\)"),
        ([1.5], InputTypeError, "text 0: expected a str, found float"),
    ],
    ids=["str", "None", "table", "numbers"],
)
def test_anything_but_a_list_of_texts_is_refused(small: Path, texts: Any, error: type, message: str) -> None:
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

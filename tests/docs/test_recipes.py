"""The recipes that the test of all pages leaves out."""

from pathlib import Path

import pytest

from tests.docs.recipes import recipes_left_out, run_recipe


def test_the_recipes_that_are_left_out_are_known() -> None:
    """`python -m tests.docs.recipes` runs them."""
    assert set(recipes_left_out()) == {"hnswlib", "pyspark"}


@pytest.mark.weights
def test_the_recipe_for_hnswlib_runs_where_it_is_installed(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hnswlib")
    monkeypatch.chdir(tmp_path)
    run_recipe("hnswlib", tmp_path)

"""The oracle of the tests of vectors."""

import warnings
from typing import Any

import pytest


@pytest.fixture(scope="session")
def upstream() -> Any:
    """sentence_transformers.util, imported without the warnings of its imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import util as upstream

        return upstream

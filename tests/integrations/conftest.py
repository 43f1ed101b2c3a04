"""Fixtures of the integrations' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder, integrations


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model with prompts."""
    folder = tmp_path_factory.mktemp("model") / "small"
    encoder = SentenceEncoder.random()
    encoder.prompts.update(query="query: ", document="passage: ")
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_cached_model() -> Iterator[None]:
    """Release the cached models after each test."""
    yield
    integrations.cached_encoder.cache_clear()

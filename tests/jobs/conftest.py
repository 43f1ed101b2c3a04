"""Fixtures of the tests of jobs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from minilm_np.jobs import EmbedReport, embed_files
from tests.support.cli import write_small_model

Embed = Callable[..., EmbedReport]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model that loads in milliseconds. Its limit is 16 tokens, its vectors have 8 numbers."""
    folder = tmp_path_factory.mktemp("model")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(model: Path) -> SentenceEncoder:
    return SentenceEncoder(model, backend="numpy")


@pytest.fixture
def embed(encoder: SentenceEncoder) -> Embed:
    """`embed_files` with the small model, and without a warning for truncated texts."""

    def call(inputs: Any, output: Path, **options: Any) -> EmbedReport:
        given: dict[str, Any] = {"encoder": encoder, "on_truncation": "ignore"}
        return embed_files(inputs, output, **given | options)

    return call

"""Fixtures of the server's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from minilm_np import CrossEncoder, SentenceEncoder
from tests.support.cli import Command, write_small_model
from tests.support.server import running


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of 8 dimensions over single characters. Its limit is 16 tokens."""
    folder = tmp_path_factory.mktemp("served") / "small"
    folder.mkdir()
    write_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(small: Path) -> SentenceEncoder:
    """The small model, with prompts."""
    return SentenceEncoder(small, backend="numpy", prompts={"query": "q: "})


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A random cross-encoder with a prompt, in a folder named `ranker`. Its limit is 128 tokens."""
    folder = tmp_path_factory.mktemp("served") / "ranker"
    CrossEncoder.random(backend="numpy").save_pretrained(folder)
    return CrossEncoder(folder, backend="numpy", prompts={"query": "q: "}, default_prompt_name="query")


@pytest.fixture(scope="session")
def url(encoder: SentenceEncoder) -> Iterator[str]:
    """A server of the small model with the default settings."""
    with running(encoder) as url:
        yield url


@pytest.fixture
def command(capsysbinary: pytest.CaptureFixture[bytes], small: Path) -> Command:
    """The command in this process."""
    return Command(capsysbinary, small)

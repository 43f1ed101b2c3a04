"""Fixtures of the command line's tests."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm_np import SentenceEncoder
from tests.support.cli import Command, write_small_model

Stdin = Callable[[bytes], None]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model that loads in milliseconds. Its limit is 16 tokens."""
    folder = tmp_path_factory.mktemp("small")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(small: Path) -> SentenceEncoder:
    """The small model."""
    return SentenceEncoder(small, backend="numpy")


@pytest.fixture(scope="session")
def prompted(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with prompts for queries and documents."""
    folder = tmp_path_factory.mktemp("prompted")
    shutil.copytree(small, folder, dirs_exist_ok=True)
    prompts = {"prompts": {"query": "q: ", "document": "d: ", "passage": "p: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


@pytest.fixture
def command(capsysbinary: pytest.CaptureFixture[bytes], small: Path) -> Command:
    """The command in this process."""
    return Command(capsysbinary, small)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Stdin:
    """A function that puts bytes on standard input."""

    def put(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    return put

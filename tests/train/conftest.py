"""Fixtures of the training tests: a file of pairs, and a small encoder. No test changes them."""

from pathlib import Path

import pytest

from minilm_np import SentenceEncoder
from tests.support.training_runs import CONFIG, write_pairs


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write_pairs(path)
    return path


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(CONFIG, seed=1, backend="numpy")

"""The random model on both backends."""

import pytest

from minilm_np import SentenceEncoder
from minilm_np.engine.registry import BACKENDS


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def encoder(backend: str) -> SentenceEncoder:
    return SentenceEncoder.random(backend=backend)

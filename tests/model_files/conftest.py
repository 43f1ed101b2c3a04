"""The fixture of the tests of hub.py."""

from pathlib import Path

import pytest

from tests.support.hub_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)

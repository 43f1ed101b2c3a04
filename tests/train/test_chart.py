"""Test the chart of a run."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm_np.train.chart import draw_loss


@pytest.fixture
def log(tmp_path: Path) -> Path:
    entries: list[dict[str, Any]] = [{"step": step, "loss": 1 / step} for step in range(1, 7)]
    entries.append({"step": 6, "evaluation": {"MRR@10": 0.5}})
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_the_loss_is_drawn(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_loss(log, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_warning_says_what_to_install(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(UserWarning, match=r"loss\.png is not drawn, .*: pip install matplotlib"):
        draw_loss(log, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()

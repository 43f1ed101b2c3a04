"""Test the chart of a run."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm_np.errors import SaveError
from minilm_np.train.chart import draw_loss
from tests.support.disks import FILLING, fill


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


def test_a_run_that_was_resumed_with_other_evaluations_is_drawn(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with log.open("a") as file:
        file.write('{"step": 7, "evaluation": {"Spearman": 0.7}}\n')
    draw_loss(log, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_chart_that_does_not_fit_is_an_error_that_names_it(log: Path, small_disk: Path) -> None:
    pytest.importorskip("matplotlib")
    fill(small_disk)
    with pytest.raises(SaveError, match=r"loss\.png: the chart cannot be written: No space left on device"):
        draw_loss(log, small_disk / "loss.png")
    assert os.listdir(small_disk) == [FILLING]

"""Progress of long work: a bar on a terminal, elsewhere a line every ten seconds, and nothing for short work."""

import io
import sys
from collections.abc import Callable

import pytest

from minilm_np import _progress
from minilm_np._progress import progress, tracked


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that lets seconds pass on the clock of the progress."""
    now = [0.0]
    monkeypatch.setattr(_progress, "clock", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_without_a_terminal_a_line_is_printed_every_ten_seconds(
    wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("encode", "text", 4000) as report:
        for _ in range(8):
            wait(4)
            report(500)
    assert capsys.readouterr() == (
        "",
        "minilm-np: encode: 1,500 of 4,000 texts after 12 s, about 20 s left\n"
        "minilm-np: encode: 3,000 of 4,000 texts after 24 s, about 8 s left\n",
    )


def test_a_line_has_no_more_than_what_is_known(
    wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("encode", "text") as report:
        wait(15)
        report(7)
    with progress("train", "step", 10, initial=4) as report:
        wait(10)
        report(0, "loss=1.5")
        wait(10)
        report(2)
    assert capsys.readouterr().err.splitlines() == [
        "minilm-np: encode: 7 texts after 15 s",
        "minilm-np: train: 4 of 10 steps after 10 s, loss=1.5",
        "minilm-np: train: 6 of 10 steps after 20 s, about 40 s left",
    ]


def test_short_work_prints_nothing(wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in tracked("abc", "trying", "trial"):
        wait(3)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_on_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("encode", "text", 3) as report:
        report(3, "a note")
    assert "encode: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue() and "a note" in terminal.getvalue()


def test_without_stderr_and_without_its_reader_the_work_goes_on(
    wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(tracked("abc", "trying", "trial")) == ["a", "b", "c"]
    monkeypatch.setattr(sys, "stderr", Closed())
    with progress("encode", "text", 3) as report:
        wait(20)
        report(1)

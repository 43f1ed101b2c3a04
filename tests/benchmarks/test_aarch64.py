"""benchmarks.aarch64: its report. The run itself takes minutes and a network, so it is a command."""

from typing import Any

import pytest

from benchmarks import aarch64

RESULT: dict[str, Any] = {
    "date": "2026-01-02",
    "seconds": 100,
    "qemu": "qemu-aarch64 version 7.2.0",
    "cpu": "cortex-a72",
    "qemu_cpu": "max",
    "machine": "aarch64",
    "versions": {"python": "3.11.2", "numpy": "2.0"},
    "fingerprints": {"float32, 1 thread": "aa", "int8, 2 threads": "bb"},
    "published": {"float32": "aa", "int16": "cc", "int8": "dd"},
    "vectors": {"float32, 1 thread, mean": True, "float32, 1 thread, cls": False},
    "agrees": False,
}


def test_the_report_says_which_bits_are_others() -> None:
    assert aarch64.lines(RESULT) == [
        "qemu-aarch64 version 7.2.0, -cpu max; code for cortex-a72; aarch64, python 3.11.2, numpy 2.0",
        "float32, 1 thread    aa  as published",
        "int8, 2 threads      bb  NOT as published",
        "small models: 1 of 2 runs have the bits of this machine",
        "DOES NOT AGREE (2026-01-02, 100 s)",
    ]


def test_the_folder_must_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["aarch64"])
    with pytest.raises(SystemExit, match="2"):
        aarch64.main()
    assert "the following arguments are required: --folder" in capsys.readouterr().err

"""benchmarks.exports: the exported files, in the cache or where --output says, and wrong usage."""

from pathlib import Path

import pytest

from benchmarks import exports


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of exports. Making an export takes no time and writes one or two small files."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(exports, "package_cache", lambda: cache)

    def make(name: str) -> None:
        place = exports._place(name)
        files = {"openvino": [place, place.with_suffix(".bin")], "ctranslate2": [place / "model.bin"]}
        for file in files.get(name, [place]):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{name} {file.name}")

    monkeypatch.setattr(exports, "make", make)
    return cache


def test_an_export_is_made_in_the_cache_or_copied_to_a_file(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.main(["onnx", "openvino"])
    first, second = capsys.readouterr().out.split()
    assert Path(first).parent.parent == export / "benchmarks"
    assert (Path(first).read_text(), Path(second).read_text()) == ("onnx model.onnx", "openvino model.xml")
    out = {"onnx": tmp_path / "mine.onnx", "openvino": tmp_path / "mine.xml", "ctranslate2": tmp_path / "folder"}
    for name, path in out.items():
        exports.main([name, "--output", str(path)])
        assert capsys.readouterr().out == f"{path}\n"
    assert out["onnx"].read_text() == "onnx model.onnx"
    assert out["openvino"].with_suffix(".bin").read_text() == "openvino model.bin"
    assert (out["ctranslate2"] / "model.bin").read_text() == "ctranslate2 model.bin"


@pytest.mark.usefixtures("export")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, "onnx, onnx-int8, onnx-fused"),
        ([], 2, "the following arguments are required: NAME"),
        (["foo"], 2, "invalid choice: 'foo'"),
        (["onnx", "openvino", "--output", "x"], 2, "argument --output: expected one NAME with it, found 2"),
        (["onnx", "--output", "no/x"], 1, "error: --output no/x: there is no folder no: create it first"),
    ],
)
def test_the_usage_of_exports(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        exports.main(arguments)
    out, err = capsys.readouterr()
    assert stopped.value.code == code
    assert message in (out if code == 0 else err)

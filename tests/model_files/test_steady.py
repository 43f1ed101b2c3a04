"""A folder that is replaced while it is read gives one of the two models, never a mixture, and never an error."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm_np import HubError, SentenceEncoder
from minilm_np.model_files import steady
from minilm_np.model_files.steady import identity, read_steadily
from minilm_np.text.tokenizer_files import load_tokenizer
from tests.support.compare import assert_same_bits
from tests.support.replaced_folders import load_while_saving, models


@pytest.mark.parametrize("can_exchange", [True, False], ids=["one step", "two renames"])
def test_a_process_loads_while_another_one_saves(can_exchange: bool, tmp_path: Path) -> None:
    saves, found = load_while_saving(tmp_path / "model", 1.0, alternating=True, can_exchange=can_exchange)
    assert saves > 1 and found.total() > 1
    assert found.keys() <= {"model 0", "model 1"}, found


def test_a_model_that_is_replaced_between_two_of_its_files_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = models()
    first.save_pretrained(tmp_path / "model")
    calls = []

    def replaced_meanwhile(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            second.save_pretrained(tmp_path / "model")
        return load_tokenizer(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("minilm_np.encoding.loaded_model.load_tokenizer", replaced_meanwhile)
    found = SentenceEncoder(tmp_path / "model", backend="numpy")
    assert len(calls) == 2
    assert found.config == second.config
    assert_same_bits(found.encode("a text"), second.encode("a text"))


# ---- read_steadily ---------------------------------------------------------------------------------------------------


def replace(folder: Path, content: str) -> None:
    """Replace a folder by one with other content, as a process does that cannot do it in one step."""
    (folder.parent / "new").mkdir()
    (folder.parent / "new" / "file").write_text(content)
    folder.rename(folder.parent / "gone")
    (folder.parent / "new").rename(folder)
    (folder.parent / "gone" / "file").unlink()
    (folder.parent / "gone").rmdir()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_text("old")
    return tmp_path / "model"


def reader(folder: Path, *actions: Callable[[], object]) -> tuple[Callable[[], str], list[str]]:
    """A function that reads a file, and then does the next action; and the contents that it has read so far."""
    left, seen = list(actions), []

    def read() -> str:
        seen.append((folder / "file").read_text())
        if left:
            left.pop(0)()
        return seen[-1]

    return read, seen


def fails() -> None:
    raise ValueError("a broken file")


def test_a_folder_that_stays_is_read_once(folder: Path) -> None:
    read, seen = reader(folder)
    assert read_steadily(folder, read) == "old" and seen == ["old"]


def test_a_folder_that_is_replaced_is_read_again(folder: Path) -> None:
    read, seen = reader(folder, lambda: replace(folder, "new"))
    assert read_steadily(str(folder), read) == "new" and seen == ["old", "new"]


def test_an_error_in_a_folder_that_is_replaced_is_dropped(folder: Path) -> None:
    def replaced_and_fails() -> None:
        replace(folder, "new")
        fails()

    read, seen = reader(folder, replaced_and_fails)
    assert read_steadily(folder, read) == "new" and seen == ["old", "new"]


def test_an_error_in_a_folder_that_stays_is_raised_at_once(folder: Path) -> None:
    read, seen = reader(folder, fails)
    with pytest.raises(ValueError, match="a broken file"):
        read_steadily(folder, read)
    assert seen == ["old"]


def test_a_folder_without_an_end_of_changes_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "ATTEMPTS", 3)
    read, seen = reader(folder, *(lambda: replace(folder, "new") for _ in range(9)))
    with pytest.raises(HubError, match="model: the folder was replaced during each of 3 attempts to read it: load the"):
        read_steadily(folder, read)
    assert len(seen) == 3


def test_a_folder_that_moves_away_and_back_is_read_again(folder: Path) -> None:
    def away_and_back() -> None:
        folder.rename(folder.with_name("away"))
        folder.with_name("away").rename(folder)

    read, seen = reader(folder, lambda: away_and_back())
    assert read_steadily(folder, read) == "old" and seen == ["old", "old"]


def test_a_link_that_changes_its_target_is_read_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("new")
    link = tmp_path / "current"
    link.symlink_to("model")

    def switch() -> None:
        (tmp_path / "next").symlink_to("other")
        os.replace(tmp_path / "next", link)

    read, seen = reader(link, switch)
    assert read_steadily(link, read) == "new" and seen == ["old", "new"]


def test_a_folder_between_two_renames_is_waited_for(folder: Path) -> None:
    (folder.parent / ".model.saving-00000000").mkdir()
    folder.rename(folder.parent / ".model.saving-00000000" / "old")
    calls = []

    def read() -> str:
        calls.append(1)
        if len(calls) == 3:
            (folder.parent / ".model.saving-00000000" / "old").rename(folder)
        return (folder / "file").read_text()

    assert read_steadily(folder, read) == "old"


def test_what_is_no_folder_is_read_once(tmp_path: Path) -> None:
    for path in (tmp_path / "none", "organisation/name", "", "a\0b"):
        calls: list[int] = []

        def read(calls: list[int] = calls) -> None:
            calls.append(1)
            fails()

        with pytest.raises(ValueError, match="a broken file"):
            read_steadily(path, read)
        assert calls == [1] and (path == "" or identity(path) is None)

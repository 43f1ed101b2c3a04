"""shards.py: missing, unreadable and changing files; shards, their index, and links."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm_np.errors import CheckpointError
from minilm_np.model_files import checkpoint
from minilm_np.model_files.checkpoint import load_checkpoint
from tests.support.checkpoint_files import (
    CONFIG,
    WORD,
    Weights,
    assert_same_bits,
    in_folder,
    pack,
    random_weights,
    unpacked,
    valid,
)
from tests.support.places import CHECKOUT

# -------------------------------------------------------------------------------- what is refused: the files themselves


def test_no_weights(tmp_path: Path) -> None:
    message = r"expected model\.safetensors or model\.safetensors\.index\.json, found neither$"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match=r"found no such folder$"):
        load_checkpoint(tmp_path / "nowhere", CONFIG)


def test_only_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"found pytorch_model\.bin, which is a pickle: it is not read.*convert the model"
    ):
        load_checkpoint(tmp_path, CONFIG)


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Is a directory"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: No such file or directory"):
        load_checkpoint(tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_fifo_does_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    caught: list[BaseException] = []

    def load() -> None:
        try:
            load_checkpoint(tmp_path, CONFIG)
        except CheckpointError as error:
            caught.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [str(error) for error in caught] == [
        f"{tmp_path / name} cannot be read: expected a regular file, found a FIFO"
    ]


def test_a_file_without_permission(tmp_path: Path) -> None:
    (in_folder(tmp_path, valid()) / "model.safetensors").chmod(0)
    tmp_path.chmod(0o755)
    # in a child without root's rights; it stands in the folder, whose parents may be closed to it
    code = """
        import os, sys
        from pathlib import Path
        from minilm_np.model_files.checkpoint import load_checkpoint
        from minilm_np.model_files.config import ModelConfig
        from minilm_np.errors import CheckpointError
        os.chdir(sys.argv[1])
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            load_checkpoint(Path("."), ModelConfig())
        except CheckpointError as error:
            print(error)
    """
    root = CHECKOUT
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "model.safetensors cannot be read: Permission denied\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: os.truncate(path, path.stat().st_size - 5),
            r"was truncated while it was being read: [1-8] bytes are mi",
        ),
        (lambda path: path.write_bytes(valid() + b"more"), "changed while it was being read: load the model again"),
        (lambda path: os.utime(path, (0, 0)), "changed while it was being read: load the model again"),
    ],
    ids=["cut", "grown", "rewritten"],
)
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], message: str
) -> None:
    in_folder(tmp_path, valid())
    match = checkpoint._match

    def match_then_change(*args: Any) -> Any:
        change(tmp_path / "model.safetensors")
        return match(*args)

    monkeypatch.setattr(checkpoint, "_match", match_then_change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)


# --------------------------------------------------------------------------------------------------------- shards


def sharded(folder: Path, edit: Callable[[dict[str, str]], object] = lambda weight_map: None) -> Weights:
    """a.safetensors and b.safetensors, with an index after an edit."""
    weights = random_weights(CONFIG)
    weight_map = {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(weights)}
    for shard in ("a.safetensors", "b.safetensors"):
        tensors = {name: array for name, array in weights.items() if weight_map[name] == shard}
        (folder / shard).write_bytes(pack(*unpacked(tensors)))
    edit(weight_map)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weights


def test_shards(tmp_path: Path) -> None:
    weights = sharded(tmp_path)
    assert_same_bits(load_checkpoint(tmp_path, CONFIG), weights)


@pytest.mark.parametrize(
    "shard",
    [
        *("../a.safetensors", "/a.safetensors", "x/a.safetensors", "x\\a.safetensors", "C:a.safetensors", "..", ""),
        *("a.bin", "a.safetensors\n", "a\0.safetensors", "\ud800.safetensors", None, 1, ["a.safetensors"]),
    ],
    ids=repr,
)
def test_an_index_names_files_beside_it_and_nothing_else(tmp_path: Path, shard: object) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update({WORD: shard}))  # type: ignore[dict-item]
    message = r"index\.json: tensor 'embeddings\.word_.*: expected the name of a \.safetensors file in the"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected JSON in UTF-8: Expecting value"),
        (b"[]", r"expected an object with an object 'weight_map', found \[\]"),
        (b"{}", r"expected an object with an object 'weight_map', found \{\}"),
        (b'{"weight_map": []}', r"expected an object with an object 'weight_map', found"),
        (b'{"weight_map": {}}', r"expected the tensors of a model, found none"),
        (b'{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', r"the key 'a' occurs twice in one object"),
    ],
)
def test_a_malformed_index(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: " + message):
        load_checkpoint(tmp_path, CONFIG)


def test_an_index_too_large(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").touch()
    os.truncate(tmp_path / "model.safetensors.index.json", 10_000_001)
    with pytest.raises(CheckpointError, match="cannot be read: expected at most 10000000 bytes, found 10000001"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update(x="c.safetensors"))
    with pytest.raises(CheckpointError, match=r"c\.safetensors cannot be read: No such file"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_that_is_not_where_the_index_says(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update({WORD: "b.safetensors"}))
    expected = r"expected in 'b\.safetensors', according to .*, found in this file"
    message = rf"a\.safetensors: tensor 'embeddings\.word.*': {expected}"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_that_the_index_does_not_list(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.pop(WORD))
    with pytest.raises(
        CheckpointError,
        match=r"a\.safetensors: tensor 'embeddings\.word.*: expected in no file, according to .*, found in this file",
    ):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_that_the_index_alone_lists(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update(x="b.safetensors"))
    with pytest.raises(CheckpointError, match=r"index\.json: tensor 'x': expected in b\.safetensors, found in no file"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    weights = sharded(tmp_path)
    for shard in ("a.safetensors", "b.safetensors"):
        (tmp_path / shard).write_bytes(pack(*unpacked(weights)))
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors: tensor '.*': expected in 'b\.safetensors', according to"
    ):
        load_checkpoint(tmp_path, CONFIG)


def test_a_shard_that_links_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    sharded(tmp_path / "model")
    (tmp_path / "model" / "b.safetensors").rename(tmp_path / "b.safetensors")
    (tmp_path / "model" / "b.safetensors").symlink_to("../b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors is a link to /.*, outside the model folder: copy"):
        load_checkpoint(tmp_path / "model", CONFIG)


def test_links_of_the_hugging_face_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--x--y" / "snapshots" / "0123abcd"
    blobs = tmp_path / "models--x--y" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    weights = sharded(folder)
    for i, path in enumerate(list(folder.iterdir())):
        path.rename(blobs / str(i))
        path.symlink_to(f"../../blobs/{i}")
    assert_same_bits(load_checkpoint(folder, CONFIG), weights)
    (tmp_path / "elsewhere").symlink_to(folder)  # a folder that is a link itself
    assert_same_bits(load_checkpoint(tmp_path / "elsewhere", CONFIG), weights)


def test_a_single_file_may_be_a_link_to_anywhere(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(valid())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "weights")
    assert_same_bits(load_checkpoint(tmp_path / "model", CONFIG), random_weights(CONFIG))

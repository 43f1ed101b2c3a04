"""`minilm-np serve` as a process: its lines, its key, its end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minilm_np import CrossEncoder
from tests.support.cli import NUMPY, PROGRAM, Command
from tests.support.server import SECONDS, ask, until_closed

KEY = "s3cret"


@contextmanager
def served(model: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[tuple[str, "Process"]]:
    """The command on a free port: its URL, and the process."""
    process = subprocess.Popen(
        [*PROGRAM, "serve", *NUMPY, "--model", str(model), "--port", "0", *options],
        stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}),
    )  # fmt: skip
    assert process.stderr is not None
    started = Process(process)
    try:
        for line in process.stderr:
            started.lines.append(line)
            if found := re.search(r"^minilm-np: serving .* on (http://.*)$", line):
                yield found[1], started
                break
        else:
            raise AssertionError(started.lines)
    finally:
        process.kill()
        process.communicate()


class Process:
    """A process, and the lines that it has printed on stderr."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.lines = process, list[str]()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[str]]:
        """Send a signal and wait: the exit code, and the lines on stderr that were not read."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, rest.splitlines()


def test_a_server_logs_requests_without_their_texts_and_ends_on_a_signal(small: Path) -> None:
    with served(small) as (url, process):
        assert ask(url, "/embed?a=secret", {"inputs": ["secret", "b"]}).status == 200
        assert ask(url, "/v1/embeddings", {"input": "secret", "dimensions": 99}).status == 400
        assert ask(url, "/secret%0a" + "x" * 200).status == 404
        code, lines = process.end()
    assert code == 0
    assert len(lines) == 3
    assert re.fullmatch(r"\S+ 127\.0\.0\.1 POST /embed 200 [0-9.]+ ms, texts 2, tokens 11", lines[0])
    assert re.fullmatch(r"\S+ 127\.0\.0\.1 POST /v1/embeddings 400 .* texts 0, tokens 0, invalid_value", lines[1])
    assert "secret" not in lines[0] + lines[1]
    assert len(lines[2]) < 200


def test_a_reranker_beside_the_model(small: Path, reranker: CrossEncoder) -> None:
    folder = str(reranker.model_path)
    with served(small, "--reranker", folder) as (url, process):
        assert process.lines[0].startswith(f"minilm-np: serving {small} and {folder} on http://")
        assert ask(url, "/rerank", {"query": "secret", "texts": ["secret", "b"]}).status == 200
        _, (line,) = process.end()
    assert re.fullmatch(r"\S+ 127\.0\.0\.1 POST /rerank 200 [0-9.]+ ms, texts 2, tokens 25", line)


def test_the_log_as_json(small: Path) -> None:
    with served(small, "--log-format", "json") as (url, process):
        ask(url, "/embed", {"inputs": ["a", "b"]})
        _, (line,) = process.end(signal.SIGINT)
    found = json.loads(line)
    assert list(found) == ["time", "client", "method", "path", "status", "ms", "texts", "tokens", "error"]
    assert (found["path"], found["status"], found["texts"], found["tokens"]) == ("/embed", 200, 2, 6)


def test_requests_in_flight_are_answered_after_sigterm(small: Path) -> None:
    body = json.dumps({"inputs": ["abcdefghij"] * 500}).encode()
    head = f"POST /embed HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with served(small, "--log-format", "none") as (url, process):
        address = (parts := urllib.parse.urlsplit(url)).hostname, parts.port
        with socket.create_connection(address, SECONDS) as client:
            client.sendall(head.encode())
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the request is being read
            process.process.send_signal(signal.SIGTERM)
            wait_until_refused(address)
            client.sendall(body)
            response = http.client.HTTPResponse(client, method="POST")
            response.begin()
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert len(json.loads(response.read())) == 500
        assert process.process.wait(SECONDS) == 0


def test_a_request_that_does_not_end_in_time_after_sigterm(small: Path) -> None:
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    with served(small, "--graceful-timeout", "1") as (url, process):
        address = (parts := urllib.parse.urlsplit(url)).hostname, parts.port
        with socket.create_connection(address, SECONDS) as client:
            client.sendall(head)
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            code, lines = process.end()
            assert b"the server is shutting down" in until_closed(client)
    assert code == 0
    assert [line for line in lines if " POST /embed 503 " in line] == lines[-1:]
    assert not any("Traceback" in line for line in lines)


def wait_until_refused(address: tuple[str | None, int | None]) -> None:
    """Return when a server accepts no more connections."""
    stop = time.monotonic() + SECONDS
    while time.monotonic() < stop:
        try:
            socket.create_connection(address, SECONDS).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return
    raise AssertionError("the server still accepts connections")


def test_a_key_is_needed_for_all_but_health(small: Path) -> None:
    with served(small, environment={"MINILM_NP_API_KEY": KEY}) as (url, _):
        assert ask(url, "/health").status == 200
        for headers in (
            {},
            {"Authorization": KEY},
            {"Authorization": "Bearer s3cre"},
            {"Authorization": "Bearer \xe9"},
        ):
            answer = ask(url, "/embed", {"inputs": "a"}, headers=headers)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert ask(url, "/openapi.json", headers=headers).status == 401
        openai = ask(url, "/v1/models", headers={"Authorization": "Bearer wrong"})
        assert openai.json["error"]["code"] == "invalid_api_key"
        for scheme in ("Bearer", "bearer"):
            assert ask(url, "/embed", {"inputs": "a"}, headers={"Authorization": f"{scheme} {KEY}"}).status == 200


def test_another_address_warns_without_a_key(small: Path) -> None:
    with served(small, "--host", "0.0.0.0") as (_, process):
        assert process.lines[0].startswith("minilm-np: warning: other machines can use this server")
    with served(small, "--host", "0.0.0.0", "--api-key", KEY) as (_, process):
        assert len(process.lines) == 1
    with served(small, "--host", "::1", "--served-model-name", "mine") as (url, process):
        assert url.startswith("http://[::1]:")
        assert len(process.lines) == 1
        assert ask(url, "/v1/models").json["data"][0]["id"] == "mine"


def test_the_warning_comes_before_the_model_is_loaded(command: Command, tmp_path: Path) -> None:
    code, _, err = command("serve", *NUMPY, "--model", str(tmp_path / "missing"), "--host", "0.0.0.0", "--port", "0")
    warning, error = err.splitlines()
    assert code == 1
    assert warning.startswith("minilm-np: warning: other machines can use this server")
    assert error.startswith("minilm-np: error: ")


def test_a_port_in_use_is_an_error(command: Command, small: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = command.failure("serve", *NUMPY, "--model", str(small), "--port", str(port))
    assert error == (
        f"minilm-np: error: cannot listen on 127.0.0.1, port {port}: Address already in use: stop the other "
        "program, or choose another --port\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "argument --port: expected a port from 0 to 65535, found '65536'"),
        (["--max-texts", "0"], "argument --max-texts: expected a whole number of at least 1, found '0'"),
    ],
)
def test_wrong_usage(command: Command, options: list[str], message: str) -> None:
    assert command.misuse("serve", *options).endswith(message)


def test_a_missing_library_names_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.delitem(__import__("sys").modules, "minilm_np.server.run", raising=False)
    error = command.failure("serve")
    assert error == (
        "minilm-np: error: uvicorn is not installed, but the server needs it: "
        "pip install starlette uvicorn httptools uvloop orjson prometheus-client\n"
    )

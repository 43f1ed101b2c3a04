"""`ServerSettings`: the environment, and `create_app` with it; the application in another one."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minilm_np import InputTypeError, InputValueError, SentenceEncoder
from minilm_np.server.app import create_app
from minilm_np.server.settings import ServerSettings


def test_settings_from_the_environment() -> None:
    environment = {
        "MINILM_NP_SERVE_MODEL": "a/b", "MINILM_NP_SERVE_THREADS": "3", "MINILM_NP_SERVE_TRUNCATE": "1",
        "MINILM_NP_SERVE_MAX_TEXTS": "7", "MINILM_NP_SERVE_QUEUE_TIMEOUT": "2.5", "MINILM_NP_API_KEY": "key",
    }  # fmt: skip
    found = ServerSettings.from_environment(environment)
    assert found == ServerSettings(model="a/b", threads=3, truncate=True, max_texts=7, queue_timeout=2.5, api_key="key")
    assert ServerSettings.from_environment({}) == ServerSettings()
    assert "key" not in repr(found)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_TEXT", "7", "the environment variable MINILM_NP_SERVE_MAX_TEXT names no setting"),
        ("API_KEY", "7", "the environment variable MINILM_NP_SERVE_API_KEY names no setting"),
        ("MAX_TEXTS", "many", "MINILM_NP_SERVE_MAX_TEXTS: expected a whole number, found 'many'"),
        ("MAX_TEXTS", "0", "max_texts: expected an int of at least 1, found 0"),
        ("PORT", "70000", "port: expected an int from 0 to 65535, found 70000"),
        ("TRUNCATE", "yes", "MINILM_NP_SERVE_TRUNCATE: expected 1 or 0, found 'yes'"),
        ("QUEUE_TIMEOUT", "nan", "queue_timeout: expected a number of seconds greater than 0, found nan"),
        ("QUEUE_TIMEOUT", "x", "MINILM_NP_SERVE_QUEUE_TIMEOUT: expected a number, found 'x'"),
        ("LOG_FORMAT", "xml", "log_format: expected 'text', 'json' or 'none', found 'xml'"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(InputValueError) as raised:
        ServerSettings.from_environment({f"MINILM_NP_SERVE_{name}": value})
    assert str(raised.value).startswith(message)


def test_a_setting_of_another_type() -> None:
    with pytest.raises(InputTypeError, match="max_texts: expected an int, found str"):
        ServerSettings(max_texts="7")  # type: ignore[arg-type]


def test_the_application_of_another_server(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILM_NP_SERVE_MODEL", str(small))
    monkeypatch.setenv("MINILM_NP_SERVE_BACKEND", "numpy")
    assert isinstance(create_app(), Starlette)


def got(app: ASGIApp, path: str) -> Any:
    """The JSON of an application's response to GET, or the status if it is not 200."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]  # it is a coroutine
    return json.loads(sent[1]["body"]) if sent[0]["status"] == 200 else sent[0]["status"]


def test_middleware_sees_every_request(encoder: SentenceEncoder) -> None:
    seen: list[str] = []

    class Recording:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["path"])
            await self.app(scope, receive, send)

    app = create_app(ServerSettings(), encoder)
    app.add_middleware(Recording)
    assert got(app, "/v1/models")["object"] == "list"
    assert got(app, "/nothing") == 404
    assert seen == ["/v1/models", "/nothing"]


def test_an_application_at_a_path_of_another_one(encoder: SentenceEncoder) -> None:
    outer = Starlette(routes=[Mount("/inner", create_app(ServerSettings(), encoder))])
    assert got(outer, "/inner/v1/models")["object"] == "list"
    assert got(outer, "/inner/info")["auto_truncate"] is False
    assert got(outer, "/info") == 404

"""`ServerSettings`: the models, the address and the limits of a server."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minilm_np._checks import check_int, is_finite_number
from minilm_np.errors import InputValueError
from minilm_np.model_files.manifest import DEFAULT_MODEL

PREFIX = "MINILM_NP_SERVE_"  # of the environment variables; the rest is the name of the setting in capitals
API_KEY = "MINILM_NP_API_KEY"  # the environment variable


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of a server. `from_environment` reads them for an application in another ASGI server.

    Raises InputTypeError, InputValueError: a limit is not a number greater than 0.
    """

    # the models: arguments of `SentenceEncoder` and `CrossEncoder`
    model: str = DEFAULT_MODEL  # for vectors; or a cross-encoder, if the server only reranks
    reranker: str = ""  # a cross-encoder for /rerank; "": none
    backend: str = "numba"
    compute_type: str = "float32"
    threads: int | None = None
    offline: bool = False

    # the address
    host: str = "127.0.0.1"
    port: int = 8080

    served_model_name: str = ""  # of `model`, for clients; "": the name of the model or of its folder
    api_key: str = field(default="", repr=False)  # "": no key is needed
    truncate: bool = False  # whether texts that are too long are truncated if the request does not say

    # limits of one request
    max_body_bytes: int = 8 << 20
    max_texts: int = 2048  # OpenAI's limit
    max_characters: int = 2_000_000  # of all texts of a request

    # limits of all requests
    max_queue_tokens: int = 131_072  # that wait for the engine; about 15 seconds of work on two cores
    max_bodies_bytes: int = 128 << 20  # bodies of requests that are read or wait
    max_connections: int = 1024
    batch_tokens: int = 512  # that a thread encodes at once, in a tenth of a second; the next text waits for it

    # seconds
    head_timeout: float = 10.0  # from the first byte of a request, or from a new connection, to the end of the headers
    body_timeout: float = 30.0
    queue_timeout: float = 60.0  # until the results are computed
    write_timeout: float = 30.0  # for a client to read a part of its response
    keep_alive: float = 30.0  # that an idle connection stays open
    graceful_timeout: float = 60.0  # for the requests in flight after SIGTERM

    log_format: str = "text"  # one line per request: "text", "json" or "none"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if type(one.default) is int:
                least, most = (0, 65_535) if one.name == "port" else (1, None)
                check_int(one.name, value, least, most)
            elif type(one.default) is float and not (is_finite_number(value) and value > 0):
                raise InputValueError(f"{one.name}: expected a number of seconds greater than 0, found {value!r:.80}")
            elif one.name == "threads" and value is not None:
                check_int(one.name, value, 1)
        if self.log_format not in ("text", "json", "none"):
            raise InputValueError(f"log_format: expected 'text', 'json' or 'none', found {self.log_format!r}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ServerSettings":
        """Return the settings in variables such as MINILM_NP_SERVE_MODEL and MINILM_NP_SERVE_MAX_TEXTS.

        The API key is in MINILM_NP_API_KEY. Raises InputValueError: a variable has no setting, or the wrong type.
        """
        environment = os.environ if environment is None else environment
        known = {PREFIX + one.name.upper(): one for one in dataclasses.fields(cls) if one.name != "api_key"}
        unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
        if unknown:
            raise InputValueError(f"the environment variable {unknown[0]} names no setting: remove it, or correct it")
        found: dict[str, Any] = {
            one.name: _read(name, environment[name], one.default) for name, one in known.items() if name in environment
        }
        return cls(api_key=environment.get(API_KEY, ""), **found)


def _read(name: str, text: str, default: object) -> object:
    """The value in an environment variable, of the type of the default."""
    if isinstance(default, bool):
        values = {"1": True, "true": True, "0": False, "false": False}
        if text.lower() not in values:
            raise InputValueError(f"{name}: expected 1 or 0, found {text!r:.80}")
        return values[text.lower()]
    if isinstance(default, int) or default is None:
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise InputValueError(f"{name}: expected a whole number, found {text!r:.80}")
        return int(text)
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            raise InputValueError(f"{name}: expected a number, found {text!r:.80}") from None
    return text

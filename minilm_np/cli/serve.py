"""`minilm-np serve`: answer requests for vectors and scores over HTTP."""

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from minilm_np._forks import no_fork
from minilm_np.cli.options import add_command, add_model_options, positive
from minilm_np.errors import MissingExtraError
from minilm_np.server import INSTALL
from minilm_np.server.settings import API_KEY, ServerSettings

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

DEFAULTS = ServerSettings()
LIMITS = {  # options with a whole number of at least 1, and their help
    "max_texts": "texts per request",
    "max_characters": "characters of all texts of a request",
    "max_body_bytes": "bytes of a request's body",
    "max_queue_tokens": "tokens that may wait for the engine; a request beyond them gets status 429",
    "max_connections": "open connections",
    "batch_tokens": "tokens that are encoded at once",
    "queue_timeout": "seconds after which a request that waits gets status 503",
    "graceful_timeout": "seconds for the requests in flight after SIGTERM",
}


def add(commands: "Commands") -> None:
    """Add `serve` to the commands."""
    parser = add_command(
        commands,
        "serve",
        _serve,
        "answer requests for vectors and scores over HTTP",
        "minilm-np serve --port 8080",
        details="The paths are those of OpenAI (/v1/embeddings, /v1/models), of text-embeddings-inference (/embed,\n"
        "/similarity, /rerank, /tokenize, /info, /health), of Cohere and Jina (/v1/rerank), /metrics and\n"
        "/openapi.json. The paths for reranking need --reranker, or a cross-encoder as --model.\n"
        "SIGTERM or Ctrl-C ends the server after the requests in flight.",
    )
    parser.usage = "%(prog)s [OPTION ...]"  # an error prints it first, and a list of all options would hide the error
    parser.add_argument(
        "--host",
        default=DEFAULTS.host,
        help="address to listen on; 0.0.0.0 is every address of the machine (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=_port, default=DEFAULTS.port, help="port; 0 is a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="key that requests must send; other users of this machine can see an option, so the environment variable "
        f"{API_KEY} is safer",
    )
    parser.add_argument(
        "--served-model-name",
        metavar="NAME",
        default="",
        help="name of the model for clients (default: the name of the model or of its folder)",
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="truncate texts that are too long unless a request says otherwise (default: they are an error)",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json", "none"),
        default=DEFAULTS.log_format,
        help="one line per request on stderr, without its texts (default: %(default)s)",
    )
    parser.add_argument(
        "--reranker", metavar="MODEL", default="", help="cross-encoder for /rerank: name or folder (default: none)"
    )
    limits = parser.add_argument_group("limits")
    for name, what in LIMITS.items():
        limits.add_argument(
            f"--{name.replace('_', '-')}",
            type=positive,
            metavar="N",
            default=getattr(DEFAULTS, name),
            help=f"{what} (default: %(default)g)" if name.endswith("timeout") else f"{what} (default: %(default)s)",
        )
    add_model_options(parser)


def _serve(options: argparse.Namespace) -> int:
    try:
        with no_fork:
            from minilm_np.server.app import create_app
            from minilm_np.server.run import is_loopback, listen, raise_file_limit, serve, url_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed, but the server needs it: {INSTALL}") from error

    settings = ServerSettings(
        model=options.model,
        reranker=options.reranker,
        backend=options.backend,
        compute_type=options.compute_type,
        threads=options.threads,
        offline=options.offline,
        host=options.host,
        port=options.port,
        served_model_name=options.served_model_name,
        api_key=options.api_key or os.environ.get(API_KEY, ""),
        truncate=options.truncate,
        log_format=options.log_format,
        **{name: getattr(options, name) for name in LIMITS},
    )
    _log_to_stderr()
    raise_file_limit(settings)
    with listen(settings) as listening:  # before the model is loaded, so that a port in use is reported at once
        if not settings.api_key and not is_loopback(settings.host):
            print(
                f"minilm-np: warning: other machines can use this server: it listens on {settings.host} without an API "
                f"key: set {API_KEY}",
                file=sys.stderr,
                flush=True,
            )
        app = create_app(settings)
        models = " and ".join(filter(None, (options.model, options.reranker)))
        print(f"minilm-np: serving {models} on {url_of(listening)}", file=sys.stderr, flush=True)
        serve(app, settings, listening)
    return 0


def _log_to_stderr() -> None:
    """Print the lines of the server as they are, and the errors of uvicorn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("minilm_np.server", logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text!r}")
    return int(text)

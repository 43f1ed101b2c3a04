"""One line per request, as text or as JSON. It never contains a text, a query string, a header or a key."""

import datetime
import logging

import orjson

from minilm_np._checks import printable
from minilm_np.server.exchange import Exchange

_logger = logging.getLogger("minilm_np.server")

PATH = 80  # characters of a path that are logged


def log_request(exchange: Exchange, seconds: float, log_format: str) -> None:
    """Log a request that is over, with the level INFO. log_format: "text", "json" or "none"."""
    if log_format == "none" or not _logger.isEnabledFor(logging.INFO):
        return
    scope = exchange.scope
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    client = scope["client"][0] if scope.get("client") else "-"
    path = printable(scope["path"][:PATH]).replace(" ", "%20")
    if log_format == "json":
        fields = {
            "time": now, "client": client, "method": scope["method"], "path": path, "status": exchange.status,
            "ms": round(1000 * seconds, 2), "texts": exchange.n_texts, "tokens": exchange.n_tokens,
            "error": exchange.failure or None,
        }  # fmt: skip
        _logger.info("%s", orjson.dumps(fields).decode())
    else:
        _logger.info(
            "%s %s %s %s %d %.1f ms, texts %d, tokens %d%s", now, client, scope["method"], path, exchange.status,
            1000 * seconds, exchange.n_texts, exchange.n_tokens, f", {exchange.failure}" if exchange.failure else "",
        )  # fmt: skip

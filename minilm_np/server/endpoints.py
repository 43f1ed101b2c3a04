"""What each path does. A handler reads one request and sends its response; `Endpoint` does the rest."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import orjson
from starlette.types import Receive, Scope, Send

import minilm_np
from minilm_np.server import openapi, requests, responses, tokens
from minilm_np.server.exchange import Exchange
from minilm_np.server.failures import ClientGoneError, RequestError, Why
from minilm_np.server.service import Service

_logger = logging.getLogger("minilm_np.server")

Handler = Callable[[Service, Exchange], Awaitable[None]]


class Endpoint:
    """An ASGI application for one path: checks the key, turns errors into JSON, counts and logs.

    api: "openai" or "tei", whose errors it sends. is_open: needs no key.
    """

    def __init__(self, service: Service, path: str, api: str, handler: Handler, *, is_open: bool = False) -> None:
        self._service, self._path, self._api, self._handler = service, path, api, handler
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        service = self._service
        exchange = Exchange(scope, receive, send, service.settings, service.bodies)
        try:
            if not self._is_open:
                service.check_key(exchange)
            await self._handler(service, exchange)
        except RequestError as error:
            await exchange.refuse(error, self._api)
        except ClientGoneError:
            exchange.status = 499  # nginx's number
        except asyncio.CancelledError:  # the server ends, and waits for the response no longer
            exchange.status = 499
            raise
        except Exception:
            _logger.exception("a request to %s failed", self._path)
            if exchange.is_started:
                raise
            await exchange.refuse(RequestError(Why.FAILED, "the server failed: see its log for the cause"), self._api)
        finally:
            exchange.close()
            service.record(exchange, self._path)


# ---- OpenAI ----------------------------------------------------------------------------------------------------------


async def embeddings(service: Service, exchange: Exchange) -> None:
    """POST /v1/embeddings."""
    request = requests.read_embeddings(await exchange.body(), service.settings)
    service.check_model(request.model)
    vectors = await service.encode(
        exchange, request.inputs, prompt_name=request.prompt_name, truncate=request.truncate,
        dimensions=request.dimensions,
    )  # fmt: skip
    parts = responses.openai_parts(vectors, service.name, exchange.n_tokens, as_base64=request.base64)
    await _respond(exchange, len(vectors), parts)


async def models(service: Service, exchange: Exchange) -> None:
    """GET /v1/models."""
    await exchange.respond(orjson.dumps({"object": "list", "data": [_model(service)]}))


async def model(service: Service, exchange: Exchange) -> None:
    """GET /v1/models/NAME."""
    service.check_model(exchange.scope["path_params"]["name"])
    await exchange.respond(orjson.dumps(_model(service)))


def _model(service: Service) -> dict[str, object]:
    return {"id": service.name, "object": "model", "created": service.started, "owned_by": "minilm-np"}


# ---- text-embeddings-inference ---------------------------------------------------------------------------------------


async def embed(service: Service, exchange: Exchange) -> None:
    """POST /embed."""
    request = requests.read_embed(await exchange.body(), service.settings)
    vectors = await service.encode(
        exchange, request.inputs, prompt_name=request.prompt_name, truncate=request.truncate,
        normalize=request.normalize, dimensions=request.dimensions,
    )  # fmt: skip
    await _respond(exchange, len(vectors), responses.tei_parts(vectors))


async def similarity(service: Service, exchange: Exchange) -> None:
    """POST /similarity."""
    request = requests.read_similarity(await exchange.body(), service.settings)
    vectors = await service.encode(exchange, request.inputs, prompt_name=request.prompt_name, truncate=request.truncate)
    await exchange.respond(responses.cosines(vectors))


async def tokenize(service: Service, exchange: Exchange) -> None:
    """POST /tokenize."""
    request = requests.read_tokenize(await exchange.body(), service.settings)
    prefix = tokens.prefix_of(service.model, request.prompt_name)
    exchange.n_texts = len(request.inputs)
    content = await service.in_turn(request.inputs, lambda: tokens.described(service.model, request, prefix))
    await exchange.respond(content)


async def info(service: Service, exchange: Exchange) -> None:
    """GET /info."""
    model, settings = service.model, service.settings
    await exchange.respond(
        orjson.dumps(
            {
                "model_id": service.name,
                "model_sha": None,
                "model_dtype": model.kind.compute_type,
                "model_type": {"embedding": {"pooling": model.config.pooling_mode}},
                "max_concurrent_requests": settings.max_connections,
                "max_input_length": model.config.max_seq_length,
                "max_batch_tokens": settings.batch_tokens,
                "max_batch_requests": None,
                "max_client_batch_size": settings.max_texts,
                "auto_truncate": settings.truncate,
                "tokenization_workers": 1,
                "version": minilm_np.__version__,
                "sha": None,
                "docker_label": None,
            }
        )
    )


async def health(service: Service, exchange: Exchange) -> None:
    """GET /health."""
    if not service.engine.is_running:
        raise RequestError(Why.CLOSING, "the server is shutting down", retry_after=5)
    await exchange.respond(b'{"status":"ok"}')


async def metrics(service: Service, exchange: Exchange) -> None:
    """GET /metrics."""
    await exchange.respond(service.metrics.text(), kind=b"text/plain; version=0.0.4; charset=utf-8")


async def document(service: Service, exchange: Exchange) -> None:
    """GET /openapi.json."""
    await exchange.respond(orjson.dumps(openapi.document(service.settings, service.name, service.model)))


async def _respond(exchange: Exchange, n_vectors: int, parts: Iterator[bytes]) -> None:
    if n_vectors <= responses.PART:
        await exchange.respond(b"".join(parts))
    else:
        await exchange.respond_in_parts(parts)

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
            if exchange.is_started:
                exchange.status = 499
                raise
            closing = RequestError(Why.CLOSING, "the server is shutting down: try again later", retry_after=5)
            await exchange.refuse(closing, self._api)
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
    served = service.encoder()
    served.check_name(request.model)
    vectors = await service.encode(
        exchange, request.inputs, prompt_name=request.prompt_name, truncate=request.truncate,
        dimensions=request.dimensions,
    )  # fmt: skip
    parts = responses.openai_parts(vectors, served.name, exchange.n_tokens, as_base64=request.base64)
    await _respond(exchange, len(vectors), parts)


async def models(service: Service, exchange: Exchange) -> None:
    """GET /v1/models."""
    data = [_model(service, served.name) for served in service.served]
    await exchange.respond(orjson.dumps({"object": "list", "data": data}))


async def model(service: Service, exchange: Exchange) -> None:
    """GET /v1/models/NAME."""
    name = exchange.scope["path_params"]["name"]
    served = next((one for one in service.served if one.has_name(name)), service.served[0])
    served.check_name(name)
    await exchange.respond(orjson.dumps(_model(service, served.name)))


def _model(service: Service, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": "minilm-np"}


# ---- Cohere and Jina -------------------------------------------------------------------------------------------------


async def v1_rerank(service: Service, exchange: Exchange) -> None:
    """POST /v1/rerank and /v2/rerank."""
    request = requests.read_v1_rerank(await exchange.body(), service.settings)
    served = service.reranker()
    served.check_name(request.model)
    logits = await service.score(exchange, request)
    texts = request.inputs.texts if request.returns_texts else None
    await exchange.respond(responses.v1_ranks(logits, texts, request.top, served.name, exchange.n_tokens))


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
    model = service.tokenizing_model
    prefix = tokens.prefix_of(model, request.prompt_name)
    exchange.n_texts = len(request.inputs)
    content = await service.in_turn(request.inputs.texts, lambda: tokens.described(model, request, prefix))
    await exchange.respond(content)


async def rerank(service: Service, exchange: Exchange) -> None:
    """POST /rerank."""
    request = requests.read_rerank(await exchange.body(), service.settings)
    logits = await service.score(exchange, request)
    texts = request.inputs.texts if request.returns_texts else None
    await exchange.respond(responses.tei_ranks(logits, texts, raw_scores=request.raw_scores))


async def info(service: Service, exchange: Exchange) -> None:
    """GET /info."""
    model, settings = service.tokenizing_model, service.settings
    await exchange.respond(
        orjson.dumps(
            {
                "model_id": service.served[0].name,
                "model_sha": None,
                "model_dtype": model.kind.compute_type,
                "model_type": _model_type(service),
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
                "reranker_id": None if service.scores is None else service.scores.name,
            }
        )
    )


def _model_type(service: Service) -> dict[str, object]:
    """The type of the first model, in the words of text-embeddings-inference."""
    if service.vectors is not None:
        return {"embedding": {"pooling": service.vectors.model.config.pooling_mode}}
    labels = service.reranker().model.head.labels
    return {
        "reranker": {
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
        }
    }


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
    await exchange.respond(orjson.dumps(openapi.document(service)))


async def _respond(exchange: Exchange, n_vectors: int, parts: Iterator[bytes]) -> None:
    if n_vectors <= responses.PART:
        await exchange.respond(b"".join(parts))
    else:
        await exchange.respond_in_parts(parts)

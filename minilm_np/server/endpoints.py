"""What each path does. A handler reads one request and sends its response; `Endpoint` does the rest."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import orjson
from starlette.types import Receive, Scope, Send

import minilm_np
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.engine.protocol import Vectors
from minilm_np.server import openapi, requests, responses, tokens
from minilm_np.server.engine_threads import EngineThreads, Job
from minilm_np.server.exchange import Bodies, Exchange
from minilm_np.server.failures import ClientGoneError, RequestError, Why
from minilm_np.server.logs import log_request
from minilm_np.server.metrics import Metrics
from minilm_np.server.settings import ServerSettings

# Characters of a request that the event loop tokenizes at once, in a millisecond. More are tokenized in another thread,
# which takes a tenth of a millisecond to start, so that short requests do not wait.
AT_ONCE = 4000

T = TypeVar("T")

_logger = logging.getLogger("minilm_np.server")


class Service:
    """What the endpoints of one application share."""

    def __init__(self, model: LoadedModel, settings: ServerSettings) -> None:
        self.model, self.settings = model, settings
        self.name = settings.served_model_name or _name_of(model)
        self.names = (self.name, self.name.rpartition("/")[2])  # a request may leave the organisation out
        self.started = int(time.time())
        self.bodies = Bodies(settings.max_bodies_bytes)
        self.metrics = Metrics()
        self.engine = EngineThreads(model, settings.batch_tokens, settings.max_queue_tokens, self.metrics.count_batch)
        self.metrics.watch("minilm_np_queue_tokens", "Tokens that wait.", lambda: self.engine.n_waiting_tokens)
        self.metrics.watch("minilm_np_queue_requests", "Requests that wait.", lambda: self.engine.n_waiting_requests)
        self._tokenizing = ThreadPoolExecutor(1, "minilm-np-tokenizer")
        self._key = settings.api_key.encode()

    def check_key(self, exchange: Exchange) -> None:
        """Raise RequestError unless the request has the API key, if there is one. Takes the same time for any key."""
        if not self._key:
            return
        scheme, _, key = exchange.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            raise RequestError(
                Why.NO_KEY,
                "the API key is missing or wrong: send it in the header Authorization: Bearer KEY",
                ends=True,
            )

    def check_model(self, name: str | None) -> None:
        """Raise RequestError unless this is the name of the model, or no name."""
        if name is not None and name not in self.names:
            raise RequestError(
                Why.NO_MODEL, f"model: expected {self.name!r}, found {name[:200]!r}: see GET /v1/models", "model"
            )

    def record(self, exchange: Exchange, path: str) -> None:
        """Count and log a request that is over."""
        seconds = time.perf_counter() - exchange.started
        self.metrics.count_request(path, exchange.status, seconds)
        log_request(exchange, seconds, self.settings.log_format)

    async def encode(
        self,
        exchange: Exchange,
        inputs: requests.Inputs,
        *,
        prompt_name: str | None,
        truncate: bool,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Vectors:  # (n, d)
        """Return the vectors of a request, when the engine has computed them. Raises RequestError, ClientGoneError."""
        D = self.model.config.hidden_size
        if dimensions is not None and dimensions > D:
            raise RequestError(
                Why.INVALID, f"dimensions: expected an integer from 1 to {D}, found {dimensions}", "dimensions"
            )
        prefix = tokens.prefix_of(self.model, prompt_name)
        ids = await self.in_turn(inputs, lambda: tokens.token_ids(self.model, inputs, prefix, truncate))
        exchange.n_texts, exchange.n_tokens = len(ids), sum(map(len, ids))
        job = Job(ids, normalize, self.model.settings.dimension(D, dimensions), D)
        self.engine.submit(job)
        exchange.watch().add_done_callback(lambda _: self.engine.drop(job, ClientGoneError()))
        timer = asyncio.get_running_loop().call_later(self.settings.queue_timeout, self._give_up, job)
        try:
            return await job.done
        finally:
            timer.cancel()
            if not job.done.done():  # this task is cancelled
                self.engine.drop(job, ClientGoneError())

    async def in_turn(self, inputs: requests.Inputs, tokenize: Callable[[], T]) -> T:
        """Return the result of a function that tokenizes these inputs; many characters in another thread."""
        if sum(map(len, inputs.texts or inputs.ids)) <= AT_ONCE:
            return tokenize()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, tokenize)

    def _give_up(self, job: Job) -> None:
        seconds = self.settings.queue_timeout
        self.engine.drop(
            job,
            RequestError(
                Why.LATE, f"the vectors were not computed within {seconds:g} seconds: try again later", retry_after=5
            ),
        )


def _name_of(model: LoadedModel) -> str:
    """The name of a model on the Hub, or of its folder without the path."""
    if model.origin is None:
        return model.name
    return model.origin.name or model.origin.path.resolve().name


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
        except (ClientGoneError, asyncio.CancelledError) as error:
            exchange.status = 499  # nginx's number
            if isinstance(error, asyncio.CancelledError):  # the server does not wait for the response any longer
                raise
        except Exception:
            _logger.exception("a request to %s failed", self._path)
            if exchange.is_started:
                raise
            await exchange.refuse(RequestError(Why.FAILED, "the server failed: its log says why"), self._api)
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

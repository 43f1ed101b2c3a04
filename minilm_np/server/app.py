"""`create_app`: the server as an ASGI application, for uvicorn, gunicorn or a test.

    gunicorn --preload --worker-class uvicorn.workers.UvicornWorker 'minilm_np.server.app:create_app()'

reads the settings from the environment: see `ServerSettings.from_environment`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from minilm_np.errors import InputValueError, MissingExtraError
from minilm_np.model_files.kinds import is_cross_encoder
from minilm_np.server import INSTALL

try:
    import orjson
    import prometheus_client  # noqa: F401
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send
except ModuleNotFoundError as error:
    raise MissingExtraError(f"{error.name} is not installed, but the server needs it: {INSTALL}") from error

from minilm_np.cross_encoder import CrossEncoder
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.server import endpoints
from minilm_np.server.endpoints import Endpoint
from minilm_np.server.exchange import Exchange
from minilm_np.server.failures import RequestError, Why
from minilm_np.server.service import Service
from minilm_np.server.settings import ServerSettings


def create_app(
    settings: ServerSettings | None = None,
    encoder: SentenceEncoder | None = None,
    reranker: CrossEncoder | None = None,
) -> Starlette:
    """Return the application. It loads the models at once, and starts its threads with the ASGI server.

    settings: None: those of the environment. encoder, reranker: the models to use; if both are None, they are loaded as
    the settings say.
    Raises as `SentenceEncoder`, `CrossEncoder` and `ServerSettings.from_environment`; InputValueError: the reranker has
    several labels.
    """
    settings = ServerSettings.from_environment() if settings is None else settings
    if encoder is None and reranker is None:
        encoder, reranker = _loaded(settings)
    if reranker is not None:
        reranker.model.require_one_label()
        reranker.predict(("a", "a"))  # the first calls are slower than the others
    if encoder is not None:
        encoder.encode("a")
    service = Service(
        settings, None if encoder is None else encoder.model, None if reranker is None else reranker.model
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.engine.start()
        try:
            yield
        finally:
            await service.engine.close()

    async def refuse(request: Request, error: Exception) -> Response:
        """The answer to a path or a method that does not exist."""
        assert isinstance(error, HTTPException)
        return _refused(service, request, error)

    return _Application(routes=_routes(service), lifespan=lifespan, exception_handlers={HTTPException: refuse})


def _loaded(settings: ServerSettings) -> tuple[SentenceEncoder | None, CrossEncoder | None]:
    """Load the model for vectors and the reranker; a cross-encoder as the only model is the reranker."""
    options: dict[str, Any] = {
        "backend": settings.backend,
        "compute_type": settings.compute_type,
        "threads": settings.threads,
        "local_files_only": settings.offline,
    }
    if not is_cross_encoder(settings.model):
        reranker = CrossEncoder(settings.reranker, **options) if settings.reranker else None
        return SentenceEncoder(settings.model, **options), reranker
    if settings.reranker:
        raise InputValueError(
            f"model: expected a model for vectors beside the reranker {settings.reranker}, found the cross-encoder "
            f"{settings.model}: leave out the reranker, or choose another model"
        )
    return None, CrossEncoder(settings.model, **options)


class _Application(Starlette):
    """Starlette, with a direct way from a path and a method to their endpoint.

    Starlette's router and its two layers of error handling take 0.05 ms of CPU time per request, a sixth of all that
    the server adds to the engine's. An `Endpoint` handles its errors itself, so a client sees no difference.
    """

    def __init__(self, *, routes: list[Route], **options: Any) -> None:
        super().__init__(routes=routes, **options)
        fixed = [route for route in routes if "{" not in route.path]
        self._endpoints = {(method, route.path): route.app for route in fixed for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Middleware, and an application at a path of another one, are left to Starlette."""
        is_direct = scope["type"] == "http" and not self.user_middleware and not scope.get("root_path")
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if is_direct else None
        await (super().__call__ if endpoint is None else endpoint)(scope, receive, send)


def _routes(service: Service) -> list[Route]:
    def route(method: str, path: str, api: str, handler: endpoints.Handler, *, is_open: bool = False) -> Route:
        return Route(path, Endpoint(service, path, api, handler, is_open=is_open), methods=[method])

    return [  # the first that matches is used, so the frequent ones are first
        route("POST", "/v1/embeddings", "openai", endpoints.embeddings),
        route("POST", "/embed", "tei", endpoints.embed),
        route("POST", "/similarity", "tei", endpoints.similarity),
        route("POST", "/rerank", "tei", endpoints.rerank),
        route("POST", "/v1/rerank", "openai", endpoints.v1_rerank),
        route("POST", "/v2/rerank", "openai", endpoints.v1_rerank),  # of newer clients of Cohere
        route("POST", "/tokenize", "tei", endpoints.tokenize),
        route("GET", "/health", "tei", endpoints.health, is_open=True),
        route("GET", "/metrics", "tei", endpoints.metrics),
        route("GET", "/info", "tei", endpoints.info),
        route("GET", "/v1/models", "openai", endpoints.models),
        route("GET", "/v1/models/{name:path}", "openai", endpoints.model),
        route("GET", "/openapi.json", "tei", endpoints.document),
    ]


def _refused(service: Service, request: Request, error: HTTPException) -> Response:
    """JSON for a path or a method that does not exist, in the words of the API that the path begins like."""
    why, what = Why.NO_PATH, "the path does not exist: see GET /openapi.json"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        why, what = Why.NO_METHOD, f"the method {request.method[:20]} is not allowed here: use {allowed}"
    status, answer = RequestError(why, what).answer("openai" if request.url.path.startswith(("/v1", "/v2")) else "tei")

    async def unused(*_: object) -> None:
        raise NotImplementedError

    exchange = Exchange(request.scope, request.receive, unused, service.settings, service.bodies)
    exchange.status, exchange.failure = status, why.value.openai_code or ""
    service.record(exchange, "other")
    return Response(orjson.dumps(answer), status, error.headers, "application/json")

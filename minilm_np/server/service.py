"""`Service`: what the endpoints of one application share, and the way from a request to its vectors or scores."""

import asyncio
import hmac
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.pair_model import PairModel
from minilm_np.encoding.prompts import pooling_start
from minilm_np.engine.protocol import Vectors
from minilm_np.server import requests, tokens
from minilm_np.server.batches import Engines, Job
from minilm_np.server.engine_threads import EngineThreads
from minilm_np.server.exchange import Bodies, Exchange
from minilm_np.server.failures import ClientGoneError, RequestError, Why
from minilm_np.server.logs import log_request
from minilm_np.server.metrics import Metrics
from minilm_np.server.settings import ServerSettings

# Characters of a request that the event loop tokenizes at once, in a millisecond; a text counts as TEXT more. A larger
# request is tokenized in another thread, which takes a tenth of a millisecond to start, so that others do not wait.
AT_ONCE, TEXT = 4000, 32

T = TypeVar("T")
M = TypeVar("M")  # LoadedModel or PairModel


class Served(Generic[M]):
    """A model with its name for clients and its engines."""

    def __init__(self, model: M, name: str, engines: Engines) -> None:
        self.model, self.name, self.engines = model, name, engines

    def check_name(self, name: str | None) -> None:
        """Raise RequestError unless this is the name of the model, or no name."""
        if name is not None and not self.has_name(name):
            raise RequestError(
                Why.NO_MODEL, f"model: expected {self.name!r}, found {name[:200]!r}: see GET /v1/models", "model"
            )

    def has_name(self, name: str) -> bool:
        """Whether a client means this model. It may leave the organisation out."""
        return name in (self.name, self.name.rpartition("/")[2])


class Service:
    """What the endpoints of one application share.

    encoder: the model for vectors. reranker: the cross-encoder for scores, which has one label. At most one is None.
    """

    def __init__(self, settings: ServerSettings, encoder: LoadedModel | None, reranker: PairModel | None) -> None:
        self.settings = settings
        self.vectors: Served[LoadedModel] | None = None
        self.scores: Served[PairModel] | None = None
        name = settings.served_model_name
        if encoder is not None:
            self.vectors = Served(encoder, name or _name_of(encoder), Engines(encoder))
            name = ""  # it is that of the first model
        if reranker is not None:
            engines = Engines(reranker.encoder, reranker.classifier)
            self.scores = Served(reranker, name or _name_of(reranker.encoder), engines)
        self.started = int(time.time())
        self.bodies = Bodies(settings.max_bodies_bytes)
        self.metrics = Metrics()
        self.engine = EngineThreads(
            [served.engines for served in self.served],
            settings.batch_tokens,
            settings.max_queue_tokens,
            self.metrics.count_batch,
        )
        self.metrics.watch("minilm_np_queue_tokens", "Tokens that wait.", lambda: self.engine.n_waiting_tokens)
        self.metrics.watch("minilm_np_queue_requests", "Requests that wait.", lambda: self.engine.n_waiting_requests)
        self._tokenizing = ThreadPoolExecutor(1, "minilm-np-tokenizer")
        self._key = settings.api_key.encode("utf-8", "surrogateescape")  # the bytes of the environment

    @property
    def served(self) -> list[Served[LoadedModel] | Served[PairModel]]:
        """The models, the one for vectors first."""
        return [one for one in (self.vectors, self.scores) if one is not None]

    @property
    def tokenizing_model(self) -> LoadedModel:
        """The first model, or its encoder: its tokenizer and its limit are those of /tokenize and /info."""
        model = self.served[0].model
        return model.encoder if isinstance(model, PairModel) else model

    def encoder(self) -> Served[LoadedModel]:
        """Return the model for vectors. Raises RequestError if there is none."""
        if self.vectors is None:
            raise RequestError(Why.NOT_LOADED, "the model is not an embedding model; it scores texts: use POST /rerank")
        return self.vectors

    def reranker(self) -> Served[PairModel]:
        """Return the cross-encoder. Raises RequestError if there is none."""
        if self.scores is None:
            raise RequestError(
                Why.NOT_LOADED, "the model is not a re-ranker model: start the server with --reranker MODEL"
            )
        return self.scores

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
        served = self.encoder()
        model = served.model
        D = model.config.vector_size
        if dimensions is not None and dimensions > D:
            raise RequestError(
                Why.INVALID, f"dimensions: expected an integer from 1 to {D}, found {dimensions}", "dimensions"
            )
        prefix = tokens.prefix_of(model, prompt_name)
        start = 0 if inputs.ids else pooling_start(model, prefix)
        ids = await self.in_turn(inputs.texts or inputs.ids, lambda: tokens.token_ids(model, inputs, prefix, truncate))
        inputs.ids.clear()  # up to 80 MB, which nothing reads while the request waits
        d = model.settings.dimension(D, dimensions)
        job = Job(served.engines, ids, d, normalize=normalize, whole=d == D, start=start)
        return await self._computed(exchange, job)

    async def score(self, exchange: Exchange, request: requests.RerankRequest) -> Vectors:  # (n, 1)
        """Return the logits of the query with each text, as `encode` returns vectors."""
        served = self.reranker()
        pairs = await self.in_turn(
            [request.query, *request.inputs.texts], lambda: tokens.pair_ids(served.model, request)
        )
        return await self._computed(exchange, Job(served.engines, pairs.ids, 1, types=pairs.token_type_ids))

    async def _computed(self, exchange: Exchange, job: Job) -> Vectors:
        """Return the results of a job. Raises RequestError, ClientGoneError."""
        exchange.n_texts, exchange.n_tokens = len(job.ids), sum(map(len, job.ids))
        self.engine.submit(job)
        exchange.watch().add_done_callback(lambda _: self.engine.drop(job, ClientGoneError()))
        timer = asyncio.get_running_loop().call_later(self.settings.queue_timeout, self._give_up, job)
        try:
            return await job.done
        finally:
            timer.cancel()
            if not job.done.done():  # this task is cancelled
                self.engine.drop(job, ClientGoneError())

    async def in_turn(self, texts: Sequence[str] | Sequence[Sequence[int]], tokenize: Callable[[], T]) -> T:
        """Return the result of a function that tokenizes these texts; of many characters, in another thread."""
        if TEXT * len(texts) + sum(map(len, texts)) <= AT_ONCE:
            return tokenize()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, tokenize)

    def _give_up(self, job: Job) -> None:
        seconds = self.settings.queue_timeout
        self.engine.drop(
            job,
            RequestError(
                Why.LATE, f"the results were not computed within {seconds:g} seconds: try again later", retry_after=5
            ),
        )


def _name_of(model: LoadedModel) -> str:
    """The name of a model on the Hub, or of its folder without the path."""
    if model.origin is None:
        return model.name
    return model.origin.name or model.origin.path.resolve().name

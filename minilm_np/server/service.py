"""`Service`: what the endpoints of one application share, and the way from a request to its vectors."""

import asyncio
import hmac
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.prompts import pooling_start
from minilm_np.engine.protocol import Vectors
from minilm_np.server import requests, tokens
from minilm_np.server.engine_threads import EngineThreads, Job
from minilm_np.server.exchange import Bodies, Exchange
from minilm_np.server.failures import ClientGoneError, RequestError, Why
from minilm_np.server.logs import log_request
from minilm_np.server.metrics import Metrics
from minilm_np.server.settings import ServerSettings

# Characters of a request that the event loop tokenizes at once, in a millisecond; a text counts as TEXT more. A larger
# request is tokenized in another thread, which takes a tenth of a millisecond to start, so that others do not wait.
AT_ONCE, TEXT = 4000, 32

T = TypeVar("T")


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
        self._key = settings.api_key.encode("utf-8", "surrogateescape")  # the bytes of the environment

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
        D = self.model.config.vector_size
        if dimensions is not None and dimensions > D:
            raise RequestError(
                Why.INVALID, f"dimensions: expected an integer from 1 to {D}, found {dimensions}", "dimensions"
            )
        prefix = tokens.prefix_of(self.model, prompt_name)
        ids = await self.in_turn(inputs, lambda: tokens.token_ids(self.model, inputs, prefix, truncate))
        exchange.n_texts, exchange.n_tokens = len(ids), sum(map(len, ids))
        start = 0 if inputs.ids else pooling_start(self.model, prefix)
        job = Job(ids, normalize, self.model.settings.dimension(D, dimensions), D, start)
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
        if TEXT * len(inputs) + sum(map(len, inputs.texts or inputs.ids)) <= AT_ONCE:
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

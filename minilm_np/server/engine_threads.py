"""The threads that encode what waits, one batch after the other.

They wait for no timer: an idle thread takes a request at once, and what arrives while all compute forms the next batch.
Each thread encodes its batch alone, so no thread waits for another one at the end of each stage: with 64 clients on 2
busy cores, that takes 17% less CPU time per request. Only if nothing else is computed or waits, all threads share the
batch, because it is finished sooner then.

The bits of a vector depend neither on its batch nor on the number of threads: the engines guarantee that.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from minilm_np.encoding import prompts
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.engine.doubles import unit_length
from minilm_np.engine.protocol import Engine, Packed, PackingEngine, Vectors
from minilm_np.server.failures import RequestError, Why
from minilm_np.server.fair_queue import FairQueue, Piece

FIRST_RATE = 5000.0  # tokens per second, until it is measured
SMOOTHING = 0.2  # weight of the last batch in the measured rate

Observe = Callable[[int, int, float], object]  # called with the texts, the tokens and the seconds of each batch

_logger = logging.getLogger("minilm_np.server")


class Job:
    """The texts of one request, and its vectors. ids, taken, credit: as `fair_queue.Work` has them.

    normalize, dimension: as for `SentenceEncoder.encode`; dimension is the length of a vector. start: the first token
    that is pooled.
    """

    __slots__ = ("credit", "dimension", "done", "ids", "left", "normalize", "start", "taken", "vectors", "whole")

    def __init__(
        self, ids: Sequence[Sequence[int]], normalize: bool, dimension: int, vector_size: int, start: int = 0
    ) -> None:
        self.ids = ids
        self.start = start
        self.taken = self.credit = 0
        self.left = len(ids)  # texts without a vector
        self.dimension = dimension
        self.normalize = normalize
        self.whole = dimension == vector_size
        self.vectors: Vectors = np.empty((len(ids), dimension), np.float32)
        self.done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()


class EngineThreads:
    """The threads that encode, the queue before them, and the limit of the queue.

    max_queue_tokens: more than this may wait only as a single request.
    """

    def __init__(self, model: LoadedModel, batch_tokens: int, max_queue_tokens: int, observe: Observe) -> None:
        self._together, self._alone = model.engine, _on_one_thread(model)
        self._pooling_mode = model.config.pooling_mode
        self._queue: FairQueue[Job] = FairQueue(batch_tokens)
        self._most = max_queue_tokens
        self._observe = observe
        self._rate = FIRST_RATE
        self._changed = threading.Condition(threading.Lock())  # guards the queue and the numbers below
        self._n_busy = self._n_idle = 0  # threads
        self._is_closing = False
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---- called by the event loop --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads. Their results go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._is_closing = False
        number = 1 if self._alone is None else self._together.threads or 1
        self._threads = [
            threading.Thread(target=self._run, args=[self._loop], name=f"minilm-np-engine-{n}", daemon=True)
            for n in range(number)
        ]
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        """End the threads after what waits is encoded."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def is_running(self) -> bool:
        """Whether requests are accepted."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads) and not self._is_closing

    @property
    def n_waiting_tokens(self) -> int:
        """The tokens in the queue."""
        return self._queue.n_tokens

    @property
    def n_waiting_requests(self) -> int:
        """The requests in the queue."""
        return len(self._queue)

    def submit(self, job: Job) -> None:
        """Append a request. Its vectors become the result of `job.done`.

        Raises RequestError: the queue is full, or the server is shutting down.
        """
        n_tokens = sum(map(len, job.ids))
        with self._changed:
            waiting = self._queue.n_tokens
            if self._is_closing or not self._threads:
                raise RequestError(Why.CLOSING, "the server is shutting down: try again later", retry_after=5)
            if waiting and waiting + n_tokens > self._most:
                seconds = max(1, math.ceil(waiting / self._rate))
                raise RequestError(
                    Why.OVERLOADED,
                    f"the server is overloaded: {waiting:,} tokens of other requests wait, and {self._most:,} are the "
                    f"limit: try again in {seconds} second{'s' * (seconds > 1)}",
                    retry_after=seconds,
                )
            self._queue.add(job)
            if self._n_idle:
                self._changed.notify()

    def drop(self, job: Job, reason: Exception) -> None:
        """Drop the texts of a request that still wait. `job.done` raises the reason, unless it is done."""
        with self._changed:
            self._queue.remove(job)
        if not job.done.done():
            job.done.set_exception(reason)

    # ---- the threads ---------------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while taken := self._next():
            batch, engine = taken
            failure: Exception | None = None
            started = time.perf_counter()
            try:
                _encode(engine, batch, self._pooling_mode)
            except Exception as error:
                _logger.exception("the engine failed on a batch")
                failure = error
            with self._changed:
                self._n_busy -= 1
            loop.call_soon_threadsafe(self._deliver, batch, failure, time.perf_counter() - started)

    def _next(self) -> tuple[list[Piece[Job]], Engine] | None:
        """The next batch and the engine for it; None if there will be no batch."""
        with self._changed:
            while not len(self._queue):
                if self._is_closing:
                    return None
                self._n_idle += 1
                self._changed.wait()
                self._n_idle -= 1
            batch = self._queue.take()
            self._n_busy += 1
            is_alone = self._n_busy == 1 and not len(self._queue)
            return batch, self._together if is_alone or self._alone is None else self._alone

    def _deliver(self, batch: list[Piece[Job]], failure: Exception | None, seconds: float) -> None:
        """Give finished requests their vectors. Runs in the event loop."""
        n_texts = sum(len(texts) for _, texts in batch)
        n_tokens = sum(len(job.ids[text]) for job, texts in batch for text in texts)
        self._rate += SMOOTHING * (len(self._threads) * n_tokens / max(seconds, 1e-9) - self._rate)
        self._observe(n_texts, n_tokens, seconds)
        for job, texts in batch:
            job.left -= len(texts)
            if failure is not None:
                self.drop(
                    job, RequestError(Why.FAILED, "the server failed to encode this text: see its log for the cause")
                )
            elif not job.left and not job.done.done():
                if np.isfinite(job.vectors).all():
                    job.done.set_result(job.vectors)
                else:
                    message = "a vector is not finite: the weights of the model overflow on a text"
                    self.drop(job, RequestError(Why.FAILED, message))


def _on_one_thread(model: LoadedModel) -> Engine | None:
    """An engine with the same weights, in the same memory, that uses the calling thread only; None if there is none."""
    engine = model.engine
    if engine.threads in (None, 1) or not isinstance(engine, PackingEngine):
        return None
    return model.kind.make(model.config, Packed(engine.packed), 1)


def _encode(engine: Engine, batch: list[Piece[Job]], pooling_mode: str) -> None:
    """Compute the vectors of a batch."""
    alike: dict[tuple[bool, int], list[Piece[Job]]] = {}  # whether the engine normalizes, and the first pooled token
    for piece in batch:
        alike.setdefault((piece.work.normalize and piece.work.whole, piece.work.start), []).append(piece)
    for (engine_normalizes, first), pieces in alike.items():
        ids = [one.work.ids[text] for one in pieces for text in one.texts]
        vectors = prompts.encode(
            engine, ids, first, pooling_mode, normalize=engine_normalizes, report=lambda done: None
        )
        start = 0
        for job, texts in pieces:
            rows = vectors[start : start + len(texts), : job.dimension]
            job.vectors[texts.start : texts.stop] = unit_length(rows) if job.normalize and not job.whole else rows
            start += len(texts)

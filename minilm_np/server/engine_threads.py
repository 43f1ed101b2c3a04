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

from minilm_np.server.batches import Engines, Job, compute
from minilm_np.server.failures import RequestError, Why
from minilm_np.server.fair_queue import FairQueue, Piece

FIRST_RATE = 5000.0  # tokens per second, until it is measured
SMOOTHING = 0.2  # weight of the last batch in the measured rate

Observe = Callable[[int, int, float], object]  # called with the texts, the tokens and the seconds of each batch

_logger = logging.getLogger("minilm_np.server")


class EngineThreads:
    """The threads that encode for all models, the queue before them, and the limit of the queue.

    max_queue_tokens: more than this may wait only as a single request.
    """

    def __init__(self, engines: Sequence[Engines], batch_tokens: int, max_queue_tokens: int, observe: Observe) -> None:
        self._n_threads = min(one.n_threads for one in engines)
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
        self._threads = [
            threading.Thread(target=self._run, args=[self._loop], name=f"minilm-np-engine-{n}", daemon=True)
            for n in range(self._n_threads)
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
        """Append a request. What is computed becomes the result of `job.done`.

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
            batch, is_alone = taken
            failure: Exception | None = None
            started = time.perf_counter()
            try:
                compute(batch, is_alone=is_alone)
            except Exception as error:
                _logger.exception("the engine failed on a batch")
                failure = error
            with self._changed:
                self._n_busy -= 1
            loop.call_soon_threadsafe(self._deliver, batch, failure, time.perf_counter() - started)

    def _next(self) -> tuple[list[Piece[Job]], bool] | None:
        """The next batch, and whether nothing else is computed or waits; None if there will be no batch."""
        with self._changed:
            while not len(self._queue):
                if self._is_closing:
                    return None
                self._n_idle += 1
                self._changed.wait()
                self._n_idle -= 1
            batch = self._queue.take()
            self._n_busy += 1
            return batch, self._n_busy == 1 and not len(self._queue)

    def _deliver(self, batch: list[Piece[Job]], failure: Exception | None, seconds: float) -> None:
        """Give finished requests their results. Runs in the event loop."""
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
                if np.isfinite(job.results).all():
                    job.done.set_result(job.results)
                else:
                    message = "a result is not finite: the weights of the model overflow on a text"
                    self.drop(job, RequestError(Why.FAILED, message))

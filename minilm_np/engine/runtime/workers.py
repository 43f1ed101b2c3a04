"""Helper threads. A caller never waits for a helper that has not started.

The caller runs `work` and offers it to the helpers at the same time. So `work` must be a function that several threads
may run at once, and that divides the work among them. When the caller's own run of `work` has ended, it withdraws the
offers that no helper took, and waits only for the helpers that are inside `work`. A busy machine makes this slower, but
nothing waits for a thread that was never scheduled. Callers in many threads share the helpers.

The helpers belong to the process. They are started when they are first needed, and again after a fork. While the
interpreter shuts down, the caller works alone: no thread can be started, and those that exist never run again.

Linux tends to wake a thread on the processor on which it ran last, even if the caller is running there and other
processors are idle, and a call of milliseconds is over before the thread is moved. Then one text takes as long on two
threads as on one, call after call. So a helper that last ran on its caller's processor is bound to the other ones until
it runs.
"""

import ctypes
import functools
import logging
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from minilm_np._checks import check_optional_int

logger = logging.getLogger(__name__)

MAX_THREADS = 1024  # a larger number is a mistake: no machine has that many processors, and each thread costs memory


class _Offer:
    """Work, and a ticket for each helper that may still take it."""

    def __init__(self, work: Callable[[], None], helpers: int, cancel: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.cancel: Callable[[], None] | None = cancel
        self.tickets = deque([None] * helpers)  # `pop` is atomic
        self.left: SimpleQueue[BaseException | None] = SimpleQueue()  # one item per helper that has finished

    def help(self) -> None:
        try:
            self.tickets.pop()
        except IndexError:  # the offer was withdrawn
            return
        failure: BaseException | None = None
        try:
            if self.work is not None:
                self.work()
        except BaseException as error:  # `close` returns it to the caller
            failure = error
            if self.cancel is not None:
                self.cancel()
        finally:
            self.left.put(failure)

    def close(self, helpers: int) -> BaseException | None:
        """Withdraw the offer, wait for the helpers that took it, and return the exception of one that failed."""
        inside = helpers
        while self.tickets:
            try:
                self.tickets.pop()
            except IndexError:
                break
            inside -= 1
        failures = [self.left.get() for _ in range(inside)]
        self.work = self.cancel = None  # the offer may still be in the queue, and must keep nothing alive
        return next((failure for failure in failures if failure is not None), None)


class _Helper(threading.Thread):
    def __init__(self, offers: "SimpleQueue[_Offer]") -> None:
        super().__init__(name="minilm_np", daemon=True)
        self._offers = offers
        self.processor: int | None = None  # where its last work ended; None where the system does not say
        self._allowed: set[int] | None = None  # the processors to which it is bound again when it runs
        self._moving = threading.Lock()

    def run(self) -> None:
        here = _current_processor()
        while True:
            offer = self._offers.get()
            if self._allowed is not None:
                with self._moving:
                    _bind(0, self._allowed)
                    self._allowed = None
            offer.help()
            del offer  # otherwise it would keep its work alive
            self.processor = here() if here else None

    def keep_from(self, processor: int) -> None:
        """Bind it, until it runs, to the other processors that both it and the caller may use, if there are any."""
        thread = self.native_id
        if thread is None:
            return
        with self._moving, suppress(OSError):
            allowed = self._allowed or os.sched_getaffinity(thread)
            others = (allowed & os.sched_getaffinity(0)) - {processor}
            if others:
                self._allowed = allowed
                _bind(thread, others)


class _Pool:
    def __init__(self) -> None:
        self.offers: SimpleQueue[_Offer] = SimpleQueue()
        self.helpers: list[_Helper] = []
        self.lock = threading.Lock()
        self._warned = False  # that a thread could not be started

    @property
    def size(self) -> int:
        return len(self.helpers)

    def grow(self, size: int) -> None:
        if self.size < size:
            with self.lock:
                while self.size < size:
                    helper = _Helper(self.offers)
                    try:
                        helper.start()
                    except RuntimeError as error:  # a limit on processes
                        if not self._warned:
                            logger.warning("using %d threads instead of %d: %s", self.size + 1, size + 1, error)
                        self._warned = True
                        return
                    self.helpers.append(helper)

    def leave_processor(self) -> None:
        """Prevent the helpers from waking on the calling thread's processor."""
        here = _current_processor()
        if here is not None:
            processor = here()
            for helper in self.helpers:
                if helper.processor == processor:
                    helper.keep_from(processor)


@functools.cache
def _current_processor() -> Callable[[], int] | None:
    """The C library's function that returns the current processor; None where threads cannot be bound."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


def _bind(thread: int, processors: set[int]) -> None:
    """Bind a thread (0: this one) to these processors. If the system refuses, nothing changes."""
    with suppress(OSError):
        os.sched_setaffinity(thread, processors)


_pool = _Pool()


def _renew() -> None:
    global _pool
    _pool = _Pool()  # a forked process has none of its parent's threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def run(work: Callable[[], None], helpers: int, cancel: Callable[[], None]) -> None:
    """Run `work` in this thread, and in up to `helpers` idle helper threads.

    cancel: makes `work` end early in all threads; called when it raises in one of them.
    Raises the exception that `work` raised, in any of the threads.
    """
    if helpers <= 0 or sys.is_finalizing():
        work()
        return
    pool = _pool
    pool.grow(helpers)
    pool.leave_processor()
    offer = _Offer(work, helpers, cancel)
    try:
        for _ in range(min(helpers, pool.size - pool.offers.qsize())):
            pool.offers.put(offer)
        work()
    except BaseException:
        cancel()
        offer.close(helpers)
        raise
    failure = offer.close(helpers)
    if failure is not None:
        raise failure


def default_threads() -> int:
    """OMP_NUM_THREADS or the CPUs available to the process, whichever is less.

    The CPU quota of a container counts, too (of cgroup v2 only).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max 100000", or "200000 100000" for two CPUs
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, math.ceil(int(quota) / int(period))))
    with suppress(ValueError):  # "4", or "4,2" for nested teams
        allowed = min(allowed, max(1, int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])))
    return allowed


def check_threads(threads: int | None) -> int:
    """Validate a number of threads; None gives `default_threads()`. Raises InputTypeError, InputValueError."""
    return check_optional_int("threads", threads, 1, MAX_THREADS) or default_threads()

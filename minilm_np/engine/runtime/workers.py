"""A few threads that help a caller with its work, and on which no caller depends.

The caller does the work itself and offers it to the helpers at the same time: `work` must be a function that several
threads may run at once, which shares the work out among those that run it. When the caller has come to the end, offers
that no helper took are withdrawn, and only helpers that are inside are waited for. So a machine with other things to do
is slower, but nothing waits for a thread that was never scheduled; and callers in many threads share the few helpers.

The threads belong to the process, are made when they are first needed, and are made anew after a fork.

Linux tends to wake a thread on the processor on which it ran last, even if its caller is busy there and others are
idle; a call of milliseconds is over before it is moved. So a helper that shared its caller's processor is kept from it
when it is woken: until then one text took as long on two threads as on one, again and again.
"""

import ctypes
import functools
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from minilm_np._checks import check_optional_int

logger = logging.getLogger(__name__)

MAX_THREADS = 1024  # more is a slip: it keeps nothing busy, and costs memory for each


class _Offer:
    """Work, and how many more helpers may take it."""

    def __init__(self, work: Callable[[], None], helpers: int, cancel: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.cancel: Callable[[], None] | None = cancel
        self.tickets = deque([None] * helpers)  # popping one is atomic
        self.left: SimpleQueue[BaseException | None] = SimpleQueue()

    def help(self) -> None:
        try:
            self.tickets.pop()
        except IndexError:  # withdrawn
            return
        failure: BaseException | None = None
        try:
            if self.work is not None:
                self.work()
        except BaseException as error:  # handed to the caller
            failure = error
            if self.cancel is not None:
                self.cancel()
        finally:
            self.left.put(failure)

    def close(self, helpers: int) -> BaseException | None:
        """Withdraw the offer, wait for the helpers that are inside, and return what went wrong in one of them."""
        inside = helpers
        while self.tickets:
            try:
                self.tickets.pop()
            except IndexError:
                break
            inside -= 1
        failures = [self.left.get() for _ in range(inside)]
        self.work = self.cancel = None  # an offer that is still in the queue keeps nothing alive
        return next((failure for failure in failures if failure is not None), None)


class _Helper(threading.Thread):
    def __init__(self, offers: "SimpleQueue[_Offer]") -> None:
        super().__init__(name="minilm_np", daemon=True)
        self._offers = offers
        self.processor: int | None = None  # on which its last work ended, where the system tells
        self._allowed: set[int] | None = None  # the processors that it gets back when it runs
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
            del offer  # which keeps its work alive
            self.processor = here() if here else None

    def keep_from(self, processor: int) -> None:
        """Make it wake on another processor that it and the caller may use, if there is one."""
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
                    except RuntimeError as error:  # a limit on processes, or the interpreter is shutting down
                        logger.warning("%d threads work instead of %d: %s", self.size + 1, size + 1, error)
                        return
                    self.helpers.append(helper)

    def leave_processor(self) -> None:
        """Let no helper wake on the calling thread's processor."""
        here = _current_processor()
        if here is not None:
            processor = here()
            for helper in self.helpers:
                if helper.processor == processor:
                    helper.keep_from(processor)


@functools.cache
def _current_processor() -> Callable[[], int] | None:
    """The C library's function that tells on which processor a thread runs; None where threads cannot be moved."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


def _bind(thread: int, processors: set[int]) -> None:
    """Let a thread (0: this one) run on these processors only. If the system refuses, it runs where it did."""
    with suppress(OSError):
        os.sched_setaffinity(thread, processors)


_pool = _Pool()


def _renew() -> None:
    global _pool
    _pool = _Pool()  # of a forked process: the threads stayed with the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def run(work: Callable[[], None], helpers: int, cancel: Callable[[], None]) -> None:
    """Do `work` in this thread, and in up to `helpers` others that are idle.

    cancel: makes the work end early in all of them; called when it failed, or was interrupted, in one.
    Raises what `work` raised, in whichever thread.
    """
    if helpers <= 0:
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
    """OMP_NUM_THREADS if that is set, but at most the processors that this process may use, and a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max 100000", or "200000 100000" for two processors' time
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, math.ceil(int(quota) / int(period))))
    with suppress(ValueError):  # "4", or "4,2" for nested teams
        allowed = min(allowed, max(1, int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])))
    return allowed


def check_threads(threads: int | None) -> int:
    """A number of threads, None being the default. Raises InputTypeError, InputValueError."""
    return check_optional_int("threads", threads, 1, MAX_THREADS) or default_threads()

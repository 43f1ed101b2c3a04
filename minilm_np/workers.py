"""A few threads that help a caller with its work, and on which no caller depends.

The caller does the work itself and offers it to the helpers at the same time: `work` must be a function that several
threads may run at once, which shares the work out among those that run it. When the caller has come to the end, offers
that no helper took are withdrawn, and only helpers that are inside are waited for. So a machine with other things to do
is slower, but nothing waits for a thread that was never scheduled; and callers in many threads share the few helpers.

The threads belong to the process, are made when they are first needed, and are made anew after a fork.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue


class _Offer:
    """Work, and how many more helpers may take it."""

    def __init__(self, work: Callable[[], None], helpers: int) -> None:
        self.work: Callable[[], None] | None = work
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
        self.work = None  # an offer that is still in the queue keeps nothing alive
        return next((failure for failure in failures if failure is not None), None)


class _Pool:
    def __init__(self) -> None:
        self.offers: SimpleQueue[_Offer] = SimpleQueue()
        self.size = 0
        self.lock = threading.Lock()

    def grow(self, size: int) -> None:
        if self.size < size:
            with self.lock:
                while self.size < size:
                    threading.Thread(target=_helper, args=(self.offers,), name="minilm_np", daemon=True).start()
                    self.size += 1


def _helper(offers: "SimpleQueue[_Offer]") -> None:
    while True:
        offers.get().help()


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
    offer = _Offer(work, helpers)
    try:
        for _ in range(min(helpers, pool.size - pool.offers.qsize())):
            pool.offers.put(offer)
        work()
    except BaseException:
        cancel()
        offer.close(helpers)
        raise
    if failure := offer.close(helpers):
        raise failure

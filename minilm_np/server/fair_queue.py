"""`FairQueue`: which texts are encoded together next.

This is deficit round robin over requests (Shreedhar and Varghese, 1995), counted in tokens. Requests form a ring. A
visit adds QUANTUM tokens to the credit of a request, and takes its next texts as far as the credit reaches. Unused
credit remains for the next visit. Visits fill a batch until it has the budget's tokens. The next batch continues
where this one stopped. So every request gets the same share of the engine, however many and however long its texts are:
a text of at most QUANTUM tokens waits for one visit to each other request.

There is no thread and no clock here: see `engine_threads.py`.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

QUANTUM = 64  # tokens; most questions and sentences have fewer


class Work(Protocol):
    """The texts of one request."""

    @property
    def ids(self) -> Sequence[Sequence[int]]:
        """The token ids of each text."""

    taken: int  # texts in earlier batches; the queue counts
    credit: int  # tokens; the queue counts


W = TypeVar("W", bound=Work)


class Piece(NamedTuple, Generic[W]):
    """Consecutive texts of a request, for one batch."""

    work: W
    texts: range


class FairQueue(Generic[W]):
    """The requests with texts that wait. budget: tokens of a batch; a longer text is a batch alone.

    Not thread-safe.
    """

    def __init__(self, budget: int, quantum: int = QUANTUM) -> None:
        self.n_tokens = 0  # that wait
        self._budget, self._quantum = budget, quantum
        self._ring: dict[int, W] = {}  # by id(); the first is visited next

    def __len__(self) -> int:
        """The number of requests that wait."""
        return len(self._ring)

    def add(self, work: W) -> None:
        """Append a request with at least one text."""
        self._ring[id(work)] = work
        self.n_tokens += sum(map(len, work.ids))

    def remove(self, work: W) -> None:
        """Drop the texts of a request that still wait, if any."""
        if self._ring.pop(id(work), None) is not None:
            self.n_tokens -= sum(len(work.ids[text]) for text in range(work.taken, len(work.ids)))

    def take(self) -> list[Piece[W]]:
        """Remove the texts of the next batch, and return them; [] if none waits."""
        batch: list[Piece[W]] = []
        room = self._budget
        while self._ring and room > 0:
            work = next(iter(self._ring.values()))
            work.credit += self._quantum
            start, is_full = work.taken, False
            while work.taken < len(work.ids):
                n = len(work.ids[work.taken])
                if n > work.credit:
                    break
                if n > room and (batch or work.taken > start):
                    is_full = True
                    break
                work.taken += 1
                work.credit -= n
                room -= n
                self.n_tokens -= n
            if work.taken > start:
                batch.append(Piece(work, range(start, work.taken)))
            if is_full:  # the next batch begins with this request, and gives it this credit again
                work.credit -= self._quantum
                break
            del self._ring[id(work)]
            if work.taken < len(work.ids):
                self._ring[id(work)] = work  # at the end
        return batch

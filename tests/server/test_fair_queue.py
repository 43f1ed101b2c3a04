"""`FairQueue`: which texts form a batch, step by step."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.server.fair_queue import FairQueue, Piece


@dataclass
class Request:
    """A request whose texts have these lengths."""

    name: str
    lengths: list[int]
    taken: int = 0
    credit: int = 0
    ids: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [[0] * length for length in self.lengths]


def shown(batch: list[Piece[Request]]) -> list[tuple[str, int, int]]:
    return [(work.name, texts.start, texts.stop) for work, texts in batch]


def tokens(batch: list[Piece[Request]]) -> int:
    return sum(work.lengths[text] for work, texts in batch for text in texts)


def queue_of(*requests: Request, budget: int = 100, quantum: int = 10) -> FairQueue[Request]:
    queue: FairQueue[Request] = FairQueue(budget, quantum)
    for request in requests:
        queue.add(request)
    return queue


def test_an_empty_queue_has_no_batch() -> None:
    queue = queue_of()
    assert queue.take() == []
    assert (len(queue), queue.n_tokens) == (0, 0)


def test_all_that_waits_is_one_batch_if_it_fits() -> None:
    queue = queue_of(Request("a", [5]), Request("b", [8, 2]), Request("c", [7]))
    assert sorted(shown(queue.take())) == [("a", 0, 1), ("b", 0, 2), ("c", 0, 1)]
    assert (len(queue), queue.n_tokens) == (0, 0)


def test_a_short_text_passes_a_request_of_a_thousand() -> None:
    queue = queue_of(Request("large", [10] * 1000))
    assert tokens(queue.take()) == 100
    queue.add(Request("short", [10]))
    assert ("short", 0, 1) in shown(queue.take())


def test_a_short_text_waits_for_one_visit_to_each_other_request() -> None:
    large = [Request(f"large {number}", [10] * 1000) for number in range(25)]
    queue = queue_of(*large)
    queue.take()
    queue.add(Request("short", [10]))
    batches = [shown(queue.take()) for _ in range(3)]  # 25 visits of 10 tokens come first: two batches and a half
    assert [("short", 0, 1) in batch for batch in batches] == [False, False, True]


def test_long_and_short_texts_get_the_same_number_of_tokens() -> None:
    long, short = Request("long", [50] * 100), Request("short", [5] * 1000)
    queue = queue_of(long, short)
    for _ in range(20):
        queue.take()
    assert abs(50 * long.taken - 5 * short.taken) <= 50 + 10


def test_a_long_text_is_not_passed_for_ever() -> None:
    queue = queue_of(Request("long", [90]))
    for number in range(20):
        queue.add(Request(f"short {number}", [9]))
    seen = [piece.work.name for _ in range(3) for piece in queue.take()]
    assert "long" in seen


def test_a_text_longer_than_the_budget_is_a_batch_alone() -> None:
    queue = queue_of(Request("long", [250]), Request("short", [5]))
    batches = [shown(queue.take()) for _ in range(2)]
    assert batches == [[("short", 0, 1)], [("long", 0, 1)]] or batches == [[("long", 0, 1)], [("short", 0, 1)]]


def test_the_next_batch_begins_where_this_one_stopped() -> None:
    queue = queue_of(*(Request(str(number), [10]) for number in range(15)))
    assert [name for name, _, _ in shown(queue.take())] == [str(number) for number in range(10)]
    assert [name for name, _, _ in shown(queue.take())] == [str(number) for number in range(10, 15)]


def test_a_removed_request_is_in_no_further_batch() -> None:
    large, other = Request("large", [10] * 30), Request("other", [10])
    queue = queue_of(large, other, budget=50)
    queue.take()
    queue.remove(large)
    queue.remove(large)  # again: nothing happens
    assert queue.n_tokens == 0
    assert queue.take() == []


@given(
    requests=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=12),
    budget=st.integers(1, 80),
    quantum=st.integers(1, 70),
)
def test_every_text_is_taken_once_in_order_and_within_the_budget(
    requests: list[list[int]], budget: int, quantum: int
) -> None:
    queue = queue_of(
        *(Request(str(number), lengths) for number, lengths in enumerate(requests)), budget=budget, quantum=quantum
    )
    seen: list[list[int]] = [[] for _ in requests]
    while batch := queue.take():
        assert tokens(batch) <= budget or sum(len(texts) for _, texts in batch) == 1
        for work, texts in batch:
            seen[int(work.name)] += texts
        left = sum(sum(lengths[len(seen[number]) :]) for number, lengths in enumerate(requests))
        assert queue.n_tokens == left
    assert seen == [list(range(len(lengths))) for lengths in requests]


@pytest.mark.parametrize("quantum", [1, 64])
def test_a_request_that_is_served_leaves_no_credit_behind(quantum: int) -> None:
    first = Request("a", [3])
    queue = queue_of(first, quantum=quantum)
    queue.take()
    assert len(queue) == 0
    assert first.taken == 1

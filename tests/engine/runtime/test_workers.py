"""Helper threads: they share the caller's work, are never waited for in vain, and report every exception."""

import functools
import logging
import os
import threading
import time
from pathlib import Path

import pytest

from minilm_np.engine.runtime import workers
from minilm_np.errors import InputValueError

PATIENCE = 30  # seconds after which a test fails with a deadlock


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """A separate pool for each test; its threads stay asleep when the test is over."""
    fresh = workers._Pool()
    monkeypatch.setattr(workers, "_pool", fresh)
    return fresh


def nothing():
    pass


def in_time(function, *arguments):
    """Run a function in a thread; fail if it does not end; raise the exception that it raised."""
    failures = []

    def guarded():
        try:
            function(*arguments)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "deadlock"
    if failures:
        raise failures[0]


def meet(n_threads):
    """Work that ends only when this number of threads run it at the same time."""
    barrier = threading.Barrier(n_threads, timeout=PATIENCE)
    return lambda: barrier.wait() and None


def helpers_of(pool):
    """Wait until all of a pool's threads are idle; return how many there are."""
    until = time.monotonic() + PATIENCE
    while pool.offers.qsize() and time.monotonic() < until:
        time.sleep(0.001)
    return pool.size


# ---- sharing work ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("helpers", [1, 2, 5])
def test_the_caller_and_its_helpers_work_at_the_same_time(pool, helpers):
    for _ in range(3):
        in_time(workers.run, meet(helpers + 1), helpers, nothing)
    assert helpers_of(pool) == helpers


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be moved here")
def test_a_helper_that_last_ran_on_its_callers_processor_wakes_on_another_and_is_released_there(pool, monkeypatch):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    shared = min(allowed)
    monkeypatch.setattr(workers, "_current_processor", lambda: lambda: shared)  # where both ended, according to this
    bound = []

    def work():  # in both threads at once
        bound.append((threading.current_thread() is pool.helpers[0], os.sched_getaffinity(0)))
        barrier.wait(PATIENCE)

    bind = workers._bind
    moves: list[tuple[int, set[int]]] = []

    def record_move(thread, processors):
        moves.append((thread, processors))
        bind(thread, processors)

    monkeypatch.setattr(workers, "_bind", record_move)
    for _ in range(2):
        barrier = threading.Barrier(2)
        in_time(workers.run, work, 1, nothing)
        until = time.monotonic() + PATIENCE
        while pool.helpers[0].processor is None and time.monotonic() < until:
            time.sleep(0.001)
    assert moves == [(pool.helpers[0].native_id, allowed - {shared}), (0, allowed)], (
        "in the second call, and not before"
    )
    assert bound.count((True, allowed)) == bound.count((False, allowed)) == 2, "while it works, it may run anywhere"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be moved here")
def test_a_caller_that_may_use_only_one_processor_moves_no_helper(pool, monkeypatch):
    allowed = os.sched_getaffinity(0)
    in_time(workers.run, meet(2), 1, nothing)
    monkeypatch.setattr(workers, "_bind", lambda *arguments: pytest.fail("moved"))

    def call():
        os.sched_setaffinity(0, {min(allowed)})  # of this thread
        pool.helpers[0].processor = min(allowed)
        workers.run(nothing, 1, nothing)

    in_time(call)
    assert os.sched_getaffinity(pool.helpers[0].native_id) == allowed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be moved here")
def test_a_helper_is_bound_to_its_own_processors_again_not_the_callers(pool, monkeypatch):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    in_time(workers.run, meet(2), 1, nothing)
    helper, own = pool.helpers[0], {max(allowed)}  # as `taskset -a` may have bound it
    os.sched_setaffinity(helper.native_id, own)
    monkeypatch.setattr(workers, "_current_processor", lambda: lambda: min(allowed))
    helper.processor = min(allowed)
    for _ in range(2):  # bound twice before it runs
        pool.leave_processor()
    in_time(workers.run, meet(2), 1, nothing)
    assert os.sched_getaffinity(helper.native_id) == own


def test_without_helpers_the_caller_works_alone_and_no_thread_is_made(pool):
    seen = []
    for helpers in (0, -1):
        workers.run(lambda: seen.append(threading.current_thread()), helpers, nothing)
    assert seen == [threading.current_thread()] * 2
    assert pool.size == 0


def test_each_thread_runs_the_work_at_most_once_and_never_after_the_call():
    counts = []
    for _ in range(200):
        runs: list[int] = []
        workers.run(functools.partial(runs.append, 1), 3, nothing)
        counts.append((runs, len(runs)))
    time.sleep(0.05)
    for runs, count in counts:
        assert 1 <= count <= 4
        assert len(runs) == count, "a helper began after its caller had returned"


def test_an_offer_that_no_helper_took_is_withdrawn(pool):
    release, inside = threading.Event(), threading.Event()

    def block():
        if threading.current_thread().name == "minilm_np":
            inside.set()
            release.wait(PATIENCE)
        else:
            inside.wait(PATIENCE)

    busy = threading.Thread(target=workers.run, args=(block, 1, nothing))
    busy.start()
    assert inside.wait(PATIENCE)
    seen = []
    for number in range(20):  # the only helper is busy
        in_time(workers.run, lambda number=number: seen.append(number), 1, nothing)
    assert seen == list(range(20))
    assert pool.offers.qsize() <= 1, "withdrawn offers pile up"
    release.set()
    busy.join(PATIENCE)
    assert helpers_of(pool) == 1
    in_time(workers.run, meet(2), 1, nothing)
    assert seen == list(range(20)), "a withdrawn offer was taken"


def test_a_withdrawn_offer_does_not_keep_its_work_alive(pool):
    offer = workers._Offer(nothing, 2, nothing)
    offer.close(2)
    assert offer.work is None and offer.cancel is None
    offer.help()  # a helper may still find it in the queue


def test_many_callers_share_the_helpers(pool):
    totals = []

    def caller(number):
        for _ in range(30):
            waiting, done = list(range(50)), list[int]()

            def work(waiting=waiting, done=done):
                while waiting:
                    try:
                        done.append(waiting.pop())
                    except IndexError:
                        return

            workers.run(work, 1 + number % 3, nothing)
            totals.append(sorted(done) == list(range(50)))

    threads = [threading.Thread(target=caller, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    assert totals == [True] * 480
    assert helpers_of(pool) == 3, "as many threads as the largest number that one caller requested"


def test_when_no_more_threads_can_be_started_the_others_do_the_work(pool, monkeypatch, caplog):
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_one(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_one)
        with caplog.at_level(logging.WARNING, workers.__name__):
            seen = []
            workers.run(lambda: seen.append(1), 3, nothing)
    assert pool.size == 1 and 1 <= len(seen) <= 2
    assert [record.getMessage() for record in caplog.records] == [
        "using 2 threads instead of 4: can't start new thread"
    ]
    in_time(workers.run, meet(4), 3, nothing)


# ---- exceptions ------------------------------------------------------------------------------------------------------


class FailureError(Exception):
    """A falsy exception, such as one with a length may be."""

    def __bool__(self):
        return False


def failing(in_helper, meeting):
    """Work that fails in the helper or in the caller, after both have begun."""

    def work():
        meeting()
        if (threading.current_thread().name == "minilm_np") == in_helper:
            raise FailureError(threading.current_thread().name)

    return work


@pytest.mark.parametrize("in_helper", [False, True])
def test_a_failure_in_any_thread_is_the_callers(pool, in_helper):
    cancelled = []
    for number in range(3):
        with pytest.raises(FailureError):
            in_time(workers.run, failing(in_helper, meet(2)), 1, lambda: cancelled.append(1))
        assert len(cancelled) == number + 1, "cancelled once for each failure"
    in_time(workers.run, meet(2), 1, nothing)  # the helper survives its failures
    assert helpers_of(pool) == 1


def test_a_failure_in_both_is_raised_once():
    def work(meeting=meet(2)):  # noqa: B008
        meeting()
        raise FailureError

    with pytest.raises(FailureError):
        in_time(workers.run, work, 1, nothing)


def test_a_failing_helper_ends_the_callers_work():
    """Otherwise a long list would be encoded to its end before its first failure is raised."""
    cancelled, meeting = threading.Event(), meet(2)

    def work():
        meeting()
        if threading.current_thread().name == "minilm_np":
            raise FailureError
        assert cancelled.wait(PATIENCE)

    with pytest.raises(FailureError):
        in_time(workers.run, work, 1, cancelled.set)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_the_caller_waits_for_helpers_inside_before_it_raises(kind):
    cancelled, ended, meeting = threading.Event(), [], meet(2)

    def work():
        meeting()
        if threading.current_thread().name != "minilm_np":
            raise kind
        assert cancelled.wait(PATIENCE)
        time.sleep(0.05)
        ended.append(1)

    with pytest.raises(kind):
        in_time(workers.run, work, 1, cancelled.set)
    assert ended == [1]


# ---- numbers of threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("1", 1), ("2", 2), ("3,2", 3), (" 4 ", 4), ("99", 6), ("0", 1), ("-2", 1), ("many", 6), ("", 6)],
)
def test_the_default_is_omp_num_threads_up_to_the_available_processors(monkeypatch, variable, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: "max 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert workers.default_threads() == expected
    assert workers.check_threads(None) == expected


@pytest.mark.parametrize(("quota", "expected"), [("250000 100000", 3), ("20000 100000", 1), ("max 100000", 6)])
def test_the_default_respects_a_containers_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert workers.default_threads() == expected


def test_an_absurd_number_of_threads_is_refused():
    assert workers.check_threads(workers.MAX_THREADS) == 1024
    with pytest.raises(InputValueError, match="threads: expected an int from 1 to 1024 or None, found 100000000"):
        workers.check_threads(10**8)

"""Helpers that share a caller's work: they take part, are never waited for in vain, and lose no exception."""

import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from minilm_np.engine.runtime import workers
from minilm_np.errors import InputValueError
from tests.support.places import CHECKOUT

PATIENCE = 30  # seconds after which something that should have happened is taken for a deadlock


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """A pool of the test's own; its threads sleep on when the test is over."""
    fresh = workers._Pool()
    monkeypatch.setattr(workers, "_pool", fresh)
    return fresh


def nothing():
    pass


def in_time(function, *arguments):
    """Run a function in a thread, fail if it does not come to an end, and raise what it raised."""
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
    """Work that ends only when so many threads are inside at once."""
    barrier = threading.Barrier(n_threads, timeout=PATIENCE)
    return lambda: barrier.wait() and None


def helpers_of(pool):
    """Wait until all of a pool's threads are idle; return how many there are."""
    until = time.monotonic() + PATIENCE
    while pool.offers.qsize() and time.monotonic() < until:
        time.sleep(0.001)
    return pool.size


# ---- taking part -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("helpers", [1, 2, 5])
def test_the_caller_and_its_helpers_work_at_the_same_time(pool, helpers):
    for _ in range(3):
        in_time(workers.run, meet(helpers + 1), helpers, nothing)
    assert helpers_of(pool) == helpers


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be moved here")
def test_a_helper_that_shared_its_callers_processor_wakes_on_another_and_gets_it_back(pool, monkeypatch):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    shared = min(allowed)
    monkeypatch.setattr(workers, "_current_processor", lambda: lambda: shared)  # where both ended, it says
    bound = []

    def work():  # in both threads at once
        bound.append((threading.current_thread() is pool.helpers[0], os.sched_getaffinity(0)))
        barrier.wait(PATIENCE)

    bind, moves = workers._bind, []
    monkeypatch.setattr(workers, "_bind", lambda *arguments: moves.append(arguments) or bind(*arguments))
    for _ in range(2):
        barrier = threading.Barrier(2)
        in_time(workers.run, work, 1, nothing)
        until = time.monotonic() + PATIENCE
        while pool.helpers[0].processor is None and time.monotonic() < until:
            time.sleep(0.001)
    assert moves == [(pool.helpers[0].native_id, allowed - {shared}), (0, allowed)], (
        "in the second call, and not before"
    )
    assert bound.count((True, allowed)) == bound.count((False, allowed)) == 2, "while it works it may run anywhere"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be moved here")
def test_a_caller_that_may_use_one_processor_only_moves_no_helper(pool, monkeypatch):
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
def test_a_helper_gets_back_its_own_processors_not_the_callers(pool, monkeypatch):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    in_time(workers.run, meet(2), 1, nothing)
    helper, own = pool.helpers[0], {max(allowed)}  # as `taskset -a` may have bound it
    os.sched_setaffinity(helper.native_id, own)
    monkeypatch.setattr(workers, "_current_processor", lambda: lambda: min(allowed))
    helper.processor = min(allowed)
    for _ in range(2):  # kept from it twice before it runs
        pool.leave_processor()
    in_time(workers.run, meet(2), 1, nothing)
    assert os.sched_getaffinity(helper.native_id) == own


def test_without_helpers_the_caller_works_alone_and_no_thread_is_made(pool):
    seen = []
    for helpers in (0, -1):
        workers.run(lambda: seen.append(threading.current_thread()), helpers, nothing)
    assert seen == [threading.current_thread()] * 2
    assert pool.size == 0


def test_work_is_done_once_by_each_who_takes_it_and_never_after_the_call():
    counts = []
    for _ in range(200):
        runs = []
        workers.run(lambda runs=runs: runs.append(1), 3, nothing)
        counts.append((runs, len(runs)))
    time.sleep(0.05)
    for runs, count in counts:
        assert 1 <= count <= 4
        assert len(runs) == count, "a helper began after its caller had gone"


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
    for number in range(20):  # the only helper is busy, and does not come
        in_time(workers.run, lambda number=number: seen.append(number), 1, nothing)
    assert seen == list(range(20))
    assert pool.offers.qsize() <= 1, "withdrawn offers pile up"
    release.set()
    busy.join(PATIENCE)
    assert helpers_of(pool) == 1
    in_time(workers.run, meet(2), 1, nothing)
    assert seen == list(range(20)), "a withdrawn offer was taken"


def test_a_withdrawn_offer_keeps_its_work_alive_no_longer(pool):
    offer = workers._Offer(nothing, 2, nothing)
    offer.close(2)
    assert offer.work is None and offer.cancel is None
    offer.help()  # a helper that finds it in the queue all the same


def test_many_callers_share_the_helpers(pool):
    totals = []

    def caller(number):
        for _ in range(30):
            waiting, done = list(range(50)), []

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
    assert helpers_of(pool) == 3, "as many threads as the most that one caller asked for"


def test_a_machine_that_gives_no_more_threads_is_worked_on_with_those_it_gave(pool, monkeypatch, caplog):
    start, started = threading.Thread.start, []

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
    assert [record.getMessage() for record in caplog.records] == ["2 threads work instead of 4: can't start new thread"]
    in_time(workers.run, meet(4), 3, nothing)


# ---- exceptions ------------------------------------------------------------------------------------------------------


class FailureError(Exception):
    """Of falsy value, as an exception with a length may be."""

    def __bool__(self):
        return False


def failing(in_helper, meeting):
    """Work that fails in the helper, or in the caller, after both have begun."""

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
    in_time(workers.run, meet(2), 1, nothing)  # the helper has outlived its failures
    assert helpers_of(pool) == 1


def test_a_failure_in_both_is_raised_once():
    def work(meeting=meet(2)):  # noqa: B008
        meeting()
        raise FailureError

    with pytest.raises(FailureError):
        in_time(workers.run, work, 1, nothing)


def test_a_failing_helper_ends_the_callers_work():
    """Or a long list would be encoded to its end before its first failure is told."""
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


# ---- interrupts and forks, in processes of their own -----------------------------------------------------------------


def child(program):
    """Run a program that imports the package; return what it printed as JSON."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env=environment, capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PRELUDE = """
import faulthandler, json, os, signal, threading, time
from minilm_np.engine.runtime import workers

faulthandler.dump_traceback_later(30, exit=True)

def meet(n_threads):
    barrier = threading.Barrier(n_threads, timeout=20)
    return lambda: barrier.wait()

def run(work, helpers=1, cancel=lambda: None):
    workers.run(work, helpers, cancel)
"""

INTERRUPTED = """
told, result = threading.Event(), []
def work():
    if threading.current_thread() is threading.main_thread():
        if {late}:
            begun.wait(20)
            return            # and waits for its helper
        begun.wait(20)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
    else:
        begun.set()
        if {late}:
            time.sleep(0.2)   # the caller is waiting by now
            os.kill(os.getpid(), signal.SIGINT)
        told.wait(2)
for _ in range(2):
    begun = threading.Event()
    start = time.monotonic()
    try:
        run(work, 1, told.set)
    except KeyboardInterrupt:
        result.append(time.monotonic() - start)
told.set()
run(meet(2))
print(json.dumps(result))
"""


@pytest.mark.parametrize("late", [False, True])
def test_ctrl_c_ends_the_callers_work_or_its_waiting(late):
    seconds = child(INTERRUPTED.replace("{late}", str(late)))
    assert len(seconds) == 2 and max(seconds) < 10


FORKED = """
def forked(function):
    # what the function returns, in a child
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, json.dumps(function()).encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(os.read(read, 1000))

def use():
    before = workers._pool.size
    run(meet(3), 2)
    return [before, workers._pool.size]

parent = use()
begun, end = threading.Event(), threading.Event()
def hold():
    begun.set()
    end.wait(20)
other = threading.Thread(target=run, args=(hold,))
other.start()
begun.wait(20)                # a helper and a caller are inside while this thread forks
child = forked(lambda: [use(), forked(use)])
end.set()
other.join()
print(json.dumps([parent, child, use()]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_and_its_child_have_helpers_of_their_own():
    assert child(FORKED) == [[0, 2], [[0, 2], [0, 2]], [2, 2]]


def test_idle_helpers_do_not_keep_a_process_alive():
    assert child("run(meet(3), 2)\nprint(json.dumps(threading.active_count()))") == 3


def test_more_threads_than_anybody_can_use_are_refused():
    assert workers.check_threads(workers.MAX_THREADS) == 1024
    with pytest.raises(InputValueError, match="threads: expected an int from 1 to 1024 or None, found 100000000"):
        workers.check_threads(10**8)

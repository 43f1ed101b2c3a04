"""Helper threads under interrupts and forks, each in a child process."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.places import CHECKOUT

PATIENCE = 30  # seconds after which a child is considered stalled


def child(program):
    """Run a program after `PRELUDE`; return the JSON that it printed."""
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

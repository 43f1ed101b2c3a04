"""Processes: forks while other threads load, compile or encode; spawned pools; real compilations that are killed."""

import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults import Outcome, children, experiment, writers
from tests.faults.children import environment, program

LIMIT_S = 60  # seconds in which a process must answer that has nothing to compile
COMPILING_S = 240  # seconds in which one must answer that compiles, on a busy machine

# Each program gets a folder of a model, and prints "same bits", or what is wrong.
_PRELUDE = """
import faulthandler, os, random, signal, sys, threading, time
from minilm_np import SentenceEncoder  # here: no package can help a fork during an import statement of the program
faulthandler.dump_traceback_later({limit} + 5, exit=True)
folder, seed = sys.argv[1], int(sys.argv[2])
draw = random.Random(seed)
TEXTS = ["a", "", "the second text", "words and words " * 2] * 20

def encode(encoder):
    import hashlib
    return hashlib.sha256(encoder.encode(TEXTS, on_truncation="ignore").tobytes()).hexdigest()

def load():
    return SentenceEncoder(folder, threads=2)

def child_answers(function):
    # what a forked process returns, or "no answer"
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm({limit})
        try:
            os.write(write, function().encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer or "no answer"

def in_threads(work, count=3):
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads

def judge(answers):
    right = encode(load())
    wrong = [answer for answer in answers if answer != right]
    print(wrong[0] if wrong else "same bits")
"""

LOADING = """
in_threads(lambda: encode(load()))
time.sleep(draw.uniform(0, {within}))
judge([child_answers(lambda: encode(load()))])
"""

ENCODING = """
encoder = load()
right, over = encode(encoder), threading.Event()
def work():
    while not over.is_set():
        encode(encoder)
threads = in_threads(work)
answers = []
for _ in range({forks}):
    time.sleep(draw.uniform(0, 0.01))
    answers.append(child_answers(lambda: encode(encoder)))
    if draw.random() < 0.2:  # a child of a child
        answers.append(child_answers(lambda: child_answers(lambda: encode(encoder))))
over.set()
for thread in threads:
    thread.join()
judge(answers)
"""


def run(
    body: str, folder: Path, random: Random, limit: int = LIMIT_S, cache: Path | None = None, **values: object
) -> str:
    """What a program prints; otherwise what came of it."""
    source = (_PRELUDE + body).replace("{limit}", str(limit))
    for name, value in values.items():
        source = source.replace(f"{{{name}}}", repr(value))
    seed = random.randrange(10**6)
    ended = program(source, str(folder), str(seed), limit_s=limit + 20.0, env=environment(cache))
    if ended.code == 0:
        return ended.out.strip() if ended.out.strip() == "same bits" else f"seed {seed}: {ended.out.strip()}"
    return f"seed {seed}: ended with {ended.code}: {ended.errors[-2000:]}"


@experiment("fork: while threads load", count=40, quick=2)
def fork_loading(count: int, random: Random) -> Outcome:
    """Fork a new process at a random moment, as three threads load a model for the first time: the child works."""
    outcome = Outcome()
    with writers.saved_model() as folder:
        program("from minilm_np import SentenceEncoder as E; import sys; E(sys.argv[1]).encode('a')", str(folder))
        for _ in range(count):
            found = run(LOADING, folder, random, limit=20, within=0.3)
            outcome.check(found == "same bits", found, found)
    return outcome


@experiment("fork: while threads encode", count=400, quick=20)
def fork_encoding(count: int, random: Random) -> Outcome:
    """Fork at random moments as three threads encode: children, and children of children, give the same bits."""
    outcome = Outcome()
    with writers.saved_model() as folder:
        while outcome.tried < count:
            forks = min(20, count - outcome.tried)
            found = run(ENCODING, folder, random, forks=forks)
            if found == "same bits":
                outcome.hold(found, forks)
            else:
                outcome.fail(found)
    return outcome


@experiment("fork: while threads compile", count=3, quick=0, limit_s=3600)
def fork_compiling(count: int, random: Random) -> Outcome:
    """Fork at a random moment of the first compilation, into an empty cache, in three threads: the child works."""
    outcome = Outcome()
    with writers.saved_model() as folder, TemporaryDirectory() as scratch:
        for number in range(count):
            found = run(LOADING, folder, random, COMPILING_S, Path(scratch, str(number)), within=12.0)
            outcome.check(found == "same bits", found, found)
    return outcome


SPAWN = """
import hashlib, multiprocessing, sys
from minilm_np import SentenceEncoder

def encode(encoder):
    return hashlib.sha256(encoder.encode(["a", "", "b c"] * 50).tobytes()).hexdigest()

if __name__ == "__main__":
    encoder = SentenceEncoder(sys.argv[1], threads=2)
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        answers = pool.map_async(encode, [encoder] * 8).get(60)
    print("same bits" if set(answers) == {encode(encoder)} else answers)
"""


@experiment("spawn: pools of processes", count=12, quick=1)
def spawned(count: int, random: Random) -> Outcome:
    """Send a model to a pool of two new processes, by spawn or forkserver, eight times: the same bits."""
    outcome = Outcome()
    with writers.saved_model() as folder, TemporaryDirectory() as scratch:
        script = Path(scratch, "script.py")  # a new process imports it
        script.write_text(SPAWN)
        for number in range(count):
            method = ("spawn", "forkserver")[number % 2]
            ended = program(str(script), str(folder), method, limit_s=90.0, script=True)
            right = ended.code == 0 and ended.out.strip() == "same bits"
            outcome.check(right, "same bits", f"{method}: {ended.out}{ended.errors[-2000:]}")
    return outcome


COMPILE = """
import hashlib, sys
from minilm_np import SentenceEncoder
print(hashlib.sha256(SentenceEncoder(sys.argv[1]).encode(["a", "", "b c"]).tobytes()).hexdigest())
"""


@experiment("kill -9: compiling kernels", count=3, quick=0, limit_s=3600)
def kill_compiling(count: int, random: Random) -> Outcome:
    """Kill a real compilation into an empty cache, beside another process that waits for it: the other one works."""
    outcome = Outcome()
    with writers.saved_model() as folder, TemporaryDirectory() as scratch:
        right = program(COMPILE, str(folder)).out
        began = time.monotonic()
        program(COMPILE, str(folder), limit_s=COMPILING_S, env=environment(Path(scratch, "measured")))
        seconds = time.monotonic() - began
        for number in range(count):
            cache, moment = Path(scratch, str(number)), random.uniform(0, seconds)
            arguments, env = [sys.executable, "-c", COMPILE, str(folder)], environment(cache)
            with children.started(arguments, env) as killed, children.started(arguments, env) as other:
                time.sleep(moment)
                killed.kill()
                found = other.communicate(timeout=COMPILING_S)[0]
            third = program(COMPILE, str(folder), limit_s=LIMIT_S, env=environment(cache))
            what = f"killed after {moment:.2f} s: expected {right!r}, found {found!r}, then {third}"
            compiled_again = "compiling" in third.errors
            outcome.check(found == third.out == right and not compiled_again, "same bits", what)
    return outcome

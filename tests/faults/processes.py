"""The cache of compiled kernels: filled once by many processes, and found by the workers of Dask and Ray."""

import importlib.util
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from minilm_np.engine.runtime.targets import COMPILE, VARIABLE
from tests.faults import Outcome, children, experiment
from tests.faults.children import environment, program

ENCODE = """
import hashlib, sys

def work(number):
    from minilm_np import SentenceEncoder
    vectors = SentenceEncoder.random(threads=1).encode(["a", "some text", "x" * 100])
    return hashlib.sha256(vectors.tobytes()).hexdigest(), "numba" in sys.modules
"""
DASK = """
if __name__ == "__main__":
    from dask.distributed import Client, LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        print(client.gather([client.submit(work, number, pure=False) for number in range(2)]) == [work(0)] * 2)
"""
RAY = """
if __name__ == "__main__":
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    print(ray.get([ray.remote(work).remote(number) for number in range(2)]) == [work(0)] * 2)
"""


@experiment("processes: 8 on an empty cache", count=2, quick=0, limit_s=1800)
def empty_cache(count: int, random: Random) -> Outcome:
    """Start eight processes on an empty cache: one compiles, the others wait for it; all give the same bits."""
    outcome = Outcome()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        for number in range(count):
            command = [sys.executable, "-c", ENCODE + "print(work(0)[0])"]
            env = environment(Path(scratch, str(number)))
            started = [stack.enter_context(children.started(command, env)) for _ in range(8)]
            ended = [process.communicate(timeout=600) for process in started]
            digests = {out for out, _ in ended}
            compiled = sum("compiling the kernels for this machine" in errors for _, errors in ended)
            found = f"{len(digests)} results, {compiled} compilations"
            outcome.check(found == "1 results, 1 compilations", "one compiled", found)
    return outcome


@experiment("workers: Dask and Ray", count=2, quick=0, limit_s=600)
def workers(count: int, random: Random) -> Outcome:
    """Encode in workers of Dask and of Ray: they find the kernels in the cache, and give the bits of their parent."""
    outcome = Outcome()
    kinds = {name: source for name, source in (("distributed", DASK), ("ray", RAY)) if importlib.util.find_spec(name)}
    env = environment(None, **{VARIABLE: COMPILE})
    program(ENCODE + "work(0)", env=env)  # fills the cache
    with TemporaryDirectory() as scratch:
        for number in range(count if kinds else 0):
            name = list(kinds)[number % len(kinds)]
            script = Path(scratch, f"{name}_script.py")  # a new process imports it
            script.write_text(ENCODE + kinds[name])
            ended = program(str(script), limit_s=200.0, env=env, script=True)
            right = ended.code == 0 and ended.out.strip().endswith("True")
            outcome.check(right, name, f"{name}: {ended.out}{ended.errors[-2000:]}")
    if not kinds:
        outcome.skipped = "neither Dask's distributed nor Ray is installed"
    return outcome

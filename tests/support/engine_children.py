"""Programs that the engine's tests start as child processes: `-m tests.support.engine_children NAME [FOLDER]`.

Each prints one line of JSON. FOLDER is the folder of a model; without it the programs use a small random model.
"""

import faulthandler
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.engine.runtime import workers
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support.memory import peak_memory

NAMES = ("run_pass", "exchange_float_mode")  # of kernels/entry.py
PATIENCE = 300  # seconds after which a child is considered stalled
TEXTS = ("a", "", "The quick brown fox jumps over the lazy dog.", "words and words " * 10, "an end, " * 30)
SMALL = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY),
    max_position_embeddings=128,
    hidden_size=80,
    num_hidden_layers=2,
    num_attention_heads=5,
    intermediate_size=200,
    max_seq_length=128,
)
SMALL_MPNET = replace(
    SMALL, max_position_embeddings=130, type_vocab_size=0, hidden_act="silu", model_type="mpnet", padding_idx=1,
    relative_attention_num_buckets=32,
)  # fmt: skip
PUBLISHED_SIZES = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY),
    max_position_embeddings=256,
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    max_seq_length=256,
)


def load(folder, threads=None):
    return SentenceEncoder(folder, threads=threads) if folder else SentenceEncoder.random(SMALL, 7, threads=threads)


def sha256(model, texts=TEXTS):
    """The SHA-256 of the texts' vectors, which must be the same when the texts are encoded one by one."""
    together = model.encode(texts, on_truncation="ignore")
    alone = [model.encode(text, on_truncation="ignore") for text in texts]
    assert b"".join(vector.tobytes() for vector in alone) == together.tobytes()
    return hashlib.sha256(together.tobytes()).hexdigest()


def bits(folder):
    """The SHA-256 of the vectors for one and two threads, the fingerprint, and whether Numba was imported."""
    digests = {f"random, {threads}": sha256(load(None, threads)) for threads in (1, 2)}
    digests |= {
        f"random MPNet, {threads}": sha256(SentenceEncoder.random(SMALL_MPNET, 7, threads=threads))
        for threads in (1, 2)
    }
    if folder:
        digests |= {f"published, {threads}": sha256(load(folder, threads)) for threads in (1, 2)}
    return {"sha256": digests, "fingerprint": load(None, 2).fingerprint(), "numba": "numba" in sys.modules}


def code(folder):
    """The same, for kernels that this process compiles; and their target, and facts about their code."""
    from minilm_np.engine.float32.kernels import entry
    from minilm_np.engine.runtime import simd

    compiled: dict[str, Any] = {}
    compile_entry = entry.compile_entry
    entry.compile_entry = lambda name: compiled.setdefault(name, compile_entry(name))
    result = bits(folder)
    assembly = "\n".join(compiled[name].library.get_asm_str() for name in NAMES)
    ir = "\n".join(compiled[name].library.get_llvm_str() for name in NAMES)
    bodies = re.findall(r"^define .*?^}", ir, re.MULTILINE | re.DOTALL)
    return result | {
        "target": simd.TARGET,
        "functions": len(bodies),
        "zmm": len(re.findall(r"\bvfmadd\w+ps\b.*%zmm", assembly)),
        "ymm": len(re.findall(r"\bvfmadd\w+ps\b.*%ymm", assembly)),
        "fma": len(re.findall(r"\bvfn?m(?:add|sub)", assembly)),
        "libm": sorted(set(re.findall(r"\b(?:fmaf?|expf?|erff?|sqrtf?|roundevenf?|floorf?|rintf?)@PLT", assembly))),
        "double": sum(len(re.findall(r"\bdouble\b", body)) for body in bodies),
        "fast": sorted(
            {word for body in bodies for word in re.findall(r"\b(?:fast|reassoc|contract|afn|fmuladd)\b", body)}
        ),
    }


def memory(folder):
    """Peak resident size in MB: with the kernels, after loading the model, after one text, and after many, twice."""
    from minilm_np.engine.float32 import loading

    loading.load()  # may load LLVM, which takes 60 MB
    peaks = {"kernels": peak_memory() / 1e6}
    model = load(folder, 2)
    peaks["load"] = peak_memory() / 1e6
    model.encode(TEXTS[0])
    peaks["text"] = peak_memory() / 1e6
    for _ in range(4):
        model.encode(TEXTS[2])
        model.encode([TEXTS[2]] * 200)
    peaks["first"] = peak_memory() / 1e6
    for _ in range(4):
        model.encode(TEXTS[2])
        model.encode([TEXTS[2]] * 200)
    return peaks | {"last": peak_memory() / 1e6}


# ---- processes -------------------------------------------------------------------------------------------------------


def forked(function):
    """Call a function in a forked process and return its result."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(PATIENCE)  # kills it
        os.write(write, json.dumps(function()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(answer)


def forks(folder):
    """SHA-256s of a parent, a child, a grandchild; of children forked while other threads encode; of the parent."""
    model = load(folder, 2)

    def digest():
        return sha256(model)

    digests = [digest(), *forked(lambda: [digest(), forked(digest), digest()])]
    over, started = threading.Event(), threading.Semaphore(0)

    def go_on():
        while not over.is_set():
            model.encode([TEXTS[2]] * 100)
            model.encode(TEXTS[2])
            started.release()

    others = [threading.Thread(target=go_on) for _ in range(3)]
    for other in others:
        other.start()
    for _ in others:
        started.acquire()
    digests += [forked(digest) for _ in range(8)]
    over.set()
    for other in others:
        other.join()
    return [*digests, digest()]


def pools(folder):
    """SHA-256s of the parent, and of processes started by spawn and forkserver that received the pickled model."""
    model = load(folder, 2)
    digests = [sha256(model)]
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            digests += pool.map_async(sha256, [model, pickle.loads(pickle.dumps(model))]).get(PATIENCE)
    return digests


def interrupt(folder):
    """Ctrl-C in the middle of a long list, on one thread and on two.

    Returns for each: seconds until the answer, texts completed then, texts completed a moment later, whether a later
    call has the same bits.
    """
    model, result = SentenceEncoder.random(PUBLISHED_SIZES, threads=2), []
    before = sha256(model, TEXTS[:3])
    texts = [[5] * 256] * 10_000
    for threads in (1, 2):
        model = SentenceEncoder.random(PUBLISHED_SIZES, threads=threads)
        done: list[int] = []
        sent: list[float] = []

        def report(count, done=done, sent=sent):
            done.append(count)
            if not sent:
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

        try:
            model.model.engine.encode(texts, normalize=False, report=report)
        except KeyboardInterrupt:
            answered = time.monotonic() - sent[0]
        first = sum(done)
        time.sleep(0.3)
        result.append([answered, first, sum(done), sha256(model, TEXTS[:3]) == before])
    return result


def crowded(folder):
    """SHA-256s of models with two and four threads beside busy processes; first on all CPUs, then on one."""
    processors = sorted(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * len(processors))]
    try:
        models = [load(folder, threads) for threads in (2, 4)]
        digests = [sha256(model) for model in models]
        os.sched_setaffinity(0, processors[:1])
        return [*digests, *(sha256(model) for model in models), sha256(load(folder, 2))]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def default_threads(folder):
    """The default number of threads in a process that may use one CPU only."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    return workers.default_threads()


PROGRAMS = (bits, code, memory, forks, pools, interrupt, crowded, default_threads)


def main():
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    # Python 3.12 and later warn about forks, which are what is tested here
    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
    program = next(program for program in PROGRAMS if program.__name__ == sys.argv[1])
    result = program(sys.argv[2] if len(sys.argv) > 2 else None)
    print(json.dumps(result, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()

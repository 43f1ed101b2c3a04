"""Limits of the system on memory and on threads: an error that says so, or the right bits."""

import os
import re
import resource
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from minilm_np import MiniLMError, ModelConfig, SentenceEncoder
from minilm_np.engine.registry import BACKENDS
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.faults import Outcome, children, experiment
from tests.faults.calls import TEXTS, bits
from tests.faults.writers import CONFIG, warnings_of

LARGE = ModelConfig(  # 14 MB of weights
    vocab_size=len(CHARACTER_VOCABULARY), hidden_size=384, num_hidden_layers=2, num_attention_heads=12,
    intermediate_size=1536, max_position_embeddings=128, max_seq_length=128,
)  # fmt: skip
ROOM = 320 << 20  # bytes: more than loading and encoding need


def address_space() -> int:
    """The bytes of this process that RLIMIT_AS counts."""
    found = re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def data_size() -> int:
    """The bytes of this process that RLIMIT_DATA counts."""
    found = re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


@experiment("limits: memory", count=300, quick=8)
def memory(count: int, random: Random) -> Outcome:
    """Load a model and encode with little memory (RLIMIT_AS, RLIMIT_DATA): an error that says so, or the same bits."""
    outcome = Outcome()
    texts = TEXTS * 8
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        SentenceEncoder.random(LARGE, 1, backend="numpy").save_pretrained(folder)

        def use(backend: str) -> str:
            return bits(SentenceEncoder(folder, backend=backend).encode(texts, on_truncation="ignore"))

        expected = {backend: children.forked(partial(use, backend)).out for backend in BACKENDS}
        for _ in range(count):
            backend, name = random.choice(("numba", "numba", "numpy")), random.choice(("AS", "DATA"))
            room = int(ROOM * random.random() ** 2)

            def limited(backend: str = backend, name: str = name, room: int = room) -> str:
                os.environ["RUST_BACKTRACE"] = "0"  # without memory, Rust waits for ever as it prints one
                used = address_space() if name == "AS" else data_size()
                number = getattr(resource, f"RLIMIT_{name}")
                resource.setrlimit(number, (used + room, resource.RLIM_INFINITY))
                try:
                    return use(backend)
                except (MiniLMError, MemoryError, ImportError, OSError) as error:
                    return f"{type(error).__name__}: {error}"

            ended = children.forked(limited, limit_s=60)
            where = f"{room} bytes for {backend}, by RLIMIT_{name}"
            if ended.out == expected[backend]:
                outcome.hold("same bits")
            elif ended.code == 0 and ": " in ended.out:
                outcome.hold(ended.out.split(":")[0])
            elif ended.code == -6 and "memory" in ended.errors:  # what Rust's libraries and LLVM do
                outcome.hold("abort that says so")
            else:
                outcome.fail(f"{where}: ended with {ended.code}: {ended.out[:100]} {ended.errors[-300:]}")
    return outcome


@experiment("limits: threads", count=100, quick=4)
def thread_limit(count: int, random: Random) -> Outcome:
    """Load and encode where few or no threads can be started (RLIMIT_NPROC, as another user): the same bits."""
    outcome = Outcome()
    encoder = SentenceEncoder.random(CONFIG, 1, threads=2)  # has the kernels, and has started no thread
    expected = children.forked(lambda: bits(encoder.encode(TEXTS * 20, on_truncation="ignore"))).out
    for number in range(count):
        threads, allowed = random.choice((2, 4, 16)), random.choice((1, 2, 4, 8))

        def limited(number: int = number, threads: int = threads, allowed: int = allowed) -> str:
            resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))
            if os.getuid() == 0:  # who has no limit; nobody else is this user
                os.setuid(60_000 + os.getpid() % 5000)
            with warnings_of("minilm_np"):
                model = SentenceEncoder.random(CONFIG, 1, threads=threads)
                return bits(model.encode(TEXTS * 20, on_truncation="ignore"))

        ended = children.forked(limited, limit_s=30)
        what = (
            f"{threads} threads, {allowed} allowed: ended with {ended.code}: {ended.out[:100]} {ended.errors[-1000:]}"
        )
        outcome.check(ended.out == expected, "same bits", what)
    return outcome

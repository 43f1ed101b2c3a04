"""One model in many threads, and in hosts with other float modes: the bits of a call do not depend on them."""

import ctypes
import platform
import threading
import time
import warnings
from collections.abc import Callable
from random import Random

import numpy as np

from minilm_np import SentenceEncoder
from minilm_np.engine.registry import COMPUTE_TYPES
from tests.faults import Outcome, experiment, writers
from tests.faults.calls import TEXTS, bits, not_called, public_calls
from tests.faults.writers import CONFIG

PATIENCE = 120.0  # seconds


@experiment("threads: 64 call every method", count=6400, quick=640)
def threads(count: int, random: Random) -> Outcome:
    """Call all public methods and functions from 64 threads at the same time: the bits are those of one thread."""
    outcome, n_threads = Outcome(), 64
    encoder = SentenceEncoder.random(CONFIG, 1, threads=2)
    calls = public_calls(encoder)
    if missing := not_called(calls):
        outcome.fail(f"no call of {', '.join(sorted(missing))}")
    expected = {name: bits(call()) for name, call in calls.items()}
    start = threading.Barrier(n_threads)

    def work(names: list[str]) -> None:
        start.wait(PATIENCE)
        for name in names:
            try:
                outcome.check(bits(calls[name]()) == expected[name], "same bits", f"{name}: other bits")
            except Exception as error:
                outcome.fail(f"{name}: {type(error).__name__}: {error}")

    plans = [random.choices(list(calls), k=count // n_threads) for _ in range(n_threads)]
    started = [threading.Thread(target=work, args=(plan,), daemon=True) for plan in plans]
    end = time.monotonic() + PATIENCE + count / 20
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(max(0.0, end - time.monotonic()))
    if hanging := sum(thread.is_alive() for thread in started):
        outcome.fail(f"{hanging} threads did not end")
    return outcome


@experiment('np.seterr(all="raise")', count=500, quick=50)
def seterr(count: int, random: Random) -> Outcome:
    """Call all public methods and functions while NumPy raises its floating-point errors: the same bits."""
    outcome = Outcome()
    calls = public_calls(SentenceEncoder.random(CONFIG, 1, threads=2))
    expected = {name: bits(call()) for name, call in calls.items()}
    for name in _all_or_drawn(list(calls), count, random):
        try:
            with np.errstate(all="raise"), warnings.catch_warnings():
                warnings.simplefilter("error")
                found = bits(calls[name]())
            outcome.check(found == expected[name], "same bits", f"{name}: other bits")
        except Exception as error:
            outcome.fail(f"{name}: {type(error).__name__}: {error}")
    return outcome


def _all_or_drawn(names: list[str], count: int, random: Random) -> list[str]:
    """`count` names, each of them equally often."""
    return [name for _ in range(-(-count // len(names))) for name in random.sample(names, len(names))][:count]


# ---- float modes -----------------------------------------------------------------------------------------------------

LIBM = ctypes.CDLL("libm.so.6")
# of fenv_t: the place of the word with the mode; the bits that flush subnormals; the rounding modes of fesetround
_FENV = {
    "x86_64": (28, {"FTZ": 0x8000, "DAZ": 0x40, "FTZ and DAZ": 0x8040}, {"down": 0x400, "up": 0x800, "zero": 0xC00}),
    "aarch64": (0, {"FZ": 1 << 24}, {"up": 0x400000, "down": 0x800000, "zero": 0xC00000}),
}


def float_mode() -> bytes:
    """The word of the float environment that has the mode, without the flags of exceptions that have occurred."""
    place = _FENV[platform.machine()][0]
    environment = ctypes.create_string_buffer(64)
    LIBM.fegetenv(environment)
    word = int.from_bytes(environment.raw[place : place + 4], "little")
    return (word & ~0x3F if platform.machine() == "x86_64" else word).to_bytes(4, "little")


def set_float_mode(name: str) -> None:
    """Set a mode of `_FENV` in this thread."""
    place, flushing, rounding = _FENV[platform.machine()]
    if name in rounding:
        assert LIBM.fesetround(rounding[name]) == 0
        return
    environment = ctypes.create_string_buffer(64)
    LIBM.fegetenv(environment)
    word = int.from_bytes(environment.raw[place : place + 4], "little") | flushing[name]
    ctypes.memmove(ctypes.addressof(environment) + place, word.to_bytes(4, "little"), 4)
    assert LIBM.fesetenv(environment) == 0


def in_thread(work: Callable[[], str], mode: str | None) -> tuple[str, bool]:
    """What `work` returns in a new thread with a float mode, and whether the thread has the mode afterwards."""
    found: list[tuple[str, bool]] = []

    def run() -> None:
        if mode:
            set_float_mode(mode)
        before = float_mode()
        try:
            result = work()
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        found.append((result, float_mode() == before))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else ("no end", False)


def subnormal_model(compute_type: str) -> SentenceEncoder:
    """A model that computes with subnormal numbers: its values are tiny, and its output layers scale them back."""
    encoder = SentenceEncoder.random(CONFIG, 1, backend="numpy")
    weights = {name: array.copy() for name, array in encoder.weights.items()}
    for name, array in weights.items():
        if ".self.value." in name:
            array *= np.float32(2.0**-124)
        elif ".attention.output.dense.weight" in name:
            array *= np.float32(2.0**122)
    return SentenceEncoder.from_weights(
        encoder.config, encoder.tokenizer, weights, compute_type=compute_type, threads=2
    )


@experiment("float modes: FTZ, DAZ, rounding", count=400, quick=28)
def float_modes(count: int, random: Random) -> Outcome:
    """Encode in a thread that flushes subnormals, or rounds up, down or to zero: the same bits, and its mode stays."""
    outcome = Outcome()
    modes = [*_FENV[platform.machine()][1], *_FENV[platform.machine()][2]]
    models = [subnormal_model("float32"), SentenceEncoder.random(CONFIG, 2, threads=2)]
    batches = [TEXTS, TEXTS * 20, TEXTS[:1]]

    def encode(number: int) -> str:
        model, texts = models[number % len(models)], batches[number % len(batches)]
        return bits(model.encode(texts, on_truncation="ignore"))

    expected = [encode(number) for number in range(len(models) * len(batches))]
    for _ in range(count):
        mode, number = random.choice(modes), random.randrange(len(expected))
        found, kept = in_thread(lambda number=number: encode(number), mode)  # type: ignore[misc]
        what = "other bits" if len(found) == len(expected[0]) else found
        right = found == expected[number] and kept
        outcome.check(right, "same bits", f"{mode}, case {number}: {what if kept else 'the mode has changed'}")
    return outcome


@experiment("float modes: loading", count=60, quick=6)
def float_modes_loading(count: int, random: Random) -> Outcome:
    """Load a model of each compute type in a thread with another float mode, or encode there: the same bits."""
    outcome = Outcome()
    modes = [*_FENV[platform.machine()][1], *_FENV[platform.machine()][2]]
    with writers.saved_model() as folder:

        def load(compute_type: str) -> SentenceEncoder:
            return SentenceEncoder(folder, compute_type=compute_type, threads=2)

        def encode(model: SentenceEncoder) -> str:
            return bits(model.encode(TEXTS, on_truncation="ignore"))

        loaded = {compute_type: load(compute_type) for compute_type in COMPUTE_TYPES}
        expected = {compute_type: encode(model) for compute_type, model in loaded.items()}
        for _ in range(count):
            mode, compute_type, loads = random.choice(modes), random.choice(COMPUTE_TYPES), random.random() < 0.5

            def work(compute_type: str = compute_type, loads: bool = loads) -> str:
                return encode(load(compute_type) if loads else loaded[compute_type])

            found, kept = in_thread(work, mode)
            what = f"{mode}, {compute_type}, {'loaded' if loads else 'encoded'} in it: {found}, expected "
            outcome.check(found == expected[compute_type] and kept, "same bits", what + expected[compute_type])
    return outcome

"""The parts of the time from process start to first vector, measured in that process, for `benchmarks.engine`.

    python -m benchmarks.start_parts COMPUTE_TYPE BEGIN

BEGIN is the value of `time.perf_counter()` in the parent, right before it started this process. Prints the seconds of
each part as JSON. A part that begins within another one interrupts it, so no time counts twice.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

FIRST_TEXT = "This is an example sentence"
REST = "everything else"
PYTHON = "starting Python"
# by part: the modules that it imports, in the order of their dependence
IMPORTS = {
    "importing numpy": ("numpy",),
    "importing tokenizers": ("tokenizers",),
    "importing the package": (
        "minilm_np.sentence_encoder", "minilm_np.engine.float32.engine", "minilm_np.engine.integer.engine",
    ),
}  # fmt: skip


class Parts:
    """The seconds of each part of a process that began at `begin`."""

    def __init__(self, begin: float) -> None:
        self.seconds: dict[str, float] = {}
        self._current, self._since = PYTHON, begin

    def switch(self, name: str) -> str:
        """Begin a part. Returns the part that was interrupted."""
        now = time.perf_counter()
        self.seconds[self._current] = self.seconds.get(self._current, 0.0) + now - self._since
        before, self._current, self._since = self._current, name, now
        return before

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as a part. If it returns an iterator, that is a part, too."""

        def run(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                result = function(*arguments, **named)
            return self._iterated(name, result) if isinstance(result, Iterator) else result

        return run

    def _iterated(self, name: str, items: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


def main(compute_type: str, begin: str) -> None:
    parts = Parts(float(begin))
    parts.switch(REST)
    for name, modules in IMPORTS.items():
        with parts.part(name):
            for module in modules:
                __import__(module)

    from minilm_np import SentenceEncoder
    from minilm_np.encoding import loaded_model
    from minilm_np.engine.float32 import loading as float32_loading
    from minilm_np.engine.integer import loading as integer_loading
    from minilm_np.engine.registry import EngineKind
    from minilm_np.engine.weights_cache import WeightsCache

    for name, owner, attribute in (
        ("finding and verifying the files", loaded_model, "resolve"),
        ("tokenizer.json", loaded_model, "load_tokenizer"),
        ("reading the checkpoint", loaded_model, "iter_checkpoint"),
        ("waiting for the packed weights", WeightsCache, "read"),
        ("packing the weights", EngineKind, "make"),
        ("loading the compiled kernels", float32_loading, "load"),
        ("loading the compiled kernels", integer_loading, "load"),
    ):
        setattr(owner, attribute, parts.timed(name, getattr(owner, attribute)))
    encoder = SentenceEncoder(compute_type=compute_type)
    with parts.part("encoding the first text"):
        encoder.encode(FIRST_TEXT)
    parts.switch(REST)

    import json

    print(json.dumps(parts.seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])

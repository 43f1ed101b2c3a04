"""The processes of the contestants of `benchmarks.peers`, and what they are asked."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks import exports
from benchmarks.common import Worker, WorkerError, thread_variables, write_json
from benchmarks.contestants import CONTESTANTS, OURS, READY
from benchmarks.peers_accuracy import Vectors

Answer = TypeVar("Answer")


class UnfitError(Exception):
    """A contestant cannot run here, or computes something else than the model."""


def contestants_here(only: str | None, left_out: dict[str, str]) -> dict[str, str]:
    """Return the contestants that can run here, each with the file that it loads ("" for the published folder)."""
    chosen = {
        key: way
        for key, way in CONTESTANTS.items()
        if not only or way.engine == OURS or key.startswith(tuple(only.split(",")))
    }
    models = {}
    for key, way in chosen.items():
        if importlib.util.find_spec(way.engine.module) is None:
            left_out[key] = f"{way.engine.module} is not installed"
        else:
            models[key] = ""
    exports.prepare(list(dict.fromkeys(way.export for key, way in chosen.items() if key in models and way.export)))
    for key in list(models):
        try:
            models[key] = str(exports.find(name)) if (name := chosen[key].export) else ""
        except exports.ExportError as error:
            left_out[key] = str(error)
            del models[key]
    return models


def start(key: str, folder: str, model: str, threads: int, task: str) -> Worker:
    """Start the process of a contestant."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "true"}
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(exports.cache() / "torchinductor")}
    arguments = ("-m", "benchmarks.contestants", key, folder, model, str(threads), task)
    return Worker(*arguments, **thread_variables(threads), **quiet, **compiled)


class Field:
    """The running contestants, in the order of the list. One that fails is removed, and added to `left_out`.

    Use it as a context: all processes end with it.
    """

    def __init__(
        self,
        models: dict[str, str],
        folder: str,
        threads: int,
        texts: dict[str, list[str]],
        left_out: dict[str, str],
    ) -> None:
        self._place = tempfile.TemporaryDirectory()
        write_json(Path(self._place.name) / "texts.json", texts)
        self._left_out = left_out
        self._workers: dict[str, Worker] = {}
        for key, model in models.items():  # one after the other, so that they do not slow each other
            self._workers[key] = start(key, folder, model, threads, "serve")
            self.each(self._begin, [key])

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._workers))

    def __enter__(self) -> "Field":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers.values():
            worker.close()
        self._place.cleanup()

    def each(self, call: Callable[[str], Answer], keys: Sequence[str] | None = None) -> dict[str, Answer]:
        """Return call(key) for each contestant. One that is unfit, or whose process ends, is removed."""
        found = {}
        for key in self if keys is None else keys:
            try:
                found[key] = call(key)
            except (WorkerError, UnfitError) as reason:
                if CONTESTANTS[key].engine == OURS:
                    raise SystemExit(f"{key}: {reason}") from reason
                self._left_out[key] = str(reason)
                self._workers.pop(key).close()
        return found

    def _begin(self, key: str) -> None:
        if (answer := self._workers[key].answer()) != READY:
            raise UnfitError(answer)
        self.ask(key, "set_texts", path=f"{self._place.name}/texts.json")

    def ask(self, key: str, task: str, **request: Any) -> Any:
        """Send a request: the name and the arguments of a method of `contestants.Served`."""
        return self._workers[key].ask(task=task, **request)

    def vectors(self, key: str, workload: str) -> Vectors:
        """Return the vectors of a workload."""
        path = f"{self._place.name}/vectors.npy"
        self.ask(key, "vectors", workload=workload, path=path)
        found: Vectors = np.load(path)
        return found

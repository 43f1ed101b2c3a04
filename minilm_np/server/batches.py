"""What the engine threads compute: `Job`, the texts of one request; `compute`, one batch of texts of several jobs."""

import asyncio
from collections.abc import Sequence

import numpy as np

from minilm_np.encoding import prompts
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.engine.classifier import Classifier
from minilm_np.engine.doubles import unit_length
from minilm_np.engine.protocol import Engine, Packed, PackingEngine, Vectors
from minilm_np.server.fair_queue import Piece

Ids = Sequence[Sequence[int]]


class Engines:
    """A model as the engine threads use it: one engine divides a batch among all threads, one uses the calling thread.

    classifier: of a cross-encoder, whose results are logits; None: the results are vectors.
    n_threads: the number of threads that can use the second engine at a time.
    """

    def __init__(self, model: LoadedModel, classifier: Classifier | None = None) -> None:
        self._together, self._alone = model.engine, _on_one_thread(model)
        self._pooling_mode = model.config.pooling_mode
        self._classifier = classifier
        self.n_threads = 1 if self._alone is None else self._together.threads or 1

    def results(self, ids: Ids, types: Ids | None, first: int, *, normalize: bool, is_alone: bool) -> Vectors:  # (n, R)
        """Return the vectors or logits of n texts. types: the token types. first: the first token that is pooled."""
        engine = self._together if is_alone or self._alone is None else self._alone
        if self._classifier is None:
            return prompts.encode(engine, ids, first, self._pooling_mode, normalize=normalize, report=_ignore)
        return self._classifier.logits(engine.encode(ids, normalize=False, report=_ignore, token_type_ids=types))


class Job:
    """The texts of one request, and what is computed of each. ids, taken, credit: as `fair_queue.Work` has them.

    size: the length of a result: the first numbers of a vector, or the number of labels. types: the token types of
    pairs. normalize: scale a vector to unit length. whole: no number of a vector is left out. start: the first token
    that is pooled.
    """

    __slots__ = ("credit", "done", "engines", "ids", "left", "normalize", "results", "start", "taken", "types", "whole")

    def __init__(
        self, engines: Engines, ids: Ids, size: int, *, types: Ids | None = None, normalize: bool = False,
        whole: bool = True, start: int = 0,
    ) -> None:  # fmt: skip
        self.engines = engines
        self.ids, self.types = ids, types
        self.start = start
        self.taken = self.credit = 0
        self.left = len(ids)  # texts without a result
        self.normalize = normalize
        self.whole = whole
        self.results: Vectors = np.empty((len(ids), size), np.float32)
        self.done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()


def compute(batch: list[Piece[Job]], *, is_alone: bool) -> None:
    """Compute the results of a batch. is_alone: all threads may share it, because there is nothing else to compute."""
    alike: dict[tuple[Engines, bool, int], list[Piece[Job]]] = {}  # by the arguments of `Engines.results`
    for piece in batch:
        job = piece.work
        alike.setdefault((job.engines, job.normalize and job.whole, job.start), []).append(piece)
    for (engines, normalize, first), pieces in alike.items():
        ids = [one.work.ids[text] for one in pieces for text in one.texts]
        types = [one.work.types[text] for one in pieces if one.work.types is not None for text in one.texts]
        found = engines.results(ids, types or None, first, normalize=normalize, is_alone=is_alone)
        start = 0
        for job, texts in pieces:
            rows = found[start : start + len(texts), : job.results.shape[1]]
            job.results[texts.start : texts.stop] = unit_length(rows) if job.normalize and not job.whole else rows
            start += len(texts)


def _on_one_thread(model: LoadedModel) -> Engine | None:
    """An engine with the same weights, in the same memory, that uses the calling thread only; None if there is none."""
    engine = model.engine
    if engine.threads in (None, 1) or not isinstance(engine, PackingEngine):
        return None
    return model.kind.make(model.config, Packed(engine.packed), 1)


def _ignore(done: int) -> None:
    pass

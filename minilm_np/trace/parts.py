"""What the traces of texts and of pairs share: the engine that computes them, and the characters of their tokens."""

import importlib.metadata
from contextlib import suppress

from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.engine import registry
from minilm_np.engine.protocol import Engine
from minilm_np.engine.registry import EngineKind
from minilm_np.text.tokenizer import TextTokenizer

Offsets = list[tuple[int, int]]  # start and stop of each token


def kind_of(model: LoadedModel, backend: str, dtype: str) -> EngineKind:
    """Return the kind of engine that computes a trace: that of the model, if it has this backend."""
    kind = model.kind if model.kind.backend == backend else registry.find(backend)
    kind.check_dtype(dtype)
    return kind


def engine_of(model: LoadedModel, kind: EngineKind, dtype: str) -> Engine:
    """Return the engine of the model, if it is of this kind; else one with the same weights."""
    engine = model.engine
    if model.kind is kind and dtype == kind.dtypes[0]:
        return engine
    return kind.make(model.config, engine.weights().items(), 1 if kind.own_threads else None, dtype)


def versions(kind: EngineKind) -> dict[str, str]:
    """Return the versions of the packages that compute a trace, if they are installed: kernels that were compiled in
    advance run without Numba.
    """
    found = {}
    for name in ("minilm-np", *kind.packages):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def offsets_of(tokenizer: TextTokenizer, text: str, n_tokens: int) -> Offsets:
    """Return the characters that the first tokens of a text come from, start and stop of each."""
    offsets: Offsets = []
    for start, encodings in tokenizer.encodings(text):
        offsets += [(start + first, start + last) for encoding in encodings for first, last in encoding.offsets]
        if len(offsets) >= n_tokens:
            break
    return offsets[:n_tokens]

"""A model as one frozen value: config, tokenizer, engine, settings and origin. `SentenceEncoder` holds one.

Code that needs a model (traces, windows, verification, training) takes a `LoadedModel`, or any object that has one as
its attribute `model`. It does not need the public class.
"""

import dataclasses
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from minilm_np.engine import registry
from minilm_np.engine.float_mode import standard_float_mode
from minilm_np.engine.protocol import Engine, Packed, PackingEngine, Vectors, Weights
from minilm_np.engine.registry import EngineKind
from minilm_np.engine.weights_cache import UnusableCacheError, WeightsCache
from minilm_np.errors import CheckpointError, InputValueError
from minilm_np.model_files.checkpoint import iter_checkpoint, read_pooler
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.hub import ModelFolder, resolve
from minilm_np.model_files.manifest import manifest_for, verify
from minilm_np.model_files.settings import ModelSettings, load_settings, overridden
from minilm_np.model_files.steady import Identity, identity, read_steadily
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import load_tokenizer

M = TypeVar("M")

_logger = logging.getLogger("minilm_np")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to encode.

    config: sizes, pooling, limits. tokenizer: text to token ids. engine: token ids to vectors, of this `kind`.
    settings: prompts, similarity, the number of dimensions to keep. origin: the folder that it was loaded from, None
    for random weights. requested_threads: the argument `threads` that the engine was made with. pooler: the weights of
    BERT's pooler, which no sentence vector depends on; they are only saved again. origin_identity: of the folder when
    it was read.
    """

    config: ModelConfig
    tokenizer: TextTokenizer
    engine: Engine
    kind: EngineKind
    settings: ModelSettings
    origin: ModelFolder | None
    requested_threads: int | None
    pooler: Weights = field(default_factory=dict)
    origin_identity: Identity | None = None

    def shown_as(self, class_name: str) -> str:
        """The `repr` of an object of this class that holds the model."""
        origin = "random weights" if self.origin is None else repr(str(self.origin.path))
        kind = f"backend={self.kind.backend!r}"
        if self.kind.compute_type != "float32":
            kind += f", compute_type={self.kind.compute_type!r}"
        return f"{class_name}({origin}, {kind})"

    @property
    def name(self) -> str:
        """The model's name, or else its folder; "random weights" for a model without a folder."""
        if self.origin is None:
            return "random weights"
        return self.origin.name or str(self.origin.path)

    def with_limit(self, limit: int) -> "LoadedModel":
        """Return the same model with another max_seq_length."""
        config = dataclasses.replace(self.config, max_seq_length=limit)
        return self._with(config=config, tokenizer=self.tokenizer.with_limit(config))

    def with_settings(self, settings: ModelSettings) -> "LoadedModel":
        """Return the same model with other settings."""
        return self._with(settings=settings)

    def _with(self, **changes: Any) -> "LoadedModel":
        changed = dataclasses.replace(self, **changes)
        if "_weights_digest" in vars(self):  # the weights are the same, and their digest takes time
            vars(changed)["_weights_digest"] = self.weights_digest
        return changed

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the weights instead of the engine, which holds addresses and threads."""
        of_engine = (self.kind.backend, self.kind.compute_type, self.engine.weights(), self.requested_threads)
        return _restored, (*of_engine, self.config, self.tokenizer, self.settings, self.origin, self.pooler)

    @property
    def weights_digest(self) -> str:
        """SHA-256 over all weights in the model's order: a line with name and shape, then the float32 bytes of each."""
        cached = vars(self)  # not `cached_property`: that of Python 3.11 has a lock, which a fork may leave locked
        if "_weights_digest" not in cached:
            cached["_weights_digest"] = weights_sha256(self.engine.iter_weights())
        return cached["_weights_digest"]

    def fingerprint(self, texts: Sequence[str]) -> str:
        """Return a SHA-256 over the contract's version, the weights and the vectors of these texts.

        The vectors are whole and have no prompt. A text without tokens has no vector, and is left out. Raises
        InputValueError: the engine has no contract.
        """
        if self.kind.contract is None:
            raise InputValueError(
                f"backend {self.kind.backend!r} has no numerical contract: a fingerprint needs backend 'numba'"
            )
        digest = hashlib.sha256(f"minilm_np contract {self.kind.contract}\n{self.weights_digest}\n".encode())
        ids = list(filter(None, self.tokenizer(texts).ids))
        vectors = self.engine.encode(ids, normalize=False, report=lambda done: None)
        digest.update(vectors.astype("<f4", copy=False).tobytes())
        return digest.hexdigest()


def weights_sha256(weights: Iterable[tuple[str, Vectors]]) -> str:
    """SHA-256 over named weights: a line with name and shape, then the float32 bytes of each."""
    digest = hashlib.sha256()
    for name, array in weights:
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, "<f4").reshape(-1).data)
    return digest.hexdigest()


class HasModel(Protocol):
    """Anything with a loaded model, such as a `SentenceEncoder`."""

    @property
    def model(self) -> LoadedModel: ...


def model_of(encoder: LoadedModel | HasModel) -> LoadedModel:
    """Return the loaded model of an encoder, or the model itself."""
    return encoder if isinstance(encoder, LoadedModel) else encoder.model


def load_model(
    name_or_path: str | os.PathLike[str],
    kind: EngineKind,
    *,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity_fn_name: str | None = None,
    truncate_dim: int | None = None,
    local_files_only: bool = False,
    threads: int | None = None,
) -> LoadedModel:
    """Return the model of a name or a folder; the arguments are those of `SentenceEncoder`.

    Raises HubError, ConfigError, CheckpointError, TokenizerError, InputTypeError, InputValueError.
    """
    kind.check_threads(threads)

    def load(cache: WeightsCache) -> LoadedModel:
        def read() -> _Opened:
            folder = resolve(name_or_path, local_files_only=local_files_only, is_known=cache.has)
            path, found = folder.path, identity(folder.path)
            settings = overridden(load_settings(path), prompts, default_prompt_name, similarity_fn_name, truncate_dim)
            config = load_config(path)
            return _Opened(
                folder, found, settings, config, load_tokenizer(path, config), *_weights(folder, config, cache)
            )

        folder, found, settings, config, tokenizer, weights, pooler = read_steadily(name_or_path, read)
        engine = kind.make(config, weights, threads, reread=lambda: reread(folder, config))
        if cache.is_used:
            pooler = cache.other
        if folder.verified and isinstance(engine, PackingEngine):
            cache.write(config, engine.packed(), pooler)
        return LoadedModel(config, tokenizer, engine, kind, settings, folder, threads, pooler, found)

    return with_cache(kind, load)


def with_cache(kind: EngineKind, load: Callable[[WeightsCache], M]) -> M:
    """Return what `load` returns with the cache of packed weights, or without reading it if it is damaged."""
    with standard_float_mode():  # converting and rounding the weights is arithmetic
        with suppress(UnusableCacheError):
            return load(WeightsCache(kind))
        return load(WeightsCache(kind, reads=False))  # from the beginning: the file of weights may not be verified


class _Opened(NamedTuple):
    """What is read of a folder before the engine is made."""

    folder: ModelFolder
    identity: Identity | None
    settings: ModelSettings
    config: ModelConfig
    tokenizer: TextTokenizer
    weights: Packed | Iterable[tuple[str, Vectors]]  # readable also after the folder was replaced
    pooler: Weights  # empty if the weights are from the cache, which has it, too


def _weights(
    folder: ModelFolder, config: ModelConfig, cache: WeightsCache
) -> tuple[Packed | Iterable[tuple[str, Vectors]], Weights]:
    """Return the weights and the pooler, as `_Opened` has them."""
    if cache.is_used:
        return Packed(lambda: cache.read(config)), {}
    rest = iter_checkpoint(folder.path, config)
    first = next(rest)  # opens the files
    return itertools.chain([first], rest), _pooler(folder.path, config)


def reread(folder: ModelFolder, config: ModelConfig, *, classifier: bool = False) -> Iterable[tuple[str, Vectors]]:
    """Read the weights once more; those of a published model are verified again.

    classifier: as for `iter_checkpoint`.
    """
    if folder.name is not None and folder.verified and (manifest := manifest_for(folder.name)):
        verify(folder.path, manifest)
    return iter_checkpoint(folder.path, config, classifier=classifier)


def _pooler(folder: Path, config: ModelConfig) -> Weights:
    """Return the weights of the pooler; none if the folder has none, or broken ones, which encoding does not need."""
    try:
        return read_pooler(folder, config)
    except CheckpointError as error:
        _logger.warning("the pooler is not loaded, and will not be saved with this model: %s", error)
        return {}


def make_model(
    config: ModelConfig,
    tokenizer: TextTokenizer,
    weights: Iterable[tuple[str, Vectors]],
    kind: EngineKind,
    threads: int | None,
    settings: ModelSettings | None = None,
    origin: ModelFolder | None = None,
    pooler: Weights | None = None,
) -> LoadedModel:
    """Return a model with these weights: (name, float32 array) for every parameter of `checkpoint.parameter_shapes`."""
    with standard_float_mode():
        engine = kind.make(config, weights, threads)
    return LoadedModel(config, tokenizer, engine, kind, settings or ModelSettings(), origin, threads, pooler or {})


def _restored(
    backend: str,
    compute_type: str,
    weights: Weights,
    threads: int | None,
    config: ModelConfig,
    tokenizer: TextTokenizer,
    settings: ModelSettings,
    origin: ModelFolder | None,
    pooler: Weights,
) -> LoadedModel:
    """Return the model that was pickled."""
    for array in itertools.chain(weights.values(), pooler.values()):
        array.flags.writeable = False  # pickle does not keep this flag
    kind = registry.find(backend, compute_type)
    return make_model(config, tokenizer, weights.items(), kind, threads, settings, origin, pooler)

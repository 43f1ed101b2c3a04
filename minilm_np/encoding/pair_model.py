"""A cross-encoder as one frozen value, and one call, from pairs of texts to their logits. `CrossEncoder` holds one."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from minilm_np._checks import check_int
from minilm_np._forks import no_fork
from minilm_np.encoding.loaded_model import LoadedModel, make_model, reread, with_cache
from minilm_np.encoding.pipeline import SLICE, Truncation
from minilm_np.engine.classifier import Classifier
from minilm_np.engine.protocol import Packed, PackingEngine, Report, Vectors, Weights
from minilm_np.engine.registry import EngineKind
from minilm_np.engine.weights_cache import WeightsCache
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError
from minilm_np.model_files.checkpoint import head_shapes, iter_checkpoint, read_head
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.cross_encoder_files import Head, load_cross_encoder_config
from minilm_np.model_files.hub import ModelFolder, resolve
from minilm_np.model_files.kinds import ORGANISATION
from minilm_np.model_files.settings import ModelSettings, overridden
from minilm_np.model_files.steady import Identity, identity, read_steadily
from minilm_np.text.pairs import PairTokenizer
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.tokenizer_files import load_tokenizer

WAYS = ("Split the longer text of such a pair",)  # what a caller can do instead of truncating

# Pairs that together exercise every part of an engine: the default of `fingerprint`.
FINGERPRINT_PAIRS = (
    ("How many people live in Berlin?", "Berlin had a population of 3,520,031 in 2019."),
    ("", ""),
    ("Naïve café, RÉSUMÉ: 東京タワー [SEP]", "The quick brown fox jumps over the lazy dog. " * 5),
    ("The quick brown fox jumps over the lazy dog. " * 40, "The quick brown fox jumps over the lazy dog. " * 41),
)


@dataclass(frozen=True, eq=False)
class PairModel:
    """A cross-encoder that is ready to score pairs.

    encoder: the model without its head; its vectors are those of the first tokens. tokenizer: pairs to token ids.
    classifier: first tokens to logits. head: its labels, and the function from logits to scores.
    """

    encoder: LoadedModel
    tokenizer: PairTokenizer
    classifier: Classifier
    head: Head

    @property
    def weights(self) -> Weights:
        """All weights by Hugging Face's names without the prefix `bert.`, float32, read-only."""
        return {**self.encoder.engine.weights(), **self.classifier.weights}

    def with_limit(self, limit: int) -> "PairModel":
        """Return the same model with another max_seq_length. Raises InputTypeError, InputValueError."""
        most = self.encoder.config.max_tokens
        hint = f"a pair has {self.tokenizer.n_special} special tokens, and the model {most} positions"
        limit = check_int("max_length", limit, max(2, self.tokenizer.n_special), most, hint=hint)
        encoder = self.encoder.with_limit(limit)
        return dataclasses.replace(self, encoder=encoder, tokenizer=PairTokenizer(encoder.tokenizer))

    def with_settings(self, settings: ModelSettings) -> "PairModel":
        """Return the same model with other settings."""
        return dataclasses.replace(self, encoder=self.encoder.with_settings(settings))

    def with_activation(self, activation: str) -> "PairModel":
        """Return the same model with another function from logits to scores."""
        return dataclasses.replace(self, head=dataclasses.replace(self.head, activation=activation))

    def require_one_label(self) -> None:
        """Raise InputValueError if the model has several labels, so that its scores give no order."""
        if len(self.head.labels) != 1:
            raise InputValueError(
                f"{self.encoder.name}: expected a model with 1 label, found {len(self.head.labels)}: one score per "
                "text is needed to rank texts"
            )

    def truncation(self, on_truncation: str) -> Truncation:
        """Return a new count of truncated pairs, for `logits`."""
        return Truncation(on_truncation, self.encoder.config, noun="pair", ways=WAYS)

    def fingerprint(self, pairs: Sequence[tuple[str, str]]) -> str:
        """Return a SHA-256 over the contract's version, all weights and the logits of pairs of checked texts.

        Raises InputValueError: the engine has no contract.
        """
        contract = self.encoder.kind.contract
        if contract is None:
            raise InputValueError(
                f"backend {self.encoder.kind.backend!r} has no numerical contract: a fingerprint needs backend 'numba'"
            )
        digest = hashlib.sha256(f"minilm_np cross-encoder, contract {contract}\n".encode())
        digest.update(f"{self.encoder.weights_digest}\n".encode())
        for name, array in self.classifier.weights.items():
            digest.update(f"{name} {array.shape}\n".encode() + array.astype("<f4", copy=False).tobytes())
        logits = self.logits(pairs, lambda done: None, self.truncation("ignore"))
        digest.update(logits.astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def logits(self, pairs: Sequence[tuple[str, str]], report: Report, truncation: Truncation) -> Vectors:
        """Return the logits of n pairs of checked texts, (n, C).

        report: called with the number of pairs finished since the last call. truncation: counts the truncated pairs.
        Raises InputValueError (a pair is truncated, if that is an error), NonFiniteError; both name the pair.
        """
        logits = np.empty((len(pairs), len(self.head.labels)), np.float32)
        for start in range(0, len(pairs), SLICE):
            part = slice(start, start + SLICE)
            some, first = pairs[part], truncation.n_texts
            tokens = self.tokenizer(some)
            truncation.note([len(a) + len(b) for a, b in some], tokens.truncated)
            vectors = self.encoder.engine.encode(
                tokens.ids, normalize=False, report=report, token_type_ids=tokens.token_type_ids
            )
            logits[part] = self.classifier.logits(vectors)
            if not np.isfinite(logits[part]).all():
                row = first + int(np.argmin(np.isfinite(logits[part]).all(axis=1)))
                raise NonFiniteError(
                    f"pair {row}: its score is not finite. The weights overflow float32 on this pair: check the model "
                    "that was loaded"
                )
        return logits


class HasPairModel(Protocol):
    """Anything with a loaded cross-encoder, such as a `CrossEncoder`."""

    @property
    def model(self) -> PairModel: ...


def load_pair_model(
    name_or_path: str | os.PathLike[str],
    kind: EngineKind,
    *,
    max_length: int | None = None,
    activation: str | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    local_files_only: bool = False,
    threads: int | None = None,
) -> PairModel:
    """Return the cross-encoder of a name or a folder; the arguments are those of `CrossEncoder`, already checked.

    Raises HubError, ConfigError, CheckpointError, TokenizerError, InputTypeError, InputValueError.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise InputTypeError(
            "model_name_or_path: expected the name of a model or the path of a folder, found "
            f"{type(name_or_path).__name__}"
        )
    kind.check_threads(threads)
    if isinstance(name_or_path, str) and name_or_path and "/" not in name_or_path and not os.path.exists(name_or_path):
        name_or_path = f"{ORGANISATION}/{name_or_path}"

    def load(cache: WeightsCache) -> PairModel:
        def read() -> _Opened:
            folder = resolve(name_or_path, local_files_only=local_files_only, is_known=cache.has)
            path, found = folder.path, identity(folder.path)
            config, head, settings = load_cross_encoder_config(path, activation)
            settings = overridden(settings, prompts, default_prompt_name, None, None)
            tokenizer = load_tokenizer(path, config)
            return _Opened(folder, found, settings, config, head, tokenizer, *_weights(path, config, head, cache))

        folder, found, settings, config, head, tokenizer, weights, of_head = read_steadily(name_or_path, read)
        engine = kind.make(config, weights, threads, reread=lambda: reread(folder, config, classifier=True))
        if cache.is_used:
            of_head = cache.other
        if folder.verified and isinstance(engine, PackingEngine):
            cache.write(config, engine.packed(), of_head)
        encoder = LoadedModel(config, tokenizer, engine, kind, settings, folder, threads, origin_identity=found)
        return PairModel(encoder, PairTokenizer(tokenizer), Classifier(of_head), head)

    model = with_cache(kind, load)
    return model if max_length is None else model.with_limit(max_length)


class _Opened(NamedTuple):
    """What is read of a folder before the engine is made."""

    folder: ModelFolder
    identity: Identity | None
    settings: ModelSettings
    config: ModelConfig
    head: Head
    tokenizer: TextTokenizer
    weights: Packed | Iterable[tuple[str, Vectors]]  # readable also after the folder was replaced
    of_head: Weights  # empty if the weights are from the cache, which has them, too


def _weights(
    path: Path, config: ModelConfig, head: Head, cache: WeightsCache
) -> tuple[Packed | Iterable[tuple[str, Vectors]], Weights]:
    """Return the weights of the encoder and of the head, as `_Opened` has them; check their names and shapes."""
    if cache.is_used:
        return Packed(lambda: cache.read(config)), {}
    rest = iter_checkpoint(path, config, classifier=True)
    first = next(rest)  # opens the files
    return itertools.chain([first], rest), read_head(path, config, len(head.labels))


def random_pair_model(
    config: ModelConfig | None, seed: int, n_labels: int, kind: EngineKind, threads: int | None
) -> PairModel:
    """Return a randomly initialised cross-encoder over single characters, as `CrossEncoder.random` describes it."""
    with no_fork:
        from minilm_np.model_files.random_weights import (
            CHARACTER_VOCABULARY,
            SMALL,
            check_characters,
            random_arrays,
            random_weights,
        )
        from minilm_np.text.tokenizer_files import bert_tokenizer

    config = dataclasses.replace(config or SMALL, pooling_mode="cls", normalize=False)
    check_characters(config)
    with no_fork:  # as in `load_tokenizer`
        tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
    encoder = make_model(
        config, tokenizer, random_weights(config, seed).items(), kind, threads, ModelSettings(prompts={})
    )
    head = Head(tuple(f"LABEL_{label}" for label in range(n_labels)), "Sigmoid" if n_labels == 1 else "Identity")
    classifier = Classifier(random_arrays(head_shapes(config, n_labels), seed + 1))
    return PairModel(encoder, PairTokenizer(tokenizer), classifier, head)

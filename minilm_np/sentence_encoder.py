"""The public class: texts in, sentence vectors out."""

import hashlib
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minilm_np import reference
from minilm_np.checkpoint import iter_checkpoint, parameter_shapes
from minilm_np.config import ModelConfig, load_config
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError
from minilm_np.hub import ModelFolder, resolve
from minilm_np.manifest import DEFAULT_MODEL
from minilm_np.random_model import CHARACTER_VOCABULARY, SMALL, random_weights
from minilm_np.tokenizer import TextTokenizer, bert_tokenizer, check_texts, load_tokenizer

Vectors = NDArray[np.float32]
Weights = dict[str, Vectors]

BACKENDS = ("numba", "numpy")

SLICE = 4096  # texts whose tokens are kept at a time; enough to sort by length and share out evenly

# Texts that between them exercise every part of an engine; `fingerprint` takes them where none are given.
FINGERPRINT_TEXTS = (
    "This is an example sentence",
    "",
    "Naïve café, RÉSUMÉ: 東京タワー [SEP]",
    *("The quick brown fox jumps over the lazy dog. " * repeats for repeats in (1, 5, 15, 40)),
)


class Engine(Protocol):
    """What turns token ids into vectors: `encoder.Encoder`, or `ReferenceEngine` below."""

    @property
    def threads(self) -> int | None: ...

    def encode(self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Callable[[int], object]) -> Vectors:
        """Ragged token ids of B texts -> (B, D), scaled to unit length where the model does or `normalize` asks for it.

        report: called with the number of texts that were done since.
        """

    def weights(self) -> Weights:
        """The weights by Hugging Face's names, in the model's order; read-only."""


class ReferenceEngine:
    """`reference.py` as an engine: texts of similar length together, a bounded number of tokens at a time."""

    BATCH_TOKENS = 4096
    threads = None

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Vectors]]) -> None:
        unordered = dict(weights)
        self._config = config
        self._weights = {name: unordered[name] for name in parameter_shapes(config)}
        self._nested = reference.nest(self._weights)

    def encode(self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Callable[[int], object]) -> Vectors:
        vectors = np.empty((len(texts), self._config.hidden_size), np.float32)
        rows = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        with np.errstate(all="ignore"):  # check_finite names the text, which a warning cannot
            while rows:
                size = max(1, self.BATCH_TOKENS // len(texts[rows[0]]))
                batch, rows = rows[:size], rows[size:]
                vectors[batch] = reference.encode_ragged([texts[row] for row in batch], self._nested, self._config)
                report(len(batch))
            return reference.normalize(vectors) if normalize and not self._config.normalize else vectors

    def weights(self) -> Weights:
        return self._weights


class SentenceEncoder:
    """A sentence-transformers model of the BERT family, loaded to encode texts.

    model_name_or_path: a model's name, which is fetched on first use, or a folder that holds one.
    backend: "numba", the compiled kernels with the same bits everywhere; or "numpy", the readable reference.
    threads: how many threads the Numba backend may use for a call, the caller's included; None for as many as this
        process may use processors, or OMP_NUM_THREADS if that is fewer. NumPy's threads are its BLAS's own affair.
    local_files_only: never use the network; a model that is not on this machine is an error.

    Raises HubError (the model cannot be found, fetched or verified), ConfigError, CheckpointError or TokenizerError
    (its files are broken, or ask for something that is not implemented), InputValueError (no such backend).

    Encoding changes nothing in the object, so many threads may share one. It pickles, weights included.
    """

    config: ModelConfig
    tokenizer: TextTokenizer
    folder: ModelFolder | None  # where the model was loaded from; None for a random one

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: str = "numba",
        threads: int | None = None,
        local_files_only: bool = False,
    ) -> None:
        check_backend(backend, threads)
        folder = resolve(model_name_or_path, local_files_only=local_files_only)
        config = load_config(folder.path)
        tokenizer = load_tokenizer(folder.path, config)
        self._assemble(config, iter_checkpoint(folder.path, config), tokenizer, backend, threads)
        self.folder = folder

    @classmethod
    def random(
        cls, config: ModelConfig | None = None, seed: int = 0, *, backend: str = "numba", threads: int | None = None
    ) -> "SentenceEncoder":
        """A randomly initialised model over single characters, the same one for the same seed; nothing is downloaded.

        config: its sizes, pooling and limit; None for a small one that encodes a text in a millisecond.
        Raises ConfigError where the config has too small a vocabulary, InputValueError for an unknown backend.
        """
        check_backend(backend, threads)
        config = config or SMALL
        weights = random_weights(config, seed)
        encoder = cls.__new__(cls)
        tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
        encoder._assemble(config, weights.items(), tokenizer, backend, threads)
        return encoder

    def _assemble(
        self,
        config: ModelConfig,
        weights: Iterable[tuple[str, Vectors]],
        tokenizer: TextTokenizer,
        backend: str,
        threads: int | None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.backend = backend
        self.folder = None
        self._threads = threads
        self._weights_digest = ""
        self._engine: Engine
        if backend == "numpy":
            self._engine = ReferenceEngine(config, weights)
        else:
            from minilm_np.encoder import Encoder  # and LLVM, which the other backend does without

            self._engine = Encoder(config, weights, threads)

    @property
    def threads(self) -> int | None:
        """How many threads a call may use; None for the NumPy backend, whose BLAS decides."""
        return self._engine.threads

    @property
    def weights(self) -> Weights:
        """The weights by Hugging Face's names, float32, read-only. The Numba backend unpacks them each time."""
        return self._engine.weights()

    def encode(
        self,
        texts: str | Sequence[str],
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        show_progress_bar: bool = False,
    ) -> Vectors:
        """Encode one text or many.

        texts: a str, or a sequence of str in any order; "" is a text like any other. A text is cut at `max_seq_length`
            tokens (`tokenize` says which are).
        batch_size: accepted for those who come from sentence-transformers. Both backends bound their memory by tokens.
        normalize_embeddings: scale the vectors to unit length. The published model does so anyway.
        show_progress_bar: draw a bar on stderr.

        Returns float32: (D,) for a str, (n, D) for n texts, in their order; (0, D) for none.
        Raises InputTypeError, InputValueError (both name the text), NonFiniteError.
        """
        check_batch_size(batch_size)
        if isinstance(texts, str):
            return self.encode([texts], batch_size, normalize_embeddings)[0]
        texts = check_texts(texts)
        vectors = np.empty((len(texts), self.config.hidden_size), np.float32)
        with _progress(len(texts), show_progress_bar) as report:
            for start in range(0, len(texts), SLICE):
                part = slice(start, start + SLICE)
                ids = self.tokenizer(texts[part]).ids
                vectors[part] = self._engine.encode(ids, normalize=normalize_embeddings, report=report)
                check_finite(vectors[part], start)
        return vectors

    def fingerprint(self, texts: Sequence[str] = FINGERPRINT_TEXTS) -> str:
        """A SHA-256 that two machines share if they give these texts the same vectors, bit for bit.

        It covers the version of the numerical contract, the weights and the vectors (see CONTRACT.md); those who
        store vectors can store it beside them. Costs an encoding of the texts, and once a look at every weight.

        Raises InputValueError for the NumPy backend, which is outside the contract; and as `encode`.
        """
        if self.backend != "numba":
            raise InputValueError(f"backend {self.backend!r} promises no bits: a fingerprint needs backend 'numba'")
        from minilm_np.encoder import CONTRACT_VERSION

        if not self._weights_digest:
            digest = hashlib.sha256()
            for name, array in self.weights.items():
                digest.update(f"{name} {array.shape}\n".encode())
                digest.update(array.astype("<f4", copy=False).tobytes())
            self._weights_digest = digest.hexdigest()
        digest = hashlib.sha256(f"minilm_np contract {CONTRACT_VERSION}\n{self._weights_digest}\n".encode())
        digest.update(self.encode(texts).astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the model sees of each of B texts, padded to the longest of them (T tokens), as torch's would be.

        Returns input_ids, token_type_ids and attention_mask, (B, T) int64; and what padding and cutting hide: n_tokens,
        a list of int ([CLS] and [SEP] included), and truncated, a list of bool.
        Raises InputTypeError, InputValueError (both name the text).
        """
        tokenized = self.tokenizer(check_texts(texts))
        B, T = len(tokenized.ids), max(tokenized.n_tokens, default=0)
        input_ids = np.full((B, T), self.tokenizer.pad_id, np.int64)
        attention_mask = np.zeros((B, T), np.int64)
        for row, ids in enumerate(tokenized.ids):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return {
            "input_ids": input_ids,
            "token_type_ids": np.zeros((B, T), np.int64),
            "attention_mask": attention_mask,
            "n_tokens": tokenized.n_tokens,
            "truncated": tokenized.truncated,
        }

    @property
    def max_seq_length(self) -> int:
        """How many tokens of a text are used, [CLS] and [SEP] included."""
        return self.config.max_seq_length

    @property
    def model_path(self) -> str | None:
        """The folder that the model was loaded from; None for a random one."""
        return str(self.folder.path) if self.folder else None

    def get_sentence_embedding_dimension(self) -> int:
        """D, the length of a vector."""
        return self.config.hidden_size

    def __getstate__(self) -> dict[str, Any]:
        names = ("config", "tokenizer", "backend", "folder", "_threads")
        return {"weights": self.weights, **{name: self.__dict__[name] for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for array in state["weights"].values():
            array.flags.writeable = False  # which pickle forgets
        self._assemble(
            state["config"], state["weights"].items(), state["tokenizer"], state["backend"], state["_threads"]
        )
        self.folder = state["folder"]

    def __repr__(self) -> str:
        whence = repr(self.model_path) if self.folder else "random weights"
        return f"SentenceEncoder({whence}, backend={self.backend!r})"


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[int], object]]:
    """What to call with the number of texts that were done since: a bar on stderr moves, or nothing happens."""
    if not shown:
        yield lambda done: None
        return
    from tqdm import tqdm  # takes a tenth of the start, which most processes do without

    with tqdm(total=total, desc="encode", unit="text") as bar:
        yield bar.update


def check_backend(backend: str, threads: int | None) -> None:
    """Raise InputValueError unless there is such a backend, and it takes a number of threads."""
    if backend not in BACKENDS:
        raise InputValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, found {backend!r}")
    if backend == "numpy" and threads is not None:
        raise InputValueError(
            "threads: backend 'numpy' has no threads of its own; its BLAS reads OPENBLAS_NUM_THREADS or OMP_NUM_THREADS"
        )


def check_batch_size(batch_size: int) -> None:
    """Raise InputTypeError or InputValueError unless it is a number of at least 1."""
    try:
        size = operator.index(batch_size)
    except TypeError:
        raise InputTypeError(f"batch_size: expected an int, found {type(batch_size).__name__}") from None
    if size < 1 or isinstance(batch_size, bool):
        raise InputValueError(f"batch_size: expected an int of at least 1, found {batch_size!r}")


def check_finite(vectors: Vectors, first: int) -> None:
    """Raise NonFiniteError, naming the text whose vector is NaN or infinite; `first` is the number of the first one."""
    if not np.isfinite(vectors).all():
        row = first + int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise NonFiniteError(
            f"text {row}: its vector is not finite. The weights overflow float32 on this text: check the model that "
            "was loaded"
        )

"""The public class: texts in, sentence vectors out."""

import functools
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from minilm_np import reference
from minilm_np.checkpoint import load_checkpoint
from minilm_np.config import ModelConfig, load_config
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError
from minilm_np.hub import ModelFolder, resolve
from minilm_np.manifest import DEFAULT_MODEL
from minilm_np.random_model import CHARACTER_VOCABULARY, SMALL, random_weights
from minilm_np.tokenizer import TextTokenizer, bert_tokenizer, check_texts, load_tokenizer

Vectors = NDArray[np.float32]
EncodeIds = Callable[[Sequence[Sequence[int]]], Vectors]  # ragged token ids of B texts -> (B, D)

BACKENDS = ("numpy",)


class SentenceEncoder:
    """A sentence-transformers model of the BERT family, loaded to encode texts.

    model_name_or_path: a model's name, which is fetched on first use, or a folder that holds one.
    backend: "numpy", the readable reference.
    local_files_only: never use the network; a model that is not on this machine is an error.

    Raises HubError (the model cannot be found, fetched or verified), ConfigError, CheckpointError or TokenizerError
    (its files are broken, or ask for something that is not implemented), InputValueError (no such backend).

    Encoding changes nothing in the object, so many threads may share one. It pickles, weights included.
    """

    config: ModelConfig
    weights: dict[str, Vectors]  # by Hugging Face's names; read-only
    tokenizer: TextTokenizer
    folder: ModelFolder | None  # where the model was loaded from; None for a random one

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: str = "numpy",
        local_files_only: bool = False,
    ) -> None:
        check_backend(backend)
        folder = resolve(model_name_or_path, local_files_only=local_files_only)
        config = load_config(folder.path)
        self._assemble(config, load_checkpoint(folder.path, config), load_tokenizer(folder.path, config), backend)
        self.folder = folder

    @classmethod
    def random(cls, config: ModelConfig | None = None, seed: int = 0, *, backend: str = "numpy") -> "SentenceEncoder":
        """A randomly initialised model over single characters, the same one for the same seed; nothing is downloaded.

        config: its sizes, pooling and limit; None for a small one that encodes a text in a millisecond.
        Raises ConfigError where the config has too small a vocabulary, InputValueError for an unknown backend.
        """
        check_backend(backend)
        config = config or SMALL
        weights = random_weights(config, seed)
        encoder = cls.__new__(cls)
        encoder._assemble(config, weights, TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config), backend)
        return encoder

    def _assemble(
        self, config: ModelConfig, weights: dict[str, Vectors], tokenizer: TextTokenizer, backend: str
    ) -> None:
        self.config = config
        self.weights = weights
        self.tokenizer = tokenizer
        self.backend = backend
        self.folder = None
        self._encode_ids: EncodeIds = functools.partial(
            reference.encode_ragged, weights=reference.nest(weights), config=config
        )

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
        batch_size: how many texts go through the model together; it bounds the memory.
        normalize_embeddings: scale the vectors to unit length. The published model does so anyway.
        show_progress_bar: draw a bar on stderr.

        Returns float32: (D,) for a str, (n, D) for n texts, in their order; (0, D) for none.
        Raises InputTypeError, InputValueError (both name the text), NonFiniteError.
        """
        size = check_batch_size(batch_size)
        if isinstance(texts, str):
            return self.encode([texts], size, normalize_embeddings)[0]
        ids = self.tokenizer(check_texts(texts)).ids
        # texts of similar length go together, and the longest first: what runs out of memory does so at once
        rows = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        vectors = np.empty((len(ids), self.config.hidden_size), np.float32)
        bar = tqdm(total=len(ids), desc="encode", unit="text", disable=not show_progress_bar)
        with bar as progress, np.errstate(all="ignore"):  # check_finite names the text, which a warning cannot
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                vectors[batch] = self._encode_ids([ids[row] for row in batch])
                progress.update(len(batch))
        if normalize_embeddings and not self.config.normalize:
            vectors = reference.normalize(vectors)
        check_finite(vectors)
        return vectors

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
        # the backend's own state (views of the weights, compiled code) is made again
        return {name: value for name, value in self.__dict__.items() if name != "_encode_ids"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._assemble(state["config"], state["weights"], state["tokenizer"], state["backend"])
        self.folder = state["folder"]

    def __repr__(self) -> str:
        whence = repr(self.model_path) if self.folder else "random weights"
        return f"SentenceEncoder({whence}, backend={self.backend!r})"


def check_backend(backend: str) -> None:
    """Raise InputValueError unless there is such a backend."""
    if backend not in BACKENDS:
        raise InputValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, found {backend!r}")


def check_batch_size(batch_size: int) -> int:
    """A number of texts as an int. Raises InputTypeError, InputValueError."""
    try:
        size = operator.index(batch_size)
    except TypeError:
        raise InputTypeError(f"batch_size: expected an int, found {type(batch_size).__name__}") from None
    if size < 1 or isinstance(batch_size, bool):
        raise InputValueError(f"batch_size: expected an int of at least 1, found {batch_size!r}")
    return size


def check_finite(vectors: Vectors) -> None:
    """Raise NonFiniteError, naming the first text whose vector is NaN or infinite."""
    if not np.isfinite(vectors).all():
        row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise NonFiniteError(
            f"text {row}: its vector is not finite. The weights overflow float32 on this text: check the model that "
            "was loaded"
        )

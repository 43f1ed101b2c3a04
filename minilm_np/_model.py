"""A model as an object: where it comes from, what is known of it, how it is kept. What it does with texts is in
`sentence_encoder.py`.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from minilm_np import _arguments
from minilm_np.engine.protocol import Engine, ReferenceEngine, Vectors, Weights
from minilm_np.errors import InputValueError
from minilm_np.model_files.checkpoint import iter_checkpoint
from minilm_np.model_files.config import ModelConfig, load_config
from minilm_np.model_files.hub import ModelFolder, resolve
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, SMALL, check_characters, random_weights
from minilm_np.model_files.settings import ModelUse, check_similarity, load_use, overruled
from minilm_np.text.tokenizer import TextTokenizer, bert_tokenizer, load_tokenizer

BACKENDS = ("numba", "numpy")


class Model:
    """The state of a `SentenceEncoder`: config, tokenizer, weights, and what its user has set."""

    config: ModelConfig
    tokenizer: TextTokenizer
    folder: ModelFolder | None  # where the model was loaded from; None for a random one
    prompts: dict[str, str]  # by name
    default_prompt_name: str | None  # of the prompt where a call names none
    truncate_dim: int | None  # how many numbers of a vector are kept where a call does not say

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        local_files_only: bool = False,
        backend: str = "numba",
        threads: int | None = None,
        **others: Any,
    ) -> None:
        _arguments.check_others(others)
        _arguments.check_device(device)
        _arguments.check_truncate_dim(truncate_dim)
        check_backend(backend, threads)
        folder = resolve(model_name_or_path, local_files_only=local_files_only)
        use = overruled(load_use(folder.path), prompts, default_prompt_name, similarity_fn_name, truncate_dim)
        config = load_config(folder.path)
        tokenizer = load_tokenizer(folder.path, config)
        self._assemble(config, use, iter_checkpoint(folder.path, config), tokenizer, backend, threads)
        self.folder = folder

    @classmethod
    def random(
        cls, config: ModelConfig | None = None, seed: int = 0, *, backend: str = "numba", threads: int | None = None
    ) -> Self:
        """A randomly initialised model over single characters, the same one for the same seed; nothing is downloaded.

        config: its sizes, pooling and limit; None for a small one that encodes a text in a millisecond.
        Raises ConfigError where the config has too small a vocabulary, InputValueError for an unknown backend.
        """
        check_backend(backend, threads)
        config = config or SMALL
        check_characters(config)
        weights = random_weights(config, seed)
        tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
        return cls.from_weights(config, tokenizer, weights, backend=backend, threads=threads)

    @classmethod
    def from_weights(
        cls,
        config: ModelConfig,
        tokenizer: TextTokenizer,
        weights: Mapping[str, Vectors],
        *,
        backend: str = "numba",
        threads: int | None = None,
    ) -> Self:
        """A model of these weights, float32 under the names and in the shapes of `checkpoint.parameter_shapes`.

        Raises InputValueError for an unknown backend.
        """
        check_backend(backend, threads)
        encoder = cls.__new__(cls)
        encoder._assemble(config, ModelUse(), weights.items(), tokenizer, backend, threads)
        return encoder

    def _assemble(
        self,
        config: ModelConfig,
        use: ModelUse,
        weights: Iterable[tuple[str, Vectors]],
        tokenizer: TextTokenizer,
        backend: str,
        threads: int | None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.backend = backend
        self.folder = None
        self.prompts = use.prompts
        self.default_prompt_name = use.default_prompt_name
        self.truncate_dim = use.truncate_dim
        self._similarity_fn_name = use.similarity_fn_name
        self._threads = threads
        self._weights_digest = ""  # not known yet
        self._engine: Engine
        if backend == "numpy":
            self._engine = ReferenceEngine(config, weights)
        else:
            from minilm_np.engine.float32.engine import Float32Engine  # and LLVM, which the other backend does without

            self._engine = Float32Engine(config, weights, threads)

    # ---- what is known of the model ----------------------------------------------------------------------------------

    @property
    def max_seq_length(self) -> int:
        """How many tokens of a text are used, [CLS] and [SEP] included; may be set, up to the model's positions."""
        return self.config.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, limit: int) -> None:
        limit = _arguments.check_limit(limit, self.config)
        config = dataclasses.replace(self.config, max_seq_length=limit)
        self.tokenizer, self.config = self.tokenizer.with_limit(config), config

    def get_max_seq_length(self) -> int:
        """The older name of `max_seq_length`."""
        return self.max_seq_length

    def get_embedding_dimension(self) -> int:
        """d, the length of a vector: that of the model, D, or `truncate_dim`."""
        return self._dimension(None)

    def get_sentence_embedding_dimension(self) -> int:
        """The older name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Another `truncate_dim` in a `with` block, for all threads. Raises InputTypeError, InputValueError."""
        _arguments.check_truncate_dim(truncate_dim)
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    @property
    def device(self) -> str:
        """Where the model runs: "cpu"."""
        return "cpu"

    @property
    def threads(self) -> int | None:
        """How many threads a call may use; None for the NumPy backend, whose BLAS decides."""
        return self._engine.threads

    @property
    def weights(self) -> Weights:
        """The weights by Hugging Face's names, float32, read-only. The Numba backend unpacks them each time."""
        return self._engine.weights()

    @property
    def weights_digest(self) -> str:
        """SHA-256 of each weight in the model's order: a line with its name and shape, and its float32 bytes."""
        if not self._weights_digest:
            digest = hashlib.sha256()
            for name, array in self.weights.items():
                digest.update(f"{name} {array.shape}\n".encode())
                digest.update(array.astype("<f4", copy=False).tobytes())
            self._weights_digest = digest.hexdigest()
        return self._weights_digest

    @property
    def model_path(self) -> str | None:
        """The folder that the model was loaded from; None for a random one."""
        return str(self.folder.path) if self.folder else None

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan" (negative distances); may be set."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str | None) -> None:
        self._similarity_fn_name = "cosine" if name is None else check_similarity(name)

    def _dimension(self, truncate_dim: int | None) -> int:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        _arguments.check_truncate_dim(truncate_dim)
        D = self.config.hidden_size
        return D if truncate_dim is None else min(D, truncate_dim)

    # ---- to files, to other processes --------------------------------------------------------------------------------

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write a folder that sentence-transformers and this package load, with the same vectors.

        path: a new or empty folder, or one that this wrote before. It is there when it is whole.
        model_name, create_model_card, train_datasets: accepted; no model card is written.
        safe_serialization: True, for safetensors.
        Raises SaveError; InputValueError for weights in another format.
        """
        from minilm_np.model_files.saving import save_model

        if not safe_serialization:
            raise InputValueError(
                "safe_serialization: expected True: pickled weights can run code, and are not written"
            )
        save_model(path, self.config, self.use, self.tokenizer, self.weights)

    save = save_pretrained

    @property
    def use(self) -> ModelUse:
        """What config_sentence_transformers.json says of this model when it is saved."""
        return ModelUse(self.prompts, self.default_prompt_name, self.similarity_fn_name, self.truncate_dim)

    def __getstate__(self) -> dict[str, Any]:
        names = ("config", "tokenizer", "backend", "folder", "_threads")
        return {"weights": self.weights, "use": self.use, **{name: self.__dict__[name] for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for array in state["weights"].values():
            array.flags.writeable = False  # which pickle forgets
        weights = state["weights"].items()
        self._assemble(state["config"], state["use"], weights, state["tokenizer"], state["backend"], state["_threads"])
        self.folder = state["folder"]

    def __repr__(self) -> str:
        whence = repr(self.model_path) if self.folder else "random weights"
        return f"{type(self).__name__}({whence}, backend={self.backend!r})"


def check_backend(backend: str, threads: int | None) -> None:
    """Raise InputValueError unless there is such a backend, and it takes a number of threads."""
    if backend not in BACKENDS:
        raise InputValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, found {backend!r}")
    if backend == "numpy" and threads is not None:
        raise InputValueError(
            "threads: backend 'numpy' has no threads of its own; its BLAS reads OPENBLAS_NUM_THREADS or OMP_NUM_THREADS"
        )

"""The public class: texts in, sentence vectors out. Its methods and arguments are those of SentenceTransformer.

The class holds one `LoadedModel` and adds only the methods that users call. A call is implemented in
`encoding/pipeline.py`; arguments that exist only for sentence-transformers are checked in
`encoding/sentence_transformers.py`; the attributes that `CrossEncoder` has, too, are in `encoding/public_model.py`.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from numpy.typing import ArrayLike, NDArray

from minilm_np._checks import check_container, check_int, check_optional_int, check_texts
from minilm_np._forks import no_fork
from minilm_np.encoding import sentence_transformers
from minilm_np.encoding.call_types import Matrix, TokenizedTexts, Vector, typed_as_encode, with_signature_of
from minilm_np.encoding.loaded_model import LoadedModel, load_model, make_model
from minilm_np.encoding.pipeline import Pipeline, as_tensors, padded, progress_bar
from minilm_np.encoding.public_model import PublicModel
from minilm_np.engine import registry
from minilm_np.engine.protocol import Vectors, Weights
from minilm_np.errors import InputTypeError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.model_files.settings import DOCUMENT_PROMPTS, QUERY_PROMPTS, ModelSettings, check_similarity
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.truncation import TextReport, report_on

if TYPE_CHECKING:
    from minilm_np.encoding.long_texts import Window
    from minilm_np.trace import Trace

TensorT = TypeVar("TensorT", bound=sentence_transformers.Tensor)

# Texts that together exercise every part of an engine: the default of `fingerprint`.
FINGERPRINT_TEXTS = (
    "This is an example sentence",
    "",
    "Naïve café, RÉSUMÉ: 東京タワー [SEP]",
    *("The quick brown fox jumps over the lazy dog. " * repeats for repeats in (1, 5, 15, 40)),
)


class SentenceEncoder(PublicModel):
    """A sentence-transformers model of the BERT family, loaded to encode texts.

    model_name_or_path: the name of a model, which is downloaded on first use, or a folder that contains one.
    device: "cpu" or None.
    prompts, default_prompt_name, similarity_fn_name, truncate_dim: override the model's own settings.
    local_files_only: never use the network; a model that is not on this machine is an error.
    backend: "numba", the compiled kernels with the same bits everywhere; or "numpy", the readable reference.
    compute_type: the numbers that the dense layers of the Numba backend multiply. "float32"; "int16", integers of 16
        bits: faster, with 1 - cosine to float32 below 1e-6; "int8", integers of 8 bits: the fastest. Each type has the
        same bits everywhere.
    threads: the number of threads per call of the Numba backend, the calling thread included. None: one thread per CPU
        available to the process, or OMP_NUM_THREADS if that is less. The NumPy backend's threads are those of its BLAS.
    others: other arguments of SentenceTransformer, accepted if their values change nothing.

    Raises HubError (the model cannot be found, downloaded or verified); ConfigError, CheckpointError, TokenizerError
    (its files are broken, or need something that is not implemented); InputTypeError, InputValueError (an argument).

    Encoding does not change the object, so several threads may share it. It can be pickled, weights included.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        local_files_only: bool = False,
        backend: str = "numba",
        compute_type: str = "float32",
        threads: int | None = None,
        **others: Any,
    ) -> None:
        sentence_transformers.check_others(others)
        sentence_transformers.check_device(device)
        check_optional_int("truncate_dim", truncate_dim, 1)
        if not isinstance(model_name_or_path, str | os.PathLike):
            raise InputTypeError(
                "model_name_or_path: expected the name of a model or the path of a folder, found "
                f"{type(model_name_or_path).__name__}"
            )
        self._model = load_model(
            model_name_or_path,
            registry.find(backend, compute_type),
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            similarity_fn_name=similarity_fn_name,
            truncate_dim=truncate_dim,
            local_files_only=local_files_only,
            threads=threads,
        )

    @classmethod
    def random(
        cls,
        config: ModelConfig | None = None,
        seed: int = 0,
        *,
        backend: str = "numba",
        compute_type: str = "float32",
        threads: int | None = None,
    ) -> Self:
        """Return a randomly initialised model over single characters; the same seed gives the same model.

        Nothing is downloaded. config: sizes, pooling and limit; None: a small model that encodes a text in a
        millisecond.
        Raises ConfigError: the config's vocabulary is too small; InputValueError: the backend is unknown.
        """
        with no_fork:
            from minilm_np.model_files.random_weights import (
                CHARACTER_VOCABULARY,
                SMALL,
                check_characters,
                random_weights,
            )
            from minilm_np.text.tokenizer_files import bert_tokenizer

        registry.find(backend, compute_type)
        config = config or SMALL
        check_characters(config)
        with no_fork:  # as in `load_tokenizer`
            tokenizer = TextTokenizer(bert_tokenizer(CHARACTER_VOCABULARY), config)
        weights = random_weights(config, seed)
        return cls.from_weights(config, tokenizer, weights, backend=backend, compute_type=compute_type, threads=threads)

    @classmethod
    def from_weights(
        cls,
        config: ModelConfig,
        tokenizer: TextTokenizer,
        weights: Mapping[str, Vectors],
        *,
        backend: str = "numba",
        compute_type: str = "float32",
        threads: int | None = None,
    ) -> Self:
        """Return a model with these weights: float32, with the names and shapes of `checkpoint.parameter_shapes`.

        Raises InputValueError: the backend is unknown.
        """
        return cls._of(make_model(config, tokenizer, weights.items(), registry.find(backend, compute_type), threads))

    @classmethod
    def _of(cls, model: LoadedModel) -> Self:
        encoder = cls.__new__(cls)
        encoder._model = model
        return encoder

    @property
    def _loaded(self) -> LoadedModel:
        return self._model

    def _set(self, **settings: Any) -> None:
        self._model = self._model.with_settings(replace(self.settings, **settings))

    # ---- texts to vectors --------------------------------------------------------------------------------------------

    @typed_as_encode
    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: None = None,
        *,
        on_truncation: str = "warn",
        **others: Any,
    ) -> Any:
        """Encode one text or several.

        inputs: a str, or several in a list, a tuple, a NumPy array, a generator, or a column of pandas, polars or
            PyArrow; "" is a text like any other. `sentences` is the argument's old name.
        prompt_name, prompt: which prompt is put before each text; see `prompts`.
        batch_size: accepted and unused; both backends bound their memory by tokens.
        show_progress_bar: show a progress bar on stderr; None: if the logger "minilm_np" shows INFO or DEBUG.
        output_value: "sentence_embedding"; "token_embeddings", the hidden states of each text's T tokens, [CLS] and
            [SEP] included; or None, a dict with both and the tokens.
        precision: "float32"; or a precision to which `util.quantize_embeddings` converts the vectors: "int8", "uint8"
            (at least two texts), "binary", "ubinary".
        convert_to_numpy: False: a list of arrays instead of one array.
        convert_to_tensor: torch tensors on the CPU instead of arrays. Needs torch.
        device: "cpu" or None. pool, chunk_size: None.
        normalize_embeddings: scale the vectors to unit length. The published model does that anyway, before truncation.
        truncate_dim: d, to keep only the first d dimensions of each vector.
        on_truncation: "warn" (once per call), "ignore" or "error" for texts longer than `max_seq_length` tokens.

        Returns float32 (D,) for a str; (n, D) for n texts, in their order; (0, D) for none. If output_value is not
        "sentence_embedding": one array (T, D) or dict for a str, a list of them for several texts.
        Raises InputTypeError, InputValueError, NonFiniteError (all name the text or the argument), MissingExtraError.
        """
        inputs = sentence_transformers.take_inputs(inputs, others)
        check_int("batch_size", batch_size, 1)
        sentence_transformers.check_encode(output_value, precision, device, pool, chunk_size)
        pipeline = self._pipeline(prompt_name, prompt, on_truncation, normalize_embeddings, truncate_dim)
        texts = check_texts([inputs] if isinstance(inputs, str) else inputs)
        found: Any
        with progress_bar("encode", "text", len(texts), show_progress_bar) as report:
            if output_value == "sentence_embedding":
                found = pipeline.vectors(texts, report)
            elif output_value == "token_embeddings":
                found = pipeline.hidden_states(texts, report)
            else:
                found = pipeline.features(texts, report)
        pipeline.truncation.warn()
        if precision not in ("float32", None):
            with no_fork:
                from minilm_np.vectors.quantization import quantize_embeddings

            found = quantize_embeddings(found, precision)
        if convert_to_tensor:
            found = as_tensors(found)
        if isinstance(inputs, str):
            return found[0]
        return found if convert_to_numpy or convert_to_tensor else list(found)

    @typed_as_encode
    @with_signature_of(encode)
    def encode_query(
        self, inputs: str | Iterable[str] | None = None, prompt_name: str | None = None, prompt: str | None = None,
        *rest: Any, **options: Any,
    ) -> Any:  # fmt: skip
        """Encode search queries: `encode`, by default with the prompt named "query"."""
        prompt_name = self._prompt_name(QUERY_PROMPTS, prompt_name, prompt)
        return self.encode(inputs, prompt_name, prompt, *rest, **options)

    @typed_as_encode
    @with_signature_of(encode)
    def encode_document(
        self, inputs: str | Iterable[str] | None = None, prompt_name: str | None = None, prompt: str | None = None,
        *rest: Any, **options: Any,
    ) -> Any:  # fmt: skip
        """Encode the texts to search in: `encode`, by default with the prompt "document", "passage" or "corpus".

        As in sentence-transformers 6, every model has a prompt "document"; it is empty unless the model defines it.
        """
        prompt_name = self._prompt_name(DOCUMENT_PROMPTS, prompt_name, prompt)
        return self.encode(inputs, prompt_name, prompt, *rest, **options)

    def encode_iter(
        self,
        texts: Iterable[str],
        batch_size: int = 1024,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        on_truncation: Literal["warn", "ignore", "error"] = "warn",
    ) -> Iterator[Vector]:
        """Encode a stream of texts of any length, even an endless one: an iterator over the vectors, in order.

        batch_size: the number of texts that are read ahead, and of vectors in memory. The other arguments are those of
            `encode`; "warn" warns once, at the first batch with a truncated text.

        Yields float32 (D,). Raises as `encode`: for arguments at once, for texts when their batch is read.
        """
        check_int("batch_size", batch_size, 1)
        check_container(texts)
        pipeline = self._pipeline(prompt_name, prompt, on_truncation, normalize_embeddings, truncate_dim)

        def vectors() -> Iterator[Vector]:
            unread, first = iter(texts), 0
            while batch := check_texts(list(itertools.islice(unread, batch_size)), first):
                found = pipeline.vectors(batch, lambda done: None, first)
                pipeline.truncation.warn(more_to_come=True)
                yield from found
                first += len(batch)

        return vectors()

    @overload
    def encode_long(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self, texts: str, window: int | None = ..., stride: int | None = ..., pooling: Literal["mean", "max"] = ..., *,
        prompt_name: str | None = ..., prompt: str | None = ...,
    ) -> Vector: ...  # fmt: skip
    @overload
    def encode_long(
        self, texts: Iterable[str], window: int | None = ..., stride: int | None = ...,
        pooling: Literal["mean", "max"] = ..., *, prompt_name: str | None = ..., prompt: str | None = ...,
    ) -> Matrix: ...  # fmt: skip
    @overload
    def encode_long(  # type: ignore[overload-overlap]
        self, texts: str, window: int | None = ..., stride: int | None = ..., *, pooling: None,
        prompt_name: str | None = ..., prompt: str | None = ...,
    ) -> "list[Window]": ...  # fmt: skip
    @overload
    def encode_long(
        self, texts: Iterable[str], window: int | None = ..., stride: int | None = ..., *, pooling: None,
        prompt_name: str | None = ..., prompt: str | None = ...,
    ) -> "list[list[Window]]": ...  # fmt: skip
    def encode_long(
        self,
        texts: str | Iterable[str],
        window: int | None = None,
        stride: int | None = None,
        pooling: Literal["mean", "max"] | None = "mean",
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Any:
        """Encode texts of any length by overlapping windows: see `minilm_np.encoding.long_texts.encode_long`."""
        with no_fork:
            from minilm_np.encoding.long_texts import encode_long

        return encode_long(self, texts, window, stride, pooling=pooling, prompt_name=prompt_name, prompt=prompt)

    @overload
    def trace(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self, texts: str, *, dtype: str = ..., backend: str = ...
    ) -> "Trace": ...
    @overload
    def trace(
        self, texts: Iterable[str], *, dtype: str = ...,
        backend: str = ...,
    ) -> "list[Trace]": ...  # fmt: skip
    def trace(
        self,
        texts: str | Iterable[str],
        *,
        dtype: str = "float32",
        backend: str = "numpy",
    ) -> "Trace | list[Trace]":
        """Return every named step from tokens to vector, to inspect and to compare: see `minilm_np.trace.trace`.

        The steps are those of the model alone: no prompt; no normalization or truncation beyond the model's own.
        """
        with no_fork:
            from minilm_np import trace

        return trace.trace(self, texts, dtype=dtype, backend=backend)

    def fingerprint(self, texts: Iterable[str] = FINGERPRINT_TEXTS) -> str:
        """Return a SHA-256 that is equal on two machines if they give these texts the same vectors, bit for bit.

        It covers the version of the numerical contract, the weights, and the vectors, whole and without a prompt (see
        CONTRACT.md of the engine); store it with your vectors. It costs one encoding of the texts, and the first
        time a pass over all weights.

        Raises InputValueError for the NumPy backend, which has no contract; and as `encode`.
        """
        return self._model.fingerprint(check_texts(texts))

    def _pipeline(
        self, prompt_name: str | None, prompt: str | None, on_truncation: str, normalize: bool, truncate_dim: int | None
    ) -> Pipeline:
        prefix = self.settings.prefix(prompt_name, prompt)
        d = self.settings.dimension(self._model.config.dense_size or self._model.config.hidden_size, truncate_dim)
        return Pipeline(self._model, prefix, on_truncation, bool(normalize), d)

    def _prompt_name(self, candidates: Sequence[str], prompt_name: str | None, prompt: str | None) -> str | None:
        """Return the name that is given, else the first candidate that the model has; None if `prompt` is given."""
        if prompt_name is not None or prompt is not None:
            return prompt_name
        return self.settings.first_prompt(candidates)

    # ---- texts to tokens ---------------------------------------------------------------------------------------------

    def tokenize(self, texts: Iterable[str], *, prompt: str | None = None) -> TokenizedTexts:
        """Return the tokens of B texts, padded to the longest of them (T tokens), as torch's model would get them.

        prompt: a str to put before each text; the model's own prompts are not used.
        Returns input_ids, token_type_ids and attention_mask, each (B, T) int64; n_tokens, a list of int ([CLS] and
        [SEP] included, padding excluded); truncated, a list of bool.
        Raises InputTypeError, InputValueError (both name the text or the argument).
        """
        texts = check_texts(texts)
        prefix = "" if prompt is None else self.settings.prefix(prompt=prompt)
        tokenized = self.tokenizer([prefix + text for text in texts] if prefix else texts)
        return {
            **padded(tokenized.ids, self.tokenizer.pad_id),
            "n_tokens": tokenized.n_tokens,
            "truncated": tokenized.truncated,
        }

    def preprocess(self, inputs: Iterable[str], prompt: str | None = None) -> TokenizedTexts:
        """Return `tokenize(inputs, prompt=prompt)`; its name in sentence-transformers 6."""
        return self.tokenize(inputs, prompt=prompt)

    def tokenize_report(
        self, texts: Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> list[TextReport]:
        """Return, for each text, how much of it `encode` uses with the same prompt. The whole text is tokenized.

        Raises InputTypeError, InputValueError (both name the text).
        """
        prefix = self.settings.prefix(prompt_name, prompt)
        return [report_on(self.tokenizer, prefix, text, self.max_seq_length) for text in check_texts(texts)]

    # ---- vectors to similarities -------------------------------------------------------------------------------------

    @overload
    def similarity(self, embeddings1: TensorT, embeddings2: TensorT) -> TensorT: ...
    @overload
    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[Any]: ...
    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return how similar each of n vectors is to each of m, (n, m), by `similarity_fn_name`.

        If both arguments are torch tensors, the result is a tensor, too.
        """
        with no_fork:
            from minilm_np.vectors.similarity import SimilarityFunction

        scores = SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)
        return sentence_transformers.as_given(scores, embeddings1, embeddings2)

    @overload
    def similarity_pairwise(self, embeddings1: TensorT, embeddings2: TensorT) -> TensorT: ...
    @overload
    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[Any]: ...
    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return how similar each of n vectors is to its partner, (n,), by `similarity_fn_name`.

        If both arguments are torch tensors, the result is a tensor, too.
        """
        with no_fork:
            from minilm_np.vectors.similarity import SimilarityFunction

        scores = SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)
        return sentence_transformers.as_given(scores, embeddings1, embeddings2)

    # ---- the model ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> LoadedModel:
        """The loaded model, a frozen value: config, tokenizer, engine, settings, origin."""
        return self._model

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, with the model's limit."""
        return self._model.tokenizer

    @property
    def weights(self) -> Weights:
        """The weights by Hugging Face's names, float32, read-only. The Numba backend unpacks them on each access."""
        return self._model.engine.weights()

    @property
    def weights_digest(self) -> str:
        """SHA-256 over all weights in the model's order: a line with name and shape, then the float32 bytes of each."""
        return self._model.weights_digest

    @property
    def max_seq_length(self) -> int:
        """The maximum number of tokens used per text, [CLS] and [SEP] included; can be set, up to the positions."""
        return self.config.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, limit: int) -> None:
        most = self.config.max_tokens
        limit = check_int("max_seq_length", limit, 2, most, hint=f"the model has {most} positions")
        self._model = self._model.with_limit(limit)

    def get_max_seq_length(self) -> int:
        """Return `max_seq_length`; its older name."""
        return self.max_seq_length

    def get_embedding_dimension(self) -> int:
        """Return d, the length of a vector: D, or `truncate_dim` if that is less."""
        return self.settings.dimension(self.config.vector_size)

    def get_sentence_embedding_dimension(self) -> int:
        """Return `get_embedding_dimension()`; its older name."""
        return self.get_embedding_dimension()

    # ---- settings ----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> ModelSettings:
        """The settings that `save_pretrained` writes to config_sentence_transformers.json."""
        return self._model.settings

    use = settings  # its old name

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan" (negative distances); can be set."""
        return self.settings.similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str | None) -> None:
        self._set(similarity_fn_name="cosine" if name is None else check_similarity(name))

    @property
    def truncate_dim(self) -> int | None:
        """The number of dimensions to keep in calls that do not specify it; None: all; can be set."""
        return self.settings.truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, truncate_dim: int | None) -> None:
        self._set(truncate_dim=check_optional_int("truncate_dim", truncate_dim, 1))

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Use another `truncate_dim` in a `with` block, in all threads. Raises InputTypeError, InputValueError."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings  # its older name

    # ---- to files --------------------------------------------------------------------------------

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write a folder that sentence-transformers and this package load, with the same vectors.

        path: a new or empty folder, or one that this method wrote before. It is written atomically: a process that
            loads the folder meanwhile gets the old model or the new one.
        model_name, create_model_card, train_datasets: accepted and unused; no model card is written.
        safe_serialization: True: safetensors.
        Raises SaveError; InputValueError: weights in another format.
        """
        with no_fork:
            from minilm_np.model_files.saving import save_model

        sentence_transformers.check_safe_serialization(safe_serialization)
        weights = {**self.weights, **self._model.pooler}
        save_model(path, self.config, self.settings, self.tokenizer, weights)

    save = save_pretrained

"""The public class: texts in, sentence vectors out. Its methods and arguments are those of SentenceTransformer."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from minilm_np import _arguments
from minilm_np._model import BACKENDS as BACKENDS
from minilm_np._model import Model
from minilm_np._model import check_backend as check_backend
from minilm_np._pipeline import Pipeline, as_tensors, padded
from minilm_np.engine.protocol import Vectors as Vectors
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.model_files.settings import DOCUMENT_PROMPTS, QUERY_PROMPTS, resolve_prompt
from minilm_np.text.tokenizer import check_texts
from minilm_np.text.truncation import TextReport, Truncation, report_on

# Texts that between them exercise every part of an engine; `fingerprint` takes them where none are given.
FINGERPRINT_TEXTS = (
    "This is an example sentence",
    "",
    "Naïve café, RÉSUMÉ: 東京タワー [SEP]",
    *("The quick brown fox jumps over the lazy dog. " * repeats for repeats in (1, 5, 15, 40)),
)


class SentenceEncoder(Model):
    """A sentence-transformers model of the BERT family, loaded to encode texts.

    model_name_or_path: a model's name, which is fetched on first use, or a folder that holds one.
    device: "cpu" or None.
    prompts, default_prompt_name, similarity_fn_name, truncate_dim: overrule the model's own.
    local_files_only: never use the network; a model that is not on this machine is an error.
    backend: "numba", the compiled kernels with the same bits everywhere; or "numpy", the readable reference.
    threads: how many threads the Numba backend may use for a call, the caller's included; None for as many as this
        process may use processors, or OMP_NUM_THREADS if that is fewer. NumPy's threads are its BLAS's own affair.
    others: SentenceTransformer's other arguments, where they ask for nothing.

    Raises HubError (the model cannot be found, fetched or verified), ConfigError, CheckpointError or TokenizerError
    (its files are broken, or ask for something that is not implemented), InputTypeError, InputValueError (an argument).

    Encoding changes nothing in the object, so many threads may share one. It pickles, weights included.
    """

    # ---- texts to vectors --------------------------------------------------------------------------------------------

    def encode(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: None = None,
        *,
        on_truncation: str = "warn",
        **others: Any,
    ) -> Any:
        """Encode one text or many.

        inputs: a str, or a sequence of str in any order; "" is a text like any other. `sentences` is its old name.
        prompt_name, prompt: of what is put before each text; see `prompts`.
        batch_size: accepted, and not used. Both backends bound their memory by tokens.
        show_progress_bar: draw a bar on stderr; None to do so if the logger "minilm_np" shows INFO or DEBUG.
        output_value: "sentence_embedding"; "token_embeddings", the hidden states of each text's T tokens, [CLS] and
            [SEP] included; or None for a dict of both, with the tokens.
        precision: "float32", or what `util.quantize_embeddings` makes of all vectors of this call: "int8", "uint8"
            (two texts at least), "binary", "ubinary".
        convert_to_numpy: False for a list of arrays.
        convert_to_tensor: torch tensors, on the CPU, where there would be arrays. Needs torch.
        device: "cpu" or None. pool, chunk_size: None.
        normalize_embeddings: scale the vectors to unit length. The published model does so anyway, before truncating.
        truncate_dim: d, to keep only the first d numbers of each vector.
        on_truncation: "warn" (once a call), "ignore" or "error" for texts beyond `max_seq_length` tokens.

        Returns float32 (D,) for a str; (n, D) for n texts, in their order; (0, D) for none. Where output_value is not
        "sentence_embedding": one array (T, D) or dict for a str, a list of them for texts.
        Raises InputTypeError, InputValueError, NonFiniteError (all name the text, or the argument), MissingExtraError.
        """
        inputs = _arguments.take_inputs(inputs, others)
        _arguments.check_batch_size(batch_size)
        _arguments.check_encode(output_value, precision, device, pool, chunk_size)
        pipeline = self._pipeline(prompt_name, prompt, on_truncation, normalize_embeddings, truncate_dim)
        one = isinstance(inputs, str)
        texts = check_texts([inputs] if isinstance(inputs, str) else inputs)
        found: Any
        with _progress(len(texts), show_progress_bar) as report:
            if output_value == "sentence_embedding":
                found = pipeline.vectors(texts, report)
            elif output_value == "token_embeddings":
                found = [x for _, x in pipeline.hidden_states(texts, report)]
            else:
                found = pipeline.features(texts, report)
        pipeline.truncation.warn()
        if precision not in ("float32", None):
            from minilm_np.vectors.quantization import quantize_embeddings

            found = quantize_embeddings(found, precision)
        if convert_to_tensor:
            found = as_tensors(found)
        if one:
            return found[0]
        return found if convert_to_numpy or convert_to_tensor else list(found)

    def encode_query(
        self, inputs: Any = None, prompt_name: str | None = None, prompt: str | None = None, *rest: Any, **options: Any
    ) -> Any:
        """`encode` for what is searched with: unless a prompt is given, with the one that is named "query"."""
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in QUERY_PROMPTS if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *rest, **options)

    def encode_document(
        self, inputs: Any = None, prompt_name: str | None = None, prompt: str | None = None, *rest: Any, **options: Any
    ) -> Any:
        """`encode` for what is searched in: unless a prompt is given, with "document", else "passage", else "corpus".

        As in sentence-transformers 6 every model has a prompt "document", which is empty unless it says otherwise.
        """
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in DOCUMENT_PROMPTS if name in self.prompts), None)
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
        on_truncation: str = "warn",
    ) -> Iterator[Vectors]:
        """Encode a stream of texts, of any length, endless ones too: an iterator over their vectors, in their order.

        batch_size: how many texts are read ahead, at most, and how many vectors are held. The others as for `encode`;
            "warn" warns once, at the first batch with a text that is cut.

        Yields (D,) float32. Raises as `encode`: for arguments here, for texts when the stream comes to their batch.
        """
        _arguments.check_batch_size(batch_size)
        if isinstance(texts, str | bytes | Mapping) or not hasattr(texts, "__iter__"):
            raise InputTypeError(f"texts: expected an iterable of str, found {type(texts).__name__}")
        pipeline = self._pipeline(prompt_name, prompt, on_truncation, normalize_embeddings, truncate_dim)

        def vectors() -> Iterator[Vectors]:
            unread, first = iter(texts), 0
            while batch := check_texts(list(itertools.islice(unread, batch_size)), first):
                found = pipeline.vectors(batch, lambda done: None, first)
                pipeline.truncation.warn(more_to_come=True)
                yield from found
                first += len(batch)

        return vectors()

    def encode_long(
        self,
        texts: str | Sequence[str],
        window: int | None = None,
        stride: int | None = None,
        pooling: Any = "mean",
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Any:
        """Encode texts of any length by overlapping windows: see `windows.encode_long`."""
        from minilm_np.text import windows

        return windows.encode_long(self, texts, window, stride, pooling=pooling, prompt_name=prompt_name, prompt=prompt)

    def trace(self, texts: str | Sequence[str], *, dtype: str = "float32", backend: str = "numpy") -> Any:
        """Every named step from tokens to vector, to look at and to compare: see `trace.trace`.

        Of the bare model and of each text as it is given: no prompt, nothing normalised or truncated afterwards.
        """
        from minilm_np import trace

        return trace.trace(self, texts, dtype=dtype, backend=backend)

    @property
    def contract_version(self) -> int | None:
        """The version of the numerical contract that the vectors keep; None if the backend has no contract."""
        if self.backend != "numba":
            return None
        from minilm_np.engine.float32.engine import CONTRACT_VERSION

        return CONTRACT_VERSION

    def fingerprint(self, texts: Sequence[str] = FINGERPRINT_TEXTS) -> str:
        """A SHA-256 that two machines share if they give these texts the same vectors, bit for bit.

        It covers the version of the numerical contract, the weights and the vectors, whole and without a prompt (see
        CONTRACT.md); those who store vectors can store it beside them. Costs an encoding of the texts, and once a look
        at every weight.

        Raises InputValueError for the NumPy backend, which is outside the contract; and as `encode`.
        """
        if self.backend != "numba":
            raise InputValueError(f"backend {self.backend!r} promises no bits: a fingerprint needs backend 'numba'")
        from minilm_np.engine.float32.engine import CONTRACT_VERSION

        digest = hashlib.sha256(f"minilm_np contract {CONTRACT_VERSION}\n{self.weights_digest}\n".encode())
        vectors = self.encode(texts, prompt="", truncate_dim=self.config.hidden_size, on_truncation="ignore")
        digest.update(vectors.astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def _pipeline(
        self, prompt_name: str | None, prompt: str | None, on_truncation: str, normalize: bool, truncate_dim: int | None
    ) -> Pipeline:
        prefix = self._prefix(prompt_name, prompt)
        truncation = Truncation(on_truncation, self.config)
        dimension = self._dimension(truncate_dim)
        return Pipeline(self.config, self.tokenizer, self._engine, prefix, truncation, bool(normalize), dimension)

    def _prefix(self, prompt_name: str | None, prompt: str | None) -> str:
        return resolve_prompt(self.prompts, self.default_prompt_name, prompt_name, prompt)

    # ---- texts to tokens ---------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], *, prompt: str | None = None) -> dict[str, Any]:
        """What the model sees of each of B texts, padded to the longest of them (T tokens), as torch's would be.

        prompt: a str to put before each text; the model's own prompts are not asked.
        Returns input_ids, token_type_ids and attention_mask, (B, T) int64; and what padding and cutting hide: n_tokens,
        a list of int ([CLS] and [SEP] included), and truncated, a list of bool.
        Raises InputTypeError, InputValueError (both name the text).
        """
        texts = check_texts(texts)
        tokenized = self.tokenizer([prompt + text for text in texts] if prompt else texts)
        return {
            **padded(tokenized.ids, self.tokenizer.pad_id),
            "n_tokens": tokenized.n_tokens,
            "truncated": tokenized.truncated,
        }

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None) -> dict[str, Any]:
        """`tokenize`, by its name in sentence-transformers 6."""
        return self.tokenize(inputs, prompt=prompt)

    def tokenize_report(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> list[TextReport]:
        """How much of each text `encode` reads, with the same prompt; a text is tokenized whole, however long it is.

        Raises InputTypeError, InputValueError (both name the text).
        """
        prefix = self._prefix(prompt_name, prompt)
        return [report_on(self.tokenizer, prefix, text, self.max_seq_length) for text in check_texts(texts)]

    # ---- vectors to similarities -------------------------------------------------------------------------------------

    def similarity(self, embeddings1: Any, embeddings2: Any) -> NDArray[Any]:
        """How similar each of n vectors is to each of m, (n, m), by `similarity_fn_name`."""
        from minilm_np.vectors.similarity import SimilarityFunction

        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> NDArray[Any]:
        """How similar each of n vectors is to its partner, (n,), by `similarity_fn_name`."""
        from minilm_np.vectors.similarity import SimilarityFunction

        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)


@contextmanager
def _progress(total: int, shown: bool | None) -> Iterator[Callable[[int], object]]:
    """What to call with the number of texts that were done since: a bar on stderr moves, or nothing happens.

    Not told whether it is shown, as sentence-transformers does it: by what the logger shows.
    """
    if shown is None:
        shown = logging.getLogger("minilm_np").getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    if not shown:
        yield lambda done: None
        return
    from tqdm import tqdm  # takes a tenth of the start, which most processes do without

    with tqdm(total=total, desc="encode", unit="text") as bar:
        yield bar.update

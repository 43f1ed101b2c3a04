"""The public class for reranking: pairs of texts in, scores out. Its methods and arguments are those of CrossEncoder.

A cross-encoder reads a query and a document together, so it judges them better than two vectors do. It cannot store
anything per document: use a `SentenceEncoder` to find candidates, and a `CrossEncoder` to put them in order.

The class holds one `PairModel` and adds only the methods that users call; the attributes that `SentenceEncoder` has,
too, are in `encoding/public_model.py`.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from minilm_np._checks import check_int, check_optional_int, check_texts
from minilm_np._forks import no_fork
from minilm_np.encoding import sentence_transformers
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.pair_call_types import Ranked, Scores, typed_as_predict
from minilm_np.encoding.pair_inputs import Pair, Pairs, checked_activation, read_pairs
from minilm_np.encoding.pair_model import FINGERPRINT_PAIRS, PairModel, load_pair_model, random_pair_model
from minilm_np.encoding.pipeline import as_tensors, progress_bar
from minilm_np.encoding.public_model import PublicModel
from minilm_np.engine import registry
from minilm_np.engine.classifier import activate
from minilm_np.engine.protocol import Vectors, Weights
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.cross_encoder_files import save_cross_encoder
from minilm_np.model_files.manifest import DEFAULT_CROSS_ENCODER
from minilm_np.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from minilm_np.trace import PairTrace


class CrossEncoder(PublicModel):
    """A cross-encoder of the BERT family, loaded to score pairs of texts.

    model_name_or_path: the name of a model, which is downloaded on first use, or a folder that contains one.
    device: "cpu" or None.
    max_length: the maximum number of tokens used per pair, special tokens included; None: the limit of the model.
    activation_fn: from logits to scores: "Identity", "ReLU", "Sigmoid" or "Tanh", or such an object of torch.nn. None:
        that of the folder; if it has none, "Sigmoid" for one label and "Identity" for several.
    num_labels: None, or the number of labels of the model.
    prompts, default_prompt_name: override the model's own. A prompt is put before the first text of each pair.
    local_files_only, backend, compute_type, threads, others: as for `SentenceEncoder`.

    Raises HubError (the model cannot be found or downloaded); ConfigError, CheckpointError, TokenizerError (its files
    are broken, or need something that is not implemented); InputTypeError, InputValueError (an argument).

    Scoring does not change the object, so several threads may share it. It can be pickled, weights included.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] = DEFAULT_CROSS_ENCODER,
        *,
        device: str | None = None,
        max_length: int | None = None,
        activation_fn: object = None,
        num_labels: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        local_files_only: bool = False,
        backend: str = "numba",
        compute_type: str = "float32",
        threads: int | None = None,
        **others: Any,
    ) -> None:
        activation_fn = sentence_transformers.by_either_name(
            "activation_fn", activation_fn, "default_activation_function", others
        )
        others.pop("keep_in_fp32_modules", None)  # everything is at least float32 here
        sentence_transformers.check_others(others, "CrossEncoder")
        sentence_transformers.check_device(device)
        self._model = load_pair_model(
            model_name_or_path,
            registry.find(backend, compute_type),
            max_length=max_length,
            activation=None if activation_fn is None else checked_activation(activation_fn),
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            local_files_only=local_files_only,
            threads=threads,
        )
        if num_labels is not None and num_labels != self.num_labels:
            raise InputValueError(
                f"num_labels: expected None or {self.num_labels}, the number of labels of the model, found {num_labels}"
            )

    @classmethod
    def random(
        cls,
        config: ModelConfig | None = None,
        seed: int = 0,
        *,
        num_labels: int = 1,
        backend: str = "numba",
        compute_type: str = "float32",
        threads: int | None = None,
    ) -> Self:
        """Return a randomly initialised model over single characters; the same seed gives the same model.

        Nothing is downloaded. config: the sizes and the limit of the encoder; None: a small model.
        Raises ConfigError: the config's vocabulary is too small; InputTypeError, InputValueError.
        """
        check_int("num_labels", num_labels, 1)
        model = cls.__new__(cls)
        model._model = random_pair_model(config, seed, num_labels, registry.find(backend, compute_type), threads)
        return model

    @property
    def _loaded(self) -> LoadedModel:
        return self._model.encoder

    def _set(self, **settings: Any) -> None:
        self._model = self._model.with_settings(dataclasses.replace(self._loaded.settings, **settings))

    # ---- pairs to scores ---------------------------------------------------------------------------------------------

    @typed_as_predict
    def predict(
        self,
        inputs: Pairs | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        pool: None = None,
        chunk_size: None = None,
        *,
        on_truncation: str = "warn",
        **others: Any,
    ) -> "Scores | Tensor | list[Scores]":
        """Score one pair of texts or several.

        inputs: a pair, such as ("a query", "a document"); or several in a list, a tuple, an array of shape (n, 2), or a
            generator. `sentences` is the argument's old name.
        prompt_name, prompt: which prompt is put before the first text of each pair; see `prompts`.
        batch_size: accepted and unused; both backends bound their memory by tokens.
        show_progress_bar: show a progress bar on stderr; None: if the logger "minilm_np" shows INFO or DEBUG.
        activation_fn: from logits to scores, as for the class; None: that of the model.
        apply_softmax: for several labels, scale the scores of each pair so that their sum is 1.
        convert_to_numpy: False: a list of arrays instead of one array.
        convert_to_tensor: torch tensors on the CPU instead of arrays. Needs torch.
        device: "cpu" or None. pool, chunk_size: None.
        on_truncation: "warn" (once per call), "ignore" or "error" for pairs longer than `max_seq_length` tokens.

        Returns float32: n scores (n,) for n pairs if the model has one label, else (n, C). For one pair without a list
        around it, the first of these.
        Raises InputTypeError, InputValueError, NonFiniteError (all name the pair or the argument), MissingExtraError.
        """
        inputs = sentence_transformers.by_either_name("inputs", inputs, "sentences", others)
        activation_fn = sentence_transformers.by_either_name("activation_fn", activation_fn, "activation_fct", others)
        others.pop("num_workers", None)
        sentence_transformers.refuse_others("predict", others)
        check_int("batch_size", batch_size, 1)
        sentence_transformers.check_encode("sentence_embedding", "float32", device, pool, chunk_size)
        pairs, is_single = read_pairs(inputs)
        scores = self._scores(
            pairs, prompt_name, prompt, show_progress_bar, activation_fn, on_truncation, bool(apply_softmax)
        )
        found = as_tensors(scores) if convert_to_tensor else scores
        if is_single:
            return found[0]
        return found if convert_to_numpy or convert_to_tensor else list(found)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object = None,
        device: str | None = None,
        pool: None = None,
        chunk_size: None = None,
        *,
        on_truncation: str = "warn",
        **others: Any,
    ) -> list[Ranked]:
        """Return documents in the order of their scores with a query, the best one first.

        documents: as the texts of `SentenceEncoder.encode`. top_k: the number of documents to return; None: all.
        return_documents: return the texts, too. The other arguments are those of `predict`.

        Documents with equal scores stay in their order. Raises InputValueError for a model with several labels, and as
        `predict`.
        """
        activation_fn = sentence_transformers.by_either_name("activation_fn", activation_fn, "activation_fct", others)
        for name in ("num_workers", "apply_softmax", "convert_to_numpy", "convert_to_tensor"):
            others.pop(name, None)  # older arguments, which change nothing for one label
        sentence_transformers.refuse_others("rank", others)
        self._model.require_one_label()
        check_int("batch_size", batch_size, 1)
        check_optional_int("top_k", top_k, 1)
        sentence_transformers.check_encode("sentence_embedding", "float32", device, pool, chunk_size)
        if not isinstance(query, str):
            raise InputTypeError(f"query: expected a str, found {type(query).__name__}")
        texts = check_texts(documents, name="documents")
        (query,) = check_texts([query], name="query")
        pairs = [(query, text) for text in texts]
        scores = self._scores(pairs, prompt_name, prompt, show_progress_bar, activation_fn, on_truncation)
        ranked: list[Ranked] = []
        for number in np.argsort(-scores, kind="stable")[:top_k].tolist():
            ranked.append({"corpus_id": number, "score": float(scores[number])})
            if return_documents:
                ranked[-1]["text"] = texts[number]
        return ranked

    @overload
    def trace(  # type: ignore[overload-overlap]  # a pair is an iterable of sequences of str, too
        self, pairs: tuple[str, str], *, dtype: str = ..., backend: str = ...
    ) -> "PairTrace": ...
    @overload
    def trace(self, pairs: Iterable[Pair], *, dtype: str = ..., backend: str = ...) -> "list[PairTrace]": ...
    def trace(
        self, pairs: tuple[str, str] | Iterable[Pair], *, dtype: str = "float32", backend: str = "numpy"
    ) -> "PairTrace | list[PairTrace]":
        """Return every named step from tokens to score, to inspect and to compare: see `minilm_np.trace.trace`.

        The steps are those of the model alone: no prompt is put before a text.
        """
        with no_fork:
            from minilm_np import trace

        return trace.trace(self, pairs, dtype=dtype, backend=backend)

    def fingerprint(self, pairs: Iterable[Pair] = FINGERPRINT_PAIRS) -> str:
        """Return a SHA-256 that is equal on two machines if they give these pairs the same logits, bit for bit.

        It covers the version of the numerical contract, all weights, and the logits, without a prompt.
        Raises InputValueError for the NumPy backend, which has no contract; and as `predict`.
        """
        return self._model.fingerprint(read_pairs(pairs)[0])

    def _scores(
        self,
        pairs: list[tuple[str, str]],
        prompt_name: str | None,
        prompt: str | None,
        show_progress_bar: bool | None,
        activation_fn: object,
        on_truncation: str,
        normalize: bool = False,
    ) -> Vectors:
        """The scores of checked pairs: (n,) for one label, (n, C) for several."""
        activation = self.activation_fn if activation_fn is None else checked_activation(activation_fn)
        if prefix := self._model.encoder.settings.prefix(prompt_name, prompt):
            prefixed = {first: prefix + first for first, _ in pairs}  # one copy of a query, however many documents
            pairs = [(prefixed[first], second) for first, second in pairs]
        truncation = self._model.truncation(on_truncation)
        with progress_bar("score", "pair", len(pairs), show_progress_bar) as report:
            logits = self._model.logits(pairs, report, truncation)
        truncation.warn()
        one_label = self.num_labels == 1
        scores = activate(logits, activation, normalize=normalize and not one_label)
        return scores[:, 0] if one_label else scores

    # ---- the model ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> PairModel:
        """The loaded model, a frozen value."""
        return self._model

    @property
    def num_labels(self) -> int:
        """C, the number of scores per pair."""
        return len(self._model.head.labels)

    @property
    def id2label(self) -> dict[int, str]:
        """The names of the labels, by their positions in the scores."""
        return dict(enumerate(self._model.head.labels))

    @property
    def activation_fn(self) -> str:
        """The function from logits to scores: "Identity", "ReLU", "Sigmoid" or "Tanh"; can be set."""
        return self._model.head.activation

    @activation_fn.setter
    def activation_fn(self, activation_fn: object) -> None:
        self._model = self._model.with_activation(checked_activation(activation_fn))

    @property
    def max_seq_length(self) -> int:
        """The maximum number of tokens used per pair, special tokens included; can be set, up to the positions."""
        return self.config.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, limit: int) -> None:
        self._model = self._model.with_limit(limit)

    max_length = max_seq_length  # its older name

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of single texts; `model.tokenizer` takes pairs."""
        return self._model.encoder.tokenizer

    @property
    def weights(self) -> Weights:
        """All weights by Hugging Face's names without the prefix `bert.`, float32, read-only."""
        return self._model.weights

    # ---- to files ----------------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write a folder that sentence-transformers and this package load, with the same scores.

        The arguments and errors are those of `SentenceEncoder.save_pretrained`.
        """
        sentence_transformers.check_safe_serialization(safe_serialization)
        encoder = self._model.encoder
        save_cross_encoder(path, encoder.config, self._model.head, encoder.settings, encoder.tokenizer, self.weights)

    save = save_pretrained

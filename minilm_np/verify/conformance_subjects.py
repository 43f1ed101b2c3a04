"""The two kinds of models that a conformance file can be for, with one interface: sentence encoders, cross-encoders."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from minilm_np import reference
from minilm_np._checks import check_texts
from minilm_np.cross_encoder import CrossEncoder
from minilm_np.encoding.loaded_model import LoadedModel, weights_sha256
from minilm_np.encoding.pair_inputs import read_pairs
from minilm_np.engine.numpy import pair_intermediates
from minilm_np.engine.protocol import Weights
from minilm_np.model_files.checkpoint import head_shapes, parameter_shapes
from minilm_np.model_files.config import require_plain_bert
from minilm_np.reference import Array, Nested
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.trace import intermediates, trace
from minilm_np.verify.compare_pairs import QUERY, built_in_pairs
from minilm_np.verify.conformance_file import LOGITS, VECTORS, Kind
from minilm_np.verify.interface import TextPair
from minilm_np.verify.texts import built_in_texts

# The first texts of a file have all intermediates. They are short, and of different kinds.
FULL_TEXTS = ("This is an example sentence", "", "Naïve café 東京 👍 [SEP]")
FULL_PAIRS = ((QUERY, "Berlin has 3.5 million people"), ("", ""), ("Naïve café", "東京 👍 [SEP]"))

# fields of ModelConfig: a property of the folder, and those that have one value in every file
NOT_WRITTEN = (
    "transformer_path", "hidden_act", "model_type", "padding_idx", "relative_attention_num_buckets",
    "dense_size", "dense_bias", "dense_activation", "dense_path", "include_prompt",
)  # fmt: skip

T = TypeVar("T")  # str or TextPair


@dataclass(frozen=True)
class Tokens:
    """The token ids of n texts or pairs; the token types of pairs; whether each was truncated."""

    ids: list[list[int]]
    types: list[list[int]] | None
    truncated: list[bool]


class Subject(Protocol[T]):
    """A model, and what a conformance file records of its texts or pairs, T."""

    kind: Kind
    loaded: LoadedModel  # the encoder
    weights: Weights  # all of them
    full: tuple[T, ...]  # the first texts of the default

    def described(self) -> dict[str, Any]:
        """Return the manifest's `model`: the name, and everything that determines the results.

        Raises ConfigError: the model is not BERT with GELU and without Dense, which is all that CONFORMANCE.md
        describes.
        """

    def default_texts(self) -> list[T]:
        """Return the texts of a file by default."""

    def checked(self, texts: Sequence[T]) -> list[T]:
        """Return the texts as a list. Raises InputTypeError, InputValueError; both name the text."""

    def entry(self, text: T) -> dict[str, str]:
        """Return the manifest's entry of a text."""

    def text(self, entry: Mapping[str, str]) -> T:
        """Return the text of an entry."""

    def tokens(self, texts: Sequence[T]) -> Tokens:
        """Return the tokens of texts."""

    def steps(self, ids: Sequence[int], types: Sequence[int], weights: Nested) -> dict[str, Array]:
        """Return the intermediates of the reference, the last one the result."""

    def results(self, tokens: Tokens, weights: Nested) -> Array:
        """Return the results of the reference, (n, R)."""

    def computed(self, texts: Sequence[T]) -> Array:
        """Return the results of the model's own backend, whole and without a prompt, (n, R) float32."""

    def engine_steps(self, text: T) -> dict[str, Array]:
        """Return the intermediates that the model's own backend does not fuse."""


class TextSubject:
    """A sentence encoder."""

    kind = VECTORS
    full: tuple[str, ...] = FULL_TEXTS

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder, self.loaded, self.weights = encoder, encoder.model, encoder.weights

    def described(self) -> dict[str, Any]:
        return _described(self.loaded, parameter_shapes(self.loaded.config), self.loaded.weights_digest)

    def default_texts(self) -> list[str]:
        return [*self.full, *(text for _, text in built_in_texts(self._encoder))]

    def checked(self, texts: Sequence[str]) -> list[str]:
        return check_texts(texts)

    def entry(self, text: str) -> dict[str, str]:
        return {"text": text}

    def text(self, entry: Mapping[str, str]) -> str:
        return entry["text"]

    def tokens(self, texts: Sequence[str]) -> Tokens:
        found = self._encoder.tokenizer(texts)
        return Tokens(found.ids, None, found.truncated)

    def steps(self, ids: Sequence[int], types: Sequence[int], weights: Nested) -> dict[str, Array]:
        return intermediates(np.array(ids), weights, self.loaded.config)

    def results(self, tokens: Tokens, weights: Nested) -> Array:
        return reference.encode_ragged(tokens.ids, weights, self.loaded.config)

    def computed(self, texts: Sequence[str]) -> Array:
        D = self.loaded.config.hidden_size
        vectors: Array = self._encoder.encode(texts, prompt="", truncate_dim=D, on_truncation="ignore")
        return vectors

    def engine_steps(self, text: str) -> dict[str, Array]:
        return dict(trace(self._encoder, text, backend=self._encoder.backend))


class PairSubject:
    """A cross-encoder. Its results are logits, so the activation plays no part."""

    kind = LOGITS
    full: tuple[TextPair, ...] = FULL_PAIRS

    def __init__(self, model: CrossEncoder) -> None:
        self._model, self.loaded, self.weights = model, model.model.encoder, model.weights

    def described(self) -> dict[str, Any]:
        config, labels = self.loaded.config, list(self._model.model.head.labels)
        shapes = parameter_shapes(config) | head_shapes(config, len(labels))
        return _described(self.loaded, shapes, weights_sha256(self.weights.items())) | {"labels": labels}

    def default_texts(self) -> list[TextPair]:
        return [*self.full, *(pair for _, pair in built_in_pairs(self._model))]

    def checked(self, texts: Sequence[TextPair]) -> list[TextPair]:
        return read_pairs(texts)[0]

    def entry(self, text: TextPair) -> dict[str, str]:
        return {"text": text[0], "text_pair": text[1]}

    def text(self, entry: Mapping[str, str]) -> TextPair:
        return entry["text"], entry["text_pair"]

    def tokens(self, texts: Sequence[TextPair]) -> Tokens:
        found = self._model.model.tokenizer(texts)
        return Tokens(found.ids, found.token_type_ids, found.truncated)

    def steps(self, ids: Sequence[int], types: Sequence[int], weights: Nested) -> dict[str, Array]:
        return pair_intermediates(ids, types, weights, self.loaded.config)

    def results(self, tokens: Tokens, weights: Nested) -> Array:
        assert tokens.types is not None
        of_pairs = [
            reference.classify(np.array(ids), np.array(types), weights, self.loaded.config)
            for ids, types in zip(tokens.ids, tokens.types, strict=True)
        ]
        return np.stack(of_pairs)

    def computed(self, texts: Sequence[TextPair]) -> Array:
        logits = self._model.predict(texts, prompt="", activation_fn="Identity", on_truncation="ignore")
        return logits.reshape(len(texts), -1)

    def engine_steps(self, text: TextPair) -> dict[str, Array]:
        found = dict(trace(self._model, text, backend=self._model.backend))
        del found["score"]
        return found


def _described(loaded: LoadedModel, shapes: Mapping[str, tuple[int, ...]], digest: str) -> dict[str, Any]:
    require_plain_bert(loaded.config, "conformance")
    config = asdict(loaded.config)
    for name in NOT_WRITTEN:
        del config[name]
    folder = loaded.origin
    return {
        "name": "random weights" if folder is None else folder.name or folder.path.name,
        "config": config,
        "weights_sha256": digest,
        "parameters": [{"name": name, "shape": list(shape)} for name, shape in shapes.items()],
    }

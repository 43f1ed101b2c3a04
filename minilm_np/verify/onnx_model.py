"""An ONNX graph of the model, run by onnxruntime on the CPU."""

import importlib.metadata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np import reference
from minilm_np.errors import ImplementationError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.interface import Array, load_extra
from minilm_np.verify.onnx_values import expose

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
POOLED = ("sentence_embedding", "sentence_embeddings", "embedding", "embeddings", "text_embeds", "pooled")
HIDDEN = ("last_hidden_state", "token_embeddings", "hidden", "hidden_states", "output")
POOLER = ("pooler_output", "pooler")  # BERT's own head; it is not a sentence vector
DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxModel:
    """A graph from input_ids (and attention_mask, token_type_ids) to hidden states or pooled vectors.

    Hidden states, (texts, tokens, D), are pooled by the encoder's config; pooled vectors, (texts, D), are used as they
    are. The output is chosen by its name, or as the only one of its rank. The graph gets this package's token ids, one
    text at a time; it is padded only if the graph has a fixed number of tokens. Intermediates are the outputs with
    their names. If there are none, `onnx_values` finds them inside the graph, and a second session has them as outputs
    (a separate one, because additional outputs prevent fusions).

    Raises ImplementationError: onnxruntime cannot load or run the file, other inputs, no such output.
    """

    texts = None

    def __init__(self, path: Path, encoder: SentenceEncoder) -> None:
        load_extra("onnxruntime")
        self.name = f"{path.name} (onnxruntime {importlib.metadata.version('onnxruntime')})"
        self._path, self._encoder = path, encoder
        self._session = self._open(str(path))
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        if "input_ids" not in self._inputs or not set(self._inputs) <= set(INPUTS):
            raise ImplementationError(
                f"{path}: expected the inputs input_ids, attention_mask and optionally token_type_ids, found "
                f"{', '.join(self._inputs)}"
            )
        for node in self._inputs.values():
            if node.type not in DTYPES or len(node.shape) != 2:
                raise ImplementationError(
                    f"{path}: input {node.name}: expected int64 or int32 of shape (texts, tokens), found {node.type} "
                    f"of shape {node.shape}"
                )
        B, T = self._inputs["input_ids"].shape
        self._fixed_texts = B if isinstance(B, int) else 1
        self._fixed_tokens = T if isinstance(T, int) else None
        self._names = [node.name for node in self._session.get_outputs()]
        self._step_names = _step_names(encoder)
        named = {name: name for name in self._names if name in self._step_names}
        # the session whose outputs include the intermediates, and the names of these outputs
        self._steps: tuple[Any, dict[str, str]] | None = (self._session, named) if named else None
        self._output, self._is_hidden = self._choose_output()

    def vectors(self, texts: Sequence[str]) -> Array:
        found = [self._pool(*self._run(ids, [self._output])) for ids in self._encoder.tokenizer(texts).ids]
        return np.stack(found) if found else np.empty((0, self._encoder.config.vector_size), np.float32)

    def intermediates(self, texts: Sequence[str]) -> list[dict[str, Array]] | None:
        if self._steps is None:
            self._steps = self._exposed()
        session, values = self._steps
        if not values:
            return None
        texts_ids = self._encoder.tokenizer(texts).ids
        return [dict(zip(values, self._run(ids, list(values.values()), session), strict=True)) for ids in texts_ids]

    def _exposed(self) -> tuple[Any, dict[str, str]]:
        found = expose(self._path, self._step_names)
        if found is None:
            return self._session, {}
        content, values = found
        if self._is_hidden:  # the graph's own output has another name
            values[f"encoder.layer.{self._encoder.config.num_hidden_layers - 1}.output.LayerNorm"] = self._output
        session, ids = self._open(content), self._encoder.tokenizer([""]).ids[0]
        shown = zip(values, self._run(ids, list(values.values()), session), strict=True)
        return session, {name: values[name] for name, array in shown if array.shape == self._step_names[name]}

    def _open(self, graph: str | bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal only: errors are raised as exceptions, too
        try:
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, a dozen, have no other base
            raise ImplementationError(f"{self._path}: onnxruntime cannot load it: {_first_line(error)}") from error

    def token_ids(self, texts: Sequence[str]) -> None:
        return None

    def _choose_output(self) -> tuple[str, bool]:
        """The name of the output for the vectors, and whether it is hidden states."""
        candidates = [name for name in self._names if name not in self._step_names and name.lower() not in POOLER]
        first = self._encoder.tokenizer([""]).ids[0]
        ranks = {name: array.ndim + 1 for name, array in zip(candidates, self._run(first, candidates), strict=True)}
        for known, rank in ((POOLED, 2), (HIDDEN, 3)):
            for name in candidates:
                if name.lower() in known and ranks[name] == rank:
                    return name, rank == 3
        for rank in (3, 2):
            only = [name for name in candidates if ranks[name] == rank]
            if len(only) == 1:
                return only[0], rank == 3
        shown = ", ".join(f"{name} (rank {ranks[name]})" for name in candidates) or "(none)"
        raise ImplementationError(
            f"{self._path}: expected an output named last_hidden_state or "
            f"sentence_embedding, or only one of rank 3 or 2; found {shown}"
        )

    def _run(self, ids: Sequence[int], outputs: list[str], session: Any = None) -> list[Array]:
        """The outputs for one text, without the axis of texts and without padding on the axis of tokens."""
        ids, T = self._fitted(list(ids)), self._fixed_tokens
        padding = 0 if T is None else T - len(ids)
        feeds = {
            "input_ids": ids + [self._encoder.tokenizer.pad_id] * padding,
            "attention_mask": [1] * len(ids) + [0] * padding,
            "token_type_ids": [0] * (len(ids) + padding),
        }
        arrays = {
            name: np.array([feeds[name]] * self._fixed_texts, DTYPES[node.type]) for name, node in self._inputs.items()
        }
        try:
            found = (session or self._session).run(outputs, arrays) if outputs else []
        except Exception as error:
            raise ImplementationError(f"{self._path}: onnxruntime cannot run it: {_first_line(error)}") from error
        return [_without_padding(array[0], len(ids), padding) for array in found]

    def _fitted(self, ids: list[int]) -> list[int]:
        """The ids, truncated if the graph has fewer tokens; [SEP] stays the last one, as in other tokenizers."""
        T = self._fixed_tokens
        if T is None or len(ids) <= T:
            return ids
        warnings.warn(f"{self._path} has a fixed size of {T} tokens: longer texts are truncated for it", stacklevel=4)
        return [*ids[: T - 1], ids[-1]]

    def _pool(self, output: Array) -> Array:
        if not self._is_hidden:
            return output
        config = self._encoder.config
        vector = reference.pooling(output.astype(np.float32, copy=False), None, config.pooling_mode)
        return reference.normalize(vector) if config.normalize else vector


def _without_padding(array: Array, tokens: int, padding: int) -> Array:
    if padding == 0 or array.ndim < 2:
        return array
    # (T, ...) hidden states and the like; (H, T, T) attention
    return array[:, :tokens, :tokens] if array.ndim == 3 else array[:tokens]


def _step_names(encoder: SentenceEncoder) -> dict[str, tuple[int, ...]]:
    """The name of every array that `reference.forward` records, and its shape for the empty text."""
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str, x: Array) -> Array:
        shapes[name] = x.shape
        return x

    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(encoder.config).items()}
    ids = np.array(encoder.tokenizer([""]).ids[0], np.int64)
    reference.forward(ids, reference.nest(weights), encoder.config, record=keep)
    return shapes


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

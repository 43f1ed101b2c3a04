"""`trace`: computes the named arrays of texts, or of pairs of texts."""

import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

from minilm_np import reference
from minilm_np._checks import check_texts
from minilm_np.encoding.loaded_model import HasModel, LoadedModel
from minilm_np.encoding.pair_inputs import read_pairs
from minilm_np.encoding.pair_model import HasPairModel, PairModel
from minilm_np.engine import registry
from minilm_np.engine.classifier import activate
from minilm_np.engine.numpy import pair_intermediates
from minilm_np.engine.protocol import Arrays, Engine
from minilm_np.engine.registry import EngineKind
from minilm_np.text.pairs import PairTokenizer
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.trace.result import PairTrace, Trace, dimensions

Offsets = list[tuple[int, int]]


@overload
def trace(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
    encoder: LoadedModel | HasModel,
    texts: str,
    *,
    dtype: str = ...,
    backend: str = ...,
) -> Trace: ...
@overload
def trace(
    encoder: LoadedModel | HasModel,
    texts: Iterable[str],
    *,
    dtype: str = ...,
    backend: str = ...,
) -> list[Trace]: ...
@overload
def trace(
    encoder: PairModel | HasPairModel,
    texts: tuple[str, str],
    *,
    dtype: str = ...,
    backend: str = ...,
) -> PairTrace: ...
@overload
def trace(
    encoder: PairModel | HasPairModel,
    texts: Iterable[Sequence[str]],
    *,
    dtype: str = ...,
    backend: str = ...,
) -> list[PairTrace]: ...
def trace(
    encoder: LoadedModel | HasModel | PairModel | HasPairModel,
    texts: str | Iterable[str] | Iterable[Sequence[str]],
    *,
    dtype: str = "float32",
    backend: str = "numpy",
) -> Trace | list[Trace] | PairTrace | list[PairTrace]:
    """Return every named intermediate of a text, or of each of several; of pairs of texts for a cross-encoder.

    texts: a str gives a `Trace`; a sequence of str gives a list, in its order. A pair gives a `PairTrace`; a sequence
        of pairs gives a list. Each text or pair is computed alone, so nothing is padded, and its arrays do not depend
        on the others. No prompt is put before a text.
    dtype: "float32", as published; or "float64", the weights widened: the reference for measuring other results.
    backend: "numpy", the reference, which records every step, for an encoder with any backend; or "numba", the
        float32 engine, which leaves out the steps that it fuses. Its last array is the vector of `encode` or the score
        of `predict`, bit for bit.

    A trace of 256 tokens of the published model takes about 80 MB in float32, twice that in float64.
    Raises InputTypeError, InputValueError (a text or a pair, by its number; an unknown dtype or backend).
    """
    model = encoder if isinstance(encoder, LoadedModel | PairModel) else encoder.model
    if isinstance(model, PairModel):
        pairs, is_single = read_pairs(texts)
        found = _pair_traces(model, pairs, dtype, backend)
        return found[0] if is_single else found
    kind = _kind(model, backend, dtype)
    many = check_texts([texts] if isinstance(texts, str) else texts)
    engine = _engine(model, kind, dtype)
    traces = []
    for number, text in enumerate(many):
        tokens, ids, offsets, truncated = tokens_of(model.tokenizer, text)
        model.tokenizer.check_tokens([ids], number)
        arrays = engine.intermediates(ids)
        letters = {name: dimensions(name) for name in arrays}
        if "dense" in letters and "normalize" in letters:
            letters["normalize"] = "G"
        traces.append(
            Trace(arrays, letters, text, tokens, ids, offsets, truncated, model.name, backend, dtype, _versions(kind))
        )
    return traces[0] if isinstance(texts, str) else traces


def _pair_traces(model: PairModel, pairs: Sequence[tuple[str, str]], dtype: str, backend: str) -> list[PairTrace]:
    encoder = model.encoder
    kind = _kind(encoder, backend, dtype)
    logits_of = _by_reference(model, dtype) if kind.contract is None else _by_engine(model, _engine(encoder, kind, dtype))
    traces = []
    for pair in pairs:
        described = tokens_of_pair(model.tokenizer, pair)
        arrays = logits_of(described["ids"], described["token_type_ids"])
        arrays["score"] = activate(arrays["classifier"][None], model.head.activation, dtype=dtype)[0]
        letters = {name: dimensions(name) for name in arrays}
        traces.append(
            PairTrace(
                arrays, letters, model=encoder.name, backend=backend, dtype=dtype, versions=_versions(kind), **described
            )
        )
    return traces


LogitsOf = Callable[[list[int], list[int]], Arrays]  # token ids and types -> named arrays, the last one `classifier`


def _by_reference(model: PairModel, dtype: str) -> LogitsOf:
    weights = reference.nest(model.weights, dtype)
    return lambda ids, types: pair_intermediates(ids, types, weights, model.encoder.config)


def _by_engine(model: PairModel, engine: Engine) -> LogitsOf:
    def compute(ids: list[int], types: list[int]) -> Arrays:
        arrays = engine.intermediates(ids, types)
        first_token = arrays.pop("pooling")  # the last LayerNorm has it, too
        return arrays | {"classifier": model.classifier.logits(first_token[None])[0]}

    return compute


def _kind(model: LoadedModel, backend: str, dtype: str) -> EngineKind:
    """The kind of engine that computes a trace: that of the model, if it has this backend."""
    kind = model.kind if model.kind.backend == backend else registry.find(backend)
    kind.check_dtype(dtype)
    return kind


def _engine(model: LoadedModel, kind: EngineKind, dtype: str) -> Engine:
    """The engine of the model, if it is of this kind; else one with the same weights."""
    engine = model.engine
    if model.kind is kind and dtype == kind.dtypes[0]:
        return engine
    return kind.make(model.config, engine.weights().items(), 1 if kind.own_threads else None, dtype)


def _versions(kind: EngineKind) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("minilm-np", *kind.packages)}


# ---- tokens ----------------------------------------------------------------------------------------------------------


def tokens_of(tokenizer: TextTokenizer, text: str) -> tuple[list[str], list[int], Offsets, bool]:
    """Return the tokens of a text, their ids, the characters that each comes from, and whether the text was truncated.

    The ids are those of `tokenizer([text])`; a long text is tokenized in the same bounded pieces.
    """
    tokenized = tokenizer([text])
    ids = tokenized.ids[0]
    before, after = len(tokenizer.before), len(tokenizer.after)
    offsets = [(0, 0)] * before + _offsets(tokenizer, text, len(ids) - before - after) + [(0, 0)] * after
    return [tokenizer.token(number) for number in ids], ids, offsets, tokenized.truncated[0]


def tokens_of_pair(tokenizer: PairTokenizer, pair: tuple[str, str]) -> dict[str, Any]:
    """Return the fields of a `PairTrace` that the tokenizer decides; they are described there."""
    tokenized = tokenizer([pair])
    ids, lengths = tokenized.ids[0], tokenized.lengths[0]
    segments = tokenizer.segments(*lengths)
    of_texts = (_offsets(tokenizer.texts, text, length) for text, length in zip(pair, lengths, strict=True))
    left = dict(zip(("first", "second"), map(iter, of_texts), strict=True))
    return {
        "text": pair[0],
        "text_pair": pair[1],
        "tokens": [tokenizer.texts.token(number) for number in ids],
        "ids": ids,
        "offsets": [next(left[segment]) if segment in left else (0, 0) for segment in segments],
        "truncated": tokenized.truncated[0],
        "token_type_ids": tokenized.token_type_ids[0],
        "segments": segments,
    }


def _offsets(tokenizer: TextTokenizer, text: str, n_tokens: int) -> Offsets:
    """The characters that the first tokens of a text come from, start and stop of each."""
    offsets: Offsets = []
    for start, encodings in tokenizer.encodings(text):
        offsets += [(start + first, start + last) for encoding in encodings for first, last in encoding.offsets]
        if len(offsets) >= n_tokens:
            break
    return offsets[:n_tokens]

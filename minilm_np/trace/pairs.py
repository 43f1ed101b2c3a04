"""The named arrays of pairs of texts in a cross-encoder."""

from collections.abc import Callable, Sequence
from typing import Any

from minilm_np import reference
from minilm_np.encoding.pair_model import PairModel
from minilm_np.engine.classifier import activate
from minilm_np.engine.numpy import pair_intermediates
from minilm_np.engine.protocol import Arrays, Engine
from minilm_np.text.pairs import PairTokenizer
from minilm_np.trace.parts import engine_of, kind_of, offsets_of, versions
from minilm_np.trace.result import PairTrace, dimensions

LogitsOf = Callable[[list[int], list[int]], Arrays]  # token ids and types -> named arrays, the last one `classifier`


def pair_traces(model: PairModel, pairs: Sequence[tuple[str, str]], dtype: str, backend: str) -> list[PairTrace]:
    """Return the traces of checked pairs; dtype and backend are those of `trace`."""
    encoder = model.encoder
    kind = kind_of(encoder, backend, dtype)
    if kind.contract is None:  # the reference
        logits_of = _by_reference(model, dtype)
    else:
        logits_of = _by_engine(model, engine_of(encoder, kind, dtype))
    traces = []
    for pair in pairs:
        described = _tokens(model.tokenizer, pair)
        arrays = logits_of(described["ids"], described["token_type_ids"])
        arrays["score"] = activate(arrays["classifier"][None], model.head.activation, dtype=dtype)[0]
        letters = {name: dimensions(name) for name in arrays}
        traces.append(
            PairTrace(
                arrays, letters, model=encoder.name, backend=backend, dtype=dtype, versions=versions(kind), **described
            )
        )
    return traces


def _by_reference(model: PairModel, dtype: str) -> LogitsOf:
    weights = reference.nest(model.weights, dtype)
    return lambda ids, types: pair_intermediates(ids, types, weights, model.encoder.config)


def _by_engine(model: PairModel, engine: Engine) -> LogitsOf:
    def compute(ids: list[int], types: list[int]) -> Arrays:
        arrays = engine.intermediates(ids, types)
        first_token = arrays.pop("pooling")  # the last LayerNorm has it, too
        return arrays | {"classifier": model.classifier.logits(first_token[None])[0]}

    return compute


def _tokens(tokenizer: PairTokenizer, pair: tuple[str, str]) -> dict[str, Any]:
    """Return the fields of a `PairTrace` that the tokenizer decides; they are described there."""
    tokenized = tokenizer([pair])
    ids, lengths = tokenized.ids[0], tokenized.lengths[0]
    segments = tokenizer.segments(*lengths)
    of_texts = (offsets_of(tokenizer.texts, text, length) for text, length in zip(pair, lengths, strict=True))
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

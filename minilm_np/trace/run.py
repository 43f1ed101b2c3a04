"""`trace`: computes the named arrays of texts, or of pairs of texts."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from minilm_np._checks import check_texts
from minilm_np._forks import no_fork
from minilm_np.encoding.loaded_model import HasModel, LoadedModel
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.trace.parts import Offsets, engine_of, kind_of, offsets_of, versions
from minilm_np.trace.result import PairTrace, Trace, dimensions

if TYPE_CHECKING:  # cross-encoders are loaded when they are used
    from minilm_np.encoding.pair_model import HasPairModel, PairModel


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
def trace(  # type: ignore[overload-overlap]  # a pair is an iterable of sequences of str, too
    encoder: "PairModel | HasPairModel",
    texts: tuple[str, str],
    *,
    dtype: str = ...,
    backend: str = ...,
) -> PairTrace: ...
@overload
def trace(
    encoder: "PairModel | HasPairModel",
    texts: Iterable[Sequence[str]],
    *,
    dtype: str = ...,
    backend: str = ...,
) -> list[PairTrace]: ...
def trace(
    encoder: "LoadedModel | HasModel | PairModel | HasPairModel",
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
    model: Any = encoder if isinstance(encoder, LoadedModel) else getattr(encoder, "model", encoder)
    if not isinstance(model, LoadedModel):
        with no_fork:
            from minilm_np.encoding.pair_inputs import read_pairs
            from minilm_np.trace.pairs import pair_traces

        pairs, is_single = read_pairs(texts)
        found = pair_traces(model, pairs, dtype, backend)
        return found[0] if is_single else found
    kind = kind_of(model, backend, dtype)
    many = check_texts([texts] if isinstance(texts, str) else cast(Iterable[str], texts))
    engine = engine_of(model, kind, dtype)
    traces = []
    for number, text in enumerate(many):
        tokens, ids, offsets, truncated = tokens_of(model.tokenizer, text)
        model.tokenizer.check_tokens([ids], number)
        arrays = engine.intermediates(ids)
        letters = {name: dimensions(name) for name in arrays}
        if "dense" in letters and "normalize" in letters:
            letters["normalize"] = "G"
        traces.append(
            Trace(arrays, letters, text, tokens, ids, offsets, truncated, model.name, backend, dtype, versions(kind))
        )
    return traces[0] if isinstance(texts, str) else traces


def tokens_of(tokenizer: TextTokenizer, text: str) -> tuple[list[str], list[int], Offsets, bool]:
    """Return the tokens of a text, their ids, the characters that each comes from, and whether the text was truncated.

    The ids are those of `tokenizer([text])`; a long text is tokenized in the same bounded pieces.
    """
    tokenized = tokenizer([text])
    ids = tokenized.ids[0]
    before, after = len(tokenizer.before), len(tokenizer.after)
    offsets = [(0, 0)] * before + offsets_of(tokenizer, text, len(ids) - before - after) + [(0, 0)] * after
    return [tokenizer.token(number) for number in ids], ids, offsets, tokenized.truncated[0]

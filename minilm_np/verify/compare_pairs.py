"""Compare a cross-encoder with another implementation: the scores of pairs, and the steps that lead to them."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from minilm_np import reference
from minilm_np._progress import tracked
from minilm_np.cross_encoder import CrossEncoder
from minilm_np.encoding.pair_inputs import read_pairs
from minilm_np.engine.classifier import activate
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.verify.comparison import TOLERANCE, PairComparison, Results, check_tolerance, token_problems, usable
from minilm_np.verify.interface import PairImplementation, TextPair
from minilm_np.verify.pair_sources import open_pair_implementation
from minilm_np.verify.steps import Steps
from minilm_np.verify.texts import PARAGRAPH, TEXTS, words
from minilm_np.verify.vector_errors import FLOOR

QUERY = "How many people live in Berlin?"


def compare_pairs(
    model: CrossEncoder,
    source: str | PairImplementation,
    pairs: Sequence[TextPair] | None = None,
    *,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> PairComparison:
    """Compare a cross-encoder's scores and intermediates with another implementation's, as `compare` does for vectors.

    source: an argument of `open_pair_implementation`, or its result.
    pairs: None: the pairs for which the source has scores, or the built-in ones.
    tolerance: the largest difference of a score that is allowed, relative to the largest score of all pairs.

    The scores are logits if the other implementation shows logits, else scores by the activation of the model. Prompts
    are not used.
    Raises InputTypeError and InputValueError (pairs, tolerance, source), ImplementationError (the other implementation
    fails), MissingExtraError (a package is not installed).
    """
    check_tolerance(tolerance)
    other = open_pair_implementation(source, model) if isinstance(source, str) else source
    labels, pairs = _labelled(model, other, pairs)
    activation = other.activation or model.activation_fn
    tokens = model.model.tokenizer(pairs)
    problems = token_problems(labels, tokens.ids, other.token_ids(pairs))
    ours = model.predict(pairs, prompt="", activation_fn=activation, on_truncation="ignore").reshape(len(pairs), -1)
    theirs = np.asarray(other.scores(pairs))
    theirs = theirs[:, None] if theirs.ndim == 1 else theirs
    comparable = usable(theirs, ours.shape, labels, problems, "pair", "score")

    steps = Steps(model.weights, model.tokenizer, problems)
    truths = []
    items: Iterable[int] = range(len(pairs))
    if progress:
        items = tracked(list(items), "comparing", "pair", delay=3, leave=False)
    for number in items:
        ids = np.array(tokens.ids[number], np.int64)
        run = partial(_classify, ids, np.array(tokens.token_type_ids[number], np.int64), model.config)
        logits = steps.compare(ids, run, other.intermediates(pairs[number]), labels[number])
        truths.append(activate(logits[None], activation, dtype="float64")[0])

    results = Results("score")
    scale = max(float(np.abs(truths).max()), FLOOR)
    for number, (label, truth) in enumerate(zip(labels, truths, strict=True)):
        results.add(ours[number], theirs[number] if comparable[number] else None, truth, label, scale)
    return PairComparison(
        ours=f"minilm_np ({model.model.encoder.kind.name})",
        theirs=other.name,
        texts=len(pairs),
        tolerance=float(tolerance),
        largest=results.largest,
        our_largest=results.our_largest,
        intermediates=steps.rows,
        vector=results.worst,
        parts_at=steps.parts_at,
        problems=problems,
    )


def built_in_pairs(model: CrossEncoder) -> list[tuple[str, TextPair]]:
    """Return (label, pair): a query with each built-in text, and pairs whose lengths depend on the model's limit."""
    tokenizer = model.model.tokenizer
    room = model.max_seq_length - tokenizer.n_special
    rest = max(0, model.max_seq_length - tokenizer.measure(QUERY, ""))
    long = PARAGRAPH * (2 + model.max_seq_length // 40)
    return [
        *((label, (QUERY, text)) for label, text in TEXTS),
        ("two empty texts", ("", "")),
        ("an empty query", ("", PARAGRAPH)),
        ("one under the limit", (QUERY, words(rest - 1))),
        ("at the limit", (QUERY, words(rest))),
        ("one over the limit", (QUERY, words(rest + 1))),
        ("a document far over the limit", (QUERY, long)),
        ("a query far over the limit", (long, QUERY)),
        ("both far over the limit", (long, words(room + 5))),
    ]


def _classify(
    ids: Array, types: Array, config: ModelConfig, weights: reference.Nested, record: reference.Record
) -> Array:
    return reference.classify(ids, types, weights, config, record=record)


def _labelled(
    model: CrossEncoder, other: PairImplementation, pairs: Sequence[TextPair] | None
) -> tuple[list[str], list[TextPair]]:
    """The name of each pair in a report, and the pairs."""
    built_in = built_in_pairs(model)
    if pairs is None:
        pairs = other.pairs if other.pairs is not None else [pair for _, pair in built_in]
    checked, _ = read_pairs(pairs)
    if not checked:
        raise InputValueError("pairs: expected at least one, found none")
    known = {pair: label for label, pair in built_in}
    return [
        known.get((first, second), f"pair {number} {first[:18]!r}, {second[:18]!r}")
        for number, (first, second) in enumerate(checked)
    ], checked

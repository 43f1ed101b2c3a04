"""Compare an encoder with another implementation: how far apart they are, which is closer to float64, where they part.

The reference for both sides is `reference.py` in float64, one text at a time. The errors are those of whole arrays, see
`array_errors.py`.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from minilm_np import reference
from minilm_np._checks import check_texts
from minilm_np._progress import tracked
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.comparison import TOLERANCE, Comparison, Results, check_tolerance, token_problems, usable
from minilm_np.verify.implementations import as_implementation
from minilm_np.verify.interface import Implementation
from minilm_np.verify.steps import Steps
from minilm_np.verify.texts import built_in_texts
from minilm_np.verify.vector_errors import FLOOR


def compare(
    encoder: SentenceEncoder,
    source: str | Implementation,
    texts: Sequence[str] | None = None,
    *,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> Comparison:
    """Compare an encoder's vectors and intermediates with another implementation's.

    source: an argument of `open_implementation`, or its result.
    texts: None: the texts for which the source has vectors, or the built-in ones.
    tolerance: the largest difference of a number of a vector, relative to the vector's length (1 in most models).
    progress: show progress on stderr: after a few seconds a bar on a terminal, elsewhere a line every ten seconds.

    Our vectors are those of the encoder's own backend; our intermediates are those of the reference in float32, which
    has the steps that the kernels fuse. Both sides compute intermediates from the same token ids, and vectors from the
    texts. Prompts and `truncate_dim` of the encoder are not used.
    Raises InputTypeError and InputValueError (texts, tolerance, source), ImplementationError (the other implementation
    fails), MissingExtraError (a package is not installed).
    """
    check_tolerance(tolerance)
    other = as_implementation(source, encoder)
    labels, texts = _labelled(encoder, other, texts)
    our_ids = encoder.tokenizer(texts).ids
    problems = token_problems(labels, our_ids, other.token_ids(texts))
    ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.vector_size, on_truncation="ignore")
    theirs = np.asarray(other.vectors(texts))
    comparable = usable(theirs, ours.shape, labels, problems, "text", "vector")

    steps = Steps(encoder.weights, encoder.tokenizer, problems)
    results = Results("vector")
    labelled = list(zip(labels, our_ids, strict=True))
    items: Iterable[tuple[str, list[int]]] = labelled
    if progress:
        items = tracked(labelled, "comparing", "text", delay=3, leave=False)
    for number, (label, ids) in enumerate(items):
        shown = other.intermediates([texts[number]])
        token_ids = np.array(ids, np.int64)
        run = partial(_forward, token_ids, encoder.config)
        truth = steps.compare(token_ids, run, {} if shown is None else shown[0], label)
        length = max(float(np.linalg.norm(truth)), FLOOR)
        results.add(ours[number], theirs[number] if comparable[number] else None, truth, label, length)
    return Comparison(
        ours=f"minilm_np ({encoder.model.kind.name})",
        theirs=other.name,
        texts=len(texts),
        tolerance=float(tolerance),
        largest=results.largest,
        our_largest=results.our_largest,
        intermediates=steps.rows,
        vector=results.worst,
        parts_at=steps.parts_at,
        problems=problems,
    )


def _forward(ids: Array, config: ModelConfig, weights: reference.Nested, record: reference.Record) -> Array:
    return reference.forward(ids, weights, config, record=record)


def _labelled(
    encoder: SentenceEncoder, other: Implementation, texts: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """The name of each text in a report, and the texts."""
    built_in = built_in_texts(encoder)
    if texts is None:
        texts = other.texts if other.texts is not None else [text for _, text in built_in]
    texts = check_texts(texts)
    if not texts:
        raise InputValueError("texts: expected at least one, found none")
    known = {text: label for label, text in built_in}
    shown = (text if len(text) <= 40 else text[:37] + "..." for text in texts)
    return [
        known.get(text, f"text {number} {start!r}")
        for number, (text, start) in enumerate(zip(texts, shown, strict=True))
    ], texts

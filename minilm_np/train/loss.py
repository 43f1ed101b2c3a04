"""What training minimises: each text must find its partner among all texts of the batch.

The columns of a batch are anchors, positives and, maybe, hard negatives. Every anchor is compared with candidates by
`scale` times the cosine, and cross entropy asks for its own positive:

    pairs (a, p)            S = scale A P^T, (B, B);  loss = (CE(S) + CE(S^T)) / 2: a finds p, and p finds a
    tuples (a, p, n, ...)   S = scale A [P; N; ...]^T, (B, (n - 1) B);  loss = CE(S): a finds p

where CE(S) is the mean over rows of log sum exp(S_i) - S_ii.

Source: Reimers and Gurevych, Sentence-BERT (2019); Henderson et al., Efficient Natural Language Response Suggestion
(2017), section 4.4. Upstream: the published training script; MultipleNegativesRankingLoss of sentence-transformers.
"""

import math

import numpy as np

from minilm_np import reference
from minilm_np.errors import InputTypeError, InputValueError, NonFiniteError
from minilm_np.reference import Array
from minilm_np.train.backward import normalize_backward


def cross_entropy(scores: Array) -> tuple[float, Array]:  # (B, C) -> (), (B, C)
    """The mean over rows i of log sum exp(scores_i) - scores_ii, and its gradient, (softmax - one at ii) / B.

    The row's maximum is taken out before exp, and the sum is at least 1 then: no scale overflows.
    """
    B = len(scores)
    shifted = scores - scores.max(axis=1, keepdims=True)
    exps = np.exp(shifted)
    sums = exps.sum(axis=1, keepdims=True)
    loss = (np.log(sums[:, 0]) - shifted.diagonal()).mean()
    d_scores = exps / (sums * B)
    d_scores[np.arange(B), np.arange(B)] -= 1.0 / B
    return float(loss), d_scores


def contrastive_loss(vectors: Array, *, scale: float = 20.0, normalize: bool = False) -> tuple[float, Array]:
    """The loss of a batch and its gradient by the vectors.

    vectors: (n, B, D), float32 or float64: n >= 2 columns of B texts each: anchors, positives, then hard negatives.
    scale: what the cosines are multiplied by.
    normalize: scale the vectors to unit length first; False where the model has done so.

    Returns the loss (a Python float) and d_vectors, (n, B, D) in the dtype of vectors; sums are in float64.
    Raises InputTypeError, InputValueError (shape, dtype, scale), NonFiniteError (which text's vector is not finite).
    """
    _check(vectors, scale)
    x = vectors.astype(np.float64)
    unit = reference.normalize(x) if normalize else x
    n, B, D = unit.shape
    anchors, candidates = unit[0], unit[1:].reshape(-1, D)  # (B, D), ((n - 1) B, D)
    with np.errstate(over="ignore", invalid="ignore"):  # the error below says more than a warning
        scores = _product(anchors, candidates) * scale
        loss, d_scores = cross_entropy(scores)
        if n == 2:
            back, d_back = cross_entropy(scores.T)
            loss, d_scores = (loss + back) / 2, (d_scores + d_back.T) / 2
    if not math.isfinite(loss):
        raise NonFiniteError(f"the loss is {loss}: the scores overflow at scale {scale}; use a smaller one")
    d_unit = np.empty_like(unit)
    d_unit[0] = _product(d_scores, candidates.T) * scale
    d_unit[1:] = (_product(d_scores.T, anchors.T) * scale).reshape(n - 1, B, D)
    d_vectors = normalize_backward(d_unit, x) if normalize else d_unit
    return loss, d_vectors.astype(vectors.dtype)


def _product(x: Array, y: Array) -> Array:  # (N, K), (M, K) -> (N, M)
    """x y^T, each sum in one order: a BLAS's may depend on its threads, and a run is to give the same bits on any."""
    return np.einsum("nk,mk->nm", np.ascontiguousarray(x), np.ascontiguousarray(y))


def _check(vectors: Array, scale: float) -> None:
    if not isinstance(vectors, np.ndarray) or vectors.dtype not in (np.float32, np.float64):
        found = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise InputTypeError(f"vectors: expected an array of float32 or float64, found {found}")
    if vectors.ndim != 3 or len(vectors) < 2 or not vectors.size:
        raise InputValueError(
            f"vectors: expected (columns, texts, numbers) with at least 2 columns and 1 text, found {vectors.shape}"
        )
    if not 0 < scale < math.inf:
        raise InputValueError(f"scale: expected a finite number above 0, found {scale}")
    finite = np.isfinite(vectors).all(axis=-1)
    if not finite.all():
        column, row = np.argwhere(~finite)[0]
        raise NonFiniteError(
            f"column {column}, row {row}: the vector is not finite (NaN or infinity), nor is it for "
            f"{np.count_nonzero(~finite) - 1} others: the weights have diverged; use a smaller rate, or clip gradients"
        )

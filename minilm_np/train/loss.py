"""The contrastive loss: each text must find its partner among all candidates of the batch.

The columns of a batch are anchors, positives and optional hard negatives. The score of an anchor and a candidate is
`scale` times their cosine. Cross entropy rewards a high score of the anchor's own positive:

    pairs (a, p)            S = scale A P^T, (B, B);  loss = (CE(S) + CE(S^T)) / 2: a finds p, and p finds a
    tuples (a, p, n, ...)   S = scale A [P; N; ...]^T, (B, (n - 1) B);  loss = CE(S): a finds p

CE(S) is the mean over rows i of log sum exp(S_i) - S_ii.

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
    """The mean over rows i of log sum exp(scores_i) - scores_ii, and its gradient.

    The gradient of row i is (softmax(scores_i) - e_i) / B, where e_i is 1 at column i and 0 elsewhere. The maximum of
    each row is subtracted before exp, so exp never overflows and each sum is at least 1.
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
    """The loss of a batch, and its gradient with respect to the vectors.

    vectors: (n, B, D), float32 or float64: n >= 2 columns of B texts each (anchors, positives, hard negatives).
    scale: the factor by which cosines are multiplied.
    normalize: scale the vectors to unit length first. Use False if the model has normalised them.

    Returns the loss (a Python float) and d_vectors, (n, B, D) in the dtype of vectors. Sums are in float64.
    Raises InputTypeError, InputValueError (shape, dtype, scale), NonFiniteError (vectors or scores are not finite).
    """
    _check(vectors, scale)
    x = vectors.astype(np.float64)
    unit = reference.normalize(x) if normalize else x
    n, B, D = unit.shape
    anchors, candidates = unit[0], unit[1:].reshape(-1, D)  # (B, D), ((n - 1) B, D)
    with np.errstate(over="ignore", invalid="ignore"):  # the error below is clearer than NumPy's warning
        scores = _product(anchors, candidates) * scale
        loss, d_scores = cross_entropy(scores)
        if n == 2:
            back, d_back = cross_entropy(scores.T)
            loss, d_scores = (loss + back) / 2, (d_scores + d_back.T) / 2
    if not math.isfinite(loss):
        raise NonFiniteError(f"the loss is {loss}: the scores overflow at scale {scale}: use a smaller scale")
    d_unit = np.empty_like(unit)
    d_unit[0] = _product(d_scores, candidates.T) * scale
    d_unit[1:] = (_product(d_scores.T, anchors.T) * scale).reshape(n - 1, B, D)
    d_vectors = normalize_backward(d_unit, x) if normalize else d_unit
    return loss, d_vectors.astype(vectors.dtype)


def _product(x: Array, y: Array) -> Array:  # (N, K), (M, K) -> (N, M)
    """x y^T with sums in a fixed order: in BLAS the order may depend on the threads, and with it the bits of a run."""
    return np.einsum("nk,mk->nm", np.ascontiguousarray(x), np.ascontiguousarray(y))


def _check(vectors: Array, scale: float) -> None:
    if not isinstance(vectors, np.ndarray) or vectors.dtype not in (np.float32, np.float64):
        found = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise InputTypeError(f"vectors: expected an array of float32 or float64, found {found}")
    if vectors.ndim != 3 or len(vectors) < 2 or not vectors.size:
        raise InputValueError(
            f"vectors: expected (n, B, D), n columns of B texts, at least 2 columns and 1 text, found {vectors.shape}"
        )
    if not 0 < scale < math.inf:
        raise InputValueError(f"scale: expected a finite number above 0, found {scale}")
    finite = np.isfinite(vectors).all(axis=-1)
    if not finite.all():
        column, row = np.argwhere(~finite)[0]
        raise NonFiniteError(
            f"vectors: expected finite numbers, found NaN or infinity in {np.count_nonzero(~finite)} of {finite.size} "
            f"vectors, first in column {column}, row {row}: the weights have diverged: use a smaller rate, or clip "
            "gradients"
        )

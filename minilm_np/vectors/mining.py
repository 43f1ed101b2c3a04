"""Search a corpus, find paraphrases, find communities of similar vectors.

Scores are computed in chunks, so memory does not grow with the number of pairs. Equal scores are ordered by index, the
lower one first. Names and arguments are those of sentence_transformers.util.

Upstream: sentence_transformers/util/retrieval.py.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from minilm_np._checks import check_int
from minilm_np._forks import no_fork
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.similarity import (
    Array,
    ScoreFunction,
    as_array,
    as_matrix,
    check_dimensions,
    cos_sim,
    cosines,
    quiet,
    unit_vectors,
)


class Hit(TypedDict):
    """One entry of a corpus that a search found."""

    corpus_id: int  # its index
    score: float  # an int if score_function returns integers


class TextEncoder(Protocol):
    """A model whose `encode` turns texts into vectors, such as SentenceEncoder or SentenceTransformer."""

    @property
    def encode(self) -> Callable[..., Any]: ...


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[Hit]]:
    """Find, for each query, the most similar entries of a corpus.

    query_embeddings, corpus_embeddings: (n, D) and (m, D), or (D,) for a single one.
    query_chunk_size, corpus_chunk_size: how many queries are compared with how many entries at a time. Memory holds
        the scores of one such chunk, and for cos_sim a scaled copy of its vectors.
    top_k: entries per query; all entries if the corpus has fewer.
    score_function: vectors (q, D) and (c, D) to scores (q, c); a higher score means more similar.

    Returns, for each query, a list of {"corpus_id": int, "score": float}, the best first.
    Raises InputTypeError and InputValueError: arguments that are not arrays of vectors, vectors of different lengths, a
    chunk size below 1, a score that is NaN.
    """
    queries = as_matrix(query_embeddings, "query_embeddings")
    corpus = as_matrix(corpus_embeddings, "corpus_embeddings")
    if not len(corpus) or corpus.shape == (1, 0):  # [] has no dimension and needs none
        corpus = corpus.reshape(0, queries.shape[1])
    check_dimensions(queries, corpus, "query_embeddings", "corpus_embeddings")
    query_chunk_size = check_int("query_chunk_size", query_chunk_size, 1)
    corpus_chunk_size = check_int("corpus_chunk_size", corpus_chunk_size, 1)
    scores, ids = _nearest(
        queries, corpus, query_chunk_size, corpus_chunk_size, check_int("top_k", top_k, 0), score_function
    )
    return [
        [{"corpus_id": entry, "score": score} for entry, score in zip(*row, strict=True)]
        for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


def paraphrase_mining(
    model: TextEncoder,
    sentences: Sequence[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Encode sentences and find the most similar pairs among them.

    model: a SentenceEncoder. show_progress_bar, batch_size, truncate_dim, prompt_name and prompt are passed to its
        `encode`.
    The other arguments and the result are those of `paraphrase_mining_embeddings`.
    """
    options = {"truncate_dim": truncate_dim, "prompt_name": prompt_name, "prompt": prompt}
    embeddings = model.encode(
        sentences,
        batch_size=batch_size,
        show_progress_bar=show_progress_bar,
        **{name: value for name, value in options.items() if value is not None},
    )
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """Find the most similar pairs of vectors.

    embeddings: (n, D).
    query_chunk_size, corpus_chunk_size, score_function: as for `semantic_search`; scores must be symmetric.
    top_k: a pair is considered if one of its vectors is among the top_k nearest of the other.
    max_pairs: the largest number of pairs returned; memory holds about twice as many.

    Returns [score, i, j] for each pair, with i < j, the best first. Pairs of equal score are ordered by i, then by j.
    Raises InputTypeError and InputValueError as `semantic_search`.
    """
    vectors = as_matrix(embeddings)
    query_chunk_size = check_int("query_chunk_size", query_chunk_size, 1)
    corpus_chunk_size = check_int("corpus_chunk_size", corpus_chunk_size, 1)
    max_pairs, top_k = check_int("max_pairs", max_pairs, 0), check_int("top_k", top_k, 0)
    n = len(vectors)
    found: list[tuple[Array, Array]] = []  # pairs as i * n + j, and their scores
    for start in range(0, n, query_chunk_size):
        queries = vectors[start : start + query_chunk_size]
        # one more than top_k: most vectors find themselves
        sizes = (len(queries), corpus_chunk_size, top_k + 1)
        scores, ids = _nearest(queries, vectors, *sizes, score_function, first_query=start)
        own = np.arange(start, start + len(queries))[:, None]
        counts = ids != own
        counts &= np.cumsum(counts, axis=1) <= top_k
        found.append(((np.minimum(ids, own) * n + np.maximum(ids, own))[counts], scores[counts]))
        if sum(len(pairs) for pairs, _ in found) > 2 * max_pairs:
            found = [_best_pairs(found, max_pairs)]
    if not found:
        return []
    pairs, scores = _best_pairs(found, max_pairs)
    i, j = np.divmod(pairs, n)
    return [list(triplet) for triplet in zip(scores.tolist(), i.tolist(), j.tolist(), strict=True)]


def _best_pairs(found: list[tuple[Array, Array]], max_pairs: int) -> tuple[Array, Array]:
    """The best pairs and their scores, each pair once: most are found from both of their vectors."""
    pairs, first = np.unique(np.concatenate([pairs for pairs, _ in found]), return_index=True)
    scores = np.concatenate([scores for _, scores in found])[first]
    best = top_indices(scores, max_pairs)
    return pairs[best], scores[best]


@quiet
def community_detection(
    embeddings: ArrayLike,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Find groups of vectors whose cosine with a central vector reaches a threshold.

    Vectors are tried as centres in the order of their number of neighbours, the largest first. A centre takes its
    neighbours that are in no group yet; if too few are left, it forms no group. So no vector is in two groups.

    embeddings: (n, D).
    threshold: the smallest cosine of a member with its centre, compared in float32. Equal vectors have the cosine 1, so
        a threshold of 1 finds exact duplicates.
    min_community_size: the smallest size of a group, its centre included; at least 1.
    batch_size: vectors whose cosines with all vectors are held in memory at a time.
    show_progress_bar: draw a bar on stderr.

    Returns one list of indices per group, the largest group first: the centre, then the others by decreasing cosine.
    Raises InputTypeError and InputValueError.
    """
    array = as_array(embeddings)
    batch_size = check_int("batch_size", batch_size, 1)
    min_community_size = check_int("min_community_size", min_community_size, 1)
    try:
        least = np.float32(float(threshold))
    except (TypeError, ValueError):
        raise InputTypeError(f"threshold: expected a number, found {threshold!r}") from None
    if not array.size:
        return []
    vectors = unit_vectors(as_matrix(array), "community_detection")
    neighbours = np.empty(len(vectors), np.int64)
    for start in _progress(range(0, len(vectors), batch_size), show_progress_bar):
        rows = slice(start, start + batch_size)
        neighbours[rows] = np.count_nonzero(cosines(vectors[rows], vectors) >= least, axis=1)
    centers = np.argsort(-neighbours, kind="stable")
    centers = centers[neighbours[centers] >= min_community_size]

    # The cosines of each possible centre are computed a second time: keeping its neighbours could take n * n memory.
    communities: list[list[int]] = []
    claimed = np.zeros(len(vectors), bool)
    while len(centers := centers[~claimed[centers]]):
        batch, centers = centers[:batch_size], centers[batch_size:]
        for center, scores in zip(batch.tolist(), cosines(vectors[batch], vectors), strict=True):
            if claimed[center]:
                continue
            members = np.flatnonzero((scores >= least) & ~claimed)
            if len(members) >= min_community_size:
                members = members[top_indices(scores[members], len(members))]
                community = [center, *members[members != center].tolist()]
                claimed[community] = True
                communities.append(community)
    return sorted(communities, key=len, reverse=True)


def top_indices(scores: Array, k: int) -> Array:  # (n,) -> (at most k,)
    """Indices of the k highest scores, the highest first. Among equal scores the lower index comes first."""
    n = len(scores)
    found = np.arange(n)
    if 0 < k < n:
        lowest = np.partition(scores, n - k)[n - k]
        above = np.flatnonzero(scores > lowest)
        level = np.flatnonzero(scores == lowest)
        found = np.concatenate([above, level[: k - len(above)]])
    # reversing before and after a stable ascending sort gives a stable descending one
    return found[::-1][np.argsort(scores[found[::-1]], kind="stable")][::-1][:k]


def _nearest(
    queries: Array,
    corpus: Array,
    query_chunk: int,
    corpus_chunk: int,
    k: int,
    score_function: ScoreFunction,
    first_query: int = 0,
) -> tuple[Array, Array]:  # (n, D), (m, D) -> (n, K), (n, K), K = min(k, m)
    """For each query, the scores and the indices of the k best entries, the best first.

    first_query: the number of the first query, for errors.
    """
    starts = range(0, len(queries), query_chunk)
    # int8 is the narrowest dtype, so concatenating takes the dtype of the scores
    best = [np.empty((len(queries[start : start + query_chunk]), 0), np.int8) for start in starts]
    best_ids = [np.empty(scores.shape, np.int64) for scores in best]
    cosine = score_function is cos_sim  # then normalise each chunk of the corpus once, not once per chunk of queries
    for offset in range(0, len(corpus), corpus_chunk):
        entries = corpus[offset : offset + corpus_chunk]
        if cosine:
            entries = unit_vectors(entries, "cos_sim")
        for chunk, start in enumerate(starts):
            asking = queries[start : start + query_chunk]
            result = cosines(unit_vectors(asking, "cos_sim"), entries) if cosine else score_function(asking, entries)
            scores = _checked(result, (len(asking), len(entries)), first_query + start, offset)
            ids = _top_rows(scores, k)
            scores = np.concatenate([best[chunk], np.take_along_axis(scores, ids, axis=1)], axis=1)
            ids = np.concatenate([best_ids[chunk], ids + offset], axis=1)
            kept = _top_rows(scores, k)
            best[chunk], best_ids[chunk] = (np.take_along_axis(array, kept, axis=1) for array in (scores, ids))
    if not starts:
        return np.empty((0, 0)), np.empty((0, 0), np.int64)
    return np.concatenate(best), np.concatenate(best_ids)


def _top_rows(scores: Array, k: int) -> Array:  # (n, m) -> (n, min(k, m))
    return np.stack([top_indices(row, k) for row in scores])


def _checked(result: ArrayLike, shape: tuple[int, int], first_query: int, first_entry: int) -> Array:
    scores = as_array(result, "the result of score_function")
    if scores.shape != shape:
        raise InputValueError(f"score_function: expected scores of the shape {shape}, found {scores.shape}")
    if np.isnan(scores.max()):
        query, entry = np.argwhere(np.isnan(scores))[0]
        raise InputValueError(
            f"the score of query {first_query + query} and corpus entry {first_entry + entry} is NaN: look for NaN or "
            "infinity in the two vectors"
        )
    return scores


def _progress(batches: Iterable[int], shown: bool) -> Iterable[int]:
    if not shown or sys.stderr is None:  # a process without a console, or `2>&-`
        return batches
    with no_fork:
        from tqdm import tqdm  # imported here: it takes 0.1 s, and most processes do not need it

    return tqdm(batches, desc="Finding clusters")

"""Exact nearest neighbours of every query, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Pictures this similar are one and the same to the model: a picture of the right place then goes behind the others, so
# that a model that maps everything to one vector scores nothing.
TIE = 1e-6
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of the queries, or of the gallery: N rows each.

    Attributes:
        vectors: (N, D) float32, L2-normalised.
        place: (N,) integer code of the location.
        day: (N,) integer code of the capture date, or None where dates play no part.
    """

    vectors: np.ndarray
    place: np.ndarray
    day: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The k best gallery rows of every query, and where the first of the right place stands.

    Attributes:
        neighbours: (Q, k) positions in the gallery, best first; -1 where the gallery is smaller than k.
        similarities: (Q, k) float32 cosine similarities; NaN beside -1.
        first_hit: (Q,) rank (from 1) of the first gallery row of the query's place in the *whole* gallery; 0 if it has none.
    """

    neighbours: np.ndarray
    similarities: np.ndarray
    first_hit: np.ndarray

    def hit_at(self, k: int) -> np.ndarray:
        """(Q,) bool: a picture of the right place is among the first k."""
        return (self.first_hit >= 1) & (self.first_hit <= k)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Float32 rows of length 1; a row of zeros stays zero."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def rank(queries: Side, gallery: Side, k: int) -> Ranking:
    """Rank the gallery for every query by cosine similarity, exactly.

    Where both sides have `day`, gallery rows of the query's own place *and* day are left out of its ranking.
    """
    block = max(1, _BLOCK_BYTES // (4 * len(gallery.place)))
    parts = [_rank_block(queries, gallery, slice(start, start + block), k) for start in range(0, len(queries.place), block)]
    return Ranking(
        np.concatenate([part.neighbours for part in parts]),
        np.concatenate([part.similarities for part in parts]),
        np.concatenate([part.first_hit for part in parts]),
    )


def _rank_block(queries: Side, gallery: Side, rows: slice, k: int) -> Ranking:
    similarity = queries.vectors[rows] @ gallery.vectors.T
    same = queries.place[rows, None] == gallery.place[None, :]
    key = similarity - np.float32(TIE) * same
    if queries.day is not None and gallery.day is not None:
        left_out = same & (queries.day[rows, None] == gallery.day[None, :])
        key[left_out] = -np.inf
        same &= ~left_out
    best = np.max(key, axis=1, where=same, initial=-np.inf)
    ahead = np.count_nonzero((key >= best[:, None]) & ~same, axis=1)
    first_hit = np.where(same.any(axis=1), ahead + 1, 0)
    top, top_key = _top_k(key, k)
    found = np.take_along_axis(similarity, np.maximum(top, 0), axis=1)
    return Ranking(np.where(np.isfinite(top_key), top, -1), np.where(np.isfinite(top_key), found, np.nan), first_hit)


def _top_k(key: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) column positions of the largest keys, best first, and their keys; padded with -1 and -inf."""
    width = min(k, key.shape[1])
    candidates = np.sort(np.argpartition(-key, width - 1, axis=1)[:, :width], axis=1)
    order = np.argsort(-np.take_along_axis(key, candidates, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(candidates, order, axis=1)
    top_key = np.take_along_axis(key, top, axis=1)
    padding = ((0, 0), (0, k - width))
    return np.pad(top, padding, constant_values=-1), np.pad(top_key, padding, constant_values=-np.inf)

"""By what a photo of the region differs from one of elsewhere, as networks that were never shown elsewhere see it.

Each sign is larger or smaller for the region's own photos than for others; how they are weighed is learned (`calibration`) from
photos of the region alone: looked at as they are, and once more as if their own place were in no gallery, which is how a photo
from elsewhere is seen. Measured in benchmarks/RESULTS.md, "One answer from all experts".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geoloc_dagster.geo.distance import EARTH_RADIUS_M, unit_vectors
from geoloc_dagster.prediction.experts import F64, Hits, Verified
from geoloc_dagster.prediction.panel import PLACES, RETRIEVAL, Expert, HitsExpert, PlacesExpert
from geoloc_dagster.prediction.verification import VerificationExpert

NEAR_M = 50.0
"""What lies so near to a place shows the same buildings."""
HIDDEN_M = 100.0
"""What lies so near to a photo may show what it shows, from further away."""
_DEPTH = 60
_RANKS = (1, 2, 3, 5, 10, 20, 40)
_TOGETHER = (5, 10, 20)
_BEHIND = 20
_NO_AGREEMENT = 1e-3
_LEAST = -50.0  # of log-probabilities
_BLOCK = 256
_NEAR, _HIDDEN = np.cos(NEAR_M / EARTH_RADIUS_M), np.cos(HIDDEN_M / EARTH_RADIUS_M)


def signs_of(experts: Sequence[Expert], found: Mapping[str, Any], own: tuple[F64, F64] | None = None) -> dict[str, F64]:
    """Signs of N photos, (N,) each; none without an index of more than 20 pictures and a head over its views.

    Of each network of retrieval: similarities at some ranks, how far the first stands out from those behind it, how many of the
    first lie where the first does; of its `places` the log-probability of the best view, of all views there, of the best view
    elsewhere, and the entropy. Of two networks whether they find the same places. Of the pictures that were compared feature by
    feature how much the best ones share with the photo, and whether the best lies where the network's first does.

    Args:
        experts: that looked.
        found: what each saw, by name.
        own: latitudes and longitudes of the photos, degrees, to see them as if nothing within `HIDDEN_M` were in the gallery.
    """
    by_name = {one.name: one for one in experts}
    at = None if own is None else unit_vectors(*own)
    signs, networks, looked = dict[str, F64](), list[tuple[str, Hits]](), dict[str, Any]()
    for name, hits in found.items():
        beside, seen_by = name.removeprefix(RETRIEVAL), by_name[name]
        head = by_name.get(PLACES + beside)
        if not isinstance(seen_by, HitsExpert) or not isinstance(head, PlacesExpert) or hits.similarity.shape[1] <= _BEHIND:
            continue
        vectors = _with_nowhere(seen_by.grid.vectors)
        hits = looked[name] = _without(hits, vectors, at)
        networks.append((beside, hits))
        of_cells = vectors[head.cells()]
        looked[head.name] = _elsewhere(found[head.name], of_cells, at)
        said = {**_of_hits(hits, vectors), **_of_views(found[head.name], of_cells, at)}
        signs |= {f"{sign}{beside}": values for sign, values in said.items()}
    for beside, hits in networks[1:]:
        signs[f"agrees{beside}"] = _agreement(networks[0][1], hits)
    for expert in experts:
        if isinstance(expert, VerificationExpert) and set(expert.sources) <= set(looked):
            verified: Verified = found[expert.name]
            compared = verified.hits if at is None else expert.compare(verified.features, looked).hits
            signs |= _of_compared(compared, networks[0][1], _with_nowhere(expert.grid.vectors))
    return signs


def _with_nowhere(vectors: F64) -> F64:
    """A last row, which cell -1 takes, that is near to nothing."""
    return np.vstack([vectors, np.zeros(3)])


def _without(hits: Hits, vectors: F64, at: F64 | None) -> Hits:
    """The first hits, less those near to `at`; where too few are left the last stands for those that lack, and lies nowhere."""
    depth = min(_DEPTH, hits.similarity.shape[1])
    if at is None:
        return Hits(hits.similarity[:, :depth], hits.cells[:, :depth], None if hits.rows is None else hits.rows[:, :depth])
    near = np.einsum("nkd,nd->nk", vectors[hits.cells], at) > _HIDDEN
    order = np.argsort(near, axis=1, kind="stable")[:, :depth]
    similarity, gone = np.take_along_axis(hits.similarity, order, 1), np.take_along_axis(near, order, 1)
    least = np.where(gone, np.inf, similarity).min(axis=1, keepdims=True)
    least = np.where(np.isfinite(least), least, hits.similarity[:, -1:])
    rows = None if hits.rows is None else np.where(gone, -1, np.take_along_axis(hits.rows, order, 1))
    return Hits(np.where(gone, least, similarity), np.where(gone, -1, np.take_along_axis(hits.cells, order, 1)), rows)


def _elsewhere(log_probabilities: Any, vectors: F64, at: F64 | None) -> Any:
    """Of views at `vectors`, (V, 3): what is said of them, less those near to `at`, which cannot be."""
    return log_probabilities if at is None else np.where(at @ vectors.T > _HIDDEN, -np.inf, log_probabilities)


def _of_hits(hits: Hits, vectors: F64) -> dict[str, F64]:
    similarity, depth = hits.similarity, hits.similarity.shape[1]
    said = {f"similarity_{rank}": similarity[:, rank - 1] for rank in _RANKS if rank <= depth}
    said["stands_out"] = similarity[:, 0] - similarity[:, _BEHIND:].mean(axis=1)
    with_first = np.einsum("nkd,nd->nk", vectors[hits.cells], vectors[hits.cells[:, 0]]) > _NEAR
    return said | {f"together_{count}": with_first[:, :count].mean(axis=1) for count in _TOGETHER}


def _of_views(log_probabilities: Any, vectors: F64, at: F64 | None) -> dict[str, F64]:
    """Of views at `vectors`, (V, 3): the best, all where it is, the best elsewhere, the entropy."""
    said = np.empty((len(log_probabilities), 4))
    for start in range(0, len(said), _BLOCK):
        block = np.asarray(log_probabilities[start : start + _BLOCK], np.float64)
        if at is not None:
            block = _elsewhere(block, vectors, at[start : start + _BLOCK])
            left = np.logaddexp.reduce(block, axis=1, keepdims=True)
            nothing = np.isneginf(left)  # then all are as likely
            block = np.where(nothing, -np.log(block.shape[1]), block - np.where(nothing, 0, left))
        best = block.argmax(axis=1)
        there = (vectors[best] @ vectors.T > _NEAR) | (np.arange(block.shape[1]) == best[:, None])
        share = np.exp(block)
        elsewhere = np.where(there, -np.inf, block).max(axis=1)
        said[start : start + _BLOCK] = np.column_stack(
            [
                block.max(axis=1),
                np.log(np.where(there, share, 0).sum(axis=1)),
                np.maximum(elsewhere, _LEAST),
                -(share * np.maximum(block, _LEAST)).sum(axis=1),
            ]
        )
    return {"best_view": said[:, 0], "best_place": said[:, 1], "next_place": said[:, 2], "entropy": said[:, 3]}


def _of_compared(compared: Hits, first: Hits, vectors: F64) -> dict[str, F64]:
    """What the best shares with the photo, the next where it lies, the best elsewhere; whether it lies where `first` begins."""
    shares, where = np.maximum(compared.similarity, 0), vectors[compared.cells]
    best = where[np.arange(len(where)), compared.similarity.argmax(axis=1)]
    there = np.einsum("nkd,nd->nk", where, best) > _NEAR
    at_best = np.sort(np.where(there, shares, 0), axis=1)
    return {
        "shared": shares.max(axis=1),
        "shared_next": at_best[:, -2],
        "shared_elsewhere": np.where(there, 0, shares).max(axis=1),
        "shared_first": (np.einsum("nd,nd->n", best, vectors[first.cells[:, 0]]) > _NEAR).astype(np.float64),
    }


def _agreement(first: Hits, second: Hits) -> F64:
    """How much of what two networks find lies in the same cells, log, (N,): hits count by 1 / rank."""
    ranks = [1.0 / np.arange(1, min(_BEHIND, hits.cells.shape[1]) + 1) for hits in (first, second)]
    shares = [rank / rank.sum() for rank in ranks]
    found = [hits.cells[:, : len(share)] for hits, share in zip((first, second), shares, strict=True)]
    same = (found[0][:, :, None] == found[1][:, None, :]) & (found[0] >= 0)[:, :, None]
    return np.log(_NO_AGREEMENT + np.einsum("nij,i,j->n", same, *shares))

"""Rows that show one and the same picture, and what that says about how they were collected.

Three defects of real collections come down to equal pictures: views whose camera did not turn, one panorama registered as two
locations, and one picture filed under two dates. So pictures are compared once, and everything else is a grouping.

Equal bytes are found by checksum. Re-encoded copies are found in two steps: all pairs of perceptual hashes within a few bits
(exact, no pair is missed), then a look at small grey thumbnails, because dark or plain pictures of different scenes have near
hashes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

UInt64Array = npt.NDArray[np.uint64]
UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ReadThumbnails = Callable[[IntArray], UInt8Array]

THUMBNAIL_SIDE = 16
MAX_HAMMING = 8
"""Bits. Re-encoding at JPEG quality 60 after a resize by 0.9 changed at most 6 bits of 700 street views, mostly none."""
MAX_GREY_DIFFERENCE = 2.0
"""Mean absolute difference of thumbnails, grey levels: at most 0.5 for those copies."""
MIN_CORRELATION = 0.985
"""Of thumbnails: tells tunnels apart, which differ by little more than noise in grey levels but stay below 0.97 here."""
_CONFIRM_ROWS = 4096
_MANY = 100_000  # hashes from which on joining on three bands beats joining on two


def byte_identical_groups(frame: pd.DataFrame) -> list[list[str]]:
    """Capture ids of rows with equal bytes, one list per group of at least two.

    Args:
        frame: columns capture_id and sha256; rows without a checksum are ignored.
    """
    rows = frame.dropna(subset=["sha256"])
    repeated = rows[rows.duplicated("sha256", keep=False)]
    return sorted(sorted(group) for _, group in repeated.groupby("sha256")["capture_id"])


def frozen_rotations(frame: pd.DataFrame) -> set[str]:
    """Captures of one location and date that show the same picture under different views: the camera did not turn.

    All of them are returned, because nothing says which view the picture really is.

    Args:
        frame: columns capture_id, location_id, captured_on, view, picture (equal numbers: one and the same picture).
    """
    views: Any = frame.groupby(["location_id", "captured_on", "picture"], dropna=False)["view"].transform("nunique")
    return set(frame.loc[views > 1, "capture_id"])


def repeated_dates(frame: pd.DataFrame) -> set[str]:
    """Captures of one location that show the same picture under different dates, of which at most one can be right.

    Args:
        frame: as for `frozen_rotations`.
    """
    dates: Any = frame.groupby(["location_id", "picture"])["captured_on"].transform("nunique")
    return set(frame.loc[dates > 1, "capture_id"])


def shared_panoramas(frame: pd.DataFrame) -> set[str]:
    """Captures of panoramas that are registered under more than one location.

    A panorama is shared where its id is, or where one of its pictures is; then all views of that location and date are returned.

    Args:
        frame: as for `frozen_rotations`, with pano_id; rows without a scene (black, uniform) must be left out by the caller.
    """
    rows: Any = frame
    by_id = rows.groupby("pano_id")["location_id"].transform("nunique") > 1
    of_picture = rows.groupby("picture")["location_id"].transform("nunique") > 1
    by_picture = of_picture.groupby([rows["location_id"], rows["captured_on"]], dropna=False).transform("any")
    return set(rows.loc[by_id | by_picture, "capture_id"])


def picture_numbers(sha256: pd.Series, phash: UInt64Array, comparable: BoolArray, thumbnails: ReadThumbnails) -> IntArray:
    """Number the pictures of n rows: rows get the same number exactly when they show one and the same picture.

    Args:
        sha256: shape (n,), of the encoded picture; missing where there is none, and such rows equal nothing.
        phash: shape (n,).
        comparable: shape (n,), False for rows that are compared by checksum alone, e.g. black ones.
        thumbnails: grey thumbnails of the rows at these positions, shape (k, side, side).

    Returns:
        Shape (n,), from 0, in order of first appearance.
    """
    n = len(sha256)
    codes = np.asarray(pd.factorize(sha256)[0], dtype=np.int64)
    missing = codes < 0
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(int(missing.sum()))
    _, first = np.unique(codes, return_index=True)  # one row for each group of equal bytes
    compared = first[comparable[first] & ~missing[first]]
    pairs = compared[near_duplicates(phash[compared], lambda rows: thumbnails(compared[rows]))]
    same_bytes = np.stack([np.arange(n), first[codes]], axis=1)
    edges = np.concatenate([same_bytes, pairs])
    graph = coo_array((np.ones(len(edges), dtype=np.bool_), (edges[:, 0], edges[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    return np.asarray(pd.factorize(labels)[0], dtype=np.int64)


def near_duplicates(phash: UInt64Array, thumbnails: ReadThumbnails, threshold: int = MAX_HAMMING) -> IntArray:
    """Pairs of rows that show one and the same picture, re-encoded or resized.

    Args:
        phash: shape (n,), 64-bit perceptual hashes.
        thumbnails: grey thumbnails of the rows at these positions, shape (k, side, side); asked once, for candidates only.
        threshold: bits in which the hashes may differ.

    Returns:
        Shape (m, 2), positions i < j.
    """
    pairs = hamming_pairs(phash, threshold)
    if len(pairs) == 0:
        return pairs
    rows, inverse = np.unique(pairs, return_inverse=True)
    pictures = thumbnails(rows)  # each once: among pictures that are much alike, such as skies, a row is in very many pairs
    places = inverse.reshape(pairs.shape)
    same = [same_picture(pictures[chunk[:, 0]], pictures[chunk[:, 1]]) for chunk in _chunks(places, _CONFIRM_ROWS)]
    return pairs[np.concatenate(same)]


def hamming_pairs(phash: UInt64Array, threshold: int) -> IntArray:
    """All pairs of hashes that differ in at most `threshold` of 64 bits, without comparing all pairs.

    The 64 bits are cut into `threshold + 2` bands. At most `threshold` bands hold a differing bit, so at least two bands agree:
    joining on every choice of two bands finds every pair (Norouzi et al., Fast search in Hamming space with multi-index
    hashing, 2014). Many hashes are joined on three of `threshold + 3` bands: more joins, each of far fewer rows.

    Returns:
        Shape (m, 2), i < j, sorted.
    """
    if not 0 <= threshold <= 16:
        raise ValueError(f"threshold must be 0 to 16 bits, not {threshold}")
    values, inverse, counts = np.unique(phash, return_inverse=True, return_counts=True)
    found = [np.zeros((0, 2), dtype=np.int64)]
    agreeing = 2 if len(values) < _MANY else 3
    for key in _band_keys(values, threshold + agreeing, agreeing):
        for left, right in _equal_key_pairs(key):
            near = np.bitwise_count(values[left] ^ values[right]) <= threshold
            found.append(np.stack([np.minimum(left, right)[near], np.maximum(left, right)[near]], axis=1))
    near_values = np.unique(np.concatenate(found), axis=0)
    return _pairs_of_rows(near_values, inverse, counts)


def same_picture(left: UInt8Array, right: UInt8Array) -> BoolArray:
    """Whether thumbnails, shape (m, side, side) each, show one and the same picture.

    Both the absolute difference and the correlation decide; plain pictures, whose correlation is noise, are never the same.
    """
    a, b = left.reshape(len(left), -1).astype(np.float64), right.reshape(len(right), -1).astype(np.float64)
    difference = np.abs(a - b).mean(axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation = np.einsum("ij,ij->i", a, b) / np.maximum(norms, 1e-9)
    return (difference <= MAX_GREY_DIFFERENCE) & (correlation >= MIN_CORRELATION)


def _chunks(pairs: IntArray, size: int) -> Iterator[IntArray]:
    for offset in range(0, len(pairs), size):
        yield pairs[offset : offset + size]


def _band_keys(values: UInt64Array, n_bands: int, agreeing: int) -> Iterator[UInt64Array]:
    """The bits of every choice of `agreeing` bands, the rest set to zero."""
    edges = np.linspace(0, 64, n_bands + 1).astype(int).tolist()
    masks = [((1 << end) - 1) ^ ((1 << start) - 1) for start, end in pairwise(edges)]
    for chosen in combinations(masks, agreeing):
        yield values & np.uint64(sum(chosen))


def _equal_key_pairs(key: UInt64Array) -> Iterator[tuple[IntArray, IntArray]]:
    """Positions of all pairs of equal keys: sorted neighbours, then neighbours of neighbours, until none is left."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    start = np.arange(len(order))
    for step in range(1, len(order)):
        start = start[start + step < len(order)]
        start = start[ordered[start] == ordered[start + step]]
        if start.size == 0:
            return
        yield order[start], order[start + step]


def _pairs_of_rows(near_values: IntArray, inverse: IntArray, counts: IntArray) -> IntArray:
    """Pairs of rows from pairs of distinct values, and of rows with one and the same value."""
    rows_of = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1]) if counts.size else []
    found = [np.zeros((0, 2), dtype=np.int64)]
    for value in np.flatnonzero(counts > 1).tolist():
        rows = rows_of[value]
        i, j = np.triu_indices(len(rows), 1)
        found.append(np.stack([rows[i], rows[j]], axis=1))
    for a, b in near_values.tolist():
        left, right = np.meshgrid(rows_of[a], rows_of[b], indexing="ij")
        found.append(np.stack([left.ravel(), right.ravel()], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)

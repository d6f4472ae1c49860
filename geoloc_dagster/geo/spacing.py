"""Choosing points that are at least so many metres apart, exactly on the WGS84 ellipsoid.

Straight-line distances between earth-centred coordinates decide almost every pair. A geodesic of length s has curvature of at
most 1/R with R = b²/a, the smallest radius of curvature of the ellipsoid, so by Schur's comparison theorem its chord c is
between 2 R sin(s / 2 R) and s. Only a pair whose chord lies in that gap for s = spacing (four nanometres wide at 100 m) is
measured along the ellipsoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree

from geoloc_dagster.geo.distance import FloatArray, ecef_m, geodesic_m, wgs84

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_SMALLEST_RADIUS_M = wgs84().b ** 2 / wgs84().a
_ROUNDING_M = 1e-6  # above the rounding of earth-centred coordinates, which are of the order of 1e-9 m
_BLOCK = 1024  # candidates that are settled among themselves at once; bounds the pairs held in memory


class _Points:
    """Positions with their earth-centred coordinates, and a tree of these once it is asked for."""

    def __init__(self, lat_deg: FloatArray, lng_deg: FloatArray, xyz: FloatArray | None = None) -> None:
        self.lat_deg, self.lng_deg = lat_deg, lng_deg
        self.xyz = ecef_m(lat_deg, lng_deg) if xyz is None else xyz

    @cached_property
    def tree(self) -> Any:
        return KDTree(self.xyz, balanced_tree=False, compact_nodes=False)

    def subset(self, chosen: IntArray) -> _Points:
        return _Points(self.lat_deg[chosen], self.lng_deg[chosen], self.xyz[chosen])


def keep_apart(
    lat_deg: FloatArray,
    lng_deg: FloatArray,
    spacing_m: float,
    registered_lat_deg: FloatArray | None = None,
    registered_lng_deg: FloatArray | None = None,
) -> BoolArray:
    """Mark the points to keep, first come first served, so that any two kept are at least `spacing_m` apart.

    A point is kept exactly when no registered point and no kept point before it is nearer than `spacing_m` along the WGS84
    ellipsoid; so every point that is left out has a kept or registered one within `spacing_m`. Memory stays in proportion to
    the number of points however densely they lie, because the neighbours of a kept point are struck out unseen.

    Args:
        lat_deg: shape (n,), in the order of preference.
        lng_deg: shape (n,).
        spacing_m: metres, above zero.
        registered_lat_deg: shape (m,), positions that stay; they are not compared with each other.
        registered_lng_deg: shape (m,).

    Returns:
        Booleans of shape (n,).

    Raises:
        ValueError: shapes differ, a coordinate is not finite, or the spacing is not positive.
    """
    lat, lng = _checked(lat_deg, lng_deg, spacing_m)
    kept = np.zeros(lat.size, dtype=np.bool_)
    alive = np.ones(lat.size, dtype=np.bool_)
    if lat.size == 0:
        return kept
    points = _Points(lat, lng)
    if registered_lat_deg is not None and registered_lng_deg is not None:
        registered = _Points(*_checked(registered_lat_deg, registered_lng_deg, spacing_m))
        alive = ~_near_any(points, registered, spacing_m)
    start = 0
    while start < lat.size:
        block, start = _next_alive(alive, start)
        chosen = block[_first_come(points.subset(block), spacing_m)]
        kept[chosen] = True
        for _, j in _close(points.subset(chosen), points, spacing_m):
            alive[j] = False
    return kept


def close_pairs(lat_deg: FloatArray, lng_deg: FloatArray, spacing_m: float) -> pd.DataFrame:
    """Every pair of points nearer than `spacing_m` along the WGS84 ellipsoid: the defects of a set meant to be spaced.

    Returns:
        Columns i, j (positions in the input, i < j) and distance_m, nearest first.
    """
    lat, lng = _checked(lat_deg, lng_deg, spacing_m)
    left, right = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if lat.size:
        points = _Points(lat, lng)
        found = [np.stack([i[i < j], j[i < j]]) for i, j in _close(points, points, spacing_m)]
        left, right = np.concatenate(found, axis=1)
    metres = geodesic_m(lat[left], lng[left], lat[right], lng[right])
    pairs = pd.DataFrame({"i": left, "j": right, "distance_m": metres})
    return pairs.sort_values(["distance_m", "i", "j"], ignore_index=True)


def _checked(lat_deg: FloatArray, lng_deg: FloatArray, spacing_m: float) -> tuple[FloatArray, FloatArray]:
    lat, lng = np.asarray(lat_deg, dtype=np.float64), np.asarray(lng_deg, dtype=np.float64)
    if lat.ndim != 1 or lat.shape != lng.shape:
        raise ValueError(f"latitudes and longitudes must be of one length, not {lat.shape} and {lng.shape}")
    if not (np.isfinite(lat).all() and np.isfinite(lng).all()):
        raise ValueError("a latitude or longitude is not a finite number")
    if not 0 < spacing_m < 1e6:
        raise ValueError(f"the spacing must be between 0 and 1,000 km, not {spacing_m} m")
    return lat, lng


def _next_alive(alive: BoolArray, start: int) -> tuple[IntArray, int]:
    """The next `_BLOCK` points still alive from `start` on, and where to go on after them."""
    found: list[IntArray] = []
    missing = _BLOCK
    while missing > 0 and start < alive.size:
        stop = min(start + 4 * _BLOCK, alive.size)
        part = start + np.flatnonzero(alive[start:stop])[:missing]
        missing -= part.size
        found.append(part)
        start = stop if missing > 0 else int(part[-1]) + 1
    return np.concatenate(found), start


def _first_come(points: _Points, spacing_m: float) -> BoolArray:
    """The greedy choice within one block: each point in order, unless an earlier chosen one is too near."""
    n = points.lat_deg.size
    chosen = np.ones(n, dtype=np.bool_)
    for i, j in _close(points, points, spacing_m):
        later = i < j
        order = np.argsort(i[later], kind="stable")
        for a, b in zip(i[later][order].tolist(), j[later][order].tolist(), strict=True):
            if chosen[a]:
                chosen[b] = False
    return chosen


def _near_any(points: _Points, registered: _Points, spacing_m: float) -> BoolArray:
    """Which points are nearer to a registered one than the spacing; the nearest by chord settles all but the unsure."""
    if registered.lat_deg.size == 0:
        return np.zeros(points.lat_deg.size, dtype=np.bool_)
    chord: FloatArray = registered.tree.query(points.xyz, distance_upper_bound=spacing_m + _ROUNDING_M)[0]
    near = chord < _surely_below(spacing_m)
    unsure = np.flatnonzero(~near & np.isfinite(chord))
    for i, _ in _close(points.subset(unsure), registered, spacing_m):
        near[unsure[i]] = True
    return near


def _surely_below(spacing_m: float) -> float:
    """The chord under which a pair is nearer than the spacing whatever its direction."""
    return float(2 * _SMALLEST_RADIUS_M * np.sin(spacing_m / (2 * _SMALLEST_RADIUS_M)) - _ROUNDING_M)


def _close(left: _Points, right: _Points, spacing_m: float) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs (i of left, j of right) nearer than the spacing, in blocks of i that go up."""
    for offset in range(0, left.lat_deg.size, _BLOCK):
        stop = min(offset + _BLOCK, left.lat_deg.size)
        i, j = _candidate_pairs(left, right, slice(offset, stop), spacing_m + _ROUNDING_M)
        chord = np.sqrt(((left.xyz[i] - right.xyz[j]) ** 2).sum(axis=1))
        close = chord < _surely_below(spacing_m)
        unsure = np.flatnonzero(~close)
        if unsure.size:
            a, b = i[unsure], j[unsure]
            close[unsure] = geodesic_m(left.lat_deg[a], left.lng_deg[a], right.lat_deg[b], right.lng_deg[b]) < spacing_m
        yield i[close], j[close]


def _candidate_pairs(left: _Points, right: _Points, block: slice, reach_m: float) -> tuple[IntArray, IntArray]:
    """Pairs whose chord is at most `reach_m`; within one block in one go, otherwise point by point, which scales with `right`."""
    if left is right and left.lat_deg.size <= _BLOCK:
        pairs: Any = left.tree.query_pairs(reach_m, output_type="ndarray")
        return pairs[:, 0], pairs[:, 1]
    found: Any = right.tree.query_ball_point(left.xyz[block], reach_m, return_sorted=False)
    counts = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    i = np.repeat(np.arange(block.start, block.stop), counts)
    return i, np.fromiter(chain.from_iterable(found), dtype=np.int64, count=int(counts.sum()))

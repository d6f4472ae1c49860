"""Which batches are worth most: the photos of the region that are expected to be found once a batch is collected, and not before.

The region is its covered grid points, each as likely to be photographed as another. A point is found with the share that its
reach says for the nearest collected picture, less where that picture is old; where answers are vaguer than elsewhere a point
weighs more. Batches are taken one after another, each time the one that adds most per location, so that two batches of one
street do not count it twice (the greedy choice, within 1 - 1/e of the best one: Nemhauser, Wolsey and Fisher, 1978).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from geoloc_dagster.dataset.reach import Reach

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

HALF_LIFE_YEARS: Final = 15.0  # after which a picture counts half: streets change slowly
FARTHEST_M: Final = 400.0  # a picture says nothing of what lies beyond


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """What is to be known: the covered points of the region.

    Attributes:
        xyz_m: (P, 2 or 3) Cartesian metres.
        weight: (P,) positive.
        reach: at these points.
    """

    xyz_m: F64
    weight: F64
    reach: Reach


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Where pictures are or would be taken: (N, 2 or 3) Cartesian metres, and (N,) their age in years."""

    xyz_m: F64
    age_years: F64


@dataclass(frozen=True, slots=True)
class Gain:
    """What a batch is expected to add, at its turn.

    Attributes:
        key: of the batch.
        locations: to collect.
        points: expected to be found on top, in points of average weight.
        share: the same as a share of the region.
        found_before: expected share found among the points that it would serve, before it.
        reach_m: typical reach there, metres.
    """

    key: str
    locations: int
    points: float
    share: float
    found_before: float
    reach_m: float


def order_by_gain(points: Points, held: Pictures, batches: Mapping[str, Pictures], most: int | None = None) -> list[Gain]:
    """Batches by what they add per location, best first; equal ones stay in the order in which they came.

    Args:
        points: of the region.
        held: what is collected already.
        batches: candidate -> the locations that it would collect.
        most: stop after so many; all without it.
    """
    served = {key: _served(points, pictures) for key, pictures in batches.items()}
    best = _best_now(points, held)
    typical = points.reach.typical_m()
    queue = [(-_each(best, one), number, 0, key) for number, (key, one) in enumerate(served.items())]
    heapq.heapify(queue)
    chosen: list[Gain] = []
    while queue and (most is None or len(chosen) < most):
        _, number, seen, key = heapq.heappop(queue)
        one = served[key]
        if seen < len(chosen):  # gains only shrink while others are taken, so that the rest need no look
            heapq.heappush(queue, (-_each(best, one), number, len(chosen), key))
            continue
        chosen.append(_gain(key, points, typical, best, one))
        np.maximum.at(best, one.points, one.found)
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """The points that a batch would serve, each once, the weighted share found there through it, and its size."""

    points: I64
    found: F64
    locations: int


def _best_now(points: Points, held: Pictures) -> F64:
    best = np.zeros(len(points.xyz_m))
    now = _served(points, held)
    best[now.points] = now.found
    return best


def _served(points: Points, pictures: Pictures) -> _Served:
    """Every point near enough to a picture, with the best that any of them does for it."""
    if len(pictures.xyz_m) == 0 or len(points.xyz_m) == 0:
        return _Served(np.zeros(0, np.int64), np.zeros(0), len(pictures.xyz_m))
    near = KDTree(points.xyz_m).query_ball_point(pictures.xyz_m, FARTHEST_M)
    point = np.concatenate([np.asarray(one, np.int64) for one in near])
    picture = np.repeat(np.arange(len(near)), [len(one) for one in near])
    distance_m = np.linalg.norm(points.xyz_m[point] - pictures.xyz_m[picture], axis=1)
    fresh = 0.5 ** (pictures.age_years[picture] / HALF_LIFE_YEARS)
    found = points.weight[point] * points.reach.found(point, distance_m) * fresh
    best = np.full(len(points.xyz_m), -1.0)
    np.maximum.at(best, point, found)
    reached = np.flatnonzero(best >= 0)
    return _Served(reached, best[reached], len(pictures.xyz_m))


def _each(best: F64, one: _Served) -> float:
    """What each location adds; rounded, so that what differs by the order of additions alone is equal."""
    return round(float(np.maximum(one.found - best[one.points], 0.0).sum()) / max(1, one.locations), 9)


def _gain(key: str, points: Points, typical_m: F64, best: F64, one: _Served) -> Gain:
    added = np.maximum(one.found - best[one.points], 0.0)
    whole = float(added.sum())
    if whole <= 0:
        return Gain(key, one.locations, 0.0, 0.0, 0.0, 0.0)
    before = best[one.points] / points.weight[one.points]
    return Gain(
        key,
        one.locations,
        points=whole / float(points.weight.mean()),
        share=whole / float(points.weight.sum()),
        found_before=float((before * added).sum() / whole),
        reach_m=float((typical_m[one.points] * added).sum() / whole),
    )

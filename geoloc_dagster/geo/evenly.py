"""Points spread evenly over a polygon of any size, by which areas are counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

F64 = npt.NDArray[np.float64]
_GOLDEN = (1 + 5**0.5) / 2


def points_inside(geometry: BaseGeometry, count: int = 40_000) -> tuple[F64, F64]:
    """(lat, lng) of about that many points, each for the same area on the sphere.

    A lattice on the equal-area cylinder over the polygon's bounds (rank-1, by the golden ratio), of which the points inside stay;
    the same polygon gives the same points.

    Args:
        geometry: (Multi)Polygon in (lng, lat) degrees.
        count: wanted; twice as many at most, and fewer than half only where the polygon is a sliver of its bounds.
    """
    shapely.prepare(geometry)
    drawn = count
    lat, lng = _lattice(geometry, drawn)
    while len(lat) < count / 2 and drawn < 64 * count:
        drawn = min(64 * count, int(drawn * count / max(len(lat), count / 64)))
        lat, lng = _lattice(geometry, drawn)
    return lat, lng


def _lattice(geometry: BaseGeometry, drawn: int) -> tuple[F64, F64]:
    west, south, east, north = geometry.bounds
    low, high = np.sin(np.radians([south, north]))
    steps = np.arange(drawn)
    lng = west + (east - west) * ((steps / _GOLDEN) % 1)
    lat = np.degrees(np.arcsin(low + (high - low) * (steps + 0.5) / drawn))
    inside = np.asarray(shapely.contains_xy(geometry, lng, lat))
    return lat[inside], lng[inside]

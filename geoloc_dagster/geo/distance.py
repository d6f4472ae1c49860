"""Distances between positions, in metres: on the WGS84 ellipsoid for spacing, on the sphere for accuracy."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pyproj import Geod

FloatArray = npt.NDArray[np.float64]

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the sphere on which accuracy is measured (IUGG R1)."""
WORLD_SCORE_M = 1_492_700.0
_WIDE_M, _LEAST_SCORE_M = 2_000_000.0, 50.0


@functools.cache
def wgs84() -> Geod:
    """The ellipsoid; PROJ takes long to load, and what answers photos never needs it."""
    from pyproj import Geod

    return Geod(ellps="WGS84")


def geodesic_m(lat1_deg: npt.ArrayLike, lng1_deg: npt.ArrayLike, lat2_deg: npt.ArrayLike, lng2_deg: npt.ArrayLike) -> FloatArray:
    """Length of the geodesic on the WGS84 ellipsoid, metres, accurate to nanometres; the arguments broadcast.

    Source: Karney, Algorithms for geodesics, J. Geodesy 87 (2013), as implemented by PROJ.
    """
    lat1, lng1, lat2, lng2 = np.broadcast_arrays(*_as_floats(lat1_deg, lng1_deg, lat2_deg, lng2_deg))
    if lat1.size == 0:
        return np.zeros(lat1.shape)
    # PROJ wants flat, writable buffers.
    x1, y1, x2, y2 = (np.array(values, dtype=np.float64).ravel() for values in (lng1, lat1, lng2, lat2))
    metres: Any = wgs84().inv(x1, y1, x2, y2)[2]
    return np.asarray(metres, dtype=np.float64).reshape(lat1.shape)


def great_circle_m(
    lat1_deg: npt.ArrayLike, lng1_deg: npt.ArrayLike, lat2_deg: npt.ArrayLike, lng2_deg: npt.ArrayLike
) -> FloatArray:
    """Great-circle distance on the sphere of radius `EARTH_RADIUS_M`, metres; the arguments broadcast.

    The haversine form, which keeps its precision for near points; the clip keeps antipodes from leaving its domain.
    """
    lat1, lng1, lat2, lng2 = (np.radians(values) for values in _as_floats(lat1_deg, lng1_deg, lat2_deg, lng2_deg))
    a = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lng2 - lng1) / 2) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(a, 0.0, 1.0)))


def score_m(south_deg: float, west_deg: float, north_deg: float, east_deg: float) -> float:
    """The error at which a GeoScore, exp(-error / this), has fallen to 1/e, for answers within a box: metres.

    That of the world for boxes of more than 2,000 km or half the globe, a tenth of the diagonal for smaller ones, as the game
    GeoGuessr has it for its maps.
    """
    diagonal_m = float(great_circle_m(south_deg, west_deg, north_deg, east_deg))
    return WORLD_SCORE_M if east_deg - west_deg > 180 or diagonal_m > _WIDE_M else max(diagonal_m / 10, _LEAST_SCORE_M)


def unit_vectors(lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike) -> FloatArray:
    """Positions on the unit sphere, (n, 3)."""
    lat, lng = (np.radians(values) for values in _as_floats(lat_deg, lng_deg))
    across = np.cos(lat)
    return np.stack([across * np.cos(lng), across * np.sin(lng), np.sin(lat)], axis=-1)


def ecef_m(lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike) -> FloatArray:
    """Earth-centred, earth-fixed coordinates of points on the WGS84 ellipsoid: shape (..., 3), metres.

    A straight line between two of them is never longer than the geodesic, and needs no care at poles or the antimeridian.
    """
    lat, lng = (np.radians(values) for values in np.broadcast_arrays(*_as_floats(lat_deg, lng_deg)))
    curvature = wgs84().a / np.sqrt(1 - wgs84().es * np.sin(lat) ** 2)
    around = curvature * np.cos(lat)
    return np.stack([around * np.cos(lng), around * np.sin(lng), curvature * (1 - wgs84().es) * np.sin(lat)], axis=-1)


def _as_floats(*values: npt.ArrayLike) -> list[FloatArray]:
    return [np.asarray(value, dtype=np.float64) for value in values]

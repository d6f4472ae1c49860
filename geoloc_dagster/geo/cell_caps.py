"""The part of an S2 cell that lies within a distance of a position in it: a spherical cap cut off by four great circles.

Seen from the position, both a cap and a cell are convex, so their border is told by how far it is in each direction.
"""

from __future__ import annotations

import numpy as np
from shapely.geometry.base import BaseGeometry

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_outlines import polygon_of
from geoloc_dagster.geo.distance import EARTH_RADIUS_M, unit_vectors

_DIRECTIONS = 48
"""Beside those of the four corners; so many lose 0.3 % of a circle's area."""


def cap_areas_m2(ids: s2.U64, lat_deg: s2.F64, lng_deg: s2.F64, radius_m: s2.F64) -> s2.F64:
    """Square metres of each cell that lie within `radius_m` of a position in it; all arguments (cells,)."""
    position, ring = unit_vectors(lat_deg, lng_deg)[:, None, :], _rings(ids, lat_deg, lng_deg, radius_m)
    return s2.triangle_areas(position, ring, np.roll(ring, -1, axis=1)).sum(axis=1) * EARTH_RADIUS_M**2


def cap_outlines(ids: s2.U64, lat_deg: s2.F64, lng_deg: s2.F64, radius_m: s2.F64) -> list[BaseGeometry]:
    """The same as polygons in (lng, lat), as `outlines` gives those of whole cells."""
    x, y, z = np.moveaxis(_rings(ids, lat_deg, lng_deg, radius_m), -1, 0)
    lat, lng = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    return [polygon_of(*ring) for ring in zip(lat, lng, strict=True)]


def _rings(ids: s2.U64, lat_deg: s2.F64, lng_deg: s2.F64, radius_m: s2.F64) -> s2.F64:
    """Unit vectors around each position, against the clock: (cells, 52, 3)."""
    lng, here = np.radians(lng_deg), unit_vectors(lat_deg, lng_deg)
    east = np.stack([-np.sin(lng), np.cos(lng), np.zeros_like(lng)], axis=-1)
    north = np.cross(here, east)
    corners = s2.corner_vectors(ids)
    normals = np.cross(corners, np.roll(corners, -1, axis=1) - corners)  # of the edges, inwards
    height = np.maximum((normals * (here[:, None, :] - corners)).sum(-1), 0)
    away = corners - here[:, None, :]
    to_corners = np.arctan2((away * north[:, None, :]).sum(-1), (away * east[:, None, :]).sum(-1))
    around = np.broadcast_to(np.linspace(-np.pi, np.pi, _DIRECTIONS, endpoint=False), (len(here), _DIRECTIONS))
    angle = np.sort(np.concatenate([around, to_corners], axis=1), axis=1)[..., None]
    towards = np.cos(angle) * east[:, None, :] + np.sin(angle) * north[:, None, :]
    nearing = -(towards @ normals.transpose(0, 2, 1))
    edge = np.arctan2(height[:, None, :], nearing).min(axis=-1)
    far = np.minimum(edge, np.asarray(radius_m, np.float64)[:, None] / EARTH_RADIUS_M)[..., None]
    return np.cos(far) * here[:, None, :] + np.sin(far) * towards

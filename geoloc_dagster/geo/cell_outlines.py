"""Outlines of S2 cells as polygons in (lng, lat), so that maps can show them: edges bent, the antimeridian and poles minded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import CellLevel

if TYPE_CHECKING:
    import geopandas as gpd

_BENT = ((3, 24), (6, 8), (9, 3))  # pieces of an edge, up to that S2 level; the edges of smaller cells are straight
_POLE_DEG = 90 - 1e-9
_SLIVER = 1e-9  # of a cell: less than that beyond the antimeridian is a rounding error


def outlines(ids: s2.U64) -> list[BaseGeometry]:
    """A polygon per cell, in degrees within ±180 and ±90; two where it lies across the antimeridian, as whole faces do."""
    levels = s2.levels(ids)
    pieces = np.ones(ids.size, np.int64)
    for level, count in reversed(_BENT):
        pieces[levels <= level] = count
    made: list[BaseGeometry] = [shapely.Polygon()] * ids.size
    for count in np.unique(pieces).tolist():
        chosen = np.flatnonzero(pieces == count)
        lat_deg, lng_deg = _edges(ids[chosen], count)
        plain = (np.ptp(lng_deg, axis=1) < 180) & (np.abs(lat_deg).max(axis=1, initial=0) <= _POLE_DEG)
        rings: Any = shapely.polygons(np.stack([lng_deg[plain], lat_deg[plain]], axis=-1))
        for place, ring in zip(chosen[plain].tolist(), rings, strict=True):
            made[place] = ring
        for at in np.flatnonzero(~plain).tolist():
            made[chosen[at]] = polygon_of(lat_deg[at], lng_deg[at])
    return made


def cells_frame(level: CellLevel) -> gpd.GeoDataFrame:
    """The cells of a level with their class, token, S2 level, photos, area and outline; in EPSG:4326."""
    import geopandas as gpd

    columns = {
        "level": [level.name] * len(level),
        "class_label": np.arange(len(level), dtype=np.int32),
        "hex_id": s2.tokens(level.ids),
        "s2_level": s2.levels(level.ids).astype(np.int16) if len(level) else np.empty(0, np.int16),
        "imgs_per_cell": level.counts,
        "latitude_mean": level.lat_deg,
        "longitude_mean": level.lng_deg,
        "area_km2": s2.areas_m2(level.ids) / 1e6,
    }
    return gpd.GeoDataFrame(columns, geometry=outlines(level.ids), crs="EPSG:4326")


def _edges(ids: s2.U64, pieces: int) -> tuple[s2.F64, s2.F64]:
    """(lat, lng) in degrees along the four edges of each cell, which are great circles: shapes (cells, 4 pieces)."""
    lat, lng = (np.radians(values) for values in s2.corners(ids))
    corners = np.stack([np.cos(lat) * np.cos(lng), np.cos(lat) * np.sin(lng), np.sin(lat)], axis=-1)
    share = (np.arange(pieces) / pieces)[:, None]
    points = corners[:, :, None, :] * (1 - share) + np.roll(corners, -1, axis=1)[:, :, None, :] * share
    x, y, z = np.moveaxis(points.reshape(ids.size, -1, 3), -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def polygon_of(lat_deg: s2.F64, lng_deg: s2.F64) -> BaseGeometry:
    """The polygon in (lng, lat) within a ring of positions; two where it lies across the antimeridian."""
    lat, lng = _without_pole(lat_deg, lng_deg)
    lng = lng[0] + np.concatenate([[0.0], np.cumsum((np.diff(lng) + 180) % 360 - 180)])
    around = (lng_deg[0] - lng[-1] + 180) % 360 - 180 + lng[-1] - lng[0]
    if abs(around) > 180:  # all around a pole, which only a whole face is
        pole = 90.0 if lat.mean() > 0 else -90.0
        lat = np.concatenate([lat, [lat[0], pole, pole]])
        lng = np.concatenate([lng, [lng[0] + around, lng[0] + around, lng[0]]])
    ring = shapely.Polygon(np.stack([lng, lat], axis=1))
    if lng.min() >= -180 and lng.max() <= 180:
        return ring
    turned = [shapely.transform(ring, lambda points, turn=turn: points + np.array([turn, 0.0])) for turn in (-360, 0, 360)]
    parts = [shapely.intersection(one, shapely.box(-180, -90, 180, 90)) for one in turned]
    return shapely.union_all([part for part in parts if part.area > _SLIVER * ring.area])


def _without_pole(lat_deg: s2.F64, lng_deg: s2.F64) -> tuple[s2.F64, s2.F64]:
    """A corner at a pole has no longitude: it becomes an edge along the pole, between the longitudes of its neighbours."""
    poles = np.flatnonzero(np.abs(lat_deg) > _POLE_DEG)
    if not poles.size:
        return lat_deg, lng_deg
    at = int(poles[0])
    lat, lng = np.roll(lat_deg, -at), np.roll(lng_deg, -at)  # the pole first
    return np.append(lat, lat[0]), np.concatenate([[lng[1]], lng[1:], [lng[-1]]])

"""Naming the district of a position, for reports by district."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import s2sphere
import shapely
from shapely.geometry.base import BaseGeometry

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.geo.features import PolygonFeature, read_polygons

S2_LEVEL = 13
"""About 1.2 km² per cell: a neighbourhood of a city."""

MOST_UNNAMED = 300
"""Cells that a region has about at most; a larger one gets coarser cells."""

_HEXADECIMAL = frozenset("0123456789abcdef")
_EARTH_KM2 = 510_072_000

OUTSIDE = "outside"
"""The name of a position that lies in no district."""


def unnamed_level(area_km2: float) -> int:
    """The S2 level of districts without names: 13, or the finest with at most some 300 cells over the region's area."""
    return next((level for level in range(S2_LEVEL, 0, -1) if area_km2 <= MOST_UNNAMED * _EARTH_KM2 / (6 * 4**level)), 0)


def district_of(
    lat_deg: npt.ArrayLike,
    lng_deg: npt.ArrayLike,
    districts_path: Path | None,
    property: str = "name",
    *,
    level: int = S2_LEVEL,
) -> npt.NDArray[np.str_]:
    """The name of the district of each position.

    Args:
        lat_deg: shape (n,).
        lng_deg: shape (n,).
        districts_path: polygons with names; where it is None, the token of the S2 cell of `level` is the name.
        property: of the polygons, that names them.
        level: of the S2 cells, see `unnamed_level`.

    Returns:
        Strings of shape (n,). Where polygons overlap the first in the file wins; a position in none is `OUTSIDE`.

    Raises:
        BoundaryError: the file cannot be used, or a polygon lacks the property.
    """
    positions = np.stack([np.asarray(lat_deg, dtype=np.float64), np.asarray(lng_deg, dtype=np.float64)], axis=1)
    unique, back = np.unique(positions, axis=0, return_inverse=True)
    if districts_path is None:
        names = np.array([_s2_token(lat, lng, level) for lat, lng in unique.tolist()], dtype=np.str_)
    else:
        names = _polygon_names(unique, read_polygons(districts_path), districts_path, property)
    return names[back.ravel()]


def district_outlines(
    names: Sequence[str], districts_path: Path | None, property: str = "name"
) -> dict[str, BaseGeometry | None]:
    """The polygon in (lng, lat) of each district that `district_of` names; None for a name that has none, as `OUTSIDE`.

    Args:
        names: of districts.
        districts_path: polygons with names, those of one name taken together; where it is None, names are tokens of S2 cells.
        property: of the polygons, that names them.

    Raises:
        BoundaryError: the file cannot be used, or a polygon lacks the property.
    """
    if districts_path is None:
        return {name: _cell_outline(name) for name in names}
    features = read_polygons(districts_path)
    _check_names(features, districts_path, property)
    parts: dict[str, list[BaseGeometry]] = {}
    for feature in features:
        parts.setdefault(feature.properties[property], []).append(feature.geometry)
    return {name: shapely.union_all(parts[name]) if name in parts else None for name in names}


def _cell_outline(token: str) -> BaseGeometry | None:
    if not token or len(token) > 16 or not set(token) <= _HEXADECIMAL:
        return None
    cell: Any = s2sphere.CellId.from_token(token)
    return outlines(np.array([cell.id()], np.uint64))[0] if cell.is_valid() else None


def _s2_token(lat_deg: float, lng_deg: float, level: int) -> str:
    position = s2sphere.LatLng.from_degrees(lat_deg, lng_deg)
    cell: Any = s2sphere.CellId.from_lat_lng(position).parent(level)
    return str(cell.to_token())


def _polygon_names(
    positions: npt.NDArray[np.float64], features: list[PolygonFeature], path: Path, property: str
) -> npt.NDArray[np.str_]:
    _check_names(features, path, property)
    tree = shapely.STRtree([feature.geometry for feature in features])
    of_position, of_feature = tree.query(shapely.points(positions[:, 1], positions[:, 0]), predicate="intersects")
    first = np.full(len(positions), len(features))
    np.minimum.at(first, of_position, of_feature)
    return np.array([*(feature.properties[property] for feature in features), OUTSIDE], dtype=np.str_)[first]


def _check_names(features: list[PolygonFeature], path: Path, property: str) -> None:
    for feature in features:
        if not isinstance(feature.properties.get(property), str):
            known = ", ".join(sorted(feature.properties)) or "none"
            remedy = f"Set region.district_property to a property that holds names; feature {feature.number} has: {known}."
            raise BoundaryError(f"feature {feature.number} of {path} has no text in the property {property!r}", remedy)

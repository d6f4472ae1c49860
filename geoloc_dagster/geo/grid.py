"""The grid of points at which street views are looked up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.boundary import Boundary, contains
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.storage import write_geoparquet

_POINTS_AT_ONCE = 1_000_000  # tested for containment together; bounds the memory of sparse polygons in large boxes


def grid_shape(boundary: Boundary, spacing_m: float) -> tuple[int, int]:
    """Steps (north, east) of the grid over the boundary's box: ⌊height / spacing⌋ and ⌊northern edge / spacing⌋, geodesic."""
    west, south, east, north = boundary.geometry.bounds
    height_m = float(geodesic_m(south, west, north, west))
    width_m = float(geodesic_m(north, west, north, east))
    return int(height_m // spacing_m), int(width_m // spacing_m)


def grid_points(boundary: Boundary, spacing_m: float, *, max_points: int) -> pd.DataFrame:
    """Lay a grid of equal steps in degrees over the boundary's box, south-west corner included, and keep what is inside.

    Args:
        boundary: the region.
        spacing_m: metres between neighbours in a column, and in the northernmost row; rows further from the pole are wider.
        max_points: a grid with more points over the whole box is refused before anything is allocated.

    Returns:
        Columns point_id (int64, place in the full grid: columns from west to east, each from south to north), lat_deg and
        lng_deg, ascending by point_id.

    Raises:
        BoundaryError: too many points, or not one inside the boundary.
    """
    if not spacing_m > 0:
        raise ValueError(f"the spacing must be above zero, not {spacing_m} m")
    rows, columns = grid_shape(boundary, spacing_m)
    if rows * columns > max_points:
        remedy = "Raise grid.spacing_m, draw a smaller polygon, or raise grid.max_points if this is meant."
        raise BoundaryError(
            f"a {spacing_m:g} m grid over {boundary.name} has {rows * columns:,} points, at most {max_points:,} are allowed",
            remedy,
        )
    west, south, east, north = boundary.geometry.bounds
    lats = np.linspace(south, north, rows, endpoint=False)
    lngs = np.linspace(west, east, columns, endpoint=False)
    step = max(1, _POINTS_AT_ONCE // max(rows, 1))
    inside = [
        first * rows + np.flatnonzero(contains(boundary, np.tile(lats, part.size), np.repeat(part, rows)))
        for first in range(0, columns if rows else 0, step)
        for part in [lngs[first : first + step]]
    ]
    ids = np.concatenate(inside) if inside else np.zeros(0, dtype=np.int64)
    if ids.size == 0:
        remedy = "Lower grid.spacing_m or draw a larger polygon."
        raise BoundaryError(
            f"no point of a {spacing_m:g} m grid lies inside {boundary.name} ({boundary.area_km2:.3g} km²)", remedy
        )
    return pd.DataFrame({"point_id": ids.astype(np.int64), "lat_deg": lats[ids % rows], "lng_deg": lngs[ids // rows]})


def no_grid() -> pd.DataFrame:
    """A grid without points, for a region where nothing is looked up."""
    return pd.DataFrame({"point_id": np.zeros(0, np.int64), "lat_deg": np.zeros(0), "lng_deg": np.zeros(0)})


def write_grid(path: Path, points: pd.DataFrame) -> Path:
    """Write grid points as GeoParquet, atomically."""
    import geopandas as gpd

    geometry = shapely.points(points["lng_deg"].to_numpy(np.float64), points["lat_deg"].to_numpy(np.float64))
    return write_geoparquet(path, gpd.GeoDataFrame(points, geometry=geometry, crs="OGC:CRS84"))

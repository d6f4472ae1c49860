"""Random points in cells, and which of the street views found near them are the cells' sample.

Points come in rounds: the first of every cell, then the second of every cell, and so on, so that lookups in their order go on
evenly. Of what they find, a location counts that lies in the cell it was found for, shows another panorama than those before it
and is at least so many metres from them; first come, first served, until the cell has enough.
"""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geoloc_dagster.errors import BoundaryError
from geoloc_dagster.geo.distance import FloatArray
from geoloc_dagster.geo.spacing import keep_apart

_DRAW = 512  # points drawn at once; a constant, so that more points of a cell begin with the same ones
_MOST_DRAWS = 2_000


def cell_points(cells: gpd.GeoDataFrame, per_cell: int, *, seed: int, max_points: int) -> pd.DataFrame:
    """Draw points in every cell, evenly by area, in rounds over the cells.

    The points of a cell depend on its number, its shape and the seed alone, and the first n are the same for whatever number.

    Args:
        cells: of `grid_cells`.
        per_cell: points of each cell.
        seed: of the draws.
        max_points: more altogether are refused before anything is drawn.

    Returns:
        Columns point_id (int64, ascending), grid_cell (int64), lat_deg and lng_deg.

    Raises:
        BoundaryError: too many points, or a cell so thin that none falls into it.
    """
    if len(cells) * per_cell > max_points:
        remedy = "Lower grid_cells.attempts_per_cell, raise grid_cells.step_deg, or raise grid.max_points if this is meant."
        raise BoundaryError(f"{per_cell:,} points in each of {len(cells):,} cells are more than {max_points:,}", remedy)
    ids = cells["cell_id"].to_numpy(np.int64)
    drawn = [
        _points_in(shape, per_cell, np.random.default_rng([seed, cell]), cell)
        for cell, shape in zip(ids.tolist(), cells.geometry, strict=True)
    ]
    rounds = np.stack(drawn, axis=1).reshape(-1, 2)  # (per_cell, cells, 2), one after the other
    return pd.DataFrame(
        {
            "point_id": np.arange(len(rounds), dtype=np.int64),
            "grid_cell": np.tile(ids, per_cell),
            "lat_deg": rounds[:, 0],
            "lng_deg": rounds[:, 1],
        }
    )


def take_samples(
    found: pd.DataFrame, cells: gpd.GeoDataFrame, registered: pd.DataFrame, *, series: str, per_cell: int, apart_m: float
) -> pd.DataFrame:
    """The found locations that the cells still take, in their order.

    Args:
        found: columns grid_cell, lat_deg, lng_deg, pano_id, in the order of preference.
        cells: columns cell_id and geometry.
        registered: locations that stay, with the columns series, grid_cell, lat_deg, lng_deg, pano_id; those of `series` fill
            their cells, and all of them keep others away.
        series: of the sample.
        per_cell: locations wanted in a cell.
        apart_m: metres between any two on the ellipsoid.
    """
    shapes: Any = cells.set_index("cell_id").geometry.reindex(found["grid_cell"]).to_numpy()
    rows: Any = found[shapely.contains_xy(shapes, found["lng_deg"].to_numpy(), found["lat_deg"].to_numpy())]
    seen = rows["pano_id"].isin(registered["pano_id"].dropna()) | rows["pano_id"].duplicated()
    rows = rows[~(seen & rows["pano_id"].notna())]
    rows = rows[keep_apart(*_positions(rows), apart_m, *_positions(registered))]
    there = rows["grid_cell"].map(_count(registered, series)).fillna(0)
    return rows[there + rows.groupby("grid_cell").cumcount() < per_cell]


def missing_samples(cells: gpd.GeoDataFrame, registered: pd.DataFrame, taken: pd.DataFrame, *, series: str, per_cell: int) -> Any:
    """How many locations each cell lacks: a Series of whole numbers from 0, indexed by cell number, in the cells' order."""
    ids = cells["cell_id"].to_numpy(np.int64)
    have = _count(registered, series).add(taken["grid_cell"].value_counts(), fill_value=0).reindex(ids, fill_value=0)
    return (per_cell - have).clip(lower=0).astype(np.int64)


def _points_in(shape: Any, count: int, generator: np.random.Generator, cell: int) -> FloatArray:
    """(count, 2) of (lat, lng), by rejection from the box; on a sphere equal steps of the latitude's sine are equal areas."""
    west, south, east, north = shape.bounds
    low, high = np.sin(np.radians([south, north]))
    shapely.prepare(shape)
    found: list[FloatArray] = []
    for _ in range(_MOST_DRAWS):
        across, up = generator.random((2, _DRAW))
        lat, lng = np.degrees(np.arcsin(low + up * (high - low))), west + across * (east - west)
        found.append(np.stack([lat, lng], axis=1)[shapely.contains_xy(shape, lng, lat)])
        if sum(map(len, found)) >= count:
            return np.concatenate(found)[:count]
    raise BoundaryError(
        f"cell {cell} is so thin that {_MOST_DRAWS * _DRAW:,} points of its box do not give {count:,} inside",
        "Raise grid_cells.merge_below, so that it goes to a neighbour.",
    )


def _positions(frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    return frame["lat_deg"].to_numpy(np.float64), frame["lng_deg"].to_numpy(np.float64)


def _count(registered: pd.DataFrame, series: str) -> Any:
    """Registered locations of the series per cell."""
    own: Any = registered.loc[registered["series"] == series, "grid_cell"]
    return own.dropna().astype(np.int64).value_counts()

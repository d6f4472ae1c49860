"""Boxes of equal degrees cut by a polygon, small pieces merged into a neighbour: the classes of a whole country's street views.

Source: the 243 published cells of GeoguessrLSTM (2° boxes of the USA mainland, pieces under a tenth of the largest one merged),
which this gives again.
"""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from geoloc_dagster.errors import BoundaryError, IntegrityError
from geoloc_dagster.geo.boundary import geodesic_area_km2
from geoloc_dagster.geo.distance import FloatArray
from geoloc_dagster.storage import read_geoparquet, write_geoparquet

MOST_BOXES = 1_000_000


def grid_cells(polygon: Polygon | MultiPolygon, step_deg: float, *, merge_below: float) -> gpd.GeoDataFrame:
    """Cut a polygon into cells.

    Boxes begin at multiples of the step. Each connected piece of the polygon in a box is a cell, from west to east and from south
    to north. The smallest one below the threshold goes to the first of its neighbours in that order, until there is none.

    Args:
        polygon: (lng, lat) in degrees.
        step_deg: of the boxes.
        merge_below: share of the largest piece's area, in square degrees; 0 merges nothing. A piece that touches no other along
            an edge, such as an island, stays as it is.

    Returns:
        Columns cell_id (int64, in the order above) and geometry, in WGS84.

    Raises:
        BoundaryError: more than `MOST_BOXES` boxes.
    """
    pieces = _pieces(polygon, step_deg)
    groups = _merged(pieces, merge_below * float(shapely.area(pieces).max()))
    cells = [shapely.union_all(pieces[group]) for group in groups]
    return gpd.GeoDataFrame({"cell_id": np.arange(len(cells), dtype=np.int64)}, geometry=cells, crs="OGC:CRS84")


def describe_cells(cells: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Cells with what people and models ask of them: label, area_km2 (on the ellipsoid), and lat_deg, lng_deg of the centroid.

    The label is the cell's number and its centroid, such as `27 (39.0°N 117.2°W)`; small cells are told with more places.
    """
    shapes: list[Any] = list(cells.geometry)
    areas = [geodesic_area_km2(shape) for shape in shapes]
    lng, lat = shapely.get_coordinates(shapely.centroid(shapes)).T
    places = max(1, 1 - math.floor(math.log10(math.sqrt(max(areas)) / 111)))
    return cells.assign(
        label=[f"{cell} ({_position(a, b, places)})" for cell, a, b in zip(cells["cell_id"], lat, lng, strict=True)],
        area_km2=areas,
        lat_deg=lat,
        lng_deg=lng,
    )[["cell_id", "label", "area_km2", "lat_deg", "lng_deg", "geometry"]]


def cell_of(cells: gpd.GeoDataFrame, lat_deg: FloatArray, lng_deg: FloatArray) -> npt.NDArray[np.int64]:
    """The number of the cell that each position lies in, -1 where it lies in none; on an edge between two the lower one."""
    tree = shapely.STRtree(cells.geometry.to_numpy())
    position, cell = tree.query(shapely.points(np.asarray(lng_deg), np.asarray(lat_deg)), predicate="intersects")
    ids = cells["cell_id"].to_numpy(np.int64)
    found = np.full(len(lat_deg), np.iinfo(np.int64).max)
    np.minimum.at(found, position, ids[cell])
    return np.where(found == np.iinfo(np.int64).max, -1, found)


def read_grid_cells(path: Path) -> gpd.GeoDataFrame:
    """Read cells that `write_grid_cells` wrote; a damaged or missing file is an `IntegrityError`."""
    cells: Any = read_geoparquet(path)
    if not {"cell_id", "lat_deg", "lng_deg"} <= set(cells.columns):
        raise IntegrityError(f"{path} holds no grid cells", "Materialise `grid_cells` again.")
    return cells


def write_grid_cells(path: Path, cells: gpd.GeoDataFrame) -> Path:
    """Write the cells as GeoParquet, atomically."""
    return write_geoparquet(path, cells)


def _position(lat_deg: float, lng_deg: float, places: int) -> str:
    return f"{abs(lat_deg):.{places}f}°{'N' if lat_deg >= 0 else 'S'} {abs(lng_deg):.{places}f}°{'E' if lng_deg >= 0 else 'W'}"


def _pieces(polygon: Polygon | MultiPolygon, step_deg: float) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    west, south, east, north = polygon.bounds
    x = step_deg * np.arange(math.floor(west / step_deg), math.ceil(east / step_deg))
    y = step_deg * np.arange(math.floor(south / step_deg), math.ceil(north / step_deg))
    if x.size * y.size > MOST_BOXES:
        raise BoundaryError(
            f"boxes of {step_deg:g}° over the polygon would be {x.size * y.size:,}, more than {MOST_BOXES:,}", "Take larger ones."
        )
    left, low = (values.ravel() for values in np.meshgrid(x, y, indexing="ij"))
    cut = shapely.intersection(shapely.box(left, low, left + step_deg, low + step_deg), polygon)
    pieces = shapely.get_parts(cut)
    return pieces[shapely.area(pieces) > 0]


def _merged(pieces: np.ndarray[tuple[int], np.dtype[np.object_]], threshold: float) -> list[list[int]]:
    """Pieces of each cell, by place in the order; small ones merged."""
    areas = dict(enumerate(shapely.area(pieces).tolist()))
    neighbours = _neighbours(pieces)
    members = {index: [index] for index in areas}
    small = [(area, index) for index, area in areas.items() if area < threshold]
    heapq.heapify(small)
    while small:
        area, index = heapq.heappop(small)
        if areas.get(index) != area or not neighbours[index]:
            continue  # it has grown since, is another's part by now, or stands alone
        into = min(neighbours[index])
        for other in neighbours.pop(index):
            neighbours[other].discard(index)
            if other != into:
                neighbours[other].add(into)
                neighbours[into].add(other)
        members[into] += members.pop(index)
        areas[into] += areas.pop(index)
        if areas[into] < threshold:
            heapq.heappush(small, (areas[into], into))
    return list(members.values())


def _neighbours(pieces: np.ndarray[tuple[int], np.dtype[np.object_]]) -> dict[int, set[int]]:
    """Pieces that have an edge in common with each; a corner is none."""
    first, second = shapely.STRtree(pieces).query(pieces, predicate="intersects")
    edge = shapely.length(shapely.intersection(pieces[first], pieces[second])) > 0
    found: dict[int, set[int]] = {index: set() for index in range(len(pieces))}
    for one, other in zip(first[edge].tolist(), second[edge].tolist(), strict=True):
        if one != other:
            found[one].add(other)
    return found

"""Polygon cells of a region as classes: what a partitioning of S2 cells is, with one level whose cells are polygons.

A `RegionLevel` answers as a `CellLevel` does; it has no S2 ids, so what needs those must ask for its shapes instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from geoloc_dagster.errors import IntegrityError, PartitioningError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.geo.distance import FloatArray, unit_vectors
from geoloc_dagster.geo.partitioning import DROPPED, F64, I32, I64, CellLevel, Partitioning
from geoloc_dagster.geo.partitioning_folder import read_partitioning, write_partitioning
from geoloc_dagster.storage import atomic_folder, read_geoparquet, verify_manifest, write_geoparquet, write_manifest

if TYPE_CHECKING:
    import geopandas as gpd

GRID = "grid"
"""The name of the one level of grid cells."""
POLYGONS = "polygons.parquet"
_REMEDY = "Restore that folder, or train the recipe again."
Shapes = np.ndarray[tuple[int], np.dtype[np.object_]]


@dataclass(frozen=True, slots=True, eq=False)
class RegionLevel(CellLevel):
    """Classes that are polygons; a class is the position of its cell in the order of their numbers.

    Attributes:
        ids: none, since these are no S2 cells.
        counts: places of training in each, zero where there is none.
        lat_deg: the mean position of these; the centroid where there is none.
        lng_deg: likewise.
        numbers: of the cells, ascending, as they are published.
        labels: for people.
        shapes: polygons in (lng, lat).
    """

    numbers: I64
    labels: tuple[str, ...]
    shapes: Shapes

    def __len__(self) -> int:
        return self.numbers.size

    def classes(self, leaf_ids: s2.U64) -> I32:
        """The class of each position, by its leaf cell; `DROPPED` where it lies in no cell."""
        return self.classes_at(*s2.centres(leaf_ids))

    def classes_at(self, lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike) -> I32:
        """The class of each position; `DROPPED` where it lies in no cell, the lower one on an edge between two."""
        lat, lng = np.atleast_1d(np.asarray(lat_deg, np.float64)), np.atleast_1d(np.asarray(lng_deg, np.float64))
        position, cell = shapely.STRtree(self.shapes).query(shapely.points(lng, lat), predicate="intersects")
        found = np.full(lat.size, len(self))
        np.minimum.at(found, position, cell)
        return np.where(found == len(self), DROPPED, found).astype(np.int32)


def region_classes(cells: gpd.GeoDataFrame, lat_deg: FloatArray, lng_deg: FloatArray) -> Partitioning:
    """The cells of a region as classes.

    Args:
        cells: as `read_grid_cells` gives them: cell_id, lat_deg, lng_deg, geometry, and label where there is one.
        lat_deg: of the places that are trained on, and no others.
        lng_deg: likewise.

    Raises:
        PartitioningError: there are no cells.
    """
    frame: Any = cells.sort_values("cell_id")
    if not len(frame):
        raise PartitioningError("the region has no grid cells", "Materialise `grid_cells` again.")
    numbers = frame["cell_id"].to_numpy(np.int64)
    labels = tuple(map(str, frame.get("label", numbers)))
    centroids = frame["lat_deg"].to_numpy(np.float64), frame["lng_deg"].to_numpy(np.float64)
    none = np.empty(0, np.uint64)
    bare = RegionLevel(GRID, none, np.zeros(numbers.size, np.int64), *centroids, numbers, labels, frame.geometry.to_numpy())
    own = bare.classes_at(lat_deg, lng_deg)
    lat, lng, counts = _means(own, lat_deg, lng_deg, *centroids)
    return _one_level(RegionLevel(GRID, none, counts, lat, lng, numbers, labels, bare.shapes))


def class_names(level: CellLevel) -> list[str]:
    """What the classes of a level are called: labels of grid cells, tokens of S2 cells."""
    return list(level.labels) if isinstance(level, RegionLevel) else s2.tokens(level.ids)


def class_shapes(level: CellLevel) -> Shapes:
    """The outline of each class, in (lng, lat)."""
    return level.shapes if isinstance(level, RegionLevel) else np.array(outlines(level.ids), dtype=object)


def write_classes(folder: Path, classes: Partitioning) -> Path:
    """Write classes of either kind as a folder, in one rename."""
    level = classes.levels[-1]
    if not isinstance(level, RegionLevel):
        return write_partitioning(folder, classes)
    import geopandas as gpd

    columns = {
        "cell_id": level.numbers,
        "label": list(level.labels),
        "places": level.counts,
        "lat_deg": level.lat_deg,
        "lng_deg": level.lng_deg,
    }
    with atomic_folder(folder) as made:
        write_geoparquet(made / POLYGONS, gpd.GeoDataFrame(columns, geometry=list(level.shapes), crs="OGC:CRS84"))
        write_manifest(made, cells=len(level), fingerprint=classes.fingerprint)
    return folder


def read_classes(folder: Path) -> Partitioning:
    """Read what `write_classes` wrote, every byte of it checked.

    Raises:
        PartitioningError: there is none.
        IntegrityError: a file has changed since.
    """
    if not (folder / POLYGONS).is_file():
        return read_partitioning(folder)
    said = verify_manifest(folder, remedy=_REMEDY)
    frame: Any = read_geoparquet(folder / POLYGONS)
    lat, lng = frame["lat_deg"].to_numpy(np.float64), frame["lng_deg"].to_numpy(np.float64)
    numbers, counts = frame["cell_id"].to_numpy(np.int64), frame["places"].to_numpy(np.int64)
    shapes = frame.geometry.to_numpy()
    made = _one_level(RegionLevel(GRID, np.empty(0, np.uint64), counts, lat, lng, numbers, tuple(frame["label"]), shapes))
    if made.fingerprint != said["fingerprint"]:
        raise IntegrityError(f"the cells of {folder} are not those that its manifest tells of", _REMEDY)
    return made


def _one_level(level: RegionLevel) -> Partitioning:
    digest = hashlib.sha256(level.numbers.astype("<i8").tobytes())
    digest.update(b"".join(shapely.to_wkb(level.shapes, byte_order=1)))
    return Partitioning((level,), np.arange(len(level), dtype=np.int32)[:, None], digest.hexdigest())


def _means(own: I32, lat_deg: FloatArray, lng_deg: FloatArray, lat: F64, lng: F64) -> tuple[F64, F64, I64]:
    """Mean positions on the sphere of the places of each class, and how many there are."""
    known = own != DROPPED
    sums = np.zeros((lat.size, 3))
    np.add.at(sums, own[known], unit_vectors(lat_deg, lng_deg)[known])
    counts = np.bincount(own[known], minlength=lat.size).astype(np.int64)
    x, y, z = sums.T
    filled = counts > 0
    return (
        np.where(filled, np.degrees(np.arctan2(z, np.hypot(x, y))), lat),
        np.where(filled, np.degrees(np.arctan2(y, x)), lng),
        counts,
    )

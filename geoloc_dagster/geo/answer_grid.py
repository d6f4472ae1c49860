"""The grid on which predictors of every kind say where a photo may be: disjoint S2 cells, as small as there are places.

A quadtree over a region: a cell with more than a few known places is cut into its four children. So every place of a city has a
cell of its own, a country's forests have large ones, and whatever lies in the region lies in exactly one cell. Each cell has a
prior: the share of known places in it, and for a small part the share of the area, so that no cell is impossible.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster import storage
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import unit_vectors

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
MOST_CELLS = 16_384
_FACES = np.array([(2 * face + 1) << 60 for face in range(6)], np.uint64)
_ENOUGH = 16
"""Points of a cell that say where in it the region is: of so many, each child has four."""
AREA_SHARE = 0.02
"""Part of the prior that goes by area: the chance that a photo was taken where nothing is known."""


@dataclass(frozen=True, eq=False)  # no slots, so that what every answer needs is kept
class AnswerGrid:
    """Disjoint S2 cells in ascending order; every array has one entry per cell.

    Attributes:
        ids: of the cells.
        lat_deg: where a photo of the cell most likely is: the mean of its known places, its centre where there are none.
        lng_deg: likewise.
        prior: probability before a photo is looked at; sums to one.
        places: known places in it.
    """

    ids: s2.U64
    lat_deg: F64
    lng_deg: F64
    prior: F64
    places: I64

    def __len__(self) -> int:
        return self.ids.size

    def cells_of(self, lat_deg: npt.ArrayLike, lng_deg: npt.ArrayLike) -> I64:
        """The cell of each position, as its place in `ids`; -1 outside of the grid."""
        return self.cells_of_leaves(s2.leaf_ids(lat_deg, lng_deg))

    def cells_of_leaves(self, leaves: s2.U64) -> I64:
        """The same of leaf cells."""
        low, high = s2.ranges(self.ids)
        at = np.searchsorted(low, leaves, side="right").astype(np.int64) - 1
        inside = (at >= 0) & (leaves <= high[np.maximum(at, 0)])
        return np.where(inside, at, -1)

    @functools.cached_property
    def vectors(self) -> F64:
        """Unit vectors of the cells' positions, (cells, 3)."""
        return unit_vectors(self.lat_deg, self.lng_deg)

    @functools.cached_property
    def areas_km2(self) -> F64:
        """Of each cell."""
        return s2.areas_m2(self.ids) / 1e6

    def fingerprint(self) -> str:
        """Hex sha256 of cells and prior."""
        return hashlib.sha256(self.ids.astype("<u8").tobytes() + self.prior.astype("<f8").tobytes()).hexdigest()


def build_grid(
    lat_deg: F64, lng_deg: F64, *, inside: tuple[F64, F64], finest_level: int, most_cells: int = MOST_CELLS
) -> AnswerGrid:
    """Cut a region into cells by its known places.

    Args:
        lat_deg: of the places, one entry each.
        lng_deg: likewise.
        inside: (lat, lng) of points spread evenly over the region; a cell without a place stays where one of them lies in it, or
            where they are too far apart to say that it lies outside.
        finest_level: S2 level below which no cell is cut.
        most_cells: places share a cell where there would be more.

    Raises:
        NotEnoughDataError: there is no place.
    """
    if not len(lat_deg):
        raise NotEnoughDataError("there are no places to make a grid of", "Collect some first.")
    places = np.sort(s2.leaf_ids(lat_deg, lng_deg))
    spread = np.sort(s2.leaf_ids(*inside))
    allowed = 1
    while True:
        ids = _cut(places, spread, allowed, finest_level)
        if ids.size <= most_cells or allowed >= places.size:
            break
        allowed *= 2
    within, by_area = _count(ids, places), _areas(ids, spread)
    prior = (1 - AREA_SHARE) * within / within.sum() + AREA_SHARE * by_area / by_area.sum()
    lat, lng = _positions(ids, within, lat_deg, lng_deg)
    return AnswerGrid(ids, lat, lng, prior / prior.sum(), within)


def _cut(places: s2.U64, spread: s2.U64, allowed: int, finest_level: int) -> s2.U64:
    open_cells, done = _FACES, list[s2.U64]()
    sparse = np.zeros(open_cells.size, bool)
    while open_cells.size:
        held, known = _count(open_cells, places), _count(open_cells, spread)
        kept = (held > 0) | (known > 0) | sparse
        open_cells, held, known = open_cells[kept], held[kept], known[kept]
        cut = (held > allowed) & (s2.levels(open_cells) < finest_level)
        done.append(open_cells[~cut])
        open_cells = s2.children(open_cells[cut]).reshape(-1)
        sparse = np.repeat(known[cut] < _ENOUGH, 4)
    return np.sort(np.concatenate(done))


def _areas(ids: s2.U64, spread: s2.U64) -> F64:
    """The part of each cell that lies in the region, in points of `spread`; of cells with few of these, the whole cell."""
    count, areas = _count(ids, spread), s2.areas_m2(ids)
    enough = count >= _ENOUGH
    per_m2 = count[enough].sum() / areas[enough].sum() if enough.any() else max(count.sum(), 1) / areas.sum()
    return np.where(enough, count, areas * per_m2)


def _count(ids: s2.U64, leaves: s2.U64) -> I64:
    """How many of the sorted leaves lie in each cell."""
    low, high = s2.ranges(ids)
    return (np.searchsorted(leaves, high, side="right") - np.searchsorted(leaves, low, side="left")).astype(np.int64)


def _positions(ids: s2.U64, within: I64, lat_deg: F64, lng_deg: F64) -> tuple[F64, F64]:
    lat, lng = (values.copy() for values in s2.centres(ids))
    order = np.argsort(s2.leaf_ids(lat_deg, lng_deg), kind="stable")
    owner = np.repeat(np.arange(ids.size), within)
    sums = np.zeros((ids.size, 3))
    np.add.at(sums, owner, unit_vectors(lat_deg, lng_deg)[order])
    known = within > 0
    x, y, z = sums[known].T
    lat[known], lng[known] = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    return lat, lng


def write_grid(path: Path, grid: AnswerGrid) -> None:
    """As Parquet."""
    columns = {
        "cell": pa.array(grid.ids),
        "lat_deg": grid.lat_deg,
        "lng_deg": grid.lng_deg,
        "prior": grid.prior,
        "places": grid.places,
    }
    storage.write_parquet(path, pa.table(columns))


def read_grid(path: Path) -> AnswerGrid:
    """What `write_grid` wrote; raises IntegrityError where it is damaged."""
    table = storage.read_parquet(path)
    lat, lng, prior = (storage.numbers(table, name).astype(np.float64) for name in ("lat_deg", "lng_deg", "prior"))
    cells, places = storage.numbers(table, "cell").astype(np.uint64), storage.numbers(table, "places").astype(np.int64)
    return AnswerGrid(cells, lat, lng, prior, places)

"""Regions that hold the true place as often as promised: the densest cells of the grid, the last of them in part.

A region is filled in the order of probability per area, so that it is as small as it can be, until the bound is reached, and
within a cell from where its places are outwards. So the region of a photo whose place is all but certain can be smaller than a
cell, that of a doubtful one is as large as the doubt, and both hold together what was promised.

The bound is that of adaptive prediction sets (Romano, Sesia and Candès, Classification with Valid and Adaptive Coverage, NeurIPS
2020): what is filled in before a photo's place. Where in its cell a photo was taken takes the part of their random number, and is
averaged over as it is known from many places: a few places of dev would not tell it to the metre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.geo.cell_caps import cap_areas_m2, cap_outlines
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.experts import F32, F64, I64

WHOLE = np.float32(np.inf)
_NOT_IN = np.float32(-1)
_FEW = 4  # as many cells that are equally probable are filled side by side; more are in or out as a whole
_LEAST_M = 1.0  # so that no region is a point
_AS_DENSE = 1e-4  # in its logarithm; less is rounding
_STEPS = 256
_ROWS = 512


@dataclass(frozen=True, slots=True)
class Inside:
    """How far from a cell's position photos are taken in it.

    Attributes:
        away_m: ascending, metres: as many photos lie between one and the next, and beyond the last.
    """

    away_m: tuple[float, ...]

    def reach_m(self, share: F64) -> F64:
        """How far one can go before more than that share was nearer; infinite for 1."""
        return np.append(self.away_m, np.inf)[self._step(share)]

    def held(self, share: F64) -> F64:
        """The share of photos that are no farther than that: more than was asked for where many lie equally far.

        Where every date of a place is on record at one position, all photos of it are held at once.
        """
        upto = np.append(np.searchsorted(self.away_m, self.away_m, "right"), len(self.away_m) + 1)
        return (upto / (len(self.away_m) + 1))[self._step(share)]

    def _step(self, share: F64) -> I64:
        return np.floor(np.clip(share, 0, 1) * (len(self.away_m) + 1) + 1e-9).astype(np.int64).clip(0, len(self.away_m))


@dataclass(frozen=True, slots=True, eq=False)
class TruePlaces:
    """Where N photos were taken, on the grid.

    Attributes:
        cells: (N,); -1 off the grid.
        away_m: (N,) from the cell's position.
    """

    cells: I64
    away_m: F64


def true_places(grid: AnswerGrid, lat_deg: F64, lng_deg: F64) -> TruePlaces:
    """Positions on the grid."""
    cells = grid.cells_of(lat_deg, lng_deg)
    held = np.maximum(cells, 0)
    return TruePlaces(cells, great_circle_m(lat_deg, lng_deg, grid.lat_deg[held], grid.lng_deg[held]))


def learn_inside(away_m: F64) -> Inside:
    """From how far from the positions of their cells photos were taken, metres; cells are in or out as a whole where none was."""
    if not len(away_m):
        return Inside(())
    steps = min(_STEPS, len(away_m))
    found = np.quantile(np.maximum(away_m, _LEAST_M), np.arange(1, steps + 1) / (steps + 1), method="inverted_cdf")
    return Inside(tuple(np.round(found, 2).tolist()))


def log_areas(grid: AnswerGrid) -> F64:
    """Of each cell, as the other functions take them, (cells,); zeros in their place fill regions by probability alone."""
    return np.log(grid.areas_km2)


def away_where_right(log_probabilities: F32, log_area: F64, truth: TruePlaces) -> F64:
    """Of the photos that were taken in the cell that is filled first, how far from its position, metres."""
    _, equal, before = _own(log_probabilities, log_area, truth.cells)
    return truth.away_m[(truth.cells >= 0) & (before == 0) & (equal <= _FEW)]


def conformal_bound(log_probabilities: F32, log_area: F64, cells: I64, coverage: float, inside: Inside) -> float:
    """The least bound whose regions hold `coverage` of new photos on average, whatever the experts are worth.

    Split conformal prediction (Vovk, Gammerman and Shafer, 2005) with the share of each true cell that is filled in place of the
    true position; infinite where there are too few photos to promise it. Of the cells that is promised whatever holds; of the
    metres within a cell where `Inside` tells them and they do not depend on how sure the experts are.

    Args:
        log_probabilities: over the grid, (N, cells), of photos that nothing was fitted on.
        log_area: of the cells, (cells,), see `log_areas`.
        cells: the true ones, (N,); -1 off the grid, which no region holds.
        coverage: 0 to 1.
        inside: how regions fill a cell.
    """
    with_equals, equal, before = _own(log_probabilities, log_area, cells)
    together = np.where(equal <= _FEW, with_equals, 0.0)
    asked = np.ceil((len(cells) + 1) * coverage) - 1e-9  # photos

    def held(bound: float) -> float:
        part = np.divide(bound - before, together, out=np.ones(len(cells)), where=together > 0)
        return float(np.where((cells >= 0) & (before <= bound), inside.held(part), 0.0).sum())

    low, high = 0.0, 1.0 + 1e-6  # probabilities of float32 sum up to one and a little
    if held(high) < asked:
        return float("inf")
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) >= asked else (middle, high)
    return high


def _own(log_probabilities: F32, log_area: F64, cells: I64) -> tuple[F64, I64, F64]:
    """Of each true cell: the probability of those that are as dense, itself among them, their number, and that of denser ones."""
    level, equal, before = np.empty(len(cells)), np.empty(len(cells), np.int64), np.empty(len(cells))
    for part in _blocks(len(cells)):
        said = log_probabilities[part]
        dense, mass = _density(said, log_area), np.exp(said.astype(np.float64))
        own = np.take_along_axis(dense, np.maximum(cells[part], 0)[:, None], 1)
        equal[part] = (dense == own).sum(axis=1)
        level[part] = np.where(dense == own, mass, 0).sum(axis=1)
        before[part] = np.where(dense > own, mass, 0).sum(axis=1)
    return level, equal, before


def _density(said: F32, log_area: F64) -> F64:
    """The order in which cells are filled; those of one rounded density together."""
    return np.round((said - log_area) / _AS_DENSE) if log_area.any() else said.astype(np.float64)


def _blocks(count: int) -> list[slice]:
    """Rows at once, so that what is in between takes little memory."""
    return [slice(start, start + _ROWS) for start in range(0, count, _ROWS)]


def fill_regions(log_probabilities: F32, log_area: F64, bound: float, inside: Inside) -> F32:
    """How far from its position each cell belongs to the region of each photo, metres: (N, cells).

    `WHOLE` for all of a cell, negative for none of it. What has no more than `bound` of probability before it is in the region,
    so that it is never empty.
    """
    regions = np.empty(log_probabilities.shape, np.float32)
    for part in _blocks(len(regions)):
        regions[part] = _fill(log_probabilities[part], log_area, bound, inside)
    return regions


def _fill(said: F32, log_area: F64, bound: float, inside: Inside) -> F32:
    dense = _density(said, log_area)
    order = np.argsort(-dense, axis=1, kind="stable")
    dense, mass = np.take_along_axis(dense, order, 1), np.take_along_axis(np.exp(said.astype(np.float64)), order, 1)
    upto = np.cumsum(mass, axis=1)
    columns = np.arange(mass.shape[1])
    opens = np.concatenate([np.ones((len(mass), 1), bool), dense[:, 1:] != dense[:, :-1]], axis=1)
    first = np.maximum.accumulate(np.where(opens, columns, 0), axis=1)
    closes = np.concatenate([opens[:, 1:], np.ones((len(mass), 1), bool)], axis=1)
    last = np.minimum.accumulate(np.where(closes, columns, mass.shape[1])[:, ::-1], axis=1)[:, ::-1]
    before = np.take_along_axis(upto - mass, first, 1)
    together = np.where(last - first < _FEW, np.take_along_axis(upto, last, 1) - before, 0.0)
    filled = np.where(before <= bound, WHOLE, _NOT_IN)
    part = (before <= bound) & (before + together > bound)
    filled[part] = inside.reach_m((bound - before[part]) / together[part])
    regions = np.empty(said.shape, np.float32)
    np.put_along_axis(regions, order, filled, axis=1)
    return regions


def holds(regions: F32, truth: TruePlaces) -> npt.NDArray[np.bool_]:
    """Which regions, as `fill_regions` makes them, hold the true place: (N,)."""
    filled = regions[np.arange(len(regions)), np.maximum(truth.cells, 0)]
    return (truth.cells >= 0) & (np.maximum(truth.away_m, _LEAST_M).astype(np.float32) <= filled)


def areas_km2(regions: F32, grid: AnswerGrid) -> F64:
    """Of each region, (N,)."""
    areas = (regions == WHOLE) @ grid.areas_km2
    rows, cells = np.nonzero((regions >= 0) & (regions < WHOLE))
    caps = cap_areas_m2(grid.ids[cells], grid.lat_deg[cells], grid.lng_deg[cells], regions[rows, cells].astype(np.float64))
    np.add.at(areas, rows, caps / 1e6)
    return areas


def outline_of(region: F32, grid: AnswerGrid) -> BaseGeometry:
    """One region, (cells,), in (lng, lat)."""
    whole, part = np.flatnonzero(region == WHOLE), np.flatnonzero((region >= 0) & (region < WHOLE))
    caps = cap_outlines(grid.ids[part], grid.lat_deg[part], grid.lng_deg[part], region[part].astype(np.float64))
    return shapely.union_all([*outlines(s2.fewest(grid.ids[whole])), *caps])

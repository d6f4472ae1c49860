"""Recall versus area: how much of the map has to be searched, the likeliest part first, until the true place is in it.

A distance judges one point; a heat map is judged by the area it needs. Cells are taken by probability per area, so that the
same mass always lies in the least area; on cells of equal area these are the most probable cells. Cells as dense as the true
one are all taken with it, so a heat map that says nothing needs everything.

Source: Bianco, Eigen and Gormish, Enhancing Worldwide Image Geolocation by Ensembling Satellite-Based Ground-Level Attribute
Predictors, WACV 2025, which takes ranked regions and accumulates their area; the area under the curve over log area is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.bootstrap import Interval, intervals, quantile_intervals
from geoloc_dagster.evaluation.tables import TextTable, percent

F64 = npt.NDArray[np.float64]
POINTS = 60
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class RecallArea:
    """The share of queries found within an area, as the area grows from the smallest cell to the whole map.

    Attributes:
        area_km2: (K,) ascending, evenly spaced in its logarithm.
        recall: of each area, with intervals by place.
        auc: mean of the recall over the logarithm of the area: 1 where the first cell is always right, 0 where all is needed.
        median_km2: the area that half of the queries need.
        needed_km2: (N,) of each query; infinite where its true place lies in no cell.
        n_places: unit of the bootstrap.
    """

    area_km2: F64
    recall: tuple[Interval, ...]
    auc: Interval
    median_km2: Interval
    needed_km2: F64
    n_places: int


def needed_area_km2(log_prob: npt.NDArray[np.floating], area_km2: F64, true_cell: npt.NDArray[np.integer]) -> F64:
    """(N,) area of all cells that are at least as probable per area as the true one; infinite where there is none (-1).

    Args:
        log_prob: (N, G) log-probabilities, up to a constant per row; -inf for 0.
        area_km2: (G,) positive.
        true_cell: (N,) positions in the cells, -1 where the true place lies in none.

    Raises:
        ValueError: shapes do not fit, an area that is not positive, a NaN, or a cell that does not exist.
    """
    n, g = log_prob.shape
    cells = np.asarray(true_cell, np.int64)
    if area_km2.shape != (g,) or cells.shape != (n,) or not (area_km2 > 0).all():
        raise ValueError(f"{n} x {g} log-probabilities need {g} positive areas and {n} cells: {area_km2.shape}, {cells.shape}")
    if (cells < -1).any() or (cells >= g).any():
        raise ValueError(f"true cells go from -1 to {g - 1}, not from {cells.min()} to {cells.max()}")
    needed = np.full(n, np.inf)
    block = max(1, _BLOCK_CELLS // g)
    for start in range(0, n, block):
        rows = slice(start, start + block)
        density = np.asarray(log_prob[rows], np.float64) - np.log(area_km2)
        if np.isnan(density).any():
            raise ValueError("log-probabilities hold a NaN")
        known = cells[rows] >= 0
        own = np.take_along_axis(density, np.maximum(cells[rows], 0)[:, None], axis=1)
        needed[rows] = np.where(known, (density >= own) @ area_km2, np.inf)
    return needed


def recall_area(
    log_prob: npt.NDArray[np.floating],
    area_km2: F64,
    true_cell: npt.NDArray[np.integer],
    places: npt.ArrayLike,
    *,
    points: int = POINTS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> RecallArea:
    """Recall versus area of heat maps over one grid; raises as `needed_area_km2` does.

    Args:
        log_prob: (N, G), see there.
        area_km2: (G,) of at least two cells.
        true_cell: (N,).
        places: (N,) unit of the bootstrap.
        points: of the curve.
        bootstrap: resamples.
        seed: of the resampling.
    """
    if len(area_km2) < 2:
        raise ValueError("recall versus area needs at least two cells")
    group = np.asarray(places)
    needed = needed_area_km2(log_prob, area_km2, true_cell)
    least, whole = float(area_km2.min()), float(area_km2.sum())
    areas = np.geomspace(least, whole, points)
    areas[-1] = whole
    reach = needed[:, None] <= areas * (1 + 1e-9)
    share_of_axis = np.log(whole / np.clip(needed, least, whole)) / np.log(whole / least)
    columns = np.column_stack([reach.astype(float), share_of_axis])
    *recall, auc = intervals(columns, group, bootstrap, seed)
    [median] = quantile_intervals(needed, group, (0.5,), bootstrap, seed)
    return RecallArea(areas, tuple(recall), auc, median, needed, len(np.unique(group)))


def recall_area_table(curves: dict[str, RecallArea], areas_km2: Sequence[float]) -> TextTable:
    """One row per heat map: the share found within each area, the area under the curve and the median area needed."""
    rows = [
        [
            name,
            *(percent(curve.recall[_at(curve, area)]) for area in areas_km2),
            f"{curve.auc.value:.3f} ({curve.auc.low:.3f}–{curve.auc.high:.3f})",
            f"{curve.median_km2.value:.3g} km²",
        ]
        for name, curve in curves.items()
    ]
    header = ["heat map", *(f"within {area:g} km², %" for area in areas_km2), "area under curve", "median needed"]
    return TextTable("Recall versus area: the likeliest part of the map first", header, rows)


def summarise_recall_area(curve: RecallArea) -> dict[str, Any]:
    """The same as plain JSON values; an infinite area is null."""
    median = {name: value if np.isfinite(value) else None for name, value in curve.median_km2.as_dict().items()}
    return {
        "auc": curve.auc.as_dict(),
        "median_km2": median,
        "n_queries": len(curve.needed_km2),
        "n_places": curve.n_places,
        "n_in_no_cell": int(np.isinf(curve.needed_km2).sum()),
        "area_km2": curve.area_km2.tolist(),
        "recall": [one.as_dict() for one in curve.recall],
    }


def _at(curve: RecallArea, area_km2: float) -> int:
    """The last point of the curve that is not above that area, which never flatters."""
    return max(0, int(np.searchsorted(curve.area_km2, area_km2 * (1 + 1e-9), side="right")) - 1)

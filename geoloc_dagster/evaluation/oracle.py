"""What the best classifier over given cells could reach, so that errors of the cells and of the model are told apart.

Two bounds for each level: every photo answered by the centre of its own cell (no answer where that was dropped), which is what a
classifier that never errs gives; and by the class centre nearest to it, which no answer that is a class centre can beat, however
it was chosen, and so bounds the hierarchy too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from geoloc_dagster.evaluation.geolocation import (
    HIERARCHY,
    WORLD,
    Figures,
    GeolocationReport,
    Positions,
    Scale,
    errors_m,
    measure,
)
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import unit_vectors
from geoloc_dagster.geo.partitioning import DROPPED, CellLevel


@dataclass(frozen=True, slots=True)
class LevelOracle:
    """The two bounds of one level.

    Attributes:
        own: answered by the centre of the photo's own cell.
        nearest: answered by the nearest class centre.
        n_cells: classes.
    """

    own: Figures
    nearest: Figures
    n_cells: int


@dataclass(frozen=True, slots=True)
class Decomposed:
    """One share of a model beside what its cells allow.

    Attributes:
        cells: the level whose cells bound the answer.
        of_own: model / own, which a lucky answer next door can bring above 1; None where own is 0.
        of_nearest: model / nearest, at most 1 where answers are class centres; None where nearest is 0.
    """

    p_key: str
    cells: str
    radius_m: int
    own: float
    nearest: float
    model: float
    of_own: float | None
    of_nearest: float | None


def oracle(
    truth: Positions,
    groups: npt.NDArray[np.str_],
    levels: Sequence[CellLevel],
    *,
    scale: Scale = WORLD,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, LevelOracle]:
    """The bounds of each level, by its name, for N photos and their groups."""

    def figures(answers: Positions) -> Figures:
        return measure(errors_m(truth, answers), groups, scale, bootstrap=bootstrap, seed=seed)

    return {
        level.name: LevelOracle(figures(own_centre(truth, level)), figures(nearest_centre(truth, level)), len(level))
        for level in levels
    }


def own_centre(truth: Positions, level: CellLevel) -> Positions:
    """The class centre of each photo's own cell; no answer where it lies in none."""
    classes = level.classes(s2.leaf_ids(truth.lat_deg, truth.lng_deg))
    dropped = classes == DROPPED
    if not len(level):
        return Positions(np.full(len(truth), np.nan), np.full(len(truth), np.nan))
    return Positions(
        np.where(dropped, np.nan, level.lat_deg[classes]),
        np.where(dropped, np.nan, level.lng_deg[classes]),
    )


def nearest_centre(truth: Positions, level: CellLevel) -> Positions:
    """The class centre nearest to each photo; chords order as great circles do, across the antimeridian and at the poles too."""
    if not len(level):
        return own_centre(truth, level)
    tree = KDTree(unit_vectors(level.lat_deg, level.lng_deg))
    _, found = tree.query(unit_vectors(truth.lat_deg, truth.lng_deg))
    return Positions(level.lat_deg[found], level.lng_deg[found])


def decompose(report: GeolocationReport, bounds: Mapping[str, LevelOracle]) -> list[Decomposed]:
    """The shares of each answer beside the bounds of its level; those of the hierarchy beside the last, which is the finest."""
    finest = next(reversed(list(bounds)), "")
    rows: list[Decomposed] = []
    for key, figures in report.figures.items():
        cells = finest if key == HIERARCHY else key
        if cells not in bounds:
            continue
        for radius, share in figures.within_m.items():
            own, nearest = bounds[cells].own.within_m[radius].value, bounds[cells].nearest.within_m[radius].value
            rows.append(
                Decomposed(
                    key,
                    cells,
                    radius,
                    own,
                    nearest,
                    share.value,
                    share.value / own if own else None,
                    share.value / nearest if nearest else None,
                )
            )
    return rows

"""Accuracy by region, and averages in which a place counts by its area and not by how many people photograph it.

Test photos crowd where tourists do, so a plain share says how well those places are known. Two answers: every S2 cell of one
level that has test photos weighs as much as its area; or every region weighs alike (macro average).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.geolocation import (
    HIERARCHY,
    WORLD,
    Figures,
    Positions,
    Scale,
    Shares,
    errors_m,
    measure,
    measure_shares,
    outcomes,
)
from geoloc_dagster.evaluation.geolocation_reports import radius_name, share_cells, summarise_figures, summarise_shares
from geoloc_dagster.evaluation.tables import TextTable, percent
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.districts import district_of

AREA_CELLS = 220
REGION_CELLS = 60
MIN_PHOTOS = 20
_CONTINENTAL = 3  # S2 levels whose cells whole degrees tell apart


@dataclass(frozen=True, slots=True)
class AreaWeighted:
    """Shares in which every cell with test photos weighs as much as its area.

    Attributes:
        s2_level: of the cells.
        n_cells: that have test photos.
        area_m2: of these together.
        effective_photos: how many photos of equal weight would carry as much; where it is far below the number of photos, the
            shares hang on few photos of empty places (Kish, Survey Sampling, 1965).
        shares: by `p_key`.
    """

    s2_level: int
    n_cells: int
    area_m2: float
    effective_photos: float
    shares: dict[str, Shares]


@dataclass(frozen=True, slots=True)
class ByRegion:
    """Figures of every region, the one with most photos first and the pooled ones last.

    Attributes:
        figures: region -> `p_key` -> figures.
        macro: `p_key` -> the mean over regions, each weighing alike, the pooled ones together as one.
        pooled: the regions that had too few photos to stand alone.
    """

    figures: dict[str, dict[str, Figures]]
    macro: dict[str, Shares]
    pooled: tuple[str, ...]


def area_weighted(
    truth: Positions,
    answers: Mapping[str, Positions],
    groups: npt.NDArray[np.str_],
    *,
    scale: Scale = WORLD,
    s2_level: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> AreaWeighted:
    """Weigh every photo by the area of its cell over the number of test photos there; weights stay as they are in resamples.

    Args:
        truth: of N photos.
        answers: `p_key` -> N positions.
        groups: (N,) unit of the bootstrap.
        scale: radii, score, and the area by which the level is chosen.
        s2_level: of the cells; None chooses the one with 100 to 500 cells in all: 3, of 384 cells, for the world.
        bootstrap: resamples.
        seed: of the resampling.
    """
    level = level_with(scale, AREA_CELLS) if s2_level is None else s2_level
    ids, code, counts = np.unique(_cells(truth, level), return_inverse=True, return_counts=True)
    areas = s2.areas_m2(ids)
    weights = (areas / counts)[code]
    shares = {
        key: measure_shares(outcomes(errors_m(truth, answer), scale), groups, scale, bootstrap, seed, weights)
        for key, answer in answers.items()
    }
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return AreaWeighted(level, len(ids), float(areas.sum()), effective, shares)


def region_names(truth: Positions, polygons: Path | None = None, *, scale: Scale = WORLD, property: str = "name") -> list[str]:
    """The region of each photo: the polygon it lies in, else an S2 cell the size of a continent's quarter.

    Args:
        truth: of N photos.
        polygons: with names; a photo in none of them is `outside`. None takes S2 cells: of level 2, 96 in all, for the world.
        scale: by whose area the level is chosen where there are no polygons.
        property: of the polygons, that names them.

    Raises:
        BoundaryError: the polygons cannot be used.
    """
    if polygons is not None:
        return district_of(truth.lat_deg, truth.lng_deg, polygons, property).tolist()
    level = level_with(scale, REGION_CELLS)
    ids, code = np.unique(_cells(truth, level), return_inverse=True)
    digits = 0 if level <= _CONTINENTAL else 3
    names = [
        f"S2 {token} ({_hemispheres(lat, lng, digits)})"
        for token, lat, lng in zip(s2.tokens(ids), *(values.tolist() for values in s2.centres(ids)), strict=True)
    ]
    return [names[i] for i in code.tolist()]


def by_region(
    truth: Positions,
    answers: Mapping[str, Positions],
    groups: npt.NDArray[np.str_],
    regions: list[str] | npt.NDArray[np.str_],
    *,
    scale: Scale = WORLD,
    min_photos: int = MIN_PHOTOS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> ByRegion:
    """Figures of every region, or of every other part that photos fall into, such as scenes.

    Args:
        truth: of N photos.
        answers: `p_key` -> N positions.
        groups: (N,) unit of the bootstrap.
        regions: (N,) the region of each photo.
        scale: radii and score.
        min_photos: regions with fewer are measured together, under a name that says so.
        bootstrap: resamples.
        seed: of the resampling.
    """
    names, together, pooled = _pooled(np.asarray(regions, np.str_), min_photos)
    found, code, counts = np.unique(names, return_inverse=True, return_counts=True)
    order = sorted(range(len(found)), key=lambda i: (found[i] == together, -counts[i], found[i]))
    errors = {key: errors_m(truth, answer) for key, answer in answers.items()}

    def figures_of(rows: npt.NDArray[np.bool_]) -> dict[str, Figures]:
        return {key: measure(error[rows], groups[rows], scale, bootstrap=bootstrap, seed=seed) for key, error in errors.items()}

    figures = {str(found[i]): figures_of(code == i) for i in order}
    weights = (1 / counts)[code]
    macro = {
        key: measure_shares(outcomes(error, scale), groups, scale, bootstrap, seed, weights) for key, error in errors.items()
    }
    return ByRegion(figures, macro, pooled)


def regions_table(result: ByRegion, p_key: str = HIERARCHY, title: str = "By region", first: str = "region") -> TextTable:
    """One row per region for one kind of answer, then the macro average; intervals only over five groups or more."""
    radii = next(iter(result.figures.values()))[p_key].within_m
    rows = [_region_row(name, figures[p_key]) for name, figures in result.figures.items()]
    macro = result.macro[p_key]
    last = ["mean of the rows", "", "", *(percent(share) for share in macro.within_m.values()), f"{macro.score.value:.0f}"]
    return TextTable(f"{title} (`{p_key}`)", [first, "photos", "groups", *_share_header(radii)], [*rows, last])


def area_table(result: AreaWeighted, figures: Mapping[str, Figures]) -> TextTable:
    """Per kind of answer: shares of photos, and beneath them those weighted by area."""
    radii = next(iter(result.shares.values())).within_m
    rows: list[list[str]] = []
    for key, shares in result.shares.items():
        for what, means in (("by photo", figures[key]), ("by area", shares)):
            values = [percent(share) for share in means.within_m.values()]
            rows.append([f"{key}, {what}", *values, f"{means.score.value:.0f}"])
    title = (
        f"Weighted by area: {result.n_cells:,} S2 cells of level {result.s2_level} with photos, "
        f"{result.effective_photos:,.0f} photos' worth"
    )
    return TextTable(title, ["answer", *_share_header(radii)], rows)


def summarise_regions(result: ByRegion) -> dict[str, Any]:
    """Figures by region as plain JSON values."""
    return {
        "regions": {
            name: {key: summarise_figures(figures) for key, figures in by_key.items()} for name, by_key in result.figures.items()
        },
        "macro": {key: summarise_shares(shares) for key, shares in result.macro.items()},
        "pooled": list(result.pooled),
    }


def summarise_area(result: AreaWeighted) -> dict[str, Any]:
    """Shares weighted by area as plain JSON values."""
    return {
        "s2_level": result.s2_level,
        "n_cells": result.n_cells,
        "area_m2": result.area_m2,
        "effective_photos": result.effective_photos,
        "shares": {key: summarise_shares(shares) for key, shares in result.shares.items()},
    }


def level_with(scale: Scale, cells: int) -> int:
    """The S2 level that has, on the area of the scale, nearest to that many cells (in proportion)."""
    whole = WORLD.area_m2 / 6
    level = round(np.log(cells * whole / scale.area_m2) / np.log(4))
    return int(np.clip(level, 0, s2.MAX_LEVEL))


def _cells(truth: Positions, level: int) -> s2.U64:
    return s2.parents(s2.leaf_ids(truth.lat_deg, truth.lng_deg), level)


def _pooled(regions: npt.NDArray[np.str_], min_photos: int) -> tuple[npt.NDArray[np.str_], str | None, tuple[str, ...]]:
    """Names with the small regions under one, that one, and which these are; a single small one keeps its name."""
    found, code, counts = np.unique(regions, return_inverse=True, return_counts=True)
    small = counts < min_photos
    if np.count_nonzero(small) < 2:
        return regions, None, ()
    together = f"fewer than {min_photos} photos each ({np.count_nonzero(small)} together)"
    return np.where(small, together, found)[code], together, tuple(found[small].tolist())


def _region_row(name: str, figures: Figures) -> list[str]:
    return [name, f"{figures.n_photos:,}", f"{figures.n_groups:,}", *share_cells(figures), f"{figures.score.value:.0f}"]


def _share_header(radii: Mapping[int, object]) -> list[str]:
    return [*(f"{radius_name(radius)}, %" for radius in radii), "GeoScore"]


def _hemispheres(lat: float, lng: float, digits: int) -> str:
    return f"{abs(lat):.{digits}f}° {'N' if lat >= 0 else 'S'}, {abs(lng):.{digits}f}° {'E' if lng >= 0 else 'W'}"

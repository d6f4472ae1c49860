"""Whether regions hold what they promise: coverage by year, district and distance, and how large they are.

A conformal region of 90 % covers 90 % of all new photos on average; it may still cover far fewer of one year or of places far
from the gallery. Photos of one place are covered or missed together, so intervals resample places. Beside the 95 % interval
stands one of 99 %: over a dozen groups, one 95 % interval in two tables misses the nominal coverage by chance alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.bootstrap import Interval, intervals, quantile_intervals
from geoloc_dagster.evaluation.geolocation import MIN_GROUPS
from geoloc_dagster.evaluation.tables import NONE, TextTable, area, length, percent

DISTANCE_EDGES_M = (0.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
OVERALL = "all"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Regions of a part of the photos.

    Attributes:
        covered: share of regions that hold the true position, with its 95 % interval.
        wide: the same share with its 99 % interval; where all places are covered or none, which no resample changes, the exact
            one of as many places.
        area_km2: median area with its 95 % interval.
        area_p90_km2: the area that 90 % of the regions do not exceed.
        enough: five places or more; over fewer the intervals say nothing.
    """

    n_photos: int
    n_places: int
    covered: Interval
    wide: Interval
    area_km2: Interval
    area_p90_km2: Interval

    @property
    def enough(self) -> bool:  # noqa: D102 - see Attributes
        return self.n_places >= MIN_GROUPS

    def holds(self, nominal: float) -> bool:
        """Whether the 99 % interval contains the nominal coverage."""
        return self.wide.low <= nominal <= self.wide.high


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """Coverage of all, and by what it may depend on: `year`, `district`, `distance` -> group -> coverage, in order."""

    nominal: float
    overall: Coverage
    groups: dict[str, dict[str, Coverage]]

    @property
    def off_by(self) -> float:
        """Coverage less the nominal one."""
        return self.overall.covered.value - self.nominal

    def failing(self, what: str) -> list[str]:
        """Groups of at least five places whose 99 % interval misses the nominal coverage."""
        return [name for name, one in self.groups.get(what, {}).items() if one.enough and not one.holds(self.nominal)]


def coverage_report(
    covered: npt.NDArray[np.bool_],
    area_km2: npt.ArrayLike,
    places: npt.ArrayLike,
    *,
    nominal: float = 0.9,
    years: npt.ArrayLike | None = None,
    districts: npt.ArrayLike | None = None,
    distance_m: npt.ArrayLike | None = None,
    distance_edges_m: Sequence[float] = DISTANCE_EDGES_M,
    bootstrap: int = 1000,
    seed: int = 0,
) -> CoverageReport:
    """Measure regions against the coverage that was promised.

    Args:
        covered: (N,) whether the region holds the true position.
        area_km2: (N,) areas; infinite for "anywhere".
        places: (N,) unit of the bootstrap.
        nominal: the coverage promised, between 0 and 1.
        years: (N,) capture year; NaN or None where unknown.
        districts: (N,) names.
        distance_m: (N,) metres to the nearest place that answers come from; NaN where unknown.
        distance_edges_m: ascending lower ends of the classes of distance; the last goes on.
        bootstrap: resamples.
        seed: of the resampling.

    Raises:
        ValueError: no photos, lengths differ, or a nominal coverage that is none.
    """
    if not 0 < nominal < 1:
        raise ValueError(f"a nominal coverage lies between 0 and 1, not at {nominal}")
    hit, size, place = np.asarray(covered, bool), np.asarray(area_km2, float), np.asarray(places)
    labels = {
        "year": None if years is None else [_year(value) for value in np.asarray(years, object).tolist()],
        "district": None if districts is None else [str(value) for value in np.asarray(districts, object).tolist()],
        "distance": None if distance_m is None else _classes(np.asarray(distance_m, float), distance_edges_m),
    }
    lengths = {len(hit), len(size), len(place), *(len(label) for label in labels.values() if label is not None)}
    if len(lengths) != 1 or not len(hit):
        raise ValueError(f"need as many of everything, and at least one: {sorted(lengths)}")

    def measured(rows: npt.NDArray[np.bool_]) -> Coverage:
        return _measure(hit[rows], size[rows], place[rows], bootstrap, seed)

    groups = {
        what: {name: measured(np.asarray(label) == name) for name in _ordered(what, label, distance_edges_m)}
        for what, label in labels.items()
        if label is not None
    }
    return CoverageReport(nominal, measured(np.ones(len(hit), bool)), groups)


def coverage_tables(report: CoverageReport) -> list[TextTable]:
    """One table per grouping, each with the whole as its last row."""
    header = [
        "photos",
        "places",
        "covered, % (95 %)",
        "99 % interval",
        f"holds {100 * report.nominal:g} %",
        "median area",
        "90 % area",
    ]
    title = f"Coverage of {100 * report.nominal:g} % regions"
    parts = report.groups or {"": {}}
    return [
        TextTable(
            f"{title} by {what}" if what else title,
            [what or "photos of", *header],
            [_row(name, one, report.nominal) for name, one in [*found.items(), (OVERALL, report.overall)]],
        )
        for what, found in parts.items()
    ]


def summarise_coverage(report: CoverageReport) -> dict[str, Any]:
    """The same as plain JSON values; an infinite area is null."""
    return {
        "nominal": report.nominal,
        "interval": "95 % and 99 %, places resampled",
        "off_by": report.off_by,
        "overall": _summary(report.overall, report.nominal),
        "by": {
            what: {name: _summary(one, report.nominal) for name, one in found.items()} for what, found in report.groups.items()
        },
    }


def _measure(hit: np.ndarray, size: np.ndarray, place: np.ndarray, bootstrap: int, seed: int) -> Coverage:
    median, p90 = quantile_intervals(size, place, (0.5, 0.9), bootstrap, seed)
    return Coverage(
        n_photos=len(hit),
        n_places=len(np.unique(place)),
        covered=intervals(hit[:, None], place, bootstrap, seed)[0],
        wide=_wide(hit, place, bootstrap, seed),
        area_km2=median,
        area_p90_km2=p90,
    )


def _year(value: object) -> str:
    known = isinstance(value, int | float | np.integer | np.floating) and np.isfinite(value)
    return str(int(value)) if known else UNKNOWN  # type: ignore[arg-type]


def _classes(metres: npt.NDArray[np.float64], edges: Sequence[float]) -> list[str]:
    if list(edges) != sorted(set(edges)) or not len(edges):
        raise ValueError(f"edges of distances ascend: {edges}")
    names = _class_names(edges)
    place = np.clip(np.searchsorted(np.asarray(edges, float), metres, side="right") - 1, 0, len(names) - 1)
    return [UNKNOWN if np.isnan(value) else names[i] for i, value in zip(place.tolist(), metres.tolist(), strict=True)]


def _class_names(edges: Sequence[float]) -> list[str]:
    inner = [f"{low:g}–{high:g} m" for low, high in pairwise(edges)]
    return [*inner, f"{edges[-1]:g} m or more"]


def _ordered(what: str, labels: list[str], edges: Sequence[float]) -> list[str]:
    found = set(labels)
    known = [name for name in _class_names(edges) if name in found] if what == "distance" else sorted(found - {UNKNOWN})
    return [*known, *(name for name in (UNKNOWN,) if name in found)]


def _row(name: str, one: Coverage, nominal: float) -> list[str]:
    sizes = [name, f"{one.n_photos:,}", f"{one.n_places:,}"]
    if not one.enough:
        return [*sizes, f"{100 * one.covered.value:.1f}", NONE, NONE, _area(one.area_km2.value), _area(one.area_p90_km2.value)]
    wide = f"{100 * one.wide.low:.1f}–{100 * one.wide.high:.1f}"
    holds = "yes" if one.holds(nominal) else "no"
    return [*sizes, percent(one.covered), wide, holds, _area(one.area_km2.value), _area(one.area_p90_km2.value)]


def _wide(hit: np.ndarray, place: np.ndarray, bootstrap: int, seed: int) -> Interval:
    """The 99 % interval; Clopper and Pearson's where every resample of the places would be the same."""
    found = intervals(hit[:, None], place, bootstrap, seed, level=0.99)[0]
    if not hit.all() and hit.any():
        return found
    edge = (0.01 / 2) ** (1 / len(np.unique(place)))
    return replace(found, low=edge) if hit.all() else replace(found, high=1 - edge)


def _area(km2: float) -> str:
    """An area at a glance, and the side of a square of it: `0.25 km² (500 m)²`."""
    if not np.isfinite(km2):
        return "anywhere"
    return f"{area(km2)} ({length(1000 * float(np.sqrt(km2)))})²"


def _summary(one: Coverage, nominal: float) -> dict[str, Any]:
    return {
        "n_photos": one.n_photos,
        "n_places": one.n_places,
        "covered": one.covered.as_dict(),
        "covered_99": one.wide.as_dict(),
        "holds_nominal": one.holds(nominal) if one.enough else None,
        "area_km2": _finite(one.area_km2),
        "area_p90_km2": _finite(one.area_p90_km2),
    }


def _finite(interval: Interval) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in interval.as_dict().items()}

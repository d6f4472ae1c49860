"""The atlas: what is known of every district, and how well it can be found again.

Pictures, places and their age are those of the whole catalog, whatever split they are in, because that is what a release
answers from; recall and regions are those of the held-out queries, which lie in some districts only. A figure over fewer than
`MIN_PLACES` places is left out, and the numbers of places and pictures always stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from shapely.geometry.base import BaseGeometry

from geoloc_dagster import storage
from geoloc_dagster.config import Settings
from geoloc_dagster.evaluation.bootstrap import Interval, intervals, quantile_intervals
from geoloc_dagster.evaluation.retrieval import MIN_PLACES
from geoloc_dagster.evaluation.tables import NONE, TextTable, percent
from geoloc_dagster.geo.districts import district_outlines

if TYPE_CHECKING:
    import geopandas as gpd

_DAYS = 365.25
FIGURES = ("recall", "coverage", "age_years", "region_km2")


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Prediction regions of queries: (N,) each, in any order; queries are found by `capture_ids`."""

    capture_ids: list[str]
    covered: npt.NDArray[np.bool_]
    area_km2: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class District:
    """What is known of one district.

    Attributes:
        n_places: places with usable pictures, of all splits.
        n_pictures: these.
        n_query_places: places that queries ask about.
        recall: share of queries found: at the first rank, or near enough where an answer is a position; None over fewer than
            `MIN_PLACES` places, as all figures.
        coverage: share of regions that hold the true position.
        age_years: median age of the dated pictures on the day of the atlas.
        region_km2: median area of the regions.
    """

    name: str
    n_places: int
    n_pictures: int
    n_queries: int
    n_query_places: int
    recall: Interval | None
    coverage: Interval | None
    age_years: Interval | None
    region_km2: Interval | None


@dataclass(frozen=True, slots=True)
class Atlas:
    """The districts by name; ages are those on `as_of`, and left out where it is None."""

    as_of: date | None
    districts: tuple[District, ...]


def make_atlas(
    catalog: pa.Table,
    queries: pa.Table,
    *,
    as_of: date | None,
    regions: Regions | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Atlas:
    """Gather the figures of every district that has usable pictures or queries.

    Args:
        catalog: the feature table.
        queries: capture_id, location_id, district, first_hit_rank of an evaluation (`queries.parquet`).
        as_of: the day that ages are counted to; None where no picture is dated.
        regions: of the same queries, where there are any.
        bootstrap: resamples of the intervals.
        seed: of the resampling.
    """
    held: Any = catalog.filter(pc.field("usable")).select(["location_id", "district", "captured_on"]).to_pandas()
    asked: Any = queries.select(["capture_id", "location_id", "district", "first_hit_rank"]).to_pandas()
    held["age"] = _age_years(held["captured_on"], as_of)
    _join(asked, regions)
    names = sorted({*held["district"].dropna(), *asked["district"].dropna()})

    def district(name: str) -> District:
        own, here = held[held["district"] == name], asked[asked["district"] == name]
        known = here[here["area_km2"].notna()]
        dated = own[own["age"].notna()]
        return District(
            name=name,
            n_places=int(own["location_id"].nunique()),
            n_pictures=len(own),
            n_queries=len(here),
            n_query_places=int(here["location_id"].nunique()),
            recall=_mean((here["first_hit_rank"] == 1).to_numpy(float), here["location_id"].to_numpy(str), bootstrap, seed),
            coverage=_mean(known["covered"].to_numpy(float), known["location_id"].to_numpy(str), bootstrap, seed),
            age_years=_median(dated["age"].to_numpy(float), dated["location_id"].to_numpy(str), bootstrap, seed),
            region_km2=_median(known["area_km2"].to_numpy(float), known["location_id"].to_numpy(str), bootstrap, seed),
        )

    return Atlas(as_of, tuple(district(name) for name in names))


def region_outlines(settings: Settings, catalog: pa.Table) -> dict[str, BaseGeometry | None]:
    """The polygon of every district that the catalog names, as the region's settings name districts."""
    named = settings.region.districts
    path = None if named is None else settings.resolve(named)
    return district_outlines(
        sorted(catalog["district"].drop_null().unique().to_pylist()), path, settings.region.district_property
    )


def newest_day(catalog: pa.Table) -> date | None:
    """The newest day of capture in the catalog, to which ages can be counted whatever the day of the evaluation."""
    days: list[date] = catalog["captured_on"].drop_null().unique().to_pylist()
    return max(days, default=None)


def atlas_frame(atlas: Atlas, outlines: Mapping[str, BaseGeometry | None]) -> gpd.GeoDataFrame:
    """One row per district with its polygon: counts, and value, low and high of every figure, NaN where it is left out."""
    import geopandas as gpd

    columns: dict[str, Any] = {
        name: [getattr(one, name) for one in atlas.districts]
        for name in ("name", "n_places", "n_pictures", "n_queries", "n_query_places")
    }
    columns["as_of"] = [None if atlas.as_of is None else atlas.as_of.isoformat()] * len(atlas.districts)
    for figure in FIGURES:
        found: list[Interval | None] = [getattr(one, figure) for one in atlas.districts]
        for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high")):
            columns[figure + suffix] = [np.nan if one is None else getattr(one, end) for one in found]
    geometry: Any = [outlines.get(one.name) for one in atlas.districts]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs="OGC:CRS84")


def write_atlas(path: Path, atlas: Atlas, outlines: Mapping[str, BaseGeometry | None]) -> Path:
    """Write the districts as GeoParquet."""
    return storage.write_geoparquet(path, atlas_frame(atlas, outlines))


def atlas_table(atlas: Atlas, *, found: str = "R@1, %") -> TextTable:
    """One row per district, the one with most pictures first; `found` says what recall is of."""
    has_regions = any(one.coverage is not None for one in atlas.districts)
    header = ["district", "places", "pictures", "queries", found, "median age, years"]
    rows = [
        [
            one.name,
            f"{one.n_places:,}",
            f"{one.n_pictures:,}",
            f"{one.n_queries:,}",
            percent(one.recall),
            _plain(one.age_years, 1),
            *([percent(one.coverage), _plain(one.region_km2, 3)] if has_regions else []),
        ]
        for one in sorted(atlas.districts, key=lambda one: (-one.n_pictures, one.name))
    ]
    more = ["covered, %", "median region, km²"] if has_regions else []
    return TextTable(f"Atlas of districts, ages on {atlas.as_of or NONE}", [*header, *more], rows)


def _age_years(captured_on: Any, as_of: date | None) -> np.ndarray:
    """(N,) NaN where a picture has no date."""
    if as_of is None:
        return np.full(len(captured_on), np.nan)
    days = np.datetime64(as_of, "D") - captured_on.to_numpy("datetime64[D]")
    return np.where(captured_on.isna().to_numpy(), np.nan, days / np.timedelta64(1, "D") / _DAYS)


def _join(asked: Any, regions: Regions | None) -> None:
    """Put `covered` and `area_km2` beside the queries; NaN where a query has no region."""
    asked["covered"], asked["area_km2"] = np.nan, np.nan
    if regions is None:
        return
    row = {capture: i for i, capture in enumerate(regions.capture_ids)}
    place = np.array([row.get(capture, -1) for capture in asked["capture_id"]], np.int64)
    for name, values in (("covered", regions.covered), ("area_km2", regions.area_km2)):
        asked[name] = np.where(place >= 0, np.asarray(values, float)[place], np.nan)


def _mean(values: np.ndarray, places: np.ndarray, bootstrap: int, seed: int) -> Interval | None:
    if len(np.unique(places)) < MIN_PLACES:
        return None
    return intervals(values[:, None], places, bootstrap, seed)[0]


def _median(values: np.ndarray, places: np.ndarray, bootstrap: int, seed: int) -> Interval | None:
    if len(np.unique(places)) < MIN_PLACES:
        return None
    return quantile_intervals(values, places, (0.5,), bootstrap, seed)[0]


def _plain(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return NONE
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f}–{interval.high:.{digits}f})"

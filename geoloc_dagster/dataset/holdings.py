"""What a region holds: locations, panoramas and captures per year, district and heading; no picture is read for that.

A panorama is what one source shows of one location on one date. The captures table is read a piece at a time: what is held of it
is one row per panorama.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pending import complete_locations
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.districts import S2_LEVEL, district_of, unnamed_level
from geoloc_dagster.imagery.provider import failure_classes
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table

UNDATED = "undated"
UNREGISTERED = "not registered"
_CHUNK_ROWS = 65_536
_PARTS = 64  # of a count that are held apart before they are added up
_PANORAMA = ["location_id", "source", "captured_on"]
_DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class Count:
    """How much there is of one year."""

    name: str
    locations: int
    panoramas: int
    captures: int


@dataclass(frozen=True, slots=True)
class District:
    """How far one district is.

    Attributes:
        registered: locations to collect.
        complete: of these, locations that gave everything they had.
        locations: with pictures.
        newest: the date of its newest picture.
        median_age_years: of its pictures.
    """

    name: str
    registered: int
    complete: int
    locations: int
    panoramas: int
    captures: int
    newest: dt.date | None
    median_age_years: float | None


@dataclass(frozen=True, slots=True)
class Age:
    """How old the pictures are, in years: the tenth, the half and the nine tenths of them that are younger."""

    percentile_10: float
    median: float
    percentile_90: float


@dataclass(frozen=True)
class Holdings:
    """What is there.

    Attributes:
        registered: locations.
        visited: of these, locations that were asked about.
        complete: of these, locations that gave everything they had.
        without_pictures: visited locations that have nothing.
        to_try_again: views that gave nothing for now.
        locations: with pictures.
        panoramas: with pictures.
        captures: pictures.
        failures: views that give no picture, by class and kind.
        by_year: oldest first, undated last.
        by_district: most locations first.
        by_heading: captures per heading (`90°`) or rotation (`r1`).
        age: None without dated pictures.
    """

    region: str
    as_of: dt.date
    registered: int = 0
    visited: int = 0
    complete: int = 0
    without_pictures: int = 0
    to_try_again: int = 0
    locations: int = 0
    panoramas: int = 0
    captures: int = 0
    failures: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    by_year: list[Count] = field(default_factory=list[Count])
    by_district: list[District] = field(default_factory=list[District])
    by_heading: dict[str, int] = field(default_factory=dict[str, int])
    age: Age | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell of: no location and no capture, not even a failed one."""
        return not (self.registered or self.captures or self.failures)

    @property
    def complete_share(self) -> float | None:
        """Of the registered locations; None where there is none."""
        return self.complete / self.registered if self.registered else None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON knows it."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain | {"complete_share": self.complete_share}


def holdings(settings: Settings, layout: Layout, *, today: dt.date) -> Holdings:
    """Count what the region holds.

    Raises:
        IntegrityError: a table is damaged.
        BoundaryError: the districts cannot be used.
    """
    panoramas, headings, failures = _counted(layout)
    places = _places(settings, layout, panoramas)
    districts = dict(zip(places["location_id"], places["district"], strict=True))
    panoramas["district"] = [districts[location_id] for location_id in panoramas["location_id"]]
    panoramas["age_years"] = _ages(panoramas["captured_on"], today)
    visits = _last_visits(layout)
    visits = visits[visits["location_id"].isin(places.loc[places["registered"], "location_id"])]
    return Holdings(
        region=settings.region.name,
        as_of=today,
        registered=int(places["registered"].sum()),
        visited=len(visits),
        complete=int(places["complete"].sum()),
        without_pictures=int((visits["dates"] == 0).sum()),
        to_try_again=int(visits["pending"].sum()),
        locations=panoramas["location_id"].nunique(),
        panoramas=len(panoramas),
        captures=int(panoramas["captures"].sum()),
        failures=failure_classes(failures),
        by_year=_by_year(panoramas),
        by_district=_by_district(places, panoramas),
        by_heading=headings,
        age=_age(panoramas),
    )


# --- from the tables ------------------------------------------------------------------------------------------------
class _Counter:
    """Rows of a few columns and how often each occurs, added up now and then."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._parts: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        self._parts.append(_renamed(rows.group_by(self._columns).aggregate([([], "count_all")]), "count_all"))
        if len(self._parts) >= _PARTS:
            self._parts = [self._sum()]

    def frame(self) -> pd.DataFrame:
        return self._sum().to_pandas() if self._parts else pd.DataFrame(columns=[*self._columns, "captures"])

    def _sum(self) -> pa.Table:
        together = pa.concat_tables(self._parts)
        return _renamed(together.group_by(self._columns).aggregate([("captures", "sum")]), "captures_sum")


def _renamed(counted: pa.Table, name: str) -> pa.Table:
    return counted.rename_columns(["captures" if column == name else column for column in counted.column_names])


def _counted(layout: Layout) -> tuple[pd.DataFrame, dict[str, int], dict[str, int]]:
    """Panoramas with their captures, captures per heading, and views without a picture per kind."""
    panoramas, headings, failures = _Counter(_PANORAMA), _Counter(["heading_deg", "rotation"]), _Counter(["failure"])
    table = open_table(layout.panoramas)
    for status in () if table is None else ("ok", "failed"):
        columns = [*_PANORAMA, "heading_deg", "rotation"] if status == "ok" else ["failure"]
        assert table is not None
        for chunk in table.scanner(columns=columns, filter=f"status = '{status}'", batch_size=_CHUNK_ROWS).to_batches():
            rows = pa.Table.from_batches([chunk])
            for counter in (panoramas, headings) if status == "ok" else (failures,):
                counter.add(rows)
    failed = failures.frame()
    by_kind = {str(kind): int(count) for kind, count in zip(failed["failure"], failed["captures"], strict=True)}
    return panoramas.frame(), _named_headings(headings.frame()), by_kind


def _named_headings(headings: pd.DataFrame) -> dict[str, int]:
    counts: dict[tuple[int, int], int] = {}
    for heading, rotation, count in headings[["heading_deg", "rotation", "captures"]].itertuples(index=False):
        key = (1, int(rotation)) if pd.isna(heading) else (0, round(float(heading)) % 360)
        counts[key] = counts.get(key, 0) + int(count)
    return {f"r{value}" if turned else f"{value}°": counts[turned, value] for turned, value in sorted(counts)}


def _places(settings: Settings, layout: Layout, panoramas: pd.DataFrame) -> pd.DataFrame:
    """Every registered location and every one with pictures: district, and whether it is registered and complete."""
    columns = ["location_id", "lat_deg", "lng_deg"]
    registered: pd.DataFrame = (
        read_parquet(layout.locations, columns=columns).to_pandas()
        if layout.locations.is_file()
        else pd.DataFrame(columns=columns)
    )
    place, districts = settings.region, settings.region.districts
    path = None if districts is None else settings.resolve(districts)
    level = unnamed_level(read_boundary(layout.boundary).area_km2) if layout.boundary.is_file() else S2_LEVEL
    lat, lng = registered["lat_deg"], registered["lng_deg"]
    names = district_of(lat, lng, path, place.district_property, level=level) if len(registered) else []
    registered = registered.assign(
        district=names, registered=True, complete=registered["location_id"].isin(complete_locations(layout.visits))
    )
    others = sorted(set(panoramas["location_id"]) - set(registered["location_id"]))
    unknown = pd.DataFrame({"location_id": others, "district": UNREGISTERED, "registered": False, "complete": False})
    wanted = ["location_id", "district", "registered", "complete"]
    return pd.concat([frame[wanted] for frame in (registered, unknown) if len(frame)] or [unknown[wanted]], ignore_index=True)


def _last_visits(layout: Layout) -> pd.DataFrame:
    """The last visit of each location: location_id, dates, pending."""
    table = open_table(layout.visits)
    if table is None:
        return pd.DataFrame({"location_id": pd.Series(dtype=str), "dates": pd.Series(dtype=int), "pending": pd.Series(dtype=int)})
    visits: pd.DataFrame = table.to_table(columns=["location_id", "visited_at", "dates", "pending"]).to_pandas()
    return visits.sort_values("visited_at", kind="stable").drop_duplicates("location_id", keep="last")


# --- sums -----------------------------------------------------------------------------------------------------------
def _ages(captured_on: Iterable[dt.date | None], today: dt.date) -> list[float]:
    return [np.nan if pd.isna(day) else (today - day).days / _DAYS_PER_YEAR for day in captured_on]  # type: ignore[operator]


def _by_year(panoramas: pd.DataFrame) -> list[Count]:
    years = [UNDATED if pd.isna(day) else f"{day.year}" for day in panoramas["captured_on"]]
    groups = panoramas.assign(year=years).groupby("year", sort=True)  # digits come before letters
    return [Count(str(name), rows["location_id"].nunique(), len(rows), int(rows["captures"].sum())) for name, rows in groups]


def _by_district(places: pd.DataFrame, panoramas: pd.DataFrame) -> list[District]:
    pictures = dict(iter(panoramas.groupby("district")))
    found: list[District] = []
    for name, rows in places.groupby("district"):
        mine: pd.DataFrame = pictures.get(name, panoramas.iloc[:0])
        dated = mine["captured_on"].dropna()
        age = _age(mine)
        found.append(
            District(
                name=str(name),
                registered=int(rows["registered"].sum()),
                complete=int(rows["complete"].sum()),
                locations=mine["location_id"].nunique(),
                panoramas=len(mine),
                captures=int(mine["captures"].sum()),
                newest=max(dated) if len(dated) else None,
                median_age_years=None if age is None else age.median,
            )
        )
    return sorted(found, key=lambda district: (-district.registered, district.name))


def _age(panoramas: pd.DataFrame) -> Age | None:
    """Of the pictures, each counted once."""
    dated = panoramas.dropna(subset=["age_years"]).sort_values("age_years")
    if dated.empty:
        return None
    ages, so_far = dated["age_years"].to_numpy(float), np.cumsum(dated["captures"].to_numpy(np.int64))
    at = (round(float(ages[np.searchsorted(so_far, share * so_far[-1])]), 2) for share in (0.1, 0.5, 0.9))
    return Age(*at)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value.isoformat() if isinstance(value, dt.date) else value
